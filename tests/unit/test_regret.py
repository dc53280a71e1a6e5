"""The yardstick by which strategies are measured from outside."""

from typing import Any

import pytest
from support import regret


def call(persona: str, took_s: float = 1.0, status: int = 200, tokens: int = 500) -> dict[str, Any]:
    return {
        "persona": persona,
        "received_at": 10.0,
        "ended_at": 10.0 + took_s,
        "status": status,
        "prompt_tokens": tokens,
        "completion_tokens": tokens,
    }


def test_latency_is_beside_the_best_ones_own_calls() -> None:
    found = regret.latency([call("a", 0.1), call("a", 0.1), call("b", 0.4)], "a")
    assert [found.mean_ms, found.best_ms, found.regret_ms] == pytest.approx([200, 100, 100])
    assert found.share == pytest.approx(1.0)


def test_what_was_spent_is_beside_the_same_tokens_at_the_cheapest_and_failures_cost_nothing() -> None:
    calls = [call("a"), call("b"), call("b", status=503)]
    found = regret.spent(calls, {"a": 1.0, "b": 3.0}, "a")
    assert (found.usd, found.cheapest_usd, found.regret_usd, found.share) == (4.0, 2.0, 2.0, 1.0)


def test_shares_and_deviations_are_counted_over_the_calls() -> None:
    calls = [call(persona) for persona in "aaab"]
    assert regret.elsewhere(calls, "a") == 0.25
    assert regret.largest_deviation(calls, {"a": 3, "b": 1}) == 0.75
    assert regret.largest_deviation(calls, {"a": 1, "b": 1}) == 1.5
