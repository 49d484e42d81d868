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
use crate::turns;

/// Different things that are waited for at once. All formats and encodings that Prometheus asks for are ten, and the rest
/// is for those who filter: a filter is free text, and nobody may fill the queue with it.
const WAITING_MAX: usize = 16;

/// Niceness of the thread, of -20 to 19. A scrape may take a few milliseconds longer; a request that waits for a processor
/// on which a page is being compressed may not. 10 leaves it about a tenth of the share of a worker, so that it still gets
/// along on a machine that is full.
const NICENESS: libc::c_int = 10;

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
            turns::step_back(NICENESS);
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::mpsc as tasks;
    use tokio::task::{JoinHandle, yield_now};

    use super::*;

    /// A queue that says when it begins and waits for a word to end. What it makes is how many it has made.
    struct Slow {
        queue: Arc<Queue<u8, &'static str, (usize, u8, &'static str)>>,
        begun: tasks::UnboundedReceiver<u8>,
        go_on: mpsc::Sender<()>,
        shared: IntCounter,
    }

    impl Slow {
        fn start() -> Slow {
            let (begin, begun) = tasks::unbounded_channel();
            let (go_on, wait) = mpsc::channel();
            let shared = IntCounter::new("shared", "Help.").unwrap();
            let made = std::sync::atomic::AtomicUsize::new(0);
            let make = move |key: &u8, input| {
                begin.send(*key).unwrap();
                wait.recv().unwrap();
                (made.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, *key, input)
            };
            Slow { queue: Arc::new(Queue::start("test", shared.clone(), make)), begun, go_on, shared }
        }

        /// Somebody asks; when this returns, he waits.
        async fn ask(&self, key: u8, input: &'static str) -> JoinHandle<Result<(usize, u8, &'static str), NoPage>> {
            let queue = Arc::clone(&self.queue);
            let asking = tokio::spawn(async move { queue.ask(key, input).await });
            // One thread, tasks in order: now he has been polled.
            yield_now().await;
            asking
        }
    }

    #[tokio::test]
    async fn whoever_asks_while_it_is_made_gets_the_next_one_and_shares_it() {
        let mut slow = Slow::start();
        let first = slow.ask(7, "a").await;
        assert_eq!(slow.begun.recv().await, Some(7));
        let later = [slow.ask(7, "b").await, slow.ask(7, "c").await, slow.ask(7, "d").await];
        let other = slow.ask(8, "e").await;
        (0..3).for_each(|_| slow.go_on.send(()).unwrap());
        assert_eq!(first.await.unwrap(), Ok((1, 7, "a")));
        for waiter in later {
            assert_eq!(waiter.await.unwrap(), Ok((2, 7, "d")), "made from what the last one brought");
        }
        assert_eq!(other.await.unwrap(), Ok((3, 8, "e")));
        assert_eq!(slow.shared.get(), 2);
    }

    #[tokio::test]
    async fn whoever_leaves_stops_nobody_and_nothing_is_made_for_nobody() {
        let mut slow = Slow::start();
        let first = slow.ask(1, "a").await;
        assert_eq!(slow.begun.recv().await, Some(1));
        let (leaver, stayer) = (slow.ask(2, "b").await, slow.ask(2, "c").await);
        let alone = slow.ask(3, "d").await;
        let last = slow.ask(4, "e").await;
        first.abort();
        leaver.abort();
        alone.abort();
        yield_now().await;
        (0..3).for_each(|_| slow.go_on.send(()).unwrap());
        assert_eq!(stayer.await.unwrap(), Ok((2, 2, "c")));
        assert_eq!(last.await.unwrap(), Ok((3, 4, "e")));
        assert_eq!((slow.begun.recv().await, slow.begun.recv().await), (Some(2), Some(4)));
        assert_eq!(slow.shared.get(), 0);
    }

    #[tokio::test]
    async fn only_so_many_different_things_are_waited_for() {
        let mut slow = Slow::start();
        let _made = slow.ask(100, "").await;
        assert_eq!(slow.begun.recv().await, Some(100));
        let mut waiting = Vec::new();
        for key in 0..16 {
            waiting.push(slow.ask(key, "").await);
        }
        assert_eq!(slow.ask(16, "").await.await.unwrap(), Err(NoPage::Busy));
        let known = slow.ask(3, "").await;
        assert!(!known.is_finished(), "what is waited for already costs no place");
        waiting.remove(5).abort();
        yield_now().await;
        let next = slow.ask(16, "").await;
        yield_now().await;
        assert!(!next.is_finished(), "who left has left his place");
        (0..17).for_each(|_| slow.go_on.send(()).unwrap());
        assert_eq!(next.await.unwrap().unwrap().1, 16);
    }

    #[tokio::test]
    async fn a_panic_fails_one_and_the_end_of_the_queue_is_the_end_of_its_thread() {
        let (alive, ended) = mpsc::channel::<()>();
        let shared = IntCounter::new("shared", "Help.").unwrap();
        let queue = Queue::start("test", shared, move |key: &u8, ()| {
            let _alive = &alive;
            assert!(*key > 0, "this is what a test does");
            *key
        });
        assert_eq!(queue.ask(0, ()).await, Err(NoPage::Failed));
        assert_eq!(queue.ask(1, ()).await, Ok(1));
        drop(queue);
        assert_eq!(ended.recv(), Err(mpsc::RecvError));
    }

    #[tokio::test]
    async fn the_thread_steps_back_and_nobody_else_does() {
        // SAFETY: the call touches no memory.
        let niceness = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = niceness();
        let queue = Queue::start("test", IntCounter::new("shared", "Help.").unwrap(), move |(): &(), ()| niceness());
        assert_eq!(queue.ask((), ()).await, Ok(before.max(NICENESS)));
        assert_eq!(niceness(), before);
    }
}
