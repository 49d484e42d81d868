//! One test for each defect that was found by attacking the data plane: a real binary between raw sockets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Nothing in these tests takes longer than this, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running sidecar, killed at the end.
struct Sidecar {
    child: Child,
    proxy: SocketAddr,
    admin: SocketAddr,
}

impl Sidecar {
    fn start(upstream: SocketAddr, options: &[(&str, &str)]) -> Sidecar {
        let mut command = Command::new(env!("CARGO_BIN_EXE_golden-sidecar"));
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        // A file of options may name the backend itself.
        if !options.iter().any(|(name, _)| *name == "GOLDEN_CONFIG") {
            command.args(["--upstream", &format!("http://{upstream}")]);
        }
        // Cargo gives tests what the build script set for the compiler; to the sidecar it is an unknown option.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GOLDEN_")) {
            command.env_remove(name);
        }
        let mut child =
            command.envs(options.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        let outputs: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _nobody_listens_any_more = sender.send(line);
                }
            });
        }
        drop(sender);
        let line = loop {
            let line = lines.recv_timeout(PATIENCE).expect("a line that says where it listens");
            if line.contains("listening") {
                break line;
            }
        };
        let mut found = line.split("127.0.0.1:").skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            SocketAddr::from(([127, 0, 0, 1], rest[..end].parse().unwrap()))
        });
        Sidecar { proxy: found.next().unwrap(), admin: found.next().unwrap(), child }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.proxy).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The value of a series, 0 if it is absent.
    fn metric(&self, series: &str) -> f64 {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).map_or(0.0, |v| v.parse().unwrap())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A backend that gives each connection to `serve`, on a thread of its own.
fn backend(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = std::sync::Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = std::sync::Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Reads up to the end of a head. `None` at the end of the connection.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    Some(String::from_utf8(bytes).unwrap())
}

/// Reads to the end of the connection.
fn rest(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

// === HTTP/2 ===

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// HEADERS of a GET, each field a literal.
fn get(stream: u32, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")] {
        block.extend([0, name.len() as u8]);
        block.extend(name.bytes());
        block.push(value.len() as u8);
        block.extend(value.bytes());
    }
    frame(1, 5, stream, &block)
}

/// SETTINGS with a window for each stream.
fn settings(window: u32) -> Vec<u8> {
    let mut payload = vec![0, 4];
    payload.extend(window.to_be_bytes());
    frame(4, 0, 0, &payload)
}

/// Reads frames until one of this kind comes; its stream and payload. `None` at the end of the connection.
fn await_frame(stream: &mut TcpStream, kind: u8) -> Option<(u32, Vec<u8>)> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).ok()?;
        if head[3] == kind {
            return Some((u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload));
        }
    }
}

#[test]
fn a_stream_whose_client_does_not_read_gives_its_backend_connection_back() {
    let upstream = backend(|mut stream| {
        while let Some(request) = head(&mut stream) {
            if request.starts_with("GET /big ") {
                let _cut = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
                while stream.write_all(&[b'x'; 65536]).is_ok() {}
                return;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    });
    let options = [("GOLDEN_TIMEOUTS_BODY", "300ms"), ("GOLDEN_LIMITS_UPSTREAM_CONNECTIONS", "1")];
    let sidecar = Sidecar::start(upstream, &options);
    let mut client = sidecar.connect();
    client.write_all(&[PREFACE, &settings(0), &get(1, "/big")].concat()).unwrap();
    let (stream, _) = await_frame(&mut client, 3).expect("RST_STREAM");
    assert_eq!(stream, 1);
    let errors =
        "golden_errors_total{http_route=\"/big\",error_type=\"client_timeout\",fault=\"client\",phase=\"body\"}";
    assert!((sidecar.metric(errors) - 1.0).abs() < 0.1);
    // The only backend connection there may be is free again, and the client's connection lives.
    client.write_all(&[settings(65535), get(3, "/")].concat()).unwrap();
    assert_eq!(await_frame(&mut client, 0).expect("DATA"), (3, b"ok".to_vec()));
}

#[test]
fn an_idle_http2_client_that_does_not_answer_the_goodbye_is_closed() {
    let upstream = backend(drop);
    let options = [("GOLDEN_TIMEOUTS_CLIENT_IDLE", "300ms"), ("GOLDEN_TIMEOUTS_CLIENT_HEAD", "300ms")];
    let sidecar = Sidecar::start(upstream, &options);
    let mut client = sidecar.connect();
    client.write_all(&[PREFACE, &settings(65535)].concat()).unwrap();
    assert!(await_frame(&mut client, 7).is_some(), "GOAWAY");
    // To the end of the connection, not to the end of our own patience.
    assert!(rest(&mut client).is_ok());
}

#[test]
fn an_interim_response_does_not_take_away_the_answer_to_a_failure() {
    let upstream = backend(|mut stream| {
        let Some(request) = head(&mut stream) else { return };
        if request.starts_with("GET ") {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").unwrap();
        } else {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            let _until_the_sidecar_closes = rest(&mut stream);
        }
    });
    let sidecar = Sidecar::start(upstream, &[]);
    let mut client = sidecar.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let answer = rest(&mut client).unwrap();
    assert!(answer.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 502 "), "{answer}");

    let mut client = sidecar.connect();
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(post).unwrap();
    assert!(head(&mut client).unwrap().starts_with("HTTP/1.1 100 "));
    client.write_all(b"zz\r\n").unwrap();
    let answer = rest(&mut client).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let series = "golden_requests_total{http_route=\"_unmatched\",http_request_method=\"POST\",\
                  http_response_status_code=\"400\",origin=\"proxy\",traffic=\"user\"}";
    assert!((sidecar.metric(series) - 1.0).abs() < 0.1);
}

/// Sends a signal to the sidecar.
fn signal(sidecar: &Sidecar, signal: &str) {
    let sent = Command::new("kill").args([signal, &sidecar.child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits until a series has a value.
#[allow(clippy::disallowed_methods, reason = "the one place that polls")]
fn await_metric(sidecar: &Sidecar, series: &str, value: f64) {
    let mut looks = 0;
    while (sidecar.metric(series) - value).abs() > 0.1 {
        looks += 1;
        assert!(looks < 1000, "{series} is {}, not {value}", sidecar.metric(series));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A configuration file that can be written anew.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        let file = File(std::env::temp_dir().join(format!("golden-{}-{name}.yaml", std::process::id())));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_burst_on_one_worker_gets_all_the_idle_connections_of_another() {
    const CONNECTIONS: usize = 16;
    let round = std::sync::Barrier::new(CONNECTIONS);
    let upstream = backend(move |mut stream| {
        while let Some(request) = head(&mut stream) {
            if request.starts_with("GET /together ") {
                // All of a burst must be there before the first is answered: so each needs its own connection.
                round.wait();
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    });
    let text = |limit: usize| {
        format!(
            "upstream: http://{upstream}\nworkers: 2\ntimeouts:\n  pool_wait: 1s\nlimits:\n  upstream_connections: {limit}\n"
        )
    };
    let file = File::new("burst", &text(1));
    let sidecar = Sidecar::start(upstream, &[("GOLDEN_CONFIG", file.path())]);
    let ask = |client: &mut TcpStream| client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let hear = |client: &mut TcpStream| {
        let answer = head(client).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        client.read_exact(&mut [0; 2]).unwrap();
    };
    // With a single connection to the backend it changes hands whenever the other worker needs it: that tells whose a
    // client is. Of 100 clients each worker has 16, in all but one of 10^11 runs.
    let mut workers = [Vec::new(), Vec::new()];
    let (mut opened, mut at) = (1.0, 0);
    for _ in 0..100 {
        let mut client = sidecar.connect();
        ask(&mut client);
        hear(&mut client);
        let now = sidecar.metric("golden_upstream_connections_opened_total");
        if now > opened {
            (opened, at) = (now, 1 - at);
        }
        workers[at].push(client);
    }
    file.write(&text(CONNECTIONS));
    signal(&sidecar, "-HUP");
    await_metric(&sidecar, "golden_upstream_pool_limit", CONNECTIONS as f64);
    for clients in &mut workers {
        let clients = &mut clients[..CONNECTIONS];
        // Stopped while they send, so that the whole burst is there at once.
        signal(&sidecar, "-STOP");
        for client in clients.iter_mut() {
            client.write_all(b"GET /together HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        }
        signal(&sidecar, "-CONT");
        clients.iter_mut().for_each(hear);
    }
}

#[test]
fn after_a_reload_no_request_goes_to_the_old_backend() {
    let named = |name: &'static str| {
        backend(move |mut stream| {
            while head(&mut stream).is_some() {
                stream
                    .write_all(format!("HTTP/1.1 200 OK\r\nX-Name: {name}\r\nContent-Length: 0\r\n\r\n").as_bytes())
                    .unwrap();
            }
        })
    };
    let (old, new) = (named("old"), named("new"));
    // The limit is changed too: its gauge tells when the reload is done.
    let text = |upstream, limit| {
        format!("upstream: http://{upstream}\nworkers: 1\nlimits:\n  upstream_connections: {limit}\n")
    };
    let file = File::new("reload", &text(old, 8));
    let sidecar = Sidecar::start(old, &[("GOLDEN_CONFIG", file.path())]);
    let mut client = sidecar.connect();
    let mut ask = || {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        head(&mut client).unwrap()
    };
    assert!(ask().contains("X-Name: old"));
    file.write(&text(new, 9));
    signal(&sidecar, "-HUP");
    await_metric(&sidecar, "golden_upstream_pool_limit", 9.0);
    // The pooled connection is closed before the worker takes another request.
    await_metric(&sidecar, "golden_upstream_connections{state=\"idle\"}", 0.0);
    assert!(ask().contains("X-Name: new"));
}

#[test]
fn a_backend_that_does_not_ask_for_the_expected_body_is_the_one_that_is_late() {
    let upstream = backend(|mut stream| {
        let _until_the_sidecar_closes = rest(&mut stream);
    });
    let options = [("GOLDEN_TIMEOUTS_HEAD", "300ms"), ("GOLDEN_TIMEOUTS_CLIENT_BODY", "300ms")];
    let sidecar = Sidecar::start(upstream, &options);
    let mut client = sidecar.connect();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n").unwrap();
    let answer = rest(&mut client).unwrap();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
}

#[test]
fn nominating_thousands_of_fields_is_refused() {
    let sidecar = Sidecar::start(backend(drop), &[]);
    let mut client = sidecar.connect();
    let nominated = "x,".repeat(20_000);
    client.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {nominated}\r\n\r\n").as_bytes()).unwrap();
    assert!(rest(&mut client).unwrap().starts_with("HTTP/1.1 431 "));
}

#[test]
fn a_switch_of_protocols_before_the_end_of_the_request_is_refused() {
    let upstream = backend(|mut stream| {
        let _request = head(&mut stream);
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
        stream.write_all(switch).unwrap();
        let _until_the_sidecar_closes = rest(&mut stream);
    });
    let sidecar = Sidecar::start(upstream, &[]);
    let mut client = sidecar.connect();
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 9\r\n\r\n";
    client.write_all(post).unwrap();
    assert!(head(&mut client).unwrap().starts_with("HTTP/1.1 502 "));
}

#[test]
fn closing_takes_no_answer_away_from_a_client_that_has_sent_more() {
    const BODY: usize = 4 * 1024 * 1024;
    let (asked, wait) = std::sync::mpsc::channel();
    let (go, may) = std::sync::mpsc::channel();
    let may = std::sync::Mutex::new(may);
    let upstream = backend(move |mut stream| {
        let Some(_request) = head(&mut stream) else { return };
        let _probe_has_no_request = asked.send(());
        may.lock().unwrap().recv().unwrap();
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n").as_bytes()).unwrap();
        stream.write_all(&vec![b'x'; BODY]).unwrap();
        let _next = head(&mut stream);
    });
    let sidecar = Sidecar::start(upstream, &[("GOLDEN_DRAIN_GRACE", "10s")]);
    let mut client = sidecar.connect();
    // More requests than the sidecar reads while it waits for the first answer.
    client.write_all(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4000)).unwrap();
    wait.recv_timeout(PATIENCE).unwrap();
    // From now on each answer is the last of its connection.
    signal(&sidecar, "-TERM");
    await_metric(&sidecar, "golden_draining", 1.0);
    go.send(()).unwrap();
    let answer = head(&mut client).unwrap();
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert_eq!(rest(&mut client).unwrap().len(), BODY);
}
