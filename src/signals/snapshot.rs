//! All numbers at one moment, ready to be written out in any format: what `collect.rs` makes and `exposition` encodes.
//!
//! It is a model of our own because that of the `prometheus` crate has neither native histograms nor exemplars nor
//! start times. Families of that crate's registry, the cold ones, are turned into it (`exposition/cold.rs`).

use std::borrow::Cow;
use std::sync::Arc;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts per bucket.
    Histogram,
    /// Quantiles that somebody else computed.
    Summary,
    /// Nobody said.
    Unknown,
}

/// A text of the page: most are constants, and the name of a route is shared by all its series.
#[derive(Clone, Debug)]
pub enum Text {
    /// Known when the program was built.
    Static(&'static str),
    /// Shared by many series.
    Shared(Arc<str>),
}

/// One family.
#[derive(Clone, Debug)]
pub struct MetricFamily {
    /// The name as 0.0.4 has it: a counter's ends in `_total`.
    pub name: Cow<'static, str>,
    /// One line.
    pub help: Cow<'static, str>,
    /// What it is.
    pub kind: Kind,
    /// Its series. No label set twice; an empty family is not on the page.
    pub metrics: Vec<Metric>,
}

/// One label set and its value.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Names and values, in the order in which they are written.
    pub labels: Vec<(Text, Text)>,
    /// The value.
    pub value: Value,
    /// When it began to count, in seconds since 1970; `None` for gauges and where nobody knows.
    pub created_seconds: Option<f64>,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Of a counter, and the latest traced event that it counted.
    Counter(f64, Option<Box<Exemplar>>),
    /// Of a gauge, or of a family that nobody gave a type.
    Number(f64),
    /// Of a histogram.
    Histogram(Box<Histogram>),
    /// Of a summary: quantile and value, then sum and count.
    Summary(Vec<(f64, f64)>, f64, u64),
}

/// A histogram, classic and native at once. Its count is the sum of `counts`, so that the two can never differ; where
/// there is a native part, the counts of its buckets have the same sum.
#[derive(Clone, Debug)]
pub struct Histogram {
    /// Upper edges, inclusive, increasing, without +Inf.
    pub edges: Arc<[f64]>,
    /// Observations per bucket (not cumulative); one more than there are edges, the last one above all of them.
    pub counts: Vec<u64>,
    /// Sum of all observations.
    pub sum: f64,
    /// The same observations in exponential buckets.
    pub native: Option<Native>,
    /// Exemplars and the index in `counts` that each belongs to; at most one for each, in the order of the buckets.
    pub exemplars: Vec<(usize, Exemplar)>,
}

/// Exponential buckets: number `i` holds values in `(base^(i-1), base^i]`, where `base = 2^(2^-schema)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Native {
    /// Resolution; 3 means eight buckets for each doubling.
    pub schema: i8,
    /// Values from 0 up to this are in the zero bucket. Above zero.
    pub zero_threshold: f64,
    /// How many there are of them.
    pub zero_count: u64,
    /// Index and count of each bucket that is not empty, by index.
    pub buckets: Vec<(i32, u64)>,
}

/// A traced event behind a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// W3C trace id.
    pub trace_id: u128,
    /// W3C span id.
    pub span_id: u64,
    /// What was observed, in the unit of the family; 1 for a counter.
    pub value: f64,
    /// When, in seconds since 1970.
    pub at_seconds: f64,
}

// === impl Text ===

impl Text {
    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Text::Static(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Text {
        Text::Static(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text::Shared(text.into())
    }
}

// === impl Histogram ===

impl Histogram {
    /// How many observations there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}
