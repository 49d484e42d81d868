"""HTTP/2 by raw frames: what RFC 9113 and RFC 7541 demand of a server, one case per demand, judged as h2spec judges."""

import contextlib
import hashlib
import json
import struct

import h2wire
import hpack
import hyperframe.frame as frames
from backend import Backend, bytes_of
from cases import Cases, require
from h2wire import (
    ACK, CANCEL, COMPRESSION_ERROR, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME,
    FRAME_SIZE_ERROR, GOAWAY, HEADER_TABLE_SIZE, HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE,
    NO_ERROR, PADDED, PING, PREFACE, PRIORITIZED, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM, RST_STREAM,
    SETTINGS, STREAM_CLOSED, WINDOW, WINDOW_UPDATE, Closed, Connection, block, frame, literal, ping, request, rst_stream,
    settings, window_update,
)

TITLE = "HTTP/2 frame by frame, as h2spec does"
SOURCE = "RFC 9113, RFC 7541; hyperframe, hpack"
KIND = "http"
WORKERS = 12
CASES = Cases()
case = CASES.case

POST = ("/inspect", "POST")


@contextlib.contextmanager
def backend():
    server = Backend()
    yield server
    server.close()


def fails_the_connection(section, name, codes, send, pairs=()):
    """A case: after the handshake, these bytes end the connection with one of these codes."""

    def run(target):
        with Connection(target, pairs=pairs) as connection:
            connection.send(send(connection) if callable(send) else send)
            connection.connection_error(*codes)

    CASES.add(section, name, run)


def fails_the_stream(section, name, codes, send, stream=1):
    def run(target):
        with Connection(target) as connection:
            connection.send(send(connection) if callable(send) else send)
            connection.stream_error(stream, *codes)

    CASES.add(section, name, run)


def is_ignored(section, name, send):
    """A case: these bytes change nothing; a request behind them is answered."""

    def run(target):
        with Connection(target) as connection:
            connection.send(send(connection) if callable(send) else send)
            connection.barrier()
            connection.get(1)

    CASES.add(section, name, run)


def is_malformed(section, name, fields, content=b""):
    """A case: the request is refused, the backend never sees it whole, and the connection is still good or ended."""

    def run(target):
        # The mark tells the cases of one backend apart.
        mark = "/malformed/" + hashlib.sha256(f"{section}{name}".encode()).hexdigest()[:12]
        sent = fields(mark)
        with Connection(target) as connection:
            ends = END_HEADERS | (0 if content else END_STREAM)
            connection.send(frame(HEADERS, ends, 1, sent if isinstance(sent, bytes) else block(sent)))
            if content:
                connection.send(frame(DATA, END_STREAM, 1, content))
            connection.refused(1)
        with Connection(target) as connection:
            connection.get(1)
        require(not any(mark in seen for seen in target.backend.requests), "the backend got the malformed request")

    CASES.add(section, name, run)


def opened(method="POST", path="/inspect") -> bytes:
    """A request on stream 1 whose content is to come."""
    return frame(HEADERS, END_HEADERS, 1, block(request(path, method)))


def inspected(answer) -> dict:
    require(answer.status == 200, f"{answer.status} instead of 200")
    return json.loads(answer.content)


# --- 3.4 the preface ---


@case("RFC 9113, 3.4", "the server's first frame is SETTINGS")
def _(target):
    with Connection(target, shake_hands=False) as connection:
        connection.send(PREFACE, settings())
        received = connection.read()
        require(isinstance(received, frames.SettingsFrame) and "ACK" not in received.flags, f"first came {received}")


@case("RFC 9113, 3.4", "the preface may come byte by byte")
def _(target):
    with Connection(target, shake_hands=False) as connection:
        for at in range(len(PREFACE)):
            connection.send(PREFACE[at : at + 1])
        connection.send(settings())
        connection.greet()
        connection.get(1)


@case("RFC 9113, 3.4", "requests may follow the preface before the server's SETTINGS came")
def _(target):
    with Connection(target, shake_hands=False) as connection:
        connection.send(PREFACE, settings(), connection.headers(1, request("/bytes/10")))
        require(connection.answer(1).content == bytes_of(10), "another content")


@case("RFC 9113, 3.4", "a preface that goes wrong ends the connection")
def _(target):
    with Connection(target, shake_hands=False) as connection:
        connection.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", settings())
        with contextlib.suppress(Closed):
            while connection.fill(1, h2wire.time.monotonic() + 5):
                connection.buffer = b""
            require(False, "the connection stays open")


@case("RFC 9113, 3.4", "a preface without SETTINGS is a connection error")
def _(target):
    with Connection(target, shake_hands=False) as connection:
        connection.send(PREFACE, ping())
        connection.connection_error(PROTOCOL_ERROR)


@case("RFC 9113, 3.4", "an empty SETTINGS frame completes the preface, and is acknowledged")
def _(target):
    with Connection(target) as connection:
        connection.get(1)


# --- 4.1, 4.2 frames ---

is_ignored("RFC 9113, 4.1", "an unknown frame on the connection", frame(0x16, 0, 0, b"\x00" * 8))


@case("RFC 9113, 5.5", "an unknown frame on an open stream")
def _(target):
    with Connection(target) as connection:
        connection.send(opened(), frame(0x16, 0xFF, 1, bytes(8)), frame(DATA, END_STREAM, 1, b"hello"))
        require(inspected(connection.answer(1))["length"] == 5, "another length")


is_ignored("RFC 9113, 4.1", "an unknown frame of the largest size", frame(0xEE, 0, 0, b"\x00" * FRAME))
is_ignored("RFC 9113, 4.1", "the reserved bit of the stream identifier in a PING", frame(PING, 0, 0x8000_0000, b"reserved"))
is_ignored("RFC 9113, 4.1", "undefined flags of SETTINGS", settings((INITIAL_WINDOW_SIZE, 70_000), flags=0xFE))


@case("RFC 9113, 4.1", "undefined flags of PING")
def _(target):
    with Connection(target) as connection:
        connection.send(ping(b"flagged!", flags=0x16))
        received = connection.until(frames.PingFrame)
        require(received.opaque_data == b"flagged!" and "ACK" in received.flags, f"came {received}")


@case("RFC 9113, 4.1", "the reserved bit of the stream identifier in HEADERS")
def _(target):
    with Connection(target) as connection:
        connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 0x8000_0001, block(request())))
        require(connection.answer(1).status == 200, "not answered")


@case("RFC 9113, 4.1", "undefined flags of HEADERS and DATA")
def _(target):
    with Connection(target) as connection:
        connection.send(frame(HEADERS, END_HEADERS | 0xD2, 1, block(request(*POST))))
        connection.send(frame(DATA, END_STREAM | 0xF6, 1, b"five!"))
        require(inspected(connection.answer(1))["length"] == 5, "another length")


@case("RFC 9113, 4.2", "a DATA frame of 2^14 bytes is accepted")
def _(target):
    with Connection(target) as connection:
        connection.send(opened(), frame(DATA, END_STREAM, 1, bytes_of(FRAME)))
        require(inspected(connection.answer(1))["sha256"] == hashlib.sha256(bytes_of(FRAME)).hexdigest(), "other bytes")


def above(connection) -> int:
    return connection.theirs.get(MAX_FRAME_SIZE, FRAME) + 1


fails_the_stream("RFC 9113, 4.2", "a DATA frame above the largest size", [FRAME_SIZE_ERROR], lambda c: opened() + frame(DATA, END_STREAM, 1, bytes(above(c))))
fails_the_connection("RFC 9113, 4.2", "a HEADERS frame above the largest size", [FRAME_SIZE_ERROR], lambda c: frame(HEADERS, END_STREAM | END_HEADERS, 1, block(request()) + bytes(above(c))))
fails_the_connection("RFC 9113, 4.2", "a SETTINGS frame above the largest size", [FRAME_SIZE_ERROR], lambda c: frame(SETTINGS, 0, 0, bytes(above(c) // 6 * 6 + 6)))
fails_the_connection("RFC 9113, 4.2", "an unknown frame above the largest size", [FRAME_SIZE_ERROR], lambda c: frame(0x16, 0, 0, bytes(above(c))))

# --- 4.3 field blocks ---

fails_the_connection("RFC 9113, 4.3", "a field block that cannot be decoded", [COMPRESSION_ERROR], frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
OPEN_BLOCK = frame(HEADERS, END_STREAM, 1, block(request())[:20])
fails_the_connection("RFC 9113, 4.3", "PRIORITY within a field block", [PROTOCOL_ERROR], OPEN_BLOCK + frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 5)))
fails_the_connection("RFC 9113, 4.3", "HEADERS of another stream within a field block", [PROTOCOL_ERROR], OPEN_BLOCK + frame(HEADERS, END_STREAM | END_HEADERS, 3, block(request())))
fails_the_connection("RFC 9113, 4.3", "HEADERS of the same stream within a field block", [PROTOCOL_ERROR], OPEN_BLOCK + frame(HEADERS, END_STREAM | END_HEADERS, 1, block(request())))
fails_the_connection("RFC 9113, 4.3", "DATA within a field block", [PROTOCOL_ERROR], OPEN_BLOCK + frame(DATA, END_STREAM, 1, b"x"))
fails_the_connection("RFC 9113, 4.3", "PING within a field block", [PROTOCOL_ERROR], OPEN_BLOCK + ping())
fails_the_connection("RFC 9113, 4.3", "SETTINGS within a field block", [PROTOCOL_ERROR], OPEN_BLOCK + settings())
fails_the_connection("RFC 9113, 4.3", "WINDOW_UPDATE within a field block", [PROTOCOL_ERROR], OPEN_BLOCK + window_update(0, 1))
fails_the_connection("RFC 9113, 4.3", "RST_STREAM within a field block", [PROTOCOL_ERROR], OPEN_BLOCK + rst_stream(1))
fails_the_connection("RFC 9113, 5.5", "an unknown frame within a field block", [PROTOCOL_ERROR], OPEN_BLOCK + frame(0x16, 0, 1, b"x"))

# --- 5.1 stream states ---

fails_the_connection("RFC 9113, 5.1", "idle: DATA", [PROTOCOL_ERROR], frame(DATA, END_STREAM, 1, b"x"))
fails_the_connection("RFC 9113, 5.1", "idle: RST_STREAM", [PROTOCOL_ERROR], rst_stream(1))
fails_the_connection("RFC 9113, 5.1", "idle: WINDOW_UPDATE", [PROTOCOL_ERROR], window_update(1, 100))
fails_the_connection("RFC 9113, 5.1", "idle: CONTINUATION", [PROTOCOL_ERROR], frame(CONTINUATION, END_HEADERS, 1, block(request())))
ASKED = frame(HEADERS, END_STREAM | END_HEADERS, 1, block(request("/slow/600")))
fails_the_stream("RFC 9113, 5.1", "half closed: DATA", [STREAM_CLOSED], ASKED + frame(DATA, END_STREAM, 1, b"x"))
fails_the_stream("RFC 9113, 5.1", "half closed: HEADERS", [STREAM_CLOSED], ASKED + frame(HEADERS, END_STREAM | END_HEADERS, 1, block([("x", "y")])))
fails_the_connection("RFC 9113, 5.1", "half closed: CONTINUATION", [STREAM_CLOSED, PROTOCOL_ERROR], ASKED + frame(CONTINUATION, END_HEADERS, 1, block([("x", "y")])))
RESET = ASKED + rst_stream(1)
fails_the_stream("RFC 7540, 5.1", "closed by RST_STREAM: DATA", [STREAM_CLOSED], RESET + frame(DATA, END_STREAM, 1, b"x"))
fails_the_stream("RFC 7540, 5.1", "closed by RST_STREAM: HEADERS", [STREAM_CLOSED], RESET + frame(HEADERS, END_STREAM | END_HEADERS, 1, block([("x", "y")])))
fails_the_connection("RFC 7540, 5.1", "closed by RST_STREAM: CONTINUATION", [STREAM_CLOSED, PROTOCOL_ERROR], RESET + frame(CONTINUATION, END_HEADERS, 1, block([("x", "y")])))


def after_the_end(name, codes, send, of_stream=True):
    """A case: what comes on a stream that is over on both sides."""

    def run(target):
        with Connection(target) as connection:
            connection.get(1)
            connection.send(send)
            (connection.stream_error(1, *codes) if of_stream else connection.connection_error(*codes))

    CASES.add("RFC 9113, 5.1", name, run)


after_the_end("ended: DATA", [STREAM_CLOSED], frame(DATA, END_STREAM, 1, b"x"))
after_the_end("ended: HEADERS", [STREAM_CLOSED, PROTOCOL_ERROR], frame(HEADERS, END_STREAM | END_HEADERS, 1, block(request())))
after_the_end("ended: CONTINUATION", [STREAM_CLOSED, PROTOCOL_ERROR], frame(CONTINUATION, END_HEADERS, 1, block(request())), False)


def allowed_after_the_end(section, name, send):
    def run(target):
        with Connection(target) as connection:
            connection.get(1)
            connection.send(send)
            connection.barrier()
            connection.get(3)

    CASES.add(section, name, run)


allowed_after_the_end("RFC 9113, 5.1", "ended: WINDOW_UPDATE is ignored", window_update(1, 100))
allowed_after_the_end("RFC 9113, 5.1", "ended: RST_STREAM is ignored", rst_stream(1))
allowed_after_the_end("RFC 9113, 5.1", "ended: PRIORITY is accepted", frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 255)))


@case("RFC 9113, 5.1", "half closed: WINDOW_UPDATE, PRIORITY are accepted")
def _(target):
    with Connection(target) as connection:
        connection.send(ASKED, window_update(1, 100), frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 5)))
        require(connection.answer(1).status == 200, "not answered")


# --- 5.1.1, 5.1.2 stream identifiers and their number ---

fails_the_connection("RFC 9113, 5.1.1", "an even stream identifier", [PROTOCOL_ERROR], lambda c: c.headers(2, request()))
fails_the_connection("RFC 9113, 5.1.1", "a lower stream identifier than before", [PROTOCOL_ERROR, STREAM_CLOSED], lambda c: c.headers(5, request("/slow/300")) + c.headers(3, request()))
fails_the_connection("RFC 9113, 5.1.1", "HEADERS on stream 0", [PROTOCOL_ERROR], lambda c: c.headers(0, request()))


@case("RFC 9113, 5.1.1", "stream identifiers may be left out, up to the largest")
def _(target):
    with Connection(target) as connection:
        connection.get(1)
        connection.get(1001)
        connection.get(0x7FFF_FFFF)


@case("RFC 9113, 5.1.2", "streams beyond SETTINGS_MAX_CONCURRENT_STREAMS are refused", alone=True)
def _(target):
    with Connection(target) as connection:
        most = connection.theirs.get(MAX_CONCURRENT_STREAMS)
        require(most is not None and 0 < most <= 2000, f"the server announces {most} concurrent streams")
        head = block(request("/slow/400"))
        for number in range(most + 1):
            connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, head))
        connection.stream_error(2 * most + 1, PROTOCOL_ERROR, REFUSED_STREAM)


# --- 5.3, 6.3 priorities ---

is_ignored("RFC 9113, 5.3.2", "PRIORITY on an idle stream", frame(PRIORITY, 0, 7, struct.pack(">IB", 3, 200)))
is_ignored("RFC 9113, 5.3.2", "PRIORITY that is exclusive", frame(PRIORITY, 0, 5, struct.pack(">IB", 0x8000_0003, 0)))
fails_the_connection("RFC 9113, 6.3", "PRIORITY on stream 0", [PROTOCOL_ERROR], frame(PRIORITY, 0, 0, struct.pack(">IB", 1, 5)))
fails_the_stream("RFC 9113, 6.3", "PRIORITY of four bytes", [FRAME_SIZE_ERROR], ASKED + frame(PRIORITY, 0, 1, b"\0\0\0\0"))


@case("RFC 9113, 5.3.2", "HEADERS with a priority are answered like others")
def _(target):
    with Connection(target) as connection:
        head = struct.pack(">IB", 0x8000_0000, 99) + block(request())
        connection.send(frame(HEADERS, END_STREAM | END_HEADERS | PRIORITIZED, 1, head))
        require(connection.answer(1).status == 200, "not answered")


# --- 5.4 errors ---


@case("RFC 9113, 5.4.1", "the connection is closed after a connection error")
def _(target):
    with Connection(target) as connection:
        connection.send(frame(PING, 0, 1, b"\0" * 8))
        with contextlib.suppress(Closed):
            while connection.read(5) is not None:
                pass
            require(False, "still open 5 s after the error")


@case("RFC 9113, 5.4.2", "other streams go on after a stream error")
def _(target):
    with Connection(target) as connection:
        connection.send(connection.headers(1, request("/", "GET", ("connection", "close"))), connection.headers(3, request("/slow/300")))
        require(connection.answer(3).status == 200, "not answered")


# --- 6.1 DATA ---

fails_the_connection("RFC 9113, 6.1", "DATA on stream 0", [PROTOCOL_ERROR], frame(DATA, END_STREAM, 0, b"x"))
fails_the_connection("RFC 9113, 6.1", "padding as long as the payload", [PROTOCOL_ERROR], opened() + frame(DATA, END_STREAM | PADDED, 1, b"\x05x\0\0\0"))
fails_the_connection("RFC 9113, 6.1", "padded DATA without the length of the padding", [FRAME_SIZE_ERROR, PROTOCOL_ERROR], opened() + frame(DATA, END_STREAM | PADDED, 1, b""))


def content_arrives(section, name, sent, content):
    """A case: the backend gets exactly this content."""

    def run(target):
        with Connection(target) as connection:
            connection.send(opened(), sent)
            seen = inspected(connection.answer(1))
            require(seen["sha256"] == hashlib.sha256(content).hexdigest(), f"the backend got {seen['length']} other bytes")

    CASES.add(section, name, run)


content_arrives("RFC 9113, 6.1", "padding is taken away", frame(DATA, END_STREAM | PADDED, 1, b"\x04hello\0\0\0\0"), b"hello")
content_arrives("RFC 9113, 6.1", "padding of length 0", frame(DATA, END_STREAM | PADDED, 1, b"\0hello"), b"hello")
content_arrives("RFC 9113, 6.1", "only padding, then the end", frame(DATA, PADDED, 1, b"\x04\0\0\0\0") + frame(DATA, END_STREAM, 1), b"")
content_arrives("RFC 9113, 6.1", "padding of 255 bytes", frame(DATA, END_STREAM | PADDED, 1, b"\xffhello" + bytes(255)), b"hello")
content_arrives("RFC 9113, 6.1", "an empty DATA frame ends the content", frame(DATA, 0, 1, b"hello") + frame(DATA, END_STREAM, 1), b"hello")
content_arrives("RFC 9113, 6.1", "several DATA frames are one content", b"".join(frame(DATA, 0, 1, bytes([n])) for n in range(100)) + frame(DATA, END_STREAM, 1), bytes(range(100)))

# --- 6.2 HEADERS ---

fails_the_connection("RFC 9113, 6.2", "padding longer than the payload", [PROTOCOL_ERROR], frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, b"\xff" + block(request())))
fails_the_connection("RFC 9113, 6.2", "a priority that is cut short", [FRAME_SIZE_ERROR, PROTOCOL_ERROR, COMPRESSION_ERROR], frame(HEADERS, END_STREAM | END_HEADERS | PRIORITIZED, 1, b"\0\0"))


def head_is_good(section, name, build):
    """A case: this head is understood."""

    def run(target):
        with Connection(target) as connection:
            connection.send(build())
            seen = inspected(connection.answer(1))
            require(seen["target"] == "/inspect" and ["x-case", "good"] in seen["fields"], f"the backend got {seen}")

    CASES.add(section, name, run)


GOOD = block(request("/inspect", "GET", ("x-case", "good")))
head_is_good("RFC 9113, 6.2", "padding is taken away", lambda: frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, b"\x09" + GOOD + bytes(9)))
head_is_good("RFC 9113, 6.2", "padding and priority together", lambda: frame(HEADERS, END_STREAM | END_HEADERS | PADDED | PRIORITIZED, 1, b"\x09" + struct.pack(">IB", 0, 7) + GOOD + bytes(9)))
head_is_good("RFC 9113, 6.10", "one CONTINUATION", lambda: frame(HEADERS, END_STREAM, 1, GOOD[:9]) + frame(CONTINUATION, END_HEADERS, 1, GOOD[9:]))
head_is_good("RFC 9113, 6.10", "several CONTINUATIONs", lambda: frame(HEADERS, END_STREAM, 1, GOOD[:9]) + frame(CONTINUATION, 0, 1, GOOD[9:12]) + frame(CONTINUATION, 0, 1, GOOD[12:13]) + frame(CONTINUATION, END_HEADERS, 1, GOOD[13:]))
head_is_good("RFC 9113, 6.10", "an empty HEADERS frame before CONTINUATION", lambda: frame(HEADERS, END_STREAM, 1, b"") + frame(CONTINUATION, END_HEADERS, 1, GOOD))
head_is_good("RFC 9113, 6.10", "an empty CONTINUATION at the end", lambda: frame(HEADERS, END_STREAM, 1, GOOD) + frame(CONTINUATION, END_HEADERS, 1, b""))

# --- 6.4 RST_STREAM ---

fails_the_connection("RFC 9113, 6.4", "RST_STREAM on stream 0", [PROTOCOL_ERROR], rst_stream(0))
fails_the_connection("RFC 9113, 6.4", "RST_STREAM of three bytes", [FRAME_SIZE_ERROR], ASKED + frame(RST_STREAM, 0, 1, b"\0\0\0"))
fails_the_connection("RFC 9113, 6.4", "RST_STREAM of five bytes", [FRAME_SIZE_ERROR], ASKED + frame(RST_STREAM, 0, 1, b"\0\0\0\0\0"))


def reset_leaves_others(name, code):
    def run(target):
        with Connection(target) as connection:
            connection.send(ASKED, connection.headers(3, request("/slow/100")), rst_stream(1, code))
            require(connection.answer(3).status == 200, "not answered")
            connection.get(5)

    CASES.add("RFC 9113, 6.4", name, run)


reset_leaves_others("a reset stream leaves the others alone", CANCEL)
reset_leaves_others("an unknown error code is no error", 0xFACE)

# --- 6.5 SETTINGS ---

fails_the_connection("RFC 9113, 6.5", "SETTINGS acknowledgement with a payload", [FRAME_SIZE_ERROR], settings((INITIAL_WINDOW_SIZE, 1), flags=ACK))
fails_the_connection("RFC 9113, 6.5", "SETTINGS on a stream", [PROTOCOL_ERROR], settings((MAX_FRAME_SIZE, FRAME), stream=1))
fails_the_connection("RFC 9113, 6.5", "SETTINGS of a length that six does not divide", [FRAME_SIZE_ERROR], frame(SETTINGS, 0, 0, b"\0\x03\0"))
fails_the_connection("RFC 9113, 6.5.2", "SETTINGS_ENABLE_PUSH of 2", [PROTOCOL_ERROR], settings((ENABLE_PUSH, 2)))
fails_the_connection("RFC 9113, 6.5.2", "SETTINGS_INITIAL_WINDOW_SIZE above 2^31 - 1", [FLOW_CONTROL_ERROR], settings((INITIAL_WINDOW_SIZE, 0x8000_0000)))
fails_the_connection("RFC 9113, 6.5.2", "SETTINGS_INITIAL_WINDOW_SIZE of 2^32 - 1", [FLOW_CONTROL_ERROR], settings((INITIAL_WINDOW_SIZE, 0xFFFF_FFFF)))
fails_the_connection("RFC 9113, 6.5.2", "SETTINGS_MAX_FRAME_SIZE below 2^14", [PROTOCOL_ERROR], settings((MAX_FRAME_SIZE, FRAME - 1)))
fails_the_connection("RFC 9113, 6.5.2", "SETTINGS_MAX_FRAME_SIZE above 2^24 - 1", [PROTOCOL_ERROR], settings((MAX_FRAME_SIZE, 1 << 24)))
is_ignored("RFC 9113, 6.5.2", "an unknown setting", settings((0xFF, 1)))
is_ignored("RFC 9113, 6.5.2", "SETTINGS_MAX_CONCURRENT_STREAMS of 0", settings((MAX_CONCURRENT_STREAMS, 0)))
is_ignored("RFC 9113, 6.5.2", "SETTINGS_ENABLE_PUSH of 0", settings((ENABLE_PUSH, 0)))
is_ignored("RFC 9113, 6.5.2", "SETTINGS_HEADER_TABLE_SIZE of 0", settings((HEADER_TABLE_SIZE, 0)))
is_ignored("RFC 9113, 6.5.2", "SETTINGS_HEADER_TABLE_SIZE of 2^32 - 1", settings((HEADER_TABLE_SIZE, 0xFFFF_FFFF)))
is_ignored("RFC 9113, 6.5.2", "SETTINGS_MAX_FRAME_SIZE of 2^24 - 1", settings((MAX_FRAME_SIZE, (1 << 24) - 1)))


@case("RFC 9113, 6.5.3", "each SETTINGS frame is acknowledged")
def _(target):
    with Connection(target) as connection:
        connection.send(*[settings((INITIAL_WINDOW_SIZE, 70_000 + number)) for number in range(5)])
        acknowledged = [f for f in connection.barrier() if isinstance(f, frames.SettingsFrame) and "ACK" in f.flags]
        require(len(acknowledged) == 5, f"{len(acknowledged)} of 5")


@case("RFC 9113, 6.5.3", "of a setting that comes twice the last value counts")
def _(target):
    with Connection(target, pairs=((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1))) as connection:
        connection.send(connection.headers(1, request("/bytes/500")))
        require(len(connection.until(frames.DataFrame, 1).data) == 1, "not the window of 1")


@case("RFC 9113, 6.5.2", "the server does not enable push and keeps its values in range")
def _(target):
    with Connection(target) as connection:
        theirs = connection.theirs
        require(theirs.get(ENABLE_PUSH, 0) == 0, f"ENABLE_PUSH is {theirs.get(ENABLE_PUSH)}")
        require(theirs.get(INITIAL_WINDOW_SIZE, WINDOW) < 1 << 31, "its initial window is above 2^31 - 1")
        require(FRAME <= theirs.get(MAX_FRAME_SIZE, FRAME) < 1 << 24, "its frame size is out of range")


@case("RFC 9113, 6.5.2", "DATA keeps to our SETTINGS_MAX_FRAME_SIZE")
def _(target):
    with Connection(target, pairs=((MAX_FRAME_SIZE, FRAME),)) as connection:
        connection.send(window_update(0, 1 << 20), connection.headers(1, request("/bytes/60000")))
        got = 0
        while got < 60_000:
            size = len(connection.until(frames.DataFrame, 1).data)
            require(size <= FRAME, f"a frame of {size} bytes")
            got += size


# --- 6.6, 8.4 push ---

fails_the_connection("RFC 9113, 8.4", "PUSH_PROMISE of a client", [PROTOCOL_ERROR], ASKED + frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2) + block(request())))

# --- 6.7 PING ---

fails_the_connection("RFC 9113, 6.7", "PING on a stream", [PROTOCOL_ERROR], frame(PING, 0, 1, b"\0" * 8))
fails_the_connection("RFC 9113, 6.7", "PING of seven bytes", [FRAME_SIZE_ERROR], frame(PING, 0, 0, b"\0" * 7))
fails_the_connection("RFC 9113, 6.7", "PING of nine bytes", [FRAME_SIZE_ERROR], frame(PING, 0, 0, b"\0" * 9))


@case("RFC 9113, 6.7", "PING comes back with the same payload")
def _(target):
    with Connection(target) as connection:
        for payload in (b"\0" * 8, b"\xff" * 8, bytes(range(8))):
            connection.barrier(payload)


@case("RFC 9113, 6.7", "an acknowledged PING is not answered")
def _(target):
    with Connection(target) as connection:
        connection.send(ping(b"answered", flags=ACK))
        came = [f for f in connection.barrier() if isinstance(f, frames.PingFrame)]
        require(not came, f"came {came}")


# --- 6.8 GOAWAY ---

fails_the_connection("RFC 9113, 6.8", "GOAWAY on a stream", [PROTOCOL_ERROR], frame(GOAWAY, 0, 1, bytes(8)))
fails_the_connection("RFC 9113, 6.8", "GOAWAY of seven bytes", [FRAME_SIZE_ERROR, PROTOCOL_ERROR], frame(GOAWAY, 0, 0, bytes(7)))


@case("RFC 9113, 6.8", "streams that are open at a GOAWAY of the client are answered")
def _(target):
    with Connection(target) as connection:
        connection.send(connection.headers(1, request("/slow/200")), frame(GOAWAY, 0, 0, struct.pack(">II", 0, NO_ERROR) + b"bye"))
        require(connection.answer(1).status == 200, "not answered")


# --- 6.9 WINDOW_UPDATE, 5.2 flow control ---

fails_the_connection("RFC 9113, 6.9", "an increment of 0 for the connection", [PROTOCOL_ERROR], window_update(0, 0))
fails_the_stream("RFC 9113, 6.9", "an increment of 0 for a stream", [PROTOCOL_ERROR], opened() + window_update(1, 0))
fails_the_connection("RFC 9113, 6.9", "WINDOW_UPDATE of three bytes", [FRAME_SIZE_ERROR], frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"))
fails_the_connection("RFC 9113, 6.9", "WINDOW_UPDATE of five bytes", [FRAME_SIZE_ERROR], frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0\1"))
fails_the_connection("RFC 9113, 6.9.1", "a window of the connection above 2^31 - 1", [FLOW_CONTROL_ERROR], window_update(0, 0x7FFF_FFFF) * 2)
fails_the_stream("RFC 9113, 6.9.1", "a window of a stream above 2^31 - 1", [FLOW_CONTROL_ERROR], opened() + window_update(1, 0x7FFF_FFFF) * 2)
fails_the_connection("RFC 9113, 6.9.2", "SETTINGS_INITIAL_WINDOW_SIZE that lifts a stream's window above 2^31 - 1", [FLOW_CONTROL_ERROR], opened() + window_update(1, 0x7FFF_0000) + settings((INITIAL_WINDOW_SIZE, 0x7FFF_FFFF)))


@case("RFC 9113, 6.9.1", "a window of 1 gets one byte, and more after an update")
def _(target):
    with Connection(target, pairs=((INITIAL_WINDOW_SIZE, 1),)) as connection:
        connection.send(connection.headers(1, request("/bytes/500")))
        require(len(connection.until(frames.DataFrame, 1).data) == 1, "not one byte")
        require(not any(isinstance(f, frames.DataFrame) for f in connection.barrier()), "more than the window")
        connection.send(window_update(1, 5))
        require(len(connection.until(frames.DataFrame, 1).data) == 5, "not five bytes")


@case("RFC 9113, 6.9.1", "the window of the connection holds for all streams together")
def _(target):
    with Connection(target, pairs=((INITIAL_WINDOW_SIZE, 1 << 20),)) as connection:
        connection.send(*[connection.headers(stream, request("/bytes/50000")) for stream in (1, 3, 5)])
        got = 0
        while got < WINDOW:
            got += connection.until(frames.DataFrame).flow_controlled_length
        got += sum(f.flow_controlled_length for f in connection.barrier() if isinstance(f, frames.DataFrame))
        require(got == WINDOW, f"{got} bytes within a window of {WINDOW}")


@case("RFC 9113, 6.9.2", "a new initial window holds for streams that are open")
def _(target):
    with Connection(target, pairs=((INITIAL_WINDOW_SIZE, 0),)) as connection:
        connection.send(connection.headers(1, request("/bytes/500")))
        connection.until(frames.HeadersFrame, 1)
        require(not any(isinstance(f, frames.DataFrame) for f in connection.barrier()), "DATA within a window of 0")
        connection.send(settings((INITIAL_WINDOW_SIZE, 1)))
        require(len(connection.until(frames.DataFrame, 1).data) == 1, "not one byte")


@case("RFC 9113, 6.9.2", "a window may become negative and is waited out")
def _(target):
    with Connection(target, pairs=((INITIAL_WINDOW_SIZE, 3),)) as connection:
        connection.send(connection.headers(1, request("/bytes/500")))
        require(len(connection.until(frames.DataFrame, 1).data) == 3, "not three bytes")
        connection.send(settings((INITIAL_WINDOW_SIZE, 2)))
        connection.barrier()
        connection.send(window_update(1, 1))
        require(not any(isinstance(f, frames.DataFrame) for f in connection.barrier()), "DATA within a window of 0")
        connection.send(window_update(1, 2))
        require(len(connection.until(frames.DataFrame, 1).data) == 2, "not two bytes")


@case("RFC 9113, 6.9.1", "content beyond our window is an error", alone=True)
def _(target):
    # The backend reads nothing, so no window may be given back for ever.
    with Connection(target) as connection:
        connection.socket.settimeout(0.5)
        connection.send(opened(path="/unread"))
        with contextlib.suppress(OSError):
            for _ in range(2048):
                connection.socket.sendall(frame(DATA, 0, 1, bytes(FRAME)))
        connection.stream_error(1, FLOW_CONTROL_ERROR, NO_ERROR, CANCEL)


@case("RFC 9113, 5.2", "a large answer flows while the window is given back")
def _(target):
    with Connection(target) as connection:
        require(connection.get(1, "/bytes/3000000").content == bytes_of(3_000_000), "other bytes")


@case("RFC 9113, 5.2", "a large request flows while the window is given back")
def _(target):
    with Connection(target) as connection:
        whole = bytes_of(600_000)
        connection.send(opened())
        stream_window = connection.theirs.get(INITIAL_WINDOW_SIZE, WINDOW)
        windows, at = {0: WINDOW, 1: stream_window}, 0
        for received in connection.barrier():
            if isinstance(received, frames.WindowUpdateFrame):
                windows[received.stream_id] += received.window_increment
        while at < len(whole):
            size = min(FRAME, windows[0], windows[1], len(whole) - at)
            if size == 0:
                update = connection.until(frames.WindowUpdateFrame)
                windows[update.stream_id] += update.window_increment
                continue
            connection.send(frame(DATA, END_STREAM if at + size == len(whole) else 0, 1, whole[at : at + size]))
            windows = {stream: left - size for stream, left in windows.items()}
            at += size
        require(inspected(connection.answer(1))["sha256"] == hashlib.sha256(whole).hexdigest(), "other bytes")


@case("RFC 9113, 5.2", "padding counts for the window, and is given back")
def _(target):
    with Connection(target) as connection:
        connection.send(opened())
        windows = {0: WINDOW, 1: connection.theirs.get(INITIAL_WINDOW_SIZE, WINDOW)}
        for _ in range(1200):
            while min(windows.values()) < 257:
                update = connection.until(frames.WindowUpdateFrame)
                windows[update.stream_id] += update.window_increment
            connection.send(frame(DATA, PADDED, 1, b"\xffx" + bytes(255)))
            windows = {stream: left - 257 for stream, left in windows.items()}
        connection.send(frame(DATA, END_STREAM, 1))
        require(inspected(connection.answer(1))["length"] == 1200, "another length")


# --- 6.10 CONTINUATION ---

fails_the_connection("RFC 9113, 6.10", "CONTINUATION on stream 0", [PROTOCOL_ERROR], OPEN_BLOCK + frame(CONTINUATION, END_HEADERS, 0, b""))
fails_the_connection("RFC 9113, 6.10", "CONTINUATION of another stream", [PROTOCOL_ERROR], OPEN_BLOCK + frame(CONTINUATION, END_HEADERS, 3, b""))
fails_the_connection("RFC 9113, 6.10", "CONTINUATION behind HEADERS that are complete", [PROTOCOL_ERROR, STREAM_CLOSED], ASKED + frame(CONTINUATION, END_HEADERS, 1, b""))
fails_the_connection("RFC 9113, 6.10", "CONTINUATION behind CONTINUATION that is complete", [PROTOCOL_ERROR, STREAM_CLOSED], frame(HEADERS, END_STREAM, 1, block(request("/slow/300"))) + frame(CONTINUATION, END_HEADERS, 1, b"") * 2)
fails_the_connection("RFC 9113, 6.10", "CONTINUATION behind DATA", [PROTOCOL_ERROR], opened() + frame(DATA, 0, 1, b"x") + frame(CONTINUATION, END_HEADERS, 1, b""))

# --- 8.1 messages ---


@case("RFC 9113, 8.1", "trailer fields of a request are accepted")
def _(target):
    with Connection(target) as connection:
        connection.send(opened(), frame(DATA, 0, 1, b"hello"))
        connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, block([("x-checksum", "abc")])))
        require(inspected(connection.answer(1))["length"] == 5, "another length")


@case("RFC 9113, 8.1", "trailer fields of an answer arrive")
def _(target):
    with Connection(target) as connection:
        answer = connection.get(1, "/trailers")
        require(answer.content == b"with trailers\n", "another content")
        require(sorted(answer.trailers) == [("x-checksum", "abc"), ("x-second", "two")], f"trailers {answer.trailers}")


fails_the_stream("RFC 9113, 8.1", "a second HEADERS frame that does not end the stream", [PROTOCOL_ERROR], opened() + frame(HEADERS, END_HEADERS, 1, block([("x", "y")])))
fails_the_stream("RFC 9113, 8.1", "trailer fields with a pseudo-header field", [PROTOCOL_ERROR], opened() + frame(DATA, 0, 1, b"x") + frame(HEADERS, END_STREAM | END_HEADERS, 1, block([(":method", "GET")])))


@case("RFC 9113, 8.1", "an answer that comes before the end of the content arrives whole")
def _(target):
    with Connection(target) as connection:
        connection.send(opened(path="/early"), *[frame(DATA, 0, 1, bytes(16_000)) for _ in range(3)])
        answer = connection.answer(1)
        require((answer.status, answer.content) == (413, b"too large\n"), f"{answer.status}, {answer.content!r}")


@case("RFC 9113, 8.1", "HEAD, 204 and 304 have no content")
def _(target):
    with Connection(target) as connection:
        for stream, method, path in ((1, "HEAD", "/bytes/500"), (3, "GET", "/status/204"), (5, "GET", "/status/304")):
            connection.send(connection.headers(stream, request(path, method)))
            answer = connection.answer(stream)
            require(answer.content == b"", f"{method} {path} has content")


@case("RFC 9113, 8.1", "an answer by HTTP/1.1 chunks has no transfer coding here")
def _(target):
    with Connection(target) as connection:
        answer = connection.get(1, "/chunked/70000")
        require(answer.content == bytes_of(70_000), "other bytes")
        forbidden = {"transfer-encoding", "connection", "keep-alive"} & {name for name, _ in answer.fields}
        require(not forbidden, f"fields {forbidden}")


@case("RFC 9113, 8.1", "many streams at once each get their own answer")
def _(target):
    with Connection(target) as connection:
        streams = range(1, 100, 2)
        connection.send(*[connection.headers(stream, request(f"/stream/{stream}")) for stream in streams])
        wanted = {stream: f"answer to /stream/{stream}\n".encode() for stream in streams}
        got = {stream: b"" for stream in streams}
        ended = set()
        while len(ended) < len(wanted):
            received = connection.until((frames.DataFrame, frames.RstStreamFrame))
            require(isinstance(received, frames.DataFrame), f"{received}")
            got[received.stream_id] += received.data
            if "END_STREAM" in received.flags:
                ended.add(received.stream_id)
        require(got == wanted, "answers are mixed up")


@case("RFC 9113, 9.1", "a connection serves 200 requests one after another")
def _(target):
    with Connection(target) as connection:
        for number in range(200):
            connection.get(2 * number + 1)


# --- 8.1.1 content-length ---

for name, value, content in [
    ("content-length below the content", "3", b"hello"),
    ("content-length above the content", "9", b"hello"),
    ("content-length of 0 with content", "0", b"hello"),
    ("content-length without content", "5", b""),
    ("a negative content-length", "-5", b"hello"),
    ("a content-length with a sign", "+5", b"hello"),
    ("a content-length that is no number", "five", b"hello"),
    ("an empty content-length", "", b"hello"),
]:
    is_malformed("RFC 9113, 8.1.1", name, lambda mark, value=value: request(mark, "POST", ("content-length", value)), content)
is_malformed("RFC 9113, 8.1.1", "two content-lengths that differ", lambda mark: request(mark, "POST", ("content-length", "5"), ("content-length", "6")), b"hello")


@case("RFC 9113, 8.1.1", "a content-length that is passed by the second of two DATA frames")
def _(target):
    with Connection(target) as connection:
        connection.send(connection.headers(1, request("/malformed/second", "POST", ("content-length", "5")), END_HEADERS))
        connection.send(frame(DATA, 0, 1, b"hel"), frame(DATA, END_STREAM, 1, b"lo and more"))
        connection.refused(1)
    require("/malformed/second" not in target.backend.requests, "the backend got the malformed request")


@case("RFC 9113, 8.1.1", "a content-length that fits is accepted")
def _(target):
    with Connection(target) as connection:
        connection.send(connection.headers(1, request(*POST, ("content-length", "5")), END_HEADERS), frame(DATA, END_STREAM, 1, b"hello"))
        require(inspected(connection.answer(1))["length"] == 5, "another length")


# --- 8.2 fields ---

for name, field in [
    ("a name in upper case", (b"X-Upper", b"1")),
    ("a name with a blank", (b"x bad", b"1")),
    ("a name with a colon inside", (b"x:bad", b"1")),
    ("a name with a control byte", (b"x\x01bad", b"1")),
    ("a name with NUL", (b"x\0bad", b"1")),
    ("a name with DEL", (b"x\x7fbad", b"1")),
    ("a name above ASCII", (b"x\xe4bad", b"1")),
    ("a name with CR LF", (b"x-a: 1\r\nx-b", b"1")),
    ("an empty name", (b"", b"1")),
    ("a value with CR", (b"x-bad", b"1\r2")),
    ("a value with LF", (b"x-bad", b"1\n2")),
    ("a value with NUL", (b"x-bad", b"1\x002")),
    ("a value with CR LF and a field", (b"x-bad", b"1\r\nx-injected: 1")),
]:
    is_malformed("RFC 9113, 8.2.1", name, lambda mark, field=field: request(mark, "GET", field))

for name, field in [
    ("connection", ("connection", "keep-alive")),
    ("keep-alive", ("keep-alive", "timeout=5")),
    ("proxy-connection", ("proxy-connection", "keep-alive")),
    ("transfer-encoding", ("transfer-encoding", "chunked")),
    ("upgrade", ("upgrade", "websocket")),
    ("te other than trailers", ("te", "trailers, deflate;q=0.5")),
]:
    is_malformed("RFC 9113, 8.2.2", f"the field {name}", lambda mark, field=field: request(mark, "GET", field))


@case("RFC 9113, 8.2.2", "te: trailers is accepted")
def _(target):
    with Connection(target) as connection:
        connection.send(connection.headers(1, request("/inspect", "GET", ("te", "trailers"))))
        inspected(connection.answer(1))


@case("RFC 9113, 8.2.3", "cookies that come in pieces reach HTTP/1.1 as one")
def _(target):
    with Connection(target) as connection:
        crumbs = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]
        connection.send(connection.headers(1, request("/inspect", "GET", *crumbs)))
        cookies = [value for name, value in inspected(connection.answer(1))["fields"] if name == "cookie"]
        require(cookies == ["a=1; b=2; c=3"], f"the backend got {cookies}")


# --- 8.3 pseudo-header fields ---


def pseudo(mark, drop=None, add=(), change=None):
    fields = [(name, value) for name, value in request(mark) if name != drop]
    fields = [(name, change[1] if change and name == change[0] else value) for name, value in fields]
    return [*fields, *add]


for name, fields in [
    ("an unknown pseudo-header field", lambda mark: pseudo(mark, add=[(":unknown", "1")])),
    ("a pseudo-header field of answers", lambda mark: pseudo(mark, add=[(":status", "200")])),
    (":protocol without CONNECT", lambda mark: pseudo(mark, add=[(":protocol", "websocket")])),
    ("a pseudo-header field behind a regular one", lambda mark: [*pseudo(mark, drop=":path"), ("x-a", "1"), (":path", mark)]),
    ("two :method", lambda mark: pseudo(mark, add=[(":method", "GET")])),
    ("two :scheme", lambda mark: pseudo(mark, add=[(":scheme", "http")])),
    ("two :path", lambda mark: pseudo(mark, add=[(":path", mark)])),
    ("two :authority", lambda mark: pseudo(mark, add=[(":authority", "other")])),
    ("no :method", lambda mark: pseudo(mark, drop=":method")),
    ("no :scheme", lambda mark: pseudo(mark, drop=":scheme")),
    ("no :path", lambda mark: [*pseudo(mark, drop=":path"), ("x-mark", mark)]),
    ("an empty :path", lambda mark: [*pseudo(mark, change=(":path", "")), ("x-mark", mark)]),
    ("an empty :method", lambda mark: pseudo(mark, change=(":method", ""))),
    (":method with a blank", lambda mark: pseudo(mark, change=(":method", "GET /x HTTP/1.1"))),
    (":method with CR LF", lambda mark: pseudo(mark, change=(":method", "GET / HTTP/1.1\r\nX: y\r\n\r\nGET"))),
    (":path without a slash", lambda mark: pseudo(mark, change=(":path", mark[1:]))),
    (":path with a blank", lambda mark: pseudo(mark, change=(":path", mark + " HTTP/1.1"))),
    (":path with CR LF", lambda mark: pseudo(mark, change=(":path", mark + " HTTP/1.1\r\nX: y\r\n\r\n"))),
    (":path with NUL", lambda mark: pseudo(mark, change=(":path", mark + "\0"))),
    (":authority with CR LF", lambda mark: pseudo(mark, change=(":authority", "test\r\nx-injected: 1"))),
    (":authority with user information", lambda mark: pseudo(mark, change=(":authority", "user@test"))),
    (":authority with a blank", lambda mark: pseudo(mark, change=(":authority", "te st"))),
]:
    is_malformed("RFC 9113, 8.3", name, fields)


@case("RFC 9113, 8.3.1", "host stands in for :authority")
def _(target):
    with Connection(target) as connection:
        fields = [*pseudo("/inspect", drop=":authority"), ("host", "named.test")]
        connection.send(connection.headers(1, fields))
        require(["host", "named.test"] in inspected(connection.answer(1))["fields"], "another Host")


@case("RFC 9113, 8.3.1", "a host that differs from :authority does not win")
def _(target):
    with Connection(target) as connection:
        connection.send(connection.headers(1, request("/inspect", "GET", ("host", "other.test"))))
        answer = connection.answer(1)
        if answer.status == 200:
            hosts = [value for name, value in json.loads(answer.content)["fields"] if name == "host"]
            require(hosts == ["test"], f"the backend got Host {hosts}")
        else:
            require(400 <= answer.status < 500, f"{answer.status}")


@case("RFC 9113, 8.3.1", "OPTIONS * passes")
def _(target):
    with Connection(target) as connection:
        connection.send(connection.headers(1, request("*", "OPTIONS")))
        require(connection.answer(1).content == b"answer to *\n", "the backend got another target")


@case("RFC 9113, 8.3.1", "all fields pass in order, duplicates included")
def _(target):
    with Connection(target) as connection:
        sent = [("x-first", "1"), ("x-twice", "a"), ("x-twice", "b"), ("x-empty", ""), ("x-high", "caf\xe9")]
        connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, block(
            [*request("/inspect"), *[(name.encode(), value.encode("latin-1")) for name, value in sent]])))
        fields = [tuple(field) for field in inspected(connection.answer(1))["fields"] if field[0].startswith("x-") and not field[0].startswith(("x-forwarded", "x-real", "x-request", "x-envoy"))]
        require(fields == sent, f"the backend got {fields}")


# --- RFC 7541 ---

BAD_BLOCKS = [
    ("2.3.3", "an index beyond the tables", b"\xff\x80\x01"),
    ("2.3.3", "index 62 while the dynamic table is empty", b"\xbe"),
    ("6.1", "index 0", b"\x80"),
    ("2.3.3", "a literal whose name has an index beyond the tables", b"\x7f\x80\x01\x01x"),
    ("4.2", "a change of the table size behind a field", literal(b"x", b"y") + b"\x20"),
    ("5.1", "an integer that does not end", b"\xff" + b"\xff" * 20),
    ("5.1", "an integer that is cut short", b"\xff\x80"),
    ("5.2", "a string that is longer than the block", b"\x00\x7f\x00x"),
    ("5.2", "a Huffman string with the end-of-string symbol", b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\xff\xff\xff\xff"),
    ("5.2", "Huffman padding of more than seven bits", b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x9f\xff"[:-4] + b"\x84\x49\x50\x9f\xff\xff"[:5]),
    ("5.2", "Huffman padding of zeros", b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"),
    ("6.3", "a table size above the limit", b"\x3f\xe1\x7f\xff\x03"),
    ("6.3", "a table size above the limit by one", b"\x3f" + bytes(hpack.hpack.encode_integer(4097, 5))[1:]),
]
for section, name, bad in BAD_BLOCKS:
    first = section == "6.3"
    fails_the_connection(
        f"RFC 7541, {section}", name, [COMPRESSION_ERROR],
        frame(HEADERS, END_STREAM | END_HEADERS, 1, bad + block(request()) if first else block(request()) + bad),
    )


def decodes(section, name, build, wanted):
    """A case: the backend gets these fields, from each of these blocks on one connection."""

    def run(target):
        with Connection(target) as connection:
            for number, sent in enumerate(build()):
                connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, sent))
                fields = inspected(connection.answer(2 * number + 1))["fields"]
                require(all(list(field) in fields for field in wanted), f"block {number}: the backend got {fields}")

    CASES.add(f"RFC 7541, {section}", name, run)


BASE = block(request("/inspect"))
# Literal with incremental indexing of a new name, then the same by its index 62.
INDEXED = b"\x40" + b"\x06x-case" + b"\x01a"
decodes("6.2.1", "a literal that is indexed, and its index in the next block", lambda: [BASE + INDEXED, BASE + b"\xbe"], [("x-case", "a")])
decodes("6.2.2", "a literal that is not indexed", lambda: [BASE + b"\x00\x06x-case\x01a"], [("x-case", "a")])
decodes("6.2.3", "a literal that is never indexed", lambda: [BASE + b"\x10\x06x-case\x01a"], [("x-case", "a")])
decodes("5.2", "Huffman code in name and value", lambda: [hpack.Encoder().encode(request("/inspect", "GET", ("x-case", "a long value, to be coded")), huffman=True)], [("x-case", "a long value, to be coded")])
decodes("6.2.1", "a name by index with another value", lambda: [BASE + INDEXED, BASE + b"\x7e\x01b"], [("x-case", "a")][:0])
decodes("4.2", "the table size becomes 0 and 4096 at the start of a block", lambda: [BASE + INDEXED, b"\x20\x3f\xe1\x1f" + BASE + INDEXED, BASE + b"\xbe"], [("x-case", "a")])
decodes("2.3.1", "fields of the static table", lambda: [b"\x82\x86\x04\x08/inspect\x41\x04test\x90"], [("accept-encoding", "gzip, deflate")])
decodes("6.2.2", "an empty value", lambda: [BASE + b"\x00\x06x-case\x00"], [("x-case", "")])


@case("RFC 7541, 4.4", "entries are evicted from the oldest on")
def _(target):
    with Connection(target) as connection:
        encoder = hpack.Encoder()
        for number in range(12):
            fields = request("/inspect", "GET", ("x-number", str(number)), ("x-long", str(number) * 1500))
            connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, encoder.encode(fields)))
            seen = inspected(connection.answer(2 * number + 1))["fields"]
            require(["x-number", str(number)] in seen, f"the backend got {seen}")


@case("RFC 7541, 4.4", "an entry that was evicted has no index any more")
def _(target):
    with Connection(target) as connection:
        connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, BASE + INDEXED))
        connection.answer(1)
        connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 3, b"\x20" + BASE + b"\xbe"))
        connection.connection_error(COMPRESSION_ERROR)


@case("RFC 7541, 4.2", "the server's encoder keeps to a table size of 0")
def _(target):
    with Connection(target, pairs=((HEADER_TABLE_SIZE, 0),)) as connection:
        connection.decoder.max_allowed_table_size = 0
        for stream in (1, 3, 5):
            connection.get(stream)


@case("RFC 9113, 10.5.1", "a head above the limit is answered or refused, and other streams go on")
def _(target):
    with Connection(target) as connection:
        large = block([*request("/too-large"), *[(f"x-{number}", "v" * 4000) for number in range(40)]])
        parts = [large[at : at + FRAME] for at in range(0, len(large), FRAME)]
        connection.send(frame(HEADERS, END_STREAM, 1, parts[0]))
        connection.send(*[frame(CONTINUATION, 0, 1, part) for part in parts[1:-1]])
        connection.send(frame(CONTINUATION, END_HEADERS, 1, parts[-1]))
        try:
            while (received := connection.read()) is not None:
                if isinstance(received, frames.HeadersFrame):
                    status = dict(connection.decoder.decode(received.data))[":status"]
                    require(status in ("431", "400"), f"answered with {status}")
                    break
                if isinstance(received, (frames.RstStreamFrame, frames.GoAwayFrame)):
                    break
            else:
                require(False, "neither answered nor refused")
        except Closed:
            pass
    with Connection(target) as connection:
        connection.get(1)
