//! The allocator. Small blocks come and go with every connection; mimalloc does that with fewer instructions than glibc.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives pages that this thread no longer uses back to the system, those that have been free for a while. Without it
/// they are given back only by later allocations, and a worker whose clients have all gone idle makes none.
pub fn give_back() {
    // SAFETY: mi_collect may be called at any time, from any thread.
    unsafe { libmimalloc_sys::mi_collect(false) }
}
