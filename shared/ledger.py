"""The contract of the ledger: the records in Redis that are the truth about batches, shards, leases and due times.

    file ── create ──> validating ── start ──> in_progress ── all jobs ended ──> finalizing ── end ──> completed
                            │                      │  ├─ cancel, max_cost reached ──> cancelling ── end ──> cancelled
                            └── reject ──> failed  │  └─ window over ──> (closing) ── end ──> expired
    fresh jobs ── feed ──> shard: hinted ── claim ──> leased ── finish, finish, ... ── release ──> gone
                              ^                          ├── split ──> later (retry, park) ── due ──┐
                              └────────── ready <────────┴── lease over (reap) <────────────────────┘

Every method is atomic, and safe to repeat unless it says otherwise. Two implementations: `redis_ledger` and, for the
tests, `memory_ledger`; one suite runs on both.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

from shared.idempotency import Once
from shared.jobs import (
    Batch,
    BatchSpec,
    Chore,
    Claim,
    Fault,
    Finished,
    JobState,
    Outcome,
    Progress,
    Reaped,
    Segment,
    Split,
    WorkerRecord,
)
from shared.versions import VERSION

HINT_TIMEOUT_S = 5.0
"""A hint that no worker has claimed after this long counts as lost, and another is sent."""

OVERDUE_S = 1.0
"""A retry whose Celery message is this late is taken over by the reaper."""

HEARTBEAT_TIMEOUT_S = 6.0
"""A worker that has been silent this long counts as gone."""

LEAST_SHARD = 8
"""Shards shrink towards a batch's end so that its tail spreads over the workers, but not below this."""

CLOSING_GRACE_S = 600.0
"""How long a cancelled or expired batch waits for calls in flight before it is closed without them (OpenAI: up to 10 minutes)."""

Held = Literal["held", "closing", "lost"]


class Ledger(Protocol):
    """What api and workers may ask of the truth."""

    # batches
    def create(self, spec: BatchSpec, once: Once | None = None) -> Batch:
        """Store a batch as `validating` and make its validation due. Repeating it with the same id changes nothing.

        Gives the batch that `once` has made before, where there is one. Raises KeyReusedError, and GoneError where that
        batch is not there any more.
        """
        ...

    def get(self, batch_id: str) -> Batch | None: ...

    def page(self, owner: str, *, after: str | None, limit: int) -> tuple[list[Batch], bool]:
        """The owner's batches, newest first, and whether there are more. `after` need not exist any more."""
        ...

    def cancel(self, batch_id: str, overspent: Fault | None = None) -> Batch | None:
        """Begin to cancel; a batch that is already terminal is returned as it is. None where there is no such batch.

        With `overspent` it is its `max_cost` that ends it: what has not run says so, and the batch bears the fault.
        """
        ...

    # leased work on whole batches
    def take_chore(self, lease_s: float, *, reads: int = VERSION) -> Chore | None:
        """The chore that has been due longest, leased to the caller; None where nothing is due.

        A batch whose version is above `reads` is left to a process of its release.
        """
        ...

    def keep_chore(self, chore: Chore, lease_s: float) -> bool:
        """Renew; False where somebody else has taken it, and the caller must stop."""
        ...

    def start(self, chore: Chore, *, index: bytes, model: str | None) -> bool:
        """Validation went well: `index` holds 8 bytes a job (offset, length; big-endian). False on a stale chore."""
        ...

    def reject(self, chore: Chore, faults: Sequence[Fault]) -> bool:
        """Validation found faults: the batch fails with them. False on a stale chore."""
        ...

    def seal(self, chore: Chore, segment: int) -> bool:
        """End the segment's pending jobs as cancelled or expired, whichever closes the batch. False on a stale chore."""
        ...

    def end(self, chore: Chore) -> Batch | None:
        """Make the batch terminal and let go of all that only a running batch needs. None on a stale chore."""
        ...

    # results
    def segment(self, batch_id: str, number: int) -> Segment:
        """The states, results and slices of one segment."""
        ...

    def roll_up(
        self, batch_id: str, number: int, *, output: tuple[int, int], errors: tuple[int, int]
    ) -> bool:
        """The segment's results stand in the files now: drop them here. (lines, bytes) of each file. False if done before."""
        ...

    # the fleet
    def beat(self, worker: WorkerRecord) -> None: ...

    def retire(self, worker_id: str) -> None:
        """A worker says goodbye: nothing more is handed out on its account."""
        ...

    def workers(self) -> list[WorkerRecord]:
        """Those that have been heard from of late."""
        ...

    def feed(self, *, shard_size: int, most: int) -> list[str]:
        """Cut or take up shards until the workers alive have enough. Their refs are to be hinted at.

        By turns one that came back and one of fresh jobs, these batch by batch in turn.
        Batches whose version none of these workers reads are passed over.
        """
        ...

    def claim(self, ref: str, *, holder: str, lease_s: float, reads: int = VERSION) -> Claim | None:
        """Lease a shard. None where it is held, not due, done with, or its batch is closing: then there is nothing to do.

        Raises NewerRecordError where its batch's version is above `reads`; it is hinted at again a little later.
        """
        ...

    def decline(self, ref: str) -> None:
        """The hint found no room: the shard goes back to be hinted at again."""
        ...

    def renew(self, held: Sequence[tuple[str, int]], *, lease_s: float) -> list[Held]:
        """Prolong leases (ref, token). `closing`: start no more of its jobs. `lost`: another has it."""
        ...

    def release(self, ref: str, token: int) -> bool:
        """Done with a shard; jobs of it that have not ended go back to be claimed. False where the lease was lost."""
        ...

    def split(self, ref: str, token: int, split: Split) -> str | None:
        """Move jobs into a shard of their own with a due time; its ref. None where the lease was lost or none of them is open.

        Not safe to repeat after a lost answer: the jobs then are no longer in the shard, and the answer is None; the
        reaper wakes them.
        """
        ...

    def finish(self, batch_id: str, outcomes: Sequence[Outcome], *, writer: str, serial: int) -> Finished:
        """Record how jobs ended, whoever holds them now; only a job's first outcome counts, but all usage is booked.

        `serial` must grow with every call of a `writer` that is not a repetition: a repetition gets the first answer.
        """
        ...

    def progress(self, batch_id: str) -> Progress:
        """Where the batch's open jobs are, and what they wait for."""
        ...

    def job(self, batch_id: str, index: int) -> JobState | None:
        """One job of a batch that runs; None where there is no such job, or the batch has ended."""
        ...

    def answered_since(self, providers: Sequence[str], since: float) -> bool:
        """Whether any of these providers has answered a call, of whatever job, that began after then (the ledger's time)."""
        ...

    def lead(self, holder: str, for_s: float) -> bool:
        """Whether `holder` is the one process that reaps for now; it stays so while it keeps asking."""
        ...

    def reap(self, *, most: int) -> Reaped:
        """Recover what was lost: leases run out, hints gone astray, retries overdue, windows over, workers silent."""
        ...

    def ping(self) -> None:
        """Raises StoreUnavailableError where the store cannot be reached or written to."""
        ...
