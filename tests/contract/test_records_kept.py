"""The hashes as they stand in Redis: which fields they have, and what becomes of what a newer release put there."""

import json
from typing import Any

import msgspec
import pytest
import redis
from support import golden
from support.gates import valkey_gate
from support.ledgers import index, outcome, spec, worker
from support.lone import claim, job, result
from support.stores import Stores
from support.versions import age_batch, age_job

from shared.breaker import Circuit, State
from shared.catalogue import Breaker
from shared.condition import Condition
from shared.errors import NewerRecordError
from shared.gate import Ask, Candidate, Report
from shared.jobs import Chore, Fault, History, Split
from shared.keys import Keys
from shared.redis_ledger import RedisLedger
from shared.versions import VERSION

NEXT = VERSION + 1
TEST = "tests/contract/test_records_kept.py"

on_valkey = pytest.mark.parametrize("new_stores", ["valkey"], indirect=True)


def redis_of(stores: Stores) -> tuple[Any, Keys]:
    assert isinstance(stores.ledger, RedisLedger)
    return stores.ledger._redis, stores.ledger._keys


def take(stores: Stores) -> Chore:
    chore = stores.ledger.take_chore(5.0)
    assert chore is not None
    return chore


def parked(job: int | str, since: float = 0.0) -> Split:
    jobs: Any = (job,)
    return Split(
        kind="park",
        jobs=jobs,
        delay_s=0.0,
        provider="p1",
        charged=False,
        reason="breaker_open",
        wait_for=("p1",),
        claimed_at=since,
    )


class Fields:
    """Gathers the fields of one fleet's hashes, under the names that the register of keys has for them."""

    def __init__(self, stores: Stores) -> None:
        self._redis, keys = redis_of(stores)
        self._prefix = keys.prefix
        self.found: dict[str, set[str]] = {}

    def look(self) -> None:
        for raw in self._redis.scan_iter(f"{self._prefix}:*", _type="hash"):
            kind = _kind(raw.decode().removeprefix(f"{self._prefix}:").split(":"))
            if kind:
                self.found.setdefault(kind, set()).update(name.decode() for name in self._redis.hkeys(raw))


def _kind(parts: list[str]) -> str | None:
    if parts[0] == "b" and len(parts) == 2:
        return "b:ID"
    if parts[0] == "b" and parts[2] == "s":
        return "b:ID:s:N"
    return "j:ID" if parts[0] == "j" else None


@on_valkey
def test_the_fields_of_hashes_are_those_of_the_golden_file(
    stores: Stores, request: pytest.FixtureRequest
) -> None:
    ledger, fields = stores.ledger, Fields(stores)
    ledger.beat(worker())
    bad = spec()
    ledger.create(bad)
    ledger.reject(take(stores), [Fault(code="x", message="y")])
    made = spec(max_cost_nanos=1)
    ledger.create(made)
    fields.look()
    assert ledger.start(take(stores), index=index(2), model="m")
    (ref,) = ledger.feed(shard_size=10, most=10)
    held = ledger.claim(ref, holder="w", lease_s=9)
    assert held is not None
    fields.look()
    assert ledger.split(ref, held.token, parked(1))
    ledger.finish(made.id, [outcome(0, claim=held)], writer="w", serial=1)
    ledger.release(ref, held.token)
    fields.look()
    ledger.cancel(made.id, Fault(code="max_cost_reached", message="z"))
    chore = take(stores)
    ledger.seal(chore, 0)
    ledger.roll_up(made.id, 0, output=(1, 7), errors=(1, 7))
    assert ledger.end(chore) is not None
    new = [job(caller="a", fingerprint="f"), job()]
    stores.lone.submit(new)
    taken = claim(stores.lone)
    stores.lone.leave(new[0].spec.id, "a", cancel=True)
    fields.look()
    assert stores.lone.attach("default", "f", "") == new[0].spec.id
    fields.look()
    stores.lone.split(taken.ref, taken.token, parked(new[0].spec.id, taken.claimed_at))
    stores.lone.finish([result(new[1].spec.id)], writer="w", serial=2)
    fields.look()
    form = {name: sorted(found) for name, found in sorted(fields.found.items())}
    golden.check("hashes", form, renew=bool(request.config.getoption("golden")), test=TEST)


@on_valkey
def test_a_batch_from_before_versions_is_of_the_first(stores: Stores) -> None:
    made = spec()
    stores.ledger.create(made)
    client, keys = redis_of(stores)
    client.hdel(keys.batch(made.id), "v")
    found = stores.ledger.get(made.id)
    assert found is not None
    assert found.v == 1
    assert stores.ledger.start(take(stores), index=index(1), model="m")
    stores.ledger.beat(worker())
    (ref,) = stores.ledger.feed(shard_size=10, most=10)
    assert stores.ledger.claim(ref, holder="w", lease_s=9) is not None


@on_valkey
def test_a_lone_job_from_before_versions_is_of_the_first(stores: Stores) -> None:
    new = job()
    stores.lone.submit([new])
    client, keys = redis_of(stores)
    client.hdel(keys.job(new.spec.id), "v")
    assert [slip.id for slip in claim(stores.lone).slips] == [new.spec.id]


@on_valkey
def test_a_newer_batch_is_shown_as_far_as_it_is_understood(stores: Stores) -> None:
    plain, strange = spec(), spec()
    for made in (plain, strange):
        stores.ledger.create(made)
        age_batch(stores, made.id, NEXT)
    client, keys = redis_of(stores)
    raw = json.loads(client.hget(keys.batch(plain.id), "spec"))
    client.hset(keys.batch(plain.id), "spec", json.dumps({**raw, "newer": {"a": 1}}))
    client.hset(keys.batch(strange.id), "spec", json.dumps({**raw, "window_s": {"of": "another form"}}))
    found = stores.ledger.get(plain.id)
    assert found is not None
    assert (found.v, found.spec) == (NEXT, plain)
    with pytest.raises(NewerRecordError, match=f"version {NEXT}.*up to {VERSION}") as caught:
        stores.ledger.get(strange.id)
    assert caught.value.status == 503
    listed, more = stores.ledger.page("default", after=None, limit=10)
    assert ([batch.spec.id for batch in listed], more) == ([plain.id], False)


@on_valkey
def test_a_newer_lone_job_is_shown_as_far_as_it_is_understood(stores: Stores) -> None:
    plain, strange = job(), job()
    stores.lone.submit([plain, strange])
    for made in (plain, strange):
        age_job(stores, made.spec.id, NEXT)
    client, keys = redis_of(stores)
    client.hset(keys.job(strange.spec.id), "status", "dreaming")
    found = stores.lone.get(plain.spec.id)
    assert found is not None
    assert found.spec == plain.spec
    with pytest.raises(NewerRecordError):
        stores.lone.get(strange.spec.id)
    listed, _ = stores.lone.page("default", after=None, limit=10)
    assert [made.spec.id for made in listed] == [plain.spec.id]


@on_valkey
def test_a_broken_record_of_this_version_is_an_error_still(stores: Stores) -> None:
    made = spec()
    stores.ledger.create(made)
    client, keys = redis_of(stores)
    client.hset(keys.batch(made.id), "spec", "{}")
    with pytest.raises(ValueError, match="id"):
        stores.ledger.get(made.id)


@on_valkey
def test_what_a_newer_release_adds_to_a_history_outlives_the_scripts_of_this_one(stores: Stores) -> None:
    made = spec()
    stores.ledger.create(made)
    assert stores.ledger.start(take(stores), index=index(2), model="m")
    stores.ledger.beat(worker())
    (ref,) = stores.ledger.feed(shard_size=10, most=10)
    client, keys = redis_of(stores)
    before = {**msgspec.to_builtins(History(attempts=1, since=5.0)), "newer": {"a": "b"}}
    client.hset(keys.histories(made.id), "1", json.dumps(before))
    held = stores.ledger.claim(ref, holder="w", lease_s=9)
    assert held is not None
    assert held.slips[1].history == History(attempts=1, since=5.0)
    assert stores.ledger.split(ref, held.token, parked(1))
    after = json.loads(client.hget(keys.histories(made.id), "1"))
    assert (after["newer"], after["parked"]) == ({"a": "b"}, 1)


def test_what_a_newer_release_adds_to_a_condition_outlives_the_scripts_of_this_one(valkey_url: str) -> None:
    timed, client = valkey_gate(valkey_url), redis.Redis.from_url(valkey_url)
    key = Keys(timed.prefix).provider("a")
    client.set(
        key,
        json.dumps(
            {
                **msgspec.to_builtins(Condition()),
                "newer": {"a": [1, {"b": "c"}]},
                "breakers": {"a": {**msgspec.to_builtins(Circuit()), "newer": 3}},
                "cool_downs": {"b": {"until": 1.0, "times": 1, "newer": "x"}},
            }
        ),
    )
    candidate = Candidate("a", "a", "k1", "m")
    for serial in range(1, 7):
        told = timed.gate.exchange(
            [Ask(f"p{serial}", (candidate,))],
            [Report(f"p{serial}", candidate, 0, "failed", code="provider_failed", message="boom")],
            settings=Breaker(),
            sender="s",
            serial=serial,
            spread=0.0,
        )
    assert dict(told.conditions)["a"].breakers["a"].state is State.OPEN
    timed.gate.change("a", "disable", settings=Breaker())
    kept = json.loads(client.get(key) or "")
    assert kept["newer"] == {"a": [1, {"b": "c"}]}
    assert kept["breakers"]["a"]["newer"] == 3
    assert kept["cool_downs"]["b"]["newer"] == "x"
    assert (kept["failures"], kept["disabled"]) == (6, True)
    assert timed.gate.look(["a"])[1][0].condition.disabled
