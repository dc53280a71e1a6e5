"""By priority, with a slow return of the first when it is back."""

from collections.abc import Mapping, Sequence

from shared.catalogue import Provider
from workers.strategies.records import UNKNOWN, RoutedJob, View, chance

SLOW_START_S = 30.0
FIRST_SHARE = 0.1
"""What a provider that has just recovered is given of its jobs; from there on it grows in a straight line."""


def failover(
    job: RoutedJob,
    providers: Sequence[Provider],
    views: Mapping[str, View],
    now: float,
    *,
    slow_start_s: float = SLOW_START_S,
) -> list[Provider]:
    """Lowest priority number first, equals in the order of the file; who cannot be called last. Who is full is passed over by the gate.

    One that recovered less than `slow_start_s` ago takes only its share; the next in line that takes the job gets the rest.
    """
    known = [(not views.get(p.id, UNKNOWN).serving, p.priority, n, p) for n, p in enumerate(providers)]
    known.sort()
    order = [p for *_, p in known]
    line = [p for shut, *_, p in known if not shut]
    first = _taker(job, line, [_share(views.get(p.id, UNKNOWN), now, slow_start_s) for p in line])
    if first == 0:
        return order
    # those it skips are the last of the line: whoever takes over for the first does not send the job back to them
    return [*line[first:], *line[:first], *order[len(line) :]]


def _share(view: View, now: float, slow_start_s: float) -> float:
    """What it is given of the jobs that come to it, from FIRST_SHARE to the whole."""
    if not view.recovered_at or slow_start_s <= 0:
        return 1.0
    age = max(0.0, now - view.recovered_at) / slow_start_s
    return min(1.0, FIRST_SHARE + (1 - FIRST_SHARE) * age)


def _taker(job: RoutedJob, line: Sequence[Provider], shares: Sequence[float]) -> int:
    """Who in the line takes the job: each its share of what those before it leave. Where nobody would, the first does."""
    left = chance(job.turn)
    for n in range(len(line)):
        share = shares[n]
        if left < share:
            return n
        left = (left - share) / (1 - share)
    return 0
