"""The providers file changes, and providers are drained, while a fleet works: the simulator sees whom it calls, and when."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from support.batches import lines, outcomes, submit, wait_for_end
from support.stack import Stack, running_stack
from support.waiting import wait_for

from shared.fleet_file import version_of

pytestmark = pytest.mark.alone

WITHIN_S = 2.0
"""A change is in force everywhere after so long."""

WORKERS = 2
BREAKER = {"reset_timeout_s": 0.5}


def provider(stack: Stack, name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "endpoint": stack.simulator.base_url_of(name), **more}


def as_yaml(providers: list[dict[str, Any]]) -> str:
    return yaml.safe_dump({"providers": providers, "breaker": BREAKER})


def as_toml(providers: list[dict[str, Any]]) -> str:
    def table(each: dict[str, Any]) -> str:
        return "[[providers]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in each.items())

    return "\n".join(["[breaker]\nreset_timeout_s = 0.5\n", *map(table, providers)])


def page(stack: Stack) -> Any:
    answer = requests.get(f"{stack.base_url}/providers", timeout=5)
    answer.raise_for_status()
    return answer.json()


def states(stack: Stack) -> list[tuple[str, str | None]]:
    """Version and fault, of each process."""
    return [(each["version"], each["fault"]) for each in page(stack)["config"]]


def in_force(stack: Stack) -> bool:
    """Whether what lies there is what every process goes by."""
    return states(stack) == [(version_of(stack.config.read_bytes()), None)] * (1 + WORKERS)


def write(stack: Stack, text: str) -> float:
    """As a careful editor does; when that was."""
    fresh = stack.config.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(stack.config)
    return time.time()


def called(stack: Stack, name: str) -> list[float]:
    """When the provider's calls came in."""
    return [call["received_at"] for call in stack.simulator.calls() if call["persona"] == name]


def last_called_after(stack: Stack, name: str, since: float) -> float:
    return max([at - since for at in called(stack, name)], default=0.0)


def all_answered_once(stack: Stack, batch_id: str, count: int) -> None:
    ended = wait_for_end(stack.client, batch_id, 60)
    found = outcomes(stack.client, ended)
    assert len(found) == count
    assert {row["response"]["status_code"] for row in found.values()} == {200}
    assert len(stack.simulator.calls()) == count, "a call was made in vain"


def command(stack: Stack) -> str:
    argv = [sys.executable, "-m", "api.cli.main", "providers"]
    env = {**stack.env, "COLUMNS": "400"}
    found = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=True)
    return found.stdout


@contextmanager
def fleet(file: Path, *simulator: str) -> Iterator[Stack]:
    """A stack on that file, which at first names a provider that is not there."""
    first = [{"id": "first", "endpoint": "http://127.0.0.1:1/v1"}]
    file.write_text((as_toml if file.suffix == ".toml" else as_yaml)(first))
    with running_stack(
        *simulator, workers=WORKERS, LLM_EDGE_CONFIG=str(file), LLM_EDGE_CONCURRENCY="8"
    ) as stack:
        stack.config = file
        yield stack


@pytest.mark.parametrize(
    ("name", "written"),
    [("fleet.yaml", as_yaml), pytest.param("fleet.toml", as_toml, marks=pytest.mark.verify)],
)
def test_a_provider_is_added_and_another_disabled_while_a_batch_runs(
    tmp_path: Path, name: str, written: Callable[[list[dict[str, Any]]], str]
) -> None:
    with fleet(tmp_path / name, "--latency-s", "0.05") as stack:
        one, two = provider(stack, "one"), provider(stack, "two")
        write(stack, written([one]))
        wait_for(lambda: in_force(stack), WITHIN_S + 1, "the first file, everywhere")
        batch = submit(stack.client, lines(1500))
        wait_for(lambda: len(called(stack, "one")) > 100, 20, "the batch to run")
        added = write(stack, written([one, two]))
        wait_for(lambda: called(stack, "two"), WITHIN_S + 1, "the second provider's first call")
        first = min(called(stack, "two")) - added
        wait_for(lambda: in_force(stack), WITHIN_S, "the second file, everywhere")
        assert "in all 3 processes" in command(stack)
        off = write(stack, written([{**one, "enabled": False}, two]))
        all_answered_once(stack, batch.id, 1500)
        last = last_called_after(stack, "one", off)
        sys.stdout.write(f"first call {first:.2f} s after it was added; last {last:.2f} s after it was off\n")
        assert first <= WITHIN_S
        assert last <= WITHIN_S
        assert last_called_after(stack, "two", off) > 0.5, "the batch had ended before"
        assert [(p["id"], p["enabled"]) for p in page(stack)["data"]] == [("one", False), ("two", True)]


@pytest.mark.parametrize(
    ("name", "written", "broken"),
    [
        ("fleet.yaml", as_yaml, "providers: ["),
        pytest.param("fleet.toml", as_toml, "[[providers", marks=pytest.mark.verify),
    ],
)
def test_what_is_broken_or_half_written_is_refused_told_once_and_taken_when_it_is_whole(
    tmp_path: Path, name: str, written: Callable[[list[dict[str, Any]]], str], broken: str
) -> None:
    with fleet(tmp_path / name, "--latency-s", "0.05") as stack:
        good = written([provider(stack, "one")])
        write(stack, good)
        wait_for(lambda: in_force(stack), WITHIN_S + 1, "the first file, everywhere")
        batch = submit(stack.client, lines(1500))
        wait_for(lambda: len(called(stack, "one")) > 100, 20, "the batch to run")

        def refused() -> bool:
            found = states(stack)
            return len(found) == 1 + WORKERS and all(v == version and fault for v, fault in found)

        version = version_of(good.encode())
        write(stack, broken)
        wait_for(refused, WITHIN_S + 1, "the broken file to be refused everywhere")
        shown = command(stack)
        assert shown.count(f"providers file {version}") == 1 + WORKERS
        assert shown.count("what lies there now is refused") == 1 + WORKERS

        write(stack, good)
        wait_for(lambda: in_force(stack), WITHIN_S + 1, "the good file, everywhere")
        whole = written([provider(stack, "one"), provider(stack, "two")])
        cut = whole.rindex("http") + 3
        with stack.config.open("w") as out:
            out.write(whole[:cut])
            out.flush()
            wait_for(refused, WITHIN_S + 1, "the half-written file to be refused everywhere")
            out.write(whole[cut:])
        at = time.time()
        wait_for(lambda: called(stack, "two"), WITHIN_S + 1, "the second provider's first call")
        assert min(called(stack, "two")) - at <= WITHIN_S
        all_answered_once(stack, batch.id, 1500)
        assert in_force(stack)
        logs = [(stack.folder / f"{part}.log").read_text() for part in ("api", "worker-1", "worker-2")]
        assert [log.count('"event":"providers_file_refused"') for log in logs] == [2, 2, 2]


@pytest.mark.parametrize("action", ["drain", pytest.param("disable", marks=pytest.mark.verify)])
def test_what_is_drained_or_disabled_gets_no_new_call_and_loses_none(tmp_path: Path, action: str) -> None:
    with fleet(tmp_path / "fleet.yaml", "--latency-s", "0.02", "--persona", "one:latency_s=0.8") as stack:
        write(stack, as_yaml([provider(stack, "one"), provider(stack, "two")]))
        wait_for(lambda: in_force(stack), WITHIN_S + 1, "the file, everywhere")

        def change(name: str, what: str) -> Any:
            answer = requests.post(f"{stack.base_url}/providers/{name}/{what}", timeout=5)
            answer.raise_for_status()
            return answer.json()

        def under_way() -> int:
            return int(stack.simulator.stats()["one"]["in_flight"])

        batch = submit(stack.client, lines(300))
        wait_for(lambda: called(stack, "one") and under_way() > 3, 20, "the batch to run")
        told = change("one", action)
        off = time.time()
        assert (told["enabled"], told["drain"]) == (False, "draining" if action == "drain" else None)
        if action == "drain":
            seen = []

            def drained() -> bool:
                seen.append((page(stack)["data"][0]["drain"], under_way()))
                return bool(seen[-1][0] == "drained")

            wait_for(drained, 10, "the provider to be drained")
            sys.stdout.write(f"drained {time.time() - off:.2f} s after\n")
            assert seen[0][0] == "draining"
            assert seen[-1][1] == 0, "it was said to be drained with calls under way"
        all_answered_once(stack, batch.id, 300)
        last = last_called_after(stack, "one", off)
        sys.stdout.write(f"last call {last:.2f} s after\n")
        assert last <= WITHIN_S

        change("two", action)
        waits = submit(stack.client, lines(20, "later"))
        explain = f"{stack.base_url}/batches/{waits.id}/explain"
        wait_for(
            lambda: {w["reason"] for w in requests.get(explain, timeout=5).json()["waiting"]} == {"disabled"},
            10,
            "the reason",
        )
        assert change("one", "enable")["drain"] is None
        ended = wait_for_end(stack.client, waits.id, 20)
        assert len(outcomes(stack.client, ended)) == 20
        assert len(called(stack, "one")) > 0


@pytest.mark.verify
def test_what_waits_for_a_model_that_nobody_serves_runs_soon_after_somebody_does(tmp_path: Path) -> None:
    with fleet(tmp_path / "fleet.yaml", "--latency-s", "0.05") as stack:
        write(stack, as_yaml([provider(stack, "one")]))
        wait_for(lambda: in_force(stack), WITHIN_S + 1, "the first file, everywhere")
        batch = submit(stack.client, lines(800))
        wait_for(lambda: len(called(stack, "one")) > 100, 20, "the batch to run")
        gone = write(stack, as_yaml([provider(stack, "two", models={"other": "other"})]))
        explain = f"{stack.base_url}/batches/{batch.id}/explain"

        def waiting() -> bool:
            told = requests.get(explain, timeout=5).json()
            reasons = {(w["reason"], w["provider"]) for w in told["waiting"]}
            return reasons == {("no_provider_for_model", None)} and told["running"] + told["queued"] == 0

        wait_for(waiting, 15, "all that is left to wait")
        assert last_called_after(stack, "one", gone) <= WITHIN_S
        there = write(stack, as_yaml([provider(stack, "three")]))
        wait_for(lambda: called(stack, "three"), 10, "the new provider's first call")
        all_answered_once(stack, batch.id, 800)
        sys.stdout.write(f"first call {min(called(stack, 'three')) - there:.2f} s after it was there\n")
        assert min(called(stack, "three")) - there <= 2 * WITHIN_S
