//! The response body: stalls, cuts, broken framing.

use crate::row::{Act, Do, ENDED, Expect, LOST, Phase, Row, Series, Term, answered, cut, get, say, send};

const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const TO_THE_END: &str = "HTTP/1.1 200 OK\r\n\r\n";

/// The beginning of an answer, and what follows once the client has seen it.
fn then(beginning: &str, end: Vec<Do>) -> Vec<Vec<Do>> {
    let mut script = vec![Do::Read, send(beginning), Do::Wait("seen")];
    script.extend(end);
    vec![script]
}

/// A client that sees the head, then this, and then a cut.
fn sees(part: Act) -> Vec<Act> {
    vec![get(), Act::Head(200), part, Act::Middle, Act::Mark("seen"), Act::Cut("")]
}

/// An answer that is cut because the backend's connection ends.
fn lost(beginning: &str, part: Act, end: Do) -> Row {
    Row {
        phase: Phase::Body,
        backend: then(beginning, vec![end]),
        client: sees(part),
        expect: cut("reset_after_head", vec!["GET / whole; ended"]),
        ..Row::default()
    }
}

/// An answer that is cut because nothing comes any more.
fn stalled(beginning: &str, part: Vec<Act>) -> Row {
    let mut client = vec![get(), Act::Head(200)];
    client.extend(part);
    client.extend([Act::Middle, Act::Cut("")]);
    Row {
        phase: Phase::Body,
        config: "timeouts:\n  body: 300ms\n",
        backend: vec![vec![Do::Read, send(beginning), Do::WaitEnd]],
        client,
        expect: cut("body_timeout", vec!["GET / whole; let go"]),
        ..Row::default()
    }
}

/// An answer that is cut because its framing breaks.
fn malformed(end: &str) -> Row {
    Row {
        phase: Phase::Body,
        backend: then(&format!("{CHUNKS}5\r\nhello\r\n"), vec![send(end), Do::WaitEnd]),
        client: sees(Act::Chunk("hello")),
        expect: cut("protocol_error", vec!["GET / whole; let go"]),
        ..Row::default()
    }
}

/// An answer that is whole; its end is the backend's.
fn whole(request: &str, answer: &str, text: &'static str, end: Do) -> Row {
    Row {
        phase: Phase::Body,
        backend: vec![vec![Do::Read, Do::Middle, send(answer), end]],
        client: vec![say(request), Act::Head(200), Act::Whole(text)],
        expect: answered("GET", "200", vec!["GET / whole; ended"], ENDED),
        ..Row::default()
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const OLD_GET: &str = "GET / HTTP/1.0\r\nHost: test\r\n\r\n";

matrix! {
    silence_before_the_body => stalled(LENGTH, vec![]),
    silence_in_the_body => stalled(&format!("{LENGTH}half!"), vec![Act::Take("half!")]),
    silence_between_chunks => stalled(&format!("{CHUNKS}5\r\nhello\r\n"), vec![Act::Chunk("hello")]),
    silence_in_a_chunk => stalled(&format!("{CHUNKS}a\r\nhello"), vec![Act::Chunk("hello")]),
    silence_in_a_chunk_size => stalled(&format!("{CHUNKS}5\r\nhello\r\n1"), vec![Act::Chunk("hello")]),
    silence_in_the_trailers => stalled(&format!("{CHUNKS}5\r\nhello\r\n0\r\nX-A: a"), vec![Act::Chunk("hello")]),
    silence_in_a_body_without_length => stalled(&format!("{TO_THE_END}hello"), vec![Act::Chunk("hello")]),

    a_close_before_the_end_of_the_length => lost(&format!("{LENGTH}half!"), Act::Take("half!"), Do::Close),
    a_reset_before_the_end_of_the_length => lost(&format!("{LENGTH}half!"), Act::Take("half!"), Do::Reset),
    a_close_right_after_the_head => lost(LENGTH, Act::Take(""), Do::Close),
    a_close_in_a_chunk => lost(&format!("{CHUNKS}a\r\nhello"), Act::Chunk("hello"), Do::Close),
    a_reset_in_a_chunk => lost(&format!("{CHUNKS}a\r\nhello"), Act::Chunk("hello"), Do::Reset),
    a_close_instead_of_the_last_chunk => lost(&format!("{CHUNKS}5\r\nhello\r\n"), Act::Chunk("hello"), Do::Close),
    a_reset_instead_of_the_last_chunk => lost(&format!("{CHUNKS}5\r\nhello\r\n"), Act::Chunk("hello"), Do::Reset),
    a_close_in_the_trailers => lost(&format!("{CHUNKS}5\r\nhello\r\n0\r\nX-A: a"), Act::Chunk("hello"), Do::Close),
    a_reset_without_length => lost(&format!("{TO_THE_END}hello"), Act::Chunk("hello"), Do::Reset),

    a_reset_without_length_before_an_old_client => Row {
        phase: Phase::Body,
        backend: then(&format!("{TO_THE_END}hello"), vec![Do::Reset]),
        client: vec![
            say(OLD_GET),
            Act::Head(200),
            Act::Take("hello"),
            Act::Middle,
            Act::Mark("seen"),
            Act::Cut(""),
        ],
        expect: cut("reset_after_head", vec!["GET / whole; ended"]),
        ..Row::default()
    },

    a_close_without_length => whole(GET, &format!("{TO_THE_END}hello"), "hello", Do::Close),
    a_close_without_length_before_an_old_client => whole(OLD_GET, &format!("{TO_THE_END}hello"), "hello", Do::Close),

    a_chunk_size_of_no_digits => malformed("XYZ\r\n"),
    a_chunk_size_beyond_all_bounds => malformed("fffffffffffffffffff\r\n"),
    a_negative_chunk_size => malformed("-1\r\n"),
    a_chunk_without_its_end => malformed("5\r\nworld!\r\n0\r\n\r\n"),
    a_trailer_that_is_none => malformed("0\r\nno colon\r\n\r\n"),

    bytes_after_the_body => Row {
        phase: Phase::Body,
        backend: vec![vec![
            Do::Read,
            Do::Middle,
            send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwholeHTTP/1.1 200 OK\r\n"),
            Do::WaitEnd,
        ]],
        client: vec![get(), Act::Head(200), Act::Whole("whole")],
        expect: answered("GET", "200", vec!["GET / whole; let go"], LOST),
        ..Row::default()
    },

    a_body_where_none_may_be => Row {
        phase: Phase::Body,
        backend: vec![vec![Do::Read, Do::Middle, send("HTTP/1.1 204 No Content\r\n\r\nbody"), Do::WaitEnd]],
        client: vec![get(), Act::Head(204), Act::Whole("")],
        expect: answered("GET", "204", vec!["GET / whole; let go"], LOST),
        ..Row::default()
    },

    a_body_that_outlasts_the_drain => Row {
        phase: Phase::Body,
        backend: then(&format!("{LENGTH}half!"), vec![send(" more"), Do::Serve]),
        client: vec![
            get(),
            Act::Head(200),
            Act::Take("half!"),
            Act::Middle,
            Act::Mark("seen"),
            Act::Take(" more"),
        ],
        expect: answered("GET", "200", vec!["GET / whole; kept"], &[Series::Opened]),
        term: Some(Term {
            cuts: true,
            backend: Some(vec![vec![Do::Read, send(LENGTH), send("half!"), Do::WaitEnd]]),
            client: Some(vec![get(), Act::Head(200), Act::Take("half!"), Act::Middle, Act::Cut("")]),
            expect: Some(Expect {
                requests: 1,
                seen: vec!["GET / whole; let go"],
                moved: vec![
                    Series::Request("GET", "200", "proxy"),
                    Series::Error("drain_deadline", "policy", "body"),
                    Series::Truncated,
                    Series::Opened,
                    Series::Closed("error"),
                ],
            }),
        }),
        ..Row::default()
    },
}
