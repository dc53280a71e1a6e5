"""What a process knows of the store's room: asked for at most every so often, so that lone submits and calls cost nothing."""

import math
import threading
import time
from collections.abc import Callable

from shared.errors import NO_ROOM, StoreUnavailableError
from shared.logs import get_logger
from shared.room import Room, State

API_AGE_S = 0.5
WORKER_AGE_S = 1.0
RETRY_AFTER_S = 5.0

_LEVELS: dict[State, str] = {
    "ok": "everything goes on",
    "unknown": "everything goes on",
    "no_submits": "uploads and submits are refused",
    "no_calls": "uploads and submits are refused, and no call to a provider begins",
}

_log = get_logger(__name__)


class RoomWatch:
    """The room as it was at most `max_age_s` ago. One caller asks the store anew; the others meanwhile wait for what it hears.

    While the store is away it is asked no more often, and the room is as it was last known.
    """

    def __init__(
        self, ask: Callable[[], Room], max_age_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._max_age_s = max_age_s
        self._now = now
        self._known: Room | None = None
        self._away = ""
        self._asked_at = -math.inf
        self._asked = 0
        self._asking = threading.Lock()

    def now(self) -> Room:
        """May ask Redis, so not for an event loop's own thread. Raises StoreUnavailableError where it has never answered."""
        known = self._known
        if known is not None and self._lately and not self._asking.locked():
            return known
        return self._anew(by_all=True)

    @property
    def _lately(self) -> bool:
        return self._now() - self._asked_at < self._max_age_s

    def _anew(self, *, by_all: bool = False) -> Room:
        asked = self._asked
        with self._asking:
            if by_all and self._known is not None and self._lately:
                return self._known
            if self._away and self._asked != asked:  # another has found that out: nobody waits for it twice
                raise StoreUnavailableError(self._away)
            self._asked_at = self._now()
            try:
                room = self._ask()
            except StoreUnavailableError as exc:
                self._away = exc.message
                raise
            finally:
                self._asked += 1
            self._away = ""
            before, self._known = self._known, room
        _tell(before, room)
        return room

    def check(self, *, jobs: int = 0, size: int = 0, fresh: bool = False) -> None:
        """Before `jobs` or `size` bytes are taken in. `fresh` asks Redis in any case: for what is large.

        Raises StoreUnavailableError: with the code NO_ROOM where what was promised to others would not fit any more.
        """
        room = self._anew() if fresh else self.now()
        if not room.takes(jobs=jobs, size=size):
            raise StoreUnavailableError(
                "There is no room for this now: what is left is kept for the answers of jobs already accepted. Try again"
                " later, delete files you no longer need, or have Redis' maxmemory raised.",
                code=NO_ROOM,
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
    for caution in room.cautions:
        if before is None or caution not in before.cautions:
            _log.warning("redis_unsafe", problem=caution)
    if room.state == ("ok" if before is None else before.state):
        return
    say = _log.info if room.state == "ok" else _log.warning
    say(
        "room",
        state=room.state,
        then=_LEVELS[room.state],
        used=room.used,
        promised=room.promised,
        maxmemory=room.maxmemory,
    )
