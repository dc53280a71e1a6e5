"""kill -9 around lone jobs: each caller gets one answer, each job one outcome, and the provider is asked again only for what was under way.

The provider simulator is the witness. The short forms are in `make test`, the loops in `make faults`.
"""

import random
from collections.abc import Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager

import pytest
from support.callers import Callers, Told, hints_to, recorded, submit_async
from support.faults import Report, Trial, needless
from support.stack import Stack, running_stack
from support.waiting import wait_for

from shared.lone import LONE

CONCURRENCY = 16
LEASE_S = 3.0
SETTLES_S = 60.0

long = (pytest.mark.verify, pytest.mark.timeout(400))


def lone_stack(pool: str, *, workers: int = 2, **env: str) -> AbstractContextManager[Stack]:
    settings = {
        "LLM_EDGE_POOL": pool,
        "LLM_EDGE_CONCURRENCY": str(CONCURRENCY),
        "LLM_EDGE_LEASE_S": str(LEASE_S),
    }
    return running_stack(
        workers=workers, aof=False, part_env=None, configure=Stack.configure, **settings, **env
    )


def questions(count: int) -> list[str]:
    return [f"question {n}" for n in range(count)]


def answers(asked: "Sequence[Future[Told]]", trial: Trial, timeout_s: float = SETTLES_S) -> list[Told]:
    """What every caller was told. Raises what one of them got instead."""
    wait(asked, timeout=timeout_s)
    waiting = sum(not future.done() for future in asked)
    assert not waiting, f"{waiting} callers still wait after {timeout_s:g} s"
    trial.settled()
    return [future.result() for future in asked]


def answered_once(stack: Stack, trial: Trial, told: list[Told]) -> None:
    """One answer a caller, one job an answer, and what was told is what is recorded."""
    jobs = recorded(stack)
    trial.count(stack.simulator, len(told), len({answer.answer_id for answer in told}))
    assert (trial.figures.lost, trial.figures.doubled) == (0, 0)
    assert len({answer.job_id for answer in told}) == len(told)
    for answer in told:
        job = jobs[answer.job_id]
        assert job["status"] == "completed"
        assert job["response"]["body"]["id"] == answer.answer_id


def calls(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["calls"])


def called(stack: Stack, goal: int) -> None:
    wait_for(lambda: calls(stack) >= goal, 60, f"{goal} calls")


@pytest.mark.parametrize("pool", ["gevent"])
def test_workers_killed_while_64_callers_wait(pool: str, report: Report) -> None:
    """A quick one; `make faults` has the loop (F1)."""
    jobs, kills = 200, 3
    rng = random.Random(5)
    with lone_stack(pool) as stack, report.of("workers killed, callers wait", pool, jobs) as trial:
        stack.simulator.patch(latency_s=0.2, latency_p95_s=0.5)
        with Callers(stack.base_url) as callers:
            asked = callers.ask(questions(jobs))
            for n in range(kills):
                called(stack, (n + 1) * jobs // (kills + 1))
                trial.fault(lambda: stack.kill_worker(rng.choice(stack.workers)))
                stack.start_worker(wait=False)
            answered_once(stack, trial, answers(asked, trial))
        assert len(recorded(stack)) == jobs
        assert needless(stack.simulator, trial.at) == []
        assert (
            trial.figures.again <= kills * CONCURRENCY * 1.25
        )  # answers on their way to the ledger are in flight, too


@pytest.mark.parametrize(("jobs", "kills"), [(96, 2), pytest.param(600, 10, marks=long)])
def test_the_api_killed_while_64_callers_wait(pool: str, jobs: int, kills: int, report: Report) -> None:
    """The SDK repeats by itself; its repetition finds the job that is there, running or ended: one call each."""
    with lone_stack(pool) as stack, report.of("API killed, callers repeat", pool, jobs) as trial:
        stack.simulator.patch(latency_s=0.5, latency_p95_s=1.5)

        def kill_api() -> None:
            stack.kill_api()
            stack.start_api()

        with Callers(stack.base_url, max_retries=20) as callers:
            asked = callers.ask(questions(jobs))
            for n in range(kills):
                called(stack, (n + 1) * jobs // (kills + 1))
                trial.fault(kill_api)
            answered_once(stack, trial, answers(asked, trial))
        assert len(recorded(stack)) == jobs, "a repetition made a job of its own"
        assert trial.figures.again == 0


def test_a_job_that_ends_while_no_api_lives_is_found_by_the_repetition(pool: str, report: Report) -> None:
    with lone_stack(pool) as stack, report.of("API away while jobs end", pool, 8) as trial:
        stack.simulator.patch(latency_s=1.0)
        with Callers(stack.base_url, max_retries=20) as callers, stack.valkey.client() as redis:
            asked = callers.ask(questions(8))
            called(stack, 8)
            trial.fault(stack.kill_api)
            keys = redis.keys("le:j:*")
            assert len(keys) == 8
            wait_for(lambda: all(redis.hget(k, "status") == b"completed" for k in keys), 10, "their end")
            stack.start_api()
            answered_once(stack, trial, answers(asked, trial))
        assert len(recorded(stack)) == 8
        assert trial.figures.again == 0


def test_the_api_killed_before_any_job_has_begun(pool: str, report: Report) -> None:
    """What was accepted is kept; what was waited for is kept for its repetition, and called once."""
    with lone_stack(pool, workers=0) as stack, report.of("API killed, jobs queued", pool, 40) as trial:
        with Callers(stack.base_url, max_retries=20) as callers, stack.valkey.client() as redis:
            accepted = [submit_async(stack, f"later {n}") for n in range(20)]
            asked = callers.ask(questions(20))
            wait_for(lambda: len(redis.keys("le:j:*")) == 40, 20, "all to be taken in")
            trial.fault(stack.kill_api)
            stack.start_api()
            stack.start_worker()
            told = answers(asked, trial)

            def ended() -> bool:
                jobs = recorded(stack)
                return all(jobs[job_id]["status"] == "completed" for job_id in accepted)

            wait_for(ended, 20, "the accepted jobs to end")
            trial.settled()
        jobs = recorded(stack)
        later = [Told(job_id, jobs[job_id]["response"]["body"]["id"]) for job_id in accepted]
        answered_once(stack, trial, told + later)
        assert len(jobs) == 40
        assert calls(stack) == 40


def test_a_second_api_answers_the_repetition(pool: str, report: Report) -> None:
    """Behind a load balancer the SDK's repetition comes to another process."""
    with (
        lone_stack(pool) as stack,
        report.of("API killed, another answers", pool, 16) as trial,
    ):
        other = stack.start_another_api()
        stack.simulator.patch(latency_s=1.5)
        with Callers(stack.base_url) as callers, Callers(other, repeats=True) as repeating:
            first = callers.ask(questions(16))
            called(stack, 16)
            trial.fault(stack.kill_api)
            wait(first, timeout=10)
            assert all(future.exception() is not None for future in first)
            told = answers(repeating.ask(questions(16)), trial)
        stack.start_api()
        answered_once(stack, trial, told)
        assert len(recorded(stack)) == 16
        assert trial.figures.again == 0


def test_hints_lost(pool: str, report: Report) -> None:
    with lone_stack(pool, workers=0) as stack, report.of("hints lost", pool, 64) as trial:
        with Callers(stack.base_url) as callers, stack.valkey.client() as redis:
            asked = callers.ask(questions(64))
            wait_for(lambda: len(redis.keys("le:j:*")) == 64, 20, "all to be taken in")
            wait_for(lambda: redis.llen("interactive"), 10, "a hint")
            trial.fault(lambda: redis.delete("interactive"))
            stack.start_worker()
            answered_once(stack, trial, answers(asked, trial, timeout_s=20))
        assert trial.figures.again == 0


def test_hints_that_nobody_sent(pool: str, report: Report) -> None:
    """What a broker does that delivers twice, or twenty times."""
    with lone_stack(pool) as stack, report.of("hints doubled", pool, 300) as trial:
        stack.simulator.patch(latency_s=0.05)
        with Callers(stack.base_url) as callers, hints_to(stack) as hints:
            asked = callers.ask(questions(300))
            while not all(future.done() for future in asked):
                trial.fault(lambda: hints.send([LONE] * 20))
            answered_once(stack, trial, answers(asked, trial))
        assert trial.figures.again == 0
