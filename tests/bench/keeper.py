"""One worker's gatekeeper and its callers: `python [-m gevent.monkey] keeper.py URL VALKEY_PID PROVIDERS STRATEGY CALLERS SECONDS`.

Each caller gets a permit, gives it back answered, and asks again. Prints JSON: wall, CPU and Valkey's CPU seconds, exchanges,
and how long each permit took, in seconds. A process of its own, because gevent patches the whole of it.
"""

import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import structlog
from bench.cpu import Cpu
from bench.routing import providers

from shared.catalogue import Breaker
from shared.config import load_settings
from shared.gate import Ask, Candidate, Exchanged, Report, candidate_of
from shared.permits import Ending, Permit
from shared.redis_client import connect
from shared.redis_gate import RedisGate
from workers.gatekeeper import Gatekeeper
from workers.routing import rank
from workers.strategies import STRATEGIES
from workers.strategies.records import RoutedJob

SETTINGS = Breaker(reset_timeout_s=3600.0)
ANSWERED = Ending("answered", 0.2)


class CountedGate(RedisGate):
    """Knows how often it was asked."""

    exchanges = 0

    def exchange(self, asks: Sequence[Ask], reports: Sequence[Report], **more: Any) -> Exchanged:
        self.exchanges += 1
        return super().exchange(asks, reports, **more)


def gate_at(url: str) -> CountedGate:
    """Connected as a worker's is."""
    return CountedGate(connect(load_settings({"REDIS_URL": url}).redis, role="gate", max_connections=4))


def orders(count: int, strategy: str) -> list[list[Candidate]]:
    """Of as many turns as there are differing ones: whom to ask, best first."""
    fleet = providers(count)
    turns = sum(provider.weight for provider in fleet) if strategy == "round_robin" else 1
    ranked = [rank(STRATEGIES[strategy], RoutedJob("m", turn), fleet, {}, 0.0) for turn in range(turns)]
    return [
        [candidate_of(provider, "m", "/v1/chat/completions", "key", SETTINGS) for provider in order]
        for order in ranked
    ]


def _caller(keeper: Gatekeeper, turns: Iterator[list[Candidate]], end: float, latencies: list[float]) -> None:
    while (started := time.perf_counter()) < end:
        found = keeper.acquire(next(turns))
        latencies.append(time.perf_counter() - started)
        if not isinstance(found, Permit):
            raise SystemExit(f"refused: {found}")
        keeper.settle(found, ANSWERED)


def main(url: str, valkey: int, count: int, strategy: str, callers: int, seconds: float) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is the figures'
    gate = gate_at(url)
    keeper = Gatekeeper(gate, lambda: SETTINGS, "bench")
    keeper.start(lambda _: None)
    turns = itertools.cycle(orders(count, strategy))
    latencies: list[float] = []
    _caller(keeper, turns, time.perf_counter() + 0.1, [])  # the connection, the script
    gate.exchanges = 0
    cpu, started, own = Cpu(valkey=[valkey]), time.perf_counter(), time.process_time()
    every = [
        threading.Thread(target=_caller, args=(keeper, turns, started + seconds, latencies))
        for _ in range(callers)
    ]
    for caller in every:
        caller.start()
    for caller in every:
        caller.join()
    keeper.stop()
    found = {"wall_s": time.perf_counter() - started, "client_s": time.process_time() - own}
    spent = {**found, "valkey_s": cpu.spent()["valkey"], "exchanges": gate.exchanges}
    sys.stdout.write(json.dumps({**spent, "latencies": sorted(latencies)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), float(sys.argv[6]))
