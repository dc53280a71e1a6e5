"""Keys and owners from outside: the official SDK with two owners' keys against one running stack."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from openai import AsyncOpenAI, OpenAI
from openai.types import Batch
from support.batches import CHAT, lines, outcomes, submit, upload, wait_for_end
from support.edge import edge
from support.owners import ADMIN, ALICE, BOB, KEYS, bearer, running_with_keys
from support.stack import Stack, free_port
from support.up_run import LLM_EDGE, processes_in, running_up
from support.waiting import wait_for

MODEL = "gpt-4o-mini"
ASKED: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_with_keys(LOG_LEVEL="info,api=debug") as running:
        yield running


@pytest.fixture
def alice(stack: Stack) -> Iterator[OpenAI]:
    stack.simulator.reset()
    with stack.client_of(ALICE) as client:
        yield client


@pytest.fixture
def bob(stack: Stack) -> Iterator[OpenAI]:
    with stack.client_of(BOB) as client:
        yield client


@pytest.mark.parametrize(
    "key",
    ["none", ALICE[:-1], ALICE + "x", KEYS.split(",")[0].split(":")[1]],
    ids=["unknown", "too short", "too long", "its hash"],
)
def test_a_wrong_key_is_the_sdks_authentication_error(stack: Stack, key: str) -> None:
    with stack.client_of(key) as client, pytest.raises(openai.AuthenticationError) as told:
        client.models.list()
    assert told.value.code == "invalid_api_key"
    assert told.value.response.headers["www-authenticate"] == "Bearer"
    assert key not in told.value.message


def test_anthropics_header_will_do(stack: Stack) -> None:
    assert requests.get(f"{stack.base_url}/models", headers={"x-api-key": ALICE}, timeout=5).ok


@pytest.mark.parametrize("path", ["/v1/files", "/v1/chat/completions", "/v1/batches"])
def test_a_stranger_is_refused_before_the_body_is_read(stack: Stack, path: str) -> None:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: llm.example\r\nContent-Length: 100000000\r\nExpect: 100-continue\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nAuthorization: Bearer wrong\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", stack.port), timeout=5) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 401"), (
            "no 100 Continue, and no waiting for the body"
        )


def test_what_is_open_tells_strangers_nothing_of_the_fleet(stack: Stack) -> None:
    assert set(requests.get(f"{stack.url}/health", timeout=5).json()) == {"status", "version"}
    for key, told in ((None, False), (ALICE, False), (ADMIN, True)):
        answer = requests.get(f"{stack.url}/health/ready", headers=bearer(key) if key else {}, timeout=5)
        assert answer.status_code == 200
        assert isinstance(answer.json()["workers"], int) is told
        assert (answer.json()["redis"] == "ok") is told
    assert requests.get(f"{stack.url}/docs", timeout=5).ok


def test_each_owner_has_batches_files_and_jobs_of_their_own(alice: OpenAI, bob: OpenAI) -> None:
    clients = {"alice": alice, "bob": bob}
    batches = {name: submit(client, lines(20, name)).id for name, client in clients.items()}
    for name, client in clients.items():
        ended = wait_for_end(client, batches[name])
        assert set(outcomes(client, ended)) == {f"{name}-{n}" for n in range(20)}
        assert [batch.id for batch in client.batches.list()] == [batches[name]]
        assert {file.id for file in client.files.list()} == {ended.input_file_id, ended.output_file_id}
    for name, other in (("alice", bob), ("bob", alice)):
        hers = clients[name].batches.retrieve(batches[name])
        assert all(refusals(other, hers))
        assert clients[name].files.content(hers.input_file_id).content


def refusals(other: OpenAI, hers: Batch) -> Iterator[bool]:
    """Whether each attempt at another's things is answered as if there were none."""
    output = hers.output_file_id
    assert output is not None
    for attempt in (
        lambda: other.batches.retrieve(hers.id),
        lambda: other.batches.cancel(hers.id),
        lambda: other.files.retrieve(hers.input_file_id),
        lambda: other.files.content(output),
        lambda: other.files.delete(hers.input_file_id),
        lambda: other.batches.create(
            input_file_id=hers.input_file_id, endpoint=CHAT, completion_window="24h"
        ),
    ):
        try:
            attempt()
            yield False
        except openai.NotFoundError:
            yield True


def test_a_batch_may_be_cancelled_by_its_owner_while_another_watches(
    stack: Stack, alice: OpenAI, bob: OpenAI
) -> None:
    stack.simulator.patch(latency_s=1.0)
    batch = submit(alice, lines(500, "slow")).id
    with pytest.raises(openai.NotFoundError):
        bob.batches.cancel(batch)
    assert alice.batches.retrieve(batch).status in {"validating", "in_progress"}
    alice.batches.cancel(batch)
    assert wait_for_end(alice, batch).status == "cancelled"


def jobs(stack: Stack, key: str) -> list[dict[str, Any]]:
    found = requests.get(f"{stack.base_url}/jobs", headers=bearer(key), timeout=5).json()["data"]
    assert isinstance(found, list)
    return found


def test_lone_jobs_are_their_callers(stack: Stack, alice: OpenAI) -> None:
    before = [job["id"] for job in jobs(stack, BOB)]
    raw = alice.chat.completions.with_raw_response.create(**ASKED)
    job_id = raw.headers["x-llm-edge-job"]
    assert jobs(stack, ALICE)[0]["id"] == job_id
    assert [job["id"] for job in jobs(stack, BOB)] == before
    for method in ("GET", "DELETE"):
        answer = requests.request(method, f"{stack.base_url}/jobs/{job_id}", headers=bearer(BOB), timeout=5)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")
    assert requests.get(f"{stack.base_url}/jobs/{job_id}", headers=bearer(ALICE), timeout=5).ok


def test_a_repeated_request_never_gets_what_another_owner_asked_for(stack: Stack, alice: OpenAI) -> None:
    """An SDK that repeats is attached to its own earlier job; the same words of another owner make a job of their own."""
    stack.simulator.patch(latency_s=1.5)
    with pytest.raises(openai.APITimeoutError):
        alice.with_options(timeout=0.5).chat.completions.create(**ASKED)
    wait_for(stack.simulator.calls, 10, "the provider's first call")
    hers = jobs(stack, ALICE)[0]["id"]
    repeated = {"x-stainless-retry-count": "1"}

    async def both() -> tuple[str, str]:
        async def ask(key: str) -> str:
            async with AsyncOpenAI(base_url=stack.base_url, api_key=key, max_retries=0, timeout=30) as client:
                create = client.chat.completions.with_raw_response.create
                raw = await create(**ASKED, extra_headers=repeated)
                return str(raw.headers["x-llm-edge-job"])

        return await asyncio.gather(ask(BOB), ask(ALICE))

    of_bob, of_alice = asyncio.run(both())
    assert of_alice == hers
    assert of_bob != hers
    assert [job["id"] for job in jobs(stack, BOB) if job["id"] == of_bob]
    assert len(stack.simulator.calls()) == 2


def test_the_command_line_sends_its_key(stack: Stack, bob: OpenAI, tmp_path: Path) -> None:
    file = upload(bob, b"x")
    batch = bob.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h").id
    told = edge(tmp_path, "batch", "status", batch, env={**stack.env, "LLM_EDGE_API_KEY": BOB})
    assert batch in told.out
    told = edge(tmp_path, "batch", "status", batch, env={**stack.env, "LLM_EDGE_API_KEY": ALICE})
    assert (told.wait(), "404 batch_not_found" in told.err) == (1, True)
    told = edge(tmp_path, "batch", "list", env={**stack.env, "LLM_EDGE_API_KEY": ""})
    assert (told.wait(), "401 invalid_api_key" in told.err, "LLM_EDGE_API_KEY" in told.err) == (1, True, True)


def test_no_key_stands_in_a_log(stack: Stack) -> None:
    requests.get(f"{stack.base_url}/files/{ALICE}?after={ALICE}", headers=bearer(ALICE), timeout=5)

    def logged() -> str:
        return "".join(path.read_text(errors="replace") for path in stack.folder.glob("*.log"))

    wait_for(lambda: "/v1/files/[API_KEY_REDACTED]" in logged(), 10, "the request's log line")
    everything = logged()
    assert '"owner":"alice"' in everything
    for secret in (ALICE, BOB, ADMIN, *(entry.split(":")[1] for entry in KEYS.split(","))):
        assert secret not in everything


def test_with_keys_any_address_will_do_and_host_and_origin_do_not_matter() -> None:
    with running_with_keys(workers=0, SERVER_HOST="0.0.0.0", LOG_LEVEL="info,api=debug") as stack:  # noqa: S104  what is tried
        headers = {"Host": "llm.example", "Origin": "https://app.example"}
        assert requests.get(f"{stack.base_url}/models", headers={**headers, **bearer(BOB)}, timeout=5).ok
        assert requests.get(f"{stack.base_url}/models", headers=headers, timeout=5).status_code == 401
        logged = wait_for(lambda: '"owner":"bob"' in stack.log("api") and stack.log("api"), 5, "the log")
        assert logged
        assert BOB not in logged


def test_a_bad_entry_ends_the_api_with_its_number(stack: Stack) -> None:
    with running_with_keys(workers=0) as other:
        other.env["LLM_EDGE_API_KEYS"] = f"{KEYS},mallory:{BOB}"
        process = other._spawn("bad", "api")
        assert process.wait(20) == 1
        assert "LLM_EDGE_API_KEYS: entry 4 (mallory): after the owner must come" in other.log("bad")
        assert BOB not in other.log("bad")
    assert stack.port


def test_a_port_that_is_taken_is_told_with_what_to_do(stack: Stack) -> None:
    process = stack._spawn("second", "api")
    assert process.wait(20) == 1
    assert f"SERVER_PORT={stack.port} on 127.0.0.1 is taken by another program" in stack.log("second")
    assert "Traceback" not in stack.log("second")


def test_up_with_keys(tmp_path: Path) -> None:
    """Any address, ready only once a worker is, and the key is asked for."""
    port = free_port()
    options = ("--host", "0.0.0.0", "--port", str(port), "--workers", "1", "--simulate", "--latency-s 0")  # noqa: S104
    (tmp_path / "keys").write_text(KEYS.replace(",", "\n"))
    environ = {"LLM_EDGE_API_KEYS_FILE": str(tmp_path / "keys"), "LLM_EDGE_TICK_S": "0.1"}
    with running_up(tmp_path, *options, command=LLM_EDGE, environ=environ) as up:
        up.wait_ready(60)
        assert up.said("keys: 3 keys of 2 owners") is None
        assert up.said("keys: 3 keys of 3 owners, 1 of them for administration")
        with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=ALICE, max_retries=0) as client:
            assert client.chat.completions.create(**ASKED).choices[0].message.content
        wrong = requests.get(f"http://127.0.0.1:{port}/v1/models", headers=bearer("wrong"), timeout=5)
        assert wrong.status_code == 401
        up.signal(15)
        assert up.wait(60) == 0
        assert processes_in(tmp_path) == []
