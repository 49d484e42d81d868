//! A sidecar, a real Prometheus with the pack's rules, and Alertmanager with its rules of inhibition, under live traffic.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use golden_sidecar::pack::inhibit;

use super::common::files::{below, rules_text};
use super::common::prometheus::{Alert, Alertmanager, Options, Prometheus, Treated, VERSIONS, Version, now_seconds};
use super::common::{Backend, PATIENCE, Sidecar, StopOnDrop, ok, wait_for};
use super::{MINUTE, WATCHDOG};

const UNREACHABLE: &str = "GoldenBackendUnreachable";
const ALL_FAILING: &str = "GoldenAllRequestsFailing";

const BURN: &str = "GoldenErrorBudgetBurn";

/// Between two requests: some twenty a second, which keeps nobody busy.
const PACE: Duration = Duration::from_millis(40);

/// What they say of this machine and of what else runs on it, rather than of the sidecar: tests keep it busy.
const OF_THE_MACHINE: [&str; 8] = [
    "GoldenAcceptQueueOverflow",
    "GoldenCpuSaturated",
    "GoldenHostCpuSaturated",
    "GoldenHostMemoryNearLimit",
    "GoldenMemoryNearLimit",
    "GoldenSaturationStale",
    "GoldenScrapeTooSlowOrLarge",
    "GoldenSidecarAddsLatency",
];

/// Requests at a steady pace until told to stop, whatever comes of them.
fn traffic(sidecar: &Sidecar, stop: &AtomicBool) {
    while !wait_for(PACE, || stop.load(Ordering::SeqCst)) {
        let _ = sidecar.get("/a").status();
    }
}

fn before(backend: &Backend) -> Sidecar {
    Sidecar::before(backend).yaml("slos:\n  - {name: api, objective: 0.999, latency: 2s}\n").start()
}

#[test]
fn under_light_and_healthy_traffic_every_rule_is_well_and_only_the_watchdog_fires() {
    let backend = Backend::always("hello");
    let sidecar = before(&backend);
    let stop = AtomicBool::new(false);
    let check = &|version: Version| {
        let options = Options { rules: vec![rules_text()], ..Options::scraping(sidecar.admin) };
        let prometheus = Prometheus::start(version, options);
        prometheus.rules_when_evaluated();
        prometheus.alert_when(WATCHDOG, "firing", PATIENCE * 2);
        // Some evaluations that see traffic: of what is recorded, the shares of both kinds.
        let shares = ["errors", "slow"]
            .map(|kind| format!("count_over_time(job_slo:golden_slo_{kind}:ratio_increase5m[1m]) >= 5"))
            .join(" and ");
        // Most alerts wait for minutes before they fire: not even that. A machine that is busy for a moment lets a scrape
        // fail, and the next one succeeds.
        let mut waiting = Vec::new();
        let calm = wait_for(PATIENCE * 3, || {
            let alerts: Vec<_> = prometheus.alerts().into_iter().filter(|alert| name(alert) != WATCHDOG).collect();
            assert!(alerts.iter().all(|alert| alert.state == "pending"), "{version:?}: {alerts:#?}");
            waiting = alerts.into_iter().filter(|alert| !OF_THE_MACHINE.contains(&name(alert))).collect();
            waiting.is_empty() && prometheus.number(&shares, now_seconds()).is_some()
        });
        assert!(calm, "{version:?}: {waiting:#?}");
        let rules = prometheus.rules_when_evaluated();
        assert!(rules.iter().filter(|rule| rule.alerting).count() > 30, "{version:?}: all of the file");
        prometheus.assert_all_was_taken();
    };
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| traffic(&sidecar, &stop));
        let checks = VERSIONS.map(|version| scope.spawn(move || check(version)));
        for check in checks {
            check.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

#[test]
fn a_backend_that_stops_is_told_as_one_cause_with_its_symptoms_suppressed_and_ends_when_it_is_back() {
    let mut backend = Backend::always("hello");
    let address = backend.address;
    let sidecar = before(&backend);
    let alertmanager = Alertmanager::start(&below("alerts", "alertmanager.inhibit.yml").remove(0).1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| traffic(&sidecar, &stop));
        let options = Options {
            rules: vec![hastened(&rules_text())],
            alertmanager: Some(alertmanager.address),
            ..Options::scraping(sidecar.admin)
        };
        let prometheus = Prometheus::start(Version::Oldest, options);
        prometheus.alert_when(WATCHDOG, "firing", PATIENCE * 2);
        let treated = alertmanager.alerts_until("the watchdog is there", MINUTE, |treated| !treated.is_empty());
        assert!(treated.iter().all(|alert| alert.labels["alertname"] == WATCHDOG), "all is well: {treated:#?}");

        backend.stop();
        for name in [UNREACHABLE, ALL_FAILING, BURN] {
            prometheus.alert_when(name, "firing", MINUTE);
        }
        let has = |treated: &[Treated], name: &str| treated.iter().any(|alert| alert.labels["alertname"] == name);
        let treated = alertmanager.alerts_until("only the cause is active", MINUTE, |treated| {
            let (active, rest): (Vec<_>, Vec<_>) = treated.iter().partition(|alert| alert.state == "active");
            let active: BTreeSet<_> = active.iter().map(|alert| &*alert.labels["alertname"]).collect();
            active == BTreeSet::from([UNREACHABLE, WATCHDOG])
                && rest.iter().all(|alert| alert.state == "suppressed")
                && has(treated, ALL_FAILING)
                && has(treated, BURN)
        });
        let failing = treated.iter().find(|alert| alert.labels["alertname"] == ALL_FAILING).expect("waited for");
        let by: Vec<_> = failing.inhibited_by.iter().map(|labels| &*labels["alertname"]).collect();
        assert_eq!(by, [UNREACHABLE], "{treated:#?}");

        let _backend =
            Backend::start_at(address, |peer| while peer.read_request().is_some() && peer.send(ok("hello")) {});
        let treated = alertmanager.alerts_until("cause and symptom have ended", MINUTE, |treated| {
            !has(treated, UNREACHABLE) && !has(treated, ALL_FAILING)
        });
        // What looks back for longer than anybody can wait here, such as the budget over five minutes, may go on.
        let expected = |alert: &Treated| [&caused()[..], &[WATCHDOG]].concat().contains(&&*alert.labels["alertname"]);
        assert!(treated.iter().all(expected), "{treated:#?}");
        let firing = prometheus.firing();
        assert!(!firing.contains(UNREACHABLE) && !firing.contains(ALL_FAILING), "{firing:?}");
    });
}

/// What an unreachable backend silences.
fn caused() -> Vec<&'static str> {
    let rules = inhibit::all().into_iter().filter(|rule| rule.source.alerts.contains(&UNREACHABLE));
    rules.flat_map(|rule| rule.target.alerts).collect()
}

/// The rules with less patience, for the one test that cannot wait for minutes: two seconds instead of what `for:` and
/// `keep_firing_for:` say in the alerts that an unreachable backend is or causes, and ten seconds instead of two minutes wherever that is a window, for
/// nothing may have succeeded in it. Nothing else is changed.
fn hastened(rules: &str) -> String {
    let hasty = [&caused()[..], &[UNREACHABLE]].concat();
    let mut ours = false;
    let lines = rules.lines().map(|line| {
        if let Some(name) = line.trim_start().strip_prefix("- alert: ") {
            ours = hasty.contains(&name);
        }
        let patience = ["for:", "keep_firing_for:"].into_iter().find(|key| line.trim_start().starts_with(key));
        let hasty = patience.filter(|_| ours).map(|key| format!("        {key} 2s"));
        let line = hasty.as_deref().unwrap_or(line);
        line.replace("[2m]", "[10s]").replace("offset 2m", "offset 10s") + "\n"
    });
    lines.collect()
}

fn name(alert: &Alert) -> &str {
    &alert.labels["alertname"]
}
