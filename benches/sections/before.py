"""What has become of the price of a plain HTTP/1.1 request since an earlier build: both binaries in one run."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

from harness import BODY, Bench, say
from load import H2load, cost_table, spread, take_turns
from proxies import TITLES, start_backend, start_proxy, start_sidecar
from report import Bar, Report
from sections.cost import measure_wrk

BEFORE_BAR = 1.02
TITLES_HERE = {"sidecar": TITLES["sidecar"], "sidecar-before": TITLES["sidecar-before"]}
# CPU time moves by more than the bar from round to round: twice the rounds, each compared with its neighbour.
ROUNDS_FACTOR = 2
# Whose instructions are counted.
LOAD = H2load(clients=10)
# What both runs of a pair have in common (start, connections, end) is no part of the difference.
FEW_REQUESTS = 2_000
COUNTED_ROUNDS = 3
# An instrumented program is some fifty times slower.
PATIENCE_SECONDS = 120


def section_before(bench: Bench, report: Report) -> None:
    options = bench.options
    backend = start_backend(bench)
    proxies = [start_proxy(bench, name, backend) for name in TITLES_HERE]
    count = ROUNDS_FACTOR * options.rounds
    rounds = take_turns(proxies, count, lambda proxy: measure_wrk(bench, proxy, backend))
    for proxy in proxies:
        proxy.server.stop()
    ratios = cost_table(
        report,
        f"CPU per request beside an earlier build: GET, {len(BODY)}-byte answer, {options.connections} keep-alive connections; "
        f"medians of {count} rounds of {options.seconds} s",
        rounds, TITLES_HERE,
    )["sidecar-before"]
    counted = {name: [] for name in TITLES_HERE}
    for number in range(COUNTED_ROUNDS):
        for name in TITLES_HERE:
            counted[name].append(instructions_per_request(bench, name, backend, options.counted_requests))
        say(f"instructions, round {number + 1}/{COUNTED_ROUNDS}: " + ", ".join(f"{name} {each[-1]:,.0f}" for name, each in counted.items()))
    counted_ratios = [now / then for now, then in zip(counted["sidecar"], counted["sidecar-before"])]
    report.table(
        f"Instructions per request (callgrind, all threads), {options.counted_requests:,} requests on {LOAD.clients} keep-alive connections, "
        f"medians of {COUNTED_ROUNDS}",
        ["binary", "instructions", "min-max", "sidecar ÷ this (min-max)"],
        [
            [TITLES[name], f"{statistics.median(each):,.0f}", f"{min(each):,.0f}-{max(each):,.0f}",
             spread(counted_ratios, 3) if name == "sidecar-before" else ""]
            for name, each in counted.items()
        ],
    )
    report.note(f"The earlier build: {Path(options.before).name}.")
    report.bars.append(Bar("CPU per request, sidecar ÷ the earlier build", statistics.median(ratios), BEFORE_BAR, "x"))
    report.bars.append(Bar("instructions per request, sidecar ÷ the earlier build", statistics.median(counted_ratios), BEFORE_BAR, "x"))
    report.data["before"] = {"rounds": rounds, "ratios": ratios, "instructions": counted, "instruction_ratios": counted_ratios}


def instructions_per_request(bench: Bench, name: str, backend: int, requests: int) -> float:
    """From two runs that differ in the number of requests alone."""
    few, many = (count_instructions(bench, name, backend, number) for number in (FEW_REQUESTS, FEW_REQUESTS + requests))
    return (many - few) / requests


def count_instructions(bench: Bench, name: str, backend: int, requests: int) -> int:
    """Of a whole life with so many requests in it, in all threads."""
    record = bench.directory / "callgrind.out"
    record.unlink(missing_ok=True)
    tool = [bench.tools["valgrind"], "--tool=callgrind", f"--callgrind-out-file={record}"]
    # What goes by the clock and not by requests would count for the longer run.
    env = {"GOLDEN_SATURATION_INTERVAL": "60s"}
    proxy = start_sidecar(bench, name, backend, env=env, below=tool, patience_seconds=PATIENCE_SECONDS)
    LOAD.run(bench, proxy, backend, requests=requests)
    proxy.server.stop(PATIENCE_SECONDS)
    found = re.search(r"^(?:summary|totals): (\d+)", record.read_text() if record.exists() else "", re.MULTILINE)
    if not found:
        raise proxy.server.fail("callgrind wrote no sum")
    return int(found[1])
