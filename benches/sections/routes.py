"""Finding a path among many templates, and what learning adds."""

from __future__ import annotations

import json
import subprocess

from harness import Bench, BenchError, clean_environment
from report import Bar, Report

FIND_BAR_NS = 300.0
LEARN_BAR_NS = 200.0


def section_routes(bench: Bench, report: Report) -> None:
    """A program of the crate measures it; here it runs on the core of the proxies."""
    command = ["taskset", "--cpu-list", str(bench.proxy_core), bench.tools["routes"]]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env=clean_environment({}))
    if ran.returncode != 0:
        raise BenchError(f"the bench of the routes failed: {ran.stdout}{ran.stderr}")
    numbers = json.loads(ran.stdout)
    report.bars.append(Bar("finding a path among 500 imported templates", numbers["find_500_ns"], FIND_BAR_NS, "ns"))
    report.bars.append(Bar("finding a path among 500 declared templates", numbers["find_declared_500_ns"], FIND_BAR_NS, "ns"))
    report.bars.append(Bar("learning, added to a path that it knows", numbers["learned_adds_ns"], LEARN_BAR_NS, "ns"))
    report.table("Routes, one path after the other, medians", ["", "ns"], [
        ["among 500 imported templates", f"{numbers['find_500_ns']:.0f}"],
        ["among 500 declared templates", f"{numbers['find_declared_500_ns']:.0f}"],
        ["known to the learner, added to what the templates take", f"{numbers['learned_adds_ns']:.0f}"],
    ])
    report.data["routes"] = numbers
