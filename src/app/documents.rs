//! Documents of route templates. Files are read at once, and a mistake in one is a mistake of the configuration. A
//! URL is mostly the backend's own, which may not be up yet: it is asked in the background until its document comes.

use std::fmt;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::regular;
use crate::config::OpenApi;
use crate::labels::Trouble;
use crate::routes::openapi::{self, DOCUMENT_BYTES_MAX, Import, ImportedTemplate};
use crate::scrape::fetch::Fetcher;

/// Until a document must be there. Frameworks put it together at the first request, which takes seconds for large ones.
const FETCH_PATIENCE: Duration = Duration::from_secs(30);
/// Between the first two questions for a document: a backend that is just starting is not waited for longer than it
/// takes.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// Between two questions later on, doubling until then: a backend that never has it costs two requests a minute.
const RETRY_LAST: Duration = Duration::from_secs(30);
/// Until a reload must have read its files: a document of the largest size takes seconds on a busy machine.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// One document is read at a time, even one that nobody waits for any more: each may take tens of megabytes for a while.
static READING: Semaphore = Semaphore::const_new(1);
/// JSON is read several times faster.
const ACCEPT: &str = "application/json, application/yaml;q=0.9, */*;q=0.5";
/// Notes about a document that go to the log; the others are counted there.
const NOTES_LOGGED: usize = 5;

/// Why a document cannot be had.
#[derive(Debug)]
pub struct Failure {
    /// Its word in metrics.
    pub reason: Trouble,
    sentence: String,
}

/// The documents of a configuration, and those of them that are still asked for.
#[derive(Debug)]
pub(super) struct Documents {
    slots: Vec<Slot>,
    asking: Vec<JoinHandle<()>>,
    arrivals: mpsc::UnboundedReceiver<(usize, Import)>,
}

/// A document and what it had.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    document: OpenApi,
    import: Option<Arc<Import>>,
}

// === impl Failure ===

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "openapi: {}", self.sentence)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    fn unusable(document: &OpenApi, unusable: &openapi::Unusable) -> Failure {
        Failure { reason: Trouble::Malformed, sentence: format!("{document} {unusable}") }
    }
}

// === impl Documents ===

impl Documents {
    /// Reads the files among these documents; a URL keeps what `old` has of it. Blocks.
    ///
    /// # Errors
    /// The first file that cannot be read.
    pub fn read(documents: &[OpenApi], old: &[Slot]) -> Result<Vec<Slot>, Failure> {
        let read = |document: &OpenApi| {
            let import = match document {
                OpenApi::File(path) => Some(Arc::new(read_file(document, path)?)),
                OpenApi::Url(_) => {
                    old.iter().find(|slot| slot.document == *document).and_then(|slot| slot.import.clone())
                }
            };
            Ok(Slot { document: document.clone(), import })
        };
        documents.iter().map(read).collect()
    }

    /// The same on another thread.
    ///
    /// # Errors
    /// The first file that cannot be read.
    pub async fn read_aside(documents: &[OpenApi], old: &[Slot]) -> Result<Vec<Slot>, Failure> {
        let (asked, old) = (documents.to_vec(), old.to_vec());
        alone(move || Documents::read(&asked, &old)).await.unwrap_or_else(|why| {
            Err(Failure { reason: Trouble::Malformed, sentence: format!("cannot read the documents: {why}") })
        })
    }

    /// The same, and not for long.
    ///
    /// # Errors
    /// The first file that cannot be read; or it takes too long.
    pub async fn read_in_time(documents: &[OpenApi], old: &[Slot]) -> Result<Vec<Slot>, Failure> {
        let read = tokio::time::timeout(READ_PATIENCE, Documents::read_aside(documents, old)).await;
        read.unwrap_or_else(|_| {
            let sentence = format!("the documents were not read within {READ_PATIENCE:?}");
            Err(Failure { reason: Trouble::Timeout, sentence })
        })
    }

    /// Starts to ask for the URLs among these documents. `failed` is told of each attempt that fails.
    pub fn new(slots: Vec<Slot>, failed: impl Fn(Trouble) + Clone + Send + 'static) -> Documents {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let urls = slots.iter().enumerate().filter_map(|(index, slot)| match &slot.document {
            OpenApi::Url(url) => Some((index, slot.document.clone(), url.clone())),
            OpenApi::File(_) => None,
        });
        let asking = urls
            .map(|(index, document, url)| {
                let (sender, failed) = (sender.clone(), failed.clone());
                tokio::spawn(async move {
                    let import = ask(&document, &url, failed).await;
                    // Nobody waits for it after a reload.
                    let _ = sender.send((index, import));
                })
            })
            .collect();
        Documents { slots, asking, arrivals }
    }

    /// Waits until a document has come; for ever if none is asked for.
    pub async fn arrived(&mut self) {
        match self.arrivals.recv().await {
            Some((index, import)) => self.slots[index].import = Some(Arc::new(import)),
            None => std::future::pending().await,
        }
    }

    /// What is there.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }
}

impl Drop for Documents {
    fn drop(&mut self) {
        self.asking.iter().for_each(JoinHandle::abort);
    }
}

/// Runs what takes long on another thread, one at a time. `Err`: why it ended without a result.
async fn alone<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let turn = READING.acquire().await.map_err(|closed| closed.to_string())?;
    let working = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    working.await.map_err(|panicked| panicked.to_string())
}

/// The templates of these documents, in their order.
pub(super) fn templates(slots: &[Slot]) -> Vec<ImportedTemplate> {
    slots.iter().filter_map(|slot| slot.import.as_ref()).flat_map(|import| import.templates.iter().cloned()).collect()
}

/// Asks until the document is there.
async fn ask(document: &OpenApi, url: &str, failed: impl Fn(Trouble)) -> Import {
    let fetcher = Fetcher::new(url, ACCEPT, DOCUMENT_BYTES_MAX);
    let (mut pause, mut last) = (RETRY_FIRST, String::new());
    loop {
        match fetch(&fetcher, document).await {
            Ok(import) => return import,
            Err(failure) => {
                failed(failure.reason);
                let sentence = failure.to_string();
                if sentence != last {
                    tracing::warn!(event = "openapi_failed", error = sentence, "asking again");
                    last = sentence;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_LAST);
    }
}

async fn fetch(fetcher: &Fetcher, document: &OpenApi) -> Result<Import, Failure> {
    let page = fetcher.get(FETCH_PATIENCE).await.map_err(|failure| Failure {
        reason: failure.trouble(),
        sentence: format!("cannot get {document}: {failure}"),
    })?;
    // Megabytes take tenths of a second, which the admin port must not wait for.
    match alone(move || openapi::import(&page)).await {
        Ok(Ok(import)) => Ok(told(document, import)),
        Ok(Err(unusable)) => Err(Failure::unusable(document, &unusable)),
        Err(panicked) => {
            Err(Failure { reason: Trouble::Malformed, sentence: format!("cannot read {document}: {panicked}") })
        }
    }
}

fn read_file(document: &OpenApi, path: &Path) -> Result<Import, Failure> {
    let mut bytes = Vec::new();
    let read = regular::open(path).and_then(|file| file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let reason = match error.kind() {
            io::ErrorKind::PermissionDenied => Trouble::Permission,
            // A folder, a broken disk: no document there.
            _ => Trouble::Absent,
        };
        return Err(Failure { reason, sentence: format!("cannot read {document}: {error}") });
    }
    match openapi::import(&bytes) {
        Ok(import) => Ok(told(document, import)),
        Err(unusable) => Err(Failure::unusable(document, &unusable)),
    }
}

/// Says what a document had.
fn told(document: &OpenApi, import: Import) -> Import {
    tracing::info!(event = "openapi_read", document = %document, templates = import.templates.len());
    log_notes(&import.notes);
    import
}

/// Says the first notes, and how many there are.
pub(super) fn log_notes(notes: &openapi::Notes) {
    if notes.count() > 0 {
        let first = notes.kept().iter().take(NOTES_LOGGED).map(String::as_str).collect::<Vec<_>>().join("; ");
        tracing::info!(event = "openapi_notes", count = notes.count(), first);
    }
}
