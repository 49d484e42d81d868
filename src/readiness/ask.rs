//! One request over a new connection, in the protocol that requests go in.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use crate::client::{NoAnswer, Session};
use crate::config::{self, Scheme, Upstream};
use crate::labels::RpcStatus;
use crate::readiness::Answer;
use crate::readiness::health::{self, Health};
use crate::transport::Stream;
use crate::transport::tls;

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
        let no_answer = |why| match why {
            NoAnswer::Tls(failure) => Answer::Tls(failure),
            NoAnswer::Unreadable => Answer::Unreadable,
        };
        let mut session = Session::begin(stream, self.scheme, self.tls.as_deref()).await.map_err(no_answer)?;
        if let (Version::HTTP_11, Question::Health(_)) = (session.version(), &self.question) {
            return Err(Answer::NoHttp2);
        }
        let request = self.request(session.version());
        let response = session.send(request).await.map_err(no_answer)?;
        self.judge(response).await
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
