//! The connections of the admin port: HTTP/1.1, few, and none of them slow for long.
//!
//! A connection is always in one of three phases, and each has one deadline: waiting for a request, receiving its head,
//! sending the answer. (Between the last two a page is made and may wait for the backend; that time is not
//! the peer's.) [`Paced`] sees the phases go by in the bytes, so a peer that lets one byte through now and then wins no
//! time.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::guard::Pace;
use super::{Admin, Ends, LIVE, TEXT, fields};
use crate::descriptors::{self, Reserve};
use crate::transport::Stream;

/// What a connection that is one too many is told.
const BUSY: &str = "too many admin connections\n";

/// What a plain request to a port that speaks TLS is told.
const PLAIN: &str = "plain HTTP was sent to a port that speaks TLS; ask with https://\n";

/// Bytes of a request head. A scraper sends under 1 KiB; 16 KiB leave room for the cookies of a browser whose other
/// pages live on the same host name, and 64 connections cannot hold more than 1 MiB.
const HEAD_BYTES: usize = 16 * 1024;

/// Pause after accept failed and the reserve is used up: without it the loop would spin, and 50 ms are nothing to
/// somebody who scrapes.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Descriptors that are kept for the time when the process has no others: a scraper, a kubelet, a person with a browser,
/// and one that hangs.
const RESERVE: usize = 8;

/// Bytes that are read of the request of one connection too many. Probes and health checks send a tenth.
const REFUSED_HEAD_BYTES: usize = 2048;

/// How long one connection too many may take to send its request before it is told so.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// How long answers that are being sent may go on once the server was told to stop. A page on the way to a healthy
/// scraper is there within milliseconds.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Bounds of the admin port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; above it 503, except for `/livez` and `/readyz`: who holds all connections must not make this
    /// look dead. As many again may be waiting for such an answer; the one that waited longest makes room for the next.
    pub connections: usize,
    /// From the first byte of a request (or the accept) to the end of its head.
    pub head: Duration,
    /// A kept connection without a request.
    pub idle: Duration,
    /// From the first byte of an answer to the last one taken by the kernel.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // Two Prometheus, a kubelet, a handful of browsers with six connections each: 64 is generous, and 64 slow
            // readers of a 2 MB page still hold no more than 128 MB for 30 s.
            connections: 64,
            // A head fits one packet; 5 s are two retransmissions and patience.
            head: Duration::from_secs(5),
            // Twice the usual scrape interval of 15 s, so that such a scraper keeps its connection.
            idle: Duration::from_secs(30),
            // Prometheus gives up after 10 s by default; three times that suits slower links.
            write: Duration::from_secs(30),
        }
    }
}

/// Serves until `shutdown` is true or its sender is gone; then accepts nothing more, lets answers that are on their way
/// arrive (for one second), and returns.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, shutdown: watch::Receiver<bool>) {
    serve_with(listener, admin, shutdown, Limits::default()).await;
}

/// [`serve`] with other bounds.
pub async fn serve_with(listener: TcpListener, admin: Arc<Admin>, shutdown: watch::Receiver<bool>, limits: Limits) {
    let mut connections = JoinSet::new();
    let mut refusals = JoinSet::new();
    let mut refused = VecDeque::new();
    let mut stop = shutdown.clone();
    let mut reserve = Reserve::new(RESERVE);
    let failures = Pace::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((socket, peer)) => {
                // Those that ended but were not joined yet do not count.
                while connections.try_join_next().is_some() || refusals.try_join_next().is_some() {}
                reserve.refill();
                // Without an address of our own it has ended already.
                let Ok(local) = socket.local_addr() else { continue };
                let ends = Ends { local, peer };
                if connections.len() < limits.connections {
                    let served = connection(socket, ends, Arc::clone(&admin), shutdown.clone(), limits);
                    connections.spawn(served);
                } else {
                    refused.push_back(refusals.spawn(refuse(socket, Arc::clone(&admin))));
                    if refused.len() > limits.connections {
                        // Mostly it has ended long ago.
                        refused.pop_front().iter().for_each(AbortHandle::abort);
                    }
                }
            }
            Err(error) => {
                if let Some(unlogged) = failures.take() {
                    tracing::warn!(event = "admin_accept_failed", %error, unlogged);
                }
                if !(descriptors::ran_out(&error) && reserve.release()) {
                    sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    // What is left when the time is over is cut when the set is dropped.
    let _ = timeout(STOP_PATIENCE, all_ended).await;
}

/// What HTTP is spoken over.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Transport for S {}

/// What HTTP is spoken over at a socket that was accepted: itself, or TLS. A handshake has as long as a head.
///
/// # Errors
/// When the handshake fails, or takes too long.
async fn open(socket: TcpStream, admin: &Admin, patience: Duration) -> io::Result<Box<dyn Transport>> {
    // A page is written in few large pieces; waiting to fill packets would only delay its last one.
    let _ = socket.set_nodelay(true);
    let Some(acceptor) = &admin.tls else { return Ok(Box::new(socket)) };
    let handshake = async {
        let mut first = [0];
        // No record of TLS begins with a letter, and every method does.
        if socket.peek(&mut first).await? == 1 && first[0].is_ascii_alphabetic() {
            socket.readable().await?;
            let mut head = [0; REFUSED_HEAD_BYTES];
            // Closing with unread bytes would reset the connection, and the reset may overtake the answer.
            let _ = socket.try_read(&mut head);
            let answer = format!(
                "HTTP/1.1 400 Bad Request\r\nContent-Type: {TEXT}\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n{PLAIN}",
                fields::lines(),
                PLAIN.len()
            );
            let _ = socket.try_write(answer.as_bytes());
            return Err(io::ErrorKind::InvalidData.into());
        }
        match acceptor.accept(Stream::Tcp(socket)).await {
            Ok((stream, _)) => Ok(Box::new(stream) as Box<dyn Transport>),
            Err((error, _)) => {
                tracing::debug!(event = "tls_handshake_failed", side = "admin", %error);
                Err(error)
            }
        }
    };
    timeout(patience, handshake).await?
}

/// Answers whether this is alive and ready, and says to anybody else why there is nothing else. What was asked is read
/// away first: closing with unread bytes would reset the connection, and the reset may overtake the answer.
async fn refuse(socket: TcpStream, admin: Arc<Admin>) {
    let exchange = async {
        let mut stream = open(socket, &admin, REFUSAL_PATIENCE).await?;
        let mut head = [0; REFUSED_HEAD_BYTES];
        let mut length = 0;
        let reading = async {
            while length < head.len() && !head[..length].ends_with(b"\r\n\r\n") {
                match stream.read(&mut head[length..]).await {
                    Ok(0) | Err(_) => break,
                    Ok(more) => length += more,
                }
            }
        };
        let _ = timeout(REFUSAL_PATIENCE, reading).await;
        stream.write_all(in_short(&head[..length], &admin).as_bytes()).await?;
        stream.shutdown().await
    };
    // The send buffer of a new connection is empty, so the answer fits, or the peer is gone already.
    let _ = timeout(3 * REFUSAL_PATIENCE, exchange).await;
}

/// The answer to the request of a connection that is one too many.
fn in_short(head: &[u8], admin: &Admin) -> String {
    let mut words = head.split(|byte| byte.is_ascii_whitespace());
    let method = words.next().unwrap_or_default();
    let path = words.next().and_then(|target| target.split(|byte| *byte == b'?').next()).unwrap_or_default();
    let asks = matches!(method, b"GET" | b"HEAD");
    let (status, more, body) = match path {
        b"/livez" if asks => ("200 OK", "", LIVE.to_owned()),
        // Credentials are not looked at here.
        b"/readyz" if asks => match admin.ready(admin.guard.is_open()) {
            (true, text) => ("200 OK", "", text),
            (false, text) => ("503 Service Unavailable", "", text),
        },
        _ => ("503 Service Unavailable", "Retry-After: 1\r\n", BUSY.to_owned()),
    };
    let sent = if method == b"HEAD" { "" } else { &body };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {TEXT}\r\n{}Content-Length: {}\r\n{more}Connection: close\r\n\r\n{sent}",
        fields::lines(),
        body.len()
    )
}

/// One connection from accept to close. How it ended interests nobody: a scraper that left will come again.
async fn connection(
    socket: TcpStream,
    ends: Ends,
    admin: Arc<Admin>,
    mut shutdown: watch::Receiver<bool>,
    limits: Limits,
) {
    let Ok(stream) = open(socket, &admin, limits.head).await else { return };
    let turn = Arc::new(Turn::default());
    let paced = Paced::new(stream, limits, Arc::clone(&turn));
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (admin, turn) = (Arc::clone(&admin), Arc::clone(&turn));
        async move {
            // The request's body, if there is one, is not read: no endpoint takes one.
            let request = request.into_parts().0;
            turn.waiting.store(true, Relaxed);
            let response = admin.respond(&request, ends).await;
            turn.waiting.store(false, Relaxed);
            turn.answered.store(true, Relaxed);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        // Paced has the deadlines.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(paced), service);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        _ = served.as_mut() => return,
        _ = shutdown.wait_for(|stop| *stop) => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

/// What the peer is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To begin a request.
    Idle,
    /// To end its head.
    Head,
    /// To take the answer.
    Write,
}

/// What a stream must know of the request on it.
#[derive(Debug, Default)]
struct Turn {
    /// Not the peer is being waited for but the answer: the backend has a deadline of its own, and so do pages in a
    /// queue that is short.
    waiting: AtomicBool,
    /// An answer of ours is on its way. What is written without one is the parser's own.
    answered: AtomicBool,
}

/// A stream with one deadline for the phase that it is in. A phase that lasts too long fails the pending read or write
/// with `TimedOut`. To answers that the HTTP library makes itself it adds our fields.
struct Paced<S> {
    stream: S,
    limits: Limits,
    turn: Arc<Turn>,
    phase: Phase,
    deadline: Pin<Box<Sleep>>,
    /// What is left to write of the library's own answer.
    rewritten: VecDeque<u8>,
}

// === impl Paced ===

impl<S> Paced<S> {
    fn new(stream: S, limits: Limits, turn: Arc<Turn>) -> Paced<S> {
        // A new connection is expected to ask at once.
        let deadline = Box::pin(sleep_until(Instant::now() + limits.head));
        Paced { stream, limits, turn, phase: Phase::Head, deadline, rewritten: VecDeque::new() }
    }

    fn enter(&mut self, phase: Phase) {
        let time = match phase {
            Phase::Idle => self.limits.idle,
            Phase::Head => self.limits.head,
            Phase::Write => self.limits.write,
        };
        self.phase = phase;
        self.deadline.as_mut().reset(Instant::now() + time);
    }

    /// What a pending operation becomes: still pending, or failed because its time is over.
    fn pending<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if self.turn.waiting.load(Relaxed) {
            return Poll::Pending;
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// The first byte of an answer starts its time. It does not start again at the next one.
    fn before_write(&mut self) {
        if self.phase != Phase::Write {
            self.enter(Phase::Write);
        }
    }

    /// Whether these bytes begin an answer that the library makes itself: it is written in one piece, without a body.
    fn is_of_the_parser(&self, bytes: &[u8]) -> bool {
        !self.turn.answered.load(Relaxed) && bytes.starts_with(b"HTTP/1.1 4") && bytes.ends_with(b"\r\n\r\n")
    }

    /// Takes such an answer, with our fields behind its first line.
    fn rewrite(&mut self, bytes: &[u8]) -> usize {
        let line = bytes.windows(2).position(|end| end == b"\r\n").map_or(bytes.len(), |at| at + 2);
        self.rewritten.extend(&bytes[..line]);
        self.rewritten.extend(fields::lines().as_bytes());
        self.rewritten.extend(&bytes[line..]);
        bytes.len()
    }
}

impl<S: AsyncWrite + Unpin> Paced<S> {
    /// Writes what is left of such an answer.
    fn poll_rewritten(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rewritten.is_empty() {
            let written = match Pin::new(&mut self.stream).poll_write(context, self.rewritten.as_slices().0) {
                Poll::Pending => return self.pending(context),
                Poll::Ready(written) => written?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rewritten.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if Pin::new(&mut self.stream).poll_read(context, buffer)?.is_pending() {
            return self.pending(context);
        }
        if self.phase == Phase::Idle && buffer.filled().len() > before {
            self.enter(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.before_write();
        if self.is_of_the_parser(bytes) {
            return Poll::Ready(Ok(self.rewrite(bytes)));
        }
        ready!(self.poll_rewritten(context))?;
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.pending(context),
            done => done,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.before_write();
        if let Some(first) = slices.iter().find(|slice| !slice.is_empty())
            && self.is_of_the_parser(first)
        {
            return Poll::Ready(Ok(self.rewrite(first)));
        }
        ready!(self.poll_rewritten(context))?;
        match Pin::new(&mut self.stream).poll_write_vectored(context, slices) {
            Poll::Pending => self.pending(context),
            done => done,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes a stream only once all that it had to write is written: the answer is out.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rewritten(context))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.phase == Phase::Write {
            self.turn.answered.store(false, Relaxed);
            self.enter(Phase::Idle);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rewritten(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
