//! Pressure stall information: how long tasks waited for CPU, memory and I/O, of the backend's cgroup and of the host.
//! Source: Linux documentation, accounting/psi, and cgroup-v2: /proc/pressure/RESOURCE, RESOURCE.pressure of a cgroup.
//! Shape:  `some avg10=N avg60=N avg300=N total=N`, and the same for `full`. procfs has a reader of it; ours is because
//!         that one refuses a file without `full`, as cpu is before Linux 5.13, and panics at a line that is too short.
//! Units:  microseconds in the file, seconds in the metric.
//! Absent: a kernel without it (before 4.20), or where it is switched off; a cgroup of version 1. `full` of the host's
//!         CPU: the documentation calls it undefined, and the kernel writes 0 there.

use std::borrow::Cow;
use std::path::Path;

use crate::labels::{PressureResource, PressureScope, Source, Trouble};
use crate::saturation::cgroup::{Controller, Files};
use crate::saturation::fault::Fault;
use crate::saturation::{Probe, Round};
use crate::signals::families as f;

/// Of the host.
const HOST_FOLDER: &str = "/proc/pressure";
/// Of all hosts there is one.
const HOST: u64 = 0;

/// Of the backend's cgroup.
#[derive(Default)]
pub(super) struct OfBackend {
    files: Files,
}

/// Of the host.
#[derive(Default)]
pub(super) struct OfHost {
    files: Files,
}

/// Time that tasks waited, in seconds since the cgroup, or the host, began.
#[derive(Debug, PartialEq)]
struct Pressure {
    /// Some waited.
    some: f64,
    /// All that were not idle waited at once.
    full: Option<f64>,
}

impl Probe for OfBackend {
    fn source(&self) -> Cow<'static, str> {
        Source::BackendPressure.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        let leaf = &round.backend.cgroup()?.levels(Controller::Pressure)?.leaf;
        let pressures = read(&mut self.files, &leaf.folder, ["cpu.pressure", "memory.pressure", "io.pressure"])?;
        note(round, PressureScope::Backend, leaf.identity, pressures)
    }
}

impl Probe for OfHost {
    fn source(&self) -> Cow<'static, str> {
        Source::HostPressure.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        let mut pressures = read(&mut self.files, Path::new(HOST_FOLDER), ["cpu", "memory", "io"])?;
        pressures[PressureResource::Cpu.index()].full = None;
        note(round, PressureScope::Host, HOST, pressures)
    }
}

// === impl Pressure ===

impl Pressure {
    fn parse(content: &str) -> Option<Pressure> {
        let total = |kind: &str| {
            let line = content.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
            let total = line.split_whitespace().find_map(|field| field.strip_prefix("total="))?;
            Some(total.parse::<u64>().ok()? as f64 / 1e6)
        };
        Some(Pressure { some: total("some")?, full: total("full") })
    }
}

/// The three files of a folder, in the order of [`PressureResource`].
fn read(files: &mut Files, folder: &Path, names: [&str; 3]) -> Result<[Pressure; 3], Fault> {
    let mut one = |name: &str| match files.parse(folder, name, Pressure::parse) {
        Ok(Some(pressure)) => Ok(pressure),
        Ok(None) => Err(off(folder, name)),
        // EOPNOTSUPP: switched off when the system was started.
        Err(fault) if fault.trouble == Trouble::Absent => Err(off(folder, name)),
        Err(fault) => Err(fault),
    };
    let [cpu, memory, io] = names;
    Ok([one(cpu)?, one(memory)?, one(io)?])
}

fn off(folder: &Path, name: &str) -> Fault {
    let detail = format!(
        "{}: there is no pressure stall information; it takes Linux 4.20, psi=1 on the kernel's command line where it \
         is off by default, and 1 in the cgroup's cgroup.pressure",
        folder.join(name).display()
    );
    Fault::new(Trouble::Absent, detail)
}

fn note(round: &mut Round<'_>, scope: PressureScope, whose: u64, pressures: [Pressure; 3]) -> Result<(), Fault> {
    let mut forward = true;
    for (resource, Pressure { some, full }) in PressureResource::ALL.iter().zip(pressures) {
        let labels = [resource.as_str(), scope.as_str()];
        forward &= round.notes.follow(&f::BACKEND_PRESSURE_WAITING, labels, whose, some);
        if let Some(full) = full {
            forward &= round.notes.follow(&f::BACKEND_PRESSURE_STALLED, labels, whose, full);
        }
    }
    if forward {
        return Ok(());
    }
    Err(Fault::new(Trouble::WentBack, format!("pressure of the {} went back", scope.as_str())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;
    use crate::saturation::backend::Backend;
    use crate::saturation::cgroup::testing::{MOUNTS_V2, Rounds, Tree};
    use crate::saturation::limits::Facts;
    use crate::saturation::notes::Notes;

    #[test]
    fn totals_are_read_in_seconds() {
        let content = "some avg10=4.50 avg60=0.91 avg300=0.07 total=681245\n\
            full avg10=2.10 avg60=0.12 avg300=0.03 total=391926\n";
        assert_eq!(Pressure::parse(content), Some(Pressure { some: 0.681_245, full: Some(0.391_926) }));
    }

    #[test]
    fn an_old_kernel_tells_of_cpu_only_that_some_waited() {
        let content = "some avg10=4.50 avg60=0.91 avg300=0.07 total=681245\n";
        assert_eq!(Pressure::parse(content), Some(Pressure { some: 0.681_245, full: None }));
    }

    #[test]
    fn garbage_is_no_pressure() {
        for garbage in ["", "some", "some ", "full total=1", "some total=", "some total=-1", "something total=1"] {
            assert_eq!(Pressure::parse(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn where_it_is_off_the_fault_says_how_to_switch_it_on() {
        let folder = tempfile::tempdir().unwrap();
        let fault = read(&mut Files::default(), folder.path(), ["cpu", "memory", "io"]).unwrap_err();
        assert_eq!(fault.trouble, Trouble::Absent);
        assert!(fault.detail.contains("psi=1"), "{fault}");
    }

    #[test]
    fn a_cgroup_tells_of_three_resources_what_waited_and_what_stalled() {
        let tree = Tree::new();
        let leaf = tree.cgroup(
            "a",
            [
                ("cpu.stat", ""),
                ("cpu.pressure", "some avg10=1 avg60=2 total=4000000\nfull avg10=0 avg60=3 total=5000000\n"),
                ("memory.pressure", "some total=6000000\nfull total=7000000\n"),
                ("io.pressure", "some total=8000000\nfull total=9000000\n"),
            ],
        );
        let mut rounds = Rounds::new(tree.place("0::/a\n", MOUNTS_V2).unwrap());
        let mut probe = OfBackend::default();
        rounds.read(&mut probe).unwrap();
        let of = |resource: &str, seconds| (format!("{resource} backend"), seconds);
        let waiting = [of("cpu", 4.0), of("io", 8.0), of("memory", 6.0)];
        assert_eq!(rounds.values(&f::BACKEND_PRESSURE_WAITING), waiting);
        assert_eq!(rounds.values(&f::BACKEND_PRESSURE_STALLED), [of("cpu", 5.0), of("io", 9.0), of("memory", 7.0)]);

        std::fs::write(leaf.join("cpu.pressure"), "some total=1\nfull total=5500000\n").unwrap();
        assert_eq!(rounds.read(&mut probe).unwrap_err().trouble, Trouble::WentBack);
        assert_eq!(rounds.values(&f::BACKEND_PRESSURE_WAITING), waiting);
        assert_eq!(rounds.values(&f::BACKEND_PRESSURE_STALLED)[0], of("cpu", 5.5), "the rest is noted");
    }

    #[test]
    fn the_pressure_of_this_host_is_read_or_it_is_said_why_not() {
        let (backend, mut facts, mut notes) = (Backend::default(), Facts::default(), Notes::default());
        let now = Instant::now();
        let deadline = now + Duration::from_secs(60);
        let mut round = Round { now, deadline, backend: &backend, facts: &mut facts, notes: &mut notes };
        let result = OfHost::default().read(&mut round);
        let count = |family| notes.points().iter().filter(|point| std::ptr::eq(point.family, family)).count();
        let counts = (count(&f::BACKEND_PRESSURE_WAITING), count(&f::BACKEND_PRESSURE_STALLED));
        match result {
            Ok(()) => assert_eq!(counts, (3, 2), "full of the host's CPU means nothing"),
            Err(fault) => {
                assert!(matches!(fault.trouble, Trouble::Absent | Trouble::Permission), "{fault:?}");
                assert_eq!(counts, (0, 0));
            }
        }
    }

    proptest! {
        #[test]
        fn no_content_makes_the_parser_panic(content in ".*") {
            let _ = Pressure::parse(&content);
        }

        #[test]
        fn no_likely_content_makes_the_parser_panic(content in "(some|full|total=|[0-9 \n.])*") {
            let _ = Pressure::parse(&content);
        }
    }
}
