"""What every request passes first: an id, and, as long as there are no keys, proof that it comes from this machine.

The check of `Host` and `Origin` keeps a web page from reaching a server on loopback through the visitor's browser
(DNS rebinding, cross-site requests).
"""

import secrets
import time
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import envelope
from shared.config import LOOPBACK
from shared.logs import get_logger

_log = get_logger(__name__)


def refused_reason(headers: Headers) -> str | None:
    """Why a request may not be served on loopback, or None."""
    host = _hostname(f"//{headers.get('host', '')}")
    if host not in LOOPBACK:
        return "the Host header must name this machine's loopback (127.0.0.1, localhost or [::1])"
    origin = headers.get("origin")
    if origin is not None and _hostname(origin) not in LOOPBACK:
        return "the Origin header is another site's; browsers may use this server only from loopback pages"
    return None


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


_FAILED = JSONResponse(
    envelope(
        "The server failed to handle this request; its log has the details under this answer's x-request-id.",
        type_="server_error",
        code="internal_error",
    ),
    status_code=500,
)


class Guard:
    """ASGI middleware around all of our own code."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(12)}"
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(int((time.perf_counter() - started) * 1000))
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._serve(scope, receive, send_with_id)
            except Exception:  # noqa: BLE001  an edge: whatever breaks is answered, and logged once, under its id
                _log.exception("request_failed", method=scope["method"], path=scope["path"])
                if not status:
                    await _FAILED(scope, receive, send_with_id)
            _log.debug(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                duration_s=round(time.perf_counter() - started, 4),
            )

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = refused_reason(Headers(scope=scope))
        if reason is None:
            await self._app(scope, receive, send)
            return
        body = envelope(f"Refused: {reason}.", type_="invalid_request_error", code="host_not_allowed")
        await JSONResponse(body, status_code=403)(scope, receive, send)
