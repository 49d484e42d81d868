//! Texts with a unit: durations and sizes, both ways. What is written here is read back as the same value.

use std::time::Duration;

use super::error::found;

/// Units of a duration, largest first, with their milliseconds.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A year: more is a typing mistake, and far from where clock arithmetic overflows.
const DURATION_MAX: Duration = Duration::from_millis(365 * 24 * 3_600_000);

/// Units of a size, largest first, with their bytes.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a whole number with one of the units `ms`, `s`, `m`, `h`: `250ms`, `5s`. From 0 to a year.
///
/// # Errors
/// What was found and what is accepted, without the key.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a duration such as 250ms, 5s or 2m";
    let milliseconds = parse(text, &DURATION_UNITS, "duration", EXPECTED)?;
    let duration = Duration::from_millis(milliseconds);
    if duration > DURATION_MAX {
        return Err(format!("{} is too long; {EXPECTED}, at most 8760h", found(text)));
    }
    Ok(duration)
}

/// Writes a duration in the largest unit that holds it as a whole number; below a millisecond it is cut.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    // No configured duration exceeds a year; a longer one would be shown as the largest number there is.
    format(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS, "s")
}

/// Reads a whole number of bytes with one of the units `B`, `KB`, `MB`, `GB` (powers of 1000), `KiB`, `MiB`, `GiB`
/// (powers of 1024): `64KiB`, `1MB`.
///
/// # Errors
/// What was found and what is accepted, without the key.
pub fn parse_size(text: &str) -> Result<u64, String> {
    parse(text, &SIZE_UNITS, "size", "expected a size such as 512B, 64KiB or 1MB")
}

/// Writes a number of bytes in the largest unit that holds it as a whole number.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    format(bytes, &SIZE_UNITS, "B")
}

fn parse(text: &str, units: &[(&str, u64)], noun: &str, expected: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if digits > 0 && unit.is_empty() {
        return Err(format!("{} has no unit; {expected}", found(text)));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| digits > 0 && *name == unit) else {
        return Err(format!("{} is not a {noun}; {expected}", found(text)));
    };
    // The only way that digits are no number is that there are too many of them.
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)) {
        Some(value) => Ok(value),
        None => Err(format!("{} is too large; {expected}", found(text))),
    }
}

fn format(value: u64, units: &[(&str, u64)], zero_unit: &str) -> String {
    match units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor)) {
        Some((name, factor)) => format!("{}{name}", value / factor),
        None => format!("0{zero_unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{format_duration, format_size, parse_duration, parse_size};
    use std::time::Duration;

    #[test]
    fn values_are_written_in_the_largest_whole_unit() {
        for (milliseconds, text) in [(0, "0s"), (250, "250ms"), (75_000, "75s"), (600_000, "10m"), (7_200_000, "2h")] {
            assert_eq!(format_duration(Duration::from_millis(milliseconds)), text);
        }
        for (bytes, text) in [(0, "0B"), (999, "999B"), (65_536, "64KiB"), (1_000_000, "1MB"), (1 << 30, "1GiB")] {
            assert_eq!(format_size(bytes), text);
        }
    }

    #[test]
    fn texts_without_number_or_known_unit_are_refused() {
        for text in ["", "5", "s", "-5s", "5 s", "1.5s", "5S", "5d", "99999999999999999999s", "9000h", "5sm"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["", "64", "KiB", "64kib", "64Ki", "1.5MB", "-1B", "18446744073709551615GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
