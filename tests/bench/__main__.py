"""`make bench`: what the system does on this machine, and its rivals beside it in the same run. Asserts nothing.

Absolute figures are the machine's; the ratios are what counts. `python -m tests.bench --help` lists the sections.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
from bench.report import Finding, markdown, put, show, write_json
from bench.section import Size
from bench.tools import ROOT, ensure_tools
from rich.console import Console

LOOK_S = 2.0
"""How long the machine is looked at before each section: on a busy one figures mean little."""

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
    console, size, context = Console(), Size(asked.scale), _context(asked.scale)
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
            text = markdown(finding, _taken(context, busy), f"make bench ONLY={name}")
            PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), name, text), encoding="utf-8")
        if asked.json:
            write_json(asked.json, context, findings)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", default="", metavar="A,B", help=f"some of: {', '.join(SECTIONS)}")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="below 1: smaller and shorter, to try it out"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures as JSON as well")
    parser.add_argument("--page", action="store_true", help=f"write the tables into {PAGE.relative_to(ROOT)}")
    return parser.parse_args()


def _context(scale: float) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "scale": scale,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = next((line for line in lines if line.startswith("model name")), "")
    return found.partition(":")[2].strip() or platform.processor() or platform.machine()


def _taken(context: dict[str, Any], busy: float) -> str:
    shortened = "" if context["scale"] == 1 else f", **shortened to {context['scale']:g}**"
    return (
        f"{context['at']} at {context['commit']}, Python {context['python']}, {context['cores']} cores of"
        f" {context['cpu']}, {busy:.0f} % busy before{shortened}"
    )


if __name__ == "__main__":
    main()
