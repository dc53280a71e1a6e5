"""What a batch and an owner may spend: never more by the provider's own count, and what does not run any more says why."""

import signal
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from openai import OpenAI
from support.batches import jsonl, line, lines, outcomes, submit, upload, wait_for_end
from support.edge import edge
from support.stack import Stack, running_stack
from support.waiting import wait_for

from api.cli.outcome import Exit
from shared.fleet_file import version_of

PRICE = Decimal("0.00001")
"""Of one token, in or out."""

ANSWER = 2000
SLOTS = 125
AT_ONCE = 2 * SLOTS * 4 // 5
"""Of which batches take four fifths: two workers make 200 calls at a time."""


def provider(stack: Stack, **more: Any) -> dict[str, Any]:
    return {"id": "sim", "endpoint": stack.simulator.base_url, "cost_per_1k_tokens": 0.01, **more}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(workers=0, LLM_EDGE_CONCURRENCY=str(SLOTS)) as running:
        running.configure([provider(running)], breaker={"failure_threshold": 10_000})
        running.start_worker()
        running.start_worker()
        yield running


def spent(stack: Stack, most_tokens: int) -> Decimal:
    """By the simulator's log. A call that it was not let answer counts as if it had given the longest answer."""
    tokens = 0
    for call in stack.simulator.calls():
        if call["status"] == 200:
            tokens += call["prompt_tokens"] + call["completion_tokens"]
        elif call["ended_at"] is None or not isinstance(call["status"], int):
            tokens += call["prompt_tokens"] + most_tokens
    return tokens * PRICE


def in_force(stack: Stack) -> None:
    """Until every process goes by the providers file that lies there now."""
    version = version_of(stack.config.read_bytes())

    def everywhere() -> bool:
        told = requests.get(f"{stack.base_url}/providers", timeout=5).json()
        return {each["version"] for each in told["config"]} == {version}

    wait_for(everywhere, 10, "the providers file to be in force")


def long_ones(count: int) -> list[dict[str, Any]]:
    return [line(f"job-{n}", f"job {n}", max_tokens=ANSWER) for n in range(count)]


def test_two_hundred_at_a_time_never_spend_more_than_max_cost(stack: Stack, client: OpenAI) -> None:
    """Failures, and a worker killed in the midst, included."""
    ceiling = Decimal(10)
    stack.simulator.patch(
        latency_s=0.5,
        completion_tokens=ANSWER,
        completion_tokens_spread=200,
        error_rate=0.05,
        error_statuses=[500, 503],
    )
    batch = submit(client, long_ones(900), extra_body={"max_cost": float(ceiling)})
    assert batch.model_extra is not None
    assert batch.model_extra["max_cost"] == "10"
    wait_for(lambda: stack.simulator.stats()["default"]["calls"] > 150, 30, "calls to be under way")
    stack.kill_worker(stack.workers[0])
    stack.start_worker(wait=False)
    ended = wait_for_end(client, batch.id, 90)
    assert ended.status == "cancelled"
    assert ended.errors is not None
    assert ended.errors.data is not None
    (fault,) = ended.errors.data
    assert fault.code == "max_cost_reached"
    found = outcomes(client, ended)
    assert len(found) == 900
    codes = {row["error"]["code"] for row in found.values() if row["error"]}
    assert codes == {"max_cost_reached"}
    most, one = spent(stack, ANSWER), (ANSWER + 700) * PRICE
    in_flight = stack.simulator.stats()["default"]["max_in_flight"]
    assert ended.request_counts is not None
    print(  # noqa: T201  the figure that is asked for
        f"{ended.request_counts.completed} of 900 done, {most} $ spent of {ceiling}, up to {in_flight} at a time"
    )
    assert most <= ceiling
    assert in_flight > AT_ONCE // 2
    assert ended.model_extra is not None
    told = Decimal(ended.model_extra["cost_usd"])
    lost = AT_ONCE // 2 * one  # what the killed worker had under way stays booked at its worst
    assert told >= ceiling - lost - one, "the batch ended before its money was spent"


def test_a_worker_that_wakes_when_its_batch_has_ended_spends_nothing_more(stack_of_its_own: Stack) -> None:
    """It has shards in hand, and asks the gate before it hears that its leases are gone."""
    stack = stack_of_its_own
    stack.simulator.patch(latency_s=0.2, completion_tokens=ANSWER, completion_tokens_spread=0)
    ceiling = Decimal(2)
    with stack.client as client:
        batch = submit(client, long_ones(400), extra_body={"max_cost": str(ceiling)})
        wait_for(lambda: stack.simulator.stats()["default"]["calls"] > 20, 30, "calls to be under way")
        frozen = stack.workers[0]
        frozen.send_signal(signal.SIGSTOP)
        try:
            assert wait_for_end(client, batch.id, 90).status == "cancelled"
        finally:
            frozen.send_signal(signal.SIGCONT)
        wait_for(lambda: stack.workers_alive() == 2, 30, "the worker to be back")
        ended = wait_for_end(
            client, submit(client, lines(40)).id
        )  # it works on, and begins nothing of the old one
        assert len(outcomes(client, ended)) == 40
    assert spent(stack, ANSWER) <= ceiling + 40 * (ANSWER + 200) * PRICE
    old = [
        call
        for call in stack.simulator.calls()
        if call["prompt"].startswith("job ") and "says" not in call["prompt"]
    ]
    tokens = sum(call["prompt_tokens"] + (call["completion_tokens"] or ANSWER) for call in old)
    assert tokens * PRICE <= ceiling


def test_a_request_that_can_be_read_in_two_ways_is_bounded_by_the_dearer(
    client: OpenAI, stack: Stack
) -> None:
    """A list of prompts is many answers, whatever else stands beside it."""
    stack.simulator.patch(completion_tokens=ANSWER, completion_tokens_spread=0)
    body = {"model": "m", "prompt": ["hi"] * 100, "max_tokens": 1000, "messages": []}
    rows = [
        {"custom_id": f"j{n}", "method": "POST", "url": "/v1/completions", "body": body} for n in range(10)
    ]
    file = upload(client, jsonl(rows))
    batch = client.batches.create(
        input_file_id=file,
        endpoint="/v1/completions",
        completion_window="24h",
        extra_body={"max_cost": "1.2"},
    )
    ended = wait_for_end(client, batch.id)
    assert ended.request_counts is not None
    assert ended.request_counts.completed < 10
    assert spent(stack, ANSWER) <= Decimal("1.2")


def test_a_batch_that_can_be_paid_for_is_as_any_other(stack: Stack, client: OpenAI) -> None:
    """Though what its calls reserve at a time would exceed its ceiling many times over."""
    batch = submit(client, lines(100), extra_body={"max_cost": "0.1"})
    ended = wait_for_end(client, batch.id)
    assert ended.status == "completed"
    assert ended.errors is None
    assert len(outcomes(client, ended)) == 100
    assert ended.model_extra is not None
    assert Decimal(ended.model_extra["cost_usd"]) == spent(stack, 20) <= Decimal("0.1")


def test_from_the_command_line(stack: Stack, client: OpenAI, tmp_path: Path) -> None:  # noqa: ARG001  it resets the simulator
    source = tmp_path / "in.jsonl"
    source.write_bytes(jsonl(lines(100)))
    ran = edge(tmp_path, "batch", "run", source, "-o", "out.jsonl", "--max-cost", "0.02", env=stack.env)
    assert ran.wait() == Exit.NOT_RUN, ran.err
    assert "max_cost" in ran.out + ran.err
    answered = (tmp_path / "out.jsonl").read_bytes().splitlines()
    rest = (tmp_path / "out.errors.jsonl").read_bytes().splitlines()
    assert len(answered) + len(rest) == 100
    assert 0 < len(answered) < 100
    assert spent(stack, 20) <= Decimal("0.02")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"max_tokens": None}, "cost_not_bounded", "body.max_tokens"),
        ({"max_tokens": 10_000_000}, "max_cost_too_low", "body.max_tokens"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]},
            "cost_not_bounded",
            "body.messages",
        ),
    ],
)
def test_what_nobody_can_tell_the_cost_of_does_not_begin(
    client: OpenAI, stack: Stack, body: dict[str, Any], code: str, param: str
) -> None:
    batch = submit(client, [line("good", "good"), line("bad", "bad", **body)], extra_body={"max_cost": 1})
    ended = wait_for_end(client, batch.id)
    assert ended.status == "failed"
    assert ended.errors is not None
    assert ended.errors.data is not None
    (fault,) = ended.errors.data
    assert (fault.code, fault.param, fault.line) == (code, param, 2)
    assert stack.simulator.calls() == []


@pytest.mark.parametrize("value", [0, -1, "much", True, [], 1e12, "NaN", "0.0000000001"])
def test_a_ceiling_that_is_none_is_refused(client: OpenAI, value: object) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        submit(client, lines(1), extra_body={"max_cost": value})
    assert caught.value.param == "max_cost"


def test_a_model_without_a_price_cannot_run_under_a_ceiling(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own
    free = {"id": "free", "endpoint": stack.simulator.base_url}
    stack.configure([free, provider(stack, models={"priced": "priced"})])
    in_force(stack)
    with stack.client as client:
        ended = wait_for_end(client, submit(client, lines(2), extra_body={"max_cost": 1}).id)
        assert ended.errors is not None
        assert ended.errors.data is not None
        assert [fault.code for fault in ended.errors.data] == ["cost_not_bounded"] * 2
        rows = [line(f"job-{n}", "priced", model="priced") for n in range(20)]
        ended = wait_for_end(client, submit(client, rows, extra_body={"max_cost": 1}).id)
        assert {r["routing"]["provider"] for r in outcomes(client, ended).values()} == {"sim"}


def test_an_owners_quota_holds_for_all_that_is_his_and_what_waits_comes_back_when_it_is_raised(
    stack_of_its_own: Stack,
) -> None:
    stack = stack_of_its_own
    stack.simulator.patch(completion_tokens=20, completion_tokens_spread=0)
    quota = Decimal("0.02")
    stack.configure([provider(stack)], owners={"default": {"max_cost": float(quota), "per": "total"}})
    in_force(stack)
    with stack.client as client:
        batch = submit(client, lines(200))
        # until a job has asked again it waits for what was under way, so for a limit: a minute at most
        wait_for(lambda: _waits_for(stack, batch.id) == "budget_spent", 75, "the batch to wait for money")
        assert spent(stack, 20) <= quota
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hi"}], max_tokens=1000
            )
        assert caught.value.code == "insufficient_quota"
        with pytest.raises(openai.BadRequestError) as unbounded:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        assert unbounded.value.code == "cost_not_bounded"
        quota_now = requests.get(f"{stack.base_url}/quota", timeout=5).json()
        assert (quota_now["max_cost"], quota_now["per"]) == ("0.02", "total")
        assert Decimal(quota_now["spent"]) == spent(stack, 20) == quota - Decimal(quota_now["left"])
        whole = stack.config.read_text()
        stack.configure([provider(stack)])  # as half of a file may look that has the owners at its end
        with pytest.raises(AssertionError, match="in vain"):
            wait_for(lambda: spent(stack, 20) > quota, 3, "more to be spent")
        stack.config.write_text(whole)
        before = time.monotonic()
        stack.configure([provider(stack)], owners={"*": {"max_cost": 5, "per": "day"}})
        ended = wait_for_end(client, batch.id)
        print(f"all done {time.monotonic() - before:.1f} s after the quota was raised")  # noqa: T201
        assert ended.request_counts is not None
        assert ended.request_counts.completed == 200


def _waits_for(stack: Stack, batch_id: str) -> str | None:
    told = requests.get(f"{stack.base_url}/batches/{batch_id}/explain", timeout=5).json()
    running, waiting = told["running"], told["waiting"]
    if running or not waiting or told["queued"] or told["retrying"]:
        return None
    reason = waiting[0]["reason"]
    return reason if isinstance(reason, str) else None
