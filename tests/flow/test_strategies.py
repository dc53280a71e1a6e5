"""The four strategies over a fleet of real workers; the simulator tells who was asked, and when it answered."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.batches import lines, outcomes, submit, wait_for_end
from support.stack import Stack, running_stack

pytestmark = [pytest.mark.verify, pytest.mark.alone]
NAMES = ("a", "b", "c")


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
        before = len(asked(stack))
        stack.simulator.patch("b", latency_s=0.25)
        run(stack, 300, "slow")
        left = asked(stack, after=before)
        slow = Counter(left)["b"]
        sys.stdout.write(f"the fastest got {share['b'] / 450:.1%}; five times as slow it got {slow} of 300\n")
        assert slow <= 20 + 0.05 * 300
        assert Counter(left)["c"] / 300 >= 0.8


def test_cost_optimized_asks_the_cheapest_that_is_well() -> None:
    cheap, dear = {"cost_per_1k_tokens": 0.001}, {"cost_per_1k_tokens": 0.01}
    with fleet("cost_optimized", a=dear, b=cheap, c={}) as stack:
        run(stack, 200, "well")
        share = Counter(asked(stack))
        assert share["b"] >= 196, share
        before = len(asked(stack))
        stack.simulator.patch("b", outage="503")
        run(stack, 200, "ill")
        answered = Counter(c["persona"] for c in stack.simulator.calls()[before:] if c["status"] == 200)
        sys.stdout.write(f"{dict(share)}, and without the cheapest {dict(answered)}\n")
        assert answered["a"] >= 190, "the next price, not an unknown one"


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
        stack.simulator.patch("a", outage="503")
        run(stack, 60, "down")
        stack.simulator.patch("a", outage="none")
        run(stack, 100, "probes")
        before = len(asked(stack))
        run(stack, 100, "back")
        share = Counter(asked(stack, after=before))
        sys.stdout.write(f"soon after its return the first has {share['a']} of 100\n")
        assert 0 < share["a"] < 80


def test_round_robin_goes_by_weight() -> None:
    with fleet("round_robin", a={"weight": 3}, b={}) as stack:
        run(stack, 200, "turns")
        share = Counter(asked(stack))
        assert share["a"] == pytest.approx(150, abs=6), share
