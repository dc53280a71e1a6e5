"""The little of ASGI that the simulator uses, and the socket underneath it: calls may hang on it, or drop it."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.errors import TooLargeError

Message = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

EXTENSION = "simulator.connection"
MOST_BYTES = 64 * 1024 * 1024

_JSON = (b"content-type", b"application/json")


class Woken(Enum):
    """Why a wait ended."""

    TIME = "the time was up"
    GONE = "the connection is lost"
    CALLED = "somebody called"


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which a call can also wait on and drop. It serves one call at a time."""

    _waiting: "asyncio.Future[Woken] | None" = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][EXTENSION] = self

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.wake(Woken.GONE)

    async def wait(self, delay_s: float | None = None) -> Woken:
        """Until `delay_s` seconds have passed, the client has left or somebody calls `wake`."""
        if self.transport.is_closing():
            return Woken.GONE
        waiting: asyncio.Future[Woken] = self.loop.create_future()
        self._waiting = waiting
        timer = None if delay_s is None else self.loop.call_later(delay_s, self.wake, Woken.TIME)
        try:
            return await waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    def wake(self, why: Woken = Woken.CALLED) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(why)

    def drop(self) -> None:
        """Close the socket at once, whatever is owed on it."""
        self.transport.abort()

    @property
    def busy(self) -> bool:
        """Whether a request is still without its whole answer."""
        return self.cycle is not None and not self.cycle.response_complete


def connection_of(scope: Scope) -> Connection:
    found = scope["state"][EXTENSION]
    assert isinstance(found, Connection)  # noqa: S101  for the type checker: only Connection puts it there
    return found


async def read_body(receive: Receive) -> bytes | None:
    """The whole body; None where the client left before its end. Raises TooLargeError."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body: bytes = message["body"]
        if not parts and not message["more_body"]:
            return body
        parts.append(body)
        size += len(body)
        if size > MOST_BYTES:
            raise TooLargeError(f"The body is larger than {MOST_BYTES} bytes.")
        if not message["more_body"]:
            return b"".join(parts)


async def send_json(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
    await send({"type": "http.response.body", "body": body})
