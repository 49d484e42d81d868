"""An HTTP/1.1 backend that shows what reached it. One thread per connection, no leniency: what is not plain HTTP/1.1
ends the connection.

    /inspect            JSON of what arrived: method, target, version, fields, length and SHA-256 of the content, trailers
    /echo               the content
    /bytes/N            N bytes with a length, and with Range; /chunked/N the same in chunks; /close/N until the end
    /trailers           chunked, with trailer fields
    /gzip               compressed content with `Content-Encoding: gzip`
    /status/N           that status
    /cookie, /redirect/N, /slow/N (milliseconds)
    /early              413 before the content is read, and closes
    /unread             never reads the content and never answers
    /interim            103 before the answer
"""

import contextlib
import gzip
import hashlib
import json
import re
import socket
import threading
import time

PATTERN = bytes(range(256)) * 4096
GZIPPED = gzip.compress(b"compressed, and to be left as it is\n" * 100, mtime=0)
# Bytes of a head; ten times what any case sends.
LARGEST_HEAD = 1 << 20


class Ended(Exception):
    """The connection is over, or what came is not HTTP/1.1."""


class Reader:
    """Bytes of a socket, by line and by number."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.buffer = connection, b""

    def more(self) -> None:
        data = self.connection.recv(1 << 16)
        if not data:
            raise Ended("end of input")
        self.buffer += data

    def until(self, mark: bytes) -> bytes:
        """Up to and including the mark."""
        while mark not in self.buffer:
            if len(self.buffer) > LARGEST_HEAD:
                raise Ended("no end of a line or head")
            self.more()
        at = self.buffer.index(mark) + len(mark)
        taken, self.buffer = self.buffer[:at], self.buffer[at:]
        return taken

    def exactly(self, count: int) -> bytes:
        parts, have = [self.buffer], len(self.buffer)
        while have < count:
            data = self.connection.recv(min(1 << 18, count - have))
            if not data:
                raise Ended("end of input")
            parts.append(data)
            have += len(data)
        whole = b"".join(parts)
        self.buffer = whole[count:]
        return whole[:count]


class Request:
    """A head as it came: `fields` are pairs of name in lower case and value, in order."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head[:-4].split(b"\r\n")
        words = first.split(b" ")
        if len(words) != 3 or not all(b":" in line for line in lines):
            raise Ended(f"not a request: {head[:200]!r}")
        self.method, self.target, self.version = (word.decode("latin-1") for word in words)
        pairs = [line.split(b":", 1) for line in lines]
        self.fields = [(name.decode("latin-1").lower(), value.strip(b" \t").decode("latin-1")) for name, value in pairs]
        self.trailers: list[tuple[str, str]] = []

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def content(self, reader: Reader) -> bytes:
        """All of it; trailer fields too."""
        if self.all("transfer-encoding"):
            parts = []
            while size := int(reader.until(b"\r\n").split(b";")[0], 16):
                parts.append(reader.exactly(size))
                if reader.exactly(2) != b"\r\n":
                    raise Ended("no line end behind a chunk")
            while (line := reader.until(b"\r\n")) != b"\r\n":
                name, value = line.split(b":", 1)
                self.trailers.append((name.decode().lower(), value.strip().decode("latin-1")))
            return b"".join(parts)
        return reader.exactly(int(self.all("content-length")[0])) if self.all("content-length") else b""


class Backend:
    """Listens on a port of 127.0.0.1, or on a unix socket. `requests` are the targets of all whole requests, in order."""

    def __init__(self, path: str | None = None) -> None:
        if path:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(path)
        else:
            self.socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
            self.port = self.socket.getsockname()[1]
        self.socket.listen(1024)
        self.requests: list[str] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                if connection.family != socket.AF_UNIX:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self.socket.close()

    def serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, Ended, ValueError):
            reader = Reader(connection)
            while True:
                request = Request(reader.until(b"\r\n\r\n"))
                if not self.answer(connection, reader, request):
                    return

    def answer(self, connection: socket.socket, reader: Reader, request: Request) -> bool:
        """Whether the connection goes on."""
        path = re.sub(r"^http://[^/]*", "", request.target).split("?")[0]
        if path == "/early":
            connection.sendall(message(413, b"too large\n", ["Connection: close"]))
            linger(connection)
            return False
        if path == "/unread":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            # For as long as the other side holds on.
            while connection.recv(1, socket.MSG_PEEK):
                time.sleep(0.2)
            return False
        if request.all("expect"):
            if path == "/refuse":
                connection.sendall(message(417, b"", ["Connection: close"]))
                linger(connection)
                return False
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        content = request.content(reader)
        self.requests.append(request.target)
        answer = self.whole_answer(path, request, content)
        if request.method == "HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        connection.sendall(answer)
        return not path.startswith("/close/") and "close" not in ",".join(request.all("connection")).lower()

    def whole_answer(self, path: str, request: Request, content: bytes) -> bytes:
        word, _, rest = path[1:].partition("/")
        number = int(rest) if rest.isdigit() else 0
        if word == "inspect":
            return message(200, json.dumps({
                "method": request.method, "target": request.target, "version": request.version, "fields": request.fields,
                "length": len(content), "sha256": hashlib.sha256(content).hexdigest(), "trailers": request.trailers,
            }).encode(), ["Content-Type: application/json"])
        if word == "echo":
            return message(200, content)
        if word == "bytes":
            whole = bytes_of(number)
            ranges = re.fullmatch(r"bytes=(\d*)-(\d*)", (request.all("range") or [""])[0])
            fields = ["Accept-Ranges: bytes", 'ETag: "pattern"']
            if (request.all("if-none-match") or [""])[0] == '"pattern"':
                return b'HTTP/1.1 304 Not Modified\r\nETag: "pattern"\r\n\r\n'
            if ranges and (ranges[1] or ranges[2]):
                first = int(ranges[1]) if ranges[1] else number - int(ranges[2])
                last = min(int(ranges[2]), number - 1) if ranges[1] and ranges[2] else number - 1
                if first >= number:
                    return message(416, b"", [f"Content-Range: bytes */{number}"])
                return message(206, whole[first : last + 1], [*fields, f"Content-Range: bytes {first}-{last}/{number}"])
            return message(200, whole, fields)
        if word == "chunked":
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(bytes_of(number)) + b"\r\n"
        if word == "close":
            return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes_of(number)
        if word == "trailers":
            return (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n"
                + chunks(b"with trailers\n") + b"X-Checksum: abc\r\nX-Second: two\r\n\r\n"
            )
        if word == "gzip":
            return message(200, GZIPPED, ["Content-Encoding: gzip", "Content-Type: text/plain", "Vary: Accept-Encoding"])
        if word == "status":
            if number in (204, 304):
                return f"HTTP/1.1 {number} Word\r\n\r\n".encode()
            return message(number, b"status\n")
        if word == "cookie":
            return message(200, b"cookies\n", ["Set-Cookie: a=1; Path=/", "Set-Cookie: b=2; Path=/"])
        if word == "redirect":
            return message(302, b"", [f"Location: {'/redirect/' + str(number - 1) if number > 1 else '/inspect'}"])
        if word == "slow":
            time.sleep(number / 1000)
            return message(200, b"late\n")
        if word == "interim":
            return b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n" + message(200, b"after hints\n")
        if word == "large-head":
            return message(200, b"large head\n", [f"X-Large-{index}: {'v' * 1000}" for index in range(number)])
        return message(200, f"answer to {request.target}\n".encode())


def linger(connection: socket.socket) -> None:
    """Ends the sending side and reads on, as servers do: a close with unread bytes would reset the connection, and the answer
    with it (RFC 9112, 9.6)."""
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(5)
    while connection.recv(1 << 16):
        pass


def bytes_of(count: int) -> bytes:
    return (PATTERN * (count // len(PATTERN) + 1))[:count]


def message(status: int, content: bytes, fields: list[str] = ()) -> bytes:
    lines = [f"HTTP/1.1 {status} Word", f"Content-Length: {len(content)}", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + content


def chunks(content: bytes) -> bytes:
    """In pieces of 10,000 bytes, with the last chunk but without the empty line behind it."""
    pieces = [content[at : at + 10_000] for at in range(0, len(content), 10_000)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n"
