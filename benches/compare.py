#!/usr/bin/env python3
"""What the sidecar costs, side by side with nginx, HAProxy and Envoy, in one interleaved run on two pinned cores.

The proxies run on one core; the load (wrk, h2load) and the backend (nginx) on the other, so that the proxy is the narrow place
and its CPU time per request is the price of one request. Sections, each also callable alone with `--section NAME`:

| section  | question | bar |
|----------|----------|-----|
| cost     | CPU time per request, of each process tree, and the ratio to each peer | 1.00 x HAProxy, 1.30 x HAProxy TCP, 1.03 x unmeasured |
| before   | the same beside an earlier build (`--before`): CPU time, and instructions, which do not vary | 1.02 x each |
| tls      | CPU time per request under HTTPS (HTTP/1.1, HTTP/2) and per handshake | - |
| h2       | CPU time per request under HTTP/2 without TLS, to a backend of HTTP/1.1 and of HTTP/2 | - |
| syscalls | system calls per request at saturation (strace -c) | 4.2 |
| memory   | resident memory at rest; per idle keep-alive connection | 15 MiB; 2 KiB |
| startup  | exec to the first 200 on /readyz | 100 ms |
| scrape   | GET /metrics with 100 routes x 4 codes x 3 methods, in each format; time that the worker loses to it; size of the protobuf page | 10 ms; 1 ms; 1/4 of text |
| storm    | p99 of requests at half of the capacity while 20 scrapers ask at once, every second, to p99 without them | 1.05 |
| routes   | finding a path among 500 templates, imported or declared; what learning adds to a path that it knows | 300 ns; 200 ns |
| scanner  | 100,000 distinct paths and 1,000 methods, all answered 200: seconds; growth of resident memory; label sets of the fullest family | 10 s; 8 MiB; 2,000 |
| streams  | growth of the peak resident memory by 1 GiB up and 1 GiB down | 16 MiB |
| sampling | CPU of the sampler thread, once a second, a backend of 8 processes and 2,000 or 20,000 connections | 0.5 %; 3 % of a core |

Exit status: 0 all bars hold, 1 a bar is missed or a round went wrong, 2 bad usage or something is missing.
One section is one file in `sections/`. Needs only the standard library of Python 3.9. All servers listen on loopback, on ports the kernel chose.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Bench, BenchError, MissingError, ROOT, raise_file_limit, say
from report import (
    BAR_HEADER, MARK_BEGIN, MARK_END, Report, bar_rows, machine, plain_table, repeat_arguments,
    section_markdown, split_at_markers, write_markdown,
)
from sections.before import section_before
from sections.cost import section_cost
from sections.memory import section_memory
from sections.protocols import section_h2, section_tls
from sections.routes import section_routes
from sections.sampling import section_sampling
from sections.scanner import section_scanner
from sections.scrape import section_scrape, section_storm
from sections.startup import section_startup
from sections.streams import section_streams
from sections.syscalls import section_syscalls

SECTIONS = {
    "cost": section_cost, "before": section_before, "tls": section_tls, "h2": section_h2, "syscalls": section_syscalls,
    "memory": section_memory, "startup": section_startup, "scrape": section_scrape, "storm": section_storm,
    "routes": section_routes, "scanner": section_scanner, "streams": section_streams, "sampling": section_sampling,
}
# The others measure the sidecar alone.
OF_PEERS = {"cost", "tls", "h2", "memory"}
PROXIES = ("sidecar", "sidecar-unmeasured", "nginx", "haproxy", "haproxy-tcp", "envoy")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], epilog="sections: " + ", ".join(SECTIONS))
    names = f"comma-separated: {', '.join(PROXIES)}"
    parser.add_argument("--section", action="append", choices=SECTIONS, help="only this section; may be repeated (default: all; before only with --before)")
    parser.add_argument("--rounds", type=positive, default=9, help="rounds of the sections cost, tls and h2, twice as many of before (default: 9)")
    parser.add_argument("--seconds", type=positive, default=3, help="seconds of one measured run (default: 3)")
    parser.add_argument("--warmup", type=positive, default=1, help="seconds of load before each measured run (default: 1)")
    parser.add_argument("--connections", type=positive, default=50, help="keep-alive connections of wrk (default: 50)")
    parser.add_argument("--idle-connections", type=positive, default=10_000, help="of the memory section (default: 10000)")
    parser.add_argument("--settle", type=float, default=10, metavar="SECONDS",
                        help="how long memory must stand still to count as settled; longer than idle connections take to park (default: 10)")
    parser.add_argument("--only", metavar="NAMES", type=proxy_names, help=f"only these proxies; {names}")
    parser.add_argument("--without", metavar="NAMES", type=proxy_names, default=[], help="all but these proxies")
    parser.add_argument("--sidecar", type=Path, default=ROOT / "target/release/golden-sidecar", metavar="FILE", help="the binary to measure")
    parser.add_argument("--unmeasured", type=Path, default=ROOT / "target/unmeasured/release/golden-sidecar", metavar="FILE",
                        help="the same, built with --features unmeasured; left out when it is not there, unless named by --only")
    parser.add_argument("--before", metavar="FILE|REVISION", help="an earlier build for the section before: a binary, or a revision, which is built below target/before")
    parser.add_argument("--counted-requests", type=positive, default=20_000, metavar="N", help="whose instructions the section before counts (default: 20000)")
    parser.add_argument("--markdown", type=Path, metavar="FILE",
                        help=f"write the tables into FILE between {MARK_BEGIN} and {MARK_END}; sections that did not run stay there as they are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE")
    options = parser.parse_args(arguments)
    chosen = options.only or [name for name in PROXIES if name != "sidecar-unmeasured" or options.unmeasured.exists()]
    options.proxies = [name for name in PROXIES if name in chosen and name not in options.without]
    options.sections = [name for name in SECTIONS if (name in options.section if options.section else name != "before" or options.before)]
    if not options.proxies:
        parser.error("--only and --without leave no proxy")
    if "before" in options.sections and not options.before:
        parser.error("--section before needs --before")
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def proxy_names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in PROXIES]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown proxy {unknown[0]!r}; known: {', '.join(PROXIES)}")
    return names


def find_tools(options: argparse.Namespace) -> dict[str, str]:
    """Full paths of all programs that this run needs; fails on the first that is missing."""
    wanted = ["nginx"]
    if {"cost", "syscalls", "storm"} & set(options.sections):
        wanted.append("wrk")
    if "before" in options.sections:
        wanted += ["wrk", "h2load", "valgrind"]
    if {"storm", "tls", "h2"} & set(options.sections):
        wanted.append("h2load")
    if {"tls", "h2"} & set(options.sections):
        wanted += ["curl", "openssl"]
    if "syscalls" in options.sections and "sidecar" in options.proxies:
        wanted.append("strace")
    if OF_PEERS & set(options.sections):
        wanted += sorted({name.removesuffix("-tcp") for name in options.proxies if not name.startswith("sidecar")} - {"nginx"})
    search = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    tools = {}
    for name in wanted:
        path = shutil.which(name, path=search)
        if name == "envoy":
            # The package's own command is a Python script around the binary; the binary itself is what is measured.
            path = next(map(str, ROOT.glob("target/venv/lib/python3*/site-packages/envoy/_bin/envoy")), path)
        if path is None:
            raise MissingError(f"{name} is missing; run tools/setup.sh bench")
        tools[name] = path
    if "routes" in options.sections and "sidecar" in options.proxies:
        tools["routes"] = str(options.sidecar.resolve().parent / "examples/bench-routes")
        if not os.access(tools["routes"], os.X_OK):
            raise MissingError(f"{tools['routes']} is missing; build it with 'make bench-build'")
    for name, binary in (("sidecar", options.sidecar), ("sidecar-unmeasured", options.unmeasured)):
        if name in options.proxies:
            if not os.access(binary, os.X_OK):
                raise MissingError(f"{binary} is missing; build it with 'make bench-build', or leave it out with --without {name}")
            tools[name] = str(binary.resolve())
    if "before" in options.sections:
        tools["sidecar-before"] = str(binary_before(options.before))
    return tools


def binary_before(wanted: str) -> Path:
    """A file as it is; a revision is built, once, in a work tree of its own and as `make bench-build` builds this one."""
    if Path(wanted).is_file():
        if not os.access(wanted, os.X_OK):
            raise MissingError(f"--before: {wanted} is not executable")
        return Path(wanted).resolve()
    asked = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{wanted}^{{commit}}"],
                           capture_output=True, text=True)
    if asked.returncode != 0:
        raise MissingError(f"--before: {wanted} is neither a file nor a revision")
    revision = asked.stdout.strip()
    folder = ROOT / "target/before" / revision[:12]
    binary = folder / "target/release/golden-sidecar"
    if not binary.exists():
        say(f"building {wanted} ({revision[:12]}) in {folder}")
        if not folder.exists():
            # Removing target/ leaves git with the memory of a work tree that is gone.
            subprocess.run(["git", "-C", str(ROOT), "worktree", "prune"], check=True)
            subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(folder), revision], check=True)
        built = subprocess.run(["cargo", "build", "--release", "--locked", "--bins", "--target-dir", str(folder / "target")], cwd=folder)
        if built.returncode != 0 or not binary.exists():
            raise BenchError(f"--before: {wanted} does not build")
    return binary


def run(options: argparse.Namespace, arguments: list[str]) -> int:
    """Runs the sections; gives the exit status."""
    tools = find_tools(options)
    if options.markdown and options.markdown.exists():
        # Before the minutes, not after them.
        split_at_markers(options.markdown)
    if not Path("/proc/self/schedstat").exists():
        raise MissingError("this kernel has no /proc/PID/schedstat (CONFIG_SCHED_INFO)")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise MissingError(f"two cores are needed, one for the proxy and one for load and backend; this process may use {len(cores)}")
    # Two descriptors per idle connection in the relay, and room for the rest.
    raise_file_limit(2 * options.idle_connections + 2000)
    load_core, proxy_core = cores[0], cores[1]
    os.sched_setaffinity(0, {load_core})
    reports: dict[str, Report] = {}
    place = {}
    with tempfile.TemporaryDirectory(prefix="golden-bench-") as directory:
        Path(directory).chmod(0o755)
        for name in options.sections:
            if name not in OF_PEERS and "sidecar" not in options.proxies:
                say(f"section {name}: left out, as it measures the sidecar only")
                continue
            say(f"section {name}")
            report = reports[name] = Report()
            with contextlib.ExitStack() as stack:
                bench = Bench(options, tools, load_core, proxy_core, Path(directory), stack)
                place = place or machine(bench)
                SECTIONS[name](bench, report)
    bars = [bar for report in reports.values() for bar in report.bars]
    if bars:
        print("\n" + plain_table("Bars", BAR_HEADER, bar_rows(bars)))
    if place:
        print("\n" + "\n".join(f"{key}: {value}" for key, value in place.items()))
    if options.json:
        data = {key: value for report in reports.values() for key, value in report.data.items()}
        rows = [{"name": bar.name, "measured": bar.measured, "limit": bar.limit, "unit": bar.unit, "holds": bar.holds} for bar in bars]
        options.json.write_text(json.dumps({"machine": place, "bars": rows, **data}, indent=1) + "\n")
    written = {name: report for name, report in reports.items() if report.parts}
    if options.markdown and written:
        command = "make bench" + repeat_arguments(arguments)
        texts = {name: section_markdown(name, report, place, command) for name, report in written.items()}
        write_markdown(options.markdown, texts, list(SECTIONS))
    missed = [bar for bar in bars if not bar.holds]
    for bar in missed:
        say(f"bar missed: {bar.name}: {bar.measured:.2f} {bar.unit}, limit {bar.limit:.2f} {bar.unit}")
    return 1 if missed else 0


class Interrupted(BaseException):
    """A signal asked us to end; everything started is ended on the way out."""


def main() -> int:
    def interrupt(number: int, _frame) -> None:
        # Once is enough: a second signal must not stop the clearing up.
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    options = parse_arguments(sys.argv[1:])
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, interrupt)
    try:
        # A file's folder is of this machine, and what is written is for all.
        shown = [Path(text).name if text == options.before else text for text in sys.argv[1:]]
        return run(options, shown)
    except Interrupted as interrupted:
        say("bench: interrupted; everything that was started is ended")
        return 128 + interrupted.args[0]
    except MissingError as error:
        say(f"bench: {error}")
        return 2
    except BenchError as error:
        say(f"bench: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
