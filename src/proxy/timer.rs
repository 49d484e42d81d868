//! Deadlines on a coarse clock, one set per worker.
//!
//! A timer of the runtime costs a registration per wait, several per request. Here arming a deadline is one store: each
//! connection owns a slot, a sweep looks over all slots every [`TICK`] and wakes what is due. Deadlines are limits on
//! misbehaviour, so a tick too late does no harm; one never fires early.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

/// How often deadlines are looked at. 50 ms is a tenth of the shortest deadline people set, and twenty wake-ups a second
/// cost a worker nothing that can be measured.
pub const TICK: Duration = Duration::from_millis(TICK_MILLIS);
const TICK_MILLIS: u64 = 50;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// The deadlines of one worker.
#[derive(Debug, Default)]
pub struct Timers {
    now: Cell<u64>,
    /// Dense, so that a sweep over ten thousand idle connections reads 80 KB in a row.
    due: RefCell<Vec<u64>>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<u32>>,
}

impl Timers {
    /// Ticks since the start.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    /// Moves the clock to `now` ticks and wakes what is due.
    pub fn advance(&self, now: u64) {
        self.now.set(now);
        let mut wakers = self.wakers.borrow_mut();
        for (slot, due) in self.due.borrow().iter().enumerate() {
            if *due <= now
                && let Some(waker) = wakers[slot].take()
            {
                waker.wake();
            }
        }
    }

    /// Wakes everything: something that all connections must look at has changed.
    pub fn wake_all(&self) {
        for waker in self.wakers.borrow_mut().iter_mut().filter_map(Option::take) {
            waker.wake();
        }
    }

    /// A slot for one connection.
    #[must_use]
    pub fn slot(self: &Rc<Self>) -> Deadline {
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            self.due.borrow_mut().push(NEVER);
            self.wakers.borrow_mut().push(None);
            (self.due.borrow().len() - 1) as u32
        });
        Deadline { timers: Rc::clone(self), slot, due: Cell::new(NEVER) }
    }

    /// Ticks that a duration takes, rounded up, and one more because the current tick has partly gone by.
    #[must_use]
    pub fn ticks(duration: Duration) -> u64 {
        (duration.as_secs() * 1000 + u64::from(duration.subsec_millis())).div_ceil(TICK_MILLIS) + 1
    }
}

/// A connection's deadline. Given back when dropped.
#[derive(Debug)]
pub struct Deadline {
    timers: Rc<Timers>,
    slot: u32,
    due: Cell<u64>,
}

impl Deadline {
    /// Fires `after` from now, unless it is armed anew or cleared.
    pub fn arm(&self, after: Duration) {
        self.set(self.timers.now() + Timers::ticks(after));
    }

    /// Never fires, unless it is armed anew.
    pub fn clear(&self) {
        self.set(NEVER);
    }

    fn set(&self, due: u64) {
        if self.due.replace(due) != due {
            self.timers.due.borrow_mut()[self.slot as usize] = due;
        }
    }

    /// Whether it has fired. If not, the task of `cx` is woken when it does, or by [`Timers::wake_all`].
    #[must_use]
    pub fn expired(&self, cx: &Context<'_>) -> bool {
        if self.due.get() <= self.timers.now() {
            return true;
        }
        let waker = &mut self.timers.wakers.borrow_mut()[self.slot as usize];
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        false
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.timers.due.borrow_mut()[self.slot as usize] = NEVER;
        self.timers.wakers.borrow_mut()[self.slot as usize] = None;
        self.timers.free.borrow_mut().push(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_deadline_never_fires_early_and_wakes_once() {
        let timers = Rc::new(Timers::default());
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let deadline = timers.slot();
        deadline.arm(Duration::from_millis(100));
        for tick in 1..=2 {
            timers.advance(tick);
            assert!(!deadline.expired(&cx));
        }
        timers.advance(3);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(deadline.expired(&cx));
        deadline.clear();
        assert!(!deadline.expired(&cx));
    }

    #[test]
    fn slots_are_used_again() {
        let timers = Rc::new(Timers::default());
        for _ in 0..1000 {
            drop(timers.slot());
        }
        assert_eq!(timers.due.borrow().len(), 1);
    }
}
