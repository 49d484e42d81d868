//! Connections to the backend: one pool per worker, last in first out, so that a few warm connections carry the load and
//! the rest can grow old. No lock: only its worker touches a pool.
//!
//! The limit holds over all workers, by a [`Budget`] that is touched when a connection is opened or closed, never for a
//! request that finds one idle. A worker that needs a connection while the budget is spent waits in its own line; the
//! others give up an idle one for it. A worker that has none at all comes before the line of a worker that has some, so
//! nobody starves behind an uneven spread of clients.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use crate::config::{Limits, Timeouts};
use crate::labels::{CloseReason, Failure, Phase, TlsFailure};
use crate::measure::{self, Moment, Observation, PoolGauges};
use crate::proxy::buffer::{Buffers, Filled, Window};
use crate::proxy::error::{Stop, Trouble, connect_failure};
use crate::proxy::multiplex::{Lease, Multiplexed};
use crate::proxy::timer::{Deadline, Timers};
use crate::proxy::worker::Settings;
use crate::transport::tls::{self, Negotiated};
use crate::transport::{Address, Addresses, Stream};

/// A backend whose certificate has ended fails every request in the same way: one line of a worker in this time tells it.
const TLS_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What is offered to a backend that speaks TLS, the best first.
pub const OFFERED: &[Negotiated] = &[Negotiated::Http2, Negotiated::Http1];

/// What interrupts a wait: polled beside it.
pub type Watch<'a> = &'a mut dyn FnMut(&mut Context<'_>) -> Option<Stop>;

// === Budget ===

/// How many connections there may be over all workers, and who waits for one.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    waiting_limit: AtomicUsize,
    open: AtomicUsize,
    waiting: AtomicUsize,
    workers: Box<[Share]>,
}

/// One worker's part of a [`Budget`].
#[derive(Debug, Default)]
struct Share {
    open: AtomicUsize,
    waiting: AtomicUsize,
    /// Something for the worker's pool to do: a permit is free, or somebody needs an idle connection.
    notify: Notify,
}

/// The right to have one connection open.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    worker: usize,
}

impl Budget {
    /// A budget for `workers` workers.
    #[must_use]
    pub fn new(workers: usize, limits: &Limits) -> Arc<Budget> {
        Arc::new(Budget {
            limit: AtomicUsize::new(limits.upstream_connections),
            waiting_limit: AtomicUsize::new(limits.upstream_waiting),
            open: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            workers: (0..workers).map(|_| Share::default()).collect(),
        })
    }

    /// Changes the limits. Connections over a lower limit go when they are next idle.
    pub fn set_limits(&self, limits: &Limits) {
        self.limit.store(limits.upstream_connections, Relaxed);
        self.waiting_limit.store(limits.upstream_waiting, Relaxed);
        self.workers.iter().for_each(|share| share.notify.notify_one());
    }

    /// Waits until the pool of `worker` has something to do.
    pub async fn notified(&self, worker: usize) {
        self.workers[worker].notify.notified().await;
    }

    /// A stream of a connection of the worker has ended: who waits for one gets it.
    fn stream_ended(&self, worker: usize) {
        let share = &self.workers[worker];
        if share.waiting.load(Relaxed) > 0 {
            share.notify.notify_one();
        }
    }

    fn try_acquire(self: &Arc<Self>, worker: usize) -> Option<Permit> {
        let limit = self.limit.load(Relaxed);
        self.open.fetch_update(Relaxed, Relaxed, |open| (open < limit).then_some(open + 1)).ok()?;
        self.workers[worker].open.fetch_add(1, Relaxed);
        Some(Permit { budget: Arc::clone(self), worker })
    }

    /// Whether a worker other than `me` waits and has no connection at all.
    fn other_starves(&self, me: usize) -> bool {
        let starves = |share: &Share| share.waiting.load(Relaxed) > 0 && share.open.load(Relaxed) == 0;
        self.waiting.load(Relaxed) > 0
            && self.workers.iter().enumerate().any(|(worker, share)| worker != me && starves(share))
    }

    fn other_waits(&self, me: usize) -> bool {
        self.waiting.load(Relaxed) > self.workers[me].waiting.load(Relaxed)
    }

    /// How many idle connections the worker `me` should give up: what is over the limit, and what others wait for.
    /// One call of [`Notify`] may stand for many who wait, so one connection a call would not do.
    fn wanted(&self, me: usize) -> usize {
        let (open, limit) = (self.open.load(Relaxed), self.limit.load(Relaxed));
        let others = self.waiting.load(Relaxed).saturating_sub(self.workers[me].waiting.load(Relaxed));
        open.saturating_sub(limit) + others.saturating_sub(limit.saturating_sub(open))
    }

    fn over_limit(&self) -> bool {
        self.open.load(Relaxed) > self.limit.load(Relaxed)
    }
}

impl Permit {
    /// A stream of the connection has ended.
    pub fn stream_ended(&self) {
        self.budget.stream_ended(self.worker);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Permit { budget, worker } = self;
        budget.workers[*worker].open.fetch_sub(1, Relaxed);
        budget.open.fetch_sub(1, Relaxed);
        if budget.waiting.load(Relaxed) > 0 {
            let waiting = |share: &&Share| share.waiting.load(Relaxed) > 0;
            let starving = |share: &&Share| share.open.load(Relaxed) == 0;
            let next = budget.workers.iter().filter(waiting).find(starving);
            if let Some(share) = next.or_else(|| budget.workers.iter().find(waiting)) {
                share.notify.notify_one();
            }
        }
    }
}

// === Connection ===

/// A connection to the backend.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub stream: Stream,
    /// What was read and not yet used.
    pub inbound: Window,
    /// Whether it has carried a request before.
    pub reused: bool,
    opened: u64,
    idle_since: u64,
    /// Where it leads.
    address: Address,
    /// Which of the pool's clients of TLS it was opened by.
    generation: u64,
    /// How often the pool's addresses had changed when its own was last among them.
    checked: u64,
    reason: CloseReason,
    gauges: PoolGauges,
    _permit: Permit,
}

impl Connection {
    /// Closes the connection and counts why.
    #[expect(clippy::boxed_local, reason = "connections are handed around in their box")]
    pub fn close(mut self: Box<Self>, reason: CloseReason) {
        self.reason = reason;
    }

    /// Reads once; the window grows up to `capacity`.
    ///
    /// # Errors
    /// As the read does.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, capacity: usize) -> Poll<io::Result<Filled>> {
        self.inbound.poll_fill(cx, &mut self.stream, capacity)
    }

    /// Whether the backend has closed, or sent something that nobody asked for.
    /// Costs a system call only when something has arrived.
    fn is_stale(&mut self, cx: &mut Context<'_>) -> Option<CloseReason> {
        match self.inbound.poll_fill(cx, &mut self.stream, 0) {
            Poll::Pending => None,
            Poll::Ready(Ok(Filled::Eof)) => Some(CloseReason::Peer),
            // Many servers end TLS without saying so. Between two messages nothing can be missing.
            Poll::Ready(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Some(CloseReason::Peer),
            Poll::Ready(Ok(Filled::Bytes(_) | Filled::Full) | Err(_)) => Some(CloseReason::Error),
        }
    }

    /// After the connection failed under a request of which `written` bytes had been handed to the socket: whether the
    /// backend provably has not seen one of them. To be asked only when our side saw the *end of the stream*.
    ///
    /// It is proven when the backend had ended the stream (it closed before it knew of the request), a reset has since
    /// told the kernel that nobody is there (state CLOSE), and no byte of the request was ever acknowledged. A backend
    /// that dies while it works on a request resets without ending the stream; one that read it has acknowledged it.
    #[must_use]
    pub fn never_delivered(&self, written: u64) -> bool {
        use std::os::fd::AsRawFd as _;
        // Sockets of the file system tell nothing of the kind. What the kernel has seen of a request under TLS is longer than
        // the request, by nobody knows how much.
        let Stream::Tcp(socket) = &self.stream else { return false };
        // struct tcp_info of linux/tcp.h; libc's is shorter. All three numbers are there since Linux 4.19.
        const BYTES_ACKED: usize = 120;
        const BYTES_SENT: usize = 200;
        const BYTES_RETRANS: usize = 208;
        const TCP_CLOSE: u8 = 7;
        let mut info = [0u8; 256];
        let mut len = info.len() as libc::socklen_t;
        // SAFETY: `info` is valid for `len` bytes, and the kernel writes at most that many.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result != 0 || (len as usize) < BYTES_RETRANS + 8 || info[0] != TCP_CLOSE {
            return false;
        }
        let number = |at: usize| {
            let mut bytes = [0u8; 8];
            bytes.copy_from_slice(&info[at..at + 8]);
            u64::from_ne_bytes(bytes)
        };
        // The SYN counts as one acknowledged byte.
        let acked = number(BYTES_ACKED).saturating_sub(1);
        let sent = number(BYTES_SENT).saturating_sub(number(BYTES_RETRANS));
        sent.saturating_sub(acked) >= written
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // No request ends with its connection, so this takes nobody in.
        self.stream.say_goodbye();
        self.gauges.closed(self.reason);
    }
}

// === Pool ===

/// The connections of one worker.
#[derive(Debug)]
pub struct Pool {
    worker: usize,
    destination: RefCell<Destination>,
    /// When the last failed handshake was logged.
    tls_logged: Cell<Option<u64>>,
    /// Counts the changes of all but the addresses: a connection of an earlier one may lead to somebody else.
    generation: Cell<u64>,
    /// Counts the changes of the addresses.
    changes: Cell<u64>,
    #[expect(clippy::vec_box, reason = "they move between pool, line and request: a pointer each time")]
    idle: RefCell<Vec<Box<Connection>>>,
    line: RefCell<VecDeque<Rc<Waiter>>>,
    budget: Arc<Budget>,
    gauges: PoolGauges,
    timers: Rc<Timers>,
    buffers: Rc<Buffers>,
    draining: Cell<bool>,
    /// What the backend speaks, as far as is known.
    protocol: Cell<Protocol>,
    /// Connections that carry many requests at once, usable or not.
    multiplexed: RefCell<Vec<Rc<Multiplexed>>>,
    /// One of those is being opened: who comes meanwhile waits for it.
    opening: Cell<bool>,
}

/// Which HTTP is spoken with the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One request at a time on each connection.
    Http1,
    /// Many.
    Http2,
}

/// Where the backend is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its addresses.
    pub addresses: Addresses,
    /// TLS with it, if there is any.
    pub tls: Option<Arc<tls::Client>>,
    /// What is spoken, unless TLS lets the backend choose.
    pub protocol: Protocol,
}

impl Destination {
    /// Whether connections to `other` are as good. A TLS client that was made anew may hold another certificate.
    fn speaks_as(&self, other: &Destination) -> bool {
        let same_tls = match (&self.tls, &other.tls) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        same_tls && self.protocol == other.protocol
    }
}

/// What a request is sent on.
#[derive(Debug)]
pub enum Obtained {
    /// A connection of its own.
    Connection(Box<Connection>),
    /// Room on a connection that it shares.
    Lease(Lease),
}

/// A request in the line.
#[derive(Debug, Default)]
struct Waiter {
    waker: RefCell<Option<Waker>>,
    grant: RefCell<Option<Grant>>,
}

/// What a waiter is given.
#[derive(Debug)]
enum Grant {
    Connection(Box<Connection>),
    Lease(Lease),
    Permit(Permit),
    /// The connection that it waited for could not be opened.
    Failed(Trouble),
}

impl Waiter {
    fn give(&self, grant: Grant) {
        *self.grant.borrow_mut() = Some(grant);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// A place in the line, given up when dropped.
struct Place<'a> {
    pool: &'a Pool,
    waiter: Rc<Waiter>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Place { pool, waiter } = self;
        pool.line.borrow_mut().retain(|other| !Rc::ptr_eq(other, waiter));
        pool.budget.waiting.fetch_sub(1, Relaxed);
        pool.budget.workers[pool.worker].waiting.fetch_sub(1, Relaxed);
        pool.gauges.waiting(-1);
        // Given something at the very moment of giving up: pass it on.
        let grant = waiter.grant.borrow_mut().take();
        match grant {
            Some(Grant::Connection(connection)) => pool.put_back(connection),
            Some(Grant::Permit(permit)) => {
                drop(permit);
                pool.serve_line();
            }
            Some(Grant::Lease(lease)) => drop(lease),
            Some(Grant::Failed(_)) | None => {}
        }
    }
}

impl Pool {
    /// An empty pool of worker `worker`.
    #[must_use]
    pub fn new(
        worker: usize,
        destination: Destination,
        budget: Arc<Budget>,
        gauges: PoolGauges,
        timers: Rc<Timers>,
        buffers: Rc<Buffers>,
    ) -> Pool {
        let protocol = Cell::new(destination.protocol);
        Pool {
            worker,
            destination: RefCell::new(destination),
            tls_logged: Cell::new(None),
            generation: Cell::new(0),
            changes: Cell::new(0),
            idle: RefCell::default(),
            line: RefCell::default(),
            budget,
            gauges,
            timers,
            buffers,
            draining: Cell::new(false),
            protocol,
            multiplexed: RefCell::default(),
            opening: Cell::new(false),
        }
    }

    /// An idle connection, if there is a good one and nobody waits before us.
    fn take_idle(&self, cx: &mut Context<'_>, timeouts: &Timeouts) -> Option<Box<Connection>> {
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            self.gauges.left_idle();
            if let Some(reason) = self.expired(&connection, timeouts).or_else(|| connection.is_stale(cx)) {
                connection.close(reason);
                continue;
            }
            return Some(connection);
        }
    }

    fn expired(&self, connection: &Connection, timeouts: &Timeouts) -> Option<CloseReason> {
        let now = self.timers.now();
        if now > connection.opened + Timers::ticks(timeouts.upstream_age) {
            Some(CloseReason::MaxAge)
        } else if now > connection.idle_since + Timers::ticks(timeouts.upstream_idle) {
            Some(CloseReason::Idle)
        } else {
            None
        }
    }

    /// Something to send a request on: what is free, what is new, or what becomes free in time.
    ///
    /// # Errors
    /// When there is nothing, or the wait is interrupted.
    pub async fn obtain(
        &self,
        settings: &Settings,
        deadline: &Deadline,
        begun: Moment,
        observation: &mut Observation,
        watch: Watch<'_>,
    ) -> Result<(Obtained, Moment), Trouble> {
        let timeouts = &settings.timeouts;
        let at_once = poll_fn(|cx| Poll::Ready(self.line_is_empty().then(|| self.take_free(cx, timeouts)).flatten()));
        if let Some(obtained) = at_once.await {
            observation.queued(0);
            return Ok((obtained, begun));
        }
        let must_wait = !self.line_is_empty() || self.opening.get();
        let permit = if must_wait { None } else { self.budget.try_acquire(self.worker) };
        let permit = match permit {
            Some(permit) => {
                observation.queued(0);
                permit
            }
            None => {
                let grant = self.wait_in_line(timeouts, deadline, watch).await;
                let now = measure::now();
                observation.queued(now.nanos_since(begun));
                match grant? {
                    Grant::Connection(connection) => return Ok((Obtained::Connection(connection), now)),
                    Grant::Lease(lease) => return Ok((Obtained::Lease(lease), now)),
                    Grant::Permit(permit) => permit,
                    Grant::Failed(trouble) => return Err(trouble),
                }
            }
        };
        self.connect(permit, settings, deadline, observation, watch).await
    }

    /// What is free at once.
    fn take_free(&self, cx: &mut Context<'_>, timeouts: &Timeouts) -> Option<Obtained> {
        match self.protocol.get() {
            Protocol::Http1 => self.take_idle(cx, timeouts).map(Obtained::Connection),
            Protocol::Http2 => self.take_lease().map(Obtained::Lease),
        }
    }

    /// Something new, for a replay: never an old connection, which might be as stale as the first. A connection that
    /// carries many requests and goes on taking them is not stale.
    ///
    /// # Errors
    /// When there is none, or the wait is interrupted.
    pub async fn obtain_new(
        &self,
        settings: &Settings,
        deadline: &Deadline,
        observation: &mut Observation,
        watch: Watch<'_>,
    ) -> Result<(Obtained, Moment), Trouble> {
        if let Some(lease) = self.take_lease() {
            return Ok((Obtained::Lease(lease), measure::now()));
        }
        let Some(permit) = self.budget.try_acquire(self.worker) else {
            return Err(Trouble::Failed(Failure::NoCapacity, Phase::Queue));
        };
        self.connect(permit, settings, deadline, observation, watch).await
    }

    /// Room on a connection that has some.
    fn take_lease(&self) -> Option<Lease> {
        let multiplexed = self.multiplexed.borrow();
        let free = multiplexed.iter().find(|connection| connection.has_room() && connection.is_usable());
        free.map(|connection| connection.lease())
    }

    fn line_is_empty(&self) -> bool {
        self.line.borrow().is_empty()
    }

    async fn wait_in_line(&self, timeouts: &Timeouts, deadline: &Deadline, watch: Watch<'_>) -> Result<Grant, Trouble> {
        let limit = self.budget.waiting_limit.load(Relaxed);
        if self.budget.waiting.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).is_err() {
            return Err(Trouble::Failed(Failure::NoCapacity, Phase::Queue));
        }
        self.budget.workers[self.worker].waiting.fetch_add(1, Relaxed);
        self.gauges.waiting(1);
        let waiter = Rc::new(Waiter::default());
        self.line.borrow_mut().push_back(Rc::clone(&waiter));
        let place = Place { pool: self, waiter };
        // The others may have idle ones, and a permit may have come free since we looked.
        for (_, share) in self.budget.workers.iter().enumerate().filter(|(worker, _)| *worker != self.worker) {
            share.notify.notify_one();
        }
        self.serve_line();
        deadline.arm(timeouts.pool_wait);
        poll_fn(|cx| {
            if let Some(grant) = place.waiter.grant.borrow_mut().take() {
                return Poll::Ready(Ok(grant));
            }
            *place.waiter.waker.borrow_mut() = Some(cx.waker().clone());
            match watch(cx) {
                None => Poll::Pending,
                Some(stop) => {
                    if stop == Stop::Deadline {
                        self.gauges.timed_out();
                    }
                    Poll::Ready(Err(stop.or_deadline(Failure::QueueTimeout, Phase::Queue)))
                }
            }
        })
        .await
    }

    async fn connect(
        &self,
        permit: Permit,
        settings: &Settings,
        deadline: &Deadline,
        observation: &mut Observation,
        watch: Watch<'_>,
    ) -> Result<(Obtained, Moment), Trouble> {
        if self.protocol.get() == Protocol::Http1 {
            return self.open(permit, settings, deadline, observation, watch).await;
        }
        let opening = Opening::begin(self);
        let result = self.open(permit, settings, deadline, observation, watch).await;
        drop(opening);
        match &result {
            Ok(_) => self.serve_line(),
            // Those who wait for this connection would find the same, one after the other. Who left or waited too long
            // speaks for himself.
            Err(Trouble::Failed(failure, phase)) if *failure != Failure::DrainDeadline => {
                for waiter in self.line.take() {
                    waiter.give(Grant::Failed(Trouble::Failed(*failure, *phase)));
                }
            }
            Err(_) => self.serve_line(),
        }
        result
    }

    /// Opens a connection.
    async fn open(
        &self,
        permit: Permit,
        settings: &Settings,
        deadline: &Deadline,
        observation: &mut Observation,
        watch: Watch<'_>,
    ) -> Result<(Obtained, Moment), Trouble> {
        let begun = measure::now();
        deadline.arm(settings.timeouts.connect);
        let addresses = self.destination.borrow().addresses.clone();
        let (generation, changes) = (self.generation.get(), self.changes.get());
        let mut connecting = std::pin::pin!(addresses.connect());
        let connected = poll_fn(|cx| {
            if let Poll::Ready(result) = connecting.as_mut().poll(cx) {
                return Poll::Ready(result.map_err(|e| Trouble::Failed(connect_failure(&e), Phase::Connect)));
            }
            match watch(cx) {
                None => Poll::Pending,
                Some(stop) => Poll::Ready(Err(stop.or_deadline(Failure::ConnectTimeout, Phase::Connect))),
            }
        })
        .await;
        let now = measure::now();
        observation.connected(now.nanos_since(begun));
        let (mut stream, address) = connected.map_err(|trouble| or_dns_failure(trouble, &addresses))?;
        let mut now = now;
        let client = self.destination.borrow().tls.clone();
        if let Some(client) = &client {
            let begun = now;
            let negotiated;
            (stream, negotiated) = self.secure(client, stream, &settings.timeouts, deadline, watch).await?;
            now = measure::now();
            observation.tls(now.nanos_since(begun));
            self.protocol.set(match negotiated {
                Negotiated::Http1 => Protocol::Http1,
                Negotiated::Http2 => Protocol::Http2,
            });
        }
        if self.protocol.get() == Protocol::Http2 {
            let begun = Multiplexed::begin(
                stream,
                permit,
                self.gauges.clone(),
                &self.timers,
                settings.limits.head_bytes,
                (generation, address, client.is_some()),
            )
            .await;
            let connection = begun.map_err(|_gone| Trouble::Failed(Failure::ConnectReset, Phase::Connect))?;
            // A backend that says nothing is not there; and what it takes must be known before it is given anything.
            deadline.arm(settings.timeouts.connect);
            let settled = poll_fn(|cx| {
                if let Poll::Ready(settled) = connection.poll_settled(cx) {
                    return Poll::Ready(if settled {
                        Ok(())
                    } else {
                        Err(Trouble::Failed(Failure::ProtocolError, Phase::Connect))
                    });
                }
                match watch(cx) {
                    None => Poll::Pending,
                    Some(stop) => Poll::Ready(Err(stop.or_deadline(Failure::ConnectTimeout, Phase::Connect))),
                }
            });
            if let Err(trouble) = settled.await {
                connection.ends(CloseReason::Error);
                return Err(trouble);
            }
            let lease = connection.lease();
            if self.draining.get() {
                // For this one request, which is sent a second time: nothing else would end it.
                connection.ends(CloseReason::Drain);
            } else {
                self.multiplexed.borrow_mut().push(connection);
            }
            return Ok((Obtained::Lease(lease), now));
        }
        self.gauges.opened();
        let connection = Connection {
            stream,
            inbound: Window::new(&self.buffers),
            reused: false,
            opened: self.timers.now(),
            idle_since: 0,
            address,
            generation,
            checked: changes,
            reason: CloseReason::Error,
            gauges: self.gauges.clone(),
            _permit: permit,
        };
        Ok((Obtained::Connection(Box::new(connection)), now))
    }

    /// The TLS handshake on a new connection.
    async fn secure(
        &self,
        client: &tls::Client,
        stream: Stream,
        timeouts: &Timeouts,
        deadline: &Deadline,
        watch: Watch<'_>,
    ) -> Result<(Stream, Negotiated), Trouble> {
        deadline.arm(timeouts.connect);
        let mut handshake = std::pin::pin!(client.handshake(stream));
        let shaken = poll_fn(|cx| {
            if let Poll::Ready(result) = handshake.as_mut().poll(cx) {
                return Poll::Ready(result.map_err(Ok));
            }
            watch(cx).map_or(Poll::Pending, |stop| Poll::Ready(Err(Err(stop))))
        })
        .await;
        let (failure, why) = match shaken {
            Ok(shaken) => return Ok(shaken),
            Err(Ok(error)) => (tls::failure(&error), error.to_string()),
            Err(Err(Stop::Deadline)) => (TlsFailure::Timeout, "it took longer than timeouts.connect".to_owned()),
            Err(Err(stop)) => return Err(stop.or_deadline(Failure::ConnectTimeout, Phase::Tls)),
        };
        self.gauges.tls_failed(failure);
        let now = self.timers.now();
        if self.tls_logged.get().is_none_or(|logged| now >= logged + Timers::ticks(TLS_LOG_INTERVAL)) {
            self.tls_logged.set(Some(now));
            let reason = failure.as_str();
            tracing::warn!(event = "tls_handshake_failed", side = "backend", reason, error = why);
        }
        let failure = if failure == TlsFailure::Timeout { Failure::ConnectTimeout } else { Failure::TlsFailure };
        Err(Trouble::Failed(failure, Phase::Tls))
    }

    /// Takes a connection back after a complete exchange.
    pub fn put_back(&self, mut connection: Box<Connection>) {
        if self.draining.get() {
            return connection.close(CloseReason::Drain);
        }
        // A look through the addresses only after they have changed, not for each request.
        let changes = self.changes.get();
        if connection.checked != changes {
            if !self.is_current(connection.generation, &connection.address) {
                return connection.close(CloseReason::Drain);
            }
            connection.checked = changes;
        }
        if self.budget.over_limit() || self.budget.other_starves(self.worker) {
            return connection.close(CloseReason::Idle);
        }
        connection.reused = true;
        connection.inbound.release();
        let next = self.line.borrow_mut().pop_front();
        if let Some(waiter) = next {
            return waiter.give(Grant::Connection(connection));
        }
        if self.budget.other_waits(self.worker) {
            return connection.close(CloseReason::Idle);
        }
        connection.idle_since = self.timers.now();
        self.gauges.became_idle();
        self.idle.borrow_mut().push(connection);
    }

    /// Gives what is free to those who wait.
    fn serve_line(&self) {
        while self.protocol.get() == Protocol::Http2 && !self.line_is_empty() {
            let grant = match self.take_lease() {
                Some(lease) => Grant::Lease(lease),
                // One that opens a connection is enough: it serves the others.
                None if self.opening.get() => return,
                None => match self.budget.try_acquire(self.worker) {
                    Some(permit) => Grant::Permit(permit),
                    None => return,
                },
            };
            let opens = matches!(grant, Grant::Permit(_));
            let next = self.line.borrow_mut().pop_front();
            if let Some(waiter) = next {
                waiter.give(grant);
            }
            if opens {
                return;
            }
        }
        while !self.line_is_empty() {
            let Some(permit) = self.budget.try_acquire(self.worker) else { return };
            let next = self.line.borrow_mut().pop_front();
            if let Some(waiter) = next {
                waiter.give(Grant::Permit(permit));
            }
        }
    }

    /// What must be done now and then, and when the budget calls: serve the line, give up idle connections for other
    /// workers, close what is too old, too long idle, or closed by the backend.
    pub fn tend(&self) {
        self.serve_line();
        if self.line_is_empty() {
            let wanted = self.budget.wanted(self.worker).min(self.idle.borrow().len());
            for _ in 0..wanted {
                self.close_oldest(CloseReason::Idle);
            }
            // A shared one without a request is idle, too.
            let left = Cell::new(self.budget.wanted(self.worker));
            self.let_go(|shared| {
                let gives = left.get() > 0 && shared.is_idle();
                left.set(left.get() - usize::from(gives));
                gives.then_some(CloseReason::Idle)
            });
        }
    }

    /// Looks over all idle connections.
    pub fn sweep(&self, timeouts: &Timeouts) {
        self.tend();
        let mut cx = Context::from_waker(Waker::noop());
        let mut idle = self.idle.take();
        let mut kept = Vec::with_capacity(idle.len());
        for mut connection in idle.drain(..) {
            match self.expired(&connection, timeouts).or_else(|| connection.is_stale(&mut cx)) {
                Some(reason) => {
                    self.gauges.left_idle();
                    connection.close(reason);
                }
                None => {
                    connection.inbound.release();
                    kept.push(connection);
                }
            }
        }
        *self.idle.borrow_mut() = kept;
        let now = self.timers.now();
        let too_old = now.saturating_sub(Timers::ticks(timeouts.upstream_age));
        let too_long = now.saturating_sub(Timers::ticks(timeouts.upstream_idle));
        self.let_go(|connection| {
            let idle_too_long = connection.is_idle() && connection.idle_since.get() < too_long;
            match (connection.opened < too_old, idle_too_long) {
                _ if !connection.is_usable() => Some(CloseReason::Peer),
                _ if connection.is_dead() => Some(CloseReason::Error),
                (true, _) => Some(CloseReason::MaxAge),
                (_, true) => Some(CloseReason::Idle),
                _ => None,
            }
        });
    }

    /// Takes no more requests on shared connections for which there is a reason; each ends with its last stream.
    fn let_go(&self, reason: impl Fn(&Multiplexed) -> Option<CloseReason>) {
        self.multiplexed.borrow_mut().retain(|connection| match reason(connection) {
            Some(reason) => {
                connection.ends(reason);
                false
            }
            None => true,
        });
    }

    fn close_oldest(&self, reason: CloseReason) {
        let mut idle = self.idle.borrow_mut();
        if !idle.is_empty() {
            let connection = idle.remove(0);
            drop(idle);
            self.gauges.left_idle();
            connection.close(reason);
        }
    }

    /// From now on connections are closed when their exchange ends; idle ones at once.
    pub fn drain(&self) {
        self.draining.set(true);
        self.close_idle();
    }

    fn close_idle(&self) {
        self.let_go(|_| Some(CloseReason::Drain));
        for connection in self.idle.take() {
            self.gauges.left_idle();
            connection.close(CloseReason::Drain);
        }
    }

    fn is_current(&self, generation: u64, address: &Address) -> bool {
        generation == self.generation.get() && self.destination.borrow().addresses.contains(address)
    }

    /// From now on requests go there: connections to elsewhere are closed when their exchange ends, idle ones at once.
    pub fn set_destination(&self, destination: Destination) {
        if !self.destination.borrow().speaks_as(&destination) {
            self.protocol.set(destination.protocol);
            self.generation.set(self.generation.get() + 1);
        }
        let addresses = destination.addresses.clone();
        *self.destination.borrow_mut() = destination;
        self.set_addresses(addresses);
    }

    /// The same, spoken to as before.
    pub fn set_addresses(&self, addresses: Addresses) {
        self.destination.borrow_mut().addresses = addresses;
        self.changes.set(self.changes.get() + 1);
        for connection in self.idle.take() {
            if self.is_current(connection.generation, &connection.address) {
                self.idle.borrow_mut().push(connection);
            } else {
                self.gauges.left_idle();
                connection.close(CloseReason::Drain);
            }
        }
        self.let_go(|shared| (!self.is_current(shared.generation, &shared.address)).then_some(CloseReason::Drain));
    }
}

/// A backend that cannot be reached where its name once led, and whose name leads nowhere any more, is gone by name.
fn or_dns_failure(trouble: Trouble, addresses: &Addresses) -> Trouble {
    use Failure::{ConnectRefused, ConnectReset, ConnectTimeout, DnsFailure};
    match trouble {
        Trouble::Failed(ConnectRefused | ConnectReset | ConnectTimeout, phase) if addresses.connect_failed() => {
            Trouble::Failed(DnsFailure, phase)
        }
        trouble => trouble,
    }
}

/// Says that a shared connection is being opened, until it is dropped.
struct Opening<'a>(&'a Cell<bool>);

impl Opening<'_> {
    fn begin(pool: &Pool) -> Opening<'_> {
        pool.opening.set(true);
        Opening(&pool.opening)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
