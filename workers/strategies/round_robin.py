"""In turn, by weight."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import gcd

from shared.catalogue import Provider
from workers.strategies.records import UNKNOWN, RoutedJob, View


def round_robin(
    job: RoutedJob,
    providers: Sequence[Provider],
    views: Mapping[str, View],
    now: float,  # noqa: ARG001  a strategy's signature
) -> list[Provider]:
    """Of every `sum(weights)` turns in a row each provider is first `weight` times, spread out; who cannot be called comes last."""
    serving: list[Provider] = []
    shut: list[Provider] = []
    for p in providers:
        (serving if views.get(p.id, UNKNOWN).serving else shut).append(p)
    return _in_turn(job.turn, serving) + _in_turn(job.turn, shut)


def _in_turn(turn: int, providers: Sequence[Provider]) -> list[Provider]:
    if not providers:
        return []
    cycle = _cycle(tuple(p.weight for p in providers))
    first = cycle[turn % len(cycle)]
    return [*providers[first:], *providers[:first]]


@lru_cache(maxsize=256)
def _cycle(weights: tuple[int, ...]) -> tuple[int, ...]:
    """Smooth weighted round robin (nginx): each step adds the weights, takes the highest and subtracts the sum from it."""
    common = gcd(*weights)
    weights = tuple(weight // common for weight in weights)
    total, current = sum(weights), [0] * len(weights)
    order = []
    for _ in range(total):
        current = [c + w for c, w in zip(current, weights, strict=True)]
        best = current.index(max(current))
        current[best] -= total
        order.append(best)
    return tuple(order)
