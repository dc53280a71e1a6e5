"""The HTTP faces of lone jobs and models."""

from typing import Any, Literal

import msgspec
from pydantic import BaseModel

from shared.lone import LoneJob


class JobResponse(BaseModel):
    """A provider's answer, as in a batch's output line."""

    status_code: int
    request_id: str | None
    body: Any


class JobError(BaseModel):
    code: str
    message: str


class JobRouting(BaseModel):
    provider: str | None
    attempts: int
    duration_s: float
    cost_usd: str | None = None


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
    deleted: bool = False

    @classmethod
    def of(cls, job: LoneJob, *, deleted: bool = False) -> "JobObject":
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
            routing=line.get("routing"),
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
