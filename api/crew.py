"""Whether a job can get to a worker at all, as this process sees it, and who is told when none can."""

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
        broker_away: Callable[[], bool],
        tell: Callable[[Parked], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        self._broker_away = broker_away
        self._tell = tell
        self._now = now
        self._looked = -LOOK_S
        self._idle: Reason | None = None
        self._since = 0.0

    def tick(self) -> None:
        """Called often; looks every LOOK_S seconds."""
        if self._now() - self._looked < LOOK_S:
            return
        self._looked = self._now()
        try:
            found = why_idle(self._count(), broker_away=self._broker_away())
        except StoreUnavailableError as exc:
            _log.warning("store_away", error=exc.message)
            found = None  # not known
        if found is not self._idle:
            self._idle, self._since = found, self._now()
        if (reason := self.idle(GRACE_S)) is not None:
            self._tell(unbegun(reason))

    def idle(self, for_s: float = 0.0) -> Reason | None:
        """What has kept the whole fleet from beginning anything for so long. None, too, where it is not known."""
        return self._idle if self._now() - self._since >= for_s else None


def why_idle(workers: int, *, broker_away: bool) -> Reason | None:
    if not workers:
        return Reason.NO_WORKER
    return Reason.BROKER_AWAY if broker_away else None


def unbegun(reason: Reason) -> Parked:
    """What a job waits for that no worker can get. Nobody knows for how long: so long as a worker would take to be noticed."""
    now = time.time()
    lasts_s = HEARTBEAT_TIMEOUT_S
    return Parked(reason=reason, provider="", since=now, until=now + lasts_s, jobs=1, lasts_s=lasts_s)
