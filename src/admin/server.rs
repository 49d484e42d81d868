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
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::{Admin, LIVE, TEXT};

/// What a connection that is one too many is told.
const BUSY: &str = "too many admin connections\n";

/// Bytes of a request head. A scraper sends under 1 KiB; 16 KiB leave room for the cookies of a browser whose other
/// pages live on the same host name, and 64 connections cannot hold more than 1 MiB.
const HEAD_BYTES: usize = 16 * 1024;

/// Pause after accept failed, which mostly means that descriptors ran out: without it the loop would spin, and 50 ms
/// are nothing to somebody who scrapes.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

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
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                // Those that ended but were not joined yet do not count.
                while connections.try_join_next().is_some() || refusals.try_join_next().is_some() {}
                if connections.len() < limits.connections {
                    connections.spawn(connection(stream, admin.clone(), shutdown.clone(), limits));
                } else {
                    refused.push_back(refusals.spawn(refuse(stream, Arc::clone(&admin))));
                    if refused.len() > limits.connections {
                        // Mostly it has ended long ago.
                        refused.pop_front().iter().for_each(AbortHandle::abort);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(event = "admin_accept_failed", %error);
                sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    // What is left when the time is over is cut when the set is dropped.
    let _ = timeout(STOP_PATIENCE, all_ended).await;
}

/// Answers whether this is alive and ready, and says to anybody else why there is nothing else. What was asked is read
/// away first: closing with unread bytes would reset the connection, and the reset may overtake the answer.
async fn refuse(stream: TcpStream, admin: Arc<Admin>) {
    let mut head = [0; REFUSED_HEAD_BYTES];
    let mut length = 0;
    let reading = async {
        while length < head.len() && !head[..length].ends_with(b"\r\n\r\n") {
            if stream.readable().await.is_err() {
                break;
            }
            match stream.try_read(&mut head[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    let _ = timeout(REFUSAL_PATIENCE, reading).await;
    // The send buffer of a new connection is empty, so this fits, or the peer is gone already.
    let _ = stream.try_write(in_short(&head[..length], &admin).as_bytes());
}

/// The answer to the request of a connection that is one too many.
fn in_short(head: &[u8], admin: &Admin) -> String {
    let mut words = head.split(|byte| byte.is_ascii_whitespace());
    let method = words.next().unwrap_or_default();
    let path = words.next().and_then(|target| target.split(|byte| *byte == b'?').next()).unwrap_or_default();
    let asks = matches!(method, b"GET" | b"HEAD");
    let (status, more, body) = match path {
        b"/livez" if asks => ("200 OK", "", LIVE.to_owned()),
        b"/readyz" if asks => match admin.readiness.text() {
            (true, text) => ("200 OK", "", text),
            (false, text) => ("503 Service Unavailable", "", text),
        },
        _ => ("503 Service Unavailable", "Retry-After: 1\r\n", BUSY.to_owned()),
    };
    let sent = if method == b"HEAD" { "" } else { &body };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {TEXT}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Length: {}\r\n{more}Connection: close\r\n\r\n{sent}",
        body.len()
    )
}

/// One connection from accept to close. How it ended interests nobody: a scraper that left will come again.
async fn connection(stream: TcpStream, admin: Arc<Admin>, mut shutdown: watch::Receiver<bool>, limits: Limits) {
    // A page is written in few large pieces; waiting to fill packets would only delay its last one.
    let _ = stream.set_nodelay(true);
    let waiting = Arc::new(AtomicBool::new(false));
    let paced = Paced::new(stream, limits, Arc::clone(&waiting));
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (admin, waiting) = (Arc::clone(&admin), Arc::clone(&waiting));
        async move {
            // The request's body, if there is one, is not read: no endpoint takes one.
            let request = request.into_parts().0;
            waiting.store(true, Relaxed);
            let response = admin.respond(&request).await;
            waiting.store(false, Relaxed);
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

/// A stream with one deadline for the phase that it is in. A phase that lasts too long fails the pending read or write
/// with `TimedOut`.
struct Paced<S> {
    stream: S,
    limits: Limits,
    /// Not the peer is being waited for but the answer: the backend has a deadline of its own, and so do pages in a
    /// queue that is short.
    waiting: Arc<AtomicBool>,
    phase: Phase,
    deadline: Pin<Box<Sleep>>,
}

// === impl Paced ===

impl<S> Paced<S> {
    fn new(stream: S, limits: Limits, waiting: Arc<AtomicBool>) -> Paced<S> {
        // A new connection is expected to ask at once.
        let deadline = Box::pin(sleep_until(Instant::now() + limits.head));
        Paced { stream, limits, waiting, phase: Phase::Head, deadline }
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
        if self.waiting.load(Relaxed) {
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
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.phase == Phase::Write {
            self.enter(Phase::Idle);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
