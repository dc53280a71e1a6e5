"""F18: 100 submits at once with one idempotency key, through two APIs of which one is killed (-9) meanwhile.

`tests/flow/test_idempotency.py` has the same without a kill: there every answer but one is marked as a replay.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from openai import OpenAI
from support.balancer import balancing
from support.batches import CHAT, jsonl, lines, upload
from support.callers import MODEL, recorded
from support.faults import Report, Trial
from support.full import each_pool
from support.invariants import Accepted, at_rest, called_at_most, get, settled
from support.stack import Stack, free_port, running_stack
from support.waiting import wait_for

MANY = 100


def all_at_once(ask: Callable[[], Any], meanwhile: Callable[[], object]) -> list[Any]:
    start = Barrier(MANY + 1)

    def one() -> Any:
        start.wait(20)
        return ask()

    with ThreadPoolExecutor(MANY) as threads:
        asked = [threads.submit(one) for _ in range(MANY)]
        start.wait(20)
        meanwhile()
        return [future.result() for future in asked]


@each_pool
def test_a_hundred_submits_with_one_key(pool: str, report: Report) -> None:
    second = free_port()
    with (
        running_stack(LLM_EDGE_LEASE_S="15", LLM_EDGE_POOL=pool) as stack,
        report.of("100 with one key: a job, a batch", pool, 41, case="F18") as trial,
        balancing([stack.port, second]) as base_url,
        OpenAI(base_url=base_url, api_key="none", max_retries=20, timeout=60) as client,
    ):
        accepted = Accepted(stack)
        stack.start_another_api(f"http://127.0.0.1:{second}/v1")
        accepted.jobs.append(one_job(stack, client, trial))
        stack.start_another_api(f"http://127.0.0.1:{second}/v1")
        batch_id = one_batch(stack, client, trial)
        accepted.batches[batch_id] = frozenset(row["custom_id"] for row in lines(40))
        settled(accepted, trial)
        called_at_most(stack, accepted, 0, 0)
        at_rest(stack)


def one_job(stack: Stack, client: OpenAI, trial: Trial) -> str:
    stack.simulator.patch(latency_s=2.0)
    create = client.chat.completions.with_raw_response.create
    messages: Any = [{"role": "user", "content": "once"}]

    def called() -> None:
        wait_for(stack.simulator.calls, 20, "the call")
        trial.fault(stack.kill_another_api)

    answers = all_at_once(
        lambda: create(model=MODEL, messages=messages, extra_headers={"Idempotency-Key": "job"}), called
    )
    stack.simulator.patch(latency_s=0.01)
    assert {answer.text for answer in answers} == {answers[0].text}
    (job_id,) = {answer.headers["x-llm-edge-job"] for answer in answers}
    assert recorded(stack).keys() == {job_id}
    return str(job_id)


def one_batch(stack: Stack, client: OpenAI, trial: Trial) -> str:
    file_id = upload(client, jsonl(lines(40)))

    def made() -> None:
        wait_for(lambda: get(stack, "/batches")["data"], 20, "the batch")
        trial.fault(stack.kill_another_api)

    def create() -> Any:
        head = {"Idempotency-Key": "batch"}
        return client.batches.create(
            input_file_id=file_id, endpoint=CHAT, completion_window="24h", extra_headers=head
        )

    answers = all_at_once(create, made)
    assert {answer.to_json() for answer in answers} == {answers[0].to_json()}
    assert [batch["id"] for batch in get(stack, "/batches")["data"]] == [answers[0].id]
    return str(answers[0].id)
