"""What the sections found, as text for people, and the place in the README where it goes."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import Bench, MissingError
from proxies import TITLES

MARK_BEGIN = "<!-- bench:begin -->"
MARK_END = "<!-- bench:end -->"
# Before what one section wrote, so that another one can be measured alone.
MARK_SECTION = "<!-- bench:section {} -->"


@dataclass
class Bar:
    """One promise: `measured <= limit`, in `unit`."""

    name: str
    measured: float
    limit: float
    unit: str

    @property
    def holds(self) -> bool:
        return self.measured <= self.limit


@dataclass
class Report:
    """What a section found: tables and notes for people (Markdown, in order), `data` for programs."""

    parts: list[str] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    data: dict = field(default_factory=dict)

    def table(self, title: str, header: list[str], rows: list[list[str]]) -> None:
        self.parts.append(markdown_table(title, header, rows))
        print("\n" + plain_table(title, header, rows), flush=True)

    def note(self, text: str) -> None:
        self.parts.append(text)
        print(text, flush=True)


def plain_table(title: str, header: list[str], rows: list[list[str]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        return "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))).rstrip()

    return "\n".join([title, line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def markdown_table(title: str, header: list[str], rows: list[list[str]]) -> str:
    lines = [f"**{title}**", "", "| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def bar_rows(bars: list[Bar]) -> list[list[str]]:
    return [
        [bar.name, f"{bar.measured:.2f} {bar.unit}".strip(), f"≤ {bar.limit:.2f} {bar.unit}".strip(), "holds" if bar.holds else "MISSED"]
        for bar in bars
    ]


BAR_HEADER = ["bar", "measured", "limit", ""]


def machine(bench: Bench) -> dict[str, str]:
    """Where and with what it was measured."""
    def first_line(*command: str) -> str:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return next(iter((ran.stdout + ran.stderr).strip().splitlines()), "?").strip()

    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    flags = {"nginx": "-v", "haproxy": "-v", "wrk": "-v", "envoy": "--version", "strace": "-V", "valgrind": "--version", "h2load": "--version", "sidecar": "--version"}
    versions = {}
    for name, flag in flags.items():
        if name in bench.tools:
            words = first_line(bench.tools[name], flag)
            # The first thing in the line that looks like a version; Envoy writes it between slashes.
            found = re.search(r"\b\d+\.\d+[.\w+~-]*", words)
            versions[TITLES.get(name, name)] = found[0] if found else words
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "CPU": f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


HEAD = (
    "The proxy has one core to itself, the load (wrk, h2load or curl) and the backend (nginx) share the other; peers and sidecar take turns in one run. "
    "Each section says when, where and with what it was measured."
)


def section_markdown(name: str, report: Report, place: dict[str, str], command: str) -> str:
    where = f"{place['date']}, {place['CPU']}; Linux {place['kernel']}; {place['versions']}"
    parts = [f"`{name}`: {where}. `{command}`", *report.parts]
    if report.bars:
        parts.append(markdown_table("Bars", BAR_HEADER, bar_rows(report.bars)))
    return "\n\n".join(parts)


def write_markdown(path: Path, sections: dict[str, str], order: Sequence[str]) -> None:
    """Replaces these sections between the markers and keeps the others; a file that does not exist is made of the
    markers alone."""
    before, old, after = split_at_markers(path) if path.exists() else ("", "", "\n")
    _, *pieces = re.split(MARK_SECTION.format(r"(\w+)"), old)
    kept = {name: text.strip() for name, text in zip(pieces[::2], pieces[1::2])}
    sections = {**kept, **sections}
    parts = [HEAD, *(f"{MARK_SECTION.format(name)}\n{sections[name]}" for name in order if name in sections)]
    path.write_text(before + MARK_BEGIN + "\n" + "\n\n".join(parts) + "\n" + MARK_END + after)


def split_at_markers(path: Path) -> tuple[str, str, str]:
    before, begin, rest = path.read_text().partition(MARK_BEGIN)
    between, end, after = rest.partition(MARK_END)
    if not begin or not end:
        raise MissingError(f"--markdown: {path} has no lines {MARK_BEGIN} and {MARK_END} to write between")
    return before, between, after


def repeat_arguments(arguments: list[str]) -> str:
    """How `make bench` takes them; where results are written to is left out."""
    kept = re.sub(r"--(markdown|json)[ =]\S+ ?", "", " ".join(arguments)).strip()
    return f' BENCH_ARGS="{kept}"' if kept else ""
