//! The backend's side of an exchange in pieces, over HTTP/1.1.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::io::AsyncWrite as _;

use crate::labels::Failure;
use crate::proxy::body::{Outbox, Piece as Part, Source};
use crate::proxy::buffer::{Filled, LARGE, SMALL};
use crate::proxy::exchange::{Broken, Gone, Piece};
use crate::proxy::h1::{Framing, HeadScan, write_chunk_head, write_last_chunk};
use crate::proxy::headers::{self, ResponseContext, ResponseHead, ResponseSink};
use crate::proxy::service::{self, response_head};
use crate::proxy::upstream::Connection;
use crate::proxy::worker::Worker;

/// A connection that carries one request of an exchange in pieces.
#[derive(Debug)]
pub struct H1Back {
    /// The connection.
    pub connection: Box<Connection>,
    scan: HeadScan,
    /// Something came on it.
    heard: bool,
    /// The request is sent in chunks.
    chunked: bool,
    source: Source,
    trailers: Vec<u8>,
    pieces: u64,
    head_bytes: usize,
    fields: usize,
}

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// What came is no head.
    Failed(Failure),
    /// The connection ended before it: at its end, or by a reset.
    Ended {
        /// It was the end of the stream.
        at_end: bool,
    },
}

impl H1Back {
    /// A connection that a request framed so will be sent on.
    #[must_use]
    pub fn new(connection: Box<Connection>, framing: Framing, (head_bytes, fields): (usize, usize)) -> H1Back {
        H1Back {
            connection,
            scan: HeadScan::default(),
            heard: false,
            chunked: framing == Framing::Chunked,
            source: Source::new(Framing::None, 0, 0),
            trailers: Vec::new(),
            pieces: 0,
            head_bytes,
            fields,
        }
    }

    /// Writes what is to be written.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<Result<(), Gone>> {
        outbox.poll_flush(cx, &mut self.connection.stream).map_err(|_error| Gone)
    }

    /// Puts a piece of the request's body behind what is to be written.
    pub fn send(&mut self, bytes: &[u8], outbox: &mut Outbox) {
        if outbox.is_empty() {
            outbox.reset();
        }
        if self.chunked {
            write_chunk_head(&mut outbox.bytes, bytes.len());
        }
        outbox.bytes.extend_from_slice(bytes);
        if self.chunked {
            outbox.bytes.extend_from_slice(b"\r\n");
        }
    }

    /// Ends the request's body.
    pub fn finish(&mut self, trailers: Option<&HeaderMap>, outbox: &mut Outbox) {
        if self.chunked {
            let section = trailers.map(headers::trailers_to_h1).unwrap_or_default();
            write_last_chunk(&mut outbox.bytes, &section);
        }
    }

    /// The next head, interim or final.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        context: &ResponseContext,
    ) -> Poll<Result<(Response<()>, ResponseHead), Lost>> {
        loop {
            self.heard |= !self.connection.inbound.is_empty();
            if !self.connection.inbound.is_empty() {
                let scanned = response_head(&mut self.scan, &self.connection, self.head_bytes);
                if let Some(len) = scanned.map_err(Lost::Failed)? {
                    return Poll::Ready(self.take_head(len, context).map_err(Lost::Failed));
                }
            }
            match self.connection.poll_fill(cx, self.head_bytes) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Filled::Bytes(_))) => {}
                Poll::Ready(Ok(Filled::Full)) => return Poll::Ready(Err(Lost::Failed(Failure::ResponseTooLarge))),
                Poll::Ready(end) => return Poll::Ready(Err(Lost::Ended { at_end: matches!(end, Ok(Filled::Eof)) })),
            }
        }
    }

    fn take_head(&mut self, len: usize, context: &ResponseContext) -> Result<(Response<()>, ResponseHead), Failure> {
        let mut response = Response::new(());
        let head = headers::response(&self.connection.inbound.unread()[..len], context, &mut Fields(&mut response))?;
        self.connection.inbound.consume(len);
        self.scan = HeadScan::default();
        self.source = Source::new(head.framing, self.head_bytes, self.fields);
        Ok((response, head))
    }

    /// Whether the backend has provably seen nothing of the request, of which `written` bytes were written.
    #[must_use]
    pub fn never_delivered(&self, written: u64, at_end: bool) -> bool {
        let silent = self.connection.reused && !self.heard;
        silent && (written == 0 || (at_end && self.connection.never_delivered(written)))
    }

    /// The next piece of the response's body.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        loop {
            let H1Back { connection, source, trailers, pieces, fields, .. } = self;
            match source.peek(&mut connection.inbound, trailers).map_err(|_bad| Broken::Malformed)? {
                Part::Bytes(n) => {
                    let data = source.take_pieces(&mut connection.inbound, trailers, n);
                    *pieces += 1;
                    return Poll::Ready(Ok(Piece::Data(data)));
                }
                Part::End => {
                    let section = std::mem::take(trailers);
                    let map = headers::trailers_to_h2(&section, *fields).map_err(|_bad| Broken::Malformed)?;
                    return Poll::Ready(Ok(Piece::End((!map.is_empty()).then_some(map))));
                }
                Part::NeedsMore => {}
            }
            let capacity = if *pieces > 4 { LARGE } else { SMALL };
            match connection.poll_fill(cx, capacity) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Filled::Bytes(_) | Filled::Full)) => {}
                Poll::Ready(Ok(Filled::Eof)) if source.ends_with_connection() => {
                    return Poll::Ready(Ok(Piece::End(None)));
                }
                Poll::Ready(_) => return Poll::Ready(Err(Broken::Gone)),
            }
        }
    }

    /// From now on bytes pass as they are.
    pub fn becomes_tunnel(&mut self) {
        self.connection.stream.set_keepalive(crate::proxy::tunnel::KEEPALIVE);
        self.chunked = false;
        self.source = Source::new(Framing::Close, 0, 0);
    }

    /// Passes on the end of what the client sends.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Pin::new(&mut self.connection.stream).poll_shutdown(cx).map_err(|_error| Gone)
    }

    /// Puts the connection back, if it is fit for another request.
    pub fn release(self, worker: &Worker, response: &ResponseHead, whole: bool) {
        service::release(worker, self.connection, response, whole);
    }
}

/// The fields of a response in pieces.
struct Fields<'a>(&'a mut Response<()>);

impl ResponseSink for Fields<'_> {
    fn status(&mut self, status: u16, _reason: &[u8]) {
        *self.0.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        // httparse has let only tokens and visible bytes through, which are what these types accept.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            self.0.headers_mut().append(name, value);
        }
    }
}
