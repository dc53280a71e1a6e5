"""F2: a worker frozen inside BRPOP takes a hint with it when it is killed; what the hint stood for is not lost."""

import signal

import pytest
from support.faults import Report
from support.full import each_pool, full
from support.invariants import Accepted, at_rest, named, settled
from support.stack import Stack, running_stack
from support.waiting import wait_for
from support.witness import calls

from shared.queues import BATCH_QUEUE, INTERACTIVE_QUEUE

JOBS = 5


@each_pool
@pytest.mark.parametrize("rounds", [2, pytest.param(6, marks=full)])
def test_a_hint_that_dies_with_the_worker_that_popped_it(pool: str, rounds: int, report: Report) -> None:
    """A batch's and a lone job's in turn. While nobody is there, `explain` says so."""
    with running_stack(workers=1, LLM_EDGE_POOL=pool, LLM_EDGE_LEASE_S="8") as stack:
        accepted = Accepted(stack)
        jobs = sum(JOBS if n % 2 == 0 else 1 for n in range(rounds))
        with report.of("frozen in BRPOP, killed", pool, jobs, case="F2") as trial:
            for n in range(rounds):
                before = calls(stack)
                _freeze_in_brpop(stack)
                sent = _published(stack)
                batch_id = accepted.batch(JOBS, f"round-{n}") if n % 2 == 0 else ""
                if not batch_id:
                    accepted.lone(f"round {n}")
                wait_for(lambda sent=sent: _published(stack) > sent and not _queued(stack), 20, "a pop")  # type: ignore[misc]
                assert _unacked(stack) == 0, "the worker had time to register it"
                trial.fault(lambda: stack.kill_worker(stack.workers[0]))
                assert calls(stack) == before
                if batch_id:
                    named(stack, batch_id, "no_worker_alive")
                stack.start_worker()
                settled(accepted, trial, timeout_s=30)
        assert trial.figures.again == 0
        at_rest(stack)


def _freeze_in_brpop(stack: Stack) -> None:
    """Just after it has asked anew: a BRPOP ends by itself after a second."""
    before = _asked(stack)
    assert wait_for(lambda: before < _asked(stack), 30, "the worker to ask once more")
    stack.workers[0].send_signal(signal.SIGSTOP)


def _asked(stack: Stack) -> int:
    """What the connection that waits in BRPOP has sent so far, in bytes; 0 while none waits."""
    with stack.valkey.client() as redis:
        return sum(
            int(client["tot-net-in"])
            for client in redis.client_list()
            if client["cmd"] == "brpop" and "b" in client["flags"]
        )


def _published(stack: Stack) -> int:
    with stack.valkey.client() as redis:
        return int(redis.info("commandstats").get("cmdstat_lpush", {"calls": 0})["calls"])


def _queued(stack: Stack) -> int:
    with stack.valkey.client() as redis:
        return int(redis.llen(BATCH_QUEUE)) + int(redis.llen(INTERACTIVE_QUEUE))


def _unacked(stack: Stack) -> int:
    with stack.valkey.client() as redis:
        return int(redis.hlen("unacked"))
