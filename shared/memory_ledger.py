"""The ledger's memory twin: the same rules in plain Python, for tests and as the model the Redis ledger is checked against."""

import math
import struct
from collections import deque
from collections.abc import Callable, Sequence

from shared import ledger as contract
from shared.clock import Clock
from shared.jobs import (
    CANCELLED,
    DONE,
    EXPIRED,
    FAILED,
    PENDING,
    SEGMENT,
    Batch,
    BatchSpec,
    BatchStatus,
    Chore,
    Claim,
    Fault,
    Finished,
    History,
    Moments,
    Outcome,
    Reaped,
    Segment,
    Slip,
    Split,
    Tally,
    WorkerRecord,
)
from shared.ledger import Held
from shared.memory_batch import BatchState, Shard, booked, history_after

_EARLY_S = 0.005
_PLACE = struct.Struct(">II")


class MemoryLedger:
    """The contract: `shared.ledger.Ledger`. One thread at a time."""

    def __init__(self, clock: Clock) -> None:
        self._now: Callable[[], float] = clock.now
        self._batches: dict[str, BatchState] = {}
        self._active: deque[str] = deque()
        self._ready: deque[str] = deque()
        self._chores: dict[str, float] = {}
        self._workers: dict[str, tuple[WorkerRecord, float]] = {}
        self._served: dict[str, float] = {}
        self._leader = ("", 0.0)
        self._writers: dict[str, tuple[int, Finished]] = {}

    # batches

    def create(self, spec: BatchSpec) -> Batch:
        if (found := self._batches.get(spec.id)) is not None:
            return found.view
        now = self._now()
        at = Moments(created_at=int(now), expires_at=int(now + spec.window_s))
        view = Batch(spec=spec, status=BatchStatus.VALIDATING, at=at)
        self._batches[spec.id] = BatchState(view=view, deadline=now + spec.window_s)
        self._chores[spec.id] = now
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

    def cancel(self, batch_id: str) -> Batch | None:
        batch = self._batches.get(batch_id)
        if batch is None:
            return None
        if not batch.view.status.terminal and batch.view.status is not BatchStatus.CANCELLING:
            batch.reach(BatchStatus.CANCELLING, "cancelling_at", self._now())
            self._begin_closing(batch, "cancelled")
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

    def take_chore(self, lease_s: float) -> Chore | None:
        now = self._now()
        for batch_id, due in sorted(self._chores.items(), key=lambda item: (item[1], item[0])):
            if due > now:
                break
            batch = self._batches[batch_id]
            status = batch.view.status
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
        state = EXPIRED if batch.closing == "expired" else CANCELLED
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
        final = BatchStatus(batch.closing or "completed")
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

    # the fleet

    def beat(self, worker: WorkerRecord) -> None:
        self._workers[worker.id] = (worker, self._now())
        self._prune()

    def retire(self, worker_id: str) -> None:
        self._workers.pop(worker_id, None)
        self._prune()

    def workers(self) -> list[WorkerRecord]:
        since = self._now() - contract.HEARTBEAT_TIMEOUT_S
        return [record for record, at in self._workers.values() if at >= since]

    def _prune(self) -> int:
        gone = [w for w, (_, at) in self._workers.items() if at <= self._now() - contract.HEARTBEAT_TIMEOUT_S]
        for worker_id in gone:
            del self._workers[worker_id]
        return len(gone)

    @property
    def load(self) -> int:
        """Jobs in hinted and leased shards."""
        shards = (s for b in self._batches.values() for s in b.shards.values())
        return sum(s.counted for s in shards if s.state in {"hinted", "leased"})

    def feed(self, *, shard_size: int, most: int) -> list[str]:
        capacity = sum(record.capacity for record, _ in self._workers.values())
        refs: list[str] = []
        while self._ready and self.load < capacity and len(refs) < most:
            ref = self._ready.popleft()
            found = self._find(ref)
            if found is not None and found[1].state == "ready":
                self._hint(ref, found[1], refs)
        while self._active and self.load < capacity and len(refs) < most:
            batch_id = self._active[0]
            self._active.rotate(-1)
            batch = self._batches[batch_id]
            left = batch.view.total - batch.cursor
            if not batch.claimable or left <= 0:
                self._forget(self._active, batch_id)
                continue
            fair = math.ceil(left / (2 * max(1, len(self._workers))))
            size = min(left, shard_size, max(min(contract.LEAST_SHARD, shard_size), fair))
            jobs = list(range(batch.cursor, batch.cursor + size))
            batch.cursor += size
            if batch.cursor >= batch.view.total:
                self._forget(self._active, batch_id)
            ref, shard = self._new_shard(batch, jobs)
            self._hint(ref, shard, refs)
        return refs

    def _hint(self, ref: str, shard: Shard, refs: list[str]) -> None:
        shard.state, shard.at = "hinted", self._now() + contract.HINT_TIMEOUT_S
        shard.counted = len(shard.jobs)
        refs.append(ref)

    def _new_shard(self, batch: BatchState, jobs: list[int]) -> tuple[str, Shard]:
        ref = f"{batch.view.spec.id}/{next(batch.serial)}"
        batch.shards[ref] = shard = Shard(jobs)
        return ref, shard

    def _find(self, ref: str) -> tuple[BatchState, Shard] | None:
        batch = self._batches.get(ref.rpartition("/")[0])
        shard = batch.shards.get(ref) if batch is not None else None
        return None if batch is None or shard is None else (batch, shard)

    def _held(self, ref: str, token: int) -> tuple[BatchState, Shard] | None:
        found = self._find(ref)
        return found if found is not None and found[1].state == "leased" and found[1].token == token else None

    def claim(self, ref: str, *, holder: str, lease_s: float) -> Claim | None:  # noqa: ARG002  Redis keeps it for people
        found, now = self._find(ref), self._now()
        if found is None:
            return None
        batch, shard = found
        if shard.state == "leased" or (shard.state == "later" and shard.due > now + _EARLY_S):
            return None
        jobs = batch.pending(shard.jobs) if batch.claimable else []
        if not jobs:
            del batch.shards[ref]
            return None
        batch.tokens += 1
        shard.jobs, shard.state, shard.token = jobs, "leased", batch.tokens
        shard.counted = len(jobs)
        shard.at, shard.claimed_at = now + lease_s, now
        places = [_PLACE.unpack_from(batch.index, job * _PLACE.size) for job in jobs]
        return Claim(
            ref=ref,
            batch_id=batch.view.spec.id,
            token=shard.token,
            endpoint=batch.view.spec.endpoint,
            input_file_id=batch.view.spec.input_file_id,
            claimed_at=now,
            slips=tuple(
                Slip(index=job, offset=at, length=size, history=batch.histories.get(job, History()))
                for job, (at, size) in zip(jobs, places, strict=True)
            ),
        )

    def decline(self, ref: str) -> None:
        found = self._find(ref)
        if found is None:
            return
        shard = found[1]
        if shard.state == "hinted" or (shard.state == "later" and shard.due <= self._now()):
            self._make_ready(ref, shard, shard.jobs)

    def _make_ready(self, ref: str, shard: Shard, jobs: list[int]) -> None:
        shard.state, shard.jobs = "ready", jobs
        self._ready.append(ref)

    def renew(self, held: Sequence[tuple[str, int]], *, lease_s: float) -> list[Held]:
        out: list[Held] = []
        for ref, token in held:
            found = self._held(ref, token)
            if found is None:
                out.append("lost")
                continue
            found[1].at = self._now() + lease_s
            out.append("held" if found[0].claimable else "closing")
        return out

    def release(self, ref: str, token: int) -> bool:
        found = self._held(ref, token)
        if found is None:
            return False
        self._let_go(ref, *found)
        return True

    def _let_go(self, ref: str, batch: BatchState, shard: Shard) -> None:
        rest = batch.pending(shard.jobs)
        if rest and not batch.closing:
            self._make_ready(ref, shard, rest)
        else:
            del batch.shards[ref]
        self._close_if_drained(batch)

    def split(self, ref: str, token: int, split: Split) -> str | None:
        found = self._held(ref, token)
        if found is None:
            return None
        batch, shard = found
        moved = batch.pending([job for job in shard.jobs if job in split.jobs])
        if not moved:
            return None
        shard.jobs = [job for job in shard.jobs if job not in split.jobs]
        shard.counted -= len(moved)
        for job in moved:
            batch.histories[job] = history_after(batch.histories.get(job), split, shard.claimed_at)
        new, later = self._new_shard(batch, moved)
        later.state, later.due = "later", self._now() + split.delay_s
        later.at = later.due + (contract.OVERDUE_S if split.kind == "retry" else 0.0)
        return new

    def finish(self, batch_id: str, outcomes: Sequence[Outcome], *, writer: str, serial: int) -> Finished:
        last = self._writers.get(writer)
        if last is not None and last[0] == serial:
            return last[1]
        reply = self._finish(self._batches.get(batch_id), outcomes)
        self._writers[writer] = (serial, reply)
        return reply

    def _finish(self, batch: BatchState | None, outcomes: Sequence[Outcome]) -> Finished:
        accepted: list[bool] = []
        touched: set[int] = set()
        tallies = dict(batch.view.tallies) if batch else {}
        for outcome in outcomes:
            first = batch is not None and bool(batch.pending([outcome.index]))
            accepted.append(first)
            if batch is not None and first:
                batch.states[outcome.index] = DONE if outcome.ok else FAILED
                batch.results[outcome.index] = outcome.line
                batch.histories.pop(outcome.index, None)
                touched.add(outcome.index // SEGMENT)
                if (held := self._held(outcome.ref, outcome.token)) is not None:
                    held[1].counted -= 1
            if outcome.provider:
                tallies[outcome.provider] = booked(
                    tallies.get(outcome.provider, Tally()), outcome, first=first
                )
                if outcome.ok:
                    self._served[outcome.provider] = self._now()
        if batch is None:
            return Finished(accepted=tuple(accepted), open=False, hungry=self._hungry())
        done = sum(a and o.ok for a, o in zip(accepted, outcomes, strict=True))
        view = batch.view
        batch.update(
            tallies=tallies, completed=view.completed + done, failed=view.failed + sum(accepted) - done
        )
        whole = [s for s in touched if PENDING not in batch.states[s * SEGMENT : (s + 1) * SEGMENT]]
        is_open = batch.claimable
        if (
            batch.view.status is BatchStatus.IN_PROGRESS
            and batch.view.completed + batch.view.failed == view.total
        ):
            batch.reach(BatchStatus.FINALIZING, "finalizing_at", self._now())
            self._chores[view.spec.id] = self._now()
            is_open = False
        return Finished(
            accepted=tuple(accepted), segments=tuple(sorted(whole)), open=is_open, hungry=self._hungry()
        )

    def _hungry(self) -> bool:
        capacity = sum(record.capacity for record, _ in self._workers.values())
        return bool(self._active or self._ready) and self.load < capacity

    def answered_since(self, providers: Sequence[str], since: float) -> bool:
        return any(self._served.get(provider, 0.0) > since for provider in providers)

    def lead(self, holder: str, for_s: float) -> bool:
        leader, until = self._leader
        if leader not in {"", holder} and until > self._now():
            return False
        self._leader = (holder, self._now() + for_s)
        return True

    def reap(self, *, most: int) -> Reaped:
        now = self._now()
        due = {"leased": 0, "hinted": 0, "later": 0}
        for batch in list(self._batches.values()):
            for ref, shard in list(batch.shards.items()):
                if shard.state in due and shard.at <= now and due[shard.state] < most:
                    due[shard.state] += 1
                    self._let_go(ref, batch, shard)
        expired = 0
        for batch in self._batches.values():
            if batch.deadline <= now:
                batch.deadline = math.inf
                if batch.view.status in {BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS}:
                    self._begin_closing(batch, "expired")
                    expired += 1
            if batch.grace_at is not None and batch.grace_at <= now:
                batch.grace_at = None
                self._chores[batch.view.spec.id] = now
        return Reaped(
            recovered=due["leased"],
            rehinted=due["hinted"],
            woken=due["later"],
            expired=expired,
            workers_lost=self._prune(),
        )

    def ping(self) -> None: ...

    @staticmethod
    def _forget(queue: deque[str], batch_id: str) -> None:
        while batch_id in queue:
            queue.remove(batch_id)
