//! Prometheus, promtool and Alertmanager as processes, in the oldest version that we support and in a newer one.
//!
//! A server starts with rules, with an Alertmanager to tell, and with days of history that were back-filled before:
//! [`Backfill`] makes them of functions of time. It evaluates rules at the present moment only; what an alert would have done
//! at other times, or after hours of waiting, tells [`Prometheus::would_fire`]. Recording rules have no values over
//! back-filled history, unless [`Prometheus::record`] makes them.
//!
//! The programs come from `tools/setup.sh test`. A missing one is a failure, not a reason to skip.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;

use super::page::{Labels, Page};
use super::program::Ended;
use super::sidecar::free_port;
use super::wire::Wire;
use super::{Client, PATIENCE, wait_for, wait_until};

/// How long an answer may take: a query over three days with a window of three days at each step is seconds of work.
const QUERY_PATIENCE: Duration = Duration::from_secs(60);

/// Points of one range query; the server refuses more than 11 000.
const RANGE_POINTS: usize = 10_000;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The machine's own; on Debian bookworm 2.42, the oldest version that rules and dashboards must work in.
    Oldest,
    /// 2.53, that of Debian trixie.
    Newer,
}

/// Both, for tests that loop over them.
pub const VERSIONS: [Version; 2] = [Version::Oldest, Version::Newer];

/// What a server keeps of a histogram that is offered in both kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Histograms {
    /// The series with `le`.
    Classic,
    /// One series of native histograms, and nothing else.
    Native,
    /// Both; the newer version only.
    Both,
}

/// Targets with the same `job`.
#[derive(Clone, Debug)]
pub struct Job {
    /// The label `job`.
    pub name: String,
    /// Whose `/metrics` is read; each is an `instance`.
    pub targets: Vec<SocketAddr>,
    /// More labels of all of their series.
    pub labels: Vec<(String, String)>,
}

/// How a server is started. The default scrapes nothing.
#[derive(Debug)]
pub struct Options {
    /// What is scraped.
    pub jobs: Vec<Job>,
    /// From scrape to scrape; also the most that one may take.
    pub interval: Duration,
    /// From evaluation to evaluation, of all rule groups: their own `interval` lines are replaced, so that no test waits for
    /// half a minute.
    pub evaluation: Duration,
    /// What is kept of histograms.
    pub histograms: Histograms,
    /// Texts of rule files. They are checked by promtool first.
    pub rules: Vec<String>,
    /// Who is told of alerts.
    pub alertmanager: Option<SocketAddr>,
    /// What is there before the first scrape.
    pub data: Option<Data>,
    /// What is older is thrown away, a block of some hours at a time.
    pub retention: Duration,
    /// The start waits until all targets are up; `false` for targets that are not.
    pub wait_for_targets: bool,
}

/// A running server; ended when dropped.
pub struct Prometheus {
    /// The address of its HTTP interface.
    pub address: SocketAddr,
    version: Version,
    options: Options,
    running: Option<Ended>,
    folder: tempfile::TempDir,
}

/// A series with its value at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// All labels, `__name__` too where it has one.
    pub labels: Labels,
    /// The number; the count of observations where it is a native histogram.
    pub value: f64,
    /// Lower edge, upper edge and count of each bucket of a native histogram; empty for a number.
    pub buckets: Vec<(f64, f64, f64)>,
}

/// A series over a range.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// All labels.
    pub labels: Labels,
    /// Seconds since 1970 and value, ascending; steps without a value are missing.
    pub points: Vec<(f64, f64)>,
}

/// An exemplar as the HTTP API gives it.
#[derive(Clone, Debug)]
pub struct Exemplar {
    /// The labels of its series.
    pub labels: Labels,
    /// Its own labels.
    pub trace: Labels,
    /// The value that it is an example of.
    pub value: f64,
    /// When, in seconds since 1970.
    pub at_seconds: f64,
}

/// A rule as the server knows it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The group that it is in.
    pub group: String,
    /// Its alert or its record.
    pub name: String,
    /// Whether it is an alert.
    pub alerting: bool,
    /// `ok`, `err`, or `unknown` before the first evaluation.
    pub health: String,
    /// The error of the last evaluation; empty when there was none.
    pub last_error: String,
    /// `inactive`, `pending` or `firing`; empty for recording rules.
    pub state: String,
    /// Its expression, as the server prints it.
    pub expression: String,
    /// Its `for`.
    pub hold: Duration,
    /// The labels that it adds, as they are written.
    pub labels: Labels,
}

/// An alert that is pending or firing.
#[derive(Clone, Debug)]
pub struct Alert {
    /// All labels, `alertname` too.
    pub labels: Labels,
    /// The annotations, filled in.
    pub annotations: Labels,
    /// `pending` or `firing`.
    pub state: String,
}

/// A scraped target.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its labels.
    pub labels: Labels,
    /// `up`, `down`, or `unknown` before the first scrape.
    pub health: String,
    /// Of the last scrape; empty when it went well.
    pub last_error: String,
}

/// When an alert would be firing.
#[derive(Clone, Debug, PartialEq)]
pub struct Firing {
    /// The labels of its series.
    pub labels: Labels,
    /// From this evaluation, in seconds since 1970.
    pub from: f64,
    /// To this one, the last.
    pub to: f64,
}

/// Seconds since 1970.
#[must_use]
pub fn now_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

// === impl Version ===

impl Version {
    fn program(self, name: &str) -> PathBuf {
        match self {
            Version::Oldest => name.into(),
            Version::Newer => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/prometheus-new/usr/bin").join(name),
        }
    }
}

// === impl Job ===

impl Job {
    /// With one target and no more labels.
    #[must_use]
    pub fn new(name: &str, target: SocketAddr) -> Job {
        Job { name: name.into(), targets: vec![target], labels: Vec::new() }
    }
}

// === impl Options ===

impl Default for Options {
    fn default() -> Options {
        Options {
            jobs: Vec::new(),
            interval: Duration::from_secs(1),
            evaluation: Duration::from_secs(1),
            histograms: Histograms::Classic,
            rules: Vec::new(),
            alertmanager: None,
            data: None,
            // The longest window of an objective, and a day.
            retention: days(31),
            wait_for_targets: true,
        }
    }
}

impl Options {
    /// Scrapes one target with the job `sidecar`.
    #[must_use]
    pub fn scraping(target: SocketAddr) -> Options {
        Options { jobs: vec![Job::new("sidecar", target)], ..Options::default() }
    }
}

/// So many days.
#[must_use]
pub const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

// === impl Prometheus ===

impl Prometheus {
    /// Starts one and waits until it is ready, and all of its targets are up.
    #[must_use]
    #[track_caller]
    pub fn start(version: Version, mut options: Options) -> Prometheus {
        let folder = tempfile::tempdir().expect("a folder");
        let promtool = Promtool::new(version);
        for (number, rules) in options.rules.iter().enumerate() {
            let path = folder.path().join(format!("{number}.rules.yml"));
            fs::write(&path, evaluated_every(rules, options.evaluation)).expect("write");
            promtool.check_rules(&path).unwrap_or_else(|error| panic!("{version:?}: {error}"));
        }
        fs::write(folder.path().join("prometheus.yml"), options.config(version)).expect("write");
        let data = options.data.take().unwrap_or_else(Data::empty);
        let into = folder.path().join("data");
        fs::create_dir(&into).expect("create");
        data.move_into(&into);
        let mut prometheus =
            Prometheus { address: ([127, 0, 0, 1], 0).into(), version, options, running: None, folder };
        prometheus.run();
        prometheus
    }

    #[track_caller]
    fn run(&mut self) {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let mut features = String::from("exemplar-storage");
        if self.options.histograms != Histograms::Classic {
            features += ",native-histograms";
        }
        // Somebody else may take the port in between.
        for _ in 0..5 {
            let port = free_port();
            self.address = ([127, 0, 0, 1], port).into();
            let log = OpenOptions::new().create(true).append(true).open(self.log_path()).expect("create");
            let running = Command::new(self.version.program("prometheus"))
                .arg(format!("--config.file={}", path("prometheus.yml")))
                .arg(format!("--storage.tsdb.path={}", path("data")))
                .arg(format!("--storage.tsdb.retention.time={}s", self.options.retention.as_secs()))
                // Blocks that were back-filled stay as they are: to merge them is work that nobody looks at.
                .args(["--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h"])
                // What fires before Alertmanager is known is told to nobody, and only after a minute again by default.
                .arg("--rules.alert.resend-delay=5s")
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .arg(format!("--enable-feature={features}"))
                .args(["--log.level=debug"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn();
            let mut running = Ended(running.expect("installed (`make test` does it)"));
            let ready = || get(self.address, "/-/ready").is_ok_and(|(status, _)| status == 200);
            if wait_for(PATIENCE * 3, || running.has_ended() || ready()) && !running.has_ended() {
                self.running = Some(running);
                if self.options.wait_for_targets {
                    self.wait_for_targets();
                }
                return;
            }
        }
        panic!("Prometheus {:?} starts on none of five ports: {:#?}", self.version, self.complaints());
    }

    #[track_caller]
    fn wait_for_targets(&self) {
        let expected = self.options.targets();
        let mut targets = Vec::new();
        // It takes up to five seconds to begin.
        let up = wait_for(PATIENCE * 3, || {
            targets = self.targets();
            // It tells that a target is up a moment before what was scraped can be asked for.
            targets.len() == expected
                && targets.iter().all(|target| target.health == "up")
                && (expected == 0
                    || self.number("count(up == 1)", now_seconds()).is_some_and(|stored| stored >= expected as f64))
        });
        assert!(up, "{:?} cannot scrape: {targets:#?}; {:#?}", self.version, self.complaints());
    }

    /// Gives recording rules the values that they would have had: evaluates the rules of this text at each step from `start`
    /// to `end` (seconds since 1970) and starts the server again with the result. Rules that need the values of others come
    /// in a later call: each sees what was recorded before.
    ///
    /// As `promtool tsdb create-blocks-from rules` does it, but for its block of each rule and two hours: over days those
    /// take a minute.
    #[must_use]
    #[track_caller]
    pub fn record(mut self, rules: &str, start: f64, end: f64, every: Duration) -> Prometheus {
        let json: Json = serde_saphyr::from_str(rules).unwrap_or_else(|error| panic!("{error}\n{rules}"));
        let mut recorded = Backfill { end, length: Duration::ZERO, step: every, text: String::new() };
        for rule in list(&json["groups"]).iter().flat_map(|group| list(&group["rules"])) {
            let name = rule["record"].as_str().expect("a recording rule");
            for mut series in self.query_range(&text(&rule["expr"]), start, end, every) {
                series.labels.remove("__name__");
                let labels: Vec<_> = series.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
                recorded.samples(name, &labels, series.points.into_iter());
            }
        }
        let data = recorded.write(self.version);
        self.stop();
        data.move_into(&self.folder.path().join("data"));
        self.run();
        self
    }

    /// Ends it in order, so that the next start finds what was scraped.
    #[track_caller]
    fn stop(&mut self) {
        let mut running = self.running.take().expect("it runs");
        let pid = running.0.id().cast_signed();
        // SAFETY: kill has no memory effect, and the child is not reaped before `running` is dropped.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0, "kill");
        assert!(wait_for(PATIENCE * 3, || running.has_ended()), "{:?} does not end", self.version);
    }

    // --- Questions ---

    /// The data of an answer of the HTTP API.
    pub fn api(&self, path: &str) -> Result<Json, String> {
        let (status, body) = get(self.address, path).map_err(|error| format!("{path}: {error}"))?;
        let mut json: Json =
            serde_json::from_str(&body).map_err(|error| format!("{path}: {status}, {error}: {body}"))?;
        if json["status"] != "success" {
            let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
            return Err(format!("{}: {}", text("errorType"), text("error")));
        }
        Ok(json["data"].take())
    }

    #[track_caller]
    fn ask(&self, path: &str) -> Json {
        self.api(path).unwrap_or_else(|error| panic!("{:?}: {path}: {error}", self.version))
    }

    /// An instant query at a moment (seconds since 1970), or what is wrong with it.
    pub fn try_query(&self, expression: &str, at: f64) -> Result<Vec<Sample>, String> {
        let data = self.api(&format!("/api/v1/query?query={}&time={at}", encoded(expression)))?;
        let result = &data["result"];
        match data["resultType"].as_str() {
            Some("vector") => Ok(list(result).iter().map(Sample::of).collect()),
            Some("scalar") => {
                Ok(vec![Sample { labels: Labels::new(), value: number(&result[1]), buckets: Vec::new() }])
            }
            kind => Err(format!("this is a {kind:?}, neither vector nor scalar")),
        }
    }

    /// An instant query at a moment, in seconds since 1970.
    #[track_caller]
    pub fn query(&self, expression: &str, at: f64) -> Vec<Sample> {
        self.try_query(expression, at).unwrap_or_else(|error| panic!("{:?}: {expression}: {error}", self.version))
    }

    /// The value of the only series of an instant query; `None` when there is no series.
    #[track_caller]
    pub fn number(&self, expression: &str, at: f64) -> Option<f64> {
        let result = self.query(expression, at);
        assert!(result.len() <= 1, "{:?}: {expression} has more than one series: {result:?}", self.version);
        result.first().map(|sample| sample.value)
    }

    /// A query at each step, both ends included. However many steps: the server's limit is kept by asking in parts.
    #[track_caller]
    pub fn query_range(&self, expression: &str, start: f64, end: f64, step: Duration) -> Vec<Series> {
        let step = step.as_secs_f64();
        let mut found: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        // The server counts in milliseconds; half of one is no step.
        let steps = ((end - start + 0.0005) / step).floor() as usize;
        for first in (0..=steps).step_by(RANGE_POINTS) {
            let last = (first + RANGE_POINTS - 1).min(steps);
            let (from, to) = (start + first as f64 * step, start + last as f64 * step);
            let query = encoded(expression);
            let path = format!("/api/v1/query_range?query={query}&start={from:.3}&end={to:.3}&step={step}");
            let data = self.api(&path).unwrap_or_else(|error| panic!("{:?}: {expression}: {error}", self.version));
            for series in list(&data["result"]) {
                let points = series["values"].as_array();
                let points = points.unwrap_or_else(|| panic!("{expression} is no number at every step: {series}"));
                let points = points.iter().map(|point| (number(&point[0]), number(&point[1])));
                found.entry(labels(&series["metric"])).or_default().extend(points);
            }
        }
        found.into_iter().map(|(labels, points)| Series { labels, points }).collect()
    }

    /// When an alert with this expression and `for` would have been firing, had it been evaluated at each step: of each
    /// series the runs of steps that it is there at, without their beginnings. Ordered by labels and time.
    #[track_caller]
    pub fn would_fire(&self, expression: &str, hold: Duration, start: f64, end: f64, step: Duration) -> Vec<Firing> {
        let series = self.query_range(expression, start, end, step);
        series
            .iter()
            .flat_map(|series| {
                let labels = series.labels.iter().filter(|(name, _)| *name != "__name__");
                let labels: Labels = labels.map(|(name, value)| (name.clone(), value.clone())).collect();
                let runs = firing_runs(&series.points, hold.as_secs_f64(), step.as_secs_f64());
                runs.into_iter().map(move |(from, to)| Firing { labels: labels.clone(), from, to })
            })
            .collect()
    }

    /// What all of the server's alerts would have done, each with its own `for`, had they been evaluated at each step. Labels
    /// are those of the alerts: with `alertname` and what the rules add (templates are not filled in).
    #[track_caller]
    pub fn all_that_would_fire(&self, start: f64, end: f64, step: Duration) -> Vec<Firing> {
        let mut all = Vec::new();
        for rule in self.rules().into_iter().filter(|rule| rule.alerting) {
            for mut firing in self.would_fire(&rule.expression, rule.hold, start, end, step) {
                firing.labels.extend(rule.labels.clone());
                firing.labels.insert("alertname".into(), rule.name.clone());
                all.push(firing);
            }
        }
        all
    }

    /// Exemplars of a selector between two moments.
    #[track_caller]
    pub fn exemplars(&self, selector: &str, start: f64, end: f64) -> Vec<Exemplar> {
        let data = self.ask(&format!("/api/v1/query_exemplars?query={}&start={start}&end={end}", encoded(selector)));
        let of_series = |series: &Json| -> Vec<Exemplar> {
            let of = labels(&series["seriesLabels"]);
            let exemplars = list(&series["exemplars"]).iter();
            exemplars
                .map(|exemplar| Exemplar {
                    labels: of.clone(),
                    trace: labels(&exemplar["labels"]),
                    value: number(&exemplar["value"]),
                    at_seconds: number(&exemplar["timestamp"]),
                })
                .collect()
        };
        list(&data).iter().flat_map(of_series).collect()
    }

    /// All rules, in the order of their files.
    #[track_caller]
    pub fn rules(&self) -> Vec<Rule> {
        let data = self.ask("/api/v1/rules");
        let of_group = |group: &Json| -> Vec<Rule> {
            let rules = list(&group["rules"]).iter();
            rules
                .map(|rule| Rule {
                    group: text(&group["name"]),
                    name: text(&rule["name"]),
                    alerting: rule["type"] == "alerting",
                    health: text(&rule["health"]),
                    last_error: text(&rule["lastError"]),
                    state: text(&rule["state"]),
                    expression: text(&rule["query"]),
                    hold: Duration::from_secs_f64(rule["duration"].as_f64().unwrap_or_default()),
                    labels: rule["labels"].as_object().map_or_else(Labels::new, |_| labels(&rule["labels"])),
                })
                .collect()
        };
        list(&data["groups"]).iter().flat_map(of_group).collect()
    }

    /// All rules once each was evaluated; panics when one of them has an error.
    #[track_caller]
    pub fn rules_when_evaluated(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let evaluated = wait_for(PATIENCE * 3, || {
            rules = self.rules();
            rules.iter().all(|rule| rule.health != "unknown")
        });
        let bad: Vec<_> = rules.iter().filter(|rule| rule.health != "ok").collect();
        assert!(evaluated && bad.is_empty(), "{:?}: {bad:#?}", self.version);
        rules
    }

    /// All alerts that are pending or firing.
    #[track_caller]
    pub fn alerts(&self) -> Vec<Alert> {
        let data = self.ask("/api/v1/alerts");
        let alerts = list(&data["alerts"]).iter();
        alerts
            .map(|alert| Alert {
                labels: labels(&alert["labels"]),
                annotations: labels(&alert["annotations"]),
                state: text(&alert["state"]),
            })
            .collect()
    }

    /// The names of all alerts that are firing.
    #[track_caller]
    pub fn firing(&self) -> BTreeSet<String> {
        let alerts = self.alerts().into_iter().filter(|alert| alert.state == "firing");
        alerts.map(|alert| alert.labels["alertname"].clone()).collect()
    }

    /// Waits until an alert of this name has this state, and gives it.
    #[track_caller]
    pub fn alert_when(&self, name: &str, state: &str, deadline: Duration) -> Alert {
        let (mut alerts, mut found) = (Vec::new(), None);
        let _ = wait_for(deadline, || {
            alerts = self.alerts();
            found = alerts.iter().find(|alert| alert.labels["alertname"] == name && alert.state == state).cloned();
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("{:?}: {name} is not {state} within {deadline:?}: {alerts:#?}", self.version))
    }

    /// All targets that are scraped.
    #[track_caller]
    pub fn targets(&self) -> Vec<Target> {
        let data = self.ask("/api/v1/targets?state=active");
        let targets = list(&data["activeTargets"]).iter();
        targets
            .map(|target| Target {
                labels: labels(&target["labels"]),
                health: text(&target["health"]),
                last_error: text(&target["lastError"]),
            })
            .collect()
    }

    /// The type of a family as it was scraped last; `None` when it was not.
    #[track_caller]
    pub fn kind(&self, family: &str) -> Option<String> {
        let data = self.ask(&format!("/api/v1/metadata?metric={family}"));
        let known = data[family].as_array()?;
        assert_eq!(known.len(), 1, "{:?}: {family} has two types: {known:?}", self.version);
        Some(text(&known[0]["type"]))
    }

    // --- Its well-being ---

    /// All targets are well, nothing of what was scraped was thrown away, and the server complained of nothing.
    #[track_caller]
    pub fn assert_all_was_taken(&self) {
        let expected = self.options.targets();
        wait_until("all targets are well", || {
            let targets = self.targets();
            targets.len() == expected && targets.iter().all(|t| t.health == "up" && t.last_error.is_empty())
        });
        let (_, page) = get(self.address, "/metrics").expect("its own metrics");
        let page = Page::parse(&page);
        for what in [
            "sample_out_of_order",
            "sample_out_of_bounds",
            "sample_duplicate_timestamp",
            "exemplar_out_of_order",
            "exceeded_sample_limit",
            "exceeded_body_size_limit",
        ] {
            let dropped = page.value(&format!("prometheus_target_scrapes_{what}_total"), &[]);
            assert_eq!(dropped, 0.0, "{:?}: {what}; {:#?}", self.version, self.complaints());
        }
        // A scrape that took more than its second says that this machine is busy, and nothing of the page.
        let slow = |line: &String| line.contains("msg=\"Scrape failed\"") && line.contains("context deadline exceeded");
        let complaints: Vec<_> = self.complaints().into_iter().filter(|line| !slow(line)).collect();
        assert!(complaints.is_empty(), "{:?}: {complaints:#?}", self.version);
    }

    /// What it complained of. A failed scrape is a matter for debugging to it, not to us.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log_path()).expect("its log");
        let quiet = |line: &str| line.contains("level=debug") || line.contains("level=info");
        log.lines().filter(|line| line.contains(" err=") || !quiet(line)).map(str::to_owned).collect()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Options {
    fn targets(&self) -> usize {
        self.jobs.iter().map(|job| job.targets.len()).sum()
    }

    fn config(&self, version: Version) -> String {
        let Options { jobs, interval, evaluation, histograms, rules, alertmanager, .. } = self;
        let every = interval.as_millis();
        let mut text = format!(
            "global: {{scrape_interval: {every}ms, scrape_timeout: {every}ms, evaluation_interval: {}ms}}\n",
            evaluation.as_millis()
        );
        // JSON is YAML, and knows how to quote.
        let files: Vec<_> = (0..rules.len()).map(|number| format!("{number}.rules.yml")).collect();
        let _ = writeln!(text, "rule_files: {}", Json::from(files));
        if let Some(address) = alertmanager {
            let _ = writeln!(text, "alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{address}']}}]}}]}}");
        }
        let _ = writeln!(text, "scrape_configs:{}", if jobs.is_empty() { " []" } else { "" });
        for Job { name, targets, labels } in jobs {
            let targets: Vec<_> = targets.iter().map(ToString::to_string).collect();
            let labels: serde_json::Map<_, _> =
                labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            let group = serde_json::json!({"targets": targets, "labels": labels});
            let _ = writeln!(text, "  - job_name: {}\n    static_configs: [{group}]", Json::from(name.as_str()));
            if *histograms == Histograms::Both {
                assert_ne!(version, Version::Oldest, "2.42 stores native histograms instead of classic ones, not both");
                text += "    scrape_classic_histograms: true\n";
            }
        }
        text
    }
}

/// The rules with another interval in every group that has one of its own.
fn evaluated_every(rules: &str, every: Duration) -> String {
    let mut text = String::new();
    for line in rules.lines() {
        let (indent, word) = line.split_at(line.len() - line.trim_start_matches([' ', '-']).len());
        if word.starts_with("interval:") {
            let _ = writeln!(text, "{indent}interval: {}ms", every.as_millis());
        } else {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

/// First and last moment of each time that an alert is firing, from the moments at which its expression has a value.
fn firing_runs(points: &[(f64, f64)], hold: f64, step: f64) -> Vec<(f64, f64)> {
    // Moments are in milliseconds, so are their differences: half of one on either side.
    let follows = |a: &(f64, f64), b: &(f64, f64)| b.0 - a.0 < step + 0.0005;
    let runs = points.chunk_by(follows);
    runs.filter_map(|run| {
        let last = run.last()?.0;
        let from = run.iter().find(|(at, _)| at - run[0].0 > hold - 0.0005)?.0;
        Some((from, last))
    })
    .collect()
}

// === impl Sample ===

impl Sample {
    fn of(series: &Json) -> Sample {
        let histogram = &series["histogram"][1];
        let buckets = histogram["buckets"].as_array().map_or(&[][..], Vec::as_slice);
        let buckets = buckets.iter().map(|bucket| (number(&bucket[1]), number(&bucket[2]), number(&bucket[3])));
        let value = if histogram.is_null() { &series["value"][1] } else { &histogram["count"] };
        Sample { labels: labels(&series["metric"]), value: number(value), buckets: buckets.collect() }
    }
}

// === History ===

/// The data of a server that is not running: blocks, or nothing.
#[derive(Debug)]
pub struct Data {
    folder: tempfile::TempDir,
}

/// History that is made of functions of time.
///
/// Functions get the age of a sample: its seconds before the end, 0 for the last one.
#[derive(Clone, Debug)]
pub struct Backfill {
    /// The moment of the last sample, in seconds since 1970.
    pub end: f64,
    /// How long before that the first one is.
    pub length: Duration,
    /// From sample to sample.
    pub step: Duration,
    text: String,
}

impl Data {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Data {
        Data { folder: tempfile::tempdir().expect("a folder") }
    }

    /// Blocks into the folder of a server; both are below the folder of temporary files.
    fn move_into(self, folder: &Path) {
        for entry in fs::read_dir(self.folder.path()).expect("its folder") {
            let path = entry.expect("an entry").path();
            if path.join("meta.json").exists() {
                fs::rename(&path, folder.join(path.file_name().expect("a name"))).expect("rename");
            }
        }
    }
}

// === impl Backfill ===

impl Backfill {
    /// That ends at this moment: a server that starts with it goes on from there. It takes no sample that is older than the
    /// end of its newest block, so history must not end in the future.
    #[must_use]
    pub fn until_now(length: Duration, step: Duration) -> Backfill {
        // Whole milliseconds: that is what is stored.
        let end = (now_seconds() * 1_000.0).floor() / 1_000.0;
        Backfill { end, length, step, text: String::new() }
    }

    /// When the first sample is, in seconds since 1970.
    #[must_use]
    pub fn start(&self) -> f64 {
        self.end - self.steps() as f64 * self.step.as_secs_f64()
    }

    /// A series with a gap wherever the function gives nothing.
    #[must_use]
    pub fn series(
        mut self,
        name: &str,
        labels: &[(&str, &str)],
        mut value: impl FnMut(f64) -> Option<f64>,
    ) -> Backfill {
        let steps = (0..=self.steps()).rev();
        let ages = steps.map(|step| step as f64 * self.step.as_secs_f64());
        let points: Vec<_> = ages.filter_map(|age| Some((self.end - age, value(age)?))).collect();
        self.samples(name, labels, points.into_iter());
        self
    }

    /// A series with these values at these moments, in seconds since 1970.
    fn samples(&mut self, name: &str, labels: &[(&str, &str)], points: impl Iterator<Item = (f64, f64)>) {
        let mut series = String::from(name);
        for (number, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(series, "{}{label}=\"{value}\"", if number == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            series.push('}');
        }
        for (at, value) in points {
            let _ = match value {
                f64::INFINITY => writeln!(self.text, "{series} +Inf {at:.3}"),
                f64::NEG_INFINITY => writeln!(self.text, "{series} -Inf {at:.3}"),
                value => writeln!(self.text, "{series} {value} {at:.3}"),
            };
        }
    }

    /// A gauge that is there all the time.
    #[must_use]
    pub fn gauge(self, name: &str, labels: &[(&str, &str)], mut value: impl FnMut(f64) -> f64) -> Backfill {
        self.series(name, labels, |age| Some(value(age)))
    }

    /// A counter that begins at 0 and rises by so much per second.
    #[must_use]
    pub fn counter(self, name: &str, labels: &[(&str, &str)], mut per_second: impl FnMut(f64) -> f64) -> Backfill {
        let (step, first) = (self.step.as_secs_f64(), self.steps() as f64 * self.step.as_secs_f64());
        let mut count = 0.0;
        self.series(name, labels, |age| {
            if age < first {
                // What came between the sample before and this one.
                count += per_second(age) * step;
            }
            Some(count)
        })
    }

    /// Writes the blocks, with the promtool of this version.
    #[must_use]
    #[track_caller]
    pub fn write(&self, version: Version) -> Data {
        assert!(self.end <= now_seconds(), "a server would take no sample before {}", self.end);
        let data = Data::empty();
        let input = data.folder.path().join("history.txt");
        let mut file = File::create(&input).expect("create");
        file.write_all(self.text.as_bytes()).and_then(|()| file.write_all(b"# EOF\n")).expect("write");
        Promtool::new(version)
            .create_blocks_from_openmetrics(&input, data.folder.path())
            .unwrap_or_else(|error| panic!("{version:?}: {error}"));
        data
    }

    fn steps(&self) -> usize {
        (self.length.as_secs_f64() / self.step.as_secs_f64()).floor() as usize
    }
}

// === Promtool ===

/// `promtool` of a version. Errors are what it printed.
#[derive(Clone, Copy, Debug)]
pub struct Promtool {
    version: Version,
}

impl Promtool {
    /// That of this version.
    #[must_use]
    pub fn new(version: Version) -> Promtool {
        Promtool { version }
    }

    /// Checks rule files, with all of its lints.
    pub fn check_rules(self, file: &Path) -> Result<String, String> {
        self.run(self.command(&["check", "rules", "--lint=all", "--lint-fatal"]).arg(file), "")
    }

    /// Runs the tests in a file; the rule files that it names are relative to it.
    pub fn test_rules(self, file: &Path) -> Result<String, String> {
        self.run(self.command(&["test", "rules"]).arg(file), "")
    }

    /// Checks a metrics page, with all of its lints.
    pub fn check_metrics(self, page: &str) -> Result<String, String> {
        self.run(&mut self.command(&["check", "metrics"]), page)
    }

    /// Makes blocks of samples with moments, in the form of OpenMetrics.
    pub fn create_blocks_from_openmetrics(self, input: &Path, into: &Path) -> Result<String, String> {
        // It reads the whole input once for each block: blocks of 54 hours, two or three of them for three days.
        let command = &mut self.command(&["tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=54h"]);
        self.run(command.arg("--quiet").arg(input).arg(into), "")
    }

    fn command(self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.version.program("promtool"));
        command.args(arguments);
        command
    }

    fn run(self, command: &mut Command, input: &str) -> Result<String, String> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.expect("installed (`make test` does it)");
        let mut stdin = child.stdin.take().expect("piped");
        let written = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() && written.is_ok() {
            Ok(printed)
        } else {
            Err(format!("{command:?}: {}: {printed}", output.status))
        }
    }
}

// === Alertmanager ===

/// A running Alertmanager; ended when dropped.
pub struct Alertmanager {
    /// The address of its HTTP interface.
    pub address: SocketAddr,
    _running: Ended,
    _folder: tempfile::TempDir,
}

/// An alert as Alertmanager treats it.
#[derive(Clone, Debug)]
pub struct Treated {
    /// Its labels.
    pub labels: Labels,
    /// `unprocessed`, `active` (it is told of) or `suppressed`.
    pub state: String,
    /// The labels of the alerts that suppress it.
    pub inhibited_by: Vec<Labels>,
}

impl Alertmanager {
    /// Starts one and waits until it is ready.
    #[must_use]
    #[track_caller]
    pub fn start(config: &str) -> Alertmanager {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("alertmanager.yml"), config).expect("write");
        for _ in 0..5 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let running = Command::new("prometheus-alertmanager")
                .arg(format!("--config.file={}", path("alertmanager.yml")))
                .arg(format!("--storage.path={}", path("data")))
                .arg(format!("--web.listen-address={address}"))
                // No cluster: no other port.
                .arg("--cluster.listen-address=")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(path("log")).expect("create"))
                .spawn();
            let mut running = Ended(running.expect("installed (`make test` does it)"));
            let ready = || get(address, "/-/ready").is_ok_and(|(status, _)| status == 200);
            if wait_for(PATIENCE * 3, || running.has_ended() || ready()) && !running.has_ended() {
                return Alertmanager { address, _running: running, _folder: folder };
            }
        }
        panic!("Alertmanager does not start: {}", fs::read_to_string(path("log")).unwrap_or_default());
    }

    /// Tells it of alerts, by their labels, as a Prometheus would: they have begun now, and end unless told again.
    #[track_caller]
    pub fn post_alerts(&self, alerts: &[&[(&str, &str)]]) {
        let alert = |labels: &&[(&str, &str)]| serde_json::json!({"labels": labels.iter().copied().collect::<BTreeMap<_, _>>()});
        let body = Json::from(alerts.iter().map(alert).collect::<Vec<_>>()).to_string();
        let request = format!(
            "POST /api/v2/alerts HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = Client::to(self.address).exchange(request);
        assert_eq!(answer.status(), 200, "{body}: {}", answer.text());
    }

    /// All alerts that it knows of.
    #[track_caller]
    pub fn alerts(&self) -> Vec<Treated> {
        let (status, body) = get(self.address, "/api/v2/alerts").expect("an answer");
        assert_eq!(status, 200, "{body}");
        let alerts: Json = serde_json::from_str(&body).expect("JSON");
        let alerts = list(&alerts);
        let of = |alert: &Json| {
            let inhibiting = list(&alert["status"]["inhibitedBy"]);
            let found = alerts.iter().filter(|other| inhibiting.contains(&other["fingerprint"]));
            let inhibited_by: Vec<_> = found.map(|other| labels(&other["labels"])).collect();
            // One that has just ended is in the list no more, and may still be named as suppressing.
            assert!(inhibited_by.len() <= inhibiting.len(), "{body}");
            Treated { labels: labels(&alert["labels"]), state: text(&alert["status"]["state"]), inhibited_by }
        };
        alerts.iter().map(of).collect()
    }

    /// Waits until it has dealt with so many alerts: none of them is unprocessed. It may not yet know of all that suppress
    /// others.
    #[track_caller]
    pub fn alerts_when(&self, count: usize) -> Vec<Treated> {
        let dealt =
            |alerts: &[Treated]| alerts.len() == count && alerts.iter().all(|alert| alert.state != "unprocessed");
        self.alerts_until(&format!("it has dealt with {count} alerts"), PATIENCE * 3, dealt)
    }

    /// Waits until its alerts are so.
    #[track_caller]
    pub fn alerts_until(&self, what: &str, deadline: Duration, so: impl Fn(&[Treated]) -> bool) -> Vec<Treated> {
        let mut alerts = Vec::new();
        let are_so = wait_for(deadline, || {
            alerts = self.alerts();
            so(&alerts)
        });
        assert!(are_so, "not within {deadline:?}: {what}: {alerts:#?}");
        alerts
    }
}

// === What the HTTP interfaces speak ===

/// Status and body of a GET.
fn get(address: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| error.to_string())?;
    let mut client = Client { wire: Wire::new(stream, QUERY_PATIENCE) };
    client
        .try_send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
        .map_err(|error| error.to_string())?;
    let head = client.wire.read_head().map_err(|error| error.to_string())?.ok_or("closed without an answer")?;
    let body = client.wire.read_body(Client::framing("GET", &head)).map_err(|error| error.to_string())?;
    if !body.complete {
        return Err("the answer was cut".into());
    }
    Ok((head.status(), String::from_utf8_lossy(&body.content).into_owned()))
}

fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

#[track_caller]
fn list(json: &Json) -> &[Json] {
    json.as_array().unwrap_or_else(|| panic!("not a list: {json}"))
}

fn text(json: &Json) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

/// Numbers that may be infinite come as text, others as numbers.
#[track_caller]
fn number(json: &Json) -> f64 {
    let number = json.as_f64().or_else(|| json.as_str()?.parse().ok());
    number.unwrap_or_else(|| panic!("not a number: {json}"))
}

#[track_caller]
fn labels(json: &Json) -> Labels {
    let pairs = json.as_object().unwrap_or_else(|| panic!("not labels: {json}")).iter();
    pairs.map(|(name, value)| (name.clone(), text(value))).collect()
}
