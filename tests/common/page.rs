//! The metrics page, parsed strictly enough to doubt it: text format 0.0.4 and OpenMetrics 1.0.0.

use std::collections::{BTreeMap, BTreeSet};

/// Label names and values, sorted.
pub type Labels = BTreeMap<String, String>;

/// One line of the page.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The name with its suffix (`_bucket`, `_count` …).
    pub name: String,
    /// The labels.
    pub labels: Labels,
    /// The number.
    pub value: f64,
}

/// A scraped page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Samples in order.
    pub samples: Vec<Sample>,
    /// Family → type.
    pub types: BTreeMap<String, String>,
    /// Family → help.
    pub helps: BTreeMap<String, String>,
    /// The page as it came.
    pub text: String,
}

impl Page {
    /// Parses a page; panics on what the format does not allow.
    #[must_use]
    #[track_caller]
    pub fn parse(text: &str) -> Page {
        assert!(text.ends_with('\n'), "the last line of a page ends with a line feed");
        let mut page = Page { text: text.to_owned(), ..Page::default() };
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
                assert!(page.helps.insert(name.into(), help.into()).is_none(), "HELP twice: {name}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(page.types.insert(name.into(), kind.into()).is_none(), "TYPE twice: {name}");
            } else if line.starts_with('#') {
                // UNIT and EOF of OpenMetrics.
            } else {
                let sample = parse_sample(line);
                assert!(seen.insert((sample.name.clone(), sample.labels.clone())), "the same series twice: {line}");
                page.samples.push(sample);
            }
        }
        page
    }

    /// Samples of this name whose labels contain the given ones.
    pub fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name && labels.iter().all(|(k, v)| sample.labels.get(*k).is_some_and(|have| have == v))
        })
    }

    /// The value of exactly one series; panics when there is none or several.
    #[must_use]
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found: Vec<_> = self.matching(name, labels).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}\n{}", self.lines_of(name));
        found[0].value
    }

    /// The value, if there is exactly one series.
    #[must_use]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found: Vec<_> = self.matching(name, labels).collect();
        (found.len() == 1).then(|| found[0].value)
    }

    /// The sum over all series with these labels; 0 when there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// Whether a series exists.
    #[must_use]
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// Observations of a histogram, summed over series.
    #[must_use]
    pub fn count(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(&format!("{family}_count"), labels)
    }

    /// The cumulative count at an edge, summed over series.
    #[must_use]
    pub fn bucket(&self, family: &str, edge: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<_> = labels.iter().copied().chain([("le", edge)]).collect();
        self.sum(&format!("{family}_bucket"), &labels)
    }

    /// Series of this name that are not 0.
    #[must_use]
    pub fn nonzero(&self, name: &str) -> Vec<Sample> {
        self.matching(name, &[]).filter(|sample| sample.value != 0.0).cloned().collect()
    }

    /// The lines of a name, for messages.
    #[must_use]
    pub fn lines_of(&self, name: &str) -> String {
        self.text.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>().join("\n")
    }

    /// The family that a sample belongs to, by the declared types.
    #[must_use]
    pub fn family_of(&self, sample: &str) -> Option<String> {
        if self.types.contains_key(sample) {
            return Some(sample.to_owned());
        }
        ["_bucket", "_count", "_sum", "_total", "_created", "_info"]
            .iter()
            .filter_map(|suffix| sample.strip_suffix(suffix))
            .find(|name| self.types.contains_key(*name))
            .map(str::to_owned)
    }

    /// What holds for every page at every moment: histograms are cumulative, end in +Inf and agree with their count;
    /// families stand together; counters are not negative.
    #[track_caller]
    pub fn check(&self) {
        let mut last = String::new();
        let mut closed = BTreeSet::new();
        for sample in &self.samples {
            let family = self.family_of(&sample.name).unwrap_or_else(|| panic!("{} has no TYPE line", sample.name));
            if family != last {
                assert!(closed.insert(family.clone()), "family {family} is in two places");
                last = family;
            }
            assert!(!sample.value.is_nan(), "{sample:?}");
        }
        for (family, kind) in &self.types {
            match kind.as_str() {
                "counter" => {
                    for sample in self.samples.iter().filter(|s| self.family_of(&s.name).as_ref() == Some(family)) {
                        assert!(sample.value >= 0.0, "{sample:?}");
                    }
                }
                "histogram" => self.check_histogram(family),
                _ => {}
            }
        }
    }

    #[track_caller]
    fn check_histogram(&self, family: &str) {
        let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for sample in self.matching(&format!("{family}_bucket"), &[]) {
            let mut labels = sample.labels.clone();
            let edge = labels.remove("le").expect("le");
            let edge = if edge == "+Inf" { f64::INFINITY } else { edge.parse().expect("an edge") };
            series.entry(labels).or_default().push((edge, sample.value));
        }
        for (labels, buckets) in &series {
            let pairs: Vec<_> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0), "{family}{labels:?}: edges {buckets:?}");
            assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{family}{labels:?}: not cumulative {buckets:?}");
            let (edge, infinite) = *buckets.last().expect("a bucket");
            assert!(edge.is_infinite(), "{family}{labels:?}: no +Inf");
            assert_eq!(self.value(&format!("{family}_count"), &pairs), infinite, "{family}{labels:?}");
            assert!(self.value(&format!("{family}_sum"), &pairs) >= 0.0);
        }
    }
}

#[track_caller]
fn parse_sample(line: &str) -> Sample {
    let name_end = line.find(['{', ' ']).unwrap_or_else(|| panic!("not a sample: {line:?}"));
    let name = line[..name_end].to_owned();
    assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':'), "not a metric name: {line:?}");
    let mut labels = Labels::new();
    let mut rest = &line[name_end..];
    if let Some(inner) = rest.strip_prefix('{') {
        let mut chars = inner.char_indices();
        let mut start = 0;
        loop {
            let Some((at, c)) = chars.next() else { panic!("labels do not end: {line:?}") };
            match c {
                '}' => {
                    rest = &inner[at + 1..];
                    break;
                }
                ',' => start = at + 1,
                '=' => {
                    let label = inner[start..at].to_owned();
                    assert_eq!(chars.next().map(|(_, c)| c), Some('"'), "{line:?}");
                    let mut value = String::new();
                    loop {
                        match chars.next().unwrap_or_else(|| panic!("a value does not end: {line:?}")).1 {
                            '"' => break,
                            '\\' => match chars.next().map(|(_, c)| c) {
                                Some('n') => value.push('\n'),
                                Some(c @ ('\\' | '"')) => value.push(c),
                                other => panic!("bad escape {other:?} in {line:?}"),
                            },
                            c => value.push(c),
                        }
                    }
                    assert!(labels.insert(label, value).is_none(), "a label twice: {line:?}");
                }
                _ => {}
            }
        }
    }
    let number = rest.split_whitespace().next().unwrap_or_else(|| panic!("no value: {line:?}"));
    let value = match number {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        number => number.parse().unwrap_or_else(|error| panic!("{line:?}: {error}")),
    };
    Sample { name, labels, value }
}
