//! Memory limits, use and events of the backend's cgroup.
//! Source: Linux documentation, cgroup-v2, "Memory Interface Files": memory.max, memory.high, memory.current,
//!         memory.stat, memory.events; cgroup-v1/memory: memory.limit_in_bytes, memory.usage_in_bytes, memory.stat,
//!         memory.failcnt, memory.oom_control.
//! Shape:  a number or `max`; lines of `key value`. Version 1 writes no limit as a number close to 2^63.
//! Units:  bytes.
//! Absent: a limit where there is none; in version 1 the events high and oom, which it does not count.
//!
//! Use is the working set: all that is charged less file pages that nobody used lately. Those are given back as soon as
//! somebody needs memory, so a limit that is full of them is not full.
//!
//! memory.high counts as a limit where it is the smaller one. Nobody is killed there, but whoever goes beyond it is held
//! back until pages are reclaimed: to a service that is what full means.

use std::borrow::Cow;
use std::path::Path;

use crate::labels::{LimitSource, MemoryEvent, MemoryKind, Source, Trouble};
use crate::saturation::cgroup::files::{self, Files};
use crate::saturation::cgroup::place::{Controller, Version};
use crate::saturation::fault::Fault;
use crate::saturation::limits::Bound;
use crate::saturation::{Probe, Round};
use crate::signals::families as f;

/// From here on, a limit of version 1 is none: the kernel shows the largest number of pages, which depends on the page
/// size. No machine has an exbibyte.
const UNLIMITED_V1: u64 = 1 << 60;

/// Limit, working set, events.
#[derive(Default)]
pub(in crate::saturation) struct Memory {
    files: Files,
}

/// What is used.
#[derive(Debug, PartialEq)]
struct Stat {
    anon: u64,
    file: u64,
    inactive_file: u64,
}

// === impl Memory ===

impl Memory {
    fn limit(&mut self, version: Version, folder: &Path) -> Result<f64, Fault> {
        let files = &mut self.files;
        let limit = match version {
            Version::V1 => files.parse(folder, "memory.limit_in_bytes", limit_v1)?,
            Version::V2 => {
                let high = files.parse(folder, "memory.high", files::number_or_max)?;
                let max = files.parse(folder, "memory.max", files::number_or_max)?;
                Some(high.unwrap_or(f64::INFINITY).min(max.unwrap_or(f64::INFINITY)))
            }
        };
        Ok(limit.unwrap_or(f64::INFINITY))
    }

    /// The working set, and what it is made of. `None`: the cgroup is gone.
    fn used(&mut self, version: Version, folder: &Path) -> Result<Option<(f64, Stat)>, Fault> {
        let name = match version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        let Some(charged) = self.files.parse(folder, name, files::number)? else { return Ok(None) };
        let stat = self.files.parse(folder, "memory.stat", |content| Stat::parse(version, content))?;
        Ok(stat.map(|stat| (charged.saturating_sub(stat.inactive_file) as f64, stat)))
    }

    fn events(&mut self, version: Version, folder: &Path) -> Result<Vec<(MemoryEvent, u64)>, Fault> {
        let mut events = Vec::with_capacity(MemoryEvent::COUNT);
        match version {
            Version::V1 => {
                let failed = self.files.parse(folder, "memory.failcnt", files::number)?;
                events.extend(failed.map(|count| (MemoryEvent::Max, count)));
                let control = self.files.read(folder, "memory.oom_control")?;
                let kills = control.and_then(|content| files::value_of(content, "oom_kill"));
                events.extend(kills.map(|count| (MemoryEvent::OomKill, count)));
            }
            Version::V2 => {
                let content = self.files.read(folder, "memory.events")?.unwrap_or_default();
                let each = MemoryEvent::ALL.iter();
                events.extend(each.filter_map(|&event| Some((event, files::value_of(content, event.as_str())?))));
            }
        }
        Ok(events)
    }
}

impl Probe for Memory {
    fn source(&self) -> Cow<'static, str> {
        Source::CgroupMemory.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        let levels = round.backend.cgroup()?.levels(Controller::Memory)?;
        let (version, leaf) = (levels.version, &levels.leaf);
        let limit = self.limit(version, &leaf.folder)?;
        let Some((working_set, stat)) = self.used(version, &leaf.folder)? else {
            return Err(files::gone(&leaf.folder));
        };
        let events = self.events(version, &leaf.folder)?;
        let mut bounds = vec![Bound { source: LimitSource::Cgroup, limit, used: Some(working_set) }];
        for level in &levels.ancestors {
            Fault::after(round.deadline, "the cgroup's memory files")?;
            let limit = files::if_visible(self.limit(version, &level.folder))?.unwrap_or(f64::INFINITY);
            if limit.is_infinite() {
                continue;
            }
            if let Some((used, _)) = files::if_visible(self.used(version, &level.folder))?.flatten() {
                bounds.push(Bound { source: LimitSource::Cgroup, limit, used: Some(used) });
            }
        }

        round.facts.memory.bounds.extend(bounds);
        for (kind, bytes) in [
            (MemoryKind::WorkingSet, working_set),
            (MemoryKind::Anon, stat.anon as f64),
            (MemoryKind::File, stat.file as f64),
        ] {
            round.notes.gauge(&f::BACKEND_MEMORY, [kind.as_str()], bytes);
        }
        let mut went_back = false;
        for (event, count) in events {
            let labels = [event.as_str()];
            went_back |= !round.notes.follow(&f::BACKEND_MEMORY_EVENTS, labels, leaf.identity, count as f64);
        }
        if went_back {
            let detail = format!("{}: a count of memory events went back", leaf.folder.display());
            return Err(Fault::new(Trouble::WentBack, detail));
        }
        Ok(())
    }
}

// === impl Stat ===

impl Stat {
    fn parse(version: Version, content: &str) -> Option<Stat> {
        let [anon, file, inactive_file] = match version {
            // Without `total_` it is this level alone, without those below.
            Version::V1 => ["total_rss", "total_cache", "total_inactive_file"],
            Version::V2 => ["anon", "file", "inactive_file"],
        };
        let value = |key| files::value_of(content, key);
        Some(Stat { anon: value(anon)?, file: value(file)?, inactive_file: value(inactive_file)? })
    }
}

fn limit_v1(content: &str) -> Option<f64> {
    let limit = files::number(content)?;
    Some(if limit < UNLIMITED_V1 { limit as f64 } else { f64::INFINITY })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::saturation::cgroup::testing::{MOUNTS_V1, MOUNTS_V2, Rounds, Tree};

    const STAT_V2: &str = "anon 301\nfile 202\nkernel 103\ninactive_anon 4\nactive_file 25\ninactive_file 56\n";
    const STAT_V1: &str = "cache 1\nrss 2\ninactive_file 3\nhierarchical_memory_limit 4\ntotal_cache 205\n\
        total_rss 306\ntotal_inactive_file 57\ntotal_active_file 8\n";

    fn bound(limit: f64, used: f64) -> Bound {
        Bound { source: LimitSource::Cgroup, limit, used: Some(used) }
    }

    fn of(pairs: &[(&str, f64)]) -> Vec<(String, f64)> {
        pairs.iter().map(|(label, value)| ((*label).to_owned(), *value)).collect()
    }

    #[test]
    fn version_2_tells_limits_working_set_and_events() {
        let tree = Tree::new();
        tree.root("", [("memory.stat", STAT_V2)]);
        let limits = |high, max| [("memory.high", high), ("memory.max", max)];
        tree.cgroup("slice", limits("max\n", "max\n"));
        tree.cgroup("slice", [("memory.current", "9000\n"), ("memory.stat", STAT_V2)]);
        tree.cgroup("slice/pod", limits("5000\n", "6000\n"));
        tree.cgroup("slice/pod", [("memory.current", "4056\n"), ("memory.stat", STAT_V2)]);
        tree.cgroup("slice/pod/web", limits("max\n", "2048\n"));
        let events = "low 1\nhigh 12\nmax 23\noom 34\noom_kill 45\noom_group_kill 6\n";
        let content = [("memory.current", "1056\n"), ("memory.stat", STAT_V2), ("memory.events", events)];
        tree.cgroup("slice/pod/web", content);
        let mut rounds = Rounds::new(tree.place("0::/slice/pod/web\n", MOUNTS_V2).unwrap());
        rounds.read(&mut Memory::default()).unwrap();
        assert_eq!(rounds.facts.memory.bounds, [bound(2048.0, 1000.0), bound(5000.0, 4000.0)]);
        let memory = of(&[("working_set", 1000.0), ("anon", 301.0), ("file", 202.0)]);
        assert_eq!(rounds.values(&f::BACKEND_MEMORY), memory);
        let events = of(&[("high", 12.0), ("max", 23.0), ("oom", 34.0), ("oom_kill", 45.0)]);
        assert_eq!(rounds.values(&f::BACKEND_MEMORY_EVENTS), events);
    }

    #[test]
    fn version_1_tells_limits_working_set_and_two_events() {
        let tree = Tree::new();
        let content =
            [("memory.limit_in_bytes", "4096\n"), ("memory.usage_in_bytes", "3057\n"), ("memory.stat", STAT_V1)];
        tree.cgroup("memory/docker", content);
        let content = [
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.usage_in_bytes", "1057\n"),
            ("memory.stat", STAT_V1),
            ("memory.failcnt", "78\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 1\noom_kill 9\n"),
        ];
        tree.cgroup("memory/docker/ab", content);
        let mut rounds = Rounds::new(tree.place("3:memory:/docker/ab\n", MOUNTS_V1).unwrap());
        rounds.read(&mut Memory::default()).unwrap();
        assert_eq!(rounds.facts.memory.bounds, [bound(f64::INFINITY, 1000.0), bound(4096.0, 3000.0)]);
        let memory = of(&[("working_set", 1000.0), ("anon", 306.0), ("file", 205.0)]);
        assert_eq!(rounds.values(&f::BACKEND_MEMORY), memory);
        assert_eq!(rounds.values(&f::BACKEND_MEMORY_EVENTS), of(&[("max", 78.0), ("oom_kill", 9.0)]));
    }

    #[test]
    fn content_that_is_not_what_it_should_be_notes_nothing() {
        let tree = Tree::new();
        let good = [("memory.max", "2048\n"), ("memory.current", "1056\n"), ("memory.stat", STAT_V2)];
        for (name, garbage) in
            [("memory.max", ""), ("memory.max", "lots"), ("memory.current", "max"), ("memory.stat", "")]
        {
            tree.cgroup("a", good);
            tree.cgroup("a", [(name, garbage)]);
            let mut rounds = Rounds::new(tree.place("0::/a\n", MOUNTS_V2).unwrap());
            let fault = rounds.read(&mut Memory::default()).unwrap_err();
            assert_eq!(fault.trouble, Trouble::Malformed, "{name}");
            assert!(fault.detail.contains(name), "{fault}");
            assert!(rounds.facts.memory.bounds.is_empty() && rounds.notes.points().is_empty());
        }
    }

    #[test]
    fn a_removed_cgroup_is_gone() {
        let tree = Tree::new();
        let leaf = tree.cgroup("a", [("memory.current", "1056\n"), ("memory.stat", STAT_V2)]);
        let mut rounds = Rounds::new(tree.place("0::/a\n", MOUNTS_V2).unwrap());
        fs::remove_dir_all(leaf).unwrap();
        assert_eq!(rounds.read(&mut Memory::default()).unwrap_err().trouble, Trouble::Gone);
    }

    #[test]
    fn a_limit_close_to_the_largest_number_is_none() {
        assert_eq!(limit_v1("536870912\n"), Some(536_870_912.0));
        // With pages of 4 KiB and of 64 KiB.
        for none in ["9223372036854771712\n", "9223372036854710272\n"] {
            assert_eq!(limit_v1(none), Some(f64::INFINITY));
        }
        assert_eq!(limit_v1("-1"), None);
    }

    proptest! {
        #[test]
        fn no_content_makes_a_parser_panic(content in ".*") {
            let _ = limit_v1(&content);
            let _ = Stat::parse(Version::V1, &content);
            let _ = Stat::parse(Version::V2, &content);
        }
    }
}
