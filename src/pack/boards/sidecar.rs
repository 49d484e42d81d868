//! Sidecar health: is it the sidecar's fault?

use super::{OVERVIEW, SIDECAR, above, full, latency, max, percentile, rate, select, share, sum};
use crate::pack::dashboard::{Colour, Column, Dashboard, Kind, Match, Panel, Row, Threshold, Unit};
use crate::pack::thresholds::{FILLING, FULL, MISSED_ROUNDS, OVERHEAD_SECONDS, OVERHEAD_SHARE, SCRAPE_SAMPLES};

/// A start within this time is worth a word.
const YOUNG_SECONDS: u32 = 300;

/// Of the two directions: told apart by every eye.
const REQUEST: &str = "#0072B2";
const RESPONSE: &str = "#E69F00";

pub(super) fn dashboard() -> Dashboard {
    let row = |title, panels| Row { title, collapsed: false, height: 8, panels };
    Dashboard {
        uid: SIDECAR,
        title: "Golden Sidecar / Sidecar health",
        description: "Is it the sidecar's fault?",
        variables: vec![],
        rows: vec![
            Row { title: None, collapsed: false, height: 4, panels: numbers() },
            row(Some("What it adds"), adds()),
            row(Some("What it uses"), uses()),
            Row { height: 10, ..row(Some("What it tells"), tells()) },
            Row { height: 9, ..row(Some("What it could not do"), could_not()) },
        ],
    }
}

/// Overhead of both directions; each is observed by itself.
fn overhead(quantile: f64) -> String {
    percentile(quantile, "direction", "golden_proxy_overhead_seconds", "")
}

/// Of the slower direction, as the alert looks at it: what is slow in one is seldom the same request in the other, so a sum
/// would be nobody's.
fn added(quantile: f64) -> String {
    max("", &overhead(quantile))
}

fn numbers() -> Vec<Panel> {
    let p99 = latency(0.99, "", "");
    let when = |condition: String, code: u32| format!("({condition}) * 0 + {code}");
    let busiest = max("", &select("golden_worker_busy_ratio", ""));
    let words = [
        when(format!("min({}) == 0", select("golden_config_last_reload_successful", "")), 6),
        when(format!("({} > {OVERHEAD_SECONDS}) and ({} / ({p99}) > {OVERHEAD_SHARE})", added(0.99), added(0.99)), 5),
        when(format!("{busiest} > {FULL}"), 4),
        when(format!("max({}) == 1", select("golden_draining", "")), 3),
        when(format!("time() - {} < {YOUNG_SECONDS}", max("", &select("process_start_time_seconds", ""))), 2),
        when(max("", &select("golden_build_info", "")), 1),
    ];
    vec![
        Panel::new(
            Kind::Stat,
            4,
            "Is it the sidecar?",
            "One word for the chosen instances: the first that holds of: an older configuration is in force; it \
             adds more than 5 ms and 10 % of the p99; a worker is busy more than 90 %; one drains; one started less \
             than five minutes ago; no.",
            "No.",
            "Config refused: its log says the line. Adds latency, Busy: give it more CPU or workers. No data: is it \
             scraped?",
        )
        .ask(words.join("\nor "), "verdict")
        .thresholds(vec![Threshold { from: None, colour: Colour::Fine }])
        .word(1.0, "No", Colour::Fine)
        .word(2.0, "Just started", Colour::Fine)
        .word(3.0, "Draining", Colour::Amber)
        .word(4.0, "Busy", Colour::Amber)
        .word(5.0, "Adds latency", Colour::Amber)
        .word(6.0, "Config refused", Colour::Red)
        .nothing("No data"),
        Panel::new(
            Kind::Stat,
            4,
            "Added latency, p99",
            "Time that requests spent inside the sidecar itself, in the slower of the two directions, without waiting \
             for the backend. Amber above 5 ms.",
            "Below 1 ms.",
            "High: see worker busy and the host's CPU below.",
        )
        .unit(Unit::Seconds)
        .thresholds(above(OVERHEAD_SECONDS))
        .ask(added(0.99), "added")
        .nothing("No traffic"),
        Panel::new(
            Kind::Stat,
            4,
            "Share of the p99",
            "Added latency at p99 as a share of what requests took at p99. Amber above 10 %.",
            "A few percent; more where the backend answers within a millisecond.",
            "Above 10 % with added latency above 5 ms: it is the sidecar.",
        )
        .unit(Unit::Ratio)
        .decimals(1)
        .thresholds(above(OVERHEAD_SHARE))
        .ask(format!("{} / ({p99} > 0)", added(0.99)), "share")
        .nothing("No traffic"),
        Panel::new(
            Kind::Stat,
            4,
            "Up for",
            "Time since the youngest and the oldest of the chosen instances started.",
            "Since the last deploy.",
            "Minutes without a deploy: it restarts; see the orchestrator's events and its log.",
        )
        .unit(Unit::Seconds)
        .decimals(1)
        .with_names()
        .ask(format!("time() - {}", max("", &select("process_start_time_seconds", ""))), "youngest")
        .ask(format!("time() - min({})", select("process_start_time_seconds", "")), "oldest")
        .nothing("No data"),
        Panel::new(
            Kind::Stat,
            4,
            "Configuration",
            "Whether the latest load of the configuration was taken by all chosen instances.",
            "In force.",
            "Refused: an older one goes on; the log says which line is wrong.",
        )
        .ask(format!("min({})", select("golden_config_last_reload_successful", "")), "configuration")
        .thresholds(vec![Threshold { from: None, colour: Colour::Fine }])
        .word(0.0, "Refused", Colour::Red)
        .word(1.0, "In force", Colour::Fine)
        .nothing("No data"),
        Panel::new(
            Kind::Stat,
            4,
            "Instances by version",
            "How many of the chosen instances run which version.",
            "One version.",
            "Two for longer than a rollout: it is stuck.",
        )
        .decimals(0)
        .with_names()
        .ask(super::aggregate("count", "version", &select("golden_build_info", "")), "{{version}}")
        .nothing("No data")
        .link("Overview", OVERVIEW),
    ]
}

fn adds() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Lines,
            8,
            "Added latency",
            "Time inside the sidecar only, from a head read to the same head handed on, by direction. Line at 5 ms.",
            "p50 near 0.1 ms, p99 below 1 ms.",
            "p99 high and p50 low: it waited for a CPU; see runtime lag. Both: it is overloaded.",
        )
        .unit(Unit::Seconds)
        .reach(OVERHEAD_SECONDS)
        .thresholds(above(OVERHEAD_SECONDS))
        .short_legend()
        .ask(overhead(0.5), "{{direction}} p50")
        .ask(overhead(0.99), "{{direction}} p99")
        .paint("request p50", REQUEST)
        .paint("request p99", REQUEST)
        .paint("response p50", RESPONSE)
        .paint("response p99", RESPONSE)
        .wide(Match::Query('A'), 1)
        .nothing("No traffic"),
        Panel::new(
            Kind::Lines,
            8,
            "Against the whole request",
            "p99 of requests that did not fail, and how much of it is the sidecar's own.",
            "The lower line is on the floor.",
            "Both rise together: it is the sidecar, or the host they share. Only the upper: it is the backend.",
        )
        .unit(Unit::Seconds)
        .ask(latency(0.99, "", ""), "request p99")
        .ask(added(0.99), "sidecar p99")
        .nothing("No traffic"),
        Panel::new(
            Kind::Lines,
            8,
            "Replays and new connections",
            "Requests per second that were sent again because a kept connection had gone, by result; connections to \
             the backend that were opened and closed, by reason.",
            "Few; connections are kept.",
            "Many opened: the backend closes after each answer; let it keep connections alive longer than \
             timeouts.upstream_idle.",
        )
        .unit(Unit::PerSecond)
        .ask(sum("result", &rate("golden_upstream_retries_total", "")), "replay {{result}}")
        .ask(sum("", &rate("golden_upstream_connections_opened_total", "")), "opened")
        .ask(sum("reason", &rate("golden_upstream_connections_closed_total", "")), "closed {{reason}}")
        .short_legend()
        .nothing("No data"),
    ]
}

fn uses() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Lines,
            6,
            "CPUs used",
            "CPUs that each sidecar uses.",
            "A small part of what the backend uses.",
            "High: many small requests, or scrapes too often; compare with requests/s.",
        )
        .short_legend()
        .ask(rate("process_cpu_seconds_total", ""), "{{instance}}")
        .nothing("No data"),
        Panel::new(
            Kind::Lines,
            6,
            "Memory used",
            "Resident memory of each sidecar.",
            "Flat after the first hour.",
            "Growing: see series and routes below; their memory has a limit of its own.",
        )
        .unit(Unit::Bytes)
        .short_legend()
        .ask(select("process_resident_memory_bytes", ""), "{{instance}}")
        .nothing("No data"),
        Panel::new(
            Kind::Lines,
            6,
            "Workers busy, and late",
            "Share of the time that the busiest worker was not idle; and how late its timers ran (right axis).",
            "Below 50 %, lag of a few ms.",
            "Busy: more workers or CPUs. Late but idle: the host is full or the sidecar throttled.",
        )
        .unit(Unit::Ratio)
        .reach(1.0)
        .short_legend()
        .thresholds(full())
        .ask(max("worker", &select("golden_worker_busy_ratio", "")), "worker {{worker}}")
        .ask(max("", &select("golden_runtime_lag_seconds", "")), "lag")
        .right_axis("lag", Unit::Seconds, 0.1)
        .nothing("No data"),
        Panel::new(
            Kind::Lines,
            6,
            "Descriptors",
            "File descriptors that the sidecar has open of those that it may open, in the fullest instance.",
            "Two for each request in flight.",
            "Near 100 %: it turns clients away; raise the limit (ulimit -n).",
        )
        .unit(Unit::Ratio)
        .reach(1.0)
        .short_legend()
        .thresholds(above(FILLING))
        .ask(max("", &share(&select("process_open_fds", ""), &select("process_max_fds", ""))), "open")
        .nothing("No limit known"),
    ]
}

fn tells() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Lines,
            5,
            "Routes",
            "Route labels by where they come from, in the instance that has most; pending: words of paths that wait \
             for more evidence.",
            "Flat after the first hour.",
            "Learned ones that grow: paths with values that do not look like values; declare a template.",
        )
        .short_legend()
        .ask(max("kind", &select("golden_routes", "")), "{{kind}}")
        .ask(sum("", &rate("golden_routes_folded_total", "")), "folded/s")
        .right_axis("folded", Unit::PerSecond, 1.0)
        .nothing("No data"),
        Panel::new(
            Kind::Lines,
            9,
            "Series",
            "Label sets of each family with routes, in the instance that has most; limits.series bounds each.",
            "Flat after the first hour.",
            "Growing: routes that are values, or very many status codes; see Routes.",
        )
        .short_legend()
        .ask(max("family", &select("golden_metric_series", "")), "{{family}}")
        .nothing("No data"),
        Panel::new(
            Kind::Lines,
            5,
            "Memory and overflow",
            "Memory that label sets and routes take, in the instance that takes most, and the dashed limit; \
             observations per second that went to _other because a limit of routes, series or memory was reached \
             are on the right axis.",
            "Far below the limit; nothing overflows.",
            "Overflow: raise limits.series or limits.metrics_memory, or declare routes. Numbers per route are not \
             complete meanwhile.",
        )
        .unit(Unit::Bytes)
        .short_legend()
        .ask(max("", &select("golden_metric_memory_bytes", "")), "used")
        .ask(format!("min({})", select("golden_metric_memory_limit_bytes", "")), "limit")
        .dashed("limit")
        .ask(sum("", &rate("golden_metric_overflow_total", "")), "overflow/s")
        .right_axis("overflow", Unit::PerSecond, 1.0)
        .nothing("No data"),
        Panel::new(
            Kind::Lines,
            5,
            "Scrapes",
            format!(
                "Time that the slowest instance took for a page, and the size of its largest (right axis). A page \
                 of {SCRAPE_SAMPLES} lines is large."
            ),
            "Some ms, some 100 KiB.",
            "Slow or large: too many series; see beside this.",
        )
        .unit(Unit::Seconds)
        .short_legend()
        .ask(max("", &select("golden_scrape_duration_seconds", "")), "time")
        .ask(max("encoding", &select("golden_scrape_size_bytes", "")), "size {{encoding}}")
        .right_axis("size", Unit::Bytes, 1024.0)
        .nothing("No data"),
    ]
}

fn could_not() -> Vec<Panel> {
    let rounds = |counter: &str| sum("job, instance", &rate(counter, ""));
    let (ran, missed) = (rounds("golden_sampler_ticks_total"), rounds("golden_sampler_missed_ticks_total"));
    vec![
        Panel::new(
            Kind::Lines,
            5,
            "Sampling rounds missed",
            "Of the rounds in which the sampler should have looked at resources, the share that did not take place. Line \
             at 10 %.",
            "0 %.",
            "Missed: the host is full, or a source is slow; see its time beside this.",
        )
        .unit(Unit::Ratio)
        .reach(MISSED_ROUNDS)
        .short_legend()
        .thresholds(above(MISSED_ROUNDS))
        .ask(share(&missed, &format!("({ran} + {missed})")), "{{instance}}")
        .nothing("No data"),
        Panel::new(
            Kind::Lines,
            8,
            "Time of reading each source",
            "Share of the time that the sampler reads each source, in the slowest instance.",
            "Far below 1 %.",
            "High: very many connections or processes; make saturation.interval longer.",
        )
        .unit(Unit::Ratio)
        .short_legend()
        .ask(max("source", &rate("golden_sampler_read_seconds_total", "")), "{{source}}")
        .nothing("No data"),
        Panel::new(
            Kind::Table,
            6,
            "Sources",
            "Whether all chosen instances can read each source of what saturation tells.",
            "All that the deployment allows.",
            "golden-sidecar doctor says why one cannot be read, and what to change.",
        )
        .table(
            "source",
            "Source",
            vec![Column {
                heading: "Readable",
                unit: Unit::Count,
                thresholds: vec![],
                expr: super::aggregate("min", "source", &select("golden_sampler_source_available", "")),
            }],
        )
        .ascending()
        .word(0.0, "no", Colour::Grey)
        .word(1.0, "yes", Colour::Neutral)
        .nothing("No data"),
        Panel::new(
            Kind::Lines,
            5,
            "Turned away and lost",
            "Clients per second that were turned away before a request was read, by reason; log lines per second \
             that were dropped because standard error is too slow.",
            "0.",
            "limit: raise limits.connections. descriptors: ulimit -n. log: what reads standard error cannot keep up.",
        )
        .unit(Unit::PerSecond)
        .short_legend()
        .reach(1.0)
        .ask(sum("reason", &rate("golden_server_connections_rejected_total", "")), "turned away: {{reason}}")
        .ask(sum("", &rate("golden_log_dropped_total", "")), "log lines")
        .nothing("No data"),
    ]
}
