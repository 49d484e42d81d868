//! A connection, whatever it is made of. An enum and not a trait object: the common kind costs a predictable branch, and
//! everything that reads or writes stays one piece of code.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// A connected socket, or TLS over one.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A socket of the file system.
    Unix(UnixStream),
    /// TLS, either side of it, over one of the others. What was written may wait inside until it is flushed; an end
    /// without the peer's closure alert is an error (`UnexpectedEof`), because anybody on the way could have made it.
    Tls(Box<TlsStream<Stream>>),
}

impl Stream {
    /// Waits until something can be read from the socket, or it has ended. Not for what was read before: whoever waits
    /// has read until nothing was left, so there is nothing decrypted inside either.
    ///
    /// # Errors
    /// When the socket has failed.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => stream.poll_read_ready(cx),
            Stream::Unix(stream) => stream.poll_read_ready(cx),
            Stream::Tls(stream) => stream.get_ref().0.poll_read_ready(cx),
        }
    }

    /// Looks at what has arrived at the socket without taking it; waits until something has. 0: it has ended. Of TLS,
    /// that are the bytes below it.
    ///
    /// # Errors
    /// When the socket has failed.
    pub async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let fd = self.as_raw_fd();
        let look = || {
            // SAFETY: `bytes` is valid for its length, and the descriptor is open as long as `self` is borrowed.
            match unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_PEEK) } {
                seen @ 0.. => Ok(seen.unsigned_abs()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        match self.below() {
            Stream::Unix(stream) => stream.async_io(Interest::READABLE, look).await,
            Stream::Tcp(stream) => stream.async_io(Interest::READABLE, look).await,
            Stream::Tls(_) => unreachable!("`below` is a socket"),
        }
    }

    /// Sends small pieces at once instead of waiting for the acknowledgement of the one before (Nagle). Only TCP waits;
    /// failing is harmless.
    pub fn set_nodelay(&self) {
        if let Some(stream) = self.tcp() {
            let _ = stream.set_nodelay(true);
        }
    }

    /// Asks a silent peer after `time` whether it is still there. Only TCP can lose one unnoticed; failing leaves the
    /// system's two hours.
    pub fn set_keepalive(&self, time: Duration) {
        if let Some(stream) = self.tcp() {
            let keepalive = socket2::TcpKeepalive::new().with_time(time).with_interval(time / 4);
            let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive);
        }
    }

    /// Makes the coming close a reset, so that the peer cannot take what it has for everything. Failing means that the
    /// socket is gone already.
    pub fn reset_on_close(&self) {
        if let Some(stream) = self.tcp() {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Tells the peer under TLS that this is the end, if there is room for it: for a connection on which nothing is on its
    /// way. Without TLS the end of the connection says it.
    pub fn say_goodbye(&mut self) {
        if self.is_tls() {
            let _ = Pin::new(self).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// The TCP socket below, if there is one.
    #[must_use]
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self.below() {
            Stream::Tcp(stream) => Some(stream),
            _ => None,
        }
    }

    /// Whether what goes through is encrypted. Then the bytes on the socket are others, and more, than those written.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// The socket itself.
    fn below(&self) -> &Stream {
        match self {
            Stream::Tls(stream) => stream.get_ref().0.below(),
            socket => socket,
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
            Stream::Tls(stream) => stream.as_raw_fd(),
        }
    }
}

impl Stream {
    #[inline(never)]
    fn poll_read_other(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }

    #[inline(never)]
    fn poll_write_other(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }
}

#[inline(never)]
fn flush_tls(stream: &mut TlsStream<Stream>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    Pin::new(stream).poll_flush(cx)
}

impl AsyncRead for Stream {
    /// The common kind in place, the others by a call: several of these are in every request.
    #[inline(always)]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            other => other.poll_read_other(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline(always)]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            other => other.poll_write_other(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
        }
    }

    /// Under TLS the bytes are copied once more whatever happens, so nothing is gained by handing them over in pieces.
    fn is_write_vectored(&self) -> bool {
        matches!(self, Stream::Tcp(_) | Stream::Unix(_))
    }

    /// What was written is on its way once this is ready. A plain socket holds nothing back.
    #[inline(always)]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(_) | Stream::Unix(_) => Poll::Ready(Ok(())),
            Stream::Tls(stream) => flush_tls(stream, cx),
        }
    }

    /// Ends this side; under TLS with the closure alert, so that the peer knows that nobody cut it.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
