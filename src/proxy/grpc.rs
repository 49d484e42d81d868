//! gRPC on the wire, as much as a proxy must read to tell how a call ended, and write to end one itself. Pure.
//! Source: gRPC, doc/PROTOCOL-HTTP2.md.
//! Shape:  a request is gRPC by its media type; its deadline is `grpc-timeout`; the status is `grpc-status`, in the
//!         trailers, or in the head of an answer that has nothing else ("trailers-only"). Bodies are messages, each
//!         behind a prefix of five bytes: a flag, and its length in network order.
//! Units:  `grpc-timeout` has its unit with it, from hours to nanoseconds.
//! Absent: no deadline is none (never 0); no status is none, and what that means is in [`RpcStatus::from_http`].

use std::time::Duration;

use crate::labels::RpcStatus;

/// A deadline has this many digits at most.
const TIMEOUT_DIGITS: usize = 8;

/// Whether a request with this media type is a gRPC call. gRPC-Web, which has its trailers in its body, is not.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    const MEDIA_TYPE: &[u8] = b"application/grpc";
    let media = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let Some((begin, rest)) = media.split_at_checked(MEDIA_TYPE.len()) else { return false };
    begin.eq_ignore_ascii_case(MEDIA_TYPE) && (rest.is_empty() || rest[0] == b'+')
}

/// Reads a `grpc-timeout`; `None`: it is none.
#[must_use]
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.len() > TIMEOUT_DIGITS {
        return None;
    }
    let number = u64::from(decimal(digits)?);
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Reads a `grpc-status`; `None`: it is none.
#[must_use]
pub fn parse_status(value: &[u8]) -> Option<RpcStatus> {
    decimal(value).map(RpcStatus::from_code)
}

/// A number of decimal digits; one that is too large is the largest there is.
fn decimal(digits: &[u8]) -> Option<u32> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let push = |number: u32, digit: &u8| number.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
    all_digits.then(|| digits.iter().fold(0, push))
}

/// Writes a text as the value of `grpc-message`: percent-encoded UTF-8, readable as long as it is ASCII.
pub fn write_message(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => {
                out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            plain => out.push(plain),
        }
    }
}

/// Follows the messages of a body to where the second one begins: from there on the call is a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Messages {
    /// Bytes of the first message's prefix so far.
    prefix: u8,
    /// Bytes of the first message that are still to come, once its prefix is complete; its length as far as read, before.
    left: u32,
    second: bool,
}

// === impl Messages ===

impl Messages {
    /// Bytes before each message.
    const PREFIX: u8 = 5;

    /// Looks at body bytes, in their order and in any pieces. Whether the second message has begun: true from the piece on
    /// that has its first byte.
    pub fn second_begins(&mut self, mut bytes: &[u8]) -> bool {
        while !self.second && !bytes.is_empty() {
            let taken = if self.prefix < Self::PREFIX {
                // Of the prefix, the flag comes first.
                if self.prefix > 0 {
                    self.left = self.left << 8 | u32::from(bytes[0]);
                }
                self.prefix += 1;
                1
            } else {
                let taken = bytes.len().min(self.left as usize);
                self.left -= taken as u32;
                self.second = taken == 0;
                taken
            };
            bytes = &bytes[taken..];
        }
        self.second
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::percent_decode;
    use proptest::prelude::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        // Bytes that would be a prefix of a message of no length, were they taken for one.
        bytes.resize(5 + length, 0);
        bytes
    }

    #[test]
    fn grpc_is_told_by_its_media_type_and_grpc_web_is_another() {
        for grpc in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc+json",
            "application/grpc;charset=utf-8",
            "application/grpc ; x=y",
            "application/grpc+proto; x",
            "Application/GRPC",
        ] {
            assert!(is_grpc(grpc.as_bytes()), "{grpc}");
        }
        for other in [
            "",
            "application/grp",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grpcx",
            "application/grpc/x",
            "application/json; application/grpc",
            "x application/grpc",
        ] {
            assert!(!is_grpc(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_timeout_has_up_to_eight_digits_and_a_unit() {
        for (value, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("0S", Duration::ZERO),
            ("00000010m", Duration::from_millis(10)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse_timeout(value.as_bytes()), Some(expected), "{value}");
        }
        for value in ["", "S", "1", "1s", "1h", "100000000S", "-1S", "+1S", "1.5S", "1 S", " 1S", "1S ", "1SS", "¹S"] {
            assert_eq!(parse_timeout(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_status_is_a_number_and_one_that_nobody_gave_out_is_other() {
        for (at, status) in RpcStatus::ALL.iter().enumerate().take(17) {
            assert_eq!(parse_status(at.to_string().as_bytes()), Some(*status));
            assert_eq!(status.code() as usize, at);
        }
        for value in ["17", "255", "4294967295", "4294967296", "99999999999999999999999"] {
            assert_eq!(parse_status(value.as_bytes()), Some(RpcStatus::Other), "{value}");
        }
        assert_eq!(parse_status(b"014"), Some(RpcStatus::Unavailable));
        for value in ["", "-1", "+1", "1 ", "UNAVAILABLE", "1.0", "0x1"] {
            assert_eq!(parse_status(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_message_is_readable_as_long_as_it_is_ascii() {
        let mut out = Vec::new();
        write_message("the backend refused: 100 %\r\nü", &mut out);
        assert_eq!(out, b"the backend refused: 100 %25%0D%0A%C3%BC");
    }

    #[test]
    fn a_message_may_be_as_long_as_its_prefix_can_tell() {
        let piece = vec![0; 16 << 20];
        let mut messages = Messages::default();
        assert!(!messages.second_begins(&[1, 0xff, 0xff, 0xff, 0xff]));
        for _ in 0..255 {
            assert!(!messages.second_begins(&piece));
        }
        assert!(!messages.second_begins(&piece[1..]));
        assert!(messages.second_begins(&[0]));
    }

    proptest! {
        #[test]
        fn the_second_message_begins_with_its_first_byte_however_the_body_is_cut(
            lengths in prop::collection::vec(prop_oneof![0usize..4, 0usize..700], 0..4),
            cuts in prop::collection::vec(0usize..40, 0..200),
        ) {
            let body: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let first = lengths.first().map_or(usize::MAX, |length| 5 + length);
            let (mut messages, mut fed) = (Messages::default(), 0);
            for cut in cuts.into_iter().chain([body.len()]) {
                let end = (fed + cut).min(body.len());
                let said = messages.second_begins(&body[fed..end]);
                fed = end;
                prop_assert_eq!(said, fed > first, "{} of {}", fed, body.len());
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(value in prop::collection::vec(any::<u8>(), 0..40)) {
            let _deadline = parse_timeout(&value);
            let _status = parse_status(&value);
            let _grpc = is_grpc(&value);
            Messages::default().second_begins(&value);
        }

        #[test]
        fn a_timeout_is_what_its_parts_say(number in 0u64..100_000_000, unit in 0usize..6) {
            let (letter, nanos) =
                [('H', 3_600_000_000_000), ('M', 60_000_000_000), ('S', 1_000_000_000), ('m', 1_000_000), ('u', 1000), ('n', 1)][unit];
            let expected = u128::from(number) * nanos;
            let read = parse_timeout(format!("{number}{letter}").as_bytes());
            prop_assert_eq!(read.map(|read| read.as_nanos()), Some(expected));
        }

        #[test]
        fn a_message_is_a_field_value_and_says_the_same(text in any::<String>()) {
            let mut out = Vec::new();
            write_message(&text, &mut out);
            prop_assert!(out.iter().all(|byte| (b' '..=b'~').contains(byte)));
            prop_assert_eq!(percent_decode(&out).decode_utf8().unwrap(), text);
        }
    }
}
