//! HTTP/2 from clients, with prior knowledge. The connection is hyper's; each stream goes through the same steps as in
//! `service.rs` and is carried to the backend over HTTP/1.1. Interim responses are not relayed: hyper has no way to send
//! them over HTTP/2.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::labels::{CloseReason, ConnectionEnd, Failure, Method, Phase, RetryResult, Traffic};
use crate::measure::{self, Begin, ClientConnection, Moment, Observation, ResponseKind};
use crate::proxy::body::{Outbox, Piece, Source};
use crate::proxy::buffer::{Filled, LARGE, SMALL, Window};
use crate::proxy::error::{Answer, Stop, Trouble};
use crate::proxy::h1::{Framing, HeadScan, write_chunk_head, write_last_chunk};
use crate::proxy::headers::{self, H2Request, Peer, RequestHead, ResponseContext, ResponseHead, ResponseSink};
use crate::proxy::judge::Judge;
use crate::proxy::service::{judge_of, release, response_head};
use crate::proxy::timer::Deadline;
use crate::proxy::upstream::Connection;
use crate::proxy::worker::{Settings, Worker};
use crate::routes::Found;
use crate::transport::Stream as Socket;

/// What a stream may have on its way to the client before it stops reading from the backend.
const SEND_BUFFER: usize = 64 * 1024;
/// Flow-control window of a stream: what a client may send ahead of what the backend takes. Twice a read buffer.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Flow-control window of a connection: a few streams at full speed.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

tokio::task_local! {
    /// The patience with the client of the stream whose task runs.
    static PATIENCE: Rc<Patience>;
}

/// How long a stream's client may leave what it was handed. While its window is closed hyper does not ask the body for
/// more, so the body cannot see a deadline of its own: the stream's task looks at this one.
#[derive(Debug)]
struct Patience {
    deadline: Deadline,
    time: Duration,
    spent: Cell<bool>,
}

/// Spawns streams on the worker's own runtime.
#[derive(Clone, Debug)]
struct Local {
    worker: Rc<Worker>,
    time: Duration,
}

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        let deadline = self.worker.timers.slot();
        let patience = Rc::new(Patience { deadline, time: self.time, spent: Cell::new(false) });
        tokio::task::spawn_local(PATIENCE.scope(Rc::clone(&patience), async move {
            let mut future = std::pin::pin!(future);
            poll_fn(|cx| {
                if future.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if !patience.deadline.expired(cx) {
                    return Poll::Pending;
                }
                // To drop the stream is to reset it.
                patience.spent.set(true);
                Poll::Ready(())
            })
            .await;
        }));
    }
}

/// A socket of which the first bytes have been read already.
struct Rewound {
    front: Window,
    stream: Socket,
    /// Set whenever bytes went either way.
    moved: Rc<Cell<bool>>,
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
            self.moved.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl Rewound {
    fn note(&self, written: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.moved.set(true);
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
pub async fn serve(worker: &Rc<Worker>, stream: Socket, front: Window, peer: Peer, guard: &Rc<ClientConnection>) {
    let settings = worker.settings();
    let moved = Rc::new(Cell::new(true));
    let io = TokioIo::new(Rewound { front, stream, moved: Rc::clone(&moved) });
    let service = hyper::service::service_fn({
        let worker = Rc::clone(worker);
        let guard = Rc::clone(guard);
        move |request| {
            let (worker, guard) = (Rc::clone(&worker), Rc::clone(&guard));
            stream_service(worker, peer, guard, request)
        }
    });
    let mut builder =
        hyper::server::conn::http2::Builder::new(Local { worker: Rc::clone(worker), time: settings.timeouts.body });
    builder
        .max_concurrent_streams(settings.limits.streams)
        .max_header_list_size(u32::try_from(settings.limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .auto_date_header(false);
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let deadline = worker.timers.slot();
    deadline.arm(settings.timeouts.client_idle);
    let mut told = false;
    poll_fn(|cx| {
        if let Poll::Ready(_ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(());
        }
        if worker.is_cut() {
            guard.ends(ConnectionEnd::Drain);
            return Poll::Ready(());
        }
        // Idle is a connection without streams on which nothing moves. One that was told to end has less time: a client
        // that does not answer, or does not read, would hold it for ever.
        let timeouts = &settings.timeouts;
        if guard.is_busy() || moved.replace(false) {
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
            connection.as_mut().graceful_shutdown();
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

async fn stream_service(
    worker: Rc<Worker>,
    peer: Peer,
    guard: Rc<ClientConnection>,
    request: Request<Incoming>,
) -> Result<Response<StreamBody>, std::io::Error> {
    let settings = worker.settings();
    let busy = Busy::new(guard, settings.limits.streams);
    let begun = measure::now();
    let (parts, incoming) = request.into_parts();
    let mut outbox = Outbox::default();
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let asked = H2Request {
        method: parts.method.as_str().as_bytes(),
        authority: parts.uri.authority().map(|a| a.as_str().as_bytes()),
        target: target.as_bytes(),
        ended: incoming.is_end_stream(),
        fields: &parts.headers,
    };
    let context = settings.request_context(peer);
    let head = match headers::request_from_h2(&asked, &context, &mut outbox.bytes) {
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
            return Ok(own_answer(refused.answer(), false, false, observation, busy));
        }
    };
    let path = &target.as_bytes()[head.path.clone()];
    let traffic = if settings.is_probe(path) || head.probe_agent { Traffic::Probe } else { Traffic::User };
    let Found { route, unknown } = settings.routes.find(head.method, path);
    let unknown_path = unknown.then(|| path.to_vec());
    let mut observation = Observation::begin(
        &worker.meter,
        Begin { route, method: head.method, traffic, at: begun, trace: head.trace, rpc: None },
    );

    let deadline = worker.timers.slot();
    let upload = Upload::new(incoming, outbox, &head, settings.limits.request_body_bytes);
    let stream = Stream { worker: Rc::clone(&worker), settings, deadline, upload };
    match exchange(stream, &head, unknown_path, begun, &mut observation).await {
        Ok((response, exchange)) => {
            let relayed = Relayed { exchange, observation: Some(observation), _busy: busy };
            Ok(response.map(|()| StreamBody::Relayed(Box::new(relayed))))
        }
        Err(Trouble::Failed(failure, phase)) => {
            observation.fail(failure, phase);
            let to_head = head.method == Method::Head;
            match Answer::to(failure) {
                Some(answer) => Ok(own_answer(answer, head.accepts_json, to_head, observation, busy)),
                None => {
                    observation.finish(measure::now());
                    // There is no status for this: the stream is reset.
                    Err(std::io::ErrorKind::ConnectionAborted.into())
                }
            }
        }
        Err(Trouble::ClientLeft) => Err(std::io::ErrorKind::ConnectionAborted.into()),
    }
}

fn own_answer(
    answer: Answer,
    json: bool,
    to_head: bool,
    mut observation: Observation,
    busy: Busy,
) -> Response<StreamBody> {
    let (body, media) = answer.body(json);
    let now = measure::now();
    observation.answered(answer.status, now);
    observation.finish(now);
    drop(busy);
    let length = body.len();
    let body = if to_head { Bytes::new() } else { Bytes::from(body) };
    let mut response = Response::new(StreamBody::Own(body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let fields = response.headers_mut();
    fields.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(media));
    fields.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Ok(value) = HeaderValue::from_str(&answer.proxy_status()) {
        fields.insert("proxy-status", value);
    }
    if answer.failure == Failure::Shed {
        fields.insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(std::time::SystemTime::now())) {
        fields.insert(http::header::DATE, value);
    }
    response
}

/// What a stream needs until its response head is there.
struct Stream {
    worker: Rc<Worker>,
    settings: Rc<Settings>,
    deadline: Deadline,
    upload: Upload,
}

/// An exchange whose response head is there.
struct Exchange {
    stream: Stream,
    connection: Option<Box<Connection>>,
    source: Source,
    trailers: Vec<u8>,
    response: ResponseHead,
    kind: ResponseKind,
    judge: Option<Judge>,
    progress: u64,
    armed: Option<u64>,
}

async fn exchange(
    mut stream: Stream,
    head: &RequestHead,
    unknown_path: Option<Vec<u8>>,
    begun: Moment,
    observation: &mut Observation,
) -> Result<(Response<()>, Exchange), Trouble> {
    let settings = Rc::clone(&stream.settings);
    let worker = Rc::clone(&stream.worker);
    let limits = &settings.limits;
    if settings.sheds(&worker) {
        return Err(Trouble::Failed(Failure::Shed, Phase::Queue));
    }
    if let (Framing::Length(n), Some(limit)) = (head.framing, limits.request_body_bytes)
        && n > limit
    {
        return Err(Trouble::Failed(Failure::RequestTooLarge, Phase::Head));
    }
    // A client that leaves drops this future: hyper does that when the stream is reset or the connection ends.
    let (mut connection, obtained) = {
        let deadline = &stream.deadline;
        let mut watch = |cx: &mut Context<'_>| worker.stopped(cx, deadline);
        worker.pool.obtain(&settings.timeouts, deadline, begun, observation, &mut watch).await?
    };
    let len = match send_and_wait(&mut stream, &mut connection, obtained, observation).await? {
        Some(len) => len,
        // The pooled connection had been closed before the backend could see the request: once more, on a new one.
        None => {
            connection.close(CloseReason::Peer);
            stream.upload.rewind();
            let result = replay(&mut stream, observation).await;
            let outcome = if result.is_ok() { RetryResult::Success } else { RetryResult::Failure };
            worker.pool_gauges.replayed(outcome);
            let len;
            (connection, len) = result?;
            len
        }
    };
    let received = measure::now();
    let context = ResponseContext {
        to_head: head.method == Method::Head,
        http10: false,
        keep_alive: true,
        upgrade: false,
        max_fields: limits.headers,
        via: settings.via,
    };
    let mut response = Response::new(());
    let mut sink = Fields(&mut response);
    let parsed = headers::response(&connection.inbound.unread()[..len], &context, &mut sink)
        .map_err(|failure| Trouble::Failed(failure, Phase::Wait))?;
    if let Some(path) = unknown_path {
        observation.reroute(settings.routes.earned(&path, parsed.status));
    }
    let judge = judge_of(observation, &connection.inbound.unread()[..len], &parsed, &context);
    connection.inbound.consume(len);
    let kind = if parsed.event_stream { ResponseKind::EventStream } else { ResponseKind::Plain };
    observation.head(parsed.status, kind, received, measure::now());
    let source = Source::new(parsed.framing, limits.head_bytes, limits.headers);
    let mut exchange = Exchange {
        stream,
        connection: Some(connection),
        source,
        trailers: Vec::new(),
        response: parsed,
        kind,
        judge,
        progress: 0,
        armed: None,
    };
    if exchange.source.is_complete() {
        exchange.put_back();
    }
    Ok((response, exchange))
}

/// Sends the request again, on a new connection. Returns that and the length of the response head.
async fn replay(stream: &mut Stream, observation: &mut Observation) -> Result<(Box<Connection>, usize), Trouble> {
    let (worker, settings) = (Rc::clone(&stream.worker), Rc::clone(&stream.settings));
    let (mut connection, obtained) = {
        let deadline = &stream.deadline;
        let mut watch = |cx: &mut Context<'_>| worker.stopped(cx, deadline);
        worker.pool.obtain_new(&settings.timeouts, deadline, observation, &mut watch).await?
    };
    let len = send_and_wait(stream, &mut connection, obtained, observation).await?;
    Ok((connection, len.ok_or(Trouble::Failed(Failure::ResetBeforeHead, Phase::Send))?))
}

/// Sends the request and waits for the final response head. Returns its length, or `None` when the connection was a
/// pooled one, the backend has provably not seen the request, and all of it can be sent again.
async fn send_and_wait(
    stream: &mut Stream,
    connection: &mut Connection,
    obtained: Moment,
    observation: &mut Observation,
) -> Result<Option<usize>, Trouble> {
    let Stream { worker, settings, deadline, upload } = stream;
    let limits = &settings.limits;
    let mut scan = HeadScan::default();
    let mut head_written = false;
    let mut heard = false;
    let mut armed = None;
    poll_fn(|cx| {
        if upload.state == UploadState::Sending {
            upload.poll(cx, &mut connection.stream, observation)?;
            if upload.outbox.is_empty() && !head_written {
                head_written = true;
                observation.head_written(measure::now());
            }
            if upload.state == UploadState::Sent {
                observation.sent(obtained, measure::now());
            }
        }
        loop {
            heard |= !connection.inbound.is_empty();
            if !connection.inbound.is_empty()
                && let Some(len) = response_head(&mut scan, connection, limits.head_bytes)?
            {
                let bytes = &connection.inbound.unread()[..len];
                if bytes.get(8..10) != Some(b" 1") || bytes.get(10..12) == Some(b"01") {
                    return Poll::Ready(Ok(Some(len)));
                }
                connection.inbound.consume(len);
                scan = HeadScan::default();
                continue;
            }
            match connection.inbound.poll_fill(cx, &mut connection.stream, limits.head_bytes) {
                Poll::Pending => break,
                Poll::Ready(Ok(Filled::Bytes(_))) => {}
                Poll::Ready(Ok(Filled::Full)) => {
                    return Poll::Ready(Err(Trouble::Failed(Failure::ResponseTooLarge, Phase::Wait)));
                }
                Poll::Ready(end) => {
                    let at_end = matches!(end, Ok(Filled::Eof));
                    let whole = connection.reused && !heard && upload.replayable();
                    let written = upload.outbox.total;
                    if whole && (written == 0 || (at_end && connection.never_delivered(written))) {
                        return Poll::Ready(Ok(None));
                    }
                    return Poll::Ready(Err(Trouble::Failed(Failure::ResetBeforeHead, Phase::Wait)));
                }
            }
        }
        let sending = upload.state == UploadState::Sending;
        let waiting = (sending, sending && upload.wants_client, upload.progress);
        if armed != Some(waiting) {
            armed = Some(waiting);
            let timeouts = &settings.timeouts;
            deadline.arm(if waiting.1 { timeouts.client_body } else { timeouts.head });
        }
        let phase = if sending { Phase::Send } else { Phase::Wait };
        match worker.stopped(cx, deadline) {
            None => Poll::Pending,
            Some(Stop::Cut) => Poll::Ready(Err(Trouble::Failed(Failure::DrainDeadline, phase))),
            Some(_) if waiting.1 => Poll::Ready(Err(Trouble::Failed(Failure::ClientTimeout, phase))),
            Some(_) => Poll::Ready(Err(Trouble::Failed(Failure::HeadTimeout, phase))),
        }
    })
    .await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UploadState {
    Sending,
    Sent,
    /// The backend reads no more.
    Stopped,
}

/// A request on its way from the stream to the backend.
struct Upload {
    incoming: Incoming,
    outbox: Outbox,
    chunked: bool,
    /// Bytes that the declared length still asks for.
    left: Option<u64>,
    limit: u64,
    total: u64,
    ended: bool,
    state: UploadState,
    wants_client: bool,
    progress: u64,
}

impl Upload {
    fn new(incoming: Incoming, outbox: Outbox, head: &RequestHead, limit: Option<u64>) -> Upload {
        let left = match head.framing {
            Framing::Length(n) => Some(n),
            _ => None,
        };
        Upload {
            ended: incoming.is_end_stream(),
            incoming,
            outbox,
            chunked: head.framing == Framing::Chunked,
            left,
            limit: limit.unwrap_or(u64::MAX),
            total: 0,
            state: UploadState::Sending,
            wants_client: false,
            progress: 0,
        }
    }

    /// Whether all of the request is still in the outbox: it had no body.
    fn replayable(&self) -> bool {
        self.ended && self.total == 0 && !self.chunked
    }

    /// Begins anew, for another connection.
    fn rewind(&mut self) {
        self.outbox.rewind();
        self.state = UploadState::Sending;
    }

    fn poll(&mut self, cx: &mut Context<'_>, to: &mut Socket, observation: &Observation) -> Result<(), Trouble> {
        loop {
            self.wants_client = false;
            let before = self.outbox.total;
            let flushed = self.outbox.poll_flush(cx, to);
            self.progress += u64::from(self.outbox.total > before);
            match flushed {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => {
                    self.state = UploadState::Stopped;
                    return Ok(());
                }
                Poll::Ready(Ok(())) => {}
            }
            if self.ended {
                self.state = UploadState::Sent;
                return Ok(());
            }
            self.wants_client = true;
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Err(_))) => return Err(Trouble::ClientLeft),
                Poll::Ready(Some(Ok(frame))) => self.take(frame, observation)?,
                Poll::Ready(None) => self.end(&[])?,
            }
            self.progress += 1;
        }
    }

    fn take(&mut self, frame: Frame<Bytes>, observation: &Observation) -> Result<(), Trouble> {
        let out = &mut self.outbox;
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(mut data) => {
                let n = data.len() as u64;
                self.total += n;
                if self.total > self.limit {
                    return Err(Trouble::Failed(Failure::RequestTooLarge, Phase::Send));
                }
                if let Some(left) = &mut self.left {
                    *left = left.checked_sub(n).ok_or(Trouble::Failed(Failure::BadRequest, Phase::Send))?;
                }
                observation.request_bytes(n);
                out.reset();
                if self.chunked {
                    write_chunk_head(&mut out.bytes, data.len());
                }
                while data.has_remaining() {
                    out.bytes.extend_from_slice(data.chunk());
                    data.advance(data.chunk().len());
                }
                if self.chunked {
                    out.bytes.extend_from_slice(b"\r\n");
                }
            }
            Err(other) => {
                if let Ok(trailers) = other.into_trailers() {
                    let mut section = Vec::new();
                    for (name, value) in &trailers {
                        section.extend_from_slice(name.as_str().as_bytes());
                        section.extend_from_slice(b": ");
                        section.extend_from_slice(value.as_bytes());
                        section.extend_from_slice(b"\r\n");
                    }
                    let mut allowed = Vec::new();
                    headers::trailers(&section, trailers.len(), &mut allowed)
                        .map_err(|_bad| Trouble::Failed(Failure::BadRequest, Phase::Send))?;
                    self.end(&allowed)?;
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, trailers: &[u8]) -> Result<(), Trouble> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(Trouble::Failed(Failure::BadRequest, Phase::Send));
        }
        self.ended = true;
        self.outbox.reset();
        if self.chunked {
            write_last_chunk(&mut self.outbox.bytes, trailers);
        }
        Ok(())
    }
}

/// The fields of a response for HTTP/2.
struct Fields<'a>(&'a mut Response<()>);

impl ResponseSink for Fields<'_> {
    fn status(&mut self, status: u16, _reason: &[u8]) {
        *self.0.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        // httparse has let only tokens and visible bytes through, which are what these types accept.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            self.0.headers_mut().append(name, value);
        }
    }
}

impl Exchange {
    fn put_back(&mut self) {
        if let Some(connection) = self.connection.take() {
            let whole = self.stream.upload.state == UploadState::Sent;
            release(&self.stream.worker, connection, &self.response, whole);
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        observation: &Observation,
    ) -> Poll<Option<Result<Frame<Bytes>, Trouble>>> {
        let Exchange { stream, connection, source, trailers, kind, judge, progress, armed, .. } = self;
        let Some(backend) = connection.as_mut() else { return Poll::Ready(None) };
        if stream.upload.state == UploadState::Sending
            && let Err(trouble) = stream.upload.poll(cx, &mut backend.stream, observation)
        {
            return Poll::Ready(Some(Err(trouble)));
        }
        loop {
            match source.peek(&mut backend.inbound, trailers) {
                Err(_malformed) => {
                    return Poll::Ready(Some(Err(Trouble::Failed(Failure::ProtocolError, Phase::Body))));
                }
                Ok(Piece::Bytes(n)) => {
                    let data = Bytes::copy_from_slice(&backend.inbound.unread()[..n]);
                    source.take(&mut backend.inbound, n);
                    observation.response_bytes(n as u64);
                    if let Some(judge) = judge {
                        judge.body(&data);
                    }
                    *progress += 1;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Piece::End) => {
                    let mut map = HeaderMap::new();
                    let section = std::mem::take(trailers);
                    let _checked = headers::for_each_trailer(&section, usize::from(u8::MAX), |name, value| {
                        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                            map.append(name, value);
                        }
                    });
                    self.put_back();
                    return Poll::Ready(if map.is_empty() { None } else { Some(Ok(Frame::trailers(map))) });
                }
                Ok(Piece::NeedsMore) => {}
            }
            let capacity = if *progress > 4 { LARGE } else { SMALL };
            match backend.inbound.poll_fill(cx, &mut backend.stream, capacity) {
                Poll::Ready(Ok(Filled::Bytes(_) | Filled::Full)) => {}
                Poll::Ready(Ok(Filled::Eof)) if source.ends_with_connection() => {
                    self.put_back();
                    return Poll::Ready(None);
                }
                Poll::Ready(_) => {
                    return Poll::Ready(Some(Err(Trouble::Failed(Failure::ResetAfterHead, Phase::Body))));
                }
                Poll::Pending => break,
            }
        }
        let moved = *progress + stream.upload.progress;
        if *armed != Some(moved) {
            *armed = Some(moved);
            match kind {
                ResponseKind::EventStream => stream.deadline.clear(),
                ResponseKind::Plain => stream.deadline.arm(stream.settings.timeouts.body),
            }
        }
        match stream.worker.stopped(cx, &stream.deadline) {
            None => Poll::Pending,
            Some(Stop::Cut) => Poll::Ready(Some(Err(Trouble::Failed(Failure::DrainDeadline, Phase::Body)))),
            Some(_) => Poll::Ready(Some(Err(Trouble::Failed(Failure::BodyTimeout, Phase::Body)))),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close(CloseReason::Error);
        }
    }
}

/// A response body that is relayed, with the observation that its end finishes.
struct Relayed {
    exchange: Exchange,
    /// `None` once it has been told of the end.
    observation: Option<Observation>,
    _busy: Busy,
}

impl Drop for Relayed {
    fn drop(&mut self) {
        let Some(observation) = &mut self.observation else { return };
        // hyper drops a body before its end when the client has left, but also when we end the stream or everything.
        if PATIENCE.try_with(|patience| patience.spent.get()).unwrap_or(false) {
            observation.fail(Failure::ClientTimeout, Phase::Body);
        } else if self.exchange.stream.worker.is_cut() {
            observation.fail(Failure::DrainDeadline, Phase::Body);
        }
    }
}

/// The answer has ended completely.
fn finish(mut observation: Observation, judge: Option<Judge>) {
    observation.ends(measure::now());
    let Some(judge) = judge else { return };
    let takes_time = judge.takes_time();
    let mut judge_it = move || {
        if let Some((rule, phase)) = judge.verdict() {
            observation.implicit_error(rule, phase);
        }
    };
    if takes_time {
        // The last frame is not on its way yet, and does not wait for this.
        tokio::task::spawn_local(async move { judge_it() });
    } else {
        judge_it();
    }
}

/// The client has been handed something: from now on it must come back for more.
fn wait_for_client() {
    let _outside_a_stream = PATIENCE.try_with(|patience| patience.deadline.arm(patience.time));
}

/// A response body.
enum StreamBody {
    /// The backend's.
    Relayed(Box<Relayed>),
    /// The sidecar's own.
    Own(Bytes),
    /// It ended.
    Ended,
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let _outside_a_stream = PATIENCE.try_with(|patience| patience.deadline.clear());
        let frame = match &mut *self {
            StreamBody::Ended => return Poll::Ready(None),
            StreamBody::Own(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = StreamBody::Ended;
                wait_for_client();
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            StreamBody::Relayed(relayed) => {
                let Relayed { exchange, observation, .. } = &mut **relayed;
                let Some(observation) = observation else { return Poll::Ready(None) };
                ready!(exchange.poll_frame(cx, observation))
            }
        };
        let ended = match &frame {
            None => true,
            Some(Err(_)) => true,
            Some(Ok(frame)) => frame.is_trailers() || self.nothing_follows(),
        };
        if ended
            && let StreamBody::Relayed(mut relayed) = std::mem::replace(&mut *self, StreamBody::Ended)
            && let Some(mut observation) = relayed.observation.take()
        {
            match &frame {
                Some(Err(Trouble::Failed(failure, phase))) => {
                    observation.fail(*failure, *phase);
                    observation.finish(measure::now());
                }
                // Dropped as it was born: the client left.
                Some(Err(Trouble::ClientLeft)) => {}
                _ => finish(observation, relayed.exchange.judge.take()),
            }
        }
        if matches!(frame, Some(Ok(_))) {
            wait_for_client();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|_trouble| std::io::ErrorKind::ConnectionAborted.into())))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            StreamBody::Relayed(_) => false,
            StreamBody::Own(bytes) => bytes.is_empty(),
            StreamBody::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            StreamBody::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            StreamBody::Ended => SizeHint::with_exact(0),
            StreamBody::Relayed(_) => SizeHint::default(),
        }
    }
}

impl StreamBody {
    /// Whether the last byte has been handed on, so that hyper can end the stream with it.
    fn nothing_follows(&mut self) -> bool {
        match self {
            StreamBody::Relayed(relayed) => {
                let exchange = &mut relayed.exchange;
                let done = exchange.source.is_complete() && exchange.trailers.is_empty();
                if done {
                    exchange.put_back();
                }
                done
            }
            _ => false,
        }
    }
}
