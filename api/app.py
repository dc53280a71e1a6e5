"""The composition root of the API: every part is made here, once. It never calls a provider and never imports the workers."""

import importlib.metadata
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from fastapi import APIRouter, FastAPI

from api import problems
from api.admission import OPEN, by_key, from_anywhere, from_this_machine
from api.broker_watch import BrokerWatch, of_its_own
from api.crew import Crew
from api.desk import Desk
from api.guard import Guard
from api.keyring import load_keyring
from api.metrics import Metrics
from api.parts import Parts
from api.presence import Presence
from api.replicas import Replicas
from api.routes import batches, completions, files, health, jobs, metrics, models, providers, quota, workers
from shared.broker import make_sender, process_id
from shared.config import LOOPBACK, Settings
from shared.fleet_file import FleetFile
from shared.fleet_watch import FleetWatch
from shared.housekeeper import Housekeeper, Stores
from shared.redis_client import connect
from shared.redis_files import RedisFiles
from shared.redis_gate import RedisGate
from shared.redis_idempotency import RedisIdempotency
from shared.redis_ledger import RedisLedger
from shared.redis_lone import RedisLone
from shared.redis_replicas import RedisReplicas
from shared.redis_replies import RedisReplies
from shared.redis_room import room_reader
from shared.redis_roster import RedisRoster
from shared.room_watch import API_AGE_S, RoomWatch

_ABOUT = (
    "Submit LLM completions, one or fifty thousand, over OpenAI's own wire. Point the `base_url` of any OpenAI SDK at"
    " `/v1`."
)


def make_parts(settings: Settings) -> Parts:
    """Raises ConfigError where there is no usable providers file, or a key that is none."""
    keyring = load_keyring(settings)
    fleet = FleetFile.of(settings)
    client = connect(settings.redis, role="api")
    prefix, name = settings.key_prefix, process_id()
    stores = Stores(RedisLedger(client, prefix), RedisLone(client, prefix), RedisFiles(client, prefix))
    hints = make_sender(settings)
    reader = room_reader(client, prefix, least_answer_bytes=settings.answer_bytes)
    room = RoomWatch(reader, API_AGE_S)
    desk = Desk(stores.lone, hints, name, room)
    presence = Presence(RedisRoster(client, prefix), name, lambda: fleet.state)
    broker = BrokerWatch(hints.answers if of_its_own(settings) else None)
    crew = Crew(lambda: len(stores.ledger.workers()), lambda: broker.away, desk.tell_unbegun)

    def tick(anew: bool) -> None:  # noqa: FBT001  RedisReplies' signature
        desk.tick(anew)
        presence.tick()
        crew.tick()

    return Parts(
        settings=settings,
        keyring=keyring,
        metrics=Metrics(),
        ledger=stores.ledger,
        lone=stores.lone,
        gate=RedisGate(client, prefix),
        files=stores.files,
        room=room,
        idempotency=RedisIdempotency(client, prefix),
        desk=desk,
        crew=crew,
        replicas=Replicas(_replicas(settings)),
        broker=broker,
        replies=RedisReplies.of(client, prefix, name, heard=desk.heard, tick=tick),
        fleet=fleet,
        watch=FleetWatch(fleet),
        presence=presence,
        housekeeper=Housekeeper(stores, hints, settings, lambda: fleet.current, name, room),
        version=importlib.metadata.version("llm-edge-agent"),
    )


def _replicas(settings: Settings) -> RedisReplicas | None:
    count, within_s = settings.wait_replicas, settings.wait_replicas_s
    if not count:
        return None
    client = connect(settings.redis, role="api", max_connections=2, patience_s=within_s)
    return RedisReplicas(client, settings.key_prefix, replicas=count, within_s=within_s)


class _App(FastAPI):
    """FastAPI whose OpenAPI document says that all but the open paths ask for a key: `/docs` then offers to enter one."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            found = super().openapi()
            schemes = found.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes["key"] = {"type": "http", "scheme": "bearer"}
            for path, operations in found["paths"].items():
                for operation in operations.values():
                    operation["security"] = [] if path in OPEN else [{"key": []}]
        return super().openapi()


def make_app(parts: Parts, beside: AbstractAsyncContextManager[object] = nullcontext()) -> FastAPI:  # noqa: B008  it holds nothing
    """The public API; `beside` lives as long as it does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with beside:
            parts.watch.start()
            parts.broker.start()
            parts.housekeeper.start()
            parts.desk.start()
            parts.replicas.start()
            parts.replies.start()
            yield
            parts.replies.stop()
            parts.presence.leave()
            parts.replicas.stop()
            parts.desk.stop()
            parts.housekeeper.stop()
            parts.broker.stop()
            parts.watch.stop()

    kind = _App if parts.keyring else FastAPI
    app = kind(
        title="LLM Edge Agent", version=parts.version, description=_ABOUT, lifespan=lifespan, redoc_url=None
    )
    app.state.parts = parts
    problems.install(app)
    served = [completions, jobs, files, batches, models, providers, workers, quota, health]
    if parts.settings.metrics_host is None:
        served.append(metrics)
    _serve(app, [module.router for module in served])
    app.add_middleware(Guard, admit=by_key(parts.keyring) if parts.keyring else from_this_machine)
    return app


def _serve(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """In this order, the busiest first; `include_router` would look for each request's route twice, at a tenth of its cost."""
    for router in routers:
        app.router.routes.extend(router.routes)


def make_internal_app(parts: Parts) -> FastAPI:
    """What METRICS_HOST serves: health and metrics, with nothing kept from whoever may connect to it."""
    app = FastAPI(title="LLM Edge Agent, internal", version=parts.version, openapi_url=None)
    app.state.parts = parts
    problems.install(app)
    _serve(app, [health.router, metrics.router])
    loopback = parts.settings.metrics_host in LOOPBACK
    app.add_middleware(Guard, admit=from_this_machine if loopback else from_anywhere)
    return app
