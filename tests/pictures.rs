//! The dashboards as people see them: Grafana's own drawing code (`tools/render`) draws each from a live Prometheus under the
//! demo's traffic, and the pictures in the README show what the dashboards hold.
//!
//! Needs `node`, `chromium` and what `tools/setup.sh test` fetches. A missing one is a failure, not a reason to skip.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::program::Program;
use common::prometheus::{Options, Prometheus, Version, now_seconds};
use common::sidecar::program;
use common::wait_for;
use golden_sidecar::demo;
use golden_sidecar::pack::{self, Objective, boards};
use serde_json::Value as Json;

/// What people are shown, and what fits beside a browser's borders.
const WIDTH: u32 = 1440;

/// Enough for rates, and for each of the demo's pages to have been asked for.
const SCRAPES: f64 = 20.0;

#[test]
fn grafanas_drawing_code_draws_every_panel_from_a_live_prometheus() {
    let mut command = program();
    command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let demo = Program::spawn(command);
    let words = demo.wait_for_line("  admin ");
    let admin = words.iter().find_map(|word| word.strip_prefix("http://")).expect("an address");
    let admin: SocketAddr = admin.parse().expect("an address");

    let rules = pack::files(&Objective::default());
    let rules = rules.into_iter().find(|file| file.path.ends_with(".rules.yml")).expect("the rule file").text;
    let prometheus = Prometheus::start(Version::Newer, Options { rules: vec![rules], ..Options::scraping(admin) });
    assert!(
        wait_for(Duration::from_secs(60), || {
            prometheus.number("count_over_time(up[5m])", now_seconds()).is_some_and(|count| count >= SCRAPES)
        }),
        "{SCRAPES} scrapes"
    );

    let out = tempfile::tempdir().expect("temporary folder");
    let mut render = Command::new("node");
    render
        .current_dir(root())
        .env(
            "PATH",
            format!("{}:{}", std::env::var("PATH").unwrap_or_default(), root().join("target/venv/bin").display()),
        )
        .arg("tools/render/render.mjs")
        .args(["--prometheus", &format!("http://{}", prometheus.address), "--dashboards", "dashboards"])
        .args(["--range", "1m", "--scrape-interval", "1s", "--theme", "both", "--out"])
        .arg(out.path());
    let output = render.output().expect("node is installed (`make test` does it)");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");

    let report: Json = serde_json::from_str(&read(&out.path().join("report.json"))).expect("JSON");
    let drawn = report["dashboards"].as_array().expect("a list");
    assert_eq!(drawn.len(), 2 * boards::all(&Objective::default()).len(), "each in both themes");
    let mut faults = Vec::new();
    for dashboard in drawn {
        let name = |panel: &Json| format!("{} ({}): {}", dashboard["title"], dashboard["theme"], panel["title"]);
        assert_eq!(png_size(&out.path().join(dashboard["picture"].as_str().expect("a name"))).0, WIDTH);
        for panel in dashboard["panels"].as_array().expect("a list") {
            let texts = panel["texts"].to_string();
            if !panel["errors"].as_array().expect("a list").is_empty() {
                faults.push(format!("{}: {}", name(panel), panel["errors"]));
            }
            // What a panel without data says is said in its own words.
            if texts.contains("No data") || texts.contains("NaN") {
                faults.push(format!("{}: {texts}", name(panel)));
            }
            // What can be scrolled to is not lost.
            let lost = panel["overflow"].as_array().expect("a list");
            let lost: Vec<_> = lost.iter().filter(|text| text["scrolled"] != true).collect();
            if !lost.is_empty() {
                faults.push(format!("{}: cut off: {lost:?}", name(panel)));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_pictures_in_the_readme_show_the_panels_that_the_dashboards_have() {
    let folder = root().join("docs/img");
    let drawn: BTreeMap<String, Vec<String>> =
        serde_json::from_str(&read(&folder.join("panels.json"))).expect("panels.json");
    let mut boards_have = BTreeMap::new();
    // The pictures are of the pack for what the demo promises to all.
    let promised = &demo::slos()[0];
    let objective = Objective::new(Some(100.0 * promised.objective), promised.latency).expect("possible");
    for board in boards::all(&objective) {
        let name = board.uid.strip_prefix("golden-sidecar-").expect("our prefix");
        for theme in ["light", "dark"] {
            let picture = format!("{name}-{theme}.png");
            assert_eq!(png_size(&folder.join(&picture)).0, WIDTH, "{picture}");
            assert!(
                read(&root().join("README.md")).contains(&format!("docs/img/{picture}")),
                "{picture} in the README"
            );
        }
        let json = board.json();
        let panels = json["panels"].as_array().expect("panels");
        let titles = panels.iter().map(|panel| panel["title"].as_str().expect("a title").to_owned()).collect();
        boards_have.insert(board.uid.to_owned(), titles);
    }
    assert_eq!(drawn, boards_have, "the dashboards have changed; run: make pictures");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Width and height of a PNG, from its header.
fn png_size(path: &Path) -> (u32, u32) {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n", "{}", path.display());
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    (number(16), number(20))
}
