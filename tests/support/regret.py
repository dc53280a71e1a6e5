"""What a strategy has cost beside the best that could have been done, from the simulator's own log of the calls. Pure.

The best is known here because the test has set it: how long each persona takes, what it truly costs, which is well.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Calls = Sequence[Mapping[str, Any]]
"""As the simulator tells them."""


class Latency(NamedTuple):
    """Of the calls made, on average, beside those that went to the best: milliseconds, and the difference as a share."""

    mean_ms: float
    best_ms: float

    @property
    def regret_ms(self) -> float:
        return self.mean_ms - self.best_ms

    @property
    def share(self) -> float:
        return self.regret_ms / self.best_ms


def latency(calls: Calls, best: str) -> Latency:
    """`best` is the persona that was the fastest all the time; its own calls say how long it took under this load."""

    def mean_ms(some: Calls) -> float:
        took_s = [float(call["ended_at"] - call["received_at"]) for call in some]
        return 1000 * sum(took_s) / len(took_s)

    return Latency(mean_ms(calls), mean_ms([call for call in calls if call["persona"] == best]))


class Spent(NamedTuple):
    """Dollars: of the answers, and of the same tokens at the cheapest that was well."""

    usd: float
    cheapest_usd: float

    @property
    def regret_usd(self) -> float:
        return self.usd - self.cheapest_usd

    @property
    def share(self) -> float:
        return self.regret_usd / self.cheapest_usd


def spent(calls: Calls, prices: Mapping[str, float], cheapest: str) -> Spent:
    """`prices` a thousand tokens, by persona, whether the fleet knows them or not. What is not answered costs nothing."""
    tokens = [
        (call["persona"], call["prompt_tokens"] + call["completion_tokens"])
        for call in calls
        if call["status"] == 200
    ]
    usd = sum(prices[persona] * n for persona, n in tokens) / 1000
    return Spent(usd, prices[cheapest] * sum(n for _, n in tokens) / 1000)


def elsewhere(calls: Calls, primary: str) -> float:
    """The share of calls that did not go to the one that was to have them all."""
    return sum(bool(call["persona"] != primary) for call in calls) / len(calls)


def largest_deviation(calls: Calls, weights: Mapping[str, float]) -> float:
    """Calls by which anybody was ever before or behind its share, counted after each call from the first on."""
    total, done = sum(weights.values()), dict.fromkeys(weights, 0)
    worst = 0.0
    for n, call in enumerate(sorted(calls, key=lambda call: call["received_at"]), 1):
        done[call["persona"]] += 1
        worst = max(worst, *(abs(done[p] - n * w / total) for p, w in weights.items()))
    return worst
