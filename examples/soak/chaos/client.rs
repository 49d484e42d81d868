//! Clients over HTTP/1.1: each sends what its plan says, and notes what it saw.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::backend::Backend;
use super::ledger::Seen;
use super::plan::{Kind, Plan, filler, size, upload_size};

/// Longer than any plan takes, timeouts of the sidecar included.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Shorter than every timeout of the sidecar.
const SHORT_PAUSE: Duration = Duration::from_millis(20);

/// A connection to the sidecar.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What was read of the current answer.
    keeps: bool,
}

/// A response head, as far as it matters.
#[derive(Debug)]
struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
    /// The word of the sidecar, if it made the answer.
    word: Option<String>,
}

/// The word in `details` of a `Proxy-Status` field that is the sidecar's.
pub fn word_of(proxy_status: &str) -> Option<String> {
    let details = proxy_status.strip_prefix("golden-sidecar")?.split_once("details=\"")?.1;
    Some(details.split('"').next().unwrap_or_default().to_owned())
}

/// Sends one request on the connection, if there is one, else on a new one; leaves the connection there if it can go on.
pub async fn request(to: SocketAddr, backend: &Backend, kept: &mut Option<Connection>, plan: &Plan) -> Seen {
    match tokio::time::timeout(PATIENCE, attempt(to, backend, kept, plan)).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(error)) => Seen::Broken(format!("no answer: {error}")),
        Err(_elapsed) => Seen::Broken("nothing happened".to_owned()),
    }
}

async fn attempt(to: SocketAddr, backend: &Backend, kept: &mut Option<Connection>, plan: &Plan) -> io::Result<Seen> {
    let mut connection = match kept.take().filter(|_| plan.kind != Kind::SlowReader) {
        Some(connection) => connection,
        None => Connection::new(to, plan.kind == Kind::SlowReader).await?,
    };
    let Plan { kind, number, method, path, .. } = plan;
    let (kind, number) = (*kind, *number);
    let length = if kind.uploads() { upload_size(number) } else { 0 };
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: soak\r\n");
    match kind {
        _ if kind.uploads() => head.push_str(&format!("Content-Length: {length}\r\n")),
        Kind::Tunnel => head.push_str("Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        Kind::BadRequest => head.push_str("Host: twice\r\n"),
        _ if number.is_multiple_of(50) => head.push_str("Connection: close\r\n"),
        _ => {}
    }
    head.push_str("\r\n");
    let head = head.into_bytes();
    let body = vec![b'u'; length];
    match kind {
        Kind::LeaveInHead => {
            connection.stream.write_all(&head[..head.len() / 2]).await?;
            connection.leave(number);
            return Ok(Seen::NoRequest);
        }
        Kind::LeaveBeforeHead | Kind::LeaveInUpload => {
            let arrival = backend.arrival(number);
            let sent = [head.as_slice(), &body[..length / 2]].concat();
            let seen = async {
                connection.stream.write_all(&sent).await?;
                tokio::select! {
                    // An answer instead: the backend was not there.
                    answer = connection.answer(plan) => answer,
                    () = arrival.notified() => Ok(Seen::Left(None)),
                }
            }
            .await;
            backend.forget(number);
            if seen.as_ref().is_ok_and(|seen| *seen == Seen::Left(None)) {
                connection.leave(number);
            }
            return seen;
        }
        Kind::SlowUpload => {
            connection.stream.write_all(&head).await?;
            for piece in body.chunks(length.div_ceil(5)) {
                tokio::time::sleep(SHORT_PAUSE).await;
                // The answer may come before: it is read below.
                if connection.stream.write_all(piece).await.is_err() {
                    break;
                }
            }
        }
        Kind::UploadTimeout => connection.stream.write_all(&[&head, &body[..length / 2]].concat()).await?,
        Kind::Upload | Kind::Early => {
            // Whoever answers early may have stopped to read.
            let _ = connection.stream.write_all(&[head, body].concat()).await;
        }
        _ => connection.stream.write_all(&head).await?,
    }
    let seen = connection.answer(plan).await?;
    match (&seen, kind) {
        (Seen::Left(_), _) => {
            connection.leave(number);
            return Ok(seen);
        }
        // Half a body is owed on this connection.
        (_, Kind::UploadTimeout | Kind::SlowReader) => return Ok(seen),
        _ => {}
    }
    if connection.keeps {
        if !connection.buffer.is_empty() {
            return Ok(Seen::Broken("more than one answer".to_owned()));
        }
        *kept = Some(connection);
    }
    Ok(seen)
}

impl Connection {
    async fn new(to: SocketAddr, slow: bool) -> io::Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        if slow {
            // So that what is not read is not in the kernel either.
            socket.set_recv_buffer_size(16 * 1_024)?;
        }
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::new(), keeps: false })
    }

    /// Closes, every other time with a reset.
    fn leave(self, number: u64) {
        if number.is_multiple_of(2) {
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }

    /// Reads the answer as the plan wants it read.
    async fn answer(&mut self, plan: &Plan) -> io::Result<Seen> {
        let Head { status, length, chunked, word } = self.head().await?;
        if status == 101 {
            return self.echo().await;
        }
        let own = word.is_some();
        if plan.method == "HEAD" || matches!(status, 204 | 304) {
            return Ok(Seen::Answer(status, word, true));
        }
        let leaves = !own && status == 200 && matches!(plan.kind, Kind::LeaveInBody | Kind::LeaveEvents);
        if leaves {
            // Something of the body is there.
            while self.buffer.is_empty() {
                if self.fill().await? == 0 {
                    return Ok(Seen::Broken("the answer ended before its client could leave".to_owned()));
                }
            }
            return Ok(Seen::Left(Some(status)));
        }
        let slow = plan.kind == Kind::SlowReader;
        let body = if chunked { self.chunks().await } else { self.bytes(length, slow).await };
        let Some(body) = body else {
            self.keeps = false;
            return Ok(Seen::Answer(status, word, false));
        };
        if own || status == 413 || plan.kind == Kind::Events || plan.kind == Kind::BadChunk {
            return Ok(Seen::Answer(status, word, true));
        }
        let expected = filler(plan.number);
        if body.len() != size(plan.kind, plan.number) || body.iter().any(|byte| *byte != expected) {
            return Ok(Seen::Broken(format!("{} bytes of a body, not its own", body.len())));
        }
        Ok(Seen::Answer(status, word, true))
    }

    async fn head(&mut self) -> io::Result<Head> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end);
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|text| text.parse().ok());
        let mut head = Head { status: status.unwrap_or_default(), length: None, chunked: false, word: None };
        self.keeps = true;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match &*name.to_ascii_lowercase() {
                "content-length" => head.length = value.parse().ok(),
                "transfer-encoding" => head.chunked = true,
                "connection" if value == "close" => self.keeps = false,
                "proxy-status" => head.word = word_of(value),
                _ => {}
            }
        }
        Ok(head)
    }

    /// A body of this length; nothing when it is cut.
    async fn bytes(&mut self, length: Option<usize>, slow: bool) -> Option<Vec<u8>> {
        let length = length.unwrap_or_default();
        while self.buffer.len() < length {
            if slow {
                tokio::time::sleep(SHORT_PAUSE / 4).await;
            }
            if !matches!(self.fill().await, Ok(1..)) {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// A chunked body; nothing when it is cut.
    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                    break end;
                }
                if !matches!(self.fill().await, Ok(1..)) {
                    return None;
                }
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[..end]).ok()?, 16).ok()?;
            while self.buffer.len() < end + 2 + size + 2 {
                if !matches!(self.fill().await, Ok(1..)) {
                    return None;
                }
            }
            body.extend_from_slice(&self.buffer[end + 2..end + 2 + size]);
            self.buffer.drain(..end + 2 + size + 2);
            if size == 0 {
                return Some(body);
            }
        }
    }

    /// What a tunnel is for.
    async fn echo(&mut self) -> io::Result<Seen> {
        self.keeps = false;
        for turn in 0..3_u8 {
            self.stream.write_all(&[turn; 100]).await?;
            while self.buffer.len() < 100 {
                if self.fill().await? == 0 {
                    return Ok(Seen::Broken("a tunnel ended".to_owned()));
                }
            }
            if self.buffer.drain(..100).any(|byte| byte != turn) {
                return Ok(Seen::Broken("a tunnel gave back something else".to_owned()));
            }
        }
        Ok(Seen::Answer(101, None, true))
    }
}
