//! Every resource near its limit: the backend's, the sidecar's own, the host's. One instance that is full is what
//! matters, so nothing is averaged over instances.
//!
//! # Forecasts
//!
//! A forecast is a ticket, never a page, and never alone: the level has to matter already. It is made of troughs, the
//! least of the last minutes, so that the saw-tooth of a garbage collector is flat; its line is drawn through at least
//! a quarter of the time that it looks ahead; and each third of that time has to have its part in the growth, so that a
//! step is none.
//!
//! The sidecar's own `golden_saturation_time_to_limit_seconds` is not used for it. It reads every second and is made
//! robust against single values, which makes it the better number to look at; but under a saw-tooth it says nothing at
//! all, also when the troughs rise, and its memory ends with the sidecar's process, that is at every deploy. The
//! runbooks ask it for a second opinion.

use crate::pack::cases::{Case, Suite};
use crate::pack::objective::{Severity, number};
use crate::pack::promql::quantile;
use crate::pack::rules::{Alert, Group, INSTANCE, Record, Rule};
use crate::pack::thresholds::{
    CPU_PRESSURE, FILLING, FULL, MEMORY_CRITICAL, MEMORY_FORECAST_FROM, MEMORY_FORECAST_SECONDS, POOL_FORECAST_FROM,
    POOL_FORECAST_SECONDS, QUEUE_SECONDS, REJECTED, THROTTLED,
};

/// Two scrapes at the usual 15 s: what wakes somebody is not to wait for a third.
const LEVELS_INTERVAL: &str = "30s";
/// Lines through an hour do not move faster.
const FORECASTS_INTERVAL: &str = "1m";

/// Both kinds of pools: those that the backend has, and the sidecar's to the backend.
const POOLS: &str = "pool:.+|upstream_pool";

/// When a resource will be full, by the line through its troughs.
struct Forecast {
    /// Recorded: the least of some minutes.
    trough: &'static str,
    /// A third of the time through which the line is drawn, two thirds, and all of it.
    thirds: [&'static str; 3],
    /// How far it looks ahead, seconds.
    ahead: f64,
    /// The share from which on it matters.
    from: f64,
}

/// A collection every few minutes is usual, so ten minutes have one.
const MEMORY: Forecast = Forecast {
    trough: "instance_resource:golden_saturation_ratio:min10m",
    thirds: ["20m", "40m", "1h"],
    ahead: MEMORY_FORECAST_SECONDS,
    from: MEMORY_FORECAST_FROM,
};

/// A connection that leaked never comes back, so it shows in the quietest moment of two minutes too.
const POOL: Forecast = Forecast {
    trough: "instance_resource:golden_saturation_ratio:min2m",
    thirds: ["5m", "10m", "15m"],
    ahead: POOL_FORECAST_SECONDS,
    from: POOL_FORECAST_FROM,
};

/// A step lies in one third, a line has a third of its growth in each: half of that leaves room for noise.
const PART_OF_A_THIRD: &str = "6";

pub(super) fn groups() -> Vec<Group> {
    let levels = [cpu(), memory(), pools(), queues(), counts(), host()].concat();
    let troughs = [
        (MEMORY.trough, r#"resource="memory""#.to_owned(), "10m"),
        (POOL.trough, format!(r#"resource=~"{POOLS}""#), "2m"),
    ];
    let troughs = troughs.map(|(name, selector, window)| {
        let expr =
            format!("min by ({INSTANCE}, resource) (min_over_time(golden_saturation_ratio{{{selector}}}[{window}]))");
        Rule::Record(Record { name: name.to_owned(), expr })
    });
    let forecasts = troughs.into_iter().chain(forecasts().into_iter().map(Rule::Alert)).collect();
    vec![
        Group {
            name: "golden-sidecar-saturation",
            interval: LEVELS_INTERVAL,
            rules: levels.into_iter().map(Rule::Alert).collect(),
        },
        Group { name: "golden-sidecar-forecasts", interval: FORECASTS_INTERVAL, rules: forecasts },
    ]
}

// === The alerts ===

fn cpu() -> Vec<Alert> {
    let alert = |sign: &'static str, expr: String, summary: &str, what: &str| Alert {
        labels: vec![("sign", sign.to_owned())],
        ..warning("GoldenCpuSaturated", "15m", expr, summary, what)
    };
    vec![
        alert(
            "use",
            format!("{} > {}", usual("cpu", "10m"), number(FULL)),
            "The backend uses nearly all the CPU that it may use.",
            "The backend behind {{ $labels.instance }} of job {{ $labels.job }} uses {{ $value | humanizePercentage }} \
             of the CPU that it may use, on average over ten minutes: whatever comes now waits.",
        ),
        alert(
            "throttled",
            format!(
                "sum by ({INSTANCE}) (rate(golden_backend_cpu_throttled_periods_total[10m]))\n/\n\
                 (sum by ({INSTANCE}) (rate(golden_backend_cpu_periods_total[10m])) > 0)\n> {}",
                number(THROTTLED)
            ),
            "The backend is stopped again and again by its CPU quota.",
            "The backend behind {{ $labels.instance }} of job {{ $labels.job }} had its CPU quota used up in \
             {{ $value | humanizePercentage }} of the periods: it stands still for the rest of each, whatever its \
             average use.",
        ),
        alert(
            "pressure",
            format!(
                "max by ({INSTANCE}) \
                 (rate(golden_backend_pressure_waiting_seconds_total{{resource=\"cpu\",scope=\"backend\"}}[10m])) > {}",
                number(CPU_PRESSURE)
            ),
            "Work of the backend waits for a CPU.",
            "In {{ $value | humanizePercentage }} of the time something in the backend behind {{ $labels.instance }} \
             of job {{ $labels.job }} was ready to run and had no CPU.",
        ),
    ]
}

fn memory() -> Vec<Alert> {
    let near = |limit: f64| format!("{} > {}", now("memory"), number(limit));
    let oom = |counter: &str| format!("sum by ({INSTANCE}) (increase({counter}[10m])) > 0");
    vec![
        Alert {
            severity: Severity::Critical,
            ..warning(
                "GoldenMemoryNearLimit",
                "5m",
                near(MEMORY_CRITICAL),
                "The backend is about to be ended for want of memory.",
                "The backend behind {{ $labels.instance }} of job {{ $labels.job }} uses {{ $value | \
                 humanizePercentage }} of the memory that it may use: the kernel ends it at the limit, and every \
                 request in flight with it.",
            )
        },
        warning(
            "GoldenMemoryNearLimit",
            "10m",
            near(FULL),
            "The backend uses nearly all the memory that it may use.",
            "The backend behind {{ $labels.instance }} of job {{ $labels.job }} uses {{ $value | humanizePercentage }} \
             of the memory that it may use.",
        ),
        warning(
            "GoldenOutOfMemoryKills",
            "",
            format!(
                "{}\nor\n{}",
                oom(r#"golden_backend_memory_events_total{event="oom_kill"}"#),
                oom(r#"golden_backend_restarts_total{reason="oom"}"#)
            ),
            "The kernel ended processes of the backend for want of memory.",
            "About {{ $value | printf \"%.0f\" }} processes in the cgroup of the backend behind {{ $labels.instance }} \
             of job {{ $labels.job }} were ended by the kernel for want of memory in the last ten minutes. A worker \
             that its master starts again shows nowhere else.",
        ),
    ]
}

fn pools() -> Vec<Alert> {
    let name = "GoldenConnectionPoolSaturated";
    let selector = format!(r#"resource=~"{POOLS}""#);
    // The pools of the backend are called by their name in one family and as a resource in the other.
    let resource = |of_pools: &str, own: &str| {
        format!(
            "max by ({INSTANCE}, resource) (label_replace(\n  {of_pools},\n  \"resource\", \"pool:$1\", \"pool\", \
             \"(.+)\"\n))\nor\n\
             max by ({INSTANCE}, resource) (label_replace(\n  {own},\n  \"resource\", \"upstream_pool\", \"\", \"\"\n))"
        )
    };
    vec![
        Alert {
            labels: vec![("sign", "use".to_owned())],
            ..warning(
                name,
                "5m",
                format!(
                    "max by ({INSTANCE}, resource) (avg_over_time(golden_saturation_ratio{{{selector}}}[5m])) > {}",
                    number(FULL)
                ),
                "A connection pool is nearly used up.",
                "{{ $value | humanizePercentage }} of the connections of {{ $labels.resource }} at {{ $labels.instance \
                 }} of job {{ $labels.job }} are in use, on average over five minutes: the next requests wait for one.",
            )
        },
        Alert {
            labels: vec![("sign", "waiting".to_owned())],
            ..warning(
                name,
                "5m",
                resource(
                    &format!(
                        "sum by ({INSTANCE}, pool) (min_over_time(golden_pool_connections{{state=\"waiting\"}}[5m])) > \
                         0"
                    ),
                    &format!("sum by ({INSTANCE}) (min_over_time(golden_upstream_pool_waiting[5m])) > 0"),
                ),
                "Requests wait for a connection of a pool without a pause.",
                "At every look in five minutes at least {{ $value }} requests waited for a connection of {{ \
                 $labels.resource }} at {{ $labels.instance }} of job {{ $labels.job }}.",
            )
        },
        Alert {
            severity: Severity::Critical,
            ..warning(
                "GoldenConnectionPoolRejecting",
                "2m",
                resource(
                    &format!(
                        "sum by ({INSTANCE}, pool) (increase(golden_pool_timeouts_total[5m])) >= {}",
                        number(REJECTED)
                    ),
                    // Both ways to be turned away: having waited in vain, and finding too many waiting.
                    &format!(
                        "(\n    sum by ({INSTANCE}) (increase(golden_upstream_pool_timeouts_total[5m])) >= {0}\n    \
                         or\n    sum by ({INSTANCE}) (increase(golden_errors_total{{error_type=\"no_capacity\"}}[5m])) \
                         >= {0}\n  )",
                        number(REJECTED)
                    ),
                ),
                "Requests fail because a connection pool has nothing left.",
                "About {{ $value | printf \"%.0f\" }} requests got no connection of {{ $labels.resource }} at {{ \
                 $labels.instance }} of job {{ $labels.job }} in the last five minutes and failed.",
            )
        },
    ]
}

fn queues() -> Vec<Alert> {
    let accept = |sign: &'static str, expr: String, summary: &str, description: &str| Alert {
        labels: vec![("sign", sign.to_owned())],
        ..warning("GoldenAcceptQueueOverflow", "5m", expr, summary, description)
    };
    vec![
        warning(
            "GoldenInFlightNearLimit",
            "5m",
            format!("{} > {}", usual("inflight", "5m"), number(FILLING)),
            "The sidecar is close to turning requests away.",
            "{{ $value | humanizePercentage }} of the requests that {{ $labels.instance }} of job {{ $labels.job }} \
             lets be in flight are, on average over five minutes; above the limit it answers 503.",
        ),
        warning(
            "GoldenQueueDelay",
            "5m",
            format!(
                "{} > {}",
                quantile("0.99", INSTANCE, "golden_upstream_phase_seconds", r#"{phase="queue"}"#, "5m"),
                number(QUEUE_SECONDS)
            ),
            "Requests wait for a connection to the backend.",
            "One request in a hundred waits {{ $value | humanizeDuration }} or longer for a connection from {{ \
             $labels.instance }} of job {{ $labels.job }} to its backend before anything is sent.",
        ),
        // The highest of each minute: a queue is full for moments, and a look every quarter of a minute misses them.
        accept(
            "near_limit",
            format!(
                "max by ({INSTANCE}) (golden_saturation_peak_ratio{{resource=\"accept_queue\"}}) > {}",
                number(FILLING)
            ),
            "The backend takes new connections too slowly.",
            "The accept queue of the backend behind {{ $labels.instance }} of job {{ $labels.job }} was {{ $value | \
             humanizePercentage }} full within the last minute, and so in each minute before: what finds it full is \
             dropped.",
        ),
        accept(
            "dropped",
            format!("sum by ({INSTANCE}) (increase(golden_netns_listen_drops_total[5m])) > 0"),
            "The kernel drops new connections.",
            "About {{ $value | printf \"%.0f\" }} connections were dropped at a listener in the network namespace of \
             {{ $labels.instance }} of job {{ $labels.job }} in the last five minutes. The kernel does not say at \
             whose.",
        ),
    ]
}

/// Things that are counted: descriptors, threads, connections.
fn counts() -> Vec<Alert> {
    let descriptors = |whose: &'static str, expr: String, summary: &str, description: &str| Alert {
        labels: vec![("whose", whose.to_owned())],
        ..warning("GoldenFileDescriptorsNearLimit", "10m", expr, summary, description)
    };
    let connections = "GoldenServerConnectionsNearLimit";
    vec![
        descriptors(
            "backend",
            format!("{} > {}", now("fds"), number(FILLING)),
            "The backend is running out of file descriptors.",
            "The fullest process of the backend behind {{ $labels.instance }} of job {{ $labels.job }} has \
             {{ $value | humanizePercentage }} of its file descriptors open: at the limit it can accept and open \
             nothing more.",
        ),
        descriptors(
            "sidecar",
            format!(
                "max by ({INSTANCE}) (process_open_fds) / (max by ({INSTANCE}) (process_max_fds) > 0) > {}\n\
                 and on ({INSTANCE})\ngolden_build_info",
                number(FILLING)
            ),
            "The sidecar is running out of file descriptors.",
            "The sidecar {{ $labels.instance }} of job {{ $labels.job }} has {{ $value | humanizePercentage }} of its \
             file descriptors open: at the limit it accepts no more clients.",
        ),
        warning(
            "GoldenThreadsNearLimit",
            "10m",
            format!("{} > {}", now("threads"), number(FILLING)),
            "The backend is running out of threads.",
            "The backend behind {{ $labels.instance }} of job {{ $labels.job }} has {{ $value | humanizePercentage }} \
             of the threads that it may have: at the limit it can start none, and most programs then fail in odd ways.",
        ),
        Alert {
            labels: vec![("sign", "rejected".to_owned())],
            severity: Severity::Critical,
            ..warning(
                connections,
                "2m",
                format!(
                    "sum by ({INSTANCE}) (increase(golden_server_connections_rejected_total[5m])) >= {}",
                    number(REJECTED)
                ),
                "The sidecar turns clients away before they can ask.",
                "About {{ $value | printf \"%.0f\" }} client connections were turned away by {{ $labels.instance }} of \
                 job {{ $labels.job }} in the last five minutes. No request was read from them, so no error rate shows \
                 it.",
            )
        },
        Alert {
            labels: vec![("sign", "use".to_owned())],
            ..warning(
                connections,
                "5m",
                format!("{} > {}", now("server_connections"), number(FILLING)),
                "The sidecar is close to turning clients away.",
                "{{ $labels.instance }} of job {{ $labels.job }} has {{ $value | humanizePercentage }} of the client \
                 connections that it accepts.",
            )
        },
    ]
}

fn host() -> Vec<Alert> {
    vec![
        warning(
            "GoldenHostCpuSaturated",
            "15m",
            format!("{} > {}", usual("host_cpu", "10m"), number(FULL)),
            "The host's CPU is used up.",
            "The host of {{ $labels.instance }} of job {{ $labels.job }} uses {{ $value | humanizePercentage }} of its \
             CPU, on average over ten minutes. Everything on it is slow, the sidecar too.",
        ),
        warning(
            "GoldenHostMemoryNearLimit",
            "10m",
            format!("{} > {}", now("host_memory"), number(FULL)),
            "The host's memory is nearly used up.",
            "The host of {{ $labels.instance }} of job {{ $labels.job }} uses {{ $value | humanizePercentage }} of its \
             memory: the kernel will end somebody, and not necessarily who took it.",
        ),
    ]
}

fn forecasts() -> Vec<Alert> {
    vec![
        warning(
            "GoldenMemoryWillFill",
            "15m",
            MEMORY.expr(),
            "The backend's memory grows towards its limit.",
            "The backend behind {{ $labels.instance }} of job {{ $labels.job }} never uses less than {{ $value | \
             humanizePercentage }} of its memory any more, and it has been growing steadily for an hour: at this pace \
             it is full within four hours.",
        ),
        warning(
            "GoldenConnectionPoolWillFill",
            "10m",
            POOL.expr(),
            "A connection pool fills up.",
            "Never fewer than {{ $value | humanizePercentage }} of the connections of {{ $labels.resource }} at {{ \
             $labels.instance }} of job {{ $labels.job }} are in use any more, and it has been growing steadily: at \
             this pace none is left within half an hour.",
        ),
    ]
}

// === impl Forecast ===

impl Forecast {
    fn expr(&self) -> String {
        let Forecast { trough, thirds: [third, two, all], ahead, from } = self;
        let part = format!("({trough} - {trough} offset {all}) / {PART_OF_A_THIRD}");
        [
            format!("{trough} > {}", number(*from)),
            format!("predict_linear({trough}[{all}], {}) > 1", number(*ahead)),
            format!("{trough} - {trough} offset {third} > {part}"),
            format!("{trough} offset {third} - {trough} offset {two} > {part}"),
            format!("{trough} offset {two} - {trough} offset {all} > {part}"),
        ]
        .join("\nand\n")
    }
}

/// A ticket about one instance.
fn warning(name: &'static str, hold: &'static str, expr: String, summary: &str, description: &str) -> Alert {
    Alert {
        name,
        expr,
        hold,
        keep: "",
        severity: Severity::Warning,
        labels: Vec::new(),
        summary: summary.to_owned(),
        description: description.to_owned(),
    }
}

/// How full a resource of each instance is at the latest look: for what moves slowly.
fn now(resource: &str) -> String {
    format!("max by ({INSTANCE}) (golden_saturation_ratio{{resource=\"{resource}\"}})")
}

/// As above, on average over a time: for what jumps.
fn usual(resource: &str, window: &str) -> String {
    format!("max by ({INSTANCE}) (avg_over_time(golden_saturation_ratio{{resource=\"{resource}\"}}[{window}]))")
}

// === The cases ===

/// Where all cases happen.
const HERE: &str = r#"cluster="eu",namespace="prod",job="shop",instance="a:9900""#;

/// A series of the one instance, with more labels.
fn of(family: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!("{family}{{{HERE}{comma}{more}}}")
}

fn ratio(resource: &str) -> String {
    of("golden_saturation_ratio", &format!("resource=\"{resource}\""))
}

/// The labels of an alert about the one instance.
fn here<'a>(severity: &'a str, more: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
    let mut labels =
        vec![("cluster", "eu"), ("namespace", "prod"), ("job", "shop"), ("instance", "a:9900"), ("severity", severity)];
    labels.extend_from_slice(more);
    labels
}

/// A series that says how full something is, and an alert that looks at nothing else.
struct Level {
    alert: &'static str,
    series: String,
    more: &'static [(&'static str, &'static str)],
    over: &'static str,
    below: &'static str,
    /// A time at which it is over and has not been for long enough, when it rises after six minutes.
    pending: &'static str,
}

impl Level {
    /// It rises and stays; it is just below, then high for three minutes; it falls again.
    fn cases(&self) -> Vec<Case> {
        let &Level { alert, ref series, more, over, below, pending } = self;
        let labels = here("warning", more);
        vec![
            Case::new(alert, "what rises and stays high fires", "1m")
                .series(series, format!("0.5x6 {over}x30"))
                .quiet_at("6m")
                .quiet_at(pending)
                .fires_at("36m", &labels),
            Case::new(alert, "just below the threshold, and above it for three minutes, is quiet", "1m")
                .series(series, format!("{below}x30 0.5x5 {over}x2 0.5x6"))
                .quiet_at("30m")
                .quiet_at("38m")
                .quiet_at("40m")
                .quiet_at("44m"),
            Case::new(alert, "it ends when there is room again", "1m")
                .series(series, format!("{over}x30 0.5x15"))
                .fires_at("30m", &labels)
                .quiet_at("44m"),
        ]
    }
}

pub(super) fn suite() -> Suite {
    let cases =
        [level_cases(), cpu_cases(), memory_cases(), pool_cases(), queue_cases(), count_cases(), forecast_cases()];
    Suite { name: "saturation", evaluate: "2m", cases: cases.concat() }
}

fn level_cases() -> Vec<Case> {
    let pool = |name: &'static str, more| Level {
        alert: "GoldenConnectionPoolSaturated",
        series: ratio(name),
        more,
        over: "0.91",
        below: "0.9",
        pending: "14m",
    };
    let full = |alert, resource, pending| Level {
        alert,
        series: ratio(resource),
        more: &[],
        over: "0.91",
        below: "0.9",
        pending,
    };
    let filling = |alert, resource, pending| Level { over: "0.81", below: "0.8", ..full(alert, resource, pending) };
    let levels = [
        Level { more: &[("sign", "use")], ..full("GoldenCpuSaturated", "cpu", "30m") },
        full("GoldenMemoryNearLimit", "memory", "14m"),
        pool("pool:db", &[("resource", "pool:db"), ("sign", "use")]),
        pool("upstream_pool", &[("resource", "upstream_pool"), ("sign", "use")]),
        filling("GoldenInFlightNearLimit", "inflight", "14m"),
        Level { more: &[("whose", "backend")], ..filling("GoldenFileDescriptorsNearLimit", "fds", "14m") },
        filling("GoldenThreadsNearLimit", "threads", "14m"),
        Level { more: &[("sign", "use")], ..filling("GoldenServerConnectionsNearLimit", "server_connections", "10m") },
        full("GoldenHostCpuSaturated", "host_cpu", "30m"),
        full("GoldenHostMemoryNearLimit", "host_memory", "14m"),
        Level {
            series: of("golden_saturation_peak_ratio", r#"resource="accept_queue",window="1m""#),
            more: &[("sign", "near_limit")],
            ..filling("GoldenAcceptQueueOverflow", "", "10m")
        },
    ];
    levels.iter().flat_map(Level::cases).collect()
}

fn cpu_cases() -> Vec<Case> {
    let alert = "GoldenCpuSaturated";
    let periods = of("golden_backend_cpu_periods_total", "");
    let throttled = of("golden_backend_cpu_throttled_periods_total", "");
    let waiting = |scope: &str| {
        of("golden_backend_pressure_waiting_seconds_total", &format!(r#"resource="cpu",scope="{scope}""#))
    };
    vec![
        // 600 periods of 100 ms are in a minute.
        Case::new(alert, "a third of the periods throttled fires, whatever the use, and ends", "1m")
            .series(&periods, "0+600x120")
            .series(&throttled, "0+200x60 12000x60")
            .series(ratio("cpu"), "0.3x120")
            .quiet_at("12m")
            .fires_at("30m", &here("warning", &[("sign", "throttled")]))
            .fires_at("50m", &here("warning", &[("sign", "throttled")]))
            .quiet_at("90m"),
        Case::new(alert, "a quarter of the periods throttled is quiet", "1m")
            .series(&periods, "0+600x60")
            .series(&throttled, "0+150x60")
            .quiet_at("30m")
            .quiet_at("60m"),
        Case::new(alert, "a backend that does nothing has no periods and is quiet", "1m")
            .series(&periods, "5x60")
            .series(&throttled, "5x60")
            .quiet_at("60m"),
        Case::new(alert, "waiting for a CPU half of the time fires and ends", "1m")
            .series(waiting("backend"), "0+30x60 1800x60")
            .quiet_at("12m")
            .fires_at("30m", &here("warning", &[("sign", "pressure")]))
            .fires_at("50m", &here("warning", &[("sign", "pressure")]))
            .quiet_at("90m"),
        Case::new(alert, "waiting 40 % of the time is quiet, and so are others that wait", "1m")
            .series(waiting("backend"), "0+24x60")
            .series(waiting("host"), "0+50x60")
            .quiet_at("30m")
            .quiet_at("60m"),
    ]
}

fn memory_cases() -> Vec<Case> {
    let near = "GoldenMemoryNearLimit";
    let kills = "GoldenOutOfMemoryKills";
    let events = of("golden_backend_memory_events_total", r#"event="oom_kill""#);
    let restarts = of("golden_backend_restarts_total", r#"reason="oom""#);
    vec![
        Case::new(near, "above 95 % it wakes somebody, and ends", "1m")
            .series(ratio("memory"), "0.5x10 0.96x30 0.5x20")
            .quiet_at("10m")
            .quiet_at("14m")
            .fires_at("18m", &here("critical", &[]))
            .fires_at("40m", &here("critical", &[]))
            .and_fires(&here("warning", &[]))
            .quiet_at("50m"),
        Case::new(near, "at 95 % nobody is woken", "1m")
            .series(ratio("memory"), "0.95x60")
            .fires_at("50m", &here("warning", &[])),
        Case::new(near, "a collector that frees every few minutes is quiet", "1m")
            .series(ratio("memory"), "0.6 0.75 0.9 0.94 0.6 0.75 0.9 0.94 ".repeat(8))
            .quiet_at("30m")
            .quiet_at("63m"),
        Case::new(kills, "one kill fires, and ends", "1m")
            .series(&events, "3x20 4x40")
            .quiet_at("20m")
            .fires_at("22m", &here("warning", &[]))
            .quiet_at("40m"),
        Case::new(kills, "a backend that was ended as a whole fires too", "1m")
            .series(&restarts, "0x20 1x5")
            .quiet_at("20m")
            .fires_at("22m", &here("warning", &[])),
        Case::new(kills, "other events, other ends and old kills are quiet", "1m")
            .series(of("golden_backend_memory_events_total", r#"event="high""#), "0+5x30")
            .series(of("golden_backend_restarts_total", r#"reason="exit""#), "0+1x30")
            .series(&events, "7x30")
            .quiet_at("15m")
            .quiet_at("30m"),
    ]
}

fn pool_cases() -> Vec<Case> {
    let saturated = "GoldenConnectionPoolSaturated";
    let rejecting = "GoldenConnectionPoolRejecting";
    let waiting = of("golden_pool_connections", r#"pool="db",source="reported",state="waiting""#);
    let own_waiting = of("golden_upstream_pool_waiting", "");
    let timeouts = of("golden_pool_timeouts_total", r#"pool="db""#);
    let own_timeouts = of("golden_upstream_pool_timeouts_total", "");
    let no_capacity =
        of("golden_errors_total", r#"http_route="/a",error_type="no_capacity",fault="proxy",phase="queue""#);
    let db = &[("resource", "pool:db")];
    let own = &[("resource", "upstream_pool")];
    vec![
        Case::new(saturated, "somebody always waits: fires and ends", "1m")
            .series(&waiting, "0x10 1x20 0x20")
            .quiet_at("10m")
            .quiet_at("18m")
            .fires_at("28m", &here("warning", &[("resource", "pool:db"), ("sign", "waiting")]))
            .quiet_at("40m"),
        Case::new(saturated, "somebody always waits for the sidecar's own: fires", "1m")
            .series(&own_waiting, "0x10 3x20")
            .quiet_at("10m")
            .quiet_at("14m")
            .fires_at("28m", &here("warning", &[("resource", "upstream_pool"), ("sign", "waiting")])),
        Case::new(saturated, "somebody waits every other minute: quiet", "1m")
            .series(&waiting, "0 4 ".repeat(20))
            .series(&own_waiting, "4 0 ".repeat(20))
            .quiet_at("20m")
            .quiet_at("39m"),
        Case::new(rejecting, "a pool of the backend without connections: fires and ends", "1m")
            .series(&timeouts, "0x10 1+2x20 41x20")
            .quiet_at("10m")
            .quiet_at("14m")
            .fires_at("20m", &here("critical", db))
            .quiet_at("45m"),
        Case::new(rejecting, "the sidecar's own: fires", "1m")
            .series(&own_timeouts, "0x10 1+2x20")
            .quiet_at("10m")
            .fires_at("20m", &here("critical", own)),
        Case::new(rejecting, "too many wait already: fires", "1m")
            .series(&no_capacity, "0x10 1+2x20")
            .series(&own_timeouts, "0x40")
            .quiet_at("10m")
            .fires_at("20m", &here("critical", own)),
        Case::new(rejecting, "four in five minutes are quiet, and other errors too", "1m")
            .series(&timeouts, "0x10 4x50")
            .series(&own_timeouts, "0x20 4x40")
            .series(
                of("golden_errors_total", r#"http_route="/a",error_type="shed",fault="policy",phase="queue""#),
                "0+9x60",
            )
            .quiet_at("13m")
            .quiet_at("24m")
            .quiet_at("60m"),
    ]
}

fn queue_cases() -> Vec<Case> {
    let delay = "GoldenQueueDelay";
    let dropped = "GoldenAcceptQueueOverflow";
    let bucket =
        |phase: &str, le: &str| of("golden_upstream_phase_seconds_bucket", &format!(r#"phase="{phase}",le="{le}""#));
    let drops = of("golden_netns_listen_drops_total", "");
    vec![
        Case::new(delay, "two of a hundred wait longer than 0.1 s: fires and ends", "1m")
            .series(bucket("queue", "0.1"), "0+98x30 2940+100x30")
            .series(bucket("queue", "0.25"), "0+100x60")
            .series(bucket("queue", "+Inf"), "0+100x60")
            .quiet_at("4m")
            .fires_at("25m", &here("warning", &[]))
            .quiet_at("45m"),
        Case::new(delay, "as long as all wait, it fires", "1m")
            .series(bucket("queue", "0.1"), "0x20")
            .series(bucket("queue", "0.25"), "0+100x20")
            .series(bucket("queue", "+Inf"), "0+100x20")
            .fires_at("20m", &here("warning", &[])),
        Case::new(delay, "one of two hundred does: quiet, and so is a slow backend", "1m")
            .series(bucket("queue", "0.1"), "0+199x30")
            .series(bucket("queue", "+Inf"), "0+200x30")
            .series(bucket("wait", "0.1"), "0x30")
            .series(bucket("wait", "1"), "0+200x30")
            .series(bucket("wait", "+Inf"), "0+200x30")
            .quiet_at("15m")
            .quiet_at("30m"),
        Case::new(delay, "no requests: quiet", "1m")
            .series(bucket("queue", "0.1"), "9x30")
            .series(bucket("queue", "+Inf"), "10x30")
            .quiet_at("30m"),
        Case::new(dropped, "drops that go on fire, and end", "1m")
            .series(&drops, "44x10 45+3x20 105x20")
            .quiet_at("10m")
            .fires_at("20m", &here("warning", &[("sign", "dropped")]))
            .fires_at("25m", &here("warning", &[("sign", "dropped")]))
            .quiet_at("45m"),
        Case::new(dropped, "one burst, and old drops, are quiet", "1m")
            .series(&drops, "44x10 90x40")
            .quiet_at("10m")
            .quiet_at("14m")
            .quiet_at("17m"),
    ]
}

fn count_cases() -> Vec<Case> {
    let fds = "GoldenFileDescriptorsNearLimit";
    let connections = "GoldenServerConnectionsNearLimit";
    let build = of("golden_build_info", r#"version="0.1.0",revision="x",rustc="y""#);
    let rejected = |reason: &str| of("golden_server_connections_rejected_total", &format!("reason=\"{reason}\""));
    vec![
        Case::new(fds, "the sidecar's own: fires and ends", "1m")
            .series(&build, "1x90")
            .series(of("process_max_fds", ""), "1000x90")
            .series(of("process_open_fds", ""), "100x10 810x30 100x50")
            .quiet_at("10m")
            .quiet_at("18m")
            .fires_at("25m", &here("warning", &[("whose", "sidecar")]))
            .fires_at("35m", &here("warning", &[("whose", "sidecar")]))
            .quiet_at("60m"),
        Case::new(fds, "a program that is no sidecar is not ours", "1m")
            .series(of("process_max_fds", ""), "1000x60")
            .series(of("process_open_fds", ""), "990x60")
            .quiet_at("60m"),
        Case::new(connections, "clients that are turned away wake somebody, whatever the reason, until it ends", "1m")
            .series(rejected("limit"), "0x10 1+1x30 31x30")
            .series(rejected("descriptors"), "0x10 1+1x30 31x30")
            .quiet_at("10m")
            .quiet_at("14m")
            .fires_at("20m", &here("critical", &[("sign", "rejected")]))
            .fires_at("36m", &here("critical", &[("sign", "rejected")]))
            .quiet_at("60m"),
        Case::new(connections, "four that are turned away are quiet", "1m")
            .series(rejected("limit"), "0x10 4x50")
            .quiet_at("14m")
            .quiet_at("30m"),
    ]
}

fn forecast_cases() -> Vec<Case> {
    let fills = "GoldenMemoryWillFill";
    let memory = ratio("memory");
    let pool_fills = "GoldenConnectionPoolWillFill";
    let db = here("warning", &[("resource", "pool:db")]);
    let own = here("warning", &[("resource", "upstream_pool")]);
    vec![
        // From 50 % by 0.12 points a minute: 71 % after 175 minutes, full after 416.
        Case::new(fills, "a leak fires once it matters, and ends at the restart", "1m")
            .series(&memory, "0.5+0.0012x230 0.3x90")
            .quiet_at("150m")
            .quiet_at("196m")
            .fires_at("225m", &here("warning", &[("resource", "memory")]))
            .quiet_at("245m"),
        Case::new(fills, "a leak under a collector's saw-tooth fires", "1m")
            .series(&memory, saw_tooth(0.60, 0.001, 0.08, 200))
            .quiet_at("60m")
            .fires_at("190m", &here("warning", &[("resource", "memory")])),
        Case::new(fills, "a collector's saw-tooth without a leak is quiet", "1m")
            .series(&memory, saw_tooth(0.72, 0.0, 0.2, 200))
            .quiet_at("75m")
            .quiet_at("130m")
            .quiet_at("200m"),
        Case::new(fills, "a step is quiet", "1m")
            .series(&memory, "0.3x90 0.82x120")
            .quiet_at("105m")
            .quiet_at("120m")
            .quiet_at("135m")
            .quiet_at("150m")
            .quiet_at("200m"),
        Case::new(fills, "a high level that does not grow is quiet", "1m").series(&memory, "0.89x150").quiet_at("150m"),
        Case::new(fills, "growth at a low level is quiet", "1m").series(&memory, "0.1+0.004x155").quiet_at("154m"),
        Case::new(fills, "growth that will take longer is quiet", "1m")
            .series(&memory, "0.72+0.0002x200")
            .quiet_at("100m")
            .quiet_at("200m"),
        Case::new(pool_fills, "a leak fires once it matters, and ends with it", "1m")
            .series(ratio("pool:db"), "0.3+0.01x58 0.3x20")
            .quiet_at("40m")
            .quiet_at("50m")
            .fires_at("58m", &db)
            .quiet_at("70m"),
        Case::new(pool_fills, "the sidecar's own fires too", "1m")
            .series(ratio("upstream_pool"), "0.3+0.01x60")
            .quiet_at("40m")
            .fires_at("58m", &own),
        Case::new(pool_fills, "a plateau and a step are quiet", "1m")
            .series(ratio("pool:db"), "0.85x90")
            .series(ratio("upstream_pool"), "0.2x40 0.85x50")
            .quiet_at("45m")
            .quiet_at("52m")
            .quiet_at("60m")
            .quiet_at("90m"),
        Case::new(pool_fills, "growth at a low level, and slow growth, are quiet", "1m")
            .series(ratio("pool:db"), "0.1+0.01x48")
            .series(ratio("upstream_pool"), "0.62+0.001x60")
            .quiet_at("30m")
            .quiet_at("47m")
            .quiet_at("60m"),
    ]
}

/// Every five minutes a collector frees what came since the last time: `swing` at most, above a trough that starts at
/// `from` and rises by `leak` a minute.
fn saw_tooth(from: f64, leak: f64, swing: f64, minutes: u32) -> String {
    let value = |minute: u32| from + leak * f64::from(minute) + swing * f64::from(minute % 5) / 4.0;
    (0..=minutes).map(|minute| number(value(minute))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Resource;
    use crate::pack::rules::alerts;

    #[test]
    fn every_resource_that_can_be_full_has_an_alert() {
        let groups = groups();
        let asked: String = alerts(&groups).map(|alert| alert.expr.as_str()).collect();
        let selectors = |resource: &str| [format!("resource=\"{resource}\""), format!("|{resource}\"")];
        for resource in Resource::ALL {
            let found = selectors(resource.as_str()).iter().any(|selector| asked.contains(selector));
            assert!(found, "{resource:?} has no alert");
        }
        assert!(asked.contains("resource=~\"pool:.+"), "pools have no alert");
    }
}
