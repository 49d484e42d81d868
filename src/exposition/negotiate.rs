//! Which format and which content encoding a scraper gets.
//!
//! Source: RFC 9110, sections 12.4.2 (quality values), 12.5.1 (`Accept`), 12.5.3 (`Accept-Encoding`).
//! Shape:  each offer takes the quality of the most specific range that matches it; the offer of the highest quality
//!         wins; on a tie the more specifically named one, then the one named first, then text 0.0.4.
//! Malformed: a list member that cannot be read is ignored, as if it had not been sent; with nothing left, the default
//!         (text 0.0.4, no encoding). The default is also sent when everything is refused: section 12.5.1 lets a server
//!         disregard the field, and a page that a scraper may fail to read helps an operator more than a bare 406.

use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderMap, HeaderName};

use super::Escaping;

/// The formats on offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text format 0.0.4.
    Text,
    /// Text format 1.0.0: the same, and names may be quoted.
    Text1,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The same under the name of its draft, 0.0.1.
    OpenMetricsDraft,
    /// Delimited protobuf.
    Protobuf,
}

/// The content encodings on offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// RFC 1952.
    Gzip,
}

/// Something that can be asked for: type, subtype, and what the parameters have to say.
struct Offer {
    format: Format,
    kind: &'static str,
    subtype: &'static str,
    parameters: &'static [(&'static str, &'static str)],
}

/// The first is the default.
const OFFERS: [Offer; 5] = [
    Offer { format: Format::Text, kind: "text", subtype: "plain", parameters: &[("version", "0.0.4")] },
    Offer {
        format: Format::OpenMetrics,
        kind: "application",
        subtype: "openmetrics-text",
        parameters: &[("version", "1.0.0")],
    },
    Offer {
        format: Format::Protobuf,
        kind: "application",
        subtype: "vnd.google.protobuf",
        parameters: &[("proto", "io.prometheus.client.MetricFamily"), ("encoding", "delimited")],
    },
    Offer { format: Format::Text1, kind: "text", subtype: "plain", parameters: &[("version", "1.0.0")] },
    Offer {
        format: Format::OpenMetricsDraft,
        kind: "application",
        subtype: "openmetrics-text",
        parameters: &[("version", "0.0.1")],
    },
];

/// The format for these request fields, and the scheme of escaping that was asked for with it.
#[must_use]
pub fn format(headers: &HeaderMap) -> (Format, Option<Escaping>) {
    let ranges: Vec<Member> = members(headers, &ACCEPT).filter(|member| member.name.contains('/')).collect();
    let mut best: Option<(Rank, Format, &Member)> = None;
    for offer in OFFERS {
        let matching = ranges.iter().enumerate().filter_map(|(place, range)| {
            let specificity = range.specificity(&offer)?;
            Some((Rank { quality: range.quality, specificity, place: std::cmp::Reverse(place) }, range))
        });
        // The most specific range decides, whatever its quality; of two equal ones the first.
        let decisive = matching.max_by_key(|(rank, _)| (rank.specificity, rank.place));
        if let Some((rank, range)) = decisive.filter(|(rank, _)| rank.quality > 0)
            && best.as_ref().is_none_or(|(other, ..)| rank > *other)
        {
            best = Some((rank, offer.format, range));
        }
    }
    best.map_or((Format::Text, None), |(_, format, range)| (format, range.escaping()))
}

/// The content encoding for these request fields. Gzip wins a tie: whoever names both can read both.
#[must_use]
pub fn encoding(headers: &HeaderMap) -> Encoding {
    let codings: Vec<Member> = members(headers, &ACCEPT_ENCODING).collect();
    let quality = |names: &[&str]| {
        codings
            .iter()
            .find(|member| names.iter().any(|name| member.name.eq_ignore_ascii_case(name)))
            .map(|member| member.quality)
    };
    let any = quality(&["*"]);
    // x-gzip is the same thing (section 8.4.1.3).
    let gzip = quality(&["gzip", "x-gzip"]).or(any).unwrap_or(0);
    // Identity that nobody mentions is acceptable, but nothing says that it is preferred.
    let identity = quality(&["identity"]).unwrap_or(0);
    if gzip > 0 && gzip >= identity { Encoding::Gzip } else { Encoding::Identity }
}

/// How good an offer is; compared field by field, from the top.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    quality: u16,
    specificity: usize,
    place: std::cmp::Reverse<usize>,
}

/// One readable member of a list with quality values.
#[derive(Debug)]
struct Member<'a> {
    name: &'a str,
    /// Name and value, unquoted, `q` left out.
    parameters: Vec<(&'a str, String)>,
    /// 0 to 1000.
    quality: u16,
}

// === impl Member ===

impl<'a> Member<'a> {
    /// Reads `name;parameter=value;q=0.5`. None: malformed.
    fn parse(text: &'a str) -> Option<Member<'a>> {
        let mut parts = split_outside_quotes(text, b';');
        let name = parts.next()?.trim();
        if !name.split('/').all(is_token) || name.split('/').count() > 2 {
            return None;
        }
        let mut member = Member { name, parameters: Vec::new(), quality: 1000 };
        for part in parts {
            let part = part.trim();
            if part.is_empty() {
                continue; // `a;;b` is allowed by the grammar of parameters.
            }
            let (key, value) = part.split_once('=')?;
            if !is_token(key) {
                return None;
            }
            if key.eq_ignore_ascii_case("q") {
                member.quality = parse_quality(value)?;
            } else {
                member.parameters.push((key, unquote(value)?));
            }
        }
        Some(member)
    }

    /// How closely this media range names the offer: 0 for `*/*`, 1 for `type/*`, 2 for the type, one more for
    /// its parameters. None: it means something else.
    fn specificity(&self, offer: &Offer) -> Option<usize> {
        let Offer { format, kind, subtype, parameters: wanted } = offer;
        let (own_kind, own_subtype) = self.name.split_once('/')?;
        let mut specificity = match (own_kind, own_subtype) {
            ("*", "*") => 0,
            (own, "*") if own.eq_ignore_ascii_case(kind) => 1,
            (own, sub) if own.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => 2,
            _ => return None,
        };
        let mut given = 0;
        for (key, value) in &self.parameters {
            if let Some((_, wanted)) = wanted.iter().find(|(name, _)| key.eq_ignore_ascii_case(name)) {
                if value != wanted {
                    return None;
                }
                given += 1;
            } else if key.eq_ignore_ascii_case("charset") {
                if !value.eq_ignore_ascii_case("utf-8") {
                    return None;
                }
            } else if !key.eq_ignore_ascii_case("escaping") {
                return None;
            }
        }
        // Who says less than that gets what everybody can read: nobody gets bytes for asking for `*/*`, and a version that
        // is seldom asked for has to be.
        let in_full = given == wanted.len();
        specificity += usize::from(in_full);
        match format {
            Format::Text | Format::OpenMetrics => Some(specificity),
            Format::Text1 | Format::OpenMetricsDraft | Format::Protobuf => in_full.then_some(specificity),
        }
    }

    /// The scheme of escaping; a name that nobody knows is as good as none.
    fn escaping(&self) -> Option<Escaping> {
        let (_, value) = self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case("escaping"))?;
        Escaping::named(value)
    }
}

/// The readable members of all lines of a list field.
fn members<'a>(headers: &'a HeaderMap, field: &HeaderName) -> impl Iterator<Item = Member<'a>> {
    headers
        .get_all(field)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| split_outside_quotes(line, b','))
        .filter_map(Member::parse)
}

/// Splits at a separator, but not inside of a quoted string.
fn split_outside_quotes(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let part = rest?;
        let (mut quoted, mut escaped) = (false, false);
        for (at, byte) in part.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ if byte == separator && !quoted => {
                    rest = Some(&part[at + 1..]);
                    return Some(&part[..at]);
                }
                _ => {}
            }
        }
        rest = None;
        Some(part)
    })
}

/// `0`, `1`, or either with up to three decimals, at most 1; in thousandths.
fn parse_quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// The value of a parameter: a token, or a quoted string with its quotes and escapes taken off.
fn unquote(text: &str) -> Option<String> {
    let Some(inner) = text.strip_prefix('"') else {
        return is_token(text).then(|| text.to_owned());
    };
    let mut value = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    loop {
        match letters.next()? {
            '"' => return letters.next().is_none().then_some(value),
            '\\' => value.push(letters.next()?),
            letter => value.push(letter),
        }
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    // As `scrape/scrape.go` of these versions writes them.
    const PROMETHEUS_2_42: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const PROMETHEUS_2_42_NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const PROMETHEUS_2_50: &str = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    const PROMETHEUS_2_50_NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4,application/openmetrics-text;version=0.0.1;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    const PROMETHEUS_3_0: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;escaping=allow-utf-8;q=0.3,*/*;q=0.2";
    const PROMETHEUS_3_0_NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;escaping=allow-utf-8;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;escaping=allow-utf-8;q=0.2,*/*;q=0.1";
    const PROMETHEUS_3_5: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    const PROMETHEUS_3_5_NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    const PROMETHEUS_3_5_LEGACY_NAMES: &str = "application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=underscores;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    const PROMETHEUS_3_5_TEXT_FIRST: &str = "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.3";
    const PROMETHEUS_3_5_DRAFT_ONLY: &str = "application/openmetrics-text;version=0.0.1;q=0.6,*/*;q=0.5";
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";

    fn fields(field: HeaderName, lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (field.clone(), HeaderValue::from_str(line).unwrap())).collect()
    }

    #[test]
    fn formats_follow_the_accept_field() {
        use Format::{OpenMetrics, OpenMetricsDraft, Protobuf, Text, Text1};
        for (lines, expected) in [
            (&[][..], Text),
            (&[PROMETHEUS_2_42], OpenMetrics),
            (&[PROMETHEUS_2_42_NATIVE], Protobuf),
            (&[PROMETHEUS_2_50], OpenMetrics),
            (&[PROMETHEUS_2_50_NATIVE], Protobuf),
            (&[PROMETHEUS_3_0], OpenMetrics),
            (&[PROMETHEUS_3_0_NATIVE], Protobuf),
            (&[PROMETHEUS_3_5], OpenMetrics),
            (&[PROMETHEUS_3_5_NATIVE], Protobuf),
            (&[PROMETHEUS_3_5_LEGACY_NAMES], OpenMetrics),
            (&[PROMETHEUS_3_5_TEXT_FIRST], Text1),
            (&[PROMETHEUS_3_5_DRAFT_ONLY], OpenMetricsDraft),
            (&[BROWSER], Text),
            (&["*/*"], Text),
            (&["application/vnd.google.protobuf"], Text),
            (&["application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text"], Text),
            (&["application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily"], Text),
            (&["application/vnd.google.protobuf;encoding=delimited;proto=x.MetricFamily"], Text),
            (
                &["application/vnd.google.protobuf; Encoding=\"delimited\"; proto=io.prometheus.client.MetricFamily"],
                Protobuf,
            ),
            (&["text/plain;version=1.0.0"], Text1),
            (&["text/plain;version=1.0.0;q=0, text/plain"], Text),
            (&["text/plain;version=2.0.0"], Text),
            (&["text/*"], Text),
            (&["application/*"], OpenMetrics),
            (&["application/*;q=0.5, text/plain;q=0.4"], OpenMetrics),
            (&["APPLICATION/OpenMetrics-Text; Version=1.0.0; Q=1"], OpenMetrics),
            (&["application/openmetrics-text"], OpenMetrics),
            (&["application/openmetrics-text; version=\"1.0.0\"; charset=\"UTF-8\""], OpenMetrics),
            (&["application/openmetrics-text;version=0.0.1"], OpenMetricsDraft),
            (&["application/openmetrics-text;version=2.0.0,text/plain;q=0.1"], Text),
            (&["application/openmetrics-text;q=0"], Text),
            (&["application/openmetrics-text;q=0, */*"], Text),
            (&["text/plain;q=0, */*;q=0.1"], OpenMetrics),
            (&["text/plain;q=0.5,application/openmetrics-text;q=0.501"], OpenMetrics),
            (&["text/plain,application/openmetrics-text"], Text),
            (&["application/openmetrics-text,text/plain"], OpenMetrics),
            (&["*/*,application/openmetrics-text"], OpenMetrics),
            // The most specific range decides, not the most generous.
            (
                &[
                    "application/openmetrics-text;version=1.0.0;q=0.1,application/openmetrics-text;q=0.9,text/plain;q=0.5",
                ],
                Text,
            ),
            // Two lines are one list.
            (&["text/plain;q=0.5", "application/openmetrics-text"], OpenMetrics),
            // Malformed members do not count.
            (&["application/openmetrics-text;q=2"], Text),
            (&["application/openmetrics-text;q=0.1234"], Text),
            (&["application/openmetrics-text;q="], Text),
            (&["application/openmetrics-text;version"], Text),
            (&["application/openmetrics-text;version=\"1.0.0"], Text),
            (&["application/openmetrics-text/x"], Text),
            (&["application openmetrics-text"], Text),
            (&[";;;,,=,\"", "application/openmetrics-text;;q=0.3"], OpenMetrics),
            (&["a/b;c=\"x,application/openmetrics-text\",text/plain;q=0.1"], Text),
            (&["application/json"], Text),
            (&["application/openmetrics-text;charset=iso-8859-1"], Text),
        ] {
            assert_eq!(format(&fields(ACCEPT, lines)).0, expected, "{lines:?}");
        }
    }

    #[test]
    fn the_scheme_of_escaping_is_the_one_of_the_format_that_is_chosen() {
        for (line, expected) in [
            ("", None),
            (PROMETHEUS_2_50, None),
            (PROMETHEUS_3_0_NATIVE, Some(Escaping::AllowUtf8)),
            (PROMETHEUS_3_5, Some(Escaping::AllowUtf8)),
            (PROMETHEUS_3_5_NATIVE, None),
            (PROMETHEUS_3_5_LEGACY_NAMES, Some(Escaping::Underscores)),
            (PROMETHEUS_3_5_DRAFT_ONLY, None),
            ("text/plain;escaping=dots", Some(Escaping::Dots)),
            ("text/plain;escaping=\"values\"", Some(Escaping::Values)),
            ("text/plain;escaping=whatever", None),
            ("text/plain;escaping=dots, application/openmetrics-text;q=0.9;escaping=values", Some(Escaping::Dots)),
        ] {
            assert_eq!(format(&fields(ACCEPT, &[line])).1, expected, "{line}");
        }
    }

    #[test]
    fn encodings_follow_the_accept_encoding_field() {
        use Encoding::{Gzip, Identity};
        for (lines, expected) in [
            (&[][..], Identity),
            (&[""], Identity),
            (&["gzip"], Gzip),
            (&["GZIP"], Gzip),
            (&["x-gzip"], Gzip),
            (&["gzip, deflate, br"], Gzip),
            (&["gzip;q=0"], Identity),
            (&["gzip;q=0.000"], Identity),
            (&["gzip;q=0, *"], Identity),
            (&["*"], Gzip),
            (&["*;q=0"], Identity),
            (&["identity"], Identity),
            (&["identity, gzip"], Gzip),
            (&["identity;q=0.5, gzip;q=0.4"], Identity),
            (&["identity;q=0, gzip;q=0.1"], Gzip),
            (&["identity;q=0.9, *;q=0.5"], Identity),
            (&["identity;q=0"], Identity),
            (&["deflate, br"], Identity),
            (&["br", "gzip;q=0.2"], Gzip),
            (&["gzip;q=1.001"], Identity),
            (&["gzip q=1"], Identity),
        ] {
            assert_eq!(encoding(&fields(ACCEPT_ENCODING, lines)), expected, "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn no_field_value_makes_it_fail_and_refused_formats_are_not_chosen_over_accepted_ones(
            noise in "[ -~]{0,80}", quality in 1u16..=1000,
        ) {
            let value = HeaderValue::from_str(&noise).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, value.clone());
            headers.insert(ACCEPT_ENCODING, value);
            let _ = (super::format(&headers), encoding(&headers));

            let quality = if quality == 1000 { "1".to_owned() } else { format!("0.{quality:03}") };
            let accept = format!("text/plain;q=0, application/openmetrics-text;q={quality}");
            prop_assert_eq!(format(&fields(ACCEPT, &[&accept])).0, Format::OpenMetrics);
            let accept = format!("gzip;q={quality}, identity;q=0");
            prop_assert_eq!(encoding(&fields(ACCEPT_ENCODING, &[&accept])), Encoding::Gzip);
        }
    }
}
