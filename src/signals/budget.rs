//! How much memory the label sets may take, and how much they take. Asked on cold paths only: when a label set is met
//! for the first time, and when one of its histograms needs more than an ordinary one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// 64 MiB: a hundred routes with four statuses and three methods take 4 MiB with two workers and 23 MiB with sixteen.
const DEFAULT_LIMIT_BYTES: u64 = 64 << 20;

/// Bytes used, and the most that may be.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    limit: AtomicU64,
}

/// On whose account memory is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account<'a> {
    budget: &'a Budget,
    /// `_other` and `_unmatched` always work.
    unlimited: bool,
}

// === impl Budget ===

impl Budget {
    pub fn new() -> Budget {
        Budget { used: AtomicU64::new(0), limit: AtomicU64::new(DEFAULT_LIMIT_BYTES) }
    }

    /// What has been taken stays taken, also when it is more than the new limit.
    pub fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes as u64, Relaxed);
    }

    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    pub fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    pub fn account(&self, unlimited: bool) -> Account<'_> {
        Account { budget: self, unlimited }
    }
}

// === impl Account ===

impl Account<'_> {
    /// Takes `bytes`, unless the limit would be passed.
    pub fn take(self, bytes: usize) -> bool {
        let Account { budget: Budget { used, limit }, unlimited } = self;
        let more = |used: u64| {
            let used = used.saturating_add(bytes as u64);
            (unlimited || used <= limit.load(Relaxed)).then_some(used)
        };
        used.fetch_update(Relaxed, Relaxed, more).is_ok()
    }
}
