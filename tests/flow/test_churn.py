"""Who comes in mid-batch carries his share. Those who leave are F1's and F5's (`tests/faults`)."""

from collections import Counter
from contextlib import AbstractContextManager

from openai import OpenAI
from support.batches import lines, outcomes, submit, wait_for_end
from support.faults import Report, Trial
from support.pools import both_pools
from support.stack import Stack, running_stack
from support.waiting import wait_for

CONCURRENCY = 16


def stack_of(pool: str, *, workers: int) -> AbstractContextManager[Stack]:
    return running_stack(
        workers=workers, LLM_EDGE_POOL=pool, LLM_EDGE_CONCURRENCY=str(CONCURRENCY), LLM_EDGE_LEASE_S="3"
    )


def calls(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["calls"])


def ended_once(stack: Stack, client: OpenAI, batch_id: str, trial: Trial) -> None:
    ended = wait_for_end(client, batch_id, timeout_s=120)
    trial.settled()
    assert ended.status == "completed"
    found = outcomes(client, ended)
    trial.count(stack.simulator, len(found), len(found))
    assert len(found) == trial.figures.jobs
    assert {row["response"]["status_code"] for row in found.values()} == {200}


@both_pools
def test_who_comes_carries_his_share(pool: str, report: Report) -> None:
    """Calls are told apart by the key that each worker sends."""
    with stack_of(pool, workers=0) as stack, stack.client as client:
        stack.configure(
            [{"id": "sim", "endpoint": stack.simulator.base_url, "api_key_env": "WORKER_KEY"}],
        )
        stack.simulator.patch(latency_s=0.1)
        stack.start_worker(WORKER_KEY="first")
        with report.of("a worker added", pool, 1000) as trial:
            batch = submit(client, lines(1000))
            wait_for(lambda: calls(stack) >= 100, 30, "the first calls")
            trial.fault(lambda: stack.start_worker(WORKER_KEY="second"))
            joined = calls(stack)
            ended_once(stack, client, batch.id, trial)
        shares = Counter(
            call["authorization_sha256"] for call in stack.simulator.calls() if call["n"] > joined
        )
        assert len(shares) == 2, "both have worked"
        assert min(shares.values()) >= 0.35 * sum(shares.values()), f"unequal shares: {shares}"
        assert trial.figures.again == 0
