//! What watches the numbers: dashboards, recording and alerting rules, their tests and the reference of metrics, all from
//! one typed model. Boards are for one [`Objective`]; alerts read theirs from the metrics page.
//!
//! ```text
//!  objective ──► boards ──► dashboard ──► dashboards/*.json
//!                alerts ──► rules, cases ─► alerts/*.yml      (yaml)
//!                inhibit ─────────────────► alerts/alertmanager.inhibit.yml
//!  families  ──► reference ───────────────► docs/metrics.md
//! ```
//!
//! The files for the default objective are in the repository; `tests/pack.rs` compares them with what this room gives, and
//! `make pack` writes them. A new panel is an entry in [`boards`], a new alert one in [`alerts`] with a runbook in
//! `docs/runbooks`; the tests tell what else it needs.

pub mod alerts;
pub mod boards;
pub mod cases;
pub mod dashboard;
pub mod inhibit;
pub mod objective;
pub mod promql;
pub mod reference;
pub mod rules;
pub mod thresholds;
pub mod yaml;

pub use objective::{Impossible, Objective};

use std::path::Path;
use std::{fs, io};

use crate::config::units::format_duration;
use objective::number;
use yaml::{Yaml, text};

/// One file of the pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Below the folder of the pack.
    pub path: String,
    /// Its text, with a line end at its end.
    pub text: String,
}

/// The rule file, and its name seen from beside it.
const RULES: &str = "golden-sidecar.rules.yml";

/// What the sidecar has to be told, beside the rule file.
const SLOS: &str = "golden-sidecar.slos.yml";

/// All files of the pack for this objective.
#[must_use]
pub fn files(objective: &Objective) -> Vec<File> {
    let mut files = Vec::new();
    let mut file = |path: String, text: String| files.push(File { path, text });
    for board in boards::all(objective) {
        let name = board.uid.strip_prefix("golden-sidecar-").unwrap_or(board.uid);
        // Of values, keys that are texts and finite numbers nothing can fail.
        let text = serde_json::to_string_pretty(&board.json()).expect("a dashboard is JSON");
        file(format!("dashboards/{name}.json"), text + "\n");
    }
    let groups = alerts::groups();
    file(
        format!("alerts/{RULES}"),
        rules::groups_yaml(&groups)
            .document(&["Recording and alerting rules of golden-sidecar; generated, do not edit."]),
    );
    file("alerts/golden-sidecar.prometheusrule.yml".to_owned(), rules::prometheus_rule(&groups));
    file("alerts/alertmanager.inhibit.yml".to_owned(), inhibit::document());
    for suite in alerts::suites().into_iter().filter(|suite| !suite.cases.is_empty()) {
        file(
            format!("alerts/{}.test.yml", suite.name),
            suite.yaml(RULES, &groups).document(&["For `promtool test rules`; generated, do not edit."]),
        );
    }
    file(format!("alerts/{SLOS}"), slos(objective));
    file("docs/metrics.md".to_owned(), reference::markdown());
    files
}

/// The objective as the sidecar's configuration has it: it counts by it, says it on its page, and the alerts follow the page.
fn slos(objective: &Objective) -> String {
    let mut slo = vec![("name", text("all")), ("objective", Yaml::Plain(number(objective.ratio())))];
    slo.extend(objective.latency().map(|latency| ("latency", text(format_duration(latency)))));
    Yaml::Map(vec![("slos", Yaml::List(vec![Yaml::Map(slo)]))]).document(&[
        "The objective of this pack, for the sidecar: `golden-sidecar --config golden-sidecar.slos.yml --upstream URL`, or",
        "`slos` in the file that there is. Alerts read objectives from the metrics page, so they follow what is said here;",
        "generated, do not edit.",
    ])
}

/// What to do with the files below this folder, as commands and lines to paste.
#[must_use]
pub fn next_steps(objective: &Objective, folder: &Path) -> String {
    let at = |path: &str| folder.join(path).display().to_string();
    let within = match objective.latency() {
        Some(latency) => format!("within {}", format_duration(latency)),
        None => "however long they take".to_owned(),
    };
    format!(
        "\nPrometheus   rule_files: [{}]\nGrafana      import or provision {}\nAlertmanager inhibit_rules as in {}\n\
         sidecar      golden-sidecar --config {} --upstream URL\n\nAlerts follow the objectives that the sidecar states: \
         without the last line it is {} %, and no latency; with it, {} % {within}.\n",
        at(&format!("alerts/{RULES}")),
        at("dashboards"),
        at("alerts/alertmanager.inhibit.yml"),
        at(&format!("alerts/{SLOS}")),
        number(100.0 * Objective::default().ratio()),
        number(100.0 * objective.ratio()),
    )
}

/// Writes the pack below this folder, which need not exist. What is there under the same names is replaced.
///
/// # Errors
/// What the system says, with the path.
pub fn write(objective: &Objective, folder: &Path) -> io::Result<Vec<File>> {
    let files = files(objective);
    for File { path, text } in &files {
        let path = folder.join(path);
        let told = |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(told)?;
        }
        fs::write(&path, text).map_err(told)?;
    }
    Ok(files)
}
