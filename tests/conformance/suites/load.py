"""h2load and nghttp before a real nginx: not one failed request, over HTTP/1.1 and HTTP/2."""

import contextlib
import pathlib
import re
import subprocess
import tempfile

import proxies
from cases import Cases, require

TITLE = "h2load and nghttp without a failure"
SOURCE = "nghttp2's tools"
KIND = "http"
WORKERS = 1
CASES = Cases()
case = CASES.case


class Nginx:
    def __init__(self, port: int) -> None:
        self.port = port


@contextlib.contextmanager
def backend():
    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder)
        port = proxies.free_port()
        (directory / "www").mkdir()
        (directory / "www/small").write_bytes(b"small\n")
        (directory / "www/large").write_bytes(bytes(1 << 20))
        temporary = "".join(f"  {part}_temp_path {folder}/{part};\n" for part in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (directory / "nginx.conf").write_text(
            f"daemon off;\nworker_processes 1;\nuser root;\npid {folder}/pid;\nerror_log stderr crit;\nevents {{ worker_connections 4096; }}\n"
            f"http {{\n{temporary}  access_log off;\n  keepalive_requests 1000000;\n  large_client_header_buffers 8 64k;\n  server {{\n    listen 127.0.0.1:{port};\n    root {folder}/www;\n"
            "    location /echo { client_max_body_size 0; return 200 'taken\\n'; }\n  }\n}\n"
        )
        with proxies.process([proxies.program("nginx"), "-c", str(directory / "nginx.conf"), "-e", "stderr"], directory) as child:
            proxies.wait_for_port(child, directory, port)
            yield Nginx(port)


def h2load(name: str, requests: int, *options: str, path: str = "/small", h1: bool = False, given: bytes = b"") -> None:
    def run(target):
        port = target.port if h1 else target.h2_port
        with tempfile.NamedTemporaryFile() as file:
            file.write(given)
            file.flush()
            upload = ["-d", file.name] if given else []
            url = f"http://{target.host}:{port}{path}"
            argv = ["h2load", "-n", str(requests), *(["--h1"] if h1 else []), *upload, *options, url]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        counts = re.search(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", done.stdout)
        require(counts is not None, f"no counts: {done.stdout[-300:]} {done.stderr[-300:]}")
        total, finished, succeeded, failed, errored, late = map(int, counts.groups())
        require((total, finished, succeeded) == (requests,) * 3, f"of {total} {succeeded} succeeded, {failed} failed, {errored} had errors, {late} timed out")

    CASES.add("h2load", name, run)


h2load("HTTP/1.1, 20 connections", 5000, "-c", "20", h1=True)
h2load("HTTP/1.1, 1 connection", 500, "-c", "1", h1=True)
h2load("HTTP/1.1, answers of 1 MiB", 100, "-c", "10", path="/large", h1=True)
h2load("HTTP/2, 10 connections with 20 streams each", 5000, "-c", "10", "-m", "20")
h2load("HTTP/2, 1 connection with 100 streams", 3000, "-c", "1", "-m", "100")
h2load("HTTP/2, answers of 1 MiB", 100, "-c", "4", "-m", "5", path="/large")
h2load("HTTP/2, windows of 2^14", 200, "-c", "4", "-m", "10", "-w", "14", "-W", "14", path="/large")
h2load("HTTP/2, tables of 0 for field compression", 1000, "-c", "4", "-m", "10", "--header-table-size=0", "--encoder-header-table-size=0")
h2load("HTTP/2, HEAD", 1000, "-c", "4", "-m", "10", "-H", ":method: HEAD")


h2load("HTTP/1.1, uploads of 100,000 bytes", 300, "-c", "5", path="/echo", h1=True, given=bytes(100_000))
h2load("HTTP/2, uploads of 100,000 bytes", 300, "-c", "5", "-m", "5", path="/echo", given=bytes(100_000))


def nghttp(name: str, *options: str, path: str = "/small", wanted: str = ":status: 200") -> None:
    def run(target):
        argv = ["nghttp", "--verbose", "--null-out", "--timeout=10", *options, f"http://{target.host}:{target.h2_port}{path}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        require(done.returncode == 0 and wanted in done.stdout, f"exit code {done.returncode}: {done.stdout[-300:]} {done.stderr[-200:]}")
        # NO_ERROR: the answer was there before the content (RFC 9113, 8.1).
        resets = re.findall(r"recv RST_STREAM.*\n.*error_code=(\w+)", done.stdout)
        require(set(resets) <= {"NO_ERROR"}, f"a stream was reset: {resets}")

    CASES.add("nghttp", name, run)


nghttp("one GET")
nghttp("a GET with padding of up to 255 bytes", "--padding=255")
nghttp("CONTINUATION", "--continuation")
nghttp("a window of 2^10", "--window-bits=10", "--connection-window-bits=14", path="/large")
nghttp("no dependencies, a weight", "--no-dep", "--weight=7")
nghttp("20 times the same", "--multiply=20")
nghttp("a table size that shrinks and grows", "--header-table-size=0", "--header-table-size=4096")
nghttp("a missing page", path="/missing", wanted=":status: 404")
nghttp("expect-continue", "--expect-continue", "--data=/etc/hostname", path="/echo")
