//! Limits and use of the backend's cgroup, of version 1, version 2, or both at once.
//!
//! | file | what it holds |
//! |---|---|
//! | `place.rs` | where the files are, for each controller and each level |
//! | `files.rs` | reading and parsing them; pure but for one `read` |
//! | `cpu.rs` | probe: quota, use, cpuset, throttling |
//! | `memory.rs` | probe: limit, working set, events |
//! | `pids.rs` | probe: limit of tasks |
//!
//! Every level limits what is below it, so each level's limit stands beside that level's use: a parent that others fill
//! up too may be full long before the backend has reached a limit of its own. The root of a hierarchy is no level: it
//! has no limits, and its use is that of the host.

mod cpu;
mod files;
mod memory;
mod pids;
mod place;

pub(super) use cpu::Cpu;
pub(super) use memory::Memory;
pub(super) use pids::Pids;
pub(super) use place::{Controller, OomKills, Place};

pub(super) use files::Files;

#[cfg(test)]
pub(super) mod testing;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::testing::Rounds;
    use super::*;
    use crate::labels::Trouble;
    use crate::saturation::Probe;
    use crate::saturation::limits::Bound;

    /// What is read of this machine is either sensible, or the fault says that it is not there or refused.
    fn sensible(what: &str, result: Result<(), crate::saturation::fault::Fault>, bounds: &[Bound]) {
        match result {
            Ok(()) => {
                assert!(!bounds.is_empty(), "{what}: the leaf tells its use even without a limit");
                let used = bounds.iter().filter_map(|bound| bound.used);
                assert!(used.chain(bounds.iter().map(|bound| bound.limit)).all(|value| value >= 0.0), "{bounds:?}");
            }
            Err(fault) => {
                assert!(matches!(fault.trouble, Trouble::Absent | Trouble::Permission), "{what}: {fault:?}");
                assert!(bounds.is_empty(), "{what}");
            }
        }
    }

    #[test]
    fn the_cgroup_of_this_process_is_read_or_it_is_said_why_not() {
        let place = match Place::of_process(std::process::id().cast_signed()) {
            Ok(place) => place,
            Err(fault) => {
                assert!(matches!(fault.trouble, Trouble::Absent | Trouble::Permission), "{fault:?}");
                return;
            }
        };
        let mut rounds = Rounds::new(place);
        let (mut cpu, mut memory, mut pids) = (Cpu::default(), Memory::default(), Pids::default());
        for seconds in [0, 1] {
            let time = Duration::from_secs(seconds);
            let mut read = |probe: &mut dyn Probe| {
                let result = rounds.read_after(time, probe);
                let facts = std::mem::take(&mut rounds.facts);
                let bounds = [facts.cpu.bounds, facts.memory.bounds, facts.threads.bounds].concat();
                sensible(&probe.source(), result, &bounds);
            };
            read(&mut cpu);
            read(&mut memory);
            read(&mut pids);
        }
    }
}
