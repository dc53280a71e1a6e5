"""What takes minutes: a file of the largest size."""

import json
import random
from collections.abc import Iterator

import psutil
import pytest
import requests
from support.batches import CHAT, line
from support.stack import running_stack
from support.waiting import wait_for

pytestmark = [pytest.mark.verify, pytest.mark.timeout(600)]


def _large(total: int, form: bytes) -> Iterator[bytes]:
    yield form
    filler = "".join(random.Random(1).choices("abcdefghijklmnop ", k=3980))
    sent = 0
    for n in range(50_000):
        row = json.dumps(line(f"j{n}", f"{n} {filler}")).encode() + b"\n"
        if sent + len(row) > total:
            break
        sent += len(row)
        yield row
    yield b"\r\n--b--\r\n"


def test_a_file_of_200_mb_never_sits_in_memory() -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="large.jsonl"\r\n\r\n'
    )
    size = 200 * 1024 * 1024
    with running_stack(workers=0) as stack, stack.client as client:
        assert stack.api is not None
        process = psutil.Process(stack.api.pid)
        before = process.memory_info().rss
        answer = requests.post(
            f"{stack.base_url}/files",
            data=_large(size - 1024, form),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
            timeout=300,
        )
        assert answer.ok, answer.text
        assert answer.json()["bytes"] > 190 * 1024 * 1024
        batch = client.batches.create(
            input_file_id=answer.json()["id"], endpoint=CHAT, completion_window="24h"
        )
        wait_for(lambda: client.batches.retrieve(batch.id).status == "in_progress", 60, "validation")
        with requests.get(
            f"{stack.base_url}/files/{answer.json()['id']}/content", stream=True, timeout=60
        ) as content:
            read = sum(len(part) for part in content.iter_content(1 << 20))
        assert read == answer.json()["bytes"]
        grown = process.memory_info().rss - before
        assert grown < 100 * 1024 * 1024, f"the API grew by {grown:,} bytes"
