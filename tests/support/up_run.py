"""A running `llm-edge up` (or its stand-in), seen from outside: its lines, its processes, its end."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import redis
from support.waiting import wait_for

STAND_IN = (sys.executable, "-P", str(Path(__file__).with_name("up_standin.py")), "up")
LLM_EDGE = (sys.executable, "-m", "api.cli.main", "up")

_OURS = (
    "REDIS_URL",
    "BROKER_URL",
    "LLM_EDGE_API_KEYS",
    "LLM_EDGE_API_KEYS_FILE",
    "METRICS_HOST",
    "LLM_EDGE_CONFIG",
    "SERVER_HOST",
    "SERVER_PORT",
    "LLM_EDGE_DIR",
    "OPENAI_API_KEY",
)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Living processes that work in the folder: all that `up` starts do."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


class UpRun:
    """One `up` in the working folder `home`; its data are in `home/.llm-edge`."""

    def __init__(self, home: Path, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.home = home
        self.folder = home / ".llm-edge"
        env = {name: value for name, value in os.environ.items() if name not in _OURS} | dict(environ)
        self._process = subprocess.Popen(
            [*command, "--dir", str(self.folder)],
            cwd=home,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.lines: list[str] = []
        self._enough = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def said(self, words: str) -> str | None:
        """The first line with these words."""
        return next(iter(self.all_said(words)), None)

    def all_said(self, words: str) -> list[str]:
        return [line for line in self.lines if words in line]

    def wait_said(self, words: str, timeout_s: float = 20.0) -> str:
        try:
            return wait_for(lambda: self.said(words) or "", timeout_s, f"{words!r}")
        except AssertionError as exc:
            raise AssertionError(f"{exc}; it said:\n{self.output}") from exc

    def wait_ready(self, timeout_s: float = 30.0) -> str:
        """The URL of the API."""
        return self.wait_said("ready http", timeout_s).removeprefix("ready ")

    def part(self, name: str) -> int:
        """The pid of a part, as `up` noted it; 0 while it does not run."""
        with suppress(OSError, ValueError):
            noted = json.loads((self.folder / "parts.json").read_bytes())
            return next((pgid for pgid, called, *_ in noted if called == name), 0)
        return 0

    def janitor(self) -> int:
        children = psutil.Process(self.pid).children()
        return next((child.pid for child in children if "janitor.py" in " ".join(child.cmdline())), 0)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, timeout_s: float = 20.0) -> int:
        """Its exit status."""
        status = self._process.wait(timeout_s)
        self._reader.join(5)
        return status

    def client(self) -> "redis.Redis":
        """A client of the embedded server. The caller closes it."""
        words = dict(line.split(" ", 1) for line in (self.folder / "valkey.conf").read_text().splitlines())
        return redis.Redis(port=int(words["port"]), password=words["requirepass"], decode_responses=True)

    def stop_reading(self) -> None:
        """Like a terminal or pipe that goes away."""
        self._enough.set()
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def close(self) -> None:
        """Whatever happened: nothing of it lives on."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for process in processes_in(self.home):
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        self.stop_reading()

    def _read(self) -> None:
        """Until the end of its output, or until told that it is enough."""
        out, rest = self._process.stdout, b""
        while out is not None and not self._enough.is_set():
            if not select.select([out], [], [], 0.05)[0]:
                continue
            got = os.read(out.fileno(), 65536)
            if not got:
                return
            *lines, rest = (rest + got).split(b"\n")
            self.lines.extend(line.decode() for line in lines)


@contextmanager
def running_up(
    home: Path, *words: str, command: Sequence[str] = STAND_IN, environ: Mapping[str, str] | None = None
) -> Iterator[UpRun]:
    """An `up` that was just started in `home`, with these options. Not yet ready."""
    run = UpRun(home, [*command, *words], environ or {})
    try:
        yield run
    finally:
        run.close()
