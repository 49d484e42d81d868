//! The backend's own page, written out behind ours in any format.
//!
//! Text 0.0.4 takes it as it is, family after family; but histograms with an edge, and summaries with a quantile, that is no
//! number, become untyped series, for some readers would refuse the whole page. OpenMetrics allows less, so there
//!
//! - a counter without `_total`, and whatever has no type, is `unknown`;
//! - `x_created`, which 0.0.4 knows as a gauge of its own, becomes part of the family `x`;
//! - the samples of one label set stand together, buckets in the order of their edges, edges in the canonical spelling;
//! - a family that breaks a rule of its kind (a bucket that sinks, no `+Inf`, a negative count, a name that another
//!   family of that page has) is passed on with each of its series as an `unknown` family: no number is lost or changed,
//!   and the page stays valid.
//!
//! Protobuf says the same as OpenMetrics, but that a counter needs no `_total` there, and a summary needs sum and count.

use std::collections::{HashMap, HashSet};

use super::encoder::{Profile, open, push_quoted};
use super::escaping::{Escaping, is_plain, is_plain_label, push_label_name, push_name};
use super::number::{Style, push_edge, push_value};
use super::protobuf::{self, Backward, Head};
use super::sink::Sink;
use super::{Filter, Format, openmetrics, text};
use crate::scrape::text::{Family, Kind, Page, Sample};
use crate::signals::snapshot;

/// Names that are not plain, and what they become.
#[derive(Debug, Default)]
pub(super) struct Names {
    of_series: HashMap<String, String>,
    of_labels: HashMap<String, String>,
}

/// A page of somebody else beside ours.
pub(super) struct Foreign<'p, 'a> {
    page: &'p Page<'a>,
    /// Places of the families that are written, and all names of each.
    fitting: Vec<(usize, Vec<String>)>,
    /// Those that fulfil the rules of their kind.
    typed: HashMap<usize, Typed<'p, 'a>>,
    /// Families `x_created`, and the family that each of them is a part of.
    parts: HashMap<usize, usize>,
    /// The other way round.
    part_of: HashMap<usize, usize>,
    /// Families that could not be kept: announced twice, or with a name that another one has.
    dropped: usize,
}

/// The names that one of our families takes: its own, those of its series, and those that OpenMetrics keeps free for it.
pub(super) fn names_of(name: &str, kind: snapshot::Kind) -> Vec<String> {
    let kind = match kind {
        snapshot::Kind::Counter => Kind::Counter,
        snapshot::Kind::Gauge => Kind::Gauge,
        snapshot::Kind::Histogram => Kind::Histogram,
        snapshot::Kind::Summary => Kind::Summary,
        snapshot::Kind::Unknown => Kind::Untyped,
    };
    names(name, kind)
}

fn names(name: &str, kind: Kind) -> Vec<String> {
    let (base, suffixes): (&str, &[&str]) = match (kind, name.strip_suffix("_total")) {
        (Kind::Counter, Some(base)) => (base, &["", "_total", "_created"]),
        (Kind::Histogram, _) => (name, &["", "_bucket", "_sum", "_count", "_created"]),
        (Kind::Summary, _) => (name, &["", "_sum", "_count", "_created"]),
        (Kind::Counter | Kind::Gauge | Kind::Untyped, _) => (name, &[""]),
    };
    suffixes.iter().map(|suffix| format!("{base}{suffix}")).collect()
}

// === impl Names ===

impl Names {
    /// The page with its names as this scheme has them, and whether any was another before.
    pub fn escape<'n>(&'n mut self, mut page: Page<'n>, escaping: Escaping) -> (Page<'n>, bool) {
        let Names { of_series, of_labels } = self;
        if escaping != Escaping::AllowUtf8 {
            for family in &page.families {
                if !is_plain(family.name) {
                    of_series.insert(family.name.to_owned(), escaping.apply(family.name));
                }
                for sample in &family.samples {
                    if !is_plain(sample.name) && !of_series.contains_key(sample.name) {
                        // A series is named like its family, with the suffix behind what has become of that.
                        let name = match sample.name.strip_prefix(family.name) {
                            Some(suffix) => format!("{}{suffix}", escaping.apply(family.name)),
                            None => escaping.apply(sample.name),
                        };
                        of_series.insert(sample.name.to_owned(), name);
                    }
                }
            }
            for name in page.label_names().filter(|name| !is_plain_label(name)) {
                of_labels.entry(name.to_owned()).or_insert_with(|| escaping.apply_to_label(name));
            }
        }
        let escaped = !(of_series.is_empty() && of_labels.is_empty());
        if escaped {
            page.rename(of_series, of_labels);
        }
        (page, escaped)
    }
}

// === impl Foreign ===

impl<'p, 'a> Foreign<'p, 'a> {
    /// The families of a page that fit beside these names. `escaped`: some names were others before, so that two may have
    /// become one.
    pub fn beside(page: &'p Page<'a>, taken: &HashSet<String>, escaped: bool) -> Foreign<'p, 'a> {
        let (kept, owners, mut dropped) = keep(page, escaped);
        let parts = created_parts(page, &kept, &owners);
        let mut typed: HashMap<usize, Typed<'_, '_>> = HashMap::new();
        let mut used: HashSet<String> = HashSet::new();
        for place in kept.iter().filter(|place| !parts.contains_key(place)) {
            let family = &page.families[*place];
            let names = names(family.name, family.kind);
            let free = names.iter().all(|name| {
                let owner = owners.get(name.as_str());
                !used.contains(name) && owner.is_none_or(|owner| owner == place || parts.get(owner) == Some(place))
            });
            if let Some(found) = Typed::of(page, family).filter(|_| free) {
                used.extend(names);
                typed.insert(*place, found);
            }
        }
        let mut fitting = Vec::new();
        for place in kept {
            let family = &page.families[place];
            let mut names = names(family.name, family.kind);
            names.extend(family.samples.iter().map(|sample| sample.name.to_owned()));
            names.sort_unstable();
            names.dedup();
            if names.iter().any(|name| taken.contains(name)) {
                dropped += 1;
            } else {
                fitting.push((place, names));
            }
        }
        let part_of = parts.iter().map(|(part, of)| (*of, *part)).collect();
        Foreign { page, fitting, typed, parts, part_of, dropped }
    }

    /// How many families are left out: they were announced twice, or have a name that is taken.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Writes the families that are wanted.
    pub fn write(&self, format: Format, filter: &Filter, sink: &mut Sink) {
        let (mut out, mut backward) = (Sink::buffer(), Backward::new());
        for (place, _) in self.fitting.iter().filter(|(_, names)| filter.takes(names)) {
            match format {
                Format::Text | Format::Text1 => write_text(&mut out, self.page, &self.page.families[*place]),
                Format::OpenMetrics | Format::OpenMetricsDraft => self.write_open(&mut out, *place),
                Format::Protobuf => {
                    self.write_protobuf(&mut backward, *place);
                    sink.write(backward.bytes());
                    backward.clear();
                }
            }
            sink.offer(&mut out);
        }
        sink.take(&mut out);
    }

    /// The family that fulfils the rules of its kind, and those of `also`, and its creation times. `Err`: it is written
    /// without a kind, unless `true`, for then it is a part of another.
    fn typed(
        &self,
        place: usize,
        also: impl Fn(&Typed<'p, 'a>, &Family<'a>) -> bool,
    ) -> Result<(&Typed<'p, 'a>, Option<&'p Family<'a>>), bool> {
        let typed = |place: &usize| self.typed.get(place).filter(|typed| also(typed, &self.page.families[*place]));
        let is_part = || self.parts.get(&place).is_some_and(|of| typed(of).is_some());
        let typed = typed(&place).ok_or_else(is_part)?;
        Ok((typed, self.part_of.get(&place).map(|part| &self.page.families[*part])))
    }

    fn write_open(&self, out: &mut Vec<u8>, place: usize) {
        let family = &self.page.families[place];
        match self.typed(place, |_, _| true) {
            Ok((typed, created)) => typed.write(out, self.page, family, created),
            Err(true) => {}
            Err(false) => write_unknown(out, self.page, family, &openmetrics::PROFILE, Style::Dotted),
        }
    }

    /// What is written is in front of what has been written.
    fn write_protobuf(&self, out: &mut Backward, place: usize) {
        let family = &self.page.families[place];
        match self.typed(place, Typed::is_complete) {
            Ok((typed, created)) => typed.write_protobuf(out, self.page, family, created),
            Err(true) => {}
            Err(false) => write_unknown_protobuf(out, self.page, family),
        }
    }
}

/// Which families are kept, and to which of them each name belongs: a name is the first one's. And how many are not.
fn keep<'a>(page: &Page<'a>, escaped: bool) -> (Vec<usize>, HashMap<&'a str, usize>, usize) {
    let (mut kept, mut owners, mut dropped) = (Vec::new(), HashMap::new(), page.repeated);
    for (place, family) in page.families.iter().enumerate().filter(|(_, family)| !family.samples.is_empty()) {
        let series = || family.samples.iter().map(|sample| sample.name).chain([family.name]);
        let taken = series().any(|name| owners.get(name).is_some_and(|owner| *owner != place));
        if taken || (escaped && !is_unambiguous(page, family)) {
            dropped += 1;
            continue;
        }
        owners.extend(series().map(|name| (name, place)));
        kept.push(place);
    }
    (kept, owners, dropped)
}

/// Whether no label of a series and no series of a family comes twice.
fn is_unambiguous(page: &Page<'_>, family: &Family<'_>) -> bool {
    let mut seen = HashSet::new();
    family.samples.iter().all(|sample| {
        let labels = key(page, sample, None);
        labels.is_sorted_by(|(one, _), (other, _)| one < other) && seen.insert((sample.name, labels))
    })
}

/// Families `x_created`, and the family that each of them is a part of.
fn created_parts(page: &Page<'_>, kept: &[usize], owners: &HashMap<&str, usize>) -> HashMap<usize, usize> {
    let parts = kept.iter().filter_map(|place| {
        let family = &page.families[*place];
        let base = family.name.strip_suffix("_created")?;
        let of = |name: &str, kinds: &[Kind]| {
            let owner = *owners.get(name)?;
            let known = &page.families[owner];
            (known.name == name && kinds.contains(&known.kind)).then_some(owner)
        };
        let of = of(&format!("{base}_total"), &[Kind::Counter])
            .or_else(|| of(base, &[Kind::Histogram, Kind::Summary]))
            .filter(|_| matches!(family.kind, Kind::Gauge | Kind::Untyped))?;
        Some((*place, of))
    });
    parts.collect()
}

/// Labels sorted by name.
type Key<'p> = Vec<(&'p str, &'p str)>;

/// A family that fulfils the rules of its kind: its samples by label set. Only histograms and summaries have several in
/// one.
struct Typed<'p, 'a> {
    groups: Vec<Vec<&'p Sample<'a>>>,
}

// === impl Typed ===

impl<'p, 'a> Typed<'p, 'a> {
    /// `None`: a rule is broken.
    fn of(page: &'p Page<'a>, family: &'p Family<'a>) -> Option<Typed<'p, 'a>> {
        let counts = |sample: &Sample<'_>| sample.name == family.name && sample.value >= 0.0;
        match family.kind {
            Kind::Counter if !family.samples.iter().all(counts) => return None,
            Kind::Counter | Kind::Gauge | Kind::Untyped => return Some(Typed { groups: Vec::new() }),
            Kind::Histogram | Kind::Summary => {}
        }
        let edge = edge_label(family.kind);
        let mut groups: Vec<Vec<&Sample<'a>>> = Vec::new();
        let mut places: HashMap<Key<'p>, usize> = HashMap::new();
        for sample in &family.samples {
            let place = *places.entry(key(page, sample, edge)).or_insert(groups.len());
            if place == groups.len() {
                groups.push(Vec::new());
            }
            groups[place].push(sample);
        }
        let valid = |group: &mut Vec<&Sample<'a>>| match family.kind {
            Kind::Histogram => histogram_is_valid(page, family.name, group),
            _ => summary_is_valid(page, family.name, group),
        };
        let one_time = |group: &[&Sample<'a>]| group.iter().all(|sample| sample.timestamp == group[0].timestamp);
        groups.iter_mut().all(|group| valid(group) && one_time(group)).then_some(Typed { groups })
    }

    fn write(&self, out: &mut Vec<u8>, page: &Page<'a>, family: &Family<'a>, created: Option<&Family<'a>>) {
        header(out, &openmetrics::PROFILE, family.name, family.kind, family.help.as_deref());
        let created: HashMap<Key<'_>, &Sample<'a>> = created.map_or_else(HashMap::new, |created| {
            created.samples.iter().map(|sample| (key(page, sample, None), sample)).collect()
        });
        let edge = edge_label(family.kind);
        let mut write = |group: &[&Sample<'a>]| {
            for sample in group {
                // Buckets and counts are whole numbers and look like it.
                let whole = edge.is_some() && (sample.name.ends_with("_bucket") || sample.name.ends_with("_count"));
                let style = if whole { Style::Plain } else { Style::Dotted };
                line(out, page, sample, &openmetrics::PROFILE, style, edge);
            }
            let Some(first) = group.first().filter(|_| !created.is_empty()) else { return };
            if let Some(created) = created.get(&key(page, first, edge)) {
                let mut created = Sample::clone(created);
                created.timestamp = first.timestamp;
                line(out, page, &created, &openmetrics::PROFILE, Style::Dotted, None);
            }
        };
        match edge {
            Some(_) => self.groups.iter().for_each(|group| write(group)),
            None => family.samples.iter().for_each(|sample| write(&[sample])),
        }
    }
}

impl<'a> Typed<'_, 'a> {
    /// Whether it says all that protobuf has to be told.
    fn is_complete(&self, family: &Family<'a>) -> bool {
        let has = |group: &[&Sample<'a>], suffix: &str| {
            group.iter().any(|sample| sample.name.strip_prefix(family.name) == Some(suffix))
        };
        self.groups.iter().all(|group| has(group, "_sum") && has(group, "_count"))
    }

    fn write_protobuf(&self, out: &mut Backward, page: &Page<'a>, family: &Family<'a>, created: Option<&Family<'a>>) {
        let created: HashMap<Key<'_>, f64> = created.map_or_else(HashMap::new, |created| {
            created.samples.iter().map(|sample| (key(page, sample, None), sample.value)).collect()
        });
        let edge = edge_label(family.kind);
        let write = |out: &mut Backward, value: &snapshot::Value, first: &Sample<'a>| {
            let created_seconds = match created.is_empty() {
                true => None,
                false => created.get(&key(page, first, edge)).copied(),
            };
            let kind = kind(family.kind);
            let sample = protobuf::Sample { kind, value, created_seconds, timestamp: first.timestamp };
            let labels = page.labels(first).iter().rev().map(|(name, value)| (*name, &**value));
            sample.write(out, labels.filter(|(name, _)| Some(*name) != edge));
        };
        let base = family.name.strip_suffix("_total").filter(|_| family.kind == Kind::Counter);
        head(family.name, family.kind, family).write(out, base.unwrap_or(family.name), |out| match family.kind {
            Kind::Histogram | Kind::Summary => {
                for group in self.groups.iter().rev() {
                    let value = match family.kind {
                        Kind::Histogram => histogram(page, family.name, group),
                        _ => summary(page, family.name, group),
                    };
                    group.iter().take(1).for_each(|first| write(out, &value, first));
                }
            }
            Kind::Counter => {
                for sample in family.samples.iter().rev() {
                    write(out, &snapshot::Value::Counter(sample.value, None), sample);
                }
            }
            Kind::Gauge | Kind::Untyped => {
                for sample in family.samples.iter().rev() {
                    write(out, &snapshot::Value::Number(sample.value), sample);
                }
            }
        });
    }
}

/// The value of a group that [`histogram_is_valid`].
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn histogram(page: &Page<'_>, name: &str, group: &[&Sample<'_>]) -> snapshot::Value {
    let (mut edges, mut counts, mut sum, mut below) = (Vec::new(), Vec::new(), 0.0, 0);
    for sample in group {
        match (sample.name.strip_prefix(name), edge_of(page, sample, "le")) {
            (Some("_bucket"), Some(edge)) => {
                // It is a count, so the cast is exact, and it does not sink.
                let count = sample.value as u64;
                counts.push(count - below);
                below = count;
                edges.push(edge);
            }
            (Some("_sum"), _) => sum = sample.value,
            _ => {}
        }
    }
    // The infinite one.
    edges.pop();
    let histogram = snapshot::Histogram { edges: edges.into(), counts, sum, native: None, exemplars: Vec::new() };
    snapshot::Value::Histogram(Box::new(histogram))
}

/// The value of a group that [`summary_is_valid`].
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn summary(page: &Page<'_>, name: &str, group: &[&Sample<'_>]) -> snapshot::Value {
    let (mut quantiles, mut sum, mut count) = (Vec::new(), 0.0, 0);
    for sample in group {
        match (sample.name.strip_prefix(name), edge_of(page, sample, "quantile")) {
            (Some(""), Some(quantile)) => quantiles.push((quantile, sample.value)),
            (Some("_sum"), _) => sum = sample.value,
            (Some("_count"), _) => count = sample.value as u64,
            _ => {}
        }
    }
    snapshot::Value::Summary(quantiles, sum, count)
}

/// The label that is no part of the label set of a group.
fn edge_label(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Histogram => Some("le"),
        Kind::Summary => Some("quantile"),
        Kind::Counter | Kind::Gauge | Kind::Untyped => None,
    }
}

fn key<'p>(page: &'p Page<'_>, sample: &Sample<'_>, without: Option<&str>) -> Key<'p> {
    let labels = page.labels(sample).iter().map(|(name, value)| (*name, &**value));
    let mut key: Key<'p> = labels.filter(|(name, _)| Some(*name) != without).collect();
    key.sort_unstable();
    key
}

/// The number in the label `le` or `quantile`.
fn edge_of(page: &Page<'_>, sample: &Sample<'_>, label: &str) -> Option<f64> {
    let (_, value) = page.labels(sample).iter().find(|(name, _)| *name == label)?;
    value.parse().ok()
}

/// Whether a value can be a count: whole, and of 64 bits.
fn is_count(value: f64) -> bool {
    (0.0..18_446_744_073_709_551_616.0).contains(&value) && value.fract() == 0.0
}

/// Sorts buckets by edge, and says whether this is a histogram: edges from 0 up to `+Inf`, counts that do not sink and end
/// in the count, and a sum, which is no less than 0 (OpenMetrics 1.0.0, "Histogram").
fn histogram_is_valid(page: &Page<'_>, name: &str, group: &mut Vec<&Sample<'_>>) -> bool {
    let (mut buckets, mut rest) = (Vec::new(), Vec::new());
    let (mut count, mut sum, mut ordinary) = (None, false, true);
    for sample in group.drain(..) {
        let edge = edge_of(page, sample, "le");
        match (sample.name.strip_prefix(name), edge) {
            (Some("_bucket"), Some(edge)) if edge >= 0.0 && is_count(sample.value) => buckets.push((edge, sample)),
            (Some("_sum"), None) if sample.value >= 0.0 => {
                sum = true;
                rest.push(sample);
            }
            (Some("_count"), None) if is_count(sample.value) => {
                count = Some(sample.value);
                rest.push(sample);
            }
            _ => ordinary = false,
        }
    }
    buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let rises = buckets.is_sorted_by(|(one, a), (other, b)| one < other && a.value <= b.value);
    let ends = buckets.last().is_some_and(|(edge, last)| edge.is_infinite() && Some(last.value) == count);
    group.extend(buckets.into_iter().map(|(_, sample)| sample).chain(rest));
    ordinary && sum && rises && ends
}

/// Whether this is a summary: each quantile from 0 to 1 and there once, no negative numbers (OpenMetrics 1.0.0,
/// "Summary").
fn summary_is_valid(page: &Page<'_>, name: &str, group: &[&Sample<'_>]) -> bool {
    let mut quantiles = Vec::new();
    let ordinary =
        group.iter().all(|sample| match (sample.name.strip_prefix(name), edge_of(page, sample, "quantile")) {
            (Some(""), Some(quantile)) if (0.0..=1.0).contains(&quantile) => {
                quantiles.push(quantile);
                // One of nothing is not a number.
                sample.value >= 0.0 || sample.value.is_nan()
            }
            (Some("_sum"), None) => sample.value >= 0.0,
            (Some("_count"), None) => is_count(sample.value),
            _ => false,
        });
    quantiles.sort_by(f64::total_cmp);
    ordinary && quantiles.is_sorted_by(|one, other| one < other)
}

/// In text 0.0.4.
fn write_text(out: &mut Vec<u8>, page: &Page<'_>, family: &Family<'_>) {
    if !edges_are_numbers(page, family) {
        return write_unknown(out, page, family, &text::PROFILE, Style::Plain);
    }
    header(out, &text::PROFILE, family.name, family.kind, family.help.as_deref());
    for sample in &family.samples {
        line(out, page, sample, &text::PROFILE, Style::Plain, None);
    }
}

/// Each series name as a family of which nothing is known.
fn write_unknown(out: &mut Vec<u8>, page: &Page<'_>, family: &Family<'_>, profile: &Profile, style: Style) {
    for name in series_names(family) {
        header(out, profile, name, Kind::Untyped, family.help.as_deref());
        for sample in family.samples.iter().filter(|sample| sample.name == name) {
            line(out, page, sample, profile, style, None);
        }
    }
}

/// Whether each edge or quantile is one for every reader of text.
fn edges_are_numbers(page: &Page<'_>, family: &Family<'_>) -> bool {
    let Some(edge) = edge_label(family.kind) else { return true };
    let number = |text: &str| match text.parse::<f64>() {
        // Go takes no sign before this.
        Ok(number) if number.is_nan() => !text.starts_with(['+', '-']),
        // And no digits that are too many for a number.
        Ok(number) if number.is_infinite() => !text.contains(|c: char| c.is_ascii_digit()),
        parsed => parsed.is_ok(),
    };
    let mut labels = family.samples.iter().flat_map(|sample| page.labels(sample));
    labels.all(|(name, value)| *name != edge || number(value))
}

/// The same in protobuf, from the last to the first.
fn write_unknown_protobuf(out: &mut Backward, page: &Page<'_>, family: &Family<'_>) {
    for name in series_names(family).into_iter().rev() {
        head(name, Kind::Untyped, family).write(out, name, |out| {
            for sample in family.samples.iter().rev().filter(|sample| sample.name == name) {
                let value = snapshot::Value::Number(sample.value);
                let labels = page.labels(sample).iter().rev().map(|(name, value)| (*name, &**value));
                let kind = snapshot::Kind::Unknown;
                let timestamp = sample.timestamp;
                protobuf::Sample { kind, value: &value, created_seconds: None, timestamp }.write(out, labels);
            }
        });
    }
}

/// The names of its series, each once.
fn series_names<'a>(family: &Family<'a>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for sample in &family.samples {
        if !names.contains(&sample.name) {
            names.push(sample.name);
        }
    }
    names
}

/// A kind in our own model.
fn kind(kind: Kind) -> snapshot::Kind {
    match kind {
        Kind::Counter => snapshot::Kind::Counter,
        Kind::Gauge => snapshot::Kind::Gauge,
        Kind::Histogram => snapshot::Kind::Histogram,
        Kind::Summary => snapshot::Kind::Summary,
        Kind::Untyped => snapshot::Kind::Unknown,
    }
}

fn head<'f>(name: &'f str, of: Kind, family: &'f Family<'_>) -> Head<'f> {
    Head { name, kind: kind(of), help: family.help.as_deref().unwrap_or_default() }
}

/// The same lines that open a family of ours.
fn header(out: &mut Vec<u8>, profile: &Profile, name: &str, of: Kind, help: Option<&str>) {
    (profile.header)(out, name, kind(of), help.unwrap_or_default());
}

/// A sample; the number in the label `edge` gets its canonical spelling.
fn line(out: &mut Vec<u8>, page: &Page<'_>, sample: &Sample<'_>, profile: &Profile, style: Style, edge: Option<&str>) {
    let mut labels = Vec::with_capacity(64);
    for (name, value) in page.labels(sample) {
        if !labels.is_empty() {
            labels.push(b',');
        }
        push_label_name(&mut labels, name);
        labels.extend_from_slice(b"=\"");
        match value.parse() {
            Ok(number) if Some(*name) == edge => push_edge(&mut labels, number, profile.style),
            _ => push_quoted(&mut labels, value),
        }
        labels.push(b'"');
    }
    if is_plain(sample.name) {
        open(out, sample.name.as_bytes(), b"", &labels, None);
    } else {
        // Such a name stands in quotes before the labels.
        let mut quoted = Vec::with_capacity(labels.len() + sample.name.len() + 4);
        push_name(&mut quoted, sample.name);
        if !labels.is_empty() {
            quoted.push(b',');
            quoted.extend_from_slice(&labels);
        }
        open(out, b"", b"", &quoted, None);
    }
    push_value(out, sample.value, style);
    if let Some(milliseconds) = sample.timestamp {
        out.push(b' ');
        (profile.timestamp)(out, milliseconds);
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as data;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::exposition::Encoding;
    use crate::scrape::text::parse;

    fn written(page: &str, taken: &[&str], format: Format) -> (String, usize) {
        let (bytes, dropped) = escaped(page, taken, format, Escaping::Underscores);
        (String::from_utf8(bytes).unwrap(), dropped)
    }

    fn escaped(page: &str, taken: &[&str], format: Format, escaping: Escaping) -> (Vec<u8>, usize) {
        let page = parse(page.as_bytes()).unwrap_or_else(|error| panic!("{error} of\n{page}"));
        let taken = taken.iter().map(|name| (*name).to_owned()).collect();
        let mut names = Names::default();
        let (page, escaped) = names.escape(page, escaping);
        let foreign = Foreign::beside(&page, &taken, escaped);
        let mut sink = Sink::new(Encoding::Identity);
        foreign.write(format, &Filter::default(), &mut sink);
        (sink.finish().chunks.concat(), foreign.dropped())
    }

    fn decoded(mut bytes: &[u8]) -> Vec<data::MetricFamily> {
        let mut families = Vec::new();
        while !bytes.is_empty() {
            families.push(data::MetricFamily::decode_length_delimited(&mut bytes).expect("a message"));
        }
        families
    }

    fn open(page: &str) -> String {
        written(page, &[], Format::OpenMetrics).0
    }

    const PAGE: &str = r#"# HELP a_total Help with \\ and \n.
# TYPE a_total counter
a_total{x="q\"\\\n"} 12 1500
# TYPE a_created gauge
a_created{x="q\"\\\n"} 13.5
# TYPE jobs counter
jobs 14
# TYPE g_bytes gauge
g_bytes{y="1",z="2"} -Inf
# TYPE h_seconds histogram
h_seconds_sum{x="1"} 15.25
h_seconds_count{x="1"} 16
h_seconds_bucket{le="+Inf",x="1"} 16
h_seconds_bucket{le="1",x="1"} 15
h_seconds_bucket{le="0.50",x="1"} 0
# TYPE s summary
s{quantile="0.990"} NaN
s{quantile="1"} 17.5
s_sum 18
s_count 19
# TYPE u untyped
u{} NaN
bare_total 20
"#;

    #[test]
    fn text_takes_it_as_it_is() {
        let expected = PAGE.replace("u{} NaN\nbare_total", "u NaN\n# TYPE bare_total untyped\nbare_total");
        assert_eq!(written(PAGE, &[], Format::Text), (expected, 0));
    }

    #[test]
    fn edges_that_are_no_numbers_make_untyped_series_of_a_family() {
        for edge in ["x", "", "1e400", "+NaN", "0x1p-2", "1_0"] {
            let page = format!(
                "# HELP h H.\n# TYPE h histogram\nh_bucket{{le=\"{edge}\"}} 1\nh_sum 2\nh_bucket{{le=\"+Inf\"}} 1\n\
                 # TYPE s summary\ns{{quantile=\"{edge}\"}} 3\ns_count 4\n# TYPE g gauge\ng{{le=\"{edge}\"}} 5\n"
            );
            let expected = format!(
                "# HELP h_bucket H.\n# TYPE h_bucket untyped\nh_bucket{{le=\"{edge}\"}} 1\nh_bucket{{le=\"+Inf\"}} 1\n\
                 # HELP h_sum H.\n# TYPE h_sum untyped\nh_sum 2\n# TYPE s untyped\ns{{quantile=\"{edge}\"}} 3\n\
                 # TYPE s_count untyped\ns_count 4\n# TYPE g gauge\ng{{le=\"{edge}\"}} 5\n"
            );
            assert_eq!(written(&page, &[], Format::Text), (expected, 0), "{edge}");
            let families = decoded(&escaped(&page, &[], Format::Protobuf, Escaping::Underscores).0);
            for name in ["h_bucket", "h_sum", "s", "s_count"] {
                let untyped = |family: &data::MetricFamily| {
                    family.name == name && family.r#type == i32::from(data::MetricType::Untyped)
                };
                assert!(families.iter().any(untyped), "{edge}: {families:?}");
            }
        }
        for edge in ["1", "-5e-3", ".5", "inf", "+Inf", "Infinity", "nan"] {
            let page = format!("# TYPE h histogram\nh_bucket{{le=\"{edge}\"}} 1\n");
            assert_eq!(written(&page, &[], Format::Text).0, page);
        }
    }

    #[test]
    fn openmetrics_gets_what_it_allows() {
        let expected = r#"# TYPE a counter
# HELP a Help with \\ and \n.
a_total{x="q\"\\\n"} 12.0 1.500
a_created{x="q\"\\\n"} 13.5 1.500
# TYPE jobs unknown
jobs 14.0
# TYPE g_bytes gauge
# UNIT g_bytes bytes
g_bytes{y="1",z="2"} -Inf
# TYPE h_seconds histogram
# UNIT h_seconds seconds
h_seconds_bucket{le="0.5",x="1"} 0
h_seconds_bucket{le="1.0",x="1"} 15
h_seconds_bucket{le="+Inf",x="1"} 16
h_seconds_sum{x="1"} 15.25
h_seconds_count{x="1"} 16
# TYPE s summary
s{quantile="0.99"} NaN
s{quantile="1.0"} 17.5
s_sum 18.0
s_count 19
# TYPE u unknown
u NaN
# TYPE bare_total unknown
bare_total 20.0
"#;
        assert_eq!(open(PAGE), expected);
    }

    #[test]
    fn what_breaks_a_rule_of_openmetrics_is_passed_on_as_unknown() {
        let bucket = |edge: &str, count: &str| format!("h_bucket{{le=\"{edge}\"}} {count}\n");
        let histogram = |lines: &[String]| format!("# TYPE h histogram\n{}", lines.concat());
        for page in [
            "# TYPE c_total counter\nc_total -1\n".to_owned(),
            "# TYPE c_total counter\nc_total NaN\n".to_owned(),
            histogram(&[bucket("1", "2")]),
            histogram(&[bucket("+Inf", "2")]),
            histogram(&[bucket("+Inf", "2"), "h_count 2\n".into()]),
            histogram(&[bucket("+Inf", "2"), "h_count 3\nh_sum 1\n".into()]),
            histogram(&[bucket("+Inf", "1.5"), "h_count 1.5\nh_sum 1\n".into()]),
            histogram(&[bucket("1", "3"), bucket("+Inf", "2"), "h_count 2\nh_sum 1\n".into()]),
            histogram(&[bucket("1", "1"), bucket("1.0", "1"), bucket("+Inf", "2"), "h_count 2\nh_sum 1\n".into()]),
            histogram(&[bucket("-1", "1"), bucket("+Inf", "2"), "h_count 2\nh_sum 1\n".into()]),
            histogram(&[bucket("x", "1"), bucket("+Inf", "2"), "h_count 2\nh_sum 1\n".into()]),
            histogram(&[bucket("+Inf", "2"), "h_count 2\nh_sum -1\n".into()]),
            histogram(&[bucket("+Inf", "2"), "h_count 2 5\nh_sum 1\n".into()]),
            histogram(&["h 1\n".into()]),
            "# TYPE s summary\ns{quantile=\"1.5\"} 1\n".to_owned(),
            "# TYPE s summary\ns{quantile=\"0.5\"} -1\n".to_owned(),
            "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns{quantile=\"0.50\"} 1\n".to_owned(),
            "# TYPE s summary\ns 1\n".to_owned(),
            "# TYPE s summary\ns_count -1\n".to_owned(),
        ] {
            let out = open(&page);
            let kinds: Vec<_> = out.lines().filter(|line| line.starts_with("# TYPE")).collect();
            assert!(!kinds.is_empty() && kinds.iter().all(|line| line.ends_with(" unknown")), "{page}{out}");
            let lines = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
            assert_eq!(lines(&out), lines(&page), "{page}{out}");
        }
        let two = "# TYPE c_total counter\nc_total 1\n# TYPE c gauge\nc 2\n# TYPE c_created gauge\nc_created 3\n";
        let expected =
            "# TYPE c_total unknown\nc_total 1.0\n# TYPE c unknown\nc 2.0\n# TYPE c_created unknown\nc_created 3.0\n";
        assert_eq!(open(two).replace(" gauge", " unknown"), expected, "a counter that has no room for its short name");
    }

    #[test]
    fn a_family_with_a_name_that_is_taken_is_left_out_of_both_formats() {
        for taken in ["a", "a_total", "a_created"] {
            for format in [Format::Text, Format::OpenMetrics] {
                let (page, dropped) = written("# TYPE a_total counter\na_total 1\nb 2\n", &[taken], format);
                assert!(!page.contains("a_total") && page.contains("b 2") && dropped == 1, "{taken}: {page}");
            }
        }
        assert_eq!(names_of("x", snapshot::Kind::Histogram), ["x", "x_bucket", "x_sum", "x_count", "x_created"]);
        assert_eq!(names_of("x_total", snapshot::Kind::Counter), ["x", "x_total", "x_created"]);
        let repeated = "# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# TYPE a gauge\na 2\n";
        assert_eq!(written(repeated, &["b"], Format::Text), ("# TYPE a gauge\na 1\n".to_owned(), 2));
        let shared = "# TYPE s summary\ns_count 1\n# TYPE s_count gauge\ns_count{x=\"1\"} 2\n";
        assert_eq!(written(shared, &[], Format::Text), ("# TYPE s summary\ns_count 1\n".to_owned(), 1));
    }

    #[test]
    fn protobuf_says_the_same_in_messages() {
        let (bytes, _) = escaped(PAGE, &["jobs"], Format::Protobuf, Escaping::Underscores);
        let found = decoded(&bytes);
        let told = found.iter().map(|family| {
            let metrics = family.metric.iter().map(|metric| {
                let labels: Vec<_> =
                    metric.label.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
                let data::Metric { gauge, counter, summary, untyped, histogram, timestamp_ms, .. } = metric;
                let number = gauge.as_ref().map(|gauge| gauge.value).or(untyped.as_ref().map(|untyped| untyped.value));
                let value = number.map(|number| number.to_string());
                let value = value.or(counter.as_ref().map(|counter| {
                    format!(
                        "{} since {:?}",
                        counter.value,
                        counter.start_timestamp.as_ref().map(|time| (time.seconds, time.nanos))
                    )
                }));
                let value = value.or(summary.as_ref().map(|summary| {
                    let quantiles: Vec<_> = summary.quantile.iter().map(|pair| (pair.quantile, pair.value)).collect();
                    format!("{quantiles:?} {} {}", summary.sample_sum, summary.sample_count)
                }));
                let value = value.or(histogram.as_ref().map(|histogram| {
                    let buckets: Vec<_> =
                        histogram.bucket.iter().map(|part| (part.upper_bound, part.cumulative_count)).collect();
                    format!("{buckets:?} {} {}", histogram.sample_sum, histogram.sample_count)
                }));
                format!("{labels:?} {} at {timestamp_ms}", value.unwrap())
            });
            let metrics: Vec<_> = metrics.collect();
            format!("{} {:?} {:?} {:?} {}", family.name, family.r#type(), family.help, family.unit, metrics.join("; "))
        });
        let expected = [
            r#"a_total Counter "Help with \\ and \n." "" ["x=q\"\\\n"] 12 since Some((13, 500000000)) at 1500"#,
            r#"g_bytes Gauge "" "bytes" ["y=1", "z=2"] -inf at 0"#,
            r#"h_seconds Histogram "" "seconds" ["x=1"] [(0.5, 0), (1.0, 15)] 15.25 16 at 0"#,
            r#"s Summary "" "" [] [(0.99, NaN), (1.0, 17.5)] 18 19 at 0"#,
            r#"u Untyped "" "" [] NaN at 0"#,
            r#"bare_total Untyped "" "" [] 20 at 0"#,
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        // What breaks a rule, or lacks what every summary has, is passed on series by series.
        let (bytes, _) =
            escaped("# TYPE s summary\ns_sum 1\ns{quantile=\"0.5\"} 2\n", &[], Format::Protobuf, Escaping::Dots);
        let mut rest = &bytes[..];
        for (name, value) in [("s_sum", 1.0), ("s", 2.0)] {
            let family = data::MetricFamily::decode_length_delimited(&mut rest).unwrap();
            assert_eq!((family.name.as_str(), family.metric[0].untyped.as_ref().unwrap().value), (name, value));
        }
        assert!(rest.is_empty());
    }

    const UNUSUAL: &str = r#"# HELP "a.b" Help.
# TYPE "a.b" histogram
{"a.b_bucket","c d"="1",le="+Inf"} 11
{"a.b_sum","c d"="1"} 12
{"a.b_count","c d"="1"} 11
# TYPE "q.c_total" counter
{"q.c_total"} 13
# TYPE plain gauge
plain{"é"="14"} 15
"#;

    #[test]
    fn names_that_are_not_plain_are_quoted_for_those_who_asked_and_escaped_for_the_others() {
        let as_text = |escaping| {
            let (bytes, dropped) = escaped(UNUSUAL, &[], Format::Text1, escaping);
            assert_eq!(dropped, 0);
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(as_text(Escaping::AllowUtf8), UNUSUAL);
        let values = r#"# HELP U__a_2e_b Help.
# TYPE U__a_2e_b histogram
U__a_2e_b_bucket{U__c_20_d="1",le="+Inf"} 11
U__a_2e_b_sum{U__c_20_d="1"} 12
U__a_2e_b_count{U__c_20_d="1"} 11
# TYPE U__q_2e_c__total counter
U__q_2e_c__total 13
# TYPE plain gauge
plain{U___e9_="14"} 15
"#;
        assert_eq!(as_text(Escaping::Values), values);
        let replaced = |a: &str, b: &str, c: &str, d: &str| {
            let text = values.replace("U__a_2e_b", a).replace("U__q_2e_c__total", b);
            text.replace("U__c_20_d", c).replace("U___e9_", d)
        };
        assert_eq!(as_text(Escaping::Underscores), replaced("a_b", "q_c_total", "c_d", "_"));
        assert_eq!(as_text(Escaping::Dots), replaced("a_dot_b", "q_dot_c__total", "c__d", "__"));

        let (open, _) = escaped(UNUSUAL, &[], Format::OpenMetrics, Escaping::AllowUtf8);
        let open = String::from_utf8(open).unwrap();
        assert!(open.contains("# TYPE \"q.c\" counter\n{\"q.c_total\"} 13.0\n"), "{open}");
        assert!(open.contains("{\"a.b_bucket\",\"c d\"=\"1\",le=\"+Inf\"} 11\n"), "{open}");
    }

    #[test]
    fn of_families_that_escaping_makes_one_the_first_is_kept() {
        let page = "{\"a.b\"} 1\na_b 2\nc{\"d.e\"=\"1\",d_e=\"2\"} 3\nf{\"g.h\"=\"1\"} 4\nf{g_h=\"1\"} 5\ni{\"j:k\"=\"1\"} 6\n";
        let expected = "# TYPE a_b untyped\na_b 1\n# TYPE i untyped\ni{j_k=\"1\"} 6\n";
        assert_eq!(written(page, &[], Format::Text), (expected.to_owned(), 3));
        let (all, dropped) = escaped(page, &[], Format::Text, Escaping::AllowUtf8);
        assert_eq!((all.iter().filter(|byte| **byte == b'\n').count(), dropped), (11, 0));
    }

    /// Lines as exporters of all qualities may write them.
    fn pages() -> impl Strategy<Value = String> {
        let name = "[abc](_total|_created|_bucket|_sum|_count)?";
        let labels = "(\\{(x=\"[12]?\",?)?(y=\"(\\\\[\\\\n\"]|[a-b#{} é]){0,2}\",?)?\\}|\\{(le|quantile)=\"(0|0\\.5|0\\.50|1|1\\.0|\\+Inf|1e9)\"\\})?";
        let value = "([0-3]|0|1|2\\.0|1\\.5|-1|NaN|\\+Inf|1e300|123456789012345678)( (17|-5|1700000000123))?";
        let sample = format!("{name}{labels} {value}");
        let line = prop_oneof![
            4 => proptest::string::string_regex(&sample).unwrap(),
            2 => "# TYPE [abc](_total|_created|_count)? (counter|gauge|histogram|summary|untyped)",
            1 => "# HELP [abc](_total)? [a\\\\\"n]{0,4}",
            1 => "# UNIT [abc] seconds",
        ];
        let lines = proptest::collection::vec(line, 0..12);
        // Whole families as well, because lines by chance seldom make one.
        let whole = ("[a-d]", "[12]?", "( 17)?", 0..3_u8, 0..4_u8).prop_map(|(name, value, time, kind, label)| {
            let (one, labels) = (format!("x=\"{value}\""), format!("{{x=\"{value}\"}}"));
            match kind {
                0 => format!(
                    "# TYPE {name}_total counter\n{name}_total{labels} 1{time}\n{name}_total{{y=\"{label}\"}} 2\n\
                     # TYPE {name}_created gauge\n{name}_created{{y=\"{label}\"}} 1.5e9\n{name}_created{labels} 3"
                ),
                1 => format!(
                    "# TYPE {name} histogram\n{name}_bucket{{le=\"+Inf\",{one}}} 3{time}\n\
                     {name}_bucket{{{one},le=\"{label}\"}} 1{time}\n{name}_sum{labels} 2.5{time}\n\
                     {name}_count{labels} 3{time}\n{name}_created{labels} 4"
                ),
                _ => format!(
                    "# TYPE {name} summary\n{name}{{{one},quantile=\"0.{label}\"}} NaN\n{name}_count{labels} 5\n\
                     {name}_sum{labels} 6\n{name}_created{labels} 7"
                ),
            }
        });
        let whole = proptest::collection::vec(whole, 0..4);
        // And one line of the page may be missing.
        (whole, lines, any::<bool>(), any::<proptest::sample::Index>(), any::<bool>()).prop_map(
            |(whole, lines, open, index, cut)| {
                let all = whole.into_iter().chain(lines).collect::<Vec<_>>().join("\n");
                let mut all: Vec<&str> = all.lines().collect();
                if cut && !all.is_empty() {
                    all.remove(index.index(all.len()));
                }
                let end = if open { "# EOF\n" } else { "" };
                all.into_iter().flat_map(|line| [line, "\n"]).chain([end]).collect::<String>()
            },
        )
    }

    fn told(page: &str) -> Vec<String> {
        let page = parse(page.as_bytes()).unwrap_or_else(|error| panic!("{error} of\n{page}"));
        let families = page.families.iter().filter(|family| !family.samples.is_empty());
        let families = families.map(|family| {
            let samples = family
                .samples
                .iter()
                .map(|sample| (sample.name, page.labels(sample).to_vec(), sample.value.to_string(), sample.timestamp));
            let help = family.help.as_deref().filter(|help| !help.is_empty());
            format!("{} {:?} {:?} {:?}", family.name, family.kind, help, samples.collect::<Vec<_>>())
        });
        families.collect()
    }

    proptest! {
        #[test]
        fn what_is_written_from_a_page_reads_as_the_same_page(page in pages()) {
            if parse(page.as_bytes()).is_err() {
                return Ok(());
            }
            let (text, dropped) = written(&page, &[], Format::Text);
            if dropped == 0 {
                prop_assert_eq!(told(&text), told(&page), "{}\n{}", page, text);
            } else {
                let told_before = told(&page);
                prop_assert!(told(&text).iter().all(|family| told_before.contains(family)), "{}\n{}", page, text);
            }
        }

        #[test]
        fn no_page_makes_it_fail_and_openmetrics_loses_no_sample(
            page in pages(), bytes in proptest::collection::vec(any::<u8>(), 0..99),
        ) {
            let _ = parse(&bytes);
            if parse(page.as_bytes()).is_err() {
                return Ok(());
            }
            let samples = |format: Format| {
                written(&page, &[], format).0.lines().filter(|line| !line.starts_with('#')).count()
            };
            // A creation time without its counter is the one thing that has no place.
            let orphans = page.lines().filter(|line| line.contains("_created")).count();
            let (text, open) = (samples(Format::Text), samples(Format::OpenMetrics));
            prop_assert!(open <= text && text - open <= orphans, "{} {}", text, open);

            // Protobuf has each family once and every number that OpenMetrics has.
            let families = decoded(&escaped(&page, &[], Format::Protobuf, Escaping::Underscores).0);
            let names: HashSet<_> = families.iter().map(|family| &family.name).collect();
            prop_assert_eq!(names.len(), families.len());
            let numbers = families.iter().flat_map(|family| &family.metric).map(|metric| {
                let data::Metric { counter, summary, histogram, .. } = metric;
                let counter = counter.as_ref().map(|counter| 1 + usize::from(counter.start_timestamp.is_some()));
                let summary = summary.as_ref().map(|summary| {
                    summary.quantile.len() + 2 + usize::from(summary.start_timestamp.is_some())
                });
                let histogram = histogram.as_ref().map(|histogram| {
                    histogram.bucket.len() + 3 + usize::from(histogram.start_timestamp.is_some())
                });
                counter.or(summary).or(histogram).unwrap_or(1)
            });
            // Times that are none, or after the year 9999, have no place there.
            let numbers = numbers.sum::<usize>();
            let no_time = |line: &&str| ["NaN", "Inf", "1e300", "1234567890"].iter().any(|value| line.contains(value));
            let timeless = page.lines().filter(|line| line.contains("_created")).filter(no_time).count();
            prop_assert!(numbers <= text && numbers + timeless >= open, "{} of {}: {}", numbers, open, page);
        }
    }
}
