"""Stores of lone jobs with a door for tests: let time pass without waiting, and look at where each job is."""

import itertools
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from redis.client import PubSub

from shared.clock import ManualClock
from shared.keys import Keys
from shared.lone import LoneJobs
from shared.memory_lone import MemoryLone
from shared.redis_client import connect
from shared.redis_lone import RedisLone
from shared.redis_url import parse_redis_url

_names = itertools.count()


class Places(msgspec.Struct):
    """Where the jobs are: the two ready lists in order, those that wait for a due time, those held, and who waits for each.

    `suspects` wait for the lane; `out` are those of them that are held.
    """

    now: list[str]
    soon: list[str]
    later: set[str]
    held: dict[str, int]
    callers: dict[str, list[str]]
    suspects: set[str]
    out: set[str]


class Door(Protocol):
    lone: LoneJobs

    def pass_time(self, seconds: float) -> None: ...

    def places(self) -> Places: ...

    def beat(self, worker: str) -> None:
        """A worker is heard of."""

    def hear(self, caller: str) -> None:
        """From now on `caller` can be told of results."""

    def deafen(self, caller: str) -> None: ...

    def close(self) -> None: ...


class MemoryDoor:
    """Each look moves its clock a little, as time does on a server: nothing happens at the same moment."""

    def __init__(self) -> None:
        self._clock = ManualClock()
        self._memory = MemoryLone(self._clock)
        self.lone: LoneJobs = self._memory

    def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def places(self) -> Places:
        self._clock.advance(0.001)
        entries = self._memory._jobs
        return Places(
            now=list(self._memory._now_list),
            soon=list(self._memory._soon),
            later={j for j, e in entries.items() if e.due is not None},
            held={j: e.token for j, e in entries.items() if e.token is not None},
            callers={j: list(e.callers) for j, e in entries.items()},
            suspects={j for j in self._memory._lane.waiting if self._memory.in_lane(j)},
            out={j for j in entries if self._memory.is_out(j)},
        )

    def beat(self, worker: str) -> None:
        self._memory._lane.heard[worker] = self._clock.now()

    def hear(self, caller: str) -> None:
        self._memory.listening.add(caller)

    def deafen(self, caller: str) -> None:
        self._memory.listening.discard(caller)

    def close(self) -> None:
        pass


class ValkeyDoor:
    """Time passes by moving every record back: Redis' own clock cannot be set."""

    def __init__(self, url: str) -> None:
        self._prefix = f"lp{next(_names)}"
        self._keys = Keys(self._prefix)
        self._redis: Any = connect(parse_redis_url(url), role="worker", max_connections=8)
        self._ears: dict[str, Callable[[], None]] = {}
        self.lone: LoneJobs = RedisLone(self._redis, self._prefix)

    def _key(self, name: str) -> str:
        return f"{self._prefix}:lone:{name}"

    def pass_time(self, seconds: float) -> None:
        pipe = self._redis.pipeline()
        for name in ("later", "leases", "ends", "kept"):
            for job_id in self._redis.zrange(self._key(name), 0, -1):
                pipe.zincrby(self._key(name), -seconds, job_id)
        for key in (self._keys.alive, self._keys.suspects):
            for name in self._redis.zrange(key, 0, -1):
                pipe.zincrby(key, -seconds, name)
        if (until := self._redis.get(self._key("hinted"))) is not None:
            pipe.set(self._key("hinted"), float(until) - seconds)
        for name, at in self._redis.hgetall(self._key("reaped")).items():
            pipe.hset(self._key("reaped"), name, float(at) - seconds)
        claims = [self._key(f"c:{n + 1}") for n in range(int(self._redis.get(self._key("token")) or 0))]
        specs = [msgspec.json.decode(self._redis.hget(key, "spec")) for key in self._jobs()]
        same = {f"{self._prefix}:same:{spec['owner']}:{spec['fingerprint']}" for spec in specs}
        for key in (*claims, *same):
            left_ms = self._redis.pttl(key) - int(seconds * 1000)
            pipe.pexpire(key, left_ms) if left_ms > 0 else pipe.delete(key)
        pipe.execute()

    def _jobs(self) -> list[str]:
        ids = [job_id for name in ("ends", "kept") for job_id in self._redis.zrange(self._key(name), 0, -1)]
        return [self._keys.job(job_id.decode()) for job_id in ids]

    def places(self) -> Places:
        pipe = self._redis.pipeline()
        for name in ("now", "soon"):
            pipe.lrange(self._key(name), 0, -1)
        for name in ("later", "leases"):
            pipe.zrange(self._key(name), 0, -1)
        jobs = self._jobs()
        for key in jobs:
            pipe.hmget(key, "token", "callers", "lane", "status")
        pipe.zrange(self._keys.suspects, 0, -1)
        (*lists, leased), (*rows, waiting) = _halves(pipe.execute(), 4)
        now, soon, later = ([job_id.decode() for job_id in found] for found in lists)
        held, callers, lane = {}, {}, set()
        for key, (token, told, suspect, status) in zip(jobs, rows, strict=True):
            job_id = key.rpartition(":")[2]
            callers[job_id] = [caller for caller in told.decode().split(",") if caller]
            if token:
                held[job_id] = int(token)
            if suspect and status in {b"queued", b"in_progress"}:
                lane.add(job_id)
        assert {job_id.decode() for job_id in leased} == set(held), (
            "a lease without its holder, or the reverse"
        )
        in_lane = {job_id.decode() for job_id in waiting} & lane - set(held)
        return Places(now, soon, set(later), held, callers, in_lane, lane & set(held))

    def beat(self, worker: str) -> None:
        seconds, micros = self._redis.time()
        self._redis.zadd(self._keys.alive, {worker: seconds + micros / 1e6})

    def hear(self, caller: str) -> None:
        if caller not in self._ears:
            pubsub = PubSub(self._redis.connection_pool, ignore_subscribe_messages=True)
            pubsub.subscribe(self._keys.replies(caller))
            assert pubsub.get_message(timeout=5) is None  # the server has seen it
            self._ears[caller] = pubsub.close

    def deafen(self, caller: str) -> None:
        if (close := self._ears.pop(caller, None)) is not None:
            close()
            while self._redis.pubsub_numsub(self._keys.replies(caller))[0][1]:
                pass

    def close(self) -> None:
        for caller in list(self._ears):
            self.deafen(caller)
        self._redis.connection_pool.disconnect()


def _halves(found: list[Any], at: int) -> tuple[list[Any], list[Any]]:
    return found[:at], found[at:]
