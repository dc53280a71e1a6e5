"""What the routes need, made once by the composition root and handed to them."""

from typing import Annotated

import msgspec
from fastapi import Depends, Request

from api.broker_watch import BrokerWatch
from api.crew import Crew
from api.desk import Desk
from api.keyring import Keyring
from api.metrics import Metrics
from api.presence import Presence
from api.replicas import Replicas
from shared.catalogue import Catalogue
from shared.config import Settings
from shared.files import Files
from shared.fleet_file import FleetFile
from shared.fleet_watch import FleetWatch
from shared.gate import Gate
from shared.housekeeper import Housekeeper
from shared.idempotency import Idempotency
from shared.ledger import Ledger
from shared.lone import LoneJobs
from shared.redis_replies import RedisReplies
from shared.room_watch import RoomWatch


class Parts(msgspec.Struct, frozen=True):
    settings: Settings
    keyring: Keyring
    metrics: Metrics
    ledger: Ledger
    lone: LoneJobs
    gate: Gate
    files: Files
    room: RoomWatch
    idempotency: Idempotency
    desk: Desk
    crew: Crew
    replicas: Replicas
    broker: BrokerWatch
    replies: RedisReplies
    fleet: FleetFile
    watch: FleetWatch
    presence: Presence
    housekeeper: Housekeeper
    version: str

    @property
    def catalogue(self) -> Catalogue:
        """As it is in force now: take it once where it has to agree with itself."""
        return self.fleet.current


async def parts_of(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts)  # noqa: S101  set by the composition root
    return parts


FromApp = Annotated[Parts, Depends(parts_of)]
