//! How busy the sidecar's own workers are: the share of time that their runtimes did not wait.

use std::time::Duration;

use tokio::runtime::RuntimeMetrics;
use tokio::time::Instant;

/// How busy each worker's runtime was between two readings.
pub(super) struct Workers {
    runtimes: Vec<RuntimeMetrics>,
    busy: Vec<Duration>,
    read: Instant,
}

impl Workers {
    pub(super) fn new(runtimes: Vec<RuntimeMetrics>) -> Workers {
        Workers { busy: vec![Duration::ZERO; runtimes.len()], runtimes, read: Instant::now() }
    }

    /// Busy share of each worker since the last call, 0 to 1.
    pub(super) fn busy(&mut self) -> Vec<f64> {
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.read).as_secs_f64();
        self.read = now;
        let each = self.runtimes.iter().zip(&mut self.busy).map(|(runtime, last)| {
            // A current-thread runtime has one worker, number 0.
            let total = runtime.worker_total_busy_duration(0);
            let busy = total.saturating_sub(std::mem::replace(last, total)).as_secs_f64();
            if elapsed > 0.0 { (busy / elapsed).min(1.0) } else { 0.0 }
        });
        each.collect()
    }
}
