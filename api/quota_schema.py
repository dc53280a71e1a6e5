"""The HTTP face of an owner's quota."""

from typing import Literal

from pydantic import BaseModel

from shared.catalogue import Quota
from shared.money import format_usd, from_nanos


class QuotaObject(BaseModel):
    """US dollars as decimal strings. Without a quota `max_cost`, `per`, `spent` and `left` are null."""

    object: Literal["quota"] = "quota"
    owner: str
    max_cost: str | None = None
    per: Literal["day", "month", "total"] | None = None
    spent: str | None = None
    left: str | None = None

    @classmethod
    def of(cls, owner: str, quota: Quota | None, spent_nanos: int) -> "QuotaObject":
        if quota is None:
            return cls(owner=owner)
        spent = from_nanos(spent_nanos)
        return cls(
            owner=owner,
            max_cost=format_usd(quota.max_cost),
            per=quota.per,
            spent=format_usd(spent),
            left=format_usd(max(quota.max_cost - spent, quota.max_cost * 0)),
        )
