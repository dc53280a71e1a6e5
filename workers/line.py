"""Who waits at a limit: a few in their callers' places, the rest are told when it should be their turn.

Without the first a limit would not be used up, since what is parked comes back with a delay; without the second all jobs of
a large batch would come back all the time, in vain. Those whom the same limits keep waiting (of one scope) form a line, and
who waits for what his batch may spend is in nobody's way who waits for a provider.
"""

import math
import random
import threading
import time
from collections.abc import Iterable, Sequence

import msgspec

from shared.gate import Block
from shared.limits import COUNTED, provider_in
from shared.permits import Permit
from shared.reasons import Reason

WAIT_S = 2.0
"""Nobody waits longer in his caller's place."""

TURN_S = 300.0
"""No turn is later than this: a limit may be raised, or others may leave."""

MONEY_TURN_S = 60.0
"""Nor, where money is waited for, than this: once it is spent for good the jobs are to end."""

BACK_S = 5.0
"""Nobody waits longer for reserved tokens alone to come back by themselves: a call gives back what it did not use."""

FADES_S = 10.0
"""Calls that began are forgotten in about this time."""

HASTE = 2.0
"""Turns come so many times as fast as calls began of late: half of them in vain, but where there is room the pace goes up."""

MONEY_SHARE = 0.25
"""No more of the places go to those who wait for money: there are as many batches as people please."""

_EARLY_S = 2.0
_MOST_LINES = 1000


class _Line:
    """The pace at which calls begin under a limit, by a sum that fades over the time that it stands for; and the last turn given.

    Only while there is a line the pace says what the limit lets through, and not what there was to do.
    """

    def __init__(self, now: float) -> None:
        self._since = self.at = now
        self._sum, self._asked = 0.0, -math.inf
        self.last = 0.0
        """By the store's time."""

    def add(self, now: float) -> None:
        self._sum = self._left(now) + 1.0
        self.at = now

    def a_second(self, now: float) -> float | None:
        """How many calls began while turns were asked for; None where it is too early to tell."""
        asked, self._asked = self._asked, now
        if now - asked > FADES_S:
            self._since, self.at, self._sum = now, now, 1.0  # as if one had: there is always some pace
        if now - self._since < _EARLY_S:
            return None
        over_s = FADES_S * -math.expm1((self._since - now) / FADES_S)
        return self._left(now) / over_s

    def _left(self, now: float) -> float:
        """A longer pause says no more than one of FADES_S: after it calls begin as before, and turns are not to be minutes apart."""
        return self._sum * math.exp(-min(now - self.at, FADES_S) / FADES_S)


class Lines:
    """For all threads of a worker. `places`: how many may wait here."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._for_money = math.ceil(places * MONEY_SHARE)
        self._lock = threading.Lock()
        self._waiting: list[tuple[Block, threading.Event]] = []
        self._lines: dict[str, _Line] = {}

    def began(self, scopes: Iterable[str]) -> None:
        """A call under limits of these scopes."""
        now = time.monotonic()
        with self._lock:
            for scope in scopes:
                if scope not in self._lines:
                    self._forget(now)
                self._lines.setdefault(scope, _Line(now)).add(now)

    def early(self, now: float, every_s: float) -> dict[str, int]:
        """Asked every so often: how many shards are to come before their turns, by provider.

        Turns may be given too late, as where one worker has given most of them. Where nobody waits here for a line that has turns ahead,
        there may be room; as many come as the pace of late would have let.
        """
        found: dict[str, int] = {}
        at = time.monotonic()
        with self._lock:
            busy = {block.scope for block, _ in self._waiting}
            for scope, line in self._lines.items():
                provider, pace = provider_in(scope), line.a_second(at)
                if provider and scope not in busy and line.last > now and pace is not None:
                    found[provider] = found.get(provider, 0) + math.ceil(HASTE * pace * every_s)
        return found

    def ended(self, scopes: Iterable[str]) -> None:
        """One of each line may try."""
        left = set(scopes)
        with self._lock:
            for at, event in self._waiting:
                if at.scope in left and not event.is_set():
                    event.set()
                    left.remove(at.scope)

    def wait(self, at: Block, now: float, left_s: float) -> bool:
        """Whether it is worth asking again, after the wait that this was. `now`: the store's time."""
        if at.until - now > left_s:
            return False
        me = (at, threading.Event())
        with self._lock:
            if not self._has_place(at):
                return False
            crowd = sum(other.scope == at.scope for other, _ in self._waiting)
            self._waiting.append(me)
        pause_s = max(0.0, at.until - now)
        if at.detail not in COUNTED:  # one at a time gets through: they do not all ask at once
            pause_s *= 1.0 + crowd * random.random()
        me[1].wait(min(pause_s, left_s))
        with self._lock:
            self._waiting.remove(me)
        return True

    def _has_place(self, at: Block) -> bool:
        if len(self._waiting) >= self._places:
            return False
        return at.detail != "money" or sum(o.detail == "money" for o, _ in self._waiting) < self._for_money

    def turns(self, blocks: Sequence[Block], now: float) -> tuple[Block, ...]:
        """With the time at which to ask for one who goes to the end of the line where his turn comes first.

        Those who were told so before him go before him. It is told of each limit in his way, since he stands in no other line.
        """
        with self._lock:
            turns = {b.scope: self._turn(b, now) for b in blocks if b.reason is Reason.LIMIT_REACHED}
            scope = min(turns, key=turns.__getitem__)
            if line := self._lines.get(scope):
                line.last = turns[scope]
        return tuple(
            msgspec.structs.replace(b, until=turns[scope]) if b.reason is Reason.LIMIT_REACHED else b
            for b in blocks
        )

    def _turn(self, at: Block, now: float) -> float:
        latest = now + (MONEY_TURN_S if at.detail == "money" else TURN_S)
        free = min(at.until, now + BACK_S) if at.detail == "tpm" else at.until
        line = self._lines.get(at.scope) if self._places else None
        a_second = line.a_second(time.monotonic()) if line else None
        if line is None or a_second is None:
            return min(free, latest)
        return min(max(line.last, free) + 1.0 / (HASTE * a_second), latest)

    def _forget(self, now: float) -> None:
        """A batch's line says nothing any more when the batch has ended."""
        if len(self._lines) >= _MOST_LINES:
            self._lines = {scope: line for scope, line in self._lines.items() if now - line.at < TURN_S}


def at_limit(blocks: Sequence[Block]) -> Block | None:
    """Where a limit is all that is in the way, and soonest not."""
    return min((b for b in blocks if b.reason is Reason.LIMIT_REACHED), key=lambda b: b.until, default=None)


def scopes_of(permit: Permit) -> set[str]:
    """Of all limits that its call is under."""
    return {
        *permit.scopes,
        *(limit.scope for limit in (*(permit.candidate.limits or ()), *(permit.limits or ()))),
    }
