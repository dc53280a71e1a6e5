"""Workers as people start and stop them."""

import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import requests
from support.batches import lines, outcomes, submit, wait_for_end
from support.pools import both_pools
from support.stack import Stack, running_stack
from support.waiting import wait_for

from shared.fleet_file import version_of

CELERY = (sys.executable, "-m", "celery", "-A", "workers.app", "worker")


@pytest.mark.parametrize("args", [(), ("-P", "solo")])
def test_plain_celery_refuses_pools_that_cannot_work(stack: Stack, args: tuple[str, ...]) -> None:
    done = subprocess.run(
        [*CELERY, *args],
        env=stack.env,
        cwd=stack.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "llm-edge worker --pool gevent" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_without_providers_says_so(stack: Stack) -> None:
    env = {**stack.env, "LLM_EDGE_CONFIG": "/nowhere/providers.yaml"}
    done = subprocess.run(
        [*CELERY, "-P", "gevent"],
        env=env,
        cwd=stack.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "/nowhere/providers.yaml" in done.stderr


@both_pools
def test_plain_celery_runs_a_batch(pool: str) -> None:
    with running_stack(workers=0) as stack, stack.client as client:
        worker = subprocess.Popen(
            [*CELERY, "-P", pool, "-n", "plain@host"],
            env=stack.env,
            cwd=stack.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert len(outcomes(client, wait_for_end(client, submit(client, lines(300)).id))) == 300
        finally:
            worker.terminate()
            worker.wait(30)


@both_pools
def test_a_worker_that_is_told_to_stop_finishes_its_calls_and_hands_back_the_rest(pool: str) -> None:
    with running_stack(workers=0, LLM_EDGE_CONCURRENCY="16") as stack, stack.client as client:
        for _ in range(2):
            stack.start_worker("--pool", pool)
        stack.simulator.patch(latency_s=1.0)
        batch = submit(client, lines(120))
        wait_for(lambda: len(stack.simulator.calls()) > 20, 20, "calls in flight")
        leaving = stack.workers.pop(0)
        leaving.send_signal(signal.SIGTERM)
        assert leaving.wait(20) == 0
        assert len(outcomes(client, wait_for_end(client, batch.id))) == 120
        assert len(stack.simulator.calls()) == 120, "nothing was called twice"


def test_calls_in_flight_stay_within_bounds_after_redis_was_away() -> None:
    with running_stack(workers=1, aof=True, LLM_EDGE_CONCURRENCY="10") as stack, stack.client as client:
        stack.simulator.patch(latency_s=0.1)
        for _ in range(2):
            stack.valkey.restart()
            wait_for(lambda: stack.workers_alive() == 1, 30, "the worker to be heard from again")
        batch = submit(client.with_options(max_retries=5), lines(200))
        assert len(outcomes(client, wait_for_end(client, batch.id))) == 200
        assert stack.simulator.stats()["default"]["max_in_flight"] <= 8


def test_a_worker_added_in_mid_batch_carries_its_share(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own
    stack.kill_worker(stack.workers[0])
    stack.simulator.patch(latency_s=0.2)
    with stack.client as client:
        batch = submit(client, lines(2000))
        wait_for(lambda: len(stack.simulator.calls()) > 100, 20, "the first calls")
        stack.start_worker()
        started = time.monotonic()
        wait_for(
            lambda: stack.simulator.stats()["default"]["in_flight"] > 20,
            10,
            "more calls in flight than one worker makes",
        )
        assert time.monotonic() - started < 5
        client.batches.cancel(batch.id)
        wait_for_end(client, batch.id)


def test_the_registry_tells_every_worker_and_forgets_who_has_left(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own

    def told() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = requests.get(f"{stack.base_url}/workers", timeout=5).json()["data"]
        return found

    stack.simulator.patch(latency_s=3)
    with stack.client as client:
        submit(client, lines(200))
        wait_for(lambda: [w["in_flight"] >= 12 for w in told()] == [True] * 2, 15, "both to tell their calls")
    for worker in told():
        assert (worker["pool"], worker["concurrency"]) == (stack.pool, 16)
        assert set(worker["providers"]) <= {"sim"}
        assert 0 <= worker["loop_lag_s"] < 30
        assert abs(worker["heard_at"] - time.time()) < 10
        assert worker["providers_file"] == version_of(stack.config.read_bytes())
    stack.kill_worker(stack.workers[0])
    wait_for(lambda: len(told()) == 1, 15, "the dead one to be forgotten")
