//! The one encoder behind both text formats; a [`Profile`] says how they differ.
//!
//! It is our own because of a measurement, see `text.rs`. It is fast for two plain reasons: the labels of a metric are
//! escaped once and then copied to each of its lines, and the edges of a family, which nearly always are the same from
//! one metric to the next, are formatted once.

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::number::{Style, push_count, push_edge, push_value};

/// What one text format does differently from the other.
pub(super) struct Profile {
    /// How floats are spelled.
    pub style: Style,
    /// Writes the lines that open a family.
    pub header: fn(&mut Vec<u8>, &MetricFamily),
    /// Writes the timestamp of a sample, given in milliseconds since 1970.
    pub timestamp: fn(&mut Vec<u8>, i64),
    /// What closes the page.
    pub end: &'static [u8],
}

/// Encodes families in the order given. `size_hint` is the expected size in bytes: that of the page before.
pub(super) fn encode(families: &[MetricFamily], profile: &Profile, size_hint: usize) -> Vec<u8> {
    // A quarter more than last time, so that a slowly growing page is still written without moving it.
    let mut page = Page {
        out: Vec::with_capacity(size_hint + size_hint / 4),
        profile,
        labels: Vec::new(),
        edges: Edges::default(),
    };
    for family in families {
        page.family(family);
    }
    page.out.extend_from_slice(profile.end);
    page.out
}

/// Appends text with the escapes of a label value: backslash, double quote, line feed.
pub(super) fn push_quoted(out: &mut Vec<u8>, text: &str) {
    push_escaped(out, text, true);
}

/// Appends text with the escapes of 0.0.4 help: backslash and line feed.
pub(super) fn push_help(out: &mut Vec<u8>, text: &str) {
    push_escaped(out, text, false);
}

fn push_escaped(out: &mut Vec<u8>, text: &str, quotes: bool) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | b'\n') || (quotes && *byte == b'"')) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            _ => b"\\\"",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

struct Page<'a> {
    out: Vec<u8>,
    profile: &'a Profile,
    /// `a="x",b="y"` of the metric at hand, escaped, without braces.
    labels: Vec<u8>,
    edges: Edges,
}

/// The edges of the histogram at hand: their text, kept while the next histogram has the same ones.
#[derive(Default)]
struct Edges {
    bits: Vec<u64>,
    text: Vec<Vec<u8>>,
}

// === impl Edges ===

impl Edges {
    /// The text of the edge at this index: `0.005`.
    fn text(&mut self, index: usize, edge: f64, style: Style) -> &[u8] {
        if self.bits.get(index) != Some(&edge.to_bits()) {
            self.bits.truncate(index);
            self.text.truncate(index);
            self.bits.push(edge.to_bits());
            let mut text = Vec::with_capacity(8);
            push_edge(&mut text, edge, style);
            self.text.push(text);
        }
        &self.text[index]
    }
}

// === impl Page ===

impl Page<'_> {
    fn family(&mut self, family: &MetricFamily) {
        (self.profile.header)(&mut self.out, family);
        let name = family.name().as_bytes();
        for metric in family.get_metric() {
            self.labels.clear();
            for (index, label) in metric.get_label().iter().enumerate() {
                if index > 0 {
                    self.labels.push(b',');
                }
                self.labels.extend_from_slice(label.name().as_bytes());
                self.labels.extend_from_slice(b"=\"");
                push_quoted(&mut self.labels, label.value());
                self.labels.push(b'"');
            }
            match family.get_field_type() {
                MetricType::COUNTER => self.float(name, b"", metric, metric.get_counter().get_value()),
                MetricType::GAUGE => self.float(name, b"", metric, metric.get_gauge().get_value()),
                MetricType::HISTOGRAM => self.histogram(name, metric),
                MetricType::SUMMARY => self.summary(name, metric),
                // The crate has the word but no way to make or to read one.
                MetricType::UNTYPED => {}
            }
        }
    }

    fn histogram(&mut self, name: &[u8], metric: &Metric) {
        let histogram = metric.get_histogram();
        let style = self.profile.style;
        let mut infinity = false;
        for (index, bucket) in histogram.get_bucket().iter().enumerate() {
            let edge = bucket.upper_bound();
            infinity |= edge == f64::INFINITY;
            let text = self.edges.text(index, edge, style);
            open(&mut self.out, name, b"_bucket", &self.labels, Some((b"le", text)));
            push_count(&mut self.out, bucket.cumulative_count());
            self.close(metric);
        }
        if !infinity {
            open(&mut self.out, name, b"_bucket", &self.labels, Some((b"le", b"+Inf")));
            push_count(&mut self.out, histogram.get_sample_count());
            self.close(metric);
        }
        self.float(name, b"_sum", metric, histogram.get_sample_sum());
        self.count(name, metric, histogram.get_sample_count());
    }

    fn summary(&mut self, name: &[u8], metric: &Metric) {
        let summary = metric.get_summary();
        for quantile in summary.get_quantile() {
            let mut text = Vec::with_capacity(8);
            push_edge(&mut text, quantile.quantile(), self.profile.style);
            open(&mut self.out, name, b"", &self.labels, Some((b"quantile", &text)));
            push_value(&mut self.out, quantile.value(), self.profile.style);
            self.close(metric);
        }
        self.float(name, b"_sum", metric, summary.sample_sum());
        self.count(name, metric, summary.sample_count());
    }

    fn float(&mut self, name: &[u8], suffix: &[u8], metric: &Metric, value: f64) {
        open(&mut self.out, name, suffix, &self.labels, None);
        push_value(&mut self.out, value, self.profile.style);
        self.close(metric);
    }

    fn count(&mut self, name: &[u8], metric: &Metric, count: u64) {
        open(&mut self.out, name, b"_count", &self.labels, None);
        push_count(&mut self.out, count);
        self.close(metric);
    }

    fn close(&mut self, metric: &Metric) {
        if metric.timestamp_ms() != 0 {
            self.out.push(b' ');
            (self.profile.timestamp)(&mut self.out, metric.timestamp_ms());
        }
        self.out.push(b'\n');
    }
}

/// Writes a line up to its value: `name_suffix{labels,extra="…"} `. The extra label needs no escapes.
pub(super) fn open(out: &mut Vec<u8>, name: &[u8], suffix: &[u8], labels: &[u8], extra: Option<(&[u8], &[u8])>) {
    out.extend_from_slice(name);
    out.extend_from_slice(suffix);
    if !labels.is_empty() || extra.is_some() {
        out.push(b'{');
        out.extend_from_slice(labels);
        if let Some((label, value)) = extra {
            if !labels.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(label);
            out.extend_from_slice(b"=\"");
            out.extend_from_slice(value);
            out.push(b'"');
        }
        out.push(b'}');
    }
    out.push(b' ');
}
