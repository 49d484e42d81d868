"""CPU of the sampler's thread, with many connections to look at."""

from __future__ import annotations

import statistics
import sys
import time

from harness import Bench, ROOT, Server, get, raise_file_limit, thread_cpu_ns, wait_for_word
from proxies import Proxy, start_sidecar
from report import Bar, Report

SAMPLING_BARS_PERCENT = {2_000: 0.5, 20_000: 3.0}
SAMPLING_PROCESSES = 8
SAMPLING_POOLED = 40
# For so long after it was found the backend's children are looked for more eagerly.
SAMPLING_EAGER_SECONDS = 25
SAMPLING_WINDOWS = 3
SAMPLING_WINDOW_SECONDS = 10


def section_sampling(bench: Bench, report: Report) -> None:
    """The sampler has a thread of its own, so its price is the CPU time of that thread: all probes on, a pool in use too."""
    rows, data = [], {}
    for sockets, interval in ((2_000, "1s"), (20_000, "1s"), (2_000, "100ms")):
        raise_file_limit(2 * sockets + 2000)
        remote = start_load(bench, "remote", [])
        pool = wait_for_word(remote, "ready")
        crowd = start_load(bench, "crowd", [str(SAMPLING_PROCESSES), str(sockets), pool, str(SAMPLING_POOLED)])
        port = wait_for_word(crowd, "ready")
        clients = start_load(bench, "clients", [port, str(sockets)])
        wait_for_word(clients, "ready")
        wait_for_word(crowd, "full")
        config = bench.directory / f"sampling-{sockets}-{interval}.yaml"
        config.write_text(f"saturation:\n  interval: {interval}\n  pools:\n    - {{name: db, port: {pool}, limit: {SAMPLING_POOLED}}}\n")
        proxy = start_sidecar(bench, "sidecar", int(port), config, {})
        wait_for_processes(proxy, SAMPLING_PROCESSES + 1)
        # The first seconds look around; the price is that of the long run.
        time.sleep(max(bench.options.settle, SAMPLING_EAGER_SECONDS))
        in_use = metric(proxy, 'golden_pool_connections{pool="db",state="in_use",source="inferred"}')
        if in_use != SAMPLING_POOLED:
            raise proxy.server.fail(f"sees {in_use} of {SAMPLING_POOLED} connections of the pool in use")
        shares, ticks_before = [], metric(proxy, "golden_sampler_ticks_total")
        for _ in range(SAMPLING_WINDOWS):
            before, began = thread_cpu_ns(proxy.server.pid, "sampler"), time.monotonic_ns()
            time.sleep(SAMPLING_WINDOW_SECONDS)
            shares.append(100 * (thread_cpu_ns(proxy.server.pid, "sampler") - before) / (time.monotonic_ns() - began))
        rounds = metric(proxy, "golden_sampler_ticks_total") - ticks_before
        missed = metric(proxy, "golden_sampler_missed_ticks_total")
        if missed:
            raise proxy.server.fail(f"missed {missed:.0f} rounds of sampling")
        median = statistics.median(shares)
        rows.append([f"{SAMPLING_PROCESSES}", f"{sockets:,}", interval, f"{median:.2f}", f"{min(shares):.2f}-{max(shares):.2f}", f"{rounds:.0f}"])
        if interval == "1s":
            name = f"sampling {sockets:,} connections once a second, share of one core"
            report.bars.append(Bar(name, median, SAMPLING_BARS_PERCENT[sockets], "%"))
        data[f"{sockets} at {interval}"] = shares
        for server in (proxy.server, clients, crowd, remote):
            server.stop()
    report.table(f"CPU of the sampler thread, all probes, a pool of {SAMPLING_POOLED} in use, medians of {SAMPLING_WINDOWS} windows of {SAMPLING_WINDOW_SECONDS} s",
                 ["backend's processes", "its clients", "interval", "% of a core", "min-max", "rounds"], rows)
    report.data["sampling"] = data


def start_load(bench: Bench, role: str, arguments: list[str]) -> Server:
    command = [sys.executable, str(ROOT / "tests/peers/load.py"), role, *arguments]
    server = Server(f"backend-{role}", command, bench.load_core, bench.directory)
    bench.stack.callback(server.stop)
    return server


def metric(proxy: Proxy, series: str) -> float | None:
    for line in get(proxy.admin, "/metrics")[1].decode().splitlines():
        if line.startswith(series + " "):
            return float(line.split()[1])
    return None


def wait_for_processes(proxy: Proxy, count: int) -> None:
    deadline = time.monotonic() + 30
    while metric(proxy, "golden_backend_processes") != count:
        if time.monotonic() > deadline:
            raise proxy.server.fail(f"does not see {count} processes of the backend")
        time.sleep(0.1)
