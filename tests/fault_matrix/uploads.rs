//! The request body, and answers that come before its end.

use crate::row::{Act, Do, KEPT, LOST, Phase, Row, aborted, acts, answered, in_two_parts, post, refused, say, send};

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n";
const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

/// Reads the head of an upload and its beginning; then this.
fn begun(end: Vec<Do>) -> Vec<Vec<Do>> {
    let mut script = vec![Do::ReadHead, Do::ReadBytes("begin")];
    script.extend(end);
    vec![script]
}

/// The same of a chunked one, and a client that may go on.
fn begun_in_chunks() -> Vec<Vec<Do>> {
    vec![vec![Do::ReadHead, Do::ReadBytes("5\r\nbegin\r\n"), Do::Middle, Do::Mark("begun"), Do::WaitEnd]]
}

/// A client that leaves in the middle of its upload.
fn left(leave: Vec<Act>) -> Row {
    Row {
        phase: Phase::Send,
        backend: begun(vec![Do::Mark("begun"), Do::WaitEnd]),
        client: acts([vec![post(1000, "begin"), Act::Wait("begun"), Act::Middle], leave]),
        expect: aborted("POST", "", "before_head", vec!["POST / unread; let go"], LOST),
        ..Row::default()
    }
}

/// A backend whose connection ends in the middle of an upload.
fn dropped(end: Do) -> Row {
    Row {
        phase: Phase::Send,
        backend: begun(vec![Do::Middle, end]),
        client: vec![post(1000, "begin"), Act::Refused(502, "reset_before_head"), Act::End],
        expect: refused("POST", "502", ("reset_before_head", "backend", "send"), vec!["POST / unread; ended"], LOST),
        ..Row::default()
    }
}

matrix! {
    an_early_refusal_of_an_upload => Row {
        phase: Phase::Send,
        backend: begun(vec![
            Do::Middle,
            send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\ntoo large"),
            Do::WaitEnd,
        ]),
        client: vec![post(1000, "begin"), Act::Head(413), Act::Whole("too large"), Act::End],
        expect: answered("POST", "413", vec!["POST / unread; let go"], LOST),
        ..Row::default()
    },

    an_early_refusal_and_a_close => Row {
        phase: Phase::Send,
        backend: begun(vec![
            Do::Middle,
            send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large"),
            Do::Close,
        ]),
        client: vec![post(1000, "begin"), Act::Head(413), Act::Whole("too large"), Act::End],
        expect: answered("POST", "413", vec!["POST / unread; ended"], LOST),
        ..Row::default()
    },

    an_answer_that_begins_before_the_upload_ends => Row {
        phase: Phase::Send,
        backend: begun(vec![
            Do::Middle,
            send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nearly"),
            Do::ReadBytes("end"),
            send(" late"),
            Do::Serve,
        ]),
        client: vec![
            post(8, "begin"),
            Act::Head(200),
            Act::Take("early"),
            say("end"),
            Act::Take(" late"),
            Act::End,
        ],
        expect: answered("POST", "200", vec!["POST / unread; kept"], KEPT),
        ..Row::default()
    },

    a_backend_that_closes_during_an_upload => dropped(Do::Close),
    a_backend_that_resets_during_an_upload => dropped(Do::Reset),

    a_backend_that_does_not_read_an_upload => Row {
        phase: Phase::Send,
        config: "timeouts:\n  head: 300ms\n",
        backend: vec![vec![Do::ReadHead, Do::Middle, Do::Wait("answered"), Do::WaitEnd]],
        client: vec![
            post(1 << 30, ""),
            Act::Push(vec![b'u'; 64 << 10]),
            Act::Refused(504, "head_timeout"),
            Act::Mark("answered"),
            Act::Leave,
        ],
        expect: refused("POST", "504", ("head_timeout", "backend", "send"), vec!["POST / unread; let go"], LOST),
        ..Row::default()
    },

    silence_after_an_upload => Row {
        config: "timeouts:\n  head: 300ms\n",
        backend: vec![vec![Do::Read, Do::Middle, Do::WaitEnd]],
        client: vec![post(5, "whole"), Act::Refused(504, "head_timeout")],
        expect: refused("POST", "504", ("head_timeout", "backend", "wait"), vec!["POST / whole; let go"], LOST),
        ..Row::default()
    },

    an_expectation_that_is_met => Row {
        phase: Phase::Send,
        backend: vec![vec![
            Do::ReadHead,
            Do::Middle,
            send("HTTP/1.1 100 Continue\r\n\r\n"),
            Do::ReadBody,
            send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            Do::Serve,
        ]],
        client: vec![say(EXPECTING), Act::Interim(100), say("hello"), Act::Head(200), Act::Whole("ok")],
        expect: answered("POST", "200", vec!["POST / whole; kept"], KEPT),
        ..Row::default()
    },

    an_expectation_that_is_refused => Row {
        phase: Phase::Send,
        backend: vec![vec![
            Do::ReadHead,
            Do::Middle,
            send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno"),
            Do::WaitEnd,
        ]],
        client: vec![say(EXPECTING), Act::Head(417), Act::Whole("no"), Act::End],
        expect: answered("POST", "417", vec!["POST / unread; let go"], LOST),
        ..Row::default()
    },

    an_expectation_that_nobody_answers => Row {
        config: "timeouts:\n  head: 300ms\n  client_body: 300ms\n",
        backend: vec![vec![Do::ReadHead, Do::Middle, Do::WaitEnd]],
        client: vec![say(EXPECTING), Act::Refused(504, "head_timeout"), Act::End],
        expect: refused("POST", "504", ("head_timeout", "backend", "wait"), vec!["POST / unread; let go"], LOST),
        ..Row::default()
    },

    an_upload_that_stalls => Row {
        phase: Phase::Send,
        config: "timeouts:\n  client_body: 300ms\n",
        backend: begun(vec![Do::Middle, Do::WaitEnd]),
        client: vec![post(1000, "begin"), Act::Refused(408, "client_timeout"), Act::End],
        expect: refused("POST", "408", ("client_timeout", "client", "send"), vec!["POST / unread; let go"], LOST),
        ..Row::default()
    },

    a_bad_chunk_in_an_upload => Row {
        phase: Phase::Send,
        backend: begun_in_chunks(),
        client: vec![say(CHUNKED), Act::Wait("begun"), say("zz\r\n"), Act::Refused(400, "bad_request"), Act::End],
        expect: refused("POST", "400", ("bad_request", "client", "send"), vec!["POST / unread; let go"], LOST),
        ..Row::default()
    },

    an_upload_that_says_it_is_too_large => Row {
        phase: Phase::Head,
        config: "limits:\n  request_body_bytes: 10B\n",
        client: acts([
            in_two_parts("POST / HTTP/1.1\r\nHo", "st: test\r\nContent-Length: 11\r\n\r\n"),
            vec![Act::Refused(413, "request_too_large"), Act::End],
        ]),
        expect: refused("POST", "413", ("request_too_large", "client", "head"), vec![], &[]),
        ..Row::default()
    },

    an_upload_that_turns_out_too_large => Row {
        phase: Phase::Send,
        config: "limits:\n  request_body_bytes: 10B\n",
        backend: begun_in_chunks(),
        client: vec![
            say(CHUNKED),
            Act::Wait("begun"),
            say("6\r\nlarger\r\n"),
            Act::Refused(413, "request_too_large"),
            Act::End,
        ],
        expect: refused("POST", "413", ("request_too_large", "client", "send"), vec!["POST / unread; let go"], LOST),
        ..Row::default()
    },

    a_client_that_leaves_its_upload => left(vec![Act::Leave]),
    a_client_that_resets_its_upload => left(vec![Act::Reset]),
    a_client_that_half_closes_its_upload => left(vec![Act::HalfClose, Act::End]),

    a_client_that_leaves_an_answered_upload => Row {
        phase: Phase::Body,
        backend: begun(vec![send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nearly"), Do::WaitEnd]),
        client: vec![post(1000, "begin"), Act::Head(200), Act::Take("early"), Act::Middle, Act::Leave],
        expect: aborted("POST", "200", "during_body", vec!["POST / unread; let go"], LOST),
        ..Row::default()
    },
}
