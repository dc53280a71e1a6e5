"""Redis or Valkey servers with a configuration of the test's own: ACL users, TLS, replicas, sentinels."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from support.waiting import wait_for

from api.up.valkey import find_server

START_S = 15.0


class Process:
    """One server, stopped by its pid when the test ends. `log` for a failing test's message."""

    def __init__(self, name: str, folder: Path, process: "subprocess.Popen[bytes]") -> None:
        self.name = name
        self.folder = folder
        self.process = process

    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text(errors="replace")[-3000:]

    def halt(self) -> None:
        """SIGSTOP: connected, but silent, until it may `go_on`."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running_server(
    name: str,
    lines: list[str],
    *,
    client: Callable[[], "redis.Redis"],
    program: Path | None = None,
    sentinel: bool = False,
) -> Iterator[Process]:
    """A server with these lines of configuration, once `client` gets an answer from it. The folder goes with it."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-", ignore_cleanup_errors=True) as home:
        folder = Path(home)
        config = folder / "server.conf"
        common = ["bind 127.0.0.1", "daemonize no", f"dir {folder}"] + ([] if sentinel else ['save ""'])
        config.write_text("\n".join([*common, *lines]) + "\n", encoding="utf-8")
        command = [str(program or find_server().path), str(config), *(["--sentinel"] if sentinel else [])]
        with (folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        server = Process(name, folder, process)
        try:
            wait_for(lambda: _answers(server, client), START_S, f"{name} to answer")
            yield server
        finally:
            server.kill()


def _answers(server: Process, client: Callable[[], "redis.Redis"]) -> bool:
    assert server.process.poll() is None, f"{server.name} ended: {server.log()}"
    try:
        with client() as asked:
            return bool(asked.ping())
    except redis.exceptions.ConnectionError:
        return False


def system_server() -> Path:
    """This machine's own redis-server or valkey-server: the wheel's knows neither TLS nor, maybe, Sentinel."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    pytest.fail("needs a redis-server or valkey-server on the PATH: apt-get install redis-server")
