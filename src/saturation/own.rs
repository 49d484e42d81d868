//! The sidecar's own pairs of used and limit, and how busy its workers are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::RuntimeMetrics;
use tokio::time::Instant;

use crate::labels::Resource;
use crate::saturation::Probe;
use crate::signals::Signals;

/// Requests, backend connections and client connections against their limits.
pub(super) struct Pairs {
    signals: Arc<Signals>,
}

impl Pairs {
    pub(super) fn new(signals: Arc<Signals>) -> Pairs {
        Pairs { signals }
    }
}

/// No limit, no ratio.
fn ratio(used: u64, limit: &AtomicU64) -> Option<f64> {
    let limit = limit.load(Relaxed);
    (limit > 0).then(|| used as f64 / limit as f64)
}

impl Probe for Pairs {
    fn read(&mut self) -> Vec<(Resource, Option<f64>)> {
        let signals = &self.signals;
        let bounds = signals.bounds();
        vec![
            (Resource::Inflight, ratio(signals.inflight(), &bounds.inflight)),
            (Resource::UpstreamPool, ratio(signals.upstream_active(), &bounds.upstream_connections)),
            (Resource::ServerConnections, ratio(signals.connections(), &bounds.connections)),
        ]
    }
}

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
