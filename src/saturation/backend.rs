//! Which processes the backend is.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::labels::{RestartReason, Trouble};
use crate::saturation::Settings;
use crate::saturation::cgroup::Place;
use crate::saturation::fault::Fault;
use crate::saturation::notes::Notes;
use crate::signals::families as f;

/// How a command of ours fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It runs, for the first time or again.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// It ended by itself.
    Exited,
    /// A signal ended it.
    Killed {
        /// The signal's number.
        signal: i32,
    },
}

/// A process, told from a later one with the same number by its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity {
    pub pid: i32,
    /// Clock ticks from boot to its start.
    pub start_ticks: u64,
}

/// The backend as it was found.
#[derive(Debug, Default)]
pub(super) struct Backend {
    /// The processes that everything else descends from; none: not known.
    pub roots: Vec<Identity>,
    /// All of its processes, parents before children.
    pub processes: Vec<Identity>,
    /// Where its cgroup can be read.
    pub cgroup: Option<Result<Place, Fault>>,
    /// Grows when the backend becomes another one.
    pub generation: u64,
}

/// Finds it.
pub(super) struct Finder {
    upstream: Arc<[SocketAddr]>,
}

/// Lets the counters of this file exist at 0.
pub(super) fn exist(notes: &mut Notes) {
    for reason in RestartReason::ALL {
        notes.count(&f::BACKEND_RESTARTS, [reason.as_str()], 0.0);
    }
}

impl Backend {
    /// An error for probes that need to know the processes.
    pub fn known(&self) -> Result<&[Identity], Fault> {
        match self.processes.as_slice() {
            [] => Err(Fault::new(Trouble::Unknown, "it is not known which processes the backend is")),
            processes => Ok(processes),
        }
    }

    /// An error for probes that need its cgroup.
    pub fn cgroup(&self) -> Result<&Place, Fault> {
        match &self.cgroup {
            None => Err(Fault::new(Trouble::Unknown, "it is not known which processes the backend is")),
            Some(Ok(place)) => Ok(place),
            Some(Err(fault)) => Err(fault.clone()),
        }
    }
}

impl Finder {
    pub fn new(settings: &Settings) -> Finder {
        Finder { upstream: Arc::clone(&settings.upstream) }
    }

    pub fn reconfigure(&mut self, settings: &Settings) {
        self.upstream = Arc::clone(&settings.upstream);
    }

    pub fn command_changed(&mut self, _change: Change, _notes: &mut Notes) {}

    pub fn find(
        &mut self,
        backend: &mut Backend,
        _now: Instant,
        _deadline: Instant,
        _notes: &mut Notes,
    ) -> Result<(), Fault> {
        backend.known().map(drop)
    }
}
