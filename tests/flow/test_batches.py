"""OpenAI's Files and Batches with the official SDK against real processes."""

import io
import json

import openai
import pytest
import requests
from openai import OpenAI
from support.batches import CHAT, jsonl, line, lines, outcomes, read, submit, upload, wait_for_end
from support.stack import Stack
from support.waiting import wait_for


def test_upload_create_poll_download(client: OpenAI, stack: Stack) -> None:
    data = jsonl(lines(120))
    file = client.files.create(file=("in.jsonl", io.BytesIO(data)), purpose="batch")
    assert (file.object, file.bytes, file.filename, file.purpose) == ("file", len(data), "in.jsonl", "batch")
    assert file.status == "processed"
    assert file.expires_at is not None
    assert file.expires_at - file.created_at == 7 * 86400
    assert client.files.content(file.id).content == data
    batch = client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"team": "evals"}
    )
    assert (batch.status, batch.object, batch.metadata) == ("validating", "batch", {"team": "evals"})
    assert batch.expires_at == batch.created_at + 86400
    ended = wait_for_end(client, batch.id)
    assert ended.status == "completed"
    assert (ended.model, ended.errors, ended.error_file_id) == ("test-model", None, None)
    assert None not in (ended.in_progress_at, ended.finalizing_at, ended.completed_at)
    found = outcomes(client, ended)
    assert set(found) == {f"job-{n}" for n in range(120)}
    for row in found.values():
        body = row["response"]["body"]
        assert (row["response"]["status_code"], row["error"]) == (200, None)
        assert body["system_fingerprint"] == "simulated"
        assert row["routing"]["provider"] == "sim"
    assert ended.usage is not None
    spent = [row["response"]["body"]["usage"] for row in found.values()]
    assert ended.usage.input_tokens == sum(u["prompt_tokens"] for u in spent)
    assert ended.usage.output_tokens == sum(u["completion_tokens"] for u in spent)
    assert len(stack.simulator.calls()) == 120


def test_the_output_is_in_input_order(client: OpenAI) -> None:
    ended = wait_for_end(client, submit(client, lines(200)).id)
    assert [row["custom_id"] for row in read(client, ended.output_file_id)] == [
        f"job-{n}" for n in range(200)
    ]


def test_the_legacy_completions_endpoint(client: OpenAI) -> None:
    rows = [
        {
            "custom_id": f"c{n}",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": "m", "prompt": f"say {n}", "max_tokens": 5},
        }
        for n in range(5)
    ]
    batch = client.batches.create(
        input_file_id=upload(client, jsonl(rows)), endpoint="/v1/completions", completion_window="24h"
    )
    found = outcomes(client, wait_for_end(client, batch.id))
    assert {row["response"]["body"]["object"] for row in found.values()} == {"text_completion"}


def test_refused_requests_stand_in_the_error_file(client: OpenAI, stack: Stack) -> None:
    stack.simulator.patch(rules=[{"match": "^poison", "status": 400}])
    rows = [*lines(20), line("bad", "poison")]
    ended = wait_for_end(client, submit(client, rows).id)
    assert ended.status == "completed"
    found = outcomes(client, ended)
    (bad,) = read(client, ended.error_file_id)
    assert (bad["custom_id"], bad["error"], bad["response"]["status_code"]) == ("bad", None, 400)
    assert "error" in bad["response"]["body"]
    assert len(found) == 21


def test_cancel(client: OpenAI, stack: Stack) -> None:
    stack.simulator.patch(latency_s=0.3)
    batch = submit(client, lines(3000))
    wait_for(lambda: client.batches.retrieve(batch.id).request_counts.completed > 50, 30, "some answers")  # type: ignore[union-attr]
    cancelling = client.batches.cancel(batch.id)
    assert cancelling.status in {"cancelling", "cancelled"}
    assert client.batches.cancel(batch.id).status in {"cancelling", "cancelled"}
    ended = wait_for_end(client, batch.id)
    assert ended.status == "cancelled"
    assert None not in (ended.cancelling_at, ended.cancelled_at)
    found = outcomes(client, ended)
    assert len(found) == 3000
    rest = read(client, ended.error_file_id)
    assert {row["error"]["code"] for row in rest} == {"batch_cancelled"}
    assert len(rest) == 3000 - len(stack.simulator.calls())


def test_the_window_ends(client: OpenAI, stack: Stack) -> None:
    stack.simulator.patch(latency_s=0.5)
    batch = submit(client, lines(2000), window="3s")
    ended = wait_for_end(client, batch.id)
    assert (ended.status, ended.expired_at is not None) == ("expired", True)
    found = outcomes(client, ended)
    assert len(found) == 2000
    assert {row["error"]["code"] for row in read(client, ended.error_file_id)} == {"batch_expired"}
    assert len(read(client, ended.output_file_id)) == len(stack.simulator.calls())


def test_list_and_paginate(client: OpenAI) -> None:
    made = [submit(client, lines(1)).id for _ in range(5)]
    newest = [batch.id for batch in client.batches.list(limit=5).data]
    assert newest == made[::-1]
    page = client.batches.list(limit=2)
    assert ([b.id for b in page.data], page.has_more) == (made[:2:-1], True)
    walked = [batch.id for batch in client.batches.list(limit=2)][:5]
    assert walked == made[::-1]
    for batch_id in made:
        wait_for_end(client, batch_id)


def test_files_list_filter_order_and_delete(client: OpenAI) -> None:
    made = [upload(client, jsonl(lines(1))) for _ in range(3)]
    ours = [f.id for f in client.files.list(purpose="batch", order="asc") if f.id in made]
    assert ours == made
    assert client.files.list(limit=1).data[0].id == made[-1]
    assert all(f.purpose == "batch_output" for f in client.files.list(purpose="batch_output"))
    gone = client.files.delete(made[0])
    assert (gone.id, gone.deleted) == (made[0], True)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made[0])
    with pytest.raises(openai.NotFoundError):
        client.files.content(made[0])
    with pytest.raises(openai.NotFoundError):
        client.files.delete(made[0])


def test_deleting_the_input_leaves_the_batch_running(client: OpenAI, stack: Stack) -> None:
    stack.simulator.patch(latency_s=0.2)
    batch = submit(client, lines(300))
    client.files.delete(batch.input_file_id)
    assert len(outcomes(client, wait_for_end(client, batch.id))) == 300


def test_expiry_of_files(client: OpenAI) -> None:
    file = client.files.create(
        file=("in.jsonl", jsonl(lines(1))),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert file.expires_at == file.created_at + 7200
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint=CHAT,
        completion_window="24h",
        output_expires_after={"anchor": "created_at", "seconds": 3600},
    )
    ended = wait_for_end(client, batch.id)
    assert ended.output_file_id is not None
    output = client.files.retrieve(ended.output_file_id)
    assert output.expires_at == output.created_at + 3600
    assert output.purpose == "batch_output"


def test_wrong_ids_are_404(client: OpenAI) -> None:
    for call in (
        lambda: client.batches.retrieve("batch_nope"),
        lambda: client.batches.cancel("batch_nope"),
        lambda: client.files.retrieve("file-nope"),
        lambda: client.files.content("file-nope"),
        lambda: client.files.delete("file-nope"),
        lambda: client.batches.create(input_file_id="file-nope", endpoint=CHAT, completion_window="24h"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert caught.value.request_id is not None
        assert caught.value.type == "invalid_request_error"


def test_a_batch_that_has_ended_cannot_be_cancelled(client: OpenAI) -> None:
    ended = wait_for_end(client, submit(client, lines(1)).id)
    with pytest.raises(openai.ConflictError, match="completed"):
        client.batches.cancel(ended.id)


def test_an_output_file_is_no_input(client: OpenAI) -> None:
    ended = wait_for_end(client, submit(client, lines(1)).id)
    assert ended.output_file_id is not None
    with pytest.raises(openai.BadRequestError, match="batch_output"):
        client.batches.create(input_file_id=ended.output_file_id, endpoint=CHAT, completion_window="24h")


def test_what_each_provider_did_is_told(client: OpenAI, stack: Stack) -> None:
    ended = wait_for_end(client, submit(client, lines(10)).id)
    raw = requests.get(f"{stack.base_url}/batches/{ended.id}", timeout=5).json()
    (share,) = raw["providers"]
    assert (share["id"], share["completed"], share["failed"]) == ("sim", 10, 0)
    assert ended.usage is not None
    spent = ended.usage.total_tokens * 0.01 / 1000
    assert float(share["cost_usd"]) == pytest.approx(spent)
    assert float(raw["cost_usd"]) == pytest.approx(spent)


def test_health_and_docs(stack: Stack) -> None:
    assert requests.get(f"{stack.url}/health", timeout=5).json()["status"] == "ok"
    ready = requests.get(f"{stack.url}/health/ready", timeout=5)
    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ready", "redis": "ok", "broker": None, "workers": 2, "room": "ok"},
    )
    assert requests.get(f"{stack.url}/docs", timeout=5).ok
    spec = requests.get(f"{stack.url}/openapi.json", timeout=5).json()
    assert {"/v1/files", "/v1/batches", "/v1/batches/{batch_id}/cancel"} <= set(spec["paths"])


@pytest.mark.verify
@pytest.mark.alone
def test_fifty_thousand_lines_are_accepted_run_and_downloaded(client: OpenAI, stack: Stack) -> None:
    rows = lines(50_000)
    batch = submit(client, rows)
    ended = wait_for_end(client, batch.id, timeout_s=150)
    assert ended.status == "completed"
    assert len(outcomes(client, ended)) == 50_000
    assert stack.simulator.stats()["default"]["calls"] == 50_000
    assert json.dumps(rows[0])
