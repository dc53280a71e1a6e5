"""Who waits at a limit: a few in their callers' places, the rest are told when it should be their turn.

Without the first a limit would not be used up, since what is parked comes back with a delay; without the second all jobs of
a large batch would come back all the time, in vain.
"""

import math
import random
import threading
import time
from collections.abc import Sequence

from shared.gate import Block, Candidate
from shared.limits import COUNTED, provider_scope
from shared.reasons import Reason

WAIT_S = 2.0
"""Nobody waits longer in his caller's place."""

TURN_S = 300.0
"""No turn is later than this: a limit may be raised, or others may leave."""

FADES_S = 10.0
"""Calls that began are forgotten in about this time."""

HASTE = 2.0
"""Turns come so many times as fast as calls began of late: half of them in vain, but where there is room the pace goes up."""


_EARLY_S = 2.0


class _Pace:
    """How many calls began a second: a sum that fades, over the time that it stands for."""

    def __init__(self, now: float) -> None:
        self._since = self._at = now
        self._sum = 0.0

    def add(self, now: float) -> None:
        self._fade(now)
        self._sum += 1.0

    def a_second(self, now: float) -> float | None:
        """None where that is too early to tell."""
        if now - self._since < _EARLY_S:
            return None
        self._fade(now)
        over_s = FADES_S * -math.expm1((self._since - now) / FADES_S)
        return max(self._sum / over_s, 1.0 / TURN_S)

    def _fade(self, now: float) -> None:
        self._sum *= math.exp((self._at - now) / FADES_S)
        self._at = now


class Lines:
    """For all threads of a worker. `places`: how many may wait here. Calls under the same limits form a line: `line_of`."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, str, threading.Event]] = []
        self._paces: dict[str, _Pace] = {}
        self._last: dict[str, float] = {}
        self._providers: dict[str, str] = {}

    def began(self, line: str, provider: str) -> None:
        """A call."""
        now = time.monotonic()
        with self._lock:
            self._providers[line] = provider
            self._paces.setdefault(line, _Pace(now)).add(now)

    def early(self, now: float, every_s: float) -> dict[str, int]:
        """Asked every so often: how many shards are to come before their turns, by provider.

        Turns may be given too late, as where one worker has given most of them. Where nobody waits here for a line that has turns ahead,
        there may be room; as many come as the pace of late would have let.
        """
        found: dict[str, int] = {}
        at = time.monotonic()
        with self._lock:
            busy = {line for _, line, _ in self._waiting}
            for line, last in self._last.items():
                pace = self._paces[line].a_second(at)
                if line not in busy and last > now and pace is not None:
                    provider = self._providers[line]
                    found[provider] = found.get(provider, 0) + math.ceil(HASTE * pace * every_s)
        return found

    def ended(self, provider: str) -> None:
        """One of each line who waits for this provider may try."""
        woken: set[str] = set()
        with self._lock:
            for name, line, event in self._waiting:
                if name == provider and line not in woken and not event.is_set():
                    event.set()
                    woken.add(line)

    def wait(self, line: str, at: Block, now: float, left_s: float) -> bool:
        """Whether it is worth asking again, after the wait that this was. `now`: the store's time."""
        if at.until - now > left_s:
            return False
        me = (at.provider, line, threading.Event())
        with self._lock:
            if len(self._waiting) >= self._places:
                return False
            self._waiting.append(me)
            crowd = sum(name == line for _, name, _ in self._waiting) - 1
        pause_s = max(0.0, at.until - now)
        if at.detail not in COUNTED:  # one at a time gets through: they do not all ask at once
            pause_s *= 1.0 + crowd * random.random()
        me[2].wait(min(pause_s, left_s))
        with self._lock:
            self._waiting.remove(me)
        return True

    def turn(self, line: str, at: Block, now: float) -> float:
        """When to ask for one who goes to the end of the line: those who were told so before him go first."""
        with self._lock:
            pace = self._paces.get(line) if self._places else None
            a_second = pace.a_second(time.monotonic()) if pace else None
            if a_second is None:
                return at.until
            turn = max(self._last.get(line, 0.0), at.until) + 1.0 / (HASTE * a_second)
            self._last[line] = min(turn, now + TURN_S)
            return self._last[line]


def at_limit(blocks: Sequence[Block]) -> Block | None:
    """Where a limit is all that is in the way, and soonest not."""
    return min((b for b in blocks if b.reason is Reason.LIMIT_REACHED), key=lambda b: b.until, default=None)


def line_of(candidate: Candidate) -> str:
    """The narrowest of its provider's scopes: where a model has limits of its own, nobody waits behind those who ask for it."""
    own = provider_scope(candidate.provider)
    scopes = [limit.scope for limit in candidate.limits or () if limit.scope.startswith(own)]
    return max(scopes, key=len, default=own)
