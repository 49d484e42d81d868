//! The page: every number on it equals what this test did, every family of the catalogue is there in its agreed shape.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Backend, Client, Gate, Outcome, Page, Sidecar, StopOnDrop, ok, response, wait_until};
use golden_sidecar::signals::families;
use tokio::time::Instant;

/// Answers with the status that the query asks for: `/x?418`.
fn obedient() -> Backend {
    Backend::answering(|request| {
        let target = request.head.target();
        let status = target.split_once('?').map_or(200, |(_, status)| status.parse().expect("a status"));
        if request.head.method() == "HEAD" || status == 304 || status == 204 {
            return format!("HTTP/1.1 {status} Reason\r\n\r\n").into_bytes();
        }
        response(status, "", "body")
    })
}

fn send(client: &mut Client, method: &str, target: &str) -> u16 {
    let length = if matches!(method, "POST" | "PUT" | "PATCH") { "Content-Length: 0\r\n" } else { "" };
    client.exchange(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{length}\r\n")).status()
}

// --- counts ---

#[test]
fn every_count_equals_what_was_sent() {
    let backend = obedient();
    let sidecar = Sidecar::before(&backend).yaml("routes:\n  - path: /users/{id}\n  - path: /orders\n").start();
    // (route, method, target, status, how often): all how-oftens differ, so that no two series can be mistaken.
    let plan = [
        ("/users/{id}", "GET", "/users/1?200", 200, 7),
        ("/users/{id}", "GET", "/users/2?404", 404, 3),
        ("/users/{id}", "PUT", "/users/3?204", 204, 5),
        ("/users/{id}", "GET", "/users/4?500", 500, 2),
        ("/orders", "POST", "/orders?201", 201, 11),
        ("/orders", "GET", "/orders?304", 304, 4),
        ("/orders", "HEAD", "/orders", 200, 6),
        ("/orders", "GET", "/orders?503", 503, 1),
        ("_unmatched", "GET", "/elsewhere?200", 200, 13),
        ("_unmatched", "DELETE", "/orders/7?404", 404, 8),
        ("_unmatched", "BREW", "/pot?418", 418, 9),
    ];
    let mut client = sidecar.client();
    for (_, method, target, status, times) in plan {
        for _ in 0..times {
            assert_eq!(send(&mut client, method, target), status);
        }
    }
    let outcomes: Vec<Outcome> = plan
        .iter()
        .flat_map(|(route, method, _, status, times)| {
            let method = if *method == "BREW" { "_OTHER" } else { method };
            let text: &'static str = Box::leak(status.to_string().into_boxed_str());
            // The phase of a 5xx of the backend itself: it was met while waiting for the head.
            let error = (*status >= 500).then_some((text, "backend", "wait"));
            vec![Outcome { route, error, ..Outcome::backend(method, text) }; *times]
        })
        .collect();
    let page = sidecar.expect(&outcomes);
    // The two families agree as wholes, too.
    assert_eq!(page.count("http_server_request_duration_seconds", &[]), outcomes.len() as f64);
    assert_eq!(page.count("golden_time_to_first_byte_seconds", &[]), outcomes.len() as f64);
    for (outcome, count) in
        [("success", 7 + 5 + 11 + 4 + 6 + 13), ("client_error", 3 + 8 + 9), ("server_error", 2 + 1), ("aborted", 0)]
    {
        let labels = [("outcome", outcome)];
        assert_eq!(page.count("golden_time_to_first_byte_seconds", &labels), f64::from(count), "{outcome}");
    }
}

#[test]
fn bytes_are_those_of_bodies_whatever_the_framing() {
    let backend = Backend::answering(|request| {
        match request.head.target() {
        "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n8\r\n, world!\r\n0\r\nX-T: 1\r\n\r\n".to_vec(),
        "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec(),
        _ => ok(vec![b'a'; 1234]),
    }
    });
    let sidecar =
        Sidecar::before(&backend).yaml("routes:\n  - path: /chunked\n  - path: /length\n  - path: /head\n").start();
    let mut client = sidecar.client();
    client.exchange("POST /chunked HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3;e\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
    client.exchange("POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 21\r\n\r\nexactly-21-bytes-long");
    client.exchange("HEAD /head HTTP/1.1\r\nHost: test\r\n\r\n");
    let page = sidecar.settled(3);
    let of = |family: &str, route: &str| page.value(family, &[("http_route", route)]);
    assert_eq!(of("golden_request_bytes_total", "/chunked"), 7.0);
    assert_eq!(of("golden_response_bytes_total", "/chunked"), 13.0);
    assert_eq!(of("golden_request_bytes_total", "/length"), 21.0);
    assert_eq!(of("golden_response_bytes_total", "/length"), 1234.0);
    assert_eq!(of("golden_request_bytes_total", "/head"), 0.0);
    assert_eq!(of("golden_response_bytes_total", "/head"), 0.0, "the length of an absent body is not handed over");
}

#[test]
fn a_probe_is_marked_by_its_path_or_user_agent() {
    let backend = Backend::always("ok");
    let sidecar =
        Sidecar::before(&backend).yaml("probes:\n  paths: [/healthz]\n  user_agents: [kube-probe/, Checker]\n").start();
    let mut client = sidecar.client();
    for (target, agent) in [
        ("/healthz", "curl"),
        ("/healthz?deep=1", "curl"),
        ("/", "kube-probe/1.30"),
        ("/", "Checker"),
        ("/healthz/more", "curl"),
        ("/", "curl kube-probe/1.30"),
        ("/", "Checke"),
    ] {
        client.exchange(format!("GET {target} HTTP/1.1\r\nHost: test\r\nUser-Agent: {agent}\r\n\r\n"));
    }
    let page = sidecar.settled(7);
    assert_eq!(page.sum("golden_requests_total", &[("traffic", "probe")]), 4.0);
    assert_eq!(page.sum("golden_requests_total", &[("traffic", "user")]), 3.0);
}

#[test]
fn the_sidecars_own_probe_of_the_backend_is_no_traffic() {
    let backend = obedient();
    let sidecar = Sidecar::before(&backend).yaml("readiness:\n  path: /ready?200\n  interval: 100ms\n").start();
    wait_until("the backend was probed", || backend.requests().len() >= 3);
    let page = sidecar.expect(&[]);
    assert_eq!(page.value("golden_backend_up", &[]), 1.0);
    assert!(page.value("golden_backend_probe_duration_seconds", &[]) > 0.0);
    assert_eq!(page.sum("golden_upstream_connections_opened_total", &[]), 0.0);
}

#[test]
fn admin_requests_are_no_traffic_and_proxy_paths_are_never_admin() {
    let backend = Backend::answering(|request| ok(request.head.target()));
    let sidecar = Sidecar::start(&backend);
    let paths = ["/metrics", "/livez", "/readyz", "/api/v1/config", "/api/v1/signals"];
    for path in paths {
        sidecar.admin_get(path, "");
        assert_eq!(sidecar.get(path).text(), path, "the proxy port belongs to the backend");
    }
    let page = sidecar.settled(paths.len());
    // The defaults of `probes.paths`.
    assert_eq!(page.sum("golden_requests_total", &[("traffic", "probe")]), 2.0);
}

// --- routes ---

#[test]
fn declared_routes_exist_at_zero_from_the_start() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).yaml("routes:\n  - path: /users/{id}\n  - path: /orders\n").start();
    let page = sidecar.scrape();
    for route in ["/users/{id}", "/orders"] {
        for status in ["200", "301", "404", "500"] {
            let labels = [
                ("http_route", route),
                ("http_request_method", "GET"),
                ("http_response_status_code", status),
                ("origin", "backend"),
                ("traffic", "user"),
            ];
            assert_eq!(page.value("golden_requests_total", &labels), 0.0);
        }
    }
    assert!(!page.has("golden_requests_total", &[("http_route", "_unmatched")]), "that one has seen no request");
    sidecar.get("/elsewhere");
    let page = sidecar.settled(1);
    for (status, value) in [("200", 1.0), ("301", 0.0), ("404", 0.0), ("500", 0.0)] {
        let labels = [
            ("http_route", "_unmatched"),
            ("http_request_method", "GET"),
            ("http_response_status_code", status),
            ("origin", "backend"),
            ("traffic", "user"),
        ];
        assert_eq!(page.value("golden_requests_total", &labels), value, "{status}");
    }
}

const ROUTES: [&str; 6] = [
    "  - path: /users/{id}\n",
    "  - path: /users/me\n",
    "  - path: /users/{id}/posts\n    methods: [GET]\n",
    "  - path: /files/{*rest}\n",
    "  - path: /files/index.html\n",
    "  - path: /{any}\n    methods: [GET, PUT]\n",
];

#[test]
fn the_most_specific_route_wins_whatever_the_order() {
    let cases = [
        ("GET", "/users/7", "/users/{id}"),
        ("GET", "/users/me", "/users/me"),
        ("DELETE", "/users/me?x=/users/7", "/users/me"),
        ("GET", "/users/7/posts", "/users/{id}/posts"),
        ("POST", "/users/7/posts", "_unmatched"),
        ("GET", "/users/7/posts/8", "_unmatched"),
        ("GET", "/files/a", "/files/{rest}"),
        ("GET", "/files/a/b/c.txt", "/files/{rest}"),
        ("GET", "/files/index.html", "/files/index.html"),
        ("GET", "/single", "/{any}"),
        ("PUT", "/single", "/{any}"),
        ("POST", "/single", "_unmatched"),
        ("GET", "/", "_unmatched"),
        ("GET", "/users/", "_unmatched"),
    ];
    for reversed in [false, true] {
        let backend = Backend::always("ok");
        let mut routes = ROUTES.to_vec();
        if reversed {
            routes.reverse();
        }
        let sidecar = Sidecar::before(&backend).yaml(format!("routes:\n{}", routes.concat())).start();
        let mut client = sidecar.client();
        let mut seen: BTreeMap<&str, f64> = BTreeMap::new();
        for (index, (method, target, route)) in cases.into_iter().enumerate() {
            assert_eq!(send(&mut client, method, target), 200);
            *seen.entry(route).or_default() += 1.0;
            let page = sidecar.settled(index + 1);
            for (route, count) in &seen {
                let have = page.sum("golden_requests_total", &[("http_route", route)]);
                assert_eq!(have, *count, "{method} {target}, reversed: {reversed}, {route}");
            }
        }
        assert_eq!(sidecar.scrape().value("golden_routes", &[("kind", "declared")]), 6.0);
    }
}

#[test]
fn a_declared_route_keeps_its_label_whatever_the_answer() {
    let mut backend = obedient();
    let sidecar = Sidecar::before(&backend).yaml("routes:\n  - path: /users/{id}\n").start();
    let mut client = sidecar.client();
    for status in [404, 405, 500] {
        send(&mut client, "GET", &format!("/users/1?{status}"));
    }
    backend.stop();
    sidecar.get("/users/1");
    let page = sidecar.settled(4);
    assert_eq!(page.sum("golden_requests_total", &[("http_route", "/users/{id}")]), 4.0);
    assert_eq!(
        page.sum("golden_errors_total", &[("http_route", "/users/{id}"), ("error_type", "connect_refused")]),
        1.0
    );
}

#[test]
fn nothing_that_a_client_sends_becomes_a_label() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).yaml("routes:\n  - path: /users/{id}\n").start();
    let mut client = sidecar.client();
    for index in 0..50 {
        send(&mut client, &format!("METHOD{index}SECRET"), &format!("/SECRET{index}?SECRET=1"));
        send(&mut client, "GET", &format!("/users/SECRET{index}"));
    }
    let page = sidecar.settled(100);
    assert!(!page.text.contains("SECRET"), "{:?}", page.text.lines().find(|line| line.contains("SECRET")));
    let routes: BTreeSet<_> = page.samples.iter().filter_map(|sample| sample.labels.get("http_route")).collect();
    assert!(routes.iter().all(|route| ["/users/{id}", "_unmatched"].contains(&route.as_str())), "{routes:?}");
}

#[test]
fn at_the_series_cap_only_the_route_folds() {
    const CAP: usize = 30;
    let backend = obedient();
    let sidecar = Sidecar::before(&backend)
        .yaml(format!("limits:\n  series: {CAP}\nroutes:\n  - path: /a\n  - path: /b\n"))
        .start();
    let mut client = sidecar.client();
    let mut sent = 0;
    for status in 210..260 {
        for path in ["/a", "/b"] {
            assert_eq!(send(&mut client, "GET", &format!("{path}?{status}")), status);
            sent += 1;
        }
    }
    // What had a label set before the cap keeps it.
    assert_eq!(send(&mut client, "GET", "/a?200"), 200);
    let page = sidecar.settled(sent + 1);
    assert_eq!(page.value("golden_requests_total", &[("http_route", "/a"), ("http_response_status_code", "200")]), 1.0);
    for status in 210..260 {
        let status = status.to_string();
        let labels = [("http_response_status_code", status.as_str())];
        assert_eq!(page.sum("golden_requests_total", &labels), 2.0, "status {status} is not folded away");
        assert_eq!(page.count("http_server_request_duration_seconds", &labels), 2.0, "status {status}");
    }
    for family in ["golden_requests_total", "http_server_request_duration_seconds_count"] {
        let own = page.matching(family, &[]).filter(|sample| sample.labels["http_route"] != "_other").count();
        assert!(own <= CAP, "{family} has {own} label sets, the cap is {CAP}");
        let routes: BTreeSet<_> =
            page.matching(family, &[]).map(|sample| sample.labels["http_route"].clone()).collect();
        assert!(routes.contains("_other"), "{family}: {routes:?}");
    }
    for family in ["golden_requests_total", "http_server_request_duration_seconds"] {
        let folded = page.value("golden_metric_overflow_total", &[("family", family)]);
        assert!(folded >= 1.0, "{family}: {folded}");
        assert_eq!(page.value("golden_metric_series", &[("family", family)]), CAP as f64, "{family}");
    }
}

// --- time ---

#[test]
fn durations_say_how_long_the_client_waited() {
    let go = Gate::new();
    let finish = Gate::new();
    let backend = Backend::start({
        let (go, finish) = (go.clone(), finish.clone());
        move |peer| {
            if peer.read_request().is_some() {
                go.wait();
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na");
                finish.wait();
                peer.send("b");
            }
        }
    });
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request is at the backend", || backend.requests().len() == 1);
    let at_backend = Instant::now();
    assert!(client.peek_for(Duration::from_millis(300)).is_empty());
    let released = Instant::now();
    go.open();
    client.read_head();
    client.wire.read_exact(1).unwrap();
    let first_byte = start.elapsed().as_secs_f64();
    let has_head = Instant::now();
    assert!(client.peek_for(Duration::from_millis(200)).is_empty());
    let body_wait = has_head.elapsed().as_secs_f64();
    finish.open();
    client.wire.read_exact(1).unwrap();
    let total = start.elapsed().as_secs_f64();
    let page = sidecar.settled(1);
    let time = |family: &str| page.sum(&format!("{family}_sum"), &[]);
    let backend_wait = (released - at_backend).as_secs_f64();
    let ttfb = time("golden_time_to_first_byte_seconds");
    assert!((backend_wait..=first_byte).contains(&ttfb), "{backend_wait} ≤ {ttfb} ≤ {first_byte}");
    let duration = time("http_server_request_duration_seconds");
    assert!(
        (backend_wait + body_wait..=total + 0.05).contains(&duration),
        "{backend_wait} + {body_wait} ≤ {duration} ≤ {total}"
    );
    let phase = |phase| page.value("golden_upstream_phase_seconds_sum", &[("phase", phase)]);
    assert!((backend_wait..=first_byte).contains(&phase("wait")), "{}", phase("wait"));
    assert!((body_wait..=total).contains(&phase("body")), "{} {}", body_wait, phase("body"));
    assert!(phase("queue") + phase("connect") < first_byte - backend_wait + 0.001);
    for direction in ["request", "response"] {
        let own = page.value("golden_proxy_overhead_seconds_sum", &[("direction", direction)]);
        assert!(own < total - backend_wait - body_wait + 0.001, "{direction}: {own} holds waiting time");
    }
}

#[test]
fn every_observation_lies_in_the_bucket_of_its_duration() {
    let backend = Backend::start(|peer| {
        while let Some(request) = peer.read_request() {
            let pause: u64 = request.head.target()[1..].parse().unwrap();
            if pause > 0 {
                // Silence on this socket for that long; the sidecar sends nothing before it has the answer.
                peer.wire.peek_for(Duration::from_millis(pause));
            }
            peer.send(ok("x"));
        }
    });
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    let mut upper: Vec<f64> = Vec::new();
    for pause in [0, 30, 60, 120, 300, 600] {
        let start = Instant::now();
        client.get(&format!("/{pause}"));
        upper.push(start.elapsed().as_secs_f64());
    }
    let page = sidecar.settled(6);
    let edges =
        ["0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25", "0.5", "0.75", "1", "2.5", "5", "7.5", "10", "+Inf"];
    let on_page: Vec<_> = page
        .matching(
            "http_server_request_duration_seconds_bucket",
            &[("http_response_status_code", "200"), ("error_type", "")],
        )
        .map(|sample| sample.labels["le"].clone())
        .collect();
    assert_eq!(on_page, edges, "the default edges");
    for edge in edges {
        let limit: f64 = edge.parse().unwrap_or(f64::INFINITY);
        let count = page.bucket("http_server_request_duration_seconds", edge, &[]);
        // At least those whose client waited no longer; at most those whose backend paused no longer.
        let least = upper.iter().filter(|seconds| **seconds <= limit).count() as f64;
        let most = [0.0, 0.03, 0.06, 0.12, 0.3, 0.6].iter().filter(|seconds| **seconds <= limit).count() as f64;
        assert!((least..=most).contains(&count), "le={edge}: {least} ≤ {count} ≤ {most}; the client waited {upper:?}");
    }
}

#[test]
fn edges_can_be_set_for_all_and_for_one_route() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend)
        .yaml("buckets: [0.2, 1, 3]\nroutes:\n  - path: /own\n    buckets: [0.05, 0.1, 0.5]\n")
        .start();
    sidecar.get("/own");
    sidecar.get("/other");
    let page = sidecar.settled(2);
    let edges = |route: &str| -> Vec<String> {
        page.matching("http_server_request_duration_seconds_bucket", &[("http_route", route)])
            .filter(|sample| sample.labels["http_response_status_code"] == "200")
            .map(|sample| sample.labels["le"].clone())
            .collect()
    };
    assert_eq!(edges("/own"), ["0.05", "0.1", "0.5", "+Inf"]);
    assert_eq!(edges("_unmatched"), ["0.2", "1", "3", "+Inf"]);
}

// --- now ---

#[test]
fn requests_in_flight_are_seen_while_they_run_and_the_peak_afterwards() {
    let gate = Gate::new();
    let backend = Backend::answering({
        let gate = gate.clone();
        move |_| {
            gate.wait();
            ok("x")
        }
    });
    let sidecar = Sidecar::before(&backend).yaml("routes:\n  - path: /users/{id}\n").start();
    let mut clients: Vec<_> = (0..3).map(|_| sidecar.client()).collect();
    clients[0].send("GET /users/1 HTTP/1.1\r\nHost: test\r\n\r\n");
    clients[1].send("GET /users/2 HTTP/1.1\r\nHost: test\r\n\r\n");
    clients[2].send("POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    wait_until("all are at the backend", || backend.requests().len() == 3);
    let page = sidecar.scrape();
    assert_eq!(page.value("golden_inflight_requests", &[("http_route", "/users/{id}")]), 2.0);
    assert_eq!(page.value("golden_inflight_requests", &[("http_route", "_unmatched")]), 1.0);
    assert_eq!(page.value("http_server_active_requests", &[("http_request_method", "GET")]), 2.0);
    assert_eq!(page.value("http_server_active_requests", &[("http_request_method", "POST")]), 1.0);
    assert_eq!(page.value("golden_server_connections", &[("state", "active")]), 3.0);
    assert_eq!(page.value("http_client_open_connections", &[("http_connection_state", "active")]), 3.0);
    assert_eq!(page.sum("golden_requests_total", &[]), 0.0, "nothing is recorded before its end");
    assert!(!page.has("golden_inflight_limit", &[]), "no limit, no limit series");
    let age = |page: &Page| page.value("golden_inflight_oldest_age_seconds", &[("http_route", "/users/{id}")]);
    let first = age(&page);
    sidecar.page_when("the oldest grows older", |page| age(page) > first + 0.2);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_response("GET").status(), 200);
    }
    let page = sidecar.settled(3);
    assert_eq!(page.value("golden_inflight_peak", &[("window", "1m")]), 3.0);
    assert_eq!(sidecar.scrape().value("golden_inflight_peak", &[("window", "1m")]), 3.0, "a scrape does not reset it");
    assert_eq!(page.sum("golden_server_connections", &[]), 3.0);
    sidecar.page_when("the connections are idle", |page| {
        page.get("golden_server_connections", &[("state", "idle")]) == Some(3.0)
    });
    drop(clients);
    let page = sidecar.page_when("the connections are gone", |page| page.sum("golden_server_connections", &[]) == 0.0);
    assert_eq!(page.value("golden_server_connections_opened_total", &[]), 3.0);
}

#[test]
fn the_peak_counts_what_runs_together_over_all_workers() {
    let gate = Gate::new();
    let backend = Backend::answering({
        let gate = gate.clone();
        move |_| {
            gate.wait();
            ok("x")
        }
    });
    let sidecar = Sidecar::before(&backend).workers(2).start();
    let mut clients: Vec<_> = (0..12).map(|_| sidecar.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    wait_until("all are at the backend", || backend.requests().len() == 12);
    assert_eq!(sidecar.scrape().value("golden_inflight_peak", &[("window", "1m")]), 12.0);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_response("GET").status(), 200);
    }
    for _ in 0..5 {
        assert_eq!(clients[0].get("/").status(), 200);
    }
    let page = sidecar.settled(17);
    assert_eq!(page.value("golden_inflight_peak", &[("window", "1m")]), 12.0);
}

#[test]
fn saturation_is_a_ratio_for_each_resource_that_has_a_limit() {
    let gate = Gate::new();
    let backend = Backend::answering({
        let gate = gate.clone();
        move |_| {
            gate.wait();
            ok("x")
        }
    });
    let sidecar = Sidecar::before(&backend)
        .yaml("limits:\n  inflight: 8\n  upstream_connections: 4\n  connections: 16\nsaturation:\n  interval: 100ms\n")
        .start();
    let mut clients: Vec<_> = (0..2).map(|_| sidecar.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    wait_until("all are at the backend", || backend.requests().len() == 2);
    let page = sidecar.page_when("host CPU has two samples to compare", |page| {
        page.has("golden_saturation_ratio", &[("resource", "host_cpu")])
    });
    let ratio = |resource| page.value("golden_saturation_ratio", &[("resource", resource)]);
    assert_eq!(ratio("inflight"), 0.25);
    assert_eq!(ratio("upstream_pool"), 0.5);
    assert_eq!(ratio("server_connections"), 0.125);
    for resource in ["host_cpu", "host_memory"] {
        assert!((0.0..=1.0).contains(&ratio(resource)), "{resource}: {}", ratio(resource));
    }
    assert!(ratio("host_memory") > 0.0);
    assert_eq!(page.value("golden_upstream_pool_limit", &[]), 4.0);
    gate.open();
    let sidecar = Sidecar::start(&backend);
    let page = sidecar.scrape();
    assert!(!page.has("golden_saturation_ratio", &[("resource", "inflight")]), "no limit, no ratio");
}

// --- streams and tunnels ---

#[test]
fn an_event_stream_is_counted_at_its_end_and_stays_out_of_the_request_histogram() {
    // The last word of the path says how the backend ends the stream.
    let go = Gate::new();
    let backend = Backend::start({
        let go = go.clone();
        move |peer| {
            let Some(request) = peer.read_request() else { return };
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
            go.wait();
            match request.head.target() {
                "/events/complete" => {
                    peer.send("0\r\n\r\n");
                }
                "/events/reset" => peer.reset(),
                _ => {
                    peer.wait_end();
                }
            }
        }
    });
    let sidecar = Sidecar::before(&backend).yaml("routes:\n  - path: /events/{end}\n").start();
    let open = |end: &str| {
        let mut client = sidecar.client();
        client.send(format!("GET /events/{end} HTTP/1.1\r\nHost: test\r\nAccept: */*\r\n\r\n"));
        assert_eq!(client.read_head().status(), 200);
        assert_eq!(client.wire.read_chunk().unwrap(), b"data: 1\n\n");
        client
    };
    let (mut complete, mut reset, left) = (open("complete"), open("reset"), open("left"));
    let route = [("http_route", "/events/{end}")];
    let page = sidecar.page_when("three streams", |page| page.get("golden_streams", &route) == Some(3.0));
    assert_eq!(page.value("golden_inflight_requests", &route), 3.0, "in flight until its end");
    assert_eq!(page.sum("golden_inflight_oldest_age_seconds", &[]), 0.0, "and without an age");
    assert_eq!(page.sum("golden_requests_total", &[]), 0.0, "counted at its end");
    drop(left);
    go.open();
    assert_eq!(complete.wire.read_chunk().unwrap(), b"");
    assert!(reset.wire.read_chunk().is_err(), "the cut is visible");
    let page = sidecar.settled(3);
    assert_eq!(page.value("golden_streams", &route), 0.0);
    for end in ["complete", "client_abort", "backend_reset"] {
        let labels = [("http_route", "/events/{end}"), ("end", end)];
        assert_eq!(page.count("golden_stream_duration_seconds", &labels), 1.0, "{end}");
    }
    assert_eq!(page.count("golden_stream_duration_seconds", &[]), 3.0);
    assert_eq!(page.count("http_server_request_duration_seconds", &[]), 0.0, "a stream has no request duration");
    assert_eq!(page.sum("golden_client_aborts_total", &[]), 0.0, "leaving a stream is its normal end");
    assert_eq!(page.sum("golden_requests_total", &[("origin", "backend")]), 2.0);
    assert_eq!(page.sum("golden_requests_total", &[("origin", "client")]), 1.0);
    let errors = [("error_type", "reset_after_head"), ("fault", "backend"), ("phase", "body")];
    assert_eq!(page.sum("golden_errors_total", &errors), 1.0);
    assert_eq!(page.sum("golden_errors_total", &[]), 1.0);
    assert_eq!(page.sum("golden_truncated_responses_total", &[]), 1.0);
    assert_eq!(page.sum("golden_response_bytes_total", &[]), 27.0);
}

#[test]
fn a_stream_is_told_by_its_answer_not_by_what_the_client_accepts() {
    let backend = Backend::always("no stream");
    let sidecar = Sidecar::start(&backend);
    sidecar.exchange("GET / HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n");
    let page = sidecar.expect(&[Outcome::backend("GET", "200")]);
    assert_eq!(page.count("golden_stream_duration_seconds", &[]), 0.0);
}

#[test]
fn a_tunnel_is_counted_at_its_101_and_leaves_the_gauges_there() {
    let backend = Backend::start(|peer| {
        if peer.read_head().is_some() {
            peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
            peer.wait_end();
        }
    });
    let sidecar = Sidecar::before(&backend).yaml("routes:\n  - path: /chat\n").start();
    let mut client = sidecar.client();
    client.send("GET /chat HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n");
    assert_eq!(client.read_head().status(), 101);
    let page = sidecar.page_when("one tunnel", |page| {
        page.get("golden_upgraded_connections", &[("protocol", "websocket")]) == Some(1.0)
    });
    let labels = [
        ("http_route", "/chat"),
        ("http_request_method", "GET"),
        ("http_response_status_code", "101"),
        ("origin", "backend"),
    ];
    assert_eq!(page.value("golden_requests_total", &labels), 1.0, "while the tunnel is still open");
    let page = sidecar.settled(1);
    assert_eq!(page.value("golden_upgraded_connections_opened_total", &[("protocol", "websocket")]), 1.0);
    assert_eq!(page.count("http_server_request_duration_seconds", &[]), 0.0);
    drop(client);
    let page = sidecar.page_when("the tunnel ends", |page| page.sum("golden_upgraded_connections", &[]) == 0.0);
    assert_eq!(page.sum("golden_requests_total", &[]), 1.0, "not counted again at its end");
    assert_eq!(page.sum("golden_client_aborts_total", &[]), 0.0);
    assert_eq!(page.sum("golden_errors_total", &[]), 0.0);
}

// --- the pool's numbers ---

#[test]
fn every_phase_and_connection_is_counted_once() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").status(), 200);
    }
    let page = sidecar.settled(5);
    assert_eq!(page.value("golden_upstream_connections_opened_total", &[]), 1.0);
    assert_eq!(page.sum("golden_upstream_connections_closed_total", &[]), 0.0);
    let page = sidecar.page_when("the connection is idle", |page| {
        page.get("http_client_open_connections", &[("http_connection_state", "idle")]) == Some(1.0)
    });
    assert_eq!(page.value("http_client_open_connections", &[("http_connection_state", "active")]), 0.0);
    for phase in ["wait", "body"] {
        assert_eq!(page.count("golden_upstream_phase_seconds", &[("phase", phase)]), 5.0, "{phase}");
    }
    assert_eq!(page.count("golden_upstream_phase_seconds", &[("phase", "connect")]), 1.0, "one connect");
    for direction in ["request", "response"] {
        assert_eq!(page.count("golden_proxy_overhead_seconds", &[("direction", direction)]), 5.0, "{direction}");
    }
}

// --- how the page is given out ---

#[test]
fn the_page_comes_in_the_format_that_is_asked_for() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    sidecar.get("/");
    let _ = sidecar.settled(1);
    let text = "text/plain; version=0.0.4; charset=utf-8";
    let open = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, expected) in [
        ("", text),
        ("Accept: */*\r\n", text),
        ("Accept: text/plain\r\n", text),
        ("Accept: text/html\r\n", text),
        ("Accept: application/openmetrics-text\r\n", open),
        ("Accept: application/openmetrics-text; version=1.0.0\r\n", open),
        ("Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.9\r\n", text),
        ("Accept: text/plain;version=0.0.4;q=0.5, application/openmetrics-text;version=1.0.0;q=0.9\r\n", open),
        ("Accept: application/openmetrics-text;q=0, text/plain\r\n", text),
        (&format!("Accept: {prometheus}\r\n"), open),
    ] {
        let response = sidecar.admin_get("/metrics", accept);
        assert_eq!(response.status(), 200);
        assert_eq!(response.head.one("content-type").as_deref(), Some(expected), "{accept:?}");
        assert_eq!(response.text().ends_with("# EOF\n"), expected == open, "{accept:?}");
    }
}

#[test]
fn open_metrics_tells_the_same_numbers() {
    let backend = obedient();
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    for status in [200, 200, 404, 500] {
        send(&mut client, "GET", &format!("/?{status}"));
    }
    let classic = sidecar.settled(4);
    sidecar.page_when("a first sample", |page| page.has("golden_sampler_read_seconds_total", &[]));
    let response = sidecar.admin_get("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    let open = Page::parse(&response.text());
    open.check();
    for name in ["golden_requests_total", "golden_errors_total", "http_server_request_duration_seconds_count"] {
        let of = |page: &Page| -> Vec<_> { page.matching(name, &[]).cloned().collect() };
        assert_eq!(of(&open), of(&classic), "{name}");
    }
    for (family, kind) in &open.types {
        assert!(
            !(kind == "counter" && family.ends_with("_total")),
            "OpenMetrics names the family without _total: {family}"
        );
        // A gauge X beside a counter X_total would be one family twice.
        assert!(!open.types.contains_key(&format!("{family}_total")), "{family}");
    }
    for sample in &open.samples {
        let family = open.family_of(&sample.name).unwrap();
        if open.types[&family] == "counter" {
            assert!(sample.name.ends_with("_total") || sample.name.ends_with("_created"), "{}", sample.name);
        }
    }
    // What counts says since when, the sidecar's own counters all of them.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    for counter in [
        "golden_requests",
        "golden_config_reloads",
        "golden_openapi_failures",
        "golden_scrapes_shared",
        "golden_log_dropped",
        "golden_sampler_ticks",
        "golden_sampler_missed_ticks",
        "golden_sampler_failures",
        "golden_sampler_read_seconds",
        "golden_backend_restarts",
        "process_cpu_seconds",
    ] {
        let of = |end: &str| open.matching(&format!("{counter}_{end}"), &[]).map(|s| s.value).collect::<Vec<_>>();
        let (counts, created) = (of("total"), of("created"));
        assert_eq!(counts.len(), created.len(), "{counter}");
        assert!(!created.is_empty() || counter == "golden_sampler_failures", "{counter}");
        assert!(created.iter().all(|at| (now - at).abs() < 60.0), "{counter}: {created:?}");
    }
    for counter in ["golden_backend_cpu_seconds", "golden_netns_listen_drops"] {
        assert!(!open.has(&format!("{counter}_created"), &[]), "nobody knows since when {counter} counts");
    }
    // Units, where given, end the family's name.
    for line in response.text().lines().filter_map(|line| line.strip_prefix("# UNIT ")) {
        let (family, unit) = line.split_once(' ').expect("a unit");
        assert!(family.ends_with(&format!("_{unit}")), "{line}");
    }
}

#[test]
fn a_sampled_request_leaves_its_trace_in_every_family_that_has_exemplars() {
    let backend = Backend::start(|peer| {
        while let Some(request) = peer.read_request() {
            match request.head.target() {
                "/events" => peer.send(response(200, "Content-Type: text/event-stream\r\n", "data: 1\n\n")),
                "/silent" => peer.wait_end().is_some(),
                _ => peer.send(response(500, "", "no")),
            };
        }
    });
    let sidecar = Sidecar::start(&backend);
    let trace = |n: u8| format!("{n:032x}");
    let request = |path: &str, n: u8, flags: &str| {
        let trace = trace(n);
        format!("GET {path} HTTP/1.1\r\nHost: test\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-{flags}\r\n\r\n")
    };
    sidecar.exchange(request("/error", 1, "01"));
    sidecar.exchange(request("/events", 2, "01"));
    // One whose sender does not record its trace.
    sidecar.exchange(request("/error", 4, "00"));
    let mut leaver = sidecar.client();
    leaver.send(request("/silent", 3, "01"));
    wait_until("it is at the backend", || backend.requests().iter().any(|r| r.head.target() == "/silent"));
    drop(leaver);
    sidecar.settled(4);
    let page = sidecar.admin_get("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n").text();
    let mut seen: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines() {
        let Some((sample, exemplar)) = line.split_once(" # {trace_id=\"") else { continue };
        let name = sample.split(['{', ' ']).next().unwrap();
        seen.entry(name).or_default().insert(exemplar[..32].to_owned());
    }
    let expected = [
        ("golden_abort_wait_seconds_bucket", &[3][..]),
        ("golden_errors_total", &[1]),
        ("golden_stream_duration_seconds_bucket", &[2]),
        ("golden_time_to_first_byte_seconds_bucket", &[1, 2, 3]),
        // One that the client left lasted, too; a stream is in a family of its own.
        ("http_server_request_duration_seconds_bucket", &[1, 3]),
    ];
    let expected = expected.map(|(name, ids)| (name, ids.iter().map(|n| trace(*n)).collect::<BTreeSet<_>>()));
    assert_eq!(seen, expected.into());
}

#[test]
fn the_page_is_compressed_when_asked() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    let plain = sidecar.admin_get("/metrics", "");
    assert!(!plain.head.has("content-encoding"));
    for (accept, compressed) in
        [("gzip", true), ("deflate, gzip;q=0.5", true), ("gzip;q=0", false), ("identity", false), ("*", true)]
    {
        let response = sidecar.admin_get("/metrics", &format!("Accept-Encoding: {accept}\r\n"));
        let coding = response.head.one("content-encoding");
        if accept != "*" {
            assert_eq!(coding.as_deref() == Some("gzip"), compressed, "{accept}: {coding:?}");
        }
        let mut text = String::new();
        if coding.is_some() {
            assert!(response.head.has_token("vary", "accept-encoding"), "caches must tell them apart");
            flate2::read::GzDecoder::new(response.body.content.as_slice()).read_to_string(&mut text).expect("gzip");
            assert!(response.body.content.len() < text.len() / 2);
        } else {
            text = response.text();
        }
        Page::parse(&text).check();
    }
    let page = sidecar.scrape();
    assert!(
        page.has("golden_scrape_size_bytes", &[("encoding", "gzip")])
            || page.has("golden_scrape_size_bytes_count", &[("encoding", "gzip")])
    );
}

#[test]
fn head_of_the_page_has_its_fields_and_no_body() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    let mut client = Client::to(sidecar.admin);
    let head = client.exchange("HEAD /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
    assert_eq!(head.status(), 200);
    assert!(head.head.one("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    client.expect_end();
}

#[test]
fn the_admin_port_is_read_only_and_closed_to_other_paths() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    assert_eq!(sidecar.admin_get("/nothing-here", "").status(), 404);
    assert_eq!(sidecar.admin_get("/livez", "").status(), 200);
    let index = sidecar.admin_get("/", "");
    assert_eq!(index.status(), 200);
    for path in ["/metrics", "/livez", "/readyz", "/api/v1/config"] {
        assert!(index.text().contains(path), "the page lists {path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = Client::to(sidecar.admin).exchange(format!(
            "{method} /metrics HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ));
        assert_eq!(answer.status(), 405, "{method}");
        assert!(answer.head.has_token("allow", "GET") && answer.head.has_token("allow", "HEAD"));
    }
    let config: serde_json::Value =
        serde_json::from_str(&sidecar.admin_get("/api/v1/config", "").text()).expect("JSON");
    assert!(config.to_string().contains(&backend.address.to_string()), "{config}");
}

#[test]
fn promtool_finds_nothing_to_say() {
    let (sidecar, _backend) = busy_sidecar();
    let text = sidecar.scrape().text;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (`make test` does it)");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn scrapes_while_traffic_runs_never_contradict_themselves() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).workers(2).start();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let sent = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = sidecar.client();
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    assert_eq!(client.get("/").status(), 200);
                    sent.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
        let mut last: BTreeMap<(String, common::page::Labels), f64> = BTreeMap::new();
        for _ in 0..30 {
            // scrape() checks each page by itself: count == +Inf bucket, cumulative buckets.
            let page = sidecar.scrape();
            for sample in &page.samples {
                let family = page.family_of(&sample.name).unwrap();
                if ["counter", "histogram"].contains(&page.types[&family].as_str()) {
                    let before = last.insert((sample.name.clone(), sample.labels.clone()), sample.value);
                    assert!(
                        before.is_none_or(|before| before <= sample.value),
                        "went back: {sample:?} after {before:?}"
                    );
                }
            }
        }
    });
    let total = sent.load(std::sync::atomic::Ordering::SeqCst);
    let page = sidecar.settled(total);
    assert_eq!(page.count("http_server_request_duration_seconds", &[]), total as f64);
}

// --- the golden page ---

/// What the catalogue says about a family: name, type (empty: it leaves it open), label names.
type Family = (&'static str, &'static str, &'static [&'static str]);

/// The families of the catalogue that exist now: "Latency and traffic", "Backend side", "Errors" and "The sidecar
/// itself" without native histograms, exemplars, gRPC, TLS and traces; and "Saturation",
/// as far as every machine shows it.
const CATALOGUE: &[Family] = &[
    (
        "http_server_request_duration_seconds",
        "histogram",
        &["http_request_method", "http_route", "http_response_status_code", "error_type"],
    ),
    ("golden_time_to_first_byte_seconds", "histogram", &["http_route", "outcome"]),
    (
        "golden_requests_total",
        "counter",
        &["http_route", "http_request_method", "http_response_status_code", "origin", "traffic"],
    ),
    ("http_server_active_requests", "gauge", &["http_request_method"]),
    ("golden_inflight_requests", "gauge", &["http_route"]),
    ("golden_inflight_limit", "gauge", &[]),
    ("golden_inflight_oldest_age_seconds", "gauge", &["http_route"]),
    ("golden_inflight_peak", "gauge", &["window"]),
    ("golden_request_bytes_total", "counter", &["http_route"]),
    ("golden_response_bytes_total", "counter", &["http_route"]),
    ("golden_upgraded_connections", "gauge", &["protocol"]),
    ("golden_upgraded_connections_opened_total", "counter", &["protocol"]),
    ("golden_upgraded_bytes_total", "counter", &["protocol", "direction"]),
    ("golden_streams", "gauge", &["http_route"]),
    ("golden_stream_duration_seconds", "histogram", &["http_route", "end"]),
    ("golden_server_connections", "gauge", &["state"]),
    ("golden_server_connections_limit", "gauge", &[]),
    ("golden_server_connections_opened_total", "counter", &[]),
    // Added by this stage: every limit has a counter.
    ("golden_server_connections_rejected_total", "counter", &["reason"]),
    ("golden_server_connections_closed_total", "counter", &["reason"]),
    ("golden_server_streams_limit_reached_total", "counter", &[]),
    // Added with TLS: a handshake that fails is no request, and has to be seen all the same.
    ("golden_tls_handshake_failures_total", "counter", &["side", "reason"]),
    ("golden_upstream_phase_seconds", "histogram", &["phase"]),
    ("golden_proxy_overhead_seconds", "histogram", &["direction"]),
    ("http_client_open_connections", "gauge", &["http_connection_state"]),
    ("golden_upstream_pool_limit", "gauge", &[]),
    ("golden_upstream_pool_waiting", "gauge", &[]),
    ("golden_upstream_pool_timeouts_total", "counter", &[]),
    ("golden_upstream_connections_opened_total", "counter", &[]),
    ("golden_upstream_connections_closed_total", "counter", &["reason"]),
    ("golden_upstream_retries_total", "counter", &["result"]),
    ("golden_backend_up", "gauge", &[]),
    ("golden_backend_probe_duration_seconds", "gauge", &[]),
    ("golden_errors_total", "counter", &["http_route", "error_type", "fault", "phase"]),
    ("golden_client_aborts_total", "counter", &["http_route", "phase"]),
    ("golden_abort_wait_seconds", "histogram", &["http_route"]),
    ("golden_truncated_responses_total", "counter", &["http_route"]),
    ("golden_implicit_errors_total", "counter", &["http_route", "rule"]),
    ("golden_slo_requests_total", "counter", &["slo", "result"]),
    ("golden_slo_objective_ratio", "gauge", &["slo"]),
    ("golden_slo_latency_threshold_seconds", "gauge", &["slo"]),
    ("golden_saturation_ratio", "gauge", &["resource"]),
    ("golden_saturation_sampled_ratio", "histogram", &["resource"]),
    ("golden_saturation_peak_ratio", "gauge", &["resource", "window"]),
    ("golden_saturation_bottleneck", "gauge", &["resource"]),
    ("golden_backend_cpu_seconds_total", "counter", &["mode"]),
    ("golden_backend_cpu_limit_cores", "gauge", &["source"]),
    ("golden_backend_memory_limit_bytes", "gauge", &["source"]),
    ("golden_backend_fds_limit", "gauge", &["source"]),
    ("golden_backend_threads_limit", "gauge", &["source"]),
    ("golden_backend_memory_bytes", "gauge", &["kind"]),
    ("golden_backend_fds", "gauge", &[]),
    ("golden_backend_threads", "gauge", &[]),
    ("golden_backend_processes", "gauge", &[]),
    ("golden_backend_start_time_seconds", "gauge", &[]),
    ("golden_backend_restarts_total", "counter", &["reason"]),
    ("golden_backend_runqueue_wait_seconds_total", "counter", &[]),
    ("golden_backend_accept_queue_connections", "gauge", &["port"]),
    ("golden_backend_accept_queue_limit", "gauge", &["port"]),
    ("golden_backend_unread_bytes", "gauge", &["stat"]),
    ("golden_netns_listen_overflows_total", "counter", &[]),
    ("golden_netns_listen_drops_total", "counter", &[]),
    ("golden_sampler_source_available", "gauge", &["source"]),
    ("golden_sampler_ticks_total", "counter", &[]),
    ("golden_sampler_missed_ticks_total", "counter", &[]),
    // Added by the saturation stage: every failure has a counter, and what sampling costs is told.
    ("golden_sampler_failures_total", "counter", &["source", "reason"]),
    ("golden_sampler_read_seconds_total", "counter", &["source"]),
    ("golden_build_info", "gauge", &["version", "revision", "rustc"]),
    ("golden_config_reloads_total", "counter", &["result"]),
    // Added with the protection of the admin port: who is refused must be seen.
    ("golden_admin_refused_requests_total", "counter", &["reason"]),
    ("golden_config_last_reload_successful", "gauge", &[]),
    // Added by the routes stage: a document that does not come must be seen.
    ("golden_openapi_templates", "gauge", &[]),
    ("golden_openapi_failures_total", "counter", &["reason"]),
    ("golden_config_last_reload_success_timestamp_seconds", "gauge", &[]),
    ("golden_metric_series", "gauge", &["family"]),
    ("golden_metric_overflow_total", "counter", &["family"]),
    ("golden_metric_memory_bytes", "gauge", &[]),
    ("golden_metric_memory_limit_bytes", "gauge", &[]),
    ("golden_routes", "gauge", &["kind"]),
    ("golden_routes_folded_total", "counter", &[]),
    ("golden_routes_forgotten_total", "counter", &[]),
    ("golden_scrape_duration_seconds", "", &[]),
    ("golden_scrape_size_bytes", "", &["encoding"]),
    ("golden_scrapes_shared_total", "", &[]),
    ("golden_worker_busy_ratio", "gauge", &["worker"]),
    ("golden_runtime_lag_seconds", "", &[]),
    ("golden_log_dropped_total", "counter", &[]),
    ("golden_draining", "gauge", &[]),
    ("process_cpu_seconds_total", "counter", &[]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_open_fds", "gauge", &[]),
    ("process_max_fds", "gauge", &[]),
    ("process_start_time_seconds", "gauge", &[]),
];

/// Families of the catalogue that depend on the kernel, the container or the load; on the page or not.
const MAY: &[Family] = &[
    // Where there is a certificate.
    ("golden_tls_certificate_expiry_timestamp_seconds", "gauge", &["use"]),
    ("golden_saturation_time_to_limit_seconds", "gauge", &["resource"]),
    ("golden_backend_cpu_periods_total", "counter", &[]),
    ("golden_backend_cpu_throttled_periods_total", "counter", &[]),
    ("golden_backend_cpu_throttled_seconds_total", "counter", &[]),
    ("golden_backend_pressure_waiting_seconds_total", "counter", &["resource", "scope"]),
    ("golden_backend_pressure_stalled_seconds_total", "counter", &["resource", "scope"]),
    ("golden_backend_memory_events_total", "counter", &["event"]),
];

/// Label values are closed sets, except routes and the build.
const VALUES: &[(&str, &[&str])] = &[
    (
        "http_request_method",
        &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY", "_OTHER"],
    ),
    ("origin", &["backend", "proxy", "client"]),
    ("traffic", &["user", "probe"]),
    ("side", &["client", "backend"]),
    ("use", &["listener", "upstream", "admin"]),
    ("outcome", &["success", "client_error", "server_error", "aborted"]),
    ("fault", &["client", "proxy", "network", "backend", "policy"]),
    ("end", &["complete", "client_abort", "backend_reset", "timeout"]),
    ("protocol", &["websocket", "other"]),
    ("state", &["active", "idle"]),
    ("http_connection_state", &["active", "idle"]),
    (
        "reason",
        &[
            // Of connections.
            "idle",
            "peer",
            "error",
            "drain",
            "max_age",
            "limit",
            "descriptors",
            "client",
            "proxy",
            // Of the admin port.
            "credentials",
            "host",
            // Of handshakes.
            "no_certificate",
            "bad_certificate",
            "alert",
            "protocol",
            "closed",
            // Of restarts.
            "exit",
            "signal",
            "oom",
            "replaced",
            // Of failed readings.
            "absent",
            "permission",
            "gone",
            "malformed",
            "timeout",
            "too_large",
            "unreachable",
            "status",
            "went_back",
            "unknown",
            "internal",
        ],
    ),
    ("result", &["success", "failure", "good", "slow", "error", "excluded"]),
    ("window", &["1m"]),
    ("kind", &["declared", "openapi", "learned", "pending", "resident", "virtual", "working_set", "anon", "file"]),
    (
        "resource",
        &[
            "cpu",
            "memory",
            "fds",
            "threads",
            "accept_queue",
            "inflight",
            "upstream_pool",
            "server_connections",
            "host_cpu",
            "host_memory",
            "io",
        ],
    ),
    ("mode", &["user", "system"]),
    ("scope", &["backend", "host"]),
    ("event", &["high", "max", "oom", "oom_kill"]),
    ("stat", &["sum", "max"]),
    (
        "source",
        &[
            // Of limits.
            "config",
            "cgroup",
            "rlimit",
            "host",
            // Of readings.
            "backend",
            "process",
            "descriptors",
            "runqueue",
            "cgroup_cpu",
            "cgroup_memory",
            "cgroup_pids",
            "backend_pressure",
            "host_pressure",
            "listeners",
            "connections",
            "netstat",
        ],
    ),
];

/// A sidecar to which everything has happened that a family can tell of.
fn busy_sidecar() -> (Sidecar, Backend) {
    let backend = Backend::of_all_ends();
    let sidecar = Sidecar::before(&backend)
        .workers(2)
        .yaml(
            "routes:\n  - path: /users/{id}\nslos: [{name: all, objective: 0.999, latency: 300ms}]\n\
             implicit_errors: [{name: told, header: {name: X-Error}}]\n\
             limits:\n  inflight: 100\nsaturation:\n  interval: 100ms\n",
        )
        .start();
    sidecar.get("/users/1");
    sidecar.get("/error");
    sidecar.get("/missing");
    sidecar.get("/cut");
    let mut client = sidecar.client();
    client.send("GET /events HTTP/1.1\r\nHost: test\r\n\r\n");
    client.read_response("GET");
    let mut client = sidecar.client();
    client.send("GET /chat HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    client.read_head();
    drop(client);
    let mut client = sidecar.client();
    client.send("GET /silent HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request is at the backend", || backend.requests().iter().any(|r| r.head.target() == "/silent"));
    drop(client);
    sidecar.exchange("POST /users/2 HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi");
    sidecar.exchange("JUNK\x01\r\n\r\n");
    sidecar.admin_get("/metrics", "Accept-Encoding: gzip\r\n");
    sidecar.signal(libc::SIGHUP);
    sidecar.page_when("the reload is counted", |page| page.sum("golden_config_reloads_total", &[]) == 1.0);
    let _ = sidecar.settled(9);
    sidecar.page_when("the sampler has ticked twice", |page| {
        let seen = |resource| page.has("golden_saturation_ratio", &[("resource", resource)]);
        seen("host_cpu") && seen("cpu")
    });
    (sidecar, backend)
}

#[test]
fn the_page_is_the_catalogue() {
    let (sidecar, _backend) = busy_sidecar();
    let page = sidecar.scrape();
    let mut faults = Vec::new();
    for (family, kind, labels) in CATALOGUE.iter().chain(MAY) {
        let Some(have) = page.types.get(*family) else {
            if !MAY.iter().any(|(name, ..)| name == family) {
                faults.push(format!("{family} is missing"));
            }
            continue;
        };
        if !kind.is_empty() && have != kind {
            faults.push(format!("{family} is a {have}, not a {kind}"));
        }
        if page.helps.get(*family).is_none_or(|help| help.len() < 10) {
            faults.push(format!("{family} has no HELP worth the name"));
        }
        let expected: BTreeSet<&str> = labels.iter().copied().collect();
        let mut any = false;
        for sample in page.samples.iter().filter(|s| page.family_of(&s.name).as_deref() == Some(family)) {
            any = true;
            let names: BTreeSet<&str> =
                sample.labels.keys().map(String::as_str).filter(|name| !["le", "quantile"].contains(name)).collect();
            if names != expected {
                faults.push(format!("{family} has the labels {names:?}, not {expected:?}"));
                break;
            }
        }
        if !any {
            faults.push(format!("{family} has no series"));
        }
    }
    for family in page.types.keys() {
        if !CATALOGUE.iter().chain(MAY).any(|(name, ..)| name == family) {
            faults.push(format!("{family} is in no catalogue"));
        }
    }
    for sample in &page.samples {
        for (label, values) in VALUES {
            if let Some(value) = sample.labels.get(*label)
                && !values.contains(&value.as_str())
            {
                faults.push(format!("{}: {label}={value:?}", sample.name));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_help_says_whose_number_it_is() {
    /// One of these is in each, as words.
    const SCOPES: [&str; 10] = [
        "sidecar",
        "process",
        "processes",
        "backend",
        "host",
        "network namespace",
        "client",
        "clients",
        "client connections",
        "configuration",
    ];
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    let page = Page::parse(&sidecar.admin_get("/metrics?include=backend", "").text());
    let declared = families::all().map(|family| (family.name, family.help));
    let mut helps: BTreeMap<&str, &str> = page.helps.iter().map(|(name, help)| (&**name, &**help)).collect();
    assert!(helps.contains_key("golden_build_info") && helps.contains_key("golden_backend_scrape_up"));
    helps.extend(declared);
    let scoped = |help: &str| {
        let words: Vec<String> =
            help.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_ascii_lowercase).collect();
        let text = format!(" {} ", words.join(" "));
        SCOPES.iter().any(|scope| text.contains(&format!(" {scope} ")))
    };
    assert!(scoped("The sidecar's.") && !scoped("Processing."));
    let unscoped: Vec<_> = helps.iter().filter(|(_, help)| !scoped(help)).collect();
    assert!(unscoped.is_empty(), "{unscoped:#?}");
}

#[test]
fn the_process_numbers_are_those_of_the_kernel() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    let page = sidecar.page_when("a first sample", |page| page.has("golden_worker_busy_ratio", &[]));
    let resident = page.value("process_resident_memory_bytes", &[]);
    let kernel = sidecar.resident() as f64;
    assert!((resident - kernel).abs() < 8e6, "{resident} {kernel}");
    let open = std::fs::read_dir(format!("/proc/{}/fd", sidecar.pid())).unwrap().count() as f64;
    assert!((page.value("process_open_fds", &[]) - open).abs() <= 3.0);
    assert!(page.value("process_max_fds", &[]) >= open);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - page.value("process_start_time_seconds", &[])).abs() < 30.0);
    assert_eq!(page.value("golden_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    let workers = page.matching("golden_worker_busy_ratio", &[]).count();
    assert_eq!(workers, 1, "one worker was asked for");
    assert!((0.0..=1.0).contains(&page.sum("golden_worker_busy_ratio", &[])));
    let lines: BTreeMap<String, usize> = page
        .matching("golden_metric_series", &[])
        .map(|sample| (sample.labels["family"].clone(), sample.value as usize))
        .collect();
    assert!(lines.contains_key("golden_requests_total"), "{lines:?}");
}
