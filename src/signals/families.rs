//! Every family that is summed from the shards: name, type, labels and help beside each other, declared once.
//! HELP says scope and statistic. Families that are not on the request path are declared in `own.rs`.

use prometheus::proto::MetricType;

/// What a family is called and means.
#[derive(Debug)]
pub struct Family {
    /// The name on the page.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricType,
    /// Label names, in the order of the values.
    pub labels: &'static [&'static str],
    /// One line: what is counted, in which scope, from when until when.
    pub help: &'static str,
}

macro_rules! families {
    ($($konst:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(#[doc = $help] pub const $konst: Family = Family {
            name: $name, kind: MetricType::$kind, labels: &[$($label),*], help: $help,
        };)+
        /// Every family of this file.
        pub const ALL: &[&Family] = &[$(&$konst),+];
    };
}

families! {
    DURATION: HISTOGRAM "http_server_request_duration_seconds"
        ["http_request_method", "http_route", "http_response_status_code", "error_type"]
        "Time from the request head read to the last response byte handed to the client connection; aborted requests included, upgrades and event streams not.";
    FIRST_BYTE: HISTOGRAM "golden_time_to_first_byte_seconds" ["http_route", "outcome"]
        "Time from the request head read to the response head handed over; for outcome aborted, how long the client waited before it left.";
    REQUESTS: COUNTER "golden_requests_total"
        ["http_route", "http_request_method", "http_response_status_code", "origin", "traffic"]
        "Requests that ended, each exactly once, event streams and upgrades included; origin is who made the status or the end.";
    ACTIVE_REQUESTS: GAUGE "http_server_active_requests" ["http_request_method"]
        "Requests in flight now in this sidecar, response bodies included.";
    INFLIGHT: GAUGE "golden_inflight_requests" ["http_route"]
        "Requests in flight now in this sidecar, response bodies included.";
    INFLIGHT_LIMIT: GAUGE "golden_inflight_limit" []
        "Most requests this sidecar lets be in flight before it sheds; absent when there is no limit.";
    INFLIGHT_OLDEST: GAUGE "golden_inflight_oldest_age_seconds" ["http_route"]
        "Age of the oldest unfinished request, 0 when there is none; event streams and tunnels excluded.";
    INFLIGHT_PEAK: GAUGE "golden_inflight_peak" ["window"]
        "Highest number of requests in flight in the last 60 seconds, now included; with several workers the sum of each one's highest per sampling interval.";
    REQUEST_BYTES: COUNTER "golden_request_bytes_total" ["http_route"]
        "Request body bytes received from clients, without framing.";
    RESPONSE_BYTES: COUNTER "golden_response_bytes_total" ["http_route"]
        "Response body bytes handed to clients, without framing.";
    TUNNELS: GAUGE "golden_upgraded_connections" ["protocol"]
        "Connections upgraded by a 101 and open now.";
    TUNNELS_OPENED: COUNTER "golden_upgraded_connections_opened_total" ["protocol"]
        "Connections upgraded by a 101.";
    TUNNEL_BYTES: COUNTER "golden_upgraded_bytes_total" ["protocol", "direction"]
        "Bytes through upgraded connections after the 101; sent and received as the client sees it.";
    STREAMS: GAUGE "golden_streams" ["http_route"]
        "Event streams open now.";
    STREAM_DURATION: HISTOGRAM "golden_stream_duration_seconds" ["http_route", "end"]
        "Time from the request head read to the end of an event stream, by how it ended.";
    SERVER_CONNECTIONS: GAUGE "golden_server_connections" ["state"]
        "Client connections to this sidecar: active with a request, idle without one.";
    SERVER_CONNECTIONS_LIMIT: GAUGE "golden_server_connections_limit" []
        "Most client connections this sidecar accepts.";
    SERVER_CONNECTIONS_OPENED: COUNTER "golden_server_connections_opened_total" []
        "Client connections accepted.";
    SERVER_CONNECTIONS_REJECTED: COUNTER "golden_server_connections_rejected_total" ["reason"]
        "Client connections turned away before a request was read: at the connection limit (answered 503), or accept failures for want of file descriptors.";
    SERVER_CONNECTIONS_CLOSED: COUNTER "golden_server_connections_closed_total" ["reason"]
        "Client connections that ended: closed by the client, idle for too long, closed by this sidecar after an error or a last response, or by its drain.";
    STREAMS_LIMIT_REACHED: COUNTER "golden_server_streams_limit_reached_total" []
        "Times that an HTTP/2 connection came to have as many streams as limits.streams allows; more are refused.";
    PHASE: HISTOGRAM "golden_upstream_phase_seconds" ["phase"]
        "Where the time of a request goes: waiting for a backend connection, connecting, sending the request, waiting for the response head, relaying the body.";
    OVERHEAD: HISTOGRAM "golden_proxy_overhead_seconds" ["direction"]
        "Time spent inside this sidecar only: from a head read to the same head handed on, without waiting for a backend connection.";
    UPSTREAM_CONNECTIONS: GAUGE "http_client_open_connections" ["http_connection_state"]
        "Connections of this sidecar to the backend: active with a request, idle in the pool.";
    POOL_LIMIT: GAUGE "golden_upstream_pool_limit" []
        "Most connections this sidecar opens to the backend.";
    POOL_WAITING: GAUGE "golden_upstream_pool_waiting" []
        "Requests waiting now for a backend connection.";
    POOL_TIMEOUTS: COUNTER "golden_upstream_pool_timeouts_total" []
        "Requests that gave up waiting for a backend connection.";
    UPSTREAM_OPENED: COUNTER "golden_upstream_connections_opened_total" []
        "Connections opened to the backend.";
    UPSTREAM_CLOSED: COUNTER "golden_upstream_connections_closed_total" ["reason"]
        "Connections to the backend closed, by reason: idle too long, closed by the backend, error, drain, too old.";
    RETRIES: COUNTER "golden_upstream_retries_total" ["result"]
        "Requests replayed because the pooled connection had been closed before the backend could read them, by result of the replay.";
    ERRORS: COUNTER "golden_errors_total" ["http_route", "error_type", "fault", "phase"]
        "Failed requests, each exactly once: 5xx, transport failures, and 4xx that this sidecar made; 4xx of the backend and clients that left are not errors.";
    ABORTS: COUNTER "golden_client_aborts_total" ["http_route", "phase"]
        "Requests whose client left before the response was complete; not errors.";
    ABORT_WAIT: HISTOGRAM "golden_abort_wait_seconds" ["http_route"]
        "How long clients had waited when they left.";
    TRUNCATED: COUNTER "golden_truncated_responses_total" ["http_route"]
        "Responses whose status was sent and whose body stayed incomplete because the backend or this sidecar cut it; clients that left are not counted.";
    SERIES: GAUGE "golden_metric_series" ["family"]
        "Label sets of each family that is kept per route.";
    OVERFLOW: COUNTER "golden_metric_overflow_total" ["family"]
        "Observations recorded under http_route _other because the family has reached its limit of label sets.";
    ROUTES: GAUGE "golden_routes" ["kind"]
        "Route labels known to this sidecar, by where they come from.";
    ROUTES_FOLDED: COUNTER "golden_routes_folded_total" []
        "Routes that share the label _other because the limit of routes was reached.";
    WORKER_BUSY: GAUGE "golden_worker_busy_ratio" ["worker"]
        "Share of the last sampling interval that a worker thread of this sidecar was not idle.";
    RUNTIME_LAG: GAUGE "golden_runtime_lag_seconds" []
        "How late the timer of the latest worker ran in the last sampling interval, highest of all workers.";
    SATURATION: GAUGE "golden_saturation_ratio" ["resource"]
        "Used share of a limit now, 0 to 1. inflight, upstream_pool, server_connections: this sidecar's own; host_cpu (mean of the last sampling interval), host_memory: the whole host. Absent without a limit.";
    SAMPLER_TICKS: COUNTER "golden_sampler_ticks_total" []
        "Sampling rounds that ran.";
    SAMPLER_MISSED: COUNTER "golden_sampler_missed_ticks_total" []
        "Sampling rounds that were due and did not run.";
}

/// Families that are kept per route and label set, and so have a limit of label sets.
/// The number is the index of the family's budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Bounded {
    /// [`REQUESTS`]
    Requests,
    /// [`DURATION`]
    Duration,
    /// [`FIRST_BYTE`]
    FirstByte,
    /// [`ERRORS`]
    Errors,
    /// [`ABORTS`]
    Aborts,
    /// [`ABORT_WAIT`]
    AbortWait,
    /// [`STREAM_DURATION`]
    StreamDuration,
}

impl Bounded {
    /// Every bounded family, in index order.
    pub const ALL: [Bounded; 7] = [
        Bounded::Requests,
        Bounded::Duration,
        Bounded::FirstByte,
        Bounded::Errors,
        Bounded::Aborts,
        Bounded::AbortWait,
        Bounded::StreamDuration,
    ];
    /// How many bounded families there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The family's declaration.
    #[must_use]
    pub const fn family(self) -> &'static Family {
        match self {
            Bounded::Requests => &REQUESTS,
            Bounded::Duration => &DURATION,
            Bounded::FirstByte => &FIRST_BYTE,
            Bounded::Errors => &ERRORS,
            Bounded::Aborts => &ABORTS,
            Bounded::AbortWait => &ABORT_WAIT,
            Bounded::StreamDuration => &STREAM_DURATION,
        }
    }
}
