"""Which keys each script touches: the scripts as they are, but for a `call` that writes every key's name down."""

from collections.abc import Callable
from typing import Any

from redis import Redis

from shared import scripts

_CALL = "local call = redis.call\n"
_SEVERAL = "{ DEL = 99, UNLINK = 99, EXISTS = 99, LMOVE = 2, TIME = 0, PUBLISH = 0, PUBSUB = 0 }"
_NOTED = """local several, ids, n = %s, {}, 0
local function note(key)
  redis.call('SADD', 'touched:%s', key)
  local id = string.match(key, ':b:(batch_[^:]+)')
  if id and not ids[id] then
    ids[id], n = true, n + 1
    redis.call('ZADD', 'batches', 'GT', n, '%s')
  end
end
local function call(name, ...)
  local args = { ... }
  for i = 1, math.min(#args, several[name] or 1) do note(args[i]) end
  return redis.call(name, ...)
end
"""


def witnessed(plain: Callable[..., str] = scripts.source) -> Callable[..., str]:
    """In place of `scripts.source`."""

    def source(name: str, *, flags: bool = True) -> str:
        text = plain(name, flags=flags)
        assert _CALL in text
        return text.replace(_CALL, _NOTED % (_SEVERAL, name, name)).replace("redis.pcall(", "call(")

    return source


def touched(client: "Redis") -> dict[str, set[str]]:
    """Script -> the names of the keys that it has touched."""
    found: dict[str, set[str]] = {}
    for key in client.scan_iter("touched:*", count=1000):
        members: Any = client.smembers(key)
        found[key.decode().partition(":")[2]] = {member.decode() for member in members}
    return found


def most_batches(client: "Redis") -> dict[str, int]:
    """Script -> of how many batches it has touched keys in one call, at most."""
    found: Any = client.zrange("batches", 0, -1, withscores=True)
    return {name.decode(): int(most) for name, most in found}
