//! To be filled.

use crate::pack::cases::Suite;
use crate::pack::objective::Objective;
use crate::pack::rules::Group;

pub(super) fn groups(_objective: &Objective) -> Vec<Group> {
    Vec::new()
}

pub(super) fn suite() -> Suite {
    Suite { name: "traffic", evaluate: "30s", cases: Vec::new() }
}
