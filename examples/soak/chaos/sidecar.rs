//! The sidecar as a process: its files, its log, what the kernel knows of it, its metrics page.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::backend::Backend;
use super::page::Page;

/// Lines of the log that are kept.
const LOG_LINES: usize = 1_000;

/// What goes into the file. Each takes the place of the one before with a SIGHUP.
pub const CONFIGURATIONS: [(bool, &str); 4] = [
    (
        true,
        "timeouts: {client_head: 3s, client_body: 2s, head: 2s, body: 2s, pool_wait: 2s, upstream_idle: 3s}\n\
         routes: [ROUTES]\n",
    ),
    (false, "timeouts: {heads: 1s}\n"),
    (
        true,
        "timeouts: {client_head: 4s, client_body: 3s, head: 3s, body: 3s, pool_wait: 3s, upstream_idle: 2s, upstream_age: 4s}\n\
         limits: {inflight: 150, upstream_connections: 200, headers: 60}\n\
         routes: [ROUTES, {path: '/moving/{kind}/{number}'}]\n\
         buckets: [0.01, 0.1, 1, 10]\n\
         slos: [{name: soak, objective: 0.9, latency: 100ms}]\n",
    ),
    (false, "routes: [{path: 'no/slash'}]\nlimits: 7"),
];

/// Routes that are there in every configuration.
const ROUTES: [&str; 5] = ["fine", "fault", "slow", "abort", "stream"];

/// A running sidecar; killed when dropped.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    /// The proxy.
    pub proxy: SocketAddr,
    /// The admin port.
    pub admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
}

/// A configuration as text.
fn configuration(index: usize) -> String {
    let routes: Vec<_> = ROUTES.iter().map(|name| format!("{{path: '/{name}/{{kind}}/{{number}}'}}")).collect();
    CONFIGURATIONS[index % CONFIGURATIONS.len()].1.replace("ROUTES", &routes.join(", "))
}

impl Sidecar {
    /// Starts it with the first configuration and waits until it listens.
    pub fn start(program: &Path, backend: &Backend) -> Sidecar {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("soak.yaml");
        std::fs::write(&file, configuration(0)).expect("write");
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GOLDEN_")) {
            command.env_remove(name);
        }
        command.args(["--upstream", &format!("http://{}", backend.address), "--listen", "127.0.0.1:0"]);
        command.args(["--admin", "127.0.0.1:0", "--workers", "2", "--config"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, listening) = std::sync::mpsc::channel();
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    if let Some(addresses) = addresses(&line) {
                        let _nobody_waits = sender.send(addresses);
                    }
                    let mut log = log.lock().unwrap();
                    // Of a panic the first lines matter.
                    if log.len() < LOG_LINES || line.contains("panicked") {
                        log.push(line);
                    }
                }
            }
        });
        let waited = listening.recv_timeout(super::client::PATIENCE);
        let (proxy, admin) = waited.unwrap_or_else(|_| panic!("it does not listen: {:#?}", log.lock().unwrap()));
        Sidecar { child, proxy, admin, log, folder }
    }

    /// Writes the configuration of this index and asks for a reload.
    pub fn reload(&self, index: usize) -> io::Result<()> {
        let mut file = std::fs::File::create(self.folder.path().join("soak.yaml"))?;
        file.write_all(configuration(index).as_bytes())?;
        // SAFETY: kill has no memory effect, and the child is not reaped before `self` is dropped.
        let sent = unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGHUP) };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Why it is not well, if it is not: it ended or a thread of it panicked.
    pub fn trouble(&mut self) -> Option<String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(format!("the sidecar ended: {status}; {:?}", self.log.lock().unwrap().last()));
        }
        self.log.lock().unwrap().iter().find(|line| line.contains("panicked")).map(|line| format!("a panic: {line}"))
    }

    /// Bytes resident.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        kib.unwrap_or(0_u64) * 1_024
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// What the sockets among them are, by state, for messages.
    pub fn sockets(&self) -> String {
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.child.id())).unwrap_or_default();
        let mut lines = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).into_iter().flatten().flatten() {
            let link = std::fs::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned();
            let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).unwrap_or("-");
            let line = table.lines().find(|line| line.split_whitespace().nth(9) == Some(inode));
            let columns: Vec<_> = line.unwrap_or_default().split_whitespace().skip(1).take(3).collect();
            lines.push(format!("{link} {}", columns.join(" ")));
        }
        lines.join("\n")
    }
}

/// The page in the text format.
pub async fn page(admin: SocketAddr) -> Result<Page, String> {
    let body = fetch(admin, "Accept: text/plain\r\n").await.map_err(|error| error.to_string())?;
    Ok(Page(String::from_utf8_lossy(&body).into_owned()))
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The metrics page in whatever form the fields ask for.
pub async fn fetch(admin: SocketAddr, fields: &str) -> io::Result<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        Ok::<_, io::Error>(bytes)
    };
    let bytes = tokio::time::timeout(super::client::PATIENCE, exchange).await??;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |end| end + 4);
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(format!("a scrape got {:?}", head.lines().next())));
    }
    let body = &bytes[end..];
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return Ok(body.to_vec());
    }
    let (mut content, mut rest) = (Vec::new(), body);
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = std::str::from_utf8(&rest[..line]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or(io::ErrorKind::InvalidData)?;
        let chunk = rest.get(line + 2..line + 2 + size).ok_or(io::ErrorKind::UnexpectedEof)?;
        if size == 0 {
            return Ok(content);
        }
        content.extend_from_slice(chunk);
        rest = rest.get(line + 4 + size..).ok_or(io::ErrorKind::UnexpectedEof)?;
    }
}

/// The two addresses of the line that says that it listens.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let json: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = json.get("fields").unwrap_or(&json);
    if fields.get("event")?.as_str()? != "listening" {
        return None;
    }
    Some((fields.get("proxy")?.as_str()?.parse().ok()?, fields.get("admin")?.as_str()?.parse().ok()?))
}
