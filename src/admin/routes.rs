//! `/api/v1/routes`: which routes there are, where their labels come from, how often they were asked for, and why a
//! path falls under one.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use crate::labels::{Method, RouteId, RouteKind};
use crate::routes::{Explained, Hindrance, RouteTable};
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
    // Those of a document that nobody has asked for have no number yet, and no series; nor have those beyond the limit.
    let unnumbered = table.imported().filter(|(name, _)| counted.iter().all(|(_, known, ..)| **known != **name));
    routes.extend(unnumbered.map(|(name, route)| {
        let counts_under = route.filter(|id| *id == RouteId::OTHER).and_then(|id| name_of(&counted, id));
        let source = RouteKind::OpenApi.as_str();
        json!({"route": name, "source": source, "requests": 0, "counts_under": counts_under.as_deref()})
    }));
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
    let mut segments = Vec::new();
    let (route, source, why) = match table.explain(method, path) {
        Explained::Declared(id) => {
            let mut why = "a declared template matches it".to_owned();
            if id == RouteId::OTHER {
                why.push_str(", but there was no room for its label");
            }
            (name_of(&counted, id), Some(RouteKind::Declared), why)
        }
        Explained::Imported(label, id) => {
            let (route, why) = match id {
                Some(RouteId::OTHER) => {
                    let why = format!(
                        "the template {label} of an imported document matches it, but the limit of routes was reached \
                         when its first request came"
                    );
                    (name_of(&counted, RouteId::OTHER), why)
                }
                Some(id) => (name_of(&counted, id), "a template of an imported document matches it".to_owned()),
                None => {
                    let why = "a template of an imported document matches it; its first request gives it the label, as \
                               long as the limit of routes is not reached";
                    (Some(label.into()), why.to_owned())
                }
            };
            (route, Some(RouteKind::OpenApi), why)
        }
        Explained::Learned(explanation) => {
            segments = explanation
                .segments
                .iter()
                .map(|segment| json!({"text": segment.text, "part": segment.part, "why": segment.why}))
                .collect();
            let would = explanation.template;
            match (explanation.route, explanation.hindrance) {
                (Some(id), _) => (name_of(&counted, id), Some(RouteKind::Learned), "learned from traffic".to_owned()),
                (None, Some(Hindrance::Limit)) => {
                    let why = "no template matches it, and the limit of routes is reached: what would earn a label \
                               counts under _other, a 404, 405 or no answer under _unmatched";
                    (name_of(&counted, RouteId::OTHER), None, why.to_owned())
                }
                (None, Some(Hindrance::LongTemplate(most))) => {
                    let why = format!("no template matches it, and its own would be longer than {most} bytes");
                    (name_of(&counted, RouteId::UNMATCHED), None, why)
                }
                (None, None) => {
                    let why = format!(
                        "no template matches it, and no answer has earned it a label yet; it would fall under {would}"
                    );
                    (name_of(&counted, RouteId::UNMATCHED), None, why)
                }
            }
        }
        Explained::TooLong(most) => {
            let why = format!("no template matches it, and nothing is learned from paths of more than {most} bytes");
            (name_of(&counted, RouteId::UNMATCHED), None, why)
        }
        Explained::Nothing => {
            (name_of(&counted, RouteId::UNMATCHED), None, "no template matches it, and learning is off".to_owned())
        }
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

/// The label of a route among those that were counted.
fn name_of(counted: &[(RouteId, Arc<str>, Option<RouteKind>, u64)], id: RouteId) -> Option<Arc<str>> {
    counted.iter().find(|(known, ..)| *known == id).map(|(_, name, ..)| Arc::clone(name))
}
