"""The worker's way to the gate: one thread that carries the asks and reports of all calls, many in one exchange.

While Redis is away for a moment, permits come from a gate in this process, which begins with what was known last; beyond
`ALONE_S` there are none. What was learned meanwhile is reported on Redis' return, each with its age.
"""

import itertools
import math
import queue
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

import msgspec

from shared.catalogue import Breaker
from shared.condition import Condition
from shared.errors import StoreUnavailableError
from shared.gate import Ask, Block, Candidate, Change, Exchanged, Flight, Gate, Report
from shared.limits import Limits
from shared.logs import get_logger
from shared.permits import UNUSED, Ending, Permit, permit_of, report_of
from shared.reasons import Reason
from workers.alone import Alone
from workers.line import WAIT_S, Lines, at_limit, scopes_of

ALONE_S = 2.0
"""Redis may be silent for so long before no new call begins."""

PATIENCE_S = 0.25
"""An ask that has waited so long is answered here."""

PULSE_S = 0.5
"""While calls are under way Redis is spoken to this often: its silence is noticed before one of them ends, and limits count them."""

_LINGER_S = 0.01  # a report alone waits this long for an ask to ride with
_AGAIN_S = 0.1
_MOST = 256

_log = get_logger(__name__)


class _Item:
    """An ask, or a report, and who waits for what comes of it."""

    __slots__ = ("answer", "ask", "at", "done", "left", "report", "scopes")

    def __init__(
        self, ask: Ask | None, report: Report | None, *, waits: bool, scopes: Sequence[str] = ()
    ) -> None:
        """`scopes`: under which the call that has ended was counted."""
        self.ask = ask
        self.report = report
        self.scopes = scopes
        self.at = time.monotonic()
        self.done = threading.Event() if waits else None
        self.answer: Permit | tuple[Block, ...] | bool | None = None
        self.left = False


class Gatekeeper:
    """`shared.permits.Doorman` for all callers of a worker."""

    def __init__(
        self,
        gate: Gate,
        settings: Callable[[], Breaker],
        holder: str,
        *,
        places: int = 0,
        adaptive: Callable[[], bool] = lambda: False,
    ) -> None:
        """`places`: how many calls at most wait here for a limit, a moment each, before they are refused.

        `adaptive`: whether the gate is to find out how many calls at a time a provider bears.
        """
        self._gate = gate
        self._settings = settings
        self._holder = holder
        self._adaptive = adaptive
        self._heard: Callable[[Sequence[Change]], None] = lambda _: None
        self._learned: Callable[[Mapping[str, Condition]], None] = lambda _: None
        self._serial = 0
        self._permits = itertools.count(1)
        self._items: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._put_back: deque[_Item] = deque()
        self._alone = Alone()
        self._lines = Lines(places)
        self._out: Counter[str] = Counter()
        self._held: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._one_by_one = threading.Lock()
        self._silent_since: float | None = None
        self._stopping = threading.Event()
        self._offset = 0.0
        self._thread = threading.Thread(target=self._loop, name="gatekeeper", daemon=True)

    def start(
        self,
        heard: Callable[[Sequence[Change]], None],
        learned: Callable[[Mapping[str, Condition]], None] = lambda _: None,
    ) -> None:
        """In the gate's thread `heard` is told of breakers that changed, `learned` of conditions that did."""
        self._heard, self._learned = heard, learned
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """What is left to report is sent, if Redis is there to take it."""
        self._items.put(None)
        self._stopping.set()
        self._thread.join(timeout_s)

    @property
    def silent_s(self) -> float:
        """For how long Redis has not answered."""
        since = self._silent_since
        return 0.0 if since is None else time.monotonic() - since

    def held(self) -> dict[str, int]:
        """Calls under way, by the scope of a limit for their number or money, or of a window."""
        with self._lock:
            return self._asked_about(self._held - self._ended)

    def _told(self) -> dict[str, int]:
        """The same as the gate is told: a call is under way until the exchange that brings its report.

        Else money that it leaves would look as if it were spent for good.
        """
        with self._lock:
            return self._asked_about(self._held)

    def _asked_about(self, counts: "Counter[str]") -> dict[str, int]:
        adaptive = self._adaptive()
        found = {scope: n for scope, n in counts.items() if n > 0}
        return found if adaptive else {scope: n for scope, n in found.items() if not scope.startswith("w:")}

    def in_flight(self) -> dict[str, int]:
        """Calls under way, by provider."""
        with self._lock:
            return {provider: n for provider, n in self._out.items() if n > 0}

    def now(self) -> float:
        """The store's time, as far as it is known."""
        return time.time() + self._offset

    def early(self, every_s: float) -> dict[str, int]:
        """How many of those who wait for their turns at a limit are to come before them, by provider; asked every so often."""
        return self._lines.early(self.now(), every_s)

    def acquire(
        self, candidates: Sequence[Candidate], limits: Limits | None = None
    ) -> Permit | tuple[Block, ...]:
        ask = Ask(f"{self._holder}:{next(self._permits)}", tuple(candidates), limits)
        found, begun = self._judged(ask), time.monotonic()
        while not isinstance(found, Permit):
            if (first := at_limit(found)) is None:
                return found
            if not self._lines.wait(first, self.now(), begun + WAIT_S - time.monotonic()):
                return self._lines.turns(found, self.now())
            found = self._judged(ask)
        if found.limited:
            self._lines.began(scopes_of(found))
        return found

    def _judged(self, ask: Ask) -> Permit | tuple[Block, ...]:
        found = self._ask(ask) if self.silent_s < PATIENCE_S else None
        return found if isinstance(found, Permit | tuple) else self._by_ourselves(ask)

    def _begins(self, permit: Permit) -> None:
        """Under the lock, and before whoever waits for the permit can give it back."""
        self._out[permit.candidate.provider] += 1
        self._held.update(permit.scopes)

    def _ask(self, ask: Ask) -> Permit | tuple[Block, ...] | bool | None:
        item = _Item(ask, None, waits=True)
        self._items.put(item)
        assert item.done is not None  # noqa: S101  it was made so
        while not item.done.wait(PATIENCE_S):
            if self.silent_s >= PATIENCE_S:
                with self._lock:
                    item.left = item.answer is None
                break  # else this process is merely busy
        return None if item.left else item.answer  # what comes after that is given back

    def _by_ourselves(self, ask: Ask) -> Permit | tuple[Block, ...]:
        if self.silent_s > ALONE_S:
            until = self.now() + 1.0
            return tuple(Block(c.provider, Reason.STORE_AWAY, until) for c in ask.candidates)
        with self._one_by_one:  # each is judged by what the one before it has got
            found = self._alone.judge(ask, self._settings(), self._offset, self.held())
            if isinstance(found, Permit):
                with self._lock:
                    self._begins(found)
        return found

    def settle(self, permit: Permit, ending: Ending) -> bool:
        waits = ending.result == "failed"
        item = _Item(None, report_of(permit, ending), waits=waits, scopes=permit.scopes)
        if self.silent_s > 0:
            self._alone.learn(item.report, self._settings())
        with self._lock:
            self._out[permit.candidate.provider] -= 1
            self._ended.update(item.scopes)
        self._items.put(item)
        if permit.limited:
            self._lines.ended(scopes_of(permit))
        if item.done is None:
            return True
        while not item.done.wait(PATIENCE_S):
            if self.silent_s >= PATIENCE_S:
                break
        return item.answer is not False

    # in the gate's thread

    def _loop(self) -> None:
        stopping = False
        while not stopping or self._put_back:
            items, stopping = self._gather(stopping=stopping)
            if not items and stopping:
                continue
            self._serial += 1
            try:
                while (told := self._exchange(items)) is None and not self._stopping.wait(_AGAIN_S):
                    pass
            except Exception:  # noqa: BLE001  an edge: what breaks one exchange must not break all that come after
                _log.exception("gate_failed", asks_and_reports=len(items))
                self._drop(items)
                continue
            if told is not None:
                self._deliver(items, told)
        self._silent_since = -math.inf  # who asks now is told at once

    def _gather(self, *, stopping: bool) -> tuple[list[_Item], bool]:
        """Everything that waits; where that is reports alone, what comes within a moment, too. Nothing: it is time for a pulse."""
        items = list(self._put_back)
        self._put_back.clear()
        until = 0.0
        while len(items) < _MOST:
            try:
                if not items and not stopping:
                    item = self._items.get(timeout=self._pulse_s())
                elif until and not stopping:
                    item = self._items.get(timeout=max(0.0, until - time.monotonic()))
                else:
                    item = self._items.get_nowait()
            except queue.Empty:
                if not items:
                    break
                urgent = any(i.done is not None for i in items)
                if urgent or stopping or (until and time.monotonic() >= until):
                    break
                until = time.monotonic() + _LINGER_S
                continue
            if item is None:
                stopping = True
                continue
            items.append(item)
            if item.done is not None:
                until = 0.0
        return items, stopping

    def _pulse_s(self) -> float | None:
        with self._lock:
            return PULSE_S if any(n > 0 for n in self._out.values()) else None

    def _exchange(self, items: list[_Item]) -> Exchanged | None:
        """None where Redis does not answer. Repeated with the same serial, and answered but once."""
        asked = time.monotonic()
        if self._silent_since is None:
            self._silent_since = asked
        self._settled(items)
        reports = [_aged(i.report, asked - i.at) for i in items if i.report is not None]
        asks = [i.ask for i in items if i.ask is not None]
        try:
            told = self._gate.exchange(
                asks,
                reports,
                settings=self._settings(),
                sender=self._holder,
                serial=self._serial,
                spread=random.random(),
                flight=Flight(self._told(), self._adaptive()),
            )
        except StoreUnavailableError as exc:
            self._alone.begin(exc.message, self.held())
            return None
        self._silent_since = None
        self._alone.end()
        self._offset = told.now - time.time()
        self._alone.know(told, adaptive=self._adaptive())
        if told.conditions:
            self._learned(dict(told.conditions))
        return told

    def _settled(self, items: Sequence[_Item]) -> None:
        """Their reports ride in this exchange: they are not under way in it. Repeated, it counts them once."""
        with self._lock:
            for item in items:
                self._held.subtract(item.scopes)
                self._ended.subtract(item.scopes)
                item.scopes = ()

    def _drop(self, items: Sequence[_Item]) -> None:
        """Reports are lost, and asks are answered here, as long as they may be."""
        self._alone.begin("an exchange broke; the log has the details", self.held())
        for item in items:
            if item.done is not None:
                item.done.set()

    def _deliver(self, items: list[_Item], told: Exchanged) -> None:
        verdicts, charged = iter(told.verdicts), iter(told.charged)
        for item in items:
            if item.ask is not None:
                found = permit_of(item.ask, next(verdicts))
                if isinstance(found, Permit):
                    self._alone.granted(found)
                self._hand(item, found)
            else:
                item.answer = next(charged)
            if item.done is not None:
                item.done.set()
        if told.changes:
            self._heard(told.changes)

    def _hand(self, item: _Item, found: Permit | tuple[Block, ...]) -> None:
        with self._lock:
            item.answer = found
            left = item.left
            if isinstance(found, Permit) and not left:
                self._begins(found)
        if left and isinstance(found, Permit):  # nobody waits for it any more
            self._put_back.append(_Item(None, report_of(found, UNUSED), waits=False))


def _aged(report: Report, age_s: float) -> Report:
    """An age that only the round trip explains is none."""
    return report if age_s < 1.0 else msgspec.structs.replace(report, age_s=age_s)
