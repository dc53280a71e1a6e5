"""Many processes under one limit: together they use it up, and never pass it."""

import itertools
import sys
import time
from collections.abc import Iterator

import pytest
from support.gate_processes import CallerProcess, all_at_once, running_callers
from support.waiting import wait_for

from shared.catalogue import Breaker

PROCESSES = 4
SETTINGS = Breaker()
FEW_MS = 0.005
_prefixes = itertools.count()


@pytest.fixture(scope="module")
def fleet(valkey_url: str) -> Iterator[list[CallerProcess]]:
    with running_callers(valkey_url, PROCESSES) as callers:
        yield callers


@pytest.fixture
def prefix() -> str:
    return f"lp{time.time_ns()}{next(_prefixes)}"


@pytest.mark.alone
@pytest.mark.parametrize("rpm", [600, 6000])
def test_four_processes_use_a_rate_up_and_pass_it_in_no_window(
    fleet: list[CallerProcess], prefix: str, rpm: int
) -> None:
    span_s = 4.0
    logs = all_at_once(fleet, "draw", prefix, SETTINGS, rpm=rpm, span_ms=int(1000 * span_s))
    times, a_second = sorted(itertools.chain(*logs)), rpm / 60
    for first, last in itertools.combinations_with_replacement(range(len(times)), 2):
        assert last - first + 1 <= a_second * (times[last] - times[first]) + a_second + 1e-3
    took = times[-1] - times[0]
    due = a_second * took + a_second
    sys.stdout.write(
        f"{rpm} a minute: {len(times)} calls in {took:.3f} s, {len(times) / due:.2%} of what may begin;"
        f" by process {sorted(map(len, logs))}\n"
    )
    assert len(times) >= 0.99 * due
    assert took >= span_s - 0.5


def test_calls_in_the_hands_of_a_killed_process_are_free_when_it_has_been_silent_long_enough(
    fleet: list[CallerProcess], valkey_url: str, prefix: str
) -> None:
    calls, silent_s = 5, 1.5
    numbers = {"calls": calls, "silent_ms": int(1000 * silent_s)}
    with running_callers(valkey_url, 1) as (doomed,):
        began = time.monotonic()
        assert all_at_once([doomed], "hold", prefix, SETTINGS, times=calls + 1, **numbers) == [calls]
        doomed.kill()
    assert all_at_once(fleet, "hold", prefix, SETTINGS, times=1, **numbers) == [0] * PROCESSES

    def taken() -> int:
        return sum(all_at_once(fleet, "hold", prefix, SETTINGS, times=2, **numbers))

    wait_for(lambda: taken() == calls, 10, "the dead one's calls to be free")
    freed_s = time.monotonic() - began
    sys.stdout.write(f"free after {freed_s:.2f} s, where a sender counts for {silent_s:g} s\n")
    assert freed_s >= silent_s - FEW_MS
    assert taken() == calls
