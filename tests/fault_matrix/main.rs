//! The fault matrix: whatever goes wrong on either side, and whenever, client, backend and metrics tell the same story.
//!
//! A scenario is a row of data (`row.rs`): what the backend does, what the client does and gets, what the backend saw, and
//! every series that moved; a series that moved and is not in the row fails it. `run.rs` plays each row three times: as it
//! is, with `SIGHUP` in its middle, and with `SIGTERM` there.
//!
//! | file | rows |
//! |---|---|
//! | `connecting.rs` | until the backend has the connection, and before it has one to give |
//! | `heads.rs` | the response head: none, half of one, none that is valid |
//! | `bodies.rs` | the response body: stalls, cuts, broken framing |
//! | `uploads.rs` | the request body, and answers before its end |
//! | `clients.rs` | clients that leave, are slow, or send what is no request |
//! | `streams.rs` | tunnels and event streams |
//! | `pooled.rs` | between two requests on a connection |
//! | `h2_clients.rs` | HTTP/2 from clients |
//! | `h2_backends.rs` | HTTP/2 to the backend, gRPC |
//! | `moving.rs` | the backend's name leads elsewhere, or nowhere |
//! | `handshakes.rs` | TLS on both sides, the PROXY protocol |
//! | `system.rs` | descriptors, logs |

#[path = "../common/mod.rs"]
mod common;

mod client;
mod looks;
mod row;
mod run;
mod server;
mod stage;
mod tls;

/// Each row becomes a test of its own, and all of them a table.
macro_rules! matrix {
    ($($(#[$attribute:meta])* $name:ident => $row:expr,)+) => {
        /// The rows of this file.
        pub const ROWS: $crate::Rows = &[$((stringify!($name), || $row),)+];

        $(
            $(#[$attribute])*
            #[test]
            fn $name() {
                $crate::run::run(stringify!($name), || $row);
            }
        )+
    };
}

mod bodies;
mod clients;
mod connecting;
mod h2_backends;
mod h2_clients;
mod handshakes;
mod heads;
mod moving;
mod pooled;
mod streams;
mod system;
mod uploads;

use row::{Act, Do, Phase, Row};

/// The rows of one file, by their names.
type Rows = &'static [(&'static str, fn() -> Row)];

const ALL: &[Rows] = &[
    connecting::ROWS,
    heads::ROWS,
    bodies::ROWS,
    uploads::ROWS,
    clients::ROWS,
    streams::ROWS,
    pooled::ROWS,
    h2_clients::ROWS,
    h2_backends::ROWS,
    moving::ROWS,
    handshakes::ROWS,
    system::ROWS,
];

#[test]
fn the_matrix_has_at_least_sixty_rows_and_every_phase() {
    let rows: Vec<_> = ALL.iter().copied().flatten().collect();
    assert!(rows.len() >= 60, "{} rows", rows.len());
    for phase in Phase::ALL {
        assert!(rows.iter().any(|(_, row)| row().phase == phase), "no row goes wrong in {phase:?}");
    }
}

#[test]
fn every_row_has_one_middle_and_counts_each_of_its_requests() {
    for (name, row) in ALL.iter().copied().flatten() {
        let Row { backend, client, expect, .. } = row();
        let middles = client.iter().filter(|act| matches!(act, Act::Middle)).count()
            + backend.iter().flatten().filter(|step| matches!(step, Do::Middle)).count();
        assert_eq!(middles, 1, "{name}");
        let counted = expect.moved.iter().filter(|series| matches!(series, row::Series::Request(..))).count();
        assert_eq!(counted, expect.requests, "{name}");
    }
}
