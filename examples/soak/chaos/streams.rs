//! Clients over HTTP/2: many streams on few connections, some of them reset.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;

use super::backend::Backend;
use super::client::{PATIENCE, word_of};
use super::ledger::Seen;
use super::plan::{Kind, Plan, filler, size, upload_size};

/// Connects; the connection is driven beside.
pub async fn connect(to: SocketAddr) -> Result<SendRequest<Bytes>, String> {
    let socket = tokio::net::TcpStream::connect(to).await.map_err(|error| error.to_string())?;
    let (client, connection) = h2::client::handshake(socket).await.map_err(|error| error.to_string())?;
    tokio::task::spawn_local(async move {
        // Its streams tell what went wrong.
        let _ended = connection.await;
    });
    Ok(client)
}

/// Sends one request as a stream.
pub async fn request(client: &SendRequest<Bytes>, backend: &Backend, plan: &Plan) -> Seen {
    let seen = tokio::time::timeout(PATIENCE, attempt(client, backend, plan)).await;
    backend.forget(plan.number);
    match seen {
        Ok(Ok(seen)) => seen,
        Ok(Err(error)) => Seen::Broken(format!("no answer over HTTP/2: {error}")),
        Err(_elapsed) => Seen::Broken("nothing happened over HTTP/2".to_owned()),
    }
}

async fn attempt(client: &SendRequest<Bytes>, backend: &Backend, plan: &Plan) -> Result<Seen, h2::Error> {
    let mut client = client.clone().ready().await?;
    let builder = http::Request::builder().method(plan.method).uri(format!("http://soak{}", plan.path));
    let request = builder.body(()).expect("a request");
    let uploads = plan.kind.uploads();
    let arrival = backend.arrival(plan.number);
    let (response, mut body) = client.send_request(request, !uploads)?;
    drop(client);
    if uploads {
        body.send_data(Bytes::from(vec![b'u'; upload_size(plan.number)]), true)?;
    }
    let mut response = std::pin::pin!(response);
    let response = if plan.kind == Kind::LeaveBeforeHead {
        tokio::select! {
            response = &mut response => response?,
            // To drop all of the stream is to reset it.
            () = arrival.notified() => return Ok(Seen::Left(None)),
        }
    } else {
        response.await?
    };
    let status = response.status().as_u16();
    let word = response.headers().get("proxy-status").and_then(|value| value.to_str().ok()).and_then(word_of);
    let mut body = response.into_body();
    let own = word.is_some();
    let leaves = !own && status == 200 && matches!(plan.kind, Kind::LeaveInBody | Kind::LeaveEvents);
    let mut content = Vec::new();
    loop {
        match body.data().await {
            None => break,
            Some(Err(_cut)) => return Ok(Seen::Answer(status, word, false)),
            Some(Ok(data)) => {
                if leaves {
                    return Ok(Seen::Left(Some(status)));
                }
                body.flow_control().release_capacity(data.len())?;
                content.extend_from_slice(&data);
            }
        }
    }
    if leaves {
        return Ok(Seen::Broken("the answer ended before its client could leave".to_owned()));
    }
    let bodyless = plan.method == "HEAD" || matches!(status, 204 | 304);
    if own || bodyless || matches!(plan.kind, Kind::Events | Kind::BadChunk) {
        return Ok(Seen::Answer(status, word, true));
    }
    let expected = filler(plan.number);
    if content.len() != size(plan.kind, plan.number) || content.iter().any(|byte| *byte != expected) {
        return Ok(Seen::Broken(format!("{} bytes of a body, not its own", content.len())));
    }
    Ok(Seen::Answer(status, word, true))
}
