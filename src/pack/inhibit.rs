//! Who silences whom: an example for Alertmanager. One fault sets off many alerts, and the one nearest to the cause is to be
//! read.
//!
//! Alertmanager takes two labels that are both absent for equal, so a rule whose `equal` names nothing that its alerts have would
//! let one alert silence the world. Every list therefore has `job`, and the tests look up each label in every alert that its
//! rule can match. `cluster` and `namespace` come from the scrape configuration: both sides have them, or neither has.

use super::rules::RUNBOOKS_URL;
use super::yaml::{Yaml, text};

/// One rule.
#[derive(Clone, Debug)]
pub struct Inhibition {
    /// Why the target says nothing more, one sentence.
    pub why: &'static str,
    /// Who silences.
    pub source: Side,
    /// Who is silenced.
    pub target: Side,
    /// Labels that both have, with the same values.
    pub equal: Vec<&'static str>,
}

/// Which alerts.
#[derive(Clone, Debug)]
pub struct Side {
    /// Names of alerts.
    pub alerts: Vec<&'static str>,
    /// Labels and the values that they may have.
    pub labels: Vec<(&'static str, Vec<&'static str>)>,
}

/// What alerts of one service have in common.
const SERVICE: [&str; 3] = ["cluster", "namespace", "job"];

/// Alerts with a page and a ticket about one instance.
const OF_INSTANCES: [&str; 2] = ["GoldenMemoryNearLimit", "GoldenServerConnectionsNearLimit"];

/// Alerts about what comes through.
const TRAFFIC: [&str; 5] = [
    "GoldenClientErrorsHigh",
    "GoldenLowTrafficErrors",
    "GoldenRateLimitedHigh",
    "GoldenTrafficDrop",
    "GoldenTrafficSpike",
];

/// Alerts about what is full or down, of one instance each.
const SATURATION: [&str; 18] = [
    "GoldenAcceptQueueOverflow",
    "GoldenBackendDown",
    "GoldenBackendRestarting",
    "GoldenConnectionPoolRejecting",
    "GoldenConnectionPoolSaturated",
    "GoldenConnectionPoolWillFill",
    "GoldenCpuSaturated",
    "GoldenFileDescriptorsNearLimit",
    "GoldenHostCpuSaturated",
    "GoldenHostMemoryNearLimit",
    "GoldenInFlightNearLimit",
    "GoldenMemoryNearLimit",
    "GoldenMemoryWillFill",
    "GoldenOutOfMemoryKills",
    "GoldenQueueDelay",
    "GoldenSaturationStale",
    "GoldenServerConnectionsNearLimit",
    "GoldenThreadsNearLimit",
];

const BURN: [&str; 2] = ["GoldenErrorBudgetBurn", "GoldenLatencyBudgetBurn"];

/// Pairs of windows by their long one, fastest first.
const LONG: [&str; 4] = ["1h", "6h", "1d", "3d"];

/// All of them.
#[must_use]
pub fn all() -> Vec<Inhibition> {
    let mut rules: Vec<Inhibition> = (1..LONG.len())
        .map(|slower| Inhibition {
            why: "The budget burns faster than these windows can tell.",
            source: Side::of(&BURN).with("long", &LONG[slower - 1..slower]),
            target: Side::of(&BURN).with("long", &LONG[slower..]),
            equal: equal(&["alertname", "slo"]),
        })
        .collect();
    rules.extend([
        Inhibition {
            why: "Somebody has been woken for this instance: the ticket adds nothing.",
            source: Side::of(&OF_INSTANCES).with("severity", &["critical"]),
            target: Side::of(&OF_INSTANCES).with("severity", &["warning"]),
            equal: equal(&["alertname", "instance"]),
        },
        Inhibition {
            why: "It is critical already that this certificate ends.",
            source: Side::of(&["GoldenCertificateExpiring"]).with("severity", &["critical"]),
            target: Side::of(&["GoldenCertificateExpiring"]).with("severity", &["warning"]),
            equal: equal(&["alertname", "instance", "use"]),
        },
        Inhibition {
            why: "Most sidecars of the job are down: each of them adds nothing.",
            source: Side::of(&["GoldenTargetDown"]).with("severity", &["critical"]),
            target: Side::of(&["GoldenTargetDown"]).with("severity", &["warning"]),
            equal: equal(&["alertname"]),
        },
        Inhibition {
            why: "Nobody is looking: what is said of traffic and saturation of this job is old.",
            source: Side::of(&["GoldenTargetDown", "GoldenTargetGone"]).with("severity", &["critical"]),
            target: Side::of(&[&TRAFFIC[..], &SATURATION[..]].concat()),
            equal: equal(&[]),
        },
        Inhibition {
            why: "Nobody is looking at this instance: what is said of its saturation is old.",
            source: Side::of(&["GoldenTargetDown"]).with("severity", &["warning"]),
            target: Side::of(&SATURATION),
            equal: equal(&["instance"]),
        },
        Inhibition {
            why: "The backend cannot be reached: of course all requests fail.",
            source: Side::of(&["GoldenBackendUnreachable"]),
            target: Side::of(&[&["GoldenAllRequestsFailing", "GoldenLowTrafficErrors"], &BURN[..]].concat()),
            equal: equal(&[]),
        },
        Inhibition {
            why: "The backend cannot be reached: of course nothing of it can be measured.",
            source: Side::of(&["GoldenBackendUnreachable"]),
            target: Side::of(&["GoldenSaturationStale"]).with("sign", &["source"]),
            equal: equal(&[]),
        },
        Inhibition {
            why: "Somebody has been woken because no backend can be reached: each that is down adds nothing.",
            source: Side::of(&["GoldenBackendUnreachable"]),
            target: Side::of(&["GoldenBackendDown"]),
            equal: equal(&[]),
        },
        Inhibition {
            why: "The backend of this instance is down: of course nothing of it can be measured.",
            source: Side::of(&["GoldenBackendDown"]),
            target: Side::of(&["GoldenSaturationStale"]).with("sign", &["source"]),
            equal: equal(&["instance"]),
        },
        Inhibition {
            why: "It is full already: no forecast is needed.",
            source: Side::of(&["GoldenMemoryNearLimit"]),
            target: Side::of(&["GoldenMemoryWillFill"]),
            equal: equal(&["instance"]),
        },
        Inhibition {
            why: "Requests fail for want of connections: that the pool is full, or will be, follows.",
            source: Side::of(&["GoldenConnectionPoolRejecting"]),
            target: Side::of(&["GoldenConnectionPoolSaturated", "GoldenConnectionPoolWillFill"]),
            equal: equal(&["instance", "resource"]),
        },
        Inhibition {
            why: "It is full already: no forecast is needed.",
            source: Side::of(&["GoldenConnectionPoolSaturated"]),
            target: Side::of(&["GoldenConnectionPoolWillFill"]),
            equal: equal(&["instance", "resource"]),
        },
    ]);
    rules
}

/// The file: complete, so that Alertmanager can be started with it as it is.
#[must_use]
pub fn document() -> String {
    let rules = all().into_iter().map(|rule| {
        Yaml::Map(vec![
            ("source_matchers", rule.source.yaml()),
            ("target_matchers", rule.target.yaml()),
            ("equal", Yaml::List(rule.equal.into_iter().map(text).collect())),
        ])
    });
    let mut whys: Vec<String> = all().iter().map(|rule| format!("- {}", rule.why)).collect();
    whys.dedup();
    let runbooks = format!("What each alert means: {RUNBOOKS_URL}");
    let mut comment = vec![
        "An example for Alertmanager: which alerts of golden-sidecar silence which others. Generated, do not edit.",
        "",
        "It loads as it is and sends nothing to anybody: put inhibit_rules into your configuration, beside your own route and",
        "receivers. If your alerts have no label job any more, leave it: without it one alert would silence all others.",
        "",
        "Why, in their order:",
    ];
    comment.extend(whys.iter().map(String::as_str));
    comment.push("");
    comment.push(&runbooks);
    let receiver = "nobody";
    Yaml::Map(vec![
        ("route", Yaml::Map(vec![("receiver", text(receiver))])),
        ("receivers", Yaml::List(vec![Yaml::Map(vec![("name", text(receiver))])])),
        ("inhibit_rules", Yaml::List(rules.collect())),
    ])
    .document(&comment)
}

fn equal(more: &[&'static str]) -> Vec<&'static str> {
    [&SERVICE[..], more].concat()
}

// === impl Side ===

impl Side {
    fn of(alerts: &[&'static str]) -> Side {
        Side { alerts: alerts.to_vec(), labels: Vec::new() }
    }

    fn with(mut self, label: &'static str, values: &[&'static str]) -> Side {
        self.labels.push((label, values.to_vec()));
        self
    }

    /// As matchers.
    fn yaml(&self) -> Yaml {
        let names = std::iter::once(("alertname", &self.alerts));
        let labels = self.labels.iter().map(|(label, values)| (*label, values));
        let matchers = names.chain(labels).map(|(label, values)| {
            // Alertmanager anchors expressions at both ends.
            let operator = if values.len() > 1 { "=~" } else { "=" };
            text(format!("{label} {operator} \"{}\"", values.join("|")))
        });
        Yaml::List(matchers.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::alerts;
    use crate::pack::cases::Suite;
    use crate::pack::rules::{self, Alert, Group, Rule};

    /// Alerts of the model that a side matches.
    fn matched<'a>(side: &Side, model: &'a [Alert]) -> Vec<&'a Alert> {
        let value = |alert: &Alert, label: &str| match label {
            "severity" => alert.severity.as_str().to_owned(),
            label => {
                alert.labels.iter().find(|(name, _)| *name == label).map(|(_, value)| value.clone()).unwrap_or_default()
            }
        };
        let fits = |alert: &&Alert| {
            side.alerts.contains(&alert.name)
                && side.labels.iter().all(|(label, values)| values.contains(&value(alert, label).as_str()))
        };
        model.iter().filter(fits).collect()
    }

    fn model() -> Vec<Alert> {
        rules::alerts(&alerts::groups()).cloned().collect()
    }

    /// Whether an alert has this label, as its cases show: they name all labels of what fires, and promtool holds them to it.
    /// Not every case is set in a cluster: of that the expression tells, which has to keep it.
    fn has(alert: &Alert, label: &str, groups: &[Group], suites: &[Suite]) -> bool {
        if label == "alertname" || alert.labels.iter().any(|(name, _)| *name == label) {
            return true;
        }
        let cases = suites.iter().flat_map(|suite| &suite.cases).filter(|case| case.alert == alert.name);
        let firing = cases.flat_map(|case| &case.checks).flat_map(|check| &check.firing).filter(|firing| {
            let has = |name: &str, value: &str| firing.iter().any(|(n, v)| *n == name && v == value);
            has("severity", alert.severity.as_str()) && alert.labels.iter().all(|(name, value)| has(name, value))
        });
        let shown: Vec<bool> = firing.map(|firing| firing.iter().any(|(name, _)| *name == label)).collect();
        assert!(!shown.is_empty(), "{} {:?} fires in no case", alert.name, alert.labels);
        match label {
            "cluster" | "namespace" => keeps(&alert.expr, label, groups),
            _ => shown.iter().all(|shown| *shown),
        }
    }

    /// Whether an expression names the label, or reads what was recorded with it.
    fn keeps(expr: &str, label: &str, groups: &[Group]) -> bool {
        let recorded = groups.iter().flat_map(|group| &group.rules).any(|rule| match rule {
            Rule::Record(record) => expr.contains(&record.name) && keeps(&record.expr, label, groups),
            Rule::Alert(_) => false,
        });
        expr.contains(&format!("{label},")) || expr.contains(&format!("{label})")) || recorded
    }

    #[test]
    fn every_label_that_is_to_be_equal_is_on_both_sides() {
        let (model, groups, suites) = (model(), alerts::groups(), alerts::suites());
        for Inhibition { why, source, target, equal } in all() {
            assert!(equal.contains(&"job"), "{why}: two alerts without any of {equal:?} would be equal");
            for side in [&source, &target] {
                for alert in matched(side, &model) {
                    for label in &equal {
                        assert!(
                            has(alert, label, &groups, &suites),
                            "{why}: {} {:?} has no label {label}",
                            alert.name,
                            alert.labels
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn no_alert_silences_itself_and_no_two_silence_each_other() {
        let model = model();
        let mut pairs = Vec::new();
        for Inhibition { source, target, .. } in all() {
            for source in matched(&source, &model) {
                for target in matched(&target, &model) {
                    let key = |alert: &Alert| (alert.name, alert.severity.as_str(), alert.labels.clone());
                    assert_ne!(key(source), key(target), "{} silences itself", source.name);
                    pairs.push((key(source), key(target)));
                }
            }
        }
        let mutual = pairs.iter().find(|(source, target)| pairs.contains(&(target.clone(), source.clone())));
        assert_eq!(mutual, None);
    }

    #[test]
    fn every_alert_that_is_named_exists() {
        let model = model();
        for Inhibition { why, source, target, .. } in all() {
            for side in [&source, &target] {
                for name in &side.alerts {
                    assert!(model.iter().any(|alert| alert.name == *name), "{why}: there is no {name}");
                }
                assert!(!matched(side, &model).is_empty(), "{why}: {side:?} matches nothing");
            }
        }
    }

    #[test]
    fn a_backend_that_is_down_is_told_once() {
        let model = model();
        let silences = |source: &str, target: &str| {
            all().iter().any(|rule| {
                let is = |side: &Side, name: &str| matched(side, &model).iter().any(|alert| alert.name == name);
                is(&rule.source, source) && is(&rule.target, target)
            })
        };
        assert!(silences("GoldenBackendUnreachable", "GoldenBackendDown"));
        assert!(silences("GoldenTargetDown", "GoldenBackendDown"));
        assert!(silences("GoldenBackendDown", "GoldenSaturationStale"));
        // One instance of several is no reason to say nothing of the service.
        assert!(!silences("GoldenBackendDown", "GoldenAllRequestsFailing"));
        assert!(!silences("GoldenBackendDown", "GoldenErrorBudgetBurn"));
    }

    #[test]
    fn whoever_wakes_somebody_silences_the_ticket_of_the_same_name() {
        let model = model();
        let critical = |alert: &&Alert| alert.severity.as_str() == "critical";
        for page in model.iter().filter(critical) {
            for ticket in model.iter().filter(|other| other.name == page.name && !critical(other)) {
                let silenced = all().iter().any(|rule| {
                    matched(&rule.source, &model).iter().any(|alert| std::ptr::eq(*alert, page))
                        && matched(&rule.target, &model).iter().any(|alert| std::ptr::eq(*alert, ticket))
                });
                assert!(silenced, "{} {:?} does not silence {:?}", page.name, page.labels, ticket.labels);
            }
        }
    }
}
