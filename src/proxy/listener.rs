//! Accepting connections: each worker on its own socket, bounded over all workers.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::labels::RejectReason;
use crate::proxy::connection;
use crate::proxy::worker::Worker;
use crate::transport::Stream;

/// Connections waiting for `accept`. The kernel cuts it to `net.core.somaxconn` (4096 by default).
const BACKLOG: i32 = 4096;
/// Pause after a failed `accept`: without descriptors it fails again at once, and a loop would spin.
const BACK_OFF: Duration = Duration::from_millis(50);
/// Connections over the limit that get an answer instead of a plain close, at any time, over all workers.
const TURNED_AWAY_AT_ONCE: usize = 128;

/// Binds one listening socket per worker to the same address. Port 0 is chosen once.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let mut sockets = Vec::with_capacity(workers);
    let mut address = address;
    if address.port() != 0 {
        // SO_REUSEPORT lets a second sidecar of the same user share a port in silence; a probe without it finds out.
        drop(socket(address, false)?);
    }
    for _ in 0..workers {
        let socket = socket(address, true)?;
        if address.port() == 0
            && let Some(bound) = socket.local_addr()?.as_socket()
        {
            address = bound;
        }
        sockets.push(socket.into());
    }
    Ok(sockets)
}

fn socket(address: SocketAddr, share_port: bool) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share_port)?;
    socket.bind(&address.into())?;
    if share_port {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// A connection's share of the limit over all workers, given back when dropped.
struct Admission(Rc<Worker>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.shared.connections.fetch_sub(1, Relaxed);
    }
}

/// Accepts for ever; ended by aborting the task.
pub async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => admit(&worker, Stream::Tcp(stream), peer),
            Err(error) => {
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                    worker.meter.connection_rejected(RejectReason::Descriptors);
                }
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

fn admit(worker: &Rc<Worker>, stream: Stream, peer: SocketAddr) {
    // Answers are written in one piece; waiting for more would only delay streams.
    stream.set_nodelay();
    let limit = worker.settings().limits.connections;
    let before = worker.shared.connections.fetch_add(1, Relaxed);
    let admission = Admission(Rc::clone(worker));
    if before < limit {
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            connection::serve(worker, stream, peer).await;
            drop(admission);
        });
        return;
    }
    worker.meter.connection_rejected(RejectReason::Limit);
    if before < limit + TURNED_AWAY_AT_ONCE {
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            connection::turn_away(worker, stream).await;
            drop(admission);
        });
    }
}
