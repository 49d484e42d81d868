//! The snapshot as the `prometheus` crate has it, for as long as the page is written from that crate's model.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use crate::signals::Signals;
use crate::signals::collect::snapshot;
use crate::signals::families::{self, Family};
use crate::signals::snapshot::{Kind, Metric, MetricFamily, Value};

/// Hands the sum of all shards to a registry.
#[derive(Debug)]
pub struct ShardCollector {
    signals: Arc<Signals>,
    descs: Vec<Desc>,
}

impl ShardCollector {
    /// A collector of these signals.
    #[must_use]
    pub fn new(signals: Arc<Signals>) -> ShardCollector {
        let desc = |family: &Family| {
            let labels = family.labels.iter().map(|l| (*l).to_owned()).collect();
            Desc::new(family.name.to_owned(), family.help.to_owned(), labels, Default::default())
                .expect("the declarations of families.rs are valid names, which a test shows")
        };
        ShardCollector { signals, descs: families::all().map(desc).collect() }
    }
}

impl Collector for ShardCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        snapshot(&self.signals).into_iter().map(family).collect()
    }
}

impl Kind {
    /// As the `prometheus` crate has it.
    #[must_use]
    pub fn metric_type(self) -> proto::MetricType {
        match self {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Gauge => proto::MetricType::GAUGE,
            Kind::Histogram => proto::MetricType::HISTOGRAM,
            Kind::Summary => proto::MetricType::SUMMARY,
            Kind::Unknown => proto::MetricType::UNTYPED,
        }
    }
}

fn family(MetricFamily { name, help, kind, metrics }: MetricFamily) -> proto::MetricFamily {
    let mut out = proto::MetricFamily::default();
    out.set_name(name.into_owned());
    out.set_help(help.into_owned());
    out.set_field_type(kind.metric_type());
    out.set_metric(metrics.iter().map(metric).collect());
    out
}

fn metric(Metric { labels, value, created_seconds: _ }: &Metric) -> proto::Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name(name.as_str().to_owned());
        pair.set_value(value.as_str().to_owned());
        pair
    });
    let mut out = proto::Metric::from_label(pairs.collect());
    match value {
        Value::Counter(value, _) => {
            let mut counter = proto::Counter::default();
            counter.set_value(*value);
            out.set_counter(counter);
        }
        Value::Number(value) => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(*value);
            out.set_gauge(gauge);
        }
        Value::Histogram(histogram) => {
            let mut cumulative = 0;
            let buckets = histogram.edges.iter().zip(&histogram.counts).map(|(edge, count)| {
                cumulative += count;
                let mut bucket = proto::Bucket::default();
                bucket.set_upper_bound(*edge);
                bucket.set_cumulative_count(cumulative);
                bucket
            });
            let mut shown = proto::Histogram::default();
            shown.set_bucket(buckets.collect());
            shown.set_sample_count(histogram.count());
            shown.set_sample_sum(histogram.sum);
            out.set_histogram(shown);
        }
        // None of ours.
        Value::Summary(..) => {}
    }
    out
}
