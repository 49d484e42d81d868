//! Shards → metric families: the one place where labels become texts. Runs on the admin thread, per scrape.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::labels::{
    AbortPhase, CloseReason, ConnectionEnd, Direction, FirstByte, Method, OverheadDirection, Phase, RejectReason,
    Resource, RetryResult, RouteId, StreamEnd, TunnelProtocol,
};
use crate::signals::families::{self as f, Bounded, Family};
use crate::signals::keys::{DurationKey, ErrorKey, Key, RequestKey, RouteOnly};
use crate::signals::moment::Moment;
use crate::signals::sampled::RATIO_EDGES;
use crate::signals::shard::{Cells, POISON, RouteGauges, Shard};
use crate::signals::store::{self, HistogramTotal};
use crate::signals::{Signals, preset_keys, total};

/// Hands the sum of all shards to a registry.
#[derive(Debug)]
pub struct ShardCollector {
    signals: Arc<Signals>,
    descs: Vec<Desc>,
}

impl ShardCollector {
    /// A collector of these signals.
    #[must_use]
    pub fn new(signals: Arc<Signals>) -> ShardCollector {
        let desc = |family: &Family| {
            let labels = family.labels.iter().map(|l| (*l).to_owned()).collect();
            Desc::new(family.name.to_owned(), family.help.to_owned(), labels, Default::default())
                .expect("the declarations of families.rs are valid names, which a test shows")
        };
        ShardCollector { signals, descs: f::all().map(desc).collect() }
    }
}

impl Collector for ShardCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        Page::new(&self.signals).build()
    }
}

/// A page under construction.
struct Page<'a> {
    signals: &'a Signals,
    shards: &'a [Arc<Shard>],
    names: Vec<String>,
    families: Vec<MetricFamily>,
}

impl<'a> Page<'a> {
    fn new(signals: &'a Signals) -> Self {
        let names = signals.routes.read().expect(POISON).iter().map(|r| r.name.clone()).collect();
        Page { signals, shards: signals.shards(), names, families: Vec::with_capacity(f::all().count()) }
    }

    fn build(mut self) -> Vec<MetricFamily> {
        // What is in flight is read before what has ended, and a worker writes the other way round: on a page where
        // nothing is in flight, everything has been counted.
        self.client_side();
        self.per_route();
        self.per_route_and_label_set();
        self.backend_side();
        self.sampled();
        self.itself();
        self.families
    }

    fn per_route_and_label_set(&mut self) {
        let mut requests = self.counters(|s| &s.requests);
        for (id, info) in self.signals.routes.read().expect(POISON).iter().enumerate() {
            if info.preset {
                let id = RouteId(id as u16);
                let admitted = |key: &u32| self.signals.admit(Bounded::Requests, id, *key);
                for key in preset_keys().map(Key::pack).filter(admitted) {
                    requests.entry((id, key)).or_insert(0);
                }
            }
        }
        self.push_counters::<RequestKey>(&f::REQUESTS, requests);
        self.push_histograms::<DurationKey>(&f::DURATION, |s| &s.durations);
        self.push_histograms::<FirstByte>(&f::FIRST_BYTE, |s| &s.first_bytes);
        let errors = self.counters(|s| &s.errors);
        self.push_counters::<ErrorKey>(&f::ERRORS, errors);
        let mut aborts = self.counters(|s| &s.aborts);
        for id in self.known_routes().into_keys() {
            for phase in AbortPhase::ALL {
                if self.signals.admit(Bounded::Aborts, id, phase.pack()) {
                    aborts.entry((id, phase.pack())).or_insert(0);
                }
            }
        }
        self.push_counters::<AbortPhase>(&f::ABORTS, aborts);
        self.push_histograms::<RouteOnly>(&f::ABORT_WAIT, |s| &s.abort_waits);
        self.push_histograms::<StreamEnd>(&f::STREAM_DURATION, |s| &s.stream_durations);
    }

    fn per_route(&mut self) {
        let routes = self.known_routes();
        let now = Moment::now().nanos();
        let of = |gauges: &Vec<Arc<RouteGauges>>, pick: fn(&RouteGauges) -> f64| -> f64 {
            gauges.iter().map(|g| pick(g)).sum()
        };
        let mut push = |family: &Family, value: &dyn Fn(&Vec<Arc<RouteGauges>>) -> f64| {
            let metrics = routes.iter().map(|(id, gauges)| {
                let name = self.names[id.index()].as_str();
                simple(family, &[name], value(gauges))
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
        self.families.push(collected(&f::INFLIGHT_PEAK, vec![simple(&f::INFLIGHT_PEAK, &["1m"], peak)]));
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
                metrics.push(simple(&f::TUNNEL_BYTES, &[protocol.as_str(), direction.as_str()], bytes as f64));
            }
        }
        self.families.push(collected(&f::TUNNEL_BYTES, metrics));
    }

    fn backend_side(&mut self) {
        let shards = self.shards;
        let phases = Phase::ALL.iter().filter(|p| !matches!(p, Phase::Head | Phase::Tls));
        let metrics = phases.map(|p| {
            let mut sum = HistogramTotal::new(shards[0].phases[p.index()].edges());
            shards.iter().for_each(|s| s.phases[p.index()].add_to(&mut sum));
            histogram(&f::PHASE, vec![p.as_str().into()], &sum)
        });
        self.families.push(collected(&f::PHASE, metrics.collect()));
        let metrics = OverheadDirection::ALL.iter().map(|d| {
            let mut sum = HistogramTotal::new(shards[0].overhead[d.index()].edges());
            shards.iter().for_each(|s| s.overhead[d.index()].add_to(&mut sum));
            histogram(&f::OVERHEAD, vec![d.as_str().into()], &sum)
        });
        self.families.push(collected(&f::OVERHEAD, metrics.collect()));
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
        let mut ratios: Vec<(&str, f64)> = Vec::new();
        for resource in Resource::ALL {
            let ratio =
                signals.own_ratio(*resource).or_else(|| fresh.and_then(|latest| latest.ratio(resource.as_str())));
            ratios.extend(ratio.map(|ratio| (resource.as_str(), ratio)));
        }
        let known = |name: &str| Resource::ALL.iter().any(|resource| resource.as_str() == name);
        let pools = fresh.iter().flat_map(|latest| &latest.ratios).filter(|(name, _)| !known(name));
        ratios.extend(pools.map(|(name, ratio)| (&**name, *ratio)));
        let highest = ratios.iter().map(|(_, ratio)| *ratio).fold(0.0, f64::max);
        let bottleneck = ratios.iter().position(|(_, ratio)| *ratio > 0.0 && *ratio == highest);
        let each = |family: &'static Family, value: &dyn Fn(usize, f64) -> f64| {
            let metrics = ratios.iter().enumerate();
            collected(family, metrics.map(|(at, (name, ratio))| simple(family, &[name], value(at, *ratio))).collect())
        };
        self.families.push(each(&f::SATURATION, &|_, ratio| ratio));
        self.families.push(each(&f::BOTTLENECK, &|at, _| f64::from(u8::from(bottleneck == Some(at)))));
        let histograms = sampled.latest.iter().flat_map(|latest| &latest.histograms);
        let histograms = histograms.map(|(resource, histogram)| {
            let labels = vec![resource.clone().into_owned()];
            buckets(&f::SATURATION_SAMPLED, labels, &RATIO_EDGES, &histogram.buckets, histogram.sum)
        });
        self.families.push(collected(&f::SATURATION_SAMPLED, histograms.collect()));
        for family in f::SAMPLED {
            let points = sampled.latest.iter().flat_map(|latest| &latest.points);
            let points = points.filter(|point| std::ptr::eq(point.family, *family));
            // What was counted stays counted; what was measured is only worth as long as it is fresh.
            let points = points.filter(|_| fresh.is_some() || family.kind == MetricType::COUNTER);
            let metrics = points.map(|point| {
                let labels: Vec<&str> = point.labels.iter().map(|label| &**label).collect();
                simple(family, &labels, point.value)
            });
            self.families.push(collected(family, metrics.collect()));
        }
        let busy = fresh.iter().flat_map(|latest| latest.worker_busy.iter().enumerate());
        let busy = busy.map(|(worker, ratio)| simple(&f::WORKER_BUSY, &[&worker.to_string()], *ratio));
        self.families.push(collected(&f::WORKER_BUSY, busy.collect()));
        if fresh.is_some() {
            self.push_one(&f::RUNTIME_LAG, sampled.lag_seconds);
        }
        self.push_one(&f::SAMPLER_TICKS, sampled.ticks as f64);
        self.push_one(&f::SAMPLER_MISSED, sampled.missed as f64);
    }

    fn itself(&mut self) {
        let declared = self.names.len().saturating_sub(2) as f64;
        self.families.push(collected(&f::ROUTES, vec![simple(&f::ROUTES, &["declared"], declared)]));
        self.push_one(&f::ROUTES_FOLDED, self.signals.folded_routes.load(std::sync::atomic::Ordering::Relaxed) as f64);
        let shards = self.shards;
        self.push_each(
            &f::OVERFLOW,
            &Bounded::ALL,
            |b| b.family().name,
            |b| total(shards, |s| &s.overflow[*b as usize]) as f64,
        );
        let counts: Vec<_> = Bounded::ALL
            .iter()
            .map(|b| {
                let name = b.family().name;
                let sets = self.families.iter().find(|f| f.name() == name).map_or(0, |f| f.get_metric().len());
                simple(&f::SERIES, &[name], sets as f64)
            })
            .collect();
        self.families.push(collected(&f::SERIES, counts));
    }

    /// Every route that has series, with its per-worker numbers.
    fn known_routes(&self) -> BTreeMap<RouteId, Vec<Arc<RouteGauges>>> {
        let routes = self.signals.routes.read().expect(POISON);
        let preset = routes.iter().enumerate().filter(|(_, info)| info.preset);
        let mut known: BTreeMap<RouteId, Vec<_>> = preset.map(|(id, _)| (RouteId(id as u16), Vec::new())).collect();
        drop(routes);
        for shard in self.shards {
            for (id, gauges) in shard.routes.lock().expect(POISON).iter() {
                known.entry(*id).or_default().push(Arc::clone(gauges));
            }
        }
        known
    }

    fn bound(&self, pick: impl Fn(&crate::signals::Bounds) -> &std::sync::atomic::AtomicU64) -> Option<f64> {
        match pick(self.signals.bounds()).load(std::sync::atomic::Ordering::Relaxed) {
            0 => None,
            limit => Some(limit as f64),
        }
    }

    fn counters(&self, pick: impl Fn(&Shard) -> &Cells<store::Counter>) -> BTreeMap<(RouteId, u32), u64> {
        let mut sums = BTreeMap::new();
        for shard in self.shards {
            for (route, key, cell) in pick(shard).lock().expect(POISON).iter() {
                *sums.entry((*route, *key)).or_insert(0) += cell.get();
            }
        }
        sums
    }

    fn push_counters<K: Key>(&mut self, family: &Family, sums: BTreeMap<(RouteId, u32), u64>) {
        let metrics = sums.into_iter().map(|((route, key), value)| {
            let mut counter = Counter::default();
            counter.set_value(value as f64);
            let mut metric = labelled(family, K::unpack(key).values(&self.names[route.index()]));
            metric.set_counter(counter);
            metric
        });
        let metrics = metrics.collect();
        self.families.push(collected(family, metrics));
    }

    fn push_histograms<K: Key>(&mut self, family: &Family, pick: impl Fn(&Shard) -> &Cells<store::Histogram>) {
        let mut sums: BTreeMap<(RouteId, u32), HistogramTotal> = BTreeMap::new();
        for shard in self.shards {
            for (route, key, cell) in pick(shard).lock().expect(POISON).iter() {
                cell.add_to(sums.entry((*route, *key)).or_insert_with(|| HistogramTotal::new(cell.edges())));
            }
        }
        let metrics = sums
            .into_iter()
            .map(|((route, key), sum)| histogram(family, K::unpack(key).values(&self.names[route.index()]), &sum));
        let metrics = metrics.collect();
        self.families.push(collected(family, metrics));
    }

    fn push_one(&mut self, family: &Family, value: f64) {
        self.families.push(collected(family, vec![simple(family, &[], value)]));
    }

    fn push_pair(&mut self, family: &Family, values: [(&str, f64); 2]) {
        let metrics = values.iter().map(|(label, value)| simple(family, &[label], *value)).collect();
        self.families.push(collected(family, metrics));
    }

    fn push_each<T>(
        &mut self,
        family: &Family,
        all: &[T],
        label: impl Fn(&T) -> &'static str,
        value: impl Fn(&T) -> f64,
    ) {
        let metrics = all.iter().map(|item| simple(family, &[label(item)], value(item))).collect();
        self.families.push(collected(family, metrics));
    }
}

fn collected(family: &Family, metrics: Vec<Metric>) -> MetricFamily {
    let mut out = MetricFamily::default();
    out.set_name(family.name.to_owned());
    out.set_help(family.help.to_owned());
    out.set_field_type(family.kind);
    out.set_metric(metrics);
    out
}

fn labelled(family: &Family, values: Vec<String>) -> Metric {
    let pairs = family.labels.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value);
        pair
    });
    Metric::from_label(pairs.collect())
}

fn simple(family: &Family, values: &[&str], value: f64) -> Metric {
    let mut metric = labelled(family, values.iter().map(|v| (*v).to_owned()).collect());
    if family.kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

fn histogram(family: &Family, values: Vec<String>, sum: &HistogramTotal) -> Metric {
    buckets(family, values, sum.edges.seconds(), &sum.buckets, sum.sum_nanos as f64 / 1e9)
}

/// A histogram from its counts per bucket (not cumulative, the last one above every edge).
fn buckets(family: &Family, values: Vec<String>, edges: &[f64], counts: &[u64], sum: f64) -> Metric {
    let mut cumulative = 0;
    let buckets = edges.iter().zip(counts).map(|(edge, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*edge);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut out = Histogram::default();
    out.set_bucket(buckets.collect());
    out.set_sample_count(counts.iter().sum());
    out.set_sample_sum(sum);
    let mut metric = labelled(family, values);
    metric.set_histogram(out);
    metric
}
