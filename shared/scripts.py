"""The ledger's Lua scripts: loaded from `lua/`, called by name with keyword arguments as one msgpack map.

A script that frees, finishes or keeps what has been accepted begins with `#!lua flags=allow-oom`: it runs even where
memory is full. Those without the line begin something new, and wait for room (ops/docs/memory.md).
"""

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
import redis
from redis.commands.core import Script

from shared.redis_client import store_errors

_pack = msgspec.msgpack.Encoder().encode

_NO_FLAGS = "unexpected symbol near '#'"
"""What Redis before 7 says of a script with flags."""

_BEFORE_FLAGS = "redis.call('DEL', ARGV[1] .. ':none')\n"
"""Redis checks its memory before a script's first write only, so there one that needs none comes first."""


_BESIDES = {"gate": ("_limits", "_window")}

_LANE = {"decline", "feed", "finish", "lone", "reap", "release"}
"""Scripts, or kinds of them, that go by the suspects' lane."""


@cache
def source(name: str, *, flags: bool = True) -> str:
    """The text of a script: its flags, what all share, the lane, what those of its kind do (`_lone` before `lone_...`), what it needs besides, and its own.

    Without `flags` the form for Redis before 7, to the same effect.
    """
    folder = files("shared") / "lua"
    kind = name.split("_", maxsplit=1)[0]
    lane = ["_lane"] if kind in _LANE else []
    kin = [f"_{kind}"] if (folder / f"_{kind}.lua").is_file() else []
    parts = ["_common", *lane, *kin, *_BESIDES.get(name, ()), name]
    *shared, own = ((folder / f"{part}.lua").read_text("utf-8") for part in parts)
    head = ""
    if own.startswith("#!"):
        head, own = own.split("\n", 1)
        head = f"{head}\n" if flags else _BEFORE_FLAGS
    return "".join([head, *shared, own])


class Scripts:
    """Runs scripts on one Redis under one key prefix; loads a script anew where the server has forgotten it."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._scripts: dict[str, Script] = {}
        self._flags = True

    def run(self, name: str, *, blob: bytes = b"", **args: Any) -> Any:
        """Text and numbers go as `args`; Redis' msgpack knows no binary strings, so bytes go beside them as `blob`."""
        values: list[str | bytes] = [self._prefix, _pack(args), blob]
        with store_errors():
            try:
                return self._script(name)(args=values)
            except redis.exceptions.ResponseError as exc:
                if not self._flags or _NO_FLAGS not in str(exc):
                    raise
                self._flags = False
                self._scripts.clear()
            return self._script(name)(args=values)

    def _script(self, name: str) -> Script:
        script = self._scripts.get(name)
        if script is None:
            text = source(name, flags=self._flags)
            script = self._scripts[name] = self._client.register_script(text)
        return script
