//! The alerts of the pack in a real Prometheus: over days of back-filled history, in both versions, and what Alertmanager
//! does with them.
//!
//! Recording rules are back-filled first, as the server would have recorded them; then each alert is evaluated at each step
//! of the history, with its own `for`.

mod common;

use std::time::Duration;

use common::prometheus::{Backfill, Firing, Options, Prometheus, VERSIONS, Version, days};
use golden_sidecar::pack::rules::{Group, Rule, groups_yaml};
use golden_sidecar::pack::{self, Objective, alerts};

const QUARTER_MINUTE: Duration = Duration::from_secs(15);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// The one that always fires.
const WATCHDOG: &str = "GoldenWatchdog";

/// The budget of the objective that the histories state.
const BUDGET: f64 = 0.001;

#[test]
fn a_burn_of_days_is_a_ticket_in_the_window_of_three_days_and_ends_after_it() {
    // Three clean days, so that the longest window is full; then three days at 1.5 times the budget; then half a day well.
    let (burn, well) = (days(3), HOUR * 12);
    let bad = 1.5 * BUDGET;
    let burning = move |age: f64| (well.as_secs_f64()..(burn + well).as_secs_f64()).contains(&age);
    let history = Backfill::until_now(days(3) + burn + well, MINUTE * 2);
    let history = objective(history, "shop", 2.0, move |age| if burning(age) { bad } else { 0.0 }, |_| 0.0);
    let history = objective(history, "mail", 2.0, |_| 0.0, move |age| if burning(age) { bad } else { 0.0 });
    let history = objective(history, "calm", 2.0, |_| 0.5 * BUDGET, |_| 0.5 * BUDGET);
    // The newer version alone: it is half a minute's work, and both evaluate the rules below.
    over_history(&[Version::Newer], history, days(3), MINUTE * 5, |prometheus, start, end| {
        let fired = prometheus.all_that_would_fire(start, end, MINUTE * 5);
        let fired = without_watchdog(fired);
        let names: Vec<_> = fired.iter().map(|firing| (&*firing.labels["alertname"], &*firing.labels["job"])).collect();
        assert_eq!(names, [("GoldenErrorBudgetBurn", "shop"), ("GoldenLatencyBudgetBurn", "mail")], "{fired:?}");
        for firing in &fired {
            assert_eq!((&*firing.labels["long"], &*firing.labels["severity"]), ("3d", "warning"), "{firing:?}");
            // Two thirds of three days at 1.5 times the budget are the whole budget of three days; then `for`.
            let began = end - (burn + well).as_secs_f64();
            let after = (firing.from - began) / 3_600.0;
            assert!((51.0..51.5).contains(&after), "{after} h after it began");
            // The short window, 6 h at 1.5 times the budget, is below it two hours after the end.
            let ended = end - well.as_secs_f64();
            let on = (firing.to - ended) / 3_600.0;
            assert!((1.8..2.1).contains(&on), "{on} h after it ended");
        }
    });
}

#[test]
fn an_outage_pages_within_three_and_a_half_minutes_and_a_stray_error_never() {
    const OUTAGE: f64 = 600.0;
    let history = Backfill::until_now(HOUR * 8, QUARTER_MINUTE);
    let down = |age: f64| if age <= OUTAGE { 1.0 } else { 0.0 };
    let history = objective(history, "shop", 10.0, down, |_| 0.0);
    let history = objective(history, "mail", 10.0, |_| 0.0, down);
    // A request every five minutes, and one of them fails.
    let step = QUARTER_MINUTE.as_secs_f64();
    let every = move |age: f64, period: f64| if age % period < step { 1.0 / step } else { 0.0 };
    let only = move |age: f64| if (age - 7_200.0).abs() < step / 2.0 { 1.0 } else { 0.0 };
    let history =
        counts(history, "cron", move |age| every(age, 300.0) * (1.0 - only(age)), move |age| only(age) / step, |_| 0.0);
    over_history(&VERSIONS, history, Duration::ZERO, QUARTER_MINUTE, |prometheus, start, end| {
        let fired = without_watchdog(prometheus.all_that_would_fire(start, end, QUARTER_MINUTE));
        for (job, alert) in [("shop", "GoldenErrorBudgetBurn"), ("mail", "GoldenLatencyBudgetBurn")] {
            let pages: Vec<_> = fired
                .iter()
                .filter(|firing| firing.labels["job"] == job && firing.labels["severity"] == "critical")
                .filter(|firing| firing.labels["alertname"] == alert)
                .collect();
            let first = pages.iter().map(|firing| firing.from).fold(f64::INFINITY, f64::min);
            let after = first - (end - OUTAGE);
            assert!((120.0..=210.0).contains(&after), "{job}: a page after {after} s: {fired:?}");
        }
        let cron: Vec<_> = fired.iter().filter(|firing| firing.labels["job"] == "cron").collect();
        assert!(cron.is_empty(), "one stray error: {cron:?}");
    });
}

#[test]
fn the_window_of_three_days_is_evaluated_by_the_rules_of_a_running_server() {
    let burning = |age: f64| if age < days(3).as_secs_f64() { 1.5 * BUDGET } else { 0.0 };
    for version in VERSIONS {
        let history = Backfill::until_now(days(3) + HOUR, MINUTE);
        let history = objective(history, "shop", 2.0, burning, |_| 0.0);
        let options = Options { data: Some(history.write(version)), rules: vec![rules()], ..Options::default() };
        let prometheus = Prometheus::start(version, options);
        prometheus.rules_when_evaluated();
        let alert = prometheus.alert_when("GoldenErrorBudgetBurn", "pending", MINUTE);
        assert_eq!((&*alert.labels["long"], &*alert.labels["severity"]), ("3d", "warning"), "{version:?}");
        assert!(alert.annotations["description"].starts_with("0.15% of the requests"), "{alert:?}");
        let pending: Vec<_> = prometheus.alerts().into_iter().filter(|alert| alert.state == "pending").collect();
        assert_eq!(pending.len(), 1, "{version:?}: only the slowest pair: {pending:?}");
    }
}

/// The rule file as users get it.
fn rules() -> String {
    let path = "alerts/golden-sidecar.rules.yml";
    let files = pack::files(&Objective::default());
    files.into_iter().find(|file| file.path == path).expect("the rule file").text
}

/// The rules over this history but for what comes `before`, recorded at each step. Gives the server and both ends of what
/// was recorded.
fn over_history(
    versions: &[Version],
    history: Backfill,
    before: Duration,
    step: Duration,
    check: impl Fn(&Prometheus, f64, f64) + Sync,
) {
    let (start, end) = (history.start() + before.as_secs_f64(), history.end);
    let check = &check;
    let history = &history;
    std::thread::scope(|scope| {
        for &version in versions {
            scope.spawn(move || {
                let options =
                    Options { data: Some(history.write(version)), rules: vec![rules()], ..Options::default() };
                let mut prometheus = Prometheus::start(version, options);
                for wave in recording_in_waves() {
                    prometheus = prometheus.record(&wave, start, end, step);
                }
                check(&prometheus, start, end);
            });
        }
    });
}

/// The recording rules that alerts need as rule files, each with those that need only what an earlier file recorded.
fn recording_in_waves() -> Vec<String> {
    let groups = alerts::groups(&Objective::default());
    let all = || groups.iter().flat_map(|group| &group.rules);
    let mut read: String =
        all().filter_map(|rule| if let Rule::Alert(alert) = rule { Some(&*alert.expr) } else { None }).collect();
    let mut left: Vec<(String, &Rule)> = Vec::new();
    // Backwards: who reads comes after what is read.
    for rule in all().collect::<Vec<_>>().into_iter().rev() {
        if let Rule::Record(record) = rule
            && read.contains(&record.name)
        {
            read.push_str(&record.expr);
            left.push((record.expr.clone(), rule));
        }
    }
    let mut waves = Vec::new();
    while !left.is_empty() {
        let name = |rule: &Rule| match rule {
            Rule::Record(record) => record.name.clone(),
            Rule::Alert(_) => unreachable!("filtered out"),
        };
        let names: Vec<String> = left.iter().map(|(_, rule)| name(rule)).collect();
        let (later, now): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|(expr, _)| names.iter().any(|name| expr.contains(&**name)));
        assert!(!now.is_empty(), "the recording rules need each other: {names:?}");
        let rules = now.into_iter().map(|(_, rule)| rule.clone()).collect();
        waves.push(groups_yaml(&[Group { name: "recorded", interval: "1m", rules }]).document(&[]));
        left = later;
    }
    waves
}

fn without_watchdog(mut fired: Vec<Firing>) -> Vec<Firing> {
    fired.retain(|firing| firing.labels["alertname"] != WATCHDOG);
    fired
}

/// The series of an objective of a job with so many requests a second, of which these shares are errors and slow.
fn objective(
    history: Backfill,
    job: &str,
    rate: f64,
    errors: impl Fn(f64) -> f64 + Clone,
    slow: impl Fn(f64) -> f64 + Clone,
) -> Backfill {
    let (errors_too, slow_too) = (errors.clone(), slow.clone());
    counts(
        history,
        job,
        move |age| rate * (1.0 - errors_too(age) - slow_too(age)),
        move |age| rate * errors(age),
        move |age| rate * slow(age),
    )
}

/// The same with the rates themselves.
fn counts(
    history: Backfill,
    job: &str,
    good: impl Fn(f64) -> f64,
    error: impl Fn(f64) -> f64,
    slow: impl Fn(f64) -> f64,
) -> Backfill {
    let labels = |result| [("job", job), ("instance", "a"), ("slo", "api"), ("result", result)];
    let own = [("job", job), ("instance", "a"), ("slo", "api")];
    history
        .gauge("golden_slo_objective_ratio", &own, |_| 1.0 - BUDGET)
        .counter("golden_slo_requests_total", &labels("good"), good)
        .counter("golden_slo_requests_total", &labels("error"), error)
        .counter("golden_slo_requests_total", &labels("slow"), slow)
        .counter("golden_slo_requests_total", &labels("excluded"), |_| 0.0)
}
