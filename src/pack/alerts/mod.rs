//! The alerts: one file per part of the house, each with its rules and the cases that show that they fire, stay quiet
//! and end.
//!
//! | file | what it holds |
//! |---|---|
//! | `budget.rs` | error budgets: what is recorded of objectives, burn alerts, and what these cannot see |
//! | `traffic.rs` | failing altogether, backend unreachable, client errors, traffic that drops or jumps |
//! | `saturation.rs` | every resource near its limit, and forecasts paired with a level |
//! | `sidecar.rs` | the sidecar's own health, targets, the watchdog |
//! | `day.rs` | no alert: healthy days, at which all of them are to be quiet |

pub(crate) mod budget;
mod day;
mod saturation;
mod sidecar;
mod traffic;

use super::cases::Suite;
use super::rules::Group;

/// All groups, in the order of the file: what is recorded comes before what reads it. They are the same for every
/// objective, which they read from the page.
#[must_use]
pub fn groups() -> Vec<Group> {
    [traffic::groups, budget::groups, saturation::groups, sidecar::groups].map(|part| part()).concat()
}

/// All cases. They hold for the default objective.
#[must_use]
pub fn suites() -> Vec<Suite> {
    [budget::suites(), traffic::suites(), vec![saturation::suite(), sidecar::suite(), day::suite()]].concat()
}
