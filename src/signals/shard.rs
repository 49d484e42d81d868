//! One worker's share of every number. [`Shard`] is what a scrape reads; [`WorkerSignals`] is the worker's own handle,
//! which alone writes. A label set that a worker meets for the first time takes the cold path once: it asks the budget,
//! allocates its cell and shows it to the readers. From then on it is found by comparing a few small numbers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::labels::{
    AbortPhase, CloseReason, ConnectionEnd, Direction, FirstByte, Method, OverheadDirection, Phase, RejectReason,
    RetryResult, RouteId, StreamEnd, TunnelProtocol,
};
use crate::signals::Signals;
use crate::signals::families::Bounded;
use crate::signals::keys::{DurationKey, ErrorKey, Key, RequestKey, RouteOnly};
use crate::signals::store::{Counter, Edges, Gauge, Histogram};

/// The cells of one bounded family in one shard, as readers find them.
pub(super) type Cells<C> = Mutex<Vec<(RouteId, u32, Arc<C>)>>;

/// What a cell of a bounded family is made of.
pub(super) trait Stored {
    fn fresh(edges: &Arc<Edges>) -> Self;
}

impl Stored for Counter {
    fn fresh(_edges: &Arc<Edges>) -> Self {
        Counter::default()
    }
}

impl Stored for Histogram {
    fn fresh(edges: &Arc<Edges>) -> Self {
        Histogram::new(edges)
    }
}

/// One worker's numbers. Written by that worker, read by scrapes.
// Two cache lines: the adjacent-line prefetcher of x86 would otherwise tie two workers' shards together.
#[repr(align(128))]
#[derive(Debug)]
pub struct Shard {
    /// Requests in flight, by method.
    pub active_requests: [Gauge; Method::COUNT],
    /// Requests in flight.
    pub inflight: Gauge,
    /// Highest `inflight` since `high_epoch` began.
    high: AtomicU64,
    high_epoch: AtomicU64,
    /// Client connections with a request.
    pub connections_active: Gauge,
    /// Client connections without one.
    pub connections_idle: Gauge,
    /// Client connections accepted.
    pub connections_opened: Counter,
    /// Client connections turned away.
    pub connections_rejected: [Counter; RejectReason::COUNT],
    /// Client connections that ended.
    pub connections_closed: [Counter; ConnectionEnd::COUNT],
    /// HTTP/2 connections that came to their limit of streams.
    pub streams_limit_reached: Counter,
    /// Backend connections in use.
    pub upstream_active: Gauge,
    /// Backend connections idle in the pool.
    pub upstream_idle: Gauge,
    /// Backend connections opened.
    pub upstream_opened: Counter,
    /// Backend connections closed.
    pub upstream_closed: [Counter; CloseReason::COUNT],
    /// Requests waiting for a backend connection.
    pub pool_waiting: Gauge,
    /// Requests that gave up waiting.
    pub pool_timeouts: Counter,
    /// Replays.
    pub retries: [Counter; RetryResult::COUNT],
    /// Open tunnels.
    pub tunnels: [Gauge; TunnelProtocol::COUNT],
    /// Tunnels opened.
    pub tunnels_opened: [Counter; TunnelProtocol::COUNT],
    /// Bytes through tunnels.
    pub tunnel_bytes: [[Counter; Direction::COUNT]; TunnelProtocol::COUNT],
    /// Where time goes. `head` is not a phase of its own here and stays empty.
    pub phases: [Histogram; Phase::COUNT],
    /// The sidecar's own share.
    pub overhead: [Histogram; OverheadDirection::COUNT],
    /// Observations that a full family folded into `_other`.
    pub overflow: [Counter; Bounded::COUNT],
    /// Lateness of the worker's timer in nanoseconds, highest since the sampler last asked.
    pub lag_nanos: AtomicU64,

    pub(super) routes: Mutex<Vec<(RouteId, Arc<RouteGauges>)>>,
    pub(super) requests: Cells<Counter>,
    pub(super) durations: Cells<Histogram>,
    pub(super) first_bytes: Cells<Histogram>,
    pub(super) errors: Cells<Counter>,
    pub(super) aborts: Cells<Counter>,
    pub(super) abort_waits: Cells<Histogram>,
    pub(super) stream_durations: Cells<Histogram>,
}

/// One worker's numbers of one route that have no further label.
#[derive(Debug, Default)]
pub struct RouteGauges {
    /// Requests in flight.
    pub inflight: Gauge,
    /// Start of the oldest one, as [`crate::signals::moment::Moment`] counts, 0 for none.
    pub oldest: Counter,
    /// Request body bytes.
    pub request_bytes: Counter,
    /// Response body bytes.
    pub response_bytes: Counter,
    /// Incomplete responses.
    pub truncated: Counter,
    /// Open event streams.
    pub streams: Gauge,
}

// === impl Shard ===

impl Shard {
    pub(super) fn new(phase_edges: &Arc<Edges>, overhead_edges: &Arc<Edges>) -> Shard {
        Shard {
            active_requests: Default::default(),
            inflight: Gauge::default(),
            high: AtomicU64::new(0),
            high_epoch: AtomicU64::new(0),
            connections_active: Gauge::default(),
            connections_idle: Gauge::default(),
            connections_opened: Counter::default(),
            connections_rejected: Default::default(),
            connections_closed: Default::default(),
            streams_limit_reached: Counter::default(),
            upstream_active: Gauge::default(),
            upstream_idle: Gauge::default(),
            upstream_opened: Counter::default(),
            upstream_closed: Default::default(),
            pool_waiting: Gauge::default(),
            pool_timeouts: Counter::default(),
            retries: Default::default(),
            tunnels: Default::default(),
            tunnels_opened: Default::default(),
            tunnel_bytes: Default::default(),
            phases: std::array::from_fn(|_| Histogram::new(phase_edges)),
            overhead: std::array::from_fn(|_| Histogram::new(overhead_edges)),
            overflow: Default::default(),
            lag_nanos: AtomicU64::new(0),
            routes: Mutex::default(),
            requests: Mutex::default(),
            durations: Mutex::default(),
            first_bytes: Mutex::default(),
            errors: Mutex::default(),
            aborts: Mutex::default(),
            abort_waits: Mutex::default(),
            stream_durations: Mutex::default(),
        }
    }

    /// Highest number in flight on this worker since `epoch` began.
    pub(super) fn high_since(&self, epoch: u64) -> u64 {
        let now = self.inflight.get().max(0) as u64;
        if self.high_epoch.load(Relaxed) == epoch { self.high.load(Relaxed).max(now) } else { now }
    }

    /// Changes the number in flight and keeps the highest of this epoch. Owning worker only.
    fn add_inflight(&self, n: i64, epoch: u64) {
        let before = self.inflight.get();
        self.inflight.add(n);
        let highest = before.max(before + n).max(0) as u64;
        if self.high_epoch.load(Relaxed) == epoch {
            if highest > self.high.load(Relaxed) {
                self.high.store(highest, Relaxed);
            }
        } else {
            self.high.store(highest, Relaxed);
            self.high_epoch.store(epoch, Relaxed);
        }
    }
}

/// The cells of one bounded family that one worker has met on one route.
#[derive(Debug)]
struct Known<C> {
    keys: Vec<u32>,
    /// The cell, and whether it is `_other`'s because the family is full.
    cells: Vec<(Arc<C>, bool)>,
}

/// Which of a route's lists a family uses.
type Pick<C> = fn(&RouteSignals) -> &RefCell<Known<C>>;

impl<C> Default for Known<C> {
    fn default() -> Self {
        Known { keys: Vec::new(), cells: Vec::new() }
    }
}

/// A worker's handle on one route.
#[derive(Debug)]
pub struct RouteSignals {
    /// The route.
    pub id: RouteId,
    /// Its numbers without further labels.
    pub gauges: Arc<RouteGauges>,
    edges: Arc<Edges>,
    oldest: Cell<u32>,
    newest: Cell<u32>,
    requests: RefCell<Known<Counter>>,
    durations: RefCell<Known<Histogram>>,
    first_bytes: RefCell<Known<Histogram>>,
    errors: RefCell<Known<Counter>>,
    aborts: RefCell<Known<Counter>>,
    abort_waits: RefCell<Known<Histogram>>,
    stream_durations: RefCell<Known<Histogram>>,
}

/// An unfinished request in the order of arrival on its route.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    started: u64,
    older: u32,
    newer: u32,
}

/// No request.
const NONE: u32 = u32::MAX;

/// A worker's own handle on its shard. Not `Send`: it is the single writer.
#[derive(Debug)]
pub struct WorkerSignals {
    shard: Arc<Shard>,
    signals: Arc<Signals>,
    routes: RefCell<Vec<Option<Rc<RouteSignals>>>>,
    unfinished: RefCell<Vec<Unfinished>>,
    free: Cell<u32>,
}

// === impl WorkerSignals ===

impl WorkerSignals {
    /// The handle of worker `index`. There must be one handle per shard.
    #[must_use]
    pub fn new(signals: &Arc<Signals>, index: usize) -> WorkerSignals {
        WorkerSignals {
            shard: Arc::clone(&signals.shards()[index]),
            signals: Arc::clone(signals),
            routes: RefCell::default(),
            unfinished: RefCell::default(),
            free: Cell::new(NONE),
        }
    }

    /// This worker's numbers.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// All numbers.
    #[must_use]
    pub fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    /// This worker's handle on a route.
    #[must_use]
    pub fn route(&self, id: RouteId) -> Rc<RouteSignals> {
        if let Some(Some(route)) = self.routes.borrow().get(id.index()) {
            return Rc::clone(route);
        }
        self.first_use(id)
    }

    #[cold]
    fn first_use(&self, id: RouteId) -> Rc<RouteSignals> {
        let gauges = Arc::new(RouteGauges::default());
        self.shard.routes.lock().expect(POISON).push((id, Arc::clone(&gauges)));
        self.signals.preset(id);
        let route = Rc::new(RouteSignals {
            id,
            gauges,
            edges: self.signals.route_edges(id),
            oldest: Cell::new(NONE),
            newest: Cell::new(NONE),
            requests: RefCell::default(),
            durations: RefCell::default(),
            first_bytes: RefCell::default(),
            errors: RefCell::default(),
            aborts: RefCell::default(),
            abort_waits: RefCell::default(),
            stream_durations: RefCell::default(),
        });
        let mut routes = self.routes.borrow_mut();
        if routes.len() <= id.index() {
            routes.resize(id.index() + 1, None);
        }
        routes[id.index()] = Some(Rc::clone(&route));
        route
    }

    /// The worker's timer ran this late.
    pub fn lag(&self, late: std::time::Duration) {
        // The sampler takes the value and resets it, so this one cell has two writers; it runs once a tick.
        self.shard.lag_nanos.fetch_max(late.as_nanos() as u64, Relaxed);
    }

    /// A client connection was turned away.
    pub fn connection_rejected(&self, reason: RejectReason) {
        self.shard.connections_rejected[reason.index()].add(1);
    }

    /// Counts one ended request.
    pub fn count_request(&self, route: &RouteSignals, key: RequestKey) {
        self.with(Bounded::Requests, route, key, |r| &r.requests, &self.shard.requests, |c| c.add(1));
    }

    /// Records how long a request took.
    pub fn observe_duration(&self, route: &RouteSignals, key: DurationKey, nanos: u64) {
        self.with(Bounded::Duration, route, key, |r| &r.durations, &self.shard.durations, |c| c.observe(nanos));
    }

    /// Records the wait for the first byte.
    pub fn observe_first_byte(&self, route: &RouteSignals, key: FirstByte, nanos: u64) {
        self.with(Bounded::FirstByte, route, key, |r| &r.first_bytes, &self.shard.first_bytes, |c| c.observe(nanos));
    }

    /// Counts one failed request.
    pub fn count_error(&self, route: &RouteSignals, key: ErrorKey) {
        self.with(Bounded::Errors, route, key, |r| &r.errors, &self.shard.errors, |c| c.add(1));
    }

    /// Counts a client that left after `nanos`.
    pub fn count_abort(&self, route: &RouteSignals, key: AbortPhase, nanos: u64) {
        self.with(Bounded::Aborts, route, key, |r| &r.aborts, &self.shard.aborts, |c| c.add(1));
        self.with(
            Bounded::AbortWait,
            route,
            RouteOnly,
            |r| &r.abort_waits,
            &self.shard.abort_waits,
            |c| c.observe(nanos),
        );
    }

    /// Records how long an event stream lasted.
    pub fn observe_stream(&self, route: &RouteSignals, key: StreamEnd, nanos: u64) {
        self.with(
            Bounded::StreamDuration,
            route,
            key,
            |r| &r.stream_durations,
            &self.shard.stream_durations,
            |c| c.observe(nanos),
        );
    }

    /// A request begins: in flight +1. Returns its place in the line of unfinished requests.
    #[must_use]
    pub fn begin(&self, route: &RouteSignals, method: Method, started: u64) -> u32 {
        self.shard.active_requests[method.index()].add(1);
        self.shard.add_inflight(1, self.signals.peak_epoch());
        route.gauges.inflight.add(1);
        self.join_line(route, started)
    }

    /// Puts a request at the end of the line of unfinished ones. It may be a little older than those before it; the oldest
    /// is then told a little too young until it has ended.
    fn join_line(&self, route: &RouteSignals, started: u64) -> u32 {
        let mut line = self.unfinished.borrow_mut();
        let entry = Unfinished { started, older: route.newest.get(), newer: NONE };
        let slot = self.free.get();
        let slot = if slot == NONE {
            line.push(entry);
            (line.len() - 1) as u32
        } else {
            self.free.set(line[slot as usize].newer);
            line[slot as usize] = entry;
            slot
        };
        match route.newest.replace(slot) {
            NONE => {
                route.oldest.set(slot);
                route.gauges.oldest.set(started);
            }
            older => line[older as usize].newer = slot,
        }
        slot
    }

    /// A request in flight turns out to belong to another route. Returns its place in that route's line, as
    /// [`WorkerSignals::begin`] does; it keeps its age.
    #[must_use]
    pub fn move_to(&self, old: &RouteSignals, new: &RouteSignals, slot: u32) -> u32 {
        let started = self.unfinished.borrow()[slot as usize].started;
        self.without_age(old, slot);
        old.gauges.inflight.add(-1);
        new.gauges.inflight.add(1);
        self.join_line(new, started)
    }

    /// Takes a request out of the line, so that it has no age any more (an event stream, or at the end).
    pub fn without_age(&self, route: &RouteSignals, slot: u32) {
        let mut line = self.unfinished.borrow_mut();
        let Unfinished { older, newer, .. } = line[slot as usize];
        match older {
            NONE => {
                route.oldest.set(newer);
                route.gauges.oldest.set(if newer == NONE { 0 } else { line[newer as usize].started });
            }
            older => line[older as usize].newer = newer,
        }
        match newer {
            NONE => route.newest.set(older),
            newer => line[newer as usize].older = older,
        }
        line[slot as usize].newer = self.free.replace(slot);
    }

    /// A request is no longer in flight.
    pub fn end(&self, route: &RouteSignals, method: Method) {
        self.shard.active_requests[method.index()].add(-1);
        self.shard.add_inflight(-1, self.signals.peak_epoch());
        route.gauges.inflight.add(-1);
    }

    /// Finds the cell of a label set and changes it.
    fn with<C: Stored, K: Key>(
        &self,
        family: Bounded,
        route: &RouteSignals,
        key: K,
        pick: Pick<C>,
        readers: &Cells<C>,
        change: impl FnOnce(&C),
    ) {
        let known = pick(route);
        let bits = key.pack();
        {
            let known = known.borrow();
            if let Some(at) = known.keys.iter().position(|k| *k == bits) {
                let (cell, folded) = &known.cells[at];
                if *folded {
                    self.shard.overflow[family as usize].add(1);
                }
                return change(cell);
            }
        }
        self.first_sight(family, route, bits, pick, readers, change);
    }

    #[cold]
    fn first_sight<C: Stored>(
        &self,
        family: Bounded,
        route: &RouteSignals,
        bits: u32,
        pick: Pick<C>,
        readers: &Cells<C>,
        change: impl FnOnce(&C),
    ) {
        let other;
        let admitted = self.signals.admit(family, route.id, bits);
        let owner = if admitted {
            route
        } else {
            self.shard.overflow[family as usize].add(1);
            other = self.route(RouteId::OTHER);
            &*other
        };
        let owned = pick(owner);
        let at = owned.borrow().keys.iter().position(|k| *k == bits);
        let cell = match at {
            Some(at) => Arc::clone(&owned.borrow().cells[at].0),
            None => {
                let edges = match family {
                    Bounded::StreamDuration => self.signals.stream_edges(),
                    _ => &owner.edges,
                };
                let cell = Arc::new(C::fresh(edges));
                readers.lock().expect(POISON).push((owner.id, bits, Arc::clone(&cell)));
                let mut owned = owned.borrow_mut();
                owned.keys.push(bits);
                owned.cells.push((Arc::clone(&cell), false));
                cell
            }
        };
        if !admitted {
            let mut known = pick(route).borrow_mut();
            // Remembering the verdict saves the lock next time; the bound keeps a backend that sends every status
            // there is from growing this list without end.
            if known.keys.len() < FOLDED_MEMORY {
                known.keys.push(bits);
                known.cells.push((Arc::clone(&cell), true));
            }
        }
        change(&cell);
    }
}

/// Label sets of one family and route that a worker remembers as folded. Statuses times methods of a normal route stay
/// far below it.
const FOLDED_MEMORY: usize = 1024;

/// A poisoned lock means that a thread died while it changed a list: a defect that must not be papered over.
pub(super) const POISON: &str = "a thread panicked while it held a list of series";
