"""Where and when figures were taken, told beside them."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.tools import ROOT

LOOK_S = 2.0
"""How long the machine is looked at before each section: on a busy one figures mean little."""


def context(scale: float) -> dict[str, Any]:
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


def taken(context: dict[str, Any], busy: float) -> str:
    shortened = "" if context["scale"] == 1 else f", **shortened to {context['scale']:g}**"
    return (
        f"{context['at']} at {context['commit']}, Python {context['python']}, {context['cores']} cores of"
        f" {context['cpu']}, {busy:.0f} % busy before{shortened}"
    )
