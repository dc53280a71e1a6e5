"""The HTTP side of creating once: the `Idempotency-Key` header, what counts as the same request, and how a replay shows.

Its form is free, unlike the IETF draft's quoted string, as Stripe's is: 1 to 255 printable ASCII characters, taken as they stand.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import Request

from api.parts import Parts
from shared.errors import RequestError
from shared.files import Files
from shared.idempotency import REPEATED_S, Once, earlier

REPLAYED = {"idempotent-replayed": "true"}
"""Stands with an answer whose thing an earlier request has made."""

PARAMETER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "description": "Requests with the same key and the same content make one thing and get the same answer, for 24 hours by default.",
}

_HEADER = "idempotency-key"
_MOST = 255


def name_of(request: Request) -> str | None:
    """The name under which the request's key is kept; None where it has none. Raises RequestError for a faulty one."""
    keys = request.headers.getlist(_HEADER)
    if not keys:
        return None
    key = keys[0]
    if len(keys) > 1 or not 1 <= len(key) <= _MOST or not (key.isascii() and key.isprintable()):
        raise RequestError(
            f"The Idempotency-Key must be one value of 1 to {_MOST} printable ASCII characters, such as a UUID.",
            param="Idempotency-Key",
            code="invalid_idempotency_key",
        )
    return "k" + _digest(key.encode())


def fingerprint(request: Request, *content: bytes) -> str:
    """Names what was asked for: method, path and content."""
    return _digest(f"{request.method} {request.url.path}".encode(), *content)


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()[:32]


def canonical(body: bytes) -> bytes:
    """A JSON body with its keys in order, so that only its content counts; anything else as it is."""
    try:
        return msgspec.json.encode(msgspec.json.decode(body), order="sorted")
    except (msgspec.MsgspecError, OverflowError, RecursionError):
        return body


def once_of(request: Request, owner: str, body: bytes, keep_s: int) -> Once | None:
    """The creation that a request with a JSON body asks for; None where it has no key. Its key is kept for `keep_s`."""
    name = name_of(request)
    if name is None:
        return None
    return Once(owner=owner, name=name, fingerprint=fingerprint(request, canonical(body)), keep_s=keep_s)


def once_or_repeated(request: Request, owner: str, body: bytes, keep_s: int) -> Once:
    """As `once_of`. Without a key the body stands for it, but only where the SDK says that it repeats itself."""
    once = once_of(request, owner, body, keep_s)
    if once is not None:
        return once
    print_ = fingerprint(request, canonical(body))
    return Once(
        owner=owner, name=f"r{print_}", fingerprint=print_, keep_s=REPEATED_S, anew=not repeated(request)
    )


def repeated(request: Request) -> bool:
    """Whether the SDK says that it has sent this request before."""
    return request.headers.get("x-stainless-retry-count", "0") != "0"


def find(parts: Parts, once: Once) -> str | None:
    """The id of what was made before. Raises KeyReusedError."""
    return None if once.anew else earlier(parts.idempotency.find(once.owner, once.name), once)


class Hashing:
    """Takes an upload's chunks as a file store does and hashes them; they are stored where there is a store."""

    def __init__(self, files: Files | None) -> None:
        self._files = files
        self._digest = hashlib.sha256()

    def put(self, file_id: str, first: int, chunks: Sequence[bytes]) -> None:
        for chunk in chunks:
            self._digest.update(chunk)
        if self._files is not None:
            self._files.put(file_id, first, chunks)

    def discard(self, file_id: str) -> None:
        if self._files is not None:
            self._files.discard(file_id)

    @property
    def digest(self) -> bytes:
        return self._digest.digest()
