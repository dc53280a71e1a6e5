"""Who waits in person is told why nobody serves him, and when to come again: at once, or where his patience ends."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from support.batches import lines, submit, wait_for_end
from support.stack import Stack, running_stack
from support.waiting import wait_for

WAIT_S = 4.0
BREAK_S = 2.0


@contextmanager
def impatient_stack(*, workers: int = 1, wait_s: float = WAIT_S) -> Iterator[Stack]:
    """Callers wait so long; the breaks are short."""

    def configure(stack: Stack) -> None:
        stack.configure(breaker={"reset_timeout_s": BREAK_S})

    with running_stack(workers=workers, configure=configure, LLM_EDGE_WAIT_S=f"{wait_s:g}") as stack:
        yield stack


def ask(base_url: str, prompt: str, **headers: str) -> requests.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
    return requests.post(f"{base_url}/chat/completions", json=body, headers=headers, timeout=30)


def at_each(urls: list[str], prompt: str) -> list[requests.Response]:
    """The same from a caller at each API, at the same time."""
    found: dict[str, requests.Response] = {}
    callers = [
        threading.Thread(target=lambda url=url: found.update({url: ask(url, f"{prompt} at {url}")}))
        for url in urls
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return [found[url] for url in urls]


def job(stack: Stack, job_id: str) -> Any:
    return requests.get(f"{stack.base_url}/jobs/{job_id}", timeout=5).json()


def assert_told(response: requests.Response, reason: str) -> None:
    """The reason, in the answer's message, and when to come again."""
    assert response.status_code == 503, response.text
    error = response.json()["error"]
    assert error["code"] == "no_provider_available"
    assert f"({reason})" in error["message"]
    assert int(response.headers["retry-after"]) >= 1
    sys.stdout.write(f"{response.elapsed.total_seconds():.2f} s: {error['message']}\n")


def await_cancelled(stack: Stack, job_id: str) -> None:
    """One in a worker's hands ends where it would be called (again)."""
    wait_for(lambda: job(stack, job_id)["status"] == "cancelled", BREAK_S + 5, "the job to end uncalled")


def seconds(response: requests.Response) -> float:
    return response.elapsed.total_seconds()


def test_a_cool_down_longer_than_the_wait_is_told_at_once_and_in_full_by_every_api() -> None:
    with impatient_stack(wait_s=70) as stack:
        urls = [stack.base_url, stack.start_another_api()]
        stack.simulator.patch(error_rate=1.0, error_statuses=[429], retry_after_s=3600)
        first = ask(stack.base_url, "first")
        assert_told(first, "rate_limited")
        calls = len(stack.simulator.calls())
        for told in at_each(urls, "second"):
            assert_told(told, "rate_limited")
            assert seconds(told) < 3
            assert 3500 < int(told.headers["retry-after"]) <= 3602
            assert job(stack, told.headers["x-llm-edge-job"])["status"] == "cancelled"
        patient = ask(stack.base_url, "patient", Prefer="respond-async").json()["id"]
        waiting = wait_for(lambda: job(stack, patient)["waiting"], 10, "the reason")
        assert waiting["until"] - time.time() > 3500
        assert len(stack.simulator.calls()) == calls


def test_where_a_callers_patience_ends_while_his_job_is_parked_he_is_told_why() -> None:
    with impatient_stack() as stack:
        urls = [stack.base_url, stack.start_another_api()]
        stack.simulator.patch(outage="503")
        for n in range(3):
            for told in at_each(urls, f"outage {n}"):
                assert told.status_code == 503, told.text
                assert told.json()["error"]["code"] == "no_provider_available"
                assert int(told.headers["retry-after"]) <= BREAK_S + 2
                assert seconds(told) < WAIT_S + 1.5
                await_cancelled(stack, told.headers["x-llm-edge-job"])
        stack.simulator.patch(outage="none")
        calls = len(stack.simulator.calls())
        wait_for(lambda: ask(stack.base_url, "again").status_code == 200, 20, "an answer")
        assert {c["prompt"] for c in stack.simulator.calls()[calls:]} == {"again"}


def test_a_job_with_a_key_goes_on_after_its_caller_was_told() -> None:
    with impatient_stack() as stack:
        stack.simulator.patch(outage="503")
        wait_for(
            lambda: (
                requests.get(f"{stack.base_url}/providers/sim", timeout=5).json()["state"] == "open"
                or ask(stack.base_url, "opens the breaker") is None
            ),
            30,
            "the breaker to open",
        )
        told = ask(stack.base_url, "keyed", **{"Idempotency-Key": "k1"})
        assert told.status_code == 503, told.text
        assert job(stack, told.headers["x-llm-edge-job"])["status"] in {"queued", "in_progress"}
        stack.simulator.patch(outage="none")
        again = ask(stack.base_url, "keyed", **{"Idempotency-Key": "k1"})
        assert again.status_code == 200
        assert again.headers["x-llm-edge-job"] == told.headers["x-llm-edge-job"]


def test_a_job_that_runs_or_stands_behind_others_is_no_fault_of_a_provider() -> None:
    with impatient_stack(wait_s=1.5) as stack:
        stack.simulator.patch(latency_s=4.0)
        slow = ask(stack.base_url, "slow")
        assert slow.status_code == 504
        assert slow.json()["error"]["code"] == "wait_limit_reached"
        found = wait_for(
            lambda: job(stack, slow.json()["job_id"])["status"] == "completed", 20, "the slow job"
        )
        assert found


def test_without_a_worker_callers_are_told_so_and_jobs_say_it() -> None:
    with impatient_stack(wait_s=30) as stack:
        urls = [stack.base_url, stack.start_another_api()]
        stack.kill_worker(stack.workers[0])
        wait_for(lambda: stack.workers_alive() == 0, 10, "the worker to be missed")
        patient = ask(stack.base_url, "patient", Prefer="respond-async").json()["id"]
        waiting = wait_for(lambda: job(stack, patient)["waiting"], 3, "the reason")
        assert waiting == {"reason": "no_worker_alive", "provider": None, "since": None, "until": None}
        for told in at_each(urls, "first"):  # they wait until it is sure that none is about to report
            assert_told(told, "no_worker_alive")
            assert seconds(told) < 10
        for told in at_each(urls, "second"):
            assert_told(told, "no_worker_alive")
            assert seconds(told) < 2.5
            assert job(stack, told.headers["x-llm-edge-job"])["status"] == "cancelled"
        stack.start_worker()
        wait_for(lambda: job(stack, patient)["status"] == "completed", 10, "the patient job")
        assert ask(stack.base_url, "now").status_code == 200
        assert {c["prompt"] for c in stack.simulator.calls()} == {"patient", "now"}


def test_a_worker_that_is_just_starting_is_waited_for() -> None:
    with impatient_stack(workers=0, wait_s=30) as stack:
        stack.kill_api()
        stack.start_worker(wait=False)
        stack.start_api()
        assert ask(stack.base_url, "early").status_code == 200


def test_where_no_worker_has_come_by_the_end_of_a_short_wait_that_is_the_reason() -> None:
    with impatient_stack(workers=0) as stack:
        told = ask(stack.base_url, "short")
        assert_told(told, "no_worker_alive")
        assert WAIT_S - 3 < seconds(told) < WAIT_S + 1


def test_an_explanations_line_is_checked_whether_the_batch_runs_or_not() -> None:
    with impatient_stack() as stack:
        batch = submit(stack.client, lines(3))
        wait_for_end(stack.client, batch.id, 20)
        url = f"{stack.base_url}/batches/{batch.id}/explain"
        for wrong in ("-1", "0", "4", "\0", "1e3", ""):
            refused = requests.get(url, params={"line": wrong}, timeout=5)
            assert refused.status_code == 400, wrong
            assert refused.json()["error"]["param"] == "line"
        assert requests.get(url, params={"line": "3"}, timeout=5).json()["job"] is None
