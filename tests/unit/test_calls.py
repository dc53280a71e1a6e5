import threading
from collections.abc import Callable, Iterator

import pytest
from support.waiting import wait_for

from workers.calls import Calls, Lane


class Gate:
    """Work that waits until it is let go."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.started: list[str] = []

    def work(self, name: str) -> Callable[[], None]:
        def run() -> None:
            self.started.append(name)
            self._open.wait(5)

        return run

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


def make(size: int) -> Calls:
    calls = Calls(size)
    calls.start()
    return calls


def test_no_more_in_flight_than_its_size(gate: Gate) -> None:
    calls = make(4)
    for n in range(20):
        calls.submit(Lane.INTERACTIVE, gate.work(str(n)))
    wait_for(lambda: calls.in_flight == 4, 5, "four in flight")
    assert len(gate.started) == 4
    gate.open()
    wait_for(lambda: len(gate.started) == 20, 5, "all")
    calls.stop()


def test_batch_jobs_leave_a_fifth_to_interactive_ones(gate: Gate) -> None:
    calls = make(10)
    for n in range(20):
        calls.submit(Lane.FRESH, gate.work(f"batch-{n}"))
    wait_for(lambda: calls.in_flight == 8, 5, "the batch share")
    for n in range(3):
        calls.submit(Lane.INTERACTIVE, gate.work(f"person-{n}"))
    wait_for(lambda: calls.in_flight == 10, 5, "the rest")
    assert sum(name.startswith("batch") for name in gate.started) == 8
    gate.open()
    wait_for(lambda: len(gate.started) == 23, 5, "all")
    calls.stop()


def test_lanes_are_served_in_order(gate: Gate) -> None:
    calls = make(1)
    calls.submit(Lane.FRESH, gate.work("first"))
    wait_for(lambda: calls.in_flight == 1, 5, "the first")
    for lane in (Lane.FRESH, Lane.RETRY, Lane.INTERACTIVE):
        calls.submit(lane, gate.work(lane.name))
    gate.open()
    wait_for(lambda: len(gate.started) == 4, 5, "all")
    assert gate.started == ["first", "INTERACTIVE", "RETRY", "FRESH"]
    calls.stop()


def test_there_is_room_until_two_rounds_wait(gate: Gate) -> None:
    calls = make(5)
    for n in range(4 + 8):
        assert calls.has_room(Lane.FRESH)
        calls.submit(Lane.FRESH, gate.work(str(n)))
        wait_for(lambda n=n: calls.in_flight == min(n + 1, 4), 5, "started")  # type: ignore[misc]
    assert not calls.has_room(Lane.FRESH)
    assert calls.has_room(Lane.RETRY)
    gate.open()
    wait_for(lambda: calls.has_room(Lane.FRESH), 5, "room again")
    calls.stop()


def test_a_caller_outlives_a_job_that_breaks() -> None:
    calls = make(1)
    done = threading.Event()

    def breaks() -> None:
        raise ValueError("broken")

    calls.submit(Lane.FRESH, breaks)
    calls.submit(Lane.FRESH, done.set)
    assert done.wait(5)
    wait_for(lambda: calls.in_flight == 0, 5, "nothing in flight")
    calls.stop()
