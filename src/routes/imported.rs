//! Imported templates as a tree, one level per segment: finds the template of a path without a lock or an allocation.
//!
//! At each level a literal segment is tried before one with literal parts (`{base}...{head}`, `{id}.json`,
//! `{name}:cancel`), that before a whole parameter, and that before a remainder; what leads nowhere is taken back. A
//! parameter is one segment or a part of one, and never empty. Paths are compared as they come, not decoded.
//!
//! Not `matchit`, which the declared templates use: it refuses two parameters in one segment and several names for one
//! parameter, and documents are full of both.
//!
//! A template holds for the methods that its document has there. A path that is there for other methods only is the
//! most specific template's all the same: HEAD and OPTIONS are rarely written down, and 405 answers want a label too.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::labels::{Method, RouteId, RouteKind};
use crate::routes::Ids;
use crate::routes::openapi::{ImportedTemplate, Notes};

/// Segments with literal parts below one node. They are tried one by one, a few nanoseconds each.
const PATTERNS_MAX: usize = 128;
/// Steps of one lookup: a node, or a pattern that is tried. A usual path takes some ten, one among as many patterns as there
/// may be some hundred; only templates that differ in early segments and end alike take more, and then the path has none.
const MOST_STEPS: usize = 512;
/// Only a whole parameter or a remainder takes a longer segment. Templates end at half of it.
const SEGMENT_BYTES_MAX: usize = 1024;
/// Bytes of a segment that count as one step when a pattern is tried on it.
const BYTES_PER_STEP: usize = 64;
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
    literals: HashMap<Box<[u8]>, usize, BuildHasherDefault<SegmentHasher>>,
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

/// Eight bytes at a time: segments are short, and the hash of the standard library takes longer than all the rest.
/// Requests are only looked up, never added, so nobody can make the table slow.
#[derive(Default)]
struct SegmentHasher(u64);

/// What a request asks for, and what was found on the way.
struct Search {
    method: u16,
    slash: bool,
    /// The first template for another method.
    other: Option<usize>,
    /// Steps that are left; when there are none, nothing is found.
    steps: usize,
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
        Some(self.route(self.place(method, path)?, ids))
    }

    /// The label of a path and its route if it had a request, without one being made.
    pub fn label(&self, method: Method, path: &[u8]) -> Option<(&str, Option<RouteId>)> {
        Some(self.labels[self.place(method, path)?].known())
    }

    /// Where the label of a path is.
    fn place(&self, method: Method, path: &[u8]) -> Option<usize> {
        if self.labels.is_empty() {
            return None;
        }
        let mut search = Search { method: bit(method), slash: false, other: None, steps: MOST_STEPS };
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
        found.or(search.other)
    }

    /// The templates as labels, and the routes of those that had a request.
    pub fn labels(&self) -> impl Iterator<Item = (&str, Option<RouteId>)> {
        self.labels.iter().map(Label::known)
    }

    fn route(&self, label: usize, ids: &dyn Ids) -> RouteId {
        let label = &self.labels[label];
        match label.known() {
            (_, Some(route)) => route,
            (_, None) => label.first_used(ids),
        }
    }

    /// Tries the segments of `path` below a node. No deeper than the tree, which the reader of documents bounds.
    fn walk(&self, node: usize, path: &[u8], search: &mut Search) -> Option<usize> {
        let node = &self.nodes[node];
        let (segment, rest) = match memchr::memchr(b'/', path) {
            Some(at) => (&path[..at], Some(&path[at + 1..])),
            None => (path, None),
        };
        // Finding the slash takes time too.
        if !search.spend(1 + segment.len() / SEGMENT_BYTES_MAX) {
            return None;
        }
        let short = segment.len() <= SEGMENT_BYTES_MAX;
        let below = |child: usize, search: &mut Search| match rest {
            Some(rest) => self.walk(child, rest, search),
            None => self.end(child, search),
        };
        if short
            && let Some(child) = node.literals.get(segment)
            && let Some(found) = below(*child, search)
        {
            return Some(found);
        }
        if segment.is_empty() {
            return None;
        }
        for (pattern, child) in node.patterns.iter().filter(|_| short) {
            if !search.spend(1 + segment.len() / BYTES_PER_STEP) {
                return None;
            }
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
                Segment::Literal(literal) => *node.literals.entry(literal.clone()).or_insert(next),
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
    fn known(&self) -> (&str, Option<RouteId>) {
        (&self.name, u16::try_from(self.route.load(Relaxed)).ok().map(RouteId))
    }

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
        // What is met on the way back, without a step left, is not the most specific one.
        if self.steps == 0 {
            return None;
        }
        if end.methods & self.method != 0 {
            return Some(end.label);
        }
        self.other.get_or_insert(end.label);
        None
    }

    /// Whether there were so many steps left; if not, there are none any more.
    fn spend(&mut self, steps: usize) -> bool {
        self.steps = self.steps.saturating_sub(steps);
        self.steps > 0
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
    /// Whether a segment is these literals, in this order, with at least one byte between each two. Taking each as
    /// early as possible misses nothing, since the last one is tied to the end.
    fn matches(&self, segment: &[u8]) -> bool {
        let [first, between @ .., last] = self.literals.as_slice() else { return false };
        let Some(rest) = segment.strip_prefix(&**first) else { return false };
        let Some(mut rest) = rest.strip_suffix(&**last) else { return false };
        for literal in between {
            let Some(after) = rest.get(1..) else { return false };
            let Some(at) = find(after, literal) else { return false };
            rest = &after[at + literal.len()..];
        }
        !rest.is_empty()
    }

    /// The more literal bytes, the more specific; then the fewer parameters.
    fn rank(&self) -> (usize, std::cmp::Reverse<usize>) {
        (self.literals.iter().map(|literal| literal.len()).sum(), std::cmp::Reverse(self.literals.len()))
    }
}

/// Where a text begins in another one. Both are mostly short, and then preparing a search costs more than the search.
fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    if text.len() > BYTES_PER_STEP {
        return memchr::memmem::find(text, part);
    }
    text.windows(part.len().max(1)).position(|window| window.starts_with(part))
}

// === impl SegmentHasher ===

impl Hasher for SegmentHasher {
    fn write(&mut self, bytes: &[u8]) {
        // An odd number with as many ones as zeros: 2 to the 64 divided by the golden ratio.
        const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(SPREAD);
        }
    }

    /// The length of what follows, which equal texts share.
    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }

    fn finish(&self) -> u64 {
        // The table uses the lowest and the highest bits; a product is mixed best at the top.
        self.0 ^ (self.0 >> 32)
    }
}

// === templates ===

/// A part of a template.
enum Part {
    Slash,
    Text(String),
    Parameter,
    Remainder,
    /// This character and a parameter, both or neither: `{.format}`, `{;matrix}`, `{/segment}`.
    Optional(char),
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
            parts.push(Part::Optional(first));
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
    let last = parts.len().saturating_sub(1);
    let mut remainder = false;
    for (index, part) in parts.iter().enumerate() {
        let pieces: &[Option<&str>] = match part {
            Part::Slash => &[],
            Part::Text(text) => &[Some(text.as_str())],
            Part::Parameter => &[None],
            Part::Remainder => {
                // Inside, or beside text, it is a parameter like others.
                remainder = index == last && matches!(index.checked_sub(1).map(|at| &parts[at]), Some(Part::Slash));
                &[None]
            }
            Part::Optional('/') => &[None],
            Part::Optional(';') => &[Some(";"), None],
            Part::Optional(_) => &[Some("."), None],
        };
        let without = match part {
            Part::Optional(_) if readings.len() < READINGS_MAX => readings.clone(),
            _ => Vec::new(),
        };
        for segments in &mut readings {
            if matches!(part, Part::Slash | Part::Optional('/')) {
                segments.push(Vec::new());
            }
            segments.last_mut().into_iter().for_each(|segment| segment.extend(pieces));
        }
        readings.extend(without);
    }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    /// Numbers routes from 2 on, in the order of their first request.
    #[derive(Debug, Default)]
    struct Numbers(AtomicUsize);

    impl Ids for Numbers {
        fn declared(&self, _name: &str, _edges: Option<&[f64]>) -> RouteId {
            unreachable!("nothing is declared here")
        }

        fn first_used(&self, _name: &str, kind: RouteKind) -> Option<RouteId> {
            assert_eq!(kind, RouteKind::OpenApi);
            Some(RouteId(2 + u16::try_from(self.0.fetch_add(1, Relaxed)).unwrap()))
        }
    }

    fn tree(templates: &[(&str, &[Method])]) -> (Imported, Notes) {
        let templates: Vec<_> = templates
            .iter()
            .map(|(path, methods)| ImportedTemplate { path: (*path).into(), methods: methods.to_vec() })
            .collect();
        let mut notes = Notes::default();
        (Imported::new(&templates, &[], &mut notes), notes)
    }

    /// The label of a path.
    fn label(tree: &Imported, method: Method, path: &str) -> Option<String> {
        let route = tree.find(method, path.as_bytes(), &Numbers::default())?;
        // Each search has its own numbers, so the only one that was given is meant.
        let (name, _) = tree.labels().find(|(_, number)| *number == Some(route)).unwrap();
        let name = name.to_owned();
        tree.labels.iter().for_each(|label| label.route.store(UNUSED, Relaxed));
        Some(name)
    }

    #[track_caller]
    fn expect(templates: &[&str], cases: &[(&str, Option<&str>)]) {
        let forward: Vec<(&str, &[Method])> = templates.iter().map(|path| (*path, [Method::Get].as_slice())).collect();
        let backward: Vec<_> = forward.iter().rev().copied().collect();
        for templates in [forward, backward] {
            let (tree, notes) = tree(&templates);
            assert_eq!(notes, Notes::default());
            for (path, expected) in cases {
                assert_eq!(label(&tree, Method::Get, path).as_deref(), *expected, "{path} among {templates:?}");
            }
        }
    }

    #[test]
    fn the_most_specific_template_wins_and_dead_ends_are_left_again() {
        expect(
            &["/", "/a", "/a/{x}", "/a/b", "/a/b/c/d", "/a/{x}/c", "/{y}/b/e", "/a/b-{x}", "/files/{path+}"],
            &[
                ("/", Some("/")),
                ("", None),
                ("*", None),
                ("a", None),
                ("//", None),
                ("/a", Some("/a")),
                ("/a/", Some("/a")),
                ("/a//", None),
                ("/a/b", Some("/a/b")),
                ("/a/b-1", Some("/a/b-{x}")),
                ("/a/b-", Some("/a/{x}")),
                ("/a/x", Some("/a/{x}")),
                ("/a/b/c", Some("/a/{x}/c")),
                ("/a/b/c/d", Some("/a/b/c/d")),
                ("/a/b/e", Some("/{y}/b/e")),
                ("/a/b/f", None),
                ("/files", None),
                ("/files/", None),
                ("/files/x", Some("/files/{path}")),
                ("/files/x/y//z/", Some("/files/{path}")),
            ],
        );
    }

    #[test]
    fn segments_may_have_several_parameters_and_parts_that_may_be_missing() {
        expect(
            &[
                "/r/{base}...{head}",
                "/r/{id}.json",
                "/r/{id}.{format}",
                "/v1/{name=projects/*/jobs/*}:cancel",
                "/v1/{name=folders/**}",
                "/w/{id:[0-9]{3}}/x",
                "/o/{id}{.format}",
                "/p/a{/b}",
                "/q{?page,size}",
                "/m/{x}{;y}",
                "/s/**",
                "/t/*/u",
                "/straße/{x}",
            ],
            &[
                ("/r/a...b", Some("/r/{base}...{head}")),
                ("/r/a...b...c", Some("/r/{base}...{head}")),
                ("/r/...b", Some("/r/{id}.{format}")),
                ("/r/a.json", Some("/r/{id}.json")),
                ("/r/a.xml", Some("/r/{id}.{format}")),
                ("/r/.json", None),
                ("/r/a.", None),
                ("/v1/projects/p/jobs/j:cancel", Some("/v1/projects/{name}/jobs/{name}:cancel")),
                ("/v1/projects/p/jobs/j", None),
                ("/v1/folders/f/g", Some("/v1/folders/{name}")),
                ("/w/abc/x", Some("/w/{id}/x")),
                ("/o/1", Some("/o/{id}{.format}")),
                ("/o/1.json", Some("/o/{id}{.format}")),
                ("/p/a", Some("/p/a{/b}")),
                ("/p/a/c", Some("/p/a{/b}")),
                ("/p/a/c/d", None),
                ("/q", Some("/q")),
                ("/m/1;a=2", Some("/m/{x}{;y}")),
                ("/m/1", Some("/m/{x}{;y}")),
                ("/s/a/b", Some("/s/{rest}")),
                ("/t/1/u", Some("/t/{any}/u")),
                ("/stra%C3%9Fe/1", Some("/straße/{x}")),
            ],
        );
    }

    #[test]
    fn a_template_for_another_method_hides_nothing_and_is_better_than_none() {
        let (tree, notes) = tree(&[
            ("/u/me", &[Method::Put]),
            ("/u/{id}", &[Method::Get, Method::Put]),
            ("/u/{name}", &[Method::Delete]),
            ("/x", &[Method::Get]),
            ("/x/", &[Method::Post]),
            ("/empty", &[]),
        ]);
        for (method, path, expected) in [
            (Method::Put, "/u/me", "/u/me"),
            (Method::Get, "/u/me", "/u/{id}"),
            (Method::Head, "/u/me", "/u/{id}"),
            (Method::Options, "/u/me", "/u/me"),
            (Method::Other, "/u/7", "/u/{id}"),
            // Both have the same paths; the first one gives the label.
            (Method::Delete, "/u/7", "/u/{id}"),
            (Method::Get, "/x", "/x"),
            (Method::Get, "/x/", "/x"),
            (Method::Post, "/x", "/x/"),
            (Method::Patch, "/x/", "/x/"),
            (Method::Get, "/empty", "/empty"),
        ] {
            assert_eq!(label(&tree, method, path).as_deref(), Some(expected), "{method:?} {path}");
        }
        assert_eq!(
            notes.kept(),
            ["\"/u/{name}\" matches the paths of \"/u/{id}\", which came first and gives both their label"]
        );
    }

    #[test]
    fn a_route_gets_its_number_once_and_with_its_first_request() {
        let (tree, _) = tree(&[("/a", &[]), ("/b/{x}", &[]), ("/c", &[])]);
        let ids = Numbers::default();
        for path in ["/b/1", "/a", "/b/2", "/b/3"] {
            assert!(tree.find(Method::Get, path.as_bytes(), &ids).is_some());
        }
        assert_eq!(ids.0.load(Relaxed), 2);
        let used: Vec<_> = tree.labels().collect();
        assert_eq!(used, [("/a", Some(RouteId(3))), ("/b/{x}", Some(RouteId(2))), ("/c", None)]);
    }

    #[test]
    fn a_route_that_may_have_no_number_counts_under_other() {
        #[derive(Debug)]
        struct Full;
        impl Ids for Full {
            fn declared(&self, _name: &str, _edges: Option<&[f64]>) -> RouteId {
                unreachable!("nothing is declared here")
            }
            fn first_used(&self, _name: &str, _kind: RouteKind) -> Option<RouteId> {
                None
            }
        }
        let (tree, _) = tree(&[("/a", &[])]);
        assert_eq!(tree.label(Method::Get, b"/a"), Some(("/a", None)));
        assert_eq!(tree.find(Method::Get, b"/a", &Full), Some(RouteId::OTHER));
        assert_eq!(tree.label(Method::Get, b"/a"), Some(("/a", Some(RouteId::OTHER))));
        assert_eq!(tree.find(Method::Get, b"/b", &Full), None);
    }

    #[test]
    fn a_path_that_leads_astray_too_often_has_no_template() {
        const LEVELS: usize = 13;
        let crafted = |bits: usize| {
            let segments: String = (0..LEVELS).map(|at| if bits >> at & 1 == 0 { "/a" } else { "/{x}" }).collect();
            ImportedTemplate { path: format!("{segments}/end{bits}"), methods: vec![Method::Get] }
        };
        let templates: Vec<_> = (0..1 << LEVELS).map(crafted).collect();
        let tree = Imported::new(&templates, &[], &mut Notes::default());
        let path = |segment: &str, last: usize| format!("{}/end{last}", format!("/{segment}").repeat(LEVELS));
        assert!(label(&tree, Method::Get, &path("a", 0)).is_some());
        assert!(label(&tree, Method::Get, &path("b", (1 << LEVELS) - 1)).is_some());
        // For another method, the first that was met is good enough.
        assert!(label(&tree, Method::Put, &path("a", 0)).is_some());
        // Tried last of 8,192.
        assert_eq!(label(&tree, Method::Get, &path("a", (1 << LEVELS) - 1)), None);
        let mut search = Search { method: 0, slash: false, other: None, steps: MOST_STEPS };
        assert_eq!(tree.walk(0, &path("a", 1 << LEVELS).as_bytes()[1..], &mut search), None);
        assert_eq!(search.steps, 0);
    }

    #[test]
    fn long_segments_are_parameters_and_nothing_else() {
        let mut templates: Vec<String> = (0..120).map(|n| format!("/p/{{x}}{n:03}{{y}}.json")).collect();
        templates.extend(["/p/{id}".to_owned(), "/q/{x}.json".to_owned(), "/r/{rest+}".to_owned()]);
        let methods: &[Method] = &[];
        let templates: Vec<_> = templates.iter().map(|path| (path.as_str(), methods)).collect();
        let (tree, _) = tree(&templates);
        let long = |bytes: usize| "a".repeat(bytes - 5) + ".json";
        let found = |path: &str| label(&tree, Method::Get, path);
        assert_eq!(found(&format!("/q/{}", long(SEGMENT_BYTES_MAX))).as_deref(), Some("/q/{x}.json"));
        assert_eq!(found(&format!("/q/{}", long(SEGMENT_BYTES_MAX + 1))), None);
        assert_eq!(found(&format!("/p/{}", long(15_000))).as_deref(), Some("/p/{id}"));
        assert_eq!(found(&format!("/r/{}/x", long(15_000))).as_deref(), Some("/r/{rest}"));
        // All patterns are tried on a usual one.
        assert_eq!(found("/p/7.json").as_deref(), Some("/p/{id}"));
        assert_eq!(found("/p/a000b.json").as_deref(), Some("/p/{x}000{y}.json"));
    }

    #[test]
    fn what_is_no_template_is_left_out_with_a_note() {
        let patterns: Vec<String> = (0..=PATTERNS_MAX).map(|n| format!("/p/{n}-{{x}}")).collect();
        let mut templates: Vec<(&str, &[Method])> =
            patterns.iter().map(|path| (path.as_str(), [].as_slice())).collect();
        templates.extend([("/{a", [].as_slice()), ("/a}", &[]), ("/a*b", &[]), ("/{a=x*}", &[])]);
        let (tree, notes) = tree(&templates);
        let last = format!(
            "skipped \"/p/{PATTERNS_MAX}-{{x}}\": too many templates have parameters beside text in this segment"
        );
        assert_eq!(
            notes.kept(),
            [
                last.as_str(),
                "skipped \"/{a\": a brace is not closed",
                "skipped \"/a}\": a brace is closed that is not open",
                "skipped \"/a*b\": it holds a star",
                "skipped \"/{a=x*}\": it holds a star",
            ]
        );
        assert_eq!(label(&tree, Method::Get, "/p/0-x").as_deref(), Some("/p/0-{x}"));
    }

    #[test]
    fn templates_that_are_declared_too_are_told() {
        let templates = [ImportedTemplate { path: "/a/{x}".into(), methods: vec![] }];
        let mut notes = Notes::default();
        let _ = Imported::new(&templates, &["/a/{y}".to_owned(), "/b".to_owned()], &mut notes);
        assert_eq!(notes.kept(), ["\"/a/{x}\" is declared too; the declared route comes first"]);
    }

    /// A second opinion on whether a simple template matches: by trying all ways to share out the bytes.
    fn matches_slowly(template: &[u8], path: &[u8]) -> bool {
        match template.split_first() {
            None => path.is_empty(),
            Some((b'{', rest)) => {
                let after = &rest[rest.iter().position(|byte| *byte == b'}').unwrap() + 1..];
                (1..=path.len()).take_while(|end| path[end - 1] != b'/').any(|end| matches_slowly(after, &path[end..]))
            }
            Some((byte, rest)) => path.first() == Some(byte) && matches_slowly(rest, &path[1..]),
        }
    }

    proptest! {
        #[test]
        fn one_template_matches_what_a_plain_search_says(
            template in prop::collection::vec(prop::sample::select(vec!["/", "a", "b", "{x}", "."]), 1..8),
            path in "[ab./]{0,8}",
        ) {
            let template = format!("/{}", template.concat());
            let path = format!("/{path}");
            let (tree, _) = tree(&[(&template, &[Method::Get])]);
            let bare = |text: &str| text.strip_suffix('/').unwrap_or(text).to_owned();
            let expected = matches_slowly(bare(&template).as_bytes(), bare(&path).as_bytes());
            prop_assert_eq!(label(&tree, Method::Get, &path).is_some(), expected, "{} {}", template, path);
        }

        #[test]
        fn any_templates_and_paths_are_taken_without_a_panic(
            templates in prop::collection::vec("(/|[{}*=:+.;?a]|ß){0,12}", 0..6),
            path in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            let templates: Vec<_> =
                templates.iter().map(|path| ImportedTemplate { path: format!("/{path}"), methods: vec![] }).collect();
            let tree = Imported::new(&templates, &[], &mut Notes::default());
            let _ = tree.find(Method::Get, &path, &Numbers::default());
            for template in &templates {
                let _ = tree.find(Method::Get, template.path.as_bytes(), &Numbers::default());
            }
            prop_assert!(tree.labels().all(|(name, _)| !name.contains('*')));
        }
    }
}
