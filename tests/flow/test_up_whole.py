"""`llm-edge up` itself, with all its real parts: jobs run, and go on after it was stopped or killed."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI
from support.batches import lines, outcomes, submit, wait_for_end
from support.up_run import LLM_EDGE, UpRun, processes_in, running_up
from support.waiting import wait_for

AT_ONCE = "--latency-s 0 --error-rate 0"
SLOW = "--latency-s 0.5 --error-rate 0"
QUICK = {"LLM_EDGE_LEASE_S": "2", "LLM_EDGE_TICK_S": "0.1"}


@contextmanager
def whole(home: Path, *words: str, simulate: str = AT_ONCE) -> Iterator[tuple[UpRun, OpenAI]]:
    options = ("--port", "0", "--workers", "1", "--simulate", simulate, *words)
    with running_up(home, *options, command=LLM_EDGE, environ=QUICK) as up:
        url = up.wait_ready()
        with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client:
            yield up, client


def stopped(up: UpRun, home: Path) -> None:
    up.signal(signal.SIGTERM)
    assert up.wait(60) == 0
    assert processes_in(home) == []


def test_a_batch_runs_on_a_machine_with_nothing_set_up(tmp_path: Path) -> None:
    with whole(tmp_path) as (up, client):
        ended = wait_for_end(client, submit(client, lines(200)).id)
        rows = outcomes(client, ended).values()
        assert len(rows) == 200
        assert {row["response"]["body"]["system_fingerprint"] for row in rows} == {"simulated"}
        assert {row["routing"]["provider"] for row in rows} == {"sim-fast", "sim-steady", "sim-cheap"}
        stopped(up, tmp_path)


def test_started_again_it_goes_on_with_what_was_unfinished(tmp_path: Path) -> None:
    with whole(tmp_path, "--concurrency", "8", simulate=SLOW) as (up, client):
        batch = submit(client, lines(200)).id
        wait_for(lambda: done(client, batch) >= 10, 30, "some jobs to be done")
        up.signal(signal.SIGKILL)
        up.wait()
    with whole(tmp_path) as (up, client):
        ended = wait_for_end(client, batch)
        assert len(outcomes(client, ended)) == 200
        assert ended.status == "completed"
        stopped(up, tmp_path)


@pytest.mark.verify
def test_killed_parts_come_back_and_no_job_is_lost(tmp_path: Path) -> None:
    with whole(tmp_path, "--workers", "2", "--concurrency", "8", simulate=SLOW) as (up, client):
        batch = submit(client, lines(200)).id
        for name in ("worker-1", "valkey", "simulator", "api"):
            before = done(client, batch)
            wait_for(lambda before=before: done(client, batch) > before, 60, "progress")  # type: ignore[misc]
            os.kill(up.part(name), signal.SIGKILL)
            up.wait_said(f"{name} ended (signal 9); started again")
            wait_for(lambda: answers(client), 20, "the API to answer again")
        ended = wait_for_end(client, batch, 120)
        assert len(outcomes(client, ended)) == 200
        stopped(up, tmp_path)


def test_options_that_the_simulator_does_not_know_end_it_with_the_reason(tmp_path: Path) -> None:
    options = ("--port", "0", "--workers", "1", "--simulate", "--nonsense")
    with running_up(tmp_path, *options, command=LLM_EDGE, environ=QUICK) as up:
        assert up.wait(60) == 1
        assert up.said("ready") is None
        assert "simulator does not start: it ended with exit code 2" in up.output
        assert "--nonsense" in up.output
        assert processes_in(tmp_path) == []


def done(client: OpenAI, batch: str) -> int:
    counts = client.batches.retrieve(batch).request_counts
    return 0 if counts is None else counts.completed + counts.failed


def answers(client: OpenAI) -> bool:
    try:
        client.batches.list(limit=1)
    except Exception:  # noqa: BLE001  not yet
        return False
    return True
