//! The shop's pool of database connections: a few that orders and checkouts share. There is no database; what is real is
//! that all may be taken, that the next one waits, and that one who waits too long gives up.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::UnderWay;
use crate::config::{Expression, Pool, PoolKind, PoolSelectors, Term};

/// Connections. On the wave of the traffic one or two are taken; at its bursts all are, and some wait.
const CONNECTIONS: usize = 3;
/// How long one waits for a connection: three times what one is usually held, so that hardly ever somebody gives up.
const WAIT_LIMIT: Duration = Duration::from_millis(100);
/// The page of the backend that tells of the pool.
pub(super) const PAGE: &str = "db-pool";

/// The connections, and who wants one.
#[derive(Debug)]
pub(super) struct Connections {
    free: Semaphore,
    waiting: AtomicUsize,
    timeouts: AtomicU64,
}

/// The pool of the backend that listens here, as a configuration would declare it. The numbers come from its own page.
#[must_use]
pub(super) fn declared(backend: SocketAddr) -> Pool {
    let pointer = |to: &str| Expression { text: to.to_owned(), terms: vec![(true, Term::Pointer(to.to_owned()))] };
    let selectors = PoolSelectors {
        used: Some(pointer("/in_use")),
        idle: Some(pointer("/idle")),
        limit: Some(pointer("/max")),
        waiting: Some(pointer("/waiting")),
        timeouts: Some(pointer("/timeouts")),
    };
    let kind =
        PoolKind::Reported { url: format!("http://{backend}/{PAGE}"), preset: None, selectors: Box::new(selectors) };
    Pool { name: "db".to_owned(), kind, limit: None }
}

// === impl Connections ===

impl Connections {
    pub(super) fn new() -> Connections {
        Connections { free: Semaphore::new(CONNECTIONS), waiting: AtomicUsize::new(0), timeouts: AtomicU64::new(0) }
    }

    /// A connection, free again when dropped; `None` when none became free in time.
    pub(super) async fn take(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(connection) = self.free.try_acquire() {
            return Some(connection);
        }
        let _waiting = UnderWay::enter(&self.waiting);
        // Nobody closes the semaphore, so that only the time can run out.
        match timeout(WAIT_LIMIT, self.free.acquire()).await {
            Ok(connection) => connection.ok(),
            Err(_) => {
                self.timeouts.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// What the page says.
    pub(super) fn report(&self) -> Value {
        let idle = self.free.available_permits();
        json!({
            "in_use": CONNECTIONS.saturating_sub(idle),
            "idle": idle,
            "max": CONNECTIONS,
            "waiting": self.waiting.load(Ordering::Relaxed),
            "timeouts": self.timeouts.load(Ordering::Relaxed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(pool: &Connections) -> [u64; 5] {
        let report = pool.report();
        ["in_use", "idle", "max", "waiting", "timeouts"].map(|key| report[key].as_u64().unwrap())
    }

    #[tokio::test]
    async fn one_too_many_waits_and_gets_what_becomes_free_or_gives_up() {
        let pool = Connections::new();
        let most = CONNECTIONS as u64;
        let mut taken = Vec::new();
        for _ in 0..CONNECTIONS {
            taken.push(pool.take().await.unwrap());
        }
        assert_eq!(numbers(&pool), [most, 0, most, 0, 0]);

        // Looked at after the other was asked once.
        let given_back = async {
            assert_eq!(numbers(&pool), [most, 0, most, 1, 0]);
            drop(taken.pop());
        };
        let (connection, ()) = tokio::join!(pool.take(), given_back);
        let connection = connection.expect("a connection became free");
        assert_eq!(numbers(&pool), [most, 0, most, 0, 0]);

        assert!(pool.take().await.is_none(), "all are taken");
        assert_eq!(numbers(&pool), [most, 0, most, 0, 1]);
        drop((connection, taken));
        assert_eq!(numbers(&pool), [0, most, most, 0, 1]);
    }

    #[tokio::test]
    async fn one_who_leaves_while_he_waits_no_longer_waits() {
        let pool = Connections::new();
        let mut taken = Vec::new();
        for _ in 0..CONNECTIONS {
            taken.push(pool.take().await.unwrap());
        }
        assert!(timeout(WAIT_LIMIT / 2, pool.take()).await.is_err());
        drop(taken);
        assert_eq!(numbers(&pool), [0, CONNECTIONS as u64, CONNECTIONS as u64, 0, 0]);
    }

    #[test]
    fn every_number_that_is_declared_is_on_the_page() {
        let report = Connections::new().report();
        let pool = declared(SocketAddr::from(([127, 0, 0, 1], 8080)));
        let PoolKind::Reported { url, selectors, .. } = &pool.kind else { panic!("{pool:?}") };
        assert_eq!(*url, format!("http://127.0.0.1:8080/{PAGE}"));
        let PoolSelectors { used, idle, limit, waiting, timeouts } = &**selectors;
        for selector in [used, idle, limit, waiting, timeouts] {
            let pointer = &selector.as_ref().unwrap().text;
            assert!(report.pointer(pointer).is_some_and(Value::is_u64), "{pointer} in {report}");
        }
    }
}
