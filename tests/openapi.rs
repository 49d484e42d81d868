//! Templates of OpenAPI and Swagger documents, through the front door: a real sidecar, a real backend, the real page.

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use common::sidecar::{Builder, program};
use common::{Backend, Page, Sidecar, h2c, ok, response};

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

    fn before(&self, backend: &Backend, names: &[&str]) -> Builder {
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
