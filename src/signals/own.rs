//! The sidecar itself: build, reloads, drain, the process. Rarely written, so straight in the metrics crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, GaugeVec, IntCounterVec, IntGauge, Opts, Registry};

use crate::labels::{CertificateUse, Refusal, Trouble};

/// Why a document cannot be had: of a file the first two, of a URL the next three.
const DOCUMENT_TROUBLES: [Trouble; 7] = [
    Trouble::Absent,
    Trouble::Permission,
    Trouble::Unreachable,
    Trouble::Status,
    Trouble::Timeout,
    Trouble::TooLarge,
    Trouble::Malformed,
];

/// Families about this process.
#[derive(Clone, Debug)]
pub struct Own {
    reloads: IntCounterVec,
    reload_successful: IntGauge,
    reload_timestamp: Gauge,
    draining: IntGauge,
    certificate_expiry: GaugeVec,
    /// Labels that documents can give.
    pub openapi_templates: IntGauge,
    /// Attempts to read a document that failed, by reason.
    pub openapi_failures: IntCounterVec,
    /// Questions for the backend's name, by result.
    pub dns_lookups: IntCounterVec,
    /// Addresses of the backend.
    pub upstream_addresses: IntGauge,
    /// Requests that the admin port refused, by reason.
    pub admin_refused: IntCounterVec,
    /// 1 while the backend answers the readiness probe.
    pub backend_up: Gauge,
    /// How long the last readiness probe took.
    pub backend_probe_duration: Gauge,
}

impl Own {
    /// Registers the families with `registry`. `log_dropped`: the log's own count of dropped lines.
    ///
    /// # Panics
    /// When a family is registered twice, which only a defect can do.
    #[must_use]
    pub fn register(registry: &Registry, log_dropped: Option<Arc<AtomicU64>>) -> Own {
        let own = Own {
            reloads: IntCounterVec::new(
                Opts::new("golden_config_reloads_total", "Configuration reloads of this sidecar by result."),
                &["result"],
            )
            .expect(VALID),
            reload_successful: gauge_int(
                "golden_config_last_reload_successful",
                "1 when this sidecar's latest load of its configuration succeeded, 0 when an older one is still in force.",
            ),
            reload_timestamp: gauge(
                "golden_config_last_reload_success_timestamp_seconds",
                "Unix time of this sidecar's latest successful load of its configuration.",
            ),
            draining: gauge_int(
                "golden_draining",
                "1 from the signal to stop until the end of this sidecar's process, 0 before.",
            ),
            certificate_expiry: GaugeVec::new(
                Opts::new(
                    "golden_tls_certificate_expiry_timestamp_seconds",
                    "Unix time at which a TLS certificate that this sidecar shows ends, by what it is for: clients of the proxy, the backend, clients of the admin port; absent where there is none.",
                ),
                &["use"],
            )
            .expect(VALID),
            openapi_templates: gauge_int(
                "golden_openapi_templates",
                "Route templates that this sidecar's OpenAPI documents have now; only those that had a request have series.",
            ),
            openapi_failures: IntCounterVec::new(
                Opts::new(
                    "golden_openapi_failures_total",
                    "Attempts of this sidecar to read an OpenAPI document that failed, by reason.",
                ),
                &["reason"],
            )
            .expect(VALID),
            dns_lookups: IntCounterVec::new(
                Opts::new(
                    "golden_dns_lookups_total",
                    "Questions of this sidecar to the system's resolver for the upstream's name, by result.",
                ),
                &["result"],
            )
            .expect(VALID),
            upstream_addresses: gauge_int(
                "golden_upstream_addresses",
                "Addresses that this sidecar's connections to the backend are spread over.",
            ),
            admin_refused: IntCounterVec::new(
                Opts::new(
                    "golden_admin_refused_requests_total",
                    "Requests that this sidecar's admin port refused for want of credentials (401), or for a Host that it does not answer to (421, without one 400).",
                ),
                &["reason"],
            )
            .expect(VALID),
            backend_up: gauge(
                "golden_backend_up",
                "1 when the latest readiness probe of the backend succeeded, else 0; without readiness.path and readiness.grpc that means that it listens and its accept queue has room.",
            ),
            backend_probe_duration: gauge(
                "golden_backend_probe_duration_seconds",
                "How long this sidecar's latest readiness probe of the backend took.",
            ),
        };
        let build = GaugeVec::new(
            Opts::new("golden_build_info", "Always 1; the labels say what this sidecar was built from."),
            &["version", "revision", "rustc"],
        )
        .expect(VALID);
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("BUILD_REVISION"), env!("BUILD_RUSTC")]).set(1.0);
        for result in ["success", "failure"] {
            own.reloads.with_label_values(&[result]);
            own.dns_lookups.with_label_values(&[result]);
        }
        for reason in DOCUMENT_TROUBLES {
            own.openapi_failures.with_label_values(&[reason.as_str()]);
        }
        for reason in Refusal::ALL {
            own.admin_refused.with_label_values(&[reason.as_str()]);
        }
        own.loaded();
        let all: Vec<Box<dyn Collector>> = vec![
            Box::new(own.reloads.clone()),
            Box::new(own.reload_successful.clone()),
            Box::new(own.reload_timestamp.clone()),
            Box::new(own.draining.clone()),
            Box::new(own.certificate_expiry.clone()),
            Box::new(own.openapi_templates.clone()),
            Box::new(own.openapi_failures.clone()),
            Box::new(own.dns_lookups.clone()),
            Box::new(own.upstream_addresses.clone()),
            Box::new(own.admin_refused.clone()),
            Box::new(own.backend_up.clone()),
            Box::new(own.backend_probe_duration.clone()),
            Box::new(build),
            Box::new(LogDropped::new(log_dropped)),
            Box::new(Process::new()),
        ];
        for collector in all {
            registry.register(collector).expect("each family is registered once");
        }
        own
    }

    fn loaded(&self) {
        self.reload_successful.set(1);
        self.reload_timestamp.set(unix_seconds());
    }

    /// A reload took effect.
    pub fn reload_succeeded(&self) {
        self.reloads.with_label_values(&["success"]).inc();
        self.loaded();
    }

    /// A reload was refused; the old configuration stays.
    pub fn reload_failed(&self) {
        self.reloads.with_label_values(&["failure"]).inc();
        self.reload_successful.set(0);
    }

    /// When the certificate for this use ends, Unix seconds; `None`: there is none.
    pub fn certificate_ends(&self, usage: CertificateUse, at: Option<i64>) {
        match at {
            Some(at) => self.certificate_expiry.with_label_values(&[usage.as_str()]).set(at as f64),
            // Not there is as good as removed.
            None => drop(self.certificate_expiry.remove_label_values(&[usage.as_str()])),
        }
    }

    /// The signal to stop came.
    pub fn drain_started(&self) {
        self.draining.set(1);
    }
}

/// The log's own count, read when a page is made.
struct LogDropped {
    lines: Option<Arc<AtomicU64>>,
    shown: prometheus::IntCounter,
}

impl LogDropped {
    fn new(lines: Option<Arc<AtomicU64>>) -> LogDropped {
        let shown = prometheus::IntCounter::new(
            "golden_log_dropped_total",
            "Log lines of this sidecar that were dropped because the log could not be written, or not fast enough.",
        )
        .expect(VALID);
        LogDropped { lines, shown }
    }
}

impl Collector for LogDropped {
    fn desc(&self) -> Vec<&Desc> {
        self.shown.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let lines = self.lines.as_ref().map_or(0, |lines| lines.load(Relaxed));
        self.shown.inc_by(lines.saturating_sub(self.shown.get()));
        self.shown.collect()
    }
}

const VALID: &str = "the name and labels are literals of this file and valid, which every start shows";

fn gauge(name: &str, help: &str) -> Gauge {
    Gauge::new(name, help).expect(VALID)
}

fn gauge_int(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect(VALID)
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// `process_*` of this process, with the usual names of the client libraries.
/// Source: /proc/self/stat (proc(5)), /proc/self/fd, getrlimit(2). What cannot be read is absent.
/// The start is read once: the kernel tells the time of boot by its clock of the moment, and a start does not move.
struct Process {
    cpu: Counter,
    resident: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    start: Gauge,
    started_seconds: Option<f64>,
}

impl Process {
    fn new() -> Process {
        Process {
            cpu: Counter::new("process_cpu_seconds_total", "User and system CPU time of this sidecar's process.")
                .expect(VALID),
            resident: gauge("process_resident_memory_bytes", "Resident memory of this sidecar's process."),
            open_fds: gauge("process_open_fds", "File descriptors that this sidecar's process has open."),
            max_fds: gauge(
                "process_max_fds",
                "Most file descriptors this sidecar's process may open; absent if unlimited.",
            ),
            start: gauge("process_start_time_seconds", "Unix time at which this sidecar's process started."),
            started_seconds: started_seconds(),
        }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        [self.cpu.desc(), self.resident.desc(), self.open_fds.desc(), self.max_fds.desc(), self.start.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::with_capacity(5);
        if let Some(stat) = own_stat() {
            // SAFETY: sysconf has no preconditions.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            let seconds = stat.cpu_ticks as f64 / ticks_per_second();
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
            self.resident.set(stat.resident_pages as f64 * page as f64);
            families.extend(self.cpu.collect());
            families.extend(self.resident.collect());
        }
        if let Some(started) = self.started_seconds {
            self.start.set(started);
            families.extend(self.start.collect());
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            self.open_fds.set(entries.count().saturating_sub(1) as f64);
            families.extend(self.open_fds.collect());
        }
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a valid place for one rlimit.
        if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0 && limit.rlim_cur != libc::RLIM_INFINITY
        {
            self.max_fds.set(limit.rlim_cur as f64);
            families.extend(self.max_fds.collect());
        }
        families
    }
}

#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    resident_pages: u64,
}

/// Reads one line of /proc/PID/stat. The second field is the command in parentheses and may hold anything, so fields
/// are counted from the last closing parenthesis: utime is field 14, stime 15, starttime 22, rss 24.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)?, resident_pages: field(24)? })
}

fn own_stat() -> Option<Stat> {
    parse_stat(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

fn ticks_per_second() -> f64 {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}

/// Unix time at which this process began, in seconds.
fn started_seconds() -> Option<f64> {
    Some(boot_time()? + own_stat()?.start_ticks as f64 / ticks_per_second())
}

/// Unix time of boot in seconds: line `btime` of /proc/stat.
fn boot_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_of_proc_stat_is_read_from_its_own_place() {
        let text = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 1100 1300 15 16 17 18 19 20 2100 22 2300 24 25";
        assert_eq!(parse_stat(text), Some(Stat { cpu_ticks: 2400, start_ticks: 2100, resident_pages: 2300 }));
        assert_eq!(parse_stat("42 (a S 1"), None);
    }
}
