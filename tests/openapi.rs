//! Templates of OpenAPI and Swagger documents, through the front door: a real sidecar, a real backend, the real page.

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use common::sidecar::{Builder, program};
use common::{Backend, Page, Sidecar, h2c, ok, response, wait_until};

const SWAGGER_2: &str = r#"{
  "swagger": "2.0", "info": {"title": "pets", "version": "1"}, "host": "petstore.example", "basePath": "/v2",
  "paths": {
    "/pet": {"post": {"responses": {}}, "put": {"responses": {}}},
    "/pet/{petId}": {"parameters": [], "get": {"responses": {}}, "delete": {"responses": {}}, "x-owner": 7},
    "/pet/findByStatus": {"get": {"responses": {"200": {"description": "é"}}}},
    "x-paths": {"/not/one": {}}
  },
  "definitions": {"deep": [[[{"a": [1.5e3, -2, true, null]}]]]}
}"#;

const OPENAPI_3_0: &str = r##"
openapi: 3.0.3
info: {title: orders, version: "1"}
servers:
  - url: https://api.example.com/{stage}/
    variables: {stage: {default: live, enum: [live, test]}}
  - url: /internal
paths:
  /orders/{id}:
    get: {responses: {200: {description: ok}}}
    put: {responses: {200: {description: ok}}}
  /orders/{name}/lines/{line}.{format}:
    get: {}
  /compare/{base}...{head}: {get: {}}
  /jobs/{id}:cancel: {post: {}}
  /status:
    servers: [{url: /}]
    get: {}
    post: {servers: [{url: "/write"}]}
  /shared: {$ref: '#/components/pathItems/shared'}
  /elsewhere: {$ref: 'other.yaml#/x'}
components:
  pathItems:
    shared: {get: {}}
"##;

const OPENAPI_3_1: &str = r#"{"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "webhooks": {"a": {"post": {}}},
  "paths": {"/a/{x}": {"get": {}}, "/b/": {"get": {}}, "/c": {"get": {}}, "/c/": {"post": {}}}}"#;

/// Documents in a folder of their own.
struct Documents(tempfile::TempDir);

impl Documents {
    fn new(files: &[(&str, &str)]) -> Documents {
        let documents = Documents(tempfile::tempdir().expect("a folder"));
        for (name, text) in files {
            documents.write(name, text);
        }
        documents
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn before(&self, backend: &Backend, names: &[&str]) -> Builder<'_> {
        let paths: Vec<_> = names.iter().map(|name| self.path(name).display().to_string()).collect();
        Sidecar::before(backend).env("GOLDEN_OPENAPI", &paths.join(",")).env("GOLDEN_LEARN_ENABLED", "false")
    }
}

/// Sends the requests one after the other, and compares the labels of all of them.
#[track_caller]
fn expect_labels(sidecar: &Sidecar, requests: &[(&str, &str, &str)]) -> Page {
    let before = sidecar.scrape().sum("golden_requests_total", &[]) as usize;
    let mut counts: Vec<((&str, &str), f64)> = Vec::new();
    let old = sidecar.scrape();
    for (method, path, label) in requests {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let _ = sidecar.exchange(request);
        match counts.iter_mut().find(|(key, _)| *key == (*method, *label)) {
            Some((_, count)) => *count += 1.0,
            None => counts.push(((method, label), 1.0)),
        }
    }
    let page = sidecar.settled(before + requests.len());
    for ((method, label), count) in counts {
        let labels = [("http_route", label), ("http_request_method", method)];
        let counted = page.sum("golden_requests_total", &labels) - old.sum("golden_requests_total", &labels);
        assert_eq!(counted, count, "{method} {label}\n{}", page.lines_of("golden_requests_total"));
    }
    page
}

/// The routes that have series.
fn routes(page: &Page) -> Vec<String> {
    let mut routes: Vec<String> =
        page.nonzero("golden_requests_total").iter().map(|s| s.labels["http_route"].clone()).collect();
    routes.sort();
    routes.dedup();
    routes
}

fn run(arguments: &[&str], document: &Path) -> Output {
    let mut command = program();
    command.args(["--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.args(arguments).env("GOLDEN_OPENAPI", document).output().expect("started")
}

#[test]
fn a_swagger_document_labels_requests_below_its_base_path() {
    let backend = Backend::always("ok");
    let documents = Documents::new(&[("pets.json", SWAGGER_2)]);
    let sidecar = documents.before(&backend, &["pets.json"]).start();
    let page = expect_labels(
        &sidecar,
        &[
            ("GET", "/v2/pet/7", "/v2/pet/{petId}"),
            ("GET", "/v2/pet/findByStatus?status=sold", "/v2/pet/findByStatus"),
            ("DELETE", "/v2/pet/8", "/v2/pet/{petId}"),
            // The document has a template for this method, and it is not the literal one.
            ("DELETE", "/v2/pet/findByStatus", "/v2/pet/{petId}"),
            ("POST", "/v2/pet", "/v2/pet"),
            ("POST", "/v2/pet/", "/v2/pet"),
            // Not written down, but the path is there.
            ("HEAD", "/v2/pet/9", "/v2/pet/{petId}"),
            ("OPTIONS", "/v2/pet/findByStatus", "/v2/pet/findByStatus"),
            ("PATCH", "/v2/pet/9", "/v2/pet/{petId}"),
            ("GET", "/pet/7", "_unmatched"),
            ("GET", "/v2/pet/7/8", "_unmatched"),
            ("GET", "/v2/pet//", "_unmatched"),
        ],
    );
    assert_eq!(page.value("golden_openapi_templates", &[]), 3.0);
}

#[test]
fn servers_references_and_parameters_inside_segments_are_understood() {
    let backend = Backend::always("ok");
    let documents = Documents::new(&[("orders.yaml", OPENAPI_3_0), ("more.json", OPENAPI_3_1)]);
    let sidecar = documents.before(&backend, &["orders.yaml", "more.json"]).start();
    expect_labels(
        &sidecar,
        &[
            ("GET", "/live/orders/1", "/live/orders/{id}"),
            ("PUT", "/test/orders/1", "/test/orders/{id}"),
            ("GET", "/internal/orders/1", "/internal/orders/{id}"),
            ("GET", "/orders/1", "_unmatched"),
            ("GET", "/live/orders/1/lines/2.json", "/live/orders/{name}/lines/{line}.{format}"),
            ("GET", "/live/orders/1/lines/2", "_unmatched"),
            ("GET", "/live/compare/main...feature/x", "_unmatched"),
            ("GET", "/live/compare/v1...v2", "/live/compare/{base}...{head}"),
            ("POST", "/live/jobs/5:cancel", "/live/jobs/{id}:cancel"),
            ("GET", "/status", "/status"),
            ("POST", "/write/status", "/write/status"),
            ("GET", "/live/status", "_unmatched"),
            ("GET", "/test/shared", "/test/shared"),
            ("GET", "/live/elsewhere", "_unmatched"),
            ("GET", "/a/1", "/a/{x}"),
            ("GET", "/a/%2F%20", "/a/{x}"),
            ("GET", "/b", "/b/"),
            ("GET", "/b/", "/b/"),
            ("GET", "/c/", "/c"),
            ("POST", "/c/", "/c/"),
            ("POST", "/c", "/c/"),
        ],
    );
    assert!(sidecar.log().iter().any(|line| line.contains("openapi_notes") && line.contains("other.yaml")));
}

#[test]
fn declared_templates_come_first_and_equal_ones_share_a_label() {
    let backend = Backend::always("ok");
    let documents = Documents::new(&[
        (
            "one.yaml",
            "openapi: 3.0.0\npaths: {'/users/{id}': {get: {}, post: {}}, '/users/{name}': {delete: {}}, '/files/{x}': {get: {}}}\n",
        ),
        ("two.yaml", "openapi: 3.0.0\npaths: {'/users/{user}': {patch: {}}, /two: {}}\n"),
    ]);
    let routes = "routes:\n  - path: /users/{declared}\n    methods: [GET]\n  - path: /files/{*rest}\n";
    let sidecar = documents.before(&backend, &["one.yaml", "two.yaml"]).yaml(routes).start();
    let page = expect_labels(
        &sidecar,
        &[
            ("GET", "/users/1", "/users/{declared}"),
            ("POST", "/users/1", "/users/{id}"),
            ("DELETE", "/users/1", "/users/{id}"),
            ("PATCH", "/users/1", "/users/{id}"),
            ("GET", "/files/a", "/files/{rest}"),
            ("GET", "/files/a/b", "/files/{rest}"),
            ("TRACE", "/two", "/two"),
        ],
    );
    assert!(!page.text.contains("{user}") && !page.text.contains("{x}") && !page.text.contains("{*"), "{}", page.text);
    for told in ["/users/{name}", "/users/{user}", "is declared too"] {
        assert!(sidecar.log().iter().any(|line| line.contains("openapi_notes") && line.contains(told)), "{told}");
    }
}

#[test]
fn templates_without_a_request_have_no_series() {
    let backend = Backend::always("ok");
    let documents = Documents::new(&[("pets.json", SWAGGER_2)]);
    let sidecar = documents.before(&backend, &["pets.json"]).start();
    assert!(!sidecar.scrape().text.contains("/v2/pet"));
    let page = expect_labels(&sidecar, &[("GET", "/v2/pet/7", "/v2/pet/{petId}")]);
    assert!(!page.text.contains("findByStatus"));
}

#[test]
fn malformed_documents_end_the_start_with_one_sentence() {
    let documents = Documents::new(&[]);
    let file = |name: &str| format!("{:?}", documents.path(name).display().to_string());
    let accepted = "expected a Swagger 2.0 or OpenAPI 3 document in JSON or YAML";
    for (name, text, expected) in [
        (
            "a.json",
            "{\"openapi\": \"3.0.0\",",
            format!("is not valid JSON at line 1 column 20: EOF while parsing a value; {accepted}"),
        ),
        ("b.yaml", "hello: world\n", format!("has neither the key openapi nor swagger; {accepted}")),
        ("c.yaml", "swagger: 1.2\n", "has \"1.2\" at swagger; expected \"2.0\"".to_owned()),
        (
            "d.yaml",
            "openapi: 3.1.0\npaths: {/a: [get]}\n",
            "has a list at paths./a; expected a map of methods".to_owned(),
        ),
    ] {
        documents.write(name, text);
        for arguments in [[].as_slice(), &["check"]] {
            let output = run(arguments, &documents.path(name));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert_eq!(said, format!("openapi: {} {expected}\n", file(name)));
            assert!(output.stdout.is_empty());
        }
    }
    let output = run(&[], &documents.path("absent.yaml"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said, format!("openapi: cannot read {}: No such file or directory (os error 2)\n", file("absent.yaml")));
}

#[test]
fn the_document_of_a_backend_that_comes_up_later_is_taken_in() {
    let mut backend = Backend::always("never asked");
    let address = backend.address;
    backend.stop();
    let sidecar = Sidecar::upstream(format!("http://{address}"))
        .env("GOLDEN_OPENAPI", &format!("http://me:hunter2@{address}/openapi.json"))
        .env("GOLDEN_LEARN_ENABLED", "false")
        .start();
    let failed = |reason| sidecar.scrape().value("golden_openapi_failures_total", &[("reason", reason)]);
    wait_until("it was asked for", || failed("unreachable") >= 2.0);
    assert_eq!(sidecar.scrape().value("golden_openapi_templates", &[]), 0.0);
    // At first it has something else there.
    let mut starting = Backend::start_at(address, |peer| {
        while peer.read_request().is_some() {
            peer.send(ok("<html>starting</html>"));
        }
    });
    wait_until("it was read", || failed("malformed") >= 1.0);
    starting.stop();
    let _backend = Backend::start_at(address, |peer| {
        while let Some(request) = peer.read_request() {
            let document = request.head.target() == "/openapi.json";
            peer.send(if document { ok(SWAGGER_2) } else { response(404, "", "") });
        }
    });
    sidecar.page_when("the templates are there", |page| page.value("golden_openapi_templates", &[]) == 3.0);
    wait_until("the workers know them", || {
        let _ = sidecar.get("/v2/pet/7");
        sidecar.scrape().has("golden_requests_total", &[("http_route", "/v2/pet/{petId}")])
    });
    let log = sidecar.log();
    let told = |text: &str| log.iter().filter(|line| line.contains("openapi_failed") && line.contains(text)).count();
    assert_eq!(told("nobody answers there"), 1, "once, not for each attempt: {log:?}");
    assert_eq!(told("neither the key openapi") + told("at its top"), 1, "{log:?}");
    assert!(!log.iter().any(|line| line.contains("hunter2")), "{log:?}");
}

#[test]
fn a_reload_reads_documents_again_and_keeps_what_was_counted() {
    let backend = Backend::always("ok");
    let documents = Documents::new(&[("a.yaml", "openapi: 3.0.0\npaths: {'/a/{x}': {get: {}}, /b: {get: {}}}\n")]);
    let sidecar = documents.before(&backend, &["a.yaml"]).start();
    let reloads = |result| sidecar.scrape().value("golden_config_reloads_total", &[("result", result)]);
    expect_labels(&sidecar, &[("GET", "/a/1", "/a/{x}"), ("GET", "/b", "/b")]);

    documents.write("a.yaml", "openapi: 3.0.0\npaths: {'/a/{y}': {get: {}}, /b: {get: {}}, /c: {}}\n");
    sidecar.signal(libc::SIGHUP);
    wait_until("the reload", || reloads("success") == 1.0);
    wait_until("the workers know", || {
        let _ = sidecar.get("/c");
        sidecar.scrape().has("golden_requests_total", &[("http_route", "/c")])
    });
    let page = expect_labels(&sidecar, &[("GET", "/a/1", "/a/{y}"), ("GET", "/b", "/b")]);
    for (route, count) in [("/a/{x}", 1.0), ("/a/{y}", 1.0), ("/b", 2.0)] {
        assert_eq!(page.sum("golden_requests_total", &[("http_route", route)]), count, "{route}");
    }
    assert_eq!(page.value("golden_openapi_templates", &[]), 3.0);

    for (round, text, reason) in [(1.0, "openapi: 3.0.0\npaths: []\n", "malformed"), (2.0, "", "malformed")] {
        documents.write("a.yaml", text);
        sidecar.signal(libc::SIGHUP);
        wait_until("the refusal", || reloads("failure") == round);
        assert_eq!(sidecar.scrape().value("golden_openapi_failures_total", &[("reason", reason)]), round);
    }
    assert!(sidecar.log().iter().any(|line| line.contains("reload_failed") && line.contains("has a list at paths")));
    let page = expect_labels(&sidecar, &[("GET", "/a/1", "/a/{y}"), ("GET", "/c", "/c")]);
    assert_eq!(page.value("golden_openapi_templates", &[]), 3.0, "the old ones stay in force");
}

#[test]
fn only_regular_files_are_read() {
    let backend = Backend::always("ok");
    let documents = Documents::new(&[("a.yaml", "openapi: 3.0.0\npaths: {/a: {}}\n")]);
    let pipe = documents.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("started").success());
    for path in [pipe.as_path(), documents.0.path()] {
        for arguments in [[].as_slice(), &["check"]] {
            let output = run(arguments, path);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert_eq!(said, format!("openapi: cannot read {:?}: it is no regular file\n", path.display().to_string()));
        }
    }
    let sidecar = documents.before(&backend, &["a.yaml"]).start();
    std::fs::rename(&pipe, documents.path("a.yaml")).expect("renamed");
    sidecar.signal(libc::SIGHUP);
    wait_until("the refusal", || sidecar.logged("it is no regular file"));
    expect_labels(&sidecar, &[("GET", "/a", "/a")]);
}

#[test]
fn a_signal_to_stop_is_heeded_while_documents_are_read() {
    // Reading it takes many times as long where nothing is optimised.
    const SOON: Duration = Duration::from_secs(3);
    let large = format!("openapi: 3.0.0\nx:\n{}paths: {{/a: }}\n", "- [1, 2, 3, 4, 5, 6]\n".repeat(500_000));
    let backend = Backend::always("ok");
    let documents = Documents::new(&[("a.yaml", "openapi: 3.0.0\npaths: {/a: {}}\n")]);
    let mut sidecar = documents.before(&backend, &["a.yaml"]).flag("--drain-grace", "0s").start();
    documents.write("a.yaml", &large);
    let before = sidecar.resident();
    let is_read = |sidecar: &Sidecar| sidecar.resident() > before + large.len() as u64;
    sidecar.signal(libc::SIGHUP);
    wait_until("the file is read", || is_read(&sidecar));
    sidecar.signal(libc::SIGTERM);
    assert!(sidecar.wait_exit(SOON).success());
    assert!(!sidecar.logged("reload_failed") && !sidecar.logged("\"reloaded\""), "{:?}", sidecar.log());

    // From a backend too.
    let document = large.clone();
    let backend = Backend::answering(move |_| ok(&document));
    let url = format!("http://{}/openapi.yaml", backend.address);
    let mut sidecar = Sidecar::before(&backend).env("GOLDEN_OPENAPI", &url).flag("--drain-grace", "0s").start();
    wait_until("the answer is read", || is_read(&sidecar));
    sidecar.signal(libc::SIGTERM);
    assert!(sidecar.wait_exit(SOON).success());
    assert!(!sidecar.logged("openapi_read"), "{:?}", sidecar.log());
}

#[test]
fn imported_labels_are_limited_and_the_rest_is_other() {
    let backend = Backend::always("ok");
    let documents =
        Documents::new(&[("a.yaml", "openapi: 3.0.0\npaths: {/a: {}, /b: {}, /c: {}, /d: {}, '/e/{x}': {}}\n")]);
    let routes = "routes: [{path: /declared}, {path: /d}]\n";
    let sidecar = documents.before(&backend, &["a.yaml"]).yaml(routes).flag("--routes-limit", 2).start();
    let page = expect_labels(
        &sidecar,
        &[
            ("GET", "/c", "/c"),
            ("GET", "/e/1", "/e/{x}"),
            ("GET", "/a", "_other"),
            ("GET", "/b", "_other"),
            // Declared ones do not count.
            ("GET", "/d", "/d"),
            ("GET", "/declared", "/declared"),
            ("GET", "/c", "/c"),
            ("GET", "/e/2", "/e/{x}"),
            ("GET", "/a", "_other"),
            ("GET", "/nowhere", "_unmatched"),
        ],
    );
    assert_eq!(self::routes(&page), ["/c", "/d", "/declared", "/e/{x}", "_other", "_unmatched"]);
    assert_eq!(page.value("golden_openapi_templates", &[]), 5.0);
}

#[test]
fn a_higher_limit_takes_effect_with_a_reload() {
    let backend = Backend::always("ok");
    let documents = Documents::new(&[("a.yaml", "openapi: 3.0.0\npaths: {/a: {}, /b: {}}\n")]);
    let sidecar = documents.before(&backend, &["a.yaml"]).yaml("learn: {limit: 1}\n").start();
    expect_labels(&sidecar, &[("GET", "/a", "/a"), ("GET", "/b", "_other")]);
    sidecar.rewrite("learn: {limit: 2}\n");
    sidecar.signal(libc::SIGHUP);
    wait_until("/b has a label", || {
        let _ = sidecar.get("/b");
        sidecar.scrape().has("golden_requests_total", &[("http_route", "/b")])
    });
}

#[test]
fn requests_over_http2_have_the_same_labels() {
    let backend = Backend::always("ok");
    let documents = Documents::new(&[("pets.json", SWAGGER_2)]);
    let sidecar = documents.before(&backend, &["pets.json"]).workers(2).start();
    h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        for (method, path) in [("GET", "/v2/pet/7?x=/y"), ("PUT", "/v2/pet"), ("GET", "/v2/none")] {
            let (response, _) = h2c::send(&client, h2c::request(method, path), true).await;
            let mut body = response.await.expect("a response").into_body();
            h2c::read_all(&mut body).await.expect("a body");
        }
    });
    let page = sidecar.settled(3);
    assert_eq!(routes(&page), ["/v2/pet", "/v2/pet/{petId}", "_unmatched"]);
}

#[test]
fn a_state_file_that_cannot_be_read_is_no_reason_not_to_start() {
    let backend = Backend::always("ok");
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().display().to_string();
    let mut sidecar =
        Sidecar::before(&backend).learning().env("GOLDEN_LEARN_STATE", &state).flag("--drain-grace", "0s").start();
    assert!(sidecar.log().iter().any(|line| line.contains("learned_not_read") && line.contains(&state)));
    sidecar.signal(libc::SIGTERM);
    assert!(sidecar.wait_exit(Duration::from_secs(10)).success());
}
