//! What was given, before anything is checked: the file, the environment and the flags, laid over each other.
//!
//! Source: the table in `README.md`; a field below is a key of the file, and its path in capitals is the variable.
//! Shape:  every value is the text that was written, with the place where it was written.
//! Absent: `None`, and then the default holds. A section without a value counts as absent.

use std::collections::HashSet;
use std::sync::Arc;

use super::error::{ConfigError, Source, found, nearest};
use super::yaml::{self, Node, Value};

/// What the names of our environment variables start with.
pub(super) const VARIABLE_PREFIX: &str = "GOLDEN_";

/// The variable that names the file: the only one that is no key.
pub(super) const FILE_VARIABLE: &str = "GOLDEN_CONFIG";

/// Where the keys are that hold secrets: no sentence quotes what is found below.
const SECRETS: &str = "admin_auth.";

/// A value and where it was given.
#[derive(Clone, Debug)]
pub(super) struct Given<T> {
    pub value: T,
    pub source: Source,
}

/// One text: a number, a duration, an address.
pub(super) type Scalar = Option<Given<String>>;

/// A list of texts. In a variable the items are separated by commas.
pub(super) type Texts = Option<Given<Vec<Given<String>>>>;

/// A list of texts that may be written as one text.
#[derive(Clone, Debug, Default)]
pub(super) struct OneOrMore(pub Texts);

/// A list of maps, such as the declared routes; it can be given in the file only.
pub(super) type Maps<T> = Option<Given<Vec<Given<T>>>>;

/// The policy for `X-Forwarded-*`: a word, or a list of networks.
#[derive(Clone, Debug)]
pub(super) enum RawPolicy {
    Word(String),
    Trust(Vec<Given<String>>),
}

/// A key of the file.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// Sections and name, with dots.
    pub path: String,
    /// Whether an environment variable can set it.
    pub variable: bool,
}

/// A piece of the configuration that can be read from the file and, in part, from the environment.
trait Part {
    /// Takes the value of the key `path` out of the file.
    fn read(&mut self, path: &str, node: &Node, file: &Arc<str>) -> Result<(), ConfigError>;

    /// Sets what is below this part at `rest` (empty: the part itself) from a variable or a flag.
    /// False when there is nothing that could be set so.
    fn set(&mut self, path: &str, rest: &str, text: &str, source: &Source) -> Result<bool, ConfigError>;

    /// Adds the keys of this part.
    fn keys(path: &str, keys: &mut Vec<Key>);
}

/// Declares a section: a struct whose fields are the keys, read and set by name.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $part:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub(super) struct $name { $(pub $key: $part),+ }

        impl Part for $name {
            fn read(&mut self, path: &str, node: &Node, file: &Arc<str>) -> Result<(), ConfigError> {
                for (key, node) in entries(path, node, file)? {
                    let path = join(path, key);
                    match key.as_str() {
                        $(stringify!($key) => Part::read(&mut self.$key, &path, node, file)?,)+
                        // `token:SECRET` without its blank is a key, and no sentence may repeat it.
                        _ if path.starts_with(SECRETS) => {
                            let problem = "holds an unknown key; expected token, token_file, username, password and \
                                           password_file, each with a blank behind its colon";
                            return Err(ConfigError::new(SECRETS.trim_end_matches('.'), problem, Some(at(file, node))));
                        }
                        _ => {
                            let mut siblings = Vec::new();
                            let parent = path.strip_suffix(key.as_str()).unwrap_or_default();
                            $(siblings.push(format!("{parent}{}", stringify!($key)));)+
                            return Err(unknown_key(&path, &siblings, at(file, node)));
                        }
                    }
                }
                Ok(())
            }

            fn set(&mut self, path: &str, rest: &str, text: &str, source: &Source) -> Result<bool, ConfigError> {
                let (key, rest) = rest.split_once('.').unwrap_or((rest, ""));
                match key {
                    $(stringify!($key) => Part::set(&mut self.$key, &join(path, key), rest, text, source),)+
                    _ => Ok(false),
                }
            }

            fn keys(path: &str, keys: &mut Vec<Key>) {
                $(<$part as Part>::keys(&join(path, stringify!($key)), keys);)+
            }
        }
    };
}

section! {
    /// The whole configuration.
    Raw {
        upstream: Scalar, listen: Scalar, admin: Scalar, admin_auth: RawAdminAuth, admin_hosts: Texts, workers: Scalar,
        tls: RawServerTls, upstream_tls: RawUpstreamTls, admin_tls: RawAdminTls, proxy_protocol: Scalar,
        timeouts: RawTimeouts, limits: RawLimits, drain: RawDrain, dns: RawDns, routes: Maps<RawRoute>, openapi: OneOrMore,
        learn: RawLearn, buckets: Texts,
        slos: Maps<RawSlo>, implicit_errors: Maps<RawImplicitError>, created: Scalar, probes: RawProbes,
        readiness: RawReadiness, saturation: RawSaturation, command: RawCommand, backend_metrics: RawBackendMetrics,
        forwarded: Option<Given<RawPolicy>>, via: Scalar,
    }
}

section! {
    /// `tls`.
    RawServerTls { certificate: Scalar, key: Scalar, client_ca: Scalar, client_auth: Scalar }
}

section! {
    /// `upstream_tls`.
    RawUpstreamTls { ca: Scalar, server_name: Scalar, certificate: Scalar, key: Scalar, verify: Scalar }
}

section! {
    /// `admin_tls`.
    RawAdminTls { certificate: Scalar, key: Scalar, client_ca: Scalar }
}

section! {
    /// `admin_auth`.
    RawAdminAuth { token: Scalar, token_file: Scalar, username: Scalar, password: Scalar, password_file: Scalar }
}

section! {
    /// `timeouts`.
    RawTimeouts {
        client_head: Scalar, client_body: Scalar, client_idle: Scalar, connect: Scalar, pool_wait: Scalar,
        head: Scalar, body: Scalar, upstream_idle: Scalar, upstream_age: Scalar,
    }
}

section! {
    /// `limits`.
    RawLimits {
        connections: Scalar, head_bytes: Scalar, headers: Scalar, request_line_bytes: Scalar,
        request_body_bytes: Scalar, streams: Scalar, inflight: Scalar, upstream_connections: Scalar,
        upstream_waiting: Scalar, series: Scalar, series_idle: Scalar, metrics_memory: Scalar,
    }
}

section! {
    /// `dns`.
    RawDns { refresh: Scalar }
}

section! {
    /// `drain`.
    RawDrain { grace: Scalar, timeout: Scalar, last_scrape: Scalar }
}

section! {
    /// An entry of `routes`.
    RawRoute { path: Scalar, methods: Texts, buckets: Texts }
}

section! {
    /// `learn`.
    RawLearn { enabled: Scalar, limit: Scalar, state: Scalar }
}

section! {
    /// An entry of `slos`.
    RawSlo { name: Scalar, routes: Texts, objective: Scalar, latency: Scalar, too_slow_is_error: Scalar }
}

section! {
    /// An entry of `implicit_errors`.
    RawImplicitError {
        name: Scalar, routes: Texts, json_pointer: Scalar, header: RawField, content_type_not: Scalar,
        body_contains: Scalar, length_mismatch: Scalar,
    }
}

section! {
    /// `header` of such an entry.
    RawField { name: Scalar, value: Scalar }
}

section! {
    /// `probes`.
    RawProbes { paths: Texts, user_agents: Texts }
}

section! {
    /// `readiness`.
    RawReadiness { path: Scalar, grpc: Scalar, interval: Scalar }
}

section! {
    /// `saturation`.
    RawSaturation { interval: Scalar, backend: RawBackend, pools: Maps<RawPool> }
}

section! {
    /// `saturation.backend`.
    RawBackend { pid: Scalar, pid_file: Scalar, cgroup: Scalar, cpu_limit: Scalar, memory_limit: Scalar }
}

section! {
    /// An entry of `saturation.pools`.
    RawPool {
        name: Scalar, port: Scalar, address: Scalar, url: Scalar, preset: Scalar, used: Scalar, idle: Scalar,
        limit: Scalar, waiting: Scalar, timeouts: Scalar, labels: Scalar,
    }
}

section! {
    /// `command`.
    RawCommand { restart: Scalar }
}

section! {
    /// `backend_metrics`.
    RawBackendMetrics { url: Scalar, include: Scalar, size: Scalar, timeout: Scalar }
}

// === impl Raw ===

impl Raw {
    /// Lays the text of a file over what is there.
    ///
    /// # Errors
    /// When the text is not YAML, a key is unknown or there twice, or a value has the wrong shape.
    pub fn read_file(&mut self, text: &str, file: &Arc<str>) -> Result<(), ConfigError> {
        self.read("", &parse_file(text, file)?, file)
    }

    /// Lays a variable over what is there. An empty one counts as not set: compose files pass on variables that
    /// are not set as empty ones.
    ///
    /// # Errors
    /// When no key has this variable.
    pub fn set_variable(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        let keys = Raw::all_keys();
        let Some(key) = keys.iter().find(|key| variable(&key.path) == name) else {
            if is_service_link(name, text) {
                return Ok(());
            }
            return Err(unknown_variable(name, &keys));
        };
        if !key.variable {
            let problem = format!("cannot be set by a variable; put {} into the file", key.path);
            return Err(ConfigError::new(name, problem, None));
        }
        if !text.is_empty() {
            self.set("", &key.path, text, &Source::Environment(name.to_owned()))?;
        }
        Ok(())
    }

    /// Lays a flag over what is there. `path` comes from the program, so one that does not exist is a defect, which
    /// the test of the flags finds.
    ///
    /// # Errors
    /// None of the present flags has any; the signature is that of the parts.
    pub fn set_flag(&mut self, path: &str, flag: &'static str, text: &str) -> Result<(), ConfigError> {
        let known = self.set("", path, text, &Source::Flag(flag))?;
        debug_assert!(known, "{flag} sets {path}, which is no key");
        Ok(())
    }

    /// Every key, in the order of the file.
    pub fn all_keys() -> Vec<Key> {
        let mut keys = Vec::new();
        Raw::keys("", &mut keys);
        keys
    }
}

/// Takes one key at the top of a file in, and nothing else: for the health check, which must not fail because of a key
/// that is none of its business.
///
/// # Errors
/// When the text is not YAML or the value has the wrong shape.
pub(super) fn read_only(raw: &mut Raw, key: &str, text: &str, file: &Arc<str>) -> Result<(), ConfigError> {
    let node = parse_file(text, file)?;
    let Value::Map(mut entries) = node.value else { return Ok(()) };
    entries.retain(|(name, _)| name == key);
    raw.read("", &Node { line: node.line, value: Value::Map(entries) }, file)
}

/// The environment variable of a key.
pub(super) fn variable(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.to_ascii_uppercase().replace('.', "_"))
}

// === impl Part ===

impl Part for Scalar {
    fn read(&mut self, path: &str, node: &Node, file: &Arc<str>) -> Result<(), ConfigError> {
        *self = Some(Given { value: scalar(path, node, file, "one value")?, source: at(file, node) });
        Ok(())
    }

    fn set(&mut self, _path: &str, rest: &str, text: &str, source: &Source) -> Result<bool, ConfigError> {
        if rest.is_empty() {
            *self = Some(Given { value: text.to_owned(), source: source.clone() });
        }
        Ok(rest.is_empty())
    }

    fn keys(path: &str, keys: &mut Vec<Key>) {
        keys.push(Key { path: path.to_owned(), variable: true });
    }
}

impl Part for Texts {
    fn read(&mut self, path: &str, node: &Node, file: &Arc<str>) -> Result<(), ConfigError> {
        *self = Some(Given { value: texts(path, node, file)?, source: at(file, node) });
        Ok(())
    }

    fn set(&mut self, _path: &str, rest: &str, text: &str, source: &Source) -> Result<bool, ConfigError> {
        if rest.is_empty() {
            *self = Some(Given { value: split(text, source), source: source.clone() });
        }
        Ok(rest.is_empty())
    }

    fn keys(path: &str, keys: &mut Vec<Key>) {
        keys.push(Key { path: path.to_owned(), variable: true });
    }
}

impl Part for OneOrMore {
    fn read(&mut self, path: &str, node: &Node, file: &Arc<str>) -> Result<(), ConfigError> {
        let value = match &node.value {
            Value::Scalar(text) => vec![Given { value: text.clone(), source: at(file, node) }],
            Value::List(_) | Value::Null => texts(path, node, file)?,
            Value::Map(_) => return Err(wrong_shape(path, node, file, "one value or a list such as [a, b]")),
        };
        self.0 = Some(Given { value, source: at(file, node) });
        Ok(())
    }

    fn set(&mut self, path: &str, rest: &str, text: &str, source: &Source) -> Result<bool, ConfigError> {
        self.0.set(path, rest, text, source)
    }

    fn keys(path: &str, keys: &mut Vec<Key>) {
        Texts::keys(path, keys);
    }
}

impl<T: Part + Default> Part for Maps<T> {
    fn read(&mut self, path: &str, node: &Node, file: &Arc<str>) -> Result<(), ConfigError> {
        let mut maps = Vec::new();
        for (index, node) in items(path, node, file, &list_of_maps::<T>())?.iter().enumerate() {
            let mut map = T::default();
            map.read(&format!("{path}[{index}]"), node, file)?;
            maps.push(Given { value: map, source: at(file, node) });
        }
        *self = Some(Given { value: maps, source: at(file, node) });
        Ok(())
    }

    fn set(&mut self, _path: &str, _rest: &str, _text: &str, _source: &Source) -> Result<bool, ConfigError> {
        Ok(false)
    }

    fn keys(path: &str, keys: &mut Vec<Key>) {
        keys.push(Key { path: path.to_owned(), variable: false });
    }
}

/// What is expected of a list of maps, for a sentence.
fn list_of_maps<T: Part>() -> String {
    let mut keys = Vec::new();
    T::keys("", &mut keys);
    let names: Vec<&str> = keys.iter().map(|key| key.path.as_str()).collect();
    match names.split_last() {
        Some((last, others)) => format!("a list of maps with the keys {} and {last}", others.join(", ")),
        None => "a list of maps".to_owned(),
    }
}

/// The key below `forwarded`.
const TRUST: &str = "trust";

impl Part for Option<Given<RawPolicy>> {
    fn read(&mut self, path: &str, node: &Node, file: &Arc<str>) -> Result<(), ConfigError> {
        let value = match &node.value {
            Value::Map(_) => {
                let mut trust = None;
                for (key, node) in entries(path, node, file)? {
                    let path = join(path, key);
                    if key != TRUST {
                        return Err(unknown_key(&path, &[], at(file, node)));
                    }
                    trust = Some(texts(&path, node, file)?);
                }
                RawPolicy::Trust(trust.unwrap_or_default())
            }
            _ => RawPolicy::Word(scalar(path, node, file, "append, replace or trust: [10.0.0.0/8]")?),
        };
        *self = Some(Given { value, source: at(file, node) });
        Ok(())
    }

    fn set(&mut self, path: &str, rest: &str, text: &str, source: &Source) -> Result<bool, ConfigError> {
        let value = match rest {
            "" => RawPolicy::Word(text.to_owned()),
            TRUST => RawPolicy::Trust(split(text, source)),
            _ => return Ok(false),
        };
        // The policy is one value, so the environment's replaces the file's as a whole; twice in the environment is
        // a contradiction.
        if let Some(Given { source: Source::Environment(other), .. }) = self {
            let problem = format!("given by {other} and by {source} at once; expected one of them");
            return Err(ConfigError::new(path, problem, None));
        }
        *self = Some(Given { value, source: source.clone() });
        Ok(true)
    }

    fn keys(path: &str, keys: &mut Vec<Key>) {
        keys.push(Key { path: path.to_owned(), variable: true });
        keys.push(Key { path: join(path, TRUST), variable: true });
    }
}

// === nodes ===

fn parse_file(text: &str, file: &Arc<str>) -> Result<Node, ConfigError> {
    yaml::parse(text).map_err(|error| {
        let problem = format!("not valid YAML: {}", super::error::redact(&error.message));
        ConfigError::new("config", problem, Some(Source::File { path: file.clone(), line: error.line }))
    })
}

fn at(file: &Arc<str>, node: &Node) -> Source {
    Source::File { path: file.clone(), line: (node.line > 0).then_some(node.line) }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// What a node is, for a sentence.
fn shape(node: &Node) -> String {
    match &node.value {
        Value::Null => "no value".to_owned(),
        Value::Scalar(text) => found(text),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}

fn wrong_shape(path: &str, node: &Node, file: &Arc<str>, expected: &str) -> ConfigError {
    let key = if path.is_empty() { "config" } else { path };
    let shape = match &node.value {
        // A file that is one text is mostly the wrong one, such as that of a token.
        Value::Scalar(_) if path.is_empty() || format!("{path}.").starts_with(SECRETS) => "a text".to_owned(),
        _ => shape(node),
    };
    ConfigError::new(key, format!("found {shape}; expected {expected}"), Some(at(file, node)))
}

/// The entries of a section, none of them twice. A section whose keys are all commented out is empty.
fn entries<'a>(path: &str, node: &'a Node, file: &Arc<str>) -> Result<&'a [(String, Node)], ConfigError> {
    let entries: &[(String, Node)] = match &node.value {
        Value::Map(entries) => entries,
        Value::Null => &[],
        _ => return Err(wrong_shape(path, node, file, "a map of keys")),
    };
    let mut seen = HashSet::new();
    for (key, node) in entries {
        if !seen.insert(key) {
            return Err(ConfigError::new(join(path, key), "given twice; expected once", Some(at(file, node))));
        }
    }
    Ok(entries)
}

fn items<'a>(path: &str, node: &'a Node, file: &Arc<str>, expected: &str) -> Result<&'a [Node], ConfigError> {
    match &node.value {
        Value::List(items) => Ok(items),
        Value::Null => Ok(&[]),
        _ => Err(wrong_shape(path, node, file, expected)),
    }
}

fn scalar(path: &str, node: &Node, file: &Arc<str>, expected: &str) -> Result<String, ConfigError> {
    match &node.value {
        Value::Scalar(text) => Ok(text.clone()),
        Value::Null => {
            let problem = format!("found no value; expected {expected}, or remove the key to have the default");
            Err(ConfigError::new(path, problem, Some(at(file, node))))
        }
        _ => Err(wrong_shape(path, node, file, expected)),
    }
}

fn texts(path: &str, node: &Node, file: &Arc<str>) -> Result<Vec<Given<String>>, ConfigError> {
    items(path, node, file, "a list such as [a, b]")?
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let value = match &item.value {
                Value::Scalar(text) => text.clone(),
                _ => return Err(wrong_shape(&format!("{path}[{index}]"), item, file, "one value")),
            };
            Ok(Given { value, source: at(file, item) })
        })
        .collect()
}

fn split(text: &str, source: &Source) -> Vec<Given<String>> {
    text.split(',').map(|item| Given { value: item.trim().to_owned(), source: source.clone() }).collect()
}

// === unknown names ===

fn unknown_key(path: &str, siblings: &[String], source: Source) -> ConfigError {
    let keys = Raw::all_keys();
    let names = siblings.iter().map(String::as_str).chain(keys.iter().map(|key| key.path.as_str()));
    ConfigError::new(path, format!("unknown key; {}", nearest(path, names)), Some(source))
}

fn unknown_variable(name: &str, keys: &[Key]) -> ConfigError {
    let mut names: Vec<String> = keys.iter().filter(|key| key.variable).map(|key| variable(&key.path)).collect();
    names.push(FILE_VARIABLE.to_owned());
    ConfigError::new(name, format!("unknown variable; {}", nearest(name, names.iter().map(String::as_str))), None)
}

/// Whether a variable is one that Kubernetes and Docker set for a service whose name starts with `golden`, such as
/// `GOLDEN_SIDECAR_SERVICE_HOST` or `GOLDEN_PORT_8000_TCP=tcp://10.0.0.1:8000`. Nobody wrote it, so it is no mistake.
fn is_service_link(name: &str, text: &str) -> bool {
    let url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme));
    let port_of_protocol = || {
        name.split_once("_PORT_").is_some_and(|(_, rest)| {
            let (number, rest) = rest.split_once('_').unwrap_or((rest, ""));
            number.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].iter().any(|protocol| rest.starts_with(protocol))
        })
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && url)
        || port_of_protocol()
}

#[cfg(test)]
mod tests {
    use super::{Raw, is_service_link, variable};

    #[test]
    fn every_key_has_a_variable_of_its_own() {
        let mut names: Vec<String> = Raw::all_keys().iter().map(|key| variable(&key.path)).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.contains(&"GOLDEN_TIMEOUTS_CONNECT".to_owned()));
    }

    #[test]
    fn variables_that_an_orchestrator_sets_for_a_service_are_told_from_mistakes() {
        for (name, text) in [
            ("GOLDEN_SIDECAR_SERVICE_HOST", "10.0.0.1"),
            ("GOLDEN_SIDECAR_SERVICE_PORT", "80"),
            ("GOLDEN_SIDECAR_SERVICE_PORT_HTTP", "80"),
            ("GOLDEN_PORT", "tcp://10.0.0.1:80"),
            ("GOLDEN_ADMIN_PORT_9900_TCP_ADDR", "10.0.0.1"),
        ] {
            assert!(is_service_link(name, text), "{name}");
        }
        for (name, text) in [("GOLDEN_LISTEN_PORT", "8000"), ("GOLDEN_PORT_X_TCP", "1"), ("GOLDEN_LISTN", "tcp://x")] {
            assert!(!is_service_link(name, text), "{name}");
        }
    }
}
