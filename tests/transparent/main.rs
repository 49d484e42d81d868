//! Proxying is transparent: the same generated requests go to the backend directly and through the sidecar, and neither the
//! client nor the backend can tell the two ways apart, but by what an intermediary has to do.
//!
//! | file | what it holds |
//! |---|---|
//! | `message.rs`, `request.rs` | valid requests out of a seed |
//! | `answer.rs` | the backend, whose answers follow from the request's number |
//! | `injection.rs` | nothing of a request shows raw in log lines or labels |
//! | `differences.rs` | the comparison, and the differences that are allowed, each with its rule |

mod answer;
#[path = "../common/mod.rs"]
mod common;
mod differences;
mod injection;
mod message;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;

use bytes::Bytes;
use common::h2_backend::H2Backend;
use common::wire::{Body, Framing, Head};
use common::{Backend, Client, Sidecar, h2c};

use answer::{Book, Seen, backend};
use differences::{ALLOWED, Differences, Got, Kind, Side};
use message::{fields, map};
use request::{Protocol, Request};

/// Requests over HTTP/1.x, and over HTTP/2.
const HTTP1_REQUESTS: u64 = 2_000;
const HTTP2_REQUESTS: u64 = 400;
/// Clients at a time: enough to keep two cores busy, few enough that each connection carries many requests.
const CLIENTS: u64 = 4;
/// Most frames of HTTP/2 that the client sends a body in.
const MOST_FRAMES: usize = 200;
/// Another one is another two thousand requests: `TRANSPARENT_SEED=7 cargo nextest run --test transparent`.
const SEED: u64 = 0x601d;

fn seed() -> u64 {
    std::env::var("TRANSPARENT_SEED").map_or(SEED, |text| text.parse().expect("TRANSPARENT_SEED is a number"))
}

/// A way to the backend over HTTP/1.x: a connection that is kept as long as both sides allow it.
struct Way {
    to: SocketAddr,
    client: Option<Client>,
}

impl Way {
    /// One request. A connection that was kept must carry it: it is sent once.
    fn exchange(&mut self, request: &Request) -> Got {
        let mut client = self.client.take().unwrap_or_else(|| Client::to(self.to));
        let body = request.content.framed();
        let mut bytes = request.head();
        let mut unsent = None;
        if request.waits_for_continue {
            unsent = Some(body);
        } else {
            bytes.extend(body);
        }
        let mut rest = bytes.as_slice();
        for cut in &request.cuts {
            let piece;
            (piece, rest) = rest.split_at((*cut).min(rest.len()));
            if !piece.is_empty() {
                client.send(piece);
            }
        }
        client.send(rest);
        let mut interim = Vec::new();
        let head = loop {
            let head = client.read_head();
            if head.status() >= 200 {
                break head;
            }
            if head.status() == 100
                && let Some(body) = unsent.take()
            {
                client.send(body);
            }
            interim.push(head);
        };
        let response = client.read_body(&request.method, head);
        let Got { head, framing, body, .. } =
            Got { interim: Vec::new(), head: response.head, framing: response.framing, body: response.body };
        let said = |option: &str| head.has_token("connection", option);
        let http10 = request.http10 || head.line.starts_with("HTTP/1.0");
        let kept = if http10 { said("keep-alive") } else { !said("close") };
        // Whoever was refused owes a body on this connection, and ends it.
        if kept && request.keeps_alive() && framing != Framing::Close && unsent.is_none() {
            assert!(client.wire.buffer.is_empty(), "more than one answer came");
            self.client = Some(client);
        }
        Got { interim, head, framing, body }
    }
}

/// What client and backend saw of one request.
type Both = (Got, Seen);

/// Runs all requests over HTTP/1.x, each by one of [`CLIENTS`].
fn over_http1(requests: &[Request], to: SocketAddr, book: &Book) -> BTreeMap<u64, Both> {
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let results = &results;
            scope.spawn(move || {
                let mut way = Way { to, client: None };
                for request in requests.iter().filter(|request| request.case % CLIENTS == client) {
                    let got = attributed(request, || way.exchange(request));
                    let seen = noted(book, request, &got);
                    results.lock().unwrap().insert(request.case, (got, seen));
                }
            });
        }
    });
    results.into_inner().unwrap()
}

/// What the backend noted of a request before it answered. Without a note the answer was not the backend's.
fn noted(book: &Book, request: &Request, got: &Got) -> Seen {
    let seen = book.lock().unwrap().remove(&request.case);
    seen.unwrap_or_else(|| {
        let head = message::shown(&request.head());
        panic!("request {} of seed {} was answered without the backend: {:?}\n{head}", request.case, seed(), got.head)
    })
}

/// Says which request it was when something panics.
fn attributed<T>(request: &Request, body: impl FnOnce() -> T) -> T {
    struct Named<'a>(&'a Request);
    impl Drop for Named<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("request {} of seed {}: {}", self.0.case, seed(), message::shown(&self.0.head()));
            }
        }
    }
    let _named = Named(request);
    body()
}

/// Runs all requests over HTTP/2, each by one of [`CLIENTS`].
fn over_http2(requests: &[Request], to: SocketAddr, book: &Book) -> BTreeMap<u64, Both> {
    h2c::run(async {
        let results = std::rc::Rc::new(std::cell::RefCell::new(BTreeMap::new()));
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            let mine: Vec<_> = requests.iter().filter(|request| request.case % CLIENTS == client).cloned().collect();
            let (results, book) = (std::rc::Rc::clone(&results), Book::clone(book));
            clients.push(tokio::task::spawn_local(async move {
                let connection = h2c::connect(to).await;
                for request in mine {
                    let got = stream(&connection, &request).await;
                    let seen = noted(&book, &request, &got);
                    results.borrow_mut().insert(request.case, (got, seen));
                }
            }));
        }
        for client in clients {
            client.await.expect("a client");
        }
        results.take()
    })
}

/// One request as a stream of HTTP/2.
async fn stream(connection: &h2::client::SendRequest<Bytes>, request: &Request) -> Got {
    let named = || format!("request {} of seed {}: {}", request.case, seed(), message::shown(&request.head()));
    let authority = request.all("host").next().expect("over HTTP/2 each has one");
    let uri = format!("http://{}{}", String::from_utf8_lossy(authority), request.target);
    let mut builder = http::Request::builder().method(&*request.method).uri(uri);
    let end_to_end = |name: &str| !["host", "transfer-encoding"].contains(&&*name.to_ascii_lowercase());
    for (name, value) in request.fields.iter().filter(|(name, _)| end_to_end(name)) {
        builder = builder.header(name, value.as_slice());
    }
    let content = &request.content;
    let ended = content.bytes().is_empty() && content.trailers().is_empty();
    let (response, mut body) = h2c::send(connection, builder, ended).await;
    if !ended {
        let last = content.trailers().is_empty();
        let sizes = match content {
            message::Content::Chunked(_, chunking) => chunking.sizes.clone(),
            _ => vec![content.bytes().len()],
        };
        let mut rest = content.bytes();
        // Thousands of frames of a byte each would be a flood, which a server may end.
        let least = rest.len() / MOST_FRAMES;
        let mut sizes = sizes.into_iter();
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(usize::MAX).max(least).min(rest.len());
            let piece;
            (piece, rest) = rest.split_at(size);
            body.send_data(Bytes::copy_from_slice(piece), last && rest.is_empty()).expect("data");
        }
        if !last {
            body.send_trailers(map(content.trailers())).expect("trailers");
        }
    }
    let mut response = response;
    let mut interim = Vec::new();
    while let Some(Ok(head)) = std::future::poll_fn(|cx| response.poll_informational(cx)).await {
        let line = format!("HTTP/2 {} ", head.status().as_u16());
        interim.push(Head { line, fields: fields(head.headers()), raw: Vec::new() });
    }
    let (head, mut body) = response.await.unwrap_or_else(|error| panic!("{error}: {}", named())).into_parts();
    let (content, trailers) = h2c::read_all(&mut body).await.unwrap_or_else(|error| panic!("{error}: {}", named()));
    let line = format!("HTTP/2 {} ", head.status.as_u16());
    let trailers = trailers.map(|map| fields(&map)).unwrap_or_default();
    Got {
        interim,
        head: Head { line, fields: fields(&head.headers), raw: Vec::new() },
        framing: Framing::None,
        body: Body { content, chunks: Vec::new(), trailers, complete: true },
    }
}

/// Fails with the differences that no rule allows, and gives those that one does.
fn judge(
    requests: &[Request],
    protocol: Protocol,
    direct: &BTreeMap<u64, Both>,
    via: &BTreeMap<u64, Both>,
    backend: SocketAddr,
) -> BTreeSet<(Side, Kind)> {
    let (mut allowed, mut faults) = (BTreeSet::new(), Vec::new());
    for request in requests {
        let (one, other) = (&direct[&request.case], &via[&request.case]);
        let found = Differences::between(request, protocol, (&one.0, &one.1), (&other.0, &other.1), backend);
        for (side, kind, what) in found.0 {
            if ALLOWED.iter().any(|(s, p, k, _)| (*s, *k) == (side, kind) && p.contains(&protocol)) {
                allowed.insert((side, kind));
            } else {
                let head = message::shown(&request.head());
                faults.push(format!("request {}, {side:?}, {kind:?}: {what}\n  request: {head}", request.case));
            }
        }
    }
    let shown = faults.len().min(10);
    assert!(faults.is_empty(), "seed {}: {} differences\n{}", seed(), faults.len(), faults[..shown].join("\n"));
    allowed
}

/// A difference that the table allows and that never shows is none.
fn every_one_occurs(protocol: Protocol, seen: &BTreeSet<(Side, Kind)>) {
    let listed: BTreeSet<_> =
        ALLOWED.iter().filter(|(_, p, ..)| p.contains(&protocol)).map(|(s, _, k, _)| (*s, *k)).collect();
    assert_eq!(listed.difference(seen).collect::<Vec<_>>(), Vec::<&(Side, Kind)>::new(), "allowed, but not seen");
}

/// Every request is counted once, by the status that its client got.
fn counted(sidecar: &Sidecar, results: &BTreeMap<u64, Both>) {
    let page = sidecar.settled(results.len());
    let mut by_status: BTreeMap<String, f64> = BTreeMap::new();
    for (got, _) in results.values() {
        *by_status.entry(got.head.status().to_string()).or_default() += 1.0;
    }
    for (status, count) in &by_status {
        assert_eq!(page.sum("golden_requests_total", &[("http_response_status_code", status)]), *count, "{status}");
    }
    let failed: f64 = by_status.iter().filter(|(status, _)| status.starts_with('5')).map(|(_, count)| count).sum();
    assert_eq!(page.sum("golden_errors_total", &[]), failed, "5xx of the backend, and nothing else");
    assert_eq!(page.sum("golden_errors_total", &[("fault", "backend"), ("phase", "wait")]), failed);
    assert_eq!(page.sum("golden_client_aborts_total", &[]), 0.0);
    assert_eq!(page.sum("golden_truncated_responses_total", &[]), 0.0);
}

fn transparent(protocol: Protocol, count: u64) {
    let requests: Vec<_> = (0..count).map(|case| Request::new(seed(), case, protocol)).collect();
    let (plain, plain_book) = backend(seed());
    let to_http2 = matches!(protocol, Protocol::Http1ToHttp2 | Protocol::Http2ToHttp2);
    let (behind, behind_book) = if to_http2 { Behind::http2(seed()) } else { Behind::http1(seed()) };
    let sidecar = Sidecar::upstream(behind.url()).start();
    let direct = over_http1(&requests, plain.address, &plain_book);
    let via = match protocol {
        Protocol::Http1 | Protocol::Http1ToHttp2 => over_http1(&requests, sidecar.proxy, &behind_book),
        Protocol::Http2 | Protocol::Http2ToHttp2 => over_http2(&requests, sidecar.proxy, &behind_book),
    };
    let seen = judge(&requests, protocol, &direct, &via, behind.address());
    if seed() == SEED {
        every_one_occurs(protocol, &seen);
    }
    counted(&sidecar, &via);
}

/// The backend behind the sidecar.
enum Behind {
    Http1(Backend),
    Http2(H2Backend),
}

impl Behind {
    fn http1(seed: u64) -> (Behind, Book) {
        let (backend, book) = backend(seed);
        (Behind::Http1(backend), book)
    }

    fn http2(seed: u64) -> (Behind, Book) {
        let (backend, book) = answer::http2_backend(seed);
        (Behind::Http2(backend), book)
    }

    fn address(&self) -> SocketAddr {
        match self {
            Behind::Http1(backend) => backend.address,
            Behind::Http2(backend) => backend.address,
        }
    }

    fn url(&self) -> String {
        match self {
            Behind::Http1(backend) => backend.url(),
            Behind::Http2(backend) => backend.url(),
        }
    }
}

#[test]
fn two_thousand_requests_look_the_same_directly_and_through_the_sidecar() {
    transparent(Protocol::Http1, HTTP1_REQUESTS);
}

#[test]
fn four_hundred_requests_look_the_same_when_the_client_speaks_http2() {
    transparent(Protocol::Http2, HTTP2_REQUESTS);
}

#[test]
fn four_hundred_requests_look_the_same_when_the_backend_speaks_http2() {
    transparent(Protocol::Http1ToHttp2, HTTP2_REQUESTS);
}

#[test]
fn four_hundred_requests_look_the_same_over_http2_from_end_to_end() {
    transparent(Protocol::Http2ToHttp2, HTTP2_REQUESTS);
}
