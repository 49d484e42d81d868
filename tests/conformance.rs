//! Suites after rules and programs that nobody here wrote, run against the real sidecar by `tests/conformance/run.py`.
//!
//! Each must end with exactly the score that stands in the README, and with exactly the failures that are named there:
//! a case that is left out, or one that fails or passes unnoticed, is a failure. `make conformance` writes the table.

use std::collections::BTreeSet;
use std::process::Command;

/// Runs a suite and compares its score and its failures with the README.
#[track_caller]
fn suite(name: &str) {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let done = Command::new(format!("{root}target/venv/bin/python"))
        .arg(format!("{root}tests/conformance/run.py"))
        .args(["--suites", name, "--sidecar", env!("CARGO_BIN_EXE_golden-sidecar")])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("the Python environment is there (`make test` installs it)");
    let said = String::from_utf8_lossy(&done.stdout);
    let complaint = String::from_utf8_lossy(&done.stderr);
    let score = said.lines().find_map(|line| line.strip_prefix(&format!("score sidecar {name} ")));
    let score = score.unwrap_or_else(|| panic!("the suite did not come to its end: {said}\n{complaint}"));
    let failed: BTreeSet<String> = said.lines().filter_map(|line| failure(name, line)).collect();

    let readme = std::fs::read_to_string(format!("{root}README.md")).expect("the README");
    let (_, table) = readme.split_once("<!-- conformance:begin -->").expect("the mark before the scores");
    let (table, _) = table.split_once("<!-- conformance:end -->").expect("the mark behind the scores");
    let row = table.lines().find(|line| line.starts_with(&format!("| `{name}`: "))).expect("a row of this suite");
    let named = table.lines().filter_map(|line| line.strip_prefix(&format!("- `{name}`: ")));
    let named: BTreeSet<String> = named.map(str::to_owned).collect();
    assert_eq!(failed, named, "the failures that the README names are others\n{said}");
    assert_eq!(Some(score), row.split('|').nth(3).map(str::trim), "the README has another score\n{said}");
}

/// `SECTION, NAME` of a line `FAILED sidecar SUITE | SECTION | NAME: REASON`, as the README has it.
fn failure(suite: &str, line: &str) -> Option<String> {
    let case = line.strip_prefix(&format!("FAILED sidecar {suite} | "))?;
    let (section, rest) = case.split_once(" | ")?;
    let name = rest.split_once(" -> ").map_or(rest, |(name, _)| name);
    Some(format!("{section}, {name}"))
}

#[test]
fn http2_frame_by_frame_is_as_the_rfcs_demand() {
    suite("http2");
}

#[test]
fn no_request_of_h2load_or_nghttp_fails() {
    suite("load");
}

#[test]
fn grpcio_sees_the_same_through_the_sidecar_as_without() {
    suite("grpc");
}

#[test]
fn websocket_cases_of_autobahn_pass_the_tunnel() {
    suite("websocket");
}

#[test]
fn what_curl_can_ask_for_arrives() {
    suite("curl");
}

#[test]
fn slowhttptest_is_cut_and_harms_nobody_else() {
    suite("slow");
}

#[test]
fn a_raw_backend_sees_one_request_or_none_of_each_that_smuggles() {
    suite("smuggling");
}

#[test]
fn what_listens_beside_plain_tcp_is_understood() {
    suite("tls");
}
