"""The sidecar and its peers as processes in front of a backend on loopback, each with all that a suite needs turned on.

A kind says what the backend speaks: `http` (HTTP/1.1, WebSocket included) or `grpc` (HTTP/2 without TLS). `tls` is `http`
with more listeners: one with TLS, one behind the PROXY protocol, one at a socket of the file system.
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
    # Of the kind `tls`: the listener with TLS and its files, the port behind the PROXY protocol, the socket.
    tls: object = None
    proxied: int = 0
    unix: pathlib.Path | None = None


@dataclasses.dataclass
class Tls:
    """Files of PEM, and the port that has the certificate. `stranger` is signed by nobody that anybody trusts."""

    ca: pathlib.Path
    certificate: pathlib.Path
    key: pathlib.Path
    client: pathlib.Path
    client_key: pathlib.Path
    stranger: pathlib.Path
    stranger_key: pathlib.Path
    port: int = 0


def certificates(directory: pathlib.Path) -> Tls:
    """An authority of a day, and what it has signed: the server for localhost and 127.0.0.1, and a client."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for authority in ("ca", "other"):
        openssl("req", "-x509", *new, "-subj", f"/CN={authority}", "-keyout", f"{authority}.key", "-out", f"{authority}.pem")
    for name, authority, usage in [
        ("server", "ca", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ("client", "ca", "extendedKeyUsage=clientAuth"),
        ("stranger", "other", "extendedKeyUsage=clientAuth"),
    ]:
        (directory / f"{name}.ext").write_text(usage + "\nbasicConstraints=CA:FALSE\n")
        openssl("req", "-new", *new[:-2], "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial",
            "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
        )
    # HAProxy wants both in one file.
    (directory / "both.pem").write_text((directory / "server.pem").read_text() + (directory / "server.key").read_text())
    names = ("ca.pem", "server.pem", "server.key", "client.pem", "client.key", "stranger.pem", "stranger.key")
    return Tls(*[directory / name for name in names])


@dataclasses.dataclass(frozen=True)
class Limits:
    """Seconds that a client may take, the same for all proxies."""

    head: int = 10
    body: int = 30
    idle: int = 75
    # Silence of the answer, whether the backend does not send or the client does not read.
    answer: int = 60
    # HAProxy takes a request whole before it goes on, which its manual has against slow bodies. Not for streams.
    whole: bool = False


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
        yield Target(name, "127.0.0.1", backend.port, backend.port, backend)
        return
    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder)
        tls = certificates(directory) if kind == "tls" else None
        if name == "sidecar":
            with contextlib.ExitStack() as stack:

                def one(more: str = "", listen: str = "127.0.0.1:0") -> int:
                    """Starts a sidecar; gives its port, 0 at a socket of the file system."""
                    own = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
                    argv = sidecar_argv(own, kind, backend.port, sidecar, limits, listen, more)
                    return listening(stack.enter_context(process(argv, own)), own)

                port = one()
                target = Target(name, "127.0.0.1", port, port, backend)
                if tls:
                    tls.port = one(
                        f"tls:\n  certificate: {tls.certificate}\n  key: {tls.key}\n  client_ca: {tls.ca}\n  client_auth: optional\n"
                    )
                    target.tls, target.proxied, target.unix = tls, one("proxy_protocol: true\n"), directory / "listen"
                    one(listen=f"unix:{target.unix}")
                yield target
            return
        ports = free_port(), free_port()
        more = (free_port(), free_port(), directory / "listen") if tls else None
        argv = {"nginx": nginx, "haproxy": haproxy, "envoy": envoy}[name](directory, kind, ports, backend.port, limits, tls, more)
        with process(argv, directory) as child:
            for port in (*ports, *(more or ())[:2]):
                wait_for_port(child, directory, port)
            target = Target(name, "127.0.0.1", *ports, backend)
            if tls:
                tls.port, target.proxied, target.unix, target.tls = *more, tls
            yield target


def sidecar_argv(
    directory: pathlib.Path, kind: str, backend: int, binary: str, limits: Limits, listen: str, more: str
) -> list[str]:
    scheme = "h2c" if kind == "grpc" else "http"
    config = directory / "golden.yaml"
    config.write_text(
        f"upstream: {scheme}://127.0.0.1:{backend}\nlisten: {listen}\nadmin: 127.0.0.1:0\nworkers: 1\n"
        f"timeouts:\n  client_head: {limits.head}s\n  client_body: {limits.body}s\n"
        f"  client_idle: {limits.idle}s\n  body: {limits.answer}s\n{more}"
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
                    return 0 if entry["proxy"].startswith("unix:") else int(entry["proxy"].rsplit(":", 1)[1])
        time.sleep(0.01)
    raise SystemExit(f"the sidecar does not listen: {(directory / 'output').read_text(errors='replace')[-2000:]}")


def nginx(directory: pathlib.Path, kind: str, ports, backend: int, limits: Limits, tls: Tls | None, more) -> list[str]:
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
    listeners = f"    listen 127.0.0.1:{ports[0]};\n    listen 127.0.0.1:{ports[1]} http2;\n"
    if tls:
        listeners += (
            f"    listen 127.0.0.1:{more[0]} ssl http2;\n    listen 127.0.0.1:{more[1]} proxy_protocol;\n    listen unix:{more[2]};\n"
            f"    ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {tls.certificate}; ssl_certificate_key {tls.key};\n"
            f"    ssl_client_certificate {tls.ca}; ssl_verify_client optional;\n"
        )
        location += "      proxy_set_header X-Forwarded-For $proxy_protocol_addr;\n"
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off;\nworker_processes 1;\nuser root;\npid {directory}/pid;\nerror_log stderr crit;\n"
        "events { worker_connections 4096; }\n"
        f"http {{\n{temporary}  access_log off;\n  client_max_body_size 0; keepalive_requests 1000000; large_client_header_buffers 8 64k; proxy_buffer_size 64k; proxy_buffers 8 64k;\n"
        f"  client_header_timeout {limits.head}s; client_body_timeout {limits.body}s; send_timeout {limits.answer}s;\n"
        f"  keepalive_timeout {limits.idle}s; reset_timedout_connection on;\n"
        "  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }\n"
        f"  upstream b {{ server 127.0.0.1:{backend} max_fails=0; keepalive 64; }}\n"
        f"  server {{\n{listeners}"
        f"    location / {{\n      {location}    }}\n  }}\n}}\n"
    )
    return [program("nginx"), "-c", str(config), "-e", "stderr"]


def haproxy(directory: pathlib.Path, kind: str, ports, backend: int, limits: Limits, tls: Tls | None, more) -> list[str]:
    proto = " proto h2" if kind == "grpc" else ""
    listeners = ""
    if tls:
        listeners = (
            f"  bind 127.0.0.1:{more[0]} ssl crt {directory}/both.pem alpn h2,http/1.1 ca-file {tls.ca} verify optional\n"
            f"  bind 127.0.0.1:{more[1]} accept-proxy\n  bind {more[2]}\n  option forwardfor\n"
        )
    config = directory / "haproxy.cfg"
    config.write_text(
        "global\n  nbthread 1\n  maxconn 8000\n  no strict-limits\n  tune.bufsize 65536\n"
        "defaults\n  mode http\n  option http-keep-alive\n  http-reuse always\n  timeout connect 2s\n"
        f"  timeout client {limits.body}s\n  timeout server 60s\n  timeout tunnel 60s\n  timeout http-request {limits.head}s\n"
        f"  timeout http-keep-alive {limits.idle}s\n{'  option http-buffer-request' * limits.whole}\n"
        f"frontend f\n  bind 127.0.0.1:{ports[0]}\n  bind 127.0.0.1:{ports[1]} proto h2\n{listeners}  default_backend b\n"
        f"backend b\n  server s 127.0.0.1:{backend}{proto}\n"
    )
    return [program("haproxy"), "-db", "-f", str(config)]


def envoy(directory: pathlib.Path, kind: str, ports, backend: int, limits: Limits, tls: Tls | None, more) -> list[str]:
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
    listeners = [{"name": str(port), "address": address(port), "filter_chains": listener} for port in ports]
    if tls:
        manager |= {"use_remote_address": True}
        file = lambda path: {"filename": str(path)}  # noqa: E731
        common = {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [{"certificate_chain": file(tls.certificate), "private_key": file(tls.key)}],
            "validation_context": {"trusted_ca": file(tls.ca)},
        }
        encrypted = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": f"{extensions}.transport_sockets.tls.v3.DownstreamTlsContext", "common_tls_context": common},
        }
        announced = {
            "name": "envoy.filters.listener.proxy_protocol",
            "typed_config": {"@type": f"{extensions}.filters.listener.proxy_protocol.v3.ProxyProtocol"},
        }
        listeners += [
            {"name": "tls", "address": address(more[0]), "filter_chains": [listener[0] | {"transport_socket": encrypted}]},
            {"name": "announced", "address": address(more[1]), "filter_chains": listener, "listener_filters": [announced]},
            {"name": "unix", "address": {"pipe": {"path": str(more[2])}}, "filter_chains": listener},
        ]
    resources = {
        "listeners": listeners,
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
