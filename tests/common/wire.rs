//! HTTP/1 as bytes on a socket, written independently of any HTTP library: what the tests send and see is exactly this.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A message head as received.
#[derive(Clone, Debug)]
pub struct Head {
    /// Request line or status line, without its line end.
    pub line: String,
    /// Fields in order; the name as received, the value without surrounding blanks.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Every byte, the empty line included.
    pub raw: Vec<u8>,
}

impl Head {
    /// Takes a head apart; `raw` ends with the empty line.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Head {
        let text = raw.strip_suffix(b"\r\n\r\n").expect("a head ends with an empty line");
        let mut lines = split_crlf(text).into_iter();
        let line = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let fields = lines
            .map(|line| {
                let colon = line.iter().position(|b| *b == b':').unwrap_or_else(|| {
                    panic!("a field line without a colon came through: {:?}", String::from_utf8_lossy(line))
                });
                (String::from_utf8_lossy(&line[..colon]).into_owned(), line[colon + 1..].trim_ascii().to_vec())
            })
            .collect();
        Head { line, fields, raw: raw.to_vec() }
    }

    /// All values of a field, in order.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<String> {
        self.fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.iter().map(|b| char::from(*b)).collect())
            .collect()
    }

    /// All values as bytes, in order.
    #[must_use]
    pub fn all_bytes(&self, name: &str) -> Vec<Vec<u8>> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone()).collect()
    }

    /// All values joined as one list, which is what several lines of one field mean (RFC 9110, section 5.3).
    #[must_use]
    pub fn list(&self, name: &str) -> String {
        self.all(name).join(", ")
    }

    /// The only value of a field, or nothing; panics when there are several.
    #[must_use]
    #[track_caller]
    pub fn one(&self, name: &str) -> Option<String> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} came {} times: {all:?}", all.len());
        all.into_iter().next()
    }

    /// Whether the field is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// Whether a list-valued field holds this token, ignoring case.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    /// The method of a request line.
    #[must_use]
    pub fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or("")
    }

    /// The target of a request line.
    #[must_use]
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or("")
    }

    /// The status of a status line.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }
}

fn split_crlf(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = find(rest, b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    lines
}

/// Where `needle` starts in `haystack`.
#[must_use]
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body at all.
    None,
    /// Content-Length.
    Length(u64),
    /// Chunked.
    Chunked,
    /// Until the connection ends (responses only).
    Close,
}

/// A body as received.
#[derive(Clone, Debug)]
pub struct Body {
    /// The content, without framing.
    pub content: Vec<u8>,
    /// Sizes of the chunks, when chunked.
    pub chunks: Vec<usize>,
    /// Trailer fields, when chunked.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// Whether the framing was satisfied; a body that was cut is not complete.
    pub complete: bool,
}

/// What a reader has received so far, for whoever wants to look.
#[derive(Debug, Default)]
pub struct Received {
    /// The first mebibyte of raw bytes: enough to look at, bounded for tests that send much more.
    pub bytes: Vec<u8>,
    /// All bytes.
    pub total: u64,
    /// How the peer ended its side.
    pub end: Option<End>,
}

/// How the peer's side of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN.
    Closed,
    /// RST.
    Reset,
}

/// A socket with what was read but not yet used.
#[derive(Debug)]
pub struct Wire {
    /// The socket.
    pub stream: TcpStream,
    /// Read, not yet consumed.
    pub buffer: Vec<u8>,
    /// Everything that ever came.
    pub received: Arc<Mutex<Received>>,
}

impl Wire {
    /// Wraps a socket; reads give up after `timeout`.
    #[must_use]
    pub fn new(stream: TcpStream, timeout: Duration) -> Wire {
        stream.set_read_timeout(Some(timeout)).expect("read timeout");
        stream.set_nodelay(true).expect("nodelay");
        Wire { stream, buffer: Vec::new(), received: Arc::default() }
    }

    /// Reads once; 0 at the end of the stream. A read timeout is an error of kind `WouldBlock`.
    pub fn fill(&mut self) -> io::Result<usize> {
        let mut block = [0; 64 * 1024];
        let result = loop {
            match self.stream.read(&mut block) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let mut received = self.received.lock().unwrap();
        match &result {
            Ok(0) => received.end = received.end.or(Some(End::Closed)),
            Ok(n) => {
                received.total += *n as u64;
                if received.bytes.len() < 1 << 20 {
                    received.bytes.extend_from_slice(&block[..*n]);
                }
                self.buffer.extend_from_slice(&block[..*n]);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                received.end = Some(End::Reset);
            }
            Err(_) => {}
        }
        result
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// The next message head; `None` when the stream ended cleanly before its first byte.
    pub fn read_head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                return Ok(Some(Head::parse(&self.take(end + 4))));
            }
            if self.fill()? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("half a head, then the end: {:?}", String::from_utf8_lossy(&self.buffer)),
                ));
            }
        }
    }

    /// Exactly this many bytes.
    pub fn read_exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.take(count))
    }

    /// One line without its CRLF.
    pub fn read_line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let mut line = self.take(end + 2);
                line.truncate(end);
                return Ok(line);
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Everything until the end of the stream.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// One chunk's content; empty for the last chunk, whose trailers are still to be read.
    pub fn read_chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.read_line()?;
        let text = String::from_utf8_lossy(&line).into_owned();
        let size = usize::from_str_radix(text.split(';').next().unwrap_or("").trim(), 16)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("chunk size {text:?}: {error}")))?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let content = self.read_exact(size)?;
        if self.read_exact(2)? != b"\r\n" {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no CRLF after a chunk"));
        }
        Ok(content)
    }

    /// A whole body. A cut or a broken framing gives `complete: false`; a read timeout is an error.
    pub fn read_body(&mut self, framing: Framing) -> io::Result<Body> {
        let mut body = Body { content: Vec::new(), chunks: Vec::new(), trailers: Vec::new(), complete: true };
        let result: io::Result<()> = (|| {
            match framing {
                Framing::None => {}
                Framing::Length(length) => {
                    while (self.buffer.len() as u64) < length {
                        let more = self.fill();
                        if !matches!(more, Ok(1..)) {
                            if more.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                                return more.map(drop);
                            }
                            body.content = std::mem::take(&mut self.buffer);
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                    body.content = self.take(length as usize);
                }
                Framing::Chunked => {
                    loop {
                        let chunk = self.read_chunk()?;
                        if chunk.is_empty() {
                            break;
                        }
                        body.chunks.push(chunk.len());
                        body.content.extend_from_slice(&chunk);
                    }
                    loop {
                        let line = self.read_line()?;
                        if line.is_empty() {
                            break;
                        }
                        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
                        let name = String::from_utf8_lossy(&line[..colon]).into_owned();
                        let value = line.get(colon + 1..).unwrap_or_default().trim_ascii().to_vec();
                        body.trailers.push((name, value));
                    }
                }
                Framing::Close => {
                    let end = self.read_to_end();
                    if end.is_err() {
                        body.content = std::mem::take(&mut self.buffer);
                    }
                    body.content.extend(end?);
                }
            }
            Ok(())
        })();
        match result {
            Ok(()) => Ok(body),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(_) => Ok(Body { complete: false, ..body }),
        }
    }

    /// Waits for the peer's end, dropping what comes; a read timeout is an error.
    pub fn wait_end(&mut self) -> io::Result<End> {
        loop {
            match self.fill() {
                Ok(0) => return Ok(End::Closed),
                Ok(_) => self.buffer.clear(),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(End::Reset),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what comes within `window`, once, and shows everything unread. A bounded look at what should stay quiet,
    /// or one step of a poll; never a wait for something.
    pub fn peek_for(&mut self, window: Duration) -> Vec<u8> {
        let before = self.stream.read_timeout().expect("read timeout");
        self.stream.set_read_timeout(Some(window)).expect("read timeout");
        let _ = self.fill();
        self.stream.set_read_timeout(before).expect("read timeout");
        self.buffer.clone()
    }

    /// Closes with RST.
    pub fn reset(&self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("linger");
    }
}
