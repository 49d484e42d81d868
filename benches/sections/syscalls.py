"""System calls per request at saturation."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from harness import Bench, BenchError, Server
from load import run_wrk
from proxies import start_backend, start_proxy
from report import Bar, Report

# read, write, read, write. The rest is room for epoll_wait, shared by many requests. The sampler's thread has no part in
# requests: its calls are counted by the second.
SYSCALLS_BAR = 4.2


def section_syscalls(bench: Bench, report: Report) -> None:
    backend = start_backend(bench)
    proxy = start_proxy(bench, "sidecar", backend)
    run_wrk(bench, proxy, bench.options.warmup, backend)
    names = {int(t): Path(f"/proc/{proxy.server.pid}/task/{t}/comm").read_text().strip() for t in os.listdir(f"/proc/{proxy.server.pid}/task")}
    sampler = [thread for thread, name in names.items() if name == "sampler"]
    if len(sampler) != 1:
        raise proxy.server.fail(f"has {len(sampler)} threads called sampler: {sorted(names.values())}")
    straces = [
        start_strace(bench, "strace", [thread for thread in names if thread not in sampler]),
        start_strace(bench, "strace-sampler", sampler),
    ]
    deadline = time.monotonic() + 10
    while not all_traced(proxy.server.pid):
        if any(strace.process.poll() is not None for strace, _ in straces) or time.monotonic() > deadline:
            raise straces[0][0].fail("cannot trace the sidecar; run as root, or allow ptrace in this container")
        time.sleep(0.01)
    began = time.monotonic()
    # The whole run is traced, connecting included, so both counts are of the same requests. Tracing makes the proxy some
    # ten times slower; four times the seconds keep the share of the connecting below 0.05 calls per request.
    result = run_wrk(bench, proxy, 4 * bench.options.seconds, backend)
    seconds = time.monotonic() - began
    # SIGINT makes strace detach and write its table.
    for strace, _ in straces:
        strace.process.send_signal(signal.SIGINT)
    for strace, _ in straces:
        strace.process.wait(10)
    proxy.server.stop()
    calls, sampler_calls = (parse_strace(summary.read_text()) for _, summary in straces)
    requests = result["requests"]
    total = sum(calls.values())
    ranked = sorted(calls.items(), key=lambda item: -item[1])
    shown = [(name, count) for name, count in ranked if count / requests >= 0.0005]
    rest = total - sum(count for _, count in shown)
    rows = [[name, f"{count:,}", f"{count / requests:.3f}"] for name, count in shown]
    if rest:
        rows.append(["all others", f"{rest:,}", f"{rest / requests:.4f}"])
    rows.append(["total", f"{total:,}", f"{total / requests:.3f}"])
    report.table(f"System calls of the sidecar over {requests:,} requests (strace -c; all threads but the sampler)", ["call", "count", "per request"], rows)
    report.note(f"The sampler's thread beside it, in the first seconds after the start: {sum(sampler_calls.values()) / seconds:.0f} system calls a second.")
    report.bars.append(Bar("system calls per request", total / requests, SYSCALLS_BAR, ""))
    report.data["syscalls"] = {"requests": requests, "calls": calls, "seconds": seconds, "sampler_calls": sampler_calls}


def start_strace(bench: Bench, name: str, threads: list[int]) -> tuple[Server, Path]:
    """Counts the system calls of these threads; the table will be in the file."""
    summary = bench.directory / f"{name}.txt"
    traced = [argument for thread in threads for argument in ("-p", str(thread))]
    strace = Server(name, [bench.tools["strace"], "-c", *traced, "-o", str(summary)], bench.load_core, bench.directory)
    bench.stack.callback(strace.stop)
    return strace, summary


def all_traced(pid: int) -> bool:
    """Whether every thread of the process has a tracer."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        if "TracerPid:\t0\n" in Path(f"/proc/{pid}/task/{thread}/status").read_text():
            return False
    return True


def parse_strace(table: str) -> dict[str, int]:
    """Calls by name from `strace -c`: rows of `% seconds usecs/call calls [errors] name`."""
    calls = {}
    for line in table.splitlines():
        words = line.split()
        if len(words) in (5, 6) and re.fullmatch(r"[0-9.]+", words[0]) and words[-1] != "total":
            calls[words[-1]] = int(words[3])
    if not calls:
        raise BenchError(f"strace wrote no table: {table!r}")
    return calls
