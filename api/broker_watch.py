"""Whether the broker can be reached, where it is another server than the ledger's: without it no hint reaches a worker."""

import threading
from collections.abc import Callable

from shared.config import Settings
from shared.logs import get_logger

LOOK_S = 1.0

_log = get_logger(__name__)


def of_its_own(settings: Settings) -> bool:
    """Whether the broker is another server than the ledger's, and may be away alone."""
    broker, ledger = settings.broker, settings.redis
    return broker is None or (broker.nodes, broker.path) != (ledger.nodes, ledger.path)


class BrokerWatch:
    """A thread that asks every LOOK_S seconds. Without `answers` there is nothing to ask, and it is never away."""

    def __init__(self, answers: Callable[[], bool] | None) -> None:
        self._answers = answers
        self._away = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="broker-watch", daemon=True)

    @property
    def away(self) -> bool:
        return self._away

    def start(self) -> None:
        if self._answers is not None:
            self._thread.start()

    def stop(self) -> None:
        """Nobody waits for it: it may be asking just now."""
        self._stopping.set()

    def _loop(self) -> None:
        while not self._stopping.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Once, now."""
        away = self._answers is not None and not self._answers()
        if away != self._away:
            self._away = away
            (_log.warning if away else _log.info)("broker_away" if away else "broker_back")
