//! Bodies on their way, both directions, with back-pressure: nothing is read while what was read before cannot be
//! written. At most one buffer's worth is in the sidecar at any moment.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use crate::labels::Failure;
use crate::proxy::buffer::{Filled, LARGE, SMALL, Window};
use crate::proxy::h1::{ChunkReader, ChunkStep, Framing, write_chunk_head, write_last_chunk};
use crate::proxy::headers;
use crate::transport::Stream;

/// Pieces up to this size are copied behind the head, so that head and body leave in one packet and one system call;
/// larger ones are written from where they were read.
const COPY_LIMIT: usize = 4 * 1024;
/// Turns of a pump before it lets other connections have their turn.
const TURNS: usize = 64;

/// Bytes on their way out: a buffer and how far it has been written.
#[derive(Debug, Default)]
pub struct Outbox {
    /// What is to be written.
    pub bytes: Vec<u8>,
    written: usize,
    /// Bytes written since the last `reset`.
    pub total: u64,
}

impl Outbox {
    /// Whether everything has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Bytes that are still to be written.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Forgets everything; keeps a buffer of usual size for the next message.
    pub fn reset(&mut self) {
        self.written = 0;
        self.total = 0;
        self.bytes.clear();
        if self.bytes.capacity() > LARGE {
            self.bytes = Vec::new();
        }
    }

    /// Begins to write anew from the first byte: the same message for another connection.
    pub fn rewind(&mut self) {
        self.written = 0;
        self.total = 0;
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// As the write does.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let n = ready!(Pin::new(&mut *stream).poll_write(cx, &self.bytes[self.written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
            self.total += n as u64;
        }
        Pin::new(stream).poll_flush(cx)
    }

    /// Forgets what has been written, if that is everything. Returns whether something was forgotten.
    pub fn forget_written(&mut self) -> bool {
        let forget = self.is_empty() && !self.bytes.is_empty();
        if forget {
            self.bytes.clear();
            self.written = 0;
        }
        forget
    }
}

/// Reads a body as one side frames it.
#[derive(Debug)]
pub struct Source {
    left: Left,
    max_fields: usize,
}

#[derive(Debug)]
enum Left {
    Nothing,
    Bytes(u64),
    Chunks(Box<ChunkReader>),
    UntilClose,
}

/// What a [`Source`] has in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// This many body bytes at the start of the window.
    Bytes(usize),
    /// Nothing: read more.
    NeedsMore,
    /// The body is complete.
    End,
}

/// The framing of a body is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Source {
    /// A body framed so; its trailers have at most `max_fields` fields in `max_bytes` bytes.
    #[must_use]
    pub fn new(framing: Framing, max_bytes: usize, max_fields: usize) -> Source {
        let left = match framing {
            Framing::None | Framing::Length(0) => Left::Nothing,
            Framing::Length(n) => Left::Bytes(n),
            Framing::Chunked => Left::Chunks(Box::new(ChunkReader::new(max_bytes))),
            Framing::Close => Left::UntilClose,
        };
        Source { left, max_fields }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.left, Left::Nothing)
    }

    /// Whether the end of the connection is the end of the body.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.left, Left::UntilClose)
    }

    /// Looks at the window, skips framing, and says what is there. Body bytes stay in the window until `take`n.
    ///
    /// # Errors
    /// When the framing is broken.
    pub fn peek(&mut self, window: &mut Window, trailers: &mut Vec<u8>) -> Result<Piece, Malformed> {
        match &mut self.left {
            Left::Nothing => Ok(Piece::End),
            _ if window.is_empty() => Ok(Piece::NeedsMore),
            Left::Bytes(left) => {
                Ok(Piece::Bytes(usize::try_from(*left).unwrap_or(usize::MAX).min(window.unread().len())))
            }
            Left::UntilClose => Ok(Piece::Bytes(window.unread().len())),
            Left::Chunks(reader) => {
                let (used, step) = reader.step(window.unread()).map_err(|_bad| Malformed)?;
                match step {
                    ChunkStep::More => {
                        window.consume(used);
                        Ok(Piece::NeedsMore)
                    }
                    ChunkStep::Data { start, end } => {
                        // Framing before the data goes now, the data when it is taken.
                        window.consume(start);
                        Ok(Piece::Bytes(end - start))
                    }
                    ChunkStep::End => {
                        window.consume(used);
                        headers::trailers(reader.trailers(), self.max_fields, trailers).map_err(|_bad| Malformed)?;
                        self.left = Left::Nothing;
                        Ok(Piece::End)
                    }
                }
            }
        }
    }

    /// Takes the piece of `n` bytes that was seen last, and with it what follows in small pieces: some receivers take many
    /// small frames of HTTP/2 for an attack. What is malformed stays where it is, for the next look.
    pub fn take_pieces(&mut self, window: &mut Window, trailers: &mut Vec<u8>, n: usize) -> Bytes {
        let mut data = window.unread()[..n].to_vec();
        self.take(window, n);
        while data.len() < SMALL
            && let Ok(Piece::Bytes(n)) = self.peek(window, trailers)
        {
            data.extend_from_slice(&window.unread()[..n]);
            self.take(window, n);
        }
        Bytes::from(data)
    }

    /// Uses up `n` body bytes of the piece that was seen last. A chunked piece is taken whole.
    pub fn take(&mut self, window: &mut Window, n: usize) {
        window.consume(n);
        if let Left::Bytes(left) = &mut self.left {
            *left -= n as u64;
            if *left == 0 {
                self.left = Left::Nothing;
            }
        }
    }
}

/// Which side a pump waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// For bytes to read.
    Reader,
    /// For room to write.
    Writer,
}

/// A body on its way from one connection to the other.
#[derive(Debug)]
pub struct Pump {
    source: Source,
    /// The receiver gets chunks.
    chunked: bool,
    ended: bool,
    trailers: Vec<u8>,
    /// Body bytes so far.
    pub total: u64,
    /// Most body bytes that may pass.
    limit: u64,
    /// Which side it waits for; meaningful while pending.
    pub waits: Waits,
    /// Counts up whenever bytes moved: tells silence from slowness.
    pub progress: u64,
    /// Whether all that has been sent is still in the outbox, so that it could be sent again.
    pub replayable: bool,
    /// The last read filled its buffer: the sender is faster than small buffers are good for.
    fast: bool,
}

/// Why a pump stopped.
#[derive(Debug)]
pub enum Broken {
    /// The sender's connection failed or ended too early.
    Reader(Option<io::Error>),
    /// The sender's framing is broken.
    Malformed,
    /// The receiver's connection failed.
    Writer(io::Error),
    /// More bytes than allowed.
    TooLarge,
}

impl Broken {
    /// What it is called when the backend was the sender.
    #[must_use]
    pub fn from_backend(&self) -> Failure {
        match self {
            Broken::Malformed => Failure::ProtocolError,
            _ => Failure::ResetAfterHead,
        }
    }
}

impl Pump {
    /// A pump from `source` to a receiver that gets chunks if `chunked`.
    #[must_use]
    pub fn new(source: Source, chunked: bool, limit: Option<u64>) -> Pump {
        Pump {
            source,
            chunked,
            ended: false,
            trailers: Vec::new(),
            total: 0,
            limit: limit.unwrap_or(u64::MAX),
            waits: Waits::Writer,
            progress: 0,
            replayable: true,
            fast: false,
        }
    }

    /// Whether the last byte has been read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.ended
    }

    /// Moves as much as both sides allow. `out` may hold a head that goes first. `seen` is shown the body bytes.
    ///
    /// # Errors
    /// When one side fails. What was read before has been written as far as the receiver took it.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: (&mut Stream, &mut Window),
        to: &mut Stream,
        out: &mut Outbox,
        mut seen: impl FnMut(&[u8]),
    ) -> Poll<Result<(), Broken>> {
        let (reader, window) = from;
        for _ in 0..TURNS {
            // Take what is there, as long as it is small or must be wrapped.
            let direct = self.gather(window, out, &mut seen)?;
            self.waits = Waits::Writer;
            let before = out.total;
            let flushed = out.poll_flush(cx, to);
            if out.total > before {
                self.progress += 1;
            }
            match flushed {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Writer(error))),
                Poll::Ready(Ok(())) => {}
            }
            if direct > 0 {
                match Pin::new(&mut *to).poll_write(cx, &window.unread()[..direct]) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Writer(error))),
                    Poll::Ready(Ok(n)) => {
                        seen(&window.unread()[..n]);
                        self.total += n as u64;
                        self.source.take(window, n);
                        self.progress += 1;
                        self.replayable = false;
                        continue;
                    }
                }
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if !window.is_empty() {
                continue;
            }
            self.waits = Waits::Reader;
            if self.fast {
                window.enlarge(LARGE);
            }
            match window.poll_fill(cx, reader, SMALL) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Reader(Some(error)))),
                Poll::Ready(Ok(Filled::Eof)) if self.source.ends_with_connection() => self.end(out),
                Poll::Ready(Ok(Filled::Eof)) => return Poll::Ready(Err(Broken::Reader(None))),
                Poll::Ready(Ok(Filled::Full)) => {}
                Poll::Ready(Ok(Filled::Bytes(n))) => {
                    self.progress += 1;
                    self.fast = n >= SMALL;
                }
            }
        }
        // A fast pair could keep this task busy for ever.
        cx.waker().wake_by_ref();
        self.waits = Waits::Writer;
        Poll::Pending
    }

    /// Moves small pieces into `out`. Returns how many bytes at the start of the window may be written as they are.
    fn gather(&mut self, window: &mut Window, out: &mut Outbox, seen: &mut impl FnMut(&[u8])) -> Result<usize, Broken> {
        while !self.ended {
            match self.source.peek(window, &mut self.trailers).map_err(|_bad| Broken::Malformed)? {
                Piece::NeedsMore => return Ok(0),
                Piece::End => self.end(out),
                Piece::Bytes(n) => {
                    if self.total + n as u64 > self.limit {
                        return Err(Broken::TooLarge);
                    }
                    if !self.chunked && n > COPY_LIMIT {
                        return Ok(n);
                    }
                    self.replayable &= !out.forget_written();
                    if out.bytes.len() > LARGE {
                        return Ok(0);
                    }
                    if self.chunked {
                        write_chunk_head(&mut out.bytes, n);
                    }
                    out.bytes.extend_from_slice(&window.unread()[..n]);
                    if self.chunked {
                        out.bytes.extend_from_slice(b"\r\n");
                    }
                    seen(&window.unread()[..n]);
                    self.total += n as u64;
                    self.source.take(window, n);
                }
            }
        }
        Ok(0)
    }

    fn end(&mut self, out: &mut Outbox) {
        self.ended = true;
        if self.chunked {
            self.replayable &= !out.forget_written();
            write_last_chunk(&mut out.bytes, &self.trailers);
        }
    }
}
