//! The reader that looks for one value in the beginning of a JSON document: of a whole one it says what a whole reader
//! says, and of a beginning never more.
//!
//! Shape: the pointer, a line end, the document.

use golden_sidecar::proxy::pointer::leads_somewhere;
use serde_json::Value;

/// One input.
///
/// # Panics
/// When a promise is broken.
pub fn run(input: &[u8]) {
    let (pointer, document) = super::part(input, b'\n');
    let Ok(pointer) = std::str::from_utf8(pointer) else { return };
    let found = leads_somewhere(document, pointer);
    // As the configuration takes it: empty, or with a slash in front; `~` before 0 and 1 only.
    let well_formed = pointer.is_empty() || pointer.starts_with('/');
    let escapes = pointer.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if !(well_formed && escapes) {
        return;
    }
    let Ok(value) = serde_json::from_slice::<Value>(document) else { return };
    // Of a name that comes twice serde_json takes the last, this reader the first; written again, it comes once.
    let text = value.to_string();
    let expected = value.pointer(pointer).is_some_and(|value| !value.is_null());
    assert_eq!(leads_somewhere(text.as_bytes(), pointer), expected, "{pointer:?} in {text}");
    if text.len() == document.iter().filter(|byte| !byte.is_ascii_whitespace()).count() {
        assert_eq!(found, expected, "{pointer:?} in {}", super::wire::shown(document));
    }
    for cut in 0..text.len().min(200) {
        assert!(expected || !leads_somewhere(&text.as_bytes()[..cut], pointer), "{pointer:?} in {}", &text[..cut]);
    }
}
