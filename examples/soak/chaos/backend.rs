//! The backend: does to each request what its path says. A thread and a runtime of its own.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use super::plan::{Kind, STATUSES, filler, size};

/// Pauses that are shorter than every timeout: a loaded machine may make ten times of it.
const SHORT_PAUSE: Duration = Duration::from_millis(20);
/// A connection that is held and that nobody ends is a fault of the sidecar; the checks will say so.
const HOLD: Duration = Duration::from_secs(60);

/// What client and backend share beside the wire.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who wants to know that its request has come.
    waiting: Arc<Mutex<HashMap<u64, Arc<Notify>>>>,
    /// Counts up when the listener is to be closed for a while.
    restarts: Arc<watch::Sender<u64>>,
}

impl Backend {
    /// Starts it.
    pub fn start() -> Backend {
        let std_listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        std_listener.set_nonblocking(true).expect("nonblocking");
        let address = std_listener.local_addr().expect("an address");
        let backend = Backend { address, waiting: Arc::default(), restarts: Arc::new(watch::channel(0).0) };
        let own = backend.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            tokio::task::LocalSet::new().block_on(&runtime, own.listen(std_listener));
        });
        backend
    }

    /// Tells when the request of this number has come.
    pub fn arrival(&self, number: u64) -> Arc<Notify> {
        Arc::clone(self.waiting.lock().unwrap().entry(number).or_default())
    }

    /// Nobody waits any more.
    pub fn forget(&self, number: u64) {
        self.waiting.lock().unwrap().remove(&number);
    }

    /// Closes the listener for a moment, and all connections that carry no request.
    pub fn restart(&self) {
        self.restarts.send_modify(|count| *count += 1);
    }

    async fn listen(self, first: std::net::TcpListener) {
        let mut listener = TcpListener::from_std(first).expect("a listener");
        let mut restarts = self.restarts.subscribe();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let own = self.clone();
                    tokio::task::spawn_local(async move {
                        // A sidecar that closes is what many plans are about.
                        let _ended = own.serve(stream).await;
                    });
                }
                _ = restarts.changed() => {
                    drop(listener);
                    tokio::time::sleep(Duration::from_millis(150)).await;
                    listener = loop {
                        match TcpListener::bind(self.address).await {
                            Ok(listener) => break listener,
                            Err(_in_use) => tokio::time::sleep(SHORT_PAUSE).await,
                        }
                    };
                }
            }
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let _ = stream.set_nodelay(true);
        let mut restarts = self.restarts.subscribe();
        let mut buffer = Vec::with_capacity(4_096);
        loop {
            let end = loop {
                if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    break end + 4;
                }
                tokio::select! {
                    read = stream.read_buf(&mut buffer) => if read? == 0 { return Ok(()) },
                    _ = restarts.changed(), if buffer.is_empty() => return Ok(()),
                }
            };
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.drain(..end);
            if !self.answer(&mut stream, &mut buffer, &head).await? {
                return Ok(());
            }
        }
    }

    /// Does what the path says; whether the connection stays.
    async fn answer(&self, stream: &mut TcpStream, buffer: &mut Vec<u8>, head: &str) -> io::Result<bool> {
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut segments = path.split('/').skip(2);
        let kind = segments.next().and_then(Kind::named).unwrap_or(Kind::Fine);
        let number: u64 = segments.next().and_then(|text| text.parse().ok()).unwrap_or_default();
        let waiting = self.waiting.lock().unwrap().get(&number).cloned();
        if let Some(waiting) = waiting {
            waiting.notify_one();
        }
        let size = size(kind, number);
        let body = vec![filler(number); if method == "HEAD" { 0 } else { size }];
        let ok = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
        if !matches!(kind, Kind::Early | Kind::LeaveInUpload | Kind::UploadTimeout) {
            read_body(stream, buffer, head).await?;
        }
        match kind {
            Kind::Fine
            | Kind::Upload
            | Kind::SlowUpload
            | Kind::SlowReader
            | Kind::CloseAfter
            | Kind::ShortStall
            | Kind::BadRequest
            | Kind::LeaveInHead => {
                if kind == Kind::ShortStall {
                    tokio::time::sleep(SHORT_PAUSE * (1 + (number % 8) as u32)).await;
                }
                stream.write_all(&[ok.as_bytes(), &body].concat()).await?;
                return Ok(kind != Kind::CloseAfter);
            }
            Kind::Chunked => {
                let mut out = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                if method != "HEAD" {
                    for chunk in body.chunks(700) {
                        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                        out.extend_from_slice(chunk);
                        out.extend_from_slice(b"\r\n");
                    }
                    out.extend_from_slice(b"0\r\n\r\n");
                }
                stream.write_all(&out).await?;
                return Ok(true);
            }
            Kind::UntilClose => {
                stream.write_all(&[b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &body].concat()).await?;
            }
            Kind::Status => {
                let status = STATUSES[(number % STATUSES.len() as u64) as usize];
                let bodyless = matches!(status, 204 | 304);
                let length = if bodyless { String::new() } else { format!("Content-Length: {size}\r\n") };
                let out = format!("HTTP/1.1 {status} Reason\r\n{length}\r\n").into_bytes();
                stream.write_all(&if bodyless { out } else { [out, body].concat() }).await?;
                return Ok(true);
            }
            Kind::CloseBeforeHead => {}
            Kind::ResetBeforeHead => reset(stream),
            Kind::CloseInHead => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await?,
            Kind::ResetInHead => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await?;
                reset(stream);
            }
            Kind::Garbage => stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await?,
            Kind::HugeHead => {
                let mut out = b"HTTP/1.1 200 OK\r\nX-Huge: ".to_vec();
                out.resize(100_000, b'h');
                stream.write_all(&out).await?;
                hold(stream).await;
            }
            Kind::Truncated | Kind::ResetInBody => {
                stream.write_all(&[ok.as_bytes(), &body[..body.len() / 2]].concat()).await?;
                if kind == Kind::ResetInBody {
                    // Now and then the head is read before the reset comes, now and then not: the client knows.
                    if !number.is_multiple_of(4) {
                        tokio::time::sleep(SHORT_PAUSE).await;
                    }
                    reset(stream);
                }
            }
            Kind::BadChunk => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await?;
                if !number.is_multiple_of(4) {
                    tokio::time::sleep(SHORT_PAUSE).await;
                }
                stream.write_all(b"zz\r\nworld\r\n").await?;
                hold(stream).await;
            }
            Kind::Early => {
                stream
                    .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
                    .await?;
                hold(stream).await;
            }
            Kind::SlowBody => {
                stream.write_all(ok.as_bytes()).await?;
                for piece in body.chunks(body.len().div_ceil(5).max(1)) {
                    tokio::time::sleep(SHORT_PAUSE).await;
                    stream.write_all(piece).await?;
                }
                return Ok(true);
            }
            Kind::HeadTimeout | Kind::LeaveBeforeHead | Kind::LeaveInUpload | Kind::UploadTimeout => hold(stream).await,
            Kind::BodyTimeout | Kind::LeaveInBody => {
                stream.write_all(&[ok.as_bytes(), &body[..body.len() / 2]].concat()).await?;
                hold(stream).await;
            }
            Kind::Tunnel => {
                let out = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                stream.write_all(out).await?;
                let mut bytes = [0; 1_024];
                loop {
                    match stream.read(&mut bytes).await? {
                        0 => break,
                        n => stream.write_all(&bytes[..n]).await?,
                    }
                }
            }
            Kind::Events | Kind::LeaveEvents => {
                let out = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(out).await?;
                for _ in 0..5 {
                    stream.write_all(b"a\r\ndata: 12\n\n\r\n").await?;
                    tokio::time::sleep(SHORT_PAUSE).await;
                }
                if kind == Kind::LeaveEvents {
                    hold(stream).await;
                    return Ok(false);
                }
                stream.write_all(b"0\r\n\r\n").await?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Closing will reset.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Waits until the sidecar ends the connection.
async fn hold(stream: &mut TcpStream) {
    let mut bytes = vec![0; 16 * 1_024];
    let ended = async { while !matches!(stream.read(&mut bytes).await, Ok(0) | Err(_)) {} };
    let _ = tokio::time::timeout(HOLD, ended).await;
}

/// Reads the body of a request, whatever it is.
async fn read_body(stream: &mut TcpStream, buffer: &mut Vec<u8>, head: &str) -> io::Result<()> {
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    if let Some(length) = field("content-length") {
        let mut left: usize = length.parse().unwrap_or_default();
        loop {
            let taken = left.min(buffer.len());
            buffer.drain(..taken);
            left -= taken;
            if left == 0 {
                return Ok(());
            }
            if stream.read_buf(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
    if field("transfer-encoding").is_some() {
        loop {
            let line = loop {
                if let Some(end) = buffer.windows(2).position(|window| window == b"\r\n") {
                    break buffer.drain(..end + 2).collect::<Vec<u8>>();
                }
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            };
            let text = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(text.trim(), 16).unwrap_or_default();
            while buffer.len() < size + 2 {
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            buffer.drain(..size + 2);
            if size == 0 {
                return Ok(());
            }
        }
    }
    Ok(())
}
