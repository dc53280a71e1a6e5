"""What a crash test has seen, for the table that `make faults` prints and ops/docs/faults.md keeps."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.simulator import Simulator

if TYPE_CHECKING:
    from support.stack import Stack

WRITTEN_S = 0.5


@dataclass
class Figures:
    """`again`: jobs that a provider answered more than once. `refused`: answers that were not their job's first.

    `settled_s`: from the last fault to the last job's end.
    """

    case: str
    what: str
    pool: str
    jobs: int
    faults: int = 0
    again: int = 0
    refused: int = 0
    lost: int = 0
    doubled: int = 0
    settled_s: float = 0.0

    @property
    def row(self) -> str:
        return (
            f"| {self.case} | {self.what} | {self.pool} | {self.jobs:,} | {self.faults} | {self.lost} | {self.doubled}"
            f" | {self.again} | {self.refused} | {self.settled_s:.1f} |"
        )


HEAD = (
    "| case | what | pool | jobs | faults | lost | doubled | called again | refused | settled after (s) |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass
class Report:
    """Figures of one test run, in the order in which they came."""

    rows: list[Figures] = field(default_factory=list)

    @contextmanager
    def of(self, what: str, pool: str, jobs: int, case: str = "") -> Iterator["Trial"]:
        """One trial of a case of the suite (F1 ...); its figures are kept where the test fails, too."""
        trial = Trial(Figures(case, what, pool, jobs))
        self.rows.append(trial.figures)
        yield trial


class Trial:
    """Counts what is done to the stack."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures
        self.at: list[float] = []

    def fault(self, do: Callable[[], object]) -> None:
        do()
        self.at.append(time.time())
        self.figures.faults = len(self.at)

    def settled(self) -> None:
        self.figures.settled_s = time.time() - self.at[-1]

    def tell(self, stack: "Stack", ended: int, at: list[float]) -> None:
        """All have ended now: so many, each once (asserted before); `at` are the faults, Unix seconds."""
        self.at = list(at)
        figures = self.figures
        figures.faults, figures.lost = len(at), figures.jobs - ended
        figures.again = sum(called_again(stack.simulator).values())
        self.settled()

    def count(self, simulator: Simulator, answers: int, distinct: int) -> None:
        """`answers` that reached their callers or files, `distinct` jobs among them; the provider is the witness."""
        figures = self.figures
        figures.lost, figures.doubled = figures.jobs - distinct, answers - distinct
        figures.again = sum(called_again(simulator).values())


def _refused(call: dict[str, Any]) -> bool:
    return isinstance(call["status"], int) and call["status"] >= 400


def called_again(simulator: Simulator) -> dict[str, int]:
    """By the body's hash: how many calls beyond the first, without those that the provider refused."""
    calls = Counter(call["body_sha256"] for call in simulator.calls() if not _refused(call))
    return {body: count - 1 for body, count in calls.items() if count > 1}


def needless(simulator: Simulator, killed_at: list[float]) -> list[str]:
    """Bodies that were called again though no kill (Unix seconds) came while the call before was under way.

    A little after its end counts as under way: the answer is with the worker, and not yet in the ledger.
    """
    before: dict[str, dict[str, Any]] = {}
    found = []
    for call in simulator.calls():
        if _refused(call):
            continue
        earlier = before.get(call["body_sha256"])
        before[call["body_sha256"]] = call
        if earlier is not None and not any(
            earlier["received_at"] - WRITTEN_S <= at <= (earlier["ended_at"] or at) + WRITTEN_S
            for at in killed_at
        ):
            found.append(call["prompt"])
    return found
