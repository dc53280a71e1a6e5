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
from api.cli.multipart import Multipart
from api.cli.outcome import AwayError, Exit, FaultyInputError, FileError, RefusedError, UsageError
from api.cli.progress import Progress
from api.cli.view import BatchView

LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'
QUICK = Polling(first_s=0.01, most_s=0.01, patience_s=0.3)


class Heard(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.statuses: list[str] = []
        self.sent: list[tuple[int, int]] = []

    def uploading(self, sent: int, total: int) -> None:
        self.sent.append((sent, total))

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
    assert (
        b'name="file"; filename="in.jsonl"\r\nContent-Type: application/octet-stream\r\n\r\n' + LINE * 3
        in body
    )
    assert body.index(b'name="purpose"') < body.index(b'name="file"')
    assert heard.sent[-1] == (len(LINE) * 3, len(LINE) * 3)
    ((_, created),) = server.requests("POST /v1/batches")
    assert created == (
        b'{"input_file_id": "file-in", "endpoint": "/v1/chat/completions", "completion_window": "1h",'
        b' "metadata": {"team": "evals"}}'
    )


def test_a_large_file_is_never_whole_in_memory(server: Contract, client: Client, tmp_path: Path) -> None:
    large = tmp_path / "large.jsonl"
    with large.open("wb") as file:
        file.truncate(32 * 1024 * 1024)
    form = Multipart(large, {"purpose": "batch"})
    tracemalloc.start()
    try:
        assert sum(len(piece) for piece in form) == len(form) > 32 * 1024 * 1024
        assert tracemalloc.get_traced_memory()[1] < 2 * 1024 * 1024
    finally:
        tracemalloc.stop()
    client.upload(large)
    ((headers, body),) = server.requests("POST /v1/files")
    assert int(headers["content-length"]) == len(body)


def test_a_refused_batch_leaves_no_file_behind(server: Contract, client: Client, source: Path) -> None:
    server.odd["POST /v1/batches"] = [refusal(400, "Invalid 'completion_window': no.", "invalid_value")]
    with pytest.raises(RefusedError, match="Invalid 'completion_window'") as caught:
        journey.submit(client, Submission(source, "1y"), Heard())
    assert caught.value.exit is Exit.REFUSED
    assert "400 invalid_value, POST /v1/batches" in caught.value.message
    assert caught.value.document()["error"]["code"] == "invalid_value"
    assert len(server.requests("DELETE /v1/files/file-in")) == 1


def test_a_lost_answer_to_a_create_says_how_to_look(server: Contract, client: Client, source: Path) -> None:
    server.odd["POST /v1/batches"] = [Answer(hang_up=True)]
    with pytest.raises(AwayError, match=r"llm-edge batch list. shows whether the batch was created"):
        journey.submit(client, Submission(source), Heard())
    assert len(server.requests("POST /v1/batches")) == 1


@pytest.mark.parametrize("when", ["0.05", "Mon, 23 Nov 2020 08:00:00 GMT"])
def test_retry_after_is_honoured_and_said_once(server: Contract, source: Path, when: str) -> None:
    busy = refusal(503, "Redis is away.", "store_unavailable", retry_after=when)
    server.odd["POST /v1/files"] = [busy, busy]
    heard: list[str] = []
    client = Client(server.url, say=heard.append, patience_s=5)
    assert client.upload(source)["id"] == "file-in"
    (said,) = heard
    assert said == (
        "The server cannot serve this now: Redis is away (503 store_unavailable, POST /v1/files)."
        " Trying again for up to 5 s."
    )
    bodies = [body for _, body in server.requests("POST /v1/files")]
    assert all(LINE * 3 in body for body in bodies)
    assert len(bodies) == 3
    client.close()


def test_patience_ends(server: Contract, client: Client) -> None:
    server.odd["GET /v1/batches"] = [refusal(503, "Away.", "unavailable", retry_after="20")]
    with pytest.raises(AwayError, match="Away") as caught:
        client.batches()
    assert caught.value.exit is Exit.UNREACHABLE
    assert len(server.seen) == 1


def test_waiting_bears_a_server_that_is_away_and_says_so_once(server: Contract, client: Client) -> None:
    server.looks = [batch("validating", 0, 0), batch("in_progress", 3, 1), batch()]
    away, gone = refusal(502, "Bad gateway.", "bad"), Answer(hang_up=True)
    server.odd[f"GET /v1/batches/{BATCH_ID}"] = [gone, away, gone, away]
    heard = Heard()
    ended = journey.wait_for_end(client, BATCH_ID, heard, QUICK)
    assert ended["status"] == "completed"
    assert heard.statuses == ["validating", "in_progress", "completed"]
    assert [note.partition(" ")[0] for note in heard.notes] == ["The", "The"]
    assert "cannot serve this now: Bad gateway" in heard.notes[0]
    assert heard.notes[1] == "The server answers again."


def test_a_single_miss_is_not_worth_a_word(server: Contract, client: Client) -> None:
    server.odd[f"GET /v1/batches/{BATCH_ID}"] = [Answer(hang_up=True)]
    heard = Heard()
    assert journey.wait_for_end(client, BATCH_ID, heard, QUICK)["status"] == "completed"
    assert heard.notes == []


def test_waiting_gives_up_on_a_server_that_stays_away() -> None:
    client = Client(dead_url())
    with pytest.raises(AwayError, match="connection refused"):
        journey.wait_for_end(client, BATCH_ID, Heard(), QUICK)
    client.close()


def test_the_pauses_grow() -> None:
    with contract_server() as server:
        server.looks = [*(batch("in_progress", 3, 0) for _ in range(9)), batch()]
        client = Client(server.url)
        pauses: list[float] = []
        journey.wait_for_end(client, BATCH_ID, Heard(), sleep=pauses.append)
        client.close()
    assert [round(pause, 2) for pause in pauses] == [0.2, 0.3, 0.45, 0.68, 1.01, 1.52, 2.0, 2.0, 2.0]


def test_an_unreachable_server_is_named_with_what_to_do() -> None:
    url = dead_url()
    client = Client(url)
    with pytest.raises(AwayError) as caught:
        client.batches()
    assert caught.value.message == (
        f"Cannot reach {url} (connection refused). Start a server with `llm-edge up`,"
        " or name yours with LLM_EDGE_URL or --url."
    )
    client.close()


def test_no_proxy_stands_before_loopback(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", dead_url())
    assert client.batches()["has_more"] is True


def test_another_program_on_the_port_is_recognised(server: Contract, client: Client) -> None:
    server.odd["GET /v1/batches"] = [Answer(200, b"<html>It works!</html>")]
    with pytest.raises(RefusedError, match="not with a JSON object: is it an LLM Edge server"):
        client.batches()


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "LLM_EDGE_API_KEY"), (302, "points to another address"), (404, "no-such")]
)
def test_refusals_say_what_to_do(server: Contract, client: Client, status: int, advice: str) -> None:
    server.odd["POST /v1/batches/x/cancel"] = [
        refusal(status, "no-such", "nope", location="http://elsewhere/")
    ]
    with pytest.raises(RefusedError, match=advice):
        client.cancel("x")


def test_control_characters_of_a_server_do_not_reach_the_terminal(server: Contract, client: Client) -> None:
    server.odd["GET /v1/batches"] = [refusal(400, "red \x1b[31m alert\nline two", "c\x1b")]
    with pytest.raises(RefusedError) as caught:
        client.batches()
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/", " http://h:1 "]
)
def test_urls_are_taken_as_people_write_them(url: str) -> None:
    assert base_of(url) == "http://h:1"


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://h", "http://", "http://h:port", "http://[::1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no URL of a server"):
        base_of(url)


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match="must not carry credentials") as caught:
        base_of("http://me:s3cret@host:8080")
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize("key", ["k\ney", "schlüssel"])
def test_what_is_no_key_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        Client("http://127.0.0.1:1", key)
    assert key not in caught.value.message


def test_the_endpoint_is_that_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + LINE.replace(b"chat/", b""))
    assert journey.endpoint_of(path) == "/v1/completions"
    path.write_bytes(b"\n  \r\n" + LINE)
    assert journey.endpoint_of(path) == "/v1/chat/completions"


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b"custom_id,prompt\n", b"[1]\n", b"{}\n", b'{"url": 7}', b"\xff\n"]
)
def test_a_file_that_is_no_batch_is_refused_before_it_is_sent(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(data)
    with pytest.raises(FaultyInputError) as caught:
        journey.endpoint_of(path)
    assert caught.value.exit is Exit.NOT_RUN


def test_a_file_that_shrinks_while_it_is_sent_is_noticed(source: Path) -> None:
    form = Multipart(source, {})
    source.write_bytes(LINE)
    with pytest.raises(FileError, match="became shorter"):
        list(form)


def test_a_pipe_is_no_input_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be a regular file"):
        Multipart(tmp_path, {})
