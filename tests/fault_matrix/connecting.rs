//! Until a request has a connection to the backend, and before there is one to give.

use crate::row::{
    Act, Do, Expect, KEPT, Phase, Row, Series, Upstream, aborted, accepted, acts, get, get_in_two_parts, in_flight,
    refused, say, send,
};

/// Takes the only connection there may be, until it is told to let go; served well from then on.
fn holding() -> Vec<Vec<Do>> {
    vec![vec![
        Do::Read,
        Do::Mark("held"),
        Do::Wait("release"),
        send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nheld"),
        Do::Serve,
    ]]
}

/// The client that holds it, and then another connection.
fn hold() -> Vec<Act> {
    vec![say("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n"), Act::Wait("held"), Act::Connect]
}

/// The end of that.
fn release() -> Vec<Act> {
    vec![Act::Mark("release"), Act::Use(0), Act::Head(200), Act::Whole("held")]
}

/// What the holder adds to the books.
fn with_holder(more: &[Series], others: usize, seen: Vec<&'static str>) -> Expect {
    let mut moved = vec![Series::Request("GET", "200", "backend"), Series::Opened];
    moved.extend(more);
    Expect { requests: 1 + others, seen, moved }
}

fn one_waits() -> Act {
    Act::Page("one waits", |page| page.get("golden_upstream_pool_waiting", &[]) == Some(1.0))
}

fn nobody_waits() -> Act {
    Act::Page("nobody waits", |page| page.get("golden_upstream_pool_waiting", &[]) == Some(0.0))
}

const ONE: &str = "limits:\n  upstream_connections: 1\n";
const PATIENT: &str = "timeouts:\n  connect: 20s\n";

matrix! {
    a_refused_connect => Row {
        phase: Phase::Connect,
        upstream: Upstream::Refusing,
        client: acts([get_in_two_parts(), vec![Act::Refused(502, "connect_refused")]]),
        expect: refused("GET", "502", ("connect_refused", "backend", "connect"), vec![], &[]),
        ..Row::default()
    },

    a_connect_that_is_never_answered => Row {
        phase: Phase::Connect,
        config: "timeouts:\n  connect: 300ms\n",
        upstream: Upstream::Deaf,
        client: acts([get_in_two_parts(), vec![Act::Refused(504, "connect_timeout")]]),
        expect: refused("GET", "504", ("connect_timeout", "backend", "connect"), vec![], &[]),
        ..Row::default()
    },

    a_client_that_leaves_while_connecting => Row {
        phase: Phase::Connect,
        config: PATIENT,
        upstream: Upstream::Deaf,
        client: vec![get(), in_flight(), Act::Middle, Act::Leave],
        expect: aborted("GET", "", "before_head", vec![], &[]),
        ..Row::default()
    },

    a_client_that_resets_while_connecting => Row {
        phase: Phase::Connect,
        config: PATIENT,
        upstream: Upstream::Deaf,
        client: vec![get(), in_flight(), Act::Middle, Act::Reset],
        expect: aborted("GET", "", "before_head", vec![], &[]),
        ..Row::default()
    },

    a_wait_for_a_connection_that_takes_too_long => Row {
        phase: Phase::Queue,
        config: "timeouts:\n  pool_wait: 300ms\nlimits:\n  upstream_connections: 1\n",
        backend: holding(),
        client: acts([
            hold(),
            get_in_two_parts(),
            vec![Act::Refused(503, "queue_timeout")],
            release(),
        ]),
        expect: with_holder(
            &[
                Series::Request("GET", "503", "proxy"),
                Series::Error("queue_timeout", "proxy", "queue"),
                Series::PoolTimeout,
            ],
            1,
            vec!["GET /hold whole; kept"],
        ),
        ..Row::default()
    },

    a_full_waiting_line => Row {
        phase: Phase::Queue,
        config: "limits:\n  upstream_connections: 1\n  upstream_waiting: 1\n",
        backend: holding(),
        client: acts([
            hold(),
            vec![get(), one_waits(), Act::Connect],
            get_in_two_parts(),
            vec![Act::Refused(503, "no_capacity")],
            release(),
            vec![Act::Use(1), Act::Head(200), Act::Whole("good")],
        ]),
        expect: with_holder(
            &[
                Series::Request("GET", "503", "proxy"),
                Series::Error("no_capacity", "proxy", "queue"),
                Series::Request("GET", "200", "backend"),
            ],
            2,
            vec!["GET /hold whole, GET / whole; kept"],
        ),
        // The holder's connection is not used again: the drain has closed the pool.
        term: Some(crate::row::Term {
            expect: Some(with_holder(
                &[
                    Series::Closed("drain"),
                    Series::Request("GET", "503", "proxy"),
                    Series::Error("no_capacity", "proxy", "queue"),
                    Series::Request("GET", "200", "backend"),
                    Series::Opened,
                    Series::Closed("drain"),
                ],
                2,
                vec!["GET /hold whole; let go", "GET / whole; let go"],
            )),
            ..Default::default()
        }),
        ..Row::default()
    },

    a_client_that_leaves_the_waiting_line => Row {
        phase: Phase::Queue,
        config: ONE,
        backend: holding(),
        client: acts([hold(), vec![get(), one_waits(), Act::Middle, Act::Leave, nobody_waits()], release()]),
        expect: with_holder(
            &[Series::Request("GET", "", "client"), Series::Abort("before_head")],
            1,
            vec!["GET /hold whole; kept"],
        ),
        ..Row::default()
    },

    a_client_that_resets_in_the_waiting_line => Row {
        phase: Phase::Queue,
        config: ONE,
        backend: holding(),
        client: acts([hold(), vec![get(), one_waits(), Act::Middle, Act::Reset, nobody_waits()], release()]),
        expect: with_holder(
            &[Series::Request("GET", "", "client"), Series::Abort("before_head")],
            1,
            vec!["GET /hold whole; kept"],
        ),
        ..Row::default()
    },

    a_request_above_the_concurrency_limit => Row {
        phase: Phase::Queue,
        config: "limits:\n  inflight: 1\n",
        backend: holding(),
        client: acts([hold(), get_in_two_parts(), vec![Act::Refused(503, "shed")], release()]),
        expect: with_holder(
            &[Series::Request("GET", "503", "proxy"), Series::Error("shed", "policy", "queue")],
            1,
            vec!["GET /hold whole; kept"],
        ),
        ..Row::default()
    },

    a_connection_above_the_limit => Row {
        phase: Phase::Head,
        config: "limits:\n  connections: 1\n",
        backend: holding(),
        client: acts([
            vec![say("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n"), Act::Wait("held"), Act::Connect],
            vec![Act::Refused(503, "no_capacity"), Act::End, Act::Leave, Act::Middle],
            release(),
        ]),
        expect: with_holder(
            &[
                Series::Request("_OTHER", "503", "proxy"),
                Series::Error("no_capacity", "proxy", "head"),
                Series::Rejected("limit"),
            ],
            1,
            vec!["GET /hold whole; kept"],
        ),
        ..Row::default()
    },

    a_connection_that_brings_nothing => Row {
        phase: Phase::Head,
        client: vec![accepted(), Act::Middle, Act::Leave],
        ..Row::default()
    },

    a_connection_that_is_reset_without_a_byte => Row {
        phase: Phase::Head,
        client: vec![accepted(), Act::Middle, Act::Reset],
        ..Row::default()
    },

    a_connection_to_the_backend_that_is_kept => Row {
        phase: Phase::Idle,
        client: acts([get_in_two_parts(), vec![Act::Head(200), Act::Whole("good")]]),
        expect: crate::row::answered("GET", "200", vec!["GET / whole; kept"], KEPT),
        ..Row::default()
    },
}
