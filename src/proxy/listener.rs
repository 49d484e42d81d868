//! Accepting connections: each worker on its own socket, bounded over all workers.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::descriptors::{self, Reserve};
use crate::labels::RejectReason;
use crate::proxy::connection;
use crate::proxy::worker::Worker;

/// Connections waiting for `accept`. The kernel cuts it to `net.core.somaxconn` (4096 by default).
const BACKLOG: i32 = 4096;
/// Pause after a failed `accept`: it may fail again at once, and a loop would spin.
const BACK_OFF: Duration = Duration::from_millis(50);

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
///
/// One descriptor is kept for the time when there are no others. It is given up then, so that whoever waits to be
/// accepted is closed and knows, instead of waiting for what may not come. Without it, there is nothing but to pause.
pub async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    let mut reserve = Reserve::new(1);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if reserve.refill() => admit(&worker, stream, peer),
            Ok((stream, _)) => {
                // It has what was kept.
                drop(stream);
                reserve.refill();
                worker.meter.connection_rejected(RejectReason::Descriptors);
            }
            Err(error) if descriptors::ran_out(&error) && reserve.release() => {}
            Err(error) => {
                if descriptors::ran_out(&error) {
                    worker.meter.connection_rejected(RejectReason::Descriptors);
                }
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

fn admit(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    // Answers are written in one piece; waiting for more (Nagle) would only delay streams. Failing is harmless.
    let _ = stream.set_nodelay(true);
    let configured = worker.settings().limits.connections;
    let (room, turned_away) = worker.shared.room.get();
    let limit = configured.min(room);
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
    let reason = if before < configured { RejectReason::Descriptors } else { RejectReason::Limit };
    worker.meter.connection_rejected(reason);
    if before < limit + turned_away {
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            connection::turn_away(worker, stream).await;
            drop(admission);
        });
    }
}
