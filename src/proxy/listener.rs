//! Accepting connections: each worker on its own socket, bounded over all workers.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use crate::config::Listen;
use crate::descriptors::{self, Reserve};
use crate::labels::RejectReason;
use crate::proxy::connection;
use crate::proxy::worker::Worker;
use crate::transport::Stream;

/// Connections waiting for `accept`. The kernel cuts it to `net.core.somaxconn` (4096 by default).
const BACKLOG: i32 = 4096;
/// Pause after a failed `accept`: it may fail again at once, and a loop would spin.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Who may connect to a socket of the file system: its owner and its group, as with most servers that have one. Others
/// come in by a folder's rights or by the group.
const SOCKET_MODE: u32 = 0o660;

/// A listening socket before it belongs to a worker.
#[derive(Debug)]
pub enum Socket {
    /// A port.
    Tcp(std::net::TcpListener),
    /// A socket of the file system.
    Unix(std::os::unix::net::UnixListener),
}

/// The same in a worker's runtime.
#[derive(Debug)]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A socket of the file system.
    Unix(UnixListener),
}

/// The listening sockets of all workers.
#[derive(Debug)]
pub struct Bound {
    /// One per worker.
    pub sockets: Vec<Socket>,
    /// Where they listen: with the port that was chosen.
    pub address: Listen,
    /// The file, if they listen at one.
    pub file: Option<SocketFile>,
}

/// The file of a listening socket; removed when dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have put its own there meanwhile.
        if fs::symlink_metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Hands a socket to the runtime of this thread.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn new(socket: Socket) -> io::Result<Listener> {
        match socket {
            Socket::Tcp(socket) => TcpListener::from_std(socket).map(Listener::Tcp),
            Socket::Unix(socket) => UnixListener::from_std(socket).map(Listener::Unix),
        }
    }

    /// The next connection, and the client's address if it has one.
    async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Listener::Tcp(listener) => {
                listener.accept().await.map(|(stream, peer)| (Stream::Tcp(stream), Some(peer.ip())))
            }
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), None)),
        }
    }
}

/// Binds one listening socket per worker to the same place.
///
/// # Errors
/// When it cannot be bound.
pub fn bind(listen: &Listen, workers: usize) -> io::Result<Bound> {
    match listen {
        Listen::Tcp(address) => {
            let (sockets, address) = bind_port(*address, workers)?;
            Ok(Bound { sockets, address: Listen::Tcp(address), file: None })
        }
        Listen::Unix(path) => {
            let (socket, file) = bind_file(path)?;
            // There is nothing like SO_REUSEPORT here: all workers wait at one queue.
            let clones: io::Result<Vec<_>> = (1..workers).map(|_| socket.try_clone()).collect();
            let sockets = clones?.into_iter().chain([socket]).map(Socket::Unix).collect();
            Ok(Bound { sockets, address: listen.clone(), file: Some(file) })
        }
    }
}

/// Binds a socket of the file system. One that a dead process has left is replaced.
fn bind_file(path: &Path) -> io::Result<(std::os::unix::net::UnixListener, SocketFile)> {
    let address = socket2::SockAddr::unix(path)?;
    let new = || socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
    let socket = new()?;
    socket.set_nonblocking(true)?;
    if let Err(error) = socket.bind(&address) {
        let left_over = error.kind() == io::ErrorKind::AddrInUse
            && fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
            && new()?.connect(&address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if !left_over {
            return Err(error);
        }
        fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    let file = SocketFile { path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() };
    // Before anybody can connect.
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

/// Binds one listening socket per worker to the same address. Port 0 is chosen once.
fn bind_port(address: SocketAddr, workers: usize) -> io::Result<(Vec<Socket>, SocketAddr)> {
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
        sockets.push(Socket::Tcp(socket.into()));
    }
    Ok((sockets, address))
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
pub async fn accept(worker: Rc<Worker>, listener: Listener) {
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

fn admit(worker: &Rc<Worker>, stream: Stream, peer: Option<IpAddr>) {
    // Answers are written in one piece; waiting for more would only delay streams.
    stream.set_nodelay();
    let settings = worker.settings();
    let configured = settings.limits.connections;
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
    // A client that waits for a handshake would not understand an answer.
    if before < limit + turned_away && settings.tls.is_none() {
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            connection::turn_away(worker, stream).await;
            drop(admission);
        });
    }
}
