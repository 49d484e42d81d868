//! Backends, clients and a Prometheus that nobody here wrote; their counts and ours must be the same number.
//!
//! Needs `nginx`, `python3`, `curl`, `wrk` and `prometheus`; `make test` installs them. A missing one is a failure, not
//! a reason to skip.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::sidecar::free_port;
use common::{Client, PATIENCE, Page, Sidecar, wait_for, wait_until};
use tokio::time::Instant;

/// A program that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM: nginx's master ends its workers by itself, Prometheus closes its files.
        // SAFETY: kill has no memory effect, and the child is not reaped yet.
        unsafe { libc::kill(libc::pid_t::try_from(self.0.id()).unwrap(), libc::SIGTERM) };
        if !wait_for(PATIENCE, || matches!(self.0.try_wait(), Ok(Some(_)))) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Starts a server that needs a port number, trying another port should somebody have taken it meanwhile.
fn start_on_free_port(command: impl Fn(u16) -> Command) -> (Running, u16) {
    for _ in 0..5 {
        let port = free_port();
        let mut child = command(port).stdin(Stdio::null()).spawn().expect("installed (`make test` does it)");
        let up = wait_for(PATIENCE, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok() || matches!(child.try_wait(), Ok(Some(_)))
        });
        if up && matches!(child.try_wait(), Ok(None)) {
            return (Running(child), port);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("the server does not start on any of five ports");
}

/// Files to serve: name and size.
const FILES: [(&str, usize); 3] = [("small.txt", 12), ("medium.bin", 70_000), ("large.bin", 5_000_000)];

fn write_files(directory: &Path) {
    for (name, size) in FILES {
        fs::write(directory.join(name), vec![b'f'; size]).unwrap();
    }
}

struct Nginx {
    _running: Running,
    port: u16,
    directory: tempfile::TempDir,
}

impl Nginx {
    fn start() -> Nginx {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        fs::create_dir(root.join("www")).unwrap();
        write_files(&root.join("www"));
        let (running, port) = start_on_free_port(|port| {
            let path = root.display();
            // One log line per request, written at once; keep-alive connections never end by count.
            let text = format!(
                "daemon off;\nworker_processes 1;\npid {path}/pid;\nerror_log {path}/error.log;\nuser root;\n\
                 events {{ worker_connections 1024; }}\n\
                 http {{\n access_log {path}/access.log combined;\n client_body_temp_path {path}/body;\n\
                 proxy_temp_path {path}/proxy;\n fastcgi_temp_path {path}/fastcgi;\n uwsgi_temp_path {path}/uwsgi;\n\
                 scgi_temp_path {path}/scgi;\n keepalive_requests 100000000;\n if_modified_since before;\n\
                 server {{ listen 127.0.0.1:{port}; root {path}/www;\n\
                 location = /internal-status {{ stub_status; access_log off; }} }}\n}}\n"
            );
            fs::write(root.join("nginx.conf"), text).unwrap();
            let mut command = Command::new("nginx");
            command.arg("-p").arg(&root).arg("-c").arg(root.join("nginx.conf")).stderr(Stdio::null());
            command
        });
        Nginx { _running: running, port, directory }
    }

    /// The status of each request that nginx has finished, in order.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("access.log")).unwrap_or_default();
        text.lines()
            .map(|line| {
                line.split('"').nth(2).expect("the combined format").trim().split(' ').next().unwrap().to_owned()
            })
            .collect()
    }

    /// nginx's own count of requests, without the one that asks for it.
    fn requests(&self) -> usize {
        let mut client = Client::to(([127, 0, 0, 1], self.port).into());
        let text = client.exchange("GET /internal-status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").text();
        let numbers: Vec<usize> =
            text.lines().nth(2).expect("three numbers").split_whitespace().map(|n| n.parse().unwrap()).collect();
        numbers[2] - 1
    }
}

/// Runs curl; gives `%{http_code} %{size_download}`.
fn curl(args: &[&str]) -> (u16, usize) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code} %{size_download}"])
        .args(["--max-time", "20", "--noproxy", "*"])
        .args(args)
        .output()
        .expect("curl is installed");
    assert!(output.status.success(), "curl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (code, size) = text.split_once(' ').unwrap();
    (code.parse().unwrap(), size.parse().unwrap())
}

#[test]
fn nginx_and_curl_agree_with_the_counters() {
    let nginx = Nginx::start();
    let sidecar = Sidecar::upstream(format!("http://127.0.0.1:{}", nginx.port)).workers(2).start();
    let url = |name: &str| format!("http://{}/{name}", sidecar.proxy);
    let mut expected: Vec<(&str, &str)> = Vec::new();
    let mut downloaded = 0;
    for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
        for (name, size) in FILES {
            assert_eq!(curl(&[version, &url(name)]), (200, size), "{version} {name}");
            expected.push(("GET", "200"));
            downloaded += size;
        }
        assert_eq!(curl(&[version, "--head", &url("small.txt")]).0, 200);
        expected.push(("HEAD", "200"));
        assert_eq!(curl(&[version, "--range", "10-19", &url("medium.bin")]), (206, 10));
        expected.push(("GET", "206"));
        downloaded += 10;
        let (code, size) = curl(&[version, &url("missing")]);
        assert_eq!(code, 404);
        expected.push(("GET", "404"));
        downloaded += size;
        assert_eq!(curl(&[version, "--time-cond", "1 Jan 2035 00:00:00 GMT", &url("small.txt")]).0, 304);
        expected.push(("GET", "304"));
        // nginx answers 405 before it has the body. Over HTTP/2 the stream may then be reset with NO_ERROR, which curl 7.88
        // takes for a failure although the whole answer is there (RFC 9113, section 8.1, forbids that).
        if version == "--http2-prior-knowledge" {
            continue;
        }
        let (code, size) = curl(&[version, "--request", "POST", "--data-binary", "0123456789", &url("small.txt")]);
        assert_eq!(code, 405);
        expected.push(("POST", "405"));
        downloaded += size;
    }
    // Ten requests of one curl over one connection.
    let many = url("small.txt?[1-10]");
    Command::new("curl").args(["--silent", "--noproxy", "*", "--output", "/dev/null", &many]).status().unwrap();
    expected.extend([("GET", "200"); 10]);
    downloaded += 120;

    let page = sidecar.settled(expected.len());
    for pair in &expected {
        let count = expected.iter().filter(|other| *other == pair).count() as f64;
        let labels = [("http_request_method", pair.0), ("http_response_status_code", pair.1), ("origin", "backend")];
        assert_eq!(page.sum("golden_requests_total", &labels), count, "{pair:?}");
    }
    assert_eq!(page.sum("golden_errors_total", &[]), 0.0);
    assert_eq!(page.sum("golden_response_bytes_total", &[]), downloaded as f64);
    assert_eq!(page.sum("golden_request_bytes_total", &[]), 20.0);
    wait_until("nginx has logged all", || nginx.log().len() == expected.len());
    let mut theirs = nginx.log();
    let mut ours: Vec<String> = expected.iter().map(|(_, status)| (*status).to_owned()).collect();
    theirs.sort();
    ours.sort();
    assert_eq!(theirs, ours);
    assert_eq!(nginx.requests(), expected.len());
}

/// Runs wrk; gives the number of requests that it says it completed.
fn wrk(url: &str, args: &[&str]) -> usize {
    let output = Command::new("wrk").args(args).arg(url).output().expect("wrk is installed");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
    let line = text.lines().find(|line| line.contains(" requests in ")).expect("a summary");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn wrk_and_nginx_and_the_counters_say_one_number() {
    let nginx = Nginx::start();
    let sidecar = Sidecar::upstream(format!("http://127.0.0.1:{}", nginx.port)).start();
    // wrk stops after the 500th answer, with nothing in flight: one thread, one connection.
    let mut script = tempfile::Builder::new().suffix(".lua").tempfile().unwrap();
    let lua = "local n = 0\nfunction response() n = n + 1 if n == 500 then wrk.thread:stop() end end\n";
    std::io::Write::write_all(&mut script, lua.as_bytes()).unwrap();
    let url = format!("http://{}/small.txt", sidecar.proxy);
    let count = wrk(&url, &["-t1", "-c1", "-d3s", "-s", script.path().to_str().unwrap()]);
    assert_eq!(count, 500, "this machine is too slow for 500 requests in 3 s");
    let page = sidecar.settled(500);
    assert_eq!(
        page.sum("golden_requests_total", &[("http_response_status_code", "200"), ("origin", "backend")]),
        500.0
    );
    assert_eq!(page.count("http_server_request_duration_seconds", &[]), 500.0);
    assert_eq!(page.sum("golden_response_bytes_total", &[]), 6000.0);
    wait_until("nginx has logged all", || nginx.log().len() == 500);
    assert_eq!(nginx.requests(), 500);
}

#[test]
fn wrk_that_leaves_with_requests_in_flight_is_accounted_for() {
    const CONNECTIONS: f64 = 20.0;
    let nginx = Nginx::start();
    let sidecar = Sidecar::upstream(format!("http://127.0.0.1:{}", nginx.port)).workers(2).start();
    let url = format!("http://{}/medium.bin", sidecar.proxy);
    let completed = wrk(&url, &["-t2", "-c20", "-d3s"]) as f64;
    let page = sidecar.page_when("wrk has gone", |page| {
        page.sum("http_server_active_requests", &[]) == 0.0 && page.sum("golden_server_connections", &[]) == 0.0
    });
    let backend = page.sum("golden_requests_total", &[("origin", "backend")]);
    let client = page.sum("golden_requests_total", &[("origin", "client")]);
    let all = page.sum("golden_requests_total", &[]);
    assert_eq!(backend + client, all, "{}", page.lines_of("golden_requests_total"));
    // What was in flight when wrk left is either whole in a socket buffer (ours: done) or cut (ours: left).
    assert!((completed..=completed + CONNECTIONS).contains(&all), "wrk {completed}, recorded {all}");
    assert!(backend >= completed, "wrk got {completed}, only {backend} were counted as whole");
    assert_eq!(page.sum("golden_client_aborts_total", &[]), client);
    assert_eq!(page.sum("golden_errors_total", &[]), 0.0);
    assert_eq!(page.count("http_server_request_duration_seconds", &[]), all);
    // nginx saw all of them, but for those whose client left before they were sent on.
    let unseen = page.sum("golden_client_aborts_total", &[("phase", "before_head")]);
    let mut logged = 0.0;
    wait_until("nginx has logged them", || {
        logged = nginx.log().len() as f64;
        (all - unseen..=all).contains(&logged)
    });
    assert_eq!(nginx.requests() as f64, logged);
}

#[test]
fn a_python_server_that_speaks_http_1_0_is_served_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path());
    let mut child = Command::new("python3")
        .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
        .arg(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let mut banner = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut banner).unwrap();
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let _running = Running(child);
    std::thread::spawn({
        let lines = Arc::clone(&lines);
        move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        }
    });
    let port: u16 = banner.split("port ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
    let sidecar = Sidecar::upstream(format!("http://127.0.0.1:{port}")).start();
    let url = |name: &str| format!("http://{}/{name}", sidecar.proxy);
    for _ in 0..5 {
        for (name, size) in FILES {
            assert_eq!(curl(&[&url(name)]), (200, size));
        }
        assert_eq!(curl(&["--http2-prior-knowledge", &url("small.txt")]), (200, 12));
        assert_eq!(curl(&["--head", &url("small.txt")]).0, 200);
        assert_eq!(curl(&[&url("missing")]).0, 404);
        assert_eq!(curl(&["--data", "x", &url("")]).0, 501);
    }
    let page = sidecar.settled(35);
    for (status, count) in [("200", 25.0), ("404", 5.0), ("501", 5.0)] {
        let labels = [("http_response_status_code", status), ("origin", "backend")];
        assert_eq!(page.sum("golden_requests_total", &labels), count);
    }
    assert_eq!(page.sum("golden_errors_total", &[("error_type", "501"), ("fault", "backend")]), 5.0);
    assert_eq!(page.sum("golden_errors_total", &[]), 5.0);
    let logged = |line: &String| line.contains(" HTTP/1.1\" ");
    wait_until("the server has logged all", || lines.lock().unwrap().iter().filter(|line| logged(line)).count() == 35);
}

/// One number from an instant query; `None` while there is no result.
fn query(port: u16, expression: &str) -> Option<f64> {
    let encoded: String = expression.bytes().map(|b| format!("%{b:02X}")).collect();
    let mut client = Client::to(([127, 0, 0, 1], port).into());
    let text = client
        .exchange(format!("GET /api/v1/query?query={encoded} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
        .text();
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    assert_eq!(json["status"], "success", "{expression}: {json}");
    let result = json["data"]["result"].as_array()?;
    assert!(result.len() <= 1, "{expression}: {json}");
    result.first()?["value"][1].as_str()?.parse().ok()
}

#[test]
fn a_real_prometheus_reads_the_same_numbers() {
    let nginx = Nginx::start();
    let sidecar = Sidecar::upstream(format!("http://127.0.0.1:{}", nginx.port))
        .workers(2)
        .yaml("routes:\n  - path: /small.txt\n  - path: /files/{name}\nlimits:\n  inflight: 64\n")
        .start();
    let mut client = sidecar.client();
    for _ in 0..30 {
        let answer = client.get("/small.txt");
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    for _ in 0..7 {
        assert_eq!(client.get("/missing").status(), 404);
    }
    client.send("JUNK\x01\r\n\r\n");
    assert_eq!(client.read_response("GET").status(), 400);
    let page: Page = sidecar.settled(38);

    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("prometheus.yml");
    let text = format!(
        "global:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\nscrape_configs:\n  - job_name: sidecar\n    \
         sample_limit: 5000\n    label_limit: 10\n    static_configs:\n      - targets: ['{}']\n",
        sidecar.admin
    );
    fs::write(&config, text).unwrap();
    let (_prometheus, port) = start_on_free_port(|port| {
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--log.level=error"]);
        command
    });
    assert!(
        wait_for(PATIENCE * 3, || query(port, "sum(golden_requests_total)") == Some(38.0)),
        "Prometheus reads {:?}",
        query(port, "sum(golden_requests_total)")
    );
    let route = [("http_route", "/small.txt")];
    let duration = "http_server_request_duration_seconds";
    for (expression, expected) in [
        ("up", 1.0),
        ("golden_backend_up", 1.0),
        ("golden_inflight_limit", 64.0),
        ("sum(golden_requests_total{http_response_status_code='200'})", 30.0),
        ("sum(golden_requests_total{http_response_status_code='404',http_route='_unmatched'})", 7.0),
        ("sum(golden_requests_total{http_route='/files/{name}'})", 0.0),
        ("sum(golden_errors_total)", 1.0),
        ("sum(golden_errors_total{error_type='bad_request',fault='client',phase='head'})", 1.0),
        ("sum(http_server_request_duration_seconds_count{http_route='/small.txt'})", page.count(duration, &route)),
        ("sum(http_server_request_duration_seconds_bucket{http_route='/small.txt',le='+Inf'})", 30.0),
        ("sum(golden_response_bytes_total{http_route='/small.txt'})", 360.0),
        ("sum(golden_inflight_requests)", 0.0),
        ("golden_saturation_ratio{resource='inflight'}", 0.0),
        ("count(golden_saturation_ratio{resource=~'host_cpu|host_memory'} <= 1)", 2.0),
    ] {
        let mut have = None;
        // Numbers that need a second sample (host CPU) may come with a later scrape.
        let _ = wait_for(PATIENCE, || {
            have = query(port, expression);
            have == Some(expected)
        });
        assert_eq!(have, Some(expected), "{expression}");
    }
    let sum = query(port, "sum(http_server_request_duration_seconds_sum)").unwrap();
    assert!((sum - page.sum("http_server_request_duration_seconds_sum", &[])).abs() < 1e-9, "{sum}");
    let quantile = query(port, "histogram_quantile(0.99, sum by (le) (http_server_request_duration_seconds_bucket))");
    assert!(quantile.is_some_and(|seconds| seconds > 0.0 && seconds <= 10.0), "{quantile:?}");
    let failed = query(port, "max_over_time((1 - up)[1m:100ms])");
    assert!(failed.is_none_or(|failed| failed == 0.0), "a scrape failed");
}

/// The Python of the environment that `tools/setup.sh test` makes.
fn python(script: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    assert!(python.exists(), "{} is missing; `make setup` makes it", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("tests/peers").join(script));
    command
}

#[test]
fn the_official_parser_reads_the_openmetrics_page() {
    let backend = common::Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    sidecar.get("/");
    sidecar.settled(1);
    let page = sidecar.admin_get("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n").text();
    let mut parser =
        python("openmetrics.py").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut parser.stdin.take().unwrap(), page.as_bytes()).unwrap();
    let output = parser.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let families = String::from_utf8(output.stdout).unwrap();
    for family in ["http_server_request_duration_seconds histogram", "golden_requests counter", "golden_draining gauge"]
    {
        assert!(families.lines().any(|line| line == family), "{family} is not in {families}");
    }
}

#[test]
fn a_websocket_library_talks_to_itself_through_a_tunnel() {
    let mut server = python("websocket.py").arg("server").stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let _server = Running(server);
    let sidecar = Sidecar::upstream(format!("http://127.0.0.1:{}", port.trim())).start();
    let client = python("websocket.py").arg("client").arg(format!("ws://{}/chat", sidecar.proxy)).output().unwrap();
    assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
    let payload: f64 = String::from_utf8(client.stdout).unwrap().trim().parse().unwrap();
    let protocol = ("protocol", "websocket");
    let page = sidecar.page_when("the tunnel is gone", |page| {
        page.value("golden_upgraded_connections_opened_total", &[protocol]) == 1.0
            && page.value("golden_upgraded_connections", &[protocol]) == 0.0
    });
    for direction in ["sent", "received"] {
        let bytes = page.value("golden_upgraded_bytes_total", &[protocol, ("direction", direction)]);
        // Frames add 2 to 14 bytes each to the payload.
        assert!(bytes > payload && bytes < payload + 1_000.0, "{direction}: {bytes} for {payload}");
    }
    assert_eq!(page.sum("golden_requests_total", &[("http_response_status_code", "101")]), 1.0);
}

#[test]
fn a_drain_closes_the_sockets_of_a_websocket_library_and_they_come_back_elsewhere() {
    let mut server = python("websocket.py").arg("server").stdout(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    let _server = Running(server);
    let upstream = format!("http://127.0.0.1:{}", told.next().unwrap());
    let start = || Sidecar::upstream(&upstream).flag("--drain-grace", "0s").flag("--drain-timeout", "60s").start();
    let (mut first, second) = (start(), start());
    let urls = [&first, &second].map(|sidecar| format!("ws://{}/chat", sidecar.proxy));
    let mut client = python("websocket.py").arg("stay").args(urls).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
    let _client = Running(client);
    assert_eq!(lines.next().as_deref(), Some("open"));
    let signalled = Instant::now();
    first.signal(libc::SIGTERM);
    assert_eq!(lines.next().as_deref(), Some("closed with 1001"));
    assert_eq!(told.next().as_deref(), Some("closed with 1001"), "the server is told, too");
    assert_eq!(first.wait_exit(PATIENCE).code(), Some(0));
    assert!(signalled.elapsed() < Duration::from_millis(1_900), "it took {:?}", signalled.elapsed());
    assert_eq!(lines.next().as_deref(), Some("open"), "the client is at the other sidecar");
    assert_eq!(second.scrape().value("golden_upgraded_connections", &[("protocol", "websocket")]), 1.0);
}
