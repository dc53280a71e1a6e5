"""The memory ledger's batches: their life from `create` to `end`, their chores and their results."""

import math
import struct
from collections import deque
from collections.abc import Callable, Sequence

from shared import ledger as contract
from shared.clock import Clock
from shared.forbearance import Rounds
from shared.idempotency import Once, gone
from shared.jobs import (
    CANCELLED,
    EXPIRED,
    PENDING,
    SEGMENT,
    UNPAID,
    Batch,
    BatchSpec,
    BatchStatus,
    Chore,
    Fault,
    Finished,
    Moments,
    Segment,
    WorkerRecord,
)
from shared.memory_batch import BatchState
from shared.memory_idempotency import MemoryIdempotency
from shared.memory_lane import MemoryLane
from shared.versions import LOOK_AGAIN_S, VERSION

_EARLY_S = 0.005
_PLACE = struct.Struct(">II")


class MemoryBatches:
    """The batches' half of `shared.memory_ledger.MemoryLedger`."""

    def __init__(
        self,
        clock: Clock,
        keys: MemoryIdempotency | None = None,
        served: dict[str, float] | None = None,
        lane: MemoryLane | None = None,
    ) -> None:
        self._lane = lane or MemoryLane(clock)
        self._now: Callable[[], float] = clock.now
        self._keys = keys or MemoryIdempotency(clock)
        self._batches: dict[str, BatchState] = {}
        self._active: deque[str] = deque()
        self._ready: deque[str] = deque()
        self._chores: dict[str, float] = {}
        self._workers: dict[str, tuple[WorkerRecord, float]] = {}
        self._served = {} if served is None else served
        self._leader = ("", 0.0)
        self._rounds = Rounds()
        self._writers: dict[str, tuple[int, Finished]] = {}

    # batches

    def create(self, spec: BatchSpec, once: Once | None = None) -> Batch:
        if (made := self._keys.earlier(once)) is not None:
            return self.get(made) or gone(made)
        if (found := self._batches.get(spec.id)) is not None:
            return found.view
        now = self._now()
        at = Moments(created_at=int(now), expires_at=int(now + spec.window_s))
        view = Batch(spec=spec, status=BatchStatus.VALIDATING, at=at)
        self._batches[spec.id] = BatchState(view=view, deadline=now + spec.window_s)
        self._chores[spec.id] = now
        self._keys.keep(once, spec.id)
        return view

    def get(self, batch_id: str) -> Batch | None:
        found = self._batches.get(batch_id)
        return found.view if found is not None and found.keep_until > self._now() else None

    def page(self, owner: str, *, after: str | None, limit: int) -> tuple[list[Batch], bool]:
        mine = [
            b.view for b in self._batches.values() if b.view.spec.owner == owner and self.get(b.view.spec.id)
        ]
        mine.sort(key=lambda view: view.spec.id, reverse=True)
        found = [view for view in mine if after is None or view.spec.id < after]
        return found[:limit], len(found) > limit

    def cancel(self, batch_id: str, overspent: Fault | None = None) -> Batch | None:
        batch = self._batches.get(batch_id)
        if batch is None:
            return None
        if not batch.view.status.terminal and batch.view.status is not BatchStatus.CANCELLING:
            batch.reach(BatchStatus.CANCELLING, "cancelling_at", self._now())
            if overspent is not None:
                batch.update(errors=(overspent,))
            self._begin_closing(batch, "cancelled" if overspent is None else "overspent")
        return batch.view

    def _begin_closing(self, batch: BatchState, why: str) -> None:
        batch.closing = why
        batch.deadline = math.inf
        batch.grace_at = self._now() + contract.CLOSING_GRACE_S
        self._forget(self._active, batch.view.spec.id)
        self._close_if_drained(batch)

    def _close_if_drained(self, batch: BatchState) -> None:
        if batch.closing and batch.leases == 0:
            self._chores[batch.view.spec.id] = self._now()

    # chores

    def take_chore(self, lease_s: float, *, reads: int = VERSION) -> Chore | None:
        now = self._now()
        for batch_id, due in sorted(self._chores.items(), key=lambda item: (item[1], item[0])):
            if due > now:
                break
            batch = self._batches[batch_id]
            status = batch.view.status
            if batch.view.v > reads:
                self._chores[batch_id] = now + LOOK_AGAIN_S
                continue
            if status is BatchStatus.VALIDATING and not batch.closing:
                kind = "validate"
            elif status in {BatchStatus.CANCELLING, BatchStatus.FINALIZING}:
                kind = "finalize"
            elif status in {BatchStatus.IN_PROGRESS, BatchStatus.VALIDATING} and batch.closing:
                batch.reach(BatchStatus.FINALIZING, "finalizing_at", now)
                kind = "finalize"
            else:
                del self._chores[batch_id]
                continue
            self._chores[batch_id] = now + lease_s
            batch.chore_token += 1
            return Chore(
                batch_id=batch_id,
                kind="validate" if kind == "validate" else "finalize",
                token=batch.chore_token,
            )
        return None

    def _mine(self, chore: Chore) -> BatchState | None:
        batch = self._batches.get(chore.batch_id)
        return batch if batch is not None and batch.chore_token == chore.token else None

    def keep_chore(self, chore: Chore, lease_s: float) -> bool:
        if self._mine(chore) is None or chore.batch_id not in self._chores:
            return False
        self._chores[chore.batch_id] = self._now() + lease_s
        return True

    def _validating(self, chore: Chore) -> BatchState | None:
        batch = self._mine(chore)
        good = batch is not None and batch.view.status is BatchStatus.VALIDATING and not batch.closing
        return batch if good else None

    def start(self, chore: Chore, *, index: bytes, model: str | None) -> bool:
        batch = self._validating(chore)
        if batch is None:
            return False
        total = len(index) // _PLACE.size
        batch.index = index
        batch.states = [PENDING] * total
        batch.update(total=total, model=model)
        batch.reach(BatchStatus.IN_PROGRESS, "in_progress_at", self._now())
        self._active.append(chore.batch_id)
        del self._chores[chore.batch_id]
        return True

    def reject(self, chore: Chore, faults: Sequence[Fault]) -> bool:
        batch = self._validating(chore)
        if batch is None:
            return False
        batch.update(errors=tuple(faults))
        batch.reach(BatchStatus.FAILED, "failed_at", self._now())
        batch.deadline = math.inf
        batch.keep_until = self._now() + int(batch.view.spec.retention_s)
        del self._chores[chore.batch_id]
        return True

    def seal(self, chore: Chore, segment: int) -> bool:
        batch = self._mine(chore)
        if batch is None or not batch.closing:
            return False
        if batch.view.status not in {BatchStatus.CANCELLING, BatchStatus.FINALIZING}:
            return False
        state = {"expired": EXPIRED, "overspent": UNPAID}.get(batch.closing, CANCELLED)
        jobs = batch.pending(range(segment * SEGMENT, (segment + 1) * SEGMENT))
        for job in jobs:
            batch.states[job] = state
        batch.update(failed=batch.view.failed + len(jobs))
        return True

    def end(self, chore: Chore) -> Batch | None:
        batch = self._mine(chore)
        if batch is None or batch.view.status not in {BatchStatus.CANCELLING, BatchStatus.FINALIZING}:
            return None
        if PENDING in batch.states:
            return None
        final = BatchStatus({"": "completed", "overspent": "cancelled"}.get(batch.closing, batch.closing))
        batch.reach(final, f"{final}_at", self._now())
        batch.shards.clear()
        batch.results.clear()
        batch.histories.clear()
        batch.states, batch.index = [], b""
        batch.deadline, batch.grace_at = math.inf, None
        batch.keep_until = self._now() + int(batch.view.spec.retention_s)
        self._chores.pop(chore.batch_id, None)
        self._forget(self._active, chore.batch_id)
        return batch.view

    # results

    def segment(self, batch_id: str, number: int) -> Segment:
        batch = self._batches.get(batch_id)
        first, last = number * SEGMENT, (number + 1) * SEGMENT
        if batch is None:
            return Segment(first=first, states="", results={}, slices=(), rolled_up=False)
        return Segment(
            first=first,
            states="".join(batch.states[first:last]),
            results={job: line for job, line in batch.results.items() if first <= job < last},
            slices=tuple(_PLACE.iter_unpack(batch.index[first * _PLACE.size : last * _PLACE.size])),
            rolled_up=number in batch.rolled,
        )

    def roll_up(
        self, batch_id: str, number: int, *, output: tuple[int, int], errors: tuple[int, int]
    ) -> bool:
        batch = self._batches.get(batch_id)
        first, last = number * SEGMENT, (number + 1) * SEGMENT
        if batch is None or not batch.states[first:last] or PENDING in batch.states[first:last]:
            return False
        if number in batch.rolled:
            return False
        batch.rolled.add(number)
        for job in range(first, last):
            batch.results.pop(job, None)
        view = batch.view
        batch.update(
            output_lines=view.output_lines + output[0],
            output_bytes=view.output_bytes + output[1],
            error_lines=view.error_lines + errors[0],
            error_bytes=view.error_bytes + errors[1],
        )
        return True

    @staticmethod
    def _forget(queue: deque[str], batch_id: str) -> None:
        while batch_id in queue:
            queue.remove(batch_id)
