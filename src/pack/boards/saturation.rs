//! Saturation: which resource is full, or will be? Of each resource its use, its limit, what waits for it and what it turned
//! away. Where several instances are chosen, the numbers are those of the fullest.

use super::overview::{NOT_OF_HOST, lines};
use super::{OVERVIEW, ROUTE, SATURATION, SIDECAR, above, full, max, or_zero, percentile, rate, select, share, sum};
use crate::pack::dashboard::{Dashboard, Kind, Match, Panel, Row, Unit};
use crate::pack::thresholds::{CPU_PRESSURE, MEMORY_FORECAST_SECONDS, POOL_FORECAST_SECONDS, QUEUE_SECONDS, THROTTLED};

pub(super) fn dashboard() -> Dashboard {
    let row = |title, panels| Row { title, collapsed: false, height: 8, panels };
    Dashboard {
        uid: SATURATION,
        title: "Golden Sidecar / Saturation",
        description: "Which resource is full, or will be?",
        variables: vec![],
        rows: vec![
            Row { title: None, collapsed: false, height: 4, panels: numbers() },
            Row { height: 10, ..row(Some("Everything that has a limit"), everything()) },
            row(Some("CPU of the backend"), cpu()),
            row(Some("Memory of the backend"), memory()),
            row(Some("Connection pools of the backend"), pools()),
            row(Some("The way in: accept queue, descriptors, threads"), way_in()),
            row(Some("The sidecar's own limits"), own()),
        ],
    }
}

/// Of the fullest instance.
fn highest(by: &str, family: &str, more: &str) -> String {
    max(by, &select(family, more))
}

/// Of the instance that has least.
fn lowest(by: &str, family: &str, more: &str) -> String {
    super::aggregate("min", by, &select(family, more))
}

/// The highest rate of an instance.
fn highest_rate(by: &str, counter: &str, more: &str) -> String {
    let apart = if by.is_empty() { "job, instance".to_owned() } else { format!("job, instance, {by}") };
    max(by, &sum(&apart, &rate(counter, more)))
}

fn numbers() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Stat,
            6,
            "Fullest now",
            "The resource of the backend or of the sidecar that is nearest to its limit. Amber from 80 %, red from \
             90 %.",
            "Below 80 %.",
            "Find its row below: what waits for it, and what was turned away.",
        )
        .unit(Unit::Ratio)
        .decimals(0)
        .with_names()
        .thresholds(full())
        .ask(format!("topk(1, {})", highest("resource", "golden_saturation_ratio", NOT_OF_HOST)), "{{resource}}")
        .nothing("No limit known"),
        Panel::new(
            Kind::Stat,
            6,
            "Fullest in the last minute",
            "As before, of the highest of all samples of the last minute: bursts that are over count here.",
            "Below 90 %.",
            "High here and low now: short bursts. See them below; a queue smooths them, a larger limit removes them.",
        )
        .unit(Unit::Ratio)
        .decimals(0)
        .with_names()
        .thresholds(full())
        .ask(format!("topk(1, {})", highest("resource", "golden_saturation_peak_ratio", NOT_OF_HOST)), "{{resource}}")
        .nothing("No limit known"),
        Panel::new(
            Kind::Stat,
            6,
            "Full next",
            "The resource of the backend that will be full first if it grows as it did lately, and in what time. \
             Amber below four hours, red below half an hour.",
            "Nothing grows towards its limit.",
            "Hours: find the leak, plan a restart. Minutes: shed load or raise the limit now.",
        )
        .unit(Unit::Seconds)
        .decimals(1)
        .with_names()
        .thresholds(super::falling(POOL_FORECAST_SECONDS, MEMORY_FORECAST_SECONDS))
        .ask(
            format!("bottomk(1, {})", lowest("resource", "golden_saturation_time_to_limit_seconds", NOT_OF_HOST)),
            "{{resource}}",
        )
        .nothing("Nothing is filling up"),
        Panel::new(
            Kind::Stat,
            6,
            "Backend processes",
            "Processes of the backend, summed over the chosen instances, and how long ago the youngest backend \
             started.",
            "Steady; since the last deploy.",
            "Young without a deploy: it ended; its own log says why, or Events at the memory limit below.",
        )
        .with_names()
        .decimals(0)
        .ask(sum("", &select("golden_backend_processes", "")), "processes")
        .ask(format!("time() - {}", highest("", "golden_backend_start_time_seconds", "")), "youngest, age")
        .differ(
            Match::Name("youngest, age".to_owned()),
            vec![("unit", Unit::Seconds.grafana().into()), ("decimals", 1.into())],
        )
        .nothing("Backend not found"),
    ]
}

fn everything() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Lines,
            8,
            "Used share of each limit",
            "How full each resource is, in the fullest instance; host_*: of the whole host, whoever uses it. Lines \
             at 80, 90 and 100 %.",
            "Below 80 %.",
            "The line that is high has a row below.",
        )
        .unit(Unit::Ratio)
        .reach(1.0)
        .short_legend()
        .thresholds(lines())
        .ask(highest("resource", "golden_saturation_ratio", ""), "{{resource}}")
        .nothing("No limit known"),
        Panel::new(
            Kind::Lines,
            8,
            "Bursts: p99 of all samples",
            "Resources that change fast are sampled more often than they are scraped; 99 of 100 samples were at \
             most so full.",
            "Near the lines on the left.",
            "Much higher than on the left: bursts shorter than a scrape. Requests wait during them: compare with \
             the waiting time below.",
        )
        .unit(Unit::Ratio)
        .reach(1.0)
        .short_legend()
        .thresholds(lines())
        .ask(percentile(0.99, "resource", "golden_saturation_sampled_ratio", ""), "{{resource}}")
        .nothing("No limit known"),
        Panel::new(
            Kind::Lines,
            8,
            "Time until full",
            "Of resources that grow towards their limit: when they reach it if they go on so. No line: it does not \
             grow, or nobody can tell.",
            "No lines, or many hours.",
            "A line that falls by an hour each hour is a leak.",
        )
        .unit(Unit::Seconds)
        .short_legend()
        .ask(lowest("resource", "golden_saturation_time_to_limit_seconds", ""), "{{resource}}")
        .nothing("Nothing is filling up"),
    ]
}

fn cpu() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Lines,
            6,
            "CPUs used against the limit",
            "CPUs that the backend used, in the instance that used most; the dashed line is how many it may use, \
             and who says so.",
            "Below 80 % of the line.",
            "At the line: it is throttled or waits, beside this. Raise the limit, add instances, or find what \
             computes.",
        )
        .ask(highest_rate("", "golden_backend_cpu_seconds_total", ""), "used")
        .ask(lowest("source", "golden_backend_cpu_limit_cores", ""), "limit ({{source}})")
        .dashed("limit")
        .short_legend()
        .nothing("Backend not found"),
        Panel::new(
            Kind::Lines,
            6,
            "Throttled periods",
            "Of the periods of the CPU quota in which the backend ran, the share in which it used the quota up and \
             was stopped. Line at 25 %.",
            "0 %.",
            "Above 25 %: latency has steps of 100 ms. Raise the quota, or use fewer threads.",
        )
        .unit(Unit::Ratio)
        .short_legend()
        .reach(THROTTLED)
        .thresholds(above(THROTTLED))
        .ask(
            max(
                "instance",
                &share(
                    &rate("golden_backend_cpu_throttled_periods_total", ""),
                    &rate("golden_backend_cpu_periods_total", ""),
                ),
            ),
            "{{instance}}",
        )
        .nothing("No CPU quota known"),
        Panel::new(
            Kind::Lines,
            6,
            "Backend waits for a CPU",
            "Share of the time in which some task of the backend's cgroup waited for a CPU (pressure). Line at 40 %.",
            "Below 10 %.",
            "Above the line: its quota, or too many threads. High with the CPU below its limit: the host is full.",
        )
        .unit(Unit::Ratio)
        .short_legend()
        .reach(CPU_PRESSURE)
        .thresholds(above(CPU_PRESSURE))
        .ask(
            highest_rate("", "golden_backend_pressure_waiting_seconds_total", r#"resource="cpu",scope="backend""#),
            "pressure",
        )
        .nothing("Not known here"),
        Panel::new(
            Kind::Lines,
            6,
            "Host and run queue",
            "Share of the time in which some task of the whole host waited for a CPU (pressure); and how many CPUs the \
             backend's threads were ready to use and did not get (right axis).",
            "Pressure as on other days; below one CPU.",
            "Both high: a neighbour, or a host that is too small. Only the host: others wait, the backend does not.",
        )
        .unit(Unit::Ratio)
        .short_legend()
        .reach(CPU_PRESSURE)
        .ask(
            highest_rate("", "golden_backend_pressure_waiting_seconds_total", r#"resource="cpu",scope="host""#),
            "host pressure",
        )
        .ask(highest_rate("", "golden_backend_runqueue_wait_seconds_total", ""), "ready, without a CPU")
        .right_axis("ready", Unit::Count, 1.0)
        .nothing("Not known here"),
    ]
}

fn memory() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Lines,
            8,
            "Memory against the limit",
            "Memory of the backend in the instance that uses most: resident (of its processes), working set (of its \
             cgroup); the dashed line is what it may use, and who says so.",
            "Flat, below 80 % of the line.",
            "A slope that no traffic explains is a leak; the time until full is above. At the line the kernel ends \
             it.",
        )
        .unit(Unit::Bytes)
        .short_legend()
        .ask(highest("kind", "golden_backend_memory_bytes", r#"kind=~"resident|working_set""#), "{{kind}}")
        .ask(lowest("source", "golden_backend_memory_limit_bytes", ""), "limit ({{source}})")
        .dashed("limit")
        .nothing("Backend not found"),
        Panel::new(
            Kind::Lines,
            8,
            "Events at the memory limit",
            "Times per second that the backend's cgroup was at its limit (high, max), ran out of memory (oom) or \
             lost a process to it (oom_kill).",
            "0.",
            "oom_kill: raise the limit or find the leak. high, max: it is held up while the kernel looks for memory.",
        )
        .unit(Unit::PerSecond)
        .reach(1.0)
        .ask(highest_rate("event", "golden_backend_memory_events_total", ""), "{{event}}")
        .nothing("No cgroup known"),
        Panel::new(
            Kind::Lines,
            8,
            "Waiting for memory or disk",
            "Share of the time in which some task waited for memory or for the disk (pressure), of the backend's \
             cgroup or of the host.",
            "Near 0 %.",
            "memory: it swaps or reclaims, give it more. io: its disk, or a neighbour's work on it.",
        )
        .unit(Unit::Ratio)
        .ask(
            highest_rate(
                "resource, scope",
                "golden_backend_pressure_waiting_seconds_total",
                r#"resource=~"memory|io""#,
            ),
            "{{resource}} ({{scope}})",
        )
        .nothing("Not known here"),
    ]
}

fn pools() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Lines,
            8,
            "Connections of each pool",
            "Connections of the backend's pools in use and idle, in the fullest instance, and the dashed limit. \
             Reported by the backend, or inferred from its sockets.",
            "In use well below the limit.",
            "In use at the limit: slow queries, a leak of connections, or too small a pool.",
        )
        .short_legend()
        .ask(highest("pool", "golden_pool_connections", r#"state="in_use""#), "{{pool}} in use")
        .ask(highest("pool", "golden_pool_connections", r#"state="idle""#), "{{pool}} idle")
        .wide(Match::Query('A'), 3)
        .wide(Match::Query('B'), 1)
        .ask(lowest("pool", "golden_pool_limit", ""), "limit {{pool}}")
        .dashed("limit")
        .nothing("No pool configured"),
        Panel::new(
            Kind::Lines,
            8,
            "Waiting for a pool",
            "Requests that wait for a connection of a pool, where the backend reports it.",
            "0.",
            "Above 0 for minutes: the pool is what makes requests slow.",
        )
        .reach(1.0)
        .ask(highest("pool", "golden_pool_connections", r#"state="waiting""#), "{{pool}}")
        .nothing("No pool reports it"),
        Panel::new(
            Kind::Lines,
            8,
            "Gave up waiting for a pool",
            "Times per second that somebody gave up waiting for a connection, where the backend reports it.",
            "0.",
            "Above 0: those requests failed. Look at what holds the connections.",
        )
        .unit(Unit::PerSecond)
        .reach(1.0)
        .ask(sum("pool", &rate("golden_pool_timeouts_total", "")), "{{pool}}")
        .nothing("No pool reports it"),
    ]
}

fn way_in() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Lines,
            6,
            "Accept queue",
            "How full: the connections that the backend has not taken from its listeners yet, of those that may wait, in \
             the fullest instance, by port. Lines at 80, 90 and 100 %.",
            "Near 0 %.",
            "Growing: the backend's accept loop is blocked or it is out of workers.",
        )
        .unit(Unit::Ratio)
        .reach(1.0)
        .short_legend()
        .thresholds(lines())
        .ask(
            max(
                "port",
                &share(
                    &select("golden_backend_accept_queue_connections", ""),
                    &select("golden_backend_accept_queue_limit", ""),
                ),
            ),
            "port {{port}}",
        )
        .nothing("No listener found"),
        Panel::new(
            Kind::Lines,
            6,
            "Connections dropped at listeners",
            "Connections per second that found an accept queue full, and that were dropped for any reason, in the \
             whole network namespace.",
            "0.",
            "Above 0: clients see timeouts of 1, 3, 7 s. A larger backlog helps against bursts only.",
        )
        .unit(Unit::PerSecond)
        .short_legend()
        .reach(1.0)
        .ask(highest_rate("", "golden_netns_listen_overflows_total", ""), "queue full")
        .ask(highest_rate("", "golden_netns_listen_drops_total", ""), "dropped")
        .nothing("Not known here"),
        Panel::new(
            Kind::Lines,
            6,
            "Descriptors and threads",
            "How full: file descriptors of the backend's fullest process, and its threads. Line at 80 %.",
            "Flat.",
            "Descriptors that only grow are a leak (sockets, files). Threads that grow: each waits for something.",
        )
        .unit(Unit::Ratio)
        .reach(1.0)
        .short_legend()
        .thresholds(lines())
        .ask(highest("resource", "golden_saturation_ratio", r#"resource=~"fds|threads""#), "{{resource}}")
        .nothing("No limit known"),
        Panel::new(
            Kind::Lines,
            6,
            "Unread bytes",
            "Bytes that have come from clients and that the backend has not read yet: of all its connections, and \
             of the fullest.",
            "Near 0 between requests.",
            "Standing high: its workers are busy with something else; see CPU and pools.",
        )
        .unit(Unit::Bytes)
        .short_legend()
        .reach(1024.0)
        .ask(highest("stat", "golden_backend_unread_bytes", ""), "{{stat}}")
        .nothing("Not known here"),
    ]
}

fn own() -> Vec<Panel> {
    let queued = sum("", &rate("golden_upstream_connections_opened_total", ""));
    vec![
        Panel::new(
            Kind::Lines,
            6,
            "In flight against the limit",
            "Requests in flight in the fullest instance, the highest of the last minute, and the dashed limit above \
             which the sidecar sheds.",
            "Below 80 % of the limit.",
            "At the limit clients get 503 (shed). The backend is too slow for the traffic, or the limit too low.",
        )
        .short_legend()
        .ask(max("", &sum("job, instance", &select("golden_inflight_requests", ""))), "in flight")
        .ask(highest("", "golden_inflight_peak", ""), "peak of 1 m")
        .ask(lowest("", "golden_inflight_limit", ""), "limit")
        .dashed("limit")
        .nothing("No data")
        .link("Route detail", ROUTE),
        Panel::new(
            Kind::Lines,
            6,
            "Connections to the backend",
            "The sidecar's connections to the backend, active and idle, requests that wait for one, and the dashed \
             limit.",
            "Active below the limit, nobody waits.",
            "Waiting: the backend is slow or limits.upstream_connections too low.",
        )
        .short_legend()
        .ask(highest("http_connection_state", "http_client_open_connections", ""), "{{http_connection_state}}")
        .ask(highest("", "golden_upstream_pool_waiting", ""), "waiting")
        .ask(lowest("", "golden_upstream_pool_limit", ""), "limit")
        .dashed("limit")
        .nothing("No data"),
        Panel::new(
            Kind::Lines,
            6,
            "Wait for a connection, p99",
            "How long requests waited for a connection to the backend; and per second, how many gave up (right \
             axis). Line at 100 ms.",
            "0 s.",
            "Above 100 ms: requests queue in front of the backend; see the limit beside this.",
        )
        .unit(Unit::Seconds)
        .short_legend()
        .reach(QUEUE_SECONDS)
        .thresholds(above(QUEUE_SECONDS))
        .ask(percentile(0.99, "", "golden_upstream_phase_seconds", r#"phase="queue""#), "wait p99")
        .ask(or_zero(&sum("", &rate("golden_upstream_pool_timeouts_total", "")), &queued), "gave up/s")
        .right_axis("gave up", Unit::PerSecond, 1.0)
        .nothing("No traffic"),
        Panel::new(
            Kind::Lines,
            6,
            "Connections of clients",
            "Connections of clients to the sidecar, with and without a request, in the fullest instance, and the \
             dashed limit.",
            "Far below the limit.",
            "Near it new clients get 503: many idle ones are a client without a pool, or an attack.",
        )
        .short_legend()
        .ask(highest("state", "golden_server_connections", ""), "{{state}}")
        .ask(lowest("", "golden_server_connections_limit", ""), "limit")
        .dashed("limit")
        .nothing("No data")
        .link("Sidecar health", SIDECAR)
        .link("Overview", OVERVIEW),
    ]
}
