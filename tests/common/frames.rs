//! HTTP/2 as bytes on a socket, written independently of any HTTP library: frames as they are, for peers that end, stall or
//! break at a chosen byte. Of HPACK only what such a peer needs: literals out, a status or a method in.

use std::io::{self, Write as _};

use super::wire::Wire;

/// What a client with prior knowledge sends first (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113, section 6).
pub mod kind {
    #![allow(missing_docs, reason = "the names are the standard's")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Error codes (RFC 9113, section 7).
pub mod code {
    #![allow(missing_docs, reason = "the names are the standard's")]
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// The last frame of a stream's side (DATA, HEADERS); of SETTINGS and PING: an acknowledgement.
pub const END_STREAM: u8 = 1;
/// An acknowledgement (SETTINGS, PING).
pub const ACK: u8 = 1;
/// The field section is whole (HEADERS, CONTINUATION).
pub const END_HEADERS: u8 = 4;

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type, see [`kind`].
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream, 0 for the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether the sender's side of the stream ends here.
    #[must_use]
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & END_STREAM != 0
    }

    /// The error code of RST_STREAM or GOAWAY.
    #[must_use]
    pub fn code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// A frame as bytes.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).expect("a short payload");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field section: each field a literal that enters no table.
#[must_use]
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
            block.extend(text.bytes());
        }
    }
    block
}

/// HEADERS with these fields.
#[must_use]
pub fn headers(stream: u32, end: bool, list: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | if end { END_STREAM } else { 0 }, stream, fields(list))
}

/// HEADERS of a request to `http://test`.
#[must_use]
pub fn request(stream: u32, end: bool, method: &str, path: &str) -> Vec<u8> {
    headers(stream, end, &[(":method", method), (":scheme", "http"), (":path", path), (":authority", "test")])
}

/// DATA.
#[must_use]
pub fn data(stream: u32, end: bool, content: impl AsRef<[u8]>) -> Vec<u8> {
    frame(kind::DATA, if end { END_STREAM } else { 0 }, stream, content)
}

/// RST_STREAM.
#[must_use]
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, code.to_be_bytes())
}

/// GOAWAY that names the last stream which is still served.
#[must_use]
pub fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(kind::GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// SETTINGS: identifiers and values (RFC 9113, section 6.5.2; 3: streams at once, 4: window of a stream).
#[must_use]
pub fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (identifier, value) in list {
        payload.extend(identifier.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(kind::SETTINGS, 0, 0, payload)
}

/// WINDOW_UPDATE.
#[must_use]
pub fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, more.to_be_bytes())
}

/// The next frame; `None` when the connection ended.
pub fn read(wire: &mut Wire) -> io::Result<Option<Frame>> {
    let head = match wire.read_exact(9) {
        Ok(head) => head,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
        Err(_) => return Ok(None),
    };
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    match wire.read_exact(length) {
        Ok(payload) => Ok(Some(Frame { kind: head[3], flags: head[4], stream, payload })),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
        Err(_) => Ok(None),
    }
}

/// The next frame that says something about requests: SETTINGS and PING are acknowledged, PRIORITY and WINDOW_UPDATE
/// passed over.
pub fn next(wire: &mut Wire) -> io::Result<Option<Frame>> {
    loop {
        let Some(frame) = read(wire)? else { return Ok(None) };
        match frame.kind {
            kind::SETTINGS | kind::PING if frame.flags & ACK == 0 => {
                let payload = if frame.kind == kind::PING { &frame.payload[..] } else { &[] };
                // The peer may be gone: the next read tells.
                let _ = wire.stream.write_all(&self::frame(frame.kind, ACK, 0, payload));
            }
            kind::DATA | kind::HEADERS | kind::RST_STREAM | kind::GOAWAY | kind::CONTINUATION => {
                return Ok(Some(frame));
            }
            _ => {}
        }
    }
}

/// Whether a field section begins with this status, in any of the forms that HPACK has for it (RFC 7541, section 6).
#[must_use]
pub fn begins_with_status(block: &[u8], status: u16) -> bool {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // Updates of the table's size come first.
    let updates = block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count();
    let block = &block[updates..];
    if let Some(at) = INDEXED.iter().position(|known| *known == status)
        && block.first() == Some(&(0x88 + at as u8))
    {
        return true;
    }
    let text = status.to_string();
    // With and without entering the table; the name by its index (8 to 14) or in full.
    let value = match block {
        [first, rest @ ..] if matches!(first & 0x3f, 8..=14) && first & 0x80 == 0 => rest,
        [0x00 | 0x10 | 0x40, 7, rest @ ..] => rest.strip_prefix(b":status").unwrap_or_default(),
        _ => return false,
    };
    let mut literal = vec![3];
    literal.extend(text.bytes());
    value.starts_with(&literal) || value.starts_with(&huffman_digits(&text))
}

/// Digits as a Huffman-coded text with its length (RFC 7541, appendix B: 0 to 2 have five bits, 3 to 9 have six).
fn huffman_digits(text: &str) -> Vec<u8> {
    let (mut bits, mut count) = (0u64, 0);
    for digit in text.bytes().map(|byte| u64::from(byte - b'0')) {
        let (code, length) = if digit < 3 { (digit, 5) } else { (0x16 + digit, 6) };
        bits = bits << length | code;
        count += length;
    }
    let padding = (8 - count % 8) % 8;
    bits = bits << padding | ((1 << padding) - 1);
    let bytes = (count + padding) / 8;
    let mut coded = vec![0x80 | bytes as u8];
    coded.extend(&bits.to_be_bytes()[8 - bytes..]);
    coded
}
