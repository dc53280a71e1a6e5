"""Real processes that run calls through one breaker on Valkey, each writing down all that the gate told it.

with running_callers(url, 8) as callers:
    for caller in callers:
        caller.begin("hammer", prefix, settings, seed=1, steps=300)
    logs = [caller.answer() for caller in callers]
"""

import itertools
import multiprocessing
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import msgspec
import pybreaker
import redis

from shared import redis_gate
from shared.catalogue import Breaker
from shared.errors import ProviderFailedError, RequestRefusedError
from shared.gate import Ask, Candidate, Change, Exchanged, Flight, Report, Seen, Verdict
from shared.limits import Limit
from shared.permits import DirectDoorman
from shared.redis_client import connect
from shared.redis_gate import RedisGate
from shared.redis_url import parse_redis_url
from shared.shared_breaker import PermitRefusedError, SharedBreaker

PROVIDER = "hammered"
ANSWER_S = 60.0
MOST_AT_ONCE = 4
_spawn = multiprocessing.get_context("spawn")


class Entry(msgspec.Struct, frozen=True):
    """One exchange, at the store's time `now`: a report or an ask, and what came of it."""

    now: float
    permit: str
    report: Report | None
    verdict: Verdict | None
    changes: tuple[Change, ...]


class Log(msgspec.Struct, frozen=True):
    """What one process saw, and the changes of state its breaker's listeners were told of."""

    entries: list[Entry]
    told: list[tuple[str, str]]


# in the processes


class _Noting(RedisGate):
    def __init__(self, client: redis.Redis, prefix: str) -> None:
        super().__init__(client, prefix)
        self.entries: list[Entry] = []

    def exchange(self, asks: Sequence[Ask], reports: Sequence[Report], **how: Any) -> Exchanged:
        told = super().exchange(asks, reports, **how)
        for report in reports:
            self.entries.append(Entry(told.now, report.permit, report, None, told.changes))
        for ask, verdict in zip(asks, told.verdicts, strict=True):
            self.entries.append(Entry(told.now, ask.permit, None, verdict, told.changes))
        return told


class _Hearing(pybreaker.CircuitBreakerListener):
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def state_change(self, _: pybreaker.CircuitBreaker, old: Any, new: Any) -> None:
        self.told.append((old.name, new.name))


class _Caller:
    """A gate, a doorman and a breaker of this process's own."""

    def __init__(self, client: redis.Redis, prefix: str, settings: Breaker) -> None:
        self._gate = _Noting(client, prefix)
        self._hearing = _Hearing()
        doorman = DirectDoorman(self._gate, settings, self._heard)
        candidate = Candidate(PROVIDER, PROVIDER, "", "")
        self._breaker = SharedBreaker(self._gate, doorman, candidate, settings, listeners=[self._hearing])
        self._calls: list[AbstractContextManager[None]] = []
        self._settings = settings
        self._name = f"caller-{os.getpid()}"
        self._serials = itertools.count(1)
        self._held = 0

    def _heard(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._breaker.on_change(change)

    def hammer(self, seed: int, steps: int) -> Log:
        """Calls that begin, overlap and end by the seed's chance; all have ended when this returns."""
        chance = random.Random(seed)
        for _ in range(steps):
            if len(self._calls) == MOST_AT_ONCE or (self._calls and chance.random() < 0.5):
                self._end(chance)
            else:
                self._begin()
        while self._calls:
            self._end(chance)
        return self.log()

    def ask(self, times: int) -> Log:
        """Calls that begin, and do not end."""
        for _ in range(times):
            self._begin()
        return self.log()

    def fail(self, times: int) -> Log:
        for _ in range(times):
            self._begin()
            self._ended(self._calls.pop(), ProviderFailedError("down"))
        return self.log()

    def look(self) -> list[Seen]:
        return self._gate.look([PROVIDER])[1]

    # under limits, as a gatekeeper asks: one sender, which tells what it holds

    def draw(self, rpm: int, span_ms: int) -> list[float]:
        """When calls began, asking again whenever one may, for so long."""
        limited = self._under(Limit("p:a", "rpm", 1.0, float(rpm)))
        found, ends = [], time.monotonic() + span_ms / 1000
        while time.monotonic() < ends:
            told = self._one(limited)
            if told.verdicts[0].choice == 0:
                found.append(told.now)
            else:
                time.sleep(max(0.0, told.verdicts[0].blocks[0].until - told.now))
        return found

    def hold(self, calls: int, silent_ms: int, times: int) -> int:
        """How many calls it has begun by now and does not end."""
        redis_gate._NUMBERS["silent_s"] = silent_ms / 1000
        limited = self._under(Limit("p:a", "concurrency", 1.0, float(calls)))
        for _ in range(times):
            self._held += self._one(limited).verdicts[0].choice == 0
        return self._held

    @staticmethod
    def _under(limit: Limit) -> Candidate:
        return Candidate(PROVIDER, PROVIDER, "", "", "", (limit,))

    def _one(self, candidate: Candidate) -> Exchanged:
        serial = next(self._serials)
        return self._gate.exchange(
            [Ask(f"{self._name}:{serial}", (candidate,))],
            [],
            settings=self._settings,
            sender=self._name,
            serial=serial,
            spread=0.0,
            flight=Flight({"p:a": self._held}),
        )

    def log(self) -> Log:
        return Log(self._gate.entries, self._hearing.told)

    def _begin(self) -> None:
        call = self._breaker.calling()
        try:
            call.__enter__()
        except PermitRefusedError:
            return
        self._calls.append(call)

    def _end(self, chance: random.Random) -> None:
        call = self._calls.pop(chance.randrange(len(self._calls)))
        ends = [None, ProviderFailedError("down"), RequestRefusedError("the request's own fault")]
        self._ended(call, chance.choices(ends, weights=[45, 50, 5])[0])

    @staticmethod
    def _ended(call: AbstractContextManager[None], error: Exception | None) -> None:
        call.__exit__(type(error) if error else None, error, None)


def _serve(pipe: Connection, url: str) -> None:
    client = connect(parse_redis_url(url), role="worker", max_connections=2)
    callers: dict[str, _Caller] = {}
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        what, prefix, settings, arguments = order
        caller = callers.get(prefix) or callers.setdefault(prefix, _Caller(client, prefix, settings))
        pipe.send(getattr(caller, what)(**arguments))


# in the test


class CallerProcess:
    """One of them: `begin` gives it something to do, `answer` waits for what came of it."""

    def __init__(self, url: str) -> None:
        self._pipe, theirs = _spawn.Pipe()
        self._process: SpawnProcess = _spawn.Process(target=_serve, args=(theirs, url), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, what: str, prefix: str, settings: Breaker, **arguments: int) -> None:
        self._pipe.send((what, prefix, settings, arguments))

    def answer(self) -> Any:
        assert self._pipe.poll(ANSWER_S), f"process {self._process.pid} was silent for {ANSWER_S:g} s"
        return self._pipe.recv()

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


@contextmanager
def running_callers(url: str, count: int) -> Iterator[list[CallerProcess]]:
    with ExitStack() as running:
        callers = []
        for _ in range(count):
            callers.append(CallerProcess(url))
            running.callback(callers[-1].kill)
        for caller in callers:
            assert caller.answer() == "ready"
        yield callers


def all_at_once(
    callers: Sequence[CallerProcess], what: str, prefix: str, settings: Breaker, **arguments: int
) -> list[Any]:
    """What each of them answers; a `seed` is another one for each."""
    for n, caller in enumerate(callers):
        own = {"seed": 1000 * arguments["seed"] + n} if "seed" in arguments else {}
        caller.begin(what, prefix, settings, **{**arguments, **own})
    return [caller.answer() for caller in callers]
