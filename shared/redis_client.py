"""Connections to Redis (or Valkey): one place for the timeouts, and for turning its errors into ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.errors import NO_ROOM, StoreUnavailableError

Role = Literal["api", "worker"]

_CONNECT_S = {"api": 0.4, "worker": 3.0}
_SOCKET_S = {"api": 0.4, "worker": 10.0}
_POOL_WAIT_S = {"api": 0.2, "worker": 5.0}


def connect(url: str, *, role: Role, max_connections: int = 64) -> "redis.Redis":
    """A client that never repeats a command by itself (a repeated script would count twice).

    The API's gives up within half a second, so that its callers hear 503 within one.
    """
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=_POOL_WAIT_S[role],
        socket_connect_timeout=_CONNECT_S[role],
        socket_timeout=_SOCKET_S[role],
        health_check_interval=25,
        retry=Retry(NoBackoff(), 0),
    )
    return redis.Redis(connection_pool=pool)


@contextmanager
def store_errors() -> Iterator[None]:
    """Within it, what Redis refuses or fails to answer is a StoreUnavailableError that says which."""
    try:
        yield
    except redis.exceptions.OutOfMemoryError as exc:
        raise StoreUnavailableError(
            "Redis has reached maxmemory and refuses to write; make room or raise maxmemory.",
            code=NO_ROOM,
            retry_after_s=5.0,
        ) from exc
    except redis.exceptions.NoScriptError:
        raise
    except (
        redis.exceptions.ConnectionError,
        redis.exceptions.TimeoutError,
        redis.exceptions.ReadOnlyError,
    ) as exc:
        raise StoreUnavailableError(
            f"Redis cannot be reached or written to ({type(exc).__name__}); try again."
        ) from exc
    except redis.exceptions.ResponseError as exc:
        if "OOM" in str(exc) or "maxmemory" in str(exc):
            raise StoreUnavailableError(
                "Redis has reached maxmemory and refuses to write; make room or raise maxmemory.",
                code=NO_ROOM,
                retry_after_s=5.0,
            ) from exc
        raise
