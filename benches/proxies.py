"""The backend, and the proxies before it: one worker each, everything that is not asked for switched off."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import BODY, Bench, BenchError, NEVER_SECONDS, ROUTES, Server, TARGET, file_limit, get, wait_until_serving

TITLES = {
    "sidecar": "golden-sidecar",
    "sidecar-unmeasured": "golden-sidecar, unmeasured",
    "sidecar-before": "golden-sidecar, the earlier build",
    "nginx": "nginx",
    "haproxy": "HAProxy",
    "haproxy-tcp": "HAProxy, TCP mode",
    "envoy": "Envoy",
}
# One location of the backend for each.
BACKEND_CODES = (200, 301, 404, 500)


@dataclass(frozen=True)
class Identity:
    """Files of a certificate and of its key, PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Wire:
    """What is spoken: between client and proxy, plain HTTP/1.1 unless said otherwise, and between proxy and backend."""

    # Offers HTTP/2 and HTTP/1.1.
    tls: Identity | None = None
    # With prior knowledge.
    http2: bool = False
    backend_http2: bool = False

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"


PLAIN = Wire()


@dataclass
class Proxy:
    """A running proxy: where it serves and what it speaks, and for the sidecar where its admin endpoints are."""

    name: str
    server: Server
    port: int
    admin: int | None = None
    wire: Wire = PLAIN


def make_identity(bench: Bench) -> Identity:
    """A certificate signed by its own key, ECDSA P-256."""
    identity = Identity(bench.directory / "certificate.pem", bench.directory / "key.pem")
    command = [
        bench.tools["openssl"], "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout", str(identity.key), "-out", str(identity.certificate),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if ran.returncode != 0:
        raise BenchError(f"openssl made no certificate: {ran.stderr}")
    return identity


def nginx_common(bench: Bench, name: str) -> str:
    """The head of an nginx configuration: one worker, foreground, everything it writes below our directory."""
    base = bench.directory / name
    base.mkdir(exist_ok=True)
    base.chmod(0o755)
    temporary = "".join(
        f"  {kind}_temp_path {base}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # Started as root, the worker would become `nobody`, who may not enter the directory.
    user = "user root;\n" if os.geteuid() == 0 else ""
    return (
        f"daemon off;\n{user}worker_processes 1;\nworker_rlimit_nofile {file_limit()};\npid {base}/pid;\nerror_log stderr error;\n"
        f"events {{ worker_connections {file_limit() - 100}; }}\n"
        f"http {{\n{temporary}  access_log off;\n  default_type application/json;\n"
        f"  keepalive_requests 1000000000;\n  keepalive_time {NEVER_SECONDS}s;\n  keepalive_timeout {NEVER_SECONDS}s;\n"
    )


def start_backend(bench: Bench, h2_port: int | None = None) -> int:
    """nginx with a small fixed answer, one location per status code, and its own request counter. Gives the port.

    On `h2_port` it speaks HTTP/2 with prior knowledge.
    """

    def build(port: int):
        config = bench.directory / "backend.conf"
        codes = "".join(
            f'    location ~ "^/r[0-9]+/{code}$" {{ return {code} "{code}"; }}\n' for code in BACKEND_CODES
        )
        h2_listen = f"    listen 127.0.0.1:{h2_port} http2 backlog=4096;\n" if h2_port else ""
        config.write_text(
            nginx_common(bench, "backend") + f"  server {{\n    listen 127.0.0.1:{port} backlog=4096;\n{h2_listen}"
            f"    location = {TARGET} {{ return 200 '{BODY}'; }}\n    location = /status {{ stub_status; }}\n{codes}  }}\n}}\n"
        )
        return [bench.tools["nginx"], "-c", str(config), "-e", "stderr"], {}

    _, port = bench.start("backend", build, wait_until_serving)
    return port


def backend_requests(port: int) -> int:
    """Requests that the backend has seen, this one included: third number of nginx's stub_status."""
    _, body = get(port, "/status")
    return int(body.split()[9])


def start_proxy(
    bench: Bench, name: str, backend: int, config: Path | None = None, env: dict[str, str] | None = None, wire: Wire = PLAIN,
) -> Proxy:
    """Starts one proxy before the backend and waits until a request passes through it."""
    if name.startswith("sidecar"):
        return start_sidecar(bench, name, backend, config, env, wire)
    builders = {
        "nginx": nginx_proxy, "haproxy": haproxy_proxy, "haproxy-tcp": haproxy_proxy, "envoy": envoy_proxy,
    }

    def ready(server: Server, port: int) -> None:
        wait_until_serving(server, port, ask=get if wire == PLAIN else lambda port, path: curl(bench, wire, port, path))

    server, port = bench.start(name, lambda port: (builders[name](bench, name, port, backend, wire), {}), ready)
    return Proxy(name, server, port, wire=wire)


def curl(bench: Bench, wire: Wire, port: int, path: str) -> tuple[int, bytes]:
    """Status and body of one GET, also over TLS (whoever made the certificate) and HTTP/2."""
    command = [
        bench.tools["curl"], "--silent", "--insecure", "--noproxy", "*", "--max-time", "5", "--write-out", "\n%{http_code}",
        *(["--http2-prior-knowledge"] if wire.http2 else []), f"{wire.scheme}://127.0.0.1:{port}{path}",
    ]
    body, _, status = subprocess.run(command, capture_output=True, timeout=10).stdout.rpartition(b"\n")
    return int(status or 0), body


def nginx_proxy(bench: Bench, name: str, port: int, backend: int, wire: Wire) -> list[str]:
    config = bench.directory / f"{name}.conf"
    listen = f"listen 127.0.0.1:{port}{' ssl' if wire.tls else ''}{' http2' if wire.tls or wire.http2 else ''} backlog=4096;\n"
    tls = (
        f"    ssl_certificate {wire.tls.certificate};\n    ssl_certificate_key {wire.tls.key};\n    ssl_protocols TLSv1.3;\n"
    ) if wire.tls else ""
    forward = (
        "      grpc_pass grpc://b;\n      grpc_set_header Host $http_host;\n"
        if wire.backend_http2 else
        "      proxy_pass http://b;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_set_header Host $http_host;\n"
    )
    config.write_text(
        nginx_common(bench, name)
        + f"  upstream b {{ server 127.0.0.1:{backend}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout {NEVER_SECONDS}s; keepalive_time {NEVER_SECONDS}s; }}\n"
        f"  server {{\n    {listen}{tls}    location / {{\n{forward}    }}\n  }}\n}}\n"
    )
    return [bench.tools["nginx"], "-c", str(config), "-e", "stderr"]


def haproxy_proxy(bench: Bench, name: str, port: int, backend: int, wire: Wire) -> list[str]:
    config = bench.directory / f"{name}.conf"
    mode = "tcp" if name == "haproxy-tcp" else "http"
    http_only = "  option http-keep-alive\n  http-reuse always\n" if mode == "http" else ""
    # HAProxy reckons two descriptors per connection and would ask for more than it may have; with keep-alive clients that
    # are idle, HTTP mode needs only one.
    most = file_limit() // 2 - 100 if mode == "tcp" else file_limit() - 300
    tls = ""
    if wire.tls:
        # It wants both in one file.
        both = bench.directory / f"{name}.pem"
        both.write_text(wire.tls.certificate.read_text() + wire.tls.key.read_text())
        tls = f" ssl crt {both} alpn h2,http/1.1 ssl-min-ver TLSv1.3"
    config.write_text(
        f"global\n  nbthread 1\n  maxconn {most}\n  no strict-limits\n"
        f"defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client {NEVER_SECONDS}s\n  timeout server {NEVER_SECONDS}s\n"
        f"  timeout http-keep-alive {NEVER_SECONDS}s\n{http_only}"
        f"frontend f\n  bind 127.0.0.1:{port} backlog 4096{tls}{' proto h2' if wire.http2 else ''}\n  default_backend b\n"
        f"backend b\n  server s 127.0.0.1:{backend}{' proto h2' if wire.backend_http2 else ''}\n"
    )
    return [bench.tools["haproxy"], "-db", "-f", str(config)]


def envoy_proxy(bench: Bench, name: str, port: int, backend: int, wire: Wire) -> list[str]:
    def address(number: int) -> dict:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    types = "type.googleapis.com/envoy.extensions"
    manager = {
        "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "AUTO",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "b"}}]}]
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"}}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    if wire.tls:
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": f"{types}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [{"certificate_chain": {"filename": str(wire.tls.certificate)}, "private_key": {"filename": str(wire.tls.key)}}],
                "alpn_protocols": ["h2", "http/1.1"],
            },
        }}
    cluster = {
        "name": "b", "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "b", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(backend)}}]}]},
    }
    if wire.backend_http2:
        cluster["typed_extension_protocol_options"] = {f"{types.partition('/')[2]}.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{types}.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}},
        }}
    config = bench.directory / f"{name}.json"
    config.write_text(json.dumps({
        "static_resources": {"listeners": [{"address": address(port), "filter_chains": [chain]}], "clusters": [cluster]},
    }))
    return [bench.tools["envoy"], "--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c", str(config)]


def sidecar_command(bench: Bench, name: str, backend: int, listen: int, admin: int, wire: Wire = PLAIN) -> list[str]:
    return [
        bench.tools[name], "--upstream", f"{'h2c' if wire.backend_http2 else 'http'}://127.0.0.1:{backend}", "--listen", f"127.0.0.1:{listen}",
        "--admin", f"127.0.0.1:{admin}", "--workers", "1",
    ]


def start_sidecar(
    bench: Bench, name: str, backend: int, config: Path | None = None, env: dict[str, str] | None = None, wire: Wire = PLAIN,
    below: Sequence[str] = (), patience_seconds: float = 15,
) -> Proxy:
    """The sidecar chooses its own ports and says them in its `listening` line. `below`: the tool that it runs under."""
    if config is None:
        config = bench.directory / "routes.yaml"
        config.write_text("routes:\n" + "".join(f"  - path: {route}\n" for route in ROUTES))
    # Nothing to wait for at the end: no client will come back.
    env = {"GOLDEN_CONFIG": str(config), "GOLDEN_DRAIN_GRACE": "0s", "GOLDEN_DRAIN_TIMEOUT": "1s", **(env or {})}
    if wire.tls:
        env |= {"GOLDEN_TLS_CERTIFICATE": str(wire.tls.certificate), "GOLDEN_TLS_KEY": str(wire.tls.key)}
    server = Server(name, [*below, *sidecar_command(bench, name, backend, 0, 0, wire)], bench.proxy_core, bench.directory, env)
    bench.stack.callback(server.stop)
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        found = listening_line(server.output())
        if found:
            return Proxy(name, server, *found, wire=wire)
        server.check_alive()
        time.sleep(0.01)
    raise server.fail(f'no line with "event":"listening" within {patience_seconds:.0f} s')


def listening_line(output: str) -> tuple[int, int] | None:
    """Ports of proxy and admin from the JSON line with the event `listening`; its fields may be nested."""
    for line in output.splitlines():
        if '"listening"' not in line:
            continue
        with contextlib.suppress(ValueError, KeyError):
            entry = json.loads(line)
            fields = {**entry, **entry.get("fields", {})}
            return tuple(int(fields[key].rpartition(":")[2]) for key in ("proxy", "admin"))
    return None
