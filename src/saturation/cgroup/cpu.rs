//! CPU limits, use and throttling of the backend's cgroup.
//! Source: Linux documentation, cgroup-v2, "CPU Interface Files": cpu.max, cpu.stat, cpuset.cpus.effective;
//!         sched-bwc, cpuacct and cpusets (version 1): cpu.cfs_quota_us, cpu.cfs_period_us, cpu.stat, cpuacct.usage,
//!         cpuset.effective_cpus.
//! Shape:  cpu.max is `QUOTA PERIOD` or `max PERIOD`; a quota of -1 in version 1 is none; cpu.stat is lines of
//!         `key value`.
//! Units:  microseconds; nanoseconds in cpuacct.usage and in version 1's throttled_time. Cores and seconds here.
//! Absent: use in the first round, as it takes two; a limit where there is no quota; throttling where cpu.stat has
//!         none.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use tokio::time::Instant;

use crate::labels::{LimitSource, Source, Trouble};
use crate::saturation::cgroup::files::{self, Files};
use crate::saturation::cgroup::place::{Controller, Level, Levels, Place, Version};
use crate::saturation::fault::Fault;
use crate::saturation::limits::Bound;
use crate::saturation::{Probe, Round};
use crate::signals::families as f;

/// The CPUs that this host has switched on, as a list like `0-3`.
const ONLINE: (&str, &str) = ("/sys/devices/system/cpu", "online");

/// Quota and throttling.
#[derive(Default)]
pub(in crate::saturation) struct Cpu {
    files: Files,
    /// CPU time at the end of the last round, by the level's identity.
    before: HashMap<u64, (Instant, f64)>,
}

/// What was read of one level.
struct Reading {
    identity: u64,
    /// In cores; infinite if there is none.
    quota: f64,
    used_seconds: Option<f64>,
}

/// How often and for how long a quota held its cgroup back.
#[derive(Debug, PartialEq)]
struct Throttling {
    periods: u64,
    throttled_periods: u64,
    throttled_seconds: f64,
}

// === impl Cpu ===

impl Cpu {
    fn level(&mut self, place: &Place, version: Version, level: &Level, need_use: bool) -> Result<Reading, Fault> {
        let quota = match version {
            Version::V1 => self.quota_v1(&level.folder)?,
            Version::V2 => self.files.parse(&level.folder, "cpu.max", quota_v2)?,
        };
        let quota = quota.unwrap_or(f64::INFINITY);
        let used_seconds = if need_use || quota.is_finite() { self.used_seconds(place, version, level)? } else { None };
        Ok(Reading { identity: level.identity, quota, used_seconds })
    }

    fn quota_v1(&mut self, folder: &Path) -> Result<Option<f64>, Fault> {
        let quota = self.files.parse(folder, "cpu.cfs_quota_us", |content| content.trim().parse::<i64>().ok())?;
        // Without a quota, or in a kernel that knows none, the period says nothing.
        let Some(quota @ 0..) = quota else { return Ok(None) };
        let period =
            self.files.parse(folder, "cpu.cfs_period_us", |content| files::number(content).filter(|&p| p > 0))?;
        Ok(period.map(|period| quota as f64 / period as f64))
    }

    fn used_seconds(&mut self, place: &Place, version: Version, level: &Level) -> Result<Option<f64>, Fault> {
        match version {
            Version::V2 => {
                let usage = self.files.parse(&level.folder, "cpu.stat", |stat| files::value_of(stat, "usage_usec"))?;
                Ok(usage.map(|microseconds| microseconds as f64 / 1e6))
            }
            Version::V1 => {
                let Ok(accounts) = place.levels(Controller::Cpuacct) else { return Ok(None) };
                let Some(account) = accounts.iter().find(|account| account.cgroup == level.cgroup) else {
                    return Ok(None);
                };
                let usage = self.files.parse(&account.folder, "cpuacct.usage", files::number)?;
                Ok(usage.map(|nanoseconds| nanoseconds as f64 / 1e9))
            }
        }
    }

    /// How many CPUs the cgroup may use, if they are fewer than there are.
    fn cpus(&mut self, place: &Place) -> Result<Option<f64>, Fault> {
        let Ok(Levels { version, leaf, .. }) = place.levels(Controller::Cpuset) else { return Ok(None) };
        let names: &[&str] = match version {
            Version::V1 => &["cpuset.effective_cpus", "cpuset.cpus"],
            Version::V2 => &["cpuset.cpus.effective"],
        };
        let online = self.files.parse(Path::new(ONLINE.0), ONLINE.1, files::cpus)?;
        for name in names {
            if let Some(cpus) = self.files.parse(&leaf.folder, name, files::cpus)? {
                let fewer = cpus > 0 && online.is_none_or(|online| cpus < online);
                return Ok(fewer.then_some(cpus as f64));
            }
        }
        Ok(None)
    }

    /// Cores in use since the last round. The second value tells whether the kernel's counter went back.
    fn rate(&self, reading: &Reading, now: Instant) -> (Option<f64>, bool) {
        let (Some(used), Some(&(at, before))) = (reading.used_seconds, self.before.get(&reading.identity)) else {
            return (None, false);
        };
        let seconds = now.saturating_duration_since(at).as_secs_f64();
        if used < before {
            return (None, true);
        }
        ((seconds > 0.0).then(|| (used - before) / seconds), false)
    }
}

impl Probe for Cpu {
    fn source(&self) -> Cow<'static, str> {
        Source::CgroupCpu.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        let place = round.backend.cgroup()?;
        let levels = place.levels(Controller::Cpu)?;
        let mut readings = vec![self.level(place, levels.version, &levels.leaf, true)?];
        // That files are missing may have other reasons: an old kernel, a hierarchy for CPU time that we do not see.
        if readings[0].used_seconds.is_none() && !levels.leaf.folder.exists() {
            return Err(files::gone(&levels.leaf.folder));
        }
        for level in &levels.ancestors {
            Fault::after(round.deadline, "the cgroup's CPU files")?;
            readings.extend(files::if_visible(self.level(place, levels.version, level, false))?);
        }
        // The quota that is felt is that of the innermost level that has one.
        let throttler = levels
            .iter()
            .find(|level| readings.iter().any(|r| r.identity == level.identity && r.quota.is_finite()))
            .unwrap_or(&levels.leaf);
        let stat = self.files.read(&throttler.folder, "cpu.stat")?;
        let throttling = stat.and_then(Throttling::parse);
        let cpus = self.cpus(place)?;

        let mut went_back = false;
        for (depth, reading) in readings.iter().enumerate() {
            let (used, back) = self.rate(reading, round.now);
            went_back |= back;
            if depth == 0 || reading.quota.is_finite() {
                round.facts.cpu.bounds.push(Bound { source: LimitSource::Cgroup, limit: reading.quota, used });
            }
        }
        if let Some(limit) = cpus {
            round.facts.cpu.bounds.push(Bound { source: LimitSource::Cgroup, limit, used: None });
        }
        self.before = readings.iter().filter_map(|r| Some((r.identity, (round.now, r.used_seconds?)))).collect();
        if let Some(Throttling { periods, throttled_periods, throttled_seconds }) = throttling {
            let whose = throttler.identity;
            for (family, counted) in [
                (&f::BACKEND_CPU_PERIODS, periods as f64),
                (&f::BACKEND_CPU_THROTTLED_PERIODS, throttled_periods as f64),
                (&f::BACKEND_CPU_THROTTLED, throttled_seconds),
            ] {
                went_back |= !round.notes.follow(family, [""; 0], whose, counted);
            }
        }
        if went_back {
            let detail = format!("{}: a counter of CPU time went back", levels.leaf.folder.display());
            return Err(Fault::new(Trouble::WentBack, detail));
        }
        Ok(())
    }
}

// === impl Throttling ===

impl Throttling {
    /// `None`: no quota was ever possible here.
    fn parse(stat: &str) -> Option<Throttling> {
        let microseconds = files::value_of(stat, "throttled_usec").map(|time| time as f64 / 1e6);
        let nanoseconds = || files::value_of(stat, "throttled_time").map(|time| time as f64 / 1e9);
        Some(Throttling {
            periods: files::value_of(stat, "nr_periods")?,
            throttled_periods: files::value_of(stat, "nr_throttled")?,
            throttled_seconds: microseconds.or_else(nanoseconds)?,
        })
    }
}

/// Cores; infinite if there is no quota.
fn quota_v2(content: &str) -> Option<f64> {
    let (quota, period) = content.trim().split_once(' ')?;
    let quota = files::number_or_max(quota)?;
    let period = files::number(period).filter(|&period| period > 0)?;
    Some(quota / period as f64)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::saturation::cgroup::testing::{MOUNTS_V1, MOUNTS_V2, Rounds, Tree};

    const STAT_V2: &str = "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 41\nnr_throttled 17\n\
        throttled_usec 7250000\nnr_bursts 1\nburst_usec 9\n";
    const STAT_V1: &str = "nr_periods 42\nnr_throttled 18\nthrottled_time 8500000000\nnr_bursts 2\nburst_time 3\n";

    fn bound(limit: f64, used: Option<f64>) -> Bound {
        Bound { source: LimitSource::Cgroup, limit, used }
    }

    fn throttling(rounds: &Rounds) -> [f64; 3] {
        [&f::BACKEND_CPU_PERIODS, &f::BACKEND_CPU_THROTTLED_PERIODS, &f::BACKEND_CPU_THROTTLED]
            .map(|family| rounds.values(family)[0].1)
    }

    #[test]
    fn each_level_of_version_2_has_its_quota_and_its_use() {
        let tree = Tree::new();
        tree.root("", [("cpu.stat", "usage_usec 900000000\n")]);
        let pod = tree.cgroup("pod", [("cpu.max", "150000 100000\n"), ("cpu.stat", "usage_usec 20000000\n")]);
        let leaf = tree.cgroup("pod/web", [("cpu.max", "25000 50000\n"), ("cpu.stat", STAT_V2)]);
        let mut rounds = Rounds::new(tree.place("0::/pod/web\n", MOUNTS_V2).unwrap());
        let mut probe = Cpu::default();
        rounds.read(&mut probe).unwrap();
        assert_eq!(rounds.facts.cpu.bounds, [bound(0.5, None), bound(1.5, None)], "a rate takes two readings");
        assert_eq!(throttling(&rounds), [41.0, 17.0, 7.25]);

        fs::write(leaf.join("cpu.stat"), STAT_V2.replace("usage_usec 5000000", "usage_usec 5800000")).unwrap();
        fs::write(pod.join("cpu.stat"), "usage_usec 22400000\n").unwrap();
        rounds.read_after(Duration::from_secs(2), &mut probe).unwrap();
        let [own, of_pod] = rounds.facts.cpu.bounds[..] else { panic!("{:?}", rounds.facts.cpu.bounds) };
        assert!((own.used.unwrap() - 0.4).abs() < 1e-9 && (of_pod.used.unwrap() - 1.2).abs() < 1e-9);
    }

    #[test]
    fn version_1_has_its_quota_and_its_use_in_hierarchies_that_may_differ() {
        let mounts = "\
            32 25 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            33 25 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n";
        let tree = Tree::new();
        let quota = [("cpu.cfs_quota_us", "30000\n"), ("cpu.cfs_period_us", "40000\n"), ("cpu.stat", STAT_V1)];
        tree.root("cpu", []);
        tree.cgroup("cpu/a", quota);
        tree.cgroup("cpu/a/b", [("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n"), ("cpu.stat", "")]);
        let account = tree.cgroup("cpuacct/a", [("cpuacct.usage", "1000000000\n")]);
        let mut rounds = Rounds::new(tree.place("2:cpuacct:/a\n1:cpu:/a/b\n", mounts).unwrap());
        let mut probe = Cpu::default();
        rounds.read(&mut probe).unwrap();
        fs::write(account.join("cpuacct.usage"), "1250000000\n").unwrap();
        rounds.read_after(Duration::from_secs(1), &mut probe).unwrap();
        assert_eq!(rounds.facts.cpu.bounds, [bound(f64::INFINITY, None), bound(0.75, Some(0.25))]);
        assert_eq!(throttling(&rounds), [42.0, 18.0, 8.5], "felt is the quota of the innermost level that has one");
    }

    #[test]
    fn a_set_of_fewer_cpus_than_there_are_is_a_limit() {
        let online = Files::default().parse(Path::new(ONLINE.0), ONLINE.1, files::cpus).unwrap();
        for (name, folder, cgroup, mounts) in [
            ("cpuset.cpus.effective", "a", "0::/a\n", MOUNTS_V2),
            ("cpuset.effective_cpus", "cpuset/a", "4:cpu,cpuacct:/a\n2:cpuset:/a\n", MOUNTS_V1),
            ("cpuset.cpus", "cpuset/a", "4:cpu,cpuacct:/a\n2:cpuset:/a\n", MOUNTS_V1),
        ] {
            let tree = Tree::new();
            tree.cgroup("cpu,cpuacct/a", [("cpu.stat", STAT_V1)]);
            tree.cgroup(folder, [("cpu.stat", STAT_V2), (name, "0\n")]);
            let mut rounds = Rounds::new(tree.place(cgroup, mounts).unwrap());
            rounds.read(&mut Cpu::default()).unwrap();
            let mut expected = vec![bound(f64::INFINITY, None)];
            if online.is_none_or(|online| online > 1) {
                expected.push(bound(1.0, None));
            }
            assert_eq!(rounds.facts.cpu.bounds, expected, "{name}");
            for no_limit in ["0-65535\n", "\n"] {
                tree.cgroup(folder, [(name, no_limit)]);
                rounds.read(&mut Cpu::default()).unwrap();
                assert_eq!(rounds.facts.cpu.bounds, [bound(f64::INFINITY, None)], "{name}");
            }
        }
    }

    #[test]
    fn time_that_went_back_has_no_rate_and_is_told() {
        let tree = Tree::new();
        let leaf = tree.cgroup("a", [("cpu.max", "max 100000\n"), ("cpu.stat", STAT_V2)]);
        let mut rounds = Rounds::new(tree.place("0::/a\n", MOUNTS_V2).unwrap());
        let mut probe = Cpu::default();
        rounds.read(&mut probe).unwrap();
        fs::write(leaf.join("cpu.stat"), "usage_usec 4\nnr_periods 50\nnr_throttled 20\nthrottled_usec 8000000\n")
            .unwrap();
        let fault = rounds.read_after(Duration::from_secs(1), &mut probe).unwrap_err();
        assert_eq!(fault.trouble, Trouble::WentBack);
        assert_eq!(rounds.facts.cpu.bounds, [bound(f64::INFINITY, None)]);
        assert_eq!(throttling(&rounds), [50.0, 20.0, 8.0], "the rest is noted");
    }

    #[test]
    fn a_removed_cgroup_is_gone_and_notes_nothing() {
        let tree = Tree::new();
        let leaf = tree.cgroup("a/b", [("cpu.max", "max 100000\n"), ("cpu.stat", STAT_V2)]);
        tree.cgroup("a", [("cpu.max", "200000 100000\n"), ("cpu.stat", STAT_V2)]);
        let mut rounds = Rounds::new(tree.place("0::/a/b\n", MOUNTS_V2).unwrap());
        fs::remove_dir_all(leaf).unwrap();
        let fault = rounds.read(&mut Cpu::default()).unwrap_err();
        assert_eq!(fault.trouble, Trouble::Gone);
        assert!(rounds.facts.cpu.bounds.is_empty() && rounds.notes.points().is_empty());
    }

    #[test]
    fn a_quota_is_in_cores() {
        assert_eq!(quota_v2("50000 100000\n"), Some(0.5));
        assert_eq!(quota_v2("max 100000\n"), Some(f64::INFINITY));
        for garbage in ["", "\n", "50000", "50000 0", "x 100000", "50000 x", "-1 100000", "1 2 3"] {
            assert_eq!(quota_v2(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn without_bandwidth_control_there_is_no_throttling() {
        assert_eq!(Throttling::parse("usage_usec 1\nuser_usec 1\nsystem_usec 0\n"), None);
    }

    proptest! {
        #[test]
        fn no_content_makes_a_parser_panic(content in ".*") {
            let _ = quota_v2(&content);
            let _ = Throttling::parse(&content);
        }
    }
}
