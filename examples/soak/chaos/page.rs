//! The metrics page in the text format, as far as the books need it.

use std::collections::BTreeMap;

/// A page.
#[derive(Clone, Debug, Default)]
pub struct Page(pub String);

/// The labels of a sample as they stand there.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a>(&'a str);

impl<'a> Labels<'a> {
    /// The value of a label; empty when there is none.
    pub fn get(&self, name: &str) -> &'a str {
        let mut rest = self.0;
        while let Some((label, after)) = rest.split_once("=\"") {
            let end = after.find('"').unwrap_or(after.len());
            if label.trim_start_matches(',') == name {
                return &after[..end];
            }
            rest = after.get(end + 1..).unwrap_or_default();
        }
        ""
    }
}

impl Page {
    /// The samples of a family, added up by what `key` makes of their labels.
    pub fn counts<K: Ord>(&self, name: &str, key: impl Fn(Labels<'_>) -> K) -> BTreeMap<K, u64> {
        let mut counts = BTreeMap::new();
        for line in self.0.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            let (labels, value) = match rest.strip_prefix('{') {
                Some(inner) => inner.rsplit_once("} ").unwrap_or((inner, "0")),
                None => ("", rest.strip_prefix(' ').unwrap_or("")),
            };
            let value: f64 = match value.parse() {
                Ok(value) => value,
                // Another family, whose name begins the same.
                Err(_) => continue,
            };
            *counts.entry(key(Labels(labels))).or_default() += value as u64;
        }
        counts
    }

    /// The sum over a family.
    pub fn sum(&self, name: &str) -> u64 {
        self.counts(name, |_| ()).into_values().sum()
    }
}
