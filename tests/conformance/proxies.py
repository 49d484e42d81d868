"""The sidecar and its peers as processes in front of a backend on loopback, each with all that a suite needs turned on.

A kind says what the backend speaks: `http` (HTTP/1.1, WebSocket included) or `grpc` (HTTP/2 without TLS).
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Debian's servers are not on everybody's path.
PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
START = 20.0


@dataclasses.dataclass
class Target:
    """Where a suite sends its requests. `h2_port` takes HTTP/2 with prior knowledge; often it is `port` itself."""

    name: str
    host: str
    port: int
    h2_port: int
    backend: object
    # Seconds after which a head or body that does not come on is cut.
    patience: float


@dataclasses.dataclass(frozen=True)
class Limits:
    """Seconds that a client may take, the same for all proxies."""

    head: int = 10
    body: int = 30
    idle: int = 75
    # Silence of the answer, whether the backend does not send or the client does not read.
    answer: int = 60


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def program(name: str) -> str:
    """Where a peer is, or a sentence for whoever has not installed it."""
    found = shutil.which(name, path=PATH)
    if name == "envoy":
        found = next(map(str, ROOT.glob("target/venv/lib/python3*/site-packages/envoy/_bin/envoy")), found)
        found = os.environ.get("ENVOY", found)
    if not found:
        raise SystemExit(f"{name} is not installed; `make conformance` does it")
    return found


@contextlib.contextmanager
def process(argv: list[str], directory: pathlib.Path):
    """A child whose output goes to a file; ended by its own signal for that, killed when it does not listen."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOLDEN_", "OTEL_"))}
    with open(directory / "output", "wb") as output:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=directory, env=environment
        )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(3)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for_port(child: subprocess.Popen, directory: pathlib.Path, port: int) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise SystemExit(f"{child.args[0]} does not listen: {(directory / 'output').read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def start(name: str, kind: str, backend, sidecar: str | None = None, limits: Limits = Limits()):
    """Gives a `Target` in front of the backend; `direct` is the backend itself."""
    if name == "direct":
        yield Target(name, "127.0.0.1", backend.port, backend.port, backend, limits.head)
        return
    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder)
        if name == "sidecar":
            with process(sidecar_argv(directory, kind, backend.port, sidecar, limits), directory) as child:
                port = listening(child, directory)
                yield Target(name, "127.0.0.1", port, port, backend, limits.head)
            return
        ports = free_port(), free_port()
        argv = {"nginx": nginx, "haproxy": haproxy, "envoy": envoy}[name](directory, kind, ports, backend.port, limits)
        with process(argv, directory) as child:
            for port in ports:
                wait_for_port(child, directory, port)
            yield Target(name, "127.0.0.1", ports[0], ports[1], backend, limits.head)


def sidecar_argv(directory: pathlib.Path, kind: str, backend: int, binary: str, limits: Limits) -> list[str]:
    scheme = "h2c" if kind == "grpc" else "http"
    config = directory / "golden.yaml"
    config.write_text(
        f"upstream: {scheme}://127.0.0.1:{backend}\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\n"
        f"timeouts:\n  client_head: {limits.head}s\n  client_body: {limits.body}s\n"
        f"  client_idle: {limits.idle}s\n  body: {limits.answer}s\n"
    )
    return [binary, "--config", str(config)]


def listening(child: subprocess.Popen, directory: pathlib.Path) -> int:
    """The port in the sidecar's `listening` line."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and child.poll() is None:
        for line in (directory / "output").read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, AttributeError):
                entry = json.loads(line)
                entry = entry.get("fields", entry)
                if entry["event"] == "listening":
                    return int(entry["proxy"].rsplit(":", 1)[1])
        time.sleep(0.01)
    raise SystemExit(f"the sidecar does not listen: {(directory / 'output').read_text(errors='replace')[-2000:]}")


def nginx(directory: pathlib.Path, kind: str, ports, backend: int, limits: Limits) -> list[str]:
    temporary = "".join(
        f"  {part}_temp_path {directory}/{part};\n" for part in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    location = (
        "grpc_pass grpc://b;\n"
        if kind == "grpc"
        else 'proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Host $http_host;\n'
        "      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;\n"
        "      proxy_request_buffering off; proxy_buffering off;\n"
    )
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off;\nworker_processes 1;\nuser root;\npid {directory}/pid;\nerror_log stderr crit;\n"
        "events { worker_connections 4096; }\n"
        f"http {{\n{temporary}  access_log off;\n  client_max_body_size 0; keepalive_requests 1000000; large_client_header_buffers 8 64k; proxy_buffer_size 64k; proxy_buffers 8 64k;\n"
        f"  client_header_timeout {limits.head}s; client_body_timeout {limits.body}s; send_timeout {limits.answer}s;\n"
        f"  keepalive_timeout {limits.idle}s; reset_timedout_connection on;\n"
        "  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }\n"
        f"  upstream b {{ server 127.0.0.1:{backend} max_fails=0; keepalive 64; }}\n"
        f"  server {{\n    listen 127.0.0.1:{ports[0]};\n    listen 127.0.0.1:{ports[1]} http2;\n"
        f"    location / {{\n      {location}    }}\n  }}\n}}\n"
    )
    return [program("nginx"), "-c", str(config), "-e", "stderr"]


def haproxy(directory: pathlib.Path, kind: str, ports, backend: int, limits: Limits) -> list[str]:
    proto = " proto h2" if kind == "grpc" else ""
    config = directory / "haproxy.cfg"
    config.write_text(
        "global\n  nbthread 1\n  maxconn 8000\n  no strict-limits\n  tune.bufsize 65536\n"
        "defaults\n  mode http\n  option http-keep-alive\n  http-reuse always\n  timeout connect 2s\n"
        f"  timeout client {limits.body}s\n  timeout server 60s\n  timeout tunnel 60s\n  timeout http-request {limits.head}s\n"
        f"  timeout http-keep-alive {limits.idle}s\n"
        f"frontend f\n  bind 127.0.0.1:{ports[0]}\n  bind 127.0.0.1:{ports[1]} proto h2\n  default_backend b\n"
        f"backend b\n  server s 127.0.0.1:{backend}{proto}\n"
    )
    return [program("haproxy"), "-db", "-f", str(config)]


def envoy(directory: pathlib.Path, kind: str, ports, backend: int, limits: Limits) -> list[str]:
    def address(number: int) -> dict:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    extensions = "type.googleapis.com/envoy.extensions"
    route = {"match": {"prefix": "/"}, "route": {"cluster": "b", "timeout": "0s"}}
    connect = {"match": {"connect_matcher": {}}, "route": {"cluster": "b", "timeout": "0s"}}
    manager = {
        "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "AUTO",
        "request_headers_timeout": f"{limits.head}s",
        "stream_idle_timeout": f"{limits.body}s",
        # The default of 1 s only makes whoever waits for the end wait.
        "delayed_close_timeout": "0.02s",
        "common_http_protocol_options": {"idle_timeout": f"{limits.idle}s"},
        "http2_protocol_options": {"allow_connect": True},
        "http_protocol_options": {"enable_trailers": True, "accept_http_10": True, "default_host_for_http_10": "x"},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [connect, route]}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{extensions}.filters.http.router.v3.Router"},
        }],
    }
    explicit = (
        {"http2_protocol_options": {}} if kind == "grpc" else {"http_protocol_options": {"enable_trailers": True}}
    )
    options = {
        "@type": f"{extensions}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": explicit,
    }
    most = [{"priority": "DEFAULT", "max_connections": 8000, "max_pending_requests": 8000, "max_requests": 8000}]
    listener = [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]
    resources = {
        "listeners": [{"name": str(port), "address": address(port), "filter_chains": listener} for port in ports],
        "clusters": [{
            "name": "b", "type": "STATIC", "connect_timeout": "2s",
            "circuit_breakers": {"thresholds": most},
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
            },
            "load_assignment": {
                "cluster_name": "b",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(backend)}}]}],
            },
        }],
    }
    config = directory / "envoy.json"
    config.write_text(json.dumps({"static_resources": resources}))
    return [program("envoy"), "--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c", str(config)]


def version(name: str, sidecar: str | None = None) -> str:
    """The first thing in the output of the version flag that looks like one."""
    flag = {"nginx": "-v", "haproxy": "-v"}.get(name, "--version")
    path = sidecar if name == "sidecar" else program(name)
    done = subprocess.run([path, flag], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+[\w.+-]*", done.stdout + done.stderr)
    return found[0] if found else "?"
