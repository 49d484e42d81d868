//! A worker: one thread, one runtime, and everything that its requests share without a lock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Context;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::{Config, Forwarded, Limits, Probes, Scheme, Timeouts};
use crate::descriptors::Shares;
use crate::measure::{Meter, PoolGauges};
use crate::memory;
use crate::proxy::buffer::{Buffers, Window};
use crate::proxy::error::Stop;
use crate::proxy::headers::{Peer, RequestContext};
use crate::proxy::listener;
use crate::proxy::service::client_left;
use crate::proxy::timer::{Deadline, TICK, Timers};
use crate::proxy::upstream::{Budget, Destination, Pool, Protocol};
use crate::routes::RouteTable;
use crate::transport::{Addresses, Stream, tls};

/// Ticks between two looks at all idle backend connections: 4 times a second finds a closed one before anybody notices.
const SWEEP_TICKS: u64 = 5;

/// Sweeps between two times that free memory is given back: every two seconds, so soon after a burst has gone idle.
const GIVE_BACK_SWEEPS: u32 = 8;

/// What a reload can change, as the request path reads it. Each worker has its own.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// How much of everything there may be.
    pub limits: Limits,
    /// Policy for `X-Forwarded-*`.
    pub forwarded: Forwarded,
    /// Whether `Via` is added.
    pub via: bool,
    /// What counts as a probe.
    pub probes: Probes,
    /// The routes.
    pub routes: Arc<RouteTable>,
    /// `Host` for requests without one.
    pub default_host: String,
    /// The backend.
    pub upstream: Destination,
    /// Whether each connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// TLS with clients, if there is any.
    pub tls: Option<Arc<tls::Acceptor>>,
}

/// What makes TLS of connections, on both sides of the proxy.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// With clients.
    pub listener: Option<Arc<tls::Acceptor>>,
    /// With the backend.
    pub upstream: Option<Arc<tls::Client>>,
}

impl Settings {
    /// The request path's view of a configuration.
    #[must_use]
    pub fn new(config: &Config, routes: Arc<RouteTable>, upstream: Addresses, tls: &Tls) -> Settings {
        let default_host = config.upstream.authority();
        let Tls { listener, upstream: client } = tls.clone();
        let protocol = if config.upstream.scheme == Scheme::H2c { Protocol::Http2 } else { Protocol::Http1 };
        Settings {
            timeouts: config.timeouts,
            limits: config.limits,
            forwarded: config.forwarded.clone(),
            via: config.via,
            probes: config.probes.clone(),
            routes,
            default_host,
            upstream: Destination { addresses: upstream, tls: client, protocol },
            proxy_protocol: config.proxy_protocol,
            tls: listener,
        }
    }

    /// What building a request needs to know.
    #[must_use]
    pub fn request_context(&self, peer: Peer) -> RequestContext<'_> {
        RequestContext {
            peer,
            forwarded: &self.forwarded,
            via: self.via,
            default_host: &self.default_host,
            max_fields: self.limits.headers,
            head_bytes: self.limits.head_bytes,
            probe_agents: &self.probes.user_agents,
        }
    }

    /// Bytes and fields that a head, or a trailer section, may have.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.limits.head_bytes, self.limits.headers)
    }

    /// Whether a path marks a probe.
    #[must_use]
    pub fn is_probe(&self, path: &[u8]) -> bool {
        self.probes.paths.iter().any(|probe| probe.as_bytes() == path)
    }

    /// Whether so many requests are in flight that this one, which is among them, is shed.
    /// Reads the other workers' gauges, writes nothing, so the limit may be passed by one request per worker.
    #[must_use]
    pub fn sheds(&self, worker: &Worker) -> bool {
        self.limits.inflight.is_some_and(|limit| worker.meter.signals().inflight() > limit as u64)
    }
}

/// What a worker is told to do.
#[derive(Clone, Debug)]
pub enum Order {
    /// New settings.
    Reload(Arc<Settings>),
    /// The backend is somewhere else now.
    Addresses(Addresses),
    /// The process will stop: end each connection with its next response.
    Closing,
    /// Stop accepting, close what is idle, let requests in flight end.
    Drain,
    /// Cut what is left.
    Cut,
}

/// Counts that all workers share; touched per connection, never per request.
#[derive(Debug)]
pub struct Shared {
    /// Client connections over all workers.
    pub connections: AtomicUsize,
    /// How many of them file descriptors allow.
    pub room: Room,
    /// Backend connections over all workers.
    pub budget: Arc<Budget>,
}

/// How many client connections there may be at once for want of file descriptors, whatever the limits say.
#[derive(Debug)]
pub struct Room {
    connections: AtomicUsize,
    turned_away: AtomicUsize,
}

/// What the requests of one worker share.
#[derive(Debug)]
pub struct Worker {
    /// Where its numbers go.
    pub meter: Rc<Meter>,
    /// Its connections to the backend.
    pub pool: Pool,
    /// The pool's numbers.
    pub pool_gauges: PoolGauges,
    /// Its deadlines.
    pub timers: Rc<Timers>,
    /// Its read buffers.
    pub buffers: Rc<Buffers>,
    /// What it shares with the other workers.
    pub shared: Arc<Shared>,
    settings: RefCell<Rc<Settings>>,
    closing: Cell<bool>,
    draining: Cell<bool>,
    cut: Cell<bool>,
}

impl Room {
    /// Room for what these shares say.
    #[must_use]
    pub fn new(shares: Shares) -> Room {
        Room { connections: AtomicUsize::new(shares.connections), turned_away: AtomicUsize::new(shares.turned_away) }
    }

    /// Other limits leave another room.
    pub fn set(&self, shares: Shares) {
        self.connections.store(shares.connections, Relaxed);
        self.turned_away.store(shares.turned_away, Relaxed);
    }

    /// How many are served, and how many more are told that they are too many.
    #[must_use]
    pub fn get(&self) -> (usize, usize) {
        (self.connections.load(Relaxed), self.turned_away.load(Relaxed))
    }
}

impl Worker {
    fn new(index: usize, meter: Meter, settings: Settings, shared: Arc<Shared>) -> Worker {
        let meter = Rc::new(meter);
        let timers = Rc::new(Timers::default());
        let buffers = Rc::new(Buffers::default());
        let pool_gauges = PoolGauges::new(&meter);
        let budget = Arc::clone(&shared.budget);
        let pool = Pool::new(
            index,
            settings.upstream.clone(),
            budget,
            pool_gauges.clone(),
            Rc::clone(&timers),
            Rc::clone(&buffers),
        );
        Worker {
            meter,
            pool,
            pool_gauges,
            timers,
            buffers,
            shared,
            settings: RefCell::new(Rc::new(settings)),
            closing: Cell::new(false),
            draining: Cell::new(false),
            cut: Cell::new(false),
        }
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Rc<Settings> {
        Rc::clone(&self.settings.borrow())
    }

    /// Whether responses shall end their connections.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Whether idle connections shall end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether everything shall end.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// Whether a wait must end: its deadline fired, or everything is cut. If not, the task is woken when it must.
    #[must_use]
    pub fn stopped(&self, cx: &Context<'_>, deadline: &Deadline) -> Option<Stop> {
        if self.cut.get() {
            return Some(Stop::Cut);
        }
        deadline.expired(cx).then_some(Stop::Deadline)
    }

    /// As [`Worker::stopped`], or because the client left.
    #[must_use]
    pub fn interrupted(
        &self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        inbound: &mut Window,
        deadline: &Deadline,
    ) -> Option<Stop> {
        if client_left(cx, stream, inbound) {
            return Some(Stop::ClientLeft);
        }
        self.stopped(cx, deadline)
    }

    fn obey(&self, order: Order) {
        match order {
            Order::Reload(settings) => {
                self.pool.set_destination(settings.upstream.clone());
                *self.settings.borrow_mut() = Rc::new(Settings::clone(&settings));
            }
            Order::Addresses(addresses) => self.pool.set_addresses(addresses),
            Order::Closing => self.closing.set(true),
            Order::Drain => {
                self.closing.set(true);
                self.draining.set(true);
                self.pool.drain();
                self.timers.wake_all();
            }
            Order::Cut => {
                self.cut.set(true);
                self.timers.wake_all();
            }
        }
    }

    /// Moves the coarse clock, measures how late it is, and looks after the pool.
    async fn tick(self: Rc<Self>) {
        let start = Instant::now();
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut swept, mut sweeps) = (0, 0u32);
        loop {
            let due = interval.tick().await;
            let now = Instant::now();
            self.meter.lag(now.saturating_duration_since(due));
            let ticks = (now.saturating_duration_since(start).as_millis() / TICK.as_millis()) as u64;
            self.timers.advance(ticks);
            if ticks >= swept + SWEEP_TICKS {
                swept = ticks;
                self.pool.sweep(&self.settings().timeouts);
                sweeps += 1;
                if sweeps % GIVE_BACK_SWEEPS == 0 {
                    memory::give_back();
                }
            }
        }
    }
}

/// Starts what a worker needs beside its requests, obeys orders, and returns when the last order channel is closed or
/// everything has ended after a drain.
pub async fn run(
    index: usize,
    listener: listener::Socket,
    meter: Meter,
    settings: Settings,
    shared: Arc<Shared>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> std::io::Result<()> {
    let listener = listener::Listener::new(listener)?;
    let worker = Rc::new(Worker::new(index, meter, settings, shared));
    tokio::task::spawn_local(Rc::clone(&worker).tick());
    let tended = Rc::clone(&worker);
    tokio::task::spawn_local(async move {
        loop {
            tended.shared.budget.notified(index).await;
            tended.pool.tend();
        }
    });
    let accepting = tokio::task::spawn_local(listener::accept(Rc::clone(&worker), listener));
    while let Some(order) = orders.recv().await {
        let drain = matches!(order, Order::Drain);
        worker.obey(order);
        if drain {
            accepting.abort();
        }
    }
    Ok(())
}
