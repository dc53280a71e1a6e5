"""Creating once: what carries a key is made by the first request that brings it, and found by all the others.

The script that makes a thing looks its key up and writes it down in the same step. So there is no reservation to hold, to
renew or to lose: a crash leaves either nothing, and the next request makes the thing, or the thing under its key, and
the next request finds it; and what was refused pins nothing. A key keeps no answer either: the first answer is
told again from the thing, as it was when it was made.

Rules after the IETF's draft-ietf-httpapi-idempotency-key-header, and Stripe's keys.
"""

from typing import NoReturn, Protocol

import msgspec

from shared.errors import GoneError, KeyReusedError

REPEATED_S = 900
"""For this long a create without a key is known again when an SDK says that it repeats it."""


class Once(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a creation happen once: the owner's key, by a `name` of bounded form, and the request's fingerprint.

    `anew`: make it whatever the key has made before; from then on the key stands for the new thing.
    """

    owner: str
    name: str
    fingerprint: str
    keep_s: int
    anew: bool = False


class Kept(msgspec.Struct, frozen=True):
    """What is written down under a key: the fingerprint of the request that made a thing, and the thing's id."""

    fingerprint: str
    id: str


def earlier(kept: Kept | None, once: Once) -> str | None:
    """The id of what this request has made before; None where it is to be made now. Raises KeyReusedError.

    `earlier` in `lua/_common.lua` is the same rule, for the scripts that make things.
    """
    if kept is None or once.anew:
        return None
    if kept.fingerprint != once.fingerprint:
        raise KeyReusedError
    return kept.id


def gone(made: str) -> NoReturn:
    """Raises GoneError about the thing of this id."""
    raise GoneError(
        f"'{made}', which this Idempotency-Key has made, is not there any more: it was deleted, or is past its retention."
        " Send a new key to make another."
    )


class Idempotency(Protocol):
    """The keys, as one may look at them before there is anything to make. Those that make things write them down."""

    def find(self, owner: str, name: str) -> Kept | None: ...
