//! Route templates that nobody declared, learned from the paths of requests that had a proper answer.
//!
//! # How it decides
//!
//! A trie of path segments. Each place in it has literals (words) and at most one parameter, which keeps the name of
//! the first kind of value seen there, so that one true route gets one label.
//!
//! 1. What is a value by its look ([`segment`](super::segment): numbers, UUIDs, hashes, dates, tokens …) falls under
//!    the parameter of its place at once. Near the root a number is a version of the interface until a second one comes.
//! 2. A word may be a part of the interface or somebody's name; its place tells which is likely. Where interfaces
//!    usually go on (the root, after a version, after an id) some words become literals at first sight: the *credit* of
//!    the place, given back as they are seen again. Where names usually stand (below a plural such as `users`, beside
//!    a parameter, after a name) a word has to be seen a few times first; until then its paths wait.
//! 3. Names hardly ever come twice, parts of an interface do. A place has a size that an interface hardly exceeds there
//!    (15 words below a plural, 170 at the root). When the words of a place have come again so rarely that a set of that
//!    size would be very unlikely to do so (below 1 %), the place *folds*: its words become one parameter, except those
//!    that came often. That takes a dozen different names below a plural, and forty at the root. It is remembered.
//! 4. What was below the folded words is merged and judged anew: words seen below several of them are literals.
//! 5. A part of the interface may come only after its siblings have folded. It is told by what follows it, if that never
//!    follows a name: `/{account}/members` is known, and now `/sites/{id}` comes, again and again after `sites` only.
//!
//! A label given before a fold stays valid, so that no counter goes back; it gets no new requests.
//!
//! # What it costs
//!
//! [`Learned::find`] reads an immutable snapshot: no lock, no allocation. Words that have been seen a few times are no
//! longer counted, so the only store of the request path ends after a handful of requests. The learner itself sits
//! behind a mutex that nobody waits for, sees unknown paths only, and has a bounded number of nodes; what waits there
//! is forgotten when they run out. A new snapshot is made only when a label was given or a place folded.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::segment::{self, Class, Shape};
use crate::labels::RouteId;

/// Segments looked at; the rest of a deeper path is one parameter. The deepest path of the public interfaces looked at
/// has 13 segments.
const MOST_SEGMENTS: usize = 16;

/// The longest template, in bytes. The longest of the public interfaces looked at has 130; a label of more is a
/// burden on every page, and a path that needs it stays without.
const LONGEST_TEMPLATE: usize = 256;

/// Nodes that the learner may keep besides those of routes. Some 200 bytes each, so less than a MiB.
const MOST_WAITING: usize = 4096;

/// From here on a word is established: it stays a literal when its siblings fold. Names rarely come four times before
/// a dozen others have come once.
const ESTABLISHED: u32 = 4;

/// Where the count of a word ends. More than [`ESTABLISHED`], to compare words by; small, because each count up to
/// here is a store of the request path.
const MOST_HITS: u8 = 15;

/// Hints kept for each parameter, the latest: more are under way only when somebody makes paths up.
const MOST_HINTS: usize = 32;

/// Sightings after the same word, and after no other, that show that the word is no name. Three: even a name that every
/// tenth request has, such as `default`, gets there once in a hundred.
const ONLY_AFTER: u32 = 3;

/// Numbers that may stand near the root as versions of the interface, side by side. Nobody keeps more alive.
const MOST_VERSIONS: usize = 3;

/// Words a place may have at most, whatever their behaviour: beyond, they fold. Larger than the largest number of
/// siblings of the public interfaces looked at, 174 methods called by dotted names.
const MOST_WORDS: usize = 256;

/// Steps of one lookup. A usual path takes as many as it has segments; only literals beside parameters at several
/// depths make it go back.
const MOST_STEPS: u32 = 64;

/// Folded values kept as examples for each parameter: enough to see what they are.
const MOST_EXAMPLES: usize = 3;

/// The longest state that is read back, in bytes: a thousand of the longest templates, twice.
pub const LONGEST_STATE: usize = 1 << 20;

/// Learned routes, shared by all workers, alive as long as the process.
pub struct Learned {
    trie: ArcSwap<Trie>,
    learner: Mutex<Learner>,
    limit: AtomicUsize,
    full: AtomicBool,
    /// Numbers for the metrics page, so that a scrape takes no lock.
    waiting: AtomicUsize,
    folds: AtomicU64,
}

/// What became of a path that was not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It falls under this route now.
    Label(RouteId),
    /// More evidence is needed.
    Wait,
    /// It would have a label, but the limit is reached.
    Full,
}

/// A label that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedRoute {
    /// The template, for example `/users/{name}/repos`.
    pub template: String,
    /// Its index.
    pub id: RouteId,
    /// The place that it was folded into; requests no longer fall under it.
    pub retired: Option<String>,
    /// A few of the values that its last parameter took in when a place folded.
    pub examples: Vec<String>,
    /// Why its parameters are parameters.
    pub why: String,
}

/// Why a path falls under a route, or why under none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// From left to right.
    pub segments: Vec<SegmentExplained>,
    /// The route, if it has one.
    pub route: Option<RouteId>,
    /// What the segments make together: the template, whole or as far as it is known.
    pub template: String,
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

/// The mutable side.
struct Learner {
    root: Node,
    retired: Vec<LearnedRoute>,
    /// Labels given, retired ones included.
    given: usize,
    /// Nodes made since they were last counted, and how many there may be before they are.
    nodes: usize,
    most_nodes: usize,
}

/// A place in the trie.
#[derive(Default)]
struct Node {
    /// The route of the paths that end here.
    label: Option<Given>,
    /// Sorted by text.
    words: Vec<Word>,
    param: Option<Box<Param>>,
}

struct Given {
    id: RouteId,
    template: Box<str>,
}

struct Word {
    text: Box<str>,
    /// Sightings by the learner.
    seen: u32,
    /// Requests of known routes through here, counted by readers up to [`MOST_HITS`].
    hits: Arc<AtomicU8>,
    /// Decided to be a part of the interface.
    literal: bool,
    /// Was seen below several words that folded into one parameter.
    shared: bool,
    /// How it is written; a number that stands as a literal is a version.
    shape: Shape,
    node: Node,
}

struct Param {
    name: &'static str,
    /// Takes in words too.
    words: bool,
    /// Words folded into it.
    siblings: u32,
    examples: Vec<Box<str>>,
    /// What came after words here and is not known below the parameter, to tell parts of the interface that are only now
    /// used from names.
    hints: Vec<Hint>,
    node: Node,
}

/// A way on that has been seen after one word only.
struct Hint {
    onward: Onward,
    word: Box<str>,
    seen: u32,
}

/// The first thing after a segment.
#[derive(PartialEq, Eq)]
enum Onward {
    End,
    Value,
    Word(Box<str>),
}

/// What stands before a place: how likely its words are names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The root, or after a version or a word such as `api`.
    Open,
    /// After a value that is none by its place: a number, a UUID.
    AfterValue,
    /// After a word in the singular.
    AfterWord,
    /// After a parameter that words fell into.
    AfterName,
    /// After a word in the plural.
    Collection,
}

/// How a place treats words.
struct Manner {
    /// Words that it may take for literals at first sight as long as they have not been seen again. Where it errs, each
    /// is a label too many.
    credit: usize,
    /// Sightings that make a word a literal.
    sightings: u32,
    /// As many literals as an interface may have here; see [`Node::should_fold`]. Twice what the public interfaces
    /// looked at have, where that is affordable: the more, the longer names wait for their fold.
    widest: usize,
}

impl Place {
    const fn manner(self, beside_parameter: bool) -> Manner {
        match self {
            _ if beside_parameter => Manner { credit: 0, sightings: 3, widest: 15 },
            Place::Open => Manner { credit: 16, sightings: 2, widest: 170 },
            // What follows an id is nearly always a part of the interface.
            Place::AfterValue => Manner { credit: 1, sightings: 2, widest: 60 },
            Place::AfterWord => Manner { credit: 1, sightings: 2, widest: 30 },
            // `{owner}/{repo}`, or `{repo}/issues`.
            Place::AfterName => Manner { credit: 0, sightings: 2, widest: 60 },
            Place::Collection => Manner { credit: 0, sightings: 3, widest: 15 },
        }
    }

    fn after_word(text: &str) -> Place {
        if segment::opens(text.as_bytes()) {
            Place::Open
        } else if segment::is_collection(text.as_bytes()) {
            Place::Collection
        } else {
            Place::AfterWord
        }
    }

    const fn after_param(param: &Param) -> Place {
        if param.words { Place::AfterName } else { Place::AfterValue }
    }
}

/// What readers see: nodes in one array, their literals side by side in another, sorted by text.
#[derive(Default)]
struct Trie {
    nodes: Vec<TrieNode>,
    edges: Vec<Edge>,
    texts: Vec<u8>,
}

struct TrieNode {
    label: Option<RouteId>,
    first_edge: u32,
    edges: u32,
    /// Index of the parameter's node.
    param: Option<u32>,
    /// Whether the parameter takes in words.
    words: bool,
}

struct Edge {
    /// The first bytes of the text, which nearly always tell it from its siblings.
    head: u64,
    start: u32,
    length: u32,
    target: u32,
    hits: Arc<AtomicU8>,
}

// === impl Learned ===

impl Learned {
    /// Nothing learned yet; at most `limit` labels, retired ones included.
    #[must_use]
    pub fn new(limit: usize) -> Learned {
        Learned {
            trie: ArcSwap::from_pointee(Trie::default()),
            learner: Mutex::new(Learner::default()),
            limit: AtomicUsize::new(limit),
            full: AtomicBool::new(limit == 0),
            waiting: AtomicUsize::new(0),
            folds: AtomicU64::new(0),
        }
    }

    /// Another limit, after a reload. Labels that were given stay, also beyond it.
    pub fn set_limit(&self, limit: usize) {
        let learner = self.lock();
        self.limit.store(limit, Ordering::Relaxed);
        self.full.store(learner.given >= limit, Ordering::Relaxed);
    }

    /// The route of a known path (raw, not decoded; a query is left out). No lock, no allocation, bounded work.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<RouteId> {
        self.trie.load().find(path)
    }

    /// Learns from a path that [`Learned::find`] did not know and that had an answer other than 404 and 405. `give`
    /// makes an index for a template, or none when there is no room.
    ///
    /// Never waits: while another worker learns, the verdict is [`Verdict::Wait`].
    pub fn learn(&self, path: &[u8], give: &dyn Fn(&str) -> Option<RouteId>) -> Verdict {
        if self.is_full() {
            return Verdict::Full;
        }
        let Some(segments) = split(path) else { return Verdict::Wait };
        let mut learner = match self.learner.try_lock() {
            Ok(learner) => learner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Verdict::Wait,
        };
        let limit = self.limit.load(Ordering::Relaxed);
        let learned = learner.learn(&segments, limit, give);
        if learned.full {
            self.full.store(true, Ordering::Relaxed);
        }
        self.folds.fetch_add(learned.folds, Ordering::Relaxed);
        self.waiting.store(learner.nodes, Ordering::Relaxed);
        if learned.changed {
            let trie = Trie::new(&learner.root);
            // A fold may have made known what waited before.
            let found = if learned.verdict == Verdict::Wait { trie.find(path) } else { None };
            self.trie.store(Arc::new(trie));
            return found.map_or(learned.verdict, Verdict::Label);
        }
        learned.verdict
    }

    /// Whether learning can add nothing any more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

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
            return Explanation { segments: Vec::new(), route, template: String::new() };
        };
        let explained = self.lock().root.explain(&segments, route);
        let template = if explained.is_empty() {
            "/".to_owned()
        } else {
            explained.iter().fold(String::new(), |whole, segment| whole + "/" + &segment.part)
        };
        Explanation { segments: explained, route, template }
    }

    /// Words that have been seen too rarely to be anything yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.lock().root.pending()
    }

    /// How often a place was folded.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.folds.load(Ordering::Relaxed)
    }

    /// What was decided, as JSON: templates and folds, no value that somebody sent and that waits.
    #[must_use]
    pub fn save(&self) -> String {
        let mut state = State { version: STATE_VERSION, routes: Vec::new(), folds: Vec::new() };
        self.lock().root.save(&mut String::new(), &mut state);
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
        let State { version, routes, folds } = serde_json::from_str(text).map_err(Malformed::Json)?;
        if version != STATE_VERSION {
            return Err(Malformed::Version(version));
        }
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

    /// For the admin's questions only, never on the request path.
    fn lock(&self) -> MutexGuard<'_, Learner> {
        self.learner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Learned {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Learned").field("limit", &self.limit).field("full", &self.full).finish_non_exhaustive()
    }
}

// === Paths and templates ===

/// A segment of a path, and what it looks like. The rest of a path that is too deep holds slashes and is odd.
struct Segment<'a> {
    text: &'a [u8],
    class: Class,
    rest: bool,
}

impl Segment<'_> {
    /// Its text if that may be a part of the interface.
    fn word(&self) -> Option<&str> {
        matches!(self.class, Class::Word(_) | Class::Name).then(|| std::str::from_utf8(self.text).ok()).flatten()
    }

    fn parameter(&self) -> &'static str {
        if self.rest { segment::REST } else { self.class.parameter() }
    }
}

/// The part of a path that is looked at: no query, neither the first slash nor a last one.
fn trim(path: &[u8]) -> Option<&[u8]> {
    let path = memchr::memchr(b'?', path).map_or(path, |at| &path[..at]);
    let path = path.strip_prefix(b"/")?;
    Some(path.strip_suffix(b"/").unwrap_or(path))
}

/// The first segment, and what follows it if anything does.
fn first(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'/', path) {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

/// The segments of a path; none if it does not begin with a slash.
fn split(path: &[u8]) -> Option<Vec<Segment<'_>>> {
    let trimmed = trim(path)?;
    let mut rest = (!trimmed.is_empty()).then_some(trimmed);
    let mut segments = Vec::with_capacity(8);
    while let Some(path) = rest {
        let (text, after) = first(path);
        if segments.len() + 1 == MOST_SEGMENTS && after.is_some() {
            segments.push(Segment { text: path, class: Class::Odd, rest: true });
            break;
        }
        segments.push(Segment { text, class: Class::of(text), rest: false });
        rest = after;
    }
    Some(segments)
}

/// A part of a template.
enum Part {
    Literal(Box<str>),
    Param(&'static str),
}

/// The parts of a template; none if it is not one that could have been learned.
fn parse(template: &str) -> Option<Vec<Part>> {
    let inside = template.strip_prefix('/').filter(|_| template.len() <= LONGEST_TEMPLATE)?;
    if inside.is_empty() {
        return Some(Vec::new());
    }
    let parts: Vec<_> = inside
        .split('/')
        .map(|text| match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
            Some(name) => segment::PARAMETERS.iter().find(|known| **known == name).map(|known| Part::Param(known)),
            None => is_literal(text.as_bytes()).then(|| Part::Literal(text.into())),
        })
        .collect::<Option<_>>()?;
    (parts.len() <= MOST_SEGMENTS).then_some(parts)
}

/// Whether a text may stand in a template as it is.
fn is_literal(text: &[u8]) -> bool {
    matches!(Class::of(text), Class::Word(_) | Class::Name) || is_version_number(text, Class::of(text))
}

/// A number that near the root is a version of the interface: `3`, `1.0`, `2010-04-01`.
fn is_version_number(text: &[u8], class: Class) -> bool {
    match class {
        Class::Number => text.len() <= 2 && text[0] != b'-',
        Class::Decimal | Class::Date => text.len() <= 10,
        _ => false,
    }
}

// === impl Learner ===

/// What one lesson came to.
struct Lesson {
    verdict: Verdict,
    /// A label was given or a place folded: readers need a new snapshot.
    changed: bool,
    /// No further label can be given.
    full: bool,
    folds: u64,
}

/// What a word is at a place that has folded.
enum Judged {
    Value,
    /// A literal, with this index.
    Literal(usize),
    /// What follows was never seen here: taken for a value, but not yet believed.
    New,
    /// What follows was seen after the same word only, or is no word: no further evidence.
    Again,
}

/// What a walk through the trie has met.
#[derive(Default)]
struct Walk {
    template: String,
    /// A word on the way is not decided yet.
    waits: bool,
    made: usize,
    folds: u64,
    retired: Vec<LearnedRoute>,
}

impl Default for Learner {
    fn default() -> Learner {
        Learner { root: Node::default(), retired: Vec::new(), given: 0, nodes: 0, most_nodes: MOST_WAITING }
    }
}

impl Learner {
    fn learn(&mut self, segments: &[Segment<'_>], limit: usize, give: &dyn Fn(&str) -> Option<RouteId>) -> Lesson {
        let mut walk = Walk::default();
        let node = self.root.walk(segments, Place::Open, &mut walk);
        let Walk { mut template, waits, made, folds, mut retired } = walk;
        let mut lesson = Lesson { verdict: Verdict::Wait, changed: folds > 0, full: false, folds };
        if template.is_empty() {
            template.push('/');
        }
        if !waits && template.len() <= LONGEST_TEMPLATE {
            if let Some(label) = &node.label {
                lesson.verdict = Verdict::Label(label.id);
            } else if let Some(id) = (self.given < limit).then(|| give(&template)).flatten() {
                node.label = Some(Given { id, template: template.into() });
                self.given += 1;
                lesson.verdict = Verdict::Label(id);
                lesson.changed = true;
            } else {
                lesson.verdict = Verdict::Full;
            }
            lesson.full = lesson.verdict == Verdict::Full || self.given >= limit;
        }
        self.retired.append(&mut retired);
        self.nodes += made;
        if self.nodes > self.most_nodes {
            self.root.forget_waiting();
            self.recount();
        }
        lesson
    }

    /// Counts the nodes, and says how many more there may be.
    fn recount(&mut self) {
        self.nodes = self.root.count();
        self.most_nodes = self.nodes + MOST_WAITING;
    }
}

// === impl Node ===

impl Node {
    /// Follows a path, counts what it passes, decides what can be decided, and returns where it ends.
    fn walk(&mut self, segments: &[Segment<'_>], place: Place, walk: &mut Walk) -> &mut Node {
        let Some((segment, after)) = segments.split_first() else { return self };
        let Some(text) = self.word_for(segment, place) else {
            return match self.judge_onward(segment, after) {
                Judged::Value => self.walk_param(segment, after, walk),
                Judged::Literal(at) => self.walk_word(at, after, walk),
                Judged::New => {
                    walk.waits = true;
                    self.walk_param(segment, after, walk)
                }
                Judged::Again => {
                    walk.waits = true;
                    self
                }
            };
        };
        let at = match self.position(text) {
            Ok(at) => at,
            Err(at) => {
                walk.made += 1;
                self.insert(at, Word::new(text))
            }
        };
        let word = &mut self.words[at];
        word.seen = word.seen.saturating_add(1);
        if !word.literal {
            let literal = self.is_literal(at, place, after);
            self.words[at].literal = literal;
            if !literal && self.should_fold(place) {
                self.fold(walk);
                // An established word has stayed.
                return match self.position(text) {
                    Ok(at) => self.walk_word(at, after, walk),
                    Err(_) => self.walk_param(segment, after, walk),
                };
            }
        }
        self.walk_word(at, after, walk)
    }

    /// Whether a segment that falls under the parameter really does. A word may be a part of the interface that was not
    /// used before its siblings folded: then something follows that never follows a name.
    fn judge_onward(&mut self, segment: &Segment<'_>, after: &[Segment<'_>]) -> Judged {
        let Some(param) = self.param.as_mut().filter(|param| param.words) else { return Judged::Value };
        let Some(text) = segment.word() else { return Judged::Value };
        let onward = match after.first() {
            None if param.node.label.is_some() => return Judged::Value,
            None => Onward::End,
            Some(next) => match next.word() {
                Some(word) if param.node.position(word).is_ok_and(|at| param.node.words[at].literal) => {
                    return Judged::Value;
                }
                _ if param.node.param.as_ref().is_some_and(|param| param.words || next.word().is_none()) => {
                    return Judged::Value;
                }
                Some(word) => Onward::Word(word.into()),
                None => Onward::Value,
            },
        };
        let Some(at) = param.hints.iter().position(|hint| hint.onward == onward) else {
            if param.hints.len() >= MOST_HINTS {
                param.hints.remove(0);
            }
            // Words must be gathered below, lest a second name in a row (`{owner}/{repo}`) never folds.
            let judged = if matches!(onward, Onward::Word(_)) { Judged::New } else { Judged::Again };
            param.hints.push(Hint { onward, word: text.into(), seen: 1 });
            return judged;
        };
        let hint = &mut param.hints[at];
        if *hint.word != *text {
            // After several words: it goes on so after names.
            param.hints.swap_remove(at);
            if let Onward::Word(word) = onward {
                param.node.grow(&[Part::Literal(word)]);
            }
            return Judged::Value;
        }
        hint.seen += 1;
        if hint.seen < ONLY_AFTER {
            return Judged::Again;
        }
        param.hints.swap_remove(at);
        let at = self.position(text).unwrap_or_else(|at| self.insert(at, Word::new(text)));
        self.words[at].literal = true;
        self.words[at].seen = self.words[at].seen.max(ONLY_AFTER);
        Judged::Literal(at)
    }

    fn walk_word(&mut self, at: usize, after: &[Segment<'_>], walk: &mut Walk) -> &mut Node {
        let word = &mut self.words[at];
        walk.waits |= !word.literal;
        walk.template.push('/');
        walk.template.push_str(&word.text);
        word.node.walk(after, Place::after_word(&word.text), walk)
    }

    fn walk_param(&mut self, segment: &Segment<'_>, after: &[Segment<'_>], walk: &mut Walk) -> &mut Node {
        walk.made += usize::from(self.param.is_none());
        let param = self.param_or_new(segment.parameter());
        walk.template.push_str("/{");
        walk.template.push_str(param.name);
        walk.template.push('}');
        let place = Place::after_param(param);
        param.node.walk(after, place, walk)
    }

    /// The word that a segment is at this place; none if it falls under the parameter.
    fn word_for<'a>(&self, segment: &Segment<'a>, place: Place) -> Option<&'a str> {
        let text = std::str::from_utf8(segment.text).ok()?;
        let Class::Word(shape) = segment.class else {
            // Where no name is expected, it is as likely a part of the interface.
            if segment.class == Class::Name {
                let named = matches!(place, Place::Collection | Place::AfterWord) || self.param.is_some();
                return (!named).then_some(text);
            }
            // Near the root a number is a version, as long as there is no other one that has not proved itself.
            let may_be_literal = place == Place::Open && self.param.is_none();
            let others = || self.words.iter().filter(|word| &*word.text != text && word.is_number());
            let few = || others().count() < MOST_VERSIONS && others().all(Word::is_established);
            return (may_be_literal && is_version_number(segment.text, segment.class) && few()).then_some(text);
        };
        let folded = self.param.as_ref().is_some_and(|param| param.words);
        if !folded || matches!(shape, Shape::Reserved | Shape::Version) {
            return Some(text);
        }
        // Where words are names, a literal keeps what it has; what is new belongs to the parameter.
        None
    }

    /// Whether the word at this index is a part of the interface by what is known now.
    fn is_literal(&self, at: usize, place: Place, after: &[Segment<'_>]) -> bool {
        let word = &self.words[at];
        let Manner { credit, sightings, .. } = place.manner(self.param.is_some());
        let unproven = || self.words.iter().filter(|word| word.literal && word.total() <= 1).count();
        let (credit, sightings) = match word.shape {
            Shape::Reserved | Shape::Version => return true,
            Shape::Personal => (0, sightings + 2),
            Shape::Code | Shape::Plain => (credit, sightings),
        };
        // What goes on as a sibling does may be its like: `/alice/inbox`, `/bob/inbox`.
        let alike = || {
            let Some(Segment { class: Class::Word(Shape::Code | Shape::Plain | Shape::Personal), text, .. }) =
                after.first()
            else {
                return false;
            };
            let goes_on = |word: &Word| word.node.words.iter().any(|next| next.text.as_bytes() == *text);
            self.words.iter().enumerate().any(|(other, word)| other != at && goes_on(word))
        };
        if word.shared || word.total() > sightings {
            return true;
        }
        // Where the credit is used up on words that have not come again, one sighting more is wanted.
        let unproven = unproven();
        (word.total() == sightings && (credit == 0 || unproven < credit)) || (unproven < credit && !alike())
    }

    /// Whether the words of this place behave like names: they come again more rarely than literals would.
    ///
    /// Of *n* requests for *w* literals, about *n*²/2*w* are for one that has been seen before. So few as *r* or fewer are
    /// less likely than 1 % when *n*²/2*w* is above 4.6 + 1.8*r* (Poisson).
    fn should_fold(&self, place: Place) -> bool {
        let (mut words, mut requests, mut code, mut dotted) = (0_usize, 0_usize, 0_usize, 0_usize);
        for word in self.words.iter().filter(|word| word.may_fold()) {
            words += 1;
            requests += word.total() as usize;
            code += usize::from(word.shape == Shape::Code);
            dotted += usize::from(word.text.contains('.'));
        }
        let mut widest = place.manner(self.param.is_some()).widest;
        if place == Place::Open && dotted * 2 > words {
            // `api.users.list` and its siblings are an interface, however many there are.
            widest = usize::MAX;
        } else if place != Place::Collection && code * 2 > words {
            widest *= 2;
        }
        let again = requests - words;
        // Both sides of the inequality times 10 w.
        words > MOST_WORDS || 5 * requests * requests > widest.saturating_mul(46 + 18 * again)
    }

    /// Turns the words of this place into one parameter, except those that are established.
    fn fold(&mut self, walk: &mut Walk) {
        walk.folds += 1;
        let (fold, keep): (Vec<Word>, Vec<Word>) =
            std::mem::take(&mut self.words).into_iter().partition(Word::may_fold);
        walk.made += usize::from(self.param.is_none());
        let param = self.param_or_new(Class::Word(Shape::Plain).parameter());
        param.words = true;
        param.siblings = param.siblings.saturating_add(u32::try_from(fold.len()).unwrap_or(u32::MAX));
        let into = format!("{}/{{{}}}", walk.template, param.name);
        for word in fold {
            if param.examples.len() < MOST_EXAMPLES {
                param.examples.push(word.text.clone());
            }
            param.node.merge(word.node, &into, &mut walk.retired);
        }
        // A name that came often: it goes on as names do, and in no other way.
        let (popular, keep): (Vec<Word>, Vec<Word>) = keep.into_iter().partition(|word| word.is_like(&param.node));
        for word in popular {
            param.siblings = param.siblings.saturating_add(1);
            param.node.merge(word.node, &into, &mut walk.retired);
        }
        // What is below is judged anew, with all that was seen below any of them.
        if param.node.should_fold(Place::AfterName) {
            let before = walk.template.len();
            walk.template.push_str(&into[before..]);
            param.node.fold(walk);
            walk.template.truncate(before);
        }
        self.words = keep;
    }

    /// Takes in what was below a folded sibling. Its labels retire.
    fn merge(&mut self, from: Node, into: &str, retired: &mut Vec<LearnedRoute>) {
        let Node { label, words, param } = from;
        retire(label, into, retired);
        for mut word in words {
            match self.position(&word.text) {
                Ok(at) => {
                    let known = &mut self.words[at];
                    known.seen = known.seen.saturating_add(word.total());
                    known.shared = true;
                    known.literal = true;
                    known.node.merge(word.node, into, retired);
                }
                Err(at) => {
                    word.seen = word.total();
                    word.hits = Arc::default();
                    word.literal = matches!(word.shape, Shape::Reserved | Shape::Version);
                    word.node.retire_all(into, retired);
                    self.insert(at, word);
                }
            }
        }
        if let Some(mut param) = param {
            match &mut self.param {
                Some(known) => {
                    known.words |= param.words;
                    known.siblings = known.siblings.saturating_add(param.siblings);
                    known.node.merge(param.node, into, retired);
                }
                None => {
                    param.node.retire_all(into, retired);
                    self.param = Some(param);
                }
            }
        }
    }

    fn retire_all(&mut self, into: &str, retired: &mut Vec<LearnedRoute>) {
        retire(self.label.take(), into, retired);
        for word in &mut self.words {
            word.node.retire_all(into, retired);
        }
        if let Some(param) = &mut self.param {
            param.node.retire_all(into, retired);
        }
    }

    /// Where a word is, or where it belongs.
    fn position(&self, text: &str) -> Result<usize, usize> {
        self.words.binary_search_by(|word| (*word.text).cmp(text))
    }

    /// Most places have one word, so room is made for one, not for four.
    fn insert(&mut self, at: usize, word: Word) -> usize {
        if self.words.len() == self.words.capacity() {
            self.words.reserve_exact(1 + self.words.len() / 2);
        }
        self.words.insert(at, word);
        at
    }

    fn param_or_new(&mut self, name: &'static str) -> &mut Param {
        self.param.get_or_insert_with(|| {
            Box::new(Param {
                name,
                words: false,
                siblings: 0,
                examples: Vec::new(),
                hints: Vec::new(),
                node: Node::default(),
            })
        })
    }

    /// The node of a template, made where it is missing. Its literals have proved themselves in an earlier process.
    fn grow(&mut self, parts: &[Part]) -> &mut Node {
        let Some((part, after)) = parts.split_first() else { return self };
        match part {
            Part::Literal(text) => {
                let at = self.position(text).unwrap_or_else(|at| self.insert(at, Word::new(text)));
                let word = &mut self.words[at];
                word.literal = true;
                word.seen = word.seen.max(ESTABLISHED);
                word.node.grow(after)
            }
            Part::Param(name) => self.param_or_new(name).node.grow(after),
        }
    }

    /// Drops what leads to no route, and says whether anything is left that does. Folds are remembered where routes are.
    fn forget_waiting(&mut self) -> bool {
        self.words.retain_mut(|word| word.node.forget_waiting());
        self.words.shrink_to_fit();
        let mut leads = self.label.is_some() || !self.words.is_empty();
        if let Some(param) = &mut self.param {
            param.hints = Vec::new();
            if param.node.forget_waiting() {
                leads = true;
            } else if !(leads && param.words) {
                self.param = None;
            }
        }
        leads
    }

    fn count(&self) -> usize {
        let words = self.words.iter().map(|word| 1 + word.node.count()).sum::<usize>();
        words + self.param.as_ref().map_or(0, |param| 1 + param.node.count())
    }

    fn pending(&self) -> usize {
        let words = self.words.iter().map(|word| usize::from(!word.literal) + word.node.pending()).sum::<usize>();
        words + self.param.as_ref().map_or(0, |param| param.node.pending())
    }

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

fn retire(label: Option<Given>, into: &str, retired: &mut Vec<LearnedRoute>) {
    if let Some(Given { id, template }) = label {
        let why = format!("folded into {into}");
        let template = template.into_string();
        retired.push(LearnedRoute { template, id, retired: Some(into.to_owned()), examples: Vec::new(), why });
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
    fn new(text: &str) -> Word {
        let shape = match Class::of(text.as_bytes()) {
            Class::Word(shape) => shape,
            Class::Name => Shape::Plain,
            _ => Shape::Version,
        };
        let node = Node::default();
        Word { text: text.into(), seen: 0, hits: Arc::default(), literal: false, shared: false, shape, node }
    }

    /// How often it was seen, as far as that is counted.
    fn total(&self) -> u32 {
        self.seen.saturating_add(u32::from(self.hits.load(Ordering::Relaxed)))
    }

    fn is_established(&self) -> bool {
        self.total() >= ESTABLISHED
    }

    fn is_number(&self) -> bool {
        self.text.as_bytes()[0].is_ascii_digit() && self.shape == Shape::Version
    }

    /// Whether it becomes a value when its place folds.
    fn may_fold(&self) -> bool {
        let established = self.literal && self.is_established();
        !established && !matches!(self.shape, Shape::Reserved | Shape::Version)
    }

    /// Whether all that was seen behind this word was seen behind several of the values that have become one parameter.
    fn is_like(&self, values: &Node) -> bool {
        let shared = |next: &Word| values.position(&next.text).is_ok_and(|at| values.words[at].shared);
        self.shape != Shape::Reserved
            && self.shape != Shape::Version
            && !self.node.words.is_empty()
            && self.node.words.iter().all(shared)
    }

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

// === impl Trie ===

impl Trie {
    /// The part of the learner's trie that leads to labels.
    fn new(root: &Node) -> Trie {
        let mut trie = Trie::default();
        trie.add(root);
        trie
    }

    /// Adds a node and what is below; returns its index, or none when no route is below.
    fn add(&mut self, node: &Node) -> Option<u32> {
        let index = self.nodes.len();
        let (texts, edges) = (self.texts.len(), self.edges.len());
        let label = node.label.as_ref().map(|label| label.id);
        self.nodes.push(TrieNode { label, first_edge: 0, edges: 0, param: None, words: false });
        let mut own = Vec::with_capacity(node.words.len());
        for word in node.words.iter().filter(|word| word.literal) {
            let start = self.texts.len();
            if let Some(target) = self.add(&word.node) {
                let start = narrow(self.texts.len());
                self.texts.extend_from_slice(word.text.as_bytes());
                let (head, length) = (head(word.text.as_bytes()), narrow(word.text.len()));
                own.push(Edge { head, start, length, target, hits: Arc::clone(&word.hits) });
            } else {
                self.texts.truncate(start);
            }
        }
        let param = node.param.as_ref().and_then(|param| self.add(&param.node));
        if label.is_none() && own.is_empty() && param.is_none() {
            self.nodes.truncate(index);
            self.texts.truncate(texts);
            self.edges.truncate(edges);
            return None;
        }
        let first_edge = narrow(self.edges.len());
        let edges = narrow(own.len());
        self.edges.append(&mut own);
        let words = node.param.as_ref().is_some_and(|param| param.words);
        self.nodes[index] = TrieNode { label, first_edge, edges, param, words };
        Some(narrow(index))
    }

    fn find(&self, path: &[u8]) -> Option<RouteId> {
        let rest = trim(path)?;
        let mut search = Search { passed: [0; MOST_SEGMENTS], steps: MOST_STEPS };
        let root = self.nodes.first()?;
        self.step(root, (!rest.is_empty()).then_some(rest), 0, 0, &mut search)
    }

    /// A literal first, the parameter where that leads nowhere.
    fn step(
        &self,
        node: &TrieNode,
        rest: Option<&[u8]>,
        depth: usize,
        literals: usize,
        search: &mut Search,
    ) -> Option<RouteId> {
        let Some(rest) = rest else {
            let label = node.label?;
            self.count(&search.passed[..literals]);
            return Some(label);
        };
        search.steps = search.steps.checked_sub(1)?;
        let (text, after, is_rest) = match first(rest) {
            (_, Some(_)) if depth + 1 == MOST_SEGMENTS => (rest, None, true),
            (text, after) => (text, after, false),
        };
        if let Some(at) = self.edge(node, text) {
            search.passed[literals] = at;
            let target = &self.nodes[self.edges[at as usize].target as usize];
            let found = self.step(target, after, depth + 1, literals + 1, search);
            if found.is_some() {
                return found;
            }
        }
        let param = node.param?;
        let takes = if node.words {
            is_rest || !segment::is_reserved(text)
        } else {
            is_rest || !matches!(Class::of(text), Class::Word(_))
        };
        if takes { self.step(&self.nodes[param as usize], after, depth + 1, literals, search) } else { None }
    }

    fn edge(&self, node: &TrieNode, text: &[u8]) -> Option<u32> {
        let first = node.first_edge as usize;
        let edges = &self.edges[first..first + node.edges as usize];
        let head = head(text);
        let text_of = |edge: &Edge| &self.texts[edge.start as usize..(edge.start + edge.length) as usize];
        let at = edges.binary_search_by(|edge| edge.head.cmp(&head).then_with(|| text_of(edge).cmp(text))).ok()?;
        Some(node.first_edge + narrow(at))
    }

    /// Counts a request through these literals, as far as that is still of interest.
    fn count(&self, edges: &[u32]) {
        for edge in edges {
            let hits = &self.edges[*edge as usize].hits;
            let count = hits.load(Ordering::Relaxed);
            if count < MOST_HITS {
                // Two workers at once may count one: nobody needs it exact.
                hits.store(count + 1, Ordering::Relaxed);
            }
        }
    }
}

/// The first eight bytes of a text as a number that sorts as they do; a shorter text ends in zeros.
fn head(text: &[u8]) -> u64 {
    let mut first = [0; 8];
    let length = text.len().min(8);
    first[..length].copy_from_slice(&text[..length]);
    u64::from_be_bytes(first)
}

/// What one lookup carries along: the literals it passed, and the steps it still has.
struct Search {
    passed: [u32; MOST_SEGMENTS],
    steps: u32,
}

/// An index of the snapshot, whose arrays are far below four billion long.
fn narrow(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    /// A learner, and the registry of labels beside it.
    struct School {
        learned: Learned,
        labels: RefCell<Vec<String>>,
    }

    impl School {
        fn new(limit: usize) -> School {
            School { learned: Learned::new(limit), labels: RefCell::default() }
        }

        fn give(&self, template: &str) -> Option<RouteId> {
            let mut labels = self.labels.borrow_mut();
            labels.push(template.to_owned());
            u16::try_from(labels.len() + 1).ok().map(RouteId)
        }

        fn label(&self, id: RouteId) -> String {
            self.labels.borrow()[id.index() - 2].clone()
        }

        /// One request with an answer: what it was counted under.
        fn request(&self, path: impl AsRef<[u8]>) -> String {
            let path = path.as_ref();
            let verdict = match self.learned.find(path) {
                Some(id) => Verdict::Label(id),
                None => self.learned.learn(path, &|template| self.give(template)),
            };
            match verdict {
                Verdict::Label(id) => self.label(id),
                Verdict::Wait => "_unmatched".to_owned(),
                Verdict::Full => "_other".to_owned(),
            }
        }

        fn found(&self, path: &str) -> Option<String> {
            self.learned.find(path.as_bytes()).map(|id| self.label(id))
        }
    }

    /// A name nobody has had before.
    fn name(number: usize) -> String {
        const SYLLABLES: [&str; 16] =
            ["ka", "lo", "mi", "ter", "ra", "su", "ben", "di", "fo", "gar", "hel", "jo", "na", "pe", "vi", "wen"];
        (0..4).map(|at| SYLLABLES[(number >> (4 * at)) % 16]).collect()
    }

    #[test]
    fn values_by_their_look_fall_under_a_parameter_at_once() {
        let school = School::new(100);
        assert_eq!(school.request("/users/7"), "/users/{id}");
        assert_eq!(school.request("/users/8/"), "/users/{id}");
        assert_eq!(school.request("/users/9?page=2"), "/users/{id}");
        assert_eq!(school.request("/users/123e4567-e89b-12d3-a456-426614174000"), "/users/{id}");
        assert_eq!(school.request("/"), "/");
        assert_eq!(school.request(""), "_unmatched");
        assert_eq!(school.request("*"), "_unmatched");
        assert_eq!(school.labels.borrow().len(), 2);
    }

    #[test]
    fn words_of_the_interface_are_labels_at_first_sight_where_interfaces_go_on() {
        let school = School::new(100);
        for path in
            ["/health", "/v1/orders", "/api/api.users.list", "/api/v2beta1/orders", "/orders/search", "/users/me"]
        {
            assert_eq!(school.request(path), path);
        }
        assert_eq!(school.request("/orders/5/cancel"), "/orders/{id}/cancel");
    }

    #[test]
    fn a_word_below_a_collection_has_to_come_three_times() {
        let school = School::new(100);
        assert_eq!(school.request("/reports/quarterly"), "_unmatched");
        assert_eq!(school.learned.pending(), 1);
        assert_eq!(school.request("/reports/quarterly"), "_unmatched");
        assert_eq!(school.request("/reports/quarterly"), "/reports/quarterly");
        assert_eq!(school.learned.pending(), 0);
    }

    #[test]
    fn a_popular_name_folds_with_the_others_where_it_goes_on_as_they_do() {
        let school = School::new(100);
        for _ in 0..5 {
            school.request("/authors/barbara/books");
            school.request("/authors/archive/years");
        }
        assert_eq!(school.request("/authors/barbara/books"), "/authors/barbara/books");
        for number in 0..20 {
            school.request(format!("/authors/{}/books", name(number)));
        }
        assert_eq!(school.request("/authors/barbara/books"), "/authors/{name}/books");
        assert_eq!(school.request("/authors/archive/years"), "/authors/archive/years");
    }

    #[test]
    fn a_number_near_the_root_is_a_version_until_a_second_one_comes() {
        let school = School::new(100);
        for _ in 0..5 {
            assert_eq!(school.request("/1.0/boards"), "/1.0/boards");
        }
        assert_eq!(school.request("/2.0/boards"), "/2.0/boards");
        let other = School::new(100);
        assert_eq!(other.request("/1"), "/1");
        assert_eq!(other.request("/2"), "/{id}");
        assert_eq!(other.request("/3"), "/{id}");
    }

    #[test]
    fn names_fold_and_what_came_often_stays() {
        let school = School::new(100);
        for _ in 0..8 {
            school.request("/users/dashboard");
        }
        for number in 0..40 {
            school.request(format!("/users/{}/repos", name(number)));
        }
        assert_eq!(school.request("/users/somebody/repos"), "/users/{name}/repos");
        assert_eq!(school.request("/users/dashboard"), "/users/dashboard");
        assert_eq!(school.learned.folded(), 1);
        assert_eq!(*school.labels.borrow(), ["/users/dashboard", "/users/{name}/repos"]);
    }

    #[test]
    fn two_names_in_a_row_fold_both() {
        let school = School::new(100);
        for number in 0..80 {
            school.request(format!("/repos/{}/{}/issues", name(number), name(1000 + number)));
        }
        assert_eq!(school.request("/repos/somebody/something/issues"), "/repos/{name}/{name}/issues");
        assert_eq!(school.request("/repos/somebody/something/issues/5"), "/repos/{name}/{name}/issues/{id}");
    }

    #[test]
    fn a_label_given_before_a_fold_keeps_its_index_and_gets_no_more_requests() {
        let school = School::new(100);
        assert_eq!(school.request("/blue-heron"), "/blue-heron");
        let id = school.learned.find(b"/blue-heron").unwrap();
        for number in 0..200 {
            school.request(format!("/{}", name(number)));
        }
        assert_eq!(school.found("/blue-heron").as_deref(), Some("/{name}"));
        let list = school.learned.list();
        let old = list.iter().find(|route| route.template == "/blue-heron").unwrap();
        assert_eq!((old.id, old.retired.as_deref()), (id, Some("/{name}")));
        let new = list.iter().find(|route| route.template == "/{name}").unwrap();
        assert!(new.retired.is_none() && new.why.contains("siblings folded below /"), "{}", new.why);
        assert_eq!(new.examples.len(), MOST_EXAMPLES);
        assert_eq!(list.len(), school.labels.borrow().len());
    }

    #[test]
    fn a_part_of_the_interface_that_comes_late_is_no_name() {
        let school = School::new(100);
        for number in 0..100 {
            school.request(format!("/api/{}/members", name(number)));
        }
        assert_eq!(school.request("/api/anybody/members"), "/api/{name}/members");
        for _ in 0..3 {
            school.request("/api/sites/17");
        }
        assert_eq!(school.request("/api/sites/18"), "/api/sites/{id}");
        // But another way on after names is just that.
        school.request("/api/first/billing");
        assert_eq!(school.request("/api/second/billing"), "/api/{name}/billing");
    }

    #[test]
    fn the_limit_ends_the_learning_and_a_higher_one_goes_on() {
        let school = School::new(2);
        assert_eq!(school.request("/a"), "/a");
        assert!(!school.learned.is_full());
        assert_eq!(school.request("/b"), "/b");
        assert!(school.learned.is_full());
        assert_eq!(school.request("/c"), "_other");
        assert_eq!(school.request("/a"), "/a");
        school.learned.set_limit(3);
        assert_eq!(school.request("/c"), "/c");
        school.learned.set_limit(1);
        assert_eq!(school.request("/c"), "/c");
        assert_eq!(school.request("/d"), "_other");
        assert_eq!(School::new(0).request("/a"), "_other");
    }

    #[test]
    fn a_registry_without_room_ends_the_learning() {
        let learned = Learned::new(100);
        assert_eq!(learned.learn(b"/a", &|_| None), Verdict::Full);
        assert!(learned.is_full());
    }

    #[test]
    fn a_learner_at_work_makes_nobody_wait() {
        let learned = Learned::new(100);
        let guard = learned.lock();
        assert_eq!(learned.learn(b"/a", &|_| Some(RouteId(2))), Verdict::Wait);
        assert_eq!(learned.find(b"/a"), None);
        drop(guard);
        assert_eq!(learned.learn(b"/a", &|_| Some(RouteId(2))), Verdict::Label(RouteId(2)));
    }

    #[test]
    fn deep_and_long_paths_are_cut() {
        let school = School::new(100);
        let deep = "/1-a".repeat(2000);
        assert_eq!(deep.len(), 8000);
        for _ in 0..30 {
            school.request(&deep);
        }
        let label = school.request(&deep);
        assert!(label.ends_with("/{rest}"), "{label}");
        assert_eq!(label.matches('/').count(), MOST_SEGMENTS);
        // The same place, less deep: no rest, but the segment there.
        assert_eq!(school.request(format!("/{}", "x".repeat(8191))), "/{id}");
        let other = School::new(100);
        assert_eq!(other.request(vec![b'/'; 8192]), format!("{}/{{rest}}", "/{value}".repeat(15)));
        let wide =
            format!("/{}", "abcdefgh/".repeat(MOST_SEGMENTS - 1).replace('/', &format!("{}/", "-word".repeat(9))));
        for _ in 0..10 {
            assert_eq!(school.request(&wide), "_unmatched", "a template over the limit");
        }
    }

    #[test]
    fn bytes_that_no_label_may_hold_are_values() {
        let school = School::new(100);
        for path in
            [&b"/files/\xff\xfe"[..], b"/files/a\x00b", b"/files/a*b", b"/files/%2e%2e", b"/files/{x}", b"/files/\"q\""]
        {
            assert_eq!(school.request(path), "/files/{value}");
        }
        assert_eq!(school.learned.explain(b"/files/\xff\n").segments[1].text, "\\xff\\n");
    }

    #[test]
    fn a_hundred_thousand_random_paths_end_in_a_handful_of_labels() {
        let school = School::new(100);
        let mut state = 1_u64;
        let mut random = move |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let mut most = 0;
        for _ in 0..100_000 {
            let segments = 1 + random(6);
            let path: String = (0..segments)
                .map(|_| match random(3) {
                    0 => format!("/{}", name(usize::try_from(random(65_536)).unwrap())),
                    1 => format!("/{:x}", random(1 << 30)),
                    _ => (0..=random(12))
                        .map(|_| char::from(b'a' + u8::try_from(random(26)).unwrap()))
                        .fold("/".to_owned(), |text, letter| text + letter.encode_utf8(&mut [0; 4])),
                })
                .collect();
            school.request(path);
            most = most.max(school.learned.lock().nodes);
        }
        let labels = school.labels.borrow();
        println!("{} labels: {labels:?}", labels.len());
        assert!(labels.len() <= 40, "{} labels: {labels:?}", labels.len());
        assert!(most <= MOST_WAITING + 100 * MOST_SEGMENTS + MOST_SEGMENTS, "{most} nodes");
    }

    #[test]
    fn paths_that_can_never_have_a_label_are_forgotten() {
        let school = School::new(100);
        school.request("/users/7");
        // Four of these and a bit are longer than a template may be.
        let part = |number: usize| format!("{}-{}", "word-and-word".repeat(4), name(number));
        let mut most = 0;
        for number in 0..30_000 {
            let [a, b, c, d] = [1, 6, 36, 216].map(|step| part(number / 24 / step % 6));
            school.request(format!("/{a}/{b}/{c}/{d}/more-words/{}", name(number)));
            most = most.max(school.learned.lock().nodes);
        }
        assert!(school.learned.folded() > 100);
        assert!(most <= MOST_WAITING + 20, "{most} nodes");
        assert_eq!(school.labels.borrow().len(), 1);
        assert!(size_of::<Word>() <= 128 && size_of::<Param>() <= 160);
    }

    #[test]
    fn an_explanation_says_what_each_segment_is_and_why() {
        let school = School::new(100);
        for number in 0..40 {
            school.request(format!("/users/{}/orders/5", name(number)));
        }
        let Explanation { segments, route, template } = school.learned.explain(b"/users/alice/orders/7");
        assert_eq!(route.map(|id| school.label(id)).as_deref(), Some("/users/{name}/orders/{id}"));
        assert_eq!(template, "/users/{name}/orders/{id}");
        let whys: Vec<_> = segments.iter().map(|segment| segment.why.as_str()).collect();
        assert_eq!(segments[1].text, "alice");
        assert!(whys[1].ends_with("siblings folded below /users"), "{whys:?}");
        assert_eq!((whys[0], whys[3]), ("a word", "a number"));

        let unknown = school.learned.explain(b"/reports/quarterly");
        assert_eq!((unknown.route, unknown.template.as_str()), (None, "/reports/quarterly"));
        assert_eq!(unknown.segments[1].why, "a word not seen here before");
        school.request("/reports/quarterly");
        let waiting = school.learned.explain(b"/reports/quarterly");
        assert_eq!(waiting.segments[1].why, "a word that may be a name, seen once so far");
        assert_eq!(school.learned.explain(b"/").template, "/");
    }

    #[test]
    fn a_state_that_is_malformed_changes_nothing() {
        let school = School::new(100);
        let restore = |text: &str| {
            school.learned.restore(text, &|template| school.give(template)).map_err(|error| error.to_string())
        };
        for (text, want) in [
            (r#"{"version":2,"routes":[],"folds":[]}"#, "version 2; this program reads version 1"),
            (
                r#"{"version":1,"routes":["/ok","/a*b"],"folds":[]}"#,
                "\"/a*b\" is not a template that could have been learned",
            ),
            (
                r#"{"version":1,"routes":["/{mine}"],"folds":[]}"#,
                "\"/{mine}\" is not a template that could have been learned",
            ),
            (
                r#"{"version":1,"routes":[],"folds":[{"place":"/users","siblings":3}]}"#,
                "\"/users\" is not a template that could have been learned",
            ),
        ] {
            assert_eq!(restore(text), Err(want.to_owned()));
        }
        assert!(restore("{").is_err() && restore("[]").is_err());
        assert_eq!(restore(&" ".repeat(LONGEST_STATE + 1)), Err("1048577 bytes; at most 1048576 are read".to_owned()));
        assert!(school.learned.list().is_empty() && school.labels.borrow().is_empty());
    }

    #[test]
    fn a_restart_does_not_relearn() {
        let school = School::new(100);
        for number in 0..40 {
            school.request(format!("/users/{}/repos", name(number)));
            school.request("/health");
        }
        let state = school.learned.save();
        assert!(!state.contains(&name(39)), "{state}");
        let after = School::new(100);
        assert_eq!(after.learned.restore(&state, &|template| after.give(template)).unwrap(), 2);
        assert_eq!(after.found("/users/alice/repos").as_deref(), Some("/users/{name}/repos"));
        assert_eq!(after.found("/health").as_deref(), Some("/health"));
        let none = School::new(1);
        assert_eq!(none.learned.restore(&state, &|template| none.give(template)).unwrap(), 1);
        assert!(none.learned.is_full());
    }

    /// Segments of all kinds, with repeats.
    fn segment() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => "[a-d]{1,2}".prop_map(String::into_bytes),
            2 => (0..500_usize).prop_map(|number| name(number).into_bytes()),
            2 => "(users|orders|v1|api|me|search|main|US|1\\.0|3)".prop_map(String::into_bytes),
            1 => "[0-9]{1,6}".prop_map(String::into_bytes),
            1 => "[ -~]{0,80}".prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..20),
        ]
    }

    fn paths(most: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
        let path = proptest::collection::vec(segment(), 0..20)
            .prop_map(|segments| segments.into_iter().fold(Vec::new(), |path, segment| [path, segment].join(&b'/')));
        proptest::collection::vec(path, 0..most)
    }

    proptest! {
        // Each case is some hundred requests.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_path_gives_a_label_that_cannot_be_shown(paths in paths(150)) {
            let school = School::new(1000);
            for path in &paths {
                let verdict = school.request(path);
                // What was learned is found from then on, under that or what it folds into.
                prop_assert_eq!(school.learned.find(path).is_some(), verdict != "_unmatched");
                let explained = school.learned.explain(path);
                if let Some(id) = explained.route {
                    prop_assert_eq!(explained.template, school.label(id));
                }
            }
            let labels = school.labels.borrow();
            for label in labels.iter() {
                prop_assert!(label.len() <= LONGEST_TEMPLATE && !label.contains('*'), "{}", label);
                prop_assert!(label.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'), "{}", label);
                prop_assert!(parse(label).is_some(), "{} cannot be read back", label);
            }
            let distinct: std::collections::BTreeSet<_> = labels.iter().collect();
            prop_assert_eq!(distinct.len(), labels.len(), "no template is given twice");
            prop_assert_eq!(school.learned.list().len(), labels.len());
        }

        #[test]
        fn a_saved_state_finds_the_same_routes_again(paths in paths(150)) {
            let school = School::new(1000);
            for path in &paths {
                school.request(path);
            }
            let state = school.learned.save();
            let after = School::new(1000);
            let live = school.learned.list().iter().filter(|route| route.retired.is_none()).count();
            prop_assert_eq!(after.learned.restore(&state, &|template| after.give(template)).unwrap(), live);
            for path in &paths {
                let before = school.learned.find(path).map(|id| school.label(id));
                prop_assert_eq!(after.learned.find(path).map(|id| after.label(id)), before);
            }
            prop_assert_eq!(after.learned.save(), state);
        }

        #[test]
        fn any_text_can_be_offered_as_a_state(text in ".{0,200}") {
            let _ = Learned::new(10).restore(&text, &|_| Some(RouteId(2)));
        }
    }
}
