"""F13, poison jobs: what kills its worker again and again fails with the reason, and whoever ran beside it, or beside random kills, is done.

A kill is `kill -9` from outside: of the worker that has the poison in call, or of any. The short form is tests/flow/test_poison.py.
"""

import json
import random
import subprocess
import sys
import time
from typing import Any

import pytest
import requests
from support.batches import TERMINAL, lines, outcomes, submit, wait_for_end
from support.callers import submit_async
from support.faults import Report
from support.full import each_pool
from support.poison import (
    DEADLY,
    Reaper,
    deadly_line,
    explained,
    holder_of,
    holder_of_lone,
    lone_job,
    poisoned_stack,
)
from support.stack import Stack
from support.waiting import wait_for

from shared.reasons import Reason

pytestmark = pytest.mark.timeout(900)

POISON = 120
KILLS = 25
ENDED = {"completed", "failed", "cancelled", "expired"}


def cli(stack: Stack, *words: str) -> str:
    command = [sys.executable, "-m", "api.cli.main", *words]
    return subprocess.run(command, env=stack.env, check=True, capture_output=True, text=True).stdout


def assert_blamed(error: dict[str, Any], deaths: int) -> None:
    assert error["code"] == "worker_killed"
    assert f"died {deaths} times while it ran this job" in error["message"]


@each_pool
def test_a_poison_job_in_a_batch_of_200(pool: str, report: Report) -> None:
    rows = lines(200)
    rows[POISON] = deadly_line("poison")
    with poisoned_stack(workers=2, pool=pool) as stack, stack.client as client:
        batch = submit(client, rows)
        reaper = Reaper(stack, lambda _: holder_of(stack, batch.id, POISON))
        said: list[str] = []

        def ended() -> Any:
            reasons = {w["reason"] for w in explained(stack, batch.id)["waiting"]}
            if Reason.SUSPECT in reasons and not said:
                said.append(cli(stack, "batch", "explain", batch.id, "--line", str(POISON + 1)))
            found = client.batches.retrieve(batch.id)
            return found if found.status in TERMINAL else None

        with report.of("a job that kills its workers, in a batch", pool, 200, case="F13") as trial:
            found = outcomes(client, reaper.until(ended, 200, "the batch to end"))
            trial.tell(stack, len(found), reaper.killed_at)
        deaths = reaper.deaths["poison"]
        sys.stdout.write(f"{pool}: {deaths} deaths\n{said[0]}")
        assert deaths in {5, 6}
        assert len(found) == 200
        assert [custom_id for custom_id, row in found.items() if row["error"]] == ["poison"]
        assert_blamed(found["poison"]["error"], deaths)
        assert Reason.SUSPECT in said[0]


@each_pool
def test_a_lone_poison_job(pool: str, report: Report) -> None:
    with (
        poisoned_stack(pool=pool) as stack,
        report.of("a lone job that kills its workers", pool, 21, case="F13") as trial,
    ):
        poison = submit_async(stack, "poison", DEADLY)
        others = [submit_async(stack, f"other {n}", "test-model") for n in range(20)]
        reaper = Reaper(stack, lambda _: holder_of_lone(stack, poison))
        reasons: set[str] = set()

        def ended() -> Any:
            job = lone_job(stack, poison)
            reasons.update({job["waiting"]["reason"]} if job["waiting"] else ())
            return job if job["status"] in ENDED else None

        job = reaper.until(ended, 120, "the job to end")
        deaths = reaper.deaths["poison"]
        sys.stdout.write(f"{pool}: {deaths} deaths, {job['error']}\n")
        assert job["status"] == "failed"
        assert_blamed(job["error"], deaths)
        assert deaths == 5
        assert Reason.SUSPECT in reasons
        wait_for(lambda: all(lone_job(stack, j)["status"] == "completed" for j in others), 30, "the others")
        trial.tell(stack, 21, reaper.killed_at)


@pytest.mark.faults
@pytest.mark.parametrize("pool", ["gevent", "threads"])
def test_two_poison_jobs_are_told_from_each_other_and_from_the_innocent(pool: str, report: Report) -> None:
    rows = lines(60)
    rows[5], rows[45] = deadly_line("poison-5"), deadly_line("poison-45")
    with poisoned_stack(workers=2, pool=pool) as stack, stack.client as client:
        batch = submit(client, rows)
        reaper = Reaper(stack, lambda prompt: holder_of(stack, batch.id, int(prompt.rpartition("-")[2])))

        def ended() -> Any:
            found = client.batches.retrieve(batch.id)
            return found if found.status in TERMINAL else None

        with report.of("two such jobs in a batch", pool, 60, case="F13") as trial:
            found = outcomes(client, reaper.until(ended, 300, "the batch to end"))
            trial.tell(stack, len(found), reaper.killed_at)
        sys.stdout.write(f"{pool}: {reaper.deaths}\n")
        assert len(found) == 60
        failed = {custom_id: row["error"]["code"] for custom_id, row in found.items() if row["error"]}
        assert failed == {"poison-5": "worker_killed", "poison-45": "worker_killed"}


def calls(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["calls"])


def at_work(stack: Stack) -> list["subprocess.Popen[bytes]"]:
    """The workers that have calls under way; any where none says so."""
    told = requests.get(f"{stack.base_url}/workers", timeout=5).json()["data"]
    busy = [worker["id"] for worker in told if worker["in_flight"]]
    return [w for w in stack.workers if any(f"-{w.pid}-" in name for name in busy)] or stack.workers


def suspects_made(stack: Stack) -> dict[int, int]:
    """From the logs: how often a death made, or kept, a job a suspect, by its deaths alone."""
    found: dict[int, int] = {}
    for log in stack.folder.glob("*.log"):
        for row in log.read_text().splitlines():
            event = json.loads(row) if row.startswith("{") else {}
            if event.get("event") == "suspects":
                found[0] = found.get(0, 0) + event["count"]
            if event.get("event") == "suspect":
                found[event["alone"]] = found.get(event["alone"], 0) + 1
    return found


@pytest.mark.faults
@pytest.mark.parametrize(("pool", "seed"), [("gevent", 1), ("threads", 2)])
def test_a_random_kill_loop_blames_nobody(pool: str, seed: int, report: Report) -> None:
    rng = random.Random(seed)
    with (
        poisoned_stack(workers=2, pool=pool) as stack,
        stack.client as client,
        report.of("random kills blame nobody", pool, 4000 + 40 + 4 * KILLS, case="F13") as trial,
    ):
        batch = submit(client, lines(4000))
        lone = [submit_async(stack, f"lone {n}", "test-model") for n in range(40)]
        for n in range(KILLS):
            goal = calls(stack) + rng.randrange(5, 80)
            wait_for(lambda goal=goal: calls(stack) >= goal, 60, "workers to be at work")  # type: ignore[misc]
            trial.fault(lambda: stack.kill_worker(rng.choice(at_work(stack))))
            stack.start_worker(wait=False)
            lone += [submit_async(stack, f"lone, and late {n} {m}", "test-model") for m in range(4)]
        began = time.monotonic()
        ended = wait_for_end(client, batch.id, timeout_s=120, every_s=0.1)
        found = outcomes(client, ended)
        assert len(found) == 4000
        assert [row for row in found.values() if row["error"]] == []
        made = suspects_made(stack)
        sys.stdout.write(f"{pool}: {KILLS} kills, suspects (how often, by deaths alone): {made}, ")
        sys.stdout.write(f"all done {time.monotonic() - began:.1f} s after the last\n")

        def done() -> bool:
            states = {lone_job(stack, job_id)["status"] for job_id in lone}
            assert states <= {"queued", "in_progress", "completed"}, states
            return states == {"completed"}

        wait_for(done, 60, "the lone jobs to end", every_s=0.5)
        trial.tell(stack, len(found) + len(lone), trial.at)
