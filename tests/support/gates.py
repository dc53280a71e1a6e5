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
_TIME = "  local t = call('TIME')\n  return tonumber(t[1]) + tonumber(t[2]) / 1e6\n"
_CALL = "local call = redis.call\n"
_LASTING = """local function call(name, ...)
  local args = { ... }
  if name == 'EXPIRE' then return 1 end
  if name == 'SET' and args[3] == 'EX' then return redis.call('SET', args[1], args[2]) end
  return redis.call(name, ...)
end
"""
"""On a busy machine a test may take longer than what it plays."""
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


def valkey_gate(url: str, *, lasting: bool = True) -> Timed:
    """The scripts read the test's time from a key instead of asking the server, by whose time nothing ends if `lasting`."""
    prefix, clock = f"g{next(_prefixes)}", ManualClock(START_S)
    client: Any = _Client.from_url(url)
    client.clock = clock
    key = f"{prefix}:test-time"

    def pass_time(by_s: float) -> None:
        clock.advance(by_s)
        client.set(key, repr(clock.now()))

    pass_time(0.0)
    gate = RedisGate(client, prefix)
    gate._run = (_Lasting if lasting else _UnderTestTime)(client, prefix).run
    return Timed(gate, pass_time, clock.now, prefix)


class _UnderTestTime(scripts.Scripts):
    def _script(self, name: str) -> redis.commands.core.Script:
        return self._client.register_script(self._text(name))

    def _text(self, name: str) -> str:
        text = scripts.source(name)
        assert _TIME in text
        return text.replace(_TIME, "  return tonumber(call('GET', P .. 'test-time'))\n")


class _Lasting(_UnderTestTime):
    def _text(self, name: str) -> str:
        text = super()._text(name)
        assert _CALL in text
        return text.replace(_CALL, _LASTING)
