"""The cheapest for this very job, as long as it is well."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

from shared.catalogue import Provider
from workers.strategies.records import UNKNOWN, RoutedJob, View, chance

FLOOR = 0.8
"""Below this success rate a provider comes after all healthy ones, however cheap."""

TRIAL = 0.02
"""The share of jobs that tries a cheaper one below the floor: without it nobody would see that it is well again."""

_WELL, _UNWELL, _SHUT = range(3)
_NOTHING = Decimal(0)


def cost_optimized(
    job: RoutedJob,
    providers: Sequence[Provider],
    views: Mapping[str, View],
    now: float,  # noqa: ARG001  a strategy's signature
) -> list[Provider]:
    """By the job's price there, unknown prices after known ones, ties by latency, then as in the file.

    After the healthy ones come those below FLOOR, those that cannot be called; and after all of these whoever is dearer than the job's budget.
    """
    known = [(p, views.get(p.id, UNKNOWN)) for p in providers]
    known.sort(key=lambda pair: _key(pair[1], job.budget))  # stable: ties stay as in the file
    first = _on_trial(job, known)
    if first:
        known.insert(0, known.pop(first))
    return [p for p, _ in known]


def _key(view: View, budget: Decimal | None) -> tuple[bool, int, bool, Decimal, float]:
    price = view.price
    return (
        _too_dear(price, budget),
        _health(view),
        price is None,
        _NOTHING if price is None else price,
        view.latency_s or math.inf,
    )


def _too_dear(price: Decimal | None, budget: Decimal | None) -> bool:
    return price is not None and budget is not None and price > budget


def _health(view: View) -> int:
    if not view.serving:
        return _SHUT
    return _UNWELL if view.success_rate < FLOOR else _WELL


def _on_trial(job: RoutedJob, known: Sequence[tuple[Provider, View]]) -> int:
    """The place of the one that this job tries; 0 where it tries none. One job of a worker at a time, and none that has failed before."""
    drawn = chance(job.turn)
    if drawn >= TRIAL or job.tried or not known:
        return 0
    best = known[0][1].price
    places = [
        n
        for n, (_, view) in enumerate(known)
        if view.success_rate < FLOOR
        and view.serving
        and view.in_flight == 0
        and view.price is not None
        and not _too_dear(view.price, job.budget)
        and (best is None or view.price < best)
    ]
    return places[int(drawn / TRIAL * len(places))] if places else 0
