"""The line of those who wait at a limit."""

import threading
from collections.abc import Callable

import pytest
from support.waiting import wait_for

from shared.gate import Block
from shared.reasons import Reason
from workers import line
from workers.line import TURN_S, WAIT_S, Line

NOW = 1000.0
OPEN = Block("b", Reason.BREAKER_OPEN, NOW + 30)


def at_limit(in_s: float, kind: str = "rpm") -> Block:
    return Block("a", Reason.LIMIT_REACHED, NOW + in_s, kind)


class Time:
    def __init__(self) -> None:
        self.now = 50.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(line, "time", found)
    return found


def test_only_a_limit_that_ends_soon_is_waited_for_and_only_in_a_free_place() -> None:
    assert not Line(1).wait([OPEN], NOW, WAIT_S)
    assert not Line(1).wait([at_limit(WAIT_S + 1)], NOW, WAIT_S)
    assert not Line(0).wait([at_limit(0.0)], NOW, WAIT_S)
    assert Line(1).wait([OPEN, at_limit(0.0)], NOW, WAIT_S)


def test_a_call_that_ends_lets_one_who_waits_for_that_provider_try() -> None:
    waiting = Line(2)
    tried: list[bool] = []
    callers = [
        threading.Thread(target=lambda: tried.append(waiting.wait([at_limit(60, "concurrency")], NOW, 60)))
        for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    wait_for(lambda: len(waiting._waiting) == 2, 5, "both to wait")
    assert not waiting.wait([at_limit(0.0)], NOW, WAIT_S)  # no place is left
    waiting.ended("b")
    assert tried == []
    waiting.ended("a")
    wait_for(lambda: tried == [True], 5, "one to try")
    waiting.ended("a")
    for caller in callers:
        caller.join(5)
    assert tried == [True, True]


def turns(waiting: Line, times: int) -> list[float]:
    return [round(waiting.turns((at_limit(0.1),), NOW)[0].until - NOW, 3) for _ in range(times)]


def test_turns_come_at_twice_the_pace_of_late(time: Time) -> None:
    waiting = Line(1)
    assert turns(waiting, 2) == [0.1, 0.1]  # nothing is known
    for _ in range(100):
        waiting.began("a")
        time.now += 0.1
    first, second, third = turns(waiting, 3)
    assert second - first == pytest.approx(1 / 20, rel=0.05)
    assert third - second == pytest.approx(1 / 20, rel=0.05)
    assert max(turns(waiting, 10_000)) == TURN_S


def test_what_is_no_limit_has_no_turns(time: Time) -> None:
    waiting = Line(1)
    waiting.began("a")
    time.now += 5
    assert waiting.turns((OPEN,), NOW) == (OPEN,)
    told: Callable[[], tuple[Block, ...]] = lambda: waiting.turns((OPEN, at_limit(0.1)), NOW)  # noqa: E731
    assert told()[0] == OPEN
    assert told()[1].until > NOW + 0.1
