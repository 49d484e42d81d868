//! SLO and error budget: is the promise kept, and how long will the budget last?
//!
//! What is over more than an hour comes from recorded series (`src/pack/alerts/budget.rs`), which keep the instance, so that
//! the choices above hold for them too.

use super::{
    OVERVIEW, ROUTE, SLO, above, burning, falling, max, or_zero, percentile, rate, rising, select, share, sum,
};
use crate::pack::alerts::budget;
use crate::pack::dashboard::{Colour, Column, Dashboard, Kind, Match, Panel, Row, Threshold, Unit, Variable};
use crate::pack::objective::{BURN_WINDOWS, BurnWindow, Objective, Severity, number};
use crate::pack::thresholds::BUDGET_LOW;

/// What an objective's series have in common.
pub(super) const BY: &str = "namespace, job, slo";

/// And its name.
const NAME: &str = "{{namespace}} {{job}}: {{slo}}";

/// The chosen objectives.
const CHOSEN: &str = r#"slo=~"$slo""#;

/// The period of all budgets, seconds.
const PERIOD_SECONDS: u32 = 30 * 24 * 3600;

/// A budget that lasts a period burns as fast as it may. How long it lasts depends on what is left too, which no alert asks
/// for: nothing here is red.
fn exhausted() -> Vec<Threshold> {
    vec![
        Threshold { from: None, colour: Colour::Amber },
        Threshold { from: Some(f64::from(PERIOD_SECONDS)), colour: Colour::Neutral },
    ]
}

/// What is said of all budgets.
const KEPT: &str = "Prometheus keeps 15 days unless told otherwise (--storage.tsdb.retention.time): of the days before it \
                    nothing is known here.";

/// Three objectives have twelve lines in a panel of burn rates, and the legend has a line for each.
const BURN_HEIGHT: u32 = 10;

pub(super) fn dashboard(objective: &Objective) -> Dashboard {
    Dashboard {
        uid: SLO,
        title: "Golden Sidecar / SLO and error budget",
        description: "Is the promise kept, and how long will the error budget last?",
        variables: vec![Variable {
            name: "slo",
            label: "Objective",
            query: "label_values(golden_slo_objective_ratio{@}, slo)",
            multi: true,
        }],
        rows: vec![
            Row { title: None, collapsed: false, height: 4, panels: numbers() },
            // Its only panel has a title.
            Row { title: None, collapsed: false, height: 7, panels: vec![table()] },
            Row { title: Some("Budget"), collapsed: false, height: 9, panels: budgets() },
            Row {
                title: Some("Burn rate, in the windows of the alerts"),
                collapsed: false,
                height: BURN_HEIGHT,
                panels: BURN_WINDOWS.iter().map(burn_panel).collect(),
            },
            Row { title: Some("What spends it"), collapsed: false, height: 9, panels: spenders(objective) },
        ],
    }
}

/// Share of the budget of 30 days that is left.
pub(super) fn left(more: &str) -> String {
    format!("(1 - {})", burn(Bad::Any, "30d", more))
}

/// What made a request bad.
#[derive(Clone, Copy)]
enum Bad {
    Failed,
    Slow,
    Any,
}

/// How many times faster than allowed the budget was spent in the window.
fn burn(bad: Bad, window: &str, more: &str) -> String {
    format!("{} / (1 - {})", bad_share(bad, window, more), max(BY, &select("golden_slo_objective_ratio", more)))
}

/// That of failed requests or that of slow ones, whichever is higher: each alert looks at one of them.
fn higher(window: &str, more: &str) -> String {
    let (failed, slow) = (burn(Bad::Failed, window, more), burn(Bad::Slow, window, more));
    format!("({failed} >= {slow}) or {slow}")
}

fn bad_share(bad: Bad, window: &str, more: &str) -> String {
    let all = sum(BY, &select(&budget::counts(window), more));
    let result = match bad {
        Bad::Failed => r#"result="error""#,
        Bad::Slow => r#"result="slow""#,
        Bad::Any => r#"result!="good""#,
    };
    share(&or_zero(&sum(BY, &select(&budget::counts(window), &super::and(result, more))), &all), &all)
}

/// Seconds until the budget is spent if it goes on as in the last hour, 0 when it is; nothing when it is not being spent.
fn exhaustion() -> String {
    let (left, burn) = (left(CHOSEN), burn(Bad::Any, "1h", CHOSEN));
    format!("({left} > 0) * {PERIOD_SECONDS} / ({burn} > 0)\nor ({left} <= 0) * 0 + 0")
}

fn numbers() -> Vec<Panel> {
    let fast = BURN_WINDOWS[0];
    vec![
        Panel::new(
            Kind::Stat,
            6,
            "Budget left (30 d)",
            format!(
                "Of the bad requests that the objective allows in 30 days, the share that is left. Below 0 % the \
                 promise is broken. Amber below 25 %, red below 0 %. {KEPT}",
            ),
            "Above 25 %, and falling no faster than the days pass.",
            "Below 25 %: put risky changes off. Below 0 %: repair before anything new; the routes below say what.",
        )
        .unit(Unit::Ratio)
        .decimals(0)
        .signed()
        .with_names()
        .thresholds(falling(0.0, BUDGET_LOW))
        .ask(left(CHOSEN), NAME)
        .nothing("Nothing counted yet"),
        Panel::new(
            Kind::Stat,
            6,
            "Burn rate, last hour",
            format!(
                "How many times faster than allowed the budget was spent in the last hour, by failed requests or by slow \
                 ones, whichever is more: each alert looks at one of them, and at 1 the budget lasts exactly 30 days. \
                 Amber above 1, red above {}, where the fast alert pages.",
                fast.factor
            ),
            "Below 1.",
            "Above 1: see below whether requests fail or are slow, and which routes it is.",
        )
        .decimals(1)
        .with_names()
        .thresholds(rising(1.0, fast.factor))
        .ask(higher("1h", CHOSEN), NAME)
        .nothing("No traffic"),
        Panel::new(
            Kind::Stat,
            6,
            "Budget lasts, at this rate",
            "Time until the budget is spent if the last hour goes on, failed and slow requests together, from what is \
             left now. Amber below 30 days.",
            "Not being spent, or more than 30 days.",
            "Hours: act now. Days: plan the repair before then.",
        )
        .unit(Unit::Seconds)
        .decimals(1)
        .with_names()
        .thresholds(exhausted())
        .word(0.0, "Spent", Colour::Amber)
        .ask(exhaustion(), NAME)
        .nothing("Not being spent"),
        Panel::new(
            Kind::Stat,
            6,
            "Good requests, last hour",
            "Share of the requests of the objective in the last hour that did not fail and were fast enough.",
            "At or above the objective (in the table below).",
            "Below it: the burn rates below say since when.",
        )
        .unit(Unit::Ratio)
        .decimals(2)
        .with_names()
        .ask(format!("1 - {}", bad_share(Bad::Any, "1h", CHOSEN)), NAME)
        .nothing("No traffic"),
    ]
}

fn table() -> Panel {
    let column = |heading, unit, thresholds, expr| Column { heading, unit, thresholds, expr };
    let all = |window: &str| sum(BY, &select(&budget::counts(window), CHOSEN));
    Panel::new(
        Kind::Table,
        24,
        "Objectives",
        format!(
            "Each objective of the configuration, what it promises, and how it was kept in 30 days. No threshold: slow \
             requests are good. {KEPT}",
        ),
        "Good at or above promised.",
        "Sort by budget left; choose one above to see its lines alone.",
    )
    .table(
        "slo",
        "Objective",
        vec![
            column("Budget left", Unit::Ratio, falling(0.0, BUDGET_LOW), left(CHOSEN)),
            column("Promised", Unit::Ratio, vec![], max(BY, &select("golden_slo_objective_ratio", CHOSEN))),
            column("Good, 30 d", Unit::Ratio, vec![], format!("1 - {}", bad_share(Bad::Any, "30d", CHOSEN))),
            column("Failed, 30 d", Unit::Ratio, vec![], bad_share(Bad::Failed, "30d", CHOSEN)),
            column("Slow, 30 d", Unit::Ratio, vec![], bad_share(Bad::Slow, "30d", CHOSEN)),
            column("Requests, 30 d", Unit::Count, vec![], all("30d")),
            column("Burn, 1 h", Unit::Count, rising(1.0, BURN_WINDOWS[0].factor), higher("1h", CHOSEN)),
            column(
                "Threshold",
                Unit::Seconds,
                vec![],
                max(BY, &select("golden_slo_latency_threshold_seconds", CHOSEN)),
            ),
        ],
    )
    .heading("job", "Job")
    .heading("namespace", "Namespace")
    // Outside of a cluster.
    .differ(Match::Name("namespace".to_owned()), vec![("noValue", "none".into())])
    // The threshold, the last column: there need not be one.
    .differ(Match::Name("Value #H".to_owned()), vec![("noValue", "none".into())])
    .ascending()
    // It stands in each cell.
    .nothing("None yet")
}

fn budgets() -> Vec<Panel> {
    let rates = sum("result", &rate("golden_slo_requests_total", CHOSEN));
    vec![
        Panel::new(
            Kind::Lines,
            8,
            "Budget left over time",
            format!(
                "The share of the budget of the 30 days before each moment that was left then. It rises when bad days \
                 grow older than 30 days. {KEPT}",
            ),
            "Flat or slowly falling.",
            "A step down is an incident: look at that hour on the Overview. A slope is a steady fault: see which \
             routes.",
        )
        .unit(Unit::Ratio)
        .decimals(0)
        .signed()
        .thresholds(vec![
            Threshold { from: None, colour: Colour::Red },
            Threshold { from: Some(0.0), colour: Colour::Neutral },
        ])
        .reach(1.0)
        .ask(left(CHOSEN), NAME)
        .nothing("Nothing counted yet"),
        Panel::new(
            Kind::Stacked,
            8,
            "Requests by result",
            "Requests per second of the objectives: good, slow (above the threshold), error (not by the client's \
             fault), excluded (clients that left, streams, tunnels, probes), which are in no share.",
            "Good, nearly all.",
            "error: Overview, who made the errors. slow: Saturation, then the phases in Route detail.",
        )
        .unit(Unit::RequestsPerSecond)
        .short_legend()
        .ask(rates, "{{result}}")
        .paint("good", "blue")
        .paint("slow", "orange")
        .paint("error", "red")
        .paint("excluded", "#808080")
        .nothing("No traffic"),
        Panel::new(
            Kind::Lines,
            8,
            "Latency against the threshold",
            "p99 of all requests that did not fail, and the dashed thresholds of the objectives. How many were \
             slower is counted exactly, by request, and shown beside this.",
            "p99 below the line.",
            "Above it: the budget for slow requests is spent; Overview says which routes are slow.",
        )
        .unit(Unit::Seconds)
        .short_legend()
        .ask(super::latency(0.99, "", ""), "p99")
        .ask(max(BY, &select("golden_slo_latency_threshold_seconds", CHOSEN)), format!("promised: {NAME}"))
        .dashed("promised")
        .nothing("No traffic"),
    ]
}

/// One pair of windows. Both must be above the line.
fn burn_panel(window: &BurnWindow) -> Panel {
    let &BurnWindow { long, short, factor, severity, .. } = window;
    let what = match severity {
        Severity::Critical => "pages",
        Severity::Warning | Severity::Info => "writes a ticket",
    };
    Panel::new(
        Kind::Lines,
        12,
        format!("{long} and {short}: {what} above {}", number(factor)),
        format!(
            "How many times faster than allowed failed and slow requests spent the budget, over {long} and over \
             {short} (thin). The alert {what} when both lines of one kind are above {}.",
            number(factor)
        ),
        "Below 1.",
        "Above the line: the alert's runbook. Only the short line: it has just begun, or is a burst. Only the long \
         one: it is over.",
    )
    .decimals(1)
    .reach(factor * 1.1)
    .legend_beside()
    .thresholds(above(factor))
    .ask(burn(Bad::Failed, long, CHOSEN), format!("failed {long} {NAME}"))
    .ask(burn(Bad::Failed, short, CHOSEN), format!("failed {short} {NAME}"))
    .ask(burn(Bad::Slow, long, CHOSEN), format!("slow {long} {NAME}"))
    .ask(burn(Bad::Slow, short, CHOSEN), format!("slow {short} {NAME}"))
    // The short windows, which jump.
    .wide(Match::Query('B'), 1)
    .wide(Match::Query('D'), 1)
    .nothing("No traffic")
}

fn spenders(objective: &Objective) -> Vec<Panel> {
    let route = "http_route";
    let errors = r#"fault!="client""#;
    let column = |heading, unit, thresholds, expr| Column { heading, unit, thresholds, expr };
    let all = sum(route, &rate("golden_requests_total", ""));
    vec![
        Panel::new(
            Kind::Lines,
            12,
            "Errors by route",
            "Failed requests per second by route, those of the client's fault not. Every objective that covers the \
             route pays for them.",
            "No lines.",
            "The highest line is where a repair gains most; click its route in the table.",
        )
        .unit(Unit::RequestsPerSecond)
        .ask(sum(route, &rate("golden_errors_total", errors)), "{{http_route}}")
        .nothing("No errors"),
        Panel::new(
            Kind::Table,
            12,
            "Routes that spend the budget now",
            "Failed requests per second of each route, what share of all failures they are, and of the route's own \
             requests.",
            "Empty.",
            "Click the route; its codes and phases say what fails.",
        )
        .table(
            route,
            "Route",
            vec![
                column("Errors/s", Unit::RequestsPerSecond, vec![], {
                    format!("{} > 0", sum(route, &rate("golden_errors_total", errors)))
                }),
                column("Of all errors", Unit::Ratio, vec![], {
                    let of_all = sum("", &rate("golden_errors_total", errors));
                    format!("({} > 0) / on () group_left () {of_all}", sum(route, &rate("golden_errors_total", errors)))
                }),
                column("Of its requests", Unit::Ratio, burning(objective), {
                    share(&format!("({} > 0)", sum(route, &rate("golden_errors_total", errors))), &all)
                }),
                column("p99", Unit::Seconds, vec![], {
                    let failing = sum(route, &rate("golden_errors_total", errors));
                    let took = percentile(0.99, route, "http_server_request_duration_seconds", "");
                    format!("({took}) and ({failing} > 0)")
                }),
            ],
        )
        .link_of(route, "Route detail", ROUTE, "&var-route=${__data.fields.http_route}")
        .nothing("No errors")
        .link("Overview", OVERVIEW),
    ]
}
