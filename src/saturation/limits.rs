//! Which limit is in force, and how much of it is used. Pure.
//!
//! Several parties set limits: the configuration (told from outside, for instance by Kubernetes' Downward API), each
//! level of the cgroup, rlimits, the host. The smallest is in force and is the one that is shown. The used share is that
//! of the fullest: a parent cgroup that others fill up too may be nearer to its end than the smallest limit is.

use crate::config::BackendHints;
use crate::labels::{LimitSource, Resource};
use crate::saturation::notes::Notes;
use crate::signals::families::{self as f, Family};

/// A limit, and what is used of it if that is something else than the backend's own use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bound {
    pub source: LimitSource,
    pub limit: f64,
    pub used: Option<f64>,
}

/// What probes found out about one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Supply {
    /// What the backend's processes use.
    pub used: Option<f64>,
    /// Limits of the backend. Not yet those of the host and the configuration.
    pub bounds: Vec<Bound>,
    /// What the host has.
    pub host: Option<f64>,
}

/// What probes found out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    /// In cores.
    pub cpu: Supply,
    /// In bytes.
    pub memory: Supply,
    /// In threads.
    pub threads: Supply,
}

/// Notes the limit in force and the use of every limit.
pub(super) fn weigh(facts: &Facts, hints: &BackendHints, notes: &mut Notes) {
    let Facts { cpu, memory, threads } = facts;
    // Both count too much: the sum over processes has pages that they share once for each, and others may be in the
    // cgroup. So the smaller one is nearer to the truth.
    let leaf = memory.bounds.first().and_then(|bound| bound.used);
    let used = match (memory.used, leaf) {
        (Some(sum), Some(leaf)) => Some(sum.min(leaf)),
        (sum, leaf) => sum.or(leaf),
    };
    let memory = &Supply { used, ..memory.clone() };
    supply(Resource::Cpu, &f::BACKEND_CPU_LIMIT, cpu, hints.cpu_limit_cores, notes);
    supply(Resource::Memory, &f::BACKEND_MEMORY_LIMIT, memory, hints.memory_limit_bytes.map(|b| b as f64), notes);
    supply(Resource::Threads, &f::BACKEND_THREADS_LIMIT, threads, None, notes);
}

fn supply(resource: Resource, family: &'static Family, supply: &Supply, configured: Option<f64>, notes: &mut Notes) {
    let Supply { used, bounds, host } = supply;
    let visible = used.is_some() || !bounds.is_empty();
    let own = |source, limit: Option<f64>| limit.map(|limit| Bound { source, limit, used: None });
    let all: Vec<Bound> = own(LimitSource::Config, configured)
        .into_iter()
        .chain(bounds.iter().copied())
        // Of a backend that cannot be seen it is not known that it shares this host's resources.
        .chain(own(LimitSource::Host, *host).filter(|_| visible))
        .filter(|bound| bound.limit > 0.0 && bound.limit.is_finite())
        .collect();
    // Of equal limits the first one counts: the one that a person has written, then the narrower one.
    let Some(in_force) = all.iter().copied().reduce(|a, b| if b.limit < a.limit { b } else { a }) else { return };
    notes.gauge(family, [in_force.source.as_str()], in_force.limit);
    // Where the processes cannot be seen, their cgroup tells what they use.
    let used = used.or_else(|| bounds.iter().find_map(|bound| bound.used));
    for bound in all {
        if let Some(used) = bound.used.or(used) {
            notes.usage(resource.as_str(), used, bound.limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saturation::notes::Usage;

    fn weighed(facts: &Facts, hints: &BackendHints) -> Notes {
        let mut notes = Notes::default();
        weigh(facts, hints, &mut notes);
        notes
    }

    fn limit(notes: &Notes, family: &'static Family) -> Option<(String, f64)> {
        let point = notes.points().into_iter().find(|p| std::ptr::eq(p.family, family))?;
        Some((point.labels[0].to_string(), point.value))
    }

    fn cpu(used: Option<f64>, bounds: Vec<Bound>, host: Option<f64>) -> Facts {
        Facts { cpu: Supply { used, bounds, host }, ..Facts::default() }
    }

    #[test]
    fn the_smallest_limit_is_in_force_and_the_fullest_one_tells_the_ratio() {
        let bounds = vec![
            Bound { source: LimitSource::Cgroup, limit: 2.0, used: Some(1.0) },
            Bound { source: LimitSource::Cgroup, limit: 4.0, used: Some(3.6) },
        ];
        let notes = weighed(&cpu(Some(0.9), bounds, Some(8.0)), &BackendHints::default());
        assert_eq!(limit(&notes, &f::BACKEND_CPU_LIMIT), Some(("cgroup".into(), 2.0)));
        let fullest = notes.usages().iter().map(|Usage { used, limit, .. }| used / limit).fold(0.0, f64::max);
        assert_eq!(fullest, 0.9);
    }

    #[test]
    fn what_a_person_has_told_counts_if_it_is_smaller() {
        let hints =
            BackendHints { cpu_limit_cores: Some(0.5), memory_limit_bytes: Some(1 << 30), ..BackendHints::default() };
        let notes = weighed(&cpu(Some(0.25), Vec::new(), Some(8.0)), &hints);
        assert_eq!(limit(&notes, &f::BACKEND_CPU_LIMIT), Some(("config".into(), 0.5)));
        assert_eq!(limit(&notes, &f::BACKEND_MEMORY_LIMIT), Some(("config".into(), f64::from(1 << 30))));
        assert!(notes.usages().iter().all(|usage| usage.resource == "cpu"), "no memory was seen, so no ratio");
    }

    #[test]
    fn a_backend_that_cannot_be_seen_has_no_limit_of_the_host() {
        let notes = weighed(&cpu(None, Vec::new(), Some(8.0)), &BackendHints::default());
        assert_eq!(limit(&notes, &f::BACKEND_CPU_LIMIT), None);
        assert!(notes.usages().is_empty());
    }

    #[test]
    fn pages_that_processes_share_fill_a_told_limit_once() {
        let leaf = Bound { source: LimitSource::Cgroup, limit: f64::INFINITY, used: Some(200.0) };
        let hints = BackendHints { memory_limit_bytes: Some(400), ..BackendHints::default() };
        let ratio = |sum, bounds| {
            let facts = Facts { memory: Supply { used: Some(sum), bounds, host: None }, ..Facts::default() };
            let notes = weighed(&facts, &hints);
            notes.usages()[0].used / notes.usages()[0].limit
        };
        assert_eq!(ratio(800.0, vec![leaf]), 0.5, "five workers that share most of it");
        assert_eq!(ratio(100.0, vec![leaf]), 0.25, "somebody else is in the cgroup");
        assert_eq!(ratio(100.0, Vec::new()), 0.25);
    }

    #[test]
    fn a_cgroup_tells_the_use_where_the_processes_are_hidden() {
        let bounds = vec![Bound { source: LimitSource::Cgroup, limit: 2.0, used: Some(1.0) }];
        let hints = BackendHints { cpu_limit_cores: Some(1.25), ..BackendHints::default() };
        let notes = weighed(&cpu(None, bounds, None), &hints);
        let ratios: Vec<f64> = notes.usages().iter().map(|usage| usage.used / usage.limit).collect();
        assert_eq!(ratios, [0.8, 0.5]);
    }
}
