"""Whatever is wrong with a request: a clear error, nothing half-written, and the server still well."""

import json
import socket
from collections.abc import Callable
from typing import Any

import openai
import pytest
import requests
from openai import OpenAI
from support.batches import CHAT, jsonl, line, lines, outcomes, submit, upload, wait_for_end
from support.stack import Stack, running_stack
from support.waiting import wait_for


@pytest.fixture(autouse=True)
def _still_well(stack: Stack) -> Any:
    yield
    assert requests.get(f"{stack.url}/health/ready", timeout=5).json()["status"] == "ready"


@pytest.mark.parametrize(
    ("data", "code", "at"),
    [
        (b"\xff\xfe" + jsonl(lines(1)), "invalid_encoding", 1),
        (jsonl(lines(1)) + b"{nope\n", "invalid_json_line", 2),
        (jsonl([{"method": "POST", "url": CHAT, "body": {}}]), "invalid_request", 1),
        (jsonl([*lines(2), *lines(1)]), "duplicate_custom_id", 3),
        (jsonl([{**line("a", "x"), "url": "/v1/embeddings"}]), "mismatched_endpoint", 1),
        (jsonl([line("a", "x", stream=True)]), "stream_not_supported", 1),
        (b"", "empty_file", None),
    ],
)
def test_a_bad_file_fails_its_batch(client: OpenAI, data: bytes, code: str, at: int | None) -> None:
    ended = wait_for_end(client, submit(client, data).id)
    assert ended.status == "failed"
    assert ended.failed_at is not None
    assert ended.errors is not None
    assert ended.errors.data is not None
    assert (ended.errors.data[0].code, ended.errors.data[0].line) == (code, at)
    assert ended.errors.data[0].message
    assert (ended.output_file_id, ended.error_file_id) == (None, None)


def test_the_first_hundred_faults_are_listed(client: OpenAI) -> None:
    ended = wait_for_end(client, submit(client, b"{\n" * 1000).id)
    assert ended.errors is not None
    assert len(ended.errors.data or []) == 100


def test_one_line_too_many(client: OpenAI) -> None:
    ended = wait_for_end(client, submit(client, lines(50_001)).id)
    assert ended.errors is not None
    assert [fault.code for fault in ended.errors.data or []] == ["too_many_tasks"]


def test_a_model_nobody_serves() -> None:
    with running_stack(workers=0) as stack:
        stack.kill_api()
        stack.configure([{"id": "sim", "endpoint": stack.simulator.base_url, "models": {"known": "known"}}])
        stack.start_api()
        client = stack.client
        ended = wait_for_end(client, submit(client, [line("a", "x", model="unknown")]).id)
        assert ended.errors is not None
        assert [fault.code for fault in ended.errors.data or []] == ["model_not_found"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1y"}, "completion_window"),
        ({"completion_window": "8d"}, "completion_window"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "x"}}, "metadata"),
        ({"metadata": {"k": "x" * 513}}, "metadata"),
        ({"metadata": {"k": 3}}, "metadata.k"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 10}}, "output_expires_after.seconds"),
        ({"input_file_id": None}, "input_file_id"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_bad_batch_is_refused(client: OpenAI, stack: Stack, change: dict[str, Any], param: str) -> None:
    good = {"input_file_id": upload(client, jsonl(lines(1))), "endpoint": CHAT, "completion_window": "24h"}
    before = len(client.batches.list(limit=100).data)
    answer = requests.post(f"{stack.base_url}/batches", json={**good, **change}, timeout=5)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]
    assert len(client.batches.list(limit=100).data) == before


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1]",
        b"3",
        b"[" * 100_000,
        b"\xff",
        b'{"input_file_id": "\\ud800"}',
        b'{"metadata": {"\\ud800": "x"}}',
    ],
)
def test_a_body_that_is_no_json_object(stack: Stack, body: bytes) -> None:
    answer = requests.post(f"{stack.base_url}/batches", data=body, timeout=5)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_another_purpose_is_refused_and_batch_is_named(client: OpenAI) -> None:
    before = len(client.files.list().data)
    with pytest.raises(openai.BadRequestError, match="'batch'"):
        client.files.create(file=("a.txt", b"x"), purpose="fine-tune")
    assert len(client.files.list().data) == before


@pytest.mark.parametrize("seconds", ["10", "x", "99999999"])
def test_a_bad_expiry_is_refused(stack: Stack, seconds: str) -> None:
    answer = requests.post(
        f"{stack.base_url}/files",
        data={"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": seconds},
        files={"file": ("a.jsonl", b"{}")},
        timeout=5,
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "expires_after[seconds]")


@pytest.mark.parametrize(
    "send",
    [
        lambda url: requests.post(url, data={"purpose": "batch"}, timeout=5),
        lambda url: requests.post(url, files={"purpose": (None, "batch")}, timeout=5),
        lambda url: requests.post(url, json={"purpose": "batch"}, timeout=5),
        lambda url: requests.post(
            url, data=b"x", headers={"Content-Type": "multipart/form-data; boundary=" + "x" * 300}, timeout=5
        ),
        lambda url: requests.post(
            url,
            data={"purpose": "batch", "expires_after": '{"seconds": 3600}'},
            files={"file": ("a.jsonl", b"{}")},
            timeout=5,
        ),
        lambda url: requests.post(
            url,
            data=b"--x\r\nnonsense",
            headers={"Content-Type": "multipart/form-data; boundary=x"},
            timeout=5,
        ),
        lambda url: requests.post(
            url,
            data=b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf',
            headers={"Content-Type": "multipart/form-data; boundary=x"},
            timeout=5,
        ),
    ],
)
def test_a_form_that_is_none(stack: Stack, send: Callable[[str], requests.Response]) -> None:
    answer = send(f"{stack.base_url}/files")
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_file_too_large_is_told_so() -> None:
    with running_stack(workers=0, LLM_EDGE_MAX_FILE_BYTES="1000000") as stack:
        client = stack.client
        with pytest.raises(openai.APIStatusError, match="1,000,000 bytes") as caught:
            upload(client, b"x" * 30_000_000)
        assert caught.value.status_code == 413
        assert client.files.list().data == []
        assert _stored_chunks(stack) == []
        assert upload(client, b"x" * 999_000)


def _stored_chunks(stack: Stack) -> list[bytes]:
    with stack.valkey.client() as redis:
        keys = redis.keys("*:f:*:c")
        assert isinstance(keys, list)
        return keys


def test_an_upload_cut_short_leaves_nothing(stack: Stack, client: OpenAI) -> None:
    before, chunks = len(client.files.list().data), len(_stored_chunks(stack))
    head = (
        b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: 50000000\r\n\r\n"
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", stack.port)) as connection:
        connection.sendall(head + b"y" * 5_000_000)
        wait_for(lambda: len(_stored_chunks(stack)) > chunks, 10, "the first chunks to be stored")
    wait_for(lambda: len(_stored_chunks(stack)) == chunks, 10, "the chunks to be discarded")
    assert len(client.files.list().data) == before


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=" + "9" * 5000])
def test_a_bad_limit(stack: Stack, query: str) -> None:
    answer = requests.get(f"{stack.base_url}/batches?{query}", timeout=5)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")


def test_a_bad_order(stack: Stack) -> None:
    answer = requests.get(f"{stack.base_url}/files?order=up", timeout=5)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "order")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nope", 404), ("PUT", "/v1/batches", 405)]
)
def test_unknown_paths_speak_the_envelope(stack: Stack, method: str, path: str, status: int) -> None:
    answer = requests.request(method, f"{stack.url}{path}", timeout=5)
    assert answer.status_code == status
    assert path in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8080"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_other_hosts_and_origins_are_refused(stack: Stack, headers: dict[str, str]) -> None:
    answer = requests.get(f"{stack.base_url}/files", headers=headers, timeout=5)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")


def test_loopback_names_are_welcome(stack: Stack) -> None:
    for headers in ({"Host": "localhost"}, {"Host": "[::1]:80"}, {"Origin": "http://localhost:3000"}):
        assert requests.get(f"{stack.base_url}/files", headers=headers, timeout=5).ok


def test_the_server_binds_to_nothing_but_loopback() -> None:
    with running_stack(workers=0) as stack:
        stack.env["SERVER_HOST"] = "0.0.0.0"  # noqa: S104  what is refused
        process = stack._spawn("open", "api")
        assert process.wait(20) == 1
        assert "loopback" in stack.log("open")


def test_a_batch_after_all_that_still_runs(client: OpenAI) -> None:
    ended = wait_for_end(client, submit(client, lines(10)).id)
    assert len(outcomes(client, ended)) == 10
    assert json.dumps(ended.id)
