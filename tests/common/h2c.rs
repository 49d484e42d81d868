//! An HTTP/2 client with prior knowledge, for tests that interleave streams or reset one at a chosen moment.

use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};

use super::PATIENCE;

/// Runs an asynchronous test body on one thread, with a deadline.
#[track_caller]
pub fn run<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async { tokio::time::timeout(PATIENCE * 3, body).await.expect("the test takes too long") })
}

/// A connection; the driver runs beside the test body.
pub async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let socket = tokio::net::TcpStream::connect(address).await.expect("connect");
    let (client, connection) = h2::client::handshake(socket).await.expect("HTTP/2 handshake");
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    client
}

/// A request to `http://test` + path.
#[must_use]
pub fn request(method: &str, path: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(format!("http://test{path}"))
}

/// Waits for a condition while the connection goes on being driven.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = tokio::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "did not happen within {PATIENCE:?}: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Sends a head; `end` when no body follows.
pub async fn send(
    client: &SendRequest<Bytes>,
    request: http::request::Builder,
    end: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut client = client.clone().ready().await.expect("a free stream");
    client.send_request(request.body(()).expect("a request"), end).expect("send")
}

/// The rest of a body, and its trailers.
pub async fn read_all(body: &mut RecvStream) -> Result<(Vec<u8>, Option<http::HeaderMap>), h2::Error> {
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        content.extend_from_slice(&data);
    }
    Ok((content, body.trailers().await?))
}

/// One request, one whole response.
pub async fn exchange(
    client: &SendRequest<Bytes>,
    request: http::request::Builder,
    body: Option<&'static [u8]>,
) -> (http::Response<()>, Vec<u8>, Option<http::HeaderMap>) {
    let (response, mut stream) = send(client, request, body.is_none()).await;
    if let Some(body) = body {
        stream.send_data(Bytes::from_static(body), true).expect("send the body");
    }
    let (head, mut body) = response.await.expect("a response").into_parts();
    let (content, trailers) = read_all(&mut body).await.expect("a whole body");
    (http::Response::from_parts(head, ()), content, trailers)
}

/// One gRPC call with an empty message, whatever becomes of it.
pub fn call(address: SocketAddr, path: &str) {
    run(async {
        let client = connect(address).await;
        let request = request("POST", path).header("content-type", "application/grpc").header("te", "trailers");
        exchange(&client, request, Some(&[0; 5])).await
    });
}
