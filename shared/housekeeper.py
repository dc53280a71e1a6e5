"""The thread in every api and worker process that keeps the ledger going: chores, the reaper, and feeding the fleet."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from shared.broker import Hints
from shared.catalogue import Catalogue
from shared.config import Settings
from shared.errors import StoreUnavailableError
from shared.files import Files
from shared.finalize import finalize, roll_up
from shared.jobs import Chore, Suspect
from shared.ledger import Ledger
from shared.logs import get_logger
from shared.lone import LONE, LoneJobs
from shared.room_watch import RoomWatch
from shared.validate import validate

CHORE_LEASE_S = 10.0
MOST = 100
"""Shards looked at, or hinted at, in one round."""

_LEAD_TICKS = 4  # a leader that misses this many ticks is replaced
_NAMED = 10  # suspects in one line of the log
_AWAY_S = 1.0  # between tries while Redis is away

_log = get_logger(__name__)


class Stores(msgspec.Struct, frozen=True):
    """What it keeps in order."""

    ledger: Ledger
    lone: LoneJobs
    files: Files


class Housekeeper:
    """One round: lead or follow, reap, feed, then any chore that is due. Every round is safe to lose."""

    def __init__(
        self,
        stores: Stores,
        hints: Hints,
        settings: Settings,
        catalogue: Callable[[], Catalogue],
        holder: str,
        room: RoomWatch,
    ) -> None:
        self._room = room
        self._ledger = stores.ledger
        self._lone = stores.lone
        self._files = stores.files
        self._hints = hints
        self._settings = settings
        self._catalogue = catalogue
        self._holder = holder
        self._whole: deque[tuple[str, int]] = deque()
        self._hungry = self._due = self._lone_waits = False
        self._nudged = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="housekeeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        self._stopping.set()
        self._nudged.set()
        self._thread.join(timeout_s)

    def nudge(self, *, hungry: bool = False) -> None:
        """Something is due: do not wait for the next tick. `hungry`: the fleet has room and shards are waiting."""
        if hungry:
            self._hungry = True
        else:
            self._due = True
        self._nudged.set()

    def roll_up(self, batch_id: str, segment: int) -> None:
        """A segment is whole: its results go into the files soon. What is forgotten here the batch's end does."""
        self._whole.append((batch_id, segment))
        self.nudge()

    def hint_lone(self) -> None:
        """Lone jobs wait and the ledger counts a hint as sent: send it."""
        self._lone_waits = True
        self.nudge(hungry=True)

    def _feed(self) -> None:
        """Hand the fleet as many shards as it has room for; lone jobs first. None while memory is full: they wait in the ledger."""
        self._hungry = False
        if not self._room.calls():
            return
        if self._lone_waits or self._lone.wants_hint():
            self._lone_waits = False
            if self._ledger.workers():  # else the next one to start asks for it
                self._hints.send([LONE])
        while not self._stopping.is_set():
            refs = self._ledger.feed(shard_size=self._settings.shard_size, most=MOST)
            if refs:
                self._hints.send(refs)
            if len(refs) < MOST:
                return

    def round(self) -> None:
        self._room.calls()  # every process looks from its start on, and logs what it finds
        if self._ledger.lead(self._holder, self._settings.tick_s * _LEAD_TICKS + 1.0):
            self._reap_lone()
            reaped = self._ledger.reap(most=MOST)
            _tell(reaped.suspects)
            if reaped.any:
                _log.info(
                    "reaped",
                    recovered=reaped.recovered,
                    rehinted=reaped.rehinted,
                    woken=reaped.woken,
                    expired=reaped.expired,
                    workers_lost=reaped.workers_lost,
                )
            self._feed()
        while self._whole:
            batch_id, segment = self._whole.popleft()
            if (batch := self._ledger.get(batch_id)) is not None:
                roll_up(batch.spec, segment, ledger=self._ledger, files=self._files)
        while not self._stopping.is_set() and (chore := self._ledger.take_chore(CHORE_LEASE_S)) is not None:
            self._do(chore)
            self._feed()

    def _reap_lone(self) -> None:
        while not self._stopping.is_set():
            reaped = self._lone.reap(most=MOST)
            _tell(reaped.suspects)
            if reaped.recovered or reaped.expired:
                _log.info("reaped_lone", recovered=reaped.recovered, expired=reaped.expired)
            if not reaped.left:
                return

    def _do(self, chore: Chore) -> None:
        batch = self._ledger.get(chore.batch_id)
        if batch is None:
            return
        started = time.monotonic()
        keep = self._keeper(chore)
        if chore.kind == "validate":
            validate(
                chore,
                batch.spec,
                ledger=self._ledger,
                files=self._files,
                catalogue=self._catalogue(),
                max_jobs=self._settings.max_batch_jobs,
                keep=keep,
            )
        else:
            finalize(chore, batch, ledger=self._ledger, files=self._files, keep=keep)
        if self._stopping.is_set():
            self._ledger.keep_chore(chore, 0.0)  # due at once, for another process
        after = self._ledger.get(chore.batch_id)
        _log.info(
            "chore_done",
            kind=chore.kind,
            batch_id=chore.batch_id,
            status=after.status if after else None,
            jobs=after.total if after else 0,
            duration_s=round(time.monotonic() - started, 3),
        )

    def _keeper(self, chore: Chore) -> Callable[[], bool]:
        renewed = time.monotonic()

        def keep() -> bool:
            nonlocal renewed
            if self._stopping.is_set():
                return False
            if self._hungry:  # a long chore must not starve the fleet
                self._feed()
            if time.monotonic() - renewed < CHORE_LEASE_S / 4:
                return True
            renewed = time.monotonic()
            return self._ledger.keep_chore(chore, CHORE_LEASE_S)

        return keep

    def _loop(self) -> None:
        next_round = 0.0
        while not self._stopping.is_set():
            try:
                if self._hungry:
                    self._feed()
                if self._due or time.monotonic() >= next_round:
                    self._due = False
                    self.round()
                    next_round = time.monotonic() + self._settings.tick_s
            except StoreUnavailableError as exc:
                _log.warning("store_away", error=exc.message)
                next_round = time.monotonic() + _AWAY_S
            except Exception:  # noqa: BLE001  an edge: the thread must outlive whatever one batch brings
                _log.exception("housekeeping_failed")
                next_round = time.monotonic() + _AWAY_S
            self._nudged.wait(max(0.0, next_round - time.monotonic()))
            self._nudged.clear()


def _tell(suspects: Sequence[Suspect]) -> None:
    """Those that ran alone by themselves, of the others the first few and how many."""
    alone = [suspect for suspect in suspects if suspect.alone]
    for suspect in alone:
        _log.warning("suspect", job=suspect.job, recoveries=suspect.recoveries, alone=suspect.alone)
    if others := [suspect.job for suspect in suspects if not suspect.alone]:
        _log.warning("suspects", count=len(others), jobs=others[:_NAMED])
