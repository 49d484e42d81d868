//! The header of the PROXY protocol: however its bytes arrive, it is the same header, and what it says of the client is what
//! stands in it.
//!
//! Shape: the bytes that a connection begins with.

use std::net::IpAddr;

use golden_sidecar::transport::proxy_protocol::{LENGTH_MAX, parse};

/// Bytes of version 1's line, its end included ("The PROXY protocol", section 2.1).
const LINE_MAX: usize = 107;
/// Bytes of version 2 before its addresses (section 2.2).
const FIXED: usize = 16;

/// One input.
///
/// # Panics
/// When a promise is broken.
pub fn run(input: &[u8]) {
    let whole = parse(input);
    let mut decided = None;
    for end in 0..=input.len().min(2 * LENGTH_MAX) {
        let found = parse(&input[..end]);
        match (&decided, &found) {
            (None, Ok(None)) => assert!(end <= LENGTH_MAX, "{end} bytes and no end"),
            (None, _) => decided = Some(found),
            (Some(before), now) => assert_eq!(before, now, "changed by byte {end}"),
        }
    }
    if let Some(decided) = decided {
        assert_eq!(decided, whole, "another header in pieces");
    }
    let Ok(Some((len, header))) = whole else { return };
    assert!(len <= LENGTH_MAX && len <= input.len());
    let bytes = &input[..len];
    let told = if bytes.starts_with(b"PROXY ") {
        assert!(len <= LINE_MAX && bytes.ends_with(b"\r\n") && !bytes[..len - 2].contains(&b'\n'));
        let line = std::str::from_utf8(&bytes[..len - 2]).unwrap_or_default();
        let words: Vec<_> = line.split(' ').collect();
        match words[1..] {
            ["TCP4" | "TCP6", source, _, _, _] => source.parse().ok(),
            _ => None,
        }
    } else {
        assert_eq!(len, FIXED + usize::from(u16::from_be_bytes([bytes[14], bytes[15]])));
        // The command LOCAL speaks for the load balancer itself.
        match (bytes[12] & 15, bytes[13] >> 4) {
            (1, 1) => bytes[FIXED..].first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
            (1, 2) => bytes[FIXED..].first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
            _ => None,
        }
    };
    if let Some(source) = header.source {
        assert_eq!(Some(source), told, "another client");
    }
}
