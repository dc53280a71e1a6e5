"""F3: a worker frozen for three leases, then let go on: its answers are kept for jobs still open, refused for the rest, counted once."""

import signal
import time

import pytest
from support.batches import line
from support.faults import Report, called_again
from support.full import each_pool, full
from support.invariants import Accepted, at_rest, called_at_most, named, refused, settled
from support.stack import Stack, running_stack
from support.waiting import wait_for
from support.witness import in_flight

CONCURRENCY = 40
OPEN, TAKEN = 14, 16
SILENT_S = 6.0
"""Longer than a worker is silent before `explain` says so."""


@each_pool
@pytest.mark.parametrize("lease_s", [2, pytest.param(9, marks=full)])
def test_a_worker_frozen_for_three_leases(pool: str, lease_s: int, report: Report) -> None:
    """Another takes its jobs meanwhile; some it has answered by then, the others it is still calling for."""
    with running_stack(
        workers=1,
        LLM_EDGE_POOL=pool,
        LLM_EDGE_CONCURRENCY=str(CONCURRENCY),
        LLM_EDGE_LEASE_S=str(lease_s),
    ) as stack:
        stack.simulator.patch(latency_s=2.0)
        accepted = Accepted(stack)
        with report.of(f"frozen for three leases of {lease_s} s", pool, OPEN + TAKEN, case="F3") as trial:
            rows = [line(f"open-{n}", f"open {n}") for n in range(OPEN)]
            rows += [line(f"taken-{n}", f"taken {n}") for n in range(TAKEN)]
            batch_id = accepted.batch(len(rows), rows=rows)
            wait_for(lambda: in_flight(stack) == len(rows), 20, "all calls in flight")
            zombie = stack.workers[0]
            trial.fault(lambda: zombie.send_signal(signal.SIGSTOP))
            until = time.monotonic() + 3 * lease_s
            wait_for(lambda: not in_flight(stack), 20, "the provider's answers")
            second_s = 3 * lease_s + 10.0  # the second calls for open jobs outlast the freeze
            stack.simulator.patch(latency_s=0.01, rules=[{"match": "^open", "latency_s": second_s}])
            if lease_s > SILENT_S + 2:
                named(stack, batch_id, "worker_silent", timeout_s=lease_s)
            stack.start_worker()
            wait_for(lambda: again(stack) == len(rows), 3 * lease_s + 10, "all to be called elsewhere")
            wait_for(lambda: completed(stack, batch_id) == TAKEN, 10, "those to be answered")
            wait_for(lambda: time.monotonic() >= until, 3 * lease_s, "three leases to pass")
            assert completed(stack, batch_id) == TAKEN
            trial.fault(lambda: zombie.send_signal(signal.SIGCONT))
            settled(accepted, trial, timeout_s=8)
            assert in_flight(stack) == OPEN, "its answers ended jobs that another was calling for"
            wait_for(lambda: refused(stack) == OPEN + TAKEN, second_s + 10, "the second answers")
            trial.figures.refused = refused(stack)
        called_at_most(stack, accepted, 1, OPEN + TAKEN)
        at_rest(stack)


def again(stack: Stack) -> int:
    return sum(called_again(stack.simulator).values())


def completed(stack: Stack, batch_id: str) -> int:
    with stack.client as client:
        counts = client.batches.retrieve(batch_id).request_counts
    assert counts is not None
    return counts.completed
