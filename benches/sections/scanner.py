"""A client that tries every path, and a backend that likes them all."""

from __future__ import annotations

import random
import re
import socket
import time

from harness import Bench, Server, get, settled_rss_kib, wait_until_serving
from proxies import Proxy, nginx_common, start_sidecar
from report import Bar, Report

SCANNER_PATHS = 100_000
SCANNER_METHODS = 1_000
SCANNER_BAR_SECONDS = 10.0
SCANNER_BAR_MIB = 8.0
SCANNER_BAR_SETS = 2_000
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
