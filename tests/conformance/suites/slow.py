"""slowhttptest: clients that send or read as slowly as they can, all at once. Others are served meanwhile, and the slow
ones are cut when their time is over.
"""

import contextlib
import re
import subprocess
import tempfile
import threading
import time

import proxies
from backend import Backend
from cases import Cases, require

TITLE = "slowhttptest, all modes"
SOURCE = "slowhttptest"
KIND = "http"
WORKERS = 4
CASES = Cases()
# Short, so that the suite is: what counts is that a limit holds.
LIMITS = proxies.Limits(head=2, body=2)
CONNECTIONS = 150
# Longer than a limit, and what a busy machine needs to open and to close all connections.
SECONDS = 9


@contextlib.contextmanager
def backend():
    server = Backend()
    yield server
    server.close()


def attack(target, path: str, *options: str) -> dict[str, int]:
    """Runs slowhttptest and asks for another page all the time. Gives the counts of its last report."""
    refused: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.1):
            url = f"http://{target.host}:{target.port}/alive"
            done = subprocess.run(["curl", "--disable", "--silent", "--noproxy", "*", "--max-time", "3", "--output", "/dev/null", "--write-out", "%{http_code}", url], capture_output=True, text=True, check=False)
            if done.stdout != "200":
                refused.append(done.stdout)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            argv = ["slowhttptest", "-c", str(CONNECTIONS), "-r", "150", "-l", str(SECONDS), "-u", f"http://{target.host}:{target.port}{path}", "-p", "3", *options]
            done = subprocess.run(argv, capture_output=True, text=True, cwd=folder, timeout=60, check=False)
    finally:
        over.set()
        asking.join()
    report = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    counts = {name: int(re.findall(rf"{name}:\s+(-?\d+)", report)[-1]) for name in ("initializing", "pending", "connected", "error", "closed")}
    require("service available:   NO" not in report and "service available: NO" not in report, f"slowhttptest found the service unavailable: {counts}")
    require(not refused, f"others got {refused[:5]} meanwhile")
    return counts


def closes_all(name: str, path: str, *options: str) -> None:
    def run(target):
        counts = attack(target, path, *options)
        require(counts["closed"] == CONNECTIONS, f"not all of {CONNECTIONS} were closed within {SECONDS} s: {counts}")

    CASES.add("slowhttptest", name, run)


closes_all("-H, slow heads: one field a second", "/", "-H", "-i", "1", "-x", "24")
closes_all("-B, slow bodies: a few bytes after longer than the limit", "/echo", "-B", "-i", "5", "-s", "8192", "-x", "10")
closes_all("-X, slow reading of a large answer through a tiny window", "/bytes/4000000", "-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3")
closes_all("-R, ranges without end", "/bytes/1000", "-R", "-a", "10", "-b", "3000")
