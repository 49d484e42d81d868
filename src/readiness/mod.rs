//! The active probe of the backend: is it there, asked once per interval.
//!
//! Without a path or a gRPC service the question is whether somebody listens. On this machine the kernel answers it without
//! touching the backend: a connection would wait in the accept queue of a backend that hangs, second after second, until
//! the probes themselves had filled it. Elsewhere it is a connect, and no more than that, whatever is spoken there: a
//! handshake or a preface each second is work that a backend has not asked for. Who wants to know more names something to
//! ask for. A path is asked with GET, and 2xx and 3xx mean up; a gRPC service by `grpc.health.v1`, and SERVING means up;
//! both in the protocol that requests go in. Every probe opens a connection of its own, because a pooled one would go on
//! answering for a backend that accepts nobody any more. The result goes to a closure and to two gauges, so this room knows
//! neither the admin port nor the stores. None of it is traffic: no request family counts it.
//!
//! Readiness follows the backend within one interval and one probe, 2 s by default. A probe for which this process has no
//! descriptor left tells nothing of the backend: the last verdict stays, and the log says that it is an old one.
//!
//! | file | what it holds |
//! |---|---|
//! | `ask.rs` | one request over a new connection |
//! | `health.rs` | messages of `grpc.health.v1` |

mod ask;
mod health;

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Gauge, Registry};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::config::{self, Upstream};
use crate::descriptors;
use crate::labels::{RpcStatus, TlsFailure};
use crate::readiness::ask::Asker;
pub use crate::readiness::health::Health;
use crate::transport::{Address, Addresses, Stream, tls};

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
pub type Listening = fn(&Address) -> Option<Queue>;

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
    /// No connection.
    Connect {
        /// Where to.
        place: String,
        /// Why not.
        why: NoConnection,
        /// Whether the name of the backend leads nowhere any more; these are its last addresses then.
        name_lost: bool,
    },
    /// The answer does not mean up.
    Answer {
        /// What was asked.
        asked: String,
        /// What came.
        answer: Answer,
    },
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoConnection {
    /// Nobody listens there.
    Refused,
    /// Somebody listens there and accepts nobody.
    QueueFull,
    /// No answer in time.
    Timeout {
        /// How long it was waited for.
        limit: Duration,
    },
    /// Another failure.
    Failed(io::ErrorKind),
}

/// An answer that does not mean up, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A status of HTTP.
    Status(u16),
    /// Nothing in time.
    Timeout {
        /// How long it was waited for.
        limit: Duration,
    },
    /// The connection was made, but no answer could be read from it.
    Unreadable,
    /// No TLS.
    Tls(TlsFailure),
    /// It chose HTTP/1.1, over which there is no gRPC.
    NoHttp2,
    /// A health that is not SERVING.
    Health(Health),
    /// The call ended with this status of gRPC.
    Rpc(RpcStatus),
}

/// Why a probe did not find the backend up.
#[derive(Debug)]
enum NotUp {
    /// It is down.
    Down(Down),
    /// There was no descriptor to ask with.
    NotAsked,
}

impl From<Down> for NotUp {
    fn from(down: Down) -> NotUp {
        NotUp::Down(down)
    }
}

/// Probes one backend.
#[derive(Debug)]
pub struct Probe {
    addresses: watch::Receiver<Addresses>,
    asker: Option<Asker>,
    interval: Duration,
    gauges: Gauges,
    listening: Listening,
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
            Down::Connect { place, why, name_lost } => {
                match why {
                    NoConnection::Refused => write!(out, "connect to {place} refused"),
                    NoConnection::QueueFull => write!(out, "the accept queue of {place} is full"),
                    NoConnection::Timeout { limit } => write!(out, "connect to {place} timed out after {limit:?}"),
                    NoConnection::Failed(kind) => write!(out, "connect to {place} failed: {kind}"),
                }?;
                if *name_lost { write!(out, ", and its name leads nowhere any more") } else { Ok(()) }
            }
            Down::Answer { asked, answer } => match answer {
                Answer::Status(status) => write!(out, "{asked} answered {status}"),
                Answer::Timeout { limit } => write!(out, "{asked} timed out after {limit:?}"),
                Answer::Unreadable => write!(out, "{asked} got no readable answer"),
                Answer::Tls(failure) => write!(out, "{asked} failed in the TLS handshake: {}", failure.as_str()),
                Answer::NoHttp2 => write!(out, "{asked} needs HTTP/2, and the backend chose HTTP/1.1"),
                Answer::Health(health) => write!(out, "{asked} says that it is {}", health.as_str()),
                Answer::Rpc(status) => {
                    write!(out, "{asked} ended with {}", status.as_str())?;
                    match status {
                        RpcStatus::NotFound => {
                            write!(out, ": its health server does not know the service")
                        }
                        RpcStatus::Unimplemented => write!(out, ": it has no health server"),
                        _ => Ok(()),
                    }
                }
            },
        }
    }
}

// === impl Probe ===

impl Probe {
    /// Prepares a probe; nothing is sent yet. `tls`: of an upstream that speaks it, and it offers what requests do;
    /// `listening`: asks the kernel about listeners of this machine.
    #[must_use]
    pub fn new(
        upstream: &Upstream,
        config: &config::Readiness,
        addresses: watch::Receiver<Addresses>,
        tls: Option<Arc<tls::Client>>,
        gauges: Gauges,
        listening: Listening,
    ) -> Probe {
        let asker = Asker::new(upstream, config, tls);
        Probe { addresses, asker, interval: config.interval, gauges, listening }
    }

    /// Probes for ever, first at once. `report` is called after every probe that told something.
    pub async fn run(mut self, mut report: impl FnMut(Result<(), Down>)) {
        let mut ticker = interval(self.interval);
        // A probe that came late is not made up for: two in a row tell no more than one.
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut asked = true;
        loop {
            ticker.tick().await;
            let begun = Instant::now();
            let outcome = match self.ask(self.interval.min(LONGEST)).await {
                Ok(()) => Ok(()),
                Err(NotUp::Down(down)) => Err(down),
                Err(NotUp::NotAsked) => {
                    if std::mem::take(&mut asked) {
                        tracing::warn!(event = "backend_not_probed", reason = "no file descriptor is left");
                    }
                    continue;
                }
            };
            asked = true;
            self.gauges.duration_seconds.set(begun.elapsed().as_secs_f64());
            self.gauges.up.set(if outcome.is_ok() { 1.0 } else { 0.0 });
            report(outcome);
        }
    }

    /// One probe, which takes no longer than `limit`.
    async fn ask(&mut self, limit: Duration) -> Result<(), NotUp> {
        let deadline = Instant::now() + limit;
        let addresses = self.addresses.borrow_and_update().clone();
        let Some(asker) = &self.asker else {
            return listens(&addresses, limit, self.listening).await;
        };
        let stream = connect(&addresses, limit).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        match timeout(left, asker.ask(stream)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(answer)) => Err(Down::Answer { asked: asker.to_string(), answer }.into()),
            Err(_) => Err(Down::Answer { asked: asker.to_string(), answer: Answer::Timeout { limit: left } }.into()),
        }
    }
}

/// Whether one of the addresses takes connections.
async fn listens(addresses: &Addresses, limit: Duration, listening: Listening) -> Result<(), NotUp> {
    let queues: Vec<Option<Queue>> = addresses.iter().map(|address| listening(&address)).collect();
    if queues.contains(&Some(Queue::Open)) {
        // The kernel does not ask who we are until we connect.
        return match addresses.socket().map(|path| may_connect(path)) {
            Some(Err(error)) => Err(no_connection(addresses, NoConnection::of(&error)).into()),
            _ => Ok(()),
        };
    }
    if queues.iter().all(|queue| *queue == Some(Queue::Full)) {
        return Err(no_connection(addresses, NoConnection::QueueFull).into());
    }
    // Nobody of this machine, or somebody behind a translated address.
    connect(addresses, limit).await.map(drop)
}

async fn connect(addresses: &Addresses, limit: Duration) -> Result<Stream, NotUp> {
    match timeout(limit, addresses.connect()).await {
        Ok(Ok((stream, _))) => Ok(stream),
        Ok(Err(error)) if descriptors::ran_out(&error) => Err(NotUp::NotAsked),
        Ok(Err(error)) => Err(no_connection(addresses, NoConnection::of(&error)).into()),
        Err(_) => Err(no_connection(addresses, NoConnection::Timeout { limit }).into()),
    }
}

fn no_connection(addresses: &Addresses, why: NoConnection) -> Down {
    let place = match (addresses.iter().next(), addresses.count()) {
        (Some(first), 1) => first.to_string(),
        (Some(first), count) => format!("{first} and {} more", count - 1),
        (None, _) => String::new(),
    };
    Down::Connect { place, why, name_lost: addresses.connect_failed() }
}

/// Whether the rights of a socket of the file system let this process connect to it: they must let it write.
fn may_connect(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends in a zero byte and outlives the call.
    if unsafe { libc::access(path.as_ptr(), libc::W_OK) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl NoConnection {
    fn of(error: &io::Error) -> NoConnection {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => NoConnection::Refused,
            kind => NoConnection::Failed(kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_short_lines_of_our_own_words() {
        let limit = Duration::from_secs(1);
        let connect = |why, name_lost| Down::Connect { place: "127.0.0.1:8080".to_owned(), why, name_lost };
        let answer = |answer| Down::Answer { asked: "GET /healthz".to_owned(), answer };
        for (down, expected) in [
            (connect(NoConnection::Refused, false), "connect to 127.0.0.1:8080 refused"),
            (
                connect(NoConnection::Refused, true),
                "connect to 127.0.0.1:8080 refused, and its name leads nowhere any more",
            ),
            (connect(NoConnection::QueueFull, false), "the accept queue of 127.0.0.1:8080 is full"),
            (connect(NoConnection::Timeout { limit }, false), "connect to 127.0.0.1:8080 timed out after 1s"),
            (
                connect(NoConnection::Failed(io::ErrorKind::HostUnreachable), false),
                "connect to 127.0.0.1:8080 failed: host unreachable",
            ),
            (answer(Answer::Status(500)), "GET /healthz answered 500"),
            (answer(Answer::Timeout { limit }), "GET /healthz timed out after 1s"),
            (answer(Answer::Unreadable), "GET /healthz got no readable answer"),
            (answer(Answer::Health(Health::NotServing)), "GET /healthz says that it is NOT_SERVING"),
            (
                answer(Answer::Rpc(RpcStatus::Unimplemented)),
                "GET /healthz ended with UNIMPLEMENTED: it has no health server",
            ),
            (answer(Answer::Rpc(RpcStatus::Internal)), "GET /healthz ended with INTERNAL"),
        ] {
            assert_eq!(down.to_string(), expected);
        }
    }
}
