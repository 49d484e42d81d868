//! The dashboards against real Prometheus servers, one that keeps classic histograms and one that keeps native ones, while
//! the load is known: every query of every panel gives numbers, those of the overview are the load generator's, and where
//! nothing happens nothing looks bad.
//!
//! Four sidecars are scraped, each a job. `busy` has a steady load all the time. `resting` had requests, all of them good,
//! and has none now. `fresh` never had one. `bare` never had one either, and was told nothing at all: no route, no objective;
//! it is in another namespace. Beside them is `foreign`, which is no sidecar: a page with names that many programs have, and
//! with values that would be seen. Of all jobs together every panel must show what it shows of the sidecars.
//!
//! What this machine cannot tell (a cgroup with a quota, say) comes from a page beside that of the busy sidecar: each
//! declared family that the real page does not have stands there once. So no query is left out for want of a source.
//!
//! Needs `prometheus` in both versions; `make test` fetches them. A missing one is a failure, not a reason to skip.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::files::{Board, boards, label_values, list, panels, rules_text, targets, text, variable_query, variables};
use common::page::Labels;
use common::prometheus::{Backfill, Histograms, Job, Options, Prometheus, Sample, Version, days, now_seconds};
use common::promql::{Substitution, metric_names, nodes, parse, selector, selectors};
use common::{Backend, PATIENCE, Page, Sidecar, StopOnDrop, h2c, ok, response, wait_for};
use golden_sidecar::pack::reference::{self, Values};
use promql_parser::parser::{Expr, Offset};
use serde_json::Value as Json;
use tokio::time::Instant;

/// What Grafana puts for `$__rate_interval`, and how long the steady load is when the panels are asked. Long enough for a
/// request more or less at either end to be a fraction of a percent.
const RATE_SECONDS: u32 = 20;

/// Requests per second of the steady load: a thousandth of a second's work each, so that two cores keep up.
const REQUESTS_PER_SECOND: u32 = 50;

/// One of so many requests fails: 4 %.
const FAILING: u32 = 25;

/// One of so many that do not fail is slow: 4 %. So the 99th percentile is the time of slow ones, whichever of them.
const SLOW: u32 = 26;

/// What slow requests take: in the middle of the bucket between 0.1 and 0.25 s.
const SLOW_SECONDS: f64 = 0.160;

/// What the others take.
const QUICK_SECONDS: f64 = 0.012;

/// Connections of the load: more than are under way at once, on average one and a bit.
const CONNECTIONS: u32 = 16;

/// Edges of the classic buckets of the overview's latency, the objective's threshold among them.
const EDGES: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// What a query may take, with a scrape a second of three targets: a panel is to be there at once.
const QUERY_SECONDS_MAX: f64 = 1.0;

/// What a query may give: more lines nobody can read.
const SERIES_MAX: usize = 60;

/// The jobs that are sidecars.
const SIDECARS: [&str; 4] = ["busy", "resting", "fresh", "bare"];

/// Their verdict where nothing happens: "No traffic".
const NO_TRAFFIC: f64 = 2.0;

/// The route of the steady load. Its failures break the objective of 99.9 %, and leave something of the budget of 90 %.
const ROUTE: &str = "/items/{id}";

/// Titles of the panels of the overview whose numbers are those of the load.
const TRAFFIC: &str = "Requests/s";
const FAILED: &str = "Failed";
const LATENCY: &str = "p99";

#[test]
fn every_panel_tells_the_truth_under_load_and_none_looks_bad_at_rest() {
    let begun = Instant::now();
    let scene = Scene::start();
    let (records, at) = scene.run();
    let mut report = Report::default();
    let servers = [("classic", &scene.classic), ("native", &scene.native)];
    std::thread::scope(|scope| {
        let ask = |name: &'static str, server| {
            let (scene, records) = (&scene, &records);
            scope.spawn(move || {
                let mut report = Report::default();
                scene.ask(name, server, at, records, &mut report);
                report
            })
        };
        let asked = servers.map(|(name, server)| ask(name, server));
        asked.into_iter().for_each(|thread| report.join(thread.join().expect("it ends")));
    });
    println!("{} queries in {:?}\n{}", report.queries.len(), begun.elapsed(), report.slowest());
    assert!(report.faults.is_empty(), "{} faults:\n{}", report.faults.len(), report.faults.join("\n"));
}

// === The load ===

/// A request that has ended.
#[derive(Clone, Debug)]
struct Record {
    /// In seconds since 1970.
    ended: f64,
    seconds: f64,
    failed: bool,
}

/// Does what the path and the fields say.
fn backend() -> Backend {
    Backend::start(|peer| {
        while let Some(request) = peer.read_request() {
            let field = |name: &str| request.head.one(name).and_then(|value| value.parse::<f64>().ok());
            pause(field("x-delay").unwrap_or_default());
            match request.head.target() {
                "/events" => {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
                    return;
                }
                "/cut" => {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!");
                    return;
                }
                "/soft" => {
                    if peer.send(response(200, "X-Result: failed\r\n", "sorry\n")) {
                        continue;
                    }
                    return;
                }
                "/shop.Cart/Add" => {
                    if peer.send(response(200, "Content-Type: application/grpc\r\ngrpc-status: 0\r\n", "")) {
                        continue;
                    }
                    return;
                }
                "/silent" => {
                    peer.wait_end();
                    return;
                }
                _ => {}
            }
            if !peer.send(response(field("x-status").map_or(200, |status| status as u16), "", "fine\n")) {
                return;
            }
        }
    })
}

/// A page as a pool library has it.
fn pool() -> Backend {
    Backend::answering(|_| {
        ok("# TYPE hikaricp_connections_active gauge\nhikaricp_connections_active 3\n\
            # TYPE hikaricp_connections_idle gauge\nhikaricp_connections_idle 7\n\
            # TYPE hikaricp_connections_max gauge\nhikaricp_connections_max 12\n\
            # TYPE hikaricp_connections_pending gauge\nhikaricp_connections_pending 0\n\
            # TYPE hikaricp_connections_timeout_total counter\nhikaricp_connections_timeout_total 0\n")
    })
}

#[allow(clippy::disallowed_methods, reason = "the pace is what the load is made of; nothing waits for a condition")]
fn pause(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds.max(0.0)));
}

/// The steady load until it is stopped: each connection sends every so-manieth request at its time.
fn load(sidecar: &Sidecar, stop: &AtomicBool) -> Vec<Record> {
    let begun = Instant::now();
    let connection = |first: u32| {
        let mut client = sidecar.client();
        let mut records = Vec::new();
        let mut number = first;
        while !stop.load(Ordering::Relaxed) {
            pause(f64::from(number) / f64::from(REQUESTS_PER_SECOND) - begun.elapsed().as_secs_f64());
            let failed = number.is_multiple_of(FAILING);
            let slow = !failed && number.is_multiple_of(SLOW);
            let delay = if slow { SLOW_SECONDS } else { QUICK_SECONDS };
            let status = if failed { 503 } else { 200 };
            let sent = Instant::now();
            let answer = client.exchange(format!(
                "GET /items/{number} HTTP/1.1\r\nHost: test\r\nX-Delay: {delay}\r\nX-Status: {status}\r\n\r\n"
            ));
            assert_eq!(answer.status(), status);
            records.push(Record { ended: now_seconds(), seconds: sent.elapsed().as_secs_f64(), failed });
            number += CONNECTIONS;
        }
        records
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|first| scope.spawn(move || connection(first))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("all answered")).collect()
    })
}

/// What else happens all the time, a little: a client that leaves, an answer that is cut, one that only a rule knows for an
/// error, a short event stream, a call.
fn trifles(sidecar: &Sidecar, stop: &AtomicBool) -> Vec<Record> {
    let mut records = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut record = |failed, sent: Instant| {
            records.push(Record { ended: now_seconds(), seconds: sent.elapsed().as_secs_f64(), failed });
        };
        let sent = Instant::now();
        let mut client = sidecar.client();
        client.send("GET /items/1 HTTP/1.1\r\nHost: test\r\nX-Delay: 0.5\r\n\r\n");
        pause(0.1);
        drop(client);
        record(false, sent);
        let sent = Instant::now();
        let mut client = sidecar.client();
        client.send("GET /cut HTTP/1.1\r\nHost: test\r\n\r\n");
        client.wire.wait_end().expect("it is cut");
        record(true, sent);
        // More often than the share of failures may be off by.
        let sent = Instant::now();
        sidecar.get("/soft");
        record(true, sent);
        let sent = Instant::now();
        sidecar.get("/events");
        record(false, sent);
        let sent = Instant::now();
        h2c::call(sidecar.proxy, "/shop.Cart/Add");
        record(false, sent);
        pause(2.0);
    }
    records
}

// === The scene ===

/// Four sidecars, what is beside them, and two servers.
struct Scene {
    classic: Prometheus,
    native: Prometheus,
    busy: Sidecar,
    _others: Vec<Sidecar>,
    _backends: Vec<Backend>,
}

impl Scene {
    fn start() -> Scene {
        let mut backends: Vec<Backend> = (0..3).map(|_| backend()).collect();
        let pool = pool();
        let sidecar = |backend: &Backend| {
            Sidecar::before(backend)
                .workers(2)
                .flag("--inflight", 64)
                .yaml(format!(
                    "slos:\n  - {{name: all, objective: 0.999, latency: 500ms}}\n  \
                     - {{name: lenient, objective: 0.9, latency: 100ms, too_slow_is_error: true}}\n\
                     implicit_errors:\n  - {{name: soft, header: {{name: x-result, value: failed}}}}\nroutes:\n  - path: {ROUTE}\n  - path: /cut\n  \
                     - path: /soft\n  - path: /events\nsaturation:\n  backend: {{memory_limit: 8GiB}}\n  pools:\n    - name: db\n      \
                     url: {}/metrics\n      preset: hikaricp\n",
                    pool.url()
                ))
                .start()
        };
        let mut sidecars: Vec<Sidecar> = backends.iter().map(sidecar).collect();
        sidecars.push(Sidecar::before(&backends[2]).start());
        let (busy, resting) = (&sidecars[0], &sidecars[1]);
        // Each series is there before the first scrape: a rate sees what came after that.
        warm_up(busy);
        let page = busy.page_when("a round of sampling", |page| {
            page.has("golden_pool_connections", &[]) && page.has("golden_saturation_peak_ratio", &[])
        });
        let mut client = resting.client();
        for number in 0..200 {
            client.get(&format!("/items/{number}"));
        }
        let (stand_in, foreign) = (stand_in(&page), foreign());
        let job = |name: &str, targets: Vec<std::net::SocketAddr>| Job { targets, ..Job::new(name, resting.admin) };
        let jobs = vec![
            job("busy", vec![busy.admin, stand_in.address]),
            job("resting", vec![resting.admin]),
            job("fresh", vec![sidecars[2].admin]),
            Job { labels: vec![("namespace".into(), "elsewhere".into())], ..job("bare", vec![sidecars[3].admin]) },
            job("foreign", vec![foreign.address]),
        ];
        let history = history(&page, busy);
        let instances = [("busy", busy, 10.0), ("resting", resting, 10.0), ("fresh", &sidecars[2], 0.0)];
        let history = instances
            .into_iter()
            .fold(history, |history, (job, sidecar, good)| recorded(history, &page, job, sidecar, good));
        let start = |version, histograms| {
            let data = Some(history.write(version));
            let rules = vec![rules_text()];
            Prometheus::start(version, Options { jobs: jobs.clone(), histograms, rules, data, ..Options::default() })
        };
        let (classic, native) = std::thread::scope(|scope| {
            let native = scope.spawn(|| start(Version::Newer, Histograms::Native));
            let classic = start(Version::Oldest, Histograms::Classic);
            (classic, native.join().expect("started"))
        });
        backends.extend([pool, stand_in, foreign]);
        let busy = sidecars.remove(0);
        Scene { classic, native, busy, _others: sidecars, _backends: backends }
    }

    /// Sends the load until the panels can be asked, and says at which moment.
    fn run(&self) -> (Vec<Record>, f64) {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _ends = StopOnDrop(&stop);
            let loads = [scope.spawn(|| load(&self.busy, &stop)), scope.spawn(|| trifles(&self.busy, &stop))];
            // The interval, what the load takes to be steady, and two scrapes.
            let until = Instant::now() + Duration::from_secs(u64::from(RATE_SECONDS) + 6);
            assert!(wait_for(PATIENCE * 6, || Instant::now() >= until));
            // The moment of a scrape that both servers have had.
            let at = now_seconds() - 1.5;
            stop.store(true, Ordering::Relaxed);
            let records = loads.into_iter().flat_map(|load| load.join().expect("it ends")).collect();
            (records, at)
        })
    }

    /// Asks one server everything.
    fn ask(&self, name: &str, server: &Prometheus, at: f64, records: &[Record], report: &mut Report) {
        for board in boards() {
            for job in SIDECARS {
                let substitution = self.substitution(server, &board, job, at);
                for panel in panels(&board.json) {
                    let place = format!("{name} {} {job}: {}", board.path, text(&panel["title"]));
                    let fields = ask_panel(server, panel, &substitution, at, &place, report);
                    let is_empty = |fields: &[Field]| fields.iter().all(|field| field.values.is_empty());
                    for target in targets(panel).iter().filter(|_| job == "busy") {
                        let id = text(&target["refId"]);
                        let of: Vec<_> = fields.iter().filter(|field| field.query == id).cloned().collect();
                        if is_empty(&of) {
                            report
                                .faults
                                .push(format!("{place} {id}: no data: {}", substitution.apply(text(&target["expr"]))));
                        }
                    }
                    for field in &fields {
                        let strange = field.values.iter().find(|value| !value.is_finite());
                        report.faults.extend(strange.map(|value| format!("{place}: {} is {value}", field.name)));
                    }
                    if job != "busy" && text(&panel["title"]) == "Verdict" {
                        let values: Vec<f64> = fields.iter().flat_map(|field| field.values.clone()).collect();
                        if values != [NO_TRAFFIC] {
                            report.faults.push(format!("{place}: it is {values:?}, not \"No traffic\""));
                        }
                    }
                    if job == "bare" && text(&panel["title"]).starts_with("Error budget left") {
                        let words = text(&panel["fieldConfig"]["defaults"]["noValue"]);
                        if !is_empty(&fields) || words != "Nothing counted yet" {
                            report.faults.push(format!("{place}: {words}, {fields:?}"));
                        }
                    }
                    if job != "busy" {
                        let bad = fields.iter().filter_map(|field| looks_bad(panel, field));
                        report.faults.extend(bad.map(|bad| format!("{place}: {bad}")));
                    }
                }
            }
            if board.json["uid"] == "golden-sidecar-overview" {
                // All are those of the only one that has traffic.
                for job in ["busy", ".+"] {
                    let substitution = self.substitution(server, &board, job, at);
                    compare(server, &board, &substitution, at, records, name, report);
                }
            }
            self.ask_all(name, server, &board, at, report);
        }
    }

    /// All jobs together are all sidecars: what others have under the same names is in no panel and makes no mark.
    fn ask_all(&self, name: &str, server: &Prometheus, board: &Board, at: f64, report: &mut Report) {
        let [all, sidecars] =
            [".+".to_owned(), SIDECARS.join("|")].map(|job| self.substitution(server, board, &job, at));
        let of_panels = panels(&board.json).into_iter().flat_map(targets);
        for asking in of_panels.chain(list(&board.json["annotations"]["list"])) {
            let [shown, expected] = [&all, &sidecars].map(|chosen| {
                let samples = server.query(&chosen.apply(text(&asking["expr"])), at).into_iter();
                samples.map(|sample| (format!("{:?}", sample.labels), sample.value)).collect::<BTreeMap<_, _>>()
            });
            let same = shown.keys().eq(expected.keys())
                && shown.values().zip(expected.values()).all(|(a, b)| (a - b).abs() <= 1e-9 * b.abs());
            if !same {
                let query = all.apply(text(&asking["expr"]));
                report.faults.push(format!("{name} {}: others are in it: {query}", board.path));
            }
        }
    }

    /// What is chosen at the top of the page: one job, and all of the rest; of what takes one choice only, the route of the
    /// load, and otherwise the first.
    fn substitution(&self, server: &Prometheus, board: &Board, job: &str, at: f64) -> Substitution {
        let mut substitution = Substitution {
            variables: vec![("job".into(), job.into())],
            rate_interval: format!("{RATE_SECONDS}s"),
            interval: "1s".into(),
            range: format!("{RATE_SECONDS}s"),
        };
        for variable in variables(&board.json).iter().filter(|variable| variable["type"] == "query") {
            let name = text(&variable["name"]);
            if variable["multi"] == true {
                continue;
            }
            let (selector, label) = label_values(variable_query(variable)).expect("label_values()");
            let query = format!("group by ({label}) ({})", substitution.apply(selector.expect("a selector")));
            let values: BTreeSet<String> =
                server.query(&query, at).into_iter().filter_map(|s| s.labels.get(label).cloned()).collect();
            let value = if values.contains(ROUTE) { Some(ROUTE.to_owned()) } else { values.into_iter().next() };
            // Where there is nothing to choose from, Grafana writes nothing.
            substitution.variables.push((name.to_owned(), value.unwrap_or_default()));
        }
        substitution
    }
}

/// A request of each kind.
fn warm_up(sidecar: &Sidecar) {
    for status in [200, 503] {
        sidecar.exchange(format!("GET /items/0 HTTP/1.1\r\nHost: test\r\nX-Status: {status}\r\n\r\n"));
    }
    sidecar.get("/soft");
    h2c::call(sidecar.proxy, "/shop.Cart/Add");
    for path in ["/cut", "/events"] {
        let mut client = sidecar.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let _ = client.wire.wait_end();
    }
    let mut client = sidecar.client();
    client.send("GET /items/1 HTTP/1.1\r\nHost: test\r\nX-Delay: 0.5\r\n\r\n");
    pause(0.05);
    drop(client);
}

/// A page of what is declared and not on the real one. Counters rise from scrape to scrape; what is a share is a half.
fn stand_in(page: &Page) -> Backend {
    let on_page: BTreeSet<String> = page.samples.iter().filter_map(|sample| page.family_of(&sample.name)).collect();
    let missing: Vec<_> = reference::entries().into_iter().filter(|entry| !on_page.contains(&entry.name)).collect();
    println!("not of this machine: {:?}", missing.iter().map(|entry| &entry.name).collect::<Vec<_>>());
    // Where the backend has no cgroup of its own, the family tells of the host alone.
    let pressure = ("golden_backend_pressure_waiting_seconds_total", [("resource", "cpu"), ("scope", "backend")]);
    let with_pressure = on_page.contains(pressure.0) && !page.has(pressure.0, &pressure.1);
    let scrapes = Arc::new(AtomicU64::new(0));
    Backend::answering(move |_| {
        let scrape = scrapes.fetch_add(1, Ordering::Relaxed) as f64;
        let mut text = String::new();
        if with_pressure {
            let (name, [(resource, of), (scope, whose)]) = pressure;
            let labels = format!("{resource}={of:?},{scope}={whose:?}");
            let _ = writeln!(text, "# TYPE {name} counter\n{name}{{{labels}}} {scrape}");
        }
        for entry in &missing {
            let label = |name: &String| {
                let value = match reference::values(&entry.name, name) {
                    Some(Values::Closed(values) | Values::ClosedAnd(values, _)) => {
                        values.into_iter().find(|value| !value.is_empty()).unwrap_or_default()
                    }
                    _ if name == "http_route" => ROUTE,
                    _ => "x",
                };
                format!("{name}=\"{value}\"")
            };
            let labels: Vec<String> = entry.labels.iter().map(label).collect();
            let all = labels.join(",");
            let name = &entry.name;
            let _ = writeln!(text, "# TYPE {name} {}", entry.kind);
            let _ = match entry.kind {
                "counter" => writeln!(text, "{name}{{{all}}} {scrape}"),
                "histogram" => {
                    let comma = if all.is_empty() { "" } else { "," };
                    writeln!(
                        text,
                        "{name}_bucket{{{all}{comma}le=\"0.5\"}} {scrape}\n{name}_bucket{{{all}{comma}le=\"+Inf\"}} {scrape}\n\
                         {name}_sum{{{all}}} {}\n{name}_count{{{all}}} {scrape}",
                        scrape / 4.0
                    )
                }
                _ => writeln!(text, "{name}{{{all}}} 0.5"),
            };
        }
        response(200, "Content-Type: text/plain; version=0.0.4\r\n", text)
    })
}

/// The page of a program that is no sidecar: names that others have as well, and values that no panel could hide. Its start is
/// always just now.
fn foreign() -> Backend {
    let scrapes = AtomicU64::new(0);
    Backend::answering(move |_| {
        let scrape = scrapes.fetch_add(1, Ordering::Relaxed) as f64;
        let (many, now) = (1e6 * scrape, now_seconds());
        let name = "http_server_request_duration_seconds";
        let labels = "http_request_method=\"GET\",http_route=\"/foreign\"";
        response(
            200,
            "Content-Type: text/plain; version=0.0.4\r\n",
            format!(
                "# TYPE {name} histogram\n{name}_bucket{{{labels},le=\"0.5\"}} 0\n{name}_bucket{{{labels},le=\"1000\"}} {many}\n\
                 {name}_bucket{{{labels},le=\"+Inf\"}} {many}\n{name}_sum{{{labels}}} {many}\n{name}_count{{{labels}}} {many}\n\
                 # TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {now}\n\
                 # TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {many}\n\
                 # TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 1e18\n\
                 # TYPE process_open_fds gauge\nprocess_open_fds 1e6\n\
                 # TYPE process_max_fds gauge\nprocess_max_fds 1\n\
                 # TYPE http_client_open_connections gauge\nhttp_client_open_connections{{http_connection_state=\"active\"}} 1e9\n"
            ),
        )
    })
}

/// What was there before, as far as any panel looks back: each series of the page that one asks for with an offset, for some
/// minutes around that time.
fn history(page: &Page, busy: &Sidecar) -> Backfill {
    // Wide enough for the time that it takes until the panels are asked.
    const AROUND_SECONDS: f64 = 240.0;
    let mut wanted: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for board in boards() {
        for target in panels(&board.json).into_iter().flat_map(targets) {
            let expr = parse(&Substitution::default().apply(text(&target["expr"]))).expect("it parses");
            for selector in selectors(&expr) {
                if let Some(Offset::Pos(offset)) = &selector.offset {
                    for name in metric_names(selector) {
                        wanted.entry(name).or_default().insert(offset.as_secs());
                    }
                }
            }
        }
    }
    // Ten minutes at least, for what rules had recorded.
    let longest = wanted.values().flatten().max().copied().unwrap_or(600);
    let length = Duration::from_secs(longest) + Duration::from_secs_f64(AROUND_SECONDS);
    assert!(length < days(30), "a panel looks back {length:?}, longer than a server keeps");
    let mut history = Backfill::until_now(length, Duration::from_secs(5));
    let instance = busy.admin.to_string();
    for sample in &page.samples {
        let Some(offsets) = wanted.get(&sample.name) else { continue };
        let mut labels: Vec<(&str, &str)> = vec![("job", "busy"), ("instance", &instance)];
        labels.extend(sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        history = history.series(&sample.name, &labels, |age| {
            let near = offsets.iter().any(|offset| (age - *offset as f64).abs() <= AROUND_SECONDS);
            near.then(|| (length.as_secs_f64() - age).floor())
        });
    }
    history
}

/// What the rules had recorded of the objectives in the minutes before. A sum over recorded values takes one of each five
/// minutes, at full ones; without any history there may be none yet.
fn recorded(history: Backfill, page: &Page, job: &str, sidecar: &Sidecar, good: f64) -> Backfill {
    const MINUTES_SECONDS: f64 = 600.0;
    let rules = common::files::rules();
    let mut names = BTreeSet::new();
    for rule in rules.groups.iter().flat_map(|group| &group.rules) {
        let expr = parse(&rule.expr).expect("it parses");
        for (above, node) in nodes(&expr) {
            if let Some(selector) = selector(node)
                && above.iter().any(|parent| matches!(parent, Expr::Subquery(_)))
            {
                names.extend(metric_names(selector).into_iter().filter(|name| name.contains(':')));
            }
        }
    }
    let instance = sidecar.admin.to_string();
    let mut history = history;
    for name in &names {
        for sample in page.matching("golden_slo_requests_total", &[]).filter(|s| s.labels["result"] != "excluded") {
            let (slo, result) = (&sample.labels["slo"], &sample.labels["result"]);
            let labels = [("job", job), ("instance", &instance), ("slo", slo), ("result", result)];
            let value = if result == "good" { good } else { 0.0 };
            history = history.series(name, &labels, |age| (age <= MINUTES_SECONDS).then_some(value));
        }
    }
    history
}

// === Asking, as Grafana does ===

/// What became of the questions.
#[derive(Default)]
struct Report {
    faults: Vec<String>,
    /// Seconds, number of series, where.
    queries: Vec<(f64, usize, String)>,
}

/// A series, or a column of a table.
#[derive(Clone, Debug)]
struct Field {
    /// The query that gave it.
    query: String,
    /// As the panel names it.
    name: String,
    /// Over time; a column's are those of its rows.
    values: Vec<f64>,
}

impl Report {
    fn join(&mut self, other: Report) {
        self.faults.extend(other.faults);
        self.queries.extend(other.queries);
    }

    fn slowest(&mut self) -> String {
        self.queries.sort_by(|a, b| b.0.total_cmp(&a.0));
        let lines = self.queries.iter().take(5);
        lines.map(|(seconds, series, place)| format!("{seconds:.3} s, {series} series: {place}\n")).collect()
    }
}

/// The name of a series: its legend with the labels filled in.
fn legend(template: &str, labels: &Labels) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        out += before;
        out += labels.get(name.trim()).map_or("", String::as_str);
        rest = after;
    }
    out + rest
}

/// All queries of a panel.
fn ask_panel(
    server: &Prometheus,
    panel: &Json,
    substitution: &Substitution,
    at: f64,
    place: &str,
    report: &mut Report,
) -> Vec<Field> {
    let mut fields = Vec::new();
    for target in targets(panel) {
        let query = substitution.apply(text(&target["expr"]));
        let id = text(&target["refId"]);
        let template = text(&target["legendFormat"]);
        let begun = Instant::now();
        let series: Vec<(Labels, Vec<f64>)> = if target["instant"] == true {
            let samples = server.try_query(&query, at).unwrap_or_else(|error| {
                report.faults.push(format!("{place} {id}: {error}: {query}"));
                Vec::new()
            });
            let of = |sample: Sample| (sample.labels, vec![sample.value]);
            samples.into_iter().map(of).collect()
        } else {
            let series = server.query_range(&query, at - 10.0, at, Duration::from_secs(1));
            series.into_iter().map(|s| (s.labels, s.points.into_iter().map(|point| point.1).collect())).collect()
        };
        let seconds = begun.elapsed().as_secs_f64();
        if seconds > QUERY_SECONDS_MAX || series.len() > SERIES_MAX {
            report.faults.push(format!("{place} {id}: {seconds:.2} s, {} series", series.len()));
        }
        report.queries.push((seconds, series.len(), format!("{place} {id}")));
        if target["format"] == "table" {
            let values: Vec<f64> = series.iter().flat_map(|(_, values)| values.last().copied()).collect();
            fields.push(Field { query: id.to_owned(), name: column(panel, id), values });
        } else {
            fields.extend(series.into_iter().map(|(labels, values)| Field {
                query: id.to_owned(),
                name: legend(template, &labels),
                values,
            }));
        }
    }
    fields
}

/// What the column of a query is called after the panel's transformations.
fn column(panel: &Json, id: &str) -> String {
    let name = if targets(panel).len() == 1 { "Value".to_owned() } else { format!("Value #{id}") };
    let renamed =
        list(&panel["transformations"]).iter().find_map(|step| step["options"]["renameByName"][&name].as_str());
    renamed.map_or(name, str::to_owned)
}

/// The configuration of a field: the panel's, and that of each override that is meant for it.
fn config(panel: &Json, field: &Field) -> Json {
    let mut config = panel["fieldConfig"]["defaults"].clone();
    for o in list(&panel["fieldConfig"]["overrides"]) {
        let options = &o["matcher"]["options"];
        let meant = match text(&o["matcher"]["id"]) {
            "byName" => text(options) == field.name,
            "byFrameRefID" => text(options) == field.query,
            "byRegexp" => common::promql::pattern(&format!(
                "{}.*",
                text(options).trim_matches('/').trim_start_matches('^')
            ))(&field.name),
            other => panic!("a matcher that this test does not know: {other}"),
        };
        if !meant {
            continue;
        }
        for property in list(&o["properties"]) {
            let mut place = &mut config;
            for key in text(&property["id"]).split('.') {
                place = &mut place[key];
            }
            *place = property["value"].clone();
        }
    }
    config
}

/// The colour that a value is shown in: that of its word, if it has one, or else that of its threshold.
fn colour(config: &Json, value: f64) -> String {
    for mapping in list(&config["mappings"]) {
        let options = &mapping["options"];
        let result = match text(&mapping["type"]) {
            "value" => options.as_object().and_then(|words| {
                words.iter().find(|(key, _)| key.parse::<f64>().is_ok_and(|key| key == value)).map(|(_, result)| result)
            }),
            "range" => {
                let from = options["from"].as_f64().unwrap_or(f64::NEG_INFINITY);
                let to = options["to"].as_f64().unwrap_or(f64::INFINITY);
                (from..=to).contains(&value).then_some(&options["result"])
            }
            _ => None,
        };
        if let Some(colour) = result.and_then(|result| result["color"].as_str()) {
            return colour.to_owned();
        }
    }
    let mut steps = list(&config["thresholds"]["steps"]).iter();
    let reached = steps.rfind(|step| step["value"].as_f64().is_none_or(|from| from <= value));
    reached.map_or("", |step| text(&step["color"])).to_owned()
}

/// What would make somebody worry who looks at this field.
fn looks_bad(panel: &Json, field: &Field) -> Option<String> {
    let config = config(panel, field);
    // Lines have the colours of a palette; numbers and cells those of their values.
    let coloured = panel["type"] != "timeseries" || config["color"]["mode"] == "thresholds";
    for value in &field.values {
        let colour = colour(&config, *value);
        if coloured && colour.contains("red") {
            return Some(format!("{} reads {colour}: {value}", field.name));
        }
        let words = format!("{} {}", text(&panel["title"]), field.name).to_lowercase();
        let of_success = ["success", "availab", "good"].iter().any(|word| words.contains(word));
        if of_success && config["unit"] == "percentunit" && *value == 0.0 {
            return Some(format!("{} reads 0 %", field.name));
        }
    }
    None
}

// === The numbers ===

/// The overview's numbers are those of the load generator.
fn compare(
    server: &Prometheus,
    board: &Board,
    substitution: &Substitution,
    at: f64,
    records: &[Record],
    name: &str,
    report: &mut Report,
) {
    let window = f64::from(RATE_SECONDS);
    let seen: Vec<&Record> = records.iter().filter(|r| r.ended > at - window && r.ended <= at).collect();
    let rate = seen.len() as f64 / window;
    let failed = seen.iter().filter(|record| record.failed).count() as f64 / seen.len() as f64;
    let mut good: Vec<f64> = seen.iter().filter(|record| !record.failed).map(|record| record.seconds).collect();
    good.sort_by(f64::total_cmp);
    let p99 = good[(good.len() as f64 * 0.99).ceil() as usize - 1];

    let number = |title: &str| {
        let stats = panels(&board.json).into_iter().filter(|panel| panel["type"] == "stat");
        let found = stats.into_iter().find(|panel| text(&panel["title"]).starts_with(title));
        let panel = found.unwrap_or_else(|| panic!("no number called {title} on the overview"));
        let query = substitution.apply(text(&targets(panel)[0]["expr"]));
        let value = server.number(&query, at).unwrap_or(f64::NAN);
        println!("{name}: {title} {value}");
        value
    };
    let shown = (number(TRAFFIC), number(FAILED), number(LATENCY));
    println!("{name}: the load was {rate}/s, {failed} failed, p99 {p99} s");
    let bucket = |seconds: f64| EDGES.iter().position(|edge| seconds <= *edge).unwrap_or(EDGES.len());
    let holds = [
        ("requests per second", (shown.0 / rate - 1.0).abs() <= 0.02, shown.0, rate),
        ("share of failed requests", (shown.1 - failed).abs() <= 0.002, shown.1, failed),
        ("p99", bucket(shown.2).abs_diff(bucket(p99)) <= 1, shown.2, p99),
    ];
    for (what, holds, shown, expected) in holds {
        if !holds {
            report.faults.push(format!("{name} {}: {what}: shown {shown}, sent {expected}", board.path));
        }
    }
    // And that was a property of the load: the share is what was planned, the p99 that of the slow ones.
    assert!((failed - 1.0 / f64::from(FAILING)).abs() < 0.02, "{failed}");
    assert!((SLOW_SECONDS..SLOW_SECONDS * 1.5).contains(&p99), "{p99}");
}

// === These tools ===

#[test]
fn a_bad_look_is_seen() {
    let panel = |thresholds: Json, mappings: Json| {
        serde_json::json!({
            "type": "stat", "title": "Good requests",
            "fieldConfig": {"defaults": {
                "unit": "percentunit", "color": {"mode": "thresholds"}, "mappings": mappings, "thresholds": {"steps": thresholds},
            }, "overrides": [
                {"matcher": {"id": "byName", "options": "other"}, "properties": [{"id": "thresholds", "value": {"steps": []}}]},
            ]},
        })
    };
    let field = |name: &str, value: f64| Field { query: "A".into(), name: name.into(), values: vec![value] };
    let falling = serde_json::json!([{"color": "red", "value": null}, {"color": "blue", "value": 0.9}]);
    let plain = serde_json::json!([{"color": "blue", "value": null}]);
    let word = serde_json::json!([{"type": "value", "options": {"1": {"text": "Down", "color": "red"}}}]);
    let none = serde_json::json!([]);
    let (falling, mapped) = (panel(falling, none.clone()), panel(plain, word));
    assert!(looks_bad(&falling, &field("x", 0.5)).is_some());
    assert!(looks_bad(&falling, &field("x", 0.95)).is_none());
    assert!(looks_bad(&falling, &field("other", 0.5)).is_none(), "an override has other colours");
    assert!(looks_bad(&falling, &field("other", 0.0)).is_some(), "0 % of good requests");
    assert!(looks_bad(&mapped, &field("x", 1.0)).is_some());
    assert!(looks_bad(&mapped, &field("x", 2.0)).is_none());
    assert_eq!(legend("{{a}} of {{b}}", &Labels::from([("a".into(), "1".into())])), "1 of ");
}
