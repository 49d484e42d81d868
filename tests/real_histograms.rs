//! Latencies as two Prometheus servers store them, against what the clients measured themselves.
//!
//! One server reads native histograms (and asks for protobuf), one reads classic ones (and asks for OpenMetrics); both keep
//! exemplars. They scrape the same sidecar once a second while twenty connections send requests whose delays are known.
//!
//! Each request is measured three times, one inside of the other: the backend from the head it has read to the answer it is
//! about to write, the sidecar from the head it has read to the last byte it has written, the client from before its first
//! byte to after the last one. So what the sidecar says is held between the other two: a busy machine moves these apart, and
//! no tolerance has to be guessed for it.
//!
//! Needs `prometheus`; `make test` installs it. A missing one is a failure, not a reason to skip.

mod common;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::prometheus::{Exemplar, Histograms, Options, Prometheus, Version, now_seconds};
use common::{Backend, PATIENCE, Sidecar, response, wait_for, wait_until};
use tokio::time::Instant;

/// The family that is native, classic, and has exemplars.
const DURATION: &str = "http_server_request_duration_seconds";

/// The other family with exemplars.
const ERRORS: &str = "golden_errors_total";

/// Most that a quantile of a native histogram may be off: the promise.
const NATIVE_ERROR: f64 = 0.05;

/// Enough to have many requests under way at once, few enough for two cores.
const CONNECTIONS: usize = 20;

/// The sidecar reads its clock after the write that may already have woken the client; so much later at most, should it
/// be interrupted between the two.
const INTERRUPTED_SECONDS: f64 = 0.05;

/// Quantiles of the delays of a route: share of the requests and seconds, and a straight line of logarithms in between. A
/// long tail; around the quantiles that are asked for there is a request every percent or two, so that each of them is a
/// property of the load and not of a single request. None of them is near a classic edge.
type Delays = [(f64, f64); 6];

/// A route with its delays.
struct Route {
    template: &'static str,
    delays: Delays,
    /// How many of ten requests.
    share: usize,
}

const ROUTES: [Route; 2] = [
    Route {
        template: "/quick",
        delays: [(0.0, 0.002), (0.5, 0.012), (0.9, 0.060), (0.97, 0.150), (0.995, 0.185), (1.0, 0.240)],
        share: 6,
    },
    Route {
        template: "/items/{id}",
        delays: [(0.0, 0.008), (0.5, 0.036), (0.9, 0.200), (0.96, 0.520), (0.995, 0.640), (1.0, 0.800)],
        share: 4,
    },
];

/// What the classic buckets of the family are by default, in seconds.
const EDGES: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

#[test]
fn quantiles_of_both_kinds_of_histograms_are_those_that_the_clients_measured() {
    let scene = Scene::start();
    let mut plan = plan(1_000);
    // A rate sees what came after the first sample of a series: one request for each of them goes ahead.
    let mut seen = BTreeSet::new();
    let first: Vec<_> = plan.extract_if(.., |request| seen.insert((request.route, request.status))).collect();
    assert_eq!(first.len(), 4, "two routes, two statuses");
    let mut all = scene.send(&first);
    scene.wait_for_all(&all);
    let late = scene.send(&plan);
    all.extend(late.iter().cloned());
    let stored = scene.wait_for_all(&all);

    for route in [None, Some(ROUTES[0].template), Some(ROUTES[1].template)] {
        let measured = Measured::of(&all, route);
        assert_counts_and_sums(&stored, route, &measured);
        assert_every_bucket(&stored, route, &measured);
        let (native, classic) = (series("", route, ""), series("_bucket", route, ""));
        assert_quantiles(&stored, &measured, &format!("sum({native})"), &format!("sum by (le) ({classic})"));
        // As panels ask for them.
        let (native, classic) = (format!("sum(rate({native}[5m]))"), format!("sum by (le) (rate({classic}[5m]))"));
        assert_quantiles(&stored, &Measured::of(&late, route), &native, &classic);
    }

    // Each server has its kind and nothing else of the family.
    for suffix in ["_bucket", "_count", "_sum"] {
        assert_eq!(stored.native.number(&format!("count({DURATION}{suffix})")), None, "{suffix}");
    }
    assert_eq!(stored.classic.number(&format!("count({DURATION})")), None);
    scene.assert_all_was_taken();
}

/// Counts are exact, sums between those of the backend and of the clients.
#[track_caller]
fn assert_counts_and_sums(stored: &Stored<'_>, route: Option<&str>, measured: &Measured) {
    let (native, count, sum) = (series("", route, ""), series("_count", route, ""), series("_sum", route, ""));
    let expected = Some(measured.client.len() as f64);
    assert_eq!(stored.native.number(&format!("histogram_count(sum({native}))")), expected, "{native}");
    assert_eq!(stored.classic.number(&format!("sum({count})")), expected, "{count}");
    let (least, most) = (measured.backend.iter().sum::<f64>(), measured.client.iter().sum::<f64>());
    for sum in
        [stored.native.number(&format!("histogram_sum(sum({native}))")), stored.classic.number(&format!("sum({sum})"))]
    {
        let fits = sum.is_some_and(|sum| (least..=most * 1.01).contains(&sum));
        assert!(fits, "{native}: {sum:?} s, not {least} s to {most} s");
    }
}

/// Every bucket of both kinds holds what fell into it.
#[track_caller]
fn assert_every_bucket(stored: &Stored<'_>, route: Option<&str>, measured: &Measured) {
    let native = series("", route, "");
    let buckets = stored.native.native_buckets(&format!("sum({native})"));
    assert!(buckets.len() > 20, "{native}: {buckets:?}");
    let mut up_to = 0.0;
    for (lower, upper, count) in buckets {
        let error = (upper - lower) / (upper + lower);
        assert!(error <= NATIVE_ERROR, "{native}: a bucket from {lower} s to {upper} s");
        measured.assert_so_many_up_to(lower, up_to);
        up_to += count;
        measured.assert_so_many_up_to(upper, up_to);
    }
    for edge in EDGES {
        let bucket = series("_bucket", route, &format!("le='{edge:?}'"));
        let count = stored.classic.number(&format!("sum({bucket})"));
        measured.assert_so_many_up_to(edge, count.unwrap_or_else(|| panic!("there is no {bucket}")));
    }
}

/// The quantiles of both expressions are those that were measured, as closely as their buckets tell.
#[track_caller]
fn assert_quantiles(stored: &Stored<'_>, measured: &Measured, native: &str, classic: &str) {
    println!("{native}");
    for quantile in [0.5, 0.9, 0.99] {
        let (least, most) = measured.quantile(quantile);
        let of = |view: &View<'_>, expression: &str| {
            let expression = format!("histogram_quantile({quantile}, {expression})");
            view.number(&expression).unwrap_or_else(|| panic!("nothing for {expression}"))
        };
        let (native_seconds, classic_seconds) = (of(&stored.native, native), of(&stored.classic, classic));
        println!(
            "  {quantile:<4} client {most:.4} s, native {native_seconds:.4} s ({:+.1} %), classic {classic_seconds:.4} s, \
             backend {least:.4} s",
            (native_seconds / most - 1.0) * 100.0,
        );
        // What is behind the plus is the difference between the clocks of client and sidecar, or more.
        let tolerance = NATIVE_ERROR * most + (most - least);
        let off = (native_seconds - most).abs();
        assert!(off <= tolerance, "{quantile} of {native}: {native_seconds} s, not {least} s to {most} s");
        let bucket = lower_edge(least)..=upper_edge(most);
        assert!(bucket.contains(&classic_seconds), "{quantile} of {classic}: {classic_seconds} s, not in {bucket:?}");
    }
}

/// A selector for the durations of a route, or of all.
fn series(suffix: &str, route: Option<&str>, more: &str) -> String {
    let route = route.map_or_else(String::new, |route| format!("http_route='{route}',"));
    format!("{DURATION}{suffix}{{{route}{more}}}")
}

#[test]
fn exemplars_are_sampled_requests_with_their_own_latency_and_never_others() {
    let scene = Scene::start();
    let begun = now_seconds();
    let all = scene.send(&plan(120));
    scene.wait_for_all(&all);
    let by_trace: HashMap<String, &Record> =
        all.iter().filter_map(|record| Some((record.request.trace.as_ref()?.trace_id(), record))).collect();
    assert_eq!(by_trace.len(), 80, "two of three have a trace");
    let (native, classic) = (("native", &scene.native), ("classic", &scene.classic));
    for ((server, prometheus), series) in [(native, DURATION.to_owned()), (classic, format!("{DURATION}_bucket"))] {
        // Of a native series 2.42 keeps one exemplar of each page, that of the lowest bucket; of the others every bucket's.
        let mut routes = BTreeSet::new();
        let mut traces = BTreeSet::new();
        for name in [series.as_str(), ERRORS] {
            // Wider than the run: one from outside of it would be found, too.
            let exemplars = prometheus.exemplars(name, begun - 3_600.0, begun + 3_600.0);
            assert!(!exemplars.is_empty(), "{server}: {name} has no exemplars");
            for exemplar in exemplars {
                let Exemplar { labels, trace, value, at_seconds } = &exemplar;
                let told = |what: &str| format!("{server} {what}: {exemplar:?}");
                assert_eq!(
                    trace.keys().collect::<BTreeSet<_>>(),
                    BTreeSet::from([&"trace_id".into(), &"span_id".into()])
                );
                let record =
                    by_trace.get(&trace["trace_id"]).unwrap_or_else(|| panic!("{}", told("nobody sent this trace")));
                let sent = record.request.trace.as_ref().expect("that is how it was found");
                assert!(sent.sampled, "{}", told("this trace is not recorded"));
                assert_eq!(trace["span_id"], sent.span_id(), "{}", told("the span"));
                assert_eq!(labels["http_route"], record.request.route, "{}", told("the route"));
                let seconds = record.backend_seconds..=record.client_seconds + INTERRUPTED_SECONDS;
                if name == ERRORS {
                    assert_eq!((*value, labels["error_type"].as_str()), (1.0, "500"), "{}", told("an error is one"));
                    assert_eq!(record.request.status, 500, "{}", told("no error"));
                } else {
                    assert_eq!(labels["http_response_status_code"], record.request.status.to_string());
                    assert!(seconds.contains(value), "{}", told(&format!("took {seconds:?}")));
                    if let Some(edge) = labels.get("le").filter(|edge| *edge != "+Inf") {
                        let edge: f64 = edge.parse().expect("an edge");
                        assert!(*value <= edge && *value > lower_edge(edge * 0.999), "{}", told("another bucket"));
                    }
                    routes.insert(record.request.route);
                }
                let lifetime = record.sent_seconds - 0.01..=record.sent_seconds + seconds.end();
                assert!(lifetime.contains(at_seconds), "{}", told(&format!("lived {lifetime:?}")));
                traces.insert(trace["trace_id"].clone());
            }
        }
        assert_eq!(routes.len(), ROUTES.len(), "{server}: {routes:?}");
        println!("{server}: exemplars of {} requests", traces.len());
    }
    scene.assert_all_was_taken();
}

#[test]
fn start_times_disturb_nothing_and_types_are_read_right() {
    let scene = Scene::start();
    let all = scene.send(&plan(20));
    let stored = scene.wait_for_all(&all);

    // Samples on the page: every line that is no comment. The page's own size is among them, not their number.
    let page = scene.sidecar.admin_get("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n").text();
    let samples = page.lines().filter(|line| !line.starts_with('#')).count();
    assert!(page.lines().any(|line| line.starts_with("golden_requests_created{")), "no start times");
    wait_until("all samples of the page are stored", || {
        scene.classic.number("scrape_samples_scraped", now_seconds()) == Some(samples as f64)
    });
    // They say when the sidecar's series began, which was a moment ago.
    let age = stored.classic.number("max(time() - golden_requests_created)").expect("stored");
    assert!((0.0..120.0).contains(&age), "{age}");
    for view in [&stored.native, &stored.classic] {
        let dropped = view.number("scrape_samples_scraped - scrape_samples_post_metric_relabeling");
        assert_eq!(dropped, Some(0.0), "{:#?}", view.prometheus.complaints());
    }
    for (name, kind) in [(DURATION, "histogram"), ("golden_inflight_requests", "gauge")] {
        for prometheus in [&scene.native, &scene.classic] {
            assert_eq!(prometheus.kind(name).as_deref(), Some(kind), "{name}");
        }
    }
    // OpenMetrics names a counter's family without the suffix.
    assert_eq!(scene.native.kind("golden_requests_total").as_deref(), Some("counter"));
    assert_eq!(scene.classic.kind("golden_requests").as_deref(), Some("counter"));
    scene.assert_all_was_taken();
}

// === The load ===

/// A request to be sent.
#[derive(Clone)]
struct Request {
    route: &'static str,
    path: String,
    status: u16,
    delay: Duration,
    trace: Option<Trace>,
}

/// A trace that a request is a part of.
#[derive(Clone)]
struct Trace {
    trace: u128,
    span: u64,
    sampled: bool,
}

/// A request that was answered.
#[derive(Clone)]
struct Record {
    request: Request,
    /// As the client saw it.
    client_seconds: f64,
    /// As the backend saw it.
    backend_seconds: f64,
    /// When it was sent, in seconds since 1970.
    sent_seconds: f64,
}

/// Requests to both routes in an order that looks random and is always the same. One of ten fails; of three, one has a
/// recorded trace, one a trace that nobody records, one none.
fn plan(requests: usize) -> Vec<Request> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut plan = Vec::new();
    for route in &ROUTES {
        let count = requests * route.share / 10;
        plan.extend((0..count).map(|number| {
            let delay = Duration::from_secs_f64(delay_seconds(&route.delays, (number as f64 + 0.5) / count as f64));
            let path = route.template.replace("{id}", &number.to_string());
            Request { route: route.template, path, status: 200, delay, trace: None }
        }));
    }
    for at in (1..plan.len()).rev() {
        plan.swap(at, random.next() as usize % (at + 1));
    }
    for (number, request) in plan.iter_mut().enumerate() {
        request.status = if number % 10 == 7 { 500 } else { 200 };
        request.trace = (number % 3 != 2).then(|| Trace {
            trace: u128::from(random.next()) << 64 | u128::from(random.next()),
            span: random.next(),
            sampled: number % 3 == 0,
        });
    }
    plan
}

/// The delay that this share of the requests does not exceed.
fn delay_seconds(delays: &Delays, share: f64) -> f64 {
    let next = delays.iter().position(|point| point.0 >= share).expect("a share below 1").max(1);
    let (from, to) = (delays[next - 1], delays[next]);
    from.1 * (to.1 / from.1).powf((share - from.0) / (to.0 - from.0))
}

/// xorshift64*: a sequence that is the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

// === impl Request ===

impl Request {
    fn text(&self) -> String {
        let flag = |trace: &Trace| if trace.sampled { "01" } else { "00" };
        let traceparent = self.trace.as_ref().map_or_else(String::new, |trace| {
            format!("traceparent: 00-{}-{}-{}\r\n", trace.trace_id(), trace.span_id(), flag(trace))
        });
        format!(
            "GET {} HTTP/1.1\r\nHost: test\r\nX-Delay: {}\r\nX-Status: {}\r\n{traceparent}\r\n",
            self.path,
            self.delay.as_secs_f64(),
            self.status
        )
    }
}

// === impl Trace ===

impl Trace {
    fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }
}

/// Answers after the delay that the request asks for, and says how long it took.
fn backend() -> Backend {
    Backend::answering(|request| {
        let begun = Instant::now();
        let field = |name: &str| request.head.one(name).expect(name);
        let delay = Duration::from_secs_f64(field("x-delay").parse().expect("seconds"));
        #[allow(clippy::disallowed_methods, reason = "the delay is what is measured; nothing waits for a condition")]
        std::thread::sleep(delay);
        let status = field("x-status").parse().expect("a status");
        response(status, &format!("X-Took: {}\r\n", begun.elapsed().as_secs_f64()), "done\n")
    })
}

// === What was measured ===

/// Latencies outside and inside of what the sidecar measures, in seconds, sorted.
struct Measured {
    client: Vec<f64>,
    backend: Vec<f64>,
}

impl Measured {
    fn of(records: &[Record], route: Option<&str>) -> Measured {
        let records = || records.iter().filter(|record| route.is_none_or(|route| record.request.route == route));
        let mut client: Vec<_> = records().map(|record| record.client_seconds).collect();
        let mut backend: Vec<_> = records().map(|record| record.backend_seconds).collect();
        client.sort_by(f64::total_cmp);
        backend.sort_by(f64::total_cmp);
        Measured { client, backend }
    }

    /// The backend's quantile and the client's; the sidecar's is in between.
    fn quantile(&self, quantile: f64) -> (f64, f64) {
        let rank = (quantile * self.client.len() as f64).ceil() as usize;
        (self.backend[rank - 1], self.client[rank - 1])
    }

    /// Whether a histogram that has `count` up to an edge agrees: all that the client saw end by then, none that the backend
    /// had not answered yet. One percent for requests that the sidecar was interrupted in ([`INTERRUPTED_SECONDS`]).
    #[track_caller]
    fn assert_so_many_up_to(&self, edge_seconds: f64, count: f64) {
        let up_to = |seconds: &[f64]| seconds.partition_point(|seconds| *seconds <= edge_seconds) as f64;
        let (least, most) = (up_to(&self.client), up_to(&self.backend));
        let interrupted = (self.client.len() as f64 / 100.0).floor();
        let possible = least - interrupted..=most;
        assert!(possible.contains(&count), "{count} up to {edge_seconds} s; clients and backend say {least} to {most}");
    }
}

/// The classic edges around a value.
fn lower_edge(seconds: f64) -> f64 {
    EDGES.into_iter().rfind(|edge| *edge < seconds).unwrap_or(0.0)
}

fn upper_edge(seconds: f64) -> f64 {
    EDGES.into_iter().find(|edge| *edge >= seconds).unwrap_or(f64::INFINITY)
}

// === The scene ===

/// One scene at a time: two cores are not enough for six Prometheus servers, and the latencies would tell of that.
static STAGE: Mutex<()> = Mutex::new(());

/// A sidecar before a slow backend, and two servers that scrape it.
struct Scene {
    native: Prometheus,
    classic: Prometheus,
    sidecar: Sidecar,
    _backend: Backend,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    fn start() -> Scene {
        let alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
        let backend = backend();
        let routes: String = ROUTES.iter().map(|route| format!("  - path: {}\n", route.template)).collect();
        let sidecar = Sidecar::before(&backend).workers(2).yaml(format!("routes:\n{routes}")).start();
        let (native, classic) = std::thread::scope(|scope| {
            let start = |histograms| {
                Prometheus::start(Version::Oldest, Options { histograms, ..Options::scraping(sidecar.admin) })
            };
            let native = scope.spawn(move || start(Histograms::Native));
            let classic = start(Histograms::Classic);
            (native.join().expect("started"), classic)
        });
        Scene { native, classic, sidecar, _backend: backend, _alone: alone }
    }

    /// Sends all requests, each connection the next one that is left.
    fn send(&self, plan: &[Request]) -> Vec<Record> {
        let next = AtomicUsize::new(0);
        let sent = std::thread::scope(|scope| {
            let connection = || {
                let mut client = self.sidecar.client();
                let mut records = Vec::new();
                while let Some(request) = plan.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let text = request.text();
                    let (sent_seconds, begun) = (now_seconds(), Instant::now());
                    let answer = client.exchange(text);
                    let client_seconds = begun.elapsed().as_secs_f64();
                    assert_eq!(answer.status(), request.status, "{}", answer.text());
                    let backend_seconds = answer.head.one("x-took").expect("x-took").parse().expect("seconds");
                    records.push(Record { request: request.clone(), client_seconds, backend_seconds, sent_seconds });
                }
                records
            };
            let threads: Vec<_> = (0..CONNECTIONS.min(plan.len())).map(|_| scope.spawn(connection)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("all answered")).collect::<Vec<_>>()
        });
        assert_eq!(sent.len(), plan.len());
        sent
    }

    /// Waits for a scrape of each server that has seen them all.
    #[track_caller]
    fn wait_for_all(&self, all: &[Record]) -> Stored<'_> {
        let count = format!("{DURATION}_count");
        Stored {
            native: when_counted(&self.native, DURATION, &format!("histogram_count(sum({DURATION}))"), all.len()),
            classic: when_counted(&self.classic, &count, &format!("sum({count})"), all.len()),
        }
    }

    /// No scrape failed, and nothing of what was scraped was thrown away.
    #[track_caller]
    fn assert_all_was_taken(&self) {
        self.native.assert_all_was_taken();
        self.classic.assert_all_was_taken();
    }
}

/// What both servers have stored at a moment when they knew of all requests.
struct Stored<'a> {
    native: View<'a>,
    classic: View<'a>,
}

/// A server's numbers at one moment: should a later scrape fail, it changes nothing here.
struct View<'a> {
    prometheus: &'a Prometheus,
    at_seconds: f64,
}

/// What the server knows once it knows of so many requests.
#[track_caller]
fn when_counted<'a>(prometheus: &'a Prometheus, counter: &str, count: &str, requests: usize) -> View<'a> {
    let (mut view, mut counted) = (View { prometheus, at_seconds: now_seconds() }, None);
    let all = wait_for(PATIENCE * 3, || {
        // The moment of the scrape: should a later one have failed meanwhile, it is behind that.
        let scraped = prometheus.number(&format!("max(timestamp({counter}))"), now_seconds());
        view.at_seconds = scraped.unwrap_or(view.at_seconds);
        counted = view.number(count);
        counted == Some(requests as f64)
    });
    assert!(all, "{counter}: {counted:?} instead of {requests}; {:#?}", prometheus.complaints());
    view
}

// === impl View ===

impl View<'_> {
    /// The value of the only series; `None` when there is none.
    #[track_caller]
    fn number(&self, expression: &str) -> Option<f64> {
        self.prometheus.number(expression, self.at_seconds)
    }

    /// Lower edge, upper edge and count of each bucket of a native histogram.
    #[track_caller]
    fn native_buckets(&self, expression: &str) -> Vec<(f64, f64, f64)> {
        let mut series = self.prometheus.query(expression, self.at_seconds);
        assert_eq!(series.len(), 1, "{expression}: {series:?}");
        let buckets = series.remove(0).buckets;
        assert!(!buckets.is_empty(), "{expression} is no native histogram");
        buckets
    }
}
