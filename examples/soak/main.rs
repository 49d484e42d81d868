//! Chaos for minutes, and books that must balance to the last request: `make soak`.
//!
//! The sidecar runs as a process between a backend that fails in every way and clients that leave in every way, while its
//! configuration is reloaded and its metrics are scraped. What happened is known from the other side: each request carries
//! its plan, and each client notes what it saw. `chaos/mod.rs` says what is checked.
//!
//! `SOAK_SECONDS` (default 600), `SOAK_SEED` (printed, to repeat a run) and `SOAK_PROGRAM` (default: the `golden-sidecar`
//! that was built beside this program) change the run.

#[path = "chaos/mod.rs"]
mod chaos;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Ten minutes: what the project promises to have run before a release.
const SECONDS: u64 = 600;

fn main() -> ExitCode {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|error| panic!("{name}: {error}")))
    };
    let beside =
        || -> Option<PathBuf> { Some(std::env::current_exe().ok()?.parent()?.parent()?.join("golden-sidecar")) };
    let program = std::env::var_os("SOAK_PROGRAM").map(PathBuf::from).or_else(beside).expect("the path of the program");
    let seconds = number("SOAK_SECONDS", SECONDS);
    // A new run is another sequence; its seed is printed.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = number("SOAK_SEED", now.as_secs());
    let options = chaos::Options { program, time: Duration::from_secs(seconds), seed };
    let report = chaos::run(options);
    println!("{report}");
    if report.misses.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
