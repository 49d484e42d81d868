//! A client's connection of HTTP/2: its streams are carried one by one, each by a task of its own, through the same steps as
//! in `service.rs` (`exchange.rs` has them in pieces). Framing, windows and header compression are the `h2` crate's.
//!
//! What a client can make a connection cost is bounded: streams, windows, heads, bytes that wait to be written, resets
//! before an answer, and silence. Frames that nothing comes of (PING, SETTINGS, empty DATA, CONTINUATION) are counted by
//! the crate, which ends a connection that sends too many.

use std::cell::Cell;
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
use crate::proxy::error::{Answer, Trouble};
use crate::proxy::exchange::{Done, Exchange};
use crate::proxy::front::{Front, H2Front};
use crate::proxy::grpc;
use crate::proxy::h1::Framing;
use crate::proxy::headers::{self, H2Request, Peer, RequestHead};
use crate::proxy::timer::Deadline;
use crate::proxy::worker::{Settings, Worker};
use crate::proxy::{tunnel, upgrade};
use crate::routes::Found;
use crate::transport::Stream;

/// What a stream may have on its way to the client before it stops reading from the backend.
const SEND_BUFFER: usize = 64 * 1024;
/// Flow-control window of a stream: what a client may send ahead of what the backend takes.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Flow-control window of a connection: a few streams at full speed.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Silence of a client with streams under way after which it is asked by PING whether it is still there. An event stream
/// may be silent for ever; a client that is gone must not hold it.
const PING_AFTER: Duration = Duration::from_secs(30);
/// Streams that a client may reset before their answer, as long as they are fewer than the others: a client that leaves
/// pages in a hurry does. More are an attack, which costs us a request each (CVE-2023-44487).
const RESETS: u32 = 200;

/// A socket of which the first bytes have been read already.
struct Rewound {
    front: Window,
    stream: Stream,
    life: Rc<Life>,
}

/// Signs of life on a connection.
#[derive(Debug, Default)]
struct Life {
    /// Bytes went either way.
    moved: Cell<bool>,
    /// Bytes came.
    heard: Cell<bool>,
    /// Streams that came.
    streams: Cell<u32>,
    /// Streams that were reset before their answer.
    resets: Cell<u32>,
}

impl Life {
    fn is_flooded(&self) -> bool {
        let resets = self.resets.get();
        resets > RESETS && resets > self.streams.get() / 2
    }
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if !self.front.is_empty() {
            let n = self.front.unread().len().min(buf.remaining());
            buf.put_slice(&self.front.unread()[..n]);
            self.front.consume(n);
            self.front.release();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.life.moved.set(true);
            self.life.heard.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl Rewound {
    fn note(&self, written: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.life.moved.set(true);
        }
        written
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(written)
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
        .max_header_list_size(u32::try_from(settings.limits.head_bytes).unwrap_or(u32::MAX))
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
                    if error.is_library() {
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
        if life.is_flooded() {
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
                    return Poll::Ready(());
                }
                asked = pinger.send_ping(Ping::opaque()).is_ok();
                silence.arm(timeouts.client_head);
                cx.waker().wake_by_ref();
            }
            let _armed = silence.expired(cx);
        }
        // Idle is a connection without streams on which nothing moves. One that was told to end has less time: a client
        // that does not answer, or does not read, would hold it for ever.
        if guard.is_busy() || life.moved.replace(false) {
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
            if !stream.is_committed() {
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
async fn carry(exchange: &mut Exchange<'_, '_>, begun: measure::Moment) -> Result<Done, Trouble> {
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
    let (obtained, since) = {
        let mut watch = |cx: &mut Context<'_>| front.interrupted(cx, worker, deadline);
        worker.pool.obtain(settings, deadline, begun, observation, &mut watch).await?
    };
    exchange.run(obtained, since).await
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
    if answer.failure == Failure::Shed {
        insert("retry-after", "1");
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
