//! Where the backend is: a name that changes while requests flow, several addresses, two families, IPv6.

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::backend::Unreachable;
use common::client::Client;
use common::{Backend, Gate, Names, Outcome, Sidecar, StopOnDrop, response, wait_until};
use tokio::time::Instant;

/// Asked ten times a second, so that nobody waits for ten.
const REFRESH: &str = "dns:\n  refresh: 100ms\n";

/// Answers with its own address; `/hold` when the gate opens. `/close` ends the connection.
fn backend(address: &str, gate: &Gate) -> Backend {
    let (name, gate) = (address.split(':').next().unwrap().to_owned(), gate.clone());
    Backend::start_at(address.parse().unwrap(), move |peer| {
        while let Some(request) = peer.read_request() {
            match request.head.target() {
                "/hold" => gate.wait(),
                "/close" => {
                    peer.send(response(200, "Connection: close\r\n", &name));
                    return;
                }
                _ => {}
            }
            if !peer.send(response(200, "", &name)) {
                return;
            }
        }
    })
}

/// Backends at these addresses of 127.0.0.0/8 and one port.
fn backends<const N: usize>(hosts: [&str; N], gate: &Gate) -> ([Backend; N], u16) {
    let mut port = 0;
    let all = hosts.map(|host| {
        let one = backend(&format!("{host}:{port}"), gate);
        port = one.address.port();
        one
    });
    (all, port)
}

fn before(names: &Names, port: u16, yaml: &str) -> Sidecar {
    Sidecar::upstream(format!("http://app.test:{port}")).names(names).yaml(format!("{REFRESH}{yaml}")).start()
}

fn lookups(sidecar: &Sidecar, result: &str) -> f64 {
    sidecar.scrape().value("golden_dns_lookups_total", &[("result", result)])
}

#[test]
fn a_name_that_moves_takes_new_requests_along_and_no_request_fails() {
    let gate = Gate::new();
    let ([old, new], port) = backends(["127.0.0.2", "127.0.0.3"], &gate);
    let names = Names::new(&[("app.test", &["127.0.0.2"])]);
    let sidecar = before(&names, port, "");
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let held = scope.spawn(|| sidecar.get("/hold").text());
        wait_until("held", || old.requests().iter().any(|request| request.head.target() == "/hold"));
        let flow = scope.spawn(|| {
            let mut client = sidecar.client();
            let mut answered = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let response = client.get("/");
                assert_eq!(response.status(), 200, "{}", response.text());
                answered.push(response.text());
                count.fetch_add(1, Ordering::SeqCst);
            }
            answered
        });
        wait_until("requests flow", || count.load(Ordering::SeqCst) > 20);
        names.set(&[("app.test", &["127.0.0.3"])]);
        wait_until("requests go to the new address", || !new.requests().is_empty());
        wait_until("idle connections to the old one are retired", || old.open() == 1);
        gate.open();
        assert_eq!(held.join().unwrap(), "127.0.0.2", "a request in flight ends where it began");
        wait_until("its connection too", || old.open() == 0);
        stop.store(true, Ordering::SeqCst);
        let answered = flow.join().unwrap();
        let moved = answered.iter().position(|name| name == "127.0.0.3").expect("the new one answers");
        assert!(moved > 20 && answered[moved..].iter().all(|name| name == "127.0.0.3"), "{answered:?}");
    });
    let page = sidecar.settled(count.load(Ordering::SeqCst) + 1);
    assert_eq!(page.sum("golden_errors_total", &[]), 0.0);
    assert_eq!(page.value("golden_upstream_addresses", &[]), 1.0);
    assert_eq!(page.value("golden_upstream_connections_closed_total", &[("reason", "drain")]), 2.0);
    assert_eq!(page.value("golden_dns_lookups_total", &[("result", "failure")]), 0.0);
    assert!(page.value("golden_dns_lookups_total", &[("result", "success")]) >= 2.0);
    assert!(sidecar.admin_get("/", "").text().contains(&format!("<li>127.0.0.3:{port}</li>")));
}

#[test]
fn an_address_that_comes_along_leaves_connections_to_the_others_alone() {
    let ([first, second], port) = backends(["127.0.0.2", "127.0.0.3"], &Gate::new());
    let names = Names::new(&[("app.test", &["127.0.0.2"])]);
    let sidecar = before(&names, port, "");
    assert_eq!(sidecar.get("/").text(), "127.0.0.2");
    names.set(&[("app.test", &["127.0.0.3", "127.0.0.2"])]);
    let page = sidecar.page_when("two addresses", |page| page.value("golden_upstream_addresses", &[]) == 2.0);
    assert_eq!(page.sum("golden_upstream_connections_closed_total", &[]), 0.0);
    assert_eq!(sidecar.get("/").text(), "127.0.0.2");
    assert_eq!((first.connections(), second.connections()), (1, 0), "the idle connection is used again");
    // Only the order changes: that is no change.
    let asked = lookups(&sidecar, "success");
    names.set(&[("app.test", &["127.0.0.2", "127.0.0.3"])]);
    wait_until("asked again, twice", || lookups(&sidecar, "success") >= asked + 2.0);
    assert_eq!(sidecar.log().iter().filter(|line| line.contains("upstream_moved")).count(), 1);
    names.set(&[("app.test", &["127.0.0.3"])]);
    wait_until("the connection to the one that is gone is retired", || first.open() == 0);
    assert_eq!(sidecar.get("/").text(), "127.0.0.3");
}

#[test]
fn a_name_that_vanishes_keeps_its_last_addresses_and_is_the_fault_only_when_they_are_dead() {
    let ([mut old, new], port) = backends(["127.0.0.2", "127.0.0.3"], &Gate::new());
    let names = Names::new(&[("app.test", &["127.0.0.2"])]);
    let sidecar = before(&names, port, "readiness:\n  interval: 100ms\n");
    assert_eq!(sidecar.get("/").text(), "127.0.0.2");
    names.set(&[]);
    wait_until("asked in vain, more than once", || lookups(&sidecar, "failure") >= 3.0);
    assert_eq!(sidecar.get("/close").text(), "127.0.0.2", "the last good address");
    assert_eq!(sidecar.get("/").text(), "127.0.0.2", "for new connections too");
    old.stop();
    assert_eq!(sidecar.get("/").status(), 502);
    let body = sidecar.get("/").text();
    assert!(body.contains("dns_failure: the name of the backend could not be resolved"), "{body}");
    wait_until("not ready, and why", || {
        let said = sidecar.admin_get("/readyz", "").text();
        said.contains(&format!("connect to 127.0.0.2:{port} refused, and its name leads nowhere any more"))
    });
    names.set(&[("app.test", &["127.0.0.3"])]);
    wait_until("found again", || sidecar.logged("upstream_name_found"));
    assert_eq!(sidecar.get("/").text(), "127.0.0.3");
    assert_eq!(new.requests().len(), 1);
    let lines = |event: &str| sidecar.log().iter().filter(|line| line.contains(event)).count();
    assert_eq!((lines("upstream_name_lost"), lines("upstream_name_found")), (1, 1), "told once each");
    let good = Outcome::backend("GET", "200");
    let failed = Outcome::proxy("GET", "502", ("dns_failure", "network", "connect"));
    sidecar.expect(&[good, good, good, failed, failed, good]);
}

#[test]
fn a_dead_address_makes_the_name_be_asked_for_long_before_it_is_due() {
    let ([mut old, _new], port) = backends(["127.0.0.2", "127.0.0.3"], &Gate::new());
    let names = Names::new(&[("app.test", &["127.0.0.2"])]);
    // Nobody waits for an hour, and the probe is not who finds out.
    let yaml = "dns:\n  refresh: 1h\nreadiness:\n  interval: 1h\n";
    let sidecar = Sidecar::upstream(format!("http://app.test:{port}")).names(&names).yaml(yaml).start();
    assert_eq!(sidecar.get("/").text(), "127.0.0.2");
    names.set(&[("app.test", &["127.0.0.3"])]);
    old.stop();
    let mut failed = 0;
    wait_until("found", || {
        let response = sidecar.get("/");
        failed += usize::from(response.status() == 502);
        response.status() == 200 && response.text() == "127.0.0.3"
    });
    // However many failed, one question at the start and one in its first second, and perhaps one more.
    assert!(failed > 0 && lookups(&sidecar, "success") <= 3.0, "{failed}, {}", lookups(&sidecar, "success"));
}

#[test]
fn new_connections_go_to_all_addresses_by_turns() {
    let (all, port) = backends(["127.0.0.2", "127.0.0.3", "127.0.0.4"], &Gate::new());
    let names = Names::new(&[("app.test", &["127.0.0.2", "127.0.0.3", "127.0.0.4"])]);
    let sidecar = before(&names, port, "");
    for _ in 0..9 {
        assert_eq!(sidecar.get("/close").status(), 200);
    }
    assert_eq!(all.map(|one| one.requests().len()), [3, 3, 3]);
}

#[test]
fn a_first_address_that_never_answers_costs_a_quarter_of_a_second_and_no_request() {
    let ([_backend], port) = backends(["127.0.0.3"], &Gate::new());
    let _dead = Unreachable::at(SocketAddr::from(([127, 0, 0, 2], port)));
    let names = Names::new(&[("app.test", &["127.0.0.2", "127.0.0.3"])]);
    let sidecar = before(&names, port, "");
    let times: Vec<Duration> = (0..4)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(sidecar.get("/close").text(), "127.0.0.3");
            begun.elapsed()
        })
        .collect();
    let slow = times.iter().filter(|time| **time >= Duration::from_millis(240)).count();
    assert_eq!(slow, 2, "every second one begins with the dead address: {times:?}");
    // A lost SYN would be repeated after a second.
    assert!(times.iter().all(|time| *time < Duration::from_millis(700)), "{times:?}");
}

#[test]
fn a_family_without_a_listener_costs_nothing() {
    let ([backend], port) = backends(["127.0.0.1"], &Gate::new());
    let names = Names::new(&[("app.test", &["::1", "127.0.0.1"])]);
    let sidecar = before(&names, port, "");
    for _ in 0..4 {
        let begun = Instant::now();
        assert_eq!(sidecar.get("/close").text(), "127.0.0.1");
        assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    }
    assert_eq!(backend.requests().len(), 4);
    assert_eq!(sidecar.scrape().value("golden_upstream_addresses", &[]), 2.0);
}

#[test]
fn a_family_that_never_answers_is_overtaken_by_the_other_one() {
    let ([_backend], port) = backends(["127.0.0.1"], &Gate::new());
    let _dead = Unreachable::at(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)));
    let names = Names::new(&[("app.test", &["::1", "127.0.0.1"])]);
    let sidecar = before(&names, port, "");
    for _ in 0..2 {
        let begun = Instant::now();
        assert_eq!(sidecar.get("/close").text(), "127.0.0.1");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(240) && took < Duration::from_millis(700), "{took:?}");
    }
}

#[test]
fn ipv6_is_spoken_on_both_sides_and_an_address_has_one_spelling() {
    let backend = Backend::start_at("[::1]:0".parse().unwrap(), |peer| {
        while peer.read_request().is_some() && peer.send(common::ok("six")) {}
    });
    let sidecar = Sidecar::upstream(format!("http://{}", backend.address)).listen("[::]:0").start();
    let port = sidecar.proxy.port();
    for client in ["127.0.0.1", "[::1]"] {
        let to: SocketAddr = format!("{client}:{port}").parse().unwrap();
        assert_eq!(Client::to(to).get("/").text(), "six");
    }
    let forwarded: Vec<_> =
        backend.requests().iter().map(|request| request.head.list("x-forwarded-for").to_owned()).collect();
    assert_eq!(forwarded, ["127.0.0.1", "::1"], "an IPv4 client of a socket for both has no IPv6 spelling");
    sidecar.expect(&[Outcome::backend("GET", "200"); 2]);
}
