"""`python -m tests.bench.lone [small|full]`: completions asked for one by one, waited for and submitted in the background.

Prints; asserts nothing. Budgets: <= 6 ms added at the median with one caller, <= 2 ms of CPU a completion with 64.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.load import Cpu, Load, load
from bench.shown import show
from bench.table import Table
from support.stack import Stack, running_stack

CALLERS = (1, 64)
WORKERS = 2
APIS = (1, 2, 3)
SECONDS = {"small": 2.0, "full": 10.0}
_WARM_S = 1.0
_PARTS = ("api", "workers", "valkey")
_TIMES = ["per s", "P50 ms", "P99 ms", "direct P50", "added P50"]
_HEAD = ["", "callers", *_TIMES, "CPU ms each", *_PARTS, "client"]


def rows(size: str) -> Table:
    seconds = SECONDS[size]
    return Table(
        name="lone jobs, instant local provider",
        head=_HEAD,
        rows=[*waited(seconds), *submitted(seconds)],
        notes=(
            f"{WORKERS} workers where the answer is waited for, none where it is only submitted; {os.cpu_count()} cores. "
            "Budgets: added P50 <= 6 ms at 1 caller, CPU <= 2 ms at 64. "
            "The client is a process of its own, one for each API process; its CPU is not in the sum."
        ),
    )


def waited(seconds: float) -> list[list[str]]:
    """The caller waits for its completion; beside it the same load on the provider itself."""
    with running_stack(workers=WORKERS, LLM_EDGE_LEASE_S="15", LLM_EDGE_TICK_S="0.5") as stack:
        load([stack.base_url], 8, _WARM_S)
        return [_waited(stack, callers, seconds) for callers in CALLERS]


def _waited(stack: Stack, callers: int, seconds: float) -> list[str]:
    direct = load([stack.simulator.base_url], callers, seconds / 2)
    cpu = Cpu(api=[api_pid(stack)], workers=[w.pid for w in stack.workers], valkey=[stack.valkey.pid])
    found = load([stack.base_url], callers, seconds)
    base = direct.ms(0.5)
    return [
        "waited for",
        *_speed(callers, found),
        f"{base:.2f}",
        f"{found.ms(0.5) - base:.2f}",
        *_cost(found, cpu.spent()),
    ]


def submitted(seconds: float) -> list[list[str]]:
    """`Prefer: respond-async`: no worker runs, so that what is measured is the taking in."""
    found = []
    with running_stack(workers=0, LLM_EDGE_LEASE_S="15", LLM_EDGE_TICK_S="0.5") as stack:
        urls, pids = [stack.base_url], [api_pid(stack)]
        for apis in APIS:
            while len(urls) < apis:
                urls.append(stack.start_another_api())
                pids.append(stack.newest.pid)
            found.append(_submitted(stack, urls, pids, seconds))
    return found


def _submitted(stack: Stack, urls: list[str], pids: list[int], seconds: float) -> list[str]:
    load(urls, 8, _WARM_S, background=True)
    cpu = Cpu(api=pids, valkey=[stack.valkey.pid])
    found = load(urls, CALLERS[-1], seconds, background=True)
    name = f"submitted, {len(urls)} API"
    return [name, *_speed(CALLERS[-1], found), "", "", *_cost(found, cpu.spent())]


def api_pid(stack: Stack) -> int:
    assert stack.api is not None
    return stack.api.pid


def _speed(callers: int, found: Load) -> list[str]:
    return [str(callers), f"{found.per_s:,.0f}", f"{found.ms(0.5):.2f}", f"{found.ms(0.99):.2f}"]


def _cost(found: Load, cpu: dict[str, float]) -> list[str]:
    """CPU milliseconds a request: of our processes, of which by part, and of the load generator (not in the sum)."""
    each = {name: 1000 * seconds / found.count for name, seconds in cpu.items()}
    parts = [f"{each[part]:.2f}" if part in each else "" for part in _PARTS]
    return [f"{sum(each.values()):.2f}", *parts, f"{found.client_ms:.2f}"]


if __name__ == "__main__":
    show(rows)
