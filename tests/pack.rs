//! Dashboards, rules and the reference of metrics: what the repository holds is what the model gives, the command writes it
//! for any objective that can be kept, and the real promtool and Prometheus take it, in the oldest version and in a newer one.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::files::{self, RuleFile, boards, panels, root, targets, text};
use common::prometheus::{Options, Prometheus, Promtool, VERSIONS, Version};
use common::promql::{Substitution, bare, constant, nodes, parse, selectors};
use golden_sidecar::pack::cases::{Case, EVERY, Suite};
use golden_sidecar::pack::rules::{Group, Rule};
use golden_sidecar::pack::{self, Objective};

/// The folders that hold nothing else than files of the pack.
const FOLDERS: [&str; 3] = ["dashboards", "alerts", "docs/runbooks"];

// --- What the repository holds ---

/// Files that are not as the model gives them, and those that it does not give. `root` is the folder of the repository.
fn drifted(root: &Path, files: &[pack::File], alerts: &[String]) -> Vec<String> {
    let mut drifted = Vec::new();
    for file in files {
        match fs::read_to_string(root.join(&file.path)) {
            Ok(text) if text == file.text => {}
            Ok(_) => drifted.push(format!("{} is another one", file.path)),
            Err(error) => drifted.push(format!("{}: {error}", file.path)),
        }
    }
    for folder in FOLDERS {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten();
        for entry in entries {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            let path = format!("{folder}/{name}");
            let given = files.iter().any(|file| file.path == path);
            // Runbooks are written by people, one for each alert.
            let runbook = folder == "docs/runbooks"
                && (name == "README.md"
                    || name.strip_suffix(".md").is_some_and(|name| alerts.iter().any(|a| a == name)));
            if !given && !runbook {
                drifted.push(format!("{path} belongs to nothing"));
            }
        }
    }
    drifted
}

#[test]
fn the_files_in_the_repository_are_those_of_the_model() {
    let alerts: Vec<String> = pack::rules::alerts(&pack::alerts::groups()).map(|alert| alert.name.to_owned()).collect();
    let drifted = drifted(&root(), &pack::files(&Objective::default()), &alerts);
    assert!(drifted.is_empty(), "run `make pack`; {drifted:#?}");
}

#[test]
fn a_file_that_differs_is_missing_or_belongs_to_nothing_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let file = |path: &str| pack::File { path: path.into(), text: "right\n".into() };
    let (files, alerts) = ([file("dashboards/a.json"), file("alerts/b.yml")], ["GoldenA".to_owned()]);
    put("dashboards/a.json", "right\n");
    put("alerts/b.yml", "right\n");
    put("docs/runbooks/GoldenA.md", "anything\n");
    assert_eq!(drifted(folder.path(), &files, &alerts), Vec::<String>::new());
    put("dashboards/a.json", "wrong\n");
    fs::remove_file(folder.path().join("alerts/b.yml")).unwrap();
    put("dashboards/old.json", "{}\n");
    put("docs/runbooks/GoldenOld.md", "anything\n");
    let found = drifted(folder.path(), &files, &alerts).join("\n");
    for fault in
        ["a.json is another", "b.yml: No such", "old.json belongs to nothing", "GoldenOld.md belongs to nothing"]
    {
        assert!(found.contains(fault), "{fault}: {found}");
    }
    assert_eq!(found.lines().count(), 4, "{found}");
}

// --- The real tools ---

#[test]
fn every_rule_is_evaluated_by_the_server_in_both_versions() {
    let rules = files::rules_text();
    let file = files::rules();
    let expected: usize = file.groups.iter().map(|group| group.rules.len()).sum();
    std::thread::scope(|scope| {
        for version in VERSIONS {
            let rules = rules.clone();
            scope.spawn(move || {
                let server = Prometheus::start(version, Options { rules: vec![rules], ..Options::default() });
                let evaluated = server.rules_when_evaluated();
                assert_eq!(evaluated.len(), expected, "{version:?}");
            });
        }
    });
}

#[test]
fn promtool_takes_the_rules_with_all_of_its_lints_in_both_versions() {
    for version in VERSIONS {
        for (path, _) in files::below("alerts", ".rules.yml") {
            Promtool::new(version)
                .check_rules(&root().join(path))
                .unwrap_or_else(|error| panic!("{version:?}: {error}"));
        }
    }
}

#[test]
fn every_query_of_every_panel_is_one_that_both_versions_understand() {
    // As recording rules: what promtool checks without a server.
    let mut rules = String::from("groups:\n  - name: panels\n    rules:\n");
    let mut number = 0;
    for board in boards() {
        for target in panels(&board.json).into_iter().flat_map(targets) {
            let query = Substitution::default().apply(text(&target["expr"]));
            rules += &format!(
                "      - record: panel:query:number{number}\n        expr: {}\n",
                serde_json::Value::from(query)
            );
            number += 1;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panels.yml");
    fs::write(&path, rules).unwrap();
    for version in VERSIONS {
        Promtool::new(version).check_rules(&path).unwrap_or_else(|error| panic!("{version:?}: {error}"));
    }
}

// --- The suites ---

/// A test for each suite and version, so that they run beside others.
macro_rules! suites {
    ($($test:ident: $name:literal,)*) => {
        const SUITES: &[&str] = &[$($name),*];

        mod oldest {
            $(#[test]
            fn $test() {
                super::every_case_holds(super::Version::Oldest, $name);
            })*
        }

        mod newer {
            $(#[test]
            fn $test() {
                super::every_case_holds(super::Version::Newer, $name);
            })*
        }
    };
}

suites! {
    every_case_of_budget_holds: "budget",
    every_case_of_budget_days_holds: "budget-days",
    every_case_of_budget_few_holds: "budget-few",
    every_case_of_budget_hours_holds: "budget-hours",
    every_case_of_day_holds: "day",
    every_case_of_saturation_holds: "saturation",
    every_case_of_sidecar_holds: "sidecar",
    every_case_of_traffic_holds: "traffic",
    every_case_of_traffic_days_holds: "traffic-days",
    every_case_of_traffic_hours_holds: "traffic-hours",
}

/// What is recorded for people and dashboards: the month, which no alert waits for.
const READ_BY_NO_ALERT: [&str; 3] = [
    "instance_slo_result:golden_slo_requests:increase30d",
    "job_slo:golden_slo_errors:ratio_increase30d",
    "job_slo:golden_slo_slow:ratio_increase30d",
];

/// The recorded series that a query reads, directly.
fn reads(expr: &str, records: &BTreeSet<&str>) -> Vec<String> {
    let expr = parse(expr).unwrap_or_else(|error| panic!("{error}: {expr}"));
    let names = selectors(&expr).into_iter().map(|selector| {
        // Of any other selector nobody can tell which rules stand behind it.
        let name = selector.name.clone().unwrap_or_else(|| panic!("a selector without a name: {expr}"));
        assert!(!name.starts_with("ALERTS"), "reads what other alerts do: {expr}");
        name
    });
    names.filter(|name| records.contains(name.as_str())).collect()
}

/// What the cases of this alert need of the groups: its rules and the records that they lean on, as they stand there.
/// All rules at every step of every case would take ten times as long, and the case asks for this alert only.
fn part(groups: &[Group], alert: &str) -> Vec<Group> {
    let all = || groups.iter().flat_map(|group| &group.rules);
    let records: BTreeSet<&str> = all().filter_map(recorded).collect();
    let mut queries: Vec<&str> = all().filter(|rule| alerts(rule, alert)).map(query).collect();
    let mut leaned_on = BTreeSet::new();
    while let Some(next) = queries.pop() {
        for name in reads(next, &records) {
            queries.extend(all().filter(|rule| recorded(rule) == Some(&name)).map(query));
            assert!(queries.len() < 10_000, "records that read themselves: {name}");
            leaned_on.insert(name);
        }
    }
    let needed = |rule: &Rule| alerts(rule, alert) || recorded(rule).is_some_and(|name| leaned_on.contains(name));
    let parts = groups.iter().map(|group| {
        let rules = group.rules.iter().filter(|rule| needed(rule)).cloned().collect();
        Group { rules, ..group.clone() }
    });
    parts.filter(|group| !group.rules.is_empty()).collect()
}

fn recorded(rule: &Rule) -> Option<&str> {
    match rule {
        Rule::Record(record) => Some(&record.name),
        Rule::Alert(_) => None,
    }
}

fn alerts(rule: &Rule, name: &str) -> bool {
    matches!(rule, Rule::Alert(alert) if alert.name == name)
}

fn query(rule: &Rule) -> &str {
    match rule {
        Rule::Record(record) => &record.expr,
        Rule::Alert(alert) => &alert.expr,
    }
}

/// Has promtool test the suite with these groups alone.
fn tested(version: Version, suite: &Suite, groups: &[Group]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    write("part.rules.yml", pack::rules::groups_yaml(groups).document(&["A part."]));
    write("part.test.yml", suite.yaml("part.rules.yml", groups).document(&["A part."]));
    Promtool::new(version).test_rules(&folder.path().join("part.test.yml"))
}

#[track_caller]
fn suite(name: &str) -> Suite {
    let found = pack::alerts::suites().into_iter().find(|suite| suite.name == name);
    found.unwrap_or_else(|| panic!("no suite {name}"))
}

fn every_case_holds(version: Version, name: &str) {
    let (suite, groups) = (suite(name), pack::alerts::groups());
    let names: BTreeSet<&str> = suite.cases.iter().map(|case| case.alert).collect();
    assert!(!names.is_empty(), "no cases");
    if names.contains(EVERY) {
        // It needs all rules: the file as users have it, beside the rule file that it names.
        let shipped = root().join(format!("alerts/{name}.test.yml"));
        Promtool::new(version).test_rules(&shipped).unwrap_or_else(|error| panic!("{error}"));
        return;
    }
    for alert in names {
        let cases = suite.cases.iter().filter(|case| case.alert == alert).cloned().collect();
        let of_alert = Suite { cases, ..suite.clone() };
        tested(version, &of_alert, &part(&groups, alert)).unwrap_or_else(|error| panic!("{alert}: {error}"));
    }
}

#[test]
fn each_suite_of_the_repository_has_its_tests() {
    let files = files::below("alerts", ".test.yml");
    let names = files.iter().filter_map(|(path, _)| path.strip_prefix("alerts/")?.strip_suffix(".test.yml"));
    assert_eq!(names.collect::<BTreeSet<_>>(), SUITES.iter().copied().collect());
}

#[test]
fn the_parts_of_all_alerts_are_the_whole_file_and_each_has_all_that_it_leans_on() {
    let groups = pack::alerts::groups();
    let rules = |groups: &[Group]| -> BTreeSet<String> {
        let each = groups.iter().flat_map(|group| group.rules.iter().map(move |rule| (group, rule)));
        each.map(|(group, rule)| format!("{} {rule:?}", group.name)).collect()
    };
    let records: Vec<&str> = groups.iter().flat_map(|group| &group.rules).filter_map(recorded).collect();
    let suites = pack::alerts::suites();
    let tested: BTreeSet<&str> = suites.iter().flat_map(|suite| &suite.cases).map(|case| case.alert).collect();
    let mut together = BTreeSet::new();
    for alert in tested.iter().filter(|alert| **alert != EVERY) {
        let part = part(&groups, alert);
        let text = part.iter().flat_map(|group| &group.rules).map(query).collect::<Vec<_>>().join("\n");
        let in_part: BTreeSet<&str> = part.iter().flat_map(|group| &group.rules).filter_map(recorded).collect();
        // By their spelling: a name such as `job:x:y` can stand for nothing else.
        let names = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
        for name in names.filter(|name| records.contains(name)) {
            assert!(in_part.contains(name), "{alert} leans on {name}");
        }
        together.extend(rules(&part));
    }
    let whole = rules(&groups);
    let left: Vec<&String> = whole.difference(&together).collect();
    let kept = |rule: &str| READ_BY_NO_ALERT.iter().any(|name| rule.contains(&format!("Record {{ name: {name:?},")));
    assert!(left.iter().all(|rule| kept(rule)) && left.len() == READ_BY_NO_ALERT.len(), "{left:#?}");
    assert!(together.is_subset(&whole), "a part has what the file has not");
}

/// The cases of one alert see that alert's rules only. That no other rule fails on the same series (two of them on one
/// side of a match, say) takes one look at all rules, at the height of the story. The day sees all of them anyway.
fn no_rule_fails(version: Version) {
    let groups = pack::alerts::groups();
    let suites = pack::alerts::suites();
    let mut cases_at: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for mut case in suites.into_iter().flat_map(|suite| suite.cases).filter(|case| case.alert != EVERY) {
        let height = case.checks.iter().find(|check| !check.firing.is_empty()).or(case.checks.last());
        let at = height.expect("a case has checks").at.clone();
        // Whatever fires is right: no alert has this name.
        (case.alert, case.checks) = ("", Vec::new());
        cases_at.entry(at.clone()).or_default().push(case.quiet_at(at));
    }
    assert!(!cases_at.is_empty(), "no cases");
    for (at, cases) in cases_at {
        // At the start, and then.
        let looks = Suite { name: "looks", evaluate: at.clone().leak(), cases };
        tested(version, &looks, &groups).unwrap_or_else(|error| panic!("at {at}: {error}"));
    }
}

#[test]
fn no_rule_fails_on_the_series_of_any_case_in_the_oldest_version() {
    no_rule_fails(Version::Oldest);
}

#[test]
fn no_rule_fails_on_the_series_of_any_case_in_the_newer_version() {
    no_rule_fails(Version::Newer);
}

// --- The command ---

fn command(arguments: &[&str], out: &Path) -> Output {
    common::sidecar::program().arg("pack").args(arguments).arg("--out").arg(out).output().expect("it runs")
}

fn printed(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// All files below a folder, by their paths within it.
fn written(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    files
}

/// All numbers that panels change their colours at, and all that they compare with.
fn numbers(folder: &Path) -> Vec<f64> {
    let mut numbers = Vec::new();
    for (path, text) in written(folder) {
        if path.extension().is_none_or(|extension| extension != "json") || !path.starts_with("dashboards") {
            continue;
        }
        let board: serde_json::Value = serde_json::from_str(&text).unwrap();
        for panel in panels(&board) {
            let steps = files::list(&panel["fieldConfig"]["defaults"]["thresholds"]["steps"]);
            numbers.extend(steps.iter().filter_map(|step| step["value"].as_f64()));
            for target in targets(panel) {
                let expr = parse(&Substitution::default().apply(files::text(&target["expr"]))).unwrap();
                numbers.extend(nodes(&expr).into_iter().filter_map(|(_, node)| constant(bare(node))));
            }
        }
    }
    numbers
}

#[test]
fn the_command_writes_the_pack_for_the_users_own_objective() {
    let folder = tempfile::tempdir().unwrap();
    let (default, own) = (folder.path().join("default"), folder.path().join("of/mine"));
    let output = command(&[], &default);
    assert_eq!(output.status.code(), Some(0), "{:?}", printed(&output));
    let output = command(&["--objective", "99.95", "--latency", "300ms"], &own);
    let (said, complained) = printed(&output);
    assert_eq!((output.status.code(), complained.as_str()), (Some(0), ""), "{said}");
    let files = written(&own);
    for path in files.keys() {
        assert!(said.contains(&own.join(path).display().to_string()), "{}: {said}", path.display());
    }
    assert_eq!(written(&default).keys().collect::<Vec<_>>(), files.keys().collect::<Vec<_>>(), "the same files");
    for start in ["dashboards/overview.json", "alerts/golden-sidecar.rules.yml", "docs/metrics.md"] {
        assert!(files.contains_key(Path::new(start)), "{start}: {:?}", files.keys());
    }

    // Without any flag it is the pack of the repository.
    for (path, text) in written(&default) {
        assert_eq!(Some(text), fs::read_to_string(root().join(&path)).ok(), "{}", path.display());
    }
    // With some, what is promised is another number wherever it stands, and nowhere the old one.
    let has = |numbers: &[f64], value: f64| numbers.iter().any(|number| (number - value).abs() < 1e-9);
    let (before, after) = (numbers(&default), numbers(&own));
    for (old, new) in [(0.001, 0.0005), (0.0144, 0.0072), (0.5, 0.3), (1.0, 0.6)] {
        assert!(has(&before, old), "{old} is nowhere");
        assert!(has(&after, new), "{new} is nowhere");
    }
    assert!(!has(&after, 0.001) && !has(&after, 0.0144), "the old objective is left somewhere");

    for version in VERSIONS {
        let promtool = Promtool::new(version);
        promtool.check_rules(&own.join("alerts/golden-sidecar.rules.yml")).unwrap();
    }
    let rules: RuleFile = files::rules_of(&files[Path::new("alerts/golden-sidecar.rules.yml")]);
    assert_eq!(rules.groups.len(), files::rules().groups.len());
}

#[test]
fn the_command_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--objective", "99", "--latency", "1s"];
    assert_eq!(command(&arguments, folder.path()).status.code(), Some(0));
    let once = written(folder.path());
    fs::write(folder.path().join("dashboards/overview.json"), "something of the past").unwrap();
    fs::write(folder.path().join("mine.txt"), "mine").unwrap();
    assert_eq!(command(&arguments, folder.path()).status.code(), Some(0));
    let mut twice = written(folder.path());
    assert_eq!(twice.remove(Path::new("mine.txt")).as_deref(), Some("mine"), "what is not ours stays");
    assert!(once == twice, "the same again");
}

#[test]
fn an_objective_that_cannot_be_kept_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let cases: [(&[&str], &str); 8] = [
        (
            &["--objective", "90"],
            "--objective: found 90; at 90 % the alert over 1h and 5m would need 14.4 times the budget of 10 %, that is 144 % bad \
             requests, and can never fire; expected more than 93.06 %",
        ),
        (&["--objective", "100"], "expected a percentage above 0 and below 100"),
        (&["--objective", "0"], "expected a percentage above 0 and below 100"),
        (&["--objective=-5"], "expected a percentage above 0 and below 100"),
        (&["--objective", "NaN"], "expected a percentage above 0 and below 100"),
        (&["--objective", "0.999"], "expected a percentage such as 99.9"),
        (&["--objective", "three nines"], "expected a percentage such as 99.9"),
        (&["--latency", "0s"], "--latency"),
    ];
    for (arguments, reason) in cases {
        let output = command(arguments, &out);
        let (said, complained) = printed(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {complained}");
        assert!(complained.contains(reason), "{arguments:?}: {complained}");
        assert!(said.is_empty() && !out.exists(), "{arguments:?}: nothing is written");
        assert_eq!(complained.trim_end().lines().count(), 1, "{arguments:?}: one sentence: {complained}");
    }
    // The lowest that is possible is.
    assert_eq!(command(&["--objective", "93.06"], &out).status.code(), Some(0));
}

#[test]
fn a_folder_that_cannot_be_written_to_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let output = command(&[], &file);
    let (_, complained) = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{complained}");
    assert!(complained.contains(&format!("cannot write {}", file.display())), "{complained}");

    // SAFETY: the call has no preconditions.
    if unsafe { libc::geteuid() } == 0 {
        // Nothing is forbidden to root but what the kernel itself keeps.
        let output = command(&[], Path::new("/proc/golden-sidecar"));
        assert_eq!(output.status.code(), Some(1), "{:?}", printed(&output));
        return;
    }
    let shut = folder.path().join("shut");
    fs::create_dir(&shut).unwrap();
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o555)).unwrap();
    let output = command(&[], &shut);
    assert_eq!(output.status.code(), Some(1), "{:?}", printed(&output));
}
