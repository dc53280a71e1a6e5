"""Idempotency keys on Redis or Valkey. The contract: `shared.idempotency.Idempotency`; written by the scripts that make things."""

from typing import Any

import redis

from shared.idempotency import Kept
from shared.keys import Keys
from shared.redis_client import store_errors


class RedisIdempotency:
    def __init__(self, client: redis.Redis, prefix: str = "le") -> None:
        self._redis = client
        self._keys = Keys(prefix)

    def find(self, owner: str, name: str) -> Kept | None:
        with store_errors():
            found: Any = self._redis.get(self._keys.once(owner, name))
        return Kept(*found.decode().split(" ", 1)) if found else None
