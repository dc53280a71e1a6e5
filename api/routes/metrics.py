"""Prometheus' metrics. On METRICS_HOST where that is set, else on the API's own port."""

import hmac

from fastapi import APIRouter, Request, Response

from api.admission import presented
from api.caller import MaybeCaller
from api.keyring import Caller, Keyring
from api.parts import FromApp
from api.schema import ERRORS
from shared.errors import UnknownKeyError

router = APIRouter(prefix="/metrics", tags=["Health"], responses=ERRORS)


@router.get("", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, parts: FromApp, caller: MaybeCaller) -> Response:
    """The metrics of this process, in Prometheus' text format. Asks for METRICS_TOKEN, where that is set, or an admin's key."""
    if not may_scrape(caller, presented(request.headers), parts.settings.metrics_token, parts.keyring):
        raise UnknownKeyError(
            "Metrics are for METRICS_TOKEN, sent as `Authorization: Bearer TOKEN`, or for an admin's key."
        )
    content, content_type = parts.metrics.exposition(request.headers.get("accept", ""))
    return Response(content, headers={"content-type": content_type, "cache-control": "no-store"})


def may_scrape(caller: Caller | None, sent: str, token: str | None, keyring: Keyring) -> bool:
    """`caller` is an admin where there are no keys, and on the internal address: a token, where there is one, counts there too."""
    if token is None:
        return caller is not None and caller.admin
    by_key = keyring.caller_of(sent)
    right = hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), token.encode())
    return right or (by_key is not None and by_key.admin)
