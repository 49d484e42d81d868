//! Which route a request belongs to. Three sources, asked in this order:
//!
//! | source | file | when a route has its label |
//! |---|---|---|
//! | declared templates of the configuration | `table.rs` | from the start |
//! | templates of an OpenAPI or Swagger document | `openapi.rs`, `imported.rs` | from its first request |
//! | templates learned from traffic | `segment.rs`, `learn/` | once an answer other than 404 or 405 has earned it |
//!
//! A path that none of them knows is `_unmatched`; one that would have a label but for a limit is `_other`. No label
//! ever holds a raw value of a client, nor a `*`.
//!
//! [`RouteTable::find`] is on the request path: no lock and no allocation. [`RouteTable::earned`] is called once per
//! request to a path that nobody knew.

mod imported;
mod learn;
pub mod openapi;
mod segment;
mod table;

use std::fmt;
use std::sync::Arc;

use crate::config::RouteTemplate;
use crate::labels::{Method, RouteId, RouteKind};

pub use learn::{Explanation, Hindrance, LONGEST_STATE, Learned, LearnedRoute, Malformed, SegmentExplained, Verdict};
use openapi::{ImportedTemplate, Notes};
pub use table::Conflict;
use table::Templates;

/// Answers that say "there is nothing here": whoever guesses paths must not create labels with them.
const EARNS_NOTHING: [u16; 2] = [404, 405];

/// Longer paths are not learned from: a path is kept until its answer comes, and no template that people would read is
/// that long.
const LEARNED_PATH_BYTES: usize = 1024;

/// Gives routes their numbers. `app` puts the stores behind it.
pub trait Ids: fmt::Debug + Send + Sync {
    /// The number of a declared route, which has its series at once. `edges`: its latency edges, `None`: the global
    /// ones.
    fn declared(&self, name: &str, edges: Option<&[f64]>) -> RouteId;
    /// The number of a route that is used for the first time; `None`: there are as many as there may be.
    fn first_used(&self, name: &str, kind: RouteKind) -> Option<RouteId>;
}

/// Finds the route of a request. Made anew by each reload; what was learned stays.
#[derive(Debug)]
pub struct RouteTable {
    templates: Templates,
    learned: Option<Arc<Learned>>,
    ids: Arc<dyn Ids>,
    notes: Notes,
}

/// The route of a request, as far as its head tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The route.
    pub route: RouteId,
    /// Whether nobody knows the path, so that its answer may earn it a label.
    pub unknown: bool,
}

/// Why a path falls under a route.
#[derive(Clone, Debug)]
pub enum Explained<'a> {
    /// The configuration says so.
    Declared(RouteId),
    /// A document says so: the label, and the route that its requests count under once there was one. That is
    /// [`RouteId::OTHER`] where no more labels could be given.
    Imported(&'a str, Option<RouteId>),
    /// Traffic says so, or says nothing yet.
    Learned(Explanation),
    /// No template matches, and nothing is learned from paths of more than so many bytes.
    TooLong(usize),
    /// No template matches, and nothing is learned.
    Nothing,
}

// === impl RouteTable ===

impl RouteTable {
    /// A table of these templates, the declared ones first. `learned`: what is learned from other paths, if anything.
    ///
    /// # Errors
    /// When two declared templates match the same paths for the same method, or one is malformed.
    pub fn new(
        declared: &[RouteTemplate],
        imported: &[ImportedTemplate],
        learned: Option<Arc<Learned>>,
        ids: Arc<dyn Ids>,
    ) -> Result<RouteTable, Conflict> {
        let (templates, notes) = Templates::new(declared, imported, &*ids)?;
        Ok(RouteTable { templates, learned, ids, notes })
    }

    /// What there is to say of imported templates that share a label or could not be taken in.
    #[must_use]
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The imported templates as labels, and the routes of those that had a request.
    pub fn imported(&self) -> impl Iterator<Item = (&str, Option<RouteId>)> {
        self.templates.imported().labels()
    }

    /// The route of a path (raw, without query, not decoded).
    #[must_use]
    pub fn find(&self, method: Method, path: &[u8]) -> Found {
        if let Some(route) = self.templates.find(method, path, &*self.ids) {
            return Found { route, unknown: false };
        }
        let Some(learned) = &self.learned else { return Found { route: RouteId::UNMATCHED, unknown: false } };
        match learned.find(path) {
            Some(route) => Found { route, unknown: false },
            None => Found { route: RouteId::UNMATCHED, unknown: path.len() <= LEARNED_PATH_BYTES },
        }
    }

    /// The route of a path that was unknown when its request came and that the backend has answered with this status.
    #[must_use]
    pub fn earned(&self, path: &[u8], status: u16) -> RouteId {
        let Some(learned) = &self.learned else { return RouteId::UNMATCHED };
        if EARNS_NOTHING.contains(&status) {
            return RouteId::UNMATCHED;
        }
        match learned.learn(path, &|name| self.ids.first_used(name, RouteKind::Learned)) {
            Verdict::Label(route) => route,
            Verdict::Wait => RouteId::UNMATCHED,
            Verdict::Full => RouteId::OTHER,
        }
    }

    /// Why a path falls under its route. Counts nothing and gives no label.
    #[must_use]
    pub fn explain(&self, method: Method, path: &[u8]) -> Explained<'_> {
        if let Some(route) = self.templates.find_declared(method, path) {
            return Explained::Declared(route);
        }
        if let Some((label, route)) = self.templates.imported().label(method, path) {
            return Explained::Imported(label, route);
        }
        let Some(learned) = &self.learned else { return Explained::Nothing };
        let explanation = learned.explain(path);
        if explanation.route.is_none() && path.len() > LEARNED_PATH_BYTES {
            return Explained::TooLong(LEARNED_PATH_BYTES);
        }
        Explained::Learned(explanation)
    }

    /// What is learned from paths that no template matches, if anything is.
    #[must_use]
    pub fn learned(&self) -> Option<&Learned> {
        self.learned.as_deref()
    }
}
