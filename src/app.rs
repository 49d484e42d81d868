//! Wiring: builds the parts in order, binds, spawns, waits. The only room that knows everyone.
//!
//! Threads: one per worker, each with a runtime of its own, one that samples, and this one, whose runtime does admin,
//! probing, reloads, the command that is the backend if there is one, and the end.

mod documents;
mod ids;
mod regular;
mod secrets;
mod secured;
mod state;

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

pub use documents::Failure as DocumentFailure;
use documents::{Documents, Slot};
use ids::{LatencyEdges, StoreIds};
pub use secrets::Failure as SecretFailure;
use secured::Secured;

use bytes::Bytes;
use prometheus::Registry;
use tokio::runtime::RuntimeMetrics;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::admin::{self, About, Admin, Backend, Guard, Protection, Readiness};
use crate::command::{self, CannotStart, End, Keeper};
use crate::config::{BackendMetrics, Config, Limits, Listen, Loaded, OpenApi, Question, Restart, Running, Upstream};
use crate::demo;
use crate::descriptors::{self, Shares};
use crate::doctor;
use crate::exposition::{self, Exporter, Target};
use crate::inspect;
use crate::labels::{Refusal, RouteKind, Trouble};
use crate::pack::{self, Impossible, Objective};
use crate::proxy::listener;
use crate::proxy::upstream::Budget;
use crate::proxy::worker::{self, Order, Room, Settings, Shared};
use crate::readiness;
use crate::routes::{Ids, Learned, RouteTable};
use crate::saturation::{self, Sampler};
use crate::scrape::fetch;
use crate::shutdown::{Signals as Outside, Wish};
use crate::signals::Signals;
use crate::signals::collect::snapshot;
use crate::signals::own::Own;
use crate::signals::shard::WorkerSignals;
use crate::transport::tls::{self, Unusable};
use crate::transport::{self, Address, Addresses, Event};
use crate::turns;

/// Time that cut connections get to tell the books, after the drain deadline.
const CUT_GRACE: Duration = Duration::from_secs(1);
/// How often the drain looks whether everything has ended.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// The patience of the health check, and of other questions to a running sidecar: half of the usual probe timeout of
/// 1 s would be too short for a busy machine.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// Most that is read of an answer: ten thousand routes with their reasons fit.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// How long a reload waits for the address of the upstream. Resolvers repeat a question after five seconds; so long
/// nobody waits for a signal to be heeded.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(2);
/// What shells say of a command that does not start.
const COMMAND_NOT_STARTED: u8 = 127;

/// Why the sidecar could not start or ended badly.
#[derive(Debug)]
pub enum Error {
    /// An address cannot be bound.
    Bind {
        /// `listen` or `admin`.
        key: &'static str,
        /// What was asked for.
        address: Listen,
        /// Why.
        source: io::Error,
    },
    /// The backend's name does not resolve.
    Resolve {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The routes contradict each other.
    Routes(crate::routes::Conflict),
    /// A document of templates cannot be read.
    OpenApi(DocumentFailure),
    /// A file of certificates or keys cannot be used.
    Tls(Unusable),
    /// A secret cannot be read.
    Secret(SecretFailure),
    /// The system refused something that is needed.
    System(&'static str, io::Error),
    /// The command that is to be the backend does not start.
    Command(CannotStart),
    /// A second signal came before the drain had ended.
    StoppedAtOnce,
    /// Nobody can be told of this objective.
    Objective(Impossible),
    /// The pack cannot be written.
    Pack(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Bind { key, address, source } if source.kind() == io::ErrorKind::AddrInUse => {
                let other = match address {
                    Listen::Tcp(_) => "port, or 0 to let the system choose",
                    Listen::Unix(_) => "path, or remove what is there if it is no socket",
                };
                write!(out, "{key}: {address} is in use by another process; choose another {other}")
            }
            Error::Bind { key, address, source } => write!(out, "{key}: cannot listen on {address}: {source}"),
            Error::Resolve { host, source } => write!(
                out,
                "upstream: the name \"{host}\" does not resolve: {source}; expected a host name or an address, \
                 for example http://127.0.0.1:8080"
            ),
            Error::Routes(conflict) => conflict.fmt(out),
            Error::OpenApi(failure) => failure.fmt(out),
            Error::Tls(unusable) => unusable.fmt(out),
            Error::Secret(failure) => failure.fmt(out),
            Error::System(what, source) => write!(out, "cannot {what}: {source}"),
            Error::Command(error) => error.fmt(out),
            Error::StoppedAtOnce => write!(out, "stopped at once by a second signal"),
            Error::Objective(impossible) => impossible.fmt(out),
            Error::Pack(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// 2 when the configuration asks for what cannot be had, 127 when the command cannot be had, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Bind { .. }
            | Error::Resolve { .. }
            | Error::Routes(_)
            | Error::OpenApi(_)
            | Error::Tls(_)
            | Error::Secret(_)
            | Error::Objective(_) => 2,
            Error::Command(_) => COMMAND_NOT_STARTED,
            Error::System(..) | Error::StoppedAtOnce | Error::Pack(_) => 1,
        }
    }
}

/// Runs a sidecar, and the command that is its backend if there is one, until it is told to stop or the command ends.
/// `log_dropped`: the log's count of dropped lines, for the metric. Returns the exit status.
///
/// # Errors
/// When it cannot start, or was stopped at once.
pub fn run(mut loaded: Loaded, log_dropped: Option<Arc<AtomicU64>>) -> Result<u8, Error> {
    let runtime = control_runtime()?;
    let result = runtime.block_on(async {
        let command = loaded.command.take();
        let mut outside = Outside::listen(command.is_some()).map_err(|e| Error::System("listen to signals", e))?;
        let open_files = raise_descriptor_limit(&loaded.config);
        let (report, changes) = mpsc::unbounded_channel();
        let changes = command.is_some().then_some(changes);
        let documents = tokio::select! {
            documents = Documents::read_aside(&loaded.config.openapi, &[]) => documents.map_err(Error::OpenApi)?,
            // Nobody has been served yet.
            _ = outside.next_stop() => return Ok(0),
        };
        let mut sidecar = Sidecar::start(loaded.config.clone(), loaded.to_json(), documents, log_dropped, changes)?;
        let report = move |event| {
            // The sampler outlives everybody who could report.
            let _ = report.send(change(event));
        };
        let restart = loaded.config.restart;
        let command = command.map(|argv| Keeper::start(argv, restart, open_files, report));
        let mut command = command.transpose().map_err(Error::Command)?;
        tracing::info!(event = "listening", proxy = %sidecar.proxy, admin = %sidecar.admin);
        let ending = loop {
            let wish = tokio::select! {
                wish = outside.next() => wish,
                end = ended(&mut command) => break Ending::CommandEnded(end),
                () = sidecar.documents.arrived() => {
                    sidecar.take_in_documents();
                    continue;
                }
                () = sidecar.secured.changed() => {
                    sidecar.secured.renew(&sidecar.own);
                    continue;
                }
            };
            match wish {
                Wish::Stop { signal } => break Ending::Asked { signal },
                Wish::Reload => match reload(&mut sidecar, &mut loaded, &mut outside, &mut command).await {
                    Some(signal) => break Ending::Asked { signal },
                    None => {
                        if let Some(command) = &mut command {
                            command.set_restart(sidecar.config.restart);
                            command.signal(libc::SIGHUP);
                        }
                    }
                },
                Wish::Pass { signal } => command.iter_mut().for_each(|command| command.signal(signal)),
            }
        };
        sidecar.stop(ending, &mut command, outside.next_stop()).await
    });
    // Whatever is still being read is of no use any more.
    runtime.shutdown_background();
    result
}

/// Takes in a new configuration, and another one if that is asked for meanwhile. What else is wished is heeded: a name or
/// a document may be waited for. `Some`: it was told to stop, by this signal, before anything had changed.
async fn reload<R: FnMut(command::Event)>(
    sidecar: &mut Sidecar,
    loaded: &mut Loaded,
    outside: &mut Outside,
    command: &mut Option<Keeper<R>>,
) -> Option<i32> {
    loop {
        let mut again = false;
        let mut reloading = std::pin::pin!(sidecar.reload(loaded));
        loop {
            tokio::select! {
                () = &mut reloading => break,
                wish = outside.next() => match wish {
                    Wish::Stop { signal } => return Some(signal),
                    Wish::Reload => again = true,
                    Wish::Pass { signal } => command.iter_mut().for_each(|command| command.signal(signal)),
                },
            }
        }
        if !again {
            return None;
        }
    }
}

/// What the sampler is told of the command.
fn change(event: command::Event) -> saturation::Change {
    match event {
        command::Event::Started { pid } => saturation::Change::Started { pid },
        command::Event::Ended(End::Exited(_)) => saturation::Change::Exited,
        command::Event::Ended(End::Killed(signal)) => saturation::Change::Killed { signal },
    }
}

/// The end of the command; never, if there is none.
async fn ended<R: FnMut(command::Event)>(command: &mut Option<Keeper<R>>) -> End {
    match command {
        Some(command) => command.ended().await,
        None => std::future::pending().await,
    }
}

/// Runs the demo: backend, sidecar, traffic, until Ctrl-C or for a while.
///
/// # Errors
/// When it cannot start.
pub fn run_demo(run_for: Option<Duration>, listen: SocketAddr, admin: SocketAddr) -> Result<(), Error> {
    let demo = demo::Demo::start().map_err(|e| Error::System("start the demo's backend", e))?;
    let mut config = Config::for_demo(demo.backend_addr, listen, admin);
    config.routes = demo::routes();
    config.slos = demo::slos();
    config.saturation.pools = demo.pools();
    config.limits.inflight = Some(demo::INFLIGHT_LIMIT);
    let runtime = control_runtime()?;
    let result = runtime.block_on(async {
        let mut outside = Outside::listen(false).map_err(|e| Error::System("listen to signals", e))?;
        let json = config.to_json();
        raise_descriptor_limit(&config);
        let sidecar = Sidecar::start(config, json, Vec::new(), None, None)?;
        let until = async {
            let stop = outside.next_stop();
            match run_for {
                Some(time) => drop(tokio::time::timeout(time, stop).await),
                None => drop(stop.await),
            }
        };
        let mut out = io::stdout();
        let Listen::Tcp(proxy) = sidecar.proxy else { unreachable!("the demo asks for a port") };
        let shown = demo.run(proxy, sidecar.admin, &mut out, until).await;
        let mut nobody: Option<Keeper<fn(command::Event)>> = None;
        let ending = Ending::Asked { signal: libc::SIGTERM };
        let stopped = sidecar.stop(ending, &mut nobody, std::future::pending()).await;
        match shown {
            // `demo | head` is no failure.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::System("print", error)),
            _ => stopped.map(drop),
        }
    });
    runtime.shutdown_background();
    demo.stop();
    result
}

/// Reads what a start would read besides the configuration: files of secrets, certificates and keys, and those among the
/// documents of templates.
///
/// # Errors
/// When one cannot be read, as at a start.
pub fn check(config: &Config) -> Result<(), Error> {
    secured::read(config).map_err(Error::Tls)?;
    secrets::credentials(&config.admin_auth).map_err(Error::Secret)?;
    Documents::read(&config.openapi, &[]).map(drop).map_err(Error::OpenApi)
}

/// Says what can be seen of the backend from here, what cannot, and how to enable it. `upstream_given`: whether
/// somebody named the backend.
///
/// # Errors
/// When the backend's name does not resolve, or nothing can be printed.
pub fn doctor(loaded: &Loaded, upstream_given: bool) -> Result<(), Error> {
    let config = &loaded.config;
    let upstream = resolve(&config.upstream)?;
    let settings = sampling(config, &upstream, false);
    let runtime = control_runtime()?;
    let seen = runtime.block_on(async {
        let signals = Signals::new(1, &config.buckets, config.limits.series);
        Sampler::new(&signals, Vec::new(), settings).examine().await
    });
    let report = doctor::report(&config.upstream.to_string(), upstream_given, &config.saturation.backend, &seen);
    print(&report)
}

/// Prints what was asked for.
fn print(text: &str) -> Result<(), Error> {
    match io::stdout().write_all(text.as_bytes()) {
        // `doctor | head` is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::System("print", error)),
        _ => Ok(()),
    }
}

/// Writes dashboards and alerts for this objective, and says what to do with them.
///
/// # Errors
/// When the objective is impossible, or the folder cannot be written to.
pub fn pack(objective_percent: Option<f64>, latency: Option<Duration>, out: &Path) -> Result<(), Error> {
    let objective = Objective::new(objective_percent, latency).map_err(Error::Objective)?;
    let files = pack::write(&objective, out).map_err(Error::Pack)?;
    let mut text = String::new();
    for file in &files {
        text.push_str(&format!("{}\n", out.join(&file.path).display()));
    }
    text.push_str(&pack::next_steps(&objective, out));
    print(&text)
}

/// Asks the local sidecar whether it is ready. `Err` holds what it said instead.
///
/// # Errors
/// When it does not answer, or is not ready.
pub fn healthcheck(running: &Running) -> Result<(), String> {
    // `/readyz` answers everybody; with credentials it gives its reasons too. Without a readable file it goes without them.
    let authorization = secrets::credentials(&running.auth).ok().and_then(|credentials| credentials.authorization());
    let (ready, said) = ask(running, authorization, "/readyz")?;
    match said.trim() {
        _ if ready => Ok(()),
        "not ready" => Err("not ready".to_owned()),
        reasons => Err(format!("not ready: {}", reasons.replace('\n', "; "))),
    }
}

/// Asks a running sidecar about its routes; gives what to print.
///
/// # Errors
/// A sentence, when it does not answer, or not as one does.
pub fn routes_of(running: &Running, question: &Question) -> Result<String, String> {
    let credentials = secrets::credentials(&running.auth).map_err(|failure| failure.to_string())?;
    let (ok, said) = ask(running, credentials.authorization(), &inspect::target(question))?;
    if !ok {
        return Err(said.trim().to_owned());
    }
    inspect::report(question, &said)
        .map_err(|error| format!("http://{} gave an answer that cannot be read: {error}", running.admin))
}

/// Asks a running sidecar; tells whether it answered 200, and what: its status, if it says nothing else.
fn ask(running: &Running, authorization: Option<String>, target: &str) -> Result<(bool, String), String> {
    let admin = running.admin;
    let path = target.split('?').next().unwrap_or(target);
    let host = &running.host;
    let authorization = authorization.map_or_else(String::new, |value| format!("Authorization: {value}\r\n"));
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{authorization}Connection: close\r\n\r\n");
    let url = format!("{}://{admin}{path}", if running.tls.is_some() { "https" } else { "http" });
    let answer = exchange(running, &request).map_err(|error| format!("no answer from {url}: {error}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n").filter(|(head, _)| head.starts_with("HTTP/1.1 ")) else {
        return Err(format!("no HTTP answer from {url}"));
    };
    let status = head.lines().next().unwrap_or_default().trim_start_matches("HTTP/1.1 ");
    let ok = status.starts_with("200 ");
    if !ok && body.trim().is_empty() {
        return Err(format!("{url} answers {status}"));
    }
    Ok((ok, body.to_owned()))
}

/// Something that is written to and read from.
trait Exchange: io::Read + io::Write {}

impl<S: io::Read + io::Write> Exchange for S {}

/// One request and its answer, all within [`ANSWER_PATIENCE`].
fn exchange(running: &Running, request: &str) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + ANSWER_PATIENCE;
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, format!("not within {ANSWER_PATIENCE:?}"))),
        left => Ok(left),
    };
    // What a socket says when its time is over speaks of a resource that is unavailable.
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => left().err().unwrap_or(error),
        _ => error,
    };
    let socket = std::net::TcpStream::connect_timeout(&running.admin, left()?)?;
    socket.set_write_timeout(Some(left()?))?;
    socket.set_read_timeout(Some(left()?))?;
    let mut stream: Box<dyn Exchange> = match &running.tls {
        None => Box::new(socket.try_clone()?),
        Some(own) => Box::new(tls::with_own(own, running.admin, socket.try_clone()?).map_err(io::Error::other)?),
    };
    stream.write_all(request.as_bytes()).map_err(told)?;
    let (mut answer, mut piece) = (Vec::new(), [0; 16 * 1024]);
    while answer.len() < ANSWER_BYTES_MAX {
        socket.set_read_timeout(Some(left()?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(bytes) => answer.extend_from_slice(&piece[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Who refuses a request before its end resets the connection behind the answer.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !answer.is_empty() => break,
            Err(error) => return Err(told(error)),
        }
    }
    Ok(answer)
}

fn control_runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::System("start the control runtime", e))
}

/// Raises the soft limit of file descriptors to the hard one: 10,000 clients need more than the usual 1,024. Returns
/// the limit as it was, which a command of ours gets: some programs walk through all descriptors that they may have.
fn raise_descriptor_limit(config: &Config) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let before;
    // SAFETY: `limit` is a valid place for one rlimit, and a valid rlimit after the first call.
    unsafe {
        let read = libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        before = limit;
        if read != 0 {
            return before;
        }
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
    let Limits { connections, upstream_connections, .. } = config.limits;
    let shares = shares(config, descriptors::limit());
    if (shares.connections, shares.upstream_connections) != (connections, upstream_connections) {
        tracing::warn!(
            event = "few_descriptors",
            limit = limit.rlim_cur,
            connections = shares.connections,
            upstream_connections = shares.upstream_connections,
            "the limit of open files allows fewer connections than limits.connections and limits.upstream_connections do"
        );
    }
    before
}

/// What the proxy may have of so many descriptors.
fn shares(config: &Config, open_files: Option<usize>) -> Shares {
    let Limits { connections, upstream_connections, .. } = config.limits;
    Shares::of(open_files, config.workers, connections, upstream_connections)
}

/// The limits as far as descriptors allow.
fn within(shares: Shares, limits: &Limits) -> Limits {
    let Shares { connections, upstream_connections, .. } = shares;
    Limits { connections, upstream_connections, ..*limits }
}

fn resolve(upstream: &Upstream) -> Result<Addresses, Error> {
    transport::resolve(upstream).map_err(|source| Error::Resolve { host: upstream.host().to_owned(), source })
}

/// The same while others are served: a name service that does not answer must not hold up the admin port, and signals
/// for two seconds at most.
async fn resolve_in_time(upstream: &Upstream) -> Result<Addresses, Error> {
    let asked = upstream.clone();
    let answer = tokio::task::spawn_blocking(move || resolve(&asked));
    match tokio::time::timeout(RESOLVE_PATIENCE, answer).await {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(panicked)) => Err(Error::System("look up the upstream", io::Error::other(panicked))),
        Err(_) => {
            let source = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {RESOLVE_PATIENCE:?}"));
            Err(Error::Resolve { host: upstream.host().to_owned(), source })
        }
    }
}

/// Where somebody on this machine reaches an address that was bound.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Why the sidecar ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// Somebody asked for it.
    Asked {
        /// By this signal.
        signal: i32,
    },
    /// The command that was the backend ended.
    CommandEnded(End),
}

/// A running sidecar.
struct Sidecar {
    proxy: Listen,
    admin: SocketAddr,
    config: Config,
    secured: Secured,
    /// The file that the proxy listens at, if it does; held for its end.
    _socket_file: Option<listener::SocketFile>,
    signals: Arc<Signals>,
    learned: Arc<Learned>,
    ids: Arc<StoreIds>,
    documents: Documents,
    state: Option<state::Keeper>,
    own: Own,
    /// Descriptors that this process may have.
    open_files: Option<usize>,
    readiness: Readiness,
    admin_room: Arc<Admin>,
    config_json: watch::Sender<Bytes>,
    protection: watch::Sender<Protection>,
    about: watch::Sender<About>,
    table: watch::Sender<Arc<RouteTable>>,
    backend_page: watch::Sender<Target>,
    /// Where the backend is, as far as is known.
    addresses: watch::Sender<Addresses>,
    following: Option<tokio::task::JoinHandle<()>>,
    probe: Option<tokio::task::JoinHandle<()>>,
    sampling: watch::Sender<saturation::Settings>,
    changes: Option<mpsc::UnboundedReceiver<saturation::Change>>,
    shared: Arc<Shared>,
    orders: Vec<mpsc::UnboundedSender<Order>>,
    threads: Vec<JoinHandle<()>>,
    admin_stop: watch::Sender<bool>,
    admin_task: tokio::task::JoinHandle<()>,
}

impl Sidecar {
    /// Builds everything and starts it. When this returns, clients are served.
    /// `documents`: what the files among the documents have; `changes`: how the command fares that is the backend, if
    /// there is one.
    fn start(
        config: Config,
        config_json: String,
        documents: Vec<Slot>,
        log_dropped: Option<Arc<AtomicU64>>,
        changes: Option<mpsc::UnboundedReceiver<saturation::Change>>,
    ) -> Result<Sidecar, Error> {
        let protection = secrets::protection(&config.admin_auth, &config.admin_hosts).map_err(Error::Secret)?;
        let upstream = resolve(&config.upstream)?;
        let latency_edges = LatencyEdges::new(&config);
        let for_all = latency_edges.of(None, None);
        let signals = Signals::new(config.workers, for_all.as_deref().unwrap_or(&config.buckets), config.limits.series);
        let sampling = sampling(&config, &upstream, changes.is_some());
        apply_store_limits(&config, &signals);
        let learned = Arc::new(Learned::new(config.learn.limit));
        let ids = Arc::new(StoreIds::new(&signals, config.learn.limit, latency_edges));
        let routes = routes(&config, &documents, &learned, &ids)?;
        let secured = Secured::new(&config).map_err(Error::Tls)?;
        let settings = Settings::new(&config, Arc::clone(&routes), upstream.clone(), &secured.proxy);
        let bind = |key, address| move |source| Error::Bind { key, address: Listen::Tcp(address), source };
        let listener::Bound { sockets, address: proxy, file } = listener::bind(&config.listen, config.workers)
            .map_err(|source| Error::Bind { key: "listen", address: config.listen.clone(), source })?;
        let admin_socket = std::net::TcpListener::bind(config.admin).map_err(bind("admin", config.admin))?;
        admin_socket.set_nonblocking(true).map_err(bind("admin", config.admin))?;
        let admin_listener = tokio::net::TcpListener::from_std(admin_socket).map_err(bind("admin", config.admin))?;
        let admin_address = admin_listener.local_addr().map_err(bind("admin", config.admin))?;

        let registry = Registry::new();
        let own = Own::register(&registry, log_dropped);
        own.openapi_templates.set(routes.imported().count() as i64);
        secured.show(&own);
        let documents = Documents::new(documents, counting_failures(&own));
        let addresses = watch::Sender::new(upstream.clone());
        let backend_page = watch::Sender::new(backend_page(&config, &addresses, &secured));
        let (shards, teacher) = (Arc::clone(&signals), Arc::clone(&learned));
        let source = move || {
            shards.set_routes_pending(teacher.pending() as u64);
            shards.set_routes_folded(teacher.folded());
            shards.set_routes_forgotten(teacher.forgotten());
            snapshot(&shards)
        };
        let started = signals.started_seconds();
        let exporter = Exporter::with_backend(&registry, Box::new(source), backend_page.subscribe(), started)
            .expect("each family is registered once");
        exporter.set_created(config.created);

        let open_files = descriptors::limit();
        let shares = shares(&config, open_files);
        let shared = Arc::new(Shared {
            connections: AtomicUsize::new(0),
            room: Room::new(shares),
            budget: Budget::new(config.workers, &within(shares, &config.limits)),
        });
        let mut sidecar = {
            let readiness = Readiness::new();
            let (config_sender, config_receiver) = watch::channel(Bytes::from(config_json));
            let (about, about_receiver) = watch::channel(about(&config, &proxy, &upstream));
            let (table, table_receiver) = watch::channel(Arc::clone(&routes));
            let (protection, protection_receiver) = watch::channel(protection);
            let refused = own.admin_refused.clone();
            let guard = Guard::new(protection_receiver, move |reason: Refusal| {
                refused.with_label_values(&[reason.as_str()]).inc();
            });
            let admin_room = Admin::new(
                exporter,
                readiness.reader(),
                config_receiver,
                about_receiver,
                table_receiver,
                Arc::clone(&signals),
                guard,
            );
            let admin_room = Arc::new(admin_room.secured(secured.admin.clone()));
            let (admin_stop, stopped) = watch::channel(false);
            let admin_task = tokio::spawn(admin::serve(admin_listener, Arc::clone(&admin_room), stopped));
            Sidecar {
                proxy,
                admin: admin_address,
                secured,
                _socket_file: file,
                signals,
                // After the declared routes have their labels, which do not count.
                state: keep_state(&config, &learned, &ids, None),
                learned,
                ids,
                documents,
                own,
                open_files,
                readiness,
                admin_room,
                config_json: config_sender,
                protection,
                about,
                table,
                backend_page,
                addresses,
                following: None,
                probe: None,
                sampling: watch::Sender::new(sampling),
                changes,
                shared,
                orders: Vec::new(),
                threads: Vec::new(),
                admin_stop,
                admin_task,
                config,
            }
        };
        sidecar.show_bounds();
        let runtimes = sidecar.start_workers(sockets, &settings)?;
        sidecar.start_sampler(runtimes)?;
        sidecar.answered();
        sidecar.follow();
        sidecar.start_probe();
        // Scrapers are written to from here, and a page is long.
        turns::step_back(0);
        sidecar.readiness.started();
        Ok(sidecar)
    }

    fn start_workers(
        &mut self,
        sockets: Vec<listener::Socket>,
        settings: &Settings,
    ) -> Result<Vec<RuntimeMetrics>, Error> {
        let (ready, started) = std_mpsc::channel();
        for (index, socket) in sockets.into_iter().enumerate() {
            let (sender, receiver) = mpsc::unbounded_channel();
            self.orders.push(sender);
            let (signals, shared, settings) = (Arc::clone(&self.signals), Arc::clone(&self.shared), settings.clone());
            let ready = ready.clone();
            let body = move || {
                let built = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
                let runtime = match built {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let _ = ready.send(Ok(runtime.handle().metrics()));
                drop(ready);
                let meter = WorkerSignals::new(&signals, index);
                let ended = runtime.block_on(worker::run(index, socket, meter, settings, shared, receiver));
                if let Err(error) = ended {
                    tracing::error!(event = "worker_failed", worker = index, %error);
                }
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(body)
                .map_err(|e| Error::System("start a worker thread", e))?;
            self.threads.push(thread);
        }
        drop(ready);
        let runtimes: io::Result<Vec<_>> = started.iter().collect();
        runtimes.map_err(|e| Error::System("start a worker's runtime", e))
    }

    /// Starts the sampler, on a thread of its own: reading /proc and asking the kernel about thousands of sockets
    /// blocks for milliseconds, which the admin port and the probe of the backend must not wait for.
    fn start_sampler(&mut self, runtimes: Vec<RuntimeMetrics>) -> Result<(), Error> {
        let signals = Arc::clone(&self.signals);
        let settings = self.sampling.borrow().clone();
        let (told, changes) = (self.sampling.subscribe(), self.changes.take());
        let body = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return tracing::error!(event = "sampler_failed", %error),
            };
            runtime.block_on(async {
                let sampler = Sampler::new(&signals, runtimes, settings);
                sampler.run(changes.unwrap_or_else(|| mpsc::unbounded_channel().1), told).await;
            });
        };
        // Nobody waits for it at the end: it holds nothing that would have to be finished.
        let started = std::thread::Builder::new().name("sampler".to_owned()).spawn(body);
        started.map(drop).map_err(|e| Error::System("start the sampler's thread", e))
    }

    /// Starts to probe the backend, and stops an older probe.
    fn start_probe(&mut self) {
        let gauges = readiness::Gauges {
            up: self.own.backend_up.clone(),
            duration_seconds: self.own.backend_probe_duration.clone(),
        };
        let addresses = self.addresses.subscribe();
        let tls = self.secured.proxy.upstream.clone();
        let probe =
            readiness::Probe::new(&self.config.upstream, &self.config.readiness, addresses, tls, gauges, listening);
        let readiness = self.readiness.clone();
        let mut was_up = None;
        let probing = tokio::spawn(probe.run(move |outcome| {
            if was_up.replace(outcome.is_ok()) != Some(outcome.is_ok()) {
                match &outcome {
                    Ok(()) => tracing::info!(event = "backend_up"),
                    Err(down) => tracing::warn!(event = "backend_down", reason = %down),
                }
            }
            readiness.backend(outcome.map_or_else(|down| Backend::Down(down.to_string()), |()| Backend::Up));
        }));
        if let Some(old) = self.probe.replace(probing) {
            old.abort();
        }
    }

    /// Keeps up with the name of the backend, if it has one, from the addresses on that are known; who did before stops.
    fn follow(&mut self) {
        let Config { upstream, dns, .. } = &self.config;
        let host = upstream.host().to_owned();
        let (addresses, orders, sampled, shown) =
            (self.addresses.clone(), self.orders.clone(), self.sampling.clone(), self.about.clone());
        let own = self.own.clone();
        let tell = move |event| match event {
            Event::Answered { changed, found_again } => {
                own.dns_lookups.with_label_values(&["success"]).inc();
                if found_again {
                    tracing::info!(event = "upstream_name_found", host);
                }
                let Some(new) = changed else { return };
                tracing::info!(event = "upstream_moved", host, addresses = listed(&new));
                own.upstream_addresses.set(new.count() as i64);
                sampled.send_modify(|sampling| sampling.upstream = new.tcp().into());
                shown.send_modify(|about| about.addresses = new.tcp().to_vec());
                give(&orders, &Order::Addresses(new.clone()));
                addresses.send_replace(new);
            }
            Event::Failed { error, lost } => {
                own.dns_lookups.with_label_values(&["failure"]).inc();
                if lost {
                    tracing::warn!(event = "upstream_name_lost", host, %error, "its last addresses stay in force");
                }
            }
        };
        let following = transport::follow(upstream.clone(), self.addresses.borrow().clone(), dns.refresh, tell);
        if let Some(old) = self.following.replace(tokio::spawn(following)) {
            old.abort();
        }
    }

    /// Counts a question about the name that was answered elsewhere: at the start or at a reload.
    fn answered(&self) {
        if self.config.upstream.is_name() {
            self.own.dns_lookups.with_label_values(&["success"]).inc();
        }
        self.own.upstream_addresses.set(self.addresses.borrow().count() as i64);
    }

    /// Limits as gauges.
    fn show_bounds(&self) {
        let limits = within(shares(&self.config, self.open_files), &self.config.limits);
        let bounds = self.signals.bounds();
        bounds.connections.store(limits.connections as u64, Relaxed);
        bounds.inflight.store(limits.inflight.unwrap_or(0) as u64, Relaxed);
        bounds.upstream_connections.store(limits.upstream_connections as u64, Relaxed);
    }

    fn order(&self, order: &Order) {
        give(&self.orders, order);
    }

    /// Takes a new configuration in, or keeps the old one. Dropped before it has ended, it has changed nothing: it waits
    /// only before its first change.
    async fn reload(&mut self, loaded: &mut Loaded) {
        match self.try_reload(loaded).await {
            Ok(()) => {
                self.own.reload_succeeded();
                tracing::info!(event = "reloaded");
            }
            Err(error) => {
                self.own.reload_failed();
                tracing::error!(event = "reload_failed", error, "the old configuration stays in force");
            }
        }
    }

    async fn try_reload(&mut self, loaded: &mut Loaded) -> Result<(), String> {
        let mut new = loaded.reload().map_err(|error| error.to_string())?;
        let protection = secrets::protection(&new.config.admin_auth, &new.config.admin_hosts);
        let protection = protection.map_err(|failure| failure.to_string())?;
        // A name that is kept up with needs no answer just now.
        let moved = match new.config.upstream == self.config.upstream {
            true => None,
            false => Some(resolve_in_time(&new.config.upstream).await.map_err(|error| error.to_string())?),
        };
        let documents = self.read_documents(&new.config.openapi).await?;
        let fixed = keep_fixed(&self.config, &mut new.config);
        // The last step that may fail but one; certificates that were read are good whatever comes of the rest.
        self.secured.reload(&new.config).map_err(|error| error.to_string())?;
        self.secured.show(&self.own);
        // Before the routes: those that are new get the edges that hold from now on.
        self.ids.set_edges(LatencyEdges::new(&new.config));
        let routes = routes(&new.config, &documents, &self.learned, &self.ids).map_err(|error| {
            self.ids.set_edges(LatencyEdges::new(&self.config));
            error.to_string()
        })?;
        if !fixed.is_empty() {
            tracing::warn!(
                event = "restart_needed",
                keys = fixed.join(", "),
                "these keys take effect at the next start"
            );
        }
        apply_store_limits(&new.config, &self.signals);
        self.admin_room.exporter().set_created(new.config.created);
        self.learned.set_limit(new.config.learn.limit);
        self.ids.set_limit(new.config.learn.limit);
        self.own.openapi_templates.set(routes.imported().count() as i64);
        self.documents = Documents::new(documents, counting_failures(&self.own));
        self.state = keep_state(&new.config, &self.learned, &self.ids, self.state.take());
        let shares = shares(&new.config, self.open_files);
        self.shared.room.set(shares);
        self.shared.budget.set_limits(&within(shares, &new.config.limits));
        self.protection.send_replace(protection);
        self.config_json.send_replace(Bytes::from(new.to_json()));
        let old = std::mem::replace(&mut self.config, new.config.clone());
        self.show_bounds();
        self.backend_page.send_replace(backend_page(&self.config, &self.addresses, &self.secured));
        let has_moved = moved.is_some();
        if let Some(upstream) = moved {
            self.addresses.send_replace(upstream);
            self.answered();
        }
        if has_moved || old.dns != self.config.dns {
            self.follow();
        }
        let upstream = self.addresses.borrow().clone();
        upstream.ask_again();
        self.sampling.send_modify(|settings| *settings = sampling(&self.config, &upstream, settings.wrapped));
        self.table.send_replace(Arc::clone(&routes));
        self.about.send_replace(about(&self.config, &self.proxy, &upstream));
        self.order(&Order::Reload(Arc::new(Settings::new(&self.config, routes, upstream, &self.secured.proxy))));
        let asked = |config: &Config| (config.upstream.clone(), config.upstream_tls.clone(), config.readiness.clone());
        if asked(&old) != asked(&self.config) {
            self.start_probe();
        }
        *loaded = new;
        Ok(())
    }

    /// Reads the files again, while others are served.
    async fn read_documents(&self, asked: &[OpenApi]) -> Result<Vec<Slot>, String> {
        Documents::read_in_time(asked, self.documents.slots()).await.map_err(|failure| {
            self.own.openapi_failures.with_label_values(&[failure.reason.as_str()]).inc();
            failure.to_string()
        })
    }

    /// Lets the workers know the templates of a document that has come.
    fn take_in_documents(&mut self) {
        let upstream = self.addresses.borrow().clone();
        match routes(&self.config, self.documents.slots(), &self.learned, &self.ids) {
            Ok(routes) => {
                self.own.openapi_templates.set(routes.imported().count() as i64);
                self.table.send_replace(Arc::clone(&routes));
                let settings = Settings::new(&self.config, routes, upstream, &self.secured.proxy);
                self.order(&Order::Reload(Arc::new(settings)));
            }
            // The declared routes, which alone can contradict each other, are those in force.
            Err(error) => tracing::error!(event = "openapi_not_used", %error),
        }
    }

    /// Ends in order: not ready, grace, drain, cut, the command, last scrape. `at_once` shortens it. Returns the exit
    /// status: the command's, if there is one.
    async fn stop<R: FnMut(command::Event)>(
        mut self,
        ending: Ending,
        command: &mut Option<Keeper<R>>,
        at_once: impl Future<Output = i32>,
    ) -> Result<u8, Error> {
        let drain = self.config.drain;
        command.iter_mut().for_each(|command| command.set_restart(Restart::Never));
        self.readiness.draining();
        self.own.drain_started();
        tracing::info!(event = "draining", grace = ?drain.grace, timeout = ?drain.timeout);
        let drained = async {
            self.order(&Order::Closing);
            // Without a backend there is nothing to serve while others notice.
            if let Ending::Asked { .. } = ending {
                tokio::time::sleep(drain.grace).await;
            }
            self.order(&Order::Drain);
            if !self.all_ended_within(drain.timeout).await {
                tracing::warn!(event = "drain_deadline", cut = self.signals.inflight());
                self.order(&Order::Cut);
                self.all_ended_within(CUT_GRACE).await;
            }
            // Backend connections end a moment after their last request, and the last page is to tell of it.
            let closed = || self.signals.upstream_active() + self.signals.upstream_idle() == 0;
            happens_within(CUT_GRACE, closed).await;
        };
        let in_order = async {
            let code = match (ending, command.as_mut()) {
                (Ending::Asked { signal }, Some(command)) => {
                    // It may end meanwhile, and its orphans too: somebody has to ask how. The drain goes on all the
                    // same.
                    let asking = async {
                        command.ended().await;
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        () = drained => {}
                        () = asking => {}
                    }
                    end_command(command, signal, drain.timeout).await.code()
                }
                (Ending::CommandEnded(end), _) => {
                    drained.await;
                    end.code()
                }
                (Ending::Asked { .. }, None) => {
                    drained.await;
                    0
                }
            };
            if let Some(command) = command.as_mut() {
                command.workers_ended().await;
            }
            if drain.last_scrape > Duration::ZERO {
                let _ = tokio::time::timeout(drain.last_scrape, self.admin_room.scraped()).await;
            }
            code
        };
        let result = tokio::select! {
            code = in_order => Ok(code),
            _ = at_once => Err(Error::StoppedAtOnce),
        };
        if result.is_err() {
            command.iter().for_each(Keeper::kill);
        }
        if let Some(state) = self.state.take().filter(|_| result.is_ok()) {
            state.finish().await;
        }
        self.admin_stop.send_replace(true);
        if result.is_ok() {
            let _ = self.admin_task.await;
            // It can order, too; workers end when nobody can any more.
            if let Some(following) = self.following.take() {
                following.abort();
                let _ = following.await;
            }
            drop(self.orders);
            for thread in self.threads {
                // A worker that panicked has said so on standard error.
                let _ = thread.join();
            }
        }
        tracing::info!(event = "stopped");
        result
    }

    /// Whether all client connections have ended within `time`.
    async fn all_ended_within(&self, time: Duration) -> bool {
        happens_within(time, || self.shared.connections.load(Relaxed) == 0).await
    }
}

/// Whether the condition comes to hold within `time`.
async fn happens_within(time: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + time;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

/// What the kernel says of a listener on this machine.
fn listening(address: &Address) -> Option<readiness::Queue> {
    let queue = match address {
        Address::Tcp(address) => saturation::queue_at(*address)?,
        Address::Unix(path) => saturation::queue_of(path)?,
    };
    Some(if queue.waiting > queue.backlog { readiness::Queue::Full } else { readiness::Queue::Open })
}

/// Passes the signal on and waits for the command, which has as long as the requests had; then it is killed.
async fn end_command<R: FnMut(command::Event)>(command: &mut Keeper<R>, signal: i32, patience: Duration) -> End {
    command.signal(signal);
    if let Ok(end) = tokio::time::timeout(patience, command.ended()).await {
        return end;
    }
    tracing::warn!(event = "command_killed", "it did not end within drain.timeout");
    command.kill();
    command.ended().await
}

/// The route table of a configuration and its documents. What was learned and given numbers stays.
fn routes(
    config: &Config,
    documents: &[Slot],
    learned: &Arc<Learned>,
    ids: &Arc<StoreIds>,
) -> Result<Arc<RouteTable>, Error> {
    let learned = config.learn.enabled.then(|| Arc::clone(learned));
    let ids: Arc<dyn Ids> = Arc::<StoreIds>::clone(ids);
    let table = RouteTable::new(&config.routes, &documents::templates(documents), learned, ids);
    let table = table.map_err(Error::Routes)?;
    documents::log_notes(table.notes());
    Ok(Arc::new(table))
}

/// Hands the limits of the stores on that are not part of their making.
fn apply_store_limits(config: &Config, signals: &Signals) {
    signals.set_series_limit(config.limits.series);
    signals.set_series_idle(config.limits.series_idle);
    signals.set_memory_limit(usize::try_from(config.limits.metrics_memory).unwrap_or(usize::MAX));
    let not_counted = signals.set_slos(&config.slos);
    if !not_counted.is_empty() {
        let names = not_counted.join(", ");
        tracing::warn!(event = "slos_not_counted", names, "there have been too many names; they count after a restart");
    }
    let without_effect = signals.set_implicit_errors(&config.implicit_errors);
    if !without_effect.is_empty() {
        let names = without_effect.join(", ");
        tracing::warn!(
            event = "implicit_errors_not_counted",
            names,
            "there have been too many names; these rules hold after a restart"
        );
    }
}

/// Counts attempts to get a document that failed.
fn counting_failures(own: &Own) -> impl Fn(Trouble) + Clone + Send + 'static {
    let failures = own.openapi_failures.clone();
    move |reason: Trouble| failures.with_label_values(&[reason.as_str()]).inc()
}

/// Takes in what a file says was learned. Whether the file may be written from now on.
fn restore(path: &Path, learned: &Learned, ids: &StoreIds) -> bool {
    let text = match state::read(path) {
        Ok(Some(text)) => text,
        Ok(None) => return true,
        Err(error) => return state::set_aside(path, &error),
    };
    match learned.restore(&text, &|name| ids.first_used(name, RouteKind::Learned)) {
        Ok(templates) => {
            tracing::info!(event = "learned_restored", file = %path.display(), templates);
            true
        }
        Err(error) => state::set_aside(path, &error),
    }
}

/// Who writes down what is learned under this configuration; whoever does already goes on. A file that comes into use
/// is read before it is written.
fn keep_state(
    config: &Config,
    learned: &Arc<Learned>,
    ids: &StoreIds,
    old: Option<state::Keeper>,
) -> Option<state::Keeper> {
    let path = config.learn.state.as_ref().filter(|_| config.learn.enabled)?;
    match old {
        Some(old) if old.path() == path => Some(old),
        _ => restore(path, learned, ids).then(|| state::Keeper::start(path, learned)),
    }
}

/// What the page at `/` says.
fn about(config: &Config, proxy: &Listen, addresses: &Addresses) -> About {
    About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        proxy: match proxy {
            Listen::Tcp(address) => reachable(*address).to_string(),
            Listen::Unix(_) => proxy.to_string(),
        },
        upstream: config.upstream.to_string(),
        // What is no name says where it leads.
        addresses: if config.upstream.is_name() { addresses.tcp().to_vec() } else { Vec::new() },
    }
}

/// What the sampler needs to know. `wrapped`: whether the backend is a command of ours.
fn sampling(config: &Config, addresses: &Addresses, wrapped: bool) -> saturation::Settings {
    saturation::Settings {
        saturation: config.saturation.clone(),
        upstream: addresses.tcp().into(),
        socket: addresses.socket().cloned(),
        wrapped,
    }
}

fn give(orders: &[mpsc::UnboundedSender<Order>], order: &Order) {
    for worker in orders {
        // A worker that has ended needs no orders.
        let _ = worker.send(order.clone());
    }
}

/// The addresses, for a log line. More than some are a number.
fn listed(addresses: &Addresses) -> String {
    /// As many as a person reads.
    const LISTED_MAX: usize = 8;
    let mut text: Vec<String> = addresses.iter().take(LISTED_MAX).map(|address| address.to_string()).collect();
    if addresses.count() > LISTED_MAX {
        text.push(format!("and {} more", addresses.count() - LISTED_MAX));
    }
    text.join(", ")
}

/// Where the backend's own metrics are.
fn backend_page(config: &Config, addresses: &watch::Sender<Addresses>, secured: &Secured) -> Target {
    let BackendMetrics { url, include, size_max, timeout } = config.backend_metrics.clone();
    let of_backend = || {
        let (upstream, tls) = (config.upstream.clone(), secured.proxy.upstream.clone());
        exposition::Page::OfBackend(fetch::Backend { upstream, addresses: addresses.subscribe(), tls })
    };
    let page = url.map_or_else(of_backend, exposition::Page::Url);
    Target { page, size_max, timeout, always: include }
}

/// Keeps what only a restart can change as it is in force, and names the keys that were asked to differ.
fn keep_fixed(old: &Config, new: &mut Config) -> Vec<&'static str> {
    fn keep<T: Clone + PartialEq>(key: &'static str, old: &T, new: &mut T, kept: &mut Vec<&'static str>) {
        if old != new {
            kept.push(key);
            *new = old.clone();
        }
    }
    let mut kept = Vec::new();
    keep("listen", &old.listen, &mut new.listen, &mut kept);
    keep("admin", &old.admin, &mut new.admin, &mut kept);
    keep("admin_tls", &old.admin_tls, &mut new.admin_tls, &mut kept);
    keep("workers", &old.workers, &mut new.workers, &mut kept);
    keep("buckets", &old.buckets, &mut new.buckets, &mut kept);
    keep("saturation.interval", &old.saturation.interval, &mut new.saturation.interval, &mut kept);
    kept
}
