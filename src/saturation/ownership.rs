//! Which of the kernel's sockets are the backend's. Reading that from its descriptors costs a system call for each of
//! them, so it is remembered: a socket that was looked for stays what it was found to be, for as long as the processes
//! are the same.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use procfs::process::Process;
use tokio::time::Instant;

use crate::labels::Trouble;
use crate::saturation::backend::Identity;
use crate::saturation::descriptors;
use crate::saturation::fault::Fault;
use crate::saturation::sockets::{self, Listener, Pace};

/// Descriptors are not read more often, whatever turns up: that is how late a new socket may be noticed.
const READ_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Sockets of others that are remembered: twice that at most, a megabyte. One who opens connections all the time
/// fills it; then all are forgotten, and the only harm is that descriptors are read once more.
const FOREIGN_MAX: usize = 32 * 1024;

/// The sockets of some processes.
#[derive(Debug, Default)]
pub(super) struct Owned {
    processes: Vec<Identity>,
    sockets: HashSet<u64>,
    /// Sockets that were looked for and are not theirs.
    foreign: HashSet<u64>,
    fault: Option<Fault>,
    pace: Pace,
}

/// Those of `listeners` that an upstream at `upstream` means, if that is an address of this machine.
pub(super) fn at_address(listeners: &[Listener], upstream: &[SocketAddr]) -> Vec<Listener> {
    let here: Vec<SocketAddr> = upstream
        .iter()
        .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
        .filter(|address| is_of_this_machine(address.ip()))
        .collect();
    let mut found: Vec<Listener> = Vec::new();
    for address in here {
        let takers = listeners.iter().filter(|listener| takes(listener.address, address));
        // As the kernel chooses: the address itself, then the wildcard of its family, then `[::]` for both.
        let rank = |listener: &&Listener| {
            let ip = listener.address.ip();
            (ip == address.ip(), ip.is_ipv4() == address.is_ipv4())
        };
        let best = takers.clone().map(|taker| rank(&taker)).max();
        found.extend(
            takers
                .filter(|taker| Some(rank(taker)) == best)
                .filter(|taker| !found.contains(taker))
                .copied()
                .collect::<Vec<_>>(),
        );
    }
    found
}

/// Whether what listens there takes connections to `address`. What listens at `[::]` takes those of IPv4 too, unless it
/// was told not to, which is rare.
pub(super) fn takes(listener: SocketAddr, address: SocketAddr) -> bool {
    let (ip, to) = (listener.ip(), address.ip());
    listener.port() == address.port() && (ip == to || ip.is_unspecified() && (ip.is_ipv6() || to.is_ipv4()))
}

/// A datagram socket that is connected to an address of this machine has that address itself. Nothing is sent.
pub(super) fn is_of_this_machine(ip: IpAddr) -> bool {
    let any: SocketAddr = if ip.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let own = |socket: UdpSocket| {
        // The port does not matter, but 0 is refused.
        socket.connect((ip, 9))?;
        socket.local_addr()
    };
    ip.is_loopback() || UdpSocket::bind(any).and_then(own).is_ok_and(|own| own.ip() == ip)
}

// === impl Owned ===

impl Owned {
    /// Reads the descriptors of `processes` if one of `inodes` has not been looked for or the processes are others, but
    /// no more often than that may cost. `inodes` have to come from the kernel before this call: what is not found then
    /// belongs to somebody else.
    pub fn look_for(
        &mut self,
        processes: &[Identity],
        inodes: impl Iterator<Item = u64> + Clone,
        now: Instant,
        deadline: Instant,
    ) {
        let others = processes != self.processes;
        // 0 is a socket without descriptor, such as one that waits for accept().
        let is_new = |inode: &u64| *inode != 0 && !self.sockets.contains(inode) && !self.foreign.contains(inode);
        if !self.pace.is_due(now) || !(others || self.fault.is_some() || inodes.clone().any(|inode| is_new(&inode))) {
            return;
        }
        let begun = Instant::now();
        let result = read(processes, deadline);
        self.pace.paid(now, begun.elapsed(), 2 * sockets::PRICE_TIMES, false);
        self.pace.wait(now, READ_INTERVAL_MIN);
        if others || result.is_err() || self.foreign.len() > FOREIGN_MAX {
            self.foreign = HashSet::new();
        }
        self.processes = processes.to_vec();
        match result {
            Ok(sockets) => {
                self.foreign.extend(inodes.filter(|inode| !sockets.contains(inode)).take(FOREIGN_MAX));
                (self.sockets, self.fault) = (sockets, None);
            }
            Err(fault) => (self.sockets, self.fault) = (HashSet::new(), Some(fault)),
        }
    }

    /// Whether the descriptors of all the processes could be read.
    pub fn is_known(&self) -> Result<(), Fault> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// Whether the socket is theirs. One that was not looked for yet is not.
    pub fn has(&self, inode: u64) -> bool {
        self.sockets.contains(&inode)
    }
}

/// The sockets of all of them. One that cannot be read may be the one that matters, so then nothing is known.
fn read(processes: &[Identity], deadline: Instant) -> Result<HashSet<u64>, Fault> {
    let mut all = HashSet::new();
    for process in processes {
        Fault::after(deadline, "reading descriptors")?;
        match descriptors::sockets_of(process.pid) {
            Ok(sockets) if all.is_empty() => all = sockets,
            Ok(sockets) => all.extend(sockets),
            // It ended meanwhile, so it has none.
            Err(fault) if matches!(fault.trouble, Trouble::Absent | Trouble::Gone) => {}
            // Of one that has ended and that its parent has not taken note of, the system refuses to show the nothing.
            Err(fault) if fault.trouble == Trouble::Permission && has_ended(process.pid) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(all)
}

fn has_ended(pid: i32) -> bool {
    Process::new(pid).and_then(|process| process.stat()).is_ok_and(|stat| matches!(stat.state, 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;

    use super::*;
    use crate::saturation::sockets::Family;

    fn listener(address: &str) -> Listener {
        Listener { address: address.parse().unwrap(), family: Family::V4, inode: 1, uid: 2, waiting: 3, backlog: 4 }
    }

    fn itself() -> Vec<Identity> {
        vec![Identity { pid: std::process::id() as i32, start_ticks: 0 }]
    }

    fn inode(socket: &TcpListener) -> u64 {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        link.to_str().unwrap().trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap()
    }

    #[test]
    fn a_listener_is_the_upstream_by_port_and_address() {
        let takes = |listener: &str, address: &str| takes(listener.parse().unwrap(), address.parse().unwrap());
        assert!(takes("127.0.0.1:80", "127.0.0.1:80"));
        assert!(!takes("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!takes("127.0.0.1:80", "127.0.0.2:80"));
        assert!(takes("0.0.0.0:80", "127.0.0.1:80"));
        assert!(takes("[::]:80", "127.0.0.1:80"));
        assert!(takes("[::]:80", "[::1]:80"));
        assert!(!takes("0.0.0.0:80", "[::1]:80"));
    }

    #[test]
    fn an_upstream_elsewhere_has_no_listener_here() {
        let listeners = [listener("0.0.0.0:80"), listener("127.0.0.1:81")];
        let at = |upstream: &str| at_address(&listeners, &[upstream.parse().unwrap()]);
        assert_eq!(at("127.0.0.1:80"), [listeners[0]]);
        assert_eq!(at("[::ffff:127.0.0.1]:81"), [listeners[1]]);
        // An address for documentation, which nobody has.
        assert_eq!(at("192.0.2.1:80"), []);
    }

    #[test]
    fn a_new_socket_makes_descriptors_be_read_once_a_second() {
        let (now, deadline) = (Instant::now(), Instant::now() + Duration::from_secs(5));
        let mut owned = Owned::default();
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let foreign = 1;
        owned.look_for(&itself(), [foreign, 0].into_iter(), now, deadline);
        assert_eq!(owned.is_known(), Ok(()));
        assert!(owned.has(inode(&first)) && !owned.has(foreign) && !owned.has(0));

        let second = TcpListener::bind("127.0.0.1:0").unwrap();
        let new = || [foreign, inode(&second)].into_iter();
        owned.look_for(&itself(), new(), now + READ_INTERVAL_MIN / 2, deadline);
        assert!(!owned.has(inode(&second)), "too soon");
        // Reading was cheap, so the interval is what counts; a hundred of them are beyond doubt.
        owned.look_for(&itself(), new(), now + READ_INTERVAL_MIN * 100, deadline);
        assert!(owned.has(inode(&second)));

        let third = TcpListener::bind("127.0.0.1:0").unwrap();
        owned.look_for(&itself(), new(), now + READ_INTERVAL_MIN * 300, deadline);
        assert!(!owned.has(inode(&third)), "nothing new was asked for");
    }

    #[test]
    fn what_is_foreign_is_forgotten_when_it_is_too_much() {
        let (mut now, deadline) = (Instant::now(), Instant::now() + Duration::from_secs(5));
        let mut owned = Owned::default();
        for round in 0..4 {
            let many = (0..20_000).map(|number| (1 << 40) + round * 20_000 + number);
            owned.look_for(&itself(), many, now, deadline);
            now += READ_INTERVAL_MIN * 100;
        }
        assert!(owned.foreign.len() <= 2 * FOREIGN_MAX, "{}", owned.foreign.len());
    }

    #[test]
    fn a_process_that_is_gone_has_no_sockets() {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut owned = Owned::default();
        owned.look_for(&[Identity { pid: i32::MAX, start_ticks: 1 }], [1].into_iter(), Instant::now(), deadline);
        assert_eq!(owned.is_known(), Ok(()));
        assert!(!owned.has(1));
    }

    #[test]
    fn a_process_that_nobody_waits_for_has_ended_all_the_same() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        let end = Instant::now() + Duration::from_secs(10);
        while !has_ended(pid) && Instant::now() < end {
            std::thread::yield_now();
        }
        assert!(has_ended(pid));
        child.wait().unwrap();
        assert!(!has_ended(std::process::id() as i32));
    }
}
