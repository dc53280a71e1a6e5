"""One suite, two stores: `stores` is a memory twin or a real Valkey, each with a way to let time pass."""

import itertools
import os
import time
from collections.abc import Callable, Iterator

import pytest
from redis.client import PubSub
from support.stores import Stores, really_wait
from support.valkey import running_valkey

from shared.clock import ManualClock
from shared.keys import Keys
from shared.memory_files import MemoryFiles
from shared.memory_ledger import MemoryLedger
from shared.memory_lone import MemoryLone
from shared.redis_client import connect
from shared.redis_files import RedisFiles
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


@pytest.fixture(params=["memory", "valkey"])
def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == "memory":
        clock = ManualClock()
        lone = MemoryLone(clock)

        def hear(caller: str) -> Callable[[], None]:
            lone.listening.add(caller)
            return lambda: lone.listening.discard(caller)

        return Stores(MemoryLedger(clock), lone, MemoryFiles(clock), clock.advance, "memory", clock.now, hear)
    client = connect(parse_redis_url(request.getfixturevalue("valkey_url")), role="worker", max_connections=8)
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
        really_wait,
        "valkey",
        time.time,
        subscribe,
    )
