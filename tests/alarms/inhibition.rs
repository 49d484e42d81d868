//! The rules of inhibition in the real Alertmanager, from the file that users get. What is tried comes from the model, with the
//! labels that its cases show: a new rule is tried at once.

use std::collections::BTreeMap;
use std::process::Command;

use golden_sidecar::pack::alerts;
use golden_sidecar::pack::cases::Suite;
use golden_sidecar::pack::inhibit::{self, Inhibition, Side};
use golden_sidecar::pack::rules::{self, Alert};

use super::WATCHDOG;
use super::common::files::{below, root};
use super::common::page::Labels;
use super::common::prometheus::{Alertmanager, Treated};
use super::common::{PATIENCE, wait_for};

/// Labels that come from the scrape configuration and may be absent everywhere.
const PLACE: [&str; 2] = ["cluster", "namespace"];

#[test]
fn amtool_takes_the_file_and_finds_every_rule_in_it() {
    let path = root().join(config().0);
    let output =
        Command::new("amtool").arg("check-config").arg(path).output().expect("installed (`make test` does it)");
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let rules = format!("- {} inhibit rules", inhibit::all().len());
    assert!(output.status.success() && printed.contains("SUCCESS") && printed.contains(&rules), "{printed}");
}

#[test]
fn each_rule_silences_all_that_it_is_meant_for_in_the_same_service_and_nothing_of_another() {
    let firing = all_that_fires();
    let (mut posted, mut silencing) = (Vec::new(), Vec::new());
    for (number, Inhibition { why, source, target, equal }) in inhibit::all().into_iter().enumerate() {
        let (sources, targets) = (matched(&source, &firing), matched(&target, &firing));
        assert!(!sources.is_empty() && !targets.is_empty(), "{why}: it matches nothing");
        for (s, source) in sources.iter().enumerate() {
            for (t, target) in targets.iter().enumerate() {
                // A job of its own for each pair: one pair says nothing to another.
                let job = format!("{number}-{s}-{t}");
                let of_job = |labels: &Labels, job: &str| {
                    let mut labels = labels.clone();
                    for label in equal.iter().filter(|label| **label != "alertname") {
                        assert!(labels.contains_key(*label), "{why}: no {label} in {labels:?}");
                        labels.insert((*label).to_owned(), "same".to_owned());
                    }
                    with(&labels, "job", job)
                };
                let (source, target) = (of_job(source, &job), of_job(target, &job));
                let meant = !equal.contains(&"alertname") || source["alertname"] == target["alertname"];
                let by = meant.then(|| source.clone());
                for label in equal.iter().filter(|label| **label != "alertname") {
                    posted.push((with(&target, label, &format!("{job}-other")), None));
                }
                // Alertmanager takes labels that both lack for equal; the job still tells them apart.
                let elsewhere = format!("{job}-elsewhere");
                let bare = |labels: &Labels| without_place(&with(labels, "job", &elsewhere));
                posted.push((bare(&target), meant.then(|| bare(&source))));
                posted.push((with(&bare(&target), "job", &format!("{job}-alone")), None));
                posted.push((bare(&source), None));
                posted.push((target, by));
                posted.push((source, None));
                silencing.extend(meant.then_some(number));
            }
        }
    }
    silencing.dedup();
    assert_eq!(silencing.len(), inhibit::all().len(), "a rule without a pair of the same name: {silencing:?}");
    assert_treated(&posted);
}

#[test]
fn nothing_silences_the_watchdog_or_the_alerts_of_others() {
    let firing = all_that_fires();
    let foreign = [
        vec![("alertname", "DiskFull")],
        vec![("alertname", "DiskFull"), ("severity", "warning"), ("job", "shop")],
        vec![("alertname", "DiskFull"), ("severity", "warning"), ("job", "shop"), ("instance", "a"), ("long", "3d")],
    ];
    let foreign = foreign.into_iter().map(|labels| labels.into_iter().map(|(l, v)| (l.into(), v.into())).collect());
    // Whatever can be equal is.
    let ours = firing.into_iter().map(|mut labels| {
        let equal = inhibit::all().into_iter().flat_map(|rule| rule.equal).filter(|label| *label != "alertname");
        for label in equal {
            labels.entry(label.to_owned()).and_modify(|value| "same".clone_into(value));
        }
        with(&labels, "job", "shop")
    });
    let all: Vec<Labels> = ours.chain(foreign).collect();
    let silent = |labels: &Labels| labels["alertname"] == WATCHDOG || labels["alertname"] == "DiskFull";
    assert_eq!(all.iter().filter(|labels| silent(labels)).count(), 4);
    for bare in [false, true] {
        let all: Vec<Labels> =
            all.iter().map(|labels| if bare { without_place(labels) } else { labels.clone() }).collect();
        let alertmanager = started();
        post(&alertmanager, &all);
        let mut treated = alertmanager.alerts_when(all.len());
        // All sources are known once each rule has silenced all that it can.
        let mut rules = inhibit::all();
        let known = wait_for(PATIENCE, || {
            treated = alertmanager.alerts();
            rules.retain(|rule| {
                let targets = matched(&rule.target, &all);
                let waiting = treated.iter().filter(|alert| targets.contains(&alert.labels));
                waiting.filter(|alert| alert.state == "active").any(|alert| {
                    let sources = matched(&rule.source, &all);
                    sources.iter().any(|source| agree(source, &alert.labels, &rule.equal))
                })
            });
            rules.is_empty()
        });
        assert!(known, "{rules:#?} do nothing: {treated:#?}");
        for alert in treated.iter().filter(|alert| silent(&alert.labels)) {
            assert_eq!((&*alert.state, &*alert.inhibited_by), ("active", [].as_slice()), "{:?}", alert.labels);
        }
    }
}

/// Posts all of them at once, and waits until exactly those with a source are suppressed, and by it.
#[track_caller]
fn assert_treated(posted: &[(Labels, Option<Labels>)]) {
    let expected: BTreeMap<&Labels, Option<&Labels>> =
        posted.iter().map(|(labels, by)| (labels, by.as_ref())).collect();
    assert_eq!(expected.len(), posted.len(), "an alert is posted twice");
    let alertmanager = started();
    post(&alertmanager, &posted.iter().map(|(labels, _)| labels.clone()).collect::<Vec<_>>());
    let wrong = |alert: &Treated| {
        let by = expected.get(&alert.labels).copied().expect("it was posted");
        let state = if by.is_some() { "suppressed" } else { "active" };
        alert.state != state || !alert.inhibited_by.iter().eq(by)
    };
    let mut treated = Vec::new();
    let right = wait_for(PATIENCE * 3, || {
        treated = alertmanager.alerts();
        treated.len() == expected.len() && !treated.iter().any(wrong)
    });
    let wrong: Vec<_> = treated.iter().filter(|alert| wrong(alert)).take(9).collect();
    assert!(right, "{} of {} alerts are there; wrong: {wrong:#?}", treated.len(), expected.len());
}

/// Path and text of the file that users get.
fn config() -> (String, String) {
    below("alerts", "alertmanager.inhibit.yml").remove(0)
}

fn started() -> Alertmanager {
    Alertmanager::start(&config().1)
}

fn post(alertmanager: &Alertmanager, alerts: &[Labels]) {
    let alerts: Vec<Vec<(&str, &str)>> =
        alerts.iter().map(|labels| labels.iter().map(|(label, value)| (&**label, &**value)).collect()).collect();
    alertmanager.post_alerts(&alerts.iter().map(Vec::as_slice).collect::<Vec<_>>());
}

/// One of each alert of the model, with all of its labels, as they are where there is a cluster with namespaces.
fn all_that_fires() -> Vec<Labels> {
    let suites = alerts::suites();
    rules::alerts(&alerts::groups()).map(|alert| firing(alert, &suites)).collect()
}

/// The labels of an alert, as its cases show them: they name all that a firing alert has, and promtool holds them to it.
fn firing(alert: &Alert, suites: &[Suite]) -> Labels {
    let checks = suites.iter().flat_map(|suite| &suite.cases).filter(|case| case.alert == alert.name);
    let own = alert.labels.iter().map(|(label, value)| (*label, &**value));
    let own: Vec<(&str, &str)> = own.chain([("severity", alert.severity.as_str())]).collect();
    let shown = checks.flat_map(|case| &case.checks).flat_map(|check| &check.firing);
    let mut shown = shown.filter(|firing| own.iter().all(|own| firing.iter().any(|(l, v)| (*l, &**v) == *own)));
    let shown = shown.next().unwrap_or_else(|| panic!("no case shows {} with {own:?}", alert.name));
    let shown = shown.iter().map(|(label, value)| (*label, &**value));
    let place = PLACE.map(|label| (label, "same"));
    let all = place.into_iter().chain(shown).chain([("alertname", alert.name)]);
    all.map(|(label, value)| (label.to_owned(), value.to_owned())).collect()
}

fn matched(side: &Side, firing: &[Labels]) -> Vec<Labels> {
    let value = |labels: &Labels, label: &str| labels.get(label).cloned().unwrap_or_default();
    let fits = |labels: &&Labels| {
        side.alerts.contains(&&*labels["alertname"])
            && side.labels.iter().all(|(label, values)| values.contains(&&*value(labels, label)))
    };
    firing.iter().filter(fits).cloned().collect()
}

fn agree(one: &Labels, other: &Labels, equal: &[&str]) -> bool {
    equal.iter().all(|label| one.get(*label) == other.get(*label))
}

fn with(labels: &Labels, label: &str, value: &str) -> Labels {
    let mut labels = labels.clone();
    labels.insert(label.to_owned(), value.to_owned());
    labels
}

fn without_place(labels: &Labels) -> Labels {
    let mut labels = labels.clone();
    labels.retain(|label, _| !PLACE.contains(&&**label));
    labels
}
