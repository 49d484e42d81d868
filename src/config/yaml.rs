//! YAML text becomes a tree of scalars, lists and maps that knows its line numbers. The one place of this
//! room that names the YAML library, so that it can be exchanged.
//!
//! Source: YAML 1.2, core schema; merge keys and anchors work.
//! Shape:  scalars stay the text that was written (`0.10` is not `0.1`): their meaning depends on the key, not on
//!         how YAML would type them, and so file, environment and flags are read by the same code.
//! Absent: an empty document is `Null`, as are `~`, `null` and a key without a value.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{MessageFormatter, Spanned, UserMessageFormatter};

/// A value and the line it starts in, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Line in the file, from 1; 0 when the library does not say.
    pub line: u64,
    /// What is there.
    pub value: Value,
}

/// What YAML can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing given.
    Null,
    /// A scalar as it was written, without quotes.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A map in the order written; a key may be there twice, the reader says so.
    Map(Vec<(String, Node)>),
}

/// Why a text is not YAML.
#[derive(Debug)]
pub(super) struct SyntaxError {
    /// Line of the fault, from 1, if known.
    pub line: Option<u64>,
    /// The library's words on one line.
    pub message: String,
}

/// Reads one document.
///
/// # Errors
/// When the text is not YAML, holds several documents, or exceeds the library's budget for anchors and nesting.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        // The reader refuses repeated keys itself, with their full path.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // Found values are shown as they were written, `.inf` included; the key's own check refuses them.
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        // Errors are one sentence, and a snippet could show a secret.
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Option<Spanned<Parsed>>>(text, options) {
        Ok(Some(parsed)) => Ok(parsed_to_node(parsed, text)),
        Ok(None) => Ok(Node { line: 1, value: Value::Null }),
        Err(error) => Err(SyntaxError {
            line: error.location().map(|location| location.line()).filter(|line| *line > 0),
            message: UserMessageFormatter
                .format_message(error.without_snippet())
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        }),
    }
}

/// A value as the library gives it. Whatever YAML typed is `Typed`: its spelling is taken from the text afterwards.
enum Parsed {
    Null,
    Text(String),
    /// A number or boolean; the text is only a stand-in for when the spelling cannot be found.
    Typed(String),
    List(Vec<Spanned<Parsed>>),
    Map(Vec<(String, Spanned<Parsed>)>),
}

fn parsed_to_node(spanned: Spanned<Parsed>, text: &str) -> Node {
    let value = match spanned.value {
        Parsed::Null => Value::Null,
        Parsed::Text(scalar) => Value::Scalar(scalar),
        Parsed::Typed(stand_in) => {
            let span = spanned.defined.span();
            let spelling = span
                .byte_offset()
                .zip(span.byte_len())
                .and_then(|(start, length)| {
                    let start = usize::try_from(start).ok()?;
                    text.get(start..start.checked_add(usize::try_from(length).ok()?)?)
                })
                .map(str::trim)
                // A tag or an anchor may belong to the span; then the stand-in is the better text.
                .filter(|spelling| spelling.starts_with(|c: char| c.is_ascii_alphanumeric() || "+-.".contains(c)));
            Value::Scalar(spelling.map_or(stand_in, str::to_owned))
        }
        Parsed::List(items) => Value::List(items.into_iter().map(|item| parsed_to_node(item, text)).collect()),
        Parsed::Map(entries) => {
            Value::Map(entries.into_iter().map(|(key, value)| (key, parsed_to_node(value, text))).collect())
        }
    };
    Node { line: spanned.referenced.line(), value }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParsedVisitor)
    }
}

struct ParsedVisitor;

impl<'de> Visitor<'de> for ParsedVisitor {
    type Value = Parsed;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a scalar, a list or a map")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Parsed, E> {
        Ok(Parsed::Typed(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Parsed, E> {
        Ok(Parsed::Typed(value.to_string()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Parsed, E> {
        Ok(Parsed::Typed(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Parsed, E> {
        Ok(Parsed::Typed(value.to_string()))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Parsed, E> {
        Ok(Parsed::Typed(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Parsed, E> {
        Ok(Parsed::Typed(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Parsed, E> {
        Ok(Parsed::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Parsed, E> {
        Ok(Parsed::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Parsed, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Parsed::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Parsed::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::{Node, Value, parse};

    fn scalar(line: u64, text: &str) -> Node {
        Node { line, value: Value::Scalar(text.to_owned()) }
    }

    #[test]
    fn scalars_keep_their_spelling_and_their_line() {
        let text = "a: 0.10\nb: {c: 'x: y', d: 007}\ne: [true, 1_000, .inf, 0x10, 1e3]\nf:\n  - g: ~\n";
        let expected = Value::Map(vec![
            ("a".into(), scalar(1, "0.10")),
            (
                "b".into(),
                Node {
                    line: 2,
                    value: Value::Map(vec![("c".into(), scalar(2, "x: y")), ("d".into(), scalar(2, "007"))]),
                },
            ),
            (
                "e".into(),
                Node {
                    line: 3,
                    value: Value::List(
                        ["true", "1_000", ".inf", "0x10", "1e3"].iter().map(|text| scalar(3, text)).collect(),
                    ),
                },
            ),
            (
                "f".into(),
                Node {
                    line: 5,
                    value: Value::List(vec![Node {
                        line: 5,
                        value: Value::Map(vec![("g".into(), Node { line: 5, value: Value::Null })]),
                    }]),
                },
            ),
        ]);
        assert_eq!(parse(text).expect("valid YAML").value, expected);
    }

    #[test]
    fn empty_documents_are_null_and_broken_ones_name_their_line() {
        assert_eq!(parse("").expect("valid YAML").value, Value::Null);
        assert_eq!(parse("# only a comment\n").expect("valid YAML").value, Value::Null);
        let error = parse("a: 1\nb: [1, 2\nc: 3\n").expect_err("the list is not closed");
        eprintln!("{error:?}");
        assert_eq!(error.line, Some(3));
        let error = parse("a: 1\n---\nb: 2\n").expect_err("two documents");
        eprintln!("{error:?}");
    }
}
