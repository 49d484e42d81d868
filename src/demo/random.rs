//! Chance for the demo: a SplitMix64 generator, enough to make waits and choices look alive. Not for secrets.
//! Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A generator that many tasks may share: its state is a counter, each draw scrambles the next count.
#[derive(Debug)]
pub struct Random(AtomicU64);

// === impl Random ===

impl Random {
    /// The step of the counter, 2^64 divided by the golden ratio: the increment of the published algorithm.
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    /// A generator that starts elsewhere at each start of the program.
    #[must_use]
    pub fn seeded_by_time() -> Random {
        // A clock before 1970 only costs variety.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Random(AtomicU64::new(since.as_nanos() as u64))
    }

    /// The next 64 bits.
    pub fn bits(&self) -> u64 {
        let mut bits = self.0.fetch_add(Self::STEP, Ordering::Relaxed).wrapping_add(Self::STEP);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// Evenly from 0 (included) to 1 (excluded).
    pub fn unit(&self) -> f64 {
        // 53 bits: all that a double can hold.
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly from `low` (included) to `high` (excluded).
    pub fn between(&self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True in this share of the draws; `share` from 0 to 1.
    pub fn chance(&self, share: f64) -> bool {
        self.unit() < share
    }

    /// A whole number from 0 to `count - 1`; `count` at least 1.
    pub fn below(&self, count: usize) -> usize {
        // The remainder favours small numbers by less than count / 2^64: nothing here can see that.
        (self.bits() % count as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_draw_from_seed_zero_is_the_published_one() {
        assert_eq!(Random(AtomicU64::new(0)).bits(), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn draws_stay_inside_their_bounds_and_use_all_of_them() {
        let random = Random(AtomicU64::new(7));
        let mut seen = [0_u32; 5];
        for _ in 0..1000 {
            assert!((2.0..8.0).contains(&random.between(2.0, 8.0)));
            seen[random.below(5)] += 1;
        }
        assert!(seen.iter().all(|count| (120..280).contains(count)), "five equal shares of 1000, got {seen:?}");
        let hits = (0..1000).filter(|_| random.chance(0.3)).count();
        assert!((230..370).contains(&hits), "three in ten of 1000, got {hits}");
    }
}
