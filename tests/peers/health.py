"""A gRPC server whose health is known. Prints `ready PORT`.

health.py          the services `up`, `down` and `unsaid` have the health of their names, and so has the whole server
                   (up); SIGUSR1 turns `up` and the whole server to NOT_SERVING, SIGUSR2 back
health.py without  no health server at all
"""

import signal
import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

STATUS = health_pb2.HealthCheckResponse


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    if sys.argv[1:] != ["without"]:
        servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

        def turn(status):
            for service in ("", "up"):
                servicer.set(service, status)

        turn(STATUS.SERVING)
        servicer.set("down", STATUS.NOT_SERVING)
        servicer.set("unsaid", STATUS.UNKNOWN)
        signal.signal(signal.SIGUSR1, lambda *_: turn(STATUS.NOT_SERVING))
        signal.signal(signal.SIGUSR2, lambda *_: turn(STATUS.SERVING))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print("ready", port, flush=True)
    # In pieces, so that signals are handled.
    while server.wait_for_termination(0.05):
        pass


main()
