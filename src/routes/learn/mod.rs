//! Route templates that nobody declared, learned from the paths of requests that had a proper answer.
//!
//! # How it decides
//!
//! A trie of path segments. Each place in it has literals (words) and at most one parameter, which keeps the name of
//! the first kind of value seen there, so that one true route gets one label.
//!
//! 1. What is a value by its look ([`segment`](super::segment): numbers, UUIDs, hashes, dates, tokens …) falls under
//!    the parameter of its place at once. Near the root a number is a version of the interface until a second one
//!    comes.
//! 2. A word may be a part of the interface or somebody's name; its place tells which is likely. Where interfaces
//!    usually go on (the root, after a version, after an id) some words become literals at first sight: the *credit* of
//!    the place, given back as they are seen again. Where names usually stand (below a plural such as `users`, beside
//!    a parameter, after a name) a word has to be seen a few times first; until then its paths wait.
//! 3. Names hardly ever come twice, parts of an interface do. A place has a size that an interface hardly exceeds there
//!    (15 words below a plural, 170 at the root). When the words of a place have come again so rarely that a set of
//!    that size would be very unlikely to do so (below 1 %), the place *folds*: its words become one parameter, except
//!    those that came often. That takes a dozen different names below a plural, and forty at the root. It is
//!    remembered.
//! 4. What was below the folded words is merged and judged anew: words seen below several of them are literals.
//! 5. A part of the interface may come only after its siblings have folded. It is told by what follows it, if that
//!    never follows a name: `/{account}/members` is known, and now `/sites/{id}` comes, again and again after `sites`
//!    only.
//!
//! A label given before a fold stays valid, so that no counter goes back; it gets no new requests.
//!
//! # What it costs
//!
//! [`Learned::find`] reads an immutable snapshot: no lock, no allocation. Words that have been seen a few times are no
//! longer counted, so the only store of the request path ends after a handful of requests. The learner itself sits
//! behind a mutex that nobody waits for, sees unknown paths only, and has a bounded number of nodes; what waits there
//! is forgotten when they run out. A new snapshot is made only when a label was given or a place folded.

mod explain;
mod path;
mod state;
#[cfg(test)]
mod tests;
mod trie;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use arc_swap::ArcSwap;

use super::segment::{self, Class, Shape};
use crate::labels::RouteId;
pub use explain::{Explanation, Hindrance, SegmentExplained};
use path::{Part, Segment, is_version_number, split};
pub use state::{LONGEST_STATE, Malformed};
use trie::Trie;

/// Segments looked at; the rest of a deeper path is one parameter. The deepest path of the public interfaces looked at
/// has 13 segments.
const MOST_SEGMENTS: usize = 16;

/// The longest template, in bytes. The longest of the public interfaces looked at has 130; a label of more is a
/// burden on every page, and a path that needs it stays without.
const LONGEST_TEMPLATE: usize = 256;

/// Nodes that the learner may keep besides those of routes, hints included. Up to 400 bytes each with their texts (a
/// parameter with its examples; most are words, with half of that), so less than 2 MiB.
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

/// Versions, and words that interfaces keep for themselves, that are literals of a place at first sight as long as they have
/// not come again.
const MOST_NEW_KEPT: usize = 8;

/// Sightings that make literals of more of them.
const SEEN_KEPT: u32 = 3;

/// Words a place may have at most, whatever their behaviour: beyond, they fold. Larger than the largest number of
/// siblings of the public interfaces looked at, 174 methods called by dotted names.
const MOST_WORDS: usize = 256;

/// Folded values kept as examples for each parameter: enough to see what they are.
const MOST_EXAMPLES: usize = 3;

/// Learned routes, shared by all workers, alive as long as the process.
pub struct Learned {
    trie: ArcSwap<Trie>,
    learner: Mutex<Learner>,
    limit: AtomicUsize,
    full: AtomicBool,
    /// Numbers for the metrics page, so that a scrape takes no lock.
    waiting: AtomicUsize,
    folds: AtomicU64,
    forgotten: AtomicU64,
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
    /// What came after words here and is not known below the parameter, to tell parts of the interface that are only
    /// now used from names.
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
            forgotten: AtomicU64::new(0),
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
        self.forgotten.fetch_add(learned.forgotten, Ordering::Relaxed);
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

    /// How much that waited for more evidence was dropped, because more waited than is kept: places in the trie and
    /// hints. Many of them mean that somebody makes paths up, or that the interface is beyond learning.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
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

// === impl Learner ===

/// What one lesson came to.
struct Lesson {
    verdict: Verdict,
    /// A label was given or a place folded: readers need a new snapshot.
    changed: bool,
    /// No further label can be given.
    full: bool,
    folds: u64,
    forgotten: u64,
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
        let mut lesson = Lesson { verdict: Verdict::Wait, changed: folds > 0, full: false, folds, forgotten: 0 };
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
            let before = self.root.count();
            self.root.forget_waiting();
            self.recount();
            lesson.forgotten = (before - self.nodes) as u64;
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
            return match self.judge_onward(segment, after, walk) {
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
    fn judge_onward(&mut self, segment: &Segment<'_>, after: &[Segment<'_>], walk: &mut Walk) -> Judged {
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
            } else {
                // Counts as a node until it becomes one.
                walk.made += 1;
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
            if let Onward::Word(word) = onward
                && param.node.words.len() < MOST_WORDS
            {
                walk.made += 1;
                param.node.grow(&[Part::Literal(word)]);
            }
            return Judged::Value;
        }
        hint.seen += 1;
        if hint.seen < ONLY_AFTER {
            return Judged::Again;
        }
        param.hints.swap_remove(at);
        let at = match self.position(text) {
            Ok(at) => at,
            // Whoever makes words up gets no more of them than there may be.
            Err(_) if self.words.len() >= MOST_WORDS => return Judged::Value,
            Err(at) => {
                walk.made += 1;
                self.insert(at, Word::new(text))
            }
        };
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
            Shape::Reserved | Shape::Version => {
                // No interface has more of them at once; a scanner has, and must not get a label for each.
                let new = |other: &&Word| other.shape == word.shape && other.literal && other.total() <= 1;
                return self.words.iter().filter(new).count() < MOST_NEW_KEPT || word.total() >= SEEN_KEPT;
            }
            // Nobody's name is at the root; `oauth2` is.
            Shape::Personal if place != Place::Open => (0, sightings + 2),
            Shape::Personal | Shape::Code | Shape::Plain => (credit, sightings),
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
    /// Of *n* requests for *w* literals, about *n*²/2*w* are for one that has been seen before. So few as *r* or fewer
    /// are less likely than 1 % when *n*²/2*w* is above 4.6 + 1.8*r* (Poisson).
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

    /// Drops what leads to no route, and says whether anything is left that does. Folds are remembered where routes
    /// are.
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

    /// Nodes below here, and hints.
    fn count(&self) -> usize {
        let words = self.words.iter().map(|word| 1 + word.node.count()).sum::<usize>();
        words + self.param.as_ref().map_or(0, |param| 1 + param.hints.len() + param.node.count())
    }

    fn pending(&self) -> usize {
        let words = self.words.iter().map(|word| usize::from(!word.literal) + word.node.pending()).sum::<usize>();
        words + self.param.as_ref().map_or(0, |param| param.node.pending())
    }
}

fn retire(label: Option<Given>, into: &str, retired: &mut Vec<LearnedRoute>) {
    if let Some(Given { id, template }) = label {
        let why = format!("folded into {into}");
        let template = template.into_string();
        retired.push(LearnedRoute { template, id, retired: Some(into.to_owned()), examples: Vec::new(), why });
    }
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
}
