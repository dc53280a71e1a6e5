"""What a provider's answer other than 200 means, as one table, and what its headers ask for. Pure."""

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from shared.errors import (
    KeyRefusedError,
    ModelRefusedError,
    ProviderBusyError,
    ProviderError,
    ProviderFailedError,
    ProviderTimeoutError,
    RateLimitedError,
    RequestRefusedError,
)
from shared.redact import redact

MAX_MESSAGE_CHARS = 2000
MAX_RETRY_AFTER_S = 86_400.0

SPENT = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
    }
)
"""Codes or types that say the account has nothing left, whatever status they come with: waiting does not help."""

BY_STATUS: dict[int, type[ProviderError]] = {
    400: RequestRefusedError,
    401: KeyRefusedError,
    402: KeyRefusedError,
    403: ModelRefusedError,
    404: ModelRefusedError,
    408: ProviderBusyError,
    409: ProviderBusyError,
    413: RequestRefusedError,
    422: RequestRefusedError,
    425: ProviderBusyError,
    429: RateLimitedError,
    504: ProviderTimeoutError,
    529: ProviderFailedError,
}

BY_HUNDRED: dict[int, type[ProviderError]] = {4: RequestRefusedError, 5: ProviderFailedError}


class _Said(msgspec.Struct):
    """The error as the provider words it."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | None = None


def classify(
    provider: str, status: int, headers: Mapping[str, str], body: bytes, *, now: float
) -> ProviderError:
    """The error that an answer with this status amounts to. `now` in Unix seconds; header names in lower case."""
    said = _said(body)
    kind = KeyRefusedError if SPENT & {said.code, said.type} else _kind(status)
    text = redact(said.message)[:MAX_MESSAGE_CHARS] or "no message"
    return kind(
        f"{provider} answered {status}: {text}",
        code=said.code,
        http_status=status,
        body=_envelope(said, text, kind),
        request_id=headers.get("x-request-id") or headers.get("request-id"),
        retry_after_s=retry_after_s(headers, now),
    )


def redirected(provider: str, status: int, host: str | None) -> ProviderError:
    """A provider that sends us elsewhere: never followed, since the key and the prompt would go along."""
    return ModelRefusedError(
        f"{provider} answered {status}, a redirect to {host or 'an unnamed place'}, which is never followed:"
        " set the provider's endpoint to the address it should have.",
        code="redirect_refused",
    )


def _kind(status: int) -> type[ProviderError]:
    return BY_STATUS.get(status) or BY_HUNDRED.get(status // 100, ProviderFailedError)


def _envelope(said: _Said, text: str, kind: type[ProviderError]) -> dict[str, Any]:
    error = {"message": text, "type": said.type or kind.type, "param": said.param, "code": said.code}
    return {"error": error}


def _said(body: bytes) -> _Said:
    """From OpenAI's envelope and the forms that others make of it; a body that is none gives its first characters."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Said(message=" ".join(body[:500].decode("utf-8", "replace").split()))
    if isinstance(found, list) and found:  # Gemini's habit
        found = found[0]
    inner = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(inner, str):
        return _Said(message=inner)
    if not isinstance(inner, dict):
        return _Said()
    details = inner.get("details")
    if isinstance(details, dict) and "error_code" in details:  # Anthropic's stable code
        inner = {**inner, "code": details["error_code"]}
    type_, param, code = (_text(inner.get(name)) or None for name in ("type", "param", "code"))
    return _Said(_text(inner.get("message")), type_, param, code)


def _text(value: Any) -> str:
    return str(value)[: 2 * MAX_MESSAGE_CHARS] if isinstance(value, str | int) else ""


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds the provider asks to wait: milliseconds first, then seconds, then a date; None where it does not, or not sensibly."""
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if (millis := _number(headers.get(name))) is not None:
            return _sensible(millis / 1000)
    raw = headers.get("retry-after")
    if raw is None:
        return None
    if (seconds := _number(raw)) is not None:
        return _sensible(seconds)
    try:
        return _sensible(parsedate_to_datetime(raw).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _number(raw: str | None) -> float | None:
    try:
        return None if raw is None else float(raw)
    except ValueError:
        return None


def _sensible(seconds: float) -> float | None:
    return min(seconds, MAX_RETRY_AFTER_S) if math.isfinite(seconds) and seconds > 0 else None
