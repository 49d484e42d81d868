//! The metrics page: what is known at one moment becomes bytes in the format and encoding that the scraper asked for.
//!
//! | file | what it holds |
//! |---|---|
//! | `negotiate.rs` | `Accept` and `Accept-Encoding`: which [`Format`], which [`Escaping`], which [`Encoding`] |
//! | `filter.rs` | `?name[]=`: which families |
//! | `queue.rs` | the thread that makes pages, and scrapes that come together and share one |
//! | `cold.rs` | families of the registry as our own model, [`crate::signals::snapshot`] |
//! | `text.rs`, `openmetrics.rs` | one profile per text format: headers, names, units |
//! | `encoder.rs` | the encoder that both profiles share |
//! | `protobuf.rs` | the encoder of the third format |
//! | `escaping.rs`, `number.rs` | how names and numbers are spelled |
//! | `sink.rs`, `body.rs` | chunks of a body: as they are made, and as they are sent |
//! | `backend.rs` | the backend's own page: when it is asked for, and what is told about that |
//! | `foreign.rs` | the same page, written out behind ours |
//!
//! A page is made on a thread of its own, never on the request path, and given to everybody who asked for the same before
//! it was begun. This room reads numbers; the only ones that it writes are those about the page itself.

mod backend;
mod body;
mod cold;
#[cfg(test)]
mod encoded;
mod encoder;
mod escaping;
mod filter;
mod foreign;
#[cfg(test)]
mod large;
mod negotiate;
mod number;
mod openmetrics;
mod protobuf;
mod queue;
#[cfg(test)]
mod roundtrip;
mod sink;
#[cfg(test)]
mod strict;
mod text;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::HeaderMap;
use prometheus::{Gauge, GaugeVec, IntCounter, Opts, Registry};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::exposition::backend::{BackendPage, Scraped};
use crate::exposition::encoder::Profile;
use crate::exposition::foreign::Foreign;
use crate::exposition::queue::Queue;
use crate::exposition::sink::Sink;
use crate::signals::snapshot::MetricFamily;

pub use backend::{Page, Target};
pub use body::Body;
pub use escaping::Escaping;
pub use filter::{BadQuery, Filter};
pub use negotiate::{Encoding, Format, encoding, format};

/// Where the numbers of the request path come from: called once per page, on the thread that makes it.
pub type Source = Box<dyn Fn() -> Vec<MetricFamily> + Send + Sync>;

/// Makes pages.
#[derive(Debug)]
pub struct Exporter {
    pages: Arc<Pages>,
    queue: Queue<Wanted, Option<Arc<Scraped>>, Rendered>,
}

/// What a scraper asked for. Those who ask for the same share a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The format.
    pub format: Format,
    /// What becomes of names that are not plain, and whether the answer says so: `None` is what nobody asked for,
    /// underscores.
    pub escaping: Option<Escaping>,
    /// The content encoding.
    pub encoding: Encoding,
    /// The families.
    pub filter: Filter,
    /// The backend's page is part of it.
    pub backend: bool,
}

/// A finished page: the body and the fields that describe it.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Value of `Content-Type`.
    pub content_type: Cow<'static, str>,
    /// Value of `Content-Encoding`; `None`: the field is left out.
    pub content_encoding: Option<&'static str>,
    /// The page itself.
    pub body: Body,
}

/// Why there is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPage {
    /// Too many different ones are waited for.
    Busy,
    /// Making it failed, which only a defect can do.
    Failed,
}

/// What a page is made of.
struct Pages {
    registry: Registry,
    source: Source,
    created: AtomicBool,
    started_seconds: Option<f64>,
    duration_seconds: Gauge,
    identity_bytes: Gauge,
    gzip_bytes: Gauge,
    backend: Option<BackendPage>,
}

// === impl Exporter ===

impl Exporter {
    /// Takes the registry and the source that every page is gathered from, and adds the families about the pages
    /// themselves to the registry. No family may come from both.
    ///
    /// # Errors
    /// When the registry already has a family about the pages (`golden_scrape_…`).
    pub fn new(registry: &Registry, source: Source) -> prometheus::Result<Exporter> {
        Exporter::build(registry, source, None, None)
    }

    /// The same, able to append the backend's own page to ours. `started_seconds`: since when the registry's families
    /// count, in seconds since 1970.
    ///
    /// # Errors
    /// As [`Exporter::new`].
    pub fn with_backend(
        registry: &Registry,
        source: Source,
        target: watch::Receiver<Target>,
        started_seconds: f64,
    ) -> prometheus::Result<Exporter> {
        Exporter::build(registry, source, Some(BackendPage::new(target)?), Some(started_seconds))
    }

    fn build(
        registry: &Registry,
        source: Source,
        backend: Option<BackendPage>,
        started_seconds: Option<f64>,
    ) -> prometheus::Result<Exporter> {
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
        let shared = IntCounter::new(
            "golden_scrapes_shared_total",
            "Scrapes of this process that were answered with a page that was being made for another one as well.",
        )?;
        let identity_bytes = size_bytes.with_label_values(&["identity"]);
        let gzip_bytes = size_bytes.with_label_values(&["gzip"]);
        registry.register(Box::new(duration_seconds.clone()))?;
        registry.register(Box::new(size_bytes))?;
        registry.register(Box::new(shared.clone()))?;
        let created = AtomicBool::new(true);
        let registry = registry.clone();
        let pages = Arc::new(Pages {
            registry,
            source,
            created,
            started_seconds,
            duration_seconds,
            identity_bytes,
            gzip_bytes,
            backend,
        });
        let making = Arc::clone(&pages);
        let queue = Queue::start("exposition", shared, move |wanted: &Wanted, scraped: Option<Arc<Scraped>>| {
            making.render(wanted, scraped.as_deref())
        });
        Ok(Exporter { pages, queue })
    }

    /// Whether OpenMetrics pages have `_created` lines from now on; at first they have. Prometheus before 3 makes a series
    /// of each. Protobuf says the same in a field, which costs nobody a series and stays.
    pub fn set_created(&self, created: bool) {
        self.pages.created.store(created, Relaxed);
    }

    /// A page that is begun after this call. With the backend's, it waits for the backend first, but not longer than its
    /// target's timeout.
    ///
    /// # Errors
    /// When there is none.
    pub async fn page(&self, mut wanted: Wanted) -> Result<Rendered, NoPage> {
        let backend = self.pages.backend.as_ref();
        wanted.backend = backend.is_some_and(|backend| wanted.backend || backend.always());
        let scraped = match backend.filter(|_| wanted.backend) {
            Some(backend) => Some(backend.get().await),
            None => None,
        };
        self.queue.ask(wanted, scraped).await
    }
}

// === impl Wanted ===

impl Wanted {
    /// What the fields and the query of a request ask for.
    ///
    /// # Errors
    /// When the query names families in a way that cannot be read.
    pub fn of(headers: &HeaderMap, query: Option<&str>) -> Result<Wanted, BadQuery> {
        let (format, escaping) = format(headers);
        let query = query.unwrap_or_default();
        let backend = query.split('&').any(|pair| pair == "include=backend");
        Ok(Wanted { format, escaping, encoding: encoding(headers), filter: Filter::read(query)?, backend })
    }
}

// === impl NoPage ===

impl fmt::Display for NoPage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            NoPage::Busy => "too many different metrics pages are being waited for; try again in a second",
            NoPage::Failed => "the page could not be made; the log of this process says why",
        })
    }
}

impl std::error::Error for NoPage {}

// === impl Pages ===

impl Pages {
    /// Gathers and encodes one page, with the backend's if it was asked for. Blocks for as long as that takes, a few
    /// milliseconds for a large page.
    #[allow(clippy::cast_precision_loss)]
    fn render(&self, wanted: &Wanted, scraped: Option<&Scraped>) -> Rendered {
        let begun = Instant::now();
        let Wanted { format, escaping, encoding, filter: _, backend: _ } = wanted;
        let mut families = cold::convert(self.registry.gather(), self.started_seconds);
        families.extend((self.source)());

        // A page that cannot be read was found out when it came.
        let mut names = foreign::Names::default();
        let theirs = scraped.and_then(Scraped::page).and_then(|page| crate::scrape::text::parse(page).ok());
        let theirs = theirs.map(|page| names.escape(page, escaping.unwrap_or_default()));
        let mut foreign = None;
        if let Some(backend) = &self.backend {
            foreign = theirs.as_ref().map(|(page, escaped)| Foreign::beside(page, &backend.taken(&families), *escaped));
            if let Some(scraped) = scraped {
                let dropped = foreign.as_ref().map_or(0, Foreign::dropped);
                families.extend(cold::convert(backend.told(scraped, dropped), None));
            }
            families.extend(cold::convert(backend.counted(), self.started_seconds));
        }
        let sink::Finished { chunks, plain_bytes } =
            write(families, foreign.as_ref(), wanted, self.created.load(Relaxed));
        let body = Body::from(chunks);

        self.identity_bytes.set(plain_bytes as f64);
        let content_encoding = (*encoding == Encoding::Gzip).then(|| {
            self.gzip_bytes.set(body.len() as f64);
            "gzip"
        });
        self.duration_seconds.set(begun.elapsed().as_secs_f64());
        Rendered { content_type: format.content_type(*escaping), content_encoding, body }
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pages").field("backend", &self.backend).finish_non_exhaustive()
    }
}

/// A page of these families and, behind them, of what fits beside them of another page: what an [`Exporter`] makes, without
/// asking anybody. For fuzzing. `None`: the other page cannot be read.
#[doc(hidden)]
#[must_use]
pub fn page(families: Vec<MetricFamily>, theirs: &[u8], wanted: &Wanted) -> Option<Vec<u8>> {
    let mut names = foreign::Names::default();
    let (theirs, escaped) = names.escape(crate::scrape::text::parse(theirs).ok()?, wanted.escaping.unwrap_or_default());
    let taken = families.iter().flat_map(|family| foreign::names_of(&family.name, family.kind)).collect();
    let foreign = Foreign::beside(&theirs, &taken, escaped);
    Some(write(families, Some(&foreign), wanted, true).chunks.concat())
}

/// Writes a page: those of our families that are wanted, then those of another page, then its end. `created`: with
/// `_created`.
fn write(
    mut families: Vec<MetricFamily>,
    foreign: Option<&Foreign<'_, '_>>,
    wanted: &Wanted,
    created: bool,
) -> sink::Finished {
    let Wanted { format, encoding, filter, .. } = wanted;
    if !filter.is_open() {
        families.retain(|family| filter.takes(foreign::names_of(&family.name, family.kind)));
    }
    // One order, whatever they come from.
    families.sort_by(|one, other| one.name.cmp(&other.name));
    let mut sink = Sink::new(*encoding);
    match format.profile() {
        Some(profile) => encoder::encode(&families, profile, created, &mut sink),
        None => protobuf::encode(&families, &mut sink),
    }
    if let Some(foreign) = foreign {
        foreign.write(*format, filter, &mut sink);
    }
    sink.write(format.profile().map_or(b"", |profile| profile.end));
    sink.finish()
}

// === impl Format ===

impl Format {
    /// How it is written, if it is text.
    fn profile(self) -> Option<&'static Profile> {
        match self {
            Format::Text | Format::Text1 => Some(&text::PROFILE),
            Format::OpenMetrics | Format::OpenMetricsDraft => Some(&openmetrics::PROFILE),
            Format::Protobuf => None,
        }
    }

    /// What a page says that it is. It tells of the escaping only to those who spoke of it: older readers know no such
    /// parameter.
    fn content_type(self, escaping: Option<Escaping>) -> Cow<'static, str> {
        let name = match self {
            Format::Text => text::CONTENT_TYPE,
            Format::Text1 => text::CONTENT_TYPE_1,
            Format::OpenMetrics => openmetrics::CONTENT_TYPE,
            Format::OpenMetricsDraft => openmetrics::CONTENT_TYPE_DRAFT,
            Format::Protobuf => protobuf::CONTENT_TYPE,
        };
        match escaping {
            None => name.into(),
            Some(escaping) => format!("{name}; escaping={}", escaping.as_str()).into(),
        }
    }
}

/// Families as one text, without the end of a page.
#[cfg(test)]
fn plain(families: &[MetricFamily], profile: &Profile) -> String {
    let mut sink = Sink::new(Encoding::Identity);
    encoder::encode(families, profile, true, &mut sink);
    String::from_utf8(sink.finish().chunks.concat()).expect("pages are UTF-8")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn value(page: &str, series: &str) -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
    }

    fn exporter() -> Exporter {
        Exporter::new(&Registry::new(), Box::new(Vec::new)).unwrap()
    }

    fn wanted(format: Format, encoding: Encoding) -> Wanted {
        Wanted { format, escaping: None, encoding, filter: Filter::default(), backend: false }
    }

    async fn page(exporter: &Exporter, wanted: Wanted) -> (Rendered, String) {
        let page = exporter.page(wanted).await.unwrap();
        let text = match page.content_encoding {
            None => String::from_utf8(page.body.to_vec()).unwrap(),
            Some(_) => {
                let mut text = String::new();
                flate2::read::GzDecoder::new(&page.body.to_vec()[..]).read_to_string(&mut text).unwrap();
                text
            }
        };
        (page, text)
    }

    #[tokio::test]
    async fn a_page_tells_the_size_and_duration_of_the_page_before() {
        let exporter = exporter();
        let (_, first) = page(&exporter, wanted(Format::Text, Encoding::Identity)).await;
        assert_eq!(value(&first, "golden_scrape_duration_seconds"), 0.0);
        assert_eq!(value(&first, "golden_scrape_size_bytes{encoding=\"gzip\"}"), 0.0);

        let (packed, second) = page(&exporter, wanted(Format::OpenMetrics, Encoding::Gzip)).await;
        assert_eq!((&*packed.content_type, packed.content_encoding), (openmetrics::CONTENT_TYPE, Some("gzip")));
        assert_eq!(value(&second, "golden_scrape_size_bytes{encoding=\"identity\"}"), first.len() as f64);
        assert!(value(&second, "golden_scrape_duration_seconds") > 0.0);

        let (_, third) = page(&exporter, wanted(Format::Text, Encoding::Identity)).await;
        assert_eq!(value(&third, "golden_scrape_size_bytes{encoding=\"gzip\"}"), packed.body.len() as f64);
        assert_eq!(value(&third, "golden_scrape_size_bytes{encoding=\"identity\"}"), second.len() as f64);
    }

    #[tokio::test]
    async fn a_filter_leaves_the_families_that_it_names_and_a_valid_page() {
        let exporter = exporter();
        for (query, family) in [
            ("name[]=golden_scrape_size_bytes", Some("golden_scrape_size_bytes")),
            ("name[]=golden_scrapes_shared", Some("golden_scrapes_shared")),
            ("name[]=golden_scrapes_shared_total", Some("golden_scrapes_shared")),
            ("name[]=golden_scrapes_shared_created&name[]=x", Some("golden_scrapes_shared")),
            ("name[]=golden_scrape", None),
        ] {
            let mut wanted = wanted(Format::OpenMetrics, Encoding::Identity);
            wanted.filter = Filter::read(query).unwrap();
            let (_, text) = page(&exporter, wanted).await;
            let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
            let names: Vec<_> = families.iter().filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(names, family.into_iter().collect::<Vec<_>>(), "{query}");
            assert!(text.ends_with("# EOF\n"));
        }
    }

    #[tokio::test]
    async fn creation_times_are_on_openmetrics_pages_unless_they_are_not_wanted() {
        use crate::signals::snapshot::{Kind, Metric, Value};
        let source = || {
            let value = Value::Counter(3.0, None);
            let metrics = vec![Metric { labels: Vec::new(), value, created_seconds: Some(1.5) }];
            vec![MetricFamily { name: "x_total".into(), help: "X.".into(), kind: Kind::Counter, metrics }]
        };
        let exporter = Exporter::new(&Registry::new(), Box::new(source)).unwrap();
        let (_, with) = page(&exporter, wanted(Format::OpenMetrics, Encoding::Identity)).await;
        assert!(with.contains("# TYPE x counter\n# HELP x X.\nx_total 3.0\nx_created 1.5\n"), "{with}");
        let (_, text) = page(&exporter, wanted(Format::Text, Encoding::Identity)).await;
        assert!(text.contains("x_total 3\n") && !text.contains("x_created"), "{text}");
        exporter.set_created(false);
        let (_, without) = page(&exporter, wanted(Format::OpenMetrics, Encoding::Identity)).await;
        assert!(without.contains("x_total 3.0\n") && !without.contains("_created"), "{without}");
    }

    #[test]
    fn a_registry_takes_one_exporter() {
        let registry = Registry::new();
        assert!(Exporter::new(&registry, Box::new(Vec::new)).is_ok());
        assert!(Exporter::new(&registry, Box::new(Vec::new)).is_err());
    }

    #[test]
    fn the_content_type_speaks_of_escaping_to_those_who_did() {
        assert_eq!(Format::Text.content_type(None), "text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(
            Format::Text1.content_type(Some(Escaping::AllowUtf8)),
            "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
        );
    }
}
