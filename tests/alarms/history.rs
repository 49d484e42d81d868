//! Days of history that were back-filled: recording rules get the values that the server would have recorded, then each
//! alert is evaluated at each step, with its own `for`.

use std::time::Duration;

use super::common::files::rules_text;
use super::common::prometheus::{Backfill, Options, Prometheus, VERSIONS, Version, days};
use super::{HOUR, MINUTE, over_history, without_watchdog};

const QUARTER_MINUTE: Duration = Duration::from_secs(15);

/// The alerts that these histories are about.
const BURN: [&str; 2] = ["GoldenErrorBudgetBurn", "GoldenLatencyBudgetBurn"];

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
    // The newer version alone: both evaluate the rules below. What is recorded lasts five minutes, the step of the rest.
    let (start, end, step) = (history.start() + days(3).as_secs_f64(), history.end, MINUTE * 5);
    let prometheus = over_history(Version::Newer, &history, (start, step), &BURN);
    let fired = without_watchdog(prometheus.all_that_would_fire(start, end, step));
    let names: Vec<_> = fired.iter().map(|firing| (&*firing.labels["alertname"], &*firing.labels["job"])).collect();
    assert_eq!(names, [(BURN[0], "shop"), (BURN[1], "mail")], "{fired:?}");
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
    let check = &|version: Version| {
        let (start, end) = (history.start(), history.end);
        let prometheus = over_history(version, &history, (start, QUARTER_MINUTE), &[]);
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
    };
    std::thread::scope(|scope| {
        for version in VERSIONS {
            scope.spawn(move || check(version));
        }
    });
}

#[test]
fn the_window_of_three_days_is_evaluated_by_the_rules_of_a_running_server() {
    let burning = |age: f64| if age < days(3).as_secs_f64() { 1.5 * BUDGET } else { 0.0 };
    for version in VERSIONS {
        let history = Backfill::until_now(days(3) + HOUR, MINUTE);
        let history = objective(history, "shop", 2.0, burning, |_| 0.0);
        let options = Options { data: Some(history.write(version)), rules: vec![rules_text()], ..Options::default() };
        let prometheus = Prometheus::start(version, options);
        prometheus.rules_when_evaluated();
        let alert = prometheus.alert_when("GoldenErrorBudgetBurn", "pending", MINUTE);
        assert_eq!((&*alert.labels["long"], &*alert.labels["severity"]), ("3d", "warning"), "{version:?}");
        assert!(alert.annotations["description"].contains("0.15% failed in the last 3d"), "{alert:?}");
        let pending: Vec<_> = prometheus.alerts().into_iter().filter(|alert| alert.state == "pending").collect();
        assert_eq!(pending.len(), 1, "{version:?}: only the slowest pair: {pending:?}");
    }
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
