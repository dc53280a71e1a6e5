"""The calls in flight of one worker process: a fixed number of callers that take work by lane.

Callers are threads; where gevent has patched `threading` they are greenlets. Nothing here knows the difference.
"""

import threading
from collections import deque
from collections.abc import Callable
from enum import IntEnum

from shared.logs import get_logger

BATCH_SHARE = 0.8
"""Of the calls in flight, batch jobs take at most this share: an interactive one never waits behind them."""

_log = get_logger(__name__)

Work = Callable[[], None]


class Lane(IntEnum):
    """Served in this order: who waits in person first, then retries (their time has come) and other lone jobs, then fresh batch jobs."""

    INTERACTIVE = 0
    RETRY = 1
    FRESH = 2


class Calls:
    """`size` callers; `submit` never blocks."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.batch_size = max(1, int(size * BATCH_SHARE))
        self._lanes: tuple[deque[Work], ...] = (deque(), deque(), deque())
        self._changed = threading.Condition()
        self._in_flight = 0
        self._batch_in_flight = 0
        self._stopped = False
        self._callers = [
            threading.Thread(target=self._loop, name=f"caller-{n}", daemon=True) for n in range(size)
        ]

    def start(self) -> None:
        for caller in self._callers:
            caller.start()

    def stop(self) -> None:
        """Callers end as soon as they are idle; what still waits is not started."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def submit(self, lane: Lane, work: Work) -> None:
        with self._changed:
            self._lanes[lane].append(work)
            self._changed.notify()

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def room(self, lane: Lane) -> int:
        """How many jobs may be claimed for this lane: with those that wait there, or before it, two rounds of calls."""
        return max(0, 2 * self.batch_size - sum(len(waiting) for waiting in self._lanes[: lane + 1]))

    def has_room(self, lane: Lane) -> bool:
        """Whether another shard for this lane may be claimed."""
        return self.room(lane) > 0

    def _next_lane(self) -> Lane | None:
        for lane in Lane:
            if lane is not Lane.INTERACTIVE and self._batch_in_flight >= self.batch_size:
                return None
            if self._lanes[lane]:
                return lane
        return None

    def _take(self) -> tuple[Lane, Work] | None:
        with self._changed:
            while not self._stopped:
                if (lane := self._next_lane()) is not None:
                    work = self._lanes[lane].popleft()
                    self._in_flight += 1
                    self._batch_in_flight += lane is not Lane.INTERACTIVE
                    if (
                        self._next_lane() is not None
                    ):  # a sleeper may have been woken for what it could not take then
                        self._changed.notify()
                    return lane, work
                self._changed.wait()
        return None

    def _loop(self) -> None:
        while (found := self._take()) is not None:
            lane, work = found
            try:
                work()
            except Exception:  # noqa: BLE001  an edge: a caller must outlive whatever one job brings
                _log.exception("caller_failed")
            finally:
                with self._changed:
                    self._in_flight -= 1
                    self._batch_in_flight -= lane is not Lane.INTERACTIVE
