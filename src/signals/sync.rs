//! The atomics of `store.rs`. `tests/model.rs` compiles that same file with loom's in their place, and so tries every
//! order in which a writer and a reader can meet.

use std::sync::atomic::Ordering::Relaxed;
pub use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, fence};
pub use std::thread::yield_now;

/// Reading what nobody else writes.
pub trait Own {
    /// What is in it.
    type Value;

    /// The value, for its one writer. Loom checks that it is the one.
    fn own(&self) -> Self::Value;
}

macro_rules! own {
    ($($atomic:ty => $value:ty),+) => { $(impl Own for $atomic {
        type Value = $value;

        #[inline]
        fn own(&self) -> $value {
            self.load(Relaxed)
        }
    })+ };
}
own!(AtomicU64 => u64, AtomicI64 => i64);

impl<T> Own for AtomicPtr<T> {
    type Value = *mut T;

    #[inline]
    fn own(&self) -> *mut T {
        self.load(Relaxed)
    }
}
