"""Records as a newer release would have made them."""

from support.stores import Stores

from shared.memory_ledger import MemoryLedger
from shared.memory_lone import MemoryLone
from shared.redis_ledger import RedisLedger
from shared.redis_lone import RedisLone


def age_batch(stores: Stores, batch_id: str, v: int) -> None:
    """The batch is of this version from now on."""
    ledger = stores.ledger
    if isinstance(ledger, MemoryLedger):
        ledger._batches[batch_id].update(v=v)
    elif isinstance(ledger, RedisLedger):
        ledger._redis.hset(ledger._keys.batch(batch_id), "v", v)


def age_job(stores: Stores, job_id: str, v: int) -> None:
    """The lone job is of this version from now on."""
    lone = stores.lone
    if isinstance(lone, MemoryLone):
        lone._jobs[job_id].v = v
    elif isinstance(lone, RedisLone):
        lone._redis.hset(lone._keys.job(job_id), "v", v)
