"""F17: workers whose wall clocks are an hour fast, an hour slow, and right, in one fleet."""

import itertools
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from support.batches import lines, submit
from support.faults import Report
from support.full import each_pool, full
from support.invariants import Accepted, at_rest, called_at_most, get, named, settled
from support.stack import Stack, running_stack
from support.upstream import GOOD, answer, serving
from support.waiting import wait_for

HOUR_S = 3600.0
CONCURRENCY = 16
WAIT_S = 6
BY_KOMBU = frozenset({"unacked"})
"""kombu ages its unacknowledged messages by the worker's clock: a fast one's stay so much longer. They are hints: nothing waits for them."""

_SKEWED = str(Path(__file__).parent.parent / "support" / "skewed")


def skewed(skew_s: float) -> dict[str, str]:
    """A worker's environment."""
    path = os.pathsep.join(filter(None, (_SKEWED, os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "SKEW_S": str(skew_s)}


@contextmanager
def fleet(*skews_s: float, **env: Any) -> Iterator[Stack]:
    """A worker for each of these, in this order; each says by its log that its clock is so far off."""
    with running_stack(
        workers=0, LLM_EDGE_CONCURRENCY=str(CONCURRENCY), LLM_EDGE_LEASE_S="5", **env
    ) as stack:
        for n, skew_s in enumerate(skews_s, 1):
            stack.start_worker(wait=n == len(skews_s), **skewed(skew_s))
        for n, (worker, skew_s) in enumerate(zip(stack.workers, skews_s, strict=True), 1):
            stack.await_worker(worker, f"worker-{n}")
            assert abs(off_by(stack, n) - skew_s) < 120
        yield stack


def off_by(stack: Stack, number: int) -> float:
    """By what time the worker's log says it is."""
    path = stack.folder / f"worker-{number}.log"
    said = next(row for row in path.read_text().splitlines() if row.startswith("{") and '"timestamp"' in row)
    return datetime.fromisoformat(json.loads(said)["timestamp"]).timestamp() - time.time()


@each_pool
@pytest.mark.parametrize("jobs", [500, pytest.param(5000, marks=full)])
def test_clocks_an_hour_off(pool: str, jobs: int, report: Report) -> None:
    """Retries, an outage with its breaker, and a killed worker's lease: nothing takes an hour, and nothing is cut short."""
    with (
        fleet(HOUR_S, -HOUR_S, 0.0, LLM_EDGE_POOL=pool) as stack,
        report.of("clocks an hour off", pool, jobs + 50, case="F17") as trial,
    ):
        stack.simulator.patch(latency_s=0.1, latency_p95_s=0.3, error_rate=0.03)
        accepted = Accepted(stack)
        batch_id = accepted.batch(jobs)
        for n in range(50):
            accepted.lone(f"lone {n}")
        wait_for(lambda: calls(stack) > jobs // 4, 60, "calls")
        trial.fault(lambda: stack.simulator.patch(outage="503"))
        named(stack, batch_id, "breaker_open", "breaker_half_open")
        wait_for(lambda: failures_since(stack, trial.at[0]) > 5, 20, "probes in vain")
        stack.simulator.patch(outage="none")
        wait_for(lambda: get(stack, "/providers/sim")["state"] == "closed", 20, "the breaker to close")
        trial.fault(lambda: stack.kill_worker(stack.workers[0]))  # the fast one
        settled(accepted, trial, timeout_s=60)
        called_at_most(stack, accepted, 1, CONCURRENCY)
        at_rest(stack, besides=BY_KOMBU)


def calls(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["calls"])


def failures_since(stack: Stack, at: float) -> int:
    return sum(c["status"] == 503 and c["received_at"] > at for c in stack.simulator.calls())


@pytest.mark.parametrize(
    "skew_s", [pytest.param(HOUR_S, id="fast"), pytest.param(-HOUR_S, id="slow", marks=full)]
)
def test_windows_end_when_they_should(skew_s: float, report: Report) -> None:
    """With such workers alone: a batch's completion window, a lone job's, and the times that are told of both."""
    window_s = 8
    with (
        fleet(skew_s, LLM_EDGE_JOB_WINDOW_S=str(window_s)) as stack,
        report.of(f"clock {skew_s:+.0f} s, windows", "gevent", 31, case="F17") as trial,
    ):
        accepted = Accepted(stack)
        kept = accepted.batch(20)  # ends long before its window, though a clock says that this is over
        wait_for(lambda: get(stack, f"/batches/{kept}")["status"] == "completed", 15, "a batch in time")
        trial.fault(lambda: stack.simulator.patch(outage="503"))
        began = time.time()
        rows = lines(10, "late")
        with stack.client as client:
            late = submit(client, rows, window=f"{window_s}s")
        accepted.batches[late.id] = frozenset(row["custom_id"] for row in rows)
        job = accepted.lone("late")
        named(stack, late.id, "breaker_open", "breaker_half_open", timeout_s=window_s)
        for told in (get(stack, f"/batches/{late.id}"), get(stack, f"/jobs/{job}")):
            assert abs(told["created_at"] - began) < 5
            assert abs(told["expires_at"] - told["created_at"] - window_s) <= 1
        settled(accepted, trial, failed=11, timeout_s=window_s + 20)
        found = get(stack, f"/batches/{late.id}")
        assert found["status"] == "expired"
        assert get(stack, f"/jobs/{job}")["status"] == "expired"
        assert 0 <= found["expired_at"] - found["expires_at"] < 15
        stack.simulator.patch(outage="none")
        accepted.lone("closes the breaker 1")
        accepted.lone("closes the breaker 2")
        settled(accepted, trial, failed=11)
        at_rest(stack)


@pytest.mark.parametrize(
    "skew_s", [pytest.param(HOUR_S, id="fast", marks=full), pytest.param(-HOUR_S, id="slow")]
)
@pytest.mark.parametrize("form", ["retry-after", pytest.param("x-ratelimit-reset-requests", marks=full)])
def test_a_time_that_a_provider_names_is_by_its_own_clock(skew_s: float, form: str, report: Report) -> None:
    """A date, or a Unix time, some seconds from now: waited for, and no longer."""
    times: list[float] = []

    def serve(connection: socket.socket) -> None:
        times.append(time.time())
        if len(times) > 1:
            connection.sendall(answer(GOOD))
            return
        until = time.time() + WAIT_S
        headers = [f"Date: {formatdate(usegmt=True)}"]
        if form == "retry-after":
            headers.append(f"Retry-After: {formatdate(until, usegmt=True)}")
        else:
            headers += ["x-ratelimit-remaining-requests: 0", f"{form}: {until:.0f}"]
        connection.sendall(answer(b'{"error": {"message": "slowly"}}', "429 Too Many Requests", *headers))

    with (
        serving(serve, ending=b"}") as upstream,
        fleet(skew_s, configure=lambda stack: at(stack, upstream.url)) as stack,
        report.of(f"clock {skew_s:+.0f} s, {form}", "gevent", 1, case="F17") as trial,
    ):
        accepted = Accepted(stack)
        trial.fault(lambda: accepted.lone("patient"))
        job_id = accepted.jobs[0]
        wait_for(
            lambda: (get(stack, f"/jobs/{job_id}")["waiting"] or {}).get("reason") == "rate_limited",
            10,
            "the reason",
        )
        settled(accepted, trial, timeout_s=30)
        waited_s = [after - before for before, after in itertools.pairwise(times)]
        assert len(waited_s) == 1
        assert waited_s[0] > WAIT_S - 1.1, "dates have whole seconds"
        at_rest(stack)


def at(stack: Stack, url: str) -> None:
    stack.configure([{"id": "sim", "endpoint": url, "cost_per_1k_tokens": 0.01}])
