//! Saturation of software that nobody here wrote: gunicorn, and PostgreSQL behind an application with a pool.
//!
//! Needs `wrk`, PostgreSQL's server and the Python environment; `make test` installs them. A missing one is a failure.

mod common;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::program::Program;
use common::sidecar::free_port;
use common::{PATIENCE, Page, Sidecar, wait_for, wait_until};

fn environment(program: &str) -> Command {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin");
    let mut command = Command::new(venv.join(program));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers"));
    command
}

#[test]
fn gunicorn_and_its_workers_are_one_backend_under_load() {
    let port = free_port();
    let mut command = environment("gunicorn");
    command.args(["--workers", "3", "--bind", &format!("127.0.0.1:{port}"), "app:wsgi"]).stderr(Stdio::null());
    let gunicorn = Program::spawn(command);
    wait_until("gunicorn serves", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let sidecar = Sidecar::upstream(format!("http://127.0.0.1:{port}")).start();
    let page =
        sidecar.page_when("master and three workers", |page| page.get("golden_backend_processes", &[]) == Some(4.0));
    assert!(page.value("golden_backend_memory_bytes", &[("kind", "resident")]) > 20e6);
    let cpu = |page: &Page| page.sum("golden_backend_cpu_seconds_total", &[]);
    let before = cpu(&page);

    let load = Command::new("wrk")
        .args(["-t", "1", "-c", "8", "-d", "5", &format!("http://{}/", sidecar.proxy)])
        .stdout(Stdio::null())
        .spawn()
        .expect("wrk");
    let mut load = common::program::Ended(load);
    let page = sidecar.page_when("the workers work", |page| {
        page.get("golden_saturation_ratio", &[("resource", "cpu")]).is_some_and(|ratio| ratio > 0.2)
    });
    assert_eq!(page.sum("golden_backend_restarts_total", &[]), 0.0);
    assert!(wait_for(PATIENCE, || load.has_ended()), "wrk does not end");
    let (page, kernel) = (sidecar.scrape(), tree_cpu(gunicorn.pid()));
    assert!(cpu(&page) > before + 1.0, "{before} {}", cpu(&page));
    // The page is up to a second old, and the tree idle since.
    let page = sidecar.page_when("the kernel's own number", |page| (cpu(page) - kernel).abs() <= 0.1);

    // A worker is replaced by its master: no restart of the backend, and no CPU time lost.
    let worker = children(gunicorn.pid())[0];
    // SAFETY: kill has no memory effect; the process is a child of a process that we hold.
    assert_eq!(unsafe { libc::kill(worker.cast_signed(), libc::SIGKILL) }, 0);
    wait_until("another worker", || {
        let now = children(gunicorn.pid());
        now.len() == 3 && !now.contains(&worker)
    });
    let after =
        sidecar.page_when("four processes again", |page| page.get("golden_backend_processes", &[]) == Some(4.0));
    assert!(cpu(&after) >= cpu(&page));
    assert_eq!(after.sum("golden_backend_restarts_total", &[]), 0.0);
}

#[test]
fn gunicorn_as_the_command_is_seen_with_its_workers_and_ends_with_the_sidecar() {
    let port = free_port();
    let gunicorn = environment("gunicorn");
    let folder = gunicorn.get_current_dir().expect("a folder").to_str().expect("text").to_owned();
    let program = gunicorn.get_program().to_str().expect("text").to_owned();
    let bind = format!("127.0.0.1:{port}");
    let mut sidecar = Sidecar::upstream(format!("http://{bind}"))
        .flag("--drain-grace", "0s")
        .command(&[program.as_str(), "--workers", "2", "--chdir", &folder, "--bind", &bind, "app:wsgi"])
        .start();
    sidecar.page_when("master and two workers", |page| page.get("golden_backend_processes", &[]) == Some(3.0));
    wait_until("it serves", || sidecar.admin_get("/readyz", "").status() == 200);
    assert_eq!(sidecar.get("/").text(), "ok");
    sidecar.signal(libc::SIGTERM);
    assert_eq!(sidecar.wait_exit(PATIENCE * 2).code(), Some(0), "gunicorn catches SIGTERM and ends well");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "no worker is left");
}

#[test]
fn a_pool_of_five_that_is_all_busy_reads_five_of_five_both_ways() {
    let database = Postgres::start();
    let mut command = environment("python");
    command.args(["app.py", "pool", "0", &database.dsn()]);
    let app = Program::spawn(command);
    let port = app.port();
    let yaml = format!(
        "saturation:\n  interval: 100ms\n  pools:\n    - {{name: seen, port: {}, limit: 5}}\n    - name: told\n      \
         url: http://127.0.0.1:{port}/pool\n      preset: psycopg_pool\n    - name: text\n      url: http://127.0.0.1:{port}/metrics\n      \
         used: 'app_pool_connections{{state=\"busy\"}}'\n      idle: 'app_pool_connections{{state=\"free\"}}'\n      limit: 5\n",
        database.port
    );
    let sidecar = Sidecar::upstream(format!("http://127.0.0.1:{port}")).yaml(yaml).start();
    let of =
        |page: &Page, pool: &str, state: &str| page.get("golden_pool_connections", &[("pool", pool), ("state", state)]);
    sidecar.page_when("five idle connections", |page| {
        ["seen", "told", "text"]
            .iter()
            .all(|pool| of(page, pool, "idle") == Some(5.0) && of(page, pool, "in_use") == Some(0.0))
    });

    // Whoever holds the lock makes all others wait.
    let mut holder = database.psql();
    holder.args(["-c", "select pg_advisory_lock(1)", "-c", "\\echo locked", "-c", "select pg_sleep(60)"]);
    let holder = Program::spawn(holder);
    holder.wait_for_line("locked");
    let clients: Vec<_> = (0..7)
        .map(|_| {
            let mut client = sidecar.client();
            client.send("GET /work HTTP/1.1\r\nHost: test\r\n\r\n");
            client
        })
        .collect();
    let page = sidecar.page_when("five in use", |page| {
        ["seen", "told", "text"]
            .iter()
            .all(|pool| of(page, pool, "in_use") == Some(5.0) && of(page, pool, "idle") == Some(0.0))
            && of(page, "told", "waiting") == Some(2.0)
    });
    for pool in ["seen", "told", "text"] {
        assert_eq!(page.value("golden_pool_limit", &[("pool", pool)]), 5.0, "{pool}");
        assert_eq!(page.value("golden_saturation_ratio", &[("resource", &format!("pool:{pool}"))]), 1.0, "{pool}");
    }
    let sources: Vec<_> = page.matching("golden_pool_connections", &[("state", "in_use")]).collect();
    let source = |pool: &str| sources.iter().find(|s| s.labels["pool"] == pool).map(|s| s.labels["source"].as_str());
    assert_eq!((source("seen"), source("told")), (Some("inferred"), Some("reported")));
    assert_eq!(of(&page, "seen", "waiting"), None, "sockets do not tell who waits");

    // The server would only notice at the end of its sleep that its client is gone.
    let release =
        "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'";
    assert!(database.psql().args(["-c", release]).status().expect("psql").success());
    drop(holder);
    for mut client in clients {
        assert_eq!(client.read_response("GET").text(), "done");
    }
    sidecar.page_when("five idle connections again", |page| {
        ["seen", "told", "text"].iter().all(|pool| of(page, pool, "idle") == Some(5.0))
    });
}

fn children(parent: u32) -> Vec<u32> {
    let stat = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_child = |pid: &String| {
        stat(pid).is_some_and(|stat| {
            let mut fields = stat[stat.rfind(')').unwrap_or(0) + 1..].split_whitespace();
            fields.next() != Some("Z") && fields.next() == Some(parent.to_string().as_str())
        })
    };
    pids.filter(|name| name.parse::<u32>().is_ok()).filter(is_child).map(|pid| pid.parse().unwrap()).collect()
}

/// CPU seconds of a process, its children, and those that it has waited for.
fn tree_cpu(root: u32) -> f64 {
    let of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<u64> =
            stat[stat.rfind(')').map_or(0, |at| at + 4)..].split(' ').map(|field| field.parse().unwrap_or(0)).collect();
        // utime is field 14; the first one here is field 4.
        fields[10..14].iter().sum::<u64>() as f64 / 100.0
    };
    of(root) + children(root).into_iter().map(of).sum::<f64>()
}

/// A database server in a folder of its own.
struct Postgres {
    _server: Program,
    folder: tempfile::TempDir,
    port: u16,
}

impl Postgres {
    fn start() -> Postgres {
        let folder = tempfile::Builder::new().prefix("pg").tempdir().expect("a folder");
        let user = Postgres::user();
        if let Some(user) = user {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(user)).expect("chown");
        }
        let data = folder.path().join("data");
        let mut init = Postgres::program("initdb", user);
        init.args(["--no-sync", "--auth=trust", "--username=test", "--pgdata"]).arg(&data).current_dir(folder.path());
        let output = init.output().expect("initdb");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let port = free_port();
        let mut server = Postgres::program("postgres", user);
        server.arg("-D").arg(&data).args([
            "-p",
            &port.to_string(),
            "-c",
            "fsync=off",
            "-c",
            "listen_addresses=127.0.0.1",
        ]);
        server.arg("-k").arg(folder.path()).current_dir(folder.path()).stderr(Stdio::null());
        let server = Program::spawn(server);
        let postgres = Postgres { _server: server, folder, port };
        wait_until("the database answers", || {
            let answer = postgres.psql().args(["-c", "select 1"]).output().expect("psql");
            answer.status.success()
        });
        postgres
    }

    /// It refuses to run as root.
    fn user() -> Option<u32> {
        // SAFETY: the call has no preconditions.
        (unsafe { libc::geteuid() } == 0).then_some(65534)
    }

    fn program(name: &str, user: Option<u32>) -> Command {
        let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL is installed; `make setup` does it")
            .flatten()
            .map(|entry| entry.path())
            .collect();
        versions.sort();
        let mut command = Command::new(versions.last().expect("a version").join("bin").join(name));
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        command
    }

    fn psql(&self) -> Command {
        let mut command = Postgres::program("psql", None);
        command.args(["--no-psqlrc", "--quiet", &self.dsn()]).stderr(Stdio::null()).current_dir(self.folder.path());
        command
    }

    fn dsn(&self) -> String {
        format!("host=127.0.0.1 port={} user=test dbname=postgres", self.port)
    }
}
