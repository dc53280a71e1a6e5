"""The memory twin of `redis_lone`, for tests and as the model that it is checked against. One thread at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from shared import ledger, lone
from shared.clock import Clock
from shared.errors import KeyReusedError, NewerRecordError
from shared.forbearance import Rounds
from shared.jobs import Claim, Finished, History, Outcome, Slip, Split, Suspect, Waiting
from shared.ledger import Held
from shared.lone import JobStatus, LoneJob, LoneReaped, LoneSpec, NewJob, Submitted
from shared.memory_batch import history_after, note_served, tries_of
from shared.memory_idempotency import MemoryIdempotency
from shared.memory_lane import MemoryLane
from shared.reasons import Reason
from shared.suspects import after_death, is_suspect, pause_s
from shared.versions import LOOK_AGAIN_S, MOST_LEFT, VERSION

_EARLY_S = 0.005
_SAME_HEARD = 64  # as in lua/_lone.lua


class _Entry(msgspec.Struct):
    """A job and what the store knows beside it. `look_at` is the end of its window or of its retention."""

    view: LoneJob
    body: bytes
    callers: list[str]
    look_at: float
    token: int | None = None
    lease_until: float = 0.0
    due: float | None = None
    polled: bool = False
    unwanted: bool = False
    parked_for: Waiting | None = None
    v: int = VERSION
    holder: str = ""
    lane: bool = False  # it is a suspect


class _Taking(msgspec.Struct):
    """One claim in the making; `left`: the versions of what it had to leave."""

    holder: str
    lease_s: float
    reads: int
    slips: list[Slip] = []
    left: list[int] = []


class _Claimed(msgspec.Struct):
    """The jobs of one claim, remembered for some leases."""

    jobs: list[str]
    until: float


class _Same(msgspec.Struct):
    """Jobs of the same content, to be found by its repetition."""

    jobs: set[str]
    until: float


class MemoryLone:
    """The contract: `shared.lone.LoneJobs`. `listening` are the callers that can still be told anything."""

    def __init__(
        self,
        clock: Clock,
        keys: MemoryIdempotency | None = None,
        served: dict[str, float] | None = None,
        lane: MemoryLane | None = None,
    ) -> None:
        self._lane = lane or MemoryLane(clock)
        self._lane.join(self)
        self._now: Callable[[], float] = clock.now
        self._keys = keys or MemoryIdempotency(clock)
        self._jobs: dict[str, _Entry] = {}
        self._now_list: deque[str] = deque()
        self._soon: deque[str] = deque()
        self._claims: dict[int, _Claimed] = {}
        self._same: dict[tuple[str, str], _Same] = {}
        self._tokens = 0
        self._hinted = 0.0
        self._newer: dict[str, int] = {}
        self._looked = 0.0
        self._writers: dict[str, tuple[int, Finished]] = {}
        self._served = {} if served is None else served
        self._rounds = Rounds()
        self.listening: set[str] = set()

    # the API

    def submit(self, jobs: Sequence[NewJob]) -> Submitted:
        now = self._now()
        known: list[bool] = []
        others: dict[int, str] = {}
        for job in jobs:
            spec = job.spec
            made = self._made(job)
            if made not in {None, spec.id}:
                others[len(known)] = made or ""
            known.append(made is not None or spec.id in self._jobs)
            if known[-1]:
                continue
            self._keys.keep(job.once, spec.id)
            if spec.fingerprint:
                self._findable(spec, alone=not job.caller)
            view = LoneJob(spec=spec, status=JobStatus.QUEUED, created_at=now, expires_at=now + spec.window_s)
            self._jobs[spec.id] = _Entry(
                view,
                job.body,
                [job.caller] if job.caller else [],
                view.expires_at,
            )
            self._enqueue(spec.id)
        return Submitted(tuple(known), self.wants_hint(), now, others)

    def _made(self, job: NewJob) -> str | None:
        try:
            return self._keys.earlier(job.once)
        except KeyReusedError:
            return ""

    def _findable(self, spec: LoneSpec, *, alone: bool = False) -> None:
        same = self._same_as(spec.owner, spec.fingerprint)
        if alone:
            same.jobs.clear()
        same.jobs.add(spec.id)
        same.until = self._now() + lone.SAME_S

    def _same_as(self, owner: str, fingerprint: str) -> _Same:
        found = self._same.get((owner, fingerprint))
        if found is None or found.until <= self._now():
            found = self._same[owner, fingerprint] = _Same(set(), 0.0)
        return found

    def _enqueue(self, job_id: str, *, front: bool = False) -> None:
        if self._jobs[job_id].lane:
            self._waits(self._jobs[job_id], self._now())
            return
        waiting = self._now_list if self._jobs[job_id].callers else self._soon
        waiting.appendleft(job_id) if front else waiting.append(job_id)

    def _waits(self, entry: _Entry, due: float) -> None:
        """A suspect waits for the lane."""
        entry.lane, entry.parked_for = True, None
        waiting = Waiting(reason=Reason.SUSPECT, provider="", since=self._now(), until=due, jobs=1)
        entry.view = msgspec.structs.replace(entry.view, waiting=waiting)
        self._lane.waiting[entry.view.spec.id] = due

    def is_out(self, name: str) -> bool:
        found = self._jobs.get(name)
        return found is not None and found.lane and found.token is not None

    def in_lane(self, name: str) -> bool:
        found = self._jobs.get(name)
        return found is not None and found.lane and found.token is None and not found.view.status.terminal

    def get(self, job_id: str) -> LoneJob | None:
        found = self._jobs.get(job_id)
        return found.view if found else None

    def page(self, owner: str, *, after: str | None, limit: int) -> tuple[list[LoneJob], bool]:
        mine = [
            j for j, e in self._jobs.items() if e.view.spec.owner == owner and (after is None or j < after)
        ]
        mine.sort(reverse=True)
        return [self._jobs[j].view for j in mine[:limit]], len(mine) > limit

    def cancel(self, job_id: str) -> LoneJob | None:
        found = self._jobs.get(job_id)
        if found is None:
            return None
        if not found.view.status.terminal:
            self._end(found, JobStatus.CANCELLED, b"")
        return found.view

    def _end(self, entry: _Entry, status: JobStatus, line: bytes) -> None:
        now, spec = self._now(), entry.view.spec
        heard = not self.listening.isdisjoint(entry.callers)
        entry.view = msgspec.structs.replace(
            entry.view, status=status, ended_at=now, line=line, waiting=None, history=History()
        )
        entry.look_at = now + (spec.delivered_retention_s if heard else spec.retention_s)
        entry.token = entry.due = None
        self._newer.pop(spec.id, None)
        entry.lane = False
        same = self._same_as(spec.owner, spec.fingerprint).jobs
        if not line or (heard and len(same) > _SAME_HEARD):
            same.discard(spec.id)

    def delete(self, job_id: str) -> None:
        found = self._jobs.get(job_id)
        if found is not None and found.view.status.terminal:
            self._forget(found)

    def _forget(self, entry: _Entry) -> None:
        spec = entry.view.spec
        del self._jobs[spec.id]
        self._same_as(spec.owner, spec.fingerprint).jobs.discard(spec.id)

    def wait(self, job_id: str, caller: str) -> LoneJob | None:
        found = self._jobs.get(job_id)
        if found is None:
            return None
        if not found.view.status.terminal and caller not in found.callers:
            found.callers.append(caller)
        found.unwanted = found.unwanted and found.view.status.terminal
        return found.view

    def leave(self, job_id: str, caller: str, *, cancel: bool) -> None:
        found = self._jobs.get(job_id)
        if found is None:
            return
        found.callers = [c for c in found.callers if c != caller]
        if found.view.status.terminal:
            if found.view.spec.fingerprint and found.view.line:
                self._findable(found.view.spec)
            return
        if cancel and not found.callers and not found.polled:
            if found.token is None:
                self._end(found, JobStatus.CANCELLED, b"")
            else:
                found.unwanted = True

    def attach(self, owner: str, fingerprint: str, caller: str) -> str | None:
        same = self._same_as(owner, fingerprint).jobs
        for job_id in sorted(same):
            found = self._jobs[job_id]
            if self.listening.isdisjoint(found.callers):
                found.callers = [caller] if caller else []
                found.polled, found.unwanted = found.polled or not caller, False
                return job_id
        return None

    def begin(self, job_id: str) -> bool:
        found = self._jobs.get(job_id)
        if found is None or found.view.status.terminal:
            return False
        if found.unwanted:
            self._end(found, JobStatus.CANCELLED, b"")
        return not found.unwanted

    def ended(self, job_ids: Sequence[str]) -> list[str]:
        return [j for j in job_ids if j not in self._jobs or self._jobs[j].view.status.terminal]

    def unbegun(self, job_ids: Sequence[str]) -> list[str]:
        return [j for j in job_ids if j in self._jobs and self._jobs[j].view.status is JobStatus.QUEUED]

    # the fleet

    def claim(
        self, *, waited: int, rest: int, holder: str, lease_s: float, reads: int = VERSION
    ) -> Claim | None:
        self._hinted = 0.0
        self._tokens += 1
        taking = _Taking(holder, lease_s, reads)
        slips = taking.slips
        for job_id in reversed(self._readable(reads)[: lone.MOST]):
            del self._newer[job_id]
            self._enqueue(job_id, front=True)
        suspect = self._lane.next_of(self) if waited + rest > 0 else None
        if suspect is not None:
            self._lane.take(suspect)
            self._lane.holder = holder
            self._take(suspect, taking, in_turn=True)
        else:
            self._take_up(waited, rest, taking)
        if self._newer:
            self._looked = self._now() + (0.0 if self._readable(reads) else LOOK_AGAIN_S)
        if not slips:
            if taking.left:
                raise NewerRecordError(max(taking.left), reads)
            return None
        self._claims[self._tokens] = _Claimed([slip.id for slip in slips], self._now() + 4 * lease_s)
        return Claim(
            ref=f"{lone.LONE}/{self._tokens}",
            batch_id=lone.LONE,
            token=self._tokens,
            claimed_at=self._now(),
            slips=tuple(slips),
            more=self.wants_hint(),
        )

    def _readable(self, reads: int) -> list[str]:
        """Of the jobs that were left because of their version."""
        return sorted((j for j, v in self._newer.items() if v <= reads), key=lambda j: (self._newer[j], j))

    def _take_up(self, waited: int, rest: int, taking: _Taking) -> None:
        slips = taking.slips
        self._drain(self._now_list, waited, taking)
        before = len(slips)
        rest = min(rest, lone.MOST - before)
        for job_id in self._due(self._now() + _EARLY_S)[:rest]:
            self._jobs[job_id].due = None
            self._take(job_id, taking)
        self._drain(self._soon, rest - (len(slips) - before), taking)

    def _due(self, until: float) -> list[str]:
        due = [(e.due, j) for j, e in self._jobs.items() if e.due is not None and e.due <= until]
        return [job_id for _, job_id in sorted(due)]

    def _trim(self, waiting: deque[str], most: int) -> None:
        """What was cancelled stands at the front until somebody claims, or looks."""
        for _ in range(most):
            if not waiting or ((e := self._jobs.get(waiting[0])) and not e.view.status.terminal):
                return
            waiting.popleft()

    def _drain(self, waiting: deque[str], room: int, taking: _Taking) -> None:
        until = len(taking.slips) + room
        while waiting and len(taking.slips) < until and len(taking.left) < MOST_LEFT:
            self._take(waiting.popleft(), taking)

    def _take(self, job_id: str, taking: _Taking, *, in_turn: bool = False) -> None:
        found = self._jobs.get(job_id)
        if found is None or found.view.status.terminal or found.token is not None:
            return
        if found.v > taking.reads:
            self._newer[job_id] = found.v
            taking.left.append(found.v)
            waiting = Waiting(reason=Reason.NEWER, provider="", since=self._now(), until=0.0, jobs=1)
            found.view = msgspec.structs.replace(found.view, waiting=waiting)
        elif found.lane and not in_turn:
            self._waits(found, self._now())
        else:
            taking.slips.append(self._handed(found, taking))

    def _handed(self, found: _Entry, taking: _Taking) -> Slip:
        now, index = self._now(), len(taking.slips)
        found.token, found.lease_until, found.holder = self._tokens, now + taking.lease_s, taking.holder
        found.view = msgspec.structs.replace(
            found.view,
            status=JobStatus.IN_PROGRESS,
            started_at=found.view.started_at or now,
            waiting=None,
        )
        return Slip(
            index=index,
            offset=0,
            length=len(found.body),
            history=found.view.history,
            id=found.view.spec.id,
            owner=found.view.spec.owner,
            endpoint=found.view.spec.endpoint,
            body=found.body,
            waited=bool(found.callers),
            expires_at=found.view.expires_at,
        )

    def decline(self) -> None:
        self._hinted = 0.0

    @property
    def _anybody_waits(self) -> bool:
        newer = bool(self._newer) and self._looked <= self._now()
        waits = self._now_list or self._soon or newer or self._due(self._now() - lone.OVERDUE_S)
        return bool(waits) or self._lane.next_of(self) is not None

    def wants_hint(self) -> bool:
        if self._hinted > self._now() or not self._anybody_waits:
            return False
        self._hinted = self._now() + ledger.HINT_TIMEOUT_S
        return True

    def _claimed(self, token: int) -> _Claimed | None:
        found = self._claims.get(token)
        return found if found is not None and found.until > self._now() else None

    def _held(self, token: int) -> list[str]:
        return [j for j, e in self._jobs.items() if e.token == token]

    def renew(self, held: Sequence[tuple[str, int]], *, lease_s: float) -> list[Held]:
        states: list[Held] = []
        for _, token in held:
            if (claimed := self._claimed(token)) is not None:
                claimed.until = self._now() + 4 * lease_s
                for job_id in self._held(token):
                    self._jobs[job_id].lease_until = self._now() + lease_s
            states.append("held" if claimed else "lost")
        return states

    def release(self, ref: str, token: int) -> bool:  # noqa: ARG002  the token alone names the claim
        claimed = self._claimed(token)
        self._claims.pop(token, None)
        for job_id in reversed(claimed.jobs) if claimed else ():
            found = self._jobs.get(job_id)
            if found is not None and found.token == token:
                found.token, self._hinted = None, 0.0
                self._enqueue(job_id, front=True)
        return claimed is not None

    def split(self, ref: str, token: int, split: Split) -> str | None:  # noqa: ARG002  see above
        moved = [j for j in self._held(token) if j in split.jobs]
        tries = tries_of(split)
        for job_id in moved:
            found = self._jobs[job_id]
            started = split.claimed_at or found.view.started_at or 0.0
            before = None if found.view.history == History() else found.view.history
            after = history_after(before, split, started, tries[job_id]) or History()
            found.view = msgspec.structs.replace(found.view, history=after)
            found.token, found.due = None, self._now() + split.delay_s
            found.lane = found.lane and split.blocked
            found.parked_for = _waiting(found.parked_for, split, self._now()) if split.reason else None
            found.view = msgspec.structs.replace(found.view, waiting=found.parked_for)
        return lone.LONE if moved else None

    def finish(self, outcomes: Sequence[Outcome], *, writer: str, serial: int) -> Finished:
        last = self._writers.get(writer)
        if last is not None and last[0] == serial:
            return last[1]
        accepted = []
        note_served(self._served, outcomes)
        for outcome in outcomes:
            found = self._jobs.get(outcome.id)
            accepted.append(found is not None and not found.view.status.terminal)
            if found is not None and accepted[-1]:
                status = JobStatus.COMPLETED if outcome.ok else JobStatus.FAILED
                self._end(found, status, outcome.line)
        finished = Finished(
            accepted=tuple(accepted), hungry=self._anybody_waits and self._hinted <= self._now()
        )
        self._writers[writer] = (serial, finished)
        return finished

    def reap(self, *, most: int) -> LoneReaped:
        now = self._now()
        entries = self._jobs.values()
        ran_out = ((e.lease_until, e) for e in entries if e.token is not None and e.lease_until <= now)
        suspects: list[Suspect] = []
        over = [] if self._rounds.forbears(now) else _first(ran_out, most)
        for entry in over:
            self._claims.pop(entry.token or 0, None)
            if dead := self._lane.died(entry.holder):
                self._lane.note_death(entry.holder)
            entry.token, self._hinted = None, 0.0
            if dead:
                suspects += self._after_death(entry)
            else:
                self._enqueue(entry.view.spec.id, front=True)
        for waiting in (self._now_list, self._soon):
            self._trim(waiting, most)
        due = [(e.look_at, e) for e in entries if e.look_at <= now]
        late = _first((pair for pair in due if not pair[1].view.status.terminal), most)
        old = _first((pair for pair in due if pair[1].view.status.terminal), most)
        for entry in late:
            self._end(entry, JobStatus.EXPIRED, b"")
        for entry in old:
            self._forget(entry)
        left = most in {len(over), len(late), len(old)}
        return LoneReaped(
            recovered=len(over), expired=len(late), removed=len(old), left=left, suspects=tuple(suspects)
        )

    def _after_death(self, entry: _Entry) -> list[Suspect]:
        history, job_id = (
            after_death(entry.view.history, alone=entry.lane, deaths=self._lane.deaths),
            entry.view.spec.id,
        )
        entry.view = msgspec.structs.replace(entry.view, history=history)
        if is_suspect(history):
            self._waits(entry, self._now() + pause_s(history))
            return [Suspect(job_id, history.recoveries, history.alone)]
        entry.lane = False
        self._enqueue(job_id, front=True)
        return []


def _first(found: Iterable[tuple[float, _Entry]], most: int) -> list[_Entry]:
    """The earliest; of those at the same moment, the smallest ids."""
    return [entry for _, entry in sorted(found, key=lambda pair: (pair[0], pair[1].view.spec.id))[:most]]


def _waiting(before: Waiting | None, split: Split, now: float) -> Waiting:
    provider = split.provider or next(iter(split.wait_for), "")
    still = before is not None and (before.reason, before.provider) == (split.reason, provider)
    since = before.since if before is not None and still else now
    return Waiting(reason=split.reason, provider=provider, since=since, until=now + split.lasts_s, jobs=1)
