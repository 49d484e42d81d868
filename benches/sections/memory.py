"""Resident memory at rest, and per idle keep-alive connection."""

from __future__ import annotations

import socket

from harness import BODY, Bench, BenchError, NEVER_SECONDS, TARGET, file_limit, say, settled_rss_kib, tree_rss_kib
from proxies import Proxy, TITLES, start_backend, start_proxy
from report import Bar, Report

MEMORY_REST_BAR_MIB = 15.0
MEMORY_CONNECTION_BAR_KIB = 2.0


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
