//! When a limit will be reached, if a resource goes on filling up as it did. Says nothing where it would be a guess.
//!
//! The slope is the median of the slopes of all pairs of points (Theil–Sen): a third of the points may be outliers, such
//! as a garbage collection's dips. The window grows with what was seen: 60 points, first a second apart, later a minute,
//! so up to an hour. A forecast reaches no further than 24 times the time that was seen: the SRE book's "full in four
//! hours" asks for ten minutes of evidence.

use std::time::Duration;

use tokio::time::Instant;

/// Points that are kept. 60 make 1,770 pairs, whose median is found afresh with each point; when they are there, every other one goes.
const POINTS_MAX: usize = 60;
/// First distance of two points.
const STEP_MIN: Duration = Duration::from_secs(1);
/// Last distance of two points: 60 of them are an hour.
const STEP_MAX: Duration = Duration::from_secs(60);
/// Points without which there is no forecast: half a minute at first.
const POINTS_MIN: usize = 30;
/// How much further than it has seen a forecast looks.
const REACH: f64 = 24.0;
/// Share of pairs that must rise, less those that fall (Kendall's tau). A line has 1, noise 0, a single step in the
/// middle 0.5.
const TAU_MIN: f64 = 0.6;
/// The growth over the window must be this many times the usual distance of a point from the line.
const CLARITY_MIN: f64 = 4.0;
/// Growth below this share of the limit over the window is not worth a word.
const GROWTH_MIN: f64 = 0.001;
/// A fall by this share is a restart or a clean-up: what was before says nothing any more.
const FALL_RATIO: f64 = 0.5;

/// The recent past of one resource.
#[derive(Debug)]
pub(super) struct Trend {
    /// Used share of the limit, oldest first.
    points: Vec<(Instant, f64)>,
    step: Duration,
    /// The forecast from the present points: when the limit is reached.
    reached_at: Option<Instant>,
}

impl Default for Trend {
    fn default() -> Trend {
        Trend { points: Vec::new(), step: STEP_MIN, reached_at: None }
    }
}

// === impl Trend ===

impl Trend {
    /// Takes in the used share of the limit.
    pub fn take(&mut self, at: Instant, ratio: f64) {
        if let Some((last, before)) = self.points.last() {
            if ratio < before * (1.0 - FALL_RATIO) {
                *self = Trend::default();
            } else if at.saturating_duration_since(*last) < self.step {
                return;
            }
        }
        self.points.push((at, ratio));
        if self.points.len() > POINTS_MAX {
            if self.step < STEP_MAX {
                let mut index = 0;
                self.points.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.step = (self.step * 2).min(STEP_MAX);
            } else {
                self.points.remove(0);
            }
        }
        self.reached_at = self.forecast();
    }

    /// How long until the limit, 0 when it is already reached; `None` without a trend that can be told.
    pub fn time_to_limit(&self, now: Instant) -> Option<Duration> {
        self.reached_at.map(|at| at.saturating_duration_since(now))
    }

    fn forecast(&self) -> Option<Instant> {
        if self.points.len() < POINTS_MIN {
            return None;
        }
        let (first, _) = *self.points.first()?;
        let (last, _) = *self.points.last()?;
        let points: Vec<(f64, f64)> =
            self.points.iter().map(|(at, used)| (at.saturating_duration_since(first).as_secs_f64(), *used)).collect();
        let seen = last.saturating_duration_since(first).as_secs_f64();
        let slope = clear_slope(&points, seen)?;
        // Still growing: the last third by itself rises too, at least half as fast. After a step it does not.
        let recent = median_slope(&points[points.len() * 2 / 3..])?.0;
        if recent < slope / 2.0 {
            return None;
        }
        let intercept = median(points.iter().map(|(at, used)| used - slope * at).collect())?;
        let left = ((1.0 - (intercept + slope * seen)) / slope).max(0.0);
        if left > seen * REACH {
            return None;
        }
        last.checked_add(Duration::try_from_secs_f64(left).ok()?)
    }
}

/// The median slope, if it tells something: rising, clearly above the noise, and worth mentioning.
fn clear_slope(points: &[(f64, f64)], seen: f64) -> Option<f64> {
    let (slope, tau) = median_slope(points)?;
    if slope <= 0.0 || tau < TAU_MIN || slope * seen < GROWTH_MIN {
        return None;
    }
    let intercept = median(points.iter().map(|(at, used)| used - slope * at).collect())?;
    let distance = median(points.iter().map(|(at, used)| (used - slope * at - intercept).abs()).collect())?;
    (slope * seen >= CLARITY_MIN * distance).then_some(slope)
}

/// The median of the slopes of all pairs, and the share of pairs that rise less the share that falls.
fn median_slope(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    let (mut rising, mut falling) = (0usize, 0usize);
    for (index, (at, used)) in points.iter().enumerate() {
        for (later, more) in &points[index + 1..] {
            if later > at {
                let slope = (more - used) / (later - at);
                rising += usize::from(slope > 0.0);
                falling += usize::from(slope < 0.0);
                slopes.push(slope);
            }
        }
    }
    let tau = (rising as f64 - falling as f64) / slopes.len().max(1) as f64;
    Some((median(slopes)?, tau))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let middle = values.len() / 2;
    Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forecast in seconds after one reading a second.
    fn after(seconds: u64, limit: f64, used: impl Fn(f64) -> f64) -> Option<f64> {
        let start = Instant::now();
        let mut trend = Trend::default();
        let mut end = start;
        for second in 0..=seconds {
            end = start + Duration::from_secs(second);
            trend.take(end, used(second as f64) / limit);
        }
        trend.time_to_limit(end).map(|time| time.as_secs_f64())
    }

    /// Noise between -1 and 1 that looks like none: the fraction of a large sine.
    fn noise(at: f64) -> f64 {
        ((at * 12.9898).sin() * 43758.5453).rem_euclid(2.0) - 1.0
    }

    #[test]
    fn a_steady_growth_is_told_exactly() {
        let left = after(100, 1000.0, |at| 100.0 + 2.0 * at).unwrap();
        assert!((left - 350.0).abs() < 2.0, "{left}");
    }

    #[test]
    fn noise_and_outliers_do_not_move_it_much() {
        let leak = |at: f64| {
            let dip = if (at as u64).is_multiple_of(10) { -50.0 } else { 0.0 };
            200.0 + 2.0 * at + 10.0 * noise(at) + dip
        };
        let left = after(600, 2000.0, leak).unwrap();
        assert!((left - 300.0).abs() < 30.0, "{left}");
    }

    #[test]
    fn an_hour_of_a_slow_leak_tells_of_hours_to_come() {
        let left = after(3600, 1e9, |at| 2e8 + 2e4 * at + 1e5 * noise(at)).unwrap();
        assert!((left - 36_400.0).abs() < 1500.0, "{left}");
    }

    #[test]
    fn what_would_be_a_guess_is_not_told() {
        assert_eq!(after(20, 1000.0, |at| 100.0 + at), None, "too little seen");
        assert_eq!(after(600, 1000.0, |_| 500.0), None, "flat");
        assert_eq!(after(600, 1000.0, |at| 500.0 - 0.1 * at), None, "falling");
        assert_eq!(after(600, 1000.0, |at| 500.0 + 20.0 * noise(at)), None, "noise");
        assert_eq!(after(600, 1000.0, |at| 500.0 + 100.0 * (at / 30.0).sin()), None, "waves");
        assert_eq!(after(600, 1000.0, |at| if at < 300.0 { 300.0 } else { 600.0 }), None, "one step");
        assert_eq!(after(600, 1000.0, |at| 900.0 * (1.0 - (-at / 60.0).exp())), None, "a warm-up that levels off");
        assert_eq!(after(100, 1e9, |at| 100.0 + 2.0 * at), None, "years away");
    }

    #[test]
    fn a_full_resource_that_grows_has_no_time_left() {
        assert_eq!(after(100, 150.0, |at| 100.0 + 2.0 * at), Some(0.0));
    }

    #[test]
    fn a_restart_begins_anew() {
        let restarted = |at: f64| if at < 100.0 { 100.0 + 5.0 * at } else { 50.0 + 5.0 * (at - 100.0) };
        assert_eq!(after(115, 1000.0, restarted), None);
        let left = after(160, 1000.0, restarted).unwrap();
        assert!((left - 130.0).abs() < 3.0, "{left}");
    }

    #[test]
    fn the_window_is_bounded_and_reaches_an_hour() {
        let start = Instant::now();
        let mut trend = Trend::default();
        for second in 0..10_000 {
            trend.take(start + Duration::from_secs(second), second as f64 / 1e9);
        }
        assert!(trend.points.len() <= POINTS_MAX);
        let seen = trend.points.last().unwrap().0 - trend.points[0].0;
        assert!(seen >= Duration::from_secs(1700) && seen <= Duration::from_secs(3660), "{seen:?}");
    }
}
