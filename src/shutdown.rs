//! Signals from outside as a stream of wishes.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals without a meaning for the sidecar that servers give one to (reopen logs, upgrade, quit when idle).
const PASSED: [SignalKind; 3] = [SignalKind::user_defined1(), SignalKind::user_defined2(), SignalKind::quit()];

/// What somebody outside wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGTERM or SIGINT.
    Stop {
        /// Which one.
        signal: i32,
    },
    /// SIGHUP.
    Reload,
    /// Something that a command of ours may understand.
    Pass {
        /// The signal.
        signal: i32,
    },
}

/// The signals that this process listens to.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    passed: [Option<Signal>; PASSED.len()],
}

impl Signals {
    /// Listens from now on. Needs a runtime. `passing`: also to what is only to be passed on; without somebody to pass it
    /// to, such a signal keeps its usual effect.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn listen(passing: bool) -> io::Result<Signals> {
        let mut passed = [None, None, None];
        if passing {
            for (place, kind) in passed.iter_mut().zip(PASSED) {
                *place = Some(signal(kind)?);
            }
        }
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            passed,
        })
    }

    /// The next wish.
    pub async fn next(&mut self) -> Wish {
        let [first, second, third] = &mut self.passed;
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop { signal: libc::SIGTERM },
            _ = self.interrupt.recv() => Wish::Stop { signal: libc::SIGINT },
            _ = self.hangup.recv() => Wish::Reload,
            () = arrival(first) => pass(0),
            () = arrival(second) => pass(1),
            () = arrival(third) => pass(2),
        }
    }

    /// The next wish to stop; others are not heeded any more.
    pub async fn next_stop(&mut self) -> i32 {
        loop {
            if let Wish::Stop { signal } = self.next().await {
                return signal;
            }
        }
    }
}

async fn arrival(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn pass(index: usize) -> Wish {
    Wish::Pass { signal: PASSED[index].as_raw_value() }
}
