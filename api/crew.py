"""Whether any worker is alive, as this process sees it, and who is told when none is."""

import time
from collections.abc import Callable

from shared.errors import StoreUnavailableError
from shared.ledger import HEARTBEAT_TIMEOUT_S
from shared.logs import get_logger
from shared.lone import Parked
from shared.reasons import Reason

LOOK_S = 1.0

GRACE_S = HEARTBEAT_TIMEOUT_S
"""Nobody is told so before none has been seen for so long: one may just be starting, or Redis was away and they have yet to report."""

SURE_S = 2.0
"""Whose wait is over is told so after this time: longer than workers take from one heartbeat to the next."""

_log = get_logger(__name__)


class Crew:
    """`tick` belongs to one thread. `count` says how many workers are alive; `tell` reaches those whose jobs nobody has begun."""

    def __init__(
        self,
        count: Callable[[], int],
        tell: Callable[[Parked], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        self._tell = tell
        self._now = now
        self._looked = -LOOK_S
        self._none_since: float | None = None

    def tick(self) -> None:
        """Called often; looks every LOOK_S seconds."""
        if self._now() - self._looked < LOOK_S:
            return
        self._looked = self._now()
        try:
            count = self._count()
        except StoreUnavailableError as exc:
            _log.warning("store_away", error=exc.message)
            self._none_since = None  # not known
            return
        if count:
            self._none_since = None
        elif self._none_since is None:
            self._none_since = self._now()
        if self.missing(GRACE_S):
            self._tell(nobody())

    def missing(self, for_s: float = 0.0) -> bool:
        """Whether none has been seen for so long. Not where it is not known."""
        since = self._none_since
        return since is not None and self._now() - since >= for_s


def nobody() -> Parked:
    """What a job waits for while there is no worker. Nobody knows for how long: so long as one would take to be noticed."""
    now = time.time()
    lasts_s = HEARTBEAT_TIMEOUT_S
    return Parked(
        reason=Reason.NO_WORKER, provider="", since=now, until=now + lasts_s, jobs=1, lasts_s=lasts_s
    )
