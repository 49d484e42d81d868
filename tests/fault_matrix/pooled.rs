//! Between two requests on a connection, on either side.

use crate::row::{Act, Do, Expect, KEPT, Phase, Row, Series, Term, acts, answered, get, post, send};

const ONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none";

fn closed(page: &crate::common::Page) -> bool {
    page.sum("golden_upstream_connections_closed_total", &[]) == 1.0
}

fn answer(text: &'static str) -> Vec<Act> {
    vec![Act::Head(200), Act::Whole(text)]
}

/// A request that is answered; the backend's connection ends, which is noticed; the next is answered all the same. In a
/// drain there is no next.
fn stale(request: fn() -> Act, end: Vec<Do>, seen: [&'static str; 3], reason: &'static str) -> Row {
    let method = if seen[0].starts_with("GET") { "GET" } else { "POST" };
    let mut script = vec![Do::Read, send(ONE), Do::Wait("idle")];
    script.extend(end);
    Row {
        phase: Phase::Idle,
        backend: vec![script],
        client: acts([
            vec![request()],
            answer("one"),
            vec![Act::Middle, Act::Mark("idle"), Act::Page("it is noticed", closed), request()],
            answer("good"),
        ]),
        expect: Expect {
            requests: 2,
            seen: vec![seen[0], seen[1]],
            moved: vec![
                Series::Request(method, "200", "backend"),
                Series::Request(method, "200", "backend"),
                Series::Opened,
                Series::Closed(reason),
                Series::Opened,
            ],
        },
        term: Some(Term {
            client: Some(acts([vec![request()], answer("one"), vec![Act::Middle, Act::End, Act::Mark("idle")]])),
            expect: Some(answered(method, "200", vec![seen[2]], &[Series::Opened, Series::Closed("drain")])),
            ..Term::default()
        }),
        ..Row::default()
    }
}

/// A connection whose second request is read before it ends: that request may have been acted upon, so it is not sent again.
fn read_and_lost(request: fn() -> Act, end: Do, method: &'static str, seen: &'static str) -> Row {
    Row {
        backend: vec![vec![Do::Read, send(ONE), Do::Read, Do::Middle, end]],
        client: acts([vec![request()], answer("one"), vec![request(), Act::Refused(502, "reset_before_head")]]),
        expect: Expect {
            requests: 2,
            seen: vec![seen],
            moved: vec![
                Series::Request(method, "200", "backend"),
                Series::Request(method, "502", "proxy"),
                Series::Error("reset_before_head", "backend", "wait"),
                Series::Opened,
                Series::Closed("error"),
            ],
        },
        ..Row::default()
    }
}

/// A client whose connection ends between requests: no request, no abort.
fn left_idle(config: &'static str, leave: Vec<Act>) -> Row {
    Row {
        phase: Phase::Idle,
        config,
        client: acts([vec![get()], answer("good"), vec![Act::Middle], leave]),
        expect: answered("GET", "200", vec!["GET / whole; kept"], KEPT),
        ..Row::default()
    }
}

fn upload() -> Act {
    post(5, "hello")
}

matrix! {
    a_pooled_connection_that_the_backend_closes => stale(
        get,
        vec![Do::Close],
        ["GET / whole; ended", "GET / whole; kept", "GET / whole; ended"],
        "peer",
    ),
    a_pooled_connection_that_the_backend_closes_before_an_upload => stale(
        upload,
        vec![Do::Close],
        ["POST / whole; ended", "POST / whole; kept", "POST / whole; ended"],
        "peer",
    ),
    a_pooled_connection_that_the_backend_resets => stale(
        get,
        vec![Do::Reset],
        ["GET / whole; ended", "GET / whole; kept", "GET / whole; ended"],
        "error",
    ),
    an_answer_that_nobody_asked_for => stale(
        get,
        vec![send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"), Do::WaitEnd],
        ["GET / whole; let go", "GET / whole; kept", "GET / whole; let go"],
        "error",
    ),
    a_timeout_that_nobody_asked_for => stale(
        get,
        vec![send("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), Do::Close],
        ["GET / whole; ended", "GET / whole; kept", "GET / whole; ended"],
        "error",
    ),
    a_reused_connection_that_ends_after_a_get => read_and_lost(
        get,
        Do::Close,
        "GET",
        "GET / whole, GET / whole; ended",
    ),
    a_reused_connection_that_ends_after_a_post => read_and_lost(
        upload,
        Do::Close,
        "POST",
        "POST / whole, POST / whole; ended",
    ),
    a_reused_connection_that_is_reset_after_a_get => read_and_lost(
        get,
        Do::Reset,
        "GET",
        "GET / whole, GET / whole; ended",
    ),

    a_client_that_leaves_between_requests => left_idle("", vec![Act::Leave]),
    a_client_that_resets_between_requests => left_idle("", vec![Act::Reset]),
    a_client_that_is_idle_too_long => left_idle("timeouts:\n  client_idle: 600ms\n", vec![Act::End]),
}
