"""The lines of those who wait at limits."""

import threading

import pytest
from support.waiting import wait_for

from shared.gate import Block, Candidate
from shared.limits import Limit
from shared.reasons import Reason
from workers import line
from workers.line import TURN_S, WAIT_S, Lines

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


def test_a_limit_is_waited_for_that_ends_soon_and_only_in_a_free_place() -> None:
    assert not Lines(1).wait("a", at_limit(WAIT_S + 1), NOW, WAIT_S)
    assert not Lines(0).wait("a", at_limit(0.0), NOW, WAIT_S)
    assert Lines(1).wait("a", at_limit(0.0), NOW, WAIT_S)


def test_of_what_is_in_the_way_the_limit_that_ends_first_is_waited_for() -> None:
    later, sooner = at_limit(3.0), at_limit(2.0)
    assert line.at_limit([OPEN, later, sooner]) is sooner
    assert line.at_limit([OPEN]) is None


def test_calls_under_the_same_limits_are_in_one_line() -> None:
    rows = (Limit("p:a", "rpm", 1, 600), Limit("p:a|m", "rpm", 1, 60))
    money = Limit("b:batch-of-somebody", "money", 1, 600)
    lines = [
        line.line_of(Candidate("a", "a", "", "m", "", limits))
        for limits in (None, (money,), (*rows[:1], money), (*rows, money))
    ]
    assert lines == ["p:a", "p:a", "p:a", "p:a|m"]


def test_a_call_that_ends_lets_one_of_each_line_try_who_waits_for_that_provider() -> None:
    waiting = Lines(3)
    tried: list[str] = []

    def wait(name: str) -> None:
        assert waiting.wait(name, at_limit(60, "concurrency"), NOW, 60)
        tried.append(name)

    callers = [threading.Thread(target=wait, args=(name,)) for name in ("m", "m", "n")]
    for caller in callers:
        caller.start()
    wait_for(lambda: len(waiting._waiting) == 3, 5, "all to wait")
    assert not waiting.wait("m", at_limit(0.0), NOW, WAIT_S)  # no place is left
    waiting.ended("b")
    assert tried == []
    waiting.ended("a")
    wait_for(lambda: sorted(tried) == ["m", "n"], 5, "one of each line to try")
    waiting.ended("a")
    for caller in callers:
        caller.join(5)
    assert sorted(tried) == ["m", "m", "n"]


def turns(waiting: Lines, times: int, name: str = "a") -> list[float]:
    return [round(waiting.turn(name, at_limit(0.1), NOW) - NOW, 3) for _ in range(times)]


def test_turns_come_at_twice_the_pace_of_late(time: Time) -> None:
    waiting = Lines(1)
    assert turns(waiting, 2) == [0.1, 0.1]  # nothing is known
    for _ in range(100):
        waiting.began("a", "p")
        waiting.began("b", "p")
        time.now += 0.1
    first, second, third = turns(waiting, 3)
    assert second - first == pytest.approx(1 / 20, rel=0.05)
    assert third - second == pytest.approx(1 / 20, rel=0.05)
    assert max(turns(waiting, 10_000)) == TURN_S
    assert turns(waiting, 1, "b")[0] < 1, "who is in another line"


def test_where_nobody_waits_though_turns_are_ahead_some_come_early(time: Time) -> None:
    waiting = Lines(1)
    assert waiting.early(NOW, 1.0) == {}
    for _ in range(100):
        waiting.began("p:a", "a")
        time.now += 0.1
    assert waiting.early(NOW, 1.0) == {}, "no turn was given"
    last = turns(waiting, 20, "p:a")[-1]
    assert waiting.early(NOW, 1.0) == {"a": pytest.approx(20, abs=1)}
    assert waiting.early(NOW, 0.5) == {"a": pytest.approx(10, abs=1)}
    assert waiting.early(NOW + last + 1, 1.0) == {}, "all turns have come"
    waiting._waiting.append(("a", "p:a", threading.Event()))
    assert waiting.early(NOW, 1.0) == {}, "somebody waits"
