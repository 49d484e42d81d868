//! The fuzz targets without a fuzzer: every seed of their corpora, and mutations of them that are the same each time.
//!
//! `make fuzz` runs the same bodies guided by coverage, and finds far more; this keeps them, and what was found once,
//! true.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use tokio::time::Instant;

/// Mutations end after so long, whatever is left, so that a busy machine takes no longer.
const TIME: Duration = Duration::from_secs(3);
/// Mutations of one target, at most.
const MUTATIONS: usize = 3000;
/// All seeds together: they are read by people, and are in every clone.
const CORPUS_BYTES: u64 = 300 << 10;

thread_local! {
    /// What panicked on this thread while a body ran: inside of a runtime, a panic of a task would be its end and no more.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static RUNS: Cell<bool> = const { Cell::new(false) };
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The seeds of a target: name and bytes, in the order of their names.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = root().join("corpus").join(target);
    let listing = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<_> = listing
        .map(|entry| entry.expect("a readable folder").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a readable file")))
        .collect();
    seeds.sort();
    seeds
}

/// Runs a body on an input; what is wrong, if anything is.
fn run(body: fn(&[u8]), input: &[u8]) -> Result<(), String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |what| match RUNS.get() {
            true => PANICS.with_borrow_mut(|panics| panics.push(what.to_string())),
            false => others(what),
        }));
    });
    RUNS.set(true);
    let ended = panic::catch_unwind(AssertUnwindSafe(|| body(input)));
    RUNS.set(false);
    let panics = PANICS.take();
    if ended.is_ok() && panics.is_empty() { Ok(()) } else { Err(panics.join("\n")) }
}

/// A generator of numbers that are the same each time (Knuth's multiplier; the high bits are good enough).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % end.max(1)
    }
}

/// Changes an input in one to four places: a bit, a byte, a piece that is left out, doubled, or taken from elsewhere, and
/// words that mean something.
fn mutated(seed: &[u8], other: &[u8], words: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut input = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + 1 + random.below(24)).min(input.len());
        match random.below(7) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = u8::try_from(random.below(256)).unwrap_or(0),
            2 => drop(input.drain(at.min(end)..end)),
            3 => {
                let piece = input[at.min(end)..end].to_vec();
                input.splice(at..at, piece);
            }
            4 => {
                let from = random.below(other.len() + 1);
                let to = (from + random.below(64)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            5 => input.truncate(at.max(input.len() / 2)),
            _ => drop(input.splice(at..at, words[random.below(words.len())].iter().copied())),
        }
    }
    input
}

/// Runs the seeds of a target, then mutations of them.
fn smoke(name: &str) {
    let (_, body) = targets::TARGETS.iter().find(|(own, _)| *own == name).expect("it is one of the targets");
    let seeds = seeds(name);
    let failed = |what: &str, input: &[u8], why: &str| -> ! {
        panic!("{what} breaks {name}: {why}\ninput: {}", input.escape_ascii());
    };
    for (file, seed) in &seeds {
        if let Err(why) = run(*body, seed) {
            failed(file, seed, &why);
        }
    }
    let dictionary = fs::read_to_string(root().join("dictionary")).expect("a readable file");
    let words: Vec<Vec<u8>> = dictionary.lines().filter_map(word).collect();
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let begun = Instant::now();
    let mut random = Random(1);
    let mut inputs = 0;
    while inputs < MUTATIONS && begun.elapsed() < TIME {
        let (file, seed) = &seeds[random.below(seeds.len())];
        let (_, other) = &seeds[random.below(seeds.len())];
        let input = mutated(seed, other, &words, &mut random);
        if let Err(why) = run(*body, &input) {
            failed(&format!("mutation {inputs}, of {file},"), &input, &why);
        }
        inputs += 1;
    }
    println!("{name}: {} seeds and {inputs} mutations in {:?}", seeds.len(), begun.elapsed());
    assert!(inputs > 0, "no time for a single mutation");
}

/// A word of libFuzzer's dictionary: `"text"` with `\xAB`, `\\` and `\"`.
fn word(line: &str) -> Option<Vec<u8>> {
    let inside = line.strip_prefix('"')?.strip_suffix('"')?;
    let mut word = Vec::new();
    let mut rest = inside.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).expect("a hexadecimal digit");
                word.push(u8::try_from(digit(high) << 4 | digit(low)).expect("two digits are a byte"));
                after
            }
            (b'\\', [escaped, after @ ..]) => {
                word.push(*escaped);
                after
            }
            _ => {
                word.push(*first);
                after
            }
        };
    }
    Some(word)
}

#[test]
fn requests_end_to_end_keep_their_promises() {
    smoke("request_path");
}

#[test]
fn heads_and_chunks_are_read_in_one_way() {
    smoke("heads");
}

#[test]
fn a_proxy_header_is_the_same_in_any_pieces() {
    smoke("proxy_header");
}

#[test]
fn documents_are_templates_or_a_sentence() {
    smoke("openapi");
}

#[test]
fn configuration_files_come_back_as_they_are_shown() {
    smoke("config_file");
}

#[test]
fn learned_routes_stay_within_their_bounds() {
    smoke("learned_routes");
}

#[test]
fn pages_say_the_same_in_every_format() {
    smoke("exposition");
}

#[test]
fn json_is_read_as_others_read_it() {
    smoke("json_pointer");
}

#[test]
fn every_target_has_a_binary_a_test_and_seeds_and_no_seed_is_for_nothing() {
    let names: BTreeSet<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let tests = fs::read_to_string(file!()).unwrap();
    let mut bytes = 0;
    for name in &names {
        assert!(manifest.contains(&format!("\nname = \"{name}\"\npath = \"targets/{name}.rs\"\n")), "{name}");
        let source = fs::read_to_string(root().join("targets").join(format!("{name}.rs"))).unwrap();
        assert!(source.contains(&format!("golden_sidecar_fuzz::{name}::run(input)")), "{name}");
        assert!(tests.contains(&format!("smoke(\"{name}\")")), "{name}");
        let seeds = seeds(name);
        assert!(seeds.len() >= 3, "{name} has {} seeds", seeds.len());
        bytes += seeds.iter().map(|(_, seed)| seed.len() as u64).sum::<u64>();
    }
    assert!(bytes <= CORPUS_BYTES, "the seeds are {bytes} bytes");
    for entry in fs::read_dir(root().join("corpus")).unwrap() {
        let folder = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&folder.as_str()), "corpus/{folder} is of no target");
    }
}

#[test]
fn a_body_that_panics_is_a_failure_with_its_words() {
    let at_once = run(|input| assert!(input.is_empty(), "found it"), b"x");
    let in_a_task = run(
        |_| {
            let runtime = tokio::runtime::Builder::new_current_thread().build_local(Default::default()).unwrap();
            runtime.block_on(async { tokio::task::spawn_local(async { panic!("in a task") }).await.unwrap_err() });
        },
        b"",
    );
    assert!(at_once.unwrap_err().contains("found it"));
    assert!(in_a_task.unwrap_err().contains("in a task"));
    assert_eq!(run(|_| {}, b""), Ok(()));
    assert_eq!(word(r#""a\x0d\x0a\"""#), Some(b"a\r\n\"".to_vec()));
}
