"""F14: thousands of jobs wait for their retry, again and again, and fresh ones pass them as if they were not there."""

import statistics
import sys
import time
from functools import partial

import pytest
import requests
from support.batches import line, wait_for_end
from support.faults import Report
from support.full import each_pool, full
from support.invariants import SETTLES_S, Accepted, at_rest, get, named, settled
from support.stack import Stack, running_stack
from support.waiting import wait_for

LONE = 60
BATCH = 300
MOST = 3.0
"""So many times as long may what is fresh take beside them: a bound against hangs, not a measure."""

LEAST_S = 0.05
"""Below this a p95 is noise."""


def configure(stack: Stack, break_s: float) -> None:
    """A provider whose jobs will wait, and one for the fresh ones."""
    stack.configure(
        [
            {"id": "down", "endpoint": stack.simulator.base_url_of("down"), "models": {"late": "late"}},
            {
                "id": "up",
                "endpoint": stack.simulator.base_url_of("up"),
                "models": {"fresh": "fresh", "m": "m"},
            },
        ],
        breaker={"reset_timeout_s": break_s},
    )


@pytest.mark.alone
@each_pool
@pytest.mark.parametrize(("delayed", "break_s"), [(2000, 5.0), pytest.param(10_000, 30.0, marks=full)])
def test_fresh_jobs_pass_those_that_wait(delayed: int, break_s: float, pool: str, report: Report) -> None:
    with (
        running_stack(
            configure=partial(configure, break_s=break_s), LLM_EDGE_POOL=pool, LLM_EDGE_LEASE_S="15"
        ) as stack,
        report.of(f"{delayed:,} delayed retries", pool, delayed + 2 * BATCH, case="F14") as trial,
    ):
        stack.simulator.patch("up", latency_s=0.02)
        accepted = Accepted(stack)
        ask(stack, "warm up")
        without = lone_p95(stack, "before"), batch_p95(accepted, "before")
        trial.fault(lambda: stack.simulator.patch("down", outage="503"))
        late = accepted.batch(0, rows=[line(f"late-{n}", f"late {n}", model="late") for n in range(delayed)])
        wait_for(lambda: parked(stack, late) > 0.95 * delayed, 90, "all to wait")
        named(stack, late, "breaker_open", "breaker_half_open")
        beside = lone_p95(stack, "beside"), batch_p95(accepted, "beside")
        assert get(stack, f"/batches/{late}")["request_counts"]["completed"] == 0, "they wait all the time"
        ratios = [max(LEAST_S, b) / max(LEAST_S, w) for w, b in zip(without, beside, strict=True)]
        sys.stdout.write(
            f"p95 of a lone job {1000 * without[0]:.0f} ms, beside {delayed:,} that wait {1000 * beside[0]:.0f} ms;"
            f" of a batch's jobs {1000 * without[1]:.0f} and {1000 * beside[1]:.0f} ms;"
            f" ratios {ratios[0]:.2f} and {ratios[1]:.2f}\n"
        )
        assert max(ratios) < MOST
        stack.simulator.patch("down", outage="none")
        settled(accepted, trial, timeout_s=SETTLES_S)
        assert trial.figures.again == 0
        at_rest(stack)


def parked(stack: Stack, batch_id: str) -> int:
    told = get(stack, f"/batches/{batch_id}/explain")
    return int(told["parked"])


def ask(stack: Stack, text: str) -> float:
    """How long its caller waits, in seconds."""
    began = time.monotonic()
    body = {"model": "fresh", "messages": [{"role": "user", "content": text}]}
    answer = requests.post(f"{stack.base_url}/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return time.monotonic() - began


def lone_p95(stack: Stack, prefix: str) -> float:
    return p95([ask(stack, f"{prefix} {n}") for n in range(LONE)])


def batch_p95(accepted: Accepted, prefix: str) -> float:
    """From the batch's upload to each job's answer."""
    stack, began = accepted.stack, time.time()
    rows = [line(f"{prefix}-{n}", f"{prefix} batch {n}", model="fresh") for n in range(BATCH)]
    with stack.client as client:
        wait_for_end(client, accepted.batch(0, rows=rows), every_s=0.1)
    return p95([c["ended_at"] - began for c in stack.simulator.calls() if f"{prefix} batch" in c["prompt"]])


def p95(times_s: list[float]) -> float:
    return statistics.quantiles(times_s, n=20)[-1]
