"""Limits over two real workers, witnessed by the simulator, which sees every call."""

import sys

import requests
from support.batches import lines, outcomes, submit, wait_for_end
from support.stack import START_S, running_stack
from support.waiting import wait_for

JOBS = 60
RPM, CALLS = 600, 3
LATENCY_S = 0.2
LATE_CALLS = 2
"""A permit's call may reach the provider later than the next one's."""


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
        assert told(urls[0]) == told(urls[1])
        assert {kind: row[0] for kind, row in told(urls[0]).items()} == limits
        assert [row[2] for row in told(urls[0]).values()] == [100, 1500, CALLS]
        for worker in list(stack.workers):  # they would wait for their calls
            stack.kill_worker(worker)
