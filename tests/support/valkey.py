"""A real Valkey for tests: on a free port, in a folder of its own, gone when the test is.

    @pytest.fixture(scope="session")
    def valkey() -> Iterator[Valkey]:
        with running_valkey() as server:
            yield server

`server.client().flushall()` between tests makes one server serve a whole session. Should the test run itself be killed,
`up`'s janitor ends the server.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import redis
from support.waiting import wait_for

from api.up.guard import Guard
from api.up.janitor import Group, born
from api.up.valkey import Instance, answers, config_text, find_server, free_port

Fsync = Literal["everysec", "always"]


class Valkey:
    """One server process. `url` stays the same over `kill()` and `restart()`; so do the data, given `aof`."""

    def __init__(self, folder: Path, *, aof: bool, maxmemory: int, fsync: Fsync = "everysec") -> None:
        self.folder = folder
        self._more = f"appendfsync {fsync}\n"
        self._data = folder / "data"
        self._data.mkdir(exist_ok=True)
        self._instance = Instance(self._data, free_port(), "pass-of-a-test", maxmemory, aof)
        self._program = find_server().path
        self._process: subprocess.Popen[bytes] | None = None
        self._guard = Guard(folder / "lock", folder / "parts.json")

    @property
    def url(self) -> str:
        return self._instance.url

    @property
    def port(self) -> int:
        return self._instance.port

    @property
    def password(self) -> str:
        return self._instance.password

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def client(self, *, decode_responses: bool = False) -> "redis.Redis":
        """A plain client, for looking from outside. The caller closes it (`with server.client() as r:`)."""
        return redis.Redis.from_url(self.url, decode_responses=decode_responses)

    def start(self) -> None:
        config = self.folder / "valkey.conf"
        config.write_text(config_text(self._instance) + self._more, encoding="utf-8")
        with (self.folder / "valkey.log").open("ab") as log:
            command = [self._program, config]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._process = process
        if not self._guard.alive:
            self._guard.start()
        self._guard.publish([Group(process.pid, "valkey", born(process.pid), last=True)])
        wait_for(
            lambda: answers(self.url) or process.poll() is not None,
            timeout_s=15,
            what=f"Valkey on port {self.port}; see {self.folder}/valkey.log",
        )
        if process.poll() is not None:
            raise RuntimeError(f"Valkey ended at once: {self.log()}")

    def kill(self) -> None:
        """kill -9, as an out-of-memory killer would. `restart()` brings it back."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._guard.publish([])

    def close(self) -> None:
        """The server's end, and its janitor's."""
        self.kill()
        self._guard.stop()

    def stop(self) -> None:
        """SIGTERM: an orderly end."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            finally:
                self.kill()

    def restart(self) -> None:
        """The same port, password and folder again, after `kill()`, `stop()`, or straight away (then by kill -9)."""
        self.kill()
        self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Connected, but silent: SIGSTOP, and SIGCONT at the end."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        return (self.folder / "valkey.log").read_text(encoding="utf-8", errors="replace")


@contextmanager
def running_valkey(
    *,
    aof: bool = False,
    fsync: Fsync = "everysec",
    maxmemory: int = 512 * 1024 * 1024,
    folder: Path | None = None,
) -> Iterator[Valkey]:
    """A started server. Without `aof` a restart begins empty; with `fsync="always"` nothing is answered before it is on the disk.

    `maxmemory` in bytes, noeviction.
    """
    home = Path(tempfile.mkdtemp(prefix="valkey-")) if folder is None else folder
    server = Valkey(home, aof=aof, maxmemory=maxmemory, fsync=fsync)
    try:
        server.start()
        yield server
    finally:
        server.close()
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)
