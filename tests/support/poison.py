"""Jobs that kill their worker, from outside: who runs one of them when the provider gets its call is killed with -9, and another is started."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import requests
from support.batches import line
from support.stack import Stack, running_stack
from support.waiting import wait_for

DEADLY = "deadly"
"""The model of such a job: at the simulator it is a persona that takes its time, so that the kill comes in mid-call."""


@contextmanager
def poisoned_stack(*, workers: int = 1, pool: str = "gevent") -> Iterator[Stack]:
    def configure(stack: Stack) -> None:
        providers = [
            {"id": "sim", "endpoint": stack.simulator.base_url, "models": {"test-model": "test-model"}},
            {"id": "slow", "endpoint": stack.simulator.base_url_of("slow"), "models": {DEADLY: DEADLY}},
        ]
        stack.configure(providers)

    with running_stack(
        workers=workers, configure=configure, LLM_EDGE_CONCURRENCY="16", LLM_EDGE_POOL=pool
    ) as stack:
        stack.simulator.patch(latency_s=0.1, latency_p95_s=0.3)
        stack.simulator.patch("slow", latency_s=60)
        yield stack


def deadly_line(custom_id: str) -> dict[str, Any]:
    return line(custom_id, custom_id, model=DEADLY)


@dataclass
class Reaper:
    """Kills as it is called, and counts by prompt. `find`: prompt -> the holder of its job, as the ledger says it."""

    stack: Stack
    find: Callable[[str], str | None]
    deaths: dict[str, int] = field(default_factory=dict)
    killed_at: list[float] = field(default_factory=list)
    seen: int = 0

    def round(self) -> None:
        for call in self.stack.simulator.calls(after=self.seen):
            if call["model"] != DEADLY:
                continue
            self.seen = call["n"]
            self._kill(call["prompt"])

    def _kill(self, prompt: str) -> None:
        holder = self.find(prompt)
        worker = next((w for w in self.stack.workers if f"-{w.pid}-" in (holder or "")), None)
        if worker is None:
            return  # another of them has killed it just before
        self.stack.kill_worker(worker)
        self.killed_at.append(time.time())
        self.deaths[prompt] = self.deaths.get(prompt, 0) + 1
        self.stack.start_worker(wait=False)

    def until(self, ended: Callable[[], Any], timeout_s: float, what: str) -> Any:
        def step() -> Any:
            self.round()
            return ended()

        return wait_for(step, timeout_s, what)


def holder_of(stack: Stack, batch_id: str, index: int) -> str | None:
    """Who holds the shard of a batch's job."""
    key = f"le:b:{batch_id}"
    with stack.valkey.client() as redis:
        for number in redis.smembers(f"{key}:sh"):
            shard = redis.hgetall(f"{key}:s:{number.decode()}")
            if shard.get(b"state") == b"leased" and index in msgspec.json.decode(shard[b"jobs"]):
                return str(shard[b"holder"].decode())
    return None


def holder_of_lone(stack: Stack, job_id: str) -> str | None:
    with stack.valkey.client() as redis:
        found = redis.hget(f"le:j:{job_id}", "holder")
    return found.decode() if found else None


def explained(stack: Stack, batch_id: str) -> dict[str, Any]:
    answer = requests.get(f"{stack.base_url}/batches/{batch_id}/explain", timeout=5)
    answer.raise_for_status()
    found = answer.json()
    assert isinstance(found, dict)
    return found


def lone_job(stack: Stack, job_id: str) -> dict[str, Any]:
    found = requests.get(f"{stack.base_url}/jobs/{job_id}", timeout=5).json()
    assert isinstance(found, dict)
    return found
