"""Lone jobs: completions that stand alone, and the contract of the store that keeps them until they have ended.

    submit ──> queued ── claim ──> in_progress ── finish ──> completed | failed ── retention ──> gone
                 ^  │                 │  │ └─ split (retry, park) ──> later ── due, claim ──┐
                 │  └─ cancel, leave  │  └────────────────<─────────────────────────────────┘
                 └── lease over ──────┘        cancel ──> cancelled        window over ──> expired

Jobs wait on two ready lists: those whose callers wait in person go first. One hint is outstanding at a time, so an idle
fleet gets one hint a job and a busy one few. Two implementations: `redis_lone` and, for the tests, `memory_lone`.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from shared.idempotency import Once
from shared.jobs import Claim, Finished, History, Outcome, Split, Suspect, Waiting
from shared.ledger import Held
from shared.versions import VERSION

LONE = "lone"
"""Stands where a batch's id would stand, and is the ref of the hint."""

MOST = 50
"""Jobs in one claim."""

OVERDUE_S = 0.25
"""A job whose due time has passed for so long gets a hint from whoever looks: Celery's own comes first where there is one."""

SAME_S = 900
"""For this long a repeated request finds the job that it asked for before."""


class JobStatus(StrEnum):
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        return self not in {JobStatus.QUEUED, JobStatus.IN_PROGRESS}


class LoneSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asked for. `fingerprint` names the request's content, so that its repetition can be told.

    `retention_s` is how long the result is kept after the end, `delivered_retention_s` that of one a caller waited for.
    """

    id: str
    owner: str
    endpoint: str
    model: str
    fingerprint: str = ""
    window_s: float
    retention_s: float
    delivered_retention_s: float


class NewJob(msgspec.Struct, frozen=True):
    """A job to be taken in. `caller` is the API process in which somebody waits for it; empty where nobody does."""

    spec: LoneSpec
    body: bytes
    caller: str = ""
    once: Once | None = None


class Submitted(msgspec.Struct, frozen=True):
    """`known`: which were there before, and have been left as they are. `hint`: the fleet must be told. `at`: the store's time.

    `others`: position -> the id of the job that its key has made before, and nobody was added to those who wait for it;
    empty where the key came with another request.
    """

    known: tuple[bool, ...]
    hint: bool
    at: float
    others: dict[int, str] = {}


class LoneJob(msgspec.Struct, frozen=True, kw_only=True):
    """A lone job as it stands. `line` is its result in the form of a batch's output line. Times in Unix seconds.

    `waiting` says why it is not called, where that is known; `history` is of the calls so far, until it has ended.
    """

    spec: LoneSpec
    status: JobStatus
    created_at: float
    expires_at: float
    started_at: float | None = None
    ended_at: float | None = None
    line: bytes = b""
    waiting: Waiting | None = None
    history: History = History()


class Parked(Waiting, frozen=True, kw_only=True):
    """What a parked job waits for, and how long from now on at least, whatever the clock says."""

    lasts_s: float


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """What an API process hears when a job that it waits for has ended: no line where nothing was called.

    `parked` is a `Parked` as JSON: the job has not ended, but waits for a provider.
    """

    id: str
    line: str
    parked: str = ""


class LoneReaped(msgspec.Struct, frozen=True, kw_only=True):
    """`left`: there is more to do than one round takes."""

    recovered: int = 0
    expired: int = 0
    removed: int = 0
    left: bool = False
    suspects: tuple[Suspect, ...] = ()


class LoneJobs(Protocol):
    """Every method is atomic, and safe to repeat unless it says otherwise."""

    # the API
    def submit(self, jobs: Sequence[NewJob]) -> Submitted: ...

    def get(self, job_id: str) -> LoneJob | None: ...

    def page(self, owner: str, *, after: str | None, limit: int) -> tuple[list[LoneJob], bool]:
        """The owner's jobs, newest first, and whether there are more."""
        ...

    def cancel(self, job_id: str) -> LoneJob | None:
        """End it now, if it has not ended; an answer under way is refused."""
        ...

    def delete(self, job_id: str) -> None:
        """Forget a job that has ended."""
        ...

    def wait(self, job_id: str, caller: str) -> LoneJob | None:
        """`caller` wants to hear how it ends. Look at the status returned: it may have ended already."""
        ...

    def leave(self, job_id: str, caller: str, *, cancel: bool) -> None:
        """`caller` waits no more. With `cancel`, a job that nobody waits for, or polls, ends before it is called (again).

        One that has ended was not heard: a repetition may find it.
        """
        ...

    def attach(self, owner: str, fingerprint: str, caller: str) -> str | None:
        """The id of a job of the same content whose callers have gone; from now on `caller` waits for it, or has its result.

        `caller` is empty where the request did not wait: of equal ones of that kind only the latest job is found.
        Not safe to repeat after a lost answer: the job then has a caller.
        """
        ...

    def ended(self, job_ids: Sequence[str]) -> list[str]:
        """Those of them that have ended, or are not known any more."""
        ...

    def unbegun(self, job_ids: Sequence[str]) -> list[str]:
        """Those of them that no worker has ever had."""
        ...

    # the fleet
    def claim(
        self, *, waited: int, rest: int, holder: str, lease_s: float, reads: int = VERSION
    ) -> Claim | None:
        """Lease up to `waited` jobs whose callers wait, and up to `rest` others. Clears the outstanding hint.

        Jobs whose version is above `reads` are left to a worker of their release. Raises NewerRecordError where there were only such.
        """
        ...

    def decline(self) -> None:
        """The hint found no room: it counts as lost."""
        ...

    def wants_hint(self) -> bool:
        """Whether jobs wait and no hint is outstanding; then one is, and the caller must send it."""
        ...

    def begin(self, job_id: str) -> bool:
        """A claimed job is about to be called. False where it must not be: it has ended, or ends now, for nobody wants it."""
        ...

    def renew(self, held: Sequence[tuple[str, int]], *, lease_s: float) -> list[Held]: ...

    def release(self, ref: str, token: int) -> bool: ...

    def split(self, ref: str, token: int, split: Split) -> str | None: ...

    def finish(self, outcomes: Sequence[Outcome], *, writer: str, serial: int) -> Finished:
        """As `Ledger.finish`. `hungry`: jobs wait and no hint is outstanding."""
        ...

    def reap(self, *, most: int) -> LoneReaped:
        """Recover leases run out, end jobs whose window is over, forget those past their retention."""
        ...
