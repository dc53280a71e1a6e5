"""`python -m tests.bench.routing [small|full]`: what one routing decision costs. Prints; asserts nothing. Budget: P99 < 0.1 ms."""

import gc
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.shown import show
from bench.table import Table

from shared.catalogue import Provider
from workers.routing import STRATEGIES, RoutedJob, rank

PROVIDERS = 10
DECISIONS = {"small": 20_000, "full": 500_000}


def rows(size: str) -> Table:
    known = [
        Provider(id=f"p{n}", endpoint=f"http://127.0.0.1:9/{n}/v1", weight=1 + n % 3, priority=n)
        for n in range(PROVIDERS)
    ]
    cases = [(strategy, tried) for strategy in sorted(STRATEGIES) for tried in ((), ("p0", "p3"))]
    return Table(
        name=f"one routing decision among {PROVIDERS} providers",
        head=["strategy", "tried before", "P50 µs", "P99 µs", "P99.9 µs"],
        rows=[
            [strategy, str(len(tried)), *_timed(strategy, tried, known, DECISIONS[size])]
            for strategy, tried in cases
        ],
        notes=f"{DECISIONS[size]:,} single decisions each, the clock's own cost included; budget: P99 < 100 µs",
    )


def _timed(strategy: str, tried: tuple[str, ...], known: list[Provider], count: int) -> list[str]:
    """P50, P99 and P99.9 in microseconds."""
    jobs = [RoutedJob("gpt-4o-mini", turn, tried) for turn in range(count)]
    gc.collect()
    clock, taken = time.perf_counter_ns, []
    for job in jobs:
        begun = clock()
        rank(strategy, job, known)
        taken.append(clock() - begun)
    taken.sort()
    return [f"{taken[int(count * share)] / 1000:.1f}" for share in (0.5, 0.99, 0.999)]


if __name__ == "__main__":
    show(rows)
