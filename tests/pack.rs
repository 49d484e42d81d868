//! Dashboards and alerts: what the repository holds is what the model gives, and the real promtool takes it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use golden_sidecar::pack::{self, Objective};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_files_in_the_repository_are_those_of_the_model() {
    let files = pack::files(&Objective::default());
    let mut drifted = Vec::new();
    for file in &files {
        if fs::read_to_string(root().join(&file.path)).ok().as_ref() != Some(&file.text) {
            drifted.push(file.path.clone());
        }
    }
    // Nor is there one that the model no longer gives.
    for folder in ["dashboards", "alerts"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy());
            if !files.iter().any(|file| file.path == path) {
                drifted.push(path);
            }
        }
    }
    assert!(drifted.is_empty(), "{drifted:?} are not what the model gives; run: make pack");
}

#[test]
fn promtool_takes_the_rules_and_every_case_holds() {
    let suites = pack::alerts::suites();
    let mut arguments = vec!["test".to_owned(), "rules".to_owned()];
    arguments.extend(suites.iter().map(|suite| format!("{}.test.yml", suite.name)));
    promtool(&["check", "rules", "golden-sidecar.rules.yml"].map(str::to_owned), &root().join("alerts"));
    promtool(&arguments, &root().join("alerts"));
}

fn promtool(arguments: &[String], folder: &Path) {
    let output = Command::new("promtool").args(arguments).current_dir(folder).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}
