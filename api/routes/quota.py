"""What the caller may still spend."""

import time

from fastapi import APIRouter

from api.caller import CallerOf
from api.parts import FromApp
from api.quota_schema import QuotaObject
from api.schema import ERRORS
from shared.spending import owner_purse, quota_of

router = APIRouter(prefix="/v1/quota", tags=["Quota"], responses=ERRORS)


@router.get("")
def retrieve_quota(parts: FromApp, caller: CallerOf) -> QuotaObject:
    """The caller's ceiling in the providers file, and what is spent of it, calls under way at the most they can cost included."""
    owners = parts.catalogue.owners
    purse = owner_purse(caller.owner, owners, time.time())
    spent = 0.0 if purse is None else parts.gate.taken([("money", purse.scope)])[1][0]
    return QuotaObject.of(caller.owner, quota_of(caller.owner, owners), int(spent))
