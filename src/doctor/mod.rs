//! `golden-sidecar doctor`: what can be seen of the backend from here, what cannot, and how to enable it. Pure: it is given
//! what the sampler saw in its first rounds and makes the text.

use std::fmt::Write as _;

use crate::config::BackendHints;
use crate::labels::{PoolSource, PoolState, Source, Trouble};
use crate::saturation::Examination;
use crate::signals::families::{self as f, Family};

/// Columns of a terminal that are used: most are wider, and a line of this length is read well.
const COLUMNS: usize = 110;
/// Columns before the text of a row.
const INDENT: usize = 27;
/// Columns before the text of the first lines.
const HEADING: usize = 11;
/// Processes that are named; more would hide the table.
const NAMED_MAX: usize = 6;

/// What a source tells.
fn gives(source: Source) -> &'static str {
    match source {
        Source::Backend => "which processes the backend is",
        Source::Process => "its CPU time, memory, threads and number of descriptors",
        Source::Descriptors => "which sockets are open in its processes",
        Source::Runqueue => "how long its threads waited for a CPU",
        Source::CgroupCpu => "its CPU quota and how often that held it back",
        Source::CgroupMemory => "its memory limit, working set and out-of-memory kills",
        Source::CgroupPids => "the most threads that its container may have",
        Source::BackendPressure => "how long its tasks waited for CPU, memory and disk",
        Source::HostPressure => "how long tasks of the host waited for CPU, memory and disk",
        Source::Listeners => "connections that wait for its accept(), and how many may",
        Source::Connections => "bytes that it has not read, and pools that can be inferred",
        Source::Netstat => "connections that found an accept queue full, of all listeners in this network namespace",
        Source::Host => "CPU and memory of the whole host",
    }
}

/// What helps, beside what the reason already says. Nothing where nothing can be done, or nothing needs to.
fn remedy(source: Source, trouble: Trouble, hints: &BackendHints) -> Option<&'static str> {
    let told = hints.cpu_limit_cores.is_some() && hints.memory_limit_bytes.is_some();
    match (source, trouble) {
        (Source::Descriptors, Trouble::Permission) => Some(
            "run as the backend's user (Kubernetes: the same runAsUser); until then its sockets are told by port and user",
        ),
        (Source::CgroupCpu | Source::CgroupMemory, Trouble::Permission) if told => {
            Some("its limits are told, so nothing but throttling and out-of-memory kills stays unseen")
        }
        (Source::CgroupCpu | Source::CgroupMemory, Trouble::Permission) => Some(
            "tell the limits: saturation.backend.cpu_limit and .memory_limit (Kubernetes: Downward API, limits.cpu and \
             limits.memory); or run as the backend's user",
        ),
        (Source::HostPressure, Trouble::Absent) => Some("psi=1 on the kernel's command line"),
        _ => None,
    }
}

/// The report. `upstream`: as it was given, or what was looked at instead.
#[must_use]
pub fn report(upstream: &str, upstream_given: bool, hints: &BackendHints, seen: &Examination) -> String {
    let mut out = String::new();
    let not_given = if upstream_given { "" } else { "  (not given; --upstream URL looks at another one)" };
    // Writing to a String cannot fail.
    for (heading, text) in
        [("upstream", format!("{upstream}{not_given}")), ("backend", backend(hints, seen)), ("limits", limits(seen))]
    {
        let _ = write!(out, "{heading:<10} ");
        paragraph(&mut out, HEADING, &text);
    }
    outgoing(&mut out, seen);
    let _ = writeln!(out, "\n{:<18} {:<7} what it tells, or why not", "source", "seen");
    let mut last_reason = "";
    let mut waiting: Vec<&str> = Vec::new();
    for source in Source::ALL {
        let Some(reading) = seen.readings.iter().find(|reading| reading.source == source.as_str()) else { continue };
        match &reading.fault {
            // Its cause is another source, and is mended there.
            Some((Trouble::Unknown, _)) => waiting.push(source.as_str()),
            Some((trouble, detail)) => {
                let reason = if detail == last_reason { "as above" } else { detail };
                row(&mut out, &reading.source, false, gives(*source));
                aside(&mut out, &format!("why: {reason}"));
                if let Some(remedy) = remedy(*source, *trouble, hints) {
                    aside(&mut out, &format!("try: {remedy}"));
                }
                last_reason = detail;
            }
            None => row(&mut out, &reading.source, true, gives(*source)),
        }
    }
    for reading in seen.readings.iter().filter(|reading| reading.source.starts_with("pool:")) {
        row(&mut out, &reading.source, reading.fault.is_none(), "a pool as the backend reports it");
        if let Some((_, detail)) = &reading.fault {
            aside(&mut out, &format!("why: {detail}"));
        }
    }
    for (pool, text) in inferred(seen) {
        row(&mut out, &format!("pool:{pool}"), true, &text);
    }
    if !waiting.is_empty() {
        out.push('\n');
        paragraph(&mut out, 0, &format!("not seen, since they need to know the backend: {}", waiting.join(", ")));
    }
    let told = hints.cpu_limit_cores.is_some() || hints.memory_limit_bytes.is_some();
    if told && seen.processes.is_empty() {
        let _ = writeln!(out, "\nlimits are told, but what the backend uses of them cannot be seen from here");
    }
    let missing = seen.readings.iter().filter(|reading| reading.fault.is_some()).count();
    let _ = match missing {
        0 => writeln!(out, "\neverything can be seen from here"),
        _ => writeln!(out, "\n{missing} of {} sources cannot be seen; their metrics are absent", seen.readings.len()),
    };
    out
}

/// Pools that are inferred: their numbers, so that a wrong port is noticed.
fn inferred(seen: &Examination) -> Vec<(String, String)> {
    let mut pools: Vec<(String, [f64; 2])> = Vec::new();
    for point in seen.points.iter().filter(|point| std::ptr::eq(point.family, &f::POOL_CONNECTIONS)) {
        let [pool, state, source] = point.labels.as_slice() else { continue };
        if source == PoolSource::Inferred.as_str() {
            let at = pools.iter().position(|(name, _)| name == pool).unwrap_or_else(|| {
                pools.push((pool.to_string(), [0.0; 2]));
                pools.len() - 1
            });
            pools[at].1[usize::from(state != PoolState::InUse.as_str())] = point.value;
        }
    }
    let text = |[in_use, idle]: [f64; 2]| match in_use + idle {
        0.0 => "no connection of the backend leads to its port now".to_owned(),
        _ => format!("inferred: {in_use} connections in use, {idle} idle"),
    };
    pools.into_iter().map(|(name, counts)| (name, text(counts))).collect()
}

fn row(out: &mut String, source: &str, seen: bool, gives: &str) {
    let _ = write!(out, "{source:<18} {:<7} ", if seen { "yes" } else { "no" });
    paragraph(out, INDENT, gives);
}

fn aside(out: &mut String, text: &str) {
    let _ = write!(out, "{:INDENT$}", "");
    paragraph(out, INDENT, text);
}

/// Wraps a text; what follows the first line stands below its beginning.
fn paragraph(out: &mut String, indent: usize, text: &str) {
    let mut column = indent;
    for (index, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if index > 0 && column + 1 + width > COLUMNS {
            let _ = write!(out, "\n{:indent$}", "");
            column = indent;
        } else if index > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out.push('\n');
}

fn backend(hints: &BackendHints, seen: &Examination) -> String {
    let by = match hints {
        BackendHints { pid: Some(_), .. } => "named by saturation.backend.pid",
        BackendHints { pid_file: Some(_), .. } => "named by saturation.backend.pid_file",
        BackendHints { cgroup: Some(_), .. } => "in the cgroup that saturation.backend.cgroup names",
        _ => "found by the socket that listens there",
    };
    let named: Vec<String> =
        seen.processes.iter().take(NAMED_MAX).map(|(pid, command)| format!("{pid} {command}")).collect();
    match seen.processes.len() {
        0 => "not found, see below".to_owned(),
        1 => format!("process {}, {by}", named[0]),
        count => {
            let more = if count > NAMED_MAX { ", …" } else { "" };
            format!("{count} processes ({}{more}), {by}", named.join(", "))
        }
    }
}

/// Where the backend's connections lead: candidates for pools.
fn outgoing(out: &mut String, seen: &Examination) {
    for (index, (remote, [in_use, idle])) in seen.outgoing.iter().take(NAMED_MAX).enumerate() {
        let heading = if index == 0 { "leads to" } else { "" };
        let _ = writeln!(out, "{heading:<10} {remote}: {in_use} connections in use, {idle} idle");
    }
    if let Some(more) = seen.outgoing.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        let _ = writeln!(out, "{:<10} and {more} more addresses", "");
    }
}

fn limits(seen: &Examination) -> String {
    let limit = |family: &'static Family, show: &dyn Fn(f64) -> String| {
        let point = seen.points.iter().find(|point| std::ptr::eq(point.family, family))?;
        Some(format!("{} ({})", show(point.value), point.labels[0]))
    };
    let all: Vec<String> = [
        limit(&f::BACKEND_CPU_LIMIT, &|cores| format!("cpu {cores} cores")),
        limit(&f::BACKEND_MEMORY_LIMIT, &|bytes| format!("memory {}", rounded(bytes))),
        limit(&f::BACKEND_FDS_LIMIT, &|count| format!("{count} descriptors a process")),
        limit(&f::BACKEND_THREADS_LIMIT, &|count| format!("{count} threads")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if all.is_empty() { "none known".to_owned() } else { all.join(", ") }
}

/// A size as people say it.
fn rounded(bytes: f64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| bytes >= *size as f64) {
        Some((unit, size)) => format!("{:.1} {unit}", bytes / *size as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saturation::Reading;
    use crate::signals::sampled::Point;

    #[test]
    fn each_source_has_its_row_and_what_is_missing_has_a_reason_and_what_helps() {
        let reading = |source: Source, fault: Option<(Trouble, &str)>| Reading {
            source: source.as_str().into(),
            fault: fault.map(|(trouble, detail)| (trouble, detail.to_owned())),
        };
        let pool = |state: PoolState, value| Point {
            family: &f::POOL_CONNECTIONS,
            labels: vec!["cache".into(), state.as_str().into(), PoolSource::Inferred.as_str().into()],
            value,
        };
        let refused = Some((Trouble::Permission, "cpu.max: permission denied"));
        let unknown = Some((Trouble::Unknown, "it is not known which processes the backend is"));
        let seen = Examination {
            outgoing: vec![("10.0.0.5:5432".parse().unwrap(), [7, 3]), ("10.0.0.6:6379".parse().unwrap(), [0, 1])],
            processes: vec![(42, "gunicorn".to_owned()), (43, "gunicorn".to_owned())],
            readings: vec![
                reading(Source::Backend, None),
                reading(Source::CgroupCpu, refused),
                reading(Source::CgroupMemory, refused),
                reading(Source::Process, unknown),
                reading(Source::CgroupPids, unknown),
                Reading { source: "pool:db".into(), fault: Some((Trouble::Unreachable, "nobody answers".to_owned())) },
            ],
            points: vec![
                Point { family: &f::BACKEND_CPU_LIMIT, labels: vec!["config".into()], value: 1.5 },
                pool(PoolState::InUse, 2.0),
                pool(PoolState::Idle, 5.0),
            ],
        };
        let text = report("http://127.0.0.1:8080", false, &BackendHints::default(), &seen);
        for line in [
            "upstream   http://127.0.0.1:8080  (not given",
            "2 processes (42 gunicorn, 43 gunicorn), found by the socket that listens there",
            "limits     cpu 1.5 cores (config)",
            "leads to   10.0.0.5:5432: 7 connections in use, 3 idle",
            "backend            yes     which processes the backend is",
            "why: cpu.max: permission denied\n",
            "why: as above\n",
            "try: tell the limits:",
            "pool:db            no      a pool as the backend reports it",
            "why: nobody answers",
            "pool:cache         yes     inferred: 2 connections in use, 5 idle",
            "not seen, since they need to know the backend: process, cgroup_pids",
            "5 of 6 sources cannot be seen",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        let told =
            BackendHints { cpu_limit_cores: Some(1.0), memory_limit_bytes: Some(1 << 30), ..BackendHints::default() };
        assert!(report("", true, &told, &seen).contains("its limits are told"), "{text}");
    }
}
