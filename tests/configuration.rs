//! The configuration through the front door: what `check` accepts, what it prints, and the exact sentence for each
//! mistake.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use golden_sidecar::config::units::{format_duration, format_size, parse_duration, parse_size};
use golden_sidecar::config::{self, Config, Failure, Invocation, Listen, Loaded, OpenApi, Stream, Upstream};
use proptest::prelude::*;

/// Runs the binary in a folder of its own, where `file` is `golden.yaml`, with these variables and no others.
fn run(file: Option<&str>, env: &[(&str, &str)], args: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_golden-sidecar"));
    command.current_dir(folder.path()).env_clear().envs(env.iter().copied()).args(args);
    if let Some(text) = file {
        std::fs::write(folder.path().join("golden.yaml"), text).expect("write the file");
        command.args(["--config", "golden.yaml"]);
    }
    command.output().expect("start the binary")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// What `check` prints.
fn check(file: Option<&str>, env: &[(&str, &str)], args: &[&str]) -> String {
    let output = run(file, env, &[&["check"], args].concat());
    assert_eq!((text(&output.stderr), output.status.code()), ("", Some(0)), "{file:?} {env:?} {args:?}");
    text(&output.stdout).to_owned()
}

/// Checks that a configuration is refused with exactly this sentence.
#[track_caller]
fn refused(file: Option<&str>, env: &[(&str, &str)], args: &[&str], sentence: &str) {
    let output = run(file, env, &[&["check"], args].concat());
    assert_eq!(text(&output.stderr), format!("{sentence}\n"), "{file:?} {env:?} {args:?}");
    assert_eq!((text(&output.stdout), output.status.code()), ("", Some(2)), "{file:?} {env:?} {args:?}");
}

/// Loads without a process: arguments after the program's name, variables, no file.
fn load(args: &[&str], env: &[(&str, &str)]) -> Result<Invocation, Failure> {
    let args = ["golden-sidecar"].iter().chain(args).map(OsString::from).collect();
    config::load(args, env.iter().map(|(name, value)| (name.into(), value.into())).collect())
}

fn loaded(args: &[&str], env: &[(&str, &str)]) -> Loaded {
    match load(args, env) {
        Ok(Invocation::Run(loaded) | Invocation::Check(loaded)) => loaded,
        other => panic!("{args:?} {env:?} gave {other:?}"),
    }
}

const UPSTREAM: &str = "--upstream=http://127.0.0.1:8080";

// === bad configurations ===

/// Files, under a given upstream.
const BAD_FILES: &[(&str, &str)] = &[
    // Names.
    ("timeouts:\n  conect: 1s", "timeouts.conect: unknown key; did you mean timeouts.connect? (golden.yaml:2)"),
    ("conect: 1s", "conect: unknown key; did you mean timeouts.connect? (golden.yaml:1)"),
    ("bananas: 1", "bananas: unknown key; the nearest known one is buckets (golden.yaml:1)"),
    (
        "routes:\n  - path: /a\n    metods: [GET]",
        "routes[0].metods: unknown key; did you mean routes[0].methods? (golden.yaml:3)",
    ),
    (
        "forwarded:\n  thrust: [10.0.0.0/8]",
        "forwarded.thrust: unknown key; did you mean forwarded.trust? (golden.yaml:2)",
    ),
    ("via: true\nvia: false", "via: given twice; expected once (golden.yaml:2)"),
    // The admin port. Nothing that may be a secret is repeated.
    ("admin_auth: hunter2hunter2hunter2", "admin_auth: found a text; expected a map of keys (golden.yaml:1)"),
    ("admin_auth: [hunter2]", "admin_auth: found a list; expected a map of keys (golden.yaml:1)"),
    (
        "admin_auth: {token:hunter2hunter2hunter2}",
        "admin_auth: holds an unknown key; expected token, token_file, username, password and password_file, each with a blank behind its colon (golden.yaml:1)",
    ),
    ("admin_auth: {token: {hunter2: hunter2}}", "admin_auth.token: found a map; expected one value (golden.yaml:1)"),
    (
        "admin_auth: {token: 'hunter2hunter2 '}",
        "admin_auth.token: holds whitespace; expected 16 or more visible ASCII characters, for example from openssl rand -hex 32, or none (golden.yaml:1)",
    ),
    (
        "admin_auth: {token: \"hunter2hunter2\\n\"}",
        "admin_auth.token: holds whitespace; expected 16 or more visible ASCII characters, for example from openssl rand -hex 32, or none (golden.yaml:1)",
    ),
    (
        "admin_auth: {token: \"hunter2hunter2\\a\"}",
        "admin_auth.token: holds control characters; expected 16 or more visible ASCII characters, for example from openssl rand -hex 32, or none (golden.yaml:1)",
    ),
    (
        "admin_auth:\n  token: ''",
        "admin_auth.token: is empty; expected 16 or more visible ASCII characters, for example from openssl rand -hex 32, or none (golden.yaml:2)",
    ),
    (
        "admin_auth:\n  token: hunter2hunter2h",
        "admin_auth.token: is too short; expected 16 or more visible ASCII characters, for example from openssl rand -hex 32, or none (golden.yaml:2)",
    ),
    (
        "admin_auth:\n  token: hünter2hunter2hunter2",
        "admin_auth.token: holds characters that no field of a request has; expected 16 or more visible ASCII characters, for example from openssl rand -hex 32, or none (golden.yaml:2)",
    ),
    (
        "admin_auth:\n  token: hunter2hunter2hunter2\n  token_file: token",
        "admin_auth.token_file: given beside admin_auth.token; expected one of the two, or none for the other (golden.yaml:3)",
    ),
    (
        "admin_auth:\n  username: a\n  password: hunter2\n  password_file: a",
        "admin_auth.password_file: given beside admin_auth.password; expected one of the two, or none for the other (golden.yaml:4)",
    ),
    (
        "admin_auth: {username: prometheus}",
        "admin_auth.password: missing beside admin_auth.username; expected admin_auth.password or admin_auth.password_file (golden.yaml:1)",
    ),
    (
        "admin_auth: {password: hunter2}",
        "admin_auth.username: missing beside the password; expected a name such as prometheus (golden.yaml:1)",
    ),
    (
        "admin_auth: {username: 'a:b', password: hunter2}",
        "admin_auth.username: \"a:b\" is not a name that basic credentials can carry; expected a text without colons, whitespace and control characters, or none (golden.yaml:1)",
    ),
    (
        "admin_auth: {username: a, password: ''}",
        "admin_auth.password: is empty; expected a text without whitespace and control characters, or none (golden.yaml:1)",
    ),
    (
        "admin_auth: {username: a, password: 'hunter2 hunter2'}",
        "admin_auth.password: holds whitespace; expected a text without whitespace and control characters, or none (golden.yaml:1)",
    ),
    (
        "admin_hosts: metrics.internal",
        "admin_hosts: found \"metrics.internal\"; expected a list such as [a, b] (golden.yaml:1)",
    ),
    (
        "admin_hosts: [a, 'a:9900']",
        "admin_hosts[1]: \"a:9900\" is not a host; expected a name without port such as metrics.internal, an address such as 10.0.0.5 or [fd00::5], or <address> for the one that a connection comes to (golden.yaml:1)",
    ),
    ("admin_hosts: [A.b, a.B.]", "admin_hosts[1]: \"a.b\" is listed twice; expected once (golden.yaml:1)"),
    ("hunter2hunter2hunter2", "config: found a text; expected a map of keys (golden.yaml:1)"),
    // Documents and learning.
    (
        "openapi: https://app/openapi.json",
        "openapi: \"https://app/openapi.json\" uses https, which is not built yet in this version; expected a file, or http://HOST:PORT/PATH, for example http://127.0.0.1:8080/openapi.json (golden.yaml:1)",
    ),
    (
        "openapi: [a.yaml, 'ftp://me:hunter2@app/x']",
        "openapi[1]: \"ftp://***@app/x\" has an unknown scheme; expected a file, or http://HOST:PORT/PATH, for example http://127.0.0.1:8080/openapi.json (golden.yaml:1)",
    ),
    (
        "openapi: http:///openapi.json",
        "openapi: \"http:///openapi.json\" has no valid host; expected a file, or http://HOST:PORT/PATH, for example http://127.0.0.1:8080/openapi.json (golden.yaml:1)",
    ),
    ("openapi: ''", "openapi: \"\" is not a path; expected one such as openapi.yaml, or a URL (golden.yaml:1)"),
    ("openapi: {file: a.yaml}", "openapi: found a map; expected one value or a list such as [a, b] (golden.yaml:1)"),
    ("openapi:\n  - [a.yaml]", "openapi[0]: found a list; expected one value (golden.yaml:2)"),
    (
        "openapi: [http://a/x?key=hunter2, http://a/x?key=hunter2]",
        "openapi[1]: \"http://a/x?***\" is listed twice; expected once (golden.yaml:1)",
    ),
    (
        "openapi: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q]",
        "openapi: found 17 documents; expected at most 16 (golden.yaml:1)",
    ),
    ("learn: no", "learn: found \"no\"; expected a map of keys (golden.yaml:1)"),
    ("learn:\n  enabled: on", "learn.enabled: \"on\" is not a boolean; expected true or false (golden.yaml:2)"),
    (
        "learn:\n  limit: none",
        "learn.limit: \"none\" is not a whole number; expected a whole number from 1 to 10000 (golden.yaml:2)",
    ),
    (
        "learn:\n  limit: 0",
        "learn.limit: \"0\" is out of range; expected a whole number from 1 to 10000 (golden.yaml:2)",
    ),
    (
        "learn:\n  state: ''",
        "learn.state: \"\" is not a path; expected one such as routes.state, or none (golden.yaml:2)",
    ),
    (
        "limits:\n  series_idle: 0s",
        "limits.series_idle: \"0s\" is too short; expected more than 0s, or none (golden.yaml:2)",
    ),
    (
        "limits:\n  metrics_memory: 1023KiB",
        "limits.metrics_memory: \"1023KiB\" is out of range; expected 1MiB to 16GiB (golden.yaml:2)",
    ),
    ("created: 1", "created: \"1\" is not a boolean; expected true or false (golden.yaml:1)"),
    // Objectives.
    (
        "slos:\n  name: api",
        "slos: found a map; expected a list of maps with the keys name, routes, objective, latency and too_slow_is_error (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: api, objectiv: 0.9}",
        "slos[0].objectiv: unknown key; did you mean slos[0].objective? (golden.yaml:2)",
    ),
    ("slos:\n  - {objective: 0.9}", "slos[0].name: missing; expected a name such as api (golden.yaml:2)"),
    (
        "slos:\n  - {name: 'the api', objective: 0.9}",
        "slos[0].name: \"the api\" is not a name; expected 1 to 64 of the characters A-Z, a-z, 0-9, _, . and - (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: a, objective: 0.9}\n  - {name: b, objective: 0.9}\n  - {name: a, objective: 0.99}",
        "slos[2].name: \"a\" is the name of slos[0] too; expected each once (golden.yaml:4)",
    ),
    (
        "slos:\n  - {name: api, latency: 1s}",
        "slos[0].objective: missing; expected a ratio between 0 and 1 such as 0.999 (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: api, objective: 99.9%}",
        "slos[0].objective: \"99.9%\" is not an objective; expected a ratio between 0 and 1 such as 0.999 (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: api, objective: 1}",
        "slos[0].objective: \"1\" is out of range; expected a ratio between 0 and 1 such as 0.999 (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: api, objective: 0.0}",
        "slos[0].objective: \"0.0\" is out of range; expected a ratio between 0 and 1 such as 0.999 (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: api, objective: 0.9, latency: 0.3}",
        "slos[0].latency: \"0.3\" is not a duration; expected a duration such as 250ms, 5s or 2m (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: api, objective: 0.9, latency: 0ms}",
        "slos[0].latency: \"0ms\" is too short; expected more than 0s (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: api, objective: 0.9, routes: []}",
        "slos[0].routes: found no route; expected at least one, or remove the key for all (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: api, objective: 0.9, routes: [/a, /a]}",
        "slos[0].routes: \"/a\" is listed twice; expected once (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: api, objective: 0.9, routes: [_unmatched]}",
        "slos[0].routes[0]: \"_unmatched\" is not a path; expected one that starts with / and is percent-encoded like in a request (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: api, objective: 0.9, routes: ['/files/*']}",
        "slos[0].routes[0]: \"/files/*\" is no label of a route; expected \"/files/{rest}\" as it is on the metrics page (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: api, objective: 0.9, routes: ['/files/{*rest}']}",
        "slos[0].routes[0]: \"/files/{*rest}\" is no label of a route; expected \"/files/{rest}\" as it is on the metrics page (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: a, objective: 0.9, latency: 1s, too_slow_is_error: 1}",
        "slos[0].too_slow_is_error: \"1\" is not a boolean; expected true or false (golden.yaml:2)",
    ),
    (
        "slos:\n  - {name: a, objective: 0.9, too_slow_is_error: true}",
        "slos[0].too_slow_is_error: has no meaning without a latency; expected slos[0].latency too (golden.yaml:2)",
    ),
    // Implicit errors.
    (
        "implicit_errors:\n  name: graphql",
        "implicit_errors: found a map; expected a list of maps with the keys name, routes, json_pointer, header.name, header.value, content_type_not, body_contains and length_mismatch (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, json_ponter: /a}",
        "implicit_errors[0].json_ponter: unknown key; did you mean implicit_errors[0].json_pointer? (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {json_pointer: /a}",
        "implicit_errors[0].name: missing; expected a name such as graphql (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: 'a b', json_pointer: /a}",
        "implicit_errors[0].name: \"a b\" is not a name; expected 1 to 64 of the characters A-Z, a-z, 0-9, _, . and - (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, json_pointer: /a}\n  - {name: a, json_pointer: /b}",
        "implicit_errors[1].name: \"a\" is the name of implicit_errors[0] too; expected each once (golden.yaml:3)",
    ),
    (
        "implicit_errors:\n  - {name: a}",
        "implicit_errors[0]: says nothing of the answer; expected one of json_pointer, header, content_type_not, body_contains and length_mismatch (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, header: }",
        "implicit_errors[0]: says nothing of the answer; expected one of json_pointer, header, content_type_not, body_contains and length_mismatch (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, json_pointer: /a, body_contains: b}",
        "implicit_errors[0]: found json_pointer and body_contains; expected one of json_pointer, header, content_type_not, body_contains and length_mismatch in each rule (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, json_pointer: errors}",
        "implicit_errors[0].json_pointer: \"errors\" is not a JSON pointer; expected one such as /errors/0, with ~0 for ~ and ~1 for / (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, json_pointer: ''}",
        "implicit_errors[0].json_pointer: \"\" is not a JSON pointer; expected one such as /errors/0, with ~0 for ~ and ~1 for / (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, json_pointer: /a~2}",
        "implicit_errors[0].json_pointer: \"/a~2\" is not a JSON pointer; expected one such as /errors/0, with ~0 for ~ and ~1 for / (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, header: X-Error}",
        "implicit_errors[0].header: found \"X-Error\"; expected a map of keys (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, header: {value: x}}",
        "implicit_errors[0].header.name: missing; expected the name of a field such as X-Error (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, header: {name: 'X-Error:'}}",
        "implicit_errors[0].header.name: \"X-Error:\" is not the name of a field such as X-Error; expected letters, digits and - (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, header: {name: X-Error, value: \"a\\nb\"}}",
        "implicit_errors[0].header.value: \"a\\nb\" holds control characters, which no field does; expected a text (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, content_type_not: json}",
        "implicit_errors[0].content_type_not: \"json\" is not a media type; expected one without parameters such as application/json (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, content_type_not: 'text/html; charset=utf-8'}",
        "implicit_errors[0].content_type_not: \"text/html; charset=utf-8\" is not a media type; expected one without parameters such as application/json (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, body_contains: ''}",
        "implicit_errors[0].body_contains: is empty, which every body contains; expected a text (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, length_mismatch: 'X Length'}",
        "implicit_errors[0].length_mismatch: \"X Length\" is not the name of a field such as X-Error; expected letters, digits and - (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, length_mismatch: content-length}",
        "implicit_errors[0].length_mismatch: \"content-length\" frames the body, so one that differs is an error of its own already; expected a field of the application's own such as X-Length (golden.yaml:2)",
    ),
    (
        "implicit_errors:\n  - {name: a, routes: [graphql], json_pointer: /a}",
        "implicit_errors[0].routes[0]: \"graphql\" is not a path; expected one that starts with / and is percent-encoded like in a request (golden.yaml:2)",
    ),
    (
        "saturation:\n  backend:\n    cpu_limt: 2",
        "saturation.backend.cpu_limt: unknown key; did you mean saturation.backend.cpu_limit? (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, prot: 5432}",
        "saturation.pools[0].prot: unknown key; did you mean saturation.pools[0].port? (golden.yaml:3)",
    ),
    // Shapes.
    ("timeouts: 5s", "timeouts: found \"5s\"; expected a map of keys (golden.yaml:1)"),
    ("- via", "config: found a list; expected a map of keys (golden.yaml:1)"),
    ("via: [true]", "via: found a list; expected one value (golden.yaml:1)"),
    (
        "drain:\n  grace:",
        "drain.grace: found no value; expected one value, or remove the key to have the default (golden.yaml:2)",
    ),
    (
        "routes:\n  path: /a",
        "routes: found a map; expected a list of maps with the keys path, methods and buckets (golden.yaml:2)",
    ),
    ("probes:\n  paths: /healthz", "probes.paths: found \"/healthz\"; expected a list such as [a, b] (golden.yaml:2)"),
    ("probes:\n  paths: [[/healthz]]", "probes.paths[0]: found a list; expected one value (golden.yaml:2)"),
    (
        "timeouts: {head: 5s\nvia: true",
        "config: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}' (golden.yaml:2)",
    ),
    (
        "via: true\n---\nvia: false",
        "config: not valid YAML: only single YAML document expected but multiple found (golden.yaml:3)",
    ),
    // Numbers and units.
    (
        "timeouts:\n  connect: 5",
        "timeouts.connect: \"5\" has no unit; expected a duration such as 250ms, 5s or 2m (golden.yaml:2)",
    ),
    (
        "timeouts:\n  connect: 1.5s",
        "timeouts.connect: \"1.5s\" is not a duration; expected a duration such as 250ms, 5s or 2m (golden.yaml:2)",
    ),
    ("timeouts:\n  connect: 0s", "timeouts.connect: \"0s\" is too short; expected more than 0s (golden.yaml:2)"),
    (
        "timeouts:\n  connect: -1s",
        "timeouts.connect: \"-1s\" is not a duration; expected a duration such as 250ms, 5s or 2m (golden.yaml:2)",
    ),
    (
        "drain:\n  timeout: 99999h",
        "drain.timeout: \"99999h\" is too long; expected a duration such as 250ms, 5s or 2m, at most 8760h (golden.yaml:2)",
    ),
    ("readiness:\n  interval: 1ms", "readiness.interval: \"1ms\" is out of range; expected 10ms to 1h (golden.yaml:2)"),
    ("workers: 0", "workers: \"0\" is out of range; expected a whole number from 1 to 1024 or auto (golden.yaml:1)"),
    (
        "workers: many",
        "workers: \"many\" is not a whole number; expected a whole number from 1 to 1024 or auto (golden.yaml:1)",
    ),
    (
        "limits:\n  connections: 0",
        "limits.connections: \"0\" is out of range; expected a whole number from 1 to 100000000 (golden.yaml:2)",
    ),
    (
        "limits:\n  inflight: 0",
        "limits.inflight: \"0\" is out of range; expected a whole number from 1 to 100000000 or none (golden.yaml:2)",
    ),
    (
        "limits:\n  streams: 1e3",
        "limits.streams: \"1e3\" is not a whole number; expected a whole number from 1 to 1073741824 (golden.yaml:2)",
    ),
    (
        "limits:\n  head_bytes: 64",
        "limits.head_bytes: \"64\" has no unit; expected a size such as 512B, 64KiB or 1MB (golden.yaml:2)",
    ),
    (
        "limits:\n  head_bytes: 512B",
        "limits.head_bytes: \"512B\" is out of range; expected 1KiB to 1MiB (golden.yaml:2)",
    ),
    (
        "limits:\n  head_bytes: 2MiB",
        "limits.head_bytes: \"2MiB\" is out of range; expected 1KiB to 1MiB (golden.yaml:2)",
    ),
    (
        "limits:\n  head_bytes: 64kb",
        "limits.head_bytes: \"64kb\" is not a size; expected a size such as 512B, 64KiB or 1MB (golden.yaml:2)",
    ),
    (
        "limits:\n  head_bytes: 8KiB\n  request_line_bytes: 9KiB",
        "limits.request_line_bytes: \"9KiB\" exceeds limits.head_bytes (8KiB); expected at most that (golden.yaml:3)",
    ),
    (
        "limits:\n  request_body_bytes: 0B",
        "limits.request_body_bytes: \"0B\" is out of range; expected at least 1B, or none (golden.yaml:2)",
    ),
    ("via: yes", "via: \"yes\" is not a boolean; expected true or false (golden.yaml:1)"),
    // Addresses.
    (
        "listen: '8000'",
        "listen: \"8000\" is not an address; expected ADDRESS:PORT, for example 127.0.0.1:9090, or unix:/PATH (golden.yaml:1)",
    ),
    (
        "listen: example.com:8000",
        "listen: \"example.com:8000\" is not an address; expected ADDRESS:PORT, for example 127.0.0.1:9090, or unix:/PATH (golden.yaml:1)",
    ),
    (
        "admin: 127.0.0.1:8000",
        "admin: 127.0.0.1:8000 has the port of listen (0.0.0.0:8000); expected another port (golden.yaml:1)",
    ),
    (
        "listen: 0.0.0.0:9900",
        "listen: 0.0.0.0:9900 has the port of admin (0.0.0.0:9900); expected another port (golden.yaml:1)",
    ),
    (
        "forwarded: prepend",
        "forwarded: \"prepend\" is not a policy; expected append, replace or trust: [10.0.0.0/8] (golden.yaml:1)",
    ),
    (
        "forwarded: {trust: []}",
        "forwarded.trust: found no network; expected at least one, or forwarded: replace to trust nobody (golden.yaml:1)",
    ),
    (
        "forwarded: {trust: [10.0.0.0/33]}",
        "forwarded.trust[0]: \"10.0.0.0/33\" has no valid prefix; expected /0 to /32 (golden.yaml:1)",
    ),
    (
        "forwarded: {trust: [10.1.2.3/8]}",
        "forwarded.trust[0]: \"10.1.2.3/8\" has bits set after its prefix; expected an address block such as 10.0.0.0/8 or fd00::/8 (golden.yaml:1)",
    ),
    (
        "forwarded: {trust: [localnet]}",
        "forwarded.trust[0]: \"localnet\" is not a network; expected an address block such as 10.0.0.0/8 or fd00::/8 (golden.yaml:1)",
    ),
    // Buckets.
    ("buckets: []", "buckets: found 0 edges; expected 1 to 100 (golden.yaml:1)"),
    ("buckets: [0.1, 0.5, 0.5]", "buckets: 0.5 follows 0.5; expected edges that increase (golden.yaml:1)"),
    ("buckets: [0, 1]", "buckets[0]: \"0\" is not an edge; expected seconds above 0, for example 0.25 (golden.yaml:1)"),
    (
        "buckets: [1, .inf]",
        "buckets[1]: \".inf\" is not an edge; expected seconds above 0, for example 0.25 (golden.yaml:1)",
    ),
    (
        "buckets: [1, fast]",
        "buckets[1]: \"fast\" is not an edge; expected seconds above 0, for example 0.25 (golden.yaml:1)",
    ),
    // Paths and routes.
    (
        "probes:\n  paths: [healthz]",
        "probes.paths[0]: \"healthz\" is not a path; expected one that starts with / and is percent-encoded like in a request (golden.yaml:2)",
    ),
    (
        "probes:\n  paths: ['/healthz?full']",
        "probes.paths[0]: \"/healthz?full\" has a query; expected a path without one (golden.yaml:2)",
    ),
    (
        "probes:\n  user_agents: ['']",
        "probes.user_agents[0]: \"\" is not a prefix of a user agent; expected visible ASCII (golden.yaml:2)",
    ),
    (
        "readiness:\n  path: health",
        "readiness.path: \"health\" is not a path; expected one that starts with / and is percent-encoded like in a request, or none for a TCP connect (golden.yaml:2)",
    ),
    (
        "readiness:\n  grpc: shop carts",
        "readiness.grpc: \"shop carts\" is not the name of a service; expected one such as shop.Carts, * or none (golden.yaml:2)",
    ),
    (
        "readiness:\n  grpc: shop.Carts",
        "readiness.grpc: asks over HTTP/2, which \"http://127.0.0.1:8080\" does not speak; expected an upstream of h2c or https (golden.yaml:2)",
    ),
    (
        "readiness:\n  path: /healthz\n  grpc: '*'",
        "readiness.grpc: stands beside readiness.path; expected one of them (golden.yaml:3)",
    ),
    ("dns:\n  refresh: 1ms", "dns.refresh: \"1ms\" is out of range; expected 10ms to 1h (golden.yaml:2)"),
    ("routes:\n  - methods: [GET]", "routes[0].path: missing; expected a template such as /users/{id} (golden.yaml:2)"),
    (
        "routes:\n  - path: users/{id}",
        "routes[0].path: \"users/{id}\" is not a path; expected one that starts with / and is percent-encoded like in a request (golden.yaml:2)",
    ),
    (
        "routes:\n  - path: /users/{id",
        "routes[0].path: \"/users/{id\" is not a template; expected parameters such as /users/{id} or /files/{*rest} (golden.yaml:2)",
    ),
    (
        "routes:\n  - path: /users/{}",
        "routes[0].path: \"/users/{}\" is not a template; expected parameters such as /users/{id} or /files/{*rest} (golden.yaml:2)",
    ),
    (
        "routes:\n  - path: /{*rest}/x",
        "routes[0].path: \"/{*rest}/x\" has a catch-all inside; expected {*rest} at the end only, after a slash (golden.yaml:2)",
    ),
    (
        "routes:\n  - path: /{a}-{b}",
        "routes[0].path: \"/{a}-{b}\" has two parameters in one segment; expected at most one between slashes (golden.yaml:2)",
    ),
    (
        "routes:\n  - path: /x/*",
        "routes[0].path: \"/x/*\" holds a * outside of {*name}; expected {name} for one segment or {*rest} for all that follow (golden.yaml:2)",
    ),
    (
        "routes:\n  - path: '/{a}/*/{*rest}'",
        "routes[0].path: \"/{a}/*/{*rest}\" holds a * outside of {*name}; expected {name} for one segment or {*rest} for all that follow (golden.yaml:2)",
    ),
    (
        "routes:\n  - path: /a{b*}",
        "routes[0].path: \"/a{b*}\" holds a * outside of {*name}; expected {name} for one segment or {*rest} for all that follow (golden.yaml:2)",
    ),
    (
        "routes:\n  - path: /y/:id",
        "routes[0].path: \"/y/:id\" has a segment that begins with a colon; expected {id} instead of :id (golden.yaml:2)",
    ),
    (
        "routes:\n  - path: /y/:user_id.json/z",
        "routes[0].path: \"/y/:user_id.json/z\" has a segment that begins with a colon; expected {user_id}.json instead of :user_id.json (golden.yaml:2)",
    ),
    (
        "routes:\n  - path: '/:'",
        "routes[0].path: \"/:\" has a segment that begins with a colon; expected {id} instead of : (golden.yaml:2)",
    ),
    (
        "routes:\n  - path: /a\n    methods: [get]",
        "routes[0].methods[0]: \"get\" is not a known method; expected GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH, QUERY (golden.yaml:3)",
    ),
    (
        "routes:\n  - path: /a\n    methods: []",
        "routes[0].methods: found no method; expected at least one, or remove the key for all (golden.yaml:3)",
    ),
    (
        "routes:\n  - path: /a\n    methods: [GET, GET]",
        "routes[0].methods: GET is listed twice; expected once (golden.yaml:3)",
    ),
    (
        "routes:\n  - path: /a\n    buckets: [2, 1]",
        "routes[0].buckets: 1 follows 2; expected edges that increase (golden.yaml:3)",
    ),
    (
        "routes:\n  - path: /u/{id}\n  - path: /u/{name}",
        "routes[1].path: \"/u/{name}\" is the same route as \"/u/{id}\" for all methods; expected each template once per method (golden.yaml:3)",
    ),
    (
        "routes:\n  - {path: '/u/{id}', methods: [GET, PUT]}\n  - {path: '/u/{name}', methods: [POST, PUT]}",
        "routes[1].path: \"/u/{name}\" is the same route as \"/u/{id}\" for PUT; expected each template once per method (golden.yaml:3)",
    ),
    (
        "routes:\n  - {path: '/u/{id}', methods: [GET]}\n  - {path: '/u/{id}'}",
        "routes[1].path: \"/u/{id}\" is the same route as \"/u/{id}\" for GET; expected each template once per method (golden.yaml:3)",
    ),
    (
        "routes:\n  - path: /f/{id}\n  - path: '/f/{*rest}'",
        "routes[1].path: \"/f/{*rest}\" and \"/f/{id}\" exclude each other; expected templates of which one is more specific (golden.yaml:3)",
    ),
    // The backend.
    (
        "saturation:\n  backend:\n    pid: 0",
        "saturation.backend.pid: \"0\" is out of range; expected a whole number from 1 to 4194304 or none (golden.yaml:3)",
    ),
    (
        "saturation:\n  backend:\n    pid: nginx",
        "saturation.backend.pid: \"nginx\" is not a whole number; expected a whole number from 1 to 4194304 or none (golden.yaml:3)",
    ),
    (
        "saturation:\n  backend:\n    pid_file: ''",
        "saturation.backend.pid_file: \"\" is not a path; expected one such as /run/app.pid, or none (golden.yaml:3)",
    ),
    (
        "saturation:\n  backend:\n    pid_file: app.pid\n    pid: 7",
        "saturation.backend.pid_file: given beside saturation.backend.pid; expected one of the two, or none for the other (golden.yaml:3)",
    ),
    (
        "saturation:\n  backend:\n    cgroup: /a/../b",
        "saturation.backend.cgroup: \"/a/../b\" is not a cgroup; expected a folder such as /system.slice/app.service, or none (golden.yaml:3)",
    ),
    (
        "saturation:\n  backend:\n    cgroup: app.service",
        "saturation.backend.cgroup: \"app.service\" is not a cgroup; expected a folder such as /system.slice/app.service, or none (golden.yaml:3)",
    ),
    (
        "saturation:\n  backend:\n    cpu_limit: 1500",
        "saturation.backend.cpu_limit: \"1500\" is out of range; expected at most 1024 cores, or none; millicores need an m (golden.yaml:3)",
    ),
    (
        "saturation:\n  backend:\n    cpu_limit: 1024001m",
        "saturation.backend.cpu_limit: \"1024001m\" is out of range; expected at most 1024 cores, or none (golden.yaml:3)",
    ),
    (
        "saturation:\n  backend:\n    cpu_limit: 0.0",
        "saturation.backend.cpu_limit: \"0.0\" is out of range; expected at least 0.001 cores, or none (golden.yaml:3)",
    ),
    (
        "saturation:\n  backend:\n    cpu_limit: 2 cores",
        "saturation.backend.cpu_limit: \"2 cores\" is not a number of cores; expected cores such as 1.5 or millicores such as 1500m, or none (golden.yaml:3)",
    ),
    (
        "saturation:\n  backend:\n    memory_limit: 512Mo",
        "saturation.backend.memory_limit: \"512Mo\" is not a size; expected a size such as 512B, 64KiB or 1MB, or none (golden.yaml:3)",
    ),
    (
        "saturation:\n  backend:\n    memory_limit: 0",
        "saturation.backend.memory_limit: \"0\" is out of range; expected bytes, or a size such as 512B, 64KiB or 1MB, at least 1B, or none (golden.yaml:3)",
    ),
    (
        "saturation:\n  backend:\n    memory_limit: 99999999999999999999",
        "saturation.backend.memory_limit: \"99999999999999999999\" is too large; expected bytes, or a size such as 512B, 64KiB or 1MB, or none (golden.yaml:3)",
    ),
    // Pools.
    (
        "saturation:\n  pools: {name: db}",
        "saturation.pools: found a map; expected a list of maps with the keys name, port, address, url, preset, used, idle, limit, waiting, timeouts and labels (golden.yaml:2)",
    ),
    (
        "saturation:\n  pools:\n    - port: 5432",
        "saturation.pools[0].name: missing; expected a name such as db (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - port: 5432\n      name: a b",
        "saturation.pools[0].name: \"a b\" is not a name; expected 1 to 64 of the characters A-Z, a-z, 0-9, _, . and - (golden.yaml:4)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, port: 1}\n    - {name: cache, port: 2}\n    - {name: db, port: 3}",
        "saturation.pools[2].name: \"db\" is the name of saturation.pools[0] too; expected each once (golden.yaml:5)",
    ),
    (
        "saturation:\n  pools:\n    - name: db",
        "saturation.pools[0]: does not say where the pool is; expected one of port, address and url (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, port: 1, url: 'http://a/'}",
        "saturation.pools[0]: says twice where the pool is; expected one of port, address and url (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, port: 0}",
        "saturation.pools[0].port: \"0\" is out of range; expected a whole number from 1 to 65535 (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, address: db.example.com:5432}",
        "saturation.pools[0].address: \"db.example.com:5432\" is not an address; expected ADDRESS:PORT, for example 127.0.0.1:9090 (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, address: 10.0.0.5:0}",
        "saturation.pools[0].address: has port 0; expected that of the server (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, port: 5432, limit: ten}",
        "saturation.pools[0].limit: \"ten\" is not a whole number; expected a whole number from 1 to 100000000 (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - name: db\n      port: 5432\n      preset: hikaricp",
        "saturation.pools[0].preset: has no meaning without url; remove it (golden.yaml:5)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, url: 'https://127.0.0.1/metrics', preset: hikaricp}",
        "saturation.pools[0].url: \"https://127.0.0.1/metrics\" uses https, which is not built yet in this version; expected http://HOST:PORT/PATH, for example http://127.0.0.1:8080/metrics (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, url: '127.0.0.1/metrics', preset: hikaricp}",
        "saturation.pools[0].url: \"127.0.0.1/metrics\" has no scheme; expected http://HOST:PORT/PATH, for example http://127.0.0.1:8080/metrics (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, url: 'http://app:x/metrics', preset: hikaricp}",
        "saturation.pools[0].url: \"http://app:x/metrics\" has no valid port; expected http://HOST:PORT/PATH, for example http://127.0.0.1:8080/metrics (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, url: 'http://app/pool metrics', preset: hikaricp}",
        "saturation.pools[0].url: \"http://app/pool metrics\" is not percent-encoded like in a request; expected http://HOST:PORT/PATH, for example http://127.0.0.1:8080/metrics (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, url: 'http://app/', preset: hikari}",
        "saturation.pools[0].preset: \"hikari\" is not a preset; expected one of hikaricp, tomcat, tomcat-jdbc, go-sql, sqlalchemy, psycopg_pool, node-postgres, pgbouncer, otel (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, url: 'http://app/', idle: /idle}",
        "saturation.pools[0].used: missing; expected what to read, such as active{pool=\"db\"} or /db/active, or a preset (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - name: db\n      url: http://app/\n      used: /total-/idle +",
        "saturation.pools[0].used: \"/total-/idle +\" has \" +\" where a + or - with spaces around it belongs; expected series such as active{pool=\"db\"} or JSON pointers such as /db/active, with + or - between them (golden.yaml:5)",
    ),
    (
        "saturation:\n  pools:\n    - name: db\n      url: http://app/\n      preset: hikaricp\n      limit: /max",
        "saturation.pools[0]: mixes JSON pointers and series; expected one of the two, since it is one page (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - name: db\n      url: http://app/\n      used: /a + b",
        "saturation.pools[0].used: \"/a + b\" mixes JSON pointers and series; expected one of the two (golden.yaml:5)",
    ),
    (
        "saturation:\n  pools:\n    - {name: db, url: 'http://app/', preset: hikaricp, limit: 0}",
        "saturation.pools[0].limit: \"0\" is out of range; expected a whole number from 1 to 100000000 or an expression (golden.yaml:3)",
    ),
    (
        "saturation:\n  pools:\n    - name: db\n      url: http://app/\n      preset: hikaricp\n      labels: HikariPool-1",
        "saturation.pools[0].labels: \"HikariPool-1\" has no = or != after HikariPool; expected labels such as pool=\"db\", with commas between them (golden.yaml:6)",
    ),
    (
        "saturation:\n  pools:\n    - name: db\n      url: http://app/\n      preset: psycopg_pool\n      labels: pool=\"a\"",
        "saturation.pools[0].labels: has no series to hold for; expected none with JSON pointers (golden.yaml:6)",
    ),
    // A command, and the backend's metrics.
    (
        "command:\n  restart: sometimes",
        "command.restart: \"sometimes\" is not a time to restart; expected never, on-failure or always (golden.yaml:2)",
    ),
    (
        "backend_metrics:\n  url: unix:/run/app.sock",
        "backend_metrics.url: \"unix:/run/app.sock\" has no scheme; expected http://HOST:PORT/PATH, for example http://127.0.0.1:8080/metrics, or none (golden.yaml:2)",
    ),
    (
        "backend_metrics:\n  url: ftp://app/metrics",
        "backend_metrics.url: \"ftp://app/metrics\" has an unknown scheme; expected http://HOST:PORT/PATH, for example http://127.0.0.1:8080/metrics, or none (golden.yaml:2)",
    ),
    (
        "backend_metrics:\n  include: yes",
        "backend_metrics.include: \"yes\" is not a boolean; expected true or false (golden.yaml:2)",
    ),
    (
        "backend_metrics:\n  size: 65MiB",
        "backend_metrics.size: \"65MiB\" is out of range; expected 1KiB to 64MiB (golden.yaml:2)",
    ),
    (
        "backend_metrics:\n  timeout: 0s",
        "backend_metrics.timeout: \"0s\" is too short; expected more than 0s (golden.yaml:2)",
    ),
    // TLS, sockets, the PROXY protocol.
    (
        "tls:\n  certificate: a.pem",
        "tls.certificate: given without tls.key; expected both or none of the two (golden.yaml:2)",
    ),
    ("tls: {key: a.key}", "tls.key: given without tls.certificate; expected both or none of the two (golden.yaml:1)"),
    ("tls: {key: ''}", "tls.key: \"\" is not a path; expected one such as key.pem, or none (golden.yaml:1)"),
    (
        "tls: {client_ca: ca.pem}",
        "tls.client_ca: has no meaning without tls.certificate; expected that too (golden.yaml:1)",
    ),
    (
        "tls: {client_auth: optional}",
        "tls.client_auth: has no meaning without tls.certificate; expected that too (golden.yaml:1)",
    ),
    (
        "tls: {certificate: a, key: b, client_auth: required}",
        "tls.client_auth: asks clients for certificates and accepts none; expected tls.client_ca too (golden.yaml:1)",
    ),
    (
        "tls: {certificate: a, key: b, client_ca: c, client_auth: maybe}",
        "tls.client_auth: \"maybe\" is not a rule for clients; expected none, optional or required (golden.yaml:1)",
    ),
    (
        "admin_tls: {client_ca: ca.pem}",
        "admin_tls.client_ca: has no meaning without admin_tls.certificate; expected that too (golden.yaml:1)",
    ),
    (
        "admin_tls: {client_auth: none}",
        "admin_tls.client_auth: unknown key; did you mean tls.client_auth? (golden.yaml:1)",
    ),
    (
        "upstream_tls: {verify: false}",
        "upstream_tls.verify: has no meaning with the upstream \"http://127.0.0.1:8080\"; expected https://HOST:PORT there (golden.yaml:1)",
    ),
    (
        "upstream_tls: {server_name: 'a b'}",
        "upstream_tls.server_name: \"a b\" is not the name of a host; expected one such as api.internal or 10.0.0.5, or none (golden.yaml:1)",
    ),
    (
        "upstream_tls: {key: a.key}",
        "upstream_tls.key: given without upstream_tls.certificate; expected both or none of the two (golden.yaml:1)",
    ),
    ("proxy_protocol: v2", "proxy_protocol: \"v2\" is not a boolean; expected true or false (golden.yaml:1)"),
    (
        "listen: 'unix:proxy.sock'",
        "listen: \"unix:proxy.sock\" has no absolute path; expected unix:/PATH of a socket (golden.yaml:1)",
    ),
];

/// Variables, under a given upstream.
const BAD_VARIABLES: &[(&str, &str, &str)] = &[
    ("GOLDEN_LISTN", "0.0.0.0:1", "GOLDEN_LISTN: unknown variable; did you mean GOLDEN_LISTEN?"),
    (
        "GOLDEN_LISTEN",
        "nowhere",
        "listen: \"nowhere\" is not an address; expected ADDRESS:PORT, for example 127.0.0.1:9090, or unix:/PATH (environment GOLDEN_LISTEN)",
    ),
    (
        "GOLDEN_TIMEOUTS_CONNECT",
        "5",
        "timeouts.connect: \"5\" has no unit; expected a duration such as 250ms, 5s or 2m (environment GOLDEN_TIMEOUTS_CONNECT)",
    ),
    (
        "GOLDEN_PROBES_PATHS",
        "/healthz,readyz",
        "probes.paths[1]: \"readyz\" is not a path; expected one that starts with / and is percent-encoded like in a request (environment GOLDEN_PROBES_PATHS)",
    ),
    ("GOLDEN_ROUTES", "/a", "GOLDEN_ROUTES: cannot be set by a variable; put routes into the file"),
    (
        "GOLDEN_SATURATION_POOLS",
        "db",
        "GOLDEN_SATURATION_POOLS: cannot be set by a variable; put saturation.pools into the file",
    ),
    (
        "GOLDEN_SATURATION_BACKEND_CPU_LIMIT",
        "2000",
        "saturation.backend.cpu_limit: \"2000\" is out of range; expected at most 1024 cores, or none; millicores need an m (environment GOLDEN_SATURATION_BACKEND_CPU_LIMIT)",
    ),
    ("GOLDEN_SLOS", "5", "GOLDEN_SLOS: cannot be set by a variable; put slos into the file"),
    (
        "GOLDEN_IMPLICIT_ERRORS",
        "/errors/0",
        "GOLDEN_IMPLICIT_ERRORS: cannot be set by a variable; put implicit_errors into the file",
    ),
    (
        "GOLDEN_LEARN_LIMIT",
        "5.5",
        "learn.limit: \"5.5\" is not a whole number; expected a whole number from 1 to 10000 (environment GOLDEN_LEARN_LIMIT)",
    ),
    (
        "GOLDEN_OPENAPI",
        "a.yaml,,b.yaml",
        "openapi[1]: \"\" is not a path; expected one such as openapi.yaml, or a URL (environment GOLDEN_OPENAPI)",
    ),
    (
        "GOLDEN_CONFIG",
        "missing.yaml",
        "config: cannot read \"missing.yaml\": No such file or directory (os error 2) (environment GOLDEN_CONFIG)",
    ),
];

/// Flags alone.
const BAD_FLAGS: &[(&[&str], &str)] = &[
    (&[], "upstream: missing; expected http://HOST:PORT, given as --upstream, GOLDEN_UPSTREAM or a key of the file"),
    (
        &["--upstream=tcp://127.0.0.1:5432"],
        "upstream: \"tcp://127.0.0.1:5432\" is not HTTP, and only HTTP can be measured; expected http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH, for example http://127.0.0.1:8080 (flag --upstream)",
    ),
    (
        &["--upstream=unix:app.sock"],
        "upstream: \"unix:app.sock\" has no absolute path; expected unix:/PATH of a socket (flag --upstream)",
    ),
    (
        &["--upstream=ftp://example.com"],
        "upstream: \"ftp://example.com\" has an unknown scheme; expected http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH, for example http://127.0.0.1:8080 (flag --upstream)",
    ),
    (
        &["--upstream=127.0.0.1:8080"],
        "upstream: \"127.0.0.1:8080\" has no scheme; expected http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH, for example http://127.0.0.1:8080 (flag --upstream)",
    ),
    (
        &["--upstream=http://"],
        "upstream: \"http://\" has no valid host; expected http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH, for example http://127.0.0.1:8080 (flag --upstream)",
    ),
    (
        &["--upstream=http://a b"],
        "upstream: \"http://a b\" has no valid host; expected http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH, for example http://127.0.0.1:8080 (flag --upstream)",
    ),
    (
        &["--upstream=http://example.com:0"],
        "upstream: \"http://example.com:0\" has no valid port; expected http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH, for example http://127.0.0.1:8080 (flag --upstream)",
    ),
    (
        &["--upstream=http://example.com:99999"],
        "upstream: \"http://example.com:99999\" has no valid port; expected http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH, for example http://127.0.0.1:8080 (flag --upstream)",
    ),
    (
        &["--upstream=http://[::1:80"],
        "upstream: \"http://[::1:80\" has a bracket that is not closed; expected http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH, for example http://127.0.0.1:8080 (flag --upstream)",
    ),
    (
        &["--upstream=http://example.com/api"],
        "upstream: \"http://example.com/api\" has a path; expected http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH, for example http://127.0.0.1:8080, since paths are passed on as they come (flag --upstream)",
    ),
    (
        &["--upstream=http://admin:hunter2@example.com"],
        "upstream: \"http://***@example.com\" holds user information, which the sidecar does not send; expected http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH, for example http://127.0.0.1:8080 (flag --upstream)",
    ),
    (
        &["--upstream=http://localhost:8000"],
        "upstream: \"http://localhost:8000\" is our own listen address (0.0.0.0:8000), so requests would go round in a loop; expected the backend's (flag --upstream)",
    ),
    (
        &["--upstream=http://127.0.0.1:9900"],
        "upstream: \"http://127.0.0.1:9900\" is our own admin address (0.0.0.0:9900), so requests would go round in a loop; expected the backend's (flag --upstream)",
    ),
    (
        &[UPSTREAM, "--workers=2000"],
        "workers: \"2000\" is out of range; expected a whole number from 1 to 1024 or auto (flag --workers)",
    ),
    (
        &[UPSTREAM, "--inflight=-1"],
        "limits.inflight: \"-1\" is not a whole number; expected a whole number from 1 to 100000000 or none (flag --inflight)",
    ),
    (
        &[UPSTREAM, "--drain-grace=soon"],
        "drain.grace: \"soon\" is not a duration; expected a duration such as 250ms, 5s or 2m (flag --drain-grace)",
    ),
    (
        &[UPSTREAM, "--config=missing.yaml"],
        "config: cannot read \"missing.yaml\": No such file or directory (os error 2) (flag --config)",
    ),
    (
        &[UPSTREAM, "--backend-pid=7", "--backend-pid-file=app.pid"],
        "saturation.backend.pid_file: given beside saturation.backend.pid; expected one of the two, or none for the other (flag --backend-pid-file)",
    ),
    (
        &[UPSTREAM, "--backend-memory-limit=much"],
        "saturation.backend.memory_limit: \"much\" is not a size; expected a size such as 512B, 64KiB or 1MB, or none (flag --backend-memory-limit)",
    ),
    (
        &[UPSTREAM, "--restart=always"],
        "command.restart: has no meaning without a command; expected -- COMMAND ARGS at the end, or no --restart (flag --restart)",
    ),
    (
        &["--upstream=unix:/run/app.sock", "--listen=unix:/run/app.sock"],
        "upstream: \"unix:/run/app.sock\" is our own listen address (unix:/run/app.sock), so requests would go round in a loop; expected the backend's (flag --upstream)",
    ),
    (&[UPSTREAM, "--"], "--: found no command after it; expected COMMAND ARGS, or no --"),
    (&[UPSTREAM, "--", "", "x"], "--: found no command after it; expected COMMAND ARGS, or no --"),
    (&[UPSTREAM, "--config=."], "config: cannot read \".\": Is a directory (os error 21) (flag --config)"),
];

#[test]
fn bad_files_are_refused_with_one_sentence() {
    for (file, sentence) in BAD_FILES {
        refused(Some(file), &[], &[UPSTREAM], sentence);
    }
}

#[test]
fn bad_variables_are_refused_with_one_sentence() {
    for (name, value, sentence) in BAD_VARIABLES {
        refused(None, &[(name, value)], &[UPSTREAM], sentence);
    }
}

#[test]
fn bad_flags_are_refused_with_one_sentence() {
    for (args, sentence) in BAD_FLAGS {
        refused(None, &[], args, sentence);
    }
}

#[test]
fn two_policies_in_the_environment_are_refused() {
    refused(
        None,
        &[("GOLDEN_FORWARDED", "replace"), ("GOLDEN_FORWARDED_TRUST", "10.0.0.0/8")],
        &[UPSTREAM],
        "forwarded: given by GOLDEN_FORWARDED and by environment GOLDEN_FORWARDED_TRUST at once; expected one of them",
    );
}

#[test]
fn a_flag_before_and_after_check_is_refused() {
    let output = run(None, &[], &[UPSTREAM, "--workers=1", "check", "--workers=2"]);
    assert_eq!(text(&output.stderr), "--workers: given before and after the command; expected once\n");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn files_that_are_no_text_or_too_large_are_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for (name, content, problem) in [
        ("binary", vec![0xff, 0xfe, 0x00], "is not a text in UTF-8; expected a YAML file"),
        ("large", vec![b'#'; (4 << 20) + 1], "is too large; expected at most 4MiB"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("write the file");
        let path = path.to_str().expect("UTF-8");
        let failure = load(&[UPSTREAM, "--config", path], &[]).expect_err(name);
        assert_eq!(failure.text, format!("config: \"{path}\" {problem} (flag --config)\n"));
    }
}

// === defaults and precedence ===

/// The contract's defaults, spelled out once more so that changing one is seen.
const DEFAULTS: &str = "\
upstream: http://127.0.0.1:8080  # from flag --upstream
listen: 0.0.0.0:8000
admin: 0.0.0.0:9900
admin_auth:
  token: none
  token_file: none
  username: none
  password: none
  password_file: none
admin_hosts: []
workers: 3  # from flag --workers
tls:
  certificate: none
  key: none
  client_ca: none
  client_auth: none
upstream_tls:
  ca: none
  server_name: none
  certificate: none
  key: none
  verify: true
admin_tls:
  certificate: none
  key: none
  client_ca: none
proxy_protocol: false
timeouts:
  client_head: 10s
  client_body: 30s
  client_idle: 75s
  connect: 1s
  pool_wait: 5s
  head: 1m
  body: 1m
  upstream_idle: 1m
  upstream_age: 10m
limits:
  connections: 10000
  head_bytes: 64KiB
  headers: 100
  request_line_bytes: 16KiB
  request_body_bytes: none
  streams: 256
  inflight: none
  upstream_connections: 512
  upstream_waiting: 1024
  series: 2000
  series_idle: none
  metrics_memory: 64MiB
drain:
  grace: 5s
  timeout: 30s
  last_scrape: 0s
dns:
  refresh: 10s
routes: []
openapi: []
learn:
  enabled: true
  limit: 100
  state: none
buckets: [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
slos:
  - name: all
    objective: 0.999
implicit_errors: []
created: true
probes:
  paths: [/healthz, /readyz, /livez]
  user_agents: [kube-probe/]
readiness:
  path: none
  grpc: none
  interval: 1s
saturation:
  interval: 1s
  backend:
    pid: none
    pid_file: none
    cgroup: none
    cpu_limit: none
    memory_limit: none
  pools: []
command:
  restart: never
backend_metrics:
  url: none
  include: false
  size: 4MiB
  timeout: 1s
forwarded: append
via: false
";

#[test]
fn defaults_are_those_of_the_contract() {
    assert_eq!(check(None, &[], &[UPSTREAM, "--workers=3"]), DEFAULTS);
    let cores = std::thread::available_parallelism().expect("a number of cores");
    assert_eq!(loaded(&[UPSTREAM], &[]).config.workers, cores.get());
    assert!(check(None, &[], &[UPSTREAM]).contains(&format!("\nworkers: auto  # {cores} here\n")));
}

#[test]
fn flag_wins_over_environment_over_file_over_default() {
    let file = Some("upstream: http://file:1\ntimeouts:\n  connect: 2s\ndrain: {grace: 2s, timeout: 2s}\n");
    let env = [("GOLDEN_TIMEOUTS_CONNECT", "3s"), ("GOLDEN_DRAIN_GRACE", "3s")];
    let shown = check(file, &env, &["--connect-timeout=4s"]);
    for line in [
        "upstream: http://file:1  # from file\n",
        "  connect: 4s  # from flag --connect-timeout\n",
        "  grace: 3s  # from environment GOLDEN_DRAIN_GRACE\n",
        "  timeout: 2s  # from file\n",
        "  last_scrape: 0s\n",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
}

#[test]
fn a_mistake_that_a_stronger_source_covers_does_not_matter_but_an_unknown_name_does() {
    assert!(check(Some("via: maybe"), &[("GOLDEN_VIA", "true")], &[UPSTREAM]).contains("via: true"));
    refused(
        Some("vai: maybe"),
        &[("GOLDEN_VIA", "true")],
        &[UPSTREAM],
        "vai: unknown key; did you mean via? (golden.yaml:1)",
    );
}

#[test]
fn policy_of_the_environment_replaces_the_list_of_the_file() {
    let file = Some("forwarded:\n  trust: [10.0.0.0/8]\n");
    let shown = check(file, &[("GOLDEN_FORWARDED", "replace")], &[UPSTREAM]);
    assert!(shown.contains("\nforwarded: replace  # from environment GOLDEN_FORWARDED\n"), "{shown}");
    let shown = check(file, &[("GOLDEN_FORWARDED_TRUST", "10.0.0.1, fd00::/8")], &[UPSTREAM]);
    let expected = "\nforwarded:  # from environment GOLDEN_FORWARDED_TRUST\n  trust: [\"10.0.0.1/32\", fd00::/8]\n";
    assert!(shown.contains(expected), "{shown}");
}

#[test]
fn variables_of_others_and_empty_ones_do_not_count() {
    let env = [
        ("GOLDEN_LISTEN", ""),
        ("GOLDEN_CONFIG", ""),
        ("GOLDEN_SIDECAR_SERVICE_HOST", "10.0.0.1"),
        ("GOLDEN_SIDECAR_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("LISTEN", "nowhere"),
    ];
    assert_eq!(check(None, &env, &[UPSTREAM, "--workers=3"]), DEFAULTS);
}

#[test]
fn flags_hold_before_and_after_check() {
    let after = run(None, &[], &["check", UPSTREAM, "--workers=3"]);
    let before = run(None, &[], &[UPSTREAM, "--workers=3", "check"]);
    let around = run(None, &[], &[UPSTREAM, "check", "--workers=3"]);
    assert_eq!(text(&after.stdout), DEFAULTS);
    assert_eq!((&before.stdout, &around.stdout), (&after.stdout, &after.stdout));
}

#[test]
fn a_smaller_head_makes_the_default_request_line_smaller() {
    let config = loaded(&[UPSTREAM], &[("GOLDEN_LIMITS_HEAD_BYTES", "2KiB")]).config;
    assert_eq!((config.limits.head_bytes, config.limits.request_line_bytes), (2048, 2048));
}

#[test]
fn addresses_that_only_look_alike_are_accepted() {
    for args in [
        &["--upstream=http://[::1]:8000"][..],
        &["--upstream=http://127.0.0.2:8000", "--listen=127.0.0.1:8000"],
        &["--upstream=http://example.com:8000"],
        &[UPSTREAM, "--listen=127.0.0.1:8000", "--admin=127.0.0.2:8000"],
        &[UPSTREAM, "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"],
    ] {
        loaded(args, &[]);
    }
    let config = loaded(&["--upstream=HTTP://Example.com/", "--listen=localhost:1", "--admin=[::]:2"], &[]).config;
    assert_eq!(config.upstream, Upstream::http("example.com".to_owned(), 80));
    assert_eq!((config.listen.to_string(), config.admin.to_string()), ("127.0.0.1:1".into(), "[::]:2".into()));
    let config = loaded(&["--upstream=http://[::1]:81"], &[]).config;
    assert_eq!(config.upstream, Upstream::http("::1".to_owned(), 81));
}

// === all keys ===

/// Every key, none of them at its default.
const ALL_KEYS: &str = r#"upstream: http://[2001:db8::1]:8081
listen: '[::1]:8001'
admin: 127.0.0.1:9901
admin_auth:
  username: prometheus
  # As it is shown, so that what is shown means the same.
  password: '***'
admin_hosts: [Metrics.Internal, 10.0.0.5, 'fd00::5', <address>]
workers: 3
proxy_protocol: true
timeouts:
  client_head: 11s
  client_body: 12s
  client_idle: 13s
  connect: 14ms
  pool_wait: 15s
  head: 16s
  body: 17s
  upstream_idle: 18s
  upstream_age: 19h
limits:
  connections: 20
  head_bytes: 21KiB
  headers: 22
  request_line_bytes: 23B
  request_body_bytes: 24MB
  streams: 25
  inflight: 26
  upstream_connections: 27
  upstream_waiting: 28
  series: 29
  series_idle: 46m
  metrics_memory: 47MiB
drain:
  grace: 30s
  timeout: 31s
  last_scrape: 32s
dns:
  refresh: 52s
routes:
  - path: /users/{id}
    methods: [GET, PUT]
    buckets: [0.05, 0.1]
  - path: /files/{*rest}
  - path: '/odd/"quoted"\{{x}}'
  - path: /users/{name}
    methods: [POST]
openapi: [http://127.0.0.1:8085/openapi.json, 'http://[::1]/%20']
learn:
  enabled: false
  limit: 48
  state: routes.state
buckets: [0.33, 34]
slos:
  - name: api
    routes: ['/users/{id}', '/a/%20']
    objective: 0.49
    latency: 50ms
    too_slow_is_error: true
  - name: '51'
    objective: .99999
implicit_errors:
  - name: graphql
    routes: [/graphql, '/b/{id}']
    json_pointer: /errors/0/a~1b
  - {name: told, header: {name: X-Error}}
  - {name: told-so, header: {name: x-status, value: 'not: "ok", no'}}
  - {name: page, content_type_not: Application/Json}
  - {name: text, body_contains: " \"no\"\n"}
  - {name: short, length_mismatch: X-Length}
created: false
probes:
  paths: [/a-b, '/c:d']
  user_agents: ['it''s: "me"/1.0', '1.10', 'true', '- x', 'a, b']
readiness:
  path: /health?full=1
  interval: 35s
saturation:
  interval: 36s
  backend:
    pid_file: 'it''s "my" app.pid'
    cgroup: /system.slice/my app.service
    cpu_limit: 1250m
    memory_limit: 38MB
  pools:
    - name: inferred-anywhere
      port: 5432
    - name: inferred.there
      address: '[2001:db8::2]:5433'
      limit: 39
    - name: reported_by_preset
      url: http://127.0.0.1:8082/actuator/prometheus
      preset: hikaricp
    - name: '40'
      url: http://[::1]/pool
      used: /total - /idle + 41
      limit: /a-b/~0é
    - name: reported
      url: HTTP://app:8083
      preset: tomcat
      used: busy{name!="a\\\"b - c"} + waiting
      limit: 42
      waiting: waiting-now
      labels: zone="x, y", pool="ü"
command:
  restart: on-failure
backend_metrics:
  url: http://127.0.0.1:8084/metrics
  include: true
  size: 43KiB
  timeout: 44ms
forwarded:
  trust: [10.0.0.0/8, 'fd00::/8', 192.168.1.1]
via: true
"#;

#[test]
fn what_check_prints_is_accepted_again_and_means_the_same() {
    let first = check(Some(ALL_KEYS), &[], &[]);
    assert_eq!(check(Some(&first), &[], &[]), first);
    // Every value differs from its default, so every key has a source, sections and what is inside lists aside. The pid
    // cannot stand beside its file, and the files of TLS would have to be there: see `keys_of_tls_…` for these.
    let mut list = None;
    for line in first.lines() {
        let indent = line.len() - line.trim_start().len();
        if list.is_some_and(|list| indent > list) {
            continue;
        }
        list = line.ends_with(":  # from file").then_some(indent);
        let left_out = ["pid", "grpc", "token", "_file", "certificate", "key", "ca", "client_auth", "server_name"]
            .map(|key| format!("{key}: none"));
        let by_default =
            line.ends_with(':') || line.ends_with("verify: true") || left_out.iter().any(|end| line.ends_with(end));
        assert_eq!(line.ends_with("  # from file"), !by_default, "{line}");
    }
    let with_pid = check(Some("saturation: {backend: {pid: 45}}"), &[], &[UPSTREAM]);
    assert!(with_pid.contains("\n    pid: 45  # from file\n"), "{with_pid}");
    // A service cannot stand beside a path.
    for (service, shown) in [("shop.Carts", "shop.Carts"), ("'*'", "\"*\"")] {
        let with_service = check(Some(&format!("readiness: {{grpc: {service}}}")), &[], &["--upstream=h2c://app"]);
        assert!(with_service.contains(&format!("\n  grpc: {shown}  # from file\n")), "{with_service}");
        let again = check(Some(&with_service), &[], &[]);
        assert_eq!(again.matches(&format!("\n  grpc: {shown}  # from file\n")).count(), 1, "{again}");
    }
}

#[test]
fn check_shows_pools_with_all_that_is_read_for_them() {
    let shown = check(Some(ALL_KEYS), &[], &[]);
    let pools = shown.split("  pools:  # from file\n").nth(1).and_then(|rest| rest.split("command:\n").next());
    let expected = r#"    - name: inferred-anywhere
      port: 5432
    - name: inferred.there
      address: "[2001:db8::2]:5433"
      limit: 39
    - name: reported_by_preset
      url: http://127.0.0.1:8082/actuator/prometheus
      preset: hikaricp
      used: hikaricp_connections_active
      idle: hikaricp_connections_idle
      limit: hikaricp_connections_max
      waiting: hikaricp_connections_pending
      timeouts: hikaricp_connections_timeout_total
    - name: "40"
      url: "http://[::1]/pool"
      used: "/total - /idle + 41"
      limit: "/a-b/~0é"
    - name: reported
      url: HTTP://app:8083
      preset: tomcat
      used: "busy{name!=\"a\\\\\\\"b - c\", zone=\"x, y\", pool=\"ü\"} + waiting{zone=\"x, y\", pool=\"ü\"}"
      idle: "tomcat_threads_current_threads{zone=\"x, y\", pool=\"ü\"} - tomcat_threads_busy_threads{zone=\"x, y\", pool=\"ü\"}"
      waiting: "waiting-now{zone=\"x, y\", pool=\"ü\"}"
      limit: 42
"#;
    assert_eq!(pools, Some(expected), "{shown}");
}

#[test]
fn the_json_form_is_accepted_as_a_file_too() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let read = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("write the file");
        loaded(&["--config", path.to_str().expect("UTF-8")], &[])
    };
    let first = read("first.yaml", ALL_KEYS);
    let again = read("again.json", &first.to_json());
    assert_eq!(again.config, first.config);
    assert_eq!(again.to_json(), first.to_json());
}

#[test]
fn keys_of_tls_mean_the_same_as_a_file_as_json_and_as_variables() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| folder.path().join(name);
    let server = |more: &str| format!("{{certificate: a.pem, key: /b/c.key, client_ca: 'd e.pem'{more}}}");
    let upstream = |more: &str| format!("{{server_name: API.internal, certificate: f.pem, key: g.key{more}}}");
    let mut seen = Vec::new();
    for (listener, backend) in [("", ", ca: h.pem"), (", client_auth: optional", ", verify: false")] {
        let text = format!(
            "upstream: https://[::1]\nlisten: 'unix:///run/a b.sock'\ntls: {}\nadmin_tls: {}\nupstream_tls: {}\n",
            server(listener),
            server(""),
            upstream(backend)
        );
        std::fs::write(at("golden.yaml"), &text).expect("write the file");
        let by_file = loaded(&["--config", at("golden.yaml").to_str().expect("UTF-8")], &[]);
        std::fs::write(at("golden.json"), by_file.to_json()).expect("write the file");
        let by_json = loaded(&["--config", at("golden.json").to_str().expect("UTF-8")], &[]);
        assert_eq!(by_json.config, by_file.config);
        let json: serde_json::Value = serde_json::from_str(&by_file.to_json()).expect("JSON");
        let mut env = Vec::new();
        for key in ["upstream", "listen", "tls", "admin_tls", "upstream_tls"] {
            variables(&format!("GOLDEN_{}", key.to_uppercase()), &json[key], &mut env);
        }
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(loaded(&[], &env).config, by_file.config);
        seen.push((json["tls"].clone(), json["upstream_tls"].clone(), json["listen"].clone()));
    }
    assert_eq!(seen[0].0["certificate"], at("a.pem").to_str().expect("UTF-8"), "relative to the file");
    assert_eq!((&seen[0].0["key"], &seen[0].0["client_auth"]), (&"/b/c.key".into(), &"required".into()));
    assert_eq!(seen[1].0["client_auth"], "optional");
    assert_eq!((&seen[0].1["server_name"], &seen[0].1["verify"]), (&"api.internal".into(), &true.into()));
    assert_eq!((&seen[1].1["ca"], &seen[1].1["verify"]), (&"none".into(), &false.into()));
    assert_eq!(seen[0].2, "unix:/run/a b.sock");
}

/// The variables that say what a JSON form says; items of lists are joined by commas.
fn variables(path: &str, value: &serde_json::Value, variables: &mut Vec<(String, String)>) {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        serde_json::Value::Object(entries) => {
            for (key, value) in entries {
                self::variables(&format!("{path}_{}", key.to_uppercase()), value, variables);
            }
        }
        serde_json::Value::Array(items) => {
            variables.push((path.to_owned(), items.iter().map(text).collect::<Vec<_>>().join(",")));
        }
        value => variables.push((path.to_owned(), text(value))),
    }
}

#[test]
fn every_key_but_lists_of_maps_is_also_an_environment_variable() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("golden.yaml");
    std::fs::write(&path, ALL_KEYS.replace(", 'a, b'", "")).expect("write the file");
    let mut by_file = loaded(&["--config", path.to_str().expect("UTF-8")], &[]);
    by_file.config.routes.clear();
    by_file.config.slos = loaded(&["--upstream", "http://a"], &[]).config.slos;
    by_file.config.implicit_errors.clear();
    by_file.config.saturation.pools.clear();

    let mut json: serde_json::Value = serde_json::from_str(&by_file.to_json()).expect("JSON");
    json.as_object_mut().expect("a map").remove("routes");
    json.as_object_mut().expect("a map").remove("slos");
    json.as_object_mut().expect("a map").remove("implicit_errors");
    json["saturation"].as_object_mut().expect("a map").remove("pools");
    let mut env = Vec::new();
    variables("GOLDEN", &json, &mut env);
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert!(env.contains(&("GOLDEN_TIMEOUTS_CONNECT", "14ms")), "{env:?}");
    assert_eq!(loaded(&[], &env).config, by_file.config);
    // Leaving one out goes back to its default, so the equality above depends on each.
    for left_out in (0..env.len()).filter(|index| env[*index].1 != "none") {
        let (mut env, (name, _)) = (env.clone(), env[left_out]);
        env.remove(left_out);
        if name == "GOLDEN_UPSTREAM_TLS_VERIFY" {
            // Another one needs another scheme of the upstream.
            continue;
        }
        if name == "GOLDEN_UPSTREAM" || name.starts_with("GOLDEN_ADMIN_AUTH_") {
            load(&[], &env).expect_err("no upstream, or half of what belongs together");
        } else {
            assert_ne!(loaded(&[], &env).config, by_file.config, "{name}");
        }
    }
}

// === secrets ===

#[test]
fn urls_of_pages_and_commands_are_shown_without_their_secrets() {
    let file = "\
saturation:
  pools:
    - name: db
      url: http://admin:hunter2@app:8082/pool?token=hunter2
      used: /used
backend_metrics:
  url: http://app/metrics?token=hunter2
";
    let args = [UPSTREAM, "--restart=always", "--", "app", "--password=hunter2"];
    let shown = check(Some(file), &[], &[UPSTREAM]);
    for line in ["      url: \"http://***@app:8082/pool?***\"\n", "  url: \"http://app/metrics?***\"  # from file\n"] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    // What is shown is a configuration too, with other secrets.
    assert_eq!(check(Some(&shown.replace("http://127.0.0.1:8080", "http://a")), &[], &[UPSTREAM]), shown);

    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("golden.yaml");
    std::fs::write(&path, file).expect("write the file");
    let loaded = loaded(&[&["--config", path.to_str().expect("UTF-8")], &args[..]].concat(), &[]);
    assert_eq!(loaded.command.as_ref().map(Vec::len), Some(2));
    for shown in [loaded.to_yaml(), loaded.to_json(), check(None, &[], &args)] {
        assert!(!shown.contains("hunter2") && !shown.contains("--password"), "{shown}");
    }
    assert!(format!("{:?}", loaded.config).contains("hunter2"), "the secrets themselves are kept");
}

/// A file, variables and arguments.
type Case<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn no_output_shows_a_secret_of_a_url() {
    const URL: &str = "http://admin:hunter2@example.com:8080";
    let in_file = format!("upstream: {URL}\n");
    let in_pool = format!("saturation: {{pools: [{{name: db, url: '{URL}/ x', used: /a}}]}}");
    let without_used = format!("saturation: {{pools: [{{name: db, url: '{URL}'}}]}}");
    let in_metrics = format!("backend_metrics: {{url: '{URL}:x'}}");
    let as_key = format!("{{\"{URL}\": 1}}");
    let broken = format!("upstream: [{URL}\n");
    let query = "http://example.com/?token=hunter2";
    let mistyped = format!("--upstrem={URL}");
    let value_of_a_switch = format!("--version={URL}");
    let cases: &[Case<'_>] = &[
        (None, &[], &["check", "--upstream", URL]),
        (None, &[], &["check", "--upstream", "http://admin:hun/hunter2@example.com"]),
        (None, &[], &["check", "--upstream", "admin:hunter2@example.com"]),
        (None, &[], &["check", "--upstream", "https://admin:hunter2@example.com"]),
        (None, &[], &["check", "--upstream", query]),
        (None, &[("GOLDEN_UPSTREAM", URL)], &["check"]),
        (None, &[("GOLDEN_LISTEN", URL)], &["check", UPSTREAM]),
        (Some(&in_file), &[], &["check"]),
        (Some(&in_pool), &[], &["check", UPSTREAM]),
        (Some(&without_used), &[], &["check", UPSTREAM]),
        (Some(&in_metrics), &[], &["check", UPSTREAM]),
        (None, &[("GOLDEN_BACKEND_METRICS_URL", "https://admin:hunter2@app")], &["check", UPSTREAM]),
        (Some(&as_key), &[], &["check"]),
        (Some(&broken), &[], &["check"]),
        // clap's own words.
        (None, &[], &["check", URL]),
        (None, &[], &["check", &mistyped]),
        (None, &[], &[&value_of_a_switch]),
        (None, &[], &["demo", "--upstream", URL]),
    ];
    for (file, env, args) in cases {
        let output = run(*file, env, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let shown = [text(&output.stdout), text(&output.stderr)].concat();
        assert!(!shown.is_empty() && !shown.contains("hunter2"), "{args:?} printed {shown}");
    }
}

// === what backends are told by ===

#[test]
fn limits_are_read_as_kubernetes_and_people_write_them() {
    let hints = |variable: &str, value: &str| loaded(&[UPSTREAM], &[(variable, value)]).config.saturation.backend;
    for (text, cores) in [("2", 2.0), ("0.25", 0.25), ("1500m", 1.5), ("1m", 0.001), ("1024", 1024.0)] {
        assert_eq!(hints("GOLDEN_SATURATION_BACKEND_CPU_LIMIT", text).cpu_limit_cores, Some(cores), "{text}");
    }
    for (text, bytes) in [("536870912", 512 << 20), ("512MiB", 512 << 20), ("512Mi", 512 << 20), ("1B", 1), ("1", 1)] {
        assert_eq!(hints("GOLDEN_SATURATION_BACKEND_MEMORY_LIMIT", text).memory_limit_bytes, Some(bytes), "{text}");
    }
}

#[test]
fn relative_documents_and_states_belong_to_the_folder_of_who_named_them() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("golden.yaml");
    std::fs::write(&path, "openapi: ./api/pets.yaml\nlearn: {state: routes.state}\n").expect("write the file");
    let file = ["--config", path.to_str().expect("UTF-8"), UPSTREAM];
    let by_file = loaded(&file, &[]).config;
    assert_eq!(by_file.openapi, [OpenApi::File(folder.path().join("api/pets.yaml"))]);
    assert_eq!(by_file.learn.state, Some(folder.path().join("routes.state")));

    let working = std::env::current_dir().expect("a working folder");
    let env = [("GOLDEN_OPENAPI", "a b.json, http://a/x , /c.yaml"), ("GOLDEN_LEARN_STATE", "state")];
    let by_variable = loaded(&file, &env).config;
    let expected = [
        OpenApi::File(working.join("a b.json")),
        OpenApi::Url("http://a/x".to_owned()),
        OpenApi::File("/c.yaml".into()),
    ];
    assert_eq!(by_variable.openapi, expected);
    assert_eq!(by_variable.learn.state, Some(working.join("state")));
    // What is shown means the same again, from any folder.
    std::fs::write(&path, by_variable.to_json()).expect("write the file");
    assert_eq!(loaded(&file[..2], &[]).config, by_variable);
    assert_eq!(loaded(&[UPSTREAM, "--routes-limit", "7"], &[]).config.learn.limit, 7);
}

#[test]
fn a_relative_pid_file_belongs_to_the_folder_of_who_named_it() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("golden.yaml");
    std::fs::write(&path, "saturation: {backend: {pid_file: ./run/app.pid}}").expect("write the file");
    let path = path.to_str().expect("UTF-8");
    let pid_file = |args: &[&str], env| loaded(&[&[UPSTREAM], args].concat(), env).config.saturation.backend.pid_file;
    let here = std::env::current_dir().expect("a working folder");
    let below = |folder: &std::path::Path| Some(folder.join("run/app.pid"));
    assert_eq!(pid_file(&["--config", path], &[]), below(folder.path()));
    assert_eq!(pid_file(&["--backend-pid-file=run/app.pid"], &[]), below(&here));
    assert_eq!(pid_file(&["--config", path], &[("GOLDEN_SATURATION_BACKEND_PID_FILE", "run/app.pid")]), below(&here));
    assert_eq!(pid_file(&["--config", path, "--backend-pid-file=none", "--backend-pid=7"], &[]), None);
}

#[test]
fn at_most_twenty_pools_are_accepted() {
    let pools = |count: u32| {
        let pools: String = (1..=count).map(|port| format!("    - {{name: p{port}, port: {port}}}\n")).collect();
        format!("saturation:\n  pools:\n{pools}")
    };
    assert!(check(Some(&pools(20)), &[], &[UPSTREAM]).contains("      port: 20\n"));
    refused(
        Some(&pools(21)),
        &[],
        &[UPSTREAM],
        "saturation.pools: found 21 pools; expected at most 20 (golden.yaml:3)",
    );
}

#[test]
fn at_most_twenty_objectives_are_accepted() {
    let slos = |count: u32| {
        let slos: String = (1..=count).map(|n| format!("  - {{name: s{n}, objective: 0.{n}5}}\n")).collect();
        format!("slos:\n{slos}")
    };
    assert!(check(Some(&slos(20)), &[], &[UPSTREAM]).contains("  - name: s20\n    objective: 0.205\n"));
    refused(Some(&slos(21)), &[], &[UPSTREAM], "slos: found 21 SLOs; expected at most 20 (golden.yaml:2)");
}

#[test]
fn check_shows_objectives_in_the_shape_of_the_file() {
    let shown = check(Some(ALL_KEYS), &[], &[]);
    let expected = "slos:  # from file\n  - name: api\n    routes: [\"/users/{id}\", \"/a/%20\"]\n    objective: 0.49\n    latency: 50ms\n    too_slow_is_error: true\n  - name: \"51\"\n    objective: 0.99999\n";
    assert!(shown.contains(expected), "{shown}");
}

#[test]
fn at_most_twenty_rules_for_implicit_errors_are_accepted() {
    let rules = |count: u32| {
        let rules: String = (1..=count).map(|n| format!("  - {{name: r{n}, body_contains: no{n}}}\n")).collect();
        format!("implicit_errors:\n{rules}")
    };
    assert!(check(Some(&rules(20)), &[], &[UPSTREAM]).contains("  - name: r20\n    body_contains: no20\n"));
    let sentence = "implicit_errors: found 21 rules; expected at most 20 (golden.yaml:2)";
    refused(Some(&rules(21)), &[], &[UPSTREAM], sentence);
    let long = |bytes: usize| format!("implicit_errors: [{{name: a, body_contains: '{}'}}]", "x".repeat(bytes));
    check(Some(&long(1024)), &[], &[UPSTREAM]);
    let sentence = format!(
        "implicit_errors[0].body_contains: \"{}\"… is too long; expected at most 1KiB (golden.yaml:1)",
        "x".repeat(80)
    );
    refused(Some(&long(1025)), &[], &[UPSTREAM], &sentence);
}

#[test]
fn check_shows_rules_for_implicit_errors_in_the_shape_of_the_file() {
    let shown = check(Some(ALL_KEYS), &[], &[]);
    let expected = r#"implicit_errors:  # from file
  - name: graphql
    routes: [/graphql, "/b/{id}"]
    json_pointer: "/errors/0/a~1b"
  - name: told
    header: {name: X-Error}
  - name: told-so
    header: {name: x-status, value: "not: \"ok\", no"}
  - name: page
    content_type_not: application/json
  - name: text
    body_contains: " \"no\"\U0000000a"
  - name: short
    length_mismatch: X-Length
"#;
    assert!(shown.contains(expected), "{shown}");
}

#[test]
fn every_preset_is_a_pool_by_itself() {
    for preset in [
        "hikaricp",
        "tomcat",
        "tomcat-jdbc",
        "go-sql",
        "sqlalchemy",
        "psycopg_pool",
        "node-postgres",
        "pgbouncer",
        "otel",
    ] {
        let file = format!("saturation: {{pools: [{{name: a, url: 'http://app/', preset: {preset}}}]}}");
        let first = check(Some(&file), &[], &[UPSTREAM]);
        assert!(first.contains(&format!("      preset: {preset}\n      used: ")), "{first}");
        assert_eq!(check(Some(&first), &[], &[UPSTREAM]), first);
    }
}

// === a command ===

#[test]
fn a_command_follows_two_dashes_and_keeps_its_own_flags() {
    let args =
        [UPSTREAM, "--restart=on-failure", "--", "sh", "-c", "exec app --listen \"$1\"", "check", "--", "--help"];
    let run = match load(&args, &[]) {
        Ok(Invocation::Run(loaded)) => loaded,
        other => panic!("{other:?}"),
    };
    assert_eq!(run.command, Some(args[3..].iter().map(OsString::from).collect()));
    assert_eq!(run.reload().expect("good").command, run.command);
    assert_eq!(run.source("command.restart").map(ToString::to_string), Some("flag --restart".to_owned()));
    // A word after the dashes is never one of ours.
    match load(&[UPSTREAM, "--", "demo"], &[]) {
        Ok(Invocation::Run(loaded)) => assert_eq!(loaded.command, Some(vec!["demo".into()])),
        other => panic!("{other:?}"),
    }
    assert_eq!(loaded(&[UPSTREAM], &[("GOLDEN_COMMAND_RESTART", "always")]).command, None);

    // What `check` says does not depend on it.
    let args = ["check", UPSTREAM, "--workers=3", "--", "app", "--workers=4"];
    assert_eq!(text(&self::run(None, &[], &args).stdout), DEFAULTS);
    for (command, args) in
        [("demo", &["demo", "--", "app"][..]), ("healthcheck", &["healthcheck", "--admin=127.0.0.1:1", "--", "app"])]
    {
        let failure = load(args, &[]).expect_err(command);
        let sentence = format!("--: a command after it has no meaning for {command}; remove it\n");
        assert_eq!((failure.text, failure.code), (sentence, 2));
    }
}

#[test]
fn a_command_need_not_be_text() {
    use std::os::unix::ffi::OsStringExt as _;
    let name = OsString::from_vec(vec![b'/', 0xff]);
    let args = ["golden-sidecar", UPSTREAM, "--"].iter().map(OsString::from).chain([name.clone()]).collect();
    match config::load(args, Vec::new()) {
        Ok(Invocation::Run(loaded)) => assert_eq!(loaded.command, Some(vec![name])),
        other => panic!("{other:?}"),
    }
}

// === the other commands ===

#[test]
fn doctor_needs_no_upstream_but_everything_else_in_order() {
    let doctor = |args: &[&str], env: &[(&str, &str)]| match load(&[&["doctor"], args].concat(), env) {
        Ok(Invocation::Doctor { loaded, upstream_given }) => (loaded.config.upstream.to_string(), upstream_given),
        other => panic!("{args:?} gave {other:?}"),
    };
    assert_eq!(doctor(&[], &[]), ("http://127.0.0.1:8080".to_owned(), false));
    assert_eq!(doctor(&["--upstream=http://app"], &[]), ("http://app:80".to_owned(), true));
    assert_eq!(doctor(&[], &[("GOLDEN_UPSTREAM", "http://app")]), ("http://app:80".to_owned(), true));
    for (args, sentence) in [
        (
            &["doctor", "--workers=0"][..],
            "workers: \"0\" is out of range; expected a whole number from 1 to 1024 or auto (flag --workers)\n",
        ),
        (
            &["doctor", "--upstream=app"],
            "upstream: \"app\" has no scheme; expected http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH, for example http://127.0.0.1:8080 (flag --upstream)\n",
        ),
        (
            &["doctor", "--listen=127.0.0.1:8080"],
            "upstream: \"http://127.0.0.1:8080\" is our own listen address (127.0.0.1:8080), so requests would go round in a loop; expected the backend's\n",
        ),
    ] {
        let failure = load(args, &[]).expect_err("a mistake");
        assert_eq!((failure.text.as_str(), failure.code), (sentence, 2));
    }
}

#[test]
fn help_and_version_go_to_standard_output_and_wrong_usage_to_standard_error() {
    for (args, code, stream, words) in [
        (&["--help"][..], 0, Stream::Out, "--upstream-connections"),
        (&["--help"], 0, Stream::Out, "[-- COMMAND ARGS...]"),
        (&["check", "--help"], 0, Stream::Out, "--drain-grace"),
        (&["doctor", "--help"], 0, Stream::Out, "--backend-cpu-limit"),
        (&["--version"], 0, Stream::Out, env!("CARGO_PKG_VERSION")),
        (&["--colour"], 2, Stream::Error, "'--colour'"),
        (&["--upstream"], 2, Stream::Error, "'--upstream <URL>'"),
    ] {
        let failure = load(args, &[]).expect_err("a text");
        assert_eq!((failure.code, failure.stream), (code, stream), "{args:?}");
        assert!(failure.text.contains(words), "{args:?} gave {}", failure.text);
    }
}

/// The addresses and the duration of a demo.
fn demo(args: &[&str], env: &[(&str, &str)]) -> (String, String, Option<Duration>) {
    match load(&[&["demo"], args].concat(), env) {
        Ok(Invocation::Demo { run_for, listen, admin }) => (listen.to_string(), admin.to_string(), run_for),
        other => panic!("{args:?} gave {other:?}"),
    }
}

#[test]
fn demo_stays_on_loopback_unless_told_otherwise() {
    assert_eq!(demo(&[], &[]), ("127.0.0.1:8000".into(), "127.0.0.1:9900".into(), None));
    assert_eq!(
        demo(&["--for=30s", "--listen=127.0.0.1:0"], &[("GOLDEN_LISTEN", "0.0.0.0:1"), ("GOLDEN_ADMIN", "0.0.0.0:2")]),
        ("127.0.0.1:0".into(), "0.0.0.0:2".into(), Some(Duration::from_secs(30)))
    );
    for (args, sentence) in [
        (&["--for=0s"][..], "for: \"0s\" is too short; expected more than 0s (flag --for)\n"),
        (
            &["--listen=127.0.0.1:9900"],
            "listen: 127.0.0.1:9900 has the port of admin (127.0.0.1:9900); expected another port (flag --listen)\n",
        ),
    ] {
        let failure = load(&[&["demo"], args].concat(), &[]).expect_err("a mistake");
        assert_eq!((failure.text.as_str(), failure.code), (sentence, 2));
    }
    let failure = load(&[UPSTREAM, "demo"], &[]).expect_err("a flag that demo would ignore");
    assert_eq!(failure.text, "--upstream: has no meaning for demo; remove it\n");
}

#[test]
fn demo_configuration_ends_without_waiting() {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let config = Config::for_demo(address("127.0.0.1:1"), address("127.0.0.1:2"), address("127.0.0.1:3"));
    assert_eq!(config.upstream.to_string(), "http://127.0.0.1:1");
    assert_eq!((config.listen, config.admin), (Listen::Tcp(address("127.0.0.1:2")), address("127.0.0.1:3")));
    assert_eq!(config.drain.grace, Duration::ZERO);
}

/// Where a health check asks.
fn healthcheck(args: &[&str], env: &[(&str, &str)]) -> String {
    match load(&[&["healthcheck"], args].concat(), env) {
        Ok(Invocation::Healthcheck(running)) => running.admin.to_string(),
        other => panic!("{args:?} {env:?} gave {other:?}"),
    }
}

#[test]
fn healthcheck_needs_only_the_admin_address_and_asks_on_loopback() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("golden.yaml");
    // A mistake elsewhere is none of its business: the sidecar may run well on what it read before.
    std::fs::write(&path, "admin: '[::]:3'\nvai: true\n").expect("write the file");
    let path = path.to_str().expect("UTF-8");
    for (args, env, expected) in [
        (&[][..], &[][..], "127.0.0.1:9900"),
        (&[], &[("GOLDEN_ADMIN", "0.0.0.0:2")], "127.0.0.1:2"),
        (&[], &[("GOLDEN_CONFIG", path)], "[::1]:3"),
        (&["--config", path], &[], "[::1]:3"),
        (&["--config", path], &[("GOLDEN_ADMIN", "0.0.0.0:2")], "127.0.0.1:2"),
        (&["--admin=10.0.0.1:4"], &[("GOLDEN_ADMIN", "0.0.0.0:2"), ("GOLDEN_CONFIG", path)], "10.0.0.1:4"),
    ] {
        assert_eq!(healthcheck(args, env), expected, "{args:?} {env:?}");
    }
    let failure = load(&["healthcheck", "--admin=127.0.0.1:0"], &[]).expect_err("port 0");
    let sentence =
        "admin: port 0 is chosen when the sidecar starts; expected the port that it listens on (flag --admin)\n";
    assert_eq!((failure.text.as_str(), failure.code), (sentence, 2));
}

#[test]
fn a_running_sidecar_is_asked_with_its_own_host_and_what_opens_it() {
    let running = |args: &[&str], env: &[(&str, &str)]| match load(args, env) {
        Ok(Invocation::Healthcheck(running) | Invocation::Routes { running, .. }) => running,
        other => panic!("{args:?} {env:?} gave {other:?}"),
    };
    const TOKEN: (&str, &str) = ("GOLDEN_ADMIN_AUTH_TOKEN", "0123456789abcdef-token");
    for (hosts, expected) in [
        ("", "127.0.0.1:9900"),
        ("metrics.internal,b", "metrics.internal:9900"),
        ("metrics.internal,127.0.0.1", "127.0.0.1:9900"),
        ("metrics.internal,<address>", "127.0.0.1:9900"),
        ("fd00::5", "[fd00::5]:9900"),
    ] {
        for command in [&["healthcheck"][..], &["routes", "list"]] {
            let running = running(command, &[("GOLDEN_ADMIN_HOSTS", hosts), TOKEN]);
            assert_eq!((running.host.as_str(), running.auth.is_open()), (expected, false), "{hosts}");
            assert!(!format!("{running:?}").contains("0123456789"), "{running:?}");
        }
    }
    // A mistake ends a question of a person, and no sidecar.
    let wrong = [("GOLDEN_ADMIN_AUTH_TOKEN", "short")];
    assert!(running(&["healthcheck"], &wrong).auth.is_open());
    let failure = load(&["routes", "list"], &wrong).expect_err("a mistake");
    assert!(failure.text.starts_with("admin_auth.token: is too short; "), "{}", failure.text);
}

#[test]
fn secrets_are_read_and_shown_nowhere() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("token");
    let path = file.to_str().expect("UTF-8");
    std::fs::write(&file, "hunter2-hunter2-hunter2\n").expect("write the file");
    let given = check(
        Some("admin_auth: {token: hunter2-hunter2-hunter2, username: prometheus, password: hunter2}"),
        &[],
        &[UPSTREAM],
    );
    for line in [
        "  token: \"***\"  # from file\n",
        "  username: prometheus  # from file\n",
        "  password: \"***\"  # from file\n",
    ] {
        assert!(given.contains(line), "{line}: {given}");
    }
    let by_file = check(None, &[("GOLDEN_ADMIN_AUTH_TOKEN_FILE", path)], &[UPSTREAM]);
    assert!(
        by_file.contains(&format!("  token_file: {path}  # from environment GOLDEN_ADMIN_AUTH_TOKEN_FILE\n")),
        "{by_file}"
    );
    let env = [("GOLDEN_ADMIN_AUTH_TOKEN", "hunter2-hunter2-hunter2")];
    let loaded = loaded(&[UPSTREAM], &env);
    for text in [given, by_file, format!("{loaded:?}"), loaded.to_json(), loaded.to_yaml()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    // Neither YAML that is broken next to a secret shows it.
    for text in [
        "admin_auth: {token: 'hunter2-hunter2-hunter2}",
        "admin_auth: {token: *hunter2-hunter2-hunter2}",
        "admin_auth: {token: !hunter2 hunter2-hunter2-hunter2}",
        "admin_auth: {token: !!int hunter2-hunter2-hunter2}",
        "admin_auth: {token: @hunter2-hunter2-hunter2}",
        "admin_auth: {token: %hunter2-hunter2-hunter2}",
        "admin_auth: {token: \"hunter2\\qhunter2-hunter2\"}",
        "admin_auth: {token: hunter2-hunter2: hunter2-hunter2}",
        "admin_auth: {hunter2-hunter2-hunter2}",
        "admin_auth:\n  token: hunter2-hunter2-hunter2\n  hunter2: a\n",
        "admin_auth:\n  hunter2-hunter2-hunter2\n",
        "admin_auth:\n  token: |\n hunter2-hunter2-hunter2\n",
        "admin_auth:\n  token: hunter2-hunter2-hunter2\n token: b\n",
        "admin_auth:\n  <<: hunter2\n",
        "admin_auth:\n  token: &hunter2\n",
        "admin_auth: !hunter2 {}",
        "hunter2-hunter2-hunter2",
        "'hunter2-hunter2-hunter2",
        "%hunter2-hunter2-hunter2",
    ] {
        let output = run(Some(text), &[], &["check", UPSTREAM]);
        let said = format!("{}{}", self::text(&output.stdout), self::text(&output.stderr));
        assert!(!said.contains("hunter2"), "{text}: {said}");
    }
    // A file that holds no secret, and one that is not there.
    for (content, problem) in [
        (
            Some("hunter2\n"),
            "is too short; expected 16 or more visible ASCII characters, for example from openssl rand -hex 32",
        ),
        (None, "cannot be read: No such file or directory (os error 2)"),
    ] {
        match content {
            Some(content) => std::fs::write(&file, content).expect("write the file"),
            None => std::fs::remove_file(&file).expect("remove the file"),
        }
        let env = [("GOLDEN_ADMIN_AUTH_TOKEN_FILE", path)];
        refused(None, &env, &[UPSTREAM], &format!("admin_auth.token_file: {path:?} {problem}"));
    }
}

#[test]
fn reload_reads_the_file_again_under_the_same_flags_and_variables() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("golden.yaml");
    let write = |content: &str| std::fs::write(&path, content).expect("write the file");
    write("via: false\nlimits: {headers: 10}\n");
    let name = path.to_str().expect("UTF-8");
    let first = loaded(&[UPSTREAM, "--config", name, "--workers=3"], &[("GOLDEN_LIMITS_HEADERS", "20")]);

    write("via: true\nworkers: 4\nlimits: {headers: 30}\n");
    let second = first.reload().expect("a good file");
    let mut expected = first.config.clone();
    expected.via = true;
    assert_eq!(second.config, expected);
    assert_eq!((second.config.workers, second.config.limits.headers), (3, 20));

    write("via: perhaps\n");
    let error = second.reload().expect_err("a bad file");
    assert_eq!(error.key(), "via");
    assert_eq!(error.to_string(), format!("via: \"perhaps\" is not a boolean; expected true or false ({name}:1)"));
}

// === any text ===

/// Lines that resemble a configuration more than random characters do.
fn yaml_like() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "timeouts",
        "connect",
        "limits",
        "head_bytes",
        "routes",
        "path",
        "methods",
        "buckets",
        "forwarded",
        "trust",
        "upstream",
        "listen",
        "probes",
        "paths",
        "slos",
        "objective",
        "latency",
        "saturation",
        "pools",
        "name",
        "url",
        "used",
        "via",
        "<<",
        "x",
    ]);
    let value = prop_oneof![
        "[a-z0-9/{}*.:@\\[\\], -]{0,12}",
        prop::sample::select(vec![
            "",
            "~",
            "5s",
            "64KiB",
            "&a [1]",
            "*a",
            "{trust: [::/0]}",
            "[0.1, 1e999]",
            "'/{a}{{b}}'",
            "!!int x",
            "|",
        ])
        .prop_map(str::to_owned),
    ];
    let line = (0..3usize, any::<bool>(), key, value).prop_map(|(depth, item, key, value)| {
        format!("{}{}{key}: {value}\n", "  ".repeat(depth), if item { "- " } else { "" })
    });
    prop::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
}

/// A template out of pieces that routers trip over.
fn template_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec!["/", "a", "b", "{", "}", "{x}", "{y}", "{*r}", "{{", "}}", "*", "-", ":"]);
    prop::collection::vec(piece, 0..8).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// An expression or labels out of pieces that readers trip over.
fn expression_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b{c=\"d\"}",
        "e=\"f\"",
        ", ",
        " + ",
        " - ",
        "-",
        "/g",
        "/h i",
        "~0",
        "7",
        "\"",
        "\\",
        "{",
        "}",
        "é",
        "\u{a0}",
        "'",
    ]);
    prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}

/// Loads a file with this text; a refusal must be one line with code 2.
fn load_text(content: &str) -> Result<(), TestCaseError> {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), content).expect("write the file");
    let path = file.path().to_str().expect("UTF-8");
    match load(&[UPSTREAM, "--config", path], &[]) {
        Ok(Invocation::Run(loaded)) => {
            std::fs::write(file.path(), loaded.to_yaml()).expect("write the file");
            let again = loaded.reload().expect("what is shown is accepted");
            prop_assert_eq!(again.config, loaded.config);
        }
        Ok(other) => prop_assert!(false, "{:?}", other),
        Err(failure) => {
            prop_assert_eq!((failure.code, failure.stream), (2, Stream::Error));
            prop_assert!(failure.text.ends_with('\n'));
            prop_assert!(!failure.text.trim_end_matches('\n').contains(char::is_control), "{:?}", failure.text);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text_as_a_file_is_accepted_or_refused_on_one_line(content in any::<String>()) {
        load_text(&content)?;
    }

    #[test]
    fn any_yaml_like_text_as_a_file_is_accepted_or_refused_on_one_line(content in yaml_like()) {
        load_text(&content)?;
    }

    #[test]
    fn any_routes_are_accepted_or_refused_on_one_line(paths in prop::collection::vec(template_like(), 1..4)) {
        let routes: Vec<String> = paths.iter().map(|path| format!("  - path: '{path}'\n")).collect();
        load_text(&format!("routes:\n{}", routes.concat()))?;
    }

    #[test]
    fn any_expressions_are_accepted_or_refused_on_one_line(used in expression_like(), labels in expression_like()) {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let pool = format!("name: a, url: 'http://a/', used: {}", quoted(&used));
        load_text(&format!("saturation: {{pools: [{{{pool}}}]}}\n"))?;
        load_text(&format!("saturation: {{pools: [{{{pool}, labels: {}}}]}}\n", quoted(&labels)))?;
    }

    #[test]
    fn any_text_as_a_value_is_accepted_or_refused_on_one_line(value in any::<String>()) {
        for name in ["GOLDEN_UPSTREAM", "GOLDEN_LISTEN", "GOLDEN_BUCKETS", "GOLDEN_FORWARDED_TRUST", "GOLDEN_READINESS_PATH", "GOLDEN_SATURATION_BACKEND_PID_FILE", "GOLDEN_SATURATION_BACKEND_CGROUP", "GOLDEN_SATURATION_BACKEND_CPU_LIMIT", "GOLDEN_SATURATION_BACKEND_MEMORY_LIMIT", "GOLDEN_BACKEND_METRICS_URL"] {
            if let Err(failure) = load(&[], &[("GOLDEN_UPSTREAM", "http://a"), (name, &value)]) {
                prop_assert!(!failure.text.trim_end_matches('\n').contains(char::is_control), "{:?}", failure.text);
            }
        }
    }

    #[test]
    fn durations_are_read_as_they_were_written(milliseconds in 0..=31_536_000_000u64) {
        let duration = Duration::from_millis(milliseconds);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

    #[test]
    fn sizes_are_read_as_they_were_written(bytes in any::<u64>(), factor in prop::sample::select(vec![1u64, 1000, 1 << 10, 1_000_000, 1 << 30])) {
        for bytes in [bytes, (bytes % 1000) * factor] {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
    }
}
