//! The client's side of an exchange in pieces, over HTTP/1.x or as a stream of HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response};
use tokio::io::AsyncWrite as _;

use crate::proxy::body::{Outbox, Piece as Part, Source};
use crate::proxy::buffer::{Filled, LARGE, SMALL};
use crate::proxy::connection::Client;
use crate::proxy::error::Stop;
use crate::proxy::exchange::{Broken, Gone, Piece};
use crate::proxy::h1::{Framing, write_chunk_head, write_last_chunk};
use crate::proxy::headers::{self, RequestHead, ResponseHead};
use crate::proxy::multiplex::{broken, poll_capacity, poll_recv};
use crate::proxy::service::{After, client_left};
use crate::proxy::timer::Deadline;
use crate::proxy::tunnel;
use crate::proxy::upgrade;
use crate::proxy::worker::Worker;

/// The client's side of an exchange.
pub enum Front<'a> {
    /// A connection of HTTP/1.x.
    H1(H1Front<'a>),
    /// A stream of HTTP/2.
    H2(H2Front),
}

/// A request on a connection of HTTP/1.x.
pub struct H1Front<'a> {
    client: &'a mut Client,
    source: Source,
    trailers: Vec<u8>,
    fields: usize,
    http10: bool,
    /// The answer is sent in chunks.
    chunked: bool,
    /// An interim answer was written.
    continued: bool,
    /// Where the head of the answer is; `None` before it.
    head: Option<Place>,
}

/// Where a head is among the bytes to the client.
#[derive(Clone, Copy)]
struct Place {
    /// In the buffer, as long as nothing of it has been written.
    at: usize,
    /// Bytes that will have been written before it.
    start: u64,
    /// Bytes that will have been written with it.
    end: u64,
}

/// A stream of HTTP/2.
pub struct H2Front {
    respond: SendResponse<Bytes>,
    body: RecvStream,
    /// What came behind the last piece, if that was looked at already.
    next: Option<Result<Piece, Broken>>,
    /// The answer, once its head was sent.
    send: Option<SendStream<Bytes>>,
    /// Interim answers that were sent.
    interim: u32,
    ended: bool,
}

/// Pieces smaller than this go on together, if more are there. What clients send in crumbs would come to a shared
/// connection to the backend as a flood of frames, and servers end a connection for that, with all that is on it.
const CRUMB: usize = 4096;

/// Interim answers that a stream passes on: each is a frame in a buffer that the client may not read.
const INTERIM_MAX: u32 = 16;

impl<'a> H1Front<'a> {
    /// The request that was read from `client`.
    #[must_use]
    pub fn new(client: &'a mut Client, head: &RequestHead, (head_bytes, fields): (usize, usize)) -> H1Front<'a> {
        H1Front {
            client,
            source: Source::new(head.framing, head_bytes, fields),
            trailers: Vec::new(),
            fields,
            http10: head.http10,
            chunked: false,
            continued: false,
            head: None,
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        loop {
            let Client { stream, inbound, .. } = &mut *self.client;
            match self.source.peek(inbound, &mut self.trailers).map_err(|_bad| Broken::Malformed)? {
                Part::Bytes(n) => {
                    let data = self.source.take_pieces(inbound, &mut self.trailers, n);
                    return Poll::Ready(Ok(Piece::Data(data)));
                }
                Part::End => {
                    let section = std::mem::take(&mut self.trailers);
                    let map = headers::trailers_to_h2(&section, self.fields).map_err(|_bad| Broken::Malformed)?;
                    return Poll::Ready(Ok(Piece::End((!map.is_empty()).then_some(map))));
                }
                Part::NeedsMore => {}
            }
            match inbound.poll_fill(cx, stream, SMALL) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Filled::Bytes(_) | Filled::Full)) => {}
                Poll::Ready(Ok(Filled::Eof)) if self.source.ends_with_connection() => {
                    return Poll::Ready(Ok(Piece::End(None)));
                }
                Poll::Ready(_) => return Poll::Ready(Err(Broken::Gone)),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        let out = &mut self.client.reply.bytes;
        if self.chunked {
            write_chunk_head(out, bytes.len());
        }
        out.extend_from_slice(bytes);
        if self.chunked {
            out.extend_from_slice(b"\r\n");
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let Client { stream, reply, committed, .. } = &mut *self.client;
        let flushed = reply.poll_flush(cx, stream);
        *committed |= self.head.is_some_and(|head| reply.total > head.start);
        if flushed.is_ready() {
            reply.forget_written();
        }
        flushed.map_err(|_error| Gone)
    }
}

impl H2Front {
    /// The request that was accepted.
    #[must_use]
    pub fn new(respond: SendResponse<Bytes>, body: RecvStream) -> H2Front {
        H2Front { respond, body, next: None, send: None, interim: 0, ended: false }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(next);
        }
        let first = match ready!(poll_recv(&mut self.body, cx).map_err(|error| broken(&error))) {
            Ok(Piece::Data(first)) => first,
            other => return Poll::Ready(other),
        };
        let mut crumbs = BytesMut::new();
        while first.len().max(crumbs.len()) < CRUMB {
            match poll_recv(&mut self.body, cx).map_err(|error| broken(&error)) {
                Poll::Pending => break,
                Poll::Ready(Ok(Piece::Data(more))) => {
                    if crumbs.is_empty() {
                        crumbs.extend_from_slice(&first);
                    }
                    crumbs.extend_from_slice(&more);
                }
                Poll::Ready(other) => {
                    self.next = Some(other);
                    break;
                }
            }
        }
        Poll::Ready(Ok(Piece::Data(if crumbs.is_empty() { first } else { crumbs.freeze() })))
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.send {
            Some(send) => send.poll_reset(cx).is_ready(),
            None => self.respond.poll_reset(cx).is_ready(),
        }
    }

    /// Sends an answer with this body, whole.
    pub fn answer(&mut self, response: Response<()>, body: Bytes) {
        let ended = body.is_empty();
        if let Ok(mut send) = self.respond.send_response(response, ended)
            && !ended
        {
            // A few dozen bytes: they wait for the window inside.
            let _gone = send.send_data(body, true);
        }
    }

    /// Whether the head of the answer has been sent.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.send.is_some()
    }

    /// Ends the stream before its time.
    pub fn reset(&mut self, reason: Reason) {
        match &mut self.send {
            Some(send) => send.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

impl Front<'_> {
    /// The next piece of the request's body.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        match self {
            Front::H1(front) => front.poll_piece(cx),
            Front::H2(front) => front.poll_piece(cx),
        }
    }

    /// Request bytes have gone on: the client may send as many more.
    pub fn release(&mut self, n: usize) {
        if let Front::H2(front) = self {
            let _ended = front.body.flow_control().release_capacity(n);
        }
    }

    /// All of the request has been sent on.
    pub fn upload_is_complete(&mut self) {
        if let Front::H1(front) = self {
            front.client.upload_complete = true;
        }
    }

    /// Whether the client has left. While its body is being read, reading tells.
    pub fn has_left(&mut self, cx: &mut Context<'_>, reading: bool) -> bool {
        match self {
            Front::H1(front) => {
                let Client { stream, inbound, .. } = &mut *front.client;
                !reading && client_left(cx, stream, inbound)
            }
            Front::H2(front) => front.poll_reset(cx),
        }
    }

    /// Whether a wait must end.
    pub fn interrupted(&mut self, cx: &mut Context<'_>, worker: &Worker, deadline: &Deadline) -> Option<Stop> {
        if worker.is_cut() {
            return Some(Stop::Cut);
        }
        let left = match self {
            Front::H1(front) => client_left(cx, &mut front.client.stream, &mut front.client.inbound),
            Front::H2(front) => front.poll_reset(cx),
        };
        if left { Some(Stop::ClientLeft) } else { worker.stopped(cx, deadline) }
    }

    /// Passes on an interim answer, unless the client speaks HTTP/1.0 or there are too many (RFC 9110, section 15.2).
    pub fn interim(&mut self, response: &Response<()>) {
        match self {
            Front::H1(front) => {
                let reply = &mut front.client.reply;
                // A backend that sends interim responses faster than the client reads them is not worth a buffer.
                if !front.http10 && reply.pending() <= SMALL {
                    headers::write_response(response, &mut reply.bytes);
                    reply.bytes.extend_from_slice(b"\r\n");
                    front.continued = true;
                }
            }
            Front::H2(front) => {
                front.interim += 1;
                if front.interim <= INTERIM_MAX {
                    let mut copy = Response::new(());
                    *copy.status_mut() = response.status();
                    copy.headers_mut().clone_from(response.headers());
                    let _gone = front.respond.send_informational(copy);
                }
            }
        }
    }

    /// Whether the client was told to go on with its body, or something else before the answer.
    #[must_use]
    pub fn was_told_to_continue(&self) -> bool {
        match self {
            Front::H1(front) => front.continued,
            Front::H2(front) => front.interim > 0,
        }
    }

    /// Sends the head of the answer. `ended`: nothing follows.
    ///
    /// # Errors
    /// When the client is not there any more.
    pub fn head(
        &mut self,
        response: Response<()>,
        answered: &ResponseHead,
        head: &RequestHead,
        ended: bool,
    ) -> Result<(), Gone> {
        match self {
            Front::H1(front) => {
                let to_head = head.method == crate::labels::Method::Head;
                let reply = &mut front.client.reply;
                let (at, start) = (reply.bytes.len(), reply.total + reply.pending() as u64);
                headers::write_response(&response, &mut reply.bytes);
                headers::write_response_framing(&mut reply.bytes, answered, to_head, head.http10);
                front.head = Some(Place { at, start, end: reply.total + reply.pending() as u64 });
                front.chunked = answered.out_framing == Framing::Chunked && !ended;
                front.client.ends_by_close = answered.out_framing == Framing::Close;
                Ok(())
            }
            Front::H2(front) => {
                let mut response = response;
                // 426 has it in HTTP/1.1.
                response.headers_mut().remove(http::header::UPGRADE);
                front.ended = ended;
                front.send = Some(front.respond.send_response(response, ended).map_err(|_gone| Gone)?);
                Ok(())
            }
        }
    }

    /// Whether the head of the answer is on its way.
    #[must_use]
    pub fn head_is_out(&self) -> bool {
        match self {
            Front::H1(front) => front.head.is_some_and(|head| front.client.reply.total >= head.end),
            Front::H2(front) => front.send.is_some(),
        }
    }

    /// Whether a part of the answer has been sent: then there can be no answer of our own any more.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        match self {
            Front::H1(front) => front.client.committed,
            Front::H2(front) => front.send.is_some(),
        }
    }

    /// Takes back an answer of which nothing has been sent, so that another one can be given.
    pub fn withdraw(&mut self) {
        if let Front::H1(front) = self
            && !front.client.committed
            && let Some(head) = front.head
        {
            front.client.reply.bytes.truncate(head.at);
        }
    }

    /// Whether so much waits to be written that it must be written first.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Front::H1(front) => front.client.reply.pending() >= SMALL,
            Front::H2(_) => false,
        }
    }

    /// Room for some of `wanted` bytes of the answer.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Gone>> {
        match self {
            Front::H1(_) => Poll::Ready(Ok(LARGE)),
            Front::H2(front) => match &mut front.send {
                Some(send) => poll_capacity(send, cx, wanted),
                None => Poll::Ready(Err(Gone)),
            },
        }
    }

    /// Sends bytes of the answer, at most what there is room for.
    ///
    /// # Errors
    /// When the client is not there any more.
    pub fn send(&mut self, bytes: Bytes) -> Result<(), Gone> {
        match self {
            Front::H1(front) => {
                front.send(&bytes);
                Ok(())
            }
            Front::H2(H2Front { send: Some(send), .. }) => send.send_data(bytes, false).map_err(|_gone| Gone),
            Front::H2(_) => Err(Gone),
        }
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// When the client is not there any more.
    pub fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Gone> {
        match self {
            Front::H1(front) if front.chunked => {
                let section = trailers.as_ref().map(headers::trailers_to_h1).unwrap_or_default();
                write_last_chunk(&mut front.client.reply.bytes, &section);
                Ok(())
            }
            Front::H2(front) if !front.ended => {
                front.ended = true;
                let Some(send) = &mut front.send else { return Err(Gone) };
                match trailers {
                    Some(trailers) => send.send_trailers(trailers),
                    None => send.send_data(Bytes::new(), true),
                }
                .map_err(|_gone| Gone)
            }
            Front::H1(_) | Front::H2(_) => Ok(()),
        }
    }

    /// Writes what waits to be written; the frames of HTTP/2 are written by their connection.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match self {
            Front::H1(front) => front.poll_flush(cx),
            Front::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// What becomes of the client's connection after the answer.
    #[must_use]
    pub fn after(&self, answered: &ResponseHead, head: &RequestHead, whole: bool) -> After {
        let Front::H1(front) = self else { return After::KeepAlive };
        match (answered.keep_alive, whole) {
            (true, true) => After::KeepAlive,
            (_, false) => After::Linger,
            // The client may have sent its next request already: closing at once would reset the connection.
            (false, true) if head.keep_alive || !front.client.inbound.is_empty() => After::Linger,
            (false, true) => After::Close,
        }
    }

    /// Sends the answer that opens a tunnel, made of the backend's `response`; bytes pass as they are from then on.
    /// `outbox` holds the request as the backend has got it.
    pub fn tunnel(&mut self, response: &mut Response<()>, outbox: &Outbox) {
        match self {
            Front::H1(front) => {
                if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
                    upgrade::accept_upgrade(response, &outbox.bytes);
                }
                let client = &mut *front.client;
                headers::write_response(response, &mut client.reply.bytes);
                client.reply.bytes.extend_from_slice(b"Connection: upgrade\r\n\r\n");
                client.committed = true;
            }
            Front::H2(front) => {
                headers::accept_connect(response);
                response.headers_mut().remove(CONTENT_LENGTH);
                let mut answer = Response::new(());
                std::mem::swap(&mut answer, response);
                front.send = front.respond.send_response(answer, false).ok();
            }
        }
    }

    /// From now on bytes pass as they are.
    pub fn becomes_tunnel(&mut self) {
        if let Front::H1(front) = self {
            front.client.stream.set_keepalive(tunnel::KEEPALIVE);
            front.source = Source::new(Framing::Close, 0, 0);
            front.chunked = false;
        }
    }

    /// Passes on that the backend will send no more through the tunnel.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match self {
            Front::H1(front) => Pin::new(&mut front.client.stream).poll_shutdown(cx).map_err(|_error| Gone),
            Front::H2(_) => Poll::Ready(Ok(())),
        }
    }
}
