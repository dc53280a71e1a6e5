"""Limits of a whole fleet: requests and tokens a minute, calls at a time, money. The arithmetic, pure; `lua/_limits.lua` is the same.

Rates are token buckets in the form of GCRA (ITU-T I.371): one number a counter, the time at which it would be as if nothing
had been taken. A bucket holds one second's worth, and at least one request, so that in any W seconds at most
`ceiling x W / 60` and a bucket get through. A call that takes more than a bucket holds begins when it is full, and leaves a debt.
"""

from typing import Literal

import msgspec

Kind = Literal["rpm", "tpm", "concurrency", "money"]

SILENT_S = 10.0
"""A sender that has not been heard of for so long has no calls in flight any more: it is dead, or its calls are."""

BUSY_S = 0.2
BUSY_SPREAD_S = 0.3
"""Nobody knows when a call in flight ends: who was refused for their number asks again after so long."""

COUNTED: frozenset[Kind] = frozenset({"concurrency", "money"})
"""Calls in flight are counted under the scopes of these. Of money it matters whether some of it may come back."""

MONEY_KEPT_S = 400 * 86_400
"""What has been spent is forgotten when nobody has spent or asked under its scope for longer than this."""

ENDED_KEPT_S = 86_400
"""The same of a batch that has ended: a worker that was cut off may still ask, or tell what it spent."""


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """What one call takes: `amount` of the `ceiling` a minute (rpm, tpm), at a time (concurrency), or in all (money, in nano-dollars).

    Limits of the same `scope` and `kind` share one counter. An amount of tokens is an estimate, one of money the most that it
    can be; both are settled afterwards. Money is spent for good where the next call could exceed it with none in flight.
    """

    scope: str
    kind: Kind
    amount: float
    ceiling: float


Limits = tuple[Limit, ...]


def provider_scope(provider_id: str, model: str = "") -> str:
    """Where what is taken of a provider's own limits is counted, or of those of one of its models."""
    return f"p:{provider_id}|{model}" if model else f"p:{provider_id}"


def provider_in(scope: str) -> str | None:
    """Whose own limit's scope it is, or its model's; None for any other."""
    kind, _, name = scope.partition(":")
    return name.partition("|")[0] if kind == "p" else None


def limits_calls(limits: Limits | None) -> bool:
    return any(limit.kind == "concurrency" for limit in limits or ())


def bucket_s(ceiling: float) -> float:
    """What a bucket holds, as the time in which it fills."""
    return max(1.0, 60.0 / ceiling)


def counts_as(amount: float, limit: Limit) -> float:
    """Of a rate no call takes more than a minute's worth, whatever is asked for or was used: the others wait no longer for it."""
    return amount if limit.kind == "money" else min(amount, limit.ceiling)


def free_at(full_at: float, limit: Limit) -> float:
    """When the call may begin. `full_at`: when the bucket is full again."""
    bucket = bucket_s(limit.ceiling)
    return full_at + min(limit.amount * 60.0 / limit.ceiling, bucket) - bucket


def bucket_size(ceiling: float) -> float:
    """What a bucket holds: requests, or tokens."""
    return bucket_s(ceiling) * ceiling / 60.0


def not_back(full_at: float, ceiling: float, now: float) -> float:
    """What has been taken of the bucket and is not back yet: 0 where it is full, more than it holds where there is a debt."""
    return max(0.0, full_at - now) * ceiling / 60.0


def taken(full_at: float, amount: float, ceiling: float, now: float) -> float:
    """`full_at` after so much has been taken; given back, where it is negative."""
    start = full_at if amount < 0 else max(full_at, now)
    return start + amount * 60.0 / ceiling
