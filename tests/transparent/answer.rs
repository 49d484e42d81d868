//! The backend: what it answers follows from the number in the request, so that both ways get the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;

use crate::common::h2_backend::{self, H2Backend};
use crate::common::random::Random;
use crate::common::wire::{Body, Framing, Head};
use crate::common::{Backend, Peer};
use crate::message::{self, Content, Field, chunking, insert, odd_field, value, write_fields};
use crate::request::CASE;

/// A request as the backend saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Request line and fields.
    pub head: Head,
    /// Content and trailers; nothing where the backend refused to be sent any.
    pub body: Body,
}

/// What was seen, by number; taken out by whoever asks.
pub type Book = Arc<Mutex<HashMap<u64, Seen>>>;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Interim responses before it.
    pub interim: Vec<(u16, &'static str, Vec<Field>)>,
    /// The status line says HTTP/1.0.
    pub http10: bool,
    /// The status.
    pub status: u16,
    /// The reason phrase: any text, or none.
    pub reason: Vec<u8>,
    /// In order.
    pub fields: Vec<Field>,
    /// The body that a GET would have.
    pub content: Content,
    /// The backend closes the connection.
    pub closes: bool,
    /// An expectation is refused: answered before the body.
    pub refuses: bool,
    /// Sizes of the pieces in which it is written.
    pub cuts: Vec<usize>,
}

/// Starts a backend that answers by number.
pub fn backend(seed: u64) -> (Backend, Book) {
    let book = Book::default();
    let backend = Backend::start({
        let book = Arc::clone(&book);
        move |peer| while serve(peer, seed, &book) {}
    });
    (backend, book)
}

/// Starts a backend that answers the same over HTTP/2, as far as that has it.
pub fn http2_backend(seed: u64) -> (H2Backend, Book) {
    let book = Book::default();
    let noted = Arc::clone(&book);
    let backend = H2Backend::start(move |request, respond| {
        let noted = Arc::clone(&noted);
        Box::pin(async move { serve_stream(request, respond, seed, &noted).await })
    });
    (backend, book)
}

async fn serve_stream(request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>, seed: u64, book: &Book) {
    let (parts, mut body) = request.into_parts();
    let Ok((content, trailers)) = h2_backend::read(&mut body).await else { return };
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let line = format!("{} {target} HTTP/2", parts.method);
    let mut seen = message::fields(&parts.headers);
    let authority = parts.uri.authority().map_or("", http::uri::Authority::as_str);
    seen.insert(0, ("host".into(), authority.into()));
    let head = Head { line, fields: seen, raw: Vec::new() };
    let case = head.one(CASE).and_then(|case| case.parse().ok()).expect("every request of the run has its number");
    let trailers = trailers.map(|map| message::fields(&map)).unwrap_or_default();
    book.lock()
        .unwrap()
        .insert(case, Seen { head, body: Body { content, chunks: Vec::new(), trailers, complete: true } });

    let answer = Answer::new(seed, case);
    for (status, _, fields) in &answer.interim {
        let mut interim = http::Response::new(());
        *interim.status_mut() = http::StatusCode::from_u16(*status).expect("a status");
        *interim.headers_mut() = message::map(fields);
        respond.send_informational(interim).expect("an interim response");
    }
    // Nothing that belongs to a connection of HTTP/1.
    let private = |name: &str| {
        ["connection", "keep-alive", "transfer-encoding", "x-private"].contains(&&*name.to_ascii_lowercase())
    };
    let fields: Vec<_> = answer.fields.iter().filter(|(name, _)| !private(name)).cloned().collect();
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(answer.status).expect("a status");
    *response.headers_mut() = message::map(&fields);
    let bodyless = parts.method == http::Method::HEAD || matches!(answer.status, 204 | 304);
    let content = if bodyless { &[] } else { answer.content.bytes() };
    let trailers = answer.content.trailers();
    let trailers = (!bodyless && !trailers.is_empty()).then(|| message::map(trailers));
    h2_backend::answer(respond, response, content, trailers);
}

/// One request and its answer; false when the connection ends.
fn serve(peer: &mut Peer, seed: u64, book: &Book) -> bool {
    let Some(head) = peer.read_head() else { return false };
    let case = head.one(CASE).and_then(|case| case.parse().ok()).expect("every request of the run has its number");
    let answer = Answer::new(seed, case);
    let http10 = head.line.ends_with("HTTP/1.0");
    let expects = !http10 && head.all("expect").iter().any(|value| value.eq_ignore_ascii_case("100-continue"));
    let framing = Peer::framing(&head);
    let refuses = answer.refuses && expects && framing != Framing::None;
    if expects && !refuses {
        peer.send("HTTP/1.1 100 Continue\r\n\r\n");
    }
    let framing = if refuses { Framing::None } else { framing };
    let Ok(body) = peer.wire.read_body(framing) else { return false };
    let method = head.method().to_owned();
    let keeps =
        if http10 { head.has_token("connection", "keep-alive") } else { !head.has_token("connection", "close") };
    book.lock().unwrap().insert(case, Seen { head, body });
    answer.send(peer, &method, http10, keeps && !refuses)
}

// === impl Answer ===

impl Answer {
    /// The answer to the request of this number.
    pub fn new(seed: u64, case: u64) -> Answer {
        let random = &mut Random::new(!seed ^ case.wrapping_mul(0x9e6c_63d0_876a_3f1b));
        let http10 = random.percent(6);
        let status = status(random);
        let content = content(random, status, http10);
        let mut fields = fields(random);
        if let Some(field) = content.field(random) {
            insert(random, &mut fields, field);
        }
        if !content.trailers().is_empty() && random.percent(50) {
            let names: Vec<_> = content.trailers().iter().map(|(name, _)| name.as_str()).collect();
            insert(random, &mut fields, ("Trailer".into(), names.join(", ").into_bytes()));
        }
        let closes = random.percent(8);
        if closes {
            insert(random, &mut fields, ("Connection".into(), b"close".to_vec()));
        } else if http10 && random.percent(50) {
            insert(random, &mut fields, ("Connection".into(), b"Keep-Alive".to_vec()));
        }
        let interim = match random.below(12) {
            0 if !http10 => (0..random.between(1, 3)).map(|_| interim(random)).collect(),
            _ => Vec::new(),
        };
        let cuts = match random.below(4) {
            0 => (0..random.between(1, 6)).map(|_| random.between(1, 200)).collect(),
            _ => Vec::new(),
        };
        let refuses = random.percent(20);
        Answer { interim, http10, status, reason: reason(random), fields, content, closes, refuses, cuts }
    }

    /// Writes it as this request may have it; false when the connection ends with it.
    fn send(&self, peer: &mut Peer, method: &str, to_http10: bool, keeps: bool) -> bool {
        let mut out = Vec::new();
        let random = &mut Random::new(u64::from(self.status));
        if !to_http10 {
            for (status, reason, fields) in &self.interim {
                out.extend_from_slice(format!("HTTP/1.1 {status} {reason}\r\n").as_bytes());
                write_fields(random, &mut out, fields);
            }
        }
        let bodyless = method == "HEAD" || matches!(self.status, 204 | 304);
        // HTTP/1.0 knows no chunks: the same bytes, until the connection ends.
        let plain = to_http10 && matches!(self.content, Content::Chunked(..));
        let until_close = (plain || matches!(self.content, Content::Close(_))) && !bodyless;
        let mut fields = self.fields.clone();
        if plain {
            fields.retain(|(name, _)| !name.eq_ignore_ascii_case("transfer-encoding"));
        }
        let said = fields.iter().any(|(_, value)| value == b"Keep-Alive");
        let ends = self.closes || !keeps || until_close || (self.http10 && !said);
        if !ends && to_http10 && !said {
            fields.push(("Connection".into(), b"keep-alive".to_vec()));
        } else if ends && !to_http10 && !self.http10 && !self.closes {
            fields.push(("Connection".into(), b"close".to_vec()));
        }
        let version = if self.http10 { "HTTP/1.0" } else { "HTTP/1.1" };
        out.extend_from_slice(format!("{version} {} ", self.status).as_bytes());
        out.extend_from_slice(&self.reason);
        out.extend_from_slice(b"\r\n");
        write_fields(random, &mut out, &fields);
        if !bodyless {
            out.extend(if plain { self.content.bytes().to_vec() } else { self.content.framed() });
        }
        let mut rest = out.as_slice();
        for cut in &self.cuts {
            let piece;
            (piece, rest) = rest.split_at((*cut).min(rest.len()));
            if !piece.is_empty() && !peer.send(piece) {
                return false;
            }
        }
        peer.send(rest) && !ends
    }
}

fn status(random: &mut Random) -> u16 {
    match random.below(10) {
        0..5 => 200,
        5 => *random.pick(&[204, 304]),
        6 => *random.pick(&[201, 206, 301, 302, 400, 401, 404, 405, 412, 416, 426, 429, 500, 502, 503, 504]),
        // Every number that means a final answer, known or not.
        _ => match 200 + random.below(400) as u16 {
            // 205 must not have content (RFC 9110, section 15.3.6).
            205 => 203,
            status => status,
        },
    }
}

fn reason(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => Vec::new(),
        1 => b"A very \"odd\" reason: {with} \\braces\\".to_vec(),
        2 => "R\u{e9}ponse".as_bytes().to_vec(),
        3 => b"Tab\there \xff\xfe".to_vec(),
        4 => b"  two blanks before".to_vec(),
        _ => b"Reason".to_vec(),
    }
}

fn content(random: &mut Random, status: u16, http10: bool) -> Content {
    match status {
        204 => return Content::None,
        // It may tell the length that a 200 would have.
        304 if random.percent(50) => return Content::Close(Vec::new()),
        _ => {}
    }
    let size = message::size(random);
    let bytes = random.bytes(size);
    match random.below(10) {
        0 => Content::Close(bytes),
        1..5 if !http10 && status != 304 => {
            let chunks = chunking(random, size);
            Content::Chunked(bytes, chunks)
        }
        _ => {
            let zeros = if random.percent(3) { 2 } else { 0 };
            Content::Length(bytes, zeros)
        }
    }
}

fn fields(random: &mut Random) -> Vec<Field> {
    const ORDINARY: [(&str, &str); 26] = [
        ("Date", "Tue, 15 Nov 1994 08:12:31 GMT"),
        ("Server", "Apache/2.4 (\"quoted\")"),
        ("Set-Cookie", "a=1; Path=/; HttpOnly"),
        ("Set-Cookie", "b=\"2\"; Expires=Wed, 09 Jun 2021 10:18:14 GMT"),
        ("Set-Cookie", "c="),
        ("Vary", "Accept-Encoding"),
        ("Vary", "*"),
        ("ETag", "W/\"0815\""),
        ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Location", "http://test/a%20b?x=y#fragment"),
        ("Content-Type", "text/plain; charset=\"utf-8\""),
        ("Content-Type", "application/json"),
        ("Content-Encoding", "gzip"),
        ("Content-Range", "bytes 0-10/100"),
        ("Accept-Ranges", "bytes"),
        ("WWW-Authenticate", "Basic realm=\"a, b\", Bearer"),
        ("Proxy-Authenticate", "Digest realm=\"x\""),
        ("Link", "</style.css>; rel=preload"),
        ("Via", "1.1 origin"),
        ("Age", "0"),
        ("Retry-After", "120"),
        ("Allow", ""),
        ("Host", "not.usual.here"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("Strict-Transport-Security", "max-age=1"),
        ("Server-Timing", "db;dur=53, app;dur=47.2"),
    ];
    let mut fields = Vec::new();
    for _ in 0..random.below(10) {
        let field = match random.below(10) {
            0..7 => {
                let (name, value) = *random.pick(&ORDINARY);
                (name.into(), value.into())
            }
            7 => ("X-Several".into(), value(random)),
            _ => odd_field(random),
        };
        insert(random, &mut fields, field);
    }
    if random.percent(5) {
        insert(random, &mut fields, ("Keep-Alive".into(), b"timeout=5".to_vec()));
    }
    if random.percent(5) {
        insert(random, &mut fields, ("Connection".into(), b"X-Private".to_vec()));
        let private = ("X-Private".into(), value(random));
        insert(random, &mut fields, private);
    }
    fields
}

fn interim(random: &mut Random) -> (u16, &'static str, Vec<Field>) {
    match random.below(3) {
        0 => (103, "Early Hints", vec![("Link".into(), b"</a.css>; rel=preload".to_vec()), odd_field(random)]),
        1 => (102, "Processing", Vec::new()),
        _ => (199, "", vec![odd_field(random)]),
    }
}
