"""Lone jobs: list, poll, cancel."""

from fastapi import APIRouter

from api.job_schema import JobList, JobObject
from api.parts import OWNER, FromApp, Parts
from api.query import limit_of
from api.schema import ERRORS
from shared.errors import NotFoundError
from shared.lone import LoneJob

MAX_PAGE = 100
DEFAULT_PAGE = 20

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"], responses=ERRORS)


@router.get("")
def list_jobs(parts: FromApp, after: str | None = None, limit: str | None = None) -> JobList:
    """The lone jobs, newest first."""
    jobs, more = parts.lone.page(
        OWNER, after=after, limit=limit_of(limit, default=DEFAULT_PAGE, most=MAX_PAGE)
    )
    data = [JobObject.of(job) for job in jobs]
    return JobList(
        data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None, has_more=more
    )


@router.get("/{job_id}")
def retrieve_job(job_id: str, parts: FromApp) -> JobObject:
    """One job, with its `response` or `error` once it has ended."""
    return JobObject.of(_find(parts, job_id))


@router.delete("/{job_id}")
def delete_job(job_id: str, parts: FromApp) -> JobObject:
    """Cancel a job that has not ended. One that has is forgotten, with its result."""
    job = _find(parts, job_id)
    if job.status.terminal:
        parts.lone.delete(job_id)
        return JobObject.of(job, deleted=True)
    return JobObject.of(parts.lone.cancel(job_id) or _missing(job_id))


def _find(parts: Parts, job_id: str) -> LoneJob:
    job = parts.lone.get(job_id)
    return job if job is not None and job.spec.owner == OWNER else _missing(job_id)


def _missing(job_id: str) -> LoneJob:
    raise NotFoundError(f"No job found with id '{job_id[:100]}'.", param="id", code="job_not_found")
