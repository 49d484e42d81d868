//! What finding a route costs: `make bench` runs this on a core of its own and reads the one line of JSON that it
//! prints.
//!
//! Two questions. How long does it take to find a path among 500 templates, declared or imported? And what does
//! learning add to a path that it knows: the time for a path that no template matches and that was learned, less that
//! for the same path when nothing is learned. Medians over rounds; every round walks through all paths in another
//! order, so that the branch predictor cannot learn them by heart.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use golden_sidecar::config::RouteTemplate;
use golden_sidecar::labels::{Method, RouteId, RouteKind};
use golden_sidecar::routes::{Ids, Learned, RouteTable, openapi::ImportedTemplate};
use tokio::time::Instant;

const TEMPLATES: usize = 500;
const ROUNDS: usize = 200;

/// Parts of interfaces, as they are.
const NOUNS: [&str; 25] = [
    "accounts",
    "invoices",
    "customers",
    "orders",
    "products",
    "payments",
    "refunds",
    "sessions",
    "users",
    "teams",
    "projects",
    "issues",
    "commits",
    "branches",
    "releases",
    "files",
    "folders",
    "messages",
    "channels",
    "events",
    "reports",
    "settings",
    "members",
    "tokens",
    "webhooks",
];

#[derive(Debug)]
struct Numbered(AtomicU16);

impl Ids for Numbered {
    fn declared(&self, _name: &str, _edges: Option<&[f64]>) -> RouteId {
        RouteId(self.0.fetch_add(1, Relaxed))
    }

    fn first_used(&self, _name: &str, _kind: RouteKind) -> Option<RouteId> {
        Some(RouteId(self.0.fetch_add(1, Relaxed)))
    }
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.roll(at + 1));
        }
    }
}

/// `/v1/orders/{id}/refunds/{id}` and the like: 20 of each noun.
fn templates() -> Vec<String> {
    let mut all = Vec::with_capacity(TEMPLATES);
    for first in NOUNS {
        all.extend([format!("/v1/{first}"), format!("/v1/{first}/{{id}}")]);
        for second in NOUNS.iter().filter(|second| **second != first).take(9) {
            all.extend([format!("/v1/{first}/{{id}}/{second}"), format!("/v1/{first}/{{id}}/{second}/{{other}}")]);
        }
    }
    assert_eq!(all.len(), TEMPLATES);
    all
}

fn path(template: &str, dice: &mut Dice) -> Vec<u8> {
    let id = (dice.roll(1_000_000_000) + 1_000).to_string();
    template.replace("{id}", &id).replace("{other}", &id).into_bytes()
}

/// Nanoseconds for one path, median of the rounds.
fn measure(table: &RouteTable, paths: &mut [Vec<u8>], dice: &mut Dice, check: impl Fn(RouteId) -> bool) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            dice.shuffle(paths);
            let began = Instant::now();
            for path in paths.iter() {
                black_box(table.find(Method::Get, black_box(path)));
            }
            began.elapsed().as_nanos() as f64 / paths.len() as f64
        })
        .collect();
    for path in paths.iter() {
        let route = table.find(Method::Get, path).route;
        assert!(check(route), "{} is {route:?}", String::from_utf8_lossy(path));
    }
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn main() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let templates = templates();
    let imported: Vec<_> =
        templates.iter().map(|path| ImportedTemplate { path: path.clone(), methods: vec![Method::Get] }).collect();
    let declared: Vec<_> = templates
        .iter()
        .map(|path| RouteTemplate { path: path.clone(), methods: vec![Method::Get], buckets: None })
        .collect();
    let ids = || Arc::new(Numbered(AtomicU16::new(2)));
    let table = |imported: &[ImportedTemplate], learned| {
        RouteTable::new(&[], imported, learned, ids()).expect("no two are alike")
    };
    let mut paths: Vec<_> = templates.iter().map(|template| path(template, &mut dice)).collect();

    let known = |route| route != RouteId::UNMATCHED && route != RouteId::OTHER;
    let find = measure(&table(&imported, None), &mut paths, &mut dice, known);
    let declaring = RouteTable::new(&declared, &[], None, ids()).expect("no two are alike");
    let find_declared = measure(&declaring, &mut paths, &mut dice, known);

    // The same templates, under another root, so that the import misses and the learner has to know.
    let learned = Arc::new(Learned::new(TEMPLATES));
    let knowing = table(&imported, Some(Arc::clone(&learned)));
    let elsewhere = |path: &[u8]| [b"/v2", &path[3..]].concat();
    let mut others: Vec<_> = paths.iter().map(|path| elsewhere(path)).collect();
    for _ in 0..10 {
        for template in &templates {
            let path = elsewhere(&path(template, &mut dice));
            if knowing.find(Method::Get, &path).unknown {
                let _ = knowing.earned(&path, 200);
            }
        }
    }
    let with = measure(&knowing, &mut others, &mut dice, known);
    let without = measure(&table(&imported, None), &mut others, &mut dice, |route| route == RouteId::UNMATCHED);
    println!(
        "{{\"find_500_ns\":{find:.1},\"find_declared_500_ns\":{find_declared:.1},\"learned_ns\":{with:.1},\
         \"unlearned_ns\":{without:.1},\"learned_adds_ns\":{:.1}}}",
        with - without
    );
}
