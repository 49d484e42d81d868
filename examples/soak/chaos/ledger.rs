//! The books of the generator, and their comparison with the metrics page.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::page::Page;
use super::plan::{Group, Kind, Plan};

/// How a request ended, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// An answer: its status, the word of the sidecar if it made it (`details` of `Proxy-Status`), and whether all of it came.
    Answer(u16, Option<String>, bool),
    /// The client left; with the status that it had got.
    Left(Option<u16>),
    /// What was sent is no request.
    NoRequest,
    /// Something that no plan foresees.
    Broken(String),
}

/// Group, method, status as text, origin.
type Request = (Group, &'static str, String, &'static str);

/// What must be on the page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// Finished, by kind; requests or not.
    pub kinds: BTreeMap<Kind, u64>,
    requests: BTreeMap<Request, u64>,
    errors: BTreeMap<(Group, String), u64>,
    aborts: BTreeMap<(Group, &'static str), u64>,
    truncated: BTreeMap<Group, u64>,
    streams: BTreeMap<&'static str, u64>,
    tunnels: u64,
    /// What no plan foresees; the first ones in words.
    pub broken: Vec<String>,
    /// How many of those.
    pub broken_count: u64,
}

impl Ledger {
    /// Requests that the sidecar must have counted.
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// Event streams and tunnels, which have no duration as requests.
    fn without_duration(&self) -> u64 {
        self.tunnels + self.streams.values().sum::<u64>()
    }

    /// Requests by what became of them: a word and how many.
    pub fn summary(&self) -> Vec<(&'static str, u64)> {
        let by = |origin: &str| self.requests.iter().filter(|(key, _)| key.3 == origin).map(|(_, count)| count).sum();
        vec![
            ("answered by the backend", by("backend")),
            ("answered by the sidecar", by("proxy")),
            ("left by the client", by("client")),
            ("failed", self.errors.values().sum()),
            ("cut", self.truncated.values().sum()),
        ]
    }

    /// Enters a request.
    pub fn enter(&mut self, plan: &Plan, seen: Seen) {
        *self.kinds.entry(plan.kind).or_default() += 1;
        let method = plan.method_label();
        let group = plan.group;
        let mut request =
            |status: String, origin| *self.requests.entry((group, method, status, origin)).or_default() += 1;
        match seen {
            Seen::NoRequest => {}
            Seen::Broken(what) => {
                self.broken_count += 1;
                if self.broken.len() < 20 {
                    self.broken.push(format!("{} {}: {what}", plan.method, plan.path));
                }
            }
            Seen::Left(status) => {
                request(status.map_or_else(String::new, |status| status.to_string()), "client");
                let phase = if status.is_some() { "during_body" } else { "before_head" };
                if plan.kind == Kind::LeaveEvents {
                    *self.streams.entry("client_abort").or_default() += 1;
                } else {
                    *self.aborts.entry((group, phase)).or_default() += 1;
                }
            }
            Seen::Answer(status, Some(word), whole) => {
                request(status.to_string(), "proxy");
                *self.errors.entry((group, word)).or_default() += 1;
                if !whole {
                    self.broken_count += 1;
                    self.broken.push(format!("{}: the sidecar's own answer was cut", plan.path));
                }
            }
            Seen::Answer(status, None, true) => {
                request(status.to_string(), "backend");
                if status >= 500 {
                    *self.errors.entry((group, status.to_string())).or_default() += 1;
                }
                match plan.kind {
                    Kind::Tunnel if status == 101 => self.tunnels += 1,
                    Kind::Events => *self.streams.entry("complete").or_default() += 1,
                    _ => {}
                }
            }
            Seen::Answer(status, None, false) => match plan.kind.cut() {
                Some(error) => {
                    request(status.to_string(), "backend");
                    *self.errors.entry((group, error.to_owned())).or_default() += 1;
                    *self.truncated.entry(group).or_default() += 1;
                }
                None => self.enter_broken(plan, &format!("an answer with {status} was cut")),
            },
        }
    }

    fn enter_broken(&mut self, plan: &Plan, what: &str) {
        self.broken_count += 1;
        if self.broken.len() < 20 {
            self.broken.push(format!("{} {}: {what}", plan.method, plan.path));
        }
    }

    /// Everything in which the page differs.
    pub fn compare(&self, page: &Page) -> Vec<String> {
        let mut misses = Vec::new();
        let requests = page.counts("golden_requests_total", |labels| {
            (
                Group::of_route(labels.get("http_route")),
                labels.get("http_request_method").to_owned(),
                labels.get("http_response_status_code").to_owned(),
                labels.get("origin").to_owned(),
            )
        });
        let own = self.requests.iter();
        let own = own.map(|((group, method, status, origin), n)| {
            ((*group, (*method).to_owned(), status.clone(), (*origin).to_owned()), *n)
        });
        differ("golden_requests_total", own.collect(), requests, &mut misses);
        let errors = page.counts("golden_errors_total", |labels| {
            (Group::of_route(labels.get("http_route")), labels.get("error_type").to_owned())
        });
        differ("golden_errors_total", self.errors.clone(), errors, &mut misses);
        let aborts = page.counts("golden_client_aborts_total", |labels| {
            (Group::of_route(labels.get("http_route")), labels.get("phase").to_owned())
        });
        let own = self.aborts.iter().map(|((group, phase), n)| ((*group, (*phase).to_owned()), *n)).collect();
        differ("golden_client_aborts_total", own, aborts, &mut misses);
        let cut = page.counts("golden_truncated_responses_total", |labels| Group::of_route(labels.get("http_route")));
        differ("golden_truncated_responses_total", self.truncated.clone(), cut, &mut misses);
        let streams = page.counts("golden_stream_duration_seconds_count", |labels| labels.get("end").to_owned());
        let own = self.streams.iter().map(|(end, n)| ((*end).to_owned(), *n)).collect();
        differ("golden_stream_duration_seconds", own, streams, &mut misses);
        let mut single = |name: &str, own: u64| {
            let have = page.counts(name, |_| ());
            differ(name, BTreeMap::from([((), own)]), have, &mut misses);
        };
        single("golden_upgraded_connections_opened_total", self.tunnels);
        single("http_server_request_duration_seconds_count", self.total() - self.without_duration());
        for gauge in [
            "http_server_active_requests",
            "golden_inflight_requests",
            "golden_server_connections",
            "golden_upgraded_connections",
            "golden_streams",
            "golden_upstream_pool_waiting",
        ] {
            single(gauge, 0);
        }
        misses
    }
}

fn differ<K: Ord + Debug>(name: &str, own: BTreeMap<K, u64>, page: BTreeMap<K, u64>, misses: &mut Vec<String>) {
    for (key, count) in &own {
        let have = page.get(key).copied().unwrap_or_default();
        if have != *count {
            misses.push(format!("{name} {key:?}: the page says {have}, the generator {count}"));
        }
    }
    for (key, count) in page.iter().filter(|(key, count)| **count > 0 && !own.contains_key(key)) {
        misses.push(format!("{name} {key:?}: the page says {count}, the generator knows of none"));
    }
}
