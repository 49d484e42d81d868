//! The program of `make soak`, for seconds instead of minutes and with the program under test as it is built for tests: so
//! that it cannot rot, and because most of what it finds shows in seconds.

#[path = "../examples/soak/chaos/mod.rs"]
mod chaos;

use std::path::PathBuf;
use std::time::Duration;

/// Two rounds; with the longest plans at the end of each some fifteen seconds in all.
const TIME: Duration = Duration::from_secs(8);
/// Far fewer than a busy machine does with an unoptimised build: a run that did nothing would balance too.
const FEWEST: u64 = 500;

#[test]
fn the_books_balance_after_seconds_of_chaos() {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_golden-sidecar"));
    let report = chaos::run(chaos::Options { program, time: TIME, seed: 0x50a6 });
    println!("{report}");
    assert!(report.misses.is_empty(), "{:#?}", report.misses);
    assert!(report.requests >= FEWEST, "{} requests", report.requests);
    let never: Vec<_> = report.kinds.iter().filter(|(_, count)| *count == 0).collect();
    assert!(never.is_empty(), "never happened: {never:?}");
}
