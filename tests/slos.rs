//! Objectives: each request counts once in every one that covers its route, by its exact duration, and each threshold is an
//! edge of the histograms of those routes.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Backend, Gate, Page, Sidecar, ok, response, wait_until};

const DURATION: &str = "http_server_request_duration_seconds";
const FIRST_BYTE: &str = "golden_time_to_first_byte_seconds";
const RESULTS: [&str; 4] = ["good", "slow", "error", "excluded"];

/// Good, slow, error, excluded. All four are on the page whenever the objective has been there.
#[track_caller]
fn results(page: &Page, slo: &str) -> [f64; 4] {
    RESULTS.map(|result| page.value("golden_slo_requests_total", &[("slo", slo), ("result", result)]))
}

/// The edges of a family on a route.
fn edges(page: &Page, family: &str, route: &str) -> BTreeSet<String> {
    let buckets = format!("{family}_bucket");
    page.matching(&buckets, &[("http_route", route)]).map(|sample| sample.labels["le"].clone()).collect()
}

/// Reloads with this file.
#[track_caller]
fn reload(sidecar: &Sidecar, yaml: &str) {
    let reloads = |page: &Page| page.sum("golden_config_reloads_total", &[("result", "success")]);
    let before = reloads(&sidecar.scrape());
    sidecar.rewrite(yaml);
    sidecar.signal(libc::SIGHUP);
    sidecar.page_when("the reload is counted", |page| reloads(page) == before + 1.0);
}

#[test]
fn an_objective_is_on_the_page_from_the_start() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend)
        .yaml("slos:\n  - {name: all, objective: 0.999}\n  - {name: quick, objective: 0.95, latency: 300ms}\n")
        .start();
    let page = sidecar.scrape();
    assert_eq!((results(&page, "all"), results(&page, "quick")), ([0.0; 4], [0.0; 4]));
    assert_eq!(page.value("golden_slo_objective_ratio", &[("slo", "all")]), 0.999);
    assert_eq!(page.value("golden_slo_objective_ratio", &[("slo", "quick")]), 0.95);
    assert_eq!(page.value("golden_slo_latency_threshold_seconds", &[("slo", "quick")]), 0.3);
    assert!(!page.has("golden_slo_latency_threshold_seconds", &[("slo", "all")]), "it has none");
}

#[test]
fn a_threshold_is_compared_with_the_duration_itself() {
    // The backend holds its answer for a while, and thresholds lie on both sides of it, a millisecond apart. How long it took
    // to the nanosecond is the sum of the histogram.
    const HELD: u64 = 200;
    let gate = Gate::new();
    let door = gate.clone();
    let backend = Backend::answering(move |_| {
        door.wait();
        ok("at last")
    });
    let thresholds: Vec<u64> = [1, 100].into_iter().chain(HELD - 2..HELD + 14).chain([60_000, 120_000]).collect();
    let slo = |ms: &u64| format!("  - {{name: s{ms}, objective: 0.9, latency: {ms}ms}}\n");
    let slos: String = thresholds.iter().map(slo).collect();
    let sidecar = Sidecar::before(&backend).yaml(format!("slos:\n{slos}")).start();
    let mut client = sidecar.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(client.peek_for(Duration::from_millis(HELD)).is_empty());
    gate.open();
    assert_eq!(client.read_response("GET").status(), 200);
    let page = sidecar.settled(1);
    let took = page.sum(&format!("{DURATION}_sum"), &[]);
    for ms in &thresholds {
        let edge = *ms as f64 / 1e3;
        let expected = if took <= edge { [1.0, 0.0, 0.0, 0.0] } else { [0.0, 1.0, 0.0, 0.0] };
        assert_eq!(results(&page, &format!("s{ms}")), expected, "{took} s, {edge} s");
        assert_eq!(page.bucket(DURATION, &edge.to_string(), &[]), expected[0], "{took} s, {edge} s");
    }
    assert_eq!((results(&page, "s100")[1], results(&page, "s60000")[0]), (1.0, 1.0), "both have been seen");
}

#[test]
fn each_request_is_one_of_four_things_to_an_objective() {
    let backend = Backend::of_all_ends();
    let sidecar = Sidecar::before(&backend)
        .yaml(
            "slos:\n  - {name: all, objective: 0.9, latency: 10m}\n  - {name: other, objective: 0.9, routes: [/x]}\n\
             probes:\n  paths: [/healthz, /healthz/error]\nlimits:\n  request_line_bytes: 100B\n",
        )
        .start();
    let mut sent = 0;
    let mut expect = |what: &str, expected: [f64; 4]| {
        sent += 1;
        let page = sidecar.settled(sent);
        assert_eq!(results(&page, "all"), expected, "{what}");
        assert_eq!(results(&page, "other"), [0.0; 4], "{what}");
    };
    sidecar.get("/");
    expect("an answer", [1.0, 0.0, 0.0, 0.0]);
    sidecar.get("/missing");
    expect("404 of the backend", [2.0, 0.0, 0.0, 0.0]);
    assert_eq!(sidecar.get(&format!("/{}", "x".repeat(100))).status(), 414);
    expect("414 of the sidecar", [3.0, 0.0, 0.0, 0.0]);
    sidecar.exchange("JUNK\x01\r\n\r\n");
    expect("400 of the sidecar", [4.0, 0.0, 0.0, 0.0]);
    sidecar.get("/error");
    expect("500 of the backend", [4.0, 0.0, 1.0, 0.0]);
    sidecar.get("/cut");
    expect("half an answer", [4.0, 0.0, 2.0, 0.0]);
    sidecar.get("/healthz");
    expect("a probe", [4.0, 0.0, 2.0, 1.0]);
    sidecar.get("/healthz/error");
    expect("a probe that fails", [4.0, 0.0, 2.0, 2.0]);
    sidecar.get("/events");
    expect("an event stream", [4.0, 0.0, 2.0, 3.0]);
    let mut client = sidecar.client();
    client.send("GET /chat HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.read_head().status(), 101);
    drop(client);
    expect("a tunnel", [4.0, 0.0, 2.0, 4.0]);
    let mut client = sidecar.client();
    client.send("GET /silent HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request is at the backend", || backend.requests().iter().any(|r| r.head.target() == "/silent"));
    drop(client);
    expect("a client that leaves", [4.0, 0.0, 2.0, 5.0]);
}

#[test]
fn a_backend_that_is_not_there_is_an_error_however_fast() {
    let mut backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).yaml("slos: [{name: all, objective: 0.9, latency: 10m}]\n").start();
    backend.stop();
    assert_eq!(sidecar.get("/").status(), 502);
    assert_eq!(results(&sidecar.settled(1), "all"), [0.0, 0.0, 1.0, 0.0]);
}

#[test]
fn routes_from_every_source_are_covered_and_have_the_threshold_as_an_edge() {
    let backend = Backend::answering(|request| match request.head.target() {
        "/nothing" => response(404, "", ""),
        _ => ok("fine"),
    });
    let document = tempfile::NamedTempFile::with_suffix(".json").expect("a file");
    let text = r#"{"openapi": "3.1.0", "paths": {"/pets/{pet}": {"get": {}}, "/toys/{toy}": {"get": {}}}}"#;
    std::fs::write(document.path(), text).expect("write");
    let sidecar = Sidecar::before(&backend)
        .workers(2)
        .learning()
        .yaml(format!(
            "openapi: {}\nlearn:\n  limit: 3\nbuckets: [1, 2]\nroutes:\n  - path: /declared/{{name}}\n    buckets: [3]\n  \
             - path: /plain\nslos:\n  - name: some\n    objective: 0.9\n    latency: 1118ms\n    \
             routes: ['/declared/{{name}}', '/pets/{{pet}}', '/users/{{id}}', /never]\n  \
             - {{name: all, objective: 0.99, latency: 5m}}\n",
            document.path().display()
        ))
        .start();
    let mut client = sidecar.client();
    for path in ["/declared/a", "/pets/b", "/users/77", "/users/78", "/plain", "/toys/c", "/nothing"] {
        client.get(path);
    }
    // Beyond the limit of labels.
    client.get("/late");
    let page = sidecar.settled(8);
    assert_eq!(results(&page, "some"), [4.0, 0.0, 0.0, 0.0]);
    assert_eq!(results(&page, "all"), [8.0, 0.0, 0.0, 0.0]);
    let set = |edges: &[&str]| -> BTreeSet<String> { edges.iter().map(|edge| (*edge).to_owned()).collect() };
    for family in [DURATION, FIRST_BYTE] {
        assert_eq!(edges(&page, family, "/declared/{name}"), set(&["1.118", "3", "300", "+Inf"]), "{family}");
        for route in ["/pets/{pet}", "/users/{id}"] {
            assert_eq!(edges(&page, family, route), set(&["1", "1.118", "2", "300", "+Inf"]), "{family} {route}");
        }
        for route in ["/plain", "/toys/{toy}", "_unmatched", "_other"] {
            assert_eq!(edges(&page, family, route), set(&["1", "2", "300", "+Inf"]), "{family} {route}");
        }
    }
}

#[test]
fn a_reload_counts_by_the_new_objectives_and_loses_no_count() {
    let backend = Backend::answering(|request| match request.head.target() {
        "/b" => response(500, "", ""),
        _ => ok("fine"),
    });
    let routes = "routes:\n  - path: /a\n  - path: /b\n";
    let with = |slos: &str| format!("buckets: [1]\n{routes}{slos}");
    let sidecar = Sidecar::before(&backend)
        .workers(2)
        .yaml(with(
            "slos:\n  - {name: kept, objective: 0.9, latency: 2m}\n  - {name: gone, objective: 0.9, routes: [/a]}\n",
        ))
        .start();
    let both = || ["/a", "/b"].map(|path| sidecar.get(path).status());
    both();
    let page = sidecar.settled(2);
    assert_eq!((results(&page, "kept"), results(&page, "gone")), ([1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]));

    // Another objective, threshold and routes, and a new name in the place of the one that goes.
    let new = "slos:\n  - {name: new, objective: 0.5, latency: 3m}\n  - {name: kept, objective: 0.99, routes: [/b]}\n";
    let later = format!("{}{new}", with("").replace("/b\n", "/b\n  - path: /c\n"));
    reload(&sidecar, &later);
    both();
    sidecar.get("/c");
    let page = sidecar.settled(5);
    assert_eq!(results(&page, "kept"), [1.0, 0.0, 2.0, 0.0]);
    assert_eq!(results(&page, "gone"), [1.0, 0.0, 0.0, 0.0], "its counts stay");
    assert_eq!(results(&page, "new"), [2.0, 0.0, 1.0, 0.0]);
    let gauges = |name: &str| -> Vec<(String, f64)> {
        page.matching(name, &[]).map(|sample| (sample.labels["slo"].clone(), sample.value)).collect()
    };
    assert_eq!(gauges("golden_slo_objective_ratio"), [("new".to_owned(), 0.5), ("kept".to_owned(), 0.99)]);
    assert_eq!(gauges("golden_slo_latency_threshold_seconds"), [("new".to_owned(), 180.0)]);
    // No histogram is reset: routes that exist keep their edges, a new one has the new threshold.
    let set = |edges: &[&str]| -> BTreeSet<String> { edges.iter().map(|edge| (*edge).to_owned()).collect() };
    assert_eq!(edges(&page, DURATION, "/a"), set(&["1", "120", "+Inf"]));
    assert_eq!(edges(&page, DURATION, "/c"), set(&["1", "180", "+Inf"]));
    assert_eq!(page.count(DURATION, &[("http_route", "/a")]), 2.0);

    // All gone, and back again.
    reload(&sidecar, &with("slos: []\n"));
    both();
    let page = sidecar.settled(7);
    assert_eq!(results(&page, "kept"), [1.0, 0.0, 2.0, 0.0]);
    assert!(!page.has("golden_slo_objective_ratio", &[]));
    reload(&sidecar, &with("slos: [{name: gone, objective: 0.9}]\n"));
    both();
    let page = sidecar.settled(9);
    assert_eq!(results(&page, "gone"), [2.0, 0.0, 1.0, 0.0], "it goes on where it was");
}

#[test]
fn before_anybody_has_promised_anything_three_nines_of_all_requests_are_watched() {
    let backend = Backend::answering(|request| match request.head.target() {
        "/bad" => response(500, "", ""),
        _ => ok("hello\n"),
    });
    let sidecar = Sidecar::start(&backend);
    assert_eq!(sidecar.scrape().sum("golden_slo_requests_total", &[("slo", "all")]), 0.0);
    sidecar.get("/good");
    sidecar.get("/bad");
    let page = sidecar.settled(2);
    assert_eq!(results(&page, "all"), [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(page.value("golden_slo_objective_ratio", &[("slo", "all")]), 0.999);
    assert!(!page.has("golden_slo_latency_threshold_seconds", &[]), "nobody can guess it");
}
