//! From what was given to what the program sees: defaults, units, ranges, and combinations that cannot work. No side
//! effect, nothing read from outside: what must be known of the world comes in as an argument.
//!
//! Structs are taken apart by name without `..`, so a new key does not compile until it is used.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::access;
use super::error::{ConfigError, Source, found};
use super::expression::{self, Format};
use super::presets;
use super::raw::{
    Given, Maps, OneOrMore, Raw, RawAdminTls, RawBackend, RawBackendMetrics, RawCommand, RawDns, RawDrain, RawField,
    RawImplicitError, RawLearn, RawLimits, RawPolicy, RawPool, RawProbes, RawReadiness, RawRoute, RawSaturation,
    RawServerTls, RawSlo, RawTimeouts, RawUpstreamTls, Scalar,
};
use super::units::{format_duration, format_size, parse_duration, parse_size};
use super::{
    BackendHints, BackendMetrics, ClientAuth, Config, DEFAULT_REQUEST_LINE_BYTES, Dns, Drain, Expression, Forwarded,
    IMPLICIT_ERRORS_MAX, Identity, ImplicitError, Learn, Limits, Listen, Network, OpenApi, Place, Pool, PoolKind,
    PoolSelectors, Probes, Readiness, Restart, RouteTemplate, SLOS_MAX, Saturation, Scheme, ServerTls, Slo, Symptom,
    Timeouts, Upstream, UpstreamTls,
};
use crate::labels::Method;

/// Threads beyond any machine: more is a typing mistake.
const WORKERS_MAX: usize = 1024;
/// Beyond what a process may open; keeps sums of limits far from overflow on every platform.
const COUNT_MAX: usize = 100_000_000;
/// A head below 1 KiB refuses ordinary browsers.
const HEAD_BYTES_MIN: u64 = 1 << 10;
/// Each connection may hold a head in memory, so a megabyte is the most that one may cost.
const HEAD_BYTES_MAX: u64 = 1 << 20;
/// `GET / HTTP/1.1` and its line end: the shortest request line there is.
const REQUEST_LINE_BYTES_MIN: u64 = 16;
/// Each field costs the parser a slot whether it is used or not.
const HEADERS_MAX: usize = 10_000;
/// Stream identifiers have 31 bits and half of them are the client's (RFC 9113, section 5.1.1).
const STREAMS_MAX: usize = 1 << 30;
/// Each edge is a series for each set of labels.
const BUCKETS_MAX: usize = 100;
/// Below it, probes and samplers would be a load of their own.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Gauges older than this mislead.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// The kernel's own bound on process ids (PID_MAX_LIMIT of 64-bit systems).
const PID_MAX: usize = 4 << 20;
/// A millicore, the smallest step that Kubernetes knows.
const CORES_MIN: f64 = 0.001;
/// Beyond any machine; and small enough to notice millicores that lack their unit.
const CORES_MAX: f64 = 1024.0;
/// Each pool is some ten series, and each reported one a request per interval.
const POOLS_MAX: usize = 20;
/// A label value that people read.
const NAME_CHARS_MAX: usize = 64;
/// A text that somebody looks for in a body; a page of it is a mistake.
const WANTED_BYTES_MAX: usize = 1 << 10;
/// Each document is a table of its own in memory while it is read.
const DOCUMENTS_MAX: usize = 16;
/// Each label is dozens of series, and a route's number has 16 bits.
const LABELS_MAX: usize = 10_000;
/// Below it, not even the label sets that are always there would fit.
const METRICS_MEMORY_MIN: u64 = 1 << 20;
/// More than any process that is put beside another one; a typing mistake.
const METRICS_MEMORY_MAX: u64 = 16 << 30;
/// A page below it holds a handful of series.
const PAGE_BYTES_MIN: u64 = 1 << 10;
/// The page is held in memory while it is joined to ours.
const PAGE_BYTES_MAX: u64 = 64 << 20;

/// The checked configuration and what `check` tells about it.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub config: Config,
    /// Where each value that is not a default was given, by key.
    pub sources: Sources,
    /// Whether the number of workers follows the machine.
    pub workers_auto: bool,
}

/// Sources by key.
pub(super) type Sources = BTreeMap<&'static str, Source>;

/// What resolving must know of the world.
#[derive(Clone, Debug)]
pub(super) struct Around {
    /// Cores that this process may use.
    pub cores: usize,
    /// The backend if nobody names one; `None`: then that is a mistake.
    pub upstream: Option<Upstream>,
    /// Where relative paths begin.
    pub folders: Folders,
}

/// Where relative paths begin. Absolute, so that a path means the same wherever it is written down again.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    /// For flags and variables: the working folder.
    pub working: PathBuf,
    /// For the file: its own folder.
    pub file: PathBuf,
}

/// Checks everything.
///
/// # Errors
/// The first mistake.
pub(super) fn resolve(raw: Raw, around: Around) -> Result<Resolved, ConfigError> {
    let Raw {
        upstream,
        listen,
        admin,
        admin_auth,
        admin_hosts,
        workers,
        tls,
        upstream_tls,
        admin_tls,
        proxy_protocol,
        timeouts,
        limits,
        drain,
        dns,
        routes,
        openapi,
        learn,
        buckets,
        slos,
        implicit_errors,
        created,
        probes,
        readiness,
        saturation,
        command,
        backend_metrics,
        forwarded,
        via,
    } = raw;
    let mut keys = Keys::default();

    let upstream_source = upstream.as_ref().map(|given| given.source.clone());
    let upstream = match (upstream, around.upstream) {
        (Some(given), _) => {
            // It has no default, so its source is always worth telling.
            keys.sources.insert("upstream", given.source.clone());
            checked("upstream", given, parse_upstream)?
        }
        (None, Some(upstream)) => upstream,
        (None, None) => {
            let problem =
                "missing; expected http://HOST:PORT, given as --upstream, GOLDEN_UPSTREAM or a key of the file";
            return Err(ConfigError::new("upstream", problem, None));
        }
    };
    let defaults = Config::with_defaults(upstream.clone());

    let listen_source = listen.as_ref().map(|given| given.source.clone());
    let admin_source = admin.as_ref().map(|given| given.source.clone());
    let listen = keys.scalar("listen", listen, defaults.listen, parse_listen)?;
    let admin = keys.scalar("admin", admin, defaults.admin, parse_address)?;
    distinct((&listen, listen_source), (admin, admin_source))?;
    for (key, address) in [("listen", &listen), ("admin", &Listen::Tcp(admin))] {
        if leads_to(&upstream, address) {
            let problem = format!(
                "{} is our own {key} address ({address}), so requests would go round in a loop; expected the backend's",
                found(&upstream.to_string())
            );
            return Err(ConfigError::new("upstream", problem, upstream_source));
        }
    }
    let RawServerTls { certificate, key, client_ca, client_auth } = tls;
    let tls = [certificate, key, client_ca, client_auth];
    let upstream_tls =
        resolve_upstream_tls(&mut keys, upstream_tls, defaults.upstream_tls, &upstream, &around.folders)?;

    let workers = keys.scalar("workers", workers, None, |text| match text {
        "auto" => Ok(None),
        _ => count(text, 1, WORKERS_MAX, " or auto").map(Some),
    })?;

    let readiness = resolve_readiness(&mut keys, readiness, defaults.readiness, &upstream)?;
    let config = Config {
        upstream,
        listen,
        proxy_protocol: keys.scalar("proxy_protocol", proxy_protocol, defaults.proxy_protocol, parse_bool)?,
        tls: resolve_server_tls(&mut keys, &TLS_KEYS, tls, &around.folders)?,
        upstream_tls,
        admin_tls: resolve_admin_tls(&mut keys, admin_tls, &around.folders)?,
        admin,
        admin_auth: access::resolve_auth(&mut keys, admin_auth, &around.folders)?,
        admin_hosts: keys.value("admin_hosts", admin_hosts, defaults.admin_hosts, |given| {
            access::resolve_hosts("admin_hosts", given)
        })?,
        workers: workers.unwrap_or(around.cores.max(1)),
        timeouts: resolve_timeouts(&mut keys, timeouts, defaults.timeouts)?,
        limits: resolve_limits(&mut keys, limits, defaults.limits)?,
        drain: resolve_drain(&mut keys, drain, defaults.drain)?,
        dns: resolve_dns(&mut keys, dns, defaults.dns)?,
        routes: resolve_routes(&mut keys, routes)?,
        openapi: resolve_openapi(&mut keys, openapi, &around.folders)?,
        learn: resolve_learn(&mut keys, learn, defaults.learn, &around.folders)?,
        buckets: keys.value("buckets", buckets, defaults.buckets, |given| parse_buckets("buckets", given))?,
        slos: keys.value("slos", slos, defaults.slos, resolve_slos)?,
        implicit_errors: keys.value(
            "implicit_errors",
            implicit_errors,
            defaults.implicit_errors,
            resolve_implicit_errors,
        )?,
        created: keys.scalar("created", created, defaults.created, parse_bool)?,
        probes: resolve_probes(&mut keys, probes, defaults.probes)?,
        readiness,
        saturation: resolve_saturation(&mut keys, saturation, defaults.saturation, &around.folders)?,
        restart: resolve_command(&mut keys, command, defaults.restart)?,
        backend_metrics: resolve_backend_metrics(&mut keys, backend_metrics, defaults.backend_metrics)?,
        forwarded: keys.value("forwarded", forwarded, defaults.forwarded, resolve_forwarded)?,
        via: keys.scalar("via", via, defaults.via, parse_bool)?,
    };
    Ok(Resolved { config, sources: keys.sources, workers_auto: workers.is_none() })
}

/// Reads the number of a duration flag that is no key of the file, such as `demo --for`.
///
/// # Errors
/// When it is not a duration above zero.
pub(super) fn positive_duration(key: &str, given: Given<String>) -> Result<Duration, ConfigError> {
    checked(key, given, parse_positive_duration)
}

/// Reads an address outside of a whole configuration.
///
/// # Errors
/// When it is not an address with a port.
pub(super) fn address(key: &str, given: Given<String>) -> Result<SocketAddr, ConfigError> {
    checked(key, given, parse_address)
}

/// Refuses two addresses that cannot be bound at once. Each comes with its source, `None` for a default.
///
/// # Errors
/// When they share a port (0 is another port each time) and an interface.
pub(super) fn distinct(
    (listen, listen_source): (&Listen, Option<Source>),
    (admin, admin_source): (SocketAddr, Option<Source>),
) -> Result<(), ConfigError> {
    let &Listen::Tcp(listen) = listen else { return Ok(()) };
    let one_interface = listen.ip() == admin.ip() || is_wildcard(listen) || is_wildcard(admin);
    if listen.port() == 0 || listen.port() != admin.port() || !one_interface {
        return Ok(());
    }
    // The sentence is about the one that was given, since the other may be a default nobody thinks of.
    let (key, problem, source) = match admin_source {
        Some(source) => ("admin", format!("{admin} has the port of listen ({listen})"), Some(source)),
        None => ("listen", format!("{listen} has the port of admin ({admin})"), listen_source),
    };
    Err(ConfigError::new(key, format!("{problem}; expected another port"), source))
}

// === impl Folders ===

impl Folders {
    /// The folder where the relative paths of a source begin.
    pub(super) fn of(&self, source: &Source) -> &PathBuf {
        match source {
            Source::File { .. } => &self.file,
            Source::Flag(_) | Source::Environment(_) => &self.working,
        }
    }
}

// === keys ===

/// Takes values one by one and remembers where those came from that are not the default.
#[derive(Default)]
pub(super) struct Keys {
    sources: Sources,
}

impl Keys {
    /// The value of a scalar key.
    pub(super) fn scalar<T: PartialEq>(
        &mut self,
        key: &'static str,
        given: Scalar,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        self.value(key, given, default, |given| checked(key, given, parse))
    }

    /// The value of any key.
    pub(super) fn value<G, T: PartialEq>(
        &mut self,
        key: &'static str,
        given: Option<Given<G>>,
        default: T,
        resolve: impl FnOnce(Given<G>) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        let Some(given) = given else { return Ok(default) };
        let source = given.source.clone();
        let value = resolve(given)?;
        if value != default {
            self.sources.insert(key, source);
        }
        Ok(value)
    }
}

pub(super) fn checked<T>(
    key: &str,
    given: Given<String>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    let Given { value, source } = given;
    parse(value.trim()).map_err(|problem| ConfigError::new(key, problem, Some(source)))
}

// === sections ===

fn resolve_timeouts(keys: &mut Keys, raw: RawTimeouts, defaults: Timeouts) -> Result<Timeouts, ConfigError> {
    let RawTimeouts {
        client_head,
        client_body,
        client_idle,
        connect,
        pool_wait,
        head,
        body,
        upstream_idle,
        upstream_age,
    } = raw;
    let mut timeout = |key, given, default| keys.scalar(key, given, default, parse_positive_duration);
    Ok(Timeouts {
        client_head: timeout("timeouts.client_head", client_head, defaults.client_head)?,
        client_body: timeout("timeouts.client_body", client_body, defaults.client_body)?,
        client_idle: timeout("timeouts.client_idle", client_idle, defaults.client_idle)?,
        connect: timeout("timeouts.connect", connect, defaults.connect)?,
        pool_wait: timeout("timeouts.pool_wait", pool_wait, defaults.pool_wait)?,
        head: timeout("timeouts.head", head, defaults.head)?,
        body: timeout("timeouts.body", body, defaults.body)?,
        upstream_idle: timeout("timeouts.upstream_idle", upstream_idle, defaults.upstream_idle)?,
        upstream_age: timeout("timeouts.upstream_age", upstream_age, defaults.upstream_age)?,
    })
}

/// The keys of `tls`, and after them those of `admin_tls`, which has no choice of who must show a certificate.
const TLS_KEYS: [&str; 4] = ["tls.certificate", "tls.key", "tls.client_ca", "tls.client_auth"];
const ADMIN_TLS_KEYS: [&str; 4] = ["admin_tls.certificate", "admin_tls.key", "admin_tls.client_ca", ""];

/// The values are in the order of `names`.
fn resolve_server_tls(
    keys: &mut Keys,
    names: &[&'static str; 4],
    [certificate, key, client_ca, client_auth]: [Scalar; 4],
    folders: &Folders,
) -> Result<Option<ServerTls>, ConfigError> {
    let [name_of_certificate, name_of_key, name_of_ca, name_of_auth] = *names;
    let sources = [&certificate, &key, &client_ca, &client_auth].map(|given| given.as_ref().map(|g| g.source.clone()));
    let [_, _, ca_source, auth_source] = sources.clone();
    let identity = resolve_identity(keys, [name_of_certificate, name_of_key], [certificate, key], folders)?;
    let client_ca = file(keys, name_of_ca, client_ca, "clients.pem", folders)?;
    let all = [ClientAuth::None, ClientAuth::Optional, ClientAuth::Required];
    let default = if client_ca.is_some() { ClientAuth::Required } else { ClientAuth::None };
    let client_auth = keys.scalar(name_of_auth, client_auth, default, |text| {
        let known = all.into_iter().find(|auth| auth.as_str() == text);
        known.ok_or_else(|| format!("{} is not a rule for clients; expected none, optional or required", found(text)))
    })?;
    let Some(identity) = identity else {
        if client_ca.is_some() {
            let problem = format!("has no meaning without {name_of_certificate}; expected that too");
            return Err(ConfigError::new(name_of_ca, problem, ca_source));
        }
        if client_auth != ClientAuth::None {
            let problem = format!("has no meaning without {name_of_certificate}; expected that too");
            return Err(ConfigError::new(name_of_auth, problem, auth_source));
        }
        return Ok(None);
    };
    if client_ca.is_none() && client_auth != ClientAuth::None {
        let problem = format!("asks clients for certificates and accepts none; expected {name_of_ca} too");
        return Err(ConfigError::new(name_of_auth, problem, auth_source));
    }
    Ok(Some(ServerTls { identity, client_ca, client_auth }))
}

/// The section `admin_tls`, outside of a whole configuration too.
///
/// # Errors
/// The first mistake in it.
pub(super) fn resolve_admin_tls(
    keys: &mut Keys,
    raw: RawAdminTls,
    folders: &Folders,
) -> Result<Option<ServerTls>, ConfigError> {
    let RawAdminTls { certificate, key, client_ca } = raw;
    resolve_server_tls(keys, &ADMIN_TLS_KEYS, [certificate, key, client_ca, None], folders)
}

fn resolve_upstream_tls(
    keys: &mut Keys,
    raw: RawUpstreamTls,
    defaults: UpstreamTls,
    upstream: &Upstream,
    folders: &Folders,
) -> Result<UpstreamTls, ConfigError> {
    let RawUpstreamTls { ca, server_name, certificate, key, verify } = raw;
    let ca_source = ca.as_ref().map(|given| given.source.clone());
    let tls = UpstreamTls {
        ca: file(keys, "upstream_tls.ca", ca, "backend.pem", folders)?,
        server_name: keys.scalar("upstream_tls.server_name", server_name, defaults.server_name, |text| match text {
            "none" => Ok(None),
            _ => parse_server_name(text).map(Some),
        })?,
        identity: resolve_identity(
            keys,
            ["upstream_tls.certificate", "upstream_tls.key"],
            [certificate, key],
            folders,
        )?,
        verify: keys.scalar("upstream_tls.verify", verify, defaults.verify, parse_bool)?,
    };
    if upstream.scheme != Scheme::Https
        && let Some((key, source)) = keys.sources.iter().find(|(key, _)| key.starts_with("upstream_tls."))
    {
        let upstream = found(&upstream.to_string());
        let problem = format!("has no meaning with the upstream {upstream}; expected https://HOST:PORT there");
        return Err(ConfigError::new(*key, problem, Some(source.clone())));
    }
    if tls.ca.is_some() && !tls.verify {
        let problem = "has no meaning with upstream_tls.verify: false; expected one of the two";
        return Err(ConfigError::new("upstream_tls.ca", problem, ca_source));
    }
    Ok(tls)
}

/// A certificate and its key: both or none.
fn resolve_identity(
    keys: &mut Keys,
    [name_of_certificate, name_of_key]: [&'static str; 2],
    [certificate, key]: [Scalar; 2],
    folders: &Folders,
) -> Result<Option<Identity>, ConfigError> {
    let [certificate_source, key_source] = [&certificate, &key].map(|given| given.as_ref().map(|g| g.source.clone()));
    let certificate = file(keys, name_of_certificate, certificate, "certificate.pem", folders)?;
    let key = file(keys, name_of_key, key, "key.pem", folders)?;
    let alone = |name, other, source| {
        Err(ConfigError::new(name, format!("given without {other}; expected both or none of the two"), source))
    };
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(Identity { certificate, key })),
        (Some(_), None) => alone(name_of_certificate, name_of_key, certificate_source),
        (None, Some(_)) => alone(name_of_key, name_of_certificate, key_source),
        (None, None) => Ok(None),
    }
}

/// The path of a file, or none.
fn file(
    keys: &mut Keys,
    key: &'static str,
    given: Scalar,
    such_as: &str,
    folders: &Folders,
) -> Result<Option<PathBuf>, ConfigError> {
    let folder = given.as_ref().map_or(&folders.working, |given| folders.of(&given.source));
    keys.scalar(key, given, None, |text| match text {
        "none" => Ok(None),
        _ => parse_path_of_file(text, such_as, folder).map(Some).map_err(|problem| format!("{problem}, or none")),
    })
}

fn resolve_limits(keys: &mut Keys, raw: RawLimits, defaults: Limits) -> Result<Limits, ConfigError> {
    let RawLimits {
        connections,
        head_bytes,
        headers,
        request_line_bytes,
        request_body_bytes,
        streams,
        inflight,
        upstream_connections,
        upstream_waiting,
        series,
        series_idle,
        metrics_memory,
    } = raw;
    let some = |text: &str| count(text, 1, COUNT_MAX, "");
    let head_bytes = keys.scalar("limits.head_bytes", head_bytes, defaults.head_bytes, |text| {
        size(text, HEAD_BYTES_MIN, HEAD_BYTES_MAX).map(to_usize)
    })?;
    let request_line_bytes = keys.scalar(
        "limits.request_line_bytes",
        request_line_bytes,
        // A smaller head makes the line smaller too, so that setting one key never asks for another.
        DEFAULT_REQUEST_LINE_BYTES.min(head_bytes),
        |text| {
            let bytes = to_usize(size(text, REQUEST_LINE_BYTES_MIN, HEAD_BYTES_MAX)?);
            if bytes > head_bytes {
                let head = format_size(head_bytes as u64);
                return Err(format!("{} exceeds limits.head_bytes ({head}); expected at most that", found(text)));
            }
            Ok(bytes)
        },
    )?;
    Ok(Limits {
        connections: keys.scalar("limits.connections", connections, defaults.connections, some)?,
        head_bytes,
        headers: keys.scalar("limits.headers", headers, defaults.headers, |text| count(text, 1, HEADERS_MAX, ""))?,
        request_line_bytes,
        request_body_bytes: keys.scalar(
            "limits.request_body_bytes",
            request_body_bytes,
            defaults.request_body_bytes,
            |text| match text {
                "none" => Ok(None),
                _ => size(text, 1, u64::MAX).map(Some).map_err(|problem| format!("{problem}, or none")),
            },
        )?,
        streams: keys.scalar("limits.streams", streams, defaults.streams, |text| {
            let streams = count(text, 1, STREAMS_MAX, "")?;
            u32::try_from(streams).map_err(|error| error.to_string())
        })?,
        inflight: keys.scalar("limits.inflight", inflight, defaults.inflight, |text| match text {
            "none" => Ok(None),
            _ => count(text, 1, COUNT_MAX, " or none").map(Some),
        })?,
        upstream_connections: keys.scalar(
            "limits.upstream_connections",
            upstream_connections,
            defaults.upstream_connections,
            some,
        )?,
        upstream_waiting: keys.scalar("limits.upstream_waiting", upstream_waiting, defaults.upstream_waiting, some)?,
        series: keys.scalar("limits.series", series, defaults.series, some)?,
        series_idle: keys.scalar("limits.series_idle", series_idle, defaults.series_idle, |text| match text {
            "none" => Ok(None),
            _ => parse_positive_duration(text).map(Some).map_err(|problem| format!("{problem}, or none")),
        })?,
        metrics_memory: keys.scalar("limits.metrics_memory", metrics_memory, defaults.metrics_memory, |text| {
            size(text, METRICS_MEMORY_MIN, METRICS_MEMORY_MAX)
        })?,
    })
}

fn resolve_openapi(keys: &mut Keys, raw: OneOrMore, folders: &Folders) -> Result<Vec<OpenApi>, ConfigError> {
    const KEY: &str = "openapi";
    keys.value(KEY, raw.0, Vec::new(), |Given { value, source }| {
        if value.len() > DOCUMENTS_MAX {
            let problem = format!("found {} documents; expected at most {DOCUMENTS_MAX}", value.len());
            return Err(ConfigError::new(KEY, problem, Some(source)));
        }
        let folder = folders.of(&source);
        let one = value.len() == 1;
        let mut documents = Vec::new();
        for (index, given) in value.into_iter().enumerate() {
            let key = if one { KEY.to_owned() } else { format!("{KEY}[{index}]") };
            let document_source = given.source.clone();
            let document = checked(&key, given, |text| parse_document(text, folder))?;
            if documents.contains(&document) {
                let problem = format!("{document} is listed twice; expected once");
                return Err(ConfigError::new(key, problem, Some(document_source)));
            }
            documents.push(document);
        }
        Ok(documents)
    })
}

fn resolve_learn(keys: &mut Keys, raw: RawLearn, defaults: Learn, folders: &Folders) -> Result<Learn, ConfigError> {
    let RawLearn { enabled, limit, state } = raw;
    let folder = state.as_ref().map_or(&folders.working, |given| folders.of(&given.source));
    Ok(Learn {
        enabled: keys.scalar("learn.enabled", enabled, defaults.enabled, parse_bool)?,
        limit: keys.scalar("learn.limit", limit, defaults.limit, |text| count(text, 1, LABELS_MAX, ""))?,
        state: keys.scalar("learn.state", state, defaults.state, |text| match text {
            "none" => Ok(None),
            _ => parse_path_of_file(text, "routes.state", folder)
                .map(Some)
                .map_err(|problem| format!("{problem}, or none")),
        })?,
    })
}

fn resolve_drain(keys: &mut Keys, raw: RawDrain, defaults: Drain) -> Result<Drain, ConfigError> {
    // Zero is meant here: no grace, cut at once, no last scrape.
    let RawDrain { grace, timeout, last_scrape } = raw;
    Ok(Drain {
        grace: keys.scalar("drain.grace", grace, defaults.grace, parse_duration)?,
        timeout: keys.scalar("drain.timeout", timeout, defaults.timeout, parse_duration)?,
        last_scrape: keys.scalar("drain.last_scrape", last_scrape, defaults.last_scrape, parse_duration)?,
    })
}

fn resolve_probes(keys: &mut Keys, raw: RawProbes, defaults: Probes) -> Result<Probes, ConfigError> {
    let RawProbes { paths, user_agents } = raw;
    Ok(Probes {
        paths: keys.value("probes.paths", paths, defaults.paths, |given| each("probes.paths", given, parse_path))?,
        user_agents: keys.value("probes.user_agents", user_agents, defaults.user_agents, |given| {
            each("probes.user_agents", given, |text| {
                if text.is_empty() || !text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
                    return Err(format!("{} is not a prefix of a user agent; expected visible ASCII", found(text)));
                }
                Ok(text.to_owned())
            })
        })?,
    })
}

fn resolve_dns(keys: &mut Keys, raw: RawDns, defaults: Dns) -> Result<Dns, ConfigError> {
    let RawDns { refresh } = raw;
    Ok(Dns { refresh: keys.scalar("dns.refresh", refresh, defaults.refresh, parse_interval)? })
}

fn resolve_readiness(
    keys: &mut Keys,
    raw: RawReadiness,
    defaults: Readiness,
    upstream: &Upstream,
) -> Result<Readiness, ConfigError> {
    let RawReadiness { path, grpc, interval } = raw;
    let grpc_source = grpc.as_ref().map(|given| given.source.clone());
    let path = keys.scalar("readiness.path", path, defaults.path, |text| match text {
        "none" => Ok(None),
        // A query is part of what is asked.
        _ => parse_target(text).map(Some).map_err(|problem| format!("{problem}, or none for a TCP connect")),
    })?;
    let grpc = keys.scalar("readiness.grpc", grpc, defaults.grpc, |text| match text {
        "none" => Ok(None),
        _ => parse_grpc_service(text).map(Some),
    })?;
    if grpc.is_some() {
        let problem = match (&path, upstream.scheme) {
            (Some(_), _) => "stands beside readiness.path; expected one of them".to_owned(),
            (None, Scheme::Http) => format!(
                "asks over HTTP/2, which {} does not speak; expected an upstream of h2c or https",
                found(&upstream.to_string())
            ),
            (None, Scheme::Https | Scheme::H2c) => String::new(),
        };
        if !problem.is_empty() {
            return Err(ConfigError::new("readiness.grpc", problem, grpc_source));
        }
    }
    Ok(Readiness {
        path,
        grpc,
        interval: keys.scalar("readiness.interval", interval, defaults.interval, parse_interval)?,
    })
}

/// The name of a gRPC service, as health servers know it; `*` is the whole server.
fn parse_grpc_service(text: &str) -> Result<String, String> {
    /// Twice the longest name that anybody has; it goes out with each probe.
    const LENGTH_MAX: usize = 255;
    if text == "*" {
        return Ok(String::new());
    }
    let is_known = |c: char| c.is_ascii_graphic() && c != '*';
    if text.is_empty() || text.len() > LENGTH_MAX || !text.chars().all(is_known) {
        return Err(format!(
            "{} is not the name of a service; expected one such as shop.Carts, * or none",
            found(text)
        ));
    }
    Ok(text.to_owned())
}

fn resolve_saturation(
    keys: &mut Keys,
    raw: RawSaturation,
    defaults: Saturation,
    folders: &Folders,
) -> Result<Saturation, ConfigError> {
    let RawSaturation { interval, backend, pools } = raw;
    Ok(Saturation {
        interval: keys.scalar("saturation.interval", interval, defaults.interval, parse_interval)?,
        backend: resolve_backend(keys, backend, defaults.backend, folders)?,
        pools: keys.value("saturation.pools", pools, defaults.pools, resolve_pools)?,
    })
}

fn resolve_backend(
    keys: &mut Keys,
    raw: RawBackend,
    defaults: BackendHints,
    folders: &Folders,
) -> Result<BackendHints, ConfigError> {
    const PID_FILE: &str = "saturation.backend.pid_file";
    let RawBackend { pid, pid_file, cgroup, cpu_limit, memory_limit } = raw;
    let pid_file_source = pid_file.as_ref().map(|given| given.source.clone());
    let folder = pid_file_source.as_ref().map_or(&folders.working, |source| folders.of(source));
    let hints = BackendHints {
        pid: keys.scalar("saturation.backend.pid", pid, defaults.pid, |text| match text {
            "none" => Ok(None),
            _ => {
                let pid = count(text, 1, PID_MAX, " or none")?;
                u32::try_from(pid).map(Some).map_err(|error| error.to_string())
            }
        })?,
        pid_file: keys.scalar(PID_FILE, pid_file, defaults.pid_file, |text| match text {
            "none" => Ok(None),
            _ => parse_path_of_file(text, "/run/app.pid", folder)
                .map(Some)
                .map_err(|problem| format!("{problem}, or none")),
        })?,
        cgroup: keys.scalar("saturation.backend.cgroup", cgroup, defaults.cgroup, |text| match text {
            "none" => Ok(None),
            _ => parse_cgroup(text).map(Some),
        })?,
        cpu_limit_cores: keys.scalar("saturation.backend.cpu_limit", cpu_limit, defaults.cpu_limit_cores, |text| {
            match text {
                "none" => Ok(None),
                _ => parse_cores(text).map(Some),
            }
        })?,
        memory_limit_bytes: keys.scalar(
            "saturation.backend.memory_limit",
            memory_limit,
            defaults.memory_limit_bytes,
            |text| match text {
                "none" => Ok(None),
                _ => parse_memory(text).map(Some).map_err(|problem| format!("{problem}, or none")),
            },
        )?,
    };
    if hints.pid.is_some() && hints.pid_file.is_some() {
        let problem = "given beside saturation.backend.pid; expected one of the two, or none for the other";
        return Err(ConfigError::new(PID_FILE, problem, pid_file_source));
    }
    Ok(hints)
}

fn resolve_command(keys: &mut Keys, raw: RawCommand, default: Restart) -> Result<Restart, ConfigError> {
    let RawCommand { restart } = raw;
    keys.scalar("command.restart", restart, default, |text| {
        let all = [Restart::Never, Restart::OnFailure, Restart::Always];
        match all.into_iter().find(|restart| restart.as_str() == text) {
            Some(restart) => Ok(restart),
            None => Err(format!("{} is not a time to restart; expected never, on-failure or always", found(text))),
        }
    })
}

fn resolve_backend_metrics(
    keys: &mut Keys,
    raw: RawBackendMetrics,
    defaults: BackendMetrics,
) -> Result<BackendMetrics, ConfigError> {
    let RawBackendMetrics { url, include, size: size_max, timeout } = raw;
    Ok(BackendMetrics {
        url: keys.scalar("backend_metrics.url", url, defaults.url, |text| match text {
            "none" => Ok(None),
            _ => parse_page_url(text).map(Some).map_err(|problem| format!("{problem}, or none")),
        })?,
        include: keys.scalar("backend_metrics.include", include, defaults.include, parse_bool)?,
        size_max: keys.scalar("backend_metrics.size", size_max, defaults.size_max, |text| {
            size(text, PAGE_BYTES_MIN, PAGE_BYTES_MAX)
        })?,
        timeout: keys.scalar("backend_metrics.timeout", timeout, defaults.timeout, parse_positive_duration)?,
    })
}

fn resolve_pools(given: Given<Vec<Given<RawPool>>>) -> Result<Vec<Pool>, ConfigError> {
    let Given { value, source } = given;
    if value.len() > POOLS_MAX {
        let problem = format!("found {} pools; expected at most {POOLS_MAX}", value.len());
        return Err(ConfigError::new("saturation.pools", problem, Some(source)));
    }
    let mut pools: Vec<Pool> = Vec::new();
    for (index, given) in value.into_iter().enumerate() {
        let key = format!("saturation.pools[{index}]");
        let name_source = given.value.name.as_ref().map(|name| name.source.clone());
        let pool = resolve_pool(&key, given)?;
        if let Some(other) = pools.iter().position(|other| other.name == pool.name) {
            let problem =
                format!("{} is the name of saturation.pools[{other}] too; expected each once", found(&pool.name));
            return Err(ConfigError::new(format!("{key}.name"), problem, name_source));
        }
        pools.push(pool);
    }
    Ok(pools)
}

fn resolve_pool(key: &str, given: Given<RawPool>) -> Result<Pool, ConfigError> {
    const PLACES: &str = "expected one of port, address and url";
    let Given { value, source } = given;
    let RawPool { name, port, address, url, preset, used, idle, limit, waiting, timeouts, labels } = value;
    let below = |name: &str| format!("{key}.{name}");
    let wrong = |problem: &str| ConfigError::new(key, problem, Some(source.clone()));

    let Some(name) = name else {
        return Err(ConfigError::new(below("name"), "missing; expected a name such as db", Some(source)));
    };
    let name = checked(&below("name"), name, parse_name)?;
    let (address, port) = match (port, address, url) {
        (None, None, Some(url)) => {
            let url = checked(&below("url"), url, parse_page_url)?;
            let expressions = RawExpressions { preset, used, idle, limit, waiting, timeouts, labels };
            let (preset, selectors, limit) = resolve_selectors(key, &source, expressions)?;
            return Ok(Pool { name, kind: PoolKind::Reported { url, preset, selectors: Box::new(selectors) }, limit });
        }
        (Some(port), None, None) => (None, checked(&below("port"), port, parse_port)?),
        (None, Some(address), None) => {
            let address = checked(&below("address"), address, parse_address)?;
            if address.port() == 0 {
                return Err(ConfigError::new(
                    below("address"),
                    "has port 0; expected that of the server",
                    Some(source),
                ));
            }
            (Some(address.ip()), address.port())
        }
        (None, None, None) => return Err(wrong(&format!("does not say where the pool is; {PLACES}"))),
        _ => return Err(wrong(&format!("says twice where the pool is; {PLACES}"))),
    };
    let only_reported = [
        ("preset", preset),
        ("used", used),
        ("idle", idle),
        ("waiting", waiting),
        ("timeouts", timeouts),
        ("labels", labels),
    ];
    if let Some((name, Some(given))) = only_reported.into_iter().find(|(_, given)| given.is_some()) {
        let problem = "has no meaning without url; remove it";
        return Err(ConfigError::new(below(name), problem, Some(given.source)));
    }
    let limit = limit.map(|limit| checked(&below("limit"), limit, |text| count(text, 1, COUNT_MAX, ""))).transpose()?;
    Ok(Pool { name, kind: PoolKind::Inferred { address, port }, limit: limit.map(|limit| limit as u64) })
}

/// What says where the numbers of a reported pool are on its page.
struct RawExpressions {
    preset: Scalar,
    used: Scalar,
    idle: Scalar,
    limit: Scalar,
    waiting: Scalar,
    timeouts: Scalar,
    labels: Scalar,
}

/// The preset's name, what to read, and the limit if it is a number of the file.
fn resolve_selectors(
    key: &str,
    source: &Source,
    raw: RawExpressions,
) -> Result<(Option<String>, PoolSelectors, Option<u64>), ConfigError> {
    let RawExpressions { preset, used, idle, limit, waiting, timeouts, labels } = raw;
    let below = |name: &str| format!("{key}.{name}");
    let preset = preset.map(|given| checked(&below("preset"), given, presets::preset)).transpose()?;
    let labels_source = labels.as_ref().map(|given| given.source.clone());
    let labels = labels.map(|given| checked(&below("labels"), given, expression::parse_labels)).transpose()?;
    // One's own expression wins; the labels hold for either.
    let choose = |name: &str, given: Scalar, preset: Option<&str>| -> Result<Option<Expression>, ConfigError> {
        let given = given.or_else(|| Some(Given { value: preset?.to_owned(), source: source.clone() }));
        let expression = given.map(|given| checked(&below(name), given, expression::parse)).transpose()?;
        Ok(match &labels {
            Some(labels) => expression.map(|expression| expression.and_labels(labels)),
            None => expression,
        })
    };
    // A limit that is a number is ours, and then what the page says of it does not count.
    let is_number = |given: &Given<String>| whole_number::<u128>(given.value.trim()).is_some();
    let (limit, number) = match limit {
        Some(given) if is_number(&given) => {
            (None, Some(checked(&below("limit"), given, |text| count(text, 1, COUNT_MAX, " or an expression"))? as u64))
        }
        limit => (choose("limit", limit, preset.and_then(|preset| preset.limit))?, None),
    };
    let selectors = PoolSelectors {
        used: choose("used", used, preset.map(|preset| preset.used))?,
        idle: choose("idle", idle, preset.and_then(|preset| preset.idle))?,
        limit,
        waiting: choose("waiting", waiting, preset.and_then(|preset| preset.waiting))?,
        timeouts: choose("timeouts", timeouts, preset.and_then(|preset| preset.timeouts))?,
    };
    let PoolSelectors { used, idle, limit, waiting, timeouts } = &selectors;
    if used.is_none() {
        let problem = "missing; expected what to read, such as active{pool=\"db\"} or /db/active, or a preset";
        return Err(ConfigError::new(below("used"), problem, Some(source.clone())));
    }
    let reads = |format| {
        [used, idle, limit, waiting, timeouts]
            .into_iter()
            .flatten()
            .any(|expression| expression.format() == Some(format))
    };
    if reads(Format::Json) && reads(Format::Prometheus) {
        let problem = "mixes JSON pointers and series; expected one of the two, since it is one page";
        return Err(ConfigError::new(key, problem, Some(source.clone())));
    }
    if labels.is_some() && !reads(Format::Prometheus) {
        let problem = "has no series to hold for; expected none with JSON pointers";
        return Err(ConfigError::new(below("labels"), problem, labels_source));
    }
    Ok((preset.map(|preset| preset.name.to_owned()), selectors, number))
}

fn resolve_forwarded(given: Given<RawPolicy>) -> Result<Forwarded, ConfigError> {
    const EXPECTED: &str = "expected append, replace or trust: [10.0.0.0/8]";
    let Given { value, source } = given;
    match value {
        RawPolicy::Word(word) => match word.trim() {
            "append" => Ok(Forwarded::Append),
            "replace" => Ok(Forwarded::Replace),
            other => Err(ConfigError::new(
                "forwarded",
                format!("{} is not a policy; {EXPECTED}", found(other)),
                Some(source),
            )),
        },
        RawPolicy::Trust(networks) if networks.is_empty() => {
            let problem = "found no network; expected at least one, or forwarded: replace to trust nobody";
            Err(ConfigError::new("forwarded.trust", problem, Some(source)))
        }
        RawPolicy::Trust(networks) => {
            each("forwarded.trust", Given { value: networks, source }, parse_network).map(Forwarded::Trust)
        }
    }
}

fn resolve_routes(keys: &mut Keys, raw: Maps<RawRoute>) -> Result<Vec<RouteTemplate>, ConfigError> {
    // The router itself says what a template is and which ones exclude each other. Templates of one shape share an
    // entry, since they may hold for different methods.
    let mut router: matchit::Router<()> = matchit::Router::new();
    // By shape: each template with its methods.
    let mut shapes: BTreeMap<String, Vec<(String, Vec<Method>)>> = BTreeMap::new();
    keys.value("routes", raw, Vec::new(), |given| {
        let mut routes = Vec::new();
        for (index, Given { value: RawRoute { path, methods, buckets }, source }) in given.value.into_iter().enumerate()
        {
            let key = |name: &str| format!("routes[{index}].{name}");
            let Some(path) = path else {
                let problem = "missing; expected a template such as /users/{id}";
                return Err(ConfigError::new(key("path"), problem, Some(source)));
            };
            let path = checked(&key("path"), path, parse_template)?;
            let methods = match methods {
                Some(given) => parse_methods(&key("methods"), given)?,
                None => Vec::new(),
            };
            let buckets = match buckets {
                Some(given) => Some(parse_buckets(&key("buckets"), given)?),
                None => None,
            };
            let error = |problem: String| ConfigError::new(key("path"), problem, Some(source.clone()));

            let same_shape = shapes.entry(shape(&path)).or_default();
            if same_shape.is_empty() {
                router.insert(path.as_str(), ()).map_err(|problem| error(template_problem(&path, &problem)))?;
            }
            for (other, taken) in same_shape.iter() {
                // No methods are all of them, and then they overlap with any.
                let what = match (taken.first(), methods.first()) {
                    (None, None) => "all methods",
                    (None, Some(method)) | (Some(method), None) => method.as_str(),
                    (Some(_), Some(_)) => match taken.iter().find(|method| methods.contains(method)) {
                        Some(method) => method.as_str(),
                        None => continue,
                    },
                };
                return Err(error(format!(
                    "{} is the same route as {} for {what}; expected each template once per method",
                    found(&path),
                    found(other)
                )));
            }
            same_shape.push((path.clone(), methods.clone()));
            routes.push(RouteTemplate { path, methods, buckets });
        }
        Ok(routes)
    })
}

fn resolve_slos(given: Given<Vec<Given<RawSlo>>>) -> Result<Vec<Slo>, ConfigError> {
    let Given { value, source } = given;
    if value.len() > SLOS_MAX {
        let problem = format!("found {} SLOs; expected at most {SLOS_MAX}", value.len());
        return Err(ConfigError::new("slos", problem, Some(source)));
    }
    let mut slos: Vec<Slo> = Vec::new();
    for (index, given) in value.into_iter().enumerate() {
        let key = format!("slos[{index}]");
        let name_source = given.value.name.as_ref().map(|name| name.source.clone());
        let slo = resolve_slo(&key, given)?;
        if let Some(other) = slos.iter().position(|other| other.name == slo.name) {
            let problem = format!("{} is the name of slos[{other}] too; expected each once", found(&slo.name));
            return Err(ConfigError::new(format!("{key}.name"), problem, name_source));
        }
        slos.push(slo);
    }
    Ok(slos)
}

fn resolve_slo(key: &str, given: Given<RawSlo>) -> Result<Slo, ConfigError> {
    let Given { value: RawSlo { name, routes, objective, latency, too_slow_is_error }, source } = given;
    let below = |name: &str| format!("{key}.{name}");
    let missing = |name: &str, expected: &str| {
        ConfigError::new(below(name), format!("missing; expected {expected}"), Some(source.clone()))
    };
    let name = name.ok_or_else(|| missing("name", "a name such as api"))?;
    let objective = objective.ok_or_else(|| missing("objective", OBJECTIVE))?;
    let (key_of_too_slow, source_of_too_slow) =
        (below("too_slow_is_error"), too_slow_is_error.as_ref().map(|given| given.source.clone()));
    let too_slow_is_error =
        too_slow_is_error.map_or(Ok(false), |given| checked(&key_of_too_slow, given, parse_bool))?;
    if too_slow_is_error && latency.is_none() {
        let problem = format!("has no meaning without a latency; expected {key}.latency too");
        return Err(ConfigError::new(key_of_too_slow, problem, source_of_too_slow));
    }
    Ok(Slo {
        name: checked(&below("name"), name, parse_name)?,
        routes: routes.map_or(Ok(Vec::new()), |routes| parse_labels(&below("routes"), routes))?,
        objective: checked(&below("objective"), objective, parse_objective)?,
        latency: latency.map(|latency| checked(&below("latency"), latency, parse_positive_duration)).transpose()?,
        too_slow_is_error,
    })
}

fn resolve_implicit_errors(given: Given<Vec<Given<RawImplicitError>>>) -> Result<Vec<ImplicitError>, ConfigError> {
    let Given { value, source } = given;
    if value.len() > IMPLICIT_ERRORS_MAX {
        let problem = format!("found {} rules; expected at most {IMPLICIT_ERRORS_MAX}", value.len());
        return Err(ConfigError::new("implicit_errors", problem, Some(source)));
    }
    let mut rules: Vec<ImplicitError> = Vec::new();
    for (index, given) in value.into_iter().enumerate() {
        let key = format!("implicit_errors[{index}]");
        let name_source = given.value.name.as_ref().map(|name| name.source.clone());
        let rule = resolve_implicit_error(&key, given)?;
        if let Some(other) = rules.iter().position(|other| other.name == rule.name) {
            let name = found(&rule.name);
            let problem = format!("{name} is the name of implicit_errors[{other}] too; expected each once");
            return Err(ConfigError::new(format!("{key}.name"), problem, name_source));
        }
        rules.push(rule);
    }
    Ok(rules)
}

fn resolve_implicit_error(key: &str, given: Given<RawImplicitError>) -> Result<ImplicitError, ConfigError> {
    const KINDS: &str = "json_pointer, header, content_type_not, body_contains and length_mismatch";
    let Given { value, source } = given;
    let RawImplicitError { name, routes, json_pointer, header, content_type_not, body_contains, length_mismatch } =
        value;
    let RawField { name: field, value: field_value } = header;
    let below = |name: &str| format!("{key}.{name}");
    let missing = |name: &str, expected: &str, source: &Source| {
        ConfigError::new(below(name), format!("missing; expected {expected}"), Some(source.clone()))
    };
    let name = name.ok_or_else(|| missing("name", "a name such as graphql", &source))?;

    let header_given = field.is_some() || field_value.is_some();
    let kinds = [
        ("json_pointer", json_pointer.is_some()),
        ("header", header_given),
        ("content_type_not", content_type_not.is_some()),
        ("body_contains", body_contains.is_some()),
        ("length_mismatch", length_mismatch.is_some()),
    ];
    let given: Vec<&str> = kinds.iter().filter(|(_, given)| *given).map(|(kind, _)| *kind).collect();
    if given.len() > 1 {
        let problem = format!("found {}; expected one of {KINDS} in each rule", given.join(" and "));
        return Err(ConfigError::new(key, problem, Some(source)));
    }
    let symptom = if let Some(given) = json_pointer {
        Symptom::JsonPointer(checked(&below("json_pointer"), given, parse_pointer)?)
    } else if header_given {
        let at = field_value.as_ref().map_or(&source, |value| &value.source);
        let field = field.ok_or_else(|| missing("header.name", FIELD_NAME, at))?;
        let name = checked(&below("header.name"), field, parse_field_name)?;
        let value = field_value.map(|value| checked(&below("header.value"), value, parse_field_value)).transpose()?;
        Symptom::Header { name, value }
    } else if let Some(given) = content_type_not {
        Symptom::ContentTypeNot(checked(&below("content_type_not"), given, parse_media_type)?)
    } else if let Some(Given { value, source }) = body_contains {
        // Not trimmed: blanks may be what is looked for.
        let wanted = parse_wanted(value);
        Symptom::BodyContains(
            wanted.map_err(|problem| ConfigError::new(below("body_contains"), problem, Some(source)))?,
        )
    } else if let Some(given) = length_mismatch {
        Symptom::LengthMismatch(checked(&below("length_mismatch"), given, parse_length_field)?)
    } else {
        let problem = format!("says nothing of the answer; expected one of {KINDS}");
        return Err(ConfigError::new(key, problem, Some(source)));
    };
    Ok(ImplicitError {
        name: checked(&below("name"), name, parse_name)?,
        routes: routes.map_or(Ok(Vec::new()), |routes| parse_labels(&below("routes"), routes))?,
        symptom,
    })
}

// === values ===

/// What the name of a field is, for a sentence.
const FIELD_NAME: &str = "the name of a field such as X-Error";

fn parse_field_name(text: &str) -> Result<String, String> {
    if !is_token(text) {
        return Err(format!("{} is not {FIELD_NAME}; expected letters, digits and -", found(text)));
    }
    Ok(text.to_owned())
}

/// A token (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

fn parse_field_value(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err(format!("{} holds control characters, which no field does; expected a text", found(text)));
    }
    Ok(text.to_owned())
}

/// A field that can say another length than the body has.
fn parse_length_field(text: &str) -> Result<String, String> {
    const OWN: &str = "expected a field of the application's own such as X-Length";
    let name = parse_field_name(text)?;
    for framing in ["Content-Length", "Transfer-Encoding"] {
        if name.eq_ignore_ascii_case(framing) {
            let name = found(text);
            return Err(format!("{name} frames the body, so one that differs is an error of its own already; {OWN}"));
        }
    }
    Ok(name)
}

/// A pointer (RFC 6901) that leads somewhere into a document: the whole document would make an error of every answer.
fn parse_pointer(text: &str) -> Result<String, String> {
    let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if !text.starts_with('/') || !escaped {
        let shown = found(text);
        return Err(format!(
            "{shown} is not a JSON pointer; expected one such as /errors/0, with ~0 for ~ and ~1 for /"
        ));
    }
    Ok(text.to_owned())
}

/// A media type without parameters, in lower case.
fn parse_media_type(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) && !text.contains('*') => {
            Ok(text.to_ascii_lowercase())
        }
        _ => Err(format!(
            "{} is not a media type; expected one without parameters such as application/json",
            found(text)
        )),
    }
}

fn parse_wanted(text: String) -> Result<String, String> {
    match text.len() {
        0 => Err("is empty, which every body contains; expected a text".to_owned()),
        bytes if bytes > WANTED_BYTES_MAX => {
            let most = format_size(WANTED_BYTES_MAX as u64);
            Err(format!("{} is too long; expected at most {most}", found(&text)))
        }
        _ => Ok(text),
    }
}

/// What an objective is, for a sentence.
const OBJECTIVE: &str = "a ratio between 0 and 1 such as 0.999";

fn parse_objective(text: &str) -> Result<f64, String> {
    // Rust reads `inf`, `1e-3` and `+1` too.
    let plain = text.starts_with(|c: char| c.is_ascii_digit() || c == '.') && !text.contains(['e', 'E']);
    match text.parse::<f64>() {
        Ok(ratio) if plain && ratio > 0.0 && ratio < 1.0 => Ok(ratio),
        Ok(_) if plain => Err(format!("{} is out of range; expected {OBJECTIVE}", found(text))),
        _ => Err(format!("{} is not an objective; expected {OBJECTIVE}", found(text))),
    }
}

/// Labels of routes, none twice. Whether they exist cannot be known: they may be imported or learned later.
fn parse_labels(key: &str, given: Given<Vec<Given<String>>>) -> Result<Vec<String>, ConfigError> {
    let source = given.source.clone();
    let labels = each(key, given, |text| {
        let label = parse_path(text)?;
        if !label.contains('*') {
            return Ok(label);
        }
        // The catch-all of a template, or a pattern of somebody else; no label holds a star.
        let meant = label.replace("{*", "{");
        let meant = if meant.contains('*') { "/files/{rest}" } else { &meant };
        Err(format!("{} is no label of a route; expected {} as it is on the metrics page", found(text), found(meant)))
    })?;
    let problem = match labels.iter().enumerate().find(|(index, label)| labels[..*index].contains(label)) {
        Some((_, label)) => format!("{} is listed twice; expected once", found(label)),
        None if labels.is_empty() => "found no route; expected at least one, or remove the key for all".to_owned(),
        None => return Ok(labels),
    };
    Err(ConfigError::new(key, problem, Some(source)))
}

fn parse_upstream(text: &str) -> Result<Upstream, String> {
    const EXPECTED: &str = "expected http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH, for example \
                            http://127.0.0.1:8080";
    let shown = found(text);
    let after = |scheme: &str| {
        let matches = text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        matches.then(|| &text[scheme.len()..])
    };
    for (prefix, scheme) in [("unix:", Scheme::Http), ("h2c+unix:", Scheme::H2c)] {
        if let Some(path) = after(prefix) {
            return match socket_path(path) {
                Ok(path) => Ok(Upstream { scheme, place: Place::Unix(path) }),
                Err(problem) => Err(format!("{shown} {problem}; expected {prefix}/PATH of a socket")),
            };
        }
    }
    for name in ["tcp", "tls", "udp"] {
        if after(name).is_some_and(|rest| rest.starts_with(':')) {
            return Err(format!("{shown} is not HTTP, and only HTTP can be measured; {EXPECTED}"));
        }
    }
    let schemes = [("http://", Scheme::Http, 80), ("https://", Scheme::Https, 443), ("h2c://", Scheme::H2c, 80)];
    let known = schemes.iter().find_map(|&(prefix, scheme, port)| Some((after(prefix)?, scheme, port)));
    let Some((rest, scheme, default_port)) = known else {
        let what = if text.contains("://") { "an unknown scheme" } else { "no scheme" };
        return Err(format!("{shown} has {what}; {EXPECTED}"));
    };
    if rest.contains('@') {
        return Err(format!("{shown} holds user information, which the sidecar does not send; {EXPECTED}"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !matches!(path, "" | "/") {
        return Err(format!("{shown} has a path; {EXPECTED}, since paths are passed on as they come"));
    }
    let (host, port) =
        host_and_port(authority, default_port).map_err(|problem| format!("{shown} {problem}; {EXPECTED}"))?;
    Ok(Upstream { scheme, place: Place::Tcp { host: host.to_ascii_lowercase(), port } })
}

/// The path of a socket of the file system.
fn socket_path(text: &str) -> Result<PathBuf, &'static str> {
    /// `sun_path` of the kernel, which a NUL ends.
    const LENGTH_MAX: usize = 107;
    let path = text.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(text);
    if !path.starts_with('/') {
        return Err("has no absolute path");
    }
    if path.len() > LENGTH_MAX || path.contains('\0') {
        return Err("has a path that no socket can have (at most 107 bytes)");
    }
    Ok(PathBuf::from(path))
}

/// The host of a URL, IPv6 without brackets, and its port, `default` if there is none. An error is what is wrong with it.
fn host_and_port(authority: &str, default: u16) -> Result<(&str, u16), &'static str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(literal) => {
            let Some((address, port)) = literal.split_once(']') else {
                return Err("has a bracket that is not closed");
            };
            if address.parse::<Ipv6Addr>().is_err() {
                return Err("has no IPv6 address in its brackets");
            }
            (address, if port.is_empty() { None } else { Some(port.strip_prefix(':').unwrap_or("")) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    // Underscores are no host names by the letter, but compose files use them.
    if host.is_empty() || !host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c)) {
        return Err("has no valid host");
    }
    match port {
        None => Ok((host, default)),
        Some(port) => match whole_number::<u16>(port) {
            Some(port) if port > 0 => Ok((host, port)),
            _ => Err("has no valid port"),
        },
    }
}

/// A document: a URL if it has a scheme, else a file.
fn parse_document(text: &str, folder: &Path) -> Result<OpenApi, String> {
    const EXPECTED: &str = "expected a file, or http://HOST:PORT/PATH, for example http://127.0.0.1:8080/openapi.json";
    if text.contains("://") {
        return parse_url(text, EXPECTED).map(OpenApi::Url);
    }
    parse_path_of_file(text, "openapi.yaml", folder)
        .map(OpenApi::File)
        .map_err(|problem| format!("{problem}, or a URL"))
}

/// The URL of a page of numbers.
fn parse_page_url(text: &str) -> Result<String, String> {
    parse_url(text, "expected http://HOST:PORT/PATH, for example http://127.0.0.1:8080/metrics")
}

/// The URL of something that is asked for now and then. User information is allowed, for servers that want it.
fn parse_url(text: &str, expected: &str) -> Result<String, String> {
    let shown = found(text);
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("{shown} has no scheme; {expected}"));
    };
    if scheme.eq_ignore_ascii_case("https") {
        return Err(format!("{shown} uses https, which is not built yet in this version; {expected}"));
    }
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(format!("{shown} has an unknown scheme; {expected}"));
    }
    if text.contains('#') || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("{shown} is not percent-encoded like in a request; {expected}"));
    }
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host_and_port(host, 80).map_err(|problem| format!("{shown} {problem}; {expected}"))?;
    Ok(text.to_owned())
}

fn parse_port(text: &str) -> Result<u16, String> {
    let port = count(text, 1, usize::from(u16::MAX), "")?;
    u16::try_from(port).map_err(|error| error.to_string())
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if text.is_empty() || text.len() > NAME_CHARS_MAX || !text.chars().all(is_part) {
        return Err(format!(
            "{} is not a name; expected 1 to {NAME_CHARS_MAX} of the characters A-Z, a-z, 0-9, _, . and -",
            found(text)
        ));
    }
    Ok(text.to_owned())
}

/// A path, made absolute. Nothing is looked up, so it may not exist yet.
pub(super) fn parse_path_of_file(text: &str, such_as: &str, folder: &Path) -> Result<PathBuf, String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(format!("{} is not a path; expected one such as {such_as}", found(text)));
    }
    // By its components, so that `./` and doubled slashes go.
    Ok(folder.join(text).components().collect())
}

/// A folder of the cgroup file system, from its root on.
fn parse_cgroup(text: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') || text.chars().any(char::is_control) || text.split('/').any(|part| part == "..") {
        return Err(format!(
            "{} is not a cgroup; expected a folder such as /system.slice/app.service, or none",
            found(text)
        ));
    }
    Ok(Path::new(text).components().collect())
}

/// Cores as a decimal number, or millicores with an m, as Kubernetes writes them.
fn parse_cores(text: &str) -> Result<f64, String> {
    const EXPECTED: &str = "expected cores such as 1.5 or millicores such as 1500m, or none";
    let (number, factor) = match text.strip_suffix('m') {
        Some(number) => (number, 1000.0),
        None => (text, 1.0),
    };
    // Rust reads `inf`, `1e3` and `+1` too.
    let plain = number.starts_with(|c: char| c.is_ascii_digit()) && !number.contains(['e', 'E']);
    let cores = match number.parse::<f64>() {
        Ok(cores) if plain => cores / factor,
        _ => return Err(format!("{} is not a number of cores; {EXPECTED}", found(text))),
    };
    if cores > CORES_MAX {
        let hint = if factor == 1.0 { "; millicores need an m" } else { "" };
        return Err(format!("{} is out of range; expected at most {CORES_MAX} cores, or none{hint}", found(text)));
    }
    if cores < CORES_MIN {
        return Err(format!("{} is out of range; expected at least {CORES_MIN} cores, or none", found(text)));
    }
    Ok(cores)
}

/// A size; without a unit, bytes: that is how Kubernetes' Downward API hands on a limit. Its own spelling of sizes, `512Mi`,
/// is read as well.
fn parse_memory(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected bytes, or a size such as 512B, 64KiB or 1MB";
    if ["Ki", "Mi", "Gi"].iter().any(|unit| text.ends_with(unit)) {
        return size(&format!("{text}B"), 1, u64::MAX);
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return size(text, 1, u64::MAX);
    }
    match text.parse::<u64>() {
        Ok(0) => Err(format!("{} is out of range; {EXPECTED}, at least 1B", found(text))),
        Ok(bytes) => Ok(bytes),
        // The only way that digits are no number is that there are too many of them.
        Err(_) => Err(format!("{} is too large; {EXPECTED}", found(text))),
    }
}

/// The name in a certificate: a host name or an address.
fn parse_server_name(text: &str) -> Result<String, String> {
    let is_name =
        !text.is_empty() && text.len() < 254 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    if is_name || text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("{} is not the name of a host; expected one such as api.internal or 10.0.0.5, or none", found(text)))
}

/// An address, or a socket of the file system.
fn parse_listen(text: &str) -> Result<Listen, String> {
    let Some(path) = text.strip_prefix("unix:") else {
        return parse_address(text).map(Listen::Tcp).map_err(|problem| format!("{problem}, or unix:/PATH"));
    };
    match socket_path(path) {
        Ok(path) => Ok(Listen::Unix(path)),
        Err(problem) => Err(format!("{} {problem}; expected unix:/PATH of a socket", found(text))),
    }
}

/// An address literal with a port; `localhost` is the one name that needs no resolver.
fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let literal = match text.strip_prefix("localhost:") {
        Some(port) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
        None => text.to_owned(),
    };
    match literal.parse() {
        Ok(address) => Ok(address),
        // The parser's "invalid socket address syntax" says less than an example does.
        Err(_) => Err(format!("{} is not an address; expected ADDRESS:PORT, for example 127.0.0.1:9090", found(text))),
    }
}

fn parse_network(text: &str) -> Result<Network, String> {
    const EXPECTED: &str = "expected an address block such as 10.0.0.0/8 or fd00::/8";
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(format!("{} is not a network; {EXPECTED}", found(text)));
    };
    let (value, bits) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32u8),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let prefix = match prefix {
        // One address is a block of one.
        None => bits,
        Some(prefix) => match whole_number::<u8>(prefix) {
            Some(prefix) if prefix <= bits => prefix,
            _ => return Err(format!("{} has no valid prefix; expected /0 to /{bits}", found(text))),
        },
    };
    // Bits after the prefix: nobody means 10.1.2.3/8, they mean 10.1.2.3/32 or 10.0.0.0/8.
    let host_bits = u32::from(bits - prefix);
    if host_bits > 0 && value & (u128::MAX >> (128 - host_bits)) != 0 {
        return Err(format!("{} has bits set after its prefix; {EXPECTED}", found(text)));
    }
    Ok(Network { address, prefix })
}

fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration.is_zero() {
        return Err(format!("{} is too short; expected more than 0s", found(text)));
    }
    Ok(duration)
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&duration) {
        let (least, most) = (format_duration(INTERVAL_MIN), format_duration(INTERVAL_MAX));
        return Err(format!("{} is out of range; expected {least} to {most}", found(text)));
    }
    Ok(duration)
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{} is not a boolean; expected true or false", found(text))),
    }
}

/// A whole number from `least` to `most`; `or` names a word that is accepted as well.
fn count(text: &str, least: usize, most: usize, or: &str) -> Result<usize, String> {
    let expected = format!("expected a whole number from {least} to {most}{or}");
    match whole_number::<u128>(text) {
        None => Err(format!("{} is not a whole number; {expected}", found(text))),
        Some(number) => match usize::try_from(number) {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("{} is out of range; {expected}", found(text))),
        },
    }
}

/// Digits only: Rust would read `+8` as well.
fn whole_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn size(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if !(least..=most).contains(&bytes) {
        let expected = match most {
            u64::MAX => format!("expected at least {}", format_size(least)),
            _ => format!("expected {} to {}", format_size(least), format_size(most)),
        };
        return Err(format!("{} is out of range; {expected}", found(text)));
    }
    Ok(bytes)
}

/// Only for sizes that were checked against [`HEAD_BYTES_MAX`], which fits everywhere.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn parse_buckets(key: &str, given: Given<Vec<Given<String>>>) -> Result<Vec<f64>, ConfigError> {
    let source = given.source.clone();
    let edges = each(key, given, |text| {
        // Rust reads `inf`, `nan` and `+1` too; +Inf is always there and never listed.
        match text.parse::<f64>() {
            Ok(edge) if edge.is_finite() && edge > 0.0 && !text.starts_with('+') => Ok(edge),
            _ => Err(format!("{} is not an edge; expected seconds above 0, for example 0.25", found(text))),
        }
    })?;
    if edges.is_empty() || edges.len() > BUCKETS_MAX {
        let problem = format!("found {} edges; expected 1 to {BUCKETS_MAX}", edges.len());
        return Err(ConfigError::new(key, problem, Some(source)));
    }
    if let Some(pair) = edges.windows(2).find(|pair| pair[0] >= pair[1]) {
        let problem = format!("{} follows {}; expected edges that increase", pair[1], pair[0]);
        return Err(ConfigError::new(key, problem, Some(source)));
    }
    Ok(edges)
}

fn parse_methods(key: &str, given: Given<Vec<Given<String>>>) -> Result<Vec<Method>, ConfigError> {
    let source = given.source.clone();
    let methods = each(key, given, |text| match Method::from_token(text.as_bytes()) {
        Method::Other => {
            let known: Vec<&str> =
                Method::ALL.iter().filter(|method| **method != Method::Other).map(|method| method.as_str()).collect();
            Err(format!("{} is not a known method; expected {}", found(text), known.join(", ")))
        }
        method => Ok(method),
    })?;
    let problem = match methods.iter().enumerate().find(|(index, method)| methods[..*index].contains(method)) {
        Some((_, method)) => format!("{} is listed twice; expected once", method.as_str()),
        None if methods.is_empty() => "found no method; expected at least one, or remove the key for all".to_owned(),
        None => return Ok(methods),
    };
    Err(ConfigError::new(key, problem, Some(source)))
}

/// An exact path or a template, without query.
fn parse_path(text: &str) -> Result<String, String> {
    let path = parse_target(text)?;
    if path.contains('?') {
        return Err(format!("{} has a query; expected a path without one", found(text)));
    }
    Ok(path)
}

/// What a request line may hold after the method, in origin form.
fn parse_target(text: &str) -> Result<String, String> {
    if !text.starts_with('/') || text.contains('#') || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!(
            "{} is not a path; expected one that starts with / and is percent-encoded like in a request",
            found(text)
        ));
    }
    Ok(text.to_owned())
}

/// Checks each item of a list; its place becomes part of the key.
fn each<T>(
    key: &str,
    given: Given<Vec<Given<String>>>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ConfigError> {
    given.value.into_iter().enumerate().map(|(index, item)| checked(&format!("{key}[{index}]"), item, &parse)).collect()
}

/// The template of a declared route, except for what the router itself says of it. What other routers take for
/// parameters would be literal text to ours, and would never match.
fn parse_template(text: &str) -> Result<String, String> {
    let path = parse_path(text)?;
    if path.replace("{*", "{").contains('*') {
        return Err(format!(
            "{} holds a * outside of {{*name}}; expected {{name}} for one segment or {{*rest}} for all that follow",
            found(text)
        ));
    }
    if let Some(segment) = path.split('/').find_map(|segment| segment.strip_prefix(':')) {
        let end = segment.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(segment.len());
        let (name, rest) = segment.split_at(end);
        let name = if name.is_empty() { "id" } else { name };
        return Err(format!(
            "{} has a segment that begins with a colon; expected {{{name}}}{rest} instead of :{segment}",
            found(text)
        ));
    }
    Ok(path)
}

/// A template with the names of its parameters left out: what decides which paths it matches.
fn shape(path: &str) -> String {
    let mut shape = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('{') {
        shape.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        // A doubled brace is a literal one.
        if let Some(after) = rest.strip_prefix('{') {
            shape.push('{');
            rest = after;
            continue;
        }
        if rest.starts_with('*') {
            shape.push('*');
        }
        rest = rest.find('}').map_or("", |end| &rest[end..]);
    }
    shape.push_str(rest);
    shape
}

fn template_problem(path: &str, problem: &matchit::InsertError) -> String {
    let path = found(path);
    match problem {
        matchit::InsertError::Conflict { with } => {
            format!("{path} and {} exclude each other; expected templates of which one is more specific", found(with))
        }
        matchit::InsertError::InvalidParamSegment => {
            format!("{path} has two parameters in one segment; expected at most one between slashes")
        }
        matchit::InsertError::InvalidCatchAll => {
            format!("{path} has a catch-all inside; expected {{*rest}} at the end only, after a slash")
        }
        // InvalidParam, and whatever a later release adds.
        _ => format!("{path} is not a template; expected parameters such as /users/{{id}} or /files/{{*rest}}"),
    }
}

// === addresses ===

fn is_wildcard(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_unspecified()
}

/// Whether a connection to the upstream arrives at our own address, as far as texts can tell: other names, and
/// addresses of this machine's interfaces, are not looked up.
fn leads_to(upstream: &Upstream, own: &Listen) -> bool {
    let (host, port, own) = match (&upstream.place, own) {
        (Place::Tcp { host, port }, Listen::Tcp(own)) => (host, port, *own),
        (Place::Unix(path), Listen::Unix(own)) => return path == own,
        _ => return false,
    };
    if own.port() == 0 || own.port() != *port {
        return false;
    }
    let own_ip = own.ip().to_canonical();
    let targets = match host.as_str() {
        "localhost" => vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
        host => host.parse::<IpAddr>().map(|ip| ip.to_canonical()).into_iter().collect(),
    };
    targets.into_iter().any(|target| {
        // The kernel takes a connection to 0.0.0.0 to loopback.
        let here = target.is_loopback() || target.is_unspecified();
        target == own_ip
            || (own_ip.is_loopback() && target.is_unspecified() && own_ip.is_ipv4() == target.is_ipv4())
            // `::` takes IPv4 connections as well, 0.0.0.0 no IPv6 ones.
            || (own_ip.is_unspecified() && here && (own_ip.is_ipv6() || target.is_ipv4()))
    })
}

// === impl Restart ===

impl Restart {
    /// The word of the file.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Restart::Never => "never",
            Restart::OnFailure => "on-failure",
            Restart::Always => "always",
        }
    }
}

// === impl Listen ===

impl std::fmt::Display for Listen {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(out),
            Listen::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

// === impl ClientAuth ===

impl ClientAuth {
    /// The word of the file.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            ClientAuth::None => "none",
            ClientAuth::Optional => "optional",
            ClientAuth::Required => "required",
        }
    }
}

// === impl Upstream ===

impl Upstream {
    /// A backend that speaks HTTP/1.1 on a port of TCP.
    #[must_use]
    pub fn http(host: String, port: u16) -> Upstream {
        Upstream { scheme: Scheme::Http, place: Place::Tcp { host, port } }
    }

    /// Whether it has a name, whose address may change.
    #[must_use]
    pub fn is_name(&self) -> bool {
        matches!(&self.place, Place::Tcp { host, .. } if host.parse::<IpAddr>().is_err())
    }

    /// Host name or address literal, IPv6 without brackets; `localhost` for a socket of the file system, as curl has it.
    #[must_use]
    pub fn host(&self) -> &str {
        match &self.place {
            Place::Tcp { host, .. } => host,
            Place::Unix(_) => "localhost",
        }
    }

    /// `HOST:PORT`, IPv6 in brackets: what `Host` says when nobody else does.
    #[must_use]
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Place::Tcp { host, port } => format!("{host}:{port}"),
            Place::Unix(_) => self.host().to_owned(),
        }
    }
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // User information is refused, so there is no secret that this could show.
        match (&self.place, self.scheme) {
            (Place::Tcp { .. }, Scheme::Http) => write!(f, "http://{}", self.authority()),
            (Place::Tcp { .. }, Scheme::Https) => write!(f, "https://{}", self.authority()),
            (Place::Tcp { .. }, Scheme::H2c) => write!(f, "h2c://{}", self.authority()),
            (Place::Unix(path), Scheme::H2c) => write!(f, "h2c+unix:{}", path.display()),
            (Place::Unix(path), _) => write!(f, "unix:{}", path.display()),
        }
    }
}
