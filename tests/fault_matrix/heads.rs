//! The response head: none, half of one, or none that is valid.

use crate::row::{Act, Do, ENDED, Expect, KEPT, LOST, Phase, Row, Series, Term, answered, get, refused, say, send};

/// One answer to one request, which comes after the middle.
fn answering(answer: &str) -> Vec<Vec<Do>> {
    vec![vec![Do::Read, Do::Middle, send(answer), Do::WaitEnd]]
}

/// A request that is answered with 502 because of what the backend sent.
fn invalid(answer: &str) -> Row {
    Row {
        backend: answering(answer),
        client: vec![get(), Act::Refused(502, "protocol_error")],
        plain: true,
        expect: refused("GET", "502", ("protocol_error", "backend", "wait"), vec!["GET / whole; let go"], LOST),
        ..Row::default()
    }
}

/// The same because it is too large.
fn too_large(answer: &str) -> Row {
    Row {
        backend: answering(answer),
        client: vec![get(), Act::Refused(502, "response_too_large")],
        expect: refused("GET", "502", ("response_too_large", "backend", "wait"), vec!["GET / whole; let go"], LOST),
        ..Row::default()
    }
}

/// A request whose backend connection ends in the script.
fn broken(backend: Vec<Do>, seen: &'static str) -> Row {
    Row {
        backend: vec![backend],
        client: vec![get(), Act::Refused(502, "reset_before_head")],
        expect: refused("GET", "502", ("reset_before_head", "backend", "wait"), vec![seen], LOST),
        ..Row::default()
    }
}

/// A request that is answered with 504.
fn silent(backend: Vec<Do>) -> Row {
    Row {
        config: "timeouts:\n  head: 300ms\n",
        backend: vec![backend],
        client: vec![get(), Act::Refused(504, "head_timeout")],
        expect: refused("GET", "504", ("head_timeout", "backend", "wait"), vec!["GET / whole; let go"], LOST),
        ..Row::default()
    }
}

const HALF: &str = "HTTP/1.1 200 OK\r\nX-A";
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

matrix! {
    a_reset_before_the_request_is_read => broken(vec![Do::Middle, Do::Reset], "; ended"),
    a_reset_after_the_request_is_read => broken(vec![Do::Read, Do::Middle, Do::Reset], "GET / whole; ended"),
    a_close_after_the_request_is_read => broken(vec![Do::Read, Do::Middle, Do::Close], "GET / whole; ended"),
    a_reset_in_the_head => broken(vec![Do::Read, send(HALF), Do::Middle, Do::Reset], "GET / whole; ended"),
    a_close_in_the_head => broken(vec![Do::Read, send(HALF), Do::Middle, Do::Close], "GET / whole; ended"),
    a_close_after_an_interim_response => broken(
        vec![Do::Read, send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), Do::Middle, Do::Close],
        "GET / whole; ended",
    ),

    silence_before_the_head => silent(vec![Do::Read, Do::Middle, Do::WaitEnd]),
    silence_in_the_head => silent(vec![Do::Read, send(HALF), Do::Middle, Do::WaitEnd]),
    silence_after_an_interim_response => silent(vec![
        Do::Read,
        send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        Do::Middle,
        Do::WaitEnd,
    ]),

    a_wait_that_outlasts_the_drain => Row {
        backend: vec![vec![Do::Read, Do::Middle, send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"), Do::Serve]],
        client: vec![get(), Act::Head(200), Act::Whole("late")],
        expect: answered("GET", "200", vec!["GET / whole; kept"], KEPT),
        term: Some(Term {
            cuts: true,
            backend: Some(vec![vec![Do::Read, Do::Middle, Do::WaitEnd]]),
            client: Some(vec![get(), Act::End]),
            expect: Some(Expect {
                requests: 1,
                seen: vec!["GET / whole; let go"],
                moved: vec![
                    Series::Request("GET", "", "proxy"),
                    Series::Error("drain_deadline", "policy", "wait"),
                    Series::Opened,
                    Series::Closed("error"),
                ],
            }),
        }),
        ..Row::default()
    },

    an_answer_that_is_no_http => Row { plain: false, ..invalid("\x01\x02this is no HTTP\r\n\r\n") },
    an_answer_of_http_0_9 => invalid("<html>hello</html>\r\n"),
    an_answer_of_http_2 => invalid("\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"),
    an_answer_of_tls => invalid("\x15\x03\x01\0\x02\x02\x46"),
    a_status_of_letters => invalid("HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n"),
    a_status_of_two_digits => invalid("HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
    a_status_of_four_digits => invalid("HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
    a_status_below_100 => invalid("HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
    two_different_lengths => invalid("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"),
    a_length_and_chunks => invalid(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    ),
    a_negative_length => invalid("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    an_unknown_transfer_coding => invalid("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"),
    a_nul_in_the_head => invalid("HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n"),
    a_blank_before_a_colon => invalid("HTTP/1.1 200 OK\r\nX-A : a\r\nContent-Length: 0\r\n\r\n"),
    a_switch_of_protocols_that_nobody_asked_for => invalid(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ),
    a_giant_head => too_large(&format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "x".repeat(200_000))),
    a_head_of_too_many_fields => too_large(&format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n",
        "X-A: a\r\n".repeat(101),
    )),

    thousands_of_interim_responses => Row {
        backend: vec![vec![
            Do::Read,
            Do::Middle,
            send(&"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(5_000)),
            send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal"),
            Do::Serve,
        ]],
        client: vec![get(), Act::Head(200), Act::Whole("final")],
        expect: answered("GET", "200", vec!["GET / whole; kept"], KEPT),
        ..Row::default()
    },

    an_upgrade_that_is_refused => Row {
        phase: Phase::Stream,
        backend: vec![vec![
            Do::Read,
            Do::Middle,
            send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
            Do::Serve,
        ]],
        client: vec![say(UPGRADE), Act::Head(403), Act::Whole("no")],
        expect: answered("GET", "403", vec!["GET / whole; kept"], KEPT),
        ..Row::default()
    },

    an_error_of_the_backends_own => Row {
        backend: vec![vec![
            Do::Read,
            Do::Middle,
            send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nmine"),
            Do::Serve,
        ]],
        client: vec![get(), Act::Head(503), Act::Whole("mine")],
        expect: answered(
            "GET",
            "503",
            vec!["GET / whole; kept"],
            &[Series::Error("503", "backend", "wait"), Series::Opened],
        ),
        ..Row::default()
    },

    an_answer_that_says_that_it_is_the_last => Row {
        backend: answering("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlast"),
        client: vec![get(), Act::Head(200), Act::Whole("last")],
        expect: answered("GET", "200", vec!["GET / whole; let go"], ENDED),
        ..Row::default()
    },
}
