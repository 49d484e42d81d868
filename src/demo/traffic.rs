//! The demo's traffic: users with a visible rhythm, and the other folk that a real service meets.
//!
//! | who | connections | what |
//! |---|---|---|
//! | users | 16, kept alive | a mix of all pages; arrivals follow [`rate`] whatever the answers take |
//! | viewers | 4 | watch `/events` for some seconds, leave, come again |
//! | impatient | 2 | ask for a report and leave before the head or in the middle of the body |
//! | scanner | 1 | asks every few seconds for paths that do not exist |
//! | prober | 1 | `GET /healthz` every 2 s as `kube-probe/1.30`, each time on a new connection |
//!
//! So there are never more than 24 connections at a time. An arrival that finds all users busy is dropped.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::UnderWay;
use super::random::Random;

/// Users, hence the most requests they have in flight. 120 requests/s of 50 ms need 6, a burst 10; the rest is room
/// for some slow reports at once.
const USERS: usize = 16;
/// Viewers of the event stream: enough that one of them is nearly always there.
const VIEWERS: usize = 4;
/// Clients that leave early, one before the head, one in the body.
const IMPATIENT: usize = 2;
/// How long a user waits for an answer before he gives up. Four times the slowest report.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection attempt may take: on loopback only a full accept queue makes it slow.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Pause after a failure, so that a proxy that is down is not hammered; 16 users then try 80 times a second.
const FAILURE_PAUSE: Duration = Duration::from_millis(200);
/// Time of the rhythm's wave. Slow enough to see on a chart of minutes, fast enough to see in a terminal.
const WAVE: Duration = Duration::from_secs(60);
/// Slowest and fastest arrivals of the wave, requests per second.
const RATE_LOW: f64 = 20.0;
const RATE_HIGH: f64 = 120.0;
/// Arrivals added by a burst, requests per second.
const RATE_BURST: f64 = 80.0;
/// Bursts come this often, begin so long into their period, and last so long. The first falls into the first ten
/// seconds; 25 s against 60 s moves them along the wave.
const BURST_PERIOD: Duration = Duration::from_secs(25);
const BURST_START: Duration = Duration::from_secs(6);
const BURST_LENGTH: Duration = Duration::from_secs(3);
/// Share of the users' requests that are traced: a usual sampling rate, and some exemplars on each chart.
const TRACED: f64 = 0.05;
/// Smallest and largest upload, bytes: 64 KiB to 2 MiB, small ones more often.
const UPLOAD_MIN_BYTES: usize = 64 * 1024;
const UPLOAD_MAX_BYTES: usize = 2 * 1024 * 1024;
/// Durations kept between two summaries. 5 s at the highest rate are 1000; more would be forgotten, not stored.
const DURATIONS_KEPT: usize = 8192;
/// What the scanner looks for, as real ones do.
const SCANNED: [&str; 6] = ["/wp-login.php", "/.env", "/.git/config", "/phpmyadmin/", "/admin/login", "/cgi-bin/luci"];

/// A page that users ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    User,
    Users,
    PlaceOrder,
    Order,
    Search,
    Report,
    Upload,
    Checkout,
}

/// How often each page is asked for, of 1000. The mean wait of this mix is about 50 ms, most of it reports.
const MIX: [(Page, usize); 8] = [
    (Page::User, 372),
    (Page::Users, 80),
    (Page::PlaceOrder, 130),
    (Page::Order, 130),
    (Page::Search, 120),
    (Page::Report, 20),
    (Page::Upload, 18),
    (Page::Checkout, 130),
];

/// What the generator saw; written by the traffic, read by [`Tally::summary`]. Independent of the sidecar's numbers.
#[derive(Debug, Default)]
pub struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
    in_flight: AtomicUsize,
    streams: AtomicUsize,
    /// Durations of finished requests since the last summary, microseconds; at most `DURATIONS_KEPT`.
    durations_us: Mutex<Vec<u32>>,
}

/// The time since the last summary in one line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Finished requests per second; event streams and the impatient, who never finish, not included.
    pub requests_per_second: f64,
    /// Share of them that got a 5xx or no answer, 0 to 1.
    pub error_ratio: f64,
    /// Half of the answers were there after this time.
    pub median: Duration,
    /// 95 of 100 answers were there after this time.
    pub p95: Duration,
    /// Requests in flight now, event streams not included.
    pub in_flight: usize,
    /// Event streams being watched now.
    pub streams: usize,
}

/// One client with at most one connection: made when needed, kept while it works, made anew when it broke.
/// Dropping it closes the connection, also in the middle of an exchange.
#[derive(Debug)]
pub(super) struct Client {
    proxy: SocketAddr,
    agent: HeaderValue,
    connection: Option<Connection>,
}

/// A connection and the task that drives it, which ends with it.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

/// Why an exchange failed. Only that it failed is counted; the cause is for whoever debugs.
type Failure = Box<dyn Error + Send + Sync>;

/// Sends traffic to the proxy until `until` is done, then closes all connections and returns. Connection errors are
/// counted in the tally and overcome by connecting again.
pub async fn run(proxy: SocketAddr, tally: Arc<Tally>, until: impl Future<Output = ()>) {
    let random = Arc::new(Random::seeded_by_time());
    let mut folk = JoinSet::new();
    folk.spawn(users(proxy, tally.clone(), random.clone()));
    for _ in 0..VIEWERS {
        folk.spawn(viewer(proxy, tally.clone(), random.clone()));
    }
    for _ in 0..IMPATIENT {
        folk.spawn(impatient(proxy, random.clone()));
    }
    folk.spawn(scanner(proxy, tally.clone(), random));
    folk.spawn(prober(proxy, tally));
    until.await;
    folk.shutdown().await;
}

/// Arrivals of users per second, this long after the start: a wave between 20 and 120 that begins in its middle and
/// rises, plus 80 during bursts.
#[must_use]
pub fn rate(elapsed: Duration) -> f64 {
    let angle = elapsed.as_secs_f64() / WAVE.as_secs_f64() * std::f64::consts::TAU;
    let wave = RATE_LOW + (RATE_HIGH - RATE_LOW) * (1.0 + angle.sin()) / 2.0;
    let into = elapsed.as_secs_f64() % BURST_PERIOD.as_secs_f64();
    let start = BURST_START.as_secs_f64();
    let burst = (start..start + BURST_LENGTH.as_secs_f64()).contains(&into);
    wave + if burst { RATE_BURST } else { 0.0 }
}

/// A request as all clients here make it, without `Host` and `User-Agent`.
pub(super) fn request(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    // Paths come from this room only; one that does not parse would show as a flood of requests to `/`.
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

/// Makes it part of a sampled trace (W3C Trace Context), so that there are exemplars to look at.
fn trace(request: &mut Request<Full<Bytes>>, random: &Random) {
    // All zeros would be no trace.
    let [a, b, c] = std::array::from_fn(|_| random.bits() | 1);
    if let Ok(value) = HeaderValue::try_from(format!("00-{a:016x}{b:016x}-{c:016x}-01")) {
        request.headers_mut().insert("traceparent", value);
    }
}

/// Arrivals by the rhythm, each served by the user that was free last: the fewer are needed, the more stay idle.
async fn users(proxy: SocketAddr, tally: Arc<Tally>, random: Arc<Random>) {
    let filler = Bytes::from(vec![b'x'; UPLOAD_MAX_BYTES]);
    let mut free: Vec<Client> = (0..USERS).map(|_| Client::new(proxy, "demo-user/1.0")).collect();
    let mut busy = JoinSet::new();
    // The first arrivals ask for each page once, so that every route has numbers from the first second on.
    let mut tour = MIX.iter().map(|(page, _)| *page);
    let started = Instant::now();
    let mut next = started;
    loop {
        tokio::select! {
            Some(done) = busy.join_next() => {
                // A user lost to a panic is replaced: fifteen users would be a quiet lie.
                free.push(done.unwrap_or_else(|_| Client::new(proxy, "demo-user/1.0")));
            }
            () = sleep_until(next) => {
                let gap = Duration::from_secs_f64(random.between(0.5, 1.5) / rate(started.elapsed()));
                // After a stall (a suspended machine) go on from now instead of catching up in one heap.
                next = (next + gap).max(Instant::now() - Duration::from_millis(100));
                let Some(mut client) = free.pop() else { continue };
                let page = tour.next().unwrap_or_else(|| pick(&random));
                let mut request = page.request(&random, &filler);
                if random.chance(TRACED) {
                    trace(&mut request, &random);
                }
                let tally = tally.clone();
                busy.spawn(async move {
                    if tally.watch(timeout(PATIENCE, client.exchange(request))).await.is_none() {
                        client.connection = None;
                        sleep(FAILURE_PAUSE).await;
                    }
                    client
                });
            }
        }
    }
}

/// Watches the event stream, leaves after 3 to 45 s (the backend closes after 30), comes again.
async fn viewer(proxy: SocketAddr, tally: Arc<Tally>, random: Arc<Random>) {
    loop {
        // Not all at once, and not all there all the time.
        sleep(Duration::from_secs_f64(random.between(0.1, 6.0))).await;
        let stay = Duration::from_secs_f64(random.between(3.0, 45.0));
        let watch = async {
            let mut client = Client::new(proxy, "demo-viewer/1.0");
            let mut request = request(Method::GET, "/events", Bytes::new());
            request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
            let mut body = client.send(request).await?.into_body();
            let _watching = UnderWay::enter(&tally.streams);
            while let Some(event) = body.frame().await {
                event?;
            }
            Ok::<(), Failure>(())
        };
        // Leaving drops the client and with it the connection.
        let _ = timeout(stay, watch).await;
    }
}

/// Asks for a report and leaves: after some 100 ms, when no head is there yet, or on the first piece of the body.
async fn impatient(proxy: SocketAddr, random: Arc<Random>) {
    loop {
        sleep(Duration::from_secs_f64(random.between(0.5, 3.0))).await;
        let before_head = random.chance(0.5);
        let patience = if before_head { Duration::from_millis(100 + random.below(200) as u64) } else { PATIENCE };
        let path = format!("/reports/{}", 1 + random.below(1000));
        let ask = async {
            let mut client = Client::new(proxy, "demo-impatient/1.0");
            let mut body = client.send(request(Method::GET, &path, Bytes::new())).await?.into_body();
            let _first = body.frame().await;
            Ok::<(), Failure>(())
        };
        let _ = timeout(patience, ask).await;
    }
}

/// Looks for holes now and then: paths that nobody declared, some never the same twice.
async fn scanner(proxy: SocketAddr, tally: Arc<Tally>, random: Arc<Random>) {
    let mut client = Client::new(proxy, "demo-scanner/1.0");
    loop {
        sleep(Duration::from_secs_f64(random.between(1.0, 4.0))).await;
        for _ in 0..1 + random.below(4) {
            let path = match random.below(SCANNED.len() + 2) {
                known if known < SCANNED.len() => SCANNED[known].to_owned(),
                _ => format!("/backup-{:08x}.zip", random.bits() >> 32),
            };
            let looked = client.exchange(request(Method::GET, &path, Bytes::new()));
            if tally.watch(timeout(PATIENCE, looked)).await.is_none() {
                client.connection = None;
            }
        }
    }
}

/// Asks for the health as a kubelet does: every 2 s, on a new connection each time.
async fn prober(proxy: SocketAddr, tally: Arc<Tally>) {
    loop {
        let mut client = Client::new(proxy, "kube-probe/1.30");
        let asked = client.exchange(request(Method::GET, "/healthz", Bytes::new()));
        let _ = tally.watch(timeout(PATIENCE, asked)).await;
        drop(client);
        sleep(Duration::from_secs(2)).await;
    }
}

/// A page by the weights of the mix.
fn pick(random: &Random) -> Page {
    let mut draw = random.below(MIX.iter().map(|(_, weight)| weight).sum());
    for (page, weight) in MIX {
        if draw < weight {
            return page;
        }
        draw -= weight;
    }
    MIX[0].0
}

// === impl Page ===

impl Page {
    /// A request for this page; `filler` holds the bytes of uploads, at least `UPLOAD_MAX_BYTES`.
    fn request(self, random: &Random, filler: &Bytes) -> Request<Full<Bytes>> {
        let id = 1 + random.below(1000);
        let get = |path: String| request(Method::GET, &path, Bytes::new());
        match self {
            Page::User => get(format!("/users/{id}")),
            Page::Users => get("/users".to_owned()),
            Page::Order => get(format!("/orders/{id}")),
            Page::Search => {
                get(format!("/search?q={}", ["tea", "kettle", "cup", "sugar bowl"][id % 4].replace(' ', "+")))
            }
            Page::Report => get(format!("/reports/{id}")),
            Page::Checkout => get(format!("/checkout/{id}")),
            Page::PlaceOrder => {
                // One in a hundred forgets the quantity, which the backend refuses with 422.
                let quantity = if random.chance(0.01) { 0 } else { 1 + id % 5 };
                let body = format!("{{\"item\":{id},\"quantity\":{quantity}}}");
                let mut order = request(Method::POST, "/orders", Bytes::from(body));
                order.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                order
            }
            Page::Upload => {
                let span = (UPLOAD_MAX_BYTES / UPLOAD_MIN_BYTES) as f64;
                let bytes = (UPLOAD_MIN_BYTES as f64 * span.powf(random.unit())) as usize;
                let name = format!("/uploads/photo-{}.jpg", random.below(200));
                request(Method::PUT, &name, filler.slice(..bytes.min(filler.len())))
            }
        }
    }
}

// === impl Tally ===

impl Tally {
    /// Counts one exchange; its status, or `None` when there was no whole answer in time.
    async fn watch<E>(
        &self,
        exchange: impl Future<Output = Result<Result<StatusCode, Failure>, E>>,
    ) -> Option<StatusCode> {
        let before = Instant::now();
        let status = {
            let _under_way = UnderWay::enter(&self.in_flight);
            exchange.await.ok().and_then(Result::ok)
        };
        self.requests.fetch_add(1, Ordering::Relaxed);
        if status.is_none_or(|status| status.is_server_error()) {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        let mut durations = self.durations_us.lock().unwrap_or_else(PoisonError::into_inner);
        if durations.len() < DURATIONS_KEPT {
            durations.push(u32::try_from(before.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        status
    }

    /// What happened since the last call, which was `since` ago, and starts anew.
    pub fn summary(&self, since: Duration) -> Summary {
        let requests = self.requests.swap(0, Ordering::Relaxed) as f64;
        let errors = self.errors.swap(0, Ordering::Relaxed) as f64;
        let mut durations = std::mem::take(&mut *self.durations_us.lock().unwrap_or_else(PoisonError::into_inner));
        durations.sort_unstable();
        // Nearest rank; zero when nothing finished.
        let quantile = |share: f64| {
            let rank = (durations.len() as f64 * share).ceil() as usize;
            Duration::from_micros(durations.get(rank.saturating_sub(1)).copied().unwrap_or(0).into())
        };
        Summary {
            requests_per_second: requests / since.as_secs_f64().max(f64::MIN_POSITIVE),
            error_ratio: errors / requests.max(1.0),
            median: quantile(0.5),
            p95: quantile(0.95),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            streams: self.streams.load(Ordering::Relaxed),
        }
    }
}

// === impl Summary ===

impl fmt::Display for Summary {
    /// One line of at most 100 columns, with a bar whose length is the traffic.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One mark per 10 requests/s: the wave and its bursts fit into 20 marks.
        let bar = "#".repeat(((self.requests_per_second / 10.0).round() as usize).min(20));
        write!(
            f,
            "{:6.1} req/s {bar:<20}  errors {:4.1} %  median {:4} ms  p95 {:5} ms  in flight {:2} + {} streams",
            self.requests_per_second,
            self.error_ratio * 100.0,
            self.median.as_millis(),
            self.p95.as_millis(),
            self.in_flight,
            self.streams
        )
    }
}

// === impl Client ===

impl Client {
    /// A client of this address with this `User-Agent`, not yet connected.
    pub(super) fn new(proxy: SocketAddr, agent: &'static str) -> Client {
        Client { proxy, agent: HeaderValue::from_static(agent), connection: None }
    }

    /// Sends a request, connecting first where needed, and returns the answer's head with the body to come.
    /// Fails with the cause of a refused, slow or broken connection; the next call connects anew.
    pub(super) async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        request.headers_mut().insert(HOST, HeaderValue::try_from(self.proxy.to_string())?);
        request.headers_mut().insert(USER_AGENT, self.agent.clone());
        // Taken out and put back only when it worked, so that a broken or abandoned one is closed.
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.sender.is_closed() => connection,
            _ => timeout(CONNECT_LIMIT, Connection::open(self.proxy)).await??,
        };
        connection.sender.ready().await?;
        let response = connection.sender.send_request(request).await?;
        self.connection = Some(connection);
        Ok(response)
    }

    /// One whole exchange: the status, once the body was read to its end and thrown away.
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<StatusCode, Failure> {
        let response = self.send(request).await?;
        let status = response.status();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(status)
    }
}

// === impl Connection ===

impl Connection {
    async fn open(proxy: SocketAddr) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(proxy).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // The sender hears of its failure too.
            let _ = connection.await;
        });
        Ok(Connection { sender, _driver: driver })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::{oneshot, watch};

    use super::super::backend::Backend;
    use super::*;

    /// Far above what any of these tests needs.
    const DEADLINE: Duration = Duration::from_secs(30);

    /// What a backend saw of its clients.
    #[derive(Clone, Debug, Default)]
    struct Seen {
        /// Method, first path segment and user agent of each request.
        requests: BTreeSet<(String, String, String)>,
        answers: BTreeSet<u16>,
        open: usize,
        open_max: usize,
        accepted: usize,
    }

    /// The demo's backend, observed: closes the first `refused` connections unanswered.
    async fn observed(refused: usize) -> (SocketAddr, watch::Receiver<Seen>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, receiver) = watch::channel(Seen::default());
        let (seen, backend) = (Arc::new(seen), Arc::new(Backend::new()));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                seen.send_modify(|seen| seen.accepted += 1);
                if seen.borrow().accepted <= refused {
                    continue;
                }
                let (seen, backend) = (seen.clone(), backend.clone());
                tokio::spawn(async move {
                    seen.send_modify(|seen| {
                        seen.open += 1;
                        seen.open_max = seen.open_max.max(seen.open);
                    });
                    let service = service_fn(|request: Request<Incoming>| {
                        let (seen, backend) = (seen.clone(), backend.clone());
                        async move {
                            let first = request.uri().path().split('/').nth(1).unwrap_or("").to_owned();
                            let agent = request.headers()[USER_AGENT].to_str().unwrap().to_owned();
                            let who = (request.method().to_string(), first, agent);
                            seen.send_modify(|seen| seen.requests.extend([who]));
                            let answer = backend.answer(request).await;
                            seen.send_modify(|seen| seen.answers.extend([answer.status().as_u16()]));
                            Ok::<_, Infallible>(answer)
                        }
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                    seen.send_modify(|seen| seen.open -= 1);
                });
            }
        });
        (address, receiver)
    }

    /// Traffic in the background: its tally, a sender that stops it, and its end.
    fn start(proxy: SocketAddr) -> (Arc<Tally>, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let tally = Arc::new(Tally::default());
        let (stop, stopped) = oneshot::channel();
        let until = async {
            let _ = stopped.await;
        };
        let running = tokio::spawn(run(proxy, tally.clone(), until));
        (tally, stop, running)
    }

    #[tokio::test]
    async fn traffic_reaches_every_page_with_every_kind_of_client_on_few_connections() {
        let (address, mut seen) = observed(0).await;
        let (_tally, _stop, _running) = start(address);
        let expected = [
            ("GET", "users", "demo-user/1.0"),
            ("POST", "orders", "demo-user/1.0"),
            ("GET", "orders", "demo-user/1.0"),
            ("GET", "search", "demo-user/1.0"),
            ("GET", "reports", "demo-user/1.0"),
            ("PUT", "uploads", "demo-user/1.0"),
            ("GET", "checkout", "demo-user/1.0"),
            ("GET", "events", "demo-viewer/1.0"),
            ("GET", "reports", "demo-impatient/1.0"),
            ("GET", "healthz", "kube-probe/1.30"),
        ];
        let whole = seen.wait_for(|seen| {
            let scanned = seen.requests.iter().any(|(_, _, agent)| agent == "demo-scanner/1.0");
            let answered = [200, 201, 404].iter().all(|status| seen.answers.contains(status));
            scanned
                && answered
                && expected.iter().all(|(method, first, agent)| {
                    seen.requests.contains(&((*method).to_owned(), (*first).to_owned(), (*agent).to_owned()))
                })
        });
        let whole = timeout(DEADLINE, whole).await.unwrap().unwrap().clone();
        assert!(whole.open_max <= 24, "{} connections at a time", whole.open_max);
    }

    #[tokio::test]
    async fn traffic_stops_at_once_and_closes_its_connections() {
        let (address, mut seen) = observed(0).await;
        let (tally, stop, running) = start(address);
        // A report takes longer than the stop may: someone is in the middle of an exchange.
        let asked = ("GET".to_owned(), "reports".to_owned(), "demo-user/1.0".to_owned());
        timeout(DEADLINE, seen.wait_for(|seen| seen.requests.contains(&asked))).await.unwrap().unwrap();
        stop.send(()).unwrap();
        timeout(Duration::from_secs(2), running).await.unwrap().unwrap();
        timeout(DEADLINE, seen.wait_for(|seen| seen.open == 0)).await.unwrap().unwrap();
        assert_eq!(tally.summary(Duration::from_secs(1)).in_flight, 0);
    }

    #[tokio::test]
    async fn traffic_survives_a_proxy_that_closes_its_connections() {
        let (address, mut seen) = observed(10).await;
        let (tally, _stop, _running) = start(address);
        timeout(DEADLINE, seen.wait_for(|seen| seen.answers.contains(&200))).await.unwrap().unwrap();
        let summary = tally.summary(Duration::from_secs(1));
        assert!(summary.error_ratio > 0.0, "{summary:?}");
    }

    #[tokio::test]
    async fn client_reports_a_refused_connection_and_works_again_afterwards() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut client = Client::new(address, "test");
        assert!(client.exchange(request(Method::GET, "/healthz", Bytes::new())).await.is_err());
        let (address, _seen) = observed(0).await;
        client.proxy = address;
        for _ in 0..2 {
            let status = client.exchange(request(Method::GET, "/healthz", Bytes::new())).await.unwrap();
            assert_eq!(status, StatusCode::OK);
        }
    }

    #[tokio::test]
    async fn client_whose_idle_connection_was_closed_connects_anew_without_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = Client::new(listener.local_addr().unwrap(), "test");
        // Answers one request per connection, promises to keep it, and closes it.
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                assert!(stream.read(&mut head).await.unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
        });
        for _ in 0..2 {
            let exchange = client.exchange(request(Method::GET, "/healthz", Bytes::new()));
            assert_eq!(timeout(DEADLINE, exchange).await.unwrap().unwrap(), StatusCode::OK);
            let noticed = async {
                while !client.connection.as_ref().unwrap().sender.is_closed() {
                    tokio::task::yield_now().await;
                }
            };
            timeout(DEADLINE, noticed).await.unwrap();
        }
    }

    #[test]
    fn rate_swings_between_20_and_120_and_a_burst_adds_80() {
        let at = |seconds: f64| rate(Duration::from_secs_f64(seconds)).round();
        assert_eq!((at(0.0), at(15.0), at(30.0), at(45.0)), (70.0, 120.0, 70.0, 20.0));
        assert_eq!(at(8.9) - at(9.1), RATE_BURST - 1.0);
        assert_eq!(at(57.0), (RATE_BURST + 54.5).round());
        let visible = at(7.0) / at(0.0);
        assert!(visible > 2.0, "within ten seconds traffic changes {visible}-fold");
    }

    #[test]
    fn mix_is_of_a_thousand_and_draws_follow_it() {
        assert_eq!(MIX.iter().map(|(_, weight)| weight).sum::<usize>(), 1000);
        let random = Random::seeded_by_time();
        let users = (0..10_000).filter(|_| pick(&random) == Page::User).count();
        assert!((3400..4200).contains(&users), "{users} of 10000");
    }

    #[test]
    fn uploads_are_between_64_kib_and_2_mib() {
        let random = Random::seeded_by_time();
        let filler = Bytes::from(vec![b'x'; UPLOAD_MAX_BYTES]);
        let sizes: Vec<usize> = (0..500)
            .map(|_| {
                let body = Page::Upload.request(&random, &filler).into_body();
                http_body::Body::size_hint(&body).exact().unwrap() as usize
            })
            .collect();
        let (least, most) = (*sizes.iter().min().unwrap(), *sizes.iter().max().unwrap());
        assert!(least >= UPLOAD_MIN_BYTES && most <= UPLOAD_MAX_BYTES, "{least} to {most}");
        assert!(least < 2 * UPLOAD_MIN_BYTES && most > UPLOAD_MAX_BYTES / 2, "{least} to {most}");
    }

    #[test]
    fn summary_states_the_window_and_starts_anew() {
        let tally = Tally::default();
        tally.requests.store(100, Ordering::Relaxed);
        tally.errors.store(5, Ordering::Relaxed);
        tally.in_flight.store(3, Ordering::Relaxed);
        tally.streams.store(2, Ordering::Relaxed);
        *tally.durations_us.lock().unwrap() = (1..=100).rev().map(|ms| ms * 1000).collect();
        assert_eq!(
            tally.summary(Duration::from_secs(2)).to_string(),
            "  50.0 req/s #####                 errors  5.0 %  median   50 ms  p95    95 ms  in flight  3 + 2 streams"
        );
        let empty = tally.summary(Duration::from_secs(2));
        assert_eq!((empty.requests_per_second, empty.error_ratio, empty.p95), (0.0, 0.0, Duration::ZERO));
    }
}
