"""Requests that two readers could understand differently, and what of them reaches a raw backend: one unambiguous request
or none, never two, and the next request on the same backend connection is answered as if nothing had been.

Behind each hostile request, in the same bytes, stands one for `/smuggled`. The backend reads by the letter: what is not
one plain request in the form that every reader understands alike is a fault of whoever forwarded it.
"""

import contextlib
import re
import socket
import threading

from backend import Ended, Reader
from cases import Cases, Fault, require
from h2wire import DATA, END_HEADERS, END_STREAM, HEADERS, Closed, Connection, block, frame

TITLE = "request smuggling, by what a raw backend saw"
SOURCE = "RFC 9112, sections 2 to 7 and 11.2; RFC 9113, 10.3"
KIND = "http"
# What comes behind a request must be seen by itself.
WORKERS = 1
CASES = Cases()

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(TOKEN + rb" [\x21-\x7e\x80-\xff]+ HTTP/1\.[01]")
FIELD_LINE = re.compile(rb"(" + TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
CHUNK_LINE = re.compile(rb"[0-9A-Fa-f]{1,15}(;[\t\x20-\x7e\x80-\xff]*)?")
# Seconds for an end that need not come: some hostile requests rightly wait for the rest of their content.
QUIET = 0.7


class Ambiguous(Exception):
    """Not in the one form that all readers understand alike."""


class Recorder:
    """Answers what it can read, and notes what it cannot. One thread per connection."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.socket.getsockname()[1]
        self.requests: list[tuple[bytes, bytes]] = []
        self.faults: list[str] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self.socket.close()

    def serve(self, connection: socket.socket) -> None:
        reader = Reader(connection)
        with connection, contextlib.suppress(OSError, Ended):
            try:
                while self.one(connection, reader):
                    pass
            except Ambiguous as fault:
                self.faults.append(str(fault))

    def one(self, connection: socket.socket, reader: Reader) -> bool:
        while b"\r\n\r\n" not in reader.buffer:
            # Whoever ends lines otherwise than by CR LF would keep this reader waiting for ever.
            head = reader.buffer
            if re.search(rb"(?<!\r)\n|\r(?!\n)(?=.)|\0", head, re.DOTALL):
                raise Ambiguous(f"forwarded a line end or NUL that readers differ about: {head[:160]!r}")
            reader.more()
        head = reader.until(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        if not REQUEST_LINE.fullmatch(first):
            raise Ambiguous(f"forwarded the request line {first[:160]!r}")
        fields: dict[bytes, list[bytes]] = {}
        for line in lines:
            match = FIELD_LINE.fullmatch(line)
            if not match:
                raise Ambiguous(f"forwarded the field line {line[:160]!r}")
            fields.setdefault(match[1].lower(), []).append(match[2].strip(b" \t"))
        lengths, codings = fields.get(b"content-length", []), fields.get(b"transfer-encoding", [])
        for name, values, good in [(b"Content-Length", lengths, rb"[0-9]{1,18}"), (b"Transfer-Encoding", codings, rb"(?i:chunked)")]:
            if len(values) > 1 or values and not re.fullmatch(good, values[0]):
                raise Ambiguous(f"forwarded {name.decode()} {values!r}")
        if lengths and codings:
            raise Ambiguous("forwarded both Content-Length and Transfer-Encoding")
        if len(fields.get(b"host", [])) != 1 and first.endswith(b"1.1"):
            raise Ambiguous(f"forwarded Host {fields.get(b'host', [])!r}")
        target = first.split(b" ")[1]
        if b"/ignores-content" in target:
            # Takes the content for the next request, as broken backends do.
            self.requests.append((target, b""))
            connection.sendall(answer(target))
            return True
        if b"/answers-early" in target:
            connection.sendall(answer(target))
            self.requests.append((target, b""))
            with contextlib.suppress(Ended):
                self.content(reader, lengths, codings)
            return True
        if b"/switches" in target and fields.get(b"upgrade"):
            self.requests.append((target, b""))
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + fields[b"upgrade"][0] + b"\r\n\r\n")
            self.faults.append(f"forwarded Upgrade: {fields[b'upgrade'][0].decode()}")
            return False
        content = self.content(reader, lengths, codings)
        self.requests.append((target, content))
        status = b"426 Upgrade Required" if b"/no-upgrade" in target else b"200 OK"
        connection.sendall(answer(target, status, head=first.startswith(b"HEAD ")))
        return b"close" not in b",".join(fields.get(b"connection", [])).lower()

    def content(self, reader: Reader, lengths, codings) -> bytes:
        if not codings:
            return reader.exactly(int(lengths[0])) if lengths else b""
        parts = []
        while True:
            line = reader.until(b"\n")
            if not line.endswith(b"\r\n") or not CHUNK_LINE.fullmatch(line[:-2]):
                raise Ambiguous(f"forwarded the chunk line {line[:160]!r}")
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            parts.append(reader.exactly(size))
            if reader.exactly(2) != b"\r\n":
                raise Ambiguous("forwarded a chunk without its line end")
        while (line := reader.until(b"\n")) != b"\r\n":
            match = FIELD_LINE.fullmatch(line[:-2]) if line.endswith(b"\r\n") else None
            if not match or match[1].lower() in (b"content-length", b"transfer-encoding", b"host"):
                raise Ambiguous(f"forwarded the trailer field {line[:160]!r}")
        return b"".join(parts)


def answer(target: bytes, status: bytes = b"200 OK", head: bool = False) -> bytes:
    content = b"answer to " + target.rsplit(b"/", 1)[-1] + b"\n"
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(content), b"" if head else content)


@contextlib.contextmanager
def backend():
    recorder = Recorder()
    yield recorder
    recorder.close()


NEXT = "GET /smuggled HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


def raw(value) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")


def check_after(target, smuggled: bool = False) -> None:
    """The next ones, on the same backend connection, are answered; and nothing was seen that must not be."""
    recorder = target.backend
    for number in range(2):
        with socket.create_connection((target.host, target.port), 5) as client:
            client.sendall(b"GET /after%d HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n" % number)
            got = everything(client, 5)
        require(got.endswith(b"answer to after%d\n" % number), f"the next request got {got[-120:]!r}")
    require(not recorder.faults, lambda: recorder.faults[0])
    targets = [seen for seen, _ in recorder.requests]
    require(smuggled or not any(b"smuggled" in seen for seen in targets), f"the backend saw {targets}")


def everything(client: socket.socket, seconds: float) -> bytes:
    """What comes until the connection ends, or nothing comes for so long."""
    client.settimeout(seconds)
    got = b""
    with contextlib.suppress(OSError):
        while data := client.recv(1 << 16):
            got += data
    return got


def begin(target) -> Recorder:
    target.backend.requests.clear()
    target.backend.faults.clear()
    return target.backend


def hostile(section, name, first, behind=NEXT, most=1):
    """A case: refused, or at most one unambiguous request at the backend; never the one behind it."""

    def run(target):
        recorder = begin(target)
        with socket.create_connection((target.host, target.port), 5) as client:
            client.sendall(raw(first) + raw(behind))
            got = everything(client, QUIET)
        statuses = re.findall(rb"HTTP/1\.[01] (\d{3})", got)
        check_after(target)
        seen = [where for where, _ in recorder.requests if b"/after" not in where]
        require(len(seen) <= most, f"the backend saw {seen}")
        require(len(statuses) <= 1, f"{len(statuses)} answers: {statuses}")

    CASES.add(section, name, run)


def unambiguous(section, name, first, content, behind=NEXT):
    """A case: refused, or forwarded as the one thing that it is. The request behind it is then a request."""

    def run(target):
        recorder = begin(target)
        with socket.create_connection((target.host, target.port), 5) as client:
            client.sendall(raw(first) + raw(behind))
            everything(client, QUIET)
        check_after(target, smuggled=True)
        seen = [(where, what) for where, what in recorder.requests if b"/after" not in where]
        if seen:
            require(seen[0][1] == raw(content), f"the backend got the content {seen[0][1][:120]!r}")
            require(len(seen) <= 2, f"the backend saw {seen}")

    CASES.add(section, name, run)


def post(fields, content="", path="/first", version="1.1"):
    return raw(f"POST {path} HTTP/{version}\r\nHost: test\r\n") + raw(fields) + b"\r\n" + raw(content)


def get(fields="", line="GET /first HTTP/1.1", host="Host: test\r\n"):
    return raw(line) + b"\r\n" + raw(host) + raw(fields) + b"\r\n"


CHUNKED = "Transfer-Encoding: chunked\r\n"
FIVE = "5\r\nhello\r\n0\r\n\r\n"

# --- both lengths ---

BOTH = "RFC 9112, 6.3"
hostile(BOTH, "CL.TE: the length covers the whole", post(f"Content-Length: {5 + len(NEXT)}\r\n{CHUNKED}", "0\r\n\r\n"))
hostile(BOTH, "CL.TE: the length covers the chunks", post(f"Content-Length: 15\r\n{CHUNKED}", FIVE))
hostile(BOTH, "CL.TE: the length covers a part", post(f"Content-Length: 6\r\n{CHUNKED}", "0\r\n\r\nG"))
hostile(BOTH, "TE.CL: the length covers the first chunk line", post(f"{CHUNKED}Content-Length: 4\r\n", f"{len(NEXT):x}\r\n{NEXT}\r\n0\r\n\r\n"), behind="")
hostile(BOTH, "TE.CL: a length of 0", post(f"{CHUNKED}Content-Length: 0\r\n", FIVE))
hostile(BOTH, "CL.TE in a GET", get(f"Content-Length: 5\r\n{CHUNKED}") + b"0\r\n\r\n")
hostile(BOTH, "TE beside a length that is no number", post(f"{CHUNKED}Content-Length: x\r\n", FIVE))
hostile(BOTH, "TE beside two lengths", post(f"{CHUNKED}Content-Length: 5\r\nContent-Length: 6\r\n", FIVE))
hostile("RFC 9112, 6.1", "TE in HTTP/1.0", post(CHUNKED, FIVE, version="1.0"))
hostile("RFC 9112, 6.1", "TE and CL in HTTP/1.0", post(f"{CHUNKED}Content-Length: 5\r\n", FIVE, version="1.0"))

# --- Transfer-Encoding, by itself and beside a length: each may be taken by one reader and overlooked by another ---

for name, fields in [
    ("identity", "Transfer-Encoding: identity\r\n"),
    ("identity, chunked", "Transfer-Encoding: identity, chunked\r\n"),
    ("chunked, identity", "Transfer-Encoding: chunked, identity\r\n"),
    ("chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n"),
    ("two lines of chunked", CHUNKED * 2),
    ("chunked, then a line of identity", CHUNKED + "Transfer-Encoding: identity\r\n"),
    ("a line of identity, then chunked", "Transfer-Encoding: identity\r\n" + CHUNKED),
    ("chunked, then an empty line of it", CHUNKED + "Transfer-Encoding:\r\n"),
    ("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n"),
    ("chunked, gzip", "Transfer-Encoding: chunked, gzip\r\n"),
    ("xchunked", "Transfer-Encoding: xchunked\r\n"),
    ("chunkedx", "Transfer-Encoding: chunkedx\r\n"),
    ("chunk", "Transfer-Encoding: chunk\r\n"),
    ("x-chunked", "Transfer-Encoding: x-chunked\r\n"),
    ("x chunked", "Transfer-Encoding: x chunked\r\n"),
    ("chun ked", "Transfer-Encoding: chun ked\r\n"),
    ("empty", "Transfer-Encoding:\r\n"),
    ("a comma", "Transfer-Encoding: ,\r\n"),
    ("a comma before chunked", "Transfer-Encoding: , chunked\r\n"),
    ("a comma behind chunked", "Transfer-Encoding: chunked,\r\n"),
    ("a semicolon behind chunked", "Transfer-Encoding: chunked;\r\n"),
    ("a parameter", "Transfer-Encoding: chunked;q=1\r\n"),
    ("double quotes", 'Transfer-Encoding: "chunked"\r\n'),
    ("single quotes", "Transfer-Encoding: 'chunked'\r\n"),
    ("a vertical tab before", "Transfer-Encoding: \x0bchunked\r\n"),
    ("a vertical tab behind", "Transfer-Encoding: chunked\x0b\r\n"),
    ("a form feed before", "Transfer-Encoding: \x0cchunked\r\n"),
    ("a no-break space before", "Transfer-Encoding: \xa0chunked\r\n"),
    ("NUL behind", "Transfer-Encoding: chunked\0\r\n"),
    ("a control byte behind", "Transfer-Encoding: chunked\x01\r\n"),
    ("a bare CR behind", "Transfer-Encoding: chunked\r\r\n"),
    ("a bare CR before", "Transfer-Encoding:\rchunked\r\n"),
    ("a byte above ASCII", "Transfer-Encoding: chunked\xff\r\n"),
    ("folded by a blank", "Transfer-Encoding:\r\n chunked\r\n"),
    ("folded by a tab", "Transfer-Encoding:\r\n\tchunked\r\n"),
    ("folded behind the value", "Transfer-Encoding: chunked\r\n , identity\r\n"),
    ("a blank before the colon", "Transfer-Encoding : chunked\r\n"),
    ("a tab before the colon", "Transfer-Encoding\t: chunked\r\n"),
    ("a vertical tab before the colon", "Transfer-Encoding\x0b: chunked\r\n"),
    ("a blank before the name", "X-A: b\r\n Transfer-Encoding: chunked\r\n"),
    ("a bare LF before the name", "X-A: b\nTransfer-Encoding: chunked\r\n"),
    ("a bare CR before the name", "X-A: b\rTransfer-Encoding: chunked\r\n"),
    ("NUL in the name", "Transfer-\0Encoding: chunked\r\n"),
    ("no colon", "Transfer-Encoding chunked\r\n"),
    ("two colons", "Transfer-Encoding:: chunked\r\n"),
    ("a blank in the name", "Transfer Encoding: chunked\r\n"),
]:
    hostile("RFC 9112, 6.1", f"TE.TE {name}, beside a length", post(f"{fields}Content-Length: 5\r\n", FIVE))

for name, fields in [
    ("in upper case", "TRANSFER-ENCODING: CHUNKED\r\n"),
    ("in mixed case", "tRANSFER-eNCODING: cHUNKED\r\n"),
    ("without a blank", "Transfer-Encoding:chunked\r\n"),
    ("with blanks and tabs around", "Transfer-Encoding: \t chunked \t \r\n"),
]:
    unambiguous("RFC 9112, 7", f"chunked {name}", post(fields, FIVE), "hello")

unambiguous("RFC 9110, 5.1", "Transfer_Encoding beside a length is some other field", post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "hello"), "hello")

# --- Content-Length ---

for name, value in [
    ("+5", "+5"), ("-5", "-5"), ("-0", "-0"), ("empty", ""), ("a blank", " "), ("0x5", "0x5"), ("5x", "5x"), ("x5", "x5"),
    ("5 5", "5 5"), ("5.0", "5.0"), ("5e0", "5e0"), ("5_0", "5_0"), ("quoted", '"5"'), ("2^64", "18446744073709551616"),
    ("2^64 + 5", "18446744073709551621"), ("2^63", "9223372036854775808"), ("50 nines", "9" * 50), ("with NUL", "5\0"),
    ("with a vertical tab", "\x0b5"), ("with a bare CR", "5\r"), ("above ASCII", "5\xa0"), ("5,", "5,"), (",5", ",5"),
    ("5, 6", "5, 6"), ("5,, 5", "5,, 5"), ("5; x", "5; x"), ("other digits", "\xb2"), ("true", "true"), ("-1", "-1"),
]:
    hostile("RFC 9112, 6.2", f"CL {name}", post(f"Content-Length: {value}\r\n", "hello"))

for name, fields in [
    ("two that differ", "Content-Length: 5\r\nContent-Length: 6\r\n"),
    ("two that differ, 0 first", "Content-Length: 0\r\nContent-Length: 5\r\n"),
    ("5 and +5", "Content-Length: 5\r\nContent-Length: +5\r\n"),
    ("5 and 05", "Content-Length: 5\r\nContent-Length: 050\r\n"),
    ("5 and empty", "Content-Length: 5\r\nContent-Length:\r\n"),
    ("a blank before the colon", "Content-Length : 5\r\n"),
    ("a blank before the colon, beside another", "Content-Length: 0\r\nContent-Length : 5\r\n"),
    ("folded behind the value", "Content-Length: 5\r\n 0\r\n"),
    ("a bare LF before the name", "Content-Length: 0\r\nX-A: b\nContent-Length: 5\r\n"),
    ("a bare CR before the name", "Content-Length: 0\r\nX-A: b\rContent-Length: 5\r\n"),
    ("hidden by Connection", "Content-Length: 5\r\nConnection: Content-Length\r\nContent-Length: 0\r\n"),
]:
    hostile("RFC 9112, 6.3", f"CL {name}", post(fields, "hello"))

unambiguous("RFC 9112, 6.3", "CL twice the same", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), "hello")
unambiguous("RFC 9112, 6.3", "CL 5, 5", post("Content-Length: 5, 5\r\n", "hello"), "hello")
unambiguous("RFC 9112, 6.3", "CL 05", post("Content-Length: 05\r\n", "hello"), "hello")
unambiguous("RFC 9112, 6.3", "CL 000000000000000000005", post("Content-Length: 000000000000000000005\r\n", "hello"), "hello")
unambiguous("RFC 9110, 7.6.1", "CL named by Connection", post("Content-Length: 5\r\nConnection: Content-Length\r\n", "hello"), "hello")
unambiguous("RFC 9110, 7.6.1", "TE named by Connection", post(f"{CHUNKED}Connection: Transfer-Encoding\r\n", FIVE), "hello")
unambiguous("RFC 9110, 7.6.1", "Host named by Connection", get("Connection: Host\r\n"), "")
unambiguous("RFC 9112, 6.3", "CL with a tab", post("Content-Length:\t5\t\r\n", "hello"), "hello")

# CL.0: a body that the backend does not read.
unambiguous("RFC 9112, 6.3", "a GET with a content that looks like a request", get(f"Content-Length: {len(NEXT)}\r\n") + raw(NEXT), NEXT)
unambiguous("RFC 9112, 6.3", "HEAD with a content that looks like a request", raw(f"HEAD /first HTTP/1.1\r\nHost: test\r\nContent-Length: {len(NEXT)}\r\n\r\n{NEXT}"), NEXT)


def ignored_content(name, fields, path):
    """A case: the backend does not read the content. Whatever it takes it for, the next request gets its own answer."""

    def run(target):
        begin(target)
        with socket.create_connection((target.host, target.port), 5) as client:
            client.sendall(post(f"Content-Length: {len(NEXT)}\r\n{fields}", NEXT, path=path))
            everything(client, QUIET)
        check_after(target, smuggled=True)

    CASES.add("RFC 9112, 9.3", name, run)


ignored_content("CL.0: the backend takes the content for a request", "", "/ignores-content")
ignored_content("CL.0 behind Expect: 100-continue", "Expect: 100-continue\r\n", "/ignores-content")
ignored_content("the backend answers before the content", "", "/answers-early")

# --- line ends, blanks, control bytes, names ---

LINES = "RFC 9112, 2.2 and 5"
for name, bytes_ in [
    ("a bare LF behind the request line", b"GET /first HTTP/1.1\nHost: test\r\n\r\n"),
    ("bare LFs everywhere", b"GET /first HTTP/1.1\nHost: test\n\n"),
    ("a bare LF behind a field", get("X-A: b\nX-B: c\r\n")),
    ("a bare LF as the empty line", b"GET /first HTTP/1.1\r\nHost: test\r\n\n"),
]:
    unambiguous(LINES, name, bytes_, "")
for name, bytes_ in [
    ("a bare CR as line end", b"GET /first HTTP/1.1\rHost: test\r\r"),
    ("a bare CR in a value", get("X-A: b\rX-B: c\r\n")),
    ("a bare CR in the request line", get(line="GET /first\rX HTTP/1.1")),
    ("CR CR LF", get("X-A: b\r\r\n")),
    ("NUL in a value", get("X-A: b\0c\r\n")),
    ("NUL in a name", get("X\0A: b\r\n")),
    ("NUL in the target", get(line="GET /fi\0rst HTTP/1.1")),
    ("a control byte in a value", get("X-A: b\x02c\r\n")),
    ("DEL in a value", get("X-A: b\x7fc\r\n")),
    ("a fold before the first field", b"GET /first HTTP/1.1\r\n X-A: b\r\nHost: test\r\n\r\n"),
    ("a blank before the colon", get("X-A : b\r\n")),
    ("a blank in a name", get("X A: b\r\n")),
    ("an empty name", get(": b\r\n")),
    ("a name with brackets", get("X[A]: b\r\n")),
    ("a name above ASCII", get("X-\xe4: b\r\n")),
    ("a line without a colon", get("X-A\r\n")),
    ("a request line within a field", get("X-A: b\r\nGET /smuggled HTTP/1.1\r\n")),
]:
    hostile(LINES, name, bytes_)

# --- chunks ---

CHUNKS = "RFC 9112, 7.1"
for name, content in [
    ("a size of 2^64", "10000000000000000\r\nhello\r\n0\r\n\r\n"),
    ("a size of 2^64 + 5", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("a size of 2^32 + 5", "100000005\r\nhello\r\n0\r\n\r\n"),
    ("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("a size with a sign", "+5\r\nhello\r\n0\r\n\r\n"),
    ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
    ("a size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
    ("a size with h", "5h\r\nhello\r\n0\r\n\r\n"),
    ("a blank before the size", " 5\r\nhello\r\n0\r\n\r\n"),
    ("an empty size", "\r\nhello\r\n0\r\n\r\n"),
    ("a size that is no number", "five\r\nhello\r\n0\r\n\r\n"),
    ("NUL behind the size", "5\0\r\nhello\r\n0\r\n\r\n"),
    ("a bare CR behind the size", "5\rhello\r\n0\r\n\r\n"),
    ("a bare LF behind the size", "5\nhello\r\n0\r\n\r\n"),
    ("an extension with a bare LF", "5;a\nhello\r\n0\r\n\r\n"),
    ("an extension with a bare CR", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("an extension with NUL", "5;a\0\r\nhello\r\n0\r\n\r\n"),
    ("an extension that hides a chunk by LF", f"5;\n{len(NEXT):x}\r\nhello\r\n0\r\n\r\n"),
    ("no line end behind a chunk", "5\r\nhello0\r\n\r\n"),
    ("another byte pair behind a chunk", "5\r\nhelloXX0\r\n\r\n"),
    ("a bare LF behind a chunk", "5\r\nhello\n0\r\n\r\n"),
    ("a bare CR behind a chunk", "5\r\nhello\rX0\r\n\r\n"),
    ("a chunk longer than its size", "5\r\nhello!!\r\n0\r\n\r\n"),
    ("a last chunk with a bare LF", "5\r\nhello\r\n0\n\r\n"),
    ("an end with a bare LF", "5\r\nhello\r\n0\r\n\n"),
    ("a trailer field with a blank before the colon", "5\r\nhello\r\n0\r\nX-A : b\r\n\r\n"),
    ("a trailer field with a bare LF", "5\r\nhello\r\n0\r\nX-A: b\nX-B: c\r\n\r\n"),
    ("a trailer field with NUL", "5\r\nhello\r\n0\r\nX-A: b\0\r\n\r\n"),
    ("a request line in the trailer section", "5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\nX: y\r\n\r\n"),
]:
    hostile(CHUNKS, name, post(CHUNKED, content))
for name, content in [
    ("a size in upper case and with zeros", "0000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("a last chunk of many zeros", "5\r\nhello\r\n0000000\r\n\r\n"),
    ("an extension", "5;a=b\r\nhello\r\n0\r\n\r\n"),
    ("an extension with a quoted string", '5;a="b;c"\r\nhello\r\n0\r\n\r\n'),
    ("a blank behind the size", "5 \r\nhello\r\n0\r\n\r\n"),
    ("a trailer field Content-Length", "5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n"),
    ("a trailer field Transfer-Encoding", "5\r\nhello\r\n0\r\nTransfer-Encoding: identity\r\n\r\n"),
    ("a trailer field Host", "5\r\nhello\r\n0\r\nHost: other\r\n\r\n"),
    ("a trailer field", "5\r\nhello\r\n0\r\nX-A: b\r\n\r\n"),
]:
    unambiguous(CHUNKS, name, post(CHUNKED, content), "hello")

# RFC 9112 lets a recipient replace a fold by a blank (5.2) and split the request line at any white space (3).
unambiguous("RFC 9112, 5.2", "obs-fold", get("X-A: b\r\n c\r\n"), "")
unambiguous("RFC 9112, 5.2", "obs-fold in a trailer section", post(CHUNKED, "5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n"), "hello")
unambiguous("RFC 9112, 5.2", "obs-fold before a length", post("Content-Length:\r\n 5\r\n", "hello"), "hello")

# --- request line, target, Host ---

REQUEST = "RFC 9112, 3"
for name, line in [
    ("two blanks", "GET  /first HTTP/1.1"),
    ("a tab as blank", "GET\t/first\tHTTP/1.1"),
    ("a blank at the end", "GET /first HTTP/1.1 "),
]:
    unambiguous(REQUEST, name, get(line=line), "")
for name, line in [
    ("HTTP/0.9", "GET /first"),
    ("a blank in the target", "GET /first /smuggled HTTP/1.1"),
    ("two versions", "GET /first HTTP/1.1 HTTP/1.1"),
    ("a version in lower case", "GET /first http/1.1"),
    ("HTTP/1.10", "GET /first HTTP/1.10"),
    ("HTTP/2.0", "GET /first HTTP/2.0"),
    ("HTTP/11", "GET /first HTTP/11"),
    ("HTTP/-1.1", "GET /first HTTP/-1.1"),
    ("a blank before the method", " GET /first HTTP/1.1"),
    ("a method with a bracket", "GE(T /first HTTP/1.1"),
    ("a method with a colon", "GET: /first HTTP/1.1"),
    ("a target without a slash", "GET first HTTP/1.1"),
    ("CONNECT with a path", "CONNECT /first HTTP/1.1"),
]:
    hostile(REQUEST, name, get(line=line))

HOSTS = "RFC 9112, 3.2"
for name, bytes_ in [
    ("two Hosts", get("Host: other\r\n")),
    ("two Hosts, the same", get("Host: test\r\n")),
    ("no Host", get(host="")),
    ("a Host with a blank", get(host="Host: te st\r\n")),
    ("a Host with a comma", get(host="Host: test, other\r\n")),
    ("a Host with a slash", get(host="Host: test/other\r\n")),
    ("a Host with user information", get(host="Host: user@test\r\n")),
    ("a Host with a bare CR", get(host="Host: test\rX: y\r\n")),
    ("a Host that is folded", get(host="Host: test\r\n other\r\n")),
    ("a Host with a blank before the colon", get(host="Host : test\r\n")),
    ("a second Host with a blank before the colon", get("Host : other\r\n")),
    ("a Host with NUL", get(host="Host: test\0\r\n")),
]:
    hostile(HOSTS, name, bytes_)


def one_authority(name, bytes_, wanted):
    """A case: refused, or one Host at the backend, and it is the target's."""

    def run(target):
        recorder = begin(target)
        with socket.create_connection((target.host, target.port), 5) as client:
            client.sendall(bytes_)
            everything(client, QUIET)
        check_after(target)
        seen = [where for where, _ in recorder.requests if b"/after" not in where]
        require(len(seen) <= 1 and all(re.fullmatch(wanted, where) for where in seen), f"the backend saw {seen}")

    CASES.add("RFC 9112, 3.2.2", name, run)


one_authority("an absolute target and another Host", b"GET http://target.test/first HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n", rb"(http://target\.test)?/first")
one_authority("an absolute target with user information", b"GET http://a@target.test/first HTTP/1.1\r\nHost: target.test\r\nConnection: close\r\n\r\n", rb"(http://(a@)?target\.test)?/first")

# --- Expect, Upgrade, errors in between ---

unambiguous("RFC 9110, 10.1.1", "Expect: 100-continue with a content that looks like a request", post(f"Content-Length: {len(NEXT)}\r\nExpect: 100-continue\r\n", NEXT), NEXT)
unambiguous("RFC 9110, 10.1.1", "Expect: 100-continue without content", get("Expect: 100-continue\r\n"), "")
hostile("RFC 9110, 10.1.1", "an unknown expectation with both lengths", post(f"Expect: x 100-continue\r\nContent-Length: 5\r\n{CHUNKED}", FIVE))
unambiguous("RFC 9110, 10.1.1", "a folded Expect", post("Expect:\r\n 100-continue\r\nContent-Length: 5\r\n", "hello"), "hello")
H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
hostile("RFC 9113, 3.1", "h2c by Upgrade does not open a tunnel", get(H2C + "Connection: close\r\n", line="GET /switches/first HTTP/1.1"), behind="PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
hostile("RFC 9113, 3.1", "h2c by Upgrade alone does not open a tunnel", get("Connection: Upgrade, close\r\nUpgrade: h2c\r\n", line="GET /switches/first HTTP/1.1"), behind="PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
BAD_NEXT = "GET /smuggled HTTP/1.1\r\nHost : test\r\nX Bad: 1\r\n\r\n"
WEBSOCKET = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"


def refused_upgrade(name, fields):
    """A case: the backend refuses the upgrade, so what comes behind it is HTTP and is checked."""

    def run(target):
        recorder = begin(target)
        with socket.create_connection((target.host, target.port), 5) as client:
            client.sendall(get(fields, line="GET /no-upgrade HTTP/1.1") + raw(BAD_NEXT))
            everything(client, QUIET)
        check_after(target)
        require(len(recorder.requests) <= 3, f"the backend saw {recorder.requests}")

    CASES.add("RFC 9110, 7.8", name, run)


refused_upgrade("a refused upgrade to WebSocket opens no tunnel", WEBSOCKET)
refused_upgrade("an upgrade to an unknown protocol opens no tunnel", "Connection: Upgrade\r\nUpgrade: foo\r\n")
hostile("RFC 9110, 7.8", "an upgrade with both lengths", post(WEBSOCKET + f"Content-Length: 5\r\n{CHUNKED}", FIVE))
hostile("RFC 9112, 9.3", "a good request behind a bad one", get(line="GET /fi rst HTTP/1.1"), behind=NEXT * 3)
unambiguous("RFC 9112, 9.3", "pipelined requests are two requests", get(line="GET /good HTTP/1.1"), "")
unambiguous("RFC 9112, 2.2", "an empty line before a request", b"\r\n" + get(), "")
hostile("RFC 9112, 2.2", "blanks before a request", b"  \r\n" + get())

# --- from HTTP/2 to HTTP/1.1 ---


def downgrade(name, fields, content=b"", trailers=None):
    """A case: the same over HTTP/2. Refused, or one unambiguous request."""

    def run(target):
        recorder = begin(target)
        with Connection(target) as connection:
            head = fields if isinstance(fields, bytes) else block(fields)
            connection.send(frame(HEADERS, END_HEADERS | (0 if content or trailers else END_STREAM), 1, head))
            if content:
                connection.send(frame(DATA, 0 if trailers else END_STREAM, 1, raw(content)))
            if trailers:
                connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(trailers)))
            # Whether it is refused, answered or cut does not matter here; that it is over does.
            with contextlib.suppress(Fault, Closed):
                connection.answer(1)
        check_after(target)
        seen = [where for where, _ in recorder.requests if b"/after" not in where]
        require(len(seen) <= 1, f"the backend saw {seen}")

    CASES.add("RFC 9113, 10.3", name, run)


CRLF = b"\r\n\r\n" + NEXT.encode()
ASK = [(":method", "POST"), (":scheme", "http"), (":path", "/first"), (":authority", "test")]


def changed(name, value):
    return [(key, value if key == name else old) for key, old in ASK]


for name, fields in [
    ("CR LF in a value", [*ASK, ("x-a", b"b\r\nTransfer-Encoding: chunked")]),
    ("a request in a value", [*ASK, ("x-a", b"b" + CRLF)]),
    ("LF in a value", [*ASK, ("x-a", b"b\nTransfer-Encoding: chunked")]),
    ("CR in a value", [*ASK, ("x-a", b"b\rTransfer-Encoding: chunked")]),
    ("NUL in a value", [*ASK, ("x-a", b"b\0c")]),
    ("CR LF in a name", [*ASK, (b"x-a: b\r\ntransfer-encoding", "chunked")]),
    ("a colon in a name", [*ASK, (b"transfer-encoding:chunked\r\nx", "b")]),
    ("a blank in a name", [*ASK, (b"transfer-encoding ", "chunked")]),
    ("a name in upper case", [*ASK, (b"Transfer-Encoding", "chunked")]),
    ("an empty name", [*ASK, (b"", "b")]),
    ("transfer-encoding", [*ASK, ("transfer-encoding", "chunked")]),
    ("transfer-encoding beside content-length", [*ASK, ("content-length", "5"), ("transfer-encoding", "chunked")]),
    ("connection", [*ASK, ("connection", "close, content-length")]),
    ("upgrade to h2c", [*ASK, ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")]),
    ("CR LF in :path", changed(":path", b"/first HTTP/1.1\r\nHost: x" + CRLF)),
    ("a blank in :path", changed(":path", b"/first HTTP/1.1 /smuggled")),
    ("CR LF in :method", changed(":method", b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\nPOST")),
    ("a blank in :method", changed(":method", b"GET /smuggled")),
    ("CR LF in :authority", changed(":authority", b"test" + CRLF)),
    ("CR LF in :scheme", changed(":scheme", b"http" + CRLF)),
    ("a URL in :scheme", changed(":scheme", b"http://other/smuggled?")),
    (":path without a slash", changed(":path", b"first")),
    (":path with another origin", changed(":path", b"@other/first")),
    ("two content-lengths", [*ASK, ("content-length", "5"), ("content-length", "6")]),
    ("a content-length of +5", [*ASK, ("content-length", "+5")]),
    ("a content-length of 5, 6", [*ASK, ("content-length", "5, 6")]),
    ("two hosts", [*ASK, ("host", "a"), ("host", "b")]),
]:
    downgrade(name, fields, "hello")
downgrade("a content-length of 0 before a request as content", [*ASK, ("content-length", "0")], NEXT)
downgrade("a content-length below a content with a request", [*ASK, ("content-length", "5")], "hello" + NEXT)
downgrade("a content-length above the content", [*ASK, ("content-length", "500")], NEXT)
downgrade("trailers with content-length", ASK, "hello", [("content-length", "500")])
downgrade("trailers with transfer-encoding", ASK, "hello", [("transfer-encoding", "chunked")])
downgrade("trailers with CR LF", ASK, "hello", [("x-a", b"b" + CRLF)])
downgrade("trailers with a pseudo-header field", ASK, "hello", [(":path", "/smuggled")])
downgrade("CR LF in a cookie", [*ASK, ("cookie", b"a=b" + CRLF)], "hello")
