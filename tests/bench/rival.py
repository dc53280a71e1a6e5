"""Runs one rival against the same provider simulator: its workers, its sender, its speed."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from bench.cpu import PROVIDER, Cpu
from bench.prompts import bodies
from bench.section import END_S
from bench.tools import BIN
from support.simulator import Simulator, running_simulator
from support.valkey import running_valkey
from support.waiting import wait_for

HOME = Path(__file__).with_name("rivals")
WARM_UP = 400


@dataclass(frozen=True)
class Rival:
    """`commands` start the workers; `how` is what a reader needs to judge the choice; `jobs` are those of a full run."""

    name: str
    module: str
    commands: list[list[str]]
    how: str
    jobs: int
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Speed:
    """`cpu` in seconds by part, sending not included; `send_ms` is the sender's CPU per job."""

    jobs: int
    per_s: float
    cpu: dict[str, float]
    send_ms: float = 0.0


class _Running:
    def __init__(self, rival: Rival, url: str, simulator: Simulator, folder: Path) -> None:
        self._env = {**os.environ, **rival.env, "REDIS_URL": url}
        self._rival, self._simulator, self._folder = rival, simulator, folder
        self._bodies = folder / "bodies.jsonl"
        self._bodies.write_bytes(bodies(4000))
        self.workers = [self._start(command, n) for n, command in enumerate(rival.commands)]

    def _start(self, command: list[str], n: int) -> "subprocess.Popen[bytes]":
        with (self._folder / f"worker-{n}.log").open("wb") as log:
            return subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                cwd=HOME,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in self._folder.glob("*.log"))

    def send(self, count: int) -> dict[str, float]:
        """What the sender says of itself; returns when all is sent."""
        url = f"{self._simulator.base_url}/chat/completions"
        command = [str(BIN / "python"), f"{self._rival.module}.py", url, str(self._bodies), str(count)]
        done = subprocess.run(command, cwd=HOME, env=self._env, check=True, stdout=subprocess.PIPE)
        said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return said

    def wait_for_calls(self, count: int) -> None:
        def answered() -> bool:
            assert all(w.poll() is None for w in self.workers), f"a worker ended:\n{self.logs()}"
            seen = self._simulator.stats().get("default", {"calls": 0, "in_flight": 0})
            return bool(seen["calls"] - seen["in_flight"] >= count)

        try:
            wait_for(answered, END_S, f"{self._rival.name} to answer {count}", every_s=0.1)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.logs()}") from exc

    def signal_all(self, number: signal.Signals) -> None:
        for worker in self.workers:
            root = psutil.Process(worker.pid)
            for process in [root, *root.children(recursive=True)]:
                process.send_signal(number)

    def stop(self) -> None:
        for worker in self.workers:
            family = psutil.Process(worker.pid).children(recursive=True) if worker.poll() is None else []
            worker.terminate()
            try:
                worker.wait(10)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            for process in psutil.wait_procs(family, timeout=2)[1]:
                process.kill()


@contextmanager
def _running(rival: Rival, latency_s: float) -> Iterator[tuple[_Running, Simulator, int]]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-rival-") as folder,
        running_valkey() as valkey,
        running_simulator("--latency-s", str(latency_s)) as simulator,
    ):
        running = _Running(rival, valkey.url, simulator, Path(folder))
        try:
            running.send(WARM_UP)
            running.wait_for_calls(WARM_UP)
            yield running, simulator, valkey.pid
        finally:
            running.stop()


def measure(rival: Rival, jobs: int, latency_s: float, *, filled: bool = True) -> Speed:
    """`filled`: the queue is full before the clock starts, the workers held; else they run while the sender sends."""
    with _running(rival, latency_s) as (running, simulator, valkey_pid):
        if filled:
            running.signal_all(signal.SIGSTOP)
            sent = running.send(jobs)
        cpu = Cpu(
            workers=[w.pid for w in running.workers], valkey=[valkey_pid], **{PROVIDER: [simulator.pid]}
        )
        began = time.time()
        if filled:
            running.signal_all(signal.SIGCONT)
        else:
            sent = running.send(jobs)
            began = sent["began"]
        running.wait_for_calls(WARM_UP + jobs)
        spent = cpu.spent()
        wall_s = max(call["ended_at"] for call in simulator.calls(after=WARM_UP)) - began
        return Speed(jobs, jobs / wall_s, spent, 1000 * sent["cpu_s"] / jobs)
