"""What befalls the stack, by a seed: one act at a time, on a thread of its own."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

from soak.acts import Acts
from support.waiting import wait_for

SETTLE_S = (1.0, 6.0)
"""Between one disturbance and the next."""

TRIES_S = 30.0


class Disturber:
    """May be started and ended several times. What could not be done is told in `failed`.

    Whatever was ended is started again before the next disturbance, and whatever was changed is as before at the end.
    """

    def __init__(self, acts: Acts, rng: random.Random, tell: Callable[[str], None]) -> None:
        self._acts = acts
        self._tell = tell
        self._rng = rng
        self._stop = threading.Event()
        self._thread = threading.Thread()
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []

    def start(self, does: Iterable[Callable[[], None]]) -> None:
        """Every act comes once, in an order by chance, before any comes again."""
        self._stop.clear()
        self._acts.stop = self._stop
        self._thread = threading.Thread(target=self._run, args=(list(does),), name="disturber")
        self._thread.start()

    def end(self) -> None:
        self.abandon()
        wait_for(self._mended, TRIES_S, "the stack to be whole again", every_s=1.0)

    def abandon(self) -> None:
        """As `end`, but that nothing is mended."""
        self._stop.set()
        self._thread.join()

    def _mended(self) -> bool:
        try:
            self._acts.mend()
        except Exception as exc:  # noqa: BLE001  the API may still be coming back
            self.failed.append(f"to mend: {type(exc).__name__}: {str(exc)[:300]}")
            return False
        return True

    def _run(self, does: list[Callable[[], None]]) -> None:
        left: list[Callable[[], None]] = []
        while not self._stop.wait(self._rng.uniform(*SETTLE_S)):
            if not left:
                left = self._rng.sample(does, len(does))
            act, began = left.pop(), time.monotonic()
            try:
                act()
            except Exception as exc:  # noqa: BLE001  told at the end
                self.failed.append(f"{act.__name__}: {type(exc).__name__}: {str(exc)[:500]}")
            self.counts[act.__name__] += 1
            self._tell(f"{act.__name__}, {time.monotonic() - began:.1f} s")
