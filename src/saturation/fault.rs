//! Why something could not be read: one word for the metric, one sentence for people.

use std::fmt;
use std::io;

use procfs::ProcError;
use tokio::time::Instant;

use crate::labels::Trouble;

/// A failed reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The label `reason`.
    pub trouble: Trouble,
    /// What was read and what happened; for `doctor` and the log.
    pub detail: String,
}

// === impl Trouble ===

impl Trouble {
    /// Whether it stays like this as a rule, so that it is news only once: a backend that has ended stays gone for as long as
    /// nobody starts it.
    pub(super) fn is_lasting(self) -> bool {
        matches!(self, Trouble::Absent | Trouble::Permission | Trouble::Unknown | Trouble::Gone)
    }
}

// === impl Fault ===

impl Fault {
    pub fn new(trouble: Trouble, detail: impl Into<String>) -> Fault {
        Fault { trouble, detail: detail.into() }
    }

    /// What the system said about `what`.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Fault {
        let trouble = match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP | libc::ENOTDIR | libc::EPROTONOSUPPORT) => {
                Trouble::Absent
            }
            Some(libc::EACCES | libc::EPERM) => Trouble::Permission,
            Some(libc::ESRCH) => Trouble::Gone,
            Some(libc::EAGAIN | libc::ETIMEDOUT) => Trouble::Timeout,
            _ => Trouble::Malformed,
        };
        Fault::new(trouble, format!("{what}: {error}"))
    }

    /// What the reader of /proc said about `what`, of a process that was there a moment ago.
    pub fn of_process(what: impl fmt::Display, error: &ProcError) -> Fault {
        let trouble = match error {
            ProcError::PermissionDenied(_) => Trouble::Permission,
            ProcError::NotFound(_) => Trouble::Gone,
            ProcError::Io(error, _) => match error.raw_os_error() {
                Some(libc::ESRCH | libc::ENOENT) => Trouble::Gone,
                _ => return Fault::io(what, error),
            },
            ProcError::Incomplete(_) | ProcError::Other(_) | ProcError::InternalError(_) => Trouble::Malformed,
        };
        Fault::new(trouble, format!("{what}: {error}"))
    }

    /// Content that is not what it should be.
    pub fn malformed(what: impl fmt::Display) -> Fault {
        Fault::new(Trouble::Malformed, format!("{what} cannot be read as what it should be"))
    }

    /// An error once the deadline is over; loops ask at each step.
    pub fn after(deadline: Instant, what: &str) -> Result<(), Fault> {
        if Instant::now() > deadline {
            return Err(Fault::new(Trouble::Timeout, format!("{what} took longer than a round allows")));
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.detail)
    }
}
