//! One worker's share of every number. [`Shard`] is what a scrape reads; [`WorkerSignals`] is the worker's own handle,
//! which alone writes. A label set that a worker meets for the first time takes the cold path once: it asks the budget,
//! allocates its cell and shows it to the readers. From then on it is found by comparing a few small numbers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::labels::{
    AbortPhase, CloseReason, ConnectionEnd, Direction, FirstByte, Method, OverheadDirection, Phase, RejectReason,
    RetryResult, RouteId, RuleId, SloResult, StreamEnd, TlsFailure, TlsSide, TunnelProtocol,
};
use crate::signals::Signals;
use crate::signals::budget::Account;
use crate::signals::families::Bounded;
use crate::signals::implicit::{self, OwnRules, RouteRules};
use crate::signals::keys::{DurationKey, ErrorKey, Key, RequestKey, RouteOnly, RpcKey};
use crate::signals::moment::Moment;
use crate::signals::slo::{self, Covering, OwnSlos};
use crate::signals::store::{Counter, Edges, Gauge, Histogram, Traced, TracedCounter};

/// The cells of one bounded family in one shard, as readers find them.
pub(super) type Cells<C> = Listed<Labelled<C>>;

/// One label set of a bounded family in one shard.
#[derive(Debug)]
pub(super) struct Labelled<C> {
    pub route: RouteId,
    pub bits: u32,
    /// When it was met for the first time, as [`Moment`] counts.
    pub since: u64,
    pub cell: Arc<C>,
}

/// A list that one worker adds to and scrapes read. A reader holds the lock for as long as it takes to count itself in;
/// a worker that adds while somebody reads goes on with a copy.
#[derive(Debug)]
pub(super) struct Listed<T>(Mutex<Arc<Vec<T>>>);

/// What a cell of a bounded family is made of.
pub(super) trait Stored {
    fn fresh(edges: &Arc<Edges>) -> Self;

    /// Bytes that a fresh one takes.
    fn bytes(edges: &Edges) -> usize;
}

impl Stored for Counter {
    fn fresh(_edges: &Arc<Edges>) -> Self {
        Counter::default()
    }

    fn bytes(_edges: &Edges) -> usize {
        size_of::<Counter>()
    }
}

impl Stored for TracedCounter {
    fn fresh(_edges: &Arc<Edges>) -> Self {
        TracedCounter::default()
    }

    fn bytes(_edges: &Edges) -> usize {
        size_of::<TracedCounter>()
    }
}

impl Stored for Histogram {
    fn fresh(edges: &Arc<Edges>) -> Self {
        Histogram::new(edges)
    }

    fn bytes(edges: &Edges) -> usize {
        Histogram::ordinary_bytes(edges)
    }
}

/// Bytes that a worker spends on a label set beside the cell: its counters as an [`Arc`], its place in the list that
/// scrapes read and in the worker's own, with the half that a growing list keeps free.
pub(super) const LABEL_SET_BYTES: usize =
    16 + 2 * (size_of::<Labelled<Counter>>() + size_of::<(u32, Arc<Counter>, bool)>());

/// Bytes that a worker spends on a route.
pub(super) const ROUTE_BYTES: usize =
    size_of::<RouteSignals>() + size_of::<RouteGauges>() + 2 * 16 + 2 * size_of::<(RouteId, Arc<RouteGauges>)>() + 16;

// === impl Labelled ===

impl<C> Clone for Labelled<C> {
    fn clone(&self) -> Self {
        let Labelled { route, bits, since, cell } = self;
        Labelled { route: *route, bits: *bits, since: *since, cell: Arc::clone(cell) }
    }
}

// === impl Listed ===

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Listed(Mutex::default())
    }
}

impl<T: Clone> Listed<T> {
    pub fn push(&self, item: T) {
        Arc::make_mut(&mut self.0.lock().expect(POISON)).push(item);
    }

    /// All of them, as they are now.
    pub fn all(&self) -> Arc<Vec<T>> {
        Arc::clone(&self.0.lock().expect(POISON))
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
    /// TLS handshakes that failed.
    pub tls_failures: [[Counter; TlsFailure::COUNT]; TlsSide::COUNT],
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

    pub(super) routes: Listed<(RouteId, Arc<RouteGauges>)>,
    pub(super) requests: Cells<Counter>,
    pub(super) durations: Cells<Histogram>,
    pub(super) first_bytes: Cells<Histogram>,
    pub(super) errors: Cells<TracedCounter>,
    pub(super) implicit_errors: Cells<Counter>,
    pub(super) aborts: Cells<Counter>,
    pub(super) abort_waits: Cells<Histogram>,
    pub(super) stream_durations: Cells<Histogram>,
    pub(super) rpc_durations: Cells<Histogram>,
    /// By the number of the objective's name.
    pub(super) slos: Listed<(usize, Arc<slo::Cells>)>,
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
    /// Open event streams and gRPC streams.
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
            tls_failures: Default::default(),
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
            routes: Listed::default(),
            requests: Listed::default(),
            durations: Listed::default(),
            first_bytes: Listed::default(),
            errors: Listed::default(),
            implicit_errors: Listed::default(),
            aborts: Listed::default(),
            abort_waits: Listed::default(),
            stream_durations: Listed::default(),
            rpc_durations: Listed::default(),
            slos: Listed::default(),
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
    /// The cell, and whether it is `_other`'s, because of one limit or another.
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
    errors: RefCell<Known<TracedCounter>>,
    implicit_errors: RefCell<Known<Counter>>,
    aborts: RefCell<Known<Counter>>,
    abort_waits: RefCell<Known<Histogram>>,
    stream_durations: RefCell<Known<Histogram>>,
    rpc_durations: RefCell<Known<Histogram>>,
    /// The objectives that cover it, as they were in force in this epoch.
    slos: Cell<(u64, Covering)>,
    /// The rules for implicit errors that cover it, likewise.
    rules: Cell<(u64, implicit::Covering)>,
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
    slos: RefCell<OwnSlos>,
    rules: RefCell<OwnRules>,
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
            slos: RefCell::default(),
            rules: RefCell::default(),
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
        self.shard.routes.push((id, Arc::clone(&gauges)));
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
            implicit_errors: RefCell::default(),
            aborts: RefCell::default(),
            abort_waits: RefCell::default(),
            stream_durations: RefCell::default(),
            rpc_durations: RefCell::default(),
            slos: Cell::default(),
            rules: Cell::default(),
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

    /// A TLS handshake failed.
    pub fn tls_failed(&self, side: TlsSide, failure: TlsFailure) {
        self.shard.tls_failures[side.index()][failure.index()].add(1);
    }

    /// Counts one ended request.
    pub fn count_request(&self, route: &RouteSignals, key: RequestKey) {
        self.with(Bounded::Requests, route, key.pack(), |r| &r.requests, &self.shard.requests, count);
    }

    /// Counts one ended request in every objective that covers its route. `result`: what it is to one with this
    /// threshold in nanoseconds. Gives whether it is too slow for one that calls this an error.
    #[must_use]
    pub fn count_slos(&self, route: &RouteSignals, result: impl Fn(Option<u64>) -> SloResult) -> bool {
        let (epoch, mut covering) = route.slos.get();
        if epoch != self.signals.slos.epoch() {
            covering = self.look_up_slos(route);
        }
        covering != 0 && self.slos.borrow().count(covering, result)
    }

    /// The rules for implicit errors that cover a route; `None`: no answer of it is judged.
    #[must_use]
    pub fn rules(&self, route: &RouteSignals) -> Option<RouteRules> {
        let (epoch, covering) = route.rules.get();
        if epoch != self.signals.implicit.epoch() {
            return self.look_up_rules(route);
        }
        if covering == 0 {
            return None;
        }
        let rules = self.rules.borrow().of(epoch, covering);
        rules.or_else(|| self.look_up_rules(route))
    }

    #[cold]
    fn look_up_rules(&self, route: &RouteSignals) -> Option<RouteRules> {
        let name = self.signals.route_name(route.id);
        let mut rules = self.rules.borrow_mut();
        let (epoch, covering) = rules.look_up(&self.signals.implicit, &name);
        route.rules.set((epoch, covering));
        rules.of(epoch, covering)
    }

    #[cold]
    fn look_up_slos(&self, route: &RouteSignals) -> Covering {
        let name = self.signals.route_name(route.id);
        let found = self.slos.borrow_mut().look_up(&self.signals.slos, &self.shard, &name);
        route.slos.set(found);
        found.1
    }

    /// Records how long a request took.
    pub fn observe_duration(&self, route: &RouteSignals, key: DurationKey, nanos: u64, traced: Option<Traced>) {
        let (pick, readers): (Pick<_>, _) = (|r| &r.durations, &self.shard.durations);
        self.with(Bounded::Duration, route, key.pack(), pick, readers, observe(nanos, traced));
    }

    /// Records the wait for the first byte.
    pub fn observe_first_byte(&self, route: &RouteSignals, key: FirstByte, nanos: u64, traced: Option<Traced>) {
        let (pick, readers): (Pick<_>, _) = (|r| &r.first_bytes, &self.shard.first_bytes);
        self.with(Bounded::FirstByte, route, key.pack(), pick, readers, observe(nanos, traced));
    }

    /// Counts one failed request.
    pub fn count_error(&self, route: &RouteSignals, key: ErrorKey, traced: Option<Traced>) {
        self.with(
            Bounded::Errors,
            route,
            key.pack(),
            |r| &r.errors,
            &self.shard.errors,
            |cell, account| {
                cell.add(traced, |bytes| account.take(bytes));
                true
            },
        );
    }

    /// Counts one answer that a rule says is an error.
    pub fn count_implicit_error(&self, route: &RouteSignals, rule: RuleId) {
        let (pick, readers): (Pick<_>, _) = (|r| &r.implicit_errors, &self.shard.implicit_errors);
        self.with(Bounded::ImplicitErrors, route, u32::from(rule.0), pick, readers, count);
    }

    /// Counts a client that left after `nanos`.
    pub fn count_abort(&self, route: &RouteSignals, key: AbortPhase, nanos: u64, traced: Option<Traced>) {
        self.with(Bounded::Aborts, route, key.pack(), |r| &r.aborts, &self.shard.aborts, count);
        let (pick, readers): (Pick<_>, _) = (|r| &r.abort_waits, &self.shard.abort_waits);
        self.with(Bounded::AbortWait, route, RouteOnly.pack(), pick, readers, observe(nanos, traced));
    }

    /// Records how long a stream lasted.
    pub fn observe_stream(&self, route: &RouteSignals, key: StreamEnd, nanos: u64, traced: Option<Traced>) {
        let (pick, readers): (Pick<_>, _) = (|r| &r.stream_durations, &self.shard.stream_durations);
        self.with(Bounded::StreamDuration, route, key.pack(), pick, readers, observe(nanos, traced));
    }

    /// Records how long a gRPC call took.
    pub fn observe_rpc(&self, route: &RouteSignals, key: RpcKey, nanos: u64, traced: Option<Traced>) {
        let (pick, readers): (Pick<_>, _) = (|r| &r.rpc_durations, &self.shard.rpc_durations);
        self.with(Bounded::RpcDuration, route, key.pack(), pick, readers, observe(nanos, traced));
    }

    /// A request begins: in flight +1. Returns its place in the line of unfinished requests.
    #[must_use]
    pub fn begin(&self, route: &RouteSignals, method: Method, started: u64) -> u32 {
        self.shard.active_requests[method.index()].add(1);
        self.shard.add_inflight(1, self.signals.peak_epoch());
        route.gauges.inflight.add(1);
        self.join_line(route, started)
    }

    /// Puts a request at the end of the line of unfinished ones. It may be a little older than those before it; the
    /// oldest is then told a little too young until it has ended.
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

    /// Takes a request out of the line, so that it has no age any more (a stream, or at the end).
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

    /// Finds the cell of a label set and changes it. `change` says no when it would have needed more memory than there
    /// is.
    fn with<C: Stored>(
        &self,
        family: Bounded,
        route: &RouteSignals,
        bits: u32,
        pick: Pick<C>,
        readers: &Cells<C>,
        change: impl Fn(&C, Account<'_>) -> bool,
    ) {
        let known = {
            let known = pick(route).borrow();
            known.keys.iter().position(|k| *k == bits).map(|at| {
                let (cell, folded) = &known.cells[at];
                if *folded {
                    self.shard.overflow[family as usize].add(1);
                }
                change(cell, self.signals.account(if *folded { RouteId::OTHER } else { route.id }))
            })
        };
        match known {
            Some(true) => {}
            Some(false) => drop(self.fold(family, bits, pick, readers, change)),
            None => self.first_sight(family, route, bits, pick, readers, change),
        }
    }

    #[cold]
    fn first_sight<C: Stored>(
        &self,
        family: Bounded,
        route: &RouteSignals,
        bits: u32,
        pick: Pick<C>,
        readers: &Cells<C>,
        change: impl Fn(&C, Account<'_>) -> bool,
    ) {
        if route.id != RouteId::OTHER && self.signals.admit(family, route.id, bits) {
            let cell = self.cell(family, route, bits, pick, readers);
            if change(&cell, self.signals.account(route.id)) {
                return;
            }
        }
        let other = self.fold(family, bits, pick, readers, change);
        let mut known = pick(route).borrow_mut();
        // Remembering the verdict saves the lock next time; the bound keeps a backend that sends every status there is
        // from growing this list without end.
        if known.keys.len() < FOLDED_MEMORY && !known.keys.contains(&bits) {
            self.signals.account(RouteId::OTHER).take(2 * size_of::<(u32, Arc<C>, bool)>());
            known.keys.push(bits);
            known.cells.push((other, true));
        }
    }

    /// Records under `_other`, and says so.
    #[cold]
    fn fold<C: Stored>(
        &self,
        family: Bounded,
        bits: u32,
        pick: Pick<C>,
        readers: &Cells<C>,
        change: impl Fn(&C, Account<'_>) -> bool,
    ) -> Arc<C> {
        self.shard.overflow[family as usize].add(1);
        let other = self.route(RouteId::OTHER);
        let cell = self.cell(family, &other, bits, pick, readers);
        change(&cell, self.signals.account(RouteId::OTHER));
        cell
    }

    /// The cell of a label set of this very route, a fresh one if need be.
    fn cell<C: Stored>(
        &self,
        family: Bounded,
        route: &RouteSignals,
        bits: u32,
        pick: Pick<C>,
        readers: &Cells<C>,
    ) -> Arc<C> {
        let mut known = pick(route).borrow_mut();
        if let Some(at) = known.keys.iter().position(|k| *k == bits) {
            return Arc::clone(&known.cells[at].0);
        }
        let edges = self.signals.edges_of(family, &route.edges);
        let cell = Arc::new(C::fresh(edges));
        let is_other = route.id == RouteId::OTHER;
        if is_other {
            // Nobody asked for these: `admit` takes the memory of all others.
            self.signals.account(route.id).take(C::bytes(edges) + LABEL_SET_BYTES);
        }
        let since = Moment::now().nanos();
        readers.push(Labelled { route: route.id, bits, since, cell: Arc::clone(&cell) });
        known.keys.push(bits);
        known.cells.push((Arc::clone(&cell), is_other));
        cell
    }
}

fn count(cell: &Counter, _account: Account<'_>) -> bool {
    cell.add(1);
    true
}

fn observe(nanos: u64, traced: Option<Traced>) -> impl Fn(&Histogram, Account<'_>) -> bool {
    move |cell, account| cell.observe_within(nanos, traced, |bytes| account.take(bytes))
}

/// Label sets of one family and route that a worker remembers as folded. Statuses times methods of a normal route stay
/// far below it, and 16 KiB are what it costs at most.
const FOLDED_MEMORY: usize = 256;

/// A poisoned lock means that a thread died while it changed a list: a defect that must not be papered over.
pub(super) const POISON: &str = "a thread panicked while it held a list of series";
