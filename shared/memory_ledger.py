"""The ledger's memory twin: the same rules in plain Python, for tests and as the model the Redis ledger is checked against."""

import math
import struct
from collections.abc import Sequence

import msgspec

from shared import ledger as contract
from shared.clock import Clock
from shared.errors import NewerRecordError
from shared.ids import job_id
from shared.jobs import (
    DONE,
    FAILED,
    PENDING,
    SEGMENT,
    BatchStatus,
    Claim,
    Finished,
    History,
    JobState,
    Outcome,
    Progress,
    Reaped,
    Slip,
    Split,
    Suspect,
    Tally,
    Waiting,
    WorkerRecord,
)
from shared.ledger import Held
from shared.memory_batch import BatchState, Shard, booked, history_after, note_served, tries_of
from shared.memory_batches import MemoryBatches
from shared.memory_idempotency import MemoryIdempotency
from shared.memory_lane import MemoryLane
from shared.reasons import Reason
from shared.suspects import GROUP, SINGLE_FROM, after_death, is_suspect, pause_s
from shared.versions import LOOK_AGAIN_S, VERSION

_EARLY_S = 0.005
_PLACE = struct.Struct(">II")


class MemoryLedger(MemoryBatches):
    """The contract: `shared.ledger.Ledger`. One thread at a time."""

    def __init__(
        self,
        clock: Clock,
        keys: MemoryIdempotency | None = None,
        served: dict[str, float] | None = None,
        lane: MemoryLane | None = None,
    ) -> None:
        super().__init__(clock, keys, served, lane)
        self._lane.join(self)
        self._turn = 0

    # the fleet

    def beat(self, worker: WorkerRecord) -> None:
        self._workers[worker.id] = (worker, self._now())
        self._lane.heard[worker.id] = self._now()
        self._prune()

    def retire(self, worker_id: str) -> None:
        self._workers.pop(worker_id, None)
        self._lane.heard.pop(worker_id, None)
        self._lane.left.add(worker_id)
        self._prune()

    def workers(self) -> list[WorkerRecord]:
        since = self._now() - contract.HEARTBEAT_TIMEOUT_S
        return [
            msgspec.structs.replace(record, heard_at=at)
            for record, at in self._workers.values()
            if at >= since
        ]

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
        read = max((record.reads for record, _ in self._workers.values()), default=1)
        refs: list[str] = []
        suspect = self._lane.next_of(self) if self.load < capacity and most > 0 else None
        if suspect is not None and (found := self._find(suspect)) is not None:
            self._lane.take(suspect)
            self._hint(suspect, found[1], refs)
        while self.load < capacity and len(refs) < most:
            self._turn += 1
            if self._turn % 2:
                found_one = self._feed_back(read, refs) or self._feed_fresh(read, shard_size, refs)
            else:
                found_one = self._feed_fresh(read, shard_size, refs) or self._feed_back(read, refs)
            if not found_one:
                break
        return refs

    def _feed_back(self, read: int, refs: list[str]) -> bool:
        while self._ready:
            ref = self._ready.popleft()
            found = self._find(ref)
            if found is not None and found[1].state == "ready":
                if found[0].view.v <= read:
                    self._hint(ref, found[1], refs)
                    return True
                self._leave_to_newer(found[1])
        return False

    def _feed_fresh(self, read: int, shard_size: int, refs: list[str]) -> bool:
        passed = 0
        while passed < len(self._active):
            batch_id = self._active[0]
            self._active.rotate(-1)
            batch = self._batches[batch_id]
            left = batch.view.total - batch.cursor
            if not batch.claimable or left <= 0:
                self._forget(self._active, batch_id)
                continue
            if batch.view.v > read:
                passed += 1
                continue
            fair = math.ceil(left / (2 * max(1, len(self._workers))))
            size = min(left, shard_size, max(min(contract.LEAST_SHARD, shard_size), fair))
            jobs = list(range(batch.cursor, batch.cursor + size))
            batch.cursor += size
            if batch.cursor >= batch.view.total:
                self._forget(self._active, batch_id)
            ref, shard = self._new_shard(batch, jobs)
            self._hint(ref, shard, refs)
            return True
        return False

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

    def claim(self, ref: str, *, holder: str, lease_s: float, reads: int = VERSION) -> Claim | None:
        found, now = self._find(ref), self._now()
        if found is None:
            return None
        batch, shard = found
        if shard.state == "leased" or (shard.state == "later" and shard.due > now + _EARLY_S):
            return None
        if shard.lane and shard.state != "hinted":
            return None
        jobs = batch.pending(shard.jobs) if batch.claimable else []
        if not jobs:
            del batch.shards[ref]
            return None
        shard.jobs = jobs
        if batch.view.v > reads:
            self._leave_to_newer(shard)
            raise NewerRecordError(batch.view.v, reads)
        batch.tokens += 1
        shard.state, shard.token = "leased", batch.tokens
        shard.counted = len(jobs)
        shard.at, shard.claimed_at, shard.holder = now + lease_s, now, holder
        if shard.lane:
            self._lane.holder = holder
        places = [_PLACE.unpack_from(batch.index, job * _PLACE.size) for job in jobs]
        return Claim(
            ref=ref,
            batch_id=batch.view.spec.id,
            token=shard.token,
            owner=batch.view.spec.owner,
            endpoint=batch.view.spec.endpoint,
            input_file_id=batch.view.spec.input_file_id,
            claimed_at=now,
            expires_at=batch.view.at.expires_at,
            slips=tuple(
                Slip(index=job, offset=at, length=size, history=batch.histories.get(job, History()))
                for job, (at, size) in zip(jobs, places, strict=True)
            ),
            routing=batch.view.spec.routing,
            max_cost_nanos=batch.view.spec.max_cost_nanos,
        )

    def _leave_to_newer(self, shard: Shard) -> None:
        now = self._now()
        if shard.reason != Reason.NEWER:
            shard.parked_since = now
        shard.state, shard.reason, shard.provider = "later", Reason.NEWER, ""
        shard.at = shard.due = shard.until = now + LOOK_AGAIN_S

    def decline(self, ref: str) -> None:
        found = self._find(ref)
        if found is None:
            return
        shard = found[1]
        if shard.state == "hinted" or (shard.state == "later" and shard.due <= self._now()):
            self._make_ready(ref, shard, shard.jobs)

    def _make_ready(self, ref: str, shard: Shard, jobs: list[int]) -> None:
        shard.jobs = jobs
        if shard.lane:
            self._waits(ref, shard, self._now())
        else:
            shard.state = "ready"
            self._ready.append(ref)

    def _waits(self, ref: str, shard: Shard, due: float) -> None:
        """A shard of suspects waits for the lane."""
        shard.lane, shard.state = True, "suspect"
        shard.reason, shard.provider = Reason.SUSPECT, ""
        shard.parked_since, shard.until = self._now(), due
        self._lane.waiting[ref] = due

    def is_out(self, name: str) -> bool:
        found = self._find(name)
        if found is None or found[1].state not in {"hinted", "leased"}:
            return False
        return found[1].lane and found[1].counted > 0

    def in_lane(self, name: str) -> bool:
        found = self._find(name)
        return found is not None and found[1].state == "suspect" and not found[0].closing

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
        tries = tries_of(split)
        for job in moved:
            before = batch.histories.get(job)
            history = history_after(before, split, shard.claimed_at, tries[job])
            if history is not None:
                batch.histories[job] = history
        new, later = self._new_shard(batch, moved)
        if split.reason:
            later.reason, later.provider = split.reason, split.provider or next(iter(split.wait_for), "")
            still = (shard.reason, shard.provider) == (later.reason, later.provider)
            later.parked_since = shard.parked_since if still else self._now()
            later.until = self._now() + split.lasts_s
        later.lane = split.blocked and shard.lane
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
        note_served(self._served, outcomes)
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
        waits = self._active or self._ready or self._lane.next() is not None
        return bool(waits) and self.load < capacity

    def progress(self, batch_id: str) -> Progress:
        batch = self._batches.get(batch_id)
        if batch is None or batch.view.status is not BatchStatus.IN_PROGRESS:
            return Progress()
        shards = batch.shards.values()
        later = [s for s in shards if s.state in {"later", "suspect"}]
        retries = [s for s in later if not s.reason]
        leased = [s for s in shards if s.state == "leased"]
        running = [s for s in leased if self._heard(s) > self._now() - contract.HEARTBEAT_TIMEOUT_S]
        waiting = {
            (s.reason, s.provider): _waiting(
                [o for o in later if (o.reason, o.provider) == (s.reason, s.provider)]
            )
            for s in later
            if s.reason
        }
        if silent := [s for s in leased if s not in running]:
            waiting[Reason.WORKER_SILENT.value, ""] = Waiting(
                reason=Reason.WORKER_SILENT.value,
                provider="",
                since=min(self._heard(s) for s in silent),
                until=min(s.at for s in silent),
                jobs=sum(s.counted for s in silent),
            )
        return Progress(
            queued=batch.view.total
            - batch.cursor
            + sum(len(s.jobs) for s in shards if s.state in {"ready", "hinted"}),
            running=sum(s.counted for s in running),
            retrying=sum(len(s.jobs) for s in retries),
            retry_at=min((s.due for s in retries), default=0.0),
            waiting=tuple(waiting[name] for name in sorted(waiting)),
        )

    def _heard(self, shard: Shard) -> float:
        """When the shard's holder was last heard of."""
        beat = self._workers.get(shard.holder)
        return beat[1] if beat is not None else shard.claimed_at

    def job(self, batch_id: str, index: int) -> JobState | None:
        batch = self._batches.get(batch_id)
        if batch is None or not 0 <= index < len(batch.states):
            return None
        return JobState(state=batch.states[index], history=batch.histories.get(index, History()))

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
        suspects: list[Suspect] = []
        if self._rounds.forbears(now):
            del due["leased"]
        for batch in list(self._batches.values()):
            for ref, shard in list(batch.shards.items()):
                if shard.state in due and shard.at <= now and due[shard.state] < most:
                    due[shard.state] += 1
                    suspects += self._recover(ref, batch, shard)
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
            recovered=due.get("leased", 0),
            rehinted=due["hinted"],
            woken=due["later"],
            expired=expired,
            workers_lost=self._prune(),
            suspects=tuple(suspects),
        )

    def _recover(self, ref: str, batch: BatchState, shard: Shard) -> list[Suspect]:
        """What its lease, hint or due time ran out for; the suspects that the death of its holder leaves."""
        jobs = batch.pending(shard.jobs)
        if shard.state != "leased" or batch.closing or not jobs or not self._lane.died(shard.holder):
            self._let_go(ref, batch, shard)
            return []
        self._lane.note_death(shard.holder)
        alone, deaths = shard.lane and len(jobs) == 1, self._lane.deaths
        for job in jobs:
            batch.histories[job] = after_death(
                batch.histories.get(job, History()), alone=alone, deaths=deaths
            )
        suspects = [job for job in jobs if is_suspect(batch.histories[job])]
        group = [job for job in suspects if batch.histories[job].recoveries < SINGLE_FROM]
        single = [[job] for job in suspects if job not in group]
        for some in [*(group[n : n + GROUP] for n in range(0, len(group), GROUP)), *single]:
            new, waits = self._new_shard(batch, some)
            history = batch.histories[some[0]]
            self._waits(new, waits, self._now() + (pause_s(history) if some in single else 0.0))
        shard.lane = False
        shard.jobs = [job for job in jobs if job not in suspects]
        self._let_go(ref, batch, shard)
        told = ((job, batch.histories[job]) for job in suspects)
        return [Suspect(job_id(batch.view.spec.id, job), h.recoveries, h.alone) for job, h in told]

    def ping(self) -> None: ...


def _waiting(shards: Sequence[Shard]) -> Waiting:
    """Of shards that wait for the same."""
    return Waiting(
        reason=shards[0].reason,
        provider=shards[0].provider,
        since=min(s.parked_since or 0.0 for s in shards),
        until=min(s.until for s in shards),
        jobs=sum(len(s.jobs) for s in shards),
    )
