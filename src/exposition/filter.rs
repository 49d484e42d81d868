//! `?name[]=`: a page of a few families only.
//!
//! Shape:  a query like `name[]=up&name[]=x_bucket`, as client libraries of Prometheus take it; percent escapes and `+` for
//!         a blank as in forms. What else is in the query is not looked at here.

use std::fmt;
use std::sync::Arc;

/// Names in one query. A dashboard asks for a handful; who wants more than this wants the page.
const NAMES_MAX: usize = 100;
/// Bytes of a name. The longest on our page has 50; a backend's may be twice as long.
const NAME_BYTES_MAX: usize = 256;

/// Which families are wanted: all, or those that have one of these names or a series of this name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Sorted, none twice, so that two that mean the same are the same.
    names: Option<Arc<[String]>>,
}

/// Why a query is refused; the texts are for whoever wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadQuery {
    /// Too many names.
    Names,
    /// A name that is too long.
    Length,
    /// A broken escape.
    Escape,
}

// === impl Filter ===

impl Filter {
    /// Reads the query of a request.
    ///
    /// # Errors
    /// When a name cannot be read, or there is too much of something.
    pub fn read(query: &str) -> Result<Filter, BadQuery> {
        let mut names = Vec::new();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if decode(key).as_deref() != Some("name[]") {
                continue;
            }
            if names.len() == NAMES_MAX {
                return Err(BadQuery::Names);
            }
            let name = decode(value).ok_or(BadQuery::Escape)?;
            if name.len() > NAME_BYTES_MAX {
                return Err(BadQuery::Length);
            }
            names.push(name);
        }
        names.sort_unstable();
        names.dedup();
        Ok(Filter { names: (!names.is_empty()).then(|| names.into()) })
    }

    /// Whether a family with these names, its own and those of its series, is wanted.
    pub(super) fn takes<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> bool {
        let Some(wanted) = &self.names else { return true };
        names.into_iter().any(|name| wanted.binary_search_by(|known| known.as_str().cmp(name.as_ref())).is_ok())
    }

    /// Whether all families are wanted.
    pub(super) fn is_open(&self) -> bool {
        self.names.is_none()
    }
}

// === impl BadQuery ===

impl fmt::Display for BadQuery {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadQuery::Names => write!(out, "name[]: more than {NAMES_MAX} names; ask for all and pick from them"),
            BadQuery::Length => write!(out, "name[]: a name of more than {NAME_BYTES_MAX} bytes"),
            BadQuery::Escape => {
                write!(out, "name[]: a percent sign without two hexadecimal digits, or bytes that are not UTF-8")
            }
        }
    }
}

impl std::error::Error for BadQuery {}

/// A part of a query with its escapes taken off.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(digits[0])? << 4 | digit(digits[1])?).ok()?
            }
            b'+' => b' ',
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(query: &str) -> Vec<String> {
        Filter::read(query).unwrap().names.map_or_else(Vec::new, |names| names.to_vec())
    }

    #[test]
    fn names_are_found_among_other_things_however_they_are_spelled() {
        for (query, expected) in [
            ("", &[][..]),
            ("include=backend", &[]),
            ("name=x&names[]=y&name[]x=z", &[]),
            ("name[]=a", &["a"]),
            ("name%5B%5D=a", &["a"]),
            ("n%61me%5b]=%61%5f", &["a_"]),
            ("name[]=b&include=backend&name[]=a&name[]=b", &["a", "b"]),
            ("name[]=a+b%26c", &["a b&c"]),
            ("name[]=%E6%B8%A9", &["温"]),
            ("name[]", &[""]),
            ("name[]=a=b", &["a=b"]),
            ("%=x&%zz&&=&name[]=a", &["a"]),
        ] {
            assert_eq!(names(query), expected, "{query}");
        }
    }

    #[test]
    fn what_is_too_much_or_broken_is_refused_with_its_reason() {
        let many = |count: usize| vec!["name[]=a"; count].join("&");
        let long = |bytes: usize| format!("name[]={}", "a".repeat(bytes));
        for (query, problem) in [
            (many(101), "name[]: more than 100 names; ask for all and pick from them"),
            (long(257), "name[]: a name of more than 256 bytes"),
            (
                "name[]=%".to_owned(),
                "name[]: a percent sign without two hexadecimal digits, or bytes that are not UTF-8",
            ),
            (
                "name[]=%4".to_owned(),
                "name[]: a percent sign without two hexadecimal digits, or bytes that are not UTF-8",
            ),
            (
                "name[]=%+1".to_owned(),
                "name[]: a percent sign without two hexadecimal digits, or bytes that are not UTF-8",
            ),
            (
                "name[]=%FF".to_owned(),
                "name[]: a percent sign without two hexadecimal digits, or bytes that are not UTF-8",
            ),
        ] {
            assert_eq!(Filter::read(&query).unwrap_err().to_string(), problem);
        }
        assert!(Filter::read(&many(100)).is_ok() && Filter::read(&long(256)).is_ok());
    }

    #[test]
    fn a_filter_takes_families_by_any_of_their_names() {
        let filter = Filter::read("name[]=x_bucket&name[]=y").unwrap();
        assert!(filter.takes(["x", "x_bucket"]) && filter.takes(["y"]) && !filter.takes(["x", "x_sum"]));
        assert!(Filter::default().takes(["anything"]) && Filter::default().is_open());
    }

    proptest! {
        #[test]
        fn no_query_makes_it_fail_and_every_name_can_be_asked_for(noise in ".{0,40}", name in ".{1,20}") {
            let _ = Filter::read(&noise);
            let escaped: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(names(&format!("name[]={escaped}")), [name]);
        }
    }
}
