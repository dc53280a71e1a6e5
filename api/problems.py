"""From whatever went wrong to OpenAI's error envelope, with the right status and headers."""

import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from shared.errors import EdgeError, UnavailableError, UnknownKeyError
from shared.logs import get_logger

_log = get_logger(__name__)

_CODES = {404: "not_found", 405: "method_not_allowed"}


def problem(error: EdgeError) -> JSONResponse:
    headers = {}
    if isinstance(error, UnavailableError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, UnknownKeyError):
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, 11.6.1: a 401 must name a scheme
    return JSONResponse(error.envelope(), status_code=error.status, headers=headers)


def envelope(message: str, *, type_: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


async def _on_edge_error(_: Request, exc: Exception) -> JSONResponse:
    if not isinstance(exc, EdgeError):
        raise exc
    if exc.status >= 500:  # noqa: PLR2004
        _log.warning("request_refused", code=exc.code, error=exc.message)
    return problem(exc)


async def _on_http_exception(request: Request, exc: Exception) -> JSONResponse:
    if not isinstance(exc, HTTPException):
        raise exc
    message = f"{exc.detail}: {request.method} {request.url.path}. See /docs for what this server serves."
    body = envelope(message, type_="invalid_request_error", code=_CODES.get(exc.status_code))
    return JSONResponse(body, status_code=exc.status_code, headers=exc.headers)


def install(app: FastAPI) -> None:
    app.add_exception_handler(EdgeError, _on_edge_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
