//! The metrics page through the front door: every format and encoding, filters, and scrapers that come at once, leave early
//! or ask for too much.

mod common;

use std::io::Read as _;
use std::sync::Barrier;

use common::{Backend, Client, Page, Response, Sidecar, ok, response, wait_until};
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as data;
use prost::Message as _;

const OPEN: &str = "Accept: application/openmetrics-text;version=1.0.0\r\n";
/// What Prometheus 2.5x asks for when native histograms are switched on, and what 3.x asks for.
const NATIVE: &str = "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4,application/openmetrics-text;version=0.0.1;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1\r\n";
const PROMETHEUS_3: &str = "Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n";
const PROMETHEUS_3_TEXT: &str =
    "Accept: text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.4\r\n";
const DRAFT: &str = "Accept: application/openmetrics-text;version=0.0.1;q=0.6,*/*;q=0.5\r\n";

/// Field lines, and the content type that they lead to.
const FORMATS: [(&str, &str); 7] = [
    ("", "text/plain; version=0.0.4; charset=utf-8"),
    ("Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n", "text/plain; version=0.0.4; charset=utf-8"),
    (OPEN, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    (DRAFT, "application/openmetrics-text; version=0.0.1; charset=utf-8"),
    (PROMETHEUS_3, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
    (PROMETHEUS_3_TEXT, "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
    (NATIVE, "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"),
];

/// A backend with metrics of its own, one of them with a name that is not plain.
const THEIRS: &str = "# TYPE app_jobs_total counter\napp_jobs_total{queue=\"z\"} 12\n# TYPE app_wait_seconds histogram\n\
    app_wait_seconds_bucket{le=\"0.5\"} 14\napp_wait_seconds_bucket{le=\"+Inf\"} 16\napp_wait_seconds_sum 17.5\n\
    app_wait_seconds_count 16\n# TYPE \"app.temp\" gauge\n{\"app.temp\",\"place.name\"=\"x\"} -13.5\n";

fn backend() -> Backend {
    Backend::answering(|request| match request.head.target() {
        "/metrics" => ok(THEIRS),
        target => response(target.strip_prefix("/").and_then(|code| code.parse().ok()).unwrap_or(200), "", "body"),
    })
}

/// A page that takes a while to make: each route has many series from the start.
fn large() -> String {
    let routes: String = (0..100).map(|place| format!("  - path: /route-{place}/{{id}}\n")).collect();
    format!("routes:\n{routes}")
}

#[track_caller]
fn get(sidecar: &Sidecar, path: &str, fields: &str) -> Response {
    let response = sidecar.admin_get(path, fields);
    assert_eq!(response.status(), 200, "{}", response.text());
    assert!(response.body.complete);
    response
}

fn families(mut bytes: &[u8]) -> Vec<data::MetricFamily> {
    let mut families = Vec::new();
    while !bytes.is_empty() {
        families.push(data::MetricFamily::decode_length_delimited(&mut bytes).expect("a message"));
    }
    families
}

/// The value of a counter whose labels contain these.
fn counted(families: &[data::MetricFamily], name: &str, labels: &[(&str, &str)]) -> f64 {
    let family = families.iter().find(|family| family.name == name).unwrap_or_else(|| panic!("no {name}"));
    let matching = family.metric.iter().filter(|metric| {
        labels.iter().all(|(name, value)| metric.label.iter().any(|label| label.name == *name && label.value == *value))
    });
    matching.map(|metric| metric.counter.as_ref().expect("a counter").value).sum()
}

fn unpacked(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut plain).expect("gzip");
    plain
}

#[test]
fn each_scraper_gets_its_format_with_the_same_numbers_and_in_gzip_too() {
    let backend = backend();
    let sidecar = Sidecar::start(&backend);
    for target in ["/200", "/200", "/404"] {
        sidecar.get(target);
    }
    sidecar.settled(3);
    for (fields, content_type) in FORMATS {
        let plain = get(&sidecar, "/metrics", fields);
        assert_eq!(plain.head.one("content-type").unwrap(), content_type);
        assert!(!plain.head.has("content-encoding") && plain.head.list("vary").contains("Accept-Encoding"));
        let packed = get(&sidecar, "/metrics", &format!("{fields}Accept-Encoding: gzip\r\n"));
        assert_eq!(packed.head.one("content-type").unwrap(), content_type);
        assert_eq!(packed.head.one("content-encoding").unwrap(), "gzip");
        assert!(packed.body.content.len() < plain.body.content.len() / 3, "{content_type}");
        for bytes in [plain.body.content, unpacked(&packed.body.content)] {
            let status = |code: &'static str| [("http_response_status_code", code)];
            if content_type.contains("protobuf") {
                let families = families(&bytes);
                assert_eq!(counted(&families, "golden_requests_total", &status("200")), 2.0);
                assert_eq!(counted(&families, "golden_requests_total", &status("404")), 1.0);
                let waits =
                    families.iter().find(|family| family.name == "http_server_request_duration_seconds").unwrap();
                let counts = waits.metric.iter().map(|metric| metric.histogram.as_ref().unwrap().sample_count);
                assert_eq!((counts.sum::<u64>(), waits.unit.as_str()), (3, "seconds"));
                continue;
            }
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(text.ends_with("\n# EOF\n"), content_type.contains("openmetrics"));
            let page = Page::parse(&text);
            page.check();
            assert_eq!(page.sum("golden_requests_total", &status("200")), 2.0);
            assert_eq!(page.sum("golden_requests_total", &status("404")), 1.0);
            assert_eq!(page.count("http_server_request_duration_seconds", &[]), 3.0);
        }
    }
}

#[test]
fn head_tells_the_length_that_get_would_have() {
    let backend = backend();
    let sidecar = Sidecar::start(&backend);
    for (fields, content_type) in FORMATS {
        // A family whose numbers stay the same between the two.
        let path = "/metrics?name[]=golden_build_info";
        let length = get(&sidecar, path, fields).body.content.len();
        let mut client = Client::to(sidecar.admin);
        let head = client.exchange(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).head;
        assert_eq!(head.one("content-length").unwrap(), length.to_string(), "{content_type}");
        assert_eq!(head.one("content-type").unwrap(), content_type);
        // And the connection goes on.
        assert_eq!(client.get("/livez").status(), 200);
    }
}

#[test]
fn a_filter_leaves_only_what_it_names() {
    let backend = backend();
    let sidecar = Sidecar::start(&backend);
    sidecar.get("/200");
    sidecar.settled(1);
    let types = |path: &str, fields: &str| -> Vec<String> {
        let text = get(&sidecar, path, fields).text();
        if fields == OPEN {
            assert!(text.ends_with("# EOF\n"), "{text}");
        }
        if text.is_empty() { Vec::new() } else { Page::parse(&text).types.into_keys().collect() }
    };
    for (query, expected) in [
        ("name[]=golden_requests_total", &["golden_requests_total"][..]),
        ("name%5B%5D=golden_requests_total&name[]=golden_build_info", &["golden_build_info", "golden_requests_total"]),
        ("name[]=golden_requests&include=nothing", &["golden_requests_total"]),
        ("name[]=golden_requests_created", &["golden_requests_total"]),
        ("name[]=http_server_request_duration_seconds_bucket", &["http_server_request_duration_seconds"]),
        ("name[]=http_server_request_duration_seconds_sum", &["http_server_request_duration_seconds"]),
        ("name[]=http_server_request_duration_seconds", &["http_server_request_duration_seconds"]),
        ("name[]=http_server_request_duration", &[]),
        ("name[]=app_jobs_total", &[]),
        ("name[]=", &[]),
        ("include=backend&name[]=app_jobs_total", &["app_jobs_total"]),
        ("name[]=app_wait_seconds_count&include=backend&name[]=nothing", &["app_wait_seconds"]),
        ("name[]=golden_backend_scrape_up&include=backend", &["golden_backend_scrape_up"]),
        ("name[]=app_temp&include=backend", &["app_temp"]),
    ] {
        let path = format!("/metrics?{query}");
        assert_eq!(types(&path, ""), expected, "{query}");
        let open: Vec<_> = expected.iter().map(|name| name.strip_suffix("_total").unwrap_or(name)).collect();
        assert_eq!(types(&path, OPEN), open, "{query}");
        let families = families(&get(&sidecar, &path, NATIVE).body.content);
        assert_eq!(families.into_iter().map(|family| family.name).collect::<Vec<_>>(), expected, "{query}");
    }
    assert_eq!(get(&sidecar, "/metrics?name[]=no", OPEN).text(), "# EOF\n");
    assert_eq!(get(&sidecar, "/metrics?name[]=no", "").body.content, b"");
    let everything = types("/metrics?name=golden_build_info&names[]=x", "");
    assert!(everything.len() > 50, "what is no filter filters nothing");
}

#[test]
fn a_filter_that_cannot_be_read_is_refused_in_words() {
    let backend = backend();
    let sidecar = Sidecar::start(&backend);
    let many = vec!["name[]=a"; 101].join("&");
    let long = format!("name[]={}", "a".repeat(257));
    for (query, problem) in [
        ("name[]=%zz", "name[]: a percent sign without two hexadecimal digits, or bytes that are not UTF-8\n"),
        (&many, "name[]: more than 100 names; ask for all and pick from them\n"),
        (&long, "name[]: a name of more than 256 bytes\n"),
    ] {
        let response = sidecar.admin_get(&format!("/metrics?{query}"), "");
        assert_eq!((response.status(), response.text().as_str()), (400, problem));
    }
}

#[test]
fn names_of_the_backend_that_are_not_plain_are_quoted_only_for_those_who_ask() {
    let backend = backend();
    let sidecar = Sidecar::start(&backend);
    let page = |fields: &str| get(&sidecar, "/metrics?include=backend", fields).text();
    for fields in [PROMETHEUS_3, PROMETHEUS_3_TEXT] {
        let text = page(fields);
        assert!(text.contains("# TYPE \"app.temp\" gauge\n{\"app.temp\",\"place.name\"=\"x\"} -13.5\n"), "{text}");
    }
    for (fields, expected) in [
        ("", "app_temp{place_name=\"x\"} -13.5\n"),
        (OPEN, "app_temp{place_name=\"x\"} -13.5\n"),
        ("Accept: text/plain;escaping=dots\r\n", "app_dot_temp{place_dot_name=\"x\"} -13.5\n"),
        ("Accept: text/plain;version=1.0.0;escaping=values\r\n", "U__app_2e_temp{U__place_2e_name=\"x\"} -13.5\n"),
    ] {
        let text = page(fields);
        assert!(text.contains(expected), "{fields}{text}");
        Page::parse(&text).check();
    }
    let utf8 = NATIVE.replace("delimited", "delimited;escaping=allow-utf-8");
    for (fields, expected) in [(NATIVE, "app_temp"), (&utf8, "app.temp")] {
        let families = families(&get(&sidecar, "/metrics?include=backend", fields).body.content);
        let family = families.iter().find(|family| family.name == expected).unwrap();
        assert_eq!(family.metric[0].gauge.as_ref().unwrap().value, -13.5);
        let wait = families.iter().find(|family| family.name == "app_wait_seconds").unwrap();
        let histogram = wait.metric[0].histogram.as_ref().unwrap();
        assert_eq!((histogram.sample_count, histogram.bucket[0].cumulative_count), (16, 14));
        assert_eq!(counted(&families, "app_jobs_total", &[("queue", "z")]), 12.0);
    }
}

#[test]
fn scrapers_that_come_together_share_pages_and_none_is_older_than_its_question() {
    const SCRAPERS: usize = 20;
    let backend = backend();
    let sidecar = Sidecar::before(&backend).yaml(large()).start();
    let (mut requests, mut scrapes) = (0, 0);
    wait_until("some share a page", || {
        requests += 1;
        sidecar.get("/200");
        // Of text; the page that is shared below was last made before this request.
        sidecar.settled(requests);
        let barrier = Barrier::new(SCRAPERS);
        std::thread::scope(|scope| {
            for _ in 0..SCRAPERS {
                scope.spawn(|| {
                    let mut client = Client::to(sidecar.admin);
                    barrier.wait();
                    let response = client.exchange(format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{OPEN}\r\n"));
                    let page = Page::parse(&response.text());
                    assert_eq!(page.sum("golden_requests_total", &[]), requests as f64, "an old page");
                });
            }
        });
        scrapes += SCRAPERS;
        let shared = sidecar.scrape().value("golden_scrapes_shared_total", &[]);
        assert!(shared < scrapes as f64);
        // Half of them and more: then there were fewer pages than scrapers by far.
        shared >= SCRAPERS as f64 / 2.0
    });
}

#[test]
fn readers_that_leave_in_the_middle_take_nothing_from_the_others() {
    let backend = backend();
    let sidecar = Sidecar::before(&backend).yaml(large()).start();
    sidecar.get("/200");
    sidecar.settled(1);
    std::thread::scope(|scope| {
        for place in 0..30 {
            let sidecar = &sidecar;
            scope.spawn(move || {
                let mut client = Client::to(sidecar.admin);
                client.send(format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{OPEN}\r\n"));
                match place % 3 {
                    // Before the answer, behind its head, and not at all.
                    0 => client.reset(),
                    1 => {
                        assert_eq!(client.read_head().status(), 200);
                        client.reset();
                    }
                    _ => {
                        let page = client.read_response("GET");
                        assert!(page.body.complete && page.text().ends_with("# EOF\n"));
                        assert_eq!(Page::parse(&page.text()).sum("golden_requests_total", &[]), 1.0);
                    }
                }
            });
        }
    });
    assert_eq!(sidecar.scrape().sum("golden_requests_total", &[]), 1.0);
}

#[test]
fn who_asks_for_too_many_different_pages_is_told_to_come_back() {
    const ASKERS: usize = 48;
    let backend = backend();
    let sidecar = Sidecar::before(&backend).yaml(large()).start();
    let mut round = 0;
    wait_until("somebody is refused", || {
        round += 1;
        let barrier = Barrier::new(ASKERS);
        let refused = std::thread::scope(|scope| {
            let askers: Vec<_> = (0..ASKERS)
                .map(|place| {
                    let (sidecar, barrier) = (&sidecar, &barrier);
                    scope.spawn(move || {
                        let mut client = Client::to(sidecar.admin);
                        barrier.wait();
                        let response = client.get(&format!("/metrics?name[]=made_up_{place}_{round}"));
                        match response.status() {
                            200 => assert_eq!(response.body.content, b""),
                            503 => assert_eq!(response.head.one("retry-after").unwrap(), "1"),
                            other => panic!("{other}: {}", response.text()),
                        }
                        response.status() == 503
                    })
                })
                .collect();
            askers.into_iter().map(|asker| asker.join().unwrap()).filter(|refused| *refused).count()
        });
        assert!(refused < ASKERS, "some are served");
        refused > 0
    });
    assert_eq!(sidecar.admin_get("/livez", "").status(), 200);
    assert!(sidecar.scrape().has("golden_build_info", &[]), "and then it goes on");
}
