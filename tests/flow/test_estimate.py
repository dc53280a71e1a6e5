"""`llm-edge batch estimate` against what the batch then takes: before anything is learned, and after a first batch.

The simulated providers count prompts as a real tokenizer did (support.counted_corpus); how long answers are they draw themselves.
"""

import json
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from support.counted_corpus import FILE, counted_requests
from support.edge import edge
from support.stack import Stack, running_stack

from shared.tokens import PER_CHAT, PER_MESSAGE

pytestmark = pytest.mark.verify
FIRST, JOBS = 150, 300
SHORT, LONG = 25, 45
"""Mean tokens of the two providers' answers; `max_tokens` is 60."""


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")


@pytest.fixture
def stack() -> Iterator[Stack]:
    personas = (f"--persona={name}:completion_tokens={n}" for name, n in (("short", SHORT), ("long", LONG)))
    with running_stack(*personas, f"--token-counts={FILE}", workers=0) as stack:
        names, models = ("short", "long"), ("gpt-4o-mini", "gpt-4o")
        prices = {model: {"input": 0.00015, "output": 0.0006} for model in models}
        common = {"models": dict(zip(models, models, strict=True)), "prices": prices, "limits": {"rpm": 6000}}
        stack.kill_api()
        stack.configure([{"id": n, "endpoint": stack.simulator.base_url_of(n), **common} for n in names])
        stack.start_api()
        for _ in range(2):
            stack.start_worker()
        yield stack


class Batches:
    """What the command says of a file, and what the file's batch takes."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def write(self, name: str, lines: list[dict[str, Any]]) -> Path:
        path = self._stack.folder / f"{name}.jsonl"
        path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        return path

    def estimate(self, file: Path, **env: str) -> tuple[dict[str, Any], str]:
        """As a document, and as people see it."""
        words, known = ("batch", "estimate", file), {**self._stack.env, **env}
        said = []
        for more in ((), ("--json",)):
            ran = edge(self._stack.folder, *words, *more, env=known)
            assert ran.process.returncode == 0, ran.err
            said.append(ran.out)
        return json.loads(said[1]), said[0]

    def run(self, file: Path) -> dict[str, Any]:
        out = self._stack.folder / f"{file.stem}.out"
        ran = edge(self._stack.folder, "batch", "run", file, "-o", out, "--json", env=self._stack.env)
        assert ran.process.returncode == 0, ran.err
        batch = json.loads(ran.out)["batch"]
        assert isinstance(batch, dict)
        return batch


def test_an_estimate_is_met_before_and_better_after_learning(stack: Stack) -> None:
    counted, batches = counted_requests(FIRST + JOBS), Batches(stack)
    first = batches.write("first", [line for line, _ in counted[:FIRST]])
    file = batches.write("jobs", [line for line, _ in counted[FIRST:]])
    before, before_shown = batches.estimate(file)
    alone, _ = batches.estimate(file, LLM_EDGE_URL="http://127.0.0.1:1")
    batches.run(first)
    after, after_shown = batches.estimate(file)
    stack.simulator.reset()
    real = batches.run(file)
    usage, witness = real["usage"], stack.simulator.stats()

    # what is compared with: the batch's own word, the simulator's, and the tokenizer's
    by_tokenizer = sum(tokens + PER_MESSAGE + PER_CHAT for _, tokens in counted[FIRST:])
    assert usage["input_tokens"] == by_tokenizer == sum(p["prompt_tokens"] for p in witness.values())
    assert usage["output_tokens"] == sum(p["completion_tokens"] for p in witness.values())

    for name, document, shown in (("before", before, before_shown), ("after", after, after_shown)):
        say(f"\n{name} learning, of {JOBS} jobs:\n{shown}")
        say("\n".join(compared(document, real)))
    took_s = real["completed_at"] - real["in_progress_at"]
    say(f"the batch took {took_s} s, whole seconds; at its limits it was to take {after['time_s']:.1f} s")

    assert before["input_tokens"] == pytest.approx(usage["input_tokens"], rel=0.15)
    assert (before["guessed_requests"], after["guessed_requests"]) == (JOBS, 0)
    assert before["output_tokens"] == before["most_output_tokens"] >= usage["output_tokens"]
    assert "out (a guess)" in before_shown
    assert "has had no answers to go by" in before_shown
    assert {name: alone[name] for name in ("input_tokens", "output_tokens", "providers")} == {
        name: before[name] for name in ("input_tokens", "output_tokens", "providers")
    }
    assert "(a guess)" not in after_shown
    assert f"answers at {stack.url}" in after_shown
    for what in ("input_tokens", "output_tokens"):
        assert after[what] == pytest.approx(usage[what], rel=0.15)
    for estimated, cost in costs(after, real):
        assert estimated == pytest.approx(cost, rel=0.15)
    assert_shown_by_the_api(stack)


def test_where_max_tokens_ends_the_answers_nothing_need_be_learned_and_models_are_told_apart(
    stack: Stack,
) -> None:
    batches = Batches(stack)
    counted = counted_requests(FIRST)
    stack.simulator.patch("*", completion_tokens=200)
    batches.run(batches.write("others", [line for line, _ in counted]))
    for line, _ in counted:
        line["body"]["model"] = "gpt-4o"
    file = batches.write("jobs", [line for line, _ in counted])
    before, _ = batches.estimate(file)
    usage = batches.run(file)["usage"]
    assert before["guessed_requests"] == FIRST
    assert before["learned"]["models"] == {}
    for what in ("input_tokens", "output_tokens"):
        say(
            f"{what}: estimated {before[what]:,}, real {usage[what]:,}: {before[what] / usage[what] - 1:+.1%}"
        )
        assert before[what] == pytest.approx(usage[what], rel=0.15)


def costs(document: dict[str, Any], real: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """By provider: what all jobs would cost there, and what those that it had did, taken up to all."""
    served = {share["id"]: share for share in real["providers"]}
    for estimated in document["providers"]:
        share = served[estimated["id"]]
        whole = Decimal(share["cost_usd"]) * JOBS / share["completed"]
        yield float(estimated["cost_usd"]), float(whole)


def compared(document: dict[str, Any], real: dict[str, Any]) -> Iterator[str]:
    for what in ("input_tokens", "output_tokens"):
        estimated, usage = document[what], real["usage"][what]
        yield f"{what}: estimated {estimated:,}, real {usage:,}: {estimated / usage - 1:+.1%}"
    for share, (estimated, cost) in zip(document["providers"], costs(document, real), strict=True):
        yield f"cost at {share['id']}: estimated ${estimated:.5f}, real ${cost:.5f}: {estimated / cost - 1:+.1%}"


def assert_shown_by_the_api(stack: Stack) -> None:
    """The two providers, each with its own answers' length."""
    providers = requests.get(f"{stack.base_url}/providers", timeout=5).json()["data"]
    tokens = {each["id"]: each["tokens"] for each in providers}
    say(f"GET /v1/providers: {tokens}")
    for name, mean in (("short", SHORT), ("long", LONG)):
        (entry,) = tokens[name]
        assert entry["model"] == "gpt-4o-mini"
        assert entry["ratio"] == pytest.approx(0.96, abs=0.06)
        assert entry["output_tokens"] == pytest.approx(mean, rel=0.15)
