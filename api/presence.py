"""An API process among all that are alive: its heartbeat, and who else is there."""

import time
from collections.abc import Callable
from contextlib import suppress

from shared.errors import StoreUnavailableError
from shared.jobs import ApiRecord, FileState
from shared.logs import get_logger
from shared.redis_roster import RedisRoster

BEAT_S = 1.5

_log = get_logger(__name__)


class Presence:
    """`tick` and `leave` belong to one thread."""

    def __init__(
        self,
        roster: RedisRoster,
        name: str,
        state: Callable[[], FileState],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._roster = roster
        self._name = name
        self._state = state
        self._now = now
        self._told: FileState | None = None
        self._told_at = 0.0

    def tick(self) -> None:
        """Called often; beats every BEAT_S seconds, and at once where there is something new to tell."""
        state = self._state()
        if state == self._told and self._now() - self._told_at < BEAT_S:
            return
        self._told, self._told_at = state, self._now()
        try:
            self._roster.beat(ApiRecord(id=self._name, providers_file=state))
        except StoreUnavailableError as exc:
            _log.warning("store_away", error=exc.message)

    def leave(self) -> None:
        with suppress(StoreUnavailableError):  # else it is forgotten by itself within seconds
            self._roster.retire(self._name)

    def all(self) -> list[ApiRecord]:
        """Everyone who has been heard of late, this process as it is now first. Raises StoreUnavailableError."""
        others = [record for record in self._roster.present() if record.id != self._name]
        return [ApiRecord(id=self._name, providers_file=self._state()), *others]
