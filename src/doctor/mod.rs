//! `golden-sidecar doctor`: what can be seen of the backend from here, what cannot, and how to enable it. Pure: it is given
//! what the sampler saw in its first rounds and makes the text.

use std::fmt::Write as _;

use crate::config::BackendHints;
use crate::labels::{Source, Trouble};
use crate::saturation::{Examination, Reading};
use crate::signals::families::{self as f, Family};

/// Columns of a terminal that are used: most are wider, and a line of this length is read well.
const COLUMNS: usize = 110;
/// Columns before the text of a row.
const INDENT: usize = 27;
/// Processes that are named; more would hide the table.
const NAMED_MAX: usize = 6;

/// What a source is good for, and what makes it readable.
struct About {
    gives: &'static str,
    enable: &'static str,
}

const NETWORK: &str = "share the backend's network namespace (a pod does; Compose: network_mode: service:NAME)";
const LIMITS: &str = "tell the limits: saturation.backend.cpu_limit and .memory_limit, in Kubernetes from the Downward API \
                      (resourceFieldRef limits.cpu and limits.memory); or start the backend as a command; or share its \
                      process namespace and run as its user";

fn about(source: Source) -> About {
    let (gives, enable) = match source {
        Source::Backend => (
            "which processes the backend is",
            "start it as a command (golden-sidecar … -- COMMAND); or share its process namespace (Kubernetes: \
             shareProcessNamespace: true; Compose: pid: service:NAME) and run as its user; or name it: --backend-pid, \
             --backend-pid-file, --backend-cgroup",
        ),
        Source::Process => ("its CPU time, memory, descriptors and threads", "make the backend known, as above"),
        Source::Descriptors => (
            "which sockets are the backend's",
            "run as the backend's user (Kubernetes: the same runAsUser); until then its sockets are told by their port and user",
        ),
        Source::Runqueue => (
            "how long its threads waited for a CPU",
            "make the backend known, as above; the kernel needs CONFIG_SCHED_INFO",
        ),
        Source::CgroupCpu => ("its CPU quota and how often that held it back", LIMITS),
        Source::CgroupMemory => ("its memory limit, working set and out-of-memory kills", LIMITS),
        Source::CgroupPids => ("the most threads that its container may have", LIMITS),
        Source::BackendPressure => (
            "how long its tasks waited for CPU, memory and disk",
            "cgroup version 2, psi=1 on the kernel's command line, and a backend whose cgroup can be seen",
        ),
        Source::HostPressure => (
            "how long tasks of the host waited for CPU, memory and disk",
            "psi=1 on the kernel's command line, and a /proc/pressure that the container does not hide",
        ),
        Source::Listeners => ("connections that wait for its accept(), and how many may", NETWORK),
        Source::Connections => ("bytes that it has not read, and pools that can be inferred", NETWORK),
        Source::Netstat => ("connections that found an accept queue full", NETWORK),
        Source::Host => ("CPU and memory of the whole host", "a /proc that the container does not hide"),
    };
    About { gives, enable }
}

/// The report. `upstream`: as it was given, or what was looked at instead.
#[must_use]
pub fn report(upstream: &str, upstream_given: bool, hints: &BackendHints, seen: &Examination) -> String {
    let mut out = String::new();
    let not_given = if upstream_given { "" } else { "  (not given; --upstream URL looks at another one)" };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "upstream   {upstream}{not_given}");
    let _ = writeln!(out, "backend    {}", backend(hints, seen));
    let _ = writeln!(out, "limits     {}", limits(seen));
    outgoing(&mut out, seen);
    let _ = writeln!(out, "\n{:<18} {:<7} what it tells, or why not and what to do", "source", "seen");
    for source in Source::ALL {
        let About { gives, enable } = about(*source);
        if let Some(reading) = seen.readings.iter().find(|reading| reading.source == source.as_str()) {
            row(&mut out, reading, gives, enable);
        }
    }
    for reading in seen.readings.iter().filter(|reading| reading.source.starts_with("pool:")) {
        row(&mut out, reading, "a pool as the backend reports it", "look at the url of this pool by hand, with curl");
    }
    let missing = seen.readings.iter().filter(|reading| reading.fault.is_some()).count();
    let _ = match missing {
        0 => writeln!(out, "\neverything can be seen from here"),
        1 => writeln!(out, "\n1 source cannot be seen from here; its metrics are absent, all others are right"),
        _ => writeln!(
            out,
            "\n{missing} sources cannot be seen from here; their metrics are absent, all others are right"
        ),
    };
    out
}

fn row(out: &mut String, reading: &Reading, gives: &str, enable: &str) {
    let Reading { source, fault } = reading;
    let seen = if fault.is_none() { "yes" } else { "no" };
    let _ = write!(out, "{source:<18} {seen:<7} ");
    paragraph(out, gives);
    if let Some((trouble, detail)) = fault {
        let _ = write!(out, "{:INDENT$}", "");
        paragraph(out, &format!("why: {detail} ({})", trouble.as_str()));
        // What has its cause in another source is mended there.
        if *trouble != Trouble::Unknown {
            let _ = write!(out, "{:INDENT$}", "");
            paragraph(out, &format!("try: {enable}"));
        }
    }
}

/// Wraps a text; what follows the first line stands below its beginning.
fn paragraph(out: &mut String, text: &str) {
    let mut column = INDENT;
    for (index, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if index > 0 && column + 1 + width > COLUMNS {
            let _ = write!(out, "\n{:INDENT$}", "");
            column = INDENT;
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
    use crate::signals::sampled::Point;

    #[test]
    fn each_source_has_its_row_and_what_is_missing_has_a_reason_and_a_remedy() {
        let reading = |source: Source, fault: Option<(Trouble, &str)>| Reading {
            source: source.as_str().into(),
            fault: fault.map(|(trouble, detail)| (trouble, detail.to_owned())),
        };
        let seen = Examination {
            outgoing: vec![("10.0.0.5:5432".parse().unwrap(), [7, 3]), ("10.0.0.6:6379".parse().unwrap(), [0, 1])],
            processes: vec![(42, "gunicorn".to_owned()), (43, "gunicorn".to_owned())],
            readings: vec![
                reading(Source::Backend, None),
                reading(Source::CgroupCpu, Some((Trouble::Permission, "cpu.max: permission denied"))),
                reading(Source::CgroupPids, Some((Trouble::Unknown, "it is not known which processes the backend is"))),
                Reading { source: "pool:db".into(), fault: Some((Trouble::Unreachable, "nobody answers".to_owned())) },
            ],
            points: vec![Point { family: &f::BACKEND_CPU_LIMIT, labels: vec!["config".into()], value: 1.5 }],
        };
        let text = report("http://127.0.0.1:8080", false, &BackendHints::default(), &seen);
        for line in [
            "upstream   http://127.0.0.1:8080  (not given",
            "2 processes (42 gunicorn, 43 gunicorn), found by the socket that listens there",
            "limits     cpu 1.5 cores (config)",
            "leads to   10.0.0.5:5432: 7 connections in use, 3 idle",
            "backend            yes     which processes the backend is",
            "why: cpu.max: permission denied (permission)",
            "try: tell the limits:",
            "pool:db            no      a pool as the backend reports it",
            "3 sources cannot be seen from here",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert_eq!(text.matches("try:").count(), 2, "what has its cause elsewhere has no remedy of its own\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
    }
}
