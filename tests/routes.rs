//! Routes that nobody declared: what earns a label, what is folded, and that neither series nor memory follow a
//! client's imagination. Learning is on here, as it is by default; the other tests turn it off to speak of
//! `_unmatched`.

mod common;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::sidecar::program;
use common::{Backend, Client, Gate, Page, Sidecar, h2c, ok, response, wait_for};
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as data;
use prost::Message as _;

/// Answers by the path: `/missing…` 404, `/fixed…` 405, everything else 200.
fn backend() -> Backend {
    Backend::answering(|request| {
        let target = request.head.target();
        if target.starts_with("/missing") {
            response(404, "", "")
        } else if target.starts_with("/fixed") {
            response(405, "Allow: PUT\r\n", "")
        } else {
            ok("fine")
        }
    })
}

/// Requests that ended under this route.
fn requests(page: &Page, route: &str) -> f64 {
    page.sum("golden_requests_total", &[("http_route", route)])
}

/// The routes that have counted a request.
fn labels(page: &Page) -> BTreeSet<String> {
    let counted = page.nonzero("golden_requests_total");
    counted.iter().map(|sample| sample.labels["http_route"].clone()).collect()
}

fn set(labels: &[&str]) -> BTreeSet<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

#[test]
fn values_share_a_label_from_the_first_request_on() {
    let backend = backend();
    let sidecar = Sidecar::before(&backend).learning().start();
    let mut client = sidecar.client();
    for id in 1..=20 {
        client.get(&format!("/users/{}", id * 7919));
        client.get(&format!("/orders/6f1c2d3e-0a1b-4c5d-8e9f-{id:012x}/items?page={id}"));
        client.get(&format!("/days/2026-11-{id:02}"));
    }
    let page = sidecar.settled(60);
    assert_eq!(labels(&page), set(&["/users/{id}", "/orders/{uuid}/items", "/days/{date}"]));
    for route in ["/users/{id}", "/orders/{uuid}/items", "/days/{date}"] {
        assert_eq!(requests(&page, route), 20.0, "{route}");
        assert_eq!(page.count("http_server_request_duration_seconds", &[("http_route", route)]), 20.0);
        assert_eq!(page.count("golden_time_to_first_byte_seconds", &[("http_route", route)]), 20.0);
        assert_eq!(page.sum("golden_response_bytes_total", &[("http_route", route)]), 80.0);
    }
    assert_eq!(page.value("golden_routes", &[("kind", "learned")]), 3.0);
    assert_eq!(page.value("golden_routes", &[("kind", "declared")]), 0.0);
}

#[test]
fn what_is_not_there_earns_no_label() {
    let backend = backend();
    let sidecar = Sidecar::before(&backend).learning().start();
    let mut client = sidecar.client();
    for n in 0..50 {
        client.get(&format!("/missing/{n}/.env"));
        client.get(&format!("/fixed/{n}"));
    }
    let page = sidecar.settled(100);
    assert_eq!(labels(&page), set(&["_unmatched"]));
    // Another answer does, and from then on what is missing there belongs to it.
    client.get("/health");
    let page = sidecar.settled(101);
    assert_eq!(labels(&page), set(&["_unmatched", "/health"]));
}

#[test]
fn words_stay_words() {
    let backend = backend();
    let sidecar = Sidecar::before(&backend).learning().start();
    let mut client = sidecar.client();
    let words =
        ["/v1/status", "/api/users.list", "/api/users.info", "/api/chat.postMessage", "/users/me", "/oauth2/token"];
    for path in words {
        client.get(path);
    }
    assert_eq!(labels(&sidecar.settled(words.len())), set(&words));
}

#[test]
fn folding_never_makes_a_counter_go_back() {
    let backend = backend();
    let sidecar = Sidecar::before(&backend).learning().start();
    let mut client = sidecar.client();
    let names = [
        "amber", "birch", "cedar", "daisy", "elder", "fern", "gorse", "hazel", "iris", "jasmine", "kale", "lilac",
        "maple", "nettle", "oak", "poppy", "quince", "rose", "sage", "thyme", "umbel", "violet", "willow", "yarrow",
        "zinnia", "aster", "basil", "clover", "dill", "endive", "fennel", "ginger",
    ];
    let mut before: Vec<(String, f64)> = Vec::new();
    let mut sent = 0;
    for round in 0..3 {
        for name in names {
            client.get(&format!("/plants/{name}"));
            client.get(&format!("/plants/{name}/photos/{round}"));
            sent += 2;
        }
        let page = sidecar.settled(sent);
        let now = page.nonzero("golden_requests_total");
        for (series, value) in &before {
            let after = now.iter().find(|sample| format!("{:?}", sample.labels) == *series);
            assert!(after.is_some_and(|after| after.value >= *value), "{series} went back from {value}");
        }
        before = now.iter().map(|sample| (format!("{:?}", sample.labels), sample.value)).collect();
        assert_eq!(page.sum("golden_requests_total", &[]), f64::from(u32::try_from(sent).unwrap()));
    }
    let page = sidecar.scrape();
    assert!(requests(&page, "/plants/{name}") > 60.0, "{:?}", labels(&page));
    assert!(requests(&page, "/plants/{name}/photos/{id}") > 60.0, "{:?}", labels(&page));
    assert!(labels(&page).len() <= 6, "{:?}", labels(&page));
    assert!(page.value("golden_routes_folded_total", &[]) > 0.0);
}

#[test]
fn a_request_in_flight_moves_to_the_route_that_its_head_has_earned() {
    let gate = Gate::new();
    let door = gate.clone();
    let backend = Backend::start(move |peer| {
        while let Some(_request) = peer.read_request() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha");
            door.wait();
            peer.send("lf");
        }
    });
    let sidecar = Sidecar::before(&backend).learning().start();
    let mut client = sidecar.client();
    client.send("GET /slow/17 HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.read_head();
    let route = &[("http_route", "/slow/{id}")];
    let page = sidecar
        .page_when("in flight under its own label", |page| page.get("golden_inflight_requests", route) == Some(1.0));
    assert_eq!(page.sum("golden_inflight_requests", &[("http_route", "_unmatched")]), 0.0);
    assert_eq!(page.sum("golden_inflight_oldest_age_seconds", &[("http_route", "_unmatched")]), 0.0);
    assert!(page.value("golden_inflight_oldest_age_seconds", route) > 0.0);
    assert_eq!(page.sum("http_server_active_requests", &[]), 1.0);
    gate.open();
    assert_eq!(client.read_body("GET", head).text(), "half");
    let page = sidecar.settled(1);
    assert_eq!(requests(&page, "/slow/{id}"), 1.0);
}

#[test]
fn no_byte_of_a_client_breaks_a_label_or_the_page() {
    let backend = backend();
    let sidecar = Sidecar::before(&backend).learning().start();
    let long = "x".repeat(8000);
    let paths: Vec<Vec<u8>> = vec![
        b"/%00%01%1f/a".to_vec(),
        b"/\xff\xfe\xc3\x28".to_vec(),
        "/café/日本".as_bytes().to_vec(),
        b"/a*b/*".to_vec(),
        b"/quote\"back\\slash".to_vec(),
        b"/{id}/{*rest}".to_vec(),
        b"/..//./;a=b".to_vec(),
        b"//".to_vec(),
        b"/e%22%5c%0a".to_vec(),
        format!("/{long}").into_bytes(),
        format!("/deep{}", "/a".repeat(3000)).into_bytes(),
    ];
    let mut sent = 0;
    for path in &paths {
        for _ in 0..4 {
            let request = [b"GET ", path.as_slice(), b" HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"].concat();
            sidecar.exchange(request);
            sent += 1;
        }
    }
    let page = sidecar.settled(sent);
    for label in labels(&page) {
        assert!(!label.contains('*') && label.len() <= 256, "{label}");
        assert!(label.bytes().all(|byte| byte.is_ascii_graphic()), "{label}");
    }
    // Each format says the same, and its own readers find nothing wrong.
    let get = |accept: &str| {
        let response = sidecar.admin_get("/metrics", &format!("Accept: {accept}\r\n"));
        assert_eq!(response.status(), 200, "{accept}");
        response.body.content
    };
    let text = String::from_utf8(get("text/plain;version=0.0.4")).unwrap();
    let read = Page::parse(&text);
    read.check();
    assert_eq!(labels(&read), labels(&page));
    let said = piped(Command::new("promtool").args(["check", "metrics"]), &text);
    assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));

    let text = String::from_utf8(get("application/openmetrics-text;version=1.0.0")).unwrap();
    let read = Page::parse(&text);
    read.check();
    assert_eq!(labels(&read), labels(&page));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    let said = piped(Command::new(python).arg(root.join("tests/peers/openmetrics.py")), &text);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));

    let message = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let bytes = get(message);
    let (mut rest, mut families) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        families.push(data::MetricFamily::decode_length_delimited(&mut rest).expect("a message"));
    }
    let counted = families.iter().find(|family| family.name == "golden_requests_total").unwrap();
    let counted = counted.metric.iter().filter(|metric| metric.counter.as_ref().is_some_and(|c| c.value > 0.0));
    let route = |metric: &data::Metric| metric.label.iter().find(|l| l.name == "http_route").unwrap().value.clone();
    assert_eq!(counted.map(route).collect::<BTreeSet<_>>(), labels(&page));
}

/// What a program says of a text on its standard input.
fn piped(command: &mut Command, text: &str) -> Output {
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = streams.spawn().expect("it is installed; `make setup` does it");
    // A program that stops to read says why.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn above_the_limit_routes_share_other_and_the_overflow_tells() {
    let backend = backend();
    let sidecar = Sidecar::before(&backend).learning().flag("--routes-limit", 3).start();
    let mut client = sidecar.client();
    for name in ["apple", "bread", "cheese", "dates", "eggs"] {
        for id in 0..4 {
            client.get(&format!("/{name}/{id}"));
        }
    }
    let page = sidecar.settled(20);
    assert_eq!(labels(&page), set(&["/apple/{id}", "/bread/{id}", "/cheese/{id}", "_other"]));
    assert_eq!(requests(&page, "_other"), 8.0);
    assert_eq!(page.value("golden_routes", &[("kind", "learned")]), 3.0);
    for family in ["golden_requests_total", "http_server_request_duration_seconds", "golden_time_to_first_byte_seconds"]
    {
        assert_eq!(page.value("golden_metric_overflow_total", &[("family", family)]), 8.0, "{family}");
    }
    // Status and method never fold.
    assert!(page.has("golden_requests_total", &[("http_route", "_other"), ("http_response_status_code", "200")]));
}

#[test]
fn declared_templates_come_first_and_learning_can_be_turned_off() {
    let backend = backend();
    let sidecar =
        Sidecar::before(&backend).learning().yaml("routes:\n  - path: /users/{user}\n    methods: [GET]\n").start();
    let mut client = sidecar.client();
    client.get("/users/7");
    client.exchange("POST /users/7 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    client.get("/carts/7");
    let page = sidecar.settled(3);
    assert_eq!(labels(&page), set(&["/users/{user}", "/users/{id}", "/carts/{id}"]));

    let sidecar = Sidecar::before(&backend).start();
    sidecar.get("/carts/7");
    assert_eq!(labels(&sidecar.settled(1)), set(&["_unmatched"]));
}

#[test]
fn a_declared_route_stays_declared_when_another_method_teaches_the_same_label() {
    let backend = backend();
    let sidecar =
        Sidecar::before(&backend).learning().yaml("routes:\n  - path: /users/{id}\n    methods: [GET, PUT]\n").start();
    let mut client = sidecar.client();
    client.get("/users/1");
    client.exchange("POST /users/7 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    let page = sidecar.settled(2);
    let of =
        |method| page.sum("golden_requests_total", &[("http_route", "/users/{id}"), ("http_request_method", method)]);
    assert_eq!((of("GET"), of("POST")), (1.0, 1.0), "{:?}", labels(&page));
    let kind = |kind| page.value("golden_routes", &[("kind", kind)]);
    assert_eq!((kind("declared"), kind("learned")), (1.0, 0.0));
}

#[test]
fn what_was_learned_outlives_a_reload_and_with_a_state_file_a_restart() {
    let backend = backend();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("learned.json");
    let yaml = format!("drain:\n  grace: 0s\nlearn:\n  state: {}\n", state.display());
    let names: Vec<String> =
        (0..40).map(|n| format!("{}{}", ["ash", "elm", "fir", "yew"][n % 4], "abcdefghij".split_at(n / 4).1)).collect();
    let mut sidecar = Sidecar::before(&backend).learning().yaml(&yaml).start();
    let mut client = sidecar.client();
    for name in &names {
        client.get(&format!("/trees/{name}"));
        client.get(&format!("/days/{}", name.len()));
    }
    sidecar.settled(80);
    sidecar.rewrite(&format!("upstream: {}\n{yaml}timeouts:\n  head: 30s\n", backend.url()));
    sidecar.signal(libc::SIGHUP);
    sidecar.page_when("a reload", |page| page.sum("golden_config_reloads_total", &[("result", "success")]) == 1.0);
    client.get("/trees/nobodyknowsthis");
    let page = sidecar.settled(81);
    let folded = requests(&page, "/trees/{name}");
    assert!(folded >= 20.0, "{:?}", labels(&page));
    assert_eq!(requests(&page, "/days/{id}"), 40.0);
    drop(client);
    sidecar.signal(libc::SIGTERM);
    assert!(sidecar.wait_exit(Duration::from_secs(20)).success());
    let kept = std::fs::read_to_string(&state).expect("the state is written at the end");
    assert!(kept.contains(r#"{"place":"/trees/{name}""#) && kept.contains(r#""/trees/{name}""#), "{kept}");
    assert!(!kept.contains(&names[3]), "values are not kept: {kept}");

    let sidecar = Sidecar::before(&backend).learning().yaml(&yaml).start();
    sidecar.get("/trees/somethingnew");
    let page = sidecar.settled(1);
    assert_eq!(labels(&page), set(&["/trees/{name}"]), "nothing is learned twice");

    // What is no state of ours is kept beside what is written then.
    std::fs::write(&state, "{\"not\": ours").unwrap();
    let mut sidecar = Sidecar::before(&backend).learning().yaml(&yaml).start();
    sidecar.get("/days/3");
    assert_eq!(labels(&sidecar.settled(1)), set(&["/days/{id}"]));
    assert!(wait_for(Duration::from_secs(5), || sidecar.logged("learned_not_read")), "{:?}", sidecar.log());
    sidecar.signal(libc::SIGTERM);
    assert!(sidecar.wait_exit(Duration::from_secs(20)).success());
    assert_eq!(std::fs::read_to_string(folder.path().join("learned.json.unreadable")).unwrap(), "{\"not\": ours");
    assert!(std::fs::read_to_string(&state).unwrap().contains("/days/{id}"));
}

#[test]
fn http_2_learns_as_well() {
    let backend = backend();
    let sidecar = Sidecar::before(&backend).learning().start();
    h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        for id in 0..5 {
            let (response, _) = h2c::send(&client, h2c::request("GET", &format!("/users/{id}")), true).await;
            let (_, mut body) = response.await.unwrap().into_parts();
            h2c::read_all(&mut body).await.unwrap();
        }
    });
    assert_eq!(requests(&sidecar.settled(5), "/users/{id}"), 5.0);
}

/// Asks for paths that nobody has asked for before, some of them with methods that nobody has heard of.
struct Scanner {
    seed: u64,
    asked: usize,
}

impl Scanner {
    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    fn path(&mut self) -> String {
        let mut path = String::new();
        for _ in 0..=self.random() % 5 {
            path.push('/');
            match self.random() % 3 {
                0 => path.push_str(&format!("{:x}", self.random())),
                1 => path.push_str(&(self.random() % 1_000_000_000).to_string()),
                _ => path.extend((0..3 + self.random() % 9).map(|_| char::from(b'a' + (self.random() % 26) as u8))),
            }
        }
        path
    }

    fn ask(&mut self, client: &mut Client, count: usize) {
        let end = self.asked + count;
        while self.asked < end {
            let batch = (end - self.asked).min(50);
            let mut bytes = Vec::new();
            for _ in 0..batch {
                let number = self.asked;
                let method = if number.is_multiple_of(20) { format!("M{number}") } else { "GET".to_owned() };
                write!(bytes, "{method} {} HTTP/1.1\r\nHost: a\r\n\r\n", self.path()).unwrap();
                self.asked += 1;
            }
            client.send(&bytes);
            for _ in 0..batch {
                assert_eq!(client.read_response("GET").status(), 200);
            }
        }
    }
}

#[test]
fn a_scanner_that_is_answered_creates_few_series_and_little_memory() {
    // The bench does the same with 100,000 paths in ten seconds; here the unoptimised program does a fifth of it.
    const PATHS: usize = 20_000;
    let backend = Backend::start(|peer| {
        while peer.read_head().is_some() {
            if !peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") {
                break;
            }
        }
    });
    let sidecar = Sidecar::before(&backend).learning().start();
    let mut scanner = Scanner { seed: 0x2545_f491_4f6c_dd1d, asked: 0 };
    let mut client = sidecar.client();
    scanner.ask(&mut client, 1_000);
    let before = sidecar.resident();
    scanner.ask(&mut client, PATHS);
    let page = sidecar.settled(PATHS + 1_000);
    let grown = sidecar.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");
    assert!(labels(&page).len() <= 102, "{} labels", labels(&page).len());
    for sample in page.matching("golden_metric_series", &[]) {
        assert!(sample.value <= 2_000.0, "{sample:?}");
    }
    let methods: BTreeSet<String> =
        page.nonzero("golden_requests_total").iter().map(|s| s.labels["http_request_method"].clone()).collect();
    assert_eq!(methods, set(&["GET", "_OTHER"]));
    // Its words fold, so it does not even come near the limit.
    assert!(page.value("golden_routes_folded_total", &[]) > 0.0);
    assert_eq!(requests(&page, "_other"), 0.0);

    // Where the limit is reached before it comes, the overflow tells all that it asks for.
    let sidecar = Sidecar::before(&backend).learning().flag("--routes-limit", 2).start();
    let mut client = sidecar.client();
    client.get("/our-orders/1");
    client.get("/our-items/1");
    sidecar.settled(2);
    scanner.ask(&mut client, 2_000);
    let page = sidecar.settled(2_002);
    assert_eq!(labels(&page), set(&["/our-orders/{id}", "/our-items/{id}", "_other"]));
    let other = requests(&page, "_other");
    assert_eq!(other, 2_000.0);
    for family in ["golden_requests_total", "http_server_request_duration_seconds"] {
        assert_eq!(page.value("golden_metric_overflow_total", &[("family", family)]), other, "{family}");
    }
}

#[test]
fn a_person_can_ask_which_routes_there_are_and_why() {
    let backend = backend();
    let sidecar = Sidecar::before(&backend).learning().yaml("routes:\n  - path: /users/{user}\n").start();
    let mut client = sidecar.client();
    client.get("/users/7");
    client.get("/carts/7");
    client.get("/carts/8");
    client.get("/missing");
    sidecar.settled(4);
    let response = sidecar.admin_get("/api/v1/routes", "");
    assert_eq!((response.status(), response.head.one("content-type").as_deref()), (200, Some("application/json")));
    let json: serde_json::Value = serde_json::from_slice(&response.body.content).unwrap();
    let routes = json["routes"].as_array().unwrap();
    let named =
        |name: &str| routes.iter().find(|route| route["route"] == name).unwrap_or_else(|| panic!("{name} in {json}"));
    assert_eq!(
        (&named("/users/{user}")["source"], &named("/users/{user}")["requests"]),
        (&"declared".into(), &1.into())
    );
    assert_eq!((&named("/carts/{id}")["source"], &named("/carts/{id}")["requests"]), (&"learned".into(), &2.into()));
    assert_eq!(named("_unmatched")["requests"], 1);

    let ask = |arguments: &[&str]| {
        let output =
            program().arg("routes").args(arguments).args(["--admin", &sidecar.admin.to_string()]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, out, err) = ask(&["list"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for text in ["/users/{user}", "declared", "/carts/{id}", "learned", "_unmatched"] {
        assert!(out.contains(text), "{text} in\n{out}");
    }
    let (code, out, _) = ask(&["explain", "/carts/99"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("/carts/{id}") && out.contains("learned") && out.contains("number"), "{out}");
    let (code, out, _) = ask(&["explain", "/users/99"]);
    assert!(code == Some(0) && out.contains("/users/{user}") && out.contains("declared"), "{out}");
    let (code, out, _) = ask(&["explain", "/nothing/like/it"]);
    assert!(code == Some(0) && out.contains("_unmatched"), "{out}");
    let (code, _, err) = ask(&["explain", "carts"]);
    assert!(code == Some(2) && err.contains('/'), "{err}");
    let (code, _, err) = ask(&["explain", &format!("/{}", "x".repeat(20_000))]);
    assert!(code == Some(1) && err.contains(" answers 431 "), "{err}");
    let output = program().args(["routes", "list", "--admin", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("127.0.0.1:1"));
}

/// What `/api/v1/routes` explains of a path.
fn explained(sidecar: &Sidecar, path: &str) -> serde_json::Value {
    let response = sidecar.admin_get(&format!("/api/v1/routes?path={path}"), "");
    assert_eq!(response.status(), 200, "{}", response.text());
    serde_json::from_slice(&response.body.content).unwrap()
}

#[test]
fn a_path_beyond_the_limit_is_explained_by_the_route_that_it_counts_under() {
    let backend = backend();
    let sidecar = Sidecar::before(&backend).learning().flag("--routes-limit", 1).start();
    let long = format!("/{}", "long/".repeat(300));
    let before = explained(&sidecar, "/pears/7");
    assert_eq!((&before["route"], &before["source"]), (&"_unmatched".into(), &serde_json::Value::Null));
    assert_eq!(
        before["why"],
        "no template matches it, and no answer has earned it a label yet; it would fall under /pears/{id}"
    );
    let too_long = "no template matches it, and nothing is learned from paths of more than 1024 bytes";
    assert_eq!(explained(&sidecar, &long)["why"], too_long);

    let mut client = sidecar.client();
    for path in ["/apples/1", "/pears/7", "/pears/8", &long] {
        client.get(path);
    }
    let page = sidecar.settled(4);
    assert_eq!((requests(&page, "_other"), requests(&page, "_unmatched")), (2.0, 1.0));
    let after = explained(&sidecar, "/pears/7");
    assert_eq!((&after["route"], &after["requests"]), (&"_other".into(), &2.into()));
    assert_eq!(
        after["why"],
        "no template matches it, and the limit of routes is reached: what would earn a label counts under _other, a \
         404, 405 or no answer under _unmatched"
    );
    let after = explained(&sidecar, &long);
    assert_eq!((&after["route"], &after["requests"]), (&"_unmatched".into(), &1.into()));
    assert_eq!(after["why"], too_long);
    assert_eq!(explained(&sidecar, "/apples/2")["route"], "/apples/{id}");
}

#[test]
fn an_imported_template_beyond_the_limit_says_that_it_counts_under_other() {
    let backend = backend();
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("fruit.yaml");
    let text = "openapi: 3.0.3\npaths: {'/apples/{id}': {get: {}}, '/pears/{id}': {get: {}}, /plums: {get: {}}}\n";
    std::fs::write(&document, text).unwrap();
    let sidecar =
        Sidecar::before(&backend).yaml(format!("openapi: {}\n", document.display())).flag("--routes-limit", 1).start();
    assert_eq!(
        explained(&sidecar, "/apples/1")["why"],
        "a template of an imported document matches it; its first request gives it the label, as long as the limit of \
         routes is not reached"
    );
    let mut client = sidecar.client();
    for path in ["/apples/1", "/pears/7", "/pears/8"] {
        client.get(path);
    }
    let page = sidecar.settled(3);
    assert_eq!((requests(&page, "_other"), requests(&page, "/apples/{id}")), (2.0, 1.0));
    let apples = explained(&sidecar, "/apples/2");
    assert_eq!((&apples["route"], &apples["requests"]), (&"/apples/{id}".into(), &1.into()));
    assert_eq!(apples["why"], "a template of an imported document matches it");
    let pears = explained(&sidecar, "/pears/9");
    assert_eq!(
        (&pears["route"], &pears["source"], &pears["requests"]),
        (&"_other".into(), &"openapi".into(), &2.into())
    );
    assert_eq!(
        pears["why"],
        "the template /pears/{id} of an imported document matches it, but the limit of routes was reached when its \
         first request came"
    );
    let list = program().args(["routes", "list", "--admin", &sidecar.admin.to_string()]).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let line = |route: &str| list.lines().find(|line| line.starts_with(route)).unwrap_or_else(|| panic!("{list}"));
    assert!(line("/pears/{id}").ends_with("0  the limit was reached; counts under _other"), "{list}");
    assert!(line("/plums").ends_with(" 0"), "{list}");
}

#[test]
fn what_a_stranger_answers_does_not_reach_the_terminal_as_it_is() {
    let evil = "\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m";
    let escaped = "\\u{1b}]0;title\\u{7}\\u{1b}[2J\\u{9b}31m";
    let answer = serde_json::json!({"routes": [{"route": evil, "source": evil, "requests": 1, "why": evil,
        "examples": [evil]}], "path": evil, "method": evil, "route": evil, "why": evil, "segments": [{"text": evil}]});
    let answer = answer.to_string();
    for (status, body, code) in [(200, answer.as_str(), 0), (200, evil, 1), (500, evil, 1)] {
        let body = body.to_owned();
        let stranger = Backend::start(move |peer| {
            let _ = peer.read_head();
            peer.send(format!("HTTP/1.1 {status} Some\r\n\r\n{body}"));
        });
        for arguments in [["routes", "list"].as_slice(), &["routes", "explain", "/a"]] {
            let output = program().args(arguments).args(["--admin", &stranger.address.to_string()]).output().unwrap();
            assert_eq!(output.status.code(), Some(code));
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
            assert!(said.contains(escaped) || status == 200 && code == 1, "{said:?}");
        }
    }
}
