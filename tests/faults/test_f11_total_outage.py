"""F11: every provider is out, with 200 calls at a time under way."""

import sys
import time

import pytest
from support.faults import Report
from support.full import each_pool, full
from support.invariants import Accepted, at_rest, get, named, settled
from support.stack import Stack, running_stack
from support.waiting import wait_for

CONCURRENCY = 200
PROVIDERS = ("one", "two")
BREAK_S = 1.0
CAUSES = ("breaker_open", "breaker_half_open", "provider_failing")


def configure(stack: Stack) -> None:
    """Limits of their own: adaptive windows would take long to come to so many calls."""
    providers = [
        {
            "id": name,
            "endpoint": stack.simulator.base_url_of(name),
            "limits": {"concurrency": 2 * CONCURRENCY},
        }
        for name in PROVIDERS
    ]
    stack.configure(providers, breaker={"reset_timeout_s": BREAK_S})


@pytest.mark.alone
@each_pool
@pytest.mark.parametrize(
    ("outages", "jobs"),
    [
        (["503"], 2000),
        pytest.param(["503", "drop", "503"], 20_000, marks=full),
    ],
)
def test_every_provider_out(outages: list[str], jobs: int, pool: str, report: Report) -> None:
    with (
        running_stack(
            workers=1,
            configure=configure,
            LLM_EDGE_POOL=pool,
            LLM_EDGE_CONCURRENCY=str(CONCURRENCY * 5 // 4),  # batch jobs have four fifths of it
            LLM_EDGE_LEASE_S="15",
        ) as stack,
        report.of(f"every provider out, {CONCURRENCY} calls", pool, jobs + 20, case="F11") as trial,
    ):
        stack.simulator.patch("*", latency_s=0.3)
        accepted = Accepted(stack)
        batch_id = accepted.batch(jobs)
        for n, outage in enumerate(outages, 1):
            answered = goods(stack)
            wait_for(lambda goal=answered + 200: goods(stack) > goal, 40, "flow")  # type: ignore[misc]
            wait_for(lambda: in_flight(stack) > 0.75 * CONCURRENCY, 20, "calls at a time")
            trial.fault(lambda outage=outage: stack.simulator.patch("*", outage=outage))  # type: ignore[misc]
            told = named(stack, batch_id, *CAUSES)
            for m in range(20 // len(outages)):
                accepted.lone(f"in outage {n}, {m}")
            for name in PROVIDERS:
                wait_for(lambda name=name: get(stack, f"/providers/{name}")["state"] == "open", 20, name)  # type: ignore[misc]
            wait_for(lambda: not in_flight(stack), 20, "no call to be under way but a probe")
            down = wait_for(lambda: get(stack, f"/batches/{batch_id}"), 5, "the batch")
            assert down["status"] == "in_progress"
            assert down["request_counts"]["failed"] == 0
            stack.simulator.patch("*", outage="none")
            up = time.time()
            wait_for(lambda up=up: answered_since(stack, up), BREAK_S + 30, "flow to come back")  # type: ignore[misc]
            sys.stdout.write(f"{outage}: {told['summary']}\n")
        settled(accepted, trial)
        assert trial.figures.again == 0 or "drop" in outages
        at_rest(stack)


def goods(stack: Stack) -> int:
    return sum(stats["by_status"].get("200", 0) for stats in stack.simulator.stats().values())


def in_flight(stack: Stack) -> int:
    return sum(int(stats["in_flight"]) for stats in stack.simulator.stats().values())


def answered_since(stack: Stack, at: float) -> bool:
    return any(c["status"] == 200 and c["received_at"] > at for c in stack.simulator.calls())
