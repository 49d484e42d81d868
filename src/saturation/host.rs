//! CPU and memory of the whole host, as sysinfo reads them.
//! Units: shares of 1. CPU is the mean over all cores since the last reading; memory is what is not available for
//! new work ÷ all there is.
//! Absent: CPU before the second reading; memory where the total is unknown; both where sysinfo cannot read the host.

use sysinfo::{MemoryRefreshKind, System};

use crate::labels::Resource;
use crate::saturation::Probe;

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
    fn read(&mut self) -> Vec<(Resource, Option<f64>)> {
        let Some(system) = &mut self.system else { return Vec::new() };
        system.refresh_cpu_usage();
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        self.readings += 1;
        let cpu = (self.readings > 1).then(|| (f64::from(system.global_cpu_usage()) / 100.0).clamp(0.0, 1.0));
        let total = system.total_memory();
        let used = total.saturating_sub(system.available_memory());
        let memory = (total > 0).then(|| used as f64 / total as f64);
        vec![(Resource::HostCpu, cpu), (Resource::HostMemory, memory)]
    }
}
