"""What a call pays for its permit and its return: the round trip alone, and many callers at one worker's gatekeeper."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.keeper import ANSWERED, SETTINGS, CountedGate, gate_at, orders
from bench.load import Load
from bench.report import Budget, Finding
from bench.routing import PROVIDERS, providers
from bench.section import IN_FLIGHT, Size
from bench.tools import ROOT
from support.valkey import Valkey, running_valkey

from shared.gate import candidate_of
from shared.permits import DirectDoorman, Permit
from workers.routing import rank
from workers.strategies import STRATEGIES
from workers.strategies.records import RoutedJob

FLEETS = {
    "1": (1, False),
    "10": (10, False),
    "100": (100, False),
    "100, all but the last open": (100, True),
}
_KEEPER = Path(__file__).with_name("keeper.py")
_GEVENT = ("-m", "gevent.monkey")


def run(size: Size) -> Finding:
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    trips = 0.0
    for name, (count, bad) in FLEETS.items():
        with running_valkey() as valkey:
            strategy = _prepare(gate_at(valkey.url), count, bad=bad)
            asked, told, direct = _direct(valkey, count, strategy, size.jobs(5_000))
            found = _many(valkey, count, strategy, size)
            threads = _many(valkey, count, strategy, size, gevent=False)
        trips = max(trips, direct, found["trips"])
        figures[name] = {"direct": direct, "gevent": _numbers(found), "threads": _numbers(threads)}
        rows.append([name, _ms(asked), _ms(told), *_shown(found), f"{threads['load'].per_s:,.0f}"])
    decided = _decided(size.jobs(10_000))
    p99 = decided.ms(0.99)
    return Finding(
        title=f"A permit and its return; {IN_FLIGHT} callers at one gatekeeper",
        columns=[
            "providers",
            "asking alone, P50 / P99 ms",
            "telling alone",
            f"{IN_FLIGHT} callers: permits/s",
            "asking, P50 / P99 ms",
            "round trips an attempt",
            "CPU ms an attempt",
            "permits/s, threads",
        ],
        rows=rows,
        budgets=[
            Budget(
                f"a decision and its permit, {PROVIDERS} providers, P99",
                "< 1 ms on loopback",
                f"{p99:.2f} ms",
                p99 < 1,
            ),
            Budget("round trips an attempt", "<= 2, plus 1 a shard", f"{trips:.2f} at most", trips <= 2),
        ],
        notes=[
            (
                "Callers are greenlets, as in the default pool, and threads in the last column. No call is made between asking"
                " and telling, so that all of them wait for the gate all the time: latency is the queue's, not the round trip's."
            )
        ],
        figures={**figures, "decided_ms": [decided.ms(0.5), p99]},
    )


def _prepare(gate: CountedGate, count: int, *, bad: bool) -> str:
    """Every provider has answered before; where `bad`, all but the last are open, and asked first."""
    door = DirectDoorman(gate, SETTINGS)
    for candidate in orders(count, "failover")[0]:
        found = door.acquire([candidate])
        assert isinstance(found, Permit)
        door.settle(found, ANSWERED)
    for provider in providers(count - 1 if bad else 0):
        gate.change(provider.id, "open", settings=SETTINGS)
    return "failover" if bad else "round_robin"


def _direct(valkey: Valkey, count: int, strategy: str, calls: int) -> tuple[Load, Load, float]:
    """Asking, telling, and the round trips of both."""
    gate = gate_at(valkey.url)
    door, turns = DirectDoorman(gate, SETTINGS), orders(count, strategy)
    asked: list[float] = []
    told: list[float] = []
    for n in range(calls):
        started = time.perf_counter()
        found = door.acquire(turns[n % len(turns)])
        between = time.perf_counter()
        assert isinstance(found, Permit)
        door.settle(found, ANSWERED)
        told.append(time.perf_counter() - between)
        asked.append(between - started)
    return _load(asked), _load(told), gate.exchanges / calls


def _decided(calls: int) -> Load:
    """Ranking and the permit's round trip together, as a lone call has it."""
    fleet, took = providers(PROVIDERS), []
    with running_valkey() as valkey:
        gate = gate_at(valkey.url)
        _prepare(gate, PROVIDERS, bad=False)
        door = DirectDoorman(gate, SETTINGS)
        for n in range(calls):
            started = time.perf_counter()
            ranked = rank(STRATEGIES["round_robin"], RoutedJob("m", n), fleet, {}, 0.0)
            found = door.acquire(
                [candidate_of(provider, "m", "/v1/chat/completions", "key", SETTINGS) for provider in ranked]
            )
            took.append(time.perf_counter() - started)
            assert isinstance(found, Permit)
            door.settle(found, ANSWERED)
    return _load(took)


def _many(valkey: Valkey, count: int, strategy: str, size: Size, *, gevent: bool = True) -> dict[str, Any]:
    command = [sys.executable, *(_GEVENT if gevent else ()), str(_KEEPER), valkey.url]
    asked = [valkey.pid, count, strategy, IN_FLIGHT, size.seconds(5)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [*command, *map(str, asked)], env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    load = Load(found["latencies"], found["wall_s"], found["client_s"])
    return {
        "load": load,
        "trips": found["exchanges"] / load.count,
        "worker_ms": 1000 * load.client_s / load.count,
        "valkey_ms": 1000 * found["valkey_s"] / load.count,
    }


def _load(took: list[float]) -> Load:
    return Load(sorted(took), sum(took), 0.0)


def _ms(found: Load) -> str:
    return f"{found.ms(0.5):.2f} / {found.ms(0.99):.2f}"


def _shown(found: dict[str, Any]) -> list[str]:
    cpu = f"worker {found['worker_ms']:.3f}, valkey {found['valkey_ms']:.3f}"
    return [f"{found['load'].per_s:,.0f}", _ms(found["load"]), f"{found['trips']:.2f}", cpu]


def _numbers(found: dict[str, Any]) -> dict[str, Any]:
    load = found["load"]
    return {**found, "load": {"per_s": load.per_s, "p50_ms": load.ms(0.5), "p99_ms": load.ms(0.99)}}
