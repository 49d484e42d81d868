//! The dashboards: one file per question.
//!
//! | file | the question |
//! |---|---|
//! | `overview.rs` | is it well, and if not, which signal and which route? the only one that alerts link to |

mod overview;

use super::dashboard::Dashboard;
use super::objective::Objective;

/// All dashboards, in the order of their list.
#[must_use]
pub fn all(objective: &Objective) -> Vec<Dashboard> {
    vec![overview::dashboard(objective)]
}
