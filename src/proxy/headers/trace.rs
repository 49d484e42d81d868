//! The trace that a request is a part of.
//!
//! Source: W3C Trace Context, section 3.2 (`traceparent`).
//! Shape:  `00-` + 32 hex digits (trace) + `-` + 16 (span) + `-` + 2 (flags); lower case. A later version may have more
//!         behind another `-`.
//! Absent: when it is malformed, all zero, of the forbidden version `ff`, or its sender does not record the trace: then
//!         nobody could look it up.

use crate::measure::TraceIds;

/// The bit of the flags that says "recorded".
const SAMPLED: u8 = 1;

/// The ids of a trace that is recorded.
pub(super) fn sampled(value: &[u8]) -> Option<TraceIds> {
    let (version, rest) = value.split_at_checked(2)?;
    let version = hex(version)?;
    let fields: &[u8; 53] = rest.first_chunk()?;
    let more = rest.get(53);
    if version == 0xff || (version == 0 && more.is_some()) || more.is_some_and(|next| *next != b'-') {
        return None;
    }
    if fields[0] != b'-' || fields[33] != b'-' || fields[50] != b'-' {
        return None;
    }
    let (trace_id, span_id, flags) = (hex(&fields[1..33])?, hex(&fields[34..50])?, hex(&fields[51..])?);
    let recorded = flags as u8 & SAMPLED != 0;
    (recorded && trace_id != 0 && span_id != 0).then_some(TraceIds { trace_id, span_id: span_id as u64 })
}

/// At most 32 digits, lower case.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_recorded_trace_has_its_ids() {
        let ids = sampled(GOOD.as_bytes()).unwrap();
        assert_eq!(ids.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(ids.span_id, 0x00f0_67aa_0ba9_02b7);
        // A later version may say more.
        assert_eq!(sampled(GOOD.replacen("00", "01", 1).as_bytes()), Some(ids));
        assert_eq!(sampled(format!("{}-more", GOOD.replacen("00", "01", 1)).as_bytes()), Some(ids));
        // Other flags are none of ours.
        assert_eq!(sampled(GOOD.replace("-01", "-03").as_bytes()), Some(ids));
    }

    #[test]
    fn what_nobody_could_look_up_is_no_trace() {
        for bad in [
            "",
            "00",
            &GOOD.replace("-01", "-00"),
            &GOOD.replace("-01", ""),
            &GOOD.replacen("00", "ff", 1),
            &format!("{GOOD}-more"),
            &format!("{}x", GOOD.replacen("00", "01", 1)),
            &GOOD.to_uppercase(),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace('-', "_"),
        ] {
            assert_eq!(sampled(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = sampled(&bytes);
        }
    }
}
