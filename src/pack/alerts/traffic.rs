//! Traffic: failing altogether, a backend that cannot be reached, clients that do something wrong, and more or less of
//! it than at other times. All of it is about requests of users; a service needs no objective for it.
//!
//! What is compared with other times is recorded: the counts of a service have many series, and are read at three
//! times.

use crate::pack::cases::{Case, Suite, Values};
use crate::pack::objective::{Severity, number};
use crate::pack::promql::{OWN_TO_CALLS, behind_the_status};
use crate::pack::rules::{Alert, Group, JOB, Record, Rule, WHERE};
use crate::pack::thresholds::{
    CLIENT_ERRORS, CLIENT_ERRORS_GROWTH, DROP_DAY, DROP_HOUR, RATE_LIMITED, SPIKE, SPIKE_SATURATION, UNREACHABLE,
};

/// Requests of users in ten minutes.
pub(super) const REQUESTS: &str = "job:golden_requests:increase10m";
/// Those of them that failed, and not by the client's fault.
pub(super) const FAILED: &str = "job:golden_requests_failed:increase10m";
/// Those of them that the client did wrong. Too many requests are another matter.
const CLIENT: &str = "job:golden_requests_client_errors:increase10m";
/// Those of them that were told to come less often.
const LIMITED: &str = "job:golden_requests_rate_limited:increase10m";

/// Half a minute of delay is little against ten minutes, and two scrapes at the usual interval of 15 s.
const INTERVAL: &str = "30s";

/// Requests of users, and which of them: matchers with a comma in front.
fn requests(matchers: &str) -> String {
    format!("golden_requests_total{{traffic=\"user\"{matchers}}}")
}

/// Those that their client did not end: all that came to be good or bad.
const ENDED: &str = r#",origin!="client""#;

fn increase(selector: &str, window: &str) -> String {
    format!("sum by ({JOB}) (increase({selector}[{window}]))")
}

fn record(name: impl Into<String>, expr: String) -> Rule {
    Rule::Record(Record { name: name.into(), expr })
}

/// Answers 5xx, whoever made them, answers that were cut without the client having left, answers 2xx that a rule says are
/// errors, and gRPC calls that failed, which have an HTTP status of 200. None need be there for the others to count: no two
/// have the same labels, so `or` takes all of them.
///
/// Cut answers and what a status does not tell do not say whose they are, so those of probes are among them.
fn failed(window: &str) -> Rule {
    let kinds = [
        requests(r#",origin!="client",http_response_status_code=~"5..""#),
        requests(&format!(",{OWN_TO_CALLS}")),
        "golden_truncated_responses_total".to_owned(),
        format!("golden_errors_total{{{}}}", behind_the_status()),
    ];
    let kinds = kinds.map(|kind| format!("increase({kind}[{window}])")).join("\n  or\n  ");
    record(format!("job:golden_requests_failed:increase{window}"), format!("sum by ({JOB}) (\n  {kinds}\n)"))
}

fn ended(window: &str) -> Rule {
    record(format!("job:golden_requests_ended:increase{window}"), increase(&requests(ENDED), window))
}

pub(super) fn groups() -> Vec<Group> {
    let mut rules = vec![
        // A sidecar has no such series before its first request: new ones that get none are to read as 0.
        record(REQUESTS, format!("{}\nor\n0 * count by ({JOB}) (golden_build_info)", increase(&requests(""), "10m"))),
        record(
            CLIENT,
            increase(&requests(r#",http_response_status_code=~"4..",http_response_status_code!="429""#), "10m"),
        ),
        record(LIMITED, increase(&requests(r#",http_response_status_code="429""#), "10m")),
    ];
    rules.extend(ALL_FAILING.iter().flat_map(|(window, _)| [ended(window), failed(window)]));
    let alerts = [all_failing(), unreachable(), client_errors(), rate_limited(), traffic_drop(), traffic_spike()];
    rules.extend(alerts.map(Rule::Alert));
    vec![Group { name: "golden-sidecar-traffic", interval: INTERVAL, rules }]
}

/// Windows in which nothing succeeds, and how many failures of it are enough. Few requests need the long one; where
/// there are many, two minutes tell as much.
const ALL_FAILING: [(&str, u32); 2] = [("10m", 5), ("2m", 20)];

/// A series that has just begun has no increase yet, so a good answer is also one of a series that was not there
/// before.
fn all_failing() -> Alert {
    // What the sidecar itself answers is never good news.
    let good = requests(r#",origin="backend",http_response_status_code!~"5..""#);
    let windows = ALL_FAILING.map(|(window, least)| {
        let (failed, ended) = (
            format!("job:golden_requests_failed:increase{window}"),
            format!("job:golden_requests_ended:increase{window}"),
        );
        format!(
            "(\n  {failed} >= {least}\n  unless on ({JOB})\n  {ended} - {failed} >= 1\n  unless on ({JOB})\n  \
             ({good} > 0 unless {good} offset {window})\n)"
        )
    });
    Alert {
        name: "GoldenAllRequestsFailing",
        expr: windows.join(&format!("\nor on ({JOB})\n")),
        hold: "1m",
        keep: "",
        severity: Severity::Critical,
        labels: Vec::new(),
        summary: "All requests fail.".to_owned(),
        description: format!(
            "None of the users' requests of {WHERE} succeeded lately: {{{{ $value | humanize }}}} failed within \
             minutes, and no other came to an end."
        ),
    }
}

/// Of attempts to reach the backend there are too few where connections are kept, so the share is that of the requests.
/// Probes are not among them: they fail while an instance starts. The cause, though, is only told of all requests.
fn unreachable() -> Alert {
    const WINDOW: &str = "2m";
    /// What a failure to connect is answered with; other failures are too.
    const ANSWERS: &str = r#",origin="proxy",http_response_status_code=~"502|504""#;
    const CONNECT: &str =
        r#"golden_errors_total{error_type=~"connect_refused|connect_timeout|connect_reset|dns_failure|tls_failure"}"#;
    let answers = increase(&requests(ANSWERS), WINDOW);
    let share = number(UNREACHABLE);
    Alert {
        name: "GoldenBackendUnreachable",
        expr: format!(
            "{answers} / ({all} > 0) > {share}\nand on ({JOB})\n{answers} >= 5\nand on ({JOB})\n\
             {connect} > {share} * {errors}",
            all = increase(&requests(""), WINDOW),
            connect = increase(CONNECT, WINDOW),
            errors = increase(r#"golden_errors_total{fault!="client"}"#, WINDOW),
        ),
        hold: "1m",
        // So long the fastest burn alert still sees what is over: nobody is to be woken by it after the cure.
        keep: "5m",
        severity: Severity::Critical,
        labels: Vec::new(),
        summary: "The backend cannot be reached.".to_owned(),
        description: format!(
            "{{{{ $value | humanizePercentage }}}} of the users' requests of {WHERE} got a 502 or 504 from the \
             sidecar in the last {WINDOW}, most of them because no connection to the backend came about."
        ),
    }
}

/// Yesterday at about this time: an hour before and after, so that neither the end of summer time nor a late start
/// matters.
fn yesterday(function: &str, name: &str) -> String {
    format!("{function}({name}[2h] offset 23h)")
}

fn client_errors() -> Alert {
    let normal = format!("{} / ({} > 0)", yesterday("sum_over_time", CLIENT), yesterday("sum_over_time", REQUESTS));
    let now = format!("{CLIENT} / ({REQUESTS} >= 50)");
    Alert {
        name: "GoldenClientErrorsHigh",
        expr: format!(
            "{now} > {}\nand on ({JOB})\n{now} > {} * ({normal})",
            number(CLIENT_ERRORS),
            number(CLIENT_ERRORS_GROWTH)
        ),
        hold: "15m",
        keep: "",
        severity: Severity::Warning,
        labels: Vec::new(),
        summary: "Many more requests than usual are answered with a client error.".to_owned(),
        description: format!(
            "{{{{ $value | humanizePercentage }}}} of the users' requests of {WHERE} were answered 4xx (429 \
             aside) in the last 10m, more than {} times the share of yesterday at about this time.",
            number(CLIENT_ERRORS_GROWTH)
        ),
    }
}

fn rate_limited() -> Alert {
    Alert {
        name: "GoldenRateLimitedHigh",
        expr: format!("{LIMITED} / ({REQUESTS} >= 50) > {}", number(RATE_LIMITED)),
        hold: "15m",
        keep: "",
        severity: Severity::Warning,
        labels: Vec::new(),
        summary: "Many requests are turned away by a rate limit.".to_owned(),
        description: format!(
            "{{{{ $value | humanizePercentage }}}} of the users' requests of {WHERE} were answered 429 in the last 10m."
        ),
    }
}

/// Requests in ten minutes below which their number says nothing: 1 a second.
const BASELINE: &str = "600";

fn traffic_drop() -> Alert {
    Alert {
        name: "GoldenTrafficDrop",
        // Without a yesterday there is nothing to excuse the drop.
        expr: format!(
            "{REQUESTS} < {} * ({REQUESTS} offset 1h > {BASELINE})\nunless on ({JOB})\n{REQUESTS} >= {} * {}",
            number(DROP_HOUR),
            number(DROP_DAY),
            yesterday("min_over_time", REQUESTS)
        ),
        hold: "10m",
        keep: "",
        severity: Severity::Warning,
        labels: Vec::new(),
        summary: "Far fewer requests come than an hour ago, and it is not the hour of the day.".to_owned(),
        description: format!(
            "Only {{{{ $value | humanize }}}} requests of users came to {WHERE} in the last 10m: less than {} % of an \
             hour ago, and nothing of yesterday at about this time explains it. This alert ends by itself within an \
             hour or so: it does not mean that they are back.",
            number(100.0 * DROP_HOUR)
        ),
    }
}

/// The host's resources are used by others too, and its memory by caches: they say nothing of these requests.
fn traffic_spike() -> Alert {
    Alert {
        name: "GoldenTrafficSpike",
        expr: format!(
            "{REQUESTS} > {} * {}\nand on ({JOB})\n{REQUESTS} > {BASELINE}\nand on ({JOB})\nmax by ({JOB}) \
             (avg_over_time(golden_saturation_ratio{{resource!~\"host_.+\"}}[10m])) > {}",
            number(SPIKE),
            yesterday("max_over_time", REQUESTS),
            number(SPIKE_SATURATION)
        ),
        hold: "10m",
        keep: "",
        severity: Severity::Info,
        labels: Vec::new(),
        summary: "Many more requests come than yesterday at this time, and a resource is filling up.".to_owned(),
        description: format!(
            "{{{{ $value | humanize }}}} requests of users came to {WHERE} in the last 10m, more than {} times \
             yesterday's most at about this time, while a resource is used to more than {} %.",
            number(SPIKE),
            number(100.0 * SPIKE_SATURATION)
        ),
    }
}

// === cases ===

const CRITICAL: &[(&str, &str)] = &[("job", "shop"), ("severity", "critical")];
const WARNING: &[(&str, &str)] = &[("job", "shop"), ("severity", "warning")];
const INFO: &[(&str, &str)] = &[("job", "shop"), ("severity", "info")];

/// A series of requests with this status. `target`: the labels of who is scraped.
pub(super) fn series_of(target: &str, route: &str, code: &str, origin: &str, traffic: &str) -> String {
    format!(
        "golden_requests_total{{{target},http_route={route:?},http_request_method=\"GET\",\
         http_response_status_code={code:?},origin={origin:?},traffic={traffic:?}}}"
    )
}

/// With requests that were answered so.
fn answered(case: Case, code: &str, origin: &str, values: Values) -> Case {
    answered_of("shop", case, code, origin, values)
}

/// As above, by this job: what stays quiet in one case costs one run.
fn answered_of(job: &str, case: Case, code: &str, origin: &str, values: Values) -> Case {
    case.series(series_of(&format!("job={job:?}"), "/a", code, origin, "user"), values)
}

/// With probes that were answered so.
fn probed(case: Case, code: &str, origin: &str, values: Values) -> Case {
    case.series(series_of("job=\"shop\"", "/h", code, origin, "probe"), values)
}

fn even(per_sample: f64, samples: usize) -> Values {
    Values::from(0.0).grow(per_sample, samples)
}

pub(super) fn suites() -> Vec<Suite> {
    let days = [client_errors_cases(), rhythm_cases(), spike_cases()].concat();
    vec![
        Suite { name: "traffic", evaluate: "30s", cases: [all_failing_cases(), unreachable_cases()].concat() },
        Suite { name: "traffic-hours", evaluate: "1m", cases: [rate_limited_cases(), drop_cases()].concat() },
        Suite { name: "traffic-days", evaluate: "10m", cases: days },
    ]
}

/// A sample every 15 s.
fn all_failing_cases() -> Vec<Case> {
    let name = "GoldenAllRequestsFailing";
    let case = |story| {
        Case::new(name, story, "15s")
            .series(r#"golden_truncated_responses_total{job="shop",http_route="/a"}"#, Values::from(0.0).stay(160))
    };
    let answer = |story, good, bad| answered(answered(case(story), "200", "backend", good), "500", "backend", bad);
    // One in 100 s.
    let slowly = |count| (1..=count).fold(Values::from(0.0), |values, n| values.stay(6).hold(f64::from(n), 1));
    vec![
        answer(
            "ten requests a second, and from one moment on all fail",
            even(150.0, 80).stay(80),
            Values::from(0.0).stay(80).grow(150.0, 80),
        )
        .never_until("20m")
        .fires_at("24m", CRITICAL),
        answer("six failures in ten minutes and nothing else", Values::from(0.0).stay(160), slowly(6).stay(118))
            .fires_at("12m", CRITICAL),
        answer("four failures in ten minutes and nothing else", Values::from(0.0).stay(160), slowly(4).stay(132))
            .never_until("40m"),
        answer(
            "it ends with the first request that succeeds",
            Values::from(0.0).stay(90).hold(1.0, 70),
            even(1.0, 160),
        )
        .fires_at("22m", CRITICAL)
        .quiet_at("24m"),
        answered(
            answer("a good answer of a series that begins counts", Values::from(0.0).stay(160), even(1.0, 160)),
            "201",
            "backend",
            Values::after(60, 1.0).stay(100),
        )
        .quiet_at("16m"),
        answer(
            "ten failures in two minutes are few where more succeeded in ten",
            even(10.0, 40).stay(120),
            Values::from(0.0).stay(40).grow(1.25, 8).stay(112),
        )
        .never_until("15m"),
        answer("one of ten succeeds", even(1.0, 160), even(9.0, 160)).never_until("40m"),
        answered(
            answered(case("clients that leave are no success"), "200", "client", even(10.0, 160)),
            "500",
            "backend",
            even(10.0, 160),
        )
        .fires_at("10m", CRITICAL),
        answered(case("nor do clients that leave make a failure"), "", "client", even(10.0, 160)).never_until("40m"),
        answered(
            Case::new(name, "every answer is cut in its body", "15s")
                .series(r#"golden_truncated_responses_total{job="shop",http_route="/a"}"#, even(10.0, 160)),
            "200",
            "backend",
            even(10.0, 160),
        )
        .fires_at("20m", CRITICAL),
        // Rules say that they are errors; the service says 200.
        answered(
            Case::new(name, "every answer is 200, and from one moment on an implicit error", "15s").series(
                r#"golden_errors_total{job="shop",http_route="/a",error_type="implicit",fault="policy",phase="body"}"#,
                Values::from(0.0).stay(80).grow(10.0, 80),
            ),
            "200",
            "backend",
            even(10.0, 160),
        )
        .never_until("20m")
        .fires_at("24m", CRITICAL)
        .fires_at("40m", CRITICAL),
        // So does a gRPC service that is down, or a sidecar before it.
        answered(
            Case::new(name, "every gRPC call is answered with 200 and fails, from one moment on", "15s").series(
                r#"golden_errors_total{job="shop",http_route="/a",error_type="UNAVAILABLE",fault="backend",phase="body"}"#,
                Values::from(0.0).stay(80).grow(10.0, 80),
            ),
            "200",
            "backend",
            even(10.0, 160),
        )
        .never_until("20m")
        .fires_at("24m", CRITICAL)
        .fires_at("40m", CRITICAL),
        answered(case("a sidecar tells gRPC clients that the backend is gone"), "200", "proxy", even(10.0, 160))
            .fires_at("10m", CRITICAL),
        answered(case("4xx are answers"), "404", "backend", even(10.0, 160)).never_until("40m"),
        probed(
            answered(case("probes that fail are not users"), "200", "backend", Values::from(0.0).stay(160)),
            "503",
            "backend",
            even(15.0, 160),
        )
        .never_until("40m"),
    ]
}

/// A sample every 15 s, ten requests a second.
fn unreachable_cases() -> Vec<Case> {
    let name = "GoldenBackendUnreachable";
    let error = |error_type: &str| {
        format!(
            "golden_errors_total{{job=\"shop\",http_route=\"/a\",error_type={error_type:?},\
             fault=\"backend\",phase=\"connect\"}}"
        )
    };
    let with = |story, good, bad: Values, error_type: &str| {
        answered(answered(Case::new(name, story, "15s"), "200", "backend", good), "502", "proxy", bad.clone())
            .series(error(error_type), bad)
    };
    vec![
        with(
            "the backend is gone for ten minutes",
            even(150.0, 40).stay(40).grow(150.0, 40),
            // The series begin with their first request.
            Values::after(41, 150.0).grow(150.0, 39).stay(40),
            "connect_refused",
        )
        .quiet_at("11m")
        .fires_at("13m30s", CRITICAL)
        .fires_at("19m", CRITICAL)
        .quiet_at("28m"),
        with(
            "a restart of a minute",
            even(150.0, 40).stay(4).grow(150.0, 76),
            Values::from(0.0).stay(40).grow(150.0, 4).stay(76),
            "connect_refused",
        )
        .never_until("30m"),
        with("a third of the requests find no backend", even(100.0, 120), even(50.0, 120), "connect_timeout")
            .never_until("30m"),
        with("it answers, and nonsense", even(0.0, 120), even(150.0, 120), "protocol_error").never_until("30m"),
        with(
            "four requests, and none finds a backend",
            Values::from(0.0).stay(120),
            Values::from(0.0).stay(40).grow(1.0, 4).stay(76),
            "dns_failure",
        )
        .never_until("30m"),
        probed(
            answered(
                Case::new(name, "an instance that starts fails its probes", "15s"),
                "200",
                "backend",
                even(1.0, 120),
            ),
            "502",
            "proxy",
            even(15.0, 120),
        )
        .series(error("connect_refused"), even(15.0, 120))
        .never_until("30m"),
    ]
}

/// A sample a minute, ten requests a second.
fn rate_limited_cases() -> Vec<Case> {
    let name = "GoldenRateLimitedHigh";
    let with = |job, case, good, limited| {
        answered_of(job, answered_of(job, case, "200", "backend", good), "429", "backend", limited)
    };
    let few = Case::new(name, "4 % are, or all of 40 in ten minutes", "1m");
    vec![
        with(
            "shop",
            Case::new(name, "8 % are told to come less often, for an hour", "1m"),
            even(552.0, 120),
            Values::from(0.0).stay(30).grow(48.0, 60).stay(30),
        )
        .quiet_at("40m")
        .fires_at("60m", WARNING)
        .fires_at("88m", WARNING)
        .quiet_at("105m"),
        with("few", with("share", few, even(576.0, 120), even(24.0, 120)), even(0.0, 120), even(4.0, 120))
            .never_until("2h"),
    ]
}

/// A sample a minute.
fn drop_cases() -> Vec<Case> {
    let name = "GoldenTrafficDrop";
    let case = |story, values| answered(Case::new(name, story, "1m"), "200", "backend", values);
    let quiet = Case::new(name, "a quarter left, little traffic, a fresh service, restarts and replacements", "1m");
    let quiet = [
        ("quarter", even(600.0, 90).grow(150.0, 90)),
        ("little", even(30.0, 90).stay(90)),
        ("fresh", Values::after(90, 0.0).grow(600.0, 90)),
        ("restarted", even(600.0, 90).hold(0.0, 2).grow(600.0, 90)),
        // Nobody is there for two minutes, then another instance.
        ("replaced", even(600.0, 90).end()),
    ]
    .into_iter()
    .fold(quiet, |quiet, (job, values)| answered_of(job, quiet, "200", "backend", values));
    vec![
        case("ten requests a second stop at minute 90 and come back", even(600.0, 90).stay(30).grow(600.0, 60))
            .never_until("100m")
            .fires_at("115m", WARNING)
            .quiet_at("125m"),
        case("a tenth is left", even(600.0, 90).grow(60.0, 90)).fires_at("115m", WARNING),
        // Before its first request a sidecar has no series of requests, only those about itself.
        case("all instances are replaced, and nobody asks the new ones", even(600.0, 90).end())
            .series("golden_build_info{job=\"shop\",instance=\"new\"}", "_x91 1x89")
            .fires_at("115m", WARNING),
        answered_of("replaced", quiet, "204", "backend", Values::after(93, 0.0).grow(600.0, 87)).never_until("3h"),
    ]
}

/// A sample a minute, from midnight.
fn rhythm_cases() -> Vec<Case> {
    let name = "GoldenTrafficDrop";
    let case = |story, values| answered(Case::new(name, story, "1m"), "200", "backend", values);
    // From nine to six, at the hour; next to nothing at night.
    let work = |values: Values| values.grow(0.6, 9 * 60).grow(600.0, 9 * 60).grow(0.6, 6 * 60);
    let rest = |values: Values| values.grow(0.6, 24 * 60);
    let from = || Values::from(0.0);
    vec![
        // The first evening is not known yet; that it is told is the price of telling anything on the first day.
        case("an office closes every evening", work(work(from())))
            .fires_at("18h30m", WARNING)
            .quiet_at("20h")
            .quiet_at("42h10m")
            .quiet_at("42h20m")
            .quiet_at("42h30m")
            .quiet_at("43h"),
        case(
            "it closes half an hour earlier than yesterday",
            work(from()).grow(0.6, 9 * 60).grow(600.0, 510).grow(0.6, 390),
        )
        .quiet_at("41h50m")
        .quiet_at("42h")
        .quiet_at("42h30m"),
        case("a weekend comes", rest(work(from()))).quiet_at("33h20m").quiet_at("36h").quiet_at("42h30m"),
        case(
            "at noon of the second day it stops, which is not usual",
            work(from()).grow(0.6, 540).grow(600.0, 180).stay(240),
        )
        .quiet_at("36h")
        .fires_at("36h30m", WARNING),
    ]
}

/// A sample a minute: a day with a share of 4xx, two hours with another, two more with a third.
fn client_errors_cases() -> Vec<Case> {
    const DAY: usize = 24 * 60;
    let name = "GoldenClientErrorsHigh";
    let with = |job: &str, case, code: &str, rate: f64, shares: [f64; 3]| {
        let values = |of: &dyn Fn(f64) -> f64| {
            let [first, second, third] = shares.map(|share| rate * of(share));
            even(first, DAY).grow(second, 120).grow(third, 120)
        };
        let case = answered_of(job, case, "200", "backend", values(&|share| 1.0 - share));
        answered_of(job, case, code, "backend", values(&|share| share))
    };
    let quiet = Case::new(name, "a high share every day, twice yesterday's, below a tenth, too few, or 429", "1m");
    let quiet = with("always", quiet, "401", 600.0, [0.5, 0.5, 0.5]);
    let quiet = with("twice", quiet, "404", 600.0, [0.08, 0.2, 0.2]);
    let quiet = with("below", quiet, "404", 600.0, [0.001, 0.08, 0.08]);
    let quiet = with("few", quiet, "404", 4.0, [0.02, 0.5, 0.5]);
    let quiet = with("limited", quiet, "429", 600.0, [0.0, 0.5, 0.5]);
    let once = Case::new(name, "2 % yesterday, 30 % today, then 2 % again", "1m");
    vec![
        with("shop", once, "404", 600.0, [0.02, 0.3, 0.02])
            .quiet_at("24h10m")
            .fires_at("25h", WARNING)
            .fires_at("26h", WARNING)
            .quiet_at("27h"),
        quiet.never_until("26h"),
    ]
}

/// A sample a minute: a day, two hours with more, two more as before.
fn spike_cases() -> Vec<Case> {
    const DAY: usize = 24 * 60;
    let name = "GoldenTrafficSpike";
    let with = |job: &str, case, before: f64, now: f64, used: f64| {
        answered_of(job, case, "200", "backend", even(before, DAY).grow(now, 120).grow(before, 120))
            .series(
                format!("golden_saturation_ratio{{job={job:?},resource=\"cpu\"}}"),
                Values::from(0.3).stay(DAY).hold(used, 240),
            )
            .series(
                format!("golden_saturation_ratio{{job={job:?},resource=\"fds\"}}"),
                Values::from(0.1).stay(DAY + 240),
            )
            .series(
                format!("golden_saturation_ratio{{job={job:?},resource=\"host_memory\"}}"),
                Values::from(0.89).stay(DAY + 240),
            )
    };
    let quiet =
        Case::new(name, "room is left but for the host's memory, it is only twice as much, or next to nothing", "1m");
    let quiet = with("room", quiet, 600.0, 2400.0, 0.6);
    let quiet = with("twice", quiet, 600.0, 1200.0, 0.85);
    let quiet = with("nothing", quiet, 1.0, 30.0, 0.85);
    vec![
        with("shop", Case::new(name, "four times as much, and the CPU at 85 %", "1m"), 600.0, 2400.0, 0.85)
            .quiet_at("24h10m")
            .fires_at("25h", INFO)
            .fires_at("26h", INFO)
            .quiet_at("27h"),
        quiet.never_until("26h"),
    ]
}
