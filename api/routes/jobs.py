"""Lone jobs: list, poll, cancel."""

from fastapi import APIRouter

from api.caller import CallerOf
from api.job_schema import JobList, JobObject
from api.parts import FromApp, Parts
from api.query import limit_of
from api.schema import ERRORS
from shared.errors import NotFoundError
from shared.ids import is_id
from shared.lone import LoneJob

MAX_PAGE = 100
DEFAULT_PAGE = 20

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"], responses=ERRORS)


@router.get("")
def list_jobs(
    parts: FromApp, caller: CallerOf, after: str | None = None, limit: str | None = None
) -> JobList:
    """The caller's lone jobs, newest first."""
    jobs, more = parts.lone.page(
        caller.owner, after=after, limit=limit_of(limit, default=DEFAULT_PAGE, most=MAX_PAGE)
    )
    data = [JobObject.of(job, idle=parts.crew.idle()) for job in jobs]
    return JobList(
        data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None, has_more=more
    )


@router.get("/{job_id}")
def retrieve_job(job_id: str, parts: FromApp, caller: CallerOf) -> JobObject:
    """One job, with its `response` or `error` once it has ended."""
    return JobObject.of(_find(parts, job_id, caller.owner), idle=parts.crew.idle())


@router.delete("/{job_id}")
def delete_job(job_id: str, parts: FromApp, caller: CallerOf) -> JobObject:
    """Cancel a job that has not ended. One that has is forgotten, with its result."""
    job = _find(parts, job_id, caller.owner)
    if job.status.terminal:
        parts.lone.delete(job_id)
        return JobObject.of(job, deleted=True)
    return JobObject.of(parts.lone.cancel(job_id) or _missing(job_id))


def _find(parts: Parts, job_id: str, owner: str) -> LoneJob:
    """Raises NotFoundError, in the same words whether it never was, is gone, or is another's."""
    job = parts.lone.get(job_id) if is_id(job_id) else None
    return job if job is not None and job.spec.owner == owner else _missing(job_id)


def _missing(job_id: str) -> LoneJob:
    raise NotFoundError(f"No job found with id '{job_id[:100]}'.", param="id", code="job_not_found")
