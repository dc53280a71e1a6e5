"""Liveness and readiness."""

from typing import Literal

from fastapi import APIRouter, Response

from api.broker_watch import of_its_own
from api.caller import MaybeCaller
from api.parts import FromApp, Parts
from api.schema import Health, Readiness
from shared.errors import StoreUnavailableError

router = APIRouter(prefix="/health", tags=["Health"])


@router.get("")
async def health(parts: FromApp) -> Health:
    """The process is alive."""
    return Health(version=parts.version)


@router.get("/ready", responses={503: {"model": Readiness}})
def ready(parts: FromApp, response: Response, caller: MaybeCaller) -> Readiness:
    """Redis can be reached and written to. Whether a broker of its own is there, how many workers are alive, and what there is room for, stand in the body, not in the status.

    Where there are keys, the body says more than the status only to an admin's key, and on METRICS_HOST.
    """
    found = _look(parts)
    if found.status == "not_ready":
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    told = caller is not None and caller.admin
    return found if told else Readiness(status=found.status, redis=None, workers=None, room=None)


def _look(parts: Parts) -> Readiness:
    try:
        parts.ledger.ping()
        workers = len(parts.ledger.workers())
        room = parts.room.now().state
    except StoreUnavailableError as exc:
        return Readiness(status="not_ready", redis=exc.message, workers=0)
    return Readiness(status="ready", redis="ok", broker=_broker(parts), workers=workers, room=room)


def _broker(parts: Parts) -> Literal["ok", "away"] | None:
    if not of_its_own(parts.settings):
        return None
    return "away" if parts.broker.away else "ok"
