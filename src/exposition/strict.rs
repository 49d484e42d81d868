//! A strict reader of both text formats, for tests and fuzzing only: no other room names it, and it names none. It shares no
//! code with the encoder, and it refuses whatever the specifications do not allow rather than guess.

use std::collections::{BTreeMap, HashSet};

/// A family as it was read.
#[derive(Debug, Default, PartialEq)]
pub struct Family {
    /// The word behind `# TYPE`.
    pub kind: String,
    /// What `# UNIT` says.
    pub unit: Option<String>,
    /// What `# HELP` says, escapes taken off.
    pub help: Option<String>,
    /// In page order.
    pub samples: Vec<Sample>,
}

/// Full name, labels, value.
pub type Sample = (String, BTreeMap<String, String>, f64);

/// Reads a page; families in page order.
///
/// # Errors
/// What is wrong, and the line.
pub fn read(page: &str, open: bool) -> Result<Vec<(String, Family)>, String> {
    let body = match (open, page.strip_suffix("# EOF\n")) {
        (true, Some(body)) => body,
        (true, None) => return Err("no # EOF at the end".into()),
        (false, _) => page,
    };
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    let mut families: Vec<(String, Family)> = Vec::new();
    let (mut names, mut series) = (HashSet::new(), HashSet::new());
    for line in body.split_terminator('\n') {
        if let Some(rest) = line.strip_prefix("# ") {
            let (keyword, rest) = rest.split_once(' ').ok_or_else(|| format!("short comment: {line}"))?;
            let (name, value) = family_name(rest).ok_or_else(|| format!("no value: {line}"))?;
            if families.last().is_none_or(|(last, _)| *last != name) {
                if !names.insert(name.clone()) {
                    return Err(format!("{name} comes twice"));
                }
                families.push((name.clone(), Family::default()));
            }
            let family = &mut families.last_mut().ok_or("no family")?.1;
            if !family.samples.is_empty() {
                return Err(format!("comment after samples: {line}"));
            }
            match keyword {
                "TYPE" if family.kind.is_empty() => family.kind = value.to_owned(),
                "UNIT" if open && family.unit.is_none() && name.ends_with(&format!("_{value}")) => {
                    family.unit = Some(value.to_owned());
                }
                "HELP" if family.help.is_none() => family.help = Some(unescape(value, open)?),
                _ => return Err(format!("unexpected: {line}")),
            }
            continue;
        }
        let (name, labels, rest) = sample(line)?;
        let (family_name, family) = families.last_mut().ok_or_else(|| format!("sample without a family: {line}"))?;
        let suffix = name.strip_prefix(family_name.as_str()).ok_or_else(|| format!("stray sample: {line}"))?;
        let allowed: &[&str] = match (family.kind.as_str(), open) {
            ("counter", true) => &["_total", "_created"],
            // What a backend has without a suffix, or a bucket without an edge, is passed on there: readers ignore it.
            ("histogram", false) => &["", "_bucket", "_sum", "_count"],
            ("histogram", true) => &["_bucket", "_sum", "_count", "_created"],
            ("summary", false) => &["", "_sum", "_count"],
            ("summary", true) => &["", "_sum", "_count", "_created"],
            ("counter", false) | ("gauge", _) | ("unknown", true) | ("untyped", false) => &[""],
            (kind, _) => return Err(format!("unknown type {kind:?}")),
        };
        if !allowed.contains(&suffix) {
            return Err(format!("wrong suffix: {line}"));
        }
        let edge = |kind: &str, label: &str, suffix_of_it: &str| {
            !open || family.kind != kind || labels.contains_key(label) == (suffix == suffix_of_it)
        };
        if !edge("histogram", "le", "_bucket") || !edge("summary", "quantile", "") {
            return Err(format!("an edge too many or too few: {line}"));
        }
        if !series.insert(format!("{name}{labels:?}")) {
            return Err(format!("series twice: {line}"));
        }
        let (rest, exemplar) = rest.split_once(" # ").map_or((rest.as_str(), None), |(rest, own)| (rest, Some(own)));
        let (value, time) = rest.split_once(' ').map_or((rest, None), |(value, time)| (value, Some(time)));
        if let Some(exemplar) = exemplar {
            let carries = open && matches!(suffix, "_bucket" | "_total");
            let whole = format!("exemplar{exemplar}");
            let (_, _, rest) = sample(&whole)?;
            let (value, time) = rest.split_once(' ').ok_or_else(|| format!("an exemplar without a time: {line}"))?;
            if !carries || number(value, true).is_err() || number(time, true).is_err() {
                return Err(format!("exemplar: {line}"));
            }
        }
        if let Some(time) = time {
            let good = if open { number(time, true).is_ok() } else { time.parse::<i64>().is_ok() };
            if !good {
                return Err(format!("timestamp: {line}"));
            }
        }
        let counts = matches!((family.kind.as_str(), suffix), ("histogram" | "summary", "_bucket" | "_count"));
        let value = number(value, open && !counts)?;
        family.samples.push((name, labels, value));
    }
    Ok(families)
}

/// A name, which may be in quotes, and what is behind the blank.
fn family_name(rest: &str) -> Option<(String, &str)> {
    match rest.strip_prefix('"') {
        Some(inside) => {
            let (name, value) = inside.split_once("\" ")?;
            (!is_plain(name, true)).then(|| (name.to_owned(), value))
        }
        None => {
            let (name, value) = rest.split_once(' ')?;
            is_plain(name, true).then(|| (name.to_owned(), value))
        }
    }
}

/// Whether a name needs no quotes; those of labels have no colons.
fn is_plain(name: &str, colons: bool) -> bool {
    let legal = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || (colons && letter == ':');
    !name.is_empty() && name.chars().all(legal) && !name.starts_with(|letter: char| letter.is_ascii_digit())
}

/// `name{label="value",…} rest`, or `{"name",label="value",…} rest`, with exactly one blank.
fn sample(line: &str) -> Result<(String, BTreeMap<String, String>, String), String> {
    let end = line.find(['{', ' ']).ok_or_else(|| format!("no value: {line}"))?;
    let (name, mut rest) = line.split_at(end);
    let mut name = name.to_owned();
    let mut labels = BTreeMap::new();
    let mut quoted_only = false;
    if let Some(after) = rest.strip_prefix("{\"").filter(|_| name.is_empty()) {
        let (inside, after) = after.split_once('"').ok_or_else(|| format!("open name: {line}"))?;
        if is_plain(inside, true) {
            return Err(format!("quotes around a plain name: {line}"));
        }
        name = inside.to_owned();
        if let Some(after) = after.strip_prefix('}') {
            (rest, quoted_only) = (after, true);
        } else {
            rest = after;
        }
    } else if !is_plain(&name, true) {
        return Err(format!("bad name: {line}"));
    }
    if let Some(inside) = rest.strip_prefix(['{', ',']).filter(|_| !quoted_only) {
        rest = inside;
        loop {
            let (label, after) = match rest.strip_prefix('"') {
                Some(inside) => inside.split_once("\"=\"").filter(|(label, _)| !is_plain(label, false)),
                None => rest.split_once("=\"").filter(|(label, _)| is_plain(label, false)),
            }
            .ok_or_else(|| format!("bad label: {line}"))?;
            let mut escaped = false;
            let close = after
                .char_indices()
                .find(|(_, letter)| match letter {
                    _ if escaped => {
                        escaped = false;
                        false
                    }
                    '\\' => {
                        escaped = true;
                        false
                    }
                    letter => *letter == '"',
                })
                .ok_or_else(|| format!("open label value: {line}"))?
                .0;
            if labels.insert(label.to_owned(), unescape(&after[..close], true)?).is_some() {
                return Err(format!("label twice: {line}"));
            }
            rest = &after[close + 1..];
            match rest.split_at_checked(1) {
                Some((",", more)) => rest = more,
                Some(("}", more)) => {
                    rest = more;
                    break;
                }
                _ => return Err(format!("labels do not end: {line}")),
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or_else(|| format!("no blank before the value: {line}"))?;
    Ok((name, labels, value.to_owned()))
}

fn unescape(text: &str, quotes: bool) -> Result<String, String> {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('"') if quotes => '"',
                other => return Err(format!("escape {other:?} in {text:?}")),
            },
            '"' if quotes => return Err(format!("bare quote in {text:?}")),
            letter => letter,
        });
    }
    Ok(plain)
}

fn number(text: &str, dotted: bool) -> Result<f64, String> {
    let special = matches!(text, "+Inf" | "-Inf" | "NaN");
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.e".contains(&byte));
    if !special && (!digits || (dotted && !text.contains(['.', 'e']))) {
        return Err(format!("spelling of {text:?}"));
    }
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}
