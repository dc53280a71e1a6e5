"""F10: a failover by Sentinel. With LLM_EDGE_WAIT_REPLICAS no accepted id is lost; without, what the replica had not heard is."""

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests
from support.batches import lines, outcomes, submit, wait_for_end
from support.faults import Report
from support.replicas import stop_listening
from support.stack import Stack, running_stack
from support.submits import (
    Submits,
    check_refusal,
    ended,
    hand_in,
    job,
    nobody_has_ended,
    served_again,
)
from support.waiting import wait_for
from support.watched import Watched, running_watched

from shared.redis_acl import API_USER, WORKER_USER

pytestmark = [pytest.mark.verify, pytest.mark.timeout(300)]

JOBS = 1500
LOST = 20


@pytest.fixture
def watched() -> Iterator[Watched]:
    with running_watched() as found:
        yield found


@contextmanager
def at_work(watched: Watched, **env: str) -> Iterator[Stack]:
    parts = {"api": watched.env(API_USER), "worker": watched.env(WORKER_USER)}
    with running_stack(
        workers=2,
        aof=False,
        part_env=parts,
        configure=Stack.configure,
        **{"LLM_EDGE_CONCURRENCY": "16", **env},
    ) as stack:
        stack.simulator.patch(latency_s=0.2)
        wait_for(lambda: hand_in(stack, f"warm {uuid.uuid4()}").status_code == 202, 30, "a job accepted")
        yield stack


def kill_master(watched: Watched) -> None:
    watched.processes[watched.data[0]].kill()


def promoted(watched: Watched) -> None:
    wait_for(lambda: watched.master() == watched.data[1], 30, "the replica's promotion")


def test_with_wait_nothing_accepted_is_lost(watched: Watched, report: Report) -> None:
    with (
        at_work(watched, LLM_EDGE_WAIT_REPLICAS="1") as stack,
        stack.client as client,
        report.of("failover, WAIT 1", "gevent", JOBS, case="F10") as trial,
    ):
        batch = submit(client, lines(JOBS))
        with Submits(stack, every_s=0.005) as one, Submits(stack, "other", every_s=0.005) as other:
            wait_for(lambda: len(stack.simulator.calls()) > JOBS // 4, 60, "a part of the batch to be done")
            before = len(one.accepted) + len(other.accepted)
            trial.fault(lambda: kill_master(watched))
            promoted(watched)
            wait_for(
                lambda: "not_replicated" in one.refused[-1].text,
                20,
                "submits to be refused for want of replicas",
            )
        served_s = served_again(stack)
        done = wait_for_end(client, batch.id, 120)
        accepted, refused = one.accepted + other.accepted, one.refused + other.refused
        jobs = ended(stack, accepted)
        trial.settled()
        trial.figures.jobs += len(accepted)
        found = outcomes(client, done)
        trial.count(stack.simulator, len(found) + len(jobs), len(found) + len(jobs))
        slowest_s = max(answer.elapsed.total_seconds() for answer in refused)
        sys.stdout.write(
            f"WAIT 1: {len(accepted)} accepted ({before} before the kill), {len(refused)} refused, slowest in"
            f" {slowest_s:.2f} s; served {served_s:.1f} s after the promotion\n"
        )
        assert set(accepted) == set(jobs), "an accepted job is not known any more"
        assert {ended_["status"] for ended_ in jobs.values()} == {"completed"}
        assert done.status == "completed"
        for answer in refused:
            check_refusal(answer)
        assert (trial.figures.lost, trial.figures.doubled) == (0, 0)
        assert trial.figures.again <= len(stack.workers) * 16 * 2, (
            "more than was on its way when the master died"
        )
        nobody_has_ended(stack)


@pytest.mark.parametrize("wait", [0, 1])
def test_what_the_replica_has_not_heard_is_lost_where_nobody_waits_for_it(
    wait: int, watched: Watched, report: Report
) -> None:
    """The replica's link is cut before the master dies: the worst case, which a test can repeat."""
    what = f"failover, link cut before, WAIT {wait}"
    with (
        at_work(watched, LLM_EDGE_WAIT_REPLICAS=str(wait)) as stack,
        stack.client as client,
        report.of(what, "gevent", LOST, case="F10") as trial,
    ):
        batch = submit(client, lines(50))
        assert len(outcomes(client, wait_for_end(client, batch.id))) == 50
        stack.simulator.patch(rules=[{"match": "^unheard", "latency_s": 3}])
        replica = watched.processes[watched.data[1]]
        stop_listening(replica, watched.client(watched.data[0]))
        answers = [hand_in(stack, f"unheard {n}") for n in range(1 if wait else LOST)]
        trial.fault(lambda: kill_master(watched))
        replica.go_on()
        promoted(watched)
        served_s = served_again(stack)
        lost = [a.json()["id"] for a in answers if a.ok and job(stack, a.json()["id"]) is None]
        trial.settled()
        trial.figures.lost = len(lost)
        sys.stdout.write(
            f"{what}: {sum(a.ok for a in answers)} accepted of {len(answers)}, {len(lost)} of them lost; served"
            f" {served_s:.1f} s after the promotion\n"
        )
        if wait:
            assert [a.json()["error"]["code"] for a in answers] == ["not_replicated"]
            assert lost == []
        else:
            assert len(lost) == LOST, "this test shows what is lost"
            again = hand_in(stack, "unheard 0")
            assert again.json()["id"] not in lost
            assert ended(stack, [again.json()["id"]])
        assert requests.get(f"{stack.base_url}/batches/{batch.id}", timeout=5).json()["status"] == "completed"
        nobody_has_ended(stack)
