"""Group commit: outcomes that come while one write is under way go out together with the next.

An idle worker writes at once; a busy one writes few and larger groups. An answer that Redis refuses is kept and
written again until it is taken: it has been paid for.
"""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from shared.errors import StoreUnavailableError
from shared.jobs import Finished, Outcome, Usage
from shared.ledger import Ledger
from shared.logs import get_logger
from shared.lone import LONE, LoneJobs

MOST = 128
MOST_BYTES = 8 * 1024 * 1024
_PAUSE_S = 0.2

_log = get_logger(__name__)


class Entry(msgspec.Struct, frozen=True):
    """An outcome on its way; `written` is told once the ledger has it: accepted, refused as not the first, or None: not to be had."""

    batch_id: str
    outcome: Outcome
    written: Callable[[bool | None], None]


class Writer:
    """One thread, the only one of this process that finishes jobs: its serials make a repeated write harmless.

    `after` is called in it and must not wait: answers would queue behind it.
    """

    def __init__(
        self, ledger: Ledger, lone: LoneJobs, holder: str, after: Callable[[str, Finished], None]
    ) -> None:
        self._ledger = ledger
        self._lone = lone
        self._holder = holder
        self._after = after
        self._serials = itertools.count(1)
        self._entries: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._stuck_since: float | None = None
        self._thread = threading.Thread(target=self._loop, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Writes what is waiting, then ends."""
        self._entries.put(None)
        self._thread.join(timeout_s)

    def put(self, entry: Entry) -> None:
        self._entries.put(entry)

    @property
    def stuck_s(self) -> float:
        """For how long the ledger has refused what this process has to write; 0 where all is well."""
        since = self._stuck_since
        return 0.0 if since is None else time.monotonic() - since

    def _loop(self) -> None:
        more = True
        while more:
            group, more = self._gather()
            by_batch: dict[str, list[Entry]] = {}
            for entry in group:
                by_batch.setdefault(entry.batch_id, []).append(entry)
            for batch_id, entries in by_batch.items():
                self._write(batch_id, entries)

    def _gather(self) -> tuple[list[Entry], bool]:
        """What is waiting, up to MOST outcomes or MOST_BYTES; False where it is time to end."""
        group: list[Entry] = []
        size = 0
        entry = self._entries.get()
        while entry is not None:
            group.append(entry)
            size += len(entry.outcome.line)
            if len(group) >= MOST or size >= MOST_BYTES:
                return group, True
            try:
                entry = self._entries.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _write(self, batch_id: str, entries: Sequence[Entry]) -> None:
        """An outcome that cannot be written must not keep the others, or this thread, from going on."""
        try:
            finished = self._finish(batch_id, [entry.outcome for entry in entries])
        except Exception:  # noqa: BLE001  an edge: see above
            _log.exception("outcomes_not_written", batch_id=batch_id, outcomes=len(entries))
            self._write_singly(batch_id, entries)
            return
        for entry, accepted in zip(entries, finished.accepted, strict=True):
            entry.written(accepted)
        self._after(batch_id, finished)

    def _write_singly(self, batch_id: str, entries: Sequence[Entry]) -> None:
        if len(entries) > 1:
            for entry in entries:
                self._write(batch_id, [entry])
        elif entries[0].outcome.usage != Usage():  # rather the answer without its figures than neither
            bare = msgspec.structs.replace(entries[0].outcome, usage=Usage(), cost_nanos=None)
            self._write(batch_id, [msgspec.structs.replace(entries[0], outcome=bare)])
        else:
            entries[0].written(None)

    def _finish(self, batch_id: str, outcomes: Sequence[Outcome]) -> Finished:
        """Until Redis has taken them."""
        serial = next(self._serials)
        while True:
            try:
                if batch_id == LONE:
                    finished = self._lone.finish(outcomes, writer=self._holder, serial=serial)
                else:
                    finished = self._ledger.finish(batch_id, outcomes, writer=self._holder, serial=serial)
            except StoreUnavailableError as exc:
                if self._stuck_since is None:
                    self._stuck_since = time.monotonic()
                    _log.warning("answers_wait", batch_id=batch_id, waiting=len(outcomes), error=exc.message)
                time.sleep(_PAUSE_S)
            else:
                break
        if self._stuck_since is not None:
            _log.info("answers_written", after_s=round(self.stuck_s, 3))
            self._stuck_since = None
        return finished
