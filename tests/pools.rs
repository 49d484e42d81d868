//! Pools that the backend reports itself: what its page says stands on ours, and whatever becomes of that page, nothing
//! false does and the sampler stays on time.

mod common;

use std::sync::{Arc, Mutex};

use common::{Backend, Page, Sidecar, ok, response, wait_for};

const HIKARI: &str = "# TYPE hikaricp_connections_active gauge\n\
    hikaricp_connections_active{pool=\"orders\"} 3.0\nhikaricp_connections_active{pool=\"users\"} 5.0\n\
    # TYPE hikaricp_connections_idle gauge\nhikaricp_connections_idle{pool=\"orders\"} 7.0\n\
    # TYPE hikaricp_connections_max gauge\nhikaricp_connections_max{pool=\"orders\"} 12.0\n\
    # TYPE hikaricp_connections_pending gauge\nhikaricp_connections_pending{pool=\"orders\"} 13.0\n\
    # TYPE hikaricp_connections_timeout_total counter\nhikaricp_connections_timeout_total{pool=\"orders\"} 17.0\n";

fn value(page: &Page, pool: &str, state: &str) -> Option<f64> {
    page.get("golden_pool_connections", &[("pool", pool), ("state", state), ("source", "reported")])
}

/// The numbers of a pool that come from nowhere but its page.
fn has_numbers(page: &Page, pool: &str) -> bool {
    page.has("golden_pool_connections", &[("pool", pool)])
        || page.has("golden_pool_limit", &[("pool", pool)])
        || page.has("golden_saturation_ratio", &[("resource", &format!("pool:{pool}"))])
}

#[test]
fn a_pool_is_read_from_prometheus_text_by_a_preset() {
    let metrics = Backend::answering(|_| ok(HIKARI));
    let url = format!("http://scraper:s3cret@{}/actuator/prometheus", metrics.address);
    let sidecar = Sidecar::before(&metrics)
        .yaml(format!(
            "saturation:\n  interval: 200ms\n  pools:\n    - name: orders\n      url: {url}\n      preset: hikaricp\n      \
             labels: pool=\"orders\"\n    - name: users\n      url: {url}\n      preset: hikaricp\n      \
             labels: pool=\"users\"\n      limit: 20\n"
        ))
        .start();
    let page = sidecar.page_when("both pools", |page| has_numbers(page, "orders") && has_numbers(page, "users"));
    for (state, expected) in [("in_use", 3.0), ("idle", 7.0), ("waiting", 13.0)] {
        assert_eq!(value(&page, "orders", state), Some(expected), "{state}");
    }
    assert_eq!(page.value("golden_pool_limit", &[("pool", "orders")]), 12.0);
    assert_eq!(page.value("golden_pool_timeouts_total", &[("pool", "orders")]), 17.0);
    assert_eq!(page.value("golden_saturation_ratio", &[("resource", "pool:orders")]), 0.25);
    assert_eq!(value(&page, "users", "in_use"), Some(5.0));
    assert_eq!((value(&page, "users", "idle"), value(&page, "users", "waiting")), (None, None));
    assert_eq!(page.value("golden_saturation_ratio", &[("resource", "pool:users")]), 0.25);
    assert_eq!(page.value("golden_sampler_source_available", &[("source", "pool:orders")]), 1.0);
    assert!(page.has("golden_saturation_peak_ratio", &[("resource", "pool:orders")]));

    let asked = metrics.requests().remove(0);
    assert_eq!(asked.head.line, "GET /actuator/prometheus HTTP/1.1");
    assert_eq!(asked.head.list("authorization"), "Basic c2NyYXBlcjpzM2NyZXQ=");
    assert_eq!(metrics.connections(), 1, "two pools of one page, one question at a time, one connection");
    assert!(!page.text.contains("s3cret") && !sidecar.logged("s3cret"));
    assert_eq!(page.sum("golden_requests_total", &[]), 0.0, "it is no traffic");
}

#[test]
fn a_pool_is_read_from_json_by_expressions() {
    let metrics =
        Backend::answering(|_| ok(r#"{"db": {"total": 12, "idle": 9, "max": 0, "queue": [4]}, "size": "x"}"#));
    let url = metrics.url();
    let sidecar = Sidecar::before(&metrics)
        .yaml(format!(
            "saturation:\n  interval: 200ms\n  pools:\n    - name: db\n      url: {url}/stats\n      \
             used: /db/total - /db/idle\n      idle: /db/idle\n      limit: /db/max\n      waiting: /db/queue/0\n      \
             timeouts: /db/timeouts\n    - name: text\n      url: {url}/stats\n      used: /size\n"
        ))
        .start();
    let page = sidecar.page_when("the pool", |page| has_numbers(page, "db"));
    for (state, expected) in [("in_use", 3.0), ("idle", 9.0), ("waiting", 4.0)] {
        assert_eq!(value(&page, "db", state), Some(expected), "{state}");
    }
    assert!(!page.has("golden_pool_limit", &[("pool", "db")]), "0 is no limit");
    assert!(!page.has("golden_saturation_ratio", &[("resource", "pool:db")]));
    assert!(!page.has("golden_pool_timeouts_total", &[("pool", "db")]), "what is not on the page is absent");
    let page = sidecar.page_when("a text is no number", |page| {
        page.sum("golden_sampler_failures_total", &[("source", "pool:text"), ("reason", "malformed")]) > 0.0
    });
    assert!(!has_numbers(&page, "text"));
    assert_eq!(page.value("golden_sampler_source_available", &[("source", "pool:text")]), 0.0);
    assert_eq!(page.value("golden_sampler_source_available", &[("source", "pool:db")]), 1.0);
}

/// What the scripted page does now.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    Hangs,
    Endless,
    Garbage,
    Refuses,
    LacksIt,
}

#[test]
fn whatever_becomes_of_a_page_nothing_false_is_told_and_the_sampler_stays_on_time() {
    let mood = Arc::new(Mutex::new(Mood::Well));
    let script = {
        let mood = Arc::clone(&mood);
        move |peer: &mut common::Peer| {
            while peer.read_request().is_some() {
                let now = *mood.lock().unwrap();
                let answer = match now {
                    Mood::Well => ok(HIKARI),
                    Mood::Garbage => ok("<!doctype html>"),
                    Mood::Refuses => response(503, "", "no"),
                    Mood::LacksIt => ok("up 1\n"),
                    Mood::Hangs => return drop(peer.wire.wait_end()),
                    Mood::Endless => {
                        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                        let piece = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
                        while peer.send(&piece) {}
                        return;
                    }
                };
                peer.send(answer);
            }
        }
    };
    let mut metrics = Backend::start(script.clone());
    let healthy = Backend::answering(|_| ok("{\"used\": 1}"));
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend)
        .yaml(format!(
            "saturation:\n  interval: 250ms\n  pools:\n    - name: db\n      url: {}/metrics\n      preset: hikaricp\n      \
             labels: pool=\"orders\"\n    - name: other\n      url: {}/\n      used: /used\n",
            metrics.url(),
            healthy.url()
        ))
        .start();
    let failures = |page: &Page, reason: &str| {
        page.sum("golden_sampler_failures_total", &[("source", "pool:db"), ("reason", reason)])
    };
    let available = |page: &Page| page.get("golden_sampler_source_available", &[("source", "pool:db")]);
    let well = |what: &str| {
        sidecar.page_when(what, |page| has_numbers(page, "db") && available(page) == Some(1.0));
    };
    well("the pool is there");
    sidecar.forget_peak();
    let before = sidecar.resident();
    let trouble = |what: &str, reason: &str| {
        let first = failures(&sidecar.scrape(), reason);
        let page = sidecar.page_when(&format!("{what}: {reason}"), |page| failures(page, reason) >= first + 2.0);
        assert!(!has_numbers(&page, "db"), "{what}: {}", page.lines_of("golden_pool"));
        assert_eq!(available(&page), Some(0.0), "{what}");
        assert_eq!(page.value("golden_pool_timeouts_total", &[("pool", "db")]), 17.0, "{what}: what was counted stays");
        assert_eq!(value(&page, "other", "in_use"), Some(1.0), "{what}: the others are read on");
    };
    for (now, reason) in [
        (Mood::Hangs, "timeout"),
        (Mood::Endless, "too_large"),
        (Mood::Garbage, "malformed"),
        (Mood::LacksIt, "malformed"),
        (Mood::Refuses, "status"),
    ] {
        *mood.lock().unwrap() = now;
        trouble(&format!("{now:?}"), reason);
        *mood.lock().unwrap() = Mood::Well;
        well(&format!("the pool is back after {now:?}"));
    }
    let address = metrics.address;
    metrics.stop();
    trouble("gone", "unreachable");
    let _again = Backend::start_at(address, script);
    well("the pool is back");

    let page = sidecar.scrape();
    assert_eq!(page.value("golden_sampler_missed_ticks_total", &[]), 0.0, "a round was late");
    assert!(sidecar.peak_resident() < before + (64 << 20), "{} bytes", sidecar.peak_resident() - before);
}

#[test]
fn a_pool_that_is_reconfigured_is_asked_at_its_new_place_only() {
    let old = Backend::answering(|_| ok("{\"used\": 1}"));
    let new = Backend::answering(|_| ok("{\"used\": 2}"));
    let yaml = |url: &str| {
        format!(
            "saturation:\n  interval: 200ms\n  pools:\n    - name: db\n      url: {url}/\n      used: /used\n      limit: 4\n"
        )
    };
    let sidecar = Sidecar::before(&old).yaml(yaml(&old.url())).start();
    sidecar.page_when("the old place", |page| value(page, "db", "in_use") == Some(1.0));
    sidecar.rewrite(&yaml(&new.url()));
    sidecar.signal(libc::SIGHUP);
    sidecar.page_when("the new place", |page| value(page, "db", "in_use") == Some(2.0));
    let asked = old.requests().len();
    let (first, mut later) = (new.requests().len(), 0);
    assert!(wait_for(common::PATIENCE, || {
        later = new.requests().len();
        later > first + 5
    }));
    assert_eq!(old.requests().len(), asked, "nobody asks there any more");
}
