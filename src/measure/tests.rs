//! gRPC calls as the page tells of them. What a call is at its end is tested where it is decided (`outcome.rs`), on the wire
//! from outside; here, what is told of it on the way.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Begin, Meter, Moment, Observation, ResponseKind, Rpc};
use crate::labels::{Failure, Method, Phase, RouteId, RouteKind, RpcStatus, Traffic, TunnelProtocol};
use crate::signals::Signals;
use crate::signals::collect::snapshot;
use crate::signals::snapshot::{MetricFamily, Value};

const CALL: Option<Rpc> = Some(Rpc { deadline: None });
const METHOD: &str = "shop.Cart/Add";

fn worker() -> (Arc<Signals>, Rc<Meter>, RouteId) {
    let signals = Signals::new(1, &[0.1, 1.0], 100);
    let route = signals.declare_route("/shop.Cart/Add", RouteKind::Declared, None).unwrap();
    let worker = Rc::new(Meter::new(&signals, 0));
    (signals, worker, route)
}

fn begin(worker: &Rc<Meter>, route: RouteId, rpc: Option<Rpc>) -> Observation {
    let at = Moment::now();
    Observation::begin(worker, Begin { route, method: Method::Post, traffic: Traffic::User, at, trace: None, rpc })
}

fn head(observation: &mut Observation, status: u16) {
    observation.head(status, ResponseKind::Plain, Moment::now(), Moment::now());
}

/// The sum of a family's numbers, or of a histogram's counts, over all label sets that have these values.
fn number(page: &[MetricFamily], family: &str, values: &[&str]) -> f64 {
    let metrics = page.iter().filter(|f| f.name == family).flat_map(|f| &f.metrics);
    let wanted =
        metrics.filter(|m| values.iter().all(|value| m.labels.iter().any(|(_, text)| text.as_str() == *value)));
    wanted
        .map(|metric| match &metric.value {
            Value::Counter(value, _) | Value::Number(value) => *value,
            Value::Histogram(histogram) => histogram.count() as f64,
            Value::Summary(..) => panic!("there are none"),
        })
        .sum()
}

const RPC: &str = "rpc_server_call_duration_seconds";
const HTTP: &str = "http_server_request_duration_seconds";
const STREAMS: &str = "golden_streams";
const STREAM_DURATION: &str = "golden_stream_duration_seconds";
const ERRORS: &str = "golden_errors_total";
const ABORTS: &str = "golden_client_aborts_total";
const FIRST_BYTE: &str = "golden_time_to_first_byte_seconds";

#[test]
fn a_status_in_the_head_fails_the_first_byte_and_one_in_the_trailers_the_body() {
    let (signals, worker, route) = worker();
    let mut observation = begin(&worker, route, CALL);
    observation.rpc_status(RpcStatus::Unavailable);
    head(&mut observation, 200);
    observation.finish(Moment::now());
    let page = snapshot(&signals);
    assert_eq!(number(&page, FIRST_BYTE, &["server_error"]), 1.0);
    assert_eq!(number(&page, ERRORS, &["UNAVAILABLE", "backend", "wait"]), 1.0);

    let mut observation = begin(&worker, route, CALL);
    head(&mut observation, 200);
    observation.rpc_status(RpcStatus::Unavailable);
    observation.finish(Moment::now());
    let page = snapshot(&signals);
    assert_eq!(number(&page, FIRST_BYTE, &["success"]), 1.0);
    assert_eq!(number(&page, ERRORS, &["UNAVAILABLE", "backend", "body"]), 1.0);
    assert_eq!(number(&page, RPC, &[METHOD, "UNAVAILABLE"]), 2.0);
    // The status stays what it was.
    assert_eq!(number(&page, HTTP, &["/shop.Cart/Add", "200", "UNAVAILABLE"]), 2.0);
    assert_eq!(number(&page, "golden_requests_total", &["200", "POST", "backend"]), 2.0);
}

#[test]
fn what_is_no_call_is_in_no_family_of_calls() {
    let (signals, worker, route) = worker();
    let mut observation = begin(&worker, route, None);
    observation.rpc_status(RpcStatus::Internal);
    observation.becomes_stream();
    head(&mut observation, 200);
    assert!(!observation.rpc_deadline_passed(Moment::now()));
    observation.finish(Moment::now());
    // Nor is a tunnel, whatever it was asked for with.
    begin(&worker, route, CALL).upgraded(TunnelProtocol::Other, Moment::now(), Moment::now());
    let page = snapshot(&signals);
    let zeros = [RPC, ERRORS, STREAMS, STREAM_DURATION].map(|family| number(&page, family, &[]));
    assert_eq!(zeros, [0.0; 4]);
    assert_eq!((number(&page, HTTP, &["200"]), number(&page, HTTP, &["101"])), (1.0, 0.0));
}

#[test]
fn a_stream_loses_its_age_once_and_is_in_the_histograms_all_the_same() {
    let (signals, worker, route) = worker();
    let oldest = || number(&snapshot(&signals), "golden_inflight_oldest_age_seconds", &["/shop.Cart/Add"]);
    let mut stream = begin(&worker, route, CALL);
    let mut unary = begin(&worker, route, CALL);
    std::thread::yield_now();
    assert!(oldest() > 0.0);
    for _ in 0..3 {
        stream.becomes_stream();
    }
    assert_eq!(number(&snapshot(&signals), STREAMS, &["/shop.Cart/Add"]), 1.0);
    head(&mut unary, 200);
    unary.rpc_status(RpcStatus::Ok);
    unary.finish(Moment::now());
    let page = snapshot(&signals);
    assert_eq!(oldest(), 0.0, "the stream has none");
    assert_eq!(number(&page, "golden_inflight_requests", &["/shop.Cart/Add"]), 1.0);
    // An answer that says that it is an event stream makes no second one of it.
    stream.head(200, ResponseKind::EventStream, Moment::now(), Moment::now());
    stream.rpc_status(RpcStatus::Ok);
    stream.finish(Moment::now());
    let mut stream = begin(&worker, route, CALL);
    head(&mut stream, 200);
    stream.becomes_stream();
    stream.rpc_status(RpcStatus::DataLoss);
    stream.finish(Moment::now());
    let page = snapshot(&signals);
    assert_eq!((number(&page, STREAMS, &[]), number(&page, "golden_inflight_requests", &[])), (0.0, 0.0));
    assert_eq!(number(&page, STREAM_DURATION, &["complete"]), 2.0);
    assert_eq!(number(&page, RPC, &[METHOD]), 3.0);
    assert_eq!(number(&page, HTTP, &[]), 2.0, "all but the one that became an event stream");
    assert_eq!(number(&page, ERRORS, &["DATA_LOSS"]), 1.0);
}

#[test]
fn a_stream_that_earns_another_route_moves_there_with_its_gauges() {
    let (signals, worker, route) = worker();
    let other = signals.declare_route("/other", RouteKind::Learned, None).unwrap();
    let mut first = begin(&worker, route, CALL);
    let mut stream = begin(&worker, route, CALL);
    stream.becomes_stream();
    stream.reroute(other);
    first.reroute(other);
    let page = snapshot(&signals);
    for (family, here) in [(STREAMS, 1.0), ("golden_inflight_requests", 2.0)] {
        assert_eq!(number(&page, family, &["/other"]), here, "{family}");
        assert_eq!(number(&page, family, &["/shop.Cart/Add"]), 0.0, "{family}");
    }
    drop((first, stream));
    let page = snapshot(&signals);
    assert_eq!((number(&page, STREAMS, &[]), number(&page, "golden_inflight_requests", &[])), (0.0, 0.0));
    assert_eq!(number(&page, "golden_inflight_oldest_age_seconds", &[]), 0.0);
}

#[test]
fn a_call_that_is_cancelled_is_an_abort_unless_it_is_a_stream_or_its_deadline_has_passed() {
    let (signals, worker, route) = worker();
    drop(begin(&worker, route, CALL));
    let mut stream = begin(&worker, route, CALL);
    stream.becomes_stream();
    drop(stream);
    drop(begin(&worker, route, Some(Rpc { deadline: Some(Duration::from_secs(3600)) })));
    let page = snapshot(&signals);
    assert_eq!(number(&page, RPC, &[METHOD, "CANCELLED"]), 3.0);
    assert_eq!((number(&page, ABORTS, &["before_head"]), number(&page, ERRORS, &[])), (2.0, 0.0));
    assert_eq!(number(&page, STREAM_DURATION, &["client_abort"]), 1.0);

    drop(begin(&worker, route, Some(Rpc { deadline: Some(Duration::ZERO) })));
    let page = snapshot(&signals);
    assert_eq!(number(&page, RPC, &[METHOD, "DEADLINE_EXCEEDED"]), 1.0);
    assert_eq!(number(&page, ERRORS, &["DEADLINE_EXCEEDED", "backend", "wait"]), 1.0);
    assert_eq!(number(&page, ABORTS, &[]), 2.0);
    assert_eq!(number(&page, "golden_requests_total", &["", "backend"]), 1.0, "among what can be good or bad");
}

#[test]
fn a_client_may_hang_up_a_little_before_its_deadline() {
    let (_signals, worker, route) = worker();
    for (millis, early) in [(10_000, 100), (1000, 10), (100, 10), (5, 5)] {
        let deadline = Duration::from_millis(millis);
        let observation = begin(&worker, route, Some(Rpc { deadline: Some(deadline) }));
        let begun = observation.live.started.nanos();
        let at = begun + (millis - early) * 1_000_000;
        assert_eq!(observation.live.rpc_deadline, at, "{deadline:?}");
        assert_eq!(observation.rpc_deadline_passed(observation.live.started), millis == early);
    }
    let never = begin(&worker, route, Some(Rpc { deadline: Some(Duration::from_secs(99_999_999 * 3600)) }));
    assert_eq!(never.live.rpc_deadline, u64::MAX);
}

#[test]
fn a_call_that_did_not_get_through_keeps_its_error_and_says_what_its_client_was_told() {
    let (signals, worker, route) = worker();
    let mut observation = begin(&worker, route, CALL);
    observation.fail(Failure::ConnectRefused, Phase::Connect);
    observation.answered(200, Moment::now());
    observation.finish(Moment::now());
    let page = snapshot(&signals);
    assert_eq!(number(&page, RPC, &[METHOD, "UNAVAILABLE", "connect_refused"]), 1.0);
    assert_eq!(number(&page, ERRORS, &["connect_refused", "backend", "connect"]), 1.0);
    assert_eq!(number(&page, FIRST_BYTE, &["server_error"]), 1.0);
    assert_eq!(number(&page, "golden_requests_total", &["200", "proxy"]), 1.0);
}

#[test]
fn a_request_whose_code_panics_is_an_internal_error() {
    let (signals, worker, route) = worker();
    let observation = begin(&worker, route, None);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _observation = observation;
        std::panic::resume_unwind(Box::new("a defect"));
    }));
    assert!(panicked.is_err());
    let page = snapshot(&signals);
    assert_eq!(number(&page, ERRORS, &["internal", "proxy", "send"]), 1.0);
    assert_eq!(number(&page, ABORTS, &[]), 0.0);
}
