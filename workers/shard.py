"""The run of one shard: its jobs side by side, failures split off as they come, release at the end."""

import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec

from shared.catalogue import Catalogue
from shared.errors import NewerRecordError, NotFoundError, StoreUnavailableError
from shared.files import Files
from shared.jobs import Claim, Outcome, Slip
from shared.ledger import Held, Ledger
from shared.logs import get_logger
from shared.lone import LONE, MOST, LoneJobs
from shared.room_watch import RoomWatch
from shared.suspects import is_blamed
from workers.calls import Calls, Lane
from workers.execute import (
    Blocked,
    Failed,
    Job,
    Upstream,
    attempt,
    broken,
    given_up,
    input_gone,
    kept_back,
    killer,
)
from workers.leases import Leases
from workers.retry import Decision, decide, is_last, park
from workers.splits import Waiter, by_fate, split_of
from workers.writer import Entry, Writer

LINGER_S = 0.025
"""Failures that come within this time ride in one shard; it delays no retry by more."""

LOOK_AGAIN_S = 0.05
"""A lone job that waited longer for a caller is looked at once more before it is called."""

STUCK_S = 2.0
"""While Redis refuses answers for longer than this, no new call starts: its answer could not be kept."""

AGAIN_S = 0.5
"""Between tries while the store takes neither splits nor releases."""

_log = get_logger(__name__)
_T = TypeVar("_T")

Retry = Callable[[str, float, Exception], None]
"""Celery's own retry: (ref of the new shard, seconds until it is due, the error)."""


class Parts(msgspec.Struct, frozen=True):
    """What a shard needs of its worker."""

    ledger: Ledger
    lone: LoneJobs
    files: Files
    calls: Calls
    writer: Writer
    leases: Leases
    upstream: Upstream
    now: Callable[[], float]
    catalogue: Callable[[], Catalogue]
    room: RoomWatch
    stopping: threading.Event
    holder: str
    lease_s: float


class ShardRun:
    """One claimed shard in this process, from claim to release."""

    def __init__(self, claim: Claim, parts: Parts, retry: Retry) -> None:
        self.store: Ledger | LoneJobs = parts.lone if claim.batch_id == LONE else parts.ledger
        self._claim = claim
        self._parts = parts
        self._retry = retry
        self._events: queue.SimpleQueue[bool | Waiter | None] = queue.SimpleQueue()
        self._closing = False
        self._accepted = self._refused = self._split_off = self._unstarted = 0

    @property
    def ref(self) -> str:
        return self._claim.ref

    @property
    def token(self) -> int:
        return self._claim.token

    def on_lease(self, state: Held) -> None:
        """Not held any more, or the batch is closing: what runs may finish, nothing else starts."""
        if state != "held":
            self._closing = True

    def run(self) -> None:
        """Returns when every job has been written, split off, or left unstarted.

        Raises StoreUnavailableError where the worker is stopping and what is left must be left to the lease.
        """
        started = time.monotonic()
        claim = self._claim
        for slip, line in self._lines():
            self._submit(slip, line)
        self._await(len(claim.slips))
        self._insist(lambda: self.store.release(claim.ref, claim.token))
        _log.info(
            "shard_done",
            shard=claim.ref,
            jobs=len(claim.slips),
            accepted=self._accepted,
            refused=self._refused,
            split_off=self._split_off,
            unstarted=self._unstarted,
            duration_s=round(time.monotonic() - started, 3),
        )

    def _lines(self) -> Sequence[tuple[Slip, bytes]]:
        """Each job with what is to be sent; none where the input is gone, and the jobs have failed for it."""
        claim = self._claim
        if claim.batch_id == LONE:
            return [(slip, slip.body) for slip in claim.slips]
        places = [(slip.offset, slip.length) for slip in claim.slips]
        try:
            lines = self._insist(lambda: self._parts.files.slices(claim.input_file_id, places))
        except NotFoundError as exc:
            _log.error("input_gone", shard=claim.ref, error=exc.message)
            for slip in claim.slips:
                self._write(input_gone(claim, slip, exc))
            return []
        return list(zip(claim.slips, lines, strict=True))

    def _submit(self, slip: Slip, line: bytes) -> None:
        claim = self._claim
        endpoint = slip.endpoint or claim.endpoint
        owner, expires_at = slip.owner or claim.owner, slip.expires_at or claim.expires_at
        job = Job(
            *(claim.batch_id, endpoint, slip, line, claim.ref, claim.token),
            *(claim.routing, owner, claim.max_cost_nanos, expires_at),
        )
        since_s = time.monotonic()
        self._parts.calls.submit(_lane(slip), lambda: self._work(job, since_s))

    # in a caller's thread

    def _work(self, job: Job, since_s: float) -> None:
        held_back = self._closing or self._parts.stopping.is_set() or not self._parts.room.calls()
        if held_back or not self._wanted(job, since_s):
            self._events.put(None)
            return
        its_own = self._is_to_blame(job.slip)
        result = self._attempt(job)
        if isinstance(result, Outcome):
            self._write(result)
            return
        if isinstance(result, Blocked) and self._ends_batch(result):
            self._events.put(None)
            return
        decision = self._decide(result)
        if isinstance(result, Failed):
            self._tell(result, decision)
        if isinstance(result, Failed) and (decision.kind == "fail" or (decision.kind == "doubt" and its_own)):
            self._write(given_up(result))
        else:
            self._events.put(Waiter(result, decision, time.monotonic()))

    def _is_to_blame(self, slip: Slip) -> bool:
        """Whether a job whose next call is its last has failed where others were served.

        Looked at before that call: what is answered after it may only show that an outage is over.
        """
        history = slip.history
        if not history.tried or not is_last(history, self._parts.catalogue().retry):
            return False
        try:
            return self._parts.ledger.answered_since(history.tried, history.since)
        except StoreUnavailableError:
            return False

    def _ends_batch(self, result: Blocked) -> bool:
        """Whether it was its batch's `max_cost` that this job could have exceeded: then the batch ends, and the job with it."""
        fault = result.job.overspent(result.blocks)
        if fault is None:
            return False
        try:
            self._parts.ledger.cancel(result.job.batch_id, fault)
        except StoreUnavailableError:
            return False  # it is parked, and asks again
        self._closing = True
        _log.info("max_cost_reached", batch_id=result.job.batch_id)
        return True

    def _attempt(self, job: Job) -> Outcome | Failed | Blocked:
        if self._parts.writer.stuck_s > STUCK_S:  # it need not wait here for the slowest call of its shard
            return kept_back(job, now=self._parts.now())
        if is_blamed(history := job.slip.history):
            _log.warning("poison_job", job=job.id, recoveries=history.recoveries, alone=history.alone)
            return killer(job)
        try:
            return attempt(job, self._parts.catalogue(), self._parts.upstream)
        except Exception as exc:  # noqa: BLE001  an edge: what one job brings up must neither lose it nor repeat it for ever
            _log.exception("attempt_broke", shard=job.ref, job=job.slip.index)
            return broken(job, exc)

    def _decide(self, result: Failed | Blocked) -> Decision:
        slip = result.job.slip
        if isinstance(result, Blocked):
            return park(
                result.blocks,
                slip.history,
                now=self._parts.now(),
                spread=random.random(),
                alone=bool(slip.id),
            )
        return decide(result.error, slip.history, self._parts.catalogue().retry, spread=random.random())

    def _tell(self, result: Failed, decision: Decision) -> None:
        job = result.job
        _log.info(
            "attempt_failed",
            shard=job.ref,
            job=job.slip.index,
            provider=result.provider,
            attempt=job.slip.history.attempts + 1,
            error=result.error.code,
            status=result.error.http_status,
            then=decision.kind,
            delay_s=round(decision.delay_s, 3),
        )

    def _wanted(self, job: Job, since_s: float) -> bool:
        """Whether a lone job that has waited here is still to be called: its caller may have left, or cancelled it."""
        if not job.slip.id or time.monotonic() - since_s < LOOK_AGAIN_S:
            return True
        try:
            return self._parts.lone.begin(job.slip.id)
        except StoreUnavailableError:
            return False

    def _write(self, outcome: Outcome) -> None:
        self._parts.writer.put(Entry(self._claim.batch_id, outcome, self._events.put))

    # in the task's own thread

    def _insist(self, ask: Callable[[], _T]) -> _T:
        """What the store says, asked until it says something: calls in flight need the lease kept, and their ends wait in `_events`.

        Repeated, a split or release whose reply was lost moves nothing more. Raises StoreUnavailableError once the worker is stopping.
        """
        waits = False
        while True:
            try:
                return ask()
            except StoreUnavailableError as exc:
                if self._parts.stopping.is_set():
                    raise
                if not waits:
                    _log.warning("shard_waits_for_store", shard=self.ref, error=exc.message)
                waits = True
            self._parts.stopping.wait(AGAIN_S)

    def _await(self, left: int) -> None:
        waiting: list[Waiter] = []
        while left:
            event = self._next(waiting)
            if isinstance(event, Waiter):
                waiting.append(event)
                continue
            if waiting and event is _FLUSH:
                left -= self._split(waiting)
                waiting = []
                continue
            left -= 1
            self._accepted += event is True
            self._refused += event is False
            self._unstarted += event is None

    def _next(self, waiting: list[Waiter]) -> object:
        if not waiting:
            return self._events.get()
        patience_s = waiting[0].since_s + LINGER_S - time.monotonic()
        try:
            return (
                self._events.get(timeout=max(0.0, patience_s))
                if patience_s > 0
                else self._events.get_nowait()
            )
        except queue.Empty:
            return _FLUSH

    def _split(self, waiting: list[Waiter]) -> int:
        """So many jobs are out of this shard's hands."""
        gone = 0
        for decision, group in by_fate(waiting):
            with suppress(StoreUnavailableError):  # left to the lease; what is in flight is waited for
                self._split_group(decision, group)
            gone += len(group)
        self._split_off += gone
        return gone

    def _split_group(self, decision: Decision, group: list[Waiter]) -> None:
        claim = self._claim
        split = split_of(decision, group, claim.claimed_at, self._parts.now())
        if decision.reason is not None and split.kind == "park":
            _log.info("parked", shard=claim.ref, jobs=len(group), reason=split.reason, delay_s=split.delay_s)

        def tell() -> str | None:
            nonlocal split
            split = split_of(decision, group, claim.claimed_at, self._parts.now())
            return self.store.split(claim.ref, claim.token, split)

        ref = self._insist(tell)
        if ref is not None and split.kind == "retry":
            # counted from the ledger's reply, as the ledger counts from its write: a hint before the due time is in vain
            self._retry(ref, split.delay_s, group[0].why or RuntimeError())


_FLUSH = object()


def _lane(slip: Slip) -> Lane:
    """Who waits in person first; then retries, suspects and lone jobs nobody waits for, so that none stands behind a batch."""
    if slip.waited:
        return Lane.INTERACTIVE
    history = slip.history
    again = history.attempts or history.parked or history.recoveries
    return Lane.RETRY if slip.id or again else Lane.FRESH


def run_shard(ref: str, lane: Lane, parts: Parts, retry: Retry) -> bool:
    """What a hint leads to. False where there was nothing to do: no room here, or no claim to be had.

    A retry's hint asks for room in the lane of retries: its time has come, and it must not wait behind fresh shards.
    """
    if _turned_away(parts) or not parts.calls.has_room(lane):
        parts.ledger.decline(ref)
        return False
    try:
        claim = parts.ledger.claim(ref, holder=parts.holder, lease_s=parts.lease_s)
    except NewerRecordError:
        return False
    if claim is not None:
        _run(claim, parts, retry)
    return claim is not None


def run_lone(parts: Parts, retry: Retry, hint: Callable[[], None]) -> bool:
    """The same for lone jobs, of which a hint claims as many as there is room for. `hint` sends another for the rest."""
    waited, rest = (min(MOST, parts.calls.room(lane)) for lane in (Lane.INTERACTIVE, Lane.RETRY))
    if _turned_away(parts) or not waited + rest:
        parts.lone.decline()
        return False
    try:
        claim = parts.lone.claim(waited=waited, rest=rest, holder=parts.holder, lease_s=parts.lease_s)
    except NewerRecordError:
        if parts.lone.wants_hint():  # there are others besides
            hint()
        return False
    if claim is None:
        return False
    if claim.more:
        hint()
    _run(claim, parts, retry)
    return True


def _turned_away(parts: Parts) -> bool:
    """Whether no call may begin. What was not begun goes back to the ledger as it was, to be handed out again when it can run."""
    return parts.stopping.is_set() or parts.writer.stuck_s > STUCK_S or not parts.room.calls()


def _run(claim: Claim, parts: Parts, retry: Retry) -> None:
    run = ShardRun(claim, parts, retry)
    parts.leases.hold(run)
    try:
        run.run()
    except StoreUnavailableError as exc:
        _log.warning("shard_left_to_its_lease", shard=claim.ref, error=exc.message)
    finally:
        run.on_lease("lost")  # where it was cut short, what has not started must not start without a lease
        parts.leases.let_go(run)
