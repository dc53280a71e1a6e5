"""The parts of the embedded stack as records, and the pure rules of their lives: order, back-off, when to give up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 10.0
STEADY_S = 30.0
"""A part that lived this long starts again without a longer wait than the first time."""
QUICK_S = 10.0
GIVE_UP_AFTER = 5
"""So many ends in a row within `QUICK_S` each, before the stack was ever ready: it will not work by trying again."""

MISUSED = 2
"""The exit code of a program that does not understand its options: trying again cannot help."""


class Role(IntEnum):
    """What a part is, in the order in which parts are stopped: nobody loses what it still writes to."""

    WORKER = 0
    API = 1
    SIMULATOR = 2
    SERVER = 3


@dataclass(frozen=True)
class Part:
    """One program that `up` keeps running."""

    name: str
    role: Role
    argv: tuple[str, ...]
    env: Mapping[str, str]
    grace_s: float
    """From SIGTERM to SIGKILL."""
    answers: Callable[[], bool] | None = None
    """Whether a SERVER or SIMULATOR does its work. All others wait for the server. None: as soon as it runs."""


@dataclass(frozen=True)
class Life:
    """What the rules need to know of a part's past."""

    delay_s: float = 0.0
    quick_ends: int = 0

    def after_end(self, lived_s: float, status: int = 1) -> "Life":
        """The past including one more life of `lived_s` seconds that ended with `status`.

        `delay_s` is then the wait before the next start: 0.5, 1, 2, 4, 8, 10, 10 ... seconds.
        """
        delay_s = (
            FIRST_DELAY_S if lived_s >= STEADY_S or not self.delay_s else min(self.delay_s * 2, MAX_DELAY_S)
        )
        if lived_s >= QUICK_S:
            return Life(delay_s)
        return Life(delay_s, GIVE_UP_AFTER if status == MISUSED else self.quick_ends + 1)

    @property
    def hopeless(self) -> bool:
        return self.quick_ends >= GIVE_UP_AFTER
