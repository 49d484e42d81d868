//! From the command line to the exit status: start, readiness, reload, drain, end.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::sidecar::program;
use common::{Backend, Client, Gate, Outcome, PATIENCE, Sidecar, StopOnDrop, h2c, ok, wait_for, wait_until};
use tokio::time::Instant;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// Runs the program to its end.
fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let child = program()
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let (done, finished) = std::sync::mpsc::channel();
    let waiting = thread::spawn(move || {
        let output = child.wait_with_output().expect("output");
        let _ = done.send(());
        output
    });
    if finished.recv_timeout(PATIENCE * 3).is_err() {
        // SAFETY: kill has no memory effect; the child is not reaped yet, so the number is still its own.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        panic!("{args:?} did not end: {:?}", waiting.join().unwrap());
    }
    waiting.join().unwrap()
}

/// Exit code 2 and one sentence on standard error that contains all of `words`.
#[track_caller]
fn expect_bad_usage(args: &[&str], env: &[(&str, &str)], words: &[&str]) {
    let output = run(args, env);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "one sentence, not {text:?}");
    assert!(!text.contains("panicked"), "{text}");
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

fn ready(sidecar: &Sidecar) -> u16 {
    sidecar.admin_get("/readyz", "").status()
}

// --- start ---

#[test]
fn a_port_in_use_is_one_sentence_and_exit_code_2() {
    let backend = Backend::always("ok");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let url = backend.url();
    expect_bad_usage(&["--upstream", &url, "--listen", &address, "--admin", "127.0.0.1:0"], &[], &["listen", &address]);
    expect_bad_usage(&["--upstream", &url, "--listen", "127.0.0.1:0", "--admin", &address], &[], &["admin", &address]);
}

#[test]
fn two_sidecars_never_share_a_port() {
    // SO_REUSEPORT lets the workers share a port; it must not let a second process steal half of the traffic.
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    let address = sidecar.proxy.to_string();
    expect_bad_usage(&["--upstream", &backend.url(), "--listen", &address, "--admin", "127.0.0.1:0"], &[], &[&address]);
}

#[test]
fn an_upstream_that_cannot_be_resolved_is_one_sentence_and_exit_code_2() {
    let args = ["--upstream", "http://no-such-host.invalid:80", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    expect_bad_usage(&args, &[], &["upstream", "no-such-host.invalid"]);
}

#[test]
fn bad_usage_is_exit_code_2() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "upstream: http://127.0.0.1:1\ntimeout:\n  head: 1s\n").unwrap();
    let path = file.path().to_str().unwrap();
    expect_bad_usage(&["--config", path], &[], &["timeout", "timeouts"]);
    expect_bad_usage(&["--upstream", "127.0.0.1:80"], &[], &["upstream", "127.0.0.1:80"]);
    expect_bad_usage(&["--upstream", "http://127.0.0.1:1", "--config", "/no/such/file"], &[], &["/no/such/file"]);
    expect_bad_usage(&["--upstream", "http://127.0.0.1:1"], &[("GOLDEN_TIMEOUTS_HEAD", "soon")], &["soon"]);
    for args in [&["--no-such-flag"][..], &[]] {
        assert_eq!(run(args, &[]).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn check_says_what_would_be_used_and_where_it_came_from() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "upstream: http://127.0.0.1:7001\ntimeouts:\n  head: 7s\n").unwrap();
    let output = run(&["check", "--config", file.path().to_str().unwrap()], &[("GOLDEN_TIMEOUTS_BODY", "8s")]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text} {}", String::from_utf8_lossy(&output.stderr));
    for part in ["http://127.0.0.1:7001", "7s", "8s"] {
        assert!(text.contains(part), "{text}");
    }
    std::fs::write(file.path(), "upstream: 7\n").unwrap();
    assert_eq!(run(&["check", "--config", file.path().to_str().unwrap()], &[]).status.code(), Some(2));
}

#[test]
fn a_sidecar_starts_without_its_backend_and_is_not_ready() {
    let mut backend = Backend::always("ok");
    backend.stop();
    let sidecar = Sidecar::start(&backend);
    wait_until("not ready", || ready(&sidecar) == 503);
    assert_eq!(sidecar.admin_get("/livez", "").status(), 200, "alive all the same");
}

// --- readiness ---

/// The issue: "flips within 2 s". The rest is what one poll of this test takes on a busy machine.
const FLIP: Duration = Duration::from_millis(2_200);

#[test]
fn readiness_follows_the_backend_within_two_seconds() {
    let mut backend = Backend::always("ok");
    let address = backend.address;
    let sidecar = Sidecar::start(&backend);
    wait_until("ready", || ready(&sidecar) == 200);
    assert_eq!(sidecar.scrape().value("golden_backend_up", &[]), 1.0);
    for _ in 0..2 {
        let start = Instant::now();
        backend.stop();
        wait_until("not ready", || ready(&sidecar) == 503);
        assert!(start.elapsed() < FLIP, "{:?}", start.elapsed());
        assert_eq!(sidecar.scrape().value("golden_backend_up", &[]), 0.0);
        let start = Instant::now();
        backend = Backend::start_at(address, |peer| while peer.read_request().is_some() && peer.send(ok("ok")) {});
        wait_until("ready again", || ready(&sidecar) == 200);
        assert!(start.elapsed() < FLIP, "{:?}", start.elapsed());
        assert_eq!(sidecar.scrape().value("golden_backend_up", &[]), 1.0);
    }
}

#[test]
fn readiness_asks_an_http_path_when_told_to() {
    let healthy = std::sync::Arc::new(AtomicBool::new(true));
    let backend = Backend::answering({
        let healthy = std::sync::Arc::clone(&healthy);
        move |_| common::response(if healthy.load(Ordering::SeqCst) { 200 } else { 503 }, "", "")
    });
    let sidecar = Sidecar::before(&backend).yaml("readiness:\n  path: /health\n  interval: 200ms\n").start();
    wait_until("ready", || ready(&sidecar) == 200);
    assert_eq!(backend.requests()[0].head.line, "GET /health HTTP/1.1");
    healthy.store(false, Ordering::SeqCst);
    wait_until("a backend that answers 503 is not ready", || ready(&sidecar) == 503);
    healthy.store(true, Ordering::SeqCst);
    wait_until("ready again", || ready(&sidecar) == 200);
    sidecar.expect(&[]);
}

#[test]
fn the_healthcheck_command_repeats_what_readyz_says() {
    let mut backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    wait_until("ready", || ready(&sidecar) == 200);
    let admin = sidecar.admin.to_string();
    assert_eq!(run(&["healthcheck", "--admin", &admin], &[]).status.code(), Some(0));
    assert_eq!(run(&["healthcheck"], &[("GOLDEN_ADMIN", &admin)]).status.code(), Some(0));
    backend.stop();
    wait_until("not ready", || ready(&sidecar) == 503);
    assert_eq!(run(&["healthcheck", "--admin", &admin], &[]).status.code(), Some(1));
    drop(sidecar);
    assert_eq!(run(&["healthcheck", "--admin", &admin], &[]).status.code(), Some(1), "nobody there");
}

#[test]
fn the_healthcheck_command_has_one_deadline_for_all_of_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = listener.local_addr().unwrap().to_string();
    let dripping = thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        // A byte, and another one each time that nothing has come for a while.
        let mut bytes = [0; 4096];
        while peer.write_all(b"H").is_ok() && !matches!(peer.read(&mut bytes), Ok(0)) {}
    });
    let begun = Instant::now();
    let output = run(&["healthcheck", "--admin", &admin], &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not within 2s"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    dripping.join().unwrap();
}

// --- drain ---

/// A backend that keeps `/hold` until the gate opens.
fn holding(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::answering(move |request| {
        if request.head.target() == "/hold" {
            gate.wait();
        }
        ok("whole")
    })
}

fn draining(sidecar: &Sidecar) {
    sidecar.page_when("draining", |page| page.get("golden_draining", &[]) == Some(1.0));
}

#[test]
fn sigterm_takes_readiness_away_but_goes_on_accepting_during_the_grace() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let backend = Backend::always("ok");
        let mut sidecar = Sidecar::before(&backend).flag("--drain-grace", "3s").start();
        wait_until("ready", || ready(&sidecar) == 200);
        assert_eq!(sidecar.scrape().value("golden_draining", &[]), 0.0);
        let start = Instant::now();
        sidecar.signal(signal);
        wait_until("not ready", || ready(&sidecar) == 503);
        assert!(start.elapsed() < Duration::from_secs(1), "not ready only after {:?}", start.elapsed());
        for _ in 0..5 {
            assert_eq!(sidecar.get("/").status(), 200, "new connections are served during the grace");
        }
        assert!(start.elapsed() < Duration::from_secs(3), "this machine is too slow for this test");
        let status = sidecar.wait_exit(PATIENCE);
        assert!(start.elapsed() >= Duration::from_secs(3), "ended before the grace was over");
        assert_eq!(status.code(), Some(0));
    }
}

#[test]
fn what_is_in_flight_completes_and_the_process_ends_with_0() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let mut sidecar = Sidecar::before(&backend).flag("--drain-grace", "0s").flag("--drain-timeout", "60s").start();
    let mut client = sidecar.client();
    client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut idle = sidecar.client();
    assert_eq!(idle.get("/").status(), 200);
    wait_until("the request is at the backend", || backend.requests().len() == 2);
    sidecar.signal(libc::SIGTERM);
    draining(&sidecar);
    idle.expect_end();
    wait_until("new connections are refused", || match Client::try_to(sidecar.proxy) {
        Err(_) => true,
        Ok(mut client) => client.try_send(GET).is_err() || !matches!(client.wire.read_head(), Ok(Some(_))),
    });
    assert_eq!(sidecar.admin_get("/livez", "").status(), 200, "the admin port stays");
    assert!(sidecar.try_exit().is_none(), "it waits for the request");
    gate.open();
    let answer = client.read_response("GET");
    assert_eq!(answer.text(), "whole");
    assert!(answer.head.has_token("connection", "close"), "{:?}", answer.head.fields);
    client.expect_end();
    assert_eq!(sidecar.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_stuck_client_is_cut_at_the_deadline_and_counted() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let mut sidecar = Sidecar::before(&backend)
        .yaml("drain:\n  grace: 0s\n  timeout: 1s\n  last_scrape: 20s\nroutes:\n  - path: /hold\n")
        .start();
    let mut client = sidecar.client();
    client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request is at the backend", || backend.requests().len() == 1);
    let start = Instant::now();
    sidecar.signal(libc::SIGTERM);
    let rest = client.wire.read_to_end();
    let cut = start.elapsed();
    assert!(
        rest.as_ref().is_err()
            || rest.as_ref().unwrap().is_empty()
            || rest.as_ref().unwrap().starts_with(b"HTTP/1.1 503"),
        "{rest:?}"
    );
    assert!(cut >= Duration::from_millis(900) && cut < Duration::from_secs(4), "cut after {cut:?}");
    // At the end /metrics waits for one more scrape. Which one that is nobody outside can know: the last that succeeds.
    let mut last = None;
    wait_until("the process ends after its last scrape", || {
        last = sidecar.try_scrape().or(last.take());
        sidecar.try_exit().is_some()
    });
    let page = last.expect("a page");
    let labels = [("http_route", "/hold"), ("error_type", "drain_deadline"), ("fault", "policy")];
    assert_eq!(page.sum("golden_errors_total", &labels), 1.0, "{}", page.lines_of("golden_errors_total"));
    assert_eq!(page.sum("golden_requests_total", &[("http_route", "/hold"), ("origin", "proxy")]), 1.0);
    assert_eq!(page.sum("golden_client_aborts_total", &[]), 0.0, "the client did not leave");
    assert_eq!(page.sum("http_server_active_requests", &[]), 0.0);
    assert_eq!(sidecar.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn long_streams_and_tunnels_are_closed_at_the_deadline() {
    let backend = Backend::start(|peer| {
        let Some(head) = peer.read_head() else { return };
        if head.target() == "/chat" {
            peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi");
        } else {
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
        }
        peer.wait_end();
    });
    let mut sidecar = Sidecar::before(&backend).flag("--drain-grace", "0s").flag("--drain-timeout", "1s").start();
    let mut stream = sidecar.client();
    stream.send(GET);
    stream.read_head();
    assert_eq!(stream.wire.read_chunk().unwrap(), b"data: 1\n\n");
    let mut tunnel = sidecar.client();
    tunnel.send("GET /chat HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    tunnel.read_head();
    assert_eq!(tunnel.wire.read_exact(2).unwrap(), b"hi");
    let start = Instant::now();
    sidecar.signal(libc::SIGTERM);
    draining(&sidecar);
    assert_eq!(sidecar.wait_exit(Duration::from_secs(5)).code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(900), "streams have until the deadline");
    assert!(stream.wire.read_chunk().is_err(), "no end of the stream is invented");
    wait_until("the backend sees both ends", || backend.end(0).is_some() && backend.end(1).is_some());
}

// --- WebSockets ---

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
/// Close, 1001, from a server.
const CLOSE: &[u8] = &[0x88, 2, 0x03, 0xe9];
/// The same from a client, by the key 0.
const MASKED_CLOSE: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

fn ask_for(protocol: &str) -> String {
    format!("GET /chat HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\r\n")
}

/// What the backend got through the tunnel.
fn through(backend: &Backend) -> Vec<u8> {
    let raw = backend.raw(0);
    let head = raw.windows(4).position(|end| end == b"\r\n\r\n").map_or(raw.len(), |at| at + 4);
    raw[head..].to_vec()
}

/// Whether this is a Close, 1001, as a client masks it.
fn is_masked_close(frame: &[u8]) -> bool {
    frame.len() == 8 && frame[..2] == MASKED_CLOSE[..2] && [frame[2] ^ frame[6], frame[3] ^ frame[7]] == [0x03, 0xe9]
}

#[test]
fn a_drain_closes_a_websocket_between_two_frames_of_each_way() {
    let gate = Gate::new();
    let opened = gate.clone();
    let backend = Backend::start(move |peer| {
        if peer.read_head().is_none() {
            return;
        }
        // A fragment, and a part of the next.
        peer.send([SWITCHING.as_bytes(), &[0x01, 2, b'h', b'a', 0x00, 3, b'l']].concat());
        let _half = peer.wire.read_exact(8);
        opened.wait();
        // Its rest, and a message that comes too late.
        peer.send([b"f!".as_slice(), &[0x80, 4], b"late"].concat());
        let _rest_and_close = peer.wire.read_exact(10);
        peer.send(CLOSE);
        peer.wait_end();
    });
    let mut sidecar =
        Sidecar::before(&backend).yaml("drain:\n  grace: 0s\n  timeout: 60s\n  last_scrape: 20s\n").start();
    let mut client = sidecar.client();
    client.send(ask_for("websocket")).send([0x81, 0x84, 0, 0, 0, 0, b'p', b'i']);
    assert_eq!(client.read_head().status(), 101);
    assert_eq!(client.wire.read_exact(7).unwrap(), [0x01, 2, b'h', b'a', 0x00, 3, b'l']);
    wait_until("half a frame is at the backend", || through(&backend).len() == 8);
    sidecar.signal(libc::SIGTERM);
    draining(&sidecar);
    assert_eq!(client.peek_for(Duration::from_millis(300)), b"", "nothing is put into a frame");
    assert_eq!(through(&backend).len(), 8, "nor into that of the other way");
    assert!(sidecar.try_exit().is_none());

    let start = Instant::now();
    gate.open();
    // The rest of the message, and one that comes too late.
    client.send([b'n', b'g', 0x82, 0x81, 0, 0, 0, 0, b'!']);
    assert_eq!(client.wire.read_exact(6).unwrap(), [b"f!", CLOSE].concat());
    wait_until("the backend is told", || through(&backend).len() >= 18);
    client.send(MASKED_CLOSE);
    client.expect_end();
    let mut last = None;
    wait_until("the process ends after its last scrape", || {
        last = sidecar.try_scrape().or(last.take());
        sidecar.try_exit().is_some()
    });
    assert!(start.elapsed() < Duration::from_millis(1_900), "it took {:?}", start.elapsed());
    assert_eq!(sidecar.wait_exit(PATIENCE).code(), Some(0));
    let got = through(&backend);
    assert_eq!(&got[8..10], b"ng");
    assert!(is_masked_close(&got[10..]), "{got:?}");
    let page = last.expect("a page");
    assert_eq!(page.sum("golden_upgraded_connections", &[]), 0.0);
    let bytes = |direction| page.sum("golden_upgraded_bytes_total", &[("direction", direction)]);
    assert_eq!((bytes("sent"), bytes("received")), (10.0, 9.0), "what passed from one end to the other");
    assert_eq!(page.sum("golden_upstream_connections_closed_total", &[("reason", "drain")]), 1.0);
    assert_eq!(page.sum("golden_server_connections_closed_total", &[("reason", "drain")]), 1.0);
    assert_eq!(page.sum("golden_errors_total", &[]), 0.0);
}

#[test]
fn an_end_that_does_not_answer_a_close_holds_the_drain_for_two_seconds() {
    let backend = Backend::start(|peer| {
        if peer.read_head().is_some() && peer.send(SWITCHING) {
            peer.wait_end();
        }
    });
    let mut sidecar = Sidecar::before(&backend).flag("--drain-grace", "0s").flag("--drain-timeout", "60s").start();
    let mut client = sidecar.client();
    client.send(ask_for("websocket"));
    assert_eq!(client.read_head().status(), 101);
    let start = Instant::now();
    sidecar.signal(libc::SIGTERM);
    assert_eq!(client.wire.read_exact(4).unwrap(), CLOSE);
    wait_until("the backend is told", || is_masked_close(&through(&backend)));
    assert_eq!(sidecar.wait_exit(Duration::from_secs(5)).code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(1_900), "it took {:?}", start.elapsed());
    client.expect_end();
}

#[test]
fn what_cannot_be_closed_politely_has_until_the_deadline() {
    // Another protocol; and a frame that is never whole, either way.
    let cases: [(&'static str, &'static [u8], &'static [u8]); 3] = [
        ("chat", &[0x81, 1, b'a'], &[0x81, 0x81, 0, 0, 0, 0, b'a']),
        ("websocket", &[0x81, 2, b'a'], &[0x81, 0x82, 0, 0, 0, 0, b'a']),
        ("websocket", b"HELO", b"EHLO"),
    ];
    thread::scope(|scope| {
        for (protocol, down, up) in cases {
            scope.spawn(move || {
                let backend = Backend::start(move |peer| {
                    if peer.read_head().is_some() {
                        let switching = SWITCHING.replace("websocket", protocol);
                        peer.send([switching.as_bytes(), down].concat());
                        peer.wait_end();
                    }
                });
                let mut sidecar =
                    Sidecar::before(&backend).flag("--drain-grace", "0s").flag("--drain-timeout", "1s").start();
                let mut client = sidecar.client();
                client.send(ask_for(protocol)).send(up);
                assert_eq!(client.read_head().status(), 101);
                assert_eq!(client.wire.read_exact(down.len()).unwrap(), down);
                wait_until("the backend has its part", || through(&backend) == up);
                let start = Instant::now();
                sidecar.signal(libc::SIGTERM);
                assert_eq!(client.wire.read_to_end().unwrap_or_default(), b"", "{protocol}");
                assert!(start.elapsed() >= Duration::from_millis(900), "{protocol}: {:?}", start.elapsed());
                assert_eq!(sidecar.wait_exit(Duration::from_secs(5)).code(), Some(0));
                assert_eq!(through(&backend), up, "{protocol}");
            });
        }
    });
}

#[test]
fn ends_that_are_closing_already_are_left_alone_in_a_drain() {
    let gate = Gate::new();
    let opened = gate.clone();
    let normal = [0x88, 2, 0x03, 0xe8];
    let backend = Backend::start(move |peer| {
        if peer.read_head().is_some() && peer.send(SWITCHING) {
            let _close = peer.wire.read_exact(8);
            opened.wait();
            peer.send([[0x81, 1, b'a', 0x88].as_slice(), &normal[1..]].concat());
        }
    });
    let mut sidecar = Sidecar::before(&backend).flag("--drain-grace", "0s").flag("--drain-timeout", "60s").start();
    let mut client = sidecar.client();
    client.send(ask_for("websocket"));
    assert_eq!(client.read_head().status(), 101);
    client.send([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]);
    wait_until("the backend has the Close", || through(&backend).len() == 8);
    sidecar.signal(libc::SIGTERM);
    draining(&sidecar);
    assert_eq!(client.peek_for(Duration::from_millis(200)), b"");
    gate.open();
    assert_eq!(client.wire.read_exact(7).unwrap(), [[0x81, 1, b'a'].as_slice(), &normal].concat());
    assert_eq!(sidecar.wait_exit(Duration::from_secs(5)).code(), Some(0));
    assert_eq!(through(&backend).len(), 8);
}

#[test]
fn a_websocket_that_opens_in_a_drain_is_closed_at_once() {
    let gate = Gate::new();
    let opened = gate.clone();
    let backend = Backend::start(move |peer| {
        if peer.read_head().is_some() {
            opened.wait();
            peer.send(SWITCHING);
            peer.wait_end();
        }
    });
    let mut sidecar = Sidecar::before(&backend).flag("--drain-grace", "0s").flag("--drain-timeout", "60s").start();
    let mut client = sidecar.client();
    client.send(ask_for("websocket"));
    wait_until("the request is at the backend", || backend.connections() == 1 && !backend.raw(0).is_empty());
    sidecar.signal(libc::SIGTERM);
    wait_until("the proxy port is closed", || Client::try_to(sidecar.proxy).is_err());
    gate.open();
    assert_eq!(client.read_head().status(), 101);
    assert_eq!(client.wire.read_exact(4).unwrap(), CLOSE);
    // Leaving is an answer, too.
    drop(client);
    wait_until("the backend is told", || is_masked_close(&through(&backend)));
    assert_eq!(sidecar.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn metrics_stay_for_one_last_scrape() {
    let backend = Backend::always("ok");
    let mut sidecar = Sidecar::before(&backend).yaml("drain:\n  grace: 0s\n  last_scrape: 30s\n").start();
    assert_eq!(sidecar.get("/").status(), 200);
    let start = Instant::now();
    sidecar.signal(libc::SIGTERM);
    wait_until("the proxy port is closed", || Client::try_to(sidecar.proxy).is_err());
    assert!(!wait_for(Duration::from_millis(300), || sidecar.try_exit().is_some()), "gone before its last scrape");
    let page = sidecar.scrape();
    assert_eq!(page.sum("golden_requests_total", &[]), 1.0);
    assert_eq!(sidecar.wait_exit(Duration::from_secs(5)).code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn metrics_answer_during_the_whole_drain() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let mut sidecar = Sidecar::before(&backend).flag("--drain-grace", "1s").flag("--drain-timeout", "2s").start();
    let mut client = sidecar.client();
    client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request is at the backend", || backend.requests().len() == 1);
    let start = Instant::now();
    sidecar.signal(libc::SIGTERM);
    // 2.5 s: into the middle of the drain, clear of the deadline at 3 s.
    while start.elapsed() < Duration::from_millis(2_500) {
        assert_eq!(sidecar.scrape().value("golden_inflight_requests", &[("http_route", "_unmatched")]), 1.0);
    }
    assert_eq!(sidecar.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn a_second_signal_stops_at_once() {
    let gate = Gate::new();
    let backend = holding(&gate);
    for grace in ["0s", "60s"] {
        let mut sidecar = Sidecar::before(&backend).flag("--drain-grace", grace).flag("--drain-timeout", "60s").start();
        let mut client = sidecar.client();
        let before = backend.requests().len();
        client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
        wait_until("the request is at the backend", || backend.requests().len() == before + 1);
        sidecar.signal(libc::SIGTERM);
        draining(&sidecar);
        assert!(sidecar.try_exit().is_none());
        sidecar.signal(libc::SIGTERM);
        sidecar.wait_exit(Duration::from_secs(2));
    }
}

#[test]
fn http2_streams_in_flight_complete_during_the_drain() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let mut sidecar = Sidecar::before(&backend).flag("--drain-grace", "0s").flag("--drain-timeout", "60s").start();
    h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        let (response, _) = h2c::send(&client, h2c::request("GET", "/hold"), true).await;
        h2c::until("the request is at the backend", || backend.requests().len() == 1).await;
        sidecar.signal(libc::SIGTERM);
        h2c::until("draining", || sidecar.scrape().get("golden_draining", &[]) == Some(1.0)).await;
        gate.open();
        let mut body = response.await.expect("a response").into_body();
        assert_eq!(h2c::read_all(&mut body).await.expect("a body").0, b"whole");
        // GOAWAY: the connection takes no more, and ends by itself.
        h2c::until("the process ends", || sidecar.try_exit().is_some()).await;
    });
    assert_eq!(sidecar.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_drain_under_load_fails_no_request_that_was_accepted() {
    let backend = Backend::always("ok");
    let mut sidecar = Sidecar::before(&backend).workers(2).flag("--drain-grace", "1s").start();
    let proxy = sidecar.proxy;
    let (answered, cut, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let on_failure = StopOnDrop(&stop);
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    // Keeps its connection until told to close, then comes again, until nobody accepts.
                    while let (false, Ok(mut client)) = (stop.load(Ordering::SeqCst), Client::try_to(proxy)) {
                        let mut on_this = 0;
                        while !stop.load(Ordering::SeqCst) && client.try_send(GET).is_ok() {
                            match client.wire.read_head() {
                                Ok(Some(head)) => {
                                    let close = head.has_token("connection", "close");
                                    let answer = client.read_body("GET", head);
                                    assert!(answer.status() == 200 && answer.body.complete, "{answer:?}");
                                    answered.fetch_add(1, Ordering::SeqCst);
                                    on_this += 1;
                                    if close {
                                        break;
                                    }
                                }
                                // Closed between two requests without `Connection: close`: the race that HTTP/1.1 has,
                                // and a client may repeat the request. Closed before the first: never accepted.
                                Ok(None) => break,
                                Err(error) => {
                                    if on_this > 0 {
                                        cut.fetch_add(1, Ordering::SeqCst);
                                        eprintln!("cut: {error}");
                                    }
                                    break;
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        wait_until("the load runs", || answered.load(Ordering::SeqCst) > 100);
        sidecar.signal(libc::SIGTERM);
        for client in clients {
            client.join().unwrap();
        }
        drop(on_failure);
    });
    assert_eq!(cut.load(Ordering::SeqCst), 0, "of {} requests", answered.load(Ordering::SeqCst));
    assert_eq!(sidecar.wait_exit(PATIENCE).code(), Some(0));
}

// --- reload ---

#[test]
fn a_reload_under_load_loses_no_request_and_no_count() {
    let backend = Backend::always("ok");
    let one = "routes:\n  - path: /one\n";
    let both = "routes:\n  - path: /one\n  - path: /two\nlimits:\n  inflight: 500\n";
    let sidecar = Sidecar::before(&backend).workers(2).yaml(one).start();
    let stop = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for kind in 0..4 {
            let (sidecar, stop, sent) = (&sidecar, &stop, &sent);
            scope.spawn(move || {
                let mut client = sidecar.client();
                while !stop.load(Ordering::SeqCst) {
                    if kind == 0 {
                        client = sidecar.client();
                    }
                    for path in ["/one", "/two"] {
                        assert_eq!(client.get(path).status(), 200);
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        for round in 1..=6 {
            let before = sent.load(Ordering::SeqCst);
            sidecar.rewrite(if round % 2 == 1 { both } else { one });
            sidecar.signal(libc::SIGHUP);
            let page = sidecar.page_when("the reload is counted", |page| {
                page.sum("golden_config_reloads_total", &[("result", "success")]) == f64::from(round)
            });
            assert!(page.sum("golden_requests_total", &[]) >= before as f64 - 4.0, "a counter went back");
            wait_until("traffic goes on", || sent.load(Ordering::SeqCst) > before + 20);
        }
    });
    let sent = sent.load(Ordering::SeqCst);
    let page = sidecar.settled(sent);
    assert_eq!(page.sum("golden_requests_total", &[("http_route", "/one")]), sent as f64 / 2.0);
    assert!(
        page.sum("golden_requests_total", &[("http_route", "/two")]) > 0.0,
        "what was counted stays, without its route"
    );
    assert_eq!(page.sum("golden_requests_total", &[("http_response_status_code", "200")]), sent as f64);
    assert_eq!(page.value("golden_config_last_reload_successful", &[]), 1.0);
}

#[test]
fn a_reload_changes_routes_and_limits() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let sidecar = Sidecar::before(&backend).yaml("routes:\n  - path: /old\n").start();
    sidecar.get("/new");
    let page = sidecar.settled(1);
    assert_eq!(page.sum("golden_requests_total", &[("http_route", "_unmatched")]), 1.0);
    assert!(!page.has("golden_inflight_limit", &[]));
    sidecar.rewrite("routes:\n  - path: /new\nlimits:\n  inflight: 1\n");
    sidecar.signal(libc::SIGHUP);
    sidecar.page_when("the new limit", |page| page.get("golden_inflight_limit", &[]) == Some(1.0));
    sidecar.get("/new");
    sidecar.get("/old");
    let page = sidecar.settled(3);
    assert_eq!(page.sum("golden_requests_total", &[("http_route", "/new")]), 1.0);
    assert_eq!(page.sum("golden_requests_total", &[("http_route", "_unmatched")]), 2.0);
    let mut holder = sidecar.client();
    holder.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request is at the backend", || backend.requests().len() == 4);
    assert_eq!(sidecar.get("/new").status(), 503, "the new limit holds");
    gate.open();
    assert_eq!(holder.read_response("GET").status(), 200);
}

#[test]
fn a_reload_can_move_to_another_backend_and_says_what_needs_a_restart() {
    let mut old = Backend::always("old");
    let new = Backend::always("new");
    let file = |backend: &Backend, edges: &str| format!("upstream: {}\nbuckets: [{edges}]\n", backend.url());
    let sidecar = Sidecar::configured(file(&old, "0.1")).start();
    let mut client = sidecar.client();
    assert_eq!(client.get("/").text(), "old");
    sidecar.rewrite(&file(&new, "0.2"));
    sidecar.signal(libc::SIGHUP);
    sidecar.page_when("the reload", |page| page.sum("golden_config_reloads_total", &[("result", "success")]) == 1.0);
    old.stop();
    // Also on a connection that was open before, whose backend connection was pooled.
    assert_eq!(client.get("/").text(), "new");
    wait_until("the probe asks the new backend", || sidecar.admin_get("/readyz", "").status() == 200);
    assert_eq!(sidecar.scrape().value("golden_backend_up", &[]), 1.0);
    let page = sidecar.admin_get("/", "").text();
    assert!(page.contains(&new.url()) && !page.contains(&old.url()), "{page}");
    let config: serde_json::Value =
        serde_json::from_str(&sidecar.admin_get("/api/v1/config", "").text()).expect("JSON");
    assert_eq!(config["buckets"], serde_json::json!([0.1]), "what is in force, not what was asked for");
    assert!(sidecar.logged("restart_needed") && sidecar.logged("buckets"), "{:#?}", sidecar.log());
}

#[test]
fn a_bad_file_keeps_the_old_configuration() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).yaml("routes:\n  - path: /kept\n").start();
    let start = sidecar.scrape().value("golden_config_last_reload_success_timestamp_seconds", &[]);
    for (round, bad) in ["routes: 7\n", "no_such_key: 1\n", ": : :\n\t", "timeouts:\n  head: soon\n"].iter().enumerate()
    {
        sidecar.rewrite(bad);
        sidecar.signal(libc::SIGHUP);
        let page = sidecar.page_when("the failure is counted", |page| {
            page.sum("golden_config_reloads_total", &[("result", "failure")]) == (round + 1) as f64
        });
        assert_eq!(page.value("golden_config_last_reload_successful", &[]), 0.0);
        assert_eq!(page.value("golden_config_last_reload_success_timestamp_seconds", &[]), start);
        assert_eq!(sidecar.get("/kept").status(), 200);
        let page = sidecar.settled(round + 1);
        assert_eq!(page.sum("golden_requests_total", &[("http_route", "/kept")]), (round + 1) as f64, "{bad:?}");
    }
    assert!(sidecar.logged("no_such_key"), "the log names the mistake: {:#?}", sidecar.log());
    sidecar.rewrite("routes:\n  - path: /kept\n");
    sidecar.signal(libc::SIGHUP);
    let page =
        sidecar.page_when("success again", |page| page.get("golden_config_last_reload_successful", &[]) == Some(1.0));
    assert_eq!(page.sum("golden_config_reloads_total", &[("result", "success")]), 1.0);
    assert_eq!(page.sum("golden_requests_total", &[("http_route", "/kept")]), 4.0, "a reload resets nothing");
}

#[test]
fn a_request_that_runs_across_a_reload_ends_as_it_began() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let sidecar = Sidecar::before(&backend).yaml("routes:\n  - path: /hold\n").start();
    let mut client = sidecar.client();
    client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request is at the backend", || backend.requests().len() == 1);
    sidecar.rewrite("routes:\n  - path: /other\n");
    sidecar.signal(libc::SIGHUP);
    sidecar.page_when("the reload is counted", |page| page.sum("golden_config_reloads_total", &[]) == 1.0);
    gate.open();
    assert_eq!(client.read_response("GET").text(), "whole");
    sidecar.expect(&[Outcome { route: "/hold", ..Outcome::backend("GET", "200") }]);
}
