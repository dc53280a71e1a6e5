"""The rules of the window of calls at a time that a provider bears."""

import pytest

from shared.window import COUNTING_S, CUT, GENEROUS, Window, answered, bears, cut, is_full


def test_the_first_error_only_begins_to_count_and_the_next_cuts_what_is_in_flight() -> None:
    first = cut(None, at=10.0, in_flight=100, latency_s=1.0)
    assert (first.size, is_full(first, 1000)) == (0.0, False)
    assert cut(first, at=10.9, in_flight=100, latency_s=1.0) is first  # of the same haste
    second = cut(first, at=11.0, in_flight=100, latency_s=1.0)
    assert second.size == pytest.approx(100 * CUT)
    third = cut(second, at=12.0, in_flight=300, latency_s=1.0)
    assert third.size == pytest.approx(100 * CUT * CUT)


def test_a_burst_before_the_first_answer_ever_cuts_once_a_second() -> None:
    w = cut(None, at=10.0, in_flight=100, latency_s=0.0)
    for n in range(1, 21):
        w = cut(w, at=10.0 + n / 10, in_flight=100, latency_s=0.0)
    assert w.size == pytest.approx(100 * CUT * CUT)


def test_one_call_at_a_time_always_may() -> None:
    least = cut(Window(cut_at=0.0, size=1.0), at=10.0, in_flight=1, latency_s=1.0)
    assert least.size == 1.0
    assert not is_full(least, 0)
    assert is_full(least, 1)


def test_being_used_it_grows_by_one_for_each_window_of_answers() -> None:
    w: Window | None = Window(cut_at=0.0, size=10.0)
    for _ in range(10):
        assert w is not None
        w = answered(w, at=1.0, in_flight=9, senders=1, latency_s=1.0)
    assert w is not None
    assert w.size == pytest.approx(11.0, abs=0.1)
    assert answered(w, at=1.0, in_flight=5, senders=1, latency_s=1.0) == w  # not used


def test_it_is_forgotten_when_it_is_wider_than_the_fleet_or_was_never_needed() -> None:
    wide = Window(cut_at=0.0, size=2.0 * GENEROUS)
    assert answered(wide, at=1.0, in_flight=128, senders=2, latency_s=1.0) is None
    assert answered(wide, at=1.0, in_flight=128, senders=3, latency_s=1.0) is not None
    counting = Window(cut_at=0.0)
    assert answered(counting, at=COUNTING_S - 1, in_flight=1, senders=1, latency_s=1.0) is counting
    assert answered(counting, at=COUNTING_S, in_flight=1, senders=1, latency_s=1.0) is None


def test_answers_that_become_slow_while_it_is_nearly_full_narrow_it_a_little() -> None:
    w: Window | None = Window(cut_at=0.0, size=10.0, best_s=1.0)
    assert w is not None
    w = answered(w, at=100.0, in_flight=10, senders=9, latency_s=2.5)
    assert w is not None
    assert w.size == pytest.approx(9.0)
    assert w.cut_at == 100.0
    again = answered(w, at=101.0, in_flight=10, senders=9, latency_s=2.5)
    assert again is not None
    assert again.size > w.size  # not twice within a latency


def test_a_429_is_met_by_the_window_alone_only_while_others_are_answered_and_it_can_narrow() -> None:
    wide, least = Window(cut_at=0.0, size=5.0), Window(cut_at=0.0, size=1.0)
    assert bears(wide, at=10.0, answered_at=9.5, latency_s=0.1)
    assert bears(None, at=10.0, answered_at=9.5, latency_s=0.1)
    assert not bears(wide, at=10.0, answered_at=8.0, latency_s=0.1)
    assert not bears(least, at=10.0, answered_at=9.5, latency_s=0.1)
