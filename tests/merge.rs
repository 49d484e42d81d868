//! The backend's own metrics on our page: one valid page in both formats, and ours alone, complete and on time, whatever
//! the backend does.

mod common;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{Backend, Gate, PATIENCE, Page, Peer, Sidecar, ok, response, wait_until};
use tokio::time::Instant;

const OPEN: &str = "Accept: application/openmetrics-text; version=1.0.0\r\n";

/// How long a page may take whose backend does not answer within the 300 ms of `QUICK`: far more than it needs, far less
/// than a Prometheus waits.
const ON_TIME: Duration = Duration::from_secs(2);
const QUICK: &str = "backend_metrics:\n  timeout: 300ms\n";

/// What a backend may have: families of every kind, some of them with names that are ours.
const THEIRS: &str = r#"# HELP app_jobs_total Jobs.
# TYPE app_jobs_total counter
app_jobs_total{queue="a\"b\\c\nd"} 11 1700000000123
app_jobs_total{queue="z"} 12
# HELP app_jobs_created When counting began.
# TYPE app_jobs_created gauge
app_jobs_created{queue="z"} 1.7e9
# HELP app_temperature_celsius Temperature.
# TYPE app_temperature_celsius gauge
app_temperature_celsius -13.5
# HELP app_wait_seconds Waits.
# TYPE app_wait_seconds histogram
app_wait_seconds_bucket{le="0.5"} 14
app_wait_seconds_bucket{le="1"} 15
app_wait_seconds_bucket{le="+Inf"} 16
app_wait_seconds_sum 17.5
app_wait_seconds_count 16
# HELP app_size_bytes Sizes.
# TYPE app_size_bytes summary
app_size_bytes{quantile="0.99"} 18
app_size_bytes_sum 19
app_size_bytes_count 20
# HELP process_cpu_seconds_total Not ours.
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1e12
# HELP golden_requests Almost ours.
# TYPE golden_requests gauge
golden_requests 21
# HELP golden_pool_connections Ours, though not on the page now.
# TYPE golden_pool_connections gauge
golden_pool_connections 22
# HELP golden_backend_scrape_up Ours.
# TYPE golden_backend_scrape_up gauge
golden_backend_scrape_up 23
"#;
const DROPPED: f64 = 4.0;

/// A backend whose `/metrics` is this.
fn with_page(page: &'static str) -> Backend {
    Backend::answering(move |request| match request.head.target() {
        "/metrics" => ok(page),
        _ => response(404, "", "no"),
    })
}

/// A page with the backend's families, checked for what always holds.
fn merged(sidecar: &Sidecar, fields: &str) -> Page {
    let response = sidecar.admin_get("/metrics?include=backend", fields);
    assert_eq!(response.status(), 200, "{}", response.text());
    let page = Page::parse(&response.text());
    page.check();
    page
}

fn piped(command: &mut Command, page: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it is installed");
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn official_parser(page: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    assert!(python.exists(), "{} is missing; `make setup` makes it", python.display());
    let output = piped(Command::new(python).arg(root.join("tests/peers/openmetrics.py")), page);
    assert!(output.status.success(), "{}\n{page}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn both_pages_are_one_in_text() {
    let backend = with_page(THEIRS);
    let sidecar = Sidecar::start(&backend);
    let plain = sidecar.scrape();
    assert!(!plain.text.contains("app_") && !plain.text.contains("golden_backend_scrape"), "nobody has asked yet");
    assert!(backend.requests().is_empty());

    let page = merged(&sidecar, "");
    for (name, labels, value) in [
        ("app_jobs_total", &[("queue", "a\"b\\c\nd")][..], 11.0),
        ("app_jobs_total", &[("queue", "z")], 12.0),
        ("app_jobs_created", &[], 1.7e9),
        ("app_temperature_celsius", &[], -13.5),
        ("app_wait_seconds_bucket", &[("le", "1")], 15.0),
        ("app_wait_seconds_sum", &[], 17.5),
        ("app_size_bytes", &[("quantile", "0.99")], 18.0),
        ("golden_backend_scrape_up", &[], 1.0),
        ("golden_backend_scrape_size_bytes", &[], THEIRS.len() as f64),
        ("golden_backend_scrape_families_dropped", &[], DROPPED),
    ] {
        assert_eq!(page.value(name, labels), value, "{name} {labels:?}");
    }
    assert!(page.text.contains("\napp_jobs_total{queue=\"a\\\"b\\\\c\\nd\"} 11 1700000000123\n"), "{}", page.text);
    assert!(page.value("golden_backend_scrape_duration_seconds", &[]) > 0.0);
    assert!(page.value("process_cpu_seconds_total", &[]) < 1e9, "ours wins");
    assert!(!page.has("golden_requests", &[]) && !page.has("golden_pool_connections", &[]));
    assert!(plain.types.iter().all(|(family, kind)| page.types.get(family) == Some(kind)), "ours is complete");
    assert_eq!(page.sum("golden_backend_scrape_failures_total", &[]), 0.0);
    let said = piped(Command::new("promtool").args(["check", "metrics"]), &page.text);
    let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && words.is_empty(), "{words}");

    let asked = backend.request();
    assert_eq!(asked.head.line, "GET /metrics HTTP/1.1");
    assert!(asked.head.list("user-agent").starts_with("golden-sidecar/"), "{asked:?}");
    // It is no traffic, and what describes one page does not stand on another.
    let plain = sidecar.scrape();
    assert_eq!(plain.sum("golden_requests_total", &[]), 0.0);
    assert!(!plain.has("golden_backend_scrape_up", &[]) && !plain.text.contains("app_"));
    assert_eq!(plain.matching("golden_backend_scrape_failures_total", &[]).count(), 5, "a counter stays");
}

#[test]
fn both_pages_are_one_in_openmetrics() {
    let backend = with_page(THEIRS);
    let sidecar = Sidecar::start(&backend);
    let page = merged(&sidecar, OPEN);
    assert!(page.text.ends_with("\n# EOF\n") && page.text.matches("# EOF").count() == 1);
    let families = official_parser(&page.text);
    for family in [
        "app_jobs counter",
        "app_temperature_celsius gauge",
        "app_wait_seconds histogram",
        "app_size_bytes summary",
        "golden_backend_scrape_up gauge",
        "golden_backend_scrape_failures counter",
        "golden_log_dropped counter",
    ] {
        assert!(families.lines().any(|line| line == family), "{family} is not in {families}");
    }
    assert!(page.text.contains("\napp_jobs_created{queue=\"z\"} 1700000000.0\n"), "{}", page.lines_of("app_jobs"));
    assert!(page.text.contains("} 11.0 1700000000.123\n") && page.text.contains("_bucket{le=\"1.0\"} 15\n"));
    assert_eq!(page.value("golden_backend_scrape_families_dropped", &[]), DROPPED);
}

#[test]
fn pages_of_poor_quality_are_still_valid_in_text() {
    let backend = with_page(
        "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"x\"} 3\nh_bucket{le=\"1\"} 3\nh_count 4\nh_sum 5\n\
         # HELP s S.\n# TYPE s summary\ns{quantile=\"\"} 6\ns_count 7\n",
    );
    let sidecar = Sidecar::start(&backend);
    let page = merged(&sidecar, "");
    assert_eq!(page.value("h_bucket", &[("le", "x")]), 3.0);
    assert_eq!((page.value("h_count", &[]), page.value("s_count", &[])), (4.0, 7.0));
    let said = piped(Command::new("promtool").args(["check", "metrics"]), &page.text);
    let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && words.is_empty(), "{words}");
}

#[test]
fn pages_of_poor_quality_are_still_valid_in_openmetrics() {
    let backend = with_page(
        "# TYPE a counter\na 1\n# TYPE b_total counter\nb_total -1\n# TYPE b gauge\nb 2\n# TYPE h histogram\n\
         h_bucket{le=\"1\"} 3\nh_count 4\nfree{x=\"1\"} +Inf\nmixed 1 17\nfree{x=\"2\"} 5 18\n# TYPE a gauge\na 9\n\
         # TYPE s summary\ns{quantile=\"2\"} 6\r\ns_created 7",
    );
    let sidecar = Sidecar::start(&backend);
    let page = merged(&sidecar, OPEN);
    let families = official_parser(&page.text);
    for family in
        ["a unknown", "b_total unknown", "b gauge", "h_bucket unknown", "h_count unknown", "free unknown", "s unknown"]
    {
        assert!(families.lines().any(|line| line == family), "{family} is not in {families}");
    }
    assert_eq!((page.value("a", &[]), page.value("golden_backend_scrape_families_dropped", &[])), (1.0, 1.0));
}

#[test]
fn a_backend_that_does_not_deliver_leaves_our_page_complete_and_on_time() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    type Script = fn(&mut Peer);
    fn answer(peer: &mut Peer, bytes: Vec<u8>) {
        let _ = peer.send(bytes);
    }
    let scripts: [(&str, &str, Script); 8] = [
        ("hangs", "timeout", |peer| drop(peer.wire.wait_end())),
        ("stops in the middle", "timeout", |peer| {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\na 1\n");
            let _ = peer.wire.wait_end();
        }),
        ("answers 500", "status", |peer| answer(peer, response(500, "", "a 1\n"))),
        ("redirects", "status", |peer| answer(peer, response(302, "Location: /livez\r\n", ""))),
        ("closes", "unreachable", |_| ()),
        ("sends a page for people", "malformed", |peer| answer(peer, ok("<!doctype html>\n<p>a 1"))),
        ("announces too much", "too_large", |peer| {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n");
            let _ = peer.wire.wait_end();
        }),
        ("goes on for ever", "too_large", |peer| {
            let piece = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
            while peer.send(&piece) {}
        }),
    ];
    for (what, reason, script) in scripts {
        let endless = what == "goes on for ever";
        let backend = Backend::start(move |peer| {
            if peer.read_request().is_some() {
                if endless {
                    peer.send(chunked);
                }
                script(peer);
            }
        });
        let sidecar = Sidecar::before(&backend).yaml(QUICK).start();
        let plain = sidecar.scrape();
        sidecar.forget_peak();
        let before = sidecar.resident();
        let begun = Instant::now();
        let page = merged(&sidecar, "");
        assert!(begun.elapsed() < ON_TIME, "{what}: {:?}", begun.elapsed());
        assert!(sidecar.peak_resident() < before + (32 << 20), "{what}: {} bytes", sidecar.peak_resident() - before);
        assert_eq!(page.value("golden_backend_scrape_up", &[]), 0.0, "{what}");
        assert_eq!(page.value("golden_backend_scrape_families_dropped", &[]), 0.0, "{what}");
        let failures = "golden_backend_scrape_failures_total";
        assert_eq!(page.value(failures, &[("reason", reason)]), 1.0, "{what}: {}", page.lines_of(failures));
        assert_eq!(page.sum(failures, &[]), 1.0, "{what}: {}", page.lines_of(failures));
        assert!(plain.types.iter().all(|(family, kind)| page.types.get(family) == Some(kind)), "{what}: not complete");
        assert!(!page.has("a", &[]), "{what}: all or nothing");
        official_parser(&merged(&sidecar, OPEN).text);
    }
}

#[test]
fn a_backend_that_goes_and_comes_back_is_merged_again() {
    let mut backend = with_page("a 1\n");
    let address = backend.address;
    let sidecar = Sidecar::before(&backend).yaml(QUICK).start();
    assert_eq!(merged(&sidecar, "").value("a", &[]), 1.0);
    backend.stop();
    let gone = |page: &Page| page.value("golden_backend_scrape_up", &[]) == 0.0 && !page.has("a", &[]);
    wait_until("it is gone", || gone(&merged(&sidecar, "")));
    let page = merged(&sidecar, "");
    assert!(page.value("golden_backend_scrape_failures_total", &[("reason", "unreachable")]) >= 1.0);
    wait_until("the log says so", || sidecar.logged("backend_metrics_missing"));
    let _again = Backend::start_at(address, |peer| {
        while peer.read_request().is_some() {
            peer.send(ok("a 2\n"));
        }
    });
    wait_until("it is back", || merged(&sidecar, "").get("a", &[]) == Some(2.0));
}

#[test]
fn scrapes_that_come_together_share_one_question_and_nobody_else_waits() {
    let gate = Gate::new();
    let backend = Backend::start({
        let gate = gate.clone();
        move |peer| {
            while peer.read_request().is_some() {
                gate.wait();
                peer.send(ok("a 1\n"));
            }
        }
    });
    let sidecar = Sidecar::before(&backend).yaml("backend_metrics:\n  timeout: 8s\n").start();
    std::thread::scope(|scope| {
        let scrapes: Vec<_> = (0..8).map(|_| scope.spawn(|| merged(&sidecar, ""))).collect();
        wait_until("the backend is asked", || backend.requests().len() == 1);
        // A scraper that leaves takes nothing from the others.
        let mut leaver = common::Client::to(sidecar.admin);
        leaver.send("GET /metrics?include=backend HTTP/1.1\r\nHost: x\r\n\r\n");
        drop(leaver);
        let begun = Instant::now();
        for _ in 0..20 {
            assert_eq!(sidecar.admin_get("/livez", "").status(), 200);
            assert!(!sidecar.scrape().has("a", &[]), "the plain page has nothing to wait for");
        }
        assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
        assert!(scrapes.iter().all(|scrape| !scrape.is_finished()));
        gate.open();
        for scrape in scrapes {
            assert_eq!(scrape.join().unwrap().value("a", &[]), 1.0);
        }
    });
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn a_page_may_wait_for_its_backend_longer_than_for_its_reader() {
    // The head of a request has 5 s, an answer 30 s; the backend may have 6 s between them.
    let backend = Backend::start(|peer| drop(peer.wire.wait_end()));
    let sidecar = Sidecar::before(&backend).yaml("backend_metrics:\n  timeout: 6s\n").start();
    let begun = Instant::now();
    let page = merged(&sidecar, "");
    assert!(begun.elapsed() >= Duration::from_secs(6));
    assert_eq!(page.value("golden_backend_scrape_failures_total", &[("reason", "timeout")]), 1.0);
}

#[test]
fn the_backend_is_asked_when_told_to_and_only_then() {
    let backend = with_page("a 1\n");
    let other = Backend::answering(|_| ok("b 2\n"));
    let sidecar = Sidecar::before(&backend).yaml("backend_metrics:\n  include: false\n").start();
    for path in
        ["/metrics", "/metrics?x=y", "/metrics?include=all", "/metrics?include=backends", "/livez?include=backend"]
    {
        assert!(!sidecar.admin_get(path, "").text().contains("\na 1\n"), "{path}");
    }
    assert_eq!(backend.requests().len(), 0);
    for path in ["/metrics?include=backend", "/metrics?x=y&include=backend&z"] {
        assert!(sidecar.admin_get(path, "").text().contains("\na 1\n"), "{path}");
    }
    let mut client = common::Client::to(sidecar.admin);
    client.send("HEAD /metrics?include=backend HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = client.read_response("HEAD").head;
    let length: usize = head.one("content-length").unwrap().parse().unwrap();
    assert!(head.status() == 200 && length > sidecar.scrape().text.len(), "{head:?}");

    // A reload tells where it is and that it is wanted always; the user of the URL is sent and shown nowhere.
    let url = format!("http://scraper:s3cret@{}/internal/stats", other.address);
    sidecar.rewrite(&format!("backend_metrics:\n  url: {url}\n  include: true\n  size: 1KiB\n"));
    sidecar.signal(libc::SIGHUP);
    let page = sidecar.page_when("the other page", |page| page.get("b", &[]) == Some(2.0));
    assert!(!page.has("a", &[]) && page.value("golden_backend_scrape_up", &[]) == 1.0);
    let asked = other.requests().remove(0);
    assert_eq!(asked.head.line, "GET /internal/stats HTTP/1.1");
    assert_eq!(asked.head.list("authorization"), "Basic c2NyYXBlcjpzM2NyZXQ=");
    let config = sidecar.admin_get("/api/v1/config", "").text();
    assert!(!config.contains("s3cret") && !page.text.contains("s3cret") && !sidecar.logged("s3cret"));
}
