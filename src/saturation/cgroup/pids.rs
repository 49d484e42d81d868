//! Limit of tasks of the backend's cgroup. A task is a thread.
//! Source: Linux documentation, cgroup-v2, "PID Interface Files", and cgroup-v1/pids: pids.current, pids.max.
//! Shape:  a number, or `max`; the same in both versions.
//! Units:  threads.
//! Absent: a limit where there is none.

use std::borrow::Cow;

use crate::labels::{LimitSource, Source};
use crate::saturation::cgroup::files::{self, Files};
use crate::saturation::cgroup::place::{Controller, Level};
use crate::saturation::fault::Fault;
use crate::saturation::limits::Bound;
use crate::saturation::{Probe, Round};

/// Limit of tasks.
#[derive(Default)]
pub(in crate::saturation) struct Pids {
    files: Files,
}

impl Pids {
    /// `None`: there is nothing to read.
    fn level(&mut self, level: &Level) -> Result<Option<Bound>, Fault> {
        let Some(used) = self.files.parse(&level.folder, "pids.current", files::number)? else { return Ok(None) };
        let limit = self.files.parse(&level.folder, "pids.max", files::number_or_max)?.unwrap_or(f64::INFINITY);
        Ok(Some(Bound { source: LimitSource::Cgroup, limit, used: Some(used as f64) }))
    }
}

impl Probe for Pids {
    fn source(&self) -> Cow<'static, str> {
        Source::CgroupPids.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        let levels = round.backend.cgroup()?.levels(Controller::Pids)?;
        let leaf = self.level(&levels.leaf)?.ok_or_else(|| files::gone(&levels.leaf.folder))?;
        let mut bounds = vec![leaf];
        for level in &levels.ancestors {
            Fault::after(round.deadline, "the cgroup's files of tasks")?;
            let bound = files::if_visible(self.level(level))?.flatten();
            bounds.extend(bound.filter(|bound| bound.limit.is_finite()));
        }
        round.facts.threads.bounds.extend(bounds);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Trouble;
    use crate::saturation::cgroup::testing::{MOUNTS_V1, MOUNTS_V2, Rounds, Tree};

    fn bound(limit: f64, used: f64) -> Bound {
        Bound { source: LimitSource::Cgroup, limit, used: Some(used) }
    }

    #[test]
    fn each_level_with_a_limit_and_the_leaf_tell_their_tasks() {
        let tree = Tree::new();
        for (root, cgroup, mounts) in
            [("", "0::/slice/pod/web\n", MOUNTS_V2), ("pids/", "7:pids:/slice/pod/web\n", MOUNTS_V1)]
        {
            tree.cgroup(&format!("{root}slice"), [("pids.current", "700\n"), ("pids.max", "max\n")]);
            tree.cgroup(&format!("{root}slice/pod"), [("pids.current", "60\n"), ("pids.max", "100\n")]);
            tree.cgroup(&format!("{root}slice/pod/web"), [("pids.current", "5\n"), ("pids.max", "max\n")]);
            let mut rounds = Rounds::new(tree.place(cgroup, mounts).unwrap());
            rounds.read(&mut Pids::default()).unwrap();
            assert_eq!(rounds.facts.threads.bounds, [bound(f64::INFINITY, 5.0), bound(100.0, 60.0)]);
        }
    }

    #[test]
    fn an_empty_file_is_malformed() {
        let tree = Tree::new();
        tree.cgroup("a", [("pids.current", ""), ("pids.max", "max\n")]);
        let mut rounds = Rounds::new(tree.place("0::/a\n", MOUNTS_V2).unwrap());
        assert_eq!(rounds.read(&mut Pids::default()).unwrap_err().trouble, Trouble::Malformed);
        assert!(rounds.facts.threads.bounds.is_empty());
    }
}
