//! `golden-sidecar demo`: a backend with interesting behaviour and traffic with a visible rhythm, for a real sidecar
//! in between. This room makes the two ends; `app` starts the sidecar and joins them. It imports config and labels only.
//!
//! | file | what it holds |
//! |---|---|
//! | `backend.rs` | the embedded backend: what each endpoint does |
//! | `pool.rs` | the backend's few database connections, and the page that tells of them |
//! | `traffic.rs` | the clients: who they are, how often they come, what they saw |
//! | `random.rs` | chance |
//!
//! In order: [`Demo::start`] (backend up, its address known) → `app` starts the sidecar with [`routes`], [`slos`],
//! the pool and [`INFLIGHT_LIMIT`] in front of it → [`Demo::run`] (welcome, traffic, a line every 5 s) until told to stop →
//! `app` drains the sidecar → [`Demo::stop`]. So the sidecar never loses its backend while it has requests.
//!
//! Each end has a thread and a current-thread runtime of its own, so neither shares a core's queue with the workers.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::config::{Pool, RouteTemplate, Slo};
use crate::labels::Method;

pub mod backend;
mod pool;
mod random;
pub mod traffic;

/// Time between two summary lines: several bars of the one-minute wave fit on a screen, and ten seconds show two.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(5);

/// The concurrency limit that suits the demo: above the 24 connections that the traffic opens, so nothing is shed, and
/// near enough that the saturation `inflight` visibly moves, between a tenth and a half (event streams count).
pub const INFLIGHT_LIMIT: usize = 32;

/// The templates of the backend's pages and the methods each takes (empty: all).
pub const ROUTES: [(&str, &[Method]); 10] = [
    ("/users", &[Method::Get]),
    ("/users/{id}", &[Method::Get]),
    ("/orders", &[Method::Post]),
    ("/orders/{id}", &[Method::Get]),
    ("/search", &[Method::Get]),
    ("/reports/{id}", &[Method::Get]),
    ("/uploads/{name}", &[Method::Put]),
    ("/events", &[Method::Get]),
    ("/checkout/{id}", &[Method::Get]),
    ("/healthz", &[Method::Get]),
];

/// A running backend, and the thread of the traffic while there is any. Dropping it stops both.
#[derive(Debug)]
pub struct Demo {
    /// Where the backend listens: 127.0.0.1 and a free port.
    pub backend_addr: SocketAddr,
    backend: Background,
}

/// A thread with its own current-thread runtime, stopped and joined on drop.
#[derive(Debug)]
struct Background {
    /// Dropping the sender asks the thread to stop.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Counts one thing as under way until it is dropped, so that clients that leave are counted down too.
#[derive(Debug)]
struct UnderWay<'a>(&'a AtomicUsize);

/// [`ROUTES`] as declared templates of a configuration.
#[must_use]
pub fn routes() -> Vec<RouteTemplate> {
    ROUTES
        .iter()
        .map(|(path, methods)| RouteTemplate { path: (*path).to_owned(), methods: methods.to_vec(), buckets: None })
        .collect()
}

/// What the shop has promised: to all, and on its two troubled pages. With this traffic 2.5 to 2.9 % of all requests fail or
/// are slow, so that a fifth of the shop's budget is left; a tenth of the checkouts fail, twice what is allowed; and of
/// searches one in a hundred is slow, so that most of their budget is left. Each can burn 14.4 times too fast, where the
/// fast alert pages: none promises less than 93.1 %.
#[must_use]
pub fn slos() -> Vec<Slo> {
    let slo = |name: &str, routes: &[&str], objective, latency| Slo {
        name: name.to_owned(),
        routes: routes.iter().map(|route| (*route).to_owned()).collect(),
        objective,
        latency: Some(Duration::from_millis(latency)),
        too_slow_is_error: false,
    };
    vec![
        slo("shop", &[], 0.965, 1000),
        slo("checkout", &["/checkout/{id}"], 0.95, 500),
        slo("search", &["/search"], 0.95, 400),
    ]
}

/// What the demo prints first: the three addresses and five commands to paste. Plain text, lines up to 110 columns.
#[must_use]
pub fn welcome(proxy: SocketAddr, admin: SocketAddr, backend: SocketAddr) -> String {
    let look = |signal: &str, pattern: &str, note: &str| {
        format!("  # {signal}: {note}\n  curl -s http://{admin}/metrics | grep {pattern}\n")
    };
    [
        "golden-sidecar demo: traffic -> sidecar -> backend, all on this machine. Ctrl-C stops it.\n\n".to_owned(),
        format!("  proxy    http://{proxy}   where the traffic goes in\n"),
        format!("  backend  http://{backend}   the service that knows nothing of it\n"),
        format!("  admin    http://{admin}   what was measured\n\n"),
        "Paste into a second terminal, again and again; the numbers move within ten seconds:\n\n".to_owned(),
        look(
            "latency",
            "'^http_server_request_duration_seconds_bucket.*\"/search\"'",
            "how many searches took how long",
        ),
        look(
            "traffic",
            "'^golden_requests_total{.*\"GET\"' | grep -v ' 0$'",
            "every request once, by route and status",
        ),
        look("errors", "'^golden_errors_total{'", "/checkout/{id} fails in bursts, four of every twenty seconds"),
        look("saturation", "'^golden_saturation_ratio{'", "how full each resource is, 0 to 1"),
        "  # a request of your own, counted like the others\n".to_owned(),
        format!("  curl -i http://{proxy}/users/42\n\n"),
        "What the clients see, every 5 s (one # is 10 requests/s):\n".to_owned(),
    ]
    .concat()
}

// === impl Demo ===

impl Demo {
    /// Starts the backend on a free port of 127.0.0.1. Fails when no port, thread or runtime is to be had.
    pub fn start() -> io::Result<Demo> {
        // Bound here and not in the thread: the address is known, and connections queue, as soon as this returns.
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let backend_addr = listener.local_addr()?;
        let backend = Background::start("demo-backend", async move |stopped| {
            // Fails only when the runtime has no network driver, and this one has.
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            tokio::select! {
                () = backend::serve(listener) => {}
                _ = stopped => {}
            }
        })?;
        Ok(Demo { backend_addr, backend })
    }

    /// The pools that the backend reports, as declared in a configuration.
    #[must_use]
    pub fn pools(&self) -> Vec<Pool> {
        vec![pool::declared(self.backend_addr)]
    }

    /// Writes the welcome to `out`, sends traffic to the proxy and writes a summary line every 5 s until `until` is
    /// done; then stops the traffic, with all its connections closed on return. The backend goes on. Dropping the
    /// future stops the traffic too. Fails when `out` does or when no thread is to be had.
    pub async fn run(
        &self,
        proxy: SocketAddr,
        admin: SocketAddr,
        out: &mut impl io::Write,
        until: impl Future<Output = ()>,
    ) -> io::Result<()> {
        writeln!(out, "{}", welcome(proxy, admin, self.backend_addr))?;
        let tally = Arc::new(traffic::Tally::default());
        let seen = tally.clone();
        let _traffic = Background::start("demo-traffic", async move |stopped| {
            traffic::run(proxy, seen, async { drop(stopped.await) }).await;
        })?;

        let started = Instant::now();
        let mut last = started;
        let mut ticks = interval_at(started + SUMMARY_INTERVAL, SUMMARY_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return Ok(()),
                now = ticks.tick() => {
                    let seconds = started.elapsed().as_secs();
                    let summary = tally.summary(now - last);
                    last = now;
                    writeln!(out, "  {:02}:{:02} {summary}", seconds / 60, seconds % 60)?;
                    out.flush()?;
                }
            }
        }
    }

    /// Stops the backend and waits for its thread; requests still in it are cut.
    pub fn stop(self) {
        drop(self.backend);
    }
}

// === impl Background ===

impl Background {
    /// Runs `work` in a thread of this name; the receiver it is given ends when the thread should stop.
    fn start<W>(name: &str, work: W) -> io::Result<Background>
    where
        W: AsyncFnOnce(oneshot::Receiver<()>) + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let (built, outcome) = mpsc::channel();
        // The runtime is made where it is dropped: dropping one inside another is a panic.
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    // Nobody waits for this when the starter is gone.
                    let _ = built.send(Ok(()));
                    runtime.block_on(work(stopped));
                }
                Err(error) => drop(built.send(Err(error))),
            }
        })?;
        outcome.recv().map_err(io::Error::other)??;
        Ok(Background { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Background {
    /// Asks the thread to stop and waits for it: some milliseconds, because no work here outlasts its await.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed by its thread; panicking again in a drop would hide it.
            let _ = thread.join();
        }
    }
}

// === impl UnderWay ===

impl<'a> UnderWay<'a> {
    fn enter(count: &'a AtomicUsize) -> UnderWay<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        UnderWay(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Far above the six seconds that the slowest of these takes.
    const DEADLINE: Duration = Duration::from_secs(30);

    /// A writer that tells when the text so far holds a summary line.
    struct Screen {
        text: Vec<u8>,
        summary: Option<oneshot::Sender<()>>,
    }

    impl io::Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.text.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        /// The run flushes after each summary line.
        fn flush(&mut self) -> io::Result<()> {
            if let Some(summary) = self.summary.take() {
                let _ = summary.send(());
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn demo_prints_a_welcome_and_then_life_and_ends_with_nobody_listening() {
        let demo = Demo::start().unwrap();
        let backend = demo.backend_addr;
        let (sender, receiver) = oneshot::channel();
        let mut screen = Screen { text: Vec::new(), summary: Some(sender) };
        let until = async { receiver.await.unwrap() };
        // No proxy in between: the traffic goes straight to the backend.
        let running = demo.run(backend, backend, &mut screen, until);
        tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap();
        demo.stop();
        assert!(std::net::TcpStream::connect(backend).is_err(), "the backend still listens");

        let text = String::from_utf8(screen.text).unwrap();
        let last = text.lines().last().unwrap();
        assert!(text.starts_with(&welcome(backend, backend, backend)), "{text}");
        assert!(last.starts_with("  00:05 "), "{last}");
        let rate: f64 = last.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(rate > 20.0, "{last}");
    }

    #[tokio::test]
    async fn run_that_is_dropped_stops_its_traffic() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let demo = Demo::start().unwrap();
        let mut screen = Screen { text: Vec::new(), summary: None };
        let proxy = listener.local_addr().unwrap();
        let mut client = {
            let running = demo.run(proxy, proxy, &mut screen, std::future::pending());
            tokio::select! {
                ended = running => panic!("ended by itself: {ended:?}"),
                accepted = listener.accept() => accepted.unwrap().0,
            }
        };
        // Left alone, this client would wait ten seconds for an answer before it closes.
        let rest = &mut Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), client.read_to_end(rest)).await;
        // A reset is as good an end as a close.
        assert!(closed.is_ok(), "the connection is still open");
    }

    #[test]
    fn welcome_names_the_addresses_and_a_metric_of_each_signal_on_one_screen() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let text = welcome(address(8000), address(9900), address(8080));
        for url in ["http://127.0.0.1:8000 ", "http://127.0.0.1:8080 ", "http://127.0.0.1:9900 "] {
            assert!(text.contains(url), "{url} in\n{text}");
        }
        let metrics = [
            "http_server_request_duration_seconds_bucket",
            "golden_requests_total{",
            "golden_errors_total{",
            "golden_saturation_ratio{",
        ];
        for metric in metrics {
            let pasted = format!("  curl -s http://127.0.0.1:9900/metrics | grep '^{metric}");
            assert!(text.contains(&pasted), "{pasted} in\n{text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("  curl ")).count(), 5);
        assert!(text.lines().count() <= 25, "{} lines", text.lines().count());
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    }

    #[test]
    fn every_promise_can_be_broken_fast_enough_to_page() {
        for slo in slos() {
            assert!(1.0 / (1.0 - slo.objective) > 14.4, "{slo:?}: even if all fail, nobody is told");
            assert!(slo.routes.iter().all(|route| ROUTES.iter().any(|(path, _)| path == route)), "{slo:?}");
        }
    }

    #[test]
    fn routes_are_distinct_templates_with_their_methods() {
        let routes = routes();
        assert_eq!(routes.len(), ROUTES.len());
        let paths: std::collections::BTreeSet<_> = routes.iter().map(|route| &route.path).collect();
        assert_eq!(paths.len(), routes.len());
        let upload = routes.iter().find(|route| route.path == "/uploads/{name}").unwrap();
        assert_eq!((&upload.methods[..], &upload.buckets), (&[Method::Put][..], &None));
    }
}
