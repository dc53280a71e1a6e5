"""The examples as their headers say: run as scripts, against a running stack."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from openai import OpenAI
from support.batches import jsonl, lines
from support.stack import Stack

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROMPTS = [f"Say {n}." for n in range(40)]


def example(stack: Stack, folder: Path, name: str, *words: str) -> "subprocess.CompletedProcess[str]":
    env = {**stack.env, "MODEL": "test-model"}
    command = [sys.executable, str(EXAMPLES / name), *words]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_every_example_is_tried_and_says_how_to_run_it() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {"batch.py", "async_many.py", "async_polling.py", "dataframe.py"}
    for name in names:
        assert f"python examples/{name} " in (EXAMPLES / name).read_text()


@pytest.mark.usefixtures("client")
def test_batch(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(jsonl(lines(20)))
    ran = example(stack, tmp_path, "batch.py", "in.jsonl", "out.jsonl")
    assert ran.returncode == 0, ran.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 20


@pytest.mark.parametrize("name", ["async_many.py", "async_polling.py"])
def test_many_at_once(stack: Stack, client: OpenAI, tmp_path: Path, name: str) -> None:
    del client
    stack.simulator.patch(latency_s=0.05)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    ran = example(stack, tmp_path, name, "prompts.txt")
    assert ran.returncode == 0, ran.stderr
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [answer["prompt"] for answer in answers] == PROMPTS
    assert all(answer["answer"].startswith("[simulated]") for answer in answers)
    assert stack.simulator.stats()["default"]["max_in_flight"] > 4


def test_many_at_once_tells_what_failed(stack: Stack, client: OpenAI, tmp_path: Path) -> None:
    del client
    stack.simulator.patch(rules=[{"match": "^Say 3", "status": 400}])
    (tmp_path / "prompts.txt").write_text("Say 1.\nSay 3.")
    for name in ("async_many.py", "async_polling.py"):
        ran = example(stack, tmp_path, name, "prompts.txt")
        assert ran.returncode == 1, ran.stderr
        assert [json.loads(line)["answer"] is None for line in ran.stdout.splitlines()] == [False, True]


def test_dataframe(stack: Stack, client: OpenAI, tmp_path: Path) -> None:
    del client
    stack.simulator.patch(rules=[{"match": "poison", "status": 400}])
    pd.DataFrame({"text": ["one", "poison", "three"], "n": [1, 2, 3]}).to_csv(
        tmp_path / "in.csv", index=False
    )
    ran = example(stack, tmp_path, "dataframe.py", "in.csv", "out.csv")
    assert ran.returncode == 1, ran.stderr
    frame = pd.read_csv(tmp_path / "out.csv")
    assert list(frame["n"]) == [1, 2, 3]
    assert list(frame["answer"].isna()) == list(frame["error"].notna()) == [False, True, False]
