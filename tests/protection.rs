//! The admin port of a real process: what protects it, that nothing on it changes the proxy, and that it is there when
//! descriptors are not.

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::process::Output;
use std::time::Duration;

use common::sidecar::program;
use common::{Backend, Client, Page, Sidecar, wait_until};

const TOKEN: &str = "0123456789abcdef-token";
const OTHER_TOKEN: &str = "fedcba9876543210-token";

// === Credentials ===

/// `GET path` with this token.
fn get(sidecar: &Sidecar, path: &str, token: &str) -> common::Response {
    sidecar.admin_get(path, &format!("Authorization: Bearer {token}\r\n"))
}

#[test]
fn a_token_of_a_file_is_read_again_by_sighup_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    let write = |text: &str| std::fs::write(&file, text).expect("write the file");
    write(&format!("{TOKEN}\n"));
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).env("GOLDEN_ADMIN_AUTH_TOKEN_FILE", file.to_str().expect("UTF-8")).start();
    assert_eq!(sidecar.admin_get("/metrics", "").status(), 401);
    assert_eq!(get(&sidecar, "/metrics", TOKEN).status(), 200);

    let reloads = |token: &str, result: &str| {
        let page = Page::parse(&get(&sidecar, "/metrics", token).text());
        page.value("golden_config_reloads_total", &[("result", result)])
    };
    write("short");
    sidecar.signal(libc::SIGHUP);
    wait_until("the reload is refused", || reloads(TOKEN, "failure") == 1.0);
    write(OTHER_TOKEN);
    sidecar.signal(libc::SIGHUP);
    wait_until("the other token opens", || {
        get(&sidecar, "/livez", "").status() == 200 && get(&sidecar, "/metrics", OTHER_TOKEN).status() == 200
    });
    assert_eq!(reloads(OTHER_TOKEN, "success"), 1.0);
    assert_eq!(get(&sidecar, "/metrics", TOKEN).status(), 401);

    let page = Page::parse(&get(&sidecar, "/metrics", OTHER_TOKEN).text());
    let refused = page.value("golden_admin_refused_requests_total", &[("reason", "credentials")]);
    assert!(refused >= 2.0, "{refused}");
    assert_eq!(page.value("golden_admin_refused_requests_total", &[("reason", "host")]), 0.0);
    let config = get(&sidecar, "/api/v1/config", OTHER_TOKEN).text();
    let log = sidecar.log().join("\n");
    for text in [&config, &log, &page_text(&sidecar)] {
        assert!(!text.contains(TOKEN) && !text.contains(OTHER_TOKEN) && !text.contains("short\""), "{text}");
    }
    assert!(log.contains("admin_auth.token_file: ") && log.contains("is too short"), "{log}");
}

fn page_text(sidecar: &Sidecar) -> String {
    get(sidecar, "/", OTHER_TOKEN).text()
}

#[test]
fn refusals_are_counted_each_and_logged_seldom_and_without_what_was_sent() {
    let backend = Backend::always("ok");
    let yaml = format!("admin_auth: {{token: {TOKEN}}}\nadmin_hosts: [admin]\n");
    let sidecar = Sidecar::before(&backend).yaml(yaml).start();
    for _ in 0..50 {
        assert_eq!(get(&sidecar, "/metrics", "guess-0123456789-guess").status(), 401);
        let misdirected = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
        assert_eq!(Client::to(sidecar.admin).exchange(misdirected).status(), 421);
    }
    let page = Page::parse(&get(&sidecar, "/metrics", TOKEN).text());
    for reason in ["credentials", "host"] {
        assert_eq!(page.value("golden_admin_refused_requests_total", &[("reason", reason)]), 50.0, "{reason}");
    }
    let log = sidecar.log();
    let lines: Vec<&String> = log.iter().filter(|line| line.contains("admin_request_refused")).collect();
    // One in ten seconds: two, if these hundred took so long.
    assert!((1..=2).contains(&lines.len()), "{lines:#?}");
    assert!(!log.join("\n").contains("guess") && !log.join("\n").contains("evil"), "{log:#?}");
}

#[test]
fn the_commands_of_the_sidecar_find_credentials_and_host_where_it_found_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, password) = (folder.path().join("golden.yaml"), folder.path().join("password"));
    std::fs::write(&password, "hunter2\r\n").expect("write the file");
    let yaml = "admin_auth: {username: prometheus, password_file: password}\nadmin_hosts: [metrics.internal]\n";
    std::fs::write(&file, yaml).expect("write the file");
    let file = file.to_str().expect("UTF-8");
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).env("GOLDEN_CONFIG", file).start();
    sidecar.get("/");
    let admin = sidecar.admin.to_string();
    let run = |args: &[&str], env: &[(&str, &str)]| -> Output {
        program().args(args).args(["--admin", &admin]).envs(env.iter().copied()).output().expect("start the program")
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    wait_until("ready", || run(&["healthcheck"], &[]).status.success());
    let listed = run(&["routes", "list", "--config", file], &[]);
    assert!(listed.status.success(), "{}", said(&listed));
    assert!(String::from_utf8_lossy(&listed.stdout).contains("_unmatched"));
    assert!(run(&["healthcheck", "--config", file], &[]).status.success());
    // The same from the environment.
    let env = [
        ("GOLDEN_ADMIN_AUTH_USERNAME", "prometheus"),
        ("GOLDEN_ADMIN_AUTH_PASSWORD", "hunter2"),
        ("GOLDEN_ADMIN_HOSTS", "metrics.internal"),
    ];
    assert!(run(&["routes", "list"], &env).status.success());
    let strange = run(&["routes", "list"], &env[..2]);
    assert_eq!(said(&strange), "this port does not answer to that host; admin_hosts says to which\n");
    let strange = run(&["routes", "list"], &env[2..]);
    assert_eq!(
        (said(&strange).as_str(), strange.status.code()),
        ("credentials are needed; admin_auth says which\n", Some(1))
    );
    // Who is let in gets the reasons of a sidecar that is not ready, others the verdict.
    drop(backend);
    wait_until("not ready", || !run(&["healthcheck"], &[]).status.success());
    assert_eq!(said(&run(&["healthcheck"], &[])), "not ready\n");
    let reasons = said(&run(&["healthcheck", "--config", file], &[]));
    assert!(reasons.starts_with("not ready: backend: "), "{reasons}");
}

#[test]
fn a_sidecar_without_its_secret_does_not_start() {
    let output = program()
        .args(["--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .env("GOLDEN_ADMIN_AUTH_TOKEN_FILE", "/nonexistent/token")
        .output()
        .expect("start the program");
    let said = String::from_utf8_lossy(&output.stderr);
    let sentence =
        "admin_auth.token_file: \"/nonexistent/token\" cannot be read: No such file or directory (os error 2)\n";
    assert_eq!((&*said, output.status.code()), (sentence, Some(2)));
}

// === Read-only ===

#[test]
fn no_method_on_any_path_changes_anything() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).start();
    wait_until("ready", || sidecar.admin_get("/readyz", "").status() == 200);
    let proxied = |sidecar: &Sidecar| {
        let response = sidecar.get("/users/7?a=b");
        let fields: Vec<_> =
            response.head.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("date")).cloned().collect();
        (response.status(), fields, response.text())
    };
    let before =
        (sidecar.admin_get("/api/v1/config", "").text(), proxied(&sidecar), sidecar.admin_get("/readyz", "").text());

    let known = ["/", "/metrics", "/livez", "/readyz", "/api/v1/config", "/api/v1/routes"];
    let made_up = [
        "/quitquitquit",
        "/logging?level=debug",
        "/reload",
        "/-/reload",
        "/-/quit",
        "/config",
        "/api/v1/config/",
        "/api/v1/config/upstream",
        "/api/v1/routes/1",
        "/api/v1/reset",
        "/api/v1/admin",
        "/reset_counters",
        "/drain_listeners",
        "/healthcheck/fail",
        "/stop",
        "/load",
        "/id/upstream",
        "/debug/pprof/",
        "/actuator/shutdown",
        "/./livez",
        "/livez/..",
        "//metrics",
        "/%6detrics",
        "/metrics;x",
        "/.well-known/x",
        "*",
        "http://admin/api/v1/config/x",
        "/api/v1/config%00",
    ];
    let methods = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "QUERY", "PROPFIND", "PURGE",
        "BREW", "get", "X-Y",
    ];
    let bodies = [
        String::new(),
        "Content-Type: application/json\r\nContent-Length: 36\r\n\r\n{\"upstream\":\"http://127.0.0.1:1234\"}\n".to_owned()[..].trim_end().to_owned(),
        "Content-Type: application/x-www-form-urlencoded\r\nX-HTTP-Method-Override: PUT\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nvia=true\r\n0\r\n\r\n".to_owned(),
    ];
    let mut asked: BTreeMap<u16, usize> = BTreeMap::new();
    for path in known.iter().chain(&made_up) {
        for method in methods {
            for body in &bodies {
                let fields = if body.is_empty() { "\r\n" } else { body };
                let mut client = Client::to(sidecar.admin);
                client.send(format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{fields}"));
                let status = client.wire.read_head().ok().flatten().expect("an answer").status();
                *asked.entry(status).or_default() += 1;
                let reads = ["GET", "HEAD"].contains(&method);
                let expected: &[u16] = match (known.contains(path), reads) {
                    (true, true) => &[200],
                    (true, false) => &[405],
                    // What cannot be the target of that method is refused as no request at all.
                    (false, _) => &[404, 400],
                };
                assert!(expected.contains(&status), "{method} {path} {body:?}: {status}");
            }
        }
    }
    assert!(asked[&200] == 36 && asked[&405] == 234 && asked[&404] > 1000, "{asked:?}");
    let after =
        (sidecar.admin_get("/api/v1/config", "").text(), proxied(&sidecar), sidecar.admin_get("/readyz", "").text());
    assert_eq!(before, after);
    let page = sidecar.scrape();
    assert_eq!(page.sum("golden_config_reloads_total", &[]), 0.0);
    assert_eq!(page.sum("golden_requests_total", &[]), 2.0);
}

// === Descriptors ===

/// Open descriptors of a process.
fn descriptors(pid: u32) -> Vec<u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// CPU time that a process has taken.
fn cpu(page: &Page) -> f64 {
    page.value("process_cpu_seconds_total", &[])
}

fn rejected(page: &Page, reason: &str) -> f64 {
    page.sum("golden_server_connections_rejected_total", &[("reason", reason)])
}

/// Connections that ask for nothing.
fn idle(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).expect("the kernel accepts")).collect()
}

#[test]
fn idle_clients_that_take_all_descriptors_of_the_proxy_leave_the_admin_port_its_own() {
    const LIMIT: u64 = 256;
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).open_files(LIMIT).start();
    wait_until("ready", || sidecar.admin_get("/readyz", "").status() == 200);
    let base = descriptors(sidecar.pid()).len();
    let share = sidecar.scrape().value("golden_server_connections_limit", &[]);
    assert!(share > 50.0 && share < LIMIT as f64 / 2.0, "{share}");

    let clients = idle(sidecar.proxy, 2 * LIMIT as usize);
    let over = clients.len() as f64 - share;
    let full =
        sidecar.page_when("all that are too many were turned away", |page| rejected(page, "descriptors") == over);
    assert_eq!(full.sum("golden_server_connections", &[]), share);
    assert_eq!(rejected(&full, "limit"), 0.0);
    assert!(descriptors(sidecar.pid()).len() < LIMIT as usize);
    // More connections than a scraper, a kubelet and some people have, at once and several times.
    for _ in 0..3 {
        let mut held: Vec<Client> = (0..60).map(|_| Client::to(sidecar.admin)).collect();
        for (index, client) in held.iter_mut().enumerate() {
            let path = ["/metrics", "/livez", "/readyz"][index % 3];
            assert_eq!(client.get(path).status(), 200, "{path}");
        }
    }
    let begin = cpu(&sidecar.scrape());
    let mut readings = 0;
    assert!(!common::wait_for(Duration::from_millis(500), || {
        readings += 1;
        false
    }));
    let used = cpu(&sidecar.scrape()) - begin;
    assert!(used < 0.25, "{used} s of CPU time in half a second, {readings} readings");

    drop(clients);
    sidecar.page_when("all have left", |page| page.sum("golden_server_connections", &[]) == 0.0);
    for _ in 0..20 {
        assert_eq!(sidecar.get("/").status(), 200);
    }
    wait_until("their descriptors are closed", || descriptors(sidecar.pid()).len() <= base + 3);
    let page = sidecar.scrape();
    assert_eq!(rejected(&page, "descriptors"), over);
    assert_eq!(page.sum("golden_requests_total", &[("http_response_status_code", "200")]), 20.0);
}

#[test]
fn a_process_without_any_descriptor_left_turns_clients_away_serves_admin_and_recovers() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).start();
    wait_until("ready", || sidecar.admin_get("/readyz", "").status() == 200);
    let mut kept = sidecar.client();
    assert_eq!(kept.get("/").status(), 200);
    // Nothing that is open now has a number above it, and nearly no number below is free.
    let before = sidecar.limit_open_files(None);
    let highest = descriptors(sidecar.pid()).into_iter().max().expect("descriptors");
    sidecar.limit_open_files(Some(highest + 1));
    let fill = idle(sidecar.proxy, highest as usize + 16);
    wait_until("some were turned away", || {
        sidecar.try_scrape().is_some_and(|page| rejected(&page, "descriptors") >= 1.0)
    });
    for _ in 0..10 {
        for path in ["/metrics", "/livez", "/api/v1/config"] {
            assert_eq!(sidecar.admin_get(path, "").status(), 200, "{path}");
        }
        // The probe of the backend needs a descriptor as well, so the verdict may be either.
        assert!([200, 503].contains(&sidecar.admin_get("/readyz", "").status()));
    }
    // Who is connected is served as ever, and nobody waits for what does not come.
    assert_eq!(kept.get("/").status(), 200);
    let ticks = |sidecar: &Sidecar| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", sidecar.pid())).expect("stat");
        let fields: Vec<&str> = stat[stat.rfind(')').expect("a name")..].split(' ').collect();
        fields[12].parse::<u64>().expect("utime") + fields[13].parse::<u64>().expect("stime")
    };
    let begin = ticks(&sidecar);
    assert!(!common::wait_for(Duration::from_millis(500), || false));
    let used = ticks(&sidecar) - begin;
    assert!(used < 15, "{used} hundredths of a second of CPU time in half a second");

    drop(fill);
    sidecar.limit_open_files(Some(before));
    wait_until("new clients are served", || {
        let Ok(mut client) = Client::try_to(sidecar.proxy) else { return false };
        client.try_send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").is_ok()
            && matches!(client.wire.read_head(), Ok(Some(head)) if head.status() == 200)
    });
    let settled = rejected(&sidecar.scrape(), "descriptors");
    for _ in 0..50 {
        assert_eq!(sidecar.get("/").status(), 200);
    }
    assert_eq!(rejected(&sidecar.scrape(), "descriptors"), settled);
}
