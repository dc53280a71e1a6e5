"""One suite, two stores: `stores` is a memory twin or a real Valkey, each with a way to let time pass."""

import itertools
import os
import time
from collections.abc import Iterator

import pytest
from support.stores import Stores, really_wait
from support.valkey import running_valkey

from shared.clock import ManualClock
from shared.memory_files import MemoryFiles
from shared.memory_ledger import MemoryLedger
from shared.redis_client import connect
from shared.redis_files import RedisFiles
from shared.redis_ledger import RedisLedger


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
        return Stores(MemoryLedger(clock), MemoryFiles(clock), clock.advance, "memory", clock.now)
    client = connect(request.getfixturevalue("valkey_url"), role="worker", max_connections=8)
    prefix = f"t{next(_prefixes)}"
    return Stores(RedisLedger(client, prefix), RedisFiles(client, prefix), really_wait, "valkey", time.time)
