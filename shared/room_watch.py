"""What a process knows of the store's room: asked for at most every so often, so that lone submits and calls cost nothing."""

import threading
import time
from collections.abc import Callable

from shared.errors import StoreUnavailableError
from shared.logs import get_logger
from shared.room import Room

API_AGE_S = 0.5
WORKER_AGE_S = 1.0
RETRY_AFTER_S = 5.0

_log = get_logger(__name__)


class RoomWatch:
    """The room as it was at most `max_age_s` ago. One caller at a time asks the store anew; the others go by what is known."""

    def __init__(
        self, ask: Callable[[], Room], max_age_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._max_age_s = max_age_s
        self._now = now
        self._known: Room | None = None
        self._asked_at = 0.0
        self._asking = threading.Lock()

    def now(self) -> Room:
        """Raises StoreUnavailableError where Redis does not answer."""
        known = self._known
        if known is not None and self._now() - self._asked_at < self._max_age_s:
            return known
        if not self._asking.acquire(blocking=known is None):
            assert known is not None  # noqa: S101  else it would have waited
            return known
        try:
            return self._anew()
        finally:
            self._asking.release()

    def _anew(self) -> Room:
        self._asked_at = self._now()
        room = self._ask()
        before, self._known = self._known, room
        _tell(before, room)
        return room

    def check(self, *, jobs: int = 0, size: int = 0, fresh: bool = False) -> None:
        """Before `jobs` or `size` bytes are taken in. May ask Redis, so not for an event loop's own thread.

        `fresh` asks it in any case: for what is large. Raises StoreUnavailableError: with the code
        `insufficient_storage` where what was promised to others would not fit any more.
        """
        room = self._anew() if fresh else self.now()
        if not room.takes(jobs=jobs, size=size):
            raise StoreUnavailableError(
                "There is no room for this now: what is left is kept for the answers of jobs already accepted. Try again"
                " later, delete files you no longer need, or have Redis' maxmemory raised.",
                code="insufficient_storage",
                retry_after_s=RETRY_AFTER_S,
            )

    def calls(self) -> bool:
        """Whether calls to providers may begin. While Redis is away, as it was last known."""
        try:
            return self.now().calls
        except StoreUnavailableError:
            return self._known is None or self._known.calls


def _tell(before: Room | None, room: Room) -> None:
    """One line for each change that somebody may have to act on."""
    figures = {"used": room.used, "promised": room.promised, "maxmemory": room.maxmemory}
    for caution in room.cautions:
        if before is None or caution not in before.cautions:
            _log.warning("redis_unsafe", problem=caution)
    if (before is None or before.takes()) and not room.takes():
        _log.warning("room_short", then="uploads and submits are refused", **figures)
    elif before is not None and not before.takes() and room.takes():
        _log.info("room_again", **figures)
    if (before is None or before.calls) and not room.calls:
        _log.warning("room_gone", then="no call to a provider begins", **figures)
    elif before is not None and not before.calls and room.calls:
        _log.info("calls_go_on", **figures)
