//! The active probe of the backend: is it there, asked once per interval.
//!
//! Without a path the question is whether somebody listens. On this machine the kernel answers it without touching the
//! backend: a connection would wait in the accept queue of a backend that hangs, second after second, until the probes
//! themselves had filled it. Elsewhere it is a TCP connect. With a path it is a GET of which 2xx and 3xx mean up. Every
//! probe opens a connection of its own, because a pooled one would go on answering for a backend that accepts nobody any
//! more. The result goes to a closure and to two gauges, so this room knows neither the admin port nor the stores. None
//! of it is traffic: no request family counts it.
//!
//! Readiness follows the backend within one interval and one probe, 2 s by default.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Gauge, Registry};
use reqwest::dns;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::config::{self, Place, Upstream};

/// The longest that one probe may take, whatever the interval. One second: a lost SYN is repeated after one, and a
/// backend that needs longer for a health check is not well.
const LONGEST: Duration = Duration::from_secs(1);

/// The two families that a probe writes.
#[derive(Clone, Debug)]
pub struct Gauges {
    /// `golden_backend_up`: 1 or 0.
    pub up: Gauge,
    /// `golden_backend_probe_duration_seconds`.
    pub duration_seconds: Gauge,
}

/// Whether connections to an address of this machine would be taken. `None`: that cannot be told from here.
pub type Listening = fn(SocketAddr) -> Option<Queue>;

/// What a listener does with the next connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// It has room for it.
    Open,
    /// As many as it takes are waiting.
    Full,
}

/// Why the backend counts as down. A closed set; the texts are ours, nothing that the backend sent is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// The host name has no address.
    Unresolved {
        /// The name.
        host: String,
    },
    /// The name service has not answered yet.
    Resolving {
        /// The name.
        host: String,
        /// How long this probe waited.
        limit: Duration,
    },
    /// Nobody listens there.
    Refused(SocketAddr),
    /// Somebody listens there and accepts nobody.
    QueueFull(SocketAddr),
    /// No answer to the connect.
    ConnectTimeout {
        /// Where to.
        address: SocketAddr,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The connect failed in another way.
    Connect {
        /// Where to.
        address: SocketAddr,
        /// The kind of failure.
        kind: io::ErrorKind,
    },
    /// The path answered with a status that does not mean up.
    Status {
        /// The configured path.
        path: String,
        /// The status code.
        status: u16,
    },
    /// The path did not answer in time.
    NoAnswer {
        /// The configured path.
        path: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The connection was made, but no answer could be read from it.
    BadAnswer {
        /// The configured path.
        path: String,
    },
}

/// Probes one backend.
#[derive(Debug)]
pub struct Probe {
    resolver: Resolver,
    http: Option<HttpProbe>,
    interval: Duration,
    gauges: Gauges,
    listening: Listening,
}

/// The HTTP half, when a path is configured.
#[derive(Debug)]
struct HttpProbe {
    client: reqwest::Client,
    url: String,
    path: String,
    addresses: Addresses,
}

/// Addresses that the next GET may connect to: found by our resolver, read by reqwest's hook.
#[derive(Clone, Debug, Default)]
struct Addresses(Arc<Mutex<Vec<SocketAddr>>>);

/// Turns the upstream's host into addresses, with one question to the system at a time: a name service that hangs would
/// otherwise collect one blocked thread per probe.
#[derive(Debug)]
struct Resolver {
    host: String,
    port: u16,
    pending: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

// === impl Gauges ===

impl Gauges {
    /// Makes both and registers them.
    ///
    /// # Errors
    /// When the registry already has one of them.
    pub fn new(registry: &Registry) -> prometheus::Result<Gauges> {
        let up = Gauge::new(
            "golden_backend_up",
            "Whether the last readiness probe of the backend succeeded, 1 or 0; 0 before the first.",
        )?;
        let duration_seconds = Gauge::new(
            "golden_backend_probe_duration_seconds",
            "Time that the last readiness probe of the backend took, whether it succeeded or not; 0 before the first.",
        )?;
        registry.register(Box::new(up.clone()))?;
        registry.register(Box::new(duration_seconds.clone()))?;
        Ok(Gauges { up, duration_seconds })
    }
}

// === impl Down ===

impl fmt::Display for Down {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Down::Unresolved { host } => write!(out, "host {host} has no address"),
            Down::Resolving { host, limit } => write!(out, "looking up host {host} takes longer than {limit:?}"),
            Down::Refused(address) => write!(out, "connect to {address} refused"),
            Down::QueueFull(address) => write!(out, "the accept queue of {address} is full"),
            Down::ConnectTimeout { address, limit } => write!(out, "connect to {address} timed out after {limit:?}"),
            Down::Connect { address, kind } => write!(out, "connect to {address} failed: {kind}"),
            Down::Status { path, status } => write!(out, "GET {path} answered {status}"),
            Down::NoAnswer { path, limit } => write!(out, "GET {path} timed out after {limit:?}"),
            Down::BadAnswer { path } => write!(out, "GET {path} got no readable answer"),
        }
    }
}

// === impl Probe ===

impl Probe {
    /// Prepares a probe; nothing is sent yet. `listening`: asks the kernel about addresses of this machine.
    ///
    /// # Errors
    /// When the HTTP client cannot be made, or path and upstream do not make a URL.
    pub fn new(
        upstream: &Upstream,
        config: &config::Readiness,
        gauges: Gauges,
        listening: Listening,
    ) -> Result<Probe, reqwest::Error> {
        let config::Readiness { path, interval } = config;
        let http = path.as_deref().map(|path| HttpProbe::new(upstream, path)).transpose()?;
        let (host, port) = match upstream.place.clone() {
            Place::Tcp { host, port } => (host, port),
            Place::Unix(_) => ("localhost".to_owned(), 0),
        };
        Ok(Probe { resolver: Resolver { host, port, pending: None }, http, interval: *interval, gauges, listening })
    }

    /// Probes for ever, first at once. `report` is called after every probe.
    pub async fn run(mut self, mut report: impl FnMut(Result<(), Down>)) {
        let mut ticker = interval(self.interval);
        // A probe that came late is not made up for: two in a row tell no more than one.
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticker.tick().await;
            let begun = Instant::now();
            let outcome = self.ask(self.interval.min(LONGEST)).await;
            self.gauges.duration_seconds.set(begun.elapsed().as_secs_f64());
            self.gauges.up.set(if outcome.is_ok() { 1.0 } else { 0.0 });
            report(outcome);
        }
    }

    /// One probe, which takes no longer than `limit`.
    async fn ask(&mut self, limit: Duration) -> Result<(), Down> {
        let deadline = Instant::now() + limit;
        let addresses = self.resolver.addresses(limit).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        match &self.http {
            None => connect(&self.resolver.host, &addresses, left, self.listening).await,
            Some(http) => http.get(addresses, left).await,
        }
    }
}

/// Whether one of the addresses takes connections. Each gets an equal share of the time, so that a dead first one leaves
/// some for the others.
async fn connect(host: &str, addresses: &[SocketAddr], limit: Duration, listening: Listening) -> Result<(), Down> {
    let mut down = Down::Unresolved { host: host.to_owned() };
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for &address in addresses {
        match listening(address) {
            Some(Queue::Open) => return Ok(()),
            Some(Queue::Full) => {
                down = Down::QueueFull(address);
                continue;
            }
            // Nobody of this machine, or somebody behind a translated address.
            None => {}
        }
        down = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Down::Refused(address),
            Ok(Err(error)) => Down::Connect { address, kind: error.kind() },
            Err(_) => Down::ConnectTimeout { address, limit: share },
        };
    }
    Err(down)
}

// === impl HttpProbe ===

impl HttpProbe {
    fn new(upstream: &Upstream, path: &str) -> Result<HttpProbe, reqwest::Error> {
        let addresses = Addresses::default();
        let client = reqwest::Client::builder()
            // The probe asks this backend, not what the environment or the backend may point to.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .pool_max_idle_per_host(0)
            .user_agent(concat!("golden-sidecar/", env!("CARGO_PKG_VERSION"), " readiness"))
            .dns_resolver(addresses.clone())
            .build()?;
        let url = format!("http://{}{path}", upstream.authority());
        client.get(&url).build()?;
        Ok(HttpProbe { client, url, path: path.to_owned(), addresses })
    }

    async fn get(&self, addresses: Vec<SocketAddr>, limit: Duration) -> Result<(), Down> {
        let first = addresses.first().copied();
        self.addresses.set(addresses);
        let path = || self.path.clone();
        // The body is not read: dropping the response closes the connection.
        match self.client.get(&self.url).timeout(limit).send().await {
            Ok(response) if response.status().is_success() || response.status().is_redirection() => Ok(()),
            Ok(response) => Err(Down::Status { path: path(), status: response.status().as_u16() }),
            Err(error) if error.is_timeout() => Err(Down::NoAnswer { path: path(), limit }),
            Err(error) => Err(match (error.is_connect(), first, io_kind(&error)) {
                (true, Some(address), Some(io::ErrorKind::ConnectionRefused)) => Down::Refused(address),
                (true, Some(address), kind) => Down::Connect { address, kind: kind.unwrap_or(io::ErrorKind::Other) },
                _ => Down::BadAnswer { path: path() },
            }),
        }
    }
}

/// The kind of the first I/O error among the causes.
fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}

// === impl Addresses ===

impl Addresses {
    fn set(&self, addresses: Vec<SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn get(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl dns::Resolve for Addresses {
    fn resolve(&self, _: dns::Name) -> dns::Resolving {
        let addresses: dns::Addrs = Box::new(self.get().into_iter());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

// === impl Resolver ===

impl Resolver {
    /// The addresses of the host, at least one.
    async fn addresses(&mut self, limit: Duration) -> Result<Vec<SocketAddr>, Down> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        let question = self.pending.get_or_insert_with(|| {
            let (host, port) = (self.host.clone(), self.port);
            tokio::spawn(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
        });
        let Ok(answer) = timeout(limit, question).await else {
            // The next probe goes on waiting for the same answer.
            return Err(Down::Resolving { host: self.host.clone(), limit });
        };
        self.pending = None;
        match answer {
            Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            _ => Err(Down::Unresolved { host: self.host.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_short_lines_of_our_own_words() {
        let address: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let (path, host, limit) = ("/healthz".to_owned(), "api".to_owned(), Duration::from_secs(1));
        for (down, expected) in [
            (Down::Unresolved { host: host.clone() }, "host api has no address"),
            (Down::Resolving { host, limit }, "looking up host api takes longer than 1s"),
            (Down::Refused(address), "connect to 127.0.0.1:8080 refused"),
            (Down::QueueFull(address), "the accept queue of 127.0.0.1:8080 is full"),
            (Down::ConnectTimeout { address, limit }, "connect to 127.0.0.1:8080 timed out after 1s"),
            (
                Down::Connect { address, kind: io::ErrorKind::HostUnreachable },
                "connect to 127.0.0.1:8080 failed: host unreachable",
            ),
            (Down::Status { path: path.clone(), status: 500 }, "GET /healthz answered 500"),
            (Down::NoAnswer { path: path.clone(), limit }, "GET /healthz timed out after 1s"),
            (Down::BadAnswer { path }, "GET /healthz got no readable answer"),
        ] {
            assert_eq!(down.to_string(), expected);
        }
    }
}
