//! What readers see: a snapshot that a lookup neither locks nor allocates for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::path::{first, trim};
use super::{MOST_HITS, MOST_SEGMENTS, Node};
use crate::labels::RouteId;
use crate::routes::segment::{self, Class};

/// Steps of one lookup. A usual path takes as many as it has segments; only literals beside parameters at several
/// depths make it go back.
const MOST_STEPS: u32 = 64;

/// What readers see: nodes in one array, their literals side by side in another, sorted by text.
#[derive(Default)]
pub(super) struct Trie {
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

// === impl Trie ===

impl Trie {
    /// The part of the learner's trie that leads to labels.
    pub(super) fn new(root: &Node) -> Trie {
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

    pub(super) fn find(&self, path: &[u8]) -> Option<RouteId> {
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
