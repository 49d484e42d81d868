"""Growth of the peak resident memory by 1 GiB up and 1 GiB down."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

from harness import Bench, content_length, read_head, status_kib
from proxies import Proxy, start_proxy
from report import Bar, Report

STREAMS_BAR_MIB = 16.0
STREAM_BYTES = 1 << 30
CHUNK = bytes(1 << 20)


def section_streams(bench: Bench, report: Report) -> None:
    with StreamBackend() as backend:
        proxy = start_proxy(bench, "sidecar", backend.port)
        # One small exchange first: the connection and its buffers are no part of the streams.
        stream(proxy, "upload", len(CHUNK))
        rows, data = [], {}
        for direction in ("upload", "download"):
            # 5 resets the peak to the present value.
            Path(f"/proc/{proxy.server.pid}/clear_refs").write_text("5")
            before = status_kib(proxy.server.pid, "VmHWM")
            seconds = stream(proxy, direction, STREAM_BYTES)
            growth = (status_kib(proxy.server.pid, "VmHWM") - before) / 1024
            rows.append([direction, f"{growth:.1f}", f"{STREAM_BYTES / (1 << 20) / seconds:,.0f}"])
            report.bars.append(Bar(f"memory growth by a 1 GiB {direction}", growth, STREAMS_BAR_MIB, "MiB"))
            data[direction] = {"growth_mib": growth, "seconds": seconds}
        proxy.server.stop()
    report.table("1 GiB through the sidecar", ["direction", "peak memory growth MiB", "MiB/s"], rows)
    report.data["streams"] = data


class StreamBackend:
    """An HTTP/1.1 server in this process: a PUT is read to its end and answered with the byte count, a GET gives `?N` bytes."""

    def __enter__(self) -> StreamBackend:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.listener.close()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        # A client that leaves ends its connection; the checks are on the other side.
        with connection, contextlib.suppress(OSError):
            while True:
                head, rest = read_head(connection)
                if not head:
                    return
                if head.startswith(b"PUT "):
                    received = read_body(connection, content_length(head), rest)
                    answer = str(received).encode()
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
                else:
                    size = int(head.split()[1].rpartition(b"?")[2] or 0)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                    send_zeros(connection, size)


def read_body(connection: socket.socket, size: int, rest: bytes) -> int:
    """Reads up to `size` bytes, the ones already here included; gives how many came."""
    received, buffer = len(rest), bytearray(len(CHUNK))
    while received < size:
        count = connection.recv_into(buffer, min(len(buffer), size - received))
        if count == 0:
            break
        received += count
    return received


def send_zeros(connection: socket.socket, size: int) -> None:
    while size > 0:
        piece = min(size, len(CHUNK))
        connection.sendall(memoryview(CHUNK)[:piece])
        size -= piece


def stream(proxy: Proxy, direction: str, size: int) -> float:
    """Sends or fetches `size` bytes through the proxy and checks that all of them arrived. Gives seconds."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=120) as connection:
        host = f"Host: 127.0.0.1:{proxy.port}\r\n".encode()
        if direction == "upload":
            connection.sendall(b"PUT /stream HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (host, size))
            send_zeros(connection, size)
        else:
            connection.sendall(b"GET /stream?%d HTTP/1.1\r\n%s\r\n" % (size, host))
        head, rest = read_head(connection)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise proxy.server.fail(f"{direction} gave {head[:200]!r}")
        length = content_length(head)
        if direction == "upload":
            while len(rest) < length:
                rest += connection.recv(1024) or b"?" * length
            arrived = int(rest)
        else:
            arrived = read_body(connection, length, rest)
    if arrived != size:
        raise proxy.server.fail(f"{direction}: {arrived} of {size} bytes arrived")
    return time.perf_counter() - began
