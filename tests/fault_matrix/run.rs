//! Plays a scenario three times: as it is, with a reload in its middle, and with the drain beginning there. A row whose
//! middle is another row's is played once.
//!
//! What holds for every scenario is here and not in its row:
//!
//! * The families agree with each other: one duration for each request that is neither stream nor tunnel, one wait for each
//!   abort, one verdict of the objective for each request.
//! * Afterwards nothing is in flight, nobody waits, no descriptor has leaked, and a good request is served well.
//! * A reload changes nothing, and is counted.
//! * In a drain each head ends its connection, no connection stays, backend connections that would have been kept are let
//!   go and counted as drained, and the process ends with 0 after a last page that tells the same.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{NAME, Player, Scene};
use crate::common::backend::Unreachable;
use crate::common::{Backend, Names, PATIENCE, Page, Sidecar, wait_for, wait_until};
use crate::looks::{look, wait_for_page};
use crate::row::{Act, Do, Expect, Front, Row, Series, Term, Upstream, say};
use crate::server::{GOOD, Log, Server};
use crate::stage::Stage;
use crate::tls::Certificates;

/// The families of which each series is compared.
const COMPARED: &[&str] = &[
    "golden_requests_total",
    "golden_errors_total",
    "golden_client_aborts_total",
    "golden_truncated_responses_total",
    "golden_implicit_errors_total",
    "golden_upstream_retries_total",
    "golden_upstream_connections_opened_total",
    "golden_upstream_connections_closed_total",
    "golden_upstream_pool_timeouts_total",
    "golden_stream_duration_seconds_count",
    "golden_upgraded_connections_opened_total",
    "golden_upgraded_bytes_total",
    "golden_server_connections_rejected_total",
    "golden_tls_handshake_failures_total",
];

/// What is 0 when nobody is there.
const AT_REST: &[&str] = &[
    "http_server_active_requests",
    "golden_inflight_requests",
    "golden_streams",
    "golden_upgraded_connections",
    "golden_upstream_pool_waiting",
    "golden_server_connections",
];

/// How long requests in flight have after the signal: so long that nobody waits for it.
const DRAIN: &str = "20s";
/// Where its end is what the scenario is about: long enough for the parties to see that it goes on until then.
const SHORT_DRAIN: &str = "600ms";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Plain,
    Reload,
    Drain,
}

/// How much each series has moved.
type Moves = BTreeMap<String, f64>;

/// Plays all variants of a scenario beside each other.
pub fn run(name: &str, row: fn() -> Row) {
    let failed: Vec<_> = std::thread::scope(|scope| {
        let variants: &[Variant] =
            if row().plain { &[Variant::Plain] } else { &[Variant::Plain, Variant::Reload, Variant::Drain] };
        let all: Vec<_> = variants
            .iter()
            .copied()
            .map(|variant| {
                let named = std::thread::Builder::new().name(format!("{name}, {variant:?}"));
                (variant, named.spawn_scoped(scope, move || play(row(), variant)).expect("a thread"))
            })
            .collect();
        all.into_iter().filter_map(|(variant, thread)| thread.join().err().map(|_told| variant)).collect()
    });
    assert!(failed.is_empty(), "{name} fails in the variants {failed:?}");
}

/// The backend, or what is in its place.
enum Place {
    Backend(#[expect(dead_code, reason = "held for its end")] Backend),
    Refusing(socket2::Socket),
    Deaf(Unreachable),
}

impl Place {
    fn new(upstream: Upstream, server: &Server, scripts: Vec<Vec<Do>>) -> (Place, SocketAddr) {
        match upstream {
            Upstream::Scripted => {
                let backend = Backend::start(server.script(scripts));
                let address = backend.address;
                (Place::Backend(backend), address)
            }
            Upstream::Refusing => {
                // Bound, so that nobody else gets the port; a socket that does not listen refuses.
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
                socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
                let address = socket.local_addr().expect("address").as_socket().expect("an internet address");
                (Place::Refusing(socket), address)
            }
            Upstream::Deaf => {
                let unreachable = Unreachable::new();
                let address = unreachable.address;
                (Place::Deaf(unreachable), address)
            }
        }
    }

    /// Somebody who serves well is there from now on.
    fn recovered(self, server: &Server) -> Place {
        let listener: TcpListener = match self {
            Place::Backend(_) => return self,
            Place::Refusing(socket) => {
                socket.listen(128).expect("listen");
                socket.into()
            }
            Place::Deaf(unreachable) => unreachable.into_listener(),
        };
        Place::Backend(Backend::start_on(listener, server.script(Vec::new())))
    }
}

fn play(row: Row, variant: Variant) {
    let Row { config, scheme, named, front, upstream, mute, mut backend, mut client, mut expect, term, .. } = row;
    let draining = variant == Variant::Drain;
    let (mut told, mut drain) = (None, DRAIN);
    if let Some(term) = term.filter(|_| draining) {
        let Term { cuts, client: other_client, backend: other_backend, expect: other_expect } = term;
        drain = if cuts { SHORT_DRAIN } else { DRAIN };
        client = other_client.unwrap_or(client);
        backend = other_backend.unwrap_or(backend);
        told = other_expect;
    }
    let says_close = draining && (upstream != Upstream::Scripted || heads_follow_the_middle(config, &backend, &client));
    let (stage, log) = (Stage::default(), Log::default());
    let certificates = (scheme == "https" || front == Front::Tls).then(|| Arc::new(Certificates::new()));
    let server = Server { scheme, certificates, stage: stage.clone(), log: log.clone() };
    let certificates = server.certificates.as_deref();
    let (place, address) = Place::new(upstream, &server, backend);
    let names = named.then(|| Names::new(&[(NAME, &["127.0.0.1"])]));
    let elsewhere = Log::default();
    let _elsewhere = names.as_ref().map(|_| {
        let server = Server { log: elsewhere.clone(), ..server.clone() };
        Backend::start_at(SocketAddr::from(([127, 0, 0, 2], address.port())), server.script(Vec::new()))
    });
    let seen = || [log.lines(), elsewhere.lines()].concat();
    let place_of = if named { format!("{NAME}:{}", address.port()) } else { address.to_string() };
    let mut builder = Sidecar::upstream(format!("{scheme}://{place_of}"));
    if let Some(names) = &names {
        builder = builder.names(names);
    }
    let builder = builder
        .yaml(certificates.map_or(config.to_owned(), |certificates| certificates.in_text(config)))
        .flag("--drain-grace", "0s")
        .flag("--drain-timeout", drain)
        .env("GOLDEN_DRAIN_LAST_SCRAPE", "30s")
        // The samplers tell of the machine; this is about requests.
        .env("GOLDEN_SATURATION_INTERVAL", "10s");
    let mut sidecar = if mute { builder.log_on_a_full_disk().start() } else { builder.start() };
    wait_for_page(&sidecar, "all is set up", |page| page.sum("golden_sampler_ticks_total", &[]) >= 1.0);
    let before = look(&sidecar);
    let descriptors = open_descriptors(sidecar.pid());

    std::thread::scope(|scope| {
        let playing = scope.spawn(|| {
            let _presence = stage.enter();
            let scene = Scene { sidecar: &sidecar, stage: &stage, certificates, names: names.as_ref() };
            let mut player = Player::new(scene, says_close);
            player.play(&client);
            if draining {
                player.expect_all_ended();
            }
        });
        {
            let _presence = stage.enter();
            stage.wait_for_middle();
            signal(&sidecar, variant);
            stage.go_beyond();
        }
        if let Err(panic) = playing.join() {
            std::panic::resume_unwind(panic);
        }
    });

    if draining {
        expect = told.unwrap_or_else(|| drained(expect));
        let mut last = None;
        wait_until("the process ends after its last scrape", || {
            last = sidecar.try_scrape().or(last.take());
            sidecar.try_exit().is_some()
        });
        assert_eq!(sidecar.wait_exit(PATIENCE).code(), Some(0));
        let page = last.expect("a page");
        page.check();
        let (moved, expected) = (moves(&before, &page), expected(&expect));
        assert!(moved == expected, "{}", difference(&moved, &expected));
        check_whole(&before, &page, &expect);
    } else {
        let page = settled(&sidecar, &before, &expect);
        check_whole(&before, &page, &expect);
    }
    // An end that the sidecar has made may not have been read yet.
    let _shown_below = wait_for(Duration::from_secs(3), || seen() == expect.seen);
    assert_eq!(seen(), expect.seen, "what the backend saw");
    if draining {
        return;
    }
    if variant == Variant::Reload {
        assert_eq!(look(&sidecar).value("golden_config_reloads_total", &[("result", "success")]), 1.0);
    }
    let _backend = place.recovered(&server);
    let good = [say("GET /good HTTP/1.1\r\nHost: test\r\n\r\n"), Act::Head(200), Act::Whole(GOOD), Act::Leave];
    let scene = Scene { sidecar: &sidecar, stage: &stage, certificates, names: names.as_ref() };
    Player::new(scene, false).play(&[front.begin(), good.to_vec()].concat());
    let opened = expect.moved.iter().filter(|series| **series == Series::Opened).count();
    let closed = expect.moved.iter().filter(|series| matches!(series, Series::Closed(_))).count();
    expect.requests += 1;
    expect.moved.push(Series::Request("GET", "200", "backend"));
    expect.moved.extend((opened == closed).then_some(Series::Opened));
    settled(&sidecar, &before, &expect);
    check_whole(&before, &sidecar.scrape(), &expect);
    let mut now = Vec::new();
    let back = wait_for(PATIENCE / 2, || {
        now = open_descriptors(sidecar.pid());
        let pooled = look(&sidecar).sum("http_client_open_connections", &[]) as usize;
        now.len() <= descriptors.len() + pooled
    });
    assert!(back, "{descriptors:?}\nbecame\n{now:?}");
}

/// Whether every final head of the scenario is sent after its middle, so that it must end its connection in a drain.
fn heads_follow_the_middle(config: &str, backend: &[Vec<Do>], client: &[Act]) -> bool {
    let of_client = client.iter().position(|act| matches!(act, Act::Middle));
    let scripts = backend.iter().map(|script| {
        let middle = script.iter().position(|step| matches!(step, Do::Middle));
        let sends = script.iter().position(|step| matches!(step, Do::Send(_)));
        middle.is_some_and(|middle| sends.is_none_or(|sends| middle < sends))
    });
    let reads = client.iter().position(|act| matches!(act, Act::Head(_) | Act::Refused(..)));
    match of_client {
        // The end of the request comes after it: nobody can have answered.
        Some(middle) => {
            client[middle..].iter().any(|act| matches!(act, Act::Send(_))) && reads.is_none_or(|reads| middle < reads)
        }
        // A deadline that is short may pass before the signal has come.
        None => scripts.into_iter().any(|certain| certain) && backend.len() == 1 && !config.contains("timeouts"),
    }
}

/// Sends the signal of the variant, and waits until it has taken effect.
fn signal(sidecar: &Sidecar, variant: Variant) {
    match variant {
        Variant::Plain => {}
        Variant::Reload => {
            sidecar.signal(libc::SIGHUP);
            wait_for_page(sidecar, "the reload", |page| {
                page.get("golden_config_reloads_total", &[("result", "success")]) == Some(1.0)
            });
        }
        Variant::Drain => {
            sidecar.signal(libc::SIGTERM);
            wait_until("the proxy's port is closed", || !is_listening(sidecar.proxy));
        }
    }
}

/// Whether somebody listens there. Asked of the kernel (state 0A in `/proc/net/tcp`), because a connect would be counted.
fn is_listening(address: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    let port = format!(":{:04X}", address.port());
    table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next().unwrap_or_default();
        local.ends_with(&port) && columns.nth(1) == Some("0A")
    })
}

/// What a process has open, besides the files of the kernel that the samplers keep open or look into.
fn open_descriptors(pid: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("/proc");
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| !target.starts_with("/proc") && !target.starts_with("/sys")).collect()
}

/// What a drain makes of an expectation: nothing is kept.
fn drained(expect: Expect) -> Expect {
    let Expect { requests, seen, mut moved } = expect;
    let opened = moved.iter().filter(|series| **series == Series::Opened).count();
    let closed = moved.iter().filter(|series| matches!(series, Series::Closed(_))).count();
    moved.extend(std::iter::repeat_n(Series::Closed("drain"), opened - closed));
    let seen = seen.into_iter().map(|line| line.strip_suffix("kept").map_or(line.to_owned(), |s| format!("{s}let go")));
    let seen = seen.map(|line| &*Box::leak(line.into_boxed_str())).collect();
    Expect { requests, seen, moved }
}

/// The page on which everything is as expected and at rest, or a panic that says what is not.
#[track_caller]
fn settled(sidecar: &Sidecar, before: &Page, expect: &Expect) -> Page {
    let expected = expected(expect);
    let mut page = Page::default();
    let busy = |page: &Page| AT_REST.iter().filter(|name| page.sum(name, &[]) != 0.0).copied().collect::<Vec<_>>();
    let held = wait_for(PATIENCE / 2, || {
        page = look(sidecar);
        moves(before, &page) == expected && busy(&page).is_empty()
    });
    assert!(held, "{}; not at rest: {:?}", difference(&moves(before, &page), &expected), busy(&page));
    page
}

/// What all families together must say.
#[track_caller]
fn check_whole(before: &Page, after: &Page, expect: &Expect) {
    let moved = |name: &str| after.sum(name, &[]) - before.sum(name, &[]);
    let count = |meant: fn(&Series) -> bool| expect.moved.iter().filter(|series| meant(series)).count() as f64;
    let requests = expect.requests as f64;
    assert_eq!(moved("golden_requests_total"), requests, "{}", after.lines_of("golden_requests_total"));
    let without = count(|series| matches!(series, Series::Stream(_) | Series::Upgraded));
    assert_eq!(moved("http_server_request_duration_seconds_count"), requests - without, "durations");
    assert_eq!(moved("golden_slo_requests_total"), requests, "verdicts of the objective");
    assert_eq!(moved("golden_abort_wait_seconds_count"), count(|series| matches!(series, Series::Abort(_))), "waits");
}

/// Every compared series that is not what it was.
fn moves(before: &Page, after: &Page) -> Moves {
    let compared = after.samples.iter().filter(|sample| COMPARED.contains(&sample.name.as_str()));
    compared
        .filter_map(|sample| {
            let labels: Vec<_> = sample.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let by = sample.value - before.get(&sample.name, &labels).unwrap_or(0.0);
            (by != 0.0).then(|| (written(&sample.name, &labels), by))
        })
        .collect()
}

fn written(name: &str, labels: &[(&str, &str)]) -> String {
    let mut labels = labels.to_vec();
    labels.sort_unstable();
    let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
    format!("{name}{{{}}}", labels.join(","))
}

fn expected(expect: &Expect) -> Moves {
    let mut moves = Moves::new();
    for series in &expect.moved {
        let (name, by) = identity(series);
        *moves.entry(name).or_default() += by;
    }
    moves
}

/// The name of a series on the page, and by how much it moves.
fn identity(series: &Series) -> (String, f64) {
    let route = ("http_route", "_unmatched");
    match *series {
        Series::Request(method, status, origin) => {
            let labels = [
                route,
                ("http_request_method", method),
                ("http_response_status_code", status),
                ("origin", origin),
                ("traffic", "user"),
            ];
            (written("golden_requests_total", &labels), 1.0)
        }
        Series::Error(error_type, fault, phase) => {
            let labels = [route, ("error_type", error_type), ("fault", fault), ("phase", phase)];
            (written("golden_errors_total", &labels), 1.0)
        }
        Series::Abort(phase) => (written("golden_client_aborts_total", &[route, ("phase", phase)]), 1.0),
        Series::Truncated => (written("golden_truncated_responses_total", &[route]), 1.0),
        Series::Retry(result) => (written("golden_upstream_retries_total", &[("result", result)]), 1.0),
        Series::Opened => (written("golden_upstream_connections_opened_total", &[]), 1.0),
        Series::Closed(reason) => (written("golden_upstream_connections_closed_total", &[("reason", reason)]), 1.0),
        Series::PoolTimeout => (written("golden_upstream_pool_timeouts_total", &[]), 1.0),
        Series::Stream(end) => (written("golden_stream_duration_seconds_count", &[route, ("end", end)]), 1.0),
        Series::Upgraded => (written("golden_upgraded_connections_opened_total", &[("protocol", "websocket")]), 1.0),
        Series::UpgradedBytes(direction, bytes) => {
            let labels = [("protocol", "websocket"), ("direction", direction)];
            (written("golden_upgraded_bytes_total", &labels), f64::from(bytes))
        }
        Series::Handshake(side, reason) => {
            (written("golden_tls_handshake_failures_total", &[("side", side), ("reason", reason)]), 1.0)
        }
        Series::Rejected(reason) => (written("golden_server_connections_rejected_total", &[("reason", reason)]), 1.0),
    }
}

fn difference(moved: &Moves, expected: &Moves) -> String {
    let mut text = String::from("the series that moved are not those expected:");
    for name in moved.keys().chain(expected.keys().filter(|name| !moved.contains_key(*name))) {
        let (got, wanted) = (moved.get(name).copied().unwrap_or(0.0), expected.get(name).copied().unwrap_or(0.0));
        if got != wanted {
            text.push_str(&format!("\n  {name} moved by {got}, expected {wanted}"));
        }
    }
    text
}
