//! The side door: samplers put their notes in here, once per `saturation.interval`, off the request path. The sidecar's
//! own pairs of used and limit need no sampling: a scrape reads them as they are.
//!
//! | file | what it reads |
//! |---|---|
//! | `own.rs` | how busy the sidecar's worker threads are |
//! | `host.rs` | the whole host's CPU and memory, by sysinfo |
//!
//! To add a probe: one file with a pure parser and a fixture, a variant in [`Resource`], a line in [`Sampler::new`].

mod host;
mod own;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::RuntimeMetrics;
use tokio::time::{Instant, MissedTickBehavior};

use crate::labels::Resource;
use crate::signals::{Sample, Signals};

/// Something that can be read to learn how full a resource is.
trait Probe: Send {
    /// Used share of each resource that this probe knows, `None` if there is no limit or it cannot be read now.
    fn read(&mut self) -> Vec<(Resource, Option<f64>)>;
}

/// Runs the probes.
pub struct Sampler {
    signals: Arc<Signals>,
    probes: Vec<Box<dyn Probe>>,
    workers: own::Workers,
}

impl Sampler {
    /// The sampler of this process. `runtimes`: one per worker.
    #[must_use]
    pub fn new(signals: &Arc<Signals>, runtimes: Vec<RuntimeMetrics>) -> Sampler {
        Sampler {
            signals: Arc::clone(signals),
            probes: vec![Box::new(host::Host::new())],
            workers: own::Workers::new(runtimes),
        }
    }

    /// Samples once per `interval`, for ever.
    pub async fn run(mut self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut due: Option<Instant> = None;
        loop {
            let tick = ticks.tick().await;
            let missed = due.map_or(0, |due| missed(due, tick, interval));
            due = Some(tick + interval);
            let mut sample = Sample { missed, worker_busy: self.workers.busy(), ..Sample::default() };
            for probe in &mut self.probes {
                for (resource, ratio) in probe.read() {
                    sample.ratios[resource.index()] = ratio;
                }
            }
            self.signals.record_sample(sample);
        }
    }
}

/// Rounds that lie between the one that was due and the one that ran.
fn missed(due: Instant, ran: Instant, interval: Duration) -> u64 {
    (ran.saturating_duration_since(due).as_nanos() / interval.as_nanos().max(1)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_did_not_run_are_counted() {
        let due = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(missed(due, due, second), 0);
        assert_eq!(missed(due, due + Duration::from_millis(900), second), 0);
        assert_eq!(missed(due, due + Duration::from_millis(2100), second), 2);
    }
}
