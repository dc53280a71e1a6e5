"""Memory that runs out, from outside: nothing accepted is lost or paid twice, and what would not fit is refused in time."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
import requests
from openai import OpenAI
from support.batches import CHAT, jsonl, lines, outcomes, submit, upload, wait_for_end
from support.pools import both_pools
from support.stack import Stack, running_stack
from support.waiting import wait_for

from shared.config import Settings

MB = 1024 * 1024
LEASE_S = 2.0


def bound(stack: Stack, maxmemory: int) -> None:
    with stack.valkey.client() as redis:
        redis.config_set("maxmemory", maxmemory)


@contextmanager
def full(stack: Stack) -> Iterator[None]:
    """Within it the server has gone beyond its maxmemory."""
    with stack.valkey.client() as redis:
        redis.setrange("filler", int(redis.config_get("maxmemory")["maxmemory"]), "x")
        with pytest.raises(Exception, match="maxmemory"):
            redis.set("more", "x")
        yield
        redis.delete("filler")


def room(stack: Stack) -> str:
    ready = requests.get(f"{stack.url}/health/ready", timeout=5)
    assert ready.status_code == 200
    return str(ready.json()["room"])


def refused(act: Callable[[], object]) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        act()
    assert caught.value.status_code == 503
    assert caught.value.code == "insufficient_storage"
    assert int(caught.value.response.headers["Retry-After"]) >= 1


def ask(client: OpenAI, **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": "alone"}]
    return client.chat.completions.create(model="test-model", messages=messages, **more)


def post_async(stack: Stack) -> requests.Response:
    body = {"model": "test-model", "messages": [{"role": "user", "content": "later"}]}
    return requests.post(
        f"{stack.base_url}/chat/completions", json=body, headers={"Prefer": "respond-async"}, timeout=10
    )


def job_status(stack: Stack, job_id: str) -> object:
    return requests.get(f"{stack.base_url}/jobs/{job_id}", timeout=5).json()["status"]


def in_flight(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["in_flight"])


def create(client: OpenAI, file_id: str) -> object:
    return client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")


def nobody_complains(stack: Stack) -> None:
    """No process has ended, and none has met an error that it had no answer to."""
    assert stack.api is not None
    for process in [stack.api, *stack.workers]:
        assert process.poll() is None
    for log in stack.folder.glob("*.log"):
        said = log.read_text(errors="replace")
        assert "Traceback" not in said, said[-4000:]


def completed(client: OpenAI, batch_id: str) -> int:
    counts = client.batches.retrieve(batch_id).request_counts
    assert counts is not None
    return counts.completed


def each_was_paid_once(stack: Stack, jobs: int) -> None:
    calls = stack.simulator.calls()
    assert len(calls) == jobs
    assert len({call["body_sha256"] for call in calls}) == jobs


@both_pools
def test_memory_full_in_mid_batch(pool: str) -> None:
    jobs = 400
    with running_stack(workers=0, LLM_EDGE_CONCURRENCY="16") as stack, stack.client as client:
        for _ in range(2):
            stack.start_worker("--pool", pool)
        bound(stack, 48 * MB)
        spare, kept = upload(client, jsonl(lines(3))), upload(client, jsonl(lines(3)))
        stack.simulator.patch(latency_s=0.1)
        batch = submit(client, lines(jobs))
        wait_for(lambda: completed(client, batch.id) > 50, 30, "some answers")
        stack.simulator.patch(latency_s=2.5 * LEASE_S)  # what is in flight now needs its leases renewed
        wait_for(lambda: in_flight(stack) >= 16, 10, "slow calls in flight")
        with full(stack):
            wait_for(lambda: room(stack) == "no_calls", 5, "the API to notice")
            for act in (
                lambda: upload(client, jsonl(lines(3))),
                lambda: create(client, kept),
                lambda: ask(client),
            ):
                refused(act)
            assert post_async(stack).status_code == 503
            client.files.delete(spare)
            wait_for(
                lambda: in_flight(stack) == 0,
                4 * LEASE_S,
                "the calls in flight to end, and no others to begin",
            )
            made = len(stack.simulator.calls())
            assert made < jobs
            wait_for(
                lambda: completed(client, batch.id) == made, 5, "every answer to be written all the same"
            )
            stack.simulator.patch(latency_s=0.01)
        wait_for(lambda: room(stack) == "ok", 5, "the API to notice")
        assert ask(client).choices[0].message.content
        ended = wait_for_end(client, batch.id)
        assert ended.status == "completed"
        assert len(outcomes(client, ended)) == jobs
        assert wait_for_end(client, submit(client, lines(3, "after")).id).status == "completed"
        each_was_paid_once(stack, jobs + 1 + 3)
        nobody_complains(stack)


def test_cancel_and_delete_work_while_memory_is_full(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own
    bound(stack, 48 * MB)
    with stack.client as client:
        first = wait_for_end(client, submit(client, lines(200, "first")).id)
        stack.simulator.patch(latency_s=1.0)
        batch = submit(client, lines(1000))
        wait_for(lambda: completed(client, batch.id) > 0, 20, "some answers")
        stack.simulator.patch(latency_s=30)
        job = post_async(stack).json()["id"]
        stack.simulator.patch(latency_s=1.0)
        with full(stack):
            wait_for(lambda: room(stack) == "no_calls", 5, "the API to notice")
            requests.delete(f"{stack.base_url}/jobs/{job}", timeout=5).raise_for_status()  # cancels it
            client.batches.cancel(batch.id)
            ended = wait_for_end(client, batch.id)
            stack.kill_api()
            stack.start_api()
            assert ended.status == "cancelled"
            assert len(outcomes(client, ended)) == 1000
            assert len(outcomes(client, client.batches.retrieve(first.id))) == 200
            assert ended.output_file_id is not None
            client.files.delete(ended.output_file_id)
            client.files.delete(ended.input_file_id)
            requests.delete(f"{stack.base_url}/jobs/{job}", timeout=5).raise_for_status()  # forgets it
        nobody_complains(stack)


@both_pools
def test_hints_that_arrive_while_memory_is_full_end_no_worker(pool: str) -> None:
    with running_stack(workers=0, LLM_EDGE_CONCURRENCY="16") as stack, stack.client as client:
        for _ in range(2):
            stack.start_worker("--pool", pool)
        bound(stack, 48 * MB)
        for worker in stack.workers:
            worker.send_signal(signal.SIGSTOP)
        batch = submit(client, lines(300))
        job = post_async(stack).json()["id"]
        with stack.valkey.client() as redis:
            wait_for(lambda: redis.zcard("le:hints"), 10, "hints to be sent")
            with full(stack):
                for worker in stack.workers:
                    worker.send_signal(signal.SIGCONT)
                wait_for(lambda: not redis.exists("batch", "interactive"), 10, "the hints to be taken")
                wait_for(lambda: not redis.zcard("le:leases"), 10, "what was claimed to be handed back")
                nobody_complains(stack)
                leaving = stack.workers.pop()
                leaving.terminate()
                assert leaving.wait(20) == 0
                stack.start_worker("--pool", pool, wait=False)
                wait_for(lambda: "OutOfMemoryError" in stack.log("worker-3"), 20, "its like to be refused")
        wait_for(lambda: stack.workers_alive() == 2, 20, "the new worker to have come in")
        assert len(outcomes(client, wait_for_end(client, batch.id))) == 300
        wait_for(lambda: job_status(stack, job) == "completed", 20, "the lone job to end")
        each_was_paid_once(stack, 301)
        assert all(worker.poll() is None for worker in stack.workers)


@pytest.fixture(scope="module")
def idle() -> Iterator[Stack]:
    """No worker: what is accepted stays to be answered."""
    with running_stack(workers=0) as stack:
        yield stack


def test_the_answers_still_to_come_have_their_room_promised(idle: Stack) -> None:
    least = Settings().answer_bytes
    bound(idle, 32 * MB)
    fits = int(0.7 * 32 * MB / least * 0.55)  # two of them would not
    with idle.client as client:
        one, two = (upload(client, jsonl(lines(fits, name))) for name in "ab")
        first = client.batches.create(input_file_id=one, endpoint=CHAT, completion_window="24h")
        refused(lambda: create(client, two))  # whether the first has been validated yet or not
        wait_for(lambda: client.batches.retrieve(first.id).status == "in_progress", 20, "validation")
        refused(lambda: create(client, two))
        assert room(idle) == "ok", "smaller ones still fit"
        assert post_async(idle).status_code == 202
        client.batches.cancel(first.id)
        wait_for_end(client, first.id)
        client.batches.create(input_file_id=two, endpoint=CHAT, completion_window="24h")


@pytest.mark.parametrize("announced", [True, False])
def test_an_upload_without_room_is_refused_and_leaves_nothing(idle: Stack, announced: bool) -> None:
    with idle.valkey.client() as redis:
        redis.flushall()
        before = redis.info("memory")["used_memory"]
    bound(idle, 32 * MB)
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    noise = os.urandom(60 * MB)  # it does not pack

    def pieces() -> Iterator[bytes]:
        yield head
        for at in range(0, len(noise), MB):
            yield noise[at : at + MB]
        yield b"\r\n--x--\r\n"

    data: Any = b"".join(pieces()) if announced else pieces()
    answer = requests.post(
        f"{idle.base_url}/files",
        data=data,
        headers={"Content-Type": "multipart/form-data; boundary=x"},
        timeout=30,
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "insufficient_storage")
    with idle.valkey.client() as redis:
        assert redis.keys("le:f:*") == []
        wait_for(lambda: redis.info("memory")["used_memory"] < before + 4 * MB, 5, "the memory to be free")
