"""Retries by Celery's own mechanism, on the schedule, charged in the ledger; witnessed by the provider's log."""

import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from openai import OpenAI
from support.batches import line, lines, outcomes, read, submit, wait_for_end
from support.bus import task_events
from support.stack import Stack, running_stack
from support.waiting import wait_for

LATE_S = 0.25
LATE_IN_COMPANY_S = 5.0
"""Where other tests share the cores."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Its breaker never opens: here jobs are looked at, one by one."""

    def configure(stack: Stack) -> None:
        stack.configure(breaker={"failure_threshold": 1000})

    with running_stack(configure=configure) as running:
        yield running


def gaps(stack: Stack) -> dict[int, list[float]]:
    """Seconds between the end of a job's n-th call and the start of its next, by n."""
    calls: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for call in stack.simulator.calls():
        calls[call["body_sha256"]].append(call)
    found: dict[int, list[float]] = defaultdict(list)
    for attempts in calls.values():
        for n, (before, after) in enumerate(pairwise(attempts), 1):
            found[n].append(after["received_at"] - before["ended_at"])
    return found


def p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def on_schedule(found: dict[int, list[float]], late_s: float = LATE_S) -> None:
    for n, values in sorted(found.items()):
        sys.stdout.write(f"retry {n}: {len(values)} gaps, least {min(values):.3f}, P95 {p95(values):.3f} s\n")
    for n, least_s in ((1, 0.1), (2, 0.2), (3, 0.4)):
        if found[n]:
            assert min(found[n]) >= least_s - 0.005, f"retry {n} came too early: {min(found[n])}"
            assert p95(found[n]) <= least_s + late_s, f"retry {n} came late: p95 {p95(found[n])}"


@pytest.mark.alone
def test_ten_per_cent_errors_are_retried_on_schedule(client: OpenAI, stack: Stack) -> None:
    stack.simulator.patch(error_rate=0.1, error_statuses=[500, 503], latency_s=0.2)
    with task_events(stack) as seen:
        ended = wait_for_end(client, submit(client, lines(1000)).id)
        found = outcomes(client, ended)
        wait_for(lambda: any(e["type"] == "task-retried" for e in seen), 10, "task-retried on Celery's bus")
    assert len(found) == 1000
    assert ended.request_counts is not None
    assert ended.request_counts.completed >= 998  # four failures in a row: 1 in 10,000
    measured = gaps(stack)
    assert len(measured[1]) > 50
    on_schedule(measured)
    attempts = [row["routing"]["attempts"] for row in found.values()]
    assert 1 < max(attempts) <= 4


@pytest.mark.verify
@pytest.mark.alone
def test_nobody_waits_for_a_shards_slowest_call(client: OpenAI, stack: Stack) -> None:
    stack.simulator.patch(
        rules=[{"match": "^slow", "latency_s": 30}, {"match": "^twice", "status": 500, "times": 2}],
        latency_s=0.01,
    )
    rows = [line("slow", "slow one"), *[line(f"t{n}", f"twice {n}") for n in range(20)]]
    batch = submit(client, rows)

    def all_retried() -> bool:
        counts = client.batches.retrieve(batch.id).request_counts
        return counts is not None and counts.completed == 20

    wait_for(all_retried, 5, "the failed jobs to succeed while the slow one still runs")
    measured = gaps(stack)
    assert (len(measured[1]), len(measured[2])) == (20, 20)
    on_schedule(measured)
    assert len(outcomes(client, wait_for_end(client, batch.id))) == 21


def test_a_request_that_always_gets_500_fails_after_four_attempts(client: OpenAI, stack: Stack) -> None:
    stack.simulator.patch(rules=[{"match": "^poison", "status": 500}], latency_s=0.02)
    ended = wait_for_end(client, submit(client, [line("bad", "poison"), *lines(200)]).id)
    (bad,) = read(client, ended.error_file_id)
    assert (bad["custom_id"], bad["response"]["status_code"], bad["routing"]["attempts"]) == ("bad", 500, 4)
    poisoned = [c for c in stack.simulator.calls() if c["prompt"].startswith("poison")]
    assert len(poisoned) == 4
    on_schedule(gaps(stack), LATE_IN_COMPANY_S)


def test_a_rate_limit_is_waited_out_and_charged_to_nobody(client: OpenAI, stack: Stack) -> None:
    stack.simulator.patch(rules=[{"match": "^limited", "status": 429, "times": 6, "retry_after_s": 0.3}])
    ended = wait_for_end(client, submit(client, [line("a", "limited")]).id)
    assert ended.request_counts is not None
    assert ended.request_counts.completed == 1
    (row,) = read(client, ended.output_file_id)
    assert row["routing"]["attempts"] == 1
    waits = [s for found in gaps(stack).values() for s in found]
    assert len(waits) == 6
    assert min(waits) >= 0.295


def test_an_outage_fails_no_job(client: OpenAI, stack: Stack) -> None:
    """Every provider down for longer than all retries together: the jobs wait, and go on when it is over."""
    stack.simulator.patch(outage="503")
    batch = submit(client, lines(40))
    wait_for(
        lambda: len(stack.simulator.calls()) >= 5 * 40, 30, "every job to have used up its attempts once"
    )
    counts = client.batches.retrieve(batch.id).request_counts
    assert counts is not None
    assert (counts.completed, counts.failed) == (0, 0)
    stack.simulator.patch(outage="none")
    ended = wait_for_end(client, batch.id)
    assert ended.request_counts is not None
    assert ended.request_counts.completed == 40


def test_what_was_under_way_when_an_outage_began_blames_nobody(client: OpenAI, stack: Stack) -> None:
    """A call that began before it is answered during it, while other jobs use up their attempts."""
    stack.simulator.patch(rules=[{"match": "^slow", "latency_s": 3.0}], latency_s=0.01)
    slow = submit(client, [line("s", "slow")])
    wait_for(lambda: stack.simulator.stats()["default"]["in_flight"], 10, "the slow call to be under way")
    stack.simulator.patch(outage="503")
    batch = submit(client, lines(10))
    assert wait_for_end(client, slow.id).status == "completed"
    calls = len(stack.simulator.calls())
    wait_for(lambda: len(stack.simulator.calls()) >= calls + 4 * 10, 30, "attempts used up after that too")
    stack.simulator.patch(outage="none")
    ended = wait_for_end(client, batch.id)
    assert ended.request_counts is not None
    assert (ended.request_counts.completed, ended.request_counts.failed) == (10, 0)


def test_failover_goes_to_the_next_provider(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own
    stack.stop()
    base = f"{stack.simulator.url}/p"
    stack.configure(
        [
            {"id": "first", "endpoint": f"{base}/first/v1", "priority": 1},
            {"id": "second", "endpoint": f"{base}/second/v1", "priority": 2},
        ],
        routing={"strategy": "failover"},
    )
    stack.start_api()
    stack.start_worker()
    with stack.client as client:
        ended = wait_for_end(client, submit(client, lines(50)).id)
        assert {r["routing"]["provider"] for r in outcomes(client, ended).values()} == {"first"}
        stack.simulator.patch(persona="first", outage="503")
        ended = wait_for_end(client, submit(client, lines(50, "again")).id)
        rows = outcomes(client, ended).values()
        assert {r["routing"]["provider"] for r in rows} == {"second"}
        assert {r["routing"]["attempts"] for r in rows} <= {1, 2}  # 1: the breaker was open already


def test_round_robin_spreads_by_weight(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own
    stack.stop()
    base = f"{stack.simulator.url}/p"
    stack.configure(
        [
            {"id": "heavy", "endpoint": f"{base}/heavy/v1", "weight": 3},
            {"id": "light", "endpoint": f"{base}/light/v1", "weight": 1},
        ]
    )
    stack.start_api()
    stack.start_worker()
    with stack.client as client:
        wait_for_end(client, submit(client, lines(400)).id)
    stats = stack.simulator.stats()
    assert (stats["heavy"]["calls"], stats["light"]["calls"]) == (300, 100)
