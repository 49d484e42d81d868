//! Overview: is it well, and if not, which signal and which route?

use super::{
    OVERVIEW, ROUTE, SATURATION, SIDECAR, SLO, USERS, aggregate, burning, calls, failed, falling, full, latency, max,
    or_zero, percentile, promise, rate, rate_then, requests, select, share, slow, sum,
};
use crate::pack::dashboard::{Colour, Column, Dashboard, Kind, Panel, Quantile, Row, Threshold, Unit};
use crate::pack::objective::{BURN_WINDOWS, Objective, number};
use crate::pack::thresholds::{BUDGET_LOW, FILLING, FULL, MEMORY_CRITICAL};

/// The host's own resources are for all who live there: full, they are no matter of this service until its own are.
pub(super) const NOT_OF_HOST: &str = r#"resource!~"host_.*""#;

pub(super) fn dashboard(objective: &Objective) -> Dashboard {
    Dashboard {
        uid: OVERVIEW,
        title: "Golden Sidecar / Overview",
        description: "Is it well, and if not, which signal and which route?",
        variables: vec![],
        rows: vec![
            Row { title: None, collapsed: false, height: 4, panels: numbers(objective) },
            Row { title: None, collapsed: false, height: 10, panels: signals(objective) },
            // Its only panel has a title. Ten routes are seen without scrolling.
            Row { title: None, collapsed: false, height: 13, panels: vec![routes(objective)] },
            Row { title: Some("Who made the errors"), collapsed: true, height: 9, panels: blame() },
            Row { title: Some("gRPC"), collapsed: true, height: 9, panels: grpc(objective) },
        ],
    }
}

/// 0 wherever a sidecar is scraped: before its first request it has no series of requests.
fn scraped() -> String {
    format!("0 * {}", aggregate("count", "", &select("golden_build_info", "")))
}

fn numbers(objective: &Objective) -> Vec<Panel> {
    let (p99, colours) = promise(objective);
    let now = requests("", "");
    let then = |offset: &str| {
        let then = sum("", &rate_then("golden_requests_total", USERS, offset));
        format!("{now} / ({then} > 0) - 1")
    };
    vec![
        verdict(),
        Panel::new(
            Kind::Stat,
            3,
            "Requests/s",
            "Requests of users per second now. Probes are not counted.",
            "Within a third of the same time yesterday, which is beside this.",
            "None: do clients still reach it (DNS, load balancer)? Very many: see Saturation.",
        )
        .unit(Unit::RequestsPerSecond)
        .ask(format!("{now} or {}", scraped()), "now")
        .nothing("No data"),
        Panel::new(
            Kind::Stat,
            3,
            "Change",
            "By how much more, or less (below 0 %), requests of users come now than one hour and one day ago.",
            "Within a third of the same time yesterday.",
            "Less: see whether clients still reach it (DNS, load balancer, the alert GoldenTrafficDrop). More: see \
             Saturation.",
        )
        .unit(Unit::Ratio)
        .decimals(0)
        .signed()
        .with_names()
        .ask(then(" offset 1h"), "in 1 h")
        .ask(then(" offset 1d"), "in 1 d")
        .nothing("No history"),
        Panel::new(
            Kind::Stat,
            4,
            format!("Failed (budget {} %)", number(100.0 * objective.budget())),
            format!(
                "Share of requests that were answered with 5xx, by the backend or for it, were cut, are gRPC calls that \
                 failed, or errors by a rule (implicit_errors). Amber from {} %, what the objective of this pack allows; red from {} %, where \
                 the fast alert pages.",
                number(100.0 * objective.budget()),
                number(100.0 * objective.bad_ratio(BURN_WINDOWS[0].factor)),
            ),
            "0 %, and below the budget.",
            "Read the worst routes below, then who made the errors.",
        )
        .unit(Unit::Ratio)
        .decimals(2)
        .thresholds(burning(objective))
        .ask(share(&failed("", "", ""), &now), "failed")
        .nothing("No traffic"),
        Panel::new(
            Kind::Stat,
            4,
            p99,
            format!("99 of 100 requests that did not fail took at most this long. {colours}"),
            "Steady, and below what was promised.",
            "Sort the worst routes by p99. If all are slow, see Saturation; then whether the sidecar adds it.",
        )
        .unit(Unit::Seconds)
        .thresholds(slow(objective))
        .ask(latency(0.99, "", ""), "p99")
        .nothing("No traffic"),
        Panel::new(
            Kind::Stat,
            3,
            "Fullest",
            "The resource of the backend or of the sidecar that is nearest to its limit now, in the fullest \
             instance. Amber from 80 %, red from 90 %. Resources without a known limit, and those of the whole \
             host, are not compared.",
            "Below 80 %.",
            "Open Saturation: it says since when, and when it will be full.",
        )
        .unit(Unit::Ratio)
        .decimals(0)
        .with_names()
        .thresholds(full())
        .ask(format!("topk(1, {})", max("resource", &select("golden_saturation_ratio", NOT_OF_HOST))), "{{resource}}")
        .nothing("No limit known")
        .link("Saturation", SATURATION),
        Panel::new(
            Kind::Stat,
            4,
            "Error budget left (30 d)",
            "What is left of the bad requests that an objective allows in 30 days, of the objective that has least; \
             below 0 % the promise is broken. Amber below 25 %, red below 0 %. Needs the recording rules of the pack. \
             Prometheus keeps 15 days unless told otherwise (--storage.tsdb.retention.time): of the days before it \
             nothing is known here.",
            "Above 25 %.",
            "Open SLO: it says how fast it goes and which routes spend it. Below 25 % put risky changes off.",
        )
        .unit(Unit::Ratio)
        .decimals(0)
        .signed()
        .with_names()
        .thresholds(falling(0.0, BUDGET_LOW))
        .ask(format!("bottomk(1, {})", super::slo::left("")), "{{job}}: {{slo}}")
        .nothing("Nothing counted yet")
        .link("SLO", SLO),
    ]
}

/// One word. Causes that hide others come first. Errors and slowness are judged by the objectives that the sidecars state, as
/// the alerts do, and not by that of the pack.
fn verdict() -> Panel {
    let (errors, slow) = (burning_now("error"), burning_now("slow"));
    let pages = BURN_WINDOWS[0].factor;
    let fullest = |more: &str| max("", &select("golden_saturation_ratio", more));
    let backend = |how: &str| aggregate(how, "", &select("golden_backend_up", ""));
    let when = |condition: String, code: u32| format!("({condition}) * 0 + {code}");
    let words = [
        when(format!("{} == 0", backend("max")), 12),
        when(format!("({errors} >= {slow}) > {pages}"), 11),
        when(format!("{slow} > {pages}"), 10),
        when(format!("{} > {MEMORY_CRITICAL}", fullest(r#"resource="memory""#)), 9),
        when(format!("{} == 0", backend("min")), 8),
        when(format!("({errors} >= {slow}) > 1"), 7),
        when(format!("{slow} > 1"), 6),
        when(format!("{} > {FULL}", fullest(NOT_OF_HOST)), 5),
        when(format!("{} > {FILLING}", fullest(NOT_OF_HOST)), 4),
        when(format!("{} == 0", requests("", "")), 2),
        when(requests("", ""), 1),
        format!("{} + 2", scraped()),
    ];
    Panel::new(
        Kind::Stat,
        3,
        "Verdict",
        format!(
            "One word for the chosen jobs and instances now. Red: worth waking up for; amber: worth a look. It is the \
             first of these that holds: no backend is up; errors or slow requests, whichever burns faster, spend an \
             error budget more than {pages} times too fast, as when it pages; memory as good as full; some backend is \
             down; errors or slow requests spend a budget too fast; a resource full, or filling up; no traffic. The \
             objectives are those that the sidecars state.",
        ),
        "OK, or No traffic where nobody calls.",
        "Errors and Slow: the worst routes below. Full, Filling up: Saturation. Backend down, Partly down: its own \
         log. No data: is the sidecar scraped?",
    )
    .ask(words.join("\nor "), "verdict")
    .thresholds(vec![Threshold { from: None, colour: Colour::Fine }])
    .word(1.0, "OK", Colour::Fine)
    .word(2.0, "No traffic", Colour::Grey)
    .word(4.0, "Filling up", Colour::Amber)
    .word(5.0, "Full", Colour::Amber)
    .word(6.0, "Slow", Colour::Amber)
    .word(7.0, "Errors", Colour::Amber)
    .word(8.0, "Partly down", Colour::Amber)
    .word(9.0, "Full", Colour::Red)
    .word(10.0, "Slow", Colour::Red)
    .word(11.0, "Errors", Colour::Red)
    .word(12.0, "Backend down", Colour::Red)
    .nothing("No data")
    .link("Is it the sidecar?", SIDECAR)
}

/// How many times too fast requests with this result spend the budget of the objective that suffers most, now.
fn burning_now(result: &str) -> String {
    let by = super::slo::BY;
    let all = sum(by, &rate("golden_slo_requests_total", r#"result!="excluded""#));
    let bad = sum(by, &rate("golden_slo_requests_total", &format!("result={result:?}")));
    let objective = max(by, &select("golden_slo_objective_ratio", ""));
    max("", &format!("{} / (1 - {objective})", share(&bad, &all)))
}

fn signals(objective: &Objective) -> Vec<Panel> {
    let all = requests("", "");
    let class = |codes: &str| or_zero(&requests("", &format!(r#"http_response_status_code=~"{codes}""#)), &all);
    let of_all = |part: String| share(&part, &all);
    vec![
        Panel::new(
            Kind::Lines,
            6,
            "Latency",
            "How long requests took that did not fail, from the head read to the last byte handed over; clients \
             that left count with the time they had waited. The dashed line is what an objective promises. Dots are \
             single requests with a trace.",
            "p50 steady, p99 below the promise.",
            "p99 alone: one route or a queue; click a dot for its trace. All three: see Saturation.",
        )
        .unit(Unit::Seconds)
        .short_legend()
        .ask(latency(0.5, "", ""), "p50")
        .ask(latency(0.95, "", ""), "p95")
        .ask(latency(0.99, "", ""), "p99")
        .exemplars("p99")
        .ask(max("slo", &select("golden_slo_latency_threshold_seconds", "")), "promised: {{slo}}")
        .quantile("p50", Quantile::Median)
        .quantile("p95", Quantile::P95)
        .quantile("p99", Quantile::P99)
        .dashed("promised")
        .nothing("No traffic")
        .link("SLO", SLO),
        Panel::new(
            Kind::Stacked,
            6,
            "Traffic by status",
            "Requests of users per second that ended, by class of status; client left: gone before there was one.",
            "Follows the day; nearly all 2xx and 3xx.",
            "A sudden step: a deploy, a client in a loop, or a load balancer. 5xx: see Errors beside this.",
        )
        .unit(Unit::RequestsPerSecond)
        .short_legend()
        .ask(class("1..|2.."), "2xx")
        .ask(class("3.."), "3xx")
        .ask(or_zero(&requests("", r#"http_response_status_code="""#), &all), "client left")
        .ask(class("4.."), "4xx")
        .ask(class("5.."), "5xx")
        .paint("2xx", "blue")
        .paint("3xx", "light-blue")
        .paint("4xx", "#c9a227")
        .paint("5xx", "red")
        .paint("client left", "#808080")
        .nothing("No traffic"),
        Panel::new(
            Kind::Lines,
            6,
            "Errors",
            "Shares of the requests of users. Failed: 5xx, whoever made them, cut, gRPC calls that failed, or an error by a rule. Made by the sidecar: those of \
             them that the backend never answered (refused, reset, too late, no room). 4xx: the client's doing, and \
             never part of the budget.",
            "Failed near 0 %; 4xx steady.",
            "Failed: open the row below to see who made them. 4xx that jump: a client's or an interface's change.",
        )
        .unit(Unit::Ratio)
        .reach(objective.budget())
        .short_legend()
        .ask(of_all(failed("", "", "")), "failed")
        .ask(of_all(class("4..")), "4xx")
        .ask(
            of_all(or_zero(&requests("", r#"http_response_status_code=~"5..",origin="proxy""#), &all)),
            "made by the sidecar",
        )
        .paint("failed", "red")
        .paint("4xx", "#c9a227")
        .paint("made by the sidecar", "purple")
        .nothing("No traffic"),
        Panel::new(
            Kind::Lines,
            6,
            "Saturation",
            "How full each resource of the backend and of the sidecar is that has a limit, in the fullest instance. \
             Lines at 80, 90 and 100 %. The whole host's are on Saturation.",
            "Below 80 %, with short tops above.",
            "Open Saturation for the one that is high: since when, what waits for it, and when it will be full.",
        )
        .unit(Unit::Ratio)
        .reach(1.0)
        .short_legend()
        .thresholds(lines())
        .ask(max("resource", &select("golden_saturation_ratio", NOT_OF_HOST)), "{{resource}}")
        .nothing("No limit known")
        .link("Saturation", SATURATION),
    ]
}

/// At 80, 90 and 100 %.
pub(super) fn lines() -> Vec<Threshold> {
    let mut thresholds = full();
    thresholds.push(Threshold { from: Some(1.0), colour: Colour::Red });
    thresholds
}

fn routes(objective: &Objective) -> Panel {
    let route = "http_route";
    // Routes that nobody calls now are not among the worst.
    let called = format!("{} > 0", requests(route, ""));
    // Latencies are of probes too, and a route that only they call is nobody's worst.
    let of_called = |latency: String| format!("({latency}) and ({called})");
    let column = |heading, unit, thresholds, expr| Column { heading, unit, thresholds, expr };
    Panel::new(
        Kind::Table,
        24,
        "Worst routes now",
        "Every route that was called just now, most failed requests first, and where as many fail the slowest. Colours \
         as above: what the objective allows, and what pages.",
        "No failed requests; p99 below the promise.",
        "Click the route: Route detail shows what it was like yesterday, its codes, and where its time goes.",
    )
    .table(
        route,
        "Route",
        vec![
            column("Failed/s", Unit::RequestsPerSecond, vec![], format!("{} and ({called})", failed(route, "", ""))),
            column(
                "Failed share",
                Unit::Ratio,
                burning(objective),
                share(&failed(route, "", ""), &requests(route, "")),
            ),
            column("4xx share", Unit::Ratio, vec![], {
                let clients = requests(route, r#"http_response_status_code=~"4..""#);
                share(&or_zero(&clients, &requests(route, "")), &requests(route, ""))
            }),
            column("p50", Unit::Seconds, vec![], of_called(latency(0.5, route, ""))),
            column("p99", Unit::Seconds, slow(objective), of_called(latency(0.99, route, ""))),
            column("Requests/s", Unit::RequestsPerSecond, vec![], called.clone()),
        ],
    )
    .then_by("p99")
    .link_of(route, "Route detail", ROUTE, "&var-route=${__data.fields.http_route}")
    .nothing("No traffic")
}

fn blame() -> Vec<Panel> {
    let all = sum("", &rate("golden_requests_total", ""));
    let fault = |name: &str| or_zero(&sum("", &rate("golden_errors_total", &format!("fault={name:?}"))), &all);
    vec![
        Panel::new(
            Kind::Stacked,
            8,
            "Errors by whose fault",
            "Failed requests per second by who made them: the backend (its 5xx, or no answer), the network, the sidecar \
             (no room), policy (shed at a limit, drain, an error by a rule of implicit_errors, or slower than an \
             objective that calls that an error), the client (malformed, too large). Probes included.",
            "None, or the client's.",
            "backend: its own log. sidecar, and policy with shed beside this: Saturation, limits.* in the configuration. \
             policy with implicit: what the backend answers; too_slow: Latency. network: DNS and routes.",
        )
        .unit(Unit::RequestsPerSecond)
        .ask(fault("backend"), "backend")
        .ask(fault("network"), "network")
        .ask(fault("proxy"), "sidecar")
        .ask(fault("policy"), "policy")
        .ask(fault("client"), "client")
        .paint("backend", "red")
        .paint("network", "orange")
        .paint("sidecar", "purple")
        .paint("policy", "blue")
        .paint("client", "#c9a227")
        .nothing("No traffic"),
        Panel::new(
            Kind::Lines,
            8,
            "Errors by type",
            "Failed requests per second by what happened: a number, or a word in capitals (gRPC), is the backend's own \
             answer, another word is what the sidecar saw. The table of errors in the README says when each happens.",
            "No lines.",
            "connect_*: the backend does not listen. head_timeout, queue_timeout, no_capacity, shed: it is too slow \
             or too full.",
        )
        .unit(Unit::RequestsPerSecond)
        .ask(sum("error_type, fault", &rate("golden_errors_total", "")), "{{error_type}} ({{fault}})")
        .nothing("No errors"),
        Panel::new(
            Kind::Stacked,
            8,
            "Clients that left",
            "Requests per second whose client went away before the response was complete, by when. They are not \
             errors, but people who waited in vain.",
            "A few.",
            "before_head that grows: the backend is slower than its clients' patience. Route detail shows how long \
             they waited.",
        )
        .unit(Unit::RequestsPerSecond)
        .reach(1.0)
        .ask(sum("phase", &rate("golden_client_aborts_total", "")), "{{phase}}")
        .nothing("No traffic"),
    ]
}

/// Calls have a status of their own, which that of the request hides.
fn grpc(objective: &Objective) -> Vec<Panel> {
    let method = "rpc_method";
    let called = format!("{} > 0", calls(method, ""));
    let of_called = |latency: String| format!("({latency}) and ({called})");
    let column = |heading, unit, thresholds, expr| Column { heading, unit, thresholds, expr };
    let broken = or_zero(&calls(method, r#"error_type!="""#), &calls(method, ""));
    let time = |quantile: f64| percentile(quantile, method, "rpc_server_call_duration_seconds", r#"error_type="""#);
    vec![
        Panel::new(
            Kind::Stacked,
            10,
            "gRPC calls by status",
            "gRPC calls per second by the status that their trailers told, whatever their HTTP status; CANCELLED: the \
             client left. Probes included.",
            "Nearly all OK.",
            "UNAVAILABLE, INTERNAL, UNKNOWN: the backend's log. DEADLINE_EXCEEDED: it is slower than its clients wait. \
             UNIMPLEMENTED: a client of another version.",
        )
        .unit(Unit::RequestsPerSecond)
        .ask(format!("{} > 0", calls("rpc_response_status_code", "")), "{{rpc_response_status_code}}")
        .paint("OK", "blue")
        .paint("CANCELLED", "#808080")
        .nothing("No gRPC calls"),
        Panel::new(
            Kind::Table,
            14,
            "Worst gRPC methods now",
            "Every method that was called just now, most failed calls first. Failed: by the server's fault, or never \
             there. Times are of calls that did not fail, streams included. Colours as above.",
            "No failed calls; p99 below the promise.",
            "Click the method: Route detail shows what it was like yesterday, and where its time goes.",
        )
        .table(
            method,
            "Method",
            vec![
                column("Failed share", Unit::Ratio, burning(objective), share(&broken, &calls(method, ""))),
                column("p50", Unit::Seconds, vec![], of_called(time(0.5))),
                column("p99", Unit::Seconds, slow(objective), of_called(time(0.99))),
                column("Calls/s", Unit::RequestsPerSecond, vec![], called.clone()),
            ],
        )
        .then_by("p99")
        .link_of(method, "Route detail", ROUTE, "&var-route=/${__data.fields.rpc_method}")
        .nothing("No gRPC calls"),
    ]
}
