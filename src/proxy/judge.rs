//! Whether a 2xx answer is an error all the same, by the rules of the configuration.
//!
//! An answer is looked at on its way: what passes is counted, and its beginning is kept where a rule asks for what stands in
//! it. It is judged when all of it has been handed on, so its client does not wait for that: a pointer through 64 KiB of JSON
//! takes 70 µs, which is the worker's time. No rule, no judge: then an answer costs one comparison.
//!
//! Each rule says what it needs: a field is known from the head alone, the others need a body. An answer without one (to
//! HEAD, or 204) and a part of one (206) are judged by fields alone.

use std::borrow::Cow;
use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use memchr::memmem;

use crate::config::Symptom;
use crate::labels::{Phase, RuleId};
use crate::measure::RouteRules;
use crate::proxy::h1::content_length;
use crate::proxy::headers::{self, Field};
use crate::proxy::pointer::leads_somewhere;

/// How far into a body rules look: errors stand at its beginning, and this is what a request may cost beside its buffers.
const LOOKED_AT_BYTES: usize = 64 << 10;
/// What is kept of a coded body: deflate makes nothing longer than by 5 bytes for each 16 KiB, and a gzip header with a
/// name and a comment of ordinary length has room too.
const KEPT_CODED_BYTES: usize = LOOKED_AT_BYTES + (1 << 10);

/// Looks at one answer.
#[derive(Debug)]
pub struct Judge {
    rules: RouteRules,
    /// Rules that may still hold, in their order.
    candidates: Vec<(usize, Needs)>,
    /// The beginning of the body as it came; `None`: no rule asks for it.
    kept: Option<Kept>,
    /// Body bytes so far.
    total: u64,
}

/// What a rule still needs to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    Body,
    OtherLength(u64),
    Text,
}

#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    gzip: bool,
}

/// How a body is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    /// One that is not undone here.
    Other,
}

// === impl Judge ===

impl Judge {
    /// A judge for the answer with this head, which has at most `max_fields` fields; `None`: no rule can hold for it.
    /// `to_head`: it answers a HEAD.
    #[must_use]
    pub fn new(rules: RouteRules, head: &[u8], status: u16, to_head: bool, max_fields: usize) -> Option<Judge> {
        if !(200..300).contains(&status) {
            return None;
        }
        let fields = headers::fields(head, max_fields);
        let whole_body = !to_head && status != 204 && status != 206;
        let coding = Coding::of(&fields);
        let mut candidates = Vec::new();
        for (at, symptom) in rules.iter() {
            let needs = match symptom {
                Symptom::Header { name, value } => holds(&fields, name, value.as_deref()).then_some(Needs::Nothing),
                _ if !whole_body => None,
                Symptom::ContentTypeNot(media) => (!is_of_type(&fields, media)).then_some(Needs::Body),
                Symptom::LengthMismatch(name) => told_length(&fields, name).map(Needs::OtherLength),
                Symptom::JsonPointer(_) | Symptom::BodyContains(_) => (coding != Coding::Other).then_some(Needs::Text),
            };
            candidates.extend(needs.map(|needs| (at, needs)));
            if needs == Some(Needs::Nothing) {
                // No later rule comes to its turn.
                break;
            }
        }
        if candidates.is_empty() {
            return None;
        }
        let text = candidates.iter().any(|(_, needs)| *needs == Needs::Text);
        let kept = text.then(|| Kept { bytes: Vec::new(), gzip: coding == Coding::Gzip });
        Some(Judge { rules, candidates, kept, total: 0 })
    }

    /// Looks at body bytes, without framing, in their order.
    pub fn body(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if let Some(kept) = &mut self.kept {
            kept.add(bytes);
        }
    }

    /// Whether [`Judge::verdict`] may have to search a body, which takes longer than a few comparisons.
    #[must_use]
    pub fn takes_time(&self) -> bool {
        self.kept.is_some()
    }

    /// The first rule that holds, and the phase in which the answer gave itself away: `wait` by its head, `body` by its
    /// body. To be asked when the answer has ended completely.
    #[must_use]
    pub fn verdict(&self) -> Option<(RuleId, Phase)> {
        let mut text: Option<Cow<'_, [u8]>> = None;
        self.candidates.iter().find_map(|(at, needs)| {
            let (id, symptom) = self.rules.get(*at);
            let (holds, phase) = match needs {
                Needs::Nothing => (true, Phase::Wait),
                Needs::Body => (self.total > 0, Phase::Wait),
                Needs::OtherLength(told) => (self.total != *told, Phase::Body),
                Needs::Text => {
                    let text = text.get_or_insert_with(|| self.kept.as_ref().map_or_else(Default::default, Kept::text));
                    (gives_away(symptom, text), Phase::Body)
                }
            };
            holds.then_some((id, phase))
        })
    }
}

/// Whether the beginning of a body gives the error away.
fn gives_away(symptom: &Symptom, text: &[u8]) -> bool {
    match symptom {
        Symptom::JsonPointer(pointer) => leads_somewhere(text, pointer),
        Symptom::BodyContains(wanted) => memmem::find(text, wanted.as_bytes()).is_some(),
        Symptom::Header { .. } | Symptom::ContentTypeNot(_) | Symptom::LengthMismatch(_) => false,
    }
}

/// The values of the fields of this name.
fn values<'a>(fields: &'a [Field<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| *value)
}

/// Whether a field of this name is there, with this value if one is asked for.
fn holds(fields: &[Field<'_>], name: &str, wanted: Option<&str>) -> bool {
    values(fields, name).any(|value| wanted.is_none_or(|wanted| value == wanted.as_bytes()))
}

fn is_of_type(fields: &[Field<'_>], media: &str) -> bool {
    values(fields, "content-type").any(|value| {
        let without_parameters = value.split(|b| *b == b';').next().unwrap_or(value).trim_ascii();
        without_parameters.eq_ignore_ascii_case(media.as_bytes())
    })
}

/// The length that a field tells, if it tells one.
fn told_length(fields: &[Field<'_>], name: &str) -> Option<u64> {
    values(fields, name).find_map(content_length)
}

// === impl Coding ===

impl Coding {
    /// As `Content-Encoding` says (RFC 9110, section 8.4.1).
    fn of(fields: &[Field<'_>]) -> Coding {
        let listed = values(fields, "content-encoding").flat_map(|value| value.split(|b| *b == b','));
        let mut codings = listed
            .map(<[u8]>::trim_ascii)
            .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
        match (codings.next(), codings.next()) {
            (None, _) => Coding::Identity,
            (Some(one), None) if one.eq_ignore_ascii_case(b"gzip") || one.eq_ignore_ascii_case(b"x-gzip") => {
                Coding::Gzip
            }
            _ => Coding::Other,
        }
    }
}

// === impl Kept ===

impl Kept {
    fn add(&mut self, bytes: &[u8]) {
        let limit = if self.gzip { KEPT_CODED_BYTES } else { LOOKED_AT_BYTES };
        let taken = &bytes[..bytes.len().min(limit - self.bytes.len())];
        let length = self.bytes.len() + taken.len();
        if length > self.bytes.capacity() {
            // Twice as much each time as usual, but never more than may be kept.
            let capacity = (2 * self.bytes.capacity()).clamp(length, limit);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(taken);
    }

    /// The beginning of the body, its coding undone. What cannot be decoded ends it.
    fn text(&self) -> Cow<'_, [u8]> {
        if !self.gzip {
            return Cow::Borrowed(&self.bytes);
        }
        let mut text = Vec::new();
        let decoder = MultiGzDecoder::new(self.bytes.as_slice());
        // An error is where what was kept ends, or what is no gzip begins: what came before it stands.
        let _ended = decoder.take(LOOKED_AT_BYTES as u64).read_to_end(&mut text);
        Cow::Owned(text)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn kept(bytes: &[u8], gzip: bool, pieces: usize) -> Kept {
        let mut kept = Kept { bytes: Vec::new(), gzip };
        bytes.chunks(pieces).for_each(|piece| kept.add(piece));
        kept
    }

    /// Bytes that nothing makes shorter.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn the_first_64_kib_are_looked_at_and_no_more_is_kept() {
        for body in [noise(LOOKED_AT_BYTES + 5000), vec![b'a'; 50 * LOOKED_AT_BYTES]] {
            for pieces in [1000, 1 << 20] {
                let plain = kept(&body, false, pieces);
                assert_eq!(plain.text(), &body[..LOOKED_AT_BYTES]);
                assert!(plain.bytes.capacity() <= LOOKED_AT_BYTES);
                for level in [0, 6] {
                    let coded = kept(&gzip(&body, level), true, pieces);
                    assert!(coded.text() == &body[..LOOKED_AT_BYTES], "level {level}");
                    assert!(coded.bytes.capacity() <= KEPT_CODED_BYTES);
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_decoded_ends_the_text() {
        let coded = gzip(b"all of it", 6);
        assert_eq!(&*kept(&coded, true, 3).text(), b"all of it");
        assert!(kept(&coded[..coded.len() - 8], true, 3).text().starts_with(b"all"), "without its checksum");
        assert_eq!(&*kept(&coded[..5], true, 3).text(), b"");
        assert_eq!(&*kept(b"no gzip", true, 3).text(), b"");
        assert_eq!(&*kept(&[coded.clone(), coded].concat(), true, 3).text(), b"all of itall of it");
    }

    #[test]
    fn a_coding_is_known_or_it_is_not() {
        let of = |values: &[&'static str]| {
            let fields: Vec<Field<'_>> = values.iter().map(|v| (&b"Content-encoding"[..], v.as_bytes())).collect();
            Coding::of(&fields)
        };
        assert_eq!(of(&[]), Coding::Identity);
        assert_eq!(of(&["identity", ""]), Coding::Identity);
        assert_eq!(of(&["GZip"]), Coding::Gzip);
        assert_eq!(of(&["identity, x-gzip"]), Coding::Gzip);
        for other in [&["br"][..], &["gzip, gzip"], &["gzip", "zstd"], &["deflate"]] {
            assert_eq!(of(other), Coding::Other, "{other:?}");
        }
    }

    /// What judging costs the worker after an answer: `cargo test --release --lib judging_costs -- --nocapture`.
    /// A pointer 70 µs, 110 µs from gzip, a text 2 µs.
    #[test]
    fn judging_costs_little() {
        let item = r#"{"id": 123456, "name": "somebody", "tags": ["a", "b\"c", null], "nested": {"x": 1.5e3}},"#;
        let mut document = b"{\"data\": [".to_vec();
        while document.len() < LOOKED_AT_BYTES - 200 {
            document.extend_from_slice(item.as_bytes());
        }
        document.pop();
        document.extend_from_slice(b"], \"errors\": [{\"message\": \"no\"}]}");
        let pointer = Symptom::JsonPointer("/errors/0".to_owned());
        let text = Symptom::BodyContains("\"message\": \"no\"".to_owned());
        let coded = gzip(&document, 6);
        let rounds = 100;
        let measured = |what: &str, kept: &Kept, symptom: &Symptom| {
            let start = tokio::time::Instant::now();
            for _ in 0..rounds {
                assert!(gives_away(symptom, &kept.text()));
            }
            println!("{what}, {} bytes: {:?}", document.len(), start.elapsed() / rounds);
        };
        measured("pointer", &kept(&document, false, 16 << 10), &pointer);
        measured("pointer in gzip", &kept(&coded, true, 16 << 10), &pointer);
        measured("text", &kept(&document, false, 16 << 10), &text);
    }
}
