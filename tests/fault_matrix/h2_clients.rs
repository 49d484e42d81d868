//! HTTP/2 from clients, by raw frames.

use crate::common::frames::{self, code};
use crate::row::{Act, Do, Expect, KEPT, LOST, Phase, Row, Series, Term, aborted, acts, answered, cut, refused, send};

const WINDOW: u32 = 65_535;
const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!";
const CHUNKED_BEGINNING: &str = "5\r\nbegin\r\n";

fn get() -> Vec<Act> {
    vec![Act::H2Begin(WINDOW), Act::Send(frames::request(1, true, "GET", "/"))]
}

fn upload() -> Vec<Act> {
    vec![
        Act::H2Begin(WINDOW),
        Act::Send(frames::request(1, false, "POST", "/")),
        Act::Send(frames::data(1, false, "begin")),
    ]
}

/// A client that leaves before the head comes.
fn left_waiting(leave: Vec<Act>) -> Row {
    Row {
        backend: vec![vec![Do::Read, Do::Mark("asked"), Do::WaitEnd]],
        client: acts([get(), vec![Act::Wait("asked"), Act::Middle], leave]),
        expect: aborted("GET", "", "before_head", vec!["GET / whole; let go"], LOST),
        ..Row::default()
    }
}

/// A client that leaves in the body.
fn left_reading(leave: Vec<Act>) -> Row {
    Row {
        phase: Phase::Body,
        backend: vec![vec![Do::Read, send(HALF), Do::WaitEnd]],
        client: acts([get(), vec![Act::H2Head(1, 200), Act::H2Take(1, "half!"), Act::Middle], leave]),
        expect: aborted("GET", "200", "during_body", vec!["GET / whole; let go"], LOST),
        ..Row::default()
    }
}

/// A client that leaves in its upload.
fn left_sending(leave: Vec<Act>) -> Row {
    Row {
        phase: Phase::Send,
        backend: vec![vec![Do::ReadHead, Do::ReadBytes(CHUNKED_BEGINNING), Do::Mark("begun"), Do::WaitEnd]],
        client: acts([upload(), vec![Act::Wait("begun"), Act::Middle], leave]),
        expect: aborted("POST", "", "before_head", vec!["POST / unread; let go"], LOST),
        ..Row::default()
    }
}

fn cancel() -> Act {
    Act::Send(frames::reset(1, code::CANCEL))
}

/// A stream that the client sees reset because the answer was cut.
fn cut_stream(config: &'static str, end: Vec<Do>, error: &'static str, seen: &'static str) -> Row {
    let mut script = vec![Do::Read, send(HALF), Do::Wait("seen")];
    script.extend(end);
    Row {
        phase: Phase::Body,
        config,
        backend: vec![script],
        client: acts([
            get(),
            vec![Act::H2Head(1, 200), Act::H2Take(1, "half!"), Act::Middle, Act::Mark("seen"), Act::H2Reset(1)],
        ]),
        expect: cut(error, vec![seen]),
        ..Row::default()
    }
}

/// A stream that the sidecar answers itself.
fn answered_by_us(config: &'static str, script: Vec<Do>, status: (u16, &'static str), error: &'static str) -> Row {
    let ended = matches!(script.last(), Some(Do::Close | Do::Reset));
    let seen = if ended { "GET / whole; ended" } else { "GET / whole; let go" };
    Row {
        config,
        backend: vec![script],
        client: acts([get(), vec![Act::H2Refused(1, status.0)]]),
        expect: refused("GET", status.1, (error, "backend", "wait"), vec![seen], LOST),
        ..Row::default()
    }
}

const SHORT_HEAD: &str = "timeouts:\n  head: 300ms\n";
const SHORT_BODY: &str = "timeouts:\n  body: 300ms\n";

matrix! {
    a_stream_that_is_cancelled_before_the_head => left_waiting(vec![cancel(), Act::Leave]),
    a_stream_whose_connection_is_left_before_the_head => left_waiting(vec![Act::Leave]),
    a_stream_whose_connection_is_reset_before_the_head => left_waiting(vec![Act::Reset]),
    a_stream_that_is_cancelled_in_the_body => left_reading(vec![cancel(), Act::Leave]),
    a_stream_whose_connection_is_left_in_the_body => left_reading(vec![Act::Leave]),
    a_stream_that_is_cancelled_in_its_upload => left_sending(vec![cancel(), Act::Leave]),
    a_stream_whose_connection_is_reset_in_its_upload => left_sending(vec![Act::Reset]),

    a_stream_whose_answer_is_cut_by_a_close => {
        cut_stream("", vec![Do::Close], "reset_after_head", "GET / whole; ended")
    },
    a_stream_whose_answer_is_cut_by_a_reset => {
        cut_stream("", vec![Do::Reset], "reset_after_head", "GET / whole; ended")
    },
    a_stream_whose_answer_stalls => cut_stream(SHORT_BODY, vec![Do::WaitEnd], "body_timeout", "GET / whole; let go"),

    a_stream_whose_backend_resets => {
        answered_by_us("", vec![Do::Read, Do::Middle, Do::Reset], (502, "502"), "reset_before_head")
    },
    a_stream_whose_backend_closes => {
        answered_by_us("", vec![Do::Read, Do::Middle, Do::Close], (502, "502"), "reset_before_head")
    },
    a_stream_whose_backend_is_silent => {
        answered_by_us(SHORT_HEAD, vec![Do::Read, Do::Middle, Do::WaitEnd], (504, "504"), "head_timeout")
    },
    a_stream_whose_backend_speaks_no_http => answered_by_us(
        "",
        vec![Do::Read, Do::Middle, send("no HTTP\r\n\r\n"), Do::WaitEnd],
        (502, "502"),
        "protocol_error",
    ),

    a_stream_whose_upload_stalls => Row {
        phase: Phase::Send,
        config: "timeouts:\n  client_body: 300ms\n",
        backend: vec![vec![Do::ReadHead, Do::ReadBytes(CHUNKED_BEGINNING), Do::Middle, Do::WaitEnd]],
        client: acts([upload(), vec![Act::H2Refused(1, 408)]]),
        expect: refused("POST", "408", ("client_timeout", "client", "send"), vec!["POST / unread; let go"], LOST),
        ..Row::default()
    },

    a_stream_whose_window_stays_closed => Row {
        phase: Phase::Body,
        config: SHORT_BODY,
        backend: vec![vec![
            Do::Read,
            Do::Middle,
            send("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n"),
            Do::Push(vec![b'x'; 64 << 10]),
        ]],
        client: vec![
            Act::H2Begin(0),
            Act::Send(frames::request(1, true, "GET", "/")),
            Act::H2Head(1, 200),
            Act::H2Reset(1),
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

    a_client_that_says_goodbye_before_its_answer => Row {
        backend: vec![vec![
            Do::Read,
            Do::Mark("asked"),
            Do::Wait("told"),
            send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole"),
            Do::Serve,
        ]],
        client: acts([
            get(),
            vec![
                Act::Wait("asked"),
                Act::Middle,
                Act::Send(frames::goaway(0, code::NO_ERROR)),
                Act::Mark("told"),
                Act::H2Head(1, 200),
                Act::H2Whole(1, "whole"),
            ],
        ]),
        expect: answered("GET", "200", vec!["GET / whole; kept"], KEPT),
        ..Row::default()
    },

    a_stream_beside_one_that_is_cancelled => Row {
        backend: vec![
            vec![Do::Read, Do::Mark("first"), Do::WaitEnd],
            vec![Do::Read, Do::Mark("second"), Do::Wait("cancelled"), send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole"), Do::Serve],
        ],
        client: acts([
            get(),
            vec![
                Act::Wait("first"),
                Act::Send(frames::request(3, true, "GET", "/")),
                Act::Wait("second"),
                Act::Middle,
                cancel(),
                Act::Mark("cancelled"),
                Act::H2Head(3, 200),
                Act::H2Whole(3, "whole"),
            ],
        ]),
        expect: Expect {
            requests: 2,
            seen: vec!["GET / whole; let go", "GET / whole; kept"],
            moved: vec![
                Series::Request("GET", "", "client"),
                Series::Abort("before_head"),
                Series::Opened,
                Series::Closed("error"),
                Series::Request("GET", "200", "backend"),
                Series::Opened,
            ],
        },
        ..Row::default()
    },

    a_stream_that_is_in_flight_at_the_drain => Row {
        backend: vec![vec![
            Do::Read,
            Do::Middle,
            send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole"),
            Do::Serve,
        ]],
        client: acts([get(), vec![Act::H2Head(1, 200), Act::H2Whole(1, "whole")]]),
        expect: answered("GET", "200", vec!["GET / whole; kept"], KEPT),
        term: Some(Term {
            client: Some(acts([get(), vec![Act::H2GoAway, Act::H2Head(1, 200), Act::H2Whole(1, "whole")]])),
            ..Term::default()
        }),
        ..Row::default()
    },
}
