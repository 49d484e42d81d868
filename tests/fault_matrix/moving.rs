//! The backend's name leads elsewhere, or nowhere.

use crate::row::{
    Act, Do, Expect, Phase, Row, Series, Term, Upstream, acts, answered, get, get_in_two_parts, refused, send,
};

const OFTEN: &str = "dns:\n  refresh: 100ms\n";
const ELSEWHERE: Act = Act::Names(&["127.0.0.2"]);
const NOWHERE: Act = Act::Names(&[]);
const ONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none";

fn answer(text: &'static str) -> Vec<Act> {
    vec![Act::Head(200), Act::Whole(text)]
}

/// A request that is answered at the old address, and one that is answered at the new one.
fn moved() -> Expect {
    Expect {
        requests: 2,
        seen: vec!["GET / whole; let go", "GET / whole; kept"],
        moved: vec![
            Series::Request("GET", "200", "backend"),
            Series::Request("GET", "200", "backend"),
            Series::Opened,
            Series::Closed("drain"),
            Series::Opened,
        ],
    }
}

/// What that comes to when no other request can follow.
fn stayed() -> Expect {
    answered("GET", "200", vec!["GET / whole; let go"], &[Series::Opened, Series::Closed("drain")])
}

matrix! {
    a_name_that_moves_while_a_request_waits => Row {
        phase: Phase::Wait,
        config: OFTEN,
        named: true,
        backend: vec![vec![Do::Read, Do::Mark("asked"), Do::Wait("moved"), send(ONE), Do::WaitEnd]],
        client: acts([
            vec![get(), Act::Wait("asked"), ELSEWHERE, Act::Middle, Act::Mark("moved")],
            answer("one"),
            vec![get()],
            answer("good"),
        ]),
        expect: moved(),
        term: Some(Term {
            client: Some(acts([
                vec![get(), Act::Wait("asked"), ELSEWHERE, Act::Middle, Act::Mark("moved")],
                answer("one"),
                vec![Act::End],
            ])),
            expect: Some(stayed()),
            ..Term::default()
        }),
        ..Row::default()
    },

    a_name_that_moves_in_an_answer => Row {
        phase: Phase::Body,
        config: OFTEN,
        named: true,
        backend: vec![vec![
            Do::Read,
            send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\no"),
            Do::Wait("moved"),
            send("ne"),
            Do::WaitEnd,
        ]],
        client: acts([
            vec![get(), Act::Head(200), Act::Take("o"), ELSEWHERE, Act::Middle, Act::Mark("moved"), Act::Take("ne")],
            vec![get()],
            answer("good"),
        ]),
        expect: moved(),
        term: Some(Term {
            client: Some(acts([
                vec![get(), Act::Head(200), Act::Take("o"), ELSEWHERE, Act::Middle, Act::Mark("moved")],
                vec![Act::Take("ne"), Act::End],
            ])),
            expect: Some(stayed()),
            ..Term::default()
        }),
        ..Row::default()
    },

    a_name_that_moves_between_requests => Row {
        phase: Phase::Idle,
        config: OFTEN,
        named: true,
        client: acts([vec![get()], answer("good"), vec![ELSEWHERE, Act::Middle, get()], answer("good")]),
        expect: moved(),
        term: Some(Term {
            client: Some(acts([vec![get()], answer("good"), vec![ELSEWHERE, Act::Middle, Act::End]])),
            expect: Some(stayed()),
            ..Term::default()
        }),
        ..Row::default()
    },

    a_name_that_vanishes_before_a_live_backend => Row {
        phase: Phase::System,
        config: OFTEN,
        named: true,
        client: acts([vec![NOWHERE], get_in_two_parts(), answer("good")]),
        expect: answered("GET", "200", vec!["GET / whole; kept"], &[Series::Opened]),
        ..Row::default()
    },

    a_name_that_vanishes_before_a_dead_backend => Row {
        phase: Phase::Connect,
        config: OFTEN,
        named: true,
        upstream: Upstream::Refusing,
        client: acts([vec![NOWHERE], get_in_two_parts(), vec![Act::Refused(502, "dns_failure")]]),
        expect: refused("GET", "502", ("dns_failure", "network", "connect"), vec![], &[]),
        ..Row::default()
    },

    a_name_that_leads_to_a_dead_backend_and_a_live_one => Row {
        phase: Phase::Connect,
        config: OFTEN,
        named: true,
        upstream: Upstream::Refusing,
        client: acts([vec![Act::Names(&["127.0.0.1", "127.0.0.2"])], get_in_two_parts(), answer("good")]),
        expect: answered("GET", "200", vec!["GET / whole; kept"], &[Series::Opened]),
        ..Row::default()
    },
}
