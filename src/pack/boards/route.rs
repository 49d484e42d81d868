//! Route detail: what is it with this one route?

use super::{OVERVIEW, ROUTE, SLO, USERS, and, burning, failed, latency, latency_then, max, percentile, promise};
use super::{rate, rate_then, requests, select, share, slow, sum};
use crate::pack::dashboard::{Dashboard, Kind, Match, Panel, Quantile, Row, Unit, Variable};
use crate::pack::objective::{Objective, number};

/// The chosen route, of families without a method.
const THIS: &str = r#"http_route="$route""#;
/// As above, with the chosen methods.
const THIS_METHOD: &str = r#"http_route="$route",http_request_method=~"$method""#;

/// The same colours wherever the two are beside each other: told apart by every eye.
const FIRST_BYTE: &str = "#E69F00";
const WHOLE: &str = "#0072B2";

pub(super) fn dashboard(objective: &Objective) -> Dashboard {
    Dashboard {
        uid: ROUTE,
        title: "Golden Sidecar / Route detail",
        description: "What is it with this one route?",
        variables: vec![
            Variable {
                name: "route",
                label: "Route",
                query: "label_values(golden_requests_total{@}, http_route)",
                multi: false,
            },
            Variable {
                name: "method",
                label: "Method",
                query: r#"label_values(golden_requests_total{@,http_route="$route"}, http_request_method)"#,
                multi: true,
            },
        ],
        rows: vec![
            Row { title: None, collapsed: false, height: 4, panels: numbers(objective) },
            Row {
                title: Some("Against itself, 1 and 7 days ago"),
                collapsed: false,
                height: 9,
                panels: against(objective),
            },
            Row { title: Some("What it answers"), collapsed: false, height: 9, panels: answers() },
            Row { title: Some("Where its time goes"), collapsed: false, height: 9, panels: time() },
            Row { title: Some("Instances side by side"), collapsed: false, height: 9, panels: instances() },
        ],
    }
}

fn numbers(objective: &Objective) -> Vec<Panel> {
    let (p99, colours) = promise(objective);
    vec![
        Panel::new(
            Kind::Stat,
            5,
            "Requests/s",
            "Requests of users per second on this route, of the chosen methods.",
            "As at this time of other days (below).",
            "None: did a client change, or a deploy rename the route?",
        )
        .unit(Unit::RequestsPerSecond)
        .ask(requests("", THIS_METHOD), "now")
        .nothing("No traffic"),
        Panel::new(
            Kind::Stat,
            5,
            format!("Failed (budget {} %)", number(100.0 * objective.budget())),
            "Share of them that were answered with 5xx, cut, failed gRPC calls, or errors by a rule (implicit_errors). All \
             but the first are of all methods. Amber above the budget, red where the fast alert pages.",
            "0 %.",
            "See its codes below, then the backend's log of this route.",
        )
        .unit(Unit::Ratio)
        .decimals(2)
        .thresholds(burning(objective))
        .ask(share(&failed("", THIS_METHOD, ""), &requests("", THIS_METHOD)), "failed")
        .nothing("No traffic"),
        Panel::new(
            Kind::Stat,
            5,
            p99,
            format!("99 of 100 requests of this route that did not fail took at most this long. {colours}"),
            "Steady, and below what was promised.",
            "See below where the time goes.",
        )
        .unit(Unit::Seconds)
        .thresholds(slow(objective))
        .ask(latency(0.99, "", THIS_METHOD), "p99")
        .nothing("No traffic"),
        Panel::new(
            Kind::Stat,
            4,
            "In flight",
            "Requests on this route that are being answered now, bodies and event streams included.",
            "About requests/s times their time.",
            "Growing with steady traffic: it hangs. See the oldest.",
        )
        .ask(sum("", &select("golden_inflight_requests", THIS)), "in flight")
        .nothing("No such route"),
        Panel::new(
            Kind::Stat,
            5,
            "Oldest in flight",
            "Age of the oldest unfinished request on this route, event streams and tunnels not.",
            "Below the p99, now and then above.",
            "Growing second by second: something waits for ever; look for a lock or a call without a deadline.",
        )
        .unit(Unit::Seconds)
        .ask(max("", &select("golden_inflight_oldest_age_seconds", THIS)), "oldest")
        .nothing("No such route"),
    ]
}

/// Now, and the same time of other days.
const DAYS: [(&str, &str); 3] = [("", "now"), (" offset 1d", "1 d ago"), (" offset 7d", "7 d ago")];

fn against(objective: &Objective) -> Vec<Panel> {
    let then = |mut panel: Panel, expr: &dyn Fn(&str) -> String| {
        for (offset, legend) in DAYS {
            panel = panel.ask(expr(offset), legend);
        }
        panel.paint("now", "blue").paint("1 d ago", "#a0a0a0").paint("7 d ago", "#707070").nothing("No traffic")
    };
    let traffic = |offset: &str| sum("", &rate_then("golden_requests_total", &and(USERS, THIS_METHOD), offset));
    vec![
        then(
            Panel::new(
                Kind::Lines,
                8,
                "p99",
                "99 of 100 requests that did not fail took at most this long; now, and at the same time of other \
                 days.",
                "Near the grey lines.",
                "Above them: what changed between? Marks on the time axis show starts and new versions. Dots are \
                 traces.",
            )
            .unit(Unit::Seconds),
            &|offset| latency_then(0.99, "", THIS_METHOD, offset),
        )
        .exemplars("now"),
        then(
            Panel::new(
                Kind::Lines,
                8,
                "Requests/s",
                "Requests of users per second; now, and at the same time of other days.",
                "Near the grey lines.",
                "Below: clients do not reach it, or call something else. Above: retries, a loop, a launch.",
            )
            .unit(Unit::RequestsPerSecond),
            &traffic,
        ),
        then(
            Panel::new(
                Kind::Lines,
                8,
                "Failed",
                "Share of requests that failed (as above); now, and at the same time of other days.",
                "0 %.",
                "Higher than on other days: it is new; see the codes. As on other days: an old fault that nobody \
                 repaired.",
            )
            .unit(Unit::Ratio)
            .reach(objective.budget()),
            &|offset| share(&failed("", THIS_METHOD, offset), &traffic(offset)),
        ),
    ]
}

fn answers() -> Vec<Panel> {
    let all = sum("", &rate("golden_requests_total", THIS));
    vec![
        Panel::new(
            Kind::Stacked,
            8,
            "Status codes",
            "Requests per second by exact status and who made it: the backend, the sidecar (proxy), or the client, \
             that left.",
            "Mostly 2xx and 3xx of the backend.",
            "5xx of the backend: its log. 5xx of the proxy: errors beside this say why.",
        )
        .unit(Unit::RequestsPerSecond)
        .short_legend()
        .ask(
            format!(
                "{} > 0",
                sum("http_response_status_code, origin", &rate("golden_requests_total", &and(USERS, THIS_METHOD)))
            ),
            "{{http_response_status_code}} {{origin}}",
        )
        // As on the Overview: the colour is the class, the legend says which of it.
        .paint_all("[12]", "blue")
        .paint_all("3", "light-blue")
        .paint_all("4", "#c9a227")
        .paint_all("5", "red")
        .paint_all(" ?client", "#808080")
        .nothing("No traffic"),
        Panel::new(
            Kind::Lines,
            8,
            "Errors by type",
            "Failed requests per second of all methods, by what happened and whose fault it was.",
            "No lines.",
            "The README's table of errors says when each type happens.",
        )
        .unit(Unit::RequestsPerSecond)
        .ask(sum("error_type, fault", &rate("golden_errors_total", THIS)), "{{error_type}} ({{fault}})")
        .nothing("No errors"),
        Panel::new(
            Kind::Lines,
            8,
            "Body bytes per request",
            "Mean size of what clients sent and got, per request that ended, all methods.",
            "Steady.",
            "Responses that grow: a list without pages? That shrink: empty or cut answers.",
        )
        .unit(Unit::Bytes)
        .ask(share(&sum("", &rate("golden_request_bytes_total", THIS)), &all), "request")
        .ask(share(&sum("", &rate("golden_response_bytes_total", THIS)), &all), "response")
        .nothing("No traffic"),
    ]
}

fn time() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Lines,
            6,
            "First byte and whole",
            "Median (thin) and p99 until the response head, and until the last byte. The gap is the time of the body.",
            "Near each other for short answers.",
            "Late first byte: the backend thinks. Only the whole is late: large bodies, slow clients, or a slow \
             stream.",
        )
        .unit(Unit::Seconds)
        .short_legend()
        .ask(latency(0.5, "", THIS_METHOD), "whole p50")
        .ask(latency(0.99, "", THIS_METHOD), "whole p99")
        .ask(
            percentile(0.5, "", "golden_time_to_first_byte_seconds", &and(r#"outcome="success""#, THIS)),
            "first byte p50",
        )
        .ask(
            percentile(0.99, "", "golden_time_to_first_byte_seconds", &and(r#"outcome="success""#, THIS)),
            "first byte p99",
        )
        .paint("first byte p50", FIRST_BYTE)
        .paint("first byte p99", FIRST_BYTE)
        .paint("whole p50", WHOLE)
        .paint("whole p99", WHOLE)
        // Where the two are the same, one lies on the other and both are seen.
        .wide(Match::Query('A'), 3)
        .wide(Match::Query('B'), 5)
        .wide(Match::Query('C'), 1)
        .nothing("No traffic"),
        Panel::new(
            Kind::Lines,
            6,
            "Phases of all routes, p99",
            "Where the time goes, for all routes together: queue (for a connection to the backend), connect, send, \
             wait (for the head), body.",
            "wait and body only.",
            "queue: the pool is full, see Saturation. connect: the backend's accept queue. wait: the backend itself.",
        )
        .unit(Unit::Seconds)
        .short_legend()
        .ask(percentile(0.99, "phase", "golden_upstream_phase_seconds", ""), "{{phase}}")
        .nothing("No traffic"),
        Panel::new(
            Kind::Lines,
            6,
            "Clients that left",
            "Requests per second whose client left before the response was complete, by when.",
            "A few.",
            "More: compare with how long they waited, beside this; usually it is a client's deadline.",
        )
        .unit(Unit::RequestsPerSecond)
        .short_legend()
        .reach(1.0)
        .ask(sum("phase", &rate("golden_client_aborts_total", THIS)), "{{phase}}")
        .nothing("No traffic"),
        Panel::new(
            Kind::Lines,
            6,
            "How long they had waited",
            "Median and p90 of the time that clients had waited when they left.",
            "No lines, or spread.",
            "All at one time: a client's deadline (5 s, 30 s). Be faster than it, or have it raised.",
        )
        .unit(Unit::Seconds)
        .short_legend()
        .ask(percentile(0.5, "", "golden_abort_wait_seconds", THIS), "p50")
        .ask(percentile(0.9, "", "golden_abort_wait_seconds", THIS), "p90")
        .quantile("p50", Quantile::Median)
        .nothing("Nobody left"),
    ]
}

fn instances() -> Vec<Panel> {
    let by = "instance";
    vec![
        Panel::new(
            Kind::Lines,
            6,
            "p99 by instance",
            "The same route in each instance.",
            "Lines near each other.",
            "One above the others: that instance or its host; compare its Saturation.",
        )
        .unit(Unit::Seconds)
        .short_legend()
        .ask(latency(0.99, by, THIS_METHOD), "{{instance}}")
        .nothing("No traffic"),
        Panel::new(
            Kind::Lines,
            6,
            "Requests/s by instance",
            "How requests of this route spread over the instances.",
            "Even.",
            "Uneven: the load balancer, or clients with long connections.",
        )
        .unit(Unit::RequestsPerSecond)
        .short_legend()
        .ask(requests(by, THIS_METHOD), "{{instance}}")
        .nothing("No traffic")
        .link("Overview", OVERVIEW),
        Panel::new(
            Kind::Lines,
            6,
            "Failed by instance",
            "Share of requests that failed (as above), in each instance.",
            "0 % everywhere.",
            "One instance only: take it out, then look at it. All: the service, or what it depends on.",
        )
        .unit(Unit::Ratio)
        .short_legend()
        .ask(share(&failed(by, THIS_METHOD, ""), &requests(by, THIS_METHOD)), "{{instance}}")
        .nothing("No traffic")
        .link("SLO", SLO),
        Panel::new(
            Kind::Lines,
            6,
            "In flight and oldest",
            "Requests on this route in flight in each instance; the age of the oldest is on the right axis.",
            "Small and even.",
            "Growing in one instance: it hangs there.",
        )
        .short_legend()
        .ask(sum(by, &select("golden_inflight_requests", THIS)), "{{instance}}")
        .ask(max(by, &select("golden_inflight_oldest_age_seconds", THIS)), "oldest: {{instance}}")
        .right_axis("oldest", Unit::Seconds, 1.0)
        .nothing("No such route"),
    ]
}
