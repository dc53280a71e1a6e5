"""Room in the store, pure: what is still to come has its room promised, and only what keeps that promise may begin.

0 %            70 %                90 %        100 % of maxmemory
│ submits, calls │ calls, answers    │ answers   │ answers
"""

import math
from typing import Literal

import msgspec

SUBMIT_SHARE = 0.7
"""Above this share of maxmemory, the answers still to come included, no upload or submit is taken."""

CALL_SHARE = 0.9
"""Above this share no call to a provider begins; what comes of those in flight is always written."""

PACKED = 0.5
"""What an input file takes at most once its chunks are compressed, as a share of its bytes; prose is near it (ops/docs/memory.md)."""

State = Literal["ok", "no_submits", "no_calls", "unknown"]

NO_MAXMEMORY = "no maxmemory is set, so the server may use all of the machine's memory, and nothing is refused before it does"


def evicts(policy: str) -> str:
    return (
        f"maxmemory-policy is {policy}, which loses accepted jobs when memory is short; set it to noeviction"
    )


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """How full the store is, in bytes; a `maxmemory` of 0 is no bound, `known` is false where the server does not say.

    `open_jobs` have been accepted and have no outcome yet; each is reckoned at `answer_bytes`, uncompressed.
    """

    used: int = 0
    maxmemory: int = 0
    open_jobs: int = 0
    answer_bytes: int = 0
    policy: str = "noeviction"
    known: bool = True

    @property
    def promised(self) -> int:
        """What the answers still to come will take."""
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
    def state(self) -> State:
        if not self.known:
            return "unknown"
        if not self.calls:
            return "no_calls"
        return "ok" if self.takes() else "no_submits"

    @property
    def cautions(self) -> list[str]:
        """What is wrong with the server's own settings; promises cannot be kept with them."""
        if not self.known:
            return ["INFO is refused to this user, so nobody can tell how full the server is; grant +info"]
        found = []
        if not self.maxmemory:
            found.append(NO_MAXMEMORY)
        if self.policy != "noeviction":
            found.append(evicts(self.policy))
        return found


def reckoned(average: float, least: int) -> int:
    """Bytes to reckon an answer at: the fleet's average of late, at least `least` (which is all that is known at first)."""
    return max(least, math.ceil(average))
