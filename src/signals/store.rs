//! Single-writer cells: what a worker writes on the request path and a scrape reads from another thread.
//!
//! Each cell has exactly one writer, so an addition is a relaxed load and a relaxed store: no lock prefix, no
//! compare-and-swap, no cache line that two workers fight for. Readers may see a value that is a few
//! nanoseconds old, never a torn one.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicI64, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// A count that only grows. One writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The count now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Replaces the count. Only the owning worker may call this, with a larger value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

/// A number that goes up and down. One writer. Signed, because work that starts on one worker and ends on another
/// may leave one shard below zero; the sum over the shards is right.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `n`, which may be negative. Only the owning worker may call this.
    pub fn add(&self, n: i64) {
        // Release, and acquire in `get`: a reader that sees a gauge go down sees what was counted before. Free on x86.
        self.0.store(self.0.load(Relaxed) + n, Release);
    }

    /// Replaces the value. Only the owning worker may call this.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Acquire)
    }
}

/// Upper edges of a histogram.
#[derive(Debug, PartialEq)]
pub struct Edges {
    seconds: Box<[f64]>,
    nanos: Box<[u64]>,
}

impl Edges {
    /// Edges in seconds, strictly increasing, without +Inf.
    #[must_use]
    pub fn new(seconds: &[f64]) -> Arc<Edges> {
        // Nanoseconds are exact for every edge a person writes; rounding guards against 0.1 being 0.09999….
        let nanos = seconds.iter().map(|s| (s * 1e9).round() as u64).collect();
        Arc::new(Edges { seconds: seconds.into(), nanos })
    }

    /// The edges in seconds, as they are exposed.
    #[must_use]
    pub fn seconds(&self) -> &[f64] {
        &self.seconds
    }

    /// Index of the bucket that a duration falls in; edges are inclusive (`le`).
    fn bucket(&self, nanos: u64) -> usize {
        self.nanos.partition_point(|edge| *edge < nanos)
    }
}

/// A histogram of durations. One writer. The sum is an integer of nanoseconds (584 years fit), the count is the sum of
/// the buckets, so count and buckets of one reading always agree.
#[derive(Debug)]
pub struct Histogram {
    edges: Arc<Edges>,
    buckets: Box<[Counter]>,
    sum_nanos: Counter,
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub fn new(edges: &Arc<Edges>) -> Histogram {
        let buckets = (0..=edges.nanos.len()).map(|_| Counter::default()).collect();
        Histogram { edges: Arc::clone(edges), buckets, sum_nanos: Counter::default() }
    }

    /// Records one duration in nanoseconds. Only the owning worker may call this.
    pub fn observe(&self, nanos: u64) {
        self.buckets[self.edges.bucket(nanos)].add(1);
        self.sum_nanos.add(nanos);
    }

    /// Adds what stands here to `total`, which has the same edges.
    pub fn add_to(&self, total: &mut HistogramTotal) {
        for (into, from) in total.buckets.iter_mut().zip(&self.buckets) {
            *into += from.get();
        }
        total.sum_nanos += self.sum_nanos.get();
    }

    /// The edges.
    #[must_use]
    pub fn edges(&self) -> &Arc<Edges> {
        &self.edges
    }
}

/// The sum of one histogram over all workers.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramTotal {
    /// The edges that all summands share.
    pub edges: Arc<Edges>,
    /// Observations per bucket (not cumulative), the last one is above every edge.
    pub buckets: Vec<u64>,
    /// Sum of all observations, nanoseconds.
    pub sum_nanos: u64,
}

impl HistogramTotal {
    /// Nothing observed yet.
    #[must_use]
    pub fn new(edges: &Arc<Edges>) -> HistogramTotal {
        HistogramTotal { edges: Arc::clone(edges), buckets: vec![0; edges.nanos.len() + 1], sum_nanos: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_belongs_to_its_own_bucket() {
        let edges = Edges::new(&[0.005, 0.01, 0.1]);
        let histogram = Histogram::new(&edges);
        for nanos in [0, 5_000_000, 5_000_001, 10_000_000, 100_000_000, 100_000_001, u64::from(u32::MAX) * 1_000] {
            histogram.observe(nanos);
        }
        let mut total = HistogramTotal::new(&edges);
        histogram.add_to(&mut total);
        assert_eq!(total.buckets, [2, 2, 1, 2]);
    }

    #[test]
    fn the_sum_is_exact_where_a_float_would_drift() {
        let edges = Edges::new(&[1.0]);
        let histogram = Histogram::new(&edges);
        for _ in 0..1_000_003 {
            histogram.observe(100_000_001);
        }
        let mut total = HistogramTotal::new(&edges);
        histogram.add_to(&mut total);
        assert_eq!(total.sum_nanos, 1_000_003 * 100_000_001);
    }

    proptest::proptest! {
        #[test]
        fn buckets_agree_with_a_plain_search(nanos in 0u64..20_000_000_000) {
            let seconds = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
            let edges = Edges::new(&seconds);
            let expected = seconds.iter().position(|s| nanos <= (s * 1e9).round() as u64).unwrap_or(seconds.len());
            proptest::prop_assert_eq!(edges.bucket(nanos), expected);
        }
    }
}
