"""The command line against a real stack: every way in which a batch can end, interruptions, a server that goes away."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from support.batches import jsonl, line, lines, outcomes, submit, wait_for_end
from support.edge import Command, edge, running_edge
from support.stack import Stack, running_stack

Run = Callable[..., Command]


@pytest.fixture
def run(stack: Stack, client: OpenAI, tmp_path: Path) -> Run:  # noqa: ARG001  the client resets the simulator
    return lambda *words: edge(tmp_path, *words, env=stack.env)


def written(folder: Path, rows: list[dict[str, Any]] | bytes) -> Path:
    path = folder / "in.jsonl"
    path.write_bytes(rows if isinstance(rows, bytes) else jsonl(rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in path.read_bytes().splitlines()]


def test_run_from_file_to_file(run: Run, tmp_path: Path) -> None:
    source, out = written(tmp_path, lines(200)), tmp_path / "out.jsonl"
    ran = run("batch", "run", source, "-o", out, "--metadata", "team=evals")
    assert ran.wait() == 0, ran.err
    assert [row["custom_id"] for row in read(out)] == [f"job-{n}" for n in range(200)]
    assert "completed" in ran.out
    assert "200 of 200 jobs done" in ran.out
    assert "sim: 200 completed" in ran.out
    listed = json.loads(run("batch", "list", "--limit", "1", "--json").out)
    assert listed["data"][0]["metadata"] == {"team": "evals"}


def test_failed_jobs_are_exit_code_1_and_in_a_file_of_their_own(
    run: Run, stack: Stack, tmp_path: Path
) -> None:
    stack.simulator.patch(rules=[{"match": "^poison", "status": 400}])
    source = written(tmp_path, [*lines(20), line("bad", "poison")])
    ran = run("batch", "run", source, "-o", "out.jsonl", "--json")
    assert ran.wait() == 1, ran.err
    document = json.loads(ran.out)
    assert document["batch"]["request_counts"] == {"total": 21, "completed": 20, "failed": 1}
    assert (document["output"], document["errors"]) == ("out.jsonl", "out.errors.jsonl")
    assert len(read(tmp_path / "out.jsonl")) == 20
    assert [row["custom_id"] for row in read(tmp_path / "out.errors.jsonl")] == ["bad"]


def test_faulty_lines_are_exit_code_3_and_named(run: Run, tmp_path: Path) -> None:
    source = written(tmp_path, jsonl(lines(2)) + b"{no json\n" + jsonl(lines(1)))
    ran = run("batch", "run", source, "-o", "out.jsonl")
    assert ran.wait() == 3
    assert "line 3: The line is not a JSON object" in ran.out
    assert "line 4: custom_id 'job-0' stands on an earlier line" in ran.out
    assert not (tmp_path / "out.jsonl").exists()


def test_refusals_tell_what_to_do(run: Run, tmp_path: Path) -> None:
    source = written(tmp_path, lines(1))
    ran = run("batch", "submit", source, "--window", "1y")
    assert ran.wait() == 1
    assert "'completion_window'" in ran.err
    assert "400 invalid_value, POST /v1/batches, req_" in ran.err
    missing = run("batch", "status", "batch_none")
    assert missing.wait() == 1
    assert "No batch found with id 'batch_none' (404 batch_not_found" in missing.err
    assert "Traceback" not in ran.err + missing.err


def test_cancel_and_what_was_finished(run: Run, stack: Stack, tmp_path: Path) -> None:
    stack.simulator.patch(latency_s=0.5)
    source = written(tmp_path, lines(3000))
    batch_id = run("batch", "submit", source).out.strip()
    assert run("batch", "cancel", batch_id).wait() == 0
    watched = run("batch", "status", batch_id, "--watch")
    assert watched.wait() == 3, watched.err
    assert "cancelled" in watched.out
    fetched = run("batch", "results", batch_id, "-o", "out.jsonl")
    assert fetched.wait() == 3
    rows = read(tmp_path / "out.jsonl") + read(tmp_path / "out.errors.jsonl")
    assert len({row["custom_id"] for row in rows}) == len(rows) == 3000
    again = run("batch", "results", batch_id, "-o", "-")
    assert again.out == (tmp_path / "out.jsonl").read_text()


def test_ctrl_c_leaves_the_batch_running(run: Run, stack: Stack, client: OpenAI, tmp_path: Path) -> None:
    stack.simulator.patch(latency_s=0.3)
    source = written(tmp_path, lines(1000))
    with running_edge(tmp_path, "batch", "run", source, "-o", "out.jsonl", env=stack.env) as running:
        running.wait_said("in_progress")
        running.process.send_signal(signal.SIGINT)
        assert running.wait(10) == 130
    batch_id = client.batches.list(limit=1).data[0].id
    assert f"llm-edge batch results {batch_id} -o out.jsonl" in running.err
    assert "Traceback" not in running.err
    early = run("batch", "results", batch_id, "-o", "out.jsonl")
    assert early.wait() == 1
    assert "has not ended yet" in early.err
    assert run("batch", "status", batch_id, "--watch").wait() == 0
    assert run("batch", "results", batch_id, "-o", "out.jsonl").wait() == 0
    assert len(read(tmp_path / "out.jsonl")) == 1000


def test_a_server_that_goes_away_and_comes_back(stack: Stack, client: OpenAI, tmp_path: Path) -> None:
    stack.simulator.patch(latency_s=0.3)
    source = written(tmp_path, lines(2000))
    with running_edge(tmp_path, "batch", "run", source, "-o", "out.jsonl", env=stack.env) as running:
        running.wait_said("in_progress")
        stack.kill_api()
        running.wait_said("Still waiting")
        stack.start_api()
        running.wait_said("The server answers again")
        assert running.wait(60) == 0, running.err
    assert running.err.count("Still waiting") == 1
    assert len(read(tmp_path / "out.jsonl")) == 2000
    batch = client.batches.list(limit=1).data[0]
    assert len(outcomes(client, wait_for_end(client, batch.id))) == 2000


def test_ids_of_the_sdk_and_of_the_command_line_are_the_same(
    run: Run, client: OpenAI, tmp_path: Path
) -> None:
    ended = wait_for_end(client, submit(client, lines(5)).id)
    assert run("batch", "results", ended.id, "-o", "out.jsonl").wait() == 0
    assert len(read(tmp_path / "out.jsonl")) == 5


def test_a_file_that_is_too_large_is_refused_while_it_is_sent(tmp_path: Path) -> None:
    with running_stack(workers=0, LLM_EDGE_MAX_FILE_BYTES="1000000") as stack:
        source = tmp_path / "in.jsonl"
        with source.open("wb") as file:
            file.write(jsonl(lines(1)))
            file.truncate(100 * 1024 * 1024)
        ran = edge(tmp_path, "batch", "run", source, "-o", "out.jsonl", env=stack.env)
        assert ran.wait() == 1, ran.err
        assert "The file has more than 1,000,000 bytes; split it into several (413 file_too_large" in ran.err


def test_a_pool_that_cannot_work_is_refused_with_the_right_command(tmp_path: Path) -> None:
    told = edge(tmp_path, "worker", "--pool", "prefork")
    assert told.wait() == 2
    assert "llm-edge worker --pool gevent" in told.err


def test_simulate_passes_everything_on(tmp_path: Path) -> None:
    told = edge(tmp_path, "simulate", "--help")
    assert told.wait() == 0
    assert "--persona" in told.out
    wrong = edge(tmp_path, "simulate", "--no-such-option")
    assert wrong.wait() == 2
