//! Where encoders write: pieces become chunks of the body, compressed on the way if that was asked for.
//!
//! The encoders fill a buffer and hand it over whenever it holds enough. Without compression the buffer itself becomes a
//! chunk, so no byte is copied; with it, the plain page never exists in one piece.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::Encoding;

/// Largest chunk. A socket's send buffer takes about as much at once, and the allocator gives memory of this size back to
/// where the next chunk comes from, while one block for a page of megabytes is a call to the kernel each time.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// An encoder hands over its buffer from here on. The rest up to a chunk is room for the metric at hand: a histogram of
/// twenty edges with long labels takes 5 KiB.
const PIECE_BYTES: usize = CHUNK_BYTES - 8 * 1024;

/// Compression level of gzip. On the page that `text.rs` measures (1.8 MB), levels 1, 2, 3 and 6 took 1.5, 1.8, 2.4 and
/// 6.1 ms and left 121, 92, 87 and 70 KB. After 2 each byte saved costs far more of the processor that the sidecar
/// shares with its backend.
const GZIP_LEVEL: u32 = 2;

/// Takes a page piece by piece.
#[derive(Debug)]
pub(super) struct Sink {
    plain_bytes: usize,
    into: Into,
}

#[derive(Debug)]
enum Into {
    Identity(Chunks),
    Gzip(Box<GzEncoder<Chunks>>),
}

/// A finished body.
#[derive(Debug)]
pub(super) struct Finished {
    /// In order, none of them empty.
    pub chunks: Vec<Bytes>,
    /// Size of the page before it was compressed.
    pub plain_bytes: usize,
}

/// Cuts bytes into chunks.
#[derive(Debug, Default)]
struct Chunks {
    full: Vec<Bytes>,
    open: Vec<u8>,
}

// === impl Sink ===

impl Sink {
    pub fn new(encoding: Encoding) -> Sink {
        let into = match encoding {
            Encoding::Identity => Into::Identity(Chunks::default()),
            Encoding::Gzip => Into::Gzip(Box::new(GzEncoder::new(Chunks::default(), Compression::new(GZIP_LEVEL)))),
        };
        Sink { plain_bytes: 0, into }
    }

    /// A buffer that fits.
    pub fn buffer() -> Vec<u8> {
        Vec::with_capacity(CHUNK_BYTES)
    }

    /// Takes what the buffer holds, if that is enough for a chunk.
    pub fn offer(&mut self, buffer: &mut Vec<u8>) {
        if buffer.len() >= PIECE_BYTES {
            self.take(buffer);
        }
    }

    /// Takes what the buffer holds.
    pub fn take(&mut self, buffer: &mut Vec<u8>) {
        if let Into::Identity(chunks) = &mut self.into {
            self.plain_bytes += buffer.len();
            chunks.push(std::mem::replace(buffer, Self::buffer()));
        } else {
            self.write(buffer);
            buffer.clear();
        }
    }

    /// Takes a copy of these bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.plain_bytes += bytes.len();
        match &mut self.into {
            Into::Identity(chunks) => chunks.extend(bytes),
            Into::Gzip(encoder) => encoder.write_all(bytes).expect(IN_MEMORY),
        }
    }

    /// Ends the body.
    pub fn finish(self) -> Finished {
        let chunks = match self.into {
            Into::Identity(chunks) => chunks,
            Into::Gzip(encoder) => encoder.finish().expect(IN_MEMORY),
        };
        Finished { chunks: chunks.finish(), plain_bytes: self.plain_bytes }
    }
}

const IN_MEMORY: &str = "chunks take all that is written to them";

// === impl Chunks ===

impl Chunks {
    /// Takes a buffer as it is.
    fn push(&mut self, buffer: Vec<u8>) {
        self.close();
        let mut rest = Bytes::from(buffer);
        while rest.len() > CHUNK_BYTES {
            self.full.push(rest.split_to(CHUNK_BYTES));
        }
        if !rest.is_empty() {
            self.full.push(rest);
        }
    }

    fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.open.len()));
            self.open.extend_from_slice(now);
            bytes = later;
            if self.open.len() == CHUNK_BYTES {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.full.push(Bytes::from(std::mem::take(&mut self.open)));
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.close();
        self.full
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn whatever_is_handed_over_comes_out_in_order_and_in_small_chunks(
            pieces in proptest::collection::vec((any::<bool>(), 0..150_000_usize, any::<u8>()), 0..5),
        ) {
            let mut whole = Vec::new();
            let mut sinks = [Encoding::Identity, Encoding::Gzip].map(Sink::new);
            for (copied, length, byte) in pieces {
                // No two places of a piece are alike for long.
                let piece: Vec<u8> = (0..length).map(|place| byte.wrapping_add((place % 251) as u8)).collect();
                whole.extend_from_slice(&piece);
                for sink in &mut sinks {
                    let mut piece = piece.clone();
                    if copied { sink.write(&piece) } else { sink.take(&mut piece) }
                    prop_assert!(copied || piece.is_empty());
                }
            }
            let [identity, gzip] = sinks.map(Sink::finish);
            prop_assert!(identity.chunks.iter().chain(&gzip.chunks).all(|chunk| (1..=CHUNK_BYTES).contains(&chunk.len())));
            prop_assert_eq!((identity.plain_bytes, gzip.plain_bytes), (whole.len(), whole.len()));
            prop_assert!(identity.chunks.concat() == whole);
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&gzip.chunks.concat()[..]).read_to_end(&mut unpacked).unwrap();
            prop_assert!(unpacked == whole);
        }
    }
}
