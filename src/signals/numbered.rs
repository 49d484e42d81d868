//! What the configuration names and requests are counted under: objectives, and rules for implicit errors. A name keeps its
//! number for the life of the process, so that a reload resets no count; and a worker learns of a reload by comparing two
//! numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::signals::moment::Moment;
use crate::signals::shard::POISON;

/// Names that are counted under in the life of a process: reloads that bring other names each time end here. With four
/// results, or a handful of routes, each they are as many label sets as any family has by default.
pub(super) const NAMES_MAX: usize = 500;

/// Which of those in force cover a route, by their bits. What a reload can bring has to fit.
pub(super) type Covering = u32;

/// A part of the configuration with a name of its own.
pub(super) trait Named: Clone + PartialEq {
    /// Unique in its list.
    fn name(&self) -> &str;

    /// Whether the route with this label is among its own.
    fn covers(&self, route: &str) -> bool;
}

/// Those in force, with the numbers of their names, in their order.
pub(super) type Current<T> = Arc<[(usize, T)]>;

/// Those in force, and the names of all that ever were.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    /// Grows with every change. 0: there never was one.
    epoch: AtomicU64,
    known: Mutex<Known<T>>,
}

/// What a reader of the page and a worker at its first request need to know.
#[derive(Debug)]
pub(super) struct Known<T> {
    /// The name and since when it counts, as [`Moment`] does. Its place is its number, for ever.
    pub names: Vec<(Arc<str>, u64)>,
    /// Those in force.
    pub current: Current<T>,
}

// === impl Numbered ===

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        let known = Known { names: Vec::new(), current: Arc::new([]) };
        Numbered { epoch: AtomicU64::new(0), known: Mutex::new(known) }
    }
}

impl<T: Named> Numbered<T> {
    /// Puts these in force. Who has the name of an earlier one goes on with its counts. Gives the names that found no
    /// place.
    pub fn set(&self, all: &[T]) -> Vec<String> {
        let mut known = self.known();
        let Known { names, current } = &mut *known;
        if current.iter().map(|(_, one)| one).eq(all) {
            return Vec::new();
        }
        let mut refused = Vec::new();
        let mut new = Vec::new();
        for one in all {
            let number = names.iter().position(|(name, _)| **name == *one.name()).unwrap_or_else(|| {
                if names.len() < NAMES_MAX {
                    names.push((one.name().into(), Moment::now().nanos()));
                    return names.len() - 1;
                }
                NAMES_MAX
            });
            if number < NAMES_MAX && new.len() < Covering::BITS as usize {
                new.push((number, one.clone()));
            } else {
                refused.push(one.name().to_owned());
            }
        }
        *current = new.into();
        // Under the lock: who has seen this list never sees an older number afterwards.
        self.epoch.fetch_add(1, Relaxed);
        refused
    }
}

impl<T> Numbered<T> {
    /// Which list is in force.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    /// What there is to know of them.
    pub fn known(&self) -> MutexGuard<'_, Known<T>> {
        self.known.lock().expect(POISON)
    }
}

/// Which of them cover the route with this label.
pub(super) fn covering<T: Named>(current: &[(usize, T)], route: &str) -> Covering {
    let covering = current.iter().enumerate().filter(|(_, (_, one))| one.covers(route));
    covering.fold(0, |bits, (at, _)| bits | 1 << at)
}
