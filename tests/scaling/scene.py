"""One real Valkey, and the real stores upon it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from redis import Redis
from support.valkey import running_valkey

from shared.keys import Keys
from shared.redis_client import connect
from shared.redis_files import RedisFiles
from shared.redis_gate import RedisGate
from shared.redis_ledger import RedisLedger
from shared.redis_lone import RedisLone
from shared.redis_url import parse_redis_url

MAXMEMORY = 16 * 2**30


@dataclass(frozen=True)
class Scene:
    url: str
    client: "Redis"
    ledger: RedisLedger
    lone: RedisLone
    files: RedisFiles
    gate: RedisGate
    keys: Keys


@contextmanager
def scene(*, aof: bool = False) -> Iterator[Scene]:
    with running_valkey(maxmemory=MAXMEMORY, aof=aof) as server:
        client = connect(parse_redis_url(server.url), role="worker", max_connections=8)
        try:
            yield Scene(
                server.url,
                client,
                RedisLedger(client),
                RedisLone(client),
                RedisFiles(client),
                RedisGate(client),
                Keys("le"),
            )
        finally:
            client.close()
            client.connection_pool.disconnect()
