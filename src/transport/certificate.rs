//! When a certificate ends.
//! Source: RFC 5280, sections 4.1 and 4.1.2.5; X.690 (DER).
//! Shape:  `SEQUENCE { SEQUENCE { [0] version?, serial, algorithm, issuer, SEQUENCE { notBefore, notAfter }, … }, … }`;
//!         times are `YYMMDDHHMMSSZ` (tag 0x17, years 1950 to 2049) or `YYYYMMDDHHMMSSZ` (tag 0x18).
//! Units:  Unix seconds.
//! Absent: `None` for whatever is not such a certificate; whether it is valid otherwise, nobody asks here.
//!
//! By hand: what reads the rest of a certificate is ten crates, and this is one number.

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The Unix time after which a certificate is not valid any more.
#[must_use]
pub fn not_after(certificate: &[u8]) -> Option<i64> {
    let (tag, certificate, _) = element(certificate)?;
    let (inner, to_be_signed, _) = element(certificate)?;
    if (tag, inner) != (SEQUENCE, SEQUENCE) {
        return None;
    }
    let (tag, _, after_first) = element(to_be_signed)?;
    // The version is left out where it is the first one.
    let mut rest = if tag == VERSION { after_first } else { to_be_signed };
    for _serial_algorithm_issuer in 0..3 {
        rest = element(rest)?.2;
    }
    let (SEQUENCE, validity, _) = element(rest)? else { return None };
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    unix_seconds(tag, text)
}

/// The first element: its tag, its content, and what follows it. Lengths of up to four bytes: a certificate has kilobytes.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn unix_seconds(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => match number(&digits[..2]) {
            year @ 50.. => (1900 + year, &digits[2..]),
            year => (2000 + year, &digits[2..]),
        },
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| number(&rest[at..at + 2]));
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    in_range.then(|| days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days of the Gregorian calendar, counted in years that begin in March, so that the leap day is the last one.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_FROM_MARCH_0000_TO_1970: i64 = 719_468;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - DAYS_FROM_MARCH_0000_TO_1970
}

#[cfg(test)]
mod tests {
    use super::{GENERALIZED_TIME, UTC_TIME, element, not_after, unix_seconds};
    use proptest::prelude::*;

    /// A certificate of which only the frame and the times are real.
    fn certificate(version: bool, times: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| {
            let length = content.len();
            let mut out = match length {
                0..0x80 => vec![tag, length as u8],
                _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
            };
            out.extend_from_slice(content);
            out
        };
        let mut inner = if version { wrap(0xa0, &[2, 1, 2]) } else { Vec::new() };
        inner.extend(wrap(2, &[7; 20]));
        inner.extend(wrap(0x30, &[6, 1, 1]));
        inner.extend(wrap(0x30, &[0; 300]));
        inner.extend(wrap(0x30, times));
        wrap(0x30, &[wrap(0x30, &inner), wrap(3, &[0; 5])].concat())
    }

    #[test]
    fn the_end_of_a_certificate_is_found_with_and_without_a_version() {
        // Expected: `date -ud '…' +%s`.
        let utc = b"\x17\x0d000101000000Z\x17\x0d260131235959Z";
        let general = b"\x17\x0d000101000000Z\x18\x0f20500228120001Z";
        for version in [true, false] {
            assert_eq!(not_after(&certificate(version, utc)), Some(1_769_903_999));
            assert_eq!(not_after(&certificate(version, general)), Some(2_529_662_401));
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20000229000000Z", Some(951_782_400)),
            (GENERALIZED_TIME, "20000301000000Z", Some(951_868_800)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (GENERALIZED_TIME, "20001301000000Z", None),
            (GENERALIZED_TIME, "20000101240000Z", None),
            (UTC_TIME, "7001010000Z", None),
            (UTC_TIME, "70010100000+Z", None),
            (UTC_TIME, "700101000000", None),
            (0x16, "700101000000Z", None),
        ] {
            assert_eq!(unix_seconds(tag, text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = not_after(&bytes);
            let _ = element(&bytes);
        }

        #[test]
        fn a_cut_or_changed_certificate_is_read_or_refused(cut in 0usize..370, at in 0usize..370, to in any::<u8>()) {
            let mut whole = certificate(true, b"\x17\x0d000101000000Z\x17\x0d260131235959Z");
            prop_assert_eq!(not_after(&whole[..cut.min(whole.len() - 1)]), None);
            let at = at.min(whole.len() - 1);
            whole[at] = to;
            let _ = not_after(&whole);
        }
    }
}
