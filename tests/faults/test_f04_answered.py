"""F4: workers killed when the provider has answered and the ledger does not know it yet: called again, ended once."""

import pytest
from support.faults import Report
from support.full import each_pool, full
from support.invariants import Accepted, at_rest, called_at_most, named, settled
from support.stack import running_stack
from support.waiting import wait_for
from support.witness import in_flight

CONCURRENCY = 40
JOBS, LONE = 24, 6


@each_pool
@pytest.mark.parametrize(("rounds", "lease_s"), [(1, 12), pytest.param(5, 3, marks=full)])
def test_killed_between_the_answer_and_its_record(
    pool: str, rounds: int, lease_s: int, report: Report
) -> None:
    """Valkey stands still from before the answers come until the worker is dead: what it was sent last may be carried out."""
    in_all = rounds * (JOBS + LONE)
    with running_stack(
        workers=1,
        LLM_EDGE_POOL=pool,
        LLM_EDGE_CONCURRENCY=str(CONCURRENCY),
        LLM_EDGE_LEASE_S=str(lease_s),
    ) as stack:
        accepted = Accepted(stack)
        with report.of("answered, killed before it is recorded", pool, in_all, case="F4") as trial:
            for n in range(rounds):
                stack.simulator.patch(latency_s=2.5)
                batch_id = accepted.batch(JOBS, f"round-{n}")
                for k in range(LONE):
                    accepted.lone(f"round {n} lone {k}")
                wait_for(lambda: in_flight(stack) == JOBS + LONE, 20, "all calls in flight")
                with stack.valkey.paused():
                    wait_for(lambda: not in_flight(stack), 20, "the provider's answers")
                    trial.fault(lambda: stack.kill_worker(stack.workers[0]))
                stack.simulator.patch(latency_s=0.01)
                if lease_s > 10:  # the killed worker's last heartbeat counts from when Valkey goes on
                    named(stack, batch_id, "worker_silent", timeout_s=lease_s)
                stack.start_worker()
                settled(accepted, trial, timeout_s=lease_s + 20)
        assert 0 < trial.figures.again <= in_all
        called_at_most(stack, accepted, rounds, CONCURRENCY)
        at_rest(stack)
