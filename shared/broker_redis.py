"""Celery's broker settings for a Redis server: the same record as the ledger's client, in kombu's words."""

from typing import Any
from urllib.parse import quote, urlencode

from shared.redis_client import (
    CONNECT_S,
    HEALTH_CHECK_S,
    SOCKET_S,
    Role,
    sentinel_options,
    tls_options,
)
from shared.redis_url import Credentials, RedisServer, bracketed

_SWEEP_S = 10


def redis_transport(
    server: RedisServer, role: Role, *, max_connections: int, visibility_s: float
) -> dict[str, Any]:
    """`broker_url`, `broker_use_ssl` and `broker_transport_options`.

    `visibility_s`: after so long a dead worker's hints are looked at again. The lease recovers what it held; this only cleans up.

    Without `broker_use_ssl` kombu would take any certificate for a `rediss://` URL.
    """
    options: dict[str, Any] = {
        "socket_timeout": SOCKET_S[role],
        "socket_connect_timeout": CONNECT_S[role],
        "max_connections": max_connections,
    }
    if role == "api":  # it must answer 503 within a second
        options["max_retries"] = 0
    else:
        options |= {
            "visibility_timeout": visibility_s,
            "unacked_restore_interval": min(_SWEEP_S, visibility_s / 2),
            "unacked_restore_throttle": 1,  # at each sweep, not at each tenth
            "unacked_mutex_expire": _SWEEP_S,  # or a worker killed in a sweep keeps the others from it for five minutes
            "health_check_interval": HEALTH_CHECK_S,
        }
    if server.sentinel is not None:
        options |= {
            "master_name": server.sentinel.master,
            "sentinel_kwargs": sentinel_options(server, role),
        }
    found = {"broker_url": kombu_url(server), "broker_transport_options": options}
    if server.tls is not None:
        found["broker_use_ssl"] = tls_options(server.tls)
    return found


def kombu_url(server: RedisServer) -> str:
    """With user name and password; kombu's sentinels each have a URL of their own, joined by `;`."""
    login = _userinfo(server.credentials)
    if server.path:
        query = f"?{urlencode({'virtual_host': server.db})}" if server.db else ""
        return f"redis+socket://{login}{quote(server.path)}{query}"
    scheme = "sentinel" if server.sentinel else "rediss" if server.tls else "redis"
    return ";".join(f"{scheme}://{login}{bracketed(host)}:{port}/{server.db}" for host, port in server.nodes)


def _userinfo(credentials: Credentials) -> str:
    if not credentials:
        return ""
    username, password = (quote(word or "", safe="") for word in (credentials.username, credentials.password))
    return f"{username}:{password}@"
