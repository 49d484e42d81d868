"""What a scrape costs with a full page, and what a storm of scrapes does to requests."""

from __future__ import annotations

import http.client
import re
import socket
import statistics
import subprocess
import threading
import time

from harness import Bench, ROUTES, TARGET, clean_environment, content_length, read_head, thread_cpu_ns
from load import run_wrk
from proxies import BACKEND_CODES, Proxy, start_backend, start_proxy
from report import Bar, Report

SCRAPE_BAR_MS = 10.0
SCRAPE_WORKER_BAR_MS = 1.0
PROTOBUF_SIZE_BAR = 0.25
STORM_SCRAPERS = 20
STORM_BAR = 1.05
SCRAPE_ROUTES = 100
SCRAPE_METHODS = ("GET", "POST", "DELETE")
SCRAPES = 50
# A closed loop at saturation would show any millisecond that the one core spends elsewhere as latency of everybody, with
# or without a sidecar; half of the capacity is what a service that is well is run at.
STORM_LOAD_SHARE = 0.5
STORM_CONNECTIONS = 10
STORM_SECONDS = 5
# The p99 of a few seconds moves by a tenth by itself: many pairs, each compared with its neighbour.
STORM_ROUNDS = 17


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
    report.table(f"GET /metrics with {SCRAPE_ROUTES} routes x {len(BACKEND_CODES)} codes x {len(SCRAPE_METHODS)} methods, {SCRAPES} scrapes",
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
        for code in BACKEND_CODES:
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
    wanted = {(f"/r{i}/{{id}}", str(code), method) for i in range(SCRAPE_ROUTES) for code in BACKEND_CODES for method in SCRAPE_METHODS}
    if wanted - once:
        raise proxy.server.fail(f"{len(wanted - once)} of {len(wanted)} series are not at 1, for example {sorted(wanted - once)[0]}")


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
