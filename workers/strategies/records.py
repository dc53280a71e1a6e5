"""What a routing strategy is, and what it may know: the job, and each provider as the asking worker sees it at present."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from math import log

import msgspec

from shared.catalogue import Provider


class RoutedJob(msgspec.Struct, frozen=True):
    """What a strategy may know of a job. `turn` differs from job to job and counts up within a batch.

    `tried` are providers that failed it, the last one last. `max_output_tokens` is what the request asks for; input and
    expected output are estimates. `needs` are capabilities (`shared.needs`), `allowed` the ids of the only providers it may
    go to, `left_s` the seconds until its batch's window ends, or its own (below 0: that is past), `budget` the dollars it may cost; None where nobody has said.
    """

    model: str
    turn: int = 0
    tried: tuple[str, ...] = ()
    input_tokens: int = 0
    max_output_tokens: int | None = None
    expected_output_tokens: int | None = None
    needs: frozenset[str] = frozenset()
    allowed: frozenset[str] | None = None
    left_s: float | None = None
    budget: Decimal | None = None


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker knows of one provider at present. The defaults mean that nothing is known yet.

    Of the fleet: `answers` completed so far, as far as the averages still rest on them; the moving averages `latency_s` of
    whole calls, `per_token_s` of their seconds per output token, and `success_rate`; `latest_s`, how long the latest answer
    took. Of this worker alone: `in_flight` calls under way, `oldest_s` the age of the oldest. `recovered_at` is the Unix time at which its breaker last
    closed. `price` is what this job would cost there in dollars (None: not known).

    `serving` is False while the gate certainly lets no call through. Of limits that are used up a view says nothing: the gate
    counts them for the whole fleet, and passes over who is full. A provider that is due for a probe (its break is over,
    its breaker half-open) must count as serving: what always comes last is never asked, so it would never come back.
    """

    answers: int = 0
    latency_s: float = 0.0
    latest_s: float = 0.0
    per_token_s: float = 0.0
    success_rate: float = 1.0
    in_flight: int = 0
    oldest_s: float = 0.0
    serving: bool = True
    recovered_at: float = 0.0
    price: Decimal | None = None


UNKNOWN = View()

Strategy = Callable[[RoutedJob, Sequence[Provider], Mapping[str, View], float], list[Provider]]
"""From a job, the providers that may serve it, the views by provider id (some may be missing) and the Unix time to all of
these providers, best first. Pure: chance comes from the job's turn."""

WARM_UP = 5
"""Answers before a provider's latency is judged."""


def call_s(view: View, output_tokens: int = 0) -> float:
    """How long one call will take there: the mean of the usual call and of so many tokens at the usual pace.

    The oldest of n calls under way that take m seconds on average (by an exponential law) is about m x (1 + ln n) old; so
    its age by that is the least that can be expected: of a single call, its age itself.
    """
    usual = view.latency_s
    if output_tokens and view.per_token_s > 0:
        usual = (usual + output_tokens * view.per_token_s) / 2
    return max(usual, view.oldest_s / (1 + log(view.in_flight))) if view.in_flight else usual


_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def chance(turn: int) -> float:
    """A number in [0, 1) by Fibonacci hashing (Knuth, vol. 3, 6.4): 2^64 / phi, times `turn`, modulo 2^64.

    Of any N turns in a row, N x share +- 3 or so fall below `share` (N to 10,000): far more even than dice.
    """
    return ((turn * _GOLDEN & _MASK) >> 11) / 2**53
