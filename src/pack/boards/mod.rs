//! The dashboards: one file per question.
//!
//! | file | the question |
//! |---|---|
//! | `overview.rs` | is it well, and if not, which signal and which route? the only one that alerts link to |
//! | `route.rs` | what is it with this one route? |
//! | `saturation.rs` | which resource is full, or will be? |
//! | `slo.rs` | is the promise kept, and how long will the error budget last? |
//! | `sidecar.rs` | is it the sidecar's fault? |
//!
//! Three habits of all queries. A share is of traffic that is there (`> 0`), so that without traffic there is no share rather
//! than one of 0/0. What may have no series yet counts as `0 * ` something that has them, so that absent data stays absent. And
//! a number "now" is asked for now: the last value of a line may be an hour old.

mod overview;
mod route;
mod saturation;
mod sidecar;
mod slo;

use std::time::Duration;

use super::dashboard::{Colour, Dashboard, Threshold, of_sidecars};
use super::objective::{BURN_WINDOWS, Objective, number};
use super::promql::{OWN_TO_CALLS, behind_the_status};
use super::thresholds::{FILLING, FULL};

/// Where links lead.
const OVERVIEW: &str = "golden-sidecar-overview";
const ROUTE: &str = "golden-sidecar-route";
const SATURATION: &str = "golden-sidecar-saturation";
const SLO: &str = "golden-sidecar-slo";
const SIDECAR: &str = "golden-sidecar-sidecar";

/// All dashboards, in the order of their list.
#[must_use]
pub fn all(objective: &Objective) -> Vec<Dashboard> {
    vec![
        overview::dashboard(objective),
        route::dashboard(objective),
        saturation::dashboard(),
        slo::dashboard(objective),
        sidecar::dashboard(),
    ]
}

/// Requests of users.
const USERS: &str = r#"traffic="user""#;

/// The rate of a counter's series. `more`: matchers besides those of the variables.
fn rate(counter: &str, more: &str) -> String {
    rate_then(counter, more, "")
}

/// As above, of another time: ` offset 1d`, or now.
fn rate_then(counter: &str, more: &str, offset: &str) -> String {
    ours(counter, format!("rate({}[$__rate_interval]{offset})", matched(counter, more)), offset)
}

/// The series of a family.
fn select(family: &str, more: &str) -> String {
    ours(family, matched(family, more), "")
}

fn matched(family: &str, more: &str) -> String {
    if more.is_empty() { format!("{family}{{@}}") } else { format!("{family}{{@,{more}}}") }
}

/// Of a family that others have too, what sidecars have.
fn ours(family: &str, expr: String, offset: &str) -> String {
    let own = family.starts_with("golden_") || family.contains(':');
    if own { expr } else { of_sidecars(&expr, offset) }
}

/// The sum, kept apart by these labels; none: of all.
fn sum(by: &str, of: &str) -> String {
    aggregate("sum", by, of)
}

/// The highest, likewise.
fn max(by: &str, of: &str) -> String {
    aggregate("max", by, of)
}

fn aggregate(how: &str, by: &str, of: &str) -> String {
    if by.is_empty() { format!("{how}({of})") } else { format!("{how} by ({by}) ({of})") }
}

/// What may have no series yet: 0 where `whole` has some.
fn or_zero(of: &str, whole: &str) -> String {
    format!("({of} or 0 * {whole})")
}

/// A part of a whole that is there.
fn share(part: &str, whole: &str) -> String {
    format!("{part} / ({whole} > 0)")
}

/// Requests of users per second.
fn requests(by: &str, more: &str) -> String {
    sum(by, &rate("golden_requests_total", &and(USERS, more)))
}

/// Requests of users per second that failed: answered with 5xx, whoever made it, cut after the head, or an error by a rule of
/// the configuration or as a gRPC call, whatever their status. 0 where there are requests and none failed.
fn failed(by: &str, more: &str, offset: &str) -> String {
    let all = sum(by, &rate_then("golden_requests_total", &and(USERS, more), offset));
    let told = |how: &str| rate_then("golden_requests_total", &and(&and(USERS, how), more), offset);
    let answered = sum(by, &format!("{} or {}", told(r#"http_response_status_code=~"5..""#), told(OWN_TO_CALLS)));
    // Cut responses and such errors are not told apart by method; their route is all that the matchers may say.
    let route = more.split(',').find(|matcher| matcher.starts_with("http_route")).unwrap_or_default();
    let cut = sum(by, &rate_then("golden_truncated_responses_total", route, offset));
    let hidden = sum(by, &rate_then("golden_errors_total", &and(&behind_the_status(), route), offset));
    format!("({} + {cut} + {})", or_zero(&answered, &all), or_zero(&hidden, &all))
}

/// Of requests that did not fail: how long they took, at this quantile.
fn latency(quantile: f64, by: &str, more: &str) -> String {
    latency_then(quantile, by, more, "")
}

/// As above, of another time. What an objective calls an error for being too slow is an answer none the less, and the very one
/// that a latency is about.
fn latency_then(quantile: f64, by: &str, more: &str, offset: &str) -> String {
    let answered = and(r#"error_type=~"|too_slow""#, more);
    percentile_then(quantile, by, "http_server_request_duration_seconds", &answered, offset)
}

/// A quantile of a histogram, whether the classic series of its buckets are stored or the native one. Where nothing was
/// observed there is none, rather than NaN.
fn percentile(quantile: f64, by: &str, histogram: &str, more: &str) -> String {
    percentile_then(quantile, by, histogram, more, "")
}

fn percentile_then(quantile: f64, by: &str, histogram: &str, more: &str, offset: &str) -> String {
    let edges = if by.is_empty() { "le".to_owned() } else { format!("le, {by}") };
    let classic = sum(&edges, &rate_then(&format!("{histogram}_bucket"), more, offset));
    let native = sum(by, &rate_then(histogram, more, offset));
    format!("(histogram_quantile({quantile}, {classic}) or histogram_quantile({quantile}, {native})) >= 0")
}

/// gRPC calls per second, whether the classic series or the native one is stored.
fn calls(by: &str, more: &str) -> String {
    const FAMILY: &str = "rpc_server_call_duration_seconds";
    let classic = sum(by, &rate(&format!("{FAMILY}_count"), more));
    format!("({classic} or histogram_count({}))", sum(by, &rate(FAMILY, more)))
}

/// Matchers together.
fn and(one: &str, other: &str) -> String {
    match (one.is_empty(), other.is_empty()) {
        (true, _) => other.to_owned(),
        (_, true) => one.to_owned(),
        _ => format!("{one},{other}"),
    }
}

/// A time as panels write times.
fn spoken(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 { format!("{} ms", number(1000.0 * seconds)) } else { format!("{} s", number(seconds)) }
}

/// Plain, then to be looked at, then to be acted upon.
fn rising(amber: f64, red: f64) -> Vec<Threshold> {
    vec![
        Threshold { from: None, colour: Colour::Neutral },
        Threshold { from: Some(amber), colour: Colour::Amber },
        Threshold { from: Some(red), colour: Colour::Red },
    ]
}

/// Plain, then to be looked at.
fn above(amber: f64) -> Vec<Threshold> {
    vec![Threshold { from: None, colour: Colour::Neutral }, Threshold { from: Some(amber), colour: Colour::Amber }]
}

/// Bad, then to be looked at, then plain.
fn falling(red_below: f64, amber_below: f64) -> Vec<Threshold> {
    vec![
        Threshold { from: None, colour: Colour::Red },
        Threshold { from: Some(red_below), colour: Colour::Amber },
        Threshold { from: Some(amber_below), colour: Colour::Neutral },
    ]
}

/// Of a share of a limit.
fn full() -> Vec<Threshold> {
    rising(FILLING, FULL)
}

/// Of a share of failed requests: as fast as the budget allows, and as fast as pages.
fn burning(objective: &Objective) -> Vec<Threshold> {
    rising(objective.budget(), objective.bad_ratio(BURN_WINDOWS[0].factor))
}

/// Of a latency at the 99th percentile.
fn slow(objective: &Objective) -> Vec<Threshold> {
    let promised = objective.latency().map(|latency| latency.as_secs_f64());
    promised.map(|seconds| rising(seconds, 2.0 * seconds)).unwrap_or_default()
}

/// The title of a p99, and what its colours mean.
fn promise(objective: &Objective) -> (String, String) {
    match objective.latency() {
        Some(latency) => (
            format!("p99 (promised {})", spoken(latency)),
            format!("Amber above {}, red above twice that.", spoken(latency)),
        ),
        None => ("p99".to_owned(), "No colours: the objective of this pack promises no latency.".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_on_the_axes() {
        let written = [300, 999, 1000, 2500].map(|ms| spoken(Duration::from_millis(ms)));
        assert_eq!(written, ["300 ms", "999 ms", "1 s", "2.5 s"]);
    }
}
