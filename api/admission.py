"""Whether a request may come in, decided from its path and headers alone, before its body is read. Pure.

With keys: by the key; what is not listed in OPEN needs one. Without keys everybody on this machine is the one owner, and
the check of `Host` and `Origin` keeps a web page from reaching a server on loopback through the visitor's browser (DNS
rebinding, cross-site requests). Keys need no such check: a browser does not add them by itself.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from api.keyring import DEFAULT_OWNER, Caller, Keyring
from shared.config import LOOPBACK
from shared.errors import NotAllowedError, UnknownKeyError

OPEN = frozenset({"/health", "/health/ready", "/metrics", "/docs", "/openapi.json"})
"""Served without a key. `/health/ready` tells strangers less, and `/metrics` asks for a token of its own."""

Admit = Callable[[str, Headers], Caller | None]
"""From path and headers to who calls, None being a stranger on an open path. Raises EdgeError for what is refused."""

ONLY = Caller(DEFAULT_OWNER, admin=True)


def by_key(keyring: Keyring) -> Admit:
    def admit(path: str, headers: Headers) -> Caller | None:
        key = presented(headers)
        caller = keyring.caller_of(key)
        if caller is None and path not in OPEN:
            raise UnknownKeyError(
                "This API key is not known here."
                if key
                else "No API key was given: send one as `Authorization: Bearer KEY`, or as `x-api-key: KEY`."
            )
        return caller

    return admit


def presented(headers: Headers) -> str:
    """The key that a request carries: OpenAI's SDKs send `Authorization: Bearer`, Anthropic's `x-api-key`."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    bearer = key.strip() if scheme.lower() == "bearer" else ""
    return bearer or headers.get("x-api-key", "").strip()


def from_this_machine(_path: str, headers: Headers) -> Caller:
    reason = refused_reason(headers)
    if reason is not None:
        raise NotAllowedError(f"Refused: {reason}.", code="host_not_allowed")
    return ONLY


def from_anywhere(_path: str, _headers: Headers) -> Caller:
    """For an address of which only those who may look at everything can reach anything."""
    return ONLY


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
