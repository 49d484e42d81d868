//! How full the backend is, against programs whose load is known (`tests/peers/load.py`). Black box: the programs are
//! processes, the sidecar is one, and the kernel stands between them.

mod common;

use std::time::Duration;

use common::program::Program;
use common::sidecar::free_port;
use common::{PATIENCE, Page, Sidecar, wait_for, wait_until};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// A sidecar in front of a program, with these lines of configuration.
#[track_caller]
fn before(program: &Program, yaml: &str) -> Sidecar {
    Sidecar::upstream(format!("http://127.0.0.1:{}", program.port())).yaml(yaml).start()
}

fn ratio(page: &Page, resource: &str) -> Option<f64> {
    page.get("golden_saturation_ratio", &[("resource", resource)])
}

fn cpu_seconds(page: &Page) -> f64 {
    page.sum("golden_backend_cpu_seconds_total", &[])
}

/// The first page of a new sampling round, once something has been sampled.
#[track_caller]
fn fresh(sidecar: &Sidecar, family: &str) -> Page {
    let ticks = sidecar.page_when(family, |page| page.has(family, &[])).value("golden_sampler_ticks_total", &[]);
    sidecar.page_when("another round", |page| page.value("golden_sampler_ticks_total", &[]) > ticks)
}

/// CPU time per second over `rounds` rounds of one second: as the page tells, and as `kernel` tells.
#[track_caller]
fn cores_over(sidecar: &Sidecar, rounds: u32, kernel: impl Fn() -> f64) -> (f64, f64) {
    let before = fresh(sidecar, "golden_backend_cpu_seconds_total");
    let (begun, kernel_before) = (Instant::now(), kernel());
    let until = before.value("golden_sampler_ticks_total", &[]) + f64::from(rounds);
    let mut after = before.clone();
    let done = wait_for(SECOND * rounds + PATIENCE, || {
        after = sidecar.scrape();
        assert!(cpu_seconds(&after) >= cpu_seconds(&before), "CPU time went back");
        after.value("golden_sampler_ticks_total", &[]) >= until
    });
    assert!(done, "{rounds} rounds did not pass");
    let seconds = begun.elapsed().as_secs_f64();
    ((cpu_seconds(&after) - cpu_seconds(&before)) / seconds, (kernel() - kernel_before) / seconds)
}

/// CPU time of a process, and with `children` of those that it has waited for, as the kernel tells.
fn kernel_cpu(pid: u32, children: bool) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a command") + 2..].split(' ').collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().expect("a number");
    let waited = if children { ticks(16) + ticks(17) } else { 0.0 };
    // Linux tells user space in hundredths, whatever it counts in.
    (ticks(14) + ticks(15) + waited) / 100.0
}

// --- known loads ---

#[test]
fn known_load_half_a_core_reads_as_half_a_core() {
    let program = Program::start("burn", &["0.5"]);
    let sidecar = before(&program, "");
    let (told, kernel) = cores_over(&sidecar, 10, || kernel_cpu(program.pid(), false));
    assert!((told - kernel).abs() <= 0.03, "told {told}, the kernel says {kernel}");
    assert!((told - 0.5).abs() <= 0.05, "told {told}, burnt 0.5");
    let page = sidecar.scrape();
    let limit = page.value("golden_backend_cpu_limit_cores", &[]);
    let ratio = ratio(&page, "cpu").expect("the host limits it");
    assert!((ratio * limit - 0.5).abs() <= 0.2, "one second: {ratio} of {limit} cores");
    let (user, system) = (
        page.value("golden_backend_cpu_seconds_total", &[("mode", "user")]),
        page.value("golden_backend_cpu_seconds_total", &[("mode", "system")]),
    );
    assert!(user > 5.0 * system, "it counts in user mode: {user} {system}");
}

#[test]
fn three_hundred_mebibytes_read_within_five_percent() {
    let program = Program::start("hold", &["300"]);
    let sidecar = before(&program, "saturation: {interval: 100ms, backend: {memory_limit: 600MiB}}");
    let page = fresh(&sidecar, "golden_backend_memory_bytes");
    let mebibytes = page.value("golden_backend_memory_bytes", &[("kind", "resident")]) / f64::from(1 << 20);
    assert!((285.0..=315.0).contains(&mebibytes), "{mebibytes} MiB");
    let bytes = |kind| page.value("golden_backend_memory_bytes", &[("kind", kind)]);
    assert!(bytes("virtual") >= bytes("resident"));
    assert_eq!(page.value("golden_backend_memory_limit_bytes", &[("source", "config")]), f64::from(600 << 20));
    let ratio = ratio(&page, "memory").expect("a limit is configured");
    assert!((ratio - 0.5).abs() <= 0.025, "{ratio}");
}

#[test]
fn two_hundred_descriptors_and_forty_threads_read_exactly() {
    let program = Program::start("files", &["200"]);
    let sidecar = before(&program, "saturation: {interval: 100ms}");
    let page = sidecar.page_when("all descriptors", |page| page.get("golden_backend_fds", &[]) == Some(200.0));
    let limit = page.value("golden_backend_fds_limit", &[("source", "rlimit")]);
    assert_eq!(ratio(&page, "fds"), Some(200.0 / limit));
    assert_eq!(page.value("golden_backend_processes", &[]), 1.0);

    let program = Program::start("threads", &["40"]);
    let sidecar = before(&program, "saturation: {interval: 100ms}");
    let page = fresh(&sidecar, "golden_backend_threads");
    assert_eq!(page.value("golden_backend_threads", &[]), 40.0);
    assert!(ratio(&page, "threads").is_some_and(|ratio| ratio > 0.0 && ratio < 0.5));
}

#[test]
fn five_of_eight_wait_in_the_accept_queue() {
    let program = Program::start("deaf", &["8", "5"]);
    let sidecar = before(&program, "saturation: {interval: 100ms}");
    let port = program.port().to_string();
    let port = [("port", port.as_str())];
    // Several rounds and probes of the backend later it is still five: none of ours waits there.
    let until = Instant::now() + 3 * SECOND;
    wait_until("three seconds of it", || {
        let page = fresh(&sidecar, "golden_backend_accept_queue_limit");
        assert_eq!(page.value("golden_backend_accept_queue_connections", &port), 5.0);
        assert_eq!(page.value("golden_backend_accept_queue_limit", &port), 8.0);
        assert_eq!(ratio(&page, "accept_queue"), Some(5.0 / 8.0));
        assert_eq!(page.sum("golden_saturation_bottleneck", &[]), 1.0, "one is the fullest");
        let fullest = page.matching("golden_saturation_bottleneck", &[]).find(|sample| sample.value == 1.0);
        let highest = page.matching("golden_saturation_ratio", &[]).max_by(|a, b| a.value.total_cmp(&b.value));
        assert_eq!(fullest.map(|sample| &sample.labels), highest.map(|sample| &sample.labels));
        Instant::now() > until
    });
}

#[test]
fn seven_of_ten_pooled_connections_are_in_use() {
    let remote = Program::start("remote", &[]);
    let program = Program::start("pool", &[&remote.port().to_string(), "10", "7"]);
    let yaml = format!(
        "saturation: {{interval: 100ms, pools: [{{name: db, port: {}, limit: 10}}, {{name: far, address: '192.0.2.1:{0}'}}]}}",
        remote.port()
    );
    let sidecar = before(&program, &yaml);
    let state = |page: &Page, pool: &str, state: &str| {
        page.get("golden_pool_connections", &[("pool", pool), ("state", state), ("source", "inferred")])
    };
    let page = sidecar.page_when("the pool", |page| state(page, "db", "in_use") == Some(7.0));
    assert_eq!(state(&page, "db", "idle"), Some(3.0));
    assert_eq!(page.value("golden_pool_limit", &[("pool", "db")]), 10.0);
    assert_eq!(ratio(&page, "pool:db"), Some(0.7));
    assert_eq!((state(&page, "far", "in_use"), state(&page, "far", "idle")), (Some(0.0), Some(0.0)), "another address");
    assert_eq!(ratio(&page, "pool:far"), None, "no limit, no ratio");
}

#[test]
fn known_load_a_burst_of_two_seconds_is_seen_by_a_scrape_a_minute_later() {
    let program = Program::start("burst", &["2"]);
    let sidecar = before(&program, "saturation: {backend: {cpu_limit: 1}}");
    let cpu = [("resource", "cpu")];
    let page = fresh(&sidecar, "golden_backend_cpu_seconds_total");
    let full = |page: &Page| {
        let count = |edge: &str| page.bucket("golden_saturation_sampled_ratio", edge, &cpu);
        count("+Inf") - count("0.8")
    };
    let full_before = full(&page);
    let begun = Instant::now();
    program.signal(libc::SIGUSR1);
    program.wait_for_line("done");
    // A scrape interval of a minute: nobody looks until then.
    assert!(wait_for(PATIENCE * 7, || begun.elapsed() >= 60 * SECOND));
    let page = sidecar.scrape();
    assert!(ratio(&page, "cpu").expect("a limit") < 0.2, "the burst is long over");
    let peak = page.value("golden_saturation_peak_ratio", &[("resource", "cpu"), ("window", "1m")]);
    assert!(peak > 0.8, "{peak}");
    let seconds = full(&page) - full_before;
    assert!((1.0..=3.0).contains(&seconds), "{seconds} samples above 80 %");
    assert!(page.count("golden_saturation_sampled_ratio", &cpu) >= 58.0, "a sample a second");
}

#[test]
fn known_load_of_all_workers_counts_together() {
    let program = Program::start("prefork", &["4", "0.1"]);
    let sidecar = before(&program, "");
    let page = sidecar.page_when("the whole tree", |page| page.get("golden_backend_processes", &[]) == Some(5.0));
    assert!(page.value("golden_backend_threads", &[]) >= 5.0);
    let (told, _) = cores_over(&sidecar, 5, || 0.0);
    assert!((told - 0.4).abs() <= 0.06, "four workers at a tenth of a core: {told}");
}

#[test]
fn known_load_of_children_that_have_ended_is_not_lost() {
    let program = Program::start("shortlived", &["0.4"]);
    let sidecar = before(&program, "");
    let (told, kernel) = cores_over(&sidecar, 10, || kernel_cpu(program.pid(), true));
    assert!((told - kernel).abs() <= 0.03, "told {told}, the kernel says {kernel}");
    assert!(told > 0.3, "{told}");
}

#[test]
fn what_grows_has_a_time_to_its_limit() {
    let program = Program::start("grow", &["4"]);
    let sidecar = before(&program, "saturation: {backend: {memory_limit: 1GiB}}");
    let page = fresh(&sidecar, "golden_backend_memory_bytes");
    assert!(!page.has("golden_saturation_time_to_limit_seconds", &[]), "too early to tell");
    let memory = [("resource", "memory")];
    let mut page = Page::default();
    let told = wait_for(PATIENCE * 6, || {
        page = sidecar.scrape();
        page.has("golden_saturation_time_to_limit_seconds", &memory)
    });
    assert!(told, "no forecast");
    let left = page.value("golden_saturation_time_to_limit_seconds", &memory);
    let resident = page.value("golden_backend_memory_bytes", &[("kind", "resident")]);
    let expected = (f64::from(1 << 30) - resident) / f64::from(4 << 20);
    assert!((left - expected).abs() <= 0.15 * expected, "told {left} s, expected {expected} s");
    let others = ["fds", "threads"]
        .map(|resource| page.has("golden_saturation_time_to_limit_seconds", &[("resource", resource)]));
    assert_eq!(others, [false, false], "what does not grow has none");
}

#[test]
fn samples_come_ten_times_a_second_where_asked_for() {
    let program = Program::start("burn", &["0.1"]);
    let sidecar = before(&program, "saturation: {interval: 100ms}");
    let page = fresh(&sidecar, "golden_backend_cpu_seconds_total");
    let ticks = page.value("golden_sampler_ticks_total", &[]);
    let begun = Instant::now();
    let page = sidecar.page_when("fifty rounds", |page| page.value("golden_sampler_ticks_total", &[]) >= ticks + 50.0);
    let seconds = begun.elapsed().as_secs_f64();
    assert!((4.5..7.0).contains(&seconds), "{seconds} s");
    assert!(page.count("golden_saturation_sampled_ratio", &[("resource", "cpu")]) >= 49.0);
}

// --- finding it ---

#[test]
fn a_backend_that_comes_back_as_another_process_is_found_within_two_seconds_and_counted() {
    let port = free_port().to_string();
    let program = Program::start("burn", &["0.01", &port]);
    let sidecar = before(&program, "");
    let page = fresh(&sidecar, "golden_backend_start_time_seconds");
    assert_eq!(page.sum("golden_backend_restarts_total", &[]), 0.0);
    let (cpu, old) = (cpu_seconds(&page), page.value("golden_backend_start_time_seconds", &[]));
    program.end();
    let page = sidecar.page_when("nobody is there", |page| !page.has("golden_backend_fds", &[]));
    assert!(ratio(&page, "fds").is_none() && ratio(&page, "cpu").is_none(), "no old number is left standing");
    assert_eq!(page.value("golden_sampler_source_available", &[("source", "process")]), 0.0);
    assert_eq!(page.sum("golden_backend_restarts_total", &[]), 0.0, "not yet back");
    assert!(cpu_seconds(&page) >= cpu, "what was counted stays");

    let _program = Program::start("burn", &["0.01", &port]);
    let begun = Instant::now();
    let page = sidecar.page_when("it is found again", |page| page.has("golden_backend_fds", &[]));
    assert!(begun.elapsed() <= 2 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(page.value("golden_backend_restarts_total", &[("reason", "replaced")]), 1.0);
    assert_eq!(page.sum("golden_backend_restarts_total", &[]), 1.0);
    assert!(page.value("golden_backend_start_time_seconds", &[]) >= old);
    assert!(cpu_seconds(&page) >= cpu);
}

#[test]
fn a_backend_that_was_named_by_its_pid_or_pid_file_is_watched_wherever_it_listens() {
    let program = Program::start("files", &["50"]);
    let (pid, elsewhere) = (program.pid().to_string(), format!("http://127.0.0.1:{}", free_port()));
    let sidecar =
        Sidecar::upstream(&elsewhere).flag("--backend-pid", &pid).yaml("saturation: {interval: 100ms}").start();
    sidecar.page_when("its descriptors", |page| page.get("golden_backend_fds", &[]) == Some(50.0));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{pid}\n")).unwrap();
    let sidecar = Sidecar::upstream(&elsewhere)
        .flag("--backend-pid-file", file.path().display())
        .yaml("saturation: {interval: 100ms}")
        .start();
    sidecar.page_when("its descriptors", |page| page.get("golden_backend_fds", &[]) == Some(50.0));
    let other = Program::start("files", &["60"]);
    std::fs::write(file.path(), other.pid().to_string()).unwrap();
    let page = sidecar.page_when("another process", |page| page.get("golden_backend_fds", &[]) == Some(60.0));
    assert_eq!(page.value("golden_backend_restarts_total", &[("reason", "replaced")]), 1.0);
}

#[test]
fn a_reload_points_the_sampler_to_another_backend() {
    let (one, other) = (Program::start("files", &["50"]), Program::start("files", &["60"]));
    let yaml = |program: &Program| format!("saturation: {{interval: 100ms, backend: {{pid: {}}}}}", program.pid());
    let sidecar = before(&one, &yaml(&one));
    sidecar.page_when("the first", |page| page.get("golden_backend_fds", &[]) == Some(50.0));
    let cpu = cpu_seconds(&sidecar.scrape());
    sidecar.rewrite(&yaml(&other));
    sidecar.signal(libc::SIGHUP);
    let page = sidecar.page_when("the second", |page| page.get("golden_backend_fds", &[]) == Some(60.0));
    assert_eq!(page.sum("golden_backend_restarts_total", &[]), 0.0, "a change of mind is no restart");
    // And back, and forth: what they had used before is not counted again and again.
    for program in [&one, &other, &one, &other] {
        sidecar.rewrite(&yaml(program));
        sidecar.signal(libc::SIGHUP);
        let fds = if program.pid() == one.pid() { 50.0 } else { 60.0 };
        sidecar.page_when("the other one", |page| page.get("golden_backend_fds", &[]) == Some(fds));
    }
    let after = cpu_seconds(&sidecar.scrape());
    assert!(after >= cpu && after - cpu < 0.05, "both are idle: {cpu} {after}");
}

// --- without rights, in numbers ---

#[test]
fn nobody_sees_what_a_name_leads_to_and_says_what_it_cannot_see() {
    let program = Program::start("files", &["50"]);
    let upstream = format!("http://127.0.0.1:{}", program.port());
    let yaml = "saturation: {interval: 100ms}";
    // SAFETY: the call has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    let available = |page: &Page, source: &str| page.value("golden_sampler_source_available", &[("source", source)]);
    if root {
        let sidecar = Sidecar::upstream(&upstream).yaml(yaml).by_nobody().start();
        let page = fresh(&sidecar, "golden_backend_accept_queue_limit");
        assert_eq!(available(&page, "backend"), 0.0, "whose the socket is, is hidden");
        assert_eq!(
            page.value("golden_sampler_failures_total", &[("source", "backend"), ("reason", "permission")]),
            1.0
        );
        for source in ["listeners", "connections", "netstat", "host"] {
            assert_eq!(available(&page, source), 1.0, "{source}");
        }
        assert!(!page.has("golden_backend_fds", &[]), "what cannot be seen is absent, not 0");
    }
    let sidecar = Sidecar::upstream(&upstream).yaml(yaml).flag("--backend-pid", program.pid()).by_nobody().start();
    let page = sidecar.page_when("its descriptors", |page| page.get("golden_backend_fds", &[]) == Some(50.0));
    for source in ["backend", "process", "runqueue", "listeners", "host"] {
        assert_eq!(available(&page, source), 1.0, "{source}");
    }
    assert!(page.value("golden_backend_memory_bytes", &[("kind", "resident")]) > 1e6);
    // It has used hardly any, perhaps less than the kernel counts in.
    assert!(page.has("golden_backend_cpu_seconds_total", &[("mode", "user")]));
}

#[test]
fn where_processes_are_hidden_it_says_so_and_reads_what_is_left() {
    // SAFETY: the call has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("hiding processes takes root");
        return;
    }
    let program = Program::start("files", &["50"]);
    let sidecar = Sidecar::upstream(format!("http://127.0.0.1:{}", program.port()))
        .yaml("saturation: {interval: 100ms}")
        .by_nobody_with_hidden_processes()
        .start();
    let page = fresh(&sidecar, "golden_backend_accept_queue_limit");
    assert_eq!(page.value("golden_sampler_failures_total", &[("source", "backend"), ("reason", "permission")]), 1.0);
    assert_eq!(page.value("golden_sampler_source_available", &[("source", "process")]), 0.0);
    assert!(!page.has("golden_backend_fds", &[]));
    assert!(page.has("golden_saturation_ratio", &[("resource", "host_memory")]));
}

/// A cgroup of version 1 or 2; removed when dropped.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    /// With a limit, as version 1 and as version 2 spell it. `None`: this process may make none, or there is no such
    /// controller.
    fn with(controller: &str, v1: &[(&str, &str)], v2: &[(&str, &str)]) -> Option<Cgroup> {
        let name = format!("golden-test-{}-{controller}", std::process::id());
        let root = std::path::Path::new("/sys/fs/cgroup");
        for (folder, files) in [(root.join(controller).join(&name), v1), (root.join(&name), v2)] {
            if std::fs::create_dir(&folder).is_ok() {
                let made = Cgroup(folder);
                return files
                    .iter()
                    .all(|(file, value)| std::fs::write(made.0.join(file), value).is_ok())
                    .then_some(made);
            }
        }
        None
    }

    fn procs(&self) -> std::path::PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Once its last process has ended.
        let _ = wait_for(PATIENCE, || std::fs::remove_dir(&self.0).is_ok());
    }
}

/// Half a core.
fn quota() -> Option<Cgroup> {
    let v1 = [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")];
    Cgroup::with("cpu", &v1, &[("cpu.max", "50000 100000")])
}

/// Where no cgroup can be made, the sidecar either reads the one that there is, or says why not.
fn without_cgroups(source: &str) {
    let program = Program::start("burn", &["0.1"]);
    let page = fresh(&before(&program, ""), "golden_backend_cpu_seconds_total");
    let readable = page.value("golden_sampler_source_available", &[("source", source)]) == 1.0;
    let failed = page.sum("golden_sampler_failures_total", &[("source", source)]) > 0.0;
    assert!(readable || failed, "it is read, or it is said why not");
}

#[test]
fn a_cgroup_that_comes_after_the_sidecar_is_found_and_whoever_joins_it_counts() {
    let (one, other) = (Program::start("files", &["50"]), Program::start("files", &["60"]));
    let name = format!("/golden-test-{}-cpu", std::process::id());
    let sidecar = Sidecar::upstream(format!("http://127.0.0.1:{}", free_port()))
        .flag("--backend-cgroup", &name)
        .yaml("saturation: {interval: 100ms}")
        .start();
    sidecar.page_when("a first sample", |page| page.has("golden_sampler_ticks_total", &[]));
    let Some(cgroup) = quota() else { return without_cgroups("cgroup_cpu") };
    std::fs::write(cgroup.procs(), one.pid().to_string()).expect("move it there");
    let page = sidecar.page_when("the first process", |page| page.get("golden_backend_fds", &[]) == Some(50.0));
    assert_eq!(page.get("golden_backend_cpu_limit_cores", &[("source", "cgroup")]), Some(0.5));
    std::fs::write(cgroup.procs(), other.pid().to_string()).expect("move it there");
    sidecar.page_when("both processes", |page| page.get("golden_backend_fds", &[]) == Some(110.0));
    one.end();
    let page = sidecar.page_when("the second one", |page| page.get("golden_backend_fds", &[]) == Some(60.0));
    assert_eq!(page.sum("golden_backend_restarts_total", &[]), 0.0, "one of several that share it is no restart");
    other.end();
    sidecar.page_when("nobody", |page| !page.has("golden_backend_fds", &[]));
    drop(cgroup);
}

#[test]
fn a_command_that_the_kernel_kills_for_want_of_memory_is_counted_as_that() {
    let v1 = [("memory.limit_in_bytes", "67108864")];
    let Some(cgroup) = Cgroup::with("memory", &v1, &[("memory.max", "67108864"), ("memory.swap.max", "0")]) else {
        return without_cgroups("cgroup_memory");
    };
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let hold = common::program::role("hold", &["300"]).join(" ");
    let script = format!(
        "echo $$ > {}; while [ ! -e {go} ]; do sleep 0.1; done; rm {go}; exec {hold}",
        cgroup.procs().display(),
        go = go.display()
    );
    let sidecar = Sidecar::upstream("http://127.0.0.1:1")
        .flag("--restart", "on-failure")
        .yaml("saturation: {interval: 100ms}")
        .command(&["/bin/sh", "-c", &script])
        .start();
    let page = sidecar.page_when("its limit", |page| {
        page.get("golden_backend_memory_limit_bytes", &[("source", "cgroup")]) == Some(f64::from(64 << 20))
    });
    assert!(ratio(&page, "memory").is_some_and(|ratio| ratio < 0.5));
    std::fs::write(&go, "").unwrap();
    let page = sidecar.page_when("a restart", |page| page.sum("golden_backend_restarts_total", &[]) == 1.0);
    assert_eq!(page.value("golden_backend_restarts_total", &[("reason", "oom")]), 1.0);
    let page = sidecar.page_when("the kernel's count", |page| {
        page.get("golden_backend_memory_events_total", &[("event", "oom_kill")]).is_some_and(|kills| kills >= 1.0)
    });
    assert!(page.value("golden_saturation_peak_ratio", &[("resource", "memory"), ("window", "1m")]) > 0.0);
    drop(sidecar);
    drop(cgroup);
}

#[test]
fn a_backend_that_has_ended_and_is_not_yet_waited_for_is_gone() {
    let port = free_port().to_string();
    let program = Program::start("burn", &["0.01", &port]);
    let sidecar = before(&program, "");
    fresh(&sidecar, "golden_backend_fds");
    // This process does not ask how it ended: a zombie stays.
    program.signal(libc::SIGKILL);
    let page = sidecar.page_when("nobody is there", |page| !page.has("golden_backend_fds", &[]));
    assert_eq!(page.value("golden_sampler_source_available", &[("source", "process")]), 0.0);
    let _next = Program::start("burn", &["0.01", &port]);
    let begun = Instant::now();
    let page = sidecar.page_when("the next one", |page| page.has("golden_backend_fds", &[]));
    assert!(begun.elapsed() <= 2 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(page.value("golden_backend_restarts_total", &[("reason", "replaced")]), 1.0);
    drop(program);
}

#[test]
fn two_thousand_threads_are_read_in_slices_and_nothing_is_late() {
    let program = Program::start("threads", &["2000"]);
    let sidecar = before(&program, "saturation: {interval: 100ms}");
    let page = sidecar.page_when("all of them", |page| page.get("golden_backend_threads", &[]) == Some(2000.0));
    let ticks = page.value("golden_sampler_ticks_total", &[]);
    let page = sidecar.page_when("twenty rounds", |page| page.value("golden_sampler_ticks_total", &[]) >= ticks + 20.0);
    assert!(page.has("golden_backend_runqueue_wait_seconds_total", &[]));
    assert_eq!(page.value("golden_sampler_source_available", &[("source", "runqueue")]), 1.0);
    // A busy machine may take a tenth of a second from anybody, twice.
    let missed = page.value("golden_sampler_missed_ticks_total", &[]);
    assert!(missed <= 2.0, "{missed}");
    let share = page.value("golden_sampler_read_seconds_total", &[("source", "runqueue")]);
    assert!(share < 1.0, "{share} s of reading");
}

#[test]
fn known_load_a_cpu_quota_is_the_limit_and_its_throttling_is_counted() {
    let Some(quota) = quota() else { return without_cgroups("cgroup_cpu") };
    let program = Program::start("burn", &["1.0"]);
    std::fs::write(quota.procs(), program.pid().to_string()).expect("move it there");
    let sidecar = before(&program, "");
    let page = sidecar.page_when("the quota", |page| {
        page.get("golden_backend_cpu_limit_cores", &[("source", "cgroup")]) == Some(0.5)
    });
    let throttled = |page: &Page| page.value("golden_backend_cpu_throttled_periods_total", &[]);
    let before = throttled(&page);
    let page = sidecar.page_when("two seconds of being held back", |page| throttled(page) >= before + 15.0);
    let full = ratio(&page, "cpu").expect("a limit");
    assert!((0.85..=1.15).contains(&full), "{full}");
    assert!(page.value("golden_backend_cpu_throttled_seconds_total", &[]) > 0.5);
    assert!(page.value("golden_backend_cpu_periods_total", &[]) >= throttled(&page));
    drop(program);
    drop(quota);
}

#[test]
fn twenty_thousand_connections_do_not_delay_the_sampling() {
    let program = Program::start("crowd", &["8", "20000"]);
    let port = program.port().to_string();
    let _clients = Program::start("clients", &[&port, "20000"]);
    program.wait_for_line("full");
    let sidecar = before(&program, "");
    let page = sidecar.page_when("all processes", |page| page.get("golden_backend_processes", &[]) == Some(9.0));
    let ticks = page.value("golden_sampler_ticks_total", &[]);
    let page = sidecar.page_when("five rounds", |page| page.value("golden_sampler_ticks_total", &[]) >= ticks + 5.0);
    assert_eq!(page.value("golden_sampler_missed_ticks_total", &[]), 0.0);
    assert_eq!(page.value("golden_sampler_source_available", &[("source", "connections")]), 1.0);
    assert!(page.value("golden_backend_fds", &[]) > 20_000.0);
    assert_eq!(page.value("golden_backend_unread_bytes", &[("stat", "sum")]), 0.0);
}
