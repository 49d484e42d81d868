"""gRPC by `grpcio` on both sides. Each case talks to the server twice, directly and through the proxy, and what the client
sees must be the same: messages, status, details, metadata before and behind them.
"""

import concurrent.futures
import contextlib
import json
import threading
import time

import grpc
from cases import PATIENCE, Cases, require

TITLE = "gRPC interoperability"
SOURCE = "gRPC over HTTP/2; grpcio"
KIND = "grpc"
WORKERS = 4
CASES = Cases()
case = CASES.case

MIB = 1 << 20
OPTIONS = [
    ("grpc.max_receive_message_length", 16 * MIB), ("grpc.max_send_message_length", 16 * MIB),
    ("grpc.max_metadata_size", 64 << 10), ("grpc.absolute_max_metadata_size", 64 << 10), ("grpc.enable_http_proxy", 0),
]
CODES = {code.value[0]: code for code in grpc.StatusCode}
# The messages of `grpc.health.v1`, by hand: field 1 is a string in the request, an enumeration in the answer.
SERVING = b"\x08\x01"


class Service(grpc.GenericRpcHandler):
    """Methods whose messages are bytes as they are."""

    def __init__(self, backend) -> None:
        self.backend = backend

    def service(self, call):
        name = call.method.rsplit("/", 1)[1]
        unary = {"Echo", "Status", "Metadata", "Sleep", "Trailers", "Large", "Check", "Fail", "Compressed"}
        if call.method == "/grpc.health.v1.Health/Watch" or name in ("Down", "Endless", "Half"):
            return grpc.unary_stream_rpc_method_handler(getattr(self, name.lower()))
        if name in unary:
            return grpc.unary_unary_rpc_method_handler(getattr(self, name.lower()))
        if name in ("Up", "Refuse"):
            return grpc.stream_unary_rpc_method_handler(getattr(self, name.lower()))
        if name in ("Both", "Turns"):
            return grpc.stream_stream_rpc_method_handler(getattr(self, name.lower()))
        return None

    def echo(self, request, context):
        return request

    def compressed(self, request, context):
        context.set_compression(grpc.Compression.Gzip)
        return request

    def status(self, request, context):
        code, details = json.loads(request)
        context.set_trailing_metadata((("x-trailing", "after"),))
        context.set_code(CODES[code])
        context.set_details(details)
        return b"ignored unless OK"

    def trailers(self, request, context):
        context.abort_with_status(Aborted())

    def fail(self, request, context):
        raise ValueError("as asked")

    def metadata(self, request, context):
        seen = [[key, value.hex() if isinstance(value, bytes) else value] for key, value in context.invocation_metadata()]
        context.send_initial_metadata((("x-initial", "first"), ("x-initial", "second"), ("x-initial-bin", bytes(range(256)))))
        context.set_trailing_metadata((("x-trailing", "a"), ("x-trailing", "b"), ("x-trailing-bin", b"\x00\xff\x00")))
        return json.dumps([pair for pair in seen if pair[0].startswith("x-case")]).encode()

    def sleep(self, request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        left = context.time_remaining()
        cancelled = ended.wait(float(request))
        self.backend.notes.append(("cancelled" if cancelled else "slept", left))
        return b"slept"

    def large(self, request, context):
        return bytes(int(request))

    def check(self, request, context):
        return SERVING

    def watch(self, request, context):
        yield SERVING

    def down(self, request, context):
        count, size = json.loads(request)
        for number in range(count):
            yield bytes([number % 256]) * size

    def endless(self, request, context):
        # A call that is over is not asked for more, so the end is noted by the callback.
        ended = threading.Event()
        context.add_callback(lambda: (self.backend.notes.append(("ended", None)), ended.set()))
        number = 0
        while not ended.wait(0.005):
            yield b"%d" % number
            number += 1

    def half(self, request, context):
        yield b"one"
        yield b"two"
        context.abort(grpc.StatusCode.DATA_LOSS, "half way")

    def up(self, requests, context):
        sizes = [len(request) for request in requests]
        return json.dumps([len(sizes), sum(sizes)]).encode()

    def refuse(self, requests, context):
        next(requests)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")

    def both(self, requests, context):
        yield from requests

    def turns(self, requests, context):
        for request in requests:
            yield b"1 of " + request
            yield b"2 of " + request


class Aborted(grpc.Status):
    code, details, trailing_metadata = grpc.StatusCode.FAILED_PRECONDITION, "only trailers", (("x-why", "because"),)


class Backend:
    def __init__(self) -> None:
        self.notes: list = []
        self.port = 0
        self.start()

    def start(self) -> None:
        self.server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(64), handlers=[Service(self)], options=[*OPTIONS, ("grpc.so_reuseport", 0)]
        )
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()

    def restart(self) -> None:
        self.server.stop(None).wait()
        self.start()


@contextlib.contextmanager
def backend():
    server = Backend()
    yield server
    server.server.stop(None)


@contextlib.contextmanager
def channel(port: int, *options):
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[*options, *OPTIONS, ("grpc.use_local_subchannel_pool", 1)]) as opened:
        yield opened


def method(opened, name: str, shape: str = "unary_unary"):
    return getattr(opened, shape)(f"/conformance.Test/{name}")


def pairs(metadata) -> list:
    """Without what proxies may add, and in the order of names: HTTP keeps the order of equal names only."""
    ours = [(key, value) for key, value in metadata or () if key.startswith("x-") and not key.startswith("x-envoy")]
    return sorted(ours, key=lambda pair: pair[0])


def outcome(call) -> dict:
    """What the client knows at the end of a call that was made with `with_call`, `future` or as a stream."""
    return {
        "code": call.code().name, "details": call.details(), "initial": pairs(call.initial_metadata()), "trailing": pairs(call.trailing_metadata()),
    }


def same(section: str, name: str, alone: bool = False):
    """A case whose function gets a channel and tells what it saw; it must be the same directly and through the proxy."""

    def add(run):
        def compare(target):
            with channel(target.backend.port) as opened:
                directly = run(opened)
            with channel(target.h2_port) as opened:
                through = run(opened)
            require(through == directly, lambda: f"{str(through)[:300]} instead of {str(directly)[:300]}")

        CASES.add(section, name, compare, alone)
        return run

    return add


def unary(opened, name, request, **options):
    """Gives the answer, if there is one, and the outcome."""
    call = method(opened, name).future(request, timeout=options.pop("timeout", PATIENCE), **options)
    error = call.exception()
    return (None if error else call.result()), outcome(call)


# --- the four kinds of calls ---

for size in (0, 1, 100, 16_384, 65_536, MIB, 4 * MIB - 16):

    def _run(opened, size=size):
        answer, end = unary(opened, "Echo", b"m" * size)
        require(answer == b"m" * size, "another message")
        return end

    same("unary", f"a message of {size:,} bytes both ways")(_run)


@same("unary", "an answer of 4 MiB to an empty request")
def _(opened):
    answer, end = unary(opened, "Large", b"4194000")
    return len(answer or b""), end


@same("unary", "100 calls on one channel, one after another")
def _(opened):
    return [unary(opened, "Echo", b"%d" % number)[0] for number in range(100)]


@same("client stream", "no message at all")
def _(opened):
    return method(opened, "Up", "stream_unary")(iter(()), timeout=PATIENCE)


@same("client stream", "1,000 messages")
def _(opened):
    return method(opened, "Up", "stream_unary")((b"x" * number for number in range(1000)), timeout=PATIENCE)


@same("client stream", "8 messages of 1 MiB")
def _(opened):
    return method(opened, "Up", "stream_unary")((bytes(MIB) for _ in range(8)), timeout=PATIENCE)


@same("client stream", "the server refuses after the first message")
def _(opened):
    released = threading.Event()

    def requests():
        yield b"first"
        released.wait(PATIENCE)

    call = method(opened, "Refuse", "stream_unary").future(requests(), timeout=PATIENCE)
    call.exception()
    released.set()
    return outcome(call)


@same("server stream", "no message at all")
def _(opened):
    call = method(opened, "Down", "unary_stream")(b"[0, 0]", timeout=PATIENCE)
    return list(call), outcome(call)


@same("server stream", "1,000 messages")
def _(opened):
    call = method(opened, "Down", "unary_stream")(b"[1000, 100]", timeout=PATIENCE)
    return list(call), outcome(call)


@same("server stream", "8 messages of 1 MiB")
def _(opened):
    call = method(opened, "Down", "unary_stream")(b"[8, 1048576]", timeout=PATIENCE)
    return [(len(message), message[0]) for message in call], outcome(call)


@same("server stream", "an error after two messages")
def _(opened):
    call = method(opened, "Half", "unary_stream")(b"", timeout=PATIENCE)
    seen = []
    with contextlib.suppress(grpc.RpcError):
        for message in call:
            seen.append(message)
    return seen, outcome(call)


@same("server stream", "the first message arrives while the stream goes on")
def _(opened):
    call = method(opened, "Endless", "unary_stream")(b"", timeout=PATIENCE)
    seen = [next(call) for _ in range(3)]
    call.cancel()
    return seen


@same("both streams", "each message is answered before the next is sent")
def _(opened):
    turns: list = []
    ready = threading.Semaphore(1)

    def requests():
        for number in range(50):
            ready.acquire(timeout=PATIENCE)
            yield b"%d" % number

    for answer in method(opened, "Both", "stream_stream")(requests(), timeout=PATIENCE):
        turns.append(answer)
        ready.release()
    return turns


@same("both streams", "two answers to each of 200 messages")
def _(opened):
    call = method(opened, "Turns", "stream_stream")((b"%d" % number for number in range(200)), timeout=PATIENCE)
    return list(call), outcome(call)


@same("both streams", "16 messages of 1 MiB each way")
def _(opened):
    call = method(opened, "Both", "stream_stream")((bytes([number]) * MIB for number in range(16)), timeout=2 * PATIENCE)
    return [(len(message), message[0]) for message in call], outcome(call)


@same("both streams", "the client half-closes at once")
def _(opened):
    call = method(opened, "Both", "stream_stream")(iter(()), timeout=PATIENCE)
    return list(call), outcome(call)


# --- metadata ---

for name, sent in [
    ("ASCII", (("x-case", "value"),)),
    ("binary", (("x-case-bin", bytes(range(256))),)),
    ("an empty binary value", (("x-case-bin", b""),)),
    ("a name twice, in order", (("x-case", "first"), ("x-case", "second"))),
    ("a binary name twice", (("x-case-bin", b"\x00"), ("x-case-bin", b"\xff"))),
    ("commas, quotes and blanks inside", (("x-case", 'a, "b" ; c=d'),)),
    ("20 names", tuple((f"x-case-{number}", "v" * number) for number in range(1, 21))),
    ("4 KiB of value", (("x-case", "v" * 4096),)),
    ("12 KiB in three values", tuple((f"x-case-{number}", "w" * 4096) for number in range(3))),
]:

    def _run(opened, sent=sent):
        answer, end = unary(opened, "Metadata", b"", metadata=sent)
        require(answer is not None, f"{end}")
        return sorted(map(tuple, json.loads(answer))), end

    same("metadata", name)(_run)


@same("metadata", "initial metadata comes before the answer")
def _(opened):
    call = method(opened, "Metadata").future(b"", timeout=PATIENCE)
    return pairs(call.initial_metadata())


# --- every status ---

for number, code in sorted(CODES.items()):

    def _run(opened, number=number):
        return unary(opened, "Status", json.dumps([number, f"details of {number}"]).encode())

    same("status", f"{number} {code.name}")(_run)

for name, details in [
    ("empty", ""),
    ("beyond ASCII, percent-encoded", "übermäßig 語 😀"),
    ("percent signs", "100% sure, %20 %zz %"),
    ("line ends and control bytes", "one\r\ntwo\tthree\x7f"),
    ("2 KiB", "d" * 2048),
    ("blanks around", "  padded  "),
]:

    def _run(opened, details=details):
        _, end = unary(opened, "Status", json.dumps([3, details]).encode())
        return end

    same("status message", name)(_run)


@same("status", "an answer of trailers only, with metadata")
def _(opened):
    return unary(opened, "Trailers", b"")


@same("status", "an exception in the server is UNKNOWN")
def _(opened):
    return unary(opened, "Fail", b"")


@same("status", "an unknown method is UNIMPLEMENTED")
def _(opened):
    return unary(opened, "Nothing", b"")


# --- deadlines and cancellation ---


@same("deadline", "one that passes is DEADLINE_EXCEEDED at the client")
def _(opened):
    return unary(opened, "Sleep", b"5", timeout=0.3)[1]["code"]


def noted(target, before: int):
    """The next note of the server."""
    deadline = time.monotonic() + PATIENCE
    while len(target.backend.notes) <= before:
        require(time.monotonic() < deadline, "the server has not noticed")
        time.sleep(0.005)
    return target.backend.notes[before]


@case("deadline", "the server knows the time that is left", alone=True)
def _(target):
    before = len(target.backend.notes)
    with channel(target.h2_port) as opened:
        unary(opened, "Sleep", b"0", timeout=20)
    what, left = noted(target, before)
    require(what == "slept" and left is not None and 15 < left <= 21, f"the server saw {what}, {left} s left")


@case("deadline", "one that passes ends the call at the server", alone=True)
def _(target):
    before = len(target.backend.notes)
    with channel(target.h2_port) as opened:
        start = time.monotonic()
        unary(opened, "Sleep", b"5", timeout=0.3)
        require(noted(target, before)[0] == "cancelled" and time.monotonic() - start < 3, "the server went on")


@case("cancellation", "of a unary call reaches the server", alone=True)
def _(target):
    before = len(target.backend.notes)
    with channel(target.h2_port) as opened:
        unary(opened, "Echo", b"")
        call = method(opened, "Sleep").future(b"5", timeout=PATIENCE)
        time.sleep(0.1)
        call.cancel()
        require(call.code() == grpc.StatusCode.CANCELLED, f"{call.code()}")
        require(noted(target, before)[0] == "cancelled", "the server went on")
        require(unary(opened, "Echo", b"after")[0] == b"after", "the channel is of no more use")


@case("cancellation", "of a stream reaches the server, and others go on", alone=True)
def _(target):
    before = len(target.backend.notes)
    with channel(target.h2_port) as opened:
        other = method(opened, "Endless", "unary_stream")(b"", timeout=PATIENCE)
        next(other)
        call = method(opened, "Endless", "unary_stream")(b"", timeout=PATIENCE)
        next(call)
        call.cancel()
        require(noted(target, before)[0] == "ended", "the server went on")
        require(all(next(other) for _ in range(3)), "the other stream ended")
        other.cancel()
        noted(target, before + 1)


@case("cancellation", "a client that goes away ends the call at the server", alone=True)
def _(target):
    before = len(target.backend.notes)
    with channel(target.h2_port) as opened:
        call = method(opened, "Endless", "unary_stream")(b"", timeout=PATIENCE)
        next(call)
    require(noted(target, before)[0] == "ended", "the server went on")


# --- compression ---

for name, options in [
    ("gzip from the client", {"compression": grpc.Compression.Gzip}),
    ("deflate from the client", {"compression": grpc.Compression.Deflate}),
]:

    def _run(opened, options=options):
        answer, end = unary(opened, "Echo", b"compressible " * 10_000, **options)
        return answer == b"compressible " * 10_000, end

    same("compression", name)(_run)


@same("compression", "gzip from the server")
def _(opened):
    answer, end = unary(opened, "Compressed", b"compressible " * 10_000)
    return answer == b"compressible " * 10_000, end


# --- health ---


@same("health", "grpc.health.v1.Health/Check")
def _(opened):
    return opened.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=PATIENCE)


@same("health", "grpc.health.v1.Health/Watch")
def _(opened):
    return list(opened.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=PATIENCE))


# --- many ---


@same("many", "50 calls at once on one channel")
def _(opened):
    calls = [method(opened, "Echo").future(b"%d" % number * 1000, timeout=PATIENCE) for number in range(50)]
    return [call.result() for call in calls]


@same("many", "20 streams at once on one channel, each in order")
def _(opened):
    def one(number):
        requests = (b"%d.%d" % (number, turn) for turn in range(50))
        return list(method(opened, "Both", "stream_stream")(requests, timeout=2 * PATIENCE))

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        return list(pool.map(one, range(20)))


@case("many", "20 channels at once")
def _(target):
    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(channel(target.h2_port)) for _ in range(20)]
        calls = [method(opened, "Echo").future(b"%d" % number, timeout=PATIENCE) for number, opened in enumerate(channels)]
        require([call.result() for call in calls] == [b"%d" % number for number in range(20)], "answers are mixed up")


@case("many", "a message above the client's limit leaves the channel usable")
def _(target):
    with channel(target.h2_port, ("grpc.max_receive_message_length", 1000)) as opened:
        call = method(opened, "Large").future(b"5000", timeout=PATIENCE)
        call.exception()
        require(call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, f"{call.code()}")
        require(unary(opened, "Echo", b"after")[0] == b"after", "the channel is of no more use")


# --- restart of the server ---


@case("restart", "calls are answered again after the server has restarted, on the same channel", alone=True)
def _(target):
    with channel(target.h2_port) as opened:
        require(unary(opened, "Echo", b"before")[0] == b"before", "not answered before")
        target.backend.restart()
        deadline = time.monotonic() + PATIENCE
        while (answer := unary(opened, "Echo", b"after", timeout=2))[0] != b"after":
            require(time.monotonic() < deadline, f"still {answer[1]}")


@case("restart", "a stream that the restart cuts ends with UNAVAILABLE or CANCELLED, not with OK", alone=True)
def _(target):
    with channel(target.h2_port) as opened:
        call = method(opened, "Endless", "unary_stream")(b"", timeout=PATIENCE)
        next(call)
        target.backend.restart()
        with contextlib.suppress(grpc.RpcError):
            for _ in call:
                pass
        require(call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL), f"{call.code()}")
