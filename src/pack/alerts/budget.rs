//! Error budgets. A request of an objective is good, slow or an error, counted at the source with the exact threshold. All
//! is recorded per service and objective as counts over a window, then as shares; shares are never averaged, which would lose
//! how many requests each stands for. The objective itself is read from the page, so one rule file serves every objective.
//!
//! Errors and slowness burn alike and are told apart by their names: nobody has to guess at night which of the two it is.

use crate::pack::cases::{Case, Suite};
use crate::pack::objective::{BURN_WINDOWS, BurnWindow, Objective, Severity, number};
use crate::pack::rules::{Alert, Group, JOB, Record, Rule};

/// The two ways in which a request can be bad.
struct Bad {
    alert: &'static str,
    /// The label `result`.
    result: &'static str,
    /// The word in names of recorded series.
    word: &'static str,
    what: &'static str,
}

const BAD: [Bad; 2] = [
    Bad { alert: "GoldenErrorBudgetBurn", result: "error", word: "errors", what: "fail" },
    Bad {
        alert: "GoldenLatencyBudgetBurn",
        result: "slow",
        word: "slow",
        what: "are slower than the objective's threshold",
    },
];

/// Windows up to this one are evaluated often: what is to page within minutes.
const QUICK: &[&str] = &["5m", "30m", "1h", "6h"];
/// Windows of tickets, and the one of the budget.
const SLOW: &[&str] = &["2h", "1d", "3d"];

/// A scrape interval is usually no shorter, so more would see nothing new; and an outage is told two intervals earlier than
/// at the usual minute.
const QUICK_INTERVAL: &str = "15s";
/// Long windows hardly move in five minutes.
const SLOW_INTERVAL: &str = "1m";

pub(super) fn groups(_objective: &Objective) -> Vec<Group> {
    let mut quick: Vec<Rule> = vec![record(
        "job_slo:golden_slo_objective:ratio".to_owned(),
        format!("max by ({JOB}, slo) (golden_slo_objective_ratio)"),
    )];
    quick.extend(QUICK.iter().flat_map(|window| windows(window)));
    let mut slow: Vec<Rule> = SLOW.iter().flat_map(|window| windows(window)).collect();
    // The steps of a subquery are whole five minutes; until the first of them, what is new counts as it is.
    slow.push(record(counts("30d"), format!("sum_over_time({}[30d:5m]) or {}", counts("5m"), counts("3d"))));
    slow.extend(BAD.iter().map(|bad| ratio(bad, "30d")));
    for bad in &BAD {
        for window in &BURN_WINDOWS {
            let to = if SLOW.contains(&window.long) { &mut slow } else { &mut quick };
            to.push(Rule::Alert(burn(bad, window)));
        }
    }
    vec![
        Group { name: "golden-sidecar-budget-quick", interval: QUICK_INTERVAL, rules: quick },
        Group { name: "golden-sidecar-budget-slow", interval: SLOW_INTERVAL, rules: slow },
    ]
}

/// The name of the counts over a window, by instance and result: a dashboard may look at one instance, all else sums them.
pub(crate) fn counts(window: &str) -> String {
    format!("instance_slo_result:golden_slo_requests:increase{window}")
}

/// The name of a share over a window.
pub(crate) fn share(word: &str, window: &str) -> String {
    format!("job_slo:golden_slo_{word}:ratio_increase{window}")
}

fn windows(window: &str) -> Vec<Rule> {
    let selector = r#"golden_slo_requests_total{result!="excluded"}"#;
    let mut rules =
        vec![record(counts(window), format!("sum by ({JOB}, instance, slo, result) (increase({selector}[{window}]))"))];
    rules.extend(BAD.iter().map(|bad| ratio(bad, window)));
    rules
}

/// Bad of all. Where nothing came there is no share, rather than one of 0/0.
fn ratio(bad: &Bad, window: &str) -> Rule {
    let counts = counts(window);
    record(
        share(bad.word, window),
        format!("sum by ({JOB}, slo) ({counts}{{result=\"{}\"}})\n/\n(sum by ({JOB}, slo) ({counts}) > 0)", bad.result),
    )
}

fn record(name: String, expr: String) -> Rule {
    Rule::Record(Record { name, expr })
}

fn burn(bad: &Bad, window: &BurnWindow) -> Alert {
    let &BurnWindow { long, short, factor, hold, severity, bad_min } = window;
    let factor = number(factor);
    let over = |window: &str| {
        format!("{} > on ({JOB}, slo) {factor} * (1 - job_slo:golden_slo_objective:ratio)", share(bad.word, window))
    };
    let enough = format!("sum by ({JOB}, slo) ({}{{result=\"{}\"}}) >= {bad_min}", counts(long), bad.result);
    Alert {
        name: bad.alert,
        expr: format!("{}\nand on ({JOB}, slo)\n{}\nand on ({JOB}, slo)\n{enough}", over(long), over(short)),
        hold,
        keep: "",
        severity,
        labels: vec![("long", long.to_owned()), ("short", short.to_owned())],
        summary: format!(
            "Requests {} {factor} times faster than the error budget of {{{{ $labels.slo }}}} allows.",
            bad.what
        ),
        description: format!(
            "{{{{ $value | humanizePercentage }}}} of the requests of objective {{{{ $labels.slo }}}} of job \
             {{{{ $labels.job }}}} {} over the last {long}, and it goes on in the last {short}: the budget of 30 days is being \
             spent {factor} times faster than it may be.",
            bad.what
        ),
    }
}

/// The labels of a burn alert.
fn labels<'a>(window: &BurnWindow) -> [(&'static str, &'a str); 5] {
    let severity = match window.severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    [("job", "shop"), ("slo", "api"), ("severity", severity), ("long", window.long), ("short", window.short)]
}

pub(super) fn suite() -> Suite {
    let hour = BURN_WINDOWS[0];
    let objective = (r#"golden_slo_objective_ratio{job="shop",slo="api"}"#, "0.999x400");
    let good = r#"golden_slo_requests_total{job="shop",slo="api",result="good"}"#;
    let error = r#"golden_slo_requests_total{job="shop",slo="api",result="error"}"#;
    let alert = "GoldenErrorBudgetBurn";
    let cases = vec![
        Case::new(alert, "a full outage at 10 requests/s after a clean hour pages within 3.5 minutes", "15s")
            .series(objective.0, objective.1)
            .series(good, "0+150x240 36000x30")
            .series(error, "0x240 150+150x30")
            .quiet_at("60m")
            .fires_at("63m30s", &labels(&hour)),
    ];
    Suite { name: "budget", evaluate: "15s", cases }
}
