"""The provider simulator as a real process: the tests' provider, and their witness."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests


class Simulator:
    """`url` without a path; `base_url` ends in /v1. `calls()` is what the provider has seen, in order."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.process = process
        self.url = url
        self.base_url = f"{url}/v1"

    @property
    def pid(self) -> int:
        return self.process.pid

    def patch(self, persona: str | None = None, **behaviour: Any) -> None:
        params = {"persona": persona} if persona else None
        answer = requests.patch(f"{self.url}/simulator/behaviour", params=params, json=behaviour, timeout=5)
        assert answer.ok, answer.text

    def calls(self, after: int = 0) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            params = {"after": after, "limit": 10_000}
            page = requests.get(f"{self.url}/simulator/calls", params=params, timeout=10).json()
            if not page["calls"]:
                return found
            found += page["calls"]
            after = found[-1]["n"]

    def stats(self) -> dict[str, Any]:
        found = requests.get(f"{self.url}/simulator/stats", timeout=5).json()
        assert isinstance(found, dict)
        return found

    def reset(self) -> None:
        assert requests.post(f"{self.url}/simulator/reset", timeout=5).ok


@contextmanager
def running_simulator(*args: str) -> Iterator[Simulator]:
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.simulator", "--port", "0", *args], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening "), line
        yield Simulator(process, line.split()[1])
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
