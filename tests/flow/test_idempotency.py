"""`Idempotency-Key` from outside: the official SDK against real processes, two of them the API."""

import asyncio
import io
from collections.abc import Iterator
from typing import Any, cast

import openai
import pytest
import requests
from openai import AsyncOpenAI, OpenAI
from support.batches import CHAT, jsonl, lines, upload, wait_for_end
from support.keyed import MODEL, chat, create, headers, list_all, messages, post, send
from support.stack import Stack, running_stack

MANY = 100


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as running:
        yield running


@pytest.fixture(scope="module")
def both(stack: Stack) -> tuple[str, str]:
    """The base URLs of two API processes over one Redis."""
    return stack.base_url, stack.start_another_api()


@pytest.fixture
def client(stack: Stack) -> Iterator[OpenAI]:
    stack.simulator.reset()
    with stack.client as client:
        yield client


def refused(answer: requests.Response) -> tuple[int, str]:
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return answer.status_code, answer.json()["error"]["code"]


def all_at_once(both: tuple[str, str], ask: Any) -> list[Any]:
    """The raw answers to MANY equal requests, sent at once by the SDK to the two processes in turn."""

    async def run() -> list[Any]:
        async with (
            AsyncOpenAI(base_url=both[0], api_key="none", max_retries=0, timeout=60) as one,
            AsyncOpenAI(base_url=both[1], api_key="none", max_retries=0, timeout=60) as two,
        ):
            return await asyncio.gather(*[ask((one, two)[n % 2]) for n in range(MANY)])

    return asyncio.run(run())


def check_one(answers: list[Any]) -> dict[str, Any]:
    """All are equal, and one of them is the first; gives the body."""
    assert {answer.text for answer in answers} == {answers[0].text}
    assert {answer.http_response.status_code for answer in answers} == {answers[0].http_response.status_code}
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    return cast("dict[str, Any]", answers[0].http_response.json())


def test_a_hundred_completions_at_once_with_one_key_are_one_job(
    client: OpenAI, stack: Stack, both: tuple[str, str]
) -> None:
    stack.simulator.patch(latency_s=0.3)
    head, before = headers(), set(list_all(stack, "jobs"))

    def ask(sdk: AsyncOpenAI) -> Any:
        completions = sdk.chat.completions.with_raw_response
        return completions.create(model=MODEL, messages=messages("once"), extra_headers=head)

    body = check_one(all_at_once(both, ask))
    assert body["choices"][0]["message"]["content"]
    assert len(stack.simulator.calls()) == 1
    (job_id,) = set(list_all(stack, "jobs")) - before
    later = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=messages("once"), extra_headers=head
    )
    assert (later.headers["idempotent-replayed"], later.headers["x-llm-edge-job"]) == ("true", job_id)
    assert later.http_response.json() == body
    assert len(stack.simulator.calls()) == 1


def test_a_hundred_batches_at_once_with_one_key_are_one_batch(
    client: OpenAI, stack: Stack, both: tuple[str, str]
) -> None:
    file_id = upload(client, jsonl(lines(20)))
    head, before = headers(), set(list_all(stack, "batches"))

    def ask(sdk: AsyncOpenAI) -> Any:
        batches = sdk.batches.with_raw_response
        return batches.create(
            input_file_id=file_id, endpoint=CHAT, completion_window="24h", extra_headers=head
        )

    body = check_one(all_at_once(both, ask))
    assert body["status"] == "validating"
    assert set(list_all(stack, "batches")) - before == {body["id"]}
    assert wait_for_end(client, body["id"]).status == "completed"
    assert len(stack.simulator.calls()) == 20
    again = client.batches.create(
        input_file_id=file_id, endpoint=CHAT, completion_window="24h", extra_headers=head
    )
    assert again.to_dict() == body


def test_a_hundred_uploads_at_once_with_one_key_are_one_file(
    client: OpenAI, stack: Stack, both: tuple[str, str]
) -> None:
    data = jsonl(lines(3000))
    head, before = headers(), set(list_all(stack, "files"))

    def ask(sdk: AsyncOpenAI) -> Any:
        files = sdk.files.with_raw_response
        return files.create(file=("in.jsonl", io.BytesIO(data)), purpose="batch", extra_headers=head)

    body = check_one(all_at_once(both, ask))
    assert set(list_all(stack, "files")) - before == {body["id"]}
    assert client.files.content(body["id"]).content == data
    with stack.valkey.client() as redis:
        chunks = {key.decode() for key in redis.scan_iter("le:f:*:c", count=1000)}
    assert chunks <= {f"le:f:{name}:c" for name in list_all(stack, "files")}  # the others' are discarded


def test_another_request_with_the_same_key_is_refused(client: OpenAI, stack: Stack) -> None:
    head = headers()
    client.chat.completions.create(model=MODEL, messages=messages("one"), extra_headers=head)
    with pytest.raises(openai.UnprocessableEntityError) as told:
        client.chat.completions.create(model=MODEL, messages=messages("two"), extra_headers=head)
    assert told.value.code == "idempotency_key_reused"
    reused = (422, "idempotency_key_reused")
    assert refused(post(stack, "/completions", {"model": MODEL, "prompt": "one"}, head)) == reused
    assert refused(post(stack, "/batches", create("file-x"), head)) == reused
    assert refused(send(stack, head)) == reused
    assert len(stack.simulator.calls()) == 1


def test_other_content_of_a_file_or_a_batch_is_another_request(client: OpenAI, stack: Stack) -> None:
    head, reused = headers(), (422, "idempotency_key_reused")
    assert send(stack, head).json() == send(stack, head).json()
    assert refused(send(stack, head, data=b"[]\n")) == reused
    assert refused(send(stack, head, name="other.jsonl")) == reused
    file_id, head = upload(client, jsonl(lines(1))), headers()
    assert post(stack, "/batches", create(file_id), head).ok
    reordered = dict(reversed(create(file_id).items()))
    assert post(stack, "/batches", reordered, head).headers["idempotent-replayed"] == "true"
    changed = post(stack, "/batches", create(file_id, metadata={"a": "b"}), head)
    assert refused(changed) == reused


@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/batches", "/files"])
@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "tab\there"])
def test_a_faulty_key_is_refused(stack: Stack, path: str, key: str) -> None:
    answer = post(stack, path, {}, {"Idempotency-Key": key.encode("latin-1")})  # type: ignore[dict-item]
    assert refused(answer) == (400, "invalid_idempotency_key")


def test_the_longest_key_and_any_printable_character_will_do(client: OpenAI) -> None:
    for key in ("x" * 255, "".join(map(chr, range(33, 127)))):
        head = headers(key)
        found = [
            client.chat.completions.create(model=MODEL, messages=messages("hi"), extra_headers=head).id
            for _ in range(2)
        ]
        assert found[0] == found[1]


@pytest.mark.usefixtures("client")
def test_what_is_refused_pins_nothing(stack: Stack) -> None:
    head = headers()
    assert post(stack, "/chat/completions", {"model": MODEL}, head).status_code == 400
    assert post(stack, "/batches", create("file-unknown"), head).status_code == 404
    assert requests.post(f"{stack.base_url}/files", headers=head, timeout=5).status_code == 400
    with stack.valkey.paused():
        assert post(stack, "/chat/completions", chat("away"), head).status_code == 503
    assert post(stack, "/chat/completions", chat("at last"), head).status_code == 200
    assert [call["prompt"] for call in stack.simulator.calls()] == ["at last"]


def test_respond_async_is_answered_the_same_and_its_result_can_be_waited_for(
    client: OpenAI, stack: Stack
) -> None:
    head = headers(Prefer="respond-async")
    first = post(stack, "/chat/completions", chat("later"), head)
    assert first.status_code == 202
    waited = client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=messages("later"),
        extra_headers={"Idempotency-Key": head["Idempotency-Key"]},
    )
    assert waited.headers["x-llm-edge-job"] == first.json()["id"]
    again = post(stack, "/chat/completions", chat("later"), head)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["location"] == first.headers["location"]
    assert len(stack.simulator.calls()) == 1


@pytest.mark.usefixtures("client")
def test_a_failed_job_is_answered_the_same(stack: Stack) -> None:
    stack.simulator.patch(rules=[{"match": "^bad", "status": 400, "times": 1}])
    head = headers()
    first, again = (post(stack, "/chat/completions", chat("bad"), head) for _ in range(2))
    assert (again.status_code, again.content) == (first.status_code, first.content) == (400, first.content)
    assert len(stack.simulator.calls()) == 1


def test_a_caller_who_leaves_finds_the_result_later(client: OpenAI, stack: Stack) -> None:
    stack.simulator.patch(latency_s=1.0)
    head = headers()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(
            model=MODEL, messages=messages("slow"), extra_headers=head
        )
    assert client.chat.completions.create(model=MODEL, messages=messages("slow"), extra_headers=head).id
    assert len(stack.simulator.calls()) == 1


def test_what_was_deleted_is_gone_for_its_key_too(client: OpenAI, stack: Stack) -> None:
    gone = (410, "idempotent_result_gone")
    head = headers()
    made = post(stack, "/chat/completions", chat("away with it"), head)
    assert requests.delete(f"{stack.base_url}/jobs/{made.headers['x-llm-edge-job']}", timeout=5).json()[
        "deleted"
    ]
    assert refused(post(stack, "/chat/completions", chat("away with it"), head)) == gone
    assert (
        refused(post(stack, "/chat/completions", chat("away with it"), {**head, "Prefer": "respond-async"}))
        == gone
    )
    head = headers()
    client.files.delete(send(stack, head).json()["id"])
    assert refused(send(stack, head)) == gone


def test_a_batch_outlives_its_input_file_for_its_key(client: OpenAI, stack: Stack) -> None:
    file_id, head = upload(client, jsonl(lines(1))), headers()
    first = post(stack, "/batches", create(file_id), head)
    client.files.delete(file_id)
    assert post(stack, "/batches", create(file_id), head).json() == first.json()


def test_what_the_sdk_repeats_makes_no_second_batch_but_what_is_meant_does(
    client: OpenAI, stack: Stack
) -> None:
    file_id = upload(client, jsonl(lines(1)))
    one, two = (post(stack, "/batches", create(file_id), {"x-stainless-retry-count": "0"}) for _ in range(2))
    assert one.json()["id"] != two.json()["id"]
    repeated = post(stack, "/batches", create(file_id), {"x-stainless-retry-count": "1"})
    assert repeated.json() == two.json()
    assert repeated.headers["idempotent-replayed"] == "true"
    changed = post(stack, "/batches", create(file_id, metadata={"n": "3"}), {"x-stainless-retry-count": "2"})
    assert changed.json()["id"] not in {one.json()["id"], two.json()["id"]}
