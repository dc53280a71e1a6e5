"""Many processes, one breaker: whatever they ask and report, together they see one machine that keeps its rules."""

import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from support.gate_processes import CallerProcess, Entry, Log, all_at_once, running_callers
from support.waiting import wait_for

from shared.breaker import State
from shared.catalogue import Breaker
from shared.gate import Report, Seen, Verdict
from shared.reasons import Reason

PROCESSES = 8
STEPS = 500
FEW_MS = 0.001
"""The store keeps times to a tenth of a millisecond."""

LEGAL = {
    (State.CLOSED, State.OPEN),
    (State.OPEN, State.HALF_OPEN),
    (State.HALF_OPEN, State.OPEN),
    (State.HALF_OPEN, State.CLOSED),
}
_prefixes = itertools.count()


@pytest.fixture(scope="module")
def fleet(valkey_url: str) -> Iterator[list[CallerProcess]]:
    with running_callers(valkey_url, PROCESSES) as callers:
        yield callers


@pytest.fixture
def prefix() -> str:
    return f"gp{time.time_ns()}{next(_prefixes)}"


class Walk:
    """The rules as they are promised, held against everything the processes saw, in the store's order."""

    def __init__(self, settings: Breaker) -> None:
        self.settings = settings
        self.state, self.generation, self.until = State.CLOSED, 0, 0.0
        self.in_a_row = 0
        self.probes: set[str] = set()
        self.most_probes = 0
        self.passed: Counter[tuple[State, State]] = Counter()

    def step(self, entry: Entry) -> None:
        expected = self._after_report(entry.report) if entry.report else self._after_ask(entry)
        assert [(c.before, c.after) for c in entry.changes] == expected, entry
        for change in entry.changes:
            assert (change.before, change.after) in LEGAL
            assert change.before is self.state
            self.state, self.until = change.after, change.until
            self.generation, self.in_a_row, self.probes = self.generation + 1, 0, set()
            self.passed[change.before, change.after] += 1
        if entry.verdict:
            self._allows(entry, entry.verdict)

    def _after_ask(self, entry: Entry) -> list[tuple[State, State]]:
        """An ask opens the door half once the break is over. Within a millisecond of its end either answer is right."""
        if self.state is not State.OPEN or entry.now < self.until - FEW_MS:
            return []
        unsure = entry.now < self.until + FEW_MS
        return [] if unsure and not entry.changes else [(State.OPEN, State.HALF_OPEN)]

    def _after_report(self, report: Report) -> list[tuple[State, State]]:
        """Only what was called under the present generation counts."""
        self.probes.discard(report.permit)
        if report.generation != self.generation or report.result == "nothing" or self.state is State.OPEN:
            return []
        failed = report.result == "failed"
        if self.state is State.CLOSED:
            self.in_a_row = self.in_a_row + 1 if failed else 0
            trips = self.in_a_row == self.settings.failure_threshold
            return [(State.CLOSED, State.OPEN)] if trips else []
        if failed:
            return [(State.HALF_OPEN, State.OPEN)]
        self.in_a_row += 1
        closes = self.in_a_row == self.settings.success_threshold
        return [(State.HALF_OPEN, State.CLOSED)] if closes else []

    def _allows(self, entry: Entry, verdict: Verdict) -> None:
        full = len(self.probes) == self.settings.half_open_permits
        free = self.state is State.CLOSED or (self.state is State.HALF_OPEN and not full)
        assert (verdict.choice == 0) is free, (self.state, self.probes, entry)
        if not free:
            reason = Reason.BREAKER_OPEN if self.state is State.OPEN else Reason.BREAKER_PROBING
            assert [block.reason for block in verdict.blocks] == [reason]
            return
        assert (verdict.generation, verdict.probe) == (self.generation, self.state is State.HALF_OPEN)
        if verdict.probe:
            self.probes.add(entry.permit)
            self.most_probes = max(self.most_probes, len(self.probes))


def merged(logs: list[Log]) -> list[Entry]:
    """In the store's order: it runs one script at a time, and tells each its own time."""
    found = sorted((entry for log in logs for entry in log.entries), key=lambda entry: entry.now)
    assert len({entry.now for entry in found}) == len(found)
    return found


def process_of(entry: Entry) -> str:
    return entry.permit.partition(":")[0]


def granted(entries: list[Entry]) -> list[float]:
    """When."""
    return [entry.now for entry in entries if entry.verdict and entry.verdict.choice == 0]


def reported(entries: list[Entry]) -> Counter[str]:
    return Counter(entry.report.result for entry in entries if entry.report)


def same_for_all(looks: list[list[Seen]]) -> Seen:
    assert all(look == looks[0] for look in looks)
    return looks[0][0]


@pytest.mark.parametrize(("seed", "permits"), [(1, 2), (2, 2), (3, 1), (4, 3), (5, 2), (6, 5)])
def test_eight_processes_see_one_breaker_and_each_change_is_told_once(
    fleet: list[CallerProcess], prefix: str, seed: int, permits: int
) -> None:
    settings = Breaker(reset_timeout_s=0.01, half_open_permits=permits)
    logs = all_at_once(fleet, "hammer", prefix, settings, seed=seed, steps=STEPS)
    entries = merged(logs)
    walk = Walk(settings)
    for entry in entries:
        walk.step(entry)
    turns = sum(one != other for one, other in itertools.pairwise(process_of(entry) for entry in entries))
    heard = Counter(change for log in logs for change in log.told)
    assert heard == {(before.value, after.value): n for (before, after), n in walk.passed.items()}

    seen = same_for_all(all_at_once(fleet, "look", prefix, settings))
    circuit, counts = seen.condition.breakers.popitem()[1], reported(entries)
    assert (circuit.state, circuit.generation) == (walk.state, walk.generation)
    assert circuit.probes == {}
    assert seen.condition.calls == counts["answered"] + counts["failed"]
    assert seen.condition.failures == counts["failed"]
    assert (seen.answered, seen.failed) == (counts["answered"], counts["failed"])

    changes = {f"{before.value} -> {after.value}": n for (before, after), n in walk.passed.items()}
    sys.stdout.write(
        f"{len(entries)} exchanges, {turns} changes of process, {walk.most_probes} probes at once at most, {changes}\n"
    )
    assert turns > len(entries) / 4, "they came one after the other"
    assert set(walk.passed) == LEGAL, "the seed tries too little"
    assert walk.most_probes == permits


def test_a_process_killed_with_all_probes_in_its_hands_frees_them_when_their_lease_ends(
    fleet: list[CallerProcess], valkey_url: str, prefix: str
) -> None:
    settings = Breaker(failure_threshold=1, reset_timeout_s=0.03, half_open_permits=3, probe_lease_s=2.0)
    with running_callers(valkey_url, 1) as (doomed,):
        all_at_once([doomed], "fail", prefix, settings, times=1)

        def holds() -> list[float]:
            found = granted(merged(all_at_once([doomed], "ask", prefix, settings, times=3)))
            return found[1:] if len(found) > settings.half_open_permits else []  # the first one failed

        held = wait_for(holds, 10, "the process to hold all probes")
        doomed.kill()

    def others() -> list[Entry]:
        entries = merged(all_at_once(fleet, "ask", prefix, settings, times=5))
        return entries if granted(entries) else []

    entries = wait_for(others, 20, "another process to get a probe")
    probes = sorted(held + granted(entries))
    refused = [entry.now for entry in entries if entry.verdict and entry.verdict.choice < 0]
    assert refused[0] < held[0] + settings.probe_lease_s, "nobody asked while they were held"
    for earlier, later in zip(probes, probes[settings.half_open_permits :], strict=False):
        assert later >= earlier + settings.probe_lease_s - FEW_MS, "more at a time than permitted"
    for at in refused:
        under_way = [t for t in probes if t < at < t + settings.probe_lease_s + FEW_MS]
        assert len(under_way) >= settings.half_open_permits, "refused, though one was free"
    sys.stdout.write(
        f"{len(refused)} refused; a probe {granted(entries)[0] - held[0]:.4f} s after the dead one's\n"
    )
