"""gevent and threads beside each other: what a worker promises holds on both."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from support.batches import line, lines, outcomes, submit, wait_for_end
from support.bus import task_events
from support.callers import Callers
from support.pools import both_pools
from support.stack import Stack, running_stack
from support.up_run import LLM_EDGE, running_up
from support.waiting import wait_for

CONCURRENCY = 16

pytestmark = both_pools


@contextmanager
def one_worker(pool: str) -> Iterator[Stack]:
    with running_stack(workers=1, LLM_EDGE_POOL=pool, LLM_EDGE_CONCURRENCY=str(CONCURRENCY)) as stack:
        yield stack


def in_flight(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["in_flight"])


def most_in_flight(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["max_in_flight"])


def test_a_batch_takes_four_fifths_of_the_calls_and_callers_never_wait_behind_it(pool: str) -> None:
    with one_worker(pool) as stack, stack.client as client:
        stack.simulator.patch(latency_s=20, rules=[{"match": "^question", "latency_s": 0.2}])
        batch = submit(client, lines(600))
        share = CONCURRENCY * 8 // 10
        wait_for(lambda: in_flight(stack) == share, 20, "a batch's share of the calls")
        with Callers(stack.base_url, at_once=1) as callers:
            for n in range(5):
                started = time.monotonic()
                (asked,) = callers.ask([f"question {n}"])
                asked.result(10)
                assert time.monotonic() - started < 5, "it waited behind the batch"
        assert most_in_flight(stack) == share + 1
        client.batches.cancel(batch.id)


def test_leases_are_renewed_and_deadlines_cut_calls(pool: str) -> None:
    """A call of twice the lease runs once; one that hangs is cut at its provider's total deadline, each time."""
    with running_stack(workers=0, LLM_EDGE_POOL=pool) as stack, stack.client as client:
        provider = {"id": "sim", "endpoint": stack.simulator.base_url, "timeouts": {"total_s": 5}}
        stack.configure([provider])
        stack.start_worker()
        stack.simulator.patch(
            rules=[{"match": "^long", "latency_s": 4.0}, {"match": "^hangs", "hang": True, "times": 1}]
        )
        rows = [line("long", "long"), line("hangs", "hangs"), line("quick", "quick")]
        found = outcomes(client, wait_for_end(client, submit(client, rows).id, timeout_s=45))
        assert {row["response"]["status_code"] for row in found.values()} == {200}
        calls = stack.simulator.calls()
        assert len([c for c in calls if c["prompt"] == "long"]) == 1, "its lease held"
        cut, answered = (c for c in calls if c["prompt"] == "hangs")
        assert 4.9 < cut["ended_at"] - cut["received_at"] < 7
        assert answered["status"] == 200


def test_task_events_go_out(pool: str) -> None:
    expected = {"task-received", "task-started", "task-succeeded"}
    with one_worker(pool) as stack, stack.client as client, task_events(stack) as seen:
        wait_for_end(client, submit(client, lines(100)).id)
        wait_for(lambda: expected <= {event["type"] for event in seen}, 10, "task events")


@pytest.mark.verify
@pytest.mark.timeout(300)
def test_ten_thousand_jobs_leave_no_threads_and_little_memory(pool: str) -> None:
    with one_worker(pool) as stack, stack.client as client:
        stack.simulator.patch(latency_s=0.005)
        process = psutil.Process(stack.workers[0].pid)
        wait_for_end(client, submit(client, lines(2000)).id)
        threads, memory = process.num_threads(), process.memory_info().rss
        wait_for_end(client, submit(client, lines(10_000, "more")).id, timeout_s=200)
        assert process.num_threads() <= threads + 2, "threads leak"
        grown = process.memory_info().rss - memory
        assert grown < 24 * 1024 * 1024, f"the worker grew by {grown:,} bytes"


def test_up_runs_workers_of_this_pool(pool: str, tmp_path: Path) -> None:
    with running_up(tmp_path, "--port", "0", "--workers", "1", "--pool", pool, command=LLM_EDGE) as up:
        up.wait_ready()
        with up.client() as redis:
            (record,) = redis.hvals("le:workers")
        assert f'"pool":"{pool}"' in record
