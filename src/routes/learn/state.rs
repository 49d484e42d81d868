//! What was decided, written down so that a restart does not relearn.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::path::{Part, parse};
use super::trie::Trie;
use super::{Given, LONGEST_TEMPLATE, Learned, Node};
use crate::labels::RouteId;

/// The longest state that is read back, in bytes. The highest limit that a configuration may set is 10,000 routes; that
/// many of the longest templates, and as many folds of that length, are 5.5 MB.
pub const LONGEST_STATE: usize = 6 << 20;

/// What the state holds besides its templates: the braces and names around them, a version of ten digits.
const FRAME_BYTES: usize = 64;
/// Quotes and a comma.
const ROUTE_BYTES: usize = 3;
/// `{"place":"","siblings":4294967295},`
const FOLD_BYTES: usize = 35;

/// A saved state that cannot be read.
#[derive(Debug)]
pub enum Malformed {
    /// Longer than is read.
    TooLarge(usize),
    /// Not the JSON that [`Learned::save`] writes.
    Json(serde_json::Error),
    /// Of another format.
    Version(u32),
    /// A template that this version could not have learned.
    Template(String),
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::TooLarge(bytes) => write!(out, "{bytes} bytes; at most {LONGEST_STATE} are read"),
            Malformed::Json(error) => error.fmt(out),
            Malformed::Version(found) => write!(out, "version {found}; this program reads version {STATE_VERSION}"),
            Malformed::Template(template) => write!(out, "{template:?} is not a template that could have been learned"),
        }
    }
}

impl std::error::Error for Malformed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Malformed::Json(error) => Some(error),
            _ => None,
        }
    }
}

/// The format of the saved state.
const STATE_VERSION: u32 = 1;

/// What every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// What is kept over a restart: decisions, never a value that somebody sent and that waits.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    /// Templates that requests fall under.
    routes: Vec<String>,
    /// Parameters that take in words: their places as templates.
    folds: Vec<Fold>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fold {
    place: String,
    siblings: u32,
}

// === impl Learned ===

impl Learned {
    /// What was decided, as JSON: templates and folds, no value that somebody sent and that waits. Never more than is
    /// read back: what is beyond that is left out, folds first.
    #[must_use]
    pub fn save(&self) -> String {
        let mut state = State { version: STATE_VERSION, routes: Vec::new(), folds: Vec::new() };
        self.lock().root.save(&mut String::new(), &mut state);
        let mut room = LONGEST_STATE - FRAME_BYTES;
        let mut fits = |bytes: usize| {
            let left = room.checked_sub(bytes);
            room = left.unwrap_or(0);
            left.is_some()
        };
        // No template holds anything that JSON escapes.
        state.routes.retain(|route| fits(route.len() + ROUTE_BYTES));
        state.folds.retain(|fold| fits(fold.place.len() + FOLD_BYTES));
        serde_json::to_string(&state).unwrap_or_default()
    }

    /// Takes in what [`Learned::save`] wrote, as far as the limit allows; returns the number of labels given.
    ///
    /// # Errors
    /// When the text is too long, malformed or of another version; then nothing has changed.
    pub fn restore(&self, text: &str, give: &dyn Fn(&str) -> Option<RouteId>) -> Result<usize, Malformed> {
        if text.len() > LONGEST_STATE {
            return Err(Malformed::TooLarge(text.len()));
        }
        // Another version may have other fields, so it is looked at by itself.
        let Versioned { version } = serde_json::from_str(text).map_err(Malformed::Json)?;
        if version != STATE_VERSION {
            return Err(Malformed::Version(version));
        }
        let State { routes, folds, .. } = serde_json::from_str(text).map_err(Malformed::Json)?;
        let parse = |template: &String| parse(template).ok_or_else(|| Malformed::Template(template.clone()));
        let parsed: Vec<_> = routes.iter().map(parse).collect::<Result<_, _>>()?;
        let places: Vec<_> = folds.iter().map(|fold| parse(&fold.place)).collect::<Result<_, _>>()?;
        if let Some(at) = places.iter().position(|parts| !matches!(parts.last(), Some(Part::Param(_)))) {
            return Err(Malformed::Template(folds[at].place.clone()));
        }
        let mut learner = self.lock();
        let limit = self.limit.load(Ordering::Relaxed);
        let mut restored = 0;
        // At most so many places as routes could have.
        for (parts, fold) in places.iter().zip(&folds).take(limit) {
            let (before, last) = parts.split_at(parts.len() - 1);
            if let Part::Param(name) = last[0] {
                let param = learner.root.grow(before).param_or_new(name);
                param.words = true;
                param.siblings = param.siblings.max(fold.siblings);
            }
        }
        for (parts, template) in parsed.iter().zip(&routes) {
            if learner.given >= limit {
                break;
            }
            let node = learner.root.grow(parts);
            if node.label.is_none() {
                let Some(id) = give(template) else { break };
                node.label = Some(Given { id, template: template.as_str().into() });
                learner.given += 1;
                restored += 1;
            }
        }
        learner.recount();
        self.full.store(learner.given >= limit, Ordering::Relaxed);
        self.waiting.store(learner.nodes, Ordering::Relaxed);
        self.trie.store(Arc::new(Trie::new(&learner.root)));
        Ok(restored)
    }
}

// === impl Node ===

impl Node {
    fn save(&self, whole: &mut String, state: &mut State) {
        if let Some(label) = &self.label {
            state.routes.push(label.template.to_string());
        }
        let length = whole.len();
        for word in self.words.iter().filter(|word| word.literal) {
            whole.push('/');
            whole.push_str(&word.text);
            word.node.save(whole, state);
            whole.truncate(length);
        }
        if let Some(param) = &self.param {
            whole.push_str("/{");
            whole.push_str(param.name);
            whole.push('}');
            if param.words && whole.len() <= LONGEST_TEMPLATE {
                state.folds.push(Fold { place: whole.clone(), siblings: param.siblings });
            }
            param.node.save(whole, state);
            whole.truncate(length);
        }
    }
}
