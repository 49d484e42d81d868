//! The side door: one sampler puts its notes in here, once per `saturation.interval`, on a thread of its own, far from the
//! request path. Everything is read from outside, without root, and without touching the backend.
//!
//! | file | what it holds |
//! |---|---|
//! | `backend.rs` | which processes the backend is: by command, pid, pid file or listening socket; restarts |
//! | `tree.rs` | which processes there are, and which descend from which |
//! | `descriptors.rs` | whose a socket is: the links below /proc/PID/fd |
//! | `process.rs` | probe: CPU time, memory, descriptors, threads, run-queue wait of its processes |
//! | `cgroup/` | probes: limits over all ancestors, throttling, working set, memory events |
//! | `pressure.rs` | probe: pressure stall information of cgroup and host |
//! | `ownership.rs` | which sockets are the backend's, remembered |
//! | `sockets.rs` | questions to the kernel about sockets (NETLINK_SOCK_DIAG) |
//! | `connections.rs` | probe: accept queues, unread bytes, pools inferred from sockets |
//! | `netstat.rs` | probe: overflows of accept queues |
//! | `host.rs` | probe: the whole host's CPU and memory, by sysinfo |
//! | `pools.rs` | probe: pools that the backend reports itself |
//! | `own.rs` | how busy the sidecar's worker threads are |
//! | `limits.rs` | pure: which limit is in force, and how much of it is used |
//! | `fullness.rs`, `forecast.rs` | pure: ratio, peak, histogram; time to the limit |
//! | `notes.rs` | what probes write down; counters that never go back |
//! | `fault.rs` | why something could not be read |
//!
//! A round: find the backend → each probe reads, with a deadline, and notes → limits are weighed → fullness is told →
//! the notes become one [`Sample`]. The runner, not the probe, times each reading and counts its failures. A probe notes
//! only after it has read all: what failed is absent.
//!
//! To add a probe: one file with a pure parser and a fixture whose every field has a different number, a variant in
//! [`crate::labels::Source`], a line in the table below; for something that can be full, a variant in
//! [`crate::labels::Resource`].

mod backend;
mod cgroup;
mod connections;
mod descriptors;
mod fault;
mod forecast;
mod fullness;
mod host;
mod limits;
mod netstat;
mod notes;
mod own;
mod ownership;
mod pools;
mod pressure;
mod process;
mod sockets;
mod tree;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::RuntimeMetrics;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

pub use backend::Change;

use crate::config;
use crate::labels::{Resource, Source, Trouble};
use crate::saturation::backend::{Backend, Finder};
use crate::saturation::fault::Fault;
use crate::saturation::fullness::Fullness;
use crate::saturation::limits::Facts;
use crate::saturation::notes::Notes;
use crate::signals::families as f;
use crate::signals::sampled::{Point, Sample};
use crate::signals::{Bounds, Signals};

/// The longest that one probe may take in a round. A quarter of a second is ten times what 20,000 sockets take, and
/// leaves a round of all probes that hang still shorter than what readers of the page wait.
const PROBE_DEADLINE_MAX: Duration = Duration::from_millis(250);
/// The backend is looked for at least this often, however rare the samples are, so that a restart is noticed within two
/// seconds.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Gauges stand on the page for this many intervals after the round that they come from, and not less than five seconds.
const VALID_INTERVALS: u32 = 5;

/// How long an examination waits between its two looks: more than the longest wait for a pool's answer.
const EXAMINATION_TIME: Duration = Duration::from_millis(1100);

/// What the sampler is told. A reload tells it anew.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Interval, hints and pools.
    pub saturation: config::Saturation,
    /// Addresses of the upstream; none if it is a socket of the file system.
    pub upstream: Arc<[SocketAddr]>,
    /// The path of that socket.
    pub socket: Option<Arc<Path>>,
    /// Whether the backend is a command of ours: then it is whatever descends from this process.
    pub wrapped: bool,
}

/// Something that can be read.
trait Probe: Send {
    /// What it reads: the label `source`.
    fn source(&self) -> Cow<'static, str>;

    /// Reads, and notes what it read. Gives up at `round.deadline`.
    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault>;
}

/// What a probe gets to work with.
struct Round<'a> {
    /// When the round began; the same for all probes, so that rates have one clock.
    now: Instant,
    /// When this probe has to be done.
    deadline: Instant,
    /// Who the backend is.
    backend: &'a Backend,
    /// What the limits are weighed from.
    facts: &'a mut Facts,
    /// Where readings go.
    notes: &'a mut Notes,
}

/// How a source did when it was read last.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The label `source`.
    pub source: Cow<'static, str>,
    /// Why it could not be read; `None`: it could.
    pub fault: Option<(Trouble, String)>,
}

/// What a first look at everything found.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Id and command of each process of the backend.
    pub processes: Vec<(i32, String)>,
    /// Where its connections lead, and how many are in use and idle.
    pub outgoing: Vec<(SocketAddr, [u64; 2])>,
    /// How each source did.
    pub readings: Vec<Reading>,
    /// What was noted.
    pub points: Vec<Point>,
}

/// Runs the probes.
pub struct Sampler {
    signals: Arc<Signals>,
    settings: Settings,
    finder: Finder,
    backend: Backend,
    /// Probes that know what they read last, and no setting.
    lasting: Vec<Box<dyn Probe>>,
    /// Probes of what the settings ask for; made anew when they change.
    asked: Vec<Box<dyn Probe>>,
    workers: own::Workers,
    notes: Notes,
    fullness: Fullness,
    readings: BTreeMap<Cow<'static, str>, Option<Fault>>,
}

/// How many wait in the accept queue of a listener, and how many may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections that wait for accept().
    pub waiting: u32,
    /// The backlog; the kernel lets one more wait.
    pub backlog: u32,
}

/// Asks the kernel about the listener at an address of this machine. `None`: there is none, or the kernel does not say.
#[must_use]
pub fn queue_at(address: SocketAddr) -> Option<AcceptQueue> {
    let listener = backend::listener_at(address, Instant::now() + PROBE_DEADLINE_MAX)?;
    Some(AcceptQueue { waiting: listener.waiting, backlog: listener.backlog })
}

/// The same of a socket of the file system.
#[must_use]
pub fn queue_of(path: &Path) -> Option<AcceptQueue> {
    let listener = sockets::at_path(path, Instant::now() + PROBE_DEADLINE_MAX).ok()?;
    Some(AcceptQueue { waiting: listener.waiting, backlog: listener.backlog })
}

// === impl Sampler ===

impl Sampler {
    /// A sampler of this process. `runtimes`: one per worker. Needs a runtime, for what asks over the network.
    #[must_use]
    pub fn new(signals: &Arc<Signals>, runtimes: Vec<RuntimeMetrics>, settings: Settings) -> Sampler {
        Sampler {
            signals: Arc::clone(signals),
            finder: Finder::new(&settings),
            backend: Backend::default(),
            lasting: lasting_probes(),
            asked: asked_probes(&settings),
            workers: own::Workers::new(runtimes),
            notes: Notes::default(),
            fullness: Fullness::default(),
            readings: BTreeMap::new(),
            settings,
        }
    }

    /// Samples once per interval, for ever. `changes` tells how a command of ours fares, `settings` what a reload asks.
    pub async fn run(mut self, mut changes: mpsc::UnboundedReceiver<Change>, mut settings: watch::Receiver<Settings>) {
        let interval = self.settings.saturation.interval;
        // A long interval is cut into equal parts, so that a round falls on the end of one.
        let parts = interval.as_nanos().div_ceil(LOOK_INTERVAL_MAX.as_nanos());
        let part = interval / u32::try_from(parts).unwrap_or(u32::MAX);
        let mut ticks = tokio::time::interval(part);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut due = Instant::now();
        loop {
            // After a pause (a stopped process, a suspended machine) the tick is the one that was due then. It says which
            // rounds were missed; rates need to know what time it is.
            let scheduled = ticks.tick().await;
            let now = Instant::now();
            while let Ok(change) = changes.try_recv() {
                self.finder.command_changed(change, &mut self.notes);
            }
            if settings.has_changed().unwrap_or(false) {
                self.reconfigure(settings.borrow_and_update().clone());
            }
            // Half a part of tolerance: the parts were rounded down.
            if scheduled + part / 2 < due {
                self.find(now);
                continue;
            }
            let missed = missed(due, scheduled, interval);
            due = scheduled + interval;
            let sample = self.round(now, missed);
            self.signals.record_sample(sample);
            // Answers from the network come in between the rounds.
            tokio::task::yield_now().await;
        }
    }

    /// One round: everything is read once.
    fn round(&mut self, now: Instant, missed: u64) -> Sample {
        self.notes.begin_round();
        self.find(now);
        let mut facts = Facts::default();
        let mut read = Vec::with_capacity(self.lasting.len() + self.asked.len());
        for probe in self.lasting.iter_mut().chain(&mut self.asked) {
            let begun = Instant::now();
            let mut round = Round {
                now,
                deadline: begun + deadline(self.settings.saturation.interval),
                backend: &self.backend,
                facts: &mut facts,
                notes: &mut self.notes,
            };
            // A defect in one probe must not end the others. What it had half done stays its own.
            let result = catch_unwind(AssertUnwindSafe(|| probe.read(&mut round))).unwrap_or_else(|_| {
                Err(Fault::new(Trouble::Internal, "the probe has a defect; standard error has its last words"))
            });
            read.push((probe.source(), result, begun.elapsed()));
        }
        for (source, result, took) in read {
            self.reading(source, result, took);
        }
        limits::weigh(&facts, &self.settings.saturation.backend, &mut self.notes);
        self.note_own_pairs();
        let ratios = self.fullness.take(now, &mut self.notes);
        for (source, fault) in &self.readings {
            self.notes.gauge(&f::SOURCE_AVAILABLE, [source.clone()], f64::from(u8::from(fault.is_none())));
        }
        Sample {
            at: now,
            valid_for: (self.settings.saturation.interval * VALID_INTERVALS).max(Duration::from_secs(5)),
            missed,
            ratios,
            histograms: self.fullness.histograms(),
            points: self.notes.points(),
            worker_busy: self.workers.busy(),
        }
    }

    /// Looks at everything, for a person: as long as rates need two readings and answers from the network take.
    pub async fn examine(mut self) -> Examination {
        self.round(Instant::now(), 0);
        tokio::time::sleep(EXAMINATION_TIME).await;
        let sample = self.round(Instant::now(), 0);
        let command = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let deadline = Instant::now() + EXAMINATION_TIME;
        // What cannot be read is told by the sources that it comes from.
        let outgoing = connections::outgoing(&self.backend.processes, deadline).unwrap_or_default();
        let processes = self.backend.processes.iter();
        let readings = self.readings.into_iter();
        Examination {
            processes: processes.map(|one| (one.pid, command(one.pid).trim_end().to_owned())).collect(),
            outgoing,
            readings: readings
                .map(|(source, fault)| Reading { source, fault: fault.map(|fault| (fault.trouble, fault.detail)) })
                .collect(),
            points: sample.points,
        }
    }

    /// Makes sure that we know who the backend is.
    fn find(&mut self, now: Instant) {
        let begun = Instant::now();
        // Not shorter for short intervals: what is dear here happens seldom, and half done it would never be done.
        let deadline = begun + PROBE_DEADLINE_MAX;
        let generation = self.backend.generation;
        let result = self.finder.find(&mut self.backend, now, deadline, &mut self.notes);
        if self.backend.generation != generation {
            self.fullness.forget_trends();
        }
        self.reading(Source::Backend.as_str().into(), result, begun.elapsed());
    }

    /// Counts and remembers how a reading went.
    fn reading(&mut self, source: Cow<'static, str>, result: Result<(), Fault>, took: Duration) {
        self.notes.count(&f::SAMPLER_READ_SECONDS, [source.clone()], took.as_secs_f64());
        let before = self.readings.get(&source);
        if let Err(fault) = &result {
            let known = before.is_some_and(|before| before.as_ref().is_some_and(|b| b.trouble == fault.trouble));
            // What is missing for good would count every second without telling anything new.
            if !(known && fault.trouble.is_lasting()) {
                self.notes.count(&f::SAMPLER_FAILURES, [source.clone(), fault.trouble.as_str().into()], 1.0);
                tracing::debug!(event = "source_failed", %source, reason = fault.trouble.as_str(), detail = fault.detail);
            }
        }
        self.readings.insert(source, result.err());
    }

    /// The sidecar's own pairs. In flight, the highest number of the interval is what counts.
    fn note_own_pairs(&mut self) {
        let signals = &self.signals;
        let Bounds { connections, inflight, upstream_connections } = signals.bounds();
        let pairs = [
            (Resource::Inflight, signals.close_peak_interval(), inflight),
            (Resource::UpstreamPool, signals.upstream_active(), upstream_connections),
            (Resource::ServerConnections, signals.connections(), connections),
        ];
        for (resource, used, limit) in pairs {
            let limit = limit.load(std::sync::atomic::Ordering::Relaxed);
            self.notes.usage(resource.as_str(), used as f64, limit as f64);
        }
    }

    fn reconfigure(&mut self, settings: Settings) {
        if settings != self.settings {
            self.finder.reconfigure(&settings);
            self.asked = asked_probes(&settings);
            self.readings.clear();
            // What was counted of a pool that is gone goes with it: names may come and go for years.
            let pools = &settings.saturation.pools;
            let is_known = |name: &str| pools.iter().any(|pool| name == pool.name);
            self.notes.retain_counters(|family, labels| {
                let of_pool = std::ptr::eq(family, &f::POOL_GAVE_UP);
                let name = if of_pool { Some(&*labels[0]) } else { labels[0].strip_prefix("pool:") };
                name.is_none_or(is_known)
            });
            self.fullness.retain(|resource| resource.strip_prefix("pool:").is_none_or(is_known));
            self.settings = settings;
        }
    }
}

/// The table of probes, in the order in which they are read: first those that no setting concerns.
fn lasting_probes() -> Vec<Box<dyn Probe>> {
    vec![
        Box::new(process::Processes::default()),
        Box::new(process::Runqueue::default()),
        Box::new(cgroup::Cpu::default()),
        Box::new(cgroup::Memory::default()),
        Box::new(cgroup::Pids::default()),
        Box::new(pressure::OfBackend::default()),
        Box::new(pressure::OfHost::default()),
        Box::new(netstat::Netstat),
        Box::new(host::Host::new()),
    ]
}

fn asked_probes(settings: &Settings) -> Vec<Box<dyn Probe>> {
    let mut probes: Vec<Box<dyn Probe>> = connections::probes(settings).into();
    probes.extend(pools::reported(&settings.saturation).into_iter().map(|pool| Box::new(pool) as Box<dyn Probe>));
    probes
}

fn deadline(interval: Duration) -> Duration {
    (interval / 2).min(PROBE_DEADLINE_MAX)
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
