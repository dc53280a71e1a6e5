"""The lines of those who wait at limits."""

import threading
from collections.abc import Callable

import pytest
from support.waiting import wait_for

from shared.gate import Block, Candidate
from shared.limits import Limit
from shared.permits import Permit
from shared.reasons import Reason
from workers import line
from workers.line import BACK_S, HASTE, MONEY_TURN_S, TURN_S, WAIT_S, Lines, scopes_of

NOW = 1000.0
OPEN = Block("b", Reason.BREAKER_OPEN, NOW + 30)


def at_limit(in_s: float, kind: str = "rpm", scope: str = "p:a", provider: str = "a") -> Block:
    return Block(provider, Reason.LIMIT_REACHED, NOW + in_s, kind, scope)


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


@pytest.fixture
def wait() -> Callable[[Lines, Block], threading.Thread]:
    """Somebody waits, as long as need be."""

    def begin(lines: Lines, at: Block) -> threading.Thread:
        before = len(lines._waiting)
        caller = threading.Thread(target=lines.wait, args=(at, NOW, 60.0), daemon=True)
        caller.start()
        wait_for(lambda: len(lines._waiting) > before, 5, "a place to be taken")
        return caller

    return begin


def test_a_limit_is_waited_for_that_ends_soon_and_only_in_a_free_place() -> None:
    assert not Lines(1).wait(at_limit(WAIT_S + 1), NOW, WAIT_S)
    assert not Lines(0).wait(at_limit(0.0), NOW, WAIT_S)
    assert Lines(1).wait(at_limit(0.0), NOW, WAIT_S)
    assert Lines(1).wait(at_limit(0.0, "money", "b:1"), NOW, WAIT_S)


def test_of_what_is_in_the_way_the_limit_that_ends_first_is_waited_for() -> None:
    later, sooner = at_limit(3.0), at_limit(2.0)
    assert line.at_limit([OPEN, later, sooner]) is sooner
    assert line.at_limit([OPEN]) is None


def test_a_call_is_under_all_its_limits() -> None:
    rows = (Limit("p:a", "rpm", 1, 600), Limit("p:a|m", "concurrency", 1, 60))
    candidate = Candidate("a", "a", "", "m", "", rows)
    permit = Permit("1", 0, candidate, 0, limits=(Limit("b:1", "money", 1, 600),))
    assert scopes_of(permit) == {"p:a", "p:a|m", "b:1"} | set(permit.scopes)


def test_a_call_that_ends_lets_one_of_each_line_try_that_it_was_in(
    wait: Callable[[Lines, Block], threading.Thread],
) -> None:
    waiting = Lines(3)
    m, n = (at_limit(60, "concurrency", f"p:a|{model}") for model in "mn")
    one, two, three = (wait(waiting, at) for at in (m, m, n))
    assert not waiting.wait(at_limit(0.0), NOW, WAIT_S)  # no place is left
    waiting.ended(["p:b"])
    waiting.ended(["p:a|m", "p:a"])
    one.join(5)
    assert (one.is_alive(), two.is_alive(), three.is_alive()) == (False, True, True)
    waiting.ended(["p:a|m", "p:a|n"])
    for caller in (two, three):
        caller.join(5)
        assert not caller.is_alive()


def test_whoever_waits_for_money_leaves_most_places_to_others(
    wait: Callable[[Lines, Block], threading.Thread],
) -> None:
    waiting = Lines(8)
    callers = [wait(waiting, at_limit(60, "money", scope)) for scope in ("b:1", "b:2")]
    assert not waiting.wait(at_limit(0.0, "money", "b:3"), NOW, WAIT_S)
    assert waiting.wait(at_limit(0.0), NOW, WAIT_S)
    waiting.ended(["b:1", "b:2"])
    for caller in callers:
        caller.join(5)
    assert waiting.wait(at_limit(0.0, "money", "b:3"), NOW, WAIT_S)


def turns(waiting: Lines, times: int, at: Block | None = None) -> list[float]:
    return [waiting.turns([at or at_limit(0.1)], NOW)[0].until - NOW for _ in range(times)]


def began(
    waiting: Lines, time: Time, *scopes: str, times: int = 100, every_s: float = 0.1, asking: bool = True
) -> None:
    """So many calls, while others ask for turns."""
    for _ in range(times):
        for scope in scopes if asking else ():
            waiting._turn(at_limit(0.1, scope=scope), NOW)
        waiting.began(scopes)
        time.now += every_s


def test_turns_come_at_twice_the_pace_of_late(time: Time) -> None:
    waiting = Lines(1)
    assert turns(waiting, 2) == pytest.approx([0.1, 0.1])  # nothing is known
    began(waiting, time, "p:a", "p:b")
    first, second, third = turns(waiting, 3)
    assert second - first == pytest.approx(1 / 20, rel=0.05)
    assert third - second == pytest.approx(1 / 20, rel=0.05)
    assert max(turns(waiting, 10_000)) == pytest.approx(TURN_S)
    assert turns(waiting, 1, at_limit(0.1, scope="p:b"))[0] < 1, "who is in another line"


def test_who_waits_for_money_is_in_the_way_of_none_who_waits_for_a_provider(time: Time) -> None:
    waiting = Lines(1)
    began(waiting, time, "p:a", "b:1")
    assert max(turns(waiting, 10_000, at_limit(0.3, "money", "b:1"))) == pytest.approx(MONEY_TURN_S)
    assert turns(waiting, 1)[0] < 1


def test_where_several_providers_are_at_their_limits_the_shorter_line_is_joined(time: Time) -> None:
    waiting = Lines(1)
    began(waiting, time, "p:a", "p:b")
    turns(waiting, 100)
    both = [at_limit(0.1), OPEN, at_limit(0.5, scope="p:b", provider="b")]
    told = waiting.turns(both, NOW)
    assert [block.provider for block in told] == ["a", "b", "b"]
    assert told[1] is OPEN
    assert told[0].until == told[2].until == pytest.approx(NOW + 0.55, abs=0.01)
    assert waiting.turns(both, NOW)[0].until > told[0].until


def test_no_turn_is_beyond_measure_whatever_the_limit_says(time: Time) -> None:
    waiting = Lines(1)
    assert turns(waiting, 1, at_limit(1e15)) == [TURN_S]
    assert turns(waiting, 1, at_limit(1e15, "money")) == [MONEY_TURN_S]
    began(waiting, time, "p:a")
    assert turns(waiting, 1, at_limit(1e15)) == [TURN_S]
    assert turns(Lines(0), 1, at_limit(1e15)) == [TURN_S]


def test_reserved_tokens_may_come_back_before_they_do_by_themselves(time: Time) -> None:
    waiting = Lines(1)
    assert turns(waiting, 2, at_limit(60, "tpm")) == [BACK_S, BACK_S]
    began(waiting, time, "p:a")
    soon = turns(waiting, 20, at_limit(60, "tpm"))
    assert BACK_S < soon[0] < soon[-1] < BACK_S + 2
    assert turns(Lines(1), 1, at_limit(60, "rpm")) == [60]


def test_after_a_long_pause_turns_are_not_minutes_apart(time: Time) -> None:
    """A minute in which one call's tokens kept all others away says nothing of how fast calls begin after it."""
    waiting = Lines(1)
    began(waiting, time, "p:a")
    for _ in range(12):
        turns(waiting, 1)
        time.now += 5.0
    first, second, third = turns(waiting, 3)
    assert 1 / (HASTE * 10) < second - first < 0.5
    assert third - second == pytest.approx(second - first)


def test_a_pace_at_which_there_was_little_to_do_says_nothing_of_the_limit(time: Time) -> None:
    waiting = Lines(1)
    began(waiting, time, "p:a", times=3, every_s=3.0, asking=False)
    assert turns(waiting, 50) == pytest.approx([0.1] * 50)
    time.now += 1.0
    began(waiting, time, "p:a", times=20, every_s=0.1)
    first, second = turns(waiting, 2)
    assert second - first == pytest.approx(1 / 20, rel=0.7)


def test_where_no_call_begins_turns_go_on_all_the_same(time: Time) -> None:
    waiting = Lines(1)
    began(waiting, time, "p:a", times=1, every_s=60.0)
    turns(waiting, 1)
    time.now += 3.0
    first, second = turns(waiting, 2)
    assert 0.5 < second - first < 5


def test_the_lines_of_batches_that_have_ended_are_forgotten(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "_MOST_LINES", 10)
    waiting = Lines(1)
    for n in range(100):
        waiting.began([f"b:{n}", "p:a"])
        time.now += TURN_S / 5
    assert len(waiting._lines) <= 10
    assert "p:a" in waiting._lines


def test_where_nobody_waits_though_turns_are_ahead_some_come_early(time: Time) -> None:
    waiting = Lines(1)
    assert waiting.early(NOW, 1.0) == {}
    began(waiting, time, "p:a", "b:1")
    assert waiting.early(NOW, 1.0) == {}, "no turn was given"
    last = turns(waiting, 20)[-1]
    turns(waiting, 20, at_limit(0.1, "money", "b:1"))
    assert waiting.early(NOW, 1.0) == {"a": pytest.approx(20, abs=1)}
    assert waiting.early(NOW, 0.5) == {"a": pytest.approx(10, abs=1)}
    assert waiting.early(NOW + last + 1, 1.0) == {}, "all turns have come"
    waiting._waiting.append((at_limit(0.1), threading.Event()))
    assert waiting.early(NOW, 1.0) == {}, "somebody waits"
