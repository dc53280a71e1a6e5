"""What a process says of records that are newer than it reads, or than any worker does: once for each version, for there may be thousands of them."""

import threading

from shared.logs import get_logger
from shared.versions import VERSION

_log = get_logger(__name__)


class NewerSeen:
    """Of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[int] = set()

    def note(self, met: int) -> None:
        """0 where there was nothing newer."""
        with self._lock:
            if not met or met in self._seen:
                return
            self._seen.add(met)
        _log.warning(
            "newer_version_left",
            met=met,
            reads=VERSION,
            hint="jobs made by a newer release wait for a worker of that release",
        )
