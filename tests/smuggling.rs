//! What must not go through: messages that two readers could understand differently, in both directions.
//!
//! Each hostile request is followed, in the same bytes, by a request for `/smuggled`. Whoever lets that one reach the
//! backend has read the first one wrongly.

mod common;

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use common::wire::{Framing, find};
use common::{Backend, Client, Outcome, Sidecar, ok, response};

/// The request behind the hostile one. It closes, so that the end of the connection is the end of a case either way.
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

/// What may become of a hostile request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Answered with one of these, connection closed, nothing at the backend.
    Refused(&'static [u16]),
    /// The head was good, the body is not: answered with 400 and closed; at the backend never a whole request.
    CutBody,
    /// Refused, or read by Transfer-Encoding alone: forwarded chunked, without a length, then closed (RFC 9112, 6.1).
    TransferEncodingAlone,
    /// Refused, or forwarded as what it unambiguously is: one length, 5 bytes.
    OneLength,
    /// Refused, or forwarded in proper form: CRLF line ends only, and the fields meant.
    Repaired,
}
use Fate::{CutBody, OneLength, Refused, Repaired, TransferEncodingAlone};

const BAD: Fate = Refused(&[400]);
/// An unknown coding may be called "not implemented".
const BAD_CODING: Fate = Refused(&[400, 501]);

/// Request line and Host of most cases.
const POST: &str = "POST /first HTTP/1.1\r\nHost: test\r\n";
const GET: &str = "GET /first HTTP/1.1\r\nHost: test\r\n";

/// Name, bytes, fate.
fn hostile_requests() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let mut cases: Vec<(&'static str, Vec<u8>, Fate)> = Vec::new();
    let mut add = |name, bytes: Vec<u8>, fate| cases.push((name, bytes, fate));
    let post = |fields: &str, body: &str| format!("{POST}{fields}\r\n{body}").into_bytes();
    let get = |fields: &str| format!("{GET}{fields}\r\n").into_bytes();
    let chunked = |body: &str| format!("{POST}Transfer-Encoding: chunked\r\n\r\n{body}").into_bytes();

    // Both lengths.
    let both = "5\r\nhello\r\n0\r\n\r\n";
    add("CL then TE", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", both), TransferEncodingAlone);
    add("TE then CL", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", both), TransferEncodingAlone);
    add("CL 0 and TE", post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", both), TransferEncodingAlone);
    add(
        "CL of the whole and TE",
        post("Content-Length: 15\r\nTransfer-Encoding: chunked\r\n", both),
        TransferEncodingAlone,
    );
    add("TE and an invalid CL", post("Transfer-Encoding: chunked\r\nContent-Length: x\r\n", both), BAD);
    add(
        "CL and TE in a GET",
        format!("{GET}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").into_bytes(),
        TransferEncodingAlone,
    );

    // Transfer-Encoding.
    for (name, fields) in [
        ("TE twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("TE chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n"),
        ("TE chunked then identity line", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        ("TE identity line then chunked", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
        ("TE identity", "Transfer-Encoding: identity\r\n"),
        ("TE chunked, gzip", "Transfer-Encoding: chunked, gzip\r\n"),
        ("TE gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n"),
        ("TE gzip", "Transfer-Encoding: gzip\r\n"),
        ("TE xchunked", "Transfer-Encoding: xchunked\r\n"),
        ("TE chunkedx", "Transfer-Encoding: chunkedx\r\n"),
        ("TE chunk", "Transfer-Encoding: chunk\r\n"),
        ("TE empty", "Transfer-Encoding:\r\n"),
        ("TE with a parameter", "Transfer-Encoding: chunked;q=1\r\n"),
        ("TE quoted", "Transfer-Encoding: \"chunked\"\r\n"),
        ("TE chunked with a vertical tab", "Transfer-Encoding: \x0bchunked\r\n"),
        ("TE chunked with a form feed behind", "Transfer-Encoding: chunked\x0c\r\n"),
        ("TE chunk ed", "Transfer-Encoding: chunk ed\r\n"),
    ] {
        add(name, post(fields, both), BAD_CODING);
        // The same beside a length must not be read by the length either.
        if !name.contains("twice") {
            add(name, post(&format!("{fields}Content-Length: 5\r\n"), "hello"), BAD_CODING);
        }
    }
    add(
        "TE in HTTP/1.0",
        b"POST /first HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        BAD,
    );
    add(
        "TE and CL in HTTP/1.0",
        b"POST /first HTTP/1.0\r\nHost: test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello".to_vec(),
        BAD,
    );
    add(
        "TE name with an underscore beside CL",
        post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "hello"),
        OneLength,
    );

    // Content-Length.
    for (name, fields) in [
        ("CL differing", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("CL differing in one line", "Content-Length: 5, 6\r\n"),
        ("CL +5", "Content-Length: +5\r\n"),
        ("CL -5", "Content-Length: -5\r\n"),
        ("CL -0", "Content-Length: -0\r\n"),
        ("CL empty", "Content-Length:\r\n"),
        ("CL hexadecimal", "Content-Length: 0x5\r\n"),
        ("CL with letters", "Content-Length: 5x\r\n"),
        ("CL with a blank inside", "Content-Length: 5 5\r\n"),
        ("CL with a dot", "Content-Length: 5.0\r\n"),
        ("CL with an exponent", "Content-Length: 5e0\r\n"),
        ("CL with an underscore", "Content-Length: 5_0\r\n"),
        ("CL quoted", "Content-Length: \"5\"\r\n"),
        ("CL 2^64", "Content-Length: 18446744073709551616\r\n"),
        ("CL 2^64 + 5", "Content-Length: 18446744073709551621\r\n"),
        ("CL 2^32 digits of nines", "Content-Length: 99999999999999999999999999999999999999\r\n"),
        ("CL in other digits", "Content-Length: \u{665}\r\n"),
        ("CL with a trailing comma", "Content-Length: 5,\r\n"),
        ("CL 5 and empty", "Content-Length: 5\r\nContent-Length:\r\n"),
        ("CL 5 and +5", "Content-Length: 5\r\nContent-Length: +5\r\n"),
    ] {
        add(name, post(fields, "hello"), BAD);
    }
    add("CL twice the same", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), OneLength);
    add("CL 5, 5", post("Content-Length: 5, 5\r\n", "hello"), OneLength);

    // Line ends, blanks, control bytes.
    add("obs-fold with a blank", get("X-A: 1\r\n folded: yes\r\n"), BAD);
    add("obs-fold with a tab", get("X-A: 1\r\n\tfolded: yes\r\n"), BAD);
    add("obs-fold of TE", post("Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n", "hello"), BAD);
    add("a blank before the first field", b"GET /first HTTP/1.1\r\n Host: test\r\n\r\n".to_vec(), BAD);
    add("space before colon", get("X-A : 1\r\n"), BAD);
    add("tab before colon", get("X-A\t: 1\r\n"), BAD);
    add("space before colon of TE", post("Transfer-Encoding : chunked\r\nContent-Length: 5\r\n", "hello"), BAD);
    add("space before colon of CL", post("Content-Length : 5\r\n", "hello"), BAD);
    add("blank inside a name", get("X A: 1\r\n"), BAD);
    add("no colon", get("X-A\r\n"), BAD);
    add("empty name", get(": 1\r\n"), BAD);
    add("parenthesis in a name", get("X(A): 1\r\n"), BAD);
    add("quote in a name", get("X\"A: 1\r\n"), BAD);
    add("high byte in a name", [GET.as_bytes(), b"X-\xc3\xa4: 1\r\n\r\n"].concat(), BAD);
    add("NUL in a name", get("X-\0A: 1\r\n"), BAD);
    add("NUL in a value", get("X-A: 1\x002\r\n"), BAD);
    add("control byte in a value", get("X-A: 1\x012\r\n"), BAD);
    add("escape byte in a value", get("X-A: \x1b[2J\r\n"), BAD);
    add("DEL in a value", get("X-A: 1\x7f2\r\n"), BAD);
    add("bare CR in a value", get("X-A: 1\r2\r\n"), BAD);
    add(
        "bare CR that hides a field",
        post("X-A: 1\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", "hello"),
        BAD,
    );
    add("CR CR LF", get("X-A: 1\r\r\n"), BAD);
    add("bare CR in the request line", b"GET /first\r HTTP/1.1\r\nHost: test\r\n\r\n".to_vec(), BAD);
    add("bare CR as a line end", b"GET /first HTTP/1.1\rHost: test\r\r".to_vec(), BAD);
    add("bare LF after a field", format!("{GET}X-A: 1\nX-B: 2\r\n\r\n").into_bytes(), Repaired);
    add("bare LF after the request line", b"GET /first HTTP/1.1\nHost: test\r\n\r\n".to_vec(), Repaired);
    add("bare LF as the empty line", b"GET /first HTTP/1.1\r\nHost: test\r\n\n".to_vec(), Repaired);
    add(
        "bare LF that hides TE",
        post("X-A: 1\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", both),
        TransferEncodingAlone,
    );

    // Request line.
    for (name, line) in [
        ("two blanks in the request line", "GET  /first HTTP/1.1"),
        ("a tab in the request line", "GET\t/first HTTP/1.1"),
        ("a blank at the end of the request line", "GET /first HTTP/1.1 "),
        ("a blank before the method", " GET /first HTTP/1.1"),
        ("a blank in the target", "GET /fi rst HTTP/1.1"),
        ("no target", "GET HTTP/1.1"),
        ("no version", "GET /first"),
        ("lower case version", "GET /first http/1.1"),
        ("no slash in the version", "GET /first HTTP1.1"),
        ("long version", "GET /first HTTP/1.10"),
        ("version without a minor", "GET /first HTTP/1"),
        ("another protocol", "GET /first ICAP/1.0"),
        ("NUL in the method", "G\0ET /first HTTP/1.1"),
        ("control byte in the method", "G\x01ET /first HTTP/1.1"),
        ("parenthesis in the method", "G(ET /first HTTP/1.1"),
        ("NUL in the target", "GET /fi\0rst HTTP/1.1"),
        ("control byte in the target", "GET /fi\x01rst HTTP/1.1"),
        ("tab in the target", "GET /fi\trst HTTP/1.1"),
        ("DEL in the target", "GET /fi\x7frst HTTP/1.1"),
        ("a target that is no path", "GET first HTTP/1.1"),
        ("asterisk with GET", "GET * HTTP/1.1"),
        ("absolute target without a host", "GET http:///first HTTP/1.1"),
    ] {
        add(name, format!("{line}\r\nHost: test\r\n\r\n").into_bytes(), BAD);
    }
    for (name, line) in [
        ("version 2.0", "GET /first HTTP/2.0"),
        ("version 9.9", "GET /first HTTP/9.9"),
        ("version 0.9", "GET /first HTTP/0.9"),
    ] {
        add(name, format!("{line}\r\nHost: test\r\n\r\n").into_bytes(), Refused(&[400, 505]));
    }
    add(
        "CONNECT",
        b"CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n".to_vec(),
        Refused(&[400, 405, 501]),
    );
    add("TLS instead of HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), BAD);
    add("binary", b"\x80\x00\xff\xfe\r\n\r\n".to_vec(), BAD);

    // Host.
    for (name, fields) in [
        ("no Host", ""),
        ("two Hosts", "Host: a.test\r\nHost: b.test\r\n"),
        ("two equal Hosts", "Host: test\r\nHost: test\r\n"),
        ("a blank in Host", "Host: a b\r\n"),
        ("a slash in Host", "Host: a/b\r\n"),
        ("user information in Host", "Host: user@test\r\n"),
        ("a comma in Host", "Host: a.test, b.test\r\n"),
        ("a question mark in Host", "Host: a?b\r\n"),
        ("a fragment in Host", "Host: a#b\r\n"),
        ("a backslash in Host", "Host: a\\b\r\n"),
        ("a port that is no number", "Host: test:80x\r\n"),
        ("an open bracket in Host", "Host: [::1\r\n"),
        ("quotes in Host", "Host: \"test\"\r\n"),
        ("angle brackets in Host", "Host: <test>\r\n"),
    ] {
        add(name, format!("GET /first HTTP/1.1\r\n{fields}\r\n").into_bytes(), BAD);
    }
    add("two Hosts in HTTP/1.0", b"GET /first HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(), BAD);
    add(
        "absolute target with two Hosts",
        b"GET http://test/first HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(),
        BAD,
    );
    add("absolute target without Host", b"GET http://test/first HTTP/1.1\r\n\r\n".to_vec(), BAD);

    // Chunks.
    for (name, body) in [
        ("chunk size not hexadecimal", "G\r\nhello\r\n0\r\n\r\n"),
        ("chunk size empty", "\r\nhello\r\n0\r\n\r\n"),
        ("chunk size +5", "+5\r\nhello\r\n0\r\n\r\n"),
        ("chunk size -5", "-5\r\nhello\r\n0\r\n\r\n"),
        ("chunk size 0x5", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("chunk size 5_0", "5_0\r\nhello\r\n0\r\n\r\n"),
        ("chunk size with a blank before", " 5\r\nhello\r\n0\r\n\r\n"),
        ("chunk size with a blank inside", "0 5\r\nhello\r\n0\r\n\r\n"),
        ("chunk size with a blank behind", "5 \r\nhello\r\n0\r\n\r\n"),
        ("chunk size of 2^64", "10000000000000000\r\nhello\r\n0\r\n\r\n"),
        ("chunk size of 2^64 + 5", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("chunk size of many digits", "fffffffffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("bare LF after a chunk size", "5\nhello\r\n0\r\n\r\n"),
        ("bare CR after a chunk size", "5\rhello\r\n0\r\n\r\n"),
        ("NUL in a chunk size", "5\0\r\nhello\r\n0\r\n\r\n"),
        ("chunk longer than its size", "5\r\nhelloX\r\n0\r\n\r\n"),
        ("no line end after a chunk", "5\r\nhello0\r\n\r\n"),
        ("bare LF after a chunk", "5\r\nhello\n0\r\n\r\n"),
        ("bare CR after a chunk", "5\r\nhello\rX0\r\n\r\n"),
        ("NUL in a chunk extension", "5;a=\0\r\nhello\r\n0\r\n\r\n"),
        ("bare LF in a chunk extension", "5;a=b\nc\r\nhello\r\n0\r\n\r\n"),
        ("bare CR in a chunk extension", "5;a=b\rc\r\nhello\r\n0\r\n\r\n"),
        ("bare LF in the last chunk", "5\r\nhello\r\n0\n\r\n"),
        ("bare LF behind the last chunk", "5\r\nhello\r\n0\r\n\n"),
        ("space before colon in a trailer", "5\r\nhello\r\n0\r\nX-A : 1\r\n\r\n"),
        ("NUL in a trailer", "5\r\nhello\r\n0\r\nX-A: \0\r\n\r\n"),
        ("obs-fold in a trailer", "5\r\nhello\r\n0\r\nX-A: 1\r\n 2\r\n\r\n"),
        ("no colon in a trailer", "5\r\nhello\r\n0\r\nX-A\r\n\r\n"),
        ("junk instead of chunks", "this is not chunked\r\n\r\n"),
    ] {
        add(name, chunked(body), CutBody);
    }
    cases
}

/// Reads what the sidecar sends until it closes: the responses, in order.
fn answers(client: &mut Client) -> Result<Vec<common::Response>, String> {
    let mut answers = Vec::new();
    loop {
        match client.wire.read_head() {
            Ok(None) => return Ok(answers),
            Ok(Some(head)) => {
                let framing = Client::framing("GET", &head);
                let body = client.wire.read_body(framing).map_err(|error| format!("body: {error}"))?;
                answers.push(common::Response { head, body, framing });
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(format!("the connection stays open after {:?}", statuses(&answers)));
            }
            Err(error) => return Err(format!("{error} after {:?}", statuses(&answers))),
        }
    }
}

fn statuses(answers: &[common::Response]) -> Vec<u16> {
    answers.iter().map(common::Response::status).collect()
}

/// Whether the answers are one refusal with one of these statuses.
fn refused(answers: &[common::Response], accepted: &[u16]) -> Result<(), String> {
    let [answer] = answers else { return Err(format!("answers {:?}", statuses(answers))) };
    if !accepted.contains(&answer.status()) {
        return Err(format!("answered {} {:?}", answer.status(), answer.text()));
    }
    if !answer.head.has_token("connection", "close") {
        return Err(format!("no Connection: close in {:?}", answer.head.fields));
    }
    answer.proxy_made("bad_request").map(drop)
}

fn check(name: &str, bytes: &[u8], fate: Fate, sidecar: &Sidecar, backend: &Backend) -> Result<(), String> {
    let before = backend.requests().len();
    let connections_before = backend.connections();
    let mut client = sidecar.client();
    // Far above any answer time here; a failing table should not take a minute per line.
    client.wire.stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    client.try_send([bytes, NEXT.as_bytes()].concat()).map_err(|error| format!("send: {error}"))?;
    let answers = answers(&mut client)?;
    let seen = backend.requests().split_off(before);
    if let Some(smuggled) = seen.iter().find(|request| request.head.target() == "/smuggled") {
        // A request that was repaired leaves its connection open, and what follows is a request of its own right.
        let own_right = matches!(fate, OneLength | Repaired) && seen.len() == 2;
        if !own_right {
            return Err(format!("SMUGGLED: {:?}", smuggled.head.line));
        }
    }
    let nothing_there = || {
        if seen.is_empty() && backend.connections() == connections_before {
            Ok(())
        } else {
            Err(format!("the backend saw {:?}", seen.iter().map(|r| &r.head.line).collect::<Vec<_>>()))
        }
    };
    match fate {
        Refused(accepted) => {
            refused(&answers, accepted)?;
            nothing_there()
        }
        CutBody => {
            refused(&answers, &[400])?;
            match seen.iter().find(|request| request.body.complete) {
                Some(whole) => Err(format!("the backend got a whole request: {whole:?}")),
                None => Ok(()),
            }
        }
        TransferEncodingAlone if statuses(&answers) == [200] => {
            let [request] = seen.as_slice() else { return Err(format!("the backend saw {} requests", seen.len())) };
            let framing = common::Peer::framing(&request.head);
            if framing == Framing::Chunked && !request.head.has("content-length") && request.body.complete {
                Ok(())
            } else {
                Err(format!("forwarded as {framing:?}: {:?}", request.head.fields))
            }
        }
        OneLength | Repaired if statuses(&answers).first() == Some(&200) => {
            let first = seen.first().ok_or("nothing reached the backend")?;
            let raw = &first.head.raw;
            let bare = raw.iter().enumerate().any(|(at, b)| *b == b'\n' && (at == 0 || raw[at - 1] != b'\r'));
            if bare || raw.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n') {
                return Err(format!("relayed with its bad line ends: {:?}", String::from_utf8_lossy(raw)));
            }
            if fate == OneLength && (first.head.all("content-length") != ["5"] || first.body.content != b"hello") {
                return Err(format!("forwarded as {:?}", first.head.fields));
            }
            if first.head.has("transfer_encoding") && first.head.has("transfer-encoding") {
                return Err(format!("a name was changed: {:?}", first.head.fields));
            }
            Ok(())
        }
        TransferEncodingAlone | OneLength | Repaired => {
            refused(&answers, &[400])?;
            nothing_there()
        }
    }
    .map_err(|error| format!("{name}: {error}"))
}

#[test]
fn hostile_requests_are_refused_and_never_reach_the_backend() {
    let cases = hostile_requests();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let backend = Backend::answering(|_| ok("ok"));
    let sidecar = Sidecar::start(&backend);
    let mut failures = String::new();
    for (name, bytes, fate) in &cases {
        if let Err(error) = check(name, bytes, *fate, &sidecar, &backend) {
            writeln!(failures, "- {name}: {error}\n    {:?}", String::from_utf8_lossy(bytes)).unwrap();
        }
    }
    assert!(failures.is_empty(), "of {} cases:\n{failures}", cases.len());
    // Each was counted once: refused ones as errors of the client, whatever got through as the backend's.
    let whole = backend.requests().iter().filter(|request| request.body.complete).count() as f64;
    let page = sidecar.page_when("every request recorded", |page| {
        page.sum("http_server_active_requests", &[]) == 0.0
            && page.sum("golden_requests_total", &[("origin", "backend")]) == whole
    });
    let refused = page.sum("golden_requests_total", &[("origin", "proxy")]);
    assert_eq!(refused, page.sum("golden_errors_total", &[("error_type", "bad_request"), ("fault", "client")]));
    assert_eq!(
        refused,
        page.sum("golden_errors_total", &[]),
        "no error of another kind: {}",
        page.lines_of("golden_errors_total")
    );
    let at_least = cases.iter().filter(|(_, _, fate)| matches!(fate, Refused(_) | CutBody)).count() as f64;
    assert!(refused >= at_least, "{refused} refusals counted, at least {at_least} happened");
}

#[test]
fn an_unreadable_request_is_one_request_without_route_and_method() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    client.send("GARBAGE\x01\r\n\r\n");
    let answers = answers(&mut client).expect("an answer and the end");
    refused(&answers, &[400]).unwrap();
    sidecar.expect(&[Outcome::proxy("_OTHER", "400", ("bad_request", "client", "head"))]);
}

#[test]
fn a_bad_chunk_is_the_clients_fault_not_the_backends() {
    let backend = Backend::answering(|_| ok("ok"));
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    client.send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"));
    common::wait_until("the good part is at the backend", || find(&backend.all_raw(), b"hello").is_some());
    client.send("XYZ\r\n");
    refused(&answers(&mut client).expect("an answer and the end"), &[400]).unwrap();
    common::wait_until("the upload is cut", || backend.requests().len() == 1);
    assert!(!backend.request().body.complete, "the last chunk was invented");
    sidecar.expect(&[Outcome::proxy("POST", "400", ("bad_request", "client", "send"))]);
}

// --- limits of the head ---

#[track_caller]
fn one_refusal(sidecar: &Sidecar, bytes: impl AsRef<[u8]>, accepted: &[u16], word: &str) {
    let mut client = sidecar.client();
    // The sidecar may answer and close before it has read everything.
    let _ = client.try_send(bytes);
    let answer = client.read_response("GET");
    assert!(accepted.contains(&answer.status()), "{} {}", answer.status(), answer.text());
    answer.proxy_made(word).unwrap();
    assert!(answer.head.has_token("connection", "close"));
    client.expect_end();
}

#[test]
fn a_head_above_the_limit_is_431() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    one_refusal(&sidecar, format!("{GET}X-Big: {}\r\n\r\n", "x".repeat(70 << 10)), &[431], "header_limit");
    let many_lines: String = (0..80).map(|n| format!("X-{n}: {}\r\n", "y".repeat(1000))).collect();
    one_refusal(&sidecar, format!("{GET}{many_lines}\r\n"), &[431], "header_limit");
    assert_eq!(backend.connections(), 0);
    let page = sidecar.settled(2);
    assert_eq!(page.sum("golden_requests_total", &[("http_response_status_code", "431"), ("origin", "proxy")]), 2.0);
    let labels = [("error_type", "header_limit"), ("fault", "client"), ("phase", "head")];
    assert_eq!(page.sum("golden_errors_total", &labels), 2.0);
}

#[test]
fn a_head_that_never_ends_is_cut_at_the_limit() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    client.send(GET);
    let mut sent = 0;
    // Sends until the sidecar refuses; 64 times the limit would be far too late.
    while sent < 4 << 20 && client.try_send("X-More: and more and more and more\r\n").is_ok() {
        sent += 36;
        if sent % 36_000 == 0 && client.peek_for(Duration::from_millis(1)).starts_with(b"HTTP/1.1 431") {
            break;
        }
    }
    assert!(sent < 4 << 20, "{sent} bytes of a head were taken");
}

#[test]
fn a_hundred_fields_pass_and_one_more_is_431() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    let fields = |count: usize| (1..count).map(|n| format!("X-{n}: {n}\r\n")).collect::<String>();
    assert_eq!(sidecar.exchange(format!("{GET}{}\r\n", fields(100))).status(), 200, "Host and 99 more");
    assert_eq!(
        backend
            .request()
            .head
            .fields
            .iter()
            .filter(|(name, _)| name.len() <= 4 && !name.eq_ignore_ascii_case("host"))
            .count(),
        99
    );
    one_refusal(&sidecar, format!("{GET}{}\r\n", fields(101)), &[431], "header_limit");
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn a_request_line_above_the_limit_is_refused() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    let _ = client.try_send(format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(70 << 10)));
    let answer = client.read_response("GET");
    assert!([414, 431].contains(&answer.status()), "{}", answer.status());
    assert_eq!(backend.connections(), 0);
    let page = sidecar.settled(1);
    assert_eq!(page.sum("golden_errors_total", &[("fault", "client"), ("phase", "head")]), 1.0);
}

#[test]
fn a_request_line_above_its_own_limit_is_414() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).yaml("limits:\n  request_line_bytes: 1KiB\n").start();
    assert_eq!(sidecar.get(&format!("/{}", "a".repeat(900))).status(), 200);
    let mut client = sidecar.client();
    client.send(format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(1100)));
    let answer = client.read_response("GET");
    assert_eq!(answer.status(), 414);
    assert!(answer.head.has("proxy-status"));
    client.expect_end();
    assert_eq!(backend.requests().len(), 1);
    let page = sidecar.settled(2);
    assert_eq!(page.sum("golden_errors_total", &[("fault", "client"), ("phase", "head")]), 1.0);
}

#[test]
fn a_method_of_64_kib_is_refused() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    let _ = client.try_send(format!("{} / HTTP/1.1\r\nHost: test\r\n\r\n", "M".repeat(65_000)));
    let answer = client.read_response("GET");
    assert!([400, 414, 431, 501].contains(&answer.status()), "{}", answer.status());
    assert_eq!(backend.connections(), 0);
}

#[test]
fn smaller_limits_of_the_file_hold() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).yaml("limits:\n  head_bytes: 8KiB\n  headers: 10\n").start();
    assert_eq!(sidecar.exchange(format!("{GET}X-A: {}\r\n\r\n", "x".repeat(6000))).status(), 200);
    one_refusal(&sidecar, format!("{GET}X-A: {}\r\n\r\n", "x".repeat(9000)), &[431], "header_limit");
    one_refusal(&sidecar, format!("{GET}{}\r\n", "X-A: 1\r\n".repeat(10)), &[431], "header_limit");
}

#[test]
fn trailers_and_chunk_extensions_are_bounded() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    let many: String = (0..5000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    for body in [
        format!("5\r\nhello\r\n0\r\n{many}\r\n"),
        format!("5\r\nhello\r\n0\r\nX-Big: {}\r\n\r\n", "x".repeat(1 << 20)),
        format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(1 << 20)),
    ] {
        let mut client = sidecar.client();
        let _ = client.try_send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n{body}"));
        let answer = client.read_response("POST");
        assert!([400, 431].contains(&answer.status()), "{} for {:?}…", answer.status(), &body[..30]);
    }
    common::wait_until("the uploads are cut", || backend.requests().iter().all(|request| !request.body.complete));
}

// --- the form of the sidecar's own answers ---

#[test]
fn an_answer_of_the_sidecar_is_json_for_those_who_ask() {
    let mut backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    backend.stop();
    let text = sidecar.get("/");
    assert_eq!(text.status(), 502);
    assert_eq!(text.proxy_made("connect_refused").unwrap(), "connection_refused");
    assert!(text.head.one("content-type").unwrap().starts_with("text/plain"));
    for accept in ["application/json", "text/html;q=0.5, application/json", "application/json; charset=utf-8"] {
        let json = sidecar.exchange(format!("{GET}Accept: {accept}\r\n\r\n"));
        assert_eq!(json.status(), 502);
        json.proxy_made("connect_refused").unwrap();
        assert_eq!(json.head.one("content-type").as_deref(), Some("application/json"), "{accept}");
        let value: serde_json::Value = serde_json::from_str(&json.text()).expect("JSON");
        assert!(value.to_string().contains("connect_refused"), "{value}");
    }
    for accept in ["application/json;q=0", "text/html", "*/*", "text/plain, application/json;q=0.1"] {
        let text = sidecar.exchange(format!("{GET}Accept: {accept}\r\n\r\n"));
        assert!(text.head.one("content-type").unwrap().starts_with("text/plain"), "{accept}");
    }
    let head = sidecar.exchange("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!((head.status(), head.framing), (502, Framing::None));
    assert!(head.head.has("proxy-status"));
}

#[test]
fn an_answer_of_the_sidecar_repeats_nothing_that_the_client_sent() {
    let mut backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    backend.stop();
    let answer = sidecar
        .exchange("GET /secret-path?token=secret-query HTTP/1.1\r\nHost: secret-host\r\nCookie: secret-cookie\r\n\r\n");
    assert_eq!(answer.status(), 502);
    let all = format!("{}{}", String::from_utf8_lossy(&answer.head.raw), answer.text());
    assert!(!all.contains("secret"), "{all}");
    assert!(!all.contains(&backend.address.to_string()), "the backend's address is nobody's business: {all}");
}

// --- hostile responses ---

/// What may become of a hostile response.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Relay {
    /// 502 with this word, none of the bytes.
    Never(&'static str),
    /// 502, or relayed in a form that can be read in one way only.
    Clean,
}

fn hostile_responses() -> Vec<(&'static str, Vec<u8>, Relay)> {
    const PROTOCOL: Relay = Relay::Never("protocol_error");
    const TOO_LARGE: Relay = Relay::Never("response_too_large");
    let mut cases: Vec<(&'static str, Vec<u8>, Relay)> = Vec::new();
    for (name, text) in [
        ("status abc", "HTTP/1.1 abc Marker\r\nContent-Length: 0\r\n\r\n"),
        ("status 20", "HTTP/1.1 20 Marker\r\nContent-Length: 0\r\n\r\n"),
        ("status 2000", "HTTP/1.1 2000 Marker\r\nContent-Length: 0\r\n\r\n"),
        ("status 000", "HTTP/1.1 000 Marker\r\nContent-Length: 0\r\n\r\n"),
        ("status 099", "HTTP/1.1 099 Marker\r\nContent-Length: 0\r\n\r\n"),
        ("status -20", "HTTP/1.1 -20 Marker\r\nContent-Length: 0\r\n\r\n"),
        ("no status", "HTTP/1.1\r\nX-Marker: 0\r\n\r\n"),
        ("version 3.0", "HTTP/3.0 200 Marker\r\nContent-Length: 0\r\n\r\n"),
        ("lower case version", "http/1.1 200 Marker\r\nContent-Length: 0\r\n\r\n"),
        ("HTTP/0.9 body", "<html>Marker</html>\r\n\r\n"),
        ("a banner of another protocol", "220 Marker ESMTP ready\r\n\r\n"),
        ("a blank before the status line", " HTTP/1.1 200 Marker\r\nContent-Length: 0\r\n\r\n"),
        ("a request instead", "GET /marker HTTP/1.1\r\nHost: Marker\r\n\r\n"),
        ("NUL in a value", "HTTP/1.1 200 OK\r\nX-A: Mar\0ker\r\nContent-Length: 0\r\n\r\n"),
        ("control byte in a value", "HTTP/1.1 200 OK\r\nX-A: Mar\x01ker\r\nContent-Length: 0\r\n\r\n"),
        ("NUL in a name", "HTTP/1.1 200 OK\r\nX-\0Marker: 1\r\nContent-Length: 0\r\n\r\n"),
        ("bare CR in a value", "HTTP/1.1 200 OK\r\nX-A: Mar\rSet-Cookie: ker\r\nContent-Length: 0\r\n\r\n"),
        ("space before colon", "HTTP/1.1 200 OK\r\nX-Marker : 1\r\nContent-Length: 0\r\n\r\n"),
        ("space before colon of CL", "HTTP/1.1 200 OK\r\nContent-Length : 6\r\n\r\nMarker"),
        ("no colon", "HTTP/1.1 200 OK\r\nX-Marker\r\nContent-Length: 0\r\n\r\n"),
        ("empty name", "HTTP/1.1 200 OK\r\n: Marker\r\nContent-Length: 0\r\n\r\n"),
        ("CL differing", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 7\r\n\r\nMarker"),
        ("CL differing in one line", "HTTP/1.1 200 OK\r\nContent-Length: 6, 7\r\n\r\nMarker"),
        ("CL negative", "HTTP/1.1 200 OK\r\nContent-Length: -6\r\n\r\nMarker"),
        ("CL +6", "HTTP/1.1 200 OK\r\nContent-Length: +6\r\n\r\nMarker"),
        ("CL text", "HTTP/1.1 200 OK\r\nContent-Length: six\r\n\r\nMarker"),
        ("CL empty", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nMarker"),
        ("CL overflow", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551622\r\n\r\nMarker"),
        ("TE gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nMarker"),
        ("TE chunked, gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n6\r\nMarker\r\n0\r\n\r\n"),
        ("TE xchunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n6\r\nMarker\r\n0\r\n\r\n"),
        ("an unsolicited 101", "HTTP/1.1 101 Marker\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nMarker"),
    ] {
        cases.push((name, text.as_bytes().to_vec(), PROTOCOL));
    }
    cases.push(("binary", b"\x00\x01\x02\xff\xfeMarker\r\n\r\n".to_vec(), PROTOCOL));
    cases.push((
        "HTTP/2 frames",
        b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00dMarker\r\n\r\n".to_vec(),
        PROTOCOL,
    ));
    cases.push(("TLS alert", b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n".to_vec(), PROTOCOL));
    let big = format!("HTTP/1.1 200 OK\r\nX-Marker: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(1 << 20));
    cases.push(("a head of 1 MiB", big.into_bytes(), TOO_LARGE));
    let many: String = (0..20_000).map(|n| format!("X-Marker-{n}: {n}\r\n")).collect();
    cases.push((
        "20,000 fields",
        format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n").into_bytes(),
        TOO_LARGE,
    ));
    for (name, text) in [
        (
            "CL and chunked",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nMarker\r\n0\r\n\r\n",
        ),
        (
            "chunked and CL",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n6\r\nMarker\r\n0\r\n\r\n",
        ),
        ("CL twice the same", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 6\r\n\r\nMarker"),
        (
            "chunked twice",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nMarker\r\n0\r\n\r\n",
        ),
        ("obs-fold", "HTTP/1.1 200 OK\r\nX-A: Mar\r\n ker: 1\r\nContent-Length: 6\r\n\r\nMarker"),
        ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 6\n\nMarker"),
        ("empty reason without its blank", "HTTP/1.1 200\r\nContent-Length: 6\r\n\r\nMarker"),
    ] {
        cases.push((name, text.as_bytes().to_vec(), Relay::Clean));
    }
    cases
}

#[test]
fn hostile_responses_are_502_and_none_of_their_bytes_pass() {
    let cases = hostile_responses();
    let current = std::sync::Arc::new(Mutex::new(Vec::new()));
    let backend = Backend::start({
        let current = std::sync::Arc::clone(&current);
        move |peer| {
            while peer.read_request().is_some() {
                let bytes = current.lock().unwrap().clone();
                if !peer.send(bytes) {
                    return;
                }
            }
        }
    });
    let sidecar = Sidecar::start(&backend);
    let mut failures = String::new();
    let mut refused = 0;
    for (name, bytes, relay) in &cases {
        *current.lock().unwrap() = bytes.clone();
        let mut client = sidecar.client();
        client.wire.stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        client.send(format!("{GET}\r\n"));
        let result = (|| {
            let head = client.wire.read_head().map_err(|e| e.to_string())?.ok_or("closed without an answer")?;
            let framing = Client::framing("GET", &head);
            let body = client.wire.read_body(framing).map_err(|e| e.to_string())?;
            let answer = common::Response { head, body, framing };
            match (relay, answer.status()) {
                (Relay::Never(word), 502) => {
                    refused += 1;
                    answer.proxy_made(word)?;
                    let all = client.wire.received.lock().unwrap().bytes.clone();
                    if find(&all, b"arker").is_some() {
                        return Err(format!("the client got bytes of it: {:?}", String::from_utf8_lossy(&all)));
                    }
                }
                (Relay::Clean, 502) => {
                    refused += 1;
                    answer.proxy_made("protocol_error")?;
                }
                (Relay::Clean, 200) => {
                    let raw = &answer.head.raw;
                    let bare = raw.iter().enumerate().any(|(at, b)| *b == b'\n' && (at == 0 || raw[at - 1] != b'\r'));
                    if bare || find(raw, b"\r\n ").is_some() {
                        return Err(format!("relayed as it came: {:?}", String::from_utf8_lossy(raw)));
                    }
                    if answer.text() != "Marker" || !answer.body.complete {
                        return Err(format!("the body became {:?}", answer.text()));
                    }
                }
                (_, status) => {
                    return Err(format!("answered {status} {:?}", String::from_utf8_lossy(&answer.head.raw)));
                }
            }
            Ok::<(), String>(())
        })();
        if let Err(error) = result {
            writeln!(failures, "- {name}: {error}").unwrap();
        }
    }
    assert!(failures.is_empty(), "of {} cases:\n{failures}", cases.len());
    let page = sidecar.settled(cases.len());
    assert_eq!(
        page.sum("golden_requests_total", &[("http_response_status_code", "502"), ("origin", "proxy")]),
        f64::from(refused)
    );
    assert_eq!(page.sum("golden_errors_total", &[("fault", "backend"), ("phase", "wait")]), f64::from(refused));
    assert_eq!(page.sum("golden_errors_total", &[("error_type", "response_too_large")]), 2.0);
    // After all that, an honest answer passes.
    *current.lock().unwrap() = response(200, "", "honest");
    assert_eq!(sidecar.get("/").text(), "honest");
}

#[test]
fn a_response_head_that_never_ends_is_cut_at_the_limit() {
    let backend = Backend::start(|peer| {
        if peer.read_request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\n");
            for _ in 0..2_000_000 {
                if !peer.send("X-More: and more and more and more\r\n".repeat(100)) {
                    return;
                }
            }
        }
    });
    let sidecar = Sidecar::start(&backend);
    sidecar.forget_peak();
    let before = sidecar.resident();
    let answer = sidecar.get("/");
    assert_eq!(answer.status(), 502);
    answer.proxy_made("response_too_large").unwrap();
    assert!(sidecar.peak_resident() - before < 8 << 20, "a head is not kept for ever");
    sidecar.expect(&[Outcome::proxy("GET", "502", ("response_too_large", "backend", "wait"))]);
}

#[test]
fn endless_interim_answers_end_in_an_answer() {
    let backend = Backend::start(|peer| {
        if peer.read_request().is_some() {
            for _ in 0..20_000 {
                if !peer.send("HTTP/1.1 102 Processing\r\n\r\n") {
                    return;
                }
            }
            peer.send(ok("at last"));
        }
    });
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    client.send(format!("{GET}\r\n"));
    let last = loop {
        let head = client.read_head();
        if head.status() >= 200 {
            break head;
        }
    };
    assert!([200, 502].contains(&last.status()), "{}", last.status());
    sidecar.settled(1);
}
