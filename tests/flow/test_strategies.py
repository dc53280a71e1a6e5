"""The four strategies over a fleet of real workers; the simulator tells who was asked, and when it answered.

`pytest -s tests/flow/test_strategies.py` prints the figures, and what each strategy cost beside the best (ops/docs/routing.md).
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support import regret
from support.batches import lines, outcomes, submit, wait_for_end
from support.stack import Stack, running_stack

pytestmark = [pytest.mark.verify, pytest.mark.alone]
NAMES = ("a", "b", "c")
TRUE_PRICES = {"a": 0.01, "b": 0.001, "c": 0.02}
"""Dollars a thousand tokens; the fleet is not told c's."""


@contextmanager
def fleet(
    strategy: str, *, concurrency: int = 8, workers: int = 2, **providers: dict[str, Any]
) -> Iterator[Stack]:
    """Providers by name, and what the file says of each."""
    with running_stack(workers=0, LLM_EDGE_CONCURRENCY=str(concurrency)) as stack:
        rows = [
            {"id": name, "endpoint": stack.simulator.base_url_of(name), "priority": n, **own}
            for n, (name, own) in enumerate(providers.items())
        ]
        stack.kill_api()
        stack.configure(rows, routing={"strategy": strategy})
        stack.start_api()
        for _ in range(workers):
            stack.start_worker()
        yield stack


def run(stack: Stack, jobs: int, prefix: str) -> None:
    """All of them are answered."""
    ended = wait_for_end(stack.client, submit(stack.client, lines(jobs, prefix)).id, 120)
    found = outcomes(stack.client, ended)
    assert len(found) == jobs
    assert {row["response"]["status_code"] for row in found.values()} == {200}


def told(strategy: str, when: str, figures: str) -> None:
    sys.stdout.write(f"regret | {strategy} | {when} | {figures}\n")


def asked(stack: Stack, after: int = 0) -> list[str]:
    """Who, in the order of the answers."""
    calls = sorted(stack.simulator.calls(), key=lambda call: call["ended_at"])
    return [call["persona"] for call in calls][after:]


def test_least_latency_finds_the_fastest_and_leaves_it_when_it_slows_down() -> None:
    """At most four calls at a time, as two of the five of each worker are a batch's."""
    with fleet("least_latency", concurrency=3, a={}, b={}, c={}) as stack:
        for name, latency_s in zip(NAMES, (0.2, 0.05, 0.1), strict=True):
            stack.simulator.patch(name, latency_s=latency_s)
        run(stack, 500, "fast")
        share = Counter(asked(stack, after=50))
        assert share["b"] / 450 >= 0.95, share
        fast = regret.latency(stack.simulator.calls(), "b")
        last = stack.simulator.calls()[-1]["n"]
        before = len(asked(stack))
        stack.simulator.patch("b", latency_s=0.25)
        run(stack, 300, "slow")
        left = asked(stack, after=before)
        slow = Counter(left)["b"]
        sys.stdout.write(f"the fastest got {share['b'] / 450:.1%}; five times as slow it got {slow} of 300\n")
        assert slow <= 20 + 0.05 * 300
        assert Counter(left)["c"] / 300 >= 0.8
        slower = regret.latency(stack.simulator.calls(last), "c")
        for found, when in (
            (fast, "500 jobs from a cold start"),
            (slower, "300 jobs from the slowing down on"),
        ):
            mean, best, more = found.mean_ms, found.best_ms, found.share
            told(
                "least_latency",
                when,
                f"{mean:.1f} ms, the best {best:.1f}: {found.regret_ms:.1f} ms, {more:.1%}",
            )
        assert 0 <= fast.share <= 0.25, fast
        assert 0 <= slower.share <= 0.35, slower


def test_cost_optimized_asks_the_cheapest_that_is_well() -> None:
    cheap, dear = {"cost_per_1k_tokens": 0.001}, {"cost_per_1k_tokens": 0.01}
    with fleet("cost_optimized", a=dear, b=cheap, c={}) as stack:
        run(stack, 200, "well")
        share = Counter(asked(stack))
        assert share["b"] >= 196, share
        well = regret.spent(stack.simulator.calls(), TRUE_PRICES, "b")
        before = len(asked(stack))
        stack.simulator.patch("b", outage="503")
        run(stack, 200, "ill")
        answered = Counter(c["persona"] for c in stack.simulator.calls()[before:] if c["status"] == 200)
        sys.stdout.write(f"{dict(share)}, and without the cheapest {dict(answered)}\n")
        assert answered["a"] >= 190, "the next price, not an unknown one"
        ill = regret.spent(stack.simulator.calls()[before:], TRUE_PRICES, "a")
        for found, when in ((well, "200 jobs, all are well"), (ill, "200 jobs, the cheapest fails")):
            more = f"${found.regret_usd:.4f}, {found.share:.1%}"
            told("cost_optimized", when, f"${found.usd:.4f}, the cheapest ${found.cheapest_usd:.4f}: {more}")
        assert 0 <= well.share <= 0.2, well
        assert 0 <= ill.share <= 0.1, ill


def test_failover_spills_over_what_its_first_cannot_take() -> None:
    with fleet("failover", concurrency=10, a={"limits": {"concurrency": 3}}, b={}) as stack:
        stack.simulator.patch("*", latency_s=0.2)
        run(stack, 200, "spill")
        stats, share = stack.simulator.stats(), Counter(asked(stack))
        sys.stdout.write(f"{dict(share)}, at most {stats['a']['max_in_flight']} at the first\n")
        assert stats["a"]["max_in_flight"] <= 3
        assert share["a"] >= 20
        assert share["b"] >= 20


def test_failover_gives_a_recovered_first_its_jobs_back_slowly() -> None:
    with fleet("failover", a={}, b={}) as stack:
        stack.simulator.patch("*", latency_s=0.05)
        run(stack, 200, "well")
        never = regret.elsewhere(stack.simulator.calls(), "a")
        stack.simulator.patch("a", outage="503")
        run(stack, 60, "down")
        stack.simulator.patch("a", outage="none")
        run(stack, 100, "probes")
        before = len(asked(stack))
        run(stack, 100, "back")
        share = Counter(asked(stack, after=before))
        back = regret.elsewhere(stack.simulator.calls()[before:], "a")
        told("failover", "200 jobs, the first is well", f"{never:.1%} not at the first")
        told("failover", "100 jobs, seconds after its recovery", f"{back:.1%} not at the first, on purpose")
        assert never == 0
        sys.stdout.write(f"soon after its return the first has {share['a']} of 100\n")
        assert 0 < share["a"] < 80


def test_round_robin_goes_by_weight() -> None:
    with fleet("round_robin", a={"weight": 3}, b={}) as stack:
        run(stack, 200, "turns")
        share = Counter(asked(stack))
        assert share["a"] == pytest.approx(150, abs=6), share
        worst = regret.largest_deviation(stack.simulator.calls(), {"a": 3, "b": 1})
        told("round_robin", "200 jobs, weights 3 and 1", f"at most {worst:.1f} calls from its share, ever")
        assert worst <= 12
