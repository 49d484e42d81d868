//! What the registry of the `prometheus` crate gathers, as our own model: the cold families, which change rarely.

use std::sync::Arc;

use prometheus::proto::{self, MetricType};

use crate::signals::snapshot::{Histogram, Kind, Metric, MetricFamily, Text, Value};

/// Counts since the process began and not since this program counts, and the gauge beside it that says when that was.
const PROCESS_COUNTER: &str = "process_cpu_seconds_total";
const PROCESS_START: &str = "process_start_time_seconds";

/// Turns gathered families into the model. `started_seconds`: since when they count, in seconds since 1970, if that is
/// known. What else that crate's model cannot say (exemplars, native buckets) is absent; an untyped metric cannot be
/// read from it and is left out.
pub(super) fn convert(families: Vec<proto::MetricFamily>, started_seconds: Option<f64>) -> Vec<MetricFamily> {
    let process = families.iter().find(|family| family.name() == PROCESS_START);
    let process = process.and_then(|family| Some(family.get_metric().first()?.get_gauge().get_value()));
    let since = |family: &proto::MetricFamily| if family.name() == PROCESS_COUNTER { process } else { started_seconds };
    let families = families.into_iter().map(|found| family(&found, since(&found)));
    families.filter(|family| !family.metrics.is_empty()).collect()
}

fn family(family: &proto::MetricFamily, since_seconds: Option<f64>) -> MetricFamily {
    let mut edges: Arc<[f64]> = Arc::new([]);
    let kind = kind(family.get_field_type());
    let metrics = family.get_metric().iter().filter_map(|metric| {
        let value = match kind {
            Kind::Counter => Value::Counter(metric.get_counter().get_value(), None),
            Kind::Gauge => Value::Number(metric.get_gauge().get_value()),
            Kind::Histogram => Value::Histogram(Box::new(histogram(metric.get_histogram(), &mut edges))),
            Kind::Summary => {
                let summary = metric.get_summary();
                let quantiles = summary.get_quantile().iter().map(|pair| (pair.quantile(), pair.value()));
                Value::Summary(quantiles.collect(), summary.sample_sum(), summary.sample_count())
            }
            Kind::Unknown => return None,
        };
        let text = |text: &str| Text::from(text.to_owned());
        let labels = metric.get_label().iter().map(|label| (text(label.name()), text(label.value()))).collect();
        let created_seconds = since_seconds.filter(|_| matches!(kind, Kind::Counter | Kind::Histogram | Kind::Summary));
        Some(Metric { labels, value, created_seconds })
    });
    let metrics = metrics.collect();
    MetricFamily { name: family.name().to_owned().into(), help: family.help().to_owned().into(), kind, metrics }
}

/// The word of that crate for a kind, as ours.
pub(super) fn kind(kind: MetricType) -> Kind {
    match kind {
        MetricType::COUNTER => Kind::Counter,
        MetricType::GAUGE => Kind::Gauge,
        MetricType::HISTOGRAM => Kind::Histogram,
        MetricType::SUMMARY => Kind::Summary,
        MetricType::UNTYPED => Kind::Unknown,
    }
}

/// `edges`: those of the metric before, which are shared when they are the same.
fn histogram(histogram: &proto::Histogram, edges: &mut Arc<[f64]>) -> Histogram {
    let buckets = || histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound() != f64::INFINITY);
    if !buckets().map(proto::Bucket::upper_bound).eq(edges.iter().copied()) {
        *edges = buckets().map(proto::Bucket::upper_bound).collect();
    }
    let mut below = 0;
    // The crate reads a histogram that others write; a bucket may be ahead of the count.
    let cumulative = buckets().map(proto::Bucket::cumulative_count).chain([histogram.get_sample_count()]);
    let counts = cumulative.map(|count| {
        let own = count.saturating_sub(below);
        below = below.max(count);
        own
    });
    Histogram {
        edges: Arc::clone(edges),
        counts: counts.collect(),
        sum: histogram.get_sample_sum(),
        native: None,
        exemplars: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Counter, Gauge, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

    use super::*;

    #[test]
    fn counters_and_histograms_keep_their_labels_and_numbers() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("a_total", "A."), &["x"]).unwrap();
        counter.with_label_values(&["é\n"]).inc_by(11);
        registry.register(Box::new(counter)).unwrap();
        let waits = HistogramVec::new(HistogramOpts::new("b_seconds", "B.").buckets(vec![1.0, 2.0]), &["y"]).unwrap();
        for (label, value) in [("one", 0.5), ("one", 1.0), ("one", 9.0), ("two", 2.0)] {
            waits.with_label_values(&[label]).observe(value);
        }
        registry.register(Box::new(waits)).unwrap();

        let families = convert(registry.gather(), None);
        assert!(families.iter().flat_map(|family| &family.metrics).all(|metric| metric.created_seconds.is_none()));
        let said: Vec<_> = families.iter().map(|family| (&*family.name, &*family.help, family.kind)).collect();
        assert_eq!(said, [("a_total", "A.", Kind::Counter), ("b_seconds", "B.", Kind::Histogram)]);
        assert!(matches!(families[0].metrics[0].value, Value::Counter(11.0, None)));
        assert_eq!(families[0].metrics[0].labels[0].1.as_str(), "é\n");
        let [Value::Histogram(one), Value::Histogram(two)] = [0, 1].map(|at| &families[1].metrics[at].value) else {
            panic!("{families:?}")
        };
        assert_eq!((&one.counts[..], one.sum, &one.edges[..]), (&[2, 0, 1][..], 10.5, &[1.0, 2.0][..]));
        assert_eq!((&two.counts[..], two.sum), (&[0, 1, 0][..], 2.0));
        assert!(Arc::ptr_eq(&one.edges, &two.edges));
    }

    #[test]
    fn what_counts_says_since_when_and_cpu_time_since_the_process_began() {
        let registry = Registry::new();
        for name in ["a_total", PROCESS_COUNTER] {
            registry.register(Box::new(Counter::new(name, "C.").unwrap())).unwrap();
        }
        let start = Gauge::new(PROCESS_START, "S.").unwrap();
        start.set(1.5);
        registry.register(Box::new(start)).unwrap();
        let since: Vec<_> = convert(registry.gather(), Some(2.5))
            .into_iter()
            .map(|family| (family.name.into_owned(), family.metrics[0].created_seconds))
            .collect();
        let expected = [("a_total", Some(2.5)), (PROCESS_COUNTER, Some(1.5)), (PROCESS_START, None)];
        assert_eq!(since, expected.map(|(name, since)| (name.to_owned(), since)));
    }

    #[test]
    fn a_bucket_that_is_ahead_of_the_count_takes_nothing_away() {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(1.0);
        bucket.set_cumulative_count(3);
        let mut infinite = proto::Bucket::default();
        infinite.set_upper_bound(f64::INFINITY);
        infinite.set_cumulative_count(3);
        let mut torn = proto::Histogram::default();
        torn.set_bucket(vec![bucket, infinite]);
        torn.set_sample_count(2);
        let mut edges: Arc<[f64]> = Arc::new([]);
        let read = histogram(&torn, &mut edges);
        assert_eq!((&read.counts[..], &read.edges[..]), (&[3, 0][..], &[1.0][..]));
    }
}
