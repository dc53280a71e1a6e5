"""`make bench`: speeds of the whole system, and of naive Celery beside it in the same run. Prints; asserts nothing.

Absolute figures are the machine's; the ratios are what counts.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
import requests
from celery import Celery
from rich.console import Console
from rich.table import Table
from support.batches import jsonl, line, submit, wait_for_end
from support.simulator import running_simulator
from support.stack import Stack, running_stack
from support.valkey import running_valkey
from support.waiting import wait_for

from api.cli.corpus import functions

JOBS = int(os.environ.get("BENCH_JOBS", "20000"))
NAIVE_JOBS = int(os.environ.get("BENCH_NAIVE_JOBS", "4000"))
WORKERS = 2
QUEUED = 50_000
PROMPTS = [function.prompt for function in islice(functions(), 4000)]


def rows(count: int) -> bytes:
    """Real text: docstrings, the same ones again with another number where there are not enough."""
    return jsonl([line(f"job-{n}", f"{n}: {PROMPTS[n % len(PROMPTS)]}") for n in range(count)])


class Cpu:
    """CPU seconds of processes and all their children, by name."""

    def __init__(self, **pids: list[int]) -> None:
        self._processes = {name: [psutil.Process(pid) for pid in found] for name, found in pids.items()}
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        return {name: sum(map(_seconds, found)) for name, found in self._processes.items()}

    def spent(self) -> dict[str, float]:
        return {name: after - self._before[name] for name, after in self._now().items()}


def _seconds(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return sum(t.user + t.system for t in (p.cpu_times() for p in family))


class Speed:
    def __init__(self, jobs: int, wall_s: float, cpu: dict[str, float]) -> None:
        self.per_s = jobs / wall_s
        self.cpu_ms = {name: 1000 * seconds / jobs for name, seconds in cpu.items()}

    @property
    def ours_ms(self) -> float:
        """All processes but the provider's."""
        return sum(ms for name, ms in self.cpu_ms.items() if name != "provider")


def ours() -> Speed:
    with (
        running_stack(workers=WORKERS, LLM_EDGE_LEASE_S="15", LLM_EDGE_TICK_S="0.5") as stack,
        stack.client as client,
    ):
        wait_for_end(client, submit(client, rows(500)).id)  # connections and scripts
        data = rows(JOBS)
        cpu = Cpu(
            api=[_pid(stack.api)],
            workers=[w.pid for w in stack.workers],
            valkey=[stack.valkey.pid],
            provider=[stack.simulator.pid],
        )
        started = time.monotonic()
        batch = submit(client, data)
        ended = wait_for_end(client, batch.id, timeout_s=300)
        wall_s = time.monotonic() - started
        assert ended.request_counts is not None
        assert ended.request_counts.completed == JOBS
        return Speed(JOBS, wall_s, cpu.spent())


def _pid(process: "subprocess.Popen[bytes] | None") -> int:
    assert process is not None
    return process.pid


@contextmanager
def naive_worker(url: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "tests.bench.naive",
        "worker",
        "-c",
        str(WORKERS),
        "-l",
        "error",
    ]
    worker = subprocess.Popen(
        command, env={**os.environ, "REDIS_URL": url}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield worker
    finally:
        worker.terminate()
        worker.wait(30)


def naive() -> Speed:
    with running_valkey() as valkey, running_simulator() as simulator, naive_worker(valkey.url) as worker:
        app = Celery("naive", broker=valkey.url, backend=valkey.url, set_as_current=False)
        body = line("x", PROMPTS[0])["body"]
        url = f"{simulator.base_url}/chat/completions"
        app.send_task("naive.complete", args=[url, body]).get(timeout=60)
        worker.send_signal(
            signal.SIGSTOP
        )  # sending is not what is compared: the queue is full before the clock starts
        for _ in range(NAIVE_JOBS):
            app.send_task("naive.complete", args=[url, body])
        cpu = Cpu(workers=[worker.pid], valkey=[valkey.pid], provider=[simulator.pid])
        started = time.monotonic()
        worker.send_signal(signal.SIGCONT)
        wait_for(lambda: simulator.stats()["default"]["calls"] > NAIVE_JOBS, 300, "naive Celery", every_s=0.2)
        wall_s = time.monotonic() - started
        return Speed(NAIVE_JOBS, wall_s, cpu.spent())


def acceptance() -> tuple[float, float, float]:
    """(jobs/s from upload to in_progress, bytes of Redis per queued job, bytes of its line)."""
    with running_stack(workers=0) as stack, stack.client as client:
        data = rows(QUEUED)
        before = _memory(stack)
        started = time.monotonic()
        batch = submit(client, data)
        wait_for(
            lambda: (
                requests.get(f"{stack.base_url}/batches/{batch.id}", timeout=5).json()["status"]
                == "in_progress"
            ),
            60,
            "validation",
        )
        took_s = time.monotonic() - started
        return QUEUED / took_s, (_memory(stack) - before) / QUEUED, len(data) / QUEUED


def _memory(stack: Stack) -> float:
    with stack.valkey.client() as redis:
        info = redis.info("memory")
        assert isinstance(info, dict)
        return float(info["used_memory"])


def main() -> None:
    console = Console()
    per_s, stored, size = acceptance()
    edge, plain = ours(), naive()
    table = Table(title=f"instant local provider, {WORKERS} workers, {os.cpu_count()} cores")
    for column in ("", "completions/s", "CPU ms each (without the provider)", "of which"):
        table.add_column(column)
    for name, speed in (("LLM Edge Agent", edge), ("naive Celery (prefork)", plain)):
        parts = ", ".join(f"{part} {ms:.2f}" for part, ms in speed.cpu_ms.items())
        table.add_row(name, f"{speed.per_s:,.0f}", f"{speed.ours_ms:.2f}", parts)
    table.add_row(
        "ratio", f"{edge.per_s / plain.per_s:.2f} x", f"{plain.ours_ms / edge.ours_ms:.2f} x less", ""
    )
    console.print(table)
    console.print(f"accepting a batch: {per_s:,.0f} jobs/s from upload to in_progress ({QUEUED:,} lines)")
    console.print(f"Redis: {stored:,.0f} bytes a queued job, whose line has {size:,.0f} bytes")


if __name__ == "__main__":
    main()
