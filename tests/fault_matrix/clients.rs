//! Clients that leave, are slow, or send what is no request.

use crate::row::{
    Act, Do, Expect, KEPT, LOST, Phase, Row, Series, Term, aborted, accepted, acts, answered, get, in_two_parts,
    refused, say, send,
};

const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!";
const HUGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n";

/// A client that leaves before the head comes.
fn left_waiting(leave: Vec<Act>) -> Row {
    Row {
        backend: vec![vec![Do::Read, Do::Mark("asked"), Do::WaitEnd]],
        client: acts([vec![get(), Act::Wait("asked"), Act::Middle], leave]),
        expect: aborted("GET", "", "before_head", vec!["GET / whole; let go"], LOST),
        ..Row::default()
    }
}

/// A client that leaves in the body.
fn left_reading(leave: Vec<Act>) -> Row {
    Row {
        phase: Phase::Body,
        backend: vec![vec![Do::Read, send(HALF), Do::WaitEnd]],
        client: acts([vec![get(), Act::Head(200), Act::Take("half!"), Act::Middle], leave]),
        expect: aborted("GET", "200", "during_body", vec!["GET / whole; let go"], LOST),
        ..Row::default()
    }
}

/// What is no request: refused, and no backend hears of it.
fn unreadable(first: &str, second: &str, status: u16, text: &'static str, word: &'static str) -> Row {
    Row {
        phase: Phase::Head,
        client: acts([in_two_parts(first, second), vec![Act::Refused(status, word), Act::End]]),
        plain: true,
        expect: refused("_OTHER", text, (word, "client", "head"), vec![], &[]),
        ..Row::default()
    }
}

const BEGINNING: &str = "POST / HTTP/1.1\r\nHo";

/// A request that takes long, which shows while it does; then this.
fn long_poll(end: Vec<Act>) -> Vec<Act> {
    let waits = Act::Page("one request is in flight and getting older", |page| {
        page.sum("golden_inflight_requests", &[]) == 1.0
            && page.sum("http_server_active_requests", &[]) == 1.0
            && page.sum("golden_inflight_oldest_age_seconds", &[]) > 0.5
            && page.sum("golden_requests_total", &[]) == 0.0
    });
    acts([vec![get(), Act::Wait("asked"), waits, Act::Middle], end])
}

matrix! {
    a_long_poll_that_is_answered_at_last => Row {
        backend: vec![vec![
            Do::Read,
            Do::Mark("asked"),
            Do::Wait("news"),
            send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnews"),
            Do::Serve,
        ]],
        client: long_poll(vec![Act::Mark("news"), Act::Head(200), Act::Whole("news")]),
        expect: answered("GET", "200", vec!["GET / whole; kept"], KEPT),
        ..Row::default()
    },
    a_long_poll_that_its_client_leaves => Row {
        backend: vec![vec![Do::Read, Do::Mark("asked"), Do::WaitEnd]],
        client: long_poll(vec![Act::Leave]),
        expect: aborted("GET", "", "before_head", vec!["GET / whole; let go"], LOST),
        ..Row::default()
    },

    a_client_that_leaves_before_the_head => left_waiting(vec![Act::Leave]),
    a_client_that_resets_before_the_head => left_waiting(vec![Act::Reset]),
    a_client_that_half_closes_before_the_head => left_waiting(vec![Act::HalfClose, Act::End]),
    a_client_that_leaves_in_the_body => left_reading(vec![Act::Leave]),
    a_client_that_resets_in_the_body => left_reading(vec![Act::Reset]),
    a_client_that_half_closes_in_the_body => left_reading(vec![Act::HalfClose, Act::End]),

    a_client_that_leaves_a_fast_download => Row {
        phase: Phase::Body,
        backend: vec![vec![Do::Read, send(HUGE), Do::Push(vec![b'x'; 64 << 10])]],
        client: vec![get(), Act::Head(200), Act::Take("xxxxxxxxxx"), Act::Middle, Act::Reset],
        expect: aborted("GET", "200", "during_body", vec!["GET / whole; let go"], LOST),
        ..Row::default()
    },

    a_client_that_does_not_read => Row {
        phase: Phase::Body,
        config: "timeouts:\n  body: 300ms\n",
        backend: vec![vec![Do::Read, send(HUGE), Do::Push(vec![b'x'; 64 << 10])]],
        client: vec![
            get(),
            Act::Head(200),
            Act::Middle,
            Act::Wait(crate::server::ENDED),
            Act::Cut("xxxxxxxxxx"),
        ],
        expect: Expect {
            requests: 1,
            seen: vec!["GET / whole; let go"],
            moved: vec![
                Series::Request("GET", "200", "proxy"),
                Series::Error("client_timeout", "client", "body"),
                Series::Truncated,
                Series::Opened,
                Series::Closed("error"),
            ],
        },
        ..Row::default()
    },

    a_slow_head => Row {
        phase: Phase::Head,
        config: "timeouts:\n  client_head: 300ms\n",
        client: vec![
            say("GET / HTTP/1.1\r\nHost: test\r\n"),
            accepted(),
            Act::Middle,
            Act::Drip("x"),
            Act::Refused(408, "client_timeout"),
            Act::End,
        ],
        expect: refused("_OTHER", "408", ("client_timeout", "client", "head"), vec![], &[]),
        ..Row::default()
    },

    a_client_that_leaves_in_its_head => Row {
        phase: Phase::Head,
        client: vec![say("GET / HTTP/1.1\r\nHo"), accepted(), Act::Middle, Act::Leave],
        ..Row::default()
    },

    a_client_that_resets_in_its_head => Row {
        phase: Phase::Head,
        client: vec![say("GET / HTTP/1.1\r\nHo"), accepted(), Act::Middle, Act::Reset],
        ..Row::default()
    },

    a_head_in_two_parts => Row {
        phase: Phase::Head,
        client: acts([crate::row::get_in_two_parts(), vec![Act::Head(200), Act::Whole("good")]]),
        expect: answered("GET", "200", vec!["GET / whole; kept"], KEPT),
        ..Row::default()
    },

    a_request_without_host => unreadable("GET / HTTP/1.1\r\n", "Accept: */*\r\n\r\n", 400, "400", "bad_request"),
    a_request_that_is_no_http => Row {
        plain: false,
        ..unreadable("hello ", "world\r\n\r\n", 400, "400", "bad_request")
    },
    a_request_with_length_and_chunks => unreadable(
        BEGINNING,
        "st: test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "400",
        "bad_request",
    ),
    a_request_with_two_lengths => unreadable(
        BEGINNING,
        "st: test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        400,
        "400",
        "bad_request",
    ),
    a_request_with_a_bare_line_feed => unreadable(BEGINNING, "st: test\nX-A: a\r\n\r\n", 400, "400", "bad_request"),
    a_request_line_that_is_too_long => unreadable("GET /", &"x".repeat(20_000), 414, "414", "header_limit"),
    a_request_head_that_is_too_large => unreadable(
        "GET / HTTP/1.1\r\nHost: test\r\nX-A: ",
        &"x".repeat(70_000),
        431,
        "431",
        "header_limit",
    ),
    a_request_of_too_many_fields => unreadable(
        "GET / HTTP/1.1\r\nHost: test\r\n",
        &format!("{}\r\n", "X-A: a\r\n".repeat(101)),
        431,
        "431",
        "header_limit",
    ),

    pipelined_requests => Row {
        backend: vec![vec![
            Do::Read,
            Do::Middle,
            send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"),
            Do::Read,
            send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"),
            Do::Read,
            send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthree"),
            Do::Serve,
        ]],
        client: vec![
            say(&["/1", "/2", "/3"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).concat()),
            Act::Head(200),
            Act::Whole("one"),
            Act::Head(200),
            Act::Whole("two"),
            Act::Head(200),
            Act::Whole("three"),
        ],
        expect: Expect {
            requests: 3,
            seen: vec!["GET /1 whole, GET /2 whole, GET /3 whole; kept"],
            moved: [[Series::Request("GET", "200", "backend"); 3].as_slice(), KEPT].concat(),
        },
        // The first answer says that it is the last: what came behind it was not taken, and may be sent elsewhere.
        term: Some(Term {
            client: Some(vec![
                say(&["/1", "/2", "/3"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).concat()),
                Act::Head(200),
                Act::Whole("one"),
                Act::End,
            ]),
            expect: Some(Expect {
                requests: 1,
                seen: vec!["GET /1 whole; let go"],
                moved: vec![Series::Request("GET", "200", "backend"), Series::Opened, Series::Closed("drain")],
            }),
            ..Term::default()
        }),
        ..Row::default()
    },
}
