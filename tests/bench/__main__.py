"""`make bench`: what the system does on this machine, and its rivals beside it in the same run. Asserts nothing.

Absolute figures are the machine's; the ratios are what counts. `python -m tests.bench --help` lists the sections.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from bench import (
    acceptance,
    adaptive,
    flames,
    gate,
    interactive,
    lone,
    provider,
    routing,
    scaling,
    throughput,
)
from bench.machine import LOOK_S, context, taken
from bench.report import Finding, markdown, put, show, write_json
from bench.section import Size
from bench.tools import ROOT, ensure_tools
from rich.console import Console

PAGE = ROOT / "ops" / "docs" / "performance.md"

SECTIONS: dict[str, Callable[[Size], Finding]] = {
    "batch": throughput.instant,
    "batch-50ms": throughput.distant,
    "scaling": scaling.run,
    "acceptance": acceptance.run,
    "interactive": interactive.run,
    "lone": lone.run,
    "routing": routing.run,
    "gate": gate.run,
    "provider": provider.run,
    "adaptive": adaptive.run,
    "flames": flames.run,
}
NEED_TOOLS = {"batch", "batch-50ms", "flames"}


def main() -> None:
    asked = _asked()
    names = asked.only.split(",") if asked.only else list(SECTIONS)
    if unknown := set(names) - set(SECTIONS):
        raise SystemExit(f"no section {', '.join(sorted(unknown))}; there are: {', '.join(SECTIONS)}")
    if NEED_TOOLS.intersection(names):
        ensure_tools()
    console, size, machine = Console(), Size(asked.scale), context(asked.scale)
    findings: dict[str, Finding] = {}
    for name in names:
        busy = psutil.cpu_percent(LOOK_S)
        started = time.monotonic()
        finding = findings[name] = SECTIONS[name](size)
        show(console, finding)
        console.print(
            f"  {name}: {time.monotonic() - started:.0f} s; before it the cores were {busy:.0f} % busy\n",
            style="dim",
        )
        if asked.page:
            text = markdown(finding, taken(machine, busy), f"make bench ONLY={name}")
            PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), name, text), encoding="utf-8")
        if asked.json:
            write_json(asked.json, machine, findings)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", default="", metavar="A,B", help=f"some of: {', '.join(SECTIONS)}")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="below 1: smaller and shorter, to try it out"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures as JSON as well")
    parser.add_argument("--page", action="store_true", help=f"write the tables into {PAGE.relative_to(ROOT)}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
