"""A whole stack of real processes for flow tests: Valkey, the API, workers and the provider simulator, each on a free port.

Every process is stopped by its pid when the test ends, however it ends.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
import yaml
from openai import OpenAI
from support.simulator import Simulator, running_simulator
from support.valkey import Valkey, running_valkey
from support.waiting import wait_for

from shared.config import load_settings
from shared.redis_client import connect
from shared.redis_ledger import RedisLedger

_EDGE = (sys.executable, "-m", "api.cli.main")
START_S = 90.0  # a bound, for machines with many other things to do
BREAK_S = 0.5
STOP_S = 20.0


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        assert isinstance(port, int)
        return port


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).ok
    except requests.RequestException:
        return False


class Stack:
    """The processes and how to reach them. `workers` and `api` are None or absent where they have been killed."""

    def __init__(self, folder: Path, valkey: Valkey, simulator: Simulator, env: dict[str, str]) -> None:
        self.folder = folder
        self.pool = env.get("LLM_EDGE_POOL", "gevent")
        self.valkey = valkey
        self.simulator = simulator
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.url}/v1"
        self.config = folder / "providers.yaml"
        self.env = {
            **os.environ,
            "REDIS_URL": valkey.url,
            "SERVER_PORT": str(self.port),
            "LLM_EDGE_CONFIG": str(self.config),
            "LLM_EDGE_URL": self.url,
            "LLM_EDGE_LEASE_S": "2",
            "LLM_EDGE_TICK_S": "0.1",
            "LLM_EDGE_HINT_VISIBILITY_S": "10",
            **env,
        }
        self.part_env: dict[str, dict[str, str]] = {}
        """What `api` or `worker` alone is given besides."""
        self.key = env.get("LLM_EDGE_API_KEY", "none")
        """An admin's, where the stack asks for keys."""
        self.api: subprocess.Popen[bytes] | None = None
        self.another_api: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self._started = 0
        self._all: list[subprocess.Popen[bytes]] = []
        self._clients: list[
            OpenAI
        ] = []  # closed with the stack, or a socket's end would be another test's warning

    @property
    def client(self) -> OpenAI:
        return self.client_of(self.key)

    def client_of(self, key: str) -> OpenAI:
        client = OpenAI(base_url=self.base_url, api_key=key, max_retries=0, timeout=30)
        self._clients.append(client)
        return client

    def configure(self, providers: list[dict[str, Any]] | None = None, **sections: Any) -> None:
        """Write the providers file; by default one provider, the simulator, and a breaker whose breaks are short."""
        found = providers or [{"id": "sim", "endpoint": self.simulator.base_url, "cost_per_1k_tokens": 0.01}]
        whole = {"providers": found, "breaker": {"reset_timeout_s": BREAK_S}, **sections}
        self.config.write_text(yaml.safe_dump(whole), encoding="utf-8")

    def _spawn(self, name: str, *args: str, **env: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*_EDGE, *args],
                cwd=self.folder,
                env={**self.env, **self.part_env.get(args[0], {}), **env},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self._all.append(process)
        return process

    def start_api(self, *, wait: bool = True) -> None:
        self.api = self._spawn("api", "api")
        if wait:
            self.await_api()

    def await_api(self) -> None:
        wait_for(self._healthy, START_S, f"the API to answer; see {self.folder}/api.log:\n{self.log('api')}")

    def _healthy(self) -> bool:
        assert self.api is not None
        assert self.api.poll() is None, f"the API ended:\n{self.log('api')}"
        return _answers(f"{self.url}/health")

    def start_another_api(self, base_url: str = "") -> str:
        """A second process beside the first; gives its base URL. With `base_url` it is there once more."""
        port = urlsplit(base_url).port or free_port()
        self.another_api = self._spawn("api-2", "api", SERVER_PORT=str(port))
        url = f"http://127.0.0.1:{port}"
        wait_for(
            lambda: _answers(f"{url}/health"),
            START_S,
            f"the second API to answer; its log:\n{self.log('api-2')}",
        )
        return f"{url}/v1"

    def stop_another_api(self) -> None:
        """SIGTERM."""
        assert self.another_api is not None
        self.another_api.send_signal(signal.SIGTERM)
        self.another_api.wait(START_S)
        self.another_api = None

    def kill_another_api(self) -> None:
        assert self.another_api is not None
        self.another_api.kill()
        self.another_api.wait()
        self.another_api = None

    def kill_api(self) -> None:
        assert self.api is not None
        self.api.kill()
        self.api.wait()
        self.api = None

    def start_worker(self, *args: str, wait: bool = True, **env: str) -> subprocess.Popen[bytes]:
        self._started += 1
        name = f"worker-{self._started}"
        worker = self._spawn(name, "worker", "--name", f"w@test-{self._started}", *args, **env)
        self.workers.append(worker)
        if wait:
            self.await_worker(worker, name)
        return worker

    def await_worker(self, worker: subprocess.Popen[bytes], name: str) -> None:
        """Until its heartbeat stands in the ledger: an id has the pid in it."""
        settings = load_settings({**self.env, **self.part_env.get("api", {})})
        with connect(settings.redis, role="worker", max_connections=1) as redis:
            ledger = RedisLedger(redis, settings.key_prefix)

            def up() -> bool:
                assert worker.poll() is None, f"{name} ended:\n{self.log(name)}"
                return any(f"-{worker.pid}-" in found.id for found in ledger.workers())

            wait_for(up, START_S, f"{name} to report; its log:\n{self.log(name)}")

    def stop_worker(self, worker: subprocess.Popen[bytes], timeout_s: float = STOP_S) -> None:
        """SIGTERM: calls in flight end, the rest is handed back."""
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout_s) == 0
        self.workers.remove(worker)

    def kill_worker(self, worker: subprocess.Popen[bytes]) -> None:
        """kill -9."""
        worker.kill()
        worker.wait()
        self.workers.remove(worker)

    def workers_alive(self) -> int:
        headers = {"Authorization": f"Bearer {self.key}"}
        found = requests.get(f"{self.url}/health/ready", headers=headers, timeout=5).json()["workers"]
        assert isinstance(found, int)
        return found

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        running = [p for p in self._all if p.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def running_stack(
    *simulator_args: str,
    workers: int = 2,
    aof: bool | Literal["always"] = False,
    part_env: dict[str, dict[str, str]] | None = None,
    configure: Callable[[Stack], None] = Stack.configure,
    **env: str,
) -> Iterator[Stack]:
    """`configure` writes the providers file before anything reads it. All processes start side by side."""
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="llm-edge-test-")))
        valkey = parts.enter_context(
            running_valkey(aof=bool(aof), fsync="always" if aof == "always" else "everysec")
        )
        simulator = parts.enter_context(running_simulator(*simulator_args))
        stack = Stack(folder, valkey, simulator, env)
        stack.part_env = part_env or {}
        parts.callback(stack.stop)
        configure(stack)
        stack.start_api(wait=False)
        started = [stack.start_worker(wait=False) for _ in range(workers)]
        stack.await_api()
        for n, worker in enumerate(started, 1):
            stack.await_worker(worker, f"worker-{n}")
        yield stack
