"""The circuit breaker's state machine, pure: time, permits and settings come in, the next circuit goes out.

    CLOSED ── failure_threshold failures in a row, or too large a share of failures ──> OPEN
      ^                                                                                  │ after the break
      └── success_threshold successes in a row ── HALF-OPEN (a few probes at a time) <───┘
                                                     └── one failure ──> OPEN again

Consecutive counts as in pybreaker, the share over a window as in resilience4j, permits with a lease so that a prober
that dies frees its own. `generation` grows with every change of state: what was called under an older one says nothing
about the present one. `lua/_gate.lua` is the same machine for the fleet; one suite holds both to it.
"""

from enum import StrEnum

import msgspec

from shared.catalogue import Breaker

SLOTS = 10
"""The window of the failure rate is counted in so many slots."""


class State(StrEnum):
    """pybreaker's names."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Circuit(msgspec.Struct, frozen=True, kw_only=True):
    """A breaker as it stands. Times in Unix seconds.

    `failures` and `successes` are in a row: while closed, and while half-open. `openings` are in a row, too, without a
    close between. `probes`: permit -> when its lease ends. `window`: slot -> [calls, failures].
    """

    state: State = State.CLOSED
    failures: int = 0
    successes: int = 0
    openings: int = 0
    until: float = 0.0
    since: float = 0.0
    generation: int = 0
    reason: str = ""
    probes: dict[str, float] = {}
    window: dict[str, tuple[int, int]] = {}


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a call may begin, as a probe or freely; else when to ask again."""

    granted: bool
    probe: bool = False
    until: float = 0.0


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended. `failed` is None where it says nothing of the provider."""

    permit: str
    generation: int
    failed: bool | None
    reason: str = ""


def admit(before: Circuit, settings: Breaker, *, now: float, permit: str) -> tuple[Circuit, Admission]:
    """Leave to call. The first who asks after the break opens the door half."""
    c = before
    if c.state is State.CLOSED:
        return c, Admission(granted=True)
    if c.state is State.OPEN:
        if now < c.until:
            return c, Admission(granted=False, until=c.until)
        c = _enter(c, State.HALF_OPEN, now, successes=0, probes={})
    held = {p: until for p, until in c.probes.items() if until > now}
    if len(held) >= settings.half_open_permits:
        c = msgspec.structs.replace(c, probes=held)
        return c, Admission(granted=False, until=min(held.values()))
    c = msgspec.structs.replace(c, probes={**held, permit: now + settings.probe_lease_s})
    return c, Admission(granted=True, probe=True)


def settle(before: Circuit, settings: Breaker, ended: Ended, *, now: float, spread: float = 0.0) -> Circuit:
    """What a call's end does to the breaker. `spread` in [0, 1) lengthens a break that begins now."""
    c, failed = before, ended.failed
    if ended.permit in c.probes:
        held = {permit: until for permit, until in c.probes.items() if permit != ended.permit}
        c = msgspec.structs.replace(c, probes=held)
    if failed is None or ended.generation != c.generation or c.state is State.OPEN:
        return c
    if c.state is State.HALF_OPEN:
        if failed:
            return opened(c, settings, now=now, reason=ended.reason, spread=spread)
        c = msgspec.structs.replace(c, successes=c.successes + 1)
        return closed(c, now=now) if c.successes >= settings.success_threshold else c
    c = msgspec.structs.replace(
        c, failures=c.failures + 1 if failed else 0, window=_counted(c.window, settings, now, failed=failed)
    )
    trips = c.failures >= settings.failure_threshold or _too_many(c.window, settings)
    if failed and trips:
        return opened(c, settings, now=now, reason=ended.reason, spread=spread)
    return c


def break_s(settings: Breaker, openings: int, spread: float) -> float:
    """How long the n-th opening in a row lasts: `min(reset x multiplier^(n-1), max) x (1 + jitter x spread)`."""
    longest = max(settings.reset_timeout_s, settings.max_reset_timeout_s)
    whole = min(settings.reset_timeout_s * settings.reset_multiplier ** (min(openings, 64) - 1), longest)
    return whole * (1 + settings.jitter * spread)


def opened(c: Circuit, settings: Breaker, *, now: float, reason: str, spread: float = 0.0) -> Circuit:
    """OPEN from now on. `failures` stay to be seen."""
    openings = c.openings + 1
    until = now + break_s(settings, openings, spread)
    return _enter(c, State.OPEN, now, openings=openings, until=until, reason=reason, probes={}, window={})


def half_opened(c: Circuit, *, now: float) -> Circuit:
    """HALF-OPEN from now on: the next calls are probes."""
    return _enter(c, State.HALF_OPEN, now, successes=0, probes={})


def closed(c: Circuit, *, now: float) -> Circuit:
    """CLOSED from now on, with nothing held against it."""
    return _enter(c, State.CLOSED, now, failures=0, successes=0, openings=0, probes={}, window={})


def _enter(c: Circuit, state: State, now: float, **changes: object) -> Circuit:
    return msgspec.structs.replace(c, state=state, since=now, generation=c.generation + 1, **changes)


def _counted(
    window: dict[str, tuple[int, int]], settings: Breaker, now: float, *, failed: bool
) -> dict[str, tuple[int, int]]:
    if settings.failure_rate is None:
        return window
    slot = int(now / settings.window_s * SLOTS)
    kept = {n: counts for n, counts in window.items() if int(n) > slot - SLOTS}
    calls, failures = kept.get(str(slot), (0, 0))
    return {**kept, str(slot): (calls + 1, failures + failed)}


def _too_many(window: dict[str, tuple[int, int]], settings: Breaker) -> bool:
    if settings.failure_rate is None:
        return False
    calls = sum(n for n, _ in window.values())
    failures = sum(n for _, n in window.values())
    return calls >= settings.minimum_calls and failures >= settings.failure_rate * calls
