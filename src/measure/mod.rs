//! The rules of measurement. No I/O, no metric name: facts go in, cells of `signals` are changed.
//!
//! * A *request* begins when its head has been read and ends when the last response byte was handed to the client's
//!   connection, when it failed, or when its client left. Each is recorded exactly once.
//! * An [`Observation`] is pessimistic: it is born as "the client left" and must be told otherwise. A path that forgets
//!   to tell it anything shows up as an abort, never as a missing request.
//! * *In flight* is between begin and end. A tunnel leaves at its 101. A *stream* stays in flight but loses its age: an
//!   event stream from its head on, a gRPC call from the second message in one direction on.
//! * The *phases* are queue (waiting for a backend connection), connect, tls (the handshake), send (request written),
//!   wait (until the response head) and body (until the end).

#![cfg_attr(feature = "unmeasured", allow(dead_code, unused_imports))]

pub mod outcome;

pub use crate::signals::implicit::RouteRules;
pub use crate::signals::moment::Moment;
pub use crate::signals::shard::WorkerSignals as Meter;
pub use crate::signals::store::TraceIds;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::labels::{
    CloseReason, ConnectionEnd, Direction, ErrorType, Failure, FirstByte, Method, OverheadDirection, Phase, Policy,
    RetryResult, RouteId, RpcStatus, RuleId, TlsFailure, TlsSide, Traffic, TunnelProtocol,
};
use crate::measure::outcome::{Call, End, Facts, Outcome, classify, slo_result};
use crate::signals::keys::{DurationKey, ErrorKey, RequestKey, RpcKey};
use crate::signals::shard::RouteSignals;
use crate::signals::store::Traced;

/// What a response is, as its head tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseKind {
    /// A response with an end.
    Plain,
    /// `text/event-stream`.
    EventStream,
}

/// What is known of a request when its head has been read.
#[derive(Clone, Copy, Debug)]
pub struct Begin {
    /// Its route.
    pub route: RouteId,
    /// Its method.
    pub method: Method,
    /// User or probe.
    pub traffic: Traffic,
    /// When the head had been read.
    pub at: Moment,
    /// Its trace, if it is a sampled one.
    pub trace: Option<TraceIds>,
    /// What it says as a gRPC call, if it is one.
    pub rpc: Option<Rpc>,
}

/// What the head of a gRPC call says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rpc {
    /// How long its client waits for the end (`grpc-timeout`).
    pub deadline: Option<Duration>,
}

/// The clock of the request path. With the feature `unmeasured` it stands still: then nothing looks at it.
#[must_use]
pub fn now() -> Moment {
    #[cfg(feature = "unmeasured")]
    {
        static START: std::sync::OnceLock<Moment> = std::sync::OnceLock::new();
        *START.get_or_init(Moment::now)
    }
    #[cfg(not(feature = "unmeasured"))]
    Moment::now()
}

/// One request under way. Recorded when it is finished or dropped.
#[derive(Debug)]
pub struct Observation {
    #[cfg(not(feature = "unmeasured"))]
    live: Live,
}

#[derive(Debug)]
struct Live {
    worker: Rc<Meter>,
    route: Rc<RouteSignals>,
    method: Method,
    traffic: Traffic,
    trace: Option<TraceIds>,
    started: Moment,
    /// Nanoseconds of waiting for the backend connection, the connect, or the client: not the sidecar's own time.
    others_wait: u64,
    /// The head had been handed to the backend.
    head_written: bool,
    /// The request had been handed to the backend.
    sent: Option<Moment>,
    /// The response head had been handed to the client.
    head_at: Option<Moment>,
    facts: Facts,
    kind: ResponseKind,
    /// From when on a gRPC call whose client leaves has missed its deadline; nanoseconds as [`Moment`] counts.
    rpc_deadline: u64,
    /// The rule that says that the answer is an error.
    rule: Option<RuleId>,
    /// Its place among the unfinished requests of its route; a stream has none.
    line: u32,
    stream: bool,
    ended: Option<Moment>,
}

/// A client's deadline began before its call was here, and its timer and ours need not agree to the millisecond: it may
/// hang up this much early.
const DEADLINE_TOLERANCE: Duration = Duration::from_millis(10);
/// The same for long deadlines, as a part of them.
const DEADLINE_TOLERANCE_PART: u32 = 100;

/// With the feature `unmeasured` every method is empty: the path that shows what measuring costs. It is for `make
/// bench` alone.
#[cfg(feature = "unmeasured")]
#[expect(unused_variables, missing_docs, reason = "nothing is measured here, so nothing is looked at")]
impl Observation {
    pub fn begin(worker: &Rc<Meter>, begin: Begin) -> Observation {
        Observation {}
    }
    pub fn queued(&mut self, waited: u64) {}
    pub fn waited_for_client(&mut self, took: u64) {}
    pub fn connected(&mut self, took: u64) {}
    pub fn tls(&mut self, took: u64) {}
    pub fn head_written(&mut self, at: Moment) {}
    pub fn sent(&mut self, obtained: Moment, at: Moment) {}
    pub fn reroute(&mut self, route: RouteId) {}
    pub fn head(&mut self, status: u16, kind: ResponseKind, received: Moment, handed: Moment) {}
    pub fn answered(&mut self, status: u16, handed: Moment) {}
    pub fn request_bytes(&self, n: u64) {}
    pub fn response_bytes(&self, n: u64) {}
    pub fn fail(&mut self, failure: Failure, phase: Phase) {}
    pub fn rules(&self) -> Option<RouteRules> {
        None
    }
    pub fn implicit_error(&mut self, rule: RuleId, phase: Phase) {}
    pub fn rpc_status(&mut self, status: RpcStatus) {}
    pub fn becomes_stream(&mut self) {}
    #[must_use]
    pub fn rpc_deadline_passed(&self, now: Moment) -> bool {
        false
    }
    pub fn ends(&mut self, at: Moment) {}
    pub fn finish(self, at: Moment) {}
    pub fn upgraded(self, protocol: TunnelProtocol, received: Moment, handed: Moment) {}
}

#[cfg(not(feature = "unmeasured"))]
impl Observation {
    /// The request's head has been read.
    #[must_use]
    pub fn begin(worker: &Rc<Meter>, begin: Begin) -> Observation {
        let Begin { route, method, traffic, at, trace, rpc } = begin;
        let route = worker.route(route);
        let line = worker.begin(&route, method, at.nanos());
        Observation {
            live: Live {
                worker: Rc::clone(worker),
                route,
                method,
                traffic,
                trace,
                started: at,
                others_wait: 0,
                head_written: false,
                sent: None,
                head_at: None,
                facts: Facts {
                    status: 0,
                    from_backend: false,
                    end: End::ClientLeft,
                    implicit: None,
                    rpc: rpc.map(|_| Call::default()),
                },
                kind: ResponseKind::Plain,
                rpc_deadline: rpc.and_then(|rpc| rpc.deadline).map_or(u64::MAX, |wait| deadline(at, wait)),
                rule: None,
                line,
                stream: false,
                ended: None,
            },
        }
    }

    /// The request waited this many nanoseconds for a backend connection (0 when one was free).
    pub fn queued(&mut self, waited: u64) {
        self.live.others_wait += waited;
        self.live.worker.shard().phases[Phase::Queue.index()].observe(waited);
    }

    /// The client was waited for before anything was obtained, this many nanoseconds: they are no overhead.
    pub fn waited_for_client(&mut self, took: u64) {
        self.live.others_wait += took;
    }

    /// Connecting to the backend took this many nanoseconds.
    pub fn connected(&mut self, took: u64) {
        self.live.others_wait += took;
        self.live.worker.shard().phases[Phase::Connect.index()].observe(took);
    }

    /// The TLS handshake with the backend took this many nanoseconds.
    pub fn tls(&mut self, took: u64) {
        self.live.others_wait += took;
        self.live.worker.shard().phases[Phase::Tls.index()].observe(took);
    }

    /// The request head was handed to the backend's connection.
    pub fn head_written(&mut self, at: Moment) {
        let live = &mut self.live;
        if std::mem::replace(&mut live.head_written, true) {
            return;
        }
        let inside = at.nanos_since(live.started).saturating_sub(live.others_wait);
        live.worker.shard().overhead[OverheadDirection::Request.index()].observe(inside);
    }

    /// The whole request was handed to the backend; its connection had been `obtained` then.
    pub fn sent(&mut self, obtained: Moment, at: Moment) {
        // A replay is sent a second time; the request still counts once.
        if self.live.sent.replace(at).is_none() {
            self.live.worker.shard().phases[Phase::Send.index()].observe(at.nanos_since(obtained));
        }
    }

    /// The answer has earned the path another route than the one that it began with. Told before [`Observation::head`];
    /// body bytes that came before stay where they were counted.
    pub fn reroute(&mut self, route: RouteId) {
        let live = &mut self.live;
        if route == live.route.id {
            return;
        }
        let new = live.worker.route(route);
        if live.stream {
            for (route, n) in [(&live.route, -1), (&new, 1)] {
                route.gauges.inflight.add(n);
                route.gauges.streams.add(n);
            }
        } else {
            live.line = live.worker.move_to(&live.route, &new, live.line);
        }
        live.route = new;
    }

    /// The backend's response head was `received` and then `handed` to the client.
    pub fn head(&mut self, status: u16, kind: ResponseKind, received: Moment, handed: Moment) {
        let live = &mut self.live;
        if let Some(sent) = live.sent {
            live.worker.shard().phases[Phase::Wait.index()].observe(received.nanos_since(sent));
        }
        live.worker.shard().overhead[OverheadDirection::Response.index()].observe(handed.nanos_since(received));
        live.facts.status = status;
        live.facts.from_backend = true;
        live.kind = kind;
        live.first_byte(handed);
        if kind == ResponseKind::EventStream {
            live.becomes_stream();
        }
    }

    /// The sidecar's own answer was handed to the client.
    pub fn answered(&mut self, status: u16, handed: Moment) {
        self.live.facts.status = status;
        self.live.facts.from_backend = false;
        self.live.first_byte(handed);
    }

    /// The backend told the status of this gRPC call. What is told before [`Observation::head`] stood in the head of the
    /// answer; what is told later, in its trailers. Of an answer that does not end completely, nothing comes of it.
    pub fn rpc_status(&mut self, status: RpcStatus) {
        let by_head = self.live.head_at.is_none();
        if let Some(call) = &mut self.live.facts.rpc {
            call.told = Some(status);
            call.by_head = by_head;
        }
    }

    /// A second message of this gRPC call went in one direction. To be told once or more.
    pub fn becomes_stream(&mut self) {
        if self.live.facts.rpc.is_some() {
            self.live.becomes_stream();
        }
    }

    /// Whether a client that leaves this gRPC call now does so because its deadline has passed.
    #[must_use]
    pub fn rpc_deadline_passed(&self, now: Moment) -> bool {
        now.nanos() >= self.live.rpc_deadline
    }

    /// Body bytes came from the client.
    pub fn request_bytes(&self, n: u64) {
        self.live.route.gauges.request_bytes.add(n);
    }

    /// Body bytes were handed to the client.
    pub fn response_bytes(&self, n: u64) {
        self.live.route.gauges.response_bytes.add(n);
    }

    /// What went wrong, told before the observation is finished or dropped. The first failure counts.
    pub fn fail(&mut self, failure: Failure, phase: Phase) {
        if !matches!(self.live.facts.end, End::Failed(..)) {
            self.live.facts.end = End::Failed(failure, phase);
        }
    }

    /// The rules by which the answer may be an error although its status says otherwise; `None`: nobody judges it. To be
    /// asked when the route is known for good, after [`Observation::reroute`].
    #[must_use]
    pub fn rules(&self) -> Option<RouteRules> {
        self.live.worker.rules(&self.live.route)
    }

    /// This rule says that the answer is an error, which it gave away in this phase. Of an answer that is no 2xx of the
    /// backend or did not end completely, nothing comes of it.
    pub fn implicit_error(&mut self, rule: RuleId, phase: Phase) {
        self.live.rule = Some(rule);
        self.live.facts.implicit = Some(phase);
    }

    /// The request ended at `at`: completely, unless a failure was told. It is recorded when this is dropped.
    pub fn ends(&mut self, at: Moment) {
        if self.live.facts.end == End::ClientLeft {
            self.live.facts.end = End::Complete;
        }
        self.live.ended = Some(at);
    }

    /// The request ended at `at`, and there is nothing more to say of it.
    pub fn finish(mut self, at: Moment) {
        self.ends(at);
    }

    /// The connection became a tunnel: the request is counted now and leaves the gauges.
    pub fn upgraded(mut self, protocol: TunnelProtocol, received: Moment, handed: Moment) {
        // Whatever the request said, a tunnel is no call.
        self.live.facts.rpc = None;
        self.head(101, ResponseKind::Plain, received, handed);
        let shard = self.live.worker.shard();
        shard.tunnels_opened[protocol.index()].add(1);
        self.live.facts.end = End::Complete;
        self.live.ended = Some(handed);
    }
}

#[cfg(not(feature = "unmeasured"))]
impl Live {
    fn first_byte(&mut self, at: Moment) {
        self.head_at = Some(at);
        let took = at.nanos_since(self.started);
        self.worker.observe_first_byte(&self.route, self.facts.first_byte(), took, self.traced(at));
    }

    fn becomes_stream(&mut self) {
        if !std::mem::replace(&mut self.stream, true) {
            self.worker.without_age(&self.route, self.line);
            self.route.gauges.streams.add(1);
        }
    }

    /// What happened at this moment, if the request is traced.
    fn traced(&self, at: Moment) -> Option<Traced> {
        self.trace.map(|ids| Traced { ids, at: at.nanos() })
    }

    /// Takes the request out of the gauges and records it.
    fn record(&mut self) {
        let ended = self.ended.unwrap_or_else(Moment::now);
        if let Some(call) = &mut self.facts.rpc {
            call.deadline_passed = ended.nanos() >= self.rpc_deadline;
        }
        let Live { worker, route, method, traffic, started, head_at, facts, kind, rule, stream, .. } = &*self;
        let took = ended.nanos_since(*started);
        let traced = self.traced(ended);
        let mut outcome = classify(*facts);
        if worker.count_slos(route, |threshold| slo_result(&outcome, *traffic, *stream, took, threshold)) {
            outcome = outcome.too_slow();
        }
        let Outcome { status, origin, error, blame, abort, truncated, stream_end, rpc } = outcome;
        worker.count_request(route, RequestKey { method: *method, status, origin, traffic: *traffic });
        if *stream {
            route.gauges.streams.add(-1);
            worker.observe_stream(route, stream_end, took, traced);
        }
        if let Some(status) = rpc {
            worker.observe_rpc(route, RpcKey { status, error }, took, traced);
        }
        match kind {
            // Neither an event stream nor a tunnel has a duration as a request.
            ResponseKind::EventStream => {}
            ResponseKind::Plain if status == 101 => {}
            ResponseKind::Plain => {
                worker.observe_duration(route, DurationKey { method: *method, status, error }, took, traced);
                if facts.from_backend
                    && let Some(head_at) = head_at
                {
                    worker.shard().phases[Phase::Body.index()].observe(ended.nanos_since(*head_at));
                }
            }
        }
        if let Some((fault, phase)) = blame {
            worker.count_error(route, ErrorKey { error, fault, phase }, traced);
        }
        if let Some(rule) = rule
            && error == ErrorType::from_policy(Policy::Implicit)
        {
            worker.count_implicit_error(route, *rule);
        }
        if let Some(phase) = abort {
            if head_at.is_none() {
                worker.observe_first_byte(route, FirstByte::Aborted, took, traced);
            }
            if !stream {
                worker.count_abort(route, phase, took, traced);
            }
        }
        if truncated {
            route.gauges.truncated.add(1);
        }
        if !stream {
            worker.without_age(route, self.line);
        }
        // Last: who sees that nothing is in flight must find everything counted.
        worker.end(route, *method);
    }
}

#[cfg(not(feature = "unmeasured"))]
impl Drop for Observation {
    fn drop(&mut self) {
        // Nobody told it anything because the code that should have has failed.
        if self.live.facts.end == End::ClientLeft && std::thread::panicking() {
            let phase = if self.live.head_at.is_some() { Phase::Body } else { Phase::Send };
            self.live.facts.end = End::Failed(Failure::Internal, phase);
        }
        self.live.record();
    }
}

/// From when on a client that leaves has done so at its deadline; nanoseconds as [`Moment`] counts.
fn deadline(begun: Moment, wait: Duration) -> u64 {
    let tolerated = wait.saturating_sub(DEADLINE_TOLERANCE.max(wait / DEADLINE_TOLERANCE_PART));
    // Eight digits of hours are more than 2^64 ns: nobody waits for that.
    begun.nanos().saturating_add(u64::try_from(tolerated.as_nanos()).unwrap_or(u64::MAX))
}

/// An open tunnel: counted while it lives.
#[derive(Debug)]
pub struct Tunnel {
    worker: Rc<Meter>,
    protocol: TunnelProtocol,
}

impl Tunnel {
    /// A tunnel opened.
    #[must_use]
    pub fn open(worker: &Rc<Meter>, protocol: TunnelProtocol) -> Tunnel {
        worker.shard().tunnels[protocol.index()].add(1);
        Tunnel { worker: Rc::clone(worker), protocol }
    }

    /// Bytes went through, as the client sees it.
    pub fn bytes(&self, direction: Direction, n: u64) {
        self.worker.shard().tunnel_bytes[self.protocol.index()][direction.index()].add(n);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.worker.shard().tunnels[self.protocol.index()].add(-1);
    }
}

/// A client connection: counted while it lives, active or idle.
#[derive(Debug)]
pub struct ClientConnection {
    worker: Rc<Meter>,
    active: Cell<u32>,
    end: Cell<ConnectionEnd>,
}

impl ClientConnection {
    /// A connection was accepted.
    #[must_use]
    pub fn open(worker: &Rc<Meter>) -> ClientConnection {
        worker.shard().connections_opened.add(1);
        worker.shard().connections_idle.add(1);
        ClientConnection { worker: Rc::clone(worker), active: Cell::new(0), end: Cell::new(ConnectionEnd::Client) }
    }

    /// A request began on it.
    pub fn busy(&self) {
        self.active.set(self.active.get() + 1);
        if self.active.get() == 1 {
            self.worker.shard().connections_idle.add(-1);
            self.worker.shard().connections_active.add(1);
        }
    }

    /// A request ended on it.
    pub fn done(&self) {
        self.active.set(self.active.get() - 1);
        if self.active.get() == 0 {
            self.worker.shard().connections_active.add(-1);
            self.worker.shard().connections_idle.add(1);
        }
    }
}

impl ClientConnection {
    /// Why it is about to end, if not because the client closed it.
    pub fn ends(&self, end: ConnectionEnd) {
        self.end.set(end);
    }

    /// A request began on it, one of at most `limit` at once.
    pub fn busy_of(&self, limit: u32) {
        self.busy();
        if self.active.get() == limit {
            self.worker.shard().streams_limit_reached.add(1);
        }
    }

    /// Whether a request is under way on it.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.active.get() > 0
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        let shard = self.worker.shard();
        shard.connections_closed[self.end.get().index()].add(1);
        if self.active.get() > 0 { &shard.connections_active } else { &shard.connections_idle }.add(-1);
    }
}

/// The pool's side of the numbers: connections to the backend and who waits for one.
#[derive(Clone, Debug)]
pub struct PoolGauges {
    worker: Rc<Meter>,
}

impl PoolGauges {
    /// The gauges of a worker's pool.
    #[must_use]
    pub fn new(worker: &Rc<Meter>) -> PoolGauges {
        PoolGauges { worker: Rc::clone(worker) }
    }

    /// A connection was opened, for a request.
    pub fn opened(&self) {
        self.worker.shard().upstream_opened.add(1);
        self.worker.shard().upstream_active.add(1);
    }

    /// A TLS handshake with the backend failed.
    pub fn tls_failed(&self, failure: TlsFailure) {
        self.worker.tls_failed(TlsSide::Backend, failure);
    }

    /// A connection in use became idle.
    pub fn became_idle(&self) {
        self.worker.shard().upstream_active.add(-1);
        self.worker.shard().upstream_idle.add(1);
    }

    /// An idle connection is in use, if only to be closed.
    pub fn left_idle(&self) {
        self.worker.shard().upstream_idle.add(-1);
        self.worker.shard().upstream_active.add(1);
    }

    /// A connection in use was closed.
    pub fn closed(&self, reason: CloseReason) {
        self.worker.shard().upstream_active.add(-1);
        self.worker.shard().upstream_closed[reason.index()].add(1);
    }

    /// Requests joined (or, negative, left) the line.
    pub fn waiting(&self, n: i64) {
        self.worker.shard().pool_waiting.add(n);
    }

    /// A request gave up waiting.
    pub fn timed_out(&self) {
        self.worker.shard().pool_timeouts.add(1);
    }

    /// A request was replayed.
    pub fn replayed(&self, result: RetryResult) {
        self.worker.shard().retries[result.index()].add(1);
    }
}

#[cfg(all(test, not(feature = "unmeasured")))]
mod tests;
