"""CPU time per request, of each process tree, and the ratio to each peer."""

from __future__ import annotations

import statistics

from harness import BODY, Bench
from load import cost_table, measure_cost, run_wrk, take_turns
from proxies import Proxy, TITLES, start_backend, start_proxy
from report import Bar, Report

RATIO_BARS = {"haproxy": 1.00, "haproxy-tcp": 1.30, "sidecar-unmeasured": 1.03}


def section_cost(bench: Bench, report: Report) -> None:
    options = bench.options
    backend = start_backend(bench)
    proxies = [start_proxy(bench, name, backend) for name in options.proxies]
    rounds = take_turns(proxies, options.rounds, lambda proxy: measure_wrk(bench, proxy, backend))
    ratios = cost_table(
        report,
        f"CPU per request: GET, {len(BODY)}-byte answer, {options.connections} keep-alive connections; "
        f"medians of {options.rounds} rounds of {options.seconds} s",
        rounds, {name: TITLES[name] for name in options.proxies},
    )
    for name, limit in RATIO_BARS.items():
        if name in ratios:
            report.bars.append(Bar(f"CPU per request, sidecar ÷ {TITLES[name]}", statistics.median(ratios[name]), limit, "x"))
    report.data["cost"] = {"rounds": rounds, "ratios": ratios}
    for proxy in proxies:
        proxy.server.stop()


def measure_wrk(bench: Bench, proxy: Proxy, backend: int) -> dict:
    """Plain HTTP/1.1 on keep-alive connections, after a warm-up."""
    run_wrk(bench, proxy, bench.options.warmup, backend)
    return measure_cost(proxy, lambda: run_wrk(bench, proxy, bench.options.seconds, backend))
