//! Where a number becomes a matter: said once, for the colours of panels and for the alerts, so that they agree. They are
//! starting points from public packs and from arithmetic.

/// A resource is filling up: look at it.
pub const FILLING: f64 = 0.8;
/// A resource is as good as full: queues grow from here on.
pub const FULL: f64 = 0.9;
/// Memory so near its limit that the kernel ends the process next.
pub const MEMORY_CRITICAL: f64 = 0.95;
/// A forecast matters only above these shares; below them growth is the normal warming up.
pub const MEMORY_FORECAST_FROM: f64 = 0.7;
/// As above, of a pool.
pub const POOL_FORECAST_FROM: f64 = 0.6;
/// Memory is to last at least so long: one can still look at it in working hours.
pub const MEMORY_FORECAST_SECONDS: f64 = 4.0 * 3600.0;
/// A pool is to last at least so long.
pub const POOL_FORECAST_SECONDS: f64 = 1800.0;
/// CPU periods in which the backend was stopped by its quota.
pub const THROTTLED: f64 = 0.25;
/// Share of the time in which somebody waited for the CPU.
pub const CPU_PRESSURE: f64 = 0.4;
/// Answers 4xx of all.
pub const CLIENT_ERRORS: f64 = 0.1;
/// Answers 429 of all.
pub const RATE_LIMITED: f64 = 0.05;
/// Connections to the backend that fail.
pub const UNREACHABLE: f64 = 0.5;
/// How many times yesterday's share of 4xx is unusual: who scans a service, or a client with an old link, is there every
/// day.
pub const CLIENT_ERRORS_GROWTH: f64 = 3.0;
/// Failed requests of all in six hours that are worth a ticket whatever the objective: no service promises less than 90 %.
pub const LOW_TRAFFIC_ERRORS: f64 = 0.1;
/// Traffic below this share of that an hour ago has dropped suddenly; the steepest slope of a daily rhythm halves it.
pub const DROP_HOUR: f64 = 0.2;
/// And below this share of yesterday's lowest at about this time it is not the rhythm of the day.
pub const DROP_DAY: f64 = 0.3;
/// Traffic above so many times yesterday's highest at about this time is a spike.
pub const SPIKE: f64 = 3.0;
/// A spike matters if some resource is used so far: a little more and it is [`FILLING`].
pub const SPIKE_SATURATION: f64 = 0.7;
/// What a wait for a backend connection may take, seconds, at the 99th percentile.
pub const QUEUE_SECONDS: f64 = 0.1;
/// What the sidecar may add, seconds, at the 99th percentile.
pub const OVERHEAD_SECONDS: f64 = 0.005;
/// And as a share of the requests' own 99th percentile.
pub const OVERHEAD_SHARE: f64 = 0.1;
/// Our page takes milliseconds; one that takes this long, seconds, is on its way to any timeout. The timeout in force is a
/// series only where Prometheus was started with a feature flag, so it cannot be the measure.
pub const SCRAPE_SECONDS: f64 = 2.0;
/// Samples of one target that make a Prometheus server notice.
pub const SCRAPE_SAMPLES: f64 = 5000.0;
/// Budget left that is worth a look; at 0 it is spent.
pub const BUDGET_LOW: f64 = 0.25;
/// A certificate that ends within so many seconds should have been replaced: the usual tools do that a month before.
pub const CERTIFICATE_SOON: f64 = 14.0 * 86_400.0;
/// And now somebody has to do it by hand, in working hours, of which a week has some.
pub const CERTIFICATE_CRITICAL: f64 = 7.0 * 86_400.0;
/// Events in five minutes from which on somebody is woken: one stray event is no reason.
pub const REJECTED: f64 = 5.0;
/// Starts of a process in half an hour: two deploys and a correction are not that many.
pub const RESTARTS: f64 = 4.0;
/// Sampling rounds that did not run, of those that were due.
pub const MISSED_ROUNDS: f64 = 0.1;
/// Targets of a job that are down: more than these, and the rest will hardly carry the load.
pub const TARGETS_DOWN: f64 = 0.5;
