//! A run: rounds of load, each followed by quiet in which the books are compared.
//!
//! | checked | when | how |
//! |---|---|---|
//! | the sidecar lives, no thread of it panicked | each second | its process, its standard error |
//! | every scrape is answered | each second | four forms of the page in turn |
//! | counters equal the generator's truth | after each round | `ledger.rs`: requests by route group, method, status and origin; errors by type; aborts; cut answers; streams; tunnels; durations |
//! | gauges are at 0 | after each round | in flight, connections, tunnels, streams, waiting |
//! | reloads are counted | at the end | by result |
//! | descriptors are back at the base | at the end | `/proc/PID/fd` before the load and after it |
//! | memory is flat | at the end | resident bytes each second under load: the median of the last fifth of the run is at most 5 % over that of the second fifth |
//!
//! Exact books need plans that leave no doubt. A client leaves only when the backend has said that the request came, and the
//! backend then waits until it is let go; pauses are far shorter or far longer than the timeouts; whatever may go either way
//! (a reset that overtakes a head) is known by what the client saw, since an answer of the sidecar names its error.

#[path = "../../../tests/common/random.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod random;

mod backend;
mod client;
mod ledger;
mod page;
mod plan;
mod sidecar;
mod streams;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use backend::Backend;
use ledger::{Ledger, Seen};
use plan::{Kind, Plan};
use random::Random;
use sidecar::{CONFIGURATIONS, Sidecar};

/// Most that memory may grow after the warm-up, in a run that is long enough to tell.
const GROWTH: f64 = 0.05;
/// In a shorter run the warm-up is not over: it must not explode.
const GROWTH_OF_A_SHORT_RUN: f64 = 0.30;
/// Long enough for buffers, pools and histograms to have been in use once, in a fifth of it.
const LONG: Duration = Duration::from_secs(60);
/// A round: its end costs the few seconds that the longest plans take.
const ROUND: Duration = Duration::from_secs(60);
/// How long connections and gauges have to come to rest: the longest timeout of a pooled connection, and some.
const REST: Duration = Duration::from_secs(20);

/// Clients at a time: those that only want an answer, those that meet a fault, those that wait, and streams of HTTP/2.
const QUICK: usize = 24;
const FAULTY: usize = 12;
const SLOW: usize = 40;
const H2_CONNECTIONS: usize = 4;
const H2_STREAMS: usize = 6;

const QUICK_KINDS: &[Kind] = &[Kind::Fine, Kind::Fine, Kind::Fine, Kind::Chunked, Kind::Status, Kind::Upload];
const FAULTY_KINDS: &[Kind] = &[
    Kind::Fine,
    Kind::UntilClose,
    Kind::CloseAfter,
    Kind::CloseBeforeHead,
    Kind::ResetBeforeHead,
    Kind::CloseInHead,
    Kind::ResetInHead,
    Kind::Garbage,
    Kind::HugeHead,
    Kind::Truncated,
    Kind::ResetInBody,
    Kind::BadChunk,
    Kind::Early,
    Kind::BadRequest,
    Kind::LeaveInHead,
    Kind::LeaveBeforeHead,
    Kind::LeaveInUpload,
    Kind::LeaveInBody,
];
const SLOW_KINDS: &[Kind] = &[
    Kind::ShortStall,
    Kind::SlowBody,
    Kind::SlowUpload,
    Kind::SlowReader,
    Kind::HeadTimeout,
    Kind::BodyTimeout,
    Kind::UploadTimeout,
    Kind::Tunnel,
    Kind::Events,
    Kind::LeaveEvents,
];
const STREAM_KINDS: &[Kind] = &[
    Kind::Fine,
    Kind::Fine,
    Kind::Fine,
    Kind::Chunked,
    Kind::Status,
    Kind::Upload,
    Kind::ShortStall,
    Kind::CloseBeforeHead,
    Kind::ResetInHead,
    Kind::Truncated,
    Kind::ResetInBody,
    Kind::BadChunk,
    Kind::LeaveBeforeHead,
    Kind::LeaveInBody,
    Kind::Events,
    Kind::LeaveEvents,
    Kind::BodyTimeout,
];

/// What a run needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The sidecar.
    pub program: PathBuf,
    /// How long there is load.
    pub time: Duration,
    /// Of everything that is random.
    pub seed: u64,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Everything that must not be; empty for a good run.
    pub misses: Vec<String>,
    /// Requests that the sidecar had to count.
    pub requests: u64,
    /// Requests by kind.
    pub kinds: Vec<(Kind, u64)>,
    seed: u64,
    seconds: f64,
    summary: Vec<(&'static str, u64)>,
    memory: (u64, u64),
    descriptors: (usize, usize, usize),
    reloads: (u64, u64),
    scrapes: u64,
    restarts: u64,
    rounds: u64,
}

/// What all tasks of a run share.
struct Run {
    backend: Backend,
    sidecar: RefCell<Sidecar>,
    ledger: RefCell<Ledger>,
    /// The next number of a request.
    number: Cell<u64>,
    /// Clients end when they see it.
    stop: Cell<bool>,
    /// Load is on.
    busy: Cell<bool>,
    report: RefCell<Report>,
    /// Bytes resident, each second under load.
    memory: RefCell<Vec<u64>>,
}

/// Runs it all.
pub fn run(options: Options) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, chaos(options))
}

async fn chaos(Options { program, time, seed }: Options) -> Report {
    println!("seed {seed}: {} s against {}", time.as_secs(), program.display());
    let backend = Backend::start();
    let sidecar = Sidecar::start(&program, &backend);
    let base = base_of(&sidecar).await;
    let run = Rc::new(Run {
        backend,
        sidecar: RefCell::new(sidecar),
        ledger: RefCell::default(),
        number: Cell::new(1),
        stop: Cell::new(false),
        busy: Cell::new(false),
        report: RefCell::new(Report { seed, ..Report::default() }),
        memory: RefCell::default(),
    });
    // Every fifth second, in a short run more often: each configuration has its turn.
    let pace = (time / 6).min(Duration::from_secs(5));
    let beside = [
        tokio::task::spawn_local(watch(Rc::clone(&run))),
        tokio::task::spawn_local(scrape(Rc::clone(&run))),
        tokio::task::spawn_local(reload(Rc::clone(&run), pace)),
        tokio::task::spawn_local(restart(Rc::clone(&run), seed)),
    ];
    let rounds = time.div_duration_f64(ROUND).ceil().max(2.0) as u32;
    let mut load = Duration::ZERO;
    for round in 0..rounds {
        let begun = Instant::now();
        let clients = start_clients(&run, seed.wrapping_add(u64::from(round)));
        run.stop.set(false);
        run.busy.set(true);
        tokio::time::sleep(time / rounds).await;
        load += begun.elapsed();
        run.busy.set(false);
        run.stop.set(true);
        for client in clients {
            if let Err(error) = client.await {
                run.miss(format!("a client of this program failed: {error}"));
            }
        }
        let misses = settle(&run).await;
        println!("round {} of {rounds}: {} requests, {} misses", round + 1, run.ledger.borrow().total(), misses.len());
        run.report.borrow_mut().misses.extend(misses.into_iter().map(|miss| format!("round {}: {miss}", round + 1)));
        run.report.borrow_mut().rounds += 1;
    }
    for task in beside {
        task.abort();
        // Aborted in the middle of a scrape, its connection must be gone before descriptors are counted.
        let _ = task.await;
    }
    finish(&run, base, load).await
}

/// Descriptors before any load: the fewest in a few looks, since a probe or a sampler may have one open.
async fn base_of(sidecar: &Sidecar) -> usize {
    let mut base = usize::MAX;
    for _ in 0..10 {
        // What the first scrape opens for good belongs to the base.
        let _ = sidecar::page(sidecar.admin).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        base = base.min(sidecar.descriptors());
    }
    base
}

fn start_clients(run: &Rc<Run>, seed: u64) -> Vec<tokio::task::JoinHandle<()>> {
    let mut random = Random::new(seed);
    let mut clients = Vec::new();
    for (count, kinds) in [(QUICK, QUICK_KINDS), (FAULTY, FAULTY_KINDS), (SLOW, SLOW_KINDS)] {
        for _ in 0..count {
            clients.push(tokio::task::spawn_local(http1(Rc::clone(run), kinds, Random::new(random.next()))));
        }
    }
    for _ in 0..H2_CONNECTIONS {
        clients.push(tokio::task::spawn_local(http2(Rc::clone(run), Random::new(random.next()))));
    }
    clients
}

async fn http1(run: Rc<Run>, kinds: &'static [Kind], mut random: Random) {
    let proxy = run.sidecar.borrow().proxy;
    let mut kept = None;
    while !run.stop.get() {
        let plan = run.plan(kinds, &mut random);
        let seen = client::request(proxy, &run.backend, &mut kept, &plan).await;
        if matches!(seen, Seen::Broken(_)) {
            // A sidecar that is gone would be asked thousands of times a second.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        run.ledger.borrow_mut().enter(&plan, seen);
    }
}

async fn http2(run: Rc<Run>, mut random: Random) {
    let proxy = run.sidecar.borrow().proxy;
    let connection = match streams::connect(proxy).await {
        Ok(connection) => connection,
        Err(error) => return run.miss(format!("no connection over HTTP/2: {error}")),
    };
    let mut all = Vec::new();
    for _ in 0..H2_STREAMS {
        let (run, connection, mut random) = (Rc::clone(&run), connection.clone(), Random::new(random.next()));
        all.push(tokio::task::spawn_local(async move {
            while !run.stop.get() {
                let plan = run.plan(STREAM_KINDS, &mut random);
                let seen = streams::request(&connection, &run.backend, &plan).await;
                if matches!(seen, Seen::Broken(_)) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                run.ledger.borrow_mut().enter(&plan, seen);
            }
        }));
    }
    for stream in all {
        if let Err(error) = stream.await {
            run.miss(format!("a stream of this program failed: {error}"));
        }
    }
}

impl Run {
    fn plan(&self, kinds: &[Kind], random: &mut Random) -> Plan {
        let number = self.number.get();
        self.number.set(number + 1);
        Plan::new(*random.pick(kinds), number, random)
    }

    fn miss(&self, what: String) {
        let mut report = self.report.borrow_mut();
        // One is enough to fail; a hundred show the pattern.
        if report.misses.len() < 100 {
            report.misses.push(what);
        }
    }
}

/// Each second: is it alive, how much memory has it; each tenth: a line.
async fn watch(run: Rc<Run>) {
    let mut ticks = 0_u64;
    let mut before = 0;
    let mut told = false;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ticks += 1;
        if let Some(trouble) = run.sidecar.borrow_mut().trouble()
            && !std::mem::replace(&mut told, true)
        {
            run.miss(trouble);
        }
        let sidecar = run.sidecar.borrow();
        let (memory, descriptors) = (sidecar.resident(), sidecar.descriptors());
        if run.busy.get() {
            run.memory.borrow_mut().push(memory);
            let mut report = run.report.borrow_mut();
            report.descriptors.1 = report.descriptors.1.max(descriptors);
        }
        if ticks.is_multiple_of(10) {
            let total = run.ledger.borrow().total();
            let misses = run.report.borrow().misses.len() as u64 + run.ledger.borrow().broken_count;
            let mib = memory as f64 / f64::from(1 << 20);
            println!(
                "{ticks:>4} s: {total} requests, {}/s, {mib:.1} MiB, {descriptors} descriptors, {misses} misses",
                (total - before) / 10
            );
            before = total;
        }
    }
}

/// Each second a scrape, in each form in turn.
async fn scrape(run: Rc<Run>) {
    const FORMS: [&str; 4] = [
        "Accept: text/plain; version=0.0.4\r\n",
        "Accept: application/openmetrics-text; version=1.0.0\r\nAccept-Encoding: gzip\r\n",
        "Accept: application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited\r\n",
        "Accept: application/openmetrics-text; version=1.0.0\r\n",
    ];
    let admin = run.sidecar.borrow().admin;
    for turn in 0.. {
        match sidecar::fetch(admin, FORMS[turn % FORMS.len()]).await {
            Ok(body) if body.is_empty() => run.miss("a scrape got nothing".to_owned()),
            Ok(_) => run.report.borrow_mut().scrapes += 1,
            Err(error) => run.miss(format!("a scrape failed: {error}")),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Good and bad files in turn.
async fn reload(run: Rc<Run>, pace: Duration) {
    for index in 1.. {
        tokio::time::sleep(pace).await;
        if let Err(error) = run.sidecar.borrow().reload(index) {
            return run.miss(format!("no reload: {error}"));
        }
        let mut report = run.report.borrow_mut();
        let (good, _) = CONFIGURATIONS[index % CONFIGURATIONS.len()];
        if good { report.reloads.0 += 1 } else { report.reloads.1 += 1 }
    }
}

/// Now and then the backend is not there.
async fn restart(run: Rc<Run>, seed: u64) {
    let mut random = Random::new(seed ^ 0xbac);
    loop {
        tokio::time::sleep(Duration::from_millis(random.between(2_000, 6_000) as u64)).await;
        if run.busy.get() {
            run.backend.restart();
            run.report.borrow_mut().restarts += 1;
        }
    }
}

/// Waits until the page shows what it must, and gives what it does not show in time.
async fn settle(run: &Rc<Run>) -> Vec<String> {
    let begun = Instant::now();
    let admin = run.sidecar.borrow().admin;
    loop {
        let misses = match sidecar::page(admin).await {
            Ok(page) => run.ledger.borrow().compare(&page),
            Err(error) => vec![format!("a scrape failed: {error}")],
        };
        if misses.is_empty() || begun.elapsed() > REST {
            return misses;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The last checks, and the report.
async fn finish(run: &Rc<Run>, base: usize, load: Duration) -> Report {
    let begun = Instant::now();
    let mut now = usize::MAX;
    while now > base && begun.elapsed() < REST {
        now = run.sidecar.borrow().descriptors();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut report = run.report.borrow().clone();
    if now > base {
        let sockets = run.sidecar.borrow().sockets();
        report.misses.push(format!("{now} descriptors are open, {base} were before the load:\n{sockets}"));
    }
    let admin = run.sidecar.borrow().admin;
    loop {
        let page = sidecar::page(admin).await;
        let results = page.as_ref().map(|page| {
            let results = page.counts("golden_config_reloads_total", |labels| labels.get("result").to_owned());
            ["success", "failure"].map(|result| results.get(result).copied().unwrap_or_default())
        });
        match (results, &page) {
            (Ok(have), Ok(page)) if have == [report.reloads.0, report.reloads.1] => {
                let dropped = page.sum("golden_log_dropped_total");
                if dropped > 0 {
                    report.misses.push(format!("{dropped} lines of the log were dropped"));
                }
                break;
            }
            (have, _) if begun.elapsed() > REST => {
                report.misses.push(format!("reloads: the page says {have:?}, asked were {:?}", report.reloads));
                break;
            }
            // The last one may still be going on.
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    if let Some(trouble) = run.sidecar.borrow_mut().trouble() {
        report.misses.push(trouble);
    }
    let samples = run.memory.borrow();
    let median = |from: usize, to: usize| {
        let mut bytes = samples[samples.len() * from / 5..samples.len() * to / 5].to_vec();
        bytes.sort_unstable();
        bytes.get(bytes.len() / 2).copied().unwrap_or_default()
    };
    report.memory = (median(1, 2), median(4, 5));
    let growth = report.memory.1 as f64 / report.memory.0.max(1) as f64 - 1.0;
    let allowed = if load >= LONG { GROWTH } else { GROWTH_OF_A_SHORT_RUN };
    if growth > allowed {
        report.misses.push(format!("memory grew by {:.1} %, {:.0} % are allowed", growth * 100.0, allowed * 100.0));
    }
    let ledger = run.ledger.borrow();
    if ledger.broken_count > 0 {
        report.misses.push(format!("{} times something that no plan foresees", ledger.broken_count));
        report.misses.extend(ledger.broken.clone());
    }
    report.requests = ledger.total();
    report.kinds = Kind::ALL.iter().map(|kind| (*kind, ledger.kinds.get(kind).copied().unwrap_or_default())).collect();
    report.summary = ledger.summary();
    report.seconds = load.as_secs_f64();
    report.descriptors = (base, report.descriptors.1, now);
    report
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { misses, requests, kinds, seed, seconds, summary, memory, descriptors, reloads, scrapes, .. } =
            self;
        writeln!(f, "\n{requests} requests in {seconds:.0} s under load: {:.0}/s", *requests as f64 / seconds)?;
        for (kind, count) in kinds {
            writeln!(f, "  {count:>9}  {}", kind.what())?;
        }
        for (what, count) in summary {
            writeln!(f, "  {count:>9}  in all: {what}")?;
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let growth = (memory.1 as f64 / memory.0.max(1) as f64 - 1.0) * 100.0;
        writeln!(
            f,
            "resident memory, medians under load: {:.1} MiB in the second fifth, {:.1} MiB in the last ({growth:+.1} %)",
            mib(memory.0),
            mib(memory.1)
        )?;
        let (before, most, after) = descriptors;
        writeln!(f, "descriptors: {before} before the load, {most} at most, {after} after it")?;
        writeln!(
            f,
            "reloads: {} good, {} bad; scrapes: {scrapes}; restarts of the backend: {}",
            reloads.0, reloads.1, self.restarts
        )?;
        for miss in misses {
            writeln!(f, "MISS {miss}")?;
        }
        if misses.is_empty() {
            write!(f, "the books balance after each of {} rounds (seed {seed})", self.rounds)
        } else {
            write!(f, "{} misses (SOAK_SEED={seed} repeats the plans)", misses.len())
        }
    }
}
