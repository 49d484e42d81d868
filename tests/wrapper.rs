//! The backend as a command of the sidecar's: `golden-sidecar … -- COMMAND`. Its status, its signals, its process tree.

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::program::{python, role};
use common::sidecar::{free_port, program};
use common::{PATIENCE, Sidecar, wait_for, wait_until};

/// A command that says in a file what happens to it, and ends as it is told.
fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

fn wrapping<T: ToString>(command: &[T]) -> Sidecar {
    Sidecar::upstream(format!("http://127.0.0.1:{}", free_port()))
        .flag("--drain-grace", "0s")
        .flag("--drain-timeout", "5s")
        .yaml("saturation: {interval: 100ms}")
        .command(command)
        .start()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn is_alive(pid: &str) -> bool {
    let stat = text(Path::new(&format!("/proc/{pid}/stat")));
    // A zombie has ended; only its parent has not asked yet.
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn the_commands_status_becomes_ours() {
    for (script, expected) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -SEGV $$", 139)] {
        let mut sidecar = wrapping(&shell(&format!("sleep 0.2; {script}")));
        let status = sidecar.wait_exit(PATIENCE);
        assert_eq!(status.code(), Some(expected), "{script}");
        assert!(sidecar.logged("command_ended"), "{script}: {:?}", sidecar.log());
    }
}

#[test]
fn a_command_that_cannot_start_gives_127_and_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.txt");
    fs::write(&plain, "no program").unwrap();
    for (command, sentence) in [
        ("/no/such/program", "command: \"/no/such/program\" is not found; expected a program"),
        (plain.to_str().unwrap(), "may not be executed; expected a program"),
    ] {
        let output = program()
            .args([
                "--upstream",
                "http://127.0.0.1:1",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--",
                command,
            ])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(127), "{said}");
        assert!(said.contains(sentence), "{said}");
    }
}

#[test]
fn sigterm_reaches_the_command_after_the_drain_and_its_answer_is_the_status() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    for (signal, name, code) in [(libc::SIGTERM, "TERM", 3), (libc::SIGINT, "INT", 4)] {
        let script = format!(
            "trap 'echo {name} >> {0}; exit {code}' {name}; echo up >> {0}; while :; do sleep 0.05; done",
            log.display()
        );
        let _ = fs::remove_file(&log);
        let mut sidecar = wrapping(&shell(&script));
        wait_until("the command runs", || text(&log) == "up\n");
        sidecar.signal(signal);
        assert_eq!(sidecar.wait_exit(PATIENCE).code(), Some(code));
        assert_eq!(text(&log), format!("up\n{name}\n"), "once");
        let lines = sidecar.log();
        let at = |event: &str| {
            lines.iter().position(|line| line.contains(event)).unwrap_or_else(|| panic!("{event}: {lines:?}"))
        };
        assert!(at("draining") < at("command_ended") && at("command_ended") < at("stopped"));
    }
}

#[test]
fn a_request_in_flight_is_answered_by_the_command_before_it_gets_the_signal() {
    let port = free_port();
    let script = format!(
        "import http.server, time\n\
         class H(http.server.BaseHTTPRequestHandler):\n\
         \x20   def do_GET(self):\n\
         \x20       time.sleep(1)\n\
         \x20       self.send_response(200); self.send_header('Content-Length', '4'); self.end_headers(); self.wfile.write(b'late')\n\
         \x20   def log_message(self, *_): pass\n\
         http.server.ThreadingHTTPServer(('127.0.0.1', {port}), H).serve_forever()"
    );
    let mut sidecar = Sidecar::upstream(format!("http://127.0.0.1:{port}"))
        .flag("--drain-grace", "0s")
        .command(&[python(), "-c", &script])
        .start();
    wait_until("the command serves", || sidecar.admin_get("/readyz", "").status() == 200);
    let mut client = sidecar.client();
    client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
    sidecar.page_when("the request is in flight", |page| page.sum("http_server_active_requests", &[]) == 1.0);
    sidecar.signal(libc::SIGTERM);
    let response = client.read_response("GET");
    assert_eq!((response.status(), response.text().as_str()), (200, "late"));
    assert_eq!(sidecar.wait_exit(PATIENCE).code(), Some(143), "it does not catch SIGTERM");
}

#[test]
fn sighup_and_the_signals_that_only_servers_know_are_passed_on_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let traps: String = ["HUP", "USR1", "USR2", "QUIT"]
        .iter()
        .map(|name| format!("trap 'echo {name} >> {}' {name}; ", log.display()))
        .collect();
    let sidecar = wrapping(&shell(&format!("{traps} echo up >> {}; while :; do sleep 0.05; done", log.display())));
    wait_until("the command runs", || text(&log) == "up\n");
    for (signal, name) in
        [(libc::SIGHUP, "HUP"), (libc::SIGUSR1, "USR1"), (libc::SIGUSR2, "USR2"), (libc::SIGQUIT, "QUIT")]
    {
        sidecar.signal(signal);
        wait_until(name, || text(&log).ends_with(&format!("{name}\n")));
    }
    let page = sidecar.page_when("the reload", |page| page.sum("golden_config_reloads_total", &[]) == 1.0);
    assert_eq!(page.value("golden_draining", &[]), 0.0);
}

#[test]
fn a_command_that_does_not_end_is_killed_after_the_drain_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let script = format!("trap '' TERM; echo up > {}; while :; do sleep 0.05; done", log.display());
    let mut sidecar = Sidecar::upstream("http://127.0.0.1:1")
        .flag("--drain-grace", "0s")
        .flag("--drain-timeout", "300ms")
        .command(&shell(&script))
        .start();
    wait_until("the command runs", || text(&log) == "up\n");
    sidecar.signal(libc::SIGTERM);
    assert_eq!(sidecar.wait_exit(PATIENCE).code(), Some(137));
    assert!(sidecar.logged("command_killed"));
}

#[test]
fn a_second_signal_ends_the_sidecar_and_the_command_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("pid");
    let script = format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.05; done", log.display());
    let mut sidecar = wrapping(&shell(&script));
    wait_until("the command runs", || text(&log).ends_with('\n'));
    sidecar.signal(libc::SIGTERM);
    wait_until("it drains", || sidecar.logged("draining"));
    sidecar.signal(libc::SIGTERM);
    assert_eq!(sidecar.wait_exit(PATIENCE).code(), Some(1));
    wait_until("the command has ended", || !is_alive(text(&log).trim()));
}

#[test]
fn the_death_of_the_command_drains_the_sidecar_and_takes_its_workers_along() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("worker");
    let script = format!("sleep 300 & echo $! > {}; sleep 0.3; exit 9", log.display());
    let mut sidecar = wrapping(&shell(&script));
    wait_until("the worker runs", || text(&log).ends_with('\n'));
    assert_eq!(sidecar.wait_exit(PATIENCE).code(), Some(9));
    assert!(sidecar.logged("draining"));
    wait_until("the worker has ended", || !is_alive(text(&log).trim()));
}

#[test]
fn workers_that_do_not_heed_the_end_of_the_command_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("worker");
    let script = format!(
        "(trap '' TERM; echo up > {0}.up; exec sleep 300) & echo $! > {0}; while [ ! -e {0}.up ]; do sleep 0.05; done; exit 9",
        log.display()
    );
    let mut sidecar = wrapping(&shell(&script));
    assert_eq!(sidecar.wait_exit(PATIENCE).code(), Some(9));
    wait_until("the worker has ended", || !is_alive(text(&log).trim()));
}

#[test]
fn a_sidecar_that_is_killed_does_not_leave_the_command_behind() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("pid");
    let sidecar = wrapping(&shell(&format!("echo $$ > {}; exec sleep 300", log.display())));
    wait_until("the command runs", || text(&log).ends_with('\n'));
    sidecar.signal(libc::SIGKILL);
    wait_until("the command has ended", || !is_alive(text(&log).trim()));
}

#[test]
fn the_command_gets_what_it_would_have_without_us() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let script = format!(
        "{{ ulimit -Sn; echo \"$GREETING\"; cat /proc/self/status | grep -E '^(SigBlk|SigIgn)'; }} > {0}.part; mv {0}.part {0}; sleep 300",
        log.display()
    );
    let _sidecar = Sidecar::upstream("http://127.0.0.1:1").env("GREETING", "hello").command(&shell(&script)).start();
    wait_until("the command runs", || log.exists());
    let told = text(&log);
    let mut lines = told.lines();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for one rlimit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    assert_eq!(
        lines.next(),
        Some(limit.rlim_cur.to_string().as_str()),
        "not the limit that the sidecar raised for itself"
    );
    assert_eq!(lines.next(), Some("hello"));
    assert!(told.contains("SigBlk:\t0000000000000000"), "{told}");
}

#[test]
fn a_failing_command_is_started_again_with_growing_pauses_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    // Fails by itself, is killed, fails again, then stays.
    let script = format!(
        "echo start >> {0}; case $(wc -l < {0}) in 1) exit 5;; 2) kill -KILL $$;; 3) exit 6;; esac; exec sleep 300",
        log.display()
    );
    let mut sidecar = Sidecar::upstream("http://127.0.0.1:1")
        .flag("--drain-grace", "0s")
        .flag("--restart", "on-failure")
        .yaml("saturation: {interval: 100ms}")
        .command(&shell(&script))
        .start();
    let page = sidecar.page_when("three restarts", |page| page.sum("golden_backend_restarts_total", &[]) == 3.0);
    assert_eq!(page.value("golden_backend_restarts_total", &[("reason", "exit")]), 2.0);
    assert_eq!(page.value("golden_backend_restarts_total", &[("reason", "signal")]), 1.0);
    let lines = sidecar.log();
    let pauses: Vec<_> = lines.iter().filter(|line| line.contains("command_restarts")).collect();
    assert!(pauses.len() == 3 && pauses[0].contains("100ms") && pauses[2].contains("400ms"), "{pauses:?}");
    sidecar.page_when("the new process is watched", |page| page.has("golden_backend_fds", &[]));
    sidecar.signal(libc::SIGTERM);
    assert_eq!(sidecar.wait_exit(PATIENCE).code(), Some(143));
}

#[test]
fn an_end_without_failure_is_the_end_unless_always_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let script = format!("echo start >> {}; sleep 0.1; exit 0", log.display());
    let mut sidecar =
        Sidecar::upstream("http://127.0.0.1:1").flag("--restart", "on-failure").command(&shell(&script)).start();
    assert_eq!(sidecar.wait_exit(PATIENCE).code(), Some(0));
    assert_eq!(text(&log), "start\n");

    let mut sidecar = Sidecar::upstream("http://127.0.0.1:1")
        .flag("--drain-grace", "0s")
        .flag("--restart", "always")
        .command(&shell(&script))
        .start();
    wait_until("it has run three times more", || text(&log).lines().count() >= 4);
    sidecar.signal(libc::SIGTERM);
    assert!(sidecar.wait_exit(PATIENCE).code().is_some());
}

#[test]
fn a_sidecar_that_is_told_to_stop_while_it_waits_to_start_the_command_again_ends_with_its_last_status() {
    let mut sidecar = Sidecar::upstream("http://127.0.0.1:1")
        .flag("--drain-grace", "0s")
        .flag("--restart", "always")
        .command(&shell("exit 6"))
        .start();
    // A pause of seconds, in which no command runs.
    wait_until("long pauses", || {
        sidecar.log().iter().any(|line| line.contains("command_restarts") && line.contains("\"1.6s\""))
    });
    sidecar.signal(libc::SIGTERM);
    assert_eq!(sidecar.wait_exit(Duration::from_secs(2)).code(), Some(6));
}

#[test]
fn the_whole_tree_of_the_command_is_the_backend_orphans_included() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("orphan");
    // A grandchild whose parent ends: it belongs to the command all the same.
    let script = format!(
        "(sleep 300 & echo $! > {}) ; {} & sleep 300",
        log.display(),
        role("prefork", &["2", "0.01"]).join(" ")
    );
    let sidecar = wrapping(&shell(&script));
    // The shell, its sleep, the orphan, and three of the pre-forking program.
    let page = sidecar.page_when("six processes", |page| page.get("golden_backend_processes", &[]) == Some(6.0));
    assert_eq!(page.value("golden_sampler_source_available", &[("source", "backend")]), 1.0);
    assert_eq!(page.sum("golden_backend_restarts_total", &[]), 0.0);

    // And when it ends, somebody waits for it.
    let orphan: i32 = text(&log).trim().parse().unwrap();
    // SAFETY: kill has no memory effect; the process is our grandchild's child and lives.
    assert_eq!(unsafe { libc::kill(orphan, libc::SIGKILL) }, 0);
    assert!(wait_for(Duration::from_secs(5), || !Path::new(&format!("/proc/{orphan}")).exists()), "a zombie is left");
    sidecar.page_when("five processes", |page| page.get("golden_backend_processes", &[]) == Some(5.0));
}
