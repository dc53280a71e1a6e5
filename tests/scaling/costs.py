"""What a stretch of work costs a Redis server, by its own counters: the difference of two `INFO`s."""

import time
from dataclasses import dataclass, fields
from typing import Any

from redis import Redis

_OWN = ("cmdstat_info",)
"""What measuring itself adds; `INFO memory` of workers is told apart by whoever plays them."""


@dataclass(frozen=True)
class Cost:
    """Since a reading, or a share of it. `commands`: those inside scripts and those outside, the scripts themselves apart."""

    scripts: float = 0.0
    commands: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0
    cpu_s: float = 0.0
    memory: float = 0.0
    wall_s: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: "Cost") -> "Cost":
        return self + other.per(-1)

    def per(self, count: float) -> "Cost":
        return Cost(*(getattr(self, f.name) / count for f in fields(self)))

    @property
    def cpu_us(self) -> float:
        return 1e6 * self.cpu_s

    def cells(self) -> list[str]:
        """Under COLUMNS."""
        return [
            f"{self.scripts:,.3f}",
            f"{self.commands:,.2f}",
            f"{self.bytes_in:,.0f}",
            f"{self.bytes_out:,.0f}",
            f"{self.cpu_us:,.1f}",
        ]


COLUMNS = ["script calls", "commands", "bytes to Redis", "bytes from it", "Redis CPU, µs"]


class Meter:
    """Counts from its making on."""

    def __init__(self, client: "Redis", *, count_info: bool = False) -> None:
        self._client = client
        self._left_out = () if count_info else _OWN
        self._before = self._read()

    def spent(self) -> Cost:
        return self._read() - self._before

    def _read(self) -> Cost:
        info: Any = self._client.info("everything")
        calls = {name: row["calls"] for name, row in info.items() if name.startswith("cmdstat_")}
        scripts = calls.pop("cmdstat_evalsha", 0)
        return Cost(
            scripts=scripts,
            commands=sum(n for name, n in calls.items() if name not in self._left_out),
            bytes_in=info["total_net_input_bytes"],
            bytes_out=info["total_net_output_bytes"],
            cpu_s=info["used_cpu_user"] + info["used_cpu_sys"],
            memory=info["used_memory"],
            wall_s=time.monotonic(),
        )
