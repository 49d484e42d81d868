//! Every name of a metric, of a label and, where there is a closed set, of a label's value in any query is one that the page
//! of a sidecar can have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use golden_sidecar::pack::reference::{self, Entry, Values};
use promql_parser::label::MatchOp;
use promql_parser::parser::Expr;
use serde_json::Value as Json;

use crate::assert_none;
use crate::common::files::{
    self, RuleFile, boards, label_values, list, panels, rules, targets, text, variable_query, variables,
};
use crate::common::promql::{
    Names, Substitution, Typing, alternatives, matchers, metric_names, parse, pattern, selectors,
};
use crate::common::{Backend, Page, Sidecar, h2c, ok, wait_until};
use crate::linter::sample;

/// What a server adds to every series of a target; the last two where its configuration says so.
const TARGET_LABELS: [&str; 4] = ["job", "instance", "namespace", "cluster"];

/// What a server says about each target itself, in every version.
const OF_THE_SERVER: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// All series that a query can ask for.
pub struct Vocabulary {
    entries: Vec<Entry>,
    /// Recorded series → their labels, and the metrics that they are made of.
    recorded: BTreeMap<String, (Names, BTreeSet<String>)>,
    /// Labels of `ALERTS`, and the values that are known of them.
    alerts: BTreeMap<String, BTreeSet<String>>,
}

fn names(of: &[&str]) -> Names {
    of.iter().map(|name| (*name).to_owned()).collect()
}

impl Vocabulary {
    /// With what this rule file records and alerts of. Faults of the rules themselves are those of their own tests.
    pub fn new(rules: &RuleFile) -> Vocabulary {
        let mut vocabulary =
            Vocabulary { entries: reference::entries(), recorded: BTreeMap::new(), alerts: BTreeMap::new() };
        for state in ["pending", "firing"] {
            vocabulary.alerts.entry("alertstate".into()).or_default().insert(state.into());
        }
        for rule in rules.groups.iter().flat_map(|group| &group.rules) {
            let Ok(expr) = parse(&rule.expr) else { continue };
            let labels = vocabulary.check(&expr).0;
            if rule.record.is_empty() {
                let known = &mut vocabulary.alerts;
                known.entry("alertname".into()).or_default().insert(rule.alert.clone());
                for (label, value) in &rule.labels {
                    known.entry(label.clone()).or_default().insert(value.clone());
                }
                for label in labels {
                    known.entry(label).or_default();
                }
            } else {
                let of = selectors(&expr).iter().flat_map(|selector| metric_names(selector)).collect();
                let labels = labels.into_iter().chain(rule.labels.keys().cloned()).collect();
                vocabulary.recorded.insert(rule.record.clone(), (labels, of));
            }
        }
        vocabulary
    }

    /// The vocabulary of the repository's rules.
    pub fn real() -> &'static Vocabulary {
        static REAL: LazyLock<Vocabulary> = LazyLock::new(|| Vocabulary::new(&rules()));
        &REAL
    }

    /// The family of a series, and whether it is its buckets.
    pub fn family(&self, series: &str) -> Option<(&Entry, bool)> {
        let whole = |name: &str| self.entries.iter().find(|entry| entry.name == name);
        let part = |suffix: &str| series.strip_suffix(suffix).and_then(whole).filter(|e| e.kind == "histogram");
        whole(series)
            .map(|entry| (entry, false))
            .or_else(|| part("_bucket").map(|entry| (entry, true)))
            .or_else(|| part("_count").or_else(|| part("_sum")).map(|entry| (entry, false)))
    }

    /// Whether it only rises.
    pub fn is_counter(&self, series: &str) -> bool {
        match self.family(series) {
            Some((entry, _)) => entry.kind == "counter" || entry.kind == "histogram",
            None => false,
        }
    }

    /// The labels that a series of this name can have.
    pub fn labels(&self, series: &str) -> Option<Names> {
        if OF_THE_SERVER.contains(&series) {
            return Some(names(&TARGET_LABELS));
        }
        if series == "ALERTS" || series == "ALERTS_FOR_STATE" {
            return Some(self.alerts.keys().cloned().collect());
        }
        if let Some((labels, _)) = self.recorded.get(series) {
            return Some(labels.clone());
        }
        let (entry, buckets) = self.family(series)?;
        let mut labels = names(&TARGET_LABELS);
        labels.extend(entry.labels.iter().cloned());
        if buckets {
            labels.insert("le".into());
        }
        Some(labels)
    }

    /// Whether a label of a series can have a value that is meant. Open sets can have any.
    fn can_be(&self, series: &str, label: &str, meant: &dyn Fn(&str) -> bool) -> bool {
        if series.starts_with("ALERTS") {
            let known = self.alerts.get(label).filter(|values| !values.is_empty());
            return known.is_none_or(|values| values.iter().any(|value| meant(value)));
        }
        if let Some((_, of)) = self.recorded.get(series) {
            return of.iter().any(|name| self.can_be(name, label, meant));
        }
        let Some((entry, _)) = self.family(series) else { return true };
        let any = |values: &[&str]| values.iter().any(|value| meant(value));
        match reference::values(&entry.name, label) {
            None | Some(Values::Open(_)) => true,
            Some(Values::Closed(values)) => any(&values),
            // Names of pools are whatever the configuration says; a status is three digits.
            Some(Values::ClosedAnd(values, form)) => {
                any(&values)
                    || (form.starts_with("pool:") && meant("pool:name"))
                    || (label == "error_type" && (500..600).any(|status| meant(&status.to_string())))
            }
        }
    }

    /// The labels of the result, and what the query names that does not exist.
    pub fn check(&self, expr: &Expr) -> (Names, Vec<String>) {
        let mut typing = Typing { of: &|series| self.labels(series), faults: Vec::new() };
        let labels = typing.labels(expr);
        let mut faults = typing.faults;
        for selector in selectors(expr) {
            let series = metric_names(selector);
            for matcher in matchers(selector).filter(|matcher| matcher.name != "__name__" && matcher.name != "le") {
                let texts = match matcher.op {
                    MatchOp::Equal | MatchOp::NotEqual => vec![matcher.value.clone()],
                    MatchOp::Re(_) | MatchOp::NotRe(_) => alternatives(&matcher.value),
                };
                // Absent and empty are the same; a variable that stands for all is anything.
                for text in texts.iter().filter(|text| !text.is_empty() && *text != ".+" && *text != ".*") {
                    let regex = pattern(text);
                    let meant = |value: &str| match matcher.op {
                        MatchOp::Equal | MatchOp::NotEqual => value == text,
                        MatchOp::Re(_) | MatchOp::NotRe(_) => regex(value),
                    };
                    if !series.iter().any(|series| self.can_be(series, &matcher.name, &meant)) {
                        faults.push(format!("{}: {} is never {text}", series.join("|"), matcher.name));
                    }
                }
            }
        }
        (labels, faults)
    }

    /// What is wrong with a query after its variables are substituted; one that does not parse is.
    pub fn faults(&self, query: &str) -> Vec<String> {
        match parse(query) {
            Ok(expr) => self.check(&expr).1,
            Err(error) => vec![format!("{query}: {error}")],
        }
    }
}

/// Names in a template such as `{{http_route}}`.
pub fn placeholders(template: &str) -> Vec<&str> {
    template.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap_or_default().trim()).collect()
}

/// What a dashboard asks for that does not exist.
fn board_faults(vocabulary: &Vocabulary, board: &Json) -> Vec<String> {
    let substitution = Substitution::default();
    let mut faults = Vec::new();
    let mut query = |place: &str, query: &str, templates: &[&str]| {
        let expr = match parse(&substitution.apply(query)) {
            Ok(expr) => expr,
            Err(error) => return faults.push(format!("{place}: {error}")),
        };
        let (labels, found) = vocabulary.check(&expr);
        faults.extend(found.into_iter().map(|fault| format!("{place}: {fault}")));
        for name in templates.iter().flat_map(|template| placeholders(template)) {
            if !labels.contains(name) {
                faults.push(format!("{place}: the result has no label {name} to be named after"));
            }
        }
    };
    for panel in panels(board) {
        for target in targets(panel) {
            query(text(&panel["title"]), text(&target["expr"]), &[text(&target["legendFormat"])]);
        }
    }
    for mark in list(&board["annotations"]["list"]) {
        query(text(&mark["name"]), text(&mark["expr"]), &[text(&mark["titleFormat"]), text(&mark["textFormat"])]);
    }
    for variable in variables(board).iter().filter(|variable| variable["type"] == "query") {
        let place = text(&variable["name"]);
        if let Some((Some(selector), label)) = label_values(variable_query(variable)) {
            query(place, selector, &[&format!("{{{{{label}}}}}")]);
        }
    }
    faults
}

#[test]
fn every_name_in_a_dashboard_is_on_the_page() {
    let vocabulary = Vocabulary::real();
    let faults = boards().into_iter().flat_map(|board| {
        let faults = board_faults(vocabulary, &board.json);
        faults.into_iter().map(move |fault| format!("{}: {fault}", board.path))
    });
    assert_none(&faults.collect::<Vec<_>>());

    let sample = sample();
    assert_none(&board_faults(vocabulary, &sample));
    let finds = |what: &str, path: &str, value: &str| {
        let mut board = sample.clone();
        *board.pointer_mut(path).expect(path) = value.into();
        assert!(!board_faults(vocabulary, &board).is_empty(), "{what} is not found");
    };
    finds("another metric", "/panels/0/targets/0/expr", "golden_request_total");
    finds("another label", "/panels/0/targets/0/expr", "sum by (route) (golden_requests_total)");
    finds("another label of a matcher", "/panels/0/targets/0/expr", r#"golden_requests_total{path="/"}"#);
    finds("another value", "/panels/0/targets/0/expr", r#"golden_requests_total{origin="server"}"#);
    finds("another value among others", "/panels/0/targets/0/expr", r#"golden_requests_total{origin=~"proxy|server"}"#);
    finds("another legend", "/panels/0/targets/0/legendFormat", "{{route}}");
    finds("a mark", "/annotations/list/0/expr", "changes(process_start_seconds[2m]) > 0");
    finds("a variable", "/templating/list/1/query/query", "label_values(golden_build_info, workload)");
    finds("a variable's metric", "/templating/list/1/query/query", "label_values(golden_info, job)");
}

#[test]
fn every_name_in_a_rule_is_on_the_page_or_recorded() {
    let check = |file: &RuleFile| -> Vec<String> {
        let vocabulary = Vocabulary::new(file);
        let rules = file.groups.iter().flat_map(|group| &group.rules);
        rules
            .flat_map(|rule| {
                let name = format!("{}{}", rule.alert, rule.record);
                vocabulary.faults(&rule.expr).into_iter().map(move |fault| format!("{name}: {fault}"))
            })
            .collect()
    };
    assert_none(&check(&rules()));
    let file = |expr: &str| {
        files::rules_of(&format!(
            "groups:\n  - name: g\n    interval: 1m\n    rules:\n      - record: job:a:b\n        expr: sum by (job, result) (golden_slo_requests_total)\n      \
             - alert: A\n        expr: {expr}\n"
        ))
    };
    assert_none(&check(&file("job:a:b > 0")));
    assert_none(&check(&file("sum(job:a:b{result=\"slow\"}) > 0")));
    for wrong in
        ["job:a:c > 0", "job:a:b{slo=\"x\"} > 0", "job:a:b{result=\"sloow\"} > 0", "sum by (slo) (job:a:b) > 0"]
    {
        assert!(!check(&file(wrong)).is_empty(), "{wrong}");
    }
}

/// The page of a sidecar that has everything that this machine lets it have, after traffic of all kinds.
fn golden_page() -> Page {
    let backend = Backend::of_all_ends();
    let metrics = Backend::answering(|_| {
        ok("# TYPE hikaricp_connections_active gauge\nhikaricp_connections_active 3\n\
            # TYPE hikaricp_connections_idle gauge\nhikaricp_connections_idle 7\n\
            # TYPE hikaricp_connections_max gauge\nhikaricp_connections_max 12\n\
            # TYPE hikaricp_connections_pending gauge\nhikaricp_connections_pending 13\n\
            # TYPE hikaricp_connections_timeout_total counter\nhikaricp_connections_timeout_total 17\n")
    });
    let sidecar = Sidecar::before(&backend)
        .flag("--inflight", 100)
        .yaml(format!(
            "implicit_errors: [{{name: wrong, body_contains: ok}}]\nslos:\n  - {{name: all, objective: 0.999, latency: 500ms}}\nroutes:\n  - path: /a/{{id}}\n\
             probes:\n  paths: [/healthz]\nsaturation:\n  interval: 100ms\n  pools:\n    - name: db\n      \
             url: {}/metrics\n      preset: hikaricp\n",
            metrics.url()
        ))
        .learning()
        .start();
    for path in ["/", "/a/1", "/error", "/cut", "/missing", "/events", "/healthz"] {
        sidecar.get(path);
    }
    sidecar.exchange("JUNK\x01\r\n\r\n");
    let mut client = sidecar.client();
    client.send("GET /chat HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.read_head().status(), 101);
    drop(client);
    let mut client = sidecar.client();
    client.send("GET /silent HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request is at the backend", || backend.requests().iter().any(|r| r.head.target() == "/silent"));
    drop(client);
    h2c::call(sidecar.proxy, "/shop.Cart/Add");
    sidecar.page_when("all of it", |page| {
        page.has("golden_pool_connections", &[])
            && page.has("golden_saturation_peak_ratio", &[])
            && page.sum("golden_requests_total", &[]) == 11.0
    })
}

#[test]
fn the_reference_of_metrics_says_what_a_real_page_has() {
    let page = golden_page();
    let vocabulary = Vocabulary::real();
    let mut faults = BTreeSet::new();
    for sample in &page.samples {
        let Some((entry, buckets)) = vocabulary.family(&sample.name) else {
            faults.insert(format!("{} is in no declaration", sample.name));
            continue;
        };
        let kind = page.family_of(&sample.name).and_then(|family| page.types.get(&family).cloned());
        if kind.as_deref() != Some(entry.kind) {
            faults.insert(format!("{}: {kind:?} is not {}", sample.name, entry.kind));
        }
        let help = page.family_of(&sample.name).and_then(|family| page.helps.get(&family).cloned());
        if help.as_ref() != Some(&entry.help) {
            faults.insert(format!("{}: {help:?} is not {:?}", sample.name, entry.help));
        }
        let mut expected: Names = entry.labels.iter().cloned().collect();
        if buckets {
            expected.insert("le".into());
        }
        let found: Names = sample.labels.keys().cloned().collect();
        if found != expected {
            faults.insert(format!("{}: {found:?} is not {expected:?}", sample.name));
        }
        for (label, value) in sample.labels.iter().filter(|(label, _)| *label != "le") {
            if reference::values(&entry.name, label).is_none() {
                faults.insert(format!("{} {label}: nobody says what it can be", entry.name));
                continue;
            }
            // Pools have the names that the configuration gives them.
            let form = if value.starts_with("pool:") { "pool:name" } else { value };
            if !value.is_empty() && !vocabulary.can_be(&sample.name, label, &|can| can == form) {
                faults.insert(format!("{} {label}: {value} is not among its values", entry.name));
            }
        }
    }
    assert_none(&faults.into_iter().collect::<Vec<_>>());

    // And most of what is declared is really there: the reference is of this program.
    let there = |entry: &&Entry| page.samples.iter().any(|s| vocabulary.family(&s.name).is_some_and(|f| f.0 == *entry));
    let missing: Vec<_> = vocabulary.entries.iter().filter(|entry| !there(entry)).map(|e| e.name.clone()).collect();
    println!("declared, and not on the page of this machine: {missing:?}");
    let without_a_source = |name: &str| {
        // What the kernel of this machine may not tell, and what did not happen; no certificate, either (`tests/tls.rs`).
        let absent = [
            "golden_backend_",
            "golden_netns_",
            "golden_saturation_time_to_limit",
            "golden_sampler_failures",
            "golden_tls_cert",
        ];
        absent.iter().any(|start| name.starts_with(start))
    };
    let unexplained: Vec<_> = missing.iter().filter(|name| !without_a_source(name)).collect();
    assert!(unexplained.is_empty(), "{unexplained:?}");
}
