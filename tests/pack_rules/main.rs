//! The rules that dashboards, rule files and runbooks keep, as checks over the files that users get. Each check is shown to
//! find a fault as well: a check that cannot fail says nothing.
//!
//! | file | what it checks |
//! |---|---|
//! | `linter.rs` | the seventeen rules of dashboard-linter |
//! | `boards.rs` | what else a dashboard must be |
//! | `alerts.rs` | recording rules, alerts and their tests |
//! | `runbooks.rs` | the pages that alerts lead to |
//! | `vocabulary.rs` | every name in any query is on the page of a real sidecar |

mod alerts;
mod boards;
#[path = "../common/mod.rs"]
mod common;
mod linter;
mod runbooks;
mod vocabulary;

/// Fails with all of the faults, one a line.
#[track_caller]
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
