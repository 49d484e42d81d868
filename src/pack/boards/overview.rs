//! Overview: is it well, and if not, which signal and which route?

use crate::pack::dashboard::{Dashboard, Kind, Panel, Row, Target, Unit};
use crate::pack::objective::Objective;

pub(super) fn dashboard(_objective: &Objective) -> Dashboard {
    Dashboard {
        uid: "golden-sidecar-overview",
        title: "Golden Sidecar / Overview",
        description: "Is it well, and if not, which signal and which route?",
        variables: vec![],
        rows: vec![Row {
            title: None,
            collapsed: false,
            height: 8,
            panels: vec![Panel {
                shows: "Requests of users per second.".into(),
                normal: "Follows the day.".into(),
                act: "See which route it is.".into(),
                unit: Unit::RequestsPerSecond,
                min: Some(0.0),
                targets: vec![Target::range(
                    r#"sum(rate(golden_requests_total{@,traffic="user"}[$__rate_interval]))"#,
                    "requests",
                )],
                ..Panel::new("Traffic", Kind::Lines, 6)
            }],
        }],
    }
}
