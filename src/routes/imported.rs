//! Imported templates as a tree, one level per segment: finds the template of a path without a lock or an allocation.
//!
//! At each level a literal segment is tried before one with literal parts (`{base}...{head}`, `{id}.json`, `{name}:cancel`),
//! that before a whole parameter, and that before a remainder; what leads nowhere is taken back. A parameter is one segment
//! or a part of one, and never empty. Paths are compared as they come, not decoded.
//!
//! Not `matchit`, which the declared templates use: it refuses two parameters in one segment and several names for one
//! parameter, and documents are full of both.
//!
//! A template holds for the methods that its document has there. A path that is there for other methods only is the most
//! specific template's all the same: HEAD and OPTIONS are rarely written down, and 405 answers want a label too.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::labels::{Method, RouteId, RouteKind};
use crate::routes::Ids;
use crate::routes::openapi::{ImportedTemplate, Notes};

/// Segments with literal parts below one node. They are tried one by one, a few nanoseconds each.
const PATTERNS_MAX: usize = 128;
/// Ways to read one template: each part that may be missing doubles them.
const READINGS_MAX: usize = 8;
/// The route number of a template that has had no request yet.
const UNUSED: u32 = u32::MAX;

/// Finds the imported template of a path.
#[derive(Debug)]
pub(super) struct Imported {
    nodes: Vec<Node>,
    labels: Vec<Label>,
}

/// A label and its route number, once there is one.
#[derive(Debug)]
struct Label {
    name: String,
    route: AtomicU32,
}

/// What can follow the segments so far.
#[derive(Debug, Default)]
struct Node {
    /// By their text, sorted.
    literals: Vec<(Box<[u8]>, usize)>,
    /// The most literal first.
    patterns: Vec<(Pattern, usize)>,
    parameter: Option<usize>,
    remainder: Option<End>,
    /// The end of a template that is written without and with a slash behind.
    ends: [Option<End>; 2],
}

/// A template that ends here.
#[derive(Clone, Copy, Debug)]
struct End {
    methods: u16,
    label: usize,
}

/// A segment of literal parts with parameters between them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    /// First and last may be empty: then the segment begins or ends with a parameter. Never fewer than two.
    literals: Vec<Box<[u8]>>,
}

/// A segment of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<[u8]>),
    Pattern(Pattern),
    Parameter,
    Remainder,
}

/// What a request asks for, and what was found on the way.
struct Search {
    method: u16,
    slash: bool,
    /// The first template for another method.
    other: Option<usize>,
}

// === impl Imported ===

impl Imported {
    /// A tree of these templates. Of several that match the same paths, the first gives the label. Adds to `notes` what
    /// cannot be taken in, and what shares a label.
    pub fn new(templates: &[ImportedTemplate], declared: &[String], notes: &mut Notes) -> Imported {
        let mut tree = Imported { nodes: vec![Node::default()], labels: Vec::new() };
        let mut labels = HashMap::new();
        let declared: BTreeSet<_> =
            declared.iter().filter_map(|path| read(path).ok()?.1.into_iter().next()).map(shape).collect();
        for template in templates {
            let (name, readings) = match read(&template.path) {
                Ok(read) => read,
                Err(why) => {
                    notes.add(format!("skipped {:?}: {why}", template.path));
                    continue;
                }
            };
            if readings.first().is_some_and(|reading| declared.contains(&shape(reading.clone()))) {
                notes.add(format!("{:?} is declared too; the declared route comes first", template.path));
            }
            let label = *labels.entry(name).or_insert_with_key(|name| {
                tree.labels.push(Label { name: name.clone(), route: AtomicU32::new(UNUSED) });
                tree.labels.len() - 1
            });
            let methods = bits(&template.methods);
            let slash = template.path.len() > 1 && template.path.ends_with('/');
            for segments in readings {
                match tree.insert(&segments, slash, End { methods, label }) {
                    Ok(taken) if taken == label => {}
                    Ok(taken) => notes.add(format!(
                        "{:?} matches the paths of {:?}, which came first and gives both their label",
                        template.path, tree.labels[taken].name
                    )),
                    Err(why) => notes.add(format!("skipped {:?}: {why}", template.path)),
                }
            }
        }
        tree
    }

    /// The route of a path.
    pub fn find(&self, method: Method, path: &[u8], ids: &dyn Ids) -> Option<RouteId> {
        if self.labels.is_empty() {
            return None;
        }
        let mut search = Search { method: bit(method), slash: false, other: None };
        let path = path.strip_prefix(b"/")?;
        let found = match path {
            // The root has a slash at its end, and no segments.
            b"" => self.end(0, &mut search),
            _ => {
                let (path, slash) = path.strip_suffix(b"/").map_or((path, false), |path| (path, true));
                search.slash = slash;
                self.walk(0, path, &mut search)
            }
        };
        Some(self.route(found.or(search.other)?, ids))
    }

    /// Templates that have a label of their own, and the routes of those that had a request.
    pub fn labels(&self) -> impl Iterator<Item = (&str, Option<RouteId>)> {
        self.labels.iter().map(|label| {
            let route = u16::try_from(label.route.load(Relaxed)).ok().map(RouteId);
            (label.name.as_str(), route)
        })
    }

    fn route(&self, label: usize, ids: &dyn Ids) -> RouteId {
        let label = &self.labels[label];
        match u16::try_from(label.route.load(Relaxed)) {
            Ok(route) => RouteId(route),
            Err(_) => label.first_used(ids),
        }
    }

    /// Tries the segments of `path` below a node. No deeper than the tree, which the reader of documents bounds.
    fn walk(&self, node: usize, path: &[u8], search: &mut Search) -> Option<usize> {
        let node = &self.nodes[node];
        let (segment, rest) = match memchr::memchr(b'/', path) {
            Some(at) => (&path[..at], Some(&path[at + 1..])),
            None => (path, None),
        };
        let below = |child: usize, search: &mut Search| match rest {
            Some(rest) => self.walk(child, rest, search),
            None => self.end(child, search),
        };
        if let Ok(at) = node.literals.binary_search_by(|(literal, _)| (**literal).cmp(segment))
            && let Some(found) = below(node.literals[at].1, search)
        {
            return Some(found);
        }
        if segment.is_empty() {
            return None;
        }
        for (pattern, child) in &node.patterns {
            if pattern.matches(segment)
                && let Some(found) = below(*child, search)
            {
                return Some(found);
            }
        }
        if let Some(child) = node.parameter
            && let Some(found) = below(child, search)
        {
            return Some(found);
        }
        node.remainder.and_then(|end| search.take(end))
    }

    /// Takes what ends at a node: rather what is written as the path is, with or without a slash.
    fn end(&self, node: usize, search: &mut Search) -> Option<usize> {
        let ends = &self.nodes[node].ends;
        let own = usize::from(search.slash);
        [ends[own], ends[1 - own]].into_iter().flatten().find_map(|end| search.take(end))
    }

    /// Adds a template. Gives the label that holds for its paths.
    fn insert(&mut self, segments: &[Segment], slash: bool, end: End) -> Result<usize, &'static str> {
        let mut at = 0;
        for segment in segments {
            let next = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match segment {
                Segment::Literal(literal) => match node.literals.binary_search_by(|(other, _)| other.cmp(literal)) {
                    Ok(found) => node.literals[found].1,
                    Err(place) => {
                        node.literals.insert(place, (literal.clone(), next));
                        next
                    }
                },
                Segment::Pattern(pattern) => match node.patterns.iter().find(|(other, _)| other == pattern) {
                    Some((_, child)) => *child,
                    None if node.patterns.len() >= PATTERNS_MAX => {
                        return Err("too many templates have parameters beside text in this segment");
                    }
                    None => {
                        let place = node.patterns.partition_point(|(other, _)| other.rank() >= pattern.rank());
                        node.patterns.insert(place, (pattern.clone(), next));
                        next
                    }
                },
                Segment::Parameter => *node.parameter.get_or_insert(next),
                Segment::Remainder => {
                    let remainder = node.remainder.get_or_insert(End { methods: 0, label: end.label });
                    remainder.methods |= end.methods;
                    return Ok(remainder.label);
                }
            };
            if at == next {
                self.nodes.push(Node::default());
            }
        }
        let here = self.nodes[at].ends[usize::from(slash)].get_or_insert(End { methods: 0, label: end.label });
        here.methods |= end.methods;
        Ok(here.label)
    }
}

// === impl Label ===

impl Label {
    /// Workers that come here at once get the same number: it is given by name.
    #[cold]
    fn first_used(&self, ids: &dyn Ids) -> RouteId {
        let route = ids.first_used(&self.name, RouteKind::OpenApi).unwrap_or(RouteId::OTHER);
        self.route.store(u32::from(route.0), Relaxed);
        route
    }
}

// === impl Search ===

impl Search {
    /// Takes a template if it holds for the method, else remembers it.
    fn take(&mut self, end: End) -> Option<usize> {
        if end.methods & self.method != 0 {
            return Some(end.label);
        }
        self.other.get_or_insert(end.label);
        None
    }
}

fn bit(method: Method) -> u16 {
    1 << method.index()
}

/// HEAD comes with GET (RFC 9110, section 9.3.2).
fn bits(methods: &[Method]) -> u16 {
    methods.iter().fold(0, |bits, method| match method {
        Method::Get => bits | bit(Method::Get) | bit(Method::Head),
        method => bits | bit(*method),
    })
}

// === impl Pattern ===

impl Pattern {
    /// Whether a segment is these literals, in this order, with at least one byte between each two. Taking each as early
    /// as possible misses nothing, since the last one is tied to the end.
    fn matches(&self, segment: &[u8]) -> bool {
        let [first, between @ .., last] = self.literals.as_slice() else { return false };
        let Some(rest) = segment.strip_prefix(&**first) else { return false };
        let Some(mut rest) = rest.strip_suffix(&**last) else { return false };
        for literal in between {
            let Some(after) = rest.get(1..) else { return false };
            let Some(at) = memchr::memmem::find(after, literal) else { return false };
            rest = &after[at + literal.len()..];
        }
        !rest.is_empty()
    }

    /// The more literal bytes, the more specific; then the fewer parameters.
    fn rank(&self) -> (usize, std::cmp::Reverse<usize>) {
        (self.literals.iter().map(|literal| literal.len()).sum(), std::cmp::Reverse(self.literals.len()))
    }
}

// === templates ===

/// A part of a template.
enum Part {
    Slash,
    Text(String),
    Parameter,
    Remainder,
    /// It may be missing with all that follows in its segment.
    MayEnd,
}

/// The label of a template and its readings as segments: more than one if something in it may be missing.
///
/// Beside `{name}`: `{name:regex}` (JAX-RS), `{name=projects/*}` (Google), `{name+}`, `{name*}`, `{+name}` and `**`
/// (remainders), `{?query}` (left out), `{.format}`, `{;matrix}` and `{/segment}` (may be missing).
fn read(template: &str) -> Result<(String, Vec<Vec<Segment>>), &'static str> {
    let (mut label, mut parts) = (String::new(), Vec::new());
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        match c {
            '/' => {
                label.push('/');
                parts.push(Part::Slash);
                rest = &rest[1..];
            }
            '{' => {
                let end = closing_brace(rest).ok_or("a brace is not closed")?;
                parameter(&rest[1..end], &mut label, &mut parts);
                rest = &rest[end + 1..];
            }
            '}' => return Err("a brace is closed that is not open"),
            '*' => {
                let stars = rest.len() - rest.trim_start_matches('*').len();
                let alone = label.ends_with('/') && rest[stars..].chars().next().is_none_or(|next| next == '/');
                if !alone {
                    return Err("it holds a star");
                }
                label.push_str(if stars > 1 { "{rest}" } else { "{any}" });
                parts.push(if stars > 1 { Part::Remainder } else { Part::Parameter });
                rest = &rest[stars..];
            }
            _ => {
                let end = rest.find(['/', '{', '}', '*']).unwrap_or(rest.len());
                label.push_str(&rest[..end]);
                parts.push(Part::Text(rest[..end].to_owned()));
                rest = &rest[end..];
            }
        }
    }
    if label.contains('*') {
        return Err("it holds a star");
    }
    Ok((label, readings(&parts)))
}

/// Where the brace that a text begins with is closed; regular expressions hold braces too.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    text.char_indices().find_map(|(at, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

/// What stands in braces.
fn parameter(inner: &str, label: &mut String, parts: &mut Vec<Part>) {
    let mut push = |name: &str, part: Part| {
        label.extend(["{", name.trim().trim_matches('*'), "}"]);
        parts.push(part);
    };
    let first = inner.chars().next().unwrap_or_default();
    match first {
        // Queries and fragments are no part of a path.
        '?' | '&' | '#' => {}
        '+' => push(&inner[1..], Part::Remainder),
        '.' | ';' | '/' => {
            label.extend(["{", inner.trim_end_matches('*'), "}"]);
            parts.push(Part::MayEnd);
            parts.push(if first == '/' { Part::Slash } else { Part::Text(first.to_string()) });
            parts.push(Part::Parameter);
        }
        _ => {
            if let Some((name, pattern)) = inner.split_once('=') {
                for (index, segment) in pattern.split('/').enumerate() {
                    if index > 0 {
                        label.push('/');
                        parts.push(Part::Slash);
                    }
                    let part = match segment {
                        "*" => Part::Parameter,
                        "**" => Part::Remainder,
                        text => {
                            label.push_str(text);
                            parts.push(Part::Text(text.to_owned()));
                            continue;
                        }
                    };
                    label.extend(["{", name, "}"]);
                    parts.push(part);
                }
            } else if let Some((name, expression)) = inner.split_once(':') {
                let all = matches!(expression.trim(), ".*" | ".+");
                push(name, if all { Part::Remainder } else { Part::Parameter });
            } else if inner.ends_with(['+', '*']) || inner.starts_with('*') {
                push(inner.trim_end_matches(['+', '*']), Part::Remainder);
            } else {
                push(inner, Part::Parameter);
            }
        }
    }
}

/// The segments that parts stand for, once for each way to leave out what may be missing.
fn readings(parts: &[Part]) -> Vec<Vec<Segment>> {
    // Each reading: segments as pieces, where `None` is a parameter.
    let mut readings: Vec<Vec<Vec<Option<&str>>>> = vec![vec![]];
    // Readings that skip to the next slash.
    let mut skipping: Vec<Vec<Vec<Option<&str>>>> = Vec::new();
    let last = parts.len().saturating_sub(1);
    let mut remainder = false;
    for (index, part) in parts.iter().enumerate() {
        let piece = match part {
            Part::Slash => {
                readings.append(&mut skipping);
                readings.iter_mut().for_each(|segments| segments.push(Vec::new()));
                continue;
            }
            Part::MayEnd => {
                if readings.len() + skipping.len() < READINGS_MAX {
                    skipping.extend(readings.iter().cloned());
                }
                continue;
            }
            Part::Text(text) => Some(text.as_str()),
            Part::Parameter => None,
            Part::Remainder => {
                // Inside, or beside text, it is a parameter like others.
                remainder =
                    index == last && matches!(index.checked_sub(1).map(|before| &parts[before]), Some(Part::Slash));
                None
            }
        };
        readings.iter_mut().filter_map(|segments| segments.last_mut()).for_each(|segment| segment.push(piece));
    }
    readings.append(&mut skipping);
    let finished = readings.into_iter().map(|pieces| {
        let mut segments: Vec<_> = pieces.iter().map(|pieces| segment(pieces)).collect();
        if remainder {
            segments.pop();
            segments.push(Segment::Remainder);
        }
        // A slash at the end is no segment of its own.
        if segments.last() == Some(&Segment::Literal(Box::default())) {
            segments.pop();
        }
        segments
    });
    finished.collect()
}

/// One segment of its pieces.
fn segment(pieces: &[Option<&str>]) -> Segment {
    let mut literals = vec![Vec::new()];
    for piece in pieces {
        match (piece, literals.last_mut()) {
            (Some(text), Some(last)) => last.extend(text.bytes().flat_map(as_sent)),
            _ => literals.push(Vec::new()),
        }
    }
    let mut literals: Vec<Box<[u8]>> = literals.into_iter().map(Vec::into_boxed_slice).collect();
    match literals.as_slice() {
        [_] => Segment::Literal(literals.remove(0)),
        [first, last] if first.is_empty() && last.is_empty() => Segment::Parameter,
        _ => Segment::Pattern(Pattern { literals }),
    }
}

/// A byte of a literal as clients send it: what is not ASCII comes percent-encoded.
fn as_sent(byte: u8) -> impl Iterator<Item = u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let encoded = [b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    let (bytes, length) = if byte.is_ascii() { ([byte, 0, 0], 1) } else { (encoded, 3) };
    bytes.into_iter().take(length)
}

/// What decides which paths a template matches, as a key.
fn shape(segments: Vec<Segment>) -> String {
    format!("{segments:?}")
}
