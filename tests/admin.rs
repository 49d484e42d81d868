//! The admin port through real sockets: every endpoint, what it refuses, its bounds, and readiness.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use golden_sidecar::admin::{About, Admin, Backend, Limits, Readiness, serve_with};
use golden_sidecar::config::{Readiness as ReadinessConfig, Upstream};
use golden_sidecar::exposition::Exporter;
use golden_sidecar::labels::{RouteId, RouteKind};
use golden_sidecar::readiness::{Gauges, Probe};
use golden_sidecar::routes::{Ids, RouteTable};
use golden_sidecar::signals::Signals;
use golden_sidecar::transport;
use prometheus::{GaugeVec, IntCounter, Opts, Registry};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// Nothing here takes a second on an idle machine; this is for a busy one.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running admin port, and the other ends of what it reads.
/// There are no routes here.
#[derive(Debug)]
struct NoIds;

impl Ids for NoIds {
    fn declared(&self, _name: &str, _edges: Option<&[f64]>) -> RouteId {
        RouteId::OTHER
    }

    fn first_used(&self, _name: &str, _kind: RouteKind) -> Option<RouteId> {
        None
    }
}

struct Fixture {
    address: SocketAddr,
    admin: Arc<Admin>,
    registry: Registry,
    readiness: Readiness,
    config_json: watch::Sender<Bytes>,
    shutdown: watch::Sender<bool>,
    server: JoinHandle<()>,
}

/// An answer, taken apart.
struct Answer {
    status: u16,
    /// Lower-case names.
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

// === impl Fixture ===

impl Fixture {
    async fn start() -> Fixture {
        Fixture::with_limits(Limits::default()).await
    }

    async fn with_limits(limits: Limits) -> Fixture {
        let registry = Registry::new();
        let counter = IntCounter::new("golden_test_bytes_total", "Bytes.").unwrap();
        counter.inc_by(3);
        registry.register(Box::new(counter)).unwrap();
        let readiness = Readiness::new();
        let (config_json, config) = watch::channel(Bytes::from_static(b"{\"upstream\":\"old\"}"));
        let about = About {
            version: "1.2.3".to_owned(),
            proxy: "127.0.0.1:8000".parse().unwrap(),
            addresses: Vec::new(),
            upstream: "http://127.0.0.1:8080".to_owned(),
        };
        let (_, about) = watch::channel(about);
        let admin = Arc::new(Admin::new(
            Exporter::new(&registry, Box::new(Vec::new)).unwrap(),
            readiness.reader(),
            config,
            about,
            watch::channel(Arc::new(RouteTable::new(&[], &[], None, Arc::new(NoIds)).unwrap())).1,
            Signals::new(1, &[1.0], 10),
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, stop) = watch::channel(false);
        let server = tokio::spawn(serve_with(listener, admin.clone(), stop, limits));
        Fixture { address, admin, registry, readiness, config_json, shutdown, server }
    }

    async fn ask(&self, method: &str, path: &str, fields: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(&mut stream).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }
}

// === impl Answer ===

impl Answer {
    /// Reads to the end of the connection. The end may be a reset, if the server left something unread.
    async fn read(stream: &mut TcpStream) -> Answer {
        let mut bytes = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection ends");
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a complete head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let fields = lines.map(|line| line.split_once(": ").unwrap());
        let fields = fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Answer { status, fields, body: bytes[end + 4..].to_vec() }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

#[tokio::test]
async fn every_endpoint_answers_with_its_type_and_the_safety_fields() {
    let fixture = Fixture::start().await;
    fixture.readiness.started();
    fixture.readiness.backend(Backend::Up);
    for (path, content_type, start) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "# HELP golden_scrape_duration_seconds "),
        ("/metrics?name=x", "text/plain; version=0.0.4; charset=utf-8", "# HELP golden_scrape_duration_seconds "),
        ("/livez", "text/plain; charset=utf-8", "ok\n"),
        ("/readyz", "text/plain; charset=utf-8", "ready\n"),
        ("/api/v1/config", "application/json", "{\"upstream\":\"old\"}"),
    ] {
        let answer = fixture.get(path).await;
        assert_eq!((answer.status, answer.field("content-type")), (200, Some(content_type)), "{path}");
        assert!(answer.text().starts_with(start), "{path}: {}", answer.text());
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.field("content-security-policy").is_some(), path == "/", "{path}");
    }
}

#[tokio::test]
async fn other_paths_are_404_and_other_methods_405() {
    let fixture = Fixture::start().await;
    for path in ["/metrics/", "/nope", "/api/v1", "//", "/livez/x", "/METRICS"] {
        assert_eq!(fixture.get(path).await.status, 404, "{path}");
    }
    for path in ["/", "/metrics", "/livez", "/readyz", "/api/v1/config"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"] {
            let answer = fixture.ask(method, path, "").await;
            assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD")), "{method} {path}");
        }
    }
    assert_eq!(fixture.admin.scrapes(), 0);
}

#[tokio::test]
async fn head_has_the_fields_of_get_and_no_body() {
    let fixture = Fixture::start().await;
    for path in ["/", "/livez", "/readyz", "/api/v1/config", "/nope"] {
        let (get, head) = (fixture.get(path).await, fixture.ask("HEAD", path, "").await);
        let without_date =
            |answer: &Answer| answer.fields.iter().filter(|(name, _)| name != "date").cloned().collect::<Vec<_>>();
        assert_eq!((head.status, without_date(&head)), (get.status, without_date(&get)), "{path}");
        assert_eq!(get.field("content-length"), Some(get.body.len().to_string().as_str()), "{path}");
        assert_eq!(head.text(), "", "{path}");
    }
    // The page about pages changes its own length, so for metrics only the presence of one is compared.
    let head = fixture.ask("HEAD", "/metrics", "Accept-Encoding: gzip\r\n").await;
    assert_eq!((head.status, head.field("content-encoding"), head.text()), (200, Some("gzip"), ""));
    assert!(head.field("content-length").unwrap().parse::<usize>().unwrap() > 100);
    assert_eq!(fixture.admin.scrapes(), 0);
}

#[tokio::test]
async fn metrics_come_in_the_format_and_encoding_asked_for() {
    let fixture = Fixture::start().await;
    let prometheus = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3\r\n\
                      Accept-Encoding: gzip\r\n";
    let answer = fixture.ask("GET", "/metrics", prometheus).await;
    assert_eq!(answer.field("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert_eq!(answer.field("content-encoding"), Some("gzip"));
    assert_eq!(answer.field("vary"), Some("Accept, Accept-Encoding"));
    let mut page = String::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut page).unwrap();
    assert!(page.contains("# UNIT golden_test_bytes bytes\n") && page.contains("\ngolden_test_bytes_total 3.0\n"));
    assert!(page.ends_with("# EOF\n"));

    let answer = fixture.ask("GET", "/metrics", "Accept-Encoding: gzip;q=0\r\n").await;
    assert_eq!(answer.field("content-encoding"), None);
    assert!(answer.text().contains("# TYPE golden_test_bytes_total counter\ngolden_test_bytes_total 3\n"));
    let size = format!("golden_scrape_size_bytes{{encoding=\"identity\"}} {}\n", page.len());
    assert!(answer.text().contains(&size), "{}", answer.text());
}

#[tokio::test]
async fn a_scrape_wakes_whoever_waits_for_the_next_one() {
    let fixture = Fixture::start().await;
    fixture.get("/metrics").await;
    let next = fixture.admin.scraped();
    fixture.get("/livez").await;
    assert_eq!(fixture.admin.scrapes(), 1);
    let mut next = std::pin::pin!(next);
    let woken = tokio::select! {
        biased;
        () = &mut next => true,
        () = std::future::ready(()) => false,
    };
    assert!(!woken, "the scrape before the call and the health check do not count");
    fixture.get("/metrics").await;
    timeout(PATIENCE, next).await.expect("the scrape after the call counts");
    assert_eq!(fixture.admin.scrapes(), 2);
}

#[tokio::test]
async fn readiness_and_configuration_are_what_their_writers_said_last() {
    let fixture = Fixture::start().await;
    let answer = fixture.get("/readyz").await;
    assert_eq!((answer.status, answer.text()), (503, "starting\nbackend: not probed yet\n"));
    fixture.readiness.started();
    fixture.readiness.backend(Backend::Down("connect to 127.0.0.1:8080 refused".to_owned()));
    fixture.readiness.draining();
    let answer = fixture.get("/readyz").await;
    assert_eq!((answer.status, answer.text()), (503, "draining\nbackend: connect to 127.0.0.1:8080 refused\n"));
    assert!(fixture.get("/").await.text().contains("<li>draining</li>"));
    assert_eq!(fixture.get("/livez").await.status, 200);

    fixture.config_json.send(Bytes::from_static(b"{\"upstream\":\"new\"}")).unwrap();
    assert_eq!(fixture.get("/api/v1/config").await.text(), "{\"upstream\":\"new\"}");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_a_freed_place_is_used() {
    let fixture = Fixture::with_limits(Limits { connections: 2, ..Limits::default() }).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(fixture.address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: admin\r\n\r\n").await.unwrap();
        let mut byte = [0];
        timeout(PATIENCE, stream.read_exact(&mut byte)).await.unwrap().unwrap();
        kept.push(stream);
    }
    let answer = fixture.get("/metrics").await;
    assert_eq!((answer.status, answer.field("connection")), (503, Some("close")));
    assert_eq!(answer.field("content-length"), Some(answer.body.len().to_string().as_str()));

    kept.pop();
    until_served(&fixture).await;
}

#[tokio::test]
async fn probes_are_answered_though_all_connections_are_held() {
    let fixture = Fixture::with_limits(Limits { connections: 2, ..Limits::default() }).await;
    fixture.readiness.started();
    // Two that are served, and more than may wait to be refused.
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(TcpStream::connect(fixture.address).await.unwrap());
    }
    let begun = Instant::now();
    for _ in 0..5 {
        let live = fixture.get("/livez").await;
        assert_eq!((live.status, live.text()), (200, "ok\n"));
        let ready = fixture.get("/readyz?verbose").await;
        assert_eq!((ready.status, ready.text()), (503, "backend: not probed yet\n"));
    }
    assert!(begun.elapsed() < PATIENCE);
    fixture.readiness.backend(Backend::Up);
    let head = fixture.ask("HEAD", "/readyz", "").await;
    assert_eq!((head.status, head.text(), head.field("content-length")), (200, "", Some("6")));
    for (method, path) in [("POST", "/livez"), ("GET", "/livez/"), ("GET", "/metrics"), ("GET", "/")] {
        let answer = fixture.ask(method, path, "").await;
        assert_eq!((answer.status, answer.text()), (503, "too many admin connections\n"), "{method} {path}");
    }
    // Who needs several packets is waited for.
    let mut slow = TcpStream::connect(fixture.address).await.unwrap();
    slow.write_all(b"GET /li").await.unwrap();
    let live = fixture.get("/livez").await;
    assert_eq!(live.status, 200);
    slow.write_all(b"vez HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(Answer::read(&mut slow).await.status, 200);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut() {
    let head = Duration::from_millis(150);
    let fixture = Fixture::with_limits(Limits { head, ..Limits::default() }).await;
    let begun = Instant::now();
    let mut silent = TcpStream::connect(fixture.address).await.unwrap();
    let mut slow = TcpStream::connect(fixture.address).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: ").await.unwrap();
    // The second request of a kept connection has the time of a head, too, not that of idleness.
    let mut kept = TcpStream::connect(fixture.address).await.unwrap();
    kept.write_all(b"GET /livez HTTP/1.1\r\nHost: admin\r\n\r\n").await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"ok\n") {
        assert_ne!(timeout(PATIENCE, kept.read_buf(&mut text)).await.unwrap().unwrap(), 0);
    }
    kept.write_all(b"GET /li").await.unwrap();
    for stream in [&mut silent, &mut slow, &mut kept] {
        bytes_until_cut(stream).await;
    }
    assert!(begun.elapsed() >= head, "cut before its time: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_kept_connection_serves_again_and_is_closed_when_idle_for_too_long() {
    let idle = Duration::from_millis(150);
    let fixture = Fixture::with_limits(Limits { idle, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: admin\r\n\r\n").await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\nok\n") {
            assert_ne!(timeout(PATIENCE, stream.read_buf(&mut text)).await.unwrap().unwrap(), 0);
        }
    }
    let begun = Instant::now();
    assert_eq!(bytes_until_cut(&mut stream).await, 0);
    assert!(begun.elapsed() >= idle / 2, "closed at once: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_scraper_that_does_not_read_is_cut_and_gives_its_place_back() {
    let limits = Limits { connections: 1, write: Duration::from_millis(200), ..Limits::default() };
    let fixture = Fixture::with_limits(limits).await;
    // More than the socket buffers of both sides can hold between them: 32 MiB.
    let filler = GaugeVec::new(Opts::new("filler", "Large."), &["text"]).unwrap();
    for letter in 'a'..='p' {
        filler.with_label_values(&[&letter.to_string().repeat(2 << 20)]).set(1.0);
    }
    fixture.registry.register(Box::new(filler)).unwrap();
    let mut slow = TcpStream::connect(fixture.address).await.unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: admin\r\n\r\n").await.unwrap();
    let mut first = [0; 4096];
    timeout(PATIENCE, slow.read_exact(&mut first)).await.unwrap().unwrap();
    until_served(&fixture).await;
    let got = first.len() + bytes_until_cut(&mut slow).await;
    assert!(got < 32 << 20, "the whole page of {got} bytes was delivered, so nothing was cut");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let fixture = Fixture::start().await;
    let answer = fixture.ask("GET", "/livez", &format!("X: {}\r\n", "x".repeat(20_000))).await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_the_server() {
    let fixture = Fixture::start().await;
    let mut idle = TcpStream::connect(fixture.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: admin\r\n\r\n").await.unwrap();
    let mut byte = [0];
    timeout(PATIENCE, idle.read_exact(&mut byte)).await.unwrap().unwrap();
    fixture.shutdown.send(true).unwrap();
    timeout(PATIENCE, fixture.server).await.expect("the server ends").unwrap();
    bytes_until_cut(&mut idle).await;
    assert!(TcpStream::connect(fixture.address).await.is_err());
}

#[tokio::test]
async fn readiness_follows_a_backend_that_goes_and_comes_back() {
    let registry = Registry::new();
    let gauges = Gauges::new(&registry).unwrap();
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = backend.local_addr().unwrap();
    let readiness = Readiness::new();
    readiness.started();
    let mut reader = readiness.reader();
    let probing = probe(address, None, gauges.clone(), &readiness);

    assert!(timeout(PATIENCE, reader.ready()).await.expect("ready while the backend listens"));
    assert_eq!(gauges.up.get(), 1.0);
    drop(backend);
    assert!(timeout(PATIENCE, reader.not_ready()).await.expect("not ready once it is gone"));
    assert_eq!(reader.reasons(), [format!("backend: connect to {address} refused")]);
    assert_eq!(gauges.up.get(), 0.0);
    assert!(gauges.duration_seconds.get() > 0.0);
    let _backend = TcpListener::bind(address).await.unwrap();
    assert!(timeout(PATIENCE, reader.ready()).await.expect("ready once it is back"));
    probing.abort();
}

#[tokio::test]
async fn readiness_flips_within_two_seconds_at_the_default_interval() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = backend.local_addr().unwrap();
    let readiness = Readiness::new();
    readiness.started();
    let mut reader = readiness.reader();
    let report = readiness.clone();
    let upstream = Upstream::http("localhost".to_owned(), address.port());
    let addresses = watch::Sender::new(transport::resolve(&upstream).unwrap());
    let probe = Probe::new(
        &upstream,
        &ReadinessConfig { path: None, grpc: None, interval: Duration::from_secs(1) },
        addresses.subscribe(),
        Gauges::new(&Registry::new()).unwrap(),
        |_| None,
    );
    let probing = tokio::spawn(probe.run(move |outcome| {
        report.backend(outcome.map_or_else(|down| Backend::Down(down.to_string()), |()| Backend::Up));
    }));
    assert!(timeout(PATIENCE, reader.ready()).await.unwrap());
    drop(backend);
    assert!(timeout(Duration::from_secs(2), reader.not_ready()).await.expect("within 2 s"));
    probing.abort();
}

#[tokio::test]
async fn with_a_path_the_status_decides() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = backend.local_addr().unwrap();
    let (status, mut current) = watch::channel("204 No Content");
    let (asked, mut requests) = watch::channel(String::new());
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = backend.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
            let status = *current.borrow_and_update();
            asked.send_replace(String::from_utf8(head).unwrap());
            if status == "silence" {
                // Held until the test says otherwise; the probe gives up long before.
                current.changed().await.unwrap();
                continue;
            }
            // A redirect has to be taken as an answer, not followed to a place that does not exist.
            let answer = format!("HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let readiness = Readiness::new();
    readiness.started();
    let mut reader = readiness.reader();
    let probing = probe(address, Some("/healthz?deep=1"), Gauges::new(&Registry::new()).unwrap(), &readiness);

    assert!(timeout(PATIENCE, reader.ready()).await.unwrap());
    assert!(requests.borrow_and_update().starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"));
    status.send("500 Internal Server Error").unwrap();
    assert!(timeout(PATIENCE, reader.not_ready()).await.unwrap());
    assert_eq!(reader.reasons(), ["backend: GET /healthz?deep=1 answered 500"]);
    status.send("302 Found").unwrap();
    assert!(timeout(PATIENCE, reader.ready()).await.unwrap());
    status.send("silence").unwrap();
    assert!(timeout(PATIENCE, reader.not_ready()).await.unwrap());
    assert!(reader.reasons()[0].starts_with("backend: GET /healthz?deep=1 timed out after "), "{:?}", reader.reasons());
    status.send("200 OK").unwrap();
    assert!(timeout(PATIENCE, reader.ready()).await.unwrap());
    serving.abort();
    let _ = serving.await;
    assert!(timeout(PATIENCE, reader.not_ready()).await.unwrap());
    probing.abort();
}

/// A probe every 100 ms that reports to this readiness.
fn probe(address: SocketAddr, path: Option<&str>, gauges: Gauges, readiness: &Readiness) -> JoinHandle<()> {
    let upstream = Upstream::http(address.ip().to_string(), address.port());
    let config = ReadinessConfig { path: path.map(str::to_owned), grpc: None, interval: Duration::from_millis(100) };
    let readiness = readiness.clone();
    // As for a backend on another machine: the kernel here knows nothing of it.
    let addresses = watch::Sender::new(transport::resolve(&upstream).unwrap());
    let probe = Probe::new(&upstream, &config, addresses.subscribe(), gauges, |_| None);
    tokio::spawn(probe.run(move |outcome| {
        readiness.backend(outcome.map_or_else(|down| Backend::Down(down.to_string()), |()| Backend::Up));
    }))
}

/// Asks until a place is free.
async fn until_served(fixture: &Fixture) {
    let served = async {
        while fixture.get("/metrics").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, served).await.expect("a place becomes free");
}

/// Reads until the server ends the connection, in whatever way, and counts.
async fn bytes_until_cut(stream: &mut TcpStream) -> usize {
    let mut count = 0;
    let mut buffer = vec![0; 64 << 10];
    let reading = async {
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            count += length;
        }
    };
    timeout(PATIENCE, reading).await.expect("the server ends the connection");
    count
}
