"""WebSocket through the proxy: the cases of the Autobahn suite by number, asked of an endpoint of the `websockets` package
behind it. A proxy is a tunnel for these bytes: nothing may be lost, joined, held back or ended otherwise than the endpoint did.
"""

import asyncio
import base64
import contextlib
import os
import socket
import struct
import threading
import time

import hyperframe.frame as frames
from cases import PATIENCE, Cases, require
from h2wire import (
    CANCEL, DATA, ENABLE_CONNECT_PROTOCOL, END_HEADERS, END_STREAM, HEADERS, Connection, block, frame, rst_stream, window_update,
)
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

TITLE = "WebSocket, the cases of Autobahn"
SOURCE = "RFC 6455, RFC 7692, RFC 8441; websockets"
KIND = "http"
CASES = Cases()
case = CASES.case

TEXT, BINARY, CLOSE, PING, PONG, CONTINUE = 1, 2, 8, 9, 10, 0
# The largest message of the suite.
LARGEST = 16 << 20


class Endpoint:
    """Echoes. `close CODE REASON` closes so; `drop` ends the TCP connection without a word; /push sends by itself."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self.run, args=(started,), daemon=True).start()
        started.wait()

    def run(self, started) -> None:
        asyncio.set_event_loop(self.loop)

        async def main():
            async with serve(
                self.talk, "127.0.0.1", 0, max_size=LARGEST + 1, ping_interval=None, close_timeout=1,
                select_subprotocol=lambda _, offered: next((name for name in ("chat.v2", "chat.v1") if name in offered), None),
            ) as server:
                self.port = server.sockets[0].getsockname()[1]
                self.ended = asyncio.Event()
                started.set()
                await self.ended.wait()

        self.loop.run_until_complete(main())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.ended.set)

    async def talk(self, websocket) -> None:
        if websocket.request.path == "/push":
            for number in range(5):
                await websocket.send(f"pushed {number}")
        if websocket.request.path == "/farewell":
            for number in range(100):
                await websocket.send(f"{number} of 100")
            await websocket.close(1001)
            return
        if websocket.request.path == "/ping":
            await (await websocket.ping(b"from the server"))
            await websocket.send("pong came")
        with contextlib.suppress(ConnectionClosed):
            async for message in websocket:
                if isinstance(message, str) and message.startswith("close "):
                    _, code, reason = message.split(" ", 2)
                    await websocket.close(int(code), reason)
                    return
                if message == "drop":
                    websocket.transport.abort()
                    return
                await websocket.send(message)


@contextlib.contextmanager
def backend():
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


def client(target, path="/", **options):
    options = {"compression": None, "max_size": LARGEST + 1, "open_timeout": PATIENCE, "close_timeout": PATIENCE, "proxy": None} | options
    return connect(f"ws://{target.host}:{target.port}{path}", **options)


class Raw:
    """Frames by hand."""

    def __init__(self, target, fields: str = "") -> None:
        self.socket = socket.create_connection((target.host, target.port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n{fields}\r\n".encode()
        )
        self.buffer = b""
        self.head = self.until(b"\r\n\r\n")
        require(self.head.startswith(b"HTTP/1.1 101 "), f"{self.head[:80]!r}")

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def more(self) -> bool:
        data = self.socket.recv(1 << 16)
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            require(self.more(), f"ended before {mark!r}")
        at = self.buffer.index(mark) + len(mark)
        taken, self.buffer = self.buffer[:at], self.buffer[at:]
        return taken

    def send(self, *parts: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(b"".join(parts))

    def read(self):
        """(fin, opcode, payload) of the next frame, or None at the end."""
        try:
            while (taken := take(self.buffer)) is None:
                if not self.more():
                    return None
        except ConnectionResetError:
            return None
        parsed, self.buffer = taken
        return parsed

    def fails(self, *codes: int) -> None:
        """A close frame with one of the codes, then the end."""
        while (received := self.read()) is not None:
            if received[1] == CLOSE:
                code = struct.unpack(">H", received[2][:2])[0]
                require(code in codes, f"closed with {code}, wanted {codes}")
                self.send(made(CLOSE, received[2]))
                require(self.read() is None, "the connection goes on after the close")
                return
        require(False, f"ended without a close frame, wanted {codes}")


def take(buffer: bytes):
    """The first frame of unmasked bytes and the rest; None while it is not whole."""
    if len(buffer) < 2:
        return None
    size, at = buffer[1] & 0x7F, 2
    if size > 125:
        width = 2 if size == 126 else 8
        if len(buffer) < 2 + width:
            return None
        size, at = int.from_bytes(buffer[2 : 2 + width], "big"), 2 + width
    if len(buffer) < at + size:
        return None
    return (bool(buffer[0] & 0x80), buffer[0] & 0x0F, buffer[at : at + size]), buffer[at + size :]


def made(opcode: int, payload: bytes = b"", fin: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """A frame of a client. The mask is zero: it hides nothing from whoever reads this test."""
    size = len(payload)
    width = 0 if size < 126 else 2 if size < 1 << 16 else 8
    short = {0: size, 2: 126, 8: 127}[width]
    head = bytes([fin << 7 | reserved << 4 | opcode, masked << 7 | short]) + (size.to_bytes(width, "big") if width else b"")
    return head + (bytes(4) if masked else b"") + payload


# --- 1 framing: sizes around each encoding of the length ---

SIZES = [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537, 131_072, 1_000_000, 4 << 20, LARGEST]
for size in SIZES:
    for kind, unit in (("text", "*"), ("binary", b"\xfe")):

        def echoed(target, size=size, unit=unit):
            with client(target) as websocket:
                websocket.send(unit * size)
                require(websocket.recv(PATIENCE) == unit * size, "other content")

        CASES.add("Autobahn 1, 9", f"{kind} of {size:,} bytes", echoed)


@case("Autobahn 1", "a message that comes byte by byte")
def _(target):
    with Raw(target) as raw:
        for byte in made(TEXT, b"slowly and in order"):
            raw.send(bytes([byte]))
        require(raw.read() == (True, TEXT, b"slowly and in order"), "another message")


@case("Autobahn 9", "1,000 messages one after another, and 1,000 at once")
def _(target):
    with client(target) as websocket:
        for number in range(1000):
            websocket.send(f"message {number}")
            require(websocket.recv(PATIENCE) == f"message {number}", "out of order")
    with Raw(target) as raw:
        raw.send(*[made(TEXT, b"%d" % number) for number in range(1000)])
        for number in range(1000):
            require(raw.read() == (True, TEXT, b"%d" % number), f"message {number} differs")


# --- 2 ping and pong ---

for size in (0, 1, 125):

    def ponged(target, size=size):
        with Raw(target) as raw:
            raw.send(made(PING, b"p" * size))
            require(raw.read() == (True, PONG, b"p" * size), "no pong, or another")

    CASES.add("Autobahn 2", f"a ping of {size} bytes", ponged)


@case("Autobahn 2", "ten pings get ten pongs in order")
def _(target):
    with Raw(target) as raw:
        raw.send(*[made(PING, b"%d" % number) for number in range(10)])
        for number in range(10):
            require(raw.read() == (True, PONG, b"%d" % number), f"pong {number}")


@case("Autobahn 2", "a pong that nobody asked for is ignored")
def _(target):
    with Raw(target) as raw:
        raw.send(made(PONG, b"unasked"), made(PING, b"asked"))
        require(raw.read() == (True, PONG, b"asked"), "not the pong that was asked for")


@case("Autobahn 2", "a ping of the server reaches the client, and its pong the server")
def _(target):
    with client(target, "/ping") as websocket:
        require(websocket.recv(PATIENCE) == "pong came", "no pong")


# --- what the endpoint must refuse, and how the refusal arrives ---

for section, name, sent, codes in [
    ("2", "a ping of 126 bytes", made(PING, b"p" * 126), [1002]),
    ("2", "a ping in fragments", made(PING, b"p", fin=False), [1002]),
    ("3", "reserved bit 1", made(TEXT, b"x", reserved=4), [1002]),
    ("3", "reserved bit 2", made(TEXT, b"x", reserved=2), [1002]),
    ("3", "reserved bit 3", made(TEXT, b"x", reserved=1), [1002]),
    ("3", "all reserved bits", made(BINARY, b"x", reserved=7), [1002]),
    ("3", "a reserved bit in a ping", made(PING, b"x", reserved=4), [1002]),
    ("4", "opcode 3", made(3, b"x"), [1002]),
    ("4", "opcode 7", made(7, b"x"), [1002]),
    ("4", "opcode 11", made(11, b"x"), [1002]),
    ("4", "opcode 15", made(15, b""), [1002]),
    ("5", "a continuation of nothing", made(CONTINUE, b"x"), [1002]),
    ("5", "a continuation of nothing behind a message", made(TEXT, b"x", fin=False) + made(CONTINUE, b"y") + made(CONTINUE, b"z"), [1002]),
    ("5", "a message within a message", made(TEXT, b"x", fin=False) + made(TEXT, b"y"), [1002]),
    ("6", "text that is no UTF-8", made(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"), [1007]),
    ("6", "text that ends within a character", made(TEXT, b"\xf0\x9f\x98"), [1007]),
    ("6", "an overlong form", made(TEXT, b"\xc0\xaf"), [1007]),
    ("6", "a code point above U+10FFFF", made(TEXT, b"\xf4\x90\x80\x80"), [1007]),
    ("6", "no UTF-8 over two fragments", made(TEXT, b"\xce\xba\xe1", fin=False) + made(CONTINUE, b"\xff"), [1007]),
    ("7", "a close of one byte", made(CLOSE, b"\x03"), [1002]),
    ("7", "a close reason that is no UTF-8", made(CLOSE, b"\x03\xe8\xff\xff"), [1002, 1007]),
    ("7", "a close of 126 bytes", made(CLOSE, b"\x03\xe8" + b"r" * 124), [1002]),
    ("7", "close code 0", made(CLOSE, b"\x00\x00"), [1002]),
    ("7", "close code 999", made(CLOSE, b"\x03\xe7"), [1002]),
    ("7", "close code 1004", made(CLOSE, struct.pack(">H", 1004)), [1002]),
    ("7", "close code 1005", made(CLOSE, struct.pack(">H", 1005)), [1002]),
    ("7", "close code 1006", made(CLOSE, struct.pack(">H", 1006)), [1002]),
    ("7", "close code 1015", made(CLOSE, struct.pack(">H", 1015)), [1002]),
    ("7", "close code 5000", made(CLOSE, struct.pack(">H", 5000)), [1002]),
    ("5.1", "a frame without a mask", made(TEXT, b"x", masked=False), [1002]),
]:

    def refused(target, sent=sent, codes=codes):
        with Raw(target) as raw:
            raw.send(sent)
            raw.fails(*codes)

    CASES.add(f"Autobahn {section}" if section != "5.1" else "RFC 6455, 5.1", name, refused)

# --- 5 fragmentation ---


def fragments(name, sent, *wanted):
    def run(target):
        with Raw(target) as raw:
            raw.send(sent)
            for one in wanted:
                received = raw.read()
                require(received == one, f"came {received}")

    CASES.add("Autobahn 5", name, run)


fragments("two fragments", made(TEXT, b"one ", fin=False) + made(CONTINUE, b"two"), (True, TEXT, b"one two"))
fragments("an empty fragment first", made(TEXT, b"", fin=False) + made(CONTINUE, b"two"), (True, TEXT, b"two"))
fragments("an empty fragment last", made(BINARY, b"one", fin=False) + made(CONTINUE, b""), (True, BINARY, b"one"))
fragments("three empty fragments", made(TEXT, b"", fin=False) + made(CONTINUE, b"", fin=False) + made(CONTINUE, b""), (True, TEXT, b""))
fragments("a ping between fragments", made(TEXT, b"one ", fin=False) + made(PING, b"between") + made(CONTINUE, b"two"), (True, PONG, b"between"), (True, TEXT, b"one two"))
fragments("a ping between each of six fragments", made(TEXT, b"0", fin=False) + b"".join(made(PING, b"%d" % n) + made(CONTINUE, b"%d" % n, fin=n == 5) for n in range(1, 6)), *[(True, PONG, b"%d" % n) for n in range(1, 6)], (True, TEXT, b"012345"))
fragments("a character over two fragments", made(TEXT, b"\xf0\x9f", fin=False) + made(CONTINUE, b"\x98\x80"), (True, TEXT, "😀".encode()))
fragments("fragments of one byte", made(BINARY, b"\x00", fin=False) + b"".join(made(CONTINUE, bytes([n]), fin=n == 255) for n in range(1, 256)), (True, BINARY, bytes(range(256))))


@case("Autobahn 9", "a message of 1 MiB in fragments of 1 KiB")
def _(target):
    with client(target) as websocket:
        websocket.send(["f" * 1024] * 1024)
        require(websocket.recv(PATIENCE) == "f" * (1 << 20), "other content")


# --- 7 close codes, both ways ---

for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]:

    def closed_by_client(target, code=code):
        with Raw(target) as raw:
            raw.send(made(CLOSE, struct.pack(">H", code) + b"a reason"))
            received = raw.read()
            require(received == (True, CLOSE, struct.pack(">H", code) + b"a reason"), f"came {received}")
            require(raw.read() is None, "the connection goes on after the close")

    CASES.add("Autobahn 7", f"the client closes with {code}", closed_by_client)

    def closed_by_server(target, code=code):
        with client(target) as websocket:
            websocket.send(f"close {code} because of it")
            try:
                websocket.recv(PATIENCE)
            except ConnectionClosed as closed:
                require(closed.rcvd and (closed.rcvd.code, closed.rcvd.reason) == (code, "because of it"), f"came {closed.rcvd}")
                return
            require(False, "not closed")

    CASES.add("Autobahn 7", f"the server closes with {code}", closed_by_server)


@case("Autobahn 7", "a close without a code")
def _(target):
    with Raw(target) as raw:
        raw.send(made(CLOSE))
        require(raw.read() == (True, CLOSE, b""), "another close")


@case("Autobahn 7", "a close with the longest reason")
def _(target):
    with Raw(target) as raw:
        raw.send(made(CLOSE, struct.pack(">H", 1000) + b"r" * 123))
        require(raw.read() == (True, CLOSE, struct.pack(">H", 1000) + b"r" * 123), "another close")


@case("Autobahn 7", "what comes behind a close is not answered")
def _(target):
    with Raw(target) as raw:
        raw.send(made(CLOSE, struct.pack(">H", 1000)), made(PING, b"too late"))
        require(raw.read()[1] == CLOSE and raw.read() is None, "something came behind the close")


@case("Autobahn 7", "messages that the server sends right before its close arrive")
def _(target):
    with client(target, "/farewell") as websocket:
        for number in range(100):
            require(websocket.recv(PATIENCE) == f"{number} of 100", f"message {number} did not arrive")
        try:
            websocket.recv(PATIENCE)
        except ConnectionClosed as closed:
            require(closed.rcvd and closed.rcvd.code == 1001, f"came {closed.rcvd}")
            return
        require(False, "not closed")


# --- ends without a close ---


@case("RFC 6455, 7.1.7", "a server that drops the connection ends that of the client")
def _(target):
    with Raw(target) as raw:
        raw.send(made(TEXT, b"drop"))
        require(raw.read() is None, "something came")


@case("RFC 6455, 7.1.1", "a client that stops sending still gets what was on the way")
def _(target):
    with Raw(target) as raw:
        raw.send(*[made(BINARY, bytes([number]) * 50_000) for number in range(20)])
        raw.socket.shutdown(socket.SHUT_WR)
        for number in range(20):
            received = raw.read()
            require(received == (True, BINARY, bytes([number]) * 50_000), f"message {number} did not arrive")


@case("RFC 6455, 7.1.1", "a client that drops the connection harms nobody else")
def _(target):
    for _ in range(10):
        with Raw(target) as raw:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.send(made(TEXT, b"gone", fin=False))
    with client(target) as websocket:
        websocket.send("still here")
        require(websocket.recv(PATIENCE) == "still here", "not answered")


# --- handshake ---


@case("RFC 6455, 4.2.2", "the server speaks first")
def _(target):
    with client(target, "/push") as websocket:
        require([websocket.recv(PATIENCE) for _ in range(5)] == [f"pushed {n}" for n in range(5)], "other messages")


@case("RFC 6455, 4.1", "frames may follow the handshake before the answer came")
def _(target):
    with socket.create_connection((target.host, target.port), PATIENCE) as connection:
        head = "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        connection.sendall(head.encode() + made(TEXT, b"early"))
        got = b""
        while b"early" not in got:
            data = connection.recv(4096)
            require(data, f"ended: {got!r}")
            got += data


@case("RFC 6455, 4.2.1", "Upgrade and Connection in other cases and lists")
def _(target):
    with socket.create_connection((target.host, target.port), PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nconnection: keep-alive, UPGRADE\r\nupgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        require(connection.recv(4096).startswith(b"HTTP/1.1 101 "), "no 101")


@case("RFC 6455, 4.4", "a version that the server does not have is refused by the server")
def _(target):
    with socket.create_connection((target.host, target.port), PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 12\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        got = connection.recv(4096)
        require(b" 400 " in got[:20] or b" 426 " in got[:20], f"{got[:60]!r}")


@case("RFC 6455, 1.9", "a subprotocol is agreed on end to end")
def _(target):
    for offered, wanted in ((["chat.v1"], "chat.v1"), (["chat.v1", "chat.v2"], "chat.v2"), (None, None)):
        with client(target, subprotocols=offered) as websocket:
            require(websocket.subprotocol == wanted, f"{offered} gave {websocket.subprotocol}")


# --- 12 compression ---

for size in (16, 1024, 65_536, 1 << 20):

    def compressed(target, size=size):
        with client(target, compression="deflate") as websocket:
            extensions = [extension.name for extension in websocket.protocol.extensions]
            require(extensions == ["permessage-deflate"], f"extensions {extensions}")
            for message in ("text to compress " * (size // 16), os.urandom(size)):
                websocket.send(message)
                require(websocket.recv(PATIENCE) == message, "other content")

    CASES.add("Autobahn 12", f"permessage-deflate, messages of {size:,} bytes", compressed)


@case("Autobahn 12", "permessage-deflate without context takeover, by its parameters")
def _(target):
    with Raw(target, "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_max_window_bits=10\r\n") as raw:
        require(b"permessage-deflate" in raw.head and b"server_no_context_takeover" in raw.head, f"{raw.head!r}")


# --- many at once ---


@case("many", "100 connections at once, each with its own messages", alone=True)
def _(target):
    with contextlib.ExitStack() as stack:
        websockets = [stack.enter_context(client(target)) for _ in range(100)]
        for turn in range(3):
            for number, websocket in enumerate(websockets):
                websocket.send(f"{turn} of {number}")
            for number, websocket in enumerate(websockets):
                require(websocket.recv(PATIENCE) == f"{turn} of {number}", "messages are mixed up")


@case("many", "a slow reader gets all of 32 MiB", alone=True)
def _(target):
    with Raw(target) as raw:
        sent = 32
        sender = threading.Thread(target=lambda: [raw.socket.sendall(made(BINARY, bytes([n]) * (1 << 20))) for n in range(sent)], daemon=True)
        sender.start()
        time.sleep(0.3)
        for number in range(sent):
            require(raw.read() == (True, BINARY, bytes([number]) * (1 << 20)), f"message {number} differs")


# --- over HTTP/2 ---


class Stream:
    """A WebSocket over one stream (RFC 8441)."""

    def __init__(self, target) -> None:
        self.connection = Connection(target)
        require(self.connection.theirs.get(ENABLE_CONNECT_PROTOCOL) == 1, "SETTINGS_ENABLE_CONNECT_PROTOCOL is not announced")
        self.stream = 1
        self.buffer = b""
        fields = [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/"), (":authority", "test"),
            ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat.v1"),
        ]
        self.connection.send(frame(HEADERS, END_HEADERS, 1, block(fields)))
        head = self.connection.until(frames.HeadersFrame, 1)
        self.fields = dict(self.connection.decoder.decode(head.data))
        require(self.fields[":status"] == "200", f"{self.fields[':status']} instead of 200")

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.connection.socket.close()

    def send(self, sent: bytes, flags: int = 0) -> None:
        self.connection.send(*[frame(DATA, 0, 1, sent[at : at + 16_000]) for at in range(0, len(sent), 16_000)])
        if flags:
            self.connection.send(frame(DATA, flags, 1, b""))

    def read(self):
        while (taken := take(self.buffer)) is None:
            received = self.connection.until((frames.DataFrame, frames.RstStreamFrame), 1)
            if isinstance(received, frames.RstStreamFrame) or "END_STREAM" in received.flags and not received.data:
                return None
            self.buffer += received.data
            if received.flow_controlled_length:
                size = received.flow_controlled_length
                self.connection.send(window_update(0, size), window_update(1, size))
        parsed, self.buffer = taken
        return parsed


@case("RFC 8441, 4", "extended CONNECT opens a tunnel, and a message comes back")
def _(target):
    with Stream(target) as stream:
        stream.send(made(TEXT, b"over HTTP/2"))
        require(stream.read() == (True, TEXT, b"over HTTP/2"), "another message")


@case("RFC 8441, 4", "the answer has no fields of the HTTP/1.1 handshake, and the subprotocol")
def _(target):
    with Stream(target) as stream:
        forbidden = {"connection", "upgrade"} & set(stream.fields)
        require(not forbidden, f"fields {forbidden}")
        require(stream.fields.get("sec-websocket-protocol") == "chat.v1", f"{stream.fields}")


for size in (0, 125, 126, 65_535, 65_536, 1 << 20):

    def over_http2(target, size=size):
        with Stream(target) as stream:
            for at in range(0, size, 20_000) or [0]:
                piece = bytes([at % 251]) * min(20_000, size - at)
                stream.send(made(BINARY, piece))
                require(stream.read() == (True, BINARY, piece), "other content")

    CASES.add("RFC 8441, 5", f"{size:,} bytes over HTTP/2", over_http2)


@case("RFC 8441, 5", "close over HTTP/2 ends the stream, not the connection")
def _(target):
    with Stream(target) as stream:
        stream.send(made(CLOSE, struct.pack(">H", 1000)))
        require(stream.read() == (True, CLOSE, struct.pack(">H", 1000)), "no close")
        require(stream.read() is None, "the stream goes on")
        stream.connection.barrier()


@case("RFC 8441, 5", "END_STREAM of the client closes towards the server")
def _(target):
    with Stream(target) as stream:
        stream.send(made(TEXT, b"last"), END_STREAM)
        require(stream.read() == (True, TEXT, b"last"), "another message")
        while stream.read() is not None:
            pass


@case("RFC 8441, 5", "RST_STREAM with CANCEL leaves the connection to others")
def _(target):
    with Stream(target) as stream:
        stream.connection.send(rst_stream(1, CANCEL))
        stream.connection.barrier()


@case("RFC 8441, 4", "an unknown :protocol is refused, and the connection goes on")
def _(target):
    with Connection(target) as connection:
        require(connection.theirs.get(ENABLE_CONNECT_PROTOCOL) == 1, "SETTINGS_ENABLE_CONNECT_PROTOCOL is not announced")
        fields = [(":method", "CONNECT"), (":protocol", "gopher"), (":scheme", "http"), (":path", "/"), (":authority", "test")]
        connection.send(frame(HEADERS, END_HEADERS, 1, block(fields)))
        received = connection.until((frames.HeadersFrame, frames.RstStreamFrame), 1)
        if isinstance(received, frames.HeadersFrame):
            status = dict(connection.decoder.decode(received.data))[":status"]
            require(status[0] in "45", f"{status}")
        connection.barrier()
