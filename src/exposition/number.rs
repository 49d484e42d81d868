//! Numbers as the text formats want them.
//!
//! Source: OpenMetrics 1.0.0, "Numbers" and "Considerations: Canonical Numbers"; Prometheus text format 0.0.4, which
//! takes what Go's `ParseFloat` takes.
//! Shape:  shortest digits that read back as the same float. Whole numbers below 2^53 are written out; others use an
//!         exponent outside 1e-4 … 1e21. In `le` and `quantile`, which are compared as text, the exponent starts at
//!         1e6 already, because that is the canonical spelling there (`100000.0`, `1e+06`).

use std::io::Write as _;

/// Above this a float no longer holds every whole number, so writing all digits would pretend a precision.
const WHOLE_LIMIT: f64 = 9_007_199_254_740_992.0; // 2^53

/// How a format spells its floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `1`: text 0.0.4.
    Plain,
    /// `1.0`: OpenMetrics.
    Dotted,
}

/// Appends a sample value.
pub(super) fn push_value(out: &mut Vec<u8>, value: f64, style: Style) {
    push(out, value, style, WHOLE_LIMIT, 1e21);
}

/// Appends a bucket edge or a quantile in its canonical spelling.
pub(super) fn push_edge(out: &mut Vec<u8>, value: f64, style: Style) {
    push(out, value, style, 1e6, 1e6);
}

/// Appends a count.
pub(super) fn push_count(out: &mut Vec<u8>, count: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
}

fn push(out: &mut Vec<u8>, value: f64, style: Style, whole_below: f64, decimal_below: f64) {
    let size = value.abs();
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if size.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if size < whole_below && value.trunc() == value {
        // The range was checked, so the cast is exact. Negative zero becomes zero.
        #[allow(clippy::cast_possible_truncation)]
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
        if style == Style::Dotted {
            out.extend_from_slice(b".0");
        }
    } else if (1e-4..decimal_below).contains(&size) {
        let start = out.len();
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{value}");
        if style == Style::Dotted && !out[start..].contains(&b'.') {
            out.extend_from_slice(b".0");
        }
    } else {
        push_exponent(out, value);
    }
}

/// `1e+06`, `1.5e-07`: sign always, two digits at least, as C and Go write it.
fn push_exponent(out: &mut Vec<u8>, value: f64) {
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(rest) => ('-', rest),
        None => ('+', exponent),
    };
    let _ = write!(out, "{digits}e{sign}{exponent:0>2}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(push: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn edges_are_spelled_like_the_canonical_numbers_of_the_specification() {
        for (value, expected) in [
            (0.0, "0.0"),
            (0.001, "0.001"),
            (0.95, "0.95"),
            (1.0, "1.0"),
            (1.7, "1.7"),
            (10.0, "10.0"),
            (1e-10, "1e-10"),
            (1e-9, "1e-09"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (100_000.0, "100000.0"),
            (1e6, "1e+06"),
            (1e10, "1e+10"),
            (1_234_567.5, "1.2345675e+06"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(text(|out| push_edge(out, value, Style::Dotted)), expected);
        }
        assert_eq!(text(|out| push_edge(out, 1.0, Style::Plain)), "1");
        assert_eq!(text(|out| push_edge(out, 1e6, Style::Plain)), "1e+06");
    }

    #[test]
    fn values_are_written_out_while_every_digit_is_true() {
        for (value, plain, dotted) in [
            (0.0, "0", "0.0"),
            (-0.0, "0", "0.0"),
            (-3.0, "-3", "-3.0"),
            (1_234_567.0, "1234567", "1234567.0"),
            (0.25, "0.25", "0.25"),
            (1e20, "100000000000000000000", "100000000000000000000.0"),
            (1e21, "1e+21", "1e+21"),
            (1e-7, "1e-07", "1e-07"),
            (f64::NEG_INFINITY, "-Inf", "-Inf"),
            (f64::NAN, "NaN", "NaN"),
        ] {
            assert_eq!(text(|out| push_value(out, value, Style::Plain)), plain);
            assert_eq!(text(|out| push_value(out, value, Style::Dotted)), dotted);
        }
    }

    proptest! {
        #[test]
        fn every_float_reads_back_as_itself(value in any::<f64>().prop_filter("NaN is never equal", |v| !v.is_nan())) {
            for style in [Style::Plain, Style::Dotted] {
                prop_assert_eq!(text(|out| push_value(out, value, style)).parse::<f64>().unwrap(), value);
                prop_assert_eq!(text(|out| push_edge(out, value, style)).parse::<f64>().unwrap(), value);
            }
        }
    }
}
