//! The admin port: it reads, it never writes. Nothing here can change the proxy or a number; it tells the others that a
//! scrape happened ([`Admin::scraped`]), and that somebody was refused ([`Guard`]).
//!
//! | file | what it holds |
//! |---|---|
//! | `server.rs` | connections: how many, how slow they may be, how they end |
//! | `guard.rs` | who is let in: the host that is asked for, credentials |
//! | `fields.rs` | the fields that every answer carries |
//! | `health.rs` | the readiness state, with a writing end for others and a reading end for this room |
//! | `page.rs` | the page at `/` |
//! | `routes.rs` | the answer of `/api/v1/routes` |
//!
//! Every endpoint is one line of `ENDPOINTS` and one arm of [`Admin::respond`]. It runs on the small admin runtime;
//! metrics pages are made on a thread of their own, so that even a large one takes no time from anybody.

mod fields;
mod guard;
mod health;
mod page;
mod routes;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http::header::{
    ALLOW, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use tokio::sync::watch;

use crate::exposition::{Body, Exporter, NoPage, Wanted};
use crate::routes::RouteTable;
use crate::signals::Signals;
use crate::transport::tls::Acceptor;

use guard::{Ends, Refused};

pub use guard::{Credentials, Guard, Protection};
pub use health::{Backend, Readiness, ReadinessReader};
pub use server::{Limits, serve, serve_with};

const TEXT: &str = "text/plain; charset=utf-8";
/// What `/livez` says.
const LIVE: &str = "ok\n";

/// What there is, in the order that the page shows it: path, endpoint, one sentence.
const ENDPOINTS: [(&str, Endpoint, &str); 6] = [
    ("/", Endpoint::Page, "This page."),
    (
        "/metrics",
        Endpoint::Metrics,
        "All numbers, for Prometheus: text, OpenMetrics or protobuf, gzip when asked; ?name[]= picks families, \
         ?include=backend adds the backend's.",
    ),
    ("/livez", Endpoint::Live, "200 while this process can answer at all."),
    ("/readyz", Endpoint::Ready, "200 when traffic is welcome, otherwise 503 with one line per reason."),
    ("/api/v1/config", Endpoint::Config, "The effective configuration as JSON, secrets redacted."),
    (
        "/api/v1/routes",
        Endpoint::Routes,
        "All routes as JSON: source, requests, what was folded and why; ?path=/users/7 explains one path.",
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Page,
    Metrics,
    Live,
    Ready,
    Config,
    Routes,
}

/// What the page at `/` says about this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Version of this program.
    pub version: String,
    /// The address that the proxy is bound to.
    pub proxy: String,
    /// The backend as it is shown to people: `http://127.0.0.1:8080`.
    pub upstream: String,
    /// Where its name leads now; none if it has no name.
    pub addresses: Vec<SocketAddr>,
}

/// Everything that the endpoints read.
#[derive(Debug)]
pub struct Admin {
    exporter: Exporter,
    readiness: ReadinessReader,
    config_json: watch::Receiver<Bytes>,
    about: watch::Receiver<About>,
    routes: watch::Receiver<Arc<RouteTable>>,
    signals: Arc<Signals>,
    guard: Guard,
    tls: Option<Arc<Acceptor>>,
    /// How many pages have been asked for.
    asked: AtomicU64,
    scrapes: watch::Sender<Scrapes>,
}

/// Pages that were handed out.
#[derive(Clone, Copy, Debug, Default)]
struct Scrapes {
    count: u64,
    /// Of all that were handed out, the one that was asked for last: its number in the order of asking.
    newest: u64,
}

// === impl Admin ===

impl Admin {
    /// Joins the parts. `config_json` is the redacted effective configuration as JSON text; whoever reloads it sends
    /// the new text, and what else has changed, through the other ends.
    #[must_use]
    pub fn new(
        exporter: Exporter,
        readiness: ReadinessReader,
        config_json: watch::Receiver<Bytes>,
        about: watch::Receiver<About>,
        routes: watch::Receiver<Arc<RouteTable>>,
        signals: Arc<Signals>,
        guard: Guard,
    ) -> Admin {
        Admin {
            exporter,
            readiness,
            config_json,
            about,
            routes,
            signals,
            guard,
            tls: None,
            asked: AtomicU64::new(0),
            scrapes: watch::Sender::default(),
        }
    }

    /// The same under TLS, if there is an acceptor.
    #[must_use]
    pub fn secured(self, tls: Option<Arc<Acceptor>>) -> Admin {
        Admin { tls, ..self }
    }

    /// What makes the pages.
    #[must_use]
    pub fn exporter(&self) -> &Exporter {
        &self.exporter
    }

    /// Metrics pages handed out so far. HEAD does not count: nobody read a number.
    #[must_use]
    pub fn scrapes(&self) -> u64 {
        self.scrapes.borrow().count
    }

    /// Waits for the next metrics page that is asked for after this call (not after the first poll): one that was asked for
    /// before may have been made before the numbers were final. The page may still be on its way to its reader then; ending
    /// [`serve`] lets it arrive.
    pub fn scraped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut scrapes = self.scrapes.subscribe();
        let asked = self.asked.load(Relaxed);
        async move {
            // Closed means that the server is gone: there will be no further scrape to wait for.
            let _ = scrapes.wait_for(|scrapes| scrapes.newest > asked).await;
        }
    }

    /// The answer to a request. For HEAD the body is given too: the server sends its length and leaves it out.
    async fn respond(&self, request: &Parts, ends: Ends) -> Response<Body> {
        let path = request.uri.path();
        let endpoint = ENDPOINTS.iter().find(|(known, _, _)| *known == path).map(|(_, endpoint, _)| *endpoint);
        let admitted = self.guard.admit(request, ends);
        // Kubelets and load balancers have no credentials to send, and ask for an address that nobody knows beforehand.
        // They get one word, so there is nothing to guard.
        let probe = matches!(endpoint, Some(Endpoint::Live | Endpoint::Ready));
        if let Err(refused) = &admitted
            && !probe
        {
            self.guard.tell(refused, ends);
            return refusal(refused);
        }
        let Some(endpoint) = endpoint else {
            return answer(StatusCode::NOT_FOUND, TEXT, "there is nothing here; / lists what there is\n");
        };
        if request.method != Method::GET && request.method != Method::HEAD {
            let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "read-only: GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match endpoint {
            Endpoint::Live => answer(StatusCode::OK, TEXT, LIVE),
            Endpoint::Ready => {
                let (ready, text) = self.ready(admitted.is_ok());
                answer(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, TEXT, text)
            }
            Endpoint::Config => answer(StatusCode::OK, "application/json", self.config_json.borrow().clone()),
            Endpoint::Routes => {
                let table = Arc::clone(&self.routes.borrow());
                match routes::answer(request.uri.query().unwrap_or_default(), &table, &self.signals) {
                    Ok(json) => answer(StatusCode::OK, "application/json", Bytes::from(json.to_string())),
                    Err(wrong) => answer(StatusCode::BAD_REQUEST, TEXT, format!("{wrong}\n")),
                }
            }
            Endpoint::Page => {
                let page = page::render(&self.about.borrow(), &self.readiness.reasons());
                let mut response = answer(StatusCode::OK, "text/html; charset=utf-8", page);
                let policy = HeaderValue::from_static(page::CONTENT_SECURITY_POLICY);
                response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
                response
            }
            Endpoint::Metrics => self.metrics(request).await,
        }
    }

    /// The body of `/readyz`. The reasons name the backend's address, which is nothing for strangers.
    fn ready(&self, admitted: bool) -> (bool, String) {
        match self.readiness.text() {
            (false, _) if !admitted => (false, "not ready\n".to_owned()),
            told => told,
        }
    }

    /// The page is made elsewhere; waiting for it holds nobody up.
    async fn metrics(&self, request: &Parts) -> Response<Body> {
        let wanted = match Wanted::of(&request.headers, request.uri.query()) {
            Ok(wanted) => wanted,
            Err(bad) => return answer(StatusCode::BAD_REQUEST, TEXT, format!("{bad}\n")),
        };
        let number = self.asked.fetch_add(1, Relaxed) + 1;
        let page = match self.exporter.page(wanted).await {
            Ok(page) => page,
            Err(none @ NoPage::Busy) => {
                let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{none}\n"));
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                return response;
            }
            Err(none @ NoPage::Failed) => return answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{none}\n")),
        };
        let mut response = answer(StatusCode::OK, &page.content_type, page.body);
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if let Some(encoding) = page.content_encoding {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        if request.method == Method::GET {
            self.scrapes.send_modify(|scrapes| {
                scrapes.count += 1;
                scrapes.newest = scrapes.newest.max(number);
            });
        }
        response
    }
}

/// What somebody gets who is not let in.
fn refusal(refused: &Refused) -> Response<Body> {
    let mut response = answer(refused.status, TEXT, refused.sentence);
    for challenge in &refused.challenges {
        response.headers_mut().append(WWW_AUTHENTICATE, challenge.clone());
    }
    response
}

/// An answer with the fields that all of them carry.
fn answer(status: StatusCode, content_type: &str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let content_type = HeaderValue::from_str(content_type).expect("made of constants that are field values");
    headers.insert(CONTENT_TYPE, content_type);
    for (name, value) in fields::ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
