"""F15: the server dies and keeps its append-only file; or its machine dies, and with it the file's end, as `everysec` may lose it."""

import sys
from typing import Literal

import pytest
from support.batches import lines, outcomes, submit, wait_for_end
from support.faults import Report
from support.invariants import at_rest
from support.stack import Stack, running_stack
from support.submits import Submits, ended, hand_in, job, nobody_has_ended, served_again
from support.waiting import wait_for

pytestmark = [pytest.mark.verify, pytest.mark.timeout(300)]

JOBS = 800
LATEST = 30


KILLS = 3


@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_where_only_the_process_dies_nothing_accepted_is_lost(
    fsync: Literal["everysec", "always"], report: Report
) -> None:
    """The system has what was written before the answer, whatever has come to the disk of it."""
    with (
        running_stack(aof=True if fsync == "everysec" else fsync, LLM_EDGE_CONCURRENCY="16") as stack,
        stack.client as client,
        report.of(f"Valkey killed, {fsync}", "gevent", JOBS, case="F15") as trial,
    ):
        stack.simulator.patch(latency_s=0.2)
        batch = submit(client, lines(JOBS))
        with Submits(stack, every_s=0.005) as one, Submits(stack, "other", every_s=0.005) as other:
            for n in range(KILLS):
                goal = (n + 1) * JOBS // (KILLS + 2)
                wait_for(lambda goal=goal: len(stack.simulator.calls()) > goal, 60, f"{goal} calls")  # type: ignore[misc]
                trial.fault(stack.valkey.restart)
        served_s = served_again(stack)
        done = wait_for_end(client, batch.id, 60)
        accepted = one.accepted + other.accepted
        jobs = ended(stack, accepted)
        trial.settled()
        found = outcomes(client, done)
        trial.figures.jobs += len(accepted)
        trial.count(stack.simulator, len(found) + len(jobs), len(found) + len(jobs))
        sys.stdout.write(
            f"{fsync}: {len(accepted)} accepted, {len(one.refused) + len(other.refused)} refused; served {served_s:.1f} s after\n"
        )
        one.check_refusals()
        other.check_refusals()
        assert (trial.figures.lost, trial.figures.doubled) == (0, 0)
        assert {state["status"] for state in jobs.values()} == {"completed"}
        assert trial.figures.again <= KILLS * 32, "more than was in flight"
        nobody_has_ended(stack)
        at_rest(stack)


def written(stack: Stack) -> int:
    """Bytes of the file that is appended to."""
    (file,) = (stack.valkey.folder / "data/appendonlydir").glob("*.incr.aof")
    return file.stat().st_size


def lose_the_tail(stack: Stack, keep: int) -> None:
    """kill -9 alone loses nothing, since the system has what was written; a power cut does."""
    stack.valkey.kill()
    (file,) = (stack.valkey.folder / "data/appendonlydir").glob("*.incr.aof")
    with file.open("r+b") as cut:
        cut.truncate(keep)
    stack.valkey.start()


def test_what_was_accepted_last_is_unknown_and_the_rest_ends_once(report: Report) -> None:
    with (
        running_stack(aof=True, LLM_EDGE_CONCURRENCY="16") as stack,
        stack.client as client,
        report.of("AOF's tail lost", "gevent", JOBS, case="F15") as trial,
    ):
        stack.simulator.patch(latency_s=0.2)
        batch = submit(client, lines(JOBS))
        with Submits(stack, "early", every_s=0.01) as early:
            wait_for(lambda: len(stack.simulator.calls()) > JOBS // 4, 60, "a part of the batch to be done")
        size = written(stack)
        late = [hand_in(stack, f"late {n}").json()["id"] for n in range(LATEST)]
        trial.fault(lambda: lose_the_tail(stack, size + 100))  # in the midst of a record
        served_s = served_again(stack)
        done = wait_for_end(client, batch.id, 60)
        jobs = ended(stack, early.accepted)
        trial.settled()
        gone = [job_id for job_id in late if job(stack, job_id) is None]
        found = outcomes(client, done)
        trial.figures.jobs += len(early.accepted) + LATEST
        trial.count(stack.simulator, len(found) + len(jobs), len(found) + len(jobs))
        sys.stdout.write(
            f"the tail lost: {len(gone)} of the last {LATEST} accepted are unknown, none of the {len(jobs)} before;"
            f" {trial.figures.again} called again; served {served_s:.1f} s after\n"
        )
        assert len(gone) == LATEST
        assert trial.figures.lost == LATEST, "and nothing else"
        assert trial.figures.doubled == 0
        assert done.status == "completed"
        assert {state["status"] for state in jobs.values()} == {"completed"}
        again = hand_in(stack, "late 0").json()["id"]
        assert again not in gone
        assert ended(stack, [again])[again]["status"] == "completed"
        nobody_has_ended(stack)
        at_rest(stack)
