//! Not a request at all: descriptors, logs.

use crate::row::{Act, Do, Expect, KEPT, Phase, Row, Series, Term, acts, answered, get, get_in_two_parts, send};

/// A client inside, and then no descriptor is left for another one: it is turned away, while the admin port answers, the
/// client inside is served by the pooled connection, and nobody is busy with trying.
fn without_descriptors() -> Vec<Act> {
    vec![
        get(),
        Act::Head(200),
        Act::Whole("one"),
        Act::Descriptors(0),
        Act::Connect,
        Act::End,
        Act::Leave,
        Act::Page("it is counted, at a port that still answers", |page| {
            page.sum("golden_server_connections_rejected_total", &[("reason", "descriptors")]) == 1.0
        }),
        Act::Use(0),
        Act::Calm,
        get(),
        Act::Head(200),
        Act::Whole("good"),
        Act::Middle,
    ]
}

matrix! {
    a_log_on_a_full_disk => Row {
        phase: Phase::System,
        mute: true,
        client: acts([
            vec![Act::Page("what cannot be written is counted", |page| {
                page.sum("golden_log_dropped_total", &[]) >= 1.0
            })],
            get_in_two_parts(),
            vec![Act::Head(200), Act::Whole("good")],
        ]),
        expect: answered("GET", "200", vec!["GET / whole; kept"], KEPT),
        ..Row::default()
    },

    a_sidecar_without_descriptors => Row {
        phase: Phase::System,
        backend: vec![vec![Do::Read, send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"), Do::Serve]],
        client: acts([
            without_descriptors(),
            vec![Act::Descriptors(u64::MAX), Act::Connect, get(), Act::Head(200), Act::Whole("good")],
        ]),
        expect: Expect {
            requests: 3,
            seen: vec!["GET / whole, GET / whole, GET / whole; kept"],
            moved: [[Series::Request("GET", "200", "backend"); 3].as_slice(), KEPT, &[Series::Rejected("descriptors")]]
                .concat(),
        },
        // Nobody comes in any more, with or without descriptors.
        term: Some(Term {
            client: Some(acts([without_descriptors(), vec![Act::End]])),
            expect: Some(Expect {
                requests: 2,
                seen: vec!["GET / whole, GET / whole; let go"],
                moved: vec![
                    Series::Request("GET", "200", "backend"),
                    Series::Request("GET", "200", "backend"),
                    Series::Opened,
                    Series::Closed("drain"),
                    Series::Rejected("descriptors"),
                ],
            }),
            ..Term::default()
        }),
        ..Row::default()
    },
}
