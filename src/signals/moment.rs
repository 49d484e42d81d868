//! The clock of the request path: one reading per event, as one number, shared by all that want it. Differences are
//! then plain subtractions; the standard library's instants cost some forty instructions each.

use std::sync::OnceLock;

use tokio::time::Instant;

/// A moment: nanoseconds since the process first asked for one, at least 1, so that 0 can mean "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Now, on the monotonic clock (and on the paused one of a test).
    #[must_use]
    pub fn now() -> Moment {
        static START: OnceLock<Instant> = OnceLock::new();
        let start = START.get_or_init(Instant::now);
        Moment(Instant::now().saturating_duration_since(*start).as_nanos() as u64 + 1)
    }

    /// The number.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Nanoseconds since an earlier moment, 0 if it is not earlier.
    #[must_use]
    pub const fn nanos_since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
