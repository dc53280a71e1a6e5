"""`python idling.py URL WORKERS`: so many idle workers in one process, by what each says to Redis and how often. Until it is ended.

Each beats, asks how full Redis is, looks at the providers' conditions, tries to lead and looks for chores; the leader reaps."""

import heapq
import itertools
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.ledgers import worker

from shared.config import Settings, load_settings
from shared.redis_client import connect
from shared.redis_gate import RedisGate
from shared.redis_ledger import RedisLedger
from shared.redis_lone import RedisLone
from shared.redis_room import room_reader
from shared.room_watch import WORKER_AGE_S
from workers.leases import BEAT_S

CAPACITY = 153
_MOST = 100


class Fleet:
    def __init__(self, settings: Settings) -> None:
        client = connect(settings.redis, role="worker", max_connections=2)
        self._ledger, self._lone = RedisLedger(client), RedisLone(client)
        self._gate, self._room = RedisGate(client), room_reader(client)
        self._tick_s = settings.tick_s

    def duties(self, name: str) -> list[tuple[float, Callable[[], object]]]:
        """What one worker does, and how often."""
        return [
            (BEAT_S, partial(self._beat, name)),
            (WORKER_AGE_S, self._room),
            (self._tick_s, partial(self._round, name)),
        ]

    def _beat(self, name: str) -> None:
        self._ledger.beat(worker(name, CAPACITY))
        self._gate.conditions(["p"])

    def _round(self, name: str) -> None:
        if self._ledger.lead(name, self._tick_s * 4 + 1):
            self._lone.reap(most=_MOST)
            self._ledger.reap(most=_MOST)
            self._lone.wants_hint()
        self._ledger.take_chore(10.0)


def main(url: str, workers: int) -> None:
    fleet, order, began = Fleet(load_settings({"REDIS_URL": url})), itertools.count(), time.monotonic()
    due: list[tuple[float, int, float, Callable[[], object]]] = []
    for n in range(workers):
        for every_s, act in fleet.duties(f"w{n}"):
            due.append((began + every_s * n / workers, next(order), every_s, act))
    heapq.heapify(due)
    while True:
        at, _, every_s, act = due[0]
        now = time.monotonic()
        if at > now:
            time.sleep(at - now)
        act()
        heapq.heapreplace(due, (at + every_s, next(order), every_s, act))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
