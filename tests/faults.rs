//! What goes wrong, on either side: the client gets an answer that says so, or a cut that it can see, and every family
//! tells the same story. Each test ends by comparing the whole page with what happened.

mod common;

use std::io::Write;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use common::backend::Unreachable;
use common::wire::{Framing, find};
use common::{Backend, End, Gate, Outcome, PATIENCE, Sidecar, h2c, ok, wait_for, wait_until};

/// Short enough for a test, long enough for a loaded machine to answer an honest request in time.
const SHORT: &str = "300ms";
const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// The usual failure of a backend: one GET, one answer of the sidecar.
#[track_caller]
fn expect_failure(sidecar: &Sidecar, status: &'static str, word: &'static str, phase: &'static str) -> String {
    let answer = sidecar.exchange(GET);
    assert_eq!(answer.status().to_string(), status, "{}", answer.text());
    let registered = answer.proxy_made(word).unwrap();
    sidecar.expect(&[Outcome::proxy("GET", status, (word, "backend", phase))]);
    registered
}

// --- the backend does not answer properly ---

#[test]
fn a_refused_connect_is_502_connect_refused_and_ends_when_the_backend_is_back() {
    let mut backend = Backend::always("ok");
    let address = backend.address;
    let sidecar = Sidecar::start(&backend);
    backend.stop();
    assert_eq!(expect_failure(&sidecar, "502", "connect_refused", "connect"), "connection_refused");
    let _backend = Backend::start_at(address, |peer| {
        while peer.read_request().is_some() {
            peer.send(ok("back"));
        }
    });
    assert_eq!(sidecar.get("/").text(), "back", "the very next request succeeds");
}

#[test]
fn a_connect_that_is_never_answered_is_504_connect_timeout() {
    let unreachable = Unreachable::new();
    let sidecar = Sidecar::upstream(format!("http://{}", unreachable.address))
        .yaml(format!("timeouts:\n  connect: {SHORT}\n"))
        .start();
    assert_eq!(expect_failure(&sidecar, "504", "connect_timeout", "connect"), "connection_timeout");
}

#[test]
fn a_backend_that_resets_at_once_is_502() {
    let backend = Backend::on_accept(|peer| peer.reset());
    let sidecar = Sidecar::start(&backend);
    let answer = sidecar.exchange(GET);
    assert_eq!(answer.status(), 502, "{}", answer.text());
    // Whether the reset is met while connecting, while writing or while waiting is a race in the kernel.
    let page = sidecar.settled(1);
    let errors = page.nonzero("golden_errors_total");
    assert_eq!(errors.len(), 1, "{errors:?}");
    let label = |name: &str| errors[0].labels[name].as_str();
    assert!(["connect_reset", "reset_before_head"].contains(&label("error_type")), "{errors:?}");
    assert!(["connect", "send", "wait"].contains(&label("phase")), "{errors:?}");
    assert_eq!(label("fault"), "backend");
    answer.proxy_made(label("error_type")).unwrap();
}

#[test]
fn a_backend_that_resets_after_reading_is_502_reset_before_head() {
    let backend = Backend::start(|peer| {
        peer.read_request();
        peer.reset();
    });
    let sidecar = Sidecar::start(&backend);
    expect_failure(&sidecar, "502", "reset_before_head", "wait");
    assert_eq!(backend.requests().len(), 1, "a request that was read is not sent again");
}

#[test]
fn a_backend_that_closes_after_reading_is_502_reset_before_head() {
    let backend = Backend::start(|peer| {
        peer.read_request();
    });
    let sidecar = Sidecar::start(&backend);
    expect_failure(&sidecar, "502", "reset_before_head", "wait");
    assert_eq!(backend.requests().len(), 1, "a request that was read is not sent again");
}

#[test]
fn half_a_response_head_is_502() {
    let backend = Backend::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Le");
    });
    let sidecar = Sidecar::start(&backend);
    let answer = sidecar.exchange(GET);
    assert_eq!(answer.status(), 502);
    // It is cut before its end (reset_before_head) and it is no HTTP message (protocol_error): either is a true name.
    let page = sidecar.settled(1);
    let errors = page.nonzero("golden_errors_total");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(["reset_before_head", "protocol_error"].contains(&errors[0].labels["error_type"].as_str()), "{errors:?}");
    assert_eq!((errors[0].labels["fault"].as_str(), errors[0].labels["phase"].as_str()), ("backend", "wait"));
}

#[test]
fn garbage_is_502_protocol_error() {
    let backend = Backend::start(|peer| {
        peer.read_request();
        peer.send("\x01\x02this is no HTTP\r\n\r\n");
    });
    let sidecar = Sidecar::start(&backend);
    assert_eq!(expect_failure(&sidecar, "502", "protocol_error", "wait"), "http_protocol_error");
}

#[test]
fn a_giant_response_head_is_502_response_too_large() {
    let backend = Backend::start(|peer| {
        peer.read_request();
        peer.send(format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "x".repeat(200_000)));
        peer.wait_end();
    });
    let sidecar = Sidecar::start(&backend);
    expect_failure(&sidecar, "502", "response_too_large", "wait");
}

#[test]
fn a_silent_backend_is_504_head_timeout_and_is_let_go() {
    let backend = Backend::start(|peer| {
        peer.read_request();
        peer.wait_end();
    });
    let sidecar = Sidecar::before(&backend).yaml(format!("timeouts:\n  head: {SHORT}\n")).start();
    assert_eq!(expect_failure(&sidecar, "504", "head_timeout", "wait"), "http_response_timeout");
    wait_until("the backend's connection is dropped", || backend.end(0).is_some());
}

#[test]
fn half_a_head_and_then_silence_is_504_head_timeout() {
    let backend = Backend::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nX-A");
        peer.wait_end();
    });
    let sidecar = Sidecar::before(&backend).yaml(format!("timeouts:\n  head: {SHORT}\n")).start();
    expect_failure(&sidecar, "504", "head_timeout", "wait");
    wait_until("the backend's connection is dropped", || backend.end(0).is_some());
}

#[test]
fn an_interim_answer_does_not_stop_the_head_timeout() {
    let backend = Backend::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        peer.wait_end();
    });
    let sidecar = Sidecar::before(&backend).yaml(format!("timeouts:\n  head: {SHORT}\n")).start();
    let mut client = sidecar.client();
    client.send(GET);
    let mut head = client.read_head();
    if head.status() == 103 {
        let next = client.wire.read_head();
        let errors = || sidecar.scrape().lines_of("golden_errors_total");
        head = next.unwrap_or_else(|error| panic!("after the 103: {error}\n{}", errors())).expect("an answer");
    }
    assert_eq!(head.status(), 504);
    sidecar.expect(&[Outcome::proxy("GET", "504", ("head_timeout", "backend", "wait"))]);
}

#[test]
fn an_error_of_the_backend_itself_is_counted_as_its_own() {
    let backend =
        Backend::answering(|request| common::response(request.head.target()[1..].parse().unwrap(), "", "mine"));
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    for path in ["/500", "/503", "/404", "/429"] {
        let answer = client.get(path);
        assert_eq!(answer.text(), "mine");
        assert!(!answer.head.has("proxy-status"));
    }
    let page = sidecar.settled(4);
    for status in ["500", "503"] {
        let labels = [("error_type", status), ("fault", "backend")];
        assert_eq!(page.sum("golden_errors_total", &labels), 1.0, "{}", page.lines_of("golden_errors_total"));
        let labels = [("http_response_status_code", status), ("error_type", status)];
        assert_eq!(page.count("http_server_request_duration_seconds", &labels), 1.0);
    }
    assert_eq!(page.sum("golden_errors_total", &[]), 2.0, "a 4xx of the backend is no error");
    assert_eq!(page.sum("golden_requests_total", &[("origin", "backend")]), 4.0);
}

// --- the answer is cut ---

/// A GET whose answer is `bytes` and then FIN or RST, the latter once the client has `seen` what came before it: a reset
/// may overtake data.
#[track_caller]
fn expect_cut(bytes: &'static str, seen: &str, reset: bool) {
    let there = Gate::new();
    let backend = Backend::start({
        let there = there.clone();
        move |peer| {
            peer.read_request();
            peer.send(bytes);
            if reset {
                there.wait();
                peer.reset();
            }
        }
    });
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    client.send(GET);
    let head = client.read_head();
    wait_until("the first part has come", || {
        find(&client.peek_for(Duration::from_millis(10)), seen.as_bytes()).is_some()
    });
    there.open();
    let answer = client.read_body("GET", head);
    assert_eq!((answer.status(), answer.text().as_str()), (200, seen));
    assert!(!answer.body.complete, "the cut is invisible (reset: {reset})");
    sidecar.expect(&[Outcome::cut("GET", "200", "reset_after_head")]);
}

#[test]
fn an_answer_cut_before_its_length_is_visible_and_counted_as_truncated() {
    for reset in [false, true] {
        expect_cut("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!", "half!", reset);
    }
}

#[test]
fn a_chunked_answer_without_its_last_chunk_is_never_completed() {
    for reset in [false, true] {
        expect_cut("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "hello", reset);
    }
}

#[test]
fn an_answer_ended_by_reset_instead_of_close_is_cut() {
    expect_cut("HTTP/1.1 200 OK\r\n\r\nno length", "no length", true);
}

#[test]
fn a_bad_chunk_of_the_backend_cuts_the_answer() {
    for junk in ["XYZ\r\n", "fffffffffffffffffff\r\n", "-1\r\n"] {
        let seen = Gate::new();
        let backend = Backend::start({
            let seen = seen.clone();
            move |peer| {
                peer.read_request();
                peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
                // Once the head is with the client: before that, a 502 would be the better answer.
                seen.wait();
                peer.send(junk);
                peer.wait_end();
            }
        });
        let sidecar = Sidecar::start(&backend);
        let mut client = sidecar.client();
        client.send(GET);
        assert_eq!(client.read_head().status(), 200);
        assert_eq!(client.wire.read_chunk().unwrap(), b"hello");
        seen.open();
        assert!(client.wire.read_chunk().is_err(), "the cut is invisible");
        wait_until("the backend's connection is dropped", || backend.end(0).is_some());
        let page = sidecar.settled(1);
        let errors = page.nonzero("golden_errors_total");
        assert_eq!(errors.len(), 1);
        assert!(
            ["protocol_error", "reset_after_head"].contains(&errors[0].labels["error_type"].as_str()),
            "{errors:?}"
        );
        assert_eq!((errors[0].labels["fault"].as_str(), errors[0].labels["phase"].as_str()), ("backend", "body"));
        assert_eq!(page.sum("golden_truncated_responses_total", &[]), 1.0);
    }
}

#[test]
fn a_body_that_stalls_is_cut_as_body_timeout() {
    let backend = Backend::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!");
        peer.wait_end();
    });
    let sidecar = Sidecar::before(&backend).yaml(format!("timeouts:\n  body: {SHORT}\n")).start();
    let answer = sidecar.exchange(GET);
    assert_eq!((answer.status(), answer.text().as_str(), answer.body.complete), (200, "half!", false));
    wait_until("the backend's connection is dropped", || backend.end(0).is_some());
    sidecar.expect(&[Outcome::cut("GET", "200", "body_timeout")]);
}

#[test]
fn a_body_that_keeps_coming_slowly_is_not_a_stall() {
    let backend = Backend::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n");
        // Paced by a read that times out: 8 steps of 200 ms are four times the timeout, each step half of it.
        peer.wire.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        for _ in 0..8 {
            assert!(peer.wire.fill().is_err(), "the sidecar gave up");
            peer.send("x");
        }
    });
    let sidecar = Sidecar::before(&backend).yaml("timeouts:\n  body: 400ms\n").start();
    let answer = sidecar.exchange(GET);
    assert_eq!((answer.text().as_str(), answer.body.complete), ("xxxxxxxx", true));
    let page = sidecar.expect(&[Outcome::backend("GET", "200")]);
    assert!(page.sum("http_server_request_duration_seconds_sum", &[]) > 1.5, "it really took longer than the timeout");
}

#[test]
fn an_event_stream_may_be_silent_longer_than_the_body_timeout() {
    let speak = Gate::new();
    let backend = Backend::start({
        let speak = speak.clone();
        move |peer| {
            peer.read_request();
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
            speak.wait();
            peer.send("data: 2\n\n");
        }
    });
    let sidecar = Sidecar::before(&backend).yaml("timeouts:\n  body: 200ms\n").start();
    let mut client = sidecar.client();
    client.send(GET);
    client.read_head();
    assert_eq!(client.wire.read_chunk().unwrap(), b"data: 1\n\n");
    assert!(client.peek_for(Duration::from_millis(800)).is_empty());
    assert_eq!(client.wire.received.lock().unwrap().end, None, "the stream was cut");
    speak.open();
    assert_eq!(client.wire.read_chunk().unwrap(), b"data: 2\n\n");
}

// --- the client leaves ---

#[test]
fn a_client_that_leaves_before_the_head_cancels_its_request_at_once() {
    for reset in [false, true] {
        let backend = Backend::start(|peer| {
            peer.read_request();
            peer.wait_end();
        });
        let sidecar = Sidecar::start(&backend);
        let mut client = sidecar.client();
        client.send(GET);
        wait_until("the request is at the backend", || backend.requests().len() == 1);
        if reset {
            client.reset()
        } else {
            drop(client)
        }
        assert!(
            wait_for(Duration::from_secs(2), || backend.end(0).is_some()),
            "not cancelled at once (reset: {reset})"
        );
        let page = sidecar.expect(&[Outcome::aborted("GET", "", "before_head")]);
        assert_eq!(page.sum("golden_errors_total", &[]), 0.0, "an abort is not an error");
    }
}

#[test]
fn a_client_that_leaves_during_the_body_cancels_it() {
    for reset in [false, true] {
        let backend = Backend::start(|peer| {
            peer.read_request();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!");
            peer.wait_end();
        });
        let sidecar = Sidecar::start(&backend);
        let mut client = sidecar.client();
        client.send(GET);
        client.read_head();
        assert_eq!(client.wire.read_exact(5).unwrap(), b"half!");
        if reset {
            client.reset()
        } else {
            drop(client)
        }
        assert!(
            wait_for(Duration::from_secs(2), || backend.end(0).is_some()),
            "not cancelled at once (reset: {reset})"
        );
        sidecar.expect(&[Outcome::aborted("GET", "200", "during_body")]);
    }
}

#[test]
fn a_client_that_leaves_during_a_fast_download_is_noticed() {
    let backend = Backend::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let block = vec![b'x'; 1 << 16];
        while peer.wire.stream.write_all(&block).is_ok() {}
    });
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    client.send(GET);
    client.read_head();
    client.wire.read_exact(100_000).unwrap();
    client.reset();
    sidecar.expect(&[Outcome::aborted("GET", "200", "during_body")]);
}

#[test]
fn a_client_that_leaves_during_its_upload_never_completes_it() {
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let backend = Backend::answering(|_| ok("never"));
        let sidecar = Sidecar::start(&backend);
        let mut client = sidecar.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n5\r\nhello\r\n"));
        wait_until("the first part is at the backend", || find(&backend.all_raw(), b"hello").is_some());
        drop(client);
        assert!(
            wait_for(Duration::from_secs(2), || backend.requests().len() == 1),
            "not cancelled at once ({framing})"
        );
        assert!(!backend.request().body.complete, "the upload was completed for the client ({framing})");
        sidecar.expect(&[Outcome::aborted("POST", "", "before_head")]);
    }
}

#[test]
fn a_half_closed_client_gets_its_answer_or_the_end() {
    let backend = Backend::always("answer");
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    client.send(GET).half_close();
    let all = client.wire.read_to_end().expect("an answer or the end, no hang");
    assert!(all.is_empty() || all.ends_with(b"answer"), "{:?}", String::from_utf8_lossy(&all));
    let page = sidecar.settled(1);
    let answered = page.sum("golden_requests_total", &[("http_response_status_code", "200"), ("origin", "backend")]);
    let aborted = page.sum("golden_client_aborts_total", &[]);
    assert_eq!((answered, aborted), if all.is_empty() { (0.0, 1.0) } else { (1.0, 0.0) });
}

#[test]
fn a_client_that_goes_away_between_requests_is_no_abort() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    for reset in [false, true] {
        let mut client = sidecar.client();
        assert_eq!(client.get("/").status(), 200);
        if reset { client.reset() } else { drop(client) }
    }
    sidecar.page_when("both are gone", |page| page.sum("golden_server_connections", &[]) == 0.0);
    sidecar.expect(&[Outcome::backend("GET", "200"); 2]);
}

#[test]
fn a_connection_that_brings_nothing_is_no_request() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    drop(sidecar.client());
    sidecar.client().reset();
    sidecar.page_when("both were accepted and are gone", |page| {
        page.sum("golden_server_connections_opened_total", &[]) == 2.0
            && page.sum("golden_server_connections", &[]) == 0.0
    });
    sidecar.expect(&[]);
}

// --- the client is slow ---

#[test]
fn a_slow_head_is_408_even_when_bytes_keep_coming() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).yaml(format!("timeouts:\n  client_head: {SHORT}\n")).start();
    let mut client = sidecar.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n");
    // A byte each 50 ms: silence is never long, the whole is. 5 s would be far too late.
    let mut steps = 0;
    while client.peek_for(Duration::from_millis(50)).is_empty() {
        steps += 1;
        assert!(steps < 100, "a head may take for ever");
        if client.try_send("x").is_err() {
            break;
        }
    }
    let answer = client.read_response("GET");
    assert_eq!(answer.status(), 408);
    answer.proxy_made("client_timeout").unwrap();
    assert!(answer.head.has_token("connection", "close"));
    assert_eq!(backend.connections(), 0);
    sidecar.expect(&[Outcome::proxy("_OTHER", "408", ("client_timeout", "client", "head"))]);
}

#[test]
fn a_slow_second_head_is_408_too() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).yaml(format!("timeouts:\n  client_head: {SHORT}\n")).start();
    let mut client = sidecar.client();
    assert_eq!(client.get("/").status(), 200);
    client.send("GET / HTT");
    assert_eq!(client.read_response("GET").status(), 408);
    client.expect_end();
    sidecar.expect(&[
        Outcome::backend("GET", "200"),
        Outcome::proxy("_OTHER", "408", ("client_timeout", "client", "head")),
    ]);
}

#[test]
fn a_stalled_upload_is_408_and_the_backend_is_let_go() {
    let backend = Backend::answering(|_| ok("never"));
    let sidecar = Sidecar::before(&backend).yaml(format!("timeouts:\n  client_body: {SHORT}\n")).start();
    let mut client = sidecar.client();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf!");
    let answer = client.read_response("POST");
    assert_eq!(answer.status(), 408);
    answer.proxy_made("client_timeout").unwrap();
    client.expect_end();
    wait_until("the upload is cut", || backend.requests().len() == 1);
    assert!(!backend.request().body.complete);
    sidecar.expect(&[Outcome::proxy("POST", "408", ("client_timeout", "client", "send"))]);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).yaml(format!("timeouts:\n  client_idle: {SHORT}\n")).start();
    let mut used = sidecar.client();
    assert_eq!(used.get("/").status(), 200);
    let mut fresh = sidecar.client();
    assert_eq!(used.expect_end(), End::Closed);
    assert_eq!(fresh.expect_end(), End::Closed, "one that never asked anything ends the same way");
    sidecar.expect(&[Outcome::backend("GET", "200")]);
    let closed = [("reason", "idle")];
    sidecar.page_when("both are counted", |page| page.value("golden_server_connections_closed_total", &closed) == 2.0);
}

#[test]
fn a_connection_that_rested_serves_again() {
    // Long enough for whatever an idle connection is turned into to save memory; far below the idle timeout.
    const REST: Duration = Duration::from_millis(1_500);
    let backend = Backend::answering(|request| ok(&request.body.content));
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    for body in ["one", "two"] {
        let request = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n{body}");
        assert_eq!(client.exchange(&request).text(), body);
        assert!(client.peek_for(REST).is_empty());
        assert_eq!(client.wire.received.lock().unwrap().end, None, "closed while resting");
    }
    // Awake again, with a head in two parts and the next request behind it.
    client.send("GET /a HTTP/1.1\r\nHo").send("st: test\r\n\r\nGET /b HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.read_response("GET").status(), 200);
    assert_eq!(client.read_response("GET").status(), 200);
    let page = sidecar.settled(4);
    assert_eq!(page.value("golden_server_connections_opened_total", &[]), 1.0);
    // The rest between two requests is no part of either.
    assert!(page.sum("http_server_request_duration_seconds_sum", &[]) < 1.0);
    assert!(page.sum("golden_time_to_first_byte_seconds_sum", &[]) < 1.0);
}

// --- the pool of backend connections ---

#[test]
fn the_connection_limit_holds_over_all_workers_and_starves_nobody() {
    let backend = Backend::answering(|_| ok("ok"));
    let sidecar = Sidecar::before(&backend).workers(2).flag("--upstream-connections", 1).start();
    let all_connected = Arc::new(Barrier::new(8));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (mut client, all_connected) = (sidecar.client(), Arc::clone(&all_connected));
            thread::spawn(move || {
                all_connected.wait();
                for _ in 0..10 {
                    assert_eq!(client.get("/").status(), 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every request is answered");
    }
    assert_eq!(backend.most_open(), 1, "more connections than the limit");
    let page = sidecar.expect(&[Outcome::backend("GET", "200"); 80]);
    assert_eq!(page.value("golden_upstream_pool_limit", &[]), 1.0);
    assert_eq!(page.value("golden_upstream_pool_waiting", &[]), 0.0);
    assert_eq!(page.value("golden_upstream_pool_timeouts_total", &[]), 0.0);
}

/// A backend that keeps requests for `/hold` until the gate opens.
fn holding(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::answering(move |request| {
        if request.head.target() == "/hold" {
            gate.wait();
        }
        ok(request.head.target())
    })
}

#[test]
fn a_request_that_waits_too_long_for_a_connection_is_503_queue_timeout() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let sidecar = Sidecar::before(&backend)
        .yaml(format!("timeouts:\n  pool_wait: {SHORT}\nlimits:\n  upstream_connections: 1\n"))
        .start();
    let mut holder = sidecar.client();
    holder.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the only connection is taken", || backend.requests().len() == 1);
    let answer = sidecar.get("/late");
    assert_eq!(answer.status(), 503);
    answer.proxy_made("queue_timeout").unwrap();
    gate.open();
    assert_eq!(holder.read_response("GET").text(), "/hold");
    assert_eq!(backend.requests().len(), 1, "the late one never reached the backend");
    let page = sidecar
        .expect(&[Outcome::proxy("GET", "503", ("queue_timeout", "proxy", "queue")), Outcome::backend("GET", "200")]);
    assert_eq!(page.value("golden_upstream_pool_timeouts_total", &[]), 1.0);
    assert_eq!(page.value("golden_upstream_pool_waiting", &[]), 0.0);
}

#[test]
fn a_full_waiting_queue_is_503_no_capacity_at_once() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let sidecar = Sidecar::before(&backend).yaml("limits:\n  upstream_connections: 1\n  upstream_waiting: 1\n").start();
    let mut holder = sidecar.client();
    holder.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the only connection is taken", || backend.requests().len() == 1);
    let mut waiter = sidecar.client();
    waiter.send("GET /waited HTTP/1.1\r\nHost: test\r\n\r\n");
    sidecar.page_when("one waits", |page| page.get("golden_upstream_pool_waiting", &[]) == Some(1.0));
    let answer = sidecar.get("/late");
    assert_eq!(answer.status(), 503);
    answer.proxy_made("no_capacity").unwrap();
    gate.open();
    assert_eq!(holder.read_response("GET").text(), "/hold");
    assert_eq!(waiter.read_response("GET").text(), "/waited");
    sidecar.expect(&[
        Outcome::proxy("GET", "503", ("no_capacity", "proxy", "queue")),
        Outcome::backend("GET", "200"),
        Outcome::backend("GET", "200"),
    ]);
}

#[test]
fn a_client_that_leaves_while_waiting_for_a_connection_frees_its_place() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let sidecar = Sidecar::before(&backend).yaml("limits:\n  upstream_connections: 1\n").start();
    let mut holder = sidecar.client();
    holder.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the only connection is taken", || backend.requests().len() == 1);
    let mut waiter = sidecar.client();
    waiter.send(GET);
    sidecar.page_when("one waits", |page| page.get("golden_upstream_pool_waiting", &[]) == Some(1.0));
    drop(waiter);
    sidecar.page_when("nobody waits", |page| page.get("golden_upstream_pool_waiting", &[]) == Some(0.0));
    gate.open();
    assert_eq!(holder.read_response("GET").text(), "/hold");
    sidecar.expect(&[Outcome::aborted("GET", "", "before_head"), Outcome::backend("GET", "200")]);
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn the_connection_used_last_is_used_first() {
    let gates = [Gate::new(), Gate::new()];
    let backend = Backend::answering({
        let gates = gates.clone();
        move |request| {
            match request.head.target() {
                "/a" => gates[0].wait(),
                "/b" => gates[1].wait(),
                _ => {}
            }
            ok("")
        }
    });
    let sidecar = Sidecar::start(&backend);
    let (mut a, mut b) = (sidecar.client(), sidecar.client());
    let idle = |count: f64| {
        sidecar.page_when("connections become idle", |page| {
            page.get("http_client_open_connections", &[("http_connection_state", "idle")]) == Some(count)
        })
    };
    a.send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n");
    b.send("GET /b HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("both are at the backend", || backend.requests().len() == 2);
    for (first, second, last_target) in [(0, 1, "/b")] {
        gates[first].open();
        a.read_response("GET");
        idle(1.0);
        gates[second].open();
        b.read_response("GET");
        idle(2.0);
        let last = backend.requests().iter().find(|r| r.head.target() == last_target).unwrap().connection;
        for _ in 0..5 {
            assert_eq!(a.get("/next").status(), 200);
        }
        assert!(backend.requests().iter().filter(|r| r.head.target() == "/next").all(|r| r.connection == last));
    }
    assert_eq!(backend.connections(), 2);
}

#[test]
fn a_pooled_connection_that_nothing_uses_is_closed() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).yaml(format!("timeouts:\n  upstream_idle: {SHORT}\n")).start();
    let mut client = sidecar.client();
    assert_eq!(client.get("/").status(), 200);
    wait_until("the backend sees the end", || backend.end(0).is_some());
    let page = sidecar.page_when("the reason is counted", |page| {
        page.sum("golden_upstream_connections_closed_total", &[("reason", "idle")]) == 1.0
    });
    assert_eq!(page.sum("golden_upstream_connections_closed_total", &[]), 1.0);
    assert_eq!(page.sum("http_client_open_connections", &[]), 0.0);
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(backend.connections(), 2);
}

#[test]
fn a_pooled_connection_that_is_too_old_is_replaced_between_requests() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).yaml(format!("timeouts:\n  upstream_age: {SHORT}\n")).start();
    let mut client = sidecar.client();
    let replaced = wait_for(PATIENCE, || {
        assert_eq!(client.get("/").status(), 200, "no request pays for it");
        backend.connections() >= 3
    });
    assert!(replaced, "one connection is used for ever");
    let page = sidecar.page_when("the reason is counted", |page| {
        page.sum("golden_upstream_connections_closed_total", &[("reason", "max_age")]) >= 2.0
    });
    let closed = page.sum("golden_upstream_connections_closed_total", &[]);
    let open = page.sum("http_client_open_connections", &[]);
    assert_eq!(page.sum("golden_upstream_connections_opened_total", &[]), closed + open);
}

#[test]
fn a_pooled_connection_that_the_backend_closes_is_counted_as_the_peers() {
    let close = Gate::new();
    let backend = Backend::start({
        let close = close.clone();
        move |peer| {
            if peer.read_request().is_some() {
                peer.send(ok("ok"));
                close.wait();
            }
        }
    });
    let sidecar = Sidecar::start(&backend);
    assert_eq!(sidecar.get("/").status(), 200);
    close.open();
    sidecar.page_when("the reason is counted", |page| {
        page.sum("golden_upstream_connections_closed_total", &[("reason", "peer")]) == 1.0
            && page.sum("http_client_open_connections", &[]) == 0.0
    });
}

const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

/// Ends each connection after one answer without saying so: the sidecar pools it and meets its end later.
fn closing_after_each_answer() -> Backend {
    Backend::start(|peer| {
        if peer.read_request().is_some() {
            peer.send(ok("ok"));
        }
    })
}

#[test]
fn no_request_fails_when_the_backend_closes_after_each_answer() {
    for request in [GET, POST, CHUNKED] {
        let backend = closing_after_each_answer();
        let sidecar = Sidecar::start(&backend);
        let mut client = sidecar.client();
        for number in 1..=40 {
            let answer = client.exchange(request);
            assert_eq!(answer.status(), 200, "request {number} of 40: {request:?}: {}", answer.text());
            // The end has reached the sidecar's socket before the next request is made.
            wait_until("the backend has closed", || backend.open() == 0 && backend.every_end_is_delivered());
        }
        assert_eq!(backend.requests().len(), 40, "each was delivered exactly once");
        let method = if request == GET { "GET" } else { "POST" };
        let page = sidecar.expect(&[Outcome::backend(method, "200"); 40]);
        assert_eq!(page.sum("golden_upstream_retries_total", &[("result", "failure")]), 0.0);
    }
}

#[test]
fn a_race_with_the_backends_close_delivers_each_request_at_most_once_and_is_told_truly() {
    // Here the close and the next request cross each other, and nobody can always know whether it was read.
    for request in [GET, POST, CHUNKED] {
        let backend = closing_after_each_answer();
        let sidecar = Sidecar::start(&backend);
        let mut client = sidecar.client();
        let mut good = 0;
        for _ in 0..200 {
            let answer = client.exchange(request);
            match answer.status() {
                200 => good += 1,
                502 => drop(answer.proxy_made("reset_before_head").unwrap()),
                other => panic!("{other} {}", answer.text()),
            }
        }
        assert_eq!(backend.requests().len(), good, "one delivery for each answer");
        let method = if request == GET { "GET" } else { "POST" };
        let page = sidecar.settled(200);
        let bad = page.sum("golden_requests_total", &[("http_response_status_code", "502"), ("origin", "proxy")]);
        let labels = [("http_request_method", method), ("origin", "backend")];
        assert_eq!(page.sum("golden_requests_total", &labels), good as f64);
        assert_eq!(bad, (200 - good) as f64);
        assert_eq!(page.sum("golden_errors_total", &[("error_type", "reset_before_head"), ("fault", "backend")]), bad);
    }
}

#[test]
fn a_request_that_was_written_to_a_connection_that_then_ended_is_delivered_once() {
    for (request, method) in [(POST, "POST"), (GET, "GET"), ("DELETE / HTTP/1.1\r\nHost: test\r\n\r\n", "DELETE")] {
        // Each connection answers its first request and ends after reading the second.
        let backend = Backend::start(|peer| {
            if peer.read_request().is_some() {
                peer.send(ok("first"));
                peer.read_request();
            }
        });
        let sidecar = Sidecar::start(&backend);
        let mut client = sidecar.client();
        assert_eq!(client.exchange(request).text(), "first");
        let answer = client.exchange(request);
        assert_eq!(answer.status(), 502, "{method}: the backend read it, so it may have acted on it");
        answer.proxy_made("reset_before_head").unwrap();
        assert_eq!(backend.requests().len(), 2, "{method} was delivered twice");
        let page = sidecar.expect(&[
            Outcome::backend(method, "200"),
            Outcome::proxy(method, "502", ("reset_before_head", "backend", "wait")),
        ]);
        assert_eq!(page.sum("golden_upstream_retries_total", &[]), 0.0);
    }
}

// --- the sidecar's own limits ---

#[test]
fn connections_above_the_limit_wait_or_are_turned_away_but_never_served() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).yaml("limits:\n  connections: 2\n").start();
    let (mut one, mut two) = (sidecar.client(), sidecar.client());
    assert_eq!(one.get("/").status(), 200);
    assert_eq!(two.get("/").status(), 200);
    let page = sidecar.scrape();
    assert_eq!(page.value("golden_server_connections_limit", &[]), 2.0);
    assert_eq!(page.sum("golden_server_connections", &[]), 2.0);
    assert_eq!(page.value("golden_saturation_ratio", &[("resource", "server_connections")]), 1.0);
    let mut three = sidecar.client();
    let _ = three.try_send("GET /three HTTP/1.1\r\nHost: test\r\n\r\n");
    let got = three.peek_for(Duration::from_millis(500));
    assert!(got.is_empty() || got.starts_with(b"HTTP/1.1 503 "), "{:?}", String::from_utf8_lossy(&got));
    assert!(backend.requests().iter().all(|request| request.head.target() != "/three"), "the limit was passed");
    assert_eq!(sidecar.scrape().sum("golden_server_connections", &[]), 2.0);
    assert_eq!(one.get("/").status(), 200, "those inside are still served");
    drop(two);
    wait_until("a place becomes free", || {
        let Ok(mut client) = common::Client::try_to(sidecar.proxy) else { return false };
        client.try_send(GET).is_ok() && matches!(client.wire.read_head(), Ok(Some(head)) if head.status() == 200)
    });
}

#[test]
fn requests_above_the_concurrency_limit_are_shed() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let sidecar = Sidecar::before(&backend).workers(2).yaml("limits:\n  inflight: 2\n").start();
    let mut holders = [sidecar.client(), sidecar.client()];
    for holder in &mut holders {
        holder.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    wait_until("both are at the backend", || backend.requests().len() == 2);
    let page = sidecar.scrape();
    assert_eq!(page.value("golden_inflight_limit", &[]), 2.0);
    assert_eq!(page.value("golden_saturation_ratio", &[("resource", "inflight")]), 1.0);
    for _ in 0..3 {
        let answer = sidecar.get("/late");
        assert_eq!(answer.status(), 503);
        answer.proxy_made("shed").unwrap();
        let retry_after = answer.head.one("retry-after").expect("Retry-After");
        assert!(retry_after.parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{retry_after}");
    }
    gate.open();
    for holder in &mut holders {
        assert_eq!(holder.read_response("GET").text(), "/hold");
    }
    // The catalogue does not say which phase sheds; it is before any connection.
    let shed = Outcome::proxy("GET", "503", ("shed", "policy", "head|queue"));
    sidecar.expect(&[shed, shed, shed, Outcome::backend("GET", "200"), Outcome::backend("GET", "200")]);
    assert_eq!(sidecar.get("/after").status(), 200, "the limit counts what runs, not what ran");
}

#[test]
fn a_shed_keep_alive_connection_goes_on() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let sidecar = Sidecar::before(&backend).yaml("limits:\n  inflight: 1\n").start();
    let mut holder = sidecar.client();
    holder.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("it is at the backend", || backend.requests().len() == 1);
    let mut client = sidecar.client();
    assert_eq!(client.get("/late").status(), 503);
    gate.open();
    assert_eq!(holder.read_response("GET").text(), "/hold");
    let _ = sidecar.settled(2);
    assert_eq!(client.get("/now").text(), "/now");
}

#[test]
fn a_body_above_the_limit_is_413() {
    let backend = Backend::answering(|request| ok(request.body.content.len().to_string()));
    let sidecar = Sidecar::before(&backend).yaml("limits:\n  request_body_bytes: 1KiB\n").start();
    let with_length = |size: usize| format!("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n");
    let at_the_limit = format!("{}{}", with_length(1024), "x".repeat(1024));
    assert_eq!(sidecar.exchange(at_the_limit).text(), "1024", "the limit itself is allowed");
    // Known from the head: refused before a byte of it is sent on, and before the client has sent it.
    let answer = sidecar.exchange(with_length(1025));
    assert_eq!(answer.status(), 413);
    answer.proxy_made("request_too_large").unwrap();
    assert_eq!(backend.requests().len(), 1);
    // Known only on the way: cut at the backend, told to the client.
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    let mut client = sidecar.client();
    let _ = client.try_send(format!(
        "PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(3)
    ));
    let answer = client.read_response("PUT");
    assert_eq!(answer.status(), 413);
    answer.proxy_made("request_too_large").unwrap();
    client.expect_end();
    let page = sidecar.settled(3);
    let errors = [("error_type", "request_too_large"), ("fault", "client")];
    assert_eq!(page.sum("golden_errors_total", &errors), 2.0, "{}", page.lines_of("golden_errors_total"));
    assert_eq!(page.sum("golden_errors_total", &[]), 2.0);
    assert_eq!(page.sum("golden_requests_total", &[("http_response_status_code", "413"), ("origin", "proxy")]), 2.0);
    assert!(backend.requests().iter().skip(1).all(|request| !request.body.complete));
}

#[test]
fn http2_streams_above_the_limit_are_refused_or_wait() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let sidecar = Sidecar::before(&backend).yaml("limits:\n  streams: 2\n").start();
    h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        // The client learns the limit from SETTINGS with its first exchange, and then keeps to it by itself.
        h2c::exchange(&client, h2c::request("GET", "/"), None).await;
        let mut responses = Vec::new();
        for _ in 0..2 {
            responses.push(h2c::send(&client, h2c::request("GET", "/hold"), true).await.0);
        }
        h2c::until("both are at the backend", || backend.requests().len() == 3).await;
        let mut third = client.clone();
        let ready = tokio::time::timeout(Duration::from_millis(300), std::future::poll_fn(|cx| third.poll_ready(cx)));
        // h2 lets one more be queued inside the client; whatever it does, the backend must not see a third.
        if ready.await.is_ok() {
            let (response, _) = third.send_request(h2c::request("GET", "/hold").body(()).unwrap(), true).unwrap();
            responses.push(response);
            tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>()).await.unwrap_err();
        }
        assert_eq!(backend.requests().len(), 3, "the limit was passed");
        assert_eq!(sidecar.scrape().value("golden_server_streams_limit_reached_total", &[]), 1.0);
        gate.open();
        for response in responses {
            assert_eq!(response.await.expect("an answer").status(), 200);
        }
    });
}

// --- slow readers ---

/// Above what the kernel's socket buffers of two hops may hold (4 MiB to send and 6 MiB to receive, each hop).
const KERNEL_BUFFERS: u64 = 32 << 20;
const HUGE: u64 = 256 << 20;

#[test]
fn a_client_that_reads_late_slows_the_backend_down_and_gets_everything() {
    let pushed = Arc::new(Mutex::new(None));
    let backend = Backend::start({
        let pushed = Arc::clone(&pushed);
        move |peer| {
            peer.read_request();
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n"));
            let taken = peer.push_until_stalled(HUGE, Duration::from_secs(1));
            *pushed.lock().unwrap() = Some(taken);
            let block = vec![b'x'; 1 << 20];
            let mut left = HUGE - taken;
            while left > 0 {
                let part = left.min(block.len() as u64);
                if !peer.send(&block[..part as usize]) {
                    return;
                }
                left -= part;
            }
        }
    });
    let sidecar = Sidecar::start(&backend);
    sidecar.forget_peak();
    let before = sidecar.resident();
    let mut client = sidecar.client();
    client.send(GET);
    wait_until("the backend is stopped by back-pressure", || pushed.lock().unwrap().is_some());
    let taken = pushed.lock().unwrap().unwrap();
    assert!(taken < KERNEL_BUFFERS, "{taken} bytes were taken from the backend");
    let rise = sidecar.peak_resident().saturating_sub(before);
    assert!(rise <= 16 << 20, "memory rose by {} KiB", rise >> 10);
    client.read_head();
    let mut total = 0;
    while total < HUGE {
        if client.wire.buffer.is_empty() {
            let more = client.wire.fill();
            let errors = || sidecar.scrape().lines_of("golden_errors_total");
            assert!(matches!(more, Ok(1..)), "cut after {total} bytes by {more:?}\n{}", errors());
        }
        total += client.wire.buffer.len() as u64;
        client.wire.buffer.clear();
    }
    sidecar.expect(&[Outcome::backend("GET", "200")]);
}

#[test]
fn a_client_that_stops_reading_is_never_taken_for_a_silent_backend() {
    let backend = Backend::start(|peer| {
        peer.read_request();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n"));
        peer.push_until_stalled(HUGE, PATIENCE);
    });
    let sidecar = Sidecar::before(&backend).yaml(format!("timeouts:\n  body: {SHORT}\n")).start();
    let mut client = sidecar.client();
    client.send(GET);
    // The backend always has more to give; the only one who is silent is this client, and after the timeout it is cut.
    wait_until("the backend is let go", || backend.connections() == 1 && backend.open() == 0);
    let page = sidecar.settled(1);
    let errors = [("error_type", "client_timeout"), ("fault", "client"), ("phase", "body")];
    assert_eq!(page.sum("golden_errors_total", &errors), 1.0, "{}", page.lines_of("golden_errors_total"));
    assert_eq!(page.sum("golden_errors_total", &[]), 1.0);
    assert_eq!(page.sum("golden_client_aborts_total", &[]), 0.0, "it did not leave");
    assert_eq!(page.sum("golden_truncated_responses_total", &[]), 1.0);
    let read = client.wire.read_to_end();
    let seen = client.wire.received.lock().unwrap().total;
    assert!(seen < HUGE, "the cut is invisible: {seen} bytes, {read:?}");
}

#[test]
fn many_slow_readers_cost_bounded_memory() {
    let backend = Backend::start(|peer| {
        peer.read_request();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n"));
        peer.push_until_stalled(HUGE, Duration::from_millis(500));
        peer.wait_end();
    });
    let sidecar = Sidecar::start(&backend);
    sidecar.forget_peak();
    let before = sidecar.resident();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = sidecar.client();
            client.send(GET);
            client
        })
        .collect();
    wait_until("all are being served", || backend.requests().len() == 20);
    let bytes = || sidecar.scrape().sum("golden_response_bytes_total", &[]);
    let mut last = -1.0;
    wait_until("everything stands still", || std::mem::replace(&mut last, bytes()) == last);
    let rise = sidecar.peak_resident().saturating_sub(before);
    // 20 readers, a few hundred KiB each at most.
    assert!(rise <= 16 << 20, "20 slow readers took {} KiB", rise >> 10);
    drop(clients);
    sidecar.expect(&[Outcome::aborted("GET", "200", "during_body"); 20]);
}

#[test]
fn a_backend_that_does_not_read_slows_the_upload_down() {
    let read_on = Gate::new();
    let backend = Backend::start({
        let read_on = read_on.clone();
        move |peer| {
            let Some(head) = peer.read_head() else { return };
            read_on.wait();
            let Framing::Length(length) = common::Peer::framing(&head) else { return };
            let mut total = 0;
            while total < length {
                if peer.wire.buffer.is_empty() && !matches!(peer.wire.fill(), Ok(1..)) {
                    return;
                }
                total += peer.wire.buffer.len() as u64;
                peer.wire.buffer.clear();
            }
            peer.send(ok(total.to_string()));
        }
    });
    // The client's silence is not its own while the backend takes nothing.
    let sidecar = Sidecar::before(&backend).yaml(format!("timeouts:\n  client_body: {SHORT}\n")).start();
    sidecar.forget_peak();
    let before = sidecar.resident();
    let mut client = sidecar.client();
    client.send(format!("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: {HUGE}\r\n\r\n"));
    client.wire.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let block = vec![b'u'; 64 << 10];
    let mut sent = 0;
    while sent < HUGE {
        match client.wire.stream.write(&block[..(HUGE - sent).min(64 << 10) as usize]) {
            Ok(n) => sent += n as u64,
            Err(_) => break,
        }
    }
    assert!(sent < KERNEL_BUFFERS, "{sent} bytes were taken from the client");
    let rise = sidecar.peak_resident().saturating_sub(before);
    assert!(rise <= 16 << 20, "memory rose by {} KiB", rise >> 10);
    read_on.open();
    client.wire.stream.set_write_timeout(None).unwrap();
    while sent < HUGE {
        let part = (HUGE - sent).min(64 << 10);
        client.send(&block[..part as usize]);
        sent += part;
    }
    assert_eq!(client.read_response("PUT").text(), HUGE.to_string());
    sidecar.expect(&[Outcome::backend("PUT", "200")]);
}
