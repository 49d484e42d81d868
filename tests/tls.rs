//! TLS on all sides, sockets of the file system to listen at, and the PROXY protocol, through the front door: curl, and
//! rustls where curl has no switch for it.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use common::certificates::{Authority, Issued, server_config};
use common::sidecar::program;
use common::{Backend, Client, Outcome, PATIENCE, Page, Sidecar, StopOnDrop, ok, wait_until};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection, StreamOwned};

const FAILURES: &str = "golden_tls_handshake_failures_total";
const EXPIRY: &str = "golden_tls_certificate_expiry_timestamp_seconds";
/// 2100-01-01, when what tests issue ends.
const YEAR_2100: f64 = 4_102_444_800.0;

// === Peers ===

/// What a TLS client of the proxy is.
#[derive(Clone, Default)]
struct Wish<'a> {
    protocols: &'a [&'a str],
    shows: Option<&'a Issued>,
    before: &'a [u8],
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A handshake with the proxy, which may fail later than here: TLS 1.3 lets the client go first.
fn handshake(authority: &Authority, address: SocketAddr, wish: &Wish<'_>) -> std::io::Result<Tls> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der()).expect("a root");
    let builder = ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = match wish.shows {
        Some(Issued { certificate, key }) => {
            builder.with_client_auth_cert(vec![certificate.der().clone()], private(key)).expect("a pair")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = wish.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let session = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(wish.before)?;
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn private(key: &rcgen::KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// Sends a request and reads to the end of the connection, or as far as it goes.
fn exchange(stream: &mut Tls, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        read?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

/// What a TLS backend saw of a connection.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    name: Option<String>,
    resumed: bool,
    certificates: usize,
    offered: Option<String>,
    request: String,
}

/// How a TLS backend ends its connections after an answer without a length.
#[derive(Clone, Copy, PartialEq)]
enum Goodbye {
    Said,
    Unsaid,
}

/// A backend that speaks TLS.
struct TlsBackend {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl TlsBackend {
    /// Answers each request by its path: `/open` without a length, then ends the connection; `/chat` with a tunnel that
    /// echoes; `/bye` and then ends it; anything else keeps it.
    fn start(issued: &Issued, clients: Option<&Authority>, goodbye: Goodbye) -> TlsBackend {
        let config = server_config(issued, clients, &["http/1.1"]);
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (config, record) = (Arc::clone(&config), Arc::clone(&record));
                std::thread::spawn(move || {
                    serve(StreamOwned::new(ServerConnection::new(config).unwrap(), socket), goodbye, &record)
                });
            }
        });
        TlsBackend { address, seen }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: StreamOwned<ServerConnection, TcpStream>, goodbye: Goodbye, record: &Mutex<Vec<Seen>>) {
    while let Some(request) = read_request(&mut stream) {
        let session = &stream.conn;
        record.lock().unwrap().push(Seen {
            name: session.server_name().map(str::to_owned),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            certificates: session.peer_certificates().map_or(0, <[_]>::len),
            offered: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            request: request.clone(),
        });
        let path = request.split(' ').nth(1).unwrap_or_default();
        let answer = match path {
            "/open" => "HTTP/1.1 200 OK\r\n\r\nhello".to_owned(),
            "/chat" => {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned()
            }
            "/metrics" => "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\napp_jobs_total 3\n".to_owned(),
            "/down" => "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
        match path {
            "/open" | "/bye" => {
                if goodbye == Goodbye::Said {
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
                return;
            }
            "/chat" => {
                let mut piece = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut piece) {
                    if stream.write_all(&piece[..n]).is_err() {
                        return;
                    }
                }
                return;
            }
            _ => {}
        }
    }
}

fn read_request(stream: &mut impl std::io::Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// A sidecar that speaks TLS with its clients, its authority, and the section of its configuration.
fn with_tls(backend: &Backend, more: &str) -> (Sidecar, Authority) {
    let authority = Authority::new("clients trust this");
    let (certificate, key) = authority.keep("server", &authority.issue(&["localhost"], 1));
    let yaml = format!("tls: {{certificate: {certificate}, key: {key}}}\n{more}");
    (Sidecar::before(backend).yaml(yaml).start(), authority)
}

/// curl, with what it writes: the body, and after it what `-w` asks for.
fn curl(arguments: &[&str]) -> Output {
    let output = Command::new("curl").args(["--silent", "--show-error", "--max-time", "10"]).args(arguments).output();
    output.expect("curl runs; `make setup` installs it")
}

#[track_caller]
fn curls(arguments: &[&str]) -> String {
    let output = curl(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn at(sidecar: &Sidecar, path: &str) -> String {
    format!("https://localhost:{}{path}", sidecar.proxy.port())
}

/// The failed handshakes on the page, without those that never happened.
fn failures(page: &Page) -> Vec<(String, String, f64)> {
    let of = |sample: &common::page::Sample, label: &str| sample.labels[label].clone();
    page.nonzero(FAILURES).iter().map(|s| (of(s, "side"), of(s, "reason"), s.value)).collect()
}

#[track_caller]
fn fails_as(sidecar: &Sidecar, side: &str, reason: &str, times: f64) -> Page {
    let wanted = vec![(side.to_owned(), reason.to_owned(), times)];
    sidecar.page_when(&format!("{times} handshakes with the {side} that failed: {reason}"), |page| {
        failures(page) == wanted
    })
}

// === Clients ===

#[test]
fn curl_speaks_both_versions_of_http_under_both_versions_of_tls() {
    let backend = Backend::always("hello");
    let (sidecar, authority) = with_tls(&backend, "");
    let url = at(&sidecar, "/");
    for (version, expected) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for tls in ["1.2", "1.3"] {
            let said = curls(&["--cacert", &authority.ca(), version, "--tls-max", tls, "-w", " %{http_version}", &url]);
            assert_eq!(said, format!("hello {expected}"), "TLS {tls}");
        }
    }
    for request in backend.requests() {
        assert_eq!(request.head.one("x-forwarded-proto").as_deref(), Some("https"));
        assert_eq!(request.head.one("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    }
    let page = sidecar.settled(4);
    assert_eq!(failures(&page), []);
    assert_eq!(page.value(EXPIRY, &[("use", "listener")]), YEAR_2100);
    assert_eq!(page.lines_of(EXPIRY).lines().filter(|line| !line.starts_with('#')).count(), 1);
}

#[test]
fn older_versions_and_unknown_protocols_fail_the_handshake() {
    let backend = Backend::always("hello");
    let (sidecar, authority) = with_tls(&backend, "");
    let old = ["--cacert", &authority.ca(), "--ciphers", "DEFAULT@SECLEVEL=0", "--tls-max", "1.1", "--tlsv1.0"];
    assert!(!curl(&[&old[..], &[&at(&sidecar, "/")]].concat()).status.success());
    fails_as(&sidecar, "client", "protocol", 1.0);
    let wish = Wish { protocols: &["imap"], ..Wish::default() };
    assert!(handshake(&authority, sidecar.proxy, &wish).is_err());
    let page = fails_as(&sidecar, "client", "protocol", 2.0);
    assert_eq!(page.sum("golden_requests_total", &[]), 0.0, "a handshake is no request");
    assert_eq!(page.sum("golden_server_connections", &[]), 0.0);
}

#[test]
fn the_protocol_is_what_both_sides_agree_on_and_else_what_the_client_begins_with() {
    let backend = Backend::always("hello");
    let (sidecar, authority) = with_tls(&backend, "");
    let agreed = |protocols: &[&str]| {
        let stream = handshake(&authority, sidecar.proxy, &Wish { protocols, ..Wish::default() }).unwrap();
        let name = stream.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        (stream, name)
    };
    for (offered, expected) in [
        (&["http/1.1"][..], Some("http/1.1")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["imap", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let (mut stream, name) = agreed(offered);
        assert_eq!(name.as_deref(), expected, "{offered:?}");
        if expected != Some("h2") {
            let answer = exchange(&mut stream, GET).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{answer}");
        }
    }
    // With prior knowledge inside of TLS, where nothing was agreed on.
    let (mut stream, _) = agreed(&[]);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "SETTINGS: {frame:?}");
    // Where HTTP/1.1 was agreed on, that is no request.
    let (mut stream, _) = agreed(&["http/1.1"]);
    let answer = exchange(&mut stream, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn clients_must_show_a_certificate_where_it_is_required() {
    let backend = Backend::always("hello");
    let trusted = Authority::new("issues clients");
    let (sidecar, authority) = with_tls(&backend, "");
    drop(sidecar);
    let tls = |more: &str| {
        let (certificate, key) = (authority.path("server.pem"), authority.path("server.key"));
        let ca = trusted.ca();
        let yaml = format!("tls: {{certificate: {certificate}, key: {key}, client_ca: {ca}{more}}}\n");
        Sidecar::before(&backend).yaml(yaml).start()
    };
    let ask = |sidecar: &Sidecar, shows: Option<&Issued>| {
        let wish = Wish { shows, ..Wish::default() };
        handshake(&authority, sidecar.proxy, &wish).and_then(|mut stream| exchange(&mut stream, GET))
    };
    let good = trusted.issue(&["client"], 9);
    let required = tls("");
    assert!(ask(&required, Some(&good)).unwrap().ends_with("hello"));
    // The client is told why: a reset would not say.
    let refused = ask(&required, None).unwrap_err().to_string();
    assert!(refused.contains("CertificateRequired"), "{refused}");
    fails_as(&required, "client", "no_certificate", 1.0);
    for (shown, why) in [
        (authority.issue(&["client"], 9), "UnknownCA"),
        (trusted.issue_until(&["client"], 9, 2021), "CertificateExpired"),
    ] {
        let refused = ask(&required, Some(&shown)).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    let page = required.page_when("all failures", |page| failures(page).iter().map(|f| f.2).sum::<f64>() == 3.0);
    assert_eq!(page.value(FAILURES, &[("side", "client"), ("reason", "bad_certificate")]), 2.0);

    let optional = tls(", client_auth: optional");
    assert!(ask(&optional, Some(&good)).unwrap().ends_with("hello"));
    assert!(ask(&optional, None).unwrap().ends_with("hello"));
    assert!(ask(&optional, Some(&authority.issue(&["client"], 9))).is_err());
    fails_as(&optional, "client", "bad_certificate", 1.0);
    let none = tls(", client_auth: none");
    assert!(ask(&none, None).unwrap().ends_with("hello"));
}

#[test]
fn a_client_that_does_not_trust_us_says_so_and_is_counted() {
    let backend = Backend::always("hello");
    let (sidecar, _authority) = with_tls(&backend, "");
    let stranger = Authority::new("issued nothing here");
    assert!(!curl(&["--cacert", &stranger.ca(), &at(&sidecar, "/")]).status.success());
    fails_as(&sidecar, "client", "alert", 1.0);
}

#[test]
fn a_handshake_that_stalls_is_cut_and_one_that_never_begins_is_no_failure() {
    let backend = Backend::always("hello");
    let (sidecar, _authority) = with_tls(&backend, "timeouts: {client_head: 300ms}");
    let mut slow = Client::to(sidecar.proxy);
    slow.send([0x16, 3, 1, 1, 0]);
    let mut silent = Client::to(sidecar.proxy);
    slow.expect_end();
    silent.expect_end();
    fails_as(&sidecar, "client", "timeout", 1.0);
    // Its end may have been seen before it was counted.
    sidecar.page_when("the silent one was idle", |page| {
        page.value("golden_server_connections_closed_total", &[("reason", "idle")]) == 1.0
    });
    // Probes of a load balancer connect and go.
    drop(Client::to(sidecar.proxy));
    let gone = |page: &Page| page.value("golden_server_connections_closed_total", &[("reason", "client")]) == 1.0;
    let page = sidecar.page_when("the probe is gone", gone);
    assert_eq!(failures(&page).len(), 1);
    let mut leaver = Client::to(sidecar.proxy);
    leaver.send([0x16, 3, 1]);
    drop(leaver);
    sidecar.page_when("who leaves in the middle is a failure", |page| {
        page.value(FAILURES, &[("side", "client"), ("reason", "closed")]) == 1.0
    });
    assert_eq!(sidecar.scrape().sum("golden_requests_total", &[]), 0.0);
}

#[test]
fn plain_http_on_the_port_of_tls_is_answered_in_plain_text() {
    let backend = Backend::always("hello");
    let (sidecar, _authority) = with_tls(&backend, "");
    let response = sidecar.get("/");
    assert_eq!(response.status(), 400);
    response.proxy_made("bad_request").unwrap();
    assert!(response.text().contains("plain HTTP was sent to a port that speaks TLS"), "{}", response.text());
    sidecar.expect(&[Outcome::proxy("_OTHER", "400", ("bad_request", "client", "head"))]);
    assert_eq!(failures(&sidecar.scrape()), []);
    // The other way round, for comparison: a handshake on a plain port.
    let plain = Sidecar::start(&backend);
    let mut client = plain.client();
    client.send([0x16, 3, 1, 0, 1, 0]);
    assert_eq!(client.read_response("GET").status(), 400);
}

#[test]
fn large_bodies_and_tunnels_pass_under_tls_on_both_sides() {
    let authority = Authority::new("trusted by all");
    let server = authority.issue(&["localhost"], 1);
    let (certificate, key) = authority.keep("server", &server);
    let secure = TlsBackend::start(&server, None, Goodbye::Said);
    let ca = authority.ca();
    let yaml = format!("tls: {{certificate: {certificate}, key: {key}}}\nupstream_tls: {{ca: {ca}}}\n");
    let sidecar = Sidecar::upstream(secure.url()).yaml(&yaml).start();
    let mut stream = handshake(&authority, sidecar.proxy, &Wish::default()).unwrap();
    stream.write_all(b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    let head = read_request(&mut stream).expect("a head");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // Each piece must come back before the next one goes: nothing may wait inside.
    for size in [1, 10, 16_384, 100_000] {
        let piece = vec![b'x'; size];
        stream.write_all(&piece).unwrap();
        let mut back = vec![0; size];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, piece);
    }
    drop(stream);

    let backend = Backend::answering(|request| ok(&request.body.content));
    let sidecar = Sidecar::before(&backend).yaml(format!("tls: {{certificate: {certificate}, key: {key}}}")).start();
    let body: Vec<u8> = (0..4_000_000u32).map(|n| (n * 31 % 251) as u8).collect();
    std::fs::write(authority.path("body"), &body).unwrap();
    let data = format!("@{}", authority.path("body"));
    for version in ["--http1.1", "--http2"] {
        let echoed = curl(&["--cacert", &ca, version, "--data-binary", &data, &at(&sidecar, "/")]);
        assert_eq!(echoed.stdout.len(), body.len(), "{}", String::from_utf8_lossy(&echoed.stderr));
        assert!(echoed.stdout == body);
    }
}

#[test]
fn idle_connections_under_tls_cost_little_memory() {
    const CONNECTIONS: usize = 200;
    let backend = Backend::always("hello");
    let (sidecar, authority) = with_tls(&backend, "");
    let open = || {
        let mut stream = handshake(&authority, sidecar.proxy, &Wish::default()).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_request(&mut stream).expect("a head");
        let mut body = [0; 5];
        stream.read_exact(&mut body).unwrap();
        stream
    };
    // What the first ones bring along is not theirs alone.
    let mut held: Vec<_> = (0..20).map(|_| open()).collect();
    let before = sidecar.resident();
    held.extend((0..CONNECTIONS).map(|_| open()));
    let each = sidecar.resident().saturating_sub(before) / CONNECTIONS as u64;
    println!("{} KiB for each idle connection under TLS", each / 1024);
    assert!(each < 40 * 1024, "{each} bytes for each connection");
    sidecar.settled(held.len());
}

// === Certificates that change ===

/// The serial number of the certificate that a new connection gets.
fn serial(authority: &Authority, sidecar: &Sidecar) -> u8 {
    let stream = handshake(authority, sidecar.proxy, &Wish::default()).unwrap();
    let shown = stream.conn.peer_certificates().unwrap()[0].to_vec();
    // SEQUENCE { SEQUENCE { [0] { INTEGER 2 }, INTEGER serial …: four bytes, four, five, then tag and length.
    shown[15]
}

#[test]
fn certificates_are_replaced_by_a_signal_under_load_and_bad_ones_are_not_taken() {
    let backend = Backend::always("hello");
    let (sidecar, authority) = with_tls(&backend, "");
    assert_eq!(serial(&authority, &sidecar), 1);
    let mut old = handshake(&authority, sidecar.proxy, &Wish::default()).unwrap();
    let stop = AtomicBool::new(false);
    let asked = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let stopping = StopOnDrop(&stop);
        let load = scope.spawn(|| {
            while !stop.load(SeqCst) {
                let mut stream = handshake(&authority, sidecar.proxy, &Wish::default()).expect("a handshake");
                let answer = exchange(&mut stream, GET).expect("an answer");
                assert!(answer.ends_with("hello"), "{answer}");
                asked.fetch_add(1, SeqCst);
            }
        });
        let reloads = |result: &str| sidecar.scrape().value("golden_config_reloads_total", &[("result", result)]);
        for round in 2..6u8 {
            authority.keep("server", &authority.issue_until(&["localhost"], round, 2100 + i32::from(round)));
            sidecar.signal(libc::SIGHUP);
            wait_until("the new certificate is shown", || serial(&authority, &sidecar) == round);
        }
        wait_until("all reloads are counted", || reloads("success") == 4.0);
        assert_eq!(sidecar.scrape().value(EXPIRY, &[("use", "listener")]), 4_260_211_200.0, "2105-01-01");

        // One that is no certificate, and one that is not that of the key.
        for (failed, text) in
            ["-----BEGIN NOTHING-----", &authority.issue(&["localhost"], 9).certificate.pem()].iter().enumerate()
        {
            authority.write("server.pem", text);
            sidecar.signal(libc::SIGHUP);
            wait_until("it is refused", || reloads("failure") >= (failed + 1) as f64);
            assert_eq!(serial(&authority, &sidecar), 5);
        }
        wait_until("the reason is logged", || sidecar.logged("does not match the certificate"));
        assert!(!sidecar.logged("PRIVATE KEY"));
        drop(stopping);
        load.join().unwrap();
    });
    // The connection from before all that.
    assert!(exchange(&mut old, GET).unwrap().ends_with("hello"));
    sidecar.settled(asked.load(SeqCst) + 1);
}

#[test]
fn certificates_are_replaced_when_their_files_are_without_a_signal() {
    let backend = Backend::always("hello");
    let authority = Authority::new("clients trust this");
    // As Kubernetes does it: the files are links through a link to a folder, and that link is replaced.
    let version = |serial: u8| {
        let folder = authority.folder().join(format!("v{serial}"));
        std::fs::create_dir(&folder).unwrap();
        let issued = authority.issue(&["localhost"], serial);
        std::fs::write(folder.join("tls.crt"), issued.certificate.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), issued.key.serialize_pem()).unwrap();
        let link = authority.folder().join("..data_new");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        std::fs::rename(link, authority.folder().join("..data")).unwrap();
    };
    version(1);
    for file in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(Path::new("..data").join(file), authority.folder().join(file)).unwrap();
    }
    let (certificate, key) = (authority.path("tls.crt"), authority.path("tls.key"));
    let sidecar = Sidecar::before(&backend).yaml(format!("tls: {{certificate: {certificate}, key: {key}}}")).start();
    assert_eq!(serial(&authority, &sidecar), 1);
    version(2);
    wait_until("the new certificate is shown", || serial(&authority, &sidecar) == 2);
    wait_until("it is logged", || sidecar.logged("certificate_renewed"));
    let page = sidecar.scrape();
    assert_eq!(page.value("golden_config_last_reload_successful", &[]), 1.0);
    assert_eq!(page.value("golden_config_reloads_total", &[("result", "failure")]), 0.0);
}

#[test]
fn a_bad_file_is_told_once_and_a_good_one_after_it_is_taken() {
    let backend = Backend::always("hello");
    let (sidecar, authority) = with_tls(&backend, "");
    authority.write("server.pem", "nonsense");
    let failed = |page: &Page| page.value("golden_config_reloads_total", &[("result", "failure")]);
    let page = sidecar.page_when("it is refused", |page| failed(page) == 1.0);
    assert_eq!(page.value("golden_config_last_reload_successful", &[]), 0.0);
    assert_eq!(serial(&authority, &sidecar), 1);
    authority.keep("server", &authority.issue(&["localhost"], 7));
    wait_until("the good one is shown", || serial(&authority, &sidecar) == 7);
    let page = sidecar.page_when("all is well", |page| page.value("golden_config_last_reload_successful", &[]) == 1.0);
    // Certificate and key are two files, so what was seen between them may count.
    assert!(failed(&page) <= 2.0);
    wait_until("it is logged", || sidecar.logged("certificate_renewed"));
    let told = sidecar.log().iter().filter(|line| line.contains("certificate_refused")).count();
    assert!((1..=2).contains(&told), "{:?}", sidecar.log());
}

// === Backends ===

#[test]
fn the_backend_sees_its_name_our_certificate_and_sessions_that_are_resumed() {
    let (authority, ours) = (Authority::new("issued the backend"), Authority::new("issued us"));
    let secure = TlsBackend::start(&authority.issue(&["localhost"], 1), Some(&ours), Goodbye::Said);
    let (certificate, key) = ours.keep("client", &ours.issue_until(&["sidecar"], 3, 2101));
    let yaml = format!("upstream_tls: {{ca: {}, certificate: {certificate}, key: {key}}}", authority.ca());
    let sidecar = Sidecar::upstream(secure.url()).yaml(yaml).start();
    assert_eq!(sidecar.get("/a").text(), "ok");
    assert_eq!(sidecar.get("/bye").text(), "ok");
    sees_closed(&sidecar, 1.0);
    assert_eq!(sidecar.get("/b").text(), "ok");
    let seen = secure.seen();
    assert_eq!(seen.len(), 3);
    for (index, seen) in seen.iter().enumerate() {
        assert_eq!(seen.name.as_deref(), Some("localhost"));
        assert_eq!((seen.certificates, seen.offered.as_deref()), (1, Some("http/1.1")));
        assert_eq!(seen.resumed, index == 2, "{seen:?}");
        assert!(
            seen.request.contains("\r\nHost: test\r\n") && seen.request.contains("X-Forwarded-Proto: http\r\n"),
            "{seen:?}"
        );
    }
    let page = sidecar.settled(3);
    // Two connections, and one request that found the first one idle.
    assert_eq!(page.count("golden_upstream_phase_seconds", &[("phase", "tls")]), 2.0);
    assert_eq!(page.count("golden_upstream_phase_seconds", &[("phase", "connect")]), 2.0);
    assert_eq!(page.value(EXPIRY, &[("use", "upstream")]), 4_133_980_800.0, "2101-01-01");
}

#[test]
fn a_backend_of_another_name_or_address_is_verified_as_what_it_is() {
    let authority = Authority::new("issued the backend");
    let of = |names: &[&str]| TlsBackend::start(&authority.issue(names, 1), None, Goodbye::Said);
    let ca = authority.ca();
    // An address in the URL must stand in the certificate; it is not sent as a name.
    let by_address = of(&["127.0.0.1"]);
    let url = format!("https://{}", by_address.address);
    let sidecar = Sidecar::upstream(url).yaml(format!("upstream_tls: {{ca: {ca}}}")).start();
    assert_eq!(sidecar.get("/").text(), "ok");
    assert_eq!(by_address.seen()[0].name, None);
    let by_name = of(&["api.internal"]);
    let yaml = format!("upstream_tls: {{ca: {ca}, server_name: API.internal}}");
    let sidecar = Sidecar::upstream(format!("https://{}", by_name.address)).yaml(yaml).start();
    assert_eq!(sidecar.get("/").text(), "ok");
    assert_eq!(by_name.seen()[0].name.as_deref(), Some("api.internal"));
}

#[test]
fn probes_and_the_backends_own_metrics_go_by_tls_too() {
    let authority = Authority::new("issued the backend");
    let secure = TlsBackend::start(&authority.issue(&["localhost"], 1), None, Goodbye::Said);
    let probing = |what: &str, ca: &str| {
        let yaml = format!("upstream_tls: {{ca: {ca}}}\nreadiness: {{{what}, interval: 100ms}}");
        Sidecar::upstream(secure.url()).yaml(yaml).start()
    };
    let says = |sidecar: &Sidecar, reason: &str| {
        wait_until(reason, || sidecar.admin_get("/readyz", "").text().contains(reason));
    };
    let sidecar = probing("path: /up", &authority.ca());
    wait_until("ready", || sidecar.admin_get("/readyz", "").status() == 200);
    let page = sidecar.admin_get("/metrics?include=backend", "").text();
    assert!(page.contains("\napp_jobs_total 3\n") && page.contains("\ngolden_backend_scrape_up 1\n"), "{page}");
    assert!(secure.seen().iter().all(|seen| seen.name.as_deref() == Some("localhost")));
    sidecar.expect(&[]);
    says(&probing("path: /down", &authority.ca()), "GET /down answered 500");
    says(&probing("grpc: '*'", &authority.ca()), "needs HTTP/2, and the backend chose HTTP/1.1");
    let unknown = probing("path: /up", &Authority::new("trusted instead").ca());
    says(&unknown, "GET /up failed in the TLS handshake: bad_certificate");
}

#[test]
fn a_backend_that_cannot_prove_who_it_is_gets_no_request() {
    let authority = Authority::new("issued the backend");
    let stranger = Authority::new("trusted instead");
    let cases = [
        (authority.issue_until(&["localhost"], 1, 2021), &authority, "bad_certificate", "expired"),
        (authority.issue(&["elsewhere"], 1), &authority, "bad_certificate", "not valid for name"),
        (authority.issue(&["localhost"], 1), &stranger, "bad_certificate", "UnknownIssuer"),
    ];
    for (issued, trusted, reason, told) in cases {
        let secure = TlsBackend::start(&issued, None, Goodbye::Said);
        let yaml = format!("upstream_tls: {{ca: {}}}", trusted.ca());
        let sidecar = Sidecar::upstream(secure.url()).yaml(yaml).start();
        let response = sidecar.get("/");
        assert_eq!(response.status(), 502, "{told}");
        assert_eq!(response.proxy_made("tls_failure").unwrap(), "tls_protocol_error");
        sidecar.expect(&[Outcome::proxy("GET", "502", ("tls_failure", "network", "tls"))]);
        fails_as(&sidecar, "backend", reason, 1.0);
        wait_until(told, || sidecar.logged(told));
        assert_eq!(secure.seen(), []);
    }
    // The system trusts none of these either.
    let secure = TlsBackend::start(&authority.issue(&["localhost"], 1), None, Goodbye::Said);
    let sidecar = Sidecar::upstream(secure.url()).env("SSL_CERT_FILE", &stranger.ca()).start();
    assert_eq!(sidecar.get("/").status(), 502);
    // Whoever asks for it gets it, and is told loudly.
    let sidecar = Sidecar::upstream(secure.url()).yaml("upstream_tls: {verify: false}").start();
    assert_eq!(sidecar.get("/").text(), "ok");
    assert!(sidecar.logged("upstream_not_verified") && sidecar.logged("WARN"));
}

#[test]
fn a_backend_that_speaks_no_tls_or_stalls_in_the_handshake_fails_as_such() {
    let authority = Authority::new("issued nothing");
    let yaml = format!("upstream_tls: {{ca: {}}}\ntimeouts: {{connect: 300ms}}", authority.ca());
    let plain = Backend::on_accept(|peer| {
        peer.wire.fill().ok();
        peer.send("HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let sidecar = Sidecar::upstream(format!("https://{}", plain.address)).yaml(&yaml).start();
    assert_eq!(sidecar.get("/").status(), 502);
    sidecar.expect(&[Outcome::proxy("GET", "502", ("tls_failure", "network", "tls"))]);
    fails_as(&sidecar, "backend", "protocol", 1.0);
    let silent = Backend::on_accept(|peer| {
        peer.wait_end();
    });
    let sidecar = Sidecar::upstream(format!("https://{}", silent.address)).yaml(&yaml).start();
    assert_eq!(sidecar.get("/").status(), 504);
    sidecar.expect(&[Outcome::proxy("GET", "504", ("connect_timeout", "backend", "tls"))]);
    fails_as(&sidecar, "backend", "timeout", 1.0);
}

#[test]
fn an_end_without_a_closure_alert_is_a_cut_only_where_it_is_the_end_of_a_body() {
    let authority = Authority::new("issued the backend");
    let issued = authority.issue(&["localhost"], 1);
    let yaml = format!("upstream_tls: {{ca: {}}}", authority.ca());
    let start = |goodbye| {
        let secure = TlsBackend::start(&issued, None, goodbye);
        let sidecar = Sidecar::upstream(secure.url()).yaml(&yaml).start();
        (sidecar, secure)
    };
    let (said, _secure) = start(Goodbye::Said);
    assert_eq!(said.get("/open").text(), "hello");
    said.expect(&[Outcome::backend("GET", "200")]);
    let (unsaid, _secure) = start(Goodbye::Unsaid);
    let mut client = unsaid.client();
    client.send("GET /open HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.read_head();
    assert_eq!(head.status(), 200);
    let body = client.wire.read_body(Client::framing("GET", &head)).expect("what there is");
    assert!(!body.complete, "a body that anybody could have cut was passed on as whole");
    unsaid.expect(&[Outcome::cut("GET", "200", "reset_after_head")]);
    // Between two messages there is nothing to cut.
    for closed in [1.0, 2.0] {
        assert_eq!(unsaid.get("/bye").text(), "ok");
        sees_closed(&unsaid, closed);
    }
    assert_eq!(unsaid.get("/a").text(), "ok");
    unsaid.settled(4);
}

/// Waits until the pool has noticed that the backend has closed so many connections.
#[track_caller]
fn sees_closed(sidecar: &Sidecar, times: f64) {
    sidecar.page_when("the pool has noticed", |page| {
        page.value("golden_upstream_connections_closed_total", &[("reason", "peer")]) == times
    });
}

// === Sockets of the file system ===

#[test]
fn a_socket_of_the_file_system_is_listened_at_by_all_workers_and_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let shown = path.display().to_string();
    // What a dead process leaves behind.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let backend = Backend::always("hello");
    let listen = format!("unix:{shown}");
    let mut sidecar = Sidecar::before(&backend).listen(&listen).workers(2).start();
    let there = std::fs::metadata(&path).unwrap();
    assert!(there.file_type().is_socket());
    assert_eq!(there.permissions().mode() & 0o777, 0o660);
    for _ in 0..20 {
        assert_eq!(curls(&["--unix-socket", &shown, "http://app/x"]), "hello");
    }
    let with_list = ["--unix-socket", &shown, "-H", "X-Forwarded-For: 192.0.2.1", "http://app/x"];
    assert_eq!(curls(&with_list), "hello");
    let requests = backend.requests();
    assert!(requests[..20].iter().all(|request| !request.head.has("x-forwarded-for")), "nobody has an address");
    assert_eq!(requests[20].head.one("x-forwarded-for").as_deref(), Some("192.0.2.1"));
    sidecar.settled(21);
    let page = sidecar.admin_get("/", "").text();
    assert!(page.contains(&listen), "{page}");

    let second = program().args(["--upstream", &backend.url(), "--listen", &listen, "--admin", "127.0.0.1:0"]).output();
    let second = second.unwrap();
    assert_eq!(second.status.code(), Some(2));
    let sentence = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(sentence.contains(&format!("listen: {listen} is in use by another process")), "{sentence}");
    assert_eq!(curls(&["--unix-socket", &shown, "http://app/"]), "hello", "the first one is not disturbed");
    sidecar.signal(libc::SIGTERM);
    sidecar.signal(libc::SIGTERM);
    sidecar.wait_exit(PATIENCE);
    assert!(!path.exists());
}

#[test]
fn what_is_no_socket_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let listen = format!("unix:{}", path.display());
    let refused =
        program().args(["--upstream", "http://127.0.0.1:1", "--listen", &listen, "--admin", "127.0.0.1:0"]).output();
    assert_eq!(refused.unwrap().status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
}

#[test]
fn tls_is_spoken_at_a_socket_of_the_file_system_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock").display().to_string();
    let authority = Authority::new("clients trust this");
    let (certificate, key) = authority.keep("server", &authority.issue(&["localhost"], 1));
    let backend = Backend::always("hello");
    let yaml = format!("tls: {{certificate: {certificate}, key: {key}}}");
    let sidecar = Sidecar::before(&backend).listen(format!("unix:{path}")).yaml(yaml).start();
    assert_eq!(curls(&["--cacert", &authority.ca(), "--unix-socket", &path, "https://localhost/"]), "hello");
    let mut plain = UnixStream::connect(&path).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    sidecar.settled(2);
}

// === The PROXY protocol ===

/// A header of version 2 for TCP over IPv6.
fn version_2(address: std::net::Ipv6Addr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21".to_vec();
    header.extend([0, 36 + 7]);
    header.extend(address.octets());
    header.extend([0; 20]);
    // A type of its own that nobody knows.
    header.extend([0xe0, 0, 4, 1, 2, 3, 4]);
    header
}

#[test]
fn the_client_is_who_the_proxy_header_says() {
    let backend = Backend::always("hello");
    let sidecar = Sidecar::before(&backend).yaml("proxy_protocol: true\nforwarded: {trust: [192.0.2.0/24]}").start();
    let url = format!("http://{}/curl", sidecar.proxy);
    assert_eq!(curls(&["--haproxy-protocol", &url]), "hello");
    let seen = |fields: &str| {
        let request = backend.requests().pop().unwrap();
        assert!(!request.head.line.is_empty());
        request.head.list(fields)
    };
    assert_eq!(seen("x-forwarded-for"), "127.0.0.1");
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".to_vec();
    for (header, expected) in [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(), "203.0.113.9, 192.0.2.7"),
        (b"PROXY TCP4 198.51.100.7 198.51.100.1 56324 443\r\n".to_vec(), "198.51.100.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (local, "127.0.0.1"),
        (version_2("2001:db8::8".parse().unwrap()), "2001:db8::8"),
    ] {
        // In one packet, and byte by byte.
        for piece in [usize::MAX, 1] {
            let mut client = sidecar.client();
            client.wire.stream.set_nodelay(true).unwrap();
            let whole = [&header[..], request.as_bytes()].concat();
            for part in whole.chunks(piece.min(whole.len())) {
                client.send(part);
            }
            assert_eq!(client.read_response("GET").status(), 200, "{header:?}");
            assert_eq!(seen("x-forwarded-for"), expected, "{header:?}");
        }
    }
    sidecar.settled(13);
}

#[test]
fn a_connection_without_a_proxy_header_is_refused() {
    let backend = Backend::always("hello");
    let sidecar = Sidecar::before(&backend).yaml("proxy_protocol: true\ntimeouts: {client_head: 300ms}").start();
    let response = sidecar.get("/");
    assert_eq!(response.status(), 400);
    assert!(response.text().contains("PROXY header"), "{}", response.text());
    let mut client = sidecar.client();
    let response = client.exchange("PROXY TCP4 not an address\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(response.status(), 400);
    // One that does not come to its end.
    let mut client = sidecar.client();
    client.send("PROXY TCP4 192.0.2.7 ");
    assert_eq!(client.read_response("GET").status(), 408);
    // Who says nothing has asked for nothing.
    sidecar.client().expect_end();
    drop(sidecar.client());
    let refused = Outcome::proxy("_OTHER", "400", ("bad_request", "client", "head"));
    let late = Outcome::proxy("_OTHER", "408", ("client_timeout", "client", "head"));
    sidecar.expect(&[refused, refused, late]);
    assert_eq!(backend.requests().len(), 0);
}

#[test]
fn tls_begins_behind_the_proxy_header() {
    let backend = Backend::always("hello");
    let (sidecar, authority) = with_tls(&backend, "proxy_protocol: true");
    let header = version_2("2001:db8::9".parse().unwrap());
    let wish = Wish { before: &header, ..Wish::default() };
    let mut stream = handshake(&authority, sidecar.proxy, &wish).unwrap();
    assert!(exchange(&mut stream, GET).unwrap().ends_with("hello"));
    let head = backend.request().head;
    assert_eq!(head.one("x-forwarded-for").as_deref(), Some("2001:db8::9"));
    assert_eq!(head.one("x-forwarded-proto").as_deref(), Some("https"));
    let said = curls(&["--cacert", &authority.ca(), "--haproxy-protocol", "--http2", &at(&sidecar, "/")]);
    assert_eq!(said, "hello");
    // TLS without a header.
    assert!(handshake(&authority, sidecar.proxy, &Wish::default()).is_err());
    sidecar.settled(3);
}

#[test]
fn an_ipv6_listener_names_its_clients() {
    let backend = Backend::always("hello");
    let sidecar = Sidecar::before(&backend).listen("[::1]:0").start();
    assert!(sidecar.proxy.is_ipv6());
    assert_eq!(sidecar.get("/").text(), "hello");
    assert_eq!(backend.request().head.one("x-forwarded-for").as_deref(), Some("::1"));
}

// === The admin port ===

#[test]
fn the_admin_port_speaks_tls_and_so_do_the_commands_that_ask_it() {
    let backend = Backend::always("hello");
    let authority = Authority::new("scrapers trust this");
    let (certificate, key) = authority.keep("admin", &authority.issue(&["localhost"], 4));
    let yaml = |more: &str| format!("admin_tls: {{certificate: {certificate}, key: {key}{more}}}\n");
    let sidecar = Sidecar::before(&backend).yaml(yaml("")).start();
    let url = format!("https://localhost:{}/metrics", sidecar.admin.port());
    assert_eq!(sidecar.get("/x").text(), "hello", "the proxy itself is plain");
    let page = curls(&["--cacert", &authority.ca(), &url]);
    assert_eq!(Page::parse(&page).value(EXPIRY, &[("use", "admin")]), YEAR_2100);
    let plain = Client::to(sidecar.admin).exchange("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(plain.status(), 400);
    assert!(plain.text().contains("https://"), "{}", plain.text());

    let ask = |sidecar: &Sidecar, yaml: &str, command: &[&str]| {
        authority.write("golden.yaml", &format!("admin: {}\n{yaml}", sidecar.admin));
        program().args(command).args(["--config", &authority.path("golden.yaml")]).output().expect("runs")
    };
    wait_until("the health check passes", || ask(&sidecar, &yaml(""), &["healthcheck"]).status.success());
    let routes = ask(&sidecar, &yaml(""), &["routes", "list"]);
    assert!(routes.status.success(), "{}", String::from_utf8_lossy(&routes.stderr));
    assert!(!ask(&sidecar, "", &["healthcheck"]).status.success(), "without TLS it gets no answer");

    let clients = Authority::new("issued scrapers");
    let (own, own_key) = clients.keep("prometheus", &clients.issue(&["prometheus"], 5));
    let more = format!(", client_ca: {}", clients.ca());
    let sidecar = Sidecar::before(&backend).yaml(yaml(&more)).start();
    let url = format!("https://localhost:{}/metrics", sidecar.admin.port());
    assert!(!curl(&["--cacert", &authority.ca(), &url]).status.success());
    let page = curls(&["--cacert", &authority.ca(), "--cert", &own, "--key", &own_key, &url]);
    assert!(page.contains(EXPIRY));
}

// === Mistakes ===

#[test]
fn files_that_cannot_be_used_are_named_with_their_key() {
    let authority = Authority::new("any");
    let (certificate, key) = authority.keep("server", &authority.issue(&["localhost"], 1));
    let (_, other_key) = authority.keep("other", &authority.issue(&["localhost"], 2));
    authority.write("text", "hello");
    authority.write("broken", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    authority.write("encrypted", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let path = |name: &str| authority.path(name);
    let (missing, text, broken, encrypted, ca) =
        (path("missing"), path("text"), path("broken"), path("encrypted"), authority.ca());
    let folder = authority.folder().display().to_string();
    for (yaml, sentence) in [
        (
            format!("tls: {{certificate: {missing}, key: {key}}}"),
            format!("tls.certificate: \"{missing}\" cannot be read: No such file or directory (os error 2)\n"),
        ),
        (
            format!("tls: {{certificate: {folder}, key: {key}}}"),
            format!("tls.certificate: \"{folder}\" cannot be read: it is no file\n"),
        ),
        (
            format!("tls: {{certificate: {text}, key: {key}}}"),
            format!("tls.certificate: \"{text}\" holds no certificate; expected PEM (-----BEGIN CERTIFICATE-----)\n"),
        ),
        (
            format!("tls: {{certificate: {broken}, key: {key}}}"),
            format!("tls.certificate: \"{broken}\" is not valid PEM; expected -----BEGIN CERTIFICATE-----\n"),
        ),
        (
            format!("tls: {{certificate: {certificate}, key: {certificate}}}"),
            format!("tls.key: \"{certificate}\" holds no private key; expected PEM (-----BEGIN PRIVATE KEY-----)\n"),
        ),
        (
            format!("tls: {{certificate: {certificate}, key: {encrypted}}}"),
            format!("tls.key: \"{encrypted}\" is encrypted; expected a private key without a passphrase\n"),
        ),
        (
            format!("tls: {{certificate: {certificate}, key: {other_key}}}"),
            format!("tls.key: \"{other_key}\" does not match the certificate in \"{certificate}\"\n"),
        ),
        (
            format!("tls: {{certificate: {certificate}, key: {key}, client_ca: {missing}}}"),
            format!("tls.client_ca: \"{missing}\" cannot be read: No such file or directory (os error 2)\n"),
        ),
        (
            format!("admin_tls: {{certificate: {certificate}, key: {other_key}}}"),
            format!("admin_tls.key: \"{other_key}\" does not match the certificate in \"{certificate}\"\n"),
        ),
        (
            format!("upstream: 'https://127.0.0.1:1'\nupstream_tls: {{ca: {text}}}"),
            format!("upstream_tls.ca: \"{text}\" holds no certificate; expected PEM (-----BEGIN CERTIFICATE-----)\n"),
        ),
        (
            format!(
                "upstream: 'https://127.0.0.1:1'\nupstream_tls: {{ca: {ca}, certificate: {certificate}, key: {other_key}}}"
            ),
            format!("upstream_tls.key: \"{other_key}\" does not match the certificate in \"{certificate}\"\n"),
        ),
    ] {
        let yaml = if yaml.contains("upstream:") { yaml } else { format!("upstream: 'http://127.0.0.1:1'\n{yaml}") };
        authority.write("golden.yaml", &yaml);
        for command in [&["check"][..], &["--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0"]] {
            let output = program().args(command).args(["--config", &authority.path("golden.yaml")]).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{yaml}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.ends_with(&sentence), "{yaml}\n{said}\n{sentence}");
        }
    }
    // What is well is shown by its paths.
    authority.write(
        "golden.yaml",
        &format!("upstream: 'http://a:1'\ntls: {{certificate: server.pem, key: {key}, client_ca: {ca}}}"),
    );
    let output = program().args(["check", "--config", &authority.path("golden.yaml")]).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in [format!("  certificate: {certificate}"), format!("  key: {key}"), "  client_auth: required".to_owned()]
    {
        assert!(shown.contains(&line), "{line}\n{shown}");
    }
    assert!(!shown.contains("BEGIN"), "{shown}");
}
