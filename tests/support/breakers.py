"""A fleet's breaker as its workers' logs, its record and the provider tell of it."""

import json
from datetime import datetime

import msgspec
from support.stack import Stack

from shared.breaker import Circuit
from shared.config import load_settings
from shared.redis_client import connect
from shared.redis_gate import RedisGate
from shared.redis_ledger import RedisLedger

OPENED = ("closed", "open")
HALVED = ("open", "half-open")
AGAIN = ("half-open", "open")
CLOSED = ("half-open", "closed")


class Change(msgspec.Struct, frozen=True):
    """A line of some worker's log."""

    at: float
    what: tuple[str, str]


def changes(stack: Stack) -> list[Change]:
    """All that the workers say of the breaker, by time."""
    found = []
    for path in stack.folder.glob("worker-*.log"):
        for text in path.read_text(errors="replace").splitlines(keepends=True):
            if '"event":"breaker"' in text and text.endswith("\n"):
                said = json.loads(text)
                at = datetime.fromisoformat(said["timestamp"]).timestamp()
                found.append(Change(at, (said["before"], said["after"])))
    return sorted(found, key=lambda change: change.at)


def times_of(stack: Stack, what: tuple[str, str]) -> list[float]:
    return [change.at for change in changes(stack) if change.what == what]


def circuit(stack: Stack) -> Circuit:
    """As the fleet sees it."""
    settings = load_settings(stack.env)
    with connect(settings.redis, role="worker", max_connections=1) as redis:
        _, (seen,) = RedisGate(redis, settings.key_prefix).look(["sim"])
    return seen.condition.breakers.get("sim", Circuit())


def probing(stack: Stack) -> list[tuple[str, float]]:
    """Who probes, by the permit's name, by its heartbeat and by a call that hangs; and when its lease ends."""
    seen, beating = circuit(stack), _holders(stack)
    hanging = any(c["ended_at"] is None and c["received_at"] > seen.since for c in stack.simulator.calls())
    found = [(permit.rpartition(":")[0], lease_ends) for permit, lease_ends in seen.probes.items()]
    return [each for each in found if hanging and each[0] in beating]


def _holders(stack: Stack) -> set[str]:
    """Workers whose heartbeats tell of a call under way."""
    settings = load_settings(stack.env)
    with connect(settings.redis, role="worker", max_connections=1) as redis:
        found = RedisLedger(redis, settings.key_prefix).workers()
    return {worker.id for worker in found if worker.in_flight.get("sim")}
