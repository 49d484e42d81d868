//! Which processes the backend is, and when it has become another one.
//!
//! In this order: what the configuration names (pid, pid file, cgroup); the command that this sidecar has started; whoever
//! listens on the upstream's port. From its first processes on everything that descends from them counts, so that the
//! workers of a pre-forking server are one backend with it.
//!
//! A look at the backend happens every second at least: while all is well it costs one small file per root. What is dear
//! (all processes of the machine, all descriptors of all processes) is done when something has changed, and now and then
//! within a share of one core.

use std::collections::HashSet;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::BackendHints;
use crate::labels::{RestartReason, Trouble};
use crate::saturation::Settings;
use crate::saturation::cgroup::{OomKills, Place};
use crate::saturation::descriptors::Search;
use crate::saturation::fault::Fault;
use crate::saturation::notes::Notes;
use crate::saturation::ownership;
use crate::saturation::sockets::{self, Listener};
use crate::saturation::tree::{self, Row};
use crate::signals::families as f;

/// Processes that count as one backend. More than any pre-forking server has; each costs some 15 µs a round.
const PROCESSES_MAX: usize = 1024;
/// Repeating a search while all is well must not cost more than this part of one core: one that took 5 ms waits for ten
/// seconds.
const SEARCH_COST_DIVISOR: u32 = 2000;
/// The same for the list of all processes: 10 ms for some 1,500 processes, every ten seconds.
const TREE_COST_DIVISOR: u32 = 1000;
/// The search among the descriptors of all processes goes on for so long at a time: some 20,000 descriptors, and a tenth of a
/// core while it lasts.
const SEARCH_STEP: Duration = Duration::from_millis(100);
/// The youngest child that is not known yet is at most this old on a machine of some hundred processes.
const TREE_INTERVAL_MIN: Duration = Duration::from_secs(2);
/// For so long after a start there are new children all the time, so they are looked for more eagerly: up to a fiftieth
/// of a core.
const EAGER_TIME: Duration = Duration::from_secs(20);
const EAGER_COST_DIVISOR: u32 = 50;
const EAGER_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// How often it is checked whether another socket listens on the port now, while the known processes still live: after a
/// handover to a new process (a rolling restart). It costs 0.04 ms.
const LISTENER_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is checked at most whether other processes hold the same socket now (nginx's upgrade).
const OWNER_INTERVAL_MIN: Duration = Duration::from_secs(5);
/// How often the cgroup is looked up anew: a process may be moved, and a cgroup may come after the sidecar.
const CGROUP_INTERVAL: Duration = Duration::from_secs(5);
/// A list of all processes may take so long: 65,536 of them take 0.5 s.
const LIST_DEADLINE: Duration = Duration::from_millis(500);
/// Bytes of a pid file that are read: a number and its line end.
const PID_FILE_BYTES: usize = 64;

/// How a command of ours fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It runs, for the first time or again.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// It ended by itself.
    Exited,
    /// A signal ended it.
    Killed {
        /// The signal's number.
        signal: i32,
    },
}

/// A process, told from a later one with the same number by its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity {
    pub pid: i32,
    /// Clock ticks from boot to its start.
    pub start_ticks: u64,
}

/// The backend as it was found.
#[derive(Debug, Default)]
pub(super) struct Backend {
    /// The processes that everything else descends from; none: not known.
    pub roots: Vec<Identity>,
    /// All of its processes, parents before children.
    pub processes: Vec<Identity>,
    /// Where its cgroup can be read.
    pub cgroup: Option<Result<Place, Fault>>,
    /// Grows when the backend becomes another one.
    pub generation: u64,
}

/// Finds it.
pub(super) struct Finder {
    hints: BackendHints,
    upstream: Arc<[SocketAddr]>,
    socket: Option<Arc<Path>>,
    wrapped: bool,
    /// The command of ours that runs now.
    command: Option<i32>,
    /// How the last one ended.
    ended: Option<Change>,
    /// The process by which a restart is told: while it lives, the backend is the same one.
    primary: Option<Identity>,
    /// The count of processes that the kernel has killed in its cgroup for want of memory, and what it was when the backend
    /// was last seen well.
    oom_kills: Option<(OomKills, u64)>,
    /// That count had grown when the backend was found to be gone.
    was_oom: bool,
    next_cgroup: Option<Instant>,
    /// Inodes of the listeners at the last search for their owners.
    listening: HashSet<u64>,
    next_listeners: Option<Instant>,
    next_owners: Option<Instant>,
    next_tree: Option<Instant>,
    /// Until when new children are expected.
    eager_until: Option<Instant>,
    /// A search for their owners that is not finished.
    search: Option<OwnerSearch>,
    /// Why the last search found nobody; it stands until the next one.
    unfound: Option<Fault>,
}

/// Looks for the owners of sockets.
struct OwnerSearch {
    holders: Search,
    /// The processes that there were when it began.
    rows: Vec<Row>,
    spent: Duration,
}

// === impl Backend ===

impl Backend {
    /// The processes, for probes that need to know them.
    pub fn known(&self) -> Result<&[Identity], Fault> {
        match self.processes.as_slice() {
            [] => Err(unknown()),
            processes => Ok(processes),
        }
    }

    /// The cgroup, for probes that need to know it.
    pub fn cgroup(&self) -> Result<&Place, Fault> {
        match &self.cgroup {
            None => Err(unknown()),
            Some(Ok(place)) => Ok(place),
            Some(Err(fault)) => Err(fault.clone()),
        }
    }
}

fn unknown() -> Fault {
    Fault::new(Trouble::Unknown, "it is not known which processes the backend is")
}

// === impl Finder ===

impl Finder {
    pub fn new(settings: &Settings) -> Finder {
        Finder {
            hints: settings.saturation.backend.clone(),
            upstream: Arc::clone(&settings.upstream),
            socket: settings.socket.clone(),
            wrapped: settings.wrapped,
            command: None,
            ended: None,
            primary: None,
            oom_kills: None,
            was_oom: false,
            next_cgroup: None,
            listening: HashSet::new(),
            next_listeners: None,
            next_owners: None,
            next_tree: None,
            eager_until: None,
            search: None,
            unfound: None,
        }
    }

    /// Looks for what the new settings say. If it is another process, it is another backend, but no restart.
    pub fn reconfigure(&mut self, settings: &Settings) {
        let Settings { saturation, upstream, socket, .. } = settings;
        if (&saturation.backend, upstream, socket) != (&self.hints, &self.upstream, &self.socket) {
            *self = Finder { command: self.command, ended: self.ended, ..Finder::new(settings) };
        }
    }

    /// Takes in how the command fares; counts when it runs again.
    pub fn command_changed(&mut self, change: Change, notes: &mut Notes) {
        match change {
            Change::Started { pid } => {
                self.command = i32::try_from(pid).ok();
                if let Some(ended) = self.ended.take() {
                    notes.count(&f::BACKEND_RESTARTS, [self.reason(ended).as_str()], 1.0);
                }
            }
            Change::Exited | Change::Killed { .. } => {
                self.command = None;
                self.ended = Some(change);
            }
        }
    }

    /// Looks at the backend, and for it if it is not there.
    pub fn find(
        &mut self,
        backend: &mut Backend,
        now: Instant,
        deadline: Instant,
        notes: &mut Notes,
    ) -> Result<(), Fault> {
        let result = self.look(backend, now, deadline, notes);
        if result.is_err() {
            backend.roots.clear();
            backend.processes.clear();
            if self.hints.cgroup.is_none() {
                backend.cgroup = None;
            }
        }
        result
    }

    fn look(&mut self, backend: &mut Backend, now: Instant, deadline: Instant, notes: &mut Notes) -> Result<(), Fault> {
        let alive = !backend.roots.is_empty() && backend.roots.iter().all(|root| is_alive(*root));
        match &mut self.oom_kills {
            Some((kills, before)) if alive => *before = kills.count().unwrap_or(*before),
            // At the first look that finds it gone: its cgroup may soon be gone as well.
            Some((kills, before)) => self.was_oom |= kills.count().is_some_and(|count| count > *before),
            None => {}
        }
        self.look_for_cgroup(backend, now);
        let roots = self.roots(backend, alive, now, deadline)?;
        let another = self.is_another(backend, &roots);
        if roots != backend.roots || another {
            self.take(backend, roots, another, now, notes);
            self.look_for_cgroup(backend, now);
        }
        if self.next_tree.is_none_or(|due| now >= due) {
            self.list(backend, now)?;
        }
        Ok(())
    }

    /// Finds out where the backend's cgroup can be read, again and again.
    fn look_for_cgroup(&mut self, backend: &mut Backend, now: Instant) {
        if matches!(backend.cgroup, Some(Ok(_))) && self.next_cgroup.is_some_and(|due| now < due) {
            return;
        }
        self.next_cgroup = Some(now + CGROUP_INTERVAL);
        let place = match (&self.hints.cgroup, backend.roots.first()) {
            (Some(folder), _) => Place::of_folder(folder),
            (None, Some(root)) => Place::of_process(root.pid),
            (None, None) => return,
        };
        if backend.cgroup.as_ref() == Some(&place) {
            return;
        }
        // A place that cannot be found just now (the process is ending) says nothing about kills in the old one.
        if let Ok(place) = &place {
            self.oom_kills = place.oom_kills().and_then(|mut kills| kills.count().map(|count| (kills, count)));
        }
        backend.cgroup = Some(place);
    }

    /// Lists the backend's processes.
    fn list(&mut self, backend: &mut Backend, now: Instant) -> Result<(), Fault> {
        let begun = Instant::now();
        let rows = tree::all(begun + LIST_DEADLINE);
        let wait = if self.eager_until.is_some_and(|until| now < until) {
            EAGER_INTERVAL_MIN.max(begun.elapsed() * EAGER_COST_DIVISOR)
        } else {
            TREE_INTERVAL_MIN.max(begun.elapsed() * TREE_COST_DIVISOR)
        };
        self.next_tree = Some(now + wait);
        let rows = match rows {
            Ok(rows) => rows,
            // Those that are known are better than none.
            Err(_) if !backend.processes.is_empty() => return Ok(()),
            Err(fault) => return Err(fault),
        };
        backend.processes = tree::descendants(&rows, &self.with_orphans(&backend.roots, &rows), PROCESSES_MAX);
        match backend.processes.as_slice() {
            // Just ended; or somebody has named a thread, which /proc shows but does not list.
            [] => Err(Fault::new(Trouble::Gone, "the backend is not among the processes that can be listed")),
            _ => Ok(()),
        }
    }

    /// The processes that the backend descends from.
    fn roots(
        &mut self,
        backend: &Backend,
        alive: bool,
        now: Instant,
        deadline: Instant,
    ) -> Result<Vec<Identity>, Fault> {
        let BackendHints { pid, pid_file, cgroup, .. } = &self.hints;
        if let Some(pid) = pid {
            return the_process(i32::try_from(*pid).unwrap_or(i32::MAX), "saturation.backend.pid").map(|one| vec![one]);
        }
        if let Some(file) = pid_file {
            return the_process(read_pid_file(file)?, "saturation.backend.pid_file").map(|one| vec![one]);
        }
        if cgroup.is_some() {
            // Whoever is in it, and others may join: as often as processes are listed.
            if alive && self.next_tree.is_some_and(|due| now < due) {
                return Ok(backend.roots.clone());
            }
            let place = backend.cgroup()?;
            let rows = tree::all(Instant::now() + LIST_DEADLINE)?;
            let roots = tree::topmost(&rows, &place.processes()?);
            let nobody = || Fault::new(Trouble::Absent, "the cgroup holds no process that can be seen from here");
            return if roots.is_empty() { Err(nobody()) } else { Ok(roots) };
        }
        if self.wrapped {
            let Some(command) = self.command else {
                return Err(Fault::new(Trouble::Gone, "the command has ended"));
            };
            return the_process(command, "the command").map(|one| vec![one]);
        }
        self.listening(backend, alive, now, deadline)
    }

    /// Whoever listens where the upstream is.
    fn listening(
        &mut self,
        backend: &Backend,
        alive: bool,
        now: Instant,
        deadline: Instant,
    ) -> Result<Vec<Identity>, Fault> {
        if alive && self.next_listeners.is_some_and(|due| now < due) {
            return Ok(backend.roots.clone());
        }
        self.next_listeners = Some(now + LISTENER_INTERVAL);
        let is_here = |address: &SocketAddr| ownership::is_of_this_machine(address.ip());
        if self.socket.is_none() && !self.upstream.iter().any(is_here) {
            return Err(self.elsewhere());
        }
        let (inodes, uid) = match self.listeners(deadline) {
            Ok(found) => found,
            // Not listening just now, but there.
            Err(fault) if alive && fault.trouble == Trouble::Absent => return Ok(backend.roots.clone()),
            Err(fault) => return Err(fault),
        };
        // The same sockets still belong to the same processes, mostly: that is looked at again when there is time for it.
        if inodes == self.listening && self.next_owners.is_some_and(|due| now < due) {
            match &self.unfound {
                Some(fault) => return Err(fault.clone()),
                None if alive => return Ok(backend.roots.clone()),
                // The first one has ended and others hold its socket; or the kernel has not yet cleaned up behind it.
                None => {}
            }
        }
        let begun = Instant::now();
        let mut search = match self.search.take() {
            Some(search) if *search.holders.inodes() == inodes => search,
            _ => OwnerSearch::new(inodes.clone())?,
        };
        let done = search.holders.go_on(begun + SEARCH_STEP);
        search.spent += begun.elapsed();
        let found = search.holders.found();
        let (refused, held) = (found.refused, !found.pids.is_empty());
        let roots = tree::topmost(&search.rows, &without_systemd(&found.pids));
        if !done {
            self.search = Some(search);
            // The next look goes on with it, even if the known ones live.
            self.next_listeners = None;
            return match (alive, roots.is_empty()) {
                (true, _) => Ok(backend.roots.clone()),
                // A worker at first, perhaps; its master is known when the search is over.
                (false, false) => Ok(roots),
                (false, true) => {
                    Err(Fault::new(Trouble::Timeout, "the search among all descriptors of this machine goes on"))
                }
            };
        }
        self.next_owners = Some(now + OWNER_INTERVAL_MIN.max(search.spent * SEARCH_COST_DIVISOR));
        self.listening = inodes;
        self.unfound = match (roots.is_empty(), refused) {
            (false, _) => None,
            (true, _) if held => Some(Fault::new(
                Trouble::Absent,
                format!("{} is held by systemd for a service that has not started yet", self.upstream_text()),
            )),
            // The first process is always there, unless it is hidden from this user like all others.
            (true, 0) if !matches!(tree::one(1), Ok(Some(_))) => Some(Fault::new(
                Trouble::Permission,
                format!(
                    "{} is served by user {uid}, and /proc hides the processes of other users (hidepid); run as the same \
                     user, or let this one's group see them (mount option gid)",
                    self.upstream_text()
                ),
            )),
            (true, 0) => Some(Fault::new(
                Trouble::Absent,
                format!(
                    "{} is served from another process namespace; share it (Kubernetes: shareProcessNamespace: true, \
                     Compose: pid: service:NAME), or let the sidecar start the backend (-- COMMAND)",
                    self.upstream_text()
                ),
            )),
            (true, _) if uid == own_uid() => Some(Fault::new(
                Trouble::Permission,
                format!(
                    "{} is served by a process of this user that has rights which this one lacks; give the sidecar the \
                     same capabilities, or SYS_PTRACE",
                    self.upstream_text()
                ),
            )),
            (true, _) => Some(Fault::new(
                Trouble::Permission,
                format!(
                    "{} is served by user {uid}, whose descriptors this process may not see; run the sidecar as that user \
                     (Kubernetes: runAsUser) or with SYS_PTRACE, or name the backend with --backend-pid or \
                     --backend-pid-file",
                    self.upstream_text()
                ),
            )),
        };
        match &self.unfound {
            None => Ok(roots),
            Some(fault) => Err(fault.clone()),
        }
    }

    /// Inodes of the sockets that listen where the upstream is, and the user whose they are.
    fn listeners(&self, deadline: Instant) -> Result<(HashSet<u64>, u32), Fault> {
        if let Some(path) = &self.socket {
            return sockets::at_path(path, deadline).map(|listener| (HashSet::from([listener.inode]), listener.uid));
        }
        let listeners = sockets::listeners(deadline)?;
        let ours = ownership::at_address(&listeners, &self.upstream);
        let Some(first) = ours.first() else {
            let detail = format!("nobody listens on {} in this network namespace", self.upstream_text());
            return Err(Fault::new(Trouble::Absent, detail));
        };
        Ok((ours.iter().map(|listener| listener.inode).collect(), first.uid))
    }

    /// Whether the backend is another one than before. Whom somebody names is the backend. Of those that share a socket it
    /// is the same one while the process lives by which it was told, whoever else turns out to belong to it; of those that
    /// share a cgroup, while any of them is still there.
    fn is_another(&self, backend: &Backend, roots: &[Identity]) -> bool {
        let BackendHints { pid, pid_file, cgroup, .. } = &self.hints;
        let Some(primary) = self.primary else { return true };
        if roots.contains(&primary) {
            false
        } else if pid.is_some() || pid_file.is_some() {
            true
        } else if cgroup.is_some() {
            !roots.iter().any(|root| backend.roots.contains(root))
        } else {
            self.wrapped || !is_alive(primary)
        }
    }

    /// Takes these processes for the backend from now on.
    fn take(&mut self, backend: &mut Backend, roots: Vec<Identity>, another: bool, now: Instant, notes: &mut Notes) {
        self.next_tree = None;
        self.eager_until = Some(now + EAGER_TIME);
        if another {
            // A command of ours is counted when it is started again: then it is known how it ended.
            match self.primary {
                Some(_) if !self.wrapped => {
                    notes.count(&f::BACKEND_RESTARTS, [self.reason(Change::Exited).as_str()], 1.0);
                }
                Some(_) => {}
                None => self.restarts_exist(notes),
            }
            backend.generation += 1;
            if self.hints.cgroup.is_none() {
                backend.cgroup = None;
            }
        }
        if another || self.hints.cgroup.is_some() {
            self.primary = roots.first().copied();
        }
        backend.roots = roots;
    }

    /// The reasons that can be told from here exist at 0 from now on.
    fn restarts_exist(&self, notes: &mut Notes) {
        let how_it_ended: &[RestartReason] =
            if self.wrapped { &[RestartReason::Exit, RestartReason::Signal] } else { &[RestartReason::Replaced] };
        for reason in how_it_ended.iter().chain(&[RestartReason::Oom]) {
            notes.count(&f::BACKEND_RESTARTS, [reason.as_str()], 0.0);
        }
    }

    /// Why the backend is another one. Only of a command of ours is it known how it ended.
    fn reason(&mut self, ended: Change) -> RestartReason {
        let grown =
            self.oom_kills.as_mut().is_some_and(|(kills, before)| kills.count().is_some_and(|now| now > *before));
        if std::mem::take(&mut self.was_oom) || grown {
            return RestartReason::Oom;
        }
        match ended {
            Change::Killed { .. } => RestartReason::Signal,
            _ if self.wrapped => RestartReason::Exit,
            _ => RestartReason::Replaced,
        }
    }

    /// In front of a command of ours, what lost its parent is handed to this process: it still belongs to the backend.
    fn with_orphans(&self, roots: &[Identity], rows: &[Row]) -> Vec<Identity> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let orphans = rows.iter().filter(|row| self.wrapped && row.parent == own).map(|row| row.identity);
        roots.iter().copied().chain(orphans).collect()
    }

    fn elsewhere(&self) -> Fault {
        Fault::new(
            Trouble::Absent,
            format!(
                "{} is not an address of this machine; put the sidecar into the backend's network namespace (a pod does, \
                 Compose: network_mode: service:NAME)",
                self.upstream_text()
            ),
        )
    }

    fn upstream_text(&self) -> String {
        if let Some(path) = &self.socket {
            return path.display().to_string();
        }
        self.upstream.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
    }
}

// === impl OwnerSearch ===

impl OwnerSearch {
    /// Among all processes, this one too: in the demonstration it is its own backend. The youngest come first: after a
    /// restart it is one of them.
    fn new(inodes: HashSet<u64>) -> Result<OwnerSearch, Fault> {
        let begun = Instant::now();
        let mut rows = tree::all(begun + LIST_DEADLINE)?;
        rows.sort_by_key(|row| std::cmp::Reverse(row.identity.start_ticks));
        let holders = Search::new(inodes, rows.iter().map(|row| row.identity.pid));
        Ok(OwnerSearch { holders, rows, spent: begun.elapsed() })
    }
}

fn own_uid() -> u32 {
    // SAFETY: the call has no preconditions.
    unsafe { libc::geteuid() }
}

fn is_alive(root: Identity) -> bool {
    tree::one(root.pid).is_ok_and(|row| row.is_some_and(|row| row.identity == root && !row.ended))
}

fn the_process(pid: i32, what: &str) -> Result<Identity, Fault> {
    match tree::one(pid) {
        Ok(Some(row)) if row.ended => Err(Fault::new(Trouble::Gone, format!("{what}: process {pid} has ended"))),
        Ok(Some(row)) => Ok(row.identity),
        Ok(None) => {
            Err(Fault::new(Trouble::Gone, format!("{what}: there is no process {pid} that can be seen from here")))
        }
        Err(error) => Err(Fault::io(format_args!("/proc/{pid}/stat"), &error)),
    }
}

/// The number in a pid file.
fn read_pid_file(file: &Path) -> Result<i32, Fault> {
    let shown = file.display();
    let mut text = String::new();
    // A pipe without a writer would be waited for.
    let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file);
    let read = opened.and_then(|file| file.take(PID_FILE_BYTES as u64).read_to_string(&mut text));
    read.map_err(|error| Fault::io(&shown, &error))?;
    match text.trim().parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(Fault::new(Trouble::Malformed, format!("{shown} holds no process id"))),
    }
}

/// Without the process that holds sockets for services until they start (systemd's socket activation): it is not the
/// backend, not even while nobody else is.
fn without_systemd(pids: &[i32]) -> Vec<i32> {
    let is_systemd =
        |pid: i32| pid == 1 && fs::read_to_string("/proc/1/comm").is_ok_and(|command| command.trim_end() == "systemd");
    pids.iter().copied().filter(|pid| !is_systemd(*pid)).collect()
}

/// The listener that takes connections to an address of this machine: the emptiest, if several share the port. `None`:
/// there is none, or the kernel does not say.
pub(super) fn listener_at(address: SocketAddr, deadline: Instant) -> Option<Listener> {
    let listeners = sockets::listeners(deadline).ok()?;
    ownership::at_address(&listeners, &[address]).into_iter().min_by_key(|listener| listener.waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_holds_one_number() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("backend.pid");
        let read = |text: &[u8]| {
            fs::write(&file, text).unwrap();
            read_pid_file(&file).map_err(|fault| fault.trouble)
        };
        assert_eq!(read(b"4711\n"), Ok(4711));
        assert_eq!(read(b" 4711 "), Ok(4711));
        for bad in [&b""[..], b"x", b"-1", b"0", b"47 11", b"99999999999", &[b'1'; 100], &[0xff, 0xfe]] {
            assert_eq!(read(bad), Err(Trouble::Malformed), "{bad:?}");
        }
        assert_eq!(read_pid_file(&folder.path().join("none")).unwrap_err().trouble, Trouble::Absent);
    }
}
