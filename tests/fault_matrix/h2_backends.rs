//! HTTP/2 to the backend, by raw frames; and what gRPC says behind a 200.

use crate::common::frames::{self as h2, code};
use crate::row::{
    Act, Do, Expect, KEPT, Phase, Row, Series, Term, aborted, acts, answered, frames, get, get_in_two_parts, post, say,
};

/// A backend that has read the first request of its connection, and then this.
fn asked(end: Vec<Do>) -> Vec<Do> {
    let mut script = vec![Do::H2Accept(h2::settings(&[])), Do::H2Read];
    script.extend(end);
    script
}

/// The answer to a stream.
fn whole(stream: u32, text: &str) -> Vec<u8> {
    [h2::headers(stream, false, &[(":status", "200")]), h2::data(stream, true, text)].concat()
}

/// The half of one that says how long it is.
fn half() -> Vec<u8> {
    [h2::headers(1, false, &[(":status", "200"), ("content-length", "10")]), h2::data(1, false, "half!")].concat()
}

/// A request that is answered with an error of our own; the connection is `kept` or not.
fn refused(script: Vec<Do>, status: (u16, &'static str), error: [&'static str; 2], seen: &'static str) -> Row {
    let mut moved =
        vec![Series::Request("GET", status.1, "proxy"), Series::Error(error[0], "backend", error[1]), Series::Opened];
    moved.extend((!seen.ends_with("kept")).then_some(Series::Closed("error")));
    Row {
        scheme: "h2c",
        backend: vec![script],
        client: vec![get(), Act::Refused(status.0, error[0])],
        expect: Expect { requests: 1, seen: vec![seen], moved },
        ..Row::default()
    }
}

/// An answer that is cut.
fn cut(config: &'static str, end: Vec<Do>, error: &'static str, seen: &'static str) -> Row {
    let mut moved = vec![
        Series::Request("GET", "200", "backend"),
        Series::Error(error, "backend", "body"),
        Series::Truncated,
        Series::Opened,
    ];
    moved.extend((!seen.ends_with("kept")).then_some(Series::Closed("error")));
    let mut script = asked(vec![frames(&[half()]), Do::Wait("seen")]);
    script.extend(end);
    Row {
        scheme: "h2c",
        phase: Phase::Body,
        config,
        backend: vec![script],
        client: vec![get(), Act::Head(200), Act::Take("half!"), Act::Middle, Act::Mark("seen"), Act::Cut("")],
        expect: Expect { requests: 1, seen: vec![seen], moved },
        ..Row::default()
    }
}

/// A gRPC call of an HTTP/2 client, answered by these frames.
fn call(answer: &[Vec<u8>], more: &[Series]) -> Row {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/pkg.Service/Call"),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut moved = vec![Series::Request("POST", "200", "backend"), Series::Opened];
    moved.extend(more);
    Row {
        scheme: "h2c",
        phase: Phase::Body,
        backend: vec![asked(vec![Do::Middle, frames(answer), Do::H2Serve])],
        client: vec![
            Act::H2Begin(65_535),
            Act::Send(h2::headers(1, false, &fields)),
            Act::Send(h2::data(1, true, "\0\0\0\0\0")),
            Act::H2Head(1, 200),
            Act::H2Whole(1, if answer.len() > 1 { "\0\0\0\0\0" } else { "" }),
        ],
        expect: Expect { requests: 1, seen: vec!["stream 1 whole; kept"], moved },
        ..Row::default()
    }
}

fn grpc_head(end: bool, more: &[(&str, &str)]) -> Vec<u8> {
    h2::headers(1, end, &[[(":status", "200"), ("content-type", "application/grpc")].as_slice(), more].concat())
}

const MESSAGE: &str = "\0\0\0\0\0";

matrix! {
    an_http2_backend_that_serves_well => Row {
        scheme: "h2c",
        backend: vec![asked(vec![Do::Middle, frames(&[whole(1, "whole")]), Do::H2Serve])],
        client: vec![get(), Act::Head(200), Act::Whole("whole")],
        expect: answered("GET", "200", vec!["stream 1 whole; kept"], KEPT),
        ..Row::default()
    },

    a_stream_that_the_backend_resets_before_the_head => refused(
        asked(vec![Do::Middle, frames(&[h2::reset(1, code::INTERNAL_ERROR)]), Do::H2Serve]),
        (502, "502"),
        ["reset_before_head", "wait"],
        "stream 1 whole; kept",
    ),
    an_http2_connection_that_closes_before_the_head => refused(
        asked(vec![Do::Middle, Do::Close]),
        (502, "502"),
        ["reset_before_head", "wait"],
        "stream 1 whole; ended",
    ),
    an_http2_connection_that_is_reset_before_the_head => refused(
        asked(vec![Do::Middle, Do::Reset]),
        (502, "502"),
        ["reset_before_head", "wait"],
        "stream 1 whole; ended",
    ),
    a_backend_that_answers_http2_with_http1 => refused(
        vec![
            Do::ReadBytes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            Do::Middle,
            crate::row::send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
            Do::WaitEnd,
        ],
        (502, "502"),
        ["protocol_error", "connect"],
        "; let go",
    ),
    a_head_of_http2_without_status => refused(
        asked(vec![Do::Middle, frames(&[h2::headers(1, true, &[("x-a", "a")])]), Do::H2Serve]),
        (502, "502"),
        ["protocol_error", "wait"],
        "stream 1 whole; kept",
    ),
    an_http2_backend_that_is_silent => Row {
        config: "timeouts:\n  head: 300ms\n",
        ..refused(
            asked(vec![Do::Middle, Do::H2Reset, Do::H2Serve]),
            (504, "504"),
            ["head_timeout", "wait"],
            "stream 1 reset; kept",
        )
    },

    a_refused_stream_is_sent_again => Row {
        scheme: "h2c",
        backend: vec![asked(vec![Do::Middle, frames(&[h2::reset(1, code::REFUSED_STREAM)]), Do::H2Serve])],
        client: vec![get(), Act::Head(200), Act::Whole("good")],
        expect: answered(
            "GET",
            "200",
            vec!["stream 1 whole, stream 3 whole; kept"],
            &[Series::Retry("success"), Series::Opened],
        ),
        // A drain has let go of the first connection: no new stream begins there.
        term: Some(Term {
            expect: Some(answered(
                "GET",
                "200",
                vec!["stream 1 whole; let go", "stream 1 whole; let go"],
                &[
                    Series::Retry("success"),
                    Series::Opened,
                    Series::Opened,
                    Series::Closed("drain"),
                    Series::Closed("drain"),
                ],
            )),
            ..Term::default()
        }),
        ..Row::default()
    },
    a_stream_that_is_refused_twice => Row {
        scheme: "h2c",
        backend: vec![asked(vec![
            Do::Middle,
            frames(&[h2::reset(1, code::REFUSED_STREAM)]),
            Do::H2Read,
            frames(&[h2::reset(3, code::REFUSED_STREAM)]),
            Do::H2Serve,
        ])],
        client: vec![get(), Act::Refused(502, "reset_before_head")],
        expect: Expect {
            requests: 1,
            seen: vec!["stream 1 whole, stream 3 whole; kept"],
            moved: vec![
                Series::Request("GET", "502", "proxy"),
                Series::Error("reset_before_head", "backend", "send"),
                Series::Retry("failure"),
                Series::Opened,
            ],
        },
        term: Some(Term {
            backend: Some(vec![
                asked(vec![Do::Middle, frames(&[h2::reset(1, code::REFUSED_STREAM)]), Do::H2Serve]),
                asked(vec![frames(&[h2::reset(1, code::REFUSED_STREAM)]), Do::H2Serve]),
            ]),
            expect: Some(Expect {
                requests: 1,
                seen: vec!["stream 1 whole; let go", "stream 1 whole; let go"],
                moved: vec![
                    Series::Request("GET", "502", "proxy"),
                    Series::Error("reset_before_head", "backend", "send"),
                    Series::Retry("failure"),
                    Series::Opened,
                    Series::Opened,
                    Series::Closed("drain"),
                    Series::Closed("drain"),
                ],
            }),
            ..Term::default()
        }),
        ..Row::default()
    },
    a_refused_stream_is_sent_again_with_its_body => Row {
        scheme: "h2c",
        backend: vec![asked(vec![Do::Middle, frames(&[h2::reset(1, code::REFUSED_STREAM)]), Do::H2Serve])],
        client: vec![post(5, "hello"), Act::Head(200), Act::Whole("good")],
        expect: answered(
            "POST",
            "200",
            vec!["stream 1 whole, stream 3 whole; kept"],
            &[Series::Retry("success"), Series::Opened],
        ),
        // A drain has let go of the first connection: no new stream begins there.
        term: Some(Term {
            expect: Some(answered(
                "POST",
                "200",
                vec!["stream 1 whole; let go", "stream 1 whole; let go"],
                &[
                    Series::Retry("success"),
                    Series::Opened,
                    Series::Opened,
                    Series::Closed("drain"),
                    Series::Closed("drain"),
                ],
            )),
            ..Term::default()
        }),
        ..Row::default()
    },
    a_goodbye_that_leaves_the_request_out => Row {
        scheme: "h2c",
        backend: vec![asked(vec![Do::Middle, frames(&[h2::goaway(0, code::NO_ERROR)]), Do::WaitEnd])],
        client: vec![get(), Act::Head(200), Act::Whole("good")],
        expect: answered(
            "GET",
            "200",
            vec!["stream 1 whole; let go", "stream 1 whole; kept"],
            &[Series::Retry("success"), Series::Opened, Series::Closed("peer"), Series::Opened],
        ),
        // Both would have been let go of anyhow.
        term: Some(Term {
            expect: Some(answered(
                "GET",
                "200",
                vec!["stream 1 whole; let go", "stream 1 whole; let go"],
                &[
                    Series::Retry("success"),
                    Series::Opened,
                    Series::Opened,
                    Series::Closed("drain"),
                    Series::Closed("drain"),
                ],
            )),
            ..Term::default()
        }),
        ..Row::default()
    },
    a_goodbye_that_keeps_the_request => Row {
        scheme: "h2c",
        backend: vec![asked(vec![
            Do::Middle,
            frames(&[h2::goaway(1, code::NO_ERROR), whole(1, "last")]),
            Do::WaitEnd,
        ])],
        client: vec![get(), Act::Head(200), Act::Whole("last")],
        expect: answered("GET", "200", vec!["stream 1 whole; let go"], &[Series::Opened, Series::Closed("peer")]),
        // It would have been let go of anyhow.
        term: Some(Term {
            expect: Some(answered(
                "GET",
                "200",
                vec!["stream 1 whole; let go"],
                &[Series::Opened, Series::Closed("drain")],
            )),
            ..Term::default()
        }),
        ..Row::default()
    },
    a_goodbye_between_requests => Row {
        scheme: "h2c",
        phase: Phase::Idle,
        backend: vec![asked(vec![
            frames(&[whole(1, "first")]),
            Do::Wait("idle"),
            frames(&[h2::goaway(1, code::NO_ERROR)]),
            Do::WaitEnd,
        ])],
        client: vec![
            get(),
            Act::Head(200),
            Act::Whole("first"),
            Act::Middle,
            Act::Mark("idle"),
            Act::Page("the connection is let go", |page| {
                page.sum("golden_upstream_connections_closed_total", &[]) == 1.0
            }),
            get(),
            Act::Head(200),
            Act::Whole("good"),
        ],
        expect: Expect {
            requests: 2,
            seen: vec!["stream 1 whole; let go", "stream 1 whole; kept"],
            moved: vec![
                Series::Request("GET", "200", "backend"),
                Series::Request("GET", "200", "backend"),
                Series::Opened,
                Series::Closed("peer"),
                Series::Opened,
            ],
        },
        term: Some(Term {
            client: Some(vec![
                get(),
                Act::Head(200),
                Act::Whole("first"),
                Act::Middle,
                Act::End,
                Act::Mark("idle"),
            ]),
            expect: Some(answered(
                "GET",
                "200",
                vec!["stream 1 whole; let go"],
                &[Series::Opened, Series::Closed("drain")],
            )),
            ..Term::default()
        }),
        ..Row::default()
    },
    a_goodbye_with_an_error => Row {
        scheme: "h2c",
        backend: vec![asked(vec![
            Do::Middle,
            frames(&[h2::goaway(1, code::ENHANCE_YOUR_CALM)]),
            Do::Close,
        ])],
        client: vec![get(), Act::Refused(502, "reset_before_head")],
        expect: Expect {
            requests: 1,
            seen: vec!["stream 1 whole; ended"],
            moved: vec![
                Series::Request("GET", "502", "proxy"),
                Series::Error("reset_before_head", "backend", "wait"),
                Series::Opened,
                Series::Closed("error"),
            ],
        },
        ..Row::default()
    },

    an_answer_that_its_stream_cuts => {
        cut("", vec![frames(&[h2::reset(1, code::CANCEL)]), Do::H2Serve], "reset_after_head", "stream 1 whole; kept")
    },
    an_answer_that_its_http2_connection_cuts => {
        cut("", vec![Do::Reset], "reset_after_head", "stream 1 whole; ended")
    },
    an_answer_that_its_http2_connection_closes => {
        cut("", vec![Do::Close], "reset_after_head", "stream 1 whole; ended")
    },
    an_answer_of_http2_that_stalls => cut(
        "timeouts:\n  body: 300ms\n",
        vec![Do::H2Reset, Do::H2Serve],
        "body_timeout",
        "stream 1 reset; kept",
    ),
    an_answer_of_http2_that_is_shorter_than_it_says => {
        cut("", vec![frames(&[h2::data(1, true, "")]), Do::H2Serve], "protocol_error", "stream 1 whole; kept")
    },

    an_http2_backend_that_takes_no_upload => Row {
        scheme: "h2c",
        phase: Phase::Send,
        config: "timeouts:\n  head: 300ms\n",
        backend: vec![vec![
            Do::H2Accept(h2::settings(&[(4, 0)])),
            Do::H2ReadHead,
            Do::Middle,
            Do::H2Reset,
            Do::H2Serve,
        ]],
        // The first request brings the backend's settings.
        client: vec![post(70_000, &"u".repeat(70_000)), Act::Refused(504, "head_timeout")],
        expect: Expect {
            requests: 1,
            seen: vec!["stream 1 reset; kept"],
            moved: vec![
                Series::Request("POST", "504", "proxy"),
                Series::Error("head_timeout", "backend", "send"),
                Series::Opened,
            ],
        },
        ..Row::default()
    },
    an_early_refusal_of_an_upload_by_http2 => Row {
        scheme: "h2c",
        phase: Phase::Send,
        backend: vec![vec![
            Do::H2Accept(h2::settings(&[])),
            Do::H2ReadHead,
            Do::Middle,
            frames(&[
                h2::headers(1, false, &[(":status", "413")]),
                h2::data(1, true, "too large"),
                h2::reset(1, code::NO_ERROR),
            ]),
            Do::H2Serve,
        ]],
        client: vec![post(1000, "begin"), Act::Head(413), Act::Whole("too large"), Act::End],
        expect: answered("POST", "413", vec!["stream 1 unread; kept"], KEPT),
        ..Row::default()
    },

    a_client_that_leaves_an_http2_backend_before_the_head => Row {
        scheme: "h2c",
        backend: vec![asked(vec![Do::Mark("asked"), Do::H2Reset, Do::H2Serve])],
        client: vec![get(), Act::Wait("asked"), Act::Middle, Act::Leave],
        expect: aborted("GET", "", "before_head", vec!["stream 1 reset; kept"], KEPT),
        ..Row::default()
    },
    a_client_that_leaves_an_http2_backend_in_the_body => Row {
        scheme: "h2c",
        phase: Phase::Body,
        backend: vec![asked(vec![frames(&[half()]), Do::H2Reset, Do::H2Serve])],
        client: vec![get(), Act::Head(200), Act::Take("half!"), Act::Middle, Act::Reset],
        expect: aborted("GET", "200", "during_body", vec!["stream 1 reset; kept"], KEPT),
        ..Row::default()
    },

    a_call_that_succeeds => call(
        &[grpc_head(false, &[]), h2::data(1, false, MESSAGE), h2::headers(1, true, &[("grpc-status", "0")])],
        &[],
    ),
    a_call_that_fails_in_its_trailers => call(
        &[grpc_head(false, &[]), h2::data(1, false, MESSAGE), h2::headers(1, true, &[("grpc-status", "14")])],
        &[Series::Error("UNAVAILABLE", "backend", "body")],
    ),
    a_call_that_fails_in_its_head => call(
        &[grpc_head(true, &[("grpc-status", "13")])],
        &[Series::Error("INTERNAL", "backend", "wait")],
    ),
    a_call_that_its_client_got_wrong => call(
        &[grpc_head(true, &[("grpc-status", "3")])],
        &[],
    ),
    a_call_without_trailers => call(
        &[grpc_head(false, &[]), h2::data(1, true, MESSAGE)],
        &[Series::Error("UNKNOWN", "backend", "body")],
    ),

    a_refused_connect_by_http2 => Row {
        scheme: "h2c",
        phase: Phase::Connect,
        upstream: crate::row::Upstream::Refusing,
        client: acts([get_in_two_parts(), vec![Act::Refused(502, "connect_refused")]]),
        expect: crate::row::refused("GET", "502", ("connect_refused", "backend", "connect"), vec![], &[]),
        ..Row::default()
    },

    two_clients_of_one_connection_of_which_one_leaves => Row {
        scheme: "h2c",
        backend: vec![vec![
            Do::H2Accept(h2::settings(&[(3, 100)])),
            Do::H2Read,
            frames(&[whole(1, "first")]),
            Do::H2Read,
            Do::Mark("one"),
            Do::H2Read,
            Do::Middle,
            Do::Mark("both"),
            Do::Wait("left"),
            frames(&[whole(5, "stays")]),
            Do::H2Serve,
        ]],
        client: vec![
            get(),
            Act::Head(200),
            Act::Whole("first"),
            get(),
            Act::Wait("one"),
            Act::Connect,
            say("GET / HTTP/1.1\r\nHost: test\r\n\r\n"),
            Act::Wait("both"),
            Act::Use(0),
            Act::Leave,
            Act::Mark("left"),
            Act::Use(1),
            Act::Head(200),
            Act::Whole("stays"),
        ],
        expect: Expect {
            requests: 3,
            seen: vec!["stream 1 whole, stream 3 whole, stream 5 whole; kept"],
            moved: vec![
                Series::Request("GET", "200", "backend"),
                Series::Request("GET", "", "client"),
                Series::Abort("before_head"),
                Series::Request("GET", "200", "backend"),
                Series::Opened,
            ],
        },
        ..Row::default()
    },
}
