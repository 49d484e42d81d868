//! Whose a socket is: the links below /proc/PID/fd.
//! Source: /proc/PID/fd, proc(5): a link for each descriptor, of a socket `socket:[INODE]`.
//! Absent: for processes of another user, unless this process may trace them (ptrace(2), "Ptrace access mode checking").

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use tokio::time::Instant;

use crate::saturation::fault::Fault;

/// Who holds certain sockets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Holders {
    /// Process ids, in the order in which they were asked about.
    pub pids: Vec<i32>,
    /// Processes whose descriptors the system does not show to this user.
    pub refused: usize,
}

/// Inodes of the sockets that a process has open.
///
/// # Errors
/// When the process is gone or the system refuses to show them.
pub(super) fn sockets_of(pid: i32) -> Result<HashSet<u64>, Fault> {
    let mut inodes = HashSet::new();
    each_socket(pid, |inode| {
        inodes.insert(inode);
        true
    })
    .map_err(|error| Fault::io(format_args!("/proc/{pid}/fd"), &error))?;
    Ok(inodes)
}

/// A search for the holders of some sockets among many processes: in steps, since a machine may have a million
/// descriptors.
#[derive(Debug)]
pub(super) struct Search {
    inodes: HashSet<u64>,
    /// Still to be asked, the next one last.
    left: Vec<i32>,
    found: Holders,
}

impl Search {
    /// A search that asks `pids` in this order.
    pub fn new(inodes: HashSet<u64>, pids: impl DoubleEndedIterator<Item = i32>) -> Search {
        Search { inodes, left: pids.rev().collect(), found: Holders::default() }
    }

    /// The sockets whose holders are looked for.
    pub fn inodes(&self) -> &HashSet<u64> {
        &self.inodes
    }

    /// Goes on until the deadline, with one process at the least. True when all were asked.
    pub fn go_on(&mut self, deadline: Instant) -> bool {
        while let Some(pid) = self.left.pop() {
            let mut holds = false;
            let shown = each_socket(pid, |inode| {
                holds = self.inodes.contains(&inode);
                !holds
            });
            match shown {
                Ok(()) if holds => self.found.pids.push(pid),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.found.refused += 1,
                // Has none of them, or has ended meanwhile.
                _ => {}
            }
            if Instant::now() > deadline {
                break;
            }
        }
        self.left.is_empty()
    }

    /// What was found so far.
    pub fn found(&self) -> &Holders {
        &self.found
    }
}

/// Calls `more` with the inode of each socket, until it returns false.
fn each_socket(pid: i32, mut more: impl FnMut(u64) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let link = match entry.and_then(|entry| fs::read_link(entry.path())) {
            Ok(link) => link,
            // With some rights the folder can be listed, and where its links lead is secret all the same.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            // A descriptor that was closed meanwhile is none of its sockets any more.
            Err(_) => continue,
        };
        if let Some(inode) = socket_inode(link.as_os_str().as_bytes())
            && !more(inode)
        {
            break;
        }
    }
    Ok(())
}

fn socket_inode(link: &[u8]) -> Option<u64> {
    let inode = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(inode).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_sockets_have_an_inode() {
        assert_eq!(socket_inode(b"socket:[4711]"), Some(4711));
        for other in [&b"pipe:[4711]"[..], b"/dev/null", b"socket:[", b"socket:[x]", b"socket:[4711"] {
            assert_eq!(socket_inode(other), None);
        }
    }

    #[test]
    fn a_socket_of_this_process_is_found_by_its_inode() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let inode = socket_inode(link.as_os_str().as_bytes()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(sockets_of(own).unwrap().contains(&inode));
        let found = |inodes: &[u64], pids: &[i32]| {
            let mut search = Search::new(inodes.iter().copied().collect(), pids.iter().copied());
            // Each step asks one process, as if the time were always over.
            let steps = (1..=pids.len()).find(|_| search.go_on(Instant::now() - Duration::from_secs(1)));
            assert_eq!(steps, Some(pids.len()));
            search.found
        };
        assert_eq!(found(&[inode], &[i32::MAX, own]), Holders { pids: vec![own], refused: 0 });
        assert_eq!(found(&[u64::MAX], &[own, i32::MAX]), Holders::default());
    }
}
