//! Service level objectives: what counts requests by what they are to each of them. A worker finds the objectives of a
//! route when it meets the route, and again when a reload has changed them; in between, a request costs the comparison
//! of two numbers and an addition for each objective that covers it.

use std::sync::Arc;

use crate::config::{SLOS_MAX, Slo};
use crate::labels::SloResult;
use crate::signals::numbered::{Named, Numbered, covering};
use crate::signals::shard::{Listed, Shard};
use crate::signals::store::Counter;

pub(super) use crate::signals::numbered::Covering;

const _: () = assert!(SLOS_MAX <= Covering::BITS as usize);

/// The objectives in force, and the names of all that ever were.
pub(super) type Slos = Numbered<Slo>;

/// One worker's counts of one objective.
pub(super) type Cells = [Counter; SloResult::COUNT];

/// The objectives as one worker counts them.
#[derive(Debug, Default)]
pub(super) struct OwnSlos {
    epoch: u64,
    /// Those in force.
    current: Vec<OwnSlo>,
}

/// An objective as one worker counts it.
#[derive(Debug)]
struct OwnSlo {
    /// In nanoseconds.
    threshold: Option<u64>,
    too_slow_is_error: bool,
    cells: Arc<Cells>,
}

impl Named for Slo {
    fn name(&self) -> &str {
        &self.name
    }

    fn covers(&self, route: &str) -> bool {
        Slo::covers(self, route)
    }
}

// === impl OwnSlos ===

impl OwnSlos {
    /// Finds the objectives that cover the route with this label, in a list that is brought up to date before. Gives
    /// them and the number of that list.
    pub fn look_up(&mut self, slos: &Slos, shard: &Shard, route: &str) -> (u64, Covering) {
        let known = slos.known();
        let epoch = slos.epoch();
        if self.epoch != epoch {
            self.epoch = epoch;
            self.current.clear();
            for (number, slo) in known.current.iter() {
                // No duration of a configuration comes near 2^64 ns.
                let threshold = slo.latency.map(|latency| u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
                let cells = cells_of(&shard.slos, *number);
                self.current.push(OwnSlo { threshold, too_slow_is_error: slo.too_slow_is_error, cells });
            }
        }
        (epoch, covering(&known.current, route))
    }

    /// Counts a request in these objectives. `result`: what it is to one with this threshold in nanoseconds. Gives
    /// whether it is too slow for one of them that calls this an error.
    #[inline]
    pub fn count(&self, mut covering: Covering, result: impl Fn(Option<u64>) -> SloResult) -> bool {
        let mut too_slow = false;
        while covering != 0 {
            let slo = &self.current[covering.trailing_zeros() as usize];
            let result = result(slo.threshold);
            slo.cells[result.index()].add(1);
            too_slow |= slo.too_slow_is_error && result == SloResult::Slow;
            covering &= covering - 1;
        }
        too_slow
    }
}

/// This worker's counts of an objective, fresh ones if need be.
fn cells_of(list: &Listed<(usize, Arc<Cells>)>, number: usize) -> Arc<Cells> {
    if let Some((_, cells)) = list.all().iter().find(|(known, _)| *known == number) {
        return Arc::clone(cells);
    }
    let cells = Arc::<Cells>::default();
    list.push((number, Arc::clone(&cells)));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::numbered::NAMES_MAX;

    fn slo(name: &str, routes: &[&str]) -> Slo {
        let routes = routes.iter().map(|route| (*route).to_owned()).collect();
        Slo { name: name.to_owned(), routes, objective: 0.9, latency: None, too_slow_is_error: false }
    }

    #[test]
    fn the_same_list_again_asks_nobody_to_look() {
        let slos = Slos::default();
        slos.set(&[]);
        assert_eq!(slos.epoch(), 0, "nothing in place of nothing");
        slos.set(&[slo("a", &[]), slo("b", &["/x"])]);
        slos.set(&[slo("a", &[]), slo("b", &["/x"])]);
        assert_eq!(slos.epoch(), 1);
        slos.set(&[slo("b", &["/x"]), slo("a", &[])]);
        assert_eq!(slos.epoch(), 2);
        let known = slos.known();
        let numbers: Vec<usize> = known.current.iter().map(|(number, _)| *number).collect();
        assert_eq!((numbers, known.names.len()), (vec![1, 0], 2), "a name keeps its number");
    }

    #[test]
    fn names_that_change_with_each_reload_come_to_an_end() {
        let slos = Slos::default();
        for round in 0..NAMES_MAX {
            assert!(slos.set(&[slo(&format!("s{round}"), &[])]).is_empty());
        }
        assert_eq!(slos.set(&[slo("one-too-many", &[]), slo("s7", &[])]), ["one-too-many"]);
        let known = slos.known();
        assert_eq!((known.names.len(), known.current.len(), known.current[0].0), (NAMES_MAX, 1, 7));
    }
}
