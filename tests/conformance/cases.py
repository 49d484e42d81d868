"""A case, a suite's list of them, and how they are run: each ends as passed, or as failed with a reason."""

import concurrent.futures
import dataclasses
import time
import traceback
from typing import Callable

# Longest that one case may wait for something to come. What must come does so at once; a loaded machine needs more.
PATIENCE = 8.0


class Fault(AssertionError):
    """What the proxy did, and what it should have done."""


def require(condition, reason) -> None:
    """Ends the case with this reason unless the condition holds. `reason` may be a function, for what is dear to say."""
    if not condition:
        raise Fault(reason() if callable(reason) else reason)


@dataclasses.dataclass(frozen=True)
class Case:
    """`section`: where the rule stands, for example "RFC 9113, 6.5.2". `run` gets the target and raises a `Fault`."""

    section: str
    name: str
    run: Callable
    # Others must not run beside it: it counts, or it fills something.
    alone: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    case: Case
    reason: str | None
    seconds: float


class Cases(list):
    """The cases of a suite; `@cases.case(section, name)` adds one."""

    def case(self, section: str, name: str, alone: bool = False):
        def add(run):
            self.add(section, name, run, alone)
            return run

        return add

    def add(self, section: str, name: str, run, alone: bool = False) -> None:
        if any(case.name == name and case.section == section for case in self):
            raise ValueError(f"two cases are called {section}: {name}")
        self.append(Case(section, name, run, alone))


def run(cases: list[Case], target, workers: int) -> list[Result]:
    """Runs all, `workers` at a time, then those that must be alone. In the order given."""

    def one(case: Case) -> Result:
        start = time.monotonic()
        try:
            case.run(target)
            reason = None
        except Fault as fault:
            reason = str(fault)
        except Exception as error:  # noqa: BLE001 - whatever a library says about the proxy's answer is the reason
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error} ({place.filename.rsplit('/', 1)[-1]}:{place.lineno})"
        return Result(case, reason, time.monotonic() - start)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = {case: pool.submit(one, case) for case in cases if not case.alone}
        results = {case: future.result() for case, future in futures.items()}
    for case in cases:
        if case.alone:
            results[case] = one(case)
    return [results[case] for case in cases]
