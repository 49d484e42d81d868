//! What was learned, kept in a file over a restart. Written beside the old one and put in its place, so that a crash
//! leaves one of the two; never by a worker, and never a reason to stop.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::routes::Learned;

/// How much a crash may forget.
const INTERVAL: Duration = Duration::from_secs(60);
/// Templates of a kilobyte each, as many as there may be: more is another file.
const STATE_BYTES_MAX: u64 = 16 << 20;

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

/// The text of a state file; `None`: there is none, or it cannot be used, which the log tells.
pub(super) fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(STATE_BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(event = "learned_not_read", file = %path.display(), %error, "starting with nothing learned");
            None
        }
    }
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
        match replace(&self.path, &text) {
            Ok(()) => *written = Written { text, failure: None },
            Err(error) => {
                if written.failure.replace(error.kind()) != Some(error.kind()) {
                    tracing::warn!(event = "learned_not_written", file = %self.path.display(), %error);
                }
            }
        }
    }
}

/// Puts a file with this text in the place of what is there.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes.state");
        assert_eq!(read(&path), None);
        for text in ["a longer text", "a"] {
            replace(&path, text).unwrap();
            assert_eq!(read(&path).as_deref(), Some(text));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(&folder.path().join("absent/x"), "").is_err());
        // Not a file, and not a text: nothing, and no panic.
        assert_eq!(read(folder.path()), None);
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(read(&path), None);
    }
}
