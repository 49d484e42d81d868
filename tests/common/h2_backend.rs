//! A backend that speaks HTTP/2 with prior knowledge: the `h2` crate's server, a thread and a script.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::sync::oneshot;

/// What a script does with one request.
pub type Served = Pin<Box<dyn Future<Output = ()>>>;

/// A running backend; ends when dropped.
pub struct H2Backend {
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections so far.
    pub connections: Arc<AtomicUsize>,
    /// Requests so far.
    pub requests: Arc<AtomicUsize>,
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
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("nonblocking");
        let address = listener.local_addr().expect("an address");
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (opened, asked) = (Arc::clone(&connections), Arc::clone(&requests));
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let local = tokio::task::LocalSet::new();
            let serve = Rc::new(serve);
            local.block_on(&runtime, async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let accepting = async {
                    loop {
                        let Ok((stream, _)) = listener.accept().await else { continue };
                        opened.fetch_add(1, SeqCst);
                        let (serve, asked, builder) = (Rc::clone(&serve), Arc::clone(&asked), builder.clone());
                        tokio::task::spawn_local(async move {
                            let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
                            while let Some(Ok((request, respond))) = connection.accept().await {
                                asked.fetch_add(1, SeqCst);
                                tokio::task::spawn_local(serve(request, respond));
                            }
                        });
                    }
                };
                tokio::select! {
                    () = accepting => {}
                    _ = stopped => {}
                }
            });
        });
        H2Backend { address, connections, requests, stop: Some(stop), thread: Some(thread) }
    }

    /// What `--upstream` takes.
    #[must_use]
    pub fn url(&self) -> String {
        format!("h2c://{}", self.address)
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
