//! What was asked: flags, environment and file become one resolved [`Config`]. A leaf: it names no other room but
//! labels. Two stages (`raw` holds what was given, `resolve` checks it), no side effect in either.
//!
//! | file | what it holds |
//! |---|---|
//! | `cli.rs` | the command line as clap sees it |
//! | `raw.rs` | the file and the environment: everything optional, unknown keys refused |
//! | `resolve.rs` | flag > environment > file > default, range checks, units |
//! | `show.rs` | the effective configuration, in the shape of the file, secrets redacted |
//! | `error.rs` | one sentence per mistake: key, what was found, what is accepted |

use std::net::SocketAddr;
use std::time::Duration;

use crate::labels::Method;

/// The resolved configuration: every value present, in base units, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The backend that all traffic goes to.
    pub upstream: Upstream,
    /// Where the proxy listens. Port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Where the admin endpoints listen.
    pub admin: SocketAddr,
    /// Worker threads of the data plane; at least 1.
    pub workers: usize,
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// How much of everything there may be.
    pub limits: Limits,
    /// How the process ends.
    pub drain: Drain,
    /// Declared route templates, in the order given (order does not matter for matching).
    pub routes: Vec<RouteTemplate>,
    /// Upper edges of the latency histograms, seconds, strictly increasing, without +Inf.
    pub buckets: Vec<f64>,
    /// Which requests count as `traffic="probe"`.
    pub probes: Probes,
    /// How the backend is asked whether it is up.
    pub readiness: Readiness,
    /// Time between two samples of the saturation sources.
    pub sample_interval: Duration,
    /// What happens to `X-Forwarded-*` fields that come in.
    pub forwarded: Forwarded,
    /// Whether `Via` is added. Off: nginx and others stop compressing when they see it.
    pub via: bool,
}

/// The backend's address as it was written, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Host name or address literal, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Deadlines. Each is checked on a coarse clock of 50 ms, so each may fire up to 100 ms late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// First byte to end of a request head. 10 s: the deadline that slow-header attacks meet.
    pub client_head: Duration,
    /// Silence inside a request body.
    pub client_body: Duration,
    /// A keep-alive connection without a request. 75 s is nginx's, which load balancers are tuned for.
    pub client_idle: Duration,
    /// TCP connect to the backend. 1 s: a SYN that was lost once is repeated after 1 s.
    pub connect: Duration,
    /// Wait for a free backend connection when all are busy.
    pub pool_wait: Duration,
    /// Request sent to response head.
    pub head: Duration,
    /// Silence inside a response body; event streams and tunnels excepted.
    pub body: Duration,
    /// A pooled connection that nothing uses.
    pub upstream_idle: Duration,
    /// Age at which a pooled connection is not used again, so that DNS changes and rebalancing take hold.
    pub upstream_age: Duration,
}

/// Bounds. `None` means no limit, and then no limit series either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections over all workers.
    pub connections: usize,
    /// Bytes of a request or response head.
    pub head_bytes: usize,
    /// Fields in a request or response head, and in a trailer section.
    pub headers: usize,
    /// Bytes of the request line (method, target, version). Above it 414.
    pub request_line_bytes: usize,
    /// Bytes of a request body. Above it 413.
    pub request_body_bytes: Option<u64>,
    /// Concurrent HTTP/2 streams per connection.
    pub streams: u32,
    /// Concurrent requests over all workers; above it 503, counted as shed.
    pub inflight: Option<usize>,
    /// Connections to the backend over all workers.
    pub upstream_connections: usize,
    /// Requests over all workers that may wait for one of them.
    pub upstream_waiting: usize,
    /// Label sets per metric family.
    pub series: usize,
}

/// The end of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// After SIGTERM: not ready, but still accepting, so that load balancers notice first.
    pub grace: Duration,
    /// Then requests in flight have this long.
    pub timeout: Duration,
    /// At the end `/metrics` stays until scraped once more, or this long.
    pub last_scrape: Duration,
}

/// A declared route: a path template and the methods it holds for.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTemplate {
    /// `/users/{id}`; `{*rest}` at the end takes the remainder.
    pub path: String,
    /// Empty: all methods.
    pub methods: Vec<Method>,
    /// Latency edges of this route; `None`: the global ones.
    pub buckets: Option<Vec<f64>>,
}

/// Rules that mark a request as a health probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Exact paths, without query.
    pub paths: Vec<String>,
    /// Prefixes of the `User-Agent` field.
    pub user_agents: Vec<String>,
}

/// How the backend's readiness is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// HTTP path asked with GET; `None`: a TCP connect.
    pub path: Option<String>,
    /// Time between two probes.
    pub interval: Duration,
}

/// Policy for incoming `X-Forwarded-*` fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// Keep what came, add the peer to the list. `-Proto` and `-Host` are kept when present.
    Append,
    /// Drop what came, state only the peer.
    Replace,
    /// Append for peers in these networks, replace for all others.
    Trust(Vec<Network>),
}

/// An address block in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The network address.
    pub address: std::net::IpAddr,
    /// Leading bits that count.
    pub prefix: u8,
}
