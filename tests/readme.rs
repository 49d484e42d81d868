//! The README against the program: tables, snippets and queries say what the binary of this version does, no more and no
//! less. Black box where that is possible: a started sidecar, its `check`, and Prometheus' own promtool.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use common::certificates::Authority;
use common::sidecar::program;
use common::{Backend, Page, Sidecar, ok, response, wait_until};
use golden_sidecar::labels::{Failure, Policy, RpcStatus};
use golden_sidecar::proxy::error::Answer;
use golden_sidecar::signals::families;

// === Metrics ===

#[test]
fn the_metrics_table_is_the_page_of_a_sidecar_that_has_seen_everything() {
    let backend = Backend::start(|peer| {
        while let Some(request) = peer.read_request() {
            match request.head.target() {
                "/fail" => peer.send(response(500, "", "")),
                "/events" => peer.send(response(200, "Content-Type: text/event-stream\r\n", "data: 1\n\n")),
                "/silent" => peer.wait_end().is_some(),
                _ => peer.send(ok("ok")),
            };
        }
    });
    let rules = "slos: [{name: all, objective: 0.999, latency: 300ms}]\n\
                 implicit_errors: [{name: told, header: {name: X-Error}}]\n";
    let sidecar = Sidecar::before(&backend).flag("--inflight", 100).yaml(rules).start();
    // Families without a label set are not on the page, so something of each kind has to happen: an answer, an error, an
    // event stream, a client that leaves.
    for (path, status) in [("/ok", 200), ("/fail", 500), ("/events", 200)] {
        assert_eq!(sidecar.get(path).status(), status, "{path}");
    }
    let mut leaver = sidecar.client();
    leaver.send("GET /silent HTTP/1.1\r\nHost: readme\r\n\r\n");
    drop(leaver);

    let page = sidecar.page_when("every family of families.rs is there", |page| {
        families::COMPUTED.iter().all(|family| page.types.contains_key(family.name))
    });
    let mut page = families_of(&page);
    // Those about the backend's own metrics stand where these are asked for.
    let merged = sidecar.admin_get("/metrics?include=backend", "").text();
    page.extend(families_of(&Page::parse(&merged)));
    // Those about certificates stand where there is one.
    let authority = Authority::new("any");
    let (certificate, key) = authority.keep("server", &authority.issue(&["localhost"], 1));
    let secure = format!("tls: {{certificate: {certificate}, key: {key}}}");
    page.extend(
        families_of(&Sidecar::before(&backend).yaml(secure).start().scrape())
            .into_iter()
            .filter(|(name, _)| name.starts_with("golden_tls_")),
    );
    // What the sampler can note depends on the machine, so there the declaration speaks.
    for family in families::SAMPLED {
        let labels = family.labels.iter().map(|label| (*label).to_owned()).collect();
        let declared = Family { kind: format!("{:?}", family.kind).to_lowercase(), labels };
        let before = page.insert(family.name.to_owned(), declared);
        assert!(before.is_none_or(|on_page| on_page == page[family.name]), "{}", family.name);
    }
    let told: BTreeMap<String, Family> = metric_rows();
    for (name, family) in &page {
        assert_eq!(told.get(name), Some(family), "{name}: left the README, right the page");
    }
    let gone: Vec<_> = told.keys().filter(|name| !page.contains_key(*name)).collect();
    assert!(gone.is_empty(), "in the README and not on the page: {gone:?}");
}

#[test]
fn the_queries_name_only_metrics_and_labels_that_exist() {
    let families = metric_rows();
    let queries = queries();
    assert_eq!(queries.len(), 4, "one per signal: {queries:?}");
    for query in &queries {
        let used = names_in(query);
        let mut known: BTreeSet<&str> = BTreeSet::new();
        assert!(!used.metrics.is_empty(), "no metric in {query}");
        for metric in &used.metrics {
            let (name, bucket) = match metric.strip_suffix("_bucket") {
                Some(name) => (name, true),
                None => (metric.as_str(), false),
            };
            let family = families.get(name).unwrap_or_else(|| panic!("{metric} is no metric of the table: {query}"));
            assert_eq!(bucket, family.kind == "histogram", "{metric} is a {}: {query}", family.kind);
            known.extend(family.labels.iter().map(String::as_str));
            known.extend(bucket.then_some("le"));
        }
        for label in &used.labels {
            assert!(known.contains(label.as_str()), "{label} is no label of {:?}: {query}", used.metrics);
        }
    }
    let rules: String = queries
        .iter()
        .enumerate()
        .map(|(index, query)| format!("      - record: readme:query{index}\n        expr: {query:?}\n"))
        .collect();
    promtool(&["check", "rules"], "rules.yml", &format!("groups:\n  - name: readme\n    rules:\n{rules}"));
}

#[test]
fn names_are_found_in_queries() {
    let used = names_in(r#"sum by (le, a) (rate(m_bucket{b="x{y", c!~"z"}[5m])) / on(d) max_over_time(n[1h])"#);
    assert_eq!(used.metrics, ["m_bucket", "n"].map(String::from).into());
    assert_eq!(used.labels, ["a", "b", "c", "d", "le"].map(String::from).into());
}

#[test]
fn the_scrape_snippet_is_a_prometheus_configuration() {
    promtool(&["check", "config"], "prometheus.yml", &yaml("scrape_configs:"));
}

// === Configuration ===

#[test]
fn the_configuration_table_has_every_key_with_its_default() {
    let output = golden(&["check", "--upstream", "http://127.0.0.1:8080"], &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    let mut defaults = BTreeMap::new();
    // The sections that a line is in, by its indentation.
    let mut sections: Vec<&str> = Vec::new();
    for line in shown.lines() {
        let line = line.split("  #").next().unwrap_or(line);
        // The objective that there is by default is told in words.
        if line.starts_with("  - name: all") {
            defaults.insert("slos".to_owned(), "99.9 % of all".to_owned());
        }
        if sections.first() == Some(&"slos") && line.starts_with("  ") {
            continue;
        }
        let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("no key in {line:?}"));
        sections.truncate((key.len() - key.trim_start().len()) / 2);
        sections.push(key.trim_start());
        if !value.is_empty() {
            defaults.insert(sections.join("."), value.trim().to_owned());
        }
    }
    // Two rows are not lines of that output: what has no default, and the other form of `forwarded`.
    defaults.insert("upstream".to_owned(), "required".to_owned());
    defaults.insert("forwarded.trust".to_owned(), "–".to_owned());
    let told: BTreeMap<String, String> =
        rows("key").into_iter().map(|row| (plain(&row[0]).to_owned(), plain(&row[1]).to_owned())).collect();
    assert_eq!(told, defaults);
}

#[test]
fn every_variable_and_flag_of_the_table_sets_its_key() {
    // A value that no key takes, not even one that is a path: the mistake names the key and who gave the value.
    const NOTHING: &str = "é\u{7}";
    let mut flags = BTreeSet::from(["--config", "--help", "--version"].map(String::from));
    for row in rows("key") {
        let (key, variable, flag) = (plain(&row[0]), plain(&row[2]), plain(&row[3]));
        let refused = |output: Output, source: &str| {
            let sentence = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{key} by {source}: {sentence}");
            assert!(sentence.starts_with(key) && sentence.contains(source), "{key} by {source}: {sentence}");
        };
        let upstream: &[&str] = if key == "upstream" { &["check"] } else { &["check", "--upstream", "http://a:1"] };
        match variable {
            "–" => {
                let guess = format!("GOLDEN_{}", key.to_uppercase().replace('.', "_"));
                let sentence = text(&golden(upstream, &[(&guess, NOTHING)]).stderr);
                assert!(sentence.contains("cannot be set by a variable"), "{key}: {sentence}");
            }
            variable => refused(golden(upstream, &[(variable, NOTHING)]), &format!("(environment {variable})")),
        }
        if flag != "–" {
            refused(golden(&[upstream, &[flag, NOTHING]].concat(), &[]), &format!("(flag {flag})"));
            flags.insert(flag.to_owned());
        }
    }
    let help = text(&golden(&["--help"], &[]).stdout);
    let offered: BTreeSet<String> = help
        .lines()
        .filter_map(|line| line.trim_start().trim_start_matches("-h, ").trim_start_matches("-V, ").strip_prefix("--"))
        .filter_map(|rest| rest.split([' ', '\n']).next())
        .map(|name| format!("--{name}"))
        .collect();
    assert_eq!(flags, offered, "left the table, right --help");
}

#[test]
fn the_example_files_are_accepted() {
    for (start, expected) in [
        ("upstream:", "/users/{id}"),
        ("saturation:", "hikaricp_connections_active"),
        ("slos:", "latency: 300ms"),
        ("implicit_errors:", "json_pointer: /errors/0"),
    ] {
        let shown = checked(&yaml(start));
        assert!(shown.contains(expected), "{shown}");
    }
}

#[test]
fn the_table_of_presets_is_what_check_shows() {
    let mut told = Vec::new();
    for row in rows("preset") {
        let (preset, page) = (plain(&row[0]), &row[1]);
        told.push(preset.to_owned());
        let shown = checked(&format!("saturation: {{pools: [{{name: a, url: 'http://a:1/', preset: {preset}}}]}}"));
        // What is shown for the pool, and what the row says of it.
        for key in ["idle", "limit", "waiting", "timeouts"] {
            assert_eq!(shown.contains(&format!("\n      {key}: ")), row[2].contains(key), "{preset} {key}: {shown}");
        }
        let json = shown.contains("\n      used: \"/") || shown.contains("\n      used: /");
        assert_eq!(page.contains("JSON"), json, "{preset}: {shown}");
    }
    let (_folder, file) = written("saturation: {pools: [{name: a, url: 'http://a/', preset: b}]}");
    let unknown = golden(&["check", "--config", &file, "--upstream", "http://a:1"], &[]);
    assert!(
        text(&unknown.stderr).contains(&format!("expected one of {} (", told.join(", "))),
        "{}",
        text(&unknown.stderr)
    );
}

// === The rest ===

#[test]
fn the_table_of_errors_is_what_the_program_answers() {
    let told: BTreeMap<String, [String; 3]> = rows("error_type")
        .into_iter()
        .map(|row| (plain(&row[0]).to_owned(), [&row[1], &row[2], &row[3]].map(|cell| plain(cell).to_owned())))
        .collect();
    for failure in Failure::ALL {
        let (status, proxy_status) = match Answer::to(*failure) {
            Some(answer) => (answer.status.to_string(), answer.proxy_status.to_owned()),
            None => ("cut".to_owned(), "–".to_owned()),
        };
        let expected = [failure.fault().as_str().to_owned(), status, proxy_status];
        assert_eq!(told.get(failure.as_str()), Some(&expected), "{}: left the README", failure.as_str());
    }
    for policy in Policy::ALL {
        // The answer is the backend's, and its client gets it as it came.
        let expected = ["policy", "the backend's", "–"].map(str::to_owned);
        assert_eq!(told.get(policy.as_str()), Some(&expected), "{}: left the README", policy.as_str());
    }
    // One row has all statuses of gRPC calls that are errors.
    let of_grpc = RpcStatus::ALL.iter().filter(|status| status.is_server_error()).map(|status| status.as_str());
    let of_grpc = of_grpc.collect::<Vec<_>>().join("`, `");
    let expected = ["backend", "the backend's", "–"].map(str::to_owned);
    assert_eq!(told.get(of_grpc.as_str()), Some(&expected), "{of_grpc}: left the README");
    // And the row for the backend's own statuses.
    assert_eq!(told.len(), Failure::COUNT + Policy::COUNT + 2, "{:?}", told.keys());
}

#[test]
fn the_table_of_endpoints_is_the_admin_page() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    wait_until("the sidecar is ready", || sidecar.admin_get("/readyz", "").status() == 200);
    let page = sidecar.admin_get("/", "").text();
    let linked: Vec<&str> = page.split("<a href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let told: Vec<String> = rows("path").iter().map(|row| plain(&row[0]).to_owned()).collect();
    assert_eq!(told, linked);
    for path in &told {
        assert_eq!(sidecar.admin_get(path, "").status(), 200, "{path}");
    }
}

#[test]
fn the_image_names_the_program_its_ports_and_its_compiler() {
    let file = |name: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a file");
    let image = file("Dockerfile");
    let after = |word: &str| {
        let line = image.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("no {word}"));
        line[line.find(['[', ' ']).expect("a value")..].trim().to_owned()
    };
    let words =
        |list: &str| -> Vec<String> { serde_json::from_str(&list[list.find('[').expect("a list")..]).expect("JSON") };
    assert_eq!(words(&after("ENTRYPOINT")), ["golden-sidecar"]);
    let health = words(&after("HEALTHCHECK"));
    assert_eq!(health[0], "golden-sidecar");
    let backend = Backend::always("ok");
    let sidecar = Sidecar::start(&backend);
    wait_until("the health check of the image passes", || {
        let arguments: Vec<&str> = health[1..].iter().map(String::as_str).collect();
        golden(&arguments, &[("GOLDEN_ADMIN", &sidecar.admin.to_string())]).status.success()
    });

    let context = file(".dockerignore");
    let copied = image.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from"));
    for source in copied.flat_map(|line| line.split(' ').rev().skip(1)) {
        assert!(context.contains(&format!("\n!{source}\n")), ".dockerignore keeps {source} out of the build");
    }

    let defaults = text(&golden(&["check", "--upstream", "http://a:1"], &[]).stdout);
    for (key, port) in ["listen", "admin"].into_iter().zip(after("EXPOSE").split(' ')) {
        assert!(defaults.contains(&format!("{key}: 0.0.0.0:{port}\n")), "{key} and EXPOSE {port}: {defaults}");
    }
    let manifest = file("Cargo.toml");
    let version =
        manifest.split("rust-version = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a version");
    assert!(image.contains(&format!("FROM rust:{version}-")) && readme().contains(&format!("Needs Rust {version} ")));
}

#[test]
fn the_bench_finds_the_place_for_its_table() {
    let readme = readme();
    let at = |marker: &str| readme.match_indices(marker).map(|(at, _)| at).collect::<Vec<_>>();
    let (begin, end) = (at("<!-- bench:begin -->"), at("<!-- bench:end -->"));
    assert!(begin.len() == 1 && end.len() == 1 && begin < end, "{begin:?} {end:?}");
}

// === The README ===

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of all tables whose first column is headed `first`, cells trimmed.
fn rows(first: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Option<Vec<String>> {
        let inside = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(inside.split('|').map(|cell| cell.trim().to_owned()).collect())
    };
    let readme = readme();
    let mut found = Vec::new();
    let mut heading: Option<Vec<String>> = None;
    for line in readme.lines() {
        match (cells(line), &heading) {
            (None, _) => heading = None,
            (Some(row), None) => heading = Some(row),
            (Some(row), Some(heading)) => {
                assert_eq!(row.len(), heading.len(), "{line}");
                if heading[0] == first && !row[0].starts_with("---") {
                    found.push(row);
                }
            }
        }
    }
    assert!(found.len() > 2, "found no table headed {first}: the test no longer understands the README");
    found
}

/// A cell without its backticks.
fn plain(cell: &str) -> &str {
    cell.trim_matches('`')
}

/// The contents of the fenced blocks of a language.
fn fenced(language: &str) -> Vec<String> {
    let readme = readme();
    let fence = format!("```{language}\n");
    readme.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
}

/// The YAML block that starts so.
fn yaml(start: &str) -> String {
    fenced("yaml").into_iter().find(|block| block.starts_with(start)).unwrap_or_else(|| panic!("no YAML with {start}"))
}

/// The queries: separated by empty lines, comments left out.
fn queries() -> Vec<String> {
    let blocks = fenced("promql");
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    let without_comments =
        |query: &str| query.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ");
    blocks[0].split("\n\n").map(without_comments).collect()
}

/// Type and labels of a family. On the page and in the README they stand in their own order.
#[derive(Debug, PartialEq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

/// The metrics tables.
fn metric_rows() -> BTreeMap<String, Family> {
    let mut families = BTreeMap::new();
    for row in rows("name") {
        let labels = match row[2].as_str() {
            "–" => BTreeSet::new(),
            labels => labels.split(", ").map(|label| plain(label).to_owned()).collect(),
        };
        let name = plain(&row[0]).to_owned();
        let before = families.insert(name.clone(), Family { kind: row[1].clone(), labels });
        assert!(before.is_none(), "{name} stands there twice");
    }
    families
}

/// The families of a page.
fn families_of(page: &Page) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for (name, kind) in &page.types {
        families.insert(name.clone(), Family { kind: kind.clone(), labels: BTreeSet::new() });
    }
    for sample in &page.samples {
        let family = page.family_of(&sample.name).and_then(|name| families.get_mut(&name));
        let family = family.unwrap_or_else(|| panic!("{} has no type", sample.name));
        family.labels.extend(sample.labels.keys().filter(|label| *label != "le").cloned());
    }
    families
}

// === PromQL ===

/// What a query mentions.
#[derive(Debug, Default)]
struct Used {
    metrics: BTreeSet<String>,
    labels: BTreeSet<String>,
}

/// Just enough PromQL: text and ranges are skipped, a word before a parenthesis is a function, words in braces and in the
/// lists after `by` and its kin are labels, and the others are metrics.
fn names_in(query: &str) -> Used {
    const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    const OPERATORS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "atan2"];
    let mut used = Used::default();
    let (mut in_braces, mut in_list, mut list_follows) = (false, false, false);
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let length = match first {
            '"' => rest[1..].find('"').expect("a closing quote") + 2,
            '[' => rest.find(']').expect("a closing bracket") + 1,
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        match first {
            '{' => in_braces = true,
            '}' => in_braces = false,
            '(' => in_list = std::mem::take(&mut list_follows),
            ')' => in_list = false,
            c if !is_word(c) || c.is_ascii_digit() => {}
            _ if in_braces || in_list => drop(used.labels.insert(token.to_owned())),
            _ if LISTS.contains(&token) => list_follows = true,
            _ if OPERATORS.contains(&token) || after.trim_start().starts_with('(') => {}
            _ if !LISTS.iter().any(|word| after.trim_start().starts_with(&format!("{word} "))) => {
                used.metrics.insert(token.to_owned());
            }
            // An aggregation before its labels: `sum by (a) (…)`.
            _ => {}
        }
    }
    used
}

// === Programs ===

/// Runs the program to its end, with these variables of ours and no others.
fn golden(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    program().args(arguments).envs(variables.iter().copied()).output().expect("the program runs")
}

/// What `check` prints for a file with this content.
fn checked(content: &str) -> String {
    let (_folder, file) = written(content);
    let upstream = if content.starts_with("upstream:") { "" } else { "http://127.0.0.1:8080" };
    let output = golden(&["check", "--config", &file], &[("GOLDEN_UPSTREAM", upstream)]);
    assert!(output.status.success(), "{}\n{content}", text(&output.stderr));
    text(&output.stdout)
}

/// A file with this content, and the folder that it lives in.
fn written(content: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("golden.yaml");
    std::fs::write(&file, content).expect("a file");
    let file = file.to_string_lossy().into_owned();
    (folder, file)
}

/// Lets promtool look at a file with this content.
fn promtool(arguments: &[&str], name: &str, content: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(name);
    std::fs::write(&file, content).expect("a file");
    let output = Command::new("promtool").args(arguments).arg(&file).output();
    let output = output.expect("promtool runs; `make setup` installs it");
    assert!(output.status.success(), "{}{}\n{content}", text(&output.stdout), text(&output.stderr));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
