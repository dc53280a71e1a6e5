"""A deadline that holds against a server that drips: when it is over, the call's socket is shut down from outside.

A read timeout bounds each silence, not the whole call, and header lines are read where no code of ours runs.
"""

import contextlib
import heapq
import itertools
import socket
import threading
import time
from typing import Any

_SWEEP_EVERY = 256


class Call:
    """One call under way. `over` tells, after an error, that the deadline was the cause."""

    __slots__ = ("at", "done", "over", "sock")

    def __init__(self, at: float) -> None:
        self.at = at
        self.sock: Any = None
        self.done = False
        self.over = False

    def left_s(self) -> float:
        return self.at - time.monotonic()

    def cut(self) -> None:
        self.over = True
        sock = self.sock
        if sock is not None:
            with contextlib.suppress(OSError):  # it may have ended by itself just now
                sock.shutdown(socket.SHUT_RDWR)


class Watchdog:
    """One thread (a greenlet where gevent has patched) that cuts calls whose time is over."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Call]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def watch(self, total_s: float) -> Call:
        call = Call(time.monotonic() + total_s)
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="watchdog", daemon=True)
                self._thread.start()
            earliest = not self._heap or call.at < self._heap[0][0]
            number = next(self._order)
            if number % _SWEEP_EVERY == 0:  # calls that ended in time would else be kept until their deadline
                self._heap = [entry for entry in self._heap if not entry[2].done]
                heapq.heapify(self._heap)
            heapq.heappush(self._heap, (call.at, number, call))
            if earliest:
                self._changed.notify()
        return call

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _loop(self) -> None:
        while (call := self._next()) is not None:
            call.cut()

    def _next(self) -> Call | None:
        """The next call whose time is over, as soon as it is; None when stopped."""
        with self._changed:
            while not self._stopped:
                while self._heap and self._heap[0][2].done:
                    heapq.heappop(self._heap)
                if not self._heap:
                    self._changed.wait()
                    continue
                left_s = self._heap[0][0] - time.monotonic()
                if left_s <= 0:
                    return heapq.heappop(self._heap)[2]
                self._changed.wait(left_s)
        return None
