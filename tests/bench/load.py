"""Callers against one port or several, each port with a client process of its own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Mode = Literal["wait", "async"]
_CALLER = Path(__file__).with_name("caller.py")


@dataclass(frozen=True)
class Load:
    """What the callers saw. `latencies` in seconds, sorted; `client_s` is the client processes' own CPU."""

    latencies: list[float]
    wall_s: float
    client_s: float

    @property
    def count(self) -> int:
        return len(self.latencies)

    @property
    def per_s(self) -> float:
        return self.count / self.wall_s

    def ms(self, share: float) -> float:
        """The quantile in milliseconds: 0.5 is P50."""
        return 1000 * self.latencies[min(self.count - 1, int(share * self.count))]


def load(ports: Sequence[int], callers: int, seconds: float, mode: Mode = "wait") -> Load:
    """`callers` for each port. Raises CalledProcessError where an answer was not the expected one."""
    running = [
        subprocess.Popen(
            [sys.executable, str(_CALLER), str(port), str(callers), str(seconds), mode],
            stdout=subprocess.PIPE,
        )
        for port in ports
    ]
    try:
        said = [process.communicate(timeout=seconds + 60)[0] for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    for process in running:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    found: list[dict[str, Any]] = [json.loads(text) for text in said]
    latencies = sorted(latency for one in found for latency in one["latencies"])
    return Load(latencies, max(one["wall_s"] for one in found), sum(one["cpu_s"] for one in found))
