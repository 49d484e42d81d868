//! A client's connection of HTTP/2: its streams are carried one by one, each by a task of its own, through the same steps as
//! in `service.rs` (`exchange.rs` has them in pieces). Framing, windows and header compression are the `h2` crate's.
//!
//! What a client can make a connection cost is bounded: streams, windows, heads, bytes that wait to be written, resets
//! before an answer, and silence. Frames that nothing comes of (PING, SETTINGS, empty DATA, CONTINUATION) are counted by
//! the crate, which ends a connection that sends too many.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Ping, Reason, RecvStream};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::labels::{ConnectionEnd, Failure, Method, Phase, RpcStatus, Traffic};
use crate::measure::{self, Begin, ClientConnection, Observation};
use crate::proxy::body::Outbox;
use crate::proxy::buffer::Window;
use crate::proxy::connection::H2_PREFACE;
use crate::proxy::error::{Answer, Trouble};
use crate::proxy::exchange::{Broken, Done, Exchange, Piece};
use crate::proxy::front::{Front, H2Front};
use crate::proxy::grpc;
use crate::proxy::h1::Framing;
use crate::proxy::headers::{self, H2Request, Peer, RequestHead};
use crate::proxy::timer::{Deadline, Timers};
use crate::proxy::worker::{Settings, Worker};
use crate::proxy::{tunnel, upgrade};
use crate::routes::Found;
use crate::transport::Stream;

/// What a stream may have on its way to the client before it stops reading from the backend.
const SEND_BUFFER: usize = 32 * 1024;
/// Flow-control window of a stream: what a client may send ahead of what the backend takes.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Flow-control window of a connection: 64 streams whose backend does not read must not stop the others.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Silence of a client with streams under way after which it is asked by PING whether it is still there. An event stream
/// may be silent for ever; a client that is gone must not hold it.
const PING_AFTER: Duration = Duration::from_secs(30);
/// Streams that a client may reset as soon as they are there, as long as they are fewer than the others: a client that
/// leaves pages in a hurry does. More are an attack, which costs us a request each (CVE-2023-44487).
const RESETS: u32 = 200;
/// So soon: who waits longer has lost patience with a slow backend.
const HASTE_NANOS: u64 = 1_000_000_000;
/// Frames without a stream's sake (PING, SETTINGS, PRIORITY, unknown ones) that may come in a [`FLOOD_WINDOW`] beside four
/// for each that has one. Clients of gRPC send a PING for a frame of data at most.
const VAIN_FRAMES: u32 = 1000;
/// The time in which they are counted.
const FLOOD_WINDOW: Duration = Duration::from_secs(10);

/// A socket of which the first bytes have been read already.
struct Rewound {
    front: Window,
    stream: Stream,
    life: Rc<Life>,
}

/// Signs of life on a connection.
#[derive(Debug, Default)]
struct Life {
    /// Bytes came.
    heard: Cell<bool>,
    /// Streams that came.
    streams: Cell<u32>,
    /// Streams that were reset as soon as they were there.
    resets: Cell<u32>,
    /// Frames since the window began.
    frames: RefCell<Frames>,
}

/// Counts what a client sends, frame by frame, in any cut.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes of the preface that have been read.
    preface: usize,
    /// The frame head that is being read.
    head: [u8; 9],
    have: usize,
    /// Bytes of payload still to come.
    payload: usize,
    useful: u32,
    vain: u32,
    /// The tick at which counting began.
    since: u64,
    /// The first frame was none of SETTINGS.
    rude: bool,
    first: bool,
}

impl Frames {
    fn read(&mut self, mut bytes: &[u8]) {
        let skipped = bytes.len().min(H2_PREFACE.len() - self.preface);
        self.preface += skipped;
        bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = bytes.len().min(self.payload);
                self.payload -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = bytes.len().min(self.head.len() - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == self.head.len() {
                self.have = 0;
                self.payload =
                    usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2]);
                // DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, CONTINUATION serve a stream, or are counted elsewhere.
                match self.head[3] {
                    0 | 1 | 3 | 8 | 9 => self.useful = self.useful.saturating_add(1),
                    _ => self.vain = self.vain.saturating_add(1),
                }
                // RFC 9113, section 3.4.
                self.rude |= !self.first && self.head[3] != 4;
                self.first = true;
            }
        }
    }

    fn is_flood(&mut self, now: u64) -> bool {
        if now > self.since + Timers::ticks(FLOOD_WINDOW) {
            (self.useful, self.vain, self.since) = (0, 0, now);
        }
        self.vain > VAIN_FRAMES.saturating_add(self.useful.saturating_mul(4))
    }
}

impl Life {
    fn is_flooded(&self) -> bool {
        let resets = self.resets.get();
        resets > RESETS && resets > self.streams.get() / 2
    }

    fn note(&self, read: &[u8]) -> std::io::Result<()> {
        let mut frames = self.frames.borrow_mut();
        frames.read(read);
        if frames.rude { Err(std::io::ErrorKind::InvalidData.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        if !self.front.is_empty() {
            let n = self.front.unread().len().min(buf.remaining());
            buf.put_slice(&self.front.unread()[..n]);
            let noted = self.life.note(&self.front.unread()[..n]);
            self.front.consume(n);
            self.front.release();
            return Poll::Ready(noted);
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.life.heard.set(true);
            return Poll::Ready(self.life.note(&buf.filled()[before..]));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Serves an HTTP/2 connection until it ends.
pub async fn serve(worker: &Rc<Worker>, stream: Stream, front: Window, peer: Peer, guard: &Rc<ClientConnection>) {
    let settings = worker.settings();
    let timeouts = &settings.timeouts;
    let life = Rc::new(Life::default());
    let io = Rewound { front, stream, life: Rc::clone(&life) };
    let deadline = worker.timers.slot();
    deadline.arm(timeouts.client_head);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(settings.limits.streams)
        // What is a little over the limit is read, so that it can be counted and answered as over HTTP/1.1.
        .max_header_list_size(u32::try_from(settings.limits.head_bytes * 2).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .enable_connect_protocol();
    let mut handshake = pin!(builder.handshake::<_, Bytes>(io));
    let begun = poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result.ok()),
        Poll::Pending if worker.stopped(cx, &deadline).is_some() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    let Some(mut connection) = begun.await else { return guard.ends(ConnectionEnd::Proxy) };
    let mut pinger = connection.ping_pong();
    let silence = worker.timers.slot();
    let mut asked = false;
    let mut told = false;
    let mut seen = 0;
    deadline.arm(timeouts.client_idle);
    silence.arm(PING_AFTER);
    poll_fn(|cx| {
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    life.streams.set(life.streams.get() + 1);
                    let (worker, guard, life) = (Rc::clone(worker), Rc::clone(guard), Rc::clone(&life));
                    tokio::task::spawn_local(stream_task(worker, peer, guard, life, request, respond));
                }
                Poll::Ready(Some(Err(error))) => {
                    let no_settings = |error: &std::io::Error| error.kind() == std::io::ErrorKind::InvalidData;
                    if error.is_library() || error.get_io().is_some_and(no_settings) {
                        let flood = error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
                        guard.ends(if flood { ConnectionEnd::Flood } else { ConnectionEnd::Proxy });
                    }
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        if worker.is_cut() {
            guard.ends(ConnectionEnd::Drain);
            return Poll::Ready(());
        }
        if life.is_flooded() || life.frames.borrow_mut().is_flood(worker.timers.now()) {
            guard.ends(ConnectionEnd::Flood);
            connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            // Once more, to write it.
            let _closed = connection.poll_closed(cx);
            return Poll::Ready(());
        }
        if let Some(pinger) = &mut pinger {
            if asked && pinger.poll_pong(cx).is_ready() {
                asked = false;
            }
            if life.heard.replace(false) || !guard.is_busy() {
                silence.arm(PING_AFTER);
            } else if silence.expired(cx) {
                if asked {
                    guard.ends(ConnectionEnd::Idle);
                    return Poll::Ready(());
                }
                asked = pinger.send_ping(Ping::opaque()).is_ok();
                silence.arm(timeouts.client_head);
                cx.waker().wake_by_ref();
            }
            let _armed = silence.expired(cx);
        }
        // Idle is a connection without streams, whatever else comes on it: heads that drip in, or questions. One that was
        // told to end has less time: a client that does not answer, or does not read, would hold it for ever.
        if guard.is_busy() || life.streams.get() != seen {
            seen = life.streams.get();
            deadline.arm(if told { timeouts.client_head } else { timeouts.client_idle });
        }
        let expired = deadline.expired(cx);
        if expired && told {
            return Poll::Ready(());
        }
        if expired || (worker.is_draining() && !told) {
            told = true;
            guard.ends(if worker.is_draining() { ConnectionEnd::Drain } else { ConnectionEnd::Idle });
            // GOAWAY; streams in flight end first.
            connection.graceful_shutdown();
            deadline.arm(timeouts.client_head);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}

/// Counts a stream on its connection while it lives.
struct Busy(Rc<ClientConnection>);

impl Busy {
    fn new(guard: Rc<ClientConnection>, limit: u32) -> Busy {
        guard.busy_of(limit);
        Busy(guard)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.done();
    }
}

/// One stream, from its head to its end.
async fn stream_task(
    worker: Rc<Worker>,
    peer: Peer,
    guard: Rc<ClientConnection>,
    life: Rc<Life>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let settings = worker.settings();
    let _busy = Busy::new(guard, settings.limits.streams);
    let begun = measure::now();
    let (parts, body) = request.into_parts();
    let mut outbox = Outbox::default();
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let asked = H2Request {
        method: parts.method.as_str().as_bytes(),
        protocol: protocol.map(|protocol| protocol.as_str().as_bytes()),
        authority: parts.uri.authority().map(|authority| authority.as_str().as_bytes()),
        target: target.as_bytes(),
        ended: body.is_end_stream(),
        fields: &parts.headers,
    };
    let key = if protocol.is_some() { upgrade::websocket_key() } else { String::new() };
    let context = settings.request_context(peer);
    let read = headers::request_from_h2(&asked, key.as_bytes(), &context, &mut outbox.bytes);
    let mut front = Front::H2(H2Front::new(respond, body));
    let head = match read {
        Ok(head) => head,
        Err(refused) => {
            let begin = Begin {
                route: crate::labels::RouteId::UNMATCHED,
                method: Method::Other,
                traffic: Traffic::User,
                at: begun,
                trace: None,
                rpc: None,
            };
            let mut observation = Observation::begin(&worker.meter, begin);
            observation.fail(refused.failure, Phase::Head);
            return answer(&mut front, &refused.answer(), None, observation);
        }
    };
    let path = &target.as_bytes()[head.path.clone()];
    let traffic = if settings.is_probe(path) || head.probe_agent { Traffic::Probe } else { Traffic::User };
    // An extended CONNECT asks for what a GET with `Upgrade` asks for.
    let asked_as = if protocol.is_some() { Method::Get } else { head.method };
    let Found { route, unknown } = settings.routes.find(asked_as, path);
    let begin = Begin { route, method: head.method, traffic, at: begun, trace: head.trace, rpc: head.rpc };
    let mut observation = Observation::begin(&worker.meter, begin);
    if head.last_hop {
        return answer_options(&mut front, observation);
    }
    let deadline = worker.timers.slot();
    let carried = {
        let mut exchange = Exchange {
            worker: &worker,
            settings: &settings,
            head: &head,
            unknown_path: if unknown { path } else { &[] },
            front: &mut front,
            outbox: &mut outbox,
            deadline: &deadline,
            observation: &mut observation,
        };
        carry(&mut exchange, begun).await
    };
    let trouble = match carried {
        Ok(Done::Finished(_, at)) => return observation.finish(at),
        Ok(Done::Tunnel(back, protocol, received, handed)) => {
            observation.upgraded(protocol, received, handed);
            front.becomes_tunnel();
            tunnel::carry(&worker, &mut front, back, &mut outbox, protocol, &deadline).await;
            return;
        }
        Err(trouble) => trouble,
    };
    let Front::H2(stream) = &mut front else { return };
    match trouble {
        // The connection is cut as a whole, and its streams see it end.
        Trouble::ClientLeft if worker.is_cut() => observation.fail(Failure::DrainDeadline, Phase::Body),
        // Dropped as it was born: the client left.
        Trouble::ClientLeft => {
            if !stream.is_committed() && measure::now().nanos_since(begun) < HASTE_NANOS {
                life.resets.set(life.resets.get() + 1);
            }
            stream.reset(Reason::CANCEL);
        }
        Trouble::Failed(failure, phase) => {
            observation.fail(failure, phase);
            match Answer::to(failure).filter(|_| !stream.is_committed()) {
                Some(made) => answer(&mut front, &made, Some(&head), observation),
                None => {
                    observation.finish(measure::now());
                    // To reset a stream is to forget what of it has not been written, the counted status among it: its
                    // connection, which was woken to write that, goes first.
                    tokio::task::yield_now().await;
                    // There is no status for this.
                    stream.reset(if failure == Failure::ClientTimeout {
                        Reason::CANCEL
                    } else {
                        Reason::INTERNAL_ERROR
                    });
                }
            }
        }
    }
}

/// Admits the request, obtains what it is sent on, and carries it.
async fn carry(exchange: &mut Exchange<'_, '_>, mut begun: measure::Moment) -> Result<Done, Trouble> {
    let Exchange { worker, settings, head, front, deadline, observation, .. } = exchange;
    let (worker, settings, deadline): (&Worker, &Settings, &Deadline) = (worker, settings, deadline);
    if settings.sheds(worker) {
        return Err(Trouble::Failed(Failure::Shed, Phase::Queue));
    }
    if let (Framing::Length(n), Some(limit)) = (head.framing, settings.limits.request_body_bytes)
        && n > limit
    {
        return Err(Trouble::Failed(Failure::RequestTooLarge, Phase::Head));
    }
    if head.framing == Framing::Length(0) {
        let asked = measure::now();
        no_content(front, worker, deadline, settings.timeouts.client_body).await?;
        begun = measure::now();
        observation.waited_for_client(begun.nanos_since(asked));
    }
    let (obtained, since) = {
        let mut watch = |cx: &mut Context<'_>| front.interrupted(cx, worker, deadline);
        worker.pool.obtain(settings, deadline, begun, observation, &mut watch).await?
    };
    exchange.run(obtained, since).await
}

/// Waits for the end of a request that says it has no content: the backend gets its end with its head, and must not have
/// got it when content comes all the same (RFC 9113, section 8.1.1).
async fn no_content(
    front: &mut Front<'_>,
    worker: &Worker,
    deadline: &Deadline,
    patience: Duration,
) -> Result<(), Trouble> {
    deadline.arm(patience);
    poll_fn(|cx| match front.poll_piece(cx) {
        Poll::Ready(Ok(Piece::End(_))) => Poll::Ready(Ok(())),
        Poll::Ready(Ok(Piece::Data(_)) | Err(Broken::Malformed)) => {
            Poll::Ready(Err(Trouble::Failed(Failure::BadRequest, Phase::Send)))
        }
        Poll::Ready(Err(Broken::Gone)) => Poll::Ready(Err(Trouble::ClientLeft)),
        Poll::Pending => match worker.stopped(cx, deadline) {
            None => Poll::Pending,
            Some(stop) => Poll::Ready(Err(stop.or_deadline(Failure::ClientTimeout, Phase::Send))),
        },
    })
    .await
}

/// Answers an OPTIONS that may go no further: somebody is here.
fn answer_options(front: &mut Front<'_>, mut observation: Observation) {
    let Front::H2(front) = front else { return };
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let mut response = Response::new(());
    response.headers_mut().extend(HeaderValue::try_from(date).map(|date| (http::header::DATE, date)));
    front.answer(response, Bytes::new());
    let now = measure::now();
    observation.answered(200, now);
    observation.finish(now);
}

/// Answers in the sidecar's own name. A call of gRPC gets its status, too: its client looks for that first.
fn answer(front: &mut Front<'_>, answer: &Answer, head: Option<&RequestHead>, mut observation: Observation) {
    let Front::H2(front) = front else { return };
    let json = head.is_some_and(|head| head.accepts_json);
    let rpc = head.is_some_and(|head| head.rpc.is_some());
    let (body, media) = answer.body(json);
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let fields = response.headers_mut();
    let mut insert = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.insert(name, value);
        }
    };
    insert("proxy-status", &answer.proxy_status());
    insert("date", &httpdate::fmt_http_date(std::time::SystemTime::now()));
    match (answer.failure, answer.status) {
        (Failure::Shed, _) => insert("retry-after", "1"),
        (_, 405) => insert("allow", "OPTIONS"),
        _ => {}
    }
    let body = if rpc {
        let mut message = Vec::new();
        grpc::write_message(answer.why, &mut message);
        insert("content-type", "application/grpc");
        insert("grpc-status", &RpcStatus::from_failure(answer.failure).code().to_string());
        insert("grpc-message", &String::from_utf8_lossy(&message));
        String::new()
    } else {
        insert("content-type", media);
        insert("content-length", &body.len().to_string());
        body
    };
    let to_head = head.is_some_and(|head| head.method == Method::Head);
    front.answer(response, if to_head { Bytes::new() } else { Bytes::from(body) });
    let now = measure::now();
    observation.answered(answer.status, now);
    observation.finish(now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], &vec![6; payload]].concat()
    }

    #[test]
    fn a_ping_for_each_frame_of_data_is_no_flood_and_pings_alone_are() {
        let mut frames = Frames::default();
        frames.read(H2_PREFACE);
        frames.read(&frame(4, 0));
        for _ in 0..100_000 {
            frames.read(&frame(0, 3));
            frames.read(&frame(6, 8));
            assert!(!frames.is_flood(0) && !frames.rude);
        }
        let mut frames = Frames::default();
        frames.read(H2_PREFACE);
        for _ in 0..=VAIN_FRAMES {
            assert!(!frames.is_flood(0));
            frames.read(&frame(6, 8));
        }
        assert!(frames.is_flood(0) && frames.rude);
        assert!(!frames.is_flood(1 + Timers::ticks(FLOOD_WINDOW)), "the next window begins anew");
    }

    proptest! {
        #[test]
        fn frames_are_counted_in_any_cut(kinds in prop::collection::vec((0u8..12, 0usize..40), 1..30), cut in 1usize..50) {
            let mut wire = H2_PREFACE.to_vec();
            kinds.iter().for_each(|(kind, payload)| wire.extend(frame(*kind, *payload)));
            let mut frames = Frames::default();
            wire.chunks(cut).for_each(|piece| frames.read(piece));
            let useful = kinds.iter().filter(|(kind, _)| matches!(kind, 0 | 1 | 3 | 8 | 9)).count();
            prop_assert_eq!((frames.useful as usize, frames.vain as usize), (useful, kinds.len() - useful));
            prop_assert_eq!(frames.rude, kinds[0].0 != 4);
        }
    }
}
