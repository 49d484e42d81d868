//! Templates that somebody wrote down: those of the configuration, then those of documents.
//!
//! One matcher per method for the declared ones, so that a template that does not hold for a method never hides one
//! that does: the most specific template *for this method* wins (a literal segment before a parameter, a parameter
//! before a remainder), whatever the order in the configuration. What none of them matches is looked up among the
//! imported ones.

use std::fmt;

use crate::config::RouteTemplate;
use crate::labels::{Method, RouteId};
use crate::routes::Ids;
use crate::routes::imported::Imported;
use crate::routes::openapi::{ImportedTemplate, Notes};

/// Finds the template of a path.
pub(super) struct Templates {
    /// `None`: nothing is declared.
    declared: Option<Box<[matchit::Router<RouteId>; Method::COUNT]>>,
    imported: Imported,
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

// === impl Templates ===

impl Templates {
    /// A table of these templates, and what there is to say of the imported ones.
    ///
    /// # Errors
    /// When two declared templates match the same paths for the same method, or one is malformed.
    pub fn new(
        declared: &[RouteTemplate],
        imported: &[ImportedTemplate],
        ids: &dyn Ids,
    ) -> Result<(Templates, Notes), Conflict> {
        let mut by_method: [matchit::Router<RouteId>; Method::COUNT] = std::array::from_fn(|_| matchit::Router::new());
        for template in declared {
            let route = ids.declared(&label(&template.path), template.buckets.as_deref());
            let methods = if template.methods.is_empty() { Method::ALL } else { &template.methods };
            for method in methods {
                by_method[method.index()]
                    .insert(&template.path, route)
                    .map_err(|reason| Conflict { path: template.path.clone(), reason })?;
            }
        }
        let mut notes = Notes::default();
        let paths: Vec<String> = declared.iter().map(|template| template.path.clone()).collect();
        let imported = Imported::new(imported, &paths, &mut notes);
        Ok((Templates { declared: (!declared.is_empty()).then(|| Box::new(by_method)), imported }, notes))
    }

    /// The route of a path; one that is not UTF-8 matches nothing that is declared.
    pub fn find(&self, method: Method, path: &[u8], ids: &dyn Ids) -> Option<RouteId> {
        self.find_declared(method, path).or_else(|| self.imported.find(method, path, ids))
    }

    /// The imported templates.
    pub fn imported(&self) -> &Imported {
        &self.imported
    }

    /// The declared route of a path.
    pub fn find_declared(&self, method: Method, path: &[u8]) -> Option<RouteId> {
        let declared = self.declared.as_ref()?;
        let path = std::str::from_utf8(path).ok()?;
        declared[method.index()].at(path).ok().map(|found| *found.value)
    }
}

/// The label of a declared template: its text, without the star of a remainder, which dashboards take for a pattern.
/// The configuration has no template with another one.
fn label(template: &str) -> String {
    template.replace("{*", "{")
}

impl fmt::Debug for Templates {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Templates").field("imported", &self.imported).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

    use super::*;
    use crate::labels::RouteKind;

    /// Numbers templates from 2 on, in the order in which they are given.
    #[derive(Debug)]
    struct InOrder(AtomicU16);

    impl Ids for InOrder {
        fn declared(&self, _name: &str, _edges: Option<&[f64]>) -> RouteId {
            RouteId(self.0.fetch_add(1, Relaxed))
        }

        fn first_used(&self, _name: &str, _kind: RouteKind) -> Option<RouteId> {
            Some(RouteId(self.0.fetch_add(1, Relaxed)))
        }
    }

    fn table(templates: &[(&str, &[Method])]) -> Templates {
        let templates: Vec<_> = templates
            .iter()
            .map(|(path, methods)| RouteTemplate { path: (*path).into(), methods: methods.to_vec(), buckets: None })
            .collect();
        Templates::new(&templates, &[], &InOrder(AtomicU16::new(2))).unwrap().0
    }

    #[test]
    fn the_most_specific_template_wins_in_any_order() {
        let one = table(&[("/users/{id}", &[]), ("/users/me", &[]), ("/{a}/{*rest}", &[])]);
        assert_eq!(one.find_declared(Method::Get, b"/users/me"), Some(RouteId(3)));
        assert_eq!(one.find_declared(Method::Get, b"/users/7"), Some(RouteId(2)));
        assert_eq!(one.find_declared(Method::Get, b"/users/7/orders"), Some(RouteId(4)));
        let other = table(&[("/{a}/{*rest}", &[]), ("/users/me", &[]), ("/users/{id}", &[])]);
        assert_eq!(other.find_declared(Method::Get, b"/users/me"), Some(RouteId(3)));
        assert_eq!(other.find_declared(Method::Get, b"/users/7"), Some(RouteId(4)));
    }

    #[test]
    fn a_template_for_another_method_hides_nothing() {
        let table = table(&[("/users/me", &[Method::Get]), ("/users/{id}", &[Method::Put])]);
        assert_eq!(table.find_declared(Method::Put, b"/users/me"), Some(RouteId(3)));
        assert_eq!(table.find_declared(Method::Post, b"/users/me"), None);
    }

    #[test]
    fn what_is_not_text_matches_nothing() {
        assert_eq!(table(&[("/{id}", &[])]).find_declared(Method::Get, b"/\xff"), None);
    }
}
