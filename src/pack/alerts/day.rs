//! To be filled.

use crate::pack::cases::Suite;

pub(super) fn suite() -> Suite {
    Suite { name: "day", evaluate: "1m", cases: Vec::new() }
}
