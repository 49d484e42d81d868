//! Delimited protobuf: the one format that has native histograms.
//!
//! Source: `io.prometheus.client`, the data model of Prometheus (metrics.proto); Protocol Buffers, "Encoding".
//! Shape:  one `MetricFamily` after the other, each behind its length. Numbers of fields are constants below, named as in
//!         the model.
//! Units:  timestamps are seconds and nanoseconds since 1970, those of samples milliseconds.
//! Absent: what is 0 is left out where readers take that for 0; values, sums and counts of buckets are always there,
//!         because readers of the older model of optional fields tell the two apart.
//!
//! A message stands behind its own length, which is known once it is written. So everything is written back to front: the
//! length of a message is then what has been written since its end, and no message is measured first or copied. What is
//! kept in one piece is a family, an eighth of its size as text.

use super::encoder::hex;
use super::openmetrics;
use super::sink::Sink;
use crate::signals::snapshot::{Exemplar, Histogram, Kind, Metric, MetricFamily, Native, Value};

/// What the page says that it is.
pub const CONTENT_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Empty buckets that are written out as such rather than ended by a new span: a bucket costs one byte, a span four.
const GAP_MAX: i64 = 2;

/// Room for the first family.
const BUFFER_BYTES: usize = 64 * 1024;

/// `MetricFamily`
mod family {
    pub const NAME: u32 = 1;
    pub const HELP: u32 = 2;
    pub const TYPE: u32 = 3;
    pub const METRIC: u32 = 4;
    pub const UNIT: u32 = 5;
}

/// `Metric`
mod metric {
    pub const LABEL: u32 = 1;
    pub const GAUGE: u32 = 2;
    pub const COUNTER: u32 = 3;
    pub const SUMMARY: u32 = 4;
    pub const UNTYPED: u32 = 5;
    pub const TIMESTAMP_MS: u32 = 6;
    pub const HISTOGRAM: u32 = 7;
}

/// `LabelPair`
mod label {
    pub const NAME: u32 = 1;
    pub const VALUE: u32 = 2;
}

/// `Counter`, `Gauge` and `Untyped`
mod number {
    pub const VALUE: u32 = 1;
    pub const EXEMPLAR: u32 = 2;
    pub const START_TIMESTAMP: u32 = 3;
}

/// `Summary`
mod summary {
    pub const SAMPLE_COUNT: u32 = 1;
    pub const SAMPLE_SUM: u32 = 2;
    pub const QUANTILE: u32 = 3;
    pub const START_TIMESTAMP: u32 = 4;
}

/// `Quantile`
mod quantile {
    pub const QUANTILE: u32 = 1;
    pub const VALUE: u32 = 2;
}

/// `Histogram`
mod histogram {
    pub const SAMPLE_COUNT: u32 = 1;
    pub const SAMPLE_SUM: u32 = 2;
    pub const BUCKET: u32 = 3;
    pub const SCHEMA: u32 = 5;
    pub const ZERO_THRESHOLD: u32 = 6;
    pub const ZERO_COUNT: u32 = 7;
    pub const POSITIVE_SPAN: u32 = 12;
    pub const POSITIVE_DELTA: u32 = 13;
    pub const START_TIMESTAMP: u32 = 15;
    pub const EXEMPLARS: u32 = 16;
}

/// `Bucket`
mod bucket {
    pub const CUMULATIVE_COUNT: u32 = 1;
    pub const UPPER_BOUND: u32 = 2;
    pub const EXEMPLAR: u32 = 3;
}

/// `BucketSpan`
mod span {
    pub const OFFSET: u32 = 1;
    pub const LENGTH: u32 = 2;
}

/// `Exemplar`
mod exemplar {
    pub const LABEL: u32 = 1;
    pub const VALUE: u32 = 2;
    pub const TIMESTAMP: u32 = 3;
}

/// `google.protobuf.Timestamp`
mod timestamp {
    pub const SECONDS: u32 = 1;
    pub const NANOS: u32 = 2;
}

/// Encodes families in the order given.
pub(super) fn encode(families: &[MetricFamily], sink: &mut Sink) {
    let mut out = Backward::new();
    for family in families.iter().filter(|family| !family.metrics.is_empty()) {
        let base = family.name.strip_suffix("_total").filter(|_| family.kind == Kind::Counter);
        let head = Head { name: &family.name, kind: family.kind, help: &family.help };
        head.write(&mut out, base.unwrap_or(&family.name), |out| {
            for metric in family.metrics.iter().rev() {
                let labels = metric.labels.iter().rev().map(|(name, value)| (name.as_str(), value.as_str()));
                let Metric { value, created_seconds, .. } = metric;
                Sample { kind: family.kind, value, created_seconds: *created_seconds, timestamp: None }
                    .write(out, labels);
            }
        });
        sink.write(out.bytes());
        out.clear();
    }
}

/// What a family says about itself.
pub(super) struct Head<'a> {
    pub name: &'a str,
    pub kind: Kind,
    pub help: &'a str,
}

// === impl Head ===

impl Head<'_> {
    /// Writes a family with its length. `base`: its name without a suffix, which may end in a unit. `metrics` writes them,
    /// the last one first.
    pub fn write(&self, out: &mut Backward, base: &str, metrics: impl FnOnce(&mut Backward)) {
        let end = out.len();
        if let Some(unit) = openmetrics::unit(base) {
            out.text(family::UNIT, unit);
        }
        metrics(out);
        let kind = match self.kind {
            Kind::Counter => 0,
            Kind::Gauge => 1,
            Kind::Summary => 2,
            Kind::Unknown => 3,
            Kind::Histogram => 4,
        };
        out.number(family::TYPE, kind);
        if !self.help.is_empty() {
            out.text(family::HELP, self.help);
        }
        out.text(family::NAME, self.name);
        let length = out.len() - end;
        out.varint(length as u64);
    }
}

/// A value to be written: one of our own model or of a backend's page.
#[derive(Clone, Debug)]
pub(super) struct Sample<'a> {
    /// Of its family.
    pub kind: Kind,
    pub value: &'a Value,
    pub created_seconds: Option<f64>,
    /// Milliseconds since 1970, if the sample is of another time than the page.
    pub timestamp: Option<i64>,
}

// === impl Sample ===

impl Sample<'_> {
    /// Writes a metric of a family; `labels` are given the last one first.
    pub fn write<'l>(&self, out: &mut Backward, labels: impl Iterator<Item = (&'l str, &'l str)>) {
        out.message(family::METRIC, |out| {
            if let Value::Histogram(value) = self.value {
                out.message(metric::HISTOGRAM, |out| push_histogram(out, value, self.created_seconds));
            }
            if let Some(milliseconds) = self.timestamp {
                // Negative numbers are ten bytes of their two's complement.
                out.number(metric::TIMESTAMP_MS, milliseconds.cast_unsigned());
            }
            match self.value {
                Value::Counter(value, exemplar) => out.message(metric::COUNTER, |out| {
                    push_time(out, number::START_TIMESTAMP, self.created_seconds);
                    if let Some(exemplar) = exemplar {
                        push_exemplar(out, number::EXEMPLAR, exemplar);
                    }
                    out.double(number::VALUE, *value);
                }),
                Value::Number(value) => {
                    let field = if self.kind == Kind::Gauge { metric::GAUGE } else { metric::UNTYPED };
                    out.message(field, |out| out.double(number::VALUE, *value));
                }
                Value::Summary(quantiles, sum, count) => out.message(metric::SUMMARY, |out| {
                    push_time(out, summary::START_TIMESTAMP, self.created_seconds);
                    for (quantile, value) in quantiles.iter().rev() {
                        out.message(summary::QUANTILE, |out| {
                            out.double(quantile::VALUE, *value);
                            out.double(quantile::QUANTILE, *quantile);
                        });
                    }
                    out.double(summary::SAMPLE_SUM, *sum);
                    out.number(summary::SAMPLE_COUNT, *count);
                }),
                Value::Histogram(_) => {}
            }
            labels.for_each(|(name, value)| push_label(out, metric::LABEL, name, value));
        });
    }
}

fn push_histogram(out: &mut Backward, value: &Histogram, created_seconds: Option<f64>) {
    if value.native.is_some() {
        // They must have a time, and all of ours do.
        for (_, exemplar) in value.exemplars.iter().rev() {
            push_exemplar(out, histogram::EXEMPLARS, exemplar);
        }
    }
    push_time(out, histogram::START_TIMESTAMP, created_seconds);
    if let Some(native) = &value.native {
        push_native(out, native);
    }
    let count = value.count();
    let mut below = count;
    let only = only_exemplar(value);
    let shown = value.exemplars.iter().rev().filter(|(at, _)| only.is_none_or(|only| only == *at));
    let mut exemplars = shown.peekable();
    for (place, own) in value.counts.iter().enumerate().rev() {
        let edge = value.edges.get(place).copied().unwrap_or(f64::INFINITY);
        let exemplar = exemplars.next_if(|(at, _)| *at == place);
        // Of the last one everybody knows what it would say.
        if edge.is_finite() || exemplar.is_some() {
            out.message(histogram::BUCKET, |out| {
                if let Some((_, exemplar)) = exemplar {
                    push_exemplar(out, bucket::EXEMPLAR, exemplar);
                }
                out.double(bucket::UPPER_BOUND, edge);
                out.number(bucket::CUMULATIVE_COUNT, below);
            });
        }
        below -= own;
    }
    out.double(histogram::SAMPLE_SUM, value.sum);
    out.number(histogram::SAMPLE_COUNT, count);
}

/// The one bucket that shows its exemplar; `None`: each shows its own. Beside native buckets only the newest of all is shown:
/// Prometheus up to 2.46, which stores native histograms and does not know the field for their exemplars, takes the first
/// one that a bucket has, which would always be that of the fastest requests; and 2.47 warns of those that are older than
/// the one before.
fn only_exemplar(value: &Histogram) -> Option<usize> {
    value.native.as_ref()?;
    value.exemplars.iter().max_by(|(_, one), (_, other)| one.at_seconds.total_cmp(&other.at_seconds)).map(|(at, _)| *at)
}

fn push_native(out: &mut Backward, native: &Native) {
    let Native { schema, zero_threshold, zero_count, buckets } = native;
    if !buckets.is_empty() {
        out.message(histogram::POSITIVE_DELTA, |out| {
            for (place, (index, count)) in buckets.iter().enumerate().rev() {
                let Some((before, known)) = place.checked_sub(1).map(|before| buckets[before]) else {
                    out.varint(zigzag(count.cast_signed()));
                    continue;
                };
                match gap(before, *index) {
                    empty @ 1..=GAP_MAX => {
                        out.varint(zigzag(count.cast_signed()));
                        (1..empty).for_each(|_| out.varint(0));
                        out.varint(zigzag(known.cast_signed().wrapping_neg()));
                    }
                    _ => out.varint(zigzag(count.cast_signed().wrapping_sub(known.cast_signed()))),
                }
            }
        });
    }
    // What is written last comes first, so spans are found from the end.
    let mut rest = &buckets[..];
    while let Some((last, _)) = rest.last() {
        let ends = |pair: &[(i32, u64)]| gap(pair[0].0, pair[1].0) > GAP_MAX;
        let begin = rest.windows(2).rposition(ends).map_or(0, |place| place + 1);
        let (first, before) = (rest[begin].0, begin.checked_sub(1).map(|place| rest[place].0));
        let offset = before.map_or(i64::from(first), |before| gap(before, first));
        push_span(out, offset, last.abs_diff(first) + 1);
        rest = &rest[..begin];
    }
    if buckets.is_empty() && *zero_threshold == 0.0 && *zero_count == 0 {
        // Nothing else would tell this from a classic histogram.
        push_span(out, 0, 0);
    }
    if *zero_count != 0 {
        out.number(histogram::ZERO_COUNT, *zero_count);
    }
    if *zero_threshold != 0.0 {
        out.double(histogram::ZERO_THRESHOLD, *zero_threshold);
    }
    out.number(histogram::SCHEMA, zigzag(i64::from(*schema)));
}

/// How many buckets are empty between these two.
fn gap(before: i32, index: i32) -> i64 {
    i64::from(index) - i64::from(before) - 1
}

fn push_span(out: &mut Backward, offset: i64, length: u32) {
    out.message(histogram::POSITIVE_SPAN, |out| {
        out.number(span::LENGTH, u64::from(length));
        out.number(span::OFFSET, zigzag(offset));
    });
}

fn push_exemplar(out: &mut Backward, field: u32, value: &Exemplar) {
    let Exemplar { trace_id, span_id, value, at_seconds } = value;
    let (trace, span) = (hex(*trace_id), hex(u128::from(*span_id)));
    out.message(field, |out| {
        push_time(out, exemplar::TIMESTAMP, Some(*at_seconds));
        out.double(exemplar::VALUE, *value);
        for (name, digits) in [("span_id", &span[16..]), ("trace_id", &trace[..])] {
            out.message(exemplar::LABEL, |out| {
                out.length_delimited(label::VALUE, digits);
                out.text(label::NAME, name);
            });
        }
    });
}

fn push_label(out: &mut Backward, field: u32, name: &str, value: &str) {
    out.message(field, |out| {
        out.text(label::VALUE, value);
        out.text(label::NAME, name);
    });
}

/// A `Timestamp`, if there is one that it can hold.
fn push_time(out: &mut Backward, field: u32, seconds: Option<f64>) {
    // Years 1 to 9999, as the type demands; NaN is outside.
    let Some(seconds) = seconds.filter(|seconds| (-62_135_596_800.0..253_402_300_800.0).contains(seconds)) else {
        return;
    };
    let whole = seconds.floor();
    // The range was checked, so the casts are exact; a float of this size is good for some hundred nanoseconds.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let (whole, nanos) = (whole as i64, ((seconds - whole) * 1e9) as u64);
    out.message(field, |out| {
        if nanos != 0 {
            out.number(timestamp::NANOS, nanos);
        }
        if whole != 0 {
            out.number(timestamp::SECONDS, whole.cast_unsigned());
        }
    });
}

/// Small numbers of either sign become small numbers.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Bytes that are written from the last one to the first.
#[derive(Debug)]
pub(super) struct Backward {
    /// What is written stands at the end, from `begin`.
    buffer: Vec<u8>,
    begin: usize,
}

// === impl Backward ===

impl Backward {
    pub fn new() -> Backward {
        Backward { buffer: vec![0; BUFFER_BYTES], begin: BUFFER_BYTES }
    }

    /// What was written, in reading order.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.begin..]
    }

    pub fn clear(&mut self) {
        self.begin = self.buffer.len();
    }

    fn len(&self) -> usize {
        self.buffer.len() - self.begin
    }

    /// Room for so many more bytes, in front.
    fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.begin < bytes {
            let written = self.len();
            let size = (2 * self.buffer.len()).max(written + bytes);
            let mut larger = vec![0; size];
            larger[size - written..].copy_from_slice(self.bytes());
            self.begin = size - written;
            self.buffer = larger;
        }
        let end = self.begin;
        self.begin -= bytes;
        &mut self.buffer[self.begin..end]
    }

    fn varint(&mut self, value: u64) {
        if value < 0x80 {
            self.room(1)[0] = value.to_le_bytes()[0];
            return;
        }
        let size = (70 - value.leading_zeros() as usize) / 7;
        let room = self.room(size);
        let mut rest = value;
        for byte in &mut room[..size - 1] {
            *byte = rest.to_le_bytes()[0] | 0x80;
            rest >>= 7;
        }
        room[size - 1] = rest.to_le_bytes()[0];
    }

    /// The key of a field: its number and how its value is written.
    fn key(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn number(&mut self, field: u32, value: u64) {
        self.varint(value);
        self.key(field, 0);
    }

    fn double(&mut self, field: u32, value: f64) {
        self.room(8).copy_from_slice(&value.to_le_bytes());
        self.key(field, 1);
    }

    fn length_delimited(&mut self, field: u32, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.varint(bytes.len() as u64);
        self.key(field, 2);
    }

    fn text(&mut self, field: u32, text: &str) {
        self.length_delimited(field, text.as_bytes());
    }

    fn message(&mut self, field: u32, fields: impl FnOnce(&mut Backward)) {
        let end = self.len();
        fields(self);
        let length = self.len() - end;
        self.varint(length as u64);
        self.key(field, 2);
    }
}
