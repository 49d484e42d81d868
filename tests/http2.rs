//! HTTP/2 to the backend, and what HTTP/2 has beyond plain requests: gRPC, trailers, tunnels, shared connections.

mod common;

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use common::certificates::{Authority, server_config};
use common::h2_backend::{Carrier, H2Backend, answer, read};
use common::{Backend, Gate, Outcome, Sidecar, h2c, wait_until};
use http::{HeaderMap, HeaderValue, Request, Response};

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

/// Answers with what was asked, and the request's trailers as its own.
fn echo() -> H2Backend {
    H2Backend::start(|request, respond| {
        Box::pin(async move {
            let (parts, mut body) = request.into_parts();
            let Ok((content, trailers)) = read(&mut body).await else { return };
            let seen = format!("{} {} {:?}\n", parts.method, parts.uri, parts.headers);
            let response = Response::builder().header("x-seen-length", content.len()).body(()).unwrap();
            answer(respond, response, &[seen.as_bytes(), &content].concat(), trailers);
        })
    })
}

#[test]
fn an_http1_client_reaches_an_http2_backend() {
    let backend = echo();
    let sidecar = Sidecar::upstream(backend.url()).start();
    let answer =
        sidecar.exchange("GET /a%20b?q=1 HTTP/1.1\r\nHost: shop:80\r\nX-Own: yes\r\nConnection: x-own\r\n\r\n");
    assert_eq!(answer.status(), 200);
    let seen = answer.text();
    assert!(seen.starts_with("GET http://shop:80/a%20b?q=1 "), "{seen}");
    assert!(seen.contains("\"x-forwarded-for\": \"127.0.0.1\""), "{seen}");
    assert!(!seen.contains("x-own") && !seen.contains("\"host\""), "{seen}");
    sidecar.expect(&[Outcome::backend("GET", "200")]);
}

#[test]
fn bodies_and_trailers_pass_between_http1_and_http2() {
    let backend = echo();
    let sidecar = Sidecar::upstream(backend.url()).start();
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                   5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n";
    let answer = sidecar.exchange(request);
    assert_eq!(answer.status(), 200);
    assert!(answer.text().ends_with("hello world"), "{}", answer.text());
    assert_eq!(answer.body.trailers, [("x-sum".to_owned(), b"11".to_vec())]);
}

#[test]
fn requests_of_many_clients_share_one_connection() {
    let backend = echo();
    let sidecar = Sidecar::upstream(backend.url()).start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = sidecar.client();
                for _ in 0..20 {
                    assert_eq!(client.get("/").status(), 200);
                }
            });
        }
    });
    assert_eq!((backend.connections.load(SeqCst), backend.requests.load(SeqCst)), (1, 160));
    let page = sidecar.settled(160);
    assert_eq!(page.value("golden_upstream_connections_opened_total", &[]), 1.0);
    assert_eq!(page.value("http_client_open_connections", &[("http_connection_state", "idle")]), 1.0);
    assert_eq!(page.value("http_client_open_connections", &[("http_connection_state", "active")]), 0.0);
}

/// A method that answers by its name.
fn rpc(service: &'static str, status: &'static str) -> HeaderMap {
    let _ = service;
    fields(&[("grpc-status", status), ("grpc-message", "told")])
}

fn call(path: &str) -> http::request::Builder {
    h2c::request("POST", path).header("content-type", "application/grpc").header("te", "trailers")
}

/// Unary calls: `/pkg.Service/Fail` fails in its trailers, `/pkg.Service/Refuse` in a head without a body.
fn service() -> H2Backend {
    H2Backend::start(|request, respond| {
        Box::pin(async move {
            let (parts, mut body) = request.into_parts();
            let Ok((content, _)) = read(&mut body).await else { return };
            let head = Response::builder().header("content-type", "application/grpc");
            match parts.uri.path() {
                "/pkg.Service/Fail" => answer(respond, head.body(()).unwrap(), &content, Some(rpc("Fail", "14"))),
                "/pkg.Service/Refuse" => {
                    let head = head.header("grpc-status", "5").body(()).unwrap();
                    answer(respond, head, b"", None);
                }
                _ => answer(respond, head.body(()).unwrap(), &content, Some(rpc("Echo", "0"))),
            }
        })
    })
}

#[test]
fn a_call_is_what_its_trailers_say() {
    let backend = service();
    let yaml = "routes:\n  - path: /pkg.Service/Echo\n  - path: /pkg.Service/Fail\n  - path: /pkg.Service/Refuse\n";
    let sidecar = Sidecar::upstream(backend.url()).yaml(yaml).start();
    let message = b"\0\0\0\0\x05hello";
    h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        for (path, status, length) in
            [("/pkg.Service/Echo", "0", 10), ("/pkg.Service/Fail", "14", 10), ("/pkg.Service/Refuse", "5", 0)]
        {
            let (head, body, trailers) = h2c::exchange(&client, call(path), Some(message)).await;
            assert_eq!((head.status().as_u16(), body.len()), (200, length));
            let told = trailers.as_ref().unwrap_or(head.headers())["grpc-status"].to_str().unwrap().to_owned();
            assert_eq!(told, status, "{path}");
        }
    });
    let page = sidecar.settled(3);
    let family = "rpc_server_call_duration_seconds";
    for (method, status, error) in [
        ("pkg.Service/Echo", "OK", ""),
        ("pkg.Service/Fail", "UNAVAILABLE", "UNAVAILABLE"),
        ("pkg.Service/Refuse", "NOT_FOUND", ""),
    ] {
        let labels = [("rpc_method", method), ("rpc_response_status_code", status), ("error_type", error)];
        assert_eq!(page.count(family, &labels), 1.0, "{method}");
    }
    assert_eq!(page.sum("golden_errors_total", &[]), 1.0);
    assert_eq!(page.sum("golden_errors_total", &[("error_type", "UNAVAILABLE"), ("fault", "backend")]), 1.0);
}

#[test]
fn a_call_to_a_dead_backend_fails_as_calls_do() {
    let sidecar = Sidecar::upstream(format!("h2c://127.0.0.1:{}", common::sidecar::free_port())).start();
    h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        let (head, _, _) = h2c::exchange(&client, call("/pkg.Service/Echo"), Some(b"\0\0\0\0\0")).await;
        assert_eq!(head.status().as_u16(), 502);
        assert_eq!(head.headers()["grpc-status"], "14");
        assert_eq!(head.headers()["grpc-message"], "the backend refused the connection");
        assert!(head.headers()["proxy-status"].to_str().unwrap().contains("connect_refused"));
    });
    let page = sidecar.settled(1);
    let labels = [("rpc_response_status_code", "UNAVAILABLE"), ("error_type", "connect_refused")];
    assert_eq!(page.count("rpc_server_call_duration_seconds", &labels), 1.0);
}

#[test]
fn a_stream_that_the_backend_refuses_is_sent_again() {
    let refused = std::sync::atomic::AtomicBool::new(false);
    let backend = H2Backend::start(move |_, mut respond| {
        let first = !refused.swap(true, SeqCst);
        Box::pin(async move {
            if first {
                return respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
            answer(respond, Response::new(()), b"second", None);
        })
    });
    let sidecar = Sidecar::upstream(backend.url()).start();
    assert_eq!(sidecar.get("/").text(), "second");
    let page = sidecar.settled(1);
    assert_eq!(page.value("golden_upstream_retries_total", &[("result", "success")]), 1.0);
    assert_eq!(page.sum("golden_errors_total", &[]), 0.0);
}

#[test]
fn more_requests_than_a_connection_takes_get_another_one() {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(2);
    let backend = H2Backend::with(builder, |request, respond| {
        Box::pin(async move {
            // The answer comes when the client ends its body, so the stream stays open until then.
            let mut body = request.into_body();
            let _ = read(&mut body).await;
            answer(respond, Response::new(()), b"", None);
        })
    });
    let sidecar = Sidecar::upstream(backend.url()).start();
    assert_eq!(sidecar.get("/").status(), 200);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
    let mut clients: Vec<_> = (0..5).map(|_| sidecar.client()).collect();
    for client in &mut clients {
        client.send(head);
    }
    wait_until("five requests are at the backend", || backend.requests.load(SeqCst) == 6);
    assert_eq!(backend.connections.load(SeqCst), 3);
    for client in &mut clients {
        client.send("x");
        assert_eq!(client.read_response("POST").status(), 200);
    }
    sidecar.settled(6);
}

#[test]
fn a_cut_stream_is_a_truncated_answer() {
    let backend = H2Backend::start(|_, mut respond| {
        Box::pin(async move {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data(Bytes::from_static(b"half"), false).unwrap();
            send.reserve_capacity(1);
            let _ = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
            tokio::task::yield_now().await;
            send.send_reset(h2::Reason::INTERNAL_ERROR);
        })
    });
    let sidecar = Sidecar::upstream(backend.url()).start();
    let mut client = sidecar.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.wire.wait_end().expect("it is cut");
    let page = sidecar.settled(1);
    assert_eq!(page.sum("golden_errors_total", &[("fault", "backend")]), 1.0);
}

#[test]
fn crumbs_of_one_client_do_not_end_the_connection_that_all_share() {
    let backend = echo();
    let sidecar = Sidecar::upstream(backend.url()).start();
    // More small frames than the `h2` crate's server lets wait on a connection, which is a hundred.
    let crumbs = 400;
    let (text, _, _) = h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        let (response, mut body) = h2c::send(&client, h2c::request("POST", "/"), false).await;
        for _ in 0..crumbs {
            body.send_data(Bytes::from_static(b"x"), false).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
        let (head, mut body) = response.await.unwrap().into_parts();
        assert_eq!(head.status.as_u16(), 200);
        let (content, trailers) = read(&mut body).await.unwrap();
        (content, trailers, client)
    });
    assert!(text.ends_with(&vec![b'x'; crumbs]), "{} bytes", text.len());
    sidecar.expect(&[Outcome::backend("POST", "200")]);
}

#[test]
fn a_client_sees_the_status_of_an_answer_that_is_cut_behind_its_head() {
    let backend = Backend::start(|peer| {
        peer.read_head().unwrap();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        // The connection ends here.
    });
    let sidecar = Sidecar::start(&backend);
    // It is a matter of which task comes first.
    let requests = 50;
    h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        for _ in 0..requests {
            let (response, _) = h2c::send(&client, h2c::request("GET", "/"), true).await;
            let (head, mut body) = response.await.expect("the head").into_parts();
            assert_eq!(head.status.as_u16(), 200);
            assert!(read(&mut body).await.is_err(), "a cut answer looks whole");
        }
    });
    let page = sidecar.settled(requests);
    assert_eq!(page.sum("golden_requests_total", &[("http_response_status_code", "200")]), 50.0);
    assert_eq!(page.sum("golden_errors_total", &[("fault", "backend"), ("phase", "body")]), 50.0);
}

#[test]
fn no_request_that_says_it_has_no_content_goes_on_before_its_end() {
    let backend = echo();
    let sidecar = Sidecar::upstream(backend.url()).start();
    h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        let empty = || h2c::request("POST", "/").header("content-length", "0");
        let (response, mut body) = h2c::send(&client, empty(), false).await;
        // Were the request on its way, the answer to it would be there before the one to this.
        let (head, ..) = h2c::exchange(&client, h2c::request("GET", "/"), None).await;
        assert_eq!((head.status().as_u16(), backend.requests.load(SeqCst)), (200, 1));
        body.send_data(Bytes::from_static(b"x"), true).unwrap();
        response.await.expect_err("an answer to a malformed request");

        let (response, mut body) = h2c::send(&client, empty(), false).await;
        body.send_data(Bytes::new(), true).unwrap();
        assert_eq!(response.await.unwrap().status().as_u16(), 200);
    });
    assert_eq!(backend.requests.load(SeqCst), 2);
    let page = sidecar.settled(3);
    assert_eq!(page.sum("golden_requests_total", &[("http_response_status_code", "400")]), 1.0);
}

#[test]
fn a_connection_whose_first_frame_is_not_settings_ends() {
    let backend = Backend::always("");
    let sidecar = Sidecar::start(&backend);
    let mut client = sidecar.client();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    // PING, in two pieces.
    client.send(b"\0\0\x08\x06\0");
    client.send(b"\0\0\0\0\0\0\0\0\0\0\0\0");
    client.wire.wait_end().expect("the connection ends");
}

// === tunnels ===

/// Accepts extended CONNECT and echoes.
fn tunnelling() -> H2Backend {
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    H2Backend::with(builder, |request: Request<h2::RecvStream>, mut respond| {
        Box::pin(async move {
            let protocol = request.extensions().get::<h2::ext::Protocol>().map(|p| p.as_str().to_owned());
            let Some("websocket") = protocol.as_deref() else {
                return answer(respond, Response::builder().status(400).body(()).unwrap(), b"", None);
            };
            let mut body = request.into_body();
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                send.send_data(data, false).unwrap();
            }
            send.send_data(Bytes::new(), true).unwrap();
        })
    })
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn a_websocket_of_http1_becomes_one_of_http2() {
    let backend = tunnelling();
    let sidecar = Sidecar::upstream(backend.url()).start();
    assert_eq!(sidecar.get("/").status(), 400);
    let mut client = sidecar.client();
    client.send(UPGRADE);
    let head = client.read_head();
    assert_eq!(head.status(), 101);
    assert_eq!(head.one("sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client.send("ping");
    wait_until("the echo comes", || client.peek_for(std::time::Duration::from_millis(10)) == b"ping");
    let page = sidecar.scrape();
    assert_eq!(page.value("golden_upgraded_connections", &[("protocol", "websocket")]), 1.0);
    client.half_close();
    let page = sidecar.page_when("the tunnel has ended", |page| {
        page.value("golden_upgraded_connections", &[("protocol", "websocket")]) == 0.0
    });
    for direction in ["sent", "received"] {
        let labels = [("protocol", "websocket"), ("direction", direction)];
        assert_eq!(page.value("golden_upgraded_bytes_total", &labels), 4.0);
    }
}

#[test]
fn a_websocket_of_http2_becomes_one_of_http1() {
    let backend = Backend::start(|peer| {
        let request = peer.read_head().unwrap();
        assert_eq!(request.one("upgrade").as_deref(), Some("websocket"));
        assert_eq!(request.one("sec-websocket-key").map(|key| key.len()), Some(24));
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        let word = peer.wire.read_exact(4).unwrap();
        peer.send(word);
    });
    let sidecar = Sidecar::start(&backend);
    h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        h2c::until("the settings came", || client.is_extended_connect_protocol_enabled()).await;
        let mut request = Request::builder().method("CONNECT").uri("http://a/chat").body(()).unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from("websocket"));
        let (response, mut send) = client.clone().ready().await.unwrap().send_request(request, false).unwrap();
        let (head, mut body) = response.await.unwrap().into_parts();
        assert_eq!(head.status.as_u16(), 200);
        send.send_data(Bytes::from_static(b"ping"), false).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "ping");
        send.send_data(Bytes::new(), true).unwrap();
        assert_eq!(read(&mut body).await.unwrap().0, b"");
    });
    let page = sidecar.page_when("the tunnel has ended", |page| {
        page.value("golden_upgraded_connections_opened_total", &[("protocol", "websocket")]) == 1.0
            && page.value("golden_upgraded_connections", &[("protocol", "websocket")]) == 0.0
    });
    assert_eq!(page.sum("golden_requests_total", &[]), 1.0);
}

/// Close, 1001, from a server.
const CLOSE: &[u8] = &[0x88, 2, 0x03, 0xe9];

/// Asks for a WebSocket.
async fn connect_websocket(sidecar: &Sidecar) -> (h2::SendStream<Bytes>, h2::RecvStream) {
    let client = h2c::connect(sidecar.proxy).await;
    h2c::until("the settings came", || client.is_extended_connect_protocol_enabled()).await;
    let mut request = Request::builder().method("CONNECT").uri("http://a/chat").body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from("websocket"));
    let (response, send) = client.clone().ready().await.unwrap().send_request(request, false).unwrap();
    let (head, body) = response.await.unwrap().into_parts();
    assert_eq!(head.status.as_u16(), 200);
    (send, body)
}

#[test]
fn a_drain_closes_the_websocket_of_an_http2_client() {
    let backend = Backend::start(|peer| {
        if peer.read_head().is_none() {
            return;
        }
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        peer.send([0x81, 1, b'a']);
        let close = peer.wire.read_exact(8).unwrap();
        assert_eq!((close[0], close[1], close[2] ^ close[6], close[3] ^ close[7]), (0x88, 0x82, 0x03, 0xe9));
        peer.send(CLOSE);
        peer.wait_end();
    });
    let mut sidecar = Sidecar::before(&backend).flag("--drain-grace", "0s").flag("--drain-timeout", "60s").start();
    h2c::run(async {
        let (mut send, mut body) = connect_websocket(&sidecar).await;
        assert_eq!(body.data().await.unwrap().unwrap(), [0x81, 1, b'a'].as_slice());
        sidecar.signal(libc::SIGTERM);
        assert_eq!(body.data().await.unwrap().unwrap(), CLOSE);
        // Its answer is not the sidecar's to pass on.
        send.send_data(Bytes::from_static(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]), false).unwrap();
        assert_eq!(read(&mut body).await.expect("an end, not a reset").0, b"");
        h2c::until("the process ends", || sidecar.try_exit().is_some()).await;
    });
    assert_eq!(sidecar.wait_exit(std::time::Duration::from_secs(1)).code(), Some(0));
    wait_until("the backend has its end", || backend.end(0).is_some());
}

#[test]
fn a_drain_closes_a_websocket_with_an_http2_backend() {
    let got = std::sync::Arc::new(std::sync::Mutex::new((Vec::new(), None)));
    let seen = std::sync::Arc::clone(&got);
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let backend = H2Backend::with(builder, move |request: Request<h2::RecvStream>, mut respond| {
        let seen = std::sync::Arc::clone(&seen);
        Box::pin(async move {
            if request.method() != "CONNECT" {
                return answer(respond, Response::builder().status(400).body(()).unwrap(), b"", None);
            }
            let mut body = request.into_body();
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            // Half a frame, the rest of which comes with the other half of the client's.
            send.send_data(Bytes::from_static(&[0x82, 4, 1, 2]), false).unwrap();
            loop {
                match body.data().await {
                    // The end of a stream is an empty piece, too.
                    Some(Ok(data)) if data.is_empty() => {}
                    Some(Ok(data)) => {
                        let _ = body.flow_control().release_capacity(data.len());
                        let mut seen = seen.lock().unwrap();
                        seen.0.extend_from_slice(&data);
                        if seen.0.len() == 8 {
                            send.send_data(Bytes::from_static(&[3, 4, 0x81, 1, b'x']), false).unwrap();
                        } else if seen.0.len() == 16 {
                            send.send_data(Bytes::from_static(CLOSE), true).unwrap();
                        }
                    }
                    end => break seen.lock().unwrap().1 = Some(end.is_none()),
                }
            }
        })
    });
    let mut sidecar =
        Sidecar::upstream(backend.url()).flag("--drain-grace", "0s").flag("--drain-timeout", "60s").start();
    assert_eq!(sidecar.get("/").status(), 400);
    let mut client = sidecar.client();
    client.send(UPGRADE).send([0x82, 0x82, 0, 0, 0, 0, b'h']);
    assert_eq!(client.read_head().status(), 101);
    assert_eq!(client.wire.read_exact(4).unwrap(), [0x82, 4, 1, 2]);
    wait_until("half a frame is at the backend", || got.lock().unwrap().0.len() == 7);
    sidecar.signal(libc::SIGTERM);
    wait_until("draining", || sidecar.scrape().get("golden_draining", &[]) == Some(1.0));
    assert_eq!(client.peek_for(std::time::Duration::from_millis(200)), b"");
    client.send(b"i");
    assert_eq!(client.wire.read_exact(6).unwrap(), [&[3, 4], CLOSE].concat());
    client.send([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]);
    client.expect_end();
    assert_eq!(sidecar.wait_exit(std::time::Duration::from_secs(5)).code(), Some(0));
    wait_until("the backend has its end", || got.lock().unwrap().1.is_some());
    let (bytes, ended) = got.lock().unwrap().clone();
    assert_eq!((bytes[7], bytes[8], bytes[9]), (b'i', 0x88, 0x82));
    assert_eq!((bytes.len(), bytes[10] ^ bytes[14], bytes[11] ^ bytes[15]), (16, 0x03, 0xe9));
    assert_eq!(ended, Some(true), "an end, not a reset");
}

#[test]
fn a_client_that_resets_its_stream_after_it_has_ended_its_side_is_noticed() {
    let gate = Gate::new();
    let stays = gate.clone();
    let backend = Backend::start(move |peer| {
        if peer.read_head().is_none() {
            return;
        }
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        // The half-close; and then it stays.
        peer.wait_end();
        stays.wait();
    });
    let sidecar = Sidecar::start(&backend);
    let open = |page: &common::Page| page.value("golden_upgraded_connections", &[("protocol", "websocket")]);
    h2c::run(async {
        let (mut send, body) = connect_websocket(&sidecar).await;
        send.send_data(Bytes::new(), true).unwrap();
        h2c::until("the backend sees the half-close", || backend.end(0).is_some()).await;
        assert_eq!(open(&sidecar.scrape()), 1.0, "its other side is open");
        drop((send, body));
        h2c::until("the tunnel has ended", || open(&sidecar.scrape()) == 0.0).await;
    });
    gate.open();
}

#[test]
fn no_protocol_of_a_connect_becomes_another_field_or_another_http() {
    let backend = Backend::always("never");
    let sidecar = Sidecar::start(&backend);
    h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        h2c::until("the settings came", || client.is_extended_connect_protocol_enabled()).await;
        for protocol in ["websocket\r\nX-Evil: 1", "h2c", "H2C-14", "a b", ""] {
            let mut request = Request::builder().method("CONNECT").uri("http://a/chat").body(()).unwrap();
            request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
            let (response, _send) = client.clone().ready().await.unwrap().send_request(request, false).unwrap();
            if let Ok(answer) = response.await {
                assert_eq!(answer.status().as_u16(), 400, "{protocol:?}");
            }
        }
    });
    assert_eq!(backend.connections(), 0);
}

// === floods ===

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection of HTTP/2 whose settings have been sent.
fn connected(sidecar: &Sidecar) -> TcpStream {
    let mut stream = TcpStream::connect(sidecar.proxy).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).unwrap();
    stream
}

#[test]
fn a_client_that_sends_pings_without_end_is_sent_away_and_counted() {
    let sidecar = Sidecar::start(&Backend::always("never"));
    let mut stream = connected(&sidecar);
    let mut answers = stream.try_clone().unwrap();
    // Whoever does not read the answers is stopped by the window of TCP, not by a count.
    let reading = std::thread::spawn(move || {
        let _ended = std::io::copy(&mut answers, &mut std::io::sink());
    });
    for _ in 0..5000 {
        if stream.write_all(&frame(6, 0, 0, &[0; 8])).is_err() {
            break;
        }
    }
    let flood = [("reason", "flood")];
    sidecar.page_when("the flood is counted", |page| {
        page.get("golden_server_connections_closed_total", &flood) == Some(1.0)
    });
    reading.join().unwrap();
}

#[test]
fn streams_that_are_reset_at_once_end_their_connection() {
    let gate = Gate::new();
    let held = gate.clone();
    let backend = Backend::start(move |peer| {
        let _ = peer.read_request();
        held.wait();
    });
    let sidecar = Sidecar::start(&backend);
    let mut stream = connected(&sidecar);
    let mut answers = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let _ended = std::io::copy(&mut answers, &mut std::io::sink());
    });
    // GET http://a/ by the static table.
    let head = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
    for id in (1..20_000).step_by(2) {
        let both = [frame(1, 0x5, id, &head), frame(3, 0, id, &8u32.to_be_bytes())].concat();
        if stream.write_all(&both).is_err() {
            break;
        }
    }
    let flood = [("reason", "flood")];
    sidecar.page_when("the flood is counted", |page| {
        page.get("golden_server_connections_closed_total", &flood) == Some(1.0)
    });
    reading.join().unwrap();
    gate.open();
}

#[test]
fn a_head_over_http2_that_drips_in_holds_a_connection_no_longer_than_silence() {
    let yaml = "timeouts:\n  client_idle: 300ms\n  client_head: 300ms\n";
    let sidecar = Sidecar::before(&Backend::always("never")).yaml(yaml).start();
    let mut stream = connected(&sidecar);
    // A HEADERS frame of 16,000 bytes, one at a time.
    let whole = frame(1, 0x1, 1, &[0; 16_000]);
    let mut bytes = whole.iter();
    wait_until("the connection is closed", || stream.write_all(&[*bytes.next().unwrap()]).is_err());
}

#[test]
fn a_backend_that_says_nothing_is_a_connect_that_failed() {
    let backend = Backend::on_accept(|peer| {
        let _ = peer.wait_end();
    });
    let yaml = "timeouts:\n  connect: 200ms\n";
    let sidecar = Sidecar::upstream(backend.url().replace("http:", "h2c:")).yaml(yaml).start();
    assert_eq!(sidecar.get("/").status(), 504);
    sidecar.expect(&[Outcome::proxy("GET", "504", ("connect_timeout", "backend", "connect"))]);
}

#[test]
fn a_call_that_the_backend_refuses_is_sent_again_with_its_body() {
    let refused = std::sync::atomic::AtomicBool::new(false);
    let backend = H2Backend::start(move |request, mut respond| {
        let first = !refused.swap(true, SeqCst);
        Box::pin(async move {
            let mut body = request.into_body();
            let Ok((content, _)) = read(&mut body).await else { return };
            if first {
                return respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
            answer(respond, Response::new(()), &content, Some(fields(&[("grpc-status", "0")])));
        })
    });
    let sidecar = Sidecar::upstream(backend.url()).start();
    h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        let (head, body, _) = h2c::exchange(&client, call("/pkg.Service/Echo"), Some(b"\0\0\0\0\x05hello")).await;
        assert_eq!((head.status().as_u16(), body.as_slice()), (200, &b"\0\0\0\0\x05hello"[..]));
    });
    let page = sidecar.settled(1);
    assert_eq!(page.value("golden_upstream_retries_total", &[("result", "success")]), 1.0);
    assert_eq!((page.sum("golden_errors_total", &[]), page.sum("golden_request_bytes_total", &[])), (0.0, 10.0));
}

#[test]
fn an_upgrade_that_is_required_reaches_a_client_that_cannot() {
    let backend = Backend::answering(|_| {
        b"HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: tls/1.3\r\nContent-Length: 0\r\n\r\n"
            .to_vec()
    });
    let sidecar = Sidecar::start(&backend);
    h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        let (head, _, _) = h2c::exchange(&client, h2c::request("GET", "/"), None).await;
        assert_eq!(head.status().as_u16(), 426);
    });
    sidecar.expect(&[Outcome::backend("GET", "426")]);
}

// --- what HTTP/2 goes over ---

/// Answers calls of gRPC with what they bring, the health check with SERVING, and `/metrics` and everything else.
fn everything(carrier: Carrier) -> H2Backend {
    H2Backend::over(carrier, h2::server::Builder::new(), |request, respond| {
        Box::pin(async move {
            let (parts, mut body) = request.into_parts();
            let Ok((content, _)) = read(&mut body).await else { return };
            let head = Response::builder();
            match (parts.uri.path(), parts.method.as_str()) {
                ("/grpc.health.v1.Health/Check", _) => {
                    let head = head.header("content-type", "application/grpc").body(()).unwrap();
                    answer(respond, head, b"\0\0\0\0\x02\x08\x01", Some(rpc("Check", "0")));
                }
                (_, "POST") => {
                    let head = head.header("content-type", "application/grpc").body(()).unwrap();
                    answer(respond, head, &content, Some(rpc("Echo", "0")));
                }
                ("/metrics", _) => answer(respond, head.body(()).unwrap(), b"app_jobs_total 3\n", None),
                (path, _) => {
                    let text = format!("{} {path}", parts.uri.scheme_str().unwrap_or_default());
                    answer(respond, head.body(()).unwrap(), text.as_bytes(), None);
                }
            }
        })
    })
}

/// Requests, a call of gRPC, probes by path and by gRPC health, and the backend's own metrics go the same way.
fn all_goes_over(backend: &H2Backend, scheme: &str, yaml: &str) {
    let soon = "readiness: {path: /ready, interval: 100ms}";
    let sidecar = Sidecar::upstream(backend.url()).yaml(format!("{soon}\n{yaml}")).start();
    wait_until("ready by its path", || sidecar.admin_get("/readyz", "").status() == 200);
    let mut client = sidecar.client();
    for _ in 0..3 {
        assert_eq!(client.get("/a").text(), format!("{scheme} /a"));
    }
    let message = b"\0\0\0\0\x05hello";
    h2c::run(async {
        let client = h2c::connect(sidecar.proxy).await;
        let (head, body, trailers) = h2c::exchange(&client, call("/pkg.Service/Echo"), Some(message)).await;
        assert_eq!((head.status().as_u16(), &body[..]), (200, &message[..]));
        assert_eq!(trailers.expect("trailers")["grpc-status"], "0");
    });
    let page = sidecar.admin_get("/metrics?include=backend", "").text();
    assert!(page.contains("\napp_jobs_total 3\n") && page.contains("\ngolden_backend_scrape_up 1\n"), "{page}");
    let page = sidecar.settled(4);
    assert_eq!(page.value("golden_upstream_connections_opened_total", &[]), 1.0, "one for all that is traffic");
    assert_eq!(page.sum("golden_errors_total", &[]), 0.0);
    let health = "readiness: {grpc: '*', interval: 100ms}";
    let sidecar = Sidecar::upstream(backend.url()).yaml(format!("{health}\n{yaml}")).start();
    wait_until("ready by its gRPC health", || sidecar.admin_get("/readyz", "").status() == 200);
}

#[test]
fn everything_goes_over_http2_with_prior_knowledge() {
    all_goes_over(&everything(Carrier::Tcp), "http", "");
}

#[test]
fn everything_goes_over_http2_on_a_socket_of_the_file_system() {
    let folder = tempfile::tempdir().unwrap();
    all_goes_over(&everything(Carrier::Unix(folder.path().join("app.sock"))), "http", "");
}

#[test]
fn everything_goes_over_http2_that_a_backend_chooses_under_tls_with_our_certificate() {
    let (authority, ours) = (Authority::new("issued the backend"), Authority::new("issued us"));
    let issued = authority.issue(&["localhost"], 1);
    let config = server_config(&issued, Some(&ours), &["h2", "http/1.1"]);
    let (certificate, key) = ours.keep("client", &ours.issue(&["sidecar"], 2));
    let trust = format!("ca: {}", authority.ca());
    let backend = everything(Carrier::Tls(config.into()));
    all_goes_over(&backend, "https", &format!("upstream_tls: {{{trust}, certificate: {certificate}, key: {key}}}"));
    // Who shows none gets nothing, and neither does a probe.
    let yaml = format!("upstream_tls: {{{trust}}}\nreadiness: {{path: /ready, interval: 100ms}}");
    let sidecar = Sidecar::upstream(backend.url()).yaml(yaml).start();
    assert_eq!(sidecar.get("/").status(), 502);
    assert_eq!(sidecar.admin_get("/readyz", "").status(), 503);
    let page = sidecar.admin_get("/metrics?include=backend", "").text();
    assert!(page.contains("\ngolden_backend_scrape_up 0\n"), "{page}");
}
