"""Every error answer of the simulator, in OpenAI's envelope and with OpenAI's words."""

import math
from functools import lru_cache

import msgspec

from shared.errors import EdgeError

Headers = tuple[tuple[bytes, bytes], ...]

_KINDS = {
    400: ("The request was refused.", "invalid_request_error", None),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    402: ("Payment is required.", "billing_error", "billing_error"),
    403: ("You are not allowed to use this.", "invalid_request_error", "permission_denied"),
    404: ("There is no such thing.", "invalid_request_error", "not_found"),
    408: ("The request took too long to arrive.", "invalid_request_error", "request_timeout"),
    409: ("The resource is in use.", "invalid_request_error", "conflict"),
    422: ("The request could not be processed.", "invalid_request_error", None),
    429: ("Rate limit reached.", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request.", "server_error", None),
    502: ("Bad gateway.", "server_error", None),
    503: ("The engine is currently overloaded, please try again later.", "server_error", None),
    504: ("The engine took too long to answer.", "server_error", None),
    529: ("Overloaded.", "overloaded_error", "overloaded"),
}


class Refusal(msgspec.Struct, frozen=True):
    """An answer that is an error: its status, envelope and headers, ready to send."""

    status: int
    body: bytes
    headers: Headers = ()


def refuse(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
    retry_after_s: float | None = None,
) -> Refusal:
    """OpenAI's envelope around a message. `retry_after_s` goes out in whole seconds, rounded up, and in milliseconds."""
    error = {"message": f"{message} (simulated)", "type": kind, "param": param, "code": code}
    headers: Headers = ()
    if retry_after_s is not None:
        headers = (
            (b"retry-after", b"%d" % math.ceil(retry_after_s)),
            (b"retry-after-ms", b"%d" % math.ceil(retry_after_s * 1000)),
        )
    return Refusal(status, msgspec.json.encode({"error": error}), headers)


def of_error(error: EdgeError) -> Refusal:
    return refuse(error.status, error.message, kind=error.type, code=error.code, param=error.param)


@lru_cache(maxsize=256)
def of_status(status: int, retry_after_s: float | None = None) -> Refusal:
    """What a provider says with that status."""
    message, kind, code = _KINDS.get(status) or _KINDS[400 if status < 500 else 500]  # noqa: PLR2004  HTTP's classes
    return refuse(status, message, kind=kind, code=code, retry_after_s=retry_after_s)


@lru_cache(maxsize=1)
def quota() -> Refusal:
    message = "You exceeded your current quota, please check your plan and billing details."
    return refuse(429, message, kind="insufficient_quota", code="insufficient_quota")


@lru_cache(maxsize=256)
def unknown_model(model: str) -> Refusal:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return refuse(404, message, code="model_not_found", param="model")


@lru_cache(maxsize=1)
def ended_hang() -> Refusal:
    """For calls that hung until the behaviour was switched."""
    return refuse(503, "The engine has come back; please try again.", kind="server_error")
