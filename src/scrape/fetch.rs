//! One GET, bounded in time and size.
//!
//! A connection is kept for the next question, because pools are asked every second. Nothing that the other side sends
//! leads anywhere else: no redirect is followed, no proxy asked. What the URL says of a user is sent as basic
//! authentication and shown nowhere.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, Version};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use reqwest::dns;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::client::{NoAnswer, Session};
use crate::config::Upstream;
use crate::labels::Trouble;
use crate::transport::{Addresses, tls};

/// Where backends have their own metrics, unless told otherwise.
const METRICS: &str = "/metrics";
const AGENT: &str = concat!("golden-sidecar/", env!("CARGO_PKG_VERSION"));

/// A kept connection is not used again after this time. 1.5 s: longer than the second between two questions to a pool,
/// shorter than the 2 s after which gunicorn, the first of the common servers, closes an idle connection. A question on
/// a connection that is being closed would fail without a fault of anybody.
const KEPT: Duration = Duration::from_millis(1500);

/// Why there is no page. A closed set; nothing of it comes from the URL or from the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The name has no address, nobody listens there, or the connection ended before the page did.
    Unreachable,
    /// The answer has another status than 200.
    Status(u16),
    /// The page was not there in time.
    Timeout,
    /// The page is larger than what is taken.
    TooLarge,
}

/// Asks for one page, again and again.
pub struct Fetcher {
    page: Page,
    accept: &'static str,
    size_max: u64,
}

/// Where the page is.
enum Page {
    /// At a URL of plain HTTP. `None`: the client could not be made, which without TLS nothing can cause.
    Url(Option<reqwest::Client>, String),
    /// At the backend, which is reached as requests reach it.
    Backend(Backend),
}

/// The backend of requests, for questions about itself. Each is asked over a connection of its own.
#[derive(Clone)]
pub struct Backend {
    /// Its name, and what is spoken there.
    pub upstream: Upstream,
    /// Where that is now.
    pub addresses: watch::Receiver<Addresses>,
    /// How TLS is spoken with it, if it is.
    pub tls: Option<Arc<tls::Client>>,
}

impl PartialEq for Backend {
    fn eq(&self, other: &Backend) -> bool {
        let Backend { upstream, addresses, tls } = self;
        *upstream == other.upstream
            && addresses.same_channel(&other.addresses)
            && tls.as_ref().map(Arc::as_ptr) == other.tls.as_ref().map(Arc::as_ptr)
    }
}

/// Turns names into addresses, with one question to the system at a time: a name service that hangs would otherwise
/// collect one blocked thread per attempt.
#[derive(Clone, Debug)]
struct OneQuestion(Arc<Semaphore>);

// === impl Failure ===

impl Failure {
    /// Its word in metrics.
    #[must_use]
    pub fn trouble(self) -> Trouble {
        match self {
            Failure::Unreachable => Trouble::Unreachable,
            Failure::Status(_) => Trouble::Status,
            Failure::Timeout => Trouble::Timeout,
            Failure::TooLarge => Trouble::TooLarge,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable => out.write_str("nobody answers there, or the answer was cut"),
            Failure::Status(status) => write!(out, "the answer has status {status} instead of 200"),
            Failure::Timeout => out.write_str("the answer was not complete in time"),
            Failure::TooLarge => out.write_str("the answer is larger than what is taken"),
        }
    }
}

impl std::error::Error for Failure {}

// === impl Fetcher ===

impl Fetcher {
    /// Prepares; nothing is sent yet. `accept` is the field of that name; above `size_max` bytes a page is not taken.
    #[must_use]
    pub fn new(url: &str, accept: &'static str, size_max: u64) -> Fetcher {
        let built = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(KEPT)
            .user_agent(AGENT)
            .dns_resolver(OneQuestion(Arc::new(Semaphore::new(1))))
            .build();
        Fetcher { page: Page::Url(built.ok(), url.to_owned()), accept, size_max }
    }

    /// The same of `/metrics` of the backend.
    #[must_use]
    pub fn of_backend(backend: Backend, accept: &'static str, size_max: u64) -> Fetcher {
        Fetcher { page: Page::Backend(backend), accept, size_max }
    }

    /// The page as it is now; the whole exchange takes no longer than `limit`.
    ///
    /// # Errors
    /// When there is no whole page of at most `size_max` bytes with status 200 in that time.
    pub async fn get(&self, limit: Duration) -> Result<Bytes, Failure> {
        timeout(limit, self.exchange()).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn exchange(&self) -> Result<Bytes, Failure> {
        let (client, url) = match &self.page {
            Page::Url(client, url) => (client.as_ref().ok_or(Failure::Unreachable)?, url),
            Page::Backend(backend) => return self.of(backend).await,
        };
        let sent = client.get(url).header(ACCEPT, self.accept).send().await;
        let mut response = sent.map_err(|error| failure(&error))?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(Failure::Status(response.status().as_u16()));
        }
        // What is announced as too large is not even begun. Dropping the response closes the connection.
        if response.content_length().is_some_and(|length| length > self.size_max) {
            return Err(Failure::TooLarge);
        }
        let mut page = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error))? {
            if (page.len() + chunk.len()) as u64 > self.size_max {
                return Err(Failure::TooLarge);
            }
            page.extend_from_slice(&chunk);
        }
        Ok(page.into())
    }

    async fn of(&self, backend: &Backend) -> Result<Bytes, Failure> {
        let Backend { upstream, addresses, tls } = backend;
        let addresses = addresses.borrow().clone();
        let (stream, _) = addresses.connect().await.map_err(|_error| Failure::Unreachable)?;
        let no_answer = |_why: NoAnswer| Failure::Unreachable;
        let mut session = Session::begin(stream, upstream.scheme, tls.as_deref()).await.map_err(no_answer)?;
        let authority = upstream.authority();
        let request = match session.version() {
            Version::HTTP_2 if tls.is_some() => Request::get(format!("https://{authority}{METRICS}")),
            Version::HTTP_2 => Request::get(format!("http://{authority}{METRICS}")),
            _ => Request::get(METRICS).header(HOST, &authority),
        };
        let request = request.header(ACCEPT, self.accept).header(USER_AGENT, AGENT).body(Full::default());
        let response = session.send(request.map_err(|_invalid| Failure::Unreachable)?).await.map_err(no_answer)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(Failure::Status(response.status().as_u16()));
        }
        let body = response.into_body();
        if body.size_hint().lower() > self.size_max {
            return Err(Failure::TooLarge);
        }
        let limit = usize::try_from(self.size_max).unwrap_or(usize::MAX);
        match Limited::new(body, limit).collect().await {
            Ok(page) => Ok(page.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Failure::TooLarge),
            Err(_cut) => Err(Failure::Unreachable),
        }
    }
}

/// The library's error has the URL in it, so nothing of its text is kept.
fn failure(error: &reqwest::Error) -> Failure {
    if error.is_timeout() { Failure::Timeout } else { Failure::Unreachable }
}

/// Without the URL, which may hold a secret.
impl fmt::Debug for Fetcher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fetcher { page: _, accept, size_max } = self;
        out.debug_struct("Fetcher").field("accept", accept).field("size_max", size_max).finish_non_exhaustive()
    }
}

// === impl OneQuestion ===

impl dns::Resolve for OneQuestion {
    fn resolve(&self, name: dns::Name) -> dns::Resolving {
        let gate = Arc::clone(&self.0);
        Box::pin(async move {
            let turn = gate.acquire_owned().await?;
            // In a task of its own, so that the next one waits for the answer even if this attempt gave up.
            let question = tokio::spawn(async move {
                let found = tokio::net::lookup_host((name.as_str(), 0)).await.map(Iterator::collect::<Vec<SocketAddr>>);
                drop(turn);
                found
            });
            let addresses: dns::Addrs = Box::new(question.await??.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A server that sends the same bytes for each request; gives its address, and counts connections.
    async fn server(
        answer: Vec<u8>,
        then_close: bool,
    ) -> (SocketAddr, Arc<AtomicUsize>, Arc<std::sync::Mutex<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, heads) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(String::new())));
        let (counted, noted) = (Arc::clone(&connections), Arc::clone(&heads));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, SeqCst);
                let (answer, noted) = (answer.clone(), Arc::clone(&noted));
                tokio::spawn(async move {
                    let mut head = vec![0; 4096];
                    while let Ok(length) = stream.read(&mut head).await {
                        if length == 0 || stream.write_all(&answer).await.is_err() {
                            return;
                        }
                        noted.lock().unwrap().push_str(&String::from_utf8_lossy(&head[..length]));
                        if then_close {
                            return;
                        }
                    }
                });
            }
        });
        (address, connections, heads)
    }

    fn page(fields: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[tokio::test]
    async fn pages_come_over_one_connection_and_the_user_of_the_url_is_sent() {
        let (address, connections, heads) = server(page("", "a 1\n"), false).await;
        let fetcher = Fetcher::new(&format!("http://me:p%40ss@{address}/x?y=1"), "text/plain", 4);
        for _ in 0..3 {
            assert_eq!(fetcher.get(SOON).await.unwrap(), "a 1\n");
        }
        assert_eq!(connections.load(SeqCst), 1);
        let heads = heads.lock().unwrap().to_lowercase();
        assert_eq!(heads.matches("get /x?y=1 http/1.1\r\n").count(), 3, "{heads}");
        // me:p@ss
        assert_eq!(heads.matches("authorization: basic bwu6cebzcw==\r\n").count(), 3, "{heads}");
        assert_eq!(heads.matches("accept: text/plain\r\n").count(), 3, "{heads}");
        assert!(heads.contains(concat!("user-agent: golden-sidecar/", env!("CARGO_PKG_VERSION"), "\r\n")), "{heads}");
        assert!(!format!("{fetcher:?}").contains("ss"), "{fetcher:?}");
    }

    #[tokio::test]
    async fn every_way_to_fail_has_its_name() {
        let endless = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'a'; 100_000]].concat();
        for (answer, close, expected) in [
            (page("", "a 1\nb 2\n"), false, Failure::TooLarge),
            (endless, false, Failure::TooLarge),
            (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec(), false, Failure::Status(503)),
            (b"HTTP/1.1 204 No\r\n\r\n".to_vec(), false, Failure::Status(204)),
            (b"HTTP/1.1 302 No\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".to_vec(), false, Failure::Status(302)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\na 1".to_vec(), true, Failure::Unreachable),
            (b"no such protocol\r\n\r\n".to_vec(), false, Failure::Unreachable),
            (Vec::new(), true, Failure::Unreachable),
        ] {
            let (address, ..) = server(answer.clone(), close).await;
            let fetcher = Fetcher::new(&format!("http://u:secret@{address}/"), "*/*", 7);
            let failure = fetcher.get(SOON).await.unwrap_err();
            assert_eq!(failure, expected, "{}", String::from_utf8_lossy(&answer[..answer.len().min(99)]));
            assert!(!failure.to_string().contains("secret"));
        }
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for url in [format!("http://{free}/"), "http://name.invalid/".to_owned(), "ftp://x".to_owned(), String::new()] {
            assert_eq!(Fetcher::new(&url, "*/*", 7).get(SOON).await, Err(Failure::Unreachable), "{url}");
        }
    }

    #[tokio::test]
    async fn a_page_that_does_not_end_is_given_up_in_time() {
        for answer in [Vec::new(), b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\na 1".to_vec()] {
            let (address, ..) = server(answer, false).await;
            let begun = Instant::now();
            let fetcher = Fetcher::new(&format!("http://{address}/"), "*/*", 100);
            assert_eq!(fetcher.get(Duration::from_millis(80)).await, Err(Failure::Timeout));
            assert!(begun.elapsed() < SOON);
        }
    }
}
