//! The alerts of the pack in real servers: Prometheus over days of back-filled history and over live traffic, and
//! Alertmanager with the pack's rules of inhibition.
//!
//! | file | what it holds |
//! |---|---|
//! | `history.rs` | burns over days, an outage, a stray error: who is told, and when |
//! | `day.rs` | healthy days, at which nothing fires |
//! | `inhibition.rs` | each rule of inhibition, on all that it can match |
//! | `live.rs` | sidecar, Prometheus and Alertmanager together, while all is well and while the backend is down |

#[path = "../common/mod.rs"]
mod common;
mod day;
mod history;
mod inhibition;
mod live;

use std::time::Duration;

use common::prometheus::{Firing, Options, Prometheus, Version};
use golden_sidecar::pack::alerts;
use golden_sidecar::pack::rules::{Group, Rule, groups_yaml};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// The one that always fires.
const WATCHDOG: &str = "GoldenWatchdog";

/// The rules over a history that ends at `end`: recorded at each step from `start` on, as far as these alerts read them; all
/// alerts where none is named. The server has all of the pack's rules.
fn over_history(
    version: Version,
    history: &common::prometheus::Backfill,
    (start, step): (f64, Duration),
    alerts: &[&str],
) -> Prometheus {
    let rules = vec![common::files::rules_text()];
    let options = Options { data: Some(history.write(version)), rules, ..Options::default() };
    let waves = recording_in_waves(alerts).into_iter();
    waves.fold(Prometheus::start(version, options), |prometheus, wave| {
        prometheus.record(&wave, start, history.end, step)
    })
}

/// The recording rules that these alerts need as rule files, each with those that need only what an earlier file recorded.
fn recording_in_waves(alerts: &[&str]) -> Vec<String> {
    let groups = alerts::groups();
    let all = || groups.iter().flat_map(|group| &group.rules);
    let wanted = |name: &str| alerts.is_empty() || alerts.contains(&name);
    let exprs = all().filter_map(|rule| match rule {
        Rule::Alert(alert) if wanted(alert.name) => Some(&*alert.expr),
        _ => None,
    });
    let mut read: String = exprs.collect();
    let mut left = Vec::new();
    // Backwards: who reads comes after what is read.
    for rule in all().collect::<Vec<_>>().into_iter().rev() {
        if let Rule::Record(record) = rule
            && read.contains(&record.name)
        {
            read.push_str(&record.expr);
            left.push(record.clone());
        }
    }
    let mut waves = Vec::new();
    while !left.is_empty() {
        let names: Vec<String> = left.iter().map(|record| record.name.clone()).collect();
        let (later, now): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|record| names.iter().any(|name| record.expr.contains(&**name)));
        assert!(!now.is_empty(), "the recording rules need each other: {names:?}");
        let rules = now.into_iter().map(Rule::Record).collect();
        waves.push(groups_yaml(&[Group { name: "recorded", interval: "1m", rules }]).document(&[]));
        left = later;
    }
    waves
}

fn without_watchdog(mut fired: Vec<Firing>) -> Vec<Firing> {
    fired.retain(|firing| firing.labels["alertname"] != WATCHDOG);
    fired
}
