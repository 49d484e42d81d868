//! The one encoder behind both text formats; a [`Profile`] says how they differ.
//!
//! It is our own because of a measurement, see `text.rs`. It is fast for three plain reasons: the labels of a metric are
//! escaped once and then copied to each of its lines, so is all that its buckets have in common, and the edges of a
//! family, which nearly always are the same from one metric to the next, are formatted once.

use std::sync::Arc;

use super::number::{Style, push_count, push_edge, push_value};
use super::sink::Sink;
use crate::signals::snapshot::{Exemplar, Histogram, Kind, Metric, MetricFamily, Value};

/// What one text format does differently from the other.
pub(super) struct Profile {
    /// How floats are spelled.
    pub style: Style,
    /// Writes the lines that open a family, given its name, kind and help.
    pub header: fn(&mut Vec<u8>, &str, Kind, &str),
    /// Writes the timestamp of a sample, given in milliseconds since 1970.
    pub timestamp: fn(&mut Vec<u8>, i64),
    /// Whether it has exemplars and `_created`.
    pub open: bool,
    /// What closes the page.
    pub end: &'static [u8],
}

/// Encodes families in the order given, without the end of the page. `created`: with `_created`, where the format has it.
pub(super) fn encode(families: &[MetricFamily], profile: &Profile, created: bool, sink: &mut Sink) {
    let mut page = Page {
        out: Sink::buffer(),
        profile,
        created: created && profile.open,
        labels: Vec::new(),
        bucket: Vec::new(),
        edges: Edges::default(),
    };
    for family in families.iter().filter(|family| !family.metrics.is_empty()) {
        page.family(family, sink);
    }
    sink.take(&mut page.out);
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
    created: bool,
    /// `a="x",b="y"` of the metric at hand, escaped, without braces.
    labels: Vec<u8>,
    /// What all bucket lines of the metric at hand begin with, up to the edge: `wait_bucket{a="x",le="`.
    bucket: Vec<u8>,
    edges: Edges,
}

/// The edges of the histogram at hand: their text, kept while the next histogram has the same ones.
#[derive(Default)]
struct Edges {
    of: Option<Arc<[f64]>>,
    /// Each from the edge to the value: `0.005"} `. The last one is infinite.
    text: Vec<Vec<u8>>,
}

// === impl Edges ===

impl Edges {
    fn load(&mut self, edges: &Arc<[f64]>, style: Style) {
        if self.of.as_ref().is_some_and(|known| Arc::ptr_eq(known, edges) || known == edges) {
            return;
        }
        self.text.clear();
        for edge in edges.iter().copied().chain([f64::INFINITY]) {
            let mut text = Vec::with_capacity(12);
            push_edge(&mut text, edge, style);
            text.extend_from_slice(b"\"} ");
            self.text.push(text);
        }
        self.of = Some(Arc::clone(edges));
    }
}

// === impl Page ===

impl Page<'_> {
    fn family(&mut self, family: &MetricFamily, sink: &mut Sink) {
        let name = family.name.as_bytes();
        (self.profile.header)(&mut self.out, &family.name, family.kind, &family.help);
        // What `_created` is appended to; a counter without `_total` is none in OpenMetrics, and so has neither.
        let base = match family.kind {
            Kind::Counter => name.strip_suffix(b"_total"),
            _ => Some(name),
        };
        for metric in &family.metrics {
            self.metric(name, base, metric);
            sink.offer(&mut self.out);
        }
    }

    fn metric(&mut self, name: &[u8], base: Option<&[u8]>, metric: &Metric) {
        self.labels.clear();
        for (index, (label, value)) in metric.labels.iter().enumerate() {
            if index > 0 {
                self.labels.push(b',');
            }
            self.labels.extend_from_slice(label.as_str().as_bytes());
            self.labels.extend_from_slice(b"=\"");
            push_quoted(&mut self.labels, value.as_str());
            self.labels.push(b'"');
        }
        match &metric.value {
            Value::Counter(value, exemplar) => {
                open(&mut self.out, name, b"", &self.labels, None);
                push_value(&mut self.out, *value, self.profile.style);
                self.close(exemplar.as_deref().filter(|_| base.is_some()));
            }
            Value::Number(value) => return self.float(name, b"", *value),
            Value::Histogram(histogram) => self.histogram(name, histogram),
            Value::Summary(quantiles, sum, count) => self.summary(name, quantiles, *sum, *count),
        }
        if let (true, Some(base), Some(created)) = (self.created, base, metric.created_seconds) {
            self.float(base, b"_created", created);
        }
    }

    fn histogram(&mut self, name: &[u8], histogram: &Histogram) {
        self.edges.load(&histogram.edges, self.profile.style);
        self.bucket.clear();
        self.bucket.extend_from_slice(name);
        self.bucket.extend_from_slice(b"_bucket{");
        self.bucket.extend_from_slice(&self.labels);
        if !self.labels.is_empty() {
            self.bucket.push(b',');
        }
        self.bucket.extend_from_slice(b"le=\"");
        let mut count = 0;
        let mut exemplars = histogram.exemplars.iter().peekable();
        for (index, (edge, own)) in self.edges.text.iter().zip(&histogram.counts).enumerate() {
            count += own;
            self.out.extend_from_slice(&self.bucket);
            self.out.extend_from_slice(edge);
            push_count(&mut self.out, count);
            if self.profile.open
                && let Some((_, exemplar)) = exemplars.next_if(|(place, _)| *place == index)
            {
                push_exemplar(&mut self.out, exemplar);
            }
            self.out.push(b'\n');
        }
        self.float(name, b"_sum", histogram.sum);
        self.count(name, count);
    }

    fn summary(&mut self, name: &[u8], quantiles: &[(f64, f64)], sum: f64, count: u64) {
        for (quantile, value) in quantiles {
            let mut text = Vec::with_capacity(8);
            push_edge(&mut text, *quantile, self.profile.style);
            open(&mut self.out, name, b"", &self.labels, Some((b"quantile", &text)));
            push_value(&mut self.out, *value, self.profile.style);
            self.out.push(b'\n');
        }
        self.float(name, b"_sum", sum);
        self.count(name, count);
    }

    fn float(&mut self, name: &[u8], suffix: &[u8], value: f64) {
        open(&mut self.out, name, suffix, &self.labels, None);
        push_value(&mut self.out, value, self.profile.style);
        self.out.push(b'\n');
    }

    fn count(&mut self, name: &[u8], count: u64) {
        open(&mut self.out, name, b"_count", &self.labels, None);
        push_count(&mut self.out, count);
        self.out.push(b'\n');
    }

    fn close(&mut self, exemplar: Option<&Exemplar>) {
        if let Some(exemplar) = exemplar.filter(|_| self.profile.open) {
            push_exemplar(&mut self.out, exemplar);
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

/// ` # {trace_id="…",span_id="…"} value timestamp`. Names and values of the two labels are 63 characters, of 128 that
/// OpenMetrics allows.
fn push_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    let Exemplar { trace_id, span_id, value, at_seconds } = exemplar;
    out.extend_from_slice(b" # {trace_id=\"");
    out.extend_from_slice(&hex(*trace_id));
    out.extend_from_slice(b"\",span_id=\"");
    out.extend_from_slice(&hex(u128::from(*span_id))[16..]);
    out.extend_from_slice(b"\"} ");
    push_value(out, *value, Style::Dotted);
    out.push(b' ');
    push_value(out, *at_seconds, Style::Dotted);
}

/// A trace id as W3C Trace Context spells it; a span id is its last 16 digits.
pub(super) fn hex(id: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    for (place, digit) in digits.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(id >> (4 * (31 - place)) & 15) as usize];
    }
    digits
}
