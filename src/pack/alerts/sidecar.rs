//! Is it the watcher's fault? The sidecar's own health, whether it is seen at all, and the watchdog. The backend's
//! restarts are here too: they are told by the same sign.
//!
//! `up` and `scrape_…` are Prometheus' own series and every target has them; ours are those of a job that showed a
//! `golden_build_info` within the last day. Not only those that showed one themselves: what a rollout brings may never
//! come up. A target of such a job that once answered, and with something else, is none of ours and is left out. One
//! that never answered at all cannot be told from ours.

use crate::pack::cases::{Case, Suite};
use crate::pack::objective::{Severity, number};
use crate::pack::promql::quantile;
use crate::pack::rules::{Alert, Group, INSTANCE, JOB, Record, Rule};
use crate::pack::thresholds::{
    CERTIFICATE_CRITICAL, CERTIFICATE_SOON, MISSED_ROUNDS, OVERHEAD_SECONDS, OVERHEAD_SHARE, RESTARTS, SCRAPE_SAMPLES,
    SCRAPE_SECONDS, TARGETS_DOWN,
};

/// Two scrapes at the usual 15 s: what wakes somebody is not to wait for a third.
const INTERVAL: &str = "30s";

/// How long a target that gives nothing is known as ours. A day of silence is looked at within it, and a day of one
/// series per target costs an evaluation little.
const REMEMBERED: &str = "1d";

/// How long a job is missed. It has to end: nobody tells a rule that a service was taken away on purpose.
const MISSED_FOR: &str = "6h";

pub(super) fn groups() -> Vec<Group> {
    let alerts = [overhead(), process(), certificates(), honesty(), targets()].concat();
    let rules = std::iter::once(foreign()).chain(alerts.into_iter().map(Rule::Alert)).collect();
    vec![Group { name: "golden-sidecar-sidecar", interval: INTERVAL, rules }]
}

/// Targets of a job of ours that answer with something else, see [`foreign`].
const FOREIGN: &str = "instance:golden_foreign_targets:up";

/// Recorded, because a day of `up` of everything that Prometheus has would be much to read at each evaluation.
fn foreign() -> Rule {
    let seen = seen();
    let expr =
        format!("max by ({INSTANCE}) (up) == 1\nand on ({JOB})\n{seen}\nunless on ({INSTANCE})\ngolden_build_info");
    Rule::Record(Record { name: FOREIGN.to_owned(), expr })
}

/// Sidecars that were seen while they are remembered.
fn seen() -> String {
    format!("last_over_time(golden_build_info[{REMEMBERED}])")
}

/// Of these targets, those that are ours.
fn ours(targets: &str) -> String {
    let seen = seen();
    format!(
        "{targets}\nand on ({JOB})\n{seen}\nunless on ({INSTANCE})\n(\n  last_over_time({FOREIGN}[{REMEMBERED}])\n  \
         unless on ({INSTANCE})\n  {seen}\n)"
    )
}

// === The alerts ===

fn overhead() -> Vec<Alert> {
    let added = quantile("0.99", &format!("{JOB}, direction"), "golden_proxy_overhead_seconds", "", "5m");
    let all = quantile("0.99", JOB, "http_server_request_duration_seconds", "", "5m");
    vec![alert(
        "GoldenSidecarAddsLatency",
        Severity::Warning,
        "10m",
        format!(
            "max by ({JOB}) {added} > {}\nand on ({JOB})\nmax by ({JOB}) {added} > {} * {all}",
            number(OVERHEAD_SECONDS),
            number(OVERHEAD_SHARE)
        ),
        "The sidecar itself makes requests noticeably slower.",
        "One head in a hundred spends {{ $value | humanizeDuration }} or longer inside the sidecars of job {{ \
         $labels.job }}, which is a noticeable part of what the slowest requests take.",
    )]
}

fn process() -> Vec<Alert> {
    vec![
        alert(
            "GoldenSidecarRestarting",
            Severity::Warning,
            "",
            format!(
                "max by ({INSTANCE}) (changes(process_start_time_seconds[30m])) >= {}\nand on ({INSTANCE})\n\
                 last_over_time(golden_build_info[30m])",
                number(RESTARTS)
            ),
            "The sidecar starts again and again.",
            "The sidecar {{ $labels.instance }} of job {{ $labels.job }} was seen to start {{ $value }} times in the \
             last half hour. Every start cuts what was in flight.",
        ),
        // The probes say it, so it is told where no request comes as well.
        alert(
            "GoldenBackendDown",
            Severity::Warning,
            "5m",
            format!("max by ({INSTANCE}) (golden_backend_up) == 0"),
            "The backend of an instance is down.",
            "The backend behind {{ $labels.instance }} of job {{ $labels.job }} has failed every readiness probe of \
             the last five minutes (golden_backend_up is {{ $value }}), whether or not there is traffic.",
        ),
        alert(
            "GoldenBackendRestarting",
            Severity::Warning,
            "",
            format!("sum by ({INSTANCE}) (increase(golden_backend_restarts_total[30m])) >= {}", number(RESTARTS)),
            "The backend starts again and again.",
            "The backend behind {{ $labels.instance }} of job {{ $labels.job }} became another process about \
             {{ $value | printf \"%.0f\" }} times in the last half hour.",
        ),
        alert(
            "GoldenConfigReloadFailed",
            Severity::Warning,
            "5m",
            format!(
                "time() - max by ({INSTANCE}) (golden_config_last_reload_success_timestamp_seconds)\nand on \
                 ({INSTANCE})\n\
                 golden_config_last_reload_successful < 1"
            ),
            "The sidecar refused its new configuration.",
            "The sidecar {{ $labels.instance }} of job {{ $labels.job }} could not take its latest configuration and \
             goes on with the one of {{ $value | humanizeDuration }} ago. At its next start it will not come up.",
        ),
    ]
}

fn certificates() -> Vec<Alert> {
    let ends = |severity, within: f64| {
        let left = format!("min by ({INSTANCE}, use) (golden_tls_certificate_expiry_timestamp_seconds) - time()");
        alert(
            "GoldenCertificateExpiring",
            severity,
            "1h",
            format!("{left} < {}", number(within)),
            "A TLS certificate ends soon and has not been replaced.",
            "The certificate that {{ $labels.instance }} of job {{ $labels.job }} shows ({{ $labels.use }}) ends in {{ \
             $value | humanizeDuration }}. After that nobody who checks it connects any more.",
        )
    };
    vec![ends(Severity::Critical, CERTIFICATE_CRITICAL), ends(Severity::Warning, CERTIFICATE_SOON)]
}

/// What makes the other numbers say less than they seem to.
fn honesty() -> Vec<Alert> {
    let stale = |sign: &'static str, hold: &'static str, expr: String, summary: &str, description: &str| Alert {
        labels: vec![("sign", sign.to_owned())],
        ..alert("GoldenSaturationStale", Severity::Warning, hold, expr, summary, description)
    };
    let rounds = |counter: &str| format!("sum by ({INSTANCE}) (increase({counter}[5m]))");
    let (ran, missed) = (rounds("golden_sampler_ticks_total"), rounds("golden_sampler_missed_ticks_total"));
    vec![
        alert(
            "GoldenRouteLimitReached",
            Severity::Info,
            "15m",
            format!("max by ({JOB}) (sum by ({JOB}, family) (increase(golden_metric_overflow_total[15m]))) > 0"),
            "Requests are counted without their route because a limit is reached.",
            "About {{ $value | printf \"%.0f\" }} observations of job {{ $labels.job }} went to the route _other in \
             the last quarter of an hour, because a limit of routes, of label sets or of their memory is reached.",
        ),
        stale(
            "stopped",
            "5m",
            format!("{ran} < 1"),
            "Saturation is no longer measured.",
            "{{ $labels.instance }} of job {{ $labels.job }} ran {{ $value | printf \"%.0f\" }} sampling rounds in the \
             last five minutes: what it says of saturation is old.",
        ),
        stale(
            "missed",
            "15m",
            format!("{missed} / ({ran} + {missed} > 0) > {}", number(MISSED_ROUNDS)),
            "Saturation is measured too rarely.",
            "{{ $value | humanizePercentage }} of the sampling rounds of {{ $labels.instance }} of job {{ $labels.job \
             }} did not run: short peaks are missing, most likely for want of CPU.",
        ),
        stale(
            "source",
            "15m",
            format!(
                "min by ({INSTANCE}, source) (golden_sampler_source_available) < 1\nand on ({INSTANCE}, source)\n\
                 max_over_time(golden_sampler_source_available[1h]) > 0"
            ),
            "Something of the backend that could be measured cannot be any more.",
            "{{ $labels.instance }} of job {{ $labels.job }} can no longer read {{ $labels.source }} (available: {{ \
             $value }}), so alerts that need it are silent.",
        ),
    ]
}

fn targets() -> Vec<Alert> {
    let up = format!("max by ({INSTANCE}) (up)");
    let down = ours(&format!("{up} == 0"));
    let scrape = |sign: &'static str, expr: String, summary: &str, description: &str| Alert {
        labels: vec![("sign", sign.to_owned())],
        ..alert("GoldenScrapeTooSlowOrLarge", Severity::Info, "15m", expr, summary, description)
    };
    let own = |series: &str, limit: f64| {
        format!("max by ({INSTANCE}) ({series}) > {}\nand on ({INSTANCE})\ngolden_build_info", number(limit))
    };
    vec![
        alert(
            "GoldenTargetDown",
            Severity::Critical,
            "2m",
            format!(
                "count by ({JOB}) (\n{down}\n)\n/\n(count by ({JOB}) (\n{}\n) > 0)\n> {}",
                ours(&up),
                number(TARGETS_DOWN)
            ),
            "Most sidecars of a job cannot be scraped.",
            "{{ $value | humanizePercentage }} of the sidecars of job {{ $labels.job }} do not answer Prometheus. Most \
             likely they do not answer clients either, and no other alert can tell.",
        ),
        alert(
            "GoldenTargetDown",
            Severity::Warning,
            "5m",
            down.clone(),
            "A sidecar cannot be scraped.",
            "The sidecar {{ $labels.instance }} of job {{ $labels.job }} does not answer Prometheus (up is {{ $value \
             }}).",
        ),
        alert(
            "GoldenTargetGone",
            Severity::Critical,
            "5m",
            // Whoever is a target and does not answer is down, which has its own alert.
            format!(
                "count by ({JOB}) (last_over_time(golden_build_info[{MISSED_FOR}]))\nunless on \
                 ({JOB})\ngolden_build_info\n\
                 unless on ({JOB})\n(\n{down}\n)"
            ),
            "All sidecars of a job have disappeared.",
            "Job {{ $labels.job }} had {{ $value }} sidecars within the last six hours and has none now, nor does \
             Prometheus miss them: they are no longer among its targets, or something else answers there.",
        ),
        scrape(
            "slow",
            own("scrape_duration_seconds", SCRAPE_SECONDS),
            "Scrapes of a sidecar take long.",
            "A scrape of {{ $labels.instance }} of job {{ $labels.job }} takes {{ $value | humanizeDuration }}; beyond \
             the scrape timeout there are no numbers at all.",
        ),
        scrape(
            "large",
            own("scrape_samples_scraped", SCRAPE_SAMPLES),
            "A sidecar has very many series.",
            "A scrape of {{ $labels.instance }} of job {{ $labels.job }} brings {{ $value | humanize }} samples.",
        ),
        // Not `vector(1)`: with no sidecar left there is nobody whose alerts could fire, and that is silence too. The
        // hour bridges restarts of Prometheus.
        alert(
            "GoldenWatchdog",
            Severity::Info,
            "",
            format!("count by ({JOB}) (last_over_time(golden_build_info[1h])) > 0"),
            "The alerts of golden-sidecar work; this one always fires.",
            "Prometheus evaluates the rules and has seen {{ $value }} sidecars of job {{ $labels.job }} within the \
             last hour. Send this alert to something that tells when it stops coming.",
        ),
    ]
}

fn alert(
    name: &'static str,
    severity: Severity,
    hold: &'static str,
    expr: String,
    summary: &str,
    description: &str,
) -> Alert {
    Alert {
        name,
        expr,
        hold,
        keep: "",
        severity,
        labels: Vec::new(),
        summary: summary.to_owned(),
        description: description.to_owned(),
    }
}

// === The cases ===

/// A series of an instance of the job.
fn of(family: &str, instance: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!(r#"{family}{{cluster="eu",namespace="prod",job="shop",instance="{instance}:9900"{comma}{more}}}"#)
}

fn build(instance: &str) -> String {
    of("golden_build_info", instance, r#"version="0.1.0",revision="x",rustc="y""#)
}

fn of_job<'a>(severity: &'a str, more: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
    let mut labels = vec![("cluster", "eu"), ("namespace", "prod"), ("job", "shop"), ("severity", severity)];
    labels.extend_from_slice(more);
    labels
}

/// Of instance a.
fn of_a<'a>(severity: &'a str, more: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
    let mut labels = of_job(severity, more);
    labels.push(("instance", "a:9900"));
    labels
}

/// Of this target.
fn of_target<'a>(instance: &'a str, severity: &'a str) -> Vec<(&'static str, &'a str)> {
    of_job(severity, &[("instance", instance)])
}

pub(super) fn suite() -> Suite {
    let cases =
        [overhead_cases(), process_cases(), certificate_cases(), honesty_cases(), target_cases(), watchdog_cases()]
            .concat();
    Suite { name: "sidecar", evaluate: "1m", cases }
}

fn overhead_cases() -> Vec<Case> {
    let name = "GoldenSidecarAddsLatency";
    let added =
        |le: &str| of("golden_proxy_overhead_seconds_bucket", "a", &format!(r#"direction="request",le="{le}""#));
    let took =
        |le: &str| of("http_server_request_duration_seconds_bucket", "a", &format!(r#"http_route="/",le="{le}""#));
    // Three of a hundred, or one of two hundred, take longer than 5 ms.
    let many = "0+97x40 3880+100x20";
    let case = |story, added_5ms: &str, took_50ms: &str| {
        Case::new(name, story, "1m")
            .series(added("0.005"), added_5ms)
            .series(added("0.01"), "0+100x60")
            .series(added("+Inf"), "0+100x60")
            .series(took("0.05"), took_50ms)
            .series(took("1"), "0+100x60")
            .series(took("+Inf"), "0+100x60")
    };
    let all = "0+100x60";
    vec![
        case("more than 5 ms, and more than a tenth of what requests take: fires and ends", many, all)
            .quiet_at("8m")
            .fires_at("30m", &of_job("warning", &[]))
            .quiet_at("55m"),
        case("as long as all take longer than 5 ms, it fires", "0x60", all)
            .fires_at("30m", &of_job("warning", &[]))
            .fires_at("60m", &of_job("warning", &[])),
        case("more than 5 ms, where requests take most of a second: quiet", many, "0+50x60")
            .quiet_at("30m")
            .quiet_at("39m"),
        case("less than 5 ms, where requests take no longer: quiet", "0+199x60", all).quiet_at("30m").quiet_at("60m"),
        Case::new(name, "no requests: quiet", "1m")
            .series(added("0.005"), "5x30")
            .series(added("+Inf"), "9x30")
            .series(took("+Inf"), "9x30")
            .quiet_at("30m"),
    ]
}

fn process_cases() -> Vec<Case> {
    let sidecar = "GoldenSidecarRestarting";
    let backend = "GoldenBackendRestarting";
    let down = "GoldenBackendDown";
    let reload = "GoldenConfigReloadFailed";
    let start = of("process_start_time_seconds", "a", "");
    let restarts = of("golden_backend_restarts_total", "a", r#"reason="exit""#);
    let success = of("golden_config_last_reload_successful", "a", "");
    let since = of("golden_config_last_reload_success_timestamp_seconds", "a", "");
    vec![
        Case::new(sidecar, "five starts, with gaps between them, fire and end", "1m")
            .series(build("a"), "1x90")
            .series(&start, "100x5 _x1 500x2 _x1 800x2 _x1 1200x2 _x1 1500x70")
            .quiet_at("5m")
            .fires_at("20m", &of_a("warning", &[]))
            .quiet_at("50m"),
        Case::new(sidecar, "as long as it starts every five minutes, it fires", "1m")
            .series(build("a"), "1x40")
            .series(&start, "0x4 300x4 600x4 900x4 1200x4 1500x4 1800x4 2100x4")
            .quiet_at("10m")
            .fires_at("39m", &of_a("warning", &[])),
        Case::new(sidecar, "three restarts are quiet", "1m")
            .series(build("a"), "1x60")
            .series(&start, "100x5 500x5 900x5 1300x40")
            .quiet_at("17m")
            .quiet_at("50m"),
        Case::new(sidecar, "others that start again and again are not ours", "1m")
            .series(&start, "0+60x30")
            .quiet_at("30m"),
        Case::new(backend, "a backend that crashes every two minutes fires, until it stays", "1m")
            .series(&restarts, "0x10 1 1 2 2 3 3 4 4 5 5 6x60")
            .quiet_at("10m")
            .fires_at("25m", &of_a("warning", &[]))
            .quiet_at("60m"),
        Case::new(backend, "as long as the backend is replaced every three minutes, it fires", "1m")
            .series(
                of("golden_backend_restarts_total", "a", r#"reason="replaced""#),
                "0x10 0 1x2 2x2 3x2 4x2 5x2 6x2 7x2 8x2",
            )
            .quiet_at("10m")
            .fires_at("34m", &of_a("warning", &[])),
        Case::new(backend, "three restarts, and many long ago, are quiet", "1m")
            .series(&restarts, "0x5 1x5 2x5 3x50")
            .series(of("golden_backend_restarts_total", "a", r#"reason="oom""#), "17x65")
            .quiet_at("16m")
            .quiet_at("30m")
            .quiet_at("60m"),
        Case::new(down, "a backend that is down without any traffic fires, until it is back", "1m")
            .series(of("golden_backend_up", "a", ""), "1x10 0x20 1x20")
            .series(of("golden_backend_up", "b", ""), "1x50")
            .quiet_at("10m")
            .quiet_at("14m")
            .fires_at("20m", &of_a("warning", &[]))
            .quiet_at("35m"),
        Case::new(down, "as long as the backend is down, it fires", "1m")
            .series(of("golden_backend_up", "a", ""), "0x60")
            .quiet_at("4m")
            .fires_at("10m", &of_a("warning", &[]))
            .fires_at("60m", &of_a("warning", &[])),
        Case::new(down, "a start of four minutes, and a sidecar that is taken away, are quiet", "1m")
            .series(of("golden_backend_up", "a", ""), "0x4 1x40")
            .series(of("golden_backend_up", "b", ""), "1x10 0x3 stale")
            .quiet_at("5m")
            .quiet_at("12m")
            .quiet_at("20m")
            .quiet_at("40m"),
        Case::new(reload, "a refused configuration fires until one is taken", "1m")
            .series(&success, "1x10 0x20 1x20")
            .series(&since, "0x30 1860x20")
            .quiet_at("10m")
            .fires_at("20m", &of_a("warning", &[]))
            .quiet_at("35m"),
        Case::new(reload, "as long as none is taken, it fires", "1m")
            .series(&success, "1x10 0x40")
            .series(&since, "0x50")
            .quiet_at("14m")
            .fires_at("50m", &of_a("warning", &[])),
        Case::new(reload, "one that is mended within five minutes is quiet, however old it is", "1m")
            .series(&success, "1x10 0x2 1x30")
            .series(&since, "0x50")
            .quiet_at("13m")
            .quiet_at("30m"),
    ]
}

fn certificate_cases() -> Vec<Case> {
    let name = "GoldenCertificateExpiring";
    let ends = |usage: &str| of("golden_tls_certificate_expiry_timestamp_seconds", "a", &format!("use=\"{usage}\""));
    let listener = [("use", "listener")];
    vec![
        Case::new(name, "two weeks before its end, a certificate fires until it is replaced", "1m")
            // Fourteen days and half an hour, then ninety days.
            .series(ends("listener"), "1211400x180 7776000x120")
            .series(ends("admin"), "7776000x300")
            .quiet_at("1h")
            .quiet_at("85m")
            .fires_at("2h", &of_a("warning", &listener))
            .quiet_at("4h"),
        Case::new(
            name,
            "a week before its end it is critical, goes on when it has ended, and until it is replaced",
            "1m",
        )
        .series(ends("listener"), "606600x240 7776000x120")
        .series(ends("upstream"), "-60x240 7776000x120")
        .quiet_at("30m")
        .all_fire_at(
            "75m",
            &[
                &of_a("warning", &listener),
                &of_a("warning", &[("use", "upstream")]),
                &of_a("critical", &[("use", "upstream")]),
            ],
        )
        .all_fire_at(
            "2h",
            &[
                &of_a("warning", &listener),
                &of_a("critical", &listener),
                &of_a("warning", &[("use", "upstream")]),
                &of_a("critical", &[("use", "upstream")]),
            ],
        )
        .quiet_at("5h"),
        Case::new(
            name,
            "a file that is handed over late by less than an hour, and a sidecar that is gone, are quiet",
            "1m",
        )
        .series(ends("listener"), "600000x40 7776000x200")
        .series(of("golden_tls_certificate_expiry_timestamp_seconds", "b", "use=\"listener\""), "600000x30 stale")
        .quiet_at("30m")
        .quiet_at("2h")
        .quiet_at("4h"),
    ]
}

fn honesty_cases() -> Vec<Case> {
    let limit = "GoldenRouteLimitReached";
    let stale = "GoldenSaturationStale";
    let overflow = |family: &str| of("golden_metric_overflow_total", "a", &format!("family=\"{family}\""));
    let ticks = of("golden_sampler_ticks_total", "a", "");
    let missed = of("golden_sampler_missed_ticks_total", "a", "");
    let source = of("golden_sampler_source_available", "a", r#"source="process""#);
    vec![
        Case::new(limit, "requests without their route fire once, for all families, and end", "1m")
            .series(overflow("golden_requests_total"), "0x10 1+3x40 121x40")
            .series(overflow("golden_errors_total"), "0x10 1+1x40 41x40")
            .quiet_at("10m")
            .fires_at("35m", &of_job("info", &[]))
            .quiet_at("80m"),
        Case::new(limit, "as long as they go on, it fires", "1m")
            .series(overflow("golden_requests_total"), "0x10 1+3x40")
            .quiet_at("20m")
            .fires_at("50m", &of_job("info", &[])),
        Case::new(limit, "a burst of ten minutes, and old ones, are quiet", "1m")
            .series(overflow("golden_requests_total"), "70x50")
            .series(overflow("golden_errors_total"), "0x10 9x50")
            .quiet_at("20m")
            .quiet_at("24m")
            .quiet_at("50m"),
        Case::new(stale, "a sampler that stands still fires, and ends when it goes on", "1m")
            .series(&ticks, "0+60x10 600x20 600+60x20")
            .series(&missed, "0x60")
            .quiet_at("10m")
            .quiet_at("18m")
            .fires_at("28m", &of_a("warning", &[("sign", "stopped")]))
            .quiet_at("40m"),
        Case::new(stale, "as long as it stands still, it fires", "1m")
            .series(&ticks, "0+60x10 600x40")
            .series(&missed, "0x50")
            .fires_at("50m", &of_a("warning", &[("sign", "stopped")])),
        Case::new(stale, "a fifth of the rounds missed fires, and ends", "1m")
            .series(&ticks, "0+48x40 1920+60x30")
            .series(&missed, "0+12x40 480x30")
            .quiet_at("10m")
            .fires_at("25m", &of_a("warning", &[("sign", "missed")]))
            .fires_at("35m", &of_a("warning", &[("sign", "missed")]))
            .quiet_at("60m"),
        Case::new(stale, "a tenth of the rounds missed, and a sampler of a long interval, are quiet", "1m")
            .series(&ticks, "0+54x40")
            .series(&missed, "0+6x40")
            .series(of("golden_sampler_ticks_total", "b", ""), "0+1x40")
            .quiet_at("30m")
            .quiet_at("40m"),
        Case::new(stale, "a source that is lost fires, and ends when it is back", "1m")
            .series(&source, "1x10 0x30 1x20")
            .quiet_at("10m")
            .fires_at("27m", &of_a("warning", &[("sign", "source"), ("source", "process")]))
            .fires_at("35m", &of_a("warning", &[("sign", "source"), ("source", "process")]))
            .quiet_at("45m"),
        Case::new(stale, "a source that never was, and one that is away for ten minutes, are quiet", "1m")
            .series(&source, "1x10 0x10 1x20")
            .series(of("golden_sampler_source_available", "a", r#"source="cgroup_cpu""#), "0x60")
            .quiet_at("20m")
            .quiet_at("30m")
            .quiet_at("40m"),
    ]
}

fn target_cases() -> Vec<Case> {
    let down = "GoldenTargetDown";
    let gone = "GoldenTargetGone";
    let scrape = "GoldenScrapeTooSlowOrLarge";
    let up = |instance| of("up", instance, "");
    vec![
        Case::new(down, "one of three fires a ticket, and ends", "1m")
            .series(build("a"), "1x10 stale _x20 1x20")
            .series(build("b"), "1x60")
            .series(build("c"), "1x60")
            .series(up("a"), "1x10 0x21 1x20")
            .series(up("b"), "1x60")
            .series(up("c"), "1x60")
            .quiet_at("10m")
            .quiet_at("14m")
            .fires_at("20m", &of_a("warning", &[]))
            .quiet_at("35m"),
        Case::new(down, "the only sidecar of a job wakes somebody", "1m")
            .series(build("a"), "1x10 stale")
            .series(up("a"), "1x10 0x30")
            .series(up("x"), "1x40")
            .series(up("y"), "1x40")
            .quiet_at("12m")
            .fires_at("14m", &of_job("critical", &[]))
            .fires_at("20m", &of_job("critical", &[]))
            .and_fires(&of_a("warning", &[])),
        Case::new(down, "half of them do not wake anybody", "1m")
            .series(build("a"), "1x10 stale")
            .series(build("b"), "1x60")
            .series(up("a"), "1x10 0x50")
            .series(up("b"), "1x60")
            .fires_at("40m", &of_a("warning", &[])),
        Case::new(down, "most of them wake somebody, and a ticket is left when most are back", "1m")
            .series(build("a"), "1x10 stale _x20 1x40")
            .series(build("b"), "1x10 stale _x50 1x10")
            .series(build("c"), "1x71")
            .series(up("a"), "1x10 0x20 1x40")
            .series(up("b"), "1x10 0x50 1x10")
            .series(up("c"), "1x71")
            .quiet_at("12m")
            .fires_at("14m", &of_job("critical", &[]))
            .all_fire_at("25m", &[&of_job("critical", &[]), &of_a("warning", &[]), &of_target("b:9900", "warning")])
            .fires_at("40m", &of_target("b:9900", "warning"))
            .quiet_at("68m"),
        Case::new(down, "new instances that never come up wake somebody", "1m")
            .series(build("a"), "1x60")
            .series(up("a"), "1x60")
            .series(up("n1"), "_x20 0x40")
            .series(up("n2"), "_x20 0x40")
            .series(up("n3"), "_x20 0x40")
            .quiet_at("20m")
            .fires_at("24m", &of_job("critical", &[]))
            .fires_at("60m", &of_job("critical", &[]))
            .and_fires(&of_target("n1:9900", "warning"))
            .and_fires(&of_target("n2:9900", "warning"))
            .and_fires(&of_target("n3:9900", "warning")),
        Case::new(down, "targets that are no sidecars, restarts, and one that was taken away are quiet", "1m")
            .series(r#"up{job="other",instance="x:1"}"#, "0x60")
            // In our job, and something else answered there.
            .series(up("x"), "1x5 0x60")
            .series(up("y"), "1x5 0x60")
            .series(build("a"), "1x10 stale 1x50")
            .series(up("a"), "1x10 0 1x50")
            .series(build("b"), "1x10 stale")
            .series(up("b"), "1x10 stale")
            .quiet_at("11m")
            .quiet_at("20m")
            .quiet_at("40m"),
        Case::new(gone, "a job that disappears fires, and ends when it is back", "1m")
            .series(build("a"), "1x20 stale _x20 1x20")
            .series(up("a"), "1x20 stale _x20 1x20")
            .quiet_at("20m")
            .quiet_at("24m")
            .fires_at("35m", &of_job("critical", &[]))
            .quiet_at("50m"),
        Case::new(gone, "something else that answers there is no sidecar", "1m")
            .series(build("a"), "1x20 stale")
            .series(up("a"), "1x40")
            .fires_at("35m", &of_job("critical", &[])),
        Case::new(gone, "one of two taken away, and all of them down, are quiet", "1m")
            .series(build("a"), "1x20 stale")
            .series(up("a"), "1x20 stale")
            .series(build("b"), "1x40 stale")
            .series(up("b"), "1x40 0x40")
            .quiet_at("35m")
            .quiet_at("70m"),
        Case::new(gone, "a restart of Prometheus, and a new job, are quiet", "1m")
            .series(build("a"), "1x20 _x8 1x20")
            .series(up("a"), "1x20 _x8 1x20")
            .series(r#"golden_build_info{job="new",instance="n:1"}"#, "_x30 1x25")
            .quiet_at("28m")
            .quiet_at("30m")
            .quiet_at("50m"),
        Case::new(scrape, "a page that takes three seconds fires, and ends", "1m")
            .series(build("a"), "1x60")
            .series(of("scrape_duration_seconds", "a", ""), "0.02x10 3x30 0.02x20")
            .series(of("scrape_samples_scraped", "a", ""), "1300x60")
            .quiet_at("10m")
            .fires_at("27m", &of_a("info", &[("sign", "slow")]))
            .fires_at("35m", &of_a("info", &[("sign", "slow")]))
            .quiet_at("50m"),
        Case::new(scrape, "very many samples fire", "1m")
            .series(build("a"), "1x60")
            .series(of("scrape_samples_scraped", "a", ""), "1300x10 5001x50")
            .quiet_at("10m")
            .quiet_at("20m")
            .fires_at("35m", &of_a("info", &[("sign", "large")]))
            .fires_at("60m", &of_a("info", &[("sign", "large")])),
        Case::new(scrape, "very many samples end with the routes that made them", "1m")
            .series(build("a"), "1x60")
            .series(of("scrape_samples_scraped", "a", ""), "9000x30 1300x30")
            .quiet_at("14m")
            .fires_at("25m", &of_a("info", &[("sign", "large")]))
            .quiet_at("35m"),
        Case::new(scrape, "one slow scrape, 5000 samples and other targets are quiet", "1m")
            .series(build("a"), "1x60")
            .series(of("scrape_duration_seconds", "a", ""), "2x30 9 0.02x30")
            .series(of("scrape_samples_scraped", "a", ""), "5000x60")
            .series(of("scrape_duration_seconds", "x", ""), "9x60")
            .series(of("scrape_samples_scraped", "x", ""), "99999x60")
            .quiet_at("29m")
            .quiet_at("31m")
            .quiet_at("60m"),
    ]
}

fn watchdog_cases() -> Vec<Case> {
    let name = "GoldenWatchdog";
    let labels = of_job("info", &[]);
    vec![
        Case::new(name, "it fires as long as there are sidecars, over restarts of Prometheus too", "1m")
            .series(build("a"), "1x10 _x30 1x20")
            .fires_at("1m", &labels)
            .fires_at("35m", &labels)
            .fires_at("60m", &labels),
        Case::new(name, "it ends an hour after the last one", "1m")
            .series(build("a"), "1x10 stale")
            .fires_at("60m", &labels)
            .quiet_at("75m"),
        Case::new(name, "without sidecars it is quiet", "1m").series(r#"up{job="other"}"#, "1x30").quiet_at("30m"),
    ]
}
