//! Healthy days, at which every alert is to be quiet: traffic that follows the hours, two instances that are replaced
//! by deploys with a few errors each, one restart in place, probes, scanners, a load that breathes.
//!
//! What another alert reads is added to [`series`]: a counter or a gauge of each instance, as a function of the time.

use std::f64::consts::TAU;

use super::traffic;
use crate::pack::cases::{Case, EVERY, Suite, Values};

/// Minutes; a sample each. A day and a half: the second morning and a deploy in it are compared with the first.
const MINUTES: usize = 36 * 60;
/// Rates and levels change this often, which keeps the file short.
const STEP: usize = 30;

/// The time on one target from its first scrape until it is gone.
struct Instance {
    name: &'static str,
    from: usize,
    to: usize,
    /// When it is restarted in place, and its counters begin anew.
    restarted: Option<usize>,
}

const fn instance(name: &'static str, from: usize, to: usize) -> Instance {
    Instance { name, from, to, restarted: None }
}

/// Deploys at 10:00 and 15:00, and at 10:00 of the second day, one instance five minutes after the other; a restart in
/// place at 4:00.
const INSTANCES: [Instance; 8] = [
    Instance { restarted: Some(240), ..instance("a0", 0, 600) },
    instance("b0", 0, 605),
    instance("a1", 600, 900),
    instance("b1", 605, 905),
    instance("a2", 900, 2040),
    instance("b2", 905, 2045),
    instance("a3", 2040, MINUTES),
    instance("b3", 2045, MINUTES),
];

/// Errors around a deploy: while connections to the old instance are cut, and before the new one listens.
const ERRORS_AT_THE_END: f64 = 6.0;
const ERRORS_AT_THE_START: f64 = 4.0;
/// One in five seconds, for a minute.
const REFUSED_PROBES: f64 = 12.0;

pub(super) fn suite() -> Suite {
    let case = Case::new(EVERY, "a day and a half with rhythm and deploys", "1m");
    // Every other minute is half the work, and what holds for a minute is still seen if it lasts for two.
    Suite { name: "day", evaluate: "2m", cases: vec![series(case).never_until(format!("{MINUTES}m"))] }
}

/// How busy it is, 0 to 1: least at 2:00, most at 14:00.
fn busy(minute: usize) -> f64 {
    0.5 - 0.5 * ((minute as f64 / 60.0 - 2.0) / 24.0 * TAU).cos()
}

/// Requests a minute of one instance: one a second at night, nine by day.
fn requests(minute: usize) -> f64 {
    60.0 + 480.0 * busy(minute)
}

fn series(mut case: Case) -> Case {
    for instance in &INSTANCES {
        let target = format!("namespace=\"prod\",job=\"shop\",instance={:?}", instance.name);
        let mut counter = |series: String, share: f64, start: f64, end: f64| {
            let values = instance.counter(|minute| share * requests(minute), start, end);
            case.series.push((series, values.into()));
        };
        let (start, end) = (ERRORS_AT_THE_START, ERRORS_AT_THE_END);
        // What it is, its share of the requests, and how many come with a start and an end.
        for (result, share, start, end) in [
            ("good", 0.9995, 0.0, 0.0),
            ("slow", 0.0003, 3.0, 3.0),
            ("error", 0.0002, start, end),
            ("excluded", 0.1, 1.0, 1.0),
        ] {
            let series = format!("golden_slo_requests_total{{{target},slo=\"api\",result={result:?}}}");
            counter(series, share, start, end);
        }
        for (code, origin, share, start, end) in [
            ("200", "backend", 0.96, 0.0, 0.0),
            ("404", "backend", 0.03, 0.0, 0.0),
            ("429", "backend", 0.01, 0.0, 0.0),
            ("500", "backend", 0.0002, 0.0, end),
            ("502", "proxy", 0.0, start, 0.0),
            ("", "client", 0.005, 1.0, 1.0),
        ] {
            counter(traffic::series_of(&target, "/a", code, origin, "user"), share, start, end);
        }
        // Probes, refused until the backend listens.
        counter(traffic::series_of(&target, "/readyz", "200", "backend", "probe"), 0.02, 0.0, 0.0);
        counter(traffic::series_of(&target, "/readyz", "502", "proxy", "probe"), 0.0, REFUSED_PROBES, 0.0);
        for (error, phase, share, start, end) in
            [("500", "wait", 0.0002, 0.0, end), ("connect_refused", "connect", 0.0, start + REFUSED_PROBES, 0.0)]
        {
            let labels = format!("http_route=\"/a\",error_type={error:?},fault=\"backend\",phase={phase:?}");
            counter(format!("golden_errors_total{{{target},{labels}}}"), share, start, end);
        }
        counter(format!("golden_truncated_responses_total{{{target},http_route=\"/a\"}}"), 0.0, 0.0, 1.0);

        // Cumulative: of those up to an edge, and how many more that an instance's start makes slow are only in the
        // next.
        for (family, labels, edges) in [
            (
                "http_server_request_duration_seconds",
                "http_route=\"/a\"",
                [("0.05", 0.9, 0.0), ("0.5", 0.9995, 0.0), ("+Inf", 1.0, 3.0)],
            ),
            (
                "golden_proxy_overhead_seconds",
                "direction=\"request\"",
                [("0.001", 0.99, 0.0), ("0.005", 0.998, 0.0), ("+Inf", 1.0, 3.0)],
            ),
            (
                "golden_upstream_phase_seconds",
                "phase=\"queue\"",
                [("0.01", 0.99, 0.0), ("0.1", 0.998, 0.0), ("+Inf", 1.0, 3.0)],
            ),
        ] {
            for (le, share, start) in edges {
                counter(format!("{family}_bucket{{{target},{labels},le={le:?}}}"), share, start, 0.0);
            }
        }

        let mut steady = |name: &str, labels: &str, rate: f64, end: f64| {
            case.series.push((format!("{name}{{{target}{labels}}}"), instance.counter(|_| rate, 0.0, end).into()));
        };
        steady("golden_sampler_ticks_total", "", 59.5, 0.0);
        steady("golden_sampler_missed_ticks_total", "", 0.5, 0.0);
        // As it leaves.
        steady("golden_backend_restarts_total", ",reason=\"exit\"", 0.0, 1.0);

        let build = ",version=\"0.1.0\",revision=\"x\",rustc=\"y\"";
        case.series.push((format!("golden_build_info{{{target}{build}}}"), instance.shown().into()));
        case.series.push((format!("up{{{target}}}"), instance.up().into()));

        let mut gauge = |name: &str, labels: &str, level: &dyn Fn(usize) -> f64| {
            case.series.push((format!("{name}{{{target}{labels}}}"), instance.gauge(level).into()));
        };
        gauge("process_start_time_seconds", "", &|minute| {
            let restarted = instance.restarted.filter(|&restarted| restarted <= minute);
            60.0 * restarted.unwrap_or(instance.from) as f64
        });
        gauge("scrape_duration_seconds", "", &|_| 0.02);
        gauge("scrape_samples_scraped", "", &|_| 1300.0);
        gauge("golden_sampler_source_available", ",source=\"process\"", &|_| 1.0);
        gauge("golden_config_last_reload_successful", "", &|_| 1.0);
        gauge("golden_backend_up", "", &|_| 1.0);
        gauge("golden_slo_objective_ratio", ",slo=\"api\"", &|_| 0.999);
        gauge("golden_slo_latency_threshold_seconds", ",slo=\"api\"", &|_| 0.5);
        gauge("golden_saturation_ratio", ",resource=\"cpu\"", &|minute| 0.1 + 0.5 * busy(minute));
        // A collector's saw-tooth: two hours up, at once down.
        gauge("golden_saturation_ratio", ",resource=\"memory\"", &|minute| 0.4 + 0.1 * (minute / STEP % 4) as f64);
        gauge("golden_saturation_ratio", ",resource=\"fds\"", &|minute| 0.05 + 0.1 * busy(minute));
        gauge("golden_saturation_ratio", ",resource=\"upstream_pool\"", &|minute| 0.1 + 0.4 * busy(minute));
    }
    case
}

// === impl Instance ===

impl Instance {
    /// A counter that grows by so much a minute, and by so much more in its first and its last minute. It is 0 at
    /// first: what counts from the start is on the page from the start, or is lost as it is in life.
    fn counter(&self, rate: impl Fn(usize) -> f64, start: f64, end: f64) -> Values {
        let grow = |minute: usize| {
            let more = if minute == self.from + 1 && self.from > 0 { start } else { 0.0 };
            let last = if minute == self.to && self.to < MINUTES { end } else { 0.0 };
            // A 64th of a request is fine enough, and short to write.
            (64.0 * rate(minute / STEP * STEP)).round() / 64.0 + more + last
        };
        self.runs(
            Values::after(self.from, 0.0),
            |values| values.miss(1).hold(0.0, 1),
            grow,
            |values, by, samples| values.grow(by, samples),
        )
    }

    /// Whether it is scraped: a new one does not answer yet at its first scrape, nor an old one at its last, and nobody
    /// does in the minute of a restart.
    fn up(&self) -> Values {
        let first = Values::after(self.from, if self.from > 0 { 0.0 } else { 1.0 });
        let values = match self.restarted {
            Some(at) => first.hold(1.0, at - self.from - 1).hold(0.0, 1).hold(1.0, self.to - at - 1),
            None => first.hold(1.0, self.to - self.from - 1),
        };
        if self.to < MINUTES { values.hold(0.0, 1).end() } else { values.hold(1.0, 1) }
    }

    /// What is on its page from the first scrape that is answered to the last.
    fn shown(&self) -> Values {
        let from = if self.from > 0 { self.from + 1 } else { 0 };
        let values = Values::after(from, 1.0);
        let values = match self.restarted {
            Some(at) => values.stay(at - from - 1).miss(1).stay(self.to - at - 1),
            None => values.stay(self.to - from - 1),
        };
        if self.to < MINUTES { values.end() } else { values.stay(1) }
    }

    /// A level.
    fn gauge(&self, level: impl Fn(usize) -> f64) -> Values {
        let level = |minute: usize| (1000.0 * level(minute / STEP * STEP)).round() / 1000.0;
        let first = Values::after(self.from, level(self.from));
        self.runs(first, |values| values.miss(1).stay(1), level, |values, level, samples| values.hold(level, samples))
    }

    /// Minutes with the same number go together. A restart takes two: one missed, one at which all begins anew.
    fn runs(
        &self,
        mut values: Values,
        restart: impl Fn(Values) -> Values,
        number: impl Fn(usize) -> f64,
        add: impl Fn(Values, f64, usize) -> Values,
    ) -> Values {
        let mut minute = self.from + 1;
        while minute <= self.to {
            if self.restarted == Some(minute) {
                values = restart(values);
                minute += 2;
                continue;
            }
            let same =
                (minute..=self.to).take_while(|&at| number(at) == number(minute) && self.restarted != Some(at)).count();
            values = add(values, number(minute), same);
            minute += same;
        }
        if self.to < MINUTES { values.end() } else { values }
    }
}
