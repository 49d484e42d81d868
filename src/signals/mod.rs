//! The stores: what is counted where. One [`Shard`] per worker holds everything that changes on the request path; a
//! scrape sums the shards through [`collect::ShardCollector`]. What changes rarely is in `own.rs`, straight in the
//! metrics crate. Every family is declared once, with name, type, labels and help beside each other (`families.rs`).
//!
//! | file | what it holds |
//! |---|---|
//! | `families.rs` | the declarations |
//! | `store.rs` | single-writer counter, gauge, histogram |
//! | `keys.rs` | label sets as numbers |
//! | `moment.rs` | the clock |
//! | `shard.rs` | one worker's numbers and its handle on them |
//! | `sampled.rs` | what the sampler noted in its latest round |
//! | `snapshot.rs` | all numbers at one moment, for any format |
//! | `collect.rs` | shards and notes → metric families |
//! | `own.rs` | the sidecar itself: build, reloads, process |
//!
//! To add a signal: declare it in `families.rs`, give it a cell in `shard.rs`, a line in `collect.rs`, and call it from
//! `measure/`.

pub mod collect;
pub mod families;
pub mod keys;
pub mod moment;
pub mod own;
pub mod sampled;
pub mod shard;
pub mod snapshot;
pub mod store;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::labels::{Method, Origin, Resource, RouteId, Traffic};
use crate::signals::families::Bounded;
use crate::signals::keys::{Key, RequestKey};
use crate::signals::sampled::{Sample, Sampled};
use crate::signals::shard::{POISON, Shard};
use crate::signals::store::{Counter, Edges};

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

/// Where a route label comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// A template of the configuration.
    Declared,
}

/// What is known of a route label.
#[derive(Clone, Debug)]
struct RouteInfo {
    name: String,
    edges: Arc<Edges>,
    /// Whether a request has been seen, or the route is declared: its series exist.
    preset: bool,
}

/// All numbers of the process.
#[derive(Debug)]
pub struct Signals {
    shards: Vec<Arc<Shard>>,
    routes: RwLock<Vec<RouteInfo>>,
    default_edges: Arc<Edges>,
    stream_edges: Arc<Edges>,
    budget: Mutex<[HashSet<(RouteId, u32)>; Bounded::COUNT]>,
    series_limit: AtomicU64,
    folded_routes: AtomicU64,
    peak_epoch: AtomicU64,
    peaks: Mutex<VecDeque<(Instant, u64)>>,
    bounds: Bounds,
    sampled: Mutex<Sampled>,
}

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
        let fixed = |name: &str| RouteInfo { name: name.to_owned(), edges: Arc::clone(&default_edges), preset: false };
        Arc::new(Signals {
            shards: (0..workers).map(|_| Arc::new(Shard::new(&phase_edges, &overhead_edges))).collect(),
            routes: RwLock::new(vec![fixed("_unmatched"), fixed("_other")]),
            default_edges,
            stream_edges: Edges::new(&STREAM_EDGES),
            budget: Mutex::default(),
            series_limit: AtomicU64::new(series_limit as u64),
            folded_routes: AtomicU64::new(0),
            peak_epoch: AtomicU64::new(1),
            peaks: Mutex::default(),
            bounds: Bounds::default(),
            sampled: Mutex::default(),
        })
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

    /// Gives a declared route its index, the same one for the same name for ever. At the series limit routes share
    /// `_other`. Buckets of a route that exists already stay as they are: a reload resets no histogram.
    pub fn declare_route(&self, name: &str, edges: Option<&[f64]>) -> RouteId {
        let mut routes = self.routes.write().expect(POISON);
        if let Some(at) = routes.iter().position(|r| r.name == name) {
            return RouteId(at as u16);
        }
        let limit = (self.series_limit.load(Relaxed) as usize).min(usize::from(u16::MAX) - 2);
        if routes.len() >= limit + 2 {
            self.folded_routes.fetch_add(1, Relaxed);
            return RouteId::OTHER;
        }
        let edges = edges.map_or_else(|| Arc::clone(&self.default_edges), Edges::new);
        routes.push(RouteInfo { name: name.to_owned(), edges, preset: false });
        let id = RouteId((routes.len() - 1) as u16);
        drop(routes);
        self.preset(id);
        id
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

    pub(self) fn stream_edges(&self) -> &Arc<Edges> {
        &self.stream_edges
    }

    /// Lets a route's request counters exist at 0.
    fn preset(&self, id: RouteId) {
        let mut routes = self.routes.write().expect(POISON);
        let Some(info) = routes.get_mut(id.index()) else { return };
        if std::mem::replace(&mut info.preset, true) {
            return;
        }
        drop(routes);
        for key in preset_keys() {
            self.admit(Bounded::Requests, id, key.pack());
        }
    }

    /// Whether a label set may exist. `_other` always may: at the limit only the route folds, never the status.
    fn admit(&self, family: Bounded, route: RouteId, bits: u32) -> bool {
        if route == RouteId::OTHER {
            return true;
        }
        let mut budget = self.budget.lock().expect(POISON);
        let sets = &mut budget[family as usize];
        if sets.contains(&(route, bits)) {
            return true;
        }
        let room = sets.len() < self.series_limit.load(Relaxed) as usize;
        if room {
            sets.insert((route, bits));
        }
        room
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

fn preset_keys() -> impl Iterator<Item = RequestKey> {
    PRESET_STATUSES.into_iter().map(|status| RequestKey {
        method: Method::Get,
        status,
        origin: Origin::Backend,
        traffic: Traffic::User,
    })
}

/// Sums one counter over all shards.
fn total(shards: &[Arc<Shard>], pick: impl Fn(&Shard) -> &Counter) -> u64 {
    shards.iter().map(|s| pick(s).get()).sum()
}
