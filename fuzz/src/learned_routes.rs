//! Routes that are learned from paths: no more labels than the limit, the same ones each time, none with a raw value
//! that is no word, and a state that is read back as what was saved.
//!
//! Shape: lines; the first is the limit, each other one a path with, behind a blank, the status of its answer (200 unless
//! told).

use std::cell::RefCell;
use std::sync::Arc;

use golden_sidecar::labels::RouteId;
use golden_sidecar::routes::{Learned, Verdict};

/// Bytes that a label may have.
const LONGEST_LABEL: usize = 256;
/// Lines of one input: enough for a place to fold several times.
const MOST_LINES: usize = 600;

#[derive(Debug, PartialEq)]
struct Lesson {
    verdicts: Vec<Verdict>,
    labels: Vec<String>,
    state: String,
}

fn learn(limit: usize, paths: &[(&[u8], bool)]) -> (Arc<Learned>, Lesson) {
    let learned = Arc::new(Learned::new(limit));
    let labels: RefCell<Vec<String>> = RefCell::default();
    let give = |name: &str| {
        let mut labels = labels.borrow_mut();
        // Numbers 0 and 1 are those of no route.
        let at = labels.iter().position(|label| label == name).unwrap_or(labels.len());
        if at == labels.len() {
            labels.push(name.to_owned());
        }
        u16::try_from(at + 2).ok().map(RouteId)
    };
    let mut verdicts = Vec::new();
    for (path, good) in paths {
        let found = learned.find(path);
        assert_eq!(learned.explain(path).route, found, "explained otherwise");
        if found.is_some() || !good {
            continue;
        }
        let verdict = learned.learn(path, &give);
        if let Verdict::Label(route) = verdict {
            let known = labels.borrow().get(usize::from(route.0) - 2).cloned();
            assert!(known.is_some(), "a label that nobody gave");
            assert_eq!(learned.find(path), Some(route), "{known:?} is not found again");
        }
        verdicts.push(verdict);
    }
    let state = learned.save();
    (learned, Lesson { verdicts, labels: labels.into_inner(), state })
}

/// One input.
///
/// # Panics
/// When a promise is broken.
pub fn run(input: &[u8]) {
    let (first, rest) = super::part(input, b'\n');
    let limit = std::str::from_utf8(first).ok().and_then(|text| text.parse::<u16>().ok()).map_or(20, usize::from);
    let paths: Vec<(&[u8], bool)> = rest
        .split(|byte| *byte == b'\n')
        .take(MOST_LINES)
        .map(|line| {
            let (path, status) = super::part(line, b' ');
            (path, !matches!(status, b"404" | b"405"))
        })
        .collect();
    let (learned, lesson) = learn(limit, &paths);
    let (_, second) = learn(limit, &paths);
    assert_eq!(second, lesson, "the same paths, learned twice");
    assert!(lesson.labels.len() <= limit, "{} labels of {limit}", lesson.labels.len());
    for label in &lesson.labels {
        assert!(label.starts_with('/') && label.len() <= LONGEST_LABEL, "{label:?}");
        assert!(!label.contains('*') && !label.contains("//"), "{label:?}");
        assert!(label.chars().all(|c| c.is_ascii_graphic()), "{label:?}");
    }
    let list = learned.list();
    assert!(list.len() <= limit);
    assert_eq!(list.len(), lesson.labels.len(), "as many are listed as were given");

    // A restart: what was learned is there again, and saves as the same.
    let restored = Learned::new(limit);
    let names: RefCell<Vec<String>> = RefCell::default();
    let give = |name: &str| {
        names.borrow_mut().push(name.to_owned());
        Some(RouteId(u16::try_from(names.borrow().len()).expect("no more than the limit") + 1))
    };
    let given = restored.restore(&lesson.state, &give).unwrap_or_else(|why| panic!("{why}: {}", lesson.state));
    let active = list.iter().filter(|route| route.retired.is_none()).count();
    assert_eq!(given, active, "restored of {}", lesson.state);
    assert_eq!(restored.save(), lesson.state, "saved again");

    // A state from anywhere.
    if let Ok(text) = std::str::from_utf8(rest) {
        let damaged = Learned::new(limit);
        let number = RefCell::new(1_u16);
        let _ = damaged.restore(text, &|_| {
            *number.borrow_mut() += 1;
            Some(RouteId(*number.borrow()))
        });
        assert!(damaged.list().len() <= limit);
    }
}
