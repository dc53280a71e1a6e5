"""kill -9 at every joint: each job ends exactly once, within lease + a few seconds, and no batch hangs."""

import io
import random

import pytest
import requests
from support.batches import lines, outcomes, submit, wait_for_end
from support.faults import Report, needless
from support.stack import Stack, running_stack
from support.waiting import wait_for

LEASE_S = 2.0
CONCURRENCY = 16


def settings_of(pool: str) -> dict[str, str]:
    return {"LLM_EDGE_POOL": pool, "LLM_EDGE_CONCURRENCY": str(CONCURRENCY)}


def witness_agrees(stack: Stack, jobs: int, kills: int) -> None:
    """Calls seen by the provider: one a job, and at most what was in flight for each kill."""
    calls = [call for call in stack.simulator.calls() if call["status"] != 500]
    assert jobs <= len(calls) <= jobs + kills * CONCURRENCY
    assert len({call["body_sha256"] for call in calls}) == jobs


@pytest.mark.parametrize("pool", ["gevent"])
def test_workers_killed_in_mid_batch(pool: str, report: Report) -> None:
    """A quick one; `make faults` has the loop (F1)."""
    jobs, kills, rng = 600, 3, random.Random(7)
    with (
        running_stack(
            **settings_of(pool), workers=2, aof=False, part_env=None, configure=Stack.configure
        ) as stack,
        stack.client as client,
    ):
        stack.simulator.patch(latency_s=0.1, latency_p95_s=0.3, error_rate=0.02)
        with report.of("workers killed in mid-batch", pool, jobs) as trial:
            batch = submit(client, lines(jobs))
            for n in range(kills):
                goal = (n + 1) * jobs // (kills + 2)
                wait_for(lambda goal=goal: _calls(stack) > goal, 60, f"{goal} calls")  # type: ignore[misc]
                trial.fault(lambda: stack.kill_worker(rng.choice(stack.workers)))
                stack.start_worker(wait=False)
            ended = wait_for_end(client, batch.id, timeout_s=120)
            trial.settled()
            assert ended.status == "completed"
            found = outcomes(client, ended)
            trial.count(stack.simulator, len(found), len(found))
            assert len(found) == jobs
        witness_agrees(stack, jobs, kills)
        assert needless(stack.simulator, trial.at) == []


def _calls(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["calls"])


@pytest.mark.alone
def test_a_killed_workers_jobs_come_back_within_the_lease_and_a_few_seconds(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own
    stack.simulator.patch(latency_s=30)
    with stack.client as client:
        batch = submit(client, lines(10))
        wait_for(lambda: len(stack.simulator.calls()) == 10, 20, "all calls to be in flight")
        stack.simulator.patch(latency_s=0.01)
        for worker in list(stack.workers):
            stack.kill_worker(worker)
        stack.start_worker()
        ended = wait_for_end(client, batch.id, timeout_s=LEASE_S + 5)
        assert len(outcomes(client, ended)) == 10


def test_a_batch_waits_while_no_worker_is_alive(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own
    for worker in list(stack.workers):
        stack.kill_worker(worker)
    with stack.client as client:
        batch = submit(client, lines(50))
        wait_for(lambda: client.batches.retrieve(batch.id).status == "in_progress", 10, "validation")
        stack.start_worker()
        assert len(outcomes(client, wait_for_end(client, batch.id))) == 50


def test_without_a_worker_cancel_and_expiry_still_end_a_batch(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own
    stack.simulator.patch(latency_s=30)
    with stack.client as client:
        cancelled, expired = submit(client, lines(300)), submit(client, lines(300), window="8s")
        wait_for(lambda: len(stack.simulator.calls()) > 10, 20, "calls in flight")
        for worker in list(stack.workers):
            stack.kill_worker(worker)
        client.batches.cancel(cancelled.id)
        for batch, status in ((cancelled, "cancelled"), (expired, "expired")):
            ended = wait_for_end(client, batch.id, timeout_s=8 + LEASE_S + 10)
            assert ended.status == status
            assert len(outcomes(client, ended)) == 300


def test_every_hint_doubled(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own
    stack.simulator.patch(latency_s=0.05)
    with stack.client as client, stack.valkey.client() as redis:
        batch = submit(client, lines(400))

        def double() -> bool:
            for message in redis.lrange("batch", 0, -1):
                redis.lpush("batch", message, message)
            return client.batches.retrieve(batch.id).status == "completed"

        wait_for(double, 60, "the batch to complete")
        assert len(outcomes(client, client.batches.retrieve(batch.id))) == 400
        witness_agrees(stack, 400, 0)


@pytest.mark.alone
def test_with_redis_away_the_api_says_so_within_a_second(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own
    stack.valkey.kill()
    for method, path, more in (
        ("GET", "/v1/batches", {}),
        ("GET", "/v1/files/file-1", {}),
        ("POST", "/v1/files", {"data": {"purpose": "batch"}, "files": {"file": ("a", io.BytesIO(b"{}"))}}),
    ):
        answer = requests.request(method, f"{stack.url}{path}", timeout=5, **more)  # type: ignore[arg-type]
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert answer.json()["error"]["code"] == "store_unavailable"
        assert answer.elapsed.total_seconds() < 1.0
    assert requests.get(f"{stack.url}/health", timeout=5).ok
    assert requests.get(f"{stack.url}/health/ready", timeout=5).status_code == 503
