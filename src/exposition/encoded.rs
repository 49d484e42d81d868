//! What was encoded is what a strict reader finds, which shares no code with the encoder.

use std::collections::BTreeMap;

use prometheus::proto;
use proptest::prelude::*;

use super::strict::{Family, Sample, read};
use super::{cold, openmetrics, plain, text};

/// Edges that differ from one metric to the next, so that the cache of edges is tested as well.
fn edges(value: f64) -> [f64; 3] {
    let middle = value.abs().clamp(1.0, 1e300);
    [0.005, middle, middle * 2.0]
}

/// One metric before it is written: label values, and the number in it.
type Row = (Vec<String>, f64, u64);

fn family(name: &str, help: &str, kind: proto::MetricType, rows: &[Row]) -> proto::MetricFamily {
    let metrics = rows.iter().map(|(labels, value, count)| {
        let pairs = labels.iter().enumerate().map(|(index, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name(format!("label_{index}"));
            pair.set_value(value.clone());
            pair
        });
        let mut metric = proto::Metric::from_label(pairs.collect());
        match kind {
            proto::MetricType::COUNTER => {
                let mut counter = proto::Counter::default();
                counter.set_value(value.abs());
                metric.set_counter(counter);
            }
            proto::MetricType::GAUGE => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(*value);
                metric.set_gauge(gauge);
            }
            _ => {
                let buckets = edges(*value).into_iter().zip(1..).map(|(edge, place)| {
                    let mut bucket = proto::Bucket::default();
                    bucket.set_upper_bound(edge);
                    bucket.set_cumulative_count(count / (4 - place));
                    bucket
                });
                let mut histogram = proto::Histogram::default();
                histogram.set_bucket(buckets.collect());
                histogram.set_sample_count(*count);
                histogram.set_sample_sum(*value);
                metric.set_histogram(histogram);
            }
        }
        metric
    });
    let mut family = proto::MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics.collect());
    family
}

/// What a strict reader has to find for [`family`].
fn expected(name: &str, kind: proto::MetricType, rows: &[Row]) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (labels, value, count) in rows {
        let labels: BTreeMap<String, String> =
            labels.iter().enumerate().map(|(index, value)| (format!("label_{index}"), value.clone())).collect();
        match kind {
            proto::MetricType::COUNTER => samples.push((name.to_owned(), labels, value.abs())),
            proto::MetricType::GAUGE => samples.push((name.to_owned(), labels, *value)),
            _ => {
                for (edge, share) in edges(*value).into_iter().chain([f64::INFINITY]).zip([3, 2, 1, 1]) {
                    let mut labels = labels.clone();
                    labels.insert("le".to_owned(), edge.to_string());
                    samples.push((format!("{name}_bucket"), labels, (count / share) as f64));
                }
                samples.push((format!("{name}_sum"), labels.clone(), *value));
                samples.push((format!("{name}_count"), labels, *count as f64));
            }
        }
    }
    samples
}

/// The text of an edge is compared as a number here; its spelling has a table of its own in `number.rs`.
fn with_numeric_edges(mut families: Vec<(String, Family)>) -> Vec<(String, Family)> {
    for (_, family) in &mut families {
        for (_, labels, _) in &mut family.samples {
            if let Some(edge) = labels.get_mut("le") {
                *edge = edge.parse::<f64>().unwrap().to_string();
            }
        }
    }
    families
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let value = prop_oneof![any::<f64>().prop_filter("finite", |value| value.is_finite()), (-1e7..1e7f64), Just(0.0)];
    let label = prop_oneof!["[\\\\\"\n{},=a ]{0,6}", ".{0,6}"];
    proptest::collection::btree_map(proptest::collection::vec(label, 2), (value, 0..u64::from(u32::MAX)), 1..6)
        .prop_map(|rows| rows.into_iter().map(|(labels, (value, count))| (labels, value, count)).collect())
}

proptest! {
    #[test]
    fn what_was_encoded_is_what_a_strict_reader_finds(
        counters in rows(), gauges in rows(), histograms in rows(), help in "[\\\\\"\na-z]{1,9}",
    ) {
        use proto::MetricType::{COUNTER, GAUGE, HISTOGRAM};
        let families = [
            family("golden_bytes_total", &help, COUNTER, &counters),
            family("golden_level", &help, GAUGE, &gauges),
            family("golden_wait_seconds", &help, HISTOGRAM, &histograms),
        ];
        let want = |open: bool, short: &str, full: &str, kind: &str, unit: Option<&str>, samples| {
            let unit = unit.filter(|_| open).map(str::to_owned);
            let name = if open { short } else { full };
            (name.to_owned(), Family { kind: kind.to_owned(), unit, help: Some(help.clone()), samples })
        };
        for (open, profile) in [(false, &text::PROFILE), (true, &openmetrics::PROFILE)] {
            let page = plain(&cold::convert(families.to_vec(), None), profile) + if open { "# EOF\n" } else { "" };
            let found = read(&page, open).map_err(|error| TestCaseError::fail(format!("{error}\n{page}")))?;
            prop_assert_eq!(with_numeric_edges(found), vec![
                want(open, "golden_bytes", "golden_bytes_total", "counter", Some("bytes"),
                    expected("golden_bytes_total", COUNTER, &counters)),
                want(open, "golden_level", "golden_level", "gauge", None, expected("golden_level", GAUGE, &gauges)),
                want(open, "golden_wait_seconds", "golden_wait_seconds", "histogram", Some("seconds"),
                    expected("golden_wait_seconds", HISTOGRAM, &histograms)),
            ]);
        }
    }
}

#[test]
fn the_strict_reader_refuses_what_it_should() {
    for (page, open) in [
        ("# TYPE a gauge\na 1.0\n", true),
        ("# TYPE a gauge\na 1\n# EOF\n", true),
        ("# TYPE a_total counter\na_total 1.0\n# EOF\n", true),
        ("# TYPE a gauge\n# UNIT a seconds\na 1.0\n# EOF\n", true),
        ("a 1\n", false),
        ("# TYPE a gauge\na 1", false),
        ("# TYPE a gauge\na{b=\"\"c\"} 1\n", false),
        ("# TYPE a gauge\na{b=\"\\t\"} 1\n", false),
        ("# TYPE a gauge\na 1\na 1\n", false),
        ("# TYPE a gauge\na  1\n", false),
        ("# TYPE a gauge\na inf\n", false),
        ("# TYPE a gauge\na 1 1.5\n", false),
        ("# TYPE a gauge\na 1.0 # {b=\"c\"} 1.0 1.0\n# EOF\n", true),
        ("# TYPE a counter\na_total 1.0 # {b=\"c\"} 1.0\n# EOF\n", true),
        ("# TYPE a counter\na_total 1.0 1\n# EOF\n", true),
        ("# TYPE \"a\" gauge\na 1\n", false),
        ("# TYPE a.b gauge\na.b 1\n", false),
        ("# TYPE \"a.b\" gauge\n{\"a.b\",} 1\n", false),
        ("# TYPE a summary\na 1.0\n# EOF\n", true),
        ("# TYPE a histogram\na_bucket 1\n# EOF\n", true),
        ("# TYPE a histogram\na 1.0\n# EOF\n", true),
        ("# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# TYPE a gauge\na{c=\"d\"} 1\n", false),
    ] {
        assert!(read(page, open).is_err(), "{page}");
    }
}
