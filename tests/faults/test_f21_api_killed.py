"""F21: the API is killed (-9) in an upload, in `validating`, and between the ledger's write and the hint."""

import pytest
import requests
from support.batches import CHAT, jsonl, lines, upload
from support.callers import submit_async
from support.faults import Report
from support.full import full
from support.invariants import Accepted, at_rest, called_at_most, get, named, settled
from support.slow_upload import Upload
from support.stack import running_stack
from support.valkey import running_valkey
from support.waiting import wait_for

from shared.queues import BATCH_QUEUE, INTERACTIVE_QUEUE


@pytest.mark.parametrize(
    ("workers", "jobs"),
    [(0, 4_000), pytest.param(0, 50_000, marks=full), pytest.param(1, 50_000, marks=full)],
)
def test_in_an_upload_and_in_validating(workers: int, jobs: int, report: Report) -> None:
    """Half a file goes by itself. The validation another process takes up: a worker, or the next API, which says that no worker is there."""
    with (
        running_stack(workers=workers, LLM_EDGE_CONCURRENCY="200", LLM_EDGE_LEASE_S="15") as stack,
        report.of(f"API killed in validating, {workers} workers", "gevent", jobs, case="F21") as trial,
        stack.valkey.client() as redis,
    ):
        rows = lines(jobs)
        with stack.client as client:
            file_id = upload(client, jsonl(rows))
        whole = set(redis.keys("*:f:*:c"))
        half = Upload(stack, 50_000_000)
        half.send(5_000_000)
        (chunks,) = wait_for(lambda: set(redis.keys("*:f:*:c")) - whole, 10, "the first chunks")
        answer = requests.post(
            f"{stack.base_url}/batches",
            json={"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"},
            timeout=10,
        )
        trial.fault(stack.kill_api)
        half.close()
        assert answer.json()["status"] == "validating"
        assert 0 < int(redis.ttl(chunks)) <= 3600, "what was never completed is dropped by itself"
        batch_id = answer.json()["id"]
        assert redis.hget(f"le:b:{batch_id}", "status") == b"validating", "killed too late"
        accepted = Accepted(stack)
        accepted.batches[batch_id] = frozenset(row["custom_id"] for row in rows)
        stack.start_api()
        assert [file["id"] for file in get(stack, "/files")["data"]] == [file_id]
        wait_for(
            lambda: get(stack, f"/batches/{batch_id}")["status"] in {"in_progress", "completed"},
            40,
            "the validation to be taken up by another process",
        )
        if not workers:
            named(stack, batch_id, "no_worker_alive")
            stack.start_worker()
        settled(accepted, trial, timeout_s=300)
        called_at_most(stack, accepted, 0, 0)
        at_rest(stack)


def test_between_the_ledger_and_the_hint(report: Report) -> None:
    """The broker, a server of its own, is silent: what the ledger counts as hinted at is never sent."""
    with running_valkey() as broker, running_stack(BROKER_URL=broker.url, LLM_EDGE_LEASE_S="15") as stack:
        with report.of("API killed before the hint", "gevent", 220, case="F21") as trial:
            accepted = Accepted(stack)
            with broker.paused():
                accepted.batch(200)
                accepted.jobs += [submit_async(stack, f"lone {n}") for n in range(20)]
                with stack.valkey.client() as redis:
                    wait_for(lambda: redis.zcard("le:hints"), 20, "hints to be counted as sent")
                trial.fault(stack.kill_api)
                assert stack.simulator.calls() == []
            with broker.client() as redis:
                assert redis.llen(BATCH_QUEUE) + redis.llen(INTERACTIVE_QUEUE) <= 1
            stack.start_api()
            settled(accepted, trial, timeout_s=60)
            called_at_most(stack, accepted, 0, 0)
        with broker.client() as redis:
            wait_for(lambda: not redis.llen(BATCH_QUEUE) + redis.llen(INTERACTIVE_QUEUE), 20, "no hint left")
        at_rest(stack)
