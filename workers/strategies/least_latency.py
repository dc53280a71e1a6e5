"""The one expected to answer this job soonest, without a herd, and without forgetting the others.

Four things keep it from the known weakness of "always the fastest": each provider is asked a few times before it is judged
(warm-up); a small share of the jobs goes to the others, so that one that got faster is noticed (exploration); those nearly as
fast as the best share with it, the less the slower they are, so that no small change moves much (damping); and a call under
way is an observation, too, so that one that hangs is left before its answer comes.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from shared.catalogue import Provider
from workers.strategies.records import UNKNOWN, WARM_UP, RoutedJob, View, call_s, chance

EXPLORE = 0.02
"""The share of jobs that goes to the others in turn."""

SECOND_CHANCE = 0.03
"""And the share that goes to those of them that are new, or whose latest answer was quicker than the best one's usual."""

BAND = 0.4
"""Who takes so much longer than the best gets nothing of the rest, who is as fast gets as much; between them in a straight line.

With two providers that get slower under load, 0.2 swings to and fro and 0.4 does not (tests/unit/test_least_latency.py).
"""

WELL = 0.5
"""Below this success rate nobody is warmed up: its breaker is about to open."""

_LEAST_RATE = 0.05
_LEAST_S = 1e-6


class _Rated(NamedTuple):
    """A provider in the order of its fields; `place` is where it stands in the file."""

    shut: bool
    cold: bool
    expected_s: float
    place: int
    provider: Provider
    view: View


def least_latency(
    job: RoutedJob,
    providers: Sequence[Provider],
    views: Mapping[str, View],
    now: float,  # noqa: ARG001  a strategy's signature
) -> list[Provider]:
    """By expected time, those not judged yet after the others, those that cannot be called last; the first as described above."""
    rated = _rated(job, providers, views)
    callable_now = [r for r in rated if not r.shut]
    if len(callable_now) > 1:
        first = _first(job, callable_now)
        rated.remove(first)
        rated.insert(0, first)
    return [r.provider for r in rated]


def _rated(job: RoutedJob, providers: Sequence[Provider], views: Mapping[str, View]) -> list[_Rated]:
    known = [views.get(p.id, UNKNOWN) for p in providers]
    # like with like: the answer's length counts only where the time per token is known of all that are judged
    by_length = all(v.per_token_s > 0 for v in known if v.answers >= WARM_UP)
    tokens = (job.expected_output_tokens or 0) if by_length else 0
    return sorted(
        _Rated(not view.serving, view.answers < WARM_UP, expected_s(view, tokens), n, provider, view)
        for n, (provider, view) in enumerate(zip(providers, known, strict=True))
    )


def expected_s(view: View, output_tokens: int = 0) -> float:
    """How long this provider will take: a call there, over its success rate."""
    return max(call_s(view, output_tokens), _LEAST_S) / max(view.success_rate, _LEAST_RATE)


def _first(job: RoutedJob, rated: Sequence[_Rated]) -> _Rated:
    new = [r for r in rated if r.cold and r.view.success_rate >= WELL and _has_room(r.view)]
    if new and not job.tried and sum(r.view.answers for r in rated) < 2 * WARM_UP * len(rated):
        return _idlest(job, new)
    judged = [r for r in rated if not r.cold]
    if not judged:
        return _idlest(job, rated)
    best = judged[0]
    band = [r for r in judged if r.expected_s < (1 + BAND) * best.expected_s]
    drawn = chance(job.turn)
    side = EXPLORE + SECOND_CHANCE
    if drawn < side:
        return _aside(job, drawn, rated, band) or _shared(band, drawn / side)
    return _shared(band, (drawn - side) / (1 - side))


def _has_room(view: View) -> bool:
    return view.answers + view.in_flight < WARM_UP


def _idlest(job: RoutedJob, rated: Sequence[_Rated]) -> _Rated:
    """The one with the fewest answers and calls under way, equals in turn."""
    start = job.turn % len(rated)
    turned = [*rated[start:], *rated[:start]]
    return min(turned, key=lambda r: (r.view.in_flight + min(r.view.answers, WARM_UP), r.expected_s))


def _shared(band: Sequence[_Rated], drawn: float) -> _Rated:
    """Of those about as fast as the first: by chance, in proportion to how near they come to it."""
    best_s = band[0].expected_s
    weights = [1 - (r.expected_s / best_s - 1) / BAND for r in band]
    left = drawn * sum(weights)
    for r, weight in zip(band, weights, strict=True):
        left -= weight
        if left < 0:
            return r
    return band[0]


def _aside(job: RoutedJob, drawn: float, rated: Sequence[_Rated], band: Sequence[_Rated]) -> _Rated | None:
    """Whom this job explores, if anybody. Not one that a call hangs at already, nor one too slow for the job's deadline."""
    if job.tried:
        return None
    others = [r for r in rated if r not in band and _explorable(job, r)]
    if drawn >= EXPLORE:
        usual_s = band[0].view.latency_s
        others = [r for r in others if r.cold or 0 < r.view.latest_s < usual_s]
        drawn = (drawn - EXPLORE) / SECOND_CHANCE
    else:
        drawn /= EXPLORE
    return others[min(int(drawn * len(others)), len(others) - 1)] if others else None


def _explorable(job: RoutedJob, r: _Rated) -> bool:
    if job.left_s is not None and r.expected_s > job.left_s:
        return False
    if r.cold:
        return _has_room(r.view)
    return r.view.in_flight == 0 or r.view.oldest_s <= r.view.latency_s
