"""The append-only file or a snapshot, copied under load by the commands of ops/docs/operations.md, and a new fleet on the copy."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.batches import lines, outcomes, submit, wait_for_end
from support.faults import Report, called_again
from support.pages import commands, type_in
from support.simulator import running_simulator
from support.stack import Stack, running_stack
from support.submits import Submits, ended, job, served_again
from support.valkey import Valkey
from support.waiting import wait_for

pytestmark = [pytest.mark.verify, pytest.mark.timeout(300)]

JOBS = 1500
PAGE = "operations"


def surroundings(valkey: Valkey, backup: Path) -> dict[str, str]:
    """What the page asks for."""
    return {
        **os.environ,
        "CLI": f"redis-cli -p {valkey.port}",
        "REDISCLI_AUTH": valkey.password,
        "DATA": str(valkey.folder / "data"),
        "BACKUP": str(backup),
    }


@contextmanager
def server_on(folder: Path, *, aof: bool) -> Iterator[Valkey]:
    server = Valkey(folder, aof=aof, maxmemory=512 * 1024 * 1024)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def fleet_on(valkey: Valkey, folder: Path) -> Iterator[Stack]:
    """A new API, worker and provider on a server that is there."""
    with ExitStack() as parts:
        simulator = parts.enter_context(running_simulator())
        stack = Stack(folder, valkey, simulator, {"LLM_EDGE_CONCURRENCY": "16"})
        parts.callback(stack.stop)
        stack.configure()
        stack.start_api()
        stack.start_worker()
        yield stack


class Copied:
    """What stands in a copy before anything runs on it."""

    def __init__(self, valkey: Valkey) -> None:
        with valkey.client(decode_responses=True) as redis:
            names: list[str] = [str(key) for key in redis.scan_iter("le:j:*", count=1000)]
            self.jobs = {name.removeprefix("le:j:"): self._fields(redis, name) for name in names}
            batches = [str(key) for key in redis.scan_iter("le:b:*", count=1000) if str(key).count(":") == 2]
            self.batches = {name.removeprefix("le:b:"): redis.get(f"{name}:st") for name in batches}

    @staticmethod
    def _fields(redis: Any, name: str) -> tuple[str, str]:
        status, line = redis.hmget(name, "status", "line")
        return str(status), str(line or "")

    @property
    def open(self) -> int:
        lone = sum(status in {"queued", "in_progress"} for status, _ in self.jobs.values())
        return lone + sum(str(states).count("p") for states in self.batches.values())


def back_up_the_file(valkey: Valkey, backup: Path) -> None:
    type_in(commands(PAGE, "The append-only file"), surroundings(valkey, backup), backup.parent)


def back_up_by_snapshot(valkey: Valkey, backup: Path) -> None:
    type_in(commands(PAGE, "A snapshot"), surroundings(valkey, backup), backup.parent)


@contextmanager
def the_file_restored(folder: Path, backup: Path) -> Iterator[Valkey]:
    with server_on(folder, aof=True) as server:
        (folder / "data").rmdir()
        type_in(commands(PAGE, "Restore", 0), surroundings(server, backup), folder)
        server.start()
        yield server


@contextmanager
def the_snapshot_restored(folder: Path, backup: Path) -> Iterator[Valkey]:
    with server_on(folder, aof=False) as server:
        type_in(commands(PAGE, "Restore", 1), surroundings(server, backup), folder)
        server.start()
        type_in(commands(PAGE, "Restore", 2), surroundings(server, backup), folder)
        assert list((folder / "data/appendonlydir").glob("*.manifest"))
        yield server


@pytest.mark.parametrize(
    ("what", "back_up", "restored"),
    [
        ("AOF copied under load, restored", back_up_the_file, the_file_restored),
        ("snapshot under load, restored", back_up_by_snapshot, the_snapshot_restored),
    ],
)
def test_a_backup_taken_under_load_is_a_world_in_which_each_job_ends_once(
    what: str, back_up: Any, restored: Any, tmp_path: Path, report: Report
) -> None:
    backup, new = tmp_path / "backup", tmp_path / "new"
    new.mkdir()
    with running_stack(aof=True, LLM_EDGE_CONCURRENCY="16") as old, old.client as client:
        old.simulator.patch(latency_s=0.2, latency_p95_s=0.4)
        batch = submit(client, lines(JOBS))
        with Submits(old, every_s=0.01) as submits:
            wait_for(lambda: len(old.simulator.calls()) > JOBS // 3, 60, "a third of the batch to be done")
            before = list(submits.accepted)
            back_up(old.valkey, backup)
            after = len(submits.accepted)
        assert not submits.refused, "a backup was felt"
        assert len(outcomes(client, wait_for_end(client, batch.id, 120))) == JOBS, "the old world goes on"
    with restored(new, backup) as valkey:
        copied = Copied(valkey)
        assert set(before) <= set(copied.jobs), "accepted before the copy was begun, and not in it"
        assert set(copied.batches) == {batch.id}
        with fleet_on(valkey, tmp_path) as stack, stack.client as client:
            stack.simulator.patch(latency_s=0.02)
            with report.of(what, "gevent", JOBS + len(copied.jobs)) as trial:
                trial.fault(lambda: None)  # the restored world's first moment
                done = wait_for_end(client, batch.id, 120)
                jobs = ended(stack, copied.jobs)
                trial.settled()
                found = outcomes(client, done)  # no line twice, and the counts are the files'
                trial.figures.lost = trial.figures.jobs - len(found) - len(jobs)
                trial.figures.again = sum(called_again(stack.simulator).values())
            sys.stdout.write(
                f"{what}: {len(before)} lone jobs accepted before, {after} by its end, {len(copied.jobs)} in the copy;"
                f" {copied.open} jobs of the copy were open, {len(stack.simulator.calls())} calls made for them\n"
            )
            assert done.status == "completed"
            assert len(found) == JOBS
            assert {state["status"] for state in jobs.values()} == {"completed"}
            assert trial.figures.lost == trial.figures.again == 0
            assert 0 < copied.open == len(stack.simulator.calls()), "only what was open is called"
            for job_id, (status, line) in copied.jobs.items():
                if status == "completed":
                    assert jobs[job_id]["response"]["body"]["id"] in line, "an end was changed"
            unknown = set(submits.accepted) - set(copied.jobs)
            assert all(job(stack, job_id) is None for job_id in unknown)
            served_again(stack)
