"""Time as a parameter: what needs `now` is handed a clock, so no test sleeps."""

import time
from typing import Protocol


class Clock(Protocol):
    """A source of Unix time in seconds."""

    def now(self) -> float: ...


class SystemClock:
    """The machine's wall clock. The ledger on Redis does not use it: there only Redis' own TIME counts."""

    def now(self) -> float:
        return time.time()


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, start_s: float = 1_750_000_000.0) -> None:
        self._now = start_s

    def now(self) -> float:
        return self._now

    def advance(self, by_s: float) -> None:
        self._now += by_s
