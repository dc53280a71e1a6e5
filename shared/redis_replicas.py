"""Asks whether replicas have what was just written: `WAIT`, so that a failover loses nothing that was answered 2xx."""

from collections.abc import Sequence
from typing import Any

import redis

from shared.keys import Keys
from shared.redis_client import store_errors


class RedisReplicas:
    """`client` must listen longer than `within_s`, which WAIT takes where replicas are away (`connect`, `patience_s`)."""

    def __init__(self, client: redis.Redis, prefix: str, *, replicas: int, within_s: float) -> None:
        self.replicas = replicas
        self.within_s = within_s
        self._redis = client
        self._probe = Keys(prefix).probe

    def acknowledged(self, keys: Sequence[str]) -> list[bool] | None:
        """Which of the keys are there and on the replicas; None where too few of these have acknowledged in time.

        On one connection: after a failover between a write and this question, the new master says itself that the key is
        not there. WAIT counts from the connection's own latest write, and replicas take writes in their order.
        Raises StoreUnavailableError.
        """
        pipe: Any = self._redis.pipeline(transaction=False)
        for key in keys:
            pipe.exists(key)
        pipe.set(self._probe, 1, ex=60)
        pipe.execute_command("WAIT", self.replicas, max(1, round(self.within_s * 1000)))
        with store_errors():
            *there, _, acknowledged = pipe.execute()
        return [bool(found) for found in there] if acknowledged >= self.replicas else None
