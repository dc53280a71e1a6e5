"""F15: Redis forgets: scripts, what is known of providers, the broker's keys, or everything."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests
from support.batches import CHAT, jsonl, lines, outcomes, submit, upload, wait_for_end
from support.callers import Callers
from support.faults import Report, called_again
from support.invariants import at_rest
from support.pools import both_pools
from support.stack import Stack, running_stack
from support.submits import (
    Submits,
    canary,
    ended,
    hand_in,
    job,
    nobody_has_ended,
    served_again,
)
from support.waiting import wait_for

pytestmark = [pytest.mark.verify, pytest.mark.timeout(300)]

JOBS = 800
TIMES = 4
WAITING = 4
"""Callers; fewer than there are places for lone jobs beside the batch's."""
CONDITIONS = ("pv", "sk", "lm", "fl", "gs", "woken", "wait")
"""What is known of providers and of their limits (shared/keys.py)."""


@contextmanager
def at_work(pool: str) -> Iterator[Stack]:
    with running_stack(LLM_EDGE_CONCURRENCY="16", LLM_EDGE_POOL=pool) as stack:
        stack.simulator.patch(latency_s=0.2, rules=[{"match": "^waits", "latency_s": 5}])
        yield stack


def calls(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["calls"])


def forget_scripts(stack: Stack) -> None:
    with stack.valkey.client() as admin:
        admin.script_flush()


def forget_conditions(stack: Stack) -> None:
    with stack.valkey.client() as admin:
        for kind in CONDITIONS:
            if found := list(admin.scan_iter(f"le:{kind}:*", count=1000)):
                admin.delete(*found)


def forget_hints(stack: Stack) -> None:
    """The broker's database, which is another than the ledger's here."""
    with stack.valkey.client() as admin:
        admin.select(1)
        admin.flushdb()


def broker_elsewhere(stack: Stack) -> None:
    stack.env["BROKER_URL"] = f"{stack.valkey.url.rsplit('/', 1)[0]}/1"
    stack.configure()


@pytest.mark.parametrize(
    ("what", "forget"),
    [
        ("scripts flushed", forget_scripts),
        ("providers' condition flushed", forget_conditions),
        ("broker flushed", forget_hints),
    ],
)
def test_what_can_be_had_again_is_not_missed(
    what: str, forget: Callable[[Stack], None], report: Report
) -> None:
    with (
        running_stack(configure=broker_elsewhere, LLM_EDGE_CONCURRENCY="16") as stack,
        stack.client as client,
        report.of(what, "gevent", JOBS, case="F15") as trial,
    ):
        stack.simulator.patch(latency_s=0.2, latency_p95_s=0.4)
        batch = submit(client, lines(JOBS))
        with Submits(stack) as submits:
            for n in range(TIMES):
                goal = (n + 1) * JOBS // (TIMES + 2)
                wait_for(lambda goal=goal: calls(stack) > goal, 60, f"{goal} calls")  # type: ignore[misc]
                trial.fault(lambda: forget(stack))
        served_again(stack)
        done = wait_for_end(client, batch.id, 60)
        jobs = ended(stack, submits.accepted)
        trial.settled()
        trial.figures.jobs += len(submits.accepted)
        answers = len(outcomes(client, done)) + len(jobs)
        trial.count(stack.simulator, answers, answers)
        submits.check_refusals()
        assert done.status == "completed"
        assert {found["status"] for found in jobs.values()} == {"completed"}
        assert (trial.figures.lost, trial.figures.doubled, trial.figures.again) == (0, 0, 0)
        nobody_has_ended(stack)
        at_rest(stack)


def flush(stack: Stack) -> None:
    with stack.valkey.client() as admin:
        admin.flushall()


def restart(stack: Stack) -> None:
    stack.valkey.restart()


@both_pools
@pytest.mark.parametrize(
    ("what", "forget"), [("everything flushed", flush), ("Valkey killed, no AOF", restart)]
)
def test_all_is_lost_and_that_is_said_and_new_work_runs(
    what: str, forget: Callable[[Stack], None], pool: str, report: Report
) -> None:
    """Lost ids are 404, callers who wait are told, and what comes after runs, with the same processes."""
    with at_work(pool) as stack, stack.client as client, Callers(stack.base_url) as callers:
        batch, file_id = submit(client, lines(JOBS)), upload(client, jsonl(lines(5)))
        lost = [hand_in(stack, f"lost {n}").json()["id"] for n in range(20)]
        wait_for(lambda: calls(stack) > JOBS // 4, 60, "a part of the batch to be done")
        waiting = callers.ask([f"waits {n}" for n in range(WAITING)])
        wait_for(
            lambda: str(stack.simulator.calls()[-200:]).count("waits") == WAITING, 20, "the callers' calls"
        )
        with report.of(what, pool, JOBS + len(lost), case="F15") as trial, Submits(stack, "after") as submits:
            trial.fault(lambda: forget(stack))
            served_s = served_again(stack)
            told = [future.exception(timeout=20) for future in waiting]
        wait_for(lambda: stack.workers_alive() == 2, 20, "both workers to report again")
        new = submit(client, lines(50, "anew"))
        assert len(outcomes(client, wait_for_end(client, new.id))) == 50
        # of what was accepted while Redis forgot, some may have come before it
        kept = ended(stack, submits.accepted)
        trial.settled()
        gone = [job_id for job_id in lost if job(stack, job_id) is None]
        trial.figures.lost = JOBS + len(gone)
        sys.stdout.write(
            f"{what}, {pool}: served {served_s:.1f} s after; of {len(submits.accepted)} accepted around it"
            f" {len(submits.accepted) - len(kept)} are gone; {len(submits.refused)} refused\n"
        )
        assert gone == lost
        assert requests.get(f"{stack.base_url}/batches/{batch.id}", timeout=5).status_code == 404
        assert requests.get(f"{stack.base_url}/files/{file_id}", timeout=5).status_code == 404
        unknown = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
        assert requests.post(f"{stack.base_url}/batches", json=unknown, timeout=5).status_code == 404
        assert {getattr(error, "status_code", None) for error in told} == {503}, told
        submits.check_refusals()
        assert {found["status"] for found in kept.values()} == {"completed"}
        assert called_again(stack.simulator) == {}
        assert hand_in(stack, "lost 0").json()["id"] not in lost, "the key is forgotten, too"
        assert canary(stack) < 2
        nobody_has_ended(stack)
        at_rest(stack)
