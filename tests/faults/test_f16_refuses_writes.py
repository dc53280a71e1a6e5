"""F16: Redis is there and takes no write, being full, a replica, or without its replicas: said in time, explained, and survived."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import requests
from support.batches import lines, outcomes, submit, wait_for_end
from support.faults import Report
from support.invariants import at_rest
from support.stack import Stack, running_stack
from support.submits import Submits, check_refusal, ended, nobody_has_ended, served_again
from support.waiting import wait_for

from shared.ledger import HEARTBEAT_TIMEOUT_S

pytestmark = [pytest.mark.verify, pytest.mark.timeout(300)]

JOBS = 1200


@contextmanager
def a_replica(stack: Stack) -> Iterator[None]:
    with stack.valkey.client() as admin:
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        yield
        admin.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def without_replicas(stack: Stack) -> Iterator[None]:
    with stack.valkey.client() as admin:
        admin.config_set("min-replicas-to-write", 1)
        yield
        admin.config_set("min-replicas-to-write", 0)


@contextmanager
def full(stack: Stack) -> Iterator[None]:
    with stack.valkey.client() as admin:
        admin.setrange("filler", int(admin.config_get("maxmemory")["maxmemory"]), "x")
        yield
        admin.delete("filler")


@pytest.mark.parametrize(
    ("what", "refusing", "reason", "words"),
    [
        ("Redis a replica", a_replica, "store_away", "replica now"),
        ("Redis without replicas", without_replicas, "store_away", "min-replicas-to-write"),
        ("Redis full", full, "store_full", "no call begins before there is room"),
    ],
)
def test_a_server_that_takes_no_write(
    what: str, refusing: Any, reason: str, words: str, report: Report
) -> None:
    """For longer than it takes to count the workers as dead: that would name the wrong cause."""
    with (
        running_stack(LLM_EDGE_CONCURRENCY="16") as stack,
        stack.client as client,
        report.of(what, "gevent", JOBS, case="F16") as trial,
    ):
        with stack.valkey.client() as admin:
            admin.config_set("maxmemory", 64 * 1024 * 1024)
        stack.simulator.patch(latency_s=0.2, latency_p95_s=0.4)
        batch = submit(client, lines(JOBS))
        wait_for(lambda: len(stack.simulator.calls()) > JOBS // 4, 60, "a part of the batch to be done")

        def explained() -> Any:
            found = requests.get(f"{stack.base_url}/batches/{batch.id}/explain", timeout=5).json()
            return [group for group in found["waiting"] if group["provider"] is None]

        with Submits(stack) as submits:
            with ExitStack() as fault:
                fault.enter_context(refusing(stack))
                until = time.monotonic() + HEARTBEAT_TIMEOUT_S + 3
                wait_for(lambda: submits.refused, 5, "a refusal")
                causes = wait_for(explained, 5, "explain to name the cause")
                assert [cause["reason"] for cause in causes] == [reason]
                assert words in causes[0]["message"]
                uploaded = requests.post(
                    f"{stack.base_url}/files",
                    data={"purpose": "batch"},
                    files={"file": ("a.jsonl", b"{}\n")},
                    timeout=5,
                )
                check_refusal(uploaded)
                wait_for(lambda: time.monotonic() > until, 30, "heartbeats to be missed")
                assert [cause["reason"] for cause in explained()] == [reason]
                refused = len(submits.refused)
                trial.fault(fault.close)  # from here on it settles
            served_s = served_again(stack)
        done = wait_for_end(client, batch.id, 60)
        jobs = ended(stack, submits.accepted)
        trial.settled()
        trial.figures.jobs += len(submits.accepted)
        answers = len(outcomes(client, done)) + len(jobs)
        trial.count(stack.simulator, answers, answers)
        sys.stdout.write(
            f"{what}: {refused} refused, slowest in {submits.slowest_s:.2f} s;"
            f" served {served_s:.1f} s after its end\n"
        )
        submits.check_refusals()
        assert refused > 0
        assert done.status == "completed"
        assert {found["status"] for found in jobs.values()} == {"completed"}
        assert (trial.figures.lost, trial.figures.doubled, trial.figures.again) == (0, 0, 0)
        nobody_has_ended(stack)
        at_rest(stack)
