//! Tests of the stores as a whole: what workers record is what the snapshot says. Those of `store.rs` and `native.rs`
//! are here too, because `tests/model.rs` compiles these files once more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use proptest::prelude::*;

use super::Signals;
use super::collect::{snapshot, snapshot_at};
use super::families as f;
use super::keys::{DurationKey, ErrorKey, RequestKey, RpcKey};
use super::native;
use super::shard::{RouteSignals, WorkerSignals};
use super::snapshot::{Exemplar, Histogram, Metric, MetricFamily, Value};
use super::store::{self, Edges, Total, TraceIds, Traced};
use crate::labels::{
    AbortPhase, ErrorType, Failure, Fault, FirstByte, Method, Origin, Phase, RouteId, RouteKind, RpcStatus, StreamEnd,
    Traffic,
};

/// The default edges of the configuration.
const EDGES: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const MS: u64 = 1_000_000;

// === Native buckets ===

/// Whether `nanos` are at most 2^(index/8) seconds, by arithmetic that knows no rounding: nanos^8 <= 2^index * 10^72.
fn at_most(nanos: u64, index: i32) -> bool {
    fn times(number: &mut Vec<u64>, factor: u64) {
        let mut carry = 0u128;
        for limb in number.iter_mut() {
            carry += u128::from(*limb) * u128::from(factor);
            *limb = carry as u64;
            carry >>= 64;
        }
        number.push(carry as u64);
    }
    let (mut left, mut right) = (vec![1], vec![1]);
    (0..8).for_each(|_| times(&mut left, nanos));
    (0..8).for_each(|_| times(&mut right, 1_000_000_000));
    (0..index.abs()).for_each(|_| times(if index < 0 { &mut left } else { &mut right }, 2));
    let limbs = left.len().max(right.len());
    left.resize(limbs, 0);
    right.resize(limbs, 0);
    left.iter().rev().le(right.iter().rev())
}

#[test]
fn native_buckets_are_exact_at_every_edge() {
    for cell in 0..native::CELLS - 1 {
        let above = native::lowest(cell + 1);
        let edge = above - 1;
        assert_eq!((native::cell(edge), native::cell(above)), (cell, cell + 1));
        assert!(at_most(edge, native::index(cell)), "{edge} ns, bucket {}", native::index(cell));
        assert!(!at_most(above, native::index(cell)), "{above} ns, bucket {}", native::index(cell));
    }
    assert_eq!((native::cell(0), native::cell(u64::MAX)), (0, native::CELLS - 1));
    // Powers of two seconds are the last value of their bucket.
    assert_eq!(native::index(native::cell(1_000_000_000)), 0);
    assert_eq!(native::index(native::cell(500_000_000)), -8);
    assert_eq!(native::index(native::cell(1_000_000_001)), 1);
    assert!(native::lowest(1) as f64 / 1e9 > native::ZERO_THRESHOLD_SECONDS);
    assert!((native::lowest(1) - 1) as f64 / 1e9 <= native::ZERO_THRESHOLD_SECONDS);
}

proptest! {
    #[test]
    fn the_native_bucket_is_that_of_the_logarithm(nanos in prop_oneof![0u64..5_000, 0u64..100_000_000_000, any::<u64>()]) {
        let exact = (nanos as f64 / 1e9).log2() * 8.0;
        // Within the error of the logarithm either bucket may be meant; the test above decides there.
        let expected = [(exact - 1e-9).ceil() as i32, (exact + 1e-9).ceil() as i32];
        let cell = native::cell(nanos);
        if cell == 0 {
            prop_assert!(nanos as f64 / 1e9 <= native::ZERO_THRESHOLD_SECONDS);
        } else {
            prop_assert!(expected.contains(&native::index(cell)), "{} ns: {} not in {expected:?}", nanos, native::index(cell));
        }
    }

    #[test]
    fn merging_keeps_every_count_in_a_bucket_around_it(
        counts in proptest::collection::btree_map(-159i32..=273, 1u64..1000, 0..434), most in 1usize..200,
    ) {
        let buckets: Vec<(i32, u64)> = counts.into_iter().collect();
        let (schema, merged) = native::merged(3, buckets.clone(), most);
        prop_assert!(merged.len() <= most || schema == -4);
        // Not coarser than it must be, unless the coarsest has too many still; and in order.
        let fits = schema < 3 && merged.len() <= most;
        prop_assert!(!fits || native::merged(3, buckets.clone(), merged.len()).0 == schema);
        prop_assert!(merged.is_sorted_by(|a, b| a.0 < b.0));
        let mut expected = BTreeMap::new();
        for (index, count) in buckets {
            // The smallest j with index/2^3 <= j/2^schema.
            let wide = 1 << (3 - schema);
            *expected.entry(-(-index).div_euclid(wide)).or_insert(0) += count;
        }
        prop_assert_eq!(merged, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_histogram_never_becomes_finer(
        first in proptest::collection::btree_set(-159i32..=273, 0..434), more in proptest::collection::btree_set(-159i32..=273, 0..434),
    ) {
        let shown = |set: &std::collections::BTreeSet<i32>| native::merged(3, set.iter().map(|i| (*i, 1)).collect(), 160).0;
        prop_assert!(shown(&first) >= shown(&first.union(&more).copied().collect()));
    }
}

// === Histograms ===

fn shown(histogram: &store::Histogram) -> Histogram {
    let mut total = Total::new(histogram.edges());
    histogram.add_to(&mut total);
    total.shown(0.0)
}

fn native_count(histogram: &Histogram) -> u64 {
    let native = histogram.native.as_ref().unwrap();
    native.zero_count + native.buckets.iter().map(|(_, count)| count).sum::<u64>()
}

#[test]
fn an_edge_belongs_to_its_own_bucket() {
    let histogram = store::Histogram::new(&Edges::new(&[0.005, 0.01, 0.1]));
    for nanos in [0, 5 * MS, 5 * MS + 1, 10 * MS, 100 * MS, 100 * MS + 1, u64::MAX] {
        histogram.observe(nanos);
    }
    assert_eq!(shown(&histogram).counts, [2, 2, 1, 2]);
}

#[test]
fn the_sum_is_exact_where_a_float_would_drift_and_where_64_bits_end() {
    let histogram = store::Histogram::new(&Edges::new(&[1.0]));
    for _ in 0..1_000_003 {
        histogram.observe(100_000_001);
    }
    assert_eq!(shown(&histogram).sum, (1_000_003u64 * 100_000_001) as f64 / 1e9);
    for _ in 0..3 {
        histogram.observe(u64::MAX);
    }
    assert_eq!(shown(&histogram).sum, (1_000_003 * 100_000_001 + 3 * u128::from(u64::MAX)) as f64 / 1e9);
}

#[test]
fn an_ordinary_histogram_is_small() {
    assert!(store::Histogram::ordinary_bytes(&Edges::new(&EDGES)) < 1024);
    // It asks for nothing as long as its values lie within some doublings, and for single pages beyond.
    let histogram = store::Histogram::new(&Edges::new(&EDGES));
    let asked = std::cell::Cell::new(0);
    let take = |bytes| {
        asked.set(asked.get() + bytes);
        bytes < 128
    };
    assert!((4..60).all(|ms| histogram.observe_within(ms * MS, None, take)));
    assert_eq!(asked.get(), 0);
    // Refused: nothing is recorded.
    let accepted = [1_000, 100_000, 1_000 * MS, 100_000 * MS].map(|nanos| histogram.observe_within(nanos, None, take));
    assert!(!accepted[3]);
    let recorded = 56 + accepted.iter().filter(|accepted| **accepted).count() as u64;
    assert_eq!((asked.get() % 128, shown(&histogram).count()), (0, recorded));
}

#[test]
fn thresholds_become_edges_once() {
    assert_eq!(Edges::with(&[0.1, 0.5], &[0.3, 0.1, 0.1 + 0.2, f64::INFINITY, -1.0]), [0.1, 0.3, 0.5]);
}

proptest! {
    #[test]
    fn both_kinds_of_buckets_agree_with_a_plain_search(
        edges in proptest::collection::btree_set(1u64..20_000_000_000, 0..30),
        values in proptest::collection::vec(prop_oneof![0u64..3_000, 0u64..20_000_000_000, any::<u64>()], 0..60),
    ) {
        let seconds: Vec<f64> = edges.iter().map(|nanos| *nanos as f64 / 1e9).collect();
        let histogram = store::Histogram::new(&Edges::new(&seconds));
        // The edges themselves and their neighbours too.
        let values: Vec<u64> = edges.iter().flat_map(|edge| [edge - 1, *edge, edge + 1]).chain(values).collect();
        let mut classic = vec![0; edges.len() + 1];
        let (mut zero, mut buckets) = (0, BTreeMap::new());
        for nanos in &values {
            histogram.observe(*nanos);
            classic[edges.iter().position(|edge| nanos <= edge).unwrap_or(edges.len())] += 1;
            match native::cell(*nanos) {
                0 => zero += 1,
                cell => *buckets.entry(native::index(cell)).or_insert(0) += 1,
            }
        }
        let seen = shown(&histogram);
        prop_assert_eq!(&seen.counts, &classic);
        prop_assert_eq!(seen.sum, values.iter().copied().map(u128::from).sum::<u128>() as f64 / 1e9);
        let native = seen.native.unwrap();
        prop_assert_eq!((native.schema, native.zero_count), (3, zero));
        prop_assert_eq!(native.buckets, buckets.into_iter().collect::<Vec<_>>());
    }
}

// === Signals ===

fn worker(signals: &Arc<Signals>) -> WorkerSignals {
    WorkerSignals::new(signals, 0)
}

fn request(status: u16) -> RequestKey {
    RequestKey { method: Method::Get, status, origin: Origin::Backend, traffic: Traffic::User }
}

fn duration(status: u16) -> DurationKey {
    DurationKey { method: Method::Get, status, error: ErrorType::NONE }
}

fn family<'p>(page: &'p [MetricFamily], family: &f::Family) -> &'p [Metric] {
    page.iter().find(|f| f.name == family.name).map_or(&[], |f| &f.metrics)
}

fn find<'p>(page: &'p [MetricFamily], wanted: &f::Family, labels: &[(&str, &str)]) -> Option<&'p Metric> {
    family(page, wanted).iter().find(|metric| {
        labels
            .iter()
            .all(|(name, value)| metric.labels.iter().any(|(n, v)| n.as_str() == *name && v.as_str() == *value))
    })
}

fn number(page: &[MetricFamily], wanted: &f::Family, labels: &[(&str, &str)]) -> Option<f64> {
    find(page, wanted, labels).map(|metric| match &metric.value {
        Value::Counter(value, _) | Value::Number(value) => *value,
        other => panic!("{other:?}"),
    })
}

fn histogram<'p>(page: &'p [MetricFamily], wanted: &f::Family, labels: &[(&str, &str)]) -> Option<&'p Histogram> {
    find(page, wanted, labels).map(|metric| match &metric.value {
        Value::Histogram(histogram) => &**histogram,
        other => panic!("{other:?}"),
    })
}

fn declared(signals: &Signals, name: &str) -> RouteId {
    signals.declare_route(name, RouteKind::Declared, None).unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Count(usize, usize, u16),
    Observe(usize, usize, u16, u64),
    Scrape,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_snapshot_is_the_sum_of_what_the_shards_were_told(steps in proptest::collection::vec(prop_oneof![
        (0..3usize, 0..4usize, 200..204u16).prop_map(|(w, r, s)| Step::Count(w, r, s)),
        (0..3usize, 0..4usize, 200..204u16, 0..20_000_000_000u64).prop_map(|(w, r, s, n)| Step::Observe(w, r, s, n)),
        Just(Step::Scrape),
    ], 0..200)) {
        let signals = Signals::new(3, &EDGES, 100);
        let workers: Vec<_> = (0..3).map(|index| WorkerSignals::new(&signals, index)).collect();
        let names = ["/a", "/b", "/c", "/d"];
        let ids: Vec<RouteId> = names.iter().map(|name| declared(&signals, name)).collect();
        let mut counted: BTreeMap<(usize, u16), u64> = BTreeMap::new();
        let mut observed: BTreeMap<(usize, u16), Vec<u64>> = BTreeMap::new();
        for step in steps.into_iter().chain([Step::Scrape]) {
            match step {
                Step::Count(worker, route, status) => {
                    *counted.entry((route, status)).or_default() += 1;
                    workers[worker].count_request(&workers[worker].route(ids[route]), request(status));
                }
                Step::Observe(worker, route, status, nanos) => {
                    observed.entry((route, status)).or_default().push(nanos);
                    workers[worker].observe_duration(&workers[worker].route(ids[route]), duration(status), nanos, None);
                }
                Step::Scrape => {
                    let page = snapshot(&signals);
                    for ((route, status), count) in &counted {
                        let status = status.to_string();
                        let labels = [("http_route", names[*route]), ("http_response_status_code", &status)];
                        prop_assert_eq!(number(&page, &f::REQUESTS, &labels), Some(*count as f64));
                    }
                    for ((route, status), nanos) in &observed {
                        let status = status.to_string();
                        let labels = [("http_route", names[*route]), ("http_response_status_code", &status)];
                        let seen = histogram(&page, &f::DURATION, &labels).unwrap();
                        prop_assert_eq!((seen.count(), native_count(seen)), (nanos.len() as u64, nanos.len() as u64));
                        prop_assert_eq!(seen.sum, nanos.iter().sum::<u64>() as f64 / 1e9);
                    }
                    prop_assert_eq!(family(&page, &f::DURATION).len(), observed.len());
                }
            }
        }
        for (id, name, _, requests) in signals.requests_by_route() {
            let of = |route: &usize| ids[*route] == id;
            let expected: u64 = counted.iter().filter(|((route, _), _)| of(route)).map(|(_, count)| count).sum();
            prop_assert_eq!(requests, expected, "{}", name);
        }
    }
}

#[test]
fn no_snapshot_contradicts_itself_while_workers_write() {
    /// Long enough for thousands of snapshots, also where a build is slow.
    const FOR: Duration = Duration::from_millis(700);
    let signals = Signals::new(2, &EDGES, 100);
    let route = declared(&signals, "/a");
    let stop = AtomicBool::new(false);
    let snapshots = std::thread::scope(|scope| {
        for index in 0..2u64 {
            let (signals, stop) = (&signals, &stop);
            scope.spawn(move || {
                let worker = WorkerSignals::new(signals, index as usize);
                let route = worker.route(route);
                let mut at = 0u64;
                while !stop.load(Relaxed) {
                    at += 1;
                    // Whole seconds, so that the sum says how many there were of each: n + 2^20 · m.
                    let ids = TraceIds { trace_id: u128::from(at) << 64 | u128::from(at), span_id: at };
                    let traced = at.is_multiple_of(16).then_some(Traced { ids, at });
                    worker.observe_duration(&route, duration(200), 1_000_000_000, traced);
                    // A worker has something else to do than to observe: without any pause no reader would get through.
                    (0..200).for_each(|_| std::hint::spin_loop());
                }
            });
        }
        let begun = tokio::time::Instant::now();
        let (mut snapshots, mut before) = (0, 0);
        while begun.elapsed() < FOR {
            let page = snapshot(&signals);
            let Some(seen) = histogram(&page, &f::DURATION, &[("http_route", "/a")]) else { continue };
            assert_eq!(seen.count(), native_count(seen));
            assert_eq!(seen.sum, seen.count() as f64, "the sum of so many whole seconds");
            assert!(seen.count() >= before);
            for (_, Exemplar { trace_id, span_id, .. }) in &seen.exemplars {
                assert_eq!((*trace_id >> 64, *trace_id as u64), (u128::from(*span_id), *span_id));
            }
            before = seen.count();
            snapshots += 1;
        }
        stop.store(true, Relaxed);
        snapshots
    });
    assert!(snapshots > 10, "{snapshots} snapshots");
}

#[test]
fn a_traced_request_leaves_an_exemplar_where_it_was_counted() {
    let signals = Signals::new(2, &EDGES, 100);
    let workers = [0, 1].map(|index| WorkerSignals::new(&signals, index));
    let id = declared(&signals, "/a");
    let routes = [workers[0].route(id), workers[1].route(id)];
    let ids = |n: u128| TraceIds { trace_id: n, span_id: n as u64 };
    let now = super::Moment::now().nanos();
    let at = |n: u64| Some(Traced { ids: ids(u128::from(n)), at: now + n * MS });
    workers[0].observe_duration(&routes[0], duration(200), 7 * MS, at(1));
    workers[1].observe_duration(&routes[1], duration(200), 8 * MS, at(2));
    workers[0].observe_duration(&routes[0], duration(200), 9 * MS, None);
    workers[0].observe_duration(&routes[0], duration(200), 90_000 * MS, at(3));
    workers[0].observe_first_byte(&routes[0], FirstByte::Success, 3 * MS, at(4));
    let error = ErrorType::from_failure(Failure::ALL[0]);
    let key = ErrorKey { error, fault: Fault::Backend, phase: Phase::Wait };
    workers[0].count_abort(&routes[0], AbortPhase::BeforeHead, 2 * MS, at(6));
    workers[0].observe_stream(&routes[0], StreamEnd::Complete, 50 * MS, at(7));
    let call = RpcKey { status: RpcStatus::Ok, error: ErrorType::NONE };
    workers[0].observe_rpc(&routes[0], call, 6 * MS, at(8));
    workers[0].count_error(&routes[0], key, at(5));
    workers[1].count_error(&routes[1], key, None);
    let page = snapshot(&signals);
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let durations = histogram(&page, &f::DURATION, &[]).unwrap();
    let brief: Vec<_> = durations.exemplars.iter().map(|(at, e)| (*at, e.trace_id, e.span_id, e.value)).collect();
    assert_eq!(brief, [(1, 2, 2, 0.008), (14, 3, 3, 90.0)]);
    assert!(durations.exemplars.iter().all(|(_, exemplar)| (exemplar.at_seconds - wall).abs() < 60.0));
    let first_byte = histogram(&page, &f::FIRST_BYTE, &[]).unwrap();
    assert_eq!(first_byte.exemplars.iter().map(|(at, e)| (*at, e.trace_id)).collect::<Vec<_>>(), [(0, 4)]);
    for (family, expected) in
        [(&f::ABORT_WAIT, (0, 6, 0.002)), (&f::STREAM_DURATION, (0, 7, 0.05)), (&f::RPC_DURATION, (1, 8, 0.006))]
    {
        let seen = histogram(&page, family, &[]).unwrap();
        assert_eq!(seen.exemplars.iter().map(|(at, e)| (*at, e.trace_id, e.value)).collect::<Vec<_>>(), [expected]);
    }
    let Value::Counter(errors, Some(exemplar)) = &family(&page, &f::ERRORS)[0].value else { panic!() };
    assert_eq!((*errors, exemplar.trace_id, exemplar.value), (2.0, 5, 1.0));
    // The same event has the same time on every page.
    let again = snapshot(&signals);
    assert_eq!(histogram(&again, &f::DURATION, &[]).unwrap().exemplars, durations.exemplars);
    // And what counts says since when, which stays as it is.
    let (metric, later) = (find(&page, &f::DURATION, &[]).unwrap(), find(&again, &f::DURATION, &[]).unwrap());
    assert!((metric.created_seconds.unwrap() - wall).abs() < 60.0);
    assert_eq!(metric.created_seconds, later.created_seconds);
    assert!(find(&page, &f::RETRIES, &[]).unwrap().created_seconds.is_some());
    assert!(find(&page, &f::INFLIGHT, &[]).unwrap().created_seconds.is_none());
}

#[test]
fn what_is_recorded_under_other_because_of_a_limit_is_counted_as_overflow() {
    let signals = Signals::new(1, &EDGES, 3);
    let worker = worker(&signals);
    let overflow = |family: &f::Family| number(&snapshot(&signals), &f::OVERFLOW, &[("family", family.name)]);
    let names = ["/a", "/b", "/c", "/d"];
    let ids = names.map(|name| signals.declare_route(name, RouteKind::Declared, None));
    assert_eq!(ids[3], None);
    assert_eq!(number(&snapshot(&signals), &f::ROUTES_FOLDED, &[]), Some(0.0), "nothing was folded");
    // Of the limit of routes: the router gives out `_other`.
    let other = worker.route(RouteId::OTHER);
    (0..5).for_each(|_| worker.observe_duration(&other, duration(200), MS, None));
    assert_eq!(overflow(&f::DURATION), Some(5.0));
    // Of the limit of the family.
    let route = worker.route(ids[0].unwrap());
    (0..3).for_each(|status| worker.observe_duration(&route, duration(status), MS, None));
    assert_eq!(overflow(&f::DURATION), Some(5.0));
    (0..4).for_each(|_| worker.observe_duration(&route, duration(200), MS, None));
    assert_eq!(overflow(&f::DURATION), Some(9.0));
    let page = snapshot(&signals);
    assert_eq!(histogram(&page, &f::DURATION, &[("http_route", "_other")]).unwrap().count(), 9);
    assert_eq!(family(&page, &f::DURATION).len(), 4);
    // Three of them count, which is the limit.
    assert_eq!(number(&page, &f::SERIES, &[("family", f::DURATION.name)]), Some(3.0));
    assert_eq!(number(&page, &f::OVERFLOW, &[("family", f::REQUESTS.name)]), Some(0.0));
}

#[test]
fn routes_keep_their_index_and_say_where_they_come_from() {
    let signals = Signals::new(1, &EDGES, 100);
    let worker = worker(&signals);
    let a = declared(&signals, "/a");
    let learned = signals.declare_route("/l/{id}", RouteKind::Learned, None).unwrap();
    let imported = signals.declare_route("/o", RouteKind::OpenApi, Some(&[0.5])).unwrap();
    assert_eq!(declared(&signals, "/a"), a);
    signals.set_routes_pending(7);
    signals.set_routes_folded(3);
    signals.set_routes_forgotten(5);
    let page = snapshot(&signals);
    let kinds = ["declared", "openapi", "learned", "pending"];
    assert_eq!(kinds.map(|kind| number(&page, &f::ROUTES, &[("kind", kind)])), [1.0, 1.0, 1.0, 7.0].map(Some));
    let learner = [&f::ROUTES_FOLDED, &f::ROUTES_FORGOTTEN].map(|family| number(&page, family, &[]));
    assert_eq!(learner, [3.0, 5.0].map(Some));
    let requests = |route: &str| number(&snapshot(&signals), &f::REQUESTS, &[("http_route", route)]);
    // Only a declared route has series before its first request.
    assert_eq!((requests("/a"), requests("/l/{id}"), requests("/o")), (Some(0.0), None, None));
    worker.count_request(&worker.route(learned), request(200));
    worker.observe_duration(&worker.route(imported), duration(200), MS, None);
    assert_eq!((requests("/l/{id}"), requests("/o")), (Some(1.0), Some(0.0)));
    // A learned route that is declared later stays itself, and so do its edges.
    assert_eq!(signals.declare_route("/l/{id}", RouteKind::Declared, Some(&[9.0])), Some(learned));
    assert_eq!(**signals.route_edges(learned).seconds(), EDGES);
    let by_route: Vec<_> =
        signals.requests_by_route().into_iter().map(|(_, name, kind, n)| (name.to_string(), kind, n)).collect();
    let expected = [
        ("_unmatched", None, 0),
        ("_other", None, 0),
        ("/a", Some(RouteKind::Declared), 0),
        ("/l/{id}", Some(RouteKind::Declared), 1),
        ("/o", Some(RouteKind::OpenApi), 0),
    ];
    assert_eq!(by_route, expected.map(|(name, kind, n)| (name.to_owned(), kind, n)));
}

#[test]
fn a_route_comes_from_the_first_of_its_sources_whoever_knew_it_first() {
    let [declared, openapi, learned] = [RouteKind::Declared, RouteKind::OpenApi, RouteKind::Learned];
    for (order, expected) in [
        (&[declared, learned][..], declared),
        (&[declared, openapi, learned], declared),
        (&[openapi, learned], openapi),
        (&[learned, openapi], openapi),
        (&[learned, declared, learned], declared),
    ] {
        let signals = Signals::new(1, &EDGES, 100);
        let ids: Vec<_> = order.iter().map(|kind| signals.declare_route("/a", *kind, None)).collect();
        assert!(ids.iter().all(|id| *id == ids[0] && id.is_some()));
        let kinds: Vec<_> = signals.requests_by_route().into_iter().filter_map(|(.., kind, _)| kind).collect();
        assert_eq!(kinds, [expected], "{order:?}");
    }
}

#[test]
fn memory_has_a_bound_and_other_works_beyond_it() {
    let signals = Signals::new(2, &EDGES, 100_000);
    let workers = [0, 1].map(|index| WorkerSignals::new(&signals, index));
    let limit = 1 << 20;
    signals.set_memory_limit(limit);
    let ids: Vec<_> = (0..50).map(|n| signals.declare_route(&format!("/{n}"), RouteKind::Learned, None)).collect();
    let routes = |worker: &WorkerSignals| -> Vec<std::rc::Rc<RouteSignals>> {
        ids.iter().map(|id| worker.route(id.unwrap_or(RouteId::OTHER))).collect()
    };
    let mut observations = 0u64;
    for worker in &workers {
        for route in &routes(worker) {
            for status in 200..260 {
                // All over the scale, so that it needs every page there is.
                for exponent in [1, 12, 16, 20, 24, 28, 32, 36] {
                    worker.observe_duration(route, duration(status), 1 << exponent, None);
                    observations += 1;
                }
            }
        }
    }
    let page = snapshot(&signals);
    let limits = [&f::MEMORY, &f::MEMORY_LIMIT].map(|family| number(&page, family, &[]).unwrap());
    assert_eq!(limits[1], limit as f64);
    // 60 label sets of `_other` for two workers come on top.
    assert!(limits[0] > 0.95 * limit as f64 && limits[0] < (limit + 60 * 2 * 4096) as f64, "{limits:?}");
    assert!(family(&page, &f::DURATION).len() < 1500);
    let seen = family(&page, &f::DURATION).iter().map(|metric| match &metric.value {
        Value::Histogram(histogram) => histogram.count(),
        other => panic!("{other:?}"),
    });
    assert_eq!(seen.sum::<u64>(), observations, "every observation is somewhere");
    let other =
        family(&page, &f::DURATION).iter().filter(|m| m.labels[1].1.as_str() == "_other").map(|m| match &m.value {
            Value::Histogram(histogram) => histogram.count(),
            other => panic!("{other:?}"),
        });
    assert_eq!(number(&page, &f::OVERFLOW, &[("family", f::DURATION.name)]), Some(other.sum::<u64>() as f64));
    // `_unmatched` works as well, and a route that comes now gets no label.
    workers[0].observe_duration(&workers[0].route(RouteId::UNMATCHED), duration(404), MS, None);
    assert!(histogram(&snapshot(&signals), &f::DURATION, &[("http_route", "_unmatched")]).is_some());
    assert_eq!(signals.declare_route("/late", RouteKind::Learned, None), None);
}

#[test]
fn an_idle_label_set_goes_and_comes_back_with_its_count() {
    let signals = Signals::new(1, &EDGES, 100);
    let worker = worker(&signals);
    let learned = signals.declare_route("/l", RouteKind::Learned, None).unwrap();
    let route = worker.route(learned);
    declared(&signals, "/d");
    let start = tokio::time::Instant::now();
    // Requests and durations of the learned route after so many seconds, and requests of the declared one.
    let seen = |seconds: u64| {
        let page = snapshot_at(&signals, start + Duration::from_secs(seconds));
        let requests =
            |route| number(&page, &f::REQUESTS, &[("http_route", route), ("http_response_status_code", "200")]);
        (requests("/l"), histogram(&page, &f::DURATION, &[]).map(Histogram::count), requests("/d"))
    };
    let record = || {
        worker.count_request(&route, request(200));
        worker.observe_duration(&route, duration(200), MS, None);
    };
    record();
    assert_eq!((seen(0), seen(1000)), ((Some(1.0), Some(1), Some(0.0)), (Some(1.0), Some(1), Some(0.0))), "off");
    signals.set_series_idle(Some(Duration::from_secs(60)));
    assert_eq!(seen(2000), (Some(1.0), Some(1), Some(0.0)));
    assert_eq!(seen(2059), (Some(1.0), Some(1), Some(0.0)));
    // The zeros of a declared route stay.
    assert_eq!(seen(2060), (None, None, Some(0.0)));
    // Its place in the limit stays taken.
    let kept =
        number(&snapshot_at(&signals, start + Duration::from_secs(2060)), &f::SERIES, &[("family", f::DURATION.name)]);
    assert_eq!(kept, Some(1.0));
    record();
    assert_eq!(seen(5000), (Some(2.0), Some(2), Some(0.0)));
    assert_eq!(seen(5060), (None, None, Some(0.0)));
    signals.set_series_idle(None);
    assert_eq!(seen(5061), (Some(2.0), Some(2), Some(0.0)));
}
