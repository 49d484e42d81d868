//! The metrics page: what the registry gathers becomes bytes in the format and encoding that the scraper asked for.
//!
//! | file | what it holds |
//! |---|---|
//! | `negotiate.rs` | `Accept` and `Accept-Encoding`: which [`Format`], which [`Encoding`] |
//! | `text.rs`, `openmetrics.rs` | one profile per text format: headers, names, units, the end |
//! | `encoder.rs` | the encoder that both profiles share |
//! | `number.rs` | how numbers are spelled |
//! | `backend.rs` | the backend's own page: when it is asked for, and what is told about that |
//! | `foreign.rs` | the same page, made ready to be appended to ours |
//!
//! A page is gathered once and encoded once, on the admin thread, never on the request path. This room reads the
//! registry; the only numbers that it writes are those about the page itself.

mod backend;
mod encoder;
mod foreign;
mod negotiate;
mod number;
mod openmetrics;
#[cfg(test)]
mod strict;
mod text;

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use prometheus::{Gauge, GaugeVec, Opts, Registry};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::exposition::backend::BackendPage;

pub use backend::{Scraped, Target};
pub use negotiate::{Encoding, Format, encoding, format};

/// Compression level of gzip. On the page that `text.rs` measures (1.8 MB), levels 1, 2, 3 and 6 took 1.5, 1.8, 2.4 and
/// 6.1 ms and left 121, 92, 87 and 70 KB. After 2 each byte saved costs far more of the processor that the sidecar
/// shares with its backend.
const GZIP_LEVEL: u32 = 2;

/// What gzip leaves of a page at most, as a divisor, to reserve room for it: pages shrink to a tenth or less.
const GZIP_ROOM_DIVISOR: usize = 10;

/// Makes pages from a registry.
#[derive(Debug)]
pub struct Exporter {
    registry: Registry,
    duration_seconds: Gauge,
    identity_bytes: Gauge,
    gzip_bytes: Gauge,
    backend: Option<BackendPage>,
}

/// A finished page: the body and the fields that describe it.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// Value of `Content-Encoding`; `None`: the field is left out.
    pub content_encoding: Option<&'static str>,
    /// The page itself.
    pub body: Bytes,
}

// === impl Exporter ===

impl Exporter {
    /// Takes the registry that every page is gathered from, and adds the families about the pages themselves.
    ///
    /// # Errors
    /// When the registry already has `golden_scrape_duration_seconds` or `golden_scrape_size_bytes`.
    pub fn new(registry: &Registry) -> prometheus::Result<Exporter> {
        let duration_seconds = Gauge::new(
            "golden_scrape_duration_seconds",
            "Time that this process took to gather, encode and compress the previous metrics page, 0 before the first.",
        )?;
        let size_bytes = GaugeVec::new(
            Opts::new(
                "golden_scrape_size_bytes",
                "Size of the body of the previous metrics page of this process in this content encoding, 0 before the first.",
            ),
            &["encoding"],
        )?;
        let identity_bytes = size_bytes.with_label_values(&["identity"]);
        let gzip_bytes = size_bytes.with_label_values(&["gzip"]);
        registry.register(Box::new(duration_seconds.clone()))?;
        registry.register(Box::new(size_bytes))?;
        Ok(Exporter { registry: registry.clone(), duration_seconds, identity_bytes, gzip_bytes, backend: None })
    }

    /// The same, able to append the backend's own page to ours.
    ///
    /// # Errors
    /// As [`Exporter::new`].
    pub fn with_backend(registry: &Registry, target: watch::Receiver<Target>) -> prometheus::Result<Exporter> {
        Ok(Exporter { backend: Some(BackendPage::new(target)?), ..Exporter::new(registry)? })
    }

    /// Whether the backend's page is part of every page of ours.
    #[must_use]
    pub fn always_with_backend(&self) -> bool {
        self.backend.as_ref().is_some_and(BackendPage::always)
    }

    /// Asks for the backend's page, to be given to [`Exporter::render`]. Waits for the backend, but not longer than its
    /// target's timeout; `None`: there is no backend to ask.
    pub async fn ask_backend(&self) -> Option<Arc<Scraped>> {
        match &self.backend {
            Some(backend) => Some(backend.get().await),
            None => None,
        }
    }

    /// Gathers and encodes one page, with the backend's if it was asked for. Blocks for as long as that takes, a few
    /// milliseconds for a large page.
    #[must_use]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn render(&self, format: Format, encoding: Encoding, scraped: Option<&Scraped>) -> Rendered {
        let begun = Instant::now();
        let mut families = self.registry.gather();
        let mut theirs = Vec::new();
        if let Some(backend) = &self.backend {
            if let Some(scraped) = scraped {
                theirs = backend.join(scraped, &mut families, format);
            }
            backend.count(&mut families);
        }
        let (content_type, profile) = match format {
            Format::Text => (text::CONTENT_TYPE, &text::PROFILE),
            Format::OpenMetrics => (openmetrics::CONTENT_TYPE, &openmetrics::PROFILE),
        };
        let mut plain = encoder::encode(&families, profile, self.identity_bytes.get() as usize);
        if !theirs.is_empty() {
            // Before the end of the page.
            plain.truncate(plain.len() - profile.end.len());
            theirs.iter().for_each(|family| plain.extend_from_slice(family));
            plain.extend_from_slice(profile.end);
        }
        self.identity_bytes.set(plain.len() as f64);
        let (content_encoding, body) = match encoding {
            Encoding::Identity => (None, plain),
            Encoding::Gzip => {
                let packed = gzip(&plain);
                self.gzip_bytes.set(packed.len() as f64);
                (Some("gzip"), packed)
            }
        };
        self.duration_seconds.set(begun.elapsed().as_secs_f64());
        Rendered { content_type, content_encoding, body: Bytes::from(body) }
    }
}

/// Writing to a Vec cannot fail, so neither can this.
fn gzip(plain: &[u8]) -> Vec<u8> {
    let room = Vec::with_capacity(plain.len() / GZIP_ROOM_DIVISOR);
    let mut encoder = GzEncoder::new(room, Compression::new(GZIP_LEVEL));
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.expect("a Vec takes all that is written to it")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn value(page: &str, series: &str) -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
    }

    #[test]
    fn a_page_tells_the_size_and_duration_of_the_page_before() {
        let exporter = Exporter::new(&Registry::new()).unwrap();
        let first = exporter.render(Format::Text, Encoding::Identity, None);
        let first_text = String::from_utf8(first.body.to_vec()).unwrap();
        assert_eq!(value(&first_text, "golden_scrape_duration_seconds"), 0.0);
        assert_eq!(value(&first_text, "golden_scrape_size_bytes{encoding=\"gzip\"}"), 0.0);

        let second = exporter.render(Format::OpenMetrics, Encoding::Gzip, None);
        assert_eq!((second.content_type, second.content_encoding), (openmetrics::CONTENT_TYPE, Some("gzip")));
        let mut second_text = String::new();
        flate2::read::GzDecoder::new(&second.body[..]).read_to_string(&mut second_text).unwrap();
        assert_eq!(value(&second_text, "golden_scrape_size_bytes{encoding=\"identity\"}"), first_text.len() as f64);
        assert!(value(&second_text, "golden_scrape_duration_seconds") > 0.0);

        let third = exporter.render(Format::Text, Encoding::Identity, None);
        let third_text = String::from_utf8(third.body.to_vec()).unwrap();
        assert_eq!(value(&third_text, "golden_scrape_size_bytes{encoding=\"gzip\"}"), second.body.len() as f64);
        assert_eq!(value(&third_text, "golden_scrape_size_bytes{encoding=\"identity\"}"), second_text.len() as f64);
    }

    #[test]
    fn a_registry_takes_one_exporter() {
        let registry = Registry::new();
        assert!(Exporter::new(&registry).is_ok());
        assert!(Exporter::new(&registry).is_err());
    }
}
