//! A strict reader of both text formats, for tests only. It shares no code with the encoder, and it refuses whatever
//! the specifications do not allow rather than guess.

use std::collections::{BTreeMap, HashSet};

use prometheus::proto;
use proptest::prelude::*;

use super::{cold, openmetrics, plain, text};

/// A family as it was read.
#[derive(Debug, Default, PartialEq)]
struct Family {
    kind: String,
    unit: Option<String>,
    help: Option<String>,
    /// Full name, labels, value, each in page order.
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Reads a page; families in page order.
fn read(page: &str, open: bool) -> Result<Vec<(String, Family)>, String> {
    let body = match (open, page.strip_suffix("# EOF\n")) {
        (true, Some(body)) => body,
        (true, None) => return Err("no # EOF at the end".into()),
        (false, _) => page,
    };
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    let mut families: Vec<(String, Family)> = Vec::new();
    let (mut names, mut series) = (HashSet::new(), HashSet::new());
    for line in body.split_terminator('\n') {
        if let Some(rest) = line.strip_prefix("# ") {
            let (keyword, rest) = rest.split_once(' ').ok_or_else(|| format!("short comment: {line}"))?;
            let (name, value) = rest.split_once(' ').ok_or_else(|| format!("no value: {line}"))?;
            if families.last().is_none_or(|(last, _)| last != name) {
                if !names.insert(name.to_owned()) {
                    return Err(format!("{name} comes twice"));
                }
                families.push((name.to_owned(), Family::default()));
            }
            let family = &mut families.last_mut().unwrap().1;
            if !family.samples.is_empty() {
                return Err(format!("comment after samples: {line}"));
            }
            match keyword {
                "TYPE" if family.kind.is_empty() => family.kind = value.to_owned(),
                "UNIT" if open && family.unit.is_none() && name.ends_with(&format!("_{value}")) => {
                    family.unit = Some(value.to_owned());
                }
                "HELP" if family.help.is_none() => family.help = Some(unescape(value, open)?),
                _ => return Err(format!("unexpected: {line}")),
            }
            continue;
        }
        let (name, labels, value) = sample(line)?;
        let (family_name, family) = families.last_mut().ok_or_else(|| format!("sample without a family: {line}"))?;
        let suffix = name.strip_prefix(family_name.as_str()).ok_or_else(|| format!("stray sample: {line}"))?;
        let allowed: &[&str] = match (family.kind.as_str(), open) {
            ("counter", true) => &["_total"],
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            ("summary", _) => &["", "_sum", "_count"],
            ("counter", false) | ("gauge", _) | ("unknown", true) | ("untyped", false) => &[""],
            (kind, _) => return Err(format!("unknown type {kind:?}")),
        };
        if !allowed.contains(&suffix) || labels.contains_key("le") != (suffix == "_bucket") {
            return Err(format!("wrong suffix or le: {line}"));
        }
        if !series.insert(format!("{name}{labels:?}")) {
            return Err(format!("series twice: {line}"));
        }
        let value = number(&value, open && !matches!(suffix, "_bucket" | "_count"))?;
        family.samples.push((name, labels, value));
    }
    Ok(families)
}

/// `name{label="value",…} value`, exactly one blank, no timestamp.
fn sample(line: &str) -> Result<(String, BTreeMap<String, String>, String), String> {
    let end = line.find(['{', ' ']).ok_or_else(|| format!("no value: {line}"))?;
    let (name, mut rest) = line.split_at(end);
    let legal = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    if name.is_empty() || !name.chars().all(legal) || name.starts_with(|letter: char| letter.is_ascii_digit()) {
        return Err(format!("bad name: {line}"));
    }
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or_else(|| format!("bad label: {line}"))?;
            if label.is_empty() || !label.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
                return Err(format!("bad label name: {line}"));
            }
            let mut escaped = false;
            let close = after
                .char_indices()
                .find(|(_, letter)| match letter {
                    _ if escaped => {
                        escaped = false;
                        false
                    }
                    '\\' => {
                        escaped = true;
                        false
                    }
                    letter => *letter == '"',
                })
                .ok_or_else(|| format!("open label value: {line}"))?
                .0;
            if labels.insert(label.to_owned(), unescape(&after[..close], true)?).is_some() {
                return Err(format!("label twice: {line}"));
            }
            rest = &after[close + 1..];
            match rest.split_at_checked(1) {
                Some((",", more)) => rest = more,
                Some(("}", more)) => {
                    rest = more;
                    break;
                }
                _ => return Err(format!("labels do not end: {line}")),
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or_else(|| format!("no blank before the value: {line}"))?;
    Ok((name.to_owned(), labels, value.to_owned()))
}

fn unescape(text: &str, quotes: bool) -> Result<String, String> {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('"') if quotes => '"',
                other => return Err(format!("escape {other:?} in {text:?}")),
            },
            '"' if quotes => return Err(format!("bare quote in {text:?}")),
            letter => letter,
        });
    }
    Ok(plain)
}

fn number(text: &str, dotted: bool) -> Result<f64, String> {
    let special = matches!(text, "+Inf" | "-Inf" | "NaN");
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.e".contains(&byte));
    if !special && (!digits || (dotted && !text.contains(['.', 'e']))) {
        return Err(format!("spelling of {text:?}"));
    }
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

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
fn expected(name: &str, kind: proto::MetricType, rows: &[Row]) -> Vec<(String, BTreeMap<String, String>, f64)> {
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
        ("# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# TYPE a gauge\na{c=\"d\"} 1\n", false),
    ] {
        assert!(read(page, open).is_err(), "{page}");
    }
}
