"""Programs with a known load, for the tests of saturation. Each prints one line when it is what it should be, and stays so
until it is ended. Usage: load.py ROLE [ARGUMENTS]"""
import ctypes
import os
import resource
import signal
import socket
import sys
import threading
import time


def die_with_parent():
    """Ends with the one who started it. A forked child has to say so for itself."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def ready(*words):
    print("ready", *words, flush=True)


def wait():
    while True:
        signal.pause()


def listen(port=0, backlog=128):
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    server.listen(backlog)
    return server, server.getsockname()[1]


def accept_for_ever(server):
    """Takes connections and keeps them, so that whoever probes the port is content."""
    server.setblocking(True)

    def run():
        kept = []
        while True:
            kept.append(server.accept()[0])
            # The probes of the sidecar come once a second and close; what they leave is not kept.
            if len(kept) > 4:
                kept.pop(0).close()
    threading.Thread(target=run, daemon=True).start()


def busy(share):
    """Uses this share of one core, measured on its own CPU clock: what it misses it makes up for."""
    begun, used = time.monotonic(), time.process_time()
    while True:
        behind = share * (time.monotonic() - begun) - (time.process_time() - used)
        if behind > 0:
            end = time.process_time() + min(behind, 0.02)
            while time.process_time() < end:
                # Asking for the time is work of the kernel; this is not.
                for _ in range(10_000):
                    pass
        else:
            time.sleep(0.005)


def burn(share, port="0"):
    server, port = listen(int(port))
    accept_for_ever(server)
    ready(port)
    busy(float(share))


def burst(seconds):
    """Nothing, and on SIGUSR1 one core in full for so long."""
    server, port = listen()
    accept_for_ever(server)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    ready(port)
    while True:
        signal.pause()
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            pass
        print("done", flush=True)


def hold(mebibytes):
    server, port = listen()
    accept_for_ever(server)
    block = bytearray(int(mebibytes) << 20)
    for at in range(0, len(block), 4096):
        block[at] = 1
    ready(port)
    wait()


def grow(mebibytes_per_second):
    server, port = listen()
    accept_for_ever(server)
    ready(port)
    blocks = []
    while True:
        blocks.append(b"x" * (int(mebibytes_per_second) << 18))
        time.sleep(0.25)


def files(count):
    """So many descriptors, all in all."""
    server, port = listen()
    kept = [server]
    while len(os.listdir("/proc/self/fd")) - 1 < int(count):
        kept.append(open("/dev/null"))
    ready(port)
    wait()


def threads(count):
    server, port = listen()
    for _ in range(int(count) - 1):
        threading.Thread(target=wait, daemon=True).start()
    ready(port)
    wait()


def deaf(backlog, pending):
    """Listens and never accepts; so many connections are waiting."""
    server, port = listen(backlog=int(backlog))
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(int(pending))]
    ready(port, len(clients))
    wait()


def remote():
    """A server for the pool below: answers to some queries and not to others."""
    server, port = listen()
    ready(port)
    while True:
        connection = server.accept()[0]

        def answer(connection=connection):
            while query := connection.recv(64):
                if query == b"quick":
                    connection.sendall(b"done!")

        threading.Thread(target=answer, daemon=True).start()


def pool(remote_port, size, waiting):
    """A pool of connections, of which some have sent a query that is not answered."""
    server, port = listen()
    accept_for_ever(server)
    connections = [socket.create_connection(("127.0.0.1", int(remote_port))) for _ in range(int(size))]
    for connection in connections:
        # Each has been used before, as in a pool that has been there for a while.
        connection.sendall(b"quick")
        assert connection.recv(64) == b"done!"
    # The kernel tells the times of sending and receiving in its own ticks, up to 10 ms apart.
    time.sleep(0.05)
    for connection in connections[: int(waiting)]:
        connection.sendall(b"slow")
    ready(port)
    wait()


def prefork(workers, share):
    """A parent and workers that share one listening socket; each worker works."""
    server, port = listen()
    for _ in range(int(workers)):
        if os.fork() == 0:
            die_with_parent()
            busy(float(share))
    accept_for_ever(server)
    ready(port)
    wait()


def shortlived(share):
    """A parent that does nothing itself: one child after the other works for 50 ms and ends."""
    server, port = listen()
    accept_for_ever(server)
    ready(port)
    while True:
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            while time.process_time() < 0.05:
                pass
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(max(0.0, 0.05 / float(share) - (time.monotonic() - begun)))


def more_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def crowd(workers, sockets, remote_port="0", pooled="0"):
    """A parent and workers that share so many connections, and have so many of their own to a server. Says `ready PORT` when
    it listens and `full` when all are there."""
    more_files()
    server, port = listen(backlog=4096)
    server.setblocking(False)
    ready(port)
    workers, sockets, pooled = int(workers), int(sockets), int(pooled)
    pipe, done = os.pipe()
    for index in range(workers):
        if os.fork() == 0:
            die_with_parent()
            kept, count = [], sockets // workers + (1 if index < sockets % workers else 0)
            while len(kept) < count:
                try:
                    kept.append(server.accept()[0])
                except BlockingIOError:
                    time.sleep(0.001)
            for _ in range(pooled // workers):
                kept.append(socket.create_connection(("127.0.0.1", int(remote_port))))
                kept[-1].sendall(b"slow")
            os.write(done, b"x")
            wait()
    for _ in range(workers):
        os.read(pipe, 1)
    print("full", flush=True)
    accept_for_ever(server)
    wait()


def clients(port, count):
    """So many connections to a port, from more addresses than one has ports for."""
    more_files()
    count, pipe, done = int(count), *os.pipe()
    # A process may have fewer descriptors than this.
    share = 5_000
    for first in range(0, count, share):
        if os.fork() == 0:
            die_with_parent()
            kept = []
            while len(kept) < min(share, count - first):
                one = socket.socket()
                one.bind((f"127.0.0.{2 + first // 20_000}", 0))
                one.connect(("127.0.0.1", int(port)))
                kept.append(one)
            os.write(done, b"x")
            wait()
    for _ in range(0, count, share):
        os.read(pipe, 1)
    ready(port)
    wait()


if __name__ == "__main__":
    die_with_parent()
    globals()[sys.argv[1]](*sys.argv[2:])
