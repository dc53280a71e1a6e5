"""Leases that ran out while nobody could renew them: their holders get a moment to, before the reaper takes them for dead.

Where Redis, or every process that reaps, was silent for longer than a lease lasts, all leases have run out and all holders may
be alive: to hand their jobs out at once would be to call, and to pay, again. At most every second round forbears, so that
what is dead is found however seldom rounds come. The same in Lua: `forbears` in `lua/_common.lua`.
"""

SILENCE_S = 5.0
"""Between two rounds; at the usual tick they come twice a second."""

FORBEAR_S = 3.0
"""A holder renews every 1.5 s at the latest (`workers.leases`)."""


class Rounds:
    """The reaper's rounds as a memory store counts them."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._until = 0.0

    def forbears(self, now: float) -> bool:
        """A round at `now`: whether it leaves leases alone."""
        if self._at is not None and now - self._at > SILENCE_S and self._at >= self._until:
            self._until = now + FORBEAR_S
        self._at = now
        return now < self._until
