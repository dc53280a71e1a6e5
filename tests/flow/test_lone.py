"""Lone jobs from outside: the official SDK against a running API, real workers, a real Valkey and the simulator."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests
from openai import AsyncOpenAI, OpenAI
from support.stack import Stack, running_stack
from support.waiting import wait_for

MODEL = "gpt-4o-mini"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(workers=2) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(stack: Stack) -> None:
    """Each test begins with a simulator that answers at once and has heard nothing."""
    stack.simulator.reset()


def ask(client: OpenAI, text: str = "Say hello.", **changes: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=MODEL, messages=messages, **changes)


def get(stack: Stack, path: str) -> Any:
    return requests.get(f"{stack.base_url}{path}", timeout=5).json()


def newest(stack: Stack) -> Any:
    return get(stack, "/jobs?limit=1")["data"][0]


def test_the_caller_waits_for_the_result(stack: Stack) -> None:
    messages: Any = [{"role": "user", "content": "Say hello."}]
    raw = stack.client.chat.completions.with_raw_response.create(model=MODEL, messages=messages)
    found = raw.parse()
    assert found.choices[0].message.content
    assert found.usage is not None
    assert raw.headers["x-llm-edge-provider"] == "sim"
    assert raw.headers["x-llm-edge-attempts"] == "1"
    job = get(stack, f"/jobs/{raw.headers['x-llm-edge-job']}")
    assert (job["object"], job["status"]) == ("job", "completed")
    assert job["response"]["body"]["id"] == found.id
    assert job["routing"]["provider"] == "sim"


def test_the_older_completions_are_served_too(stack: Stack) -> None:
    found = stack.client.completions.create(model=MODEL, prompt="Once upon a time")
    assert found.object == "text_completion"
    assert found.choices[0].text


def test_models(stack: Stack) -> None:
    stack.client.models.list()
    assert stack.client.models.retrieve(MODEL).id == MODEL


def test_64_callers_at_once_each_get_their_own_answer(stack: Stack) -> None:
    stack.simulator.patch(latency_s=0.05)

    async def run() -> list[Any]:
        async with AsyncOpenAI(base_url=stack.base_url, api_key="none", timeout=30) as client:
            return await asyncio.gather(*[ask_async(client, f"question {n}") for n in range(64)])

    found = asyncio.run(run())
    assert len({answer.id for answer in found}) == 64
    assert sorted(c["prompt"] for c in stack.simulator.calls()) == sorted(f"question {n}" for n in range(64))


def ask_async(client: AsyncOpenAI, text: str) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=MODEL, messages=messages)


def test_respond_async_answers_at_once_and_the_job_is_polled(stack: Stack) -> None:
    stack.simulator.patch(latency_s=0.3)
    answer = requests.post(
        f"{stack.base_url}/chat/completions",
        json={"model": MODEL, "messages": [{"role": "user", "content": "later"}]},
        headers={"Prefer": "respond-async"},
        timeout=5,
    )
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["status"] in {"queued", "in_progress"}
    assert job["response"] is None
    wait_for(lambda: get(stack, f"/jobs/{job['id']}")["status"] == "completed", 10, "the job to end")
    assert get(stack, "/jobs")["data"][0]["id"] == job["id"]
    gone = requests.delete(f"{stack.base_url}/jobs/{job['id']}", timeout=5).json()
    assert gone["deleted"]
    assert get(stack, f"/jobs/{job['id']}")["error"]["code"] == "job_not_found"


def test_an_asynchronous_submit_that_the_sdk_repeats_makes_no_second_job(stack: Stack) -> None:
    def submit(repetition: int) -> str:
        answer = requests.post(
            f"{stack.base_url}/chat/completions",
            json={"model": MODEL, "messages": [{"role": "user", "content": "once, please"}]},
            headers={"Prefer": "respond-async", "x-stainless-retry-count": str(repetition)},
            timeout=5,
        )
        assert answer.status_code == 202
        return str(answer.json()["id"])

    first = submit(0)
    assert {submit(1), submit(2)} == {first}
    wait_for(lambda: get(stack, f"/jobs/{first}")["status"] == "completed", 10, "the job to end")
    assert submit(2) == first
    another = submit(0)
    assert another != first
    wait_for(lambda: get(stack, f"/jobs/{another}")["status"] == "completed", 10, "the other to end")


def test_a_slow_job_with_a_client_that_gives_up_and_repeats_makes_one_provider_call(stack: Stack) -> None:
    stack.simulator.patch(latency_s=3.0)
    impatient = OpenAI(base_url=stack.base_url, api_key="none", timeout=1.2)  # and the SDK's two repetitions
    assert ask(impatient, "slow").choices[0].message.content
    assert len(stack.simulator.calls()) == 1


def test_the_sdks_own_timeout_reaches_the_caller_and_the_result_is_kept(stack: Stack) -> None:
    stack.simulator.patch(latency_s=1.5)
    with pytest.raises(openai.APITimeoutError):
        ask(stack.client.with_options(timeout=0.5), "too slow")
    wait_for(lambda: newest(stack)["status"] == "completed", 10, "the job to end all the same")
    assert len(stack.simulator.calls()) == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', 400, "invalid_request"),
        (b'{"model": "gpt-4o-mini"}', 400, "invalid_request"),
        (b'{"model": "gpt-4o-mini", "messages": []}', 400, "invalid_request"),
        (b'{"model": "gpt-4o-mini", "messages": [{}], "stream": true}', 400, "stream_not_supported"),
        (b"[" * 100_000, 400, "invalid_request"),
        (b'{"model": "m", "messages": ["' + b"x" * (17 * 1024 * 1024) + b'"]}', 413, "too_large"),
    ],
)
def test_bad_input_is_told_and_nothing_is_taken_in(stack: Stack, body: bytes, status: int, code: str) -> None:
    before = get(stack, "/jobs?limit=1")["first_id"]
    answer = requests.post(f"{stack.base_url}/chat/completions", data=body, timeout=10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert get(stack, "/jobs?limit=1")["first_id"] == before


def test_what_only_the_caller_can_mend_comes_back_as_the_provider_said_it(stack: Stack) -> None:
    stack.simulator.patch(rules=[{"match": "^bad", "status": 400}])
    with pytest.raises(openai.BadRequestError) as told:
        ask(stack.client, "bad request")
    assert told.value.body


def test_a_failure_of_ours_is_a_502_that_the_sdk_does_not_repeat(stack: Stack) -> None:
    stack.simulator.patch(rules=[{"match": "^poison", "status": 500}], latency_s=0.05)

    async def run() -> Exception:
        async with AsyncOpenAI(base_url=stack.base_url, api_key="none", timeout=30) as client:
            poison = asyncio.ensure_future(ask_async(client, "poison"))
            while not poison.done():  # the provider answers others meanwhile: it is the job, not an outage
                await ask_async(client, "fine")
            failure = poison.exception()
            assert isinstance(failure, openai.InternalServerError)
            return failure

    failure = asyncio.run(run())
    assert isinstance(failure, openai.APIStatusError)
    assert failure.status_code == 502
    assert failure.response.headers["x-should-retry"] == "false"
    assert len([c for c in stack.simulator.calls() if c["prompt"] == "poison"]) == 4
    assert failure.response.headers["x-llm-edge-attempts"] == "4"


def test_a_providers_refusal_of_our_key_is_not_shown_as_the_callers(stack: Stack) -> None:
    stack.simulator.patch(rules=[{"match": "^key", "status": 401}])
    with pytest.raises(openai.InternalServerError) as told:
        ask(stack.client.with_options(max_retries=0), "key")
    assert (told.value.status_code, told.value.code) == (503, "no_provider_available")
    assert "refuses our key" in told.value.message
    assert int(told.value.response.headers["retry-after"]) > 1
    stack.simulator.patch(rules=[])
    for provider in requests.get(f"{stack.base_url}/providers", timeout=5).json()["data"]:
        assert (provider["serving"], provider["out_of_service"][0]["reason"]) == (False, "key_refused")
        requests.post(f"{stack.base_url}/providers/{provider['id']}/enable", timeout=5).raise_for_status()
    assert ask(stack.client, "and again")


def test_a_worker_killed_in_mid_call_costs_the_caller_its_lease(stack: Stack) -> None:
    stack.simulator.patch(rules=[{"match": "^long", "latency_s": 1.0, "times": 1}])

    async def run() -> Any:
        async with AsyncOpenAI(base_url=stack.base_url, api_key="none", timeout=60, max_retries=0) as client:
            waiting = asyncio.ensure_future(ask_async(client, "long"))
            await asyncio.to_thread(wait_for, stack.simulator.calls, 10, "the call")
            for worker in list(stack.workers):
                stack.kill_worker(worker)
            for _ in range(2):
                await asyncio.to_thread(stack.start_worker, wait=False)
            return await waiting

    assert asyncio.run(run()).choices[0].message.content
    assert len(stack.simulator.calls()) == 2


def test_replies_lost_on_the_way_are_asked_for(stack: Stack) -> None:
    stack.simulator.patch(latency_s=1.0)

    async def run() -> Any:
        async with AsyncOpenAI(base_url=stack.base_url, api_key="none", timeout=30, max_retries=0) as client:
            waiting = asyncio.ensure_future(ask_async(client, "deaf"))
            await asyncio.to_thread(wait_for, stack.simulator.calls, 10, "the call")
            with stack.valkey.client() as redis:
                redis.client_kill_filter(_type="pubsub")
            return await waiting

    assert asyncio.run(run()).choices[0].message.content


def test_an_api_killed_while_its_caller_waits_costs_no_second_call(stack: Stack) -> None:
    stack.simulator.patch(latency_s=3.0)

    async def run() -> Any:
        async with AsyncOpenAI(base_url=stack.base_url, api_key="none", timeout=30, max_retries=5) as client:
            waiting = asyncio.ensure_future(ask_async(client, "orphan"))
            await asyncio.to_thread(wait_for, stack.simulator.calls, 10, "the call")
            stack.kill_api()
            await asyncio.to_thread(stack.start_api)
            return await waiting

    assert asyncio.run(run()).choices[0].message.content
    assert len(stack.simulator.calls()) == 1
