//! What probes write down during a round, and what stays between rounds: counters.
//!
//! A gauge is noted anew in each round or is gone. A counter never goes back: it either grows by what a probe adds, or
//! follows a counter of the kernel, whose steps back (a wrap, another cgroup, a race inside the kernel) are not followed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::signals::families::Family;
use crate::signals::sampled::{Point, ResourceName};

/// A label value: mostly a word of `labels`, sometimes a name of the configuration or a port.
pub(super) type Label = Cow<'static, str>;

/// Counters of the kernel that are remembered behind one of ours: a backend comes back to one or two cgroups.
const FOLLOWED_MAX: usize = 8;

/// The highest ratio that is believed.
const FULLEST: f64 = 1e6;

/// The used part of a limit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Usage {
    pub resource: ResourceName,
    /// In the unit of the limit.
    pub used: f64,
    /// Above 0.
    pub limit: f64,
}

/// The notes of all probes.
#[derive(Debug, Default)]
pub(super) struct Notes {
    gauges: Vec<Point>,
    usages: Vec<Usage>,
    counters: BTreeMap<(&'static str, Vec<Label>), Count>,
}

#[derive(Debug)]
struct Count {
    family: &'static Family,
    total: f64,
    /// Whose kernel counters were read, and what they were, the latest one last.
    followed: Vec<(u64, f64)>,
}

// === impl Notes ===

impl Notes {
    /// Begins a round: what was measured in the last one is forgotten, what was counted is kept.
    pub fn begin_round(&mut self) {
        self.gauges.clear();
        self.usages.clear();
    }

    /// Notes a value.
    pub fn gauge<const N: usize>(&mut self, family: &'static Family, labels: [impl Into<Label>; N], value: f64) {
        debug_assert_eq!(family.labels.len(), N, "{}", family.name);
        self.gauges.push(Point { family, labels: labels.map(Into::into).into(), value });
    }

    /// Notes a value without labels.
    pub fn value(&mut self, family: &'static Family, value: f64) {
        self.gauge(family, [""; 0], value);
    }

    /// Adds to a counter; 0 makes it exist.
    pub fn count<const N: usize>(&mut self, family: &'static Family, labels: [impl Into<Label>; N], more: f64) {
        self.counter(family, labels).total += more.max(0.0);
    }

    /// Follows a counter of the kernel. `whose` tells one such counter from another (a cgroup, a process): the first one
    /// is taken with all that it had counted, another one from its first reading on, and one that comes back (a process
    /// that starts in one cgroup and moves to another) from where it was left. Returns false when it went back, and then
    /// goes on from the new value.
    pub fn follow<const N: usize>(
        &mut self,
        family: &'static Family,
        labels: [impl Into<Label>; N],
        whose: u64,
        counted: f64,
    ) -> bool {
        let count = self.counter(family, labels);
        let known = count.followed.iter().position(|(before, _)| *before == whose).map(|at| count.followed.remove(at));
        let (step, forward) = match known {
            None if count.followed.is_empty() => (counted, true),
            None => (0.0, true),
            Some((_, before)) => (counted - before, counted >= before),
        };
        if count.followed.len() >= FOLLOWED_MAX {
            count.followed.remove(0);
        }
        count.followed.push((whose, counted));
        count.total += step.max(0.0);
        forward
    }

    /// Notes how much of a limit is used. Without a positive limit there is nothing to note; what is a million times full
    /// is no reading, and would drown all others in a sum.
    pub fn usage(&mut self, resource: impl Into<ResourceName>, used: f64, limit: f64) {
        if limit > 0.0 && limit.is_finite() && (used / limit).abs() <= FULLEST {
            self.usages.push(Usage { resource: resource.into(), used: used.max(0.0), limit });
        }
    }

    /// How much of which limit is used, as noted in this round.
    pub fn usages(&self) -> &[Usage] {
        &self.usages
    }

    /// Forgets the counters that `keep` does not want.
    pub fn retain_counters(&mut self, keep: impl Fn(&'static Family, &[Label]) -> bool) {
        self.counters.retain(|(_, labels), count| labels.is_empty() || keep(count.family, labels));
    }

    /// Every series: the gauges of this round and all counters.
    pub fn points(&self) -> Vec<Point> {
        let counted = self.counters.iter().map(|((_, labels), count)| Point {
            family: count.family,
            labels: labels.clone(),
            value: count.total,
        });
        self.gauges.iter().cloned().chain(counted).collect()
    }

    fn counter<const N: usize>(&mut self, family: &'static Family, labels: [impl Into<Label>; N]) -> &mut Count {
        debug_assert_eq!(family.labels.len(), N, "{}", family.name);
        let key = (family.name, labels.map(Into::into).into());
        self.counters.entry(key).or_insert_with(|| Count { family, total: 0.0, followed: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::families as f;

    fn total(notes: &Notes) -> f64 {
        notes.points().iter().find(|p| std::ptr::eq(p.family, &f::BACKEND_CPU_PERIODS)).unwrap().value
    }

    #[test]
    fn a_counter_follows_the_kernels_forward_only() {
        let mut notes = Notes::default();
        let mut follow = |whose, counted| {
            let forward = notes.follow(&f::BACKEND_CPU_PERIODS, [""; 0], whose, counted);
            (forward, total(&notes))
        };
        assert_eq!(follow(1, 100.0), (true, 100.0), "the first one is taken as it is");
        assert_eq!(follow(1, 130.0), (true, 130.0));
        assert_eq!(follow(1, 20.0), (false, 130.0), "a step back is not followed");
        assert_eq!(follow(1, 25.0), (true, 135.0), "and it goes on from there");
        assert_eq!(follow(2, 1000.0), (true, 135.0), "another one counts from its first reading on");
        assert_eq!(follow(2, 1001.0), (true, 136.0));
        assert_eq!(follow(1, 27.0), (true, 138.0), "one that comes back goes on from where it was left");
        for other in 10..30 {
            assert_eq!(follow(other, 5.0), (true, 138.0));
        }
        assert_eq!(follow(1, 100.0), (true, 138.0), "one that was away for long is a new one");
    }

    #[test]
    fn a_round_forgets_gauges_and_keeps_counters() {
        let mut notes = Notes::default();
        notes.value(&f::BACKEND_FDS, 3.0);
        notes.count(&f::BACKEND_CPU, ["user"], 1.5);
        notes.usage("cpu", 1.0, 2.0);
        notes.begin_round();
        notes.count(&f::BACKEND_CPU, ["user"], -1.0);
        assert!(notes.usages().is_empty());
        let points = notes.points();
        assert_eq!(points.len(), 1);
        assert_eq!(points[0].value, 1.5);
    }

    #[test]
    fn nothing_is_used_of_no_limit() {
        let mut notes = Notes::default();
        notes.usage("memory", 1.0, 0.0);
        notes.usage("memory", f64::NAN, 1.0);
        notes.usage("memory", 1.0, f64::INFINITY);
        notes.usage("memory", f64::INFINITY, 1.0);
        notes.usage("memory", 1e308, 0.001);
        assert!(notes.usages().is_empty());
    }
}
