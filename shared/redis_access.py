"""Asks, before a process starts, whether Redis lets it in to do what it must."""

from collections.abc import Callable

import redis

from shared.config import Settings
from shared.errors import ConfigError, StoreRefusedError, StoreUnavailableError
from shared.keys import Keys
from shared.queues import BATCH_QUEUE
from shared.redis_client import Role, connect, store_errors
from shared.redis_tls import tls_refusal
from shared.redis_url import RedisServer

Ask = Callable[["redis.Redis"], object]


def check_access(settings: Settings, role: Role) -> None:
    """Raises ConfigError where only an operator can help: certificate, password, permissions.

    A server that is away is no reason not to start: it may come back.
    """
    probe = Keys(settings.key_prefix).probe
    faults = _faults("REDIS_URL", settings.redis, role, lambda client: client.set(probe, 1, ex=60))
    if settings.broker is not None and settings.broker != settings.redis:
        faults += _faults("BROKER_URL", settings.broker, role, lambda client: client.llen(BATCH_QUEUE))
    if faults:
        raise ConfigError(faults)


def _faults(variable: str, server: RedisServer, role: Role, ask: Ask) -> list[str]:
    client = connect(server, role=role, max_connections=1)
    try:
        with store_errors():
            ask(client)
    except StoreRefusedError as exc:
        return [f"{variable}: {server.shown}: {exc.message}"]
    except StoreUnavailableError:
        if (why := tls_refusal(server)) is not None:
            return [f"{variable}: {server.shown}: {why}"]
    finally:
        client.close()
        client.connection_pool.disconnect()
    return []
