//! Finding the backend by its name, again and again.
//!
//! The system's resolver is asked (getaddrinfo), so that /etc/hosts, search domains and whatever else the machine is set up
//! with hold here as everywhere. It tells no time to live, so the interval between two questions is configured, and it
//! blocks, so a thread of its own waits for it: one question at a time, however long the answer takes, and never a request
//! that waits for it. An answer that does not come, or is empty, changes nothing but what is said about it.

use std::io;
use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::{Place, Upstream};
use crate::transport::Addresses;

/// Failed connects make the name be asked for at once, but not more often than this: what has moved is found again before
/// most clients have given up, and a backend that is down does not become the name server's problem.
const QUESTION_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// An answer that takes longer counts as failed. Resolvers repeat a question after five seconds by default; what still has
/// not come then is not on its way.
const PATIENCE: Duration = Duration::from_secs(6);

/// What those who connect and the one who asks tell each other about a name.
#[derive(Debug, Default)]
pub(super) struct Name {
    /// Whether the last question has failed.
    lost: AtomicBool,
    /// Whether somebody has told of a failed connect since.
    doubted: AtomicBool,
    doubt: Notify,
}

/// What a question has come to.
#[derive(Debug)]
pub enum Event {
    /// An answer. `changed`: the addresses that hold from now on, if they are others than before.
    Answered {
        /// `None`: as before.
        changed: Option<Addresses>,
        /// Whether the question before had failed.
        found_again: bool,
    },
    /// No answer, or an empty one. The last addresses still hold.
    Failed {
        /// Why.
        error: io::Error,
        /// Whether the question before had been answered.
        lost: bool,
    },
}

/// Looks the backend up. Blocks as long as the system's resolver does.
///
/// # Errors
/// When the name has no address.
pub fn resolve(upstream: &Upstream) -> io::Result<Addresses> {
    let (host, port) = match &upstream.place {
        Place::Unix(path) => return Ok(Addresses::unix(path)),
        Place::Tcp { host, port } => (host, *port),
    };
    let answer: Vec<_> = (host.as_str(), port).to_socket_addrs()?.collect();
    let addresses =
        Addresses::of(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address"))?;
    Ok(if upstream.is_name() { addresses.named(Arc::default()) } else { addresses })
}

/// Asks for the name of `upstream` every `refresh`, and soon after a failed connect, for ever; tells what each question
/// came to. `addresses`: what the first question, which was not asked here, was answered.
pub async fn follow(upstream: Upstream, mut addresses: Addresses, refresh: Duration, mut tell: impl FnMut(Event)) {
    let Some(name) = addresses.name().cloned() else { return };
    let mut asked = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(asked + refresh) => {}
            () = name.doubt.notified() => sleep_until(asked + QUESTION_INTERVAL_MIN.min(refresh)).await,
        }
        asked = Instant::now();
        name.doubted.store(false, Relaxed);
        let copy = upstream.clone();
        let mut question = tokio::task::spawn_blocking(move || resolve(&copy));
        let in_time = timeout(PATIENCE, &mut question).await;
        let is_late = in_time.is_err();
        if is_late {
            let error = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}"));
            tell(Event::Failed { error, lost: !name.lost.swap(true, Relaxed) });
        }
        let answer = match in_time {
            Ok(answer) => answer,
            Err(_) => question.await,
        };
        tell(match answer.map_err(io::Error::other).and_then(|answer| answer) {
            // Its failure has been told.
            Err(_) if is_late => continue,
            Ok(answer) => {
                let found_again = name.lost.swap(false, Relaxed);
                let changed = !answer.same_places(&addresses);
                if changed {
                    addresses = addresses.followed_by(answer);
                }
                Event::Answered { changed: changed.then(|| addresses.clone()), found_again }
            }
            Err(error) => Event::Failed { error, lost: !name.lost.swap(true, Relaxed) },
        });
    }
}

// === impl Name ===

impl Name {
    /// See [`Addresses::is_lost`].
    pub fn is_lost(&self) -> bool {
        self.lost.load(Relaxed)
    }

    /// See [`Addresses::connect_failed`]. The first of many that fail at once wakes the asker, for the others it is one
    /// read.
    pub fn connect_failed(&self) -> bool {
        if !self.doubted.load(Relaxed) && !self.doubted.swap(true, Relaxed) {
            self.doubt.notify_one();
        }
        self.is_lost()
    }
}
