"""What is promised, as a real Valkey counts it; and which scripts it runs when it is full."""

import itertools
import random
from collections.abc import Iterator
from importlib.resources import files

import pytest
import redis
from support.ledgers import index, outcome, spec, worker
from support.lone import job, result
from support.valkey import Valkey, running_valkey
from support.waiting import wait_for

from shared.errors import NO_ROOM, StoreUnavailableError
from shared.jobs import Split
from shared.redis_client import connect
from shared.redis_files import RedisFiles
from shared.redis_ledger import RedisLedger
from shared.redis_lone import RedisLone
from shared.redis_room import room_reader
from shared.redis_url import parse_redis_url
from shared.scripts import Scripts, source

BEGINS = {
    "answered_since",
    "claim",
    "create",
    "feed",
    "lone_claim",
    "lone_hint",
    "lone_submit",
    "pin",
    "progress",
    "put",
    "room",
    "segment",
}
"""Scripts that begin something new, or only read."""


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    """One of its own: its memory is played with."""
    with running_valkey() as valkey:
        yield valkey


@pytest.fixture
def client(server: Valkey) -> Iterator["redis.Redis"]:
    found = connect(parse_redis_url(server.url), role="worker", max_connections=4)
    found.config_set("maxmemory", 512 * 2**20)
    found.flushall()
    yield found
    found.close()
    found.connection_pool.disconnect()


def fill(client: "redis.Redis") -> None:
    wait_for(
        lambda: client.info("memory")["used_memory"] < 15 * 2**20, 10, "what was deleted before to be freed"
    )
    client.config_set("maxmemory", 16 * 2**20)
    client.setrange("filler", 16 * 2**20, "x")


def test_lone_jobs_without_an_outcome_are_what_is_counted(client: "redis.Redis") -> None:
    """Any history of submits, claims, retries, answers, cancels, departures, expiry and deletes."""
    rng = random.Random(5)
    lone, room = RedisLone(client), room_reader(client, "le", least_answer_bytes=1)
    known: list[str] = []
    serials = itertools.count(1)
    for _ in range(400):
        what = rng.choice(
            ["submit", "submit", "claim", "finish", "split", "cancel", "leave", "delete", "reap"]
        )
        some = rng.sample(known, min(len(known), 2))
        if what == "submit":
            new = [job(caller=rng.choice(["", "api"]), window_s=rng.choice([0.001, 600])) for _ in range(3)]
            lone.submit(new)
            known += [n.spec.id for n in new]
        elif what in {"claim", "split"}:
            found = lone.claim(waited=2, rest=2, holder="w", lease_s=rng.choice([0.001, 600]))
            if found is not None and what == "split":
                ids = tuple(slip.id for slip in found.slips)
                lone.split(found.ref, found.token, Split(kind="retry", jobs=ids, delay_s=0.0))
        elif what == "finish":
            lone.finish([result(i, ok=rng.random() < 0.8) for i in some], writer="w", serial=next(serials))
        elif what == "reap":
            lone.reap(most=100)
        else:
            for i in some:
                if what == "leave":
                    lone.leave(i, "api", cancel=True)
                else:
                    lone.cancel(i) if what == "cancel" else lone.delete(i)
        states = [lone.get(i) for i in known]
        assert room().open_jobs == sum(s is not None and not s.status.terminal for s in states)


def test_a_batch_counts_from_its_creation(client: "redis.Redis") -> None:
    ledger, room = RedisLedger(client), room_reader(client, "le", least_answer_bytes=1)
    made = spec(lines=100)
    ledger.create(made)
    assert room().open_jobs == 100
    chore = ledger.take_chore(60)
    assert chore is not None
    ledger.start(chore, index=index(98), model=None)  # two of the lines were blank
    assert room().open_jobs == 98
    ledger.cancel(made.id)
    assert room().open_jobs == 0


def test_the_average_answer_follows_what_comes(client: "redis.Redis") -> None:
    ledger, room = RedisLedger(client), room_reader(client, "le", least_answer_bytes=50)
    made = spec()
    ledger.create(made)
    chore = ledger.take_chore(60)
    assert chore is not None
    ledger.start(chore, index=index(2000), model=None)
    assert room().answer_bytes == 50
    serials = itertools.count(1)

    def answer(jobs: range, size: int, *, ok: bool = True) -> int:
        rows = [outcome(n, ok=ok, line=b"x" * size) for n in jobs]
        ledger.finish(made.id, rows, writer="w", serial=next(serials))
        return room().answer_bytes

    assert answer(range(10), 100) == 100
    assert answer(range(10), 9000) == 100, "a second answer is not stored"
    assert answer(range(10, 20), 9000, ok=False) == 100, "nor does an error say how long answers are"
    assert answer(range(20, 120), 1100) == 200
    assert 900 < answer(range(120, 2000), 1000) <= 1000


@pytest.mark.parametrize("flags", [True, False])
def test_what_was_accepted_goes_on_while_memory_is_full(client: "redis.Redis", flags: bool) -> None:
    """With the scripts' flags, and as on servers that know none."""
    ledger, lone, store = RedisLedger(client), RedisLone(client), RedisFiles(client)
    for part in (ledger, lone, store):
        part._run.__self__._flags = flags  # type: ignore[union-attr]
    made, alone = spec(), job()
    ledger.create(made)
    chore = ledger.take_chore(60)
    assert chore is not None
    ledger.start(chore, index=index(10), model=None)
    ledger.beat(worker())
    (ref,) = ledger.feed(shard_size=10, most=1)
    claim = ledger.claim(ref, holder="w", lease_s=60)
    assert claim is not None
    lone.submit([alone])
    assert lone.claim(waited=1, rest=1, holder="w", lease_s=60) is not None

    fill(client)
    for refused in (
        lambda: ledger.create(spec()),
        lambda: lone.submit([job()]),
        lambda: store.put("file-1", 0, [b"x"]),
    ):
        with pytest.raises(StoreUnavailableError) as caught:
            refused()
        assert caught.value.code == NO_ROOM
    ledger.ping()
    ledger.beat(worker())
    assert ledger.lead("w", 5)
    assert ledger.renew([(claim.ref, claim.token)], lease_s=60) == ["held"]
    assert ledger.finish(made.id, [outcome(0)], writer="w", serial=1).accepted == (True,)
    assert ledger.split(claim.ref, claim.token, Split(kind="retry", jobs=(1,), delay_s=0)) is not None
    assert ledger.release(claim.ref, claim.token)
    ledger.reap(most=10)
    assert lone.finish([result(alone.spec.id)], writer="v", serial=1).accepted == (True,)
    lone.reap(most=10)
    lone.delete(alone.spec.id)
    ledger.cancel(made.id)
    chore = ledger.take_chore(60)
    assert chore is not None
    assert ledger.seal(chore, 0)
    assert len(ledger.segment(made.id, 0).results) == 1
    store.put(made.output_file_id, 0, [b"answers"], promised=True)
    assert ledger.roll_up(made.id, 0, output=(1, 7), errors=(0, 0))
    assert ledger.end(chore) is not None
    assert list(store.read(made.output_file_id, 1)) == [b"answers"]
    store.discard(made.output_file_id)


def test_every_script_but_those_that_begin_something_may_run_when_memory_is_full() -> None:
    names = {f.name.removesuffix(".lua") for f in (files("shared") / "lua").iterdir()}
    flagged = {n for n in names if not n.startswith("_") and source(n).startswith("#!lua flags=allow-oom\n")}
    assert {n for n in names if not n.startswith("_")} - flagged == BEGINS


def test_a_server_that_knows_no_flags_is_found_out(client: "redis.Redis") -> None:
    class Old(redis.Redis):
        """Redis 6.2's answer to a script that begins with flags."""

        def evalsha(self, sha: str, numkeys: int, *args: object) -> object:
            text = next(
                t for t in (source("beat"), source("beat", flags=False)) if sha == self.register_script(t).sha
            )
            if text.startswith("#!"):
                raise redis.exceptions.ResponseError(
                    "Error compiling script (new function): user_script:1: unexpected symbol near '#'"
                )
            return self.eval(text, numkeys, *args)  # type: ignore[arg-type]

    old = Old(connection_pool=client.connection_pool)
    run = Scripts(old, "le").run
    for _ in range(2):
        assert run("beat", id="w", record=False, capacity=0, timeout_s=1) == 1
