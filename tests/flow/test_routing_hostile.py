"""`routing` as somebody with bad intentions, or a bug, would send it: no 500, no lost job, no worker that stops."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support.batches import CHAT, line, lines, outcomes, submit, upload, wait_for_end
from support.stack import Stack, running_stack

OWN = """
import itertools, sys, time

def raises(job, providers, views, now):
    raise RuntimeError(job)

def exits(job, providers, views, now):
    sys.exit(3)

def nothing(job, providers, views, now):
    return None

def nonsense(job, providers, views, now):
    return [1, None, job]

def strangers(job, providers, views, now):
    class Stranger:
        id = ["not", "a", "name"]
    return [Stranger(), Stranger()]

def endless(job, providers, views, now):
    return itertools.repeat(providers[0])

def meddles(job, providers, views, now):
    views.clear()
    return list(providers)[:1]

def slow(job, providers, views, now):
    time.sleep(1.1)
    return list(providers)
"""
STRATEGIES = re.findall(r"def (\w+)", OWN)
LONG = "x" * 100_000
VALUES: list[Any] = [
    [],
    5,
    "failover",
    True,
    {"strategy": 5},
    {"strategy": []},
    {"strategy": ""},
    {"strategy": "os.system"},
    {"strategy": "hostile:raises"},
    {"strategy": "../../etc/passwd"},
    {"strategy": LONG},
    {"strategy": "failover\x00"},
    {"strategy": "\ud800"},
    {"strategy": "\u202egnp.exe \x1b[31m"},
    {"providers": []},
    {"providers": "a"},
    {"providers": {"a": 1}},
    {"providers": [1]},
    {"providers": [None]},
    {"providers": ["nobody", LONG]},
    {"providers": ["a"] * 101},
    {"providers": ["__proto__", "%s%n{0}"]},
    {"models": []},
    {"models": ["nobodys"]},
    {"models": ["m"] * 101},
    {"models": [["m"]]},
    {"models": ["m", "\ud800"]},
    {"strategi": "failover"},
    {LONG: "failover"},
    {"strategy": "failover", "providers": ["c"]},
]
"""Each is a fault: wrong types, nothing, names that are not there."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("own")
    (folder / "hostile.py").write_text(OWN)
    with running_stack(workers=0, part_env={"worker": {"PYTHONPATH": _path(folder)}}) as running:
        rows = [{"id": name, "endpoint": running.simulator.base_url, "models": {"m": "m"}} for name in "ab"]
        rows.append({"id": "c", "endpoint": running.simulator.base_url, "models": {"other": "o"}})
        own = {name: f"hostile:{name}" for name in STRATEGIES}
        running.kill_api()
        running.configure(rows, routing={"strategy": "round_robin", "strategies": own})
        running.start_api()
        running.start_worker()
        yield running


def _path(folder: Path) -> str:
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


CODES = {"invalid_routing", "invalid_request", "invalid_json", "invalid_value", "unknown_parameter"}


def refused(answer: requests.Response, value: Any) -> None:
    assert answer.status_code == 400, (answer.status_code, answer.text[:300], str(value)[:100])
    error = answer.json()["error"]
    assert error["code"] in CODES, (error, str(value)[:100])
    assert len(error["message"]) < 1000
    assert not {"Traceback", "RoutingWish"} & set(re.findall(r"\w+", error["message"]))


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_a_request_with_wrong_routing_is_a_400_that_says_what_is_wrong(stack: Stack, path: str) -> None:
    content = {"messages": [{"role": "user", "content": "x"}]} if path.startswith("chat") else {"prompt": "x"}
    for value in VALUES:
        body = json.dumps({"model": "m", **content, "routing": value})
        refused(requests.post(f"{stack.base_url}/{path}", data=body, timeout=10), value)
    assert stack.simulator.calls() == []


def test_a_batch_with_wrong_routing_is_a_400_and_makes_nothing(stack: Stack) -> None:
    file_id = upload(stack.client, json.dumps(line("one", "x", model="m")).encode())
    for value in [*VALUES, {"providers": ["a"], "models": ["other"], "strategy": None, "more": None}]:
        if value == {"strategy": "failover", "providers": ["c"]}:
            continue  # of some of its lines this may be true
        asked = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", "routing": value}
        refused(requests.post(f"{stack.base_url}/batches", data=json.dumps(asked), timeout=10), value)
    assert stack.client.batches.list().data == []


def test_lines_with_wrong_routing_fail_the_batch_with_a_fault_each(stack: Stack) -> None:
    rows = lines(len(VALUES))
    for row, value in zip(rows, VALUES, strict=True):
        row["body"].update(model="m", routing=value)
    ended = wait_for_end(stack.client, submit(stack.client, rows).id, 30)
    assert ended.status == "failed"
    assert ended.errors is not None
    faults = ended.errors.data or []
    assert [fault.line for fault in faults] == list(range(1, len(VALUES) + 1))
    assert {fault.code for fault in faults} <= {"invalid_routing", "invalid_request", "invalid_json_line"}


def test_whatever_a_strategy_does_its_jobs_end_and_the_worker_goes_on(stack: Stack) -> None:
    """By name in each line, for a whole batch, and in requests whose callers wait."""
    rows = lines(len(STRATEGIES) * 10)
    for n, row in enumerate(rows):
        row["body"].update(model="m", routing={"strategy": STRATEGIES[n % len(STRATEGIES)]})
    mixed = submit(stack.client, rows)
    plain = [line(f"plain-{n}", f"plain {n}", model="m") for n in range(20)]
    whole = [submit(stack.client, plain, extra_body={"routing": {"strategy": name}}) for name in STRATEGIES]
    for batch, jobs in ((mixed, len(rows)), *((batch, len(plain)) for batch in whole)):
        found = outcomes(stack.client, wait_for_end(stack.client, batch.id, 60))
        assert len(found) == jobs
        assert {row["response"]["status_code"] for row in found.values()} == {200}
    for name in STRATEGIES:
        answer = stack.client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": name}],
            extra_body={"routing": {"strategy": name}},
        )
        assert answer.choices[0].message.content
    told = (stack.folder / "worker-1.log").read_text()
    assert stack.workers[0].poll() is None, told
    for event, times in (
        ("caller_failed", 0),
        ("attempt_broke", 0),
        ("strategy_slow", 1),
        ("strategy_raised", 5),
    ):
        assert told.count(f'"{event}"') == times, event
