//! A tunnel after a 101: bytes both ways, each way ended on its own (half-close), until both have ended.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite as _;

use crate::labels::{CloseReason, Direction, TunnelProtocol};
use crate::measure::Tunnel;
use crate::proxy::buffer::{Filled, SMALL, Window};
use crate::proxy::connection::Client;
use crate::proxy::upstream::Connection;
use crate::proxy::worker::Worker;
use crate::transport::Stream;

/// Silence after which a tunnel's peers are asked by TCP whether they are still there. Below the five minutes after
/// which the usual NAT forgets a connection.
const KEEPALIVE: Duration = Duration::from_secs(60);

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
