//! Where the files of the backend's cgroup are, for each controller and each level that can be seen.
//! Source: /proc/PID/cgroup, cgroups(7): lines `N:CONTROLLERS:PATH` (version 1) and `0::PATH` (version 2).
//!         /proc/PID/mountinfo, proc_pid_mountinfo(5): what part (`root`) of which hierarchy is mounted where.
//! Shape:  the folder of a cgroup is the mount point plus PATH without the mount's `root`. The kernel tells both as
//!         seen from the cgroup namespace of the reader, also for other processes: `/../x` lies outside of it.
//! Absent: a cgroup that no mount shows. Then the backend's own mounts are tried, below /proc/PID/root; that takes its
//!         user or the right to trace it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use procfs::process::MountInfo;
use procfs::{FromRead as _, ProcessCGroups};

use crate::labels::Trouble;
use crate::saturation::cgroup::files;
use crate::saturation::fault::Fault;

/// The largest mountinfo that is read. A host with a thousand containers has some 1 MiB of it.
const MOUNTINFO_BYTES_MAX: u64 = 8 << 20;
/// The largest /proc/PID/cgroup that is read: thirteen lines of paths, each of which has 4 KiB at most.
const MEMBERSHIPS_BYTES_MAX: u64 = 64 << 10;
/// The longest list of processes that is read: a thousand times what one service has.
const PROCESSES_BYTES_MAX: u64 = 64 << 10;
/// The most cgroups below the told one that are looked into for processes.
const FOLDERS_MAX: usize = 64;
/// The most levels that are looked at, from the leaf on; orchestrators nest five to eight.
const LEVELS_MAX: usize = 32;

/// Where the files of a cgroup are, for each controller, with all ancestors that can be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::saturation) struct Place {
    controllers: BTreeMap<Controller, Result<Levels, Fault>>,
}

/// The count of kills for want of memory. The file stays open, since a cgroup that is seen through its process' mounts is
/// out of reach the moment that process ends.
#[derive(Debug)]
pub(in crate::saturation) struct OomKills {
    file: File,
}

/// What files there are. In version 1 each has a hierarchy of its own, or shares one with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::saturation) enum Controller {
    Cpu,
    /// CPU time in version 1; part of `Cpu` in version 2.
    Cpuacct,
    Cpuset,
    Memory,
    Pids,
    /// Pressure stall information, in version 2 only.
    Pressure,
}

/// The generation of cgroups that a hierarchy belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::saturation) enum Version {
    V1,
    V2,
}

/// The cgroup and its ancestors in one hierarchy, without the hierarchy's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::saturation) struct Levels {
    pub version: Version,
    /// The innermost cgroup for which the controller is on: the one that it counts the backend for.
    pub leaf: Level,
    /// From the leaf's parent up.
    pub ancestors: Vec<Level>,
}

/// One cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::saturation) struct Level {
    pub folder: PathBuf,
    /// Its path in the hierarchy, as seen from here; pairs the hierarchies of version 1.
    pub cgroup: PathBuf,
    /// Tells it from every other cgroup, also from a later one of the same name.
    pub identity: u64,
}

/// Which cgroups something is in.
#[derive(Debug, Default, PartialEq)]
struct Memberships {
    /// By controller, version 1.
    v1: BTreeMap<String, PathBuf>,
    v2: Option<PathBuf>,
}

/// A mounted part of a hierarchy.
#[derive(Debug, PartialEq)]
struct Mount {
    version: Version,
    /// Controllers of version 1.
    controllers: Vec<String>,
    /// The cgroup that is seen at the mount point.
    root: PathBuf,
    point: PathBuf,
}

/// The levels of a cgroup as one mount shows them, leaf first: folder, path in the hierarchy. Not yet looked at.
#[derive(Debug, PartialEq)]
struct Candidate {
    version: Version,
    levels: Vec<(PathBuf, PathBuf)>,
}

/// What can be seen of each controller.
type Views = BTreeMap<Controller, Result<Levels, Miss>>;

/// Why nothing can be seen of a controller.
#[derive(Debug)]
enum Miss {
    /// Other mounts may show it.
    Hidden(Fault),
    /// There is nothing to be shown.
    Nothing(Fault),
}

// === impl Place ===

impl Place {
    /// The cgroup of a process.
    ///
    /// # Errors
    /// When no controller's files can be found: why, and what would help.
    pub fn of_process(pid: i32) -> Result<Place, Fault> {
        let memberships = memberships_of(pid)?;
        let mut views = look(&memberships, &mounts_of("/proc/self/mountinfo")?, Path::new("/"));
        if views.values().any(|view| matches!(view, Err(Miss::Hidden(_)))) {
            look_from(pid, &memberships, &mut views);
        }
        Place::new(views)
    }

    /// A cgroup that was told: an absolute path below a mount, of any one controller, or a path below the mount points.
    ///
    /// # Errors
    /// When it does not exist, is no cgroup, or none of its files can be found.
    pub fn of_folder(folder: &Path) -> Result<Place, Fault> {
        Place::of_folder_among(folder, &mounts_of("/proc/self/mountinfo")?)
    }

    /// The count of processes that the kernel has killed in it for want of memory.
    pub fn oom_kills(&self) -> Option<OomKills> {
        let levels = self.levels(Controller::Memory).ok()?;
        let file = match levels.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        Some(OomKills { file: File::open(levels.leaf.folder.join(file)).ok()? })
    }

    /// The processes in it and in the cgroups below it, as far as they can be seen from here.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>, Fault> {
        // Every version 2 cgroup tells of pressure, so that one is the cgroup itself and no ancestor of it.
        let order = [Controller::Pressure, Controller::Pids, Controller::Memory, Controller::Cpu, Controller::Cpuacct];
        let levels = order.iter().find_map(|controller| self.levels(*controller).ok());
        let Some(levels) = levels else { return self.levels(Controller::Pids).map(|_| Vec::new()) };
        let mut pids = Vec::new();
        let mut folders = vec![levels.leaf.folder.clone()];
        let mut next = 0;
        while let Some(folder) = folders.get(next).cloned() {
            let list = folder.join("cgroup.procs");
            let mut content = Vec::new();
            match files::read_bounded(&list, PROCESSES_BYTES_MAX, &mut content) {
                // 0 stands for a process of another process namespace.
                Ok(()) => pids.extend(
                    String::from_utf8_lossy(&content)
                        .lines()
                        .filter_map(|line| line.parse::<i32>().ok())
                        .filter(|pid| *pid > 0),
                ),
                Err(error) if next == 0 => return Err(files::fault(&list, &error)),
                // One that was removed meanwhile.
                Err(_) => {}
            }
            let below = fs::read_dir(&folder).into_iter().flatten().flatten();
            let below =
                below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
            folders.extend(below.take(FOLDERS_MAX.saturating_sub(folders.len())));
            next += 1;
        }
        Ok(pids)
    }

    /// Where a controller's files are.
    pub fn levels(&self, controller: Controller) -> Result<&Levels, Fault> {
        match self.controllers.get(&controller) {
            Some(Ok(levels)) => Ok(levels),
            Some(Err(fault)) => Err(fault.clone()),
            None => Err(Fault::new(Trouble::Absent, format!("no {} files are known", controller.name()))),
        }
    }

    fn of_folder_among(folder: &Path, mounts: &[Mount]) -> Result<Place, Fault> {
        let told = || format!("saturation.backend.cgroup: {}", folder.display());
        let points = || {
            let points: Vec<String> = mounts.iter().map(|mount| mount.point.display().to_string()).collect();
            if points.is_empty() { "no cgroup is mounted here".to_owned() } else { format!("({})", points.join(", ")) }
        };
        // A relative path is below any of the mount points, and so is one as /proc/PID/cgroup and systemd write it
        // (`/system.slice/app.service`).
        let folder = match folder.strip_prefix("/") {
            Ok(below) if !folder.exists() && mounts.iter().any(|mount| mount.point.join(below).is_dir()) => below,
            _ => folder,
        };
        let absolute = match mounts.iter().map(|mount| mount.point.join(folder)).find(|folder| folder.is_dir()) {
            Some(found) if folder.is_relative() => found,
            None if folder.is_relative() => {
                let detail = format!("{} is below none of the mount points of cgroups {}", told(), points());
                return Err(Fault::new(Trouble::Absent, detail));
            }
            _ => folder.to_owned(),
        };
        // /sys/fs/cgroup/cpu is often a link to the folder of cpu and cpuacct.
        let absolute = fs::canonicalize(&absolute).map_err(|error| Fault::io(told(), &error))?;
        let below = mounts.iter().filter_map(|mount| Some((mount, absolute.strip_prefix(&mount.point).ok()?)));
        let Some((mount, rest)) = below.min_by_key(|(_, rest)| rest.components().count()) else {
            let detail = format!("{} is no folder below a mount point of cgroups {}", told(), points());
            return Err(Fault::new(Trouble::Absent, detail));
        };
        let path = mount.root.join(rest);
        let v1 = mounts.iter().flat_map(|mount| &mount.controllers).map(|name| (name.clone(), path.clone()));
        let memberships = Memberships { v1: v1.collect(), v2: Some(path.clone()) };
        Place::new(look(&memberships, mounts, Path::new("/")))
    }

    /// A place of which nothing can be seen is none.
    fn new(views: Views) -> Result<Place, Fault> {
        let controllers = views.into_iter().map(|(controller, view)| (controller, view.map_err(Miss::into_fault)));
        let controllers: BTreeMap<_, _> = controllers.collect();
        if controllers.values().any(Result::is_ok) {
            return Ok(Place { controllers });
        }
        let mut faults: Vec<Fault> = controllers.into_values().filter_map(Result::err).collect();
        // A refusal is what a person can do something about.
        faults.sort_by_key(|fault| fault.trouble != Trouble::Permission);
        Err(faults.into_iter().next().unwrap_or_else(|| Fault::new(Trouble::Absent, "there are no cgroups here")))
    }
}

// === impl OomKills ===

impl OomKills {
    /// Their number so far; `None` once the cgroup is gone.
    pub fn count(&mut self) -> Option<u64> {
        let mut content = [0; 512];
        let length = self.file.read_at(&mut content, 0).ok()?;
        files::value_of(std::str::from_utf8(&content[..length]).ok()?, "oom_kill")
    }
}

// === impl Controller ===

impl Controller {
    const ALL: &'static [Controller] = &[
        Controller::Cpu,
        Controller::Cpuacct,
        Controller::Cpuset,
        Controller::Memory,
        Controller::Pids,
        Controller::Pressure,
    ];

    fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Cpuacct => "cpuacct",
            Controller::Cpuset => "cpuset",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Pressure => "pressure",
        }
    }

    /// In version 2, a file that exists only in cgroups for which the controller is on. CPU time and pressure are there
    /// for all.
    fn marker(self) -> &'static str {
        match self {
            Controller::Cpu | Controller::Cpuacct => "cpu.stat",
            Controller::Cpuset => "cpuset.cpus.effective",
            Controller::Memory => "memory.current",
            Controller::Pids => "pids.current",
            Controller::Pressure => "cgroup.events",
        }
    }
}

// === impl Levels ===

impl Levels {
    /// All of them, leaf first.
    pub fn iter(&self) -> impl Iterator<Item = &Level> {
        std::iter::once(&self.leaf).chain(&self.ancestors)
    }
}

// === impl Memberships ===

impl Memberships {
    fn parse(content: &[u8]) -> Option<Memberships> {
        let ProcessCGroups(lines) = ProcessCGroups::from_read(content).ok()?;
        let mut memberships = Memberships::default();
        for line in lines {
            let path = PathBuf::from(line.pathname);
            if line.hierarchy == 0 && line.controllers.is_empty() {
                memberships.v2 = Some(path);
            } else {
                memberships.v1.extend(line.controllers.into_iter().map(|name| (name, path.clone())));
            }
        }
        Some(memberships)
    }

    /// A controller that a hierarchy of version 1 has is not in version 2.
    fn of(&self, controller: Controller) -> Option<(Version, &Path)> {
        let v1 = self.v1.get(controller.name()).map(|path| (Version::V1, path.as_path()));
        v1.or_else(|| Some((Version::V2, self.v2.as_deref()?)))
    }
}

// === impl Mount ===

impl Mount {
    /// Those of a mountinfo that are of cgroups. A line that cannot be understood is not one of them.
    fn parse_all(content: &str) -> Vec<Mount> {
        content.lines().filter(|line| line.contains(" - cgroup")).filter_map(Mount::parse).collect()
    }

    fn parse(line: &str) -> Option<Mount> {
        let MountInfo { root, mount_point, fs_type, super_options, .. } = MountInfo::from_line(line).ok()?;
        let version = match fs_type.as_str() {
            "cgroup" => Version::V1,
            "cgroup2" => Version::V2,
            _ => return None,
        };
        // Controllers stand between other options, such as `rw`; no controller has the name of one.
        let controllers = if version == Version::V1 { super_options.into_keys().collect() } else { Vec::new() };
        let point = unescaped(mount_point.as_os_str().as_bytes());
        Some(Mount { version, controllers, root: unescaped(root.as_bytes()), point })
    }

    fn carries(&self, controller: Controller, version: Version) -> bool {
        self.version == version && (version == Version::V2 || self.controllers.iter().any(|c| c == controller.name()))
    }
}

// === impl Candidate ===

impl Candidate {
    /// `None`: the cgroup does not lie below what is mounted there.
    fn new(version: Version, cgroup: &Path, mount: &Mount, prefix: &Path) -> Option<Candidate> {
        let rest = cgroup.strip_prefix(&mount.root).ok()?;
        // `/../x` below a mount of `/` is a cgroup beside it, not below it.
        if rest.components().any(|component| !matches!(component, Component::Normal(_))) {
            return None;
        }
        let count = rest.components().count() + 1;
        let point = prefix.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
        // By components, as a join with nothing leaves a slash at the end.
        let folder: PathBuf = point.components().chain(rest.components()).collect();
        let levels = folder.ancestors().zip(cgroup.ancestors()).take(count.min(LEVELS_MAX));
        let levels = levels.map(|(folder, cgroup)| (folder.to_owned(), cgroup.to_owned())).collect();
        Some(Candidate { version, levels })
    }
}

// === impl Miss ===

impl Miss {
    fn into_fault(self) -> Fault {
        match self {
            Miss::Hidden(fault) | Miss::Nothing(fault) => fault,
        }
    }
}

fn memberships_of(pid: i32) -> Result<Memberships, Fault> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let mut content = Vec::new();
    match files::read_bounded(&path, MEMBERSHIPS_BYTES_MAX, &mut content) {
        Ok(()) => Memberships::parse(&content).ok_or_else(|| Fault::malformed(path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !Path::new(&format!("/proc/{pid}")).exists() => {
            Err(Fault::new(Trouble::Gone, format!("{}: the process is gone", path.display())))
        }
        Err(error) => Err(files::fault(&path, &error)),
    }
}

fn mounts_of(mountinfo: &str) -> Result<Vec<Mount>, Fault> {
    let path = Path::new(mountinfo);
    let mut content = Vec::new();
    files::read_bounded(path, MOUNTINFO_BYTES_MAX, &mut content).map_err(|error| files::fault(path, &error))?;
    // Of the many mounts that are not of cgroups, one may have a name that is no text.
    Ok(Mount::parse_all(&String::from_utf8_lossy(&content)))
}

/// Looks for the files of each controller. `prefix`: where the mount points are seen from here.
fn look(memberships: &Memberships, mounts: &[Mount], prefix: &Path) -> Views {
    let view = |controller| first_seen(controller, candidates(controller, memberships, mounts, prefix)?);
    Controller::ALL.iter().map(|&controller| (controller, view(controller))).collect()
}

/// Looks for what is hidden from us through the process' own mounts.
fn look_from(pid: i32, memberships: &Memberships, views: &mut Views) {
    let prefix = PathBuf::from(format!("/proc/{pid}/root"));
    let theirs = mounts_of(&format!("/proc/{pid}/mountinfo")).map(|mounts| look(memberships, &mounts, &prefix));
    let (mut theirs, refused) = match theirs {
        Ok(theirs) => (theirs, false),
        Err(fault) => (Views::new(), fault.trouble == Trouble::Permission),
    };
    for (controller, view) in views {
        let Err(Miss::Hidden(fault)) = view else { continue };
        let refused = match theirs.remove(controller) {
            Some(Err(Miss::Hidden(theirs))) => theirs.trouble == Trouble::Permission,
            Some(known) => {
                *view = known;
                continue;
            }
            None => refused,
        };
        // Where they do not show it either, what was said of our own mounts is closer to what a person can change.
        if refused {
            fault.trouble = Trouble::Permission;
            fault.detail.push_str("; or run golden-sidecar as the backend's user, which may look below /proc/PID/root");
        }
    }
}

/// What the mounts can show of the cgroup, the mount with the most ancestors first.
fn candidates(
    controller: Controller,
    memberships: &Memberships,
    mounts: &[Mount],
    prefix: &Path,
) -> Result<Vec<Candidate>, Miss> {
    let name = controller.name();
    let membership = match controller {
        Controller::Pressure => memberships.v2.as_deref().map(|path| (Version::V2, path)),
        _ => memberships.of(controller),
    };
    let absent = |detail: String| Fault::new(Trouble::Absent, detail);
    let Some((version, path)) = membership else {
        return Err(Miss::Nothing(absent(match controller {
            Controller::Pressure => "pressure of a cgroup takes cgroup version 2, which is off here".to_owned(),
            _ => format!("the backend is in no cgroup of the controller {name}"),
        })));
    };
    let carrying: Vec<&Mount> = mounts.iter().filter(|mount| mount.carries(controller, version)).collect();
    let Some(first) = carrying.first() else {
        let detail = format!("no cgroup file system with the controller {name} is mounted here");
        return Err(Miss::Hidden(absent(detail)));
    };
    let mut found: Vec<Candidate> =
        carrying.iter().filter_map(|mount| Candidate::new(version, path, mount, prefix)).collect();
    if found.is_empty() {
        let detail = format!(
            "the backend's cgroup {} ({name}) is outside of what is mounted at {}; share the host's cgroup namespace \
             (docker: --cgroupns=host), or mount it and tell its folder in saturation.backend.cgroup",
            path.display(),
            first.point.display(),
        );
        return Err(Miss::Hidden(absent(detail)));
    }
    found.sort_by_key(|candidate| std::cmp::Reverse(candidate.levels.len()));
    Ok(found)
}

/// The first candidate that is really there: a mount point may be hidden by another mount.
fn first_seen(controller: Controller, candidates: Vec<Candidate>) -> Result<Levels, Miss> {
    let mut first_miss = None;
    for candidate in candidates {
        match seen(controller, candidate) {
            Err(Miss::Hidden(fault)) => first_miss = first_miss.or(Some(fault)),
            known => return known,
        }
    }
    let nowhere = || Fault::new(Trouble::Absent, "the backend's cgroup is mounted nowhere");
    Err(Miss::Hidden(first_miss.unwrap_or_else(nowhere)))
}

/// The levels that have files: not the root, and not those for which the controller is off.
fn seen(controller: Controller, candidate: Candidate) -> Result<Levels, Miss> {
    let Candidate { version, levels } = candidate;
    let name = controller.name();
    let mut found = Vec::with_capacity(levels.len());
    let mut off = None;
    for (depth, (folder, cgroup)) in levels.into_iter().enumerate() {
        // Every cgroup of either version has this file, so without it this is another file system.
        if let Err(error) = fs::metadata(folder.join("cgroup.procs")) {
            if depth == 0 {
                return Err(Miss::Hidden(Fault::io(format!("the cgroup {} ({name})", folder.display()), &error)));
            }
            continue;
        }
        if is_root(version, &folder) {
            continue;
        }
        if version == Version::V2 && !folder.join(controller.marker()).exists() {
            off.get_or_insert(folder);
            continue;
        }
        // Removed in between.
        let Ok(metadata) = fs::metadata(&folder) else { continue };
        let mut hasher = DefaultHasher::new();
        (metadata.dev(), metadata.ino()).hash(&mut hasher);
        found.push(Level { folder, cgroup, identity: hasher.finish() });
    }
    let mut found = found.into_iter();
    if let Some(leaf) = found.next() {
        return Ok(Levels { version, leaf, ancestors: found.collect() });
    }
    let detail = match off {
        Some(folder) => format!(
            "the controller {name} is off for the cgroup {}; its parent's cgroup.subtree_control turns it on",
            folder.display()
        ),
        None => format!("the backend is in the root cgroup ({name}), which has no limits and whose use is the host's"),
    };
    Err(Miss::Nothing(Fault::new(Trouble::Absent, detail)))
}

/// Whether a cgroup is the root of its hierarchy; the top of a namespace or of a mount is not. Each version has a file
/// that tells.
fn is_root(version: Version, folder: &Path) -> bool {
    match version {
        Version::V1 => folder.join("cgroup.sane_behavior").exists(),
        Version::V2 => !folder.join("cgroup.events").exists(),
    }
}

/// mountinfo writes blanks, line ends and backslashes as `\040`.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if *first == b'\\' => {
                plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            _ => plain.push(*first),
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
impl Place {
    /// The place that files of this content tell of, on a machine whose `/` is at `prefix`.
    pub fn of_fixture(cgroup: &str, mountinfo: &str, prefix: &Path) -> Result<Place, Fault> {
        let memberships = Memberships::parse(cgroup.as_bytes()).ok_or_else(|| Fault::malformed("the fixture"))?;
        Place::new(look(&memberships, &Mount::parse_all(mountinfo), prefix))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::saturation::cgroup::testing::{MOUNTS_V1, MOUNTS_V2, Tree};

    /// The folders of the best candidate, leaf first.
    fn folders(controller: Controller, cgroup: &str, mountinfo: &str) -> Result<Vec<String>, Fault> {
        let memberships = Memberships::parse(cgroup.as_bytes()).expect("a valid fixture");
        let found = candidates(controller, &memberships, &Mount::parse_all(mountinfo), Path::new("/"));
        let found = found.map_err(Miss::into_fault)?;
        Ok(found[0].levels.iter().map(|(folder, _)| folder.display().to_string()).collect())
    }

    #[test]
    fn a_burstable_pod_of_version_2_has_all_levels_up_to_the_mount() {
        let cgroup = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7f.slice/cri-ab.scope\n";
        let expected = [
            "/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7f.slice/cri-ab.scope",
            "/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7f.slice",
            "/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice",
            "/sys/fs/cgroup/kubepods.slice",
            "/sys/fs/cgroup",
        ];
        for controller in [Controller::Cpu, Controller::Memory, Controller::Pids, Controller::Pressure] {
            assert_eq!(folders(controller, cgroup, MOUNTS_V2).unwrap(), expected);
        }
    }

    #[test]
    fn a_docker_container_of_version_1_sees_itself_at_the_mount_points() {
        let cgroup = "11:pids:/docker/ab\n4:cpu,cpuacct:/docker/ab\n3:memory:/docker/ab\n1:name=systemd:/docker/ab\n";
        let mounts = "\
            702 701 0:29 /docker/ab /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:9 - cgroup cgroup rw,cpu,cpuacct\n\
            703 701 0:32 /docker/ab /sys/fs/cgroup/memory ro,nosuid master:10 - cgroup cgroup rw,memory\n";
        assert_eq!(folders(Controller::Cpu, cgroup, mounts).unwrap(), ["/sys/fs/cgroup/cpu,cpuacct"]);
        assert_eq!(folders(Controller::Cpuacct, cgroup, mounts).unwrap(), ["/sys/fs/cgroup/cpu,cpuacct"]);
        assert_eq!(folders(Controller::Memory, cgroup, mounts).unwrap(), ["/sys/fs/cgroup/memory"]);
        let fault = folders(Controller::Pids, cgroup, mounts).unwrap_err();
        assert_eq!(fault.detail, "no cgroup file system with the controller pids is mounted here");
        let fault = folders(Controller::Pressure, cgroup, mounts).unwrap_err();
        assert_eq!(fault.detail, "pressure of a cgroup takes cgroup version 2, which is off here");
    }

    #[test]
    fn in_a_hybrid_each_controller_is_where_it_is_mounted() {
        let cgroup = "4:memory:/api/x\n2:cpuacct:/\n1:cpu:/a/b\n0::/system.slice/x.service\n";
        let mounts = "\
            32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            33 31 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let first = |controller| folders(controller, cgroup, mounts).unwrap()[0].clone();
        assert_eq!(first(Controller::Cpu), "/sys/fs/cgroup/cpu/a/b");
        assert_eq!(first(Controller::Cpuacct), "/sys/fs/cgroup/cpuacct");
        assert_eq!(first(Controller::Memory), "/sys/fs/cgroup/memory/api/x");
        assert_eq!(first(Controller::Pids), "/sys/fs/cgroup/unified/system.slice/x.service");
        assert_eq!(first(Controller::Pressure), "/sys/fs/cgroup/unified/system.slice/x.service");
    }

    #[test]
    fn in_a_cgroup_namespace_paths_begin_at_its_root() {
        assert_eq!(folders(Controller::Memory, "0::/\n", MOUNTS_V2).unwrap(), ["/sys/fs/cgroup"]);
        let inner = folders(Controller::Memory, "0::/init.scope\n", MOUNTS_V2).unwrap();
        assert_eq!(inner, ["/sys/fs/cgroup/init.scope", "/sys/fs/cgroup"]);
    }

    #[test]
    fn a_cgroup_outside_of_the_mount_is_not_seen_there() {
        let mounts = "31 23 0:27 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        for (cgroup, mounts) in [
            ("0::/../other\n", MOUNTS_V2),
            ("0::/..\n", MOUNTS_V2),
            ("0::/docker/abc\n", mounts),
            ("0::/\n", mounts),
            ("0::/docker/ab/../cd\n", mounts),
        ] {
            let fault = folders(Controller::Memory, cgroup, mounts).unwrap_err();
            assert_eq!(fault.trouble, Trouble::Absent);
            assert!(fault.detail.contains("outside of what is mounted at /sys/fs/cgroup; share"), "{fault}");
            assert!(fault.detail.contains("saturation.backend.cgroup"), "{fault}");
        }
    }

    #[test]
    fn the_mounts_of_a_neighbour_show_it_as_their_root() {
        let theirs = "731 723 0:27 /../other /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        assert_eq!(folders(Controller::Memory, "0::/../other\n", theirs).unwrap(), ["/sys/fs/cgroup"]);
        let inner = folders(Controller::Memory, "0::/../other/a\n", theirs).unwrap();
        assert_eq!(inner, ["/sys/fs/cgroup/a", "/sys/fs/cgroup"]);
    }

    #[test]
    fn the_mount_that_shows_most_ancestors_comes_first_and_odd_lines_do_not_matter() {
        let mounts = "\
            nonsense - cgroup\n\
            31 23 0:27 / /tmp/no\\040cgroup rw - cgroupfs cgroupfs rw\n\
            32 23 0:27 /a /mnt/short rw - cgroup2 cgroup2 rw\n\
            33 23 0:27 / /mnt/with\\040blank\\134 rw shared:5 master:6 - cgroup2 none rw,nsdelegate\n";
        let expected = ["/mnt/with blank\\/a/b", "/mnt/with blank\\/a", "/mnt/with blank\\"];
        assert_eq!(folders(Controller::Pids, "0::/a/b\n", mounts).unwrap(), expected);
    }

    #[test]
    fn the_root_and_levels_without_the_controller_are_left_out() {
        let tree = Tree::new();
        tree.root("", [("cpu.stat", ""), ("memory.stat", "")]);
        tree.cgroup("app", [("cpu.stat", ""), ("memory.current", "1")]);
        tree.cgroup("app/web", [("cpu.stat", "")]);
        let place = tree.place("0::/app/web\n", MOUNTS_V2).unwrap();
        let seen = |controller| -> Result<Vec<String>, Fault> {
            let cgroups = place.levels(controller)?.iter().map(|level| level.cgroup.display().to_string()).collect();
            Ok(cgroups)
        };
        assert_eq!(seen(Controller::Cpu).unwrap(), ["/app/web", "/app"]);
        assert_eq!(seen(Controller::Memory).unwrap(), ["/app"], "that is where the kernel counts its memory");
        let off = seen(Controller::Pids).unwrap_err();
        assert!(off.detail.contains("the controller pids is off for"), "{off}");
    }

    #[test]
    fn the_root_of_a_hierarchy_is_no_place() {
        let tree = Tree::new();
        tree.root("", [("cpu.stat", "")]);
        let fault = tree.place("0::/\n", MOUNTS_V2).unwrap_err();
        assert_eq!(fault.trouble, Trouble::Absent);
        assert!(fault.detail.contains("root cgroup (cpu), which has no limits"), "{fault}");

        tree.root("memory", []);
        tree.cgroup("memory/x", []);
        let place = tree.place("3:memory:/x\n", MOUNTS_V1).unwrap();
        assert!(place.levels(Controller::Memory).unwrap().ancestors.is_empty());
    }

    #[test]
    fn a_folder_that_another_mount_hides_is_passed_over() {
        let tree = Tree::new();
        tree.cgroup("seen", [("memory.current", "")]);
        let mounts = "\
            31 23 0:27 / /sys/fs/cgroup/hidden rw - cgroup2 cgroup2 rw\n\
            32 23 0:27 /a /sys/fs/cgroup/seen rw - cgroup2 cgroup2 rw\n";
        let place = tree.place("0::/a\n", mounts).unwrap();
        assert!(place.levels(Controller::Memory).unwrap().leaf.folder.ends_with("sys/fs/cgroup/seen"));
    }

    #[test]
    fn a_cgroup_made_anew_under_its_old_name_is_another_one() {
        let tree = Tree::new();
        let first = tree.cgroup("a", [("memory.current", "")]);
        let place = || tree.place("0::/a\n", MOUNTS_V2).unwrap();
        let before = place();
        assert_eq!(before, place());
        // Kept, so that its inode is not given out again.
        fs::rename(&first, tree.path().join("kept")).unwrap();
        tree.cgroup("a", [("memory.current", "")]);
        assert_ne!(before, place());
    }

    #[test]
    fn a_folder_can_be_told_as_a_path_of_any_controller_or_below_the_mounts() {
        let tree = Tree::new();
        tree.cgroup("cpu,cpuacct/docker/ab", []);
        tree.cgroup("memory/docker/ab", []);
        let root = fs::canonicalize(tree.path()).unwrap();
        std::os::unix::fs::symlink("cpu,cpuacct", root.join("sys/fs/cgroup/cpu")).unwrap();
        let mounts =
            Mount::parse_all(&MOUNTS_V1.replace("/sys/fs/cgroup", &format!("{}/sys/fs/cgroup", root.display())));
        let told = |folder: PathBuf| Place::of_folder_among(&folder, &mounts);

        let place = told(PathBuf::from("docker/ab")).unwrap();
        for controller in [Controller::Cpu, Controller::Cpuacct, Controller::Memory] {
            assert_eq!(place.levels(controller).unwrap().leaf.cgroup, Path::new("/docker/ab"));
        }
        assert_eq!(place.levels(Controller::Pids).unwrap_err().trouble, Trouble::Absent);
        for folder in ["memory/docker/ab", "cpu,cpuacct/docker/ab", "cpu/docker/ab", "memory/docker/../docker/ab/"] {
            assert_eq!(told(root.join("sys/fs/cgroup").join(folder)).unwrap(), place, "{folder}");
        }

        let detail = |folder: PathBuf| told(folder).unwrap_err().detail;
        assert!(detail("docker/cd".into()).starts_with("saturation.backend.cgroup: docker/cd is below none of the"));
        assert!(detail(root.join("sys/fs/cgroup")).contains("is no folder below a mount point of cgroups"));
        assert!(detail(root.join("nowhere")).contains("nowhere: No such file"));
    }

    #[test]
    fn kills_for_want_of_memory_are_told_by_either_version() {
        let tree = Tree::new();
        tree.cgroup("a", [("memory.current", ""), ("memory.events", "low 1\noom 2\noom_kill 3\noom_group_kill 4\n")]);
        assert_eq!(tree.place("0::/a\n", MOUNTS_V2).unwrap().oom_kills().and_then(|mut kills| kills.count()), Some(3));
        tree.cgroup("memory/b", [("memory.oom_control", "oom_kill_disable 0\nunder_oom 1\noom_kill 5\n")]);
        assert_eq!(
            tree.place("3:memory:/b\n", MOUNTS_V1).unwrap().oom_kills().and_then(|mut kills| kills.count()),
            Some(5)
        );
        tree.cgroup("memory/c", [("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n")]);
        assert_eq!(
            tree.place("3:memory:/c\n", MOUNTS_V1).unwrap().oom_kills().and_then(|mut kills| kills.count()),
            None
        );
        assert_eq!(Place::default().oom_kills().and_then(|mut kills| kills.count()), None);
    }

    #[test]
    fn this_process_has_a_place_or_it_is_said_why_not() {
        match Place::of_process(std::process::id().cast_signed()) {
            Ok(place) => {
                assert_eq!(Ok(&place), Place::of_process(std::process::id().cast_signed()).as_ref());
                let levels = place.controllers.values().flatten();
                assert!(levels.flat_map(Levels::iter).all(|level| level.folder.is_dir()));
            }
            Err(fault) => assert!(matches!(fault.trouble, Trouble::Absent | Trouble::Permission), "{fault:?}"),
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_gone() {
        assert_eq!(Place::of_process(i32::MAX).unwrap_err().trouble, Trouble::Gone);
    }

    #[test]
    fn garbage_is_no_membership() {
        assert_eq!(Memberships::parse(b""), Some(Memberships::default()));
        for garbage in ["x", "1", "1:cpu", "x:cpu:/", "\n\n"] {
            assert_eq!(Memberships::parse(garbage.as_bytes()), None, "{garbage:?}");
        }
    }

    proptest! {
        #[test]
        fn no_content_makes_a_parser_panic(cgroup in "([0-9]:|[a-z,]*|:|/|\\.\\.|\n|.)*", mountinfo in ".*") {
            let mounts = Mount::parse_all(&format!("{mountinfo} - cgroup2 {cgroup}"));
            if let Some(memberships) = Memberships::parse(cgroup.as_bytes()) {
                for &controller in Controller::ALL {
                    let _ = candidates(controller, &memberships, &mounts, Path::new("/"));
                }
            }
            let _ = unescaped(mountinfo.as_bytes());
        }

        #[test]
        fn no_path_leads_out_of_the_mount(path in "(/|\\.\\.|[ab])*", root in "(/|\\.\\.|[ab])*") {
            let mount = Mount { version: Version::V2, controllers: vec![], root: root.into(), point: "/sys".into() };
            let candidate = Candidate::new(Version::V2, Path::new(&path), &mount, Path::new("/p"));
            if let Some(Candidate { levels, .. }) = candidate {
                for (folder, _) in levels {
                    prop_assert!(folder.starts_with("/p/sys"));
                    prop_assert!(!folder.components().any(|part| part == Component::ParentDir));
                }
            }
        }
    }
}
