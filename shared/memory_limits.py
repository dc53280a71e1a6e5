"""What has been taken of the limits, in memory: the twin of `lua/_limits.lua`."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from shared.limits import (
    BUSY_S,
    BUSY_SPREAD_S,
    COUNTED,
    SILENT_S,
    Kind,
    Limit,
    Limits,
    counts_as,
    free_at,
    taken,
)
from shared.reasons import Reason

Refusal = tuple[Reason, float, str, str]
"""The reason, until when, of which kind the limit is (where it is money that is spent, under which scope), and its scope."""


class Counters:
    """One exchange at a time: `begin` it, and `end` it."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], float] = {}
        self._flights: dict[str, dict[str, tuple[int, float]]] = {}
        self._sender, self._now, self.busy_until = "", 0.0, 0.0
        self._own: dict[str, int] = {}

    def begin(self, sender: str, held: Mapping[str, int], *, now: float, spread: float) -> None:
        """`held` is the sender's own count of its calls in flight, by scope: what is not in it is none."""
        self._sender, self._now, self._own = sender, now, dict(held)
        self.busy_until = now + BUSY_S + BUSY_SPREAD_S * spread

    def end(self, passed_over: Callable[[str], bool]) -> None:
        """The sender's calls are kept, but for scopes that nobody asks about."""
        for flight in self._flights.values():
            flight.pop(self._sender, None)
        for scope, n in self._own.items():
            if n and not passed_over(scope):
                self._flights.setdefault(scope, {})[self._sender] = (n, self._now)

    def refusal(self, *several: Limits | None) -> Refusal | None:
        """Why a call may not begin: of several limits money first, for that takes a person; then the one that lasts longest."""
        found: Refusal | None = None
        for limit in _all(several):
            until = self._until(limit)
            if until is None:
                continue
            if not until:
                return Reason.BUDGET_SPENT, 0.0, limit.scope, limit.scope
            if found is None or until > found[1]:
                found = Reason.LIMIT_REACHED, until, limit.kind, limit.scope
        return found

    def _until(self, limit: Limit) -> float | None:
        if limit.kind == "concurrency":
            free = self.in_flight(limit.scope) + limit.amount <= limit.ceiling
            return None if free else self.busy_until
        number = self._numbers.get((limit.kind, limit.scope), 0.0)
        if limit.kind == "money":
            if number + limit.amount <= limit.ceiling:
                return None
            # what is under way is reserved at its worst, and may leave some
            return self.busy_until if self.in_flight(limit.scope) else 0.0
        at = free_at(number, limit)
        return at if at > self._now else None

    def in_flight(self, scope: str) -> int:
        """Calls of all senders that are heard of, this exchange's grants included."""
        return sum(self._others(scope)) + self._own.get(scope, 0)

    def senders(self, scope: str) -> int:
        """How many have calls there, this one included."""
        return len(self._others(scope)) + 1

    def _others(self, scope: str) -> list[int]:
        flight = self._flights.get(scope, {}).items()
        return [n for sender, (n, at) in flight if sender != self._sender and at + SILENT_S > self._now]

    def spent(self, scope: str) -> float:
        return self._numbers.get(("money", scope), 0.0)

    def look(self, kind: Kind, scope: str, now: float) -> float:
        """How a counter stands between two exchanges."""
        if kind != "concurrency":
            return self._numbers.get((kind, scope), 0.0)
        flight = self._flights.get(scope, {}).values()
        return float(sum(n for n, at in flight if at + SILENT_S > now))

    def take(self, *several: Limits | None) -> None:
        for limit in _all(several):
            if limit.kind in COUNTED:
                self.take_call(limit.scope)
            if limit.kind != "concurrency":
                self._add(limit, counts_as(limit.amount, limit))

    def take_call(self, scope: str) -> None:
        self._own[scope] = self._own.get(scope, 0) + 1

    def settle(self, used: Mapping[str, float] | None, *several: Limits | None) -> None:
        """After the call: what was used takes the place of the estimate, as far as it is known."""
        for limit in _all(several):
            if limit.kind != "concurrency" and used is not None and limit.kind in used:
                back = counts_as(limit.amount, limit)
                self._add(limit, counts_as(used[limit.kind], limit) - back)

    def _add(self, limit: Limit, amount: float) -> None:
        name = (limit.kind, limit.scope)
        number = self._numbers.get(name, 0.0)
        if limit.kind == "money":
            self._numbers[name] = max(0.0, number + amount)
        else:
            self._numbers[name] = taken(number, amount, limit.ceiling, self._now)


def _all(several: Sequence[Limits | None]) -> Iterator[Limit]:
    for limits in several:
        yield from limits or ()
