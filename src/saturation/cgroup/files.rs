//! Reading and parsing the files of a cgroup.
//! Source: Linux documentation, cgroup-v2 and cgroup-v1.
//! Shape:  one number or `max`; lines of `key value` in any order; lists of CPUs like `0-3,8`.
//! Absent: a file that does not exist at this level: a version or a kernel that lacks it, or a controller that is off.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::labels::Trouble;
use crate::saturation::fault::Fault;

/// The largest file that is read. memory.stat, the longest one, has some 3 KiB; twenty times that is another file.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// A CPU number above this is not one: Linux is built for 8,192 at most.
const CPU_MAX: usize = 1 << 16;

/// Reads files, one at a time, into one buffer.
#[derive(Debug, Default)]
pub(in crate::saturation) struct Files {
    content: Vec<u8>,
}

// === impl Files ===

impl Files {
    /// The content of a file of a cgroup, `None` if there is no such file.
    pub fn read(&mut self, folder: &Path, name: &str) -> Result<Option<&str>, Fault> {
        self.content.clear();
        let path = folder.join(name);
        match read_bounded(&path, FILE_BYTES_MAX, &mut self.content) {
            Ok(()) => {
                let content = std::str::from_utf8(&self.content);
                Ok(Some(content.map_err(|error| Fault::malformed(format!("{} ({error})", path.display())))?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fault(&path, &error)),
        }
    }

    /// What a parser makes of a file, `None` if there is no such file.
    pub fn parse<T>(
        &mut self,
        folder: &Path,
        name: &str,
        parser: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(content) = self.read(folder, name)? else { return Ok(None) };
        let parsed = parser(content).ok_or_else(|| Fault::malformed(folder.join(name).display()))?;
        Ok(Some(parsed))
    }
}

/// Appends a file to `content`.
pub(super) fn read_bounded(path: &Path, bytes_max: u64, content: &mut Vec<u8>) -> io::Result<()> {
    // Below /proc/PID/root the backend says what is where; a pipe there must not hold us up.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let read = file.take(bytes_max + 1).read_to_end(content)?;
    if read as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {bytes_max} bytes")));
    }
    Ok(())
}

/// What the system said about a file of a cgroup.
pub(super) fn fault(path: &Path, error: &io::Error) -> Fault {
    let trouble = match (error.raw_os_error(), error.kind()) {
        // The file was open, or its folder known, when the cgroup was removed.
        (Some(libc::ENODEV), _) => Trouble::Gone,
        (_, io::ErrorKind::FileTooLarge) => Trouble::TooLarge,
        _ => return Fault::io(path.display(), error),
    };
    Fault::new(trouble, format!("{}: {error}", path.display()))
}

/// A cgroup of which nothing is left.
pub(super) fn gone(folder: &Path) -> Fault {
    Fault::new(Trouble::Gone, format!("{}: the cgroup is gone", folder.display()))
}

/// What was read of an ancestor. One that cannot be seen is passed over: its limit is not known, but the backend's own
/// is.
pub(super) fn if_visible<T>(read: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(fault) if matches!(fault.trouble, Trouble::Absent | Trouble::Permission | Trouble::Gone) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// One number.
pub(super) fn number(content: &str) -> Option<u64> {
    content.trim().parse().ok()
}

/// One number, or `max`: then infinity.
pub(super) fn number_or_max(content: &str) -> Option<f64> {
    match content.trim() {
        "max" => Some(f64::INFINITY),
        other => other.parse::<u64>().ok().map(|number| number as f64),
    }
}

/// The value of a key among lines of `key value`.
pub(super) fn value_of(content: &str, key: &str) -> Option<u64> {
    content.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// How many CPUs are in a list like `0-3,8`.
pub(super) fn cpus(list: &str) -> Option<usize> {
    let mut count = 0;
    // A cpuset of version 1 that nobody has set up has an empty one.
    for range in list.trim().split(',').filter(|_| !list.trim().is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > CPU_MAX {
            return None;
        }
        count += last - first + 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_limit_is_a_number_or_none() {
        assert_eq!(number_or_max("1073741824\n"), Some(1_073_741_824.0));
        assert_eq!(number_or_max("max\n"), Some(f64::INFINITY));
        for garbage in ["", "\n", "maximum", "-1", "1 2", "0x10", "1e9"] {
            assert_eq!(number_or_max(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn a_key_is_found_as_a_whole_word() {
        let content = "total_rss 7\nrss_huge 5\nrss 3\nbroken\nlonely \nnegative -1\n";
        assert_eq!(value_of(content, "rss"), Some(3));
        assert_eq!(value_of(content, "total_rss"), Some(7));
        for absent in ["huge", "broken", "lonely", "negative", "swap"] {
            assert_eq!(value_of(content, absent), None, "{absent}");
        }
    }

    #[test]
    fn lists_of_cpus_are_counted() {
        assert_eq!(cpus("0-3,8\n"), Some(5));
        assert_eq!(cpus("7"), Some(1));
        assert_eq!(cpus("0,2,4-6"), Some(5));
        assert_eq!(cpus("\n"), Some(0));
        for garbage in ["3-1", "a", "1-", "-1", "0-99999999999", "0-70000", "1,,2"] {
            assert_eq!(cpus(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn a_file_that_never_ends_is_not_read_to_its_end() {
        let mut files = Files::default();
        let fault = files.read(Path::new("/dev"), "zero").unwrap_err();
        assert_eq!(fault.trouble, Trouble::TooLarge);
        assert_eq!(files.read(Path::new("/dev"), "no such device"), Ok(None));
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo").arg(folder.path().join("cpu.max")).status().unwrap();
        assert!(made.success());
        assert_eq!(Files::default().read(folder.path(), "cpu.max"), Ok(Some("")));
    }

    #[test]
    fn content_that_is_no_text_is_malformed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cpu.max"), b"\xff\xfe").unwrap();
        let fault = Files::default().read(folder.path(), "cpu.max").unwrap_err();
        assert_eq!(fault.trouble, Trouble::Malformed);
    }

    #[test]
    fn a_removed_cgroup_is_gone() {
        let fault = fault(Path::new("/x/memory.max"), &io::Error::from_raw_os_error(libc::ENODEV));
        assert_eq!(fault.trouble, Trouble::Gone);
    }

    proptest! {
        #[test]
        fn no_content_makes_a_parser_panic(content in ".*", key in "[a-z_]*") {
            let _ = number(&content);
            let _ = number_or_max(&content);
            let _ = value_of(&content, &key);
            let _ = cpus(&content);
        }

        #[test]
        fn no_list_makes_counting_panic(content in "[0-9,\\-\n]{0,40}") {
            let _ = cpus(&content);
        }
    }
}
