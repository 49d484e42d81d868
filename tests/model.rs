//! Every order in which the one writer of a cell and a scrape can meet, tried by loom on the real code of the stores: the
//! files below are compiled once more, with loom's atomics in the place of the standard ones. Loom also gives a load every
//! old value that the memory model allows, which no x86 would.

#![allow(dead_code, missing_docs)]

#[path = "../src/signals/native.rs"]
mod native;
#[path = "../src/signals/snapshot.rs"]
mod snapshot;
#[path = "../src/signals/store.rs"]
mod store;

/// What `src/signals/sync.rs` is in the crate.
mod sync {
    pub use loom::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, fence};
    pub use loom::thread::yield_now;

    /// Reading what nobody else writes. Loom remembers only the latest access to an atomic, so a writer that loads before it
    /// stores would hide the reader's load from it, and orders would be left out; this load leaves no trace, and fails when
    /// anybody else could store.
    pub trait Own {
        type Value;
        fn own(&self) -> Self::Value;
    }

    impl Own for AtomicU64 {
        type Value = u64;
        fn own(&self) -> u64 {
            // SAFETY: loom itself checks that no store is concurrent.
            unsafe { self.unsync_load() }
        }
    }

    impl Own for AtomicI64 {
        type Value = i64;
        fn own(&self) -> i64 {
            // SAFETY: as above.
            unsafe { self.unsync_load() }
        }
    }

    impl<T> Own for AtomicPtr<T> {
        type Value = *mut T;
        fn own(&self) -> *mut T {
            // SAFETY: as above.
            unsafe { self.unsync_load() }
        }
    }
}

use std::sync::Arc;

use store::{Counter, Edges, Gauge, Histogram, Total, TraceIds, Traced, TracedCounter};

/// Nanoseconds of the two observations. In different pages, and the second in another classic bucket.
const FIRST: u64 = 1_000_000;
const SECOND: u64 = 300_000_000;

fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // A thread is interrupted at most twice: that is enough for what can go wrong here, and three times take minutes.
    builder.preemption_bound = Some(2);
    builder.check(test);
}

fn traced(at: u64) -> Option<Traced> {
    // Another number in every part, so that a mixture of two would be seen.
    let ids = TraceIds { trace_id: u128::from(at) << 64 | u128::from(at + 10), span_id: at + 20 };
    Some(Traced { ids, at })
}

fn read(histograms: &[&Histogram]) -> snapshot::Histogram {
    let mut total = Total::new(histograms[0].edges());
    histograms.iter().for_each(|histogram| histogram.add_to(&mut total));
    total.shown(0.0)
}

/// Checks one reading against what one writer writes, [`FIRST`] and then [`SECOND`]; returns how much of it there was.
fn consistent(seen: &snapshot::Histogram) -> u64 {
    let native = seen.native.as_ref().expect("always there");
    let in_native = native.zero_count + native.buckets.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(seen.count(), in_native, "{seen:?}");
    let (counts, sum) = match seen.count() {
        0 => ([0, 0], 0),
        1 => ([1, 0], FIRST),
        2 => ([1, 1], FIRST + SECOND),
        more => panic!("{more} observations: {seen:?}"),
    };
    assert_eq!((seen.counts.as_slice(), seen.sum), (counts.as_slice(), sum as f64 / 1e9), "{seen:?}");
    seen.count()
}

#[test]
fn no_reading_of_a_histogram_is_half_of_an_observation() {
    model(|| {
        let histogram = Arc::new(Histogram::new(&Edges::new(&[0.01])));
        let writer = loom::thread::spawn({
            let histogram = Arc::clone(&histogram);
            move || {
                histogram.observe(FIRST);
                histogram.observe(SECOND);
            }
        });
        consistent(&read(&[&histogram]));
        writer.join().unwrap();
        assert_eq!(consistent(&read(&[&histogram])), 2);
    });
}

#[test]
fn no_count_of_a_histogram_goes_back() {
    model(|| {
        let histogram = Arc::new(Histogram::new(&Edges::new(&[0.01])));
        let writer = loom::thread::spawn({
            let histogram = Arc::clone(&histogram);
            move || histogram.observe(FIRST)
        });
        let before = consistent(&read(&[&histogram]));
        let after = consistent(&read(&[&histogram]));
        assert!(before <= after);
        writer.join().unwrap();
    });
}

#[test]
fn an_exemplar_is_whole_and_belongs_to_what_is_counted() {
    model(|| {
        // Both in the same bucket, so that the second takes the place of the first.
        let histogram = Arc::new(Histogram::new(&Edges::new(&[1.0])));
        histogram.observe_within(FIRST, traced(1_000), |_| true);
        let writer = loom::thread::spawn({
            let histogram = Arc::clone(&histogram);
            move || histogram.observe_within(SECOND, traced(2_000), |_| true)
        });
        let seen = read(&[&histogram]);
        let (_, exemplar) = seen.exemplars[0];
        let (at, nanos, sum) = [(1_000, FIRST, FIRST), (2_000, SECOND, FIRST + SECOND)][seen.count() as usize - 1];
        let ids = TraceIds { trace_id: exemplar.trace_id, span_id: exemplar.span_id };
        assert_eq!(Some(ids), traced(at).map(|traced| traced.ids));
        assert_eq!((exemplar.value, seen.sum), (nanos as f64 / 1e9, sum as f64 / 1e9));
        writer.join().unwrap();
    });
}

#[test]
fn a_traced_event_is_whole_and_counted() {
    model(|| {
        let counter = Arc::new(TracedCounter::default());
        counter.add(traced(1_000), |_| true);
        let writer = loom::thread::spawn({
            let counter = Arc::clone(&counter);
            move || {
                counter.add(None, |_| true);
                counter.add(traced(2_000), |_| true);
            }
        });
        let (count, latest) = counter.get();
        match latest.map(|event| event.traced) {
            first if first == traced(1_000) => assert!((1..3).contains(&count), "{count}"),
            second => assert_eq!((count, second), (3, traced(2_000))),
        }
        writer.join().unwrap();
    });
}

#[test]
fn who_sees_nothing_in_flight_finds_everything_counted() {
    model(|| {
        let cells = Arc::new((Gauge::default(), Counter::default(), Histogram::new(&Edges::new(&[0.01]))));
        cells.0.add(1);
        let writer = loom::thread::spawn({
            let cells = Arc::clone(&cells);
            move || {
                let (inflight, requests, durations) = &*cells;
                durations.observe(FIRST);
                requests.add(1);
                inflight.add(-1);
            }
        });
        let (inflight, requests, durations) = &*cells;
        if inflight.get() == 0 {
            assert_eq!(requests.get(), 1);
            assert_eq!(consistent(&read(&[durations])), 1);
        }
        writer.join().unwrap();
    });
}

#[test]
fn shards_add_up() {
    model(|| {
        let edges = Edges::new(&[0.01]);
        let shards: Arc<[Histogram; 2]> = Arc::new(std::array::from_fn(|_| Histogram::new(&edges)));
        let writers = [0, 1].map(|shard| {
            let shards = Arc::clone(&shards);
            loom::thread::spawn(move || shards[shard].observe([FIRST, SECOND][shard]))
        });
        let seen = read(&[&shards[0], &shards[1]]);
        let expected = seen.counts[0] * FIRST + seen.counts[1] * SECOND;
        assert!(seen.counts.iter().all(|count| *count <= 1));
        assert_eq!(seen.sum, expected as f64 / 1e9);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_eq!(consistent(&read(&[&shards[0], &shards[1]])), 2);
    });
}
