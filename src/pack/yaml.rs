//! YAML as rule files need it: maps, lists, texts on one line or as a block. What could be read as something else than a
//! text is quoted as JSON, which YAML includes.

use std::fmt::Write as _;

/// A piece of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Yaml {
    /// A text. With line ends in it, a block.
    Text(String),
    /// A number or a word that is to be read as what it looks like.
    Plain(String),
    /// In the order in which they are written.
    Map(Vec<(&'static str, Yaml)>),
    /// As above, with keys that are made.
    Entries(Vec<(String, Yaml)>),
    /// One after the other.
    List(Vec<Yaml>),
}

/// A text.
pub fn text(value: impl Into<String>) -> Yaml {
    Yaml::Text(value.into())
}

// === impl Yaml ===

impl Yaml {
    /// The document, with a comment of these lines in front.
    #[must_use]
    pub fn document(&self, comment: &[&str]) -> String {
        let mut out = String::new();
        for line in comment {
            let _ = writeln!(out, "{}", format!("# {line}").trim_end());
        }
        self.write(&mut out, 0);
        out
    }

    /// Writes whole lines at this depth.
    fn write(&self, out: &mut String, depth: usize) {
        match self {
            Yaml::Map(entries) => entries.iter().for_each(|(key, value)| entry(out, depth, key, value)),
            Yaml::Entries(entries) => entries.iter().for_each(|(key, value)| entry(out, depth, &scalar(key), value)),
            Yaml::List(items) => {
                for item in items {
                    let mut lines = String::new();
                    item.write(&mut lines, depth + 1);
                    let indent = "  ".repeat(depth);
                    // The first line of the item carries the dash.
                    let _ = write!(out, "{indent}- {}", lines.strip_prefix(&format!("{indent}  ")).unwrap_or(&lines));
                }
            }
            Yaml::Text(value) => {
                let _ = writeln!(out, "{}{}", "  ".repeat(depth), scalar(value));
            }
            Yaml::Plain(value) => {
                let _ = writeln!(out, "{}{value}", "  ".repeat(depth));
            }
        }
    }
}

/// One entry of a map.
fn entry(out: &mut String, depth: usize, key: &str, value: &Yaml) {
    let indent = "  ".repeat(depth);
    let _ = match value {
        Yaml::Text(value) if value.contains('\n') => {
            let lines = value.lines().map(|line| format!("{indent}  {line}").trim_end().to_owned());
            write!(out, "{indent}{key}: |-\n{}\n", lines.collect::<Vec<_>>().join("\n"))
        }
        Yaml::Text(value) => writeln!(out, "{indent}{key}: {}", scalar(value)),
        Yaml::Plain(value) => writeln!(out, "{indent}{key}: {value}"),
        Yaml::Map(entries) if entries.is_empty() => writeln!(out, "{indent}{key}: {{}}"),
        Yaml::Entries(entries) if entries.is_empty() => writeln!(out, "{indent}{key}: {{}}"),
        Yaml::List(items) if items.is_empty() => writeln!(out, "{indent}{key}: []"),
        nested => {
            let _ = writeln!(out, "{indent}{key}:");
            nested.write(out, depth + 1);
            Ok(())
        }
    };
}

/// A text on one line: bare where no reader of YAML could take it for something else.
fn scalar(value: &str) -> String {
    let first = value.chars().next();
    let bare = first.is_some_and(|first| first.is_ascii_alphabetic() || first == '/')
        && value.chars().all(|c| c.is_ascii_alphanumeric() || " _-./()+*=>,<%".contains(c))
        && !value.ends_with(' ')
        && !["true", "false", "yes", "no", "on", "off", "null", "y", "n"]
            .contains(&value.to_ascii_lowercase().as_str());
    if bare { value.to_owned() } else { serde_json::Value::from(value).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_of_maps_look_as_people_write_them() {
        let rule = Yaml::Map(vec![("record", text("a:b")), ("expr", text("sum(x)\n/\nsum(y)"))]);
        let groups = Yaml::List(vec![Yaml::Map(vec![("name", text("g")), ("rules", Yaml::List(vec![rule]))])]);
        assert_eq!(
            Yaml::Map(vec![("groups", groups)]).document(&["What."]),
            "# What.\ngroups:\n  - name: g\n    rules:\n      - record: \"a:b\"\n        expr: |-\n          sum(x)\n          \
             /\n          sum(y)\n"
        );
    }

    proptest! {
        #[test]
        fn a_text_is_read_as_it_was_written(value in "[ -~]{0,40}") {
            let document = Yaml::Map(vec![("key", text(value.clone()))]).document(&[]);
            let read: std::collections::BTreeMap<String, String> = serde_saphyr::from_str(&document).unwrap();
            prop_assert_eq!(&read["key"], &value, "{}", document);
        }
    }
}
