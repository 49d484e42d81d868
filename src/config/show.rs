//! The effective configuration in the shape of the file, as YAML for `check` and as JSON for the admin port. What is
//! written here is accepted again as a configuration file, with the same meaning.
//!
//! Structs are taken apart by name without `..`, so a new key does not compile until it is shown.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::access::REDACTED;
use super::error::redact;
use super::resolve::Sources;
use super::units::{format_duration, format_size};
use super::{
    AdminAuth, BackendHints, BackendMetrics, ClientAuth, Config, Dns, Drain, Forwarded, ImplicitError, Learn, Limits,
    Network, OpenApi, Pool, PoolKind, PoolSelectors, Probes, Readiness, RouteTemplate, Saturation, SecretFrom,
    ServerTls, Slo, Source, Symptom, Timeouts, UpstreamTls,
};

/// A value on its way out.
enum Shown {
    Bool(bool),
    Count(u64),
    Ratio(f64),
    /// A duration, size or word of ours.
    Token(String),
    /// Text of the user: quoted in YAML unless it is plainly safe.
    Text(String),
    List(Vec<Shown>),
    Map(Vec<(&'static str, Shown)>),
}

/// The configuration as YAML. Behind each value in `sources` stands where it came from.
pub(super) fn to_yaml(config: &Config, sources: &Sources, workers_auto: bool) -> String {
    let mut out = String::new();
    let Shown::Map(entries) = shown(config) else { return out };
    for (key, value) in entries {
        if key == "workers" && workers_auto {
            // What auto means depends on the machine, so the file that this text may become must not fix it.
            let _ = writeln!(out, "workers: auto  # {} here", config.workers);
        } else {
            write_entry(&mut out, "", key, &value, sources);
        }
    }
    out
}

/// The configuration as JSON.
pub(super) fn to_json(config: &Config) -> String {
    // A tree of texts and finite numbers has no reason to fail.
    serde_json::to_string_pretty(&shown(config)).unwrap_or_default()
}

// === the shape of the file ===

fn shown(config: &Config) -> Shown {
    let Config {
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
        restart,
        backend_metrics,
        forwarded,
        via,
    } = config;
    let Timeouts { client_head, client_body, client_idle, connect, pool_wait, head, body, upstream_idle, upstream_age } =
        timeouts;
    let Limits {
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
    } = limits;
    let Drain { grace, timeout, last_scrape } = drain;
    let Dns { refresh } = dns;
    let Probes { paths, user_agents } = probes;
    let Readiness { path, grpc, interval } = readiness;
    let service = |name: &String| Shown::Text(if name.is_empty() { "*".to_owned() } else { name.clone() });

    let count = |value: usize| Shown::Count(value as u64);
    Shown::Map(vec![
        ("upstream", Shown::Text(upstream.to_string())),
        ("listen", Shown::Text(listen.to_string())),
        ("admin", Shown::Text(admin.to_string())),
        ("admin_auth", shown_admin_auth(admin_auth)),
        ("admin_hosts", Shown::List(admin_hosts.iter().map(|host| Shown::Text(host.to_string())).collect())),
        ("workers", count(*workers)),
        ("tls", shown_tls(tls.as_ref(), true)),
        ("upstream_tls", shown_upstream_tls(upstream_tls)),
        ("admin_tls", shown_tls(admin_tls.as_ref(), false)),
        ("proxy_protocol", Shown::Bool(*proxy_protocol)),
        (
            "timeouts",
            Shown::Map(vec![
                ("client_head", duration(*client_head)),
                ("client_body", duration(*client_body)),
                ("client_idle", duration(*client_idle)),
                ("connect", duration(*connect)),
                ("pool_wait", duration(*pool_wait)),
                ("head", duration(*head)),
                ("body", duration(*body)),
                ("upstream_idle", duration(*upstream_idle)),
                ("upstream_age", duration(*upstream_age)),
            ]),
        ),
        (
            "limits",
            Shown::Map(vec![
                ("connections", count(*connections)),
                ("head_bytes", size(*head_bytes as u64)),
                ("headers", count(*headers)),
                ("request_line_bytes", size(*request_line_bytes as u64)),
                ("request_body_bytes", request_body_bytes.map_or_else(none, size)),
                ("streams", Shown::Count(u64::from(*streams))),
                ("inflight", inflight.map_or_else(none, count)),
                ("upstream_connections", count(*upstream_connections)),
                ("upstream_waiting", count(*upstream_waiting)),
                ("series", count(*series)),
                ("series_idle", series_idle.map_or_else(none, duration)),
                ("metrics_memory", size(*metrics_memory)),
            ]),
        ),
        (
            "drain",
            Shown::Map(vec![
                ("grace", duration(*grace)),
                ("timeout", duration(*timeout)),
                ("last_scrape", duration(*last_scrape)),
            ]),
        ),
        ("dns", Shown::Map(vec![("refresh", duration(*refresh))])),
        ("routes", Shown::List(routes.iter().map(shown_route).collect())),
        ("openapi", Shown::List(openapi.iter().map(shown_openapi).collect())),
        ("learn", shown_learn(learn)),
        ("buckets", shown_buckets(buckets)),
        ("slos", Shown::List(slos.iter().map(shown_slo).collect())),
        ("implicit_errors", Shown::List(implicit_errors.iter().map(shown_implicit_error).collect())),
        ("created", Shown::Bool(*created)),
        ("probes", Shown::Map(vec![("paths", shown_texts(paths)), ("user_agents", shown_texts(user_agents))])),
        (
            "readiness",
            Shown::Map(vec![
                ("path", path.clone().map_or_else(none, Shown::Text)),
                ("grpc", grpc.as_ref().map_or_else(none, service)),
                ("interval", duration(*interval)),
            ]),
        ),
        ("saturation", shown_saturation(saturation)),
        ("command", Shown::Map(vec![("restart", Shown::Token(restart.as_str().to_owned()))])),
        ("backend_metrics", shown_backend_metrics(backend_metrics)),
        ("forwarded", shown_forwarded(forwarded)),
        ("via", Shown::Bool(*via)),
    ])
}

/// Where the files are, never what is in them. `choice`: whether there is a choice of who must show a certificate.
fn shown_tls(tls: Option<&ServerTls>, choice: bool) -> Shown {
    let identity = tls.map(|tls| &tls.identity);
    let mut entries = vec![
        ("certificate", shown_path(identity.map(|identity| &identity.certificate))),
        ("key", shown_path(identity.map(|identity| &identity.key))),
        ("client_ca", shown_path(tls.and_then(|tls| tls.client_ca.as_ref()))),
    ];
    if choice {
        let auth = tls.map_or(ClientAuth::None, |tls| tls.client_auth);
        entries.push(("client_auth", Shown::Token(auth.as_str().to_owned())));
    }
    Shown::Map(entries)
}

fn shown_upstream_tls(tls: &UpstreamTls) -> Shown {
    let UpstreamTls { ca, server_name, identity, verify } = tls;
    Shown::Map(vec![
        ("ca", shown_path(ca.as_ref())),
        ("server_name", server_name.clone().map_or_else(none, Shown::Text)),
        ("certificate", shown_path(identity.as_ref().map(|identity| &identity.certificate))),
        ("key", shown_path(identity.as_ref().map(|identity| &identity.key))),
        ("verify", Shown::Bool(*verify)),
    ])
}

fn shown_path(path: Option<&PathBuf>) -> Shown {
    path.map_or_else(none, |path| Shown::Text(path.display().to_string()))
}

/// Files are named, secrets are not.
fn shown_admin_auth(auth: &AdminAuth) -> Shown {
    let AdminAuth { token, basic } = auth;
    let both = |secret: Option<&SecretFrom>| match secret {
        None => (none(), none()),
        Some(SecretFrom::Given(_)) => (Shown::Text(REDACTED.to_owned()), none()),
        Some(SecretFrom::File(path)) => (none(), Shown::Text(path.display().to_string())),
    };
    let (token, token_file) = both(token.as_ref());
    let (password, password_file) = both(basic.as_ref().map(|(_, password)| password));
    let username = basic.as_ref().map_or_else(none, |(name, _)| Shown::Text(name.clone()));
    Shown::Map(vec![
        ("token", token),
        ("token_file", token_file),
        ("username", username),
        ("password", password),
        ("password_file", password_file),
    ])
}

fn shown_route(route: &RouteTemplate) -> Shown {
    let RouteTemplate { path, methods, buckets } = route;
    let mut entries = vec![("path", Shown::Text(path.clone()))];
    if !methods.is_empty() {
        let methods = methods.iter().map(|method| Shown::Token(method.as_str().to_owned())).collect();
        entries.push(("methods", Shown::List(methods)));
    }
    if let Some(buckets) = buckets {
        entries.push(("buckets", shown_buckets(buckets)));
    }
    Shown::Map(entries)
}

fn shown_openapi(document: &OpenApi) -> Shown {
    Shown::Text(match document {
        OpenApi::File(path) => path.display().to_string(),
        OpenApi::Url(url) => redact(url),
    })
}

fn shown_learn(learn: &Learn) -> Shown {
    let Learn { enabled, limit, state } = learn;
    Shown::Map(vec![
        ("enabled", Shown::Bool(*enabled)),
        ("limit", Shown::Count(*limit as u64)),
        ("state", state.as_ref().map_or_else(none, |path| Shown::Text(path.display().to_string()))),
    ])
}

fn shown_slo(slo: &Slo) -> Shown {
    let Slo { name, routes, objective, latency, too_slow_is_error } = slo;
    let mut entries = vec![("name", Shown::Text(name.clone()))];
    if !routes.is_empty() {
        entries.push(("routes", shown_texts(routes)));
    }
    entries.push(("objective", Shown::Ratio(*objective)));
    entries.extend(latency.map(|latency| ("latency", duration(latency))));
    if *too_slow_is_error {
        entries.push(("too_slow_is_error", Shown::Bool(true)));
    }
    Shown::Map(entries)
}

fn shown_implicit_error(rule: &ImplicitError) -> Shown {
    let ImplicitError { name, routes, symptom } = rule;
    let mut entries = vec![("name", Shown::Text(name.clone()))];
    if !routes.is_empty() {
        entries.push(("routes", shown_texts(routes)));
    }
    let text = |text: &String| Shown::Text(text.clone());
    entries.push(match symptom {
        Symptom::JsonPointer(pointer) => ("json_pointer", text(pointer)),
        Symptom::Header { name, value } => {
            let value = value.iter().map(|value| ("value", text(value)));
            ("header", Shown::Map([("name", text(name))].into_iter().chain(value).collect()))
        }
        Symptom::ContentTypeNot(media) => ("content_type_not", text(media)),
        Symptom::BodyContains(wanted) => ("body_contains", text(wanted)),
        Symptom::LengthMismatch(field) => ("length_mismatch", text(field)),
    });
    Shown::Map(entries)
}

fn shown_saturation(saturation: &Saturation) -> Shown {
    let Saturation { interval, backend, pools } = saturation;
    let BackendHints { pid, pid_file, cgroup, cpu_limit_cores, memory_limit_bytes } = backend;
    let path = |path: &Option<PathBuf>| shown_path(path.as_ref());
    let backend = vec![
        ("pid", pid.map_or_else(none, |pid| Shown::Count(u64::from(pid)))),
        ("pid_file", path(pid_file)),
        ("cgroup", path(cgroup)),
        ("cpu_limit", cpu_limit_cores.map_or_else(none, Shown::Ratio)),
        ("memory_limit", memory_limit_bytes.map_or_else(none, size)),
    ];
    Shown::Map(vec![
        ("interval", duration(*interval)),
        ("backend", Shown::Map(backend)),
        ("pools", Shown::List(pools.iter().map(shown_pool).collect())),
    ])
}

/// What a preset and labels stand for is shown in full, so that it can be compared with the page.
fn shown_pool(pool: &Pool) -> Shown {
    let Pool { name, kind, limit } = pool;
    let mut entries = vec![("name", Shown::Text(name.clone()))];
    match kind {
        PoolKind::Inferred { address: None, port } => entries.push(("port", Shown::Count(u64::from(*port)))),
        PoolKind::Inferred { address: Some(address), port } => {
            entries.push(("address", Shown::Text(SocketAddr::new(*address, *port).to_string())));
        }
        PoolKind::Reported { url, preset, selectors } => {
            entries.push(("url", Shown::Text(redact(url))));
            entries.extend(preset.iter().map(|preset| ("preset", Shown::Text(preset.clone()))));
            let PoolSelectors { used, idle, limit, waiting, timeouts } = &**selectors;
            let selectors =
                [("used", used), ("idle", idle), ("limit", limit), ("waiting", waiting), ("timeouts", timeouts)];
            for (key, expression) in selectors {
                entries.extend(expression.iter().map(|expression| (key, Shown::Text(expression.to_string()))));
            }
        }
    }
    entries.extend(limit.map(|limit| ("limit", Shown::Count(limit))));
    Shown::Map(entries)
}

fn shown_backend_metrics(backend_metrics: &BackendMetrics) -> Shown {
    let BackendMetrics { url, include, size_max, timeout } = backend_metrics;
    Shown::Map(vec![
        ("url", url.as_ref().map_or_else(none, |url| Shown::Text(redact(url)))),
        ("include", Shown::Bool(*include)),
        ("size", size(*size_max)),
        ("timeout", duration(*timeout)),
    ])
}

fn shown_forwarded(forwarded: &Forwarded) -> Shown {
    match forwarded {
        Forwarded::Append => Shown::Token("append".to_owned()),
        Forwarded::Replace => Shown::Token("replace".to_owned()),
        Forwarded::Trust(networks) => {
            let networks = networks.iter().map(|Network { address, prefix }| format!("{address}/{prefix}"));
            Shown::Map(vec![("trust", Shown::List(networks.map(Shown::Text).collect()))])
        }
    }
}

fn shown_buckets(buckets: &[f64]) -> Shown {
    Shown::List(buckets.iter().copied().map(Shown::Ratio).collect())
}

fn shown_texts(texts: &[String]) -> Shown {
    Shown::List(texts.iter().cloned().map(Shown::Text).collect())
}

fn duration(value: Duration) -> Shown {
    Shown::Token(format_duration(value))
}

fn size(value: u64) -> Shown {
    Shown::Token(format_size(value))
}

fn none() -> Shown {
    Shown::Token("none".to_owned())
}

// === YAML ===

fn write_entry(out: &mut String, parent: &str, key: &str, value: &Shown, sources: &Sources) {
    let path = if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") };
    let indent = "  ".repeat(path.matches('.').count());
    let source = match sources.get(path.as_str()) {
        Some(Source::File { .. }) => "  # from file".to_owned(),
        Some(source) => format!("  # from {source}"),
        None => String::new(),
    };
    // Writing into a string cannot fail.
    let _ = match value {
        Shown::Map(entries) => {
            let written = writeln!(out, "{indent}{key}:{source}");
            for (key, value) in entries {
                write_entry(out, &path, key, value, sources);
            }
            written
        }
        Shown::List(items) if items.iter().any(|item| matches!(item, Shown::Map(_))) => {
            let written = writeln!(out, "{indent}{key}:{source}");
            for item in items {
                write_item(out, &indent, item);
            }
            written
        }
        value => writeln!(out, "{indent}{key}: {}{source}", inline(value)),
    };
}

/// An entry of a list of maps, such as a route. `indent`: that of the list's key.
fn write_item(out: &mut String, indent: &str, item: &Shown) {
    let Shown::Map(entries) = item else { return };
    for (index, (key, value)) in entries.iter().enumerate() {
        let dash = if index == 0 { "- " } else { "  " };
        let _ = writeln!(out, "{indent}  {dash}{key}: {}", inline(value));
    }
}

/// A value on one line.
fn inline(value: &Shown) -> String {
    let joined = |items: Vec<String>| items.join(", ");
    match value {
        Shown::Bool(value) => value.to_string(),
        Shown::Count(value) => value.to_string(),
        Shown::Ratio(value) => value.to_string(),
        Shown::Token(text) => text.clone(),
        Shown::Text(text) if is_plain(text) => text.clone(),
        Shown::Text(text) => quoted(text),
        Shown::List(items) => format!("[{}]", joined(items.iter().map(inline).collect())),
        Shown::Map(entries) => {
            format!("{{{}}}", joined(entries.iter().map(|(key, value)| format!("{key}: {}", inline(value))).collect()))
        }
    }
}

/// A text in double quotes. Most are visible ASCII; paths and pointers may hold anything.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            ' '..='~' => write!(quoted, "{c}"),
            c if c.is_alphanumeric() => write!(quoted, "{c}"),
            c => write!(quoted, "\\U{:08x}", u32::from(c)),
        };
    }
    quoted.push('"');
    quoted
}

/// Whether YAML reads a text as itself without quotes, in a flow list too. Rather one quote too many.
fn is_plain(text: &str) -> bool {
    let safe = |c: char| c.is_ascii_alphanumeric() || "/.:_-".contains(c);
    let word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "none", "auto"];
    let address = text.starts_with(|c: char| c.is_ascii_digit()) && text.parse::<std::net::SocketAddr>().is_ok();
    (text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') || address)
        && text.chars().all(safe)
        && !text.ends_with(':')
        && !word.contains(&text.to_ascii_lowercase().as_str())
}

// === JSON ===

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Shown::Bool(value) => serializer.serialize_bool(*value),
            Shown::Count(value) => serializer.serialize_u64(*value),
            Shown::Ratio(value) => serializer.serialize_f64(*value),
            Shown::Token(text) | Shown::Text(text) => serializer.serialize_str(text),
            Shown::List(items) => serializer.collect_seq(items),
            Shown::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}
