//! Templates learned from traffic.

use crate::labels::RouteId;

/// What was learned. One for the life of the process; workers share it.
#[derive(Debug)]
pub struct Learned {}

/// Why a saved state is none.
#[derive(Debug)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("no saved state")
    }
}

impl std::error::Error for Malformed {}

/// What an answer has earned a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It falls under this route now.
    Label(RouteId),
    /// More like it must come first.
    Wait,
    /// It would have a label, but there are as many as there may be.
    Full,
}

impl Learned {
    /// Nothing learned yet; `limit`: most labels.
    #[must_use]
    pub fn new(_limit: usize) -> Learned {
        Learned {}
    }

    /// The route of a path that is known.
    #[must_use]
    pub fn find(&self, _path: &[u8]) -> Option<RouteId> {
        None
    }

    /// A path has had an answer that earns a label.
    #[must_use]
    pub fn learn(&self, _path: &[u8], _give: &dyn Fn(&str) -> Option<RouteId>) -> Verdict {
        Verdict::Wait
    }

    /// Changes the limit.
    pub fn set_limit(&self, _limit: usize) {}

    /// What was learned, as a text.
    #[must_use]
    pub fn save(&self) -> String {
        String::new()
    }

    /// Takes a saved text in; gives the number of templates.
    ///
    /// # Errors
    /// When it is no saved state.
    pub fn restore(&self, _state: &str, _give: &dyn Fn(&str) -> Option<RouteId>) -> Result<usize, Malformed> {
        Ok(0)
    }
}
