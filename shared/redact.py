"""Takes secrets and personal data out of text before it is logged or shown. Pure; always on.

Patterns have false positives: what this project writes itself (ids, timestamps, counts, durations) must pass unharmed,
and the tests hold it to that.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

EMAIL = "[EMAIL_REDACTED]"
CARD = "[CREDIT_CARD_REDACTED]"
SSN = "[SSN_REDACTED]"
PHONE = "[PHONE_REDACTED]"
KEY = "[API_KEY_REDACTED]"
TOKEN = "[TOKEN_REDACTED]"  # noqa: S105  the mark that stands in a token's place
IP = "[IP_REDACTED]"

_EMAIL = re.compile(r"[A-Za-z0-9._%+'-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+([A-Za-z0-9._~+/=-]{6,4096})")
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@]{0,128}):([^\s/@]{1,256})@")
_KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[A-Za-z0-9_-]{8,256}|(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{8,128}|AIza[A-Za-z0-9_-]{20,64}"
    r"|gsk_[A-Za-z0-9]{16,128}|hf_[A-Za-z0-9]{16,64}|xai-[A-Za-z0-9_-]{16,128}|r8_[A-Za-z0-9]{16,64}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255}|xox[abprs]-[A-Za-z0-9-]{10,255}"
    r"|le-[A-Za-z0-9_-]{40,64}|whsec_[A-Za-z0-9+/=]{16,128}|eyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,1024}"
    r")"
)
_NAMED = re.compile(
    r"(?i)\b((?:x-)?api[_-]?key|secret|password|passwd|access[_-]?token|auth[_-]?token|client[_-]?secret)"
    r"(\"?\s{0,3}[:=]\s{0,3}\"?)([^\s\"',;&}]{4,512})"
)
_SSN = re.compile(r"(?<![\w.-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_CARD = re.compile(r"(?<![\w.:-])\d(?:[ -]?\d){12,18}(?![\w:-])(?!\.\d)")
_PHONE = re.compile(
    r"(?<![\w.:/-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"
    r"|\(\d{3}\)[ .-]?\d{3}[ .-]\d{4}|\d{3}[ .-]\d{3}[ .-]\d{4})(?![\w:-])(?!\.\d)"
)
_IPV4 = re.compile(r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w.])")
_IPV6 = re.compile(
    r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4})?(?![\w:])|(?<![\w:])::1(?![\w:])"
)

_SECRET_NAMES = re.compile(
    r"(?i)^(?:.*[_-])?(?:api[_-]?keys?|authorization|proxy-authorization|password|passwd|secret|access[_-]?token"
    r"|auth[_-]?token|refresh[_-]?token|token|cookie|set-cookie|credentials?)$"
)
_DIGITS = re.compile(r"\d")
_MAX_DEPTH = 8


def redact(text: str, *, ip: bool = False) -> str:
    """`text` with what must not be seen replaced by a mark of its kind. Redacting twice changes nothing more."""
    if "@" in text:
        text = _URL_PASSWORD.sub(rf"\1:{KEY}@", text)
        text = _EMAIL.sub(EMAIL, text)
    if " " in text or ":" in text or "=" in text:
        text = _BEARER.sub(_bearer, text)
        text = _NAMED.sub(_named, text)
    if "_" in text or "-" in text or "." in text or "A" in text:
        text = _KEYS.sub(KEY, text)
    if sum(1 for _ in zip(range(9), _DIGITS.finditer(text), strict=False)) >= 9:  # noqa: PLR2004  the shortest number that matters
        text = _CARD.sub(_card, text)
        text = _SSN.sub(SSN, text)
        text = _PHONE.sub(PHONE, text)
    if ip:
        text = _IPV6.sub(IP, _IPV4.sub(IP, text))
    return text


def _bearer(found: re.Match[str]) -> str:
    return found[0] if found[2].startswith("[") else f"{found[1]} {TOKEN}"


def _named(found: re.Match[str]) -> str:
    return found[0] if found[3].startswith("[") else f"{found[1]}{found[2]}{KEY}"


def _card(found: re.Match[str]) -> str:
    digits = [int(c) for c in found[0] if c.isdigit()]
    return CARD if _luhn(digits) else found[0]


def _luhn(digits: list[int]) -> bool:
    """The check digit rule of payment cards (ISO/IEC 7812-1)."""
    doubled = (d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits)))  # noqa: PLR2004
    return sum(doubled) % 10 == 0 and any(digits)


def redact_value(  # noqa: PLR0911  a case a type
    value: Any, *, ip: bool = False, shorten: Callable[[str], str] = str, depth: int = 0
) -> Any:
    """Any value for the log, redacted to its depths; strings pass through `shorten` afterwards."""
    if isinstance(value, str):
        return shorten(redact(value, ip=ip))
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= _MAX_DEPTH:
        return "..."
    if isinstance(value, bytes | bytearray):
        return shorten(redact(value.decode("utf-8", "replace"), ip=ip))
    if isinstance(value, Mapping):
        return {
            redact(str(name), ip=ip): KEY
            if value_of is not None and is_secret_name(str(name))
            else redact_value(value_of, ip=ip, shorten=shorten, depth=depth + 1)
            for name, value_of in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_value(item, ip=ip, shorten=shorten, depth=depth + 1) for item in value]
    return shorten(redact(str(value), ip=ip))


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret: `api_key`, `authorization`, `token`; not `total_tokens`."""
    return _SECRET_NAMES.match(name) is not None
