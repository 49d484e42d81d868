//! `docs/metrics.md`: every family of the page, from the declarations in code, with the values that its labels may have.

use std::fmt::Write as _;

use prometheus::Registry;
use prometheus::proto::MetricType;

use crate::labels::{
    AbortPhase, CertificateUse, CloseReason, ConnectionEnd, CpuMode, Direction, Failure, Fault, FirstByte, LimitSource,
    MemoryEvent, MemoryKind, Method, Origin, OverheadDirection, Phase, Policy, PoolSource, PoolState, PressureResource,
    PressureScope, Refusal, RejectReason, Resource, RestartReason, RetryResult, RouteKind, RpcStatus, SloResult,
    Source, StreamEnd, TlsFailure, TlsSide, Traffic, Trouble, TunnelProtocol, UnreadStat,
};
use crate::signals::families::{self, Bounded};
use crate::signals::own::Own;
use crate::signals::snapshot::Kind;

/// A family as the page has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name on the page, without the suffixes of histograms.
    pub name: String,
    /// `counter`, `gauge`, `histogram`.
    pub kind: &'static str,
    /// Names of its labels, without `le`.
    pub labels: Vec<String>,
    /// One line.
    pub help: String,
}

/// What a label may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// One of these, and nothing else.
    Closed(Vec<&'static str>),
    /// One of these, or a word of this form (`pool:NAME`) after the configuration.
    ClosedAnd(Vec<&'static str>, &'static str),
    /// Whatever it is, it is one of a number of things that is bounded as this says.
    Open(&'static str),
}

/// Families that belong together.
struct Group {
    title: &'static str,
    about: &'static str,
    families: &'static [&'static str],
}

/// All of them, in the order of the page. `every_family_is_in_one_group` says what is missing.
const GROUPS: &[Group] = &[
    Group {
        title: "Latency",
        about: "Client side: from the request head read to the last byte handed over. Each latency objective adds its \
                threshold to the edges of the routes that it covers.",
        families: &[
            "http_server_request_duration_seconds",
            "rpc_server_call_duration_seconds",
            "golden_time_to_first_byte_seconds",
            "golden_abort_wait_seconds",
            "golden_stream_duration_seconds",
            "golden_upstream_phase_seconds",
            "golden_proxy_overhead_seconds",
        ],
    },
    Group {
        title: "Traffic",
        about: "Every request is counted once, however it ends.",
        families: &[
            "golden_requests_total",
            "golden_request_bytes_total",
            "golden_response_bytes_total",
            "http_server_active_requests",
            "golden_streams",
            "golden_upgraded_connections",
            "golden_upgraded_connections_opened_total",
            "golden_upgraded_bytes_total",
        ],
    },
    Group {
        title: "Errors",
        about: "A failed request is counted once, with who is to blame. What clients do to themselves is not an error of the \
                service: 4xx of the backend and clients that leave.",
        families: &[
            "golden_errors_total",
            "golden_implicit_errors_total",
            "golden_client_aborts_total",
            "golden_truncated_responses_total",
        ],
    },
    Group {
        title: "Objectives",
        about: "Present when `slos` are configured. Rules and dashboards read the objective here.",
        families: &["golden_slo_requests_total", "golden_slo_objective_ratio", "golden_slo_latency_threshold_seconds"],
    },
    Group {
        title: "Saturation",
        about: "How full each resource is, of its limit. What has no limit, or cannot be read, is absent and not 0.",
        families: &[
            "golden_saturation_ratio",
            "golden_saturation_sampled_ratio",
            "golden_saturation_peak_ratio",
            "golden_saturation_time_to_limit_seconds",
            "golden_saturation_bottleneck",
            "golden_inflight_requests",
            "golden_inflight_limit",
            "golden_inflight_oldest_age_seconds",
            "golden_inflight_peak",
        ],
    },
    Group {
        title: "The backend's process",
        about: "All of its processes together, as the kernel tells of them.",
        families: &[
            "golden_backend_up",
            "golden_backend_probe_duration_seconds",
            "golden_backend_cpu_seconds_total",
            "golden_backend_cpu_limit_cores",
            "golden_backend_cpu_periods_total",
            "golden_backend_cpu_throttled_periods_total",
            "golden_backend_cpu_throttled_seconds_total",
            "golden_backend_runqueue_wait_seconds_total",
            "golden_backend_pressure_waiting_seconds_total",
            "golden_backend_pressure_stalled_seconds_total",
            "golden_backend_memory_bytes",
            "golden_backend_memory_limit_bytes",
            "golden_backend_memory_events_total",
            "golden_backend_fds",
            "golden_backend_fds_limit",
            "golden_backend_threads",
            "golden_backend_threads_limit",
            "golden_backend_processes",
            "golden_backend_start_time_seconds",
            "golden_backend_restarts_total",
            "golden_backend_accept_queue_connections",
            "golden_backend_accept_queue_limit",
            "golden_backend_unread_bytes",
            "golden_netns_listen_overflows_total",
            "golden_netns_listen_drops_total",
        ],
    },
    Group {
        title: "Pools of the backend",
        about: "Present when `saturation.pools` are configured, or known from the backend's sockets.",
        families: &["golden_pool_connections", "golden_pool_limit", "golden_pool_timeouts_total"],
    },
    Group {
        title: "Connections",
        about: "The sidecar's own, to both sides.",
        families: &[
            "golden_server_connections",
            "golden_server_connections_limit",
            "golden_server_connections_opened_total",
            "golden_server_connections_closed_total",
            "golden_server_connections_rejected_total",
            "golden_server_streams_limit_reached_total",
            "golden_tls_handshake_failures_total",
            "golden_tls_certificate_expiry_timestamp_seconds",
            "http_client_open_connections",
            "golden_upstream_pool_limit",
            "golden_upstream_pool_waiting",
            "golden_upstream_pool_timeouts_total",
            "golden_upstream_connections_opened_total",
            "golden_upstream_connections_closed_total",
            "golden_upstream_retries_total",
            "golden_upstream_addresses",
            "golden_dns_lookups_total",
        ],
    },
    Group {
        title: "Routes and the limits of the metrics themselves",
        about: "What is past a limit is counted under the route `_other`, and here.",
        families: &[
            "golden_routes",
            "golden_routes_folded_total",
            "golden_routes_forgotten_total",
            "golden_openapi_templates",
            "golden_openapi_failures_total",
            "golden_metric_series",
            "golden_metric_overflow_total",
            "golden_metric_memory_bytes",
            "golden_metric_memory_limit_bytes",
        ],
    },
    Group {
        title: "The sidecar itself",
        about: "`process_*` is the process of the sidecar, never that of the backend.",
        families: &[
            "golden_build_info",
            "golden_config_reloads_total",
            "golden_config_last_reload_successful",
            "golden_config_last_reload_success_timestamp_seconds",
            "golden_draining",
            "golden_admin_refused_requests_total",
            "golden_log_dropped_total",
            "golden_scrape_duration_seconds",
            "golden_scrape_size_bytes",
            "golden_scrapes_shared_total",
            "golden_worker_busy_ratio",
            "golden_runtime_lag_seconds",
            "golden_sampler_ticks_total",
            "golden_sampler_missed_ticks_total",
            "golden_sampler_source_available",
            "golden_sampler_failures_total",
            "golden_sampler_read_seconds_total",
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ],
    },
];

/// What bounds the routes: the label is a template or one of two words, never a path.
const ROUTES: &str = "routes (`learn.limit`, 100 by default, and declared ones) + `_other` + `_unmatched`";

/// A call's method is its route, written as gRPC writes methods.
const METHODS: &str = "routes, without the first slash";

/// Every family, whether it is on the page of the moment or not.
#[must_use]
pub fn entries() -> Vec<Entry> {
    let declared = families::all().map(|family| Entry {
        name: family.name.to_owned(),
        kind: match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
            Kind::Unknown => "untyped",
        },
        labels: family.labels.iter().map(|label| (*label).to_owned()).collect(),
        help: family.help.to_owned(),
    });
    let pages = OF_PAGES.iter().map(|&(name, kind, labels, help)| Entry {
        name: name.to_owned(),
        kind,
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        help: help.to_owned(),
    });
    declared.chain(own()).chain(pages).collect()
}

/// Name, type, labels, help.
type Declared = (&'static str, &'static str, &'static [&'static str], &'static str);

/// What is said about the pages themselves. Declared by whoever makes them, which this room does not know; that they are the
/// same is shown in `tests/pack_rules`, on a real page.
const OF_PAGES: &[Declared] = &[
    (
        "golden_scrape_duration_seconds",
        "gauge",
        &[],
        "Time that this process took to gather, encode and compress the previous metrics page, 0 before the first.",
    ),
    (
        "golden_scrape_size_bytes",
        "gauge",
        &["encoding"],
        "Size of the body of the previous metrics page of this process in this content encoding, 0 before the first.",
    ),
    (
        "golden_scrapes_shared_total",
        "counter",
        &[],
        "Scrapes of this process that were answered with a page that was being made for another one as well.",
    ),
];

/// Those about the process stand in the metrics crate, which tells what it has: all of them from the start.
fn own() -> Vec<Entry> {
    let registry = Registry::new();
    let own = Own::register(&registry, None);
    // Absent where there is none.
    CertificateUse::ALL.iter().for_each(|usage| own.certificate_ends(*usage, Some(0)));
    let families = registry.gather();
    let entry = |family: &prometheus::proto::MetricFamily| Entry {
        name: family.name().to_owned(),
        kind: if family.get_field_type() == MetricType::COUNTER { "counter" } else { "gauge" },
        labels: family.get_metric()[0].get_label().iter().map(|label| label.name().to_owned()).collect(),
        help: family.help().to_owned(),
    };
    families.iter().map(entry).collect()
}

/// What this label of this family may be. `None`: the family has no such label.
#[must_use]
pub fn values(family: &str, label: &str) -> Option<Values> {
    /// The texts of a closed set.
    macro_rules! all {
        ($set:ty) => {
            <$set>::ALL.iter().map(|value| value.as_str()).collect::<Vec<&'static str>>()
        };
    }
    let closed = match (family, label) {
        (_, "http_request_method") => all!(Method),
        (_, "origin") => all!(Origin),
        (_, "traffic") => all!(Traffic),
        (_, "fault") => all!(Fault),
        (_, "outcome") => all!(FirstByte),
        (_, "end") => all!(StreamEnd),
        (_, "protocol") => all!(TunnelProtocol),
        (_, "mode") => all!(CpuMode),
        (_, "scope") => all!(PressureScope),
        (_, "encoding") => vec!["identity", "gzip"],
        (_, "event") => all!(MemoryEvent),
        (_, "stat") => all!(UnreadStat),
        // Peaks are of the last minute.
        (_, "window") => vec!["1m"],
        ("golden_client_aborts_total", "phase") => all!(AbortPhase),
        ("golden_upstream_phase_seconds", "phase") => {
            all!(Phase).into_iter().filter(|phase| *phase != Phase::Head.as_str()).collect()
        }
        ("golden_errors_total", "phase") => all!(Phase),
        ("golden_upgraded_bytes_total", "direction") => all!(Direction),
        ("golden_proxy_overhead_seconds", "direction") => all!(OverheadDirection),
        ("golden_server_connections", "state") | ("http_client_open_connections", "http_connection_state") => {
            vec!["active", "idle"]
        }
        ("golden_pool_connections", "state") => all!(PoolState),
        ("golden_pool_connections", "source") => all!(PoolSource),
        ("golden_server_connections_rejected_total", "reason") => all!(RejectReason),
        ("golden_server_connections_closed_total", "reason") => all!(ConnectionEnd),
        ("golden_upstream_connections_closed_total", "reason") => all!(CloseReason),
        ("golden_backend_restarts_total", "reason") => all!(RestartReason),
        ("golden_openapi_failures_total" | "golden_sampler_failures_total", "reason") => all!(Trouble),
        ("golden_admin_refused_requests_total", "reason") => all!(Refusal),
        ("golden_tls_handshake_failures_total", "reason") => all!(TlsFailure),
        ("golden_tls_handshake_failures_total", "side") => all!(TlsSide),
        (_, "use") => all!(CertificateUse),
        ("golden_upstream_retries_total", "result") => all!(RetryResult),
        ("golden_slo_requests_total", "result") => all!(SloResult),
        ("golden_config_reloads_total" | "golden_dns_lookups_total", "result") => vec!["success", "failure"],
        ("golden_backend_memory_bytes", "kind") => all!(MemoryKind),
        // Those that are no labels yet.
        ("golden_routes", "kind") => all!(RouteKind).into_iter().chain(["pending"]).collect(),
        ("golden_metric_series" | "golden_metric_overflow_total", "family") => {
            Bounded::ALL.iter().map(|bounded| bounded.family().name).collect()
        }
        (
            "golden_backend_pressure_waiting_seconds_total" | "golden_backend_pressure_stalled_seconds_total",
            "resource",
        ) => all!(PressureResource),
        (family, "source") if family.starts_with("golden_backend_") => all!(LimitSource),
        (family, "resource") if family.starts_with("golden_saturation_") => {
            return Some(Values::ClosedAnd(all!(Resource), "pool:NAME"));
        }
        (family, "source") if family.starts_with("golden_sampler_") => {
            return Some(Values::ClosedAnd(all!(Source), "pool:NAME"));
        }
        (_, "error_type") => {
            // Of a success it is empty.
            let of_calls =
                RpcStatus::ALL.iter().filter(|status| status.is_server_error()).map(|status| status.as_str());
            let named = [""].into_iter().chain(all!(Failure)).chain(of_calls).chain(all!(Policy)).collect();
            return Some(Values::ClosedAnd(named, "a status 5xx of the backend"));
        }
        (_, "rpc_response_status_code") => all!(RpcStatus),
        (_, "http_route") => return Some(Values::Open(ROUTES)),
        (_, "rpc_method") => return Some(Values::Open(METHODS)),
        (_, "http_response_status_code") => return Some(Values::Open("statuses; empty when no head was sent")),
        (_, "rule") => return Some(Values::Open("implicit_errors of the configuration")),
        (_, "slo") => return Some(Values::Open("objectives of the configuration")),
        (_, "pool") => return Some(Values::Open("pools of the configuration")),
        (_, "port") => return Some(Values::Open("listening ports of the backend")),
        (_, "worker") => return Some(Values::Open("workers, counted from 0")),
        (_, "version" | "revision" | "rustc") => return Some(Values::Open("one")),
        _ => return None,
    };
    Some(Values::Closed(closed))
}

/// The base unit, from the name, where it has one.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let units = [("_seconds", "seconds"), ("_bytes", "bytes"), ("_ratio", "0 to 1"), ("_cores", "CPUs")];
    units.iter().find(|(suffix, _)| name.ends_with(suffix)).map_or("", |(_, unit)| unit)
}

/// How many series of this family there can be, without what its histogram multiplies them by.
fn bound(entry: &Entry) -> String {
    let limited = Bounded::ALL.iter().any(|bounded| bounded.family().name == entry.name);
    if limited {
        return "`limits.series` (2000 by default), besides `_other`".to_owned();
    }
    let mut closed = 1;
    let mut open = Vec::new();
    for label in &entry.labels {
        match values(&entry.name, label) {
            Some(Values::Closed(values)) => closed *= values.len(),
            Some(Values::ClosedAnd(values, _)) => {
                open.push(format!("({} + pools)", values.len()));
            }
            Some(Values::Open("one")) | None => {}
            Some(Values::Open(_)) if label == "http_route" => open.push("routes".to_owned()),
            Some(Values::Open(_)) => open.push(format!("{label}s")),
        }
    }
    if closed > 1 || open.is_empty() {
        open.push(closed.to_string());
    }
    open.join(" × ")
}

/// The only histogram that has no native form: its edges are its meaning.
const CLASSIC_ONLY: &str = "golden_saturation_sampled_ratio";

/// The page.
#[must_use]
pub fn markdown() -> String {
    let entries = entries();
    let mut out = format!(
        "# Metrics\n\n\
         All {} families of `/metrics`. Generated from the declarations in code (`make pack`); do not edit.\n\n\
         - Prometheus adds `job` and `instance`, and whatever its configuration says (`namespace`, `cluster`).\n\
         - Units are base units. Counters end in `_total`, and begin at 0 with the process.\n\
         - `http_route` is a template, never a path: one of the {ROUTES}.\n\
         - `http_response_status_code` is the exact number, and empty when no head was sent.\n\
         - Histograms are native and classic at once, unless said otherwise. A server that stores native ones keeps them under \
         the name as it stands, and no `_bucket`, `_sum` and `_count` beside them.\n\
         - *Series* is the most that one sidecar can have; a classic histogram has that many for each of its edges, and for \
         `_sum` and `_count`.\n\
         - What cannot be read, or has no limit, is absent and not 0.\n\n",
        entries.len()
    );
    for Group { title, .. } in GROUPS {
        let anchor: String = title.to_lowercase().replace(' ', "-").replace('\'', "");
        let _ = writeln!(out, "[{title}](#{anchor})  ");
    }
    for Group { title, about, families } in GROUPS {
        let _ = write!(out, "\n## {title}\n\n{about}\n");
        for entry in families.iter().filter_map(|name| entries.iter().find(|entry| entry.name == *name)) {
            section(&mut out, entry);
        }
    }
    out
}

fn section(out: &mut String, entry: &Entry) {
    let Entry { name, kind, labels, help } = entry;
    let _ = write!(out, "\n### `{name}`\n\n{kind}");
    if name == CLASSIC_ONLY {
        out.push_str(", classic only");
    }
    if !unit(name).is_empty() {
        let _ = write!(out, ", {}", unit(name));
    }
    let _ = write!(out, " · series: {}\n\n{help}\n", bound(entry));
    for (at, label) in labels.iter().enumerate() {
        let code = |values: &[&str]| {
            let values =
                values.iter().map(|value| if value.is_empty() { "empty".to_owned() } else { format!("`{value}`") });
            values.collect::<Vec<_>>().join(", ")
        };
        let said = match values(name, label) {
            _ if label == "http_route" => "the template".to_owned(),
            Some(Values::Closed(values)) => code(&values),
            Some(Values::ClosedAnd(values, form)) if form.contains(':') => format!("{}, `{form}`", code(&values)),
            Some(Values::ClosedAnd(values, form)) => format!("{}, {form}", code(&values)),
            Some(Values::Open("one")) => "what it was built from".to_owned(),
            Some(Values::Open(what)) => format!("one of the {what}"),
            None => "any".to_owned(),
        };
        let _ = writeln!(out, "{}- `{label}`: {said}", if at == 0 { "\n" } else { "" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_family_is_in_one_group() {
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|group| group.families).copied().collect();
        let once: BTreeSet<&str> = grouped.iter().copied().collect();
        assert_eq!(grouped.len(), once.len(), "one is in two groups");
        let entries = entries();
        let known: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(once, known, "GROUPS names the families of the page, and no other");
    }

    #[test]
    fn every_label_has_its_values_said() {
        for entry in entries() {
            for label in &entry.labels {
                assert!(values(&entry.name, label).is_some(), "{} {label}: what can it be?", entry.name);
            }
        }
    }

    #[test]
    fn a_bound_is_what_the_labels_multiply_to() {
        let of = |name: &str| bound(entries().iter().find(|entry| entry.name == name).unwrap());
        assert_eq!(of("golden_inflight_limit"), "1");
        assert_eq!(of("golden_upgraded_bytes_total"), "4");
        assert_eq!(of("golden_client_aborts_total"), "`limits.series` (2000 by default), besides `_other`");
        assert_eq!(of("golden_request_bytes_total"), "routes");
        assert_eq!(of("golden_pool_connections"), "pools × 6");
    }
}
