"""Processes that the bench starts, watches and ends, and what the kernel knows about them."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A small JSON answer; about 100 bytes, so that the price is that of a request and not of bytes.
BODY = '{"id":42,"name":"Ada Lovelace","email":"ada@example.org","roles":["admin","author"],"active":true}'
# Falls under a declared template, so that the sidecar does all of its measuring.
TARGET = "/users/42"
ROUTES = ["/users/{id}", "/users", "/users/{id}/orders", "/orders/{id}", "/orders", "/search", "/reports/{year}/{month}"]
# Longer than any section: no connection may end by an idle limit while it is being measured.
NEVER_SECONDS = 3600


class BenchError(Exception):
    """Something that makes the numbers worthless. One sentence, says what to do where that is known."""


class MissingError(BenchError):
    """A program that the bench needs is not there."""


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


def wait_until_serving(server: Server, port: int, path: str = TARGET, expect: bytes | None = BODY.encode(), ask=get) -> None:
    """Returns once a GET gives 200 and the expected body; `ask(port, path)` gives status and body."""
    deadline = time.monotonic() + 15
    last = "nothing"
    while time.monotonic() < deadline:
        server.check_alive()
        try:
            status, body = ask(port, path)
            if status == 200 and (expect is None or body == expect):
                return
            last = f"status {status}, {len(body)} bytes"
        except (OSError, http.client.HTTPException) as error:
            last = repr(error)
        time.sleep(0.01)
    raise server.fail(f"does not serve GET {path} within 15 s (last: {last})")


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


def file_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_file_limit(wanted: int) -> None:
    """As far as we may. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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


def thread_cpu_ns(pid: int, name: str) -> int:
    """Nanoseconds on a CPU so far of the one thread with this name."""
    threads = [t for t in os.listdir(f"/proc/{pid}/task") if Path(f"/proc/{pid}/task/{t}/comm").read_text().strip() == name]
    if len(threads) != 1:
        raise BenchError(f"process {pid} has {len(threads)} threads called {name!r}")
    return int(Path(f"/proc/{pid}/task/{threads[0]}/schedstat").read_text().split()[0])


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
