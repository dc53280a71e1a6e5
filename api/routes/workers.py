"""The workers that are alive. For administration."""

from fastapi import APIRouter

from api.caller import AdminCaller
from api.parts import FromApp
from api.schema import ERRORS
from api.worker_schema import WorkerList, WorkerObject

router = APIRouter(prefix="/v1/workers", tags=["Workers"], responses=ERRORS)


@router.get("")
def list_workers(parts: FromApp, _caller: AdminCaller) -> WorkerList:
    """Each with its pool, version, slots, calls under way and how late it runs."""
    found = sorted(parts.ledger.workers(), key=lambda record: (record.started_at, record.id))
    return WorkerList(data=[WorkerObject.of(record) for record in found])
