//! CPU and memory of the whole host, as sysinfo reads them.
//! Units: shares of 1. CPU is the mean over all cores since the last reading; memory is what is not available for
//! new work ÷ all there is.
//! Absent: CPU before the second reading; memory where the total is unknown; both where sysinfo cannot read the host.

use std::borrow::Cow;

use sysinfo::{MemoryRefreshKind, System};

use crate::labels::{Resource, Source, Trouble};
use crate::saturation::fault::Fault;
use crate::saturation::{Probe, Round};

/// The host.
pub(super) struct Host {
    system: Option<System>,
    readings: u64,
}

impl Host {
    pub(super) fn new() -> Host {
        Host { system: System::new().ok(), readings: 0 }
    }
}

impl Probe for Host {
    fn source(&self) -> Cow<'static, str> {
        Source::Host.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        let Some(system) = &mut self.system else {
            return Err(Fault::new(Trouble::Absent, "this system tells nothing about its CPU and memory"));
        };
        system.refresh_cpu_usage();
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        self.readings += 1;
        let cores = system.cpus().len();
        if cores > 0 {
            round.facts.cpu.host = Some(cores as f64);
            if self.readings > 1 {
                let used = f64::from(system.global_cpu_usage()) / 100.0;
                round.notes.usage(Resource::HostCpu.as_str(), used.clamp(0.0, 1.0), 1.0);
            }
        }
        let total = system.total_memory();
        if cores == 0 && total == 0 {
            return Err(Fault::new(Trouble::Absent, "/proc/stat and /proc/meminfo cannot be read"));
        }
        if total > 0 {
            let used = total.saturating_sub(system.available_memory());
            round.facts.memory.host = Some(total as f64);
            round.notes.usage(Resource::HostMemory.as_str(), used as f64, total as f64);
        }
        Ok(())
    }
}
