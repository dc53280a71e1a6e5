"""What a worker goes by while Redis is away for a moment: the conditions it knew last, and a gate of its own for what it sees."""

import itertools
import math
import threading
import time
from collections.abc import Mapping

import msgspec

from shared.breaker import State
from shared.catalogue import Breaker
from shared.clock import SystemClock
from shared.gate import Ask, Block, Candidate, Exchanged, Flight, Report
from shared.limits import Limit, Limits, limits_calls
from shared.logs import get_logger
from shared.memory_gate import MemoryGate
from shared.permits import Permit, permit_of
from shared.reasons import Reason
from shared.window import scope_of

PACE_S = 10.0
"""What was granted of a rate fades away in about this time."""

_log = get_logger(__name__)


class _Paces:
    """How much this worker was granted of each rate of late."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], tuple[float, float]] = {}

    def note(self, permit: Permit) -> None:
        now = time.monotonic()
        for limit in (*(permit.candidate.limits or ()), *(permit.limits or ())):
            if limit.kind in {"rpm", "tpm"}:
                name = (limit.scope, limit.kind)
                self._sums[name] = (self._left(name, now) + limit.amount, now)

    def a_minute(self, limit: Limit) -> float:
        return self._left((limit.scope, limit.kind), time.monotonic()) * 60.0 / PACE_S

    def _left(self, name: tuple[str, str], now: float) -> float:
        amount, at = self._sums.get(name, (0.0, now))
        return amount * math.exp((at - now) / PACE_S)


class Alone:
    """Begins where an exchange fails, and ends with the next that does not.

    Of limits, and of a window, it allows what this worker had when it began: so many calls at a time, rates as fast as of late,
    and no money.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gate: MemoryGate | None = None
        self._blocks: dict[tuple[str, str], Block] = {}
        self._generations: dict[str, int] = {}
        self._windows: dict[str, frozenset[str]] = {}
        self._paces = _Paces()
        self._had: Mapping[str, int] = {}
        self._serials = itertools.count(1)

    def know(self, told: Exchanged, *, adaptive: bool) -> None:
        """What an exchange has shown. `adaptive`: whether windows count."""
        for provider, condition in told.conditions:
            sized = (target for target, w in condition.windows.items() if w.size)
            self._windows[provider] = frozenset(sized if adaptive else ())
        if not told.changes and all(not v.blocks for v in told.verdicts):
            return
        with self._lock:
            for verdict in told.verdicts:
                for block in verdict.blocks:
                    if (
                        block.reason is not Reason.BUDGET_SPENT
                    ):  # which is its batch's or owner's, and no provider's
                        self._blocks[block.provider, block.reason] = block
            for change in told.changes:
                for reason in (Reason.BREAKER_OPEN, Reason.BREAKER_PROBING):
                    self._blocks.pop((change.provider, reason), None)
                if change.after == State.HALF_OPEN:  # somebody probes; here nobody does
                    self._blocks[change.provider, Reason.BREAKER_PROBING] = Block(
                        change.provider, Reason.BREAKER_PROBING, 0.0, change.reason
                    )
                if change.after == State.OPEN:
                    self._blocks[change.provider, Reason.BREAKER_OPEN] = Block(
                        change.provider, Reason.BREAKER_OPEN, change.until, change.reason
                    )

    def granted(self, permit: Permit) -> None:
        self._generations[permit.candidate.target] = permit.generation
        if permit.limited:
            self._paces.note(permit)
        if self._blocks and not permit.probe:
            with self._lock:
                for name in [name for name in self._blocks if name[0] == permit.candidate.provider]:
                    del self._blocks[name]

    def begin(self, why: str, held: Mapping[str, int]) -> None:
        """`held`: its calls in flight, by scope."""
        with self._lock:
            if self._gate is not None:
                return
            self._gate, self._had = MemoryGate(SystemClock()), held
        _log.warning("gate_away", error=why)

    def end(self) -> None:
        with self._lock:
            ended, self._gate = self._gate is not None, None
        if ended:
            _log.info("gate_back")

    def judge(
        self, ask: Ask, settings: Breaker, offset: float, held: Mapping[str, int]
    ) -> Permit | tuple[Block, ...]:
        self.begin("Redis did not answer in time", held)
        now = time.time() + offset
        with self._lock:
            known = [self._known(c, now) for c in ask.candidates]
            free = [n for n, block in enumerate(known) if block is None]
            blocks = tuple(block for block in known if block is not None)
            if not free or self._gate is None:
                return blocks or tuple(Block(c.provider, Reason.STORE_AWAY, now) for c in ask.candidates)
            candidates = (
                msgspec.structs.replace(
                    ask.candidates[n], limits=self._cautious(self._limits_of(ask.candidates[n]))
                )
                for n in free
            )
            asked = Ask(ask.permit, tuple(candidates), self._cautious(ask.limits))
            told = self._gate.exchange(
                [asked],
                [],
                settings=settings,
                sender="alone",
                serial=next(self._serials),
                spread=0.0,
                flight=Flight(dict(held)),
            )
        found = permit_of(asked, told.verdicts[0])
        if isinstance(found, Permit):
            generation = self._generations.get(found.candidate.target, 0)
            chosen = free[found.choice]
            given = ask.candidates[chosen]
            given = msgspec.structs.replace(given, limits=_untaken(given.limits))
            return Permit(found.id, chosen, given, generation, found.probe, _untaken(ask.limits))
        return (*blocks, *found)

    def _limits_of(self, candidate: Candidate) -> Limits | None:
        """Its own, and its window as one of them."""
        own = candidate.limits
        if limits_calls(own) or candidate.target not in self._windows.get(candidate.provider, ()):
            return own
        return (*(own or ()), Limit(scope_of(candidate.target), "concurrency", 1.0, 0.0))

    def _cautious(self, limits: Limits | None) -> Limits | None:
        return None if limits is None else tuple(self._share(limit) for limit in limits)

    def _share(self, limit: Limit) -> Limit:
        ceiling = 0.0
        if limit.kind == "concurrency":
            ceiling = float(self._had.get(limit.scope, 0))
        elif limit.kind != "money":
            ceiling = min(limit.ceiling, self._paces.a_minute(limit))
        if ceiling < 1:  # nothing was had of it: no call may begin
            return Limit(limit.scope, "concurrency", 1.0, 0.0)
        return msgspec.structs.replace(limit, ceiling=ceiling)

    def _known(self, candidate: Candidate, now: float) -> Block | None:
        for (provider, _), block in self._blocks.items():
            if provider == candidate.provider and (block.until > now or not block.until):
                return block
        return None

    def learn(self, report: Report | None, settings: Breaker) -> None:
        with self._lock:
            if self._gate is None or report is None:
                return
            c = self._gate.condition(report.candidate.provider)
            circuit = c.breakers.get(report.candidate.target)
            here = msgspec.structs.replace(
                report,
                candidate=msgspec.structs.replace(report.candidate, limits=None),
                limits=None,
                generation=circuit.generation if circuit else 0,
            )
            serial = next(self._serials)
            self._gate.exchange([], [here], settings=settings, sender="alone", serial=serial, spread=0.0)


def _untaken(limits: Limits | None) -> Limits | None:
    """As the store has to know them afterwards: nothing was reserved there."""
    return limits and tuple(msgspec.structs.replace(limit, amount=0.0) for limit in limits)
