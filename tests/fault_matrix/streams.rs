//! Tunnels and event streams.

use crate::row::{Act, Do, Expect, Phase, Row, Series, Term, acts, get, say, send};

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";

/// WebSocket frames: a text of each side, and Close with 1001 of each.
const PING: &[u8] = b"\x81\x84\0\0\0\0ping";
const PONG: &[u8] = b"\x81\x04pong";
const CLOSE: &[u8] = b"\x88\x02\x03\xe9";
const MASKED_CLOSE: &[u8] = b"\x88\x82\0\0\0\0\x03\xe9";

/// A backend that speaks WebSocket, and then this.
fn framing(end: Vec<Do>) -> Vec<Vec<Do>> {
    let mut script = vec![Do::Read, send(SWITCH), Do::ReadCount(PING.len()), Do::Send(PONG.into())];
    script.extend(end);
    vec![script]
}

/// Its client, which comes to the middle, and then this.
fn chatting(end: Vec<Act>) -> Vec<Act> {
    let begin = vec![say(UPGRADE), Act::Head(101), Act::Send(PING.into()), Act::TakeBytes(PONG), Act::Middle];
    acts([begin, end])
}

/// A backend that switches, says something that is no WebSocket, and then this.
fn switching(end: Vec<Do>) -> Vec<Vec<Do>> {
    let mut script = vec![Do::Read, send(SWITCH), Do::ReadBytes("ping"), send("pong")];
    script.extend(end);
    vec![script]
}

/// A client that asks for a tunnel, says something, comes to the middle, and then this.
fn tunnelling(end: Vec<Act>) -> Vec<Act> {
    acts([vec![say(UPGRADE), Act::Head(101), say("ping"), Act::Take("pong"), Act::Middle], end])
}

/// What a tunnel comes to: bytes that passed up and down, what the backend saw, why its connection ended.
fn tunnelled((sent, received): (u32, u32), seen: &'static str, reason: &'static str) -> Expect {
    Expect {
        requests: 1,
        seen: vec![seen],
        moved: vec![
            Series::Request("GET", "101", "backend"),
            Series::Upgraded,
            Series::UpgradedBytes("sent", sent),
            Series::UpgradedBytes("received", received),
            Series::Opened,
            Series::Closed(reason),
        ],
    }
}

/// A client that sees the first event, comes to the middle, and then this.
fn listening(end: Vec<Act>) -> Vec<Act> {
    acts([vec![get(), Act::Head(200), Act::Chunk("data: 1\n\n"), Act::Middle], end])
}

/// What an event stream comes to.
fn streamed(origin: &'static str, end: &'static str, seen: &'static str, more: &[Series]) -> Expect {
    let mut moved = vec![Series::Request("GET", "200", origin), Series::Stream(end), Series::Opened];
    moved.extend(more);
    Expect { requests: 1, seen: vec![seen], moved }
}

matrix! {
    a_tunnel_that_its_client_closes => Row {
        phase: Phase::Stream,
        backend: switching(vec![Do::WaitEnd]),
        client: tunnelling(vec![Act::Leave]),
        expect: tunnelled((4, 4), "GET / whole; let go", "peer"),
        ..Row::default()
    },

    a_tunnel_that_its_client_resets => Row {
        phase: Phase::Stream,
        backend: switching(vec![Do::WaitEnd]),
        client: tunnelling(vec![Act::Reset]),
        expect: tunnelled((4, 4), "GET / whole; let go", "error"),
        ..Row::default()
    },

    a_tunnel_that_the_backend_closes => Row {
        phase: Phase::Stream,
        backend: switching(vec![Do::Wait("seen"), Do::Close]),
        client: tunnelling(vec![Act::Mark("seen"), Act::End, Act::Leave]),
        expect: tunnelled((4, 4), "GET / whole; ended", "peer"),
        ..Row::default()
    },

    a_tunnel_that_the_backend_resets => Row {
        phase: Phase::Stream,
        backend: switching(vec![Do::Wait("seen"), Do::Reset]),
        client: tunnelling(vec![Act::Mark("seen"), Act::End, Act::Leave]),
        expect: tunnelled((4, 4), "GET / whole; ended", "error"),
        ..Row::default()
    },

    a_tunnel_that_its_client_half_closes => Row {
        phase: Phase::Stream,
        backend: switching(vec![Do::ReadEnd, send("late"), Do::Close]),
        client: tunnelling(vec![Act::HalfClose, Act::Take("late"), Act::End]),
        expect: tunnelled((4, 8), "GET / whole; ended", "peer"),
        ..Row::default()
    },

    a_tunnel_that_nobody_ends => Row {
        phase: Phase::Stream,
        backend: switching(vec![Do::WaitEnd]),
        client: tunnelling(vec![Act::Leave]),
        expect: tunnelled((4, 4), "GET / whole; let go", "peer"),
        term: Some(Term {
            cuts: true,
            client: Some(tunnelling(vec![Act::End])),
            expect: Some(tunnelled((4, 4), "GET / whole; let go", "drain")),
            ..Term::default()
        }),
        ..Row::default()
    },

    a_websocket_that_nobody_ends => Row {
        phase: Phase::Stream,
        backend: framing(vec![Do::WaitEnd]),
        client: chatting(vec![Act::Leave]),
        expect: tunnelled((10, 6), "GET / whole; let go", "peer"),
        // Nobody waits for the end of the drain's time: both are told, and both answer.
        term: Some(Term {
            backend: Some(framing(vec![Do::ReadCount(MASKED_CLOSE.len()), Do::Send(CLOSE.into()), Do::WaitEnd])),
            client: Some(chatting(vec![Act::TakeBytes(CLOSE), Act::Send(MASKED_CLOSE.into()), Act::End])),
            expect: Some(tunnelled((10, 6), "GET / whole; let go", "drain")),
            ..Term::default()
        }),
        ..Row::default()
    },

    an_event_stream_that_ends => Row {
        phase: Phase::Stream,
        backend: vec![vec![Do::Read, send(EVENTS), Do::Wait("seen"), Do::Close]],
        client: listening(vec![Act::Mark("seen"), Act::Whole("")]),
        expect: streamed("backend", "complete", "GET / whole; ended", &[Series::Closed("peer")]),
        ..Row::default()
    },

    an_event_stream_that_the_backend_resets => Row {
        phase: Phase::Stream,
        backend: vec![vec![Do::Read, send(EVENTS), Do::Wait("seen"), Do::Reset]],
        client: listening(vec![Act::Mark("seen"), Act::Cut("")]),
        expect: streamed(
            "backend",
            "backend_reset",
            "GET / whole; ended",
            &[Series::Error("reset_after_head", "backend", "body"), Series::Truncated, Series::Closed("error")],
        ),
        ..Row::default()
    },

    an_event_stream_that_its_client_leaves => Row {
        phase: Phase::Stream,
        backend: vec![vec![Do::Read, send(EVENTS), Do::WaitEnd]],
        client: listening(vec![Act::Leave]),
        expect: streamed("client", "client_abort", "GET / whole; let go", &[Series::Closed("error")]),
        ..Row::default()
    },

    an_event_stream_that_its_client_resets => Row {
        phase: Phase::Stream,
        backend: vec![vec![Do::Read, send(EVENTS), Do::WaitEnd]],
        client: listening(vec![Act::Reset]),
        expect: streamed("client", "client_abort", "GET / whole; let go", &[Series::Closed("error")]),
        ..Row::default()
    },

    an_event_stream_that_nobody_ends => Row {
        phase: Phase::Stream,
        // Silence is no fault of an event stream.
        config: "timeouts:\n  body: 300ms\n",
        backend: vec![vec![Do::Read, send(EVENTS), Do::Wait("seen"), send("data: 2\n\n"), Do::WaitEnd]],
        client: listening(vec![Act::Calm, Act::Mark("seen"), Act::Chunk("data: 2\n\n"), Act::Leave]),
        expect: streamed("client", "client_abort", "GET / whole; let go", &[Series::Closed("error")]),
        term: Some(Term {
            cuts: true,
            backend: Some(vec![vec![Do::Read, send(EVENTS), Do::WaitEnd]]),
            client: Some(listening(vec![Act::Cut("")])),
            expect: Some(streamed(
                "proxy",
                "timeout",
                "GET / whole; let go",
                &[Series::Error("drain_deadline", "policy", "body"), Series::Truncated, Series::Closed("error")],
            )),
        }),
        ..Row::default()
    },
}
