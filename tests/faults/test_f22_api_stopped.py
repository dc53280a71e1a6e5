"""F22: the API is asked to stop (SIGTERM, SIGINT) while uploads come and callers wait. Streams are not served yet."""

import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from openai import OpenAI
from support.balancer import balancing
from support.batches import lines, submit
from support.callers import MODEL, Callers
from support.faults import Report
from support.full import full
from support.invariants import Accepted, at_rest, get, settled
from support.slow_upload import Upload
from support.stack import Stack, free_port, running_stack
from support.waiting import wait_for

GRACE_S = 3.0
ENDS_S = GRACE_S + 10.0


def ask(url: str, text: str, **headers: str) -> requests.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    return requests.post(f"{url}/chat/completions", json=body, headers=headers, timeout=60)


def told_to_repeat(answer: requests.Response) -> dict[str, Any]:
    """Its body, which is OpenAI's envelope."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["x-request-id"].startswith("req_")
    said: dict[str, Any] = answer.json()
    assert said["error"]["code"] == "server_stopping"
    assert {"message", "type", "param"} < said["error"].keys()
    return said


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def stop_api(stack: Stack, sig: int) -> Callable[[], None]:
    """Ask it; what is given waits for its end, which must be in order."""
    assert stack.api is not None
    api = stack.api
    api.send_signal(sig)
    wait_for(lambda: refuses_connections(stack.port), 5, "new connections to be refused")
    assert api.poll() is None, "it ended while requests were under way"

    def ended() -> None:
        assert api.wait(ENDS_S) == 0, stack.log("api")
        stack.api = None

    return ended


def in_flight(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["in_flight"])


@pytest.mark.parametrize("sig", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=full)])
def test_what_ends_within_the_grace_time_is_served(sig: int, report: Report) -> None:
    with (
        running_stack(LLM_EDGE_LEASE_S="15", LLM_EDGE_API_GRACE_S="15") as stack,
        ThreadPoolExecutor(40) as threads,
        report.of(
            f"API stopped ({signal.Signals(sig).name}), all in time", "gevent", 290, case="F22"
        ) as trial,
    ):
        stack.simulator.patch(latency_s=1.5)
        accepted = Accepted(stack)
        accepted.batch(250)
        asked = [threads.submit(ask, stack.base_url, f"question {n}") for n in range(40)]
        wait_for(lambda: in_flight(stack) >= 60, 20, "calls in flight")
        upload = Upload(stack, 9_000_000)
        upload.send(5_000_000)
        ended: list[Callable[[], None]] = []
        trial.fault(lambda: ended.append(stop_api(stack, sig)))
        upload.finish()
        stored = upload.answer()
        assert stored.status_code == 200, stored.text
        told = [future.result() for future in asked]
        assert {answer.status_code for answer in told} == {200}
        ended[0]()
        stack.start_api()
        accepted.jobs += [answer.headers["x-llm-edge-job"] for answer in told]
        assert get(stack, f"/files/{stored.json()['id']}")["bytes"] == 9_000_000
        settled(accepted, trial)
        assert trial.figures.again == 0
        stack.simulator.patch(latency_s=0.01)
        at_rest(stack)


@pytest.mark.parametrize("sig", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=full)])
def test_what_does_not_is_told_to_come_again_and_finds_its_job(sig: int, report: Report) -> None:
    with (
        running_stack(LLM_EDGE_LEASE_S="15", LLM_EDGE_API_GRACE_S=str(GRACE_S)) as stack,
        ThreadPoolExecutor(41) as threads,
        report.of(f"API stopped ({signal.Signals(sig).name}), too slow", "gevent", 40, case="F22") as trial,
    ):
        stack.simulator.patch(latency_s=GRACE_S + 5)
        accepted = Accepted(stack)
        asked = {n: threads.submit(ask, stack.base_url, f"question {n}") for n in range(20)}
        asked |= {
            n: threads.submit(ask, stack.base_url, f"question {n}", **{"Idempotency-Key": f"key {n}"})
            for n in range(20, 40)
        }
        wait_for(lambda: in_flight(stack) == 40, 20, "calls in flight")
        half, slow = Upload(stack, 9_000_000), Upload(stack, 9_000_000)
        half.send(5_000_000)
        slow.send(5_000_000)
        ended: list[Callable[[], None]] = []
        trial.fault(lambda: ended.append(stop_api(stack, sig)))
        # this one sends on while the grace time ends: it is heard out, so that it hears why
        sending = threads.submit(_paced, slow, GRACE_S + 1.0)
        told = {n: future.result() for n, future in asked.items()}
        told_to_repeat(half.answer())
        told_to_repeat(sending.result())
        ended[0]()
        jobs = {n: told_to_repeat(answer)["job_id"] for n, answer in told.items()}
        assert {n: answer.headers["x-llm-edge-job"] for n, answer in told.items()} == jobs
        stack.start_api()
        accepted.jobs += jobs.values()
        again = {n: threads.submit(ask, stack.base_url, f"question {n}", **how(n)) for n in range(40)}
        answers = {n: future.result() for n, future in again.items()}
        assert {answer.status_code for answer in answers.values()} == {200}
        assert {n: answer.headers["x-llm-edge-job"] for n, answer in answers.items()} == jobs
        settled(accepted, trial)
        assert trial.figures.again == 0
        with stack.client as client, stack.valkey.client() as redis:
            assert client.files.list().data == []
            assert redis.keys("*:f:*:c") == [], "half a file is left"
        stack.simulator.patch(latency_s=0.01)
        at_rest(stack)


def how(n: int) -> dict[str, str]:
    """As the SDK repeats, with a key and without."""
    return {"Idempotency-Key": f"key {n}"} if n >= 20 else {"x-stainless-retry-count": "1"}


def _paced(upload: Upload, for_s: float) -> requests.Response:
    """Bytes now and then, and the rest after so many seconds: the answer."""
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        upload.send(100)
        threading.Event().wait(0.05)
    upload.finish()
    return upload.answer()


def test_a_second_interrupt_ends_the_grace_time(report: Report) -> None:
    with (
        running_stack(LLM_EDGE_LEASE_S="15", LLM_EDGE_API_GRACE_S="600") as stack,
        ThreadPoolExecutor(4) as threads,
        report.of("API stopped twice", "gevent", 4, case="F22") as trial,
    ):
        stack.simulator.patch(latency_s=6)
        accepted = Accepted(stack)
        asked = [threads.submit(ask, stack.base_url, f"question {n}") for n in range(4)]
        wait_for(lambda: in_flight(stack) == 4, 20, "calls in flight")
        ended = stop_api(stack, signal.SIGINT)
        assert stack.api is not None
        api = stack.api
        trial.fault(lambda: api.send_signal(signal.SIGINT))
        accepted.jobs += [told_to_repeat(future.result())["job_id"] for future in asked]
        ended()
        stack.start_api()
        stack.simulator.patch(latency_s=0.01)
        settled(accepted, trial)
        at_rest(stack)


@pytest.mark.parametrize(("jobs", "restarts"), [(200, 2), pytest.param(1500, 10, marks=full)])
def test_a_rolling_restart_behind_clients_that_repeat(jobs: int, restarts: int, report: Report) -> None:
    """Two APIs behind one address, one of them stopped at a time: stock SDKs notice nothing."""
    with (
        running_stack(LLM_EDGE_LEASE_S="15", LLM_EDGE_API_GRACE_S="2") as stack,
        report.of("two APIs stopped by turns", "gevent", jobs + 600, case="F22") as trial,
    ):
        stack.simulator.patch(latency_s=0.5, latency_p95_s=4.0)
        ports = [stack.port, free_port()]
        stack.start_another_api(f"http://127.0.0.1:{ports[1]}/v1")
        accepted = Accepted(stack)
        with balancing(ports) as base_url, Callers(base_url, max_retries=20) as callers:
            asked = callers.ask([f"question {n}" for n in range(jobs)])
            batches = threading.Thread(target=_submit_batches, args=(base_url, accepted))
            batches.start()
            for n in range(restarts):
                wait_for(lambda goal=(n + 1) * jobs // (restarts + 1): _calls(stack) >= goal, 60, "calls")  # type: ignore[misc]
                trial.fault(lambda n=n: _restart(stack, ports, n % 2))  # type: ignore[misc]
            told = [future.result(90) for future in asked]
            batches.join()
        accepted.jobs += [answer.job_id for answer in told]
        assert len(set(accepted.jobs)) == jobs
        assert len(accepted.batches) == 3
        settled(accepted, trial)
        assert trial.figures.again == 0
        stack.simulator.patch(latency_s=0.01, latency_p95_s=None)
        at_rest(stack)


def _calls(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["calls"])


def _submit_batches(base_url: str, accepted: Accepted) -> None:
    with OpenAI(base_url=base_url, api_key="none", max_retries=20, timeout=60) as client:
        for n in range(3):
            rows = lines(200, f"batch-{n}")
            accepted.batches[submit(client, rows).id] = frozenset(row["custom_id"] for row in rows)


def _restart(stack: Stack, ports: list[int], which: int) -> None:
    process = stack.api if which == 0 else stack.another_api
    assert process is not None
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    if which == 0:
        stack.start_api()
    else:
        stack.start_another_api(f"http://127.0.0.1:{ports[1]}/v1")
