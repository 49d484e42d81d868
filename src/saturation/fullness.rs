//! What a series of used ÷ limit says: the ratio now, the highest of the last minute, how often it was how high, and when
//! the limit will be reached. Pure: readings go in, nothing is read here.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::labels::Resource;
use crate::saturation::forecast::Trend;
use crate::saturation::notes::{Notes, Usage};
use crate::signals::families as f;
use crate::signals::sampled::{RatioHistogram, ResourceName};

/// The window of `golden_saturation_peak_ratio`. Two seconds more than the minute that it says, so that a scrape once a
/// minute sees each sample although it comes a moment late.
const PEAK_WINDOW: Duration = Duration::from_secs(62);
/// Samples of one second share a place, so that fast sampling costs no more memory than slow one: 63 places.
const PEAK_PLACE: Duration = Duration::from_secs(1);

/// Resources that change within a second, so that each sample is worth an observation in the histogram. Pools belong to
/// them too.
const FAST: [Resource; 6] = [
    Resource::Cpu,
    Resource::AcceptQueue,
    Resource::Inflight,
    Resource::UpstreamPool,
    Resource::ServerConnections,
    Resource::HostCpu,
];
/// Resources that fill up slowly and stay full, so that a forecast means something. Pools belong to them too.
const SLOW: [Resource; 4] = [Resource::Memory, Resource::Fds, Resource::Threads, Resource::HostMemory];

/// Everything that was learned about resources.
#[derive(Debug, Default)]
pub(super) struct Fullness {
    tracks: BTreeMap<ResourceName, Track>,
}

#[derive(Debug, Default)]
struct Track {
    peaks: VecDeque<(Instant, f64)>,
    histogram: RatioHistogram,
    trend: Trend,
}

// === impl Fullness ===

impl Fullness {
    /// Takes in what was noted in a round, and notes peaks and forecasts. Returns the ratios.
    pub fn take(&mut self, at: Instant, notes: &mut Notes) -> Vec<(ResourceName, f64)> {
        let ratios = fullest(notes.usages());
        for (resource, ratio) in &ratios {
            let track = self.tracks.entry(resource.clone()).or_default();
            if is_one_of(resource, &FAST) {
                track.histogram.observe(*ratio);
            }
            if is_one_of(resource, &SLOW) {
                track.trend.take(at, *ratio);
            }
            track.peak(at, *ratio);
        }
        for (resource, track) in &mut self.tracks {
            track.forget(at);
            if let Some(peak) = track.peaks.iter().map(|(_, ratio)| *ratio).reduce(f64::max) {
                notes.gauge(&f::SATURATION_PEAK, [resource.clone(), "1m".into()], peak);
            }
            let present = ratios.iter().any(|(name, _)| name == resource);
            if let Some(time) = track.trend.time_to_limit(at).filter(|_| present) {
                notes.gauge(&f::TIME_TO_LIMIT, [resource.clone()], time.as_secs_f64());
            }
        }
        ratios
    }

    /// Observations of each fast resource so far.
    pub fn histograms(&self) -> Vec<(ResourceName, RatioHistogram)> {
        let fast = self.tracks.iter().filter(|(resource, _)| is_one_of(resource, &FAST));
        fast.map(|(resource, track)| (resource.clone(), track.histogram.clone())).collect()
    }

    /// Forgets the resources that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.tracks.retain(|resource, _| keep(resource));
    }

    /// Another backend: how the old one filled up says nothing about it.
    pub fn forget_trends(&mut self) {
        for (resource, track) in &mut self.tracks {
            if resource != Resource::HostMemory.as_str() {
                track.trend = Trend::default();
            }
        }
    }
}

/// The ratio of each resource. Several limits and several sockets may tell of one; the fullest is what hurts.
fn fullest(usages: &[Usage]) -> Vec<(ResourceName, f64)> {
    let mut ratios: Vec<(ResourceName, f64)> = Vec::new();
    for Usage { resource, used, limit } in usages {
        let ratio = used / limit;
        match ratios.iter_mut().find(|(name, _)| name == resource) {
            Some((_, known)) => *known = known.max(ratio),
            None => ratios.push((resource.clone(), ratio)),
        }
    }
    ratios
}

fn is_one_of(resource: &str, resources: &[Resource]) -> bool {
    resource.starts_with("pool:") || resources.iter().any(|known| known.as_str() == resource)
}

// === impl Track ===

impl Track {
    fn peak(&mut self, at: Instant, ratio: f64) {
        match self.peaks.back_mut() {
            Some((since, highest)) if at.saturating_duration_since(*since) < PEAK_PLACE => {
                *highest = highest.max(ratio)
            }
            _ => self.peaks.push_back((at, ratio)),
        }
    }

    fn forget(&mut self, at: Instant) {
        while self.peaks.front().is_some_and(|(since, _)| at.saturating_duration_since(*since) > PEAK_WINDOW) {
            self.peaks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(
        fullness: &mut Fullness,
        at: Instant,
        usages: &[(&'static str, f64, f64)],
    ) -> (Vec<(ResourceName, f64)>, Notes) {
        let mut notes = Notes::default();
        for (resource, used, limit) in usages {
            notes.usage(*resource, *used, *limit);
        }
        let ratios = fullness.take(at, &mut notes);
        (ratios, notes)
    }

    fn peak(notes: &Notes, resource: &str) -> Option<f64> {
        let mut points = notes.points().into_iter().filter(|p| std::ptr::eq(p.family, &f::SATURATION_PEAK));
        points.find(|p| p.labels[0] == resource).map(|p| p.value)
    }

    #[test]
    fn a_burst_stays_in_the_peak_for_a_minute_and_in_the_histogram_for_ever() {
        let mut fullness = Fullness::default();
        let start = Instant::now();
        let mut last = Notes::default();
        for second in 0..=60 {
            let used = if (1..3).contains(&second) { 1.0 } else { 0.01 };
            last = round(&mut fullness, start + Duration::from_secs(second), &[("cpu", used, 1.0)]).1;
        }
        assert_eq!(peak(&last, "cpu"), Some(1.0));
        let late = round(&mut fullness, start + Duration::from_secs(66), &[("cpu", 0.01, 1.0)]).1;
        assert_eq!(peak(&late, "cpu"), Some(0.01));
        let histograms = fullness.histograms();
        assert_eq!(histograms[0].1.buckets[19], 2, "two samples between 95 % and 100 %");
        assert_eq!(histograms[0].1.buckets.iter().sum::<u64>(), 62);
    }

    #[test]
    fn fast_sampling_needs_no_more_places() {
        let mut fullness = Fullness::default();
        let start = Instant::now();
        for tenth in 0..3000 {
            round(&mut fullness, start + Duration::from_millis(100 * tenth), &[("cpu", 0.5, 1.0)]);
        }
        assert!(fullness.tracks["cpu"].peaks.len() <= 64);
        assert_eq!(fullness.histograms()[0].1.buckets[9], 3000, "one observation per sample all the same");
    }

    #[test]
    fn of_two_sources_of_one_resource_the_fuller_one_counts() {
        let mut fullness = Fullness::default();
        let usages = [("memory", 1.0, 4.0), ("memory", 3.0, 4.0), ("memory", 2.0, 4.0)];
        let (ratios, _) = round(&mut fullness, Instant::now(), &usages);
        assert_eq!(ratios, [("memory".into(), 0.75)]);
    }

    #[test]
    fn a_resource_that_cannot_be_read_has_no_ratio_and_soon_no_peak() {
        let mut fullness = Fullness::default();
        let start = Instant::now();
        round(&mut fullness, start, &[("fds", 1.0, 4.0)]);
        let (ratios, notes) = round(&mut fullness, start + Duration::from_secs(1), &[]);
        assert!(ratios.is_empty());
        assert_eq!(peak(&notes, "fds"), Some(0.25));
        let (_, notes) = round(&mut fullness, start + Duration::from_secs(100), &[]);
        assert_eq!(peak(&notes, "fds"), None);
    }
}
