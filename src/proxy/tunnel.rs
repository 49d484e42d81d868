//! A tunnel after a 101, or after a 2xx to an extended CONNECT: bytes both ways, each way ended on its own (half-close),
//! until both have ended.
//!
//! Between two that speak HTTP/1.1 bytes go from socket to socket; where one speaks HTTP/2 they go in pieces. What a drain
//! makes of a WebSocket is the same for both: each way is closed between two frames, as its receiver could have been by
//! its sender, and what the sender says after that is read for its own Close and nothing else.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite as _;

use crate::labels::{CloseReason, Direction, TunnelProtocol};
use crate::measure::Tunnel;
use crate::proxy::body::Outbox;
use crate::proxy::buffer::{Filled, SMALL, Window};
use crate::proxy::connection::Client;
use crate::proxy::exchange::{Back, Broken, Gone, Piece};
use crate::proxy::front::{Front, H1Front};
use crate::proxy::headers::RequestHead;
use crate::proxy::timer::Deadline;
use crate::proxy::upgrade;
use crate::proxy::upstream::Connection;
use crate::proxy::websocket::{CloseFrame, Frames, Sender};
use crate::proxy::worker::{Settings, Worker};
use crate::transport::Stream;

/// Silence after which a tunnel's peers are asked by TCP whether they are still there. Below the five minutes after
/// which the usual NAT forgets a connection.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long both ends of a WebSocket have to answer a Close. Libraries answer as soon as they read it, so this is a round
/// trip on a bad network, and one more for a lost packet; a deployment waits no longer for an end that never answers.
const ANSWER: Duration = Duration::from_secs(2);

/// How far one way of a tunnel has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Bytes pass as they are.
    Passing,
    /// The sender has ended, which is being passed on.
    Ending,
    /// A Close of ours is on its way to the receiver.
    Closing,
    /// It has been sent. What the sender says is read for its own Close only.
    Closed,
    /// Nothing moves this way any more.
    Over,
}

/// One way of a tunnel.
#[derive(Debug)]
struct Course {
    stage: Stage,
    /// Where frames end, if it is a WebSocket.
    frames: Option<Frames>,
    /// What the receiver is told once the current frame is whole.
    farewell: Option<CloseFrame>,
}

/// A tunnel: its two ways, and what a drain makes of them.
#[derive(Debug)]
struct Courses {
    up: Course,
    down: Course,
    /// The drain has been noticed.
    draining: bool,
    /// The time to answer runs.
    limited: bool,
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Both ways were over.
    Whole,
    /// Its time was over.
    Cut,
    /// One side failed.
    Failed,
}

impl Course {
    fn new(protocol: TunnelProtocol, sender: Sender) -> Course {
        let frames = (protocol == TunnelProtocol::WebSocket).then(|| Frames::new(sender));
        Course { stage: Stage::Passing, frames, farewell: None }
    }

    /// How many of these bytes may pass.
    fn passing(&self, bytes: &[u8]) -> usize {
        match (&self.farewell, &self.frames) {
            (Some(_), Some(frames)) => frames.rest_of_frame(bytes),
            _ => bytes.len(),
        }
    }

    /// These have come, and have passed or were dropped.
    fn follow(&mut self, bytes: &[u8]) {
        if let Some(frames) = &mut self.frames {
            frames.follow(bytes);
        }
    }

    /// Whether a Close of ours is due.
    fn is_to_close(&self) -> bool {
        self.farewell.is_some() && self.frames.as_ref().is_some_and(Frames::is_between_frames)
    }

    /// Whether somebody knows where frames end.
    fn is_followed(&self) -> bool {
        self.frames.as_ref().is_some_and(|frames| !frames.is_broken())
    }

    /// Whether the sender's own Close has come.
    fn has_closed(&self) -> bool {
        self.frames.as_ref().is_some_and(Frames::has_closed)
    }

    /// Whether the receiver knows that nothing more comes.
    fn is_closed(&self) -> bool {
        self.farewell.is_some() && matches!(self.stage, Stage::Closed | Stage::Over)
    }

    /// The part of the Close that is not sent yet.
    fn unsent(&self) -> &[u8] {
        self.farewell.as_ref().map_or(&[], CloseFrame::unsent)
    }

    fn sent(&mut self, n: usize) {
        self.farewell.iter_mut().for_each(|close| close.sent(n));
    }

    /// Bytes of a sender that nobody listens to any more.
    fn hear_out(&mut self, bytes: &[u8]) {
        self.follow(bytes);
        if self.has_closed() {
            self.stage = Stage::Over;
        }
    }
}

impl Courses {
    fn new(protocol: TunnelProtocol) -> Courses {
        let (up, down) = (Course::new(protocol, Sender::Client), Course::new(protocol, Sender::Server));
        Courses { up, down, draining: false, limited: false }
    }

    /// Has both ways close if the sidecar drains, unless the ends are closing already or one of them speaks something else.
    fn look(&mut self, worker: &Worker) {
        let Courses { up, down, draining, .. } = self;
        if *draining || !worker.is_draining() || !up.is_followed() || !down.is_followed() {
            return;
        }
        *draining = true;
        if !up.has_closed() && !down.has_closed() {
            let [a, b, c, d, ..] = upgrade::unforeseeable();
            up.farewell = Some(CloseFrame::from_client([a, b, c, d]));
            down.farewell = Some(CloseFrame::from_server());
        }
    }

    /// Whether the tunnel must end, after a look at what has moved. If not, the task is woken when it must, or when the
    /// sidecar drains.
    fn stopped(&mut self, worker: &Worker, cx: &Context<'_>, deadline: &Deadline) -> bool {
        let theirs = self.up.has_closed() || self.down.has_closed();
        if self.draining && !self.limited && (self.is_closed() || (self.up.farewell.is_none() && theirs)) {
            self.limited = true;
            deadline.arm(ANSWER);
        }
        worker.stopped(cx, deadline).is_some()
    }

    /// Whether both ends know that nothing more comes.
    fn is_closed(&self) -> bool {
        self.up.is_closed() && self.down.is_closed()
    }

    /// Why the backend's connection is closed.
    fn reason(&self, end: End) -> CloseReason {
        match end {
            _ if self.is_closed() => CloseReason::Drain,
            End::Whole => CloseReason::Peer,
            End::Cut => CloseReason::Drain,
            End::Failed => CloseReason::Error,
        }
    }
}

// === From socket to socket ===

/// Moves bytes until one side would block, or nothing moves this way any more.
fn poll_way(
    cx: &mut Context<'_>,
    way: &mut Course,
    from: &mut Stream,
    window: &mut Window,
    to: &mut Stream,
    count: impl Fn(u64),
) -> Poll<io::Result<()>> {
    loop {
        match way.stage {
            Stage::Passing => {
                loop {
                    let bytes = &window.unread()[..way.passing(window.unread())];
                    if bytes.is_empty() {
                        break;
                    }
                    let n = ready!(Pin::new(&mut *to).poll_write(cx, bytes))?;
                    way.follow(&bytes[..n]);
                    count(n as u64);
                    window.consume(n);
                }
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                if way.is_to_close() {
                    way.stage = Stage::Closing;
                } else if ready!(window.poll_fill(cx, from, SMALL))? == Filled::Eof {
                    way.stage = Stage::Ending;
                }
            }
            Stage::Ending => {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                way.stage = Stage::Over;
            }
            Stage::Closing => {
                while !way.unsent().is_empty() {
                    let n = ready!(Pin::new(&mut *to).poll_write(cx, way.unsent()))?;
                    way.sent(n);
                }
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                way.stage = Stage::Closed;
            }
            Stage::Closed => {
                way.hear_out(window.unread());
                window.consume(window.unread().len());
                // To close without an answer, even by a reset, is the sender's right: it has been told.
                if way.stage == Stage::Closed
                    && !matches!(ready!(window.poll_fill(cx, from, SMALL)), Ok(Filled::Bytes(_) | Filled::Full))
                {
                    way.stage = Stage::Over;
                }
            }
            Stage::Over => return Poll::Ready(Ok(())),
        }
    }
}

/// Carries a tunnel between two that speak HTTP/1.1 until both ways are over, one side failed, or a drain has had its time.
/// Returns who ended it.
pub async fn between_sockets(
    worker: &Worker,
    mut client: Client,
    mut connection: Box<Connection>,
    protocol: TunnelProtocol,
) -> CloseReason {
    // A tunnel may be silent for ever; a peer that is gone must not hold it.
    for stream in [&client.stream, &connection.stream] {
        stream.set_keepalive(KEEPALIVE);
    }
    let tunnel = Tunnel::open(&worker.meter, protocol);
    client.deadline.clear();
    let mut courses = Courses::new(protocol);
    let end = poll_fn(|cx| {
        let Client { stream, inbound, deadline, .. } = &mut client;
        let Connection { stream: backend, inbound: from_backend, .. } = &mut *connection;
        courses.look(worker);
        let Courses { up, down, .. } = &mut courses;
        let sent = poll_way(cx, up, stream, inbound, backend, |n| tunnel.bytes(Direction::Sent, n));
        let received = poll_way(cx, down, backend, from_backend, stream, |n| tunnel.bytes(Direction::Received, n));
        match (sent, received) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(End::Failed),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(End::Whole),
            _ if courses.stopped(worker, cx, deadline) => Poll::Ready(End::Cut),
            _ => Poll::Pending,
        }
    })
    .await;
    if courses.is_closed() {
        client.stream.say_goodbye();
        connection.stream.say_goodbye();
    }
    let reason = courses.reason(end);
    connection.close(reason);
    reason
}

// === In pieces ===

/// Where the pieces of one way come from.
trait Source {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>>;
    /// `n` bytes have gone on: as many more may come.
    fn release(&mut self, n: usize);
}

/// Where they go.
trait Sink {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>>;
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Gone>>;
    fn send(&mut self, bytes: Bytes) -> Result<(), Gone>;
    fn finish(&mut self) -> Result<(), Gone>;
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>>;
}

/// The backend, and what is to be written to it.
struct ToBack<'a>(&'a mut Back, &'a mut Outbox);

impl Source for Front<'_> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        Front::poll_piece(self, cx)
    }

    fn release(&mut self, n: usize) {
        Front::release(self, n);
    }
}

impl Source for Back {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        Back::poll_piece(self, cx)
    }

    fn release(&mut self, n: usize) {
        Back::release(self, n);
    }
}

impl Sink for Front<'_> {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Front::poll_flush(self, cx)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Gone>> {
        Front::poll_room(self, cx, wanted)
    }

    fn send(&mut self, bytes: Bytes) -> Result<(), Gone> {
        Front::send(self, bytes)
    }

    fn finish(&mut self) -> Result<(), Gone> {
        Front::finish(self, None)
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Front::poll_ended(self, cx)
    }
}

impl Sink for ToBack<'_> {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.0.poll_flush(cx, self.1)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Gone>> {
        self.0.poll_room(cx, wanted)
    }

    fn send(&mut self, bytes: Bytes) -> Result<(), Gone> {
        self.0.send(bytes, self.1)
    }

    fn finish(&mut self) -> Result<(), Gone> {
        self.0.finish(None, self.1)
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.0.poll_ended(cx)
    }
}

/// As [`poll_way`]. `piece`: what was read and has not been sent.
fn poll_pieces(
    cx: &mut Context<'_>,
    way: &mut Course,
    piece: &mut Bytes,
    from: &mut impl Source,
    to: &mut impl Sink,
    count: impl Fn(u64),
) -> Poll<Result<(), Gone>> {
    loop {
        // What a receiver does that has been told is no matter: what it has said is still on its way.
        if !matches!(way.stage, Stage::Closed | Stage::Over) {
            ready!(to.poll_flush(cx))?;
        }
        match way.stage {
            Stage::Passing => {
                let passing = way.passing(piece);
                if passing > 0 {
                    let room = ready!(to.poll_room(cx, passing))?;
                    let part = piece.split_to(room.min(passing));
                    way.follow(&part);
                    from.release(part.len());
                    count(part.len() as u64);
                    to.send(part)?;
                } else if way.is_to_close() {
                    way.stage = Stage::Closing;
                } else {
                    match ready!(from.poll_piece(cx)).map_err(|_broken| Gone)? {
                        Piece::Data(bytes) => *piece = bytes,
                        Piece::End(_) => {
                            to.finish()?;
                            way.stage = Stage::Ending;
                        }
                    }
                }
            }
            Stage::Ending => {
                ready!(to.poll_ended(cx))?;
                way.stage = Stage::Over;
            }
            Stage::Closing if way.unsent().is_empty() => {
                // Behind it the stream ends, so that the receiver sees its end before anybody lets go of it.
                to.finish()?;
                way.stage = Stage::Closed;
            }
            Stage::Closing => {
                let room = ready!(to.poll_room(cx, way.unsent().len()))?;
                let part = Bytes::copy_from_slice(&way.unsent()[..room.min(way.unsent().len())]);
                way.sent(part.len());
                to.send(part)?;
            }
            Stage::Closed => {
                way.hear_out(piece);
                from.release(piece.len());
                piece.clear();
                if way.stage == Stage::Closed {
                    match ready!(from.poll_piece(cx)) {
                        Ok(Piece::Data(bytes)) => *piece = bytes,
                        Ok(Piece::End(_)) | Err(_) => way.stage = Stage::Over,
                    }
                }
            }
            Stage::Over => return Poll::Ready(Ok(())),
        }
    }
}

/// Carries a tunnel between an HTTP/1.1 client and a backend that speaks HTTP/2.
pub async fn in_pieces(
    worker: &Worker,
    settings: &Settings,
    mut client: Client,
    head: &RequestHead,
    back: Back,
    protocol: TunnelProtocol,
) -> CloseReason {
    let deadline = worker.timers.slot();
    let mut outbox = Outbox::default();
    let mut front = Front::H1(H1Front::new(&mut client, head, settings.sizes()));
    front.becomes_tunnel();
    carry(worker, &mut front, back, &mut outbox, protocol, &deadline).await
}

/// As [`between_sockets`], where one side speaks HTTP/2.
pub async fn carry(
    worker: &Worker,
    front: &mut Front<'_>,
    mut back: Back,
    outbox: &mut Outbox,
    protocol: TunnelProtocol,
    deadline: &Deadline,
) -> CloseReason {
    let tunnel = Tunnel::open(&worker.meter, protocol);
    deadline.clear();
    if let Back::H1(back) = &mut back {
        back.becomes_tunnel();
    }
    outbox.reset();
    let mut courses = Courses::new(protocol);
    let (mut upward, mut downward) = (Bytes::new(), Bytes::new());
    let end = poll_fn(|cx| {
        courses.look(worker);
        let Courses { up, down, .. } = &mut courses;
        let mut to_back = ToBack(&mut back, outbox);
        let sent = poll_pieces(cx, up, &mut upward, front, &mut to_back, |n| tunnel.bytes(Direction::Sent, n));
        let received = poll_pieces(cx, down, &mut downward, &mut back, front, |n| tunnel.bytes(Direction::Received, n));
        match (sent, received) {
            (Poll::Ready(Err(Gone)), _) | (_, Poll::Ready(Err(Gone))) => Poll::Ready(End::Failed),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(End::Whole),
            // A stream may be reset while nothing is read from it or written to it. Of the backend's the way up tells, and
            // that down once it is over.
            _ if front.has_left(cx, true) => Poll::Ready(End::Failed),
            _ if courses.stopped(worker, cx, deadline) => Poll::Ready(End::Cut),
            _ => Poll::Pending,
        }
    })
    .await;
    if courses.is_closed() {
        // Under TLS this is no cut; to a stream it has been said.
        let mut cx = Context::from_waker(Waker::noop());
        let _written = (front.poll_ended(&mut cx), back.poll_ended(&mut cx));
    }
    let reason = courses.reason(end);
    match back {
        Back::H1(back) => back.connection.close(reason),
        // A reset would take back what is on its way.
        Back::H2(_) if end == End::Whole || courses.is_closed() => {}
        back @ Back::H2(_) => back.cancel(),
    }
    reason
}
