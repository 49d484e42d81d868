//! A backend that speaks HTTP/2 with prior knowledge: the `h2` crate's server, a thread and a script.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// What a script does with one request.
pub type Served = Pin<Box<dyn Future<Output = ()>>>;

/// What HTTP/2 goes over.
pub enum Carrier {
    /// TCP, with prior knowledge.
    Tcp,
    /// A socket of the file system, the same.
    Unix(PathBuf),
    /// TLS over TCP.
    Tls(Arc<ServerConfig>),
}

/// How connections are served.
struct Server<F> {
    serve: F,
    asked: Arc<AtomicUsize>,
    builder: Builder,
}

impl<F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Served> Server<F> {
    async fn speak(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Ok(mut connection) = self.builder.handshake::<_, Bytes>(stream).await else { return };
        while let Some(Ok((request, respond))) = connection.accept().await {
            self.asked.fetch_add(1, SeqCst);
            tokio::task::spawn_local((self.serve)(request, respond));
        }
    }
}

/// A running backend; ends when dropped.
pub struct H2Backend {
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections so far.
    pub connections: Arc<AtomicUsize>,
    /// Requests so far.
    pub requests: Arc<AtomicUsize>,
    url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl H2Backend {
    /// Serves each request by `serve`.
    #[must_use]
    pub fn start<F>(serve: F) -> H2Backend
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Served + Send + 'static,
    {
        H2Backend::with(Builder::new(), serve)
    }

    /// The same, with other settings.
    #[must_use]
    pub fn with<F>(builder: Builder, serve: F) -> H2Backend
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Served + Send + 'static,
    {
        H2Backend::over(Carrier::Tcp, builder, serve)
    }

    /// The same, over something else than TCP.
    #[must_use]
    pub fn over<F>(carrier: Carrier, builder: Builder, serve: F) -> H2Backend
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Served + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("nonblocking");
        let address = listener.local_addr().expect("an address");
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (opened, asked) = (Arc::clone(&connections), Arc::clone(&requests));
        let (stop, stopped) = oneshot::channel();
        let url = match &carrier {
            Carrier::Tcp => format!("h2c://{address}"),
            Carrier::Tls(_) => format!("https://localhost:{}", address.port()),
            Carrier::Unix(path) => format!("h2c+unix:{}", path.display()),
        };
        let (bound, ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let local = tokio::task::LocalSet::new();
            let server = Rc::new(Server { serve, asked, builder });
            local.block_on(&runtime, async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let accepting = async {
                    match carrier {
                        Carrier::Tcp | Carrier::Tls(_) => {
                            bound.send(()).expect("somebody waits");
                            let acceptor = match carrier {
                                Carrier::Tls(config) => Some(TlsAcceptor::from(config)),
                                _ => None,
                            };
                            loop {
                                let Ok((stream, _)) = listener.accept().await else { continue };
                                opened.fetch_add(1, SeqCst);
                                let (server, acceptor) = (Rc::clone(&server), acceptor.clone());
                                tokio::task::spawn_local(async move {
                                    match acceptor {
                                        None => server.speak(stream).await,
                                        Some(acceptor) => {
                                            if let Ok(stream) = acceptor.accept(stream).await {
                                                server.speak(stream).await;
                                            }
                                        }
                                    }
                                });
                            }
                        }
                        Carrier::Unix(path) => {
                            let listener = tokio::net::UnixListener::bind(path).expect("a socket");
                            bound.send(()).expect("somebody waits");
                            loop {
                                let Ok((stream, _)) = listener.accept().await else { continue };
                                opened.fetch_add(1, SeqCst);
                                let server = Rc::clone(&server);
                                tokio::task::spawn_local(async move { server.speak(stream).await });
                            }
                        }
                    }
                };
                tokio::select! {
                    () = accepting => {}
                    _ = stopped => {}
                }
            });
        });
        ready.recv().expect("it listens");
        H2Backend { address, url, connections, requests, stop: Some(stop), thread: Some(thread) }
    }

    /// What `--upstream` takes.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }
}

impl Drop for H2Backend {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads a whole body and its trailers.
///
/// # Errors
/// When the stream is reset.
pub async fn read(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    super::h2c::read_all(body).await
}

/// Answers with these fields, this body, and these trailers.
pub fn answer(mut respond: SendResponse<Bytes>, response: Response<()>, body: &[u8], trailers: Option<HeaderMap>) {
    let ended = body.is_empty() && trailers.is_none();
    let Ok(mut send) = respond.send_response(response, ended) else { return };
    if !body.is_empty() {
        let _ = send.send_data(Bytes::copy_from_slice(body), trailers.is_none());
    }
    if let Some(trailers) = trailers {
        let _ = send.send_trailers(trailers);
    }
}
