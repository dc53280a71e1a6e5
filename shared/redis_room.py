"""How full a Redis or Valkey is, in one round trip: `INFO memory`, and what the scripts count."""

from typing import Any

import redis

from shared.keys import Keys
from shared.redis_client import store_errors
from shared.room import Room, reckoned


def read_room(client: redis.Redis, keys: Keys, least_answer_bytes: int) -> Room:
    """Raises StoreUnavailableError. `used` is what the server itself compares with its maxmemory."""
    pipe = client.pipeline(transaction=False)
    pipe.info("memory")
    pipe.mget([keys.open, keys.answer])
    with store_errors():
        memory, (opened, average) = pipe.execute()
    return room_of(memory, int(opened or 0), float(average or 0), least_answer_bytes)


def room_of(memory: dict[str, Any], open_jobs: int, average: float, least_answer_bytes: int) -> Room:
    """From the fields of `INFO memory`; buffers of replicas and of the append-only file do not count for eviction."""
    return Room(
        used=max(0, int(memory["used_memory"]) - int(memory.get("mem_not_counted_for_evict", 0))),
        maxmemory=int(memory.get("maxmemory", 0)),
        open_jobs=max(0, open_jobs),
        answer_bytes=reckoned(average, least_answer_bytes),
        policy=str(memory.get("maxmemory_policy", "noeviction")),
    )
