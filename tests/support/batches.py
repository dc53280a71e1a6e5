"""Batches as tests make and read them, through the official SDK."""

import io
import json
from typing import TYPE_CHECKING, Any, Final, cast

from support.waiting import wait_for

if TYPE_CHECKING:  # the SDK takes half a second, and unit tests want a line
    from openai import OpenAI
    from openai.types import Batch

CHAT: Final = "/v1/chat/completions"
TERMINAL = {"completed", "failed", "expired", "cancelled"}


def line(custom_id: str, prompt: str, **body: Any) -> dict[str, Any]:
    fields = {
        "model": "test-model",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 20,
        **body,
    }
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": fields}


def lines(count: int, prefix: str = "job") -> list[dict[str, Any]]:
    return [line(f"{prefix}-{n}", f"{prefix} {n} says hello") for n in range(count)]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def upload(client: "OpenAI", data: bytes, name: str = "input.jsonl") -> str:
    return client.files.create(file=(name, io.BytesIO(data)), purpose="batch").id


def submit(
    client: "OpenAI", rows: list[dict[str, Any]] | bytes, window: str = "24h", **extra: Any
) -> "Batch":
    data = rows if isinstance(rows, bytes) else jsonl(rows)
    return client.batches.create(
        input_file_id=upload(client, data),
        endpoint=CHAT,
        completion_window=cast("Any", window),  # we take other windows than OpenAI's
        **extra,
    )


def wait_for_end(
    client: "OpenAI", batch_id: str, timeout_s: float = 60.0, *, every_s: float = 0.02
) -> "Batch":
    """`every_s`: asked so often; the SDK's own work is felt on a small machine."""

    def ended() -> "Batch | None":
        batch = client.batches.retrieve(batch_id)
        return batch if batch.status in TERMINAL else None

    found = wait_for(
        ended,
        timeout_s,
        f"batch {batch_id} to end (last: {client.batches.retrieve(batch_id)})",
        every_s=every_s,
    )
    assert found is not None
    return found


def read(client: "OpenAI", file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    return [json.loads(row) for row in client.files.content(file_id).content.splitlines()]


def outcomes(client: "OpenAI", batch: "Batch") -> dict[str, dict[str, Any]]:
    """custom_id -> line, over both files; asserts that no job stands twice and that the counts are those of the files."""
    output, errors = read(client, batch.output_file_id), read(client, batch.error_file_id)
    found = {row["custom_id"]: row for row in output + errors}
    assert len(found) == len(output) + len(errors), "a job stands twice in the files"
    assert batch.request_counts is not None
    counts = batch.request_counts
    told = (counts.completed, counts.failed)
    assert told == (len(output), len(errors)), (
        f"jobs ended twice, or not at all: {told} are not the files' counts"
    )
    assert counts.total == len(found), "the total is not the files'"
    return found
