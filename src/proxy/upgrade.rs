//! A tunnel after a 101: bytes both ways, each way ended on its own (half-close), until both have ended.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode};
use tokio::io::AsyncWrite as _;

use crate::labels::{CloseReason, Direction, TunnelProtocol};
use crate::measure::Tunnel;
use crate::proxy::body::Outbox;
use crate::proxy::buffer::{Filled, SMALL, Window};
use crate::proxy::connection::Client;
use crate::proxy::exchange::{self, Back};
use crate::proxy::front::{Front, H1Front};
use crate::proxy::headers::{self, RequestHead};
use crate::proxy::upstream::Connection;
use crate::proxy::worker::{Settings, Worker};
use crate::transport::Stream;

/// Silence after which a tunnel's peers are asked by TCP whether they are still there. Below the five minutes after
/// which the usual NAT forgets a connection.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(60);

/// One way of a tunnel.
#[derive(Default)]
struct Way {
    ended: bool,
    closed: bool,
}

impl Way {
    /// Moves bytes until one side would block, or this way has ended and the end has been passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        window: &mut Window,
        to: &mut Stream,
        count: impl Fn(u64),
    ) -> Poll<io::Result<()>> {
        loop {
            while !window.is_empty() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, window.unread()))?;
                count(n as u64);
                window.consume(n);
            }
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.closed = true;
                return Poll::Ready(Ok(()));
            }
            match ready!(window.poll_fill(cx, from, SMALL))? {
                Filled::Eof => self.ended = true,
                Filled::Bytes(_) | Filled::Full => {}
            }
        }
    }
}

/// Carries a tunnel between an HTTP/1.1 client and a backend that speaks HTTP/2.
pub async fn tunnel_in_pieces(
    worker: &Worker,
    settings: &Settings,
    mut client: Client,
    head: &RequestHead,
    back: Back,
    protocol: TunnelProtocol,
) {
    let deadline = worker.timers.slot();
    let mut outbox = Outbox::default();
    let mut front = Front::H1(H1Front::new(&mut client, head, settings.sizes()));
    front.becomes_tunnel();
    exchange::tunnel(worker, &mut front, back, &mut outbox, protocol, &deadline).await;
}

/// What a server appends to a key to show that it has understood the handshake (RFC 6455, section 1.3).
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key for a WebSocket handshake of our own: 16 bytes in base64. It guards against servers that do not speak WebSocket,
/// not against attackers.
#[must_use]
pub fn websocket_key() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut key = [0; 16];
    for half in key.chunks_mut(8) {
        half.copy_from_slice(&std::collections::hash_map::RandomState::new().build_hasher().finish().to_ne_bytes());
    }
    base64(&key)
}

/// Makes a 101 of the answer of an HTTP/2 backend to an extended CONNECT. `request`: the head with the client's key.
pub fn accept_upgrade(response: &mut Response<()>, request: &[u8]) {
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    if let Some(Ok(protocol)) = headers::field_of(request, "upgrade").map(HeaderValue::from_bytes) {
        fields.insert(http::header::UPGRADE, protocol);
    }
    if let Some(key) = headers::field_of(request, "sec-websocket-key") {
        let digest = sha1_smol::Sha1::from([key, WEBSOCKET_GUID].concat()).digest().bytes();
        if let Ok(accept) = HeaderValue::from_str(&base64(&digest)) {
            fields.insert("sec-websocket-accept", accept);
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let sextet = bits >> (18 - 6 * at) & 0x3f;
            text.push(if at <= group.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}

/// Carries a tunnel until both ways have ended, one side failed, or the drain deadline cuts it.
pub async fn tunnel(worker: &Worker, mut client: Client, mut connection: Box<Connection>, protocol: TunnelProtocol) {
    // A tunnel may be silent for ever; a peer that is gone must not hold it.
    for stream in [&client.stream, &connection.stream] {
        stream.set_keepalive(KEEPALIVE);
    }
    let tunnel = Tunnel::open(&worker.meter, protocol);
    client.deadline.clear();
    let (mut up, mut down) = (Way::default(), Way::default());
    let result = poll_fn(|cx| {
        let Client { stream, inbound, deadline, .. } = &mut client;
        let Connection { stream: backend, inbound: from_backend, .. } = &mut *connection;
        let sent = up.poll(cx, stream, inbound, backend, |n| tunnel.bytes(Direction::Sent, n));
        let received = down.poll(cx, backend, from_backend, stream, |n| tunnel.bytes(Direction::Received, n));
        match (sent, received) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ if worker.stopped(cx, deadline).is_some() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            _ => Poll::Pending,
        }
    })
    .await;
    let reason = match result {
        Ok(()) => CloseReason::Peer,
        Err(_) if worker.is_cut() => CloseReason::Drain,
        Err(_) => CloseReason::Error,
    };
    connection.close(reason);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_6455_is_accepted_as_it_says() {
        let request =
            b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut response = Response::new(());
        accept_upgrade(&mut response, request);
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["upgrade"], "websocket");
    }

    #[test]
    fn keys_have_sixteen_bytes_and_differ() {
        let (one, other) = (websocket_key(), websocket_key());
        assert_eq!((one.len(), &one[22..]), (24, "=="));
        assert_ne!(one, other);
        assert_eq!(base64(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw==");
    }
}
