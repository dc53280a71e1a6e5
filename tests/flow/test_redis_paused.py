"""Redis silent for 20 s with 200 calls in flight: what was paid for is kept and written, nothing is called again."""

import itertools
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from support.batches import line, lines, outcomes, submit, wait_for_end
from support.callers import MODEL
from support.faults import called_again
from support.stack import Stack, running_stack
from support.waiting import wait_for

pytestmark = [pytest.mark.verify, pytest.mark.alone, pytest.mark.timeout(300)]

PAUSE_S = 20.0
LEASE_S = 60.0
ALONE_S = 2.0
BUSY_S = 1.0
"""For a machine that does other things besides, and for a worker that has to notice first."""

CONCURRENCY = 125
IN_FLIGHT = 200
LONG_S = 26.0

both_pools = pytest.mark.parametrize("pool", ["gevent", "threads"])


@pytest.fixture
def stack(pool: str) -> Iterator[Stack]:
    """Two workers of a hundred batch calls each, with leases that outlast the pause."""
    env = {"LLM_EDGE_CONCURRENCY": str(CONCURRENCY), "LLM_EDGE_LEASE_S": str(LEASE_S), "LLM_EDGE_POOL": pool}
    with running_stack(part_env=None, configure=Stack.configure, workers=2, aof=False, **env) as running:
        yield running


class Pause:
    """Redis was silent from `begun` to `over`, Unix seconds; the API was asked all the while."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.answers: list[requests.Response] = []
        with stack.valkey.paused():
            self.begun = time.time()
            wait_for(self._asked, PAUSE_S + 5, "the pause's end", every_s=0.25)
        self.over = time.time()

    def _asked(self) -> bool:
        url = self.stack.base_url
        asked = f"in the pause {len(self.answers)}"  # may be carried out on Redis' return, though refused
        body = {"model": MODEL, "messages": [{"role": "user", "content": asked}]}
        self.answers += [
            requests.get(f"{url}/batches", timeout=10),
            requests.post(f"{url}/chat/completions", json=body, timeout=10),
        ]
        return time.time() - self.begun >= PAUSE_S

    def slowest_s(self) -> float:
        assert {answer.status_code for answer in self.answers} == {503}
        return max(answer.elapsed.total_seconds() for answer in self.answers)

    def calls(self) -> list[dict[str, Any]]:
        return self.stack.simulator.calls()

    def under_way(self) -> list[dict[str, Any]]:
        return [
            call
            for call in self.calls()
            if call["received_at"] < self.begun and not (call["ended_at"] or self.over) < self.begun
        ]

    def answered(self) -> int:
        """Calls whose answers came while Redis was silent."""
        return sum(self.begun < (call["ended_at"] or 0) < self.over for call in self.calls())

    def last_start_s(self) -> float:
        """Into the pause, the last call that began in it."""
        begun = [c["received_at"] - self.begun for c in self.calls() if c["received_at"] < self.over]
        return float(max(begun))


def completed(stack: Stack, batch_id: str) -> int:
    answer = requests.get(f"{stack.base_url}/batches/{batch_id}", timeout=10)
    return int(answer.json()["request_counts"]["completed"]) if answer.ok else 0


def under_way(stack: Stack, batch_id: str) -> bool:
    """All calls at once, and no claim on its way: one that goes unheard for longer than a worker listens costs a whole lease."""
    told = requests.get(f"{stack.base_url}/batches/{batch_id}/explain", timeout=5).json()
    in_flight: int = stack.simulator.stats()["default"]["in_flight"]
    return in_flight == IN_FLIGHT and not int(told["queued"])


def tell(pool: str, pause: Pause, written_s: float, done_s: float) -> None:
    sys.stdout.write(
        f"{pool}: {len(pause.under_way())} calls in flight when Redis fell silent, {pause.answered()} answered"
        f" meanwhile, the last begun {pause.last_start_s():.2f} s into it; written {written_s:.2f} s and all"
        f" done {done_s:.1f} s after its return; called again: {sum(called_again(pause.stack.simulator).values())};"
        f" the API's slowest 503 of {len(pause.answers)}: {pause.slowest_s():.2f} s\n"
    )


@both_pools
def test_answers_that_came_while_redis_was_silent_are_written_and_none_is_called_again(stack: Stack) -> None:
    stack.simulator.patch(latency_s=5.0, latency_p95_s=12.0)
    batch = submit(stack.client, lines(500))
    wait_for(lambda: under_way(stack, batch.id), 30, "the calls to be under way, and the rest claimed")
    before = completed(stack, batch.id)
    pause = Pause(stack)
    kept = before + pause.answered()
    wait_for(lambda: completed(stack, batch.id) >= kept, LEASE_S, "what was answered to be written")
    written_s = time.time() - pause.over
    ended = wait_for_end(stack.client, batch.id, 120)
    tell(stack.pool, pause, written_s, time.time() - pause.over)
    assert len(pause.under_way()) == IN_FLIGHT
    assert pause.answered() > IN_FLIGHT / 2
    assert called_again(stack.simulator) == {}
    assert {row["response"]["status_code"] for row in outcomes(stack.client, ended).values()} == {200}
    assert pause.last_start_s() <= ALONE_S + BUSY_S, "a call began whose answer could not be kept"
    assert pause.slowest_s() <= 1.0 + BUSY_S
    assert written_s < 5


@pytest.mark.parametrize("pool", ["gevent"])
def test_a_pause_longer_than_the_lease_repeats_no_call_either(pool: str) -> None:
    """The default lease; calls that all take the same time end together, and begin together at the worst moment."""
    with running_stack(
        LLM_EDGE_CONCURRENCY=str(CONCURRENCY), LLM_EDGE_LEASE_S="15", LLM_EDGE_POOL=pool
    ) as stack:
        stack.simulator.patch(latency_s=23.0)
        batch = submit(stack.client, lines(2 * IN_FLIGHT))
        wait_for(lambda: under_way(stack, batch.id), 20, "the calls to be under way, and the rest claimed")
        pause = Pause(stack)
        ended = wait_for_end(stack.client, batch.id, 120)
        tell(pool, pause, 0.0, time.time() - pause.over)
        assert called_again(stack.simulator) == {}
        assert {row["response"]["status_code"] for row in outcomes(stack.client, ended).values()} == {200}


@pytest.mark.parametrize("pool", ["gevent"])
def test_no_call_begins_by_what_was_known_long_ago(stack: Stack) -> None:
    """All calls take eight seconds: until the first of them ends nobody has anything to ask."""
    stack.simulator.patch(latency_s=8.0)
    batch = submit(stack.client, lines(500))
    wait_for(lambda: under_way(stack, batch.id), 30, "the calls to be under way, and the rest claimed")
    pause = Pause(stack)
    ended = wait_for_end(stack.client, batch.id, 120)
    tell(stack.pool, pause, 0.0, time.time() - pause.over)
    assert pause.last_start_s() <= ALONE_S + BUSY_S, "a call began whose answer could not be kept"
    assert called_again(stack.simulator) == {}
    assert {row["response"]["status_code"] for row in outcomes(stack.client, ended).values()} == {200}


@both_pools
def test_calls_that_outlast_the_pause_keep_their_leases_and_what_could_not_begin_does_not_wait_for_them(
    stack: Stack,
) -> None:
    """Shards of both kinds: of their jobs some are under way throughout, others found no Redis to begin by."""
    stack.simulator.patch(latency_s=3.0, latency_p95_s=8.0, rules=[{"match": "^long", "latency_s": LONG_S}])
    kinds = itertools.cycle(["long", "long", "short"])
    batch = submit(stack.client, [line(f"{n}", f"{next(kinds)} {n}") for n in range(300)])
    wait_for(lambda: under_way(stack, batch.id), 30, "the calls to be under way, and the rest claimed")
    before = completed(stack, batch.id)
    pause = Pause(stack)
    kept = before + pause.answered()
    wait_for(lambda: completed(stack, batch.id) >= kept, LEASE_S, "what was answered to be written")
    written_s = time.time() - pause.over
    ended = wait_for_end(stack.client, batch.id, 2 * LEASE_S + LONG_S)
    done_s = time.time() - pause.over
    tell(stack.pool, pause, written_s, done_s)
    assert len(pause.under_way()) == IN_FLIGHT
    assert called_again(stack.simulator) == {}
    assert {row["response"]["status_code"] for row in outcomes(stack.client, ended).values()} == {200}
    assert pause.last_start_s() <= ALONE_S + BUSY_S, "a call began whose answer could not be kept"
    assert done_s < LONG_S + 15, "jobs waited for a lease that nobody needed"
