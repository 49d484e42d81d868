//! A client's connection: HTTP/1.x or HTTP/2, told apart by its first bytes; one request after the other; parked when
//! nothing comes.
//!
//! A parked connection holds its socket, a deadline and nothing else: no buffer, no parser. Serving begins anew, on the
//! same socket, when it becomes readable.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncWrite as _, AsyncWriteExt as _};

use crate::labels::{CloseReason, ConnectionEnd, Failure, Method, Phase, RouteId, TlsSide, Traffic};
use crate::measure::{self, Begin, ClientConnection, Moment, Observation};
use crate::proxy::body::Outbox;
use crate::proxy::buffer::{Filled, SMALL, Window};
use crate::proxy::error::{Answer, Trouble};
use crate::proxy::h1::{HeadScan, ScanError};
use crate::proxy::headers::{self, Peer, Refused, RequestHead};
use crate::proxy::opening::{self, Opening};
use crate::proxy::service::{self, After};
use crate::proxy::timer::Deadline;
use crate::proxy::worker::{Settings, Worker};
use crate::proxy::{h2, tunnel};
use crate::routes::Found;
use crate::transport::Stream;
use crate::transport::tls::Negotiated;

/// A connection without a request is parked after this long. Requests in close succession never pay for it, and a
/// connection that was parked pays one allocation.
const PARK_AFTER: Duration = Duration::from_secs(1);
/// How long, and for how many bytes, a connection is read on after an answer that ends it early. Closing with unread
/// bytes would reset the connection and could take the answer away from the client (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 4 * 1024 * 1024;
/// What an HTTP/2 client with prior knowledge sends first (RFC 9113, section 3.4).
pub const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's connection while it is served.
#[derive(Debug)]
pub struct Client {
    /// The socket.
    pub stream: Stream,
    /// What was read and not yet used.
    pub inbound: Window,
    /// Who is at the other end.
    pub peer: Peer,
    /// The one deadline of this connection; what it stands for depends on what is waited for.
    pub deadline: Deadline,
    /// The request on its way to the backend.
    pub outbox: Outbox,
    /// The response on its way to the client.
    pub reply: Outbox,
    /// When the current request's head had been read.
    pub begun: Moment,
    /// The current request's path if nobody knows it, so that its answer may earn it a label; else empty.
    pub unknown_path: Vec<u8>,
    /// Whether all of the current request has been read.
    pub upload_complete: bool,
    /// Whether a part of the final response head has been sent: then there can be no answer of our own any more.
    pub committed: bool,
    /// Whether the end of the connection is the end of the current response.
    pub ends_by_close: bool,
}

impl Client {
    fn new(worker: &Worker, stream: Stream, peer: Peer) -> Client {
        Client {
            stream,
            inbound: Window::new(&worker.buffers),
            peer,
            deadline: worker.timers.slot(),
            outbox: Outbox::default(),
            reply: Outbox::default(),
            begun: measure::now(),
            unknown_path: Vec::new(),
            upload_complete: true,
            committed: false,
            ends_by_close: false,
        }
    }

    /// Writes what is in `reply`, within `patience`.
    ///
    /// # Errors
    /// When the client has left or takes nothing.
    pub async fn flush_reply(&mut self, worker: &Worker, patience: Duration) -> Result<(), Trouble> {
        self.deadline.arm(patience);
        let Client { stream, reply, deadline, .. } = self;
        poll_fn(|cx| match reply.poll_flush(cx, stream) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Trouble::ClientLeft)),
            Poll::Pending => match worker.stopped(cx, deadline) {
                None => Poll::Pending,
                Some(stop) => Poll::Ready(Err(stop.or_deadline(Failure::ClientTimeout, Phase::Body))),
            },
        })
        .await
    }

    /// Ends the connection so that the client can still read what was sent.
    async fn linger(&mut self, worker: &Worker) {
        self.deadline.arm(LINGER);
        let Client { stream, inbound, deadline, .. } = self;
        let mut left = LINGER_BYTES;
        let mut said = false;
        poll_fn(|cx| {
            if !said {
                match Pin::new(&mut *stream).poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => said = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            if said {
                loop {
                    inbound.consume(inbound.unread().len());
                    match inbound.poll_fill(cx, stream, SMALL) {
                        Poll::Ready(Ok(Filled::Bytes(n))) if n < left => left -= n,
                        Poll::Ready(_) => return Poll::Ready(()),
                        Poll::Pending => break,
                    }
                }
            }
            if worker.stopped(cx, deadline).is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Ends the connection so that a client that speaks TLS knows that nobody has cut it. It has read most of what was
    /// sent, so this is a matter of one record.
    async fn say_goodbye(&mut self, worker: &Worker) {
        if !self.stream.is_tls() {
            return;
        }
        self.deadline.arm(LINGER);
        let Client { stream, deadline, .. } = self;
        poll_fn(|cx| {
            if Pin::new(&mut *stream).poll_shutdown(cx).is_ready() || worker.stopped(cx, deadline).is_some() {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }

    /// Closes with a reset, so that the client cannot take what it has for a whole response.
    fn reset(&self) {
        self.stream.reset_on_close();
    }
}

/// Serves a connection until it ends. `address`: that of the client, as far as the socket tells.
pub async fn serve(worker: Rc<Worker>, mut stream: Stream, address: Option<IpAddr>) {
    let guard = Rc::new(ClientConnection::open(&worker.meter));
    let mut peer = Peer { address, secure: false };
    let mut first = First::Any;
    let settings = worker.settings();
    if settings.tls.is_some() || settings.proxy_protocol {
        match boxed(opened(&worker, &settings, stream, peer, &guard)).await {
            Some((opened, who, Some(negotiated))) => (stream, peer, first) = (opened, who, First::Agreed(negotiated)),
            Some((opened, who, None)) => (stream, peer) = (opened, who),
            None => return,
        }
    }
    drop(settings);
    loop {
        match boxed(active(&worker, stream, peer, &guard, first)).await {
            Some(idle) => stream = idle,
            None => return,
        }
        first = First::Over;
        if !parked(&worker, &stream).await {
            stream.say_goodbye();
            return guard.ends(idle_end(&worker));
        }
    }
}

/// What is known of the next request on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// It is the first one, in whatever the client speaks.
    Any,
    /// It is the first one, in what both sides have agreed on.
    Agreed(Negotiated),
    /// It is a later one.
    Over,
}

/// What comes before the first request; `None`: there will be none.
async fn opened(
    worker: &Worker,
    settings: &Settings,
    stream: Stream,
    peer: Peer,
    guard: &ClientConnection,
) -> Option<(Stream, Peer, Option<Negotiated>)> {
    match opening::open(worker, settings, stream, peer.address).await {
        Opening::Ready(stream, peer, negotiated) => return Some((stream, peer, negotiated)),
        Opening::Refused(stream, refused) => {
            guard.ends(ConnectionEnd::Proxy);
            refuse(worker, settings, &mut Client::new(worker, stream, peer), refused).await;
        }
        Opening::NoTls(failure, stream) => {
            worker.meter.tls_failed(TlsSide::Client, failure);
            guard.ends(ConnectionEnd::Proxy);
            if let Some(stream) = stream {
                Client::new(worker, stream, peer).linger(worker).await;
            }
        }
        Opening::Closed => {}
        Opening::Ended => guard.ends(idle_end(worker)),
    }
    None
}

/// Puts a future in a box of its own, so that the task of a parked connection is small. A function, because a temporary
/// would get its place in the task all the same.
fn boxed<F: Future>(future: F) -> Pin<Box<F>> {
    Box::pin(future)
}

/// Waits until a parked connection has something to say. `false`: it has been idle too long, or the sidecar drains.
async fn parked(worker: &Worker, stream: &Stream) -> bool {
    let deadline = worker.timers.slot();
    deadline.arm(worker.settings().timeouts.client_idle.saturating_sub(PARK_AFTER));
    poll_fn(|cx| {
        if worker.is_draining() || deadline.expired(cx) {
            return Poll::Ready(false);
        }
        stream.poll_read_ready(cx).map(|ready| ready.is_ok())
    })
    .await
}

/// Why a connection without a request is closed by this side.
fn idle_end(worker: &Worker) -> ConnectionEnd {
    if worker.is_draining() { ConnectionEnd::Drain } else { ConnectionEnd::Idle }
}

/// Why there is no request head.
enum NoHead {
    /// Nothing came for a while: park.
    Idle,
    /// The client closed, between requests or within a head.
    Closed,
    /// The connection has been idle too long, or the sidecar drains.
    Ended,
    /// The head did not arrive in time, is ambiguous or too large.
    Refused(Refused),
    /// The client speaks HTTP/2.
    H2,
}

/// Serves requests until the connection ends (`None`) or has nothing to say for a while.
async fn active(
    worker: &Rc<Worker>,
    stream: Stream,
    peer: Peer,
    guard: &Rc<ClientConnection>,
    mut first: First,
) -> Option<Stream> {
    let mut client = Client::new(worker, stream, peer);
    if first == First::Agreed(Negotiated::Http2) {
        let Client { stream, inbound, .. } = client;
        h2::serve(worker, stream, inbound, peer, guard).await;
        return None;
    }
    loop {
        let settings = worker.settings();
        let len = match read_head(worker, &settings, &mut client, first).await {
            Ok(len) => len,
            Err(NoHead::Idle) => return Some(client.stream),
            Err(NoHead::Closed) => return None,
            Err(NoHead::Ended) => {
                guard.ends(idle_end(worker));
                client.stream.say_goodbye();
                return None;
            }
            Err(NoHead::H2) => {
                let Client { stream, inbound, .. } = client;
                h2::serve(worker, stream, inbound, peer, guard).await;
                return None;
            }
            Err(NoHead::Refused(refused)) => {
                guard.ends(ConnectionEnd::Proxy);
                refuse(worker, &settings, &mut client, refused).await;
                return None;
            }
        };
        first = First::Over;
        client.begun = measure::now();
        client.outbox.reset();
        let head = {
            let bytes = &client.inbound.unread()[..len];
            let context = settings.request_context(client.peer);
            match headers::request(bytes, &context, &mut client.outbox.bytes) {
                Ok(head) => head,
                Err(refused) => {
                    guard.ends(ConnectionEnd::Proxy);
                    client.inbound.consume(len);
                    refuse(worker, &settings, &mut client, refused).await;
                    return None;
                }
            }
        };
        let observation = begin(worker, &settings, &mut client, &head);
        client.inbound.consume(len);
        guard.busy();
        let after = service::handle(worker, &settings, &mut client, &head, observation).await;
        guard.done();
        match after {
            After::KeepAlive => {}
            After::Gone => return None,
            After::Close => {
                guard.ends(ended_by(worker));
                client.say_goodbye(worker).await;
                return None;
            }
            After::Linger => {
                guard.ends(ended_by(worker));
                client.linger(worker).await;
                return None;
            }
            After::Reset => {
                guard.ends(ended_by(worker));
                client.reset();
                return None;
            }
            After::TunnelInPieces(back, protocol) => {
                guard.busy();
                let reason = tunnel::in_pieces(worker, &settings, client, &head, *back, protocol).await;
                ends_tunnel(guard, reason);
                return None;
            }
            After::Tunnel(connection, protocol) => {
                guard.busy();
                let reason = tunnel::between_sockets(worker, client, connection, protocol).await;
                ends_tunnel(guard, reason);
                return None;
            }
        }
    }
}

/// Why a connection is closed by this side after a request.
fn ended_by(worker: &Worker) -> ConnectionEnd {
    if worker.is_closing() { ConnectionEnd::Drain } else { ConnectionEnd::Proxy }
}

fn ends_tunnel(guard: &ClientConnection, reason: CloseReason) {
    if reason == CloseReason::Drain {
        guard.ends(ConnectionEnd::Drain);
    }
    guard.done();
}

fn begin(worker: &Worker, settings: &Settings, client: &mut Client, head: &RequestHead) -> Observation {
    let Client { inbound, unknown_path, begun, .. } = client;
    let path = &inbound.unread()[head.path.clone()];
    let path = if path.is_empty() { b"/" } else { path };
    let traffic = if settings.is_probe(path) || head.probe_agent { Traffic::Probe } else { Traffic::User };
    let Found { route, unknown } = settings.routes.find(head.method, path);
    unknown_path.clear();
    if unknown {
        unknown_path.extend_from_slice(path);
    }
    Observation::begin(
        &worker.meter,
        Begin { route, method: head.method, traffic, at: *begun, trace: head.trace, rpc: None },
    )
}

/// Reads until a head is complete.
async fn read_head(worker: &Worker, settings: &Settings, client: &mut Client, first: First) -> Result<usize, NoHead> {
    let limits = &settings.limits;
    let timeouts = &settings.timeouts;
    let Client { stream, inbound, deadline, .. } = client;
    let mut scan = HeadScan::default();
    let mut begun = false;
    let mut looked = 0;
    let fresh = first != First::Over;
    deadline.arm(if fresh { timeouts.client_idle } else { PARK_AFTER.min(timeouts.client_idle) });
    poll_fn(|cx| {
        loop {
            // An empty line before a request line is a leftover of some clients (RFC 9112, section 2.2).
            while looked == 0 && inbound.unread().starts_with(b"\r\n") {
                inbound.consume(2);
                scan = HeadScan::default();
            }
            let bytes = inbound.unread();
            if !bytes.is_empty() && !begun {
                begun = true;
                deadline.arm(timeouts.client_head);
            }
            // A TLS handshake, or anything else that is not HTTP, need not wait for the end of a line.
            if bytes.first().is_some_and(|first| !first.is_ascii_graphic() && *first != b'\r' && *first != b'\n') {
                let refused = Refused::bad("the request line is malformed");
                return Poll::Ready(Err(NoHead::Refused(refused)));
            }
            if first == First::Any && is_preface(bytes) {
                if bytes.len() >= H2_PREFACE.len() {
                    return Poll::Ready(Err(NoHead::H2));
                }
            } else if bytes.len() > looked && bytes != b"\r" {
                looked = bytes.len();
                match scan.scan(bytes, limits.request_line_bytes, limits.head_bytes) {
                    Ok(Some(len)) => return Poll::Ready(Ok(len)),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Err(NoHead::Refused(unscannable(error)))),
                }
            }
            match inbound.poll_fill(cx, stream, limits.head_bytes) {
                Poll::Ready(Ok(Filled::Bytes(_))) => {}
                Poll::Ready(Ok(Filled::Full)) => {
                    return Poll::Ready(Err(NoHead::Refused(unscannable(ScanError::HeadTooLong))));
                }
                Poll::Ready(Ok(Filled::Eof) | Err(_)) => {
                    return Poll::Ready(Err(NoHead::Closed));
                }
                Poll::Pending => break,
            }
        }
        if worker.is_cut() || (worker.is_draining() && !begun) {
            return Poll::Ready(Err(NoHead::Ended));
        }
        if !deadline.expired(cx) {
            return Poll::Pending;
        }
        Poll::Ready(Err(if begun {
            NoHead::Refused(Refused::late("the request head did not arrive in time"))
        } else if fresh || timeouts.client_idle <= PARK_AFTER {
            NoHead::Ended
        } else {
            NoHead::Idle
        }))
    })
    .await
}

/// Whether a connection begins like HTTP/2. No method of HTTP/1 begins with `PRI `.
fn is_preface(bytes: &[u8]) -> bool {
    let seen = bytes.len().min(H2_PREFACE.len());
    seen > 0 && bytes[..seen] == H2_PREFACE[..seen]
}

fn unscannable(error: ScanError) -> Refused {
    match error {
        ScanError::BareLineFeed => Refused::bad("a line ends without a carriage return"),
        ScanError::LineTooLong => {
            Refused { failure: Failure::HeaderLimit, status: 414, why: "the request line is too long" }
        }
        ScanError::HeadTooLong => {
            Refused { failure: Failure::HeaderLimit, status: 431, why: "the request head is too large" }
        }
    }
}

/// Answers a request that could not be read, counts it as one (method `_OTHER`, no route), and closes.
async fn refuse(worker: &Worker, settings: &Settings, client: &mut Client, refused: Refused) {
    let mut observation = observe_unread(worker, refused.failure);
    let answer = refused.answer();
    client.reply.reset();
    client.reply.bytes = answer.to_bytes(wants_json(client.inbound.unread()), false, false, false);
    if client.flush_reply(worker, settings.timeouts.body).await.is_ok() {
        let now = measure::now();
        observation.answered(answer.status, now);
        observation.finish(now);
        client.linger(worker).await;
    }
}

/// Counts a request that was not read, with what went wrong, as one of method `_OTHER` without a route.
fn observe_unread(worker: &Worker, failure: Failure) -> Observation {
    let begin = Begin {
        route: RouteId::UNMATCHED,
        method: Method::Other,
        traffic: Traffic::User,
        at: measure::now(),
        trace: None,
        rpc: None,
    };
    let mut observation = Observation::begin(&worker.meter, begin);
    observation.fail(failure, Phase::Head);
    observation
}

/// Whether an unreadable head asks for JSON: a guess, for the form of the answer only.
fn wants_json(head: &[u8]) -> bool {
    let wanted = b"application/json";
    head.windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted))
}

/// Turns a connection away that is over the limit: an answer, without reading a request.
pub async fn turn_away(worker: Rc<Worker>, mut stream: Stream) {
    let mut observation = observe_unread(&worker, Failure::NoCapacity);
    let Some(answer) = Answer::to(Failure::NoCapacity) else { return };
    let bytes = answer.to_bytes(false, false, false, false);
    // A fresh socket's send buffer takes a few hundred bytes without waiting.
    if stream.write_all(&bytes).await.is_ok() {
        let now = measure::now();
        observation.answered(answer.status, now);
        observation.finish(now);
        let nobody = Peer { address: None, secure: false };
        Client::new(&worker, stream, nobody).linger(&worker).await;
    }
}
