//! Which processes there are, and which descend from which.
//! Source: /proc/PID/stat, proc(5): the fields 3 (state), 4 (parent) and 22 (start) after the command in parentheses.
//! Absent: processes that /proc does not show (another process namespace, `hidepid`).
//!
//! By hand and not by the crate that reads the backend's own processes: this one looks at every process of the machine,
//! and two numbers of one file cost 7.2 µs where the crate's reading of all of them costs 10.9 (one core, released build).

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read as _};

use tokio::time::Instant;

use crate::saturation::backend::Identity;
use crate::saturation::fault::Fault;

/// Processes that are looked at: beyond it a machine has other worries, and one scan takes half a second at most.
const PROCESSES_MAX: usize = 65_536;

/// A process and its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub identity: Identity,
    pub parent: i32,
    /// It has ended, and its parent has not yet asked how: a zombie.
    pub ended: bool,
}

/// Every process that can be seen.
///
/// # Errors
/// When /proc cannot be listed, or the deadline passes.
pub(super) fn all(deadline: Instant) -> Result<Vec<Row>, Fault> {
    let entries = fs::read_dir("/proc").map_err(|error| Fault::io("/proc", &error))?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut rows = Vec::new();
    for (count, pid) in pids.take(PROCESSES_MAX).enumerate() {
        if count % 64 == 0 {
            Fault::after(deadline, "listing all processes")?;
        }
        // One that has ended meanwhile is none.
        rows.extend(one(pid).ok().flatten());
    }
    Ok(rows)
}

/// One process; `None` when there is none with this id.
///
/// # Errors
/// When the system refuses to tell.
pub(super) fn one(pid: i32) -> io::Result<Option<Row>> {
    let mut text = [0; 512];
    let read = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut text));
    match read {
        Ok(length) => Ok(parse(&text[..length]).filter(|row| row.identity.pid == pid)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The roots and all that descends from them, parents before children, `most` at the most.
pub(super) fn descendants(rows: &[Row], roots: &[Identity], most: usize) -> Vec<Identity> {
    let mut children: HashMap<i32, Vec<Identity>> = HashMap::new();
    let mut living: HashSet<Identity> = HashSet::with_capacity(rows.len());
    for Row { identity, parent, .. } in rows {
        children.entry(*parent).or_default().push(*identity);
        living.insert(*identity);
    }
    let mut known: HashSet<i32> = HashSet::new();
    let mut found: Vec<Identity> =
        roots.iter().copied().filter(|root| living.contains(root) && known.insert(root.pid)).collect();
    let mut next = 0;
    while next < found.len() && found.len() < most {
        let parent = found[next];
        next += 1;
        // A child is younger than its parent: an id that was given out again is no parent of older processes.
        for child in children.get(&parent.pid).into_iter().flatten() {
            if child.start_ticks >= parent.start_ticks && found.len() < most && known.insert(child.pid) {
                found.push(*child);
            }
        }
    }
    found
}

/// Those of `pids` that have none of the others among their ancestors, the oldest first.
pub(super) fn topmost(rows: &[Row], pids: &[i32]) -> Vec<Identity> {
    if pids.is_empty() {
        return Vec::new();
    }
    let by_pid: HashMap<i32, &Row> = rows.iter().map(|row| (row.identity.pid, row)).collect();
    let below_another = |pid: i32| {
        let mut parent = by_pid.get(&pid).map(|row| row.parent);
        // A chain of parents is as long as there are processes, should /proc contradict itself.
        for _ in 0..rows.len() {
            match parent {
                Some(pid) if pids.contains(&pid) => return true,
                Some(pid) => parent = by_pid.get(&pid).map(|row| row.parent),
                None => return false,
            }
        }
        false
    };
    let top = pids.iter().filter(|pid| !below_another(**pid)).filter_map(|pid| by_pid.get(pid));
    let mut top: Vec<Identity> = top.map(|row| row.identity).collect();
    top.sort_by_key(|identity| (identity.start_ticks, identity.pid));
    top
}

/// Reads the line of /proc/PID/stat. The command in parentheses may hold anything, so fields are counted from the last
/// closing parenthesis.
fn parse(text: &[u8]) -> Option<Row> {
    let text = String::from_utf8_lossy(text);
    let (before, after) = text.split_at(text.rfind(')')?);
    let pid = before.split_once(' ')?.0.parse().ok()?;
    let mut fields = after[1..].split_ascii_whitespace();
    // The first one here is field 3.
    let ended = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Row { identity: Identity { pid, start_ticks }, parent, ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: i32, parent: i32, start_ticks: u64) -> Row {
        Row { identity: Identity { pid, start_ticks }, parent, ended: false }
    }

    #[test]
    fn parent_and_start_are_read_from_their_places_whatever_the_command_is_called() {
        let text = b"42 (a) b (c) S 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 2500 26 27";
        assert_eq!(parse(text), Some(row(42, 7, 2500)));
        let ended = b"42 (a) Z 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 2500 26 27";
        assert_eq!(parse(ended), Some(Row { ended: true, ..row(42, 7, 2500) }));
        for bad in [&b""[..], b"42", b"42 (a", b"42 (a) S 7", b"x (a) S 7 8", b")"] {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn this_process_descends_from_its_parent() {
        let own = i32::try_from(std::process::id()).unwrap();
        let rows = all(Instant::now() + std::time::Duration::from_secs(5)).unwrap();
        let this = *rows.iter().find(|row| row.identity.pid == own).expect("we are here");
        assert_eq!(one(own).unwrap(), Some(this));
        assert_eq!(one(i32::MAX).unwrap(), None);
        let parent = rows.iter().find(|row| row.identity.pid == this.parent).expect("so is our parent").identity;
        assert!(descendants(&rows, &[parent], 1000).contains(&this.identity));
    }

    #[test]
    fn a_tree_holds_every_generation_and_nobody_else() {
        let rows = [row(1, 0, 0), row(10, 1, 5), row(11, 10, 6), row(12, 11, 7), row(13, 10, 4), row(20, 1, 8)];
        let tree: Vec<i32> = descendants(&rows, &[rows[1].identity], 100).iter().map(|i| i.pid).collect();
        assert_eq!(tree, [10, 11, 12], "13 is older than its parent, so its parent is another process");
        assert_eq!(
            descendants(&rows, &[Identity { pid: 10, start_ticks: 4 }], 100),
            [],
            "another process with that id"
        );
        assert_eq!(descendants(&rows, &[rows[0].identity], 3).len(), 3);
    }

    #[test]
    fn of_a_master_and_its_workers_the_master_is_the_root() {
        let rows = [row(1, 0, 0), row(10, 1, 5), row(11, 10, 6), row(12, 10, 7), row(20, 1, 8), row(21, 20, 9)];
        let pids = |found: Vec<Identity>| found.iter().map(|i| i.pid).collect::<Vec<_>>();
        assert_eq!(pids(topmost(&rows, &[12, 11, 10])), [10]);
        assert_eq!(pids(topmost(&rows, &[11, 12])), [11, 12], "without it each worker is one");
        assert_eq!(pids(topmost(&rows, &[10, 21])), [10, 21]);
        let circle = [row(2, 3, 0), row(3, 2, 0)];
        assert_eq!(topmost(&circle, &[7]), []);
        assert_eq!(pids(topmost(&circle, &[2])), Vec::<i32>::new(), "nonsense ends");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
