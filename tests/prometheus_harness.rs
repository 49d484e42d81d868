//! The tools that the tests of dashboards and alerts stand on do what they say, in both versions of Prometheus.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use common::prometheus::{
    Alertmanager, Backfill, Histograms, Options, Prometheus, Promtool, Treated, VERSIONS, Version, days, now_seconds,
};
use common::{Backend, PATIENCE, Sidecar, ok, wait_until};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// Errors of 5 % during the last hour of three days, 2 requests a second all the time.
fn three_days(step: Duration) -> Backfill {
    Backfill::until_now(days(3), step)
        .counter("requests_total", &[("job", "shop"), ("code", "200")], |age| if age < 3_600.0 { 1.9 } else { 2.0 })
        .counter("requests_total", &[("job", "shop"), ("code", "500")], |age| if age < 3_600.0 { 0.1 } else { 0.0 })
}

const ERROR_SHARE: &str =
    r#"sum by (job) (rate(requests_total{code="500"}[5m])) / sum by (job) (rate(requests_total[5m]))"#;

#[test]
fn both_versions_scrape_the_sidecar_and_store_the_kind_of_histogram_that_is_asked_for() {
    let backend = Backend::answering(|_| ok("hello\n"));
    let sidecar = Sidecar::start(&backend);
    for _ in 0..20 {
        assert_eq!(sidecar.get("/").status(), 200);
    }
    sidecar.settled(20);
    // A server takes five seconds until it scrapes: all of them take them together.
    let check = &|version: Version, histograms: Histograms, native: bool, classic: bool| {
        let prometheus = Prometheus::start(version, Options { histograms, ..Options::scraping(sidecar.admin) });
        let now = now_seconds();
        assert_eq!(prometheus.number("sum(golden_requests_total)", now), Some(20.0), "{version:?}");
        let stored = prometheus.query("sum(http_server_request_duration_seconds)", now);
        assert_eq!(stored.len(), usize::from(native), "{version:?} {histograms:?}");
        for histogram in stored {
            assert_eq!(histogram.value, 20.0);
            assert_eq!(histogram.buckets.iter().map(|(_, _, count)| count).sum::<f64>(), 20.0, "{histogram:?}");
        }
        let buckets = prometheus.number("sum(http_server_request_duration_seconds_bucket{le='+Inf'})", now);
        assert_eq!(buckets, classic.then_some(20.0), "{version:?} {histograms:?}");
        let targets = prometheus.targets();
        assert_eq!(targets.len(), 1);
        assert_eq!(targets[0].labels["job"], "sidecar");
        assert_eq!(prometheus.kind("golden_inflight_requests").as_deref(), Some("gauge"));
        prometheus.assert_all_was_taken();
    };
    std::thread::scope(|scope| {
        for (version, histograms, native, classic) in [
            (Version::Oldest, Histograms::Classic, false, true),
            (Version::Oldest, Histograms::Native, true, false),
            (Version::Newer, Histograms::Classic, false, true),
            (Version::Newer, Histograms::Native, true, false),
            (Version::Newer, Histograms::Both, true, true),
        ] {
            scope.spawn(move || check(version, histograms, native, classic));
        }
    });
}

#[test]
fn an_expression_that_is_wrong_is_an_error_with_its_reason() {
    for version in VERSIONS {
        let prometheus = Prometheus::start(version, Options::default());
        let error = prometheus.try_query("rate(up)", now_seconds()).unwrap_err();
        assert!(error.contains("expected type range vector"), "{version:?}: {error}");
        assert_eq!(prometheus.number("1 + 1", now_seconds()), Some(2.0), "a scalar");
        assert_eq!(prometheus.number("up", now_seconds()), None, "nothing is scraped");
    }
}

#[test]
fn three_days_that_were_back_filled_are_behind_what_is_scraped_and_rules_are_evaluated_over_them() {
    let backend = Backend::answering(|_| ok("hello\n"));
    let sidecar = Sidecar::start(&backend);
    let rules = format!(
        "groups:\n  - name: shop\n    interval: 30s\n    rules:\n      - record: job:requests:rate3d\n        \
         expr: sum by (job) (rate(requests_total[3d]))\n      - alert: Errors\n        expr: {ERROR_SHARE} > 0.01\n        \
         for: 2s\n        labels: {{severity: critical}}\n        annotations: {{summary: 'Errors in {{{{ $labels.job }}}}'}}\n      \
         - alert: Never\n        expr: {ERROR_SHARE} > 0.5\n"
    );
    let check = &|version: Version| {
        let history = three_days(MINUTE);
        let (start, end) = (history.start(), history.end);
        let options = Options {
            data: Some(history.write(version)),
            rules: vec![rules.clone()],
            ..Options::scraping(sidecar.admin)
        };
        let prometheus = Prometheus::start(version, options);

        // All of it, the first sample and the last: three days of one each minute, and the first.
        let samples = prometheus.number("sum(count_over_time(requests_total[3d1m]))", end);
        assert_eq!(samples, Some(2.0 * (3.0 * 1_440.0 + 1.0)), "{version:?}");
        let rate = prometheus.number("sum(rate(requests_total[3d]))", end).expect("a rate");
        assert!((rate - 2.0).abs() < 0.001, "{version:?}: {rate}");
        let errors = prometheus.number("sum(increase(requests_total{code='500'}[3d]))", end).expect("an increase");
        assert!((errors - 360.0).abs() < 1.0, "{version:?}: {errors}");
        let early = prometheus.number("sum(rate(requests_total[30m]))", start + 3_600.0).expect("a rate");
        assert!((early - 2.0).abs() < 0.001, "{version:?}: {early}");

        // What the same alerts would have done before: one of them fires, from when the share of its window is too high.
        let before = prometheus.all_that_would_fire(start, end, MINUTE);
        assert_eq!(before.len(), 1, "{version:?}: {before:?}");
        let expected = [("alertname", "Errors"), ("job", "shop"), ("severity", "critical")];
        assert_eq!(before[0].labels, expected.map(|(name, value)| (name.into(), value.into())).into());
        let (after, to) = (before[0].from - (end - 3_600.0), before[0].to - end);
        assert!((60.0..=180.0).contains(&after) && to.abs() < 0.001, "{version:?}: after {after} s, to {to} s");

        // The present: what is scraped, what rules record, which alerts fire.
        wait_until("scrapes are stored behind the history", || {
            prometheus.number("count_over_time(up[1m])", now_seconds()).is_some_and(|scrapes| scrapes >= 2.0)
        });
        let evaluated = prometheus.rules_when_evaluated();
        assert_eq!(evaluated.iter().filter(|rule| rule.alerting).count(), 2);
        assert_eq!(evaluated[1].hold, Duration::from_secs(2));
        let recorded = prometheus.number("job:requests:rate3d", now_seconds()).expect("recorded");
        assert!((recorded - 2.0).abs() < 0.001, "{version:?}: {recorded}");
        let alert = prometheus.alert_when("Errors", "firing", PATIENCE * 2);
        assert_eq!(alert.labels["severity"], "critical");
        assert_eq!(alert.annotations["summary"], "Errors in shop");
        assert_eq!(prometheus.firing(), BTreeSet::from(["Errors".to_owned()]));
        prometheus.assert_all_was_taken();
    };
    std::thread::scope(|scope| {
        for version in VERSIONS {
            scope.spawn(move || check(version));
        }
    });
}

#[test]
fn what_an_alert_would_have_done_is_known_without_waiting() {
    for version in VERSIONS {
        // There from 100 to 50 minutes before the end, with a gap of one sample at 80, and again in the last 10 minutes.
        let there = |age: f64| match (age / 60.0).round() as u32 {
            0..=10 | 50..=79 | 81..=100 => 1.0,
            _ => 0.0,
        };
        let history = Backfill::until_now(HOUR * 3, MINUTE).gauge("fault", &[("job", "shop")], there).gauge(
            "fault",
            &[("job", "quiet")],
            |_| 0.0,
        );
        let (start, end) = (history.start(), history.end);
        let prometheus =
            Prometheus::start(version, Options { data: Some(history.write(version)), ..Options::default() });
        let minutes = |hold: Duration| -> Vec<(i64, i64)> {
            let firing = prometheus.would_fire("fault > 0", hold, start, end, MINUTE);
            assert!(firing.iter().all(|firing| firing.labels.len() == 1 && firing.labels["job"] == "shop"));
            let age = |at: f64| ((end - at) / 60.0).round() as i64;
            firing.iter().map(|firing| (age(firing.from), age(firing.to))).collect()
        };
        assert_eq!(minutes(Duration::ZERO), [(100, 81), (79, 50), (10, 0)], "{version:?}");
        assert_eq!(minutes(MINUTE * 10), [(90, 81), (69, 50), (0, 0)], "{version:?}");
        assert_eq!(minutes(MINUTE * 20), [(59, 50)], "{version:?}: 19 minutes are too short");
        assert_eq!(minutes(MINUTE * 30), [], "{version:?}: no two runs are one");
    }
}

#[test]
fn more_steps_than_the_server_allows_are_asked_for_in_parts() {
    let history = Backfill::until_now(days(3), MINUTE).gauge("clock", &[], |age| age);
    let (start, end) = (history.start(), history.end);
    let options = Options { data: Some(history.write(Version::Oldest)), ..Options::default() };
    let prometheus = Prometheus::start(Version::Oldest, options);
    let series = prometheus.query_range("clock", start, end, Duration::from_secs(15));
    assert_eq!(series.len(), 1);
    let points = &series[0].points;
    assert_eq!(points.len(), 3 * 5_760 + 1);
    assert!(points.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!((points[0].1, points[points.len() - 1].1), (3.0 * 86_400.0, 0.0));
}

#[test]
fn recording_rules_get_the_values_that_they_would_have_had() {
    let first = format!(
        "groups:\n  - name: first\n    rules:\n      - record: job:requests_errors:ratio_rate5m\n        expr: {ERROR_SHARE}\n"
    );
    let second = "groups:\n  - name: second\n    rules:\n      - record: job:requests_errors:max1h\n        \
                  expr: max_over_time(job:requests_errors:ratio_rate5m[1h])\n";
    for version in VERSIONS {
        let history = three_days(MINUTE);
        let (start, end) = (history.start(), history.end);
        let options = Options { data: Some(history.write(version)), ..Options::default() };
        let prometheus = Prometheus::start(version, options);
        assert_eq!(prometheus.number("job:requests_errors:ratio_rate5m", end - 60.0), None);
        let prometheus = prometheus.record(&first, start, end, MINUTE).record(second, start, end, MINUTE * 5);
        let at = |expression: &str, age: f64| prometheus.number(expression, end - age);
        let share = at("job:requests_errors:ratio_rate5m", 120.0).expect("recorded");
        assert!((share - 0.05).abs() < 0.0001, "{version:?}: {share}");
        assert_eq!(at("job:requests_errors:ratio_rate5m", 2.0 * 86_400.0), Some(0.0), "{version:?}");
        let long = prometheus.number("count_over_time(job:requests_errors:ratio_rate5m[3d])", end).expect("recorded");
        assert!((4_310.0..=4_321.0).contains(&long), "{version:?}: {long} of one each minute");
        let highest = at("job:requests_errors:max1h", 0.0).expect("recorded in the second round");
        assert!((highest - 0.05).abs() < 0.0001, "{version:?}: {highest}");
        // The history itself is still there, and whole.
        assert_eq!(prometheus.number("sum(count_over_time(requests_total[3d1m]))", end), Some(8_642.0), "{version:?}");
    }
}

#[test]
fn alertmanager_suppresses_what_its_rules_of_inhibition_say_and_nothing_else() {
    let config = "route: {receiver: none, group_wait: 0s}\nreceivers: [{name: none}]\ninhibit_rules:\n  \
                  - source_matchers: ['severity=critical']\n    target_matchers: ['severity=warning']\n    equal: [job]\n";
    let alertmanager = Alertmanager::start(config);
    let critical = [("alertname", "Down"), ("severity", "critical"), ("job", "shop")];
    alertmanager.post_alerts(&[
        &critical,
        &[("alertname", "Slow"), ("severity", "warning"), ("job", "shop")],
        &[("alertname", "Slow"), ("severity", "warning"), ("job", "mail")],
    ]);
    alertmanager.alerts_when(3);
    let suppressed = |alerts: &[Treated]| alerts.iter().any(|alert| alert.state == "suppressed");
    let alerts = alertmanager.alerts_until("one is suppressed", PATIENCE, suppressed);
    let states: BTreeSet<_> = alerts.iter().map(|a| (&*a.labels["alertname"], &*a.labels["job"], &*a.state)).collect();
    let expected = [("Down", "shop", "active"), ("Slow", "shop", "suppressed"), ("Slow", "mail", "active")];
    assert_eq!(states, BTreeSet::from(expected));
    for alert in alerts {
        let by = if alert.state == "suppressed" {
            vec![critical.iter().map(|(name, value)| (String::from(*name), String::from(*value))).collect()]
        } else {
            Vec::new()
        };
        assert_eq!(alert.inhibited_by, by, "{:?}", alert.labels);
    }
}

#[test]
fn a_firing_alert_reaches_the_alertmanager() {
    let alertmanager = Alertmanager::start("route: {receiver: none, group_wait: 0s}\nreceivers: [{name: none}]\n");
    let rules = "groups:\n  - name: all\n    rules:\n      - alert: Watchdog\n        expr: vector(1)\n        \
                 labels: {severity: none}\n";
    let options = Options { rules: vec![rules.into()], alertmanager: Some(alertmanager.address), ..Options::default() };
    let prometheus = Prometheus::start(Version::Oldest, options);
    prometheus.alert_when("Watchdog", "firing", PATIENCE);
    let alerts = alertmanager.alerts_when(1);
    assert_eq!((&*alerts[0].labels["alertname"], &*alerts[0].state), ("Watchdog", "active"));
}

#[test]
fn promtool_passes_what_is_right_and_tells_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let rule = "      - alert: Down\n        expr: up == 0\n        for: 1m\n";
    let rules = write("good.yml", &format!("groups:\n  - name: g\n    rules:\n{rule}"));
    let twice = write("twice.yml", &format!("groups:\n  - name: g\n    rules:\n{rule}{rule}"));
    let broken = write("broken.yml", "groups:\n  - name: g\n    rules:\n      - alert: Down\n        expr: up ==\n");
    let test = |name: &str, alerts: &str| {
        let text = format!(
            "rule_files: [good.yml]\ntests:\n  - interval: 1m\n    input_series: [{{series: 'up{{job=\"a\"}}', values: \
             '1 0 0 0'}}]\n    alert_rule_test: [{{eval_time: 3m, alertname: Down, exp_alerts: [{alerts}]}}]\n"
        );
        write(name, &text)
    };
    let (right, wrong) = (test("right.yml", "{exp_labels: {job: a}}"), test("wrong.yml", ""));
    for version in VERSIONS {
        let promtool = Promtool::new(version);
        promtool.check_rules(&rules).unwrap();
        assert!(promtool.check_rules(&twice).unwrap_err().contains("duplicate"), "{version:?}");
        assert!(promtool.check_rules(&broken).unwrap_err().contains("parse error"), "{version:?}");
        promtool.test_rules(&right).unwrap();
        assert!(promtool.test_rules(&wrong).unwrap_err().contains("FAILED"), "{version:?}");
        promtool.check_metrics("# HELP a_total A.\n# TYPE a_total counter\na_total 1\n").unwrap();
        assert!(promtool.check_metrics("# TYPE a counter\na 1\n").unwrap_err().contains("no help text"), "{version:?}");
    }
}
