//! Where the backend is, and connecting to it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};

use crate::transport::Stream;

/// The backend's addresses, as they are known now. Cheap to clone and to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// At least one; tried in turn.
    Tcp(Arc<[SocketAddr]>),
    /// A socket of the file system.
    Unix(Arc<Path>),
}

impl Addresses {
    /// The addresses of TCP; none for a socket of the file system.
    #[must_use]
    pub fn tcp(&self) -> &[SocketAddr] {
        match self {
            Addresses::Tcp(addresses) => addresses,
            Addresses::Unix(_) => &[],
        }
    }

    /// A connection to one of them.
    ///
    /// # Errors
    /// That of the last address tried.
    pub async fn connect(&self) -> io::Result<Stream> {
        let addresses = match self {
            Addresses::Unix(path) => return UnixStream::connect(path).await.map(Stream::Unix),
            Addresses::Tcp(addresses) => addresses,
        };
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses.iter() {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let stream = Stream::Tcp(stream);
                    stream.set_nodelay();
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
