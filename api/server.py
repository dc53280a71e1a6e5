"""Runs the API: one uvicorn process, and within it, where METRICS_HOST is set, a second listener for health and metrics.

SIGTERM or SIGINT stops it: no new connections; requests under way have LLM_EDGE_API_GRACE_S seconds to end, then they are
answered 503; exit code 0. A second SIGINT ends the grace time at once.
"""

import asyncio
import math
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from types import FrameType

import uvicorn
from fastapi import FastAPI

from api import arenas
from api.app import make_app, make_internal_app, make_parts
from api.listen import listen
from api.parts import Parts
from api.up.ready import url_of
from api.upload import LINGER_S
from shared.config import Settings
from shared.errors import ConfigError
from shared.logs import configure_logging, get_logger
from shared.redis_access import check_access

_LAST_S = LINGER_S + 1.0
"""For the answers to requests that are cut off, and for clients slow to read theirs."""

_INTERNAL_GRACE_S = 2.0

_log = get_logger(__name__)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError: providers or keys that are none, an address that cannot be had, no way into Redis."""
    arenas.keep_few()  # before there are threads
    parts = make_parts(settings)
    if not (parts.keyring or settings.loopback_only):
        raise ConfigError(
            [
                (
                    f"SERVER_HOST={settings.server_host}: without API keys the server listens on loopback only; use"
                    " SERVER_HOST=127.0.0.1, or make a key with `llm-edge keys new OWNER` and set LLM_EDGE_API_KEYS"
                )
            ]
        )
    sockets = listen(settings.server_host, settings.server_port, "SERVER")
    internal = _internal_sockets(settings)
    configure_logging(settings, part="api")
    check_access(settings, "api")
    _log.info(
        "listening", api=_addresses(sockets), internal=_addresses(internal), keys=len(parts.keyring.entries)
    )
    beside = _internal(parts, internal) if internal else nullcontext()
    server = _Server(make_app(parts, beside), settings.api_grace_s)
    parts.metrics.watch_connections(lambda: len(server.server_state.connections))
    server.run(sockets)
    if not server.started:
        sys.exit(3)  # as uvicorn itself does; the log has the reason


def _internal_sockets(settings: Settings) -> list[socket.socket]:
    if settings.metrics_host is None:
        return []
    return listen(settings.metrics_host, settings.metrics_port, "METRICS")


def _addresses(sockets: list[socket.socket]) -> list[str]:
    return [url_of(*sock.getsockname()[:2]) for sock in sockets]


def _config(app: FastAPI, grace_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks where a request came from
        timeout_graceful_shutdown=math.ceil(grace_s),
    )


class _Server(uvicorn.Server):
    """uvicorn, but what is under way at the end of the grace time is told so (`api.guard`), and the exit code is 0."""

    def __init__(self, app: FastAPI, grace_s: float) -> None:
        super().__init__(_config(app, grace_s + _LAST_S))
        self._grace_s = grace_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _log.info("stopping", requests=len(self.server_state.tasks), grace_s=self._grace_s)
        over = asyncio.get_running_loop().call_later(self._grace_s, self._cut_off)
        try:
            await super().shutdown(sockets)
        finally:
            over.cancel()

    def _cut_off(self) -> None:
        under_way = tuple(self.server_state.tasks)
        if under_way:
            _log.warning("cut_off", requests=len(under_way))
        for task in under_way:
            task.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Without what uvicorn does besides: it raises the signal again at the end, so that no stop looks orderly."""
        del frame
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


class _Inner(uvicorn.Server):
    """A server in another one's event loop, which leaves the signals to that one."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _internal(parts: Parts, sockets: list[socket.socket]) -> AbstractAsyncContextManager[None]:
    """In the same event loop as the API, so that a health check that is answered says something about the API, too."""

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        server = _Inner(_config(make_internal_app(parts), _INTERNAL_GRACE_S))
        serving = asyncio.create_task(server.serve(sockets))
        try:
            yield
        finally:
            server.should_exit = True
            await serving

    return running()
