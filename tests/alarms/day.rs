//! A day and a half in which all is well, in the real servers: the series of the pack's own healthy day, and of every other
//! family that an alert reads.

use std::collections::BTreeSet;
use std::f64::consts::TAU;
use std::time::Duration;

use golden_sidecar::pack::alerts;
use golden_sidecar::pack::cases::EVERY;

use super::common::files::rules;
use super::common::prometheus::{Backfill, VERSIONS, Version};
use super::common::promql::{metric_names, parse, selectors};
use super::{MINUTE, WATCHDOG, over_history};

/// What a family is like in good times, of one instance.
#[derive(Clone, Copy)]
enum Shape {
    /// Always this.
    Level(f64),
    /// Between these two with the hours of the day.
    Breathes(f64, f64),
    /// A counter that rises so much a minute.
    Rises(f64),
    /// One that rises with the requests: so much for each.
    WithRequests(f64),
    /// When this process began, in seconds since 1970.
    Started,
}
use Shape::{Breathes, Level, Rises, Started, WithRequests};

/// What the pack's day leaves out: names with labels, and their shapes.
const MORE: &[(&str, Shape)] = &[
    ("golden_build_info{version=\"1\"}", Level(1.0)),
    ("golden_config_last_reload_successful", Level(1.0)),
    ("golden_config_last_reload_success_timestamp_seconds", Started),
    ("process_start_time_seconds", Started),
    ("process_open_fds", Breathes(20.0, 300.0)),
    ("process_max_fds", Level(1024.0)),
    ("scrape_duration_seconds", Breathes(0.005, 0.03)),
    ("scrape_samples_scraped", Level(900.0)),
    // A quota that is hit now and then at noon, kernels that kill nobody, a socket that drops nothing.
    ("golden_backend_cpu_periods_total", Rises(600.0)),
    ("golden_backend_cpu_throttled_periods_total", WithRequests(0.1)),
    ("golden_backend_pressure_waiting_seconds_total{resource=\"cpu\",scope=\"backend\"}", WithRequests(0.01)),
    ("golden_backend_memory_events_total{event=\"oom_kill\"}", Rises(0.0)),
    ("golden_backend_restarts_total{reason=\"oom\"}", Rises(0.0)),
    ("golden_backend_restarts_total{reason=\"exit\"}", Rises(0.0)),
    ("golden_netns_listen_drops_total", Rises(0.0)),
    ("golden_saturation_peak_ratio{resource=\"accept_queue\"}", Breathes(0.0, 0.3)),
    // Pools in which somebody waits for a moment each day.
    ("golden_pool_connections{pool=\"db\",source=\"reported\",state=\"active\"}", Breathes(1.0, 6.0)),
    ("golden_pool_connections{pool=\"db\",source=\"reported\",state=\"waiting\"}", Level(0.0)),
    ("golden_pool_timeouts_total{pool=\"db\"}", Rises(0.001)),
    ("golden_upstream_pool_waiting", Level(0.0)),
    ("golden_upstream_pool_timeouts_total", Rises(0.001)),
    ("golden_server_connections_rejected_total", Rises(0.0)),
    // Until the year 2100.
    ("golden_tls_certificate_expiry_timestamp_seconds{use=\"listener\"}", Level(4_102_444_800.0)),
    ("golden_metric_overflow_total{family=\"http_route\"}", Rises(0.0)),
    ("golden_sampler_ticks_total", Rises(240.0)),
    ("golden_sampler_missed_ticks_total", Rises(2.0)),
    ("golden_sampler_source_available{source=\"cgroup\"}", Level(1.0)),
    // One that was never there.
    ("golden_sampler_source_available{source=\"pressure\"}", Level(0.0)),
    // Requests of 50 ms, of which the sidecar takes half of one, and that wait for a connection as good as never.
    ("http_server_request_duration_seconds_bucket{http_route=\"/a\",le=\"0.05\"}", WithRequests(0.6)),
    ("http_server_request_duration_seconds_bucket{http_route=\"/a\",le=\"0.5\"}", WithRequests(0.999)),
    ("http_server_request_duration_seconds_bucket{http_route=\"/a\",le=\"+Inf\"}", WithRequests(1.0)),
    ("golden_proxy_overhead_seconds_bucket{direction=\"request\",le=\"0.0005\"}", WithRequests(0.99)),
    ("golden_proxy_overhead_seconds_bucket{direction=\"request\",le=\"0.005\"}", WithRequests(0.999)),
    ("golden_proxy_overhead_seconds_bucket{direction=\"request\",le=\"+Inf\"}", WithRequests(1.0)),
    ("golden_upstream_phase_seconds_bucket{phase=\"queue\",le=\"0.001\"}", WithRequests(0.995)),
    ("golden_upstream_phase_seconds_bucket{phase=\"queue\",le=\"0.1\"}", WithRequests(1.0)),
    ("golden_upstream_phase_seconds_bucket{phase=\"queue\",le=\"+Inf\"}", WithRequests(1.0)),
];

/// Native histograms cannot be back-filled; their classic form is read by the same alerts.
const NATIVE: [&str; 3] =
    ["golden_proxy_overhead_seconds", "golden_upstream_phase_seconds", "http_server_request_duration_seconds"];

/// As often as the day's cases are evaluated.
const STEP: Duration = Duration::from_secs(120);

#[test]
fn on_healthy_days_with_rhythm_and_deploys_only_the_watchdog_fires() {
    let history = &days_with_everything();
    std::thread::scope(|scope| {
        for version in VERSIONS {
            scope.spawn(move || all_is_quiet(version, history));
        }
    });
}

fn all_is_quiet(version: Version, history: &Backfill) {
    let (start, end) = (history.start(), history.end);
    let prometheus = over_history(version, history, (start, STEP), &[]);
    let fired = prometheus.all_that_would_fire(start, end, STEP);
    let (watchdog, others): (Vec<_>, Vec<_>) =
        fired.into_iter().partition(|firing| firing.labels["alertname"] == WATCHDOG);
    assert!(others.is_empty(), "{version:?}: {others:#?}");
    let all_along: Vec<_> = watchdog.iter().map(|firing| (firing.from - start, firing.to - end)).collect();
    assert!(matches!(all_along[..], [(from, to)] if from.abs() < 0.001 && to.abs() < 0.001), "{watchdog:?}");

    // That all is quiet says little of what is not there to read.
    let mut read = BTreeSet::new();
    for rule in rules().groups.into_iter().flat_map(|group| group.rules) {
        let expr = parse(&rule.expr).unwrap_or_else(|error| panic!("{}: {error}", rule.expr));
        let names = selectors(&expr).into_iter().flat_map(metric_names);
        // What is recorded for panels alone is not recorded here.
        read.extend(names.filter(|name| !rule.alert.is_empty() || !name.contains(':')));
    }
    let there = |name: &String| prometheus.number(&format!("count(count_over_time({name}[1d]))"), end).is_some();
    let missing: Vec<_> = read.iter().filter(|name| !NATIVE.contains(&&***name) && !there(name)).collect();
    assert!(read.len() > 30 && missing.is_empty(), "{version:?}: alerts read what the days do not have: {missing:?}");
    // A day before the end there was half a day already: the windows of a day are full.
    assert!(prometheus.number("count(golden_slo_requests_total offset 1d)", end).is_some(), "{version:?}");
}

/// The series of the pack's healthy day, and [`MORE`] of each of its instances.
fn days_with_everything() -> Backfill {
    let suites = alerts::suites();
    let day = suites.iter().find(|suite| suite.name == "day").expect("the healthy day");
    let [case] = &day.cases[..] else { panic!("one day") };
    assert_eq!(case.alert, EVERY);
    assert_eq!(case.interval, "1m", "a sample of the history is one of the case");
    let series: Vec<(&str, Vec<Option<f64>>)> =
        case.series.iter().map(|(series, values)| (&**series, samples(values))).collect();
    let minutes = series.iter().map(|(_, samples)| samples.len()).max().expect("series") - 1;
    assert!(minutes >= 36 * 60, "{minutes} min: windows of a day are not full for half a day");
    let mut history = Backfill::until_now(MINUTE * u32::try_from(minutes).expect("days"), MINUTE);
    let start = history.start();
    for (series, samples) in &series {
        history = add(history, series, samples);
    }
    // A neighbour in the job that is no sidecar: what is recorded of such targets is there to be read.
    history = history.gauge("up", &[("namespace", "prod"), ("job", "shop"), ("instance", "exporter")], |_| 1.0);
    for (up, _) in series.iter().filter(|(series, _)| series.starts_with("up{")) {
        let target = up.trim_start_matches("up{").trim_end_matches('}');
        let answered = |series: &str| {
            series.starts_with("golden_requests_total{")
                && series.contains(target)
                && series.contains("\"200\"")
                && series.contains("traffic=\"user\"")
        };
        let (_, requests) = series.iter().find(|(series, _)| answered(series)).expect("requests of each instance");
        for (more, shape) in MORE {
            let (name, labels) = more.split_once('{').unwrap_or((more, "}"));
            let comma = if labels == "}" { "" } else { "," };
            let more = format!("{name}{{{target}{comma}{labels}");
            // The pack's day has it already; of a histogram all edges or none.
            let own = format!("{name}{{{target}");
            let known = |series: &str| series == more || (name.ends_with("_bucket") && series.starts_with(&own));
            if !series.iter().any(|(series, _)| known(series)) {
                history = add(history, &more, &shape.samples(requests, start));
            }
        }
    }
    history
}

/// A series that is written as Prometheus writes it. Its end is not marked, as a server would mark it when a target is gone: it
/// stays visible for five minutes more.
fn add(history: Backfill, series: &str, samples: &[Option<f64>]) -> Backfill {
    let mut samples = samples.iter();
    history.series(series, &[], |_| samples.next().copied().flatten())
}

/// The samples that promtool's notation stands for, without the end of the series.
fn samples(notation: &str) -> Vec<Option<f64>> {
    let mut samples = Vec::new();
    for part in notation.split_whitespace().filter(|part| *part != "stale") {
        let (first, times) = part.split_once('x').unwrap_or((part, ""));
        let times = if times.is_empty() { 0 } else { times.parse().expect("a number of samples") };
        if first == "_" {
            samples.extend(vec![None; times.max(1)]);
            continue;
        }
        let number = |text: &str| text.parse::<f64>().unwrap_or_else(|error| panic!("{part}: {error}"));
        let sign = first.rfind(['+', '-']).filter(|at| *at > 0);
        let (first, step) = first.split_at(sign.unwrap_or(first.len()));
        let (first, step) = (number(first), if step.is_empty() { 0.0 } else { number(step) });
        samples.extend((0..=times).map(|n| Some(first + step * n as f64)));
    }
    samples
}

impl Shape {
    /// Its samples, one a minute, while the instance is there: after a gap it is another process.
    fn samples(self, requests: &[Option<f64>], start: f64) -> Vec<Option<f64>> {
        let (mut run, mut before) = (0, false);
        let minutes = requests.iter().enumerate().map(|(minute, requests)| {
            if requests.is_some() && !before {
                run = minute;
            }
            before = requests.is_some();
            requests.map(|requests| match self {
                Level(level) => level,
                // Least at 2:00, most at 14:00.
                Breathes(least, most) => {
                    let turn = ((minute as f64 / 60.0 - 2.0) / 24.0 * TAU).cos();
                    least + (most - least) * (0.5 - 0.5 * turn)
                }
                Rises(by) => by * (minute - run) as f64,
                WithRequests(share) => share * requests,
                Started => start + MINUTE.as_secs_f64() * run as f64,
            })
        });
        minutes.collect()
    }
}

#[test]
fn samples_are_those_that_the_notation_stands_for() {
    let all = |notation| {
        samples(notation).into_iter().map(|sample| sample.unwrap_or(f64::NAN).to_string()).collect::<Vec<_>>()
    };
    assert_eq!(all("_x2 0 1.5+1.5x2 4.5x1 _ 3-1x1 stale").join(" "), "NaN NaN 0 1.5 3 4.5 4.5 4.5 NaN 3 2");
}
