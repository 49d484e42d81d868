//! Looks for one value in the beginning of a JSON document. Pure.
//!
//! Source: RFC 8259 (JSON), RFC 6901 (pointers).
//! Shape:  a pointer is a sequence of `/token`; in a token `~1` is `/` and `~0` is `~`.
//! Absent: a pointer that leads nowhere, to `null`, or beyond the bytes that there are.
//!
//! By hand, since the bytes may end anywhere: a reader of whole documents would call a value that is cut a mistake, and this
//! one sees at its first byte that it is something. It goes down along the pointer and skips what lies beside it by
//! counting brackets, so nesting costs neither stack nor memory. What it skips it does not check: a page that is nearly JSON
//! is read as far as it makes sense.

use std::borrow::Cow;

use memchr::memchr2;

/// Whether the pointer leads to something other than `null` within these first bytes of a document. Of a name that comes
/// twice, the first counts.
#[must_use]
pub fn leads_somewhere(beginning: &[u8], pointer: &str) -> bool {
    let mut reader = Reader { rest: beginning };
    reader.follow(pointer).is_some_and(|first| matches!(first, b'"' | b'{' | b'[' | b't' | b'f' | b'-' | b'0'..=b'9'))
}

/// What has not been read yet. Each step gives `None` when the bytes end or are no JSON.
struct Reader<'a> {
    rest: &'a [u8],
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// The first byte of the value that the pointer leads to.
    fn follow(&mut self, pointer: &str) -> Option<u8> {
        for token in pointer.split('/').skip(1) {
            let token = if token.contains('~') {
                Cow::Owned(token.replace("~1", "/").replace("~0", "~"))
            } else {
                Cow::Borrowed(token)
            };
            match self.next()? {
                b'{' => self.enter_member(&token)?,
                b'[' => self.enter_item(index(&token)?)?,
                _ => return None,
            }
        }
        self.next()
    }

    /// From behind the bracket to the value of the member with this name.
    fn enter_member(&mut self, name: &str) -> Option<()> {
        loop {
            self.expect(b'"')?;
            let found = self.string()?;
            self.expect(b':')?;
            if is(found, name) {
                return Some(());
            }
            self.skip()?;
            self.expect(b',')?;
        }
    }

    /// From behind the bracket to the item with this index.
    fn enter_item(&mut self, index: usize) -> Option<()> {
        for _ in 0..index {
            self.skip()?;
            self.expect(b',')?;
        }
        Some(())
    }

    /// Skips a value.
    fn skip(&mut self) -> Option<()> {
        match self.next()? {
            b'"' => self.string().map(drop),
            b'{' | b'[' => {
                let mut depth = 1_usize;
                while depth > 0 {
                    let at = self.rest.iter().position(|b| matches!(b, b'"' | b'{' | b'}' | b'[' | b']'))?;
                    let found = self.rest[at];
                    self.rest = &self.rest[at + 1..];
                    match found {
                        b'"' => drop(self.string()?),
                        b'{' | b'[' => depth += 1,
                        _ => depth -= 1,
                    }
                }
                Some(())
            }
            b'}' | b']' | b',' | b':' => None,
            // A number or a word.
            _ => {
                let at = self.rest.iter().position(|b| matches!(b, b',' | b'}' | b']') || is_space(*b))?;
                self.rest = &self.rest[at..];
                Some(())
            }
        }
    }

    /// What is between the quotes of a string whose first one has been read, escapes included.
    fn string(&mut self) -> Option<&'a [u8]> {
        let mut end = 0;
        loop {
            end += memchr2(b'"', b'\\', self.rest.get(end..)?)?;
            if self.rest[end] == b'"' {
                let string = &self.rest[..end];
                self.rest = &self.rest[end + 1..];
                return Some(string);
            }
            end += 2;
        }
    }

    /// The next byte that is not white space.
    fn next(&mut self) -> Option<u8> {
        let at = self.rest.iter().position(|b| !is_space(*b))?;
        let next = self.rest[at];
        self.rest = &self.rest[at + 1..];
        Some(next)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The number of an item: digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let plain = token.bytes().all(|b| b.is_ascii_digit()) && (token == "0" || !token.starts_with('0'));
    token.parse().ok().filter(|_| plain)
}

/// Whether a string, as it is between its quotes, is this text.
fn is(string: &[u8], text: &str) -> bool {
    if !string.contains(&b'\\') {
        return string == text.as_bytes();
    }
    // No escape makes a text longer than it is written.
    if string.len() < text.len() {
        return false;
    }
    let quoted = [b"\"", string, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).is_ok_and(|string| string == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn a_value_is_found_where_the_pointer_leads() {
        let document = br#" {"a/b": {"~": [null, 1, "x"]}, "errors" :[ {"message":"\"}]"} ], "n": null, "e": [], "": 0,
            "\u00e9\n": true, "f": false} "#;
        for (pointer, expected) in [
            ("/a~1b/~0/0", false),
            ("/a~1b/~0/1", true),
            ("/a~1b/~0/2", true),
            ("/a~1b/~0/3", false),
            ("/a~1b/~0/01", false),
            ("/a~1b/~0/-", false),
            ("/a~1b/~0/+1", false),
            ("/a~1b/~0/18446744073709551616", false),
            ("/errors", true),
            ("/errors/0", true),
            ("/errors/0/message", true),
            ("/errors/0/message/0", false),
            ("/errors/1", false),
            ("/n", false),
            ("/n/0", false),
            ("/e", true),
            ("/e/0", false),
            ("/", true),
            ("/é\n", true),
            ("/f", true),
            ("/g", false),
        ] {
            assert_eq!(leads_somewhere(document, pointer), expected, "{pointer}");
        }
    }

    #[test]
    fn what_is_no_document_leads_nowhere() {
        for text in ["", " ", "<html>", "a", "{", "{}", "[]", "{a:1}", "{'a':1}", "{\"a\"", "{\"a\":", "{\"a\" 1}"] {
            assert!(!leads_somewhere(text.as_bytes(), "/a"), "{text}");
        }
        assert!(leads_somewhere(b"{\"a\":{", "/a"), "of a value that is cut, the beginning is enough");
        assert!(!leads_somewhere(b"{\"a\":nul", "/a"));
        assert!(!leads_somewhere(b"{\"b\":[1,2,", "/a"));
        assert!(!leads_somewhere(b"{\"b\":\"\\", "/a"));
    }

    #[test]
    fn depth_costs_nothing() {
        let levels = 1 << 20;
        let mut document = b"{\"deep\":".to_vec();
        document.extend(std::iter::repeat_n(b'[', levels));
        document.extend(std::iter::repeat_n(b']', levels));
        document.extend(b",\"a\":1}");
        assert!(leads_somewhere(&document, "/a"));
        assert!(leads_somewhere(&document, &format!("/deep{}", "/0".repeat(levels - 1))));
        assert!(!leads_somewhere(&document, &format!("/deep{}", "/0".repeat(levels))));
    }

    /// Few words, so that pointers and documents meet; each is awkward in its own way.
    fn word() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("a"),
            Just("b"),
            Just(""),
            Just("0"),
            Just("1"),
            Just("a/b"),
            Just("~1"),
            Just("\"}"),
            Just("\\"),
            Just("é\u{1}"),
        ]
        .prop_map(str::to_owned)
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(Value::from),
            word().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((word(), inner), 0..5).prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    fn pointer() -> impl Strategy<Value = String> {
        let token = prop_oneof![word(), Just("00".to_owned()), Just("2".to_owned())];
        let escaped = token.prop_map(|token| format!("/{}", token.replace('~', "~0").replace('/', "~1")));
        prop::collection::vec(escaped, 1..4).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_whole_document_is_read_as_serde_json_reads_it(
            document in document(), pointer in pointer(), pretty in any::<bool>(), cut in any::<prop::sample::Index>(),
        ) {
            let text = if pretty { format!("{document:#}") } else { document.to_string() };
            let expected = document.pointer(&pointer).is_some_and(|value| !value.is_null());
            prop_assert_eq!(leads_somewhere(text.as_bytes(), &pointer), expected, "{} in {}", pointer, text);
            // Whatever the bytes leave out, they make up nothing.
            let beginning = &text.as_bytes()[..cut.index(text.len() + 1)];
            prop_assert!(expected || !leads_somewhere(beginning, &pointer));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), pointer in pointer()) {
            let _ = leads_somewhere(&bytes, &pointer);
        }

        #[test]
        fn nothing_that_is_nearly_json_panics(text in r#"[\[\]{}",:\\a0n ]{0,60}"#, pointer in pointer()) {
            let _ = leads_somewhere(text.as_bytes(), &pointer);
        }
    }
}
