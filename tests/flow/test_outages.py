"""Providers that fail, refuse our key or go away, with breaker times shortened: nothing is lost, and what waits says why."""

import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from support.batches import line, lines, outcomes, read, submit, wait_for_end
from support.stack import Stack, running_stack
from support.waiting import wait_for

BREAK_S = 2.0
BREAKER = {"reset_timeout_s": BREAK_S}


@contextmanager
def outage_stack(*args: str, workers: int = 2, **env: Any) -> Iterator[Stack]:
    """Short breaks."""

    def configure(stack: Stack) -> None:
        stack.configure(breaker=BREAKER)

    with running_stack(*args, workers=workers, configure=configure, **env) as stack:
        yield stack


@contextmanager
def failover_stack(*names: str, breaker: dict[str, Any] = BREAKER, **more: Any) -> Iterator[Stack]:
    """A worker, and these personas of the simulator in this order."""

    def configure(stack: Stack) -> None:
        providers = [
            {"id": name, "endpoint": stack.simulator.base_url_of(name), "priority": n, **more}
            for n, name in enumerate(names)
        ]
        stack.configure(providers, breaker=breaker, routing={"strategy": "failover"})

    with running_stack(workers=1, configure=configure) as stack:
        yield stack


def provider(stack: Stack, provider_id: str = "sim") -> Any:
    return requests.get(f"{stack.base_url}/providers/{provider_id}", timeout=5).json()


def explain(stack: Stack, batch_id: str) -> Any:
    return requests.get(f"{stack.base_url}/batches/{batch_id}/explain", timeout=5).json()


def first_tried(stack: Stack, batch_id: str) -> Any:
    """The first of the batch's jobs whose calls so far are told; by line, as a user asks."""
    url = f"{stack.base_url}/batches/{batch_id}/explain"
    for number in range(1, 3000):
        job = requests.get(url, params={"line": number}, timeout=5).json()["job"]
        if job["tries"]:
            return job
    return None


def reasons(stack: Stack, batch_id: str) -> set[str]:
    return {waiting["reason"] for waiting in explain(stack, batch_id)["waiting"]}


def ask(stack: Stack, prompt: str, **headers: str) -> requests.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
    return requests.post(f"{stack.base_url}/chat/completions", json=body, headers=headers, timeout=60)


def job(stack: Stack, job_id: str) -> Any:
    return requests.get(f"{stack.base_url}/jobs/{job_id}", timeout=5).json()


def per_second(stack: Stack, since: float) -> Counter[int]:
    return Counter(int(call["received_at"] - since) for call in stack.simulator.calls())


def resumed_after(stack: Stack, since: float) -> float:
    """Seconds from then to the first answer."""
    times = [c["ended_at"] for c in stack.simulator.calls() if c["status"] == 200 and c["ended_at"] > since]
    return float(min(times) - since)


@pytest.mark.alone
def test_an_outage_in_mid_batch_fails_nothing_and_flow_comes_back_without_a_herd() -> None:
    with outage_stack("--latency-s", "0.02") as stack:
        batch = submit(stack.client, lines(3000))
        wait_for(
            lambda: (stack.client.batches.retrieve(batch.id).request_counts or batch).completed > 200,  # type: ignore[union-attr]
            20,
            "the batch to run",
        )
        stack.simulator.patch(outage="503")
        down = time.time()
        wait_for(lambda: provider(stack)["state"] == "open", 10, "the breaker to open")
        wait_for(lambda: "breaker_open" in reasons(stack, batch.id), 10, "the explanation")
        told = explain(stack, batch.id)
        assert "circuit breaker is open" in told["summary"]
        assert told["parked"] == sum(w["jobs"] for w in told["waiting"])
        assert told["job"] is None
        refused = wait_for(lambda: first_tried(stack, batch.id), 10, "a job that was tried")
        assert refused["status"] == "open"
        assert refused["tries"][0]["status"] == 503
        assert stack.client.batches.retrieve(batch.id).model_extra["waiting"]  # type: ignore[index]
        wait_for(lambda: time.time() - down > 3 * BREAK_S, 20, "three breaks")
        stack.simulator.patch(outage="none")
        up = time.time()
        ended = wait_for_end(stack.client, batch.id, 60)
        assert {row["response"]["status_code"] for row in outcomes(stack.client, ended).values()} == {200}
        rate = per_second(stack, down)
        sys.stdout.write(f"calls a second from the outage on: {[rate[n] for n in range(max(rate) + 1)]}\n")
        again_s = resumed_after(stack, up)
        sys.stdout.write(f"first answer {again_s:.2f} s after the outage's end (break {BREAK_S:g} s)\n")
        assert again_s <= BREAK_S + 2
        failed = [c for c in stack.simulator.calls() if c["status"] == 503]
        assert len(failed) < 3000 / 4, "calls were made that could have been spared"


def test_a_lone_job_outlives_an_outage_and_who_waits_is_told() -> None:
    with outage_stack(LLM_EDGE_WAIT_S="1.5") as stack:
        stack.simulator.patch(outage="503")
        accepted = ask(stack, "patient", Prefer="respond-async").json()["id"]
        wait_for(lambda: provider(stack)["state"] == "open", 20, "the breaker to open")
        wait_for(
            lambda: (job(stack, accepted)["waiting"] or {}).get("reason") == "breaker_open", 10, "the reason"
        )
        waits = job(stack, accepted)["routing"]
        assert waits["provider"] is None
        assert {t["status"] for t in waits["tries"]} == {503}
        told = [ask(stack, f"impatient {n}") for n in range(3)]
        refused = [t for t in told if t.status_code == 503]
        assert refused, [(t.status_code, t.text) for t in told]
        for each in refused:
            assert each.json()["error"]["code"] == "no_provider_available"
            assert "circuit breaker" in each.json()["error"]["message"]
            assert int(each.headers["retry-after"]) >= 1
            assert each.elapsed.total_seconds() < 1.5
        stack.simulator.patch(outage="none")
        up = time.time()
        wait_for(lambda: job(stack, accepted)["status"] == "completed", BREAK_S + 5, "the patient job")
        sys.stdout.write(f"done {time.time() - up:.2f} s after the outage's end (break {BREAK_S:g} s)\n")
        tries = job(stack, accepted)["routing"]["tries"]
        assert {t["status"] for t in tries} == {503}
        assert 1 <= sum(t["charged"] for t in tries) <= 5
        assert ask(stack, "now").status_code == 200


def test_a_wrong_key_loses_nothing_is_explained_and_the_jobs_run_once_it_is_mended() -> None:
    def configure(stack: Stack) -> None:
        key = stack.folder / "key"
        key.write_text("wrong")
        sim = {"id": "sim", "endpoint": stack.simulator.base_url, "api_key_file": str(key)}
        stack.configure([sim], breaker=BREAKER)

    with running_stack(workers=1, configure=configure) as stack:
        stack.simulator.patch(api_key="right")
        key = stack.folder / "key"
        batch = submit(stack.client, lines(100))
        accepted = ask(stack, "lone", Prefer="respond-async").json()["id"]
        wait_for(lambda: "key_refused" in reasons(stack, batch.id), 10, "the explanation")
        assert ask(stack, "in person").json()["error"]["code"] == "no_provider_available"
        found = provider(stack)
        assert (found["serving"], found["state"]) == (False, "closed")
        assert found["out_of_service"][0]["reason"] == "key_refused"
        wait_for(lambda: job(stack, accepted)["waiting"], 10, "the lone job's reason")
        calls = len(stack.simulator.calls())
        assert calls < 60, "every job asked for itself"
        key.write_text("right")  # read anew within ten seconds
        ended = wait_for_end(stack.client, batch.id, 30)
        assert len(outcomes(stack.client, ended)) == 100
        assert read(stack.client, ended.error_file_id) == []
        wait_for(lambda: job(stack, accepted)["status"] == "completed", 20, "the lone job")
        assert provider(stack)["serving"]


def test_a_provider_disabled_by_hand_is_left_alone_and_comes_back_at_once() -> None:
    with outage_stack() as stack:
        requests.post(f"{stack.base_url}/providers/sim/disable", timeout=5).raise_for_status()
        batch = submit(stack.client, lines(50))
        wait_for(lambda: reasons(stack, batch.id) == {"disabled"}, 10, "the explanation")
        assert ask(stack, "in person").status_code == 503
        assert stack.simulator.calls() == []
        requests.post(f"{stack.base_url}/providers/sim/enable", timeout=5).raise_for_status()
        assert wait_for_end(stack.client, batch.id, 15).request_counts.completed == 50  # type: ignore[union-attr]


def test_with_another_provider_up_nobody_notices() -> None:
    with failover_stack("down", "up", breaker={"reset_timeout_s": 30}) as stack:
        stack.simulator.patch("down", outage="503")
        ended = wait_for_end(stack.client, submit(stack.client, lines(300)).id, 30)
        assert len(read(stack.client, ended.output_file_id)) == 300
        assert provider(stack, "down")["state"] == "open"
        assert stack.simulator.stats()["down"]["calls"] < 100
        stack.simulator.patch("down", outage="401")
        requests.post(f"{stack.base_url}/providers/down/enable", timeout=5).raise_for_status()

        def refused() -> bool:
            assert ask(stack, f"lone {time.time()}").status_code == 200
            return [o["reason"] for o in provider(stack, "down")["out_of_service"]] == ["key_refused"]

        wait_for(refused, 10, "the key to be refused, unnoticed")


def test_a_model_refused_by_one_is_asked_of_another() -> None:
    with failover_stack("first", "second", models={"m": "m"}) as stack:
        stack.simulator.patch("first", models=["n"])
        assert [ask(stack, f"x{n}").status_code for n in range(3)] == [200] * 3
        assert stack.simulator.stats()["first"]["calls"] == 1


def test_a_refused_model_waits_and_a_name_merely_passed_on_fails_alone() -> None:
    with failover_stack("known", models={"m": "m", "n": "n", "*": "*"}) as stack:
        stack.simulator.patch("known", models=["n"])
        passed = {"model": "nobody knows", "messages": [{"role": "user", "content": "x"}]}
        url = f"{stack.base_url}/chat/completions"
        assert requests.post(url, json=passed, timeout=30).status_code == 404
        batch = submit(stack.client, [line("gone", "x", model="m"), line("there", "y", model="n")])
        wait_for(lambda: "model_refused" in reasons(stack, batch.id), 10, "the explanation")
        assert ask(stack, "x").status_code == 503
        stack.simulator.patch("known", models=None)
        requests.post(f"{stack.base_url}/providers/known/enable", timeout=5).raise_for_status()
        ended = wait_for_end(stack.client, batch.id, 15)
        assert len(read(stack.client, ended.output_file_id)) == 2


def test_a_poison_request_among_good_ones_fails_after_four_attempts_and_opens_no_breaker_for_long() -> None:
    with outage_stack("--latency-s", "0.05") as stack:
        stack.simulator.patch(rules=[{"match": "^poison", "status": 500}])
        rows = lines(300)
        rows.insert(20, line("poison", "poison"))
        ended = wait_for_end(stack.client, submit(stack.client, rows).id, 60)
        (failed,) = read(stack.client, ended.error_file_id)
        assert failed["custom_id"] == "poison"
        tries = failed["routing"]["tries"]
        assert [t["charged"] for t in tries].count(True) == 4
        assert len([c for c in stack.simulator.calls() if c["prompt"] == "poison"]) == len(tries)
        assert len(read(stack.client, ended.output_file_id)) == 300
        assert provider(stack)["state"] == "closed"


def test_many_poison_requests_hold_the_breaker_open_for_nobody_for_long() -> None:

    def configure(stack: Stack) -> None:
        stack.configure(breaker={"reset_timeout_s": 0.5, "half_open_permits": 4})

    with running_stack("--latency-s", "0.05", workers=1, configure=configure) as stack:
        stack.simulator.patch(rules=[{"match": "^poison", "status": 500}])
        rows = [*lines(100), *(line(f"poison {n}", f"poison {n}") for n in range(8))]
        began = time.time()
        ended = wait_for_end(stack.client, submit(stack.client, rows).id, 120)
        failed = read(stack.client, ended.error_file_id)
        assert len(failed) == 8
        assert len(read(stack.client, ended.output_file_id)) == 100
        most = max(len(row["routing"]["tries"]) for row in failed)
        sys.stdout.write(f"8 poison requests ended after {time.time() - began:.1f} s, {most} calls at most\n")
        assert most <= 8
        wait_for(lambda: ask(stack, "good").status_code == 200, 4 * BREAK_S, "a good call")


def test_a_long_retry_after_is_its_providers_rest_and_keeps_no_job_from_another() -> None:
    with failover_stack("first", "second") as stack:
        for status in (503, 429):
            stack.simulator.patch("first", error_rate=1.0, error_statuses=[status], retry_after_s=3600.0)
            began = time.time()
            assert ask(stack, f"after {status}").status_code == 200
            assert time.time() - began < 3
            stack.simulator.patch("first", error_rate=0.0)
            requests.post(f"{stack.base_url}/providers/first/enable", timeout=5).raise_for_status()


def test_a_poison_request_alone_with_one_provider_waits_and_says_so() -> None:
    with outage_stack() as stack:
        stack.simulator.patch(rules=[{"match": "^poison", "status": 500}])
        batch = submit(stack.client, [line("poison", "poison")])
        found = wait_for(lambda: explain(stack, batch.id)["waiting"], 20, "the explanation")
        assert {w["reason"] for w in found} <= {"provider_failing", "breaker_open", "breaker_half_open"}
        assert stack.client.batches.retrieve(batch.id).status == "in_progress"
        calls = len(stack.simulator.calls())
        assert calls < 20, "it is tried ever less often"
        assert stack.client.batches.cancel(batch.id).status in {"cancelling", "cancelled"}


def test_no_worker_alive_is_a_reason() -> None:
    with outage_stack(workers=0) as stack:
        batch = submit(stack.client, lines(10))
        wait_for(lambda: reasons(stack, batch.id) == {"no_worker_alive"}, 10, "the explanation")
        assert explain(stack, batch.id)["queued"] == 10


def test_who_is_limited_cools_down_for_the_whole_fleet() -> None:
    with outage_stack("--latency-s", "0.02") as stack:
        stack.simulator.patch(rules=[{"match": "^job 1 ", "status": 429, "retry_after_s": 2.0, "times": 1}])
        ended = wait_for_end(stack.client, submit(stack.client, lines(400)).id, 30)
        assert len(read(stack.client, ended.output_file_id)) == 400
        calls = sorted(stack.simulator.calls(), key=lambda call: call["received_at"])
        limited = next(call for call in calls if call["status"] == 429)
        times = [call["received_at"] for call in calls if call["received_at"] > limited["ended_at"] + 0.3]
        gap = max((b - a for a, b in itertools.pairwise([limited["ended_at"], *times])), default=0)
        assert gap > 1.5, "calls went on during the cool-down"
