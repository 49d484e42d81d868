//! What both generators share: fields, contents and their framing, and how they become bytes.

use crate::common::random::Random;

/// A field as it is written: its name in any case, its value without surrounding white space.
pub type Field = (String, Vec<u8>);

/// Bytes that a field name may consist of (RFC 9110, section 5.6.2).
const TOKEN: &[u8] = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// A body, as it is framed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// No body, and no field that tells of one.
    None,
    /// `Content-Length`, with so many zeros in front.
    Length(Vec<u8>, usize),
    /// Chunked transfer coding.
    Chunked(Vec<u8>, Chunking),
    /// Until the connection ends (responses only).
    Close(Vec<u8>),
}

/// How a chunked body is cut and decorated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunking {
    /// Sizes of the chunks.
    pub sizes: Vec<usize>,
    /// What stands behind the size of a chunk, the `;` included; used in turn.
    pub extensions: Vec<&'static str>,
    /// Sizes in capitals, with a zero in front.
    pub odd_sizes: bool,
    /// Trailer fields.
    pub trailers: Vec<Field>,
}

/// Extensions as the grammar allows them (RFC 9112, section 7.1.1).
const EXTENSIONS: [&str; 6] = ["", ";a", ";a=b", " ; a = b", ";q=\"a \\\" ; b\"", ";x;y=1;z=\"\u{e9}\""];

impl Content {
    /// The bytes without framing.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Content::None => &[],
            Content::Length(bytes, _) | Content::Chunked(bytes, _) | Content::Close(bytes) => bytes,
        }
    }

    /// The field that tells of the framing.
    pub fn field(&self, random: &mut Random) -> Option<Field> {
        match self {
            Content::None | Content::Close(_) => None,
            Content::Length(bytes, zeros) => {
                let name = random.word(&["Content-Length", "content-length", "CONTENT-LENGTH"]);
                Some((name.into(), format!("{}{}", "0".repeat(*zeros), bytes.len()).into_bytes()))
            }
            Content::Chunked(..) => {
                let value = random.word(&["chunked", "Chunked"]);
                Some(("Transfer-Encoding".into(), value.into()))
            }
        }
    }

    /// The body as it goes over the wire.
    pub fn framed(&self) -> Vec<u8> {
        let Content::Chunked(bytes, Chunking { sizes, extensions, odd_sizes, trailers }) = self else {
            return self.bytes().to_vec();
        };
        let mut out = Vec::with_capacity(bytes.len() + sizes.len() * 8 + 64);
        let mut rest = bytes.as_slice();
        for (index, size) in sizes.iter().enumerate() {
            let chunk;
            (chunk, rest) = rest.split_at(*size);
            let size = if *odd_sizes { format!("0{size:X}") } else { format!("{size:x}") };
            out.extend_from_slice(size.as_bytes());
            out.extend_from_slice(extensions[index % extensions.len()].as_bytes());
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(if *odd_sizes { b"000" } else { b"0" });
        out.extend_from_slice(b"\r\n");
        for (name, value) in trailers {
            write_field(&mut out, name, value);
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    /// The trailer fields.
    pub fn trailers(&self) -> &[Field] {
        match self {
            Content::Chunked(_, chunking) => &chunking.trailers,
            _ => &[],
        }
    }
}

/// Chunks for a body of this size.
pub fn chunking(random: &mut Random, size: usize) -> Chunking {
    // Few chunks where there is much, so that the framing is not all that the time goes to.
    let most = if size > 4_096 { size } else { *random.pick(&[1, 7, 100, 4_096]) };
    let extensions = match random.below(3) {
        0 => vec![random.word(&EXTENSIONS), random.word(&EXTENSIONS)],
        _ => vec![""],
    };
    let trailers = match random.below(3) {
        0 => (0..random.between(1, 4)).map(|_| odd_field(random)).collect(),
        _ => Vec::new(),
    };
    Chunking { sizes: random.pieces(size, most), extensions, odd_sizes: random.percent(30), trailers }
}

/// How large a body is: mostly small, now and then up to a mebibyte, and at the edges of buffers.
pub fn size(random: &mut Random) -> usize {
    match random.below(40) {
        0..12 => random.between(0, 16),
        12..24 => random.between(17, 1_024),
        24..32 => random.between(1_025, 16 * 1_024),
        32..35 => *random.pick(&[1, 4_095, 4_096, 4_097, 8_192, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537]),
        35..39 => random.between(16 * 1_024, 128 * 1_024),
        _ => random.between(128 * 1_024, 1_024 * 1_024),
    }
}

/// A field that nobody knows, with a legal name and a legal value.
pub fn odd_field(random: &mut Random) -> Field {
    let mut name = vec![b'X'];
    let length = random.between(1, 24);
    name.extend(random.of(TOKEN, length));
    (String::from_utf8(name).expect("ASCII"), value(random))
}

/// A value: empty, ordinary, with blanks inside, with every visible byte, with obs-text, long.
pub fn value(random: &mut Random) -> Vec<u8> {
    let visible: Vec<u8> = (0x21..=0x7e).collect();
    let obs_text: Vec<u8> = (0x80..=0xff).collect();
    let length = random.between(1, 40);
    let middle = match random.below(12) {
        0 => return Vec::new(),
        1..5 => random.of(&visible, length),
        5 => [&visible[..], b"  \t", &visible[..]].concat(),
        6 => random.of(&obs_text, length),
        7 => "na\u{ef}ve \u{2028} \u{202e}right to left".as_bytes().to_vec(),
        8 => {
            let long = random.between(1_000, 6_000);
            random.of(&visible, long)
        }
        9 => b"\"quoted, \\\"with\\\" commas\", and; more=\"x\"".to_vec(),
        10 => b"{\"event\":\"listening\"}\\r\\n{\\\"level\\\":\\\"ERROR\\\"}".to_vec(),
        _ => random.of(b"abc,; =\t", length),
    };
    middle.trim_ascii().to_vec()
}

/// Puts a field anywhere among the others.
pub fn insert(random: &mut Random, fields: &mut Vec<Field>, field: Field) {
    let at = random.below(fields.len() + 1);
    fields.insert(at, field);
}

/// A field line as it stands in a head.
pub fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes fields with the white space around values that the grammar allows, and the empty line.
pub fn write_fields(random: &mut Random, out: &mut Vec<u8>, fields: &[Field]) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        out.extend_from_slice(random.word(&["", " ", " ", " ", "\t", "  "]).as_bytes());
        out.extend_from_slice(value);
        out.extend_from_slice(random.word(&["", "", "", " ", "\t "]).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Bytes as one sees them in a message.
pub fn shown(bytes: &[u8]) -> String {
    let end = bytes.len().min(1_500);
    let more = if end < bytes.len() { format!(" … {} bytes in all", bytes.len()) } else { String::new() };
    format!("\"{}\"{more}", bytes[..end].escape_ascii())
}

/// Fields as HTTP/2 libraries take them.
pub fn map(fields: &[Field]) -> http::HeaderMap {
    let pair = |(name, value): &Field| {
        let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
        (name, http::HeaderValue::from_bytes(value).expect("a value"))
    };
    let mut map = http::HeaderMap::new();
    for (name, value) in fields.iter().map(pair) {
        map.append(name, value);
    }
    map
}

/// Fields as HTTP/2 libraries give them.
pub fn fields(map: &http::HeaderMap) -> Vec<Field> {
    map.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}
