"""What lies in Redis, by kinds of key; and what rightly stays there when everything has ended and its retention is over."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import redis

_UNLIKE = (
    (re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"), "ID"),
    (re.compile(r"(?<![0-9A-Za-z])[kr]?[0-9a-f]{12,}(?![0-9A-Za-z])"), "ID"),
    (re.compile(r"\d+-[0-9a-f]{6}(?![0-9A-Za-z])"), "N-ID"),  # a process: its pid and six digits by chance
    (re.compile(r"\d+"), "N"),
)
"""What tells keys of one kind apart, and what stands for it."""

_LUMP = 500

STAYS = {
    "le:alive": "a heartbeat of each worker alive",
    "le:workers": "a record of each worker alive",
    "le:capacity": "a number: what the workers alive want at once",
    "le:reads": "the version that each worker alive reads",
    "le:turn": "a number: picks by the feeder so far",
    "le:deaths": "a number: deaths of workers that had no suspect",
    "le:lane": "a name: the suspect that ran last",
    "le:lane:holder": "a name: who had it",
    "le:load": "a number: jobs with the workers, 0 at rest",
    "le:answer": "a number: the average answer",
    "le:reaped": "the reaper's last round",
    "le:lone:reaped": "its last round over lone jobs",
    "le:lone:token": "a number: claims so far",
    "le:served": "by provider, when it last answered",
    "le:pv:one": "a provider's condition",
    "le:pv:two": "a provider's condition",
    "le:bs:default": "the list of an owner's batches: what has expired is taken off as others come",
    "le:fs:default": "the same of his files",
    "unacked": "the broker's: messages of workers that were killed, for an hour",
    "unacked_index": "the same",
    "_kombu.binding.llm_edge": "the broker's bindings: the two queues",
    "_kombu.binding_permanent.llm_edge": "the same",
    "_kombu.binding_deadlines": "the broker's list of bindings that may expire",
    "_kombu.binding.celery.pidbox": "the broker's: a mailbox of each worker alive, and of each name that was killed by -9",
    "_kombu.binding_permanent.celery.pidbox": "the same",
}
"""Keys without an expiry that are there at rest, and why. By kind, of a stack with the prefix `le` and providers `one` and `two`."""

GROWS = {
    "_kombu.binding.celery.pidbox": "worker_starts",
    "_kombu.binding_permanent.celery.pidbox": "worker_starts",
}
"""Those that grow with the names of killed workers: at most one entry each (a name that comes again finds its own)."""

SPARE = 8
SPARES = {"le:bs:default": 400, "le:fs:default": 400, "unacked": 1000, "unacked_index": 1000}
"""So many more entries there may be at one rest than at another: of what went within minutes, and hours."""


class Kind(msgspec.Struct):
    """The keys of one pattern. `entries` are what is in those that hold several things; `longest_s` the farthest expiry."""

    keys: int = 0
    lasting: int = 0
    entries: int = 0
    longest_s: int = 0


def pattern(key: str) -> str:
    for unlike, name in _UNLIKE:
        key = unlike.sub(name, key)
    return key


def survey(client: "redis.Redis") -> dict[str, Kind]:
    """Every key of the database, by pattern."""
    found: dict[str, Kind] = {}
    lump: list[bytes] = []
    for key in client.scan_iter(count=_LUMP):
        lump.append(key)
        if len(lump) == _LUMP:
            _add(client, lump, found)
            lump = []
    _add(client, lump, found)
    return dict(sorted(found.items()))


def _add(client: Any, keys: Iterable[bytes], found: dict[str, Kind]) -> None:
    names = list(keys)
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.ttl(name)
            pipe.type(name)
        told = pipe.execute()
        for name, kind in zip(names, told[1::2], strict=True):
            pipe.execute_command(_COUNT.get(kind.decode(), "EXISTS"), name)
        sizes = pipe.execute()
    for name, ttl, size in zip(names, told[::2], sizes, strict=True):
        if ttl == _GONE:
            continue
        kind = found.setdefault(pattern(name.decode()), Kind())
        kind.keys += 1
        kind.lasting += ttl < 0
        kind.entries += int(size)
        kind.longest_s = max(kind.longest_s, ttl)


_GONE = -2
_COUNT = {"hash": "HLEN", "zset": "ZCARD", "set": "SCARD", "list": "LLEN"}


def faults(before: Mapping[str, Kind], after: Mapping[str, Kind], worker_starts: int) -> list[str]:
    """What stays though it should not, and what has grown from one rest (may be empty: there was none) to another."""
    found = []
    for name, kind in after.items():
        if not kind.lasting:
            continue
        if name not in STAYS:
            found.append(
                f"redis: {kind.lasting} keys {name} ({kind.entries} entries) that nothing will remove"
            )
        elif name in GROWS and kind.entries > worker_starts:
            found.append(f"redis: {name} has {kind.entries} entries, after {worker_starts} workers")
        elif name not in GROWS and before:
            earlier = before.get(name, Kind())
            if kind.entries > earlier.entries + SPARES.get(name, SPARE):
                found.append(f"redis: {name} grew from {earlier.entries} to {kind.entries} entries")
    return found


def lines(before: Mapping[str, Kind], after: Mapping[str, Kind]) -> list[str]:
    """A line for each pattern: what there is, was at the rest before, and why it stays or when it goes."""
    shown = []
    for name in sorted({*before, *after}):
        was, kind = before.get(name, Kind()), after.get(name, Kind())
        why = STAYS.get(name, "NOBODY KNOWS WHY") if kind.lasting else f"gone in {kind.longest_s:,} s at most"
        was_there = f" (before: {was.keys:,}, {was.entries:,})" if before else ""
        shown.append(f"  {name}: {kind.keys:,} keys, {kind.entries:,} entries{was_there}; {why}")
    return shown
