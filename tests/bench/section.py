"""What every section is given, and the stack it runs on."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import requests
from bench.cpu import PROVIDER, Cpu
from bench.prompts import rows
from openai.types import Batch
from support.batches import submit
from support.stack import Stack, running_stack
from support.waiting import wait_for

IN_FLIGHT = 40
"""Batch calls in flight per worker; of `LLM_EDGE_CONCURRENCY` batches take four fifths."""
END_S = 300.0
_EVERY_S = 0.05


@dataclass(frozen=True)
class Size:
    """`scale` below 1 is for trying the bench out: smaller counts, shorter times, one round."""

    scale: float = 1.0

    def jobs(self, full: int) -> int:
        return max(200, int(full * self.scale))

    def seconds(self, full: float) -> float:
        return max(1.0, full * self.scale)

    @property
    def rounds(self) -> int:
        return 3 if self.scale >= 1 else 1


@contextlib.contextmanager
def fleet(latency_s: float = 0.0, workers: int = 2, **env: str) -> Iterator[Stack]:
    """A stack with its own defaults, but for the calls in flight."""
    settings = {
        "LLM_EDGE_CONCURRENCY": str(IN_FLIGHT * 5 // 4),
        "LLM_EDGE_LEASE_S": "15",
        "LLM_EDGE_TICK_S": "0.5",
        **env,
    }
    with running_stack(
        "--latency-s",
        str(latency_s),
        workers=workers,
        aof=False,
        part_env=None,
        configure=Stack.configure,
        **settings,
    ) as stack:
        yield stack


def cpu_of(stack: Stack) -> Cpu:
    assert stack.api is not None
    return Cpu(
        workers=[w.pid for w in stack.workers],
        api=[stack.api.pid],
        valkey=[stack.valkey.pid],
        **{PROVIDER: [stack.simulator.pid]},
    )


def batch(stack: Stack, data: bytes) -> Batch:
    with stack.client as client:
        return submit(client, data)


def wait_for_status(stack: Stack, batch_id: str, *statuses: str) -> None:
    """Asked for with plain `requests`, at intervals: the SDK's own work would be felt on a small machine."""

    def reached() -> bool:
        answer = requests.get(f"{stack.base_url}/batches/{batch_id}", timeout=10).json()
        return answer["status"] in statuses

    wait_for(reached, END_S, f"batch {batch_id} to be {' or '.join(statuses)}", every_s=_EVERY_S)


def run_batch(stack: Stack, data: bytes) -> float:
    """Seconds from the upload's begin until the output file is whole."""
    started = time.monotonic()
    wait_for_status(stack, batch(stack, data).id, "completed")
    return time.monotonic() - started


def warm(stack: Stack) -> None:
    """Connections, scripts, imports."""
    run_batch(stack, rows(500))
