"""TLS, PROXY protocol and sockets of the file system by curl, h2load and raw bytes: what listens beside plain TCP."""

import contextlib
import hashlib
import json
import socket
import ssl
import struct
import subprocess

from backend import Backend, bytes_of
from cases import PATIENCE, Cases, require

TITLE = "TLS with ALPN, PROXY protocol, unix sockets"
SOURCE = "RFC 8446, RFC 7301, HAProxy's PROXY protocol; curl, OpenSSL, h2load"
KIND = "tls"
CASES = Cases()
case = CASES.case


@contextlib.contextmanager
def backend():
    server = Backend()
    yield server
    server.close()


def curl(target, path: str, *options: str, given: bytes | None = None):
    """Content and what --write-out said; the certificate is checked."""
    argv = [
        "curl", "--disable", "--silent", "--show-error", "--max-time", str(PATIENCE), "--noproxy", "*", "--cacert", str(target.tls.ca),
        "--write-out", "\n%{json}", *options, f"https://{target.host}:{target.tls.port}{path}",
    ]
    done = subprocess.run(argv, input=given, capture_output=True, check=False)
    require(done.returncode == 0, f"exit code {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    content, _, said = done.stdout.rpartition(b"\n")
    return content, json.loads(said)


for version, flag in (("1.1", "--http1.1"), ("2", "--http2")):
    for name, options in (("TLS 1.2", ("--tlsv1.2", "--tls-max", "1.2")), ("TLS 1.3", ("--tlsv1.3",))):

        def _run(target, version=version, options=(flag, *options)):
            content, said = curl(target, "/bytes/100000", *options)
            require(content == bytes_of(100_000) and said["http_version"] == version, f"HTTP/{said['http_version']}, {len(content)} bytes")

        CASES.add(name, f"a GET over HTTP/{version}, agreed on by ALPN", _run)

    def _upload(target, flag=flag):
        content, _ = curl(target, "/inspect", flag, "--data-binary", "@-", given=bytes_of(2_000_000))
        require(json.loads(content)["sha256"] == hashlib.sha256(bytes_of(2_000_000)).hexdigest(), "other bytes")

    CASES.add("curl", f"an upload of 2 MB over HTTP/{version}", _upload)

    def _reused(target, flag=flag):
        urls = [word for n in range(9) for word in ("--output", "/dev/null", f"https://{target.host}:{target.tls.port}/n/{n}")]
        argv = ["curl", "--disable", "--silent", "--noproxy", "*", "--cacert", str(target.tls.ca), flag, "--write-out", "%{num_connects}\n", *urls]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        require(sum(map(int, done.stdout.split())) == 1, f"connections {done.stdout.split()}")

    CASES.add("curl", f"one connection serves nine requests over HTTP/{version}", _reused)

    def _redirected(target, flag=flag):
        content, said = curl(target, "/redirect/3", flag, "--location", "--post302", "--data", "kept", "--cookie", "c=3")
        require(json.loads(content)["length"] == 4 and said["num_redirects"] == 3, f"{said['num_redirects']} redirects")

    CASES.add("curl", f"--location over HTTP/{version}", _redirected)


@case("curl", "--parallel, 60 transfers over HTTP/2")
def _(target):
    argv = ["curl", "--disable", "--silent", "--noproxy", "*", "--cacert", str(target.tls.ca), "--http2", "--fail", "--parallel", "--parallel-max", "20", "--write-out", "%{http_version} %{size_download}\n", "--output", "/dev/null", f"https://{target.host}:{target.tls.port}/bytes/[1000-1059]"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    require(sorted(done.stdout.split("\n")[:-1]) == [f"2 {size}" for size in range(1000, 1060)], f"{done.stdout[:200]}")


def context(target, *protocols: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(target.tls.ca))
    if protocols:
        made.set_alpn_protocols(list(protocols))
    return made


@contextlib.contextmanager
def connected(target, made: ssl.SSLContext):
    with socket.create_connection((target.host, target.tls.port), PATIENCE) as plain:
        with made.wrap_socket(plain, server_hostname="localhost") as encrypted:
            yield encrypted


def asked(stream) -> bytes:
    stream.sendall(b"GET /inspect HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    got = b""
    while data := stream.recv(1 << 16):
        got += data
    return got


for offered, wanted in ((("h2", "http/1.1"), "h2"), (("http/1.1", "h2"), None), (("http/1.1",), "http/1.1"), (("h2",), "h2"), ((), None)):

    def _alpn(target, offered=offered, wanted=wanted):
        with connected(target, context(target, *offered)) as stream:
            agreed = stream.selected_alpn_protocol()
            require(agreed == wanted or wanted is None and agreed in (*offered, None), f"{agreed} of {offered}")
            if agreed != "h2":
                require(b" 200 " in asked(stream)[:20], "not answered")

    CASES.add("RFC 7301", f"offered {', '.join(offered) or 'nothing'}", _alpn)


@case("RFC 8446", "the client checks the name: another one is refused by it")
def _(target):
    try:
        with socket.create_connection((target.host, target.tls.port), PATIENCE) as plain:
            context(target).wrap_socket(plain, server_hostname="other.test").close()
    except ssl.SSLCertVerificationError:
        return
    require(False, "the certificate names other.test")


@case("RFC 8996", "TLS 1.1 is refused")
def _(target):
    made = context(target)
    made.set_ciphers("ALL:@SECLEVEL=0")
    made.minimum_version, made.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    try:
        with connected(target, made) as stream:
            require(False, f"{stream.version()} was accepted")
    except (ssl.SSLError, OSError):
        pass


@case("RFC 8446", "plain HTTP where TLS is spoken is no success, and harms nobody")
def _(target):
    with socket.create_connection((target.host, target.tls.port), PATIENCE) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        with contextlib.suppress(OSError):
            require(b" 200 " not in plain.recv(4096)[:20], "answered with 200")
    require(curl(target, "/")[1]["http_code"] == 200, "not answered")


@case("client certificates", "one that its authority has signed is accepted")
def _(target):
    require(curl(target, "/", "--cert", str(target.tls.client), "--key", str(target.tls.client_key))[1]["http_code"] == 200, "not answered")


@case("client certificates", "one that another authority has signed is not")
def _(target):
    made = context(target)
    made.load_cert_chain(target.tls.stranger, target.tls.stranger_key)
    try:
        with connected(target, made) as stream:
            require(b" 200 " not in asked(stream)[:20], "answered with 200")
    except (ssl.SSLError, OSError):
        pass


@case("client certificates", "none at all is accepted where they are optional")
def _(target):
    require(curl(target, "/")[1]["http_code"] == 200, "not answered")


@case("h2load", "TLS, HTTP/2, 10 connections with 10 streams each: no failure")
def _(target):
    loaded(target, "-c", "10", "-m", "10")


@case("h2load", "TLS, HTTP/1.1, 10 connections: no failure")
def _(target):
    loaded(target, "-c", "10", "--h1")


def loaded(target, *options: str) -> None:
    argv = ["h2load", "-n", "500", *options, f"https://{target.host}:{target.tls.port}/bytes/1000"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    require("500 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout[-300:])


# --- PROXY protocol ---

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def version2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack(">H", len(addresses)) + addresses


V4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.9") + struct.pack(">HH", 4711, 80)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(socket.AF_INET6, "2001:db8::9") + struct.pack(">HH", 4711, 80)


def announced(name: str, head: bytes, peer: str | None) -> None:
    """A case: behind this head a request is answered, and the backend is told of the peer."""

    def run(target):
        with socket.create_connection((target.host, target.proxied), PATIENCE) as stream:
            stream.sendall(head)
            got = asked(stream)
        require(b" 200 " in got[:20], f"{got[:60]!r}")
        seen = dict(json.loads(got[got.index(b"{") : got.rindex(b"}") + 1])["fields"]).get("x-forwarded-for", "")
        require(peer is None or peer in seen, f"X-Forwarded-For is {seen!r}")

    CASES.add("PROXY protocol", name, run)


announced("version 1, TCP4", b"PROXY TCP4 192.0.2.1 192.0.2.9 4711 80\r\n", "192.0.2.1")
announced("version 1, TCP6", b"PROXY TCP6 2001:db8::1 2001:db8::9 4711 80\r\n", "2001:db8::1")
announced("version 1, UNKNOWN", b"PROXY UNKNOWN\r\n", None)
announced("version 2, IPv4", version2(1, 0x11, V4), "192.0.2.1")
announced("version 2, IPv6", version2(1, 0x21, V6), "2001:db8::1")
announced("version 2, LOCAL", version2(0, 0, b""), None)
announced("version 2, with further fields", version2(1, 0x11, V4 + b"\x04\x00\x03abc"), "192.0.2.1")


def not_announced(name: str, head: bytes) -> None:
    def run(target):
        with socket.create_connection((target.host, target.proxied), PATIENCE) as stream:
            with contextlib.suppress(OSError):
                got = b""
                stream.settimeout(2)
                got = asked_quietly(stream, head)
                require(b" 200 " not in got[:20], "answered with 200")

    CASES.add("PROXY protocol", name, run)


def asked_quietly(stream, head: bytes) -> bytes:
    stream.sendall(head)
    return asked(stream)


not_announced("a connection without it is refused", b"")
not_announced("version 1 with a bad address is refused", b"PROXY TCP4 192.0.2.999 192.0.2.9 4711 80\r\n")
not_announced("version 2 with a bad version is refused", SIGNATURE + b"\x31\x11\x00\x0c" + V4)


@case("PROXY protocol", "curl --haproxy-protocol")
def _(target):
    argv = ["curl", "--disable", "--silent", "--noproxy", "*", "--max-time", str(PATIENCE), "--haproxy-protocol", f"http://{target.host}:{target.proxied}/bytes/5000"]
    require(subprocess.run(argv, capture_output=True, check=True).stdout == bytes_of(5000), "other bytes")


# --- a socket of the file system ---


@case("unix socket", "curl --unix-socket, an answer of 1 MB")
def _(target):
    argv = ["curl", "--disable", "--silent", "--max-time", str(PATIENCE), "--unix-socket", str(target.unix), "http://localhost/bytes/1000000"]
    require(subprocess.run(argv, capture_output=True, check=True).stdout == bytes_of(1_000_000), "other bytes")


@case("unix socket", "curl --unix-socket, an upload of 1 MB")
def _(target):
    argv = ["curl", "--disable", "--silent", "--max-time", str(PATIENCE), "--unix-socket", str(target.unix), "--data-binary", "@-", "http://localhost/echo"]
    require(subprocess.run(argv, input=bytes_of(1_000_000), capture_output=True, check=True).stdout == bytes_of(1_000_000), "other bytes")
