//! Shards → the snapshot that pages are made of: the one place where labels become texts. Runs on the admin thread, per
//! scrape. A list of series is locked for no longer than it takes to copy a pointer.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::labels::{
    AbortPhase, CloseReason, ConnectionEnd, Direction, FirstByte, Method, OverheadDirection, Phase, RejectReason,
    Resource, RetryResult, RouteId, RouteKind, SloResult, StreamEnd, TlsFailure, TlsSide, TunnelProtocol,
};
use crate::signals::families::{self as f, Bounded, Family};
use crate::signals::keys::{DurationKey, ErrorKey, Key, RequestKey, RouteOnly, RpcKey};
use crate::signals::moment::Moment;
use crate::signals::sampled::RATIO_EDGES;
use crate::signals::shard::{Cells, Labelled, POISON, RouteGauges, Shard};
use crate::signals::snapshot::{Histogram, Kind, Metric, MetricFamily, Text, Value};
use crate::signals::store::{self, Event, Total, TracedCounter};
use crate::signals::{Bounds, Signals, preset_of, total};

/// All numbers at one moment. Families without a series are left out.
#[must_use]
pub fn snapshot(signals: &Signals) -> Vec<MetricFamily> {
    snapshot_at(signals, Instant::now())
}

/// As [`snapshot`]; `now` decides what is idle.
pub(super) fn snapshot_at(signals: &Signals, now: Instant) -> Vec<MetricFamily> {
    Page::new(signals, now).build()
}

/// When each label set that is kept per route changed last, as scrapes saw it. As many as there are label sets, and
/// none when idle ones are shown anyway.
#[derive(Debug, Default)]
pub(super) struct Idle {
    after: Option<Duration>,
    seen: [HashMap<(RouteId, u32), (u64, Instant)>; Bounded::COUNT],
}

// === impl Idle ===

impl Idle {
    /// Leaves out what has not changed for that long, or nothing.
    pub fn set(&mut self, after: Option<Duration>) {
        self.after = after;
        if after.is_none() {
            self.seen = Default::default();
        }
    }

    /// Whether a label set that has counted this much is on the page.
    fn shows(&mut self, family: Bounded, set: (RouteId, u32), count: u64, now: Instant) -> bool {
        let Some(after) = self.after else { return true };
        let seen = self.seen[family as usize].entry(set).or_insert((count, now));
        if seen.0 != count {
            *seen = (count, now);
        }
        now.saturating_duration_since(seen.1) < after
    }
}

/// What the sampler counts itself, from 0 at the start, among what it notes.
static COUNTED_BY_THE_SAMPLER: [&Family; 3] = [&f::SAMPLER_FAILURES, &f::SAMPLER_READ_SECONDS, &f::BACKEND_RESTARTS];

/// A page under construction.
struct Page<'a> {
    signals: &'a Signals,
    shards: &'a [Arc<Shard>],
    now: Instant,
    /// Seconds since 1970 at moment 0.
    offset: f64,
    /// When all that is not kept per route began to count.
    started: Option<f64>,
    routes: Vec<Route>,
    families: Vec<MetricFamily>,
}

/// What a page needs to know of a route.
struct Route {
    name: Arc<str>,
    kind: Option<RouteKind>,
    since: Option<u64>,
}

/// A counter over all workers.
struct Counted {
    count: u64,
    latest: Option<Event>,
    since: u64,
}

/// What a cell of a counter says.
trait Count {
    fn count(&self) -> (u64, Option<Event>);
}

impl Count for store::Counter {
    fn count(&self) -> (u64, Option<Event>) {
        (self.get(), None)
    }
}

impl Count for TracedCounter {
    fn count(&self) -> (u64, Option<Event>) {
        self.get()
    }
}

impl<'a> Page<'a> {
    fn new(signals: &'a Signals, now: Instant) -> Self {
        let started = Some(signals.started_seconds());
        let families = Vec::with_capacity(f::all().count());
        let (offset, shards) = (signals.clock.offset(), signals.shards());
        Page { signals, shards, now, offset, started, routes: Vec::new(), families }
    }

    fn build(mut self) -> Vec<MetricFamily> {
        // What is in flight is read before what has ended, and a worker writes the other way round: on a page where
        // nothing is in flight, everything has been counted.
        self.client_side();
        self.per_route();
        self.per_route_and_label_set();
        self.slos();
        self.backend_side();
        self.sampled();
        self.itself();
        self.families.retain(|family| !family.metrics.is_empty());
        self.families
    }

    fn per_route_and_label_set(&mut self) {
        self.push_counters::<RequestKey, _>(Bounded::Requests, |s| &s.requests);
        self.push_histograms::<DurationKey>(Bounded::Duration, |s| &s.durations);
        self.push_histograms::<FirstByte>(Bounded::FirstByte, |s| &s.first_bytes);
        self.push_counters::<ErrorKey, _>(Bounded::Errors, |s| &s.errors);
        self.push_implicit_errors();
        self.push_counters::<AbortPhase, _>(Bounded::Aborts, |s| &s.aborts);
        self.push_histograms::<RouteOnly>(Bounded::AbortWait, |s| &s.abort_waits);
        self.push_histograms::<StreamEnd>(Bounded::StreamDuration, |s| &s.stream_durations);
        self.push_histograms::<RpcKey>(Bounded::RpcDuration, |s| &s.rpc_durations);
    }

    fn slos(&mut self) {
        let lists: Vec<_> = self.shards.iter().map(|shard| shard.slos.all()).collect();
        // After the lists: then every number in them is known.
        let known = self.signals.slos.known();
        let mut counts = vec![[0; SloResult::COUNT]; known.names.len()];
        for (number, cells) in lists.iter().flat_map(|list| list.iter()) {
            counts[*number].iter_mut().zip(&**cells).for_each(|(sum, cell)| *sum += cell.get());
        }
        let mut requests = Vec::with_capacity(counts.len() * SloResult::COUNT);
        for ((name, since), counts) in known.names.iter().zip(counts) {
            let created = Some(self.signals.clock.created(*since));
            for (result, count) in SloResult::ALL.iter().zip(counts) {
                let labels = [Text::Shared(Arc::clone(name)), result.as_str().into()];
                requests.push(simple(&f::SLO_REQUESTS, labels, count as f64, created));
            }
        }
        let (mut objectives, mut thresholds) = (Vec::new(), Vec::new());
        for (number, slo) in known.current.iter() {
            let name = || [Text::Shared(Arc::clone(&known.names[*number].0))];
            objectives.push(simple(&f::SLO_OBJECTIVE, name(), slo.objective, None));
            thresholds.extend(slo.latency_seconds().map(|latency| simple(&f::SLO_THRESHOLD, name(), latency, None)));
        }
        drop(known);
        self.families.push(collected(&f::SLO_REQUESTS, requests));
        self.families.push(collected(&f::SLO_OBJECTIVE, objectives));
        self.families.push(collected(&f::SLO_THRESHOLD, thresholds));
    }

    fn per_route(&mut self) {
        let lists: Vec<_> = self.shards.iter().map(|shard| shard.routes.all()).collect();
        self.learn_routes();
        let known = self.routes.iter().enumerate().filter(|(_, route)| route.since.is_some());
        let mut known: BTreeMap<RouteId, Vec<_>> = known.map(|(id, _)| (RouteId(id as u16), Vec::new())).collect();
        for (id, gauges) in lists.iter().flat_map(|list| list.iter()) {
            known.entry(*id).or_default().push(Arc::clone(gauges));
        }
        let now = Moment::now().nanos();
        let of = |gauges: &Vec<Arc<RouteGauges>>, pick: fn(&RouteGauges) -> f64| -> f64 {
            gauges.iter().map(|g| pick(g)).sum()
        };
        let clock = &self.signals.clock;
        let mut push = |family: &'static Family, value: &dyn Fn(&Vec<Arc<RouteGauges>>) -> f64| {
            let metrics = known.iter().map(|(id, gauges)| {
                let route = &self.routes[id.index()];
                let created = route.since.map(|since| clock.created(since));
                simple(family, [Text::Shared(Arc::clone(&route.name))], value(gauges), created)
            });
            self.families.push(collected(family, metrics.collect()));
        };
        push(&f::INFLIGHT, &|g| of(g, |g| g.inflight.get() as f64).max(0.0));
        push(&f::INFLIGHT_OLDEST, &|g| {
            let oldest = g.iter().map(|g| g.oldest.get()).filter(|start| *start != 0).min();
            oldest.map_or(0.0, |start| now.saturating_sub(start) as f64 / 1e9)
        });
        push(&f::REQUEST_BYTES, &|g| of(g, |g| g.request_bytes.get() as f64));
        push(&f::RESPONSE_BYTES, &|g| of(g, |g| g.response_bytes.get() as f64));
        push(&f::TRUNCATED, &|g| of(g, |g| g.truncated.get() as f64));
        push(&f::STREAMS, &|g| of(g, |g| g.streams.get() as f64).max(0.0));
    }

    fn client_side(&mut self) {
        let shards = self.shards;
        self.push_each(
            &f::ACTIVE_REQUESTS,
            Method::ALL,
            |m| m.as_str(),
            |m| shards.iter().map(|s| s.active_requests[m.index()].get()).sum::<i64>().max(0) as f64,
        );
        if let Some(limit) = self.bound(|b| &b.inflight) {
            self.push_one(&f::INFLIGHT_LIMIT, limit);
        }
        let peak = self.signals.inflight_peak() as f64;
        self.families.push(collected(&f::INFLIGHT_PEAK, vec![simple(&f::INFLIGHT_PEAK, ["1m".into()], peak, None)]));
        let gauge = |pick: fn(&Shard) -> &store::Gauge| shards.iter().map(|s| pick(s).get()).sum::<i64>().max(0) as f64;
        self.push_pair(
            &f::SERVER_CONNECTIONS,
            [("active", gauge(|s| &s.connections_active)), ("idle", gauge(|s| &s.connections_idle))],
        );
        if let Some(limit) = self.bound(|b| &b.connections) {
            self.push_one(&f::SERVER_CONNECTIONS_LIMIT, limit);
        }
        self.push_one(&f::SERVER_CONNECTIONS_OPENED, total(shards, |s| &s.connections_opened) as f64);
        self.push_each(
            &f::SERVER_CONNECTIONS_REJECTED,
            RejectReason::ALL,
            |r| r.as_str(),
            |r| total(shards, |s| &s.connections_rejected[r.index()]) as f64,
        );
        self.push_each(
            &f::SERVER_CONNECTIONS_CLOSED,
            ConnectionEnd::ALL,
            |r| r.as_str(),
            |r| total(shards, |s| &s.connections_closed[r.index()]) as f64,
        );
        let mut failures = Vec::new();
        for side in TlsSide::ALL {
            for reason in TlsFailure::ALL {
                let count = total(shards, |s| &s.tls_failures[side.index()][reason.index()]);
                let labels = [side.as_str().into(), reason.as_str().into()];
                failures.push(simple(&f::TLS_FAILURES, labels, count as f64, self.started));
            }
        }
        self.families.push(collected(&f::TLS_FAILURES, failures));
        self.push_one(&f::STREAMS_LIMIT_REACHED, total(shards, |s| &s.streams_limit_reached) as f64);
        self.push_each(
            &f::TUNNELS,
            TunnelProtocol::ALL,
            |p| p.as_str(),
            |p| shards.iter().map(|s| s.tunnels[p.index()].get()).sum::<i64>().max(0) as f64,
        );
        self.push_each(
            &f::TUNNELS_OPENED,
            TunnelProtocol::ALL,
            |p| p.as_str(),
            |p| total(shards, |s| &s.tunnels_opened[p.index()]) as f64,
        );
        let mut metrics = Vec::new();
        for protocol in TunnelProtocol::ALL {
            for direction in Direction::ALL {
                let bytes = total(shards, |s| &s.tunnel_bytes[protocol.index()][direction.index()]);
                let labels = [protocol.as_str().into(), direction.as_str().into()];
                metrics.push(simple(&f::TUNNEL_BYTES, labels, bytes as f64, self.started));
            }
        }
        self.families.push(collected(&f::TUNNEL_BYTES, metrics));
    }

    fn backend_side(&mut self) {
        let shards = self.shards;
        let phases = Phase::ALL.iter().filter(|p| **p != Phase::Head);
        let phases: Vec<_> =
            phases.map(|p| (p.as_str(), shards.iter().map(|s| &s.phases[p.index()]).collect())).collect();
        self.push_fixed_histograms(&f::PHASE, &phases);
        let overhead = OverheadDirection::ALL.iter();
        let overhead: Vec<_> =
            overhead.map(|d| (d.as_str(), shards.iter().map(|s| &s.overhead[d.index()]).collect())).collect();
        self.push_fixed_histograms(&f::OVERHEAD, &overhead);
        let gauge = |pick: fn(&Shard) -> &store::Gauge| shards.iter().map(|s| pick(s).get()).sum::<i64>().max(0) as f64;
        self.push_pair(
            &f::UPSTREAM_CONNECTIONS,
            [("active", gauge(|s| &s.upstream_active)), ("idle", gauge(|s| &s.upstream_idle))],
        );
        if let Some(limit) = self.bound(|b| &b.upstream_connections) {
            self.push_one(&f::POOL_LIMIT, limit);
        }
        self.push_one(&f::POOL_WAITING, gauge(|s| &s.pool_waiting));
        self.push_one(&f::POOL_TIMEOUTS, total(shards, |s| &s.pool_timeouts) as f64);
        self.push_one(&f::UPSTREAM_OPENED, total(shards, |s| &s.upstream_opened) as f64);
        self.push_each(
            &f::UPSTREAM_CLOSED,
            CloseReason::ALL,
            |r| r.as_str(),
            |r| total(shards, |s| &s.upstream_closed[r.index()]) as f64,
        );
        self.push_each(
            &f::RETRIES,
            RetryResult::ALL,
            |r| r.as_str(),
            |r| total(shards, |s| &s.retries[r.index()]) as f64,
        );
    }

    fn sampled(&mut self) {
        let signals = self.signals;
        let sampled = signals.sampled.lock().expect(POISON);
        // A sampler that stands still must not leave its last numbers behind.
        let fresh = sampled.latest.as_ref().filter(|latest| latest.at.elapsed() <= latest.valid_for);
        // The sidecar's own pairs are known at any moment; the others are as old as the last round of sampling.
        let mut ratios: Vec<(Text, f64)> = Vec::new();
        for resource in Resource::ALL {
            let ratio =
                signals.own_ratio(*resource).or_else(|| fresh.and_then(|latest| latest.ratio(resource.as_str())));
            ratios.extend(ratio.map(|ratio| (resource.as_str().into(), ratio)));
        }
        let known = |name: &str| Resource::ALL.iter().any(|resource| resource.as_str() == name);
        let pools = fresh.iter().flat_map(|latest| &latest.ratios).filter(|(name, _)| !known(name));
        ratios.extend(pools.map(|(name, ratio)| (text(name.clone()), *ratio)));
        let highest = ratios.iter().map(|(_, ratio)| *ratio).fold(0.0, f64::max);
        let bottleneck = ratios.iter().position(|(_, ratio)| *ratio > 0.0 && *ratio == highest);
        let each = |family: &'static Family, value: &dyn Fn(usize, f64) -> f64| {
            let metrics = ratios.iter().enumerate();
            let metrics = metrics.map(|(at, (name, ratio))| simple(family, [name.clone()], value(at, *ratio), None));
            collected(family, metrics.collect())
        };
        self.families.push(each(&f::SATURATION, &|_, ratio| ratio));
        self.families.push(each(&f::BOTTLENECK, &|at, _| f64::from(u8::from(bottleneck == Some(at)))));
        let histograms = sampled.latest.iter().flat_map(|latest| &latest.histograms);
        let edges: Arc<[f64]> = RATIO_EDGES.into();
        let histograms = histograms.map(|(resource, histogram)| {
            let (edges, counts) = (Arc::clone(&edges), histogram.buckets.to_vec());
            let histogram = Histogram { edges, counts, sum: histogram.sum, native: None, exemplars: Vec::new() };
            metric(
                &f::SATURATION_SAMPLED,
                [text(resource.clone())],
                Value::Histogram(Box::new(histogram)),
                self.started,
            )
        });
        self.families.push(collected(&f::SATURATION_SAMPLED, histograms.collect()));
        for family in f::SAMPLED {
            let points = sampled.latest.iter().flat_map(|latest| &latest.points);
            let points = points.filter(|point| std::ptr::eq(point.family, *family));
            // What was counted stays counted; what was measured is only worth as long as it is fresh.
            let points = points.filter(|_| fresh.is_some() || family.kind == Kind::Counter);
            // When the kernel or the backend began to count, nobody knows.
            let created = self.started.filter(|_| COUNTED_BY_THE_SAMPLER.iter().any(|own| std::ptr::eq(*own, *family)));
            let metrics =
                points.map(|point| simple(family, point.labels.iter().cloned().map(text), point.value, created));
            self.families.push(collected(family, metrics.collect()));
        }
        let busy = fresh.iter().flat_map(|latest| latest.worker_busy.iter().enumerate());
        let busy = busy.map(|(worker, ratio)| simple(&f::WORKER_BUSY, [worker.to_string().into()], *ratio, None));
        self.families.push(collected(&f::WORKER_BUSY, busy.collect()));
        if fresh.is_some() {
            self.push_one(&f::RUNTIME_LAG, sampled.lag_seconds);
        }
        self.push_one(&f::SAMPLER_TICKS, sampled.ticks as f64);
        self.push_one(&f::SAMPLER_MISSED, sampled.missed as f64);
    }

    fn itself(&mut self) {
        let signals = self.signals;
        self.learn_routes();
        let of = |kind: RouteKind| self.routes.iter().filter(|route| route.kind == Some(kind)).count() as f64;
        let kinds = RouteKind::ALL.iter().map(|kind| (kind.as_str(), of(*kind)));
        let kinds = kinds.chain([("pending", signals.routes_pending.load(Relaxed) as f64)]);
        let kinds = kinds.map(|(kind, routes)| simple(&f::ROUTES, [kind.into()], routes, None)).collect();
        self.families.push(collected(&f::ROUTES, kinds));
        self.push_one(&f::ROUTES_FOLDED, signals.routes_folded.load(Relaxed) as f64);
        self.push_one(&f::ROUTES_FORGOTTEN, signals.routes_forgotten.load(Relaxed) as f64);
        let shards = self.shards;
        self.push_each(
            &f::OVERFLOW,
            &Bounded::ALL,
            |b| b.family().name,
            |b| total(shards, |s| &s.overflow[*b as usize]) as f64,
        );
        let admitted = signals.admitted();
        self.push_each(&f::SERIES, &Bounded::ALL, |b| b.family().name, |b| admitted[*b as usize] as f64);
        self.push_one(&f::MEMORY, signals.memory.used() as f64);
        self.push_one(&f::MEMORY_LIMIT, signals.memory.limit() as f64);
    }

    /// Takes in the names of all routes. After a list of series: then every route that is in it is known.
    fn learn_routes(&mut self) {
        let routes = self.signals.routes.read().expect(POISON);
        let known = |info: &crate::signals::RouteInfo| {
            let crate::signals::RouteInfo { name, kind, edges: _, since } = info;
            Route { name: Arc::clone(name), kind: *kind, since: *since }
        };
        self.routes = routes.iter().map(known).collect();
    }

    fn bound(&self, pick: impl Fn(&Bounds) -> &AtomicU64) -> Option<f64> {
        match pick(self.signals.bounds()).load(Relaxed) {
            0 => None,
            limit => Some(limit as f64),
        }
    }

    /// The counters of one family by label set, those that are preset included.
    fn push_counters<K: Key, C: Count>(&mut self, family: Bounded, pick: impl Fn(&Shard) -> &Cells<C>) {
        let lists = self.shards.iter().map(|shard| pick(shard).all()).collect();
        self.learn_routes();
        let mut zeros = Vec::new();
        let preset = preset_of(family);
        if !preset.is_empty() {
            let admitted = self.signals.admitted.lock().expect(POISON);
            for (id, route) in self.routes.iter().enumerate() {
                let Some(since) = route.since else { continue };
                let id = RouteId(id as u16);
                let exists = |bits: &&u32| id == RouteId::OTHER || admitted[family as usize].contains(&(id, **bits));
                zeros.extend(preset.iter().filter(exists).map(|bits| ((id, *bits), since)));
            }
        }
        self.push_counted(family, lists, zeros, |bits, route| labels(family.family(), K::unpack(bits).values(route)));
    }

    /// The implicit errors by rule. A rule in force is at 0 on each route that it covers and that has series.
    fn push_implicit_errors(&mut self) {
        let family = Bounded::ImplicitErrors;
        let lists = self.shards.iter().map(|shard| shard.implicit_errors.all()).collect();
        self.learn_routes();
        // After the lists: then every number in them is known.
        let known = self.signals.implicit.known();
        let (names, current) = (known.names.clone(), Arc::clone(&known.current));
        drop(known);
        let mut zeros = Vec::new();
        for (id, route) in self.routes.iter().enumerate() {
            let Some(since) = route.since else { continue };
            let id = RouteId(id as u16);
            for (number, _) in current.iter().filter(|(_, rule)| rule.covers(&route.name)) {
                // There are NAMES_MAX numbers at most.
                let bits = *number as u32;
                if self.signals.admit(family, id, bits) {
                    zeros.push(((id, bits), since.max(names[*number].1)));
                }
            }
        }
        self.push_counted(family, lists, zeros, |bits, route| {
            let rule = &names[bits as usize].0;
            labels(family.family(), [route, rule].map(|text| Text::Shared(Arc::clone(text))))
        });
    }

    /// The counters of one family. `zeros`: label sets that are there in any case, and since when. `labels_of`: the
    /// labels that a route and a number stand for. The routes have been learned after the lists.
    fn push_counted<C: Count>(
        &mut self,
        family: Bounded,
        lists: Vec<Arc<Vec<Labelled<C>>>>,
        mut zeros: Vec<((RouteId, u32), u64)>,
        labels_of: impl Fn(u32, &Arc<str>) -> Vec<(Text, Text)>,
    ) {
        zeros.sort_unstable();
        let zero = |(set, since)| (set, Counted { count: 0, latest: None, since });
        let mut sums: BTreeMap<(RouteId, u32), Counted> = zeros.iter().copied().map(zero).collect();
        for Labelled { route, bits, since, cell } in lists.iter().flat_map(|list| list.iter()) {
            let (count, latest) = cell.count();
            let sum = sums.entry((*route, *bits)).or_insert(Counted { count: 0, latest: None, since: *since });
            sum.count += count;
            sum.since = sum.since.min(*since);
            sum.latest = sum.latest.into_iter().chain(latest).max_by_key(|event| event.traced.at);
        }
        let mut idle = self.signals.idle.lock().expect(POISON);
        let mut metrics = Vec::with_capacity(sums.len());
        for ((id, bits), Counted { count, latest, since }) in sums {
            let route = &self.routes[id.index()];
            let stays = route.kind == Some(RouteKind::Declared)
                && zeros.binary_search_by_key(&(id, bits), |zero| zero.0).is_ok();
            if !stays && !idle.shows(family, (id, bits), count, self.now) {
                continue;
            }
            let exemplar = latest.map(|event| {
                let mut exemplar = event.shown(self.offset);
                exemplar.value = 1.0;
                Box::new(exemplar)
            });
            let created = Some(self.signals.clock.created(since));
            let value = Value::Counter(count as f64, exemplar);
            metrics.push(Metric { labels: labels_of(bits, &route.name), value, created_seconds: created });
        }
        drop(idle);
        self.families.push(collected(family.family(), metrics));
    }

    fn push_histograms<K: Key>(&mut self, family: Bounded, pick: impl Fn(&Shard) -> &Cells<store::Histogram>) {
        let lists: Vec<_> = self.shards.iter().map(|shard| pick(shard).all()).collect();
        self.learn_routes();
        let mut cells: Vec<_> = lists.iter().flat_map(|list| list.iter()).collect();
        let set = |cell: &Labelled<_>| (cell.route, cell.bits);
        cells.sort_unstable_by_key(|cell| set(cell));
        let mut sum = Total::new(&self.signals.default_edges);
        let mut idle = self.signals.idle.lock().expect(POISON);
        let mut metrics = Vec::with_capacity(cells.len());
        for same in cells.chunk_by(|a, b| set(a) == set(b)) {
            let (id, bits) = set(same[0]);
            sum.reset(same[0].cell.edges());
            same.iter().for_each(|labelled| labelled.cell.add_to(&mut sum));
            let histogram = sum.shown(self.offset);
            if !idle.shows(family, (id, bits), histogram.count(), self.now) {
                continue;
            }
            let since = same.iter().map(|labelled| labelled.since).min();
            let created = since.map(|since| self.signals.clock.created(since));
            let values = K::unpack(bits).values(&self.routes[id.index()].name);
            metrics.push(metric(family.family(), values, Value::Histogram(Box::new(histogram)), created));
        }
        drop(idle);
        self.families.push(collected(family.family(), metrics));
    }

    fn push_fixed_histograms(&mut self, family: &'static Family, each: &[(&'static str, Vec<&store::Histogram>)]) {
        let metrics = each.iter().filter_map(|(label, cells)| {
            let mut sum = Total::new(cells.first()?.edges());
            cells.iter().for_each(|cell| cell.add_to(&mut sum));
            let histogram = Value::Histogram(Box::new(sum.shown(self.offset)));
            Some(metric(family, [(*label).into()], histogram, self.started))
        });
        let metrics = metrics.collect();
        self.families.push(collected(family, metrics));
    }

    fn push_one(&mut self, family: &'static Family, value: f64) {
        self.families.push(collected(family, vec![simple(family, [], value, self.started)]));
    }

    fn push_pair(&mut self, family: &'static Family, values: [(&'static str, f64); 2]) {
        self.push_each(family, &values, |(label, _)| label, |(_, value)| *value);
    }

    fn push_each<T>(
        &mut self,
        family: &'static Family,
        all: &[T],
        label: impl Fn(&T) -> &'static str,
        value: impl Fn(&T) -> f64,
    ) {
        let metrics = all.iter().map(|item| simple(family, [label(item).into()], value(item), self.started)).collect();
        self.families.push(collected(family, metrics));
    }
}

fn collected(family: &'static Family, metrics: Vec<Metric>) -> MetricFamily {
    let Family { name, kind, labels: _, help } = family;
    MetricFamily { name: Cow::Borrowed(name), help: Cow::Borrowed(help), kind: *kind, metrics }
}

fn metric(
    family: &'static Family,
    values: impl IntoIterator<Item = Text>,
    value: Value,
    created_seconds: Option<f64>,
) -> Metric {
    Metric { labels: labels(family, values), value, created_seconds }
}

fn labels(family: &'static Family, values: impl IntoIterator<Item = Text>) -> Vec<(Text, Text)> {
    let names = family.labels.iter().map(|name| Text::Static(name));
    names.zip(values).collect()
}

/// A counter or a gauge; only a counter has a beginning.
fn simple(
    family: &'static Family,
    values: impl IntoIterator<Item = Text>,
    value: f64,
    created_seconds: Option<f64>,
) -> Metric {
    match family.kind {
        Kind::Counter => metric(family, values, Value::Counter(value, None), created_seconds),
        _ => metric(family, values, Value::Number(value), None),
    }
}

fn text(given: Cow<'static, str>) -> Text {
    match given {
        Cow::Borrowed(text) => Text::Static(text),
        Cow::Owned(text) => text.into(),
    }
}
