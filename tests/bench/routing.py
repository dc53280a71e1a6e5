"""What it costs to decide whom to ask: each strategy over ten providers, without the permit's round trip."""

import time
from decimal import Decimal

from bench.report import Budget, Finding
from bench.section import Size

from shared.catalogue import Provider
from workers.routing import rank
from workers.strategies import STRATEGIES
from workers.strategies.records import RoutedJob, View

PROVIDERS = 10


def providers(count: int) -> list[Provider]:
    return [
        Provider(
            id=f"p{n}",
            endpoint="http://127.0.0.1:1/v1",
            weight=n % 3 + 1,
            priority=n,
            models={"*": "*"},
            capabilities=frozenset({"tools", "json_schema"}),
            context_tokens=128_000,
            max_tokens=16_000,
        )
        for n in range(count)
    ]


def _views() -> dict[str, View]:
    """A fleet with everything to decide upon: some alike, one that hangs, one back since just now, one away."""
    views = {
        f"p{n}": View(
            answers=100,
            latency_s=1.0 + 0.1 * n,
            latest_s=1.5 - 0.1 * n,
            per_token_s=0.01 + 0.001 * n,
            success_rate=1.0 - 0.04 * n,
            in_flight=n,
            oldest_s=0.2 * n,
            price=Decimal(n) / 1000,
            recovered_at=time.time() if n == 0 else 0.0,
        )
        for n in range(PROVIDERS - 1)
    }
    return {**views, f"p{PROVIDERS - 1}": View(serving=False)}


def _timed(strategy: str, count: int) -> list[float]:
    """Seconds of each decision, sorted; every tenth job has failed at two providers before."""
    fleet, views, took = providers(PROVIDERS), _views(), []
    rule, needs, budget, now = STRATEGIES[strategy], frozenset({"tools"}), Decimal("0.005"), time.time()
    for n in range(count):
        tried = ("p3", "p4") if n % 10 == 0 else ()
        job = RoutedJob("m", n, tried, 500, 300, 200, needs, None, 60.0, budget)
        started = time.perf_counter()
        rank(rule, job, fleet, views, now)
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
