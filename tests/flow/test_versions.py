"""A fleet that is being upgraded: real processes of this release, and records of the next one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import requests
from openai import OpenAI
from support.batches import lines, outcomes, submit, wait_for_end
from support.ledgers import worker as a_worker
from support.lone import ids, result
from support.stack import Stack, running_stack
from support.waiting import wait_for

from shared.config import load_settings
from shared.keys import Keys
from shared.redis_client import connect
from shared.redis_ledger import RedisLedger
from shared.redis_lone import RedisLone
from shared.versions import VERSION

NEXT = VERSION + 1
CHAT = {"model": "test-model", "messages": [{"role": "user", "content": "hello"}]}


class Records:
    """The fleet's records, as somebody of the next release changes them."""

    def __init__(self, client: Any, prefix: str) -> None:
        self._client, self._keys = client, Keys(prefix)
        self.ledger, self.lone = RedisLedger(client, prefix), RedisLone(client, prefix)

    def batch(self, batch_id: str, v: int) -> None:
        self._client.hset(self._keys.batch(batch_id), "v", v)

    def job(self, job_id: str, v: int) -> None:
        self._client.hset(self._keys.job(job_id), "v", v)

    def spoil(self, batch_id: str) -> None:
        self._client.hset(self._keys.batch(batch_id), "spec", '{"of": "another form"}')

    @contextmanager
    def a_newer_worker(self) -> Iterator[None]:
        """One that is alive, reads the next version, and leaves all work to others."""
        over = threading.Event()
        record = msgspec.structs.replace(a_worker("newer", 1000), reads=NEXT)

        def live() -> None:
            while not over.wait(1.0):
                self.ledger.beat(record)

        self.ledger.beat(record)
        heart = threading.Thread(target=live)
        heart.start()
        try:
            yield
        finally:
            over.set()
            heart.join()
            self.ledger.retire(record.id)


@pytest.fixture
def stack() -> Iterator[Stack]:
    with running_stack(workers=0) as found:
        yield found


@pytest.fixture
def records(stack: Stack) -> Iterator[Records]:
    settings = load_settings(stack.env)
    with connect(settings.redis, role="worker", max_connections=2) as client:
        yield Records(client, settings.key_prefix)


def get(stack: Stack, path: str) -> dict[str, Any]:
    answer = requests.get(f"{stack.base_url}/{path}", timeout=5)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def reasons(stack: Stack, batch_id: str) -> dict[str, int]:
    found = get(stack, f"batches/{batch_id}/explain")["waiting"]
    return {waiting["reason"]: waiting["jobs"] for waiting in found}


def running(client: OpenAI, count: int) -> str:
    batch = submit(client, lines(count))
    wait_for(
        lambda: client.batches.retrieve(batch.id).status == "in_progress", 20, "the batch to be validated"
    )
    return batch.id


def test_a_worker_leaves_what_a_newer_release_made_says_so_and_runs_all_else(
    stack: Stack, records: Records
) -> None:
    with stack.client as client:
        newer = running(client, 40)
        records.batch(newer, NEXT)
        taken = requests.post(
            f"{stack.base_url}/chat/completions", json=CHAT, headers={"Prefer": "respond-async"}, timeout=5
        ).json()["id"]
        records.job(taken, NEXT)
        stack.start_worker()
        wait_for_end(client, submit(client, lines(40)).id)
        wait_for(lambda: get(stack, f"jobs/{taken}")["waiting"], 10, "the worker to have met the job")
        assert get(stack, f"jobs/{taken}")["waiting"]["reason"] == "newer_version"
        said = get(stack, f"batches/{newer}/explain")
        assert reasons(stack, newer) == {"newer_version": 40}
        assert "made by a newer release" in said["summary"]
        assert (said["running"], said["done"]) == (0, 0)
        assert len(stack.simulator.calls()) == 40
        log = stack.log("worker-1")
        assert log.count("newer_version_left") == 1, log

        records.batch(newer, VERSION)
        assert len(outcomes(client, wait_for_end(client, newer, 20))) == 40

        found = records.lone.claim(waited=9, rest=9, holder="newer", lease_s=30, reads=NEXT)
        assert found is not None, "a worker of its release has it at once"
        assert ids(found) == [taken]
        records.lone.finish([result(taken)], writer="newer", serial=1)
        assert get(stack, f"jobs/{taken}")["status"] == "completed"


def test_beside_a_newer_worker_an_old_one_leaves_shards_to_it(stack: Stack, records: Records) -> None:
    with stack.client as client:
        newer = running(client, 40)
        records.batch(newer, NEXT)
        with records.a_newer_worker():
            stack.start_worker()
            wait_for(
                lambda: "newer_version_left" in stack.log("worker-1"), 20, "the worker to have met a shard"
            )
            wait_for_end(client, submit(client, lines(40)).id)
            assert reasons(stack, newer).get("newer_version", 0) > 0
            assert get(stack, f"batches/{newer}/explain")["done"] == 0
        assert stack.log("worker-1").count("newer_version_left") == 1
        records.batch(newer, VERSION)
        assert len(outcomes(client, wait_for_end(client, newer, 20))) == 40


def test_the_api_says_by_name_that_it_does_not_understand_a_newer_record(
    stack: Stack, records: Records
) -> None:
    with stack.client as client:
        strange, plain = running(client, 2), running(client, 2)
        records.batch(strange, NEXT)
        records.spoil(strange)
        for path in ("", "/explain"):
            answer = requests.get(f"{stack.base_url}/batches/{strange}{path}", timeout=5)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "newer_version")
            assert int(answer.headers["retry-after"]) >= 1
        assert [batch.id for batch in client.batches.list()] == [plain]
