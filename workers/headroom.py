"""What a provider's headers tell of its own rate limits, and for how long they leave nothing. Pure.

OpenAI's form, and Groq's: `x-ratelimit-remaining-requests: 0` with `x-ratelimit-reset-requests: 6m0s`; Azure gives a bare
number of seconds. Anthropic's: `anthropic-ratelimit-tokens-remaining: 0` with an RFC 3339 time, which is by the provider's
clock: so is what it counts from. vLLM sends nothing of the kind. OpenRouter's `x-ratelimit-remaining` is not read: it may be of the free models alone.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_REST_S = 86_400.0

_ANTHROPIC = ("requests", "tokens", "input-tokens", "output-tokens")
_PAIRS = (
    *((f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}") for what in ("requests", "tokens")),
    *((f"anthropic-ratelimit-{what}-remaining", f"anthropic-ratelimit-{what}-reset") for what in _ANTHROPIC),
)
_UNIX_S, _UNIX_MS = 1e9, 1e12
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)


def rest_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until what is used up is there again; None where something is left, or nothing sensible is said. Names in lower case.

    `now`: our own time, for an answer that does not tell the provider's.
    """
    used_up = [
        reset
        for remaining, reset in _PAIRS
        if (left := headers.get(remaining)) is not None and _is_none(left)
    ]
    if not used_up:
        return None
    there = time_there(headers, now)
    waits = (_seconds_to(headers.get(reset) or "", there) for reset in used_up)
    return max((wait for wait in waits if wait is not None), default=None)


def time_there(headers: Mapping[str, str], now: float) -> float:
    """The provider's time when it answered, by its `Date` (RFC 9110, 6.6.1); else ours. The times it names are by that clock."""
    found = http_date(headers.get("date") or "")
    return found if math.isfinite(found) else now


def http_date(raw: str) -> float:
    """In Unix seconds; NaN where it is none."""
    try:
        found = parsedate_to_datetime(raw)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return math.nan


def _is_none(left: str) -> bool:
    try:
        return float(left) <= 0
    except ValueError:
        return False


def _seconds_to(reset: str, now: float) -> float | None:
    for read in (_duration_s, lambda text: meant_s(_number(text), now), lambda text: _time(text) - now):
        seconds = read(reset.strip())
        if math.isfinite(seconds):
            return min(seconds, MAX_REST_S) if seconds > 0 else None
    return None


def _duration_s(text: str) -> float:
    """Go's form: `1s`, `6m0s`, `120ms`, `1h2m3.5s`."""
    if not _DURATION.fullmatch(text):
        return math.nan
    return sum(float(n) * _UNITS_S[unit] for n, unit in _PART.findall(text))


def meant_s(number: float, now: float, unit_s: float = 1.0) -> float:
    """Seconds that a bare number means: so many units; above 1e9, some thirty years, the time until then (Unix, in seconds or milliseconds)."""
    if number > _UNIX_MS:
        return number / 1000 - now
    return number - now if number > _UNIX_S else number * unit_s


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _time(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan
