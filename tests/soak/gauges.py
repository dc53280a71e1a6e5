"""What must not grow while the stack runs: memory, descriptors and threads of its processes, connections of Redis."""

import time
from collections.abc import Mapping, Sequence

import msgspec
import psutil
import redis

MIB = 1024 * 1024


class Sample(msgspec.Struct, frozen=True):
    """One look at one process. `at` in seconds since the start; `rss` in bytes.

    `sockets` are those connected to others, which pools keep open; `descriptors` all the others.
    """

    at: float
    rss: int
    descriptors: int
    sockets: int
    threads: int


class Store(msgspec.Struct, frozen=True):
    """One look at Redis, whose clients are `connections`."""

    at: float
    keys: int
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
                    sockets = sum(bool(c.raddr) for c in process.net_connections("tcp"))
                    sample = Sample(
                        self.now,
                        process.memory_info().rss,
                        max(0, process.num_fds() - sockets),
                        sockets,
                        process.num_threads(),
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
        space = told.get("db0", {"keys": 0})
        return Store(self.now, int(space["keys"]), int(told["connected_clients"]), int(told["used_memory"]))


class Slope(msgspec.Struct, frozen=True):
    """Growth an hour, and its standard error. Both 0 of fewer than three points."""

    an_hour: float
    error: float


def slope(points: Sequence[tuple[float, float]]) -> Slope:
    """By least squares over (seconds, value).

    b = sum((x - mx)(y - my)) / sxx with sxx = sum((x - mx)^2), and its standard error sqrt(sum(residual^2) / (n - 2) / sxx).
    """
    count = len(points)
    if count < 3:
        return Slope(0.0, 0.0)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        return Slope(0.0, 0.0)
    found = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - found * (x - mean_x)) ** 2 for x, y in points)
    return Slope(3600 * found, 3600 * (rest / (count - 2) / spread) ** 0.5)


def by_minute(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The mean of each minute: looks a few seconds apart say nearly the same, and would make a slope look surer than it is."""
    minutes: dict[int, list[tuple[float, float]]] = {}
    for at, value in points:
        minutes.setdefault(int(at // 60), []).append((at, value))
    return [
        (sum(at for at, _ in m) / len(m), sum(value for _, value in m) / len(m)) for m in minutes.values()
    ]


def level(values: Sequence[float], *, late: bool) -> float:
    """The median of the first, or the last, third: what a count was, and what it has become."""
    third = max(1, len(values) // 3)
    part = sorted(values[-third:] if late else values[:third])
    return part[len(part) // 2] if part else 0.0
