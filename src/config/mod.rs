//! What was asked: flags, environment and file become one resolved [`Config`]. A leaf: it names no other room but
//! labels. Two stages (`raw` holds what was given, `resolve` checks it), no side effect in either.
//!
//! | file | what it holds |
//! |---|---|
//! | `cli.rs` | the command line as clap sees it |
//! | `yaml.rs` | YAML text as a tree with line numbers; the one file that names the library |
//! | `raw.rs` | the file, the environment and the flags: everything optional, unknown keys refused |
//! | `units.rs` | durations and sizes with their unit, both ways |
//! | `access.rs` | who may read the admin port: secrets and host names |
//! | `expression.rs` | which numbers of a metrics page make up one of a pool |
//! | `presets.rs` | expressions for well-known pools |
//! | `resolve.rs` | flag > environment > file > default, range checks, units |
//! | `show.rs` | the effective configuration, in the shape of the file, secrets redacted |
//! | `error.rs` | one sentence per mistake: key, what was found, what is accepted |

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::labels::Method;

mod access;
mod cli;
mod error;
mod expression;
mod presets;
mod raw;
mod resolve;
mod show;
pub mod units;
mod yaml;

pub use access::{AdminAuth, AdminHost, Purpose, Running, SECRET_BYTES_MAX, SECRET_VARIABLES, Secret, SecretFrom};
pub use error::{ConfigError, Failure, Source, Stream};

/// The length of a request line unless told otherwise: twice what browsers and servers commonly bear (8 KiB).
const DEFAULT_REQUEST_LINE_BYTES: usize = 16 << 10;

/// Most objectives: one for each user journey is the advice, and each is up to seven series and an edge of many histograms.
pub const SLOS_MAX: usize = 20;

/// Most rules that find implicit errors. One for each interface that answers 200 to everything is plenty, and each may be a
/// search through the first part of a body.
pub const IMPLICIT_ERRORS_MAX: usize = 20;

/// The largest file that is read. Thousands of routes fit; a wrong path to a log or a device does not.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The resolved configuration: every value present, in base units, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The backend that all traffic goes to.
    pub upstream: Upstream,
    /// Where the proxy listens.
    pub listen: Listen,
    /// Whether every client connection begins with a PROXY header, which says who the client is.
    pub proxy_protocol: bool,
    /// TLS with clients; `None`: none.
    pub tls: Option<ServerTls>,
    /// TLS with the backend, where `upstream` says `https`.
    pub upstream_tls: UpstreamTls,
    /// TLS on the admin port; `None`: none.
    pub admin_tls: Option<ServerTls>,
    /// Where the admin endpoints listen.
    pub admin: SocketAddr,
    /// What opens them.
    pub admin_auth: AdminAuth,
    /// The hosts that they are asked for; empty: any.
    pub admin_hosts: Vec<AdminHost>,
    /// Worker threads of the data plane; at least 1.
    pub workers: usize,
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// How much of everything there may be.
    pub limits: Limits,
    /// How the process ends.
    pub drain: Drain,
    /// How the backend's name is kept up with.
    pub dns: Dns,
    /// Declared route templates, in the order given (order does not matter for matching).
    pub routes: Vec<RouteTemplate>,
    /// Documents whose paths are templates too, after the declared ones. Of equal paths, the first document's counts.
    pub openapi: Vec<OpenApi>,
    /// What is learned of paths that no template matches.
    pub learn: Learn,
    /// Upper edges of the latency histograms, seconds, strictly increasing, without +Inf.
    pub buckets: Vec<f64>,
    /// What was promised of the requests. At most [`SLOS_MAX`], no name twice.
    pub slos: Vec<Slo>,
    /// Which 2xx answers are errors all the same. At most [`IMPLICIT_ERRORS_MAX`], no name twice. The first one that holds
    /// for an answer counts.
    pub implicit_errors: Vec<ImplicitError>,
    /// Whether OpenMetrics pages say since when each counter counts (`_created`).
    pub created: bool,
    /// Which requests count as `traffic="probe"`.
    pub probes: Probes,
    /// How the backend is asked whether it is up.
    pub readiness: Readiness,
    /// How the backend's saturation is sampled.
    pub saturation: Saturation,
    /// What happens when a command that the sidecar has started ends.
    pub restart: Restart,
    /// The backend's own metrics page, to be appended to ours.
    pub backend_metrics: BackendMetrics,
    /// What happens to `X-Forwarded-*` fields that come in.
    pub forwarded: Forwarded,
    /// Whether `Via` is added. Off: nginx and others stop compressing when they see it.
    pub via: bool,
}

/// Where the proxy listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A port of TCP. 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A socket of the file system.
    Unix(PathBuf),
}

/// TLS where the sidecar is the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// What it shows.
    pub identity: Identity,
    /// PEM file of the roots that client certificates must come from.
    pub client_ca: Option<PathBuf>,
    /// Whether clients show certificates. Only with a `client_ca` anything else than `None`.
    pub client_auth: ClientAuth,
}

/// A certificate and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM file: the certificate, then those between it and its root.
    pub certificate: PathBuf,
    /// PEM file, without a passphrase.
    pub key: PathBuf,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They may; one that is not accepted ends the handshake.
    Optional,
    /// They must.
    Required,
}

/// TLS with the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM file of the roots that the backend's certificate must come from; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The name that it must have, and that is sent as SNI; `None`: the host of `upstream`.
    pub server_name: Option<String>,
    /// What the sidecar shows.
    pub identity: Option<Identity>,
    /// Whether the certificate is looked at. False: whoever is on the way can be the backend.
    pub verify: bool,
}

/// The backend's address as it was written, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// What is spoken there.
    pub scheme: Scheme,
    /// Where it is.
    pub place: Place,
}

/// What is spoken with the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// TLS, and in it what the backend chooses: HTTP/2 or HTTP/1.1.
    Https,
    /// HTTP/2 with prior knowledge.
    H2c,
}

/// Where the backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A port of TCP.
    Tcp {
        /// Host name or address literal, IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket of the file system.
    Unix(PathBuf),
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
    /// Age at which a pooled connection is not used again, so that rebalancing behind one address takes hold.
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
    /// A label set that has not changed for so long leaves the page until it changes; `None`: it stays.
    pub series_idle: Option<Duration>,
    /// Bytes of memory for label sets; above it requests count under `_other`.
    pub metrics_memory: u64,
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

/// The backend's name, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Time between two questions for its addresses. The system's resolver does not tell how long an answer holds.
    pub refresh: Duration,
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

/// Where an OpenAPI or Swagger document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenApi {
    /// A file, read at start and at each reload.
    File(PathBuf),
    /// An `http` URL, asked until it answers. May hold a secret: its `Display` shows none.
    Url(String),
}

/// How routes are learned from traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learn {
    /// Whether anything is learned.
    pub enabled: bool,
    /// Most labels that are learned or imported, together.
    pub limit: usize,
    /// A file that keeps what was learned over a restart.
    pub state: Option<PathBuf>,
}

/// A service level objective: which share of the requests is to be good.
#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    /// The label `slo`. Unique.
    pub name: String,
    /// Labels of the routes that it covers, declared, imported or learned, now or later. Empty: all requests.
    pub routes: Vec<String>,
    /// The share that is to be good, between 0 and 1.
    pub objective: f64,
    /// What takes longer is not good; `None`: nothing is too slow.
    pub latency: Option<Duration>,
    /// Whether what takes longer is an error too, of the type `too_slow`. Only with a latency.
    pub too_slow_is_error: bool,
}

/// A rule by which a 2xx answer of the backend is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImplicitError {
    /// The label `rule`. Unique.
    pub name: String,
    /// Labels of the routes that it covers, as in [`Slo::routes`]. Empty: all requests.
    pub routes: Vec<String>,
    /// What gives the error away.
    pub symptom: Symptom,
}

/// What gives away that an answer is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Symptom {
    /// This pointer (RFC 6901) leads to something other than null.
    JsonPointer(String),
    /// There is a field of this name, with exactly this value if one is told.
    Header {
        /// In any case.
        name: String,
        /// Compared byte by byte.
        value: Option<String>,
    },
    /// There is a body, and its media type is another one than this: `type/subtype` in lower case.
    ContentTypeNot(String),
    /// The body holds this text. Never empty.
    BodyContains(String),
    /// The field of this name is a number, and the body has another number of bytes.
    LengthMismatch(String),
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
    /// HTTP path asked with GET.
    pub path: Option<String>,
    /// gRPC service whose health is asked for (`grpc.health.v1`); empty: the whole server. Never beside a path; with
    /// neither of them the question is whether somebody listens.
    pub grpc: Option<String>,
    /// Time between two probes.
    pub interval: Duration,
}

/// How saturation is sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Saturation {
    /// Time between two samples.
    pub interval: Duration,
    /// Where the backend is, and limits that cannot be seen from here.
    pub backend: BackendHints,
    /// Connection pools of the backend.
    pub pools: Vec<Pool>,
}

/// What a deployer tells of the backend. Nothing told: whoever listens on the upstream's port, or the wrapped command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackendHints {
    /// Process id of the backend's first process.
    pub pid: Option<u32>,
    /// File that holds that process id; read again when the process is gone.
    pub pid_file: Option<PathBuf>,
    /// Folder of the backend's cgroup, below the place where the cgroup file system is mounted.
    pub cgroup: Option<PathBuf>,
    /// CPUs that the backend may use at once.
    pub cpu_limit_cores: Option<f64>,
    /// Memory that the backend may use.
    pub memory_limit_bytes: Option<u64>,
}

/// A connection pool of the backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// The label `pool`, and `pool:NAME` as a resource. Unique.
    pub name: String,
    /// How its numbers become known.
    pub kind: PoolKind,
    /// Most connections that it opens, if told; else what the pool reports itself.
    pub limit: Option<u64>,
}

/// Where the numbers of a pool come from.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolKind {
    /// The kernel's view of the backend's outgoing connections to this port, at this address or any.
    Inferred {
        /// `None`: any address.
        address: Option<IpAddr>,
        /// The remote port.
        port: u16,
    },
    /// The backend's own metrics.
    Reported {
        /// Where they are: Prometheus text, or JSON. May hold a secret: shown through `error::redact` only.
        url: String,
        /// Name of the preset that filled the selectors; shown by `check`.
        preset: Option<String>,
        /// What to read there.
        selectors: Box<PoolSelectors>,
    },
}

/// Which numbers of a metrics page are those of a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolSelectors {
    /// Connections in use.
    pub used: Option<Expression>,
    /// Connections that are idle.
    pub idle: Option<Expression>,
    /// Most connections; 0 or less means no limit.
    pub limit: Option<Expression>,
    /// Requests that wait for a connection.
    pub waiting: Option<Expression>,
    /// Times that somebody gave up waiting, a counter.
    pub timeouts: Option<Expression>,
}

/// A sum of numbers of a metrics page: `a + b - c`.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// The text it was read from, for `check`.
    pub text: String,
    /// What is added (`true`) and subtracted (`false`).
    pub terms: Vec<(bool, Term)>,
}

/// One number of a metrics page.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// The number itself.
    Number(f64),
    /// JSON: a pointer (RFC 6901) to a number.
    Pointer(String),
    /// Prometheus: the sum of the series with this name and these labels.
    Series {
        /// Name of the series, suffix included.
        name: String,
        /// Labels and what they must be (`true`) or must not be (`false`).
        labels: Vec<(String, bool, String)>,
    },
}

/// What happens when the command ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// The sidecar drains and ends with its status.
    #[default]
    Never,
    /// It is started again unless it ended with status 0.
    OnFailure,
    /// It is always started again.
    Always,
}

/// The backend's own metrics page.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendMetrics {
    /// Where it is; `None`: `/metrics` of the upstream. May hold a secret.
    pub url: Option<String>,
    /// True: part of every page. False: only of `/metrics?include=backend`.
    pub include: bool,
    /// Largest page that is taken.
    pub size_max: u64,
    /// Longest that it may take to come.
    pub timeout: Duration,
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

/// What the command line asks for, with its configuration.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Run the sidecar.
    Run(Loaded),
    /// Print the effective configuration.
    Check(Loaded),
    /// Say what can be measured here.
    Doctor {
        /// Under this configuration.
        loaded: Loaded,
        /// Whether an upstream was given; else it is the one of the examples.
        upstream_given: bool,
    },
    /// Run the demonstration.
    Demo {
        /// Stop after this time; `None`: run until interrupted.
        run_for: Option<Duration>,
        /// Where the proxy listens.
        listen: SocketAddr,
        /// Where the admin endpoints listen.
        admin: SocketAddr,
    },
    /// Ask a running sidecar for its routes.
    Routes {
        /// Where, and what opens it.
        running: Running,
        /// What is asked.
        question: Question,
    },
    /// Write dashboards and alerts.
    Pack {
        /// The share of the requests that is to be good, percent; `None`: the default.
        objective_percent: Option<f64>,
        /// What takes longer is not good; `None`: the default.
        latency: Option<Duration>,
        /// The folder.
        out: PathBuf,
    },
    /// Ask a running sidecar whether it is ready.
    Healthcheck(Running),
}

/// What is asked about routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which there are.
    List,
    /// Which one a path falls under, and why.
    Explain {
        /// It begins with a slash.
        path: String,
        /// The request's method.
        method: String,
    },
}

/// A configuration together with what it was made of, so that it can be shown and read again.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// The file that took part, as it was named.
    pub file: Option<PathBuf>,
    /// What to start as the backend: program and arguments, never empty. It may hold secrets, so it is not shown.
    pub command: Option<Vec<OsString>>,
    flags: cli::Flags,
    environment: Variables,
    sources: resolve::Sources,
    workers_auto: bool,
}

/// Names and values of our variables only, so that nobody else's secrets are held. Ours are not shown.
#[derive(Clone)]
struct Variables(Vec<(String, String)>);

impl std::fmt::Debug for Variables {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Reads the command line, the environment and the file. `args` begins with the program's name; of `env`, only names
/// that start with `GOLDEN_` count.
///
/// # Errors
/// The text, stream and exit code to end with: code 0 for `--help` and `--version`, 2 for mistakes.
pub fn load(args: Vec<OsString>, env: Vec<(OsString, OsString)>) -> Result<Invocation, Failure> {
    match cli::parse(&args)? {
        cli::Asked::Run(flags) => Ok(Invocation::Run(Loaded::read(flags, our_variables(env)?, None)?)),
        cli::Asked::Check(flags) => Ok(Invocation::Check(Loaded::read(flags, our_variables(env)?, None)?)),
        cli::Asked::Doctor(flags) => {
            let loaded = Loaded::read(flags, our_variables(env)?, Some(doctors_upstream()))?;
            let upstream_given = loaded.sources.contains_key("upstream");
            Ok(Invocation::Doctor { loaded, upstream_given })
        }
        cli::Asked::Demo { run_for, flags } => Ok(demo(run_for, &flags, &our_variables(env)?)?),
        cli::Asked::Healthcheck(flags) => {
            Ok(Invocation::Healthcheck(running(&flags, &our_variables(env)?, Mistakes::PassOver)?))
        }
        cli::Asked::Routes { question, flags } => {
            Ok(Invocation::Routes { running: running(&flags, &our_variables(env)?, Mistakes::Tell)?, question })
        }
        cli::Asked::Pack { objective, latency, out } => Ok(pack(objective, latency, out)?),
    }
}

/// What the pack is made for. Whether it can be promised is for the pack to say.
fn pack(objective: Option<String>, latency: Option<String>, out: PathBuf) -> Result<Invocation, ConfigError> {
    let latency = latency
        .map(|value| resolve::positive_duration("latency", raw::Given { value, source: Source::Flag("--latency") }))
        .transpose()?;
    let percent = |text: String| {
        let number = text.strip_suffix('%').unwrap_or(&text).trim().parse::<f64>();
        number.map_err(|_unread| {
            let problem = format!("found \"{}\"; expected a percentage such as 99.9", error::redact(&text));
            ConfigError::new("objective", problem, Some(Source::Flag("--objective")))
        })
    };
    Ok(Invocation::Pack { objective_percent: objective.map(percent).transpose()?, latency, out })
}

/// The backend that the doctor looks for when nobody names one: that of all our examples.
fn doctors_upstream() -> Upstream {
    Upstream::http(Ipv4Addr::LOCALHOST.to_string(), 8080)
}

/// The demonstration stays on loopback and reads no file; of the environment it takes the two addresses only.
fn demo(run_for: Option<String>, flags: &cli::Flags, environment: &Variables) -> Result<Invocation, ConfigError> {
    let run_for = run_for
        .map(|value| resolve::positive_duration("for", raw::Given { value, source: Source::Flag("--for") }))
        .transpose()?;
    let address = |key, port| match given(key, flags, environment) {
        Some(given) => {
            let source = given.source.clone();
            Ok((resolve::address(key, given)?, Some(source)))
        }
        None => Ok((SocketAddr::from((Ipv4Addr::LOCALHOST, port)), None)),
    };
    let (listen, admin) = (address("listen", 8000)?, address("admin", 9900)?);
    let ((listen, listen_source), (admin, admin_source)) = (listen, admin);
    resolve::distinct((&Listen::Tcp(listen), listen_source), (admin, admin_source))?;
    Ok(Invocation::Demo { run_for, listen, admin })
}

/// What to do about a mistake in the keys that protect the admin port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistakes {
    /// End with it.
    Tell,
    /// Ask without credentials. A health check that failed because of them would end a sidecar that runs well on its
    /// previous configuration, and `/readyz` answers everybody.
    PassOver,
}

/// How a running sidecar can be asked. Of its other keys nothing is read.
fn running(flags: &cli::Flags, environment: &Variables, mistakes: Mistakes) -> Result<Running, ConfigError> {
    let file = file_of(flags, environment).map(|(path, source)| (read_file(&path, source), path));
    let mut scalar = given("admin", flags, environment);
    if let (None, Some((read, _))) = (&scalar, &file) {
        let (text, name) = read.as_ref().map_err(ConfigError::clone)?;
        let mut raw = raw::Raw::default();
        raw::read_only(&mut raw, "admin", text, name)?;
        scalar = raw.admin;
    }
    let source = scalar.as_ref().map(|given| given.source.clone());
    let mut admin = match scalar {
        Some(given) => resolve::address("admin", given)?,
        None => Config::default_admin(),
    };
    if admin.port() == 0 {
        let problem = "port 0 is chosen when the sidecar starts; expected the port that it listens on";
        return Err(ConfigError::new("admin", problem, source));
    }
    if admin.ip().is_unspecified() {
        admin.set_ip(match admin.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let (auth, hosts, tls) = match (protection(file, environment), mistakes) {
        (Ok(protection), _) => protection,
        (Err(_), Mistakes::PassOver) => Default::default(),
        (Err(error), Mistakes::Tell) => return Err(error),
    };
    let own = |host: &AdminHost| [AdminHost::OwnAddress, AdminHost::Address(admin.ip().to_canonical())].contains(host);
    let host = match hosts.first() {
        Some(first) if !hosts.iter().any(own) => format!("{first}:{}", admin.port()),
        _ => admin.to_string(),
    };
    Ok(Running { admin, host, auth, tls })
}

/// A file that was read, or why it was not, and its path.
type ReadFile = (Result<(String, Arc<str>), ConfigError>, PathBuf);

/// What protects the admin port.
type Protection = (AdminAuth, Vec<AdminHost>, Option<Identity>);

fn protection(file: Option<ReadFile>, environment: &Variables) -> Result<Protection, ConfigError> {
    let mut raw = raw::Raw::default();
    let folders = resolve::Folders::around(file.as_ref().map(|(_, path)| path.as_path()));
    if let Some((read, _)) = file {
        let (text, name) = read?;
        raw::read_only(&mut raw, "admin_auth", &text, &name)?;
        raw::read_only(&mut raw, "admin_hosts", &text, &name)?;
        raw::read_only(&mut raw, "admin_tls", &text, &name)?;
    }
    for (name, text) in &environment.0 {
        let sections = [raw::variable("admin_auth."), raw::variable("admin_tls.")];
        if sections.iter().any(|section| name.starts_with(section)) || *name == raw::variable("admin_hosts") {
            raw.set_variable(name, text)?;
        }
    }
    let auth = access::resolve_auth(&mut resolve::Keys::default(), raw.admin_auth, &folders)?;
    let hosts = raw.admin_hosts.map(|given| access::resolve_hosts("admin_hosts", given)).transpose()?;
    let tls = resolve::resolve_admin_tls(&mut resolve::Keys::default(), raw.admin_tls, &folders)?;
    Ok((auth, hosts.unwrap_or_default(), tls.map(|tls| tls.identity)))
}

/// A value by flag or variable.
fn given(key: &'static str, flags: &cli::Flags, environment: &Variables) -> Option<raw::Given<String>> {
    if let Some((value, source)) = flags.value(key) {
        return Some(raw::Given { value: value.to_owned(), source });
    }
    let name = raw::variable(key);
    let (_, value) = environment.0.iter().find(|(variable, value)| *variable == name && !value.is_empty())?;
    Some(raw::Given { value: value.clone(), source: Source::Environment(name) })
}

/// The file's path and who named it.
fn file_of(flags: &cli::Flags, environment: &Variables) -> Option<(PathBuf, Source)> {
    if let Some(path) = &flags.config {
        return Some((path.clone(), Source::Flag("--config")));
    }
    let (name, path) = environment.0.iter().find(|(name, path)| name == raw::FILE_VARIABLE && !path.is_empty())?;
    Some((PathBuf::from(path), Source::Environment(name.clone())))
}

/// The text of a file and its name for sentences.
fn read_file(path: &Path, source: Source) -> Result<(String, Arc<str>), ConfigError> {
    let name: Arc<str> = path.display().to_string().into();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let problem = format!("cannot read {}: {error}", error::found(&name));
        return Err(ConfigError::new("config", problem, Some(source)));
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let most = units::format_size(FILE_BYTES_MAX);
        let problem = format!("{} is too large; expected at most {most}", error::found(&name));
        return Err(ConfigError::new("config", problem, Some(source)));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((text, name)),
        Err(_) => {
            let problem = format!("{} is not a text in UTF-8; expected a YAML file", error::found(&name));
            Err(ConfigError::new("config", problem, Some(source)))
        }
    }
}

/// The variables whose names start with ours, sorted, so that of several mistakes the same one is told each time.
fn our_variables(env: Vec<(OsString, OsString)>) -> Result<Variables, ConfigError> {
    let mut ours = Vec::new();
    for (name, value) in env {
        if !name.as_encoded_bytes().starts_with(raw::VARIABLE_PREFIX.as_bytes()) {
            continue;
        }
        let name = name.to_string_lossy().into_owned();
        match value.into_string() {
            Ok(value) => ours.push((name, value)),
            Err(_) => return Err(ConfigError::new(name, "holds bytes that are no text; expected UTF-8", None)),
        }
    }
    ours.sort();
    Ok(Variables(ours))
}

// === impl Loaded ===

impl Loaded {
    /// `upstream`: the backend if nobody names one; `None`: then that is a mistake.
    fn read(flags: cli::Flags, environment: Variables, upstream: Option<Upstream>) -> Result<Loaded, ConfigError> {
        let mut raw = raw::Raw::default();
        let file = file_of(&flags, &environment);
        if let Some((path, source)) = &file {
            let (text, name) = read_file(path, source.clone())?;
            raw.read_file(&text, &name)?;
        }
        for (name, text) in environment.0.iter().filter(|(name, _)| name != raw::FILE_VARIABLE) {
            raw.set_variable(name, text)?;
        }
        for (path, flag, value) in flags.values() {
            if let Some(value) = value {
                raw.set_flag(path, flag, value)?;
            }
        }
        let file = file.map(|(path, _)| path);
        let around =
            resolve::Around { cores: available_cores(), upstream, folders: resolve::Folders::around(file.as_deref()) };
        let resolve::Resolved { config, sources, workers_auto } = resolve::resolve(raw, around)?;
        let command = Some(flags.command.clone()).filter(|command| !command.is_empty());
        if let Some((_, source)) = flags.value("command.restart")
            && command.is_none()
        {
            let problem = "has no meaning without a command; expected -- COMMAND ARGS at the end, or no --restart";
            return Err(ConfigError::new("command.restart", problem, Some(source)));
        }
        Ok(Loaded { config, file, command, flags, environment, sources, workers_auto })
    }

    /// Reads the file again, under the same flags and variables. What is running is not touched.
    ///
    /// # Errors
    /// The first mistake.
    pub fn reload(&self) -> Result<Loaded, ConfigError> {
        Loaded::read(self.flags.clone(), self.environment.clone(), None)
    }

    /// The effective configuration in the shape of the file, with the source behind each value that is not a default.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        show::to_yaml(&self.config, &self.sources, self.workers_auto)
    }

    /// The effective configuration as JSON in the shape of the file; the number of workers is the one in effect.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.config.to_json()
    }

    /// Where the value of a key such as `timeouts.connect` was given; `None`: it is the default.
    #[must_use]
    pub fn source(&self, key: &str) -> Option<&Source> {
        self.sources.get(key)
    }
}

impl resolve::Folders {
    /// The working folder, and that of the file.
    fn around(file: Option<&Path>) -> resolve::Folders {
        // Without an answer (it was removed), what is relative stays so.
        let working = std::env::current_dir().unwrap_or_default();
        let file = file.and_then(Path::parent).map_or_else(PathBuf::new, |parent| working.join(parent));
        resolve::Folders { working, file }
    }
}

/// Cores that this process may use: the kernel's affinity mask and the container's CPU quota count.
fn available_cores() -> usize {
    // Without an answer (an exotic sandbox), one worker is right anywhere.
    std::thread::available_parallelism().map_or(1, usize::from)
}

// === impl OpenApi ===

impl std::fmt::Display for OpenApi {
    /// As in a sentence or log line, without what a URL says of users and queries.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenApi::File(path) => out.write_str(&error::found(&path.display().to_string())),
            OpenApi::Url(url) => out.write_str(&error::found(url)),
        }
    }
}

// === impl Slo ===

impl Slo {
    /// Whether requests to the route with this label count.
    #[must_use]
    pub fn covers(&self, route: &str) -> bool {
        covers(&self.routes, route)
    }

    /// The latency in seconds, as a person would write it.
    #[must_use]
    pub fn latency_seconds(&self) -> Option<f64> {
        // One division rounds once: `Duration::as_secs_f64` adds a fraction and makes 1.1179999999999999 of 1118 ms.
        self.latency.map(|latency| latency.as_nanos() as f64 / 1e9)
    }
}

// === impl ImplicitError ===

impl ImplicitError {
    /// Whether answers to requests to the route with this label are judged.
    #[must_use]
    pub fn covers(&self, route: &str) -> bool {
        covers(&self.routes, route)
    }
}

fn covers(routes: &[String], route: &str) -> bool {
    routes.is_empty() || routes.iter().any(|covered| covered == route)
}

// === impl Config ===

impl Config {
    /// Every default, for this backend. Each value's reason is with its field or beside it here.
    #[must_use]
    pub fn with_defaults(upstream: Upstream) -> Config {
        let seconds = Duration::from_secs;
        Config {
            upstream,
            listen: Listen::Tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8000))),
            proxy_protocol: false,
            tls: None,
            upstream_tls: UpstreamTls { ca: None, server_name: None, identity: None, verify: true },
            admin_tls: None,
            admin: Config::default_admin(),
            // Anybody who reaches it may read it, as with most of what Prometheus scrapes: nothing there is secret.
            admin_auth: AdminAuth::default(),
            admin_hosts: Vec::new(),
            workers: available_cores(),
            timeouts: Timeouts {
                client_head: seconds(10),
                // Mobile networks pause for tens of seconds; nginx waits 60 s.
                client_body: seconds(30),
                client_idle: seconds(75),
                connect: seconds(1),
                // Longer than a burst, shorter than a user's patience.
                pool_wait: seconds(5),
                // nginx's proxy_read_timeout.
                head: seconds(60),
                body: seconds(60),
                // Shorter than the 75 s that most backends keep an idle connection, so that we close first.
                upstream_idle: seconds(60),
                upstream_age: seconds(600),
            },
            limits: Limits {
                // 1.5 KiB each when idle: 15 MiB.
                connections: 10_000,
                // Fits the largest heads of common servers (Node 16 KiB, nginx 32 KiB) with room.
                head_bytes: 64 << 10,
                headers: 100,
                request_line_bytes: DEFAULT_REQUEST_LINE_BYTES,
                // The backend knows better what it takes.
                request_body_bytes: None,
                // Over 100, as RFC 9113 advises, and few enough that one connection cannot take the backend.
                streams: 256,
                inflight: None,
                upstream_connections: 512,
                // Twice the connections: more would wait for longer than pool_wait.
                upstream_waiting: 1024,
                // What a Prometheus holds without notice.
                series: 2000,
                series_idle: None,
                // Tens of thousands of label sets with histograms: far beyond the bounds above, and no pod notices it.
                metrics_memory: 64 << 20,
            },
            drain: Drain { grace: seconds(5), timeout: seconds(30), last_scrape: Duration::ZERO },
            // Twice the five seconds that the records of a headless service commonly live; a failed connect asks at once.
            dns: Dns { refresh: seconds(10) },
            routes: Vec::new(),
            openapi: Vec::new(),
            // A hundred labels are more than a dashboard shows, and some ten thousand series.
            learn: Learn { enabled: true, limit: 100, state: None },
            // The default buckets of the Prometheus clients, finer below 100 ms.
            buckets: vec![0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0],
            // What alerts and dashboards watch before anybody has promised anything: three nines, as in most examples. How
            // long a request may take nobody can guess.
            slos: vec![Slo {
                name: "all".to_owned(),
                routes: Vec::new(),
                objective: 0.999,
                latency: None,
                too_slow_is_error: false,
            }],
            implicit_errors: Vec::new(),
            created: true,
            probes: Probes {
                paths: ["/healthz", "/readyz", "/livez"].map(str::to_owned).to_vec(),
                user_agents: vec!["kube-probe/".to_owned()],
            },
            readiness: Readiness { path: None, grpc: None, interval: seconds(1) },
            saturation: Saturation {
                // The SRE book's advice for utilisation: measure each second.
                interval: seconds(1),
                backend: BackendHints::default(),
                pools: Vec::new(),
            },
            restart: Restart::Never,
            backend_metrics: BackendMetrics {
                url: None,
                include: false,
                // Twice the page of a large Java service.
                size_max: 4 << 20,
                // Leaves nine tenths of Prometheus' usual 10 s to us.
                timeout: seconds(1),
            },
            forwarded: Forwarded::Append,
            via: false,
        }
    }

    /// The configuration of the demonstration: this backend, these addresses, and an end without waiting.
    #[must_use]
    pub fn for_demo(upstream: SocketAddr, listen: SocketAddr, admin: SocketAddr) -> Config {
        let mut config = Config::with_defaults(Upstream::http(upstream.ip().to_string(), upstream.port()));
        config.listen = Listen::Tcp(listen);
        config.admin = admin;
        // No load balancer has to notice.
        config.drain.grace = Duration::ZERO;
        config
    }

    /// The configuration as JSON in the shape of the file: durations and sizes are texts with a unit.
    #[must_use]
    pub fn to_json(&self) -> String {
        show::to_json(self)
    }

    fn default_admin() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9900))
    }
}
