//! One request, top to bottom: the file to read first. Here for HTTP/1.x clients; `h2.rs` does the same for HTTP/2.
//!
//! ```text
//! admit → obtain a connection → send and wait for the head → relay the body → put the connection back
//!   503      502 503 504              408 413 502 504              cut
//! ```
//! The head for the backend is in `request.outbox` already: `headers` wrote it while it looked at the client's.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::labels::{CloseReason, Failure, Method, Phase, RetryResult, TunnelProtocol};
use crate::measure::{self, Moment, Observation, ResponseKind};
use crate::proxy::body::{Broken, Outbox, Pump, Source, Waits};
use crate::proxy::buffer::{Filled, SMALL};
use crate::proxy::connection::Client;
use crate::proxy::error::{self, Answer, Stop, Trouble};
use crate::proxy::exchange::{self, Back, Exchange};
use crate::proxy::front::{Front, H1Front};
use crate::proxy::h1::{Framing, HeadScan};
use crate::proxy::headers::{self, RequestHead, ResponseContext, ResponseHead};
use crate::proxy::judge::Judge;
use crate::proxy::upstream::{Connection, Obtained};
use crate::proxy::worker::{Settings, Worker};

/// What happens with the client's connection after a request.
#[derive(Debug)]
pub enum After {
    /// It may send the next request.
    KeepAlive,
    /// The client has closed it.
    Gone,
    /// It is closed.
    Close,
    /// It is closed when the client has had time to read the answer: there may be more of the request on its way.
    Linger,
    /// It is reset: only that makes a cut visible where the end of the connection is the end of the body.
    Reset,
    /// It became a tunnel to this connection.
    Tunnel(Box<Connection>, TunnelProtocol),
    /// It became a tunnel to a backend that speaks HTTP/2.
    TunnelInPieces(Box<Back>, TunnelProtocol),
}

/// Carries one request whose head has been read.
pub async fn handle(
    worker: &Worker,
    settings: &Settings,
    client: &mut Client,
    head: &RequestHead,
    mut observation: Observation,
) -> After {
    client.reply.reset();
    client.committed = false;
    client.ends_by_close = false;
    if head.last_hop {
        client.upload_complete = matches!(head.framing, Framing::None | Framing::Length(0));
        let reply = |keep_alive| error::end_of_the_way(keep_alive, head.http10);
        return reply_with(worker, settings, client, head, observation, (200, reply)).await;
    }
    let trouble = match exchange(worker, settings, client, head, &mut observation).await {
        Ok(Done::Response(after)) => {
            observation.finish(measure::now());
            return after;
        }
        Ok(Done::Finished(after, at)) => {
            observation.finish(at);
            return after;
        }
        Ok(Done::Tunnel(connection, protocol, received, handed)) => {
            observation.upgraded(protocol, received, handed);
            return After::Tunnel(connection, protocol);
        }
        Ok(Done::TunnelInPieces(back, protocol, received, handed)) => {
            observation.upgraded(protocol, received, handed);
            return After::TunnelInPieces(back, protocol);
        }
        Err(trouble) => trouble,
    };
    let Trouble::Failed(failure, phase) = trouble else { return After::Gone };
    observation.fail(failure, phase);
    let answer = if client.committed { None } else { Answer::to(failure) };
    let Some(answer) = answer else {
        observation.finish(measure::now());
        // An ordinary close shows the cut where a length or a last chunk is missing, and lets what was sent arrive.
        return if client.ends_by_close { After::Reset } else { After::Linger };
    };
    let to_head = head.method == Method::Head;
    let reply = |keep_alive| answer.to_bytes(head.accepts_json, to_head, keep_alive, head.http10);
    reply_with(worker, settings, client, head, observation, (answer.status, reply)).await
}

/// Answers in the sidecar's own name, with this status and the bytes for a connection that stays or not.
async fn reply_with(
    worker: &Worker,
    settings: &Settings,
    client: &mut Client,
    head: &RequestHead,
    mut observation: Observation,
    (status, reply): (u16, impl FnOnce(bool) -> Vec<u8>),
) -> After {
    // What is left of the request's body would be taken for the next request.
    let whole = client.upload_complete;
    let keep_alive = head.keep_alive && whole && !worker.is_closing();
    // Interim responses may still wait to be written: they go first.
    client.reply.bytes.extend(reply(keep_alive));
    if client.flush_reply(worker, settings.timeouts.body).await.is_err() {
        return After::Gone;
    }
    let now = measure::now();
    observation.answered(status, now);
    observation.finish(now);
    if keep_alive { After::KeepAlive } else { After::Linger }
}

/// How an exchange ended when nothing failed.
enum Done {
    Response(After),
    Finished(After, Moment),
    Tunnel(Box<Connection>, TunnelProtocol, Moment, Moment),
    /// As [`Done::Tunnel`], to a backend that speaks HTTP/2.
    TunnelInPieces(Box<Back>, TunnelProtocol, Moment, Moment),
}

/// The same exchange with a backend that speaks HTTP/2.
async fn in_pieces(
    worker: &Worker,
    settings: &Settings,
    client: &mut Client,
    head: &RequestHead,
    (obtained, since): (Obtained, Moment),
    observation: &mut Observation,
) -> Result<Done, Trouble> {
    let deadline = worker.timers.slot();
    let mut outbox = std::mem::take(&mut client.outbox);
    let unknown_path = std::mem::take(&mut client.unknown_path);
    let mut exchange = Exchange {
        worker,
        settings,
        head,
        unknown_path: &unknown_path,
        front: &mut Front::H1(H1Front::new(client, head, settings.sizes())),
        outbox: &mut outbox,
        deadline: &deadline,
        observation,
    };
    let done = exchange.run(obtained, since).await;
    client.outbox = outbox;
    Ok(match done? {
        exchange::Done::Finished(after, at) => Done::Finished(after, at),
        exchange::Done::Tunnel(back, protocol, received, handed) => {
            Done::TunnelInPieces(Box::new(back), protocol, received, handed)
        }
    })
}

async fn exchange(
    worker: &Worker,
    settings: &Settings,
    client: &mut Client,
    head: &RequestHead,
    observation: &mut Observation,
) -> Result<Done, Trouble> {
    let limits = &settings.limits;
    client.upload_complete = matches!(head.framing, Framing::None | Framing::Length(0));
    if settings.sheds(worker) {
        return Err(Trouble::Failed(Failure::Shed, Phase::Queue));
    }
    if let (Framing::Length(n), Some(limit)) = (head.framing, limits.request_body_bytes)
        && n > limit
    {
        return Err(Trouble::Failed(Failure::RequestTooLarge, Phase::Head));
    }
    let source = Source::new(head.framing, limits.head_bytes, limits.headers);
    let mut upload = Pump::new(source, head.framing == Framing::Chunked, limits.request_body_bytes);

    let begun = client.begun;
    let (obtained, since) = {
        let Client { stream, inbound, deadline, .. } = &mut *client;
        let mut watch = |cx: &mut Context<'_>| worker.interrupted(cx, stream, inbound, deadline);
        worker.pool.obtain(settings, deadline, begun, observation, &mut watch).await?
    };
    let (mut connection, mut obtained) = match obtained {
        Obtained::Connection(connection) => (connection, since),
        shared @ Obtained::Lease(_) => {
            return Box::pin(in_pieces(worker, settings, client, head, (shared, since), observation)).await;
        }
    };
    let mut replayed = false;
    let head_len = loop {
        match send_and_wait(worker, settings, client, head, &mut connection, &mut upload, obtained, observation).await {
            Ok(head_len) => break head_len,
            Err(Lost::Trouble(trouble)) => return Err(trouble),
            Err(Lost::NeverDelivered) if !replayed => {
                replayed = true;
                connection.close(CloseReason::Peer);
                client.outbox.rewind();
                let Client { stream, inbound, deadline, .. } = &mut *client;
                let mut watch = |cx: &mut Context<'_>| worker.interrupted(cx, stream, inbound, deadline);
                let new = worker.pool.obtain_new(settings, deadline, observation, &mut watch).await;
                match new.inspect_err(|_| worker.pool_gauges.replayed(RetryResult::Failure))? {
                    (Obtained::Connection(new), since) => (connection, obtained) = (new, since),
                    // The backend has begun to speak HTTP/2 meanwhile.
                    shared => return Box::pin(in_pieces(worker, settings, client, head, shared, observation)).await,
                }
            }
            Err(Lost::NeverDelivered) => {
                worker.pool_gauges.replayed(RetryResult::Failure);
                return Err(Trouble::Failed(Failure::ResetBeforeHead, Phase::Send));
            }
        }
    };
    if replayed {
        worker.pool_gauges.replayed(RetryResult::Success);
    }
    relay(worker, settings, client, head, connection, upload, head_len, observation).await
}

/// Why there is no response head.
enum Lost {
    Trouble(Trouble),
    /// The pooled connection had been closed before the backend could see the request, and all of it can be sent again.
    NeverDelivered,
}

impl From<Trouble> for Lost {
    fn from(trouble: Trouble) -> Lost {
        Lost::Trouble(trouble)
    }
}

/// What the armed deadline stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    RequestBody,
    BackendToRead,
    Head,
}

/// Sends the request, relays interim responses, and waits for the final response head, which may come before all of the
/// request has been sent. Returns its length; the interim ones before it are used up.
#[allow(clippy::too_many_arguments)]
async fn send_and_wait(
    worker: &Worker,
    settings: &Settings,
    client: &mut Client,
    head: &RequestHead,
    connection: &mut Connection,
    upload: &mut Pump,
    obtained: Moment,
    observation: &mut Observation,
) -> Result<usize, Lost> {
    let limits = &settings.limits;
    let mut scan = HeadScan::default();
    let mut sent = false;
    let mut head_written = false;
    let mut writable = true;
    let mut heard = false;
    let mut armed: Option<(Waiting, u64)> = None;
    poll_fn(|cx| {
        let Client { stream, inbound, deadline, outbox, reply, upload_complete, .. } = &mut *client;
        if !sent && writable {
            let polled = upload.poll(cx, (stream, inbound), &mut connection.stream, outbox, |bytes| {
                observation.request_bytes(bytes.len() as u64);
            });
            let all = matches!(polled, Poll::Ready(Ok(())));
            if (all || outbox.is_empty()) && !head_written {
                head_written = true;
                let now = measure::now();
                observation.head_written(now);
                if all {
                    observation.sent(obtained, now);
                }
            } else if all {
                observation.sent(obtained, measure::now());
            }
            match polled {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    sent = true;
                    *upload_complete = true;
                }
                // The backend reads no more; it may have answered before it stopped.
                Poll::Ready(Err(Broken::Writer(_))) => writable = false,
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(client_trouble(&broken).into())),
            }
        }

        loop {
            if !connection.inbound.is_empty() {
                heard = true;
                let scanned = response_head(&mut scan, connection, limits.head_bytes);
                match scanned.map_err(|failure| Trouble::Failed(failure, Phase::Wait))? {
                    None => {}
                    Some(len) => match interim(&connection.inbound.unread()[..len], head, settings, reply)? {
                        false => return Poll::Ready(Ok(len)),
                        true => {
                            connection.inbound.consume(len);
                            scan = HeadScan::default();
                            continue;
                        }
                    },
                }
            }
            match connection.inbound.poll_fill(cx, &mut connection.stream, limits.head_bytes) {
                Poll::Pending => break,
                Poll::Ready(Ok(Filled::Bytes(_))) => {}
                Poll::Ready(Ok(Filled::Full)) => {
                    return failed(Failure::ResponseTooLarge, Phase::Wait);
                }
                Poll::Ready(end) => {
                    let at_end = matches!(end, Ok(Filled::Eof));
                    // All of the request is in the outbox, and how much of it was written is known.
                    let whole = connection.reused && !heard && upload.is_read() && upload.replayable;
                    if whole && (outbox.total == 0 || (at_end && connection.never_delivered(outbox.total))) {
                        return Poll::Ready(Err(Lost::NeverDelivered));
                    }
                    let phase = if sent { Phase::Wait } else { Phase::Send };
                    return failed(Failure::ResetBeforeHead, phase);
                }
            }
        }
        if !reply.is_empty() && matches!(reply.poll_flush(cx, stream), Poll::Ready(Err(_))) {
            return Poll::Ready(Err(Trouble::ClientLeft.into()));
        }
        if (sent || !writable) && client_left(cx, stream, inbound) {
            return Poll::Ready(Err(Trouble::ClientLeft.into()));
        }

        // A client that said `Expect: 100-continue` is right to send nothing: it is the backend's turn.
        let backends_turn = head.expects_continue && upload.total == 0 && reply.bytes.is_empty();
        let waiting = match (sent || !writable, upload.waits) {
            (true, _) => Waiting::Head,
            (false, Waits::Reader) if backends_turn => Waiting::Head,
            (false, Waits::Reader) => Waiting::RequestBody,
            (false, Waits::Writer) => Waiting::BackendToRead,
        };
        if armed != Some((waiting, upload.progress)) {
            armed = Some((waiting, upload.progress));
            deadline.arm(match waiting {
                Waiting::RequestBody => settings.timeouts.client_body,
                Waiting::BackendToRead | Waiting::Head => settings.timeouts.head,
            });
        }
        match worker.stopped(cx, deadline) {
            None => Poll::Pending,
            Some(Stop::Cut) => failed(Failure::DrainDeadline, if sent { Phase::Wait } else { Phase::Send }),
            Some(_) => match waiting {
                Waiting::RequestBody => failed(Failure::ClientTimeout, Phase::Send),
                Waiting::BackendToRead => failed(Failure::HeadTimeout, Phase::Send),
                Waiting::Head => failed(Failure::HeadTimeout, Phase::Wait),
            },
        }
    })
    .await
}

fn failed<T>(failure: Failure, phase: Phase) -> Poll<Result<T, Lost>> {
    Poll::Ready(Err(Trouble::Failed(failure, phase).into()))
}

/// What it means that the client's side of an upload broke.
fn client_trouble(broken: &Broken) -> Trouble {
    match broken {
        Broken::Malformed => Trouble::Failed(Failure::BadRequest, Phase::Send),
        Broken::TooLarge => Trouble::Failed(Failure::RequestTooLarge, Phase::Send),
        Broken::Reader(_) | Broken::Writer(_) => Trouble::ClientLeft,
    }
}

/// Looks for the end of a response head. Anything that does not begin like HTTP/1 is refused at once.
pub(super) fn response_head(
    scan: &mut HeadScan,
    connection: &Connection,
    limit: usize,
) -> Result<Option<usize>, Failure> {
    let bytes = connection.inbound.unread();
    let begin = b"HTTP/1.";
    let seen = bytes.len().min(begin.len());
    if bytes[..seen] != begin[..seen] {
        return Err(Failure::ProtocolError);
    }
    scan.scan(bytes, limit, limit).map_err(|error| match error {
        crate::proxy::h1::ScanError::BareLineFeed => Failure::ProtocolError,
        _ => Failure::ResponseTooLarge,
    })
}

/// Whether this is an interim response. If so it goes to the client, unless that speaks HTTP/1.0 (RFC 9110, section
/// 15.2).
fn interim(bytes: &[u8], head: &RequestHead, settings: &Settings, reply: &mut Outbox) -> Result<bool, Trouble> {
    // "HTTP/1.1 1" and two more digits; 101 ends the exchange.
    if bytes.get(8..10) != Some(b" 1") || bytes.get(10..12) == Some(b"01") {
        return Ok(false);
    }
    let start = reply.bytes.len();
    let context = response_context(head, settings, true);
    let parsed = headers::response(bytes, &context, &mut reply.bytes)
        .map_err(|failure| Trouble::Failed(failure, Phase::Wait))?;
    headers::write_response_framing(&mut reply.bytes, &parsed, false, false);
    // A backend that sends interim responses faster than the client reads them is not worth a buffer.
    if head.http10 || start > SMALL {
        reply.bytes.truncate(start);
    }
    Ok(true)
}

fn response_context(head: &RequestHead, settings: &Settings, keep_alive: bool) -> ResponseContext {
    ResponseContext {
        to_head: head.method == Method::Head,
        http10: head.http10,
        keep_alive: head.keep_alive && keep_alive,
        upgrade: head.upgrade.is_some(),
        max_fields: settings.limits.headers,
        via: settings.via,
    }
}

/// Whether the client has left. What it sends meanwhile stays in its window for the next request; when that is full,
/// nothing more is read, and its leaving shows when the answer is written.
pub(super) fn client_left(
    cx: &mut Context<'_>,
    stream: &mut crate::transport::Stream,
    inbound: &mut crate::proxy::buffer::Window,
) -> bool {
    loop {
        match inbound.poll_fill(cx, stream, SMALL) {
            Poll::Pending | Poll::Ready(Ok(Filled::Full)) => return false,
            Poll::Ready(Ok(Filled::Bytes(_))) => {}
            Poll::Ready(Ok(Filled::Eof) | Err(_)) => return true,
        }
    }
}

/// The response head is there: relays it and the body, while the rest of the request may still be on its way.
#[allow(clippy::too_many_arguments)]
async fn relay(
    worker: &Worker,
    settings: &Settings,
    client: &mut Client,
    head: &RequestHead,
    mut connection: Box<Connection>,
    mut upload: Pump,
    head_len: usize,
    observation: &mut Observation,
) -> Result<Done, Trouble> {
    let received = measure::now();
    let limits = &settings.limits;
    let context = response_context(head, settings, client.upload_complete && !worker.is_closing());
    let bytes = &connection.inbound.unread()[..head_len];
    let started = client.reply.bytes.len();
    let head_start = client.reply.total + client.reply.pending() as u64;
    let response = match headers::response(bytes, &context, &mut client.reply.bytes) {
        Ok(response) => response,
        Err(failure) => {
            client.reply.bytes.truncate(started);
            return Err(Trouble::Failed(failure, Phase::Wait));
        }
    };
    headers::write_response_framing(&mut client.reply.bytes, &response, context.to_head, head.http10);
    if !client.unknown_path.is_empty() {
        observation.reroute(settings.routes.earned(&client.unknown_path, response.status));
    }
    let mut judge = judge_of(observation, bytes, &response, &context);
    connection.inbound.consume(head_len);
    if response.status == 101 {
        if !client.upload_complete {
            // Nobody could tell where the request ends and the tunnel begins.
            client.reply.bytes.truncate(started);
            return Err(Trouble::Failed(Failure::ProtocolError, Phase::Wait));
        }
        client.flush_reply(worker, settings.timeouts.body).await?;
        let handed = measure::now();
        let protocol = head.upgrade.unwrap_or(TunnelProtocol::Other);
        return Ok(Done::Tunnel(connection, protocol, received, handed));
    }
    client.ends_by_close = response.out_framing == Framing::Close;
    let kind = if response.event_stream { ResponseKind::EventStream } else { ResponseKind::Plain };
    let head_end = client.reply.total + client.reply.pending() as u64;
    let source = Source::new(response.framing, limits.head_bytes, limits.headers);
    let mut download = Pump::new(source, response.out_framing == Framing::Chunked, None);
    let mut uploading = !client.upload_complete;
    let mut handed: Option<Moment> = None;
    let mut armed = None;

    let end = poll_fn(|cx| {
        let Client { stream, inbound, deadline, outbox, reply, upload_complete, committed, .. } = &mut *client;
        let from = (&mut connection.stream, &mut connection.inbound);
        let polled = download.poll(cx, from, stream, reply, |bytes| {
            observation.response_bytes(bytes.len() as u64);
            if let Some(judge) = &mut judge {
                judge.body(bytes);
            }
        });
        *committed |= reply.total > head_start;
        if handed.is_none() && reply.total >= head_end {
            let now = measure::now();
            handed = Some(now);
            observation.head(response.status, kind, received, now);
        }
        match polled {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Broken::Writer(_))) => return Poll::Ready(Err(Trouble::ClientLeft)),
            Poll::Ready(Err(broken)) => {
                return Poll::Ready(Err(Trouble::Failed(broken.from_backend(), Phase::Body)));
            }
            Poll::Pending => {}
        }
        if uploading {
            let from = (&mut *stream, &mut *inbound);
            match upload.poll(cx, from, &mut connection.stream, outbox, |bytes| {
                observation.request_bytes(bytes.len() as u64);
            }) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    uploading = false;
                    *upload_complete = true;
                }
                // The backend has answered and reads no more: its right. The answer goes on.
                Poll::Ready(Err(Broken::Writer(_))) => uploading = false,
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(client_trouble(&broken))),
            }
        } else if *upload_complete && client_left(cx, stream, inbound) {
            return Poll::Ready(Err(Trouble::ClientLeft));
        }
        let progress = (download.progress, upload.progress, download.waits);
        if armed != Some(progress) {
            armed = Some(progress);
            if kind == ResponseKind::EventStream && download.waits == Waits::Reader {
                deadline.clear();
            } else {
                deadline.arm(settings.timeouts.body);
            }
        }
        match (worker.stopped(cx, deadline), download.waits) {
            (None, _) => Poll::Pending,
            (Some(Stop::Cut), _) => Poll::Ready(Err(Trouble::Failed(Failure::DrainDeadline, Phase::Body))),
            (Some(_), Waits::Reader) => Poll::Ready(Err(Trouble::Failed(Failure::BodyTimeout, Phase::Body))),
            (Some(_), Waits::Writer) => Poll::Ready(Err(Trouble::Failed(Failure::ClientTimeout, Phase::Body))),
        }
    })
    .await;

    if let Err(trouble) = end {
        // A head of which the client has had a part is sent, for the books too.
        if !client.committed {
            client.reply.bytes.truncate(started);
        } else if handed.is_none() {
            observation.head(response.status, kind, received, measure::now());
        }
        return Err(trouble);
    }
    let whole = client.upload_complete;
    release(worker, connection, &response, whole);
    let after = match (response.keep_alive, whole) {
        (true, true) => After::KeepAlive,
        (_, false) => After::Linger,
        // The client may have sent its next request already: closing at once would reset the connection.
        (false, true) if head.keep_alive || !client.inbound.is_empty() => After::Linger,
        (false, true) => After::Close,
    };
    // A small response is handed over whole: its end is the moment its head was handed over.
    let mut at = handed.filter(|_| download.progress <= 1);
    if let Some(judge) = judge {
        // The client has everything: what the judge takes is not its time.
        at = at.or_else(|| Some(measure::now()));
        if let Some((rule, phase)) = judge.verdict() {
            observation.implicit_error(rule, phase);
        }
    }
    match at {
        Some(at) => Ok(Done::Finished(after, at)),
        None => Ok(Done::Response(after)),
    }
}

/// Who judges whether the answer with this head is an error all the same; nobody, where no rule covers the route.
pub(super) fn judge_of(
    observation: &Observation,
    head: &[u8],
    response: &ResponseHead,
    context: &ResponseContext,
) -> Option<Judge> {
    if !(200..300).contains(&response.status) || response.event_stream {
        return None;
    }
    Judge::new(observation.rules()?, head, response.status, context.to_head, context.max_fields)
}

/// Puts the backend's connection back, if it is fit for another request.
pub(super) fn release(worker: &Worker, connection: Box<Connection>, response: &ResponseHead, whole: bool) {
    if !whole || !connection.inbound.is_empty() {
        // Half a request was sent, or more than one response came: nobody knows what comes next on it.
        connection.close(CloseReason::Error);
    } else if response.reusable {
        worker.pool.put_back(connection);
    } else {
        connection.close(CloseReason::Peer);
    }
}
