"""Which API processes are alive, by their heartbeats; the workers' stand in the ledger."""

from collections.abc import Callable
from typing import Any

import msgspec
import redis

from shared.jobs import ApiRecord
from shared.keys import Keys
from shared.ledger import HEARTBEAT_TIMEOUT_S
from shared.redis_client import store_errors
from shared.redis_records import text_of
from shared.scripts import Scripts

_record = msgspec.json.Decoder(ApiRecord)


class RedisRoster:
    """All methods raise StoreUnavailableError."""

    def __init__(self, client: redis.Redis, prefix: str = "le") -> None:
        self._redis = client
        self._key = Keys(prefix).apis
        self._run: Callable[..., Any] = Scripts(client, prefix).run

    def beat(self, record: ApiRecord) -> None:
        raw = msgspec.json.encode(record).decode()
        self._run("api_beat", id=record.id, record=raw, timeout_s=HEARTBEAT_TIMEOUT_S)

    def retire(self, process: str) -> None:
        self._run("api_beat", id=process, record=False, timeout_s=HEARTBEAT_TIMEOUT_S)

    def present(self) -> list[ApiRecord]:
        """Those that have been heard from of late, by their ids."""
        with store_errors():
            seconds, micros = self._redis.time()
            rows = self._redis.hgetall(self._key)
        since = seconds + micros / 1e6 - HEARTBEAT_TIMEOUT_S
        found = [text_of(row).split(" ", 1) for _, row in sorted(rows.items())]
        return [_record.decode(raw) for heard_at, raw in found if float(heard_at) > since]
