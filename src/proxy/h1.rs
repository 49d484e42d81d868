//! HTTP/1.1 on the wire (RFC 9112): where a head ends, how a body is framed, chunked coding. Pure, strict, no I/O.
//!
//! Whatever two readers could understand differently is refused, never repaired: a bare LF or CR, a folded line, a space
//! before the colon, NUL, a second length. Parsing of names and values is httparse's; this file decides what it may see.

use memchr::memchr;

/// How far a head has been looked through, so that a head that drips in byte by byte costs each byte once.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    line_start: usize,
    seen: usize,
    lines: usize,
}

/// What is wrong with a head before it is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanError {
    /// A line feed without its carriage return.
    BareLineFeed,
    /// The first line is over its limit.
    LineTooLong,
    /// The head is over its limit.
    HeadTooLong,
}

impl HeadScan {
    /// Looks for the end of a head in `buf`, which has grown since the last call.
    /// Returns the length of the head with its empty line, or `None` if more must be read.
    ///
    /// # Errors
    /// When the head can never become valid.
    pub fn scan(&mut self, buf: &[u8], line_limit: usize, head_limit: usize) -> Result<Option<usize>, ScanError> {
        while let Some(at) = memchr(b'\n', &buf[self.seen..]) {
            let at = self.seen + at;
            if at == self.line_start || buf[at - 1] != b'\r' {
                return Err(ScanError::BareLineFeed);
            }
            if self.lines == 0 && at + 1 > line_limit {
                return Err(ScanError::LineTooLong);
            }
            let empty = at == self.line_start + 1;
            self.lines += 1;
            self.line_start = at + 1;
            self.seen = at + 1;
            if self.seen > head_limit {
                return Err(ScanError::HeadTooLong);
            }
            if empty {
                return Ok(Some(at + 1));
            }
        }
        self.seen = buf.len();
        if self.lines == 0 && buf.len() > line_limit {
            return Err(ScanError::LineTooLong);
        }
        if buf.len() >= head_limit {
            return Err(ScanError::HeadTooLong);
        }
        Ok(None)
    }
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection closes (responses only).
    Close,
}

/// Reads a `Content-Length` value: digits only, no sign, no list, at most 18 of them (RFC 9110, section 8.6).
#[must_use]
pub fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

/// A strict reader of chunked coding (RFC 9112, section 7.1).
#[derive(Debug)]
pub struct ChunkReader {
    state: ChunkState,
    /// Bytes of the current chunk extension, which is skipped.
    extension: usize,
    /// The trailer section as it arrives, with its empty line.
    trailers: Vec<u8>,
    trailer_limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    /// Reading hexadecimal digits: how many, and their value.
    Size(u8, u64),
    /// White space that must be followed by an extension.
    SizeSpace(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
    End,
}

/// The body's framing is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadChunk;

/// One step of a [`ChunkReader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkStep {
    /// All input was framing; more is needed.
    More,
    /// Body bytes: this part of the input.
    Data {
        /// First byte.
        start: usize,
        /// One past the last byte.
        end: usize,
    },
    /// The body is complete, trailers included.
    End,
}

/// A chunk extension is skipped; nothing sends long ones but attacks that hope for it (CVE-2023-39326).
const EXTENSION_LIMIT: usize = 256;
/// 15 hexadecimal digits are an exbibyte and leave room for no overflow.
const SIZE_DIGITS: u8 = 15;

impl ChunkReader {
    /// A reader at the start of a body; trailers over `trailer_limit` bytes are refused.
    #[must_use]
    pub fn new(trailer_limit: usize) -> ChunkReader {
        ChunkReader { state: ChunkState::Size(0, 0), extension: 0, trailers: Vec::new(), trailer_limit }
    }

    /// The trailer section, lines with their CRLF, empty when there was none. Valid at the end.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        self.trailers.strip_suffix(b"\r\n").unwrap_or(&self.trailers)
    }

    /// Reads on in `input`. Returns how many bytes were used up, and what they were.
    ///
    /// # Errors
    /// When the framing is not exactly what the grammar says.
    pub fn step(&mut self, input: &[u8]) -> Result<(usize, ChunkStep), BadChunk> {
        let mut at = 0;
        loop {
            if let ChunkState::Data(left) = self.state {
                if left == 0 {
                    self.state = ChunkState::DataCr;
                    continue;
                }
                let available = (input.len() - at) as u64;
                if available == 0 {
                    return Ok((at, ChunkStep::More));
                }
                let n = left.min(available);
                self.state = ChunkState::Data(left - n);
                let end = at + n as usize;
                return Ok((end, ChunkStep::Data { start: at, end }));
            }
            if self.state == ChunkState::End {
                return Ok((at, ChunkStep::End));
            }
            let Some(&byte) = input.get(at) else { return Ok((at, ChunkStep::More)) };
            at += 1;
            self.state = self.framing(byte)?;
        }
    }

    fn framing(&mut self, byte: u8) -> Result<ChunkState, BadChunk> {
        use ChunkState::{Data, DataCr, DataLf, End, Extension, Size, SizeLf, SizeSpace, Trailers};
        Ok(match (self.state, byte) {
            (Size(digits, size), _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS {
                    return Err(BadChunk);
                }
                let digit = (byte as char).to_digit(16).ok_or(BadChunk)?;
                Size(digits + 1, size << 4 | u64::from(digit))
            }
            (Size(1.., size), b'\r') => SizeLf(size),
            (Size(1.., size) | SizeSpace(size), b';') => Extension(size),
            (Size(1.., size) | SizeSpace(size), b' ' | b'\t') => {
                self.extension += 1;
                if self.extension > EXTENSION_LIMIT {
                    return Err(BadChunk);
                }
                SizeSpace(size)
            }
            (Extension(size), b'\r') => SizeLf(size),
            (Extension(size), b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension += 1;
                if self.extension > EXTENSION_LIMIT {
                    return Err(BadChunk);
                }
                Extension(size)
            }
            (SizeLf(0), b'\n') => Trailers,
            (SizeLf(size), b'\n') => Data(size),
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => {
                self.extension = 0;
                Size(0, 0)
            }
            (Trailers, _) => {
                if self.trailers.len() == self.trailer_limit {
                    return Err(BadChunk);
                }
                self.trailers.push(byte);
                match self.trailers.as_slice() {
                    b"\r\n" => End,
                    [.., b'\r', b'\n', b'\r', b'\n'] => End,
                    [.., b'\r', b'\n'] => Trailers,
                    [.., b'\n'] => return Err(BadChunk),
                    [.., b'\r', other] if *other != b'\n' => return Err(BadChunk),
                    _ => Trailers,
                }
            }
            _ => return Err(BadChunk),
        })
    }
}

/// Appends the head of one chunk of `len` bytes.
pub fn write_chunk_head(out: &mut Vec<u8>, len: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|digit| HEX[len >> (digit * 4) & 0xf]));
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk and the trailer section.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, Vec<u8>), BadChunk> {
        let mut reader = ChunkReader::new(1024);
        let mut body = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let (used, step) = reader.step(rest)?;
                if let ChunkStep::Data { start, end } = step {
                    body.extend_from_slice(&rest[start..end]);
                }
                rest = &rest[used..];
                match step {
                    ChunkStep::End => return Ok((body, true, reader.trailers().to_vec())),
                    ChunkStep::More => break,
                    ChunkStep::Data { .. } => {}
                }
            }
        }
        Ok((body, false, Vec::new()))
    }

    #[test]
    fn chunks_extensions_and_trailers_are_read() {
        let whole = b"5;a=b\r\nhello\r\n6 ;x\r\n world\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n";
        let (body, done, trailers) = read(&[whole]).unwrap();
        assert_eq!((body.as_slice(), done), (&b"hello world"[..], true));
        assert_eq!(trailers, b"X-A: 1\r\nX-B: 2\r\n");
        let (_, done, trailers) = read(&[b"0\r\n\r\n"]).unwrap();
        assert!(done && trailers.is_empty());
    }

    #[test]
    fn broken_chunking_is_refused() {
        for bad in [
            &b"\r\n"[..],
            b"g\r\n",
            b"+5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\r\nhello0\r\n",
            b"5\r\nhello\n0\r\n",
            b"5\r\nhelloX\r\n",
            b"5;a\nhello\r\n",
            b"5;a\rb\r\nhello\r\n",
            b"1000000000000000\r\n",
            b"0\r\nX: 1\n\r\n",
            b"0\r\nX: 1\r\r\n",
            b"0\r\n\n",
            b"5;\0\r\nhello\r\n",
        ] {
            assert_eq!(read(&[bad]), Err(BadChunk), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_head_ends_at_its_empty_line_and_nowhere_else() {
        let scan = |buf: &[u8]| HeadScan::default().scan(buf, 100, 200);
        assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody"), Ok(Some(27)));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
        assert_eq!(scan(b"GET / HTTP/1.1\nHost: a\r\n\r\n"), Err(ScanError::BareLineFeed));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n\n"), Err(ScanError::BareLineFeed));
        assert_eq!(scan(b"\n"), Err(ScanError::BareLineFeed));
        assert_eq!(scan(&[b'a'; 101]), Err(ScanError::LineTooLong));
        let mut long = b"GET / HTTP/1.1\r\n".to_vec();
        long.resize(200, b'a');
        assert_eq!(scan(&long), Err(ScanError::HeadTooLong));
    }

    #[test]
    fn lengths_are_plain_digits() {
        assert_eq!(content_length(b"0042"), Some(42));
        for bad in [&b""[..], b"+5", b"-5", b"5,5", b"5 ", b"0x5", b"5.0", b"9999999999999999999"] {
            assert_eq!(content_length(bad), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_however_it_is_cut(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..6),
            cut in 1usize..40,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                write_chunk_head(&mut wire, chunk.len());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            write_last_chunk(&mut wire, b"");
            let pieces: Vec<_> = wire.chunks(cut).collect();
            let (body, done, _) = read(&pieces).unwrap();
            prop_assert!(done);
            prop_assert_eq!(body, chunks.concat());
        }

        #[test]
        fn no_input_panics(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&[&input]);
            let _ = HeadScan::default().scan(&input, 50, 100);
        }

        #[test]
        fn a_head_is_found_however_it_is_cut(cut in 1usize..30) {
            let wire = b"GET /x HTTP/1.1\r\nHost: a\r\nX-Y: zzz\r\n\r\n";
            let mut scan = HeadScan::default();
            let mut found = None;
            let mut end = 0;
            while end < wire.len() && found.is_none() {
                end = (end + cut).min(wire.len());
                found = scan.scan(&wire[..end], 1000, 1000).unwrap();
            }
            prop_assert_eq!(found, Some(wire.len()));
        }
    }
}
