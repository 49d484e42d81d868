//! HTTP/2 connections to the backend: one carries many requests at once. A worker has its own, beside the pool of
//! [`crate::proxy::upstream`], which decides when another one is opened.

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::io;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};

use crate::labels::CloseReason;
use crate::measure::PoolGauges;
use crate::proxy::exchange::{Broken, Gone, Piece};
use crate::proxy::timer::Timers;
use crate::proxy::upstream::Permit;
use crate::transport::{Address, Stream};

/// Flow-control window of a stream: what the backend may send ahead of what the client takes.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Streams on one connection at once, whatever the backend would take. With the window of a stream it bounds what slow
/// clients can make a connection hold, 8 MiB; more requests get another connection.
const STREAMS: usize = 128;
/// All streams may be full at once: a slow client must not stop the others on its connection.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// What a stream may have written and the socket not taken.
const SEND_BUFFER: usize = 64 * 1024;
/// What `current_max_send_streams` is until the backend has said how many it takes: no backend says so, since identifiers of
/// streams have 31 bits.
const UNSETTLED: usize = 1 << 31;
/// How long a backend that has not answered a request may take to answer a PING. It is asked only then: servers of gRPC end
/// connections on which a client asks more often than every five minutes.
const PING_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
/// Silence after which TCP asks whether the backend's machine is still there.
const KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(60);

/// An HTTP/2 connection to the backend.
#[derive(Debug)]
pub struct Multiplexed {
    send: RefCell<SendRequest<Bytes>>,
    state: Rc<State>,
    timers: Rc<Timers>,
    /// The tick at which it was opened.
    pub opened: u64,
    /// The tick at which its last stream ended.
    pub idle_since: Cell<u64>,
    /// Which of the pool's lists of addresses it was opened from.
    pub generation: u64,
    /// Where it leads.
    pub address: Address,
    /// Requests are sent over TLS.
    pub secure: bool,
}

/// What connection, streams and the task that drives them share.
#[derive(Debug)]
struct State {
    streams: Cell<usize>,
    /// The backend has said what it takes.
    settled: Cell<bool>,
    /// Since when it is doubtful whether anybody is there: a tick.
    doubted: Cell<Option<u64>>,
    ended: Cell<bool>,
    /// It ended before an answer did.
    broke: Cell<bool>,
    reason: Cell<CloseReason>,
    gauges: PoolGauges,
    permit: RefCell<Option<Permit>>,
    /// Who opens the connection and waits for the backend's settings.
    opener: RefCell<Option<Waker>>,
    /// The task that drives it.
    driver: RefCell<Option<Waker>>,
}

impl State {
    /// Others may find room now, or find that there will be none.
    fn tell_waiters(&self) {
        self.permit.borrow().iter().for_each(Permit::stream_ended);
        let opener = self.opener.take();
        if let Some(opener) = opener {
            opener.wake();
        }
    }
}

/// Counts a connection until it is closed.
struct Open(Rc<State>);

impl Drop for Open {
    fn drop(&mut self) {
        let state = &self.0;
        state.ended.set(true);
        if state.streams.get() == 0 {
            state.gauges.left_idle();
        }
        state.gauges.closed(state.reason.get());
        state.tell_waiters();
        state.permit.take();
    }
}

impl Multiplexed {
    /// Begins HTTP/2 on a connection that has just been opened, and counts it. It is idle then.
    /// `head_bytes`: most of a response head.
    ///
    /// # Errors
    /// When the preface cannot be sent.
    pub async fn begin(
        stream: Stream,
        permit: Permit,
        gauges: PoolGauges,
        timers: &Rc<Timers>,
        head_bytes: usize,
        (generation, address, secure): (u64, Address, bool),
    ) -> io::Result<Rc<Multiplexed>> {
        stream.set_keepalive(KEEPALIVE);
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(UNSETTLED)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX));
        let (send, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(io::Error::other)?;
        let state = Rc::new(State {
            streams: Cell::new(0),
            settled: Cell::new(false),
            doubted: Cell::new(None),
            ended: Cell::new(false),
            broke: Cell::new(false),
            reason: Cell::new(CloseReason::Peer),
            gauges,
            permit: RefCell::new(Some(permit)),
            opener: RefCell::new(None),
            driver: RefCell::new(None),
        });
        state.gauges.opened();
        state.gauges.became_idle();
        let multiplexed = Rc::new(Multiplexed {
            send: RefCell::new(send),
            state: Rc::clone(&state),
            timers: Rc::clone(timers),
            opened: timers.now(),
            idle_since: Cell::new(timers.now()),
            generation,
            address,
            secure,
        });
        tokio::task::spawn_local(drive(connection, Open(state), Rc::downgrade(&multiplexed)));
        Ok(multiplexed)
    }

    /// Waits until the backend has said what it takes: its first frame, so it is as good as there. `false`: it has ended
    /// the connection instead, or does not speak HTTP/2.
    pub fn poll_settled(&self, cx: &Context<'_>) -> Poll<bool> {
        if self.state.settled.get() || self.state.ended.get() {
            return Poll::Ready(self.state.settled.get());
        }
        *self.state.opener.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// A request has waited for its head for too long: gives the connection no new ones until it is known that somebody is
    /// there.
    fn doubt(&self) {
        if self.state.doubted.get().is_none() {
            self.state.doubted.set(Some(self.timers.now()));
            if let Some(driver) = &*self.state.driver.borrow() {
                driver.wake_by_ref();
            }
        }
    }

    /// A request has failed: notes whether its connection has, and not the stream alone.
    fn note<'a>(&self, error: &'a h2::Error) -> &'a h2::Error {
        if !error.is_reset() && !error.is_go_away() {
            self.state.broke.set(true);
        }
        error
    }

    /// Whether nobody has answered for too long.
    pub fn is_dead(&self) -> bool {
        self.state.doubted.get().is_some_and(|since| self.timers.now() > since + Timers::ticks(PING_PATIENCE))
    }

    /// Whether it takes new requests: it is there, and the backend has not said goodbye.
    pub fn is_usable(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.state.ended.get() && !matches!(self.send.borrow_mut().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Whether no request is on it.
    pub fn is_idle(&self) -> bool {
        self.state.streams.get() == 0
    }

    /// Whether it has room for one more request.
    pub fn has_room(&self) -> bool {
        let state = &self.state;
        let most = self.send.borrow().current_max_send_streams().min(STREAMS);
        state.settled.get() && state.doubted.get().is_none() && state.streams.get() < most
    }

    /// Why it is about to be closed: it is let go of, and ends with its last stream.
    pub fn ends(&self, reason: CloseReason) {
        self.state.reason.set(reason);
    }

    /// Room for one request.
    pub fn lease(self: &Rc<Self>) -> Lease {
        let state = &self.state;
        if state.streams.get() == 0 && !state.ended.get() {
            state.gauges.left_idle();
        }
        state.streams.set(state.streams.get() + 1);
        Lease { connection: Rc::clone(self) }
    }
}

/// Moves the frames of a connection until it ends.
async fn drive(connection: Connection<Stream, Bytes>, open: Open, multiplexed: Weak<Multiplexed>) {
    let state = &open.0;
    let mut connection = connection;
    let mut pinger = connection.ping_pong();
    let mut asked = false;
    let mut connection = std::pin::pin!(connection);
    let ended = poll_fn(|cx| {
        let mut driver = state.driver.borrow_mut();
        if !driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            *driver = Some(cx.waker().clone());
        }
        drop(driver);
        if let Some(pinger) = &mut pinger
            && state.doubted.get().is_some()
        {
            asked = asked || pinger.send_ping(Ping::opaque()).is_ok();
            if asked && pinger.poll_pong(cx).is_ready() {
                asked = false;
                state.doubted.set(None);
                state.tell_waiters();
            }
        }
        let polled = connection.as_mut().poll(cx);
        if !state.settled.get()
            && let Some(multiplexed) = multiplexed.upgrade()
            && multiplexed.send.borrow().current_max_send_streams() != UNSETTLED
        {
            state.settled.set(true);
            state.tell_waiters();
        }
        polled
    })
    .await;
    // Those whose requests were on it find out.
    tokio::task::yield_now().await;
    // One that breaks in a drain is broken all the same.
    if ended.is_err() || state.broke.get() {
        state.reason.set(CloseReason::Error);
    }
}

/// Room for one request on a connection, given up when dropped.
#[derive(Debug)]
pub struct Lease {
    connection: Rc<Multiplexed>,
}

impl Lease {
    /// Sends a request head. `ended`: nothing follows.
    ///
    /// # Errors
    /// When the connection takes none any more: the backend has not seen it.
    pub fn send(self, request: Request<()>, ended: bool) -> Result<H2Back, Lease> {
        let connect = request.method() == http::Method::CONNECT;
        let mut send = self.connection.send.borrow().clone();
        match send.send_request(request, ended) {
            Ok((response, body)) => {
                Ok(H2Back { response: Some(response), send: body, body: None, connect, lease: self })
            }
            Err(_gone) => Err(self),
        }
    }

    /// Whether the backend takes extended CONNECT.
    #[must_use]
    pub fn connects(&self) -> bool {
        self.connection.send.borrow().is_extended_connect_protocol_enabled()
    }

    /// Whether requests are sent over TLS.
    #[must_use]
    pub fn secure(&self) -> bool {
        self.connection.secure
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Multiplexed { state, timers, idle_since, .. } = &*self.connection;
        state.streams.set(state.streams.get() - 1);
        if state.streams.get() == 0 && !state.ended.get() {
            idle_since.set(timers.now());
            state.gauges.became_idle();
        }
        state.permit.borrow().iter().for_each(Permit::stream_ended);
    }
}

/// A request on an HTTP/2 connection to the backend.
#[derive(Debug)]
pub struct H2Back {
    response: Option<ResponseFuture>,
    send: SendStream<Bytes>,
    body: Option<RecvStream>,
    connect: bool,
    lease: Lease,
}

/// What comes of waiting for a head.
#[derive(Debug)]
pub enum Head {
    /// One of 1xx; more comes.
    Interim(Response<()>),
    /// The final one, and whether the stream ended with it.
    Final(Response<()>, bool),
}

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHead {
    /// The backend says that it has not looked at the request.
    Unprocessed,
    /// It ended the stream, or the connection.
    Reset,
    /// What it sent is not HTTP/2.
    Malformed,
}

impl H2Back {
    /// Room for some of `wanted` request bytes. The backend may have stopped reading.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Gone>> {
        poll_capacity(&mut self.send, cx, wanted)
    }

    /// Whether the backend still reads: it may have ended the stream.
    pub fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(if self.send.poll_reset(cx).is_ready() { Err(Gone) } else { Ok(()) })
    }

    /// Whether it is an extended CONNECT.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.connect
    }

    /// Sends what fits in the room.
    pub fn send(&mut self, bytes: Bytes) -> Result<(), Gone> {
        self.send.send_data(bytes, false).map_err(|_gone| Gone)
    }

    /// Ends the request.
    pub fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Gone> {
        match trailers {
            Some(trailers) => self.send.send_trailers(trailers),
            None => self.send.send_data(Bytes::new(), true),
        }
        .map_err(|_gone| Gone)
    }

    /// The next head.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, NoHead>> {
        let Some(response) = &mut self.response else { return Poll::Pending };
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            return Poll::Ready(Ok(Head::Interim(interim)));
        }
        match std::pin::Pin::new(response).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(response)) => {
                self.response = None;
                let (parts, body) = response.into_parts();
                let ended = body.is_end_stream();
                self.body = Some(body);
                Poll::Ready(Ok(Head::Final(Response::from_parts(parts, ()), ended)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(if self.lease.connection.note(&error).is_library() {
                NoHead::Malformed
            } else if error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)) {
                NoHead::Unprocessed
            } else {
                NoHead::Reset
            })),
        }
    }

    /// The next piece of the response body.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(Piece::End(None))) };
        poll_recv(body, cx).map_err(|error| broken(self.lease.connection.note(&error)))
    }

    /// Response bytes have gone on: the backend may send as many more.
    pub fn release(&mut self, n: usize) {
        if let Some(body) = &mut self.body {
            let _ended = body.flow_control().release_capacity(n);
        }
    }

    /// The backend has not answered in time: whether it is there at all must be asked.
    pub fn doubt(&self) {
        self.lease.connection.doubt();
    }

    /// Ends the stream before its time: nobody wants the rest.
    pub fn cancel(&mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

/// Room for some of `wanted` bytes on a stream that sends.
pub(super) fn poll_capacity(
    send: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
    wanted: usize,
) -> Poll<Result<usize, Gone>> {
    if let Poll::Ready(_reset) = send.poll_reset(cx) {
        return Poll::Ready(Err(Gone));
    }
    // No more than is there is asked for: what one stream reserves the others of its connection lack.
    send.reserve_capacity(wanted);
    loop {
        if send.capacity() > 0 {
            return Poll::Ready(Ok(send.capacity()));
        }
        match send.poll_capacity(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Gone)),
        }
    }
}

/// What an error inside a body is called.
pub(super) fn broken(error: &h2::Error) -> Broken {
    if error.is_library() { Broken::Malformed } else { Broken::Gone }
}

/// The next piece of a body that comes in.
pub(super) fn poll_recv(body: &mut RecvStream, cx: &mut Context<'_>) -> Poll<Result<Piece, h2::Error>> {
    loop {
        match body.poll_data(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
            Poll::Ready(Some(Ok(data))) => return Poll::Ready(Ok(Piece::Data(data))),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) => {
                return body.poll_trailers(cx).map(|trailers| trailers.map(Piece::End));
            }
        }
    }
}
