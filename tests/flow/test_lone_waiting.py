"""Lone jobs where nobody serves them, or not in time: leaving, cancelling, the wait limit."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import requests
from support.stack import Stack, running_stack
from support.waiting import wait_for

MESSAGES: Any = [{"role": "user", "content": "Is anybody there?"}]
WAIT_S = 0.7


@pytest.fixture(scope="module")
def idle() -> Iterator[Stack]:
    """No worker."""
    with running_stack(workers=0, LLM_EDGE_WAIT_S=str(WAIT_S)) as running:
        yield running


def newest(stack: Stack) -> Any:
    return requests.get(f"{stack.base_url}/jobs?limit=1", timeout=5).json()["data"][0]


def post(stack: Stack, **headers: str) -> requests.Response:
    body = {"model": "gpt-4o-mini", "messages": MESSAGES}
    return requests.post(f"{stack.base_url}/chat/completions", json=body, headers=headers, timeout=10)


def test_beyond_the_wait_limit_the_job_goes_on_and_the_sdk_asks_once(idle: Stack) -> None:
    with pytest.raises(openai.InternalServerError) as told:
        idle.client.with_options(max_retries=2).chat.completions.create(
            model="gpt-4o-mini", messages=MESSAGES
        )
    answer = told.value.response
    assert (answer.status_code, told.value.code) == (504, "wait_limit_reached")
    assert answer.headers["x-should-retry"] == "false"
    job = newest(idle)
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.json()["job_id"] == job["id"]
    assert job["status"] == "queued"
    assert answer.request.headers["x-stainless-retry-count"] == "0"


def test_a_caller_who_leaves_cancels_a_job_that_nobody_has_begun(idle: Stack) -> None:
    before = newest(idle)["id"] if requests.get(f"{idle.base_url}/jobs", timeout=5).json()["data"] else None
    body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"bye"}]}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", idle.port), timeout=5) as caller:
        caller.sendall(head.encode() + body)
        wait_for(lambda: newest(idle)["id"] != before, 5, "the job to be taken in")
    wait_for(lambda: newest(idle)["status"] == "cancelled", 5, "the job to be cancelled")


def test_delete_cancels_a_job_and_its_caller_hears_it(idle: Stack) -> None:
    job = post(idle, Prefer="respond-async").json()
    cancelled = requests.delete(f"{idle.base_url}/jobs/{job['id']}", timeout=5).json()
    assert (cancelled["status"], cancelled["deleted"]) == ("cancelled", False)
    missing = requests.delete(f"{idle.base_url}/jobs/job_unknown", timeout=5)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "job_not_found")


@pytest.mark.alone
def test_redis_away_is_told_within_a_second(idle: Stack) -> None:
    with idle.valkey.paused(), ThreadPoolExecutor(6) as pool:
        for answer in pool.map(lambda _: post(idle), range(12)):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
            assert answer.elapsed.total_seconds() < 1.5  # a second, and a half for a busy machine
            assert answer.headers["retry-after"]
    assert post(idle, Prefer="respond-async").status_code == 202


def test_what_was_cancelled_in_a_workers_queue_is_not_called() -> None:
    """A claim takes more jobs than can be called at once; those that have not been called yet can still be ended."""
    with running_stack("--latency-s", "1", workers=1, LLM_EDGE_CONCURRENCY="2") as stack:
        jobs = [post(stack, Prefer="respond-async").json()["id"] for _ in range(6)]
        wait_for(stack.simulator.calls, 10, "the first call")
        for job_id in jobs:
            assert (
                requests.delete(f"{stack.base_url}/jobs/{job_id}", timeout=10).json()["status"] == "cancelled"
            )
        assert post(stack).status_code == 200
        assert len(stack.simulator.calls()) <= 4  # two were under way, and perhaps the next just begun
