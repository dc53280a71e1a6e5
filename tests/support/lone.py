"""Records that tests of lone jobs are made of."""

from shared.idempotency import Once
from shared.ids import new_job_id
from shared.jobs import Claim, Outcome
from shared.lone import LoneJobs, LoneSpec, NewJob


def job(
    *, caller: str = "", body: bytes = b'{"model":"m"}', once: Once | None = None, **changes: object
) -> NewJob:
    fields: dict[str, object] = {
        "id": new_job_id(),
        "owner": "default",
        "endpoint": "/v1/chat/completions",
        "model": "m",
        "window_s": 3600.0,
        "retention_s": 600.0,
        "delivered_retention_s": 60.0,
    }
    return NewJob(LoneSpec(**{**fields, **changes}), body, caller, once)  # type: ignore[arg-type]


def claim(lone: LoneJobs, waited: int = 50, rest: int = 50, lease_s: float = 30.0) -> Claim:
    found = lone.claim(waited=waited, rest=rest, holder="w1", lease_s=lease_s)
    assert found is not None
    return found


def ids(found: Claim) -> list[str]:
    return [slip.id for slip in found.slips]


def result(job_id: str, *, ok: bool = True) -> Outcome:
    return Outcome(index=0, id=job_id, ok=ok, line=f'{{"id":"{job_id}"}}'.encode(), provider="p1")
