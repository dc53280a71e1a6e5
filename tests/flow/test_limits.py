"""Limits over several real workers, witnessed by the simulator, which sees every call."""

import itertools
import sys
import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import pytest
import requests
from support.batches import line, lines, outcomes, submit, wait_for_end
from support.stack import START_S, Stack, running_stack
from support.waiting import wait_for

JOBS = 60
RPM, CALLS = 600, 3
LATENCY_S = 0.2
LATE_CALLS = 2
"""A permit's call may reach the provider later than the next one's."""

WORKERS = 4
MINUTE_S, DEMAND_S = 60.0, 105.0
FIRST_S, LAST_JOBS = 5.0, 150
"""There is constant demand after the first seconds, and before the last jobs."""

UNDER_WAY_S = 0.5
"""A call with its permit in hand reaches the provider within this."""

FEW_MS = 0.005


def test_two_workers_pass_neither_the_calls_at_a_time_nor_the_requests_a_minute() -> None:
    with running_stack("--latency-s", str(LATENCY_S), workers=0, LLM_EDGE_CONCURRENCY="16") as stack:
        limits = {"rpm": RPM, "concurrency": CALLS}
        stack.configure(providers=[{"id": "sim", "endpoint": stack.simulator.base_url, "limits": limits}])
        stack.start_worker(wait=False)
        stack.start_worker()
        wait_for(lambda: stack.workers_alive() == 2, START_S, "both workers to report")
        ended = wait_for_end(stack.client, submit(stack.client, lines(JOBS)).id, 30)
        found = outcomes(stack.client, ended)
        most, calls = stack.simulator.stats()["default"]["max_in_flight"], stack.simulator.calls()
    assert {row["response"]["status_code"] for row in found.values()} == {200}
    assert len(calls) == JOBS
    times = sorted(call["received_at"] for call in calls)
    sys.stdout.write(f"{JOBS} calls in {times[-1] - times[0]:.2f} s, {most} at once at most\n")
    assert most == CALLS
    a_second = RPM / 60
    for first in range(JOBS):
        for last in range(first + 1, JOBS):
            allowed = a_second * (times[last] - times[first]) + a_second + LATE_CALLS
            assert last - first + 1 <= allowed, (
                f"{last - first + 1} within {times[last] - times[first]:.3f} s"
            )


def test_a_batch_that_waits_for_its_own_money_keeps_no_other_from_their_provider() -> None:
    """Of its jobs one at a time may run, each for long; the others at that provider's limit go past it."""
    with running_stack("--latency-s", str(LATENCY_S), workers=0, LLM_EDGE_CONCURRENCY="40") as stack:
        sim = {"id": "sim", "endpoint": stack.simulator.base_url, "cost_per_1k_tokens": 0.01}
        stack.configure(providers=[{**sim, "limits": {"concurrency": 10}}])
        stack.simulator.patch(rules=[{"match": "^dear", "latency_s": 5.0}])
        stack.start_worker()
        dear = [line(f"dear-{n}", f"dear {n}", max_tokens=2000) for n in range(600)]
        held_up = submit(stack.client, dear, extra_body={"max_cost": "0.03"})
        wait_for(lambda: len(waiting(stack, held_up.id)) > 0, 30, "its money to be under way")
        plain = wait_for_end(stack.client, submit(stack.client, lines(200)).id, 40)
        assert plain.request_counts is not None
        assert plain.request_counts.completed == 200
        assert {each["reason"] for each in waiting(stack, held_up.id)} == {"limit_reached"}
        stack.client.batches.cancel(held_up.id)


def waiting(stack: Stack, batch_id: str) -> list[dict[str, Any]]:
    return (stack.client.batches.retrieve(batch_id).model_extra or {})["waiting"] or []


@pytest.mark.parametrize("n", [128, 10**19])
def test_requests_beyond_measure_keep_others_waiting_no_longer_than_they_take(n: int) -> None:
    """What they reserve of the tokens a minute comes back with their refusal."""
    with running_stack("--latency-s", "0.01", workers=0, LLM_EDGE_CONCURRENCY="40") as stack:
        sim = {"id": "sim", "endpoint": stack.simulator.base_url, "limits": {"tpm": 60_000}}
        stack.configure(providers=[sim])
        stack.simulator.patch(rules=[{"match": "^absurd", "status": 400, "latency_s": 1.5}])
        stack.start_worker()
        absurd = submit(stack.client, [line(f"absurd-{k}", "absurd", n=n) for k in range(3)])
        wait_for(stack.simulator.calls, 10, "one to be under way")
        ended = wait_for_end(stack.client, submit(stack.client, lines(100)).id, 20)
        assert {row["response"]["status_code"] for row in outcomes(stack.client, ended).values()} == {200}
        assert wait_for_end(stack.client, absurd.id, 20).status == "completed"
        assert "gate_failed" not in stack.log("worker-1")


def test_every_api_process_tells_how_much_is_in_use() -> None:
    """As many calls as the simulator has in flight, by the gate's own count."""
    with running_stack("--latency-s", "60", workers=0, LLM_EDGE_CONCURRENCY="16") as stack:
        limits = {"rpm": 6000, "tpm": 90_000, "concurrency": CALLS}
        stack.kill_api()
        stack.configure(providers=[{"id": "sim", "endpoint": stack.simulator.base_url, "limits": limits}])
        stack.start_api()
        urls = [stack.base_url, stack.start_another_api()]
        stack.start_worker(wait=False)
        stack.start_worker()
        submit(stack.client, lines(JOBS))

        def told(url: str) -> dict[str, tuple[int, float, float]]:
            (provider,) = requests.get(f"{url}/providers", timeout=5).json()["data"]
            return {x["kind"]: (x["limit"], x["in_use"], x["room"]) for x in provider["limits"]}

        full = (CALLS, CALLS, CALLS)
        for url in urls:
            wait_for(lambda url=url: told(url)["concurrency"] == full, START_S, f"{url}: {told(url)}")  # type: ignore[misc]
        assert stack.simulator.stats()["default"]["in_flight"] == CALLS
        # the bucket of tokens fills between two looks, until it is full
        wait_for(lambda: told(urls[0]) == told(urls[1]), 10, "both to tell the same")
        assert {kind: row[0] for kind, row in told(urls[0]).items()} == limits
        assert [row[2] for row in told(urls[0]).values()] == [100, 1500, CALLS]
        for worker in list(stack.workers):  # they would wait for their calls
            stack.kill_worker(worker)


def calls_within(times: Sequence[float], span_s: float) -> list[int]:
    """How many calls came in within so many seconds, from each of them on; of whole spans only."""
    return [
        bisect_left(times, first + span_s) - n for n, first in enumerate(times) if first + span_s <= times[-1]
    ]


@pytest.mark.verify
@pytest.mark.alone
@pytest.mark.timeout(300)
def test_four_workers_use_six_hundred_a_minute_up_and_pass_it_in_no_minute() -> None:
    with running_stack("--latency-s", str(LATENCY_S), workers=0, LLM_EDGE_CONCURRENCY="16") as stack:
        limits = {"rpm": RPM}
        stack.configure(providers=[{"id": "sim", "endpoint": stack.simulator.base_url, "limits": limits}])
        start_workers(stack)
        batch = submit(stack.client, lines(int(RPM / 60 * DEMAND_S)))
        ended = wait_for_end(stack.client, batch.id, 2 * DEMAND_S, every_s=1.0)
        found = outcomes(stack.client, ended)
        calls = stack.simulator.calls()
    assert {row["response"]["status_code"] for row in found.values()} == {200}
    assert len(calls) == len(found)
    times = sorted(call["received_at"] for call in calls)
    minutes = calls_within(times, MINUTE_S)
    steady = calls_within([at for at in times[:-LAST_JOBS] if at > times[0] + FIRST_S], MINUTE_S)
    sys.stdout.write(
        f"{len(times)} calls in {times[-1] - times[0]:.1f} s; in any of {len(minutes)} minutes at most {max(minutes)}, under"
        f" constant demand at least {min(steady)} in {len(steady)} of them\n"
    )
    a_second = RPM / 60
    assert max(minutes) <= a_second * (MINUTE_S + UNDER_WAY_S) + a_second
    assert min(steady) >= 0.99 * RPM


@pytest.mark.alone
def test_a_retry_after_that_one_worker_was_told_is_obeyed_by_all_four() -> None:
    with running_stack("--latency-s", "0.05", workers=0, LLM_EDGE_CONCURRENCY="8", WORKERS_KEY="-") as stack:
        sim = {"id": "sim", "endpoint": stack.simulator.base_url, "api_key_env": "WORKERS_KEY"}
        stack.configure(providers=[sim])
        stack.simulator.patch(rules=[{"match": "^job 600 ", "status": 429, "retry_after_s": 3, "times": 1}])
        start_workers(stack, own_keys=True)
        ended = wait_for_end(stack.client, submit(stack.client, lines(1200)).id, 60)
        assert len(outcomes(stack.client, ended)) == 1200
        calls = stack.simulator.calls()
    (limited,) = (call for call in calls if call["status"] == 429)
    told, until = limited["ended_at"], limited["ended_at"] + 3.0
    before = {c["authorization_sha256"] for c in calls if c["received_at"] < told}
    after = [c for c in calls if c["received_at"] >= told + UNDER_WAY_S]
    first_s = min(c["received_at"] for c in after) - told
    sys.stdout.write(
        f"told to wait 3 s; {len(before)} workers called before, the first call came {first_s:.2f} s later\n"
    )
    assert len(before) == WORKERS
    assert {c["authorization_sha256"] for c in after} == before
    assert all(c["received_at"] >= until - FEW_MS for c in after)


def most_at_once(calls: Sequence[dict[str, Any]]) -> int:
    begun = [(call["received_at"], 1) for call in calls]
    return max(
        itertools.accumulate(n for _, n in sorted([*begun, *((call["ended_at"], -1) for call in calls)]))
    )


def test_a_model_has_limits_of_its_own_by_its_providers_name_for_it_and_a_new_file_changes_them() -> None:
    asked = itertools.cycle(["quick", "small", "large", "large"])
    with running_stack("--latency-s", str(LATENCY_S), workers=0, LLM_EDGE_CONCURRENCY="20") as stack:

        def limit(calls: int) -> None:
            models = {"quick": "small", "*": "*"}
            own = {"models": {"small": {"concurrency": calls}}}
            sim = {"id": "sim", "endpoint": stack.simulator.base_url, "models": models, "limits": own}
            stack.configure(providers=[sim])

        limit(2)
        stack.start_worker(wait=False)
        stack.start_worker()
        wait_for(lambda: stack.workers_alive() == 2, START_S, "both workers to report")
        rows = [line(f"job-{n}", f"job {n} says hello", model=next(asked)) for n in range(240)]
        batch = submit(stack.client, rows)
        wait_for(lambda: stack.simulator.stats()["default"]["calls"] > 40, 30, "it to be under way")
        changed_at = time.time()
        limit(6)
        found = outcomes(stack.client, wait_for_end(stack.client, batch.id))
        calls = stack.simulator.calls()
    assert {row["response"]["status_code"] for row in found.values()} == {200}
    small, large = ([c for c in calls if c["model"] == name] for name in ("small", "large"))
    assert (len(small), len(large)) == (120, 120)
    before = most_at_once([call for call in small if call["received_at"] < changed_at])
    sys.stdout.write(f"at once: small {before}, then {most_at_once(small)}; large {most_at_once(large)}\n")
    assert (before, most_at_once(small)) == (2, 6)
    assert most_at_once(large) > 6


def start_workers(stack: Stack, *, own_keys: bool = False) -> None:
    """Four; `own_keys`: each shows the provider one of its own, by which its calls are known in the simulator's log."""
    for n in range(WORKERS):
        stack.start_worker(wait=False, **({"WORKERS_KEY": f"key-{n}"} if own_keys else {}))
    wait_for(lambda: stack.workers_alive() == WORKERS, 2 * START_S, "all workers to report")
