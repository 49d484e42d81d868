//! Names that are not plain: which ones a scraper takes as they are, and what the others become.
//!
//! Source: Prometheus documentation, "UTF-8 metric and label name escaping schemes".
//! Shape:  a plain name is `[a-zA-Z_:][a-zA-Z0-9_:]*` and is the same in every scheme, as Prometheus' own libraries have
//!         it. Ours are all plain; those of a backend may be anything.

use std::fmt::Write as _;

/// What is done with a name that is not plain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escaping {
    /// Each letter that is not allowed becomes an underscore. What a scraper gets that asks for nothing.
    #[default]
    Underscores,
    /// A dot becomes `_dot_`, an underscore two, everything else two as well.
    Dots,
    /// `U__`, then each letter that is not allowed as its number: `_2e_`.
    Values,
    /// Nothing; on a text page the name is quoted.
    AllowUtf8,
}

// === impl Escaping ===

impl Escaping {
    /// The scheme of this name, as the parameter `escaping` has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Escaping> {
        [Escaping::Underscores, Escaping::Dots, Escaping::Values, Escaping::AllowUtf8]
            .into_iter()
            .find(|scheme| scheme.as_str() == name)
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Escaping::Underscores => "underscores",
            Escaping::Dots => "dots",
            Escaping::Values => "values",
            Escaping::AllowUtf8 => "allow-utf-8",
        }
    }

    /// What this name of a metric becomes.
    #[must_use]
    pub fn apply(self, name: &str) -> String {
        self.apply_to(name, true)
    }

    /// What this name of a label becomes.
    #[must_use]
    pub fn apply_to_label(self, name: &str) -> String {
        self.apply_to(name, false)
    }

    fn apply_to(self, name: &str, colons: bool) -> String {
        if self == Escaping::AllowUtf8 || plain(name, colons) {
            return name.to_owned();
        }
        let mut escaped = String::with_capacity(2 * name.len());
        if self == Escaping::Values {
            escaped.push_str("U__");
        }
        for (place, letter) in name.char_indices() {
            match (self, letter) {
                (Escaping::Dots, '.') => escaped.push_str("_dot_"),
                (Escaping::Dots | Escaping::Values, '_') => escaped.push_str("__"),
                _ if letter.is_ascii() && allowed(letter as u8, place > 0, colons) => escaped.push(letter),
                (Escaping::Values, _) => {
                    // Writing to a String cannot fail.
                    let _ = write!(escaped, "_{:x}_", u32::from(letter));
                }
                (Escaping::Dots, _) => escaped.push_str("__"),
                _ => escaped.push('_'),
            }
        }
        escaped
    }
}

/// Whether a name of a metric needs neither quotes nor escapes.
pub(super) fn is_plain(name: &str) -> bool {
    plain(name, true)
}

/// The same of a label, which has no colons.
pub(super) fn is_plain_label(name: &str) -> bool {
    plain(name, false)
}

fn plain(name: &str, colons: bool) -> bool {
    !name.is_empty() && name.bytes().enumerate().all(|(place, byte)| allowed(byte, place > 0, colons))
}

fn allowed(byte: u8, digits: bool, colons: bool) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || (colons && byte == b':') || (digits && byte.is_ascii_digit())
}

/// Appends a name of a metric, in quotes if it needs them.
pub(super) fn push_name(out: &mut Vec<u8>, name: &str) {
    push(out, name, is_plain(name));
}

/// The same for a label.
pub(super) fn push_label_name(out: &mut Vec<u8>, name: &str) {
    push(out, name, is_plain_label(name));
}

fn push(out: &mut Vec<u8>, name: &str, plain: bool) {
    if plain {
        out.extend_from_slice(name.as_bytes());
    } else {
        out.push(b'"');
        super::encoder::push_quoted(out, name);
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Escaping::{AllowUtf8, Dots, Underscores, Values};
    use super::*;

    #[test]
    fn each_scheme_has_its_way() {
        for (name, underscores, dots, values) in [
            ("plain_name:x1", "plain_name:x1", "plain_name:x1", "plain_name:x1"),
            ("a.b_c", "a_b_c", "a_dot_b__c", "U__a_2e_b__c"),
            (
                "metric.name/with/slashes",
                "metric_name_with_slashes",
                "metric_dot_name__with__slashes",
                "U__metric_2e_name_2f_with_2f_slashes",
            ),
            ("1st", "_st", "__st", "U___31_st"),
            ("温度", "__", "____", "U___6e29__5ea6_"),
            ("a b", "a_b", "a__b", "U__a_20_b"),
        ] {
            let all = [Underscores, Dots, Values, AllowUtf8].map(|scheme| scheme.apply(name));
            assert_eq!(all, [underscores, dots, values, name]);
        }
        let label = [Underscores, Dots, Values, AllowUtf8].map(|scheme| scheme.apply_to_label("a:b"));
        assert_eq!(label, ["a_b", "a__b", "U__a_3a_b", "a:b"]);
    }

    #[test]
    fn schemes_are_found_by_their_names() {
        for scheme in [Underscores, Dots, Values, AllowUtf8] {
            assert_eq!(Escaping::named(scheme.as_str()), Some(scheme));
        }
        assert_eq!(Escaping::named("allow-utf8"), None);
    }

    proptest! {
        #[test]
        fn an_escaped_name_is_plain(name in ".{1,12}") {
            for scheme in [Underscores, Dots, Values] {
                prop_assert!(is_plain(&scheme.apply(&name)), "{:?}", scheme.apply(&name));
                prop_assert!(is_plain_label(&scheme.apply_to_label(&name)), "{:?}", scheme.apply_to_label(&name));
            }
        }
    }
}
