//! What recording rules and alerts must be: the offline checks of the usual linters of rule files, and what promtool cannot
//! see. All of them read the rule file as Prometheus does.

use std::collections::{BTreeMap, BTreeSet};

use golden_sidecar::pack::alerts::suites;
use golden_sidecar::pack::cases::{Case, EVERY, Shows};
use promql_parser::label::MatchOp;
use promql_parser::parser::{BinaryExpr, Expr, LabelModifier, Offset};

use crate::assert_none;
use crate::common::files::{self, Group, Rule, RuleFile, below, boards, panels, rules, seconds, targets, text};
use crate::common::promql::{
    Substitution, bare, children, constant, is_literal, is_scalar, matchers, metric_names, name, nodes, parse,
    selector, selectors,
};
use crate::vocabulary::Vocabulary;

/// Faults of a rule file.
type Check = fn(&RuleFile) -> Vec<String>;

/// Labels that tell one service from another: an alert without them goes to the wrong people.
const REQUIRED: [&str; 3] = ["cluster", "namespace", "job"];

/// A scrape a minute is the longest usual interval, so two of them are the shortest range that has two samples.
const RANGE_SECONDS_MIN: u64 = 120;

/// The rule file keeps the rule, a sound one too, and each of these groups (in YAML) does not.
#[track_caller]
fn keeps(check: Check, broken: &[&str]) {
    assert_none(&check(&rules()));
    assert_eq!(check(&group(SOUND)), Vec::<String>::new(), "the sound rules are right");
    assert!(!broken.is_empty(), "a check that cannot fail says nothing");
    for rules in broken {
        assert!(!check(&group(rules)).is_empty(), "nothing is found in {rules}");
    }
}

/// Rules that keep every rule.
const SOUND: &str = "
- record: job:golden_requests:rate5m
  expr: sum by (cluster, namespace, job) (rate(golden_requests_total[5m]))
- record: job:golden_errors:ratio_rate5m
  expr: sum by (cluster, namespace, job) (rate(golden_errors_total[5m])) / (job:golden_requests:rate5m > 0)
- alert: GoldenErrorsHigh
  expr: job:golden_errors:ratio_rate5m > 0.5
  for: 5m
  keep_firing_for: 10m
  labels: {severity: warning}
  annotations:
    summary: Many requests fail.
    description: '{{ $value | humanizePercentage }} of the requests of {{ $labels.job }} fail.'
    runbook_url: https://example.com/docs/runbooks/GoldenErrorsHigh.md
- alert: GoldenGone
  expr: absent(up{job=\"shop\"})
  for: 5m
  labels: {severity: critical}
  annotations:
    summary: Nobody is there.
    description: Nobody scrapes {{ $labels.job }}.
    runbook_url: https://example.com/docs/runbooks/GoldenGone.md
";

/// One group of these rules.
fn group(rules: &str) -> RuleFile {
    let rules: String = rules.trim_matches('\n').lines().map(|line| format!("      {line}\n")).collect();
    files::rules_of(&format!("groups:\n  - name: g\n    interval: 1m\n    rules:\n{rules}"))
}

/// One alert of this expression, with these further lines.
macro_rules! alert {
    ($expr:literal) => {
        concat!("- alert: GoldenX\n  expr: '", $expr, "'")
    };
    ($expr:literal, $lines:literal) => {
        concat!("- alert: GoldenX\n  expr: '", $expr, "'\n  ", $lines)
    };
}

fn all(file: &RuleFile) -> impl Iterator<Item = &Rule> {
    file.groups.iter().flat_map(|group| &group.rules)
}

fn alerts(file: &RuleFile) -> impl Iterator<Item = &Rule> {
    all(file).filter(|rule| !rule.alert.is_empty())
}

fn label(rule: &Rule) -> String {
    format!("{}{}", rule.alert, rule.record)
}

/// Each rule with its tree.
fn trees(file: &RuleFile) -> Vec<(&Rule, Expr)> {
    all(file).filter_map(|rule| Some((rule, parse(&rule.expr).ok()?))).collect()
}

/// What a function finds in each node of each rule, with the nodes above it.
fn in_nodes(file: &RuleFile, mut find: impl FnMut(&[&Expr], &Expr) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for (rule, expr) in trees(file) {
        let found = nodes(&expr).into_iter().filter_map(|(above, node)| find(&above, node));
        faults.extend(found.map(|fault| format!("{}: {fault}", label(rule))));
    }
    faults
}

// --- Expressions ---

#[test]
fn every_expression_parses() {
    keeps(
        |file| all(file).filter_map(|rule| Some(format!("{}: {}", label(rule), parse(&rule.expr).err()?))).collect(),
        &[alert!("sum(up"), alert!("up >")],
    );
}

/// Whether it has a value only while something is the case.
fn is_condition(expr: &Expr) -> bool {
    match bare(expr) {
        Expr::Binary(binary) => match binary.op.to_string().as_str() {
            "and" => is_condition(&binary.lhs) || is_condition(&binary.rhs),
            "or" => is_condition(&binary.lhs) && is_condition(&binary.rhs),
            "unless" => true,
            _ if binary.op.is_comparison_operator() => !binary.return_bool(),
            _ => is_condition(&binary.lhs) || is_condition(&binary.rhs),
        },
        Expr::Call(call) => {
            ["absent", "absent_over_time"].contains(&call.func.name)
                || call.args.args.iter().any(|arg| is_condition(arg))
        }
        Expr::Aggregate(aggregate) => is_condition(&aggregate.expr),
        Expr::Subquery(subquery) => is_condition(&subquery.expr),
        Expr::VectorSelector(selector) => selector.name.as_deref() == Some("ALERTS"),
        _ => false,
    }
}

#[test]
fn an_alert_that_looks_at_something_has_a_condition() {
    keeps(
        |file| {
            let bad = trees(file).into_iter().filter(|(rule, expr)| {
                // What always fires reads nothing, and says so.
                !rule.alert.is_empty() && !is_condition(expr) && !selectors(expr).is_empty()
            });
            bad.map(|(rule, _)| label(rule)).collect()
        },
        &[alert!("up"), alert!("up == bool 0"), alert!("up == 0 or up"), alert!("sum(rate(golden_errors_total[5m]))")],
    );
}

/// Whether a selector is one side of `X unless X offset D`: what a counter has counted that did not exist that long ago. No
/// rate can see that, because a series begins with it.
fn is_new(above: &[&Expr], node: &Expr) -> bool {
    let unless = above.iter().rev().find(|parent| !is_comparison(parent)).copied();
    let Some(Expr::Binary(binary)) = unless.filter(|parent| name(parent) == "unless") else { return false };
    let side = |side: &Expr| match bare(side) {
        Expr::Binary(compared) if constant(&compared.rhs).is_some() => selector(bare(&compared.lhs)).cloned(),
        side => selector(side).cloned(),
    };
    let (Some(now), Some(mut then)) = (side(&binary.lhs), side(&binary.rhs)) else { return false };
    let ago = then.offset.take();
    let own = selector(node).map(|own| &own.name);
    now == then && matches!(ago, Some(Offset::Pos(_))) && own == Some(&now.name)
}

fn is_comparison(expr: &Expr) -> bool {
    match expr {
        Expr::Paren(_) => true,
        Expr::Binary(binary) => binary.op.is_comparison_operator() && constant(&binary.rhs).is_some(),
        _ => false,
    }
}

#[test]
fn counters_are_asked_how_fast_they_rise_and_nothing_else() {
    keeps(
        |file| {
            let vocabulary = Vocabulary::real();
            in_nodes(file, |above, node| {
                let counter = metric_names(selector(node)?).iter().any(|series| vocabulary.is_counter(series));
                let within = above.last().map(|parent| name(parent)).unwrap_or_default();
                let may = ["rate", "irate", "increase", "resets", "absent", "absent_over_time", "timestamp"];
                (counter && !may.contains(&within.as_str()) && !is_new(above, node)).then(|| node.to_string())
            })
        },
        &[
            alert!("golden_errors_total > 5"),
            alert!("delta(golden_errors_total[5m]) > 5"),
            alert!("sum(http_server_request_duration_seconds_count) > 5"),
            alert!("golden_errors_total > 5 unless golden_requests_total offset 10m"),
            alert!("golden_errors_total > 5 unless golden_errors_total"),
        ],
    );
}

#[test]
fn nothing_but_a_counter_is_asked_how_fast_it_rises() {
    keeps(
        |file| {
            let vocabulary = Vocabulary::real();
            in_nodes(file, |above, node| {
                let series = metric_names(selector(node)?);
                let within = above.last().map(|parent| name(parent)).unwrap_or_default();
                let rising = ["rate", "irate", "increase"].contains(&within.as_str());
                let gauge = series.iter().any(|series| !vocabulary.is_counter(series));
                (rising && gauge).then(|| format!("{within} of {node}, which is no counter"))
            })
        },
        &[alert!("rate(golden_backend_fds[5m]) > 1")],
    );
}

#[test]
fn ranges_hold_two_scrapes_at_least() {
    keeps(
        |file| {
            in_nodes(file, |_, node| {
                let Expr::MatrixSelector(matrix) = node else { return None };
                (matrix.range.as_secs() < RANGE_SECONDS_MIN).then(|| node.to_string())
            })
        },
        &[alert!("rate(golden_errors_total[1m]) > 1"), alert!("changes(golden_build_info[30s]) > 1")],
    );
}

#[test]
fn what_is_aggregated_keeps_the_labels_that_tell_services_apart() {
    keeps(
        |file| {
            in_nodes(file, |_, node| {
                let Expr::Aggregate(aggregate) = node else { return None };
                let lost: Vec<_> = REQUIRED
                    .into_iter()
                    .filter(|label| match &aggregate.modifier {
                        None => true,
                        Some(LabelModifier::Include(by)) => !by.labels.iter().any(|kept| kept == label),
                        Some(LabelModifier::Exclude(without)) => without.labels.iter().any(|gone| gone == label),
                    })
                    .collect();
                (!lost.is_empty()).then(|| format!("{node} loses {}", lost.join(", ")))
            })
        },
        &[
            alert!("sum(golden_inflight_requests) > 5"),
            alert!("sum by (job) (golden_inflight_requests) > 5"),
            alert!("max without (namespace) (golden_inflight_requests) > 5"),
        ],
    );
}

#[test]
fn every_alert_says_whose_it_is() {
    keeps(
        |file| {
            let vocabulary = Vocabulary::new(file);
            let bad = trees(file).into_iter().filter(|(rule, expr)| {
                let silent = selectors(expr).is_empty();
                !rule.alert.is_empty() && !silent && !vocabulary.check(expr).0.contains("job")
            });
            bad.map(|(rule, _)| format!("{} has no job", label(rule))).collect()
        },
        &[alert!("sum(up) == 0"), alert!("absent(up)")],
    );
}

/// Patterns that match one text, of rules and of dashboards. A variable stands for a pattern.
fn literal_patterns(expr: &Expr) -> Vec<String> {
    let all = selectors(expr).into_iter().flat_map(matchers);
    let literal = all.filter(|matcher| match matcher.op {
        MatchOp::Re(_) | MatchOp::NotRe(_) => is_literal(&matcher.value),
        _ => false,
    });
    literal.map(ToString::to_string).collect()
}

#[test]
fn what_can_be_compared_is_not_matched() {
    keeps(
        |file| {
            let found = trees(file).into_iter().flat_map(|(rule, expr)| {
                literal_patterns(&expr)
                    .into_iter()
                    .map(|pattern| format!("{}: {pattern}", label(rule)))
                    .collect::<Vec<_>>()
            });
            found.collect()
        },
        &[alert!("golden_saturation_ratio{resource=~\"cpu\"} > 1"), alert!("up{job!~\"a\"} > 1")],
    );
    let mut faults = Vec::new();
    for board in boards() {
        for target in panels(&board.json).into_iter().flat_map(targets) {
            let Ok(expr) = parse(&Substitution::default().apply(text(&target["expr"]))) else { continue };
            faults.extend(literal_patterns(&expr).into_iter().map(|pattern| format!("{}: {pattern}", board.path)));
        }
    }
    assert_none(&faults);
}

#[test]
fn both_sides_of_an_operator_can_match() {
    keeps(
        |file| {
            let vocabulary = Vocabulary::new(file);
            let found = trees(file).into_iter().flat_map(|(rule, expr)| {
                vocabulary
                    .check(&expr)
                    .1
                    .into_iter()
                    .map(|fault| format!("{}: {fault}", label(rule)))
                    .collect::<Vec<_>>()
            });
            found.collect()
        },
        &[
            alert!("golden_pool_connections > golden_pool_limit"),
            alert!("sum by (job) (up) > up"),
            alert!("up > on (slo) golden_slo_objective_ratio"),
            alert!("sum by (job) (up) * on (instance) group_left (version) golden_build_info > 1"),
        ],
    );
}

/// Whether a divisor can be 0: a rate or a count that nothing guards.
fn can_be_zero(expr: &Expr) -> bool {
    if is_scalar(expr) || constant(expr).is_some() || is_condition(expr) {
        return false;
    }
    nodes(expr).iter().any(|(_, node)| {
        let rising = ["rate", "irate", "increase", "count_over_time"].contains(&name(node).as_str());
        // What is recorded of rates is one.
        let recorded = selector(node).is_some_and(|selector| metric_names(selector).iter().any(|n| n.contains(':')));
        rising || recorded
    })
}

#[test]
fn nothing_is_divided_by_what_can_be_zero() {
    keeps(
        |file| {
            in_nodes(file, |_, node| {
                let Expr::Binary(BinaryExpr { op, rhs, .. }) = node else { return None };
                (op.to_string() == "/" && can_be_zero(rhs)).then(|| format!("0/0 where nothing came: {node}"))
            })
        },
        &[
            alert!(
                "sum by (cluster, namespace, job) (rate(golden_errors_total[5m])) / sum by (cluster, namespace, job) (rate(golden_requests_total[5m])) > 1"
            ),
            alert!("max by (cluster, namespace, job) (golden_inflight_requests / rate(golden_requests_total[5m])) > 1"),
        ],
    );
}

// --- Times ---

#[test]
fn times_are_times() {
    keeps(
        |file| {
            let mut faults = Vec::new();
            for rule in all(file) {
                for time in [&rule.hold, &rule.keep_firing_for].into_iter().filter(|time| !time.is_empty()) {
                    if seconds(time).is_none_or(|seconds| seconds <= 0.0) {
                        faults.push(format!("{}: {time}", label(rule)));
                    }
                }
            }
            faults
        },
        &[alert!("up == 0", "for: 5 minutes"), alert!("up == 0", "for: 0m"), alert!("up == 0", "keep_firing_for: 5")],
    );
}

#[test]
fn groups_are_evaluated_every_five_minutes_at_least() {
    let check = |groups: &[Group]| -> Vec<String> {
        let bad = groups.iter().filter(|group| seconds(&group.interval).is_none_or(|s| !(1.0..=300.0).contains(&s)));
        let mut faults: Vec<String> = bad.map(|group| format!("{}: {}", group.name, group.interval)).collect();
        let names: BTreeSet<_> = groups.iter().map(|group| &group.name).collect();
        if names.len() != groups.len() {
            faults.push("two groups of one name".into());
        }
        faults
    };
    assert_none(&check(&rules().groups));
    let sound = group(SOUND).groups.remove(0);
    assert_none(&check(std::slice::from_ref(&sound)));
    for interval in ["6m", "", "often"] {
        assert!(!check(&[Group { interval: interval.into(), ..sound.clone() }]).is_empty(), "{interval}");
    }
    assert!(!check(&[sound.clone(), sound]).is_empty());
}

#[test]
fn what_flickers_must_hold_for_a_while() {
    keeps(
        |file| {
            let mut faults = Vec::new();
            for (rule, expr) in
                trees(file).into_iter().filter(|(rule, _)| !rule.alert.is_empty() && rule.hold.is_empty())
            {
                for (_, node) in nodes(&expr) {
                    let ranked = ["topk", "bottomk", "limitk"].contains(&name(node).as_str());
                    let ratio = match node {
                        Expr::Binary(binary) => name(node) == "/" && constant(&binary.rhs).is_none(),
                        _ => false,
                    };
                    if ranked || ratio {
                        faults.push(format!("{}: {node}", label(rule)));
                    }
                }
            }
            faults
        },
        &[alert!("topk(1, up) == 0"), alert!("golden_backend_fds / on (job, instance) golden_backend_threads > 1")],
    );
}

#[test]
fn absence_must_outlast_a_restart_of_the_server() {
    keeps(
        |file| {
            let mut faults = Vec::new();
            for (rule, expr) in trees(file).into_iter().filter(|(rule, _)| !rule.alert.is_empty()) {
                let absent = nodes(&expr).iter().any(|(_, node)| name(node).starts_with("absent"));
                if absent && seconds(&rule.hold).is_none_or(|hold| hold < RANGE_SECONDS_MIN as f64) {
                    faults.push(label(rule));
                }
            }
            faults
        },
        &[alert!("absent(up{job=\"a\"})"), alert!("absent_over_time(up{job=\"a\"}[5m])", "for: 1m")],
    );
}

// --- The order, the names ---

#[test]
fn no_rule_is_there_twice() {
    keeps(
        |file| {
            let mut seen = BTreeSet::new();
            let mut faults = Vec::new();
            for rule in all(file) {
                let same = (&rule.alert, &rule.record, rule.expr.split_whitespace().collect::<String>());
                if !seen.insert(format!("{same:?}")) {
                    faults.push(format!("{}: the same expression again", label(rule)));
                }
                let recorded = !rule.record.is_empty() && !seen.insert(rule.record.clone());
                let alerted = !rule.alert.is_empty() && !seen.insert(format!("{} {:?}", rule.alert, rule.labels));
                if recorded || alerted {
                    faults.push(format!("{}: the same series again", label(rule)));
                }
            }
            faults
        },
        &[
            "- {alert: A, expr: up == 0}\n- {alert: A, expr: up  == 0, labels: {severity: critical}}",
            "- {record: 'a:b:c', expr: up}\n- {record: 'a:b:c', expr: up * 2}",
            "- {alert: A, expr: up == 0}\n- {alert: A, expr: up == 1}",
        ],
    );
}

#[test]
fn what_is_read_was_recorded_before() {
    keeps(
        |file| {
            let mut recorded = BTreeSet::new();
            let mut faults = Vec::new();
            for (rule, expr) in trees(file) {
                for series in selectors(&expr).into_iter().flat_map(metric_names).filter(|series| series.contains(':'))
                {
                    if !recorded.contains(&series) {
                        faults.push(format!("{}: {series} is not recorded before it", label(rule)));
                    }
                }
                recorded.insert(rule.record.clone());
            }
            faults
        },
        &[
            "- {alert: A, expr: 'job:a:b > 1'}",
            "- {alert: A, expr: 'job:up:sum > 1'}\n- {record: 'job:up:sum', expr: sum by (job) (up)}",
        ],
    );
}

#[test]
fn recorded_series_are_named_by_level_metric_and_operations() {
    keeps(
        |file| {
            let vocabulary = Vocabulary::new(file);
            let mut faults = Vec::new();
            for rule in all(file).filter(|rule| !rule.record.is_empty()) {
                let parts: Vec<&str> = rule.record.split(':').collect();
                let plain = |part: &&str| {
                    !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                };
                if parts.len() != 3 || !parts.iter().all(plain) {
                    faults.push(format!("{}: not level:metric:operations", rule.record));
                    continue;
                }
                if parts[1].ends_with("_total") || parts[1].ends_with("_bucket") {
                    faults.push(format!("{}: rates have no such suffix", rule.record));
                }
                // The level is what tells its series apart, besides where the service runs.
                let labels = vocabulary.labels(&rule.record).unwrap_or_default();
                let labels: Vec<&String> =
                    labels.iter().filter(|label| *label != "cluster" && *label != "namespace").collect();
                let level: String = parts[0].split('_').collect();
                let mut rest = level.clone();
                for label in &labels {
                    let short = label.strip_prefix("http_").unwrap_or(label).replace('_', "");
                    rest = rest.replacen(&label.replace('_', ""), "", 1).replacen(&short, "", 1);
                }
                if !rest.is_empty() || labels.is_empty() {
                    faults.push(format!("{}: its labels are {labels:?}", rule.record));
                }
                let short_of = |label: &str| label.strip_prefix("http_").unwrap_or(label).replace('_', "");
                // An instance is one of a job.
                let implied = |label: &str| label == "job" && level.contains("instance");
                let unnamed = labels.iter().filter(|label| !level.contains(&short_of(label)) && !implied(label));
                let unnamed: Vec<_> = unnamed.collect();
                if !unnamed.is_empty() {
                    faults.push(format!("{}: its level does not name {unnamed:?}", rule.record));
                }
            }
            faults
        },
        &[
            "- {record: golden_requests_5m, expr: sum by (job) (up)}",
            "- {record: 'job:golden_requests_total:rate5m', expr: sum by (job) (up)}",
            "- {record: 'job_slo:up:sum', expr: sum by (job) (up)}",
            "- {record: 'job:up:sum', expr: 'sum by (job, instance) (up)'}",
            "- {record: 'Job:up:sum', expr: sum by (job) (up)}",
        ],
    );
}

#[test]
fn alerts_are_named_as_what_they_tell() {
    keeps(
        |file| {
            let camel = |name: &str| {
                name.strip_prefix("Golden").is_some_and(|rest| {
                    rest.starts_with(|c: char| c.is_ascii_uppercase())
                        && rest.chars().all(|c| c.is_ascii_alphanumeric())
                })
            };
            alerts(file).filter(|rule| !camel(&rule.alert)).map(label).collect()
        },
        &["- {alert: ErrorsHigh, expr: up == 0}", "- {alert: Golden_errors, expr: up == 0}"],
    );
}

// --- Words ---

/// Functions and words that Prometheus has in templates and that we use.
const FUNCTIONS: [&str; 10] = [
    "humanize",
    "humanizePercentage",
    "humanizeDuration",
    "humanizeTimestamp",
    "humanize1024",
    "printf",
    "with",
    "if",
    "else",
    "end",
];

/// What is wrong with a template; `labels` are those of the result.
fn template_faults(template: &str, labels: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        let Some(end) = rest[at..].find("}}") else {
            faults.push(format!("braces that do not end: {template}"));
            break;
        };
        let inner = rest[at + 2..at + end].trim();
        for word in inner.split(['|', ' ']).filter(|word| !word.is_empty()) {
            let text = word.starts_with('"');
            let label = word.strip_prefix("$labels.");
            if let Some(label) = label {
                if !labels.contains(label) {
                    faults.push(format!("there is no label {label}: {template}"));
                }
            } else if !["$value", "."].contains(&word) && !text && !FUNCTIONS.contains(&word) {
                faults.push(format!("{word:?} is nothing: {template}"));
            }
        }
        rest = &rest[at + end + 2..];
    }
    if rest.contains("}}") {
        faults.push(format!("braces that do not begin: {template}"));
    }
    faults
}

#[test]
fn templates_name_labels_that_are_there() {
    keeps(
        |file| {
            let vocabulary = Vocabulary::new(file);
            let mut faults = Vec::new();
            for (rule, expr) in trees(file) {
                // Labels of the rule itself are added after the templates are filled in.
                let labels = vocabulary.check(&expr).0;
                let all = rule.annotations.values().chain(rule.labels.values());
                let found = all.flat_map(|template| template_faults(template, &labels));
                faults.extend(found.map(|fault| format!("{}: {fault}", label(rule))));
            }
            faults
        },
        &[
            alert!("up == 0", "annotations: {summary: \"{{ $labels.pod }} is down\"}"),
            alert!("up == 0", "annotations: {summary: \"{{ $labels.job is down\"}"),
            alert!("up == 0", "annotations: {summary: \"{{ $value | percent }} is down\"}"),
            alert!("sum(up) == 0", "annotations: {summary: \"{{ $labels.job }} is down\"}"),
            alert!("up == 0", "labels: {team: \"{{ $labels.team }}\"}"),
        ],
    );
}

#[test]
fn no_label_holds_a_value() {
    keeps(
        |file| {
            let with = |template: &String| template.contains("$value") || template.contains(".Value");
            alerts(file).filter(|rule| rule.labels.values().any(with)).map(label).collect()
        },
        &[
            alert!("up == 0", "labels: {level: \"{{ $value }}\"}"),
            alert!("up == 0", "labels: {level: \"{{ .Value }}\"}"),
        ],
    );
}

#[test]
fn every_alert_has_a_severity_a_summary_a_description_and_a_runbook() {
    keeps(
        |file| {
            let mut faults = Vec::new();
            for rule in alerts(file) {
                let annotation = |name: &str| rule.annotations.get(name).map_or("", String::as_str);
                let severity = rule.labels.get("severity").map_or("", String::as_str);
                let holds = [
                    ("a severity", ["critical", "warning", "info", "none"].contains(&severity)),
                    ("a summary without numbers", {
                        let summary = annotation("summary");
                        summary.ends_with('.') && !summary.contains("$value")
                    }),
                    ("a description", annotation("description").len() > 20),
                    ("its runbook", {
                        let url = annotation("runbook_url");
                        url.starts_with("https://") && url.ends_with(&format!("/docs/runbooks/{}.md", rule.alert))
                    }),
                    ("no other annotation", rule.annotations.len() == 3),
                ];
                let missing = holds.iter().filter(|(_, holds)| !holds);
                faults.extend(missing.map(|(what, _)| format!("{} needs {what}", rule.alert)));
            }
            faults
        },
        &[
            alert!("up == 0"),
            alert!("up == 0", "labels: {severity: page}"),
            alert!("up == 0", "annotations: {summary: \"{{ $value }}.\"}"),
        ],
    );
}

// --- Proofs ---

/// An alert by its name and its rule's own labels: a page and a ticket of one name are two things to prove.
type Key = (String, BTreeMap<String, String>);

/// What the cases do not show of each rule. It has to be shown to fire and go on, to fire and end, and to stay quiet. The last
/// is shown by any case of its name in which it does not fire.
fn unproven(rules: &BTreeSet<Key>, cases: &[Case]) -> Vec<String> {
    let mut shown: BTreeSet<(Key, Shows)> = BTreeSet::new();
    let mut faults = Vec::new();
    for case in cases.iter().filter(|case| case.alert != EVERY) {
        let own: Vec<&Key> = rules.iter().filter(|(name, _)| name == case.alert).collect();
        // What fires is of the rule whose labels it has; of two such rules the one that says more.
        let of = |firing: &[(&str, String)]| {
            let has = |(name, value): (&String, &String)| firing.iter().any(|(n, v)| n == name && v == value);
            own.iter().filter(|(_, labels)| labels.iter().all(has)).max_by_key(|(_, labels)| labels.len()).copied()
        };
        if case.checks.iter().flat_map(|check| &check.firing).any(|firing| of(firing).is_none()) || own.is_empty() {
            faults.push(format!("{}: {}: no such alert", case.alert, case.story));
        }
        for &key in &own {
            // As if nobody else could fire.
            let mut case = case.clone();
            for check in &mut case.checks {
                check.firing.retain(|firing| of(firing) == Some(key));
            }
            shown.extend(case.shows().into_iter().map(|shows| (key.clone(), shows)));
        }
    }
    for key in rules {
        for kind in [Shows::Firing, Shows::Quiet, Shows::Recovery] {
            if !shown.contains(&(key.clone(), kind)) {
                faults.push(format!("{} {:?}: no case of {kind:?}", key.0, key.1));
            }
        }
    }
    faults
}

#[test]
fn every_alert_is_shown_to_fire_to_stay_quiet_and_to_end() {
    let keys: BTreeSet<Key> = alerts(&rules()).map(|rule| (rule.alert.clone(), rule.labels.clone())).collect();
    assert_eq!(keys.len(), alerts(&rules()).count(), "each has labels of its own");
    let cases: Vec<Case> = suites().into_iter().flat_map(|suite| suite.cases).collect();
    assert_none(&unproven(&keys, &cases));

    let key = |severity: &str| ("A".to_owned(), BTreeMap::from([("severity".to_owned(), severity.to_owned())]));
    let case = |alert| Case::new(alert, "a story", "1m");
    let page: &[(&str, &str)] = &[("job", "x"), ("severity", "critical")];
    let (firing, quiet) = (case("A").fires_at("1m", page), case("A").quiet_at("1m"));
    let recovery = case("A").fires_at("1m", page).quiet_at("2m");
    let missing = |severities: &[&str], cases: &[&Case]| {
        let keys = severities.iter().map(|severity| key(severity)).collect();
        unproven(&keys, &cases.iter().map(|case| (*case).clone()).collect::<Vec<_>>()).len()
    };
    assert_eq!(missing(&["critical"], &[&firing, &quiet, &recovery]), 0);
    assert_eq!(missing(&["critical"], &[&firing, &quiet]), 1, "it does not end");
    assert_eq!(missing(&["critical"], &[&firing, &recovery]), 1, "it is never quiet");
    assert_eq!(missing(&["critical"], &[&quiet, &recovery]), 1, "it does not go on");
    assert_eq!(missing(&["critical", "warning"], &[&firing, &quiet, &recovery]), 2, "the ticket never fires");
    // A page that becomes a ticket is over, and the ticket goes on.
    let calmed = case("A").fires_at("1m", page).fires_at("2m", &[("job", "x"), ("severity", "warning")]);
    assert_eq!(missing(&["critical", "warning"], &[&firing, &quiet, &recovery, &calmed]), 1, "the ticket does not end");
    assert_eq!(missing(&["warning"], &[&quiet, &recovery]), 3, "what fires is of no rule, and the ticket is unproven");
    assert_eq!(missing(&[], &[&quiet]), 1, "cases, and no alert");
}

#[test]
fn what_the_operator_gets_are_the_same_groups() {
    #[derive(serde::Deserialize)]
    struct Resource {
        #[serde(rename = "apiVersion")]
        version: String,
        kind: String,
        metadata: BTreeMap<String, serde_json::Value>,
        spec: RuleFile,
    }
    let read = |text: &str| serde_saphyr::from_str::<Resource>(text);
    let mut found = 0;
    for (path, text) in below("alerts", ".yml").into_iter().chain(below("alerts", ".yaml")) {
        if !text.contains("kind: PrometheusRule") {
            continue;
        }
        found += 1;
        let resource = read(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!((resource.version.as_str(), resource.kind.as_str()), ("monitoring.coreos.com/v1", "PrometheusRule"));
        assert!(resource.metadata.contains_key("name"), "{path}: no name");
        assert_eq!(resource.spec.groups, rules().groups, "{path}");
    }
    assert!(found > 0, "there is none");
    let other = "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {name: x}\nspec: {groups: []}\n";
    assert_ne!(read(other).unwrap().spec.groups, rules().groups, "a difference is seen");
}

#[test]
fn what_a_new_counter_has_counted_may_be_asked() {
    let check = |query: &str| {
        let expr = parse(query).unwrap();
        nodes(&expr).iter().filter(|(_, node)| selector(node).is_some()).all(|(above, node)| is_new(above, node))
    };
    assert!(check("a_total unless a_total offset 10m"));
    assert!(check("sum by (job) (a_total{x=\"1\"} > 0 unless a_total{x=\"1\"} offset 10m)"));
    assert!(!check("a_total unless a_total") && !check("a_total and a_total offset 5m") && !check("a_total > 0"));
    assert!(!check("a_total{x=\"1\"} unless a_total{x=\"2\"} offset 10m"));
}

#[test]
fn a_condition_is_told_from_a_number() {
    let is = |query: &str| is_condition(&parse(query).unwrap());
    assert!(is("up == 0") && is("absent(up)") && is("up unless up offset 1h") && is("up and up > 1"));
    assert!(is("sum by (job) (up > 1)") && is("(up > 1) * 2"));
    assert!(!is("up") && !is("up > bool 1") && !is("up or up > 1") && !is("vector(1)"));
    assert_eq!(children(&parse("up > 1").unwrap()).len(), 2);
}
