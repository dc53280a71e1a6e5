"""Gates for tests: a memory twin or a real Valkey, both under a clock that the test moves."""

import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import redis

from shared import scripts
from shared.clock import ManualClock
from shared.gate import Gate
from shared.memory_gate import MemoryGate
from shared.redis_gate import RedisGate

_prefixes = itertools.count()
_EXPIRY = "math.max(1, math.ceil(n - t))"
_TIME = "  local t = call('TIME')\n  return tonumber(t[1]) + tonumber(t[2]) / 1e6\n"
START_S = 1_750_000_000.0


class Timed(msgspec.Struct):
    gate: Gate
    pass_time: Callable[[float], None]
    now: Callable[[], float]
    prefix: str = ""


def memory_gate() -> Timed:
    clock = ManualClock(START_S)
    return Timed(MemoryGate(clock), clock.advance, clock.now)


class _Client(redis.Redis):
    """Its TIME is the test's."""

    clock: ManualClock

    def time(self, **_: object) -> tuple[int, int]:
        now = self.clock.now()
        return int(now), int(now % 1 * 1e6)


def valkey_gate(url: str, *, patience_s: int = 0) -> Timed:
    """The scripts read the test's time from a key instead of asking the server.

    Keys go by the server's own time: `patience_s` keeps those of rates longer, for tests whose time may stand still.
    """
    prefix, clock = f"g{next(_prefixes)}", ManualClock(START_S)
    client: Any = _Client.from_url(url)
    client.clock = clock
    key = f"{prefix}:test-time"

    def pass_time(by_s: float) -> None:
        clock.advance(by_s)
        client.set(key, repr(clock.now()))

    pass_time(0.0)
    gate = RedisGate(client, prefix)
    test_time = _under_test_time(client, prefix)
    test_time.patience_s = patience_s
    gate._run = test_time.run
    return Timed(gate, pass_time, clock.now, prefix)


class _under_test_time(scripts.Scripts):  # noqa: N801  reads as what it does
    patience_s = 0

    def _script(self, name: str) -> redis.commands.core.Script:
        text = scripts.source(name).replace(_EXPIRY, f"{self.patience_s} + {_EXPIRY}")
        assert _TIME in text
        text = text.replace(_TIME, "  return tonumber(call('GET', P .. 'test-time'))\n")
        return self._client.register_script(text)
