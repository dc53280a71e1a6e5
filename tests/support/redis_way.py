"""A way to Redis on which replies get lost: the command is carried out, and the connection breaks before its answer.

The other half of `lossy.py`, one layer further down.
"""

import hashlib
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from shared.scripts import source

Command = list[bytes]
_PIECE = 1 << 16


class RedisWay:
    """`lost` counts the replies that got lost."""

    def __init__(self, port: int) -> None:
        self._listens = port
        self._target = ("", 0)
        self._lock = threading.Lock()
        self._which: Callable[[Command], bool] = lambda _: False
        self._every = 1
        self._seen = 0
        self.lost = 0

    def to(self, url: str) -> str:
        """The URL that leads through here to the server at `url`. To be asked before anybody comes."""
        found = re.fullmatch(r"(redis://(?:[^@]*@)?)([^:/]+):(\d+)(/.*)?", url)
        assert found is not None, url
        self._target = (found[2], int(found[3]))
        return f"{found[1]}127.0.0.1:{self._listens}{found[4] or ''}"

    def lose(self, which: Callable[[Command], bool], *, every: int = 1) -> None:
        """From now on the reply to each `every`-th of these commands."""
        with self._lock:
            self._which, self._every, self._seen = which, every, 0

    def upstream(self) -> socket.socket:
        return socket.create_connection(self._target)

    def falls(self, command: Command) -> bool:
        with self._lock:
            if not self._which(command):
                return False
            self._seen += 1
            return self._seen % self._every == 0

    def fell(self) -> None:
        with self._lock:
            self.lost += 1


def script(name: str) -> Callable[[Command], bool]:
    """One of the ledger's scripts."""
    digest = hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest().encode()
    return lambda command: command[0].upper() == b"EVALSHA" and command[1] == digest


def publish(command: Command) -> bool:
    """A hint on its way to a queue."""
    return command[0].upper() == b"LPUSH" and command[1] in {b"batch", b"interactive"}


def _command(client: BinaryIO) -> tuple[bytes, Command]:
    """The next command as it came, and its words; nothing at the connection's end."""
    raw = client.readline()
    words: Command = []
    for _ in range(int(raw[1:] or b"0")):
        head = client.readline()
        word = client.read(int(head[1:] or b"0") + 2)
        raw += head + word
        words.append(word[:-2])
    return raw, words


class _Passage:
    """One connection: commands go up one by one, replies come down as they are."""

    def __init__(self, way: RedisWay, client: socket.socket) -> None:
        self._way = way
        self._client = client
        self._server = way.upstream()
        self._falls = False

    def run(self) -> None:
        down = threading.Thread(target=self._down, daemon=True)
        down.start()
        with suppress(OSError, ValueError), self._client.makefile("rb") as commands:
            while True:
                raw, words = _command(commands)
                if not words:
                    break
                self._falls = self._falls or self._way.falls(words)
                self._server.sendall(raw)
        self._cut()
        down.join()
        self._server.close()

    def _down(self) -> None:
        with suppress(OSError):
            while reply := self._server.recv(_PIECE):
                if self._falls and not reply.startswith(b"-"):  # an error: it was not carried out
                    self._way.fell()
                    break
                self._falls = False
                self._client.sendall(reply)
        self._cut()

    def _cut(self) -> None:
        for side in (self._client, self._server):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


@contextmanager
def redis_way() -> Iterator[RedisWay]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the server is away: so is the way to it
                _Passage(way, self.request).run()

    with _Server(("127.0.0.1", 0), Handler) as server:
        way = RedisWay(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield way
        finally:
            server.shutdown()
            thread.join()
