//! OpenMetrics 1.0.0.
//!
//! Source: the OpenMetrics 1.0.0 specification, "Text format".
//! Shape:  `# TYPE`, `# UNIT`, `# HELP`, samples, and `# EOF` at the end.
//!
//! - A counter family is named without `_total`; its samples carry it. A counter whose name lacks `_total` becomes
//!   `unknown`, because adding the suffix would give it another series name than 0.0.4 does.
//! - `# UNIT` only where the family name ends in `_` and that unit, which the specification demands.
//! - `golden_build_info` stays a gauge. An info family would have to be called `golden_build`, and then the two formats
//!   would disagree about the metadata of one series for nothing in return.
//! - `_created` and exemplars stand where the model has them: on counters, on buckets, and at the end of a histogram.

use std::io::Write as _;

use super::encoder::{Profile, push_quoted};
use super::escaping::push_name;
use super::number::Style;
use crate::signals::snapshot::Kind;

/// What the page says that it is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The same for those who only know the draft; they read what has been taken over from it.
pub const CONTENT_TYPE_DRAFT: &str = "application/openmetrics-text; version=0.0.1; charset=utf-8";

pub(super) const PROFILE: Profile = Profile { style: Style::Dotted, header, timestamp, open: true, end: b"# EOF\n" };

/// The base units that the metric catalogue uses. A new one is added here.
const UNITS: [&str; 3] = ["seconds", "bytes", "ratio"];

fn header(out: &mut Vec<u8>, name: &str, kind: Kind, help: &str) {
    let (name, kind): (&str, &[u8]) = match kind {
        Kind::Counter => match name.strip_suffix("_total") {
            Some(name) => (name, b"counter"),
            None => (name, b"unknown"),
        },
        Kind::Gauge => (name, b"gauge"),
        Kind::Histogram => (name, b"histogram"),
        Kind::Summary => (name, b"summary"),
        Kind::Unknown => (name, b"unknown"),
    };
    line(out, b"# TYPE ", name, |out| out.extend_from_slice(kind));
    if let Some(unit) = unit(name) {
        line(out, b"# UNIT ", name, |out| out.extend_from_slice(unit.as_bytes()));
    }
    if !help.is_empty() {
        line(out, b"# HELP ", name, |out| push_quoted(out, help));
    }
}

fn line(out: &mut Vec<u8>, keyword: &[u8], name: &str, rest: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(keyword);
    push_name(out, name);
    out.push(b' ');
    rest(out);
    out.push(b'\n');
}

/// The unit that this family name (without `_total`) ends in.
pub(super) fn unit(name: &str) -> Option<&'static str> {
    UNITS.into_iter().find(|unit| name.strip_suffix(unit).is_some_and(|stem| stem.ends_with('_')))
}

/// Seconds with three decimals.
fn timestamp(out: &mut Vec<u8>, milliseconds: i64) {
    let sign = if milliseconds < 0 { "-" } else { "" };
    let size = milliseconds.unsigned_abs();
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{sign}{}.{:03}", size / 1000, size % 1000);
}

#[cfg(test)]
mod tests {
    use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

    use super::*;
    use crate::exposition::{cold, plain};

    #[test]
    fn the_page_has_family_names_units_dotted_floats_and_an_end() {
        let registry = Registry::new();
        let bytes =
            IntCounterVec::new(Opts::new("golden_response_bytes_total", "Say \"hi\" \\ \n."), &["route"]).unwrap();
        bytes.with_label_values(&["/a\"b\\c\nd"]).inc_by(12);
        let bare = IntCounter::new("requests", "No suffix.").unwrap();
        bare.inc();
        let histogram =
            HistogramVec::new(HistogramOpts::new("wait_seconds", "W.").buckets(vec![0.5, 1.0]), &["x"]).unwrap();
        histogram.with_label_values(&["y"]).observe(1.0);
        let ratio = Gauge::new("golden_saturation_ratio", "R.").unwrap();
        ratio.set(0.25);
        let info = Gauge::new("golden_build_info", "I.").unwrap();
        info.set(1.0);
        let no_unit = Gauge::new("megabytes", "Ends in a unit, but not in _unit.").unwrap();
        for collector in [
            Box::new(bytes) as Box<dyn prometheus::core::Collector>,
            Box::new(bare),
            Box::new(histogram),
            Box::new(ratio),
            Box::new(info),
            Box::new(no_unit),
        ] {
            registry.register(collector).unwrap();
        }

        let page = plain(&cold::convert(registry.gather(), None), &PROFILE) + "# EOF\n";
        assert_eq!(
            page,
            r##"# TYPE golden_build_info gauge
# HELP golden_build_info I.
golden_build_info 1.0
# TYPE golden_response_bytes counter
# UNIT golden_response_bytes bytes
# HELP golden_response_bytes Say \"hi\" \\ \n.
golden_response_bytes_total{route="/a\"b\\c\nd"} 12.0
# TYPE golden_saturation_ratio gauge
# UNIT golden_saturation_ratio ratio
# HELP golden_saturation_ratio R.
golden_saturation_ratio 0.25
# TYPE megabytes gauge
# HELP megabytes Ends in a unit, but not in _unit.
megabytes 0.0
# TYPE requests unknown
# HELP requests No suffix.
requests 1.0
# TYPE wait_seconds histogram
# UNIT wait_seconds seconds
# HELP wait_seconds W.
wait_seconds_bucket{x="y",le="0.5"} 0
wait_seconds_bucket{x="y",le="1.0"} 1
wait_seconds_bucket{x="y",le="+Inf"} 1
wait_seconds_sum{x="y"} 1.0
wait_seconds_count{x="y"} 1
# EOF
"##
        );
    }

    #[test]
    fn timestamps_are_seconds() {
        for (milliseconds, expected) in [(1_500, "1.500"), (-1, "-0.001"), (i64::MIN, "-9223372036854775.808")] {
            let mut out = Vec::new();
            timestamp(&mut out, milliseconds);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
