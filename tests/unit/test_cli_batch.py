"""The batch commands as a user calls them, against a real socket: output, files, exit codes."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.contract_server import BATCH_ID, Answer, Contract, batch, contract_server, refusal
from typer.testing import CliRunner, Result

from api.cli.main import app

LINE = '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'


@pytest.fixture
def server() -> Iterator[Contract]:
    with contract_server() as contract:
        yield contract


class Edge:
    """`llm-edge batch` in a folder of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.input = folder / "in.jsonl"
        self.out = folder / "out.jsonl"
        self.input.write_text(LINE * 3)

    def __call__(self, *words: object) -> Result:
        return CliRunner().invoke(app, ["batch", *map(str, words)], env={"LLM_EDGE_URL": self.url})


@pytest.fixture
def edge(tmp_path: Path, server: Contract) -> Edge:
    return Edge(tmp_path, server.url)


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def test_run_ends_with_the_answers_on_disk(edge: Edge, server: Contract) -> None:
    result = edge("run", edge.input, "-o", edge.out)
    assert result.exit_code == 0
    assert edge.out.read_bytes() == server.files["file-out"]
    assert not (edge.folder / "out.errors.jsonl").exists()
    assert "batch_1  completed after 12 s" in result.stdout
    assert "3 of 3 jobs done" in result.stdout
    assert f"{edge.out} (3 lines)" in result.stdout
    assert f"{BATCH_ID} created from" in result.stderr
    assert sorted(path.name for path in edge.folder.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (batch("completed", 3, 3), 0),
        (batch("completed", 3, 2, 1), 1),
        (batch("expired", 3, 1), 3),
        (batch("cancelled", 3, 1), 3),
    ],
)
def test_the_exit_code_tells_how_it_ended(
    edge: Edge, server: Contract, ended: dict[str, Any], code: int
) -> None:
    server.looks = [ended]
    assert edge("run", edge.input, "-o", edge.out).exit_code == code
    assert edge("results", BATCH_ID, "-o", edge.out).exit_code == code
    assert edge("status", BATCH_ID, "--watch").exit_code == code
    assert edge("status", BATCH_ID).exit_code == 0
    assert edge.out.read_bytes() == server.files["file-out"]
    assert (edge.folder / "out.errors.jsonl").exists() == (code != 0)


def test_a_batch_that_fails_validation_names_its_lines_and_writes_nothing(
    edge: Edge, server: Contract
) -> None:
    faults = [{"code": "x", "message": f"wrong {n}", "param": None, "line": n} for n in range(1, 14)]
    server.looks = [batch("failed", 0, 0, errors={"object": "list", "data": faults})]
    edge.out.write_text("from before")
    result = edge("run", edge.input, "-o", edge.out)
    assert result.exit_code == 3
    assert "line 1: wrong 1" in result.stdout
    assert "and 3 more" in result.stdout
    assert edge.out.read_text() == "from before"


def test_output_on_stdout_is_nothing_but_the_answers(edge: Edge, server: Contract) -> None:
    server.looks = [batch("completed", 3, 2, 1)]
    result = edge("run", edge.input, "-o", "-")
    assert result.stdout_bytes == server.files["file-out"]
    assert "batch_1  completed" in result.stderr
    assert "llm-edge batch results batch_1 --errors FILE" in result.stderr


def test_json_is_one_document(edge: Edge, server: Contract) -> None:
    server.looks = [batch("completed", 3, 2, 1)]
    errors = edge.folder / "bad.jsonl"
    ran = edge("run", edge.input, "-o", edge.out, "--errors", errors, "--json")
    assert (ran.exit_code, ran.stderr) == (1, "")
    assert document(ran) == {"batch": server.looks[0], "output": str(edge.out), "errors": str(errors)}
    assert errors.read_bytes() == server.files["file-err"]
    assert document(edge("submit", edge.input, "--json"))["status"] == "validating"
    assert document(edge("status", BATCH_ID, "--json")) == server.looks[0]
    assert document(edge("status", BATCH_ID, "--watch", "--json")) == server.looks[0]
    assert document(edge("cancel", BATCH_ID, "--json")) == server.looks[0]
    assert document(edge("list", "--json"))["object"] == "list"
    assert document(edge("results", BATCH_ID, "-o", edge.out, "--json"))["output"] == str(edge.out)


def test_json_tells_refusals_too(edge: Edge) -> None:
    missing = edge("status", "batch_x", "--json")
    assert missing.exit_code == 1
    assert document(missing)["error"]["code"] == "batch_not_found"
    edge.url = "nonsense"
    usage = edge("list", "--json")
    assert (usage.exit_code, document(usage)["error"]["code"]) == (2, "usage")


def test_submit_prints_the_id_alone(edge: Edge, server: Contract) -> None:
    result = edge("submit", edge.input, "--window", "2h", "--metadata", "a=b=c", "--metadata", "d=")
    assert (result.exit_code, result.stdout) == (0, f"{BATCH_ID}\n")
    ((_, body),) = server.requests("POST /v1/batches")
    assert json.loads(body)["completion_window"] == "2h"
    assert json.loads(body)["metadata"] == {"a": "b=c", "d": ""}


def test_list_shows_a_table_and_where_it_goes_on(edge: Edge) -> None:
    result = edge("list", "--limit", "1")
    assert result.stdout.splitlines() == [
        "ID       STATUS     JOBS  DONE  FAILED  CREATED",
        "batch_1  completed  3     3     0       2025-06-15 15:06:40 UTC",
    ]
    assert result.stderr == "more: llm-edge batch list --limit 1 --after batch_1\n"


def test_results_of_a_running_batch_are_refused(edge: Edge, server: Contract) -> None:
    server.looks = [batch("in_progress", 1000, 612, 2)]
    result = edge("results", BATCH_ID, "-o", edge.out)
    assert result.exit_code == 1
    assert result.stderr == (
        "llm-edge batch: batch_1 has not ended yet: in_progress, 614 of 1,000 jobs done, 2 of them failed."
        " Wait for it with `llm-edge batch status batch_1 --watch`.\n"
    )
    assert not edge.out.exists()


def test_a_download_that_is_cut_short_begins_anew(edge: Edge, server: Contract) -> None:
    whole = b"x" * 1000
    server.files["file-out"] = whole
    server.odd["GET /v1/files/file-out/content"] = [Answer(body=whole, cut=400)]
    edge.out.write_text("from before")
    assert edge("results", BATCH_ID, "-o", edge.out).exit_code == 0
    assert edge.out.read_bytes() == whole
    assert len(list(edge.folder.iterdir())) == 2


def test_old_errors_do_not_outlive_new_answers(edge: Edge) -> None:
    old = edge.folder / "out.errors.jsonl"
    old.write_text("from before")
    assert edge("run", edge.input, "-o", edge.out).exit_code == 0
    assert old.read_bytes() == b""


def test_errors_alone_and_targets_that_are_no_plain_files(edge: Edge, server: Contract) -> None:
    server.looks = [batch("completed", 3, 2, 1)]
    errors = edge.folder / "bad.jsonl"
    assert edge("results", BATCH_ID, "--errors", errors).exit_code == 1
    assert errors.read_bytes() == server.files["file-err"]
    assert edge("results", BATCH_ID, "-o", "/dev/null", "--errors", errors).exit_code == 1
    link, real = edge.folder / "link.jsonl", edge.folder / "real.jsonl"
    link.symlink_to(real)
    assert edge("results", BATCH_ID, "-o", link, "--errors", "/dev/null").exit_code == 1
    assert link.is_symlink()
    assert real.read_bytes() == server.files["file-out"]


def test_a_batch_of_nothing_but_failures_leaves_an_empty_file(edge: Edge, server: Contract) -> None:
    server.looks = [batch("completed", 3, 0, 3)]
    edge.out.write_text("from before")
    assert edge("run", edge.input, "-o", edge.out).exit_code == 1
    assert edge.out.read_bytes() == b""


def test_leaving_while_it_runs_names_the_batch_and_the_way_back(edge: Edge, server: Contract) -> None:
    ctrl_c = Answer(act=lambda: os.kill(os.getpid(), signal.SIGINT), hang_up=True)
    server.odd[f"GET /v1/batches/{BATCH_ID}"] = [ctrl_c, ctrl_c]
    left = edge("run", edge.input, "-o", "my answers.jsonl")
    assert left.exit_code == 130
    assert left.stderr.splitlines()[-5:] == [
        "llm-edge batch: interrupted.",
        "batch_1 goes on by itself. To come back to it:",
        "  llm-edge batch status batch_1 --watch",
        "  llm-edge batch results batch_1 -o 'my answers.jsonl'",
        "  llm-edge batch cancel batch_1",
    ]
    told = document(edge("run", edge.input, "-o", edge.out, "--json"))
    assert (told["error"]["code"], told["batch_id"]) == ("interrupted", BATCH_ID)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "IN", "-o", "IN"], "is the input file itself"),
        (["run", "IN", "-o", "nowhere/out.jsonl"], "nowhere is no folder"),
        (["run", "IN", "-o", "FOLDER"], "is a folder"),
        (["run", "IN", "-o", "OUT", "--errors", "OUT"], "cannot take both"),
        (["run", "IN", "-o", "-", "--json"], "--json needs standard output"),
        (["run", "IN", "-o", "OUT", "--metadata", "novalue"], "write it as key=value"),
        (["run", "no-such-file", "-o", "OUT"], "no-such-file"),
        (["run", "IN"], "--output"),
        (["results", BATCH_ID], "Name a file with -o"),
        (["list", "--limit", "0"], "--limit"),
        (["--url", "localhost:8080", "list"], "is no URL of a server"),
    ],
)
def test_wrong_usage_sends_nothing(edge: Edge, server: Contract, words: list[str], message: str) -> None:
    names = {"IN": edge.input, "OUT": edge.out, "FOLDER": edge.folder}
    result = edge(*[names.get(word, word) for word in words])
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
    assert server.seen == []


def test_a_faulty_file_is_refused_like_a_batch_that_fails_validation(edge: Edge, server: Contract) -> None:
    edge.input.write_text("custom_id,prompt\n")
    result = edge("run", edge.input, "-o", edge.out)
    assert result.exit_code == 3
    assert "the first line is no request" in result.stderr
    assert server.seen == []


def test_a_server_that_is_not_there_is_exit_code_4(edge: Edge) -> None:
    edge.url = "http://127.0.0.1:1"
    result = edge("list")
    assert result.exit_code == 4
    assert result.stderr.startswith("llm-edge batch: Cannot reach http://127.0.0.1:1 (connection refused).")
    assert "Traceback" not in result.output


def test_a_refusal_is_one_message(edge: Edge, server: Contract) -> None:
    server.odd["POST /v1/files"] = [
        refusal(413, "Too many bytes; split it.", "file_too_large", x_request_id="req_7")
    ]
    result = edge("run", edge.input, "-o", edge.out)
    assert result.exit_code == 1
    assert result.stderr == (
        "llm-edge batch: The server refused: Too many bytes; split it"
        " (413 file_too_large, POST /v1/files, req_7).\n"
    )


def test_the_way_back_names_a_typed_url(edge: Edge, server: Contract) -> None:
    server.looks = [batch("in_progress", 3, 1)]
    typed = server.url
    edge.url = ""
    result = edge("--url", typed, "results", BATCH_ID, "-o", edge.out)
    assert f"`llm-edge batch --url {typed} status" in result.stderr
