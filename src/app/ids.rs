//! Which routes get labels of their own, and with which latency edges: what the table of routes asks when one comes
//! into being. Here alone is decided how many labels there may be, whoever gives them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{Config, Slo};
use crate::labels::{RouteId, RouteKind};
use crate::routes::Ids;
use crate::signals::Signals;
use crate::signals::store::Edges;

/// Gives routes their place in the stores, and no more labels than there may be.
#[derive(Debug)]
pub(super) struct StoreIds {
    signals: Arc<Signals>,
    /// Most labels of routes that nobody declared, whoever gives them.
    limit: AtomicUsize,
    edges: Mutex<LatencyEdges>,
    names: Mutex<Names>,
}

/// Which latency edges a route gets when it comes into being.
#[derive(Debug)]
pub(super) struct LatencyEdges {
    buckets: Vec<f64>,
    slos: Vec<Slo>,
}

/// Labels that have a number.
#[derive(Debug, Default)]
struct Names {
    declared: HashSet<String>,
    /// Imported and learned ones: these count.
    others: HashSet<String>,
    /// That there are as many as there may be has been said.
    full: bool,
}

// === impl LatencyEdges ===

impl LatencyEdges {
    pub fn new(config: &Config) -> LatencyEdges {
        LatencyEdges { buckets: config.buckets.clone(), slos: config.slos.clone() }
    }

    /// The edges of a route whose own ones are these, with every threshold that holds for it; `None`: the global ones.
    /// Without a name, what belongs to no route.
    pub fn of(&self, name: Option<&str>, own: Option<&[f64]>) -> Option<Vec<f64>> {
        let covers = |slo: &&Slo| name.map_or(slo.routes.is_empty(), |name| slo.covers(name));
        let thresholds: Vec<f64> = self.slos.iter().filter(covers).filter_map(Slo::latency_seconds).collect();
        if thresholds.is_empty() {
            return own.map(<[f64]>::to_vec);
        }
        Some(Edges::with(own.unwrap_or(&self.buckets), &thresholds))
    }
}

// === impl StoreIds ===

impl StoreIds {
    /// `limit`: most labels of routes that nobody declared.
    pub fn new(signals: &Arc<Signals>, limit: usize, edges: LatencyEdges) -> StoreIds {
        let (limit, edges) = (AtomicUsize::new(limit), Mutex::new(edges));
        StoreIds { signals: Arc::clone(signals), limit, edges, names: Mutex::default() }
    }

    /// Changes the limit. Labels that were given stay, also beyond it.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
        self.names.lock().unwrap_or_else(PoisonError::into_inner).full = false;
    }

    /// Changes the edges of routes that come into being from now on.
    pub fn set_edges(&self, edges: LatencyEdges) {
        *self.edges.lock().unwrap_or_else(PoisonError::into_inner) = edges;
    }

    fn declare(&self, name: &str, kind: RouteKind, own: Option<&[f64]>) -> Option<RouteId> {
        let edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner).of(Some(name), own);
        self.signals.declare_route(name, kind, edges.as_deref())
    }
}

impl Ids for StoreIds {
    fn declared(&self, name: &str, edges: Option<&[f64]>) -> RouteId {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        // Its place is free again.
        names.others.remove(name);
        names.declared.insert(name.to_owned());
        drop(names);
        self.declare(name, RouteKind::Declared, edges).unwrap_or(RouteId::OTHER)
    }

    fn first_used(&self, name: &str, kind: RouteKind) -> Option<RouteId> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.declared.contains(name) || names.others.contains(name);
        let limit = self.limit.load(Relaxed);
        if !known && names.others.len() >= limit {
            if !std::mem::replace(&mut names.full, true) {
                tracing::warn!(
                    event = "routes_limit_reached",
                    limit,
                    "further routes count under _other; golden-sidecar routes list shows those that have a label"
                );
            }
            return None;
        }
        let route = self.declare(name, kind, None)?;
        if !known {
            names.others.insert(name.to_owned());
        }
        Some(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(limit: usize) -> StoreIds {
        let edges = LatencyEdges { buckets: vec![0.1], slos: Vec::new() };
        StoreIds::new(&Signals::new(1, &[0.1], 100), limit, edges)
    }

    #[test]
    fn imported_and_learned_labels_share_one_limit_and_declared_ones_have_none() {
        let ids = ids(2);
        let first = |name, kind| ids.first_used(name, kind);
        let declared = ids.declared("/declared", None);
        let imported = first("/imported", RouteKind::OpenApi).unwrap();
        let learned = first("/learned", RouteKind::Learned).unwrap();
        for kind in [RouteKind::OpenApi, RouteKind::Learned] {
            assert_eq!(first("/more", kind), None);
        }
        assert_ne!(ids.declared("/late", None), RouteId::OTHER);
        // Who has a number keeps it, whoever asks.
        assert_eq!(first("/imported", RouteKind::Learned), Some(imported));
        assert_eq!(first("/learned", RouteKind::OpenApi), Some(learned));
        assert_eq!(first("/declared", RouteKind::Learned), Some(declared));
        ids.set_limit(1);
        assert_eq!(first("/learned", RouteKind::Learned), Some(learned));
        assert_eq!(first("/more", RouteKind::Learned), None);
        ids.set_limit(3);
        assert!(first("/more", RouteKind::Learned).is_some());
        assert_eq!(first("/most", RouteKind::Learned), None);
        // One that is declared later counts no more.
        assert_eq!(ids.declared("/learned", None), learned);
        assert!(first("/most", RouteKind::Learned).is_some());
    }

    #[test]
    fn an_objective_makes_an_edge_where_it_holds() {
        let slo = |name: &str, routes: &[&str], millis| Slo {
            name: name.to_owned(),
            objective: 0.99,
            latency: Some(std::time::Duration::from_millis(millis)),
            too_slow_is_error: false,
            routes: routes.iter().map(|route| (*route).to_owned()).collect(),
        };
        let edges =
            LatencyEdges { buckets: vec![0.1, 1.0], slos: vec![slo("all", &[], 300), slo("one", &["/a"], 200)] };
        assert_eq!(edges.of(None, None), Some(vec![0.1, 0.3, 1.0]));
        assert_eq!(edges.of(Some("/a"), None), Some(vec![0.1, 0.2, 0.3, 1.0]));
        assert_eq!(edges.of(Some("/b"), Some(&[0.5])), Some(vec![0.3, 0.5]));
    }
}
