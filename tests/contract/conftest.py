"""One suite, two stores: `stores` is a memory twin or a real Valkey, each with a way to let time pass."""

import itertools
import os
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.client import PubSub
from support.stores import Stores, really_wait
from support.valkey import running_valkey

from shared.clock import ManualClock
from shared.keys import Keys
from shared.memory_files import MemoryFiles
from shared.memory_idempotency import MemoryIdempotency
from shared.memory_lane import MemoryLane
from shared.memory_ledger import MemoryLedger
from shared.memory_lone import MemoryLone
from shared.redis_client import connect
from shared.redis_files import RedisFiles
from shared.redis_idempotency import RedisIdempotency
from shared.redis_ledger import RedisLedger
from shared.redis_lone import RedisLone
from shared.redis_url import parse_redis_url


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """The embedded Valkey, or the empty server that LLM_EDGE_TEST_REDIS_URL names."""
    if url := os.environ.get("LLM_EDGE_TEST_REDIS_URL"):
        yield url
        return
    with running_valkey() as valkey:
        yield valkey.url


_prefixes = itertools.count()


def memory_stores() -> Stores:
    clock = ManualClock()
    keys = MemoryIdempotency(clock)
    served: dict[str, float] = {}
    lane = MemoryLane(clock)
    lone = MemoryLone(clock, keys, served, lane)

    def hear(caller: str) -> Callable[[], None]:
        lone.listening.add(caller)
        return lambda: lone.listening.discard(caller)

    ledger, files = MemoryLedger(clock, keys, served, lane), MemoryFiles(clock, keys)
    return Stores(ledger, lone, files, keys, clock.advance, "memory", clock.now, hear)


def valkey_stores(client: redis.Redis) -> Stores:
    """Under a prefix of their own."""
    prefix = f"t{next(_prefixes)}"

    def subscribe(caller: str) -> Callable[[], None]:
        pubsub = PubSub(client.connection_pool, ignore_subscribe_messages=True)
        pubsub.subscribe(Keys(prefix).replies(caller))
        assert pubsub.get_message(timeout=5) is None  # the server has seen it
        return pubsub.close

    return Stores(
        RedisLedger(client, prefix),
        RedisLone(client, prefix),
        RedisFiles(client, prefix),
        RedisIdempotency(client, prefix),
        really_wait,
        "valkey",
        time.time,
        subscribe,
    )


@pytest.fixture(params=["memory", "valkey"])
def new_stores(request: pytest.FixtureRequest) -> Iterator[Callable[[], Stores]]:
    """Makes empty ones, for tests that need them several times."""
    if request.param == "memory":
        yield memory_stores
        return
    client = connect(parse_redis_url(request.getfixturevalue("valkey_url")), role="worker", max_connections=8)
    yield lambda: valkey_stores(client)
    client.connection_pool.disconnect()


@pytest.fixture
def stores(new_stores: Callable[[], Stores]) -> Stores:
    return new_stores()
