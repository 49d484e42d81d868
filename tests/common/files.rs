//! The files of the pack as their readers get them: text of JSON and YAML, nothing of the model.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value as Json;

/// A dashboard file.
#[derive(Clone, Debug)]
pub struct Board {
    /// Its path below the repository.
    pub path: String,
    /// As it is stored.
    pub text: String,
    /// What it says.
    pub json: Json,
}

/// A rule file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// In order.
    pub groups: Vec<Group>,
}

/// Rules that are evaluated together.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Unique in the file.
    pub name: String,
    /// Between evaluations.
    pub interval: String,
    /// In order.
    pub rules: Vec<Rule>,
}

/// A rule: `alert` or `record` is empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Name of an alert.
    pub alert: String,
    /// Name of a recorded series.
    pub record: String,
    /// PromQL.
    pub expr: String,
    /// How long it must hold.
    #[serde(rename = "for")]
    pub hold: String,
    /// How long it goes on.
    pub keep_firing_for: String,
    /// More labels.
    pub labels: BTreeMap<String, String>,
    /// For people.
    pub annotations: BTreeMap<String, String>,
}

/// The folder of the repository.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All dashboards of the repository.
#[must_use]
pub fn boards() -> Vec<Board> {
    let mut boards: Vec<Board> = below("dashboards", ".json")
        .into_iter()
        .map(|(path, text)| {
            let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
            Board { path, text, json }
        })
        .collect();
    assert!(!boards.is_empty(), "no dashboards");
    boards.sort_by(|a, b| a.path.cmp(&b.path));
    boards
}

/// The rule file of the repository.
#[must_use]
pub fn rules() -> RuleFile {
    let mut files = below("alerts", ".rules.yml");
    assert_eq!(files.len(), 1, "one rule file");
    rules_of(&files.remove(0).1)
}

/// Its text.
#[must_use]
pub fn rules_text() -> String {
    below("alerts", ".rules.yml").remove(0).1
}

/// A rule file from its text.
#[must_use]
#[track_caller]
pub fn rules_of(text: &str) -> RuleFile {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Path (below the repository) and text of each file in a folder whose name ends so, ordered. No folder, no files.
#[must_use]
pub fn below(folder: &str, end: &str) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(root().join(folder)) else { return Vec::new() };
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut files: Vec<_> = names
        .filter(|name| name.ends_with(end))
        .map(|name| {
            let path = format!("{folder}/{name}");
            let text = read(&root().join(&path));
            (path, text)
        })
        .collect();
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All panels, those in closed rows too; rows themselves are none.
#[must_use]
pub fn panels(board: &Json) -> Vec<&Json> {
    let direct = list(&board["panels"]);
    let inside = direct.iter().flat_map(|panel| list(&panel["panels"]));
    direct.iter().chain(inside).filter(|panel| panel["type"] != "row").collect()
}

/// All units of a panel: those of single series or columns, then its own.
#[must_use]
pub fn units(panel: &Json) -> Vec<&str> {
    let overridden = list(&panel["fieldConfig"]["overrides"]).iter();
    let overridden = overridden.flat_map(|o| list(&o["properties"])).filter(|p| p["id"] == "unit");
    overridden.map(|property| &property["value"]).chain([&panel["fieldConfig"]["defaults"]["unit"]]).map(text).collect()
}

/// The queries of a panel.
#[must_use]
pub fn targets(panel: &Json) -> &[Json] {
    list(&panel["targets"])
}

/// A list, or nothing.
#[must_use]
pub fn list(json: &Json) -> &[Json] {
    json.as_array().map_or(&[], Vec::as_slice)
}

/// A text, or an empty one.
#[must_use]
pub fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_default()
}

/// The variables.
#[must_use]
pub fn variables(board: &Json) -> &[Json] {
    list(&board["templating"]["list"])
}

/// The query of a query variable.
#[must_use]
pub fn variable_query(variable: &Json) -> &str {
    variable["query"].as_str().unwrap_or_else(|| text(&variable["query"]["query"]))
}

/// What `label_values(SELECTOR, LABEL)` asks: the selector, if there is one, and the label.
#[must_use]
pub fn label_values(query: &str) -> Option<(Option<&str>, &str)> {
    let inner = query.trim().strip_prefix("label_values(")?.strip_suffix(')')?;
    match inner.rsplit_once(',') {
        // A comma inside of the braces parts matchers.
        Some((selector, label)) if !label.contains('}') => Some((Some(selector.trim()), label.trim())),
        _ => Some((None, inner.trim())),
    }
}

/// Seconds of a duration as Prometheus writes it.
#[must_use]
pub fn seconds(duration: &str) -> Option<f64> {
    let (mut rest, mut sum) = (duration, 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        sum += number
            * match &rest[..end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                "w" => 604_800.0,
                "y" => 31_536_000.0,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Some(sum)
}
