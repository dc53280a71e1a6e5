"""pybreaker's interface, kept over the shared gate: what its documentation promises, and what it does not do."""

import threading
from collections.abc import Sequence
from typing import Any

import pybreaker
import pytest

from shared.breaker import State
from shared.catalogue import Breaker
from shared.clock import ManualClock
from shared.errors import ProviderFailedError, RequestRefusedError
from shared.gate import Candidate, Change
from shared.memory_gate import MemoryGate
from shared.permits import DirectDoorman
from shared.shared_breaker import PermitRefusedError, SharedBreaker


class Locked(MemoryGate):
    """The memory gate takes one thread at a time."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self._lock = threading.Lock()

    def exchange(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return super().exchange(*args, **kwargs)


class Bench:
    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        settings = Breaker()
        gate = Locked(self.clock)
        doorman = DirectDoorman(gate, settings, self.heard)
        self.breaker = SharedBreaker(gate, doorman, Candidate("a", "a", "", ""), settings, **options)

    def heard(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self.breaker.on_change(change)


def boom() -> None:
    raise OSError("boom")


def trip(breaker: SharedBreaker) -> None:
    for _ in range(4):
        with pytest.raises(OSError, match="boom"):
            breaker.call(boom)
    with pytest.raises(pybreaker.CircuitBreakerError, match="Failures threshold reached"):
        breaker.call(boom)


def test_five_failures_open_it_and_it_says_when_to_come_back() -> None:
    bench = Bench()
    trip(bench.breaker)
    assert (bench.breaker.current_state, bench.breaker.fail_counter) == (pybreaker.STATE_OPEN, 5)
    called: list[int] = []
    with pytest.raises(pybreaker.CircuitBreakerError) as refused:
        bench.breaker.call(called.append, 1)
    assert isinstance(refused.value, PermitRefusedError)
    assert refused.value.retry_after_s == pytest.approx(30)
    assert called == []


def test_two_successes_close_it() -> None:
    bench = Bench()
    trip(bench.breaker)
    bench.clock.advance(30.1)
    assert bench.breaker.call(lambda: "one") == "one"
    assert (bench.breaker.current_state, bench.breaker.success_counter) == (pybreaker.STATE_HALF_OPEN, 1)
    assert bench.breaker.state.name == "half-open"
    assert bench.breaker.call(lambda: "two") == "two"
    assert bench.breaker.current_state == pybreaker.STATE_CLOSED


def test_without_the_new_error_the_call_that_trips_raises_its_own() -> None:
    bench = Bench(throw_new_error_on_trip=False)
    for _ in range(5):
        with pytest.raises(OSError, match="boom"):
            bench.breaker.call(boom)


def test_excluded_errors_say_nothing() -> None:
    bench = Bench(exclude=[KeyError, lambda exc: isinstance(exc, OSError) and exc.args == ("boom",)])
    for _ in range(10):
        with pytest.raises(OSError, match="boom"):
            bench.breaker.call(boom)
        with pytest.raises(KeyError):
            bench.breaker.call({}.__getitem__, "x")
    assert bench.breaker.current_state == pybreaker.STATE_CLOSED
    assert bench.breaker.fail_counter == 0
    bench.breaker.add_excluded_exception(ValueError)
    assert ValueError in bench.breaker.excluded_exceptions


def test_a_greenlet_that_is_killed_speaks_against_nobody() -> None:
    bench = Bench()
    for _ in range(10):
        with pytest.raises(SystemExit):
            bench.breaker.call(lambda: (_ for _ in ()).throw(SystemExit))
    assert bench.breaker.fail_counter == 0


class Notes(pybreaker.CircuitBreakerListener):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002  pybreaker's names
        self.notes.append("before")

    def success(self, _cb: Any) -> None:
        self.notes.append("success")

    def failure(self, _cb: Any, exc: BaseException) -> None:
        self.notes.append(f"failure {exc}")

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.notes.append(f"{cb.name}: {old_state.name} to {new_state.name}")


def test_listeners_hear_what_pybreaker_promises() -> None:
    notes = Notes()
    bench = Bench(listeners=[notes])
    bench.breaker.call(int)
    trip(bench.breaker)
    bench.clock.advance(30.1)
    bench.breaker.call(int)
    bench.breaker.call(int)
    assert notes.notes == [
        *("before", "success"),
        *(["before", "failure boom"] * 4),
        *("before", "a: closed to open", "failure boom"),
        *("a: open to half-open", "before", "success"),
        *("before", "a: half-open to closed", "success"),
    ]
    bench.breaker.remove_listener(notes)
    assert bench.breaker.listeners == ()


def test_decorator_and_context_manager() -> None:
    bench = Bench()

    @bench.breaker
    def double(n: int) -> int:
        return 2 * n

    assert double(21) == 42
    for _ in range(5):
        with pytest.raises((OSError, pybreaker.CircuitBreakerError)), bench.breaker.calling():
            boom()
    with pytest.raises(pybreaker.CircuitBreakerError), bench.breaker.calling():
        pytest.fail("not reached")


def test_it_is_opened_and_closed_by_hand() -> None:
    notes = Notes()
    bench = Bench(listeners=[notes])
    bench.breaker.open()
    assert bench.breaker.health().next_probe_s == pytest.approx(30)
    assert bench.breaker.health().reason == "opened by hand"
    bench.breaker.half_open()
    bench.breaker.close()
    assert bench.breaker.health().state is State.CLOSED
    assert notes.notes == ["a: closed to open", "a: open to half-open", "a: half-open to closed"]


def test_a_providers_error_is_raised_as_it_is_and_learns_whether_it_is_charged() -> None:
    bench = Bench()
    permit = bench.breaker._permit()

    def fails() -> None:
        raise ProviderFailedError("500", code="provider_failed")

    for _ in range(5):
        with pytest.raises(ProviderFailedError) as failed:
            bench.breaker.call(fails)
        assert failed.value.charged
    assert bench.breaker.health().reason == "provider_failed"
    with pytest.raises(ProviderFailedError) as failed:
        bench.breaker.run(permit, fails)
    assert not failed.value.charged  # it was under way when the breaker opened


def test_what_the_request_itself_is_refused_for_opens_nothing() -> None:
    bench = Bench()

    def refused() -> None:
        raise RequestRefusedError("400")

    for _ in range(20):
        with pytest.raises(RequestRefusedError):
            bench.breaker.call(refused)
    assert bench.breaker.fail_counter == 0


def test_fifty_calls_run_side_by_side() -> None:
    bench = Bench()
    together = threading.Barrier(50)
    callers = [
        threading.Thread(target=bench.breaker.call, args=(together.wait,), kwargs={"timeout": 10})
        for _ in range(50)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert not together.broken
    assert bench.breaker.fail_counter == 0
