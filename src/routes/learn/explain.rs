//! What a person is told: which labels there are, and why a path falls under one.

use super::path::{Segment, split};
use super::{Given, LONGEST_TEMPLATE, Learned, LearnedRoute, MOST_SEGMENTS, Node, Param, Place, Word};
use crate::labels::RouteId;
use crate::routes::segment::{self, Class, Shape};

/// Why a path falls under a route, or why under none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// From left to right.
    pub segments: Vec<SegmentExplained>,
    /// The route, if it has one.
    pub route: Option<RouteId>,
    /// What the segments make together: the template, whole or as far as it is known.
    pub template: String,
    /// Without a route: what keeps the path from getting one, if it is not just time.
    pub hindrance: Option<Hindrance>,
}

/// What keeps a path from ever getting a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// The limit is reached: an answer that earns a label counts under [`RouteId::OTHER`].
    Limit,
    /// Its template is longer than this, in bytes.
    LongTemplate(usize),
}

/// One segment of an explained path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentExplained {
    /// The segment as it came, escaped for display and cut.
    pub text: String,
    /// What it is in the template: itself, or a parameter in braces.
    pub part: String,
    /// Why.
    pub why: String,
}

// === impl Learned ===

impl Learned {
    /// Every label that was given, those that requests fall under first, each in the order of the templates.
    #[must_use]
    pub fn list(&self) -> Vec<LearnedRoute> {
        let learner = self.lock();
        let mut routes = Vec::new();
        learner.root.list(&mut String::new(), &mut Vec::new(), &[], &mut routes);
        let mut retired = learner.retired.clone();
        retired.sort_by(|a, b| a.template.cmp(&b.template));
        routes.append(&mut retired);
        routes
    }

    /// Why a path falls under a route, segment by segment, or what it waits for.
    #[must_use]
    pub fn explain(&self, path: &[u8]) -> Explanation {
        let route = self.find(path);
        let Some(segments) = split(path) else {
            return Explanation { segments: Vec::new(), route, template: String::new(), hindrance: None };
        };
        let explained = self.lock().root.explain(&segments, route);
        let template = if explained.is_empty() {
            "/".to_owned()
        } else {
            explained.iter().fold(String::new(), |whole, segment| whole + "/" + &segment.part)
        };
        let hindrance = match route {
            None if self.is_full() => Some(Hindrance::Limit),
            None if template.len() > LONGEST_TEMPLATE => Some(Hindrance::LongTemplate(LONGEST_TEMPLATE)),
            _ => None,
        };
        Explanation { segments: explained, route, template, hindrance }
    }
}

// === impl Node ===

impl Node {
    fn list(&self, whole: &mut String, whys: &mut Vec<String>, examples: &[Box<str>], routes: &mut Vec<LearnedRoute>) {
        if let Some(Given { id, template }) = &self.label {
            routes.push(LearnedRoute {
                template: template.to_string(),
                id: *id,
                retired: None,
                examples: examples.iter().map(ToString::to_string).collect(),
                why: if whys.is_empty() { "words only".to_owned() } else { whys.join("; ") },
            });
        }
        let length = whole.len();
        for word in &self.words {
            whole.push('/');
            whole.push_str(&word.text);
            word.node.list(whole, whys, examples, routes);
            whole.truncate(length);
        }
        if let Some(param) = &self.param {
            whys.push(param.why(whole));
            whole.push_str("/{");
            whole.push_str(param.name);
            whole.push('}');
            let examples = if param.examples.is_empty() { examples } else { &param.examples };
            param.node.list(whole, whys, examples, routes);
            whole.truncate(length);
            whys.pop();
        }
    }

    fn explain(&self, segments: &[Segment<'_>], route: Option<RouteId>) -> Vec<SegmentExplained> {
        let mut best = Vec::new();
        if route.is_some() && self.explain_route(segments, route, &mut String::new(), &mut best) {
            best.reverse();
            return best;
        }
        let mut explained = Vec::new();
        let (mut node, mut place, mut whole) = (Some(self), Place::Open, String::new());
        for segment in segments {
            let word = match node {
                Some(node) => node.word_for(segment, place),
                None => {
                    matches!(segment.class, Class::Word(_)).then(|| std::str::from_utf8(segment.text).ok()).flatten()
                }
            };
            let (part, why, next) = match (word, node) {
                (Some(text), _) => {
                    let known = node.and_then(|node| node.position(text).ok().map(|at| &node.words[at]));
                    let why = known.map_or_else(|| "a word not seen here before".to_owned(), Word::why);
                    place = Place::after_word(text);
                    (text.to_owned(), why, known.map(|word| &word.node))
                }
                (None, node) => {
                    let param = node.and_then(|node| node.param.as_ref());
                    let why = param
                        .map_or_else(|| segment.class.describe().to_owned(), |param| param.why_of(segment, &whole));
                    place = param.map_or(Place::AfterValue, |param| Place::after_param(param));
                    let name = param.map_or_else(|| segment.parameter(), |param| param.name);
                    (format!("{{{name}}}"), why, param.map(|param| &param.node))
                }
            };
            whole.push('/');
            whole.push_str(&part);
            explained.push(SegmentExplained { text: display(segment.text), part, why });
            node = next;
        }
        explained
    }

    /// Fills in the way to the route that was found, from its end; false if it is not below here.
    fn explain_route(
        &self,
        segments: &[Segment<'_>],
        route: Option<RouteId>,
        whole: &mut String,
        explained: &mut Vec<SegmentExplained>,
    ) -> bool {
        let Some((segment, after)) = segments.split_first() else {
            return route.is_some() && self.label.as_ref().map(|label| label.id) == route;
        };
        let length = whole.len();
        if let Ok(text) = std::str::from_utf8(segment.text)
            && let Ok(at) = self.position(text)
        {
            let word = &self.words[at];
            whole.push('/');
            whole.push_str(text);
            if word.node.explain_route(after, route, whole, explained) {
                explained.push(SegmentExplained {
                    text: display(segment.text),
                    part: text.to_owned(),
                    why: word.why(),
                });
                return true;
            }
            whole.truncate(length);
        }
        if let Some(param) = &self.param {
            let part = format!("{{{}}}", param.name);
            let why = param.why_of(segment, whole);
            whole.push('/');
            whole.push_str(&part);
            if param.node.explain_route(after, route, whole, explained) {
                explained.push(SegmentExplained { text: display(segment.text), part, why });
                return true;
            }
            whole.truncate(length);
        }
        false
    }
}

/// A segment for people: escaped, and cut.
fn display(text: &[u8]) -> String {
    let cut = &text[..text.len().min(segment::LONGEST_WORD)];
    let mut shown = cut.escape_ascii().to_string();
    if cut.len() < text.len() {
        shown.push('…');
    }
    shown
}

// === impl Word ===

impl Word {
    fn why(&self) -> String {
        let total = self.total();
        match (self.literal, self.shape) {
            (true, Shape::Version) => "a version".to_owned(),
            (true, Shape::Reserved) => "a word that interfaces keep for themselves".to_owned(),
            (true, _) if self.shared => "a word seen below several values".to_owned(),
            (true, _) => "a word".to_owned(),
            (false, _) if total == 1 => "a word that may be a name, seen once so far".to_owned(),
            (false, _) => format!("a word that may be a name, seen {total} times so far"),
        }
    }
}

// === impl Param ===

impl Param {
    /// Why there is a parameter below this place.
    fn why(&self, place: &str) -> String {
        let place = if place.is_empty() { "/" } else { place };
        if self.words {
            format!("{{{}}}: {} siblings folded below {place}", self.name, self.siblings)
        } else {
            format!("{{{}}}: values by their look", self.name)
        }
    }

    /// Why this segment falls under it.
    fn why_of(&self, segment: &Segment<'_>, place: &str) -> String {
        match segment.class {
            _ if segment.rest => format!("deeper than {MOST_SEGMENTS} segments"),
            Class::Word(_) if self.words => {
                format!("{} siblings folded below {}", self.siblings, if place.is_empty() { "/" } else { place })
            }
            class => class.describe().to_owned(),
        }
    }
}
