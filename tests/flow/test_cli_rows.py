"""Rows, asked and joined, by real commands against a real stack; the simulator's log tells what was really called."""

import csv
import json
import os
import pty
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest
from openai import OpenAI
from support.edge import EDGE, Command, edge, running_edge
from support.stack import Stack, running_stack
from support.waiting import wait_for

Run = Callable[..., Command]
ASK = ("--prompt", "Summarise {text}", "--model", "test-model", "--max-tokens", "20")


@pytest.fixture
def run(stack: Stack, client: OpenAI, tmp_path: Path) -> Run:  # noqa: ARG001  the client resets the simulator
    return lambda *words: edge(tmp_path, "batch", "run", *words, env=stack.env)


def table(folder: Path, count: int, name: str = "rows.csv", first: int = 0) -> Path:
    path = folder / name
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows([n, f"row {n},\nwith a second line"] for n in range(first, first + count))
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def prompts(stack: Stack) -> Counter[str]:
    return Counter(call["prompt"] for call in stack.simulator.calls())


def asked(numbers: range) -> Counter[str]:
    return Counter(f"Summarise row {n},\nwith a second line" for n in numbers)


def document(command: Command) -> Any:
    assert command.wait() in {0, 1, 3}, command.err
    return json.loads(command.out)


def test_answers_are_joined_in_order_and_nothing_is_asked_twice(
    run: Run, stack: Stack, tmp_path: Path
) -> None:
    source, out = table(tmp_path, 120), tmp_path / "out.csv"
    first = run(source, "-o", out, *ASK)
    assert first.wait() == 0, first.err
    assert "user: Summarise row 0," in first.err  # the preview
    assert "cost     unknown: no list price is known for 'test-model'" in first.err
    rows = read(out)
    assert [row["id"] for row in rows] == [str(n) for n in range(120)]
    assert rows[7]["text"] == "row 7,\nwith a second line"
    assert all(row["answer"].startswith("[simulated]") and not row["error"] for row in rows)
    assert {row["provider"] for row in rows} == {"sim"}
    assert prompts(stack) == asked(range(120))
    before = out.read_bytes()
    again = run(source, "-o", out, *ASK, "--json")
    assert document(again)["sent"] == 0
    assert prompts(stack) == asked(range(120))
    assert out.read_bytes() == before


def test_a_limit_first_then_all_then_rows_that_came_later_in_another_order(
    run: Run, stack: Stack, tmp_path: Path
) -> None:
    source = table(tmp_path, 60)
    assert document(run(source, "-o", "out.csv", *ASK, "--limit", 20, "--json"))["sent"] == 20
    assert len(read(tmp_path / "out.csv")) == 20
    assert document(run(source, "-o", "out.csv", *ASK, "--json"))["sent"] == 40
    with source.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "id"])
        writer.writerows([f"row {n},\nwith a second line", n] for n in reversed(range(70)))
    assert document(run(source, "-o", "out.csv", *ASK, "--json"))["sent"] == 10
    assert prompts(stack) == asked(range(70))
    assert [row["id"] for row in read(tmp_path / "out.csv")] == [str(n) for n in reversed(range(70))]


def test_failures_stand_in_their_column_and_only_they_are_sent_again(
    run: Run, stack: Stack, tmp_path: Path
) -> None:
    stack.simulator.patch(rules=[{"match": "row 3,", "status": 400}])
    source = table(tmp_path, 10)
    failed = run(source, "-o", "out.csv", *ASK)
    assert failed.wait() == 1, failed.err
    assert "9 answered, 1 failed" in failed.out
    rows = read(tmp_path / "out.csv")
    assert [row["id"] for row in rows if row["error"]] == ["3"]
    assert not rows[3]["answer"]
    stack.simulator.patch(rules=[])
    assert document(run(source, "-o", "out.csv", *ASK, "--json"))["sent"] == 1
    assert not any(row["error"] for row in read(tmp_path / "out.csv"))
    assert prompts(stack) == asked(range(10)) + asked(range(3, 4))


def test_equal_rows_have_an_answer_each_and_empty_ones_are_not_asked(
    run: Run, stack: Stack, tmp_path: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    rows = [{"text": "same"}, {"text": None}, {"text": "same", "more": [1]}, {"text": " "}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = document(run(source, "-o", "out.jsonl", *ASK, "--json"))
    assert (ran["rows"], ran["answered"], ran["blank"], ran["sent"]) == (4, 2, 2, 2)
    assert prompts(stack) == Counter({"Summarise same": 2})
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["error"] is None for row in out] == [True, False, True, False]
    assert out[2]["more"] == [1]


def test_several_batches_one_after_the_other(run: Run, stack: Stack, client: OpenAI, tmp_path: Path) -> None:
    ran = document(run(table(tmp_path, 25), "-o", "out.csv", *ASK, "--batch-rows", 10, "--json"))
    assert (ran["sent"], len(ran["batches"])) == (25, 3)
    totals = [b.request_counts.total for b in client.batches.list(limit=3).data if b.request_counts]
    assert totals == [5, 10, 10]
    assert prompts(stack) == asked(range(25))


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_another_format_comes_out(run: Run, tmp_path: Path, ending: str) -> None:
    frame = pd.DataFrame({"id": [1, 2], "text": ["a", "b"], "when": [pd.Timestamp("2026-01-01"), pd.NaT]})
    frame.to_parquet(tmp_path / "rows.parquet")
    ran = run("rows.parquet", "-o", f"out.{ending}", *ASK)
    assert ran.wait() == 0, ran.err
    path = tmp_path / f"out.{ending}"
    back = pd.read_parquet(path) if ending == "parquet" else pd.read_json(path, lines=True)
    assert list(back["id"]) == [1, 2]
    assert back["answer"].str.startswith("[simulated]").all()
    if ending == "parquet":
        pd.testing.assert_frame_equal(back[["id", "text", "when"]], frame)


def test_csv_becomes_parquet(run: Run, tmp_path: Path) -> None:
    assert run(table(tmp_path, 30), "-o", "out.parquet", *ASK).wait() == 0
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert list(frame["id"]) == [str(n) for n in range(30)]
    assert frame["input_tokens"].dtype == "int64"
    assert frame["cost_usd"].gt(0).all()


@pytest.mark.parametrize(("said", "code", "sent"), [("n", 1, 0), ("y", 0, 3)])
def test_a_terminal_is_shown_the_first_request_and_asked(
    stack: Stack, client: OpenAI, tmp_path: Path, said: str, code: int, sent: int
) -> None:
    del client
    table(tmp_path, 3)
    ours, theirs = pty.openpty()
    command = [*EDGE, "batch", "run", "rows.csv", "-o", "out.csv", *ASK[:2], "--model", "gpt-4o-mini"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**stack.env, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        try:
            shown = seen(ours, "Send 3 requests")
            assert "cost     about $0.00" in shown
            assert "OpenAI's gpt-4o-mini" in shown
            assert prompts(stack) == Counter()
            os.write(ours, f"{said}\n".encode())
            seen(ours, "nothing was sent" if not sent else "3 answered")
            assert process.wait(30) == code
        finally:
            process.kill()
            os.close(ours)
    assert sum(prompts(stack).values()) == sent


def seen(terminal: int, words: str) -> str:
    """What a terminal shows, up to these words."""
    shown = ""
    while words not in shown:
        shown += os.read(terminal, 65536).decode(errors="replace")  # ends with the process, by an OSError
    return shown


def test_a_killed_command_asks_for_each_row_once(stack: Stack, client: OpenAI, tmp_path: Path) -> None:
    """Wherever the kill falls: before the upload, between upload and creation, or while the batch runs."""
    stack.simulator.patch(latency_s=0.2)
    source = table(tmp_path, 300)
    words = ("batch", "run", source, "-o", "out.csv", *ASK, "--batch-rows", "150")
    before = len(client.batches.list(limit=100).data)

    def more_than(n: int) -> bool:
        return len(client.batches.list(limit=100).data) > before + n

    for n in range(2):
        with running_edge(tmp_path, *words, env=stack.env) as running:
            wait_for(partial(more_than, n), 30, "a batch")
            running.process.send_signal(signal.SIGKILL)
            running.wait()
    ended = edge(tmp_path, *words, env=stack.env)
    assert ended.wait() == 0, ended.err
    assert prompts(stack) == asked(range(300))
    assert len(read(tmp_path / "out.csv")) == 300
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_ctrl_c_then_partial_then_the_same_command(stack: Stack, client: OpenAI, tmp_path: Path) -> None:
    del client
    stack.simulator.patch(latency_s=0.5)
    words = ("batch", "run", table(tmp_path, 400), "-o", "out.csv", *ASK, "--batch-rows", "200")
    with running_edge(tmp_path, *words, env=stack.env) as running:
        running.wait_said("(2 of 2)", 60)
        stack.simulator.patch(latency_s=8.0)  # the second batch is not done before it is looked at
        running.wait_said("in_progress")
        running.process.send_signal(signal.SIGINT)
        assert running.wait(10) == 130
    assert "Run the same command again" in running.err
    assert not (tmp_path / "out.csv").exists()
    partial = edge(tmp_path, *words, "--partial", env=stack.env)
    assert "200 answered" in partial.out, partial.err
    assert edge(tmp_path, *words, env=stack.env).wait() == 0
    assert prompts(stack) == asked(range(400))


def test_a_server_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    with running_stack("--latency-s", "0.3") as stack:
        words = ("batch", "run", table(tmp_path, 600), "-o", "out.csv", *ASK)
        with running_edge(tmp_path, *words, env=stack.env) as running:
            running.wait_said("in_progress")
            stack.kill_api()
            running.wait_said("Still waiting")
            running.process.send_signal(signal.SIGKILL)
            running.wait()
        away = edge(tmp_path, *words, env=stack.env)
        assert away.wait() == 4
        assert "Run the same command again" in away.err
        stack.start_api()
        assert edge(tmp_path, *words, env=stack.env).wait() == 0
        assert prompts(stack) == asked(range(600))


def test_a_batch_that_was_cancelled_stops_the_run_and_the_next_goes_on(
    stack: Stack, client: OpenAI, tmp_path: Path
) -> None:
    stack.simulator.patch(latency_s=1)
    words = ("batch", "run", table(tmp_path, 1000), "-o", "out.csv", *ASK, "--batch-rows", "600")
    with running_edge(tmp_path, *words, env=stack.env) as running:
        running.wait_said("in_progress")
        client.batches.cancel(client.batches.list(limit=1).data[0].id)
        assert running.wait() == 3, running.err
    rows = read(tmp_path / "out.csv")
    assert any(row["error"].startswith("batch_cancelled") for row in rows[:600])
    assert {row["error"] for row in rows[600:]} == {"not run yet"}
    stack.simulator.patch(latency_s=0)
    assert edge(tmp_path, *words, env=stack.env).wait() == 0
    assert all(row["answer"] for row in read(tmp_path / "out.csv"))


@pytest.mark.verify
def test_killed_at_random_moments_each_row_is_asked_once(tmp_path: Path) -> None:
    random = Random(7)
    words = ("batch", "run", table(tmp_path, 3000), "-o", "out.csv", *ASK, "--batch-rows", "100")
    with running_stack("--latency-s", "0.02") as stack:
        for _ in range(12):
            with (
                running_edge(tmp_path, *words, env=stack.env) as running,
                suppress(subprocess.TimeoutExpired),
            ):
                running.wait(random.uniform(0.4, 2.0))  # then comes kill -9, by the end of this block
        ended = edge(tmp_path, *words, env=stack.env, timeout_s=120)
        assert ended.wait() == 0, ended.err
        assert prompts(stack) == asked(range(3000))
    assert len(read(tmp_path / "out.csv")) == 3000
