"""F7: the broker killed (-9) and started again, five times, under load: with the ledger on the same server, and on its own.

With both on one server the API answers 503 within a second while it is away. With two, submits go on being accepted, and
`explain` says what they wait for. Nobody helps: all jobs run after its return.
"""

from concurrent.futures import Future, wait

import pytest
import requests
from support.batches import CHAT
from support.callers import MODEL, Callers, Told, recorded
from support.faults import Report
from support.full import each_pool, full
from support.invariants import Accepted, at_rest, called_at_most, get, named, settled
from support.stack import Stack, running_stack
from support.valkey import running_valkey
from support.waiting import wait_for
from support.witness import called, calls

CONCURRENCY = 16
AWAY_S = 1.0
"""How soon the API has to say so."""

kills = pytest.mark.parametrize("kills", [2, pytest.param(5, marks=full)])


@each_pool
@kills
def test_one_server_for_both(pool: str, kills: int, report: Report) -> None:
    """With its append-only file. Those who wait in person repeat, as the SDK does, and are answered once each."""
    batched, asked_for = 150 * kills, 60 * kills
    with running_stack(aof=True, LLM_EDGE_POOL=pool, LLM_EDGE_CONCURRENCY=str(CONCURRENCY)) as stack:
        stack.simulator.patch(latency_s=0.2, latency_p95_s=0.5)
        accepted = Accepted(stack)
        in_all = batched + asked_for
        with report.of("broker and ledger killed", pool, in_all, case="F7") as trial:
            accepted.batch(batched)
            with Callers(stack.base_url, at_once=32, max_retries=20) as callers:
                asked = callers.ask([f"question {n}" for n in range(asked_for)])
                for n in range(kills):
                    called(stack, (n + 1) * in_all // (kills + 2))
                    trial.fault(stack.valkey.kill)
                    _told_503_at_once(stack)
                    stack.valkey.start()
                    wait_for(lambda: _ready(stack).ok, 20, "the API to see Redis again")
                told = _answers(asked)
            accepted.jobs += [one.job_id for one in told]
            settled(accepted, trial)
        assert len({one.answer_id for one in told}) == len({one.job_id for one in told}) == asked_for
        assert len(recorded(stack)) == asked_for, "a repetition made a job of its own"
        called_at_most(stack, accepted, kills, 2 * CONCURRENCY)
        assert all(worker.poll() is None for worker in stack.workers), "a worker ended with its broker"
        at_rest(stack)


def _answers(asked: "list[Future[Told]]") -> list[Told]:
    wait(asked, timeout=60)
    return [future.result(0) for future in asked]


def _told_503_at_once(stack: Stack) -> None:
    """Whatever one asks for."""
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "while Redis is away"}]}
    for method, path, body in (
        ("GET", "batches", None),
        ("GET", "jobs", None),
        ("POST", "chat/completions", asked),
        ("POST", "batches", {"input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h"}),
    ):
        answer = requests.request(method, f"{stack.base_url}/{path}", json=body, timeout=5)
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "store_unavailable"
        assert "Redis cannot be reached" in answer.json()["error"]["message"]
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.elapsed.total_seconds() < AWAY_S
    ready = _ready(stack)
    assert (ready.status_code, ready.headers["Retry-After"]) == (503, "1")
    assert requests.get(f"{stack.url}/health", timeout=5).ok


def _ready(stack: Stack) -> requests.Response:
    return requests.get(f"{stack.url}/health/ready", timeout=5)


@each_pool
@kills
def test_a_broker_of_its_own(pool: str, kills: int, report: Report) -> None:
    """It keeps nothing over a kill: every hint that was in it is lost."""
    share = 100
    with (
        running_valkey() as broker,
        running_stack(
            LLM_EDGE_POOL=pool, LLM_EDGE_CONCURRENCY=str(CONCURRENCY), BROKER_URL=broker.url
        ) as stack,
    ):
        stack.simulator.patch(latency_s=0.2, latency_p95_s=0.5)
        accepted = Accepted(stack)
        in_all = kills * 2 * (share + 10)
        with report.of("broker of its own killed", pool, in_all, case="F7") as trial:
            for n in range(kills):
                _submit(accepted, share, f"before-{n}")
                called(stack, calls(stack) + share // 2)
                trial.fault(broker.kill)
                batch_id = _submit(accepted, share, f"while-{n}")
                told = named(stack, batch_id, "broker_away")
                assert "BROKER_URL" in told["summary"]
                assert (told["workers"], _ready(stack).json()["broker"]) == (2, "away")
                job = f"/jobs/{accepted.jobs[-1]}"
                waits = wait_for(lambda job=job: get(stack, job)["waiting"], 5, "the lone job's reason")  # type: ignore[misc]
                assert waits["reason"] == "broker_away"
                if n == 0:
                    _caller_is_told(stack)
                broker.start()
                wait_for(lambda: _ready(stack).json()["broker"] == "ok", 20, "the API to see it again")
            settled(accepted, trial)
        assert trial.figures.again == 0
        assert all(worker.poll() is None for worker in stack.workers), "a worker ended with its broker"
        at_rest(stack)


def _submit(accepted: Accepted, share: int, prefix: str) -> str:
    """A batch and some lone jobs, all accepted."""
    batch_id = accepted.batch(share, prefix)
    for n in range(10):
        accepted.lone(f"{prefix} {n}")
    return batch_id


def _caller_is_told(stack: Stack) -> None:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "nobody hears of this"}]}
    answer = requests.post(f"{stack.base_url}/chat/completions", json=asked, timeout=30)
    assert answer.status_code == 503, answer.text
    assert "(broker_away)" in answer.json()["error"]["message"]
    assert int(answer.headers["Retry-After"]) >= 1
