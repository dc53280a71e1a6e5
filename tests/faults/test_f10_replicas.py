"""F10: with LLM_EDGE_WAIT_REPLICAS a submit is answered 2xx only once replicas have it; else 503, in time, and nothing twice."""

import io
import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import requests
from support.batches import CHAT, jsonl, lines
from support.replicas import Replica, running_replica
from support.stack import Stack, running_stack
from support.waiting import wait_for

BODY = {"model": "m", "messages": [{"role": "user", "content": "kept"}]}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(workers=1, LLM_EDGE_WAIT_REPLICAS="1") as running:
        yield running


@pytest.fixture
def replica(stack: Stack) -> Iterator[Replica]:
    with running_replica(stack.valkey) as running:
        yield running


def post(stack: Stack, what: str, key: str, **batch: str) -> requests.Response:
    headers = {"Idempotency-Key": key, "Prefer": "respond-async"}
    url = f"{stack.base_url}/{what}"
    if what == "files":
        files = {"file": ("a.jsonl", io.BytesIO(jsonl(lines(3))))}
        return requests.post(url, data={"purpose": "batch"}, files=files, headers=headers, timeout=10)
    return requests.post(url, json=batch or BODY, headers=headers, timeout=10)


def refused(answer: requests.Response) -> str:
    """Its words."""
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["error"]["code"] == "not_replicated"
    assert answer.elapsed.total_seconds() < 1.0
    return str(answer.json()["error"]["message"])


def count(stack: Stack, what: str) -> int:
    return len(requests.get(f"{stack.base_url}/{what}", timeout=5).json()["data"])


def test_what_no_replica_has_is_503_and_the_same_key_finds_it_later(stack: Stack, replica: Replica) -> None:
    file_id = post(stack, "files", "first").json()["id"]
    batch = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    asks: tuple[Callable[[], requests.Response], ...] = (
        lambda: post(stack, "files", "second"),
        lambda: post(stack, "batches", "batch", **batch),
        lambda: post(stack, "chat/completions", "lone"),
    )
    before = {what: count(stack, what) for what in ("files?purpose=batch", "batches", "jobs")}
    with replica.silent():
        words = [refused(ask()) for ask in asks]
        words += [refused(ask()) for ask in asks]  # a repetition proves no more than the first
    assert all("same Idempotency-Key" in said for said in words)
    ids = [said.split(" ", 1)[0] for said in words]
    assert ids[:3] == ids[3:], "a repetition made a thing of its own"

    def all_kept() -> list[requests.Response] | None:
        answers = [ask() for ask in asks]
        return answers if all(answer.ok for answer in answers) else None

    answers = wait_for(all_kept, 20, "the replica to be in step again")
    assert answers is not None
    assert [answer.json()["id"] for answer in answers] == ids[:3]
    assert all(answer.headers["idempotent-replayed"] == "true" for answer in answers)
    after = {what: count(stack, what) for what in before}
    assert after == {what: made + 1 for what, made in before.items()}
    with replica.client() as there:
        assert there.exists(f"le:f:{ids[0]}", f"le:b:{ids[1]}", f"le:j:{ids[2]}") == 3


def test_an_sdks_own_repetition_needs_no_key(stack: Stack, replica: Replica) -> None:
    """It says that it is one."""
    file_id = post(stack, "files", "third").json()["id"]
    batch = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    bodies: dict[str, dict[str, object]] = {"batches": {**batch}, "chat/completions": {**BODY, "n": 1}}

    def send(path: str, times: int) -> requests.Response:
        headers = {"Prefer": "respond-async", "x-stainless-retry-count": str(times)}
        return requests.post(f"{stack.base_url}/{path}", json=bodies[path], headers=headers, timeout=10)

    def kept(path: str) -> str:
        return str(send(path, 1).json().get("id", ""))

    with replica.silent():
        made = {path: refused(send(path, 0)).split(" ", 1)[0] for path in bodies}
    for path, name in made.items():
        assert wait_for(partial(kept, path), 20, "the replica to be in step again") == name


def test_who_waits_for_an_answer_gets_it_without_replicas(stack: Stack) -> None:
    """The answer itself is what a caller wanted kept."""
    answer = requests.post(f"{stack.base_url}/chat/completions", json=BODY, timeout=20)
    assert answer.status_code == 200
    assert json.loads(answer.content)["choices"]
    refused(post(stack, "chat/completions", "nobody there"))
