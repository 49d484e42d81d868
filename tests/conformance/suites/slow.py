"""slowhttptest: clients that send or read as slowly as they can, all at once. Others are served meanwhile, and the slow
ones are cut when their time is over.
"""

import contextlib
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
# Each takes a core while it opens its connections.
WORKERS = 1
CASES = Cases()
# Short, so that the suite is: what counts is that a limit holds.
LIMITS = proxies.Limits(head=1, body=1, idle=1, answer=1, whole=True)
CONNECTIONS = 150
# Longer than a limit, and what a busy machine needs to open and to close all connections.
SECONDS = 15


@contextlib.contextmanager
def backend():
    server = Backend()
    yield server
    server.close()


def established(port: int) -> int:
    """Connections of clients to this port that the proxy has not closed yet. What the system still sends is no burden of its."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        lines = [line.split() for line in table][1:]
    return sum(line[3] in ("01", "08") and int(line[1].rsplit(":", 1)[1], 16) == port for line in lines)


def closes_all(name: str, path: str, *options: str, answered: bool = False) -> None:
    """A case: another page is served all the time, and no connection is left when the time is over. Those that are `answered`
    are over at once, and seen by the backend."""

    def run(target):
        refused: list[str] = []
        over = threading.Event()

        def ask() -> None:
            while not over.wait(0.1):
                url = f"http://{target.host}:{target.port}/alive"
                argv = ["curl", "--disable", "--silent", "--noproxy", "*", "--max-time", "8", "--output", "/dev/null", "--write-out", "%{http_code}", url]
                status = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
                if status != "200":
                    refused.append(status)

        url = f"http://{target.host}:{target.port}{path}"
        argv = ["slowhttptest", "-c", str(CONNECTIONS), "-r", str(CONNECTIONS), "-l", str(2 * SECONDS), "-u", url, "-p", "3", *options]
        asking = threading.Thread(target=ask)
        asking.start()
        most = 0
        with tempfile.TemporaryDirectory() as folder:
            attacker = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
            try:
                start = time.monotonic()
                while (now := time.monotonic() - start) < SECONDS:
                    left = established(target.port)
                    most = max(most, left)
                    # It opens so many a second; before that, none would mean nothing.
                    if now > 2 and left == 0:
                        break
                    time.sleep(0.02)
            finally:
                over.set()
                attacker.terminate()
                attacker.wait()
                asking.join()
        seen = sum(path == asked for asked in target.backend.requests) if answered else most
        require(seen > CONNECTIONS // 2, f"slowhttptest came with {seen} of {CONNECTIONS} connections")
        require(not refused, f"others got {refused[:5]} meanwhile")
        require(left == 0, f"{left} of {CONNECTIONS} connections were still open after {SECONDS} s")

    CASES.add("slowhttptest", name, run)


closes_all("-H, slow heads: one field a second", "/", "-H", "-i", "1", "-x", "24")
closes_all("-B, slow bodies: a few bytes after longer than the limit", "/echo", "-B", "-i", "5", "-s", "8192", "-x", "10")
closes_all("-X, slow reading of a large answer through a tiny window", "/bytes/4000000", "-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3")
closes_all("-R, ranges without end", "/bytes/1000", "-R", "-a", "10", "-b", "3000", answered=True)
