"""curl's protocol features: what that client can ask for arrives at the backend, and its answer back."""

import contextlib
import gzip
import hashlib
import json
import pathlib
import re
import subprocess
import tempfile
import time

from backend import GZIPPED, Backend, bytes_of
from cases import PATIENCE, Cases, require

TITLE = "curl's protocol features"
SOURCE = "RFC 9110, RFC 9112, RFC 9113; curl"
KIND = "http"
CASES = Cases()
case = CASES.case

# How each case is asked: by which version of HTTP.
VERSIONS = {"HTTP/1.1": "--http1.1", "HTTP/2": "--http2-prior-knowledge"}


@contextlib.contextmanager
def backend():
    server = Backend()
    yield server
    server.close()


# curl 7.88 cannot use a connection of HTTP/2 with prior knowledge twice (exit code 16, whoever serves); cases that need it
# to are asked over HTTP/1.1.


class Done:
    """`status`, `content`, `head` (all heads, as text) and what --write-out said."""

    def __init__(self, code: int, content: bytes, head: str, said: str, complaint: str) -> None:
        self.code, self.content, self.head, self.complaint = code, content, head, complaint
        self.said = json.loads(said) if said else {}
        self.status = self.said.get("http_code", 0)
        self.statuses = [int(status) for status in re.findall(r"^HTTP/[\d.]+ (\d{3})", head, re.MULTILINE)]

    def field(self, name: str) -> list[str]:
        return re.findall(rf"^{name}:[ ]*(.*?)\r?$", self.head, re.MULTILINE | re.IGNORECASE)

    def json(self) -> dict:
        require(self.status == 200, f"{self.status} instead of 200: {self.complaint}")
        return json.loads(self.content)


def curl(target, path: str, *options: str, given: bytes | None = None, fails: bool = False) -> Done:
    """Runs curl once; its exit code must be 0 unless `fails`."""
    with tempfile.TemporaryDirectory() as folder:
        content, head = pathlib.Path(folder, "content"), pathlib.Path(folder, "head")
        port = target.h2_port if "--http2-prior-knowledge" in options else target.port
        argv = [
            "curl", "--disable", "--silent", "--show-error", "--max-time", str(PATIENCE), "--noproxy", "*", "--output", str(content),
            "--dump-header", str(head), "--write-out", "%{json}", *options, f"http://{target.host}:{port}{path}",
        ]
        done = subprocess.run(argv, input=given, capture_output=True, check=False)
        complaint = done.stderr.decode(errors="replace").strip()
        require(fails or done.returncode == 0, f"exit code {done.returncode}: {complaint}")
        read = lambda file: file.read_bytes() if file.exists() else b""  # noqa: E731
        return Done(done.returncode, read(content), read(head).decode("latin-1"), done.stdout.decode(), complaint)


def each_version(name: str):
    """One case for each version of HTTP; the function gets the target and curl's flag for it."""

    def add(run):
        for version, flag in VERSIONS.items():
            CASES.add(version, name, lambda target, flag=flag: run(target, flag))
        return run

    return add


def sent(done: Done, name: str) -> list[str]:
    """The values of a field as the backend got them."""
    return [value for key, value in done.json()["fields"] if key == name]


# --- methods and contents ---

for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE"):

    @each_version(f"the method {method}")
    def _(target, flag, method=method):
        require(curl(target, "/inspect", flag, "--request", method).json()["method"] == method, "another method")


@each_version("HEAD has the fields of GET and no content")
def _(target, flag):
    done = curl(target, "/bytes/5000", flag, "--head")
    require(done.status == 200 and done.field("content-length") == ["5000"], done.head)


@each_version("a GET with a content")
def _(target, flag):
    require(curl(target, "/inspect", flag, "--request", "GET", "--data", "hello").json()["length"] == 5, "another length")


@each_version("--data of a form")
def _(target, flag):
    done = curl(target, "/inspect", flag, "--data", "a=1", "--data-urlencode", "b=x y&z")
    require(sent(done, "content-type") == ["application/x-www-form-urlencoded"], "another type")
    # A blank is `+` or `%20`, as the version of curl likes.
    wanted = {hashlib.sha256(form).hexdigest() for form in (b"a=1&b=x+y%26z", b"a=1&b=x%20y%26z")}
    require(done.json()["sha256"] in wanted, "other bytes")


@each_version("--form of parts")
def _(target, flag):
    done = curl(target, "/echo", flag, "--form", "field=value", "--form", "file=@-;filename=a.bin", given=bytes_of(10_000))
    require(bytes_of(10_000) in done.content and b'name="field"' in done.content, "other parts")


for size in (0, 1, 65_536, 3_000_000):

    @each_version(f"an upload of {size:,} bytes comes back")
    def _(target, flag, size=size):
        done = curl(target, "/echo", flag, "--data-binary", "@-", given=bytes_of(size))
        require(done.content == bytes_of(size), f"{len(done.content)} other bytes")

    @each_version(f"a download of {size:,} bytes with a length")
    def _(target, flag, size=size):
        done = curl(target, f"/bytes/{size}", flag)
        require(done.content == bytes_of(size) and done.field("content-length") == [str(size)], "other bytes, or length")


@each_version("an upload from standard input, of unknown length")
def _(target, flag):
    done = curl(target, "/inspect", flag, "--upload-file", "-", given=bytes_of(500_000))
    require(done.json()["sha256"] == hashlib.sha256(bytes_of(500_000)).hexdigest(), "other bytes")


@each_version("a chunked answer")
def _(target, flag):
    require(curl(target, "/chunked/300000", flag).content == bytes_of(300_000), "other bytes")


@each_version("an answer that ends with the connection")
def _(target, flag):
    require(curl(target, "/close/300000", flag).content == bytes_of(300_000), "other bytes")


@case("HTTP/1.1", "a chunked upload with a field for it")
def _(target):
    done = curl(target, "/inspect", "--http1.1", "--header", "Transfer-Encoding: chunked", "--data-binary", "@-", given=bytes_of(100_000))
    require(done.json()["sha256"] == hashlib.sha256(bytes_of(100_000)).hexdigest(), "other bytes")


@case("HTTP/1.1", "--raw shows the chunks")
def _(target):
    done = curl(target, "/chunked/10", "--http1.1", "--raw")
    require(done.content.endswith(b"0\r\n\r\n") and done.field("transfer-encoding") == ["chunked"], f"{done.content[:60]!r}")


# --- Expect, early answers ---


@case("HTTP/1.1", "Expect: 100-continue is answered before the content")
def _(target):
    start = time.monotonic()
    done = curl(target, "/inspect", "--http1.1", "--header", "Expect: 100-continue", "--expect100-timeout", "5", "--data-binary", "@-", given=bytes_of(100_000))
    require(done.statuses == [100, 200] and time.monotonic() - start < 4, f"statuses {done.statuses}")
    require(done.json()["length"] == 100_000, "another length")


@case("HTTP/1.1", "a refusal of Expect arrives, and the content is not sent")
def _(target):
    done = curl(target, "/refuse", "--http1.1", "--header", "Expect: 100-continue", "--expect100-timeout", "5", "--data-binary", "@-", "--no-keepalive", given=bytes_of(100_000), fails=True)
    require(done.statuses[0] == 417, f"statuses {done.statuses}")


@case("HTTP/1.1", "413 before the upload is over arrives")
def _(target):
    # Over HTTP/2 curl 7.88 takes the RST_STREAM with NO_ERROR behind such an answer for a failure; suite `http2` asks there.
    done = curl(target, "/early", "--http1.1", "--data-binary", "@-", "--header", "Expect:", given=bytes_of(20_000_000), fails=True)
    require(413 in done.statuses and done.content == b"too large\n", f"exit code {done.code}, statuses {done.statuses}: {done.complaint}")


# --- parts ---

for wanted, status, content in [
    ("0-99", 206, bytes_of(100)),
    ("100-199", 206, bytes_of(200)[100:]),
    ("-50", 206, bytes_of(5000)[-50:]),
    ("4990-", 206, bytes_of(5000)[4990:]),
]:

    @each_version(f"--range {wanted}")
    def _(target, flag, wanted=wanted, status=status, content=content):
        done = curl(target, "/bytes/5000", flag, "--range", wanted)
        require(done.status == status and done.content == content, f"{done.status}, {len(done.content)} bytes")


@each_version("a range that is not there is 416")
def _(target, flag):
    require(curl(target, "/bytes/5000", flag, "--range", "9000-").status == 416, "another status")


@each_version("--continue-at goes on where a file ends")
def _(target, flag):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "part")
        file.write_bytes(bytes_of(2000))
        port = target.h2_port if "2" in flag else target.port
        argv = ["curl", "--disable", "--silent", "--noproxy", "*", flag, "--continue-at", "-", "--output", str(file), f"http://{target.host}:{port}/bytes/5000"]
        subprocess.run(argv, capture_output=True, check=True)
        require(file.read_bytes() == bytes_of(5000), "not the whole file")


# --- fields ---


@each_version("gzip passes untouched, and --compressed reads it")
def _(target, flag):
    require(curl(target, "/gzip", flag, "--header", "Accept-Encoding: gzip").content == GZIPPED, "other bytes")
    done = curl(target, "/gzip", flag, "--compressed")
    require(done.content == gzip.decompress(GZIPPED) and done.field("content-encoding") == ["gzip"], "other content")


@each_version("trailers of an answer")
def _(target, flag):
    done = curl(target, "/trailers", flag)
    require(done.content == b"with trailers\n" and done.field("x-checksum") == ["abc"], f"{done.head}")


@each_version("cookies are kept apart and sent together")
def _(target, flag):
    done = curl(target, "/cookie", flag)
    require(done.field("set-cookie") == ["a=1; Path=/", "b=2; Path=/"], f"{done.field('set-cookie')}")
    require(sent(curl(target, "/inspect", flag, "--cookie", "a=1; b=2"), "cookie") == ["a=1; b=2"], "another Cookie")


@case("HTTP/1.1", "the cookie engine over a redirect")
def _(target, flag="--http1.1"):
    done = curl(target, "/redirect/2", flag, "--location", "--cookie", "c=3", "--cookie-jar", "/dev/null")
    require(sent(done, "cookie") == ["c=3"] and done.said["num_redirects"] == 2, f"{done.statuses}")


@case("HTTP/1.1", "--location follows, and --post302 keeps the method")
def _(target, flag="--http1.1"):
    done = curl(target, "/redirect/3", flag, "--location", "--post302", "--data", "kept")
    require(done.json()["method"] == "POST" and done.json()["length"] == 4, "another method or length")


@each_version("--user sends credentials, --user-agent, --referer and --header their fields")
def _(target, flag):
    done = curl(target, "/inspect", flag, "--user", "me:secret", "--user-agent", "agent/1", "--referer", "http://a.test/", "--header", "X-Empty;", "--header", "X-Own: one, two")
    wanted = {"authorization": ["Basic bWU6c2VjcmV0"], "user-agent": ["agent/1"], "referer": ["http://a.test/"], "x-empty": [""], "x-own": ["one, two"]}
    require({name: sent(done, name) for name in wanted} == wanted, f"{done.json()['fields']}")


@each_version("30 KiB of fields in a request")
def _(target, flag):
    # In two fields: peers bound each one, too.
    done = curl(target, "/inspect", flag, *[word for n in range(8) for word in ("--header", f"X-Big-{n}: {'v' * 3800}")])
    require(len(sent(done, "x-big-7")[0]) == 3800, "a field is missing")


@each_version("30 KiB of fields in an answer")
def _(target, flag):
    done = curl(target, "/large-head/30", flag)
    require(done.status == 200 and len(done.field("x-large-29")) == 1, f"{done.status}")


@each_version("the Host that was asked for")
def _(target, flag):
    require(sent(curl(target, "/inspect", flag, "--header", "Host: other.test"), "host") == ["other.test"], "another Host")


@each_version("--etag-save and --etag-compare get 304")
def _(target, flag):
    with tempfile.NamedTemporaryFile() as file:
        curl(target, "/bytes/100", flag, "--etag-save", file.name)
        require(curl(target, "/bytes/100", flag, "--etag-compare", file.name).status == 304, "not 304")


# --- targets ---

for name, path in [
    ("dots", "/inspect/../inspect/./x"),
    ("percent-encoded slashes and bytes", "/inspect/%2F%2e%2E/%00%ff"),
    ("two slashes", "/inspect//x//"),
    ("a query with all that may stand in it", "/inspect?a=1&a=2&b[]=%20+&c=/?:@!$'()*,;=~"),
    ("an empty query", "/inspect?"),
    ("a semicolon", "/inspect/x;v=1/y"),
    ("4 KiB of path", "/inspect/" + "p" * 4096),
]:

    @each_version(f"--path-as-is, {name}")
    def _(target, flag, path=path):
        done = curl(target, path, flag, "--path-as-is", "--globoff")
        require(done.json()["target"] == path, f"the backend got {done.json()['target'][:200]}")


@each_version("--request-target *")
def _(target, flag):
    done = curl(target, "/", flag, "--request", "OPTIONS", "--request-target", "*")
    require(done.content == b"answer to *\n", f"{done.content[:80]!r}")


# --- statuses ---

for status in (200, 201, 202, 203, 204, 205, 206, 226, 300, 304, 400, 401, 404, 405, 410, 418, 429, 451, 500, 501, 502, 503, 504, 599):

    @each_version(f"the status {status}")
    def _(target, flag, status=status):
        require(curl(target, f"/status/{status}", flag).status == status, "another status")


@case("HTTP/1.1", "103 before the answer")
def _(target):
    done = curl(target, "/interim", "--http1.1")
    require(done.statuses == [103, 200] and done.content == b"after hints\n", f"statuses {done.statuses}")


# --- connections ---


@case("HTTP/1.1", "one connection serves ten requests")
def _(target, flag="--http1.1"):
    with tempfile.TemporaryDirectory() as folder:
        port = target.h2_port if "2" in flag else target.port
        urls = [word for n in range(10) for word in ("--output", f"{folder}/{n}", f"http://{target.host}:{port}/n/{n}")]
        argv = ["curl", "--disable", "--silent", "--show-error", "--noproxy", "*", flag, "--max-time", str(PATIENCE), "--write-out", "%{num_connects}\n", *urls]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        require(sum(map(int, done.stdout.split())) == 1, f"connections {done.stdout.split()}")


@case("HTTP/1.1", "--parallel, 60 transfers")
def _(target, flag="--http1.1"):
    with tempfile.TemporaryDirectory() as folder:
        port = target.h2_port if "2" in flag else target.port
        argv = ["curl", "--disable", "--silent", "--show-error", "--noproxy", "*", flag, "--fail", "--parallel", "--parallel-max", "20", "--max-time", str(PATIENCE), "--output", f"{folder}/#1", f"http://{target.host}:{port}/bytes/[1000-1059]"]
        subprocess.run(argv, capture_output=True, check=True)
        for number in range(1000, 1060):
            require(pathlib.Path(folder, str(number)).read_bytes() == bytes_of(number), f"transfer {number} differs")


@case("HTTP/1.1", "Connection: close closes")
def _(target):
    done = curl(target, "/", "--http1.1", "--header", "Connection: close")
    require(done.status == 200 and done.field("connection") == ["close"], f"{done.head}")


@case("HTTP/1.1", "an upgrade to h2c that is not taken is answered by HTTP/1.1")
def _(target):
    done = curl(target, "/inspect", "--http2")
    require(done.said["http_version"] == "1.1" and not sent(done, "http2-settings"), f"{done.head}")


@case("HTTP/1.0", "a GET, and the answer has a length or ends with the connection")
def _(target):
    require(curl(target, "/bytes/70000", "--http1.0").content == bytes_of(70_000), "other bytes")


@case("HTTP/1.0", "a chunked answer comes without chunks")
def _(target):
    done = curl(target, "/chunked/70000", "--http1.0", "--raw")
    require(done.content == bytes_of(70_000) and not done.field("transfer-encoding"), f"{done.head}")


@case("HTTP/1.0", "a POST")
def _(target):
    require(curl(target, "/echo", "--http1.0", "--data", "hello").content == b"hello", "other content")


@case("HTTP/1.0", "keep-alive when it is asked for")
def _(target):
    done = curl(target, "/bytes/10", "--http1.0", "--header", "Connection: keep-alive")
    require(done.content == bytes_of(10), f"{done.head}")


@each_version("--limit-rate, a slow reader gets all")
def _(target, flag):
    done = curl(target, "/bytes/3000000", flag, "--limit-rate", "6M")
    require(done.content == bytes_of(3_000_000), "other bytes")


@each_version("an answer after 500 ms")
def _(target, flag):
    done = curl(target, "/slow/500", flag)
    require(done.status == 200 and done.said["time_starttransfer"] >= 0.5, f"{done.said['time_starttransfer']}")


@each_version("--max-time ends the transfer at curl, and the next one is answered")
def _(target, flag):
    require(curl(target, "/slow/3000", flag, "--max-time", "0.3", fails=True).code == 28, "not curl's time-out")
    require(curl(target, "/", flag).status == 200, "not answered")
