//! Which route a request belongs to. Declared templates today; OpenAPI import and learned templates come beside them.
//!
//! One matcher per method, so that a template that does not hold for a method never hides one that does:
//! the most specific template *for this method* wins (a literal segment before a parameter, a parameter before a
//! remainder), whatever the order in the configuration.

mod learn;
mod segment;

use std::fmt;

use crate::config::RouteTemplate;
use crate::labels::{Method, RouteId};

pub use self::learn::{Explanation, Learned, LearnedRoute, Malformed, SegmentExplained, Verdict};

/// Finds the route of a request.
pub struct RouteTable {
    by_method: [matchit::Router<RouteId>; Method::COUNT],
}

/// Two templates that match the same paths for the same method.
#[derive(Debug)]
pub struct Conflict {
    /// The template that could not be added.
    pub path: String,
    /// Why.
    pub reason: matchit::InsertError,
}

impl fmt::Display for Conflict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "routes: {}: {}", self.path, self.reason)
    }
}

impl std::error::Error for Conflict {}

impl RouteTable {
    /// A table of these templates; `id` gives each its index.
    ///
    /// # Errors
    /// When two templates match the same paths for the same method, or one is malformed.
    pub fn new(
        templates: &[RouteTemplate],
        mut id: impl FnMut(&RouteTemplate) -> RouteId,
    ) -> Result<RouteTable, Conflict> {
        let mut by_method: [matchit::Router<RouteId>; Method::COUNT] = std::array::from_fn(|_| matchit::Router::new());
        for template in templates {
            let route = id(template);
            let methods = if template.methods.is_empty() { Method::ALL } else { &template.methods };
            for method in methods {
                by_method[method.index()]
                    .insert(&template.path, route)
                    .map_err(|reason| Conflict { path: template.path.clone(), reason })?;
            }
        }
        Ok(RouteTable { by_method })
    }

    /// The route of a path (raw, without query, not decoded). A path that is not UTF-8 matches nothing.
    #[must_use]
    pub fn find(&self, method: Method, path: &[u8]) -> RouteId {
        let Ok(path) = std::str::from_utf8(path) else { return RouteId::UNMATCHED };
        self.by_method[method.index()].at(path).map_or(RouteId::UNMATCHED, |found| *found.value)
    }
}

impl fmt::Debug for RouteTable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RouteTable").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(templates: &[(&str, &[Method])]) -> RouteTable {
        let templates: Vec<_> = templates
            .iter()
            .map(|(path, methods)| RouteTemplate { path: (*path).into(), methods: methods.to_vec(), buckets: None })
            .collect();
        let mut next = 1;
        RouteTable::new(&templates, |_| {
            next += 1;
            RouteId(next)
        })
        .unwrap()
    }

    #[test]
    fn the_most_specific_template_wins_in_any_order() {
        let one = table(&[("/users/{id}", &[]), ("/users/me", &[]), ("/{a}/{*rest}", &[])]);
        assert_eq!(one.find(Method::Get, b"/users/me"), RouteId(3));
        assert_eq!(one.find(Method::Get, b"/users/7"), RouteId(2));
        assert_eq!(one.find(Method::Get, b"/users/7/orders"), RouteId(4));
        let other = table(&[("/{a}/{*rest}", &[]), ("/users/me", &[]), ("/users/{id}", &[])]);
        assert_eq!(other.find(Method::Get, b"/users/me"), RouteId(3));
        assert_eq!(other.find(Method::Get, b"/users/7"), RouteId(4));
    }

    #[test]
    fn a_template_for_another_method_hides_nothing() {
        let table = table(&[("/users/me", &[Method::Get]), ("/users/{id}", &[Method::Put])]);
        assert_eq!(table.find(Method::Put, b"/users/me"), RouteId(3));
        assert_eq!(table.find(Method::Post, b"/users/me"), RouteId::UNMATCHED);
    }

    #[test]
    fn what_is_not_text_matches_nothing() {
        assert_eq!(table(&[("/{id}", &[])]).find(Method::Get, b"/\xff"), RouteId::UNMATCHED);
    }
}
