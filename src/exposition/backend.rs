//! The backend's own page: asked for when a scrape wants it on ours, and shared by scrapes that come together.
//!
//! All or nothing: a page that does not come, or cannot be read, leaves no line, and ours is complete and on time without
//! it. Ours wins where both have a name.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::core::Collector as _;
use prometheus::proto;
use prometheus::{Gauge, IntCounterVec, Opts};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::foreign::names_of;
use crate::labels::Trouble;
use crate::scrape::fetch::{Backend, Failure, Fetcher};
use crate::scrape::text::parse;
use crate::signals::families;
use crate::signals::snapshot::{Kind, MetricFamily};

/// A page is not asked for again within this time: two Prometheus servers that scrape together, or a person who reloads,
/// get one page. Half a second is too short for anybody to see.
const SHARED_FOR: Duration = Duration::from_millis(500);

/// Names as they are: what becomes of them is for whoever asks us to say.
const ACCEPT: &str =
    "text/plain;version=1.0.0;escaping=allow-utf-8, text/plain;version=0.0.4;q=0.9, text/plain;q=0.8, */*;q=0.1";

const UP: &str = "golden_backend_scrape_up";
const DURATION: &str = "golden_backend_scrape_duration_seconds";
const SIZE: &str = "golden_backend_scrape_size_bytes";
const DROPPED: &str = "golden_backend_scrape_families_dropped";
const FAILURES: &str = "golden_backend_scrape_failures_total";

/// The ways in which it can fail, as the label `reason` has them.
const REASONS: [Trouble; 5] =
    [Trouble::Unreachable, Trouble::Status, Trouble::Timeout, Trouble::TooLarge, Trouble::Malformed];

/// Where the page is, and what may be spent on it. A reload tells it anew.
#[derive(Clone, PartialEq)]
pub struct Target {
    /// Where it is.
    pub page: Page,
    /// Largest page that is taken, in bytes.
    pub size_max: u64,
    /// Longest that it may take to come.
    pub timeout: Duration,
    /// Part of every page; otherwise only of those that ask for it.
    pub always: bool,
}

/// Where the backend's own page is.
#[derive(Clone, PartialEq)]
pub enum Page {
    /// At a URL, which may hold a secret.
    Url(String),
    /// `/metrics` of the backend itself, whatever is spoken there.
    OfBackend(Backend),
}

/// How asking for it went.
#[derive(Debug)]
pub struct Scraped {
    duration: Duration,
    size_bytes: usize,
    /// As it came; it can be read.
    page: Result<Bytes, Trouble>,
}

/// Asks for it.
#[derive(Debug)]
pub(super) struct BackendPage {
    target: watch::Receiver<Target>,
    latest: Arc<Mutex<Latest>>,
    numbers: Numbers,
    /// Names that are ours even when they are not on the page.
    reserved: HashSet<String>,
}

/// What was asked last. Whoever holds it asks, so there is one question on the way.
#[derive(Debug)]
struct Latest {
    fetcher: Option<(Target, Fetcher)>,
    scraped: Option<(Instant, Arc<Scraped>)>,
    /// How it went last, to tell only what is new.
    trouble: Option<Trouble>,
    failures: IntCounterVec,
}

/// The families about it. They are in no registry: they stand on pages that the backend's page was asked for, and describe
/// just that.
#[derive(Debug)]
struct Numbers {
    up: Gauge,
    duration_seconds: Gauge,
    size_bytes: Gauge,
    dropped: Gauge,
    /// Stays on every page once it was on one.
    failures: IntCounterVec,
}

/// Without the URL.
impl fmt::Debug for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { page: _, size_max, timeout, always } = self;
        let mut shown = out.debug_struct("Target");
        shown.field("size_max", size_max).field("timeout", timeout).field("always", always).finish_non_exhaustive()
    }
}

// === impl BackendPage ===

impl BackendPage {
    pub fn new(target: watch::Receiver<Target>) -> prometheus::Result<BackendPage> {
        let numbers = Numbers {
            up: Gauge::new(UP, "1 when the backend's own metrics are on this page, 0 when they could not be had.")?,
            duration_seconds: Gauge::new(
                DURATION,
                "Time that the backend took to send its own metrics for this page.",
            )?,
            size_bytes: Gauge::new(SIZE, "Size of the backend's own metrics for this page, 0 when they did not come.")?,
            dropped: Gauge::new(
                DROPPED,
                "Families of the backend that are not on this page because this sidecar has them, or because they came twice.",
            )?,
            failures: IntCounterVec::new(
                Opts::new(
                    FAILURES,
                    "Attempts of this sidecar to get the backend's own metrics that failed, by reason.",
                ),
                &["reason"],
            )?,
        };
        let latest = Latest { fetcher: None, scraped: None, trouble: None, failures: numbers.failures.clone() };
        let ours = families::all().map(|family| (family.name, family.kind));
        let about = [UP, DURATION, SIZE, DROPPED].map(|name| (name, Kind::Gauge));
        let all = ours.chain(about).chain([(FAILURES, Kind::Counter)]);
        let reserved = all.flat_map(|(name, kind)| names_of(name, kind)).collect();
        Ok(BackendPage { target, latest: Arc::new(Mutex::new(latest)), numbers, reserved })
    }

    /// Whether it is part of every page.
    pub fn always(&self) -> bool {
        self.target.borrow().always
    }

    /// Asks for it, or takes what was asked for a moment ago. Waits for little more than the target's timeout.
    pub async fn get(&self) -> Arc<Scraped> {
        let mut latest = Arc::clone(&self.latest).lock_owned().await;
        let target = self.target.borrow().clone();
        if let Some(scraped) = latest.shared(&target) {
            return scraped;
        }
        // In a task of its own, so that a scraper that leaves does not take the answer from those who wait behind it.
        let kept = Arc::clone(&self.latest);
        let asking = tokio::spawn(async move {
            let scraped = latest.ask(target).await;
            tokio::spawn(forget(kept));
            scraped
        });
        asking.await.unwrap_or_else(|stopped| {
            tracing::warn!(event = "backend_metrics_missing", reason = "stopped", detail = %stopped);
            Arc::new(Scraped { duration: Duration::ZERO, size_bytes: 0, page: Err(Trouble::Malformed) })
        })
    }

    /// Names that the backend's families cannot have on a page with these families of ours.
    pub fn taken(&self, ours: &[MetricFamily]) -> HashSet<String> {
        let mut taken = self.reserved.clone();
        taken.extend(ours.iter().flat_map(|family| names_of(&family.name, family.kind)));
        taken
    }

    /// The families about how it went and how many families were left out.
    #[allow(clippy::cast_precision_loss)]
    pub fn told(&self, scraped: &Scraped, left_out: usize) -> Vec<proto::MetricFamily> {
        let Numbers { up, duration_seconds, size_bytes, dropped, failures: _ } = &self.numbers;
        up.set(if scraped.page.is_ok() { 1.0 } else { 0.0 });
        duration_seconds.set(scraped.duration.as_secs_f64());
        size_bytes.set(scraped.size_bytes as f64);
        dropped.set(left_out as f64);
        [up, duration_seconds, size_bytes, dropped].into_iter().flat_map(|gauge| gauge.collect()).collect()
    }

    /// What was counted, once there was something to count.
    pub fn counted(&self) -> Vec<proto::MetricFamily> {
        self.numbers.failures.collect().into_iter().filter(|family| !family.get_metric().is_empty()).collect()
    }
}

// === impl Scraped ===

impl Scraped {
    /// The page, if there is one.
    pub fn page(&self) -> Option<&[u8]> {
        self.page.as_deref().ok()
    }
}

/// Gives the memory of a page back once it is not shared any more: a large one takes megabytes, and the next scrape may be
/// a minute away.
async fn forget(latest: Arc<Mutex<Latest>>) {
    tokio::time::sleep(SHARED_FOR).await;
    let mut latest = latest.lock().await;
    latest.scraped.take_if(|(at, _)| at.elapsed() >= SHARED_FOR);
}

// === impl Latest ===

impl Latest {
    /// What was asked of this target a moment ago.
    fn shared(&self, target: &Target) -> Option<Arc<Scraped>> {
        let (at, scraped) = self.scraped.as_ref()?;
        let same = self.fetcher.as_ref().is_some_and(|(known, _)| known == target);
        (same && at.elapsed() < SHARED_FOR).then(|| Arc::clone(scraped))
    }

    async fn ask(&mut self, target: Target) -> Arc<Scraped> {
        for reason in REASONS {
            self.failures.with_label_values(&[reason.as_str()]);
        }
        let limit = target.timeout;
        if self.fetcher.as_ref().is_none_or(|(known, _)| *known != target) {
            let fetcher = match &target.page {
                Page::Url(url) => Fetcher::new(url, ACCEPT, target.size_max),
                Page::OfBackend(backend) => Fetcher::of_backend(backend.clone(), ACCEPT, target.size_max),
            };
            self.fetcher = Some((target, fetcher));
        }
        let begun = Instant::now();
        let came = match &self.fetcher {
            Some((_, fetcher)) => fetcher.get(limit).await,
            None => Err(Failure::Unreachable),
        };
        let duration = begun.elapsed();
        let size_bytes = came.as_ref().map_or(0, Bytes::len);
        let page = match came {
            // A large page takes milliseconds to read, which the admin port does not wait for. It is read again when it is
            // written, as what is read refers to the bytes; to be sure of it only then would be too late to count it.
            Ok(bytes) => {
                let read = tokio::task::spawn_blocking(move || parse(&bytes).map(|_| ()).map(|()| bytes));
                match read.await {
                    Ok(read) => read.map_err(|malformed| (Trouble::Malformed, malformed.to_string())),
                    Err(stopped) => Err((Trouble::Malformed, stopped.to_string())),
                }
            }
            Err(failure) => Err((failure.trouble(), failure.to_string())),
        };
        let page = page.map_err(|(trouble, detail)| {
            self.failures.with_label_values(&[trouble.as_str()]).inc();
            if self.trouble != Some(trouble) {
                tracing::warn!(event = "backend_metrics_missing", reason = trouble.as_str(), detail);
            }
            trouble
        });
        self.trouble = page.as_ref().err().copied();
        let scraped = Arc::new(Scraped { duration, size_bytes, page });
        self.scraped = Some((Instant::now(), Arc::clone(&scraped)));
        scraped
    }
}
