"""An HTTP/2 client that sends whatever it is told, valid or not, and judges what comes back as h2spec does: where the RFC
asks for a stream error, a connection error will do; where it asks for a connection error, closing will do.
"""

import contextlib
import dataclasses
import socket
import struct
import time

import hpack
import hyperframe.frame as frames
from cases import PATIENCE, Fault, require

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, PRIORITIZED, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
(
    NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
    REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY, HTTP_1_1_REQUIRED,
) = range(14)
CODES = {value: name for name, value in globals().copy().items() if name.endswith(("_ERROR", "_CLOSED", "_STREAM", "CANCEL", "_CALM")) and value < 14}
(
    HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE,
) = range(1, 7)
ENABLE_CONNECT_PROTOCOL = 8
# Default windows and frame size, RFC 9113, 6.5.2.
WINDOW, FRAME = 65_535, 16_384


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Any frame; the reserved bit may be set in `stream`."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(*pairs: tuple[int, int], flags: int = 0, stream: int = 0) -> bytes:
    return frame(SETTINGS, flags, stream, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def rst_stream(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def ping(payload: bytes = b"barrier!", flags: int = 0) -> bytes:
    return frame(PING, flags, 0, payload)


def request(path: str = "/", method: str = "GET", *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [(":method", method), (":scheme", "http"), (":path", path), (":authority", "test"), *more]


def literal(name: bytes, value: bytes) -> bytes:
    """A literal field without indexing, new name, no Huffman code: any bytes at all (RFC 7541, 6.2.2)."""
    return b"\x00" + length(name) + name + length(value) + value


def length(text: bytes) -> bytes:
    return bytes(hpack.hpack.encode_integer(len(text), 7))


def block(fields) -> bytes:
    """Fields as literals, byte for byte; for what an encoder would refuse. Stateless."""
    raw = [(n if isinstance(n, bytes) else n.encode(), v if isinstance(v, bytes) else v.encode()) for n, v in fields]
    return b"".join(literal(name, value) for name, value in raw)


@dataclasses.dataclass
class Answer:
    status: int
    fields: list[tuple[str, str]]
    content: bytes
    trailers: list[tuple[str, str]]


class Closed(Exception):
    """The other side closed the connection, or reset it."""


class Connection:
    def __init__(self, target, shake_hands: bool = True, pairs: tuple = (), socket_options: tuple = ()) -> None:
        self.socket = socket.socket()
        for option in socket_options:
            self.socket.setsockopt(*option)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((target.host, target.h2_port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.decoder = hpack.Decoder(max_header_list_size=1 << 20)
        self.theirs: dict[int, int] = {}
        if shake_hands:
            self.send(PREFACE, settings(*pairs))
            self.greet()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def greet(self) -> None:
        """Reads their SETTINGS and the acknowledgement of ours."""
        acknowledged = False
        while not (acknowledged and self.theirs is not None and self.greeted):
            received = self.read()
            require(received is not None, "no SETTINGS, or no acknowledgement of ours, in the handshake")
            acknowledged |= isinstance(received, frames.SettingsFrame) and "ACK" in received.flags

    greeted = False

    def send(self, *parts: bytes) -> None:
        # Whoever has closed already will be found out by reading.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(b"".join(parts))

    def fill(self, count: int, deadline: float) -> bool:
        """False when the time is over."""
        while len(self.buffer) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                return False
            except OSError as error:
                raise Closed(str(error)) from error
            finally:
                self.socket.settimeout(PATIENCE)
            if not data:
                raise Closed("closed")
            self.buffer += data
        return True

    def read(self, seconds: float = PATIENCE):
        """The next frame, decoded; None when none comes in time. SETTINGS are noted and acknowledged."""
        deadline = time.monotonic() + seconds
        if not self.fill(9, deadline):
            return None
        parsed, size = frames.Frame.parse_frame_header(memoryview(self.buffer[:9]))
        if not self.fill(9 + size, deadline):
            return None
        parsed.parse_body(memoryview(self.buffer[9 : 9 + size]))
        self.buffer = self.buffer[9 + size :]
        if isinstance(parsed, frames.SettingsFrame) and "ACK" not in parsed.flags:
            self.theirs.update(parsed.settings)
            self.greeted = True
            self.send(settings(flags=ACK))
        return parsed

    def headers(self, stream: int, fields, flags: int = END_STREAM | END_HEADERS) -> bytes:
        return frame(HEADERS, flags, stream, block(fields))

    # --- what must come ---

    def connection_error(self, *codes: int) -> None:
        """GOAWAY with one of the codes, or the end of the connection."""
        self.error(None, codes)

    def stream_error(self, stream: int, *codes: int) -> None:
        """RST_STREAM or GOAWAY with one of the codes, or the end of the connection."""
        self.error(stream, codes)

    def error(self, stream: int | None, codes) -> None:
        """As h2spec does: another code is not enough by itself, but the end of the connection is."""
        wanted = " or ".join(CODES.get(code, hex(code)) for code in codes)
        seen = []
        try:
            deadline = time.monotonic() + PATIENCE
            while (received := self.read(deadline - time.monotonic())) is not None:
                seen.append(brief(received))
                if isinstance(received, frames.GoAwayFrame) and received.error_code in codes:
                    return
                if isinstance(received, frames.RstStreamFrame) and received.stream_id == stream and received.error_code in codes:
                    return
        except Closed:
            return
        kind = "connection" if stream is None else "stream"
        raise Fault(f"no {kind} error {wanted} within {PATIENCE:.0f} s; came: {' '.join(seen[-8:])}")

    def refused(self, stream: int) -> None:
        """A malformed request: a stream error PROTOCOL_ERROR, or a status of 400 to 499 before it (RFC 9113, 8.1.1)."""
        try:
            while (received := self.read()) is not None:
                if isinstance(received, frames.GoAwayFrame) and received.error_code != NO_ERROR:
                    return
                if received.stream_id != stream:
                    continue
                if isinstance(received, frames.RstStreamFrame):
                    require(
                        received.error_code in (PROTOCOL_ERROR, REFUSED_STREAM),
                        f"RST_STREAM {CODES.get(received.error_code, received.error_code)}, wanted PROTOCOL_ERROR",
                    )
                    return
                if isinstance(received, frames.HeadersFrame):
                    status = int(dict(self.decoder.decode(received.data))[":status"])
                    require(400 <= status < 500, f"answered with {status}, although malformed")
                    return
        except Closed:
            return
        raise Fault("neither refused nor answered")

    def answer(self, stream: int) -> Answer:
        """The whole answer on this stream. Gives back the window that it takes."""
        fields, content, trailers, status, ended = [], [], [], 0, False
        block_of = []
        while (received := self.read_or_fault(stream)) is not None:
            if isinstance(received, frames.GoAwayFrame) and received.error_code != NO_ERROR:
                raise Fault(f"GOAWAY {CODES.get(received.error_code, received.error_code)} instead of an answer")
            if isinstance(received, (frames.HeadersFrame, frames.ContinuationFrame)):
                block_of.append(received.data)
                ended = "END_STREAM" in received.flags if isinstance(received, frames.HeadersFrame) else ended
                if "END_HEADERS" in received.flags:
                    decoded = self.decoder.decode(b"".join(block_of))
                    block_of = []
                    if received.stream_id != stream:
                        continue
                    if status >= 200:
                        trailers = decoded
                    else:
                        fields, status = decoded, int(dict(decoded)[":status"])
                    if ended:
                        return Answer(status, fields, b"".join(content), trailers)
                continue
            if received.stream_id != stream:
                continue
            if isinstance(received, frames.RstStreamFrame):
                raise Fault(f"RST_STREAM {CODES.get(received.error_code, received.error_code)} instead of an answer")
            if isinstance(received, frames.DataFrame):
                content.append(received.data)
                if "END_STREAM" in received.flags:
                    return Answer(status, fields, b"".join(content), trailers)
                if received.flow_controlled_length:
                    update = received.flow_controlled_length
                    self.send(window_update(0, update), window_update(stream, update))
        raise Fault(f"no answer within {PATIENCE:.0f} s")

    def read_or_fault(self, stream: int):
        try:
            return self.read()
        except Closed as closed:
            raise Fault(f"the connection ended before the answer on stream {stream}: {closed}") from closed

    def get(self, stream: int = 1, path: str = "/") -> Answer:
        """A good request must still be answered."""
        self.send(self.headers(stream, request(path)))
        answer = self.answer(stream)
        require(answer.status == 200, f"{answer.status} instead of 200")
        return answer

    def until(self, kind, stream: int | None = None):
        """The next frame of this class, on this stream if one is named."""
        try:
            while (received := self.read()) is not None:
                if isinstance(received, kind) and stream in (None, received.stream_id):
                    return received
                if isinstance(received, (frames.HeadersFrame, frames.ContinuationFrame)):
                    self.decoder.decode(received.data)
                if isinstance(received, frames.GoAwayFrame) and received.error_code != NO_ERROR:
                    raise Fault(f"GOAWAY {CODES.get(received.error_code, received.error_code)}")
        except Closed as closed:
            raise Fault(f"the connection ended: {closed}") from closed
        raise Fault(f"no {kind.__name__} within {PATIENCE:.0f} s")

    def barrier(self, payload: bytes = b"barrier!") -> list:
        """PING and its acknowledgement: all that was sent before has been read. Gives the frames before it."""
        self.send(ping(payload))
        before = []
        try:
            while (received := self.read()) is not None:
                if isinstance(received, frames.PingFrame) and "ACK" in received.flags and received.opaque_data == payload:
                    return before
                before.append(received)
                if isinstance(received, frames.GoAwayFrame) and received.error_code != NO_ERROR:
                    raise Fault(f"GOAWAY {CODES.get(received.error_code, received.error_code)}")
        except Closed as closed:
            raise Fault(f"the connection ended: {closed}") from closed
        raise Fault("PING was not acknowledged")


def brief(received) -> str:
    code = getattr(received, "error_code", None)
    return f"{type(received).__name__}({received.stream_id}{'' if code is None else f', {CODES.get(code, code)}'})"
