"""A simulated fleet at the gate finds a capacity that it is not told."""

import itertools
import sys

import pytest

from shared.catalogue import Breaker
from shared.clock import ManualClock
from shared.gate import Ask, Candidate, Flight, Report, Result
from shared.memory_gate import MemoryGate

A = Candidate("a", "a", "k", "m")
SETTINGS = Breaker()
STEP_S = 0.1
LATENCY_S, REFUSED_S = 1.0, 0.1
SENDERS, CALLERS, ASKS = 4, 64, 20


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
