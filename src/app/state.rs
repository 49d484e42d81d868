//! What was learned, kept in a file over a restart. Written beside the old one and put in its place, so that a crash
//! leaves one of the two; never by a worker, and never a reason to stop. What somebody else wrote there is kept.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::regular;
use crate::routes::{LONGEST_STATE, Learned};

/// How much a crash may forget.
const INTERVAL: Duration = Duration::from_secs(60);
/// What is added to the name of a file that cannot be used.
const ASIDE: &str = ".unreadable";

/// Writes the file now and then.
#[derive(Debug)]
pub(super) struct Keeper {
    file: Arc<StateFile>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct StateFile {
    path: PathBuf,
    learned: Arc<Learned>,
    written: Mutex<Written>,
}

/// What the last attempt to write came to.
#[derive(Debug, Default)]
struct Written {
    text: String,
    failure: Option<io::ErrorKind>,
}

/// The text of a state file; `None`: there is none.
///
/// # Errors
/// When it cannot be read, or is longer than what the learner writes and reads.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    match regular::open(path).and_then(|file| file.take(LONGEST_STATE as u64 + 1).read_to_string(&mut text)) {
        Ok(_) => within_bound(&text).map(|()| Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes what cannot be used out of the way of what will be written, and says so: it may be of another version, or
/// another file that got here by a slip. Whether the place is free now. An older one that was set aside is replaced.
pub(super) fn set_aside(path: &Path, error: &dyn fmt::Display) -> bool {
    let kept = beside(path, ASIDE);
    // A folder stays where it is: nothing can be written over it.
    let moved = match fs::metadata(path) {
        Ok(there) if there.is_file() => fs::rename(path, &kept),
        Ok(_) => Err(io::Error::other("it is no file")),
        Err(error) => Err(error),
    };
    let file = path.display();
    match moved {
        Ok(()) => tracing::warn!(
            event = "learned_not_read",
            %file,
            %error,
            kept = %kept.display(),
            "starting with nothing learned; the file is kept under another name"
        ),
        Err(ref not_moved) => tracing::warn!(
            event = "learned_not_read",
            %file,
            %error,
            %not_moved,
            "starting with nothing learned; the file stays, and what is learned is not written"
        ),
    }
    moved.is_ok()
}

// === impl Keeper ===

impl Keeper {
    /// Starts. What is known now counts as written.
    pub fn start(path: &Path, learned: &Arc<Learned>) -> Keeper {
        let written = Mutex::new(Written { text: learned.save(), failure: None });
        let file = Arc::new(StateFile { path: path.to_owned(), learned: Arc::clone(learned), written });
        let kept = Arc::clone(&file);
        let task = tokio::spawn(async move {
            let mut interval = tokio::time::interval(INTERVAL);
            interval.tick().await;
            loop {
                interval.tick().await;
                write_aside(&kept).await;
            }
        });
        Keeper { file, task }
    }

    /// Where it writes.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Writes for the last time.
    pub async fn finish(self) {
        write_aside(&self.file).await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn write_aside(file: &Arc<StateFile>) {
    let file = Arc::clone(file);
    // Disks stall. A panic has said so on standard error.
    let _ = tokio::task::spawn_blocking(move || file.write_if_changed()).await;
}

// === impl StateFile ===

impl StateFile {
    fn write_if_changed(&self) {
        let text = self.learned.save();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if text == written.text {
            return;
        }
        match within_bound(&text).and_then(|()| replace(&self.path, &text)) {
            Ok(()) => *written = Written { text, failure: None },
            Err(error) => {
                if written.failure.replace(error.kind()) != Some(error.kind()) {
                    tracing::warn!(event = "learned_not_written", file = %self.path.display(), %error);
                }
            }
        }
    }
}

/// Puts a file with this text in the place of what is there: a regular file, or nothing. A link is followed, so that it goes
/// on pointing there.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = match fs::canonicalize(path) {
        Ok(there) if fs::metadata(&there)?.is_file() => there,
        // A device, a pipe or a folder would be gone for ever.
        Ok(_) => return Err(io::Error::other("it is no regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let beside = beside(&path, ".new");
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)
    });
    if written.is_err() {
        // It may not have come into being.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Refuses what the learner would not read back.
fn within_bound(text: &str) -> io::Result<()> {
    if text.len() <= LONGEST_STATE {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {LONGEST_STATE} bytes")))
}

/// The same path with this at its end.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes.state");
        assert_eq!(read(&path).unwrap(), None);
        for text in ["a longer text", "a"] {
            replace(&path, text).unwrap();
            assert_eq!(read(&path).unwrap().as_deref(), Some(text));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(&folder.path().join("absent/x"), "").is_err());
    }

    #[test]
    fn a_link_goes_on_pointing_there_and_what_is_no_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, "new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");

        let pipe = folder.path().join("pipe");
        let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
        // SAFETY: the name ends in a zero byte and outlives the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        // Neither waits for somebody at the other end.
        assert!(read(&pipe).is_err() && replace(&pipe, "new").is_err());
        assert!(!set_aside(&pipe, &"malformed") && pipe.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn what_cannot_be_used_is_set_aside_and_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes.state");
        let aside = folder.path().join("routes.state.unreadable");
        // Not a text, and one that is longer than what would be read back.
        let long = " ".repeat(LONGEST_STATE + 1);
        for content in [&b"\xff"[..], long.as_bytes()] {
            fs::write(&path, content).unwrap();
            let error = read(&path).unwrap_err();
            assert!(set_aside(&path, &error));
            assert_eq!((path.exists(), fs::read(&aside).unwrap() == content), (false, true));
        }
        assert_eq!(read(&path).unwrap(), None);
        fs::write(&path, &long[1..]).unwrap();
        assert_eq!(read(&path).unwrap().map(|text| text.len()), Some(LONGEST_STATE));
        // Not a file: it stays, and nothing is to be written.
        let error = read(folder.path()).unwrap_err();
        assert!(!set_aside(folder.path(), &error) && path.exists());
        // A place that is taken.
        fs::remove_file(&aside).unwrap();
        fs::create_dir_all(aside.join("x")).unwrap();
        assert!(!set_aside(&path, &"malformed") && path.exists());
    }

    #[test]
    fn what_could_not_be_read_back_is_not_written() {
        let exactly = "x".repeat(LONGEST_STATE);
        assert!(within_bound(&exactly).is_ok());
        let error = within_bound(&(exactly + "x")).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (io::ErrorKind::FileTooLarge, format!("more than {LONGEST_STATE} bytes"))
        );
    }
}
