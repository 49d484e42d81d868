//! What comes before the first request of a connection: a PROXY header and a TLS handshake, where the configuration asks
//! for them. Nothing here is a request, except what arrives instead.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;

use tokio::io::AsyncReadExt as _;

use crate::labels::TlsFailure;
use crate::proxy::headers::{Peer, Refused};
use crate::proxy::timer::Deadline;
use crate::proxy::worker::{Settings, Worker};
use crate::transport::Stream;
use crate::transport::proxy_protocol::{self, Bad, Header};
use crate::transport::tls::{self, Acceptor, Negotiated};

/// Bytes of a PROXY header that are asked for at a time: the longest line of version 1, and any of version 2 without
/// much beside addresses.
const PROXY_BYTES: usize = 128;

/// How a connection was opened.
#[derive(Debug)]
pub enum Opening {
    /// It is ready for requests. What will be spoken, if both sides have agreed on it.
    Ready(Stream, Peer, Option<Negotiated>),
    /// Something else came than what must.
    Refused(Stream, Refused),
    /// The TLS handshake failed. The stream, if the client may still be reading what it was told.
    NoTls(TlsFailure, Option<Stream>),
    /// The client ended it before it had begun.
    Closed,
    /// Nothing came, or the sidecar stops.
    Ended,
}

/// How a wait ended otherwise than well.
enum Early {
    Closed,
    Stopped,
}

/// Opens a connection from this address, all of it within `timeouts.client_head`.
pub async fn open(worker: &Worker, settings: &Settings, mut stream: Stream, address: Option<IpAddr>) -> Opening {
    let deadline = worker.timers.slot();
    deadline.arm(settings.timeouts.client_head);
    let mut peer = Peer { address, secure: false };
    match first_byte(worker, &deadline, &stream).await {
        Ok(_) => {}
        Err(Early::Closed) => return Opening::Closed,
        Err(Early::Stopped) => return Opening::Ended,
    }
    if settings.proxy_protocol {
        match in_time(worker, &deadline, false, proxy_header(&mut stream)).await {
            Some(Ok(Ok(header))) => peer.address = header.source.or(address),
            Some(Ok(Err(Bad))) => {
                return Opening::Refused(stream, Refused::bad("a PROXY header must come first, and this is none"));
            }
            Some(Err(_)) => return Opening::Closed,
            None => return Opening::Refused(stream, Refused::late("the PROXY header did not arrive in time")),
        }
    }
    let Some(acceptor) = &settings.tls else { return Opening::Ready(stream, peer, None) };
    handshake(worker, &deadline, acceptor, stream, peer).await
}

async fn handshake(worker: &Worker, deadline: &Deadline, acceptor: &Acceptor, stream: Stream, peer: Peer) -> Opening {
    match first_byte(worker, deadline, &stream).await {
        // No record of TLS begins with a letter, and every method does.
        Ok(first) if first.is_ascii_alphabetic() => {
            let why = "plain HTTP was sent to a port that speaks TLS; ask with https://";
            return Opening::Refused(stream, Refused::bad(why));
        }
        Ok(_) => {}
        Err(Early::Closed) => return Opening::Closed,
        Err(Early::Stopped) => return Opening::Ended,
    }
    match in_time(worker, deadline, false, acceptor.accept(stream)).await {
        Some(Ok((stream, negotiated))) => Opening::Ready(stream, Peer { secure: true, ..peer }, negotiated),
        Some(Err((error, stream))) => {
            let failure = tls::failure(&error);
            // Not louder: anybody can make a handshake fail, as often as they like.
            tracing::debug!(event = "tls_handshake_failed", side = "client", reason = failure.as_str(), %error);
            Opening::NoTls(failure, (failure != TlsFailure::Closed).then_some(stream))
        }
        None => Opening::NoTls(TlsFailure::Timeout, None),
    }
}

/// Waits for the first byte and leaves it where it is. While there is none, nothing is lost by stopping.
async fn first_byte(worker: &Worker, deadline: &Deadline, stream: &Stream) -> Result<u8, Early> {
    let mut first = [0];
    match in_time(worker, deadline, true, stream.peek(&mut first)).await {
        Some(Ok(0) | Err(_)) => Err(Early::Closed),
        Some(Ok(_)) => Ok(first[0]),
        None => Err(Early::Stopped),
    }
}

/// What a future gives; `None` if the deadline fires first, or the sidecar cuts everything, or drains and this is `idle`.
async fn in_time<T>(worker: &Worker, deadline: &Deadline, idle: bool, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        let stopped = worker.stopped(cx, deadline).is_some() || (idle && worker.is_draining());
        if stopped { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// Reads a PROXY header and not a byte more: what follows belongs to TLS or to a request.
async fn proxy_header(stream: &mut Stream) -> io::Result<Result<Header, Bad>> {
    let mut bytes = Vec::new();
    loop {
        let taken = bytes.len();
        bytes.resize(taken + PROXY_BYTES, 0);
        let seen = taken + stream.peek(&mut bytes[taken..]).await?;
        if seen == taken {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (end, header) = match proxy_protocol::parse(&bytes[..seen]) {
            Err(Bad) => return Ok(Err(Bad)),
            Ok(Some((length, header))) => (length, Some(header)),
            // All that is there belongs to it.
            Ok(None) => (seen, None),
        };
        stream.read_exact(&mut bytes[taken..end]).await?;
        if let Some(header) = header {
            return Ok(Ok(header));
        }
        bytes.truncate(end);
    }
}
