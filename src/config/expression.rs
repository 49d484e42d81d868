//! Expressions: which numbers of a metrics page make up one number of a pool.
//!
//! Source: ours. A series is spelled as on a page in Prometheus' text format, a pointer as in RFC 6901.
//! Shape:  terms with ` + ` or ` - ` between them. A term is a number, a JSON pointer (`/pool/used`), or a series
//!         (`name` or `name{label="value", other!="x"}`; a value escapes `\\`, `\"` and `\n`). The spaces around the
//!         signs are required, since names and pointers may hold `-`; pointers hold no spaces.
//! Absent: an expression is never empty, and never mixes pointers and series: a page is JSON or it is not.

use std::fmt;

use super::error::found;
use super::{Expression, Term};

/// Labels and what they must be (`true`) or must not be (`false`).
pub(super) type Labels = Vec<(String, bool, String)>;

const EXPECTED: &str = "expected series such as active{pool=\"db\"} or JSON pointers such as /db/active, with + or - \
     between them";
const EXPECTED_LABELS: &str = "expected labels such as pool=\"db\", with commas between them";

/// What an expression reads. A page is one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Prometheus,
}

/// Reads an expression.
///
/// # Errors
/// What was found and what is accepted, without the key.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    let text = text.trim();
    let problem = |what: String| format!("{} {what}; {EXPECTED}", found(text));
    let terms = terms(text).map_err(problem)?;
    let expression = Expression { text: text.to_owned(), terms };
    let reads = |format| expression.terms.iter().any(|(_, term)| format_of(term) == Some(format));
    if reads(Format::Json) && reads(Format::Prometheus) {
        return Err(format!("{} mixes JSON pointers and series; expected one of the two", found(text)));
    }
    Ok(expression)
}

/// Reads what stands between the braces of a series.
///
/// # Errors
/// What was found and what is accepted, without the key.
pub(super) fn parse_labels(text: &str) -> Result<Labels, String> {
    let text = text.trim();
    let labels = refuse_control(text).and_then(|()| labels(text, None));
    match labels {
        Ok((labels, _)) if !labels.is_empty() => Ok(labels),
        Ok(_) => Err(format!("{} names no label; {EXPECTED_LABELS}", found(text))),
        Err(what) => Err(format!("{} {what}; {EXPECTED_LABELS}", found(text))),
    }
}

// === impl Expression ===

impl Expression {
    /// What its terms read; `None`: numbers alone.
    pub(super) fn format(&self) -> Option<Format> {
        self.terms.iter().find_map(|(_, term)| format_of(term))
    }

    /// The same with more labels at every series. The text changes with it.
    pub(super) fn and_labels(mut self, more: &Labels) -> Expression {
        let mut changed = false;
        for (_, term) in &mut self.terms {
            let Term::Series { labels, .. } = term else { continue };
            for label in more {
                if !labels.contains(label) {
                    labels.push(label.clone());
                    changed = true;
                }
            }
        }
        if changed {
            self.text = written(&self.terms);
        }
        self
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Term::Number(number) => number.fmt(f),
            Term::Pointer(pointer) => f.write_str(pointer),
            Term::Series { name, labels } => {
                f.write_str(name)?;
                for (index, (label, equal, value)) in labels.iter().enumerate() {
                    let before = if index == 0 { "{" } else { ", " };
                    let sign = if *equal { "=" } else { "!=" };
                    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                    write!(f, "{before}{label}{sign}\"{value}\"")?;
                }
                f.write_str(if labels.is_empty() { "" } else { "}" })
            }
        }
    }
}

fn format_of(term: &Term) -> Option<Format> {
    match term {
        Term::Number(_) => None,
        Term::Pointer(_) => Some(Format::Json),
        Term::Series { .. } => Some(Format::Prometheus),
    }
}

/// Terms as text that is read as the same terms.
fn written(terms: &[(bool, Term)]) -> String {
    let mut text = String::new();
    for (index, (plus, term)) in terms.iter().enumerate() {
        if index > 0 {
            text.push_str(if *plus { " + " } else { " - " });
        }
        text.push_str(&term.to_string());
    }
    text
}

// === reading: each takes from the front and gives what is left, or says what is wrong ===

fn terms(text: &str) -> Result<Vec<(bool, Term)>, String> {
    refuse_control(text)?;
    let mut terms = Vec::new();
    let (mut plus, mut rest) = (true, text);
    loop {
        let (term, after) = term(rest)?;
        terms.push((plus, term));
        if after.is_empty() {
            return Ok(terms);
        }
        let sign = after.trim_start_matches(' ');
        (plus, rest) = match (sign.strip_prefix("+ "), sign.strip_prefix("- ")) {
            (Some(rest), _) if sign.len() < after.len() => (true, rest.trim_start_matches(' ')),
            (_, Some(rest)) if sign.len() < after.len() => (false, rest.trim_start_matches(' ')),
            _ => return Err(format!("has {} where a + or - with spaces around it belongs", found(after))),
        };
    }
}

fn term(text: &str) -> Result<(Term, &str), String> {
    match text.chars().next() {
        Some('/') => pointer(text),
        Some(c) if c.is_ascii_digit() => number(text),
        Some(c) if is_name_start(c) => series(text),
        _ => Err(format!("has {} where a term belongs", found(text))),
    }
}

fn pointer(text: &str) -> Result<(Term, &str), String> {
    // Whatever a key of JSON may hold: spaces are not worth that `/a -/b` would be one strange pointer.
    let (pointer, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
    // RFC 6901, section 3: a tilde stands before 0 or 1 only.
    if pointer.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
        return Err(format!("has the pointer {}, whose ~ is neither ~0 nor ~1", found(pointer)));
    }
    Ok((Term::Pointer(pointer.to_owned()), rest))
}

fn number(text: &str) -> Result<(Term, &str), String> {
    let (number, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    // Rust reads `1e3`, `1.` and `1_0` or not as it likes; here a number is digits, a dot, digits.
    let plain = match number.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(number),
    };
    match number.parse::<f64>() {
        Ok(value) if plain && value.is_finite() => Ok((Term::Number(value), rest)),
        _ => Err(format!("has {}, which is not a number", found(number))),
    }
}

fn series(text: &str) -> Result<(Term, &str), String> {
    let is_name = |c: char| is_name_start(c) || c.is_ascii_digit() || c == '-';
    let (name, rest) = text.split_at(text.find(|c| !is_name(c)).unwrap_or(text.len()));
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside, Some('}'))?,
        None => (Vec::new(), rest),
    };
    Ok((Term::Series { name: name.to_owned(), labels }, rest))
}

/// Labels up to the character that closes them, or to the end of the text. A comma may follow the last one, as on
/// pages of older clients.
fn labels(text: &str, close: Option<char>) -> Result<(Labels, &str), String> {
    let mut labels = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(after) = closed(rest, close)? {
            return Ok((labels, after));
        }
        let is_label = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, after) = rest.split_at(rest.find(|c| !is_label(c)).unwrap_or(rest.len()));
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("has {} where a label belongs", found(rest)));
        }
        let sign = after.trim_start_matches(' ');
        if sign.starts_with("=~") || sign.starts_with("!~") {
            return Err(format!("has a regular expression for {name}, of which there are none here"));
        }
        let (equal, after) = match (sign.strip_prefix("!="), sign.strip_prefix('=')) {
            (Some(after), _) => (false, after),
            (None, Some(after)) => (true, after),
            (None, None) => return Err(format!("has no = or != after {name}")),
        };
        let (value, after) = quoted(after.trim_start_matches(' '), name)?;
        labels.push((name.to_owned(), equal, value));
        rest = after.trim_start_matches(' ');
        if let Some(after) = closed(rest, close)? {
            return Ok((labels, after));
        }
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest,
            None => return Err(format!("has {} where a comma belongs", found(rest))),
        };
    }
}

/// What follows the labels, if they end here.
fn closed(rest: &str, close: Option<char>) -> Result<Option<&str>, String> {
    match (rest.is_empty(), close) {
        (true, None) => Ok(Some(rest)),
        (true, Some(close)) => Err(format!("has no {close} at its end")),
        (false, None) => Ok(None),
        (false, Some(close)) => Ok(rest.strip_prefix(close)),
    }
}

/// A value in double quotes.
fn quoted<'a>(text: &'a str, label: &str) -> Result<(String, &'a str), String> {
    let Some(inside) = text.strip_prefix('"') else {
        return Err(format!("has no \" before the value of {label}"));
    };
    let mut value = String::new();
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &inside[at + 1..])),
            '\\' => match chars.next() {
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                Some((_, 'n')) => value.push('\n'),
                _ => return Err(format!("has an escape in the value of {label} that is not \\\\, \\\" or \\n")),
            },
            c => value.push(c),
        }
    }
    Err(format!("has no \" after the value of {label}"))
}

/// Neither names, pointers that anybody writes, nor values need one, and sentences stay on one line without them.
fn refuse_control(text: &str) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        return Err("holds a control character".to_owned());
    }
    Ok(())
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == ':'
}

#[cfg(test)]
mod tests {
    use super::{Format, parse, parse_labels, written};
    use crate::config::Term;
    use proptest::prelude::*;

    fn series(name: &str, labels: &[(&str, bool, &str)]) -> Term {
        let labels = labels.iter().map(|(name, equal, value)| ((*name).into(), *equal, (*value).into())).collect();
        Term::Series { name: name.into(), labels }
    }

    fn terms(text: &str) -> Vec<(bool, Term)> {
        parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}")).terms
    }

    #[test]
    fn sums_of_all_kinds_of_terms_are_read() {
        for (text, expected) in [
            ("12.5", vec![(true, Term::Number(12.5))]),
            ("/a-b/c~1d/0", vec![(true, Term::Pointer("/a-b/c~1d/0".into()))]),
            ("/a-b - /c", vec![(true, Term::Pointer("/a-b".into())), (false, Term::Pointer("/c".into()))]),
            ("a-b", vec![(true, series("a-b", &[]))]),
            (
                r#"a:x + b{c="d", e!="f - g",}  -  2"#,
                vec![
                    (true, series("a:x", &[])),
                    (true, series("b", &[("c", true, "d"), ("e", false, "f - g")])),
                    (false, Term::Number(2.0)),
                ],
            ),
            (r#"a{b = "\\\"\n}"}"#, vec![(true, series("a", &[("b", true, "\\\"\n}")]))]),
            ("a{}", vec![(true, series("a", &[]))]),
        ] {
            assert_eq!(terms(text), expected, "{text}");
            assert_eq!(parse(text).expect("as above").to_string(), text);
        }
    }

    #[test]
    fn mistakes_are_told_in_one_sentence() {
        const EXPECTED: &str = "; expected series such as active{pool=\"db\"} or JSON pointers such as /db/active, \
             with + or - between them";
        for (text, problem) in [
            ("", r#""" has "" where a term belongs"#),
            ("a -b", r#""a -b" has " -b" where a + or - with spaces around it belongs"#),
            ("/a -/b", r#""/a -/b" has " -/b" where a + or - with spaces around it belongs"#),
            ("a + ", r#""a +" has " +" where a + or - with spaces around it belongs"#),
            ("a.b", r#""a.b" has ".b" where a + or - with spaces around it belongs"#),
            ("a + -", r#""a + -" has "-" where a term belongs"#),
            ("1e3", r#""1e3" has "1e3", which is not a number"#),
            ("/a~2", r#""/a~2" has the pointer "/a~2", whose ~ is neither ~0 nor ~1"#),
            ("a{", r#""a{" has no } at its end"#),
            ("a{b}", r#""a{b}" has no = or != after b"#),
            ("a{b=c}", r#""a{b=c}" has no " before the value of b"#),
            (r#"a{b="c}"#, r#""a{b=\"c}" has no " after the value of b"#),
            (r#"a{b="\t"}"#, r#""a{b=\"\\t\"}" has an escape in the value of b that is not \\, \" or \n"#),
            (r#"a{b="c" d="e"}"#, r#""a{b=\"c\" d=\"e\"}" has "d=\"e\"}" where a comma belongs"#),
            (r#"a{1="c"}"#, r#""a{1=\"c\"}" has "1=\"c\"}" where a label belongs"#),
            (r#"a{b=~"c"}"#, r#""a{b=~\"c\"}" has a regular expression for b, of which there are none here"#),
            ("a\tb", r#""a\tb" holds a control character"#),
        ] {
            assert_eq!(parse(text).expect_err(text), format!("{problem}{EXPECTED}"));
        }
        assert_eq!(
            parse("/a + b").expect_err("two formats"),
            "\"/a + b\" mixes JSON pointers and series; expected one of the two"
        );
    }

    #[test]
    fn labels_are_added_to_every_series_once() {
        let more = parse_labels(r#" pool="a\"b", zone!="c" "#).expect("labels");
        let expression = parse(r#"x{zone!="c"} - y + 1"#).expect("an expression").and_labels(&more);
        assert_eq!(expression.text, r#"x{zone!="c", pool="a\"b"} - y{pool="a\"b", zone!="c"} + 1"#);
        assert_eq!(parse(&expression.text), Ok(expression.clone()));
        assert_eq!(expression.clone().and_labels(&more), expression);
        assert_eq!(expression.format(), Some(Format::Prometheus));
        for text in ["", "pool", "pool=\"a", "pool=\"a\"}", "{pool=\"a\"}"] {
            assert!(parse_labels(text).expect_err(text).ends_with("with commas between them"), "{text}");
        }
    }

    /// Text out of pieces that expressions are made of.
    fn expression_like() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "a",
            "b_c",
            "-",
            " - ",
            " + ",
            " ",
            "{",
            "}",
            "=",
            "!=",
            "\"",
            "\\",
            "\\n",
            ",",
            "/",
            "/x",
            "~0",
            "~",
            "7",
            ".5",
            "é",
            "x{y=\"z\"}",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn accepted_or_refused(text: &str) -> Result<(), TestCaseError> {
        match parse(text) {
            Ok(expression) => {
                prop_assert_eq!(parse(&expression.text), Ok(expression.clone()));
                let again = parse(&written(&expression.terms));
                prop_assert_eq!(again.map(|again| again.terms), Ok(expression.terms));
            }
            Err(problem) => prop_assert!(!problem.contains(char::is_control), "{:?}", problem),
        }
        if let Err(problem) = parse_labels(text) {
            prop_assert!(!problem.contains(char::is_control), "{:?}", problem);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_text_is_accepted_or_refused_and_read_back_as_the_same(text in any::<String>()) {
            accepted_or_refused(&text)?;
        }

        #[test]
        fn any_text_like_an_expression_is_accepted_or_refused_and_read_back_as_the_same(text in expression_like()) {
            accepted_or_refused(&text)?;
        }
    }
}
