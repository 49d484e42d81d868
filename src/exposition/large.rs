//! How large a large page is: 100 routes, 4 codes, 3 methods, native and classic buckets; 4.9 MB of text 0.0.4. What it
//! costs in time is measured by `make bench`.

use std::sync::Arc;

use super::sink::{Finished, Sink};
use super::{Encoding, Format, encoder, protobuf};
use crate::signals::snapshot::{Exemplar, Histogram, Kind, Metric, MetricFamily, Native, Text, Value};

const EDGES: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const CREATED: Option<f64> = Some(1_700_000_000.123);

/// Numbers that look like those of a service: counts of up to six digits, twenty native buckets in a row with a gap.
fn histogram(seed: u64, edges: &Arc<[f64]>) -> Value {
    let count = |place: u64| (seed * 7919 + place * 104_729) % 9_973;
    let counts: Vec<u64> = (0..=EDGES.len() as u64).map(count).collect();
    let observed: u64 = counts.iter().sum();
    let begin = i32::try_from(seed % 17).unwrap() - 60;
    let mut buckets: Vec<(i32, u64)> = (0..20).map(|place| (begin + place + 3 * (place / 11), observed / 20)).collect();
    buckets[0].1 += observed % 20;
    let exemplar = Exemplar {
        trace_id: u128::from(seed) << 64 | 0x9e37_79b9_7f4a_7c15,
        span_id: seed,
        value: 0.067_123,
        at_seconds: 1_700_000_123.456,
    };
    Value::Histogram(Box::new(Histogram {
        edges: Arc::clone(edges),
        counts,
        sum: observed as f64 * 0.012_345_678,
        native: Some(Native { schema: 3, zero_threshold: 1e-9, zero_count: 0, buckets }),
        exemplars: if seed.is_multiple_of(10) { vec![(3, exemplar)] } else { Vec::new() },
    }))
}

fn page() -> Vec<MetricFamily> {
    let edges: Arc<[f64]> = EDGES.into();
    let (mut durations, mut requests, mut first_bytes, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let metric = |labels, value| Metric { labels, value, created_seconds: CREATED };
    let mut seed = 0;
    for place in 0..100 {
        let route: Arc<str> = format!("/api/v1/resources-{place}/{{id}}/items/{{item_id}}").into();
        let route = ("http_route".into(), Text::Shared(route));
        for code in ["200", "201", "404", "500"] {
            for method in ["GET", "POST", "DELETE"] {
                seed += 1;
                let method = ("http_request_method".into(), method.into());
                let code = ("http_response_status_code".into(), code.into());
                let common = [method, route.clone(), code];
                let more = |labels: &[(&'static str, &'static str)]| {
                    let labels = labels.iter().map(|(name, value)| (Text::from(*name), Text::from(*value)));
                    common.iter().cloned().chain(labels).collect::<Vec<_>>()
                };
                durations.push(metric(more(&[("error_type", "")]), histogram(seed, &edges)));
                let labels = more(&[("origin", "backend"), ("traffic", "user")]);
                requests.push(metric(labels, Value::Counter((seed * 977) as f64, None)));
            }
        }
        for outcome in ["success", "client_error", "server_error", "aborted"] {
            seed += 1;
            first_bytes.push(metric(vec![route.clone(), ("outcome".into(), outcome.into())], histogram(seed, &edges)));
        }
        bytes.push(metric(vec![route], Value::Counter((seed * 1_048_573) as f64, None)));
    }
    let family = |name: &'static str, kind, metrics| {
        let help = "Help that is about as long as the help of families usually is.".into();
        MetricFamily { name: name.into(), help, kind, metrics }
    };
    vec![
        family("golden_requests_total", Kind::Counter, requests),
        family("golden_response_bytes_total", Kind::Counter, bytes),
        family("golden_time_to_first_byte_seconds", Kind::Histogram, first_bytes),
        family("http_server_request_duration_seconds", Kind::Histogram, durations),
    ]
}

fn encoded(families: &[MetricFamily], format: Format, encoding: Encoding) -> Finished {
    let mut sink = Sink::new(encoding);
    match format.profile() {
        Some(profile) => encoder::encode(families, profile, true, &mut sink),
        None => protobuf::encode(families, &mut sink),
    }
    sink.finish()
}

#[test]
fn protobuf_with_native_buckets_is_less_than_a_quarter_of_text() {
    let families = page();
    let [text, protobuf] =
        [Format::Text, Format::Protobuf].map(|format| encoded(&families, format, Encoding::Identity).plain_bytes);
    assert!(4 * protobuf <= text, "{protobuf} of {text} bytes");
}
