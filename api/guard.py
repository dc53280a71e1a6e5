"""What every request passes first: it gets an id, and is admitted or refused (`api.admission`) before its body is read."""

import asyncio
import secrets
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.admission import Admit
from api.problems import envelope, problem
from shared.errors import EdgeError, StoppingError
from shared.logs import get_logger

_log = get_logger(__name__)

_LEFT = 499
"""nginx' status for a caller who leaves before the answer; nobody reads it."""

_FAILED = JSONResponse(
    envelope(
        "The server failed to handle this request; its log has the details under this answer's x-request-id.",
        type_="server_error",
        code="internal_error",
    ),
    status_code=500,
)
_STOPPING = problem(StoppingError())


class Guard:
    """ASGI middleware around all of our own code."""

    def __init__(self, app: ASGIApp, admit: Admit) -> None:
        self._app = app
        self._admit = admit

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
            except ClientDisconnect:
                status = _LEFT
            except asyncio.CancelledError:  # by `api.server`, whose grace time is over, and by nobody else
                if status:
                    raise  # an answer that is cut short: the connection breaks, so that it shows
                await _STOPPING(scope, receive, send_with_id)
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
        try:
            caller = self._admit(scope["path"], Headers(scope=scope))
        except EdgeError as exc:
            await problem(exc)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        if caller is not None:
            structlog.contextvars.bind_contextvars(owner=caller.owner)
        await self._app(scope, receive, send)
