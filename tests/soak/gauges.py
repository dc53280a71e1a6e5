"""What must not grow while the stack runs: memory, descriptors and connections of its processes, keys that nothing will remove."""

import time
from collections.abc import Mapping, Sequence

import msgspec
import psutil
import redis

MIB = 1024 * 1024


class Sample(msgspec.Struct, frozen=True):
    """One look at one process. `at` in seconds since the start; `rss` in bytes."""

    at: float
    rss: int
    descriptors: int
    threads: int


class Store(msgspec.Struct, frozen=True):
    """One look at Redis. `kept` are keys without an expiry, `connections` its clients."""

    at: float
    keys: int
    kept: int
    connections: int
    used_bytes: int


class Gauges:
    """Looks at processes by name, as long as they live, and at Redis."""

    def __init__(self, client: "redis.Redis") -> None:
        self._redis = client
        self._started = time.monotonic()
        self.processes: dict[str, list[Sample]] = {}
        self.store: list[Store] = []

    @property
    def now(self) -> float:
        return time.monotonic() - self._started

    def look(self, pids: Mapping[str, int]) -> None:
        """A process that has gone is passed over; so is a Redis that is away."""
        for name, pid in pids.items():
            try:
                process = psutil.Process(pid)
                with process.oneshot():
                    sample = Sample(
                        self.now, process.memory_info().rss, process.num_fds(), process.num_threads()
                    )
            except psutil.Error:
                continue
            self.processes.setdefault(name, []).append(sample)
        try:
            self.store.append(self._look_at_store())
        except redis.RedisError:
            return

    def _look_at_store(self) -> Store:
        told = self._redis.info("all")
        assert isinstance(told, dict)
        space = told.get("db0", {"keys": 0, "expires": 0})
        return Store(
            self.now,
            int(space["keys"]),
            int(space["keys"]) - int(space["expires"]),
            int(told["connected_clients"]),
            int(told["used_memory"]),
        )


def slope_an_hour(points: Sequence[tuple[float, float]]) -> float:
    """Growth an hour by least squares of (seconds, value); 0 of fewer than two points."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return 3600 * sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def level(values: Sequence[float], *, late: bool) -> float:
    """The median of the first, or the last, third: what a count was, and what it has become."""
    third = max(1, len(values) // 3)
    part = sorted(values[-third:] if late else values[:third])
    return part[len(part) // 2] if part else 0.0
