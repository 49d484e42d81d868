//! The atomics of `store.rs`. `tests/model.rs` compiles that same file with loom's in their place, and so tries every order
//! in which a writer and a reader can meet.

pub use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, fence};
pub use std::thread::yield_now;
