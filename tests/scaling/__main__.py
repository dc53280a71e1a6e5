"""`make scaling`: what jobs, and workers, cost one Redis: millions and hundreds of them, with no provider called. Asserts that no job is lost.

The ledger, the gate and the files are the real ones on a real Valkey; the workers are simulated, but for the section
`real`. `python -m tests.scaling --help` lists the options.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from bench.machine import LOOK_S, context, taken
from bench.report import Finding, markdown, put, show, write_json
from bench.tools import ROOT
from rich.console import Console
from scaling import crowd, full, life, lonely, queued, real, riding
from scaling.filling import Filler
from scaling.scene import Scene, scene

PAGE = ROOT / "ops" / "docs" / "scaling.md"
WIDTH = 240
"""Columns are many: where the output goes through a pipe, they would be cut to 80 characters."""

LIFE_JOBS = 100_000
SECTIONS = ("life", "aof", "riding", "crowd", "queued", "intervals", "lone", "real", "full")


def main() -> None:
    asked = _asked()
    names = set(asked.only.split(",")) if asked.only else set(SECTIONS)
    if unknown := names - set(SECTIONS):
        raise SystemExit(f"no section {', '.join(sorted(unknown))}; there are: {', '.join(SECTIONS)}")
    teller = Teller(asked)
    if "full" in names:
        names |= full.NEEDED - set(teller.figures)
    if names & {"life", "riding", "lone"}:
        with scene() as made:
            _measure(teller, made, Filler(made), asked.jobs, asked.workers, names)
    if "crowd" in names:
        teller.tell("crowd", lambda: crowd.run(asked.workers))
    if "queued" in names:
        teller.tell("queued", lambda: queued.run(asked.jobs, asked.workers))
    if "intervals" in names:
        teller.tell("intervals", queued.intervals)
    if "aof" in names:
        teller.tell("aof", lambda: life.with_aof(asked.workers))
    if "real" in names:
        teller.tell("real", real.run)
    if "full" in names:
        teller.tell("full", lambda: full.run(teller.figures))
    teller.end()


def _measure(teller: "Teller", made: Scene, filler: Filler, jobs: int, workers: int, names: set[str]) -> None:
    """What one server bears in turn: it is emptied between."""
    sections: dict[str, Callable[[], Finding]] = {
        "life": lambda: life.run(made, filler, min(jobs, LIFE_JOBS), workers),
        "riding": lambda: riding.run(made, filler, workers),
        "lone": lambda: lonely.run(made, jobs),
    }
    for name, section in sections.items():
        if name in names:
            made.client.flushall()
            teller.tell(name, section)


class Teller:
    """Prints each section as it is found, and keeps it."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked = asked
        self._console = Console(width=WIDTH)
        self._context = context(1.0)
        self._findings: dict[str, Finding] = {}
        if asked.json and asked.json.exists():  # sections of an earlier run stay, and count in `full`
            kept = json.loads(asked.json.read_text())["sections"]
            self._findings = {name: Finding(**found) for name, found in kept.items()}
        self._began = time.monotonic()

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        return {name: finding.figures for name, finding in self._findings.items()}

    def tell(self, name: str, section: Callable[[], Finding]) -> None:
        busy, started = psutil.cpu_percent(LOOK_S), time.monotonic()
        finding = self._findings[name] = section()
        show(self._console, finding)
        self._console.print(
            f"  {name}: {time.monotonic() - started:.0f} s; before it the cores were {busy:.0f} % busy\n",
            style="dim",
        )
        if self._asked.page:
            command = f"make scaling JOBS={self._asked.jobs} WORKERS={self._asked.workers} ONLY={name}"
            text = markdown(finding, taken(self._context, busy), command)
            PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), name, text), encoding="utf-8")

        if self._asked.json:
            write_json(self._asked.json, self._context, self._findings)

    def end(self) -> None:
        self._console.print(
            f"{datetime.now(UTC):%H:%M} UTC, {time.monotonic() - self._began:.0f} s", style="dim"
        )


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.scaling", description=__doc__)
    parser.add_argument("--jobs", type=int, default=500_000, help="as many are queued at most (500,000)")
    parser.add_argument(
        "--workers", type=int, default=200, help="so many are simulated, and twice as many (200)"
    )
    parser.add_argument("--only", default="", metavar="A,B", help=f"some of: {', '.join(SECTIONS)}")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="the figures as JSON as well, beside those of earlier runs"
    )
    parser.add_argument("--page", action="store_true", help=f"write the tables into {PAGE.relative_to(ROOT)}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
