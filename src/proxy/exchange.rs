//! One exchange in pieces: for every pair of a client and a backend of which one speaks HTTP/2. `service.rs` has the
//! shorter way of bytes between two that speak HTTP/1.1; what both do is the same, step by step, and in the same order.
//!
//! ```text
//! client ──► Front ──► pieces ──► Back ──► backend        upload
//! client ◄── Front ◄── pieces ◄── Back ◄── backend        download
//! ```
//! At most one piece each way is held here. What a window has room for is asked first, so a side that does not read stops
//! the other one; HTTP/2 bytes count as read when they have gone on.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::labels::{CloseReason, Failure, Method, Phase, RetryResult, RpcStatus, TunnelProtocol};
use crate::measure::{self, Moment, Observation, ResponseKind, Rpc};
use crate::proxy::body::Outbox;
use crate::proxy::buffer::{LARGE, SMALL};
use crate::proxy::error::{Stop, Trouble};
use crate::proxy::front::Front;
use crate::proxy::grpc::{self, Messages};
use crate::proxy::h1::Framing;
use crate::proxy::h1_back::{H1Back, Lost};
use crate::proxy::headers::{self, RequestHead, ResponseContext, ResponseHead, ToH2};
use crate::proxy::judge::Judge;
use crate::proxy::multiplex::{H2Back, Head, NoHead};
use crate::proxy::service::After;
use crate::proxy::timer::Deadline;
use crate::proxy::upstream::Obtained;
use crate::proxy::worker::{Settings, Worker};

/// What a call of gRPC may take longer than its client waits. The client is the one to give up, and says so; this is for
/// one that is gone, or does not keep to its word.
const CALL_GRACE: Duration = Duration::from_secs(1);

/// The longest deadline that is believed: who wants longer streams, and a stream needs none.
const CALL_MAX: Duration = Duration::from_secs(24 * 3600);

/// A piece of a body.
#[derive(Debug)]
pub enum Piece {
    /// Bytes, at least one.
    Data(Bytes),
    /// The end, with trailers if there are any.
    End(Option<HeaderMap>),
}

/// A side is not there any more, or reads no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Why a body ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Its sender is not there any more.
    Gone,
    /// Its framing is broken.
    Malformed,
}

/// The backend's side of an exchange.
#[derive(Debug)]
pub enum Back {
    /// A connection of its own, of HTTP/1.1.
    H1(H1Back),
    /// A stream of HTTP/2.
    H2(Box<H2Back>),
}

/// How an exchange ended when nothing failed.
#[derive(Debug)]
pub enum Done {
    /// The answer has ended; what becomes of the client's connection, and since when it has ended.
    Finished(After, Moment),
    /// A tunnel: when the backend's answer had been received, and when it was handed on.
    Tunnel(Back, TunnelProtocol, Moment, Moment),
}

/// A request that is carried: everything that its steps share.
pub struct Exchange<'a, 'b> {
    /// The worker.
    pub worker: &'a Worker,
    /// Its settings when the request came.
    pub settings: &'a Settings,
    /// The request.
    pub head: &'a RequestHead,
    /// The path, if nobody knows it: its answer may earn it a label.
    pub unknown_path: &'a [u8],
    /// The client.
    pub front: &'a mut Front<'b>,
    /// The head for the backend.
    pub outbox: &'a mut Outbox,
    /// Fires when somebody has been silent for too long.
    pub deadline: &'a Deadline,
    /// The measurement.
    pub observation: &'a mut Observation,
}

/// The request's body on its way.
struct Upload {
    state: Sending,
    /// Read and not yet sent.
    piece: Option<Bytes>,
    /// What has been read, as long as it is little: a request that the backend has not looked at is sent again with it.
    kept: Vec<Bytes>,
    /// Pieces of those that have been sent, in this attempt.
    resent: usize,
    /// Bytes that have been sent on, in the attempt that came furthest.
    sent_once: u64,
    /// Bytes that the declared length still asks for.
    left: Option<u64>,
    limit: u64,
    total: u64,
    /// All of it has been read; with these trailers.
    ended: bool,
    trailers: Option<HeaderMap>,
    /// The backend has been told the end.
    finished: bool,
    /// There was none from the start.
    bodyless: bool,
    rpc: bool,
    /// It waits for the client, not for the backend.
    wants_client: bool,
    /// Counts up whenever bytes moved.
    progress: u64,
    messages: Messages,
}

/// What is kept of a request's body until its answer begins: a usual call of gRPC.
const KEPT_BYTES: u64 = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Body,
    /// All of it has been sent.
    Sent,
    /// The backend reads no more.
    Stopped,
}

/// Why there is no answer.
enum NoAnswer {
    Trouble(Trouble),
    /// The backend has provably not looked at the request, and all of it can be sent again.
    NeverDelivered,
}

impl From<Trouble> for NoAnswer {
    fn from(trouble: Trouble) -> NoAnswer {
        NoAnswer::Trouble(trouble)
    }
}

/// An answer whose head is there.
struct Answer {
    response: Response<()>,
    head: ResponseHead,
}

impl Back {
    /// Sends the head in `outbox` on what was obtained.
    fn begin(
        obtained: Obtained,
        head: &RequestHead,
        outbox: &Outbox,
        limits: (usize, usize),
    ) -> Result<Back, NoAnswer> {
        match obtained {
            Obtained::Connection(connection) => Ok(Back::H1(H1Back::new(connection, head.framing, limits))),
            Obtained::Lease(lease) => {
                let to = ToH2 {
                    secure: lease.secure(),
                    takes_trailers: head.takes_trailers || head.rpc.is_some(),
                    connects: lease.connects() && head.framing == Framing::None,
                    max_fields: limits.1,
                };
                let bad = Trouble::Failed(Failure::BadRequest, Phase::Send);
                let request = headers::request_to_h2(&outbox.bytes, to).ok_or(bad)?;
                let tunnel = request.method() == http::Method::CONNECT;
                let ended = !tunnel && matches!(head.framing, Framing::None | Framing::Length(0));
                let back = lease.send(request, ended).map_err(|_lease| NoAnswer::NeverDelivered)?;
                Ok(Back::H2(Box::new(back)))
            }
        }
    }

    /// Writes what waits to be written; the frames of HTTP/2 are written by their connection.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<Result<(), Gone>> {
        match self {
            Back::H1(back) => back.poll_flush(cx, outbox),
            Back::H2(back) => back.poll_stopped(cx),
        }
    }

    /// How many of `wanted` bytes may be sent now.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Gone>> {
        match self {
            Back::H1(_) => Poll::Ready(Ok(LARGE)),
            Back::H2(back) => back.poll_room(cx, wanted),
        }
    }

    pub(super) fn send(&mut self, bytes: Bytes, outbox: &mut Outbox) -> Result<(), Gone> {
        match self {
            Back::H1(back) => {
                back.send(&bytes, outbox);
                Ok(())
            }
            Back::H2(back) => back.send(bytes),
        }
    }

    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>, outbox: &mut Outbox) -> Result<(), Gone> {
        match self {
            Back::H1(back) => {
                back.finish(trailers.as_ref(), outbox);
                Ok(())
            }
            Back::H2(back) => back.finish(trailers),
        }
    }

    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        match self {
            Back::H1(back) => back.poll_piece(cx),
            Back::H2(back) => back.poll_piece(cx),
        }
    }

    pub(super) fn release(&mut self, n: usize) {
        if let Back::H2(back) = self {
            back.release(n);
        }
    }

    /// Passes on that the client will send no more through the tunnel.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match self {
            Back::H1(back) => back.poll_shutdown(cx),
            Back::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// The request may not be sent to its end any more, or nobody wants the rest of the answer.
    pub fn cancel(self) {
        match self {
            Back::H1(back) => back.connection.close(CloseReason::Error),
            Back::H2(mut back) => back.cancel(),
        }
    }
}

impl Exchange<'_, '_> {
    /// Carries the request, from the room for it to the last byte of the answer. `obtained`: with what, and since when.
    ///
    /// # Errors
    /// When it fails, or the client leaves.
    pub async fn run(&mut self, obtained: Obtained, since: Moment) -> Result<Done, Trouble> {
        let call_deadline = self.worker.timers.slot();
        if let Some(Rpc { deadline: Some(time) }) = self.head.rpc {
            call_deadline.arm(time.min(CALL_MAX) + CALL_GRACE);
        }
        let limit = self.settings.limits.request_body_bytes;
        let ended = matches!(self.head.framing, Framing::None | Framing::Length(0));
        let mut upload = Upload {
            state: Sending::Body,
            piece: None,
            kept: Vec::new(),
            resent: 0,
            sent_once: 0,
            left: if let Framing::Length(n) = self.head.framing { Some(n) } else { None },
            limit: limit.unwrap_or(u64::MAX),
            total: 0,
            ended,
            trailers: None,
            finished: ended,
            bodyless: ended,
            rpc: self.head.rpc.is_some(),
            wants_client: false,
            progress: 0,
            messages: Messages::default(),
        };
        let mut result = self.attempt(obtained, since, &mut upload, &call_deadline).await;
        if matches!(result, Err(NoAnswer::NeverDelivered)) {
            self.outbox.rewind();
            upload.begin_again();
            let (worker, settings) = (self.worker, self.settings);
            let new = {
                let Exchange { front, deadline, observation, .. } = &mut *self;
                let mut watch = |cx: &mut Context<'_>| front.interrupted(cx, worker, deadline);
                worker.pool.obtain_new(settings, deadline, observation, &mut watch).await
            };
            result = match new {
                Ok((obtained, since)) => self.attempt(obtained, since, &mut upload, &call_deadline).await,
                Err(trouble) => Err(trouble.into()),
            };
            let outcome = if result.is_ok() { RetryResult::Success } else { RetryResult::Failure };
            worker.pool_gauges.replayed(outcome);
        }
        let (back, answer) = result.map_err(|none| match none {
            NoAnswer::Trouble(trouble) => trouble,
            NoAnswer::NeverDelivered => Trouble::Failed(Failure::ResetBeforeHead, Phase::Send),
        })?;
        self.relay(back, answer, upload, &call_deadline).await
    }

    /// Sends the request and waits for the final head of the answer.
    async fn attempt(
        &mut self,
        obtained: Obtained,
        since: Moment,
        upload: &mut Upload,
        call_deadline: &Deadline,
    ) -> Result<(Back, Answer), NoAnswer> {
        let mut back = Back::begin(obtained, self.head, self.outbox, self.settings.sizes())?;
        match self.send_and_wait(&mut back, since, upload, call_deadline).await {
            Ok(answer) => Ok((back, answer)),
            Err(error) => {
                if let (Back::H2(back), NoAnswer::Trouble(Trouble::Failed(Failure::HeadTimeout, _))) = (&back, &error) {
                    back.doubt();
                }
                back.cancel();
                Err(error)
            }
        }
    }

    async fn send_and_wait(
        &mut self,
        back: &mut Back,
        since: Moment,
        upload: &mut Upload,
        call_deadline: &Deadline,
    ) -> Result<Answer, NoAnswer> {
        let Exchange { worker, settings, head, front, outbox, deadline, observation, .. } = self;
        let mut head_written = false;
        let mut armed = None;
        let context = ResponseContext {
            to_head: head.method == Method::Head,
            http10: head.http10,
            keep_alive: head.keep_alive,
            upgrade: head.upgrade.is_some(),
            max_fields: settings.limits.headers,
            via: settings.via,
        };
        poll_fn(|cx| {
            if upload.state == Sending::Body {
                upload.poll(cx, front, back, outbox, observation)?;
                if outbox.is_empty() && !head_written || matches!(back, Back::H2(_)) {
                    head_written = true;
                    observation.head_written(measure::now());
                }
                if upload.state == Sending::Sent {
                    observation.sent(since, measure::now());
                    front.upload_is_complete();
                }
            }
            let replayable = upload.is_replayable(back);
            while let Poll::Ready(next) = poll_head(cx, back, outbox, &context, replayable) {
                match next? {
                    Next::Interim(response) => front.interim(&response),
                    Next::Final(answer) => return Poll::Ready(Ok(answer)),
                }
            }
            if front.poll_flush(cx) == Poll::Ready(Err(Gone)) {
                return Poll::Ready(Err(Trouble::ClientLeft.into()));
            }
            if front.has_left(cx, upload.state == Sending::Body) {
                return Poll::Ready(Err(Trouble::ClientLeft.into()));
            }
            let sending = upload.state == Sending::Body;
            // A client that said `Expect: 100-continue` is right to send nothing: it is the backend's turn.
            let backends_turn = head.expects_continue && upload.total == 0 && !front.was_told_to_continue();
            let clients_turn = sending && upload.wants_client && !backends_turn;
            // A call whose client has not ended its side may be silent both ways: streams are.
            let waiting = (sending, clients_turn, upload.progress);
            if armed != Some(waiting) {
                armed = Some(waiting);
                // Only what shares its connection may be silent: others hold one of those that there are.
                match (clients_turn, head.rpc.filter(|_| matches!(back, Back::H2(_)))) {
                    (true, Some(_)) => deadline.clear(),
                    (true, None) => deadline.arm(settings.timeouts.client_body),
                    // How long a call may take is its client's to say, if it says so.
                    (false, Some(Rpc { deadline: Some(_) })) => deadline.clear(),
                    (false, _) => deadline.arm(settings.timeouts.head),
                }
            }
            let phase = if sending { Phase::Send } else { Phase::Wait };
            match worker.stopped(cx, deadline) {
                None if call_deadline.expired(cx) => {
                    Poll::Ready(Err(Trouble::Failed(Failure::HeadTimeout, phase).into()))
                }
                None => Poll::Pending,
                Some(Stop::Cut) => Poll::Ready(Err(Trouble::Failed(Failure::DrainDeadline, phase).into())),
                Some(_) if clients_turn => Poll::Ready(Err(Trouble::Failed(Failure::ClientTimeout, phase).into())),
                Some(_) => Poll::Ready(Err(Trouble::Failed(Failure::HeadTimeout, phase).into())),
            }
        })
        .await
    }

    /// The head is there: relays it and the body, while the rest of the request may still be on its way.
    async fn relay(
        &mut self,
        mut back: Back,
        answer: Answer,
        mut upload: Upload,
        call_deadline: &Deadline,
    ) -> Result<Done, Trouble> {
        let received = measure::now();
        if upload.resent == upload.kept.len() {
            upload.kept = Vec::new();
            upload.resent = 0;
        }
        let Answer { mut response, head: mut answered } = answer;
        let Exchange { worker, settings, head, unknown_path, front, outbox, deadline, observation } = self;
        let (worker, settings): (&Worker, &Settings) = (worker, settings);
        let status = answered.status;
        let rpc_status = head.rpc.and_then(|_| response.headers().get("grpc-status"));
        let rpc_status = rpc_status.and_then(|value| grpc::parse_status(value.as_bytes()));
        if !unknown_path.is_empty() {
            // What answers that nobody implements it is no more there than what answers 404.
            let told = if rpc_status == Some(RpcStatus::Unimplemented) { 404 } else { status };
            observation.reroute(settings.routes.earned(unknown_path, told));
        }
        if let Some(status) = rpc_status {
            observation.rpc_status(status);
        }
        if let Some(protocol) = head.upgrade
            && is_tunnel(&back, status)
            // Else nobody could tell where the request ends and the tunnel begins.
            && upload.state == Sending::Sent
        {
            front.tunnel(&mut response, outbox);
            flush(worker, settings, front, deadline).await?;
            return Ok(Done::Tunnel(back, protocol, received, measure::now()));
        }
        if status == 101 || is_tunnel(&back, status) {
            back.cancel();
            return Err(Trouble::Failed(Failure::ProtocolError, Phase::Wait));
        }
        let mut judge = judge_of(observation, &response, &answered, head, settings.limits.headers);
        let ended = answered.framing == Framing::None;
        answered.keep_alive &= upload.state == Sending::Sent && !worker.is_closing();
        if front.head(response, &answered, head, ended) == Err(Gone) {
            back.cancel();
            return Err(Trouble::ClientLeft);
        }
        let kind = if answered.event_stream { ResponseKind::EventStream } else { ResponseKind::Plain };
        let shared = matches!(back, Back::H2(_));
        let patient = kind == ResponseKind::EventStream || (head.rpc.is_some() && shared);
        let mut told = false;
        let mut pending: Option<Bytes> = None;
        let mut finished = ended;
        let mut messages = Messages::default();
        let mut rpc_status = None;
        let mut progress = 0u64;
        let mut armed = None;
        let end = poll_fn(|cx| {
            // === upload ===
            if upload.state == Sending::Body {
                if let Err(trouble) = upload.poll(cx, front, &mut back, outbox, observation) {
                    return Poll::Ready(Err(trouble));
                }
                if upload.state == Sending::Sent {
                    front.upload_is_complete();
                }
            }
            // === download ===
            let mut waits_for_client = false;
            loop {
                if finished || front.is_full() {
                    match front.poll_flush(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(Gone)) => return Poll::Ready(Err(Trouble::ClientLeft)),
                        Poll::Pending => {
                            waits_for_client = true;
                            break;
                        }
                    }
                }
                if let Some(mut bytes) = pending.take() {
                    let room = match front.poll_room(cx, bytes.len()) {
                        Poll::Ready(Ok(room)) => room,
                        Poll::Ready(Err(Gone)) => return Poll::Ready(Err(Trouble::ClientLeft)),
                        Poll::Pending => {
                            pending = Some(bytes);
                            waits_for_client = true;
                            break;
                        }
                    };
                    let part = if bytes.len() > room { bytes.split_to(room) } else { std::mem::take(&mut bytes) };
                    let n = part.len();
                    if front.send(part) == Err(Gone) {
                        return Poll::Ready(Err(Trouble::ClientLeft));
                    }
                    back.release(n);
                    observation.response_bytes(n as u64);
                    progress += 1;
                    pending = (!bytes.is_empty()).then_some(bytes);
                    continue;
                }
                if finished {
                    return Poll::Ready(Ok(()));
                }
                match back.poll_piece(cx) {
                    Poll::Pending => {
                        match front.poll_flush(cx) {
                            Poll::Ready(Ok(())) => {}
                            Poll::Ready(Err(Gone)) => return Poll::Ready(Err(Trouble::ClientLeft)),
                            Poll::Pending => waits_for_client = true,
                        }
                        break;
                    }
                    Poll::Ready(Ok(Piece::Data(bytes))) => {
                        progress += 1;
                        if let Some(judge) = &mut judge {
                            judge.body(&bytes);
                        }
                        if head.rpc.is_some() && messages.second_begins(&bytes) {
                            observation.becomes_stream();
                        }
                        pending = Some(bytes);
                    }
                    Poll::Ready(Ok(Piece::End(trailers))) => {
                        let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
                        rpc_status = status.and_then(|value| grpc::parse_status(value.as_bytes()));
                        finished = true;
                        if front.finish(trailers) == Err(Gone) {
                            return Poll::Ready(Err(Trouble::ClientLeft));
                        }
                    }
                    Poll::Ready(Err(Broken::Malformed)) => {
                        return Poll::Ready(Err(Trouble::Failed(Failure::ProtocolError, Phase::Body)));
                    }
                    Poll::Ready(Err(Broken::Gone)) => {
                        return Poll::Ready(Err(Trouble::Failed(Failure::ResetAfterHead, Phase::Body)));
                    }
                }
            }
            if !told && front.head_is_out() {
                told = true;
                observation.head(status, kind, received, measure::now());
            }
            if front.has_left(cx, upload.state == Sending::Body) {
                return Poll::Ready(Err(Trouble::ClientLeft));
            }
            let moved = (progress, upload.progress, waits_for_client);
            if armed != Some(moved) {
                armed = Some(moved);
                if patient && !waits_for_client {
                    deadline.clear();
                } else {
                    deadline.arm(settings.timeouts.body);
                }
            }
            match (worker.stopped(cx, deadline), waits_for_client) {
                (None, _) if call_deadline.expired(cx) => {
                    Poll::Ready(Err(Trouble::Failed(Failure::BodyTimeout, Phase::Body)))
                }
                (None, _) => Poll::Pending,
                (Some(Stop::Cut), _) => Poll::Ready(Err(Trouble::Failed(Failure::DrainDeadline, Phase::Body))),
                (Some(_), true) => Poll::Ready(Err(Trouble::Failed(Failure::ClientTimeout, Phase::Body))),
                (Some(_), false) => Poll::Ready(Err(Trouble::Failed(Failure::BodyTimeout, Phase::Body))),
            }
        })
        .await;
        let whole = upload.state == Sending::Sent;
        if let Err(trouble) = end {
            if !told && front.is_committed() {
                observation.head(status, kind, received, measure::now());
            }
            front.withdraw();
            back.cancel();
            return Err(trouble);
        }
        if !told {
            observation.head(status, kind, received, measure::now());
        }
        // Not before the head has been told of, even if all came in one piece: it would pass for the head's.
        if let Some(status) = rpc_status
            && head.rpc.is_some()
        {
            observation.rpc_status(status);
        }
        match back {
            Back::H1(back) => back.release(worker, &answered, whole),
            Back::H2(mut back) if !whole => back.cancel(),
            Back::H2(_) => {}
        }
        let at = measure::now();
        if let Some(judge) = judge
            && let Some((rule, phase)) = judge.verdict()
        {
            observation.implicit_error(rule, phase);
        }
        Ok(Done::Finished(front.after(&answered, head, whole), at))
    }
}

/// Writes what is to be written to the client, within the patience of a body.
async fn flush(
    worker: &Worker,
    settings: &Settings,
    front: &mut Front<'_>,
    deadline: &Deadline,
) -> Result<(), Trouble> {
    deadline.arm(settings.timeouts.body);
    poll_fn(|cx| match front.poll_flush(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
        Poll::Ready(Err(Gone)) => Poll::Ready(Err(Trouble::ClientLeft)),
        Poll::Pending => match worker.stopped(cx, deadline) {
            None => Poll::Pending,
            Some(stop) => Poll::Ready(Err(stop.or_deadline(Failure::ClientTimeout, Phase::Body))),
        },
    })
    .await
}

/// Whether this status opens the tunnel that was asked for: 101 in HTTP/1.1, any success in HTTP/2 (RFC 8441).
fn is_tunnel(back: &Back, status: u16) -> bool {
    match back {
        Back::H1(_) => status == 101,
        Back::H2(back) => back.is_connect() && (200..300).contains(&status),
    }
}

/// What a backend said before its body.
enum Next {
    Interim(Response<()>),
    Final(Answer),
}

fn poll_head(
    cx: &mut Context<'_>,
    back: &mut Back,
    outbox: &Outbox,
    context: &ResponseContext,
    replayable: bool,
) -> Poll<Result<Next, NoAnswer>> {
    let failed = |failure| Err(Trouble::Failed(failure, Phase::Wait).into());
    Poll::Ready(match back {
        Back::H1(back) => match std::task::ready!(back.poll_head(cx, context)) {
            Ok((response, head)) if head.status < 200 && head.status != 101 => Ok(Next::Interim(response)),
            Ok((response, head)) => Ok(Next::Final(Answer { response, head })),
            Err(Lost::Failed(failure)) => failed(failure),
            Err(Lost::Ended { at_end }) if replayable && back.never_delivered(outbox.total, at_end) => {
                Err(NoAnswer::NeverDelivered)
            }
            Err(Lost::Ended { .. }) => failed(Failure::ResetBeforeHead),
        },
        Back::H2(back) => match std::task::ready!(back.poll_head(cx)) {
            // Nobody switches protocols in HTTP/2 (RFC 9113, section 8.6).
            Ok(Head::Interim(response)) if response.status() == 101 => failed(Failure::ProtocolError),
            Ok(Head::Interim(response)) => match headers::response_from_h2(response, false, context) {
                Ok((response, _)) => Ok(Next::Interim(response)),
                Err(failure) => failed(failure),
            },
            Ok(Head::Final(response, ended)) => match headers::response_from_h2(response, ended, context) {
                Ok((response, head)) => Ok(Next::Final(Answer { response, head })),
                Err(failure) => failed(failure),
            },
            Err(NoHead::Unprocessed) if replayable => Err(NoAnswer::NeverDelivered),
            Err(NoHead::Unprocessed | NoHead::Reset) => failed(Failure::ResetBeforeHead),
            Err(NoHead::Malformed) => failed(Failure::ProtocolError),
        },
    })
}

impl Upload {
    /// Whether all of it can be sent again, if the backend has not looked at it.
    fn is_replayable(&self, back: &Back) -> bool {
        match back {
            // Who shares a connection is told what was not looked at, whatever was sent.
            Back::H2(_) => self.total <= KEPT_BYTES,
            Back::H1(_) => self.total == 0 && (self.bodyless || !self.ended),
        }
    }

    /// For another attempt.
    fn begin_again(&mut self) {
        self.state = Sending::Body;
        self.piece = None;
        self.resent = 0;
        self.finished = self.bodyless;
    }

    /// Moves what both sides allow.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut Front<'_>,
        back: &mut Back,
        outbox: &mut Outbox,
        observation: &mut Observation,
    ) -> Result<(), Trouble> {
        loop {
            self.wants_client = false;
            if self.finished || outbox.pending() > SMALL {
                match self.flush(cx, back, outbox) {
                    Poll::Ready(()) if self.finished => self.state = Sending::Sent,
                    Poll::Ready(()) => {}
                    Poll::Pending => return Ok(()),
                }
            }
            if self.state != Sending::Body {
                return Ok(());
            }
            if self.piece.is_none() && self.resent < self.kept.len() {
                self.piece = Some(self.kept[self.resent].clone());
                self.resent += 1;
            }
            if let Some(mut bytes) = self.piece.take() {
                let room = match back.poll_room(cx, bytes.len()) {
                    Poll::Ready(Ok(room)) => room,
                    Poll::Ready(Err(Gone)) => {
                        self.state = Sending::Stopped;
                        return Ok(());
                    }
                    Poll::Pending => {
                        self.piece = Some(bytes);
                        return Ok(());
                    }
                };
                let part = if bytes.len() > room { bytes.split_to(room) } else { std::mem::take(&mut bytes) };
                self.piece = (!bytes.is_empty()).then_some(bytes);
                let n = part.len();
                if back.send(part, outbox) == Err(Gone) {
                    self.state = Sending::Stopped;
                    return Ok(());
                }
                // What is sent a second time was given back the first time.
                if self.sent_once < self.total {
                    let new = (n as u64).min(self.total - self.sent_once);
                    self.sent_once += new;
                    front.release(new as usize);
                }
                self.progress += 1;
                continue;
            }
            if self.ended {
                self.finished = true;
                if back.finish(self.trailers.clone(), outbox) == Err(Gone) {
                    self.state = Sending::Stopped;
                }
                continue;
            }
            match front.poll_piece(cx) {
                Poll::Pending => {
                    if self.flush(cx, back, outbox).is_ready() {
                        self.wants_client = true;
                    }
                    return Ok(());
                }
                Poll::Ready(Err(Broken::Gone)) => return Err(Trouble::ClientLeft),
                Poll::Ready(Err(Broken::Malformed)) => {
                    return Err(Trouble::Failed(Failure::BadRequest, Phase::Send));
                }
                Poll::Ready(Ok(Piece::Data(bytes))) => {
                    self.take(&bytes, observation)?;
                    if self.total <= KEPT_BYTES && matches!(back, Back::H2(_)) {
                        self.kept.push(bytes.clone());
                        self.resent = self.kept.len();
                    }
                    self.piece = Some(bytes);
                }
                Poll::Ready(Ok(Piece::End(trailers))) => {
                    if self.left.is_some_and(|left| left > 0) {
                        return Err(Trouble::Failed(Failure::BadRequest, Phase::Send));
                    }
                    self.ended = true;
                    self.trailers = trailers;
                }
            }
            self.progress += 1;
        }
    }

    /// Writes what is to be written.
    fn flush(&mut self, cx: &mut Context<'_>, back: &mut Back, outbox: &mut Outbox) -> Poll<()> {
        let before = outbox.total;
        let flushed = back.poll_flush(cx, outbox);
        self.progress += u64::from(outbox.total > before);
        match flushed {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(Gone)) => {
                self.state = Sending::Stopped;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn take(&mut self, bytes: &[u8], observation: &mut Observation) -> Result<(), Trouble> {
        let n = bytes.len() as u64;
        self.total += n;
        if self.total > self.limit {
            return Err(Trouble::Failed(Failure::RequestTooLarge, Phase::Send));
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(n).ok_or(Trouble::Failed(Failure::BadRequest, Phase::Send))?;
        }
        observation.request_bytes(n);
        if self.rpc && self.messages.second_begins(bytes) {
            observation.becomes_stream();
        }
        Ok(())
    }
}

/// Who judges whether the answer is an error all the same.
fn judge_of(
    observation: &Observation,
    response: &Response<()>,
    answered: &ResponseHead,
    head: &RequestHead,
    max_fields: usize,
) -> Option<Judge> {
    if !(200..300).contains(&answered.status) || answered.event_stream {
        return None;
    }
    let rules = observation.rules()?;
    let mut bytes = Vec::new();
    headers::write_response(response, &mut bytes);
    bytes.extend_from_slice(b"\r\n");
    Judge::new(rules, &bytes, answered.status, head.method == Method::Head, max_fields)
}
