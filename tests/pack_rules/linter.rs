//! The seventeen rules of dashboard-linter, by their names, without an exception list.

use serde_json::{Value as Json, json};

use crate::assert_none;
use crate::common::files::{boards, label_values, list, panels, targets, text, units, variable_query, variables};
use crate::common::promql::{Substitution, matchers, metric_names, name, nodes, parse, selector, selectors};

/// Faults of a dashboard.
pub type Check = fn(&Json) -> Vec<String>;

/// A change that breaks a dashboard.
pub type Break = fn(&mut Json);

/// The only data source, whatever it is called where the file is imported.
pub const DATASOURCE: &str = "${datasource}";

/// All dashboards keep the rule; so does the sample, and none of the broken samples.
#[track_caller]
pub fn keeps(check: Check, breaks: &[Break]) {
    let faults = boards().into_iter().flat_map(|board| {
        let path = board.path;
        check(&board.json).into_iter().map(move |fault| format!("{path}: {fault}"))
    });
    assert_none(&faults.collect::<Vec<_>>());
    assert_eq!(check(&sample()), Vec::<String>::new(), "the sample is right");
    assert!(!breaks.is_empty(), "a check that cannot fail says nothing");
    for (at, broken) in breaks.iter().enumerate() {
        let mut board = sample();
        broken(&mut board);
        assert!(!check(&board).is_empty(), "nothing is found in broken sample {at}");
    }
}

/// The smallest dashboard that keeps all rules.
pub fn sample() -> Json {
    let datasource = json!({"type": "prometheus", "uid": DATASOURCE});
    let variable = |name: &str, label: &str, query: &str| {
        json!({
            "name": name, "label": label, "type": "query", "datasource": datasource, "refresh": 2, "multi": true,
            "includeAll": true, "allValue": ".+", "query": {"query": query, "refId": "v"},
            "current": {"text": ["All"], "value": ["$__all"]},
        })
    };
    let steps = json!([{"color": "text", "value": null}, {"color": "red", "value": 0.8}]);
    json!({
        "id": null, "uid": "golden-sidecar-sample", "title": "Sample", "schemaVersion": 39, "editable": false, "version": 1,
        "tags": ["golden-sidecar"],
        "annotations": {"list": [{
            "name": "Restart", "datasource": datasource,
            "expr": r#"changes(process_start_time_seconds{job=~"$job",instance=~"$instance"}[2m]) > 0"#,
        }]},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}},
            variable("job", "Job", "label_values(golden_build_info, job)"),
            variable("instance", "Instance", r#"label_values(golden_build_info{job=~"$job"}, instance)"#),
        ]},
        "panels": [
            {
                "id": 1, "type": "timeseries", "title": "Requests", "datasource": datasource,
                "description": "Requests per second.\n\n**Normal:** As ever.\n\n**Otherwise:** Look at the routes.",
                "gridPos": {"x": 0, "y": 0, "w": 12, "h": 8},
                "fieldConfig": {"defaults": {"unit": "reqps", "thresholds": {"steps": [{"color": "text", "value": null}]}}, "overrides": []},
                "targets": [{
                    "refId": "A", "datasource": datasource, "legendFormat": "{{http_route}}", "range": true, "instant": false,
                    "expr": r#"sum by (http_route) (rate(golden_requests_total{job=~"$job",instance=~"$instance"}[$__rate_interval]))"#,
                }],
                "links": [{"title": "Sample", "url": "/d/golden-sidecar-sample?${__url_time_range}"}],
            },
            {
                "id": 2, "type": "stat", "title": "Memory", "datasource": datasource,
                "description": "Of its limit.\n\n**Normal:** Below 80 %.\n\n**Otherwise:** Give it more.",
                "gridPos": {"x": 12, "y": 0, "w": 12, "h": 8},
                "fieldConfig": {"defaults": {
                    "unit": "percentunit", "thresholds": {"steps": steps},
                    "mappings": [{"type": "range", "options": {"from": 0.8, "to": null, "result": {"text": "Full", "color": "red"}}}],
                }, "overrides": []},
                "options": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false}},
                "targets": [{
                    "refId": "A", "datasource": datasource, "legendFormat": "memory", "range": false, "instant": true,
                    "expr": r#"max(golden_saturation_ratio{job=~"$job",instance=~"$instance",resource="memory"})"#,
                }],
            },
        ],
    })
}

/// Puts another query into the first panel.
macro_rules! with_expr {
    ($expr:expr) => {
        |board: &mut Json| board["panels"][0]["targets"][0]["expr"] = $expr.into()
    };
}
pub(crate) use with_expr;

/// The tree of each query of each panel, with where it stands. What does not parse is none of most rules' concern.
pub fn queries(board: &Json) -> Vec<(String, promql_parser::parser::Expr)> {
    let mut out = Vec::new();
    for panel in panels(board) {
        for target in targets(panel) {
            if let Ok(expr) = parse(&Substitution::default().apply(text(&target["expr"]))) {
                out.push((format!("{} {}", text(&panel["title"]), text(&target["refId"])), expr));
            }
        }
    }
    out
}

// --- Variables ---

#[test]
fn template_datasource_rule_one_variable_chooses_the_data_source() {
    keeps(
        |board| {
            let found: Vec<_> = variables(board).iter().filter(|variable| variable["type"] == "datasource").collect();
            let right = |variable: &&&Json| {
                ["datasource", "prometheus_datasource"].contains(&text(&variable["name"]))
                    && ["Data source", "Prometheus data source"].contains(&text(&variable["label"]))
                    && variable["query"] == "prometheus"
            };
            if found.len() == 1 && found.iter().all(|variable| right(&variable)) {
                Vec::new()
            } else {
                vec![format!("{found:?}")]
            }
        },
        &[
            |board| board["templating"]["list"][0]["label"] = "Source".into(),
            |board| board["templating"]["list"][0]["name"] = "source".into(),
            |board| board["templating"]["list"][0]["query"] = "loki".into(),
        ],
    );
}

/// What is wrong with the variable of this name and label.
fn target_variable(board: &Json, name: &str, label: &str) -> Vec<String> {
    let Some(variable) = variables(board).iter().find(|variable| variable["name"] == name) else {
        return vec![format!("no variable {name}")];
    };
    let expected = [
        ("/label", Json::from(label)),
        ("/type", "query".into()),
        ("/datasource/uid", DATASOURCE.into()),
        ("/multi", true.into()),
        ("/includeAll", true.into()),
        ("/allValue", ".+".into()),
    ];
    let wrong = expected.iter().filter(|(at, value)| variable.pointer(at) != Some(value));
    wrong.map(|(at, value)| format!("{name}{at} is not {value}")).collect()
}

#[test]
fn template_job_rule_several_jobs_or_all_may_be_chosen() {
    keeps(
        |board| target_variable(board, "job", "Job"),
        &[
            |board| board["templating"]["list"][1]["allValue"] = Json::Null,
            |board| board["templating"]["list"][1]["multi"] = false.into(),
            |board| board["templating"]["list"][1]["name"] = "jobs".into(),
            |board| board["templating"]["list"][1]["datasource"]["uid"] = "prometheus".into(),
        ],
    );
}

#[test]
fn template_instance_rule_several_instances_or_all_may_be_chosen() {
    keeps(
        |board| target_variable(board, "instance", "Instance"),
        &[
            |board| board["templating"]["list"][2]["label"] = "instance".into(),
            |board| board["templating"]["list"][2]["includeAll"] = false.into(),
        ],
    );
}

#[test]
fn template_label_promql_rule_variables_ask_in_promql() {
    keeps(
        |board| {
            let asked = variables(board).iter().filter(|variable| variable["type"] == "query");
            asked
                .filter_map(|variable| {
                    let query = variable_query(variable);
                    let Some((selector, label)) = label_values(query) else {
                        return Some(format!("{query}: not label_values()"));
                    };
                    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    if label.is_empty() || !label.chars().all(plain) {
                        return Some(format!("{query}: {label} is no label"));
                    }
                    let selector = Substitution::default().apply(selector?);
                    parse(&selector).err().map(|error| format!("{query}: {error}"))
                })
                .collect()
        },
        &[
            |board| board["templating"]["list"][1]["query"]["query"] = "label_values(up{, job)".into(),
            |board| board["templating"]["list"][1]["query"]["query"] = "up".into(),
        ],
    );
}

#[test]
fn template_on_time_change_reload_rule_variables_are_asked_again_when_the_time_changes() {
    keeps(
        |board| {
            let asked = variables(board).iter().filter(|variable| variable["type"] == "query");
            asked.filter(|variable| variable["refresh"] != 2).map(|variable| variable["name"].to_string()).collect()
        },
        &[|board| board["templating"]["list"][1]["refresh"] = 1.into()],
    );
}

// --- Panels ---

#[test]
fn panel_datasource_rule_everything_asks_the_chosen_data_source() {
    keeps(
        |board| {
            let panels = panels(board);
            let targets = panels.iter().flat_map(|panel| targets(panel));
            let others = list(&board["annotations"]["list"]).iter();
            let others = others.chain(variables(board).iter().filter(|variable| variable["type"] != "datasource"));
            let all = panels.iter().copied().chain(targets).chain(others);
            all.filter(|asking| asking["datasource"]["uid"] != DATASOURCE)
                .map(|asking| format!("{} {}", asking["title"], asking["name"]))
                .collect()
        },
        &[
            |board| board["panels"][0]["datasource"]["uid"] = "abc".into(),
            |board| board["panels"][0]["targets"][0]["datasource"] = Json::Null,
            |board| board["annotations"]["list"][0]["datasource"] = "Prometheus".into(),
        ],
    );
}

#[test]
fn panel_title_description_rule_every_panel_says_what_it_is() {
    keeps(
        |board| {
            let empty = |panel: &&Json| ["title", "description"].iter().any(|key| text(&panel[*key]).trim().is_empty());
            panels(board).into_iter().filter(empty).map(|panel| panel["id"].to_string()).collect()
        },
        &[|board| board["panels"][0]["title"] = "".into(), |board| board["panels"][0]["description"] = Json::Null],
    );
}

/// Units of Grafana's list that a pack of base units needs. A free text after `suffix:` is in no list.
const UNITS: [&str; 12] = [
    "none",
    "short",
    "string",
    "percentunit",
    "s",
    "bytes",
    "binBps",
    "reqps",
    "eps",
    "ops",
    "dateTimeFromNow",
    "dtdurations",
];

#[test]
fn panel_units_rule_every_panel_has_a_unit_of_grafanas_list() {
    keeps(
        |board| {
            let mut faults = Vec::new();
            for panel in panels(board) {
                let wrong = units(panel).into_iter().filter(|unit| !UNITS.contains(unit));
                faults.extend(wrong.map(|unit| format!("{}: unit {unit}", panel["title"])));
            }
            faults
        },
        &[
            |board| board["panels"][0]["fieldConfig"]["defaults"]["unit"] = Json::Null,
            |board| board["panels"][0]["fieldConfig"]["defaults"]["unit"] = "requests".into(),
            |board| {
                let unit = json!([{"matcher": {}, "properties": [{"id": "unit", "value": "suffix:x"}]}]);
                board["panels"][0]["fieldConfig"]["overrides"] = unit;
            },
        ],
    );
}

#[test]
fn panel_no_targets_rule_every_panel_asks_something() {
    keeps(
        |board| {
            let silent = panels(board).into_iter().filter(|panel| targets(panel).is_empty());
            silent.map(|panel| panel["title"].to_string()).collect()
        },
        &[|board| board["panels"][0]["targets"] = json!([])],
    );
}

// --- Queries ---

/// Whatever is asked is asked of Prometheus.
fn other_sources(board: &Json) -> Vec<String> {
    fn walk(json: &Json, out: &mut Vec<String>) {
        match json {
            Json::Object(map) => {
                if let Some(kind) = map.get("datasource").map(|datasource| &datasource["type"])
                    && kind != "prometheus"
                {
                    out.push(format!("a data source of type {kind}"));
                }
                map.values().for_each(|value| walk(value, out));
            }
            Json::Array(list) => list.iter().for_each(|value| walk(value, out)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk(board, &mut out);
    out
}

#[test]
fn target_logql_rule_nothing_is_asked_of_another_kind_of_data_source() {
    keeps(other_sources, &[|board| board["panels"][0]["targets"][0]["datasource"]["type"] = "loki".into()]);
}

#[test]
fn target_logql_auto_rule_no_query_has_the_interval_of_log_queries() {
    keeps(
        |board| {
            let all = panels(board).into_iter().flat_map(targets);
            let auto = all.filter(|target| text(&target["expr"]).contains("$__auto"));
            auto.map(|target| target["expr"].to_string()).collect()
        },
        &[with_expr!("sum(rate(golden_requests_total[$__auto]))")],
    );
}

#[test]
fn target_promql_rule_every_query_parses() {
    keeps(
        |board| {
            let mut faults = Vec::new();
            for panel in panels(board) {
                for target in targets(panel) {
                    let query = Substitution::default().apply(text(&target["expr"]));
                    faults.extend(parse(&query).err().map(|error| format!("{}: {error}", panel["title"])));
                }
            }
            faults
        },
        &[with_expr!("sum(rate(golden_requests_total[$__rate_interval])"), with_expr!("")],
    );
}

#[test]
fn target_rate_interval_rule_rates_are_over_the_rate_interval() {
    keeps(
        |board| {
            // Substituted by a range that nobody else would write.
            let odd = Substitution { rate_interval: "1234s".into(), ..Substitution::default() };
            let odd_seconds = 1234;
            let mut faults = Vec::new();
            for panel in panels(board) {
                for target in targets(panel) {
                    let Ok(expr) = parse(&odd.apply(text(&target["expr"]))) else { continue };
                    for (_, node) in nodes(&expr) {
                        let promql_parser::parser::Expr::Call(call) = node else { continue };
                        if !["rate", "irate"].contains(&call.func.name) {
                            continue;
                        }
                        let range = match call.args.args.first().map(|arg| &**arg) {
                            Some(promql_parser::parser::Expr::MatrixSelector(matrix)) => matrix.range.as_secs(),
                            _ => 0,
                        };
                        if range != odd_seconds {
                            faults.push(format!("{}: {node}", panel["title"]));
                        }
                    }
                }
            }
            faults
        },
        &[with_expr!("sum(rate(golden_requests_total[5m]))")],
    );
}

/// Selectors without `LABEL=~"$LABEL"`.
fn unmatched(board: &Json, label: &str) -> Vec<String> {
    let marked = Substitution {
        variables: vec![("job".into(), "THE-JOB".into()), ("instance".into(), "THE-INSTANCE".into())],
        ..Substitution::default()
    };
    let value = format!("THE-{}", label.to_uppercase());
    let mut faults = Vec::new();
    for panel in panels(board) {
        for target in targets(panel) {
            let Ok(expr) = parse(&marked.apply(text(&target["expr"]))) else { continue };
            for selector in selectors(&expr) {
                let found = matchers(selector)
                    .any(|matcher| matcher.name == label && matcher.op.to_string() == "=~" && matcher.value == value);
                if !found {
                    faults.push(format!("{}: {selector}", panel["title"]));
                }
            }
        }
    }
    faults
}

#[test]
fn target_job_rule_every_selector_is_of_the_chosen_jobs() {
    keeps(
        |board| unmatched(board, "job"),
        &[
            with_expr!(r#"sum(rate(golden_requests_total{instance=~"$instance"}[$__rate_interval]))"#),
            with_expr!(r#"sum(rate(golden_requests_total{job="$job"}[$__rate_interval]))"#),
        ],
    );
}

#[test]
fn target_instance_rule_every_selector_is_of_the_chosen_instances() {
    keeps(
        |board| unmatched(board, "instance"),
        &[
            with_expr!(r#"golden_backend_up{job=~"$job"}"#),
            with_expr!(r#"golden_backend_up{job=~"$job",instance=~".+"}"#),
        ],
    );
}

#[test]
fn target_counter_agg_rule_counters_stand_in_rates_only() {
    keeps(
        |board| {
            let mut faults = Vec::new();
            for (place, expr) in queries(board) {
                for (above, node) in nodes(&expr) {
                    let Some(selector) = selector(node) else { continue };
                    let counter = metric_names(selector).iter().any(|name| name.ends_with("_total"));
                    let within = above.last().map(|parent| name(parent)).unwrap_or_default();
                    if counter && !["rate", "irate", "increase"].contains(&within.as_str()) {
                        faults.push(format!("{place}: {node}"));
                    }
                }
            }
            faults
        },
        &[
            with_expr!("sum(golden_requests_total)"),
            with_expr!("golden_requests_total"),
            with_expr!("deriv(golden_requests_total[5m])"),
        ],
    );
}

#[test]
fn uneditable_dashboard_nobody_edits_what_the_next_version_replaces() {
    keeps(
        |board| (board["editable"] != false).then(|| "it is editable".to_owned()).into_iter().collect(),
        &[|board| board["editable"] = true.into()],
    );
}
