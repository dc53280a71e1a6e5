"""How full a Redis or Valkey is: what `INFO memory` says, and the answers still to come."""

from collections.abc import Callable
from typing import Any

import redis

from shared.errors import StoreRefusedError
from shared.redis_client import store_errors
from shared.room import Room, reckoned
from shared.scripts import Scripts


def room_reader(
    client: redis.Redis, prefix: str = "", *, least_answer_bytes: int | None = None
) -> Callable[[], Room]:
    """Asks the server anew at each call, which raises StoreUnavailableError.

    Only with `least_answer_bytes`, which an answer is reckoned at least at, are the answers still to come counted.
    """
    run = Scripts(client, prefix).run

    def read() -> Room:
        try:
            with store_errors():
                memory: Any = client.info("memory")
        except StoreRefusedError as exc:
            if not isinstance(exc.__cause__, redis.exceptions.NoPermissionError):
                raise
            return Room(known=False)
        if least_answer_bytes is None:
            return room_of(memory)
        open_jobs, average = run("room")
        return room_of(memory, int(open_jobs), reckoned(float(average), least_answer_bytes))

    return read


def room_of(memory: dict[str, Any], open_jobs: int = 0, answer_bytes: int = 0) -> Room:
    """From the fields of `INFO memory`; the server does not count buffers of replicas and of the append-only file either."""
    return Room(
        used=max(0, int(memory["used_memory"]) - int(memory.get("mem_not_counted_for_evict", 0))),
        maxmemory=int(memory.get("maxmemory", 0)),
        open_jobs=open_jobs,
        answer_bytes=answer_bytes,
        policy=str(memory.get("maxmemory_policy", "noeviction")),
    )
