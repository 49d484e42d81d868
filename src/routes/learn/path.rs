//! Paths and templates, taken apart.

use super::{LONGEST_TEMPLATE, MOST_SEGMENTS};
use crate::routes::segment::{self, Class};

/// A segment of a path, and what it looks like. The rest of a path that is too deep holds slashes and is odd.
pub(super) struct Segment<'a> {
    pub(super) text: &'a [u8],
    pub(super) class: Class,
    pub(super) rest: bool,
}

impl Segment<'_> {
    /// Its text if that may be a part of the interface.
    pub(super) fn word(&self) -> Option<&str> {
        matches!(self.class, Class::Word(_) | Class::Name).then(|| std::str::from_utf8(self.text).ok()).flatten()
    }

    pub(super) fn parameter(&self) -> &'static str {
        if self.rest { segment::REST } else { self.class.parameter() }
    }
}

/// The part of a path that is looked at: no query, neither the first slash nor a last one.
pub(super) fn trim(path: &[u8]) -> Option<&[u8]> {
    let path = memchr::memchr(b'?', path).map_or(path, |at| &path[..at]);
    let path = path.strip_prefix(b"/")?;
    Some(path.strip_suffix(b"/").unwrap_or(path))
}

/// The first segment, and what follows it if anything does.
pub(super) fn first(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'/', path) {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

/// The segments of a path; none if it does not begin with a slash.
pub(super) fn split(path: &[u8]) -> Option<Vec<Segment<'_>>> {
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
pub(super) enum Part {
    Literal(Box<str>),
    Param(&'static str),
}

/// The parts of a template; none if it is not one that could have been learned.
pub(super) fn parse(template: &str) -> Option<Vec<Part>> {
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
pub(super) fn is_version_number(text: &[u8], class: Class) -> bool {
    match class {
        Class::Number => text.len() <= 2 && text[0] != b'-',
        Class::Decimal | Class::Date => text.len() <= 10,
        _ => false,
    }
}
