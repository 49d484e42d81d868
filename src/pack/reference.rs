//! `docs/metrics.md`: every family of the page, from the declarations in code.

use std::fmt::Write as _;

use crate::signals::families::{self, Family};
use crate::signals::snapshot::Kind;

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from("# Metrics\n");
    for Family { name, kind, labels, help } in families::all() {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
            Kind::Unknown => "untyped",
        };
        let _ = write!(out, "\n## {name}\n\n{kind}, labels: {}\n\n{help}\n", labels.join(", "));
    }
    out
}
