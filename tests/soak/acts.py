"""The disturbances themselves. The first worker and the first API process are never ended: their memory is looked at."""

import os
import random
import signal
import threading
from collections.abc import Callable
from typing import Any

import requests
from support.stack import Stack
from support.waiting import wait_for

CALM: dict[str, Any] = {
    "outage": "none",
    "error_rate": 0.0,
    "drop_rate": 0.0,
    "hang_rate": 0.0,
    "malformed_rate": 0.0,
    "rpm": None,
    "latency_s": 0.05,
}
QUEUES = ("interactive", "batch")
PROVIDERS = ("one", "two")


def providers(stack: Stack, **more: Any) -> list[dict[str, Any]]:
    """Two of them; hung calls end soon."""
    return [
        {
            "id": name,
            "endpoint": stack.simulator.base_url_of(name),
            "cost_per_1k_tokens": 0.01,
            "limits": {"concurrency": 40},
            "timeouts": {"connect_s": 2, "read_s": 8, "total_s": 20},
            **more,
        }
        for name in PROVIDERS
    ]


def configure(stack: Stack, **more: Any) -> None:
    """So many retries that no job fails by chance of what one provider call in five does."""
    stack.configure(providers(stack, **more), retry={"max_retries": 12})


class Acts:
    """`stop` ends every wait. `worker_starts` counts all of them."""

    def __init__(self, stack: Stack, second_api: str, rng: random.Random) -> None:
        self._stack = stack
        self._second = second_api
        self._rng = rng
        self.stop = threading.Event()
        self.worker_starts = len(stack.workers)

    def all(self, *, store_too: bool) -> list[Callable[[], None]]:
        """`store_too`: Valkey is killed as well."""
        return [
            *(self.worker_killed, self.worker_replaced, self.worker_frozen, self.prober_killed),
            *(self.api_killed, self.api_replaced),
            *(
                self.redis_silent,
                self.connections_cut,
                self.scripts_forgotten,
                self.hints_lost,
                self.hints_doubled,
            ),
            *(
                self.outage,
                self.outage_of_one,
                self.one_call_in_five_fails,
                self.calls_hang,
                self.calls_are_slow,
            ),
            *(self.calls_are_limited, self.provider_off, self.providers_file_changed),
            *((self.redis_killed,) if store_too else ()),
        ]

    def mend(self) -> None:
        """The provider's moods, and what an operator has done, are as at first."""
        self._stack.simulator.patch("*", **CALM)
        for name in PROVIDERS:
            self._ask_of(name, "enable")
        configure(self._stack)

    def _wait(self, low_s: float, high_s: float) -> None:
        self.stop.wait(self._rng.uniform(low_s, high_s))

    # processes

    def _another_worker(self) -> None:
        self.worker_starts += 1
        self._stack.start_worker()

    def worker_killed(self) -> None:
        """kill -9."""
        self._stack.kill_worker(self._stack.workers[-1])
        self._wait(0, 5)
        self._another_worker()

    def worker_replaced(self) -> None:
        """A new one first, then SIGTERM to the old one."""
        old = self._stack.workers[-1]
        self._another_worker()
        self._stack.stop_worker(old, 60)

    def worker_frozen(self) -> None:
        """SIGSTOP for up to three leases, then SIGCONT: a zombie."""
        pid = self._stack.workers[-1].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            self._wait(1, 3 * float(self._stack.env["LLM_EDGE_LEASE_S"]))
        finally:
            os.kill(pid, signal.SIGCONT)

    def prober_killed(self) -> None:
        """A worker dies while the probes of broken providers hang; by chance it is one that had sent one."""
        self._stack.simulator.patch("*", outage="503")
        try:
            self._wait(1, 2)
            self._stack.simulator.patch("*", outage="hang")
            self._wait(1, 2)
            self._stack.kill_worker(self._stack.workers[-1])
        finally:
            self._stack.simulator.patch("*", outage="none")
        self._another_worker()

    def api_killed(self) -> None:
        """kill -9 of the second."""
        self._stack.kill_another_api()
        self._wait(0, 3)
        self._stack.start_another_api(self._second)

    def api_replaced(self) -> None:
        """SIGTERM to the second."""
        self._stack.stop_another_api()
        self._stack.start_another_api(self._second)

    # Redis

    def redis_silent(self) -> None:
        with self._stack.valkey.paused():
            self._wait(0.5, 6)

    def redis_killed(self) -> None:
        """kill -9, and back with all that was answered."""
        self._stack.valkey.kill()
        self._wait(0, 3)
        self._stack.valkey.start()

    def connections_cut(self) -> None:
        with self._stack.valkey.client() as client:
            for _ in range(self._rng.randint(1, 5)):
                for kind in ("normal", "pubsub"):
                    client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
                self._wait(0.2, 1)

    def scripts_forgotten(self) -> None:
        with self._stack.valkey.client() as client:
            client.script_flush()

    def hints_lost(self) -> None:
        """A worker in its sleep lets some come together."""
        with self._stack.valkey.client() as client:
            for _ in range(20):
                client.delete(*QUEUES)
                self._wait(0.02, 0.1)

    def hints_doubled(self) -> None:
        with self._stack.valkey.client() as client:
            for _ in range(20):
                for queue in QUEUES:
                    for message in client.lrange(queue, 0, 20):
                        client.lpush(queue, message, message)
                self._wait(0.02, 0.1)

    # providers

    def outage(self) -> None:
        self._for_a_while("*", outage=self._rng.choice(["503", "drop", "hang"]))

    def outage_of_one(self) -> None:
        self._for_a_while("one", outage=self._rng.choice(["503", "drop", "hang", "401", "429_quota"]))

    def one_call_in_five_fails(self) -> None:
        self._for_a_while("*", error_rate=0.1, drop_rate=0.05, malformed_rate=0.05)

    def calls_hang(self) -> None:
        self._for_a_while("*", hang_rate=0.02)

    def calls_are_slow(self) -> None:
        self._for_a_while("*", latency_s=2.0)

    def calls_are_limited(self) -> None:
        """429 with Retry-After."""
        self._for_a_while("*", rpm=600)

    def _for_a_while(self, persona: str, **behaviour: Any) -> None:
        self._stack.simulator.patch(persona, **behaviour)
        try:
            self._wait(1, 8)
        finally:
            self._stack.simulator.patch(persona, **{name: CALM[name] for name in behaviour})

    # the operator

    def provider_off(self) -> None:
        """One is disabled or drained; now and then both."""
        names = self._rng.choice([("one",), ("two",), PROVIDERS])
        action = self._rng.choice(["disable", "drain"])
        try:
            for name in names:
                self._ask_of(name, action)
            self._wait(1, 6)
        finally:
            for name in names:
                self._ask_of(name, "enable")

    def providers_file_changed(self) -> None:
        """A broken file, which is refused; one with other limits and weights; and the first again."""
        whole = self._stack.config.read_bytes()
        self._stack.config.write_bytes(whole[: len(whole) // 2] + b"\n: [")
        self._wait(1, 3)
        configure(self._stack, weight=self._rng.randint(1, 5), limits={"concurrency": 20, "rpm": 60_000})
        self._wait(2, 5)
        self._stack.config.write_bytes(whole)

    def _ask_of(self, name: str, action: str) -> None:
        def done() -> bool:
            url = f"{self._stack.base_url}/providers/{name}/{action}"
            try:
                return requests.post(url, timeout=10).ok
            except requests.RequestException:
                return False

        wait_for(done, 30, f"{action} of {name}", every_s=0.25)
