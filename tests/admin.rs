//! The admin port through real sockets: every endpoint, what it refuses, its bounds, and readiness.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use golden_sidecar::admin::{About, Admin, Backend, Credentials, Guard, Limits, Protection, Readiness, serve_with};
use golden_sidecar::config::{AdminHost, Purpose, Readiness as ReadinessConfig, Secret, Upstream};
use golden_sidecar::exposition::Exporter;
use golden_sidecar::labels::{Refusal, RouteId, RouteKind};
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

/// A running admin port, and the other ends of what it reads.
struct Fixture {
    address: SocketAddr,
    admin: Arc<Admin>,
    registry: Registry,
    readiness: Readiness,
    config_json: watch::Sender<Bytes>,
    protection: watch::Sender<Protection>,
    refused: Arc<Mutex<Vec<Refusal>>>,
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

    /// Behind this door.
    async fn protected(protection: Protection) -> Fixture {
        let fixture = Fixture::start().await;
        fixture.protection.send_replace(protection);
        fixture
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
        let (protection, protection_receiver) = watch::channel(Protection::default());
        let refused = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&refused);
        let admin = Arc::new(Admin::new(
            Exporter::new(&registry, Box::new(Vec::new)).unwrap(),
            readiness.reader(),
            config,
            about,
            watch::channel(Arc::new(RouteTable::new(&[], &[], None, Arc::new(NoIds)).unwrap())).1,
            Signals::new(1, &[1.0], 10),
            Guard::new(protection_receiver, move |reason| told.lock().unwrap().push(reason)),
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, stop) = watch::channel(false);
        let server = tokio::spawn(serve_with(listener, admin.clone(), stop, limits));
        Fixture { address, admin, registry, readiness, config_json, protection, refused, shutdown, server }
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

    /// Sends these bytes and reads what comes back.
    async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(&mut stream).await
    }

    /// Why requests were refused since the last call.
    fn refusals(&self) -> Vec<Refusal> {
        std::mem::take(&mut self.refused.lock().unwrap())
    }
}

// === impl Answer ===

impl Answer {
    /// Reads to the end of the connection. The end may be a reset, if the server left something unread.
    async fn read(stream: &mut TcpStream) -> Answer {
        let mut bytes = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection ends");
        Answer::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Answer {
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

    /// Every value of a field that may be there several times.
    fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// What every answer carries, each once, and what none may.
    #[track_caller]
    fn assert_is_guarded(&self, what: &str) {
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(self.all(name), [value], "{what}: {name}");
        }
        let policies = self.all("content-security-policy");
        let [policy] = policies[..] else { panic!("{what}: {policies:?}") };
        assert!(
            policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"),
            "{what}: {policy}"
        );
        assert!(!self.fields.iter().any(|(name, _)| name.starts_with("access-control-")), "{what}: {:?}", self.fields);
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
        answer.assert_is_guarded(path);
        let policy = answer.field("content-security-policy").unwrap();
        assert_eq!(policy.contains("style-src"), path == "/", "{path}: {policy}");
    }
}

#[tokio::test]
async fn answers_to_what_is_refused_carry_the_safety_fields_too() {
    let fixture = Fixture::with_limits(Limits { connections: 1, ..Limits::default() }).await;
    for (what, request, status) in [
        ("no such path", "GET /nope HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(), 404),
        ("method", "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(), 405),
        ("question", "GET /api/v1/routes?a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(), 400),
        ("no HTTP", "\u{16}\u{3}\u{1}hello\r\n\r\n".to_owned(), 400),
        ("field name", "GET / HTTP/1.1\r\nA B: c\r\n\r\n".to_owned(), 400),
        ("large head", format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(20_000)), 431),
    ] {
        until_served(&fixture).await;
        let answer = fixture.raw(&request).await;
        assert_eq!(answer.status, status, "{what}");
        answer.assert_is_guarded(what);
        assert_eq!(answer.field("content-length"), Some(answer.body.len().to_string().as_str()), "{what}");
    }
    // Behind a good answer on the same connection as well, and each field once.
    until_served(&fixture).await;
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    for (request, status) in [("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", 200), ("nonsense\r\n\r\n", 400)] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
            assert_ne!(timeout(PATIENCE, stream.read_buf(&mut bytes)).await.unwrap().unwrap(), 0);
        }
        let answer = Answer::parse(&bytes);
        assert_eq!(answer.status, status);
        answer.assert_is_guarded(request);
    }
    // One connection too many.
    let _held = until_held(&fixture).await;
    for path in ["/livez", "/readyz", "/metrics"] {
        fixture.get(path).await.assert_is_guarded(path);
    }
}

fn secret(text: &str, purpose: Purpose) -> Secret {
    Secret::new(text, purpose).unwrap()
}

const TOKEN: &str = "0123456789abcdef-token";

fn with_both() -> Protection {
    let password = secret("hunter2", Purpose::Password);
    let credentials = Credentials::new(Some(&secret(TOKEN, Purpose::Token)), Some(("prometheus", &password)));
    Protection { credentials, hosts: Vec::new() }
}

#[tokio::test]
async fn without_the_credentials_nothing_is_told_but_that_they_are_needed() {
    let fixture = Fixture::protected(with_both()).await;
    let wrong = [
        "",
        "Authorization: Bearer wrong-0123456789\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: 0123456789abcdef-token\r\n",
        "Authorization: Basic 0123456789abcdef-token\r\n",
        "Authorization: Basic cHJvbWV0aGV1czpodW50ZXIz\r\n",
        "Authorization: Basic !!!\r\n",
        "Authorization: Digest username=\"prometheus\"\r\n",
        "Authorization: Bearer 0123456789abcdef-token\r\nAuthorization: Bearer 0123456789abcdef-token\r\n",
        "Authorization: Bearer 0123456789abcdef-token, Basic x\r\n",
        "Proxy-Authorization: Bearer 0123456789abcdef-token\r\n",
        "Cookie: Authorization=Bearer 0123456789abcdef-token\r\n",
    ];
    let mut asked = 0;
    for path in
        ["/", "/metrics", "/api/v1/config", "/api/v1/routes", "/nope", "/api/v1/config?token=0123456789abcdef-token"]
    {
        for fields in wrong {
            let answer = fixture.ask("GET", path, fields).await;
            asked += 1;
            assert_eq!((answer.status, answer.text()), (401, "credentials are needed; admin_auth says which\n"));
            let challenges: Vec<&str> = answer.all("www-authenticate");
            let expected = ["Bearer realm=\"golden-sidecar\"", "Basic realm=\"golden-sidecar\", charset=\"UTF-8\""];
            assert_eq!(challenges, expected, "{path} {fields}");
            answer.assert_is_guarded(path);
        }
    }
    assert_eq!(fixture.refusals(), vec![Refusal::Credentials; asked]);
    assert_eq!(fixture.admin.scrapes(), 0);
    for fields in [
        format!("Authorization: Bearer {TOKEN}\r\n"),
        format!("authorization: bEARER  {TOKEN}\r\n"),
        "Authorization: Basic cHJvbWV0aGV1czpodW50ZXIy\r\n".to_owned(),
    ] {
        for (path, status) in [("/", 200), ("/metrics", 200), ("/api/v1/config", 200), ("/nope", 404)] {
            assert_eq!(fixture.ask("GET", path, &fields).await.status, status, "{path} {fields}");
        }
    }
    assert!(fixture.refusals().is_empty());
    // Each request of a connection is asked anew, and only what can open is offered.
    let token_only = Credentials::new(Some(&secret(TOKEN, Purpose::Token)), None);
    fixture.protection.send_replace(Protection { credentials: token_only, hosts: Vec::new() });
    let answer = fixture.ask("GET", "/metrics", "Authorization: Basic cHJvbWV0aGV1czpodW50ZXIy\r\n").await;
    assert_eq!((answer.status, answer.all("www-authenticate").len()), (401, 1));
}

#[tokio::test]
async fn probes_need_no_credentials_and_tell_strangers_the_verdict_only() {
    let protection = Protection { hosts: vec![AdminHost::parse("metrics.internal").unwrap()], ..with_both() };
    let fixture = Fixture::protected(protection).await;
    fixture.readiness.started();
    fixture.readiness.backend(Backend::Down("connect to 10.1.2.3:8080 refused".to_owned()));
    let authorization = format!("Authorization: Bearer {TOKEN}\r\n");
    let admitted =
        format!("GET /readyz HTTP/1.1\r\nHost: metrics.internal\r\nConnection: close\r\n{authorization}\r\n");
    assert_eq!(fixture.raw(&admitted).await.text(), "backend: connect to 10.1.2.3:8080 refused\n");
    // Neither the wrong host nor missing credentials are let in, nor a connection too many.
    for fields in ["", &authorization] {
        let ready = fixture.ask("GET", "/readyz", fields).await;
        assert_eq!((ready.status, ready.text()), (503, "not ready\n"));
        assert_eq!(fixture.ask("GET", "/livez", fields).await.status, 200);
    }
    fixture.readiness.backend(Backend::Up);
    let ready = fixture.get("/readyz").await;
    assert_eq!((ready.status, ready.text()), (200, "ready\n"));
    assert_eq!(fixture.ask("POST", "/readyz", "").await.status, 405);
    assert!(fixture.refusals().is_empty());

    let crowded = Fixture::with_limits(Limits { connections: 1, ..Limits::default() }).await;
    let _held = until_held(&crowded).await;
    crowded.protection.send_replace(with_both());
    let ready = crowded.ask("GET", "/readyz", &authorization).await;
    assert_eq!((ready.status, ready.text()), (503, "not ready\n"));
}

#[tokio::test]
async fn only_the_hosts_of_the_list_are_answered() {
    let host = |text: &str| AdminHost::parse(text).unwrap();
    let hosts = vec![host("Metrics.Internal"), host("10.0.0.5"), host("[fd00::5]")];
    let fixture = Fixture::protected(Protection { hosts: hosts.clone(), ..Protection::default() }).await;
    let port = fixture.address.port();
    let ask =
        async |host: &str| fixture.raw(&format!("GET /metrics HTTP/1.1\r\n{host}Connection: close\r\n\r\n")).await;
    for right in [
        "Host: metrics.internal\r\n",
        "Host: METRICS.internal:9900\r\n",
        "Host: metrics.internal.:1\r\n",
        "Host: 10.0.0.5\r\n",
        "Host: 10.0.0.5:80\r\n",
        "Host: [FD00:0:0::5]:9900\r\n",
        "Host: [::ffff:10.0.0.5]\r\n",
    ] {
        assert_eq!(ask(right).await.status, 200, "{right}");
    }
    assert!(fixture.refusals().is_empty());
    let loopback = format!("Host: 127.0.0.1:{port}\r\n");
    for wrong in [
        "Host: evil.example\r\n",
        "Host: metrics.internal.evil.example\r\n",
        "Host: xmetrics.internal\r\n",
        "Host: localhost\r\n",
        "Host: 10.0.0.50\r\n",
        "Host: [fd00::6]\r\n",
        &loopback,
    ] {
        let answer = ask(wrong).await;
        assert_eq!(answer.status, 421, "{wrong}");
        answer.assert_is_guarded(wrong);
        assert!(!answer.text().contains("internal"), "{}", answer.text());
    }
    for none in [
        "",
        "Host:\r\n",
        "Host: metrics.internal\r\nHost: metrics.internal\r\n",
        "Host: metrics.internal, evil\r\n",
        "Host: me@metrics.internal\r\n",
        "Host: metrics.internal/\r\n",
        "X-Forwarded-Host: metrics.internal\r\n",
    ] {
        assert_eq!(ask(none).await.status, 400, "{none:?}");
    }
    // An absolute target names a host, too, and HTTP/1.0 needs the field as well.
    let absolute = "GET http://evil.example/metrics HTTP/1.1\r\nHost: metrics.internal\r\nConnection: close\r\n\r\n";
    assert_eq!(fixture.raw(absolute).await.status, 421);
    assert_eq!(fixture.raw("GET /metrics HTTP/1.0\r\n\r\n").await.status, 400);
    assert_eq!(fixture.refusals(), [Refusal::Host; 16]);

    // The address that the connection came to, when the list says so.
    fixture.protection.send_modify(|protection| protection.hosts.push(AdminHost::OwnAddress));
    assert_eq!(ask(&loopback).await.status, 200);
    assert_eq!(ask("Host: 127.0.0.2\r\n").await.status, 421);
    assert_eq!(ask("Host: localhost\r\n").await.status, 421);
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
        None,
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
    let probe = Probe::new(&upstream, &config, addresses.subscribe(), None, gauges, |_| None);
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

/// A connection that has the only place.
async fn until_held(fixture: &Fixture) -> TcpStream {
    let held = async {
        loop {
            let mut stream = TcpStream::connect(fixture.address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: admin\r\n\r\n").await.unwrap();
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n\r\nok\n") {
                assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
            }
            // Who is one too many is told that the connection ends.
            if Answer::parse(&bytes).field("connection").is_none() {
                return stream;
            }
        }
    };
    timeout(PATIENCE, held).await.expect("a place becomes free")
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
