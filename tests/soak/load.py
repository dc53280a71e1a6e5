"""What the stack is given to do while it is disturbed, on threads that each repeat one kind of thing."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from soak import batches, lone
from soak.asking import PAUSE_S, Asking

KINDS: tuple[Callable[[Asking, random.Random], None], ...] = (
    *(batches.run, lone.waits, lone.polls),
    *(batches.run, lone.waits, lone.leaves),
    *(batches.run, lone.waits, lone.polls),
    *(batches.run, lone.waits, lone.breaks_off),
)
"""In turn over the threads."""


class Load:
    """May be started and ended several times. Every accepted thing is followed to its end."""

    def __init__(self, asking: Asking, seed: int, *, clients: int) -> None:
        self.asking = asking
        self._rng = random.Random(seed)
        self._clients = clients
        self._stop = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._running: list[Future[None]] = []

    def start(self) -> None:
        self._stop.clear()
        self._pool = ThreadPoolExecutor(self._clients, thread_name_prefix="load")
        self._running = [
            self._pool.submit(self._repeat, KINDS[n % len(KINDS)], random.Random(self._rng.random()))
            for n in range(self._clients)
        ]

    def end(self) -> None:
        """No more is begun; what was is followed to its end."""
        self._stop.set()
        for future in self._running:
            future.result()
        if self._pool is not None:
            self._pool.shutdown()

    def abandon(self) -> None:
        """What was begun is not followed any more."""
        self.asking.over.set()
        self.end()

    def _repeat(self, act: Callable[[Asking, random.Random], None], rng: random.Random) -> None:
        while not self._stop.is_set():
            try:
                act(self.asking, rng)
            except Exception as exc:  # noqa: BLE001  the soak goes on, and tells at its end
                self.asking.fault(f"{act.__name__}: {type(exc).__name__}: {str(exc)[:300]}")
            self._stop.wait(rng.uniform(0.0, 2 * PAUSE_S))
