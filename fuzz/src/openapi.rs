//! OpenAPI and Swagger documents: any bytes are templates or one sentence, and the templates make a table of routes
//! whose labels are fit for a metrics page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use golden_sidecar::labels::{Method, RouteId, RouteKind};
use golden_sidecar::routes::openapi::import;
use golden_sidecar::routes::{Ids, RouteTable};

/// Gives every label the next number.
#[derive(Debug)]
struct Numbers(AtomicU16);

impl Ids for Numbers {
    fn declared(&self, _: &str, _: Option<&[f64]>) -> RouteId {
        RouteId(self.0.fetch_add(1, Relaxed))
    }

    fn first_used(&self, _: &str, _: RouteKind) -> Option<RouteId> {
        Some(RouteId(self.0.fetch_add(1, Relaxed)))
    }
}

/// One input: a document.
///
/// # Panics
/// When a promise is broken.
pub fn run(input: &[u8]) {
    let found = import(input);
    assert_eq!(import(input), found, "the same document twice");
    let found = match found {
        Ok(found) => found,
        Err(why) => {
            let why = why.to_string();
            // It goes to a terminal, behind a name.
            assert!(!why.is_empty() && !why.chars().any(char::is_control), "{why:?}");
            return;
        }
    };
    for note in found.notes.kept() {
        assert!(!note.chars().any(char::is_control), "{note:?}");
    }
    for (at, template) in found.templates.iter().enumerate() {
        assert!(template.path.starts_with('/'), "{:?}", template.path);
        let twice = found.templates[..at].iter().any(|other| other.path == template.path);
        assert!(!twice, "{:?} comes twice", template.path);
    }
    let ids = Arc::new(Numbers(AtomicU16::new(2)));
    let table = RouteTable::new(&[], &found.templates, None, ids).expect("imported templates conflict with nothing");
    for (label, route) in table.imported() {
        assert!(label.starts_with('/') && !label.contains('*'), "{label:?}");
        assert!(!label.chars().any(char::is_control), "{label:?}");
        assert_eq!(route, None, "{label:?} has had no request");
    }
    // Looked up as if it were a path, a template is found, or left out with a note; no path is a problem.
    for template in &found.templates {
        let path = template.path.as_bytes();
        for method in [Method::Get, Method::Other] {
            let found = table.find(method, path);
            assert_eq!(table.find(method, path), found, "{:?}", template.path);
            assert!(!found.unknown);
        }
    }
    for line in input.split(|byte| *byte == b'\n').take(64) {
        let _ = table.find(Method::Post, line);
        let _ = table.explain(Method::Post, line);
    }
}
