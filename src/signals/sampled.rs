//! What the sampler noted: one [`Sample`] per round, whole. The page shows the latest one, so a value that could not be
//! read is absent by itself, and none survives the reading that it came from.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;

use crate::signals::families::Family;

/// Upper edges of `golden_saturation_sampled_ratio`: 5 % each, as the SRE book advises for utilisation (chapter 6).
pub const RATIO_EDGES: [f64; 20] = [
    0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95,
    1.00,
];

/// The name of a resource as the label `resource` has it: a [`crate::labels::Resource`], or `pool:NAME`.
pub type ResourceName = Cow<'static, str>;

/// One round of sampling.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was taken.
    pub at: Instant,
    /// How long its gauges may stand on the page.
    pub valid_for: Duration,
    /// Rounds that were due since the last one and did not run.
    pub missed: u64,
    /// Used share of each resource that has a limit and could be read; the sidecar's own pairs are read at the scrape.
    pub ratios: Vec<(ResourceName, f64)>,
    /// All rounds so far, per resource that changes fast.
    pub histograms: Vec<(ResourceName, RatioHistogram)>,
    /// Every other series of [`crate::signals::families::SAMPLED`].
    pub points: Vec<Point>,
    /// Busy share of each worker, 0 to 1.
    pub worker_busy: Vec<f64>,
}

/// One series: a family, its label values in the family's order, and the value.
#[derive(Clone, Debug)]
pub struct Point {
    /// The family; compared by address, so it is always the declaration itself.
    pub family: &'static Family,
    /// Label values, in the order of the family's label names.
    pub labels: Vec<Cow<'static, str>>,
    /// The value, in the family's unit.
    pub value: f64,
}

/// Observations of a ratio in buckets of 5 %.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RatioHistogram {
    /// Observations per bucket (not cumulative), the last one above every edge.
    pub buckets: [u64; RATIO_EDGES.len() + 1],
    /// Sum of all observations.
    pub sum: f64,
}

/// What the page knows of the sampler.
#[derive(Debug, Default)]
pub(super) struct Sampled {
    pub latest: Option<Sample>,
    pub lag_seconds: f64,
    pub ticks: u64,
    pub missed: u64,
}

// === impl Sample ===

impl Sample {
    /// The used share of a resource, if there is one in this round.
    #[must_use]
    pub fn ratio(&self, resource: &str) -> Option<f64> {
        self.ratios.iter().find(|(name, _)| name == resource).map(|(_, ratio)| *ratio)
    }
}

// === impl RatioHistogram ===

impl RatioHistogram {
    /// Records one ratio; edges are inclusive (`le`).
    pub fn observe(&mut self, ratio: f64) {
        let bucket = RATIO_EDGES.partition_point(|edge| *edge < ratio);
        self.buckets[bucket] += 1;
        self.sum += ratio;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_belongs_to_its_own_bucket_and_more_than_full_to_the_last() {
        let mut histogram = RatioHistogram::default();
        for ratio in [0.0, 0.05, 0.051, 0.5, 1.0, 1.01] {
            histogram.observe(ratio);
        }
        let mut expected = [0; 21];
        expected[0] = 2;
        expected[1] = 1;
        expected[9] = 1;
        expected[19] = 1;
        expected[20] = 1;
        assert_eq!(histogram.buckets, expected);
    }
}
