"""One breaker over a fleet of real workers, judged by their logs and by the simulator, which sees every call."""

import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.batches import lines, outcomes, submit, wait_for_end
from support.breakers import AGAIN, CLOSED, HALVED, OPENED, changes, times_of
from support.stack import START_S, Stack, running_stack
from support.waiting import wait_for

pytestmark = [pytest.mark.verify, pytest.mark.alone]
CONCURRENCY = 8


@contextmanager
def fleet(
    workers: int, breaker: dict[str, float], *simulator: str, concurrency: int = CONCURRENCY
) -> Iterator[Stack]:
    """The breaker's numbers must be known before the workers start. Two at a time do: more would only share the cores."""
    with running_stack(*simulator, workers=0, LLM_EDGE_CONCURRENCY=str(concurrency)) as stack:
        stack.configure(breaker=breaker)
        for n in range(1, workers + 1):
            stack.start_worker(wait=n % 2 == 0 or n == workers)
        wait_for(lambda: stack.workers_alive() == workers, START_S, "all workers to report")
        yield stack


def bursts(calls: list[dict[str, Any]], apart_s: float) -> list[int]:
    """How many calls came together, with so long between one such burst and the next."""
    times = sorted(call["received_at"] for call in calls)
    gaps = [later - earlier > apart_s for earlier, later in itertools.pairwise(times)]
    starts = [0, *(n for n, gap in enumerate(gaps, 1) if gap), len(times)]
    return [end - start for start, end in itertools.pairwise(starts)]


def test_eight_workers_open_it_once_probe_as_permitted_and_two_successes_close_it() -> None:
    workers, break_s, permits = 8, 2.0, 2
    numbers = {"reset_timeout_s": break_s, "success_threshold": 2, "half_open_permits": permits}
    with fleet(workers, numbers) as stack:
        stack.simulator.patch(outage="503")
        batch = submit(stack.client, lines(400))
        wait_for(lambda: times_of(stack, OPENED), 20, "the breaker to open")
        # probes fail slowly from now on, so that there is time for more of them than permitted
        stack.simulator.patch(outage="none", error_rate=1.0, error_statuses=[503], latency_s=0.4)
        wait_for(lambda: len(times_of(stack, AGAIN)) >= 2, 30, "two probes in vain")
        assert len(times_of(stack, OPENED)) == 1
        # and take a second when they succeed, so that what follows the close ends well after it was told
        stack.simulator.patch(error_rate=0.0, latency_s=1.0, latency_p95_s=1.6)
        (closed_at,) = wait_for(lambda: times_of(stack, CLOSED), 30, "the breaker to close")
        stack.simulator.patch(latency_s=0.0, latency_p95_s=None)
        ended = wait_for_end(stack.client, batch.id, 60)
        assert {row["response"]["status_code"] for row in outcomes(stack.client, ended).values()} == {200}
        told, calls = Counter(change.what for change in changes(stack)), stack.simulator.calls()

    failed = bursts([call for call in calls if call["status"] == 503], break_s / 2)
    answered = sorted(call["ended_at"] for call in calls if call["status"] == 200)
    before_close = [at for at in answered if at <= closed_at]
    sys.stdout.write(
        f"{dict(told)}; calls in vain, burst by burst: {failed}; {len(before_close)} answers closed it\n"
    )
    assert told == {OPENED: 1, HALVED: told[HALVED], AGAIN: told[HALVED] - 1, CLOSED: 1}
    assert failed[0] <= workers * CONCURRENCY, "only what was under way when it opened"
    assert max(failed[1:]) <= permits
    assert len(failed) - 1 == told[AGAIN]
    assert len(before_close) == 2


def test_fifty_calls_run_through_one_breaker_at_the_same_time() -> None:
    jobs, latency_s = 50, 1.0
    with fleet(1, {}, "--latency-s", str(latency_s), concurrency=64) as stack:
        ended = wait_for_end(stack.client, submit(stack.client, lines(jobs)).id, 30)
        assert {row["response"]["status_code"] for row in outcomes(stack.client, ended).values()} == {200}
        most = stack.simulator.stats()["default"]["max_in_flight"]
        calls = stack.simulator.calls()
    took = max(c["ended_at"] for c in calls) - min(c["received_at"] for c in calls)
    sys.stdout.write(f"{most} of {jobs} calls of {latency_s:g} s at once; all took {took:.2f} s\n")
    assert len(calls) == jobs
    assert most >= 40
