"""A deadline that holds against a server that drips: when it is over, the call's socket is shut down from outside.

A read timeout bounds each silence, not the whole call, and header lines are read where no code of ours runs.
What stays outside its reach is the name's resolution and, per address of the host, the connect timeout.
"""

import contextlib
import heapq
import itertools
import socket
import threading
import time

_SWEEP_EVERY = 256


class Call:
    """One call under way. `over` tells, after an error, that the deadline was the cause."""

    __slots__ = ("_lock", "_sock", "at", "connected", "done", "over", "silence_s")

    def __init__(self, at: float, silence_s: float, lock: threading.Lock) -> None:
        self.at = at
        self.silence_s = silence_s
        self.connected = False
        self.done = False
        self.over = False
        self._lock = lock
        self._sock: socket.socket | None = None

    def left_s(self) -> float:
        return self.at - time.monotonic()

    def watch(self, sock: socket.socket | None) -> None:
        """From now on `sock` is the call's; where the deadline has passed already, it is shut down at once."""
        with self._lock:
            self._sock = sock
            if self.over:
                self._shut()

    def end(self) -> bool:
        """The call needs its socket no more, and nobody will shut it down; False where that has happened."""
        with self._lock:
            self.done, self._sock = True, None
            return not self.over

    def cut(self) -> None:
        """The deadline has passed. The caller holds the lock."""
        if not self.done:
            self.over = True
            self._shut()

    def _shut(self) -> None:
        if self._sock is not None:
            with contextlib.suppress(
                Exception
            ):  # it may have ended by itself just now; and the thread must live on
                # the plain shutdown, also for TLS: SSLSocket's own would unwrap it, and a reader take ciphertext for the answer
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


class Watchdog:
    """One thread (a greenlet where gevent has patched) that cuts calls whose time is over. It runs while there is need."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Call]] = []
        self._order = itertools.count(1)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._stopped = False
        self._running = False

    def watch(self, total_s: float, silence_s: float) -> Call:
        """A call that begins now, may last `total_s` seconds in all, and may be silent for `silence_s` at a stretch."""
        call = Call(time.monotonic() + total_s, silence_s, self._lock)
        with self._lock:
            if not self._running:
                self._running = True
                threading.Thread(target=self._loop, name="deadlines", daemon=True).start()
            earliest = not self._heap or call.at < self._heap[0][0]
            number = next(self._order)
            if number % _SWEEP_EVERY == 0:
                self._sweep()
            heapq.heappush(self._heap, (call.at, number, call))
            if earliest:
                self._changed.notify()
        return call

    def stop(self) -> None:
        """The thread ends, once the calls under way have."""
        with self._lock:
            self._stopped = True
            self._changed.notify()

    def _sweep(self) -> None:
        """Forget calls that ended in time, which would else be kept until their deadline."""
        self._heap = [entry for entry in self._heap if not entry[2].done]
        heapq.heapify(self._heap)

    def _loop(self) -> None:
        with self._lock:
            while True:
                if self._stopped:
                    self._sweep()
                while self._heap and (self._heap[0][2].done or self._heap[0][0] <= time.monotonic()):
                    heapq.heappop(self._heap)[2].cut()
                if self._heap:
                    self._changed.wait(self._heap[0][0] - time.monotonic())
                elif self._stopped:
                    self._running = False
                    return
                else:
                    self._changed.wait()
