//! Every family that is summed from the shards or noted by the sampler: name, type, labels and help beside each other,
//! declared once. HELP says scope and statistic. Families about this process are declared in `own.rs`.

use crate::signals::snapshot::Kind;

/// What a family is called and means.
#[derive(Debug)]
pub struct Family {
    /// The name on the page.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Label names, in the order of the values.
    pub labels: &'static [&'static str],
    /// One line: what is counted, in which scope, from when until when.
    pub help: &'static str,
}

macro_rules! families {
    ($(#[$doc:meta])* $list:ident: $($konst:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(#[doc = $help] pub static $konst: Family = Family {
            name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help,
        };)+
        $(#[$doc])*
        pub static $list: &[&Family] = &[$(&$konst),+];
    };
}

families! {
    /// Families that a scrape computes: from the shards, from the routes, and from this sidecar's own pairs.
    COMPUTED:
    DURATION: Histogram "http_server_request_duration_seconds"
        ["http_request_method", "http_route", "http_response_status_code", "error_type"]
        "Time of requests in this sidecar, from the request head read to the last response byte handed to the client connection; aborted requests included, upgrades and event streams not.";
    FIRST_BYTE: Histogram "golden_time_to_first_byte_seconds" ["http_route", "outcome"]
        "Time of requests in this sidecar, from the request head read to the response head handed to the client connection; for outcome aborted, how long the client waited before it left.";
    REQUESTS: Counter "golden_requests_total"
        ["http_route", "http_request_method", "http_response_status_code", "origin", "traffic"]
        "Requests of clients that ended in this sidecar, each exactly once, event streams and upgrades included; origin is who made the status or the end.";
    ACTIVE_REQUESTS: Gauge "http_server_active_requests" ["http_request_method"]
        "Requests in flight now in this sidecar, response bodies included.";
    INFLIGHT: Gauge "golden_inflight_requests" ["http_route"]
        "Requests in flight now in this sidecar, response bodies included.";
    INFLIGHT_LIMIT: Gauge "golden_inflight_limit" []
        "Most requests this sidecar lets be in flight before it sheds; absent when there is no limit.";
    INFLIGHT_OLDEST: Gauge "golden_inflight_oldest_age_seconds" ["http_route"]
        "Age of the oldest unfinished request in this sidecar now, 0 when there is none; event streams and tunnels excluded.";
    INFLIGHT_PEAK: Gauge "golden_inflight_peak" ["window"]
        "Highest number of requests in flight in this sidecar in the last 60 seconds, now included; with several workers the sum of each one's highest per sampling interval.";
    REQUEST_BYTES: Counter "golden_request_bytes_total" ["http_route"]
        "Request body bytes received from clients, without framing.";
    RESPONSE_BYTES: Counter "golden_response_bytes_total" ["http_route"]
        "Response body bytes handed to clients, without framing.";
    TUNNELS: Gauge "golden_upgraded_connections" ["protocol"]
        "Client connections of this sidecar that a 101 has upgraded and that are open now.";
    TUNNELS_OPENED: Counter "golden_upgraded_connections_opened_total" ["protocol"]
        "Client connections of this sidecar that a 101 has upgraded.";
    TUNNEL_BYTES: Counter "golden_upgraded_bytes_total" ["protocol", "direction"]
        "Bytes through upgraded client connections of this sidecar after the 101; sent and received as the client sees it.";
    RPC_DURATION: Histogram "rpc_server_call_duration_seconds" ["rpc_method", "rpc_response_status_code", "error_type"]
        "Time of gRPC calls in this sidecar, from the request head read to the last response byte handed to the client connection, cancelled calls and streams included; the status is the one that the trailers tell, CANCELLED if the client left.";
    STREAMS: Gauge "golden_streams" ["http_route"]
        "Event streams through this sidecar that are open now, and gRPC calls that are from their second message in one direction on.";
    STREAM_DURATION: Histogram "golden_stream_duration_seconds" ["http_route", "end"]
        "Time of event streams and gRPC streams in this sidecar, from the request head read to the end of the stream, by how it ended.";
    SERVER_CONNECTIONS: Gauge "golden_server_connections" ["state"]
        "Client connections to this sidecar: active with a request, idle without one.";
    SERVER_CONNECTIONS_LIMIT: Gauge "golden_server_connections_limit" []
        "Most client connections this sidecar accepts: limits.connections, or what its file descriptors allow if that is less.";
    SERVER_CONNECTIONS_OPENED: Counter "golden_server_connections_opened_total" []
        "Client connections that this sidecar accepted.";
    SERVER_CONNECTIONS_REJECTED: Counter "golden_server_connections_rejected_total" ["reason"]
        "Client connections that this sidecar turned away before a request was read: at the connection limit (answered 503), or for want of file descriptors: at the lower number that these allow (likewise), closed because none was left, or not accepted at all.";
    SERVER_CONNECTIONS_CLOSED: Counter "golden_server_connections_closed_total" ["reason"]
        "Client connections of this sidecar that ended: closed by the client, idle for too long, closed by this sidecar after an error or a last response, or by its drain.";
    TLS_FAILURES: Counter "golden_tls_handshake_failures_total" ["side", "reason"]
        "TLS handshakes of this sidecar that failed, with clients and with the backend, by reason; connections that end before their first byte are not counted.";
    STREAMS_LIMIT_REACHED: Counter "golden_server_streams_limit_reached_total" []
        "Times that an HTTP/2 connection of a client came to have as many streams as limits.streams allows; more are refused.";
    PHASE: Histogram "golden_upstream_phase_seconds" ["phase"]
        "Where the time of a request in this sidecar goes, one observation per phase passed: waiting for a backend connection, connecting, the TLS handshake, sending the request, waiting for the response head, relaying the body.";
    OVERHEAD: Histogram "golden_proxy_overhead_seconds" ["direction"]
        "Time spent inside this sidecar only: from a head read to the same head handed on, without waiting for a backend connection.";
    UPSTREAM_CONNECTIONS: Gauge "http_client_open_connections" ["http_connection_state"]
        "Connections of this sidecar to the backend: active with a request, idle in the pool.";
    POOL_LIMIT: Gauge "golden_upstream_pool_limit" []
        "Most connections this sidecar opens to the backend.";
    POOL_WAITING: Gauge "golden_upstream_pool_waiting" []
        "Requests in this sidecar waiting now for a backend connection.";
    POOL_TIMEOUTS: Counter "golden_upstream_pool_timeouts_total" []
        "Requests in this sidecar that gave up waiting for a backend connection.";
    UPSTREAM_OPENED: Counter "golden_upstream_connections_opened_total" []
        "Connections that this sidecar opened to the backend.";
    UPSTREAM_CLOSED: Counter "golden_upstream_connections_closed_total" ["reason"]
        "Connections of this sidecar to the backend that were closed, by reason: idle too long, closed by the backend, error, drain, too old.";
    RETRIES: Counter "golden_upstream_retries_total" ["result"]
        "Requests that this sidecar replayed because the pooled connection had been closed before the backend could read them, by result of the replay.";
    ERRORS: Counter "golden_errors_total" ["http_route", "error_type", "fault", "phase"]
        "Requests of clients that failed, each exactly once: 5xx, gRPC calls that failed by the server's fault, transport failures, 4xx that this sidecar made, and what a configured rule or objective says is an error; 4xx of the backend and clients that left are not errors.";
    ABORTS: Counter "golden_client_aborts_total" ["http_route", "phase"]
        "Requests whose client left before the response was complete; not errors, and event streams and gRPC streams excluded.";
    ABORT_WAIT: Histogram "golden_abort_wait_seconds" ["http_route"]
        "How long clients had waited since their request head was read when they left before the response was complete; event streams and gRPC streams excluded.";
    TRUNCATED: Counter "golden_truncated_responses_total" ["http_route"]
        "Responses whose status was sent and whose body stayed incomplete because the backend or this sidecar cut it; clients that left are not counted.";
    IMPLICIT_ERRORS: Counter "golden_implicit_errors_total" ["http_route", "rule"]
        "2xx answers of the backend that ended complete in this sidecar and that a configured rule says are errors, each exactly once: by the first rule that holds; they are in golden_errors_total as implicit.";
    SLO_REQUESTS: Counter "golden_slo_requests_total" ["slo", "result"]
        "Requests that ended in this sidecar on the routes of an objective, each exactly once: good within its latency threshold (exact, not that of a bucket), slow above it, error if they failed not by the client's fault; aborts, event streams, gRPC streams, tunnels and probes are excluded.";
    SLO_OBJECTIVE: Gauge "golden_slo_objective_ratio" ["slo"]
        "Share of the requests on the routes of an objective that is to be good, as the configuration of this sidecar says.";
    SLO_THRESHOLD: Gauge "golden_slo_latency_threshold_seconds" ["slo"]
        "Longest time that a good request of an objective may take, as the configuration of this sidecar says; absent when an objective has none.";
    SERIES: Gauge "golden_metric_series" ["family"]
        "Label sets that this sidecar keeps of each family that has http_route, besides those of _other: the number that limits.series bounds, idle ones included.";
    OVERFLOW: Counter "golden_metric_overflow_total" ["family"]
        "Observations that this sidecar recorded under http_route _other because a limit was reached: of routes, of the family's label sets, or of the memory for them.";
    MEMORY: Gauge "golden_metric_memory_bytes" []
        "Memory that the label sets and routes of this sidecar's metrics take, as far as it grows with them.";
    MEMORY_LIMIT: Gauge "golden_metric_memory_limit_bytes" []
        "Most memory that the label sets and routes of this sidecar's metrics may take; what comes later is recorded under http_route _other.";
    ROUTES: Gauge "golden_routes" ["kind"]
        "Route labels known to this sidecar, by where they come from; pending: no labels, but words of paths that wait for more evidence before they are part of one.";
    ROUTES_FOLDED: Counter "golden_routes_folded_total" []
        "Places of learned paths whose siblings this sidecar folded into one parameter since it started; their new requests share one label.";
    ROUTES_FORGOTTEN: Counter "golden_routes_forgotten_total" []
        "Words of paths that waited for more evidence in this sidecar and were forgotten because as many wait as may; seen again they wait anew.";
    WORKER_BUSY: Gauge "golden_worker_busy_ratio" ["worker"]
        "Share of the last sampling interval that a worker thread of this sidecar was not idle.";
    RUNTIME_LAG: Gauge "golden_runtime_lag_seconds" []
        "How late a timer of this sidecar's workers ran in the last sampling interval, highest of all workers.";
    SATURATION: Gauge "golden_saturation_ratio" ["resource"]
        "Used share of a limit now, 0 to 1 and above. The backend's at the latest sampling round: cpu (mean of the interval), memory (working set or resident, the smaller), fds (fullest process), threads, accept_queue (fullest socket), pool:NAME; this sidecar's own: inflight, upstream_pool, server_connections; the whole host's: host_cpu (mean of the interval), host_memory. Absent without a limit.";
    SATURATION_SAMPLED: Histogram "golden_saturation_sampled_ratio" ["resource"]
        "Used share of a limit of the backend, of this sidecar or of the host, one observation per sampling round, so that bursts between two scrapes are seen; resources that change fast only.";
    BOTTLENECK: Gauge "golden_saturation_bottleneck" ["resource"]
        "1 for the resource of the backend, of this sidecar or of the host whose golden_saturation_ratio is highest now, 0 for the others; all 0 when nothing is used. The fullest may be nearly empty: read its ratio too.";
    SAMPLER_TICKS: Counter "golden_sampler_ticks_total" []
        "Sampling rounds of this sidecar that ran.";
    SAMPLER_MISSED: Counter "golden_sampler_missed_ticks_total" []
        "Sampling rounds of this sidecar that were due and did not run.";
}

families! {
    /// Families that the sampler notes: what is not noted in the latest round is not on the page.
    SAMPLED:
    SATURATION_PEAK: Gauge "golden_saturation_peak_ratio" ["resource", "window"]
        "Highest used share of a limit of the backend, of this sidecar or of the host in any sampling round of the last 60 seconds; scrapes do not reset it.";
    TIME_TO_LIMIT: Gauge "golden_saturation_time_to_limit_seconds" ["resource"]
        "Time until a limit of the backend or of the host is reached if the use grows as it did lately (robust slope over up to an hour); absent when it does not grow or the fit is poor.";
    BACKEND_CPU: Counter "golden_backend_cpu_seconds_total" ["mode"]
        "CPU time of all processes of the backend, those that have ended included.";
    BACKEND_CPU_LIMIT: Gauge "golden_backend_cpu_limit_cores" ["source"]
        "CPUs that the backend may use at once: the smallest of the limits that are known, and who sets it.";
    BACKEND_MEMORY_LIMIT: Gauge "golden_backend_memory_limit_bytes" ["source"]
        "Memory that the backend may use: the smallest of the limits that are known, and who sets it.";
    BACKEND_FDS_LIMIT: Gauge "golden_backend_fds_limit" ["source"]
        "File descriptors that one process of the backend may open: the limit of its fullest process, so not of the sum golden_backend_fds.";
    BACKEND_THREADS_LIMIT: Gauge "golden_backend_threads_limit" ["source"]
        "Threads that the backend may have: the smallest of the limits that are known, and who sets it; rlimit counts all threads of its user.";
    BACKEND_MEMORY: Gauge "golden_backend_memory_bytes" ["kind"]
        "Memory of the backend. resident, virtual: sum over its processes, shared pages once in each; working_set, anon, file: its cgroup, with whatever else is in it.";
    BACKEND_FDS: Gauge "golden_backend_fds" []
        "File descriptors that are open in all processes of the backend, summed.";
    BACKEND_THREADS: Gauge "golden_backend_threads" []
        "Threads of all processes of the backend.";
    BACKEND_PROCESSES: Gauge "golden_backend_processes" []
        "Processes of the backend.";
    BACKEND_START_TIME: Gauge "golden_backend_start_time_seconds" []
        "Unix time at which the first process of the backend started.";
    BACKEND_RESTARTS: Counter "golden_backend_restarts_total" ["reason"]
        "Times that the backend became another process: it had ended by itself, by a signal, for want of memory, or was replaced and how is not known.";
    BACKEND_CPU_PERIODS: Counter "golden_backend_cpu_periods_total" []
        "Enforcement periods of the CPU quota of the backend's cgroup in which it was runnable.";
    BACKEND_CPU_THROTTLED_PERIODS: Counter "golden_backend_cpu_throttled_periods_total" []
        "Enforcement periods of the CPU quota of the backend's cgroup in which it used the quota up.";
    BACKEND_CPU_THROTTLED: Counter "golden_backend_cpu_throttled_seconds_total" []
        "Time for which the backend's cgroup was held back by its CPU quota, summed over CPUs.";
    BACKEND_RUNQUEUE_WAIT: Counter "golden_backend_runqueue_wait_seconds_total" []
        "Time for which threads of the backend were ready to run and had no CPU, summed over threads.";
    BACKEND_PRESSURE_WAITING: Counter "golden_backend_pressure_waiting_seconds_total" ["resource", "scope"]
        "Time in which some tasks of the backend's cgroup, or of the host, waited for this resource (PSI some).";
    BACKEND_PRESSURE_STALLED: Counter "golden_backend_pressure_stalled_seconds_total" ["resource", "scope"]
        "Time in which all tasks of the backend's cgroup, or of the host, waited for this resource at once (PSI full).";
    BACKEND_MEMORY_EVENTS: Counter "golden_backend_memory_events_total" ["event"]
        "Events at a memory limit of the backend's cgroup; with cgroup version 2 those of cgroups below it included.";
    BACKEND_ACCEPT_QUEUE: Gauge "golden_backend_accept_queue_connections" ["port"]
        "Connections to a listener of the backend that its accept() has not taken yet.";
    BACKEND_ACCEPT_QUEUE_LIMIT: Gauge "golden_backend_accept_queue_limit" ["port"]
        "Backlog of a listener of the backend: connections that may wait for its accept().";
    BACKEND_UNREAD: Gauge "golden_backend_unread_bytes" ["stat"]
        "Bytes that have arrived at the backend's connections from its clients and that it has not read: over all connections, and of the fullest one.";
    NETNS_LISTEN_OVERFLOWS: Counter "golden_netns_listen_overflows_total" []
        "Connections that found an accept queue full, over all listeners of the network namespace.";
    NETNS_LISTEN_DROPS: Counter "golden_netns_listen_drops_total" []
        "Connections dropped at a listener for any reason, over all listeners of the network namespace.";
    POOL_CONNECTIONS: Gauge "golden_pool_connections" ["pool", "state", "source"]
        "Connections of a pool of the backend by what they do, and requests that wait for one; reported by the backend itself, or inferred from its sockets (in use: sent later than received; where its descriptors cannot be read, of all processes of its user).";
    POOL_SIZE_LIMIT: Gauge "golden_pool_limit" ["pool"]
        "Most connections that a pool of the backend opens; absent when it is not known.";
    POOL_GAVE_UP: Counter "golden_pool_timeouts_total" ["pool"]
        "Times that somebody gave up waiting for a connection of a pool of the backend, as it reports itself.";
    SOURCE_AVAILABLE: Gauge "golden_sampler_source_available" ["source"]
        "1 when this sidecar's sampler could read this source in its latest attempt, 0 when not; golden-sidecar doctor says why.";
    SAMPLER_FAILURES: Counter "golden_sampler_failures_total" ["source", "reason"]
        "Readings of a source by this sidecar's sampler that failed, by reason; a source that is absent or refused counts once, not every round.";
    SAMPLER_READ_SECONDS: Counter "golden_sampler_read_seconds_total" ["source"]
        "Time that this sidecar's sampler has spent on reading a source.";
}

/// Every family of this file.
pub fn all() -> impl Iterator<Item = &'static Family> {
    COMPUTED.iter().chain(SAMPLED).copied()
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
    /// [`IMPLICIT_ERRORS`]
    ImplicitErrors,
    /// [`ABORTS`]
    Aborts,
    /// [`ABORT_WAIT`]
    AbortWait,
    /// [`STREAM_DURATION`]
    StreamDuration,
    /// [`RPC_DURATION`]
    RpcDuration,
}

impl Bounded {
    /// Every bounded family, in index order.
    pub const ALL: [Bounded; 9] = [
        Bounded::Requests,
        Bounded::Duration,
        Bounded::FirstByte,
        Bounded::Errors,
        Bounded::ImplicitErrors,
        Bounded::Aborts,
        Bounded::AbortWait,
        Bounded::StreamDuration,
        Bounded::RpcDuration,
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
            Bounded::ImplicitErrors => &IMPLICIT_ERRORS,
            Bounded::Aborts => &ABORTS,
            Bounded::AbortWait => &ABORT_WAIT,
            Bounded::StreamDuration => &STREAM_DURATION,
            Bounded::RpcDuration => &RPC_DURATION,
        }
    }
}
