"""What the routes need, made once by the composition root and handed to them."""

from typing import Annotated

import msgspec
from fastapi import Depends, Request

from shared.config import Settings
from shared.files import Files
from shared.housekeeper import Housekeeper
from shared.ledger import Ledger

OWNER = "default"
"""Everything belongs to one owner as long as there are no API keys."""


class Parts(msgspec.Struct, frozen=True):
    settings: Settings
    ledger: Ledger
    files: Files
    housekeeper: Housekeeper
    version: str


def parts_of(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts)  # noqa: S101  set by the composition root
    return parts


FromApp = Annotated[Parts, Depends(parts_of)]
