"""The provider simulator as a real process: it answers, misbehaves as told, and is the witness of what was called.

with running_simulator("--latency-s", "0.05") as simulator:
    simulator.patch(outage="503")
    assert len(simulator.calls()) == 3
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import requests
from support.waiting import wait_for

START_S = 20.0
TIMEOUT_S = 20.0
PAGE = 10_000
_SAYS = "listening "


class Simulator:
    """One running process. `base_url` is the persona `default`'s; `base_url_of` gives the others'."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.base_url = f"{url}/v1"
        self.pid = pid

    def base_url_of(self, persona: str) -> str:
        return f"{self.url}/p/{persona}/v1"

    def patch(self, persona: str | None = None, **behaviour: Any) -> dict[str, Any]:
        """Change some settings of one persona, `default` where none is named; `*` is all of them. Gives all its settings."""
        query = {} if persona is None else {"persona": persona}
        answer = requests.patch(
            f"{self.url}/simulator/behaviour", params=query, json=behaviour, timeout=TIMEOUT_S
        )
        return self._object(answer)

    def calls(self, after: int = 0) -> list[dict[str, Any]]:
        """Every call received, in order, with a number above `after`."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._get("calls", after=after, limit=PAGE)
            found += page["calls"]
            after = page["last"]
            if len(page["calls"]) < PAGE:
                return found

    def stats(self) -> dict[str, dict[str, Any]]:
        """By persona: calls, by_status, prompt_tokens, completion_tokens, in_flight, max_in_flight."""
        return self._get("stats")

    def reset(self) -> None:
        """Behaviours, counters and log as at the start."""
        self._object(requests.post(f"{self.url}/simulator/reset", timeout=TIMEOUT_S))

    def _get(self, what: str, **query: int) -> dict[str, Any]:
        return self._object(requests.get(f"{self.url}/simulator/{what}", params=query, timeout=TIMEOUT_S))

    @staticmethod
    def _object(answer: requests.Response) -> dict[str, Any]:
        assert answer.ok, f"the simulator says {answer.status_code}: {answer.text}"
        return msgspec.json.decode(answer.content, type=dict[str, Any])


@contextmanager
def running_simulator(*args: str) -> Iterator[Simulator]:
    """A simulator with these options on a free port, killed at the end however the test ends."""
    with tempfile.TemporaryDirectory(prefix="simulator-") as folder:
        out = Path(folder, "out")
        process = start_simulator(out, *args)
        try:
            yield Simulator(listening(process, out), process.pid)
        finally:
            process.kill()
            process.wait()


def start_simulator(out: Path, *args: str) -> "subprocess.Popen[bytes]":
    """The process alone, its output in `out`; the caller stops it."""
    with out.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "workers.simulator", "--port", "0", *args],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def listening(process: "subprocess.Popen[bytes]", out: Path) -> str:
    """The URL, once the process has said that it listens."""

    def said() -> str | None:
        lines = out.read_text().splitlines(keepends=True)
        assert process.poll() is None, f"the simulator ended with {process.returncode}: {''.join(lines)}"
        return next((line for line in lines if line.startswith(_SAYS) and line.endswith("\n")), None)

    line = wait_for(said, START_S, "the simulator to listen")
    assert line is not None
    return line.removeprefix(_SAYS).strip()
