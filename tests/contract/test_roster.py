"""The heartbeats of API processes, and of workers as far as they tell of the providers file."""

import itertools
import json

import pytest
from support.ledgers import worker
from support.stores import Stores
from support.waiting import wait_for

from shared.jobs import ApiRecord, FileState
from shared.keys import Keys
from shared.redis_client import connect
from shared.redis_ledger import RedisLedger
from shared.redis_roster import RedisRoster
from shared.redis_url import parse_redis_url

FILE = FileState(version="a" * 12, loaded_at=1.5, fault="no YAML")
_prefixes = itertools.count()


def test_who_beats_is_present_until_it_says_goodbye(valkey_url: str) -> None:
    with connect(parse_redis_url(valkey_url), role="api", max_connections=2) as client:
        roster = RedisRoster(client, f"roster{next(_prefixes)}")
        assert roster.present() == []
        one, two = ApiRecord(id="host-1", providers_file=FILE), ApiRecord(id="host-2")
        roster.beat(two)
        roster.beat(one)
        roster.beat(one)
        assert roster.present() == [one, two]
        roster.retire("host-2")
        assert roster.present() == [one]


def test_who_falls_silent_is_forgotten(valkey_url: str) -> None:
    with connect(parse_redis_url(valkey_url), role="api", max_connections=2) as client:
        prefix = f"roster{next(_prefixes)}"
        roster, key = RedisRoster(client, prefix), Keys(prefix).apis
        seconds, _ = client.time()
        client.hset(key, "dead", f"{seconds - 60}.5 " + json.dumps({"id": "dead"}))
        assert roster.present() == []
        roster.beat(ApiRecord(id="host-1"))
        assert client.hkeys(key) == [b"host-1"]
        assert 0 < client.ttl(key) <= 6
        client.pexpire(key, 1)
        wait_for(lambda: not roster.present(), 5, "the last of them to go")


def test_a_workers_heartbeat_says_when_it_came_in(stores: Stores) -> None:
    before = stores.now()
    stores.ledger.beat(worker())
    (found,) = stores.ledger.workers()
    assert found.heard_at == pytest.approx(before, abs=1.0)
    assert found.providers_file == FileState()


def test_a_worker_of_an_earlier_version_is_read(valkey_url: str) -> None:
    with connect(parse_redis_url(valkey_url), role="worker", max_connections=2) as client:
        prefix = f"roster{next(_prefixes)}"
        old = {
            "id": "w0",
            "pool": "gevent",
            "concurrency": 1,
            "capacity": 1,
            "version": "0",
            "started_at": 0.0,
        }
        seconds, _ = client.time()
        client.hset(Keys(prefix).workers, "w0", "1 " + json.dumps(old))
        client.zadd(Keys(prefix).alive, {"w0": seconds})
        (found,) = RedisLedger(client, prefix).workers()
        assert (found.id, found.providers_file, found.heard_at) == ("w0", FileState(), float(seconds))
