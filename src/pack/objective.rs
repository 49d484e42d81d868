//! What was promised, and the windows in which breaking it is noticed: the numbers of the SRE workbook's chapter on
//! alerting, and the arithmetic that says when an alert can fire at all.

use std::fmt;
use std::time::Duration;

/// A promise: this share of the requests is good, and good means answered without a failure and within this time, if there is
/// one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Between 0 and 1.
    ratio: f64,
    /// None: slow requests are good.
    latency: Option<Duration>,
}

/// Three nines: what a sidecar counts by that was told nothing, so that panels, alerts and page agree. It promises no latency:
/// nobody but the user knows one.
const DEFAULT_PERCENT: f64 = 99.9;

/// How urgent an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Wake someone.
    Critical,
    /// A ticket: look at it in working hours.
    Warning,
    /// Good to know while looking at something else.
    Info,
}

/// A pair of windows over which the budget burns. Both must be over the threshold: the long one says that it matters,
/// the short one that it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BurnWindow {
    /// As PromQL writes it.
    pub long: &'static str,
    /// A twelfth of the long one.
    pub short: &'static str,
    /// How many times faster than allowed the budget of 30 days is spent.
    pub factor: f64,
    /// How long both must be over the threshold.
    pub hold: &'static str,
    /// What it is worth.
    pub severity: Severity,
    /// Bad requests in the long window below which nothing is said: one error among few requests is no burn.
    pub bad_min: u32,
}

/// The four pairs, fastest first. Factors: 2 % of the budget in 1 h, 5 % in 6 h, 10 % in 1 d, 10 % in 3 d.
pub const BURN_WINDOWS: [BurnWindow; 4] = [
    BurnWindow { long: "1h", short: "5m", factor: 14.4, hold: "2m", severity: Severity::Critical, bad_min: 10 },
    BurnWindow { long: "6h", short: "30m", factor: 6.0, hold: "15m", severity: Severity::Critical, bad_min: 10 },
    BurnWindow { long: "1d", short: "2h", factor: 3.0, hold: "1h", severity: Severity::Warning, bad_min: 5 },
    BurnWindow { long: "3d", short: "6h", factor: 1.0, hold: "3h", severity: Severity::Warning, bad_min: 5 },
];

/// Why an objective is refused: one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible(String);

impl fmt::Display for Impossible {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Impossible {}

// === impl Objective ===

impl Default for Objective {
    fn default() -> Objective {
        Objective { ratio: Objective::round(DEFAULT_PERCENT / 100.0), latency: None }
    }
}

impl Objective {
    /// The objective of `percent` of the requests, or the default, within `latency`, or however long they take.
    ///
    /// # Errors
    /// When an alert could never fire, or the numbers promise nothing.
    pub fn new(percent: Option<f64>, latency: Option<Duration>) -> Result<Objective, Impossible> {
        let percent = percent.unwrap_or(DEFAULT_PERCENT);
        if !(percent > 0.0 && percent < 100.0) {
            return Err(Impossible(format!(
                "--objective: found {percent}; expected a percentage above 0 and below 100, such as 99.9: at 100 there \
                 is no budget that could burn"
            )));
        }
        if percent <= 1.0 {
            return Err(Impossible(format!(
                "--objective: found {percent}, which promises that {percent} % of the requests are good; expected a \
                 percentage such as 99.9"
            )));
        }
        let ratio = Self::round(percent / 100.0);
        let budget = 1.0 - ratio;
        let fastest = BURN_WINDOWS[0];
        if fastest.factor * budget >= 1.0 {
            let lowest = 100.0 * (1.0 - 1.0 / fastest.factor);
            return Err(Impossible(format!(
                "--objective: found {percent}; at {percent} % the alert over {} and {} would need {} times the budget \
                 of {} %, that is {} % bad requests, and can never fire; expected more than {} %",
                fastest.long,
                fastest.short,
                fastest.factor,
                number(100.0 * budget),
                number(100.0 * fastest.factor * budget),
                number((lowest * 100.0).ceil() / 100.0),
            )));
        }
        if latency.is_some_and(|latency| latency.is_zero()) {
            return Err(Impossible("--latency: found 0s; expected a time above it, such as 300ms".to_owned()));
        }
        Ok(Objective { ratio, latency })
    }

    /// The share that is to be good, 0 to 1.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.ratio
    }

    /// The share that may be bad, 0 to 1.
    #[must_use]
    pub fn budget(&self) -> f64 {
        Self::round(1.0 - self.ratio)
    }

    /// What takes longer is not good, if anything is promised.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// The share of bad requests at which the budget burns this many times faster than allowed.
    #[must_use]
    pub fn bad_ratio(&self, factor: f64) -> f64 {
        Self::round(factor * self.budget())
    }

    /// Without the noise of binary fractions: 99.9 / 100 is 0.9990000000000001 to a computer.
    fn round(value: f64) -> f64 {
        (value * 1e12).round() / 1e12
    }
}

/// A number as people write it.
#[must_use]
pub fn number(value: f64) -> String {
    format!("{}", Objective::round(value))
}

// === impl Severity ===

impl Severity {
    /// The value of the label `severity`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Info => "info",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_whose_fastest_alert_can_never_fire_is_refused_with_the_reason() {
        let refused = |percent| Objective::new(Some(percent), None).unwrap_err().to_string();
        assert_eq!(
            refused(90.0),
            "--objective: found 90; at 90 % the alert over 1h and 5m would need 14.4 times the budget of 10 %, that is \
             144 % bad requests, and can never fire; expected more than 93.06 %"
        );
        assert!(refused(100.0).contains("no budget"), "{}", refused(100.0));
        assert!(refused(0.999).contains("such as 99.9"), "{}", refused(0.999));
        assert!(refused(f64::NAN).contains("percentage"));
        assert!(Objective::new(Some(93.06), None).is_ok());
        assert!(Objective::new(Some(93.05), None).is_err());
        assert!(Objective::new(None, Some(Duration::ZERO)).is_err());
    }

    #[test]
    fn without_a_latency_none_is_promised() {
        assert_eq!(Objective::new(None, None).unwrap(), Objective::default());
        assert_eq!(Objective::default().latency(), None);
        let quick = Duration::from_millis(300);
        assert_eq!(Objective::new(None, Some(quick)).unwrap().latency(), Some(quick));
    }

    #[test]
    fn budgets_are_written_as_people_write_them() {
        let objective = Objective::new(Some(99.95), None).unwrap();
        assert_eq!((number(objective.ratio()), number(objective.budget())), ("0.9995".into(), "0.0005".into()));
        assert_eq!(number(objective.bad_ratio(14.4)), "0.0072");
    }
}
