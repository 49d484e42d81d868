#!/usr/bin/env python3
"""Suites after rules and programs of others, run on loopback against the sidecar and its peers.

    run.py --sidecar PATH                          all suites against the sidecar
    run.py --sidecar PATH --suites http2,curl      some of them
    run.py --proxies nginx,haproxy --suites http2  against others; `direct` is the backend itself
    run.py --sidecar PATH --proxies all --markdown README.md

Each failed case is printed with its reason. The last line for a proxy and suite is `score PROXY SUITE PASSED/ALL`. The exit code is 0 when every
case of the sidecar passes, otherwise 1.
"""

import argparse
import datetime
import importlib
import pathlib
import platform
import sys
import time

import cases
import proxies

SUITES = ["http2", "load", "grpc", "websocket", "curl", "slow", "smuggling", "tls"]
PEERS = ["nginx", "haproxy", "envoy"]
NAMES = {"sidecar": "golden-sidecar", "nginx": "nginx", "haproxy": "HAProxy", "envoy": "Envoy", "direct": "direct"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sidecar", help="the program")
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--proxies", default="sidecar", help="sidecar, nginx, haproxy, envoy, direct, or all")
    parser.add_argument("--only", default="", help="cases whose section or name contains this")
    parser.add_argument("--markdown", metavar="FILE", help="write the scores between the marks in this file")
    parser.add_argument("--list", action="store_true", help="name the cases and run none")
    parser.add_argument("--verbose", action="store_true", help="name those that pass, too, with their seconds")
    arguments = parser.parse_args()
    suites = {name: importlib.import_module(f"suites.{name}") for name in arguments.suites.split(",")}
    if arguments.list:
        for name, suite in suites.items():
            for case in suite.CASES:
                print(f"{name}\t{case.section}\t{case.name}")
        return 0
    chosen = ["sidecar", *PEERS] if arguments.proxies == "all" else arguments.proxies.split(",")
    if "sidecar" in chosen and not arguments.sidecar:
        parser.error("--sidecar PATH is needed")
    sidecar = arguments.sidecar and str(pathlib.Path(arguments.sidecar).resolve())
    scores = {}
    failed = []
    for suite_name, suite in suites.items():
        for proxy in chosen:
            start = time.monotonic()
            results = against(suite, proxy, sidecar, arguments.only)
            for result in results:
                where = f"{proxy} {suite_name} | {result.case.section} | {result.case.name}"
                if result.reason is not None:
                    print(f"FAILED {where} -> {' '.join(result.reason.split())}")
                    failed += [f"`{suite_name}`: {result.case.section}, {result.case.name}"] * (proxy == "sidecar")
                elif arguments.verbose:
                    print(f"passed {where} ({result.seconds:.2f} s)")
            passed = sum(result.reason is None for result in results)
            scores[suite_name, proxy] = (passed, len(results))
            print(f"{len(results)} cases in {time.monotonic() - start:.1f} s")
            print(f"score {proxy} {suite_name} {passed}/{len(results)}", flush=True)
    if arguments.markdown:
        write(pathlib.Path(arguments.markdown), table(suites, chosen, scores, failed, sidecar))
    ours = [score for (_, proxy), score in scores.items() if proxy == "sidecar" or "sidecar" not in chosen]
    return 0 if all(passed == count for passed, count in ours) else 1


def against(suite, proxy: str, sidecar: str | None, only: str) -> list[cases.Result]:
    chosen = [case for case in suite.CASES if only in case.section or only in case.name]
    with suite.backend() as backend:
        limits = getattr(suite, "LIMITS", proxies.Limits())
        with proxies.start(proxy, suite.KIND, backend, sidecar, limits) as target:
            return cases.run(chosen, target, getattr(suite, "WORKERS", 8))


BEGIN, END = "<!-- conformance:begin -->", "<!-- conformance:end -->"


def table(suites, chosen, scores, failed, sidecar) -> str:
    versions = ", ".join(f"{NAMES[name]} {proxies.version(name, sidecar)}" for name in chosen)
    lines = [
        f"Measured on {datetime.date.today()}: {versions}; Linux {platform.release()}. To repeat: `make conformance`.",
        "",
        "| suite | rules | " + " | ".join(NAMES[name] for name in chosen) + " |",
        "|---|---|" + "---:|" * len(chosen),
    ]
    for name, suite in suites.items():
        cells = [f"{passed}/{count}" for passed, count in (scores[name, proxy] for proxy in chosen)]
        lines.append(f"| `{name}`: {suite.TITLE} | {suite.SOURCE} | " + " | ".join(cells) + " |")
    if failed:
        lines += ["", "What golden-sidecar fails:", "", *[f"- {case}" for case in failed]]
    return "\n".join(lines)


def write(path: pathlib.Path, text: str) -> None:
    whole = path.read_text()
    before, rest = whole.split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
