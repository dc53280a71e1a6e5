"""F5: a rolling restart under load: each five seconds a worker comes and one leaves on SIGTERM. Nothing is called again."""

import time

import pytest
from support.callers import Callers
from support.faults import Report
from support.full import each_pool, full
from support.invariants import Accepted, at_rest, settled
from support.stack import running_stack
from support.waiting import wait_for
from support.witness import called, calls

CONCURRENCY = 16
EVERY_S = 5.0
BATCH = 400
"""One for each round, that there be load throughout."""


@each_pool
@pytest.mark.parametrize("rounds", [2, pytest.param(8, marks=full)])
def test_workers_replaced_one_by_one(pool: str, rounds: int, report: Report) -> None:
    """Each leaves with exit code 0, its calls ended; callers who wait notice nothing."""
    asked_for, jobs = 20 * rounds, BATCH * (rounds + 1)
    with running_stack(LLM_EDGE_POOL=pool, LLM_EDGE_CONCURRENCY=str(CONCURRENCY)) as stack:
        stack.simulator.patch(latency_s=0.3, latency_p95_s=0.8)
        accepted = Accepted(stack)
        with report.of("rolling SIGTERM", pool, jobs + asked_for, case="F5") as trial:
            accepted.batch(BATCH, "first")
            with Callers(stack.base_url, at_once=4) as callers:
                asked = callers.ask([f"question {n}" for n in range(asked_for)])
                called(stack, 50)
                for n in range(rounds):
                    accepted.batch(BATCH, f"round-{n}")
                    until, before = time.monotonic() + EVERY_S, calls(stack)
                    stack.start_worker()
                    trial.fault(lambda: stack.stop_worker(stack.workers[0], timeout_s=30))
                    wait_for(lambda until=until: time.monotonic() >= until, EVERY_S, "the next")  # type: ignore[misc]
                    assert calls(stack) > before
                told = [future.result(120) for future in asked]
            accepted.jobs += [one.job_id for one in told]
            settled(accepted, trial)
        assert trial.figures.again == 0
        assert trial.figures.refused == 0
        at_rest(stack)
