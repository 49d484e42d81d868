//! What the tests of this folder share: trees of files that look like cgroups, and rounds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::Place;
use crate::saturation::backend::Backend;
use crate::saturation::fault::Fault;
use crate::saturation::limits::Facts;
use crate::saturation::notes::Notes;
use crate::saturation::{Probe, Round};
use crate::signals::families::Family;

/// A mountinfo with version 2 alone.
pub const MOUNTS_V2: &str = "31 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
/// A mountinfo with version 1, as systemd mounts it.
pub const MOUNTS_V1: &str = "\
25 23 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
32 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
35 25 0:32 / /sys/fs/cgroup/memory rw,nosuid shared:10 - cgroup cgroup rw,memory
36 25 0:33 / /sys/fs/cgroup/pids rw,nosuid shared:11 - cgroup cgroup rw,pids
37 25 0:34 / /sys/fs/cgroup/cpuset rw,nosuid shared:12 - cgroup cgroup rw,cpuset
40 25 0:37 / /sys/fs/cgroup/systemd rw,nosuid shared:13 - cgroup cgroup rw,xattr,name=systemd
";

/// A folder with files like those below /sys/fs/cgroup.
pub struct Tree {
    folder: TempDir,
}

/// Rounds of one probe after another.
pub struct Rounds {
    backend: Backend,
    start: Instant,
    pub facts: Facts,
    pub notes: Notes,
}

// === impl Tree ===

impl Tree {
    pub fn new() -> Tree {
        Tree { folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes files below `/sys/fs/cgroup/FOLDER`, beside those that every cgroup has.
    pub fn cgroup<const N: usize>(&self, folder: &str, content: [(&str, &str); N]) -> PathBuf {
        let folder = self.path().join("sys/fs/cgroup").join(folder);
        fs::create_dir_all(&folder).expect("a folder");
        for (name, content) in [("cgroup.procs", ""), ("cgroup.events", "")].into_iter().chain(content) {
            fs::write(folder.join(name), content).expect("a file");
        }
        folder
    }

    /// The root of a hierarchy.
    pub fn root<const N: usize>(&self, folder: &str, content: [(&str, &str); N]) {
        let folder = self.cgroup(folder, content);
        fs::remove_file(folder.join("cgroup.events")).expect("it is there");
        fs::write(folder.join("cgroup.sane_behavior"), "0\n").expect("a file");
    }

    pub fn place(&self, cgroup: &str, mountinfo: &str) -> Result<Place, Fault> {
        Place::of_fixture(cgroup, mountinfo, self.path())
    }
}

// === impl Rounds ===

impl Rounds {
    pub fn new(place: Place) -> Rounds {
        Rounds {
            backend: Backend { cgroup: Some(Ok(place)), ..Backend::default() },
            start: Instant::now(),
            facts: Facts::default(),
            notes: Notes::default(),
        }
    }

    pub fn read_after(&mut self, time: Duration, probe: &mut dyn Probe) -> Result<(), Fault> {
        self.facts = Facts::default();
        self.notes.begin_round();
        let (now, deadline) = (self.start + time, Instant::now() + Duration::from_secs(60));
        let Rounds { backend, facts, notes, .. } = self;
        probe.read(&mut Round { now, deadline, backend, facts, notes })
    }

    pub fn read(&mut self, probe: &mut dyn Probe) -> Result<(), Fault> {
        self.read_after(Duration::ZERO, probe)
    }

    /// The values of a family by their labels, joined by blanks.
    pub fn values(&self, family: &'static Family) -> Vec<(String, f64)> {
        let points = self.notes.points().into_iter().filter(|point| std::ptr::eq(point.family, family));
        points.map(|point| (point.labels.join(" "), point.value)).collect()
    }
}
