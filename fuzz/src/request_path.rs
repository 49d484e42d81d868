//! The request path end to end: clients and a backend, each with bytes of the input, and the real data plane between
//! them, on real sockets, in one runtime that lives as long as the input.
//!
//! Shape: letters up to a line end, then clients, the byte 0x1d, connections of the backend. Clients and connections are
//! parted by 0x1e, and the pieces of each by 0x1f: a client sends its next piece when nothing moves any more, a backend
//! when it has read a request. A backend without bytes answers everything. The letters:
//!
//! | letter | meaning |
//! |---|---|
//! | `h` | clients half-close when all is sent; else they wait until nothing moves |
//! | `r` | clients reset their connections when all is sent |
//! | `e` | the backend sends all its pieces at once, before it reads |
//! | `c` | the backend closes behind its last piece |
//! | `a` | the backend answers when it has a head, not the whole request |
//! | `v` | the sidecar adds `Via` and replaces `X-Forwarded-*` |
//! | `s` | small limits |
//! | `2` | the backend speaks HTTP/2: a real one without bytes, else what the bytes are, all at once |
//!
//! What must hold, whatever the bytes are:
//!
//! - What reaches the backend is a sequence of requests that can be read in one way only, each of them is one that a
//!   client sent, with its body, and in their order.
//! - A connection is not used again when the backend has sent more, or less, than the answers to its requests.
//! - What reaches a client is a sequence of answers that can be read in one way only; each is the sidecar's own, or one
//!   of the backend's, with its body, and in their order.
//! - Each request is counted once, and nothing is in flight at the end.
//!
//! Nothing waits for a clock: when nothing moves, the next thing happens, and in the end all sockets are closed.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use golden_sidecar::config::{Config, Forwarded, ImplicitError, Place, Scheme, Symptom, Upstream};
use golden_sidecar::descriptors::Shares;
use golden_sidecar::labels::{RouteId, RouteKind};
use golden_sidecar::proxy::listener::Socket;
use golden_sidecar::proxy::upstream::Budget;
use golden_sidecar::proxy::worker::{self, Order, Room, Settings, Shared, Tls};
use golden_sidecar::routes::{Ids, Learned, RouteTable};
use golden_sidecar::signals::Signals;
use golden_sidecar::signals::shard::WorkerSignals;
use golden_sidecar::transport::Addresses;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::heads::is_absolute_form_of;
use super::wire::{self, Message, shown};

/// Rounds without a byte read or written anywhere after which nothing moves. The longest way between two of them is a
/// connection that is accepted, read, parsed, and handed on: six looks at the sockets.
const QUIET_ROUNDS: usize = 24;
/// Rounds in which all must have ended when all sockets are closed. A bound against hanging, far above any real need.
const LAST_ROUNDS: usize = 10_000;
const MOST_CLIENTS: usize = 4;
const MOST_CONNECTIONS: usize = 6;
const MOST_PIECES: usize = 16;

/// What the backend answers when the input says nothing.
const DEFAULT_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ndefault";
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A promise that is broken ends the check with these words.
macro_rules! promise {
    ($kept:expr, $($words:tt)*) => {
        if !$kept {
            return Err(format!($($words)*));
        }
    };
}

/// An input, taken apart.
struct Script {
    half_close: bool,
    reset: bool,
    eager: bool,
    close: bool,
    at_head: bool,
    via: bool,
    small: bool,
    h2: bool,
    clients: Vec<Vec<Vec<u8>>>,
    backend: Vec<Vec<Vec<u8>>>,
}

impl Script {
    fn read(input: &[u8]) -> Script {
        let (letters, rest) = super::part(input, b'\n');
        let (clients, backend) = super::part(rest, 0x1d);
        let pieces = |part: &[u8]| {
            let pieces = part.split(|byte| *byte == 0x1f).filter(|piece| !piece.is_empty()).take(MOST_PIECES);
            pieces.map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let parts = |part: &[u8], most| part.split(|byte| *byte == 0x1e).take(most).map(pieces).collect();
        let has = |letter| letters.contains(&letter);
        Script {
            half_close: has(b'h'),
            reset: has(b'r'),
            eager: has(b'e') || has(b'2'),
            close: has(b'c'),
            at_head: has(b'a'),
            via: has(b'v'),
            small: has(b's'),
            h2: has(b'2'),
            clients: parts(clients, MOST_CLIENTS),
            backend: parts(backend, MOST_CONNECTIONS),
        }
    }
}

/// A connection of the backend: what went over it.
#[derive(Default)]
struct Connection {
    received: Vec<u8>,
    sent: Vec<u8>,
}

/// What happened.
#[derive(Default)]
struct Log {
    /// See [`QUIET_ROUNDS`].
    quiet_rounds: usize,
    /// Moves with each byte.
    moved: Cell<u64>,
    connections: RefCell<Vec<Connection>>,
    /// Requests as they became complete: connection, and the how manieth on it.
    completed: RefCell<Vec<(usize, usize)>>,
    /// What was wrong while it happened.
    faults: RefCell<Vec<String>>,
}

impl Log {
    fn moves(&self) {
        self.moved.set(self.moved.get() + 1);
    }

    async fn settle(&self) {
        let (mut quiet, mut last) = (0, self.moved.get());
        while quiet < self.quiet_rounds {
            tokio::task::yield_now().await;
            let now = self.moved.get();
            quiet = if now == last { quiet + 1 } else { 0 };
            last = now;
        }
    }
}

/// The numbers of routes, as the sidecar gives them.
#[derive(Debug)]
struct Numbers(Arc<Signals>);

impl Ids for Numbers {
    fn declared(&self, name: &str, edges: Option<&[f64]>) -> RouteId {
        self.0.declare_route(name, RouteKind::Declared, edges).unwrap_or(RouteId::OTHER)
    }

    fn first_used(&self, name: &str, kind: RouteKind) -> Option<RouteId> {
        self.0.declare_route(name, kind, None)
    }
}

/// One input.
///
/// # Panics
/// When a promise is broken.
pub fn run(input: &[u8]) {
    let run = |quiet_rounds| {
        let script = Script::read(input);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.expect("a runtime").block_on(exchange(script, quiet_rounds))
    };
    // The kernel may be late with a packet on a busy machine, and then what was silence was none: with more patience the
    // same must not be seen again.
    if run(QUIET_ROUNDS).is_err()
        && let Err(why) = run(QUIET_ROUNDS * 200)
    {
        panic!("{why}");
    }
}

fn config(script: &Script, backend: SocketAddr) -> Config {
    let scheme = if script.h2 { Scheme::H2c } else { Scheme::Http };
    let place = Place::Tcp { host: backend.ip().to_string(), port: backend.port() };
    let mut config = Config::with_defaults(Upstream { scheme, place });
    config.workers = 1;
    config.via = script.via;
    if script.via {
        config.forwarded = Forwarded::Replace;
    }
    if script.small {
        config.limits.head_bytes = 512;
        config.limits.request_line_bytes = 128;
        config.limits.headers = 8;
        config.limits.request_body_bytes = Some(64);
        config.limits.upstream_connections = 1;
    }
    let rule = |name: &str, symptom| ImplicitError { name: name.to_owned(), routes: Vec::new(), symptom };
    config.implicit_errors = vec![
        rule("pointer", Symptom::JsonPointer("/error".to_owned())),
        rule("text", Symptom::BodyContains("failed".to_owned())),
        rule("length", Symptom::LengthMismatch("X-Length".to_owned())),
    ];
    config
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

async fn exchange(script: Script, quiet_rounds: usize) -> Result<(), String> {
    let (backend, backend_address) = listener().await;
    let config = config(&script, backend_address);
    let signals = Signals::new(1, &config.buckets, config.limits.series);
    signals.set_implicit_errors(&config.implicit_errors);
    let ids = Arc::new(Numbers(Arc::clone(&signals)));
    let routes = RouteTable::new(&[], &[], Some(Arc::new(Learned::new(20))), ids).expect("no routes are declared");
    let settings = Settings::new(
        &config,
        Arc::new(routes),
        Addresses::of(&[backend_address]).expect("an address"),
        &Tls::default(),
    );
    let limits = &config.limits;
    let room = Room::new(Shares::of(None, 1, limits.connections, limits.upstream_connections));
    let shared = Arc::new(Shared { connections: AtomicUsize::new(0), room, budget: Budget::new(1, limits) });
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.set_nonblocking(true).expect("a socket");
    let address = socket.local_addr().expect("it is bound");
    let (orders, receiver) = mpsc::unbounded_channel();
    let meter = WorkerSignals::new(&signals, 0);
    let sidecar = tokio::task::spawn_local(worker::run(0, Socket::Tcp(socket), meter, settings, shared, receiver));

    let log = Rc::new(Log { quiet_rounds, ..Log::default() });
    let script = Rc::new(script);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    tokio::task::spawn_local(accept(backend, Rc::clone(&script), Rc::clone(&log), stopped));

    let mut received = Vec::new();
    for pieces in &script.clients {
        received.push(client(address, pieces, &script, &log).await);
    }
    log.settle().await;
    // The backend closes, then the sidecar whatever is left.
    stop.send_replace(true);
    log.settle().await;
    for round in 0.. {
        if signals.connections() == 0 && signals.inflight() == 0 {
            break;
        }
        if round == LAST_ROUNDS / 2 {
            let _ = orders.send(Order::Cut);
        }
        if round == LAST_ROUNDS {
            let (connections, inflight) = (signals.connections(), signals.inflight());
            return Err(format!("all is closed, but {connections} connections and {inflight} requests are left"));
        }
        tokio::task::yield_now().await;
        if round % 100 == 99 {
            // A debug build on a busy machine: let the kernel catch up.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    drop(orders);
    let _ = sidecar.await;
    check(&script, &log, &received, &signals)
}

/// Sends the pieces and gives what came back, up to the end.
async fn client(address: SocketAddr, pieces: &[Vec<u8>], script: &Script, log: &Rc<Log>) -> Vec<u8> {
    let stream = TcpStream::connect(address).await.expect("the sidecar listens");
    // Leaves no port behind that waits for late packets.
    stream.set_zero_linger().expect("a socket");
    let (mut reading, mut writing) = stream.into_split();
    let received = Rc::new(RefCell::new(Vec::new()));
    let (own_log, own_received) = (Rc::clone(log), Rc::clone(&received));
    let reader = tokio::task::spawn_local(async move {
        let mut buffer = [0; 4096];
        // An error is a reset, which is an end too.
        while let Ok(n @ 1..) = reading.read(&mut buffer).await {
            own_received.borrow_mut().extend_from_slice(&buffer[..n]);
            own_log.moves();
        }
    });
    for (at, piece) in pieces.iter().enumerate() {
        if at > 0 {
            log.settle().await;
        }
        let mut rest = &piece[..];
        while !rest.is_empty() {
            tokio::select! {
                biased;
                written = writing.write(rest) => match written {
                    Ok(n) => {
                        rest = &rest[n..];
                        log.moves();
                    }
                    Err(_) => break,
                },
                // Nobody reads on.
                () = log.settle() => break,
            }
        }
    }
    if !script.reset {
        if script.half_close {
            let _ = writing.shutdown().await;
        }
        log.settle().await;
    }
    reader.abort();
    let _ = reader.await;
    drop(writing);
    log.settle().await;
    received.take()
}

async fn accept(listener: TcpListener, script: Rc<Script>, log: Rc<Log>, stopped: tokio::sync::watch::Receiver<bool>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        log.moves();
        let place = log.connections.borrow().len();
        log.connections.borrow_mut().push(Connection::default());
        let (script, log, mut stopped) = (Rc::clone(&script), Rc::clone(&log), stopped.clone());
        tokio::task::spawn_local(async move {
            tokio::select! {
                biased;
                _ = stopped.changed() => {}
                () = connection(stream, place, &script, &log) => {}
            }
        });
    }
}

/// One connection of the backend, to its end.
async fn connection(mut stream: TcpStream, place: usize, script: &Script, log: &Log) {
    let pieces = script.backend.get(place).map_or(&[][..], Vec::as_slice);
    if script.h2 && pieces.is_empty() {
        return h2_connection(stream, log).await;
    }
    let mut next = 0;
    if script.eager {
        for piece in pieces {
            if write(&mut stream, piece, place, log).await.is_err() {
                return;
            }
        }
        next = pieces.len();
    }
    let mut buffer = [0; 4096];
    let mut answered = 0;
    let mut begun = 0;
    loop {
        if script.close && next == pieces.len() && (!pieces.is_empty() || answered > 0) {
            let _ = stream.shutdown().await;
            return;
        }
        let Ok(n @ 1..) = stream.read(&mut buffer).await else { return };
        log.moves();
        if script.h2 {
            continue;
        }
        let before = requests(log, place).0;
        log.connections.borrow_mut()[place].received.extend_from_slice(&buffer[..n]);
        let (complete, heads) = requests(log, place);
        log.completed.borrow_mut().extend((before..complete).map(|request| (place, request)));
        if heads > begun && !script.eager && !script.at_head {
            if let Err(fault) = in_step(&log.connections.borrow()[place], begun) {
                log.faults
                    .borrow_mut()
                    .push(format!("connection {place} was used for request {begun} although {fault}"));
            }
            begun = heads;
        }
        let due = if script.at_head { heads } else { complete };
        while answered < due && !script.eager {
            let piece = match pieces.get(next) {
                Some(piece) => &piece[..],
                None if pieces.is_empty() => DEFAULT_ANSWER,
                // It has said all that it says.
                None => break,
            };
            next = (next + 1).min(pieces.len());
            answered += 1;
            if write(&mut stream, piece, place, log).await.is_err() {
                return;
            }
        }
    }
}

/// A backend that speaks HTTP/2 and answers everything, with a trailer.
async fn h2_connection(stream: TcpStream, log: &Log) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        log.moves();
        drop(request);
        // What fails has been reset by the sidecar.
        let Ok(mut body) = respond.send_response(http::Response::new(()), false) else { continue };
        let _ = body.send_data("default".into(), false);
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let _ = body.send_trailers(trailers);
    }
}

async fn write(stream: &mut TcpStream, piece: &[u8], place: usize, log: &Log) -> std::io::Result<()> {
    let mut rest = piece;
    while !rest.is_empty() {
        let n = stream.write(rest).await?;
        log.connections.borrow_mut()[place].sent.extend_from_slice(&rest[..n]);
        log.moves();
        rest = &rest[n..];
    }
    Ok(())
}

/// Requests on a connection of the backend that are complete, and whose heads are.
fn requests(log: &Log, place: usize) -> (usize, usize) {
    let connections = log.connections.borrow();
    let seen = seen_requests(&connections[place].received);
    let whole = seen.iter().flatten().filter(|request| request.body.complete).count();
    (whole, seen.iter().flatten().count())
}

/// The requests in these bytes, the last one maybe in part. What cannot be read is the last one, as an error.
fn seen_requests(bytes: &[u8]) -> Vec<Result<Message<'_>, String>> {
    let mut requests = Vec::new();
    let mut rest = bytes;
    loop {
        match wire::request(rest) {
            Ok(None) => return requests,
            Err(why) => {
                requests.push(Err(why));
                return requests;
            }
            Ok(Some(request)) => {
                let (len, complete) = (request.head.len + request.body.len, request.body.complete);
                let tunnel = request.head.all("upgrade").next().is_some();
                requests.push(Ok(request));
                if !complete || tunnel {
                    return requests;
                }
                rest = &rest[len..];
            }
        }
    }
}

/// The final answers in these bytes to requests with these methods. The last one may be there in part.
fn answers<'a>(bytes: &'a [u8], methods: &[&[u8]]) -> (Vec<Message<'a>>, Result<&'a [u8], String>) {
    let mut answers = Vec::new();
    let mut rest = bytes;
    while let Some(method) = methods.get(answers.len()) {
        match wire::response(rest, method) {
            Ok(None) => return (answers, Ok(rest)),
            Err(why) => return (answers, Err(why)),
            Ok(Some(answer)) => {
                let (len, complete) = (answer.head.len + answer.body.len, answer.body.complete);
                let (status, _) = answer.head.status().expect("read before");
                if status != 101 && status < 200 {
                    rest = &rest[len..];
                    continue;
                }
                answers.push(answer);
                rest = &rest[len..];
                if status == 101 {
                    return (answers, Ok(&[]));
                }
                if !complete {
                    return (answers, Ok(rest));
                }
            }
        }
    }
    (answers, Ok(rest))
}

fn methods<'a>(requests: &[Result<Message<'a>, String>]) -> Vec<&'a [u8]> {
    let line = |request: &Message<'a>| request.head.request_line().expect("read before").0;
    requests.iter().flatten().map(line).collect()
}

/// Whether the backend has answered each of so many requests, and nothing else.
fn in_step(connection: &Connection, requests: usize) -> Result<(), String> {
    let seen = seen_requests(&connection.received);
    let methods: Vec<_> = methods(&seen).into_iter().take(requests).collect();
    let (answers, rest) = answers(&connection.sent, &methods);
    let rest = rest?;
    if answers.len() < requests {
        return Err(format!("{} of {requests} answers were there", answers.len()));
    }
    if !rest.is_empty() {
        return Err(format!("more than an answer was there: {}", shown(rest)));
    }
    match answers.last() {
        Some(last) if !last.body.complete => Err("the last answer was there in part".into()),
        _ => Ok(()),
    }
}

/// What a client sent, as far as it can be read.
struct Sent<'a> {
    requests: Vec<Message<'a>>,
    /// The client speaks HTTP/2, which is not looked into here.
    h2: bool,
}

fn sent(bytes: &[u8]) -> Sent<'_> {
    if bytes.starts_with(H2_PREFACE) {
        return Sent { requests: Vec::new(), h2: true };
    }
    let mut requests = Vec::new();
    let mut rest = bytes;
    loop {
        while let Some(after) = rest.strip_prefix(b"\r\n") {
            rest = after;
        }
        let Ok(Some(request)) = wire::request_head(rest) else { return Sent { requests, h2: false } };
        let (len, complete) = (request.head.len + request.body.len, request.body.complete);
        requests.push(request);
        if !complete {
            return Sent { requests, h2: false };
        }
        rest = &rest[len..];
    }
}

/// Whether the second is the first, forwarded.
fn is_same(client: &Message<'_>, backend: &Message<'_>) -> bool {
    let (method, target, _) = client.head.request_line().expect("read before");
    let (own_method, own_target, _) = backend.head.request_line().expect("read before");
    let body = if backend.body.complete {
        client.body.complete && client.body.bytes == backend.body.bytes
    } else {
        client.body.bytes.starts_with(&backend.body.bytes)
    };
    method == own_method && (target == own_target || is_absolute_form_of(target, own_target)) && body
}

fn check(script: &Script, log: &Log, received: &[Vec<u8>], signals: &Signals) -> Result<(), String> {
    let faults = log.faults.borrow();
    promise!(faults.is_empty(), "{faults:?}");
    let connections = log.connections.borrow();
    let whole: Vec<Vec<u8>> = script.clients.iter().map(|pieces| pieces.concat()).collect();
    let clients: Vec<_> = whole.iter().map(|bytes| sent(bytes)).collect();
    let h2 = script.h2 || clients.iter().any(|client| client.h2);

    // What reached the backend.
    let seen: Vec<Vec<Message<'_>>> = connections
        .iter()
        .filter(|_| !script.h2)
        .map(|connection| {
            let read = seen_requests(&connection.received).into_iter();
            read.collect::<Result<_, _>>()
                .map_err(|why| format!("{why} at the backend, in {}", shown(&connection.received)))
        })
        .collect::<Result<_, _>>()?;
    let known: Vec<&Message<'_>> = clients.iter().flat_map(|client| &client.requests).collect();
    if !h2 {
        for request in seen.iter().flatten() {
            promise!(
                known.iter().any(|known| is_same(known, request)),
                "nobody sent {} with the body {}",
                shown(request.head.line),
                shown(&request.body.bytes)
            );
        }
        // In their order; one may be there twice, when it was sent again on a new connection.
        if !script.reset {
            let mut from = 0;
            for (connection, place) in log.completed.borrow().iter() {
                let request = &seen[*connection][*place];
                let at = known[from..].iter().position(|known| is_same(known, request));
                from += at.ok_or_else(|| format!("{} is out of order", shown(request.head.line)))?;
            }
        }
    }

    // What the backend said, in the order of the requests where there is one.
    let mut spoken: Vec<Vec<Option<Message<'_>>>> = Vec::new();
    for (connection, requests) in connections.iter().zip(&seen) {
        let methods: Vec<_> =
            requests.iter().map(|request| request.head.request_line().expect("read before").0).collect();
        spoken.push(answers(&connection.sent, &methods).0.into_iter().map(Some).collect());
    }
    let mut said: Vec<Message<'_>> = Vec::new();
    for (connection, place) in log.completed.borrow().iter() {
        said.extend(spoken[*connection].get_mut(*place).and_then(Option::take));
    }
    let ordered = said.len();
    said.extend(spoken.into_iter().flatten().flatten());
    let ordered = ordered == said.len() && !script.reset;

    // What reached the clients.
    let (mut least, mut most) = (0, 0);
    let mut from = 0;
    for ((client, bytes), sent) in clients.iter().zip(received).zip(&whole) {
        if client.h2 {
            most += 1000;
            continue;
        }
        let mut methods: Vec<&[u8]> =
            client.requests.iter().map(|request| request.head.request_line().expect("read before").0).collect();
        // Behind what can be read there may be one refusal, of what cannot.
        methods.push(b"?");
        let (got, rest) = answers(bytes, &methods);
        let rest = rest.map_err(|why| format!("{why} at the client, in {}", shown(bytes)))?;
        let tunnel = got.last().is_some_and(|answer| answer.head.status().is_ok_and(|(status, _)| status == 101));
        promise!(
            rest.is_empty() || tunnel || wire::head(rest).is_ok_and(|head| head.is_none()),
            "bytes behind the last answer: {}",
            shown(rest)
        );
        let closed = |answer: &Message<'_>| answer.head.lists("connection", "close");
        promise!(
            got.iter().rev().skip(1).all(|answer| answer.body.complete && !closed(answer)),
            "an answer behind the last one: {}",
            shown(bytes)
        );
        for answer in &got {
            promise!(answer.head.framing_fields() <= 1, "a length twice in {}", shown(bytes));
            let own = answer.head.all("proxy-status").any(|value| value.starts_with(b"golden-sidecar;"));
            let same = |other: &&Message<'_>| {
                let body = if answer.body.complete {
                    // A body that the backend ended by closing is complete for the client.
                    other.body.bytes == answer.body.bytes
                } else {
                    other.body.bytes.starts_with(&answer.body.bytes)
                };
                other.head.status().map(|(status, _)| status) == answer.head.status().map(|(status, _)| status) && body
            };
            if script.h2 || own && said.iter().all(|other| !same(&other)) {
                continue;
            }
            let at = said[from..].iter().position(|other| same(&other)).ok_or_else(|| {
                let (line, body) = (shown(answer.head.line), shown(&answer.body.bytes));
                format!("nobody answered, or not in this order, {line} with the body {body} to {}", shown(sent))
            })?;
            if ordered {
                from += at + 1;
            }
        }
        least += got.len() as u64;
        most += if script.reset || script.half_close { methods.len() } else { got.len() + 1 } as u64;
    }

    // What was counted.
    let total: u64 = signals.requests_by_route().iter().map(|(_, _, _, requests)| requests).sum();
    promise!((least..=most).contains(&total), "{total} requests counted, between {least} and {most} expected");
    Ok(())
}
