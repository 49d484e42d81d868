//! What a dashboard must be besides what dashboard-linter asks for: units that agree with the metrics, colours that agree with
//! the alerts and never stand alone, links that lead somewhere, a file that imports cleanly.

use std::collections::BTreeSet;

use golden_sidecar::pack::objective::{BURN_WINDOWS, Objective};
use golden_sidecar::pack::thresholds;
use promql_parser::parser::Expr;
use serde_json::{Value as Json, json};

use crate::common::files::{boards, list, panels, rules, targets, text, units, variables};
use crate::common::promql::{
    Substitution, bare, children, constant, matchers, metric_names, name, nodes, parse, selector, selectors,
};
use crate::linter::{Check, keeps, queries, sample, with_expr};

/// A rule that only one broken sample can show.
fn keeps_alone(check: Check, broken: fn(&mut Json)) {
    keeps(check, &[broken]);
}

// --- Units ---

/// What a result is measured in, as far as the names of metrics tell.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Measure {
    Seconds,
    Bytes,
    BytesPerSecond,
    /// Of times per time, of a share.
    Ratio,
    PerSecond,
    Count,
    /// It does not say.
    Unknown,
}

fn of_metric(name: &str) -> Measure {
    let name =
        ["_bucket", "_sum", "_total"].iter().fold(name, |name, suffix| name.strip_suffix(suffix).unwrap_or(name));
    match name {
        name if name.ends_with("_count") => Measure::Count,
        name if name.ends_with("_seconds") => Measure::Seconds,
        name if name.ends_with("_bytes") => Measure::Bytes,
        name if name.ends_with("_ratio") => Measure::Ratio,
        _ => Measure::Count,
    }
}

fn measure(expr: &Expr) -> Measure {
    let first = || children(expr).first().map_or(Measure::Unknown, |child| measure(child));
    match expr {
        Expr::Paren(_) | Expr::Unary(_) | Expr::Subquery(_) => first(),
        Expr::VectorSelector(_) | Expr::MatrixSelector(_) => {
            let names = metric_names(selector(expr).expect("it is one"));
            let name = names.first().map_or("", String::as_str);
            if name.contains(':') { Measure::Unknown } else { of_metric(name) }
        }
        Expr::Aggregate(aggregate) => match name(expr).as_str() {
            "count" | "count_values" | "group" => Measure::Count,
            _ => measure(&aggregate.expr),
        },
        Expr::Call(call) => match call.func.name {
            "rate" | "irate" | "deriv" => match first() {
                Measure::Seconds => Measure::Ratio,
                Measure::Bytes => Measure::BytesPerSecond,
                Measure::Count => Measure::PerSecond,
                _ => Measure::Unknown,
            },
            "histogram_quantile" => match call.args.args.get(1).map(|arg| nodes(arg)) {
                Some(nodes) => {
                    let found = nodes.into_iter().find_map(|(_, node)| selector(node));
                    found.map_or(Measure::Unknown, |found| of_metric(metric_names(found).first().map_or("", |n| n)))
                }
                None => Measure::Unknown,
            },
            "histogram_fraction" => Measure::Ratio,
            "histogram_count" => match call.args.args.first().map(|arg| nodes(arg)) {
                Some(nodes) if nodes.iter().any(|(_, node)| name(node) == "rate") => Measure::PerSecond,
                _ => Measure::Count,
            },
            "time" | "timestamp" => Measure::Seconds,
            "changes" | "resets" | "count_over_time" | "absent" => Measure::Count,
            "increase" | "max_over_time" | "min_over_time" | "avg_over_time" | "sum_over_time" | "last_over_time"
            | "quantile_over_time" | "abs" | "clamp_min" | "clamp_max" | "clamp" | "sort" | "sort_desc" | "round"
            | "label_replace" | "label_join" | "predict_linear" | "delta" => call
                .args
                .args
                .iter()
                .map(|arg| measure(arg))
                .find(|m| *m != Measure::Unknown)
                .unwrap_or(Measure::Unknown),
            _ => Measure::Unknown,
        },
        Expr::Binary(binary) => {
            let (lhs, rhs) = (measure(&binary.lhs), measure(&binary.rhs));
            match binary.op.to_string().as_str() {
                "/" if lhs == rhs && lhs != Measure::Unknown => Measure::Ratio,
                "/" if lhs == Measure::Bytes && rhs == Measure::BytesPerSecond => Measure::Seconds,
                "/" if lhs == Measure::Count && rhs == Measure::PerSecond => Measure::Seconds,
                "+" | "-" if constant(&binary.lhs).is_some() => rhs,
                "+" | "-" | ">" | "<" | ">=" | "<=" | "==" | "!=" | "and" | "unless" | "or" => lhs,
                _ => Measure::Unknown,
            }
        }
        _ => Measure::Unknown,
    }
}

#[test]
fn units_agree_with_the_suffixes_of_metrics() {
    keeps(
        |board| {
            let mut faults = Vec::new();
            for panel in panels(board) {
                let units = units(panel);
                // Where each value has its own word, or its own name is what is shown, the number is not.
                for target in targets(panel) {
                    let Ok(expr) = parse(&Substitution::default().apply(text(&target["expr"]))) else { continue };
                    let expected: &[&str] = match measure(&expr) {
                        Measure::Seconds => &["s", "dtdurations"],
                        Measure::Bytes => &["bytes"],
                        Measure::BytesPerSecond => &["binBps"],
                        // CPU seconds per second are cores as well.
                        Measure::Ratio => &["percentunit", "short", "none"],
                        Measure::PerSecond => &["reqps", "eps", "ops"],
                        Measure::Count => &["short", "none"],
                        Measure::Unknown => continue,
                    };
                    let share = measure(&expr) == Measure::Ratio && !text(&target["expr"]).contains("_seconds");
                    let expected = if share { &expected[..1] } else { expected };
                    if !units.iter().any(|unit| expected.contains(unit)) {
                        faults.push(format!(
                            "{}: the unit is {units:?}, expected one of {expected:?}: {expr}",
                            panel["title"]
                        ));
                    }
                }
            }
            faults
        },
        &[
            with_expr!(
                "histogram_quantile(0.99, sum by (le) (rate(golden_proxy_overhead_seconds_bucket[$__rate_interval])))"
            ),
            with_expr!("sum(rate(golden_request_bytes_total[$__rate_interval]))"),
            with_expr!("golden_backend_memory_bytes"),
            with_expr!("golden_saturation_ratio"),
            with_expr!("sum(golden_inflight_requests)"),
            with_expr!("time() - process_start_time_seconds"),
            with_expr!("sum(rate(golden_errors_total[1m])) / sum(rate(golden_requests_total[1m]))"),
        ],
    );
}

#[test]
fn units_are_told_from_names_through_everything_that_is_done_with_them() {
    let of = |query: &str| measure(&parse(query).unwrap());
    assert_eq!(of("sum(rate(a_seconds_sum[1m])) / sum(rate(a_seconds_count[1m]))"), Measure::Unknown);
    assert_eq!(of("rate(process_cpu_seconds_total[1m])"), Measure::Ratio);
    assert_eq!(of("time() - max(a_time_seconds)"), Measure::Seconds);
    assert_eq!(of("1 - a_ratio"), Measure::Ratio);
    assert_eq!(of("a_bytes / b_bytes"), Measure::Ratio);
    assert_eq!(of("increase(a_total[5m])"), Measure::Count);
    assert_eq!(of("a_seconds * 1000"), Measure::Unknown);
}

// --- Colours ---

/// Colours that say nothing.
fn is_plain(colour: &str) -> bool {
    ["text", "transparent", "#808080", "grey", "gray"].contains(&colour)
}

fn steps(panel: &Json) -> &[Json] {
    list(&panel["fieldConfig"]["defaults"]["thresholds"]["steps"])
}

/// All lists of thresholds of a panel: its own, and those of overrides.
fn all_steps(panel: &Json) -> Vec<&Json> {
    let overridden = list(&panel["fieldConfig"]["overrides"]).iter();
    let overridden = overridden.flat_map(|o| list(&o["properties"])).filter(|p| p["id"] == "thresholds");
    steps(panel).iter().chain(overridden.flat_map(|property| list(&property["value"]["steps"]))).collect()
}

#[test]
fn no_panel_has_the_threshold_that_grafana_puts_into_new_ones() {
    keeps_alone(
        |board| {
            let panels = panels(board).into_iter();
            let default =
                panels.filter(|panel| all_steps(panel).iter().any(|step| step["value"].as_f64() == Some(80.0)));
            default.map(|panel| panel["title"].to_string()).collect()
        },
        |board| {
            board["panels"][0]["fieldConfig"]["defaults"]["thresholds"]["steps"] =
                json!([{"color": "red", "value": 80}])
        },
    );
}

#[test]
fn thresholds_rise_and_begin_at_the_lowest_value() {
    keeps(
        |board| {
            let mut faults = Vec::new();
            for panel in panels(board) {
                let values: Vec<Option<f64>> = steps(panel).iter().map(|step| step["value"].as_f64()).collect();
                let rising =
                    values.is_sorted_by(|a, b| a.is_none() || a < b) && values.iter().skip(1).all(Option::is_some);
                if !rising || values.first() != Some(&None) {
                    faults.push(format!("{}: {values:?}", panel["title"]));
                }
            }
            faults
        },
        &[
            |board| board["panels"][1]["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] = 0.95.into(),
            |board| board["panels"][1]["fieldConfig"]["defaults"]["thresholds"]["steps"] = json!([]),
        ],
    );
}

#[test]
fn colour_is_never_the_only_carrier_of_a_meaning() {
    keeps(
        |board| {
            let mut faults = Vec::new();
            for panel in panels(board).into_iter().filter(|panel| panel["type"] == "stat") {
                let coloured = all_steps(panel).iter().any(|step| !is_plain(text(&step["color"])));
                let mappings = list(&panel["fieldConfig"]["defaults"]["mappings"]);
                // As text in a mapping, however its kind nests it.
                let words = mappings.iter().any(|mapping| mapping["options"].to_string().contains("\"text\":\""));
                if coloured && !words {
                    faults.push(format!("{}: colours, and no word that says the same", panel["title"]));
                }
            }
            faults
        },
        &[|board| board["panels"][1]["fieldConfig"]["defaults"]["mappings"] = json!([])],
    );
}

/// The numbers at which the pack speaks: those in the alerts, and what they are made of.
fn known_numbers() -> Vec<f64> {
    let objective = Objective::default();
    let mut known = vec![
        // As good as full, and a share of everything.
        1.0,
        objective.ratio(),
        objective.budget(),
        thresholds::BUDGET_LOW,
    ];
    known.extend(objective.latency().into_iter().flat_map(|promised| [1.0, 2.0].map(|by| by * promised.as_secs_f64())));
    for window in BURN_WINDOWS {
        // A budget of 30 days that is spent so fast lasts so many seconds.
        known.extend([window.factor, objective.bad_ratio(window.factor), 30.0 * 86_400.0 / window.factor]);
    }
    for rule in rules().groups.iter().flat_map(|group| &group.rules).filter(|rule| !rule.alert.is_empty()) {
        let Ok(expr) = parse(&rule.expr) else { continue };
        known.extend(nodes(&expr).into_iter().filter_map(|(_, node)| constant(node)));
    }
    // What is amber is looked at before it alerts.
    known.push(thresholds::FILLING);
    known
}

#[test]
fn colours_change_where_alerts_fire() {
    keeps(
        |board| {
            let known = known_numbers();
            let mut faults = Vec::new();
            for panel in panels(board) {
                for step in all_steps(panel) {
                    let Some(value) = step["value"].as_f64() else { continue };
                    let agrees =
                        value == 0.0 || known.iter().any(|known| (known - value).abs() < 1e-9 * known.abs().max(1e-3));
                    if !agrees {
                        faults.push(format!(
                            "{}: {} from {value} on, where no alert fires",
                            panel["title"], step["color"]
                        ));
                    }
                }
            }
            faults
        },
        &[|board| board["panels"][1]["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"] = 0.87.into()],
    );
}

// --- Queries ---

#[test]
fn nothing_is_made_zero_that_is_not_there() {
    keeps_alone(
        |board| {
            let zero = |expr: &Expr| match bare(expr) {
                Expr::Call(call) if call.func.name == "vector" => {
                    call.args.args.first().is_some_and(|arg| constant(arg) == Some(0.0))
                }
                _ => false,
            };
            let all = queries(board).into_iter();
            all.filter(|(_, expr)| nodes(expr).iter().any(|(_, node)| zero(node))).map(|(place, _)| place).collect()
        },
        with_expr!("sum(golden_inflight_requests) or vector(0)"),
    );
}

#[test]
fn no_edge_of_a_histogram_is_asked_for_by_its_spelling() {
    keeps_alone(
        |board| {
            let mut faults = Vec::new();
            for (place, expr) in queries(board) {
                let edges = selectors(&expr).into_iter().flat_map(matchers).filter(|matcher| matcher.name == "le");
                // `le=""` and `le!=""` tell kinds of histograms apart.
                faults.extend(edges.filter(|matcher| !matcher.value.is_empty()).map(|edge| format!("{place}: {edge}")));
            }
            faults
        },
        with_expr!(r#"rate(http_server_request_duration_seconds_bucket{le="0.5"}[1m])"#),
    );
}

#[test]
fn no_number_jumps_from_scrape_to_scrape() {
    keeps_alone(
        |board| {
            let stats = panels(board).into_iter().filter(|panel| panel["type"] != "timeseries");
            let jumpy =
                stats.filter(|panel| targets(panel).iter().any(|target| text(&target["expr"]).contains("irate(")));
            jumpy.map(|panel| panel["title"].to_string()).collect()
        },
        |board| board["panels"][1]["targets"][0]["expr"] = "sum(irate(golden_requests_total[$__rate_interval]))".into(),
    );
}

#[test]
fn no_line_appears_and_vanishes_with_its_rank() {
    keeps_alone(
        |board| {
            let mut faults = Vec::new();
            for panel in panels(board) {
                for target in targets(panel).iter().filter(|target| target["instant"] != true) {
                    let Ok(expr) = parse(&Substitution::default().apply(text(&target["expr"]))) else { continue };
                    let ranked = nodes(&expr)
                        .into_iter()
                        .any(|(_, node)| ["topk", "bottomk", "limitk"].contains(&name(node).as_str()));
                    if ranked {
                        faults.push(format!("{}: the ranking of each moment is another one", panel["title"]));
                    }
                }
            }
            faults
        },
        with_expr!("topk(5, sum by (http_route) (rate(golden_requests_total[$__rate_interval])))"),
    );
}

#[test]
fn every_variable_in_a_query_is_one_of_the_page() {
    /// Grafana's own.
    const BUILT_IN: [&str; 4] = ["__rate_interval", "__interval", "__range", "__range_s"];
    keeps(
        |board| {
            let known: Vec<&str> = variables(board).iter().map(|variable| text(&variable["name"])).collect();
            let mut faults = Vec::new();
            for target in panels(board).into_iter().flat_map(targets) {
                for part in text(&target["expr"]).split('$').skip(1) {
                    let part = part.strip_prefix('{').unwrap_or(part);
                    let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
                    let name = &part[..end];
                    if !name.is_empty() && !known.contains(&name) && !BUILT_IN.contains(&name) {
                        faults.push(format!("${name} is no variable"));
                    }
                }
            }
            faults
        },
        &[with_expr!(r#"sum(golden_inflight_requests{http_route="$route"})"#)],
    );
}

// --- Words ---

#[test]
fn every_description_says_what_is_normal_and_what_to_do() {
    keeps(
        |board| {
            let mut faults = Vec::new();
            for panel in panels(board) {
                let description = text(&panel["description"]);
                let after = |mark: &str| description.split_once(mark).map_or("", |(_, after)| after);
                for (mark, words_min) in [("**Normal:** ", 1), ("**Otherwise:** ", 3)] {
                    let said = after(mark).split("\n\n").next().unwrap_or_default();
                    if said.split_whitespace().count() < words_min {
                        faults.push(format!("{}: nothing after {mark}", panel["title"]));
                    }
                }
                if description.split("\n\n").next().is_none_or(|first| first.starts_with("**") || first.is_empty()) {
                    faults.push(format!("{}: it does not say what it shows", panel["title"]));
                }
            }
            faults
        },
        &[
            |board| board["panels"][0]["description"] = "Requests per second.".into(),
            |board| board["panels"][0]["description"] = "It.\n\n**Normal:** Yes.\n\n**Otherwise:** ".into(),
            |board| board["panels"][0]["description"] = "**Normal:** Yes.\n\n**Otherwise:** Do this or that.".into(),
        ],
    );
}

#[test]
fn legends_are_names_and_never_raw_label_sets() {
    keeps(
        |board| {
            let mut faults = Vec::new();
            for panel in panels(board) {
                for target in targets(panel).iter().filter(|target| target["format"] != "table") {
                    let legend = text(&target["legendFormat"]);
                    if legend.trim().is_empty() || legend.contains("__auto") {
                        faults.push(format!("{} {}: {legend:?}", panel["title"], target["refId"]));
                    }
                }
            }
            faults
        },
        &[
            |board| board["panels"][0]["targets"][0]["legendFormat"] = "".into(),
            |board| board["panels"][0]["targets"][0]["legendFormat"] = "__auto".into(),
        ],
    );
}

#[test]
fn series_of_one_panel_can_be_told_apart() {
    keeps(
        |board| {
            let mut faults = Vec::new();
            for panel in panels(board) {
                let shown = targets(panel).iter().filter(|target| target["format"] != "table");
                let legends: Vec<&str> = shown.map(|target| text(&target["legendFormat"])).collect();
                if legends.iter().collect::<BTreeSet<_>>().len() != legends.len() {
                    faults.push(format!("{}: {legends:?}", panel["title"]));
                }
                let ids: Vec<&str> = targets(panel).iter().map(|target| text(&target["refId"])).collect();
                if ids.iter().collect::<BTreeSet<_>>().len() != ids.len() {
                    faults.push(format!("{}: {ids:?}", panel["title"]));
                }
            }
            faults
        },
        &[|board| {
            let target = board["panels"][0]["targets"][0].clone();
            board["panels"][0]["targets"].as_array_mut().unwrap().push(target);
        }],
    );
}

// --- Places ---

/// Rows of the grid that a 1440 by 900 screen shows below Grafana's own bars: 38 pixels each.
const FOLD: u64 = 20;

#[test]
fn no_more_than_twelve_panels_stand_above_the_fold_of_the_overview() {
    let above = |board: &Json| {
        let direct = list(&board["panels"]).iter();
        direct.filter(|panel| panel["type"] != "row" && panel["gridPos"]["y"].as_u64() < Some(FOLD)).count()
    };
    let boards = boards();
    let overview = boards.iter().find(|board| board.json["uid"] == "golden-sidecar-overview").expect("an overview");
    assert!((1..=12).contains(&above(&overview.json)), "{}", above(&overview.json));
    let mut crowded = sample();
    for _ in 0..12 {
        let panel = crowded["panels"][0].clone();
        crowded["panels"].as_array_mut().unwrap().push(panel);
    }
    assert_eq!(above(&crowded), 14);
}

/// Whether two places share a cell.
fn overlap(a: &Json, b: &Json) -> bool {
    let edge = |place: &Json, at: &str, size: &str| {
        let start = place[at].as_u64().expect("a number");
        (start, start + place[size].as_u64().expect("a number"))
    };
    let apart = |at: &str, size: &str| {
        let ((a_from, a_to), (b_from, b_to)) = (edge(a, at, size), edge(b, at, size));
        a_to <= b_from || b_to <= a_from
    };
    !apart("x", "w") && !apart("y", "h")
}

#[test]
fn panels_lie_within_the_grid_and_beside_each_other() {
    keeps(
        |board| {
            let mut faults = Vec::new();
            let direct: Vec<&Json> = list(&board["panels"]).iter().collect();
            let closed = direct.iter().map(|row| list(&row["panels"]).iter().collect::<Vec<_>>());
            for together in std::iter::once(direct.clone()).chain(closed) {
                for (at, panel) in together.iter().enumerate() {
                    let place = &panel["gridPos"];
                    let (x, w) = (place["x"].as_u64(), place["w"].as_u64());
                    if x.zip(w).is_none_or(|(x, w)| w == 0 || x + w > 24) || place["h"].as_u64().is_none_or(|h| h == 0)
                    {
                        faults.push(format!("{}: {place} is no place", panel["title"]));
                        continue;
                    }
                    let over = together[..at].iter().filter(|other| overlap(&other["gridPos"], place));
                    faults.extend(over.map(|other| format!("{} over {}", panel["title"], other["title"])));
                }
            }
            faults
        },
        &[
            |board| board["panels"][1]["gridPos"]["x"] = 11.into(),
            |board| board["panels"][1]["gridPos"]["w"] = 13.into(),
        ],
    );
}

// --- The file ---

#[test]
fn ids_of_panels_are_unique() {
    keeps_alone(
        |board| {
            let direct = list(&board["panels"]).iter();
            let all = direct.flat_map(|panel| std::iter::once(panel).chain(list(&panel["panels"])));
            let mut seen = BTreeSet::new();
            all.filter(|panel| !panel["id"].is_u64() || !seen.insert(panel["id"].to_string()))
                .map(|panel| format!("{}: {}", panel["title"], panel["id"]))
                .collect()
        },
        |board| board["panels"][1]["id"] = 1.into(),
    );
}

#[test]
fn a_file_imports_cleanly_everywhere() {
    keeps(
        |board| {
            let uid = text(&board["uid"]);
            let plain = uid.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            let expected = [
                ("schemaVersion is 39", board["schemaVersion"] == 39),
                ("no __inputs", board["__inputs"].is_null()),
                ("no __elements", board["__elements"].is_null()),
                ("id is there and null", board.get("id").is_some_and(Json::is_null)),
                ("uid is fixed", uid.starts_with("golden-sidecar-") && plain && uid.len() <= 40),
                ("version is 1", board["version"] == 1),
                ("no row or panel repeats", !board.to_string().contains("\"repeat\"")),
                ("no library panel", !board.to_string().contains("\"libraryPanel\"")),
                ("tagged", list(&board["tags"]).iter().any(|tag| tag == "golden-sidecar")),
            ];
            expected.iter().filter(|(_, holds)| !holds).map(|(what, _)| (*what).to_owned()).collect()
        },
        &[
            |board| board["schemaVersion"] = 42.into(),
            |board| board["__inputs"] = json!([]),
            |board| board["id"] = 7.into(),
            |board| drop(board.as_object_mut().unwrap().remove("id")),
            |board| board["uid"] = "golden-sidecar-with-a-name-that-is-too-long".into(),
            |board| board["panels"][0]["repeat"] = "route".into(),
        ],
    );
    let boards = boards();
    let uids: BTreeSet<_> = boards.iter().map(|board| text(&board.json["uid"])).collect();
    assert_eq!(uids.len(), boards.len(), "a uid for each");
    for board in &boards {
        // One ConfigMap holds 1 MiB, and what kubectl notes of it 256 KiB.
        assert!(board.text.len() < 200_000, "{}: {} bytes", board.path, board.text.len());
    }
}

#[test]
fn only_panels_that_grafana_brings_along_are_used() {
    keeps_alone(
        |board| {
            const CORE: [&str; 8] = ["stat", "timeseries", "table", "bargauge", "gauge", "heatmap", "text", "row"];
            let direct = list(&board["panels"]).iter();
            let all = direct.flat_map(|panel| std::iter::once(panel).chain(list(&panel["panels"])));
            all.filter(|panel| !CORE.contains(&text(&panel["type"]))).map(|panel| panel["type"].to_string()).collect()
        },
        |board| board["panels"][0]["type"] = "graph".into(),
    );
}

#[test]
fn variables_remember_nothing_of_where_they_were_chosen() {
    keeps_alone(
        |board| {
            let chosen = variables(board).iter().filter(|variable| {
                let current = &variable["current"];
                let none = current.is_null() || current == &json!({});
                !none && current["value"] != json!(["$__all"]) && current["value"] != "$__all"
            });
            chosen.map(|variable| format!("{}: {}", variable["name"], variable["current"])).collect()
        },
        |board| board["templating"]["list"][1]["current"] = json!({"text": ["shop"], "value": ["shop"]}),
    );
}

/// The uids of all dashboards that any text of this one leads to.
fn links(json: &Json, out: &mut Vec<String>) {
    match json {
        Json::String(text) => {
            for rest in text.split("/d/").skip(1) {
                out.push(rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect());
            }
        }
        Json::Array(list) => list.iter().for_each(|value| links(value, out)),
        Json::Object(map) => map.values().for_each(|value| links(value, out)),
        _ => {}
    }
}

#[test]
fn every_link_leads_to_a_dashboard_of_the_pack() {
    keeps(
        |board| {
            let mut uids: Vec<String> = boards().iter().map(|board| text(&board.json["uid"]).to_owned()).collect();
            uids.push("golden-sidecar-sample".into());
            let mut found = Vec::new();
            links(board, &mut found);
            found.retain(|uid| !uids.contains(uid));
            // And it is one that keeps the time.
            let direct = panels(board).into_iter().flat_map(|panel| list(&panel["links"]));
            found.extend(
                direct.filter(|link| !text(&link["url"]).contains("${__url_time_range}")).map(|l| l.to_string()),
            );
            found
        },
        &[
            |board| board["panels"][0]["links"][0]["url"] = "/d/golden-sidecar-nowhere?${__url_time_range}".into(),
            |board| board["panels"][0]["links"][0]["url"] = "/d/golden-sidecar-sample".into(),
        ],
    );
}
