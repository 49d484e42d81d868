"""Load, its own counts checked against the backend's, and what a request costs under it: proxies take turns."""

from __future__ import annotations

import collections
import json
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness import BODY, Bench, BenchError, TARGET, clean_environment, cpu_clock_ns, cpu_ns, say
from proxies import Proxy, backend_requests
from report import Report

# Above this share of its core a proxy counts as the narrow place.
SATURATED_RATIO = 0.9

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


# The same for every proxy, whatever each would choose: hardware does it, and the key exchange is the common one.
TLS_CIPHER = "TLS_AES_128_GCM_SHA256"
TLS_GROUP = "X25519"
SECONDS_OF = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class H2load:
    """A load that h2load makes: so many clients, each with so many requests under way."""

    clients: int = 10
    streams: int = 1
    http2: bool = False

    def run(self, bench: Bench, proxy: Proxy, backend: int, seconds: int = 0, requests: int = 0) -> dict:
        """Either for so long, or so many requests; fails on anything but 2xx with the backend's body, on another protocol
        than the one that is to be measured, and on any answer that the backend did not make."""
        before = backend_requests(backend)
        bound = [f"--requests={requests}"] if requests else [f"--duration={seconds}"]
        command = [
            bench.tools["h2load"], "--threads=1", f"--clients={self.clients}", *bound,
            *([f"--max-concurrent-streams={self.streams}"] if self.http2 else ["--h1"]),
            *([f"--tls13-ciphers={TLS_CIPHER}", f"--groups={TLS_GROUP}"] if proxy.wire.tls else []),
            f"{proxy.wire.scheme}://127.0.0.1:{proxy.port}{TARGET}",
        ]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=600 if requests else seconds + 60, env=clean_environment({}))
        proxy.server.check_alive()
        result = parse_h2load(ran.stdout)
        if ran.returncode != 0 or not result or result["wrong"] or result["requests"] == 0 or requests not in (0, result["requests"]):
            raise proxy.server.fail(f"a round with errors is worth nothing: {ran.stdout}{ran.stderr}")
        self.check_protocol(proxy, ran.stdout)
        # One more than the difference of the two counts is the counting itself.
        seen = backend_requests(backend) - before - 1
        if not 0 <= seen - result["requests"] <= 2 * self.clients * self.streams:
            raise proxy.server.fail(f"h2load counts {result['requests']} answers, the backend {seen} requests")
        if result["bytes"] < result["requests"] * len(BODY):
            raise proxy.server.fail(f"answers are shorter than the backend's body: {result}")
        return result

    def check_protocol(self, proxy: Proxy, output: str) -> None:
        wanted = {"Application protocol": ("h2" if proxy.wire.tls else "h2c") if self.http2 else "http/1.1"}
        if proxy.wire.tls:
            wanted |= {"TLS Protocol": "TLSv1.3", "Cipher": TLS_CIPHER}
        for key, value in wanted.items():
            if f"{key}: {value}\n" not in output:
                raise proxy.server.fail(f"h2load was not served with {key} {value}: {output}")


def parse_h2load(output: str) -> dict | None:
    """Answers, microseconds, bytes of bodies; in `wrong` what was not answered, or not with 2xx."""
    finished = re.search(r"^finished in ([\d.]+)(us|ms|s|m|h), ", output, re.MULTILINE)
    requests = re.search(r"^requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output, re.MULTILINE)
    codes = re.search(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output, re.MULTILINE)
    data = re.search(r"^traffic: .* \((\d+)\) data", output, re.MULTILINE)
    if not (finished and requests and codes and data):
        return None
    done, succeeded, *wrong = map(int, requests.groups())
    # Codes are counted by heads: at the end of a run some answers have one and no end.
    _, *others = map(int, codes.groups())
    return {
        "requests": succeeded, "duration_us": float(finished[1]) * SECONDS_OF[finished[2]] * 1e6, "bytes": int(data[1]),
        "wrong": sum(wrong) + sum(others) + (done - succeeded),
    }


@dataclass(frozen=True)
class Handshakes:
    """Requests over HTTPS, each on a connection of its own, made by curl: h2load and wrk resume the session that they had
    where the server lets them."""

    clients: int = 10
    # About what curl makes on one core.
    per_second: int = 500

    def run(self, bench: Bench, proxy: Proxy, backend: int, seconds: int) -> dict:
        """As many as curl makes in about so long; fails unless each is answered by the backend on a new connection."""
        count = self.per_second * seconds
        before = backend_requests(backend)
        command = [
            bench.tools["curl"], "--silent", "--show-error", "--noproxy", "*", "--http1.1", "--header", "Connection: close", "--no-sessionid",
            "--cacert", str(proxy.wire.tls.certificate), "--tlsv1.3", "--tls13-ciphers", TLS_CIPHER, "--curves", TLS_GROUP,
            "--parallel", "--parallel-immediate", "--parallel-max", str(self.clients), "--output", "/dev/null",
            "--write-out", "%{http_code} %{num_connects} %{size_download}\\n", f"https://127.0.0.1:{proxy.port}{TARGET}?[1-{count}]",
        ]
        began = time.monotonic()
        ran = subprocess.run(command, capture_output=True, text=True, timeout=600, env=clean_environment({}))
        duration_us = (time.monotonic() - began) * 1e6
        proxy.server.check_alive()
        answers = collections.Counter(ran.stdout.splitlines())
        seen = backend_requests(backend) - before - 1
        if ran.returncode != 0 or answers != {f"200 1 {len(BODY)}": count} or seen != count:
            raise proxy.server.fail(f"of {count} handshakes: {answers.most_common(3)}, {seen} requests at the backend; {ran.stderr[-500:]}")
        return {"requests": count, "duration_us": duration_us}


# === What a request costs ===


def measure_cost(proxy: Proxy, load: Callable[[], dict]) -> dict:
    """One measured run. CPU µs per request over the process tree, and what the load's maker says."""
    tree = proxy.server.tree()
    cpu, clock = cpu_ns(tree), cpu_clock_ns(tree)
    result = load()
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
        **{key: result[key] for key in ("p50_us", "p99_us") if key in result},
        "requests": result["requests"],
    }


def take_turns(proxies: list[Proxy], count: int, measure: Callable[[Proxy], dict]) -> list[dict[str, dict]]:
    """So many rounds, in each what `measure` says of each proxy, by name."""
    rounds = []
    for number in range(count):
        # Each round begins with another proxy, so that nobody always runs after the same neighbour.
        shift = number % len(proxies)
        results = {proxy.name: measure(proxy) for proxy in proxies[shift:] + proxies[:shift]}
        rounds.append(results)
        say(f"round {number + 1}/{count}: " + ", ".join(f"{proxy.name} {results[proxy.name]['cpu_us']:.2f} us" for proxy in proxies))
    return rounds


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def ratios_of(rounds: list[dict[str, dict]], names: list[str]) -> dict[str, list[float]]:
    """The sidecar's cost to that of each of the others, round by round."""
    others = [name for name in names if name != "sidecar" and "sidecar" in names]
    return {name: [results["sidecar"]["cpu_us"] / results[name]["cpu_us"] for results in rounds] for name in others}


def cost_table(report: Report, title: str, rounds: list[dict[str, dict]], titles: dict[str, str]) -> dict[str, list[float]]:
    """A row for each proxy, in the order of `titles`; gives the sidecar's ratio to each of the others, round by round."""
    names = [name for name in titles if name in rounds[0]]
    ratios = ratios_of(rounds, names)

    def over(name: str, key: str) -> list[float]:
        return [results[name][key] for results in rounds]

    latencies = [key for key in ("p50_us", "p99_us") if key in rounds[0][names[0]]]
    rows = []
    for name in names:
        cpu = over(name, "cpu_us")
        rows.append([
            titles[name], f"{statistics.median(cpu):.2f}", f"{min(cpu):.2f}-{max(cpu):.2f}",
            f"{statistics.median(over(name, 'requests_per_second')):,.0f}",
            *(f"{statistics.median(over(name, key)) / 1000:.2f}" for key in latencies),
            f"{statistics.median(over(name, 'core_busy_ratio')):.0%}",
            spread(ratios[name]) if name in ratios else "",
        ])
    report.table(title, ["proxy", "CPU µs/request", "min-max", "requests/s", *(f"{key[:3]} ms" for key in latencies), "core busy",
                         "sidecar ÷ this (min-max)"], rows)
    # A proxy that waits for work pays more wake-ups per request than one at its limit: worth knowing when comparing.
    idle = [titles[name] for name in names if statistics.median(over(name, "core_busy_ratio")) < SATURATED_RATIO]
    if idle:
        report.note(f"Not at their limit, as load and backend were the narrower place: {', '.join(idle)}.")
    return ratios
