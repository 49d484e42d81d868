//! How well routes are learned: the paths of public interfaces, expanded with random values, against the templates of
//! their own specifications, which the learner does not see.
//!
//! # How it counts
//!
//! Every request counts, those included that came before anything was learned. A request agrees when the template it
//! fell under has as many segments as the specification's, the same literals, and a parameter wherever the
//! specification has one; names of parameters do not matter. So `/users/{id}` and `/users/{name}` of one specification
//! are the same route. A parameter with an `enum` may stay a literal: such a route counts as one for each of the
//! values, and either form agrees.
//!
//! "Labels" are the different templates that the requests of one route fell under, wrong ones included.
//!
//! With `CORPUS_SHOW` set, the routes that disagree most are printed, and those with more than two labels.
//!
//! The interfaces were chosen by name and none is dropped; see `tests/peers/corpus.py`, which reduces their documents.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use golden_sidecar::labels::{Method, RouteId, RouteKind};
use golden_sidecar::routes::openapi::ImportedTemplate;
use golden_sidecar::routes::{Ids, Learned, RouteTable, Verdict};

/// Requests for each template: enough for a share of 1 % to be one request.
const REQUESTS: usize = 100;

/// Values that half of the requests are for, where names are popular.
const POPULAR: u64 = 20;

/// A template of a specification, and what its values look like.
struct Template {
    interface: String,
    group: String,
    /// As the specification writes it.
    text: String,
    segments: Vec<Piece>,
}

/// A segment of a template.
#[derive(Clone)]
enum Piece {
    Literal(String),
    /// Text between parameters, and the kind of each parameter: `{base}...{head}`.
    Values(Vec<(String, String)>, String),
}

/// One request, and the route that it truly belongs to.
struct Request {
    path: String,
    truth: Vec<Truth>,
    route: String,
}

/// What a segment of the learned template must be.
#[derive(Clone)]
enum Truth {
    Literal(String),
    Parameter,
    Either(String),
}

#[derive(Clone, Copy)]
enum Order {
    Random,
    OneRouteAfterAnother,
    RoundRobin,
}

#[derive(Default)]
struct Score {
    routes: usize,
    requests: usize,
    agreed: usize,
    most_labels: usize,
    extra_labels: usize,
    labels: usize,
}

// === The tests ===

#[test]
fn learned_templates_agree_with_the_specifications() {
    let templates = corpus();
    assert!(templates.len() >= 500, "only {} templates", templates.len());
    for seed in 1..=3 {
        let total = report(&templates, &format!("random order, seed {seed}"), Order::Random, false, seed);
        assert!(total.agreement() >= 0.95, "seed {seed}: only {:.2} % agree", total.agreement() * 100.0);
        assert!(total.most_labels <= 2, "seed {seed}: a route has {} labels", total.most_labels);
        in_the_readme(&format!("random order, seed {seed}"), &total);
    }
}

/// Orders that no traffic has. What is wrong here: where an interface has a free name and words beside each other, and
/// only names come at first, the words that come later are taken for names. And where each of many words comes once
/// before any comes again, they look like names.
#[test]
fn learned_templates_agree_in_unusual_orders_too() {
    let templates = corpus();
    for (name, order) in [("one route after another", Order::OneRouteAfterAnother), ("round robin", Order::RoundRobin)]
    {
        let total = report(&templates, name, order, false, 1);
        assert!(total.agreement() >= 0.95, "{name}: only {:.2} % agree", total.agreement() * 100.0);
        assert!(total.most_labels <= 2, "{name}: a route has {} labels", total.most_labels);
        in_the_readme(name, &total);
    }
}

/// Half of all names are of twenty that come again and again, as in real life: a name that comes often cannot be told
/// from a part of the interface, and gets labels of its own beside those of the other names.
#[test]
fn names_that_come_often_do_little_harm() {
    let templates = corpus();
    let total = report(&templates, "random order, popular names", Order::Random, true, 1);
    assert!(total.agreement() >= 0.95, "only {:.2} % agree", total.agreement() * 100.0);
    in_the_readme("random order, popular names", &total);
}

/// The README says of this run what it has shown.
fn in_the_readme(run: &str, total: &Score) {
    let readme = include_str!("../README.md");
    let (agreement, extra) = (total.agreement() * 100.0, total.most_labels.saturating_sub(1));
    let row = format!("| {run} | {} | {} | {agreement:.2} % | {extra} |", total.routes, total.requests);
    assert!(readme.contains(&row), "the README lacks this row:\n{row}");
}

/// With the specification imported, every request has its template: the one that it was made from, or one that the
/// document writes out where this one has a parameter, which comes first (OpenAPI 3.1, "Path Templating Matching").
/// Templates that differ in the names of their parameters only are one route.
#[test]
fn imported_templates_are_exact() {
    let templates = corpus();
    let interfaces: BTreeSet<&str> = templates.iter().map(|template| &*template.interface).collect();
    let (mut requests, mut written_out) = (0, 0);
    for interface in interfaces {
        let own: Vec<_> = templates.iter().filter(|template| template.interface == interface).collect();
        let imported: Vec<_> = own
            .iter()
            .map(|template| ImportedTemplate { path: template.text.clone(), methods: vec![Method::Get] })
            .collect();
        let labels = Arc::new(Labels::default());
        let table =
            RouteTable::new(&[], &imported, None, Arc::clone(&labels) as Arc<dyn Ids>).expect("nothing is declared");
        let mut random = Random(7);
        for template in &own {
            for _ in 0..REQUESTS {
                let request = expand(template, false, &mut random);
                let route = table.find(Method::Get, request.path.as_bytes()).route;
                let label = labels.name(route).unwrap_or_else(|| panic!("{interface}: {} has no label", request.path));
                requests += 1;
                if shape(&label) != shape(&template.text) {
                    assert!(
                        is_written_out(&label, &template.text, &request.path),
                        "{interface}: {} fell under {label} instead of {}",
                        request.path,
                        template.text
                    );
                    written_out += 1;
                }
            }
        }
    }
    println!(
        "imported: {requests} requests, all under their template; {written_out} of them under one that is written out there"
    );
    assert!(requests > 500 * REQUESTS && written_out * 100 < requests);
}

/// A template without the names of its parameters.
fn shape(template: &str) -> String {
    let mut shape = String::new();
    let mut inside = false;
    for letter in template.trim_end_matches('/').chars() {
        match letter {
            '{' => {
                inside = true;
                shape.push_str("{}");
            }
            '}' => inside = false,
            letter if !inside => shape.push(letter),
            _ => {}
        }
    }
    shape
}

/// Whether `label` writes out, as the path has it, what `template` has a parameter for, and differs in nothing else.
fn is_written_out(label: &str, template: &str, path: &str) -> bool {
    let segments = [label, template, path].map(|text| text.split('/').collect::<Vec<_>>());
    let [label, template, path] = &segments;
    label.len() == template.len()
        && label.len() == path.len()
        && (0..label.len()).all(|at| shape(label[at]) == shape(template[at]) || label[at] == path[at])
}

/// Gives labels their numbers and remembers them.
#[derive(Debug, Default)]
struct Labels(Mutex<Vec<String>>);

impl Labels {
    fn name(&self, route: RouteId) -> Option<String> {
        self.0.lock().unwrap().get(usize::from(route.0).checked_sub(2)?).cloned()
    }
}

impl Ids for Labels {
    fn declared(&self, name: &str, _edges: Option<&[f64]>) -> RouteId {
        self.first_used(name, RouteKind::Declared).expect("there is no limit")
    }

    fn first_used(&self, name: &str, _kind: RouteKind) -> Option<RouteId> {
        let mut names = self.0.lock().unwrap();
        names.push(name.to_owned());
        u16::try_from(names.len() + 1).ok().map(RouteId)
    }
}

/// Prints a line for each interface and for each group, and returns the sum of all.
fn report(templates: &[Template], name: &str, order: Order, popular: bool, seed: u64) -> Score {
    println!("\n{name}");
    let mut total = Score::default();
    for (group, title) in GROUPS {
        let mut interfaces: Vec<&str> =
            templates.iter().filter(|template| template.group == *group).map(|template| &*template.interface).collect();
        interfaces.dedup();
        if interfaces.is_empty() {
            continue;
        }
        println!(
            "{title:14} {:>7} {:>9} {:>10} {:>8} {:>12} {:>12}",
            "routes", "requests", "agreement", "labels", "extra (max)", "extra (mean)"
        );
        let mut sum = Score::default();
        for interface in interfaces {
            let own: Vec<_> = templates.iter().filter(|template| template.interface == interface).collect();
            let score = score(&own, order, popular, seed);
            score.print(interface);
            sum.add(&score);
        }
        sum.print("  together");
        total.add(&sum);
    }
    total.print("ALL");
    total
}

/// Groups of interfaces as `corpus.py` names them.
const GROUPS: &[(&str, &str)] = &[("tuned", "tuned with"), ("later", "looked at later"), ("unseen", "never looked at")];

// === Scoring ===

fn score(templates: &[&Template], order: Order, popular: bool, seed: u64) -> Score {
    let requests = requests(templates, order, popular, seed);
    let learned = Learned::new(60_000);
    let labels = RefCell::new(Vec::<String>::new());
    let give = |template: &str| {
        let mut labels = labels.borrow_mut();
        labels.push(template.to_owned());
        u16::try_from(labels.len() + 1).ok().map(RouteId)
    };
    let mut agreed: BTreeMap<&str, usize> = BTreeMap::new();
    let mut fell_under: BTreeMap<&str, BTreeSet<RouteId>> = BTreeMap::new();
    let mut score = Score { requests: requests.len(), ..Score::default() };
    let mut wrong: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for request in &requests {
        let found =
            learned.find(request.path.as_bytes()).or_else(|| match learned.learn(request.path.as_bytes(), &give) {
                Verdict::Label(id) => Some(id),
                Verdict::Wait => None,
                Verdict::Full => panic!("the limit is above every corpus"),
            });
        let under = fell_under.entry(&request.route).or_default();
        let template = found.map(|id| labels.borrow()[usize::from(id.0) - 2].clone());
        under.extend(found);
        if template.as_deref().is_some_and(|template| agrees(template, &request.truth)) {
            score.agreed += 1;
            *agreed.entry(&request.route).or_default() += 1;
        } else {
            *wrong.entry((&request.route, template.unwrap_or_default())).or_default() += 1;
        }
    }
    for under in fell_under.values() {
        score.routes += 1;
        score.most_labels = score.most_labels.max(under.len());
        score.extra_labels += under.len().saturating_sub(1);
    }
    score.labels = labels.borrow().len();
    if std::env::var_os("CORPUS_SHOW").is_some() {
        let mut wrong: Vec<_> = wrong.into_iter().filter(|(_, count)| *count > 8).collect();
        wrong.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for ((route, template), count) in wrong.iter().take(25) {
            println!("    {count:4} of {route} under {template:?}");
        }
        for (route, under) in fell_under.iter().filter(|(_, under)| under.len() > 2).take(10) {
            let texts: Vec<_> = under.iter().map(|id| labels.borrow()[usize::from(id.0) - 2].clone()).collect();
            println!("    labels of {route}: {texts:?}");
        }
    }
    score
}

fn agrees(template: &str, truth: &[Truth]) -> bool {
    let inside = template.trim_start_matches('/');
    let parts: Vec<&str> = if inside.is_empty() { Vec::new() } else { inside.split('/').collect() };
    parts.len() == truth.len()
        && parts.iter().zip(truth).all(|(part, truth)| match truth {
            Truth::Literal(text) => part == text,
            Truth::Parameter => part.starts_with('{'),
            Truth::Either(text) => part == text || part.starts_with('{'),
        })
}

impl Score {
    #[allow(clippy::cast_precision_loss, reason = "a share for people")]
    fn agreement(&self) -> f64 {
        self.agreed as f64 / self.requests as f64
    }

    #[allow(clippy::cast_precision_loss, reason = "a mean for people")]
    fn print(&self, name: &str) {
        println!(
            "{name:14} {:7} {:9} {:9.2}% {:8} {:12} {:12.3}",
            self.routes,
            self.requests,
            self.agreement() * 100.0,
            self.labels,
            self.most_labels.saturating_sub(1),
            self.extra_labels as f64 / self.routes as f64
        );
    }

    fn add(&mut self, other: &Score) {
        self.routes += other.routes;
        self.requests += other.requests;
        self.agreed += other.agreed;
        self.labels += other.labels;
        self.extra_labels += other.extra_labels;
        self.most_labels = self.most_labels.max(other.most_labels);
    }
}

// === Requests ===

fn requests(templates: &[&Template], order: Order, popular: bool, seed: u64) -> Vec<Request> {
    let mut random = Random(seed);
    let mut by_template: Vec<Vec<Request>> = templates
        .iter()
        .map(|template| (0..REQUESTS).map(|_| expand(template, popular, &mut random)).collect())
        .collect();
    match order {
        Order::OneRouteAfterAnother => {
            random.shuffle(&mut by_template);
            by_template.into_iter().flatten().collect()
        }
        Order::RoundRobin => {
            let mut requests = Vec::new();
            while by_template.iter().any(|left| !left.is_empty()) {
                requests.extend(by_template.iter_mut().filter_map(Vec::pop));
            }
            requests
        }
        Order::Random => {
            let mut requests: Vec<_> = by_template.into_iter().flatten().collect();
            random.shuffle(&mut requests);
            requests
        }
    }
}

fn expand(template: &Template, popular: bool, random: &mut Random) -> Request {
    let (mut path, mut route, mut truth) = (String::new(), String::new(), Vec::new());
    for piece in &template.segments {
        path.push('/');
        route.push('/');
        match piece {
            Piece::Literal(text) => {
                path.push_str(text);
                route.push_str(text);
                truth.push(Truth::Literal(text.clone()));
            }
            Piece::Values(values, end) => {
                let start = path.len();
                for (before, kind) in values {
                    path.push_str(before);
                    let one_of_few = popular && !kind.starts_with("enum:") && random.below(2) == 0;
                    let value = if one_of_few {
                        value(kind, &mut Random(random.next() % POPULAR))
                    } else {
                        value(kind, random)
                    };
                    path.push_str(&value);
                }
                path.push_str(end);
                if values.iter().all(|(_, kind)| kind.starts_with("enum:")) {
                    route.push_str(&path[start..]);
                    truth.push(Truth::Either(path[start..].to_owned()));
                } else {
                    route.push_str("{}");
                    truth.push(Truth::Parameter);
                }
            }
        }
    }
    if path.is_empty() {
        path.push('/');
    }
    Request { path, truth, route }
}

/// Words that people name things with.
const ADJECTIVES: &[&str] = &[
    "amber", "ancient", "bitter", "blue", "bold", "brave", "bright", "calm", "clever", "cold", "crimson", "curious",
    "dark", "eager", "early", "fancy", "fast", "gentle", "golden", "grand", "green", "happy", "hidden", "humble",
    "icy", "jolly", "kind", "late", "little", "lively", "lucky", "mellow", "misty", "noble", "odd", "old", "plain",
    "proud", "purple", "quiet", "rapid", "red", "royal", "rustic", "shiny", "silent", "silver", "small", "snowy",
    "solid", "still", "sunny", "swift", "tiny", "wild", "wise", "young", "zesty",
];
const NOUNS: &[&str] = &[
    "api",
    "app",
    "backend",
    "badger",
    "bakery",
    "beacon",
    "bot",
    "bridge",
    "cache",
    "castle",
    "client",
    "cloud",
    "cluster",
    "core",
    "crawler",
    "dashboard",
    "desk",
    "engine",
    "falcon",
    "field",
    "forest",
    "frontend",
    "garden",
    "gateway",
    "harbor",
    "heron",
    "island",
    "kernel",
    "lab",
    "lake",
    "lantern",
    "library",
    "market",
    "meadow",
    "mirror",
    "monitor",
    "mountain",
    "otter",
    "parser",
    "pipeline",
    "planet",
    "portal",
    "proxy",
    "queue",
    "river",
    "robot",
    "router",
    "runner",
    "scheduler",
    "server",
    "shop",
    "site",
    "station",
    "storm",
    "studio",
    "tools",
    "tower",
    "tracker",
    "valley",
    "website",
    "worker",
    "workshop",
];
const SYLLABLES: &[&str] = &[
    "an", "bel", "chi", "da", "dor", "el", "fa", "gar", "hel", "in", "jo", "ka", "lan", "lu", "ma", "mir", "na", "nel",
    "or", "pa", "per", "qui", "ra", "ro", "sa", "sen", "shi", "ta", "ter", "to", "ul", "va", "vi", "wen", "xa", "yo",
    "zan",
];
const CODES: &[&str] = &[
    "en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "fi", "pl", "cs", "tr", "ja", "ko", "zh", "ar", "he", "hi",
    "ru", "en-US", "pt-BR", "zh-CN", "US", "DE", "FR", "GB", "USD", "EUR", "JPY",
];
const DIGITS: &[u8] = b"0123456789";
const HEX: &[u8] = b"0123456789abcdef";
const UPPER: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const BASE62: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const BASE64: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";

/// A value of a kind that `corpus.py` names.
#[allow(clippy::too_many_lines, reason = "a table")]
fn value(kind: &str, random: &mut Random) -> String {
    let kebab = |random: &mut Random| format!("{}-{}", random.pick(ADJECTIVES), random.pick(NOUNS));
    match kind {
        "number" => {
            let digits = 1 + random.below(10);
            format!("{}{}", 1 + random.below(9), random.text(DIGITS, digits - 1))
        }
        "uuid" => {
            let part = |random: &mut Random, length| random.text(HEX, length);
            let (a, b, c, d) = (part(random, 8), part(random, 4), part(random, 3), part(random, 3));
            format!("{a}-{b}-4{c}-a{d}-{}", part(random, 12))
        }
        "sha" => {
            let length = if random.below(4) == 0 { 7 } else { 40 };
            random.text(HEX, length)
        }
        "hex24" => random.text(HEX, 24),
        "hex32" => random.text(HEX, 32),
        "base62" => random.text(BASE62, 22),
        "base64" => random.text(BASE64, 22),
        "prefixed" => {
            let prefix =
                *random.pick(&["cus", "ch", "pi", "acct", "sub", "in", "price", "evt", "pm", "card", "si", "tok"]);
            let length = 14 + random.below(11);
            format!("{prefix}_{}", random.text(BASE62, length))
        }
        "code" => format!("{}{}", random.pick(&["CO", "ME", "ST", "SE"]), random.text(UPPER, 22)),
        "serial" => match random.below(3) {
            0 => format!("Q2{}-{}-{}", random.text(UPPER, 2), random.text(UPPER, 4), random.text(UPPER, 4)),
            1 => format!("N_{}", random.text(DIGITS, 18)),
            _ => format!("L_{}", random.text(DIGITS, 18)),
        },
        "date" => format!("20{}-{:02}-{:02}", 10 + random.below(20), 1 + random.below(12), 1 + random.below(28)),
        "time" => format!("{}T{:02}:{:02}:00Z", value("date", random), random.below(24), random.below(60)),
        "ip" => format!("{}.{}.{}.{}", 1 + random.below(254), random.below(256), random.below(256), random.below(256)),
        "email" => {
            let at = if random.below(2) == 0 { "@" } else { "%40" };
            format!("{}{at}{}.com", random.name(), random.name())
        }
        "issue" => format!("{}-{}", random.name().to_uppercase(), 1 + random.below(5000)),
        "project" => match random.below(2) {
            0 => (10_000 + random.below(5000)).to_string(),
            _ => random.name().to_uppercase(),
        },
        "release" => format!("v{}.{}.{}", random.below(9), random.below(30), random.below(30)),
        "code2" => (*random.pick(CODES)).to_owned(),
        "user" => match random.below(10) {
            0..=5 => random.name(),
            6 | 7 => format!("{}{}", random.name(), 1 + random.below(99)),
            _ => kebab(random),
        },
        "slug" => match random.below(20) {
            0..=6 => kebab(random),
            7..=11 => random.name(),
            12..=14 => format!("{}_{}", random.name(), random.pick(NOUNS)),
            15 | 16 => format!("{}.{}", random.name(), random.pick(&["js", "io", "site", "net"])),
            _ => format!("{}-{}", random.pick(NOUNS), 1 + random.below(40)),
        },
        "branch" => match random.below(10) {
            0..=2 => (*random.pick(&["main", "master", "develop"])).to_owned(),
            3..=5 => format!("feature%2F{}", kebab(random)),
            6 | 7 => random.text(HEX, 40),
            _ => kebab(random),
        },
        "label" => match random.below(4) {
            0 => format!("{}%20{}", random.pick(ADJECTIVES), random.pick(NOUNS)),
            1 => format!("v{}.{}.{}", random.below(9), random.below(30), random.below(30)),
            _ => random.name(),
        },
        "file" => match random.below(3) {
            0 => format!("src%2F{}.rs", random.name()),
            1 => format!("{}.{}", random.name(), random.pick(&["md", "json", "txt", "yaml"])),
            _ => format!("docs%2F{}%2F{}.md", random.name(), random.name()),
        },
        "kubernetes" => match random.below(10) {
            0..=3 => kebab(random),
            4..=6 => format!(
                "{}-{}-{}",
                kebab(random),
                random.text(b"0123456789bcdf", 10),
                random.text(b"2456789bcdfghjklm", 5)
            ),
            7 => format!("{}-{}", kebab(random), random.below(5)),
            _ => random.name(),
        },
        "namespace" => match random.below(10) {
            0 => "default".to_owned(),
            1 => "kube-system".to_owned(),
            2..=5 => kebab(random),
            _ => random.name(),
        },
        "container" => match random.below(10) {
            0..=2 => random.text(HEX, 12),
            3..=5 => random.text(HEX, 64),
            _ => format!("{}_{}", random.pick(ADJECTIVES), random.name()),
        },
        _ => {
            if let Some(values) = kind.strip_prefix("enum:") {
                let values: Vec<_> = values.split('|').collect();
                return (*random.pick(&values)).to_owned();
            }
            let prefix = kind.strip_prefix("sid:").unwrap_or_else(|| panic!("no such kind of value: {kind}"));
            format!("{prefix}{}", random.text(HEX, 32))
        }
    }
}

// === The corpus ===

fn corpus() -> Vec<Template> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/corpus/routes.tsv");
    let text =
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}; `make setup` makes it", file.display()));
    text.lines()
        .map(|line| {
            let fields: Vec<_> = line.split('\t').collect();
            let [interface, group, template, kinds] = fields[..] else { panic!("not four fields: {line}") };
            let mut kinds = kinds.split(' ');
            let segments = template
                .split('/')
                .filter(|segment| !segment.is_empty())
                .map(|segment| piece(segment, &mut kinds))
                .collect();
            Template { interface: interface.to_owned(), group: group.to_owned(), text: template.to_owned(), segments }
        })
        .collect()
}

fn piece<'a>(segment: &str, kinds: &mut impl Iterator<Item = &'a str>) -> Piece {
    let (mut values, mut rest) = (Vec::new(), segment);
    while let Some((before, after)) = rest.split_once('{') {
        let (_, after) = after.split_once('}').unwrap_or_else(|| panic!("no closing brace: {segment}"));
        values.push((before.to_owned(), kinds.next().unwrap_or_else(|| panic!("no kind: {segment}")).to_owned()));
        rest = after;
    }
    if values.is_empty() { Piece::Literal(segment.to_owned()) } else { Piece::Values(values, rest.to_owned()) }
}

/// splitmix64: the same requests for a seed everywhere, in ten lines.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[allow(clippy::cast_possible_truncation, reason = "below the bound")]
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    fn text(&mut self, alphabet: &[u8], length: usize) -> String {
        (0..length).map(|_| char::from(*self.pick(alphabet))).collect()
    }

    /// A word that can be said: one of some 50,000.
    fn name(&mut self) -> String {
        (0..2 + self.below(2)).map(|_| *self.pick(SYLLABLES)).collect()
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.below(at + 1));
        }
    }
}
