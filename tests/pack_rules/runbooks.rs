//! What an alert leads to: a page for each, with what can be pasted, and all of it works.

use crate::assert_none;
use crate::common::files::{below, boards, rules};
use crate::common::promql::{Substitution, matchers, parse, selectors};
use crate::common::{Backend, Sidecar};
use crate::vocabulary::Vocabulary;

/// In this order.
const SECTIONS: [&str; 4] = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"];

/// The text of a section, without its heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let after = text.split_once(&format!("\n{heading}\n")).map_or("", |(_, after)| after);
    after.split("\n## ").next().unwrap_or_default()
}

/// Language and content of each block of code.
fn blocks(text: &str) -> Vec<(&str, String)> {
    let mut out: Vec<(&str, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim_start().strip_prefix("```") {
            Some(language) if !inside => {
                inside = true;
                out.push((language.trim(), String::new()));
            }
            Some(_) => inside = false,
            None if inside => {
                let block = &mut out.last_mut().expect("it began").1;
                block.push_str(line);
                block.push('\n');
            }
            None => {}
        }
    }
    out
}

/// Queries of a block: parted by empty lines, comments aside.
fn queries(block: &str) -> Vec<String> {
    let parts = block.split("\n\n").map(|part| {
        let lines = part.lines().filter(|line| !line.trim_start().starts_with('#'));
        lines.collect::<Vec<_>>().join("\n").trim().to_owned()
    });
    parts.filter(|query| !query.is_empty()).collect()
}

/// Paths that the commands of a text ask of the admin port.
fn asked(text: &str) -> Vec<String> {
    let urls = text.lines().filter(|line| line.contains("curl ")).flat_map(|line| line.split(['\'', '"', ' ']));
    let paths = urls.filter_map(|word| {
        let rest = word.strip_prefix("http://").or_else(|| word.contains(":9900/").then_some(word))?;
        Some(format!("/{}", rest.split_once('/')?.1))
    });
    paths.collect()
}

/// Families that the commands of a text choose from the page of metrics.
fn families(text: &str) -> impl Iterator<Item = &str> {
    let end = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':';
    text.split("name[]=").skip(1).map(move |rest| rest.split(end).next().unwrap_or_default())
}

fn board_title(board: &serde_json::Value) -> &str {
    board["title"].as_str().unwrap_or_default()
}

/// What is wrong with a page, besides what its commands are answered.
fn faults(vocabulary: &Vocabulary, name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with(&format!("# {name}\n")) {
        faults.push("the title is not the name of the alert".to_owned());
    }
    let places: Vec<_> = SECTIONS.iter().map(|heading| text.find(&format!("\n{heading}\n"))).collect();
    if places.iter().any(Option::is_none) || !places.is_sorted() {
        faults.push(format!("the sections are not {SECTIONS:?}"));
    }
    for heading in SECTIONS {
        if section(text, heading).split_whitespace().count() < 10 {
            faults.push(format!("{heading} says nothing"));
        }
    }
    let diagnosis = section(text, "## Diagnosis");
    for name in families(text).filter(|name| vocabulary.family(name).is_none()) {
        faults.push(format!("{name} is no family of the page"));
    }
    if !diagnosis.contains("curl ") {
        faults.push("no command asks the sidecar itself".to_owned());
    }
    let of_prometheus: Vec<_> = blocks(text).into_iter().filter(|(language, _)| *language == "promql").collect();
    if !blocks(diagnosis).iter().any(|(language, _)| *language == "promql") {
        faults.push("no query to paste".to_owned());
    }
    for query in of_prometheus.iter().flat_map(|(_, block)| queries(block)) {
        faults.extend(vocabulary.faults(&Substitution::default().apply(&query)));
    }
    for query in of_prometheus.iter().flat_map(|(_, block)| queries(block)) {
        let Ok(expr) = parse(&Substitution::default().apply(&query)) else { continue };
        if selectors(&expr).into_iter().any(|selector| !matchers(selector).any(|matcher| matcher.name == "job")) {
            faults.push(format!("{query}: also asks of other jobs"));
        }
    }
    let first = diagnosis.trim_start().lines().next().unwrap_or_default();
    let opens = |title: &str| first.starts_with(&format!("Open the dashboard *{title}*"));
    if !boards().iter().any(|board| opens(board_title(&board.json).trim_start_matches("Golden Sidecar / "))) {
        faults.push(format!("{first}: is no dashboard to open"));
    }
    if blocks(text).iter().any(|(language, _)| language.is_empty()) {
        faults.push("a block of code does not say what it is".to_owned());
    }
    faults
}

#[test]
fn every_alert_has_a_page_that_can_be_worked_with() {
    let vocabulary = Vocabulary::real();
    let pages = below("docs/runbooks", ".md");
    let mut all = Vec::new();
    let file = rules();
    let alerts = file.groups.iter().flat_map(|group| &group.rules).filter(|rule| !rule.alert.is_empty());
    let names: std::collections::BTreeSet<&String> = alerts.map(|rule| &rule.alert).collect();
    for name in &names {
        match pages.iter().find(|(path, _)| *path == format!("docs/runbooks/{name}.md")) {
            Some((path, text)) => {
                all.extend(faults(vocabulary, name, text).into_iter().map(|fault| format!("{path}: {fault}")));
            }
            None => all.push(format!("docs/runbooks/{name}.md does not exist")),
        }
    }
    assert_none(&all);
}

/// A page that is right.
const SOUND: &str = "# GoldenX

## Meaning

Many requests of this service fail, and it goes on and on.

## Impact

Users see error pages instead of what they wanted to see.

## Diagnosis

Open the dashboard *Overview*, for this job.

Which route is it, and since when? Look at this:

```promql
sum by (http_route) (rate(golden_errors_total{job=\"shop\"}[5m]))
```

```sh
curl -gs 'http://sidecar:9900/metrics?name[]=golden_errors_total&name[]=golden_backend_up'
```

Then look at what changed in the last hour, as ever.

## Mitigation

Roll the last deployment back if it began with that one.
";

#[test]
fn a_page_that_cannot_be_worked_with_is_found() {
    let vocabulary = Vocabulary::real();
    assert_none(&faults(vocabulary, "GoldenX", SOUND));
    assert_eq!(asked(SOUND), ["/metrics?name[]=golden_errors_total&name[]=golden_backend_up"]);
    let broken = [
        ("# GoldenX\n", "# GoldenY\n"),
        ("## Impact\n", "## Effects\n"),
        ("golden_errors_total", "golden_error_total"),
        ("http_route", "route"),
        ("[5m]))", "[5m])"),
        ("curl -gs", "see"),
        ("name[]=golden_backend_up", "name[]=golden_backend_upp"),
        ("```promql", "```text"),
        ("```sh", "```"),
        ("{job=\"shop\"}", ""),
        ("*Overview*", "*Oversight*"),
        ("Roll the last deployment back if it began with that one.", "Roll back."),
    ];
    for (from, to) in broken {
        let text = SOUND.replace(from, to);
        assert!(!faults(vocabulary, "GoldenX", &text).is_empty(), "{to}");
    }
}

#[test]
fn what_a_page_asks_of_the_sidecar_is_answered() {
    let backend = Backend::always("ok");
    let sidecar = Sidecar::before(&backend).start();
    let mut faults = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (path, text) in below("docs/runbooks", ".md") {
        for asked in asked(&text).into_iter().filter(|asked| seen.insert(asked.clone())) {
            let status = sidecar.admin_get(&asked, "").status();
            if status != 200 {
                faults.push(format!("{path}: {asked} is answered {status}"));
            }
        }
    }
    assert_none(&faults);
    assert_eq!(sidecar.admin_get("/summary-of-nothing", "").status(), 404, "others are not answered");
}
