"""Runs the app: one uvicorn process that says where it listens and ends promptly, whatever hangs."""

import gc
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn

from shared.errors import ConfigError
from workers.simulator.app import App
from workers.simulator.asgi import Connection

_BACKLOG = 4096
_KEEP_ALIVE_S = 3600
"""A client that reuses an idle connection must never find it closed: that would be a fault nobody asked for."""
_GRACE_S = 1
"""For the few bytes of answers already given."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks a free one. Raises ConfigError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as exc:
        why = exc.strerror or str(exc)
        raise ConfigError(
            [f"cannot listen on {host}:{port}: {why}. Choose another --port; 0 picks a free one."]
        ) from exc


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: App, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._app = app
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drops the calls in flight: whoever stops a provider does not want to wait for it."""
        self._app.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection) and connection.busy:
                connection.drop()
        await super().shutdown(sockets=sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """An ordinary end: uvicorn would raise the signal again, and the process would not exit with 0."""
        del sig, frame
        self.should_exit = True


def serve(app: App, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; prints `listening URL` as soon as calls are accepted."""
    config = uvicorn.Config(
        app,
        http=Connection,
        loop="auto",  # uvloop, where there is one
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the control surface trusts the peer's address
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        backlog=_BACKLOG,
    )
    _Server(config, app, lambda: _say(f"listening {url_of(listener)}")).run(sockets=[listener])


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
