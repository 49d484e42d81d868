//! The sidecar as a process: started, read, signalled, ended.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::backend::Backend;
use super::client::{Client, Response};
use super::names::Names;
use super::page::Page;
use super::{PATIENCE, wait_for};

/// The program under test.
#[must_use]
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_golden-sidecar"));
    // The environment of whoever runs the tests must not configure the sidecar.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GOLDEN_") || name.to_string_lossy().starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    command
}

/// A sidecar that is about to be started. One worker unless told otherwise, so that statements about "the pool" and
/// "the next request" are statements about one thread.
pub struct Builder<'a> {
    upstream: String,
    listen: String,
    names: Option<&'a Names>,
    flags: Vec<String>,
    yaml: Option<String>,
    env: Vec<(String, String)>,
    workers: usize,
    learning: bool,
    command: Vec<String>,
    rights: Rights,
    open_files: Option<u64>,
    log: LogTo,
}

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum LogTo {
    /// A pipe that this process reads.
    Us,
    /// A disk that is full.
    FullDisk,
}

/// What the sidecar may see.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rights {
    /// What this process may.
    Ours,
    /// What `nobody` may.
    Nobodys,
    /// The same, and /proc hides the processes of others.
    NobodysWithHiddenProcesses,
}

/// A running sidecar; killed when dropped.
pub struct Sidecar {
    child: Child,
    /// The address of the proxy.
    pub proxy: SocketAddr,
    /// The address of the admin port.
    pub admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    config: tempfile::NamedTempFile,
    _folder: Option<tempfile::TempDir>,
}

/// What must be on the page after one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// `http_route`.
    pub route: &'static str,
    /// `http_request_method`.
    pub method: &'static str,
    /// `http_response_status_code`.
    pub status: &'static str,
    /// `origin`.
    pub origin: &'static str,
    /// `error_type`, `fault`, `phase`; several accepted phases are separated by `|`.
    pub error: Option<(&'static str, &'static str, &'static str)>,
    /// `phase` of the client abort.
    pub abort: Option<&'static str>,
    /// Whether the answer counts as truncated.
    pub truncated: bool,
}

impl Outcome {
    /// A request that the backend answered.
    #[must_use]
    pub const fn backend(method: &'static str, status: &'static str) -> Outcome {
        let (route, origin) = ("_unmatched", "backend");
        Outcome { route, method, status, origin, error: None, abort: None, truncated: false }
    }

    /// A request that the sidecar answered with an error.
    #[must_use]
    pub const fn proxy(
        method: &'static str,
        status: &'static str,
        error: (&'static str, &'static str, &'static str),
    ) -> Outcome {
        let (route, origin) = ("_unmatched", "proxy");
        Outcome { route, method, status, origin, error: Some(error), abort: None, truncated: false }
    }

    /// A request whose client left; `status` is empty when no head was sent.
    #[must_use]
    pub const fn aborted(method: &'static str, status: &'static str, phase: &'static str) -> Outcome {
        let (route, origin) = ("_unmatched", "client");
        Outcome { route, method, status, origin, error: None, abort: Some(phase), truncated: false }
    }

    /// The backend's answer was cut.
    #[must_use]
    pub const fn cut(method: &'static str, status: &'static str, error_type: &'static str) -> Outcome {
        Outcome { error: Some((error_type, "backend", "body")), truncated: true, ..Outcome::backend(method, status) }
    }
}

// === impl Builder ===

impl<'a> Builder<'a> {
    /// Knows these names and no others. Takes root, or a system where everybody may have namespaces.
    #[must_use]
    pub fn names(mut self, names: &'a Names) -> Self {
        self.names = Some(names);
        self
    }

    /// One more command-line argument pair.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// `--listen`: another address than one of loopback. Of a socket of the file system the proxy's address stays unknown.
    #[must_use]
    pub fn listen(mut self, listen: impl ToString) -> Self {
        self.listen = listen.to_string();
        self
    }

    /// The text of the configuration file.
    #[must_use]
    pub fn yaml(mut self, text: impl ToString) -> Self {
        assert!(self.yaml.replace(text.to_string()).is_none(), "one file");
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Learns routes, as it does by default. In tests it does not unless told so: most of them speak of `_unmatched`.
    #[must_use]
    pub fn learning(mut self) -> Self {
        self.learning = true;
        self
    }

    /// `--workers`.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// The command that is the backend.
    #[must_use]
    pub fn command<T: ToString>(mut self, argv: &[T]) -> Self {
        self.command = argv.iter().map(ToString::to_string).collect();
        self
    }

    /// At most so many file descriptors.
    #[must_use]
    pub fn open_files(mut self, limit: u64) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Without any right: as the user `nobody`, where this process may choose.
    #[must_use]
    pub fn by_nobody(mut self) -> Self {
        self.rights = Rights::Nobodys;
        self
    }

    /// The same, where /proc hides the processes of other users (`hidepid=2`). Takes root.
    #[must_use]
    pub fn by_nobody_with_hidden_processes(mut self) -> Self {
        self.rights = Rights::NobodysWithHiddenProcesses;
        self
    }

    /// With a log that cannot be written: standard output and standard error are on a disk that is full.
    #[must_use]
    pub fn log_on_a_full_disk(mut self) -> Self {
        self.log = LogTo::FullDisk;
        self
    }

    /// Starts and waits for the `listening` line, or where there is none until both ports are open.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Sidecar {
        let mut config = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a temporary file");
        let mut command = program();
        if !self.upstream.is_empty() {
            command.args(["--upstream", &self.upstream]);
        }
        // Of a sidecar that cannot say where it listens, the address tells which port is which.
        let admin = if self.log == LogTo::FullDisk { MUTE_ADMIN } else { "127.0.0.1:0" };
        command.args(["--listen", &self.listen, "--admin", admin]);
        command.args(["--workers", &self.workers.to_string()]);
        if let Some(yaml) = &self.yaml {
            config.write_all(yaml.as_bytes()).expect("write");
            command.arg("--config").arg(config.path());
        }
        if !self.learning {
            command.env("GOLDEN_LEARN_ENABLED", "false");
        }
        command.args(&self.flags).envs(self.env.iter().cloned());
        if !self.command.is_empty() {
            command.arg("--").args(&self.command);
        }
        let folder = (self.rights != Rights::Ours).then(|| run_as_nobody(&mut command, config.path(), self.rights));
        if let Some(names) = self.names {
            command = names.only_for(&command);
        }
        if let Some(limit) = self.open_files {
            use std::os::unix::process::CommandExt as _;
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            // SAFETY: setrlimit may be called between fork and exec, and reads nothing but its argument.
            unsafe {
                command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                });
            }
        }
        let (out, error) = match self.log {
            LogTo::Us => (Stdio::null(), Stdio::piped()),
            LogTo::FullDisk => (full_disk(), full_disk()),
        };
        let mut child = command.stdin(Stdio::null()).stdout(out).stderr(error).spawn().expect("the program starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        if self.log == LogTo::FullDisk {
            let (proxy, admin) = open_ports(&child);
            return Sidecar { child, proxy, admin, log, config, _folder: folder };
        }
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let draining = std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    log.lock().unwrap().push(line);
                }
            }
        });
        let mut addresses = None;
        let started = wait_for(PATIENCE, || {
            addresses = log.lock().unwrap().iter().find_map(|line| listening(line));
            addresses.is_some() || draining.is_finished()
        });
        let Some((proxy, admin)) = addresses.filter(|_| started) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no `listening` line within {PATIENCE:?}; standard error: {:#?}", log.lock().unwrap());
        };
        Sidecar { child, proxy, admin, log, config, _folder: folder }
    }
}

/// Lets the command run as `nobody`, if this process may change its user; else it runs as it is, without rights as well.
/// The program is copied to where that user can reach it.
fn run_as_nobody(command: &mut Command, config: &std::path::Path, rights: Rights) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    // SAFETY: the call has no preconditions.
    if unsafe { libc::geteuid() } == 0 {
        let open = |path: &std::path::Path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
        };
        let copy = folder.path().join("golden-sidecar");
        std::fs::copy(env!("CARGO_BIN_EXE_golden-sidecar"), &copy).expect("a copy");
        open(folder.path());
        open(&copy);
        open(config);
        let mut other = Command::new(&copy);
        if rights == Rights::NobodysWithHiddenProcesses {
            other = Command::new("unshare");
            let hide = "mount -t proc -o hidepid=2 proc /proc && \
                        exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$0\" \"$@\"";
            other.args(["--mount", "/bin/sh", "-c", hide]).arg(&copy);
        } else {
            // 65534: nobody, and nogroup, on Debian and nearly everywhere else.
            other.uid(65534).gid(65534);
        }
        other.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => other.env(name, value),
                None => other.env_remove(name),
            };
        }
        *command = other;
    }
    folder
}

/// Where the admin port of a sidecar is that cannot say it.
const MUTE_ADMIN: &str = "127.0.0.2:0";

/// A file to which nothing can be written, as on a full disk.
fn full_disk() -> Stdio {
    std::fs::File::options().write(true).open("/dev/full").expect("/dev/full").into()
}

/// The proxy's and the admin port of a process, once it listens on both. Asked of the kernel: `/proc/PID/net/tcp` has all
/// listeners (state 0A), the process' descriptors say which are its own; addresses are in hexadecimal, the lowest byte first.
fn open_ports(child: &Child) -> (SocketAddr, SocketAddr) {
    let (mut proxy, mut admin) = (None, None);
    let opened = wait_for(PATIENCE, || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", child.id())).expect("/proc");
        let own: Vec<_> = descriptors
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
            .collect();
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", child.id())).expect("/proc");
        for line in table.lines().skip(1) {
            let columns: Vec<_> = line.split_whitespace().collect();
            if columns[3] == "0A" && own.contains(&format!("socket:[{}]", columns[9])) {
                let (address, port) = columns[1].split_once(':').expect("address and port");
                let port = u16::from_str_radix(port, 16).expect("a port");
                match address {
                    "0100007F" => proxy = Some(SocketAddr::from(([127, 0, 0, 1], port))),
                    "0200007F" => admin = Some(SocketAddr::from(([127, 0, 0, 2], port))),
                    other => panic!("it listens on {other}"),
                }
            }
        }
        proxy.is_some() && admin.is_some()
    });
    assert!(opened, "it does not listen within {PATIENCE:?}");
    (proxy.expect("seen above"), admin.expect("seen above"))
}

/// The two addresses of a `listening` log line. Fields may stand at the top level or under `fields`.
fn listening(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let json: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = json.get("fields").unwrap_or(&json);
    if fields.get("event")?.as_str()? != "listening" {
        return None;
    }
    let proxy = fields.get("proxy")?.as_str()?;
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let proxy = if proxy.starts_with("unix:") { nowhere } else { proxy.parse().ok()? };
    Some((proxy, fields.get("admin")?.as_str()?.parse().ok()?))
}

// === impl Sidecar ===

impl Sidecar {
    /// In front of this backend.
    #[must_use]
    pub fn before(backend: &Backend) -> Builder<'static> {
        Sidecar::upstream(backend.url())
    }

    /// In front of any address.
    #[must_use]
    pub fn upstream(upstream: impl ToString) -> Builder<'static> {
        Builder {
            upstream: upstream.to_string(),
            listen: "127.0.0.1:0".to_owned(),
            names: None,
            flags: Vec::new(),
            yaml: None,
            env: Vec::new(),
            workers: 1,
            learning: false,
            command: Vec::new(),
            rights: Rights::Ours,
            log: LogTo::Us,
            open_files: None,
        }
    }

    /// With all that it needs in a file, the upstream too.
    #[must_use]
    pub fn configured(yaml: impl ToString) -> Builder<'static> {
        Sidecar::upstream("").yaml(yaml)
    }

    /// The usual case: all defaults, one worker.
    #[must_use]
    #[track_caller]
    pub fn start(backend: &Backend) -> Sidecar {
        Sidecar::before(backend).start()
    }

    /// A connection to the proxy.
    #[must_use]
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::to(self.proxy)
    }

    /// `GET path` through the proxy on a connection of its own.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.client().get(path)
    }

    /// One request through the proxy on a connection of its own.
    #[track_caller]
    pub fn exchange(&self, request: impl AsRef<[u8]>) -> Response {
        self.client().exchange(request)
    }

    /// `GET path` at the admin port, with extra field lines.
    #[track_caller]
    pub fn admin_get(&self, path: &str, fields: &str) -> Response {
        Client::to(self.admin)
            .exchange(format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{fields}\r\n"))
    }

    /// The metrics page now, checked for what always holds.
    #[must_use]
    #[track_caller]
    pub fn scrape(&self) -> Page {
        let response = self.admin_get("/metrics", "");
        assert_eq!(response.status(), 200, "{}", response.text());
        let page = Page::parse(&response.text());
        page.check();
        page
    }

    /// The metrics page, if the admin port still answers.
    pub fn try_scrape(&self) -> Option<Page> {
        let mut client = Client::try_to(self.admin).ok()?;
        client.try_send("GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").ok()?;
        let head = client.wire.read_head().ok()??;
        let body = client.wire.read_body(Client::framing("GET", &head)).ok()?;
        (head.status() == 200 && body.complete).then(|| Page::parse(&String::from_utf8_lossy(&body.content)))
    }

    /// The first page on which the condition holds.
    #[track_caller]
    pub fn page_when(&self, what: &str, mut condition: impl FnMut(&Page) -> bool) -> Page {
        let mut page = Page::default();
        let held = wait_for(PATIENCE, || {
            page = self.scrape();
            condition(&page)
        });
        assert!(held, "the page never showed: {what}\n{}", traffic_lines(&page));
        page
    }

    /// The page when exactly `requests` requests have been recorded and none is in flight.
    #[track_caller]
    pub fn settled(&self, requests: usize) -> Page {
        let page = self.page_when(&format!("{requests} requests, none in flight"), |page| {
            let recorded = page.sum("golden_requests_total", &[]);
            assert!(recorded <= requests as f64, "more than {requests} recorded\n{}", traffic_lines(page));
            recorded == requests as f64
                && page.sum("http_server_active_requests", &[]) == 0.0
                && page.sum("golden_inflight_requests", &[]) == 0.0
        });
        assert_eq!(page.sum("golden_inflight_oldest_age_seconds", &[]), 0.0, "nothing in flight has no age");
        page
    }

    /// Exactly these outcomes are on the page, in every family that tells of them, and nothing else.
    #[track_caller]
    pub fn expect(&self, outcomes: &[Outcome]) -> Page {
        let page = self.settled(outcomes.len());
        let mut requests = Vec::new();
        let mut errors = Vec::new();
        let mut aborts = Vec::new();
        let mut truncated = Vec::new();
        for outcome in outcomes {
            let Outcome { route, method, status, origin, error, abort, truncated: cut } = *outcome;
            requests.push(vec![
                ("http_route", route),
                ("http_request_method", method),
                ("http_response_status_code", status),
                ("origin", origin),
                ("traffic", "user"),
            ]);
            if let Some((error_type, fault, phase)) = error {
                errors.push(vec![
                    ("http_route", route),
                    ("error_type", error_type),
                    ("fault", fault),
                    ("phase", phase),
                ]);
            }
            aborts.extend(abort.map(|phase| vec![("http_route", route), ("phase", phase)]));
            truncated.extend(cut.then(|| vec![("http_route", route)]));
        }
        same_series(&page, "golden_requests_total", &requests);
        same_series(&page, "golden_errors_total", &errors);
        same_series(&page, "golden_client_aborts_total", &aborts);
        // Whether an answer that its client left is "truncated" too is not for this test to say.
        if aborts.is_empty() {
            same_series(&page, "golden_truncated_responses_total", &truncated);
        }
        assert_eq!(page.count("golden_abort_wait_seconds", &[]), aborts.len() as f64, "one wait per abort");
        let left_early = outcomes.iter().filter(|o| o.abort == Some("before_head")).count() as f64;
        assert_eq!(page.count("golden_time_to_first_byte_seconds", &[("outcome", "aborted")]), left_early);
        let error_of = |o: &Outcome| o.error.map_or("", |(error_type, ..)| error_type);
        for outcome in outcomes.iter().filter(|o| o.method != "_OTHER") {
            let alike = outcomes
                .iter()
                .filter(|o| {
                    (o.route, o.method, o.status, error_of(o))
                        == (outcome.route, outcome.method, outcome.status, error_of(outcome))
                })
                .count();
            let labels = [
                ("http_route", outcome.route),
                ("http_request_method", outcome.method),
                ("http_response_status_code", outcome.status),
                ("error_type", error_of(outcome)),
            ];
            assert_eq!(
                page.count("http_server_request_duration_seconds", &labels),
                alike as f64,
                "duration histogram of {labels:?}\n{}",
                page.lines_of("http_server_request_duration_seconds_count")
            );
        }
        page
    }

    /// Every line of standard error so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Whether a log line contains the text.
    #[must_use]
    pub fn logged(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(text))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sets how many file descriptors it may have while it runs, if told, and tells how many it might have before.
    pub fn limit_open_files(&self, limit: Option<u64>) -> u64 {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a pid");
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `before` is a valid place for one rlimit, and the child is not reaped before `self` is dropped.
        let read = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut before) };
        assert_eq!(read, 0, "prlimit");
        if let Some(limit) = limit {
            let new = libc::rlimit { rlim_cur: limit, ..before };
            // SAFETY: as above; `new` is a valid rlimit.
            let set = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const new, std::ptr::null_mut()) };
            assert_eq!(set, 0, "prlimit");
        }
        before.rlim_cur
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a pid");
        // SAFETY: kill has no memory effect, and the child is not reaped before `self` is dropped.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill");
    }

    /// The exit status, if it has ended.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait")
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let mut status = None;
        let ended = wait_for(deadline, || {
            status = self.try_exit();
            status.is_some()
        });
        assert!(ended, "still running after {deadline:?}");
        status.unwrap()
    }

    /// Replaces the text of the configuration file (in place, as an editor does).
    pub fn rewrite(&self, yaml: &str) {
        std::fs::write(self.config.path(), yaml).expect("write");
    }

    /// Bytes resident now.
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.status_kib("VmRSS:") * 1024
    }

    /// Highest bytes resident since the start or the last [`Sidecar::forget_peak`].
    #[must_use]
    pub fn peak_resident(&self) -> u64 {
        self.status_kib("VmHWM:") * 1024
    }

    /// Resets the peak to what is resident now (Linux: `5` to clear_refs).
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("clear_refs");
    }

    fn status_kib(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("status");
        let line = status.lines().find(|line| line.starts_with(key)).expect(key);
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let panicked = self.log().into_iter().find(|line| line.contains("panicked at"));
        if let (Some(line), false) = (panicked, std::thread::panicking()) {
            panic!("the sidecar panicked: {line}");
        }
    }
}

/// The lines that tell of requests, for messages.
fn traffic_lines(page: &Page) -> String {
    page.text
        .lines()
        .filter(|line| {
            [
                "golden_requests_total",
                "golden_errors_total",
                "golden_client_aborts",
                "golden_inflight",
                "http_server_active",
            ]
            .iter()
            .any(|name| line.starts_with(name))
                && !line.ends_with(" 0")
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The series of `name` that are not 0 are exactly the expected ones, each as often as it is listed.
#[track_caller]
fn same_series(page: &Page, name: &str, expected: &[Vec<(&str, &str)>]) {
    let mut left: Vec<_> = page.nonzero(name);
    for labels in expected {
        let found = left.iter_mut().find(|sample| {
            sample.value >= 1.0
                && sample.labels.len() == labels.len()
                && labels.iter().all(|(k, v)| sample.labels.get(*k).is_some_and(|have| v.split('|').any(|v| v == have)))
        });
        match found {
            Some(sample) => sample.value -= 1.0,
            None => panic!("{name} lacks {labels:?}; the page has\n{}", page.lines_of(name)),
        }
    }
    left.retain(|sample| sample.value != 0.0);
    assert!(left.is_empty(), "{name} has more than was expected: {left:?}");
}

/// A port that was free a moment ago, for programs that cannot take port 0.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port()
}
