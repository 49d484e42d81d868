//! The stores: what is counted where. One [`Shard`] per worker holds everything that changes on the request path; a
//! scrape sums the shards through [`collect::snapshot`]. What changes rarely is in `own.rs`, straight in the
//! metrics crate. Every family is declared once, with name, type, labels and help beside each other (`families.rs`).
//!
//! | file | what it holds |
//! |---|---|
//! | `families.rs` | the declarations |
//! | `store.rs` | single-writer counter, gauge, histogram |
//! | `native.rs` | the arithmetic of native buckets |
//! | `sync.rs` | the atomics of `store.rs` |
//! | `budget.rs` | how much memory label sets may take |
//! | `keys.rs` | label sets as numbers |
//! | `moment.rs` | the clock |
//! | `shard.rs` | one worker's numbers and its handle on them |
//! | `implicit.rs` | rules that find implicit errors |
//! | `numbered.rs` | names of objectives and rules, which outlive a reload |
//! | `slo.rs` | service level objectives |
//! | `sampled.rs` | what the sampler noted in its latest round |
//! | `snapshot.rs` | all numbers at one moment, for any format |
//! | `collect.rs` | shards and notes → metric families |
//! | `own.rs` | the sidecar itself: build, reloads, process |
//!
//! To add a signal: declare it in `families.rs`, give it a cell in `shard.rs`, a line in `collect.rs`, and call it from
//! `measure/`.

mod budget;
pub mod collect;
pub mod families;
pub mod implicit;
pub mod keys;
pub mod moment;
mod native;
mod numbered;
pub mod own;
pub mod sampled;
pub mod shard;
mod slo;
pub mod snapshot;
pub mod store;
mod sync;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::config::{ImplicitError, Slo};
use crate::labels::{AbortPhase, Method, Origin, Resource, RouteId, RouteKind, Traffic};
use crate::signals::budget::{Account, Budget};
use crate::signals::collect::Idle;
use crate::signals::families::Bounded;
use crate::signals::implicit::ImplicitRules;
use crate::signals::keys::{Key, RequestKey};
use crate::signals::moment::Moment;
use crate::signals::sampled::{Sample, Sampled};
use crate::signals::shard::{LABEL_SET_BYTES, POISON, ROUTE_BYTES, Shard, Stored};
use crate::signals::slo::Slos;
use crate::signals::store::{Counter, Edges, Histogram, TracedCounter};

/// Edges of `golden_stream_duration_seconds`: streams live from seconds to hours, and proxies and browsers cut them at
/// round minutes.
const STREAM_EDGES: [f64; 11] = [0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14400.0];
/// Edges of `golden_upstream_phase_seconds`: a connect on loopback takes 50 µs, a slow report 10 s.
const PHASE_EDGES: [f64; 14] =
    [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Edges of `golden_proxy_overhead_seconds`, 10 µs to 50 ms: the sidecar's own share is some 10 µs when all is well.
const OVERHEAD_EDGES: [f64; 12] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05];
/// Statuses that a route's `golden_requests_total` has at 0 from its first request, so that a ratio never vanishes: one
/// of each class.
const PRESET_STATUSES: [u16; 4] = [200, 301, 404, 500];
/// The window of `golden_inflight_peak`.
pub const PEAK_WINDOW: Duration = Duration::from_secs(60);

/// What is known of a route label.
#[derive(Clone, Debug)]
struct RouteInfo {
    name: Arc<str>,
    /// `None`: `_unmatched` and `_other`, which are no routes.
    kind: Option<RouteKind>,
    edges: Arc<Edges>,
    /// Since when its series exist: since it was declared, or since its first request. As [`Moment`] counts.
    since: Option<u64>,
}

/// All numbers of the process.
#[derive(Debug)]
pub struct Signals {
    shards: Vec<Arc<Shard>>,
    routes: RwLock<Vec<RouteInfo>>,
    default_edges: Arc<Edges>,
    stream_edges: Arc<Edges>,
    admitted: Mutex<[HashSet<(RouteId, u32)>; Bounded::COUNT]>,
    series_limit: AtomicU64,
    memory: Budget,
    routes_folded: AtomicU64,
    routes_forgotten: AtomicU64,
    routes_pending: AtomicU64,
    slos: Slos,
    implicit: ImplicitRules,
    idle: Mutex<Idle>,
    clock: Clock,
    peak_epoch: AtomicU64,
    peaks: Mutex<VecDeque<(Instant, u64)>>,
    bounds: Bounds,
    sampled: Mutex<Sampled>,
}

/// What it takes to tell a [`Moment`] in seconds since 1970.
#[derive(Debug)]
struct Clock {
    /// When counting began.
    start: u64,
    /// Seconds since 1970 at moment 0, as they were when counting began: a start time must be the same on every page.
    at_start: f64,
    /// The same, as it is now.
    now: Mutex<f64>,
}

/// The clock of the host has been set, and not only been kept right, when it is off by this much. Less is no reason to
/// tell a past event another time than on the last page.
const CLOCK_SET_SECONDS: f64 = 0.5;

/// Limits in force, as gauges. 0 stands for none.
#[derive(Debug, Default)]
pub struct Bounds {
    /// Client connections.
    pub connections: AtomicU64,
    /// Requests in flight.
    pub inflight: AtomicU64,
    /// Backend connections.
    pub upstream_connections: AtomicU64,
}

// === impl Signals ===

impl Signals {
    /// Empty stores for `workers` workers. `edges`: upper edges of the latency histograms in seconds.
    #[must_use]
    pub fn new(workers: usize, edges: &[f64], series_limit: usize) -> Arc<Signals> {
        let phase_edges = Edges::new(&PHASE_EDGES);
        let overhead_edges = Edges::new(&OVERHEAD_EDGES);
        let default_edges = Edges::new(edges);
        let fixed =
            |name: &str| RouteInfo { name: name.into(), kind: None, edges: Arc::clone(&default_edges), since: None };
        Arc::new(Signals {
            shards: (0..workers).map(|_| Arc::new(Shard::new(&phase_edges, &overhead_edges))).collect(),
            routes: RwLock::new(vec![fixed("_unmatched"), fixed("_other")]),
            default_edges,
            stream_edges: Edges::new(&STREAM_EDGES),
            admitted: Mutex::default(),
            series_limit: AtomicU64::new(series_limit as u64),
            memory: Budget::new(),
            routes_folded: AtomicU64::new(0),
            routes_forgotten: AtomicU64::new(0),
            routes_pending: AtomicU64::new(0),
            slos: Slos::default(),
            implicit: ImplicitRules::default(),
            idle: Mutex::default(),
            clock: Clock::new(),
            peak_epoch: AtomicU64::new(1),
            peaks: Mutex::default(),
            bounds: Bounds::default(),
            sampled: Mutex::default(),
        })
    }

    /// When counting began, in seconds since 1970; the same at all times.
    #[must_use]
    pub fn started_seconds(&self) -> f64 {
        self.clock.created(self.clock.start)
    }

    /// The shards, one per worker.
    #[must_use]
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The limits in force, as gauges.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Gives a route its index, the same one for the same name for ever. `edges`: upper edges of its latency histograms
    /// in seconds, thresholds included ([`Edges::with`]); those of a route that exists already stay, so a reload resets
    /// no histogram. A declared route has series from now on, another one from its first request. Of several sources
    /// the first in the order of [`RouteKind`] is the one that it comes from.
    ///
    /// `None` when there are as many routes as series, or no memory for one more: then its requests belong under
    /// [`RouteId::OTHER`], where the overflow counter tells of them.
    pub fn declare_route(&self, name: &str, kind: RouteKind, edges: Option<&[f64]>) -> Option<RouteId> {
        let id = self.route_index(name, kind, edges);
        if let Some(id) = id.filter(|_| kind == RouteKind::Declared) {
            self.preset(id);
        }
        id
    }

    fn route_index(&self, name: &str, kind: RouteKind, edges: Option<&[f64]>) -> Option<RouteId> {
        let mut routes = self.routes.write().expect(POISON);
        if let Some(at) = routes.iter().position(|r| &*r.name == name) {
            // What was declared for one method may be learned for another, and stays declared. `_other` and
            // `_unmatched` are no routes, whoever calls a route so.
            routes[at].kind = routes[at].kind.map(|known| known.min(kind));
            return Some(RouteId(at as u16));
        }
        let limit = (self.series_limit.load(Relaxed) as usize).min(usize::from(u16::MAX) - 2);
        if routes.len() >= limit + 2 {
            return None;
        }
        // A template is often given the edges of another one.
        let same = |edges: &[f64]| routes.iter().map(|r| &r.edges).find(|known| **known.seconds() == *edges).cloned();
        let own = |edges: &[f64]| same(edges).map_or_else(|| (Edges::new(edges), true), |known| (known, false));
        let (edges, fresh) = edges.map_or_else(|| (Arc::clone(&self.default_edges), false), own);
        let info = RouteInfo { name: name.into(), kind: Some(kind), edges, since: None };
        let for_edges = if fresh { info.edges.bytes() } else { 0 };
        let bytes = size_of::<RouteInfo>() + name.len() + for_edges + self.shards.len() * ROUTE_BYTES;
        if !self.memory.account(false).take(bytes) {
            return None;
        }
        routes.push(info);
        Some(RouteId((routes.len() - 1) as u16))
    }

    /// Tells how many words of paths wait for more evidence before they are part of a label.
    pub fn set_routes_pending(&self, words: u64) {
        self.routes_pending.store(words, Relaxed);
    }

    /// Tells in how many places siblings were folded into one parameter, all in all.
    pub fn set_routes_folded(&self, places: u64) {
        self.routes_folded.store(places, Relaxed);
    }

    /// Tells how many words of paths waited and were forgotten because as many waited as may, all in all.
    pub fn set_routes_forgotten(&self, words: u64) {
        self.routes_forgotten.store(words, Relaxed);
    }

    /// Every route with its requests so far: index, name, where it comes from (`None` for `_unmatched` and `_other`)
    /// and requests that ended.
    #[must_use]
    pub fn requests_by_route(&self) -> Vec<(RouteId, Arc<str>, Option<RouteKind>, u64)> {
        let routes = self.routes.read().expect(POISON);
        let ids = (0..).map(RouteId);
        let mut all: Vec<_> = ids.zip(routes.iter()).map(|(id, r)| (id, Arc::clone(&r.name), r.kind, 0)).collect();
        drop(routes);
        for shard in &self.shards {
            for counted in shard.requests.all().iter() {
                // A route may be younger than the list.
                if let Some((.., requests)) = all.get_mut(counted.route.index()) {
                    *requests += counted.cell.get();
                }
            }
        }
        all
    }

    /// Changes the most memory that label sets and routes may take, in bytes. What exists stays.
    pub fn set_memory_limit(&self, bytes: usize) {
        self.memory.set_limit(bytes);
    }

    /// Leaves a label set that is kept per route out of the page when it has not changed for that long. When it changes
    /// it comes back with its full count. The zeros of a declared route stay.
    pub fn set_series_idle(&self, after: Option<Duration>) {
        self.idle.lock().expect(POISON).set(after);
    }

    /// Puts these objectives in force, from the next request on. One that has the name of an earlier one goes on with
    /// its counts, and the counts of one that is gone stay. Gives the names that are not counted, because there have
    /// been too many in the life of the process. Their thresholds become edges by [`Signals::new`] and
    /// [`Signals::declare_route`].
    pub fn set_slos(&self, slos: &[Slo]) -> Vec<String> {
        self.slos.set(slos)
    }

    /// Puts these rules for implicit errors in force, from the next answer on. One that has the name of an earlier one goes
    /// on with its counts, and the counts of one that is gone stay. Gives the names of those that do not hold, because
    /// there have been too many in the life of the process.
    pub fn set_implicit_errors(&self, rules: &[ImplicitError]) -> Vec<String> {
        self.implicit.set(rules)
    }

    /// Changes the limit of label sets per family. Label sets that exist stay.
    pub fn set_series_limit(&self, limit: usize) {
        self.series_limit.store(limit as u64, Relaxed);
    }

    /// The latency edges of a route.
    #[must_use]
    pub fn route_edges(&self, id: RouteId) -> Arc<Edges> {
        let routes = self.routes.read().expect(POISON);
        routes.get(id.index()).map_or_else(|| Arc::clone(&self.default_edges), |r| Arc::clone(&r.edges))
    }

    /// The label of a route.
    pub(self) fn route_name(&self, id: RouteId) -> Arc<str> {
        let routes = self.routes.read().expect(POISON);
        Arc::clone(&routes.get(id.index()).unwrap_or(&routes[RouteId::UNMATCHED.index()]).name)
    }

    /// The edges of one family's histograms on a route that has these latency edges.
    pub(self) fn edges_of<'e>(&'e self, family: Bounded, route: &'e Arc<Edges>) -> &'e Arc<Edges> {
        if family == Bounded::StreamDuration { &self.stream_edges } else { route }
    }

    /// On whose account a route takes memory.
    pub(self) fn account(&self, route: RouteId) -> Account<'_> {
        self.memory.account(route == RouteId::OTHER || route == RouteId::UNMATCHED)
    }

    /// Lets a route's request counters exist at 0.
    fn preset(&self, id: RouteId) {
        let mut routes = self.routes.write().expect(POISON);
        let Some(info) = routes.get_mut(id.index()) else { return };
        if info.since.is_some() {
            return;
        }
        info.since = Some(Moment::now().nanos());
        drop(routes);
        for family in Bounded::ALL {
            for bits in preset_of(family) {
                self.admit(family, id, bits);
            }
        }
    }

    /// Whether a label set may exist. `_other` always may: at the limit only the route folds, never the status.
    fn admit(&self, family: Bounded, route: RouteId, bits: u32) -> bool {
        if route == RouteId::OTHER {
            return true;
        }
        let set = (route, bits);
        {
            let admitted = self.admitted.lock().expect(POISON);
            let sets = &admitted[family as usize];
            if sets.contains(&set) {
                return true;
            }
            if sets.len() >= self.series_limit.load(Relaxed) as usize {
                return false;
            }
        }
        let bytes = self.label_set_bytes(family, route);
        let mut admitted = self.admitted.lock().expect(POISON);
        let sets = &mut admitted[family as usize];
        // Another worker may have been here in the meantime.
        if sets.contains(&set) {
            return true;
        }
        let room = sets.len() < self.series_limit.load(Relaxed) as usize && self.account(route).take(bytes);
        if room {
            sets.insert(set);
        }
        room
    }

    /// How many label sets of each family exist besides those of `_other`: what the limit is compared with.
    fn admitted(&self) -> [usize; Bounded::COUNT] {
        let admitted = self.admitted.lock().expect(POISON);
        std::array::from_fn(|family| admitted[family].len())
    }

    /// Bytes that a label set takes when every worker has met it.
    fn label_set_bytes(&self, family: Bounded, route: RouteId) -> usize {
        let cell = match family {
            Bounded::Requests | Bounded::Aborts | Bounded::ImplicitErrors => Counter::bytes(&self.default_edges),
            Bounded::Errors => TracedCounter::bytes(&self.default_edges),
            Bounded::Duration
            | Bounded::FirstByte
            | Bounded::AbortWait
            | Bounded::StreamDuration
            | Bounded::RpcDuration => Histogram::bytes(self.edges_of(family, &self.route_edges(route))),
        };
        // The set of those that are admitted holds each once, and is up to half empty.
        2 * size_of::<(RouteId, u32)>() + self.shards.len() * (cell + LABEL_SET_BYTES)
    }

    pub(self) fn peak_epoch(&self) -> u64 {
        self.peak_epoch.load(Relaxed)
    }

    /// Requests in flight over all workers.
    #[must_use]
    pub fn inflight(&self) -> u64 {
        self.shards.iter().map(|s| s.inflight.get()).sum::<i64>().max(0) as u64
    }

    /// Client connections over all workers.
    #[must_use]
    pub fn connections(&self) -> u64 {
        let open = |s: &Arc<Shard>| s.connections_active.get() + s.connections_idle.get();
        self.shards.iter().map(open).sum::<i64>().max(0) as u64
    }

    /// Backend connections in use over all workers.
    #[must_use]
    pub fn upstream_active(&self) -> u64 {
        self.shards.iter().map(|s| s.upstream_active.get()).sum::<i64>().max(0) as u64
    }

    /// Backend connections without a request over all workers.
    #[must_use]
    pub fn upstream_idle(&self) -> u64 {
        self.shards.iter().map(|s| s.upstream_idle.get()).sum::<i64>().max(0) as u64
    }

    /// Used share of a resource that is this sidecar's own; `None` for others and for those without a limit.
    #[must_use]
    pub fn own_ratio(&self, resource: Resource) -> Option<f64> {
        let (used, limit) = match resource {
            Resource::Inflight => (self.inflight(), &self.bounds.inflight),
            Resource::UpstreamPool => (self.upstream_active(), &self.bounds.upstream_connections),
            Resource::ServerConnections => (self.connections(), &self.bounds.connections),
            _ => return None,
        };
        match limit.load(Relaxed) {
            0 => None,
            limit => Some(used as f64 / limit as f64),
        }
    }

    /// Takes in a round of sampling.
    pub fn record_sample(&self, sample: Sample) {
        let lag_nanos = self.shards.iter().map(|s| s.lag_nanos.swap(0, Relaxed)).max().unwrap_or(0);
        let mut sampled = self.sampled.lock().expect(POISON);
        sampled.lag_seconds = lag_nanos as f64 / 1e9;
        sampled.ticks += 1;
        sampled.missed += sample.missed;
        sampled.latest = Some(sample);
    }

    /// Closes the current interval of the in-flight peak and tells the highest number in it.
    pub fn close_peak_interval(&self) -> u64 {
        let now = Instant::now();
        let mut peaks = self.peaks.lock().expect(POISON);
        let highest = self.current_high();
        self.peak_epoch.fetch_add(1, Relaxed);
        peaks.push_back((now, highest));
        while peaks.front().is_some_and(|(at, _)| now.duration_since(*at) > PEAK_WINDOW) {
            peaks.pop_front();
        }
        highest
    }

    fn current_high(&self) -> u64 {
        let epoch = self.peak_epoch();
        self.shards.iter().map(|s| s.high_since(epoch)).sum()
    }

    /// Highest number in flight of the last 60 s.
    fn inflight_peak(&self) -> u64 {
        let now = Instant::now();
        let peaks = self.peaks.lock().expect(POISON);
        let recent = peaks.iter().filter(|(at, _)| now.duration_since(*at) <= PEAK_WINDOW).map(|(_, n)| *n);
        recent.max().unwrap_or(0).max(self.current_high())
    }
}

/// The label sets of a family that a route has at 0.
fn preset_of(family: Bounded) -> Vec<u32> {
    let request = |status| RequestKey { method: Method::Get, status, origin: Origin::Backend, traffic: Traffic::User };
    match family {
        Bounded::Requests => PRESET_STATUSES.into_iter().map(|status| request(status).pack()).collect(),
        Bounded::Aborts => AbortPhase::ALL.iter().map(|phase| phase.pack()).collect(),
        _ => Vec::new(),
    }
}

// === impl Clock ===

impl Clock {
    fn new() -> Clock {
        let start = Moment::now().nanos();
        let at_start = offset_seconds();
        Clock { start, at_start, now: Mutex::new(at_start) }
    }

    /// When something began to count, in seconds since 1970, to the millisecond.
    fn created(&self, moment: u64) -> f64 {
        ((self.at_start + moment as f64 / 1e9) * 1e3).round() / 1e3
    }

    /// Seconds since 1970 at moment 0, for events.
    fn offset(&self) -> f64 {
        let mut kept = self.now.lock().expect(POISON);
        let now = offset_seconds();
        if (now - *kept).abs() > CLOCK_SET_SECONDS {
            *kept = now;
        }
        *kept
    }
}

fn offset_seconds() -> f64 {
    // A clock before 1970 is no clock.
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    wall - Moment::now().nanos() as f64 / 1e9
}

/// Sums one counter over all shards.
fn total(shards: &[Arc<Shard>], pick: impl Fn(&Shard) -> &Counter) -> u64 {
    shards.iter().map(|s| pick(s).get()).sum()
}

#[cfg(test)]
mod tests;
