//! Rules that find implicit errors: which of them cover a route, and what their names are numbered. A worker finds the
//! rules of a route when it meets the route, and again when a reload has changed them; in between, an answer costs the
//! comparison of two numbers.

use std::sync::Arc;

use crate::config::{IMPLICIT_ERRORS_MAX, ImplicitError, Symptom};
use crate::labels::RuleId;
use crate::signals::numbered::{Current, Named, Numbered, covering};

pub(super) use crate::signals::numbered::Covering;

const _: () = assert!(IMPLICIT_ERRORS_MAX <= Covering::BITS as usize);

/// The rules in force, and the names of all that ever were.
pub(super) type ImplicitRules = Numbered<ImplicitError>;

/// The rules as one worker applies them.
#[derive(Debug)]
pub(super) struct OwnRules {
    epoch: u64,
    current: Current<ImplicitError>,
}

/// The rules that cover a route, as they were in force when they were asked for.
#[derive(Clone, Debug)]
pub struct RouteRules {
    all: Current<ImplicitError>,
    covering: Covering,
}

impl Named for ImplicitError {
    fn name(&self) -> &str {
        &self.name
    }

    fn covers(&self, route: &str) -> bool {
        ImplicitError::covers(self, route)
    }
}

// === impl OwnRules ===

impl Default for OwnRules {
    fn default() -> Self {
        OwnRules { epoch: 0, current: Arc::new([]) }
    }
}

impl OwnRules {
    /// Finds the rules that cover the route with this label, in a list that is brought up to date before. Gives them and
    /// the number of that list.
    pub fn look_up(&mut self, rules: &ImplicitRules, route: &str) -> (u64, Covering) {
        let known = rules.known();
        self.epoch = rules.epoch();
        self.current = Arc::clone(&known.current);
        (self.epoch, covering(&self.current, route))
    }

    /// These rules, if they are of the list that is at hand.
    pub fn of(&self, epoch: u64, covering: Covering) -> Option<RouteRules> {
        (epoch == self.epoch && covering != 0).then(|| RouteRules { all: Arc::clone(&self.current), covering })
    }
}

// === impl RouteRules ===

impl RouteRules {
    /// Those that cover the route, in their order; the number before each is for [`RouteRules::get`].
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Symptom)> {
        let covering = self.all.iter().enumerate().filter(|(at, _)| self.covering & 1 << at != 0);
        covering.map(|(at, (_, rule))| (at, &rule.symptom))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, at: usize) -> (RuleId, &Symptom) {
        let (number, rule) = &self.all[at];
        (RuleId(*number as u16), &rule.symptom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::numbered::NAMES_MAX;

    fn rule(name: &str, routes: &[&str]) -> ImplicitError {
        let routes = routes.iter().map(|route| (*route).to_owned()).collect();
        ImplicitError { name: name.to_owned(), routes, symptom: Symptom::BodyContains("x".to_owned()) }
    }

    #[test]
    fn a_route_has_the_rules_that_cover_it_in_their_order() {
        let rules = ImplicitRules::default();
        let mut own = OwnRules::default();
        assert!(own.of(0, 0).is_none());
        rules.set(&[rule("a", &["/x"]), rule("b", &["/y"]), rule("c", &[])]);
        let (epoch, covering) = own.look_up(&rules, "/x");
        let names = |rules: &RouteRules| rules.iter().map(|(at, _)| rules.get(at).0.0).collect::<Vec<_>>();
        let before = own.of(epoch, covering).unwrap();
        assert_eq!(names(&before), [0, 2]);
        // A request that is under way keeps the rules that it began with.
        rules.set(&[rule("c", &["/x"]), rule("a", &[])]);
        assert_eq!(own.look_up(&rules, "/y"), (2, 0b10));
        assert!(own.of(epoch, covering).is_none(), "bits of an older list say nothing of this one");
        assert_eq!(names(&before), [0, 2]);
        let (epoch, covering) = own.look_up(&rules, "/x");
        assert_eq!(names(&own.of(epoch, covering).unwrap()), [2, 0], "a name keeps its number");
    }

    #[test]
    fn names_that_change_with_each_reload_come_to_an_end() {
        let rules = ImplicitRules::default();
        for round in 0..NAMES_MAX {
            assert!(rules.set(&[rule(&format!("r{round}"), &[])]).is_empty());
        }
        assert_eq!(rules.set(&[rule("one-too-many", &[]), rule("r7", &[])]), ["one-too-many"]);
        let known = rules.known();
        assert_eq!((known.names.len(), known.current.len(), known.current[0].0), (NAMES_MAX, 1, 7));
    }
}
