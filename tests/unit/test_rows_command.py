"""`batch run --prompt` as a user calls it, against a socket that loses answers, batches and files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.contract_server import BATCH_ID, Answer, Contract, batch, contract_server, refusal
from typer.testing import CliRunner, Result

from api.cli.main import app
from api.cli.rows.handin import METADATA_KEY
from api.cli.rows.recipe import Recipe, Row, digest_of
from api.cli.rows.template import parse

ASK = ("--prompt", "Say {text}", "--model", "m")
TEXTS = ("a", "b", "c")


@pytest.fixture
def server() -> Iterator[Contract]:
    with contract_server() as contract:
        contract.files["file-out"] = b"".join(map(answered, TEXTS))
        yield contract


def answered(text: str) -> bytes:
    body = Recipe(parse("Say {text}"), "m").body(Row("", {"text": text}))
    assert body is not None
    choice = {"message": {"content": text.upper()}, "finish_reason": "stop"}
    line = {
        "custom_id": f"{digest_of(body)}-1",
        "response": {"status_code": 200, "body": {"choices": [choice]}},
    }
    return json.dumps(line).encode() + b"\n"


class Edge:
    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.source = folder / "rows.csv"
        self.out = folder / "out.csv"
        self.state = folder / "out.csv.llm-edge.sqlite"
        self.source.write_text("text\n" + "".join(f"{text}\n" for text in TEXTS))

    def __call__(self, *words: object, ask: tuple[str, ...] = ASK) -> Result:
        line = ["batch", "run", self.source, "-o", self.out, *ask, *words]
        return CliRunner().invoke(app, [str(word) for word in line], env={"LLM_EDGE_URL": self.url})


@pytest.fixture
def edge(tmp_path: Path, server: Contract) -> Edge:
    return Edge(tmp_path, server.url)


def keys(server: Contract, what: str) -> list[str]:
    return [headers["idempotency-key"] for headers, _ in server.requests(what)]


def test_rows_are_asked_and_joined(edge: Edge, server: Contract) -> None:
    ran = edge("--metadata", "team=evals")
    assert ran.exit_code == 0, ran.stderr
    assert [line.split(",")[:2] for line in edge.out.read_text().splitlines()] == [
        ["text", "answer"], ["a", "A"], ["b", "B"], ["c", "C"],
    ]  # fmt: skip
    sent = json.loads(server.requests("POST /v1/batches")[0][1])
    assert sent["metadata"].keys() == {"team", METADATA_KEY}
    assert "out.csv: 3 rows: 3 answered" in ran.stdout
    assert sorted(path.name for path in edge.folder.iterdir()) == ["out.csv", edge.state.name, "rows.csv"]
    assert edge().exit_code == 0
    assert len(server.requests("POST /v1/batches")) == 1


def test_a_batch_whose_creation_was_never_answered_is_found_by_its_metadata(
    edge: Edge, server: Contract
) -> None:
    server.odd["POST /v1/batches"] = [Answer(hang_up=True)]
    lost = edge()
    assert lost.exit_code == 4
    assert "Run the same command again" in lost.stderr
    token = json.loads(server.requests("POST /v1/batches")[0][1])["metadata"][METADATA_KEY]
    others = [batch(id=f"batch_{n}x", metadata={METADATA_KEY: "another"}) for n in range(3)]
    pages = [
        {"data": others, "has_more": True},
        {"data": [batch(metadata=None), batch(metadata={METADATA_KEY: token})], "has_more": False},
    ]
    for page in pages:
        for known in page["data"]:  # type: ignore[attr-defined]
            known["created_at"] = 4_000_000_000
    server.odd["GET /v1/batches"] = [Answer(body=json.dumps(page).encode()) for page in pages]
    ran = edge()
    assert ran.exit_code == 0, ran.stderr
    assert len(server.requests("POST /v1/batches")) == 1
    assert len(edge.out.read_text().splitlines()) == 4


def test_what_is_not_found_is_sent_again_under_the_same_key(edge: Edge, server: Contract) -> None:
    server.odd["POST /v1/batches"] = [Answer(hang_up=True)]
    assert edge().exit_code == 4
    assert edge().exit_code == 0
    assert len(server.requests("POST /v1/files")) == 1  # its id had been written down
    first, second = keys(server, "POST /v1/batches")
    assert first == second
    edge.source.write_text("text\nd\n")
    edge()
    assert keys(server, "POST /v1/batches")[2] != first


def test_a_lost_upload_too(edge: Edge, server: Contract) -> None:
    server.odd["POST /v1/files"] = [Answer(hang_up=True)]
    assert edge().exit_code == 4
    assert edge().exit_code == 0
    first, second = keys(server, "POST /v1/files")
    assert first == second


def test_another_question_after_a_lost_creation_takes_the_file_away(edge: Edge, server: Contract) -> None:
    server.odd["POST /v1/batches"] = [Answer(hang_up=True)]
    assert edge().exit_code == 4
    edge(ask=("--prompt", "Shout {text}", "--model", "m"))
    assert len(server.requests("DELETE /v1/files/file-in")) == 1
    assert len(set(keys(server, "POST /v1/files"))) == 2


def test_a_refusal_is_told_and_may_be_tried_again(edge: Edge, server: Contract) -> None:
    server.odd["POST /v1/batches"] = [refusal(400, "No such window.", "invalid_value")]
    refused = edge()
    assert refused.exit_code == 1
    assert "No such window" in refused.stderr
    assert edge().exit_code == 0
    assert len(set(keys(server, "POST /v1/files"))) == 2


def leave_under_way(edge: Edge, server: Contract) -> None:
    """A batch is created, and the first look at it ends the command."""
    server.odd[f"GET /v1/batches/{BATCH_ID}"] = [refusal(403, "Not now.", "no")]
    assert edge().exit_code == 1


def test_a_batch_that_its_server_has_lost_is_sent_anew(edge: Edge, server: Contract) -> None:
    leave_under_way(edge, server)
    server.odd[f"GET /v1/batches/{BATCH_ID}"] = [refusal(404, "No batch found.", "batch_not_found")]
    ran = edge()
    assert ran.exit_code == 0, ran.stderr
    assert "its rows are sent anew" in ran.stderr
    assert len(server.requests("POST /v1/batches")) == 2


def test_a_batch_at_another_server_is_not_forgotten(edge: Edge, server: Contract) -> None:
    leave_under_way(edge, server)
    with contract_server() as other:
        other.odd[f"GET /v1/batches/{BATCH_ID}"] = [refusal(404, "No batch found.", "batch_not_found")]
        elsewhere = Edge(edge.folder, other.url)()
    assert elsewhere.exit_code == 2
    assert f"is at {server.url}, not at {other.url}" in elsewhere.stderr
    assert not other.requests("POST /v1/batches")


def test_a_batch_that_fails_validation_is_code_3_with_its_faults(edge: Edge, server: Contract) -> None:
    faults = {"data": [{"code": "model_not_found", "message": "No such model.", "line": 1}]}
    server.looks = [batch("failed", 0, 0, errors=faults)]
    ran = edge()
    assert ran.exit_code == 3
    assert "line 1: No such model." in ran.stdout


def test_answers_that_are_no_longer_there_are_not_run(edge: Edge, server: Contract) -> None:
    del server.files["file-out"]
    ran = edge("--json")
    assert ran.exit_code == 3
    assert json.loads(ran.stdout)["not_run"] == 3


def test_partial_sends_nothing_and_needs_no_server(edge: Edge, server: Contract) -> None:
    leave_under_way(edge, server)
    server.odd[f"GET /v1/batches/{BATCH_ID}"] = [Answer(hang_up=True)] * 3
    ran = edge("--partial")
    assert ran.exit_code == 3, ran.stderr
    assert "3 not run" in ran.stdout
    assert len(server.requests("POST /v1/batches")) == 1


@pytest.mark.parametrize(
    ("words", "ask", "message"),
    [
        ((), (), "is a table, not a file of requests"),
        ((), ("--prompt", "{text}"), "--prompt needs --model"),
        (("--errors", "e"), ASK, "--errors is for a FILE of requests"),
        (("-o", "-"), ASK, "its ending must be one of"),
        (("-o", "none/o.csv"), ASK, "cannot be written"),
        ((), ("--prompt", "{text.upper}", "--model", "m"), "names 'text.upper'"),
        (("--system", "{who}"), ASK, "--system names 'who'"),
        (("--prompt", "@none.txt"), ASK, "--prompt none.txt: No such file"),
        (("--param", "stream=true"), ASK, "--param stream"),
        (("--param", "x"), ASK, "write it as key=value"),
        (("--id-column", "id"), ASK, "has no such column"),
        (("--delimiter", ";;"), ASK, "name one character"),
        (("--encoding", "utf-9"), ASK, "no encoding of this name"),
    ],
)
def test_wrong_usage_sends_nothing(
    edge: Edge, server: Contract, words: tuple[str, ...], ask: tuple[str, ...], message: str
) -> None:
    ran = edge(*words, ask=ask)
    assert ran.exit_code in {1, 2}
    assert message in " ".join(ran.stderr.split())
    assert not server.seen
    assert [path.name for path in edge.folder.iterdir()] == ["rows.csv"]


def test_a_clash_of_columns_is_refused_before_anything_is_sent(edge: Edge, server: Contract) -> None:
    edge.source.write_text("text,answer\na,old\n")
    assert "already has the column 'answer'" in edge().stderr
    assert not server.seen
    edge("--prefix", "new_")
    assert edge.out.read_text().startswith("text,answer,new_answer,new_error,")


def test_prompts_from_files_and_parameters(edge: Edge, server: Contract) -> None:
    prompt = edge.folder / "p.txt"
    prompt.write_text("\ufeffSay\n{text}\n")
    words: tuple[Any, ...] = (
        "--system",
        "@@home",
        "--temperature",
        0.5,
        "--param",
        "top_p=0.9",
        "--param",
        "user=me",
    )
    edge(*words, ask=("--prompt", f"@{prompt}", "--model", "m"))
    form = server.requests("POST /v1/files")[0][1].decode()
    line = next(line for line in form.splitlines() if line.startswith("{"))
    assert json.loads(line)["body"] == {
        "model": "m",
        "messages": [{"role": "system", "content": "@home"}, {"role": "user", "content": "Say\na"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "user": "me",
    }


def test_no_rows_make_an_empty_table(edge: Edge, server: Contract) -> None:
    edge.source.write_text("text\n")
    assert edge().exit_code == 0
    assert edge.out.read_text().startswith("text,answer,")
    assert not server.seen
