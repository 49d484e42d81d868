//! What shows that an alert fires, stays quiet and ends: series as `promtool test rules` reads them, and the alerts that fire
//! at given times. Firing alerts are compared by their labels (the `ALERTS` series), which are what routes and silences see.

use super::yaml::{Yaml, text};

/// The cases of one file.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The file is `alerts/NAME.test.yml`.
    pub name: &'static str,
    /// Time between two evaluations of all groups.
    pub evaluate: &'static str,
    /// All of them.
    pub cases: Vec<Case>,
}

/// Series over time, and what fires when.
#[derive(Clone, Debug)]
pub struct Case {
    /// Whose.
    pub alert: &'static str,
    /// What happens, a sentence.
    pub story: &'static str,
    /// Time between two samples.
    pub interval: &'static str,
    /// Series and values in promtool's notation.
    pub series: Vec<(String, String)>,
    /// In order of time.
    pub checks: Vec<Check>,
}

/// What fires at a time.
#[derive(Clone, Debug)]
pub struct Check {
    /// Since the start.
    pub at: &'static str,
    /// Labels of each alert that fires, besides `alertname` and `alertstate`.
    pub firing: Vec<Vec<(&'static str, String)>>,
}

/// What a case shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shows {
    /// It fires, and goes on to the end.
    Firing,
    /// It never fires.
    Quiet,
    /// It fires, and ends.
    Recovery,
}

// === impl Case ===

impl Case {
    /// A case without checks yet.
    #[must_use]
    pub fn new(alert: &'static str, story: &'static str, interval: &'static str) -> Case {
        Case { alert, story, interval, series: Vec::new(), checks: Vec::new() }
    }

    /// With this series.
    #[must_use]
    pub fn series(mut self, series: impl Into<String>, values: impl Into<String>) -> Case {
        self.series.push((series.into(), values.into()));
        self
    }

    /// Nothing fires at this time.
    #[must_use]
    pub fn quiet_at(mut self, at: &'static str) -> Case {
        self.checks.push(Check { at, firing: Vec::new() });
        self
    }

    /// One alert with these labels, and no other of its name, fires at this time.
    #[must_use]
    pub fn fires_at(mut self, at: &'static str, labels: &[(&'static str, &str)]) -> Case {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.checks.push(Check { at, firing: vec![labels] });
        self
    }

    /// One more alert of that name fires at the time of the check before.
    #[must_use]
    pub fn and_fires(mut self, labels: &[(&'static str, &str)]) -> Case {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        if let Some(check) = self.checks.last_mut() {
            check.firing.push(labels);
        }
        self
    }

    /// What it shows.
    #[must_use]
    pub fn shows(&self) -> Shows {
        let first = self.checks.iter().position(|check| !check.firing.is_empty());
        let last = self.checks.iter().rposition(|check| !check.firing.is_empty());
        match (first, last) {
            (Some(_), Some(last)) if last + 1 < self.checks.len() => Shows::Recovery,
            (Some(_), _) => Shows::Firing,
            _ => Shows::Quiet,
        }
    }

    fn yaml(&self) -> Yaml {
        let series = self
            .series
            .iter()
            .map(|(series, values)| Yaml::Map(vec![("series", text(series)), ("values", text(values))]));
        let checks = self.checks.iter().map(|check| {
            let samples = check.firing.iter().map(|labels| {
                let labels: String = labels.iter().map(|(name, value)| format!(", {name}={value:?}")).collect();
                let series = format!("ALERTS{{alertname={:?}, alertstate=\"firing\"{labels}}}", self.alert);
                Yaml::Map(vec![("labels", text(series)), ("value", Yaml::Plain("1".to_owned()))])
            });
            Yaml::Map(vec![
                ("expr", text(format!("ALERTS{{alertname={:?}, alertstate=\"firing\"}}", self.alert))),
                ("eval_time", text(check.at)),
                ("exp_samples", Yaml::List(samples.collect())),
            ])
        });
        Yaml::Map(vec![
            ("name", text(format!("{}: {}", self.alert, self.story))),
            ("interval", text(self.interval)),
            ("input_series", Yaml::List(series.collect())),
            ("promql_expr_test", Yaml::List(checks.collect())),
        ])
    }
}

// === impl Suite ===

impl Suite {
    /// The file for `promtool test rules`, beside the rule file.
    #[must_use]
    pub fn yaml(&self, rules: &str) -> Yaml {
        Yaml::Map(vec![
            ("rule_files", Yaml::List(vec![text(rules)])),
            ("evaluation_interval", text(self.evaluate)),
            ("tests", Yaml::List(self.cases.iter().map(Case::yaml).collect())),
        ])
    }
}
