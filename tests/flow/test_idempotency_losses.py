"""Answers that get lost and an API that is killed: what is repeated, by the SDK or with the same key, is made once."""

import io
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from openai import OpenAI
from support.batches import CHAT, jsonl, lines, upload, wait_for_end
from support.keyed import MODEL, chat, create, headers, list_all, messages
from support.lossy import Way, lossy_way
from support.stack import Stack
from support.waiting import wait_for


@pytest.fixture
def way(stack: Stack) -> Iterator[Way]:
    stack.simulator.reset()
    with lossy_way(stack.url) as found:
        yield found


@pytest.mark.parametrize("lost", [1, 2])
def test_the_sdk_repeats_by_itself_what_was_made_and_not_answered(stack: Stack, way: Way, lost: int) -> None:
    before = {what: set(list_all(stack, what)) for what in ("files", "batches", "jobs")}
    data = io.BytesIO(jsonl(lines(1)))
    with OpenAI(base_url=f"{way.url}/v1", api_key="none", timeout=30) as client:
        way.lost = lost
        file = client.files.create(file=("in.jsonl", data), purpose="batch", extra_headers=headers())
        way.lost = lost
        batch = client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h", extra_headers=headers()
        )
        way.lost = lost
        found = client.chat.completions.create(
            model=MODEL, messages=messages("unheard"), extra_headers=headers()
        )
        assert found.choices[0].message.content
    assert [head["x-stainless-retry-count"] for head in way.seen] == [str(n) for n in range(lost + 1)] * 3
    after = {what: set(list_all(stack, what)) - before[what] for what in before}
    assert (after["batches"], len(after["jobs"])) == ({batch.id}, 1)
    with stack.client as direct:
        ended = wait_for_end(direct, batch.id)
    assert after["files"] - {ended.output_file_id} == {file.id}
    assert [call["prompt"] for call in stack.simulator.calls()].count("unheard") == 1


def test_the_sdk_repeats_a_batch_by_itself_without_a_key(stack: Stack, way: Way) -> None:
    with stack.client as direct, OpenAI(base_url=f"{way.url}/v1", api_key="none", timeout=30) as client:
        file_id, before = upload(direct, jsonl(lines(1))), set(list_all(stack, "batches"))
        meant = []
        for _ in range(2):
            way.lost = 1
            meant.append(
                client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h").id
            )
    assert set(list_all(stack, "batches")) - before == set(meant)
    assert len(set(meant)) == 2


def send_unread(stack: Stack, path: str, body: bytes, head: dict[str, str]) -> socket.socket:
    """A request whose answer nobody reads."""
    more = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    caller = socket.create_connection(("127.0.0.1", stack.port), timeout=5)
    caller.sendall(
        f"POST /v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode()
        + body
    )
    return caller


def test_an_api_killed_before_its_answer_is_read_doubles_and_loses_nothing(stack: Stack) -> None:
    stack.simulator.reset()
    with stack.client as client:
        file_id = upload(client, jsonl(lines(2)))
        for keyed in (True, False):
            before = set(list_all(stack, "batches"))
            head = headers() if keyed else {"x-stainless-retry-count": "0"}
            body = as_json(create(file_id))
            with send_unread(stack, "/batches", body, head):
                wait_for(lambda: _batches(stack) - before, 10, "the batch")  # noqa: B023
                stack.kill_api()
            stack.start_api()
            again = requests.post(
                f"{stack.base_url}/batches",
                data=body,
                headers=head if keyed else {"x-stainless-retry-count": "1"},
                timeout=10,
            )
            assert again.headers["idempotent-replayed"] == "true"
            assert set(list_all(stack, "batches")) - before == {again.json()["id"]}
            assert wait_for_end(client, again.json()["id"]).status == "completed"


def test_an_api_killed_at_any_moment_doubles_and_loses_nothing(stack: Stack) -> None:
    """Whatever the request had come to: the same key again makes one job, one batch, one file."""
    stack.simulator.reset()
    with stack.client as client:
        file_id = upload(client, jsonl(lines(1)))
    before = {what: set(list_all(stack, what)) for what in ("jobs", "batches")}
    head, bodies = headers(), {"jobs": as_json(chat("killed")), "batches": as_json(create(file_id))}
    with (
        send_unread(stack, "/chat/completions", bodies["jobs"], {**head, "Prefer": "respond-async"}),
        send_unread(stack, "/batches", bodies["batches"], {"Idempotency-Key": head["Idempotency-Key"] + "b"}),
    ):
        stack.kill_api()
    stack.start_api()
    job = requests.post(f"{stack.base_url}/chat/completions", data=bodies["jobs"], headers=head, timeout=30)
    batch = requests.post(
        f"{stack.base_url}/batches",
        data=bodies["batches"],
        headers={"Idempotency-Key": head["Idempotency-Key"] + "b"},
        timeout=10,
    )
    assert set(list_all(stack, "jobs")) - before["jobs"] == {job.headers["x-llm-edge-job"]}
    assert set(list_all(stack, "batches")) - before["batches"] == {batch.json()["id"]}
    assert [call["prompt"] for call in stack.simulator.calls()].count("killed") == 1


def _batches(stack: Stack) -> set[str]:
    """As Redis has them."""
    with stack.valkey.client() as redis:
        return {name.decode() for name in redis.zrange("le:bs:default", 0, -1)}


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()
