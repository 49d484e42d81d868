//! Error budgets. A request of an objective is good, slow or an error, counted at the source with the exact threshold.
//! All is recorded per service and objective as counts over a window, then as shares; shares are never averaged, which
//! would lose how many requests each stands for. The objective itself is read from the page, so one rule file serves
//! every objective.
//!
//! Errors and slowness burn alike and are told apart by their names: nobody has to guess at night which of the two it
//! is.
//!
//! Two more alerts are for what the burn alerts cannot see: services with few requests or no objective, and objectives
//! so low that the fastest pair would need more bad requests than there are.

use super::traffic;
use crate::pack::cases::{Case, EVERY, Suite, Values};
use crate::pack::objective::{BURN_WINDOWS, BurnWindow, Severity, number};
use crate::pack::rules::{Alert, Group, JOB, Record, Rule, WHERE};
use crate::pack::thresholds::LOW_TRAFFIC_ERRORS;

/// The two ways in which a request can be bad.
struct Bad {
    alert: &'static str,
    /// The label `result`.
    result: &'static str,
    /// The word in names of recorded series.
    word: &'static str,
    /// The line of a page, up to the objective.
    summary: &'static str,
    what: &'static str,
}

const BAD: [Bad; 2] = [
    Bad {
        alert: "GoldenErrorBudgetBurn",
        result: "error",
        word: "errors",
        summary: "Too many requests fail for",
        what: "failed",
    },
    Bad {
        alert: "GoldenLatencyBudgetBurn",
        result: "slow",
        word: "slow",
        summary: "Too many requests are slow for",
        what: "took longer than it allows",
    },
];

/// Windows that are evaluated often: those of pages.
const QUICK: &[&str] = &["5m", "30m", "1h", "6h"];
/// Windows of tickets.
const SLOW: &[&str] = &["2h", "1d", "3d"];

/// A scrape interval is usually no shorter, so more would see nothing new; and an outage is told two intervals earlier
/// than at the usual minute.
const QUICK_INTERVAL: &str = "15s";
/// Long windows move by less than a thousandth in a minute, and panels find a value that is no older than five.
const SLOW_INTERVAL: &str = "1m";
/// As above; what is summed over 30 days reads the most, so half as often.
const MONTH_INTERVAL: &str = "2m";

/// Failures in six hours below which nothing is said: one every 18 minutes.
const FAILED_MIN: f64 = 20.0;
/// Requests in ten minutes, six hours' mean, above which burn alerts see everything: 1 a second. Their ten bad requests
/// are then a quarter of a percent of the shortest long window.
const LOW_TRAFFIC_BELOW: f64 = 600.0;
/// The share of a job's failures that its objectives have to count so that their burn alerts speak for it. The two are
/// not counted in the same way (event streams and tunnels are under no objective, and a cut answer 5xx fails twice), so
/// it is far from all.
const COUNTED_MIN: f64 = 0.5;

pub(super) fn groups() -> Vec<Group> {
    let mut quick: Vec<Rule> =
        vec![record(OBJECTIVE.to_owned(), format!("max by ({JOB}, slo) (golden_slo_objective_ratio)"))];
    quick.extend(QUICK.iter().flat_map(|window| windows(window)));
    let mut slow: Vec<Rule> = SLOW.iter().flat_map(|window| windows(window)).collect();
    for bad in &BAD {
        for window in &BURN_WINDOWS {
            let to = if SLOW.contains(&window.long) { &mut slow } else { &mut quick };
            to.push(Rule::Alert(burn(bad, window)));
        }
    }
    slow.push(Rule::Alert(blind()));
    slow.push(Rule::Alert(low_traffic()));
    // Before the first five minutes are recorded, what the raw counters of three days say.
    let mut month = vec![record(counts("30d"), format!("sum_over_time({}[30d:5m]) or {}", counts("5m"), counts("3d")))];
    month.extend(BAD.iter().map(|bad| ratio(bad, "30d")));
    vec![
        Group { name: "golden-sidecar-budget-quick", interval: QUICK_INTERVAL, rules: quick },
        Group { name: "golden-sidecar-budget-slow", interval: SLOW_INTERVAL, rules: slow },
        Group { name: "golden-sidecar-budget-month", interval: MONTH_INTERVAL, rules: month },
    ]
}

/// The name of the objectives. Where instances differ, while a new one is rolled out, the strictest.
const OBJECTIVE: &str = "job_slo:golden_slo_objective:ratio";

/// The name of the counts over a window, by instance and result: a dashboard may look at one instance, all else sums
/// them.
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

/// Its value is the share of the long window: what a filter keeps is its left side.
fn burn(bad: &Bad, window: &BurnWindow) -> Alert {
    let &BurnWindow { long, short, factor, hold, severity, bad_min } = window;
    let pace = match factor {
        1.0 => "faster than".to_owned(),
        times => format!("more than {} times as fast as", number(times)),
    };
    let factor = number(factor);
    let over = |window: &str| format!("{} > on ({JOB}, slo) {factor} * (1 - {OBJECTIVE})", share(bad.word, window));
    let enough = format!("sum by ({JOB}, slo) ({}{{result=\"{}\"}}) >= {bad_min}", counts(long), bad.result);
    Alert {
        name: bad.alert,
        expr: format!("{}\nand on ({JOB}, slo)\n{}\nand on ({JOB}, slo)\n{enough}", over(long), over(short)),
        hold,
        keep: "",
        severity,
        labels: vec![("long", long.to_owned()), ("short", short.to_owned())],
        summary: format!("{} the objective {{{{ $labels.slo }}}}.", bad.summary),
        description: format!(
            "Of the requests under objective {{{{ $labels.slo }}}} of {WHERE}, {{{{ $value | humanizePercentage }}}} \
             {} in the last {long}, and it goes on in the last {short}. The error budget is being spent {pace} 30 days \
             allow.",
            bad.what
        ),
    }
}

fn blind() -> Alert {
    let fastest = number(BURN_WINDOWS[0].factor);
    Alert {
        name: "GoldenBurnAlertsBlind",
        expr: format!("{OBJECTIVE} <= 1 - 1 / {fastest}"),
        // A reload that is mended at once is nothing to tell.
        hold: "15m",
        keep: "",
        severity: Severity::Info,
        labels: Vec::new(),
        summary: "The objective {{ $labels.slo }} is so low that its fastest burn alerts can never fire.".to_owned(),
        description: format!(
            "Objective {{{{ $labels.slo }}}} of {WHERE} is {{{{ $value | humanizePercentage }}}}: {fastest} times its \
             budget is more than all requests, so its burn alerts cannot page within minutes, whatever happens."
        ),
    }
}

/// Needs no objective and no short window: requests that come in bursts, hours apart, are seen too. An objective
/// excuses a job only as far as it counts what fails: it may be of other routes. Where objectives overlap they count
/// twice, and then it is their burn alerts that tell.
fn low_traffic() -> Alert {
    // The windows of ten minutes end to end.
    let in_6h = |name: &str| format!("sum_over_time({name}[6h:10m])");
    let (all, failed) = (in_6h(traffic::REQUESTS), in_6h(traffic::FAILED));
    let counted = format!("sum by ({JOB}) ({}{{result=\"error\"}})", counts("6h"));
    Alert {
        name: "GoldenLowTrafficErrors",
        expr: format!(
            "{failed} / ({all} > 0) > {}\nand on ({JOB})\n{failed} >= {}\nand on ({JOB})\n{goes_on} > 0\nand on \
             ({JOB})\n\
             (\n  avg_over_time({}[6h]) < {}\n  or on ({JOB})\n  ({failed} unless on ({JOB}) {counted} >= {} * \
             {failed})\n)",
            number(LOW_TRAFFIC_ERRORS),
            number(FAILED_MIN),
            traffic::REQUESTS,
            number(LOW_TRAFFIC_BELOW),
            number(COUNTED_MIN),
            // Six hours remember long what is over.
            goes_on = format_args!("max_over_time({}[1h])", traffic::FAILED),
        ),
        hold: "30m",
        keep: "15m",
        severity: Severity::Warning,
        labels: Vec::new(),
        summary: "Many requests fail where burn alerts see little: there are few, or no objective counts them."
            .to_owned(),
        description: format!(
            "Of the users' requests of {WHERE}, {{{{ $value | humanizePercentage }}}} failed in the last 6h, and some \
             in the last 1h. The job has less than one request a second, or its objectives count less than half of \
             these failures, so burn alerts say little."
        ),
    }
}

// === cases ===

const ERRORS: &str = "GoldenErrorBudgetBurn";

/// The labels of a burn alert.
fn labels<'a>(window: &BurnWindow) -> Vec<(&'static str, &'a str)> {
    let severity = window.severity.as_str();
    vec![("job", "shop"), ("slo", "api"), ("severity", severity), ("long", window.long), ("short", window.short)]
}

/// With the objective of 99.9 % on the page.
fn promised(case: Case, samples: usize) -> Case {
    case.series(r#"golden_slo_objective_ratio{job="shop",slo="api"}"#, Values::from(0.999).stay(samples))
}

/// With these counts of a result.
fn counted(case: Case, result: &str, values: Values) -> Case {
    case.series(format!("golden_slo_requests_total{{job=\"shop\",slo=\"api\",result={result:?}}}"), values)
}

pub(super) fn suites() -> Vec<Suite> {
    let slow = BAD.iter().flat_map(|bad| BURN_WINDOWS[1..].iter().map(|window| slow_pair(bad, window)));
    vec![
        Suite { name: "budget", evaluate: "15s", cases: outages() },
        Suite { name: "budget-hours", evaluate: "1m", cases: [fast_pair(), whatever_else()].concat() },
        Suite { name: "budget-days", evaluate: "10m", cases: slow.collect() },
        Suite { name: "budget-few", evaluate: "10m", cases: few_requests() },
    ]
}

/// The pair that pages within minutes; a sample every 15 s, 10 requests/s.
fn fast_pair() -> Vec<Case> {
    let [hour, quarter, ..] = BURN_WINDOWS;
    let mut cases = Vec::new();
    for bad in &BAD {
        let case = |story, samples| promised(Case::new(bad.alert, story, "15s"), samples);
        // Of 150 requests in 15 s.
        let share = |case, ratio: f64, samples| {
            let case = counted(case, "good", Values::from(0.0).grow(150.0 * (1.0 - ratio), samples));
            counted(case, bad.result, Values::from(0.0).grow(150.0 * ratio, samples))
        };
        let other = if bad.result == "slow" { "error" } else { "slow" };
        cases.extend([
            counted(
                counted(
                    case("five bad minutes after a clean hour page, and the fast pair ends with its short window", 480),
                    "good",
                    Values::from(0.0).grow(150.0, 240).stay(20).grow(150.0, 220),
                ),
                bad.result,
                Values::from(0.0).stay(240).grow(150.0, 20).stay(220),
            )
            .fires_at("64m", &labels(&hour))
            .quiet_at("71m")
            // A fiftieth of the budget of 30 days is gone: the pair of 6 h looks back on it for its 30 minutes.
            .fires_at("80m", &labels(&quarter))
            .quiet_at("100m"),
            share(case("1.3 % bad, below 14.4 times 0.1 %, is for the slower pairs only", 160), 0.013, 160)
                .quiet_at("14m")
                .fires_at("40m", &labels(&quarter)),
            share(case("1.6 % bad, above 14.4 times 0.1 %, pages", 160), 0.016, 160)
                .quiet_at("2m")
                .fires_at("5m", &labels(&hour))
                .all_fire_at("30m", &[&labels(&hour), &labels(&quarter)]),
            counted(
                share(case("what is excluded from the objective does not thin out what is bad", 60), 0.016, 60),
                "excluded",
                Values::from(0.0).grow(15000.0, 60),
            )
            .fires_at("10m", &labels(&hour)),
            counted(
                counted(
                    case("the other way of being bad is none of its business", 400),
                    "good",
                    Values::from(0.0).stay(400),
                ),
                other,
                Values::from(0.0).grow(150.0, 400),
            )
            .series(
                format!("golden_slo_requests_total{{job=\"shop\",slo=\"api\",result={:?}}}", bad.result),
                Values::from(0.0).stay(400),
            )
            .never_until("60m"),
            share(Case::new(bad.alert, "without an objective there is no budget", "15s"), 0.5, 400).never_until("60m"),
            share(case("nine bad of a hundred in an hour do not page", 240), 0.0, 240)
                .series(
                    format!("golden_slo_requests_total{{job=\"shop\",slo=\"small\",result={:?}}}", bad.result),
                    Values::from(0.0).stay(40).grow(1.0, 9).stay(191),
                )
                .series(
                    r#"golden_slo_requests_total{job="shop",slo="small",result="good"}"#,
                    Values::from(0.0).stay(40).grow(0.5, 200),
                )
                .series(r#"golden_slo_objective_ratio{job="shop",slo="small"}"#, Values::from(0.999).stay(240))
                .never_until("60m"),
        ]);
    }
    cases
}

/// Full outages after a clean hour at 10 requests/s. The scrapes come whenever they come, and so does the outage: the
/// later ones are moved in steps of 5 s against the evaluations.
fn outages() -> Vec<Case> {
    let mut cases = vec![
        Case::new(ERRORS, "a full outage at 10 requests/s after a clean hour pages within 3.5 minutes", "15s")
            .series(
                r#"golden_slo_objective_ratio{cluster="eu",namespace="prod",job="shop",slo="api"}"#,
                Values::from(0.999).stay(300),
            )
            .series(
                r#"golden_slo_requests_total{cluster="eu",namespace="prod",job="shop",slo="api",result="good"}"#,
                Values::from(0.0).grow(150.0, 240).stay(60),
            )
            .series(
                r#"golden_slo_requests_total{cluster="eu",namespace="prod",job="shop",slo="api",result="error"}"#,
                Values::from(0.0).stay(240).grow(150.0, 60),
            )
            // Over the threshold since a minute, and it is to last for two.
            .never_until("62m30s")
            .fires_at(
                "63m30s",
                &[[("cluster", "eu"), ("namespace", "prod")].as_slice(), labels(&BURN_WINDOWS[0]).as_slice()].concat(),
            ),
    ];
    for (story, phase, late) in [
        ("scraped 5 s after the evaluation, out at that moment", 1, 1),
        ("scraped 5 s after the evaluation, out 5 s after", 1, 2),
        ("scraped 10 s after the evaluation, out at that moment", 2, 2),
        ("scraped 10 s after the evaluation, out 5 s before", 2, 1),
    ] {
        let out = f64::from(3600 + 5 * late);
        let at = |scrape: usize| (5 * phase + 15 * scrape) as f64;
        let scraped = |value: &dyn Fn(f64) -> f64| {
            (1..256)
                .fold(Values::after(phase, value(at(0))), |values, scrape| values.miss(2).hold(value(at(scrape)), 1))
        };
        let case = promised(Case::new(ERRORS, story, "5s"), 770);
        let case = counted(case, "good", scraped(&|seconds| 10.0 * seconds.min(out)));
        let case = counted(case, "error", scraped(&|seconds| 10.0 * (seconds - out).max(0.0)));
        let page = format!("63m{}s", 30 + 5 * late);
        cases.push(case.quiet_at("60m").fires_at(page, &labels(&BURN_WINDOWS[0])));
    }
    cases
}

/// What has no window of its own.
fn whatever_else() -> Vec<Case> {
    let blind = "GoldenBurnAlertsBlind";
    let objective = r#"golden_slo_objective_ratio{job="shop",slo="api"}"#;
    let told: &[(&str, &str)] = &[("job", "shop"), ("slo", "api"), ("severity", "info")];
    // One request in five minutes, for eight hours; all but one are good.
    let good = (1..97).fold(Values::from(0.0), |v, n| v.stay(4).hold(f64::from(n - i32::from(n > 40)), 1));
    let stray = Values::from(0.0).stay(204).hold(1.0, 280);
    let request = |code: &str, origin: &str| traffic::series_of("job=\"shop\"", "/a", code, origin, "user");
    vec![
        promised(Case::new(EVERY, "one stray error at 12 requests an hour never says anything", "1m"), 480)
            .series(r#"golden_slo_requests_total{job="shop",slo="api",result="good"}"#, good.clone())
            .series(r#"golden_slo_requests_total{job="shop",slo="api",result="slow"}"#, Values::from(0.0).stay(480))
            .series(r#"golden_slo_requests_total{job="shop",slo="api",result="error"}"#, stray.clone())
            .series(request("200", "backend"), good)
            .series(request("502", "proxy"), Values::after(205, 1.0).stay(275))
            .series(
                r#"golden_errors_total{job="shop",error_type="connect_refused",fault="backend"}"#,
                Values::after(205, 1.0).stay(275),
            )
            .series(r#"golden_truncated_responses_total{job="shop",http_route="/a"}"#, Values::from(0.0).stay(480))
            .never_until("8h"),
        Case::new(blind, "an objective of 93 % is told, until it is raised", "1m")
            .series(objective, Values::from(0.93).stay(30).hold(0.95, 30))
            .quiet_at("14m")
            .fires_at("20m", told)
            .quiet_at("35m"),
        Case::new(blind, "an objective of 90 % is told", "1m")
            .series(objective, Values::from(0.9).stay(60))
            .fires_at("30m", told),
        Case::new(blind, "94 % leaves a threshold below 100 %", "1m")
            .series(objective, Values::from(0.94).stay(60))
            .never_until("60m"),
    ]
}

/// A slower pair: clean hours, then 1.8 times its threshold, which is below that of the next faster pair. The long
/// window is over its threshold after 1/1.8 of its length, 5/9. A sample every five minutes: no window is short.
fn slow_pair(bad: &Bad, window: &BurnWindow) -> Case {
    /// Minutes: what the longest window needs to be full when it crosses its threshold, 4/9 of it.
    const CLEAN: usize = 32 * 60;
    let ratio = 1.8 * window.factor * 0.001;
    // Minutes of badness, and how much is looked at afterwards.
    let (story, during, end) = match window.long {
        "6h" => ("1.08 % bad pages once 6 h know it", 4 * 60, 60),
        "1d" => ("0.54 % bad is a ticket once a day knows it", 15 * 60, 8 * 60),
        _ => ("0.18 % bad is a ticket once three days know it", 44 * 60, 7 * 60),
    };
    let case = promised(Case::new(bad.alert, story, "5m"), (CLEAN + during + end) / 5);
    let good = Values::from(0.0).grow(3000.0, CLEAN / 5).grow(3000.0 * (1.0 - ratio), during / 5).grow(3000.0, end / 5);
    let case = counted(case, "good", good);
    let case =
        counted(case, bad.result, Values::from(0.0).stay(CLEAN / 5).grow(3000.0 * ratio, during / 5).stay(end / 5));
    let at = |minutes: usize| format!("{}m", CLEAN + minutes);
    let (this, slowest) = (labels(window), labels(&BURN_WINDOWS[3]));
    match window.long {
        "6h" => case.quiet_at(at(200)).fires_at(at(during), &this).quiet_at(at(during + 40)),
        // What is left of the budget after a day like this concerns the three days too, earlier and longer.
        "1d" => case
            .fires_at(at(14 * 60), &slowest)
            .all_fire_at(at(during - 20), &[&this, &slowest])
            .all_fire_at(at(during), &[&this, &slowest])
            .fires_at(at(during + 130), &slowest)
            .quiet_at(at(during + 370)),
        _ => case
            .quiet_at(at(42 * 60))
            .fires_at(at(during - 30), &this)
            .fires_at(at(during), &this)
            .quiet_at(at(during + 370)),
    }
}

/// [`low_traffic`]; a sample a minute.
fn few_requests() -> Vec<Case> {
    let name = "GoldenLowTrafficErrors";
    let told: &[(&str, &str)] = &[("job", "shop"), ("severity", "warning")];
    let with = |story, good: Values, failed: Values, samples| {
        let series = |code: &str| traffic::series_of("job=\"shop\"", "/a", code, "backend", "user");
        Case::new(name, story, "1m")
            .series(series("200"), good)
            .series(series("500"), failed)
            .series(r#"golden_truncated_responses_total{job="shop",http_route="/a"}"#, Values::from(0.0).stay(samples))
    };
    let even = |per_minute: f64, samples| Values::from(0.0).grow(per_minute, samples);
    vec![
        with("half of 0.5 requests/s fail for hours, then none", even(15.0, 600), even(15.0, 180).stay(420), 600)
            .quiet_at("30m")
            .fires_at("60m", told)
            .fires_at("3h30m", told)
            .quiet_at("5h"),
        with(
            "a burst every three hours of which half fails stays known between two bursts",
            (0..4).fold(Values::from(0.0), |values, _| values.stay(60).grow(6.0, 10).stay(110)),
            (0..4).fold(Values::from(0.0), |values, _| values.stay(60).grow(6.0, 10).stay(110)),
            720,
        )
        .fires_at("110m", told),
        with("5 % is for objectives to judge", even(28.5, 720), even(1.5, 720), 720).never_until("12h"),
        with(
            "nineteen failures in six hours are few",
            even(0.0, 400),
            Values::from(0.0).stay(20).grow(0.19, 100).stay(280),
            400,
        )
        .never_until("6h"),
        promised(
            counted(
                with("much traffic under an objective is for burn alerts", even(60.0, 720), even(60.0, 720), 720),
                "error",
                even(60.0, 720),
            ),
            720,
        )
        .never_until("12h"),
        // /b fails altogether, and the objective is of /a.
        promised(
            counted(
                counted(
                    with("all fails that no objective counts", even(600.0, 720), even(600.0, 720), 720),
                    "good",
                    even(600.0, 720),
                ),
                "error",
                even(0.0, 720),
            ),
            720,
        )
        .fires_at("2h", told)
        .fires_at("12h", told),
        with("much traffic under no objective is not", even(60.0, 720), even(60.0, 720), 720).fires_at("2h", told),
    ]
}
