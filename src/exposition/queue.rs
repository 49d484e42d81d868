//! One thread that makes things which several people want: who wants the same waits for the same.
//!
//! Somebody who asks while his thing is being made does not get that one, which was begun before he asked, but the next.
//! So nobody is told what was true before his question, and of each thing at most one is being made and one is waited for,
//! however many ask.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};

use prometheus::IntCounter;
use tokio::sync::oneshot;

use super::NoPage;

/// Different things that are waited for at once. All formats and encodings that Prometheus asks for are ten, and the rest
/// is for those who filter: a filter is free text, and nobody may fill the queue with it.
const WAITING_MAX: usize = 16;

/// Niceness of the thread, of -20 to 19. A scrape may take a few milliseconds longer; a request that waits for a processor
/// on which a page is being compressed may not. 5 leaves it about a third of the share of a worker, so that it still gets
/// along on a machine that is full.
const NICENESS: libc::c_int = 5;

/// Asks a thread for things. The thread ends when this is dropped and what was being made is done.
pub(super) struct Queue<Key, Input, Made> {
    shared: Arc<Shared<Key, Input, Made>>,
}

struct Shared<Key, Input, Made> {
    state: Mutex<State<Key, Input, Made>>,
    changed: Condvar,
}

struct State<Key, Input, Made> {
    waiting: VecDeque<Order<Key, Input, Made>>,
    closed: bool,
}

/// Something that is waited for and not begun yet.
struct Order<Key, Input, Made> {
    key: Key,
    input: Input,
    waiters: Vec<oneshot::Sender<Made>>,
}

const POISON: &str = "nothing panics while it holds this lock";

// === impl Queue ===

impl<Key, Input, Made> Queue<Key, Input, Made>
where
    Key: PartialEq + Send + 'static,
    Input: Send + 'static,
    Made: Clone + Send + 'static,
{
    /// Starts a thread of this name that makes things with `make`. `shared` counts those who got what others got.
    ///
    /// # Panics
    /// When there can be no further thread, which no program of this kind survives.
    pub fn start(name: &str, shared: IntCounter, make: impl Fn(&Key, Input) -> Made + Send + 'static) -> Self {
        let state = State { waiting: VecDeque::new(), closed: false };
        let queue = Queue { shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }) };
        let orders = Arc::clone(&queue.shared);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            step_back();
            while let Some(order) = orders.next() {
                serve(order, &shared, &make);
            }
        });
        thread.expect("a thread can be started while the program is being built");
        queue
    }

    /// Something that is begun after this call. `input` is what it is made from; of several who wait for the same, that of
    /// the last one counts.
    ///
    /// # Errors
    /// When too many different things are waited for, or making it panicked.
    pub async fn ask(&self, key: Key, input: Input) -> Result<Made, NoPage> {
        let (waiter, made) = oneshot::channel();
        {
            let mut state = self.shared.state.lock().expect(POISON);
            match state.waiting.iter_mut().find(|order| order.key == key) {
                Some(order) => {
                    order.input = input;
                    order.waiters.push(waiter);
                }
                None => {
                    // Whoever has left leaves his place to others.
                    state.waiting.retain(Order::is_wanted);
                    if state.waiting.len() >= WAITING_MAX {
                        return Err(NoPage::Busy);
                    }
                    state.waiting.push_back(Order { key, input, waiters: vec![waiter] });
                }
            }
        }
        self.shared.changed.notify_one();
        made.await.or(Err(NoPage::Failed))
    }
}

impl<Key, Input, Made> Drop for Queue<Key, Input, Made> {
    fn drop(&mut self) {
        self.shared.state.lock().expect(POISON).closed = true;
        self.shared.changed.notify_one();
    }
}

impl<Key, Input, Made> fmt::Debug for Queue<Key, Input, Made> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Queue").finish_non_exhaustive()
    }
}

// === impl Shared ===

impl<Key, Input, Made> Shared<Key, Input, Made> {
    /// Takes the next order out, so that whoever asks from now on waits for another one. `None`: nobody will ask any more.
    fn next(&self) -> Option<Order<Key, Input, Made>> {
        let mut state = self.state.lock().expect(POISON);
        loop {
            if state.closed {
                return None;
            }
            if let Some(order) = state.waiting.pop_front() {
                return Some(order);
            }
            state = self.changed.wait(state).expect(POISON);
        }
    }
}

// === impl Order ===

impl<Key, Input, Made> Order<Key, Input, Made> {
    /// Whether somebody still waits.
    fn is_wanted(&self) -> bool {
        self.waiters.iter().any(|waiter| !waiter.is_closed())
    }
}

/// Makes what was ordered and hands it out to those who are still there.
fn serve<Key, Input, Made: Clone>(
    order: Order<Key, Input, Made>,
    shared: &IntCounter,
    make: impl Fn(&Key, Input) -> Made,
) {
    if !order.is_wanted() {
        return;
    }
    let Order { key, input, waiters } = order;
    // A defect in one page must not take the next one from everybody; the panic has said on standard error what it is, and
    // the waiters learn from their ends being dropped.
    let Ok(made) = catch_unwind(AssertUnwindSafe(|| make(&key, input))) else { return };
    let served = waiters.into_iter().filter_map(|waiter| waiter.send(made.clone()).ok()).count();
    shared.inc_by(served.saturating_sub(1) as u64);
}

/// Lets others go first. Where that is forbidden, the thread works as before.
fn step_back() {
    // SAFETY: the call touches no memory. Linux keeps a niceness per thread, and 0 is the one that calls.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS);
    }
}
