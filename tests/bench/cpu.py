"""CPU seconds of processes with all their children, those that have ended included."""

import contextlib
from collections.abc import Mapping

import psutil

PROVIDER = "provider"


class Cpu:
    """What groups of processes have used since this was made; resolution 10 ms."""

    def __init__(self, **pids: list[int]) -> None:
        self._groups = {name: [psutil.Process(pid) for pid in found] for name, found in pids.items()}
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        return {name: sum(map(_family, found)) for name, found in self._groups.items()}

    def spent(self) -> dict[str, float]:
        return {name: after - self._before[name] for name, after in self._now().items()}


def _family(root: psutil.Process) -> float:
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now, and is among its parent's dead
            t = process.cpu_times()
            total += t.user + t.system + t.children_user + t.children_system
    return total


def ours_ms(cpu: Mapping[str, float], jobs: int) -> float:
    """CPU milliseconds a completion, in all processes but the provider's."""
    return 1000 * sum(s for name, s in cpu.items() if name != PROVIDER) / jobs


def parts_ms(cpu: Mapping[str, float], jobs: int) -> str:
    return ", ".join(f"{name} {1000 * seconds / jobs:.2f}" for name, seconds in cpu.items())
