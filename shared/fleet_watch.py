"""The thread that looks for changes of the providers file."""

import threading
from collections.abc import Callable

from shared.fleet_file import FleetFile
from shared.logs import get_logger

LOOK_S = 0.5
"""Two looks take a change, so it is in force within a second."""

_log = get_logger(__name__)


class FleetWatch:
    """`changed` is called, in this thread, after each change of the file's state.

    The thread is its own: the others of a process wait for Redis at times, or do a long chore, and a change must not wait with them.
    """

    def __init__(self, file: FleetFile, changed: Callable[[], None] = lambda: None) -> None:
        self._file = file
        self._changed = changed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="fleet-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        self._stopping.set()
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                self.look()
            except Exception:  # noqa: BLE001  an edge: the thread must outlive whatever lies there
                _log.exception("providers_file_failed")

    def look(self) -> None:
        before = self._file.state.version
        if not self._file.look():
            return
        state, file = self._file.state, str(self._file.path)
        if state.fault is not None:
            _log.warning("providers_file_refused", file=file, fault=state.fault, in_force=state.version)
        else:
            ids = [p.id for p in self._file.current.providers if p.enabled]
            _log.info("providers_file", file=file, version=state.version, before=before, enabled=ids)
        self._changed()
