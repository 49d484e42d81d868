//! Not a request at all: descriptors, logs, names.

use crate::row::{Act, Do, Expect, KEPT, Phase, Row, Series, Term, acts, answered, get, get_in_two_parts, send};

matrix! {
    a_log_on_a_full_disk => Row {
        phase: Phase::System,
        mute: true,
        client: acts([
            vec![Act::Page("what cannot be written is counted", |page| page.sum("golden_log_dropped_total", &[]) >= 1.0)],
            get_in_two_parts(),
            vec![Act::Head(200), Act::Whole("good")],
        ]),
        expect: answered("GET", "200", vec!["GET / whole; kept"], KEPT),
        ..Row::default()
    },

    a_sidecar_without_descriptors => Row {
        phase: Phase::System,
        backend: vec![vec![Do::Read, send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"), Do::Serve]],
        // The pooled connection serves whoever is inside; a newcomer waits at the door until there is room.
        client: vec![
            get(),
            Act::Head(200),
            Act::Whole("one"),
            Act::Descriptors(0),
            Act::Connect,
            get(),
            Act::Page("the door is closed, the admin port is not", |page| {
                page.sum("golden_server_connections_rejected_total", &[("reason", "descriptors")]) >= 1.0
            }),
            Act::Calm,
            Act::Middle,
            Act::Descriptors(u64::MAX),
            Act::Head(200),
            Act::Whole("good"),
            Act::Use(0),
            get(),
            Act::Head(200),
            Act::Whole("good"),
        ],
        expect: Expect {
            requests: 3,
            seen: vec!["GET / whole, GET / whole, GET / whole; kept"],
            moved: vec![
                Series::Request("GET", "200", "backend"),
                Series::Request("GET", "200", "backend"),
                Series::Request("GET", "200", "backend"),
                Series::Opened,
                Series::RejectedAtLeastOnce("descriptors"),
            ],
        },
        // A drain closes the door for good.
        term: Some(Term {
            client: Some(vec![
                get(),
                Act::Head(200),
                Act::Whole("one"),
                Act::Descriptors(0),
                Act::Connect,
                get(),
                Act::Page("the door is closed, the admin port is not", |page| {
                    page.sum("golden_server_connections_rejected_total", &[("reason", "descriptors")]) >= 1.0
                }),
                Act::Middle,
                Act::End,
                Act::Use(0),
                Act::End,
            ]),
            expect: Some(answered(
                "GET",
                "200",
                vec!["GET / whole; let go"],
                &[Series::Opened, Series::Closed("drain"), Series::RejectedAtLeastOnce("descriptors")],
            )),
            ..Term::default()
        }),
        ..Row::default()
    },
}
