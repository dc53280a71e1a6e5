"""Room in the store, pure: answers still to come have their room promised, and only what keeps that promise may begin.

    0 %            70 %                90 %        100 % of maxmemory
    │ submits, calls │ calls, answers    │ answers   │ answers
"""

import math

import msgspec

SUBMIT_SHARE = 0.7
"""Above this share of maxmemory, the answers still to come included, no upload or submit is taken."""

CALL_SHARE = 0.9
"""Above this share no call to a provider begins; what comes of those in flight is always written."""

PACKED = 0.25
"""What an input file takes once its chunks are compressed, as a share of its bytes (ops/docs/memory.md)."""

_HORIZON = 1000
"""The average of the answers' bytes looks back over about so many."""


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """How full the store is, in bytes; a `maxmemory` of 0 is no bound.

    `open_jobs` have been accepted and have no outcome yet; each is reckoned at `answer_bytes`, uncompressed.
    """

    used: int
    maxmemory: int
    open_jobs: int = 0
    answer_bytes: int = 0
    policy: str = "noeviction"

    @property
    def promised(self) -> int:
        """What the answers still to come will take at most, as far as is known."""
        return self.open_jobs * self.answer_bytes

    def takes(self, *, jobs: int = 0, size: int = 0) -> bool:
        """Whether `size` bytes more, and the answers of `jobs` more, still leave every promise kept."""
        wanted = self.used + size + self.promised + jobs * self.answer_bytes
        return not self.maxmemory or wanted <= SUBMIT_SHARE * self.maxmemory

    @property
    def calls(self) -> bool:
        """Whether calls to providers may begin."""
        return not self.maxmemory or self.used <= CALL_SHARE * self.maxmemory

    @property
    def cautions(self) -> list[str]:
        """What is wrong with the server's own settings; promises cannot be kept with them."""
        found = []
        if not self.maxmemory:
            found.append(NO_MAXMEMORY)
        if self.policy != "noeviction":
            found.append(evicts(self.policy))
        return found


NO_MAXMEMORY = (
    "no maxmemory is set, so the server may use all of the machine's memory, and nothing is refused before it does"
)


def evicts(policy: str) -> str:
    return f"maxmemory-policy is {policy}, which loses accepted jobs when memory is short; set it to noeviction"


def reckoned(average: float, least: int) -> int:
    """Bytes to reckon an answer at: the fleet's average of late, at least `least` (which is all that is known at first)."""
    return max(least, math.ceil(average))


def blended(average: float, count: int, size: int) -> float:
    """The average after `count` more answers of `size` bytes in all: exponential, over about the last 1,000 answers.

    `average + (mean - average) * min(1, count / 1000)`; the first answers are the average (0 says there were none).
    The finishing script does the same.
    """
    if not count:
        return average
    mean = size / count
    return mean if not average else average + (mean - average) * min(1.0, count / _HORIZON)
