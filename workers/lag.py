"""How late this process runs what is due: a thread that sleeps for a moment, over and over, and sees how long that took."""

import threading
import time

EVERY_S = 0.25


class Lag:
    """On gevent it shows what keeps the loop from turning, on threads what keeps the interpreter from switching."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._worst = 0.0
        self._slept_at = time.monotonic()
        self._thread = threading.Thread(target=self._loop, name="lag", daemon=True)

    def start(self) -> None:
        self._slept_at = time.monotonic()
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        self._stopping.set()
        self._thread.join(timeout_s)

    def take(self) -> float:
        """The worst since it was last asked, in seconds, a sleep that is late by now included."""
        found = max(self._worst, time.monotonic() - self._slept_at - EVERY_S)
        self._worst = 0.0
        return max(0.0, found)

    def _loop(self) -> None:
        while True:
            self._slept_at = time.monotonic()
            if self._stopping.wait(EVERY_S):
                return
            self._worst = max(self._worst, time.monotonic() - self._slept_at - EVERY_S)
