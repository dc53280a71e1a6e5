"""What a real server says when it will not serve just now is a 503 with its reason, never a crash."""

from collections.abc import Iterator

import pytest
from support.lone import job
from support.valkey import Valkey, running_valkey
from support.waiting import wait_for

from shared.errors import StoreUnavailableError
from shared.redis_client import connect
from shared.redis_lone import RedisLone
from shared.redis_url import parse_redis_url


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("CONFIG SET min-replicas-to-write 1", "min-replicas-to-write"),
        ("REPLICAOF 127.0.0.1 1", "a failover is under way"),
    ],
)
def test_a_server_that_will_not_write_now_is_said(valkey: Valkey, order: str, words: str) -> None:
    client = connect(parse_redis_url(valkey.url), role="api")
    lone = RedisLone(client)
    lone.submit([job()])
    with valkey.client() as admin:
        admin.execute_command(*order.split())
    with pytest.raises(StoreUnavailableError, match=words) as caught:
        lone.submit([job()])
    assert caught.value.code == "store_unavailable"
    with pytest.raises(StoreUnavailableError, match=words):  # and without a script
        lone.decline()
    client.connection_pool.disconnect()


def test_a_server_busy_with_anothers_script_is_said(valkey: Valkey) -> None:
    with valkey.client() as admin:
        admin.config_set("busy-reply-threshold", 10)
        endless = admin.connection_pool.get_connection()
        endless.send_command("EVAL", "while true do end", 0)
        client = connect(parse_redis_url(valkey.url), role="api")

        def said() -> bool:
            try:
                RedisLone(client).decline()
            except StoreUnavailableError as exc:
                return "busy" in exc.message
            return False

        wait_for(said, 10, "the server to say that it is busy")
        admin.script_kill()
        endless.disconnect()
        client.connection_pool.disconnect()
