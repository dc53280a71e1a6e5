"""Connections to Redis (or Valkey): one place for TLS, Sentinel and the timeouts, and for turning its errors into ours."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import redis
from redis.backoff import NoBackoff
from redis.connection import SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from shared.errors import NO_ROOM, StoreRefusedError, StoreUnavailableError
from shared.redis_refusals import refusal
from shared.redis_url import Credentials, RedisServer, Tls

Role = Literal["api", "worker", "gate"]
"""`gate` is the worker's gatekeeper, whose callers wait for it and have another way."""

CONNECT_S = {"api": 0.4, "worker": 3.0, "gate": 1.0}
SOCKET_S = {"api": 0.4, "worker": 10.0, "gate": 1.0}
HEALTH_CHECK_S = 25
_POOL_WAIT_S = {"api": 0.2, "worker": 5.0, "gate": 1.0}
_SENTINEL_S = {"api": 0.2, "worker": 1.0, "gate": 0.5}
_ALL_SENTINELS_S = {"api": 0.6, "worker": 10.0, "gate": 2.0}
"""What asking all of them in turn may take, half of it for connecting."""

_WHY_NOT_NOW = {
    "READONLY": "Redis is a replica now and refuses to write: a failover is under way",
    "MASTERDOWN": "Redis is a replica that has lost its master: a failover is under way",
    "NOREPLICAS": "Redis has too few replicas in touch and refuses to write (min-replicas-to-write)",
    "MISCONF": "Redis cannot write to its disk and therefore refuses to write; see its log",
    "LOADING": "Redis is starting and still loads its data",
    "BUSY": "Redis is busy with a script of somebody's",
}
_NOT_NOW = re.compile(rf"(?:^|-)({'|'.join(_WHY_NOT_NOW)})\b")
"""The code of Redis' error; within a script before 7.0 a dash stands before it."""
_CODES: dict[type[redis.exceptions.RedisError], str] = {
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.BusyLoadingError: "LOADING",
}
"""Where redis-py makes a class of the code, it takes it from the text."""


class _SentinelPool(SentinelConnectionPool, redis.BlockingConnectionPool):
    """Waits for a free connection as the other pools do, and finds the master anew whenever it connects."""


# redis-py leaves their constructors untyped
_Pool = Callable[..., redis.ConnectionPool]
_sentinels: Callable[..., Sentinel] = Sentinel
_blocking: _Pool = redis.BlockingConnectionPool
_behind_sentinels: _Pool = _SentinelPool


def connect(
    server: RedisServer, *, role: Role, max_connections: int = 64, patience_s: float = 0.0
) -> "redis.Redis":
    """A client that never repeats a command by itself (a repeated script would count twice).

    The API's gives up within half a second, so that its callers hear 503 within one. `patience_s` is listened longer: for
    commands that wait in the server.
    """
    options: dict[str, Any] = {
        "max_connections": max_connections,
        "timeout": _POOL_WAIT_S[role],
        "db": server.db,
        "socket_connect_timeout": CONNECT_S[role],
        "socket_timeout": SOCKET_S[role] + patience_s,
        "health_check_interval": HEALTH_CHECK_S,
        "retry": never(),
        **login(server.credentials),
        **tls_options(server.tls),
    }
    if server.sentinel is not None:
        sentinels = _sentinels(server.nodes, sentinel_kwargs=sentinel_options(server, role))
        kind = SentinelManagedConnection if server.tls is None else SentinelManagedSSLConnection
        pool = _behind_sentinels(server.sentinel.master, sentinels, connection_class=kind, **options)
    elif server.path:
        pool = _blocking(connection_class=UnixDomainSocketConnection, path=server.path, **options)
    else:
        ((host, port),) = server.nodes
        direct = redis.Connection if server.tls is None else SSLConnection
        pool = _blocking(connection_class=direct, host=host, port=port, **options)
    return redis.Redis(connection_pool=pool)


def never() -> Retry:
    """redis-py's own default for a client is several tries."""
    return Retry(NoBackoff(), 0)


def login(credentials: Credentials) -> dict[str, str]:
    """In redis-py's words."""
    named = {"username": credentials.username, "password": credentials.password}
    return {name: value for name, value in named.items() if value}


def tls_options(tls: Tls | None) -> dict[str, Any]:
    """In redis-py's words, which kombu's `broker_use_ssl` shares. Host names are verified unless that was switched off."""
    if tls is None:
        return {}
    files = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
    return {
        "ssl_cert_reqs": "none" if tls.verify == "none" else "required",
        "ssl_check_hostname": tls.verify == "full",
        **{name: str(path) for name, path in files.items() if path is not None},
    }


def sentinel_options(server: RedisServer, role: Role) -> dict[str, Any]:
    """How the sentinels themselves are asked: in turn, each so briefly that one that is down costs little."""
    assert server.sentinel is not None  # noqa: S101  asked for a server behind sentinels only
    each_s = min(_SENTINEL_S[role], _ALL_SENTINELS_S[role] / (2 * len(server.nodes)))
    return {
        "socket_connect_timeout": each_s,
        "socket_timeout": each_s,
        "retry": never(),
        **login(server.sentinel.credentials),
        **({"ssl": True, **tls_options(server.tls)} if server.tls is not None else {}),
    }


@contextmanager
def store_errors() -> Iterator[None]:
    """Within it, what Redis refuses or fails to answer is a StoreUnavailableError that says which."""
    try:
        yield
    except redis.exceptions.NoScriptError:
        raise
    except redis.exceptions.RedisError as exc:
        if (ours := _translated(exc)) is None:
            raise
        raise ours from exc


def _translated(exc: redis.exceptions.RedisError) -> StoreUnavailableError | None:
    """Ours for theirs; None for an error that speaks of a fault in this program."""
    full = isinstance(exc, redis.exceptions.ResponseError) and ("OOM" in str(exc) or "maxmemory" in str(exc))
    if full or isinstance(exc, redis.exceptions.OutOfMemoryError):
        return StoreUnavailableError(
            "Redis has reached maxmemory and refuses to write; make room or raise maxmemory.",
            code=NO_ROOM,
            retry_after_s=5.0,
        )
    if (code := _code(exc)) is not None:
        return StoreUnavailableError(f"{_WHY_NOT_NOW[code]}; try again.")
    if (why := refusal(exc)) is not None:
        return StoreRefusedError(f"{why[0].upper()}{why[1:]}.")
    if isinstance(exc, MasterNotFoundError):
        return StoreUnavailableError(
            "No sentinel names a Redis master that is up: a failover is under way, or the master's name is misspelt; try again."
        )
    if isinstance(exc, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError):
        return StoreUnavailableError(
            f"Redis cannot be reached or written to ({type(exc).__name__}); try again."
        )
    return None


def _code(exc: redis.exceptions.RedisError) -> str | None:
    found = _NOT_NOW.search(str(exc))
    return found[1] if found is not None else _CODES.get(type(exc))
