//! The peers of a black-box test: the sidecar as a process, a scripted backend, a raw client, the parsed metrics page.
//! Nothing here knows how the sidecar works inside; everything goes through its sockets, signals, files and logs.
#![allow(dead_code, reason = "each test binary compiles this module and uses a part of it")]

pub mod backend;
pub mod certificates;
pub mod client;
pub mod files;
pub mod frames;
pub mod h2_backend;
pub mod h2c;
pub mod names;
pub mod page;
pub mod program;
pub mod prometheus;
pub mod promql;
pub mod random;
pub mod sidecar;
pub mod wire;

#[allow(unused_imports, reason = "each test binary uses a part")]
pub use self::{
    backend::{Backend, End, Gate, Peer, ok, response},
    client::{Client, Response},
    names::Names,
    page::Page,
    sidecar::{Outcome, Sidecar},
    wire::Head,
};

use std::time::Duration;
use tokio::time::Instant;

/// How long anything may take that should happen "at once": far above what a loaded two-core machine needs, far below
/// the defaults of every timeout of the sidecar (the shortest is 1 s for a connect, and no test waits for that one).
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Polls until the condition holds; false when the deadline passed first. The only place where a test sleeps.
#[must_use]
pub fn wait_for(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > deadline {
            return false;
        }
        #[allow(clippy::disallowed_methods, reason = "the one polling helper; it has a deadline")]
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Like [`wait_for`] with [`PATIENCE`], and panics with the text when it does not happen.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(wait_for(PATIENCE, condition), "did not happen within {PATIENCE:?}: {what}");
}

/// Sets the flag when dropped: load threads end even when the test fails, and the scope around them can be left.
pub struct StopOnDrop<'a>(pub &'a std::sync::atomic::AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}
