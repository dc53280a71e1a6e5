"""Routing strategies: pure functions from a job and the providers to the order in which to ask them, by name."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec

from shared.catalogue import Provider


class RoutedJob(msgspec.Struct, frozen=True):
    """What a strategy may know of a job. `turn` differs from job to job; `tried` are providers that failed it, the last one last."""

    model: str
    turn: int = 0
    tried: tuple[str, ...] = ()


Strategy = Callable[[RoutedJob, Sequence[Provider]], list[Provider]]


def eligible(job: RoutedJob, providers: Sequence[Provider]) -> list[Provider]:
    """Those that are enabled and serve the job's model."""
    return [p for p in providers if p.enabled and p.model_for(job.model) is not None]


def round_robin(job: RoutedJob, providers: Sequence[Provider]) -> list[Provider]:
    """In turn, by weight: of every `sum(weights)` consecutive turns each provider is first `weight` times, spread out."""
    if not providers:
        return []
    cycle = _cycle(tuple(p.weight for p in providers))
    first = cycle[job.turn % len(cycle)]
    return [*providers[first:], *providers[:first]]


@lru_cache(maxsize=256)
def _cycle(weights: tuple[int, ...]) -> tuple[int, ...]:
    """Smooth weighted round robin (nginx): each step adds the weights, takes the highest and subtracts the sum from it."""
    total, current = sum(weights), [0] * len(weights)
    order = []
    for _ in range(total):
        current = [c + w for c, w in zip(current, weights, strict=True)]
        best = max(range(len(weights)), key=lambda i: (current[i], -i))
        current[best] -= total
        order.append(best)
    return tuple(order)


def failover(job: RoutedJob, providers: Sequence[Provider]) -> list[Provider]:  # noqa: ARG001  a strategy's signature
    """By priority, lowest first; equals in the order of the file."""
    return sorted(providers, key=lambda p: p.priority)


STRATEGIES: dict[str, Strategy] = {"round_robin": round_robin, "failover": failover}


def rank(strategy: str, job: RoutedJob, providers: Sequence[Provider]) -> list[Provider]:
    """Whom to ask, best first: the strategy's order, with those that failed this job last (the latest failure at the very end)."""
    order = STRATEGIES[strategy](job, eligible(job, providers))
    if not job.tried:
        return order
    failed = {provider_id: n for n, provider_id in enumerate(job.tried)}
    return sorted(order, key=lambda p: failed.get(p.id, -1))
