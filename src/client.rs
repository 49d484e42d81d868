//! Questions of the sidecar's own: a connection, and requests over it, in whatever is spoken there. Traffic does not come
//! this way.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use crate::config::Scheme;
use crate::labels::TlsFailure;
use crate::transport::Stream;
use crate::transport::tls::{self, Negotiated};

/// Why there is no answer on a connection that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The TLS handshake failed.
    Tls(TlsFailure),
    /// What came is no HTTP, or the connection ended first.
    Unreadable,
}

/// A connection on which requests can be sent. Dropped, it leaves nothing behind; bodies of its responses end with it.
#[derive(Debug)]
pub struct Session {
    sender: Sender,
    /// What the connection needs beside its requests. A peer that reads nothing would otherwise keep it for ever.
    _tasks: Tasks,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

type Tasks = Arc<Mutex<JoinSet<()>>>;

impl Session {
    /// Agrees with the peer on what is spoken. `tls`: of a scheme that has it. It has no limit of its own.
    ///
    /// # Errors
    /// When that fails.
    pub async fn begin(stream: Stream, scheme: Scheme, tls: Option<&tls::Client>) -> Result<Session, NoAnswer> {
        let (stream, spoken) = match (tls, scheme) {
            (Some(client), _) => client.handshake(stream).await.map_err(|error| NoAnswer::Tls(tls::failure(&error)))?,
            (None, Scheme::H2c) => (stream, Negotiated::Http2),
            (None, Scheme::Http | Scheme::Https) => (stream, Negotiated::Http1),
        };
        let tasks = Tasks::default();
        let spawner = Spawner(Arc::downgrade(&tasks));
        let io = TokioIo::new(stream);
        let sender = match spoken {
            Negotiated::Http1 => {
                let (sender, connection) = http1::handshake(io).await.map_err(|_unreadable| NoAnswer::Unreadable)?;
                hyper::rt::Executor::execute(&spawner, connection);
                Sender::Http1(sender)
            }
            Negotiated::Http2 => {
                let made = http2::handshake(spawner.clone(), io).await;
                let (sender, connection) = made.map_err(|_unreadable| NoAnswer::Unreadable)?;
                hyper::rt::Executor::execute(&spawner, connection);
                Sender::Http2(sender)
            }
        };
        Ok(Session { sender, _tasks: tasks })
    }

    /// What is spoken: HTTP/1.1 wants a path and `Host`, HTTP/2 the whole URL.
    #[must_use]
    pub fn version(&self) -> Version {
        match self.sender {
            Sender::Http1(_) => Version::HTTP_11,
            Sender::Http2(_) => Version::HTTP_2,
        }
    }

    /// Sends a request and waits for the head of the response.
    ///
    /// # Errors
    /// When none comes that can be read.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, NoAnswer> {
        let answer = match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        };
        answer.map_err(|_unreadable| NoAnswer::Unreadable)
    }
}

/// Runs what belongs to a connection for as long as somebody holds its tasks.
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
