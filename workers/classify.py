"""What a provider's answer other than 200 means, as one table, and what its headers ask for. Pure."""

import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from shared.errors import (
    KeyRefusedError,
    ModelRefusedError,
    NotServedError,
    ProviderBusyError,
    ProviderError,
    ProviderFailedError,
    ProviderTimeoutError,
    RateLimitedError,
    RequestRefusedError,
)
from shared.redact import KEY, redact
from workers.headroom import http_date, meant_s, rest_s, time_there

MAX_MESSAGE_CHARS = 2000
MAX_WORD_CHARS = 200
MAX_PLAIN_CHARS = 500
"""Of a body that is no JSON: a page of HTML, mostly."""

MIN_KEY_CHARS = 6
"""A shorter API key would be found in plain words."""

MAX_RETRY_AFTER_S = 86_400.0

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
"""What a code must look like to be told to others than the job's owner: no sentence, no prompt."""

BY_CODE: dict[str, type[ProviderError]] = {
    # the account has nothing left: waiting a minute does not help, another provider does
    "insufficient_quota": KeyRefusedError,
    "billing_hard_limit_reached": KeyRefusedError,
    "billing_not_active": KeyRefusedError,
    "*_spend_limit_reached": KeyRefusedError,
    # said with a 400 by some
    "invalid_api_key": KeyRefusedError,
    "model_not_found": ModelRefusedError,
}
"""By the error's `code` or `type` in lower case, whatever the status; `*` stands for any beginning. Asked before the status."""

BY_STATUS: dict[int, type[ProviderError]] = {
    400: RequestRefusedError,
    401: KeyRefusedError,
    402: KeyRefusedError,
    403: ModelRefusedError,
    404: NotServedError,
    408: ProviderBusyError,
    409: ProviderBusyError,
    413: RequestRefusedError,
    422: RequestRefusedError,
    425: ProviderBusyError,
    429: RateLimitedError,
    504: ProviderTimeoutError,
    529: ProviderFailedError,
}

MISSING = frozenset({"not_found_error", "notfounderror", "not_found", "deploymentnotfound"})
"""What Anthropic, vLLM, Gemini and Azure call whatever is not there: the model, where the message speaks of one."""

_OF_A_MODEL = re.compile(r"(?i)(?<![a-z])(?:model|deployment)s?(?![a-z])")

BY_HUNDRED: dict[int, type[ProviderError]] = {4: RequestRefusedError, 5: ProviderFailedError}
"""Any other status; what is in none of the tables (a 204, say) is an answer that is none: ProviderFailedError."""


class _Said(msgspec.Struct):
    """The error as the provider words it."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | None = None


def classify(
    provider: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    key: str | None = None,
) -> ProviderError:
    """The error that an answer with this status amounts to. `now` in Unix seconds; header names in lower case.

    `key`: the one that the call was made with, which is not told on.
    """
    said = _said(body, key)
    wait_s = retry_after_s(headers, now)
    kind = _by_code(said.code) or _by_code(said.type) or _by_status(status)
    if kind is NotServedError and _misses_the_model(said):
        kind = ModelRefusedError
    text = said.message or "no message"
    named = said.code is None or _NAME.fullmatch(said.code) is not None
    code = said.code if named else kind.default_code
    return kind(
        f"{provider} answered {status}: {text}",
        brief=f"{provider} answered {status}.",
        code=None if code is None or code.isdigit() else code,  # vLLM repeats the status
        http_status=status,
        body=_envelope(said, text, code, kind),
        request_id=request_id(headers, key),
        retry_after_s=wait_s,
        rest_s=rest_s(headers, now) if wait_s is None else None,  # which is when all is there again, not some
    )


def redirected(provider: str, status: int, location: str | None) -> ProviderError:
    """A provider that sends us elsewhere: never followed, since the key and the prompt would go along.

    Its endpoint is set wrongly, for every job alike, so it is told apart by its code and the next provider is asked.
    """
    try:
        host = urlsplit(location or "").hostname
    except ValueError:
        host = None
    where = redact(host[:MAX_WORD_CHARS]) if host else "another path" if location else "nowhere"
    mend = "which is never followed: set the provider's endpoint to the address it should have."
    return ModelRefusedError(
        f"{provider} answered {status}, a redirect to {where}, {mend}",
        brief=f"{provider} answered {status}, a redirect, {mend}",
        code="redirect_refused",
    )


def request_id(headers: Mapping[str, str], key: str | None = None) -> str | None:
    """The id that the provider gave the call, for its support to find it by. `key` as for `classify`."""
    found = headers.get("x-request-id") or headers.get("request-id")
    return _hidden(found, key)[:MAX_WORD_CHARS] if found and found.isprintable() else None


def message_of(body: bytes, key: str | None) -> str:
    """The error message of a body, fit to be shown to the job's owner; empty where it holds none. `key` as for `classify`."""
    try:
        return _shown(_worded(msgspec.json.decode(body)).message, key)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def _by_code(code: str | None) -> type[ProviderError] | None:
    if code is None:
        return None
    code = code.lower()
    if code in BY_CODE:
        return BY_CODE[code]
    return next(
        (kind for ending, kind in BY_CODE.items() if ending[0] == "*" and code.endswith(ending[1:])), None
    )


def _misses_the_model(said: _Said) -> bool:
    """Of a 404: else the path is wrong, or the server lacks the endpoint (a chat model asked for a plain completion)."""
    names = {name.lower() for name in (said.code, said.type) if name}
    return not MISSING.isdisjoint(names) and _OF_A_MODEL.search(said.message) is not None


def _by_status(status: int) -> type[ProviderError]:
    return BY_STATUS.get(status) or BY_HUNDRED.get(status // 100, ProviderFailedError)


def _envelope(said: _Said, text: str, code: str | None, kind: type[ProviderError]) -> dict[str, Any]:
    error = {"message": text, "type": said.type or kind.type, "param": said.param, "code": code}
    return {"error": error}


def _said(body: bytes, key: str | None) -> _Said:
    """What the body says, fit to be shown to the job's owner; one that is no JSON gives its first characters."""
    try:
        raw = _worded(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = " ".join(body.decode("utf-8", "replace").split())
        return _Said(message=_shown(text, key)[:MAX_PLAIN_CHARS])
    names = (_shown_name(name, key) for name in (raw.type, raw.param, raw.code))
    return _Said(_shown(raw.message, key), *names)


def _worded(found: Any) -> _Said:
    """From OpenAI's envelope and the forms that others make of it, as it came."""
    if isinstance(found, list) and found:  # Gemini's habit
        found = found[0]
    inner = found.get("error") or found if isinstance(found, dict) else found
    if isinstance(inner, str):
        return _Said(message=inner)
    if not isinstance(inner, dict):
        return _Said()
    details = inner.get("details")
    if isinstance(details, dict) and "error_code" in details:  # Anthropic's stable code
        inner = {**inner, "code": details["error_code"]}
    message, status = inner.get("message"), inner.get("status")
    return _Said(
        message if isinstance(message, str) else "",
        _word(inner.get("type"))
        or (_word(status) if isinstance(status, str) else None),  # Gemini's name for it
        _word(inner.get("param")),
        _word(inner.get("code")),
    )


def _word(value: Any) -> str | None:
    """A name of the envelope. vLLM's codes are numbers."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) or None


def _shown_name(name: str | None, key: str | None) -> str | None:
    """Short, and no place for a secret either."""
    return None if name is None else redact(_hidden(name, key)[: 2 * MAX_WORD_CHARS])[:MAX_WORD_CHARS]


def _shown(message: str, key: str | None) -> str:
    """Redacted and bounded, in this order over a margin, so that no secret is cut in two and survives."""
    return redact(_hidden(message, key)[: 2 * MAX_MESSAGE_CHARS])[:MAX_MESSAGE_CHARS]


def _hidden(text: str, key: str | None) -> str:
    """Without the API key, of whatever form it is."""
    return text.replace(key, KEY) if key and len(key) >= MIN_KEY_CHARS else text


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds the provider asks to wait: the first sensible one of milliseconds, seconds and a date; else None.

    A number that can only be a Unix time is taken for one. `now` as for `rest_s`.
    """
    now = time_there(headers, now)
    for name, unit_s in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        raw = headers.get(name)
        if raw is not None and (found := _sensible(meant_s(_number(raw), now, unit_s))) is not None:
            return found
    return _sensible(http_date(headers.get("retry-after") or "") - now)


def _number(raw: str) -> float:
    try:
        return float(raw)
    except ValueError:
        return math.nan


def _sensible(seconds: float) -> float | None:
    return min(seconds, MAX_RETRY_AFTER_S) if math.isfinite(seconds) and seconds > 0 else None
