"""From exec to the first 200 on /readyz."""

from __future__ import annotations

import contextlib
import http.client
import statistics
import time

from harness import Bench, ROUTES, Server, free_port, get
from proxies import sidecar_command, start_backend
from report import Bar, Report

STARTUP_BAR_MS = 100.0
STARTUP_RUNS = 20


def section_startup(bench: Bench, report: Report) -> None:
    backend = start_backend(bench)
    config = bench.directory / "routes.yaml"
    config.write_text("routes:\n" + "".join(f"  - path: {route}\n" for route in ROUTES))
    times = []
    for _ in range(STARTUP_RUNS):
        listen, admin = free_port(), free_port()
        began = time.perf_counter()
        server = Server("sidecar", sidecar_command(bench, "sidecar", backend, listen, admin), bench.proxy_core, bench.directory,
                        {"GOLDEN_CONFIG": str(config), "GOLDEN_DRAIN_GRACE": "0s", "GOLDEN_DRAIN_TIMEOUT": "1s"})
        bench.stack.callback(server.stop)
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if get(admin, "/readyz")[0] == 200:
                    break
            if time.perf_counter() - began > 10:
                raise server.fail("not ready within 10 s")
            server.check_alive()
            # Short against what is measured; longer would only add to it.
            time.sleep(0.0005)
        times.append((time.perf_counter() - began) * 1000)
        server.stop()
    median = statistics.median(times)
    report.table(f"Start to ready, {STARTUP_RUNS} starts", ["median ms", "min ms", "max ms"],
                 [[f"{median:.1f}", f"{min(times):.1f}", f"{max(times):.1f}"]])
    report.bars.append(Bar("start to ready, median", median, STARTUP_BAR_MS, "ms"))
    report.data["startup"] = {"milliseconds": times}
