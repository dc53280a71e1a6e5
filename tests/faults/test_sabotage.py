"""The suite can fail: with a fault built into a copy of the product its invariants are broken, and it says which.

Without the fault all is well in both scenarios: they are those of F3 and F1.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.faults import Report, Trial
from support.invariants import Accepted, get, settled
from support.sabotage import NO_REAPING, SECOND_OUTCOMES, Fault, faulty_build
from support.stack import Stack, running_stack
from support.waiting import wait_for

JOBS = 40
SLOW_S = 15.0
PATIENCE_S = 8.0
"""Four leases."""


def frozen_and_thawed(stack: Stack, accepted: Accepted, trial: Trial) -> None:
    """A worker is silent for longer than its lease; its late answers come while the batch still runs (F3)."""
    stack.simulator.patch(latency_s=0.5, rules=[{"match": "^job 39 ", "latency_s": SLOW_S, "status": 200}])
    batch_id = accepted.batch(JOBS)
    wait_for(lambda: in_flight(stack) >= 20, 20, "calls on both workers")
    frozen = stack.workers[0]
    trial.fault(lambda: frozen.send_signal(signal.SIGSTOP))
    wait_for(
        lambda: get(stack, f"/batches/{batch_id}")["request_counts"]["completed"] >= JOBS - 1,
        20,
        "its jobs to be done by the other",
    )
    frozen.send_signal(signal.SIGCONT)


def killed(stack: Stack, accepted: Accepted, trial: Trial) -> None:
    """A worker is killed (-9) with calls under way (F1)."""
    stack.simulator.patch(latency_s=0.5)
    accepted.batch(JOBS)
    wait_for(lambda: in_flight(stack) >= 20, 20, "calls on both workers")
    trial.fault(lambda: stack.kill_worker(stack.workers[0]))


def in_flight(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["in_flight"])


Scenario = Callable[[Stack, Accepted, Trial], None]


def run(scenario: Scenario, folder: Path, fault: Fault) -> None:
    """Its figures are in no report: they would look as if they were the product's."""
    path = faulty_build(folder, fault)
    with (
        running_stack(LLM_EDGE_CONCURRENCY="16", LLM_EDGE_SHARD_SIZE="10", PYTHONPATH=path) as stack,
        Report().of(scenario.__name__, "gevent", JOBS) as trial,
    ):
        accepted = Accepted(stack)
        scenario(stack, accepted, trial)
        settled(accepted, trial, timeout_s=PATIENCE_S)


def test_an_outcome_that_is_taken_twice_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="jobs ended twice") as found:
        run(frozen_and_thawed, tmp_path, SECOND_OUTCOMES)
    sys.stdout.write(f"{found.value}\n")


def test_a_lease_that_nobody_reaps_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"in vain for batch_\w+ to end") as found:
        run(killed, tmp_path, NO_REAPING)
    sys.stdout.write(f"{found.value}\n")
