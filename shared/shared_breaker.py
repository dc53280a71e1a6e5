"""pybreaker's `CircuitBreaker`, shared by all processes of a fleet.

Its interface is kept: `call`, the decorator, `calling`, `open`, `half_open`, `close`, listeners, `exclude`, the names of the
states, `CircuitBreakerError`. What pybreaker does behind it does not hold for many processes or many calls at a time (it
keeps a lock during the call, and lets everybody in when half-open), so there the gate stands instead.

An error that is excluded says nothing of the provider; with pybreaker it counts as a success.
"""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import pybreaker

from shared.breaker import Circuit, State
from shared.catalogue import Breaker
from shared.errors import ProviderError
from shared.gate import Block, Candidate, Change, Gate
from shared.permits import Doorman, Permit, ending_of
from shared.tokens import Lesson

T = TypeVar("T")
Exclude = Iterable[type[BaseException] | Callable[[Any], bool]]


class Told(msgspec.Struct, frozen=True):
    """Of an answered call: what it took of the limits, by their kind, for how long the provider's own leave nothing, and how much it said.

    `lesson`: what it teaches about tokens, where it was measured.
    """

    used: dict[str, float] | None = None
    rest_s: float | None = None
    output_tokens: int = 0
    lesson: Lesson | None = None


_NOTHING = Told()


def _nothing_more(_: object) -> Told:
    return _NOTHING


class PermitRefusedError(pybreaker.CircuitBreakerError):
    """No leave to call now. `retry_after_s`: when there may be; None where that takes a person."""

    def __init__(self, block: Block, retry_after_s: float | None) -> None:
        super().__init__(f"{block.provider}: {block.reason.value}")
        self.block = block
        self.retry_after_s = retry_after_s


class BreakerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """`next_probe_s`: seconds until the next call may try an open breaker's provider."""

    state: State
    failures: int
    successes: int
    openings: int
    reason: str
    next_probe_s: float | None


def health_of(circuit: Circuit, now: float) -> BreakerHealth:
    is_open = circuit.state is State.OPEN
    return BreakerHealth(
        state=circuit.state,
        failures=circuit.failures,
        successes=circuit.successes,
        openings=circuit.openings,
        reason=circuit.reason if circuit.state is not State.CLOSED else "",
        next_probe_s=max(0.0, circuit.until - now) if is_open else None,
    )


class _Shared(pybreaker.CircuitBreakerStorage):
    """What pybreaker reads, as the gate knows it. Writing is the gate's own affair."""

    def __init__(self, look: Callable[[], Circuit]) -> None:
        super().__init__("gate")
        self._look = look

    @property  # type: ignore[misc]  # written by nobody
    def state(self) -> str:
        return self._look().state.value

    @property
    def counter(self) -> int:
        return self._look().failures

    @property
    def success_counter(self) -> int:
        return self._look().successes

    @property  # type: ignore[misc]  # the same
    def opened_at(self) -> datetime | None:
        circuit = self._look()
        return datetime.fromtimestamp(circuit.since, UTC) if circuit.state is State.OPEN else None


class SharedBreaker(pybreaker.CircuitBreaker):
    """The breaker of one candidate. Many calls run through it at a time; `doorman` and `gate` may raise StoreUnavailableError.

    Listeners hear of changes that `on_change` is handed: of each change one process of the fleet does.
    """

    def __init__(
        self,
        gate: Gate,
        doorman: Doorman,
        candidate: Candidate,
        settings: Breaker,
        *,
        exclude: Exclude | None = None,
        listeners: Sequence[pybreaker.CircuitBreakerListener] | None = None,
        throw_new_error_on_trip: bool = True,
    ) -> None:
        self._gate = gate
        self._doorman = doorman
        self._candidate = candidate
        self._settings = settings
        super().__init__(
            fail_max=settings.failure_threshold,
            reset_timeout=settings.reset_timeout_s,
            success_threshold=settings.success_threshold,
            exclude=exclude,
            listeners=listeners,
            name=candidate.target,
            throw_new_error_on_trip=throw_new_error_on_trip,
        )
        self._state_storage = _Shared(self.circuit)  # not before: pybreaker looks at its own while it is made

    @property
    def settings(self) -> Breaker:
        """Those it was made with."""
        return self._settings

    def circuit(self) -> Circuit:
        """As the whole fleet sees it."""
        return self._look()[1]

    def health(self) -> BreakerHealth:
        now, circuit = self._look()
        return health_of(circuit, now)

    def _look(self) -> tuple[float, Circuit]:
        now, (seen,) = self._gate.look([self._candidate.provider])
        return now, seen.condition.breakers.get(self._candidate.target, Circuit())

    @property  # type: ignore[misc]  # open, half_open and close change it
    def state(self) -> Any:
        return self._create_new_state(self.current_state)

    def call(self, func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Raises PermitRefusedError, a CircuitBreakerError; and what `func` raises."""
        permit = self._permit()
        for listener in self.listeners:
            listener.before_call(self, func, *args, **kwargs)
        return self.run(permit, lambda: func(*args, **kwargs))

    def call_async(self, *_: Any, **__: Any) -> Any:
        """Tornado's coroutines are not supported. Raises NotImplementedError."""
        raise NotImplementedError("call_async: use call() in a thread or greenlet")

    @contextmanager
    def calling(self) -> Generator[None, None, None]:
        permit, started = self._permit(), time.monotonic()
        try:
            yield
        except BaseException as exc:
            self._failed(permit, exc, time.monotonic() - started)
            raise
        self._answered(permit, time.monotonic() - started)

    def run(self, permit: Permit, func: Callable[[], T], told: Callable[[T], Told] = _nothing_more) -> T:
        """`func` under a permit that the doorman has given already; `told` reads from its result what more there is to tell.

        A ProviderError learns whether it is charged.
        """
        started = time.monotonic()
        try:
            result = func()
        except BaseException as exc:
            self._failed(permit, exc, time.monotonic() - started)
            raise
        self._answered(permit, time.monotonic() - started, told(result))
        return result

    def _permit(self) -> Permit:
        found = self._doorman.acquire([self._candidate])
        if isinstance(found, Permit):
            return found
        block = found[0]
        now = self._gate.look([])[0]
        raise PermitRefusedError(block, max(0.0, block.until - now) if block.until else None)

    def _answered(self, permit: Permit, duration_s: float, told: Told = _NOTHING) -> None:
        ending = msgspec.structs.replace(
            ending_of(None, duration_s, self._settings),
            used=told.used,
            rest_s=told.rest_s,
            output_tokens=told.output_tokens,
            lesson=told.lesson,
        )
        self._doorman.settle(permit, ending)
        for listener in self.listeners:
            listener.success(self)

    def _failed(self, permit: Permit, exc: BaseException, duration_s: float) -> None:
        counts = isinstance(exc, Exception) and self.is_system_error(exc)
        ending = ending_of(exc, duration_s, self._settings, counts=counts)
        charged = self._doorman.settle(permit, ending)
        if isinstance(exc, ProviderError):
            exc.charged = exc.charged and charged
        if ending.result != "failed":
            return
        for listener in self.listeners:
            listener.failure(self, exc)
        if self._throw_new_error_on_trip and not isinstance(exc, ProviderError):
            self._tripped(exc)

    def _tripped(self, exc: BaseException) -> None:
        """The call that opened the breaker raises its error, as with pybreaker. A ProviderError tells more, and stays."""
        if self.current_state == State.OPEN:
            raise pybreaker.CircuitBreakerError("Failures threshold reached, circuit breaker opened") from exc

    def on_change(self, change: Change) -> None:
        before, after = (self._create_new_state(state.value) for state in (change.before, change.after))
        for listener in self.listeners:
            listener.state_change(self, before, after)

    def open(self) -> bool:
        self._change("open")
        return self._throw_new_error_on_trip

    def half_open(self) -> None:
        self._change("half_open")

    def close(self) -> None:
        self._change("close")

    def _change(self, action: Any) -> None:
        changes = self._gate.change(
            self._candidate.provider, action, settings=self._settings, target=self._candidate.target
        )
        for change in changes:
            self.on_change(change)
