#!/usr/bin/env python3
"""What the sidecar costs, side by side with nginx, HAProxy and Envoy, in one interleaved run on two pinned cores.

The proxies run on one core; the load (wrk) and the backend (nginx) on the other, so that the proxy is the narrow place
and its CPU time per request is the price of one request. Sections, each also callable alone with `--section NAME`:

| section  | question | bar |
|----------|----------|-----|
| cost     | CPU time per request, of each process tree, and the ratio to each peer | 1.00 x HAProxy, 1.30 x HAProxy TCP, 1.03 x unmeasured |
| syscalls | system calls per request at saturation (strace -c) | 4.2 |
| memory   | resident memory at rest; per idle keep-alive connection | 15 MiB; 2 KiB |
| startup  | exec to the first 200 on /readyz | 100 ms |
| scrape   | GET /metrics with 100 routes x 4 codes x 3 methods, in each format; time that the worker loses to it; size of the protobuf page | 10 ms; 1 ms; 1/4 of text |
| storm    | p99 of requests at half of the capacity while 20 scrapers ask at once, every second, to p99 without them | 1.05 |
| routes   | finding a path among 500 templates, imported or declared; what learning adds to a path that it knows | 300 ns; 200 ns |
| scanner  | 100,000 distinct paths and 1,000 methods, all answered 200: seconds; growth of resident memory; label sets of the fullest family | 10 s; 8 MiB; 2,000 |
| streams  | growth of the peak resident memory by 1 GiB up and 1 GiB down | 16 MiB |
| sampling | CPU of the sampler thread, once a second, a backend of 8 processes and 2,000 or 20,000 connections | 0.5 %; 3 % of a core |

Exit status: 0 all bars hold, 1 a bar is missed or a round went wrong, 2 bad usage or something is missing.
Needs only the standard library of Python 3.9. All servers listen on loopback, on ports the kernel chose.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import http.client
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# === What is measured, and the bars ===

SECTIONS = ("cost", "syscalls", "memory", "startup", "scrape", "storm", "routes", "scanner", "streams", "sampling")
PROXIES = ("sidecar", "sidecar-unmeasured", "nginx", "haproxy", "haproxy-tcp", "envoy")
TITLES = {
    "sidecar": "golden-sidecar",
    "sidecar-unmeasured": "golden-sidecar, unmeasured",
    "nginx": "nginx",
    "haproxy": "HAProxy",
    "haproxy-tcp": "HAProxy, TCP mode",
    "envoy": "Envoy",
}
RATIO_BARS = {"haproxy": 1.00, "haproxy-tcp": 1.30, "sidecar-unmeasured": 1.03}
# read, write, read, write. The rest is room for epoll_wait, shared by many requests. The sampler's thread has no part in
# requests: its calls are counted by the second.
SYSCALLS_BAR = 4.2
# Above this share of its core a proxy counts as the narrow place.
SATURATED_RATIO = 0.9
MEMORY_REST_BAR_MIB = 15.0
MEMORY_CONNECTION_BAR_KIB = 2.0
STARTUP_BAR_MS = 100.0
SCRAPE_BAR_MS = 10.0
SCRAPE_WORKER_BAR_MS = 1.0
PROTOBUF_SIZE_BAR = 0.25
STORM_SCRAPERS = 20
STORM_BAR = 1.05
SCANNER_PATHS = 100_000
SCANNER_METHODS = 1_000
SCANNER_BAR_SECONDS = 10.0
SCANNER_BAR_MIB = 8.0
SCANNER_BAR_SETS = 2_000
FIND_BAR_NS = 300.0
LEARN_BAR_NS = 200.0
STREAMS_BAR_MIB = 16.0
SAMPLING_BARS_PERCENT = {2_000: 0.5, 20_000: 3.0}

# A small JSON answer; about 100 bytes, so that the price is that of a request and not of bytes.
BODY = '{"id":42,"name":"Ada Lovelace","email":"ada@example.org","roles":["admin","author"],"active":true}'
# Falls under a declared template, so that the sidecar does all of its measuring.
TARGET = "/users/42"
ROUTES = ["/users/{id}", "/users", "/users/{id}/orders", "/orders/{id}", "/orders", "/search", "/reports/{year}/{month}"]
SCRAPE_ROUTES = 100
SCRAPE_CODES = (200, 301, 404, 500)
SCRAPE_METHODS = ("GET", "POST", "DELETE")
STREAM_BYTES = 1 << 30
# Longer than any section: no connection may end by an idle limit while it is being measured.
NEVER_SECONDS = 3600

MARK_BEGIN = "<!-- bench:begin -->"
MARK_END = "<!-- bench:end -->"


class BenchError(Exception):
    """Something that makes the numbers worthless. One sentence, says what to do where that is known."""


class MissingError(BenchError):
    """A program that the bench needs is not there."""


@dataclass
class Bar:
    """One promise: `measured <= limit`, in `unit`."""

    name: str
    measured: float
    limit: float
    unit: str

    @property
    def holds(self) -> bool:
        return self.measured <= self.limit


@dataclass
class Report:
    """What the sections found: tables for people, `data` for programs."""

    tables: list[tuple[str, list[str], list[list[str]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    data: dict = field(default_factory=dict)

    def table(self, title: str, header: list[str], rows: list[list[str]]) -> None:
        self.tables.append((title, header, rows))
        print("\n" + plain_table(title, header, rows), flush=True)

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(text, flush=True)


def say(text: str) -> None:
    """Progress, on standard error so that standard output holds only results."""
    print(text, file=sys.stderr, flush=True)


# === Processes ===

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


class Server:
    """One process, started here, in a session of its own, pinned to `core`, ended by its pid. Its output goes to a file."""

    def __init__(self, name: str, command: list[str], core: int, directory: Path, env: dict[str, str] | None = None):
        self.name = name
        self.log = directory / f"{name}.{time.monotonic_ns()}.log"

        def prepare() -> None:
            os.sched_setaffinity(0, {core})
            # If this script is killed outright, the kernel ends its servers.
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(env or {}),
                cwd=directory, start_new_session=True, preexec_fn=prepare,
            )
        self.pid = self.process.pid

    def tree(self) -> list[int]:
        """The pid and those of all descendants."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    # The name (field 2) may hold spaces and brackets; the parent is the second field after it.
                    parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
        found = [self.pid]
        for pid in found:
            found.extend(child for child, parent in parents.items() if parent == pid)
        return found

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def fail(self, what: str) -> BenchError:
        """An error with the last lines that the process wrote."""
        tail = "\n  ".join(self.output().splitlines()[-15:])
        return BenchError(f"{self.name}: {what}; its last output:\n  {tail}")

    def check_alive(self) -> None:
        if self.process.poll() is not None:
            raise self.fail(f"ended with status {self.process.returncode}")

    def stop(self, patience_seconds: float = 5.0) -> None:
        """Asks, waits, then kills the tree. Safe to call twice."""
        if self.process.poll() is None:
            tree = self.tree()
            self.process.terminate()
            try:
                self.process.wait(patience_seconds)
            except subprocess.TimeoutExpired:
                for pid in tree:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.process.wait()


def clean_environment(extra: dict[str, str]) -> dict[str, str]:
    """Ours, less what would configure a proxy behind our back."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GOLDEN_", "OTEL_", "RUST_")) and k.lower() != "http_proxy"}
    return {**kept, **extra}


def cpu_ns(pids: list[int]) -> int:
    """Nanoseconds on a CPU so far, over all threads of these processes: first field of schedstat."""
    total = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            # A thread may end between the two reads; the comparison with the CPU clock then tells.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return total


def cpu_clock_ns(pids: list[int]) -> int:
    """The same from the processes' CPU clocks, which also count threads that have ended since."""
    # The clock id of another process, as clock_getcpuclockid(3) makes it; 2 is CPUCLOCK_SCHED.
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


def status_kib(pid: int, key: str) -> int:
    """A `key: N kB` line of /proc/PID/status, KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise BenchError(f"/proc/{pid}/status has no {key}")


def tree_rss_kib(server: Server) -> int:
    """Resident memory over the process tree, KiB. Pages that processes share count once for each."""
    return sum(status_kib(pid, "VmRSS") for pid in server.tree())


def free_port() -> int:
    """A port that was free a moment ago. Whoever uses it must be ready to try again with another one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port: int, path: str, timeout: float = 5.0) -> tuple[int, bytes]:
    """Status and body of one GET on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def wait_until_serving(server: Server, port: int, path: str = TARGET, expect: bytes | None = BODY.encode()) -> None:
    """Returns once a GET gives 200 and the expected body."""
    deadline = time.monotonic() + 15
    last = "nothing"
    while time.monotonic() < deadline:
        server.check_alive()
        try:
            status, body = get(port, path)
            if status == 200 and (expect is None or body == expect):
                return
            last = f"status {status}, {len(body)} bytes"
        except (OSError, http.client.HTTPException) as error:
            last = repr(error)
        time.sleep(0.01)
    raise server.fail(f"does not serve GET {path} within 15 s (last: {last})")


# === Backend, load, proxies ===


@dataclass
class Bench:
    """The run: options, tools, cores, a scratch directory, and what must be ended at the end."""

    options: argparse.Namespace
    tools: dict[str, str]
    load_core: int
    proxy_core: int
    directory: Path
    stack: contextlib.ExitStack

    def start(self, name: str, build, ready) -> tuple[Server, int]:
        """Starts a server on a free port: `build(port)` gives command and environment, `ready(server, port)` waits.

        The port may be taken between choosing and binding, so a server that ends at once gets two more tries.
        """
        for attempt in (1, 2, 3):
            port = free_port()
            command, env = build(port)
            core = self.load_core if name.startswith("backend") else self.proxy_core
            server = Server(name, command, core, self.directory, env)
            self.stack.callback(server.stop)
            try:
                ready(server, port)
                return server, port
            except BenchError:
                if attempt == 3 or server.process.poll() is None:
                    raise
        raise AssertionError("unreachable")


@dataclass
class Proxy:
    """A running proxy: where it serves, and for the sidecar where its admin endpoints are."""

    name: str
    server: Server
    port: int
    admin: int | None = None


def nginx_common(bench: Bench, name: str) -> str:
    """The head of an nginx configuration: one worker, foreground, everything it writes below our directory."""
    base = bench.directory / name
    base.mkdir(exist_ok=True)
    base.chmod(0o755)
    temporary = "".join(
        f"  {kind}_temp_path {base}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # Started as root, the worker would become `nobody`, who may not enter the directory.
    user = "user root;\n" if os.geteuid() == 0 else ""
    return (
        f"daemon off;\n{user}worker_processes 1;\nworker_rlimit_nofile {file_limit()};\npid {base}/pid;\nerror_log stderr error;\n"
        f"events {{ worker_connections {file_limit() - 100}; }}\n"
        f"http {{\n{temporary}  access_log off;\n  default_type application/json;\n"
        f"  keepalive_requests 1000000000;\n  keepalive_time {NEVER_SECONDS}s;\n  keepalive_timeout {NEVER_SECONDS}s;\n"
    )


def start_backend(bench: Bench) -> int:
    """nginx with a small fixed answer, one location per status code, and its own request counter. Gives the port."""

    def build(port: int):
        config = bench.directory / "backend.conf"
        codes = "".join(
            f'    location ~ "^/r[0-9]+/{code}$" {{ return {code} "{code}"; }}\n' for code in SCRAPE_CODES
        )
        config.write_text(
            nginx_common(bench, "backend") + f"  server {{\n    listen 127.0.0.1:{port} backlog=4096;\n"
            f"    location = {TARGET} {{ return 200 '{BODY}'; }}\n    location = /status {{ stub_status; }}\n{codes}  }}\n}}\n"
        )
        return [bench.tools["nginx"], "-c", str(config), "-e", "stderr"], {}

    _, port = bench.start("backend", build, wait_until_serving)
    return port


def backend_requests(port: int) -> int:
    """Requests that the backend has seen, this one included: third number of nginx's stub_status."""
    _, body = get(port, "/status")
    return int(body.split()[9])


def start_proxy(bench: Bench, name: str, backend: int, config: Path | None = None, env: dict[str, str] | None = None) -> Proxy:
    """Starts one proxy before the backend and waits until a request passes through it."""
    if name.startswith("sidecar"):
        return start_sidecar(bench, name, backend, config, env or {})
    builders = {
        "nginx": nginx_proxy, "haproxy": haproxy_proxy, "haproxy-tcp": haproxy_proxy, "envoy": envoy_proxy,
    }
    server, port = bench.start(name, lambda port: (builders[name](bench, name, port, backend), {}), wait_until_serving)
    return Proxy(name, server, port)


def nginx_proxy(bench: Bench, name: str, port: int, backend: int) -> list[str]:
    config = bench.directory / f"{name}.conf"
    config.write_text(
        nginx_common(bench, name)
        + f"  upstream b {{ server 127.0.0.1:{backend}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout {NEVER_SECONDS}s; keepalive_time {NEVER_SECONDS}s; }}\n"
        f"  server {{\n    listen 127.0.0.1:{port} backlog=4096;\n    location / {{\n      proxy_pass http://b;\n"
        "      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_set_header Host $http_host;\n    }\n  }\n}\n"
    )
    return [bench.tools["nginx"], "-c", str(config), "-e", "stderr"]


def haproxy_proxy(bench: Bench, name: str, port: int, backend: int) -> list[str]:
    config = bench.directory / f"{name}.conf"
    mode = "tcp" if name == "haproxy-tcp" else "http"
    http_only = "  option http-keep-alive\n  http-reuse always\n" if mode == "http" else ""
    # HAProxy reckons two descriptors per connection and would ask for more than it may have; with keep-alive clients that
    # are idle, HTTP mode needs only one.
    most = file_limit() // 2 - 100 if mode == "tcp" else file_limit() - 300
    config.write_text(
        f"global\n  nbthread 1\n  maxconn {most}\n  no strict-limits\n"
        f"defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client {NEVER_SECONDS}s\n  timeout server {NEVER_SECONDS}s\n"
        f"  timeout http-keep-alive {NEVER_SECONDS}s\n{http_only}"
        f"frontend f\n  bind 127.0.0.1:{port} backlog 4096\n  default_backend b\nbackend b\n  server s 127.0.0.1:{backend}\n"
    )
    return [bench.tools["haproxy"], "-db", "-f", str(config)]


def envoy_proxy(bench: Bench, name: str, port: int, backend: int) -> list[str]:
    def address(number: int) -> dict:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    extensions = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "AUTO",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "b"}}]}]
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": f"{extensions}.http.router.v3.Router"}}],
    }
    resources = {
        "listeners": [{
            "address": address(port),
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
        }],
        "clusters": [{
            "name": "b", "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": {"cluster_name": "b", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(backend)}}]}]},
        }],
    }
    config = bench.directory / f"{name}.json"
    config.write_text(json.dumps({"static_resources": resources}))
    return [bench.tools["envoy"], "--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c", str(config)]


def sidecar_command(bench: Bench, name: str, backend: int, listen: int, admin: int) -> list[str]:
    return [
        bench.tools[name], "--upstream", f"http://127.0.0.1:{backend}", "--listen", f"127.0.0.1:{listen}",
        "--admin", f"127.0.0.1:{admin}", "--workers", "1",
    ]


def start_sidecar(bench: Bench, name: str, backend: int, config: Path | None, env: dict[str, str]) -> Proxy:
    """The sidecar chooses its own ports and says them in its `listening` line."""
    if config is None:
        config = bench.directory / "routes.yaml"
        config.write_text("routes:\n" + "".join(f"  - path: {route}\n" for route in ROUTES))
    # Nothing to wait for at the end: no client will come back.
    env = {"GOLDEN_CONFIG": str(config), "GOLDEN_DRAIN_GRACE": "0s", "GOLDEN_DRAIN_TIMEOUT": "1s", **env}
    server = Server(name, sidecar_command(bench, name, backend, 0, 0), bench.proxy_core, bench.directory, env)
    bench.stack.callback(server.stop)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        found = listening_line(server.output())
        if found:
            return Proxy(name, server, *found)
        server.check_alive()
        time.sleep(0.01)
    raise server.fail('no line with "event":"listening" within 15 s')


def listening_line(output: str) -> tuple[int, int] | None:
    """Ports of proxy and admin from the JSON line with the event `listening`; its fields may be nested."""
    for line in output.splitlines():
        if '"listening"' not in line:
            continue
        with contextlib.suppress(ValueError, KeyError):
            entry = json.loads(line)
            fields = {**entry, **entry.get("fields", {})}
            return tuple(int(fields[key].rpartition(":")[2]) for key in ("proxy", "admin"))
    return None


# The sum of wrk's own counters, for machines. `status` counts answers of 400 and above.
WRK_DONE = """done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%d,"duration_us":%d,"bytes":%d,"p50_us":%d,"p99_us":%d,' ..
    '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""


def run_wrk(bench: Bench, proxy: Proxy, seconds: int, backend: int) -> dict:
    """One wrk run; fails on any socket error, any answer that is not 2xx, and any answer that the backend did not make."""
    script = bench.directory / "done.lua"
    if not script.exists():
        script.write_text(WRK_DONE)
    before = backend_requests(backend)
    command = [
        bench.tools["wrk"], "--threads", "1", "--connections", str(bench.options.connections), "--duration", f"{seconds}s",
        "--timeout", "5s", "--latency", "--script", str(script), f"http://127.0.0.1:{proxy.port}{TARGET}",
    ]
    # Our own affinity is the load core, and wrk inherits it.
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, env=clean_environment({}))
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    if ran.returncode != 0 or not lines:
        raise BenchError(f"{proxy.name}: wrk failed with status {ran.returncode}: {ran.stdout}{ran.stderr}")
    result = json.loads(lines[0][len("RESULT "):])
    proxy.server.check_alive()
    if any(result["errors"].values()) or result["requests"] == 0:
        raise proxy.server.fail(f"a round with errors is worth nothing: {result}")
    # One more than the difference of the two counts is the counting itself.
    seen = backend_requests(backend) - before - 1
    extra = seen - result["requests"]
    if not 0 <= extra <= 2 * bench.options.connections:
        raise proxy.server.fail(f"wrk counts {result['requests']} answers, the backend {seen} requests")
    if result["bytes"] < result["requests"] * len(BODY):
        raise proxy.server.fail(f"answers are shorter than the backend's body: {result}")
    return result


# === Section: cost ===


def section_cost(bench: Bench, report: Report) -> None:
    options = bench.options
    backend = start_backend(bench)
    proxies = [start_proxy(bench, name, backend) for name in options.proxies]
    rounds: list[dict[str, dict]] = []
    for number in range(options.rounds):
        # Each round begins with another proxy, so that nobody always runs after the same neighbour.
        shift = number % len(proxies)
        results = {}
        for proxy in proxies[shift:] + proxies[:shift]:
            run_wrk(bench, proxy, options.warmup, backend)
            results[proxy.name] = measure_cost(bench, proxy, backend)
        rounds.append(results)
        say(f"round {number + 1}/{options.rounds}: " + ", ".join(
            f"{name} {results[name]['cpu_us']:.2f} us" for name in options.proxies))

    def over(name: str, key: str) -> list[float]:
        return [results[name][key] for results in rounds]

    rows, ratios = [], {}
    for name in options.proxies:
        if "sidecar" in options.proxies and name != "sidecar":
            ratios[name] = [results["sidecar"]["cpu_us"] / results[name]["cpu_us"] for results in rounds]
        cpu = over(name, "cpu_us")
        rows.append([
            TITLES[name], f"{statistics.median(cpu):.2f}", f"{min(cpu):.2f}-{max(cpu):.2f}",
            f"{statistics.median(over(name, 'requests_per_second')):,.0f}",
            f"{statistics.median(over(name, 'p50_us')) / 1000:.2f}", f"{statistics.median(over(name, 'p99_us')) / 1000:.2f}",
            f"{statistics.median(over(name, 'core_busy_ratio')):.0%}",
            spread(ratios[name]) if name in ratios else "",
        ])
    report.table(
        f"CPU per request: GET, {len(BODY)}-byte answer, {options.connections} keep-alive connections; "
        f"medians of {options.rounds} rounds of {options.seconds} s",
        ["proxy", "CPU µs/request", "min-max", "requests/s", "p50 ms", "p99 ms", "core busy", "sidecar ÷ this (min-max)"],
        rows,
    )
    # A proxy that waits for work pays more wake-ups per request than one at its limit: worth knowing when comparing.
    idle = [TITLES[name] for name in options.proxies if statistics.median(over(name, "core_busy_ratio")) < SATURATED_RATIO]
    if idle:
        report.note(f"Not at their limit, as load and backend were the narrower place: {', '.join(idle)}.")
    for name, limit in RATIO_BARS.items():
        if name in ratios:
            report.bars.append(Bar(f"CPU per request, sidecar ÷ {TITLES[name]}", statistics.median(ratios[name]), limit, "x"))
    report.data["cost"] = {"rounds": rounds, "ratios": ratios}
    for proxy in proxies:
        proxy.server.stop()


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def measure_cost(bench: Bench, proxy: Proxy, backend: int) -> dict:
    """One measured run. CPU µs per request over the process tree, and what wrk says."""
    tree = proxy.server.tree()
    cpu, clock = cpu_ns(tree), cpu_clock_ns(tree)
    result = run_wrk(bench, proxy, bench.options.seconds, backend)
    if proxy.server.tree() != tree:
        raise proxy.server.fail("its processes changed during a round")
    cpu, clock = cpu_ns(tree) - cpu, cpu_clock_ns(tree) - clock
    # schedstat forgets threads that ended, and a running thread's last tick; more than that must not go unseen.
    if abs(cpu - clock) > 0.02 * clock:
        raise proxy.server.fail(f"schedstat says {cpu} ns, the CPU clock {clock} ns: threads ended during a round")
    return {
        "cpu_us": cpu / 1000 / result["requests"],
        "requests_per_second": result["requests"] / (result["duration_us"] / 1e6),
        "core_busy_ratio": cpu / 1000 / result["duration_us"],
        "p50_us": result["p50_us"],
        "p99_us": result["p99_us"],
        "requests": result["requests"],
    }


# === Section: syscalls ===


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


# === Section: memory ===


def section_memory(bench: Bench, report: Report) -> None:
    backend = start_backend(bench)
    rows, data = [], {}
    for name in bench.options.proxies:
        if name == "sidecar-unmeasured":
            continue
        count = idle_connections(name, bench.options.idle_connections)
        if count < bench.options.idle_connections:
            report.note(f"memory: {TITLES[name]} with {count:,} connections only: the limit on open files is {file_limit():,} and may not be raised")
        say(f"memory: {name}")
        # Limits that would end the connections being counted.
        env = {"GOLDEN_LIMITS_CONNECTIONS": str(count + 100), "GOLDEN_TIMEOUTS_CLIENT_IDLE": f"{NEVER_SECONDS}s"}
        proxy = start_proxy(bench, name, backend, env=env if name.startswith("sidecar") else None)
        rest = settled_rss_kib(bench, proxy.server)
        connections = open_idle(proxy, count)
        try:
            loaded = tree_rss_kib(proxy.server)
            idle = settled_rss_kib(bench, proxy.server)
            # Still there, and still served: every hundredth answers another request.
            for connection in connections[::100]:
                one_request(connection, proxy)
        finally:
            for connection in connections:
                connection.close()
        proxy.server.stop()
        per_connection = (idle - rest) / count
        data[name] = {"rest_kib": rest, "after_requests_kib": loaded, "idle_kib": idle, "connections": count,
                      "per_connection_kib": per_connection}
        rows.append([TITLES[name], f"{rest / 1024:.1f}", f"{idle / 1024:.1f}", f"{per_connection:.2f}"])
        if name == "sidecar":
            report.bars.append(Bar("resident memory at rest", rest / 1024, MEMORY_REST_BAR_MIB, "MiB"))
            report.bars.append(Bar("memory per idle connection", per_connection, MEMORY_CONNECTION_BAR_KIB, "KiB"))
    report.table(
        f"Resident memory; {bench.options.idle_connections:,} idle keep-alive connections, each after one request",
        ["proxy", "at rest MiB", "with connections MiB", "KiB per connection"], rows,
    )
    report.data["memory"] = data


def file_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_file_limit(wanted: int) -> None:
    """As far as we may. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def idle_connections(name: str, wanted: int) -> int:
    """What the limit on open files allows: a TCP relay holds two per client connection, the others a few for the backend."""
    spare = file_limit() - 500
    return min(wanted, spare // 2 if name == "haproxy-tcp" else spare)


def open_idle(proxy: Proxy, count: int) -> list[socket.socket]:
    """Connections that have each made one request and now say nothing. Closed with a reset, so none lingers in TIME_WAIT."""
    connections = []
    try:
        for number in range(count):
            connection = socket.socket()
            connections.append(connection)
            connection.settimeout(10)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            # Several sources: one address has some 28,000 ports towards one destination, and others may use them too.
            connection.bind((f"127.0.0.{1 + number % 4}", 0)) if number % 4 else None
            connection.connect(("127.0.0.1", proxy.port))
            one_request(connection, proxy)
    except (OSError, BenchError) as error:
        for connection in connections:
            connection.close()
        raise proxy.server.fail(f"connection {len(connections)} of {count} failed: {error!r}") from error
    return connections


def one_request(connection: socket.socket, proxy: Proxy) -> None:
    """A request and its whole answer on an open connection; fails unless it is the backend's."""
    connection.sendall(f"GET {TARGET} HTTP/1.1\r\nHost: 127.0.0.1:{proxy.port}\r\n\r\n".encode())
    answer = b""
    while BODY.encode() not in answer:
        piece = connection.recv(65536)
        if not piece:
            raise proxy.server.fail(f"closed an idle connection, or cut an answer after {answer[:100]!r}")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise proxy.server.fail(f"answered {answer[:100]!r}")


def settled_rss_kib(bench: Bench, server: Server) -> int:
    """Resident memory once it has changed by less than 1 % (or 64 KiB) for `--settle` seconds; at most 90 s."""
    deadline = time.monotonic() + 90
    reference, since = tree_rss_kib(server), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.25)
        server.check_alive()
        now = tree_rss_kib(server)
        if abs(now - reference) > max(64, reference // 100):
            reference, since = now, time.monotonic()
        elif time.monotonic() - since >= bench.options.settle:
            return now
    raise server.fail(f"its memory does not settle (last {tree_rss_kib(server)} KiB)")


# === Section: startup ===

STARTUP_RUNS = 20


def section_startup(bench: Bench, report: Report) -> None:
    backend = start_backend(bench)
    config = bench.directory / "routes.yaml"
    config.write_text("routes:\n" + "".join(f"  - path: {route}\n" for route in ROUTES))
    times = []
    for _ in range(STARTUP_RUNS):
        listen, admin = free_port(), free_port()
        began = time.perf_counter()
        server = Server("sidecar", sidecar_command(bench, "sidecar", backend, listen, admin), bench.proxy_core, bench.directory,
                        {"GOLDEN_CONFIG": str(config), "GOLDEN_DRAIN_GRACE": "0s", "GOLDEN_DRAIN_TIMEOUT": "1s"})
        bench.stack.callback(server.stop)
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if get(admin, "/readyz")[0] == 200:
                    break
            if time.perf_counter() - began > 10:
                raise server.fail("not ready within 10 s")
            server.check_alive()
            # Short against what is measured; longer would only add to it.
            time.sleep(0.0005)
        times.append((time.perf_counter() - began) * 1000)
        server.stop()
    median = statistics.median(times)
    report.table(f"Start to ready, {STARTUP_RUNS} starts", ["median ms", "min ms", "max ms"],
                 [[f"{median:.1f}", f"{min(times):.1f}", f"{max(times):.1f}"]])
    report.bars.append(Bar("start to ready, median", median, STARTUP_BAR_MS, "ms"))
    report.data["startup"] = {"milliseconds": times}


# === Section: scrape ===

SCRAPES = 50


def section_scrape(bench: Bench, report: Report) -> None:
    backend = start_backend(bench)
    proxy = start_full_sidecar(bench, backend)
    rows, data, sizes = [], {}, {}
    for title, accept in PAGES.items():
        for encoding in ("identity", "gzip"):
            worker_before = thread_cpu_ns(proxy.server.pid, "worker-0")
            times, size, page = time_scrapes(proxy, accept, encoding)
            worker_ms = (thread_cpu_ns(proxy.server.pid, "worker-0") - worker_before) / 1e6 / len(times)
            if (title, encoding) == ("text", "identity"):
                check_scrape(proxy, page.decode())
            name = title if encoding == "identity" else f"{title}, gzip"
            sizes[name] = size
            median = statistics.median(times)
            rows.append([name, f"{median:.2f}", f"{max(times):.2f}", f"{worker_ms:.3f}", f"{size / 1024:,.0f}"])
            report.bars.append(Bar(f"scrape, {name}, median", median, SCRAPE_BAR_MS, "ms"))
            report.bars.append(Bar(f"scrape, {name}, time of the worker", worker_ms, SCRAPE_WORKER_BAR_MS, "ms"))
            data[name] = {"milliseconds": times, "bytes": size, "worker_milliseconds": worker_ms}
    report.bars.append(Bar("protobuf page with native histograms, to the text page", sizes["protobuf"] / sizes["text"], PROTOBUF_SIZE_BAR, "x"))
    report.table(f"GET /metrics with {SCRAPE_ROUTES} routes x {len(SCRAPE_CODES)} codes x {len(SCRAPE_METHODS)} methods, {SCRAPES} scrapes",
                 ["page", "median ms", "max ms", "worker ms", "size KiB"], rows)
    report.data["scrape"] = data
    proxy.server.stop()


# As Prometheus asks for them.
PAGES = {
    "text": "text/plain;version=0.0.4",
    "OpenMetrics": "application/openmetrics-text;version=1.0.0",
    "protobuf": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
}


def start_full_sidecar(bench: Bench, backend: int) -> Proxy:
    """A sidecar that has seen every route with every code and method, once each."""
    config = bench.directory / "scrape.yaml"
    routes = [*(f"/r{i}/{{id}}" for i in range(SCRAPE_ROUTES)), *ROUTES]
    config.write_text("routes:\n" + "".join(f"  - path: {route}\n" for route in routes))
    proxy = start_proxy(bench, "sidecar", backend, config)
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    for i in range(SCRAPE_ROUTES):
        for code in SCRAPE_CODES:
            for method in SCRAPE_METHODS:
                connection.request(method, f"/r{i}/{code}")
                response = connection.getresponse()
                response.read()
                if response.status != code:
                    raise proxy.server.fail(f"{method} /r{i}/{code} gave {response.status}")
    connection.close()
    return proxy


def time_scrapes(proxy: Proxy, accept: str, encoding: str) -> tuple[list[float], int, bytes]:
    """Milliseconds from request to last byte over one keep-alive connection, bytes on the wire, the last page."""
    admin = http.client.HTTPConnection("127.0.0.1", proxy.admin, timeout=10)
    times, page = [], b""
    # The first one opens the connection and is not counted.
    for number in range(SCRAPES + 1):
        began = time.perf_counter()
        admin.request("GET", "/metrics", headers={"Accept": accept, "Accept-Encoding": encoding})
        response = admin.getresponse()
        page = response.read()
        if number:
            times.append((time.perf_counter() - began) * 1000)
        if response.status != 200 or response.getheader("Content-Type").split(";")[0] != accept.split(";")[0]:
            raise proxy.server.fail(f"GET /metrics for {accept} gave {response.status} {response.getheader('Content-Type')}")
        if (response.getheader("Content-Encoding") == "gzip") != (encoding == "gzip"):
            raise proxy.server.fail(f"asked for {encoding}, got {response.getheader('Content-Encoding')}")
    admin.close()
    return times, len(page), page


def check_scrape(proxy: Proxy, page: str) -> None:
    """The page must hold what was driven: each route, code and method once in the duration histogram."""
    counts = re.findall(r'^http_server_request_duration_seconds_count\{(.*)\} (\S+)$', page, re.MULTILINE)

    def value(labels: str, name: str) -> str:
        return re.search(name + '="([^"]*)"', labels)[1]

    once = {
        (value(labels, "http_route"), value(labels, "http_response_status_code"), value(labels, "http_request_method"))
        for labels, number in counts if float(number) == 1
    }
    wanted = {(f"/r{i}/{{id}}", str(code), method) for i in range(SCRAPE_ROUTES) for code in SCRAPE_CODES for method in SCRAPE_METHODS}
    if wanted - once:
        raise proxy.server.fail(f"{len(wanted - once)} of {len(wanted)} series are not at 1, for example {sorted(wanted - once)[0]}")


# === Section: storm ===

# A closed loop at saturation would show any millisecond that the one core spends elsewhere as latency of everybody, with
# or without a sidecar; half of the capacity is what a service that is well is run at.
STORM_LOAD_SHARE = 0.5
STORM_CONNECTIONS = 10
STORM_SECONDS = 5
# The p99 of a few seconds moves by a tenth by itself: many pairs, each compared with its neighbour.
STORM_ROUNDS = 17


def section_storm(bench: Bench, report: Report) -> None:
    backend = start_backend(bench)
    proxy = start_full_sidecar(bench, backend)
    capacity = run_wrk(bench, proxy, bench.options.seconds, backend)
    rate = int(capacity["requests"] / (capacity["duration_us"] / 1e6) * STORM_LOAD_SHARE)
    quiet, storm = [], []
    for number in range(STORM_ROUNDS):
        # In turn, and each first as often as second.
        for stormy in ((False, True) if number % 2 == 0 else (True, False)):
            stop = threading.Event()
            scrapers = threading.Thread(target=keep_scraping, args=(proxy, stop))
            if stormy:
                scrapers.start()
            (storm if stormy else quiet).append(percentile_us(bench, proxy, rate, 0.99))
            stop.set()
            if stormy:
                scrapers.join()
    moved = statistics.median(there / here for here, there in zip(quiet, storm))
    report.bars.append(Bar(f"p99 with {STORM_SCRAPERS} scrapers, to p99 without", moved, STORM_BAR, "x"))
    report.table(
        f"p99 at {rate:,} requests/s, {STORM_SCRAPERS} scrapers at once every second, the page of the section scrape, medians of {STORM_ROUNDS} pairs of {STORM_SECONDS} s",
        ["", "p99 \u00b5s", "min-max"],
        [["no scraper", f"{statistics.median(quiet):.0f}", f"{min(quiet):.0f}-{max(quiet):.0f}"],
         [f"{STORM_SCRAPERS} scrapers", f"{statistics.median(storm):.0f}", f"{min(storm):.0f}-{max(storm):.0f}"]],
    )
    report.data["storm"] = {"rate": rate, "quiet_us": quiet, "storm_us": storm}
    proxy.server.stop()


def keep_scraping(proxy: Proxy, stop: threading.Event) -> None:
    """All scrapers ask at the turn of each second: as bad as it gets with one interval for all. They keep their connections,
    as Prometheus does, and one thread serves them all, since they share a core with the load that is measured."""
    request = (f"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: {PAGES['OpenMetrics']}\r\nAccept-Encoding: gzip\r\n\r\n").encode()
    scrapers = [socket.create_connection(("127.0.0.1", proxy.admin), timeout=10) for _ in range(STORM_SCRAPERS)]
    room = bytearray(1 << 20)
    while not stop.wait(1 - time.time() % 1):
        for scraper in scrapers:
            scraper.sendall(request)
        for scraper in scrapers:
            head, rest = read_head(scraper)
            if b"content-encoding: gzip" not in head.lower():
                raise proxy.server.fail("a scraper of the storm got no gzip")
            left = content_length(head) - len(rest)
            while left > 0:
                got = scraper.recv_into(room, min(left, len(room)))
                if not got:
                    raise proxy.server.fail("a scraper of the storm was left alone")
                left -= got
    for scraper in scrapers:
        scraper.close()


def percentile_us(bench: Bench, proxy: Proxy, rate: int, share: float) -> float:
    """This percentile of the latency at this rate, from h2load's own record of each request."""
    record = bench.directory / "latencies"
    record.unlink(missing_ok=True)
    command = [
        bench.tools["h2load"], "--h1", f"--clients={STORM_CONNECTIONS}", "--threads=1", f"--duration={STORM_SECONDS}", "--warm-up-time=1",
        f"--rps={rate / STORM_CONNECTIONS:.3f}", f"--log-file={record}", f"http://127.0.0.1:{proxy.port}{TARGET}",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=STORM_SECONDS + 60, env=clean_environment({}))
    # Start, status, microseconds.
    entries = [line.split("\t") for line in record.read_text().splitlines()]
    if ran.returncode != 0 or not entries or any(status != "200" for _, status, _ in entries):
        raise proxy.server.fail(f"h2load went wrong: {ran.stdout}{ran.stderr}")
    if not 0.9 <= len(entries) / (rate * STORM_SECONDS) <= 1.15:
        raise proxy.server.fail(f"h2load made {len(entries)} requests instead of {rate * STORM_SECONDS}")
    took = sorted(int(entry[2]) for entry in entries)
    return took[int(len(took) * share)]


# === Section: routes ===


def section_routes(bench: Bench, report: Report) -> None:
    """A program of the crate measures it; here it runs on the core of the proxies."""
    command = ["taskset", "--cpu-list", str(bench.proxy_core), bench.tools["routes"]]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env=clean_environment({}))
    if ran.returncode != 0:
        raise BenchError(f"the bench of the routes failed: {ran.stdout}{ran.stderr}")
    numbers = json.loads(ran.stdout)
    report.bars.append(Bar("finding a path among 500 imported templates", numbers["find_500_ns"], FIND_BAR_NS, "ns"))
    report.bars.append(Bar("finding a path among 500 declared templates", numbers["find_declared_500_ns"], FIND_BAR_NS, "ns"))
    report.bars.append(Bar("learning, added to a path that it knows", numbers["learned_adds_ns"], LEARN_BAR_NS, "ns"))
    report.table("Routes, one path after the other, medians", ["", "ns"], [
        ["among 500 imported templates", f"{numbers['find_500_ns']:.0f}"],
        ["among 500 declared templates", f"{numbers['find_declared_500_ns']:.0f}"],
        ["known to the learner, added to what the templates take", f"{numbers['learned_adds_ns']:.0f}"],
    ])
    report.data["routes"] = numbers


# === Section: scanner ===

SCANNER_CONNECTIONS = 4
SCANNER_BATCH = 50


def section_scanner(bench: Bench, report: Report) -> None:
    """No route is declared; the backend answers everything with 200, the worst case for whoever learns from answers."""

    def build(port: int):
        config = bench.directory / "agreeable.conf"
        config.write_text(nginx_common(bench, "agreeable") + f"  server {{ listen 127.0.0.1:{port}; location / {{ return 200; }} }}\n}}\n")
        return [bench.tools["nginx"], "-c", str(config), "-e", "stderr"], {}

    def serving(server: Server, port: int) -> None:
        wait_until_serving(server, port, "/", b"")

    _, backend = bench.start("backend-agreeable", build, serving)
    empty = bench.directory / "empty.yaml"
    empty.write_text("{}\n")
    endpoints, scan = scanner_requests()
    rows, data = [], {}
    for title, known in (("nothing learned before", []), ("as many routes as there may be", endpoints)):
        proxy = start_sidecar(bench, "sidecar", backend, empty, {})
        # What the first thousand need is the price of serving at all: connections, buffers, the allocator's first pages.
        before_scan = (known or scan)[:1000]
        send_requests(proxy, before_scan)
        before, labels_before = settled_rss_kib(bench, proxy.server), scanner_page(proxy)["overflow"]
        began = time.monotonic()
        send_requests(proxy, scan)
        seconds = time.monotonic() - began
        grown = (settled_rss_kib(bench, proxy.server) - before) / 1024
        page = scanner_page(proxy)
        if page["requests"] != len(scan) + len(before_scan):
            raise proxy.server.fail(f"{page['requests']:.0f} requests on the page, {len(scan) + len(before_scan)} were sent")
        overflow = page["overflow"] - labels_before
        if known and not overflow:
            raise proxy.server.fail("golden_metric_overflow_total tells nothing")
        report.bars.append(Bar(f"scanner, {SCANNER_PATHS:,} paths and {SCANNER_METHODS:,} methods, {title}", seconds, SCANNER_BAR_SECONDS, "s"))
        report.bars.append(Bar(f"scanner, growth of resident memory, {title}", grown, SCANNER_BAR_MIB, "MiB"))
        report.bars.append(Bar(f"scanner, label sets of the fullest family, {title}", page["sets"], SCANNER_BAR_SETS, ""))
        rows.append([title, f"{seconds:.1f}", f"{grown:.1f}", f"{page['labels']}", f"{page['sets']:.0f}", f"{overflow:.0f}"])
        data[title] = {"seconds": seconds, "grown_mib": grown, **page}
        proxy.server.stop()
    report.table(f"{SCANNER_PATHS:,} distinct paths and {SCANNER_METHODS:,} methods, all answered 200",
                 ["sidecar with", "seconds", "grown MiB", "route labels", "label sets of the fullest family", "observations under _other"], rows)
    report.data["scanner"] = data


def scanner_page(proxy: Proxy) -> dict:
    page = get(proxy.admin, "/metrics")[1].decode()

    def values(pattern: str) -> list[float]:
        return [float(value) for value in re.findall(pattern + r" (\S+)$", page, re.MULTILINE)]

    return {
        "sets": max(values(r"^golden_metric_series\{.*\}")), "overflow": sum(values(r"^golden_metric_overflow_total\{.*\}")),
        "requests": sum(values(r"^golden_requests_total\{.*\}")), "labels": len(set(re.findall(r'http_route="([^"]*)"', page))),
    }


def scanner_requests() -> tuple[list[bytes], list[bytes]]:
    """The same ones every time: 500 plain endpoints, more than there may be labels; and gibberish of any depth, words, numbers."""
    chance = random.Random(4)
    letters = "abcdefghijklmnopqrstuvwxyz"

    def word() -> str:
        return "".join(chance.choice(letters) for _ in range(chance.randint(3, 12)))

    def request(method: str, path: str) -> bytes:
        return f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()

    nouns = ("accounts invoices customers orders products payments refunds sessions users teams projects issues commits "
             "branches releases files folders messages channels events reports settings members").split()
    endpoints = [request("GET", f"/v1/{one}/{chance.randint(1000, 10**9)}/{two}") for one in nouns for two in nouns if one != two for _ in (1, 2)]
    paths = set()
    while len(paths) < SCANNER_PATHS:
        segments = [chance.choice((word, lambda: f"{chance.getrandbits(64):x}", lambda: str(chance.randint(0, 10**9))))() for _ in range(chance.randint(1, 6))]
        paths.add("/" + "/".join(segments))
    scan = [request("GET", path) for path in sorted(paths)] + [request(word().upper(), "/") for _ in range(SCANNER_METHODS)]
    chance.shuffle(endpoints)
    chance.shuffle(scan)
    return endpoints, scan


def send_requests(proxy: Proxy, requests: list[bytes]) -> None:
    """Pipelined, on a few connections in turn; every answer must be a 200 without a body."""
    connections = [socket.create_connection(("127.0.0.1", proxy.port), timeout=10) for _ in range(SCANNER_CONNECTIONS)]
    batches = [requests[at:at + SCANNER_BATCH] for at in range(0, len(requests), SCANNER_BATCH)]
    for at in range(0, len(batches), SCANNER_CONNECTIONS):
        turn = list(zip(connections, batches[at:]))
        for connection, batch in turn:
            connection.sendall(b"".join(batch))
        for connection, batch in turn:
            answers = b""
            while answers.count(b"\r\n\r\n") < len(batch):
                piece = connection.recv(1 << 16)
                if not piece:
                    raise proxy.server.fail("a connection of the scanner was closed")
                answers += piece
            if answers.count(b"HTTP/1.1 200") != len(batch):
                raise proxy.server.fail(f"not every answer is a 200: {answers[:200]!r}")
    for connection in connections:
        connection.close()


# === Section: streams ===

CHUNK = bytes(1 << 20)


def section_streams(bench: Bench, report: Report) -> None:
    with StreamBackend() as backend:
        proxy = start_proxy(bench, "sidecar", backend.port)
        # One small exchange first: the connection and its buffers are no part of the streams.
        stream(proxy, "upload", len(CHUNK))
        rows, data = [], {}
        for direction in ("upload", "download"):
            # 5 resets the peak to the present value.
            Path(f"/proc/{proxy.server.pid}/clear_refs").write_text("5")
            before = status_kib(proxy.server.pid, "VmHWM")
            seconds = stream(proxy, direction, STREAM_BYTES)
            growth = (status_kib(proxy.server.pid, "VmHWM") - before) / 1024
            rows.append([direction, f"{growth:.1f}", f"{STREAM_BYTES / (1 << 20) / seconds:,.0f}"])
            report.bars.append(Bar(f"memory growth by a 1 GiB {direction}", growth, STREAMS_BAR_MIB, "MiB"))
            data[direction] = {"growth_mib": growth, "seconds": seconds}
        proxy.server.stop()
    report.table("1 GiB through the sidecar", ["direction", "peak memory growth MiB", "MiB/s"], rows)
    report.data["streams"] = data


class StreamBackend:
    """An HTTP/1.1 server in this process: a PUT is read to its end and answered with the byte count, a GET gives `?N` bytes."""

    def __enter__(self) -> StreamBackend:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.listener.close()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        # A client that leaves ends its connection; the checks are on the other side.
        with connection, contextlib.suppress(OSError):
            while True:
                head, rest = read_head(connection)
                if not head:
                    return
                if head.startswith(b"PUT "):
                    received = read_body(connection, content_length(head), rest)
                    answer = str(received).encode()
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
                else:
                    size = int(head.split()[1].rpartition(b"?")[2] or 0)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                    send_zeros(connection, size)


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """A message head and the bytes that came after it; two empty ones at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b"", b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def content_length(head: bytes) -> int:
    found = re.search(rb"(?mi)^content-length: *(\d+)", head)
    if not found:
        raise BenchError(f"streams: no Content-Length in {head!r}")
    return int(found[1])


def read_body(connection: socket.socket, size: int, rest: bytes) -> int:
    """Reads up to `size` bytes, the ones already here included; gives how many came."""
    received, buffer = len(rest), bytearray(len(CHUNK))
    while received < size:
        count = connection.recv_into(buffer, min(len(buffer), size - received))
        if count == 0:
            break
        received += count
    return received


def send_zeros(connection: socket.socket, size: int) -> None:
    while size > 0:
        piece = min(size, len(CHUNK))
        connection.sendall(memoryview(CHUNK)[:piece])
        size -= piece


def stream(proxy: Proxy, direction: str, size: int) -> float:
    """Sends or fetches `size` bytes through the proxy and checks that all of them arrived. Gives seconds."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=120) as connection:
        host = f"Host: 127.0.0.1:{proxy.port}\r\n".encode()
        if direction == "upload":
            connection.sendall(b"PUT /stream HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (host, size))
            send_zeros(connection, size)
        else:
            connection.sendall(b"GET /stream?%d HTTP/1.1\r\n%s\r\n" % (size, host))
        head, rest = read_head(connection)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise proxy.server.fail(f"{direction} gave {head[:200]!r}")
        length = content_length(head)
        if direction == "upload":
            while len(rest) < length:
                rest += connection.recv(1024) or b"?" * length
            arrived = int(rest)
        else:
            arrived = read_body(connection, length, rest)
    if arrived != size:
        raise proxy.server.fail(f"{direction}: {arrived} of {size} bytes arrived")
    return time.perf_counter() - began


# === Section: sampling ===

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


def wait_for_word(server: Server, word: str) -> str:
    """The rest of the first line that begins with this word."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for line in server.output().splitlines():
            if line.startswith(word):
                return line[len(word):].strip()
        server.check_alive()
        time.sleep(0.05)
    raise server.fail(f"never said {word!r}")


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


def thread_cpu_ns(pid: int, name: str) -> int:
    """Nanoseconds on a CPU so far of the one thread with this name."""
    threads = [t for t in os.listdir(f"/proc/{pid}/task") if Path(f"/proc/{pid}/task/{t}/comm").read_text().strip() == name]
    if len(threads) != 1:
        raise BenchError(f"process {pid} has {len(threads)} threads called {name!r}")
    return int(Path(f"/proc/{pid}/task/{threads[0]}/schedstat").read_text().split()[0])


# === Report ===


def plain_table(title: str, header: list[str], rows: list[list[str]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        return "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))).rstrip()

    return "\n".join([title, line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def markdown_table(title: str, header: list[str], rows: list[list[str]]) -> str:
    lines = [f"**{title}**", "", "| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def bar_rows(bars: list[Bar]) -> list[list[str]]:
    return [
        [bar.name, f"{bar.measured:.2f} {bar.unit}".strip(), f"≤ {bar.limit:.2f} {bar.unit}".strip(), "holds" if bar.holds else "MISSED"]
        for bar in bars
    ]


BAR_HEADER = ["bar", "measured", "limit", ""]


def machine(bench: Bench) -> dict[str, str]:
    """Where and with what it was measured."""
    def first_line(*command: str) -> str:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return next(iter((ran.stdout + ran.stderr).strip().splitlines()), "?").strip()

    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    flags = {"nginx": "-v", "haproxy": "-v", "wrk": "-v", "envoy": "--version", "strace": "-V", "sidecar": "--version"}
    versions = {}
    for name, flag in flags.items():
        if name in bench.tools:
            words = first_line(bench.tools[name], flag)
            # The first thing in the line that looks like a version; Envoy writes it between slashes.
            found = re.search(r"\b\d+\.\d+[.\w+~-]*", words)
            versions[TITLES.get(name, name)] = found[0] if found else words
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "CPU": f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def markdown(report: Report, place: dict[str, str], command: str) -> str:
    parts = [
        f"Measured on {place['date']}: {place['CPU']}; Linux {place['kernel']}; {place['versions']}. "
        "The proxy has one core to itself, load (wrk) and backend (nginx) share the other; peers and sidecar take turns in one run. "
        f"To repeat: `{command}`.",
    ]
    parts += [markdown_table(*table) for table in report.tables]
    parts += report.notes
    if report.bars:
        parts.append(markdown_table("Bars", BAR_HEADER, bar_rows(report.bars)))
    return "\n\n".join(parts)


def write_markdown(path: Path, text: str) -> None:
    """Replaces what is between the markers; a file that does not exist is made of them alone."""
    block = f"{MARK_BEGIN}\n{text}\n{MARK_END}\n"
    if not path.exists():
        path.write_text(block)
        return
    before, after = split_at_markers(path)
    path.write_text(before + block.rstrip("\n") + after)


def split_at_markers(path: Path) -> tuple[str, str]:
    before, begin, rest = path.read_text().partition(MARK_BEGIN)
    _, end, after = rest.partition(MARK_END)
    if not begin or not end:
        raise MissingError(f"--markdown: {path} has no lines {MARK_BEGIN} and {MARK_END} to write between")
    return before, after


# === Command line ===


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], epilog="sections: " + ", ".join(SECTIONS))
    names = f"comma-separated: {', '.join(PROXIES)}"
    parser.add_argument("--section", action="append", choices=SECTIONS, help="only this section; may be repeated (default: all)")
    parser.add_argument("--rounds", type=positive, default=9, help="rounds of the cost section (default: 9)")
    parser.add_argument("--seconds", type=positive, default=3, help="seconds of one measured run (default: 3)")
    parser.add_argument("--warmup", type=positive, default=1, help="seconds of load before each measured run (default: 1)")
    parser.add_argument("--connections", type=positive, default=50, help="keep-alive connections of the load (default: 50)")
    parser.add_argument("--idle-connections", type=positive, default=10_000, help="of the memory section (default: 10000)")
    parser.add_argument("--settle", type=float, default=10, metavar="SECONDS",
                        help="how long memory must stand still to count as settled; longer than idle connections take to park (default: 10)")
    parser.add_argument("--only", metavar="NAMES", type=proxy_names, help=f"only these proxies; {names}")
    parser.add_argument("--without", metavar="NAMES", type=proxy_names, default=[], help="all but these proxies")
    parser.add_argument("--sidecar", type=Path, default=ROOT / "target/release/golden-sidecar", metavar="FILE", help="the binary to measure")
    parser.add_argument("--unmeasured", type=Path, default=ROOT / "target/unmeasured/release/golden-sidecar", metavar="FILE",
                        help="the same, built with --features unmeasured; left out when it is not there, unless named by --only")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help=f"write the tables into FILE between {MARK_BEGIN} and {MARK_END}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE")
    options = parser.parse_args(arguments)
    chosen = options.only or [name for name in PROXIES if name != "sidecar-unmeasured" or options.unmeasured.exists()]
    options.proxies = [name for name in PROXIES if name in chosen and name not in options.without]
    options.sections = [name for name in SECTIONS if not options.section or name in options.section]
    if not options.proxies:
        parser.error("--only and --without leave no proxy")
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def proxy_names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in PROXIES]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown proxy {unknown[0]!r}; known: {', '.join(PROXIES)}")
    return names


def find_tools(options: argparse.Namespace) -> dict[str, str]:
    """Full paths of all programs that this run needs; fails on the first that is missing."""
    wanted = ["nginx"]
    if {"cost", "syscalls", "storm"} & set(options.sections):
        wanted.append("wrk")
    if "storm" in options.sections:
        wanted.append("h2load")
    if "syscalls" in options.sections and "sidecar" in options.proxies:
        wanted.append("strace")
    if {"cost", "memory"} & set(options.sections):
        wanted += sorted({name.removesuffix("-tcp") for name in options.proxies if not name.startswith("sidecar")} - {"nginx"})
    search = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    tools = {}
    for name in wanted:
        path = shutil.which(name, path=search)
        if name == "envoy":
            # The package's own command is a Python script around the binary; the binary itself is what is measured.
            path = next(map(str, ROOT.glob("target/venv/lib/python3*/site-packages/envoy/_bin/envoy")), path)
        if path is None:
            raise MissingError(f"{name} is missing; run tools/setup.sh bench")
        tools[name] = path
    if "routes" in options.sections and "sidecar" in options.proxies:
        tools["routes"] = str(options.sidecar.resolve().parent / "examples/bench-routes")
        if not os.access(tools["routes"], os.X_OK):
            raise MissingError(f"{tools['routes']} is missing; build it with 'make bench-build'")
    for name, binary in (("sidecar", options.sidecar), ("sidecar-unmeasured", options.unmeasured)):
        if name in options.proxies:
            if not os.access(binary, os.X_OK):
                raise MissingError(f"{binary} is missing; build it with 'make bench-build', or leave it out with --without {name}")
            tools[name] = str(binary.resolve())
    return tools


def run(options: argparse.Namespace, arguments: list[str]) -> int:
    """Runs the sections; gives the exit status."""
    tools = find_tools(options)
    if options.markdown and options.markdown.exists():
        # Before the minutes, not after them.
        split_at_markers(options.markdown)
    if not Path("/proc/self/schedstat").exists():
        raise MissingError("this kernel has no /proc/PID/schedstat (CONFIG_SCHED_INFO)")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise MissingError(f"two cores are needed, one for the proxy and one for load and backend; this process may use {len(cores)}")
    # Two descriptors per idle connection in the relay, and room for the rest.
    raise_file_limit(2 * options.idle_connections + 2000)
    load_core, proxy_core = cores[0], cores[1]
    os.sched_setaffinity(0, {load_core})
    report = Report()
    section_functions = {
        "cost": section_cost, "syscalls": section_syscalls, "memory": section_memory,
        "startup": section_startup, "scrape": section_scrape, "storm": section_storm, "routes": section_routes,
        "scanner": section_scanner, "streams": section_streams,
        "sampling": section_sampling,
    }
    place = {}
    with tempfile.TemporaryDirectory(prefix="golden-bench-") as directory:
        Path(directory).chmod(0o755)
        for name in options.sections:
            if name not in ("cost", "memory") and "sidecar" not in options.proxies:
                report.note(f"{name}: left out, as it measures the sidecar only")
                continue
            say(f"section {name}")
            with contextlib.ExitStack() as stack:
                bench = Bench(options, tools, load_core, proxy_core, Path(directory), stack)
                place = place or machine(bench)
                section_functions[name](bench, report)
    if report.bars:
        print("\n" + plain_table("Bars", BAR_HEADER, bar_rows(report.bars)))
    if place:
        print("\n" + "\n".join(f"{key}: {value}" for key, value in place.items()))
    if options.json:
        bars = [{"name": bar.name, "measured": bar.measured, "limit": bar.limit, "unit": bar.unit, "holds": bar.holds} for bar in report.bars]
        options.json.write_text(json.dumps({"machine": place, "bars": bars, **report.data}, indent=1) + "\n")
    if options.markdown and report.tables:
        write_markdown(options.markdown, markdown(report, place, "make bench" + repeat_arguments(arguments)))
    missed = [bar for bar in report.bars if not bar.holds]
    for bar in missed:
        say(f"bar missed: {bar.name}: {bar.measured:.2f} {bar.unit}, limit {bar.limit:.2f} {bar.unit}")
    return 1 if missed else 0


def repeat_arguments(arguments: list[str]) -> str:
    """How `make bench` takes them; where results are written to is left out."""
    kept = re.sub(r"--(markdown|json)[ =]\S+ ?", "", " ".join(arguments)).strip()
    return f' BENCH_ARGS="{kept}"' if kept else ""


class Interrupted(BaseException):
    """A signal asked us to end; everything started is ended on the way out."""


def main() -> int:
    def interrupt(number: int, _frame) -> None:
        # Once is enough: a second signal must not stop the clearing up.
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    options = parse_arguments(sys.argv[1:])
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, interrupt)
    try:
        return run(options, sys.argv[1:])
    except Interrupted as interrupted:
        say("bench: interrupted; everything that was started is ended")
        return 128 + interrupted.args[0]
    except MissingError as error:
        say(f"bench: {error}")
        return 2
    except BenchError as error:
        say(f"bench: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
