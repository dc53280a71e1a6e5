"""The worker's thread that keeps what it holds: it renews leases, and its heartbeat tells the fleet it is alive."""

import threading
from collections.abc import Callable
from typing import Protocol

from shared.errors import StoreUnavailableError
from shared.jobs import WorkerRecord
from shared.ledger import Held, Ledger
from shared.logs import get_logger
from shared.lone import LoneJobs

BEAT_S = 1.5

_log = get_logger(__name__)


class Holding(Protocol):
    """A claimed shard, told what became of its lease by the store that it was claimed from."""

    store: Ledger | LoneJobs

    @property
    def ref(self) -> str: ...

    @property
    def token(self) -> int: ...

    def on_lease(self, state: Held) -> None: ...


class Leases:
    """Beats, and renews every third of a lease. `beside` is done with each beat.

    A worker that is leaving says goodbye, so that nothing more is handed out on its account, and goes on renewing
    until its calls have ended.
    """

    def __init__(
        self,
        ledger: Ledger,
        lease_s: float,
        record: Callable[[], WorkerRecord],
        beside: Callable[[], None] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._lease_s = lease_s
        self._record = record
        self._beside = beside
        self._held: dict[str, Holding] = {}
        self._leaving = False
        self._said_goodbye = False
        self._stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="leases", daemon=True)

    def start(self) -> None:
        self._ledger.beat(self._record())
        self._thread.start()

    def nudge(self) -> None:
        """There is something new to tell, or to be done beside: do not wait for the next beat."""
        self._wake.set()

    def leave(self) -> None:
        """Only sets a mark: it is called from a signal handler, where nothing may wait."""
        self._leaving = True
        self._wake.set()

    def stop(self, timeout_s: float = 5.0) -> None:
        self._leaving = self._stopped = True
        self._wake.set()
        self._thread.join(timeout_s)

    def hold(self, holding: Holding) -> None:
        self._held[holding.ref] = holding

    def let_go(self, holding: Holding) -> None:
        self._held.pop(holding.ref, None)

    def _loop(self) -> None:
        while not (self._stopped and self._said_goodbye):
            try:
                self._round()
            except StoreUnavailableError as exc:
                _log.warning("store_away", error=exc.message)
            except Exception:  # noqa: BLE001  an edge: leases must be renewed whatever one answer brings
                _log.exception("lease_keeper_failed")
            if self._stopped:
                return
            self._wake.wait(min(BEAT_S, self._lease_s / 3))
            self._wake.clear()

    def _round(self) -> None:
        if not self._leaving:
            self._ledger.beat(self._record())
            self._beside()
        elif not self._said_goodbye:
            self._ledger.retire(self._record().id)
            self._said_goodbye = True
        by_store: dict[int, list[Holding]] = {}
        for holding in list(self._held.values()):
            by_store.setdefault(id(holding.store), []).append(holding)
        for holdings in by_store.values():
            states = holdings[0].store.renew([(h.ref, h.token) for h in holdings], lease_s=self._lease_s)
            for holding, state in zip(holdings, states, strict=True):
                holding.on_lease(state)
