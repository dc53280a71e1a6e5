"""The gatekeeper with a gate that answers, falls silent, and comes back."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from support.waiting import wait_for

from shared.breaker import State
from shared.catalogue import Breaker
from shared.clock import SystemClock
from shared.condition import Condition
from shared.errors import StoreUnavailableError
from shared.gate import Ask, Block, Candidate, Change, Exchanged, Report
from shared.limits import Limit
from shared.memory_gate import MemoryGate
from shared.permits import Ending, Permit
from shared.reasons import Reason
from shared.window import Window
from workers import gatekeeper
from workers.gatekeeper import Gatekeeper

A, B = (Candidate(name, name, "", "m") for name in "ab")
FAILED = Ending("failed", 0.1, "provider_failed", "boom")
ANSWERED = Ending("answered", 0.1)


class Server(MemoryGate):
    """`away`: refuses at once. `silent`: says nothing until it is cleared, and then answers."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.away = False
        self.breaks = False
        self.speaks = threading.Event()
        self.speaks.set()
        self.sizes: list[tuple[int, int]] = []
        self.reports: list[Report] = []
        self.held: list[dict[str, int]] = []

    def exchange(self, asks: Sequence[Ask], reports: Sequence[Report], **more: Any) -> Exchanged:
        self.speaks.wait(20)
        if self.breaks:
            raise ValueError("a bug")
        if self.away:
            raise StoreUnavailableError("away")
        self.sizes.append((len(asks), len(reports)))
        self.reports += reports
        self.held.append(more["flight"].held)
        return super().exchange(asks, reports, **more)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def keeper(server: Server) -> Iterator[Gatekeeper]:
    found = Gatekeeper(server, Breaker, "w1")
    changes: list[Change] = []
    found.start(changes.extend)
    yield found
    server.away = False
    server.speaks.set()
    found.stop()


@pytest.fixture
def leave(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Redis goes away, which is noticed soon: it refuses at once, so that patience would only make the test longer."""
    monkeypatch.setattr(gatekeeper, "PULSE_S", 0.02)

    def leave() -> None:
        monkeypatch.setattr(gatekeeper, "PATIENCE_S", 0.05)
        server.away = True

    return leave


def granted(found: Permit | tuple[Block, ...]) -> Permit:
    assert isinstance(found, Permit), found
    return found


def refused(found: Permit | tuple[Block, ...]) -> list[Reason]:
    assert not isinstance(found, Permit)
    return [block.reason for block in found]


def test_permits_come_and_go_and_calls_under_way_are_counted(keeper: Gatekeeper, server: Server) -> None:
    one, two = granted(keeper.acquire([A, B])), granted(keeper.acquire([B]))
    assert (one.candidate, two.candidate) == (A, B)
    assert keeper.in_flight() == {"a": 1, "b": 1}
    keeper.settle(one, ANSWERED)
    assert keeper.in_flight() == {"b": 1}
    wait_for(lambda: server.condition("a").calls == 1, 5, "the report")


def test_failures_are_told_whether_they_are_charged(keeper: Gatekeeper) -> None:
    permits = [granted(keeper.acquire([A])) for _ in range(6)]
    assert [keeper.settle(permit, FAILED) for permit in permits] == [True] * 5 + [False]
    assert refused(keeper.acquire([A])) == [Reason.BREAKER_OPEN]


def test_many_asks_ride_in_few_exchanges(keeper: Gatekeeper, server: Server) -> None:
    server.speaks.clear()
    callers = [
        threading.Thread(target=lambda: keeper.settle(granted(keeper.acquire([A])), ANSWERED))
        for _ in range(50)
    ]
    for caller in callers:
        caller.start()
    server.speaks.set()
    for caller in callers:
        caller.join(10)
    wait_for(lambda: server.condition("a").calls == 50, 5, "all reports")
    assert len(server.sizes) < 40


def test_for_a_moment_it_goes_by_what_it_knew_and_then_not_at_all(
    keeper: Gatekeeper, server: Server, leave: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for permit in [granted(keeper.acquire([B])) for _ in range(5)]:
        keeper.settle(permit, FAILED)
    assert refused(keeper.acquire([B])) == [Reason.BREAKER_OPEN]
    granted(keeper.acquire([A]))
    leave()
    here = granted(keeper.acquire([B, A]))
    assert here.candidate == A  # never wide open
    for permit in [granted(keeper.acquire([A])) for _ in range(5)]:
        keeper.settle(permit, FAILED)
    assert refused(keeper.acquire([A])) == [Reason.BREAKER_OPEN]  # its own breaker
    monkeypatch.setattr(gatekeeper, "ALONE_S", 0.0)
    assert refused(keeper.acquire([A, B])) == [Reason.STORE_AWAY, Reason.STORE_AWAY]
    keeper.settle(here, ANSWERED)
    server.away = False
    wait_for(lambda: server.condition("a").calls == 6, 10, "what was learned to be reported")
    assert server.condition("a").breakers["a"].state is State.OPEN
    wait_for(lambda: not isinstance(keeper.acquire([A]), Permit), 5, "the shared breaker to rule again")


def test_silence_is_noticed_while_all_calls_are_under_way(
    keeper: Gatekeeper, server: Server, leave: Callable[[], None]
) -> None:
    permit = granted(keeper.acquire([A]))
    leave()
    wait_for(lambda: keeper.silent_s > 0, 5, "the silence to be noticed")
    server.away = False
    wait_for(lambda: keeper.silent_s == 0.0, 5, "its end, too")
    keeper.settle(permit, ANSWERED)


def test_while_others_probe_a_worker_by_itself_lets_nobody_through(
    keeper: Gatekeeper, server: Server, leave: Callable[[], None]
) -> None:
    for permit in [granted(keeper.acquire([A])) for _ in range(5)]:
        keeper.settle(permit, FAILED)
    server.change("a", "half_open", settings=Breaker())
    probe = granted(keeper.acquire([A]))
    assert probe.probe
    leave()
    wait_for(lambda: keeper.silent_s > 0, 5, "the silence to be noticed")
    assert refused(keeper.acquire([A])) == [Reason.BREAKER_OPEN]
    server.away = False


def test_a_permit_that_comes_too_late_is_given_back(keeper: Gatekeeper, server: Server) -> None:
    for permit in [granted(keeper.acquire([A])) for _ in range(5)]:
        keeper.settle(permit, FAILED)
    server.change("a", "half_open", settings=Breaker())
    server.speaks.clear()
    keeper.acquire([A])  # answered here, in vain or not
    server.speaks.set()
    wait_for(lambda: any(report.result == "nothing" for report in server.reports), 5, "the late permit")
    assert server.condition("a").breakers["a"].probes == {}


def test_an_exchange_that_breaks_breaks_none_that_comes_after(keeper: Gatekeeper, server: Server) -> None:
    permit = granted(keeper.acquire([A]))
    server.breaks = True
    assert keeper.settle(permit, FAILED)
    assert granted(keeper.acquire([A])).candidate == A  # here
    server.breaks = False
    granted(keeper.acquire([A]))
    assert keeper.silent_s == 0.0


def test_after_its_end_nobody_waits_for_it(server: Server) -> None:
    keeper = Gatekeeper(server, Breaker, "w1")
    keeper.start(lambda _: None)
    keeper.stop()
    assert refused(keeper.acquire([A])) == [Reason.STORE_AWAY]


CALLS = Limit("p:a", "concurrency", 1, 3)
RPM = Limit("p:a", "rpm", 1, 600)
LIMITED = Candidate("a", "a", "", "m", "", (CALLS,))


def test_calls_in_flight_are_told_until_they_have_ended(
    keeper: Gatekeeper, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatekeeper, "PULSE_S", 0.02)
    permits = [granted(keeper.acquire([LIMITED])) for _ in range(3)]
    assert refused(keeper.acquire([LIMITED])) == [Reason.LIMIT_REACHED]
    wait_for(lambda: server.held[-3:] == [{"p:a": 3}] * 3, 5, "it to be told again and again")
    assert keeper.held() == {"p:a": 3}
    for permit in permits:
        keeper.settle(permit, ANSWERED)
    wait_for(lambda: server.condition("a").calls == 3, 5, "the reports")
    assert server.held[-1] == keeper.held() == {}
    assert server.counters._flights["p:a"] == {}


@pytest.mark.parametrize("limit", [CALLS, Limit("b:1", "money", 600, 1000)])
def test_who_waits_in_his_place_is_woken_by_the_end_of_a_call_under_the_same_limit(
    server: Server, limit: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when it is time to look again."""
    monkeypatch.setattr("shared.memory_limits.BUSY_S", 60.0)
    monkeypatch.setattr(gatekeeper, "WAIT_S", 120.0)
    keeper = Gatekeeper(server, Breaker, "w1", places=4)
    keeper.start(lambda _: None)
    candidate, other = (Candidate(name, name, "", "m", "", (limit,)) for name in "ab")
    calls: list[Permit] = []
    while isinstance(found := server_says(keeper, candidate), Permit):
        calls.append(found)
    got: list[Permit | tuple[Block, ...]] = []
    waiter = threading.Thread(target=lambda: got.append(keeper.acquire([other])), daemon=True)
    waiter.start()
    wait_for(lambda: len(keeper._lines._waiting) == 1, 5, "a place to be taken")
    keeper.settle(calls[0], Ending("answered", 0.1, used={"money": 1.0}))
    waiter.join(10)
    assert granted(got[0]).candidate == other
    keeper.stop()


def server_says(keeper: Gatekeeper, candidate: Candidate) -> Permit | tuple[Block, ...]:
    """Without waiting at a limit."""
    places, keeper._lines._places = keeper._lines._places, 0
    found = keeper.acquire([candidate])
    keeper._lines._places = places
    return found


def test_what_a_call_used_is_told_where_it_was_limited(keeper: Gatekeeper, server: Server) -> None:
    used = Ending("answered", 0.1, used={"tpm": 7.0})
    keeper.settle(granted(keeper.acquire([LIMITED])), used)
    keeper.settle(granted(keeper.acquire([A])), used)
    wait_for(lambda: len(server.reports) == 2, 5, "the reports")
    assert [report.used for report in server.reports] == [{"tpm": 7.0}, None]


def test_a_call_is_under_way_until_its_report_rides(server: Server) -> None:
    """Whenever it ends: else what it leaves of the money would look spent, with nothing under way."""
    paying = Candidate("a", "a", "", "m", "", (_money(),))
    ends: list[Callable[[], object]] = []

    def settings() -> Breaker:  # asked for between the gathering of reports and the count of what is held
        if ends:
            ends.pop()()
        return Breaker()

    found = Gatekeeper(server, settings, "w1")
    found.start(lambda _: None)
    try:
        permit = granted(found.acquire([paying]))
        ends.append(lambda: found.settle(permit, ANSWERED))
        server.held.clear()
        granted(found.acquire([B]))
        wait_for(lambda: server.reports, 5, "the report")
        assert [held.get("b:1", 0) for held in server.held[:2]] == [1, 0]
        assert found.held() == {}
    finally:
        found.stop()


def test_while_redis_is_away_no_limit_is_wider_than_what_this_worker_had(
    keeper: Gatekeeper, server: Server, leave: Callable[[], None]
) -> None:
    paced, spending = (Candidate("b", "b", "", "m", "", (limit,)) for limit in (RPM, _money()))
    calls = [granted(keeper.acquire([LIMITED])) for _ in range(2)]
    for _ in range(5):
        granted(keeper.acquire([paced]))
    leave()
    assert refused(keeper.acquire([LIMITED])) == [Reason.LIMIT_REACHED]
    keeper.settle(calls[0], ANSWERED)
    granted(keeper.acquire([LIMITED]))
    assert refused(keeper.acquire([LIMITED])) == [Reason.LIMIT_REACHED]
    granted(keeper.acquire([paced]))  # five in ten seconds are one in two
    assert refused(keeper.acquire([paced])) == [Reason.LIMIT_REACHED]
    assert refused(keeper.acquire([spending])) == [Reason.LIMIT_REACHED]
    server.away = False
    wait_for(lambda: server.condition("a").calls == 1, 5, "the report")
    assert keeper.held() == {"p:a": 2}


def test_while_redis_is_away_what_one_batch_has_spent_keeps_nobody_else_away(
    keeper: Gatekeeper, leave: Callable[[], None]
) -> None:
    dear = Candidate("a", "a", "", "m", "", (Limit("b:2", "money", 2000, 1000),))
    assert refused(keeper.acquire([dear])) == [Reason.BUDGET_SPENT]
    leave()
    granted(keeper.acquire([A]))


def test_a_call_begun_while_redis_was_away_is_taken_of_the_rate_afterwards(
    keeper: Gatekeeper, server: Server
) -> None:
    paced = Candidate("a", "a", "", "m", "", (RPM,))
    for _ in range(10):
        keeper.settle(granted(keeper.acquire([paced])), ANSWERED)
    server.away = True
    keeper.settle(granted(keeper.acquire([paced])), ANSWERED)
    server.away = False
    wait_for(lambda: server.condition("a").calls == 11, 5, "the reports")
    made = [report.used for report in server.reports if report.result == "answered"]
    assert made == [None] * 10 + [{"rpm": 1.0}]


def test_while_redis_is_away_a_window_is_no_wider_than_what_this_worker_had(server: Server) -> None:
    adaptive = True
    keeper = Gatekeeper(server, Breaker, "w1", adaptive=lambda: adaptive)
    keeper.start(lambda _: None)
    first = granted(keeper.acquire([A]))
    server._conditions["a"] = Condition(windows={"a": Window(cut_at=0.0, size=3.0)})
    keeper.settle(first, ANSWERED)  # and what this changes is told
    wait_for(lambda: server.condition("a").calls == 1, 5, "the report")
    for _ in range(2):
        granted(keeper.acquire([A]))
    server.away = True
    assert refused(keeper.acquire([A])) == [Reason.LIMIT_REACHED]
    granted(keeper.acquire([B]))
    server.away, adaptive = False, False
    granted(keeper.acquire([A]))
    keeper.settle(granted(keeper.acquire([A])), ANSWERED)
    wait_for(lambda: server.condition("a").calls == 2, 5, "the report")
    server.away = True
    granted(keeper.acquire([A]))
    keeper.stop()


def _money() -> Limit:
    return Limit("b:1", "money", 1, 1000)
