"""F6: every connection to Redis is killed once a second for half a minute, while a batch and lone jobs run."""

import sys
import time

import pytest
from support.batches import lines, outcomes, submit, wait_for_end
from support.faults import Report
from support.invariants import at_rest
from support.pools import both_pools
from support.stack import Stack, running_stack
from support.submits import Submits, ended, nobody_has_ended, served_again
from support.waiting import wait_for

pytestmark = [pytest.mark.verify, pytest.mark.timeout(300)]

KILLS = 30
JOBS = 3000


def kill_connections(stack: Stack) -> None:
    with stack.valkey.client() as admin:
        for kind in ("normal", "pubsub"):
            admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


@both_pools
def test_every_connection_is_killed_once_a_second(pool: str, report: Report) -> None:
    with (
        running_stack(LLM_EDGE_CONCURRENCY="16", LLM_EDGE_POOL=pool) as stack,
        stack.client as client,
        report.of("connections to Redis killed", pool, JOBS, case="F6") as trial,
    ):
        stack.simulator.patch(latency_s=0.2, latency_p95_s=0.4)
        batch = submit(client, lines(JOBS))
        with Submits(stack) as submits:
            for n in range(KILLS):
                at = time.monotonic() + 1.0
                wait_for(lambda at=at: time.monotonic() >= at, 5, f"second {n}")  # type: ignore[misc]
                trial.fault(lambda: kill_connections(stack))
        served_s = served_again(stack)
        done = wait_for_end(client, batch.id, 120)
        jobs = ended(stack, submits.accepted)
        trial.settled()
        trial.figures.jobs += len(submits.accepted)
        answers = len(outcomes(client, done)) + len(jobs)
        trial.count(stack.simulator, answers, answers)
        sys.stdout.write(
            f"{pool}: {len(submits.accepted)} jobs accepted, {len(submits.refused)} refused, slowest in"
            f" {submits.slowest_s:.2f} s; served {served_s:.1f} s after the last kill\n"
        )
        submits.check_refusals()
        assert done.status == "completed"
        assert {found["status"] for found in jobs.values()} == {"completed"}
        assert (trial.figures.lost, trial.figures.doubled) == (0, 0)
        assert trial.figures.again == 0, "a connection that breaks costs no call"
        nobody_has_ended(stack)
        at_rest(stack)
