"""What a worker goes by while Redis is away for a moment: the conditions it knew last, and a gate of its own for what it sees."""

import threading
import time

import msgspec

from shared.catalogue import Breaker
from shared.clock import SystemClock
from shared.gate import Ask, Block, Candidate, Exchanged, Report
from shared.logs import get_logger
from shared.memory_gate import MemoryGate
from shared.permits import Permit, permit_of
from shared.reasons import Reason

_log = get_logger(__name__)


class Alone:
    """Begins where an exchange fails, and ends with the next that does not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gate: MemoryGate | None = None
        self._blocks: dict[tuple[str, str], Block] = {}
        self._generations: dict[str, int] = {}

    def know(self, told: Exchanged) -> None:
        """What an exchange has shown."""
        if not told.changes and all(not v.blocks for v in told.verdicts):
            return
        with self._lock:
            for verdict in told.verdicts:
                for block in verdict.blocks:
                    self._blocks[block.provider, block.reason] = block
            for change in told.changes:
                for reason in (Reason.BREAKER_OPEN, Reason.BREAKER_PROBING):
                    self._blocks.pop((change.provider, reason), None)
                if change.after == "open":
                    self._blocks[change.provider, Reason.BREAKER_OPEN] = Block(
                        change.provider, Reason.BREAKER_OPEN, change.until, change.reason
                    )

    def granted(self, permit: Permit) -> None:
        self._generations[permit.candidate.target] = permit.generation
        if self._blocks:
            with self._lock:
                for name in [name for name in self._blocks if name[0] == permit.candidate.provider]:
                    del self._blocks[name]

    def begin(self, why: str) -> None:
        with self._lock:
            if self._gate is not None:
                return
            self._gate = MemoryGate(SystemClock())
        _log.warning("gate_away", error=why)

    def end(self) -> None:
        with self._lock:
            ended, self._gate = self._gate is not None, None
        if ended:
            _log.info("gate_back")

    def judge(self, ask: Ask, settings: Breaker, offset: float) -> Permit | tuple[Block, ...]:
        self.begin("Redis did not answer in time")
        now = time.time() + offset
        with self._lock:
            known = [self._known(c, now) for c in ask.candidates]
            free = [n for n, block in enumerate(known) if block is None]
            blocks = tuple(block for block in known if block is not None)
            if not free or self._gate is None:
                return blocks or tuple(Block(c.provider, Reason.STORE_AWAY, now) for c in ask.candidates)
            asked = Ask(ask.permit, tuple(ask.candidates[n] for n in free))
            told = self._gate.exchange(
                [asked], [], settings=settings, sender=ask.permit, serial=1, spread=0.0
            )
        found = permit_of(asked, told.verdicts[0])
        if isinstance(found, Permit):
            generation = self._generations.get(found.candidate.target, 0)
            return Permit(found.id, free[found.choice], found.candidate, generation, found.probe)
        return (*blocks, *found)

    def _known(self, candidate: Candidate, now: float) -> Block | None:
        for (provider, _), block in self._blocks.items():
            if provider == candidate.provider and (block.until > now or not block.until):
                return block
        return None

    def learn(self, report: Report | None, settings: Breaker) -> None:
        with self._lock:
            if self._gate is None or report is None:
                return
            c = self._gate.condition(report.candidate.provider)
            circuit = c.breakers.get(report.candidate.target)
            here = msgspec.structs.replace(report, generation=circuit.generation if circuit else 0)
            self._gate.exchange([], [here], settings=settings, sender=report.permit, serial=2, spread=0.0)
