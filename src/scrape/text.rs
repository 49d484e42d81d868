//! Text format 0.0.4 as families and samples.
//!
//! Source: "Text-based format" in the Prometheus documentation, "Exposition formats"; OpenMetrics 1.0.0, "Text format".
//! Shape:  lines: `# HELP name text`, `# TYPE name kind`, other comments, `name{label="value",…} value [timestamp]`. Line
//!         ends of CR LF and a last line without an end are taken; between tokens there may be blanks and tabs. Names that
//!         are not plain are those of version 1.0.0: `# TYPE "a.b" kind`, `{"a.b","c.d"="value"} value`.
//! Units:  timestamps are milliseconds since 1970; those of OpenMetrics, known by `# EOF`, are seconds on the page.
//! Absent: a family without `# TYPE` is untyped. Exemplars are not kept.
//!
//! What a page of OpenMetrics spells differently is taken as 0.0.4 would have it: the counter family `x` with the samples
//! `x_total` is `x_total`, and `x_created` is a gauge of its own. Kinds that only OpenMetrics has are untyped.
//!
//! Nothing is guessed: a line that cannot be read makes the whole page unreadable. A family that is announced a second
//! time, as when two registries are printed one after the other, is left out and counted; what stands on the page first
//! is kept.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::BuildHasher as _;
use std::ops::Range;

/// Samples that are taken from one page. A large Java service has five thousand; 100,000 need some 6 MB, and 40 bytes per
/// label, for as long as they are looked at.
const SAMPLES_MAX: usize = 100_000;
/// Families. Large services have some hundred; each costs more than a sample, so ten thousand keep a page that nobody meant
/// from taking a hundred megabytes.
const FAMILIES_MAX: usize = 10_000;
/// Labels of one sample. kube-state-metrics turns the labels of a pod into as many; 64 are twice what is seen there, and
/// few enough to look for one that comes twice by comparing all.
const LABELS_MAX: usize = 64;

/// What kind a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Never goes back but to 0.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Samples `_bucket` with the label `le`, `_sum`, `_count`.
    Histogram,
    /// Samples with the label `quantile`, `_sum`, `_count`.
    Summary,
    /// Nothing is known.
    Untyped,
}

/// A page.
#[derive(Debug)]
pub struct Page<'a> {
    /// In the order in which they begin.
    pub families: Vec<Family<'a>>,
    /// Families that were announced a second time and left out.
    pub repeated: usize,
    labels: Vec<Label<'a>>,
}

/// A label's name and value.
pub type Label<'a> = (&'a str, Cow<'a, str>);

/// A family.
#[derive(Debug)]
pub struct Family<'a> {
    /// Its name as 0.0.4 has it: with `_total` for a counter that has one.
    pub name: &'a str,
    /// Its kind.
    pub kind: Kind,
    /// Its help, escapes taken off.
    pub help: Option<Cow<'a, str>>,
    /// In page order; maybe none.
    pub samples: Vec<Sample<'a>>,
    /// Announced a second time: what comes now is not taken.
    repeated: bool,
    /// `# TYPE` was there.
    typed: bool,
}

/// A sample. Its labels are kept by the page: [`Page::labels`].
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    /// The name of the series: that of the family, or with a suffix.
    pub name: &'a str,
    /// The value.
    pub value: f64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    labels: Range<usize>,
}

/// Why a page cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there; nothing of the page itself is in it.
    pub problem: &'static str,
}

/// Reads a page.
///
/// # Errors
/// When a line cannot be read, a series comes twice, or there is too much of something.
pub fn parse(page: &[u8]) -> Result<Page<'_>, Malformed> {
    let text = match std::str::from_utf8(page) {
        Ok(text) => text,
        Err(error) => {
            let line = page[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            return Err(Malformed { line, problem: "bytes that are not UTF-8" });
        }
    };
    let open = text.trim_end().rsplit('\n').next() == Some("# EOF");
    let mut reader = Reader {
        page: Page { families: Vec::new(), repeated: 0, labels: Vec::new() },
        by_name: HashMap::new(),
        announced: None,
        samples: 0,
        seen: HashSet::new(),
        hasher: RandomState::new(),
        open,
    };
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        reader.line(line).map_err(|problem| Malformed { line: index + 1, problem })?;
    }
    Ok(reader.page)
}

// === impl Page ===

impl<'a> Page<'a> {
    /// The labels of a sample of this page, in page order.
    #[must_use]
    pub fn labels(&self, sample: &Sample<'_>) -> &[Label<'a>] {
        &self.labels[sample.labels.clone()]
    }

    /// The names of all labels, with repetitions.
    pub fn label_names(&self) -> impl Iterator<Item = &'a str> {
        self.labels.iter().map(|(name, _)| *name)
    }

    /// Gives families and series, and labels, another name: the one that stands beside theirs.
    pub fn rename(&mut self, series: &'a HashMap<String, String>, labels: &'a HashMap<String, String>) {
        let rename = |name: &mut &'a str, names: &'a HashMap<String, String>| {
            if let Some(other) = names.get(*name) {
                *name = other;
            }
        };
        for family in &mut self.families {
            rename(&mut family.name, series);
            family.samples.iter_mut().for_each(|sample| rename(&mut sample.name, series));
        }
        self.labels.iter_mut().for_each(|(name, _)| rename(name, labels));
    }

    /// The sum over all series with this name whose labels are (true) or are not (false) as told; a label that is not
    /// there is empty. `None`: there is no such series.
    #[must_use]
    pub fn sum(&self, name: &str, conditions: &[(String, bool, String)]) -> Option<f64> {
        let samples = self.families.iter().flat_map(|family| &family.samples).filter(|sample| sample.name == name);
        let matching = samples.filter(|sample| {
            conditions.iter().all(|(name, same, value)| {
                let have = self.labels(sample).iter().find(|(label, _)| label == name);
                (have.map_or("", |(_, value)| value) == value) == *same
            })
        });
        matching.map(|sample| sample.value).reduce(|sum, value| sum + value)
    }
}

// === impl Malformed ===

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for Malformed {}

struct Reader<'a> {
    page: Page<'a>,
    /// Places in `page.families`. Names of OpenMetrics that were changed are in it too.
    by_name: HashMap<&'a str, usize>,
    /// The family whose announcement is being read.
    announced: Option<usize>,
    samples: usize,
    /// Series so far, as numbers of 64 bits that nobody can choose: two of 100,000 are equal by chance once in some
    /// billion pages.
    seen: HashSet<u64>,
    hasher: RandomState,
    /// Whether this is OpenMetrics.
    open: bool,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn line(&mut self, line: &'a str) -> Result<(), &'static str> {
        let line = trim(line);
        match line.strip_prefix('#') {
            _ if line.is_empty() => Ok(()),
            Some(comment) => self.comment(trim(comment)),
            None => self.sample(line),
        }
    }

    fn comment(&mut self, comment: &'a str) -> Result<(), &'static str> {
        let (keyword, rest) = comment.split_once(BLANKS).unwrap_or((comment, ""));
        if keyword != "HELP" && keyword != "TYPE" {
            return Ok(());
        }
        let rest = rest.trim_start_matches(BLANKS);
        let (name, rest) = match quoted(rest) {
            Some((name, after)) => (name, after.strip_prefix(BLANKS).or_else(|| after.is_empty().then_some(after))),
            None => {
                let (name, after) = rest.split_once(BLANKS).unwrap_or((rest, ""));
                (name, (name_length(name, true) == name.len() && !name.is_empty()).then_some(after))
            }
        };
        let rest = rest.ok_or("a family with a bad name")?;
        let Some(place) = self.announce(name)? else { return Ok(()) };
        let family = &mut self.page.families[place];
        if keyword == "HELP" {
            if family.help.is_some() {
                return Err("a second HELP of one family");
            }
            family.help = Some(help(rest, self.open));
        } else {
            if family.typed {
                return Err("a second TYPE of one family");
            }
            family.typed = true;
            family.kind = kind(trim(rest)).ok_or("an unknown type")?;
        }
        Ok(())
    }

    /// The family that a comment speaks of; `None`: one that has been there already.
    fn announce(&mut self, name: &'a str) -> Result<Option<usize>, &'static str> {
        let place = match self.by_name.get(name) {
            None => self.begin(name, Kind::Untyped)?,
            Some(place) => {
                let family = &mut self.page.families[*place];
                if !family.repeated && (!family.samples.is_empty() || self.announced != Some(*place)) {
                    family.repeated = true;
                    self.page.repeated += 1;
                }
                if family.repeated {
                    return Ok(None);
                }
                *place
            }
        };
        self.announced = Some(place);
        Ok(Some(place))
    }

    fn begin(&mut self, name: &'a str, kind: Kind) -> Result<usize, &'static str> {
        let place = self.page.families.len();
        if place >= FAMILIES_MAX {
            return Err("more families than are taken");
        }
        let family = Family { name, kind, help: None, samples: Vec::new(), repeated: false, typed: false };
        self.page.families.push(family);
        self.by_name.insert(name, place);
        Ok(place)
    }

    fn sample(&mut self, line: &'a str) -> Result<(), &'static str> {
        let (name, rest) = line.split_at(name_length(line, true));
        let first_label = self.page.labels.len();
        let (name, rest) = match rest.trim_start_matches(BLANKS).strip_prefix('{') {
            Some(inside) if name.is_empty() => {
                // A name that is not plain stands in quotes before the labels.
                let (name, after) = quoted(trim(inside)).ok_or("a sample with a bad name")?;
                let after = after.trim_start_matches(BLANKS);
                let labels = after.strip_prefix(',').or_else(|| after.starts_with('}').then_some(after));
                (name, self.labels(labels.ok_or("a sample with a bad name")?, first_label)?)
            }
            Some(inside) => (name, self.labels(inside, first_label)?),
            None if name.is_empty() || !rest.starts_with(BLANKS) => return Err("a sample with a bad name"),
            None => (name, rest),
        };
        // Only OpenMetrics has exemplars, behind a number sign.
        let (rest, _exemplar) = if self.open { rest.split_once(" # ").unwrap_or((rest, "")) } else { (rest, "") };
        let mut words = rest.split(BLANKS).filter(|word| !word.is_empty());
        let value = words.next().and_then(number).ok_or("a value that is no number")?;
        let timestamp = words.next().map(|word| self.timestamp(word).ok_or("a bad timestamp")).transpose()?;
        if words.next().is_some() {
            return Err("something behind the value and its timestamp");
        }
        let place = self.family_of(name)?;
        if self.page.families[place].repeated {
            self.page.labels.truncate(first_label);
            return Ok(());
        }
        let labels = first_label..self.page.labels.len();
        if !self.seen.insert(self.identity(name, labels.clone())) {
            return Err("a series that comes twice");
        }
        self.samples += 1;
        if self.samples > SAMPLES_MAX {
            return Err("more samples than are taken");
        }
        self.page.families[place].samples.push(Sample { name, value, timestamp, labels });
        Ok(())
    }

    /// Reads labels up to the closing brace, and gives what follows it.
    fn labels(&mut self, inside: &'a str, first: usize) -> Result<&'a str, &'static str> {
        let mut rest = inside;
        loop {
            rest = rest.trim_start_matches(BLANKS);
            if let Some(after) = rest.strip_prefix('}') {
                return Ok(after);
            }
            let (name, after) = quoted(rest).unwrap_or_else(|| rest.split_at(name_length(rest, false)));
            let after = after.trim_start_matches(BLANKS).strip_prefix('=');
            let value = after.and_then(|after| after.trim_start_matches(BLANKS).strip_prefix('"'));
            let (false, Some(value)) = (name.is_empty(), value) else { return Err("a bad label") };
            let length = closing_quote(value).ok_or("a label value without an end")?;
            // What Prometheus keeps the name of a series in.
            if name == "__name__" || self.page.labels[first..].iter().any(|(other, _)| *other == name) {
                return Err("a label that comes twice");
            }
            if self.page.labels.len() - first >= LABELS_MAX {
                return Err("more labels than are taken");
            }
            self.page.labels.push((name, unescape(&value[..length])?));
            rest = value[length + 1..].trim_start_matches(BLANKS);
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None if rest.starts_with('}') => {}
                None => return Err("labels without an end"),
            }
        }
    }

    /// The family that a series belongs to; a new one if nothing else was announced.
    fn family_of(&mut self, name: &'a str) -> Result<usize, &'static str> {
        if let Some(place) = self.by_name.get(name).copied() {
            // Announced as `x`, this counter turned out to be `x_total`: then `x` is something else.
            let family = &self.page.families[place];
            return if family.kind == Kind::Counter && family.name != name && !family.repeated {
                self.begin(name, Kind::Untyped)
            } else {
                Ok(place)
            };
        }
        let announced = |suffix: &str| {
            let place = *self.by_name.get(name.strip_suffix(suffix)?)?;
            Some((place, &self.page.families[place]))
        };
        for (suffix, kinds) in [
            ("_bucket", &[Kind::Histogram][..]),
            ("_sum", &[Kind::Histogram, Kind::Summary]),
            ("_count", &[Kind::Histogram, Kind::Summary]),
        ] {
            if let Some((place, _)) = announced(suffix).filter(|(_, family)| kinds.contains(&family.kind)) {
                return Ok(place);
            }
        }
        // The rest is how OpenMetrics spells it.
        match announced("_total").filter(|(_, family)| family.kind == Kind::Counter) {
            Some((place, family)) if family.repeated => return Ok(place),
            Some((place, family)) if family.samples.is_empty() => {
                self.page.families[place].name = name;
                self.by_name.insert(name, place);
                return Ok(place);
            }
            _ => {}
        }
        let created = [Kind::Counter, Kind::Histogram, Kind::Summary];
        match announced("_created").filter(|(_, family)| created.contains(&family.kind)) {
            Some((place, family)) if family.repeated => Ok(place),
            Some(_) => self.begin(name, Kind::Gauge),
            None => self.begin(name, Kind::Untyped),
        }
    }

    /// What tells one series from another: name and labels, in whatever order, without empty ones.
    fn identity(&self, name: &str, labels: Range<usize>) -> u64 {
        let labels = self.page.labels[labels].iter().filter(|(_, value)| !value.is_empty());
        labels.fold(self.hasher.hash_one(name), |sum, label| sum.wrapping_add(self.hasher.hash_one(label)))
    }

    /// In milliseconds.
    fn timestamp(&self, word: &str) -> Option<i64> {
        if !self.open {
            return word.parse().ok();
        }
        let milliseconds = (number(word)? * 1000.0).round();
        // Up to here every millisecond is a number of its own.
        (milliseconds.abs() < 9e15).then_some(milliseconds as i64)
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

fn trim(text: &str) -> &str {
    text.trim_matches(BLANKS)
}

/// Bytes of the name that the text begins with: letters, digits, `_`, and in names of metrics `:`.
fn name_length(text: &str, colons: bool) -> usize {
    let legal = |(at, byte): (usize, u8)| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'_' => true,
        b'0'..=b'9' => at > 0,
        b':' => colons,
        _ => false,
    };
    text.bytes().enumerate().take_while(|place| legal(*place)).count()
}

/// A name in quotes, and what follows it. One with escapes is not taken, so that a name is always a part of the page;
/// nobody names anything with a quote or a backslash.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('"')?.split_once('"')?;
    (!name.is_empty() && !name.contains('\\')).then_some((name, after))
}

/// Where the quote is that ends the value which begins here.
fn closing_quote(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', &bytes[from..])?;
        if bytes[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
        if from > bytes.len() {
            return None;
        }
    }
}

/// The text of a label value: `\\`, `\n` and `\"` are escapes, and nothing else is.
fn unescape(text: &str) -> Result<Cow<'_, str>, &'static str> {
    let (plain, foreign) = without_escapes(text, true);
    if foreign { Err("an escape that does not exist") } else { Ok(plain) }
}

/// The text of a help. People read it, so a backslash that should have been two does no harm.
fn help(text: &str, quotes: bool) -> Cow<'_, str> {
    without_escapes(text, quotes).0
}

/// Takes the escapes off, and says whether there were others, which stay as they are.
fn without_escapes(text: &str, quotes: bool) -> (Cow<'_, str>, bool) {
    if !text.contains('\\') {
        return (Cow::Borrowed(text), false);
    }
    let mut plain = String::with_capacity(text.len());
    let mut foreign = false;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        match letters.next() {
            Some('\\') => plain.push('\\'),
            Some('n') => plain.push('\n'),
            Some('"') if quotes => plain.push('"'),
            other => {
                foreign = true;
                plain.push('\\');
                plain.extend(other);
            }
        }
    }
    (Cow::Owned(plain), foreign)
}

fn kind(word: &str) -> Option<Kind> {
    Some(match word {
        "counter" => Kind::Counter,
        "gauge" => Kind::Gauge,
        "histogram" => Kind::Histogram,
        "summary" => Kind::Summary,
        "untyped" | "unknown" | "info" | "stateset" | "gaugehistogram" => Kind::Untyped,
        _ => return None,
    })
}

/// Decimal, or `Inf` and `NaN` in any spelling.
fn number(word: &str) -> Option<f64> {
    word.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Families as `name kind help` and samples as `name labels value timestamp`, one per line.
    fn told(page: &Page<'_>) -> Vec<String> {
        let mut lines = Vec::new();
        for family in &page.families {
            lines.push(format!("{} {:?} {:?}", family.name, family.kind, family.help.as_deref()));
            for sample in &family.samples {
                let labels: Vec<_> =
                    page.labels(sample).iter().map(|(name, value)| format!("{name}={value}")).collect();
                let Sample { name, value, timestamp, .. } = sample;
                lines.push(format!("  {name} [{}] {value} {timestamp:?}", labels.join(",")));
            }
        }
        lines
    }

    fn read(page: &str) -> Vec<String> {
        told(&parse(page.as_bytes()).unwrap_or_else(|error| panic!("{error} of\n{page}")))
    }

    #[test]
    fn each_part_of_a_page_is_read_into_its_own_place() {
        let page = "# HELP a_total With \\\\ and \\n and \\d and \".\n# TYPE a_total counter\n\n# a remark\n#\n\
            a_total{x=\"1\",y=\"back \\\\ line \\n quote \\\" comma , brace } é\"} 12.5 1700000000123\n\
            # TYPE h histogram\nh_bucket{le=\"+Inf\"} 14\nh_sum 15\nh_count 14\n\
            # TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum -Inf\ns_count 0\n\
            plain{} +Inf\n  spaced \t{ x = \"2\" , }\t1e3  -7  \nh_other 16\n\
            # TYPE empty gauge";
        let expected = [
            "a_total Counter Some(\"With \\\\ and \\n and \\\\d and \\\".\")",
            "  a_total [x=1,y=back \\ line \n quote \" comma , brace } é] 12.5 Some(1700000000123)",
            "h Histogram None",
            "  h_bucket [le=+Inf] 14 None",
            "  h_sum [] 15 None",
            "  h_count [] 14 None",
            "s Summary None",
            "  s [quantile=0.5] NaN None",
            "  s_sum [] -inf None",
            "  s_count [] 0 None",
            "plain Untyped None",
            "  plain [] inf None",
            "spaced Untyped None",
            "  spaced [x=2] 1000 Some(-7)",
            "h_other Untyped None",
            "  h_other [] 16 None",
            "empty Gauge None",
        ];
        assert_eq!(read(page), expected);
        assert_eq!(read(&page.replace('\n', "\r\n")), expected, "line ends of CR LF");
        assert_eq!(read(&format!("{page}\n\n")), expected);
        assert_eq!(read(""), [""; 0]);
    }

    #[test]
    fn names_that_are_not_plain_stand_in_quotes() {
        let page = "# HELP \"a.b\" Help.\n# TYPE \"a.b\" histogram\n{\"a.b_bucket\",\"c d\"=\"1\",le=\"+Inf\"} 11\n\
            {\"a.b_sum\", \"c d\"=\"1\"} 12 13\n{ \"a.b_count\" ,\"c d\"=\"1\",} 11\n{\"温度\"} 14\nplain{\"é\"=\"15\"} 16\n\
            # TYPE \"empty\" gauge\n";
        let expected = [
            "a.b Histogram Some(\"Help.\")",
            "  a.b_bucket [c d=1,le=+Inf] 11 None",
            "  a.b_sum [c d=1] 12 Some(13)",
            "  a.b_count [c d=1] 11 None",
            "温度 Untyped None",
            "  温度 [] 14 None",
            "plain Untyped None",
            "  plain [é=15] 16 None",
            "empty Gauge None",
        ];
        assert_eq!(read(page), expected);
        for page in [
            "{} 1",
            "{\"\"} 1",
            "{\"a} 1",
            "{\"a\"=\"b\"} 1",
            "{\"a\\n\"} 1",
            "{\"a\"\"b\"} 1",
            "\"a\" 1",
            "# TYPE \"a\"gauge",
            "# TYPE \"\" gauge",
            "a{\"b\"} 1",
            "a{\"\"=\"1\"} 1",
            "{\"a\"",
            "{a=\"1\"} 1",
        ] {
            assert!(parse(page.as_bytes()).is_err(), "{page}");
        }
    }

    #[test]
    fn openmetrics_is_read_as_the_older_format_would_have_it() {
        let page = "# TYPE c counter\n# UNIT c bytes\n# HELP c Say \\\"hi\\\".\nc_total{a=\"1\"} 12.0 1.5 # {trace_id=\"x\"} 1.0\n\
            c_created{a=\"1\"} 13.0\nc_total{a=\"2\"} 14.0\nc_created{a=\"2\"} 15.0\n# TYPE i info\ni_info{v=\"1\"} 1\n# EOF\n";
        let expected = [
            "c_total Counter Some(\"Say \\\"hi\\\".\")",
            "  c_total [a=1] 12 Some(1500)",
            "  c_total [a=2] 14 None",
            "c_created Gauge None",
            "  c_created [a=1] 13 None",
            "  c_created [a=2] 15 None",
            "i Untyped None",
            "i_info Untyped None",
            "  i_info [v=1] 1 None",
        ];
        assert_eq!(read(page), expected);
    }

    #[test]
    fn beside_a_counter_that_was_announced_without_its_suffix_its_bare_name_is_something_else() {
        let expected = ["b_total Counter None", "  b_total [] 1 None", "b Untyped None", "  b [] 2 None"];
        assert_eq!(read("# TYPE b counter\nb_total 1\nb 2\n"), expected);
    }

    #[test]
    fn a_family_that_is_announced_again_is_left_out_and_one_that_is_only_continued_is_not() {
        let page = "# TYPE a counter\na{x=\"1\"} 1\n# TYPE b gauge\nb 2\n# HELP a Again.\n# TYPE a gauge\na{x=\"1\"} 3\n\
            a{x=\"9\"} 4\n# TYPE b gauge\nb 5\n# TYPE b gauge\nb 6\n";
        let parsed = parse(page.as_bytes()).unwrap();
        let expected = ["a Counter None", "  a [x=1] 1 None", "b Gauge None", "  b [] 2 None"];
        assert_eq!((told(&parsed), parsed.repeated), (expected.map(str::to_owned).to_vec(), 2));
        let parsed = parse(b"a{x=\"1\"} 1\nb 2\na{x=\"2\"} 3\n").unwrap();
        assert_eq!((parsed.families[0].samples.len(), parsed.families.len(), parsed.repeated), (2, 2, 0));
        let twice = "# TYPE c counter\nc_total 1\nc_created 2\n".repeat(2);
        assert!(parse(twice.as_bytes()).is_err(), "a series that nobody announced is not forgiven");
        let twice = "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_count 1\n".repeat(2);
        assert_eq!(parse(twice.as_bytes()).unwrap().repeated, 1);
    }

    #[test]
    fn what_the_format_does_not_allow_is_refused_with_its_line() {
        let many = (0..=LABELS_MAX).map(|n| format!("l{n}=\"\"")).collect::<Vec<_>>().join(",");
        for (page, line, problem) in [
            ("a 1\nä 2\n", 2, "a sample with a bad name"),
            ("1a 1\n", 1, "a sample with a bad name"),
            ("a\0b 1\n", 1, "a sample with a bad name"),
            ("a-b 1\n", 1, "a sample with a bad name"),
            ("{x=\"1\"} 1\n", 1, "a sample with a bad name"),
            ("<!doctype html>\n", 1, "a sample with a bad name"),
            ("a\n", 1, "a sample with a bad name"),
            ("a \n", 1, "a sample with a bad name"),
            ("a{} \n", 1, "a value that is no number"),
            ("a one\n", 1, "a value that is no number"),
            ("a 0x1p3\n", 1, "a value that is no number"),
            ("a 1,5\n", 1, "a value that is no number"),
            ("a 1 1.5\n", 1, "a bad timestamp"),
            ("a 1 2 3\n", 1, "something behind the value and its timestamp"),
            ("a 1 # {} 1\n", 1, "a bad timestamp"),
            ("a{x=\"1\" 1\n", 1, "labels without an end"),
            ("a{x=\"1\"y=\"2\"} 1\n", 1, "labels without an end"),
            ("a{x=\"1} 1\n", 1, "a label value without an end"),
            ("a{x=\"1\\\"} 1\n", 1, "a label value without an end"),
            ("a{x=\"1\\", 1, "a label value without an end"),
            ("a{x=\"\\t\"} 1\n", 1, "an escape that does not exist"),
            ("a{x=1} 1\n", 1, "a bad label"),
            ("a{x} 1\n", 1, "a bad label"),
            ("a{,} 1\n", 1, "a bad label"),
            ("a{x:y=\"\"} 1\n", 1, "a bad label"),
            ("a{x\0=\"\"} 1\n", 1, "a bad label"),
            ("a{x=\"1\",x=\"2\"} 1\n", 1, "a label that comes twice"),
            ("a{__name__=\"b\"} 1\n", 1, "a label that comes twice"),
            (&format!("a{{{many}}} 1\n"), 1, "more labels than are taken"),
            ("a 1\na 2\n", 2, "a series that comes twice"),
            ("a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\",z=\"\"} 2\n", 2, "a series that comes twice"),
            ("# TYPE a-b gauge\n", 1, "a family with a bad name"),
            ("# TYPE\n", 1, "a family with a bad name"),
            ("# TYPE a heap\n", 1, "an unknown type"),
            ("# TYPE a gauge\n# TYPE a gauge\n", 2, "a second TYPE of one family"),
            ("# HELP a b\n# HELP a b\n", 2, "a second HELP of one family"),
        ] {
            assert_eq!(parse(page.as_bytes()).map(|page| told(&page)), Err(Malformed { line, problem }), "{page}");
        }
        let error = parse(b"a 1\nb{x=\"\xff\"} 1\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2: bytes that are not UTF-8");
    }

    #[test]
    fn a_page_has_a_bounded_number_of_samples_and_families() {
        let samples = |count: usize| (0..count).map(|n| format!("a{{n=\"{n}\"}} 1\n")).collect::<String>();
        assert_eq!(parse(samples(SAMPLES_MAX).as_bytes()).unwrap().families[0].samples.len(), SAMPLES_MAX);
        let error = parse(samples(SAMPLES_MAX + 1).as_bytes()).unwrap_err();
        assert_eq!(error, Malformed { line: SAMPLES_MAX + 1, problem: "more samples than are taken" });
        let families: String = (0..=FAMILIES_MAX).map(|n| format!("# TYPE a{n} gauge\n")).collect();
        assert_eq!(parse(families.as_bytes()).unwrap_err().problem, "more families than are taken");
    }

    #[test]
    fn series_are_summed_by_name_and_labels() {
        let page = parse(b"a{p=\"x\",s=\"1\"} 1\na{p=\"x\",s=\"2\"} 2\na{p=\"y\"} 4\na 8\nab 16\n").unwrap();
        let sum = |conditions: &[(&str, bool, &str)]| {
            let own = conditions.iter().map(|(n, same, v)| ((*n).to_owned(), *same, (*v).to_owned()));
            page.sum("a", &own.collect::<Vec<_>>())
        };
        assert_eq!(sum(&[]), Some(15.0));
        assert_eq!(sum(&[("p", true, "x")]), Some(3.0));
        assert_eq!(sum(&[("p", true, "x"), ("s", false, "1")]), Some(2.0));
        assert_eq!(sum(&[("p", false, "x")]), Some(12.0));
        assert_eq!(sum(&[("p", true, "")]), Some(8.0), "a label that is not there is empty");
        assert_eq!(sum(&[("p", true, "z")]), None);
        assert_eq!(page.sum("b", &[]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in "([a-c_]{1,3}(_total|_created|_count)?(\\{[a-z=\\\\\", ]{0,12}\\})? [0-9.eNaInf+-]{1,4}\n|# (HELP|TYPE) [ab](_total)? (counter|summary|x)\n|[ -~\t\r\n]{0,9}){0,12}(# EOF\n)?",
        ) {
            let _ = (parse(&bytes), parse(text.as_bytes()));
        }
    }
}
