//! Single-writer cells: what a worker writes on the request path and a scrape reads from another thread.
//!
//! Each cell has exactly one writer, so an addition is a relaxed load and a relaxed store: no lock prefix, no
//! compare-and-swap, no cache line that two workers fight for. What belongs together (the buckets of a histogram, its
//! sum, its exemplars) is written under a sequence number: the writer makes it odd, writes, makes it even, and never
//! waits; a reader that finds it odd or changed reads once more. So no reading is half of an observation.
//! `tests/model.rs` tries every order.
//!
//! A histogram is recorded once for both kinds of buckets. Their edges together cut the numbers into cells, and as a
//! value grows, its classic bucket `c` and its native one `n` only grow, so `c + n` is another number for every pair:
//! one addition to cell `c + n` counts in both. The two kinds cannot differ, because both are sums of the same cells.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::native;
use super::snapshot;
use super::sync::{AtomicI64, AtomicPtr, AtomicU64, Own as _, fence, yield_now};

/// A count that only grows. One writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.own().wrapping_add(n), Relaxed);
    }

    /// The count now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Replaces the count. Only the owning worker may call this, with a larger value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

/// A number that goes up and down. One writer. Signed, because work that starts on one worker and ends on another
/// may leave one shard below zero; the sum over the shards is right.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `n`, which may be negative. Only the owning worker may call this.
    pub fn add(&self, n: i64) {
        // Release, and acquire in `get`: a reader that sees a gauge go down sees what was counted before. Free on x86.
        self.0.store(self.0.own() + n, Release);
    }

    /// Replaces the value. Only the owning worker may call this.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Acquire)
    }
}

/// Who a traced request is, W3C Trace Context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceIds {
    /// Of the whole trace.
    pub trace_id: u128,
    /// Of the span that the client, or whoever stands before the sidecar, opened.
    pub span_id: u64,
}

/// A traced event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Whose.
    pub ids: TraceIds,
    /// When, as [`crate::signals::moment::Moment`] counts; never 0.
    pub at: u64,
}

/// A count that only grows, and the latest traced event that it counted. One writer.
#[derive(Debug, Default)]
pub struct TracedCounter {
    count: Counter,
    sequence: Sequence,
    latest: Late<Slot>,
}

/// Upper edges of a histogram.
#[derive(Debug, PartialEq)]
pub struct Edges {
    seconds: Arc<[f64]>,
    /// The same in nanoseconds, then the largest number, for the bucket above all edges.
    nanos: Box<[u64]>,
    /// The classic bucket of the smallest value of each native cell.
    first: Box<[u16]>,
    /// The native cells, first and last, that the values of each classic bucket fall in.
    spans: Box<[(u16, u16)]>,
}

/// A histogram of durations, classic and native at once, with exemplars. One writer.
#[derive(Debug)]
pub struct Histogram {
    sequence: Sequence,
    /// Sum of all observations in nanoseconds, and how often it passed 2^64: ten thousand open streams take three
    /// weeks.
    sum_nanos: Counter,
    sum_carried: Counter,
    /// Pages there are.
    filled: Counter,
    edges: Arc<Edges>,
    /// The cells, in pages that are there from their first use: all values of one route lie in a few doublings.
    pages: Box<[Late<Page>]>,
    /// For each classic bucket the latest traced event.
    exemplars: Late<Box<[Slot]>>,
}

/// Cells of one page: 128 bytes, two cache lines, two doublings. Smaller pages need a longer list of them, larger ones
/// are emptier.
const PAGE: usize = 16;

/// Pages that are counted as part of an empty histogram, so that ordinary ones never ask for more: eight doublings, say
/// 4 ms to 1 s.
const ORDINARY_PAGES: u64 = 4;

type Page = [Counter; PAGE];

/// Where a traced event is kept. Written under somebody's [`Sequence`].
#[derive(Debug, Default)]
struct Slot {
    trace_high: AtomicU64,
    trace_low: AtomicU64,
    span: AtomicU64,
    nanos: AtomicU64,
    /// 0 for none.
    at: AtomicU64,
}

/// A traced event as a reader found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whose and when.
    pub traced: Traced,
    /// How long it took, in nanoseconds.
    pub nanos: u64,
}

/// Odd while its one writer writes what it guards.
#[derive(Debug, Default)]
struct Sequence(AtomicU64);

/// A box that its one writer fills at first use and that then stays.
#[derive(Debug)]
struct Late<T>(AtomicPtr<T>);

// === impl Sequence ===

impl Sequence {
    /// Writes what it guards. Only the owning worker may call this.
    #[inline]
    fn write(&self, change: impl FnOnce()) {
        let before = self.0.own();
        self.0.store(before.wrapping_add(1), Relaxed);
        // Who sees any of the changes sees the odd number as well. No instruction on x86.
        fence(Release);
        change();
        self.0.store(before.wrapping_add(2), Release);
    }

    /// Reads what it guards as it was at one moment. `read` starts afresh each time.
    fn read<T>(&self, mut read: impl FnMut() -> T) -> T {
        loop {
            let before = self.0.load(Acquire);
            if before.is_multiple_of(2) {
                let seen = read();
                fence(Acquire);
                if self.0.load(Relaxed) == before {
                    return seen;
                }
            }
            // The writer is between two of its few stores, or was stopped there by the kernel: let it run.
            yield_now();
        }
    }
}

// === impl Late ===

impl<T> Default for Late<T> {
    fn default() -> Self {
        Late(AtomicPtr::new(std::ptr::null_mut()))
    }
}

impl<T> Late<T> {
    #[inline]
    fn get(&self) -> Option<&T> {
        // SAFETY: the pointer is null or came from `fill`; what it points to is only freed by `drop`.
        unsafe { self.0.load(Acquire).as_ref() }
    }

    /// As [`Late::get`], for the one writer.
    #[inline]
    fn own(&self) -> Option<&T> {
        // SAFETY: as above.
        unsafe { self.0.own().as_ref() }
    }

    /// What is there, or what is put there now. Only the owning worker may call this.
    #[cold]
    fn fill(&self, value: impl FnOnce() -> T) -> &T {
        if let Some(there) = self.own() {
            return there;
        }
        let made = Box::into_raw(Box::new(value()));
        self.0.store(made, Release);
        // SAFETY: it was made a line ago, and only `drop` frees it.
        unsafe { &*made }
    }
}

impl<T> Drop for Late<T> {
    fn drop(&mut self) {
        let there = self.0.load(Acquire);
        if !there.is_null() {
            // SAFETY: `fill` made it from a box, and nobody can look at it any more.
            drop(unsafe { Box::from_raw(there) });
        }
    }
}

// === impl Slot ===

impl Slot {
    fn put(&self, Event { traced, nanos }: Event) {
        let Traced { ids: TraceIds { trace_id, span_id }, at } = traced;
        self.trace_high.store((trace_id >> 64) as u64, Relaxed);
        self.trace_low.store(trace_id as u64, Relaxed);
        self.span.store(span_id, Relaxed);
        self.nanos.store(nanos, Relaxed);
        self.at.store(at, Relaxed);
    }

    fn get(&self) -> Option<Event> {
        let at = self.at.load(Relaxed);
        (at != 0).then(|| {
            let trace_id = u128::from(self.trace_high.load(Relaxed)) << 64 | u128::from(self.trace_low.load(Relaxed));
            let ids = TraceIds { trace_id, span_id: self.span.load(Relaxed) };
            Event { traced: Traced { ids, at }, nanos: self.nanos.load(Relaxed) }
        })
    }
}

// === impl TracedCounter ===

impl TracedCounter {
    /// Counts one event. `take` is asked for the bytes that the first traced one needs. Only the owning worker may call
    /// this.
    pub fn add(&self, traced: Option<Traced>, take: impl FnOnce(usize) -> bool) {
        let Some(traced) = traced else { return self.count.add(1) };
        let room = self.latest.own().is_some() || take(size_of::<Slot>());
        let latest = room.then(|| self.latest.fill(Slot::default));
        self.sequence.write(|| {
            self.count.add(1);
            latest.inspect(|slot| slot.put(Event { traced, nanos: 0 }));
        });
    }

    /// The count, and the latest traced event in it.
    #[must_use]
    pub fn get(&self) -> (u64, Option<Event>) {
        // An event is never shown before it is counted; what is counted without one changes nothing here.
        self.sequence.read(|| (self.count.get(), self.latest.get().and_then(Slot::get)))
    }
}

// === impl Edges ===

impl Edges {
    /// Edges in seconds, increasing, without +Inf.
    #[must_use]
    pub fn new(seconds: &[f64]) -> Arc<Edges> {
        // Nanoseconds are exact for every edge a person writes; rounding guards against 0.1 being 0.09999….
        let nanos: Box<[u64]> = seconds.iter().map(|s| whole_nanos(*s)).chain([u64::MAX]).collect();
        let bucket = |value: u64| nanos.partition_point(|edge| *edge < value);
        let first = (0..native::CELLS).map(|cell| bucket(native::lowest(cell)) as u16).collect();
        let below = std::iter::once(0).chain(nanos.iter().map(|edge| edge.saturating_add(1)));
        // Of two edges that are the same nanosecond the second has no values of its own.
        let span = |(lowest, edge): (u64, &u64)| (native::cell(lowest.min(*edge)) as u16, native::cell(*edge) as u16);
        let spans = below.zip(&nanos).map(span).collect();
        Arc::new(Edges { seconds: seconds.into(), nanos, first, spans })
    }

    /// These edges and `extra` ones (thresholds), in order, each once.
    #[must_use]
    pub fn with(seconds: &[f64], extra: &[f64]) -> Vec<f64> {
        let mut all: Vec<f64> = seconds.iter().chain(extra).copied().filter(|s| s.is_finite() && *s > 0.0).collect();
        all.sort_by(f64::total_cmp);
        all.dedup_by_key(|s| whole_nanos(*s));
        all
    }

    /// The edges in seconds, as they are exposed.
    #[must_use]
    pub fn seconds(&self) -> &Arc<[f64]> {
        &self.seconds
    }

    /// Bytes that these edges take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Edges>() + self.nanos.len() * (8 + 8 + size_of::<(u16, u16)>()) + self.first.len() * size_of::<u16>()
    }

    /// The classic bucket that a duration of this native cell falls in; edges are inclusive (`le`).
    #[inline]
    fn bucket(&self, cell: usize, nanos: u64) -> usize {
        let mut bucket = usize::from(self.first[cell]);
        // No step at all for most cells; the last edge is the largest number there is.
        while self.nanos[bucket] < nanos {
            bucket += 1;
        }
        bucket
    }

    /// Cells that the classic and the native edges cut the numbers into.
    fn cells(&self) -> usize {
        native::CELLS + self.seconds.len()
    }
}

/// Seconds in whole nanoseconds; a float beyond the range stops at its end.
fn whole_nanos(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

// === impl Histogram ===

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub fn new(edges: &Arc<Edges>) -> Histogram {
        Histogram {
            sequence: Sequence::default(),
            sum_nanos: Counter::default(),
            sum_carried: Counter::default(),
            filled: Counter::default(),
            edges: Arc::clone(edges),
            pages: (0..edges.cells().div_ceil(PAGE)).map(|_| Late::default()).collect(),
            exemplars: Late::default(),
        }
    }

    /// Bytes that a histogram with these edges takes as long as it is an ordinary one.
    #[must_use]
    pub fn ordinary_bytes(edges: &Edges) -> usize {
        let pages = edges.cells().div_ceil(PAGE) * size_of::<Late<Page>>();
        size_of::<Histogram>() + pages + ORDINARY_PAGES as usize * size_of::<Page>()
    }

    /// Records one duration in nanoseconds. Only the owning worker may call this.
    #[inline]
    pub fn observe(&self, nanos: u64) {
        self.observe_within(nanos, None, |_| true);
    }

    /// Records one duration in nanoseconds, of a traced request or not. `take` is asked for the bytes that are needed
    /// beyond those of an ordinary histogram; when it refuses those of a page, nothing is recorded and the answer is
    /// false. Only the owning worker may call this.
    #[inline]
    pub fn observe_within(&self, nanos: u64, traced: Option<Traced>, take: impl Fn(usize) -> bool) -> bool {
        let cell = native::cell(nanos);
        let bucket = self.edges.bucket(cell, nanos);
        let cell = cell + bucket;
        let page = match self.pages[cell / PAGE].own() {
            Some(page) => page,
            None => match self.page(cell / PAGE, &take) {
                Some(page) => page,
                None => return false,
            },
        };
        let slot = match traced {
            None => None,
            Some(traced) => self.slot(bucket, &take).map(|slot| (slot, traced)),
        };
        self.sequence.write(|| {
            page[cell % PAGE].add(1);
            let sum = self.sum_nanos.0.own();
            self.sum_nanos.set(sum.wrapping_add(nanos));
            if sum.checked_add(nanos).is_none() {
                self.sum_carried.add(1);
            }
            if let Some((slot, traced)) = slot {
                slot.put(Event { traced, nanos });
            }
        });
        true
    }

    #[cold]
    fn page(&self, at: usize, take: impl Fn(usize) -> bool) -> Option<&Page> {
        if self.filled.0.own() >= ORDINARY_PAGES && !take(size_of::<Page>()) {
            return None;
        }
        self.filled.add(1);
        Some(self.pages[at].fill(Page::default))
    }

    #[cold]
    fn slot(&self, bucket: usize, take: impl Fn(usize) -> bool) -> Option<&Slot> {
        let buckets = self.edges.nanos.len();
        if self.exemplars.own().is_none() && !take(buckets * size_of::<Slot>()) {
            return None;
        }
        Some(&self.exemplars.fill(|| (0..buckets).map(|_| Slot::default()).collect())[bucket])
    }

    /// Adds what stands here at one moment to `total`, which has the same edges.
    pub fn add_to(&self, total: &mut Total) {
        let Total { edges: _, cells, touched, sum_nanos, events, reading } = total;
        let sum = self.sequence.read(|| {
            reading.pages.clear();
            reading.events.clear();
            for (at, page) in self.pages.iter().enumerate() {
                if let Some(page) = page.get() {
                    reading.pages.push((at, std::array::from_fn(|cell| page[cell].get())));
                }
            }
            if let Some(slots) = self.exemplars.get() {
                let events = slots.iter().enumerate().filter_map(|(bucket, slot)| Some((bucket, slot.get()?)));
                reading.events.extend(events);
            }
            u128::from(self.sum_carried.get()) << 64 | u128::from(self.sum_nanos.get())
        });
        *sum_nanos += sum;
        for (page, counts) in &reading.pages {
            let start = page * PAGE;
            *touched = (touched.0.min(start), touched.1.max(start + PAGE));
            cells[start..start + PAGE].iter_mut().zip(counts).for_each(|(into, from)| *into += from);
        }
        for (bucket, event) in &reading.events {
            if events.len() <= *bucket {
                events.resize(bucket + 1, None);
            }
            let latest = &mut events[*bucket];
            if latest.is_none_or(|known| known.traced.at < event.traced.at) {
                *latest = Some(*event);
            }
        }
    }

    /// The edges.
    #[must_use]
    pub fn edges(&self) -> &Arc<Edges> {
        &self.edges
    }
}

/// The sum of one histogram over all workers.
#[derive(Debug)]
pub struct Total {
    edges: Arc<Edges>,
    cells: Vec<u64>,
    /// All counts that are not zero are in this range of cells.
    touched: (usize, usize),
    sum_nanos: u128,
    events: Vec<Option<Event>>,
    reading: Reading,
}

/// What one histogram said, until it is known to be whole.
#[derive(Debug, Default)]
struct Reading {
    pages: Vec<(usize, [u64; PAGE])>,
    events: Vec<(usize, Event)>,
}

// === impl Total ===

impl Total {
    /// Nothing observed yet.
    #[must_use]
    pub fn new(edges: &Arc<Edges>) -> Total {
        let cells = vec![0; edges.cells().next_multiple_of(PAGE)];
        let (edges, reading) = (Arc::clone(edges), Reading::default());
        Total { edges, cells, touched: (usize::MAX, 0), sum_nanos: 0, events: Vec::new(), reading }
    }

    /// As [`Total::new`], in the same memory.
    pub fn reset(&mut self, edges: &Arc<Edges>) {
        if !Arc::ptr_eq(&self.edges, edges) {
            self.edges = Arc::clone(edges);
            self.cells.resize(edges.cells().next_multiple_of(PAGE), 0);
        }
        self.cells.fill(0);
        self.touched = (usize::MAX, 0);
        self.sum_nanos = 0;
        self.events.clear();
    }

    /// Whatever was observed, in the model of the page. `offset_seconds`: what to add to a moment's seconds to get
    /// those since 1970.
    #[must_use]
    pub fn shown(&self, offset_seconds: f64) -> snapshot::Histogram {
        let mut counts = vec![0; self.edges.nanos.len()];
        let mut zero_count = 0;
        let mut buckets: Vec<(i32, u64)> = Vec::with_capacity(32);
        let (start, end) = self.touched;
        for (bucket, (from, to)) in self.edges.spans.iter().enumerate() {
            let from = (usize::from(*from) + bucket).max(start);
            let to = (usize::from(*to) + bucket + 1).min(end);
            for at in from..to {
                let count = self.cells[at];
                if count == 0 {
                    continue;
                }
                counts[bucket] += count;
                let index = native::index(at - bucket);
                match buckets.last_mut() {
                    _ if at == bucket => zero_count += count,
                    Some((last, sum)) if *last == index => *sum += count,
                    _ => buckets.push((index, count)),
                }
            }
        }
        let (schema, buckets) = native::merged(native::SCHEMA, buckets, native::SHOWN_BUCKETS);
        let zero_threshold = native::ZERO_THRESHOLD_SECONDS;
        let events = self.events.iter().enumerate().filter_map(|(bucket, event)| Some((bucket, (*event)?)));
        snapshot::Histogram {
            edges: Arc::clone(&self.edges.seconds),
            counts,
            sum: self.sum_nanos as f64 / 1e9,
            native: Some(snapshot::Native { schema, zero_threshold, zero_count, buckets }),
            exemplars: events.map(|(bucket, event)| (bucket, event.shown(offset_seconds))).collect(),
        }
    }
}

// === impl Event ===

impl Event {
    /// In the model of the page; see [`Total::shown`].
    #[must_use]
    pub fn shown(&self, offset_seconds: f64) -> snapshot::Exemplar {
        let Traced { ids: TraceIds { trace_id, span_id }, at } = self.traced;
        // Milliseconds, which is what is stored of it anyway: the same event then has the same time on every page.
        let at_seconds = ((offset_seconds + at as f64 / 1e9) * 1e3).round() / 1e3;
        snapshot::Exemplar { trace_id, span_id, value: self.nanos as f64 / 1e9, at_seconds }
    }
}
