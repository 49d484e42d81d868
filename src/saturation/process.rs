//! The backend's processes: CPU time, memory, descriptors, threads, and how long their threads waited for a CPU.
//!
//! Source: /proc/PID/stat, /proc/PID/limits, /proc/PID/fd and /proc/PID/task/TID/schedstat, proc(5); the processes' CPU
//!         clocks, clock_getcpuclockid(3).
//! Units:  clock ticks and pages in the files, nanoseconds of the clocks and of schedstat; seconds, cores and bytes in
//!         the metrics.
//! Absent: descriptors on kernels before 6.2 for processes of other users; run-queue wait on kernels without
//!         CONFIG_SCHED_INFO.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::time::Duration;

use procfs::process::{LimitValue, Process};
use tokio::time::Instant;

use crate::labels::{CpuMode, LimitSource, MemoryKind, Resource, Source, Trouble};
use crate::saturation::backend::Identity;
use crate::saturation::fault::Fault;
use crate::saturation::limits::Bound;
use crate::saturation::{Probe, Round};
use crate::signals::families as f;

/// How often rlimits are read: hardly anybody changes them while a process runs.
const LIMITS_INTERVAL: Duration = Duration::from_secs(30);
/// Reading the run-queue wait of many threads is dear (a file each), so it is repeated only when it costs less than this
/// part of one core: 1,000 threads take 8 ms and are read every eight seconds.
const RUNQUEUE_COST_DIVISOR: u32 = 1000;
/// So long is a slice of it: more than a thousand threads, and a tenth of the shortest usual interval.
const RUNQUEUE_SLICE: Duration = Duration::from_millis(10);
/// Threads whose run-queue wait is remembered.
const THREADS_MAX: usize = 16_384;

/// CPU time, memory, descriptors and threads.
#[derive(Default)]
pub(super) struct Processes {
    members: HashMap<Identity, Member>,
    seen: BTreeMap<Identity, Seen>,
    read_at: Option<(Instant, u64)>,
    watch: Watch,
}

/// Run-queue wait. All threads are gone through once and again, a slice in each round.
#[derive(Default)]
pub(super) struct Runqueue {
    /// Nanoseconds that a thread (process, thread) has waited so far.
    waited: HashMap<(Identity, i32), u64>,
    /// What of that was read since the threads were listed.
    seen: HashMap<(Identity, i32), u64>,
    /// Threads that are still to be read, and what the reading of the others has cost.
    left: Vec<(Identity, i32)>,
    cost: Duration,
    next: Option<Instant>,
    /// Clock ticks from boot to the end of the first going through: until then everything counts, as with [`Watch`].
    since: Option<u64>,
    /// How the last reading went.
    fault: Option<Fault>,
}

/// Since when somebody has been watching. At first everything counts that processes ever used. Later only what they use
/// from then on, or since their start if they are younger: a backend that a reload points to may have run for weeks.
#[derive(Default)]
struct Watch {
    /// Clock ticks from boot.
    since: Option<u64>,
}

/// A process that is being watched. The open folder of /proc names this process even when its id is given out again.
struct Member {
    process: Process,
    limits: Option<(Instant, Limits)>,
}

/// The rlimits that matter. `None`: no limit, or it could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Limits {
    open_files: Option<u64>,
    /// Threads of its user. Not enforced for root.
    threads: Option<u64>,
}

/// CPU time of a process at a reading, nanoseconds: what it used itself, and what its children had used that ended and
/// were waited for, their children included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    parent: i32,
    user: Spent,
    system: Spent,
    /// From the process' CPU clock, which is finer than the ticks of the two above.
    both: Spent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spent {
    own: u64,
    children: u64,
}

/// What one reading adds up to.
#[derive(Debug, Default)]
struct Sum {
    resident: f64,
    virtual_: f64,
    threads: f64,
    processes: f64,
    fds: Option<f64>,
    fullest: Option<(f64, f64)>,
    threads_limit: Option<f64>,
    start_ticks: Option<u64>,
}

impl Probe for Processes {
    fn source(&self) -> Cow<'static, str> {
        Source::Process.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        let processes = match round.backend.known() {
            Ok(processes) => processes,
            Err(fault) => {
                self.members.clear();
                return Err(fault);
            }
        };
        self.members.retain(|identity, _| processes.contains(identity));
        let ticks_now = boot_ticks();
        let mut sum = Sum { fds: Some(0.0), ..Sum::default() };
        let mut seen = BTreeMap::new();
        let mut fault = None;
        for identity in processes {
            Fault::after(round.deadline, "reading the backend's processes")?;
            match self.one(*identity, round.now, &mut sum) {
                Ok(one) => drop(seen.insert(*identity, one)),
                // It has ended since the tree was read; its parent tells of its CPU time.
                Err(gone) if gone.trouble == Trouble::Gone => fault = fault.or(Some(gone)),
                Err(other) => return Err(other),
            }
        }
        if seen.is_empty() {
            return Err(fault.unwrap_or_else(|| Fault::new(Trouble::Gone, "the backend has ended")));
        }
        let before = std::mem::replace(&mut self.seen, seen);
        let now = &self.seen;
        let notes = &mut *round.notes;
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        let counts = self.watch.begin(ticks_now);
        let mut counted = now.clone();
        counted.retain(|identity, _| before.contains_key(identity) || counts(identity));
        notes.count(&f::BACKEND_CPU, [CpuMode::User.as_str()], seconds(spent(&before, &counted, |seen| seen.user)));
        notes.count(&f::BACKEND_CPU, [CpuMode::System.as_str()], seconds(spent(&before, &counted, |seen| seen.system)));
        if let Some((then, ticks_then)) = self.read_at.replace((round.now, ticks_now)) {
            // A process that is older than the last reading and was not in it has spent most of its time before.
            let late = |identity: &Identity| identity.start_ticks < ticks_then && !before.contains_key(identity);
            let mut recent = now.clone();
            recent.retain(|identity, _| !late(identity));
            let elapsed = round.now.saturating_duration_since(then).as_secs_f64();
            if elapsed > 0.0 && !before.is_empty() {
                round.facts.cpu.used = Some(seconds(spent(&before, &recent, |seen| seen.both)) / elapsed);
            }
        }
        let Sum { resident, virtual_, threads, processes, fds, fullest, threads_limit, start_ticks } = sum;
        notes.gauge(&f::BACKEND_MEMORY, [MemoryKind::Resident.as_str()], resident);
        notes.gauge(&f::BACKEND_MEMORY, [MemoryKind::Virtual.as_str()], virtual_);
        round.facts.memory.used = Some(resident);
        notes.value(&f::BACKEND_THREADS, threads);
        round.facts.threads.used = Some(threads);
        let rlimit = |limit| Bound { source: LimitSource::Rlimit, limit, used: None };
        round.facts.threads.bounds.extend(threads_limit.map(rlimit));
        round.facts.threads.host = threads_of_host();
        if let Some(fds) = fds {
            notes.value(&f::BACKEND_FDS, fds);
        }
        if let Some((used, limit)) = fullest {
            notes.gauge(&f::BACKEND_FDS_LIMIT, [LimitSource::Rlimit.as_str()], limit);
            notes.usage(Resource::Fds.as_str(), used, limit);
        }
        notes.value(&f::BACKEND_PROCESSES, processes);
        if let (Some(ticks), Ok(boot)) = (start_ticks, procfs::boot_time_secs()) {
            let start = boot as f64 + ticks as f64 / procfs::ticks_per_second() as f64;
            notes.value(&f::BACKEND_START_TIME, start);
        }
        Ok(())
    }
}

// === impl Processes ===

impl Processes {
    /// Reads one process and adds it to the sum.
    fn one(&mut self, identity: Identity, now: Instant, sum: &mut Sum) -> Result<Seen, Fault> {
        let pid = identity.pid;
        let failed = |error: &procfs::ProcError| Fault::of_process(format_args!("/proc/{pid}"), error);
        let member = match self.members.entry(identity) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let process = Process::new(pid).map_err(|error| failed(&error))?;
                new.insert(Member { process, limits: None })
            }
        };
        let stat = member.process.stat().map_err(|error| failed(&error))?;
        if stat.starttime != identity.start_ticks {
            return Err(Fault::new(Trouble::Gone, format!("/proc/{pid} is another process now")));
        }
        let tick = 1_000_000_000 / procfs::ticks_per_second();
        let children = |ticks: i64| u64::try_from(ticks).unwrap_or(0) * tick;
        let (user, system) = (stat.utime * tick, stat.stime * tick);
        let (children_user, children_system) = (children(stat.cutime), children(stat.cstime));
        let seen = Seen {
            parent: stat.ppid,
            user: Spent { own: user, children: children_user },
            system: Spent { own: system, children: children_system },
            both: Spent {
                own: cpu_clock_nanos(pid).unwrap_or(user + system),
                children: children_user + children_system,
            },
        };
        if member.limits.is_none_or(|(at, _)| now.saturating_duration_since(at) > LIMITS_INTERVAL) {
            member.limits = Some((now, Limits::of(&member.process)));
        }
        let limits = member.limits.map_or_else(Limits::default, |(_, limits)| limits);
        if matches!(stat.state, 'Z' | 'X') {
            // It has ended and holds nothing any more; only its CPU time is still to be inherited.
            return Ok(seen);
        }
        sum.processes += 1.0;
        sum.resident += (stat.rss * procfs::page_size()) as f64;
        sum.virtual_ += stat.vsize as f64;
        sum.threads += stat.num_threads as f64;
        sum.start_ticks = Some(sum.start_ticks.map_or(stat.starttime, |earliest| earliest.min(stat.starttime)));
        sum.threads_limit = smaller(sum.threads_limit, limits.threads.map(|limit| limit as f64));
        // One process whose descriptors cannot be counted makes the sum a wrong number.
        let fds = count_fds(&member.process);
        sum.fds = sum.fds.zip(fds).map(|(sum, fds)| sum + fds);
        if let (Some(used), Some(limit)) = (fds, limits.open_files.map(|limit| limit as f64))
            && limit > 0.0
            && sum.fullest.is_none_or(|(most, of)| used / limit > most / of)
        {
            sum.fullest = Some((used, limit));
        }
        Ok(seen)
    }
}

// === impl Watch ===

impl Watch {
    /// Which processes that were not there at the last reading count with all that they have used.
    fn begin(&mut self, now_ticks: u64) -> impl Fn(&Identity) -> bool + use<> {
        let first = self.since.is_none();
        let since = *self.since.get_or_insert(now_ticks);
        move |identity| first || identity.start_ticks >= since
    }
}

// === impl Limits ===

impl Limits {
    fn of(process: &Process) -> Limits {
        let Ok(limits) = process.limits() else { return Limits::default() };
        let value = |limit: LimitValue| match limit {
            LimitValue::Value(limit) => Some(limit),
            LimitValue::Unlimited => None,
        };
        let is_root = process.uid().is_ok_and(|uid| uid == 0);
        Limits {
            open_files: value(limits.max_open_files.soft_limit),
            threads: value(limits.max_processes.soft_limit).filter(|_| !is_root),
        }
    }
}

fn smaller(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Descriptors that a process has open. Since Linux 6.2 the size of the folder tells, which asks for no right; before,
/// the folder has to be listed.
fn count_fds(process: &Process) -> Option<f64> {
    let folder = format!("/proc/{}/fd", process.pid());
    match fs::metadata(&folder).ok()?.len() {
        0 => fs::read_dir(&folder).ok().map(|entries| entries.count() as f64),
        count => Some(count as f64),
    }
}

/// CPU time that a process has used, by its CPU clock. Linux lets everybody read it.
fn cpu_clock_nanos(pid: i32) -> Option<u64> {
    // `~pid << 3 | 2`: the process' clock of scheduled time; what clock_getcpuclockid(3) makes, without asking first. Ids
    // have 22 bits.
    let clock = (!pid << 3) | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for one timespec.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    Some(u64::try_from(time.tv_sec).ok()? * 1_000_000_000 + u64::try_from(time.tv_nsec).ok()?)
}

/// Clock ticks from boot until now, on the clock that start times are told by.
fn boot_ticks() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let nanos = time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs();
    nanos / (1_000_000_000 / procfs::ticks_per_second())
}

/// The most threads that the kernel lets there be: it has a limit of its own, and each needs an id.
fn threads_of_host() -> Option<f64> {
    let number = |file: &str| fs::read_to_string(file).ok()?.trim().parse::<f64>().ok();
    smaller(number("/proc/sys/kernel/threads-max"), number("/proc/sys/kernel/pid_max"))
}

/// CPU time spent between two readings, which never counts backwards and loses nothing when children end.
///
/// A child that ended and was waited for is in its parent's `children`: of that growth, what had been counted while the
/// child lived is taken off. What a child used that nobody waits for (its parent ignores SIGCHLD, or ended too) after
/// its last reading is lost: at most one interval of it.
fn spent(before: &BTreeMap<Identity, Seen>, now: &BTreeMap<Identity, Seen>, pick: impl Fn(&Seen) -> Spent) -> u64 {
    let mut counted: BTreeMap<Identity, u64> = BTreeMap::new();
    for (identity, seen) in before.iter().filter(|(identity, _)| !now.contains_key(identity)) {
        if let Some(heir) = heir(before, now, *identity) {
            let Spent { own, children } = pick(seen);
            *counted.entry(heir).or_default() += own + children;
        }
    }
    let each = now.iter().map(|(identity, seen)| {
        let Spent { own, children } = pick(seen);
        match before.get(identity).map(&pick) {
            None => own + children,
            Some(last) => {
                let inherited = children.saturating_sub(last.children);
                own.saturating_sub(last.own) + inherited.saturating_sub(counted.get(identity).copied().unwrap_or(0))
            }
        }
    });
    each.sum()
}

/// The nearest ancestor that is still there.
fn heir(before: &BTreeMap<Identity, Seen>, now: &BTreeMap<Identity, Seen>, ended: Identity) -> Option<Identity> {
    let mut parent = before.get(&ended)?.parent;
    for _ in 0..before.len() {
        let (identity, seen) = before.iter().find(|(identity, _)| identity.pid == parent)?;
        if now.contains_key(identity) {
            return Some(*identity);
        }
        parent = seen.parent;
    }
    None
}

impl Probe for Runqueue {
    fn source(&self) -> Cow<'static, str> {
        Source::Runqueue.as_str().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        let processes = round.backend.known()?;
        if self.next.is_some_and(|due| round.now < due) {
            return self.fault.clone().map_or(Ok(()), Err);
        }
        let begun = Instant::now();
        if self.left.is_empty() {
            self.left = threads(processes);
        }
        let mut grown = 0;
        while let Some((identity, thread)) = self.left.pop() {
            match waited_nanos(identity.pid, thread) {
                Ok(nanos) => {
                    grown += self.growth(identity, thread, nanos);
                    self.seen.insert((identity, thread), nanos);
                }
                // A thread that has ended meanwhile is none.
                Err(fault) if fault.trouble == Trouble::Gone => {}
                Err(fault) => self.fault = Some(fault),
            }
            if begun.elapsed() > RUNQUEUE_SLICE {
                break;
            }
        }
        self.cost += begun.elapsed();
        round.notes.count(&f::BACKEND_RUNQUEUE_WAIT, [""; 0], grown as f64 / 1e9);
        if self.left.is_empty() {
            self.next = Some(round.now + self.cost * RUNQUEUE_COST_DIVISOR);
            self.cost = Duration::ZERO;
            self.waited = std::mem::take(&mut self.seen);
            if !self.waited.is_empty() {
                self.fault = None;
                self.since.get_or_insert_with(boot_ticks);
            }
        }
        self.fault.clone().map_or(Ok(()), Err)
    }
}

impl Runqueue {
    /// What a thread has waited since it was read last.
    fn growth(&self, identity: Identity, thread: i32, nanos: u64) -> u64 {
        match self.waited.get(&(identity, thread)) {
            Some(before) if *before <= nanos => nanos - before,
            // A thread id that was given out again begins anew.
            Some(_) => nanos,
            None if self.since.is_none_or(|since| identity.start_ticks >= since) => nanos,
            None => 0,
        }
    }
}

/// Every thread of these processes, as far as they can be listed.
fn threads(processes: &[Identity]) -> Vec<(Identity, i32)> {
    let of = |identity: &Identity| {
        let identity = *identity;
        let entries = fs::read_dir(format!("/proc/{}/task", identity.pid)).into_iter().flatten().flatten();
        entries.filter_map(move |entry| Some((identity, entry.file_name().to_str()?.parse().ok()?)))
    };
    processes.iter().flat_map(of).take(THREADS_MAX).collect()
}

/// Nanoseconds for which a thread was ready and had no CPU: the second number of its schedstat.
fn waited_nanos(pid: i32, thread: i32) -> Result<u64, Fault> {
    let path = format!("/proc/{pid}/task/{thread}/schedstat");
    let text =
        fs::read_to_string(&path).map_err(|error| match Path::new(&format!("/proc/{pid}/task/{thread}")).exists() {
            true => Fault::io(&path, &error),
            false => Fault::new(Trouble::Gone, format!("{path}: the thread has ended")),
        })?;
    parse_schedstat(&text).ok_or_else(|| Fault::malformed(&path))
}

/// `RUNNING WAITED SLICES`, the first two in nanoseconds.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(parent: i32, own: u64, children: u64) -> Seen {
        Seen { parent, both: Spent { own, children }, ..Seen::default() }
    }

    fn at(pid: i32) -> Identity {
        Identity { pid, start_ticks: u64::from(pid.unsigned_abs()) }
    }

    fn both(before: &[(i32, Seen)], now: &[(i32, Seen)]) -> u64 {
        let map = |list: &[(i32, Seen)]| list.iter().map(|(pid, seen)| (at(*pid), *seen)).collect();
        spent(&map(before), &map(now), |seen| seen.both)
    }

    #[test]
    fn what_living_processes_used_is_their_growth() {
        assert_eq!(both(&[], &[(1, seen(0, 100, 7))]), 107, "at first all that it ever used");
        assert_eq!(both(&[(1, seen(0, 100, 7))], &[(1, seen(0, 130, 7))]), 30);
        assert_eq!(both(&[(1, seen(0, 100, 7))], &[(1, seen(0, 130, 7)), (2, seen(1, 5, 0))]), 35);
    }

    #[test]
    fn a_child_that_ends_takes_nothing_away_and_its_last_moments_count() {
        let before = [(1, seen(0, 100, 0)), (2, seen(1, 50, 0))];
        assert_eq!(
            both(&before, &[(1, seen(0, 110, 58))]),
            18,
            "10 of the parent, 8 of the child after its last reading"
        );
        assert_eq!(both(&before, &[(1, seen(0, 110, 0))]), 10, "nobody waited for it");
        assert_eq!(both(&[(1, seen(0, 100, 0))], &[(1, seen(0, 110, 20))]), 30, "born and ended between two readings");
    }

    #[test]
    fn a_grandchild_is_inherited_through_a_parent_that_ended_too() {
        let before = [(1, seen(0, 100, 0)), (2, seen(1, 50, 5)), (3, seen(2, 30, 0))];
        assert_eq!(both(&before, &[(1, seen(0, 100, 92))]), 7, "92 were inherited, 85 of them counted before");
    }

    #[test]
    fn the_wait_is_the_second_number_of_schedstat() {
        assert_eq!(parse_schedstat("11 22 33\n"), Some(22));
        for bad in ["", "11", "11 x 33", "11 -1 33"] {
            assert_eq!(parse_schedstat(bad), None, "{bad:?}");
        }
        let pid = i32::try_from(std::process::id()).unwrap();
        let all = threads(&[Identity { pid, start_ticks: 0 }]);
        assert!(all.iter().any(|(_, thread)| *thread == pid), "{all:?}");
        assert!(waited_nanos(pid, pid).is_ok());
        assert_eq!(waited_nanos(pid, 1 << 22).unwrap_err().trouble, Trouble::Gone);
    }

    #[test]
    fn descriptors_are_counted_whether_the_size_of_the_folder_tells_or_not() {
        let process = Process::myself().unwrap();
        let listed = || fs::read_dir("/proc/self/fd").unwrap().count() as f64;
        let _three = [(); 3].map(|()| fs::File::open("/dev/null").unwrap());
        // The listing itself has the folder open; other tests open and close files meanwhile.
        let near = |a: f64, b: f64| (a - b).abs() <= 40.0;
        assert!(near(count_fds(&process).unwrap(), listed()));
    }

    #[test]
    fn what_ran_long_before_anybody_watched_counts_at_the_first_reading_only() {
        let mut watch = Watch::default();
        assert!(watch.begin(1000)(&at(500)), "the backend's whole life");
        assert!(!watch.begin(2000)(&at(500)), "another one's, to which a reload points");
        assert!(watch.begin(2000)(&at(1500)), "a worker that was born since");
    }

    #[test]
    fn clocks_that_step_back_count_nothing() {
        assert_eq!(both(&[(1, seen(0, 100, 50))], &[(1, seen(0, 90, 40))]), 0);
    }

    #[test]
    fn the_cpu_clock_of_this_process_agrees_with_its_stat() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let begun = cpu_clock_nanos(pid).unwrap();
        let mut sum = 0u64;
        while cpu_clock_nanos(pid).unwrap() < begun + 50_000_000 {
            sum = sum.wrapping_mul(31).wrapping_add(1);
        }
        assert!(sum != 1);
        let stat = Process::myself().unwrap().stat().unwrap();
        let by_stat = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        let by_clock = cpu_clock_nanos(pid).unwrap() as f64 / 1e9;
        assert!((by_stat - by_clock).abs() < 0.1, "{by_stat} {by_clock}");
        // One above the highest id that Linux gives out (PID_MAX_LIMIT).
        assert_eq!(cpu_clock_nanos(1 << 22), None);
    }

    proptest::proptest! {
        /// A parent whose children come, work and end in any order, each waited for or still there: the sum of all steps
        /// is exactly what was used.
        #[test]
        fn nothing_is_lost_or_counted_twice(steps in proptest::collection::vec((0usize..4, 1u64..1000, 0usize..5), 1..60)) {
            let mut parent = seen(0, 0, 0);
            let mut children: BTreeMap<i32, u64> = BTreeMap::new();
            let (mut used, mut counted, mut next) = (0u64, 0u64, 10);
            let mut before: Vec<(i32, Seen)> = vec![(1, parent)];
            for (what, amount, which) in steps {
                match what {
                    0 => { parent.both.own += amount; used += amount; }
                    1 => { children.insert(next, amount); next += 1; used += amount; }
                    2 => if let Some(own) = children.values_mut().nth(which) { *own += amount; used += amount; },
                    _ => if let Some(pid) = children.keys().nth(which).copied() {
                        // It works a little more, ends, and is waited for.
                        let own = children.remove(&pid).unwrap() + amount;
                        used += amount;
                        parent.both.children += own;
                    },
                }
                if amount % 3 == 0 {
                    let mut now = vec![(1, parent)];
                    now.extend(children.iter().map(|(pid, own)| (*pid, seen(1, *own, 0))));
                    counted += both(&before, &now);
                    before = now;
                }
            }
            let mut now = vec![(1, parent)];
            now.extend(children.iter().map(|(pid, own)| (*pid, seen(1, *own, 0))));
            counted += both(&before, &now);
            proptest::prop_assert_eq!(counted, used);
        }
    }
}
