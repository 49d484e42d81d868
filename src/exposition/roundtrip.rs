//! What independent readers find on our pages is what the model says: Prometheus' own parsers for both text formats,
//! `promtool`, and the data model of Prometheus as another project generates it for protobuf.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as data;
use proptest::prelude::*;
use prost::Message as _;

use super::sink::Sink;
use super::{Encoding, openmetrics, plain, protobuf, text};
use crate::signals::snapshot::{Exemplar, Histogram, Kind, Metric, MetricFamily, Native, Text, Value};

/// Label names and values.
type Labels = BTreeMap<String, String>;

/// A sample as a reader of text finds it: name, labels, value, and the exemplar.
#[derive(Debug, PartialEq)]
struct Line {
    name: String,
    labels: Labels,
    value: Number,
    exemplar: Option<(Labels, Number, Number)>,
}

/// A float that is itself even if it is none.
#[derive(Clone, Copy, Debug)]
struct Number(f64);

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.0 == other.0 || (self.0.is_nan() && other.0.is_nan())
    }
}

// === Models ===

/// Seconds since 1970 that are exact in milliseconds.
fn moment() -> impl Strategy<Value = f64> {
    (1_u64..4_000_000_000_000).prop_map(|milliseconds| milliseconds as f64 / 1000.0)
}

fn size() -> impl Strategy<Value = f64> {
    prop_oneof![
        0.0..1e9_f64,
        1e-9..1e-3_f64,
        Just(0.0),
        Just(f64::INFINITY),
        Just(1e300),
        (0..u64::MAX).prop_map(|n| n as f64)
    ]
}

fn exemplar() -> impl Strategy<Value = Exemplar> {
    (any::<u128>(), any::<u64>(), -1e9..1e9_f64, moment()).prop_map(|(trace_id, span_id, value, at_seconds)| Exemplar {
        trace_id,
        span_id,
        value,
        at_seconds,
    })
}

fn native() -> impl Strategy<Value = Native> {
    let index = prop_oneof![3 => -40..40_i32, 1 => -300_000..300_000_i32];
    let zero = prop_oneof![Just((0.0, 0)), (1e-128..1e-3_f64, 0..9_u64)];
    let count = prop_oneof![1..300_u64, Just(u64::from(u32::MAX)), Just(1 << 40)];
    (-4..=8_i8, zero, proptest::collection::btree_map(index, count, 0..40)).prop_map(
        |(schema, (zero_threshold, zero_count), buckets)| Native {
            schema,
            zero_threshold,
            zero_count,
            buckets: buckets.into_iter().collect(),
        },
    )
}

fn histogram() -> impl Strategy<Value = Histogram> {
    let edge = prop_oneof![1e-6..1e3_f64, 1e3..1e12_f64, (0..50_u32).prop_map(f64::from)];
    let bucket = (edge, prop_oneof![0..9_u64, Just(0), Just(1 << 45)], proptest::option::of(exemplar()));
    let last = (0..9_u64, proptest::option::of(exemplar()));
    (proptest::collection::vec(bucket, 0..40), last, size(), proptest::option::of(native())).prop_map(
        |(mut buckets, last, sum, native)| {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            buckets.dedup_by_key(|bucket| bucket.0.to_bits());
            let edges = buckets.iter().map(|bucket| bucket.0).collect();
            let parts: Vec<_> =
                buckets.into_iter().map(|(_, count, exemplar)| (count, exemplar)).chain([last]).collect();
            let counts = parts.iter().map(|(count, _)| *count).collect();
            let exemplars = parts.iter().enumerate().filter_map(|(place, (_, exemplar))| Some((place, (*exemplar)?)));
            Histogram { edges, counts, sum, native, exemplars: exemplars.collect() }
        },
    )
}

fn value(kind: Kind) -> BoxedStrategy<Value> {
    match kind {
        Kind::Counter => (size(), proptest::option::of(exemplar()))
            .prop_map(|(value, exemplar)| Value::Counter(value, exemplar.map(Box::new)))
            .boxed(),
        Kind::Gauge | Kind::Unknown => any::<f64>().prop_map(Value::Number).boxed(),
        Kind::Histogram => histogram().prop_map(|histogram| Value::Histogram(Box::new(histogram))).boxed(),
        Kind::Summary => {
            let quantiles = proptest::collection::btree_map(0..=1000_u32, prop_oneof![size(), Just(f64::NAN)], 0..5);
            let quantiles = quantiles.prop_map(|pairs| {
                pairs.into_iter().map(|(thousandths, value)| (f64::from(thousandths) / 1000.0, value)).collect()
            });
            (quantiles, size(), any::<u32>())
                .prop_map(|(quantiles, sum, count)| Value::Summary(quantiles, sum, u64::from(count)))
                .boxed()
        }
    }
}

fn family() -> impl Strategy<Value = MetricFamily> {
    let kind = prop_oneof![
        2 => Just(Kind::Counter), 1 => Just(Kind::Gauge), 3 => Just(Kind::Histogram), 1 => Just(Kind::Summary),
        1 => Just(Kind::Unknown),
    ];
    let kinds = (kind, prop_oneof![Just(""), Just("_seconds"), Just("_bytes"), Just("_ratio")]);
    kinds.prop_flat_map(|(kind, unit)| {
        let text = prop_oneof!["[\\\\\"\n{},=a #]{0,6}", "[^\u{0}]{0,8}", ".{30,90}"];
        let created = proptest::option::of(moment());
        let metric = (proptest::collection::vec(text, 0..3), value(kind), created);
        let help = "[A-Z][\\\\\"\n a-zé]{0,9}\\.";
        (help, proptest::collection::vec(metric, 1..4)).prop_map(move |(help, metrics)| {
            let total = if kind == Kind::Counter { "_total" } else { "" };
            let metrics = metrics.into_iter().enumerate().map(|(place, (values, value, created))| {
                // One label tells series apart; the first series may have none at all.
                let own = (place > 0).then(|| (Text::Static("place"), Text::from(place.to_string())));
                let others = values.into_iter().zip(["b", "c_d"]).map(|(value, name)| (name.into(), value.into()));
                let created_seconds = created.filter(|_| !matches!(kind, Kind::Gauge | Kind::Unknown));
                Metric { labels: others.chain(own).collect(), value, created_seconds }
            });
            MetricFamily { name: format!("m{unit}{total}").into(), help: help.into(), kind, metrics: metrics.collect() }
        })
    })
}

/// Some dozen families with names of their own: as much as fits one call of an external reader.
fn families() -> impl Strategy<Value = Vec<MetricFamily>> {
    proptest::collection::vec(family(), 1..40).prop_map(|mut families| {
        for (place, family) in families.iter_mut().enumerate() {
            family.name = family.name.replacen('m', &format!("m{place}"), 1).into();
        }
        families
    })
}

// === Text ===

fn labels(metric: &Metric) -> Labels {
    metric.labels.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned())).collect()
}

/// The samples that text has for these families, sorted; edges and quantiles are compared as numbers.
fn expected(families: &[MetricFamily], open: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    for family in families {
        let name = &*family.name;
        for metric in &family.metrics {
            let mut push = |suffix: &str, extra: Option<(&str, f64)>, value: f64, exemplar: Option<&Exemplar>| {
                let mut labels = labels(metric);
                labels.extend(extra.map(|(label, number)| (label.to_owned(), spelled(number))));
                let exemplar = exemplar.filter(|_| open).map(|exemplar| {
                    let ids = [
                        ("trace_id".to_owned(), format!("{:032x}", exemplar.trace_id)),
                        ("span_id".to_owned(), format!("{:016x}", exemplar.span_id)),
                    ];
                    (ids.into(), Number(exemplar.value), Number(exemplar.at_seconds))
                });
                lines.push(Line { name: format!("{name}{suffix}"), labels, value: Number(value), exemplar });
            };
            match &metric.value {
                Value::Counter(value, exemplar) => push("", None, *value, exemplar.as_deref()),
                Value::Number(value) => push("", None, *value, None),
                Value::Histogram(histogram) => {
                    let mut count = 0;
                    for (place, own) in histogram.counts.iter().enumerate() {
                        count += own;
                        let edge = histogram.edges.get(place).copied().unwrap_or(f64::INFINITY);
                        let exemplar = histogram.exemplars.iter().find(|(at, _)| *at == place).map(|(_, found)| found);
                        push("_bucket", Some(("le", edge)), count as f64, exemplar);
                    }
                    push("_sum", None, histogram.sum, None);
                    push("_count", None, count as f64, None);
                }
                Value::Summary(quantiles, sum, count) => {
                    for (quantile, value) in quantiles {
                        push("", Some(("quantile", *quantile)), *value, None);
                    }
                    push("_sum", None, *sum, None);
                    push("_count", None, *count as f64, None);
                }
            }
            if let Some(created) = metric.created_seconds.filter(|_| open) {
                let base = name.strip_suffix("_total").unwrap_or(name).to_owned();
                let name = format!("{base}_created");
                lines.push(Line { name, labels: labels(metric), value: Number(created), exemplar: None });
            }
        }
    }
    lines
}

fn spelled(number: f64) -> String {
    format!("{number:e}")
}

fn piped(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it is installed");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A reader that answers while it reads must not wait for us.
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writing.join();
    output
}

/// The pages as the official parsers read them: kinds, helps and units by name, and all samples.
type Read = (BTreeMap<String, (String, String, String)>, Vec<Line>);

fn read(pages: &[(&str, &str)]) -> Result<Vec<Read>, TestCaseError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    assert!(python.exists(), "{} is missing; `make setup` makes it", python.display());
    let input = serde_json::to_string(pages).unwrap();
    let output = piped(Command::new(python).arg(root.join("tests/peers/pages.py")), &input);
    let said = String::from_utf8_lossy(&output.stderr);
    prop_assert!(output.status.success(), "{}", said);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let number = |value: &serde_json::Value| Number(value.as_str().unwrap().parse().unwrap());
    let labels = |value: &serde_json::Value| -> Labels {
        let pairs = value.as_object().unwrap().iter();
        pairs
            .map(|(name, value)| {
                let numeric = matches!(name.as_str(), "le" | "quantile");
                let value = text(value);
                (name.clone(), if numeric { spelled(value.parse().unwrap()) } else { value })
            })
            .collect()
    };
    let page = |page: &serde_json::Value| -> Read {
        let (mut families, mut lines) = (BTreeMap::new(), Vec::new());
        for family in page.as_array().unwrap() {
            families.insert(text(&family[0]), (text(&family[1]), text(&family[2]), text(&family[3])));
            for sample in family[4].as_array().unwrap() {
                let exemplar = Some(&sample[4]).filter(|found| !found.is_null());
                lines.push(Line {
                    name: text(&sample[0]),
                    labels: labels(&sample[1]),
                    value: number(&sample[2]),
                    exemplar: exemplar.map(|found| (labels(&found[0]), number(&found[1]), number(&found[2]))),
                });
            }
        }
        (families, lines)
    };
    Ok(found.as_array().unwrap().iter().map(page).collect())
}

/// The word for a kind, as the parsers have it, and the unit that a name ends in.
fn said(family: &MetricFamily, open: bool) -> (String, (String, String, String)) {
    let name = family.name.strip_suffix("_total").unwrap_or(&family.name).to_owned();
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::Summary => "summary",
        Kind::Unknown => "unknown",
    };
    let unit = name.split_once('_').map_or("", |(_, unit)| unit);
    let unit = if open { unit } else { "" }.to_owned();
    (name, (kind.to_owned(), family.help.to_string(), unit))
}

proptest! {
    // Each case is dozens of families and starts a Python and a promtool.
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn text_pages_read_back_as_the_model(families in families()) {
        let plain_page = plain(&families, &text::PROFILE);
        let open_page = plain(&families, &openmetrics::PROFILE) + "# EOF\n";
        let mut read = read(&[("text", &plain_page), ("openmetrics", &open_page)])?.into_iter();
        for open in [false, true] {
            let (heads, lines) = read.next().unwrap();
            prop_assert_eq!(heads, families.iter().map(|family| said(family, open)).collect::<BTreeMap<_, _>>());
            let expected = expected(&families, open);
            prop_assert_eq!(lines.len(), expected.len());
            for (line, expected) in lines.iter().zip(&expected) {
                prop_assert_eq!(line, expected, "open: {}", open);
            }
        }
        let checked = piped(Command::new("promtool").args(["check", "metrics"]), &plain_page);
        let words = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
        prop_assert!(checked.status.success() && words.is_empty(), "{}", words);
    }
}

// === Protobuf ===

fn decoded(families: &[MetricFamily]) -> Vec<data::MetricFamily> {
    let mut sink = Sink::new(Encoding::Identity);
    protobuf::encode(families, &mut sink);
    let page = sink.finish().chunks.concat();
    let mut rest = &page[..];
    let mut decoded = Vec::new();
    while !rest.is_empty() {
        decoded.push(data::MetricFamily::decode_length_delimited(&mut rest).expect("a message"));
    }
    decoded
}

/// A time of seconds and nanoseconds in microseconds, which is as exact as a float of this size.
fn micros((seconds, nanos): (i64, i32)) -> i64 {
    assert!((0..1_000_000_000).contains(&nanos));
    seconds * 1_000_000 + i64::from(nanos + 500) / 1000
}

fn micros_of(seconds: Option<f64>) -> Option<i64> {
    seconds.map(|seconds| (seconds * 1e6).round() as i64)
}

fn same_exemplar(found: Option<&data::Exemplar>, expected: Option<&Exemplar>) {
    assert_eq!(found.is_some(), expected.is_some());
    let (Some(found), Some(expected)) = (found, expected) else { return };
    let labels: Vec<_> = found.label.iter().map(|label| (label.name.as_str(), label.value.clone())).collect();
    let ids = [("trace_id", format!("{:032x}", expected.trace_id)), ("span_id", format!("{:016x}", expected.span_id))];
    assert_eq!((&labels[..], found.value), (&ids[..], expected.value));
    let at = found.timestamp.as_ref().map(|time| (time.seconds, time.nanos));
    assert_eq!(at.map(micros), micros_of(Some(expected.at_seconds)));
}

fn same_histogram(found: &data::Histogram, expected: &Histogram) {
    assert_eq!((found.sample_count, Number(found.sample_sum)), (expected.count(), Number(expected.sum)));
    let mut buckets = found.bucket.iter().peekable();
    let mut cumulative = 0;
    let newest = expected.exemplars.iter().map(|(_, exemplar)| exemplar.at_seconds).fold(f64::NEG_INFINITY, f64::max);
    let last = expected.exemplars.iter().rfind(|(_, exemplar)| exemplar.at_seconds == newest).map(|(at, _)| *at);
    for (place, count) in expected.counts.iter().enumerate() {
        cumulative += count;
        let shown = |at: usize| at == place && (expected.native.is_none() || last == Some(at));
        let exemplar = expected.exemplars.iter().find(|(at, _)| shown(*at)).map(|(_, exemplar)| exemplar);
        let edge = expected.edges.get(place).copied().unwrap_or(f64::INFINITY);
        match buckets.next_if(|bucket| bucket.upper_bound == edge) {
            Some(bucket) => {
                assert_eq!(bucket.cumulative_count, cumulative);
                same_exemplar(bucket.exemplar.as_ref(), exemplar);
            }
            None => assert!(edge.is_infinite() && exemplar.is_none(), "no bucket for {edge}"),
        }
    }
    assert!(buckets.next().is_none());
    let Some(native) = &expected.native else {
        assert!(found.positive_span.is_empty() && found.exemplars.is_empty() && found.zero_threshold == 0.0);
        return;
    };
    assert_eq!(found.schema, i32::from(native.schema));
    assert_eq!((found.zero_threshold, found.zero_count), (native.zero_threshold, native.zero_count));
    // As a reader expands it.
    let (mut index, mut count) = (0_i64, 0_i64);
    let mut deltas = found.positive_delta.iter();
    let mut expanded = Vec::new();
    for (place, span) in found.positive_span.iter().enumerate() {
        assert!(place == 0 || span.offset >= 0);
        index += i64::from(span.offset);
        for _ in 0..span.length {
            count += deltas.next().expect("a delta for each bucket");
            expanded.push((i32::try_from(index).unwrap(), u64::try_from(count).unwrap()));
            index += 1;
        }
    }
    assert!(deltas.next().is_none());
    expanded.retain(|(_, count)| *count != 0);
    assert_eq!(expanded, native.buckets);
    let tells = !found.positive_span.is_empty() || found.zero_threshold > 0.0 || found.zero_count > 0;
    assert!(tells, "an empty one is still a native one");
    assert_eq!(found.exemplars.len(), expected.exemplars.len());
    for (found, (_, expected)) in found.exemplars.iter().zip(&expected.exemplars) {
        same_exemplar(Some(found), Some(expected));
    }
}

fn same_metric(found: &data::Metric, expected: &Metric, kind: Kind) {
    let labels = found.label.iter().map(|label| (label.name.as_str(), label.value.as_str()));
    assert!(labels.eq(expected.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
    assert_eq!(found.timestamp_ms, 0);
    let data::Metric { gauge, counter, summary, untyped, histogram, .. } = found;
    let parts = [counter.is_some(), gauge.is_some(), histogram.is_some(), summary.is_some(), untyped.is_some()];
    let place = [Kind::Counter, Kind::Gauge, Kind::Histogram, Kind::Summary, Kind::Unknown];
    assert_eq!(parts, place.map(|other| other == kind));
    let created = match &expected.value {
        Value::Counter(value, exemplar) => {
            let counter = counter.as_ref().unwrap();
            assert_eq!(counter.value, *value);
            same_exemplar(counter.exemplar.as_ref(), exemplar.as_deref());
            counter.start_timestamp.as_ref().map(|time| (time.seconds, time.nanos))
        }
        Value::Number(value) => {
            let found = gauge.as_ref().map(|gauge| gauge.value).or(untyped.as_ref().map(|untyped| untyped.value));
            assert_eq!(found.unwrap().to_bits(), value.to_bits());
            None
        }
        Value::Histogram(value) => {
            same_histogram(histogram.as_ref().unwrap(), value);
            histogram.as_ref().unwrap().start_timestamp.as_ref().map(|time| (time.seconds, time.nanos))
        }
        Value::Summary(quantiles, sum, count) => {
            let summary = summary.as_ref().unwrap();
            let found = summary.quantile.iter().map(|pair| (pair.quantile, Number(pair.value)));
            assert!(found.eq(quantiles.iter().map(|(quantile, value)| (*quantile, Number(*value)))));
            assert_eq!((summary.sample_count, summary.sample_sum), (*count, *sum));
            summary.start_timestamp.as_ref().map(|time| (time.seconds, time.nanos))
        }
    };
    assert_eq!(created.map(micros), micros_of(expected.created_seconds));
}

fn same_families(families: &[MetricFamily]) {
    let found = decoded(families);
    assert_eq!(found.len(), families.len());
    for (found, expected) in found.iter().zip(families) {
        assert_eq!((found.name.as_str(), found.help.as_str()), (&*expected.name, &*expected.help));
        assert_eq!(found.unit, said(expected, true).1.2);
        let kind = match expected.kind {
            Kind::Counter => data::MetricType::Counter,
            Kind::Gauge => data::MetricType::Gauge,
            Kind::Histogram => data::MetricType::Histogram,
            Kind::Summary => data::MetricType::Summary,
            Kind::Unknown => data::MetricType::Untyped,
        };
        assert_eq!(found.r#type(), kind);
        assert_eq!(found.metric.len(), expected.metrics.len());
        found
            .metric
            .iter()
            .zip(&expected.metrics)
            .for_each(|(found, metric)| same_metric(found, metric, expected.kind));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn protobuf_pages_read_back_as_the_model(families in families()) {
        same_families(&families);
    }
}

#[test]
fn an_empty_native_histogram_without_a_zero_bucket_has_a_span_of_nothing() {
    let native = Native { schema: 0, zero_threshold: 0.0, zero_count: 0, buckets: Vec::new() };
    let histogram =
        Histogram { edges: [1.0].into(), counts: vec![0, 0], sum: 0.0, native: Some(native), exemplars: Vec::new() };
    let metric =
        Metric { labels: Vec::new(), value: Value::Histogram(Box::new(histogram)), created_seconds: Some(0.25) };
    let families = [MetricFamily { name: "m".into(), help: "H.".into(), kind: Kind::Histogram, metrics: vec![metric] }];
    same_families(&families);
    let found = decoded(&families);
    let spans = &found[0].metric[0].histogram.as_ref().unwrap().positive_span;
    assert_eq!(spans[..], [data::BucketSpan { offset: 0, length: 0 }]);
}

#[test]
fn a_family_of_any_size_is_one_message() {
    let value = |place: usize| Value::Counter(place as f64, None);
    let label = "x".repeat(1000);
    let metrics = (0..3000).map(|place| Metric {
        labels: vec![("long".into(), label.clone().into()), ("place".into(), place.to_string().into())],
        value: value(place),
        created_seconds: None,
    });
    same_families(&[MetricFamily {
        name: "m_total".into(),
        help: "H.".into(),
        kind: Kind::Counter,
        metrics: metrics.collect(),
    }]);
}
