"""A stack at rest: everything has ended, its retention is over, and what is left is what stays."""

import time
from contextlib import suppress

import msgspec
import redis
from soak import keys
from soak.gauges import Gauges, Sample
from support.stack import Stack
from support.waiting import wait_for

DRAINED_S = 120.0
SLOW_S = 5.0
"""A single job on an idle stack takes well under a second; the machine may have other things to do."""

UNDER_WAY = (
    "leases",
    "hints",
    "later",
    "ready",
    "chores",
    "closing",
    "lone:leases",
    "lone:later",
    "lone:now",
    "lone:soon",
)


class Rest(msgspec.Struct):
    """What was found at rest."""

    kinds: dict[str, keys.Kind] = {}
    samples: dict[str, Sample] = {}
    faults: list[str] = []


def rest(
    stack: Stack,
    client: "redis.Redis",
    gauges: Gauges,
    kept: dict[str, int],
    *,
    worker_starts: int,
    over_s: float,
) -> Rest:
    """`over_s`: after so long every retention is over."""
    found = Rest()
    try:
        wait_for(lambda: not _under_way(client), DRAINED_S, "what is under way to end", every_s=0.25)
    except AssertionError as exc:
        found.faults.append(f"{exc}: {_under_way(client)}")
    found.faults += _canary(stack)

    def only_what_stays() -> bool:
        found.kinds = keys.survey(client)
        return not keys.faults({}, found.kinds, worker_starts)

    with suppress(AssertionError):  # the verdict names them
        wait_for(only_what_stays, over_s, "keys to go", every_s=2.0)
    if (load := int(client.get("le:load") or 0)) != 0:
        found.faults.append(f"redis: le:load is {load} at rest")
    gauges.look(kept)
    found.samples = {name: samples[-1] for name, samples in gauges.processes.items()}
    return found


def _under_way(client: "redis.Redis") -> dict[str, int]:
    present = {name: client.type(f"le:{name}") for name in UNDER_WAY}
    return {name: _size(client, f"le:{name}", kind) for name, kind in present.items() if kind != b"none"}


def _size(client: "redis.Redis", key: str, kind: object) -> int:
    found = client.llen(key) if kind == b"list" else client.zcard(key)
    assert isinstance(found, int)
    return found


def _canary(stack: Stack) -> list[str]:
    """A job runs soon."""
    started = time.monotonic()
    with stack.client as api:
        api.chat.completions.create(model="m", messages=[{"role": "user", "content": "canary"}], max_tokens=5)
    took_s = time.monotonic() - started
    return [f"at rest, a canary took {took_s:.1f} s"] if took_s > SLOW_S else []
