"""The ledger's Lua scripts: loaded from `lua/`, called by name with keyword arguments as one msgpack map."""

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
import redis
from redis.commands.core import Script

from shared.redis_client import store_errors

_pack = msgspec.msgpack.Encoder().encode


@cache
def source(name: str) -> str:
    """The text of a script; in front what all of them share, and what those of lone jobs do."""
    parts = ["_common", "_lone", name] if name.startswith("lone_") else ["_common", name]
    folder = files("shared") / "lua"
    return "".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)


class Scripts:
    """Runs scripts on one Redis under one key prefix; loads a script anew where the server has forgotten it."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._scripts: dict[str, Script] = {}

    def run(self, name: str, *, blob: bytes = b"", **args: Any) -> Any:
        """Text and numbers go as `args`; Redis' msgpack knows no binary strings, so bytes go beside them as `blob`."""
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._client.register_script(source(name))
        with store_errors():
            return script(args=[self._prefix, _pack(args), blob])
