//! Whose a socket is: the links below /proc/PID/fd.
//! Source: /proc/PID/fd, proc(5): a link for each descriptor, of a socket `socket:[INODE]`.
//! Absent: for processes of another user, unless this process may trace them.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use crate::saturation::fault::Fault;

/// Inodes of the sockets that a process has open.
///
/// # Errors
/// When the process is gone or the system refuses to show them.
pub(super) fn sockets_of(pid: i32) -> Result<HashSet<u64>, Fault> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&folder).map_err(|error| Fault::io(&folder, &error))?;
    // A descriptor that was closed meanwhile is none of its sockets any more.
    Ok(entries
        .flatten()
        .filter_map(|entry| socket_inode(fs::read_link(entry.path()).ok()?.as_os_str().as_bytes()))
        .collect())
}

fn socket_inode(link: &[u8]) -> Option<u64> {
    let inode = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(inode).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_have_an_inode() {
        assert_eq!(socket_inode(b"socket:[4711]"), Some(4711));
        for other in [&b"pipe:[4711]"[..], b"/dev/null", b"socket:[", b"socket:[x]", b"socket:[4711"] {
            assert_eq!(socket_inode(other), None);
        }
    }
}
