//! Probe: pools that the backend reports itself.
//!
//! Source: the backend's own page, asked for over the network: Prometheus text or JSON.
//! Shape:  what counts as used, idle, limit, waiting and given up is told by expressions of the configuration; a series
//!         is the sum of all that match.
//! Units:  connections, and requests that wait.
//! Absent: what is not selected, or not on the page. A limit of 0 or less is none; that of the configuration wins.
//!
//! The sampler never waits for the network: a task asks in the background, one for each URL however many pools it
//! reports, with at most one question on the way, and a round takes the newest answer. An answer that is too old is
//! worth nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::{Expression, Pool, PoolKind, PoolSelectors, Saturation, Term};
use crate::labels::Trouble;
use crate::saturation::fault::Fault;
use crate::saturation::{Probe, Round};
use crate::scrape::fetch::Fetcher;
use crate::scrape::json::{self, Found};
use crate::scrape::text;
use crate::signals::families as f;

/// The shortest time between two questions, however often samples are taken: ten a second already cost a backend more
/// than anything they tell.
const PERIOD_MIN: Duration = Duration::from_millis(100);
/// The longest that an answer may take. A second: a lost SYN is repeated after one.
const PATIENCE_MAX: Duration = Duration::from_secs(1);
/// The largest page that is read: twice that of a large Java service.
const SIZE_MAX: u64 = 4 << 20;
/// An answer may be this many intervals old, and a second more for those that are sampled many times a second.
const VALID_INTERVALS: u32 = 3;

const ACCEPT_TEXT: &str = "text/plain;version=0.0.4, text/plain;q=0.9, */*;q=0.1";
const ACCEPT_JSON: &str = "application/json, */*;q=0.1";

/// One pool.
pub(super) struct Reported {
    name: String,
    limit: Option<u64>,
    interval: Duration,
    poller: Arc<Poller>,
    answer: Arc<Answer>,
}

/// The newest answer for one pool, and when it came.
#[derive(Default)]
struct Answer(Mutex<Option<(Instant, Result<Values, Fault>)>>);

/// The task that asks one URL; dropping it ends it.
struct Poller {
    task: JoinHandle<()>,
    begun: Instant,
    patience: Duration,
}

/// What a page says of a pool.
#[derive(Clone, Debug, Default, PartialEq)]
struct Values {
    used: Option<f64>,
    idle: Option<f64>,
    limit: Option<f64>,
    waiting: Option<f64>,
    gave_up: Option<f64>,
}

/// The pools that are reported. Starts to ask, so it needs a runtime.
pub(super) fn reported(saturation: &Saturation) -> Vec<Reported> {
    let interval = saturation.interval;
    let mut pages: BTreeMap<(&str, Spelling), Vec<&Pool>> = BTreeMap::new();
    for pool in &saturation.pools {
        if let PoolKind::Reported { url, selectors, .. } = &pool.kind {
            pages.entry((url, Spelling::of(selectors))).or_default().push(pool);
        }
    }
    let mut reported = Vec::new();
    for ((url, spelling), pools) in pages {
        let answers: Vec<_> = pools.iter().map(|_| Arc::<Answer>::default()).collect();
        let told = pools.iter().zip(&answers).filter_map(|(pool, answer)| match &pool.kind {
            PoolKind::Reported { selectors, .. } => Some(((**selectors).clone(), Arc::clone(answer))),
            PoolKind::Inferred { .. } => None,
        });
        let poller = Arc::new(Poller::start(url, spelling, interval, told.collect()));
        reported.extend(pools.into_iter().zip(answers).map(|(Pool { name, limit, .. }, answer)| Reported {
            name: name.clone(),
            limit: *limit,
            interval,
            poller: Arc::clone(&poller),
            answer,
        }));
    }
    reported
}

// === impl Reported ===

impl Probe for Reported {
    fn source(&self) -> Cow<'static, str> {
        self.resource().into()
    }

    fn read(&mut self, round: &mut Round<'_>) -> Result<(), Fault> {
        let Some((came, values)) = self.answer.newest() else {
            if round.now.saturating_duration_since(self.poller.begun) <= self.poller.patience {
                return Ok(());
            }
            return Err(Fault::new(Trouble::Timeout, "the pool's page did not come yet"));
        };
        let valid_for = self.interval * VALID_INTERVALS + Duration::from_secs(1);
        if round.now.saturating_duration_since(came) > valid_for {
            return Err(Fault::new(Trouble::Timeout, "the pool's page did not come lately"));
        }
        let Values { used, idle, limit, waiting, gave_up } = values?;
        let limit = self.limit.map(|limit| limit as f64).or(limit).filter(|limit| *limit > 0.0);
        for (state, value) in [("in_use", used), ("idle", idle), ("waiting", waiting)] {
            if let Some(value) = value {
                let labels = [Cow::from(self.name.clone()), state.into(), "reported".into()];
                round.notes.gauge(&f::POOL_CONNECTIONS, labels, value);
            }
        }
        if let Some(limit) = limit {
            round.notes.gauge(&f::POOL_SIZE_LIMIT, [self.name.clone()], limit);
        }
        if let (Some(used), Some(limit)) = (used, limit) {
            round.notes.usage(self.resource(), used, limit);
        }
        // A new backend counts from 0 again.
        let whose = round.backend.generation;
        match gave_up {
            Some(count) if !round.notes.follow(&f::POOL_GAVE_UP, [self.name.clone()], whose, count) => {
                Err(Fault::new(Trouble::WentBack, "the pool's count of those who gave up went back"))
            }
            _ => Ok(()),
        }
    }
}

impl Reported {
    /// The name of the source and of the resource.
    fn resource(&self) -> String {
        format!("pool:{}", self.name)
    }
}

// === impl Answer ===

impl Answer {
    fn newest(&self) -> Option<(Instant, Result<Values, Fault>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, values: Result<Values, Fault>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), values));
    }
}

// === impl Poller ===

impl Poller {
    fn start(url: &str, spelling: Spelling, interval: Duration, pools: Vec<(PoolSelectors, Arc<Answer>)>) -> Poller {
        let period = interval.max(PERIOD_MIN);
        let patience = period.min(PATIENCE_MAX);
        let fetcher = Fetcher::new(url, spelling.accept(), SIZE_MAX);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(period);
            // One question at a time: those that were due during a slow answer are not made up for.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                let page = fetcher.get(patience).await;
                let page = page.map_err(|failure| Fault::new(failure.trouble(), format!("the pool's page: {failure}")));
                let each: Vec<_> = match page {
                    Ok(page) => spelling.values(&page, pools.iter().map(|(selectors, _)| selectors)),
                    Err(fault) => vec![Err(fault); pools.len()],
                };
                for ((_, answer), values) in pools.iter().zip(each) {
                    answer.put(values);
                }
            }
        });
        Poller { task, begun: Instant::now(), patience }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Spelling {
    /// Prometheus text.
    Text,
    /// JSON.
    Json,
}

/// A page that was read far enough to look terms up.
enum Sheet<'a> {
    Text(text::Page<'a>),
    Json(BTreeMap<&'a str, Found>),
}

// === impl Spelling ===

impl Spelling {
    /// That of the page that these selectors are for.
    fn of(selectors: &PoolSelectors) -> Spelling {
        if terms(selectors).any(|term| matches!(term, Term::Pointer(_))) { Spelling::Json } else { Spelling::Text }
    }

    fn accept(self) -> &'static str {
        match self {
            Spelling::Text => ACCEPT_TEXT,
            Spelling::Json => ACCEPT_JSON,
        }
    }

    /// What the page says of each pool.
    fn values<'a>(
        self,
        page: &[u8],
        pools: impl Iterator<Item = &'a PoolSelectors> + Clone,
    ) -> Vec<Result<Values, Fault>> {
        let unreadable = |why: String| vec![Err(Fault::new(Trouble::Malformed, why)); pools.clone().count()];
        let sheet = match self {
            Spelling::Text => match text::parse(page) {
                Ok(page) => Sheet::Text(page),
                Err(error) => return unreadable(format!("the pool's page is no Prometheus text: {error}")),
            },
            Spelling::Json => {
                let pointers = pools.clone().flat_map(terms).filter_map(|term| match term {
                    Term::Pointer(pointer) => Some(pointer.as_str()),
                    Term::Number(_) | Term::Series { .. } => None,
                });
                let pointers: Vec<&str> = pointers.collect();
                match json::find(page, &pointers) {
                    Ok(found) => Sheet::Json(pointers.into_iter().zip(found).collect()),
                    Err(error) => {
                        let (line, column) = (error.line(), error.column());
                        return unreadable(format!("the pool's page is no JSON: line {line}, column {column}"));
                    }
                }
            }
        };
        pools.map(|selectors| values(&sheet, selectors)).collect()
    }
}

fn terms(selectors: &PoolSelectors) -> impl Iterator<Item = &Term> {
    let PoolSelectors { used, idle, limit, waiting, timeouts } = selectors;
    let each = [used, idle, limit, waiting, timeouts].into_iter().flatten();
    each.flat_map(|expression| expression.terms.iter().map(|(_, term)| term))
}

/// What a page says of one pool.
fn values(sheet: &Sheet<'_>, selectors: &PoolSelectors) -> Result<Values, Fault> {
    let PoolSelectors { used, idle, limit, waiting, timeouts } = selectors;
    let look = |expression: &Option<Expression>| expression.as_ref().map_or(Ok(None), |e| sheet.evaluate(e));
    // Counts cannot be negative; a page on which they are is not understood.
    let count = |what: &str, expression: &Option<Expression>| match look(expression)? {
        Some(value) if !(value >= 0.0 && value.is_finite()) => {
            Err(Fault::new(Trouble::Malformed, format!("the page says that {what} is {value}")))
        }
        value => Ok(value),
    };
    let in_use = count("used", used)?;
    if let (Some(expression), None) = (used, in_use) {
        return Err(Fault::new(Trouble::Malformed, format!("the page has no {}", expression.text)));
    }
    Ok(Values {
        used: in_use,
        idle: count("idle", idle)?,
        limit: look(limit)?.filter(|limit| *limit > 0.0 && limit.is_finite()),
        waiting: count("waiting", waiting)?,
        gave_up: count("timeouts", timeouts)?,
    })
}

// === impl Sheet ===

impl Sheet<'_> {
    /// The sum; `None` when one of its terms is not on the page.
    fn evaluate(&self, expression: &Expression) -> Result<Option<f64>, Fault> {
        let mut sum = 0.0;
        for (plus, term) in &expression.terms {
            let Some(value) = self.look_up(term)? else { return Ok(None) };
            sum += if *plus { value } else { -value };
        }
        Ok(Some(sum))
    }

    fn look_up(&self, term: &Term) -> Result<Option<f64>, Fault> {
        match (term, self) {
            (Term::Number(value), _) => Ok(Some(*value)),
            (Term::Series { name, labels }, Sheet::Text(page)) => Ok(page.sum(name, labels)),
            (Term::Pointer(pointer), Sheet::Json(found)) => match found.get(pointer.as_str()).copied() {
                None | Some(Found::Absent) => Ok(None),
                Some(Found::Number(value)) => Ok(Some(value)),
                Some(Found::Other) => {
                    Err(Fault::new(Trouble::Malformed, format!("{pointer} of the page is not a number")))
                }
            },
            (Term::Series { .. }, Sheet::Json(_)) | (Term::Pointer(_), Sheet::Text(_)) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::saturation::backend::Backend;
    use crate::saturation::limits::Facts;
    use crate::saturation::notes::Notes;

    const SOON: Duration = Duration::from_secs(10);

    fn sum(text: &str, terms: Vec<(bool, Term)>) -> Option<Expression> {
        Some(Expression { text: text.to_owned(), terms })
    }

    fn series(name: &str, pool: &str) -> Option<Expression> {
        let labels = vec![("pool".to_owned(), true, pool.to_owned())];
        sum(&format!("{name}{{pool=\"{pool}\"}}"), vec![(true, Term::Series { name: name.to_owned(), labels })])
    }

    fn pointer(pointer: &str) -> (bool, Term) {
        (true, Term::Pointer(pointer.to_owned()))
    }

    /// As the preset for HikariCP behind Micrometer has it.
    fn hikari(pool: &str) -> PoolSelectors {
        PoolSelectors {
            used: series("hikaricp_connections_active", pool),
            idle: series("hikaricp_connections_idle", pool),
            limit: series("hikaricp_connections_max", pool),
            waiting: series("hikaricp_connections_pending", pool),
            timeouts: series("hikaricp_connections_timeout_total", pool),
        }
    }

    const HIKARI: &str = "hikaricp_connections_active{pool=\"a\"} 3.0\nhikaricp_connections_active{pool=\"b\"} 5.0\n\
        hikaricp_connections_idle{pool=\"a\"} 7.0\nhikaricp_connections_max{pool=\"a\"} 11.0\n\
        hikaricp_connections_pending{pool=\"a\"} 13.0\nhikaricp_connections_timeout_total{pool=\"a\"} 17.0\n";

    fn text_values(page: &str, selectors: &PoolSelectors) -> Result<Values, Fault> {
        assert_eq!(Spelling::of(selectors), Spelling::Text);
        Spelling::Text.values(page.as_bytes(), std::iter::once(selectors)).remove(0)
    }

    fn json_values(page: &str, selectors: &PoolSelectors) -> Result<Values, Fault> {
        assert_eq!(Spelling::of(selectors), Spelling::Json);
        Spelling::Json.values(page.as_bytes(), std::iter::once(selectors)).remove(0)
    }

    #[test]
    fn each_number_of_a_prometheus_page_goes_to_its_own_place() {
        let (used, idle, limit, waiting, gave_up) = (Some(3.0), Some(7.0), Some(11.0), Some(13.0), Some(17.0));
        assert_eq!(text_values(HIKARI, &hikari("a")), Ok(Values { used, idle, limit, waiting, gave_up }));
        let b = Values { used: Some(5.0), ..Values::default() };
        assert_eq!(text_values(HIKARI, &hikari("b")), Ok(b), "what is not on the page is absent");
        let fault = text_values(HIKARI, &hikari("c")).unwrap_err();
        assert_eq!(fault.trouble, Trouble::Malformed);
        assert_eq!(fault.detail, "the page has no hikaricp_connections_active{pool=\"c\"}");
        assert_eq!(text_values("<html>", &hikari("a")).unwrap_err().trouble, Trouble::Malformed);
    }

    #[test]
    fn each_number_of_a_json_page_goes_to_its_own_place() {
        let minus = (false, Term::Pointer("/pool/free".to_owned()));
        let selectors = PoolSelectors {
            used: sum("/pool/total - /pool/free + 1", vec![pointer("/pool/total"), minus, (true, Term::Number(1.0))]),
            idle: sum("/pool/free", vec![pointer("/pool/free")]),
            limit: sum("/max", vec![pointer("/max")]),
            waiting: sum("/queue/0", vec![pointer("/queue/0")]),
            timeouts: sum("/gone", vec![pointer("/gone")]),
        };
        let page = r#"{"pool": {"total": 12, "free": 5}, "max": -1, "queue": [2], "gone": null}"#;
        let expected = Values { used: Some(8.0), idle: Some(5.0), limit: None, waiting: Some(2.0), gave_up: None };
        assert_eq!(json_values(page, &selectors), Ok(expected));
        let fault = json_values(&page.replace("12", "\"12\""), &selectors).unwrap_err();
        assert_eq!(
            (fault.trouble, fault.detail.as_str()),
            (Trouble::Malformed, "/pool/total of the page is not a number")
        );
        for broken in [
            "",
            "{",
            "{\"pool\": 1}",
            &page.replace("12", "null"),
            &page.replace("12", "1"),
            &page.replace("[2]", "[-2]"),
        ] {
            assert_eq!(json_values(broken, &selectors).unwrap_err().trouble, Trouble::Malformed, "{broken}");
        }
    }

    #[test]
    fn numbers_that_no_pool_can_have_are_not_taken() {
        for used in ["-1", "NaN", "+Inf"] {
            let page = format!("hikaricp_connections_active{{pool=\"a\"}} {used}\n");
            assert_eq!(text_values(&page, &hikari("a")).unwrap_err().trouble, Trouble::Malformed, "{used}");
        }
        for limit in ["-1", "0", "NaN", "+Inf"] {
            let page = format!(
                "hikaricp_connections_active{{pool=\"a\"}} 1\nhikaricp_connections_max{{pool=\"a\"}} {limit}\n"
            );
            assert_eq!(text_values(&page, &hikari("a")).unwrap().limit, None, "{limit}");
        }
    }

    /// A backend that answers each request with what it holds; empty: not at all. Counts questions and those on the way.
    #[derive(Clone, Default)]
    struct Page {
        answer: Arc<Mutex<String>>,
        asked: Arc<AtomicUsize>,
        connections: Arc<AtomicUsize>,
    }

    impl Page {
        async fn serve(body: &str) -> (Page, String) {
            let page = Page::default();
            page.say(body);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/metrics", listener.local_addr().unwrap());
            let served = page.clone();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let page = served.clone();
                    page.connections.fetch_add(1, SeqCst);
                    tokio::spawn(async move {
                        while stream.read(&mut [0; 4096]).await.is_ok_and(|length| length > 0) {
                            page.asked.fetch_add(1, SeqCst);
                            let body = page.answer.lock().unwrap().clone();
                            if !body.is_empty() {
                                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                                stream.write_all(answer.as_bytes()).await.unwrap();
                            }
                        }
                    });
                }
            });
            (page, url)
        }

        fn say(&self, body: &str) {
            *self.answer.lock().unwrap() = body.to_owned();
        }
    }

    fn pool(name: &str, url: &str, selectors: PoolSelectors, limit: Option<u64>) -> Pool {
        let kind = PoolKind::Reported { url: url.to_owned(), preset: None, selectors: Box::new(selectors) };
        Pool { name: name.to_owned(), kind, limit }
    }

    fn saturation(pools: Vec<Pool>) -> Saturation {
        Saturation { interval: Duration::from_millis(100), backend: Default::default(), pools }
    }

    fn read(probe: &mut Reported, notes: &mut Notes) -> Result<(), Fault> {
        read_at(Instant::now(), probe, notes)
    }

    fn read_at(now: Instant, probe: &mut Reported, notes: &mut Notes) -> Result<(), Fault> {
        notes.begin_round();
        let (backend, mut facts) = (Backend::default(), Facts::default());
        probe.read(&mut Round { now, deadline: now, backend: &backend, facts: &mut facts, notes })
    }

    /// Reads until the condition holds.
    async fn until(probe: &mut Reported, notes: &mut Notes, mut holds: impl FnMut(&Result<(), Fault>, &Notes) -> bool) {
        let begun = Instant::now();
        loop {
            let result = read(probe, notes);
            if holds(&result, notes) {
                return;
            }
            assert!(begun.elapsed() < SOON, "{result:?} {:?}", notes.points());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn told(notes: &Notes) -> Vec<String> {
        let points = notes.points();
        points.iter().map(|point| format!("{}{:?} {}", point.family.name, point.labels, point.value)).collect()
    }

    #[tokio::test]
    async fn a_pool_is_noted_with_all_that_its_page_says() {
        let (page, url) = Page::serve(HIKARI).await;
        let pools = vec![pool("a", &url, hikari("a"), None), pool("b", &url, hikari("b"), Some(10))];
        let mut probes = reported(&saturation(pools));
        let mut notes = Notes::default();
        assert_eq!(read(&mut probes[0], &mut notes), Ok(()), "nothing has come yet, which is no fault");
        assert_eq!(told(&notes), [""; 0]);
        until(&mut probes[0], &mut notes, |_, notes| !notes.points().is_empty()).await;
        let expected = [
            r#"golden_pool_connections["a", "in_use", "reported"] 3"#,
            r#"golden_pool_connections["a", "idle", "reported"] 7"#,
            r#"golden_pool_connections["a", "waiting", "reported"] 13"#,
            r#"golden_pool_limit["a"] 11"#,
            r#"golden_pool_timeouts_total["a"] 17"#,
        ];
        assert_eq!(told(&notes), expected);
        let usage = &notes.usages()[0];
        assert_eq!((&*usage.resource, usage.used, usage.limit), ("pool:a", 3.0, 11.0));
        assert_eq!(probes[0].source(), "pool:a");

        // One page for both, over one connection.
        let mut notes = Notes::default();
        until(&mut probes[1], &mut notes, |_, notes| !notes.points().is_empty()).await;
        assert_eq!(
            told(&notes),
            [r#"golden_pool_connections["b", "in_use", "reported"] 5"#, r#"golden_pool_limit["b"] 10"#]
        );
        assert_eq!(page.connections.load(SeqCst), 1);

        page.say(&HIKARI.replace("17.0", "16.0"));
        let went_back = |result: &Result<(), Fault>| matches!(result, Err(fault) if fault.trouble == Trouble::WentBack);
        let mut notes = Notes::default();
        until(&mut probes[0], &mut notes, |result, _| went_back(result)).await;
        assert_eq!(notes.points().len(), 5, "the rest is noted");

        drop(probes);
        let asked = page.asked.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(page.asked.load(SeqCst) <= asked + 1, "nobody asks for a pool that is gone");
    }

    #[tokio::test]
    async fn a_page_that_fails_leaves_nothing_and_comes_back() {
        let (page, url) = Page::serve("").await;
        let mut probe = reported(&saturation(vec![pool("a", &url, hikari("a"), None)])).remove(0);
        let mut notes = Notes::default();
        for (body, trouble) in [
            ("", Trouble::Timeout),
            ("{}", Trouble::Malformed),
            (&*"x".repeat(SIZE_MAX as usize + 1), Trouble::TooLarge),
        ] {
            page.say(body);
            until(&mut probe, &mut notes, |result, notes| {
                assert!(result.is_ok() || notes.points().iter().all(|point| point.family.kind == f::POOL_GAVE_UP.kind));
                matches!(result, Err(fault) if fault.trouble == trouble)
            })
            .await;
            page.say(HIKARI);
            until(&mut probe, &mut notes, |result, notes| result.is_ok() && notes.points().len() == 5).await;
        }
    }

    #[tokio::test]
    async fn a_backend_that_is_not_there_is_unreachable() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let url = format!("http://user:secret@{free}/");
        let mut probe = reported(&saturation(vec![pool("a", &url, hikari("a"), None)])).remove(0);
        let mut notes = Notes::default();
        until(&mut probe, &mut notes, |result, _| match result {
            Err(fault) => {
                assert!(!fault.detail.contains("secret"), "{fault}");
                fault.trouble == Trouble::Unreachable
            }
            Ok(()) => false,
        })
        .await;
    }

    #[tokio::test]
    async fn an_answer_that_is_too_old_is_worth_nothing() {
        let begun = Instant::now();
        let poller = Arc::new(Poller { task: tokio::spawn(async {}), begun, patience: Duration::from_secs(1) });
        let (answer, interval) = (Arc::<Answer>::default(), Duration::from_secs(2));
        let mut probe = Reported { name: "a".into(), limit: None, interval, poller, answer: Arc::clone(&answer) };
        let mut notes = Notes::default();
        let (second, moment) = (Duration::from_secs(1), Duration::from_millis(1));
        assert_eq!(read_at(begun + second, &mut probe, &mut notes), Ok(()));
        let late = read_at(begun + second + moment, &mut probe, &mut notes).unwrap_err();
        assert_eq!(late.trouble, Trouble::Timeout);
        answer.put(Ok(Values { used: Some(1.0), ..Values::default() }));
        let (came, _) = answer.newest().unwrap();
        assert_eq!(read_at(came + 7 * second, &mut probe, &mut notes), Ok(()));
        assert_eq!(notes.points().len(), 1);
        let late = read_at(came + 7 * second + moment, &mut probe, &mut notes).unwrap_err();
        assert_eq!(late.trouble, Trouble::Timeout);
        assert!(notes.points().is_empty());
    }
}
