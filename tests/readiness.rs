//! Whether the backend is up, whatever is spoken with it: HTTP/1.1, HTTP/2, gRPC health, sockets of the file system.

mod common;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use common::program::Program;
use common::{Outcome, Sidecar, wait_until};

fn ready(sidecar: &Sidecar) -> u16 {
    sidecar.admin_get("/readyz", "").status()
}

#[track_caller]
fn not_ready(sidecar: &Sidecar, reason: &str) {
    let mut said = String::new();
    wait_until(&format!("not ready: {reason}"), || {
        said = sidecar.admin_get("/readyz", "").text();
        said.contains(reason)
    });
}

// === gRPC ===

fn health_server(arguments: &[&str]) -> Program {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv/bin/python"));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/health.py")).args(arguments);
    Program::spawn(command)
}

fn asking(port: u16, service: &str) -> Sidecar {
    let yaml = format!("readiness:\n  grpc: '{service}'\n  interval: 100ms\n");
    Sidecar::upstream(format!("h2c://127.0.0.1:{port}")).yaml(yaml).start()
}

#[test]
fn a_grpc_server_is_up_when_its_health_server_says_so() {
    let server = health_server(&[]);
    let port = server.port();
    let whole = asking(port, "*");
    let up = asking(port, "up");
    wait_until("the whole server is up", || ready(&whole) == 200);
    wait_until("the service is up", || ready(&up) == 200);
    not_ready(&asking(port, "down"), "the gRPC health check of down says that it is NOT_SERVING");
    not_ready(&asking(port, "unsaid"), "the gRPC health check of unsaid says that it is UNKNOWN");
    let absent = "the gRPC health check of absent ended with NOT_FOUND: its health server does not know the service";
    not_ready(&asking(port, "absent"), absent);

    server.signal(libc::SIGUSR1);
    not_ready(&whole, "the gRPC health check says that it is NOT_SERVING");
    not_ready(&up, "the gRPC health check of up says that it is NOT_SERVING");
    server.signal(libc::SIGUSR2);
    wait_until("up again", || ready(&whole) == 200 && ready(&up) == 200);
    server.end();
    not_ready(&whole, &format!("connect to 127.0.0.1:{port} refused"));
    whole.expect(&[]);
}

#[test]
fn a_grpc_server_without_health_is_told_from_one_that_is_down() {
    let server = health_server(&["without"]);
    not_ready(&asking(server.port(), "*"), "the gRPC health check ended with UNIMPLEMENTED: it has no health server");
}

#[test]
fn who_speaks_no_http2_has_no_readable_health() {
    let backend = common::Backend::always("HTTP/1.1 only");
    not_ready(&asking(backend.address.port(), "*"), "the gRPC health check got no readable answer");
}

/// A server of HTTP/2 with prior knowledge that answers with this status, and the targets that it was asked for.
fn http2_server(status: Arc<AtomicU16>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut connection) = h2::server::handshake(stream).await else { continue };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    told.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
                    let answer = http::Response::builder().status(status.load(Ordering::SeqCst)).body(()).unwrap();
                    let _ = respond.send_response(answer, true);
                }
            }
        });
    });
    (address, asked)
}

#[test]
fn a_path_is_asked_for_over_http2_where_that_is_spoken() {
    let status = Arc::new(AtomicU16::new(204));
    let (address, asked) = http2_server(Arc::clone(&status));
    let yaml = "readiness:\n  path: /healthz?deep=1\n  interval: 100ms\n";
    let sidecar = Sidecar::upstream(format!("h2c://{address}")).yaml(yaml).start();
    wait_until("ready", || ready(&sidecar) == 200);
    assert_eq!(asked.lock().unwrap()[0], format!("GET http://{address}/healthz?deep=1"));
    status.store(503, Ordering::SeqCst);
    not_ready(&sidecar, "GET /healthz?deep=1 answered 503");
    sidecar.expect(&[]);
}

// === sockets of the file system ===

/// A server on a socket of the file system, one thread per connection. `/cut`: reads the request and closes.
struct Server {
    path: PathBuf,
    connections: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

fn server() -> Server {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("app.sock");
    let connections = serve(&path);
    Server { path, connections, _folder: folder }
}

fn serve(path: &Path) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(path).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counted = Arc::clone(&counted);
            thread::spawn(move || exchange(stream, &counted));
        }
    });
    connections
}

fn exchange(mut stream: UnixStream, counted: &AtomicUsize) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    let mut is_new = true;
    while matches!(stream.read(&mut byte), Ok(1)) {
        counted.fetch_add(usize::from(std::mem::take(&mut is_new)), Ordering::SeqCst);
        head.push(byte[0]);
        if head.ends_with(b"\r\n\r\n") {
            let is_get = head.starts_with(b"GET /cut ");
            head.clear();
            if is_get || stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix").is_err() {
                return;
            }
        }
    }
}

fn before(path: &Path) -> common::sidecar::Builder<'static> {
    Sidecar::upstream(format!("unix:{}", path.display()))
}

const SOON: &str = "readiness:\n  interval: 100ms\n";

#[test]
fn a_backend_on_a_socket_of_the_file_system_is_served_and_seen() {
    let server = server();
    let sidecar = before(&server.path).yaml(SOON).start();
    wait_until("ready", || ready(&sidecar) == 200);
    let mut client = sidecar.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "unix");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "the connection is used again, and probes open none");
    let page = sidecar.page_when("who listens there", |page| {
        page.value("golden_backend_up", &[]) == 1.0
            && page.sum("golden_backend_accept_queue_limit", &[("port", "unix")]) > 0.0
            && page.sum("golden_sampler_source_available", &[("source", "backend")]) == 1.0
    });
    assert_eq!(page.value("golden_backend_accept_queue_connections", &[("port", "unix")]), 0.0);
    assert_eq!(page.value("golden_upstream_addresses", &[]), 1.0);
    sidecar.expect(&[Outcome::backend("GET", "200"); 3]);
}

#[test]
fn nobody_can_tell_that_a_request_was_not_delivered_over_a_socket_of_the_file_system() {
    let server = server();
    let sidecar = before(&server.path).start();
    assert_eq!(sidecar.get("/").text(), "unix");
    assert_eq!(sidecar.get("/cut").status(), 502, "sent once, over the connection that was used before");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    let page = sidecar.expect(&[
        Outcome::backend("GET", "200"),
        Outcome::proxy("GET", "502", ("reset_before_head", "backend", "wait")),
    ]);
    assert_eq!(page.sum("golden_upstream_retries_total", &[]), 0.0);
}

#[test]
fn a_socket_that_is_not_there_refuses_until_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let refused = Outcome::proxy("GET", "502", ("connect_refused", "backend", "connect"));
    let sidecar = before(&path).yaml(SOON).start();
    not_ready(&sidecar, &format!("connect to unix:{} failed: entity not found", path.display()));
    assert_eq!(sidecar.get("/").status(), 502);
    // A file that its server has left behind.
    drop(UnixListener::bind(&path).unwrap());
    not_ready(&sidecar, &format!("connect to unix:{} refused", path.display()));
    assert_eq!(sidecar.get("/").status(), 502);
    std::fs::remove_file(&path).unwrap();
    serve(&path);
    wait_until("ready", || ready(&sidecar) == 200);
    assert_eq!(sidecar.get("/").text(), "unix");
    sidecar.expect(&[refused, refused, Outcome::backend("GET", "200")]);
}

#[test]
fn a_socket_that_this_user_may_not_use_says_so() {
    let server = server();
    std::fs::set_permissions(&server.path, std::fs::Permissions::from_mode(0o700)).unwrap();
    // Root may use all, so it is somebody else who asks; who is not root has taken its own right away.
    if unsafe { libc::geteuid() } != 0 {
        std::fs::set_permissions(&server.path, std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    let sidecar = before(&server.path).yaml(SOON).by_nobody().start();
    not_ready(&sidecar, &format!("connect to unix:{} failed: permission denied", server.path.display()));
    assert_eq!(sidecar.get("/").status(), 502);
    let told = || sidecar.log().iter().filter(|line| line.contains("permission denied")).count();
    assert_eq!(told(), 1, "told once, not for each probe and request");
    sidecar.expect(&[Outcome::proxy("GET", "502", ("connect_refused", "backend", "connect"))]);
}

#[test]
fn a_socket_whose_queue_is_full_lets_wait_as_long_as_a_connect_may_take() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    // One waits; the kernel lets the next one in only when it is accepted.
    let waiting = UnixStream::connect(&path).unwrap();
    let sidecar = before(&path).yaml(format!("{SOON}timeouts:\n  connect: 200ms\n")).start();
    not_ready(&sidecar, &format!("the accept queue of unix:{} is full", path.display()));
    assert_eq!(sidecar.get("/").status(), 504);
    thread::scope(|scope| {
        let held = scope.spawn(|| sidecar.get("/").status());
        // Who waits in front is served, and the next one comes in.
        drop(waiting);
        drop(listener.accept().unwrap());
        let (mut next, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(next.read(&mut byte).unwrap(), 1);
            head.push(byte[0]);
        }
        next.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert_eq!(held.join().unwrap(), 204);
    });
    sidecar.expect(&[
        Outcome::proxy("GET", "504", ("connect_timeout", "backend", "connect")),
        Outcome::backend("GET", "204"),
    ]);
}

// === descriptors ===

#[test]
fn a_probe_for_which_there_is_no_descriptor_says_nothing_of_the_backend() {
    let backend = common::Backend::always("up");
    let sidecar = Sidecar::before(&backend).yaml("readiness:\n  path: /healthz\n  interval: 100ms\n").start();
    wait_until("ready", || ready(&sidecar) == 200);
    // No more than it has: the limit is the lowest number that it may not use.
    let mut limit = 0;
    wait_until("what it has open stays the same", || {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", sidecar.pid())).unwrap();
        let used: std::collections::BTreeSet<u64> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        let free = (0..).find(|number| !used.contains(number)).unwrap();
        std::mem::replace(&mut limit, free) == free
    });
    sidecar.limit_open_files(Some(limit));
    wait_until("a probe that could not be made is told", || sidecar.logged("no file descriptor is left"));
    assert_eq!(ready(&sidecar), 200, "the last verdict");
    assert_eq!(sidecar.scrape().value("golden_backend_up", &[]), 1.0);
    assert!(!sidecar.logged("backend_down"));
    sidecar.limit_open_files(Some(1024));
    let probed = backend.requests().len();
    wait_until("it is probed again", || backend.requests().len() > probed);
    drop(backend);
    not_ready(&sidecar, "refused");
    let told = sidecar.log().iter().filter(|line| line.contains("backend_not_probed")).count();
    assert_eq!(told, 1, "told once, not for each probe");
}
