//! One request over a new connection, in the protocol that requests go in.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use crate::config::{self, Scheme, Upstream};
use crate::labels::RpcStatus;
use crate::readiness::Answer;
use crate::readiness::health::{self, Health};
use crate::transport::Stream;
use crate::transport::tls::{self, Negotiated};

const USER_AGENT: &str = concat!("golden-sidecar/", env!("CARGO_PKG_VERSION"), " readiness");

/// Asks the backend something. As text, what it asks.
#[derive(Debug)]
pub(super) struct Asker {
    scheme: Scheme,
    authority: String,
    tls: Option<Arc<tls::Client>>,
    question: Question,
}

#[derive(Debug)]
enum Question {
    Path(String),
    /// The name of a service.
    Health(String),
}

impl fmt::Display for Asker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.question {
            Question::Path(path) => write!(out, "GET {path}"),
            Question::Health(service) if service.is_empty() => write!(out, "the gRPC health check"),
            Question::Health(service) => write!(out, "the gRPC health check of {service}"),
        }
    }
}

impl Asker {
    /// `None`: there is nothing to ask.
    pub fn new(upstream: &Upstream, config: &config::Readiness, tls: Option<Arc<tls::Client>>) -> Option<Asker> {
        let question = match (&config.path, &config.grpc) {
            (Some(path), _) => Question::Path(path.clone()),
            (None, Some(service)) => Question::Health(service.clone()),
            (None, None) => return None,
        };
        Some(Asker { scheme: upstream.scheme, authority: upstream.authority(), tls, question })
    }

    /// Asks over a connection. It has no limit of its own; dropped, it leaves nothing behind.
    ///
    /// # Errors
    /// The answer that does not mean up.
    pub async fn ask(&self, stream: Stream) -> Result<(), Answer> {
        let (stream, spoken) = match (&self.tls, self.scheme) {
            (Some(client), _) => client.handshake(stream).await.map_err(|error| Answer::Tls(tls::failure(&error)))?,
            (None, Scheme::H2c) => (stream, Negotiated::Http2),
            (None, Scheme::Http | Scheme::Https) => (stream, Negotiated::Http1),
        };
        match (spoken, &self.question) {
            (Negotiated::Http2, _) => self.over_http2(stream).await,
            (Negotiated::Http1, Question::Path(_)) => self.over_http1(stream).await,
            (Negotiated::Http1, Question::Health(_)) => Err(Answer::NoHttp2),
        }
    }

    async fn over_http1(&self, stream: Stream) -> Result<(), Answer> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|_unreadable| Answer::Unreadable)?;
        let mut connection = pin!(connection);
        let mut answer = pin!(sender.send_request(self.request(Version::HTTP_11)));
        // The connection ends by itself when the answer has been read from it, or when there will be none.
        let response = tokio::select! {
            biased;
            response = &mut answer => response,
            _ = &mut connection => answer.await,
        };
        self.judge(response.map_err(|_unreadable| Answer::Unreadable)?).await
    }

    async fn over_http2(&self, stream: Stream) -> Result<(), Answer> {
        let tasks = Arc::new(Mutex::new(JoinSet::new()));
        let spawner = Spawner(Arc::downgrade(&tasks));
        let (mut sender, connection) =
            http2::handshake(spawner, TokioIo::new(stream)).await.map_err(|_unreadable| Answer::Unreadable)?;
        let asking = async {
            let response = sender.send_request(self.request(Version::HTTP_2)).await;
            self.judge(response.map_err(|_unreadable| Answer::Unreadable)?).await
        };
        tokio::select! {
            biased;
            answer = asking => answer,
            _ = connection => Err(Answer::Unreadable),
        }
    }

    fn request(&self, version: Version) -> Request<Full<Bytes>> {
        let request = Request::builder().version(version).header(http::header::USER_AGENT, USER_AGENT);
        let target = |path: &str| match version {
            Version::HTTP_2 => {
                let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
                format!("{scheme}://{}{path}", self.authority)
            }
            _ => path.to_owned(),
        };
        let request = match &self.question {
            Question::Path(path) => {
                let request = request.method(Method::GET).uri(target(path)).header(http::header::ACCEPT, "*/*");
                let request = match version {
                    Version::HTTP_2 => request,
                    _ => request.header(http::header::HOST, &self.authority),
                };
                request.body(Full::default())
            }
            Question::Health(service) => request
                .method(Method::POST)
                .uri(target(health::PATH))
                .header(http::header::CONTENT_TYPE, "application/grpc")
                .header(http::header::TE, "trailers")
                .body(Full::from(health::request(service))),
        };
        request.expect("path and host were checked with the configuration")
    }

    /// Whether the answer means up. The body of a path is not read: dropping it closes the connection.
    async fn judge(&self, response: Response<Incoming>) -> Result<(), Answer> {
        let status = response.status();
        match self.question {
            Question::Path(_) if status.is_success() || status.is_redirection() => Ok(()),
            Question::Path(_) => Err(Answer::Status(status.as_u16())),
            Question::Health(_) => judge_health(response).await,
        }
    }
}

/// Reads one message of a few bytes and the status of the call, which stands in the head if there is no message.
async fn judge_health(response: Response<Incoming>) -> Result<(), Answer> {
    if response.status() != http::StatusCode::OK {
        return Err(Answer::Status(response.status().as_u16()));
    }
    if let Some(status) = rpc_status(response.headers()) {
        // A call that went well has a message.
        return Err(if status == RpcStatus::Ok { Answer::Unreadable } else { Answer::Rpc(status) });
    }
    let (mut body, mut message, mut status) = (response.into_body(), Vec::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_unreadable| Answer::Unreadable)?;
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) if message.len() + data.len() > health::ANSWER_BYTES_MAX => return Err(Answer::Unreadable),
            (Some(data), _) => message.extend_from_slice(data),
            (_, Some(trailers)) => status = rpc_status(trailers),
            (None, None) => {}
        }
    }
    match (status, health::read(&message)) {
        (Some(RpcStatus::Ok), Some(Health::Serving)) => Ok(()),
        (Some(RpcStatus::Ok), Some(health)) => Err(Answer::Health(health)),
        (Some(RpcStatus::Ok) | None, _) => Err(Answer::Unreadable),
        (Some(status), _) => Err(Answer::Rpc(status)),
    }
}

fn rpc_status(fields: &HeaderMap) -> Option<RpcStatus> {
    let value = fields.get("grpc-status")?;
    Some(value.to_str().ok().and_then(|code| code.parse().ok()).map_or(RpcStatus::Other, RpcStatus::from_code))
}

/// Runs what an HTTP/2 connection needs beside its requests, for as long as somebody holds the tasks: a peer that reads
/// nothing would otherwise keep the rest of each probe for ever.
#[derive(Clone)]
struct Spawner(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            let ended = async move { drop(task.await) };
            tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(ended);
        }
    }
}
