"""F12: the worker that probes a half-open breaker's provider is killed (-9) in mid-probe."""

import sys
import time

import pytest
from support.breakers import CLOSED, OPENED, circuit, probing, times_of
from support.faults import Report
from support.full import each_pool
from support.invariants import Accepted, at_rest, called_at_most, named, settled
from support.stack import Stack, running_stack
from support.waiting import wait_for

from shared.breaker import State

BREAK_S, LEASE_S = 1.5, 6.0
CONCURRENCY = 8
JOBS = 200


def configure(stack: Stack) -> None:
    stack.configure(breaker={"reset_timeout_s": BREAK_S, "half_open_permits": 1, "probe_lease_s": LEASE_S})


@pytest.mark.alone
@each_pool
def test_a_prober_killed_in_mid_probe_holds_the_fleet_up_for_its_lease_only(
    pool: str, report: Report
) -> None:
    with (
        running_stack(
            workers=3, configure=configure, LLM_EDGE_POOL=pool, LLM_EDGE_CONCURRENCY=str(CONCURRENCY)
        ) as stack,
        report.of("prober killed in half-open", pool, JOBS, case="F12") as trial,
    ):
        stack.simulator.patch(outage="503")
        accepted = Accepted(stack)
        batch_id = accepted.batch(JOBS)
        wait_for(lambda: times_of(stack, OPENED), 20, "the breaker to open")
        stack.simulator.patch(outage="hang")  # probes come, and stay
        ((prober, lease_ends),) = wait_for(lambda: probing(stack), 30, "a worker to hold the one probe")
        half_open_at = circuit(stack).since
        trial.fault(lambda: stack.kill_worker(next(w for w in stack.workers if f"-{w.pid}-" in prober)))
        killed = trial.at[0]
        stack.simulator.patch(outage="none")
        named(stack, batch_id, "breaker_half_open", timeout_s=LEASE_S)
        wait_for(lambda: times_of(stack, CLOSED), LEASE_S + BREAK_S + 20, "the breaker to close")
        settled(accepted, trial)
        assert circuit(stack).state is State.CLOSED
        closed = times_of(stack, CLOSED)[0]
        after = min(c["received_at"] for c in stack.simulator.calls() if c["received_at"] > killed)
        sys.stdout.write(
            f"its lease ended {lease_ends - killed:.2f} s after the kill, the next probe came at {after - killed:.2f} s,"
            f" closed at {closed - killed:.2f} s, all done at {time.time() - killed:.2f} s (lease {LEASE_S:g} s)\n"
        )
        assert lease_ends >= half_open_at + LEASE_S - 0.01
        assert after >= lease_ends - 0.01, "somebody probed while the dead one's lease ran"
        called_at_most(stack, accepted, 1, CONCURRENCY)
        at_rest(stack)
