//! One sentence per mistake: the key, what was found, what is accepted, and where it was said. Secrets stay out.
//!
//! Everything that a user wrote passes through [`found`] or [`redact`] before it becomes part of a sentence.

use std::fmt;
use std::sync::Arc;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag of the command line, with its dashes.
    Flag(&'static str),
    /// An environment variable.
    Environment(String),
    /// The configuration file.
    File {
        /// The path as it was given.
        path: Arc<str>,
        /// Line, from 1; `None` when the file as a whole is meant.
        line: Option<u64>,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(name) => write!(f, "flag {name}"),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::File { path, line: Some(line) } => write!(f, "{path}:{line}"),
            Source::File { path, line: None } => f.write_str(path),
        }
    }
}

/// A mistake in the configuration. Its text is one sentence on one line, fit for standard error, without secrets:
/// `timeouts.connect: "5" has no unit; expected a duration such as 250ms, 5s or 2m (golden.yaml:4)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    key: String,
    problem: String,
    source: Option<Source>,
}

impl ConfigError {
    /// A mistake at `key`; `problem` says what was found and what is accepted.
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>, source: Option<Source>) -> Self {
        ConfigError { key: one_line(&key.into()), problem: problem.into(), source }
    }

    /// The key of the file, or the environment variable, that is wrong.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)?;
        match &self.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Why nothing runs: an error, or a text that was asked for (`--help`, `--version`). The caller writes `text` to
/// `stream` and exits with `code`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What to print, with its line end.
    pub text: String,
    /// Exit code: 0 for a text that was asked for, 2 for bad usage or bad configuration.
    pub code: u8,
    /// Where to print.
    pub stream: Stream,
}

/// A standard stream of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure { text: format!("{error}\n"), code: 2, stream: Stream::Error }
    }
}

/// A found value in quotes: control characters escaped, secrets replaced, cut after 80 characters so that one
/// sentence stays one line of a terminal or log.
pub(super) fn found(text: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    let redacted = redact(text);
    if redacted.chars().count() <= SHOWN_CHARS {
        format!("{redacted:?}")
    } else {
        format!("{:?}…", redacted.chars().take(SHOWN_CHARS).collect::<String>())
    }
}

/// The text without the user information and the query of a URL. Everything before the last `@` goes (after the
/// scheme, if there is one), since a secret that was not percent-encoded may itself hold `/`, `:` or `@`.
pub(super) fn redact(text: &str) -> String {
    let (scheme, rest) = match text.find("://") {
        Some(at) => text.split_at(at + "://".len()),
        None => ("", text),
    };
    let (user_info, rest) = match rest.rfind('@') {
        Some(at) => ("***", &rest[at..]),
        None => ("", rest),
    };
    match rest.find('?') {
        Some(at) if !scheme.is_empty() => format!("{scheme}{user_info}{}?***", &rest[..at]),
        _ => format!("{scheme}{user_info}{rest}"),
    }
}

/// A key of the file as part of a sentence: whatever YAML allows as a key stays on one line and without secrets.
fn one_line(key: &str) -> String {
    // Every known key is shorter.
    const SHOWN_CHARS: usize = 80;
    let redacted = redact(key);
    let shown = if redacted.chars().any(char::is_control) { redacted.escape_debug().collect() } else { redacted };
    match shown.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// `did you mean X?`, or for names that resemble nothing, the nearest all the same.
/// `names` must not be empty.
pub(super) fn nearest<'a>(unknown: &str, names: impl Iterator<Item = &'a str>) -> String {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let parent = |path: &str| path.len() - last(path).len();
    let best = names
        .map(|name| {
            // A key in the wrong section is one mistake, whatever the names of the sections are.
            let elsewhere = edits(&last(unknown), &last(name)) + 1;
            let sibling = unknown[..parent(unknown)] != name[..parent(name)];
            (edits(unknown, name).min(elsewhere), sibling, name)
        })
        .min();
    match best {
        // Up to a third of the letters, and two in short names: more is no typing mistake.
        Some((distance, _, name)) if distance <= 2.max(last(unknown).chars().count() / 3) => {
            format!("did you mean {name}?")
        }
        Some((_, _, name)) => format!("the nearest known one is {name}"),
        None => String::new(),
    }
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one text into the other (optimal string
/// alignment). By hand: thirty lines are less than a dependency. Long texts count as their first 64 characters, so
/// that a hostile file costs nothing.
fn edits(from: &str, to: &str) -> usize {
    const COMPARED_CHARS: usize = 64;
    let from: Vec<char> = from.chars().take(COMPARED_CHARS).collect();
    let to: Vec<char> = to.chars().take(COMPARED_CHARS).collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let mut cost = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                cost = cost.min(before_last[j - 1] + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::{edits, found, nearest, redact};

    #[test]
    fn secrets_of_a_url_are_replaced_however_they_are_written() {
        for (text, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://user:hunter2@host:80", "http://***@host:80"),
            ("http://user:hun@ter/2@host:80", "http://***@host:80"),
            ("user:hunter2@host:80", "***@host:80"),
            ("http://host/?token=hunter2", "http://host/?***"),
            ("http://u:hunter2?x@host/", "http://***@host/"),
            ("/a?b", "/a?b"),
        ] {
            assert_eq!(redact(text), expected, "{text}");
        }
    }

    #[test]
    fn found_values_stay_short_and_on_one_line() {
        assert_eq!(found("a\nb\u{1b}[0m"), r#""a\nb\u{1b}[0m""#);
        assert_eq!(found(&"x".repeat(81)), format!("\"{}\"…", "x".repeat(80)));
    }

    #[test]
    fn edits_are_counted() {
        for (from, to, expected) in [("", "", 0), ("abc", "", 3), ("conect", "connect", 1), ("via", "vai", 1)] {
            assert_eq!(edits(from, to), expected, "{from} {to}");
            assert_eq!(edits(to, from), expected, "{to} {from}");
        }
    }

    #[test]
    fn nearest_prefers_the_same_section_and_knows_the_others() {
        let names = || ["upstream", "timeouts.head", "timeouts.connect", "limits.headers"].into_iter();
        assert_eq!(nearest("timeouts.conect", names()), "did you mean timeouts.connect?");
        assert_eq!(nearest("connect", names()), "did you mean timeouts.connect?");
        assert_eq!(nearest("limits.head", names()), "did you mean timeouts.head?");
        assert_eq!(nearest("bananas", ["upstream", "buckets"].into_iter()), "the nearest known one is buckets");
    }
}
