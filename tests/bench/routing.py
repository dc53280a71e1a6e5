"""What it costs to decide whom to ask: each strategy over ten providers, without the permit's round trip."""

import time

from bench.report import Budget, Finding
from bench.section import Size

from shared.catalogue import Provider
from workers.routing import STRATEGIES, RoutedJob, rank

PROVIDERS = 10


def providers(count: int) -> list[Provider]:
    return [
        Provider(
            id=f"p{n}", endpoint="http://127.0.0.1:1/v1", weight=n % 3 + 1, priority=n, models={"*": "*"}
        )
        for n in range(count)
    ]


def _timed(strategy: str, count: int) -> list[float]:
    """Seconds of each decision, sorted; every tenth job has failed at two providers before."""
    fleet, took = providers(PROVIDERS), []
    for n in range(count):
        job = RoutedJob(model="m", turn=n, tried=("p3", "p4") if n % 10 == 0 else ())
        started = time.perf_counter()
        rank(strategy, job, fleet)
        took.append(time.perf_counter() - started)
    return sorted(took)


def run(size: Size) -> Finding:
    count = size.jobs(100_000)
    found = {name: _timed(name, count) for name in STRATEGIES}
    ms = {
        name: (1000 * took[len(took) // 2], 1000 * took[int(0.99 * len(took))])
        for name, took in found.items()
    }
    worst = max(p99 for _, p99 in ms.values())
    return Finding(
        title=f"Routing decision, {PROVIDERS} providers",
        columns=["strategy", "P50 ms", "P99 ms"],
        rows=[[name, f"{p50:.4f}", f"{p99:.4f}"] for name, (p50, p99) in ms.items()],
        budgets=[Budget("a decision, P99", "< 0.1 ms", f"{worst:.4f} ms", worst < 0.1)],
        figures={"ms": ms},
    )
