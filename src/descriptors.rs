//! File descriptors when there are few: who may have how many, and some that are kept for the time when there are none.
//!
//! A client connection may need two (its own, and one to the backend), and a process that has none left cannot even say
//! so. Hence the proxy takes no more than its share: what the admin port and this process itself need is left.
//! Source: getrlimit(2), `RLIMIT_NOFILE`; accept(2), `EMFILE` and `ENFILE`.

use std::io;

use socket2::{Domain, Socket, Type};

/// Connections to the admin port, those included that are told that they are too many, and what it keeps.
const ADMIN: usize = 2 * 64 + 8;
/// Of the process itself: standard streams, runtimes, signals, the probe of the backend, pages of twenty pools, and the
/// dozen files of /proc that are open at once. Measured with one worker and no pools: 23.
const OWN: usize = 64;
/// Of each worker: its runtime (three), its listener, and the one that it keeps.
const WORKER: usize = 6;
/// Client connections at once, over all workers, that are told that they are too many.
const TURNED_AWAY_AT_ONCE: usize = 128;

/// What the proxy may have at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Client connections.
    pub connections: usize,
    /// Client connections beyond them, for as long as it takes to tell them so.
    pub turned_away: usize,
    /// Connections to the backend.
    pub upstream_connections: usize,
}

/// Descriptors that are kept, to be given up when there are no others.
#[derive(Debug)]
pub struct Reserve {
    kept: Vec<Socket>,
    size: usize,
}

/// How many descriptors this process may have open; `None`: without a limit, or unknown.
#[must_use]
pub fn limit() -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for one rlimit.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (read == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then(|| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// Whether a call failed because this process, or the machine, has no descriptor left.
#[must_use]
pub fn ran_out(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

// === impl Shares ===

impl Shares {
    /// What is wanted, as far as `limit` descriptors go. Clients and backend have at least half of the rest each, if they
    /// want it: a client without a connection to the backend only waits.
    #[must_use]
    pub fn of(limit: Option<usize>, workers: usize, connections: usize, upstream_connections: usize) -> Shares {
        let Some(limit) = limit else {
            return Shares { connections, turned_away: TURNED_AWAY_AT_ONCE, upstream_connections };
        };
        // With very few, half of them must do.
        let left = limit - (ADMIN + OWN + WORKER * workers).min(limit / 2);
        let upstream_connections = upstream_connections.min(left / 2).max(1);
        let clients = left.saturating_sub(upstream_connections);
        let turned_away = TURNED_AWAY_AT_ONCE.min(clients / 8).max(1);
        let connections = connections.min(clients.saturating_sub(turned_away)).max(1);
        Shares { connections, turned_away, upstream_connections }
    }
}

// === impl Reserve ===

impl Reserve {
    /// Keeps so many, or as many as there are.
    #[must_use]
    pub fn new(size: usize) -> Reserve {
        let mut reserve = Reserve { kept: Vec::with_capacity(size), size };
        reserve.refill();
        reserve
    }

    /// Takes back what was given up. False: there are not so many.
    pub fn refill(&mut self) -> bool {
        while self.kept.len() < self.size {
            // A socket that is bound to nothing holds a descriptor and nothing else, and needs no file system.
            match Socket::new(Domain::UNIX, Type::DGRAM, None) {
                Ok(socket) => self.kept.push(socket),
                Err(_) => return false,
            }
        }
        true
    }

    /// Gives one up. False: none is left.
    pub fn release(&mut self) -> bool {
        self.kept.pop().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_never_gets_what_others_need() {
        let wanted = Shares { connections: 10_000, turned_away: 128, upstream_connections: 512 };
        for limit in [None, Some(1 << 20), Some(10_000 + 128 + 512 + ADMIN + OWN + 2 * WORKER)] {
            assert_eq!(Shares::of(limit, 2, 10_000, 512), wanted, "{limit:?}");
        }
        for limit in [64, 256, 1024, 4096, 10_000] {
            let Shares { connections, turned_away, upstream_connections } = Shares::of(Some(limit), 2, 10_000, 512);
            let left = limit - (connections + turned_away + upstream_connections);
            assert!(left >= (ADMIN + OWN + 2 * WORKER).min(limit / 2), "{limit}: {left}");
            assert!(connections * 3 >= left.min(limit / 4), "{limit}: {connections}");
        }
        assert_eq!(Shares::of(Some(0), 2, 5, 5), Shares { connections: 1, turned_away: 1, upstream_connections: 1 });
    }
}
