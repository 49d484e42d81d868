"""What TLS and HTTP/2 cost, beside the peers that can do the same."""

from __future__ import annotations

import statistics

from harness import Bench, free_port
from load import TLS_CIPHER, TLS_GROUP, H2load, Handshakes, cost_table, measure_cost, ratios_of, spread, take_turns
from proxies import Proxy, TITLES, Wire, make_identity, start_backend, start_proxy
from report import Report

PEERS = ("sidecar", "nginx", "haproxy", "envoy")
MULTIPLEXED = H2load(streams=10, http2=True)


def section_tls(bench: Bench, report: Report) -> None:
    """TLS towards the client, plain HTTP/1.1 towards the backend."""
    backend = start_backend(bench)
    proxies = start_peers(bench, backend, Wire(tls=make_identity(bench)))
    measure(bench, report, "tls", "HTTPS, HTTP/1.1, 10 keep-alive connections", H2load(), proxies, backend)
    measure(bench, report, "tls", "HTTPS, HTTP/2, 10 connections of 10 streams", MULTIPLEXED, proxies, backend)
    measure_handshakes(bench, report, proxies, backend)
    report.note(
        f"TLS 1.3 alone, {TLS_CIPHER}, {TLS_GROUP}, one ECDSA P-256 certificate for all. Where handshakes are counted the client resumes no "
        "session; the proxies write their session tickets as they do by default, two each."
    )
    stop(proxies)


def section_h2(bench: Bench, report: Report) -> None:
    """HTTP/2 with prior knowledge, towards an HTTP/1.1 backend and towards one that speaks HTTP/2 too."""
    h2_port = free_port()
    backend = start_backend(bench, h2_port)
    proxies = start_peers(bench, backend, Wire(http2=True))
    measure(bench, report, "h2", "HTTP/2 without TLS, 10 connections of 10 streams, to an HTTP/1.1 backend", MULTIPLEXED, proxies, backend)
    stop(proxies)
    proxies = start_peers(bench, h2_port, Wire(http2=True, backend_http2=True))
    measure(bench, report, "h2", "HTTP/2 without TLS, 10 connections of 10 streams, to an HTTP/2 backend", MULTIPLEXED, proxies, backend,
            {**TITLES, "nginx": "nginx (grpc_pass)"})
    if any(proxy.name == "nginx" for proxy in proxies):
        report.note("nginx 1.22 speaks HTTP/2 to a backend as a gRPC proxy only, one stream on a connection at a time.")
    stop(proxies)


def start_peers(bench: Bench, backend: int, wire: Wire) -> list[Proxy]:
    return [start_proxy(bench, name, backend, wire=wire) for name in PEERS if name in bench.options.proxies]


def stop(proxies: list[Proxy]) -> None:
    for proxy in proxies:
        proxy.server.stop()


def measure(
    bench: Bench, report: Report, section: str, title: str, load: H2load, proxies: list[Proxy], backend: int,
    titles: dict[str, str] = TITLES,
) -> None:
    options = bench.options
    rounds = take_turns(proxies, options.rounds, lambda proxy: warm_cost(bench, load, proxy, backend))
    ratios = cost_table(report, f"{title}; medians of {options.rounds} rounds of {options.seconds} s", rounds, titles)
    report.data.setdefault(section, {})[title] = {"rounds": rounds, "ratios": ratios}


def measure_handshakes(bench: Bench, report: Report, proxies: list[Proxy], backend: int) -> None:
    """The client is slower than any of the proxies, so what a core could do is reckoned from what one of them costs."""
    options, load = bench.options, Handshakes()
    rounds = take_turns(proxies, options.rounds, lambda proxy: warm_cost(bench, load, proxy, backend))
    names = [proxy.name for proxy in proxies]
    ratios = ratios_of(rounds, names)
    costs = {name: [results[name]["cpu_us"] for results in rounds] for name in names}
    report.table(
        f"HTTPS, HTTP/1.1, a connection and a full handshake for each request, {load.clients} at once; "
        f"medians of {options.rounds} rounds of {load.per_second * options.seconds:,}",
        ["proxy", "CPU µs/handshake and request", "min-max", "handshakes/s of one core", "sidecar ÷ this (min-max)"],
        [
            [TITLES[name], f"{statistics.median(cpu):.0f}", f"{min(cpu):.0f}-{max(cpu):.0f}", f"{1e6 / statistics.median(cpu):,.0f}",
             spread(ratios[name]) if name in ratios else ""]
            for name, cpu in costs.items()
        ],
    )
    report.data["tls"]["handshakes"] = {"rounds": rounds, "ratios": ratios}


def warm_cost(bench: Bench, load: H2load | Handshakes, proxy: Proxy, backend: int) -> dict:
    """What a request costs under this load, after a warm-up."""
    load.run(bench, proxy, backend, bench.options.warmup)
    return measure_cost(proxy, lambda: load.run(bench, proxy, backend, bench.options.seconds))
