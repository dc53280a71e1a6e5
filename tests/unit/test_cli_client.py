"""The HTTP client against a real socket: what it sends, what it bears, what it says."""

import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.contract_server import BATCH_ID, Answer, Contract, batch, contract_server, refusal

from api.cli import journey
from api.cli.client import Client, base_of
from api.cli.journey import Polling, Submission
from api.cli.outcome import AwayError, Exit, FaultyInputError, FileError, RefusedError, UsageError
from api.cli.progress import Progress
from api.cli.view import BatchView

LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'
QUICK = Polling(first_s=0.01, most_s=0.01, patience_s=0.3)


class Heard(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.statuses: list[str] = []
        self.sent: list[int] = []

    def uploading(self, sent: int, total: int) -> None:
        self.sent.append(sent)

    def update(self, batch: BatchView) -> None:
        self.statuses.append(batch.status)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def server() -> Iterator[Contract]:
    with contract_server() as contract:
        yield contract


@pytest.fixture
def client(server: Contract) -> Iterator[Client]:
    client = Client(server.url, "k3y", patience_s=0.5)
    yield client
    client.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(LINE * 3)
    return path


def dead_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_submit_uploads_a_form_and_creates_a_batch(server: Contract, client: Client, source: Path) -> None:
    heard = Heard()
    wanted = Submission(source, "1h", metadata={"team": "evals"})
    assert journey.submit(client, wanted, heard)["id"] == BATCH_ID
    ((headers, body),) = server.requests("POST /v1/files")
    assert headers["authorization"] == "Bearer k3y"
    assert headers["content-type"].startswith("multipart/form-data; boundary=")
    assert headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in headers
    assert b'name="purpose"\r\n\r\nbatch\r\n' in body
    assert b'name="file"; filename="in.jsonl"\r\nContent-Type: application/octet-stream\r\n\r\n' + LINE * 3 in body
    assert body.index(b'name="purpose"') < body.index(b'name="file"')
    assert heard.sent[-1] == len(LINE) * 3
    ((_, created),) = server.requests("POST /v1/batches")
    assert created == (
        b'{"input_file_id": "file-in", "endpoint": "/v1/chat/completions", "completion_window": "1h",'
        b' "metadata": {"team": "evals"}}'
    )


def test_a_large_file_is_never_whole_in_memory(server: Contract, client: Client, tmp_path: Path) -> None:
    large = tmp_path / "large.jsonl"
    with large.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    server.odd["POST /v1/files"] = [Answer(200, b'{"id": "file-in"}')]
    form = journey_form(large)
    tracemalloc.start()
    try:
        assert sum(len(piece) for piece in form) == len(form)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024
    client.upload(large)
    ((headers, body),) = server.requests("POST /v1/files")
    assert int(headers["content-length"]) == len(body) > 64 * 1024 * 1024


def journey_form(path: Path) -> "journey_multipart":
    return journey_multipart(path, {"purpose": "batch"})


from api.cli.multipart import Multipart as journey_multipart  # noqa: E402
