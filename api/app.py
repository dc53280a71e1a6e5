"""The composition root of the API: every part is made here, once. It never calls a provider and never imports the workers."""

import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api import problems
from api.desk import Desk
from api.guard import Guard
from api.parts import Parts
from api.routes import batches, completions, files, health, jobs, models
from shared.broker import make_sender, process_id
from shared.catalogue import load_fleet
from shared.config import Settings
from shared.housekeeper import Housekeeper, Stores
from shared.redis_client import connect
from shared.redis_files import RedisFiles
from shared.redis_idempotency import RedisIdempotency
from shared.redis_ledger import RedisLedger
from shared.redis_lone import RedisLone
from shared.redis_replies import RedisReplies

_ABOUT = (
    "Submit LLM completions, one or fifty thousand, over OpenAI's own wire. Point the `base_url` of any OpenAI SDK at"
    " `/v1`."
)


def make_parts(settings: Settings) -> Parts:
    """Raises ConfigError where there is no usable providers file."""
    catalogue = load_fleet(settings)
    client = connect(settings.redis_url, role="api")
    prefix, name = settings.key_prefix, process_id()
    stores = Stores(RedisLedger(client, prefix), RedisLone(client, prefix), RedisFiles(client, prefix))
    hints = make_sender(settings)
    desk = Desk(stores.lone, hints, name)
    return Parts(
        settings=settings,
        ledger=stores.ledger,
        lone=stores.lone,
        files=stores.files,
        idempotency=RedisIdempotency(client, prefix),
        desk=desk,
        replies=RedisReplies.of(client, prefix, name, heard=desk.heard, tick=desk.tick),
        catalogue=catalogue,
        housekeeper=Housekeeper(stores, hints, settings, lambda: catalogue, name),
        version=importlib.metadata.version("llm-edge-agent"),
    )


def make_app(parts: Parts) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        parts.housekeeper.start()
        parts.desk.start()
        parts.replies.start()
        yield
        parts.replies.stop()
        parts.desk.stop()
        parts.housekeeper.stop()

    app = FastAPI(
        title="LLM Edge Agent", version=parts.version, description=_ABOUT, lifespan=lifespan, redoc_url=None
    )
    app.state.parts = parts
    problems.install(app)
    for module in (files, batches, completions, jobs, models, health):
        app.include_router(module.router)
    app.add_middleware(Guard)
    return app
