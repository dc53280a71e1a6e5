"""F1: workers killed (-9) at random while a batch and lone jobs run."""

import random

import pytest
from support.callers import Callers
from support.faults import Report, needless
from support.full import each_pool, full
from support.invariants import Accepted, at_rest, called_at_most, named, settled
from support.stack import running_stack
from support.waiting import wait_for
from support.witness import called, calls, in_flight

CONCURRENCY = 16


@each_pool
@pytest.mark.parametrize(("jobs", "kills"), [(600, 3), pytest.param(6000, 25, marks=full)])
def test_workers_killed_at_random(pool: str, jobs: int, kills: int, report: Report) -> None:
    rng = random.Random(7)
    with running_stack(LLM_EDGE_POOL=pool, LLM_EDGE_CONCURRENCY=str(CONCURRENCY)) as stack:
        stack.simulator.patch(latency_s=0.1, latency_p95_s=0.3, error_rate=0.02)
        accepted = Accepted(stack)
        with report.of("workers killed at random", pool, jobs, case="F1") as trial:
            accepted.batch(jobs * 9 // 10)
            for n in range(jobs // 10):
                accepted.lone(f"lone {n}")
            for n in range(kills):
                wait_for(lambda goal=(n + 1) * jobs // (kills + 2): calls(stack) > goal, 60, "more calls")  # type: ignore[misc]
                trial.fault(lambda: stack.kill_worker(rng.choice(stack.workers)))
                stack.start_worker(wait=False)
            settled(accepted, trial)
        called_at_most(stack, accepted, kills, CONCURRENCY)
        assert needless(stack.simulator, trial.at) == []
        at_rest(stack)


@pytest.mark.parametrize("pool", [pytest.param(pool, marks=full) for pool in ("gevent", "threads")])
def test_workers_killed_while_64_callers_wait(pool: str, report: Report) -> None:
    """One answer a caller, one job an answer. `make test` has a quick form."""
    jobs, kills, rng = 1500, 15, random.Random(5)
    with running_stack(
        LLM_EDGE_POOL=pool, LLM_EDGE_CONCURRENCY=str(CONCURRENCY), LLM_EDGE_LEASE_S="3"
    ) as stack:
        stack.simulator.patch(latency_s=0.2, latency_p95_s=0.5)
        accepted = Accepted(stack)
        with report.of("workers killed, callers wait", pool, jobs, case="F1") as trial:
            with Callers(stack.base_url) as callers:
                asked = callers.ask([f"question {n}" for n in range(jobs)])
                for n in range(kills):
                    called(stack, (n + 1) * jobs // (kills + 1))
                    trial.fault(lambda: stack.kill_worker(rng.choice(stack.workers)))
                    stack.start_worker(wait=False)
                told = [future.result(90) for future in asked]
            accepted.jobs += [one.job_id for one in told]
            settled(accepted, trial)
        assert len({one.answer_id for one in told}) == len({one.job_id for one in told}) == jobs
        assert trial.figures.again <= kills * CONCURRENCY * 1.25  # answers on their way are in flight, too
        assert needless(stack.simulator, trial.at) == []
        at_rest(stack)


@each_pool
def test_what_a_killed_worker_had_says_so_until_its_lease_ends(pool: str, report: Report) -> None:
    """Its jobs are not "running": `explain` knows that their worker is not heard of, and until when they wait."""
    with running_stack(
        workers=1, LLM_EDGE_POOL=pool, LLM_EDGE_LEASE_S="12", LLM_EDGE_CONCURRENCY="16"
    ) as stack:
        stack.simulator.patch(latency_s=60)
        accepted = Accepted(stack)
        with report.of("a worker killed: what is said", pool, 30, case="F1") as trial:
            batch_id = accepted.batch(30)
            wait_for(lambda: in_flight(stack) > 10, 20, "calls in flight")
            trial.fault(lambda: stack.kill_worker(stack.workers[0]))
            stack.simulator.patch(latency_s=0.01)
            stack.start_worker()
            told = named(stack, batch_id, "worker_silent", timeout_s=11)
            assert "not heard of" in told["summary"]
            settled(accepted, trial)
        at_rest(stack)
