"""The HTTP faces of lone jobs and models."""

import math
from typing import Any, Literal

import msgspec
from pydantic import BaseModel

from shared.jobs import History, Try, Waiting
from shared.lines import shown_try
from shared.lone import JobStatus, LoneJob
from shared.reasons import Reason


class JobResponse(BaseModel):
    """A provider's answer, as in a batch's output line."""

    status_code: int
    request_id: str | None
    body: Any


class JobError(BaseModel):
    code: str
    message: str


class JobTry(BaseModel):
    """A call that brought no answer: the provider's status or None, and whether it used up one of the job's attempts."""

    provider: str
    status: int | None
    code: str
    duration_s: float
    charged: bool
    at: int

    @classmethod
    def of(cls, call: Try) -> "JobTry":
        return cls.model_validate(msgspec.structs.asdict(shown_try(call)))


class JobRouting(BaseModel):
    """Who answered, on which attempt. Of a job that has not ended: no provider, and the attempts so far."""

    provider: str | None
    attempts: int
    duration_s: float
    cost_usd: str | None = None
    tries: list[JobTry] = []


def routing_of(history: History) -> JobRouting | None:
    """Of a job that has not ended: the calls so far, none of which brought an answer."""
    if not history.tries:
        return None
    tries = [JobTry.of(call) for call in history.tries]
    return JobRouting(provider=None, attempts=history.attempts, duration_s=0.0, tries=tries)


class JobWaiting(BaseModel):
    """Why an open job is not called now (`reason`), at which provider, since when, and when that may be over by itself.

    The times are null where no worker is alive, or the broker is away; `until`, where none of its release is.
    """

    reason: str
    provider: str | None
    since: int | None
    until: int | None

    @classmethod
    def of(cls, waiting: Waiting) -> "JobWaiting":
        return cls(
            reason=waiting.reason,
            provider=waiting.provider or None,
            since=int(waiting.since),
            until=math.ceil(waiting.until) if waiting.until else None,
        )


def _waiting(job: LoneJob, idle: Reason | None) -> JobWaiting | None:
    if job.waiting is not None:
        return JobWaiting.of(job.waiting)
    if idle is None or job.status is not JobStatus.QUEUED:
        return None
    return JobWaiting(reason=idle, provider=None, since=None, until=None)


class JobObject(BaseModel):
    id: str
    object: Literal["job"] = "job"
    endpoint: str
    model: str
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"]
    created_at: int
    expires_at: int
    started_at: int | None
    ended_at: int | None
    response: JobResponse | None
    error: JobError | None
    routing: JobRouting | None
    waiting: JobWaiting | None
    deleted: bool = False

    @classmethod
    def of(cls, job: LoneJob, *, deleted: bool = False, idle: Reason | None = None) -> "JobObject":
        """`idle`: what keeps the whole fleet from beginning anything."""
        line: dict[str, Any] = msgspec.json.decode(job.line) if job.line else {}
        return cls(
            id=job.spec.id,
            endpoint=job.spec.endpoint,
            model=job.spec.model,
            status=job.status.value,
            created_at=int(job.created_at),
            expires_at=int(job.expires_at),
            started_at=None if job.started_at is None else int(job.started_at),
            ended_at=None if job.ended_at is None else int(job.ended_at),
            response=line.get("response"),
            error=line.get("error"),
            routing=line.get("routing") or routing_of(job.history),
            waiting=_waiting(job, idle),
            deleted=deleted,
        )


class JobList(BaseModel):
    object: Literal["list"] = "list"
    data: list[JobObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ModelObject(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelObject]
