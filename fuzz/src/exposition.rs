//! Metrics pages: any families of ours with any page of a backend behind them are a page that a strict reader takes,
//! and the three formats say the same.
//!
//! Shape: a byte that chooses the escaping of names, bytes that families are made of, the byte 0x1d, the backend's page.

use std::collections::BTreeMap;

use golden_sidecar::exposition::{Encoding, Escaping, Filter, Format, Wanted, page};
use golden_sidecar::signals::snapshot::{Exemplar, Histogram, Kind, Metric, MetricFamily, Native, Text, Value};
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as data;
use prost::Message as _;

use super::strict;
use super::wire::shown;

/// Families of ours in one input; few, so that the backend's names meet them.
const MOST_FAMILIES: usize = 6;
/// Series in one of them.
const MOST_SERIES: usize = 4;

/// Takes values off bytes; from their end on everything is 0.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// What a counter or sum may be.
    fn size(&mut self) -> f64 {
        match self.byte() % 8 {
            0 => 0.0,
            1 => f64::from(self.byte()),
            2 => f64::from(self.byte()) / 8.0,
            3 => f64::INFINITY,
            4 => 1e300,
            5 => 5e-324,
            6 => self.number() as f64,
            _ => Some(f64::from_bits(self.number()).abs()).filter(|size| !size.is_nan()).unwrap_or(1.5),
        }
    }

    fn text(&mut self) -> Text {
        let bytes: Vec<u8> = (0..self.byte() % 8).map(|_| self.byte()).collect();
        String::from_utf8_lossy(&bytes).into_owned().into()
    }

    fn exemplar(&mut self) -> Option<Exemplar> {
        self.byte().is_multiple_of(3).then(|| Exemplar {
            trace_id: u128::from(self.number()) << 64 | 7,
            span_id: self.number(),
            value: self.size(),
            at_seconds: f64::from(self.byte()) * 1e7,
        })
    }

    fn histogram(&mut self) -> Histogram {
        let mut edges: Vec<f64> = (0..self.byte() % 12).map(|_| self.size()).filter(|edge| edge.is_finite()).collect();
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let counts = (0..=edges.len()).map(|_| u64::from(self.byte())).collect();
        let places: Vec<_> = (0..=edges.len()).filter_map(|place| Some((place, self.exemplar()?))).collect();
        let native = (self.byte() % 2 == 1).then(|| {
            let mut buckets: BTreeMap<i32, u64> = BTreeMap::new();
            for _ in 0..self.byte() % 8 {
                let bytes = [self.byte(), self.byte()];
                buckets.insert(i32::from(i16::from_le_bytes(bytes)), u64::from(self.byte()) + 1);
            }
            let schema = (self.byte() % 13) as i8 - 4;
            Native {
                schema,
                zero_threshold: 1e-9,
                zero_count: u64::from(self.byte()),
                buckets: buckets.into_iter().collect(),
            }
        });
        Histogram { edges: edges.into(), counts, sum: self.size(), native, exemplars: places }
    }

    fn metric(&mut self, kind: Kind, place: usize) -> Metric {
        let mut labels = vec![(Text::Static("place"), Text::from(place.to_string()))];
        for name in ["a", "b_c"] {
            if self.byte() % 2 == 1 {
                labels.push((Text::Static(name), self.text()));
            }
        }
        let value = match kind {
            Kind::Counter => Value::Counter(self.size(), self.exemplar().map(Box::new)),
            Kind::Gauge | Kind::Unknown => Value::Number(f64::from_bits(self.number())),
            Kind::Histogram => Value::Histogram(Box::new(self.histogram())),
            Kind::Summary => {
                let mut thousandths: Vec<_> = (0..self.byte() % 4).map(|_| self.byte()).collect();
                thousandths.sort_unstable();
                thousandths.dedup();
                let pairs = thousandths.into_iter().map(|at| (f64::from(at) / 1000.0, self.size())).collect();
                Value::Summary(pairs, self.size(), u64::from(self.byte()))
            }
        };
        let counts = !matches!(kind, Kind::Gauge | Kind::Unknown);
        let created_seconds = (counts && self.byte() % 2 == 1).then(|| f64::from(self.byte()) * 1e7 + 0.25);
        Metric { labels, value, created_seconds }
    }

    fn families(&mut self) -> Vec<MetricFamily> {
        let mut families: Vec<MetricFamily> = Vec::new();
        for place in 0..usize::from(self.byte()) % MOST_FAMILIES {
            let kind = match self.byte() % 5 {
                0 => Kind::Counter,
                1 => Kind::Gauge,
                2 => Kind::Histogram,
                3 => Kind::Summary,
                _ => Kind::Unknown,
            };
            let unit = ["", "_seconds", "_bytes", "_ratio"][usize::from(self.byte() % 4)];
            let total = if kind == Kind::Counter { "_total" } else { "" };
            let help = self.text().as_str().to_owned();
            let metrics = (0..1 + usize::from(self.byte()) % MOST_SERIES).map(|at| self.metric(kind, at)).collect();
            families.push(MetricFamily {
                name: format!("m{place}{unit}{total}").into(),
                help: help.into(),
                kind,
                metrics,
            });
        }
        families
    }
}

/// Series as every format has them: name and labels in one text, and the bits of the values, of which there is one that is
/// no number. Several values are those of edges that are the same number, spelled differently.
type Series = BTreeMap<String, Vec<u64>>;

fn put(series: &mut Series, name: &str, labels: impl IntoIterator<Item = (String, String)>, value: f64) {
    let mut labels: BTreeMap<_, _> = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    for edge in ["le", "quantile"] {
        // Formats spell the same number differently.
        if let Some(number) = labels.get(edge).and_then(|text| text.parse::<f64>().ok()).filter(|n| !n.is_nan()) {
            labels.insert(edge.to_owned(), format!("{number:e}"));
        }
    }
    let bits = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
    let values = series.entry(format!("{name}{labels:?}")).or_default();
    values.push(bits);
    values.sort_unstable();
}

fn of_text(text: &[u8], open: bool) -> Series {
    let text = std::str::from_utf8(text).expect("pages are UTF-8");
    let families = strict::read(text, open).unwrap_or_else(|why| panic!("{why}\n{text}"));
    let mut series = Series::new();
    for (name, labels, value) in families.into_iter().flat_map(|(_, family)| family.samples) {
        put(&mut series, &name, labels, value);
    }
    series
}

fn of_protobuf(page: &[u8]) -> Series {
    let (mut series, mut rest) = (Series::new(), page);
    while !rest.is_empty() {
        let family = data::MetricFamily::decode_length_delimited(&mut rest)
            .unwrap_or_else(|why| panic!("{why} in {}", shown(page)));
        let name = &family.name;
        for metric in &family.metric {
            let labels: Vec<_> = metric.label.iter().map(|label| (label.name.clone(), label.value.clone())).collect();
            let with = |label: &str, number: f64| {
                let extra = (label.to_owned(), format!("{number:?}"));
                labels.clone().into_iter().chain([extra]).collect::<Vec<_>>()
            };
            if let Some(histogram) = &metric.histogram {
                let (mut below, mut infinite) = (0, false);
                for bucket in &histogram.bucket {
                    assert!(bucket.cumulative_count >= below, "{name}: a bucket sinks");
                    below = bucket.cumulative_count;
                    infinite |= bucket.upper_bound.is_infinite();
                    put(&mut series, &format!("{name}_bucket"), with("le", bucket.upper_bound), below as f64);
                }
                let count = histogram.sample_count as f64;
                if !infinite {
                    put(&mut series, &format!("{name}_bucket"), with("le", f64::INFINITY), count);
                }
                put(&mut series, &format!("{name}_sum"), labels.clone(), histogram.sample_sum);
                put(&mut series, &format!("{name}_count"), labels.clone(), count);
            }
            if let Some(summary) = &metric.summary {
                for pair in &summary.quantile {
                    put(&mut series, name, with("quantile", pair.quantile), pair.value);
                }
                put(&mut series, &format!("{name}_sum"), labels.clone(), summary.sample_sum);
                put(&mut series, &format!("{name}_count"), labels.clone(), summary.sample_count as f64);
            }
            let plain = metric.counter.as_ref().map(|counter| counter.value);
            let plain = plain.or(metric.gauge.as_ref().map(|gauge| gauge.value));
            if let Some(value) = plain.or(metric.untyped.as_ref().map(|untyped| untyped.value)) {
                put(&mut series, name, labels, value);
            }
        }
    }
    series
}

/// Without times of creation, which are samples in one format and fields in another.
fn without_created(series: &Series) -> Series {
    let kept = series.iter().filter(|(id, _)| !id.split('{').next().unwrap_or_default().ends_with("_created"));
    kept.map(|(id, value)| (id.clone(), value.clone())).collect()
}

/// One input.
///
/// # Panics
/// When a promise is broken.
pub fn run(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let (ours, theirs) = super::part(rest, 0x1d);
    let families = Bytes(ours).families();
    let schemes = [Escaping::Underscores, Escaping::Dots, Escaping::Values, Escaping::AllowUtf8];
    let escaping = schemes[usize::from(choice % 4)];
    let made = |format| {
        let filter = Filter::default();
        let wanted = Wanted { format, escaping: Some(escaping), encoding: Encoding::Identity, filter, backend: true };
        page(families.clone(), theirs, &wanted)
    };
    let Some(text) = made(Format::Text) else {
        assert_eq!(made(Format::Protobuf), None);
        return;
    };
    let plain = of_text(&text, false);
    let open = of_text(&made(Format::OpenMetrics).expect("it was read before"), true);
    assert_eq!(
        without_created(&open),
        without_created(&plain),
        "OpenMetrics says something else than\n{}",
        shown(&text)
    );
    let protobuf = of_protobuf(&made(Format::Protobuf).expect("it was read before"));
    assert_eq!(
        without_created(&protobuf),
        without_created(&plain),
        "protobuf says something else than\n{}",
        shown(&text)
    );
    // Nothing is invented: the page can be read as a backend's again.
    golden_sidecar::scrape::text::parse(&text).unwrap_or_else(|why| panic!("{why}\n{}", shown(&text)));
}
