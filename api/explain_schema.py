"""Why a batch is not further: where its open jobs are, what they wait for, and when something happens next."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel

from api.job_schema import JobTry
from shared.jobs import (
    CANCELLED,
    DONE,
    EXPIRED,
    FAILED,
    PENDING,
    UNPAID,
    Batch,
    BatchStatus,
    JobState,
    Progress,
    Waiting,
    WorkerRecord,
)
from shared.reasons import Reason, in_words
from shared.versions import VERSION


class WaitingObject(BaseModel):
    """Jobs that wait for the same reason: at which provider, since when the longest, and when that may be over by itself.

    The times are null where no worker is alive, or the broker is away.
    """

    reason: str
    provider: str | None
    message: str
    since: int | None
    until: int | None
    jobs: int

    @classmethod
    def of(cls, waiting: Waiting) -> "WaitingObject":
        return cls(
            reason=waiting.reason,
            provider=waiting.provider or None,
            message=in_words(waiting.reason, waiting.provider),
            since=int(waiting.since),
            until=math.ceil(waiting.until),
            jobs=waiting.jobs,
        )


class Stopped(NamedTuple):
    """Why no job at all begins now; without a `message`, the reason's own words."""

    reason: Reason
    message: str = ""


class LineObject(BaseModel):
    """One job of a running batch: how it stands, and the calls so far that brought no answer (the latest twenty).

    `attempts` are those that were charged, since its attempts began anew; `parked` is how often it has waited after a call;
    `recoveries`, how often its worker has died while it had it.
    """

    line: int
    status: Literal["open", "completed", "failed", "expired", "cancelled"]
    attempts: int
    parked: int
    recoveries: int
    tries: list[JobTry]

    @classmethod
    def of(cls, line: int, job: JobState) -> "LineObject":
        history = job.history
        return cls(
            line=line,
            status=_STATUS[job.state],
            attempts=history.attempts,
            parked=history.parked,
            recoveries=history.recoveries,
            tries=[JobTry.of(call) for call in history.tries],
        )


_STATUS: dict[str, Literal["open", "completed", "failed", "expired", "cancelled"]] = {
    PENDING: "open",
    DONE: "completed",
    FAILED: "failed",
    EXPIRED: "expired",
    CANCELLED: "cancelled",
    UNPAID: "cancelled",
}


class Explanation(BaseModel):
    """`summary` says it in a sentence.

    `queued`: to be handed out; `retrying`: in a back-off after a failure; `parked`: waiting for one of the reasons in `waiting`.
    `job` is the job of the line that was asked about.
    """

    id: str
    object: Literal["batch.explanation"] = "batch.explanation"
    status: str
    summary: str
    queued: int
    running: int
    retrying: int
    parked: int
    done: int
    workers: int
    next_due_at: int | None
    waiting: list[WaitingObject]
    job: LineObject | None = None

    @classmethod
    def of(
        cls,
        batch: Batch,
        progress: Progress,
        workers: Sequence[WorkerRecord],
        job: LineObject | None = None,
        *,
        stopped: Stopped | None = None,
        broker_away: bool = False,
    ) -> "Explanation":
        """`stopped`: why nothing at all begins now."""
        waiting = waiting_of(batch, progress, workers, stopped=stopped, broker_away=broker_away)
        return cls(
            id=batch.spec.id,
            status=batch.status.value,
            summary=_summary(batch, progress, waiting),
            queued=progress.queued,
            running=progress.running,
            retrying=progress.retrying,
            parked=sum(w.jobs for w in progress.waiting),
            done=batch.completed + batch.failed,
            workers=len(workers),
            next_due_at=math.ceil(progress.next_due) if progress.next_due else None,
            waiting=waiting,
            job=job,
        )


def waiting_of(
    batch: Batch,
    progress: Progress,
    workers: Sequence[WorkerRecord],
    *,
    stopped: Stopped | None = None,
    broker_away: bool = False,
) -> list[WaitingObject]:
    """What is queued waits too, where nothing begins, none of the workers alive can take it, or none hears of it."""
    if stopped is not None:
        # where Redis takes no write nobody can be heard of: that says nothing of the workers
        unheard = {Reason.WORKER_SILENT} if stopped.reason is Reason.STORE_AWAY else set[Reason]()
        jobs = (
            progress.queued + progress.running + sum(w.jobs for w in progress.waiting if w.reason in unheard)
        )
        found = [WaitingObject.of(w) for w in progress.waiting if w.reason not in unheard]
        return [*found, _nobody(stopped, jobs)] if jobs else found
    if batch.v <= max((worker.reads for worker in workers), default=0):
        found = [WaitingObject.of(w) for w in progress.waiting]
        if broker_away and progress.queued:
            found.append(_nobody(Stopped(Reason.BROKER_AWAY), progress.queued))
        return found
    reason = Reason.NEWER if workers else Reason.NO_WORKER
    left = [w for w in progress.waiting if w.reason == reason]
    found = [WaitingObject.of(w) for w in progress.waiting if w.reason != reason]
    if jobs := progress.queued + sum(w.jobs for w in left):
        since = int(min(w.since for w in left)) if left else None
        found.append(_nobody(Stopped(reason), jobs, since))
    return found


def _nobody(stopped: Stopped, jobs: int, since: int | None = None) -> WaitingObject:
    """Jobs that no provider keeps waiting."""
    message = stopped.message or in_words(stopped.reason, "")
    return WaitingObject(
        reason=stopped.reason, provider=None, message=message, since=since, until=None, jobs=jobs
    )


def _summary(batch: Batch, progress: Progress, waiting: list[WaitingObject]) -> str:
    if batch.v > VERSION and not batch.status.terminal and batch.status is not BatchStatus.IN_PROGRESS:
        return f"The batch is {batch.status.value}; it was made by a newer release, and a process of that one takes care of it."
    if batch.status is not BatchStatus.IN_PROGRESS:
        return f"The batch is {batch.status.value}; none of its jobs waits for a provider."
    moving = f"{progress.running:,} jobs are running, {progress.queued:,} queued, {progress.retrying:,} between attempts."
    if not waiting:
        return moving
    reasons = "; ".join(f"{w.jobs:,} jobs wait: {w.message}" for w in waiting)
    return f"{reasons}. {moving}"
