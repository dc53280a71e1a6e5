"""Two minutes without the provider, everything by default: the jobs wait, and go on within the present break and 2 s."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from openai.types import Batch
from support.batches import lines, outcomes, submit, wait_for_end
from support.callers import submit_async
from support.stack import Stack, running_stack
from support.waiting import wait_for

pytestmark = [pytest.mark.verify, pytest.mark.alone, pytest.mark.timeout(400)]

OUTAGE_S = 120.0
BREAK_S = 30.0
RESUMED_S = 2.0
BUSY_S = 1.0
"""For a machine that does other things besides."""

JOBS = 8000
WORKERS = 2
CONCURRENCY = 64
PROBES = 2
FLOW = 50
"""So many answers are more than probes."""
DEFAULTS = {"LLM_EDGE_LEASE_S": "15", "LLM_EDGE_TICK_S": "0.5"}
"""The defaults, which stacks of tests otherwise cut short."""


@contextmanager
def stack_by_default(*args: str, workers: int) -> Iterator[Stack]:
    """Nothing in the providers file but the provider; the API, too, reads it when it starts."""
    with running_stack(
        *args, workers=0, aof=False, part_env=None, configure=Stack.configure, **DEFAULTS
    ) as stack:
        stack.kill_api()
        stack.configure(breaker={})
        stack.start_api()
        for _ in range(workers):
            stack.start_worker()
        yield stack


@dataclass
class Outage:
    """One provider's. Unix seconds; `probe_s`: of the break that was under way at its end, what was left."""

    stack: Stack
    down: float = 0.0
    up: float = 0.0
    probe_s: float = 0.0

    def begin(self) -> None:
        self.stack.simulator.patch(outage="503")
        self.down = time.time()

    def ended(self) -> bool:
        """It ends after two minutes, as soon as a probe has failed: what waits has the longest wait before it."""
        if not self.up and time.time() - self.down >= OUTAGE_S:
            next_probe_s = breaker(self.stack)["next_probe_s"] or 0.0
            if next_probe_s > BREAK_S - 5:
                self.stack.simulator.patch(outage="none")
                self.up, self.probe_s = time.time(), next_probe_s
        return self.up > 0

    def calls(self) -> list[dict[str, Any]]:
        return self.stack.simulator.calls()


@dataclass
class Seen:
    """Two stacks through an outage at once: one had a single lone job, the other was in mid-batch."""

    alone: Outage
    fleet: Outage
    lone: str
    batch: Batch


def breaker(stack: Stack) -> Any:
    return requests.get(f"{stack.base_url}/providers/sim", timeout=5).json()["breakers"][0]


def job(stack: Stack, job_id: str) -> Any:
    return requests.get(f"{stack.base_url}/jobs/{job_id}", timeout=5).json()


def completed(stack: Stack, batch: Batch) -> int:
    counts = stack.client.batches.retrieve(batch.id).request_counts
    assert counts is not None
    assert counts.failed == 0
    return counts.completed


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    with (
        stack_by_default(workers=1) as one,
        stack_by_default("--latency-s", "0.05", workers=WORKERS) as many,
    ):
        alone, fleet = Outage(one), Outage(many)
        batch = submit(many.client, lines(JOBS))
        wait_for(lambda: completed(many, batch) > JOBS / 3, 60, "the batch to run")
        fleet.begin()
        alone.begin()
        lone = submit_async(one, "alone")
        wait_for(
            lambda: all([alone.ended(), fleet.ended()]),
            OUTAGE_S + BREAK_S + 10,
            "the outages' end",
            every_s=0.2,
        )
        yield Seen(alone, fleet, lone, batch)


def test_a_lone_job_that_came_while_its_provider_was_down_is_answered_once_it_is_back(seen: Seen) -> None:
    outage = seen.alone

    def done() -> Any:
        found = job(outage.stack, seen.lone)
        assert found["status"] != "failed"
        return found if found["status"] == "completed" else None

    found = wait_for(done, BREAK_S + 30, "the lone job")
    answered = [call for call in outage.calls() if call["status"] == 200]
    after_s = answered[0]["ended_at"] - outage.up
    sys.stdout.write(
        f"lone job: outage {outage.up - outage.down:.1f} s, {len(outage.calls())} calls, answered"
        f" {after_s:.2f} s after its end (the break had {outage.probe_s:.2f} s to go)\n"
        f"its calls, in seconds from the outage's start:"
        f" {[round(call['received_at'] - outage.down, 1) for call in outage.calls()]}\n"
    )
    assert len(answered) == 1
    assert after_s <= outage.probe_s + RESUMED_S + BUSY_S <= BREAK_S + RESUMED_S + BUSY_S
    tries = found["routing"]["tries"]
    refused = [call for call in outage.calls() if call["status"] == 503]
    assert len(tries) == len(refused)
    assert {(t["provider"], t["status"]) for t in tries} == {("sim", 503)}
    assert len(refused) <= 10 + PROBES * (OUTAGE_S + BREAK_S) / BREAK_S, "it was called without need"


def test_a_batch_loses_nothing_calls_little_meanwhile_and_comes_back_without_a_herd(seen: Seen) -> None:
    outage, client = seen.fleet, seen.fleet.stack.client
    ended = wait_for_end(client, seen.batch.id, BREAK_S + 60)
    found = outcomes(client, ended)
    calls = outage.calls()
    rate = Counter(int((call["received_at"] - outage.down) // 1) for call in calls)
    answered = sorted(
        c["ended_at"] - outage.up for c in calls if c["status"] == 200 and c["ended_at"] > outage.up
    )
    after_s = answered[FLOW]
    sys.stdout.write(
        f"batch: outage {outage.up - outage.down:.1f} s, first answer {answered[0]:.2f} s and {FLOW} of them"
        f" {after_s:.2f} s after its end (the break had {outage.probe_s:.2f} s to go), all {answered[-1]:.2f} s\n"
        f"calls a second before the outage: {[rate[n] for n in sorted(rate) if n < 0]}\n"
        f"from its start, second: calls: { {n: rate[n] for n in sorted(rate) if n >= 0} }\n"
    )
    assert len(found) == JOBS
    assert {row["response"]["status_code"] for row in found.values()} == {200}
    assert after_s <= outage.probe_s + RESUMED_S + BUSY_S <= BREAK_S + RESUMED_S + BUSY_S
    refused = [call for call in calls if call["status"] == 503]
    breaks = (outage.up - outage.down) / BREAK_S + 1
    assert len(refused) <= WORKERS * CONCURRENCY + PROBES * breaks, (
        "calls were made that could have been spared"
    )
    back = int(outage.up - outage.down + after_s)
    returning = range(back - 2, back + 3)
    steady = max(n for second, n in rate.items() if second < 0 or second > returning[-1])
    assert max(rate[second] for second in returning) <= 1.5 * steady, "they came as a herd"
