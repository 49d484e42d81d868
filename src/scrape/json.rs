//! Single numbers of a JSON document.
//!
//! Source: RFC 8259 (JSON), RFC 6901 (pointers).
//! Shape:  a pointer is empty or a sequence of `/token`; in a token `~1` is `/` and `~0` is `~`.
//! Absent: a pointer that leads nowhere, or to `null`. A text that looks like a number is not taken for one.
//!
//! The document is walked as it is read and never stands in memory as a tree: of a tree, a page of a few megabytes could
//! make hundreds.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What a pointer leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Found {
    /// Nothing, or `null`.
    #[default]
    Absent,
    /// A number.
    Number(f64),
    /// Something else.
    Other,
}

/// What each pointer leads to, in their order. A key that comes twice counts as it comes last.
///
/// # Errors
/// When the bytes are not one JSON document of at most 128 levels.
pub fn find(document: &[u8], pointers: &[&str]) -> Result<Vec<Found>, serde_json::Error> {
    let paths: Vec<Option<Vec<String>>> = pointers.iter().map(|pointer| tokens(pointer)).collect();
    let mut found = vec![Found::Absent; pointers.len()];
    let wanted = paths.iter().enumerate().filter_map(|(at, path)| Some((at, path.as_deref()?))).collect();
    let mut reader = serde_json::Deserializer::from_slice(document);
    Walk { wanted, found: &mut found }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(found)
}

/// The tokens of a pointer, escapes taken off; `None`: it is none.
fn tokens(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let tokens = pointer.strip_prefix('/')?.split('/');
    Some(tokens.map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
}

/// One value of the document: who looks for something in it, with the tokens that are left.
struct Walk<'p, 'f> {
    wanted: Vec<(usize, &'p [String])>,
    found: &'f mut [Found],
}

// === impl Walk ===

impl<'p> Walk<'p, '_> {
    /// This is what is here: for those whose path has ended it is what they look for.
    fn here(&mut self, what: Found) {
        for (at, left) in &self.wanted {
            self.found[*at] = if left.is_empty() { what } else { Found::Absent };
        }
    }

    /// Those whose path goes on through this member.
    fn through(&self, member: &str) -> Vec<(usize, &'p [String])> {
        let through = self.wanted.iter().filter_map(|(at, left)| {
            let (first, left) = left.split_first()?;
            (first == member).then_some((*at, left))
        });
        through.collect()
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.here(Found::Absent);
        Ok(())
    }

    fn visit_bool<E>(mut self, _: bool) -> Result<(), E> {
        self.here(Found::Other);
        Ok(())
    }

    fn visit_str<E>(mut self, _: &str) -> Result<(), E> {
        self.here(Found::Other);
        Ok(())
    }

    fn visit_i64<E>(mut self, value: i64) -> Result<(), E> {
        self.here(Found::Number(value as f64));
        Ok(())
    }

    fn visit_u64<E>(mut self, value: u64) -> Result<(), E> {
        self.here(Found::Number(value as f64));
        Ok(())
    }

    fn visit_f64<E>(mut self, value: f64) -> Result<(), E> {
        self.here(Found::Number(value));
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.here(Found::Other);
        while let Some(name) = members.next_key::<String>()? {
            let wanted = self.through(&name);
            if wanted.is_empty() {
                members.next_value::<IgnoredAny>()?;
            } else {
                members.next_value_seed(Walk { wanted, found: self.found })?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        self.here(Found::Other);
        for index in 0_usize.. {
            let wanted = self.through(itoa::Buffer::new().format(index));
            let more = if wanted.is_empty() {
                elements.next_element::<IgnoredAny>()?.is_some()
            } else {
                elements.next_element_seed(Walk { wanted, found: self.found })?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_pointer_finds_its_own_number() {
        let document = br#" {"a": {"b": [10, {"c": 11.5}, -12], "b~/": 13, "": 14}, "n": null, "s": "15", "t": true,
            "huge": 18446744073709551615, "twice": 16, "twice": 17, "objects": {"x": 1}, "objects": "gone"} "#;
        let cases = [
            ("/a/b/0", Found::Number(10.0)),
            ("/a/b/1/c", Found::Number(11.5)),
            ("/a/b/2", Found::Number(-12.0)),
            ("/a/b~0~1", Found::Number(13.0)),
            ("/a/", Found::Number(14.0)),
            ("/twice", Found::Number(17.0)),
            ("/huge", Found::Number(18_446_744_073_709_551_615.0)),
            ("/n", Found::Absent),
            ("/n/x", Found::Absent),
            ("/a/b/3", Found::Absent),
            ("/a/b/00", Found::Absent),
            ("/a/b/-", Found::Absent),
            ("/a/b/0/x", Found::Absent),
            ("/objects/x", Found::Absent),
            ("a", Found::Absent),
            ("/s", Found::Other),
            ("/t", Found::Other),
            ("/a", Found::Other),
            ("/a/b", Found::Other),
            ("", Found::Other),
        ];
        let pointers: Vec<&str> = cases.iter().map(|(pointer, _)| *pointer).collect();
        let found = find(document, &pointers).unwrap();
        for ((pointer, expected), found) in cases.iter().zip(found) {
            assert_eq!(found, *expected, "{pointer}");
        }
        assert_eq!(find(b"18.5", &["", "/x"]).unwrap(), [Found::Number(18.5), Found::Absent]);
    }

    #[test]
    fn what_is_not_one_document_is_refused() {
        let deep = "[".repeat(100_000);
        for document in ["", "{", "{}{}", "{\"a\":01}", "{\"a\":NaN}", "a 1\n", "[1,]", &deep] {
            assert!(find(document.as_bytes(), &["/a"]).is_err(), "{}", &document[..document.len().min(20)]);
        }
        assert!(find(b"{\"a\":\"\xff\"}", &["/a"]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_and_the_tree_would_say_the_same(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            text in "[\\[\\]{}:,0-9a\"n. ]{0,40}",
        ) {
            let pointers = ["", "/a", "/0", "/0/0", "/a/a", "/a/0", "/1"];
            for document in [&bytes[..], text.as_bytes()] {
                let found = find(document, &pointers);
                let tree: Result<serde_json::Value, _> = serde_json::from_slice(document);
                // A repeated key may hide what a tree never sees.
                prop_assert!(tree.is_err() || found.is_ok());
                let (Ok(tree), Ok(found)) = (tree, found) else { continue };
                for (pointer, found) in pointers.iter().zip(found) {
                    let expected = match tree.pointer(pointer) {
                        None | Some(serde_json::Value::Null) => Found::Absent,
                        Some(serde_json::Value::Number(number)) => Found::Number(number.as_f64().unwrap()),
                        Some(_) => Found::Other,
                    };
                    prop_assert_eq!(found, expected, "{} in {}", pointer, tree);
                }
            }
        }
    }
}
