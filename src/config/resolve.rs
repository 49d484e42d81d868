//! From what was given to what the program sees: defaults, units, ranges, and combinations that cannot work. No side
//! effect, nothing read from outside: the number of cores comes in as an argument.
//!
//! Structs are taken apart by name without `..`, so a new key does not compile until it is used.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::error::{ConfigError, Source, found};
use super::raw::{
    Given, Raw, RawDrain, RawLimits, RawPolicy, RawProbes, RawReadiness, RawRoute, RawRoutes, RawSaturation,
    RawTimeouts, Scalar,
};
use super::units::{format_duration, format_size, parse_duration, parse_size};
use super::{
    Config, DEFAULT_REQUEST_LINE_BYTES, Drain, Forwarded, Limits, Network, Probes, Readiness, RouteTemplate,
    Saturation, Timeouts, Upstream,
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

/// Checks everything.
///
/// # Errors
/// The first mistake.
pub(super) fn resolve(raw: Raw, cores: usize) -> Result<Resolved, ConfigError> {
    let Raw {
        upstream,
        listen,
        admin,
        workers,
        timeouts,
        limits,
        drain,
        routes,
        buckets,
        probes,
        readiness,
        saturation,
        forwarded,
        via,
    } = raw;
    let mut keys = Keys::default();

    let Some(upstream) = upstream else {
        let problem = "missing; expected http://HOST:PORT, given as --upstream, GOLDEN_UPSTREAM or a key of the file";
        return Err(ConfigError::new("upstream", problem, None));
    };
    // It has no default, so its source is always worth telling.
    keys.sources.insert("upstream", upstream.source.clone());
    let upstream_source = upstream.source.clone();
    let upstream = checked("upstream", upstream, parse_upstream)?;
    let defaults = Config::with_defaults(upstream.clone());

    let listen_source = listen.as_ref().map(|given| given.source.clone());
    let admin_source = admin.as_ref().map(|given| given.source.clone());
    let listen = keys.scalar("listen", listen, defaults.listen, parse_address)?;
    let admin = keys.scalar("admin", admin, defaults.admin, parse_address)?;
    distinct((listen, listen_source), (admin, admin_source))?;
    for (key, address) in [("listen", listen), ("admin", admin)] {
        if leads_to(&upstream, address) {
            let problem = format!(
                "{} is our own {key} address ({address}), so requests would go round in a loop; expected the backend's",
                found(&upstream.to_string())
            );
            return Err(ConfigError::new("upstream", problem, Some(upstream_source)));
        }
    }

    let workers = keys.scalar("workers", workers, None, |text| match text {
        "auto" => Ok(None),
        _ => count(text, 1, WORKERS_MAX, " or auto").map(Some),
    })?;

    let config = Config {
        upstream,
        listen,
        admin,
        workers: workers.unwrap_or(cores.max(1)),
        timeouts: resolve_timeouts(&mut keys, timeouts, defaults.timeouts)?,
        limits: resolve_limits(&mut keys, limits, defaults.limits)?,
        drain: resolve_drain(&mut keys, drain, defaults.drain)?,
        routes: resolve_routes(&mut keys, routes)?,
        buckets: keys.value("buckets", buckets, defaults.buckets, |given| parse_buckets("buckets", given))?,
        probes: resolve_probes(&mut keys, probes, defaults.probes)?,
        readiness: resolve_readiness(&mut keys, readiness, defaults.readiness)?,
        saturation: {
            let RawSaturation { interval } = saturation;
            let interval =
                keys.scalar("saturation.interval", interval, defaults.saturation.interval, parse_interval)?;
            Saturation { interval, ..defaults.saturation }
        },
        restart: defaults.restart,
        backend_metrics: defaults.backend_metrics,
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
    (listen, listen_source): (SocketAddr, Option<Source>),
    (admin, admin_source): (SocketAddr, Option<Source>),
) -> Result<(), ConfigError> {
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

// === keys ===

/// Takes values one by one and remembers where those came from that are not the default.
#[derive(Default)]
struct Keys {
    sources: Sources,
}

impl Keys {
    /// The value of a scalar key.
    fn scalar<T: PartialEq>(
        &mut self,
        key: &'static str,
        given: Scalar,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        self.value(key, given, default, |given| checked(key, given, parse))
    }

    /// The value of any key.
    fn value<G, T: PartialEq>(
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

fn checked<T>(
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

fn resolve_readiness(keys: &mut Keys, raw: RawReadiness, defaults: Readiness) -> Result<Readiness, ConfigError> {
    let RawReadiness { path, interval } = raw;
    Ok(Readiness {
        path: keys.scalar("readiness.path", path, defaults.path, |text| match text {
            "none" => Ok(None),
            // A query is part of what is asked.
            _ => parse_target(text).map(Some).map_err(|problem| format!("{problem}, or none for a TCP connect")),
        })?,
        interval: keys.scalar("readiness.interval", interval, defaults.interval, parse_interval)?,
    })
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

fn resolve_routes(keys: &mut Keys, raw: RawRoutes) -> Result<Vec<RouteTemplate>, ConfigError> {
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
            let path = checked(&key("path"), path, parse_path)?;
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

// === values ===

fn parse_upstream(text: &str) -> Result<Upstream, String> {
    const EXPECTED: &str = "expected http://HOST:PORT, for example http://127.0.0.1:8080";
    let shown = found(text);
    for (scheme, name) in [("https://", "https"), ("h2c://", "h2c"), ("unix:", "unix")] {
        if text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)) {
            return Err(format!("{shown} uses {name}, which is not built yet in this version; {EXPECTED}"));
        }
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("{shown} has no scheme; {EXPECTED}"));
    };
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(format!("{shown} has an unknown scheme; {EXPECTED}"));
    }
    if rest.contains('@') {
        return Err(format!("{shown} holds user information, which the sidecar does not send; {EXPECTED}"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !matches!(path, "" | "/") {
        return Err(format!("{shown} has a path; {EXPECTED}, since paths are passed on as they come"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(literal) => {
            let Some((address, port)) = literal.split_once(']') else {
                return Err(format!("{shown} has a bracket that is not closed; {EXPECTED}"));
            };
            if address.parse::<Ipv6Addr>().is_err() {
                return Err(format!("{shown} has no IPv6 address in its brackets; {EXPECTED}"));
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
        return Err(format!("{shown} has no valid host; {EXPECTED}"));
    }
    let port = match port {
        None => 80,
        Some(port) => match whole_number::<u16>(port) {
            Some(port) if port > 0 => port,
            _ => return Err(format!("{shown} has no valid port; {EXPECTED}")),
        },
    };
    Ok(Upstream { host: host.to_ascii_lowercase(), port })
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
fn leads_to(upstream: &Upstream, own: SocketAddr) -> bool {
    if own.port() == 0 || own.port() != upstream.port {
        return false;
    }
    let own_ip = own.ip().to_canonical();
    let targets = match upstream.host.as_str() {
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

// === impl Upstream ===

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Upstream { host, port } = self;
        // User information is refused, so there is no secret that this could show.
        if host.contains(':') { write!(f, "http://[{host}]:{port}") } else { write!(f, "http://{host}:{port}") }
    }
}
