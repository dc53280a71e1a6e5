"""Runs the API: one uvicorn process, and within it, where METRICS_HOST is set, a second listener for health and metrics."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress

import uvicorn
from fastapi import FastAPI

from api.app import make_app, make_internal_app, make_parts
from api.listen import listen
from api.parts import Parts
from api.up.ready import url_of
from shared.config import Settings
from shared.errors import ConfigError
from shared.logs import configure_logging, get_logger
from shared.redis_access import check_access

GRACE_S = 20
_INTERNAL_GRACE_S = 2

_log = get_logger(__name__)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError: providers or keys that are none, an address that cannot be had, no way into Redis."""
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
    server = uvicorn.Server(_config(make_app(parts, beside), GRACE_S))
    parts.metrics.watch_connections(lambda: len(server.server_state.connections))
    with suppress(KeyboardInterrupt):
        server.run(sockets)
    if not server.started:
        sys.exit(3)  # as uvicorn itself does; the log has the reason


def _internal_sockets(settings: Settings) -> list[socket.socket]:
    if settings.metrics_host is None:
        return []
    return listen(settings.metrics_host, settings.metrics_port, "METRICS")


def _addresses(sockets: list[socket.socket]) -> list[str]:
    return [url_of(*sock.getsockname()[:2]) for sock in sockets]


def _config(app: FastAPI, grace_s: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks where a request came from
        timeout_graceful_shutdown=grace_s,
    )


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
