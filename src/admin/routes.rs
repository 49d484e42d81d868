//! `/api/v1/routes`: which routes there are, where their labels come from, how often they were asked for, and why a path
//! falls under one.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use crate::labels::{Method, RouteId, RouteKind};
use crate::routes::{Explained, RouteTable};
use crate::signals::Signals;

/// A path in a question may be as long as a request line may be by default.
const PATH_BYTES_MAX: usize = 16 << 10;

/// The answer to this query: all routes, or with `path=` why that path falls under one; `method=` goes with it.
///
/// # Errors
/// A sentence on what is wrong with the question.
pub(super) fn answer(query: &str, table: &RouteTable, signals: &Signals) -> Result<Value, String> {
    let mut path = None;
    let mut method = Method::Get;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value: Vec<u8> = percent_decode_str(value).collect();
        match name {
            "path" => path = Some(value),
            "method" => method = Method::from_token(&value),
            _ => return Err(format!("unknown question {name:?}; accepted: path=/users/7, and with it method=GET")),
        }
    }
    match path {
        None => Ok(list(table, signals)),
        Some(path) if path.first() != Some(&b'/') || path.len() > PATH_BYTES_MAX => {
            Err("a path begins with / and is at most 16 KiB long".to_owned())
        }
        Some(path) => Ok(explain(table, signals, method, &path)),
    }
}

fn list(table: &RouteTable, signals: &Signals) -> Value {
    let counted = signals.requests_by_route();
    let mut routes: Vec<Value> = Vec::new();
    let learned = table.learned().map(|learned| learned.list()).unwrap_or_default();
    for (id, name, kind, requests) in &counted {
        let mut route = Map::new();
        route.insert("route".to_owned(), json!(&**name));
        route.insert("source".to_owned(), json!(kind.map(RouteKind::as_str)));
        route.insert("requests".to_owned(), json!(requests));
        if let Some(learned) = learned.iter().find(|learned| learned.id == *id) {
            route.insert("why".to_owned(), json!(learned.why));
            route.insert("examples".to_owned(), json!(learned.examples));
            route.insert("folded_into".to_owned(), json!(learned.retired));
        }
        routes.push(route.into());
    }
    // Those of a document that nobody has asked for have no number yet, and no series.
    let unused = table.imported().filter(|(name, _)| counted.iter().all(|(_, known, ..)| **known != **name));
    routes.extend(unused.map(|(name, _)| json!({"route": name, "source": RouteKind::OpenApi.as_str(), "requests": 0})));
    json!({
        "routes": routes,
        "pending": table.learned().map_or(0, |learned| learned.pending()),
        "folds": table.learned().map_or(0, |learned| learned.folded()),
        "full": table.learned().is_some_and(|learned| learned.is_full()),
        "learning": table.learned().is_some(),
    })
}

fn explain(table: &RouteTable, signals: &Signals, method: Method, path: &[u8]) -> Value {
    let counted = signals.requests_by_route();
    let by_id = |id: RouteId| counted.iter().find(|(known, ..)| *known == id).map(|(_, name, ..)| Arc::clone(name));
    let unmatched = || by_id(RouteId::UNMATCHED);
    let (route, source, why, segments) = match table.explain(method, path) {
        Explained::Declared(id) => {
            (by_id(id), Some(RouteKind::Declared), "a declared template matches it".to_owned(), Vec::new())
        }
        Explained::Imported(label) => {
            let why = "a template of an imported document matches it".to_owned();
            (Some(label.into()), Some(RouteKind::OpenApi), why, Vec::new())
        }
        Explained::Learned(explanation) => {
            let segments = explanation
                .segments
                .iter()
                .map(|segment| json!({"text": segment.text, "part": segment.part, "why": segment.why}))
                .collect();
            match explanation.route {
                Some(id) => (by_id(id), Some(RouteKind::Learned), "learned from traffic".to_owned(), segments),
                None => {
                    let would = explanation.template;
                    let why = format!(
                        "no template matches it, and no answer has earned it a label yet; it would fall under {would}"
                    );
                    (unmatched(), None, why, segments)
                }
            }
        }
        Explained::Nothing => (unmatched(), None, "no template matches it, and learning is off".to_owned(), Vec::new()),
    };
    let requests =
        counted.iter().find(|(_, name, ..)| Some(name) == route.as_ref()).map_or(0, |(.., requests)| *requests);
    json!({
        "path": String::from_utf8_lossy(path),
        "method": method.as_str(),
        "route": route.as_deref(),
        "source": source.map(RouteKind::as_str),
        "requests": requests,
        "why": why,
        "segments": segments,
    })
}
