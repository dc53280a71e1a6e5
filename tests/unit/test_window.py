"""The window of calls at a time that a provider bears: its rules, and a fleet that finds a capacity it is not told."""

import itertools
import sys

import pytest

from shared.catalogue import Breaker
from shared.clock import ManualClock
from shared.gate import Ask, Candidate, Flight, Report, Result
from shared.memory_gate import MemoryGate
from shared.window import COUNTING_S, CUT, GENEROUS, Window, answered, bears, cut, is_full

A = Candidate("a", "a", "k", "m")
SETTINGS = Breaker()
STEP_S = 0.1
LATENCY_S, REFUSED_S = 1.0, 0.1
SENDERS, CALLERS, ASKS = 4, 64, 20


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


class Simulation:
    """Four workers of 64 callers that have something to call all the time, and a provider that answers 429 above its capacity."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.began = self.clock.now()
        self.gate = MemoryGate(self.clock)
        self.serials = itertools.count(1)
        self.calls: list[dict[str, tuple[float, Result, int]]] = [{} for _ in range(SENDERS)]
        self.rows: list[tuple[float, float, float, int, int]] = []
        self.count = {"answered": 0, "limited": 0}

    @property
    def bearing(self) -> int:
        """Calls that the provider works on; those that it has refused are only on their way back."""
        return sum(how == "answered" for calls in self.calls for _, how, _ in calls.values())

    def step(self, capacity: int) -> None:
        now = self.clock.now()
        for sender, calls in enumerate(self.calls):
            ended = {permit: call for permit, call in calls.items() if call[0] <= now}
            for permit in ended:
                del calls[permit]
            reports = []
            for permit, (_, how, generation) in ended.items():
                took_s = LATENCY_S if how == "answered" else REFUSED_S
                reports.append(Report(permit, A, generation, how, duration_s=took_s))
                self.count[how] += 1
            asks = [
                Ask(f"{sender}:{next(self.serials)}", (A,)) for _ in range(min(ASKS, CALLERS - len(calls)))
            ]
            told = self.gate.exchange(
                asks,
                reports,
                settings=SETTINGS,
                sender=str(sender),
                serial=next(self.serials),
                spread=0.5,
                flight=Flight({"w:a": len(calls)}, adaptive=True),
            )
            bearing = self.bearing
            for ask, verdict in zip(asks, told.verdicts, strict=True):
                if verdict.choice == 0:
                    fits = bearing < capacity
                    bearing += fits
                    ends = now + (LATENCY_S if fits else REFUSED_S)
                    calls[ask.permit] = (ends, "answered" if fits else "limited", verdict.generation)
        self.clock.advance(STEP_S)

    def run(self, capacity: int, seconds: int) -> tuple[float, float]:
        """Mean calls that the provider worked on, and the share of 429s, over the last half."""
        borne, told = [], []
        for _ in range(seconds):
            self.count = {"answered": 0, "limited": 0}
            in_second = []
            for _ in range(round(1 / STEP_S)):
                self.step(capacity)
                in_second.append(self.bearing)
            window = self.gate.condition("a").windows.get("a")
            mean = sum(in_second) / len(in_second)
            size = window.size if window else 0.0
            at = self.clock.now() - self.began
            self.rows.append((at, size, mean, self.count["answered"], self.count["limited"]))
            borne.append(mean)
            told.append((self.count["answered"], self.count["limited"]))
        half = seconds // 2
        good, bad = (sum(each) for each in zip(*told[half:], strict=True))
        return sum(borne[half:]) / len(borne[half:]), bad / (good + bad)


def test_a_fleet_settles_at_a_capacity_that_it_is_not_told() -> None:
    fleet = Simulation()
    found = []
    for capacity, seconds in ((40, 80), (15, 80), (60, 160)):
        mean, share = fleet.run(capacity, seconds)
        found.append((capacity, mean, share))
    sys.stdout.write("time_s,window,in_flight,answered_per_s,limited_per_s\n")
    for row in fleet.rows:
        sys.stdout.write("{:.0f},{:.1f},{:.1f},{},{}\n".format(*row))
    for capacity, mean, share in found:
        sys.stdout.write(f"capacity {capacity}: {mean:.1f} in flight, {share:.1%} answered 429\n")
    for capacity, mean, share in found:
        assert mean == pytest.approx(capacity, rel=0.2)
        assert share < 0.1


def test_a_healthy_provider_has_no_window() -> None:
    fleet = Simulation()
    mean, share = fleet.run(10_000, 20)
    assert (mean, share) == (SENDERS * CALLERS, 0.0)
    assert fleet.gate.condition("a").windows == {}
