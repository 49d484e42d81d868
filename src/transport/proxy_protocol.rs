//! The PROXY protocol: what a load balancer says of the client before the client's first byte.
//! Source: "The PROXY protocol, versions 1 & 2" by HAProxy, sections 2.1 and 2.2.
//! Shape:  version 1 is one line, `PROXY TCP4 SOURCE DESTINATION PORT PORT\r\n`, at most 107 bytes; version 2 is 16
//!         bytes (signature, version and command, family, length) and as many bytes as the length says.
//! Absent: `UNKNOWN`, `LOCAL` and families without addresses say nothing of the client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const NAME: &[u8] = b"PROXY ";
/// The longest line of version 1, its end included.
const LINE_MAX: usize = 107;
/// Version 2 up to its addresses.
const FIXED: usize = 16;
/// The longest header that is read. The addresses take 36 bytes at most; what follows them (a client's certificate, names)
/// is skipped, and no sender known has more of it than a page.
pub const LENGTH_MAX: usize = 4096;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client's address; `None`: not told, so that of the socket holds.
    pub source: Option<IpAddr>,
}

/// These bytes are no header, nor the beginning of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad;

/// Reads the header at the start of `bytes`: its length and what it says. `None`: all of these bytes belong to a header,
/// and more of it must follow.
///
/// # Errors
/// When there is none, or it is malformed or too long.
pub fn parse(bytes: &[u8]) -> Result<Option<(usize, Header)>, Bad> {
    let begins = |with: &[u8]| {
        let seen = bytes.len().min(with.len());
        bytes[..seen] == with[..seen]
    };
    if begins(SIGNATURE) {
        binary(bytes)
    } else if begins(NAME) {
        line(bytes)
    } else {
        Err(Bad)
    }
}

fn line(bytes: &[u8]) -> Result<Option<(usize, Header)>, Bad> {
    let seen = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return if seen.len() < LINE_MAX { Ok(None) } else { Err(Bad) };
    };
    let text = seen[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(NAME)).ok_or(Bad)?;
    let text = std::str::from_utf8(text).map_err(|_no_text| Bad)?;
    let mut words = text.split(' ');
    let source = match words.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(IpAddr::V4(addresses::<Ipv4Addr>(&mut words)?)),
        Some("TCP6") => Some(IpAddr::V6(addresses::<Ipv6Addr>(&mut words)?)),
        _ => return Err(Bad),
    };
    Ok(Some((end + 1, Header { source })))
}

/// Two addresses and two ports, and nothing after them. Gives the first address.
fn addresses<'a, A: std::str::FromStr>(words: &mut impl Iterator<Item = &'a str>) -> Result<A, Bad> {
    let mut address = || words.next().and_then(|word| word.parse::<A>().ok()).ok_or(Bad);
    let (source, _destination) = (address()?, address()?);
    for _port in 0..2 {
        let word = words.next().ok_or(Bad)?;
        // As written by a number: no sign, no leading zero.
        let port = word.parse::<u16>().map_err(|_no_port| Bad)?;
        if port.to_string() != word {
            return Err(Bad);
        }
    }
    if words.next().is_some() { Err(Bad) } else { Ok(source) }
}

fn binary(bytes: &[u8]) -> Result<Option<(usize, Header)>, Bad> {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    const TCP4: u8 = 0x11;
    const TCP6: u8 = 0x21;
    let command = bytes.get(SIGNATURE.len()).copied();
    if command.is_some_and(|command| !matches!(command, LOCAL | PROXY)) {
        return Err(Bad);
    }
    let Some(fixed) = bytes.get(..FIXED) else { return Ok(None) };
    let family = fixed[13];
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let addresses = match family {
        TCP4 => 12,
        TCP6 => 36,
        // Unspecified, datagrams, sockets of a file system: nothing that a client could be told by.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => 0,
        _ => return Err(Bad),
    };
    if length > LENGTH_MAX || (command == Some(PROXY) && length < FIXED + addresses) {
        return Err(Bad);
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let octets = &header[FIXED..];
    let source = match (command, family) {
        (Some(PROXY), TCP4) => octets.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        (Some(PROXY), TCP6) => octets.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    };
    Ok(Some((length, Header { source })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn lines_of_version_1_are_read_to_their_end() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", source("192.0.2.7")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", source("2001:db8::7")),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n", source("255.255.255.255")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        ] {
            let bytes = format!("{line}GET / HTTP/1.1\r\n");
            let header = Header { source: expected };
            assert_eq!(parse(bytes.as_bytes()), Ok(Some((line.len(), header))), "{line}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for bytes in [
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP4 192.0.2.7  198.51.100.1 1 2\r\n",
            "PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY \r\n",
            &long,
            &long[..LINE_MAX],
            "\r\n\r\n\0\r\nQUIX",
            "\x16\x03\x01",
        ] {
            assert_eq!(parse(bytes.as_bytes()), Err(Bad), "{bytes:?}");
        }
    }

    #[test]
    fn version_2_says_who_the_client_is() {
        let tcp4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
        let mut tcp6 = [0u8; 36];
        tcp6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        let with_more = [&tcp4[..], &[4, 0, 3, 1, 2, 3]].concat();
        for (command, family, rest, expected) in [
            (0x21, 0x11, &tcp4[..], source("192.0.2.7")),
            (0x21, 0x11, &with_more, source("192.0.2.7")),
            (0x21, 0x21, &tcp6, source("2001:db8::7")),
            (0x20, 0x00, &[], None),
            (0x20, 0x11, &tcp4, None),
            (0x20, 0x11, &[], None),
            (0x21, 0x00, &[1, 2, 3], None),
            (0x21, 0x31, &[0; 216], None),
        ] {
            let header = version_2(command, family, rest);
            let bytes = [&header[..], b"\r\n\r\n"].concat();
            assert_eq!(parse(&bytes), Ok(Some((header.len(), Header { source: expected }))), "{command} {family}");
        }
    }

    #[test]
    fn version_2_is_strict_and_bounded() {
        for (command, family, rest) in [
            (0x11, 0x11, vec![0; 12]),
            (0x22, 0x11, vec![0; 12]),
            (0x21, 0x11, vec![0; 11]),
            (0x21, 0x21, vec![0; 35]),
            (0x21, 0x13, vec![0; 12]),
            (0x21, 0x41, vec![0; 12]),
            (0x20, 0x00, vec![0; LENGTH_MAX - FIXED + 1]),
        ] {
            assert_eq!(parse(&version_2(command, family, &rest)), Err(Bad), "{command:x} {family:x} {}", rest.len());
        }
        let longest = version_2(0x20, 0, &vec![0; LENGTH_MAX - FIXED]);
        assert_eq!(parse(&longest), Ok(Some((LENGTH_MAX, Header { source: None }))));
    }

    proptest! {
        /// Whoever reads piece by piece never takes a byte too many, and comes to the same end.
        #[test]
        fn each_beginning_of_a_header_asks_for_more(v4: [u8; 4], v6: [u8; 16], ports: (u16, u16), six: bool, binary: bool,
                                                    more in proptest::collection::vec(any::<u8>(), 0..80)) {
            let (a, port) = (if six { IpAddr::from(v6) } else { IpAddr::from(v4) }, ports);
            let header = if binary {
                let rest = if six { [&v6[..], &v6, &[0; 4], &more].concat() } else { [&v4[..], &v4, &[0; 4], &more].concat() };
                version_2(0x21, if six { 0x21 } else { 0x11 }, &rest)
            } else {
                format!("PROXY {} {a} {a} {} {}\r\n", if six { "TCP6" } else { "TCP4" }, port.0, port.1).into_bytes()
            };
            for end in 0..header.len() {
                prop_assert_eq!(parse(&header[..end]), Ok(None), "{}", end);
            }
            let whole = [&header[..], &more].concat();
            prop_assert_eq!(parse(&whole), Ok(Some((header.len(), Header { source: Some(a) }))));
        }

        #[test]
        fn any_bytes_are_judged_within_the_bound(
            start in 0usize..3, bytes in proptest::collection::vec(any::<u8>(), 0..5000)
        ) {
            let all = [[&b""[..], SIGNATURE, NAME][start], &bytes].concat();
            match parse(&all) {
                Ok(Some((length, _))) => prop_assert!(length <= all.len().min(LENGTH_MAX)),
                Ok(None) => prop_assert!(all.len() < LENGTH_MAX),
                Err(Bad) => {}
            }
        }
    }
}
