//! The demo's backend: a small HTTP/1.1 shop whose latency follows its load and whose checkout fails in bursts.
//!
//! | endpoint | behaviour when quiet |
//! |---|---|
//! | `GET /users`, `GET /users/{id}` | 2–8 ms; 404 for each 25th id and for what is not a number |
//! | `POST /orders` | 20–50 ms; 201, or 422 when the body is not JSON or its `quantity` is not at least 1 |
//! | `GET /orders/{id}` | 2–8 ms; 404 for each 50th id and for what is not a number |
//! | `GET /search?q=` | 20–250 ms with a long tail |
//! | `GET /reports/{id}` | 0.6–2.5 s, the last quarter second of it while the body flows |
//! | `PUT /uploads/{name}` | reads the body; 201 for a new name, 204 for one seen lately |
//! | `GET /events` | event stream, one event a second, closed after 30 (clients of such streams come again) |
//! | `GET /checkout/{id}` | 5–25 ms; every 20 s for 4 s 30–60 % answers 500 or 503, else 0.5 % |
//! | `GET /healthz` | 200 at once |
//! | `GET /db-pool` | how many database connections are taken, for the sidecar: no page of the shop |
//!
//! Orders and checkouts take one of a few database connections while they work. When all are taken they wait, and are
//! answered 503 when none becomes free in time: at the traffic's bursts some wait, and hardly ever one in vain.
//!
//! All waits are behaviour: they are what the demo has to show.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};

use super::UnderWay;
use super::pool::{self, Connections};
use super::random::Random;

/// Requests in flight at which a wait is twice as long as when quiet. The demo's users keep 1 to 12 in flight, so
/// latency visibly follows traffic without a collapse.
const BUSY_DOUBLING: f64 = 12.0;
/// Time from one burst of checkout errors to the next: three fall into a minute of the traffic's rhythm, off its beat.
const BURST_PERIOD: Duration = Duration::from_secs(20);
/// When in its period a burst starts: early, so that the first ten seconds of a demo hold errors.
const BURST_START: Duration = Duration::from_secs(4);
/// How long a burst lasts: several samples of a one-second chart.
const BURST_LENGTH: Duration = Duration::from_secs(4);
/// Share of failing checkouts outside bursts: errors are rare, not absent.
const QUIET_ERROR_SHARE: f64 = 0.005;
/// Largest order that is read. An order is some hundred bytes.
const ORDER_LIMIT_BYTES: usize = 64 * 1024;
/// Upload names remembered, for 201 or 204. Bounded, because clients choose the names.
const UPLOADS_REMEMBERED: usize = 64;
/// Events until the stream is closed: some viewers then see a complete end, others leave before.
const EVENTS_PER_STREAM: usize = 30;
/// Pause after a failed accept. Out of descriptors is the usual cause, and asking at once only burns the core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A body that is there at once, or one that flows piece by piece.
pub(super) type Answer = Response<Either<Full<Bytes>, Paced>>;

/// The state all connections share.
#[derive(Debug)]
pub(super) struct Backend {
    started: Instant,
    random: Random,
    /// Requests being answered, event streams and flowing bodies not included.
    busy: AtomicUsize,
    /// To the database, which orders and checkouts need.
    connections: Connections,
    uploads: Mutex<VecDeque<String>>,
}

/// A body of equal beats: one piece per tick until none is left.
#[derive(Debug)]
pub(super) struct Paced {
    beat: Interval,
    next: usize,
    count: usize,
    /// The piece with this number, from 0.
    piece: fn(usize) -> String,
}

/// Serves the shop on this listener until the future is dropped; all connections end with it.
pub async fn serve(listener: TcpListener) {
    serve_as(Arc::new(Backend::new()), listener).await;
}

/// As [`serve`], with the state given.
pub(super) async fn serve_as(backend: Arc<Backend>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => {
                    connections.spawn(serve_connection(backend.clone(), stream));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            // Reaps ended connections; disabled while there are none.
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one client connection until it closes. How it closed is the client's business: nothing is reported.
pub(super) async fn serve_connection(backend: Arc<Backend>, stream: TcpStream) {
    // Small answers go out at once; a socket that refuses this option still works.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let backend = backend.clone();
        async move { Ok::<_, Infallible>(backend.answer(request).await) }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// The share of checkouts that fail, this long after the start: 0.3 to 0.6 in a burst, else nearly none.
fn error_share(elapsed: Duration) -> f64 {
    let period = elapsed.as_secs_f64() / BURST_PERIOD.as_secs_f64();
    let into = period.fract() * BURST_PERIOD.as_secs_f64();
    let start = BURST_START.as_secs_f64();
    if (start..start + BURST_LENGTH.as_secs_f64()).contains(&into) {
        // Multiples of the golden ratio: each burst has its own height, spread evenly, the same in every run.
        0.3 + 0.3 * (period.floor() * 0.618_034).fract()
    } else {
        QUIET_ERROR_SHARE
    }
}

// === impl Backend ===

impl Backend {
    pub(super) fn new() -> Backend {
        Backend {
            started: Instant::now(),
            random: Random::seeded_by_time(),
            busy: AtomicUsize::new(0),
            connections: Connections::new(),
            uploads: Mutex::new(VecDeque::with_capacity(UPLOADS_REMEMBERED)),
        }
    }

    /// Answers one request as the table at the top says; other paths 404, other methods 405 with `Allow`.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let allowed = match segments[..] {
            ["users" | "search" | "events" | "healthz" | pool::PAGE] => "GET, HEAD",
            ["users" | "orders" | "reports" | "checkout", _] => "GET, HEAD",
            ["orders"] => "POST",
            ["uploads", _] => "PUT",
            _ => return refuse(StatusCode::NOT_FOUND, "no such page"),
        };
        if !allowed.split(", ").any(|method| method == request.method().as_str()) {
            let mut answer = refuse(StatusCode::METHOD_NOT_ALLOWED, "this page does not take this method");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return answer;
        }
        match segments[..] {
            ["healthz"] => return reply(StatusCode::OK, &json!({ "status": "ok" })),
            [pool::PAGE] => return reply(StatusCode::OK, &self.connections.report()),
            // A viewer is not work: it must not slow the others down.
            ["events"] => return events(),
            _ => {}
        }

        let _busy = UnderWay::enter(&self.busy);
        match segments[..] {
            ["users"] => self.users().await,
            ["users", id] => self.user(id).await,
            ["orders"] => self.place_order(request).await,
            ["orders", id] => self.order(id).await,
            ["search"] => self.search(request.uri().query()).await,
            ["reports", id] => self.report(id, request.method()).await,
            ["checkout", id] => self.checkout(id).await,
            ["uploads", name] => self.upload(name, request).await,
            _ => refuse(StatusCode::NOT_FOUND, "no such page"),
        }
    }

    /// Waits between `low` and `high` milliseconds, longer when others are being served too.
    async fn work(&self, low: f64, high: f64) {
        let others = self.busy.load(Ordering::Relaxed).saturating_sub(1) as f64;
        let wait_ms = self.random.between(low, high) * (1.0 + others / BUSY_DOUBLING);
        sleep(Duration::from_secs_f64(wait_ms / 1000.0)).await;
    }

    /// The same with a database connection; whether there was one in time.
    async fn work_with_connection(&self, low: f64, high: f64) -> bool {
        let Some(_connection) = self.connections.take().await else { return false };
        self.work(low, high).await;
        true
    }

    async fn users(&self) -> Answer {
        self.work(2.0, 8.0).await;
        let users: Vec<Value> = (1..=20).map(|id| json!({ "id": id, "name": format!("user {id}") })).collect();
        reply(StatusCode::OK, &json!({ "users": users }))
    }

    async fn user(&self, id: &str) -> Answer {
        self.work(2.0, 8.0).await;
        match id.parse::<u64>() {
            Ok(id) if !id.is_multiple_of(25) => {
                reply(StatusCode::OK, &json!({ "id": id, "name": format!("user {id}") }))
            }
            _ => refuse(StatusCode::NOT_FOUND, "no such user"),
        }
    }

    async fn place_order(&self, request: Request<Incoming>) -> Answer {
        let Ok(body) = Limited::new(request.into_body(), ORDER_LIMIT_BYTES).collect().await else {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "an order has at most 64 KiB");
        };
        if !self.work_with_connection(20.0, 50.0).await {
            return no_connection();
        }
        let order: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        let Some(quantity) = order["quantity"].as_u64().filter(|quantity| *quantity >= 1) else {
            return refuse(StatusCode::UNPROCESSABLE_ENTITY, "quantity: expected a whole number of at least 1");
        };
        let id = 1 + self.random.below(100_000);
        let mut answer = reply(StatusCode::CREATED, &json!({ "id": id, "quantity": quantity }));
        if let Ok(location) = HeaderValue::try_from(format!("/orders/{id}")) {
            answer.headers_mut().insert(LOCATION, location);
        }
        answer
    }

    async fn order(&self, id: &str) -> Answer {
        if !self.work_with_connection(2.0, 8.0).await {
            return no_connection();
        }
        match id.parse::<u64>() {
            Ok(id) if !id.is_multiple_of(50) => reply(StatusCode::OK, &json!({ "id": id, "quantity": 1 + id % 5 })),
            _ => refuse(StatusCode::NOT_FOUND, "no such order"),
        }
    }

    async fn search(&self, query: Option<&str>) -> Answer {
        // The fourth power: half of the searches end within 35 ms, one in ten takes more than 170.
        let tail_ms = 20.0 + 230.0 * self.random.unit().powi(4);
        self.work(tail_ms, tail_ms).await;
        let wanted = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("q="))).unwrap_or("");
        let hits: Vec<String> = (1..=wanted.len() % 10).map(|hit| format!("/users/{hit}")).collect();
        reply(StatusCode::OK, &json!({ "q": wanted, "hits": hits }))
    }

    async fn report(&self, id: &str, method: &Method) -> Answer {
        /// Pieces of a report's body, and the time between two: long enough for a client to leave between them.
        const PIECES: usize = 5;
        const BEAT: Duration = Duration::from_millis(60);

        // A report is bound by itself, not by its neighbours, so its wait does not stretch. With the body 0.6 to 2.5 s.
        sleep(Duration::from_secs_f64(self.random.between(0.36, 2.2))).await;
        if id.parse::<u64>().is_err() {
            return refuse(StatusCode::NOT_FOUND, "no such report");
        }
        if method == Method::HEAD {
            return reply(StatusCode::OK, &Value::Null);
        }
        // Four pieces of rows and a last one that closes the document: 5 × 60 ms, the first at once.
        let body = Paced::new(BEAT, PIECES, |number| {
            let rows: String = (0..40).map(|row| format!("[{number},{row},{}],", row * 17 % 101)).collect();
            match number {
                0 => format!("{{\"rows\":[{rows}"),
                last if last == PIECES - 1 => "[]]}".to_owned(),
                _ => rows,
            }
        });
        let mut answer = Response::new(Either::Right(body));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }

    async fn checkout(&self, id: &str) -> Answer {
        if !self.work_with_connection(5.0, 25.0).await {
            return no_connection();
        }
        if !self.random.chance(error_share(self.started.elapsed())) {
            return reply(StatusCode::OK, &json!({ "order": id, "paid": true }));
        }
        if self.random.chance(0.5) {
            return refuse(StatusCode::INTERNAL_SERVER_ERROR, "payment failed");
        }
        let mut answer = refuse(StatusCode::SERVICE_UNAVAILABLE, "payment provider is busy");
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
        answer
    }

    async fn upload(&self, name: &str, request: Request<Incoming>) -> Answer {
        let mut body = request.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
                // The client left; nobody will read this answer.
                Err(_) => return refuse(StatusCode::BAD_REQUEST, "the body is incomplete"),
            }
        }
        self.work(5.0, 15.0).await;
        if self.remember(name) {
            reply(StatusCode::CREATED, &json!({ "name": name, "bytes": bytes }))
        } else {
            let mut answer = Response::new(Either::Left(Full::default()));
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer
        }
    }

    /// Notes an upload's name; whether it was new.
    fn remember(&self, name: &str) -> bool {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        if uploads.iter().any(|known| known == name) {
            return false;
        }
        if uploads.len() == UPLOADS_REMEMBERED {
            uploads.pop_front();
        }
        uploads.push_back(name.to_owned());
        true
    }
}

fn events() -> Answer {
    let body = Paced::new(Duration::from_secs(1), EVENTS_PER_STREAM, |number| {
        format!("id: {number}\nevent: tick\ndata: {{\"tick\":{number}}}\n\n")
    });
    let mut answer = Response::new(Either::Right(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn reply(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(body.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn no_connection() -> Answer {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "no database connection became free in time")
}

fn refuse(status: StatusCode, why: &str) -> Answer {
    reply(status, &json!({ "error": why }))
}

// === impl Paced ===

impl Paced {
    fn new(beat: Duration, count: usize, piece: fn(usize) -> String) -> Paced {
        let mut beat = interval_at(Instant::now(), beat);
        // A reader that was slow gets the next piece a full beat later, not a heap of them at once.
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Paced { beat, next: 0, count, piece }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.next == self.count {
            return Poll::Ready(None);
        }
        ready!(self.beat.poll_tick(cx));
        let piece = (self.piece)(self.next);
        self.next += 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.next == self.count
    }
}

#[cfg(test)]
mod tests {
    use super::super::traffic::{Client, request};
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::time::timeout;

    /// Far above any wait of the backend, far below a person's patience.
    const DEADLINE: Duration = Duration::from_secs(20);

    /// A backend on a free port that has been running for `age`, and a client of it.
    async fn shop(age: Duration) -> (Arc<Backend>, Client) {
        let backend = Arc::new(Backend { started: Instant::now() - age, ..Backend::new() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(listener.local_addr().unwrap(), "test");
        tokio::spawn(serve_as(backend.clone(), listener));
        (backend, client)
    }

    /// One exchange: status and whole body.
    async fn ask(client: &mut Client, method: Method, path: &str, body: impl Into<Bytes>) -> (u16, String) {
        let exchange = async {
            let answer = client.send(request(method, path, body.into())).await.unwrap();
            let status = answer.status().as_u16();
            (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
        };
        timeout(DEADLINE, exchange).await.unwrap()
    }

    async fn get(client: &mut Client, path: &str) -> (u16, String) {
        ask(client, Method::GET, path, "").await
    }

    #[tokio::test]
    async fn users_and_orders_are_found_by_number_and_some_are_missing() {
        let (_, mut client) = shop(Duration::ZERO).await;
        assert_eq!(get(&mut client, "/users/42").await, (200, r#"{"id":42,"name":"user 42"}"#.to_owned()));
        assert_eq!(get(&mut client, "/users/75").await, (404, r#"{"error":"no such user"}"#.to_owned()));
        assert_eq!(get(&mut client, "/users/me").await.0, 404);
        assert_eq!(get(&mut client, "/orders/7").await, (200, r#"{"id":7,"quantity":3}"#.to_owned()));
        assert_eq!(get(&mut client, "/orders/100").await.0, 404);
        let (status, body) = get(&mut client, "/users").await;
        assert_eq!(
            (status, serde_json::from_str::<Value>(&body).unwrap()["users"].as_array().unwrap().len()),
            (200, 20)
        );
    }

    #[tokio::test]
    async fn orders_with_a_quantity_are_created_and_others_refused() {
        let (_, mut client) = shop(Duration::ZERO).await;
        let answer = client.send(request(Method::POST, "/orders", r#"{"quantity":3}"#.into())).await.unwrap();
        assert_eq!(answer.status(), 201);
        assert!(answer.headers()[LOCATION].to_str().unwrap().starts_with("/orders/"));
        let body: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(body["quantity"], 3);
        for bad in [r#"{"quantity":0}"#, r#"{"quantity":"2"}"#, "not json", ""] {
            assert_eq!(ask(&mut client, Method::POST, "/orders", bad).await.0, 422, "{bad}");
        }
        assert_eq!(ask(&mut client, Method::POST, "/orders", vec![b' '; ORDER_LIMIT_BYTES + 1]).await.0, 413);
    }

    #[tokio::test]
    async fn orders_and_checkouts_are_refused_while_no_connection_becomes_free() {
        let (backend, mut client) = shop(Duration::ZERO).await;
        let mut taken = Vec::new();
        while backend.connections.report()["idle"] != 0 {
            taken.push(backend.connections.take().await.unwrap());
        }
        assert_eq!(ask(&mut client, Method::POST, "/orders", r#"{"quantity":3}"#).await.0, 503);
        for path in ["/orders/7", "/checkout/7"] {
            let (status, body) = get(&mut client, path).await;
            assert!(status == 503 && body.contains("no database connection"), "{path}: {status} {body}");
        }
        assert_eq!(get(&mut client, "/users/42").await.0, 200);
        assert_eq!(backend.connections.report()["timeouts"], 3);
        drop(taken);
        assert_eq!(get(&mut client, "/orders/7").await.0, 200);
    }

    #[tokio::test]
    async fn search_answers_after_its_shortest_wait_with_the_words_sought() {
        let (_, mut client) = shop(Duration::ZERO).await;
        let before = Instant::now();
        let (status, body) = get(&mut client, "/search?page=1&q=tea").await;
        assert!(before.elapsed() >= Duration::from_millis(20), "took {:?}", before.elapsed());
        assert_eq!((status, &serde_json::from_str::<Value>(&body).unwrap()["q"]), (200, &json!("tea")));
    }

    #[tokio::test]
    async fn report_is_slow_and_flows_in_pieces_into_one_document() {
        let (_, mut client) = shop(Duration::ZERO).await;
        let before = Instant::now();
        let (status, body) = get(&mut client, "/reports/3").await;
        assert!(before.elapsed() >= Duration::from_millis(600), "took {:?}", before.elapsed());
        let rows = serde_json::from_str::<Value>(&body).unwrap()["rows"].as_array().unwrap().len();
        assert_eq!((status, rows), (200, 4 * 40 + 1));
        assert_eq!(ask(&mut client, Method::HEAD, "/reports/3", "").await, (200, String::new()));
    }

    #[tokio::test]
    async fn upload_is_created_once_and_then_replaced() {
        let (_, mut client) = shop(Duration::ZERO).await;
        let body = vec![b'x'; 1 << 20];
        let created = ask(&mut client, Method::PUT, "/uploads/a", body.clone()).await;
        assert_eq!(created, (201, r#"{"bytes":1048576,"name":"a"}"#.to_owned()));
        assert_eq!(ask(&mut client, Method::PUT, "/uploads/a", body).await, (204, String::new()));
    }

    #[test]
    fn upload_names_are_forgotten_oldest_first_at_the_limit() {
        let backend = Backend::new();
        for number in 0..=UPLOADS_REMEMBERED {
            assert!(backend.remember(&number.to_string()));
        }
        assert_eq!(backend.uploads.lock().unwrap().len(), UPLOADS_REMEMBERED);
        assert!(!backend.remember("1"));
        assert!(backend.remember("0"));
    }

    #[tokio::test]
    async fn events_come_one_a_second() {
        let (_, mut client) = shop(Duration::ZERO).await;
        let answer = client.send(request(Method::GET, "/events", Bytes::new())).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[CONTENT_TYPE]),
            (200, &HeaderValue::from_static("text/event-stream"))
        );
        let mut body = answer.into_body();
        let before = Instant::now();
        for number in 0..2 {
            let frame = timeout(DEADLINE, body.frame()).await.unwrap().unwrap().unwrap();
            let expected = format!("id: {number}\nevent: tick\ndata: {{\"tick\":{number}}}\n\n");
            assert_eq!(frame.into_data().unwrap(), expected);
        }
        assert!(before.elapsed() >= Duration::from_millis(900), "took {:?}", before.elapsed());
    }

    #[tokio::test]
    async fn checkout_fails_in_a_burst_and_hardly_ever_outside() {
        let (_, mut client) = shop(BURST_PERIOD * 3 + BURST_START).await;
        let mut seen = Vec::new();
        // The burst lasts 4 s and an answer takes at most 25 ms: 60 of them fall well inside.
        for id in 0..60 {
            seen.push(get(&mut client, &format!("/checkout/{id}")).await.0);
        }
        for status in [200, 500, 503] {
            assert!(seen.contains(&status), "no {status} in {seen:?}");
        }
        let (_, mut client) = shop(BURST_PERIOD + BURST_START + BURST_LENGTH).await;
        let mut failed = 0;
        for id in 0..60 {
            failed += u32::from(get(&mut client, &format!("/checkout/{id}")).await.0 != 200);
        }
        assert!(failed <= 6, "{failed} of 60 failed in a quiet time");
    }

    #[test]
    fn every_burst_lasts_four_of_twenty_seconds_and_fails_a_third_to_two_thirds() {
        for period in 0..50_u64 {
            let share = |second: f64| error_share(Duration::from_secs_f64(period as f64 * 20.0 + second));
            for quiet in [0.0, 3.9, 8.1, 19.9] {
                assert!((share(quiet) - QUIET_ERROR_SHARE).abs() < 1e-9, "period {period}, second {quiet}");
            }
            for burst in [4.1, 6.0, 7.9] {
                assert!((0.3..=0.6).contains(&share(burst)), "period {period}, second {burst}");
            }
        }
    }

    #[tokio::test]
    async fn health_is_ok_the_pool_is_told_and_strange_paths_and_methods_are_refused() {
        let (backend, mut client) = shop(Duration::ZERO).await;
        assert_eq!(get(&mut client, "/healthz").await, (200, r#"{"status":"ok"}"#.to_owned()));
        let pool = get(&mut client, &format!("/{}", pool::PAGE)).await;
        assert_eq!(pool, (200, backend.connections.report().to_string()));
        for path in ["/", "/nothing", "/users/1/2", "/uploads", "//users"] {
            assert_eq!(get(&mut client, path).await.0, 404, "{path}");
        }
        let answer = client.send(request(Method::DELETE, "/users/1", Bytes::new())).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()[ALLOW]), (405, &HeaderValue::from_static("GET, HEAD")));
    }

    #[tokio::test]
    async fn client_that_leaves_in_the_middle_frees_its_place() {
        let backend = Arc::new(Backend::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tokio::spawn(serve_as(backend.clone(), listener));
        // An upload that never gets its last byte: only leaving can end it.
        client.write_all(b"PUT /uploads/a HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nx").await.unwrap();
        timeout(DEADLINE, until(|| backend.busy.load(Ordering::Relaxed) == 1)).await.unwrap();
        drop(client);
        timeout(DEADLINE, until(|| backend.busy.load(Ordering::Relaxed) == 0)).await.unwrap();
    }

    /// Lets the other tasks run until the condition holds; the caller sets the deadline.
    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::task::yield_now().await;
        }
    }
}
