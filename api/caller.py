"""Who calls, as FastAPI's routes ask for it. `Guard` has admitted the request and noted its caller."""

from typing import Annotated

from fastapi import Depends, Request

from api.keyring import Caller
from shared.errors import NotAllowedError, UnknownKeyError


async def _anybody(request: Request) -> Caller | None:
    caller = getattr(request.state, "caller", None)
    assert caller is None or isinstance(caller, Caller)  # noqa: S101  set by the guard
    return caller


MaybeCaller = Annotated[Caller | None, Depends(_anybody)]
"""For routes that strangers may call: None is one."""


async def caller_of(request: Request) -> Caller:
    caller = await _anybody(request)
    if caller is None:
        raise UnknownKeyError("This needs an API key: send one as `Authorization: Bearer KEY`.")
    return caller


CallerOf = Annotated[Caller, Depends(caller_of)]
"""For routes of an owner's own things."""


async def _admin(caller: CallerOf) -> Caller:
    if not caller.admin:
        raise NotAllowedError(
            "This is about the fleet as a whole: it needs an API key for administration (`llm-edge keys new OWNER --admin`)."
        )
    return caller


AdminCaller = Annotated[Caller, Depends(_admin)]
"""For routes about the fleet: providers, workers, the shared cache, other owners' totals. Others are answered 403."""
