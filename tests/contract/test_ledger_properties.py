"""Any interleaving of submit, claim, renew, finish, retry, park, reap and crash keeps: every job exactly one outcome, counts equal.

And at most one shard of suspects is out, whose jobs are few.
"""

import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from support.ledgers import index, outcome, spec, worker

from shared import suspects
from shared.clock import ManualClock
from shared.jobs import SEGMENT, Batch, Chore, Claim, Split
from shared.ledger import Ledger
from shared.memory_ledger import MemoryLedger
from shared.redis_client import connect
from shared.redis_ledger import RedisLedger
from shared.redis_room import room_reader
from shared.redis_url import parse_redis_url

_names = itertools.count()
_serials = itertools.count(1)
LONG_S = 10_000.0


class Door:
    """A ledger, and what a test may do to it that no caller can: let everything come due, and add up the load."""

    ledger: Ledger

    def lapse(self) -> None:
        """Every lease, hint and due time is over."""
        raise NotImplementedError

    def loads(self) -> tuple[int, int]:
        """The fleet's load as counted, and as the shards add up to."""
        raise NotImplementedError

    def open_jobs(self) -> int:
        """How many answers have their room promised."""
        raise NotImplementedError

    def suspects_out(self) -> list[int]:
        """How many jobs the shards of suspects have that are out; without those of which nothing is left to do."""
        raise NotImplementedError


class MemoryDoor(Door):
    def __init__(self) -> None:
        self._clock = ManualClock()
        self.ledger = self._memory = MemoryLedger(self._clock)

    def lapse(self) -> None:
        for batch in self._memory._batches.values():
            for shard in batch.shards.values():
                shard.at = shard.due = 0.0
        waiting = self._memory._lane.waiting
        waiting.update(dict.fromkeys(waiting, 0.0))

    def suspects_out(self) -> list[int]:
        shards = [s for b in self._memory._batches.values() for s in b.shards.values()]
        return [s.counted for s in shards if s.lane and s.state in {"hinted", "leased"} and s.counted]

    def loads(self) -> tuple[int, int]:
        shards = [s for b in self._memory._batches.values() for s in b.shards.values()]
        held = [s for s in shards if s.state in {"hinted", "leased"}]
        return self._memory.load, sum(s.counted for s in held)

    def open_jobs(self) -> int:
        """The twin keeps no such figure; its states are the model."""
        batches = self._memory._batches.values()
        return sum(len(b.pending(range(b.view.total))) for b in batches if not b.closing)


class ValkeyDoor(Door):
    url: ClassVar[str]

    def __init__(self) -> None:
        self._prefix = f"p{next(_names)}"
        self._redis: Any = connect(parse_redis_url(self.url), role="worker", max_connections=4)
        self.ledger = RedisLedger(self._redis, self._prefix)
        self._room = room_reader(self._redis, self._prefix, least_answer_bytes=1)

    def open_jobs(self) -> int:
        return self._room().open_jobs

    def lapse(self) -> None:
        for name in ("leases", "hints", "later"):
            key = f"{self._prefix}:{name}"
            for ref in self._redis.zrange(key, 0, -1):
                self._redis.zadd(key, {ref: 1.0})
                batch_id, _, number = ref.decode().rpartition("/")
                self._redis.hset(f"{self._prefix}:b:{batch_id}:s:{number}", "due", "1.0")

        for name in self._redis.zrange(f"{self._prefix}:suspects", 0, -1):
            self._redis.zadd(f"{self._prefix}:suspects", {name: 1.0})

    def _out(self) -> list[str]:
        """The shards that are hinted at or held."""
        refs = [
            r.decode()
            for name in ("leases", "hints")
            for r in self._redis.zrange(f"{self._prefix}:{name}", 0, -1)
        ]
        return [f"{self._prefix}:b:{r.rpartition('/')[0]}:s:{r.rpartition('/')[2]}" for r in refs]

    def suspects_out(self) -> list[int]:
        counts = [int(n) for n, lane in (self._redis.hmget(k, "n", "lane") for k in self._out()) if lane]
        return [n for n in counts if n]

    def loads(self) -> tuple[int, int]:
        keys = self._out()
        return int(self._redis.get(f"{self._prefix}:load") or 0), sum(
            int(self._redis.hget(k, "n")) for k in keys
        )


class Fleet(RuleBasedStateMachine):
    """Workers claim, answer, fail, park, crash and come back late, in any order."""

    door_type: ClassVar[type[Door]]
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.door = self.door_type()
        self.ledger = self.door.ledger
        self.first: dict[tuple[str, int], bool] = {}
        self.totals: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self.refs: list[str] = []

    @initialize(capacity=st.sampled_from([5, 30, 1000]))
    def hire(self, capacity: int) -> None:
        self.ledger.beat(worker("w1", capacity))

    @rule(total=st.integers(1, 25))
    def submit(self, total: int) -> None:
        if len(self.totals) >= 3:
            return
        made = spec(id=f"batch_{len(self.totals)}")  # the same in every run of an example
        self.ledger.create(made)
        chore = self.ledger.take_chore(LONG_S)
        while chore is not None and chore.batch_id != made.id:  # another batch's end can wait
            chore = self.ledger.take_chore(LONG_S)
        assert chore is not None
        assert self.ledger.start(chore, index=index(total), model=None)
        self.totals[made.id] = total

    @rule(size=st.integers(1, 9))
    def feed(self, size: int) -> None:
        self.refs += self.ledger.feed(shard_size=size, most=3)

    @rule(target=claims, data=st.data(), holder=st.sampled_from(["w1", "doomed"]))
    def claim(self, data: st.DataObject, holder: str) -> Any:
        """By a worker that beats, or by one that is never heard of: what it holds when its lease ends counts a death."""
        if not self.refs:
            return multiple()
        ref = data.draw(st.sampled_from(self.refs))  # doubled and stale hints included
        claim = self.ledger.claim(ref, holder=holder, lease_s=LONG_S)
        return multiple() if claim is None else claim

    @rule(claim=claims, data=st.data(), ok=st.booleans())
    def finish(self, claim: Claim, data: st.DataObject, ok: bool) -> None:
        jobs = data.draw(st.lists(st.sampled_from([s.index for s in claim.slips]), min_size=1, max_size=4))
        self._finish(claim, jobs, ok=ok)

    def _finish(self, claim: Claim, jobs: list[int], *, ok: bool) -> None:
        outcomes = [outcome(job, ok=ok, claim=claim) for job in jobs]
        serial = next(_serials)
        done = self.ledger.finish(claim.batch_id, outcomes, writer="w1", serial=serial)
        assert self.ledger.finish(claim.batch_id, outcomes, writer="w1", serial=serial) == done
        for job, accepted in zip(jobs, done.accepted, strict=True):
            new = (claim.batch_id, job) not in self.first
            assert accepted == new
            self.first.setdefault((claim.batch_id, job), ok)

    @rule(claim=claims, data=st.data(), kind=st.sampled_from(["retry", "park"]), late=st.booleans())
    def split(self, claim: Claim, data: st.DataObject, kind: Any, late: bool) -> None:
        jobs = data.draw(st.sets(st.sampled_from([s.index for s in claim.slips]), min_size=1))
        delay_s = LONG_S if late else 0.0
        split = Split(
            kind=kind, jobs=tuple(sorted(jobs)), delay_s=delay_s, provider="p1", charged=kind == "retry"
        )
        ref = self.ledger.split(claim.ref, claim.token, split)
        if ref is not None:
            self.refs.append(ref)

    @rule(claim=claims)
    def renew(self, claim: Claim) -> None:
        self.ledger.renew([(claim.ref, claim.token)], lease_s=LONG_S)

    @rule(claim=consumes(claims))
    def release(self, claim: Claim) -> None:
        self.ledger.release(claim.ref, claim.token)

    @rule(data=st.data())
    def decline(self, data: st.DataObject) -> None:
        if self.refs:
            self.ledger.decline(data.draw(st.sampled_from(self.refs)))

    @rule(most=st.sampled_from([1, 100]))
    def crash_and_reap(self, most: int) -> None:
        self.door.lapse()
        self.ledger.reap(most=most)

    @rule(size=st.integers(1, 25), deaths=st.integers(1, 6))
    def die_again_and_again(self, size: int, deaths: int) -> None:
        """Whoever gets anything dies of it, so that jobs become suspects, and some of them are blamed."""
        for _ in range(deaths):
            for ref in self.ledger.feed(shard_size=size, most=3):
                self.refs.append(ref)
                self.ledger.claim(ref, holder="doomed", lease_s=LONG_S)
            self.crash_and_reap(100)
            self.one_shard_of_suspects_is_out()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.totals:
            batch_id = data.draw(st.sampled_from(sorted(self.totals)))
            self.ledger.cancel(batch_id)
            self.cancelled.add(batch_id)

    @invariant()
    def counts_are_those_of_the_first_outcomes(self) -> None:
        for batch_id in self.totals:
            batch = self._batch(batch_id)
            mine = [ok for (b, _), ok in self.first.items() if b == batch_id]
            assert (batch.completed, batch.failed) == (sum(mine), len(mine) - sum(mine))

    @invariant()
    def the_load_adds_up(self) -> None:
        counted, summed = self.door.loads()
        assert counted == summed

    @invariant()
    def one_shard_of_suspects_is_out(self) -> None:
        out = self.door.suspects_out()
        assert len(out) <= 1
        assert all(jobs <= suspects.GROUP for jobs in out)

    @invariant()
    def room_is_promised_to_every_job_without_an_outcome(self) -> None:
        still = [b for b in self.totals if b not in self.cancelled]
        ended = sum(b in still for b, _ in self.first)
        assert self.door.open_jobs() == sum(self.totals[b] for b in still) - ended

    def _batch(self, batch_id: str) -> Batch:
        batch = self.ledger.get(batch_id)
        assert batch is not None
        return batch

    def teardown(self) -> None:
        """After any history, what is left runs to its end, and every job has ended once."""
        self.ledger.beat(worker("w1", 10_000))
        for _ in range(200):
            if all(self._batch(b).status.value in {"finalizing", "cancelling"} for b in self.totals):
                break
            self.door.lapse()
            self.ledger.reap(most=100)
            for ref in self.ledger.feed(shard_size=50, most=100):
                claim = self.ledger.claim(ref, holder="w1", lease_s=LONG_S)
                if claim is not None:
                    self._finish(claim, [slip.index for slip in claim.slips], ok=True)
                    self.ledger.release(claim.ref, claim.token)
        self.door.lapse()
        self.ledger.reap(most=100)
        for batch in self._end_all():
            mine = [ok for (b, _), ok in self.first.items() if b == batch.spec.id]
            total = self.totals[batch.spec.id]
            assert batch.completed == sum(mine)
            assert batch.completed + batch.failed == batch.total == total
            assert batch.spec.id in self.cancelled or len(mine) == total
        assert self.door.loads() == (0, 0)
        assert self.door.open_jobs() == 0

    def _end_all(self) -> Iterator[Batch]:
        for batch_id, total in self.totals.items():
            token = 0
            ended = None
            while ended is None:  # a chore that was taken above may still be leased: try its tokens
                token += 1
                assert token < 50, f"{batch_id} never ends"
                chore = Chore(batch_id=batch_id, kind="finalize", token=token)
                for segment in range(-(-total // SEGMENT)):
                    self.ledger.seal(chore, segment)
                ended = self.ledger.end(chore)
            yield ended


class MemoryFleet(Fleet):
    door_type = MemoryDoor


class ValkeyFleet(Fleet):
    door_type = ValkeyDoor


TestMemoryFleet = MemoryFleet.TestCase
TestMemoryFleet.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def _server(valkey_url: str) -> None:
    ValkeyDoor.url = valkey_url


TestValkeyFleet = ValkeyFleet.TestCase
TestValkeyFleet.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
