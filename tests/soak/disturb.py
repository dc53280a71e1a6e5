"""What befalls the stack, by a seed: kills, stops, pauses, lost connections and scripts, failing providers."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import redis
from support.stack import Stack

SETTLE_S = (1.0, 8.0)
"""Between one disturbance and the next."""


class Disturber:
    """One thing at a time, on a thread of its own. The first worker and API process are never killed: their memory is looked at.

    A process that is ended is started again before the next disturbance.
    """

    def __init__(self, stack: Stack, extra_api: Callable[[], None], seed: int) -> None:
        self._stack = stack
        self._extra_api = extra_api
        self._rng = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="disturber")
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []
        self._acts: list[Callable[[], None]] = [
            *(self.worker_killed, self.worker_stopped, self.worker_frozen),
            *(self.api_killed, self.redis_paused, self.connections_cut, self.scripts_flushed),
            *(self.provider_down, self.provider_fails_one_in_five, self.provider_hangs, self.provider_limits),
        ]

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self._stack.simulator.patch(
            outage="none", error_rate=0.0, hang_rate=0.0, rpm=None, latency_s=0.05, drop_rate=0.0
        )

    def _run(self) -> None:
        while not self._stop.wait(self._rng.uniform(*SETTLE_S)):
            act = self._rng.choice(self._acts)
            try:
                act()
            except Exception as exc:  # noqa: BLE001  told at the end
                self.failed.append(f"{act.__name__}: {type(exc).__name__}: {str(exc)[:500]}")
            self.counts[act.__name__] += 1

    def _wait(self, low_s: float, high_s: float) -> None:
        self._stop.wait(self._rng.uniform(low_s, high_s))

    # processes

    def worker_killed(self) -> None:
        """kill -9."""
        self._stack.kill_worker(self._stack.workers[-1])
        self._wait(0, 5)
        self._stack.start_worker()

    def worker_stopped(self) -> None:
        """SIGTERM."""
        self._stack.stop_worker(self._stack.workers[-1], 60)
        self._stack.start_worker()

    def worker_frozen(self) -> None:
        """SIGSTOP for up to three leases, then SIGCONT: a zombie."""
        pid = self._stack.workers[-1].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            self._wait(1, 3 * float(self._stack.env["LLM_EDGE_LEASE_S"]))
        finally:
            os.kill(pid, signal.SIGCONT)

    def api_killed(self) -> None:
        """kill -9 of the second."""
        self._extra_api()

    # Redis

    def redis_paused(self) -> None:
        with self._stack.valkey.paused():
            self._wait(0.5, 6)

    def connections_cut(self) -> None:
        with self._stack.valkey.client() as client:
            for _ in range(self._rng.randint(1, 5)):
                for kind in ("normal", "pubsub"):
                    client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
                self._wait(0.2, 1)

    def scripts_flushed(self) -> None:
        with self._stack.valkey.client() as client:
            client.script_flush()

    # the provider

    def provider_down(self) -> None:
        self._for_a_while(outage=self._rng.choice(["503", "drop", "hang"]))

    def provider_fails_one_in_five(self) -> None:
        self._for_a_while(error_rate=0.1, drop_rate=0.1)

    def provider_hangs(self) -> None:
        self._for_a_while(hang_rate=0.02)

    def provider_limits(self) -> None:
        self._for_a_while(rpm=600)

    def _for_a_while(self, **behaviour: Any) -> None:
        before: dict[str, Any] = {
            "outage": "none",
            "error_rate": 0.0,
            "drop_rate": 0.0,
            "hang_rate": 0.0,
            "rpm": None,
        }
        self._stack.simulator.patch(**behaviour)
        self._wait(1, 8)
        self._stack.simulator.patch(**{name: before[name] for name in behaviour})


def reachable(client: "redis.Redis", for_s: float = 30.0) -> None:
    """Until Redis answers again."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        try:
            client.ping()
        except redis.RedisError:
            time.sleep(0.1)
        else:
            return
