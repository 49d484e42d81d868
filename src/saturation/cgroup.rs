//! Limits and use of the backend's cgroup.

use std::borrow::Cow;
use std::path::Path;

use crate::labels::Source;
use crate::saturation::fault::Fault;
use crate::saturation::{Probe, Round};

/// Where the files of a cgroup are, for each controller, with all ancestors that can be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {}

/// Quota and throttling.
#[derive(Default)]
pub(super) struct Cpu {}

/// Limit, working set, events.
pub(super) struct Memory;

/// Limit of tasks.
pub(super) struct Pids;

impl Place {
    /// The cgroup of a process.
    pub fn of_process(_pid: i32) -> Result<Place, Fault> {
        Ok(Place::default())
    }

    /// A cgroup that was told.
    pub fn of_folder(_folder: &Path) -> Result<Place, Fault> {
        Ok(Place::default())
    }

    /// The processes in it.
    pub fn processes(&self) -> Result<Vec<i32>, Fault> {
        Ok(Vec::new())
    }

    /// Tells this cgroup from another one.
    pub fn whose(&self) -> u64 {
        0
    }

    /// How often the kernel has killed a process of it for want of memory.
    pub fn oom_kills(&self) -> Option<u64> {
        None
    }
}

impl Probe for Cpu {
    fn source(&self) -> Cow<'static, str> {
        Source::CgroupCpu.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        round.backend.cgroup().map(drop)
    }
}

impl Probe for Memory {
    fn source(&self) -> Cow<'static, str> {
        Source::CgroupMemory.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        round.backend.cgroup().map(drop)
    }
}

impl Probe for Pids {
    fn source(&self) -> Cow<'static, str> {
        Source::CgroupPids.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        round.backend.cgroup().map(drop)
    }
}
