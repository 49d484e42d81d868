//! What shows that an alert fires, stays quiet and ends: series as `promtool test rules` reads them, and the alerts
//! that fire at given times. Firing alerts are compared by their labels (the `ALERTS` series), which are what routes
//! and silences see.

use std::fmt::Write as _;

use super::objective::number;
use super::rules::Group;
use super::yaml::{Yaml, text};

/// In place of an alert's name: all alerts, but for the one that always fires.
pub const EVERY: &str = "every alert";

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
    pub at: String,
    /// Not only at this time, but at every evaluation until then.
    pub all_along: bool,
    /// Labels of each alert that fires, besides `alertname` and `alertstate`.
    pub firing: Vec<Vec<(&'static str, String)>>,
}

/// The samples of one series, in promtool's notation: each call adds what comes next.
#[derive(Clone, Debug)]
pub struct Values {
    text: String,
    last: f64,
}

/// What a case can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shows {
    /// It fires and goes on: at the last check, or at two checks one after the other.
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
    pub fn quiet_at(mut self, at: impl Into<String>) -> Case {
        self.checks.push(Check { at: at.into(), all_along: false, firing: Vec::new() });
        self
    }

    /// Nothing fires at any evaluation from the start to this time.
    #[must_use]
    pub fn never_until(mut self, at: impl Into<String>) -> Case {
        self.checks.push(Check { at: at.into(), all_along: true, firing: Vec::new() });
        self
    }

    /// One alert with these labels, and no other of its name, fires at this time.
    #[must_use]
    pub fn fires_at(self, at: impl Into<String>, labels: &[(&'static str, &str)]) -> Case {
        self.all_fire_at(at, &[labels])
    }

    /// Alerts with these labels, and no other of their name, fire at this time.
    #[must_use]
    pub fn all_fire_at(mut self, at: impl Into<String>, alerts: &[&[(&'static str, &str)]]) -> Case {
        let firing = alerts.iter().map(|labels| labels.iter().map(|&(name, value)| (name, value.to_owned())).collect());
        self.checks.push(Check { at: at.into(), all_along: false, firing: firing.collect() });
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

    /// What it shows: it may be two things, that it goes on and that it ends.
    #[must_use]
    pub fn shows(&self) -> Vec<Shows> {
        let fires: Vec<bool> = self.checks.iter().map(|check| !check.firing.is_empty()).collect();
        let goes_on = fires.last() == Some(&true) || fires.windows(2).any(|two| two == [true, true]);
        let ends = fires.windows(2).any(|two| two == [true, false]);
        let all = [(Shows::Firing, goes_on), (Shows::Quiet, !fires.contains(&true)), (Shows::Recovery, ends)];
        all.into_iter().filter(|(_, shown)| *shown).map(|(shows, _)| shows).collect()
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
                ("expr", text(self.question(check))),
                ("eval_time", text(&check.at)),
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

    /// PromQL that gives what fires.
    fn question(&self, check: &Check) -> String {
        let alerts = match self.alert {
            EVERY => "ALERTS{alertname!=\"GoldenWatchdog\", alertstate=\"firing\"}".to_owned(),
            alert => format!("ALERTS{{alertname={alert:?}, alertstate=\"firing\"}}"),
        };
        if check.all_along { format!("count_over_time({alerts}[{}])", check.at) } else { alerts }
    }
}

// === impl Values ===

impl Values {
    /// The sample at the start.
    #[must_use]
    pub fn from(first: f64) -> Values {
        Values { text: number(first), last: first }
    }

    /// A series that is not there for the first samples, then begins with this value.
    #[must_use]
    pub fn after(samples: usize, first: f64) -> Values {
        let text = if samples == 0 { number(first) } else { format!("_x{samples} {}", number(first)) };
        Values { text, last: first }
    }

    /// So many more samples, each higher than the one before by this much, to the nearest 4096th: promtool adds up, and
    /// a sum of other fractions can end a little above what comes next. A counter would have been reset.
    #[must_use]
    pub fn grow(mut self, by: f64, samples: usize) -> Values {
        let by = (by * 4096.0).round() / 4096.0;
        // `a+bxn` is a and n more.
        if samples > 0 {
            let sign = if by < 0.0 { '-' } else { '+' };
            let _ = write!(self.text, " {}{sign}{}x{}", number(self.last + by), number(by.abs()), samples - 1);
            self.last += by * samples as f64;
        }
        self
    }

    /// So many more samples of this value.
    #[must_use]
    pub fn hold(mut self, value: f64, samples: usize) -> Values {
        if samples > 0 {
            let _ = write!(self.text, " {}x{}", number(value), samples - 1);
            self.last = value;
        }
        self
    }

    /// So many more samples like the last.
    #[must_use]
    pub fn stay(self, samples: usize) -> Values {
        let last = self.last;
        self.hold(last, samples)
    }

    /// The target is no longer there from here on.
    #[must_use]
    pub fn end(mut self) -> Values {
        self.text.push_str(" stale");
        self
    }

    /// No sample at so many scrapes.
    #[must_use]
    pub fn miss(mut self, samples: usize) -> Values {
        if samples > 0 {
            let _ = write!(self.text, " _x{samples}");
        }
        self
    }
}

impl From<Values> for String {
    fn from(values: Values) -> String {
        values.text
    }
}

// === impl Suite ===

impl Suite {
    /// The file for `promtool test rules`, beside the rule file with these groups. They are evaluated in their order:
    /// what reads another group's records would see them now and then too late, when a step is longer than samples
    /// last.
    #[must_use]
    pub fn yaml(&self, rules: &str, groups: &[Group]) -> Yaml {
        Yaml::Map(vec![
            ("rule_files", Yaml::List(vec![text(rules)])),
            ("evaluation_interval", text(self.evaluate)),
            ("group_eval_order", Yaml::List(groups.iter().map(|group| text(group.name)).collect())),
            ("tests", Yaml::List(self.cases.iter().map(Case::yaml).collect())),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_as_many_samples_as_they_say() {
        let values = Values::after(2, 0.0).grow(1.5, 3).stay(2).miss(1).hold(0.0, 1).grow(-0.5, 1).end();
        // `axn` is a and n more, `_xn` is n.
        assert_eq!(String::from(values), "_x2 0 1.5+1.5x2 4.5x1 _x1 0x0 -0.5-0.5x0 stale");
        assert_eq!(String::from(Values::from(1.0).grow(1.0, 0).stay(0).miss(0)), "1");
        assert_eq!(
            String::from(Values::from(0.0).grow(0.1, 2).stay(1)),
            "0 0.10009765625+0.10009765625x1 0.2001953125x0"
        );
    }

    #[test]
    fn a_case_shows_what_its_checks_say() {
        let case = Case::new("A", "a story", "1m");
        assert_eq!(case.clone().never_until("1h").shows(), [Shows::Quiet]);
        assert_eq!(case.clone().quiet_at("1m").fires_at("2m", &[]).shows(), [Shows::Firing]);
        assert_eq!(case.clone().fires_at("2m", &[]).quiet_at("9m").shows(), [Shows::Recovery]);
        let both = case.fires_at("2m", &[]).fires_at("8m", &[]).quiet_at("9m");
        assert_eq!(both.shows(), [Shows::Firing, Shows::Recovery]);
    }
}
